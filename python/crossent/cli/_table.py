"""Measures as text: the table at the end, and JSON that every reader takes."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def columns(table: dict[str, Any], bits: bool, most: int) -> tuple[list[str], list[list[str]], int]:
    """The head and the first rows of a table of classes or groups, by their share of the loss, and
    how many rows there are. Columns without a number are left out."""
    unit, scale = ("bits", BITS) if bits else ("nats", 1.0)
    there = np.flatnonzero(table["rows"])
    with np.errstate(invalid="ignore"):
        loss = (table["cross_entropy"] * table["weight"])[there]
    order = there[np.argsort(-loss, kind="stable")[:most]].tolist()

    def amount(nats: float) -> str:
        return digits(nats * scale)

    wanted: list[tuple[str, str, Callable[[Any], str]]] = [
        ("label", "label", str),
        ("rows", "rows", "{:,}".format),
        ("cross_entropy", unit, amount),
        ("perplexity", "perplexity", digits),
        ("bits_per_byte", "bits per byte", digits),
        ("accuracy", "accuracy", percent),
        *((name, f"top-{name[3:]}", percent) for name in table if name.startswith("top")),
        ("entropy", "entropy", amount),
        ("confidence", "confidence", percent),
        ("expected_calibration_error", "calibration error", percent),
        ("kl_divergence", "KL", amount),
    ]
    # Bytes, a baseline, and bins of confidence are not always there.
    may_lack = ("bits_per_byte", "expected_calibration_error", "kl_divergence")
    shown = [
        each
        for each in wanted
        if each[0] not in may_lack or not np.isnan(table.get(each[0], np.nan)).all()
    ]
    rows = [[text(table[name][i]) for name, _, text in shown] for i in order]
    return [title for _, title, _ in shown], rows, len(there)


def lines(evaluation: Evaluation, bits: bool, per_class: bool) -> list[str]:
    """Everything that a terminal is given."""
    table = measures(evaluation, bits)
    width = max(len(name) for name, _ in table)
    text = [f"{name:{width}}  {value}" for name, value in table]
    tables = [("class", evaluation.by_class())] if per_class else []
    groups = evaluation.by_group()
    tables += [("group", groups)] if len(groups["label"]) else []
    for what, each in tables:
        head, rows, count = columns(each, bits, SHOWN)
        text += ["", *aligned([what, *head[1:]], rows)]
        if count > SHOWN:
            text.append(f"and {count - SHOWN:,} more, with --json or --report")
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
