"""References of the losses of elements: long double, or mpmath at 60 digits one number at a time.

Each answers a `reference.Result`: the loss before its reduction, the gradient, the Hessian's
diagonal, and `scale`, the size of the gradient's terms where those may cancel.
"""

import numpy as np
from mpmath import mp
from reference import Result, _reduce, _times, _wide


def softplus(x):
    with np.errstate(under="ignore"):
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    with np.errstate(under="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x > 0, 1 / (1 + e), np.where(np.isnan(x), x, e / (1 + e)))


def logsigmoid(x):
    return -softplus(-x)


def bce_with_logits(x, t, weight=1.0, pos_weight=1.0):
    x, t, w, v = (_wide(a) for a in (x, t, weight, pos_weight))
    a, b = v * t, 1 - t
    loss = _times(w, _times(a, softplus(-x)) + _times(b, softplus(x)))
    up, down = b * sigmoid(x), a * sigmoid(-x)
    hess = w * (a + b) * sigmoid(x) * sigmoid(-x)
    return Result(loss, w * (up - down), hess, np.abs(w) * np.maximum(np.abs(up), np.abs(down)))


def bce(p, t, weight=1.0):
    p, t, w = (_wide(a) for a in (p, t, weight))
    with np.errstate(divide="ignore"):
        log, log_rest = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
    grad = w * (p - t) / np.maximum(p * (1 - p), np.longdouble(1e-12))
    return Result(-w * (t * log + (1 - t) * log_rest), grad, None, np.abs(grad))


def soft_margin(x, t):
    x, t = _wide(x), _wide(t)
    grad = -t * sigmoid(-t * x)
    hess = t * t * sigmoid(t * x) * sigmoid(-t * x)
    return Result(softplus(-t * x), grad, hess, np.abs(grad))


def focal(x, t, alpha=0.25, gamma=2.0):
    x, t, gamma, alpha = _wide(x), _wide(t), np.longdouble(gamma), np.longdouble(alpha)
    balance = alpha * t + (1 - alpha) * (1 - t) if alpha >= 0 else np.longdouble(1)
    up, down, slope = sigmoid(x), sigmoid(-x), sigmoid(x) * sigmoid(-x)
    sure = (t == 0) | (t == 1)
    with np.errstate(under="ignore", invalid="ignore", divide="ignore", over="ignore"):
        m = t * down + (1 - t) * up
        tilt = (1 - 2 * t) * slope / m
        log_m = np.where(sure, -np.where(t == 1, softplus(x), softplus(-x)), np.log(m))
        r = np.where(sure, np.where(t == 1, -up, down), tilt)
        r_slope = np.where(sure, -slope, tilt * (down - up) - tilt**2)
        power = balance * np.exp(_times(gamma, log_m))
        c = _times(t, softplus(-x)) + _times(1 - t, softplus(x))
        pull = _times(gamma * r, c)
        grad = power * ((1 - t) * up - t * down + pull)
        terms = (1 - t) * up + t * down
        curve = _times(gamma * (r_slope + gamma * r * r), c)
        hess = power * (slope + 2 * gamma * r * ((1 - t) * up - t * down) + curve)
        scale = power * (terms + np.abs(pull) + np.abs(curve))
    return Result(_times(power, c), grad, hess, np.nan_to_num(scale))


def reduced(result, reduction, grad_output=None):
    """The result of a loss of elements as the library returns it."""
    loss, factor = _reduce(result.loss, result.loss.size, reduction, grad_output)
    hess = None if result.hess is None else factor * result.hess
    return Result(loss, factor * result.grad, hess, np.abs(factor) * result.scale)


def by_rows(result, reduction, grad_output=None):
    """The same of a loss that is the mean over the last axis."""
    classes = result.loss.shape[-1]
    loss = np.sum(result.loss, axis=-1) / classes
    loss, factor = _reduce(loss, loss.size, reduction, grad_output)
    factor = factor[..., None] / classes
    return Result(loss, factor * result.grad, factor * result.hess, np.abs(factor) * result.scale)


def exact(function, *arrays):
    """Applies a function of mpmath numbers, element by element, and rounds to long double."""
    out = []
    for values in zip(*(np.ravel(a).tolist() for a in arrays), strict=True):
        value = function(*(mp.mpf(v) for v in values))
        value = mp.mpf(value)
        high = np.longdouble(float(value))
        low = float(value - mp.mpf(float(value))) if np.isfinite(high) else 0
        out.append(high + np.longdouble(low))
    return np.array(out, np.longdouble).reshape(np.shape(arrays[0]))
