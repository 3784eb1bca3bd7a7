"""Sums and quantiles, against fractions and NumPy's, in any order and any parts."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossent.evaluation import Quantiles
from crossent.evaluation._sums import ExactSums, ratios, rounded

FINITE = st.floats(allow_nan=False, allow_infinity=False)
CASES = settings(deadline=None, max_examples=60, derandomize=True, database=None)
LISTS = st.lists(FINITE, max_size=30)


def summed(values, cells=None, size=1):
    sums = ExactSums(size)
    sums.add(np.array(values, np.float64), cells)
    return sums


@CASES
@given(LISTS)
def test_a_sum_is_exact(values):
    sums = summed(values)
    want = sum(map(Fraction, values), Fraction(0))
    assert sums.exact() == want
    assert json.loads(json.dumps(sums.to_dict())) == sums.to_dict()
    assert ExactSums.from_dict(sums.to_dict(), 1).exact() == want


@CASES
@given(LISTS, st.randoms(use_true_random=False))
def test_order_and_parts_do_not_show(values, random):
    whole = summed(values)
    shuffled = random.sample(values, len(values))
    cut = random.randint(0, len(values))
    first, second = summed(shuffled[:cut]), summed(shuffled[cut:])
    second.merge(first)
    assert second.to_dict() == whole.to_dict()


@CASES
@given(LISTS, LISTS, LISTS)
def test_merging_is_associative(a, b, c):
    left = summed(a)
    left.merge(summed(b))
    left.merge(summed(c))
    right = summed(b)
    right.merge(summed(c))
    first = summed(a)
    first.merge(right)
    assert left == first


@CASES
@given(st.lists(st.tuples(FINITE, st.integers(0, 4)), max_size=40))
def test_cells_are_apart(pairs):
    values, cells = [v for v, _ in pairs], np.array([c for _, c in pairs], np.int64)
    sums = summed(values, cells, 5)
    for cell in range(5):
        want = sum((Fraction(v) for v, c in pairs if c == cell), Fraction(0))
        assert sums.exact(cell) == want
    moved = sums.spread(9, np.array([8, 0, 3, 1, 5]))
    assert [moved.exact(c) for c in (8, 0, 3, 1, 5)] == [sums.exact(c) for c in range(5)]
    assert moved.exact(2) == 0


def test_many_numbers_of_one_size(rng):
    """Rounding would show here: fsum is exact but for its last rounding."""
    values = rng.exponential(size=100_000) * 10.0 ** rng.integers(-30, 30, 100_000)
    assert summed(values).value() == math.fsum(values)
    assert summed(values[::-1]) == summed(values)


def test_digits_do_not_overflow():
    sums, part = ExactSums(1), summed([2.0**26 - 1] * 4)
    for _ in range(80):
        part.merge(part)
    sums.merge(part)
    assert sums.exact() == (2**26 - 1) * 4 * 2**80


@pytest.mark.parametrize(
    "values, want",
    [
        ([math.inf, 1.0], math.inf),
        ([-math.inf, 1.0], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 1.0], math.nan),
        ([1e308, 1e308], math.inf),
        ([1e308, 1e308, -1e308], 1e308),
        ([5e-324, 5e-324], 1e-323),
        ([], 0.0),
    ],
)
def test_what_is_not_finite(values, want):
    got = summed(values).value()
    assert got == want or (math.isnan(got) and math.isnan(want))
    parts = summed(values[1:])
    parts.merge(summed(values[:1]))
    assert parts == summed(values)


def test_a_ratio_is_rounded_once():
    ones = summed([0.1] * 3)
    assert ratios(ones, summed([3.0])) == float(3 * Fraction(0.1) / 3) == 0.1
    for over, under in (([], []), ([1.0], []), ([math.inf], []), ([1.0], [math.inf])):
        assert np.isnan(ratios(summed(over), summed(under)))
    assert ratios(summed([math.inf, 1.0]), summed([2.0])) == math.inf
    assert ratios(summed([1e308]), summed([1e-308])) == math.inf
    assert ratios(summed([-1e308]), summed([1e-308])) == -math.inf


@CASES
@given(
    st.lists(st.tuples(FINITE, st.floats(0, 1e300), st.integers(0, 4)), max_size=40),
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), max_size=3),
)
def test_ratios_are_those_of_fractions(rows, specials):
    cells = np.array([c for *_, c in rows], np.int64)
    over, under = (summed([row[i] for row in rows], cells, 5) for i in (0, 1))
    over.add(np.array(specials), np.zeros(len(specials), np.int64))
    for cell, got in enumerate(ratios(over, under).tolist()):
        above, below = over.exact(cell), under.exact(cell)
        want = math.nan
        if below:
            want = rounded(above / below) if isinstance(above, Fraction) else above
        assert got == want or (math.isnan(got) and math.isnan(want))
    for sums in (over, under):
        np.testing.assert_array_equal(sums.values(), [sums.value(cell) for cell in range(5)])
    some = np.array([3, 0])
    np.testing.assert_array_equal(over.taken(some).values(), over.values()[some])


# Quantiles


def quantiles(values):
    made = Quantiles()
    made.add(values)
    return made


SHARES = [0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0]
NUMBERS = st.lists(st.floats(min_value=0, allow_nan=False), min_size=1, max_size=60)


@CASES
@given(NUMBERS)
def test_quantiles_are_within_their_bars(values):
    want = np.quantile(values, SHARES, method="inverted_cdf")
    for got, exact in zip(quantiles(values).at(SHARES), want, strict=True):
        # Numbers that are not normal share bins of 2**-1029.
        assert got == exact or abs(got - exact) <= max(2.0**-8 * exact, 2.0**-1029)
    assert quantiles(values).at([0, 1]) == [min(values), max(values)]


@CASES
@given(NUMBERS, NUMBERS)
def test_quantiles_merge(a, b):
    merged = quantiles(b)
    merged.merge(quantiles(a))
    assert merged == quantiles(a + b)
    assert merged.count == len(a + b)
    assert Quantiles.from_dict(json.loads(json.dumps(merged.to_dict()))) == merged


def test_bins_hold_what_was_added(rng):
    values = rng.lognormal(0, 3, 1000)
    bins = quantiles(values).bins()
    assert sum(count for _, _, count in bins) == 1000
    for low, high, count in bins:
        assert count == np.count_nonzero((values >= low) & (values < high))
        assert high - low <= low / 128


def test_quantiles_of_nan_and_nothing():
    made = Quantiles()
    assert np.isnan(made.at([0.5])).all()
    made.add([1.0, np.nan])
    assert made.nans == 1
    assert made.count == 1
    assert np.isnan(made.at([0.5])).all()
    with pytest.raises(ValueError, match="must not be negative"):
        made.add([-1.0])
    with pytest.raises(ValueError, match=r"q must be in \[0, 1\]"):
        made.at([1.5])
