"""Sums of float64 numbers without rounding, so that no order and no grouping changes a bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A number is a sum of digits in base 2**26, at fixed places: digit j counts 2**(26 j). The digits
# of up to 2**27 numbers, of 2**26 each, add up exactly in float64.
BITS = 26
BASE = 1 << BITS
BLOCK = 1 << 27
LOWEST = -42  # 26 * -42 is below 2**-1074, the last bit of a float64.
# From here on, the constant that rounds to a digit's place would overflow.
HUGE = 2.0**900
ROOM = 1 << 61
SPECIALS = (nan, inf, -inf)


def digits(values: Floats) -> Iterator[tuple[int, Floats]]:
    """`(j, part)` from the highest place down; the parts of a value, multiples of 2**(26 j), add up
    to it, and the parts of all values at a place add up exactly in any order.

    Adding and subtracting 1.5 * 2**52 units of a place rounds to that place (Rump, Ogita and Oishi,
    "Accurate floating-point summation", 2008), and what is left is exact.
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    place = -(-int(np.frexp(largest)[1]) // BITS) - 1
    while largest:
        if place <= LOWEST:
            yield place, values
            return
        magic = float(np.ldexp(1.5, 52 + BITS * place))
        part = values + magic
        part -= magic
        values = values - part
        yield place, part
        largest = float(np.max(np.abs(values), initial=0.0))
        place -= 1


class ExactSums:
    """So many sums, each an exact number, an infinity or NaN.

    Adding is associative and commutative to the last bit; what is read from it is rounded once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._places: dict[int, Integers] = {}
        # How large a digit may have become: below 2**63.
        self._bound = 0
        # How often NaN, inf and -inf were added; None while never.
        self._specials: Integers | None = None

    def add(self, values: NDArray[Any], cells: Integers | None = None) -> None:
        """Adds each value to the sum that its cell names, or to the only one."""
        values = np.asarray(values, np.float64)
        for start in range(0, len(values), BLOCK):
            block = slice(start, start + BLOCK)
            self._add_block(values[block], None if cells is None else cells[block])

    def _add_block(self, values: Floats, cells: Integers | None) -> None:
        ordinary = np.abs(values) < HUGE
        if not ordinary.all():
            self._add_unusual(values, cells, ~ordinary)
            values = np.where(ordinary, values, 0.0)
        for place, part in digits(values):
            total = np.atleast_1d(part.sum()) if cells is None else self._by_cell(part, cells)
            self._add_digits(place, np.ldexp(total, -BITS * place), len(values) * BASE)

    def _by_cell(self, values: NDArray[Any] | None, cells: Integers) -> NDArray[Any]:
        return np.bincount(cells, values, self.size)

    def _add_digits(self, place: int, counts: NDArray[Any], bound: int) -> None:
        if self._bound + bound >= ROOM:
            self._carry()
        self._bound += bound
        at_place = self._places.setdefault(place, np.zeros(self.size, np.int64))
        at_place += counts.astype(np.int64)

    def _add_unusual(self, values: Floats, cells: Integers | None, where: NDArray[Any]) -> None:
        values = values[where]
        cells = np.zeros(len(values), np.int64) if cells is None else cells[where]
        finite = np.isfinite(values)
        for value, cell in zip(values[finite].tolist(), cells[finite].tolist(), strict=True):
            self._add_integer(int(value), cell)
        kinds = [np.isnan(values), values == inf, values == -inf]
        if not finite.all():
            found: Integers = np.stack([self._by_cell(None, cells[kind]) for kind in kinds])
            self._specials = found + (0 if self._specials is None else self._specials)

    def _add_integer(self, number: int, cell: int) -> None:
        sign, number, place = (-1 if number < 0 else 1), abs(number), 0
        one = np.zeros(self.size, np.int64)
        while number:
            number, digit = number >> BITS, number & (BASE - 1)
            one[cell] = sign * digit
            self._add_digits(place, one, BASE)
            place += 1

    def count(self, cells: Integers | None, n: int) -> None:
        """Adds 1 to each cell, as often as it is named; to the only one, n."""
        counts = np.array([n]) if cells is None else self._by_cell(None, cells)
        self._add_digits(0, counts, n)

    def merge(self, other: ExactSums, cells: Integers | None = None) -> None:
        """Adds other sums: each to its own place, or to the cell of its own that it is given."""
        if cells is not None:
            other = other.spread(self.size, cells)
        other._carry()
        for place, counts in list(other._places.items()):
            self._add_digits(place, counts, other._bound)
        if other._specials is not None:
            kept = 0 if self._specials is None else self._specials
            self._specials = other._specials + kept

    def spread(self, size: int, cells: Integers) -> ExactSums:
        """The same sums at other places among so many; cells differ."""

        def placed(counts: Integers) -> Integers:
            wide = np.zeros((*counts.shape[:-1], size), np.int64)
            wide[..., cells] = counts
            return wide

        return self._moved(size, placed)

    def taken(self, cells: Integers) -> ExactSums:
        """The sums of some cells, in the order that these have here."""
        return self._moved(len(cells), lambda counts: counts[..., cells])

    def _moved(self, size: int, move: Callable[[Integers], Integers]) -> ExactSums:
        result = ExactSums(size)
        result._places = {place: move(counts) for place, counts in self._places.items()}
        result._bound = self._bound
        result._specials = None if self._specials is None else move(self._specials)
        return result

    def _carry(self) -> None:
        """Makes digits those of the two's complement, and no more: equal sums look equal."""
        digits: dict[int, Integers] = {}
        carry = np.zeros(self.size, np.int64)
        place = min(self._places, default=0)
        highest = max(self._places, default=place - 1)
        # What is carried out of the top is 0 or -1 in the end: the sign.
        while place <= highest or ((carry != 0) & (carry != -1)).any():
            total = carry + self._places.get(place, 0)
            carry = total >> BITS
            digits[place] = total - (carry << BITS)
            place += 1
        digits[place] = carry
        for lower in range(place - 1, min(digits) - 1, -1):
            needless = (digits[lower + 1] == -1) & (digits[lower] == BASE - 1)
            if not needless.any():
                break
            digits[lower + 1][needless] = 0
            digits[lower][needless] = -1
        self._places = {place: counts for place, counts in digits.items() if counts.any()}
        self._bound = BASE if self._places else 0

    def exact(self, cell: int = 0) -> Fraction | float:
        """One sum as a fraction, or as what the special numbers added to it make."""
        if self._specials is not None:
            nans, plus, minus = self._specials[:, cell]
            if nans or (plus and minus):
                return nan
            if plus or minus:
                return inf if plus else -inf
        (number,), place = self.numbers(np.array([cell]))
        return Fraction(number) * Fraction(2) ** (BITS * place)

    def numbers(self, cells: Integers) -> tuple[list[int], int]:
        """The sums of some cells as integers, and the place of their last digit: what special
        numbers were added is left out."""
        found, last = [0] * len(cells), max(self._places, default=0)
        for place in sorted(self._places, reverse=True):
            up, last = BITS * (last - place), place
            digits = self._places[place][cells].tolist()
            found = [(number << up) + digit for number, digit in zip(found, digits, strict=True)]
        return found, last

    def special(self) -> Floats:
        """NaN and infinities where special numbers make the sum one of these; 0 elsewhere."""
        if self._specials is None:
            return np.zeros(self.size)
        nans, plus, minus = np.where(self._specials > 0, [[nan], [inf], [-inf]], 0.0)
        with np.errstate(invalid="ignore"):
            return np.asarray(nans + plus + minus)

    def summed(self) -> ExactSums:
        """The sum of all of these."""
        result = ExactSums(1)
        # Small digits: so many of them add up in an int64.
        self._carry()
        for place, counts in self._places.items():
            result._add_digits(place, np.atleast_1d(counts.sum()), self.size * BASE)
        if self._specials is not None:
            result._specials = self._specials.sum(axis=1, keepdims=True)
        return result

    def value(self, cell: int = 0) -> float:
        """One sum, rounded to the nearest float64."""
        return rounded(self.exact(cell))

    def values(self) -> Floats:
        """All of them."""
        numbers, place = self.numbers(np.arange(self.size))
        special = self.special()
        return np.where(special == 0, quotients(numbers, [1] * self.size, BITS * place), special)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExactSums) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Digits by place, and how often NaN, inf and -inf were added: integers alone."""
        self._carry()
        kept: dict[str, Any] = {
            "digits": {str(place): self._places[place].tolist() for place in sorted(self._places)}
        }
        if self._specials is not None and self._specials.any():
            kept["specials"] = self._specials.tolist()
        return kept

    @classmethod
    def from_dict(cls, kept: dict[str, Any], size: int) -> ExactSums:
        """The sums that `to_dict` wrote."""
        result = cls(size)

        for place, counts in kept["digits"].items():
            digits = integers(counts, size)
            if not LOWEST <= int(place) < -LOWEST or (abs(digits) >= BASE).any():
                raise ValueError("kept sums have digits that no sum has")
            result._add_digits(int(place), digits, BASE)
        if "specials" in kept:
            result._specials = integers(kept["specials"], len(SPECIALS), size)
        return result


def integers(given: Any, *shape: int) -> Integers:
    """Integers as they were kept, in an array of this shape."""
    array = np.array(given)
    if array.shape != shape or (array.size and array.dtype != np.int64):
        raise ValueError(f"kept counts must be integers of shape {shape}")
    return array.astype(np.int64)


def rounded(number: Fraction | float) -> float:
    """The nearest float64; beyond the largest, an infinity."""
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def ratios(over: ExactSums, under: ExactSums) -> Floats:
    """Each sum over another, rounded once; NaN where the other is 0, infinite or NaN."""
    divisible = under.special() == 0
    divisible &= np.any([counts != 0 for counts in under._places.values()] or [[False]], axis=0)
    special = over.special()
    result = np.where(divisible, special, nan)
    # What has no rows costs nothing: of a vocabulary most classes have none.
    cells = np.flatnonzero(divisible & (special == 0))
    above, place = over.numbers(cells)
    below, other = under.numbers(cells)
    result[cells] = quotients(above, below, BITS * (place - other))
    return result


def quotients(over: list[int], under: list[int], power: int) -> list[float]:
    """2**power times each integer over another, rounded once, as Python's division is; NaN of a
    division by 0, and an infinity beyond the largest float64."""
    up, down = max(power, 0), max(-power, 0)
    found = []
    for above, below in zip(over, under, strict=True):
        try:
            found.append((above << up) / (below << down))
        except ZeroDivisionError:
            found.append(nan)
        except OverflowError:
            found.append(inf if (above > 0) == (below > 0) else -inf)
    return found
