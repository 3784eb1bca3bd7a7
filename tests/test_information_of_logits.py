"""Divergences between softmaxes, the entropy's Hessian, and what is asked of a token."""

import numpy as np
import options
import pytest
import torch
import torch.nn.functional as TF
from layouts import LAYOUTS, like
from mpmath import mp
from reference import BFLOAT16, FLOATS, GRAD_BAR, LOSS_BAR, assert_within
from test_gradients import check_gradient, upstream_gradient

import crossent
import crossent.functional as F

WIDE = [np.float32, np.float64]
KINDS = ["alike", "near", "far", "confident", "confident alike", "shifted"]


def rounded(value):
    """A number of mpmath in long double."""
    high = np.longdouble(float(value))
    return high + np.longdouble(float(value - mp.mpf(float(value)))) if np.isfinite(high) else high


def pairs(kind, shape, dtype, rng):
    x, z = rng.standard_normal(shape), rng.standard_normal(shape)
    a, b = {
        "alike": (x, x + 1e-6 * z),
        "near": (x, x + 0.1 * z),
        "far": (3 * x, 3 * z),
        "confident": (40 * x, 40 * x + z),
        "confident alike": (30 * x, 30 * x + 1e-4 * z),
        "shifted": (x, x + 300 + 0.01 * z),
    }[kind]
    return a.astype(dtype), b.astype(dtype)


def exact_in_nats(of, p, q):
    """Of probabilities of mpmath."""
    if of == "entropy":
        return -mp.fsum(v * mp.log(v) for v in p)
    if of == "kl":
        return mp.fsum(v * mp.log(v / w) for v, w in zip(p, q, strict=True))
    m = [(v + w) / 2 for v, w in zip(p, q, strict=True)]
    return (exact_in_nats("kl", p, m) + exact_in_nats("kl", q, m)) / 2


# Rows that took the most of what was left of the bar before the unit was held in two parts.
HARD = {
    2: [
        ([5.661609856761573, 1.3236130805743591], [6.654581290571132, 0.6950484581900639]),
        ([6.0581516637257735, 30.92785538567941], [6.058150491002363, 30.927855270228882]),
        ([8.926870523952465, -8.683076006190262], [6.364098855381394, -9.246436997832877]),
    ],
    3: [
        (
            [-2.6626645965364544, -7.008230491895402, -3.995817044228623],
            [-0.07541915616448946, -3.708002631705926, -3.5634704293408825],
        ),
        (
            [-8.554754708062061, -4.445847289242207, 3.322612806852229],
            [-8.193947767586252, -3.733796166895357, 2.9096730460323132],
        ),
    ],
    5: [],
    40: [],
}


@pytest.mark.parametrize("base", [None, 2, 10, 74, 0.5, 1.0001])
@pytest.mark.parametrize("classes", HARD)
def test_losses_in_every_base(base, classes, rng):
    """Of float64, whose ulp has no room for a rounding of the unit."""
    spread = rng.choice([0.3, 1, 3, 6], (60, 1))
    a, b = (spread * rng.standard_normal((60, classes)) for _ in range(2))
    for x, y in HARD[classes]:
        a, b = np.vstack([a, x]), np.vstack([b, y])
    unit = mp.log(base) if base else mp.mpf(1)
    softmaxes = [[exact_softmax(row)[0] for row in rows] for rows in (a, b)]
    given = [np.abs(rows) for rows in (a, b)]
    given = [rows / rows.sum(axis=1, keepdims=True) for rows in given]
    as_given = [[[mp.mpf(float(v)) for v in row] for row in rows] for rows in given]
    calls = {
        (F.entropy_with_logits, "entropy"): ((a,), softmaxes),
        (F.kl_divergence_with_logits, "kl"): ((a, b), softmaxes),
        (F.js_divergence_with_logits, "js"): ((a, b), softmaxes),
        (F.entropy, "entropy"): (given[:1], as_given),
        (F.js_divergence, "js"): (given, as_given),
    }
    for (function, of), (arrays, pairs) in calls.items():
        got = function(*arrays, base=base)
        want = [exact_in_nats(of, p, q) / unit for p, q in zip(*pairs, strict=True)]
        what = f"{function.__name__}, base {base}"
        assert_within(got, np.array([rounded(v) for v in want]), LOSS_BAR["float64"], what=what)
    p = np.concatenate([given[0].ravel(), [0.016231805727555344, 1.1109038150566385e-05]])
    want = [exact_in_nats("entropy", [mp.mpf(float(v)), 1 - mp.mpf(float(v))], None) for v in p]
    want = np.array([rounded(v / unit) for v in want])
    assert_within(F.binary_entropy(p, base=base), want, LOSS_BAR["float64"], what="binary_entropy")


