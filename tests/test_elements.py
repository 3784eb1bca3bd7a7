"""The losses of elements: against mpmath, torch, finite differences, and in every layout."""

import functools
import itertools

import elements
import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as TF
from layouts import LAYOUTS, assert_only_view_written, like
from mpmath import mp
from reference import FLOATS, GRAD_BAR, LOSS_BAR, assert_result, assert_within
from test_gradients import check_gradient, differences, upstream_gradient

import crossent
import crossent.functional as F

SPREADS = [0.01, 1, 10, 60]
REDUCTIONS = ["mean", "sum", "none"]
WIDE = [np.float32, np.float64]
ONE_ARGUMENT = (F.binary_entropy, F.entropy, F.entropy_with_logits)


def binary(rng, shape, dtype, soft):
    """Targets: 0 and 1, or probabilities of every magnitude near both."""
    if not soft:
        return rng.integers(0, 2, shape).astype(dtype)
    t = rng.random(shape)
    near = 10 ** rng.uniform(-18, 0, shape)
    return np.choose(rng.integers(0, 3, shape), [t, near, 1 - near]).astype(dtype)


# The references


@pytest.mark.parametrize("spread", SPREADS)
def test_references_agree_with_60_digits(spread, rng):
    x = rng.standard_normal(200) * spread
    eps = 0.1 * np.finfo(np.float64).eps
    for fast, slow in (
        (elements.softplus, lambda v: mp.log1p(mp.exp(v))),
        (elements.sigmoid, lambda v: 1 / (1 + mp.exp(-v))),
    ):
        want = elements.exact(slow, x)
        assert np.max(np.abs(fast(x.astype(np.longdouble)) - want) / want) < eps
    t = rng.random(200)

    gamma, alpha = mp.mpf(2), mp.mpf(1) / 4

    def loss(x, t):
        p = 1 / (1 + mp.exp(-x))
        q = 1 / (1 + mp.exp(x))
        c = -t * mp.log(p) - (1 - t) * mp.log(q)
        return (alpha * t + (1 - alpha) * (1 - t)) * (t * q + (1 - t) * p) ** gamma * c

    want = elements.exact(loss, x, t)
    got = elements.focal(x, t)
    assert np.max(np.abs(got.loss - want) / want) < eps
    want = elements.exact(lambda x, t: mp.diff(lambda x: loss(x, t), x), x, t)
    assert np.max(np.abs(got.grad - want) / (got.scale + 1e-300)) < 1e-14
    want = elements.exact(lambda x, t: mp.diff(lambda x: loss(x, t), x, 2), x, t)
    assert np.max(np.abs(got.hess - want) / (got.scale + 1e-300)) < 1e-12


