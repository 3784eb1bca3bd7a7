"""Measures as text: the table at the end, and JSON that every reader takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from crossent.evaluation import Evaluation

# Rows of a table of classes or groups that a terminal is given.
SHOWN = 20
BITS = 1 / math.log(2)


def json_safe(value: Any) -> Any:
    """Arrays as lists; NaN and infinities, which JSON has no numbers for, as the strings that
    protocol buffers have in JSON."""
    if isinstance(value, dict):
        return {key: json_safe(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_safe(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def digits(value: float) -> str:
    """A measure, to six digits."""
    return f"{value:.6g}"


def percent(share: float) -> str:
    return "nan" if math.isnan(share) else f"{100 * share:.2f} %"


def measures(evaluation: Evaluation, bits: bool) -> list[tuple[str, str]]:
    """Names and values, with their units."""
    unit, scale = ("bits", BITS) if bits else ("nats", 1.0)

    def amount(nats: float) -> str:
        return f"{digits(nats * scale)} {unit}"

    found = evaluation.summary()
    table = [("rows", f"{found['rows']:,}")]
    if found["ignored_rows"]:
        table.append(("rows ignored", f"{found['ignored_rows']:,}"))
    if found["nan_rows"]:
        table.append(("rows with NaN", f"{found['nan_rows']:,}"))
    table += [
        ("classes", f"{found['classes'] or 0:,}"),
        ("cross-entropy", amount(found["cross_entropy"])),
        ("perplexity", digits(found["perplexity"])),
    ]
    if "bits_per_byte" in found:
        table.append(("bits per byte", digits(found["bits_per_byte"])))
    table.append(("accuracy", percent(found["accuracy"])))
    table += [
        (f"top-{name[3:]} accuracy", percent(value))
        for name, value in found.items()
        if name.startswith("top")
    ]
    table += [
        ("entropy", amount(found["entropy"])),
        ("confidence", percent(found["confidence"])),
        ("calibration error", percent(found["expected_calibration_error"])),
    ]
    table += [(f"loss, {share(q)}", amount(value)) for q, value in found["loss_quantiles"].items()]
    if "kl_divergence" in found:
        table.append(("KL from baseline", amount(found["kl_divergence"])))
        table += [(f"KL, {share(q)}", amount(value)) for q, value in found["kl_quantiles"].items()]
    return table


def share(q: str) -> str:
    """How a quantile is called."""
    names = {"0.5": "median", "1": "largest"}
    return names.get(q, f"{100 * float(q):g} % quantile")


def columns(table: dict[str, Any], bits: bool) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of classes or groups, by their share of the loss."""
    unit, scale = ("bits", BITS) if bits else ("nats", 1.0)
    there = np.flatnonzero(table["rows"])
    with np.errstate(invalid="ignore"):
        loss = (table["cross_entropy"] * table["weight"])[there]
    order = there[np.argsort(-loss, kind="stable")].tolist()
    ranked = [name for name in table if name.startswith("top")]
    head = ["label", "rows", unit, "perplexity", "accuracy", *(f"top-{n[3:]}" for n in ranked)]
    head += ["confidence"]
    # Only of groups.
    error = table.get("expected_calibration_error")
    if error is not None:
        head.append("calibration error")
    rows = [
        [
            str(table["label"][i]),
            f"{table['rows'][i]:,}",
            digits(table["cross_entropy"][i] * scale),
            digits(table["perplexity"][i]),
            percent(table["accuracy"][i]),
            *(percent(table[name][i]) for name in ranked),
            percent(table["confidence"][i]),
            *([] if error is None else [percent(error[i])]),
        ]
        for i in order
    ]
    return head, rows


def lines(evaluation: Evaluation, bits: bool, per_class: bool) -> list[str]:
    """Everything that a terminal is given."""
    table = measures(evaluation, bits)
    width = max(len(name) for name, _ in table)
    text = [f"{name:{width}}  {value}" for name, value in table]
    tables = [("class", evaluation.by_class())] if per_class else []
    groups = evaluation.by_group()
    tables += [("group", groups)] if len(groups["label"]) else []
    for what, each in tables:
        head, rows = columns(each, bits)
        text += ["", *aligned([what, *head[1:]], rows[:SHOWN])]
        if len(rows) > SHOWN:
            text.append(f"and {len(rows) - SHOWN:,} more, with --json or --report")
    head, rows = worst(evaluation, bits)
    if rows:
        text += ["", *aligned(head, rows)]
    return text


def worst(evaluation: Evaluation, bits: bool) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of the least likely rows."""
    unit, scale = ("bits", BITS) if bits else ("nats", 1.0)
    head = ["row", "target", f"log-prob ({unit})", "rank", f"entropy ({unit})"]
    rows = [
        [
            str(token.row),
            str(token.target),
            digits(token.log_prob * scale),
            str(token.rank),
            digits(token.entropy * scale),
        ]
        for token in evaluation.worst_tokens()
    ]
    return head, rows


def aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest entry."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(f"{entry:>{width}}" for entry, width in zip(row, widths, strict=True))
        for row in (head, *rows)
    ]
