"""Two builds of crossent beside each other: is a change faster, slower, or neither?

Each build runs in a process of its own. Both take turns at every case, and each turn gives one
ratio of their times, so that noise that lasts longer than a turn cancels. What is printed is the
median of the ratios and the half of them in the middle: where 1 is well outside of that, the builds
differ.

    python benches/compare.py BASE THIS

compares crossent as installed in two directories (`pip install --target`); `make bench-compare
BASE=<commit>` builds and installs both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import Problem, seconds

import crossent
import crossent.functional as F

REPEATS = 31
SAMPLE_SECONDS, WARM_SECONDS = 4e-3, 8e-3
# Ratios within this of 1 are not worth a word.
NOTABLE = 0.03

CROSS_ENTROPY = [
    (1, 10),
    (512, 50257),
    (8192, 1000),
    (65536, 100),
    (65536, 10),
    (1048576, 3),
    (4, 19, 512, 512),
]
ELEMENTS = (2048, 4096)


def cases() -> dict[str, Callable[[], Callable[[], Any]]]:
    """What is timed, by name: a function that makes the inputs and returns the call."""

    def cross_entropy(shape: tuple[int, ...], derives: bool, soft: bool = False) -> Any:
        problem = Problem.random(shape, np.random.default_rng(0))
        x, target = problem.x, problem.y
        if soft:
            target = F.softmax(x[::-1], axis=1)
        options: dict[str, Any] = {"grad_out": problem.out} if derives else {}
        return lambda: F.cross_entropy(x, target, **options)

    def elements(function: Any, kind: str, derives: bool) -> Any:
        rng = np.random.default_rng(0)
        x = rng.standard_normal(ELEMENTS, np.float32) * 3
        t = rng.integers(0, 2, ELEMENTS).astype(np.float32)
        if kind == "probabilities":
            x = F.sigmoid(x)
        if kind == "logs":
            x, t = F.log_softmax(x, -1), F.softmax(x[::-1], -1)
        out = np.zeros_like(x)
        options: dict[str, Any] = {"grad_out": out} if derives else {}
        return lambda: function(x, t, reduction="sum", **options)

    def rows(function: Any, name: str) -> Any:
        x = np.random.default_rng(0).standard_normal((2048, 8192), np.float32) * 3
        options: dict[str, Any] = {name: np.zeros_like(x)} if name else {}
        return lambda: function(x, **options)

    made: dict[str, Callable[[], Callable[[], Any]]] = {}
    for derives in (False, True):
        more = " + gradient" if derives else ""
        for shape in CROSS_ENTROPY:
            made[f"cross_entropy {shape}{more}"] = partial(cross_entropy, shape, derives)
        soft = partial(cross_entropy, (4096, 1000), derives, True)
        made[f"cross_entropy of probabilities (4096, 1000){more}"] = soft
        for function, kind in (
            (F.binary_cross_entropy_with_logits, "logits"),
            (F.binary_cross_entropy, "probabilities"),
            (F.sigmoid_focal_loss, "logits"),
            (F.kl_div, "logs"),
        ):
            name = f"{function.__name__} {ELEMENTS}{more}"
            made[name] = partial(elements, function, kind, derives)
    made["entropy_with_logits (2048, 8192)"] = partial(rows, F.entropy_with_logits, "")
    log_softmax = partial(F.log_softmax, axis=-1)
    made["log_softmax (2048, 8192), out="] = partial(rows, log_softmax, "out")
    return made


def work() -> None:
    """Answers each line of requests, `[case, calls]`, with the seconds of a call."""
    print(json.dumps(str(Path(crossent.__file__).parent)), flush=True)
    known, current, call = cases(), None, None
    for line in sys.stdin:
        name, calls = json.loads(line)
        if name != current or call is None:
            current, call = name, known[name]()
        until = time.perf_counter() + WARM_SECONDS
        while time.perf_counter() < until:
            call()
        print(json.dumps(seconds(call, calls)), flush=True)


class Worker:
    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(directory)},
        )
        found = Path(self.answer())
        if directory.resolve() not in found.resolve().parents:
            raise SystemExit(f"{directory} holds no crossent: {found} would be measured")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a build failed; what it said is above")
        return json.loads(line)

    def time(self, name: str, calls: int) -> float:
        assert self.process.stdin is not None
        print(json.dumps([name, calls]), file=self.process.stdin, flush=True)
        return float(self.answer())


def compare(workers: list[Worker], name: str, repeats: int) -> tuple[float, list[float]]:
    """The base's median seconds, and the quartiles of this build's time over the base's."""
    once = max(worker.time(name, 1) for worker in workers)
    calls = max(1, math.ceil(SAMPLE_SECONDS / once))
    base, ratios = [], []
    for turn in range(repeats):
        order = workers if turn % 2 == 0 else workers[::-1]
        times = {worker: worker.time(name, calls) for worker in order}
        base.append(times[workers[0]])
        ratios.append(times[workers[1]] / times[workers[0]])
    return statistics.median(base), statistics.quantiles(ratios, n=4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="where the build to compare with is installed")
    parser.add_argument("this", type=Path, help="where the build in question is installed")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names contain it")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    workers = [Worker(options.base), Worker(options.this)]
    names = [name for name in cases() if options.only in name]
    width = max(map(len, names), default=0)
    print(f"{'':{width}}  {'base ms':>9}  this / base (middle half)")
    for name in names:
        base, (low, middle, high) = compare(workers, name, options.repeats)
        word = "slower" if low > 1 + NOTABLE else "faster" if high < 1 - NOTABLE else ""
        line = f"{name:{width}}  {base * 1e3:9.4g}  {middle:.3f} ({low:.3f} to {high:.3f})  {word}"
        print(line.rstrip(), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        work()
    else:
        main()