# Numbers


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("spread", [*SPREADS, 400])
@pytest.mark.parametrize("soft", [False, True], ids=["sure", "soft"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_with_logits(dtype, spread, soft, weighted, rng, worst):
    if weighted and spread == 400:
        spread = 200  # a weight multiplies what the rounding to a subnormal has taken
    n = 20000
    x = (rng.standard_normal(n) * spread).astype(dtype)
    t = binary(rng, n, dtype, soft)
    w, v = (rng.uniform(0.2, 3, n).astype(dtype) for _ in "wv") if weighted else (None, None)
    got = F.binary_cross_entropy_with_logits(x, t, w, "none", v, return_grad=True, return_hess=True)
    want = elements.bce_with_logits(x, t, *((w, v) if weighted else ()))
    loss, grad, hess = assert_result(got, want, "with logits")
    name = np.dtype(dtype).name
    worst(f"{name:9} BCE with logits", f"spread {spread}", loss)
    worst(f"{name:9} BCE with logits, gradient", f"spread {spread}", grad)
    worst(f"{name:9} BCE with logits, Hessian", f"spread {spread}", hess)


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("range", ["uniform", "small", "near one", "corners"])
@pytest.mark.parametrize("soft", [False, True], ids=["sure", "soft"])
def test_of_probabilities(dtype, range, soft, rng, worst):
    u = rng.random(20000)
    p = {
        "uniform": u,
        "small": 10.0 ** (-44 * u),
        "near one": 1 - 10.0 ** (-16 * u),
        "corners": np.round(u),
    }[range].astype(dtype)
    t = binary(rng, u.shape, dtype, soft)
    loss, grad = F.binary_cross_entropy(p, t, None, "none", return_grad=True)
    want = elements.bce(p, t)
    name = np.dtype(dtype).name
    worst(f"{name:9} BCE", range, assert_within(loss, want.loss, LOSS_BAR[name]))
    worst(f"{name:9} BCE, gradient", range, assert_within(grad, want.grad, GRAD_BAR[name]))


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("sure", [True, False], ids=["1 and -1", "any"])
def test_soft_margin(dtype, spread, sure, rng, worst):
    x = (rng.standard_normal(20000) * spread).astype(dtype)
    t = (rng.choice([-1, 1], 20000) if sure else rng.standard_normal(20000)).astype(dtype)
    got = F.soft_margin_loss(x, t, "none", return_grad=True, return_hess=True)
    loss, grad, _ = assert_result(got, elements.soft_margin(x, t), "soft margin")
    name = np.dtype(dtype).name
    worst(f"{name:9} soft margin", f"spread {spread}", loss)
    worst(f"{name:9} soft margin, gradient", f"spread {spread}", grad)


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("gamma", [0.5, 1, 2, 2.1, 3, 5, 10])
@pytest.mark.parametrize("alpha", [0.25, 0.3, -1])
@pytest.mark.parametrize("soft", [False, True], ids=["sure", "soft"])
def test_focal(dtype, spread, gamma, alpha, soft, rng, worst):
    x = (rng.standard_normal(5000) * spread).astype(dtype)
    t = binary(rng, x.shape, dtype, soft)
    loss, grad, hess = F.sigmoid_focal_loss(x, t, alpha, gamma, return_grad=True, return_hess=True)
    want = elements.focal(x, t, alpha, gamma)
    name = np.dtype(dtype).name
    bars = LOSS_BAR[name], GRAD_BAR[name]
    worst(f"{name:9} focal", f"gamma {gamma}", assert_within(loss, want.loss, bars[0]))
    error = assert_within(grad, want.grad, bars[1], want.scale)
    worst(f"{name:9} focal, gradient", f"gamma {gamma}", error)
    assert_within(hess, want.hess, 2 * bars[1], want.scale)


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("spread", [*SPREADS, 400])
def test_sigmoids(dtype, spread, rng, worst):
    x = (rng.standard_normal(20000) * spread).astype(dtype)
    wide = x.astype(np.longdouble)
    name = np.dtype(dtype).name
    for function in (F.sigmoid, F.logsigmoid):
        want = getattr(elements, function.__name__)(wide)
        error = assert_within(function(x), want, LOSS_BAR[name])
        worst(f"{name:9} {function.__name__}", f"spread {spread}", error)


def test_sure_and_confident_floats_of_every_binade(rng):
    """Losses down to the smallest number that the type can hold."""
    for dtype, most in ((np.float32, 103), (np.float64, 745)):
        x = np.linspace(1, most, 5001).astype(dtype)
        loss, grad = F.binary_cross_entropy_with_logits(
            x, np.ones_like(x), reduction="none", return_grad=True
        )
        want = elements.bce_with_logits(x, np.ones_like(x))
        name = np.dtype(dtype).name
        assert_within(loss, want.loss, LOSS_BAR[name])
        assert_within(grad, want.grad, GRAD_BAR[name])
        assert loss[-1] > 0


# Limits, each a line of the contract


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_infinite_logits(dtype):
    inf = np.inf
    x = np.array([inf, -inf, -inf, inf], dtype)
    t = np.array([1, 0, 1, 0], dtype)
    loss, grad, hess = F.binary_cross_entropy_with_logits(
        x, t, reduction="none", return_grad=True, return_hess=True
    )
    np.testing.assert_array_equal(loss, [0, 0, inf, inf])
    np.testing.assert_array_equal(grad.astype(float), [0, 0, -1, 1])
    np.testing.assert_array_equal(hess.astype(float), [0, 0, 0, 0])
    loss, grad, hess = F.sigmoid_focal_loss(x, t, -1, 2.0, return_grad=True, return_hess=True)
    np.testing.assert_array_equal(loss, [0, 0, inf, inf])
    np.testing.assert_array_equal(grad.astype(float), [0, 0, -1, 1])
    assert np.all(np.isfinite(hess.astype(float)))
    loss, grad = F.soft_margin_loss(x, 2 * t - 1, "none", return_grad=True)
    np.testing.assert_array_equal(loss, [0, 0, inf, inf])
    np.testing.assert_array_equal(grad.astype(float), [0, 0, -1, 1])
    rows = x[:, None], t[:, None]
    loss, grad = F.multilabel_soft_margin_loss(*rows, reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, [0, 0, inf, inf])
    np.testing.assert_array_equal(grad.astype(float).ravel(), [0, 0, -1, 1])
    np.testing.assert_array_equal(F.sigmoid(x).astype(float), [1, 0, 0, 1])
    np.testing.assert_array_equal(F.logsigmoid(x).astype(float), [0, -inf, -inf, 0])
    weightless = F.binary_cross_entropy_with_logits(x, t, np.zeros(4), "none")
    np.testing.assert_array_equal(weightless, [0, 0, 0, 0])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_stays_nan(dtype):
    x = np.array([0.5, np.nan, 0.25], dtype)
    t = np.array([1, 1, 0], dtype)
    for function in (
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.soft_margin_loss,
        F.sigmoid_focal_loss,
    ):
        loss, grad = function(x, t, reduction="none", return_grad=True)
        np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
        np.testing.assert_array_equal(np.isnan(grad.astype(float)), [False, True, False])
    rows = x[:, None], t[:, None]
    loss, grad = F.multilabel_soft_margin_loss(*rows, reduction="none", return_grad=True)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
    np.testing.assert_array_equal(np.isnan(grad.astype(float)).ravel(), [False, True, False])
    for function in (F.sigmoid, F.logsigmoid):
        np.testing.assert_array_equal(np.isnan(function(x).astype(float)), [False, True, False])


def test_torch_clamps():
    """Probabilities of 0 and 1: as torch has them, bit for bit."""
    p = np.array([0, 1, 0, 1, 1e-45, 1e-13], np.float32)
    t = np.array([0, 0, 1, 1, 1, 1], np.float32)
    loss, grad = F.binary_cross_entropy(p, t, reduction="none", return_grad=True)
    tp = torch.tensor(p, requires_grad=True)
    want = TF.binary_cross_entropy(tp, torch.tensor(t), reduction="none")
    want.sum().backward()
    np.testing.assert_array_equal(loss[:5], want.detach().numpy()[:5])
    np.testing.assert_array_equal(grad, tp.grad.numpy())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", [1, 40])
def test_minus_zero_is_zero(dtype, n):
    """In every argument of every loss."""
    elements = {"reduction": "none"}
    for function, options in {
        F.binary_cross_entropy: elements,
        F.binary_cross_entropy_with_logits: elements,
        F.sigmoid_focal_loss: {**elements, "alpha": 0.3, "gamma": 1.5},
        F.soft_margin_loss: elements,
        F.kl_div: elements,
        F.kl_divergence: {"axis": 0},
        F.js_divergence: {"axis": 0},
        F.cross_entropy: {},
        F.binary_entropy: {},
        F.entropy: {"axis": 0},
        F.entropy_with_logits: {"axis": 0},
    }.items():
        count = 2 if function not in ONE_ARGUMENT else 1
        for zeros in itertools.product([0.0, -0.0, 1.0], repeat=count):
            signed = [np.full(n, v, dtype) for v in zeros]
            plain = [np.full(n, abs(v), dtype) for v in zeros]
            got = function(*signed, return_grad=True, **options)
            want = function(*plain, return_grad=True, **options)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a, b, str((function, zeros)))


@pytest.mark.parametrize(
    "classes, bar", [(2, 2), (5, 2), (10, 2), (64, 2), (65, 3.5), (80, 3.5), (1000, 3.5)]
)
def test_a_mean_that_one_loss_outweighs(classes, bar, rng):
    """Its ulp may be half as large, for its size, as that of the loss."""
    x = np.full((4000, classes), -60, np.float32)
    x[:, 1] = rng.uniform(2, 9, 4000)
    t = np.zeros_like(x)
    t[:, 1] = rng.uniform(0, 1e-5, 4000)
    of = elements.bce_with_logits(x, t).loss
    want = np.asarray(of).astype(np.longdouble).mean(axis=1)
    assert_within(F.multilabel_soft_margin_loss(x, t, reduction="none"), want, bar)
    means = [F.binary_cross_entropy_with_logits(a, b) for a, b in zip(x, t, strict=True)]
    assert_within(np.array(means), want, bar)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_focal_without_focus_is_the_cross_entropy(dtype):
    x = (np.random.default_rng(1).standard_normal(1001) * 9).astype(dtype)
    t = (x > 3).astype(dtype)
    got = F.sigmoid_focal_loss(x, t, -1, 0, return_grad=True, return_hess=True)
    want = F.binary_cross_entropy_with_logits(
        x, t, reduction="none", return_grad=True, return_hess=True
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("gamma", [0.25, 0.5, 2])
def test_focal_at_saturation(dtype, gamma):
    x = np.array([100, -100, 100, -100, 1e4, -1e4], dtype)
    t = np.array([1, 1, 0, 0, 1, 0], dtype)
    got = F.sigmoid_focal_loss(x, t, -1, gamma, return_grad=True)
    want = elements.focal(x, t, -1, gamma)
    name = np.dtype(dtype).name
    for g, w, bar in zip(got, want[:2], (LOSS_BAR[name], GRAD_BAR[name]), strict=True):
        assert np.all(np.isfinite(g))
        assert_within(g, w, bar)


@pytest.mark.parametrize("alpha, upstream", [(1e-6, 1e4), (1e-12, 2.0**32), (1e-30, 1e10)])
def test_focal_of_a_small_balance_and_a_large_upstream_gradient(alpha, upstream):
    """Nothing is lost to the range of float32 before both are taken."""
    x = np.linspace(-25, 25, 1001, dtype=np.float32)
    for gamma in (0.5, 2.0, 3.0):
        options = {"return_grad": True, "reduction": "sum", "grad_output": upstream}
        loss, grad = F.sigmoid_focal_loss(x, np.ones_like(x), alpha, gamma, **options)
        want = elements.focal(x, np.ones_like(x), alpha, gamma)
        np.testing.assert_allclose(loss, float(np.sum(want.loss)), rtol=1e-6, atol=1e-45)
        assert_within(grad, upstream * want.grad, GRAD_BAR["float32"])


def test_focal_at_the_ends_of_float64():
    tiny = 1e-320
    for x, t, alpha, gamma, want in [
        (9.8e288, 0.0, -1, 2.0, 9.8e288),
        (-1e300, 1.0, -1, 2.0, 1e300),
        (-1e300, tiny, -1, 0.5, np.sqrt(tiny) * (tiny * 1e300)),
        (-np.inf, 1.0, 0.0, 0.0, 0.0),
        (np.inf, 0.0, 1.0, 0.0, 0.0),
        (np.inf, 0.0, 0.5, 2.0, np.inf),
        (1.0, 0.3, 0.25, 1e300, 0.0),
    ]:
        loss, grad, hess = F.sigmoid_focal_loss(
            np.array(x), np.array(t), alpha, gamma, return_grad=True, return_hess=True
        )
        np.testing.assert_allclose(loss, want, rtol=1e-14, err_msg=f"{x} {t} {gamma}")
        assert np.isfinite(grad)
        assert np.isfinite(hess)


# torch's meaning


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 4), ()], ids=str)
@pytest.mark.parametrize("weights", ["", "element", "class", "row"])
@pytest.mark.parametrize("positive", [False, True], ids=["", "pos_weight"])
def test_torch_with_logits(reduction, shape, weights, positive, rng):
    x, t = rng.standard_normal(shape) * 3, rng.random(shape)
    w = {
        "": None,
        "element": rng.random(shape),
        "class": rng.random(shape[-1:]),
        "row": rng.random((*shape[:1], *(1 for _ in shape[1:]))),
    }[weights]
    v = rng.random(shape[-1:]) * 3 if positive else None
    tx = torch.tensor(x, requires_grad=True)
    as_torch = [None if a is None else torch.tensor(a) for a in (w, v)]
    want = TF.binary_cross_entropy_with_logits(
        tx, torch.tensor(t), as_torch[0], None, None, reduction, as_torch[1]
    )
    upstream = rng.standard_normal(want.shape)
    want.backward(torch.tensor(upstream))
    loss, grad = F.binary_cross_entropy_with_logits(
        x, t, w, reduction, v, return_grad=True, grad_output=upstream
    )
    np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(grad, tx.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
def test_torch_others(reduction, shape, weighted, rng):
    x, t, p = rng.standard_normal(shape) * 3, rng.random(shape), rng.uniform(0.01, 0.99, shape)
    w = rng.random(shape[-1:]) if weighted else None
    tw = None if w is None else torch.tensor(w)
    for ours, theirs, inputs, targets in (
        (
            lambda *a, **k: F.binary_cross_entropy(*a, w, reduction, **k),
            lambda *a: TF.binary_cross_entropy(*a, tw, None, None, reduction),
            p,
            t,
        ),
        (
            lambda *a, **k: F.multilabel_soft_margin_loss(*a, w, reduction, **k),
            lambda *a: TF.multilabel_soft_margin_loss(*a, tw, None, None, reduction),
            x,
            np.round(t),
        ),
        (
            lambda *a, **k: F.soft_margin_loss(*a, reduction, **k),
            lambda *a: TF.soft_margin_loss(*a, None, None, reduction),
            x,
            2 * np.round(t) - 1,
        ),
    ):
        tx = torch.tensor(inputs, requires_grad=True)
        want = theirs(tx, torch.tensor(targets))
        upstream = rng.standard_normal(want.shape)
        want.backward(torch.tensor(upstream))
        loss, grad = ours(inputs, targets, return_grad=True, grad_output=upstream)
        assert np.shape(loss) == tuple(want.shape)
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-13)
        np.testing.assert_allclose(grad, tx.grad.numpy(), rtol=1e-12, atol=1e-15)
    for module, theirs in (
        (crossent.BCELoss(w, reduction), torch.nn.BCELoss(tw, None, None, reduction)),
        (
            crossent.BCEWithLogitsLoss(w, reduction),
            torch.nn.BCEWithLogitsLoss(tw, None, None, reduction),
        ),
        (
            crossent.MultiLabelSoftMarginLoss(w, reduction),
            torch.nn.MultiLabelSoftMarginLoss(tw, None, None, reduction),
        ),
        (crossent.SoftMarginLoss(reduction), torch.nn.SoftMarginLoss(None, None, reduction)),
    ):
        want = theirs(torch.tensor(p), torch.tensor(np.round(t)))
        got, grad = module(p, np.round(t), return_grad=True)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-13)
        assert grad.shape == p.shape
        assert type(module).__name__ in repr(module)


