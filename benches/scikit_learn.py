"""`SoftmaxRegression` and `log_loss` beside scikit-learn's.

    python benches/scikit_learn.py             # needs: pip install crossent[sklearn]

The regressions fit `--rows` standardised rows of 50 features and 10 classes, in turns. "Off" is how
far coefficients are from the minimum, by a fit to the limits of rounding.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as their_log_loss

import crossent
from crossent.sklearn import SoftmaxRegression, log_loss

FEATURES, CLASSES = 50, 10


def seconds(repeats: int, ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median of each way, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in taken.items()}


def regressions(rows: int, repeats: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, FEATURES))
    true = rng.standard_normal((FEATURES, CLASSES))
    labels = (features @ true + 2 * rng.gumbel(size=(rows, CLASSES))).argmax(axis=1)
    exact = SoftmaxRegression(tol=1e-12).fit(features, labels)
    models: dict[str, Any] = {
        "SoftmaxRegression": SoftmaxRegression(),
        "LogisticRegression, lbfgs": LogisticRegression(),
        "the same, tol=1e-8": LogisticRegression(tol=1e-8, max_iter=1000),
        "LogisticRegression, newton-cholesky": LogisticRegression(solver="newton-cholesky"),
    }
    taken = seconds(
        repeats,
        {n: lambda m=m: m.fit(features, labels) for n, m in models.items()},  # type: ignore[misc]
    )
    print(f"| fit to {rows} × {FEATURES}, {CLASSES} classes | time | iterations | off |")
    print("|---|---:|---:|---:|")
    for name, model in models.items():
        off = float(np.abs(model.coef_ - exact.coef_).max())
        ratio = taken[name] / taken["SoftmaxRegression"]
        iterations = int(np.max(model.n_iter_))
        print(f"| {name} | {taken[name]:.2f} s ({ratio:.2f}×) | {iterations} | {off:.1e} |")


def losses(rows: int, repeats: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, CLASSES))
    proba = np.exp(logits)
    proba /= proba.sum(axis=1, keepdims=True)
    labels = rng.integers(0, CLASSES, rows)
    names = np.array([f"class {k}" for k in range(CLASSES)])[labels]
    print(f"\n| log loss of {rows} × {CLASSES} | crossent | scikit-learn |")
    print("|---|---:|---:|")
    for what, y in (("integers", labels), ("strings", names)):
        taken = seconds(
            repeats,
            {
                "crossent": lambda y=y: log_loss(y, proba),  # type: ignore[misc]
                "scikit-learn": lambda y=y: their_log_loss(y, proba),  # type: ignore[misc]
            },
        )
        ours, theirs = taken["crossent"], taken["scikit-learn"]
        print(f"| {what} | {1e3 * ours:.3g} ms | {1e3 * theirs:.3g} ms ({theirs / ours:.2f}×) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    version = importlib.metadata.version("scikit-learn")
    threads, level = crossent.get_num_threads(), crossent.simd_level()
    print(f"scikit-learn {version}, {threads} threads, {level}\n")
    regressions(options.rows, options.repeats)
    losses(options.rows, options.repeats)


if __name__ == "__main__":
    main()
