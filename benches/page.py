"""Writes docs/performance.md and its figures: everything that the other benches measure, and how
the time grows.

The tables are those of peers.py and elements.py. The curves show nanoseconds an element for rows
from 1 to 10^7 (of a hundred classes up to 10^5, of ten to 10^6 and of two to 10^7) and for classes
from 2 to 10^6, beside the floors of memory and torch eager; a table, what threads from 1 to all
bring. What is behind a peer, or far from its floor, is listed first, by what was
measured. Another table tells what bounds a call: memory, or what is computed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import elements
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import peers
import torch
from peers import EAGER, Result, Shape, cores, digits, race

import crossent
import crossent.functional as F

matplotlib.use("Agg")
# The same file for the same numbers, whenever it is drawn.
plt.rcParams.update({"svg.hashsalt": "crossent", "svg.fonttype": "none", "font.size": 9})

HERE = Path(__file__).parent.parent
CASES: list[Shape] = [
    *peers.CASES[:4],
    (65536, 100),
    (262144, 21),
    *peers.CASES[4:-1],
    (16, 2, 256, 256),
    (8, 150, 128, 128),
    peers.CASES[-1],
]
# Of each array in the curve by classes.
ELEMENTS = 4_000_000
# Rows of the curve by rows, and how many classes they have.
ROWS = dict.fromkeys((1, 10, 100, 1000, 10_000, 100_000), 100) | {10**6: 10, 10**7: 2}
CLASSES = [2, 4, 8, 16, 32, 64, 128, 256, 1000, 4000, 16_000, 64_000, 250_000, 1_000_000]
THREADS_SHAPES = [(8192, 1000), (65536, 10), (512, 50257), (8, 500_000)]
# Slower than this many floors is said first.
FAR = 2.0
# Elements of which input and gradient lie in a core's second-level cache.
CACHED = 128 << 10
COLORS = {
    "floor": "0.6",
    "crossent": "C3",
    EAGER: "C0",
    "torch.compile": "C9",
    "jax.jit + optax": "C2",
    "NumPy": "C1",
}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = crossent.get_num_threads()
    crossent.set_num_threads(count)
    try:
        yield
    finally:
        crossent.set_num_threads(before)


def calls(shape: Shape) -> list[list[Callable[[], Any]]]:
    """The floor, crossent and torch: for the loss, then with the gradient."""
    problem = peers.Problem.random(shape, np.random.default_rng(0))
    contestants = [make(problem) for make in (peers.make_floor, peers.make_crossent)]
    contestants.append(peers.make_torch(problem))
    return [[c.loss for c in contestants], [c.gradient for c in contestants]]


def curve(shapes: list[Shape], repeats: int) -> list[list[list[float]]]:
    """Of each shape: nanoseconds an element of the floor, crossent and torch, and of crossent on
    one thread; for the loss, then with the gradient."""
    lines = []
    for shape in shapes:
        both = []
        for group in calls(shape):
            times = race(group, repeats)
            with threads(1):
                times += race(group[1:2], repeats)
            both.append([time / math.prod(shape) * 1e9 for time in times])
        lines.append(both)
        print(shape, *([digits(t) for t in times] for times in both), flush=True)
    return lines


def draw_curve(path: Path, x: list[int], label: str, lines: list[list[list[float]]]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, title, which in zip(axes, ("loss", "loss + gradient"), (0, 1), strict=True):
        for name, style, at in (
            ("floor of memory", {"color": "0.6", "ls": "--"}, 0),
            ("torch eager", {"color": "C0"}, 2),
            ("crossent, one thread", {"color": "C3", "ls": ":"}, 3),
            (f"crossent, {cores()} threads", {"color": "C3"}, 1),
        ):
            axis.plot(x, [line[which][at] for line in lines], marker=".", label=name, **style)
        axis.set(xscale="log", yscale="log", xlabel=label, title=title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ns an element")
    axes[0].legend(frameon=False)
    save(figure, path)


def draw_bars(path: Path, results: list[Result]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 5.4), sharey=True, layout="constrained")
    titles = results[0].titles[1:]
    height = 0.8 / len(titles)
    for axis, title, which in zip(
        axes, ("loss", "loss + gradient"), ("loss", "gradient"), strict=True
    ):
        for i, name in enumerate(titles):
            floors = [getattr(r, which)[i + 1] / getattr(r, which)[0] for r in results]
            at = [-row - (i + 0.5) * height for row in range(len(results))]
            axis.barh(at, floors, height, label=name, color=COLORS[name])
        axis.axvline(1, color="0.6", ls="--")
        axis.set(xscale="log", xlabel="times the floor of memory", title=title)
    axes[0].set_yticks([-row - 0.4 for row in range(len(results))])
    axes[0].set_yticklabels([str(result.shape) for result in results])
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=len(titles))
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def thread_table(repeats: int) -> list[str]:
    """How many times as fast as on one thread."""
    counts = list(range(1, cores() + 1))
    lines = [
        f"| cross_entropy | {' | '.join(f'{n} threads' for n in counts)} |",
        "|---" + "|---:" * len(counts) + "|",
    ]
    for shape in THREADS_SHAPES:
        for title, group in zip(("", " + gradient"), calls(shape), strict=True):
            times = []
            for count in counts:
                with threads(count):
                    times += race(group[1:2], repeats)
            cells = [f"{digits(times[0] / time)}×" for time in times]
            lines.append(f"| {shape}{title} | {' | '.join(cells)} |")
    return lines


def in_cache(shape: Shape, repeats: int) -> list[float]:
    """Seconds an element, of the loss and with its gradient, on one thread where rows lie in its
    cache: the slope between two sizes, as a call takes time by itself."""
    classes = shape[1]
    problems = []
    for count in (max(1, CACHED // 2 // classes), max(2, CACHED // classes)):
        few: Shape = (count, classes) if len(shape) == 2 else (1, classes, count)
        problems.append(peers.Problem.random(few, np.random.default_rng(0)))
    first, second = (peers.make_crossent(problem) for problem in problems)
    more = problems[1].x.size - problems[0].x.size
    seconds = []
    with threads(1):
        for group in ([first.loss, second.loss], [first.gradient, second.gradient]):
            less, all_of_it = race(group, repeats)
            seconds.append((all_of_it - less) / more)
    return seconds


def bounds(results: list[Result], repeats: int) -> list[str]:
    """Beside each call, what memory takes and what computing takes with all threads."""
    heads = "memory | computing | crossent | memory | computing | crossent, with gradient"
    lines = [f"| | {heads} |", f"|---{'|---:' * 6}|"]
    for result in results:
        elements = math.prod(result.shape)
        if elements < CACHED:
            continue
        cells = []
        for times, an_element in zip(
            (result.loss, result.gradient), in_cache(result.shape, repeats), strict=True
        ):
            floor, ours = times[:2]
            computing = an_element * elements / cores()
            cells += [
                peers.duration(floor),
                peers.duration(computing),
                f"{peers.duration(ours)} ({digits(ours / max(floor, computing))}×)",
            ]
        lines.append(f"| {result.shape} | {' | '.join(cells)} |")
    return lines


def shortfalls(results: list[Result]) -> list[str]:
    """What a reader who looks for a catch should see first."""
    behind, far = [], []
    for result in results:
        floors = []
        for title, times in (("loss", result.loss), ("loss + gradient", result.gradient)):
            floor, ours, *others = times
            for name, time in zip(result.titles[2:], others, strict=True):
                if time < ours:
                    behind.append(
                        f"- {result.shape}, {title}: {name} takes {digits(time / ours)} of "
                        "crossent's time."
                    )
            # A call of microseconds has nothing to do with memory.
            if ours > FAR * floor and ours > 1e-4:
                floors.append(f"{digits(ours / floor)} ({title})")
        if floors:
            far.append(f"{result.shape} takes {' and '.join(floors)}")
    lines = behind or ["- Of the shapes below crossent is behind none of its peers."]
    if far:
        lines.append(f"- More than {digits(FAR)} floors of memory: {'; '.join(far)}.")
    x = np.random.default_rng(0).standard_normal((512, 50257), np.float32)
    y, out = np.zeros(512, np.int64), np.zeros_like(x)
    fresh, into = race(
        [
            lambda: F.cross_entropy(x, y, return_grad=True),
            lambda: F.cross_entropy(x, y, grad_out=out),
        ],
        5,
    )
    lines.append(
        f"- A gradient in a new array costs what the system takes to supply its memory: of "
        f"(512, 50257), {peers.duration(fresh)} instead of {peers.duration(into)} into a buffer "
        "that is used again (`grad_out=`)."
    )
    return lines


PAGE = """# Performance

