"""Slow, obvious references, and the ruler that results are measured with.

Two references share one formula. Both start from three terms of a row of logits, none of which
cancels: the probability p, its complement 1 - p, and -log p. `exact=True` computes the terms with
mpmath at 60 digits, one number at a time; otherwise they come from NumPy's long double, which holds
11 bits more than float64 where the tests are meant to run (x86-64: 80 bits; AArch64: 128 bits), so
that its rounding is below 0.1 ulp of float64. `test_reference.py` holds the two against each other.

Losses and gradients are then sums and products of these terms, in long double.
"""

from collections import namedtuple

import ml_dtypes
import numpy as np
from mpmath import mp

mp.dps = 60

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]

# Error bars in ulp, by the type of the result. A 16-bit gradient is a float32 result rounded once.
LOSS_BAR = {"float32": 2.0, "float64": 3.0}
GRAD_BAR = {"float16": 0.51, "bfloat16": 0.51, "float32": 6.0, "float64": 8.0}
HESS_BAR = GRAD_BAR
SOFTMAX_BAR = {"float16": 0.51, "bfloat16": 0.51, "float32": 4.0, "float64": 4.0}

Result = namedtuple("Result", "loss grad hess scale")
Terms = namedtuple("Terms", "p rest neglogp")  # probability, 1 - probability, -log(probability)


# The ruler


def native(dtype):
    """The type in this machine's byte order."""
    return np.dtype(dtype).newbyteorder("=")


def finfo(dtype):
    return ml_dtypes.finfo(native(dtype))


def ulp(value, dtype):
    """The spacing of `dtype` at `value`; below the normal range, the subnormal spacing."""
    info = finfo(dtype)
    digits = info.nmant
    smallest = round(np.log2(float(info.smallest_normal)))
    value = np.abs(np.asarray(value, np.longdouble))
    exponent = np.frexp(np.where(np.isfinite(value), value, 0))[1] - 1
    exponent = np.where(value == 0, smallest, np.maximum(exponent, smallest))
    return np.ldexp(np.longdouble(1), exponent - digits)


def ulp_errors(got, exact, scale=None):
    """How far `got` is from `exact`, in ulp of its own type at `exact`, or at `scale` if larger.

    A NaN is right where a NaN is due, and an infinity where one is due or where the exact value is
    beyond the largest number; anything else that is not finite is infinitely far. So is the largest
    number from what rounds to infinity.
    """
    got = np.asarray(got)
    dtype = got.dtype
    exact = np.asarray(exact, np.longdouble)
    assert got.shape == exact.shape
    got = got.astype(np.float64).astype(np.longdouble)
    largest = np.longdouble(float(finfo(dtype).max))
    beyond = np.isfinite(exact) & (np.abs(exact) > largest)
    overflows = beyond & (
        (np.abs(got) > largest) | (np.abs(exact) >= largest + ulp(largest, dtype) / 2)
    )
    exact = np.where(overflows, np.copysign(np.longdouble(np.inf), exact), exact)
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    size = exact if scale is None else np.maximum(np.abs(exact), scale)
    with np.errstate(invalid="ignore"):
        errors = np.abs(got - exact) / ulp(size, dtype)
    errors = np.where(np.isfinite(errors), errors, np.inf)
    return np.where(same, 0, errors).astype(np.float64)


def assert_within(got, exact, bar, scale=None, what="result"):
    """Every element of `got` is within `bar` ulp of `exact`. Returns the worst error in ulp."""
    errors = ulp_errors(got, exact, scale)
    if errors.size == 0:
        return 0.0
    worst = np.unravel_index(np.argmax(errors), errors.shape)
    where = [int(i) for i in worst]
    assert errors[worst] <= bar, (
        f"{what} at {where}: got {np.asarray(got)[worst]!r}, want {np.asarray(exact)[worst]!r}: "
        f"{errors[worst]:.4g} ulp away, allowed {bar}; {np.sum(errors > bar)} of {errors.size} fail"
    )
    return float(errors[worst])