def test_torchvision_meaning(rng):
    """The formula of torchvision.ops.sigmoid_focal_loss, written out with torch."""
    x, t = rng.standard_normal(50) * 4, rng.random(50)
    for alpha, gamma, reduction in itertools.product((0.25, -1), (0, 1.5, 2), REDUCTIONS):
        tx, tt = torch.tensor(x, requires_grad=True), torch.tensor(t)
        p = torch.sigmoid(tx)
        ce = TF.binary_cross_entropy_with_logits(tx, tt, reduction="none")
        want = ce * (1 - (p * tt + (1 - p) * (1 - tt))) ** gamma
        if alpha >= 0:
            want = (alpha * tt + (1 - alpha) * (1 - tt)) * want
        want = {"none": lambda v: v, "mean": torch.mean, "sum": torch.sum}[reduction](want)
        want.sum().backward()
        loss, grad = F.sigmoid_focal_loss(x, t, alpha, gamma, reduction, return_grad=True)
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-11)
        np.testing.assert_allclose(grad, tx.grad.numpy(), rtol=1e-10, atol=1e-14)


# Gradients and Hessians against finite differences


def derivatives(function, exact, x, upstream, rng, shape_of_loss, hess=True):
    factor, grad_output = upstream_gradient(upstream, shape_of_loss, rng)
    _, grad, *second = function(
        x, return_grad=True, grad_output=grad_output, **({"return_hess": True} if hess else {})
    )
    check_gradient(function, exact, x, factor, grad)
    if hess:
        slopes = differences(
            lambda v, at: function(v, return_grad=True, grad_output=grad_output)[1][at],
            x,
            2.0**-17,
        )
        np.testing.assert_allclose(second[0], slopes, rtol=1e-6, atol=1e-8)


