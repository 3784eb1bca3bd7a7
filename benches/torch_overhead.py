"""Cross-entropy on torch tensors of the CPU, beside the same on NumPy arrays, and beside torch's.

float32 logits, int64 targets, the mean. "forward" is of logits that require grad: crossent computes
the gradient with the loss there (`return_grad=True` on arrays). "and backward" goes on through
autograd to a new gradient. "compiled" is crossent.torch under torch.compile. Small logits show what
the way to a kernel costs, large ones the kernel. The contestants take turns, as in peers.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from peers import Problem, Shape, cores, duration, machine, race, shape_of

import crossent
import crossent.functional as F
from crossent import torch as ct

SHAPES: list[Shape] = [(8, 10), (8192, 1000), (512, 50257)]
REPEATS = 21

Call = Callable[[], Any]


def check(problem: Problem, x: torch.Tensor, y: torch.Tensor) -> None:
    loss, grad = F.cross_entropy(problem.x, problem.y, return_grad=True)
    for function in (ct.cross_entropy, TF.cross_entropy):
        got = function(x, y)
        torch.testing.assert_close(float(got.detach()), float(loss), rtol=1e-5, atol=0)
        slope = torch.autograd.grad(got, x)[0]
        torch.testing.assert_close(slope, torch.from_numpy(grad), rtol=1e-4, atol=1e-6)


def table(shape: Shape, repeats: int) -> list[str]:
    problem = Problem.random(shape, np.random.default_rng(0))
    plain, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
    x = plain.clone().requires_grad_()
    check(problem, x, y)

    def backward(function: Callable[..., torch.Tensor]) -> Call:
        return lambda: torch.autograd.grad(function(x, y), x)

    ours, theirs = ct.cross_entropy, TF.cross_entropy
    compiled = torch.compile(ours, fullgraph=True)
    calls: list[tuple[str, list[Call | None]]] = [
        ("loss",
         [lambda: F.cross_entropy(problem.x, problem.y), lambda: ours(plain, y),
          lambda: compiled(plain, y), lambda: theirs(plain, y)]),
        ("forward",
         [lambda: F.cross_entropy(problem.x, problem.y, return_grad=True), lambda: ours(x, y),
          lambda: compiled(x, y), lambda: theirs(x, y)]),
        ("and backward", [None, backward(ours), backward(compiled), backward(theirs)]),
    ]  # fmt: skip
    times = iter(race([call for _, row in calls for call in row if call is not None], repeats))
    lines = []
    for what, row in calls:
        cells = ["" if call is None else duration(next(times)) for call in row]
        lines.append(f"| {shape} | {what} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", type=shape_of, default=SHAPES, metavar="NxC")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    crossent.set_num_threads(cores())
    torch.set_num_threads(cores())
    print(f"{machine(['torch'])}\n")
    print("| logits | | crossent.functional | crossent.torch | compiled | torch eager |")
    print("|---|---|---:|---:|---:|---:|")
    for shape in options.shapes:
        print("\n".join(table(shape, options.repeats)), flush=True)


if __name__ == "__main__":
    main()