Written by `python benches/page.py`, which `make bench` ends with: float32 unless said, medians of
contestants that take turns in one run, their answers checked against float64 before anything is
timed.

{machine}. The floors are measured beside: a pass that reads the inputs and does nothing else, and
one that copies them past the caches.

## Where it is not ahead

{shortfalls}

## Cross-entropy of indices

In brackets: times the floor; for peers, how many times crossent's time they take. Peers make a new
gradient each time, as autograd does; NumPy and crossent use a buffer again.
{peers}

![Times the floor](figures/performance-peers.svg)

## What bounds a call

Memory, or the kernels: `memory` is the floor of above, `computing` what crossent takes for rows
that lie in a core's own cache, by as many threads. The larger of both is what a call would take if
one were never waited for by the other; in brackets, times that. Targets, of 8 bytes each, are no
part of the floor: of 2 classes they are as many bytes as the logits.

{bounds}

## Elements, entropies, divergences, softmax

{elements}

## How time grows

With the rows, of 100 classes up to 100 000 rows, of 10 with a million and of 2 with ten: up to some
hundred rows a call is what Python and the library take to begin with; threads join where they pay.

![By rows](figures/performance-rows.svg)

With the classes, of {elements_count} elements: few classes are computed with lanes across rows,
many along them (`docs/architecture.md` tells where that changes and why).