EVERY = [
    pytest.mark.parametrize("reduction", REDUCTIONS),
    pytest.mark.parametrize("upstream", ["one", "scalar", "array"]),
]


def every(test):
    for mark in EVERY:
        test = mark(test)
    return test


def loss_shape(shape, reduction):
    return shape if reduction == "none" else ()


@pytest.mark.gradient("binary_cross_entropy_with_logits")
@every
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_gradient_with_logits(reduction, upstream, weighted, rng):
    x, t = rng.standard_normal((3, 5)) * 2, rng.random((3, 5))
    w, v = (rng.random(5), rng.random((3, 1)) + 1) if weighted else (None, None)
    derivatives(
        lambda x, **k: F.binary_cross_entropy_with_logits(x, t, w, reduction, v, **k),
        lambda x: (
            elements.reduced(
                elements.bce_with_logits(x, t, *((w, v) if weighted else ())), reduction
            ).loss
        ),
        x,
        upstream,
        rng,
        loss_shape((3, 5), reduction),
    )


@pytest.mark.gradient("binary_cross_entropy")
@every
def test_gradient_of_probabilities(reduction, upstream, rng):
    p, t = rng.uniform(0.05, 0.95, (3, 5)), rng.random((3, 5))
    w = rng.random(5)
    derivatives(
        lambda x, **k: F.binary_cross_entropy(x, t, w, reduction, **k),
        lambda x: elements.reduced(elements.bce(x, t, w), reduction).loss,
        p,
        upstream,
        rng,
        loss_shape((3, 5), reduction),
        hess=False,
    )


