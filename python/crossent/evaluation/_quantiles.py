"""Quantiles of numbers that are not negative, from counts in fixed bins."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation._sums import integers

# A bin is the exponent of a float64 and the first 7 bits of its mantissa.
KEPT_BITS = 7
DROPPED_BITS = 52 - KEPT_BITS
LAST = (0x7FF << KEPT_BITS) + 1


class Quantiles:
    r"""Quantiles of the numbers that were added, each within $2^{-8}$ (0.4 %) of itself.

    Every octave has 128 bins of equal width, so that a bin is a range of float64's bit patterns and
    no rounding decides where a number goes. Bins are counted: summaries of parts merge to that of
    the whole, in any order, exactly; and there are no more than $2^{18}$, 2 MiB, whatever is added.
    Only those between the smallest and the largest number are kept.

    Example:
        >>> from crossent.evaluation import Quantiles
        >>> quantiles = Quantiles()
        >>> quantiles.add([0.0, 0.25, 1.0, 3.0, 1000.0])
        >>> quantiles.at([0.2, 0.5, 1.0])
        [0.0, 1.00390625, 998.0]
    """

    def __init__(self) -> None:
        self._first = 0
        self._counts = np.zeros(0, np.int64)
        self.nans = 0

    @property
    def count(self) -> int:
        """How many numbers were added, without NaN."""
        return int(self._counts.sum())

    def add(self, values: Any) -> None:
        """Adds numbers that are not negative; NaN is counted apart."""
        values = np.asarray(values, np.float64).ravel()
        if (values < 0).any():
            raise ValueError("values must not be negative")
        there = ~np.isnan(values)
        # Adding 0 makes -0.0 a plain one.
        keys = (values[there] + 0.0).view(np.int64) >> DROPPED_BITS
        if keys.size:
            first = int(keys.min())
            self._include(first, np.bincount(keys - first))
        self.nans += len(values) - len(keys)

    def _include(self, first: int, counts: NDArray[np.int64]) -> None:
        if not len(counts):
            return
        if not len(self._counts):
            self._first, self._counts = first, counts.astype(np.int64)
            return
        lowest = min(self._first, first)
        highest = max(self._first + len(self._counts), first + len(counts))
        if highest - lowest > len(self._counts):
            wide = np.zeros(highest - lowest, np.int64)
            wide[self._first - lowest :][: len(self._counts)] = self._counts
            self._first, self._counts = lowest, wide
        self._counts[first - self._first :][: len(counts)] += counts

    def merge(self, other: Quantiles) -> None:
        """Adds the numbers of another."""
        self._include(other._first, other._counts)
        self.nans += other.nans

    def at(self, q: Iterable[float]) -> list[float]:
        """For each q in [0, 1]: the middle of the bin with the least number that at least a share q
        of all do not exceed; NaN of no numbers, or where some were NaN."""
        shares = [float(share) for share in q]
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError("q must be in [0, 1]")
        total = self.count
        if not total or self.nans:
            return [nan] * len(shares)
        upto = np.cumsum(self._counts)
        ranks = np.maximum(np.ceil(np.array(shares) * total), 1)
        return [middle(self._first + int(i)) for i in np.searchsorted(upto, ranks)]

    def bins(self) -> list[tuple[float, float, int]]:
        """The bins that have numbers: their least number, the least of the next, how many."""
        edges = np.arange(self._first, self._first + len(self._counts) + 1, dtype=np.int64)
        lows = np.minimum(edges, LAST - 1) << DROPPED_BITS
        lows = lows.view(np.float64)
        return [
            (float(lows[i]), float(lows[i + 1]), int(self._counts[i]))
            for i in np.flatnonzero(self._counts)
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantiles) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Bins that are not empty, and their counts: integers alone."""
        there = np.flatnonzero(self._counts)
        return {
            "bins": (there + self._first).tolist(),
            "counts": self._counts[there].tolist(),
            "nans": self.nans,
        }

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Quantiles:
        """The summary that `to_dict` wrote."""
        bins = integers(kept["bins"], len(kept["bins"]))
        counts = integers(kept["counts"], len(bins))
        if len(bins) and not (bins.min() >= 0 and bins.max() < LAST and counts.min() > 0):
            raise ValueError("kept quantiles have bins that no number has")
        result = cls()
        if len(bins):
            dense = np.zeros(int(bins.max() - bins.min()) + 1, np.int64)
            dense[bins - bins.min()] = counts
            result._include(int(bins.min()), dense)
        result.nans = int(kept["nans"])
        return result


def middle(key: int) -> float:
    """The number that stands for a bin: its middle; 0 and infinity stand for themselves."""
    low, high = (float(np.int64(edge << DROPPED_BITS).view(np.float64)) for edge in (key, key + 1))
    if key == 0 or key >= LAST - 1:
        return low
    return low + (high - low) / 2 if np.isfinite(high) else low
