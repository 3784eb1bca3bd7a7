"""A language model, what it is worth in bits, and what is left of it in float16 and int8.

The text is Python's own documentation strings, those of its standard library. Nine tenths train the
model, the rest measures it. The model predicts a byte from the three before it: log-linear, a table
of logits for each place of the context, trained with crossent's loss and gradient and NumPy. What a
language model's evaluation says is all here: perplexity, bits per byte, calibration, and the
divergence of a quantised model from its base, with quantiles.

    python examples/perplexity.py --steps 300
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent.functional as F
from crossent.evaluation import Evaluation, evaluate

Array = NDArray[Any]

BYTES = 256
CONTEXT = 3
# How fast it learns, and how much of the gradients' mean squares is kept from step to step.
RATE, KEPT = 0.05, 0.99
BATCH = 4096
# What quantiles of the divergence are printed.
SHARES = (0.5, 0.99, 1.0)


def documentation(size: int) -> bytes:
    """The first so many bytes of the documentation strings of Python's library, by file name."""
    text: list[str] = []
    length = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text.append(ast.get_docstring(node) or "")
                length += len(text[-1])
        if length > 2 * size:
            break
    return "\n".join(text).encode()[:size]


def windows(text: bytes) -> tuple[Array, Array]:
    """The contexts, and the bytes that follow them."""
    codes = np.frombuffer(text, np.uint8)
    views = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)
    return views[:, :CONTEXT], views[:, CONTEXT]


def logits_of(tables: Array, contexts: Array) -> Array:
    """The sum of the rows that a context names, one of each table."""
    total: Array = tables[0][contexts[:, 0]].astype(np.float32)
    for place in range(1, CONTEXT):
        total += tables[place][contexts[:, place]]
    return total


def train(contexts: Array, following: Array, steps: int) -> Array:
    """Tables of logits, by steps that are as large as gradients usually are (RMSProp)."""
    rng = np.random.default_rng(0)
    tables = np.zeros((CONTEXT, BYTES, BYTES), np.float32)
    squares = np.full_like(tables, 1e-8)
    # Tables add up: what each context names is the count of its bytes' rows.
    for step in range(steps):
        chosen = rng.integers(0, len(following), BATCH)
        context, target = contexts[chosen], following[chosen]
        logits = logits_of(tables, context)
        F.cross_entropy(logits, target, grad_out=logits)
        for place in range(CONTEXT):
            gradient = summed_by(context[:, place], logits)
            squares[place] = KEPT * squares[place] + (1 - KEPT) * gradient**2
            tables[place] -= RATE * (1 - step / steps) * gradient / np.sqrt(squares[place])
    return tables


def summed_by(names: Array, rows: Array) -> Array:
    """The sum of the rows of each name."""
    order = np.argsort(names, kind="stable")
    found, first = np.unique(names[order], return_index=True)
    total = np.zeros((BYTES, rows.shape[1]), rows.dtype)
    total[found] = np.add.reduceat(rows[order], first, axis=0)
    return total


def as_int8(tables: Array) -> Array:
    """Each row as integers of 8 bits, times a number of its own; and back."""
    scale = np.abs(tables).max(-1, keepdims=True) / 127
    codes = np.round(tables / np.where(scale == 0, 1, scale)).astype(np.int8)
    restored: Array = codes.astype(np.float32) * scale
    return restored


def measured(tables: Array, base: Array | None, contexts: Array, following: Array) -> Evaluation:
    """A model's evaluation; logits are made slice by slice, and never held as a whole."""
    evaluation = Evaluation(worst=3)
    for start in range(0, len(following), BATCH):
        part = slice(start, start + BATCH)
        evaluation.update(
            logits_of(tables, contexts[part]),
            following[part],
            baseline=None if base is None else logits_of(base, contexts[part]),
            # Every row stands for one byte.
            byte_count=len(following[part]),
        )
    return evaluation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=400_000, help="how much text")
    options = parser.parse_args()

    text = documentation(options.bytes)
    cut = len(text) * 9 // 10
    held_out = text[cut:]
    print(f"{cut:,} bytes to learn from, {len(held_out):,} to measure with")
    base = train(*windows(text[:cut]), options.steps)
    contexts, following = windows(held_out)

    print(f"{'':10} {'perplexity':>10} {'bits/byte':>10} {'accuracy':>9} {'ECE':>7}")
    models = {"uniform": np.zeros_like(base), "float32": base}
    models |= {"float16": base.astype(np.float16), "int8": as_int8(base)}
    found = {name: measured(tables, base, contexts, following) for name, tables in models.items()}
    for name, each in found.items():
        print(
            f"{name:10} {each.perplexity:10.4f} {each.bits_per_byte:10.5f} "
            f"{each.accuracy:9.2%} {each.expected_calibration_error:7.2%}"
        )

    print("divergence from float32, in nats: mean, " + ", ".join(f"{q:.0%}" for q in SHARES))
    for name in ("float32", "float16", "int8"):
        each = found[name]
        numbers = " ".join(f"{value:.3e}" for value in each.kl_quantiles(SHARES))
        print(f"{name:10} {each.kl_divergence:.3e} {numbers}")

    print("what it least expected:")
    for token in found["float32"].worst_tokens():
        around = held_out[max(0, token.row + CONTEXT - 20) : token.row + CONTEXT]
        print(f"  {chr(token.target)!r} after {around.decode(errors='replace')!r}: "
              f"log-probability {token.log_prob:.2f}")  # fmt: skip

    # One call over an array has the same bits as slices have.
    whole = evaluate(logits_of(base, contexts), following, byte_count=len(following), worst=3)
    if whole.cross_entropy != found["float32"].cross_entropy:
        print("error: slices show", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
