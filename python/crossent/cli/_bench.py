"""`crossent bench`: crossent on this machine, beside the memory and what else is installed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import crossent
import crossent.functional as F
from crossent import _core
from crossent.cli._errors import Exit, Refused, set_threads
from crossent.cli._table import aligned

SHAPES = [(512, 50257), (8192, 1000), (65536, 10)]
# A sample repeats what takes less.
SAMPLE_SECONDS = 2e-3
# The threads of some spin for a while after they have worked; whose turn is next waits for that.
REST_SECONDS = 0.03
# By how much a float32 loss may differ from crossent's of the same logits in float64.
TOLERANCE = 1e-4


class Problem(NamedTuple):
    """Logits, targets, and a buffer for the gradient."""

    x: NDArray[Any]
    y: NDArray[Any]
    out: NDArray[Any]


class Contestant(NamedTuple):
    """A loss, and a loss with its gradient where the library has one."""

    loss: Callable[[], Any]
    gradient: Callable[[], Any] | None


def ours(problem: Problem) -> Contestant:
    x, y, out = problem
    return Contestant(lambda: F.cross_entropy(x, y), lambda: F.cross_entropy(x, y, grad_out=out)[0])


def with_numpy(problem: Problem) -> Contestant:
    x, y, out = problem
    rows = np.arange(len(y))

    def loss() -> Any:
        shifted = x - x.max(1, keepdims=True)
        return np.mean(np.log(np.exp(shifted).sum(1)) - shifted[rows, y])

    def gradient() -> Any:
        np.subtract(x, x.max(1, keepdims=True), out=out)
        picked = out[rows, y]
        np.exp(out, out=out)
        total = out.sum(1)
        np.divide(out, len(y) * total[:, None], out=out)
        out[rows, y] -= 1 / len(y)
        return np.mean(np.log(total) - picked)

    return Contestant(loss, gradient)


def with_torch(problem: Problem) -> Contestant:
    torch = importlib.import_module("torch")
    function = torch.nn.functional.cross_entropy
    x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
    leaf = torch.from_numpy(problem.x).requires_grad_()

    def gradient() -> Any:
        loss = function(leaf, y)
        torch.autograd.grad(loss, leaf)
        return loss.detach()

    return Contestant(lambda: function(x, y), gradient)


def with_jax(problem: Problem) -> Contestant:
    jax = importlib.import_module("jax")
    jax.config.update("jax_platforms", "cpu")

    def mean(x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(x, 1)
        return -jax.numpy.take_along_axis(logs, y[:, None], 1).mean()

    loss, gradient = jax.jit(mean), jax.jit(jax.value_and_grad(mean))
    x, y = jax.device_put(problem.x), jax.device_put(problem.y)
    return Contestant(
        lambda: jax.block_until_ready(loss(x, y)),
        lambda: jax.block_until_ready(gradient(x, y))[0],
    )


def with_scipy(problem: Problem) -> Contestant:
    special = importlib.import_module("scipy.special")
    rows = np.arange(len(problem.y))
    return Contestant(lambda: -special.log_softmax(problem.x, 1)[rows, problem.y].mean(), None)


def with_sklearn(problem: Problem) -> Contestant:
    """It takes probabilities, which have to be made first; in float64, as it clips those that are
    below the type's epsilon."""
    metrics = importlib.import_module("sklearn.metrics")
    classes = np.arange(problem.x.shape[1])

    def loss() -> Any:
        p = np.exp(problem.x - problem.x.max(1, keepdims=True), dtype=np.float64)
        p /= p.sum(1, keepdims=True)
        return metrics.log_loss(problem.y, p, labels=classes)

    return Contestant(loss, None)


PEERS = {
    "numpy": with_numpy,
    "torch": with_torch,
    "jax": with_jax,
    "scipy": with_scipy,
    "sklearn": with_sklearn,
}


