"""Laws that hold for any input."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import FLOATS, GRAD_BAR, LOSS_BAR, assert_within, ulp

import crossent.functional as F

settings.register_profile(
    "crossent", max_examples=150, deadline=None, derandomize=True, database=None
)
settings.load_profile("crossent")

DTYPES = st.sampled_from(FLOATS)
SHAPES = arrays.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9)


@st.composite
def logits(draw, dtypes=DTYPES, shapes=SHAPES, limit=200):
    """Logits of any type and shape; some drawn apart, most repeated, so that ties are common."""
    dtype, shape = draw(dtypes), draw(shapes)
    elements = st.floats(-limit, limit, width=32)
    return draw(arrays.arrays(np.float32, shape, elements=elements)).astype(dtype)


@st.composite
def problems(draw, **options):
    """Logits and class indices, class axis 1."""
    x = draw(logits(**options))
    y = arrays.arrays(np.int64, x.shape[:1] + x.shape[2:], elements=st.integers(0, x.shape[1] - 1))
    return x, draw(y)


def eps(dtype):
    return float(ulp(1, dtype))


@given(logits(), st.data())
def test_softmax_sums_to_one(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    p = F.softmax(x, axis).astype(np.float64)
    assert np.all(p >= 0)
    assert np.all(p <= 1)
    bound = (GRAD_BAR[x.dtype.name] + 1) * eps(x.dtype) * x.shape[axis]
    np.testing.assert_allclose(np.sum(p, axis=axis), 1, rtol=bound)


@given(logits(), st.data())
def test_log_softmax_is_the_log_of_softmax(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    logp = F.log_softmax(x, axis).astype(np.float64)
    assert np.all(logp <= 0)
    bound = 8 * eps(x.dtype)
    p = F.softmax(x, axis).astype(np.float64)
    tiny = 300 * float(ulp(0, x.dtype)) / eps(x.dtype)
    np.testing.assert_allclose(np.exp(logp), p, rtol=300 * bound, atol=tiny)


@given(problems())
def test_gradient_rows_sum_to_zero(problem):
    x, y = problem
    loss, grad = F.cross_entropy(x, y, reduction="none", return_grad=True)
    assert np.all(loss >= 0)
    bound = (2 * GRAD_BAR[x.dtype.name] + 1) * eps(x.dtype)
    sizes = np.sum(np.abs(grad.astype(np.float64)), axis=1)
    sums = np.abs(np.sum(grad.astype(np.float64), axis=1))
    assert np.all(sums <= bound * sizes + x.shape[1] * float(ulp(0, x.dtype)))
    own = np.take_along_axis(grad.astype(np.float64), y[:, None], 1)
    assert np.all(own <= 0)
    assert np.all(own >= -1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(200_000, 2), (20_000, 150)], ids=str)
def test_no_probability_is_above_one(dtype, shape, rng):
    """Of rows so confident that all of them are 0 and 1 but for a few roundings."""
    x = np.zeros(shape, dtype)
    x[:, -1] = rng.uniform(10, 90, len(x))
    p = F.softmax(x, 1)
    assert p.max() == 1
    assert np.all(F.binary_cross_entropy(p, np.round(p), reduction="none") >= 0)
    for target in (0, shape[1] - 1):
        y = np.full(len(x), target)
        for upstream in (1, -3):
            options = {"reduction": "sum", "return_grad": True, "grad_output": upstream}
            grad = F.cross_entropy(x, y, **options)[1]
            assert np.abs(grad).max() <= abs(upstream)


@given(problems(limit=100), st.integers(-1000, 1000))
def test_a_shift_of_the_row_changes_nothing(problem, shift):
    """Logits in sixteenths, so that the shift is exact."""
    x, y = problem
    x = np.round(x.astype(np.float64) * 16) / 16
    for dtype in (np.float32, np.float64):
        here, there = x.astype(dtype), (x + shift).astype(dtype)
        loss, grad = F.cross_entropy(here, y, reduction="none", return_grad=True)
        moved_loss, moved_grad = F.cross_entropy(there, y, reduction="none", return_grad=True)
        name = np.dtype(dtype).name
        assert_within(moved_loss, loss, 2 * LOSS_BAR[name] + 1)
        assert_within(moved_grad, grad, 2 * GRAD_BAR[name] + 1)


@given(problems(), st.data())
def test_the_order_of_classes_does_not_matter(problem, data):
    x, y = problem
    order = np.array(data.draw(st.permutations(range(x.shape[1]))))
    loss, grad = F.cross_entropy(x, y, reduction="none", return_grad=True)
    renamed = np.argsort(order)[y]
    moved = np.ascontiguousarray(x[:, order])
    moved_loss, moved_grad = F.cross_entropy(moved, renamed, reduction="none", return_grad=True)
    assert_within(moved_loss, loss, 2 * LOSS_BAR[loss.dtype.name] + 1)
    bar = 1.02 if x.dtype.itemsize == 2 else 2 * GRAD_BAR[x.dtype.name] + 1
    assert_within(moved_grad, grad[:, order].astype(np.float64), bar)


@given(problems())
def test_one_hot_probabilities_are_indices(problem):
    x, y = problem
    classes = np.arange(x.shape[1]).reshape(-1, *[1] * (x.ndim - 2))
    onehot = (classes == y[:, None]).astype(x.dtype)
    for reduction in ("none", "sum", "mean"):
        loss, grad = F.cross_entropy(x, y, reduction=reduction, return_grad=True)
        soft_loss, soft_grad = F.cross_entropy(x, onehot, reduction=reduction, return_grad=True)
        bar = 2 * LOSS_BAR[np.asarray(loss).dtype.name] + 2
        assert_within(np.asarray(soft_loss), np.asarray(loss, np.float64), bar)
        bar = 1.02 if x.dtype.itemsize == 2 else 2 * GRAD_BAR[x.dtype.name] + 1
        scale = np.ones(x.shape) / (y.size if reduction == "mean" else 1)
        assert_within(soft_grad, grad.astype(np.float64), bar, scale)


@given(problems())
def test_cross_entropy_is_nll_loss_of_log_softmax(problem):
    x, y = problem
    x = x.astype(np.float64)
    for reduction in ("none", "sum", "mean"):
        loss = F.cross_entropy(x, y, reduction=reduction)
        want = F.nll_loss(F.log_softmax(x, 1), y, reduction=reduction)
        np.testing.assert_allclose(loss, want, rtol=1e-13, atol=1e-300)


@given(problems(), st.floats(0, 1))
def test_smoothing_lies_between_its_ends(problem, smoothing):
    """The loss is linear in label_smoothing."""
    x, y = problem
    x = x.astype(np.float64)
    ends = [F.cross_entropy(x, y, reduction="none", label_smoothing=end) for end in (0.0, 1.0)]
    loss = F.cross_entropy(x, y, reduction="none", label_smoothing=smoothing)
    want = (1 - smoothing) * ends[0] + smoothing * ends[1]
    np.testing.assert_allclose(loss, want, rtol=1e-13, atol=1e-300)
    uniform = np.full(x.shape, 1 / x.shape[1])
    want = F.cross_entropy(x, uniform, reduction="none")
    np.testing.assert_allclose(ends[1], want, rtol=1e-13, atol=1e-300)


@given(problems())
def test_reductions_agree(problem):
    x, y = problem
    x = x.astype(np.float64)
    each, sum_, mean = (F.cross_entropy(x, y, reduction=r) for r in ("none", "sum", "mean"))
    np.testing.assert_allclose(sum_, np.sum(each), rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(mean, np.mean(each), rtol=1e-13, atol=1e-300)


@given(problems(), st.data())
def test_ignoring_a_row_is_leaving_it_out(problem, data):
    x, y = problem
    x, y = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1).reshape(-1, x.shape[1]), y.reshape(-1)
    dead = data.draw(arrays.arrays(bool, y.shape))
    x, y = x.astype(np.float64), np.where(dead, -100, y)
    for reduction in ("sum", "mean"):
        loss, grad = F.cross_entropy(x, y, reduction=reduction, return_grad=True)
        some = (x[~dead], y[~dead])
        want, want_grad = F.cross_entropy(*some, reduction=reduction, return_grad=True)
        np.testing.assert_allclose(loss, want, rtol=1e-13, atol=1e-300)
        np.testing.assert_allclose(grad[~dead], want_grad, rtol=1e-13, atol=1e-300)
        assert np.all(grad[dead] == 0)
