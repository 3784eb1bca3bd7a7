"""The HTML report: one file, which asks for nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isnan, log10
from typing import Any

import numpy as np

import crossent
from crossent.cli._table import BITS, columns, digits, measures, worst
from crossent.evaluation import Evaluation

# Rows of a table that a page shows: browsers are slow with more.
SHOWN = 1000
# Groups that have a reliability diagram.
DRAWN = 6
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c2330; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #dfe3ea; }
th:first-child, td:first-child { text-align: left; }
.scroll { max-height: 32rem; overflow: auto; }
.scroll th { position: sticky; top: 0; background: #fff; }
figure { margin: 0; display: inline-block; } figcaption { max-width: 26rem; color: #586175; }
svg { max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: #586175; }
.bar { fill: #3b6fb6; } .gap { fill: #d9534f; fill-opacity: .45; } .line { stroke: #8b93a5; }
code { background: #f1f3f7; padding: 0 .2rem; }
"""


def page(evaluation: Evaluation, logits: str, targets: str, bits: bool) -> str:
    """The whole page."""
    sections = [
        "<h2>Measures</h2>",
        html_table(["measure", "value"], [list(row) for row in measures(evaluation, bits)]),
        "<h2>Calibration</h2>",
        reliability_diagram(evaluation.reliability(), evaluation.expected_calibration_error),
        "<h2>Losses</h2>",
        histogram(evaluation, bits),
    ]
    groups = evaluation.by_group()
    if len(groups["label"]):
        sections += ["<h2>Groups</h2>", long_table("group", groups, bits)]
        sections.append(group_diagrams(evaluation, groups))
    sections += ["<h2>Classes</h2>", long_table("class", evaluation.by_class(), bits)]
    head, rows = worst(evaluation, bits)
    if rows:
        table = f'<div class="scroll">{html_table(head, rows)}</div>'
        sections += ["<h2>Least likely rows</h2>", table]
    name, against = escape(logits), escape(targets)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of {name}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Evaluation of <code>{name}</code> against <code>{against}</code></h1>
{"".join(sections)}
<p>crossent {escape(crossent.__version__)}</p>
</body>
</html>
"""


def html_table(head: Sequence[str], rows: Any) -> str:
    """A table, every entry escaped."""

    def line(tag: str, entries: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(e)}</{tag}>' for e in entries)}</tr>\n"

    body = "".join(line("td", row) for row in rows)
    return f"<table>\n<thead>{line('th', head)}</thead>\n<tbody>{body}</tbody>\n</table>\n"


def long_table(what: str, table: dict[str, Any], bits: bool) -> str:
    head, rows, count = columns(table, bits, SHOWN)
    text = f'<div class="scroll">{html_table([what, *head[1:]], rows)}</div>'
    if count > SHOWN:
        text += f"<p>The {SHOWN:,} with the largest share of the loss, of {count:,}.</p>"
    return text


def group_diagrams(evaluation: Evaluation, groups: dict[str, Any]) -> str:
    """The reliability diagrams of the groups with the most rows."""
    most = np.argsort(-groups["rows"], kind="stable")[:DRAWN]
    return "".join(
        reliability_diagram(
            evaluation.reliability(group=groups["label"].tolist()[i]),
            groups["expected_calibration_error"][i],
            f"Group {groups['label'][i]}. ",
        )
        for i in most.tolist()
    )


def reliability_diagram(diagram: dict[str, Any], error: float, of: str = "") -> str:
    """Accuracy over confidence, and how many rows each bin has."""
    size, low = 300, 40
    most = max(int(diagram["rows"].max()), 1)
    bars = []
    for lower, upper, rows, confidence, accuracy in zip(
        diagram["lower"].tolist(),
        diagram["upper"].tolist(),
        diagram["rows"].tolist(),
        diagram["confidence"].tolist(),
        diagram["accuracy"].tolist(),
        strict=True,
    ):
        if not rows:
            continue
        x, width = low + size * lower, size * (upper - lower)
        title = (
            f"<title>confidence {confidence:.4f}, accuracy {accuracy:.4f}, {rows:,} rows</title>"
        )
        top, bottom = max(accuracy, confidence), min(accuracy, confidence)
        bars += [
            rectangle("bar", x, size * (1 - accuracy) + 10, width, size * accuracy, title),
            rectangle("gap", x, size * (1 - top) + 10, width, size * (top - bottom), title),
            rectangle("bar", x, size + 100 - 50 * rows / most, width, 50 * rows / most, title),
        ]
    ticks = "".join(
        f'<text x="{low + size * t:g}" y="{size + 26}" text-anchor="middle">{t:g}</text>'
        f'<text x="{low - 6}" y="{size * (1 - t) + 14:g}" text-anchor="end">{t:g}</text>'
        for t in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    return (
        f"<figure>{svg(size + 60, size + 120, 'reliability diagram')}{''.join(bars)}"
        f'<line class="line" x1="{low}" y1="{size + 10}" x2="{low + size}" y2="10"/>'
        f'<line class="line" x1="{low}" y1="{size + 10}" x2="{low + size}" y2="{size + 10}"/>'
        f'<line class="line" x1="{low}" y1="{size + 100}" x2="{low + size}" y2="{size + 100}"/>'
        f'{ticks}<text x="{low + size / 2}" y="{size + 116}" text-anchor="middle">'
        "confidence; below, rows</text></svg>"
        f"<figcaption>{escape(of)}Accuracy (blue) in bins of confidence, and how far it is from "
        f"the mean confidence (red). Expected calibration error: {digits(error)}.</figcaption>"
        "</figure>"
    )


def histogram(evaluation: Evaluation, bits: bool) -> str:
    """Losses of rows on a logarithmic scale: 8 bars a factor of ten."""
    scale, unit = (BITS, "bits") if bits else (1.0, "nats")
    counts: dict[int, int] = {}
    nothing = infinite = 0
    for lower, upper, rows in evaluation.loss_bins():
        middle = (lower + upper) / 2 * scale
        if isnan(middle) or upper == float("inf"):
            infinite += rows
        elif lower == 0:
            nothing += rows
        else:
            place = max(-80, int(8 * log10(middle) // 1))
            counts[place] = counts.get(place, 0) + rows
    if not counts:
        return f"<p>{nothing:,} losses of 0, {infinite:,} infinite.</p>"
    first, last, most = min(counts), max(counts), max(counts.values())
    step = min(20.0, 700 / (last - first + 1))
    bars = "".join(
        rectangle(
            "bar",
            30 + step * (place - first),
            170 - 150 * rows / most,
            step * 0.9,
            150 * rows / most,
            f"<title>{10 ** (place / 8):.3g} to {10 ** ((place + 1) / 8):.3g} {unit}: "
            f"{rows:,} rows</title>",
        )
        for place, rows in sorted(counts.items())
    )
    ticks = "".join(
        f'<text x="{30 + step * (place - first):g}" y="188" text-anchor="middle">'
        f"{10 ** (place / 8):g}</text>"
        for place in range(first, last + 2)
        if place % 8 == 0
    )
    width = 60 + step * (last - first + 1)
    return (
        f"<figure>{svg(width, 200, 'losses of rows')}"
        f"{bars}{ticks}</svg><figcaption>Losses of rows in {unit}, on a logarithmic scale; "
        f"{nothing:,} are 0 and {infinite:,} infinite.</figcaption></figure>"
    )


def svg(width: float, height: float, label: str) -> str:
    """The tag that a picture begins with, as wide as this or as the page."""
    return (
        f'<svg width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="{label}">'
    )


def rectangle(kind: str, x: float, y: float, width: float, height: float, inside: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" '
        f'height="{height:.2f}">{inside}</rect>'
    )