@pytest.mark.gradient("soft_margin_loss")
@every
def test_gradient_soft_margin(reduction, upstream, rng):
    x, t = rng.standard_normal((3, 5)) * 2, rng.standard_normal((3, 5))
    derivatives(
        lambda x, **k: F.soft_margin_loss(x, t, reduction, **k),
        lambda x: elements.reduced(elements.soft_margin(x, t), reduction).loss,
        x,
        upstream,
        rng,
        loss_shape((3, 5), reduction),
    )


@pytest.mark.gradient("sigmoid_focal_loss")
@every
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
@pytest.mark.parametrize("soft", [False, True], ids=["sure", "soft"])
def test_gradient_focal(reduction, upstream, gamma, soft, rng):
    x, t = rng.standard_normal((3, 5)) * 2, binary(rng, (3, 5), np.float64, soft)
    derivatives(
        lambda x, **k: F.sigmoid_focal_loss(x, t, 0.3, gamma, reduction, **k),
        lambda x: elements.reduced(elements.focal(x, t, 0.3, gamma), reduction).loss,
        x,
        upstream,
        rng,
        loss_shape((3, 5), reduction),
    )


@pytest.mark.gradient("multilabel_soft_margin_loss")
@every
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4)], ids=str)
def test_gradient_multilabel(reduction, upstream, shape, rng):
    x, t = rng.standard_normal(shape) * 2, rng.random(shape)
    w = rng.random(shape[-1])
    derivatives(
        lambda x, **k: F.multilabel_soft_margin_loss(x, t, w, reduction, **k),
        lambda x: elements.by_rows(elements.bce_with_logits(x, t, w), reduction).loss,
        x,
        upstream,
        rng,
        loss_shape(shape[:-1], reduction),
    )


# Usual elements and others


# A function of elements, its target, and values of the input that are usual and that are not.
WITH_LOGITS = F.binary_cross_entropy_with_logits
ELEMENTWISE = {
    "with logits": (WITH_LOGITS, [0, 1, 0.3], "logits"),
    "with logits, any target": (WITH_LOGITS, [0, 1, -0.5, 2, np.nan], "logits"),
    "bce": (F.binary_cross_entropy, [0, 1], "probabilities"),
    "bce, soft": (F.binary_cross_entropy, [0, 1, 0.3, 1e-40], "probabilities"),
    "soft margin": (F.soft_margin_loss, [-1, 1], "logits"),
    "soft margin, any target": (F.soft_margin_loss, [-1, 1, 0.3, 0], "logits"),
    "focal": (F.sigmoid_focal_loss, [0, 1, 0.3], "logits"),
    "focal, sure": (functools.partial(F.sigmoid_focal_loss, alpha=0.3), [0, 1], "logits"),
    "kl_div": (F.kl_div, [0, 1, 0.3, 1e-40, 1e30], "logits"),
    "kl_div of logarithms": (
        lambda x, t, **k: F.kl_div(x, t, log_target=True, **k),
        [0, -3, -90, -200, -np.inf],
        "logits",
    ),
    "binary entropy": (lambda x, _, reduction, **k: F.binary_entropy(x, **k), [0], "probabilities"),
    "entropy": (
        lambda x, _, reduction, **k: F.entropy(x[:, None], axis=1, **k), [0], "probabilities"
    ),
}  # fmt: skip
FAR = [np.inf, -np.inf, np.nan]
VALUES = {
    "logits": [0, -0.0, 1e-40, 19.99, -20, 26, 79, -79, 81, 104, -200, 1e30, *FAR],
    "probabilities": [0, 1, 1e-40, 1e-37, 1 - 2**-24, 0.5, 2**-0.5, np.nan],
}


