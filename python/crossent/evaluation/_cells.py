"""A table of exact sums: a row a class, a group or a bin, a column a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation._sums import ExactSums, Floats, Integers, ratios

# The sum of the weights of rows, and how many there were.
WEIGHT, ROWS = "weight", "rows"


class Cells:
    """Sums of columns in each of `size` cells, weighted, and the weights and rows behind them."""

    def __init__(self, size: int, columns: Iterable[str]) -> None:
        self.size = size
        names = (ROWS, WEIGHT, *columns)
        self.columns: dict[str, ExactSums] = {name: ExactSums(size) for name in names}

    def add(
        self,
        cells: Integers | None,
        weight: Floats | None,
        columns: Mapping[str, NDArray[Any]],
        n: int,
    ) -> None:
        """Adds n rows to their cells, or to the only one: booleans are counted."""
        self.columns[ROWS].count(cells, n)
        if weight is None:
            self.columns[WEIGHT].count(cells, n)
        else:
            self.columns[WEIGHT].add(weight, cells)
        for name, values in columns.items():
            sums = self.columns[name]
            if values.dtype != np.bool_:
                # A product beyond the largest float is infinite.
                with np.errstate(over="ignore"):
                    weighted = values if weight is None else values * weight
                sums.add(weighted, cells)
                continue
            there = None if cells is None else cells[values]
            if weight is None:
                sums.count(there, int(np.count_nonzero(values)))
            else:
                sums.add(weight[values], there)

    def merge(self, other: Cells, cells: Integers | None = None) -> None:
        """Adds other cells: each to its own place, or to the cell that it is given."""
        for name, sums in self.columns.items():
            sums.merge(other.columns[name], cells)

    def spread(self, size: int, cells: Integers) -> Cells:
        """The same cells at other places among so many."""
        result = Cells(size, ())
        result.columns = {name: sums.spread(size, cells) for name, sums in self.columns.items()}
        return result

    def taken(self, cells: Integers) -> Cells:
        """Some of the cells, in the order that these have here."""
        result = Cells(len(cells), ())
        result.columns = {name: sums.taken(cells) for name, sums in self.columns.items()}
        return result

    def mean(self, name: str, over: str = WEIGHT) -> float:
        """That of the only cell."""
        return float(self.means(name, over)[0])

    def means(self, name: str, over: str = WEIGHT) -> Floats:
        """A column over another one in each cell, by default its weighted mean; NaN of no rows."""
        return ratios(self.columns[name], self.columns[over])

    def rows(self) -> Integers:
        """How many rows each cell has."""
        return self.columns[ROWS].values().astype(np.int64)

    def summed(self, name: str) -> Fraction | float:
        """A column of all cells together."""
        return self.columns[name].summed().exact()

    def to_dict(self) -> dict[str, Any]:
        """Every column's sums."""
        return {name: sums.to_dict() for name, sums in self.columns.items()}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any], size: int, columns: Iterable[str]) -> Cells:
        """The cells that `to_dict` wrote."""
        result = cls(size, columns)
        if kept.keys() != result.columns.keys():
            raise ValueError(f"kept cells must have the columns {', '.join(result.columns)}")
        result.columns = {name: ExactSums.from_dict(kept[name], size) for name in result.columns}
        return result
