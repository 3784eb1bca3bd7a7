"""The numbers: errors in ulp against 60 digits, and the cases where others answer 0, inf or NaN."""

import functools
import math

import numpy as np
import pytest
import reference
import scipy.special
from mpmath import mp
from reference import assert_result, assert_within, terms

import crossent.functional as F

INF, NAN = np.inf, np.nan
SINGLE_AND_DOUBLE = [np.dtype(np.float32), np.dtype(np.float64)]
WIDE_TYPES = pytest.mark.parametrize("dtype", SINGLE_AND_DOUBLE, ids=str)
ALL_TYPES = pytest.mark.parametrize("dtype", reference.FLOATS, ids=str)

# How many rows of each kind to draw, by the number of classes.
ROWS = {2: 40, 3: 40, 10: 20, 17: 20, 1000: 4, 50257: 1}


# Rows and their exact terms, drawn once for all the tests below


def _spread(rng, count, classes):
    x = rng.standard_normal((count, classes))
    scales = np.geomspace(0.1, 100, count)
    return x * scales[:, None], rng.integers(0, classes, count)


def _confident(rng, count, classes):
    """The target leads by 5 to 90."""
    x = rng.standard_normal((count, classes))
    y = rng.integers(0, classes, count)
    gaps = np.linspace(5, 90, count) if count > 1 else np.array([25.0])
    x[np.arange(count), y] = np.max(x, axis=1) + gaps
    return x, y


def _unconfident(rng, count, classes):
    """Another class leads by 5 to 90; the target is the lowest of all."""
    x, _ = _confident(rng, count, classes)
    y = np.argmin(x, axis=1)
    return x, y


def _ties(rng, count, classes):
    """Several classes at the top, the target among them in every second row."""
    x = rng.standard_normal((count, classes)) * 4
    y = rng.integers(0, classes, count)
    for row in range(count):
        ties = rng.permutation(classes)[: rng.integers(2, min(classes, 9) + 1)]
        x[row, ties] = np.max(x[row]) + rng.uniform(0, 30)
        if row % 2:
            y[row] = ties[0]
    return x, y


def _shifted(rng, count, classes):
    """Whole rows moved by up to 1e8 either way."""
    x = rng.standard_normal((count, classes)) * 10
    sizes = np.geomspace(10, 1e8, count) if count > 1 else np.array([3000.0])
    return x + (sizes * rng.choice([-1, 1], count))[:, None], rng.integers(0, classes, count)


KINDS = {
    "spread": _spread,
    "confident": _confident,
    "unconfident": _unconfident,
    "ties": _ties,
    "shifted": _shifted,
}


@functools.cache
def rows(kind, classes, dtype):
    """(logits, targets, exact terms) of one kind."""
    rng = np.random.default_rng([classes, dtype.itemsize, *kind.encode()])
    # Every spread also of the most classes, which take long.
    count = max(ROWS[classes], 4) if kind == "spread" else ROWS[classes]
    x, y = KINDS[kind](rng, count, classes)
    x = x.astype(dtype)
    return x, y, reference.exact_terms(x)


EVERY_ROW = [(kind, classes) for classes in ROWS for kind in KINDS]


def check(what, where, x, target, worst, known=None, **options):
    """Loss, gradient and Hessian of every row, within the bars."""
    options.setdefault("reduction", "none")
    got = F.cross_entropy(x, target, return_grad=True, return_hess=True, **options)
    want = reference.cross_entropy(x, target, known=known, **options)
    errors = assert_result(got, want, what)
    for name, error in zip(("loss", "gradient", "Hessian"), errors, strict=True):
        worst(f"{x.dtype!s:8}  {name:8}  {what}", where, error)
    alone = F.cross_entropy(x, target, **options)
    assert_within(alone, want.loss, reference.LOSS_BAR[np.asarray(alone).dtype.name], what=what)


