"""Entropies and divergences: against long double, torch, SciPy, finite differences, and layouts."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as TF
from layouts import LAYOUTS, assert_only_view_written, like
from reference import FLOATS, GRAD_BAR, LOSS_BAR, assert_within
from test_gradients import check_gradient, upstream_gradient

import crossent
import crossent.functional as F

WIDE = [np.float32, np.float64]


def wide(array):
    return np.asarray(array).astype(np.float64).astype(np.longdouble)


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(wide(p))


def xlogx(p):
    p = wide(p)
    return np.where(p == 0, 0, p * log(np.where(p == 0, 1, p)))


def entropy(p, axis=-1):
    return -np.sum(xlogx(p), axis=axis)


def binary_entropy(p):
    p = wide(p)
    rest = np.where(p == 1, 0, (1 - p) * np.log1p(-np.where(p == 1, 0, p)))
    return -xlogx(p) - rest


def kl_div(x, t):
    """The terms of the divergence, and the larger of the two in each."""
    x, t = wide(x), wide(t)
    with np.errstate(invalid="ignore"):
        cross = np.where(t == 0, 0, t * x)
    return xlogx(t) - cross, np.maximum(np.abs(xlogx(t)), np.abs(cross))


def distributions(rng, shape, dtype):
    p = rng.dirichlet(np.full(shape[-1], 0.5), shape[:-1]).astype(dtype)
    if shape[-1] > 1:
        p[..., 0] *= rng.random(shape[:-1]) > 0.3
    return p


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 17, 1000, 50257])
@pytest.mark.parametrize("base", [None, 2, 10, 0.5])
def test_entropy(dtype, classes, base, rng, worst):
    p = distributions(rng, (max(3, 20000 // classes), classes), dtype)
    name = np.dtype(dtype).name
    unit = np.log(np.longdouble(base)) if base else 1
    got, grad = F.entropy(p, base=base, return_grad=True)
    error = assert_within(got, entropy(p) / unit, LOSS_BAR[name])
    worst(f"{name:9} entropy", f"{classes} classes", error)
    scale = np.maximum(np.abs(log(np.where(p == 0, 1, p))), 1) / np.abs(unit)
    assert_within(grad, (-log(p) - 1) / unit, GRAD_BAR[name], scale)
    across = F.entropy(np.ascontiguousarray(p.T), axis=0, base=base)
    assert_within(across, entropy(p) / unit, LOSS_BAR[name])


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("range", ["uniform", "small", "near one", "corners"])
@pytest.mark.parametrize("base", [None, 2])
def test_binary_entropy(dtype, range, base, rng, worst):
    u = rng.random(20000)
    p = {
        "uniform": u,
        "small": 10.0 ** (-44 * u),
        "near one": 1 - 10.0 ** (-16 * u),
        "corners": np.round(u),
    }[range].astype(dtype)
    name = np.dtype(dtype).name
    unit = np.log(np.longdouble(base)) if base else 1
    got, grad = F.binary_entropy(p, base=base, return_grad=True)
    worst(
        f"{name:9} binary entropy",
        range,
        assert_within(got, binary_entropy(p) / unit, LOSS_BAR[name]),
    )
    with np.errstate(divide="ignore"):
        terms = np.log1p(-wide(p)), log(p)
    scale = np.where(np.isinf(terms[0] - terms[1]), 0, np.maximum(*np.abs(terms)))
    assert_within(grad, (terms[0] - terms[1]) / unit, GRAD_BAR[name], scale / np.abs(unit))


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
def test_kl_div(dtype, rng, worst):
    t = distributions(rng, (2000, 10), dtype)
    with np.errstate(divide="ignore"):
        x = np.log(distributions(rng, (2000, 10), dtype))
    x[t == 0] = -np.inf
    name = np.dtype(dtype).name
    got, grad = F.kl_div(x, t, "none", return_grad=True)
    want, scale = kl_div(x, t)
    worst(f"{name:9} kl_div", "", assert_within(got, want, LOSS_BAR[name], scale))
    np.testing.assert_array_equal(grad, -t)
    # Logarithms as target.
    log_t = (rng.standard_normal((2000, 10)) * 20 - 30).astype(dtype)
    x = (rng.standard_normal((2000, 10)) * 20 - 30).astype(dtype)
    got, grad = F.kl_div(x, log_t, "none", True, return_grad=True)
    mass = np.exp(wide(log_t))
    assert_within(got, mass * (wide(log_t) - wide(x)), LOSS_BAR[name])
    assert_within(grad, -mass, GRAD_BAR[name])


def test_known_coins_and_dice():
    assert F.entropy(np.array([0.5, 0.5]), base=2) == 1
    assert F.entropy(np.full(8, 0.125), base=2) == 3
    assert F.entropy(np.array([1.0, 0.0])) == 0
    assert F.binary_entropy(np.array(0.5), base=2) == 1
    np.testing.assert_allclose(F.entropy(np.full(6, 1 / 6)), np.log(6), rtol=1e-15)
    assert F.entropy(np.zeros(3)) == 0
    assert np.isneginf(F.entropy(np.array([np.inf, 0.5])))
    loaded = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.5])
    np.testing.assert_allclose(
        F.entropy(loaded, base=2), scipy.stats.entropy(loaded, base=2), rtol=1e-15
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_stays_nan(dtype):
    p = np.array([[0.5, np.nan], [0.5, 0.5]], dtype)
    np.testing.assert_array_equal(np.isnan(F.entropy(p)), [True, False])
    np.testing.assert_array_equal(np.isnan(F.binary_entropy(p)), np.isnan(p.astype(float)))
    for got in (F.kl_div(p, p, "none"), F.kl_div(p[::-1], p, "none")):
        assert np.isnan(got[0, 1])


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 4), (0, 3)], ids=str)
def test_torch_kl_div(reduction, log_target, shape, rng):
    x, t = rng.standard_normal(shape), rng.random(shape)
    t = np.log(t) if log_target else t
    tx = torch.tensor(x, requires_grad=True)
    want = TF.kl_div(tx, torch.tensor(t), None, None, reduction, log_target)
    upstream = rng.standard_normal(want.shape)
    want.backward(torch.tensor(upstream))
    for ours in (F.kl_div, lambda *a, **k: crossent.KLDivLoss(*a[2:])(*a[:2], **k)):
        loss, grad = ours(x, t, reduction, log_target, return_grad=True, grad_output=upstream)
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(grad, np.nan_to_num(tx.grad.numpy()), rtol=1e-13)


@pytest.mark.gradient("entropy")
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
def test_gradient_of_entropy(axis, base, upstream, rng):
    p = rng.uniform(0.05, 1, (3, 4, 5))
    shape = np.delete(p.shape, axis)
    factor, grad_output = upstream_gradient(upstream, tuple(shape), rng)
    _, grad = F.entropy(p, axis=axis, base=base, return_grad=True, grad_output=grad_output)
    unit = np.log(np.longdouble(base)) if base else 1
    check_gradient(
        lambda p: F.entropy(p, axis=axis, base=base),
        lambda p: entropy(p, axis) / unit,
        p,
        factor,
        grad,
    )


@pytest.mark.gradient("binary_entropy")
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
def test_gradient_of_binary_entropy(base, upstream, rng):
    p = rng.uniform(0.05, 0.95, (3, 4))
    factor, grad_output = upstream_gradient(upstream, p.shape, rng)
    _, grad = F.binary_entropy(p, base=base, return_grad=True, grad_output=grad_output)
    unit = np.log(np.longdouble(base)) if base else 1
    check_gradient(
        lambda p: F.binary_entropy(p, base=base),
        lambda p: binary_entropy(p) / unit,
        p,
        factor,
        grad,
    )


@pytest.mark.gradient("kl_div")
@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
def test_gradient_of_kl_div(reduction, upstream, rng):
    x, t = rng.standard_normal((3, 4)), rng.random((3, 4))
    shape = x.shape if reduction == "none" else ()
    divisor = {"mean": 12, "batchmean": 3}.get(reduction, 1)
    factor, grad_output = upstream_gradient(upstream, shape, rng)
    _, grad = F.kl_div(x, t, reduction, return_grad=True, grad_output=grad_output)

    def exact(x):
        terms = kl_div(x, t)[0]
        return terms if reduction == "none" else np.sum(terms) / divisor

    check_gradient(lambda x: F.kl_div(x, t, reduction), exact, x, factor, grad)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_layout(layout, dtype, rng):
    values = rng.random((3, 40, 7)).astype(dtype)
    p, base = like(layout, values)
    name = np.dtype(np.float64 if dtype == np.float64 else np.float32).name
    for axis in (0, 1, 2):
        assert_within(F.entropy(p, axis=axis), entropy(values, axis), LOSS_BAR[name])
    assert_within(F.binary_entropy(p), binary_entropy(values), LOSS_BAR[name])
    want, scale = kl_div(values[::-1], values)
    assert_within(F.kl_div(values[::-1], p, "none"), want, LOSS_BAR[name], scale)
    out, out_base = layout(values.shape, values.dtype)
    F.entropy(values, axis=1, grad_out=out)
    assert_only_view_written(layout, out, out_base)
    got = F.entropy(p, axis=1, grad_out=p)
    assert got[1] is p
    bar = GRAD_BAR[np.dtype(dtype).name]
    for grad in (out, p):
        assert_within(grad, -log(values) - 1, bar, np.maximum(np.abs(log(values)), 1))
    assert_only_view_written(layout, p, base)


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
def test_every_length(dtype, rng):
    name = np.dtype(dtype).name
    for n in range(131):
        p = rng.random((3, n)).astype(dtype)
        assert_within(F.entropy(p), entropy(p), LOSS_BAR[name])
        assert_within(F.entropy(p.T, axis=0), entropy(p), LOSS_BAR[name])
        assert_within(F.binary_entropy(p), binary_entropy(p), LOSS_BAR[name])


def test_same_bits_at_any_number_of_threads(rng):
    p = rng.random((1003, 777)).astype(np.float32)
    before = crossent.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            crossent.set_num_threads(threads)
            results.append(
                [
                    *F.entropy(p, return_grad=True),
                    F.entropy(p, axis=0),
                    F.binary_entropy(p),
                    *F.kl_div(p, p[::-1], "batchmean", return_grad=True),
                ]
            )
    finally:
        crossent.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert_within(results[0][0], entropy(p), 2)


def test_errors():
    p = np.full((2, 3), 0.25)
    for match, call in (
        (r"base must be positive and not 1, got 1", lambda: F.entropy(p, base=1)),
        (r"base must be positive and not 1, got -2", lambda: F.binary_entropy(p, base=-2)),
        (r"axis must be in \[-2, 2\)", lambda: F.entropy(p, axis=2)),
        (
            r"p\[1, 2\] must be a probability not below 0, got -0.25",
            lambda: F.entropy(-p + p * (np.arange(6).reshape(2, 3) < 5) * 2),
        ),
        (r"p\[0, 0\] must be a probability in \[0, 1\], got 1.25", lambda: F.binary_entropy(p + 1)),
        (
            r"reduction must not be 'batchmean' where input has no axis",
            lambda: F.kl_div(np.float64(1), np.float64(1), "batchmean"),
        ),
        (r"target must have the shape of input \(2, 3\), got \(3,\)", lambda: F.kl_div(p, p[0])),
        (
            r"grad_output must be a number or have the loss's shape \(2,\), got \(3,\)",
            lambda: F.entropy(p, return_grad=True, grad_output=p[0]),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(TypeError, match="p must be a floating-point array, got int64"):
        F.entropy([1, 2])
    kept = -p
    with pytest.raises(ValueError, match=r"p\[0, 0\]"):
        F.entropy(kept, grad_out=kept)
    np.testing.assert_array_equal(kept, -p)


def test_cross_entropy_is_entropy_plus_divergence(rng):
    t = rng.dirichlet(np.ones(10), 200)
    x = rng.standard_normal((200, 10)) * 3
    cross = F.cross_entropy(x, t, reduction="none")
    parts = F.entropy(t) + F.kl_div(F.log_softmax(x, 1), t, "none").sum(axis=1)
    np.testing.assert_allclose(cross, parts, rtol=1e-14)