@pytest.mark.parametrize("share", [0, 0.02, 0.7], ids=["usual", "mostly usual", "others"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_element_does_not_depend_on_its_neighbours(name, share, rng):
    """Nor on what is asked for besides: a vector of usual elements is computed at once."""
    function, targets, kind = ELEMENTWISE[name]
    n = 331
    x = rng.standard_normal(n) * 5 if kind == "logits" else rng.random(n)
    x = np.where(rng.random(n) < share, rng.choice(VALUES[kind], n), x).astype(np.float32)
    t = rng.choice(targets, n).astype(np.float32)
    with np.errstate(all="ignore"):
        loss, grad = function(x, t, reduction="none", return_grad=True)
        np.testing.assert_array_equal(function(x, t, reduction="none"), loss)
        for length in (1, 5, 64, 200):
            for start in (0, 3, 100):
                part = slice(start, start + length)
                got = function(x[part], t[part], reduction="none", return_grad=True)
                np.testing.assert_array_equal(got[0], loss[part])
                np.testing.assert_array_equal(np.ravel(got[1]), np.ravel(grad)[part])
        if name.startswith(("with logits", "soft margin", "focal")):
            got = function(x, t, reduction="none", return_grad=True, return_hess=True)
            np.testing.assert_array_equal(got[0], loss)
            np.testing.assert_array_equal(got[1], grad)
        # In float64 lanes alone, as other types of targets take it.
        wide = function(x.astype(np.float64), t.astype(np.float64), reduction="none")
    finite = np.isfinite(wide)
    np.testing.assert_array_equal(np.isnan(loss), np.isnan(wide))
    np.testing.assert_array_equal(loss[~finite], wide[~finite])
    scale = None
    if name.startswith("kl_div"):
        mass = np.exp(t.astype(np.longdouble)) if "log" in name else t.astype(np.longdouble)
        with np.errstate(all="ignore"):
            logs = t.astype(np.longdouble) if "log" in name else np.log(t.astype(np.longdouble))
        scale = (mass * np.maximum(np.abs(np.where(mass == 0, 0, logs)), np.abs(x)))[finite]
    elif "any target" in name or name == "focal":
        scale = np.maximum(np.abs(wide), np.abs(x) + 1)[finite]
    assert_within(loss[finite], wide.astype(np.longdouble)[finite], LOSS_BAR["float32"], scale)


def dense(low, high, count, rng):
    """Floats of every binade between two numbers, of both signs."""
    exponents = rng.uniform(np.log2(low), np.log2(high), count)
    return (2**exponents * rng.choice([-1, 1], count)).astype(np.float32)


def test_worst_of_many_usual_elements(rng, worst):
    """Where roundings add up: a few in a million are twice as far off as the worst of thousands."""
    n = 1_000_000
    x = np.concatenate([dense(1e-3, 79, n, rng), dense(0.05, 0.5, n, rng)])
    sure, soft = (binary(rng, 2 * n, np.float32, soft) for soft in (False, True))
    p = np.concatenate([rng.random(n, np.float32), dense(1e-37, 1, n, rng)])
    p = np.clip(np.abs(p), 1e-37, 1 - 2**-24)
    wide = elements.softplus
    x64, bar = x.astype(np.longdouble), LOSS_BAR["float32"]
    errors = {
        "logsigmoid": assert_within(F.logsigmoid(x), -wide(-x64), bar),
        "soft margin": assert_within(
            F.soft_margin_loss(x, 2 * sure - 1, "none"), wide((1 - 2 * sure) * x64), bar
        ),
    }
    for name, t in (("sure", sure), ("soft", soft)):
        got = F.binary_cross_entropy_with_logits(x, t, reduction="none")
        errors[f"with logits, {name}"] = assert_within(
            got, elements.bce_with_logits(x, t).loss, bar
        )
        got = F.binary_cross_entropy(p, t, reduction="none")
        errors[f"BCE, {name}"] = assert_within(got, elements.bce(p, t).loss, bar)
    wide_p = p.astype(np.longdouble)
    log = np.log(wide_p)
    got = F.binary_entropy(p)
    errors["binary entropy"] = assert_within(
        got, -wide_p * log - (1 - wide_p) * np.log1p(-wide_p), bar
    )
    errors["entropy"] = assert_within(F.entropy(p[:, None], axis=1), -wide_p * log, bar)
    scale = wide_p * np.maximum(np.abs(log), np.abs(x64))
    got = F.kl_div(x, p, "none")
    errors["kl_div"] = assert_within(got, wide_p * (log - x64), bar, scale)
    t = dense(1e-3, 79, 2 * n, rng)
    mass = np.exp(t.astype(np.longdouble))
    scale = mass * np.maximum(np.abs(t), np.abs(x64))
    got, grad = F.kl_div(x, t, "none", True, return_grad=True)
    errors["kl_div of logarithms"] = assert_within(got, mass * (t - x64), bar, scale)
    assert_within(grad, -mass, bar)
    for name, error in errors.items():
        worst("float32   of millions", name, error)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 1.2, 2, 2.5, 3, 3.1])
def test_worst_of_many_focal_losses(gamma, rng, worst):
    n = 1_000_000
    x = np.concatenate([rng.uniform(-20, 20, n).astype(np.float32), dense(1e-3, 2, n, rng)])
    t = binary(rng, 2 * n, np.float32, soft=False)
    for alpha in (0.25, 0.3, 1e-3) if gamma == 2 else (0.3,):
        loss, grad = F.sigmoid_focal_loss(x, t, alpha, gamma, return_grad=True)
        want = elements.focal(x, t, alpha, gamma)
        error = assert_within(loss, want.loss, LOSS_BAR["float32"])
        worst("float32   of millions", f"focal, {gamma}", error)
        error = assert_within(grad, want.grad, GRAD_BAR["float32"])
        worst("float32   of millions", f"focal, {gamma}, gradient", error)


def test_products_beyond_float32_are_not_infinite():
    x = np.zeros(1 << 10, np.float32)
    t = np.zeros_like(x)
    x[0], t[0] = -1e10, 71
    x[1], t[1] = 1e10, 79
    for reduction in ("mean", "sum"):
        got = F.kl_div(x, t, reduction, True)
        want = F.kl_div(x.astype(np.float64), t.astype(np.float64), reduction, True)
        assert got == np.float32(want)


@pytest.mark.parametrize("function", [F.sigmoid, F.logsigmoid])
def test_sigmoids_do_not_depend_on_neighbours(function, rng):
    x = rng.standard_normal(331) * 5
    x = np.where(rng.random(331) < 0.1, rng.choice(VALUES["logits"], 331), x).astype(np.float32)
    whole = function(x)
    for start, length in ((0, 1), (3, 5), (100, 64), (7, 200)):
        part = slice(start, start + length)
        np.testing.assert_array_equal(function(x[part]), whole[part])


