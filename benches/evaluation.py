"""What an evaluation costs beside the kernel that it asks: the log-probability, entropy and rank of
every row, in one pass over float32 logits.

Contestants take turns, as in peers.py; medians of milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import crossent
import crossent.functional as F
from crossent.evaluation import Evaluation

SHAPES = [(512, 50257), (8192, 1000), (65536, 100), (65536, 10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    print("| shape | kernel | update | per class |\n|---|---:|---:|---:|")
    for rows, classes in SHAPES:
        x = 3 * rng.standard_normal((rows, classes), np.float32)
        y = rng.integers(0, classes, rows)
        calls: list[Callable[[], Any]] = [
            lambda x=x, y=y: F.token_log_prob(x, y),  # type: ignore[misc]
            lambda x=x, y=y: Evaluation().update(x, y),  # type: ignore[misc]
            lambda x=x, y=y: Evaluation(per_class=True).update(x, y),  # type: ignore[misc]
        ]
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(repeats + 1):
            for call, taken in zip(calls, times, strict=True):
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
        kernel, *others = (1e3 * statistics.median(taken[1:]) for taken in times)
        cells = [f"{kernel:.2f} ms", *(f"{each:.2f} ms ({each / kernel:.1f}×)" for each in others)]
        print(f"| ({rows}, {classes}) | {' | '.join(cells)} |")
    print(f"\ncrossent {crossent.__version__} with {crossent.simd_level()} and "
          f"{crossent.get_num_threads()} threads.")  # fmt: skip


if __name__ == "__main__":
    main()
