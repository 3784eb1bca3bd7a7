"""Losses of elements, entropies, divergences and softmax beside torch's, and beside the time to
read their inputs.

Float32 arrays of one shape with all cores, the loss alone and with its gradient into a buffer that
is used again (torch's autograd makes a new one). Answers are checked against float64 before
anything is timed; then the contestants take turns, as in peers.py. The floor of a loss is a read of
all of its inputs, that of a gradient a copy of one of them besides. softmax and log_softmax are
measured as they are commonly called, which makes a new array, and into a buffer that is used again
(`out=`). Their floor is a copy.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.special
import torch
import torch.nn.functional as TF
from peers import Array, cores, digits, duration, machine, race, shape_of

import crossent
import crossent.functional as F
from crossent import _core

TOLERANCE = 1e-6
SOFTMAX_TOLERANCE = 1e-4
REPEATS, QUICK_REPEATS = 11, 3
SHAPE, SOFTMAX_SHAPE = (4096, 4096), (2048, 8192)
# Those that read their first array alone.
ALONE = {"entropy", "entropy_with_logits"}


def summed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of rows, as their sum."""

    def total(x: Array, t: Array, **options: Any) -> Any:
        arrays = (x,) if function.__name__ in ALONE else (x, t)
        answer = function(*arrays, **options)
        return (answer[0].sum(), answer[1]) if isinstance(answer, tuple) else answer.sum()

    return total


def torch_focal(x: Any, t: Any) -> Any:
    """The formula of torchvision.ops.sigmoid_focal_loss."""
    p = torch.sigmoid(x)
    loss = TF.binary_cross_entropy_with_logits(x, t, reduction="none")
    loss = loss * (1 - (p * t + (1 - p) * (1 - t))) ** 2
    return ((0.25 * t + 0.75 * (1 - t)) * loss).mean()


def exact_focal(x: Array, t: Array) -> Any:
    p = scipy.special.expit(x)
    missed = (p * (1 - t) + (1 - p) * t) ** 2
    return np.mean((0.25 * t + 0.75 * (1 - t)) * missed * (np.logaddexp(0, x) - t * x))


def torch_entropy(x: Any, _: Any) -> Any:
    logs = torch.log_softmax(x, -1)
    return -(logs.exp() * logs).sum()


def torch_kl_of_logits(a: Any, b: Any) -> Any:
    logs = torch.log_softmax(b, -1), torch.log_softmax(a, -1)
    return TF.kl_div(*logs, reduction="sum", log_target=True)


def torch_js_of_logits(a: Any, b: Any) -> Any:
    return torch_js(torch.softmax(a, -1), torch.softmax(b, -1))


def torch_js(p: Any, q: Any) -> Any:
    m = (p + q) / 2
    return (p * (p / m).log() + q * (q / m).log()).sum() / 2


def rel_entr(p: Array, q: Array) -> Any:
    return np.sum(scipy.special.rel_entr(p, q))


def exact_js(p: Array, q: Array) -> Any:
    return (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)) / 2


# crossent's function, torch's, and the same in float64 of a pair of arrays
LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[[Array, Array], Any]]] = {
    "binary_cross_entropy_with_logits": (
        F.binary_cross_entropy_with_logits,
        TF.binary_cross_entropy_with_logits,
        lambda x, t: np.mean(np.logaddexp(0, x) - t * x),
    ),
    "binary_cross_entropy": (
        F.binary_cross_entropy,
        TF.binary_cross_entropy,
        lambda p, t: -np.mean(scipy.special.xlogy(t, p) + scipy.special.xlog1py(1 - t, -p)),
    ),
    "soft_margin_loss": (
        F.soft_margin_loss,
        TF.soft_margin_loss,
        lambda x, t: np.mean(np.logaddexp(0, -t * x)),
    ),
    "sigmoid_focal_loss": (
        functools.partial(F.sigmoid_focal_loss, reduction="mean"),
        torch_focal,
        exact_focal,
    ),
    "kl_div": (
        functools.partial(F.kl_div, reduction="batchmean"),
        functools.partial(TF.kl_div, reduction="batchmean"),
        lambda x, t: np.sum(scipy.special.xlogy(t, t) - t * x) / len(x),
    ),
    "entropy": (
        summed(F.entropy),
        lambda p, _: torch.special.entr(p).sum(),
        lambda p, _: np.sum(scipy.special.entr(p)),
    ),
    "entropy_with_logits": (
        summed(F.entropy_with_logits),
        torch_entropy,
        lambda x, _: np.sum(scipy.special.entr(scipy.special.softmax(x, -1))),
    ),
    "kl_divergence": (
        summed(F.kl_divergence),
        lambda p, q: (p * (p / q).log() - p + q).sum(),
        lambda p, q: rel_entr(p, q) - np.sum(p) + np.sum(q),
    ),
    "js_divergence": (
        summed(F.js_divergence),
        torch_js,
        lambda p, q: exact_js(p, q),
    ),
    "kl_divergence_with_logits": (
        summed(F.kl_divergence_with_logits),
        torch_kl_of_logits,
        lambda a, b: rel_entr(scipy.special.softmax(a, -1), scipy.special.softmax(b, -1)),
    ),
    "js_divergence_with_logits": (
        summed(F.js_divergence_with_logits),
        torch_js_of_logits,
        lambda a, b: exact_js(scipy.special.softmax(a, -1), scipy.special.softmax(b, -1)),
    ),
}


