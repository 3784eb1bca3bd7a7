"""The numbers: crossent beside torch and beside the formula that everyone writes.

First the cases in which others answer 0, inf or NaN. Then the worst error of losses and of gradient
elements over random rows, in ulp of their type at the exact number. The truth is mpmath's at 60
digits; of gradients, NumPy's long double, which holds 11 bits more than float64 on x86-64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from mpmath import mp
from numpy.typing import NDArray

import crossent.functional as F

Array = NDArray[Any]
Answer = Callable[..., tuple[Any, Any]]
INF, NAN = np.inf, np.nan
mp.dps = 60


def of_crossent(x: Array, y: Array, **options: Any) -> tuple[Any, Any]:
    loss, grad = F.cross_entropy(x, y, return_grad=True, **options)
    return loss, grad


def of_torch(x: Array, y: Array, **options: Any) -> tuple[Any, Any]:
    leaf = torch.tensor(x, requires_grad=True)
    if "weight" in options:
        options = options | {"weight": torch.tensor(options["weight"])}
    loss = TF.cross_entropy(leaf, torch.tensor(y), **options)
    loss.sum().backward()
    assert leaf.grad is not None
    return loss.detach().numpy(), leaf.grad.numpy()


def of_formula(x: Array, y: Array, **options: Any) -> tuple[Any, Any]:
    """Shift by the maximum, sum the exponentials, take the logarithm, multiply by weights."""
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis=-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        if y.dtype.kind == "i":
            counts = y != options.get("ignore_index", -100)
            at = np.where(counts, y, 0)
            weight = options.get("weight", np.ones(x.shape[-1], x.dtype))[at] * counts
            losses = -weight * np.take_along_axis(logs, at[:, None], -1)[:, 0]
            onehot = np.arange(x.shape[-1]) == at[:, None]
        else:
            weight = np.ones(len(x), x.dtype)
            losses, onehot = -(y * logs).sum(axis=-1), y
        reduce = {
            "none": lambda: losses,
            "sum": lambda: losses.sum(),
            "mean": lambda: losses.mean() if weight.all() else losses.sum() / weight.sum(),
        }
        return reduce[options.get("reduction", "mean")](), weight[:, None] * (np.exp(logs) - onehot)


ANSWERS: dict[str, Answer] = {"torch": of_torch, "NumPy": of_formula, "crossent": of_crossent}


def row(*logits: float) -> Array:
    return np.array([logits], np.float32)


@dataclass
class Case:
    name: str
    x: Array
    y: Array
    options: dict[str, Any] = field(default_factory=dict)
    gradient: bool = False
    # By default that of the first row, to which all others are equal.
    truth: str = ""


CASES = [
    Case("[20, 0], class 0: loss", row(20, 0), np.array([0])),
    Case("its gradient", row(20, 0), np.array([0]), gradient=True),
    Case("four equal logits at 1e8", row(1e8, 1e8, 1e8, 1e8), np.array([2])),
    Case("-inf off the target", row(0, -INF, 0), np.array([0])),
    Case(
        "probability 0 on a logit of -inf",
        row(0, -INF, 0),
        np.array([[0.5, 0, 0.5]], np.float32),
        truth=mp.nstr(mp.log(2), 8),
    ),
    Case(
        "class weight 0 at an infinite loss",
        row(0, -INF),
        np.array([1]),
        {"weight": np.array([1, 0], np.float32), "reduction": "sum"},
        truth="0",
    ),
    Case(
        "NaN in an ignored row: its gradient",
        np.array([[NAN, 0], [0, 0]], np.float32),
        np.array([-100, 0]),
        gradient=True,
        truth="0, 0",
    ),
    Case("+inf at the target", row(INF, 0), np.array([0]), truth="0"),
    Case("+inf elsewhere", row(INF, 0), np.array([1]), truth="inf"),
    Case(
        "float16, 20000 rows of 1000 zeros",
        np.zeros((20000, 1000), np.float16),
        np.zeros(20000, np.int64),
    ),
    Case("all rows ignored: mean", row(1, 2), np.array([-100]), truth="nan (0 / 0)"),
]


def show(value: Any) -> str:
    numbers = np.atleast_1d(np.asarray(value)).ravel()[:2]
    return ", ".join(f"{float(v) + 0.0:.8g}" for v in numbers)


def special_cases() -> list[list[str]]:
    table = [["case", *ANSWERS, "truth"]]
    for case in CASES:
        cells = []
        for answer in ANSWERS.values():
            loss, grad = answer(case.x, case.y, **case.options)
            cells.append(show(grad[0] if case.gradient else loss))
        exact = exact_gradient if case.gradient else exact_losses
        truth = case.truth or show([float(v) for v in np.ravel(exact(case.x[:1], case.y[:1]))])
        table.append([case.name, *cells, truth])
    return table


def exact_losses(x: Array, y: Array) -> list[Any]:
    losses = []
    for logits, target in zip(x.tolist(), y.tolist(), strict=True):
        numbers = [mp.mpf(v) for v in logits]
        top = max(range(len(numbers)), key=numbers.__getitem__)
        others = (mp.exp(v - numbers[top]) for i, v in enumerate(numbers) if i != top)
        losses.append(numbers[top] - numbers[target] + mp.log1p(mp.fsum(others)))
    return losses


def exact_gradient(x: Array, y: Array) -> Array:
    wide = x.astype(np.longdouble)
    top = np.argmax(wide, axis=1)[:, None]
    e = np.exp(wide - np.take_along_axis(wide, top, 1))
    others = e.copy()
    np.put_along_axis(others, top, 0, 1)
    rest = others.sum(axis=1, keepdims=True)
    total = 1 + rest
    grad: Array = e / total
    at = y[:, None]
    lost: Array = np.where(at == top, rest, total - np.take_along_axis(e, at, 1)) / total
    np.put_along_axis(grad, at, -lost, 1)
    return grad


def worst_errors(seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    table = [["type", "classes", *(f"{n}: {w}" for w in ("loss", "gradient") for n in ANSWERS)]]
    for dtype in (np.float32, np.float64):
        for classes, count in ((2, 300), (10, 300), (1000, 12)):
            worst = {(name, what): 0.0 for what in ("loss", "gradient") for name in ANSWERS}
            for spread in (0.3, 3.0, 30.0):
                x = (rng.standard_normal((count, classes)) * spread).astype(dtype)
                y = np.where(rng.random(count) < 0.5, rng.integers(0, classes, count), x.argmax(1))
                truth, slope = exact_losses(x, y), exact_gradient(x, y)
                seen = np.abs(slope) > 4 * np.finfo(dtype).tiny
                for name, answer in ANSWERS.items():
                    loss, grad = answer(x, y, reduction="none")
                    for got, want in zip(loss.tolist(), truth, strict=True):
                        if want > np.finfo(dtype).tiny:
                            ulp = float(np.spacing(dtype(float(want))))
                            error = float(abs(mp.mpf(got) - want)) / ulp
                            worst[name, "loss"] = max(worst[name, "loss"], error)
                    ulps = np.abs(grad - slope)[seen] / np.spacing(
                        np.abs(slope[seen]).astype(dtype)
                    )
                    worst[name, "gradient"] = max(worst[name, "gradient"], float(ulps.max()))
            cells = [f"{v:.2f}" if v < 100 else f"{v:.1e}" for v in worst.values()]
            table.append([np.dtype(dtype).name, str(classes), *cells])
    return table


def print_table(table: list[list[str]], markdown: bool) -> None:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for number, line in enumerate(table):
        if markdown:
            print("| " + " | ".join(line) + " |")
            if number == 0:
                print("|---" * len(line) + "|")
        else:
            print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="print the tables of the README")
    markdown = parser.parse_args().markdown
    print_table(special_cases(), markdown)
    print_table(worst_errors(), markdown)


if __name__ == "__main__":
    main()
