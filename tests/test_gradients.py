"""Gradients against finite differences of the loss, Hessians against those of the gradient."""

import numpy as np
import pytest
import reference
import scipy.special

import crossent.functional as F

UPSTREAM = ["one", "scalar", "array"]
SHAPES = [(5,), (3, 4), (2, 4, 3)]


def upstream_gradient(kind, loss_shape, rng):
    """What loss elements are summed with, and the same as grad_output."""
    if kind == "one":
        return np.ones(loss_shape), None
    if kind == "scalar":
        return np.full(loss_shape, -1.75), -1.75
    array = rng.standard_normal(loss_shape)
    return array, array


def differences(function, x, step):
    """Central differences of a function of an array, one element at a time."""
    slopes = []
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        slopes.append((function(up, index) - function(down, index)) / (up[index] - down[index]))
    return np.array(slopes).reshape(x.shape)


def check_gradient(loss_of, exact_loss_of, x, upstream, got_grad):
    """The gradient is the slope of the reference's loss, and the library's loss is that loss."""
    np.testing.assert_allclose(
        np.asarray(loss_of(x), np.float64),
        np.asarray(exact_loss_of(x), np.float64),
        rtol=1e-13,
        atol=1e-15,
    )
    wide = x.astype(np.longdouble)
    by_reference = differences(lambda v, _: np.sum(upstream * exact_loss_of(v)), wide, 2.0**-20)
    np.testing.assert_allclose(got_grad, by_reference.astype(np.float64), rtol=1e-9, atol=1e-10)
    by_library = differences(lambda v, _: np.sum(upstream * loss_of(v)), x, 2.0**-17)
    np.testing.assert_allclose(got_grad, by_library, rtol=1e-6, atol=1e-8)


def loss_shape_of(shape, reduction):
    return (shape[:1] + shape[2:] if len(shape) > 1 else ()) if reduction == "none" else ()


@pytest.mark.gradient("cross_entropy")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("target", ["index", "ignored", "probabilities", "positive"])
@pytest.mark.parametrize("upstream", UPSTREAM)
def test_cross_entropy(shape, reduction, weighted, smoothing, target, upstream, rng):
    classes = shape[0] if len(shape) == 1 else shape[1]
    x = rng.standard_normal(shape) * 2
    options = {
        "reduction": reduction,
        "weight": rng.uniform(0.3, 2, classes) if weighted else None,
        "label_smoothing": smoothing,
    }
    if target in ("index", "ignored"):
        y = np.asarray(rng.integers(0, classes, loss_shape_of(shape, "none")))
        if target == "ignored":
            options["ignore_index"] = 1
            y.flat[0] = 0
            y.flat[1 : max(1, y.size // 2)] = 1
    elif target == "probabilities":
        y = scipy.special.softmax(rng.standard_normal(shape), axis=0 if len(shape) == 1 else 1)
    else:
        y = rng.uniform(0, 3, shape)
    factor, grad_output = upstream_gradient(upstream, loss_shape_of(shape, reduction), rng)

    _, grad, hess = F.cross_entropy(
        x, y, return_grad=True, return_hess=True, grad_output=grad_output, **options
    )
    check_gradient(
        lambda v: F.cross_entropy(v, y, **options),
        lambda v: wide_cross_entropy(v, y, **options),
        x,
        factor,
        grad,
    )

    def slope(v, index):
        settings = {"return_grad": True, "grad_output": grad_output, **options}
        return F.cross_entropy(v, y, **settings)[1][index]

    np.testing.assert_allclose(hess, differences(slope, x, 2.0**-17), rtol=1e-6, atol=1e-8)
    alone = F.cross_entropy(x, y, return_hess=True, grad_output=grad_output, **options)
    np.testing.assert_allclose(alone[1], hess, rtol=1e-14)


def wide_cross_entropy(x, y, weight, reduction, label_smoothing, ignore_index=-100):
    """The loss of long double logits by the textbook formula, which differences need."""
    axis = reference.class_axis(x.ndim)
    logp = np.moveaxis(x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True)), axis, -1)
    classes = logp.shape[-1]
    w = np.ones(classes) if weight is None else weight
    if y.dtype.kind in "iu":
        live = y != ignore_index
        own = np.where(live, w[y], 0)
        picked = np.take_along_axis(logp, y[..., None], -1)[..., 0]
        smooth = np.where(live, np.sum(w * logp, axis=-1), 0) / classes
        losses = -(1 - label_smoothing) * own * picked - label_smoothing * smooth
        count = np.sum(own)
    else:
        q = np.moveaxis(y, axis, -1) * (1 - label_smoothing) + label_smoothing / classes
        losses = -np.sum(w * q * logp, axis=-1)
        count = losses.size
    return {"none": losses, "sum": np.sum(losses), "mean": np.sum(losses) / count}[reduction]


@pytest.mark.gradient("nll_loss")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize("upstream", UPSTREAM)
def test_nll_loss(shape, reduction, weighted, ignore_index, upstream, rng):
    axis = reference.class_axis(len(shape))
    classes = shape[axis]
    x = scipy.special.log_softmax(rng.standard_normal(shape), axis)
    y = np.asarray(rng.integers(0, classes, loss_shape_of(shape, "none")))
    y.flat[0] = 0
    weight = rng.uniform(0.3, 2, classes) if weighted else None
    options = {"reduction": reduction, "weight": weight, "ignore_index": ignore_index}
    factor, grad_output = upstream_gradient(upstream, loss_shape_of(shape, reduction), rng)

    def exact(v):
        own = np.where(y == ignore_index, 0, 1.0 if weight is None else weight[y])
        losses = -own * np.take_along_axis(np.moveaxis(v, axis, -1), y[..., None], -1)[..., 0]
        total = np.sum(losses)
        return {"none": losses, "sum": total, "mean": total / np.sum(own)}[reduction]

    _, grad = F.nll_loss(x, y, return_grad=True, grad_output=grad_output, **options)
    check_gradient(lambda v: F.nll_loss(v, y, **options), exact, x, factor, grad)