@WIDE_TYPES
@pytest.mark.parametrize("kind, classes", EVERY_ROW)
def test_index_targets(kind, classes, dtype, worst):
    x, y, found = rows(kind, classes, dtype)
    where = f"{kind}, {classes} classes"
    check("index target", where, x, y, worst, found)
    check("index target", where, x, np.argmax(x, axis=1), worst, found)


@WIDE_TYPES
@pytest.mark.parametrize("kind, classes", EVERY_ROW)
def test_probability_targets(kind, classes, dtype, worst, rng):
    x, y, found = rows(kind, classes, dtype)
    where = f"{kind}, {classes} classes"
    drawn = scipy.special.softmax(rng.standard_normal(x.shape) * 3, axis=1).astype(dtype)
    check("probabilities", where, x, drawn, worst, found)
    onehot = (np.arange(classes) == y[:, None]).astype(dtype)
    check("one-hot probabilities", where, x, onehot, worst, found)


@WIDE_TYPES
@pytest.mark.parametrize("kind, classes", EVERY_ROW)
def test_smoothing_and_weights(kind, classes, dtype, worst, rng):
    x, y, found = rows(kind, classes, dtype)
    where = f"{kind}, {classes} classes"
    weight = rng.uniform(0.1, 3, classes).astype(dtype)
    check("class weights", where, x, y, worst, found, weight=weight)
    check("smoothing", where, x, y, worst, found, label_smoothing=0.1)
    both = {"weight": weight, "label_smoothing": 0.25}
    check("smoothing and weights", where, x, y, worst, found, **both)


@WIDE_TYPES
@pytest.mark.parametrize("target", ["index", "probabilities"])
@pytest.mark.parametrize("weights", [None, np.float32, np.float64], ids=["", "32", "64"])
@pytest.mark.parametrize("smoothing", [0, 0.1, 0.389])
def test_masses_of_every_kind(target, weights, smoothing, dtype, worst, rng):
    """Many rows of few classes, where roundings meet without averaging out."""
    for classes in (2, 3, 10):
        x = (rng.standard_normal((20_000, classes)) * 3).astype(dtype)
        if target == "index":
            y = rng.integers(0, classes, len(x))
        else:
            y = rng.dirichlet(np.ones(classes), len(x)).astype(dtype)
        weight = None if weights is None else rng.uniform(0.1, 3, classes).astype(weights)
        options = {"weight": weight, "label_smoothing": smoothing}
        check(f"masses, {target}", f"{classes} classes", x, y, worst, **options)


@pytest.mark.parametrize("scale", [1e-46, 1e-42, 1e39])
@pytest.mark.parametrize("target", ["index", "probabilities"])
def test_weights_that_float32_cannot_hold(scale, target, rng):
    x = rng.standard_normal((50, 3)).astype(np.float32)
    y = rng.integers(0, 3, 50) if target == "index" else rng.dirichlet(np.ones(3), 50)
    for smoothing in (0, 0.1):
        options = {"weight": np.full(3, scale), "label_smoothing": smoothing}
        if target == "probabilities":
            # Here the mean divides by the number of rows.
            options["weight"] = options["weight"] / scale * min(scale, 1e30)
        got = F.cross_entropy(x, y, return_grad=True, **options)
        assert_result(got, reference.cross_entropy(x, y, **options))


@pytest.mark.parametrize("classes", [90, 700, 5000, 50257])
@pytest.mark.parametrize("before", [-20, 0, 5, 10.9])
def test_losses_that_are_hardly_numbers(classes, before, rng):
    """Terms below the smallest float add up to one; the row before sets another unit."""
    leads = [85, 95, 100, 104, 106, 108]
    x = (rng.standard_normal((2 * len(leads), classes)) * 0.01).astype(np.float32)
    x[0::2, 0] = np.add(leads, before)
    x[1::2, 0] = leads
    y = np.zeros(len(x), int)
    want = reference.cross_entropy(x, y, reduction="none")
    for rows, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        alone = F.cross_entropy(rows, y, reduction="none", axis=axis)
        loss = F.cross_entropy(rows, y, reduction="none", axis=axis, return_grad=True)[0]
        assert_within(alone, want.loss, 2)
        assert_within(loss, want.loss, 2)