def exact_softmax(row):
    row = [mp.mpf(float(v)) for v in row]
    e = [mp.exp(v - max(row)) for v in row]
    return [v / mp.fsum(e) for v in e], max(row) + mp.log(mp.fsum(e))


def exact_rows(a, b):
    """KL and JS of each row with gradients, and the sizes of what these are differences of."""
    rows = []
    with mp.workdps(200):
        for of_a, of_b in zip(a, b, strict=True):
            (p, lse_a), (q, lse_b) = exact_softmax(of_a), exact_softmax(of_b)
            k = lse_b - lse_a
            u = [mp.mpf(float(y)) - mp.mpf(float(x)) - k for x, y in zip(of_a, of_b, strict=True)]
            apart = mp.fsum(abs(x - y) for x, y in zip(p, q, strict=True))
            kl = -mp.fsum(x * v for x, v in zip(p, u, strict=True))
            m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            by_p = [mp.log(x / v) / 2 for x, v in zip(p, m, strict=True)]
            by_q = [mp.log(y / v) / 2 for y, v in zip(q, m, strict=True)]
            mean_p = mp.fsum(x * v for x, v in zip(p, by_p, strict=True))
            mean_q = mp.fsum(y * v for y, v in zip(q, by_q, strict=True))
            numbers = [
                [kl],
                [x * (-v - kl) for x, v in zip(p, u, strict=True)],
                [x * max(abs(v), kl, apart) for x, v in zip(p, u, strict=True)],
                [y - x for x, y in zip(p, q, strict=True)],
                [y * apart for y in q],
                [mean_p + mean_q],
                [x * (v - mean_p) for x, v in zip(p, by_p, strict=True)],
                [x * max(abs(v), mean_p, apart) for x, v in zip(p, by_p, strict=True)],
                [y * (v - mean_q) for y, v in zip(q, by_q, strict=True)],
                [y * max(abs(v), mean_q, apart) for y, v in zip(q, by_q, strict=True)],
            ]
            rows.append([np.array([rounded(v) for v in of]) for of in numbers])
    return [np.array(of) for of in zip(*rows, strict=True)]


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("classes", [2, 3, 10, 31, 32, 33, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_divergences(dtype, classes, kind, rng, worst):
    a, b = pairs(kind, (max(4, 150 // classes), classes), dtype, rng)
    kl, kl_a, size_a, kl_b, size_b, js, js_a, of_a, js_b, of_b = exact_rows(a, b)
    name = np.dtype(dtype).name
    for across in (False, True):
        rows = [np.ascontiguousarray(v.T) if across else v for v in (a, b)]
        axis = 0 if across else 1
        for ours, loss, grads in (
            (F.kl_divergence_with_logits, kl, ((kl_a, size_a), (kl_b, size_b))),
            (F.js_divergence_with_logits, js, ((js_a, of_a), (js_b, of_b))),
        ):
            got, *got_grads = ours(*rows, axis=axis, return_grad="both")
            error = assert_within(got, loss[:, 0], LOSS_BAR[name], what="divergence")
            worst(f"{name:9} {ours.__name__}", f"{kind}, {classes} classes", error)
            assert_within(ours(*rows, axis=axis), loss[:, 0], LOSS_BAR[name])
            for grad, (want, size) in zip(got_grads, grads, strict=True):
                grad = grad.T if across else grad
                error = assert_within(grad, want, GRAD_BAR[name], size, "gradient")
                worst(f"{name:9} {ours.__name__}, gradient", f"{kind}, {classes} classes", error)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("classes", [1, 5, 40, 5000])
def test_of_itself(dtype, classes, rng):
    x = (rng.standard_normal((4, classes)) * 5).astype(dtype)
    for ours in (F.kl_divergence_with_logits, F.js_divergence_with_logits):
        for axis, rows in ((1, x), (0, np.ascontiguousarray(x.T))):
            got = ours(rows, rows.copy(), axis=axis, return_grad="both")
            for value in got:
                assert not np.any(value.astype(float))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("classes", [3, 50])
@pytest.mark.parametrize("axis", [0, 1])
def test_edges_of_divergences(dtype, classes, axis):
    """The table of docs/numerics.md."""
    none, inf, nan = -np.inf, np.inf, np.nan
    rows = [
        ((0, 0), (0, 0), 0, 0),
        ((0, none), (none, 0), inf, np.log(2)),
        ((0, none), (0, 0), np.log(2), None),
        ((0, 0), (0, none), inf, None),
        ((inf, 0), (0, 0), np.log(2), None),
        ((0, 0), (inf, 0), inf, None),
        ((inf, 0), (inf, 5), 0, 0),
        ((inf, 0), (0, inf), inf, np.log(2)),
        ((inf, inf), (0, 0), nan, nan),
        ((none, none), (0, 0), nan, nan),
        ((nan, 0), (0, 0), nan, nan),
    ]
    a, b = np.full((2, len(rows), classes), none, dtype)
    for i, (of_a, of_b, *_) in enumerate(rows):
        a[i, :2], b[i, :2] = of_a, of_b
    of_rows = lambda v: np.ascontiguousarray(v if axis == 1 else v.T)  # noqa: E731
    kl = F.kl_divergence_with_logits(of_rows(a), of_rows(b), axis=axis)
    js = F.js_divergence_with_logits(of_rows(a), of_rows(b), axis=axis)
    half = (np.log(4 / 3) + np.log(2 / 3) / 2 + np.log(2) / 2) / 2
    np.testing.assert_allclose(kl, [row[2] for row in rows], rtol=1e-6)
    np.testing.assert_allclose(js, [half if row[3] is None else row[3] for row in rows], rtol=1e-6)
    for ours in (F.kl_divergence_with_logits, F.js_divergence_with_logits):
        for swapped in ((b, a), (a, b)):
            got = ours(*map(of_rows, swapped), axis=axis, return_grad="both")
            nans = np.array([np.isnan(row[2]) for row in rows])
            np.testing.assert_array_equal(np.isnan(got[0]), nans)
            for grad in got[1:]:
                grad = (grad if axis == 1 else grad.T).astype(float)
                finite = np.isfinite(got[0])
                assert np.all(np.isfinite(grad[finite]))


@pytest.mark.gradient("kl_divergence_with_logits")
@pytest.mark.gradient("js_divergence_with_logits")
@pytest.mark.parametrize("name", ["kl", "js"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
@pytest.mark.parametrize("warp", [{}, {"temperature": 1.7, "softcap": 3.0}], ids=["", "warped"])
def test_gradient_of_divergence(name, axis, base, upstream, warp, rng):
    ours = F.kl_divergence_with_logits if name == "kl" else F.js_divergence_with_logits
    a, b = rng.standard_normal((2, 3, 4, 5))
    factor, grad_output = upstream_gradient(upstream, tuple(np.delete(a.shape, axis)), rng)
    given = {"axis": axis, "base": base, **warp}
    _, grad_a, grad_b = ours(a, b, return_grad="both", grad_output=grad_output, **given)
    unit = np.log(np.longdouble(base)) if base else 1

    def exact(a, b):
        z = [
            options.warped(np.moveaxis(v.astype(np.longdouble), axis, -1), **warp)[0]
            for v in (a, b)
        ]
        log_p, log_q = (v - options.logsumexp(v) for v in z)
        p, q = np.exp(log_p), np.exp(log_q)
        if name == "kl":
            return np.sum(p * (log_p - log_q), axis=-1) / unit
        log_m = np.log((p + q) / 2)
        return np.sum(p * (log_p - log_m) + q * (log_q - log_m), axis=-1) / 2 / unit

    check_gradient(lambda a: ours(a, b, **given), lambda a: exact(a, b), a, factor, grad_a)
    check_gradient(lambda b: ours(a, b, **given), lambda b: exact(a, b), b, factor, grad_b)
    alone = ours(a, b, return_grad=True, grad_output=grad_output, **given)
    np.testing.assert_array_equal(alone[1], grad_a)


def test_divergence_beside_torch(rng):
    a, b = rng.standard_normal((2, 200, 12))
    ta, tb = (torch.tensor(v, requires_grad=True) for v in (a, b))
    want = TF.kl_div(
        TF.log_softmax(tb, 1), TF.log_softmax(ta, 1), reduction="none", log_target=True
    ).sum(1)
    want.sum().backward()
    got, grad_a, grad_b = F.kl_divergence_with_logits(a, b, return_grad="both")
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(grad_a, ta.grad.numpy(), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(grad_b, tb.grad.numpy(), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(
        F.js_divergence_with_logits(a, b),
        F.js_divergence(F.softmax(a, 1), F.softmax(b, 1)),
        rtol=1e-12,
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_layout(layout, dtype, rng):
    values, others = (rng.standard_normal((2, 3, 40, 7)) * 2).astype(dtype)
    name = np.dtype(np.float64 if dtype == np.float64 else np.float32).name
    wide = [v.astype(np.float64) for v in (values, others)]
    grads = lambda got: [g.astype(np.float64) for g in got]  # noqa: E731
    for axis in (0, 1, 2):
        a, b = like(layout, values)[0], like(layout, others)[0]
        for ours in (F.kl_divergence_with_logits, F.js_divergence_with_logits):
            want = ours(*wide, axis=axis, return_grad="both")
            got = ours(a, b, axis=axis, return_grad="both")
            assert_within(got[0], want[0].astype(np.longdouble), 2 * LOSS_BAR[name])
            rtol = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-6}.get(a.dtype.name, 1e-13)
            for grad, value in zip(grads(got[1:]), want[1:], strict=True):
                np.testing.assert_allclose(grad, value, rtol, 1e-15 if rtol < 1e-7 else 1e-7)
            x, y = like(layout, values)[0], like(layout, others)[0]
            again = ours(x, y, axis=axis, return_grad="both", grad_out=(x, y))
            assert again[1] is x
            assert again[2] is y
            for one, other in zip(grads(again), grads(got), strict=True):
                np.testing.assert_array_equal(one, other)
        target = rng.integers(0, values.shape[axis], np.delete(values.shape, axis))
        tokens, grad = F.token_log_prob(a, target, axis=axis, return_grad=True)
        exact = F.token_log_prob(wide[0], target, axis=axis, return_grad=True)
        assert_within(tokens.log_prob, exact[0].log_prob.astype(np.longdouble), 2 * LOSS_BAR[name])
        np.testing.assert_array_equal(tokens.rank, exact[0].rank)
        np.testing.assert_allclose(grads([grad])[0], exact[1], rtol, atol=1e-7)
        x = like(layout, values)[0]
        assert F.token_log_prob(x, target, axis=axis, grad_out=x)[1] is x
        np.testing.assert_array_equal(grads([x])[0], grads([grad])[0])


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 79, 80, 200, 5000, 50257])
def test_hessian_of_entropy(dtype, classes, rng, worst):
    name = np.dtype(dtype).name
    for spread in (0.1, 3, 30):
        x = (rng.standard_normal((3, classes)) * spread).astype(dtype)
        with np.errstate(under="ignore"):
            wide = x.astype(np.longdouble)
            gap = np.max(wide, axis=1, keepdims=True) - wide
            e = np.exp(-gap)
            p = e / np.sum(e, axis=1, keepdims=True)
            top = np.argmax(wide, axis=1)[:, None]
            others = np.array(e)
            np.put_along_axis(others, top, 0, axis=1)
            rest = 1 - p
            np.put_along_axis(
                rest, top, (np.sum(others, axis=1) / np.sum(e, axis=1))[:, None], axis=1
            )
            mean = np.sum(p * gap, axis=1, keepdims=True)
            want = p * ((1 - 2 * p) * (gap - mean) - rest)
            size = p * np.maximum(np.maximum(gap, mean), rest)
        for axis, rows in ((1, x), (0, np.ascontiguousarray(x.T))):
            got = F.entropy_with_logits(rows, axis=axis, return_grad=True, return_hess=True)
            alone = F.entropy_with_logits(rows, axis=axis, return_hess=True)
            hess = got[2] if axis == 1 else got[2].T
            error = assert_within(hess, want, GRAD_BAR[name], size, "Hessian")
            worst(f"{name:9} entropy with logits, Hessian", f"{classes} classes", error)
            np.testing.assert_array_equal(alone[1], got[2])


@pytest.mark.parametrize("warp", [{}, {"softcap": 3.0, "temperature": 0.5}], ids=["", "warped"])
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("classes", [4, 100])
def test_hessian_of_entropy_is_the_gradients_slope(warp, base, classes, rng):
    x = rng.standard_normal((3, classes))
    given = {"base": base, "grad_output": -1.5, **warp}
    _, _, hess = F.entropy_with_logits(x, return_grad=True, return_hess=True, **given)
    step = 1e-6
    for i in range(0, classes, 7):
        up, down = x.copy(), x.copy()
        up[:, i] += step
        down[:, i] -= step
        slope = (
            F.entropy_with_logits(up, return_grad=True, **given)[1][:, i]
            - F.entropy_with_logits(down, return_grad=True, **given)[1][:, i]
        ) / (2 * step)
        np.testing.assert_allclose(hess[:, i], slope, rtol=1e-5, atol=1e-8)
    out = np.empty_like(x)
    F.entropy_with_logits(x, hess_out=out, **given)
    np.testing.assert_array_equal(out, hess)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("shape", [(60, 7), (9, 300), (3, 5000), (2, 6, 50), (2, 100_001)], ids=str)
@pytest.mark.parametrize("warp", [{}, {"softcap": 8.0, "temperature": 0.6}], ids=["", "warped"])
def test_tokens(dtype, shape, warp, rng, worst):
    x = (rng.standard_normal(shape) * 4).astype(dtype)
    # Ties, also with the target.
    x[0, :3] = x[0, 0]
    y = rng.integers(0, shape[1], shape[:1] + shape[2:])
    y.flat[0] = 1
    g, h = rng.standard_normal((2, *y.shape))
    got, grad = F.token_log_prob(x, y, return_grad=True, grad_output=(g, h), **warp)
    z = np.moveaxis(x.astype(np.longdouble), 1, -1)
    z, slope, _ = options.warped(z, **warp)
    lse = options.logsumexp(z)
    picked = np.take_along_axis(z, y[..., None], -1)
    top = np.max(z, axis=-1, keepdims=True)
    rest = np.sum(np.exp(z - top), axis=-1, keepdims=True) - 1
    log_prob = (picked - top) - np.log1p(rest)
    p = np.exp(z - lse)
    entropy = np.log1p(rest) + np.sum(p * (top - z), axis=-1, keepdims=True)
    name = got.log_prob.dtype.name
    assert name == ("float64" if dtype == np.float64 else "float32")
    # Of float64, warping makes other logits.
    size = np.max(np.abs(z), axis=-1) if warp and dtype == np.float64 else 0
    bar = LOSS_BAR[name] + (1 if warp else 0)
    worst(f"{name:9} token", str(shape), assert_within(got.log_prob, log_prob[..., 0], bar, size))
    assert_within(got.entropy, entropy[..., 0], bar, size)
    assert_within(got.logsumexp, lse[..., 0], bar, np.max(np.abs(z), axis=-1))
    assert got.rank.dtype == np.int64
    np.testing.assert_array_equal(got.rank, np.sum(z > picked, axis=-1))
    one_hot = y[..., None] == np.arange(shape[1])
    gap, mean = top - z, entropy - np.log1p(rest)
    terms = g[..., None] * (one_hot - p) * slope, h[..., None] * p * (gap - mean) * slope
    scale = np.abs(terms[0]) + np.abs(h[..., None]) * p * np.maximum(gap, mean) * slope
    if warp and dtype == np.float64:
        scale = scale * np.max(np.abs(z), axis=-1, keepdims=True)
    want, scale = (np.moveaxis(v, -1, 1) for v in (terms[0] + terms[1], scale))
    error = assert_within(grad, want, GRAD_BAR[np.dtype(dtype).name], scale)
    worst(f"{np.dtype(dtype).name:9} token, gradient", str(shape), error)
    alone = F.token_log_prob(x, y, **warp)
    for one, other in zip(alone, got, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    by_default = F.token_log_prob(x, y, return_grad=True, **warp)[1]
    want = np.moveaxis((one_hot - p) * slope, -1, 1)
    scale = np.abs(want) * (np.max(np.abs(z)) if warp and dtype == np.float64 else 1)
    assert_within(by_default, want, GRAD_BAR[np.dtype(dtype).name], scale)


@pytest.mark.gradient("token_log_prob")
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("upstream", ["one", "scalar", "array"])
def test_gradient_of_token_log_prob(axis, upstream, rng):
    x = rng.standard_normal((3, 4, 5)) * 2
    at = 1 if axis is None else axis
    shape = tuple(np.delete(x.shape, at))
    y = rng.integers(0, x.shape[at], shape)
    factor, of_log_prob = upstream_gradient(upstream, shape, rng)
    g = np.ones(shape) if of_log_prob is None else of_log_prob
    _, grad = F.token_log_prob(x, y, axis=axis, return_grad=True, grad_output=(g, -0.5))

    def exact(x):
        z = np.moveaxis(x, at, -1)
        log_p = z - options.logsumexp(z)
        picked = np.take_along_axis(log_p, y[..., None], -1)[..., 0]
        return factor * picked + 0.5 * np.sum(np.exp(log_p) * log_p, axis=-1)

    def ours(x):
        got = F.token_log_prob(x, y, axis=axis)
        return factor * got.log_prob - 0.5 * got.entropy

    check_gradient(ours, exact, x, 1.0, grad)


def test_a_confident_token():
    x = np.array([[20.0, 0.0], [0.0, 20.0]], np.float32)
    got, grad = F.token_log_prob(x, [0, 0], return_grad=True)
    assert got.log_prob[0] == np.float32(-2.0611537e-9)
    assert got.log_prob[1] == -20
    np.testing.assert_allclose(grad[0], [2.0611537e-9, -2.0611537e-9], rtol=1e-6)
    one = F.token_log_prob(x[0], 0)
    assert isinstance(one.rank, np.int64)
    assert one.log_prob == got.log_prob[0]


def test_same_bits_at_any_number_of_threads(rng):
    a, b = rng.standard_normal((2, 1003, 777)).astype(np.float32)
    y = rng.integers(0, 777, 1003)
    before = crossent.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            crossent.set_num_threads(threads)
            tokens, grad = F.token_log_prob(a, y, return_grad=True, grad_output=(1, 0.1))
            results.append(
                [
                    *F.kl_divergence_with_logits(a, b, return_grad="both"),
                    *F.js_divergence_with_logits(a, b, axis=0, return_grad="both"),
                    *F.entropy_with_logits(a, return_grad=True, return_hess=True),
                    *tokens,
                    grad,
                ]
            )
    finally:
        crossent.set_num_threads(before)
    for other in results[1:]:
        for one, value in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, value)


def test_errors():
    x, y = np.zeros((2, 3)), np.zeros(2, int)
    both = np.zeros((2, 3))
    y = both.view(np.int64)[:, 0]
    for match, call in (
        (
            r"q_logits must have the shape of p_logits \(2, 3\), got \(3,\)",
            lambda: F.kl_divergence_with_logits(x, x[0]),
        ),
        (r"base must be positive and not 1", lambda: F.js_divergence_with_logits(x, x, base=1)),
        (r"axis must be in \[-2, 2\)", lambda: F.kl_divergence_with_logits(x, x, axis=2)),
        (
            r"return_grad must be True, False or 'both'",
            lambda: F.js_divergence_with_logits(x, x, return_grad="q"),
        ),
        (
            r"target must have shape \(2,\)",
            lambda: F.token_log_prob(x, np.zeros(3, int)),
        ),
        (
            r"grad_output\[1\] must be a number or have target's shape \(2,\), got \(3,\)",
            lambda: F.token_log_prob(x, y, return_grad=True, grad_output=(1, x[0])),
        ),
        (r"grad_out must not overlap target", lambda: F.token_log_prob(x, y, grad_out=both)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    out = np.full((2, 3), 9.0)
    with pytest.raises(IndexError, match=r"target\[1\] = 3 is out of range for 3 classes"):
        F.token_log_prob(x, [0, 3], grad_out=out)
    assert np.all(out == 9)
    with pytest.raises(TypeError, match="grad_output must be a pair"):
        F.token_log_prob(x, y, grad_output=1.0)
    with pytest.raises(TypeError, match="target must be an array of integers"):
        F.token_log_prob(x, x)


@pytest.mark.parametrize("gap", [30.0, 40.0, 60.0, 100.0])
def test_gradients_of_confident_rows(gap):
    """The top class's is minus the sum of the others', however little that is."""
    a, b = np.array([[0.1, 0.1 - gap]]), np.array([[10.7, 10.7 - gap * 0.9]])
    _, kl_a, size_a, kl_b, _, _, js_a, of_a, js_b, of_b = exact_rows(a, b)
    _, *kl = F.kl_divergence_with_logits(a, b, return_grad="both")
    _, *js = F.js_divergence_with_logits(a, b, return_grad="both")
    assert_within(kl[0], kl_a, 8, size_a)
    assert_within(kl[1], kl_b, 8)
    assert_within(js[0], js_a, 8, of_a)
    assert_within(js[1], js_b, 8, of_b)
    assert abs(kl[1].sum()) <= 1e-15 * abs(kl[1]).max()


@pytest.mark.parametrize("shape, axis", [((2, 0), 1), ((0, 2), 0), ((0, 2), 1), ((0, 0), 1)])
def test_nothing(shape, axis):
    x = np.zeros(shape)
    for ours in (F.kl_divergence_with_logits, F.js_divergence_with_logits):
        got = ours(x, x, axis=axis, return_grad="both", temperature=2.0)
        np.testing.assert_array_equal(got[0], np.full(np.delete(shape, axis), np.nan))
        np.testing.assert_array_equal(got[1], x)
    np.testing.assert_array_equal(np.isnan(F.entropy_with_logits(x, axis=axis)), np.isnan(got[0]))


def test_small_upstream_gradients_leave_the_answers():
    for x in (np.array([[0, -85]], np.float32), np.array([[0] + [-85] * 99], np.float32)):
        want, tokens = F.entropy_with_logits(x), F.token_log_prob(x, [0])
        assert want[0] > 0
        got = F.entropy_with_logits(x, return_grad=True, return_hess=True, grad_output=1e-30)[0]
        np.testing.assert_array_equal(got, want)
        got, _ = F.token_log_prob(x, [0], return_grad=True, grad_output=(1e-30, np.array([1e-30])))
        for one, other in zip(got, tokens, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_smallest_integer_is_no_class():
    x = np.zeros((2, 3))
    with pytest.raises(IndexError, match=r"target\[0\] = -9223372036854775808 is out of range"):
        F.token_log_prob(x, np.array([-(2**63), 1]))


@pytest.mark.parametrize("dtype", WIDE, ids=["float32", "float64"])
@pytest.mark.parametrize(
    "classes, gone",
    [
        (8192, slice(0, 4096)),
        (8192, slice(0, 4095)),
        (200_000, slice(131072, 135168)),
        (300_000, slice(131072, 262144)),
        (300_000, slice(262144, None)),
    ],
    ids=str,
)
def test_entropy_where_parts_of_a_row_are_ruled_out(classes, gone, dtype, rng):
    x = (rng.standard_normal((2, classes)) * 3).astype(dtype)
    mask = np.ones(classes, bool)
    mask[gone] = False
    want = F.entropy_with_logits(np.ascontiguousarray(x[:, mask]))
    few = x.copy()
    few[:, ~mask] = -np.inf
    np.testing.assert_allclose(F.entropy_with_logits(few), want, rtol=1e-6)
    token = F.token_log_prob(few, [5000, 6000])
    np.testing.assert_allclose(token.entropy, want, rtol=1e-6)
    got, grad = F.entropy_with_logits(x, class_mask=mask, return_grad=True)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert np.all(np.isfinite(grad))
    assert np.all(grad[:, ~mask] == 0)


def test_entropy_where_one_logit_is_infinite(rng):
    for shape, axis, place in [((1, 8192), 1, 5000), ((20000, 16), 0, 15000), ((16, 8192), 1, 5)]:
        x = rng.standard_normal(shape).astype(np.float32)
        x[(slice(None),) * axis + (place,)] = np.inf
        np.testing.assert_array_equal(F.entropy_with_logits(x, axis=axis), 0)
    x = rng.standard_normal((20000, 16)).astype(np.float32)
    want = F.entropy_with_logits(x[10000:].copy(), axis=0)
    x[:10000] = -np.inf
    np.testing.assert_allclose(F.entropy_with_logits(x, axis=0), want, rtol=1e-6)