def test_tiny_upstream_gradients(rng):
    """Whose product with a derivative is subnormal, or which are no numbers of float32."""
    x, t = (rng.standard_normal(50) * 3).astype(np.float32), rng.integers(0, 2, 50)
    want = elements.bce_with_logits(x, t)
    for g in (1e-30, 1e-38, 1e-42, 1e300, 0.0):
        _, grad = F.binary_cross_entropy_with_logits(
            x, t.astype(np.float32), reduction="sum", return_grad=True, grad_output=g
        )
        with np.errstate(over="ignore"):
            exact = want.grad * np.longdouble(g)
            big = np.abs(exact) > np.finfo(np.float32).max
            assert_within(grad[~big], exact[~big], GRAD_BAR["float32"])
        assert np.all(np.isinf(grad[big]))
    losses = [
        F.binary_cross_entropy_with_logits(
            x, t.astype(np.float32), reduction="sum", return_grad=True, grad_output=g
        )[0]
        for g in (1, 1e-42, 1e300, np.nan)
    ]
    assert len(set(losses)) == 1


# Layouts, types, lengths, threads


def all_losses(x, t, reduction="none"):
    """(name, result, reference) of each loss in which nothing cancels, with its Hessian if any."""
    k = {"return_grad": True, "return_hess": True}
    v = np.float32(2.5)
    yield (
        "with logits",
        F.binary_cross_entropy_with_logits(x, t, None, reduction, v, **k),
        elements.reduced(elements.bce_with_logits(x, t, 1, v), reduction),
    )
    yield (
        "soft margin",
        F.soft_margin_loss(x, t, reduction, **k),
        elements.reduced(elements.soft_margin(x, t), reduction),
    )
    yield (
        "multilabel",
        F.multilabel_soft_margin_loss(x, t, None, reduction, **k),
        elements.by_rows(elements.bce_with_logits(x, t), reduction),
    )


def reference_probabilities(x):
    wide = x.astype(np.float64).astype(np.longdouble)
    return elements.sigmoid(wide).astype(np.float64).astype(x.dtype)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_layout(layout, dtype, rng):
    values = (rng.standard_normal((3, 40, 7)) * 3).astype(dtype)
    targets = rng.integers(0, 2, values.shape).astype(dtype)
    for other in (LAYOUTS[0], layout):
        x, _ = like(layout, values)
        t, _ = like(other, targets)
        for name, got, want in all_losses(x, t):
            assert_result(got, want, name)
        p, _ = like(layout, reference_probabilities(values))
        got = F.binary_cross_entropy(p, t, None, "none", return_grad=True)
        assert_result(got, elements.bce(p, targets), "probabilities")
        got = F.sigmoid_focal_loss(x, t, return_grad=True)
        assert_result(got, elements.focal(values, targets), "focal")
    for target_type in (np.int8, np.uint64, ">i4", np.float16, np.float64):
        got = F.binary_cross_entropy_with_logits(
            x, targets.astype(target_type), reduction="none", return_grad=True
        )
        assert_result(got, elements.bce_with_logits(x, targets), f"target {target_type}")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_output_layout(layout, dtype, rng):
    x = (rng.standard_normal((3, 40, 7)) * 3).astype(dtype)
    t = rng.integers(0, 2, x.shape)
    want = elements.reduced(elements.bce_with_logits(x, t), "mean")
    grad_out, grad_base = layout(x.shape, x.dtype)
    hess_out, hess_base = layout(x.shape, x.dtype)
    got = F.binary_cross_entropy_with_logits(x, t, grad_out=grad_out, hess_out=hess_out)
    assert got[1] is grad_out
    assert got[2] is hess_out
    assert_result(got, want, "outputs")
    assert_only_view_written(layout, grad_out, grad_base)
    assert_only_view_written(layout, hess_out, hess_base)
    in_place, base = like(layout, x)
    loss, grad = F.binary_cross_entropy_with_logits(in_place, t, grad_out=in_place)
    assert grad is in_place
    assert_within(np.asarray(loss), want.loss, 3)
    assert_within(grad, want.grad, GRAD_BAR[np.dtype(dtype).name], want.scale)
    assert_only_view_written(layout, in_place, base)
    out, base = layout(x.shape, x.dtype)
    assert F.sigmoid(x, out=out) is out
    assert_within(out, elements.sigmoid(x.astype(np.float64).astype(np.longdouble)), 3)
    assert_only_view_written(layout, out, base)
    same, base = like(layout, x)
    assert F.logsigmoid(same, out=same) is same
    assert_within(same, elements.logsigmoid(x.astype(np.float64).astype(np.longdouble)), 3)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_length(dtype, rng):
    for n in range(131):
        x = (rng.standard_normal((2, n)) * 5).astype(dtype)
        t = rng.integers(0, 2, x.shape).astype(dtype)
        if n:
            for name, got, want in all_losses(x, t):
                assert_result(got, want, f"{name} of {n}")
            for name, got, want in all_losses(x.T, t.T, "mean"):
                assert_result(got, want, f"{name} of {n}, transposed")
        loss, grad = F.binary_cross_entropy_with_logits(x, t, reduction="none", return_grad=True)
        assert loss.shape == grad.shape == x.shape


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)], ids=str)
def test_nothing(shape):
    x = np.zeros(shape, np.float32)
    for function in (
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.soft_margin_loss,
        F.sigmoid_focal_loss,
        F.multilabel_soft_margin_loss,
    ):
        assert np.isnan(function(x, x, reduction="mean"))
        if function is F.multilabel_soft_margin_loss and shape[-1] == 0:
            assert np.isnan(function(x, x, reduction="sum"))  # the mean over no classes
        else:
            assert function(x, x, reduction="sum") == 0
        assert function(x, x, return_grad=True)[1].shape == shape


