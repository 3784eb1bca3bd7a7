"""Entropies and divergences: against long double, torch, SciPy, finite differences, and layouts."""

import numpy as np
import pytest
import reference
import scipy.spatial.distance
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as TF
from elements import exact
from layouts import LAYOUTS, assert_only_view_written, like
from mpmath import mp
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


def kl_term(p, q):
    """A term of a divergence and its derivatives, of numbers of mpmath."""
    if p == 0 or q == 0:
        return (q if p == 0 else mp.inf), mp.sign(p - q) * mp.inf if p or q else mp.mpf(0)
    return p * mp.log(p / q) - p + q, mp.log(p / q)


def js_term(p, q):
    """The same, where each side is compared with the mean."""
    of_p, of_q = kl_term(p, (p + q) / 2), kl_term(q, (p + q) / 2)
    return (of_p[0] + of_q[0]) / 2, of_p[1] / 2, of_q[1] / 2


# Of each divergence: its function, its term, and the derivatives of that.
DIVERGENCES = {
    "kl": (
        F.kl_divergence,
        lambda p, q: kl_term(p, q)[0],
        lambda p, q: kl_term(p, q)[1],
        lambda p, q: 1 if p == 0 else -mp.inf if q == 0 else 1 - p / q,
    ),
    "js": (
        F.js_divergence,
        lambda p, q: js_term(p, q)[0],
        lambda p, q: js_term(p, q)[1],
        lambda p, q: js_term(p, q)[2],
    ),
}
EVERY_DIVERGENCE = pytest.mark.parametrize("divergence", DIVERGENCES)


def pairs(kind, count, dtype, rng):
    """Numbers to compare."""
    p, z = rng.random(count), rng.standard_normal(count)
    least = -44 if dtype == np.float32 else -320
    p, q = {
        "uniform": (p, rng.random(count)),
        "near": (p, p * np.exp(0.1 * z)),
        "very near": (p, p * (1 + 1e-5 * z)),
        "far": (p, p * np.exp(3 * z)),
        "any": (10 ** rng.uniform(least, 0, count), 10 ** rng.uniform(least, 0, count)),
        "none": (np.round(p), np.round(rng.random(count)) * p),
    }[kind]
    return p.astype(dtype), np.abs(q).astype(dtype)


