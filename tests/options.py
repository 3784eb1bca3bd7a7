"""Slow, obvious references of losses with every option, in long double."""

from collections import namedtuple

import numpy as np

Answer = namedtuple("Answer", "loss grad hess")


def warped(x, temperature=1.0, softcap=None, class_mask=None):
    """Logits as a model means them, with their first two derivatives."""
    z, slope, curvature = x, np.ones_like(x), np.zeros_like(x)
    if softcap is not None:
        cap = np.longdouble(softcap)
        height = np.tanh(x / cap)
        z, slope = cap * height, 1 / np.cosh(x / cap) ** 2
        curvature = -2 * height * slope / cap
    temperature = np.longdouble(temperature)
    z, slope, curvature = (v / temperature for v in (z, slope, curvature))
    if class_mask is not None:
        exists = np.broadcast_to(class_mask, x.shape)
        z, slope, curvature = (
            np.where(exists, v, none) for v, none in ((z, -np.inf), (slope, 0), (curvature, 0))
        )
    return z, slope, curvature


def times(factor, value):
    """The product, where 0 times anything is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(factor == 0, 0, factor * value)


def logsumexp(z):
    top = np.max(z, axis=-1, keepdims=True)
    return top + np.log(np.sum(np.exp(z - top), axis=-1, keepdims=True))


def reduce(
    losses,
    reduction="mean",
    *,
    live=True,
    counted=1.0,
    sample_weight=None,
    denominator=None,
    empty=np.nan,
):
    """The answer, and what each loss is multiplied by in it; a mean counts `counted` of each."""
    sample = np.ones_like(losses) if sample_weight is None else np.asarray(sample_weight)
    factor = np.where(live, sample, 0).astype(np.longdouble)
    if reduction == "none":
        return times(factor, losses), factor
    total = np.sum(times(factor, losses))
    if reduction == "sum":
        return total, factor
    by = np.sum(times(factor, counted)) if denominator is None else np.longdouble(denominator)
    return (np.longdouble(empty), 0 * factor) if by == 0 else (total / by, factor / by)


def cross_entropy(
    x,
    target,
    weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    *,
    axis=None,
    temperature=1.0,
    softcap=None,
    class_mask=None,
    z_loss=0.0,
    sample_weight=None,
    denominator=None,
    empty=np.nan,
    grad_output=1.0,
):
    """Loss, gradient and the Hessian's diagonal."""
    axis = (1 if np.ndim(x) > 1 else 0) if axis is None else axis
    exists = None if class_mask is None else np.broadcast_to(class_mask, np.shape(x))
    x, target = np.moveaxis(np.asarray(x, np.longdouble), axis, -1), np.asarray(target)
    exists = None if exists is None else np.moveaxis(exists, axis, -1)
    z, slope, curvature = warped(x, temperature, softcap, exists)
    classes = x.shape[-1]
    w = np.ones(classes) if weight is None else np.asarray(weight)
    if target.dtype.kind in "iu":
        live = target != ignore_index
        y = np.where(live, target, 0)
        one_hot = (y[..., None] == np.arange(classes)).astype(np.longdouble)
        counted = w[y]
    else:
        one_hot = np.moveaxis(np.asarray(target, np.longdouble), axis, -1)
        live = np.ones(one_hot.shape[:-1], bool)
        counted = 1.0
    smoothing = np.longdouble(label_smoothing)
    q = ((1 - smoothing) * one_hot + smoothing / classes) * w
    lse = logsumexp(z)
    p = np.exp(z - lse)
    losses = np.sum(times(q, lse - z), axis=-1) + z_loss * lse[..., 0] ** 2
    answer, factor = reduce(
        losses,
        reduction,
        live=live,
        counted=counted,
        sample_weight=sample_weight,
        denominator=denominator,
        empty=empty,
    )
    upstream = (factor * grad_output)[..., None]
    pull = np.sum(q, axis=-1, keepdims=True) + 2 * z_loss * lse
    by_z = pull * p - q
    by_z2 = pull * p * (1 - p) + 2 * z_loss * p * p
    grad = times(upstream, times(slope, by_z))
    hess = times(upstream, times(slope**2, by_z2) + times(curvature, by_z))
    return Answer(answer, np.moveaxis(grad, -1, axis), np.moveaxis(hess, -1, axis))