@pytest.mark.parametrize("gap", [715.0, 740.0, 760.0])
def test_hessian_of_odds_that_are_hardly_numbers(gap):
    x, y = np.array([[0.0, -gap]]), np.array([0])
    options = {"reduction": "sum", "grad_output": 1e15}
    got = F.cross_entropy(x, y, return_grad=True, return_hess=True, **options)
    # Not the loss, which knows no upstream gradient.
    want = mp.mpf(10) ** 15 * mp.exp(-gap)
    for values, signs in ((got[1], (-1, 1)), (got[2], (1, 1))):
        assert_within(values, np.array([[float(sign * want) for sign in signs]]), 8)


@WIDE_TYPES
@pytest.mark.parametrize("kind, classes", [pair for pair in EVERY_ROW if pair[1] <= 1000])
def test_softmax_of_the_same_rows(kind, classes, dtype, worst):
    x, _, found = rows(kind, classes, dtype)
    where = f"{kind}, {classes} classes"
    bar = reference.SOFTMAX_BAR[dtype.name]
    for name, want in (("softmax", found.p), ("log_softmax", -found.neglogp)):
        function = getattr(F, name)
        error = max(
            assert_within(function(x, 1), want, bar), assert_within(function(x.T, 0), want.T, bar)
        )
        worst(f"{dtype!s:8}  {name}", where, error)


@WIDE_TYPES
@pytest.mark.parametrize("classes", [2, 3, 10, 17, 1000])
def test_classes_first(classes, dtype, worst):
    """The same rows with the class axis first: the other traversal."""
    for kind in KINDS:
        x, y, found = rows(kind, classes, dtype)
        flipped = np.ascontiguousarray(x.T)
        where = f"{kind}, {classes} classes"
        check("classes first", where, flipped, y, worst, found, axis=0)
        smoothing = {"label_smoothing": 0.1}
        check("classes first, smoothing", where, flipped, y, worst, found, axis=0, **smoothing)


@WIDE_TYPES
@pytest.mark.parametrize("gap", [0.5, 5, 16, 17, 20, 36, 37, 38, 60, 88, 90, 100, 103])
def test_two_classes_at_a_gap(gap, dtype, worst):
    """A confident row far below eps: loss and gradient are exp(-gap), in full precision."""
    x = np.array([[gap, 0], [0, gap], [-gap, 0]], dtype)
    y = np.array([0, 0, 1])
    want = reference.cross_entropy(x, y, reduction="none", known=reference.exact_terms(x))
    got = F.cross_entropy(x, y, reduction="none", return_grad=True, return_hess=True)
    errors = assert_result(got, want)
    worst(f"{dtype!s:8}  loss      two classes at a gap", f"gap {gap}", errors[0])
    worst(f"{dtype!s:8}  gradient  two classes at a gap", f"gap {gap}", errors[1])


@pytest.mark.parametrize("gap", [200, 500, 700, 708, 720, 740, 745])
def test_two_classes_at_a_gap_that_only_float64_holds(gap):
    x = np.array([[gap, 0.0], [0.0, gap]])
    y = np.array([0, 1])
    want = reference.cross_entropy(x, y, reduction="none", known=reference.exact_terms(x))
    got = F.cross_entropy(x, y, reduction="none", return_grad=True, return_hess=True)
    assert_result(got, want)


# What exponentials and the factor of a gradient leave to each other's range: by class weights whose
# products with them are numbers still.
WEIGHTS = {"float32": [-126, -90, -40, 40, 90], "float64": [-1000, -600, -400, 400, 900]}


