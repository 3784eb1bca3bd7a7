"""The references themselves: long double against 60 digits, and the ruler against known numbers."""

import numpy as np
import pytest
import reference
from mpmath import mp


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("spread", [0.1, 3, 100])
def test_long_double_agrees_with_60_digits(dtype, spread, rng):
    x = (rng.standard_normal((20, 50)) * spread).astype(dtype)
    x[:4, 3] += 90  # confident
    x[4:8, 3:6] = 300  # ties
    wide = x.astype(np.longdouble)
    exact, fast = reference.exact_terms(x), reference.terms(wide)
    for name, want, got in zip(exact._fields, exact, fast, strict=True):
        with np.errstate(under="ignore"):
            error = np.abs(got - want) / np.where(want == 0, 1, want)
        assert np.max(error) < 0.1 * np.finfo(np.float64).eps, name


def test_conversion_from_60_digits_keeps_64_bits():
    with mp.workdps(60):
        numbers = [mp.mpf(0), mp.mpf(1), mp.mpf(1) / 3, mp.exp(-5000), mp.exp(2000)]
        got = reference._to_longdouble(numbers)
    assert got[0] == 0
    assert got[1] == 1
    assert abs(got[2] * 3 - 1) < 2e-19
    assert abs(np.log(got[3]) + 5000) < 1e-14
    assert abs(np.log(got[4]) - 2000) < 1e-14


def test_ulp_is_the_spacing_of_the_type():
    for dtype in (np.float16, np.float32, np.float64):
        for value in (1.0, 1.5, 2.0, 3e-3, 600.0):
            assert reference.ulp(value, dtype) == np.spacing(dtype(value))
        assert reference.ulp(0.0, dtype) == np.finfo(dtype).smallest_subnormal
    assert reference.ulp(1e-40, np.float32) == np.finfo(np.float32).smallest_subnormal
    assert reference.ulp(1.0, reference.BFLOAT16) == 2.0**-7


def test_ulp_errors():
    one = np.float32(1)
    up = np.nextafter(one, np.float32(2))
    assert reference.ulp_errors(up, np.longdouble(1)) == 1
    assert reference.ulp_errors(one, np.longdouble(1) + np.longdouble(2) ** -24) == 0.5
    assert reference.ulp_errors(np.float32(np.nan), np.longdouble(np.nan)) == 0
    assert reference.ulp_errors(np.float32(np.nan), np.longdouble(1)) == np.inf
    assert reference.ulp_errors(np.float32(np.inf), np.longdouble(1e300)) == 0
    assert reference.ulp_errors(np.float32(np.inf), np.longdouble(1)) == np.inf
    assert reference.ulp_errors(np.float32(0), np.longdouble(np.inf)) == np.inf


def test_cross_entropy_of_known_rows():
    third = np.log(np.longdouble(3))
    got = reference.cross_entropy(np.zeros((2, 3)), np.array([0, 2]), reduction="none")
    assert np.allclose(got.loss, third, rtol=1e-18)
    assert np.allclose(got.grad[0] * 3, [-2, 1, 1], rtol=1e-18)
    assert np.allclose(got.hess * 9, 2, rtol=1e-18)
    row = np.array([20.0, 0.0])
    want = mp.log1p(mp.exp(-20))
    assert abs(mp.mpf(float(reference.cross_entropy(row, np.array(0)).loss)) / want - 1) < 1e-15