![By classes](figures/performance-classes.svg)

With threads:

{threads}

## Do it again

`make bench` runs everything, `QUICK=1 make bench` less of it. `make bench-compare BASE=<commit>`
compares two builds of crossent in one run: for each case the median of the ratios of their times,
and the middle half of them. `cargo bench` measures the kernels alone, without Python, in bytes a
second. `CROSSENT_SIMD=avx2` or `baseline` forces a lower instruction set on crossent and the
floors.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=list(peers.PEERS), default=list(peers.PEERS))
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, default=HERE / "docs", help="default: docs")
    options = parser.parse_args()
    crossent.set_num_threads(cores())
    torch.set_num_threads(cores())
    repeats = 5 if options.quick else 11
    figures = options.out / "figures"
    figures.mkdir(parents=True, exist_ok=True)

    rows: list[Shape] = list(ROWS.items())
    classes: list[Shape] = [(max(1, ELEMENTS // c), c) for c in CLASSES]
    draw_curve(figures / "performance-rows.svg", list(ROWS), "rows", curve(rows, repeats))
    draw_curve(figures / "performance-classes.svg", CLASSES, "classes", curve(classes, repeats))
    of_threads = thread_table(repeats)
    of_elements = []
    for line in elements.tables(elements.SHAPE, repeats):
        of_elements.append(line)
        print(line, flush=True)
    results = []
    for shape in CASES:
        results.append(peers.measure(shape, options.peers, repeats, 0))
        peers.print_result(results[-1], sys.stdout)
    draw_bars(figures / "performance-peers.svg", results)
    page = PAGE.format(
        machine=peers.machine(options.peers),
        shortfalls="\n".join(shortfalls(results)),
        peers=peers.markdown(results),
        bounds="\n".join(bounds(results, repeats)),
        elements="\n".join(of_elements),
        elements_count=f"{ELEMENTS:,}".replace(",", " "),
        threads="\n".join(of_threads),
    )
    (options.out / "performance.md").write_text(page)


if __name__ == "__main__":
    main()