@ALL_TYPES
@pytest.mark.parametrize("shape", [(2, 3), (40, 2), (40, 7), (3, 300), (2, 5000)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["index", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_of_any_size(dtype, shape, soft, smoothing, rng):
    rows, classes = shape
    x = rng.normal(size=shape).astype(dtype)
    y = (
        rng.dirichlet(np.ones(classes), rows).astype(dtype)
        if soft
        else rng.integers(0, classes, rows)
    )
    kind = "float64" if dtype == np.float64 else "float32"
    for power in WEIGHTS[kind]:
        weight = np.ldexp(rng.uniform(1, 2, classes), power).astype(kind)
        options = {"weight": weight, "reduction": "none", "label_smoothing": smoothing}
        got = F.cross_entropy(x, y, return_grad=True, return_hess=True, **options)
        assert_result(got, reference.cross_entropy(x, y, **options))


@pytest.mark.parametrize("shape", [(2, 3), (40, 2), (40, 7), (3, 300), (2, 5000)], ids=str)
@pytest.mark.parametrize("dtype", [reference.BFLOAT16, np.dtype(np.float32)], ids=str)
def test_masses_of_any_size(dtype, shape, rng):
    x = rng.normal(size=shape).astype(dtype)
    for powers in [(-125, -100), (-100, -60), (-125, 0)]:
        rows = np.linspace(*powers, shape[0]).astype(int)[:, None]
        t = np.ldexp(rng.uniform(0.5, 1, shape), rows).astype(dtype)
        got = F.cross_entropy(x, t, reduction="none", return_grad=True, return_hess=True)
        assert_result(got, reference.cross_entropy(x, t, reduction="none"))
        # Weights call for room that masses of next to nothing then do not need.
        for power in [20, 50]:
            weight = np.ldexp(rng.uniform(1, 2, shape[1]), power).astype(np.float32)
            options = {"weight": weight, "reduction": "none"}
            light = np.ldexp(t.astype(np.float32), -power if powers[1] < 0 else 0)
            got = F.cross_entropy(x, light, return_grad=True, return_hess=True, **options)
            assert_result(got, reference.cross_entropy(x, light, **options))


@WIDE_TYPES
def test_class_weights_of_every_size_at_once(dtype, rng):
    low, high = (-120, 90) if dtype == np.float32 else (-1000, 900)
    weight = np.ldexp(1.0, np.linspace(low, high, 20).astype(int)).astype(dtype)
    x, y = rng.normal(size=(100, 20)).astype(dtype), np.arange(100) % 20
    options = {"weight": weight, "reduction": "none"}
    got = F.cross_entropy(x, y, return_grad=True, return_hess=True, **options)
    assert_result(got, reference.cross_entropy(x, y, **options))


# The table of special cases


def test_confident_row_of_two():
    loss, grad = F.cross_entropy(
        np.array([20, 0], np.float32), np.array(0), return_grad=True, reduction="sum"
    )
    want = mp.log1p(mp.exp(-20))
    slope = mp.exp(-20) / (1 + mp.exp(-20))
    assert abs(mp.mpf(float(loss)) / want - 1) < 2.0**-22
    assert loss == pytest.approx(2.0611537e-9, rel=1e-6)
    assert abs(mp.mpf(float(grad[1])) / slope - 1) < 2.0**-20
    assert grad[0] == -grad[1] or abs(float(grad[0] + grad[1])) < 1e-15
    assert np.max(np.abs(grad / np.float32(2.0611537e-9) - [-1, 1])) < 1e-6


@pytest.mark.parametrize("size", [1e8, -1e8, 1e30, 3e38])
def test_four_equal_large_logits(size):
    x = np.full((2, 4), size, np.float32)
    loss, grad = F.cross_entropy(x, np.array([0, 3]), return_grad=True, reduction="none")
    assert_within(loss, np.full(2, np.log(np.longdouble(4))), 2)
    want = np.full((2, 4), 0.25)
    want[0, 0] = want[1, 3] = -0.75
    assert_within(grad, want, 6)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "dtype, share", [(np.float32, 0.25), (np.float64, 0.25), (np.float32, 1e-9)]
)
def test_large_logits_far_from_each_other_in_memory(dtype, share, axis, rng):
    """Parts of a row are summarised apart, each by a unit near its own maximum."""
    largest = float(np.finfo(dtype).max) * share
    x = np.zeros((3, 9000), dtype)
    x[:, 1215], x[:, 6205], x[:, 8000] = 0.998 * largest, largest, -largest
    x[1] *= -1
    x[2] = rng.permutation(np.geomspace(1e-30, largest, 9000)).astype(dtype)
    y = x.argmax(axis=1)
    x = np.ascontiguousarray(x.T) if axis == 0 else x
    assert np.array_equal(F.cross_entropy(x, y, axis=axis, reduction="none"), [0, 0, 0])
    assert np.array_equal(F.logsumexp(x, axis=axis), x.max(axis=axis))
    assert np.array_equal(F.entropy_with_logits(x, axis=axis), [0, 0, 0])
    assert np.array_equal(F.softmax(x, axis=axis).sum(axis=axis), [1, 1, 1])


@WIDE_TYPES
@pytest.mark.parametrize("classes", [2, 3, 10, 300, 5000])
def test_logsumexp(dtype, classes, rng, worst):
    for spread in (1, 4, 30):
        # About 0, too, where the largest and the rest cancel.
        for at in (0, -1, -8):
            x = (rng.standard_normal((20000 // classes + 2, classes)) * spread + at).astype(dtype)
            want = reference.logsumexp(x, 1)
            scale = np.maximum(np.abs(want), np.abs(x.max(axis=1)))
            bar = 2 if dtype == np.float32 else 4
            error = assert_within(F.logsumexp(x, 1), want, bar, scale)
            worst(f"{dtype.name:9} logsumexp", f"{classes} classes", error)


def test_losses_near_the_largest_float64():
    """Where products are split in two, the halves of such numbers overflow."""
    x = np.array([[0.0, 8e307, 1.0], [-8e307, 3e303, 5e302]])
    t = np.array([[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]])
    got = F.cross_entropy(x, t, reduction="none", label_smoothing=0.1)
    q = 0.9 * t + 0.1 / 3
    want = np.sum(q * (x.max(axis=1, keepdims=True) - x), axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-15)


@ALL_TYPES
def test_masked_logits_off_the_target(dtype):
    x = np.array([[1, -INF, 2, 0], [-INF, 3, -INF, -INF]], dtype)
    y = np.array([2, 1])
    want = reference.cross_entropy(np.array([1.0, 2, 0]), np.array(1))
    got = F.cross_entropy(x, y, reduction="none", return_grad=True)
    assert_within(got[0], np.array([want.loss, 0]), 2)
    assert got[1][0, 1] == 0
    assert np.all(got[1][1] == 0)
    bar = reference.GRAD_BAR[dtype.name]
    assert_within(got[1][0, [0, 2, 3]], want.grad, bar)


@WIDE_TYPES
def test_masked_logit_at_the_target(dtype):
    x = np.array([[1, -INF, 2]], dtype)
    loss, grad = F.cross_entropy(x, np.array([1]), reduction="none", return_grad=True)
    want = reference.cross_entropy(np.array([1.0, 2]), np.array(0))
    p = 1 + want.grad[0]
    assert loss[0] == INF
    assert_within(grad, np.array([[p, -1, want.grad[1]]]), 8)


@WIDE_TYPES
def test_zero_probability_on_a_masked_logit(dtype):
    x = np.array([[1, -INF, 2]], dtype)
    q = np.array([[0.25, 0, 0.75]], dtype)
    want = reference.cross_entropy(np.array([1.0, 2]), np.array([0.25, 0.75]))
    loss, grad = F.cross_entropy(x, q, return_grad=True)
    assert_within(np.asarray(loss), want.loss, 3)
    assert grad[0, 1] == 0
    assert_within(grad[0, [0, 2]], want.grad, 8, want.scale)


@WIDE_TYPES
def test_positive_probability_on_a_masked_logit(dtype):
    x = np.array([[1, -INF, 2]], dtype)
    loss = F.cross_entropy(x, np.array([[0.25, 0.25, 0.5]], dtype))
    assert loss == INF


@WIDE_TYPES
def test_zero_class_weight_on_a_masked_target(dtype):
    x = np.array([[1, -INF, 2], [0, 0, 0]], dtype)
    weight = np.array([1, 0, 1], dtype)
    loss, grad = F.cross_entropy(x, np.array([1, 0]), weight, return_grad=True)
    assert_within(np.asarray(loss), np.log(np.longdouble(3)), 3)
    assert np.all(grad[0] == 0)
    assert_within(grad[1], np.array([-2, 1, 1], np.longdouble) / 3, 8)
    loss, grad = F.nll_loss(x, np.array([1, 0]), weight, return_grad=True)
    assert loss == 0
    assert np.array_equal(grad, [[0, 0, 0], [-1, 0, 0]])


@ALL_TYPES
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("axis", [0, 1])
def test_nonfinite_values_in_ignored_rows(dtype, reduction, bad, axis, rng):
    """They stay out of the loss, and the gradient there is exactly 0."""
    x = rng.standard_normal((9, 40)).astype(dtype)
    y = rng.integers(0, 40, 9)
    dead = np.array([0, 3, 8])
    y[dead] = -100
    clean = x.copy()
    x[0] = bad
    x[3, 17] = bad
    x[8, 0] = bad
    if axis == 0:
        x, clean = np.ascontiguousarray(x.T), np.ascontiguousarray(clean.T)
    options = {"reduction": reduction, "axis": axis, "label_smoothing": 0.1}
    want = reference.cross_entropy(clean, y, **options)
    got = F.cross_entropy(x, y, return_grad=True, return_hess=True, **options)
    assert_result(got, want)
    for derivative in got[1:]:
        assert np.all(np.take(derivative, dead, 1 - axis) == 0)
    loss, grad = F.nll_loss(x, y, reduction=reduction, axis=axis, return_grad=True)
    want = reference.nll_loss(clean, y, reduction=reduction, axis=axis)
    assert_within(np.asarray(loss), want.loss, 10)
    assert np.all(np.take(grad, dead, 1 - axis) == 0)


@ALL_TYPES
def test_nan_in_a_live_row_at_any_position(dtype, rng):
    for classes in (1, 2, 3, 8, 17, 33, 130):
        y = rng.integers(0, classes, 3)
        q = np.full((3, classes), 1 / classes).astype(dtype)
        for position in range(classes):
            x = rng.standard_normal((3, classes)).astype(dtype)
            x[1, position] = NAN
            flipped = np.ascontiguousarray(x.T)
            for arguments in ((x, y), (x, q)):
                got = F.cross_entropy(*arguments, reduction="none", return_grad=True)
                assert np.array_equal(np.isnan(got[0]), [False, True, False])
                assert np.all(np.isnan(got[1][1]))
                assert np.all(np.isfinite(got[1][[0, 2]]))
                assert np.isnan(F.cross_entropy(*arguments))
            got = F.cross_entropy(flipped, y, reduction="none", return_grad=True, axis=0)
            assert np.array_equal(np.isnan(got[0]), [False, True, False])
            assert np.all(np.isnan(got[1][:, 1]))
            assert np.all(np.isfinite(got[1][:, [0, 2]]))


@ALL_TYPES
@pytest.mark.parametrize("other", [1.0, -INF, 300.0])
def test_one_positive_infinity_is_the_limit(dtype, other, rng):
    for classes in (2, 3, 17, 40):
        x = rng.standard_normal((2, classes)).astype(dtype)
        x[:, 0] = other
        x[:, 1] = INF
        want = np.zeros((2, classes))
        want[1, 1], want[1, 0] = 1, -1
        for logits, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
            loss, grad, hess = F.cross_entropy(
                logits,
                np.array([1, 0]),
                reduction="none",
                axis=axis,
                return_grad=True,
                return_hess=True,
            )
            assert np.array_equal(loss, [0, INF])
            assert np.array_equal(grad, want if axis == 1 else want.T)
            assert np.all(hess == 0)
        onehot = (np.arange(classes) == np.array([[1], [0]])).astype(dtype)
        loss, grad = F.cross_entropy(x, onehot, reduction="none", return_grad=True)
        assert np.array_equal(loss, [0, INF])
        assert np.array_equal(grad, want)


@WIDE_TYPES
def test_two_positive_infinities_are_undefined(dtype):
    x = np.array([[INF, 1, INF], [0, 0, 0]], dtype)
    for y in (0, 1, 2):
        loss, grad = F.cross_entropy(x, np.array([y, 0]), reduction="none", return_grad=True)
        assert np.isnan(loss[0])
        assert np.all(np.isnan(grad[0]))
        assert_within(loss[1:], np.full(1, np.log(np.longdouble(3))), 3)


@WIDE_TYPES
def test_nothing_but_negative_infinity_is_undefined(dtype):
    x = np.full((1, 5), -INF, dtype)
    loss, grad = F.cross_entropy(x, np.array([2]), return_grad=True)
    assert np.isnan(loss)
    assert np.all(np.isnan(grad))


def test_half_precision_mean_over_many_rows():
    """A float16 sum would overflow; a float32 sum would drift."""
    for dtype in (np.float16, reference.BFLOAT16):
        x = np.zeros((20000, 1000), dtype)
        y = np.arange(20000) % 1000
        loss, grad = F.cross_entropy(x, y, return_grad=True)
        assert loss.dtype == np.float32
        assert_within(np.asarray(loss), np.log(np.longdouble(1000)), 2)
        assert loss == pytest.approx(6.9077554, abs=1e-6)
        want = (np.longdouble(0.001) - (np.arange(1000) == y[:3, None])) / 20000
        assert_within(grad[:3], want, 0.51)


@pytest.mark.parametrize("reduction, want", [("mean", NAN), ("sum", 0.0)])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_nothing_counts(name, reduction, want):
    function = getattr(F, name)
    for x, y in (
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64)),
        (np.ones((4, 3), np.float32), np.full(4, -100)),
        (np.full((4, 3), NAN, np.float32), np.full(4, -100)),
    ):
        loss, grad = function(x, y, reduction=reduction, return_grad=True)
        assert isinstance(loss, np.float32)
        assert np.array_equal(loss, want, equal_nan=True)
        assert grad.shape == x.shape
        assert np.all(grad == 0)


# 16-bit input, reductions, and large sums


@pytest.mark.parametrize("dtype", reference.FLOATS[:2], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 17, 1000, 50257])
def test_16_bit_input(dtype, classes, worst, rng):
    """The loss is float32 and the gradient is rounded once."""
    count = 10 if classes <= 1000 else 2
    for scale in (0.1, 3, 30):
        where = f"spread {scale}, {classes} classes"
        x = (rng.standard_normal((count, classes)) * scale).astype(dtype)
        y = rng.integers(0, classes, count)
        y[::2] = np.argmax(x[::2].astype(np.float32), axis=1)
        check("index target", where, x, y, worst)
        check("index target, mean", where, x, y, worst, reduction="mean")
        check("smoothing", where, x, y, worst, label_smoothing=0.1)
        drawn = scipy.special.softmax(rng.standard_normal(x.shape), axis=1).astype(dtype)
        check("probabilities", where, x, drawn, worst)


@pytest.mark.parametrize("dtype", reference.FLOATS, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(3000, 7), (300, 129), (4, 5, 40, 30)], ids=str)
def test_reduced_losses(dtype, reduction, shape, worst, rng):
    """Added in float64: the sum of many rows is as good as each of them."""
    x = (rng.standard_normal(shape) * 4).astype(dtype)
    y = rng.integers(0, shape[1], shape[:1] + shape[2:])
    y[0] = -100
    weight = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    bar = 2 if dtype != np.float64 else 3
    for options in ({}, {"weight": weight}, {"weight": weight, "label_smoothing": 0.1}):
        got = F.cross_entropy(x, y, reduction=reduction, return_grad=True, **options)
        want = reference.cross_entropy(x, y, reduction=reduction, **options)
        error = assert_within(np.asarray(got[0]), want.loss, bar)
        worst(f"{dtype!s:8}  loss      {reduction} of many rows", str(shape), error)
        assert_within(got[1], want.grad, reference.GRAD_BAR[dtype.name], want.scale)


@WIDE_TYPES
def test_upstream_gradient_scales_every_row(dtype, worst, rng):
    x = (rng.standard_normal((50, 30)) * 5).astype(dtype)
    y = rng.integers(0, 30, 50)
    upstream = rng.standard_normal(50).astype(dtype)
    upstream[4] = 0
    check("upstream gradient", "", x, y, worst, grad_output=upstream)
    check("upstream gradient", "", x, y, worst, grad_output=-3.0)
    check("upstream gradient", "", x, y, worst, grad_output=0.125, reduction="mean")


@WIDE_TYPES
def test_probabilities_of_another_type(dtype, rng):
    """float64 targets of float32 logits, and the other way round."""
    other = np.float64 if dtype == np.float32 else np.float32
    x = rng.standard_normal((6, 9)).astype(dtype)
    q = scipy.special.softmax(rng.standard_normal((6, 9)), axis=1).astype(other)
    loss, grad = F.cross_entropy(x, q, reduction="none", return_grad=True)
    want = reference.cross_entropy(x, q, reduction="none")
    assert loss.dtype == dtype
    assert grad.dtype == dtype
    assert_within(loss, want.loss, 3)
    assert_within(grad, want.grad, 8, want.scale)


def test_terms_of_infinite_rows():
    """The reference itself takes the limit."""
    found = terms(np.array([[INF, 0], [INF, INF]], np.longdouble))
    assert np.array_equal(found.p[0], [1, 0])
    assert np.array_equal(found.neglogp[0], [0, INF])
    assert np.all(np.isnan(found.p[1]))
    assert math.isclose(float(terms(np.zeros((1, 4), np.longdouble)).p[0, 0]), 0.25)


@WIDE_TYPES
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("upstream", [1e-20, 1e-6, 0.0, 1e10])
def test_the_upstream_gradient_is_no_matter_to_the_loss(dtype, reduction, upstream, rng):
    x = np.zeros((3, 200), dtype)
    x[:, 1:] = -85 + rng.standard_normal((3, 199))
    x[2] = rng.standard_normal(200)
    y = np.array([0, 0, 5])
    for options in ({}, {"label_smoothing": 0.1}):
        for rows in (slice(0, 2), slice(2, 3)):
            settings = {"reduction": reduction, **options}
            want = reference.cross_entropy(x[rows], y[rows], grad_output=upstream, **settings)
            given = {"return_grad": True, "grad_output": upstream}
            for target, logits, axis in ((y, x[rows], 1), (y, np.ascontiguousarray(x[rows].T), 0)):
                loss, grad = F.cross_entropy(logits, target[rows], axis=axis, **given, **settings)
                assert_within(np.asarray(loss), want.loss, 3)
                scale = want.scale + float(reference.ulp(0, dtype))
                got = grad if axis == 1 else grad.T
                assert_within(got, want.grad, 9, scale)