# Of an array and perhaps a buffer: crossent's function, torch's, and the same in float64
SOFTMAX: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[[Array], Any]]] = {
    "softmax": (
        functools.partial(F.softmax, axis=-1),
        functools.partial(torch.softmax, dim=-1),
        lambda x: scipy.special.softmax(x, -1),
    ),
    "log_softmax": (
        functools.partial(F.log_softmax, axis=-1),
        functools.partial(torch.log_softmax, dim=-1),
        lambda x: scipy.special.log_softmax(x, -1),
    ),
    "logsumexp": (
        lambda x, **_: F.logsumexp(x, -1),
        functools.partial(torch.logsumexp, dim=-1),
        lambda x: scipy.special.logsumexp(x, -1),
    ),
}


def inputs(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    x = rng.standard_normal(shape, np.float32) * 3
    t = rng.integers(0, 2, shape).astype(np.float32)
    if name == "binary_cross_entropy":
        return F.sigmoid(x), t
    if name == "soft_margin_loss":
        return x, 2 * t - 1
    if name == "kl_div":
        return F.log_softmax(x, -1), F.softmax(x[::-1], -1)
    if name in ("entropy", "kl_divergence", "js_divergence"):
        return F.softmax(x, -1), F.softmax(x[::-1], -1)
    return x, t


def measure(name: str, shape: tuple[int, ...], repeats: int) -> list[list[float]]:
    """Seconds of the floor, of crossent and of torch: for the loss, then with the gradient."""
    ours, theirs, exact = LOSSES[name]
    x, t = inputs(name, shape, np.random.default_rng(0))
    both, out = x if name in ALONE else np.concatenate([x, t]), np.empty_like(x)
    want = exact(x.astype(np.float64), t.astype(np.float64))
    tx, tt, leaf = torch.from_numpy(x), torch.from_numpy(t), torch.from_numpy(x).requires_grad_()

    def gradient() -> Any:
        loss = theirs(leaf, tt)
        return loss, torch.autograd.grad(loss, leaf)[0]

    for title, loss in (("crossent", ours(x, t)), ("torch", theirs(tx, tt).item())):
        if not abs(loss / want - 1) <= TOLERANCE:
            raise SystemExit(f"{name}: {title} is off by {abs(loss / want - 1):.1e} of the loss")
    error = np.abs(ours(x, t, return_grad=True)[1] - gradient()[1].numpy()).max() * x.size
    if not error <= 1e-3 * max(1, np.abs(gradient()[1].numpy()).max() * x.size):
        raise SystemExit(f"{name}: the gradients are {error:.1e} / N apart")

    def floor() -> None:
        if name not in ALONE:
            _core._read_floor(both[: len(x)])
        _core._copy_floor(x, out)

    return [
        race(
            [lambda: _core._read_floor(both), lambda: ours(x, t), lambda: theirs(tx, tt)], repeats
        ),
        race([floor, lambda: ours(x, t, grad_out=out), gradient], repeats),
    ]


def measure_softmax(name: str, repeats: int) -> list[float]:
    """Seconds of the floor, of crossent and of torch, and of both into a buffer."""
    ours, theirs, exact = SOFTMAX[name]
    x = np.random.default_rng(0).standard_normal(SOFTMAX_SHAPE, np.float32) * 3
    out, want = np.empty_like(x), exact(x.astype(np.float64))
    tx, tout = torch.from_numpy(x), torch.empty_like(theirs(torch.from_numpy(x)))
    for title, got in (("crossent", ours(x)), ("torch", theirs(tx).numpy())):
        error = np.max(np.abs(got / want - 1))
        if not error <= SOFTMAX_TOLERANCE:
            raise SystemExit(f"{name}: {title} is off by {error:.1e} of an element")

    def floor() -> None:
        if name == "logsumexp":
            _core._read_floor(x)
        else:
            _core._copy_floor(x, out)

    contestants = [
        floor,
        lambda: ours(x),
        lambda: theirs(tx),
        lambda: ours(x, out=out),
        lambda: theirs(tx, out=tout),
    ]
    return race(contestants, repeats)


def cells_of(floor: float, ours: float, *theirs: float) -> list[str]:
    return [
        duration(floor),
        f"**{duration(ours)}** ({digits(ours / floor)} floors)",
        *(f"{duration(time)} ({digits(time / ours)}×)" for time in theirs),
    ]


def tables(shape: tuple[int, ...], repeats: int) -> Iterator[str]:
    """The lines of both tables, as they are measured."""
    heads = "read floor | crossent | torch | floor with gradient | crossent | torch"
    yield f"| {shape} | {heads} |"
    yield f"|---{'|---:' * 6}|"
    for name in LOSSES:
        cells = [cell for times in measure(name, shape, repeats) for cell in cells_of(*times)]
        yield f"| `{name}` | {' | '.join(cells)} |"
    heads = "floor | crossent | torch | crossent, out= | torch, out="
    yield ""
    yield f"| {SOFTMAX_SHAPE} | {heads} |"
    yield f"|---{'|---:' * 5}|"
    for name in SOFTMAX:
        floor, ours, theirs, *into = measure_softmax(name, repeats)
        cells = cells_of(floor, ours, theirs) + cells_of(floor, *into)[1:]
        yield f"| `{name}` | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=shape_of, default=SHAPE, metavar="NxC")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REPEATS} samples of each")
    options = parser.parse_args()
    crossent.set_num_threads(cores())
    torch.set_num_threads(cores())
    print(f"{machine(['torch'])}\n")
    for line in tables(options.shape, QUICK_REPEATS if options.quick else REPEATS):
        print(line, flush=True)


if __name__ == "__main__":
    main()
