"""Cross-entropy of crossent beside that of its peers, and beside what memory allows.

Every contestant computes the mean cross-entropy of float32 logits and int64 targets with all cores,
once alone and once with its gradient. The answers are checked against float64 before anything is
timed. Then the contestants take turns, so that noise hits all alike, and medians are compared:

- floor: the time to read the logits (loss), or to copy them past the caches (loss + gradient);
- crossent: the gradient goes into a buffer that is used again;
- torch, compile: PyTorch, eager and by torch.compile. Autograd makes a new gradient each time;
- jax: optax under jax.jit. It makes a new gradient each time, and holds the targets as int32;
- numpy: the formula that everyone writes, shifted by the maximum. Its gradient is computed in a
  buffer that is used again. NumPy has no threads for this.

CROSSENT_SIMD=avx2 or baseline forces a lower instruction set on crossent and the floors.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

import crossent
import crossent.functional as F
from crossent import _core

Array = NDArray[Any]
Shape = tuple[int, ...]

CASES: list[Shape] = [
    (512, 50257),
    (1024, 32000),
    (256, 128256),
    (8192, 1000),
    (65536, 10),
    (1048576, 3),
    (4, 19, 512, 512),
    (1, 10),
]
QUICK_CASES: list[Shape] = [(1024, 32000), (65536, 10), (1, 10)]
EAGER = "torch eager"
REPEATS, QUICK_REPEATS = 21, 5

# Before its turn, a contestant waits until the threads of the one before it, which spin for a
# while, are asleep, and works until its own are awake: some schedulers keep a process that was
# idle on one core for its first milliseconds.
REST_SECONDS = 0.03
WARM_SECONDS = 0.03
SAMPLE_SECONDS = 2e-3

# What counts as the right answer, in float32: the loss, and each element of the gradient, which is
# 1 / N times the difference of two numbers of up to 1.
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 2e-5
GRADIENT_DIFFERENCE = 1e-6
CHECKED_ELEMENTS = 2_000_000


@dataclass
class Problem:
    x: Array
    y: Array
    out: Array

    @classmethod
    def random(cls, shape: Shape, rng: np.random.Generator) -> Problem:
        x = rng.standard_normal(shape, np.float32)
        x *= 3
        y = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        return cls(x, y, np.zeros_like(x))


@dataclass
class Contestant:
    title: str
    loss: Callable[[], Any]
    gradient: Callable[[], tuple[Any, Any]]


def make_crossent(problem: Problem) -> Contestant:
    x, y, out = problem.x, problem.y, problem.out
    return Contestant(
        "crossent",
        lambda: F.cross_entropy(x, y),
        lambda: F.cross_entropy(x, y, grad_out=out),
    )


def torch_contestant(title: str, function: Any, problem: Problem) -> Contestant:
    import torch

    torch.set_num_threads(cores())
    x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
    leaf = torch.from_numpy(problem.x).requires_grad_()

    def gradient() -> tuple[Any, Any]:
        loss = function(leaf, y)
        return loss, torch.autograd.grad(loss, leaf)[0]

    return Contestant(title, lambda: function(x, y), gradient)


def make_torch(problem: Problem) -> Contestant:
    import torch

    return torch_contestant(EAGER, torch.nn.functional.cross_entropy, problem)


def make_compile(problem: Problem) -> Contestant:
    import torch

    # Without this, the second shape would be compiled for shapes of every size.
    torch.compiler.reset()
    function = torch.compile(torch.nn.functional.cross_entropy, dynamic=False)
    return torch_contestant("torch.compile", function, problem)


def make_jax(problem: Problem) -> Contestant:
    # XLA writes an essay wherever it takes more than a second to compile.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import jax
    import optax

    jax.config.update("jax_platforms", "cpu")

    def mean(x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, y, axis=1).mean()

    loss, gradient = jax.jit(mean), jax.jit(jax.value_and_grad(mean))
    x, y = jax.device_put(problem.x), jax.device_put(problem.y)
    return Contestant(
        "jax.jit + optax",
        lambda: jax.block_until_ready(loss(x, y)),
        lambda: jax.block_until_ready(gradient(x, y)),
    )


def make_numpy(problem: Problem) -> Contestant:
    x, out = problem.x, problem.out
    at = np.expand_dims(problem.y, 1)

    def loss() -> Any:
        shifted = x - x.max(axis=1, keepdims=True)
        target = np.take_along_axis(shifted, at, axis=1)
        return np.mean(np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - target)

    def gradient() -> tuple[Any, Any]:
        np.subtract(x, x.max(axis=1, keepdims=True), out=out)
        target = np.take_along_axis(out, at, axis=1)
        np.exp(out, out=out)
        total = out.sum(axis=1, keepdims=True)
        np.divide(out, total, out=out)
        np.put_along_axis(out, at, np.take_along_axis(out, at, axis=1) - 1, axis=1)
        np.divide(out, np.float32(at.size), out=out)
        return np.mean(np.log(total) - target), out

    return Contestant("NumPy", loss, gradient)


@dataclass
class Peer:
    make: Callable[[Problem], Contestant]
    requires: tuple[str, ...]


PEERS = {
    "torch": Peer(make_torch, ("torch",)),
    "compile": Peer(make_compile, ("torch",)),
    "jax": Peer(make_jax, ("jax", "optax")),
    "numpy": Peer(make_numpy, ("numpy",)),
}


# The answers


def to_numpy(value: Any) -> Array:
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


class Reference:
    """The mean loss in float64, and the gradient of some rows."""

    def __init__(self, problem: Problem) -> None:
        self.count = problem.y.size
        rows = len(problem.x)
        at_once = max(1, CHECKED_ELEMENTS * rows // problem.x.size)
        total = 0.0
        for start in range(0, rows, at_once):
            x, y = problem.x[start : start + at_once], problem.y[start : start + at_once]
            total -= self.log_probabilities(x, y)[1].sum()
        self.loss = total / self.count

        self.rows = np.unique(np.linspace(0, rows - 1, at_once).astype(int))
        x, y = problem.x[self.rows], np.expand_dims(problem.y[self.rows], 1)
        self.gradient = np.exp(self.log_probabilities(x, problem.y[self.rows])[0])
        here = np.take_along_axis(self.gradient, y, axis=1)
        np.put_along_axis(self.gradient, y, here - 1, axis=1)
        self.gradient /= self.count

    @staticmethod
    def log_probabilities(x: Array, y: Array) -> tuple[Array, Array]:
        """Of all classes, and of the targets."""
        shifted = x.astype(np.float64) - x.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs, np.take_along_axis(logs, np.expand_dims(y, 1), axis=1)

    def check_loss(self, title: str, loss: Any) -> None:
        error = abs(float(to_numpy(loss)) / self.loss - 1)
        if not error <= LOSS_TOLERANCE:
            raise SystemExit(f"{title}: the loss is off by {error:.1e} of it")

    def check(self, contestant: Contestant) -> None:
        self.check_loss(contestant.title, contestant.loss())
        loss, gradient = contestant.gradient()
        self.check_loss(contestant.title, loss)
        error = np.abs(to_numpy(gradient)[self.rows] - self.gradient)
        allowed = GRADIENT_TOLERANCE * np.abs(self.gradient) + GRADIENT_DIFFERENCE / self.count
        if not np.all(error <= allowed):
            worst = np.max(error * self.count)
            raise SystemExit(f"{contestant.title}: the gradient is off by {worst:.1e} / N")


def make_floor(problem: Problem) -> Contestant:
    x, out = problem.x, problem.out
    if _core._read_floor(x) != x.max():
        raise SystemExit("floor: not everything was read")
    _core._copy_floor(x, out)
    if not np.array_equal(out, x):
        raise SystemExit("floor: not everything was copied")

    def copy() -> tuple[Any, Any]:
        _core._copy_floor(x, out)
        return None, out

    return Contestant("floor", lambda: _core._read_floor(x), copy)


# The times


def seconds(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def race(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    """The median seconds of each call."""
    counts = []
    for call in calls:
        seconds(call, 3)
        counts.append(max(1, math.ceil(SAMPLE_SECONDS / seconds(call, 3))))
    samples: list[list[float]] = [[] for _ in calls]
    gc.collect()
    gc.disable()
    for turn in range(repeats):
        for place in range(len(calls)):
            which = (turn + place) % len(calls)
            time.sleep(REST_SECONDS)
            warm = time.perf_counter() + WARM_SECONDS
            while time.perf_counter() < warm:
                calls[which]()
            samples[which].append(seconds(calls[which], counts[which]))
    gc.enable()
    return [statistics.median(times) for times in samples]


@dataclass
class Result:
    shape: Shape
    titles: list[str]
    loss: list[float]
    gradient: list[float]


def measure(shape: Shape, peers: list[str], repeats: int, seed: int) -> Result:
    problem = Problem.random(shape, np.random.default_rng(seed))
    floor = make_floor(problem)
    contestants = [make_crossent(problem), *(PEERS[peer].make(problem) for peer in peers)]
    reference = Reference(problem)
    for contestant in contestants:
        reference.check(contestant)
    contestants.insert(0, floor)
    return Result(
        shape,
        [contestant.title for contestant in contestants],
        race([contestant.loss for contestant in contestants], repeats),
        race([contestant.gradient for contestant in contestants], repeats),
    )


# The report


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(peers: list[str]) -> str:
    modules = dict.fromkeys(["numpy", *(m for peer in peers for m in PEERS[peer].requires)])
    versions = [f"{module} {importlib.metadata.version(module)}" for module in modules]
    return (
        f"{processor()}, {cores()} cores; crossent {crossent.__version__} with "
        f"{crossent.simd_level()} and {crossent.get_num_threads()} threads; "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def digits(number: float, count: int = 3) -> str:
    text = np.format_float_positional(
        number, precision=count, unique=False, fractional=False, trim="-"
    )
    return str(text)


def duration(value: float) -> str:
    return f"{digits(value * 1e6)} µs" if value < 1e-4 else f"{digits(value * 1e3)} ms"


def print_result(result: Result, file: TextIO) -> None:
    eager = result.titles.index(EAGER) if EAGER in result.titles else None
    heads = f"  {'ms':>8}  {'/ floor':>8}  {'torch /':>8}"
    print(f"\n{result.shape}", file=file)
    print(f"{'':16}  {'loss':^28}  {'loss + gradient':^28}", file=file)
    print(f"{'':16}{heads}{heads}", file=file)
    for index, title in enumerate(result.titles):
        line = f"{title:16}"
        for times in (result.loss, result.gradient):
            speed = "" if eager is None else f"{times[eager] / times[index]:.2f}"
            line += f"  {digits(times[index] * 1e3):>8}  {times[index] / times[0]:8.2f}  {speed:>8}"
        print(line.rstrip(), file=file, flush=True)


def markdown(results: list[Result]) -> str:
    """A table of losses and one of gradients; with each peer, how many times as long it took."""
    titles = results[0].titles[2:]
    lines = []
    for head, floor, all_times in (
        ("loss", "read", [result.loss for result in results]),
        ("loss + gradient", "copy", [result.gradient for result in results]),
    ):
        lines += ["", f"| {head} | {floor} floor | crossent | {' | '.join(titles)} |"]
        lines += ["|---" + "|---:" * (2 + len(titles)) + "|"]
        for result, (floor_time, ours, *others) in zip(results, all_times, strict=True):
            cells = [
                str(result.shape),
                duration(floor_time),
                f"**{duration(ours)}** ({digits(ours / floor_time)} floors)",
                *(f"{duration(other)} ({digits(other / ours)}×)" for other in others),
            ]
            lines += [f"| {' | '.join(cells)} |"]
    return "\n".join(lines)


def shape_of(text: str) -> Shape:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 512x50257")
    return tuple(int(length) for length in text.split("x"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="+", type=shape_of, metavar="NxC", help="shapes, such as 512x50257"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="default: all"
    )
    parser.add_argument("--repeats", type=int, help=f"samples of each (default: {REPEATS})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{len(QUICK_CASES)} cases, {QUICK_REPEATS} samples, unless they are given",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables of the README")
    parser.add_argument(
        "--elements",
        action="store_true",
        help="also the losses of elements, entropies, divergences and softmax, as elements.py",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.cases = options.cases or (QUICK_CASES if options.quick else CASES)
    options.repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    for peer in options.peers:
        for module in PEERS[peer].requires:
            if importlib.util.find_spec(module) is None:
                parser.error(
                    f"the peer {peer} needs {module}: install requirements/bench.txt, "
                    "or name the peers you have with --peers"
                )
    return options


def main() -> None:
    options = arguments()
    crossent.set_num_threads(cores())
    file = sys.stderr if options.markdown else sys.stdout
    print(machine(options.peers), file=file)
    results = []
    for shape in options.cases:
        results.append(measure(shape, options.peers, options.repeats, options.seed))
        print_result(results[-1], file)
    if options.markdown:
        print(markdown(results))
        print(f"\n{machine(options.peers)}.")
    else:
        print("\n/ floor: times the floor. torch /: times as fast as torch eager.")
    if options.elements:
        # It measures as this does, and so needs this first.
        import elements

        print()
        for line in elements.tables(elements.SHAPE, options.repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main()