def loss_type(dtype):
    """The type of a loss whose input has type `dtype`."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def assert_result(got, want, what="cross_entropy"):
    """A (loss, grad) or (loss, grad, hess) of the library is within the bars of a `Result`."""
    loss = np.asarray(got[0])
    errors = [assert_within(loss, want.loss, LOSS_BAR[loss.dtype.name], what=what + " loss")]
    grad = got[1]
    errors.append(
        assert_within(grad, want.grad, GRAD_BAR[grad.dtype.name], want.scale, what + " gradient")
    )
    if len(got) == 3:
        hess = got[2]
        bar = HESS_BAR[hess.dtype.name]
        errors.append(assert_within(hess, want.hess, bar, what=what + " Hessian"))
    return errors


# The three terms of a row


def _to_longdouble(values):
    """Finite non-negative mpf numbers as a long double array, truncated to 64 bits."""
    mantissas, exponents = [], []
    for value in values:
        _, mantissa, exponent, bits = mp.mpf(value)._mpf_
        drop = max(bits - 64, 0)
        mantissas.append(int(mantissa >> drop))
        exponents.append(exponent + drop)
    return np.ldexp(np.array(mantissas, np.uint64).astype(np.longdouble), exponents)


def _exact_row(row):
    """The terms of one row of finite logits, from 60 digits."""
    row = [mp.mpf(float(v)) for v in row]
    top = max(range(len(row)), key=row.__getitem__)
    exps = [mp.exp(v - row[top]) for v in row]
    rest = mp.fsum(e for i, e in enumerate(exps) if i != top)
    total = 1 + rest
    log_total = mp.log1p(rest)
    others = [rest if i == top else total - e for i, e in enumerate(exps)]
    return Terms(
        _to_longdouble(e / total for e in exps),
        _to_longdouble(o / total for o in others),
        _to_longdouble((row[top] - v) + log_total for v in row),
    )


def exact_terms(x):
    """The terms of every row along the last axis, from mpmath."""
    rows = [_exact_row(row) for row in x.reshape(-1, x.shape[-1])]
    return Terms(*(np.stack(term).reshape(x.shape) for term in zip(*rows, strict=True)))


def terms(x):
    """The terms of every row along the last axis, in long double.

    One +inf is the limit (p is 1 there and 0 elsewhere); two or more, a NaN, or nothing but -inf
    make the row NaN.
    """
    if x.size == 0:
        return Terms(x, x, x)
    with np.errstate(invalid="ignore", divide="ignore", under="ignore"):
        highest = np.max(x, axis=-1, keepdims=True)
        below = np.where(np.isposinf(x), 0, highest - x)  # two at +inf are told apart below
        exps = np.exp(-below)
        top = np.argmax(x, axis=-1, keepdims=True)
        others = exps.copy()
        np.put_along_axis(others, top, 0, axis=-1)
        rest = np.sum(others, axis=-1, keepdims=True)
        total = 1 + rest
        complement = total - exps
        np.put_along_axis(complement, top, rest, axis=-1)
        found = Terms(exps / total, complement / total, below + np.log1p(rest))
    infinities = np.sum(np.isposinf(x), axis=-1, keepdims=True)
    undefined = np.isnan(highest) | np.isneginf(highest) | (infinities > 1)
    return Terms(*(np.where(undefined, np.nan, term) for term in found))


# Losses


def _wide(array):
    """Any float array, of any byte order, as long double: exact."""
    return np.asarray(array).astype(np.float64).astype(np.longdouble)


def _times(a, b):
    """a * b where 0 times anything, infinity and NaN too, is 0."""
    with np.errstate(invalid="ignore", under="ignore"):
        return np.where((a == 0) | (b == 0), 0, a * b)


def class_axis(ndim, axis=None):
    """torch's class axis: 1, or 0 of a one-dimensional input."""
    return (0 if ndim == 1 else 1) if axis is None else axis % ndim


def _reduce(losses, denominator, reduction, grad_output):
    """The reduced loss, and what every loss element's derivative is multiplied by."""
    upstream = np.longdouble(1) if grad_output is None else _wide(grad_output)
    if reduction == "none":
        return losses, np.broadcast_to(upstream, losses.shape)
    total = np.sum(losses)
    if reduction == "sum":
        return total, np.broadcast_to(upstream, losses.shape)
    if denominator == 0:
        return np.longdouble(np.nan), np.zeros(losses.shape, np.longdouble)
    return total / denominator, np.broadcast_to(upstream / denominator, losses.shape)