def wide_terms(p, q, d):
    """The terms of a divergence of q = p + d from p, in long double."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y = d / p
        series = np.zeros_like(y)
        for n in range(32, 1, -1):
            series = 1 / np.longdouble(n) - y * series
        term = np.where(np.abs(y) < 0.2, p * y * y * series, p * np.log(p / q) + d)
    return np.where(p == 0, q, np.where(q == 0, np.inf, term))


def wide_divergence(name, p, q, axis=-1):
    p, q = wide(p), wide(q)
    if name == "kl":
        return np.sum(wide_terms(p, q, q - p), axis=axis)
    # KL(p, m) is half of KL(2p, p + q), whose difference needs no rounding.
    of_both = wide_terms(2 * p, p + q, q - p) + wide_terms(2 * q, p + q, p - q)
    return np.sum(of_both, axis=axis) / 4


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
def test_entropy_of_numbers_above_1(dtype, rng):
    """Whose terms are of both signs."""
    p = rng.uniform(0, 3, (2000, 30)).astype(dtype)
    got = F.entropy(p)
    size = np.sum(np.abs(wide(p) * log(p)), axis=-1)
    assert_within(got, entropy(p), LOSS_BAR[np.dtype(dtype).name], size)


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
@pytest.mark.parametrize("base", [None, 2, 10, 0.5])
def test_kl_div(dtype, base, rng, worst):
    t = distributions(rng, (2000, 10), dtype)
    with np.errstate(divide="ignore"):
        x = np.log(distributions(rng, (2000, 10), dtype))
    x[t == 0] = -np.inf
    name = np.dtype(dtype).name
    unit = np.log(np.longdouble(base)) if base else 1
    got, grad = F.kl_div(x, t, "none", base=base, return_grad=True)
    want, scale = (part / unit for part in kl_div(x, t))
    worst(f"{name:9} kl_div", "", assert_within(got, want, LOSS_BAR[name], np.abs(scale)))
    assert_within(grad, -wide(t) / unit, GRAD_BAR[name] if base else 0)
    # Logarithms as target.
    log_t = (rng.standard_normal((2000, 10)) * 20 - 30).astype(dtype)
    x = (rng.standard_normal((2000, 10)) * 20 - 30).astype(dtype)
    got, grad = F.kl_div(x, log_t, "none", True, base=base, return_grad=True)
    mass = np.exp(wide(log_t)) / unit
    assert_within(got, mass * (wide(log_t) - wide(x)), LOSS_BAR[name])
    assert_within(grad, -mass, GRAD_BAR[name])
    loss = crossent.KLDivLoss("none", True, base=base)
    np.testing.assert_array_equal(loss(x, log_t), got)


def entropy_with_logits(x, axis=-1):
    """The entropy of the softmax, its gradient, and the size of that gradient's terms."""
    x = np.moveaxis(wide(x), axis, -1)
    p, _, neglogp = reference.terms(x)
    with np.errstate(invalid="ignore"):
        h = np.sum(np.where(p == 0, 0, p * neglogp), axis=-1)
        gap = np.where(p == 0, 0, np.max(x, axis=-1, keepdims=True) - x)
        mean = np.sum(p * gap, axis=-1, keepdims=True)
        grad, scale = p * (gap - mean), p * np.maximum(gap, mean)
    return h, np.moveaxis(grad, -1, axis), np.moveaxis(scale, -1, axis)


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 17, 79, 80, 1000, 50257, 300_001])
@pytest.mark.parametrize("base", [None, 2])
def test_entropy_with_logits(dtype, classes, base, rng, worst):
    name = np.dtype(dtype).name
    unit = np.log(np.longdouble(base)) if base else 1
    for spread in (0.1, 1, 3, 10, 30, 100):
        count = max(2, 20000 // classes)
        x = (rng.standard_normal((count, classes)) * spread).astype(dtype)
        want, want_grad, scale = entropy_with_logits(x)
        for rows, axis in ((x, -1), (np.ascontiguousarray(x.T), 0)):
            got, grad = F.entropy_with_logits(rows, axis=axis, base=base, return_grad=True)
            error = assert_within(got, want / unit, LOSS_BAR[name])
            worst(f"{name:9} entropy with logits", f"{classes} classes, spread {spread}", error)
            alone = F.entropy_with_logits(rows, axis=axis, base=base)
            assert_within(alone, want / unit, LOSS_BAR[name])
            grad = np.moveaxis(grad, axis, -1)
            error = assert_within(grad, want_grad / unit, GRAD_BAR[name], scale / np.abs(unit))
            worst(f"{name:9} entropy with logits, gradient", f"{classes} classes", error)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("classes", [4, 200])
@pytest.mark.parametrize("axis", [0, 1])
def test_edges_of_entropy_with_logits(dtype, classes, axis):
    x = np.zeros((7, classes), dtype)
    x[1, :2], x[2, 2:], x[2, :2] = np.inf, -np.inf, 1
    x[3, 3], x[4], x[5, 1] = np.inf, -np.inf, np.nan
    x[6, 1:] = -np.inf
    rows = np.ascontiguousarray(x if axis == 1 else x.T)
    got, grad = F.entropy_with_logits(rows, axis=axis, return_grad=True)
    grad = grad if axis == 1 else grad.T
    log = np.log(classes)
    np.testing.assert_allclose(got, [log, np.nan, np.log(2), 0, np.nan, np.nan, 0], rtol=1e-6)
    for row, value in ((0, 0), (1, np.nan), (2, 0), (3, 0), (4, np.nan), (5, np.nan), (6, 0)):
        np.testing.assert_array_equal(grad[row].astype(float), np.full(classes, float(value)))


@pytest.mark.gradient("entropy_with_logits")
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
def test_gradient_of_entropy_with_logits(axis, base, upstream, rng):
    x = rng.standard_normal((3, 4, 5)) * 2
    factor, grad_output = upstream_gradient(upstream, tuple(np.delete(x.shape, axis)), rng)
    options = {"axis": axis, "base": base}
    _, grad = F.entropy_with_logits(x, return_grad=True, grad_output=grad_output, **options)
    unit = np.log(np.longdouble(base)) if base else 1

    def exact(x):
        p = np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)
        return -np.sum(p * np.log(p), axis=axis) / unit

    check_gradient(lambda x: F.entropy_with_logits(x, **options), exact, x, factor, grad)