def test_broadcast_input_and_weights(rng):
    x = np.broadcast_to(rng.standard_normal(5).astype(np.float32), (300, 5))
    t = np.broadcast_to(np.float32(1), (300, 5))
    w = rng.random((300, 1)).astype(np.float32)
    got = F.binary_cross_entropy_with_logits(x, t, w, "none", return_grad=True)
    assert_result(got, elements.bce_with_logits(x, t, w), "broadcast")


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
def test_same_bits_at_any_number_of_threads(dtype, rng):
    x = (rng.standard_normal((1003, 777)) * 5).astype(dtype)
    t = rng.integers(0, 2, x.shape).astype(dtype)
    p = F.sigmoid(x)
    before = crossent.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            crossent.set_num_threads(threads)
            k = {"return_grad": True, "return_hess": True}
            results.append(
                [
                    *F.binary_cross_entropy_with_logits(x, t, x[0] ** 2, pos_weight=[2.0], **k),
                    *F.multilabel_soft_margin_loss(x, t, reduction="none", **k),
                    *F.sigmoid_focal_loss(x, t, reduction="sum", **k),
                    *F.binary_cross_entropy(p, t, return_grad=True),
                    F.logsigmoid(x.T),
                ]
            )
    finally:
        crossent.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    want = elements.reduced(elements.bce(p, t), "mean")
    assert_within(np.asarray(results[0][-3]), want.loss, LOSS_BAR[np.dtype(dtype).name])


def test_large_outputs_past_the_caches(rng):
    """Outputs that are streamed, at every alignment."""
    x = rng.standard_normal((1500, 1501), np.float32)
    t = (x > 0.5).astype(np.float32)
    want = 1 / (1 + np.exp(-x.astype(np.float64))) - t
    base = np.empty(x.size + 32, np.float32)
    for skip in (0, 1, 15, 17):
        out = base[skip : skip + x.size].reshape(x.shape)
        F.binary_cross_entropy_with_logits(x, t, reduction="sum", grad_out=out)
        np.testing.assert_allclose(out, want, rtol=1e-6)


# Refusals


def test_errors():
    x = np.zeros((2, 3), np.float32)
    t = np.zeros((2, 3))
    logits = F.binary_cross_entropy_with_logits
    for error, match, call in (
        (ValueError, r"target must have the shape of input \(2, 3\), got \(3,\)", (x, t[0])),
        (
            ValueError,
            r"weight must broadcast to the shape of input \(2, 3\), got \(2,\)",
            (x, t, [1, 2]),
        ),
        (
            ValueError,
            r"pos_weight must broadcast .* got \(1, 2, 3\)",
            (x, t, None, "mean", t[None]),
        ),
        (ValueError, "reduction must be 'none', 'mean' or 'sum', got \"all\"", (x, t, None, "all")),
        (TypeError, "input must be a floating-point array, got int64", (x.astype(int), t)),
        (TypeError, "target must be an array of real numbers, got bool", (x, t > 0)),
        (TypeError, "target must not be a masked array", (x, np.ma.array(t))),
    ):
        with pytest.raises(error, match=match):
            logits(*call)
    with pytest.raises(ValueError, match=r"grad_output .* the loss's shape \(\), got \(2, 3\)"):
        logits(x, t, grad_output=t)
    with pytest.raises(ValueError, match="grad_out must not overlap target"):
        logits(t + 1, t, grad_out=t)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\] or negative, got 2"):
        F.sigmoid_focal_loss(x, t, 2)
    with pytest.raises(ValueError, match="gamma must be at least 0 and finite, got -1"):
        F.sigmoid_focal_loss(x, t, 0.5, -1)
    with pytest.raises(ValueError, match=r"targets must have the shape of inputs \(2, 3\)"):
        F.sigmoid_focal_loss(x, t[0])
    with pytest.raises(ValueError, match="input must have at least one axis"):
        F.multilabel_soft_margin_loss(np.float32(1), np.float32(1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("wrong", [-0.25, 1.5, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_no_probability(dtype, wrong, order, rng):
    p = np.asarray(rng.random((40, 30)), dtype, order=order)
    p[7, 11] = wrong
    before = p.copy()
    with pytest.raises(ValueError, match=r"input\[7, 11\] must be a probability in \[0, 1\], got"):
        F.binary_cross_entropy(p, np.ones(p.shape))
    with pytest.raises(ValueError, match=r"input\[7, 11\]"):
        F.binary_cross_entropy(p, np.ones(p.shape), grad_out=p)
    np.testing.assert_array_equal(p.astype(float), before.astype(float))


# How the losses are one


def test_identities(rng):
    x = rng.standard_normal((50, 4)) * 5
    t = rng.integers(0, 2, x.shape)
    logits = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    np.testing.assert_allclose(F.soft_margin_loss(x, 2 * t - 1, "none"), logits, rtol=1e-15)
    # Two classes with the logits 0 and x are one with the logit x.
    two = np.stack([np.zeros_like(x), x], axis=-1).reshape(-1, 2)
    multi = F.cross_entropy(two, t.ravel(), reduction="none").reshape(x.shape)
    np.testing.assert_allclose(multi, logits, rtol=1e-15)
    np.testing.assert_allclose(F.sigmoid(x), scipy.special.expit(x), rtol=1e-15)