def cross_entropy(
    x,
    target,
    weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    *,
    axis=None,
    grad_output=None,
    known=None,
):
    """Loss, gradient and Hessian diagonal of cross-entropy.

    With the target written as q, a non-negative number for each class, the loss of a row is
    sum_i q_i * -log(p_i), its gradient p_i * Q - q_i with Q = sum_i q_i, and its second derivative
    Q * p_i * (1 - p_i). The gradient is computed as p_i * (Q - q_i) - (1 - p_i) * q_i, which for
    an index target does not cancel. `scale` is the larger of the gradient's two terms, the
    yardstick for elements where they may cancel (soft targets, smoothing).

    `known` holds the rows' terms, class axis last, where they were computed already.
    """
    x = np.asarray(x)
    target = np.asarray(target)
    axis = class_axis(x.ndim, axis)
    rows = np.moveaxis(_wide(x), axis, -1)
    classes = rows.shape[-1]
    w = np.ones(classes, np.longdouble) if weight is None else _wide(weight)
    smoothing = np.longdouble(label_smoothing)
    if target.dtype.kind in "iu":
        live = target != ignore_index
        onehot = np.arange(classes) == np.where(live, target, 0)[..., None]
        own = w[np.where(live, target, 0).astype(np.intp)] if classes else np.zeros(target.shape)
        q = (1 - smoothing) * np.where(onehot, w, 0) + (smoothing / max(classes, 1)) * w
        q = np.where(live[..., None], q, 0)
        denominator = np.sum(np.where(live, own, 0))
        cancels = label_smoothing != 0
    else:
        live = np.ones(rows.shape[:-1], bool)
        q = w * (np.moveaxis(_wide(target), axis, -1) * (1 - smoothing) + smoothing / classes)
        denominator = live.size
        cancels = True
    safe = np.where(live[..., None], rows, 0)
    p, rest, neglogp = terms(safe) if known is None else known
    nan = np.any(np.isnan(safe), axis=-1)
    losses = np.where(nan, np.nan, np.sum(_times(q, neglogp), axis=-1))
    loss, factor = _reduce(losses, denominator, reduction, grad_output)
    factor = np.where(live, factor, 0)[..., None]
    every = np.sum(q, axis=-1, keepdims=True)
    with np.errstate(under="ignore"):
        grad = _times(factor, p * (every - q) - rest * q)
        hess = _times(factor, every * p * rest)
        scale = np.abs(_times(factor, np.maximum(p * every, q))) if cancels else np.abs(grad)
    back = [np.moveaxis(array, -1, axis) for array in (grad, hess, np.nan_to_num(scale))]
    return Result(loss, *back)


def nll_loss(
    x,
    target,
    weight=None,
    ignore_index=-100,
    reduction="mean",
    *,
    axis=None,
    grad_output=None,
):
    """Loss and gradient of the negative log-likelihood: -weight[y] * x[y]."""
    x = np.asarray(x)
    target = np.asarray(target)
    axis = class_axis(x.ndim, axis)
    rows = np.moveaxis(_wide(x), axis, -1)
    classes = rows.shape[-1]
    w = np.ones(classes, np.longdouble) if weight is None else _wide(weight)
    live = target != ignore_index
    onehot = (np.arange(classes) == np.where(live, target, 0)[..., None]) & live[..., None]
    q = np.where(onehot, w, 0)
    loss, factor = _reduce(np.sum(_times(-q, rows), axis=-1), np.sum(q), reduction, grad_output)
    grad = np.moveaxis(_times(factor[..., None], -q), -1, axis)
    return Result(loss, grad, np.zeros_like(grad), np.abs(grad))


def softmax(x, axis):
    """Probabilities along an axis."""
    return np.moveaxis(terms(np.moveaxis(_wide(x), axis, -1)).p, -1, axis)


def log_softmax(x, axis):
    """Log-probabilities along an axis."""
    return -np.moveaxis(terms(np.moveaxis(_wide(x), axis, -1)).neglogp, -1, axis)


def logsumexp(x, axis, keepdims=False):
    """log(sum(exp(x))) along an axis, of finite numbers."""
    x = _wide(x)
    highest = np.max(x, axis=axis, keepdims=True)
    total = highest + np.log(np.sum(np.exp(x - highest), axis=axis, keepdims=True))
    return total if keepdims else np.squeeze(total, axis)