def run(options: argparse.Namespace) -> int:
    """Measures, and prints a table a shape."""
    set_threads(options.threads)
    unknown = set(options.peers or ()) - PEERS.keys()
    if unknown:
        raise Refused(f"--peers has no {', '.join(sorted(unknown))}: it has {', '.join(PEERS)}")
    asked = PEERS if options.peers is None else options.peers
    missing = [name for name in asked if importlib.util.find_spec(name) is None]
    if options.peers and missing:
        raise ImportError(f"{missing[0]} is not installed: pip install {missing[0]}")
    peers = [name for name in asked if name not in missing]

    found = []
    for shape in options.shape or SHAPES:
        found.append(measured(shape, peers, options.repeats))
        if not options.json:
            print("\n".join(table(found[-1])), flush=True)
    machine = {"simd": crossent.simd_level(), "threads": crossent.get_num_threads()}
    if options.json:
        print(json.dumps({**machine, "crossent": crossent.__version__, "shapes": found}))
    else:
        print(
            f"crossent {crossent.__version__} with {machine['simd']} and {machine['threads']} "
            f"threads; medians of {options.repeats}. floors: of memory"
        )
    return Exit.DONE


def measured(shape: tuple[int, int], peers: list[str], repeats: int) -> dict[str, Any]:
    """Medians in seconds, of the loss and with the gradient, by name."""
    rng = np.random.default_rng(0)
    try:
        x = 3 * rng.standard_normal(shape, np.float32)
        problem = Problem(x, rng.integers(0, shape[1], shape[0]), np.zeros_like(x))
    except (MemoryError, OverflowError, ValueError) as error:
        asked = f"--shape {shape[0]}x{shape[1]}"
        raise Refused(f"{asked} does not fit in memory: give a smaller one") from error
    contestants = {"crossent": ours(problem)}
    contestants |= {name: PEERS[name](problem) for name in peers}
    right = exact(problem)
    for name, contestant in contestants.items():
        for call in filter(None, contestant):
            if not abs(float(call()) / right - 1) < TOLERANCE:
                raise Refused(f"{name} answers {float(call())}, and {right} is right")
    losses = {"floor": lambda: _core._read_floor(x)}
    losses |= {name: each.loss for name, each in contestants.items()}
    gradients = {"floor": lambda: _core._copy_floor(x, problem.out)}
    gradients |= {
        name: each.gradient for name, each in contestants.items() if each.gradient is not None
    }
    return {
        "shape": list(shape),
        "loss": race(losses, repeats),
        "gradient": race(gradients, repeats),
    }


def exact(problem: Problem) -> float:
    """The mean loss in float64, some rows at a time."""
    total = 0.0
    for start in range(0, len(problem.y), 64):
        x = problem.x[start : start + 64].astype(np.float64)
        picked = x[np.arange(len(x)), problem.y[start : start + 64]]
        top = x.max(1)
        total += float(np.sum(top + np.log(np.exp(x - top[:, None]).sum(1)) - picked))
    return total / len(problem.y)


def race(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """They take turns, so that what disturbs the machine disturbs all."""
    calls = {}
    for name, call in contestants.items():
        start = time.perf_counter()
        call()
        calls[name] = max(1, int(SAMPLE_SECONDS / (time.perf_counter() - start)))
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, call in contestants.items():
            time.sleep(REST_SECONDS)
            call()
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            taken[name].append((time.perf_counter() - start) / calls[name])
    return {name: statistics.median(times) for name, times in taken.items()}


def table(found: dict[str, Any]) -> list[str]:
    """Milliseconds, and how many times crossent's."""
    loss, gradient = found["loss"], found["gradient"]

    def entry(of: dict[str, float], name: str) -> list[str]:
        if name not in of:
            return ["-", "-"]
        return [f"{1e3 * of[name]:.3g} ms", f"{of[name] / of['crossent']:.2f}×"]

    rows = [[name, *entry(loss, name), *entry(gradient, name)] for name in loss]
    rows_count, classes = found["shape"]
    return [
        f"{rows_count:,} rows, {classes:,} classes",
        *aligned(["", "loss", "", "with gradient", ""], rows),
        "",
    ]