def test_entropy_with_logits_beside_torch(rng):
    x = rng.standard_normal((30, 7)) * 3
    want = torch.distributions.Categorical(logits=torch.tensor(x)).entropy()
    np.testing.assert_allclose(F.entropy_with_logits(x), want.numpy(), rtol=1e-13)
    np.testing.assert_allclose(F.entropy_with_logits(x), F.entropy(F.softmax(x, 1)), rtol=1e-13)


@EVERY_DIVERGENCE
@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("kind", ["uniform", "near", "very near", "far", "any", "none"])
def test_divergence(divergence, dtype, kind, rng, worst):
    ours, term, by_p, by_q = DIVERGENCES[divergence]
    p, q = pairs(kind, 3000, dtype, rng)
    name = np.dtype(dtype).name
    got, grad_p, grad_q = ours(p[:, None], q[:, None], return_grad="both")
    error = assert_within(got, exact(term, p, q), LOSS_BAR[name])
    worst(f"{name:9} {divergence} divergence", kind, error)
    assert_within(grad_p[:, 0], exact(by_p, p, q), GRAD_BAR[name])
    with np.errstate(over="ignore"):
        assert_within(grad_q[:, 0], exact(by_q, p, q), GRAD_BAR[name])


@EVERY_DIVERGENCE
@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("base", [None, 2, 0.5])
def test_divergence_of_distributions(divergence, dtype, base, rng):
    ours = DIVERGENCES[divergence][0]
    unit = np.log(np.longdouble(base)) if base else 1
    for classes in (1, 2, 3, 10, 17, 1000, 50257):
        p, q = (distributions(rng, (max(3, 5000 // classes), classes), dtype) for _ in "pq")
        want = wide_divergence(divergence, p, q) / unit
        assert_within(ours(p, q, base=base), want, LOSS_BAR[np.dtype(dtype).name])
        assert np.all(ours(p, p, base=base) == 0)
        p, q = np.ascontiguousarray(p.T), np.asfortranarray(q.T)
        assert_within(ours(p, q, axis=0, base=base), want, LOSS_BAR[np.dtype(dtype).name])


def test_known_divergences(rng):
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert F.js_divergence(a, b) == np.log(2)
    assert F.js_divergence(a, b, base=2) == 1
    assert np.isinf(F.kl_divergence(a, b))
    p, q = rng.dirichlet(np.ones(6), 2)
    for got, want in (
        (F.kl_divergence(p, q, base=2), scipy.stats.entropy(p, q, base=2)),
        (F.kl_divergence(3 * p, q), scipy.special.kl_div(3 * p, q).sum()),
        (np.sqrt(F.js_divergence(p, q)), scipy.spatial.distance.jensenshannon(p, q)),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "ours, p, q, want",
    [
        (F.kl_divergence, 0, 0, (0, 0, 1)),
        (F.kl_divergence, 0, 0.25, (0.25, -np.inf, 1)),
        (F.kl_divergence, 0.25, 0, (np.inf, np.inf, -np.inf)),
        (F.kl_divergence, 0.25, np.inf, (np.inf, -np.inf, 1)),
        (F.kl_divergence, np.inf, 0.25, (np.inf, np.inf, -np.inf)),
        (F.kl_divergence, np.inf, np.inf, (np.nan, np.nan, np.nan)),
        (F.kl_divergence, np.nan, 0.25, (np.nan, np.nan, np.nan)),
        (F.kl_divergence, 0.25, np.nan, (np.nan, np.nan, np.nan)),
        (F.kl_divergence, 0, np.nan, (np.nan, np.nan, np.nan)),
        (F.kl_divergence, np.nan, 0, (np.nan, np.nan, np.nan)),
        (F.kl_divergence, 0, np.inf, (np.inf, -np.inf, 1)),
        (F.kl_divergence, np.inf, 0, (np.inf, np.inf, -np.inf)),
        (F.js_divergence, 0, 0, (0, 0, 0)),
        (F.js_divergence, 0, 0.25, (np.log(2) / 8, -np.inf, np.log(2) / 2)),
        (F.js_divergence, 0.25, 0, (np.log(2) / 8, np.log(2) / 2, -np.inf)),
        (F.js_divergence, np.inf, np.inf, (np.nan, np.nan, np.nan)),
        (F.js_divergence, np.nan, 0.25, (np.nan, np.nan, np.nan)),
        (F.js_divergence, 0.25, np.nan, (np.nan, np.nan, np.nan)),
        (F.js_divergence, 0, np.nan, (np.nan, np.nan, np.nan)),
        (F.js_divergence, np.nan, 0, (np.nan, np.nan, np.nan)),
        (F.js_divergence, 0.25, np.inf, (np.inf, -np.inf, np.inf)),
        (F.js_divergence, np.inf, 0.25, (np.inf, np.inf, -np.inf)),
    ],
)
def test_edges_of_divergences(ours, p, q, want, dtype):
    """The table of docs/numerics.md."""
    p, q = np.full((3, 1), p, dtype), np.full((3, 1), q, dtype)
    tolerance = 4 * np.finfo(np.float64).eps if dtype == np.float64 else 1e-7
    for got, value in zip(ours(p, q, return_grad="both"), want, strict=True):
        rtol = 4e-3 if got.dtype.itemsize == 2 else tolerance
        np.testing.assert_allclose(got.astype(float).ravel(), np.full(3, float(value)), rtol)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "ours, arguments, options, want",
    [
        (F.entropy, (0,), {}, (0, np.inf)),
        (F.entropy, (1,), {}, (0, -1)),
        (F.entropy, (np.inf,), {}, (-np.inf, -np.inf)),
        (F.entropy, (np.nan,), {}, (np.nan, np.nan)),
        (F.binary_entropy, (0,), {}, (0, np.inf)),
        (F.binary_entropy, (1,), {}, (0, -np.inf)),
        (F.binary_entropy, (np.nan,), {}, (np.nan, np.nan)),
        (F.kl_div, (-np.inf, 0), {}, (0, 0)),
        (F.kl_div, (np.inf, 0), {}, (0, 0)),
        (F.kl_div, (-np.inf, 0.5), {}, (np.inf, -0.5)),
        (F.kl_div, (np.inf, 0.5), {}, (-np.inf, -0.5)),
        (F.kl_div, (np.nan, 0.5), {}, (np.nan, -0.5)),
        (F.kl_div, (np.nan, 0), {}, (np.nan, 0)),
        (F.kl_div, (-1, np.inf), {}, (np.inf, -np.inf)),
        (F.kl_div, (-1, np.nan), {}, (np.nan, np.nan)),
        (F.kl_div, (-np.inf, -np.inf), {"log_target": True}, (0, 0)),
        (F.kl_div, (-1, -np.inf), {"log_target": True}, (0, 0)),
        (F.kl_div, (-np.inf, 0), {"log_target": True}, (np.inf, -1)),
        (F.kl_div, (-1, np.nan), {"log_target": True}, (np.nan, np.nan)),
        (F.binary_cross_entropy, (0, 0), {}, (0, 0)),
        (F.binary_cross_entropy, (1, 1), {}, (0, 0)),
        (F.binary_cross_entropy, (0.5, np.nan), {}, (np.nan, np.nan)),
        (F.binary_cross_entropy, (np.nan, 0.5), {}, (np.nan, np.nan)),
        (F.binary_cross_entropy, (0.5, np.inf), {}, (np.nan, -np.inf)),
    ],
)
def test_edges_of_elements(ours, arguments, options, want, dtype):
    """Tables of docs/numerics.md."""
    if ours in (F.kl_div, F.binary_cross_entropy):
        options = {**options, "reduction": "sum"}
    arrays = [np.full(1, value, dtype) for value in arguments]
    for got, value in zip(ours(*arrays, return_grad=True, **options), want, strict=True):
        np.testing.assert_array_equal(np.asarray(got).astype(float).ravel(), [float(value)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_cross_entropy_is_entropy_plus_kl_div(dtype, classes, rng):
    """To the 2 ulp of a float32 loss, beside parts in float64."""
    t = rng.dirichlet(np.full(classes, 0.5), 5000).astype(dtype)
    x = (rng.standard_normal((5000, classes)) * rng.choice([0.1, 3, 30], (5000, 1))).astype(dtype)
    wide_x, wide_t = x.astype(np.float64), t.astype(np.float64)
    kl = F.kl_div(F.log_softmax(wide_x, 1), wide_t, "none").sum(axis=1)
    parts = (F.entropy(wide_t) + kl).astype(np.longdouble)
    assert_within(F.cross_entropy(x, t, reduction="none"), parts, 2)


def test_cross_entropy_is_entropy_plus_kl_divergence(rng):
    t = rng.dirichlet(np.ones(10), 2000)
    x = rng.standard_normal((2000, 10)) * 3
    q = F.softmax(x, 1)
    parts = F.entropy(t) + F.kl_divergence(t, q) + (t - q).sum(axis=1)
    assert_within(F.cross_entropy(x, t, reduction="none"), parts.astype(np.longdouble), 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", np.arange(700, 750, 0.125))
def test_divergences_of_logits_with_masses_at_the_end_of_the_range(dtype, gap):
    """Shares of the least exponentials that float64 has."""
    p = np.array([0.0] * 8 + [1000, 0], dtype)
    q = np.array([400.0] * 8 + [400 - gap, 400], dtype)
    for x, y in ((p, q), (q, p)):
        js, *grads = F.js_divergence_with_logits(x, y, axis=0, base=2, return_grad="both")
        assert js == 1
        assert all(np.isfinite(grad).all() for grad in grads)
    gap = np.float64(q[0] - q[8])
    kl = F.kl_divergence_with_logits(p, q, axis=0)
    assert kl == pytest.approx(gap + np.log(9), rel=2e-7)
    kl = F.kl_divergence_with_logits(q, p, axis=0)
    assert kl == pytest.approx(1000 - np.log(9), rel=2e-7)


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
    for ours in (F.kl_divergence, F.js_divergence):
        for pair in ((p, p[[1, 1]]), (p[[1, 1]], p)):
            np.testing.assert_array_equal(np.isnan(ours(*pair)), [True, False])
    for got in (F.kl_div(p, p, "none"), F.kl_div(p[::-1], p, "none")):
        assert np.isnan(got[0, 1])
    assert np.isnan(F.kl_div(p, np.zeros_like(p), "none")[0, 1])


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


@pytest.mark.gradient("kl_divergence")
@pytest.mark.gradient("js_divergence")
@EVERY_DIVERGENCE
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
def test_gradient_of_divergence(divergence, axis, base, upstream, rng):
    ours = DIVERGENCES[divergence][0]
    p, q = rng.uniform(0.05, 1, (2, 3, 4, 5))
    factor, grad_output = upstream_gradient(upstream, tuple(np.delete(p.shape, axis)), rng)
    options = {"axis": axis, "base": base}
    _, grad_p, grad_q = ours(p, q, return_grad="both", grad_output=grad_output, **options)
    unit = np.log(np.longdouble(base)) if base else 1
    check_gradient(
        lambda p: ours(p, q, **options),
        lambda p: wide_divergence(divergence, p, q, axis) / unit,
        p,
        factor,
        grad_p,
    )
    check_gradient(
        lambda q: ours(p, q, **options),
        lambda q: wide_divergence(divergence, p, q, axis) / unit,
        q,
        factor,
        grad_q,
    )
    alone = ours(p, q, return_grad=True, grad_output=grad_output, **options)
    assert len(alone) == 2
    np.testing.assert_array_equal(alone[1], grad_p)


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
    q = np.ascontiguousarray(values[::-1])
    for name_of, (ours, *_) in DIVERGENCES.items():
        for axis in (0, 1, 2):
            assert_within(
                ours(p, q, axis=axis), wide_divergence(name_of, values, q, axis), LOSS_BAR[name]
            )
        a, b = like(layout, values)[0], like(layout, q)[0]
        got = ours(a, b, axis=1, return_grad="both", grad_out=(a, b))
        assert got[1] is a
        assert got[2] is b
        want = ours(values, q, axis=1, return_grad="both")
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)
    for axis in (0, 1, 2):
        got = F.entropy_with_logits(p, axis=axis, return_grad=True)
        want, want_grad, size = entropy_with_logits(values, axis)
        assert_within(got[0], want, LOSS_BAR[name])
        assert_within(got[1], want_grad, GRAD_BAR[np.dtype(dtype).name], size)
    x, _ = like(layout, values)
    assert F.entropy_with_logits(x, axis=1, grad_out=x)[1] is x
    _, want_grad, size = entropy_with_logits(values, 1)
    assert_within(x, want_grad, GRAD_BAR[np.dtype(dtype).name], size)
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
                    *F.entropy_with_logits(p, return_grad=True),
                    *F.entropy_with_logits(p, axis=0, return_grad=True),
                    F.binary_entropy(p),
                    *F.kl_div(p, p[::-1], "batchmean", return_grad=True),
                    *F.kl_divergence(p, p[::-1], return_grad="both"),
                    *F.js_divergence(p, p[::-1], axis=0, return_grad="both"),
                ]
            )
    finally:
        crossent.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert_within(results[0][0], entropy(p), 2)


def test_errors():
    p, out = np.full((2, 3), 0.25), np.empty((2, 3))
    q = p.copy()
    q[1, 0] = -0.25
    for match, call in (
        (r"base must be positive and not 1, got 1", lambda: F.entropy(p, base=1)),
        (r"base must be positive and not 1, got -2", lambda: F.binary_entropy(p, base=-2)),
        (r"axis must be in \[-2, 2\)", lambda: F.entropy(p, axis=2)),
        (
            r"p\[1, 2\] must be a probability not below 0, got -0.25",
            lambda: F.entropy(-p + p * (np.arange(6).reshape(2, 3) < 5) * 2),
        ),
        (
            r"p\[0, 1, 1\] must be a probability not below 0, got -2",
            lambda: F.entropy(np.where(np.arange(8).reshape(2, 2, 2) == 3, -2.0, 1.0), axis=1),
        ),
        (
            r"q\[1, 0\] must be a probability not below 0, got -1",
            lambda: F.kl_divergence(
                np.ones((2, 3)), np.array([[1.0], [-1.0]]) * np.ones(3), axis=0
            ),
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
        (r"q\[1, 0\] must be a probability not below 0, got -0.25", lambda: F.js_divergence(p, q)),
        (r"p\[1, 0\] must be a probability not below 0, got -0.25", lambda: F.kl_divergence(q, p)),
        (r"q must have the shape of p \(2, 3\), got \(3,\)", lambda: F.kl_divergence(p, p[0])),
        (
            r"return_grad must be True, False or 'both', got 'all'",
            lambda: F.kl_divergence(p, p, return_grad="all"),
        ),
        (
            r"grad_out\[1\] must have the input's shape \(2, 3\), got \(3,\)",
            lambda: F.kl_divergence(p, p, return_grad="both", grad_out=(out, p[0])),
        ),
        (
            r"grad_out\[1\] must not overlap p",
            lambda: F.kl_divergence(p, p.copy(), return_grad="both", grad_out=(p.copy(), p)),
        ),
        (
            r"grad_out\[0\] must not overlap q",
            lambda: F.kl_divergence(out, p, return_grad="both", grad_out=(p, q)),
        ),
        (
            r"grad_out\[1\] must not overlap grad_out\[0\]",
            lambda: F.kl_divergence(p, p.copy(), return_grad="both", grad_out=(out, out)),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    kept = q.copy()
    with pytest.raises(ValueError, match=r"q\[1, 0\]"):
        F.kl_divergence(p, kept, return_grad="both", grad_out=(out, kept))
    np.testing.assert_array_equal(kept, q)
    with pytest.raises(TypeError, match="grad_out must be a pair of arrays"):
        F.kl_divergence(p, p, return_grad="both", grad_out=out)
    with pytest.raises(TypeError, match="q must be a floating-point array, got int64"):
        F.js_divergence(p, [[1, 2]])
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


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
def test_kl_div_of_large_logarithms(dtype):
    t = np.array([88.0, 89.0, 200, 665, 700, 709.5, 709.75, 710, 720, 800, 1500, np.inf], dtype)
    got, grad = F.kl_div(np.zeros_like(t), t, "none", True, return_grad=True)
    with np.errstate(over="ignore"):
        mass = np.exp(t.astype(np.longdouble))
        want = (mass * t).astype(dtype), (-mass).astype(dtype)
    rtol = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(got, want[0], rtol)
    np.testing.assert_allclose(grad, want[1], rtol)
