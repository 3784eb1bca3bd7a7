"""The losses in plain torch operations: for devices without kernels, for transforms of functions,
and for derivatives of derivatives.

The formulas are those of the kernels (docs/numerics.md), written so that torch's own derivatives
of them lose nothing either: what is 0 for every input is a constant, not a difference. Indices are
not checked, for that would wait for the device: where a target is no class, the loss is NaN.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import inf, log, nan
from typing import NamedTuple

import torch
import torch.nn.functional as TF
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In the type that is computed in."""
    return x if x.dtype == torch.float64 else x.float()


def warp(x: Tensor, mask: Tensor | None, temperature: float, softcap: float | None) -> Tensor:
    """Logits with a softcap, a temperature and a mask."""
    x = wide(x)
    if mask is not None:
        # Here too, for a NaN in what is not there.
        x = x.masked_fill(~mask, 0.0)
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    if temperature != 1.0:
        x = x / temperature
    return x if mask is None else x.masked_fill(~mask, -inf)


class Rows(NamedTuple):
    """Rows of logits: how far each is below the maximum, and the logarithm of 1 + rest, the sum of
    the exponentials of the others. `pivot` is the maximum, and what derivatives take it for."""

    gap: Tensor
    maximum: Tensor
    pivot: Tensor
    log: Tensor

    def logsumexp(self) -> Tensor:
        return self.pivot + self.log

    def log_softmax(self) -> Tensor:
        return -self.gap - self.log

    def entropy(self, axis: int) -> Tensor:
        share = torch.exp(self.log_softmax())
        return product(share, self.gap).sum(axis) + self.log.squeeze(axis)


def lost(a: Tensor, b: Tensor) -> Tensor:
    """What the rounding of a - b took (TwoSum: Knuth). Of a large difference it counts in the
    exponential; of one that is not finite it is 0."""
    d = a - b
    seen = d - a
    return ((a - (d - seen)) - (b + seen)).masked_fill(~torch.isfinite(d), 0.0)


def rows_of(z: Tensor, axis: int) -> Rows:
    """What rows are measured from changes none of their numbers: a variable or a constant.

    Where most of the probability is at the maximum, that is a variable, and its own gap the
    constant 0: its derivative is minus the sum of the others', which are small, and not a
    difference of 1 and almost 1. Elsewhere it is a constant, and the derivative that of its own
    exponential, which a difference of 1 and the others' would lose.
    """
    at = z.argmax(axis, keepdim=True)
    maximum = z.gather(axis, at)
    here = torch.zeros_like(z, dtype=torch.bool).scatter(axis, at, True)
    fixed = maximum.detach()
    share = torch.exp((z - fixed).masked_fill(here, 0.0)) * (1.0 - lost(fixed, z.detach()))
    rest = share.masked_fill(here, 0.0).sum(axis, keepdim=True)
    sure = rest.detach() < 1.0
    pivot = torch.where(sure, maximum, fixed)
    gap = (pivot - z).masked_fill(here & sure, 0.0)
    # Factors of 1 and terms of 0, for their derivatives: all exponentials are measured from the
    # pivot, and the maximum's own less 1 is among them.
    rest = rest * torch.exp((fixed - pivot).masked_fill(torch.isinf(fixed), 0.0))
    rest = rest + torch.expm1(-gap.gather(axis, at))
    # Nothing above -inf, or no number. The sum knows where there are two classes or more.
    none = (maximum == -inf) | torch.isnan(maximum)
    rest = torch.where(none, maximum.masked_fill(~none, 0.0) * nan, rest)
    return Rows(gap, maximum, pivot, torch.log1p(rest))


def product(weight: Tensor, x: Tensor) -> Tensor:
    """0 times infinity is 0."""
    return weight * x.masked_fill((weight == 0) & torch.isinf(x), 0.0)


def reduce(
    losses: Tensor,
    counted: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    denominator: float | None,
    empty: float,
) -> Tensor:
    """Weighs the losses and reduces them; `counted` is what the mean divides by the sum of."""
    if sample_weight is not None:
        sample_weight = sample_weight.to(losses.dtype)
        losses = (sample_weight * losses).masked_fill(sample_weight == 0, 0.0)
        counted = sample_weight if counted is None else counted * sample_weight
    if reduction == "none":
        return losses
    total = losses.sum()
    if reduction == "sum":
        return total
    if reduction == "batchmean":
        return total / losses.shape[0] if losses.ndim else total
    if denominator is not None:
        return total / denominator
    if counted is None:
        return total / losses.numel() if losses.numel() else total + empty
    divisor = counted.sum()
    none = divisor == 0
    return (total / divisor.masked_fill(none, 1.0)).masked_fill(none, empty)


def indices(target: Tensor, classes: int) -> Tensor:
    """Class indices in int64; what is beyond it is no class, and none that could be ignored."""
    y = target.long()
    return torch.where(y < 0, classes, y) if target.dtype == torch.uint64 else y


def left_out(x: Tensor, sample_weight: Tensor | None, axis: int | None) -> Tensor:
    """Input that is harmless where the weight of its loss is 0."""
    if sample_weight is None:
        return x
    out = sample_weight == 0
    return x.masked_fill(out if axis is None else out.unsqueeze(axis), 0.0)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    mask: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    axis: int,
    temperature: float,
    softcap: float | None,
    z_loss: float,
    denominator: float | None,
    empty: float,
) -> Tensor:
    x = left_out(input, sample_weight, axis)
    classes = x.shape[axis]
    soft = target.is_floating_point()
    if not soft:
        y = indices(target, classes).unsqueeze(axis)
        live = y != ignore_index
        valid = (y >= 0) & (y < classes)
        x = x.masked_fill(~live, 0.0)
        y = y.masked_fill(~valid, 0)
    z = warp(x, mask, temperature, softcap)
    if classes == 0:
        losses = z.sum(axis)
        return reduce(losses, None, sample_weight, reduction, denominator, empty)
    rows = rows_of(z, axis)
    w = None
    if weight is not None:
        w = weight.to(z.dtype).reshape([-1] + [1] * (z.ndim - 1 - axis % z.ndim))
    counted = None
    if soft:
        t = left_out(target, sample_weight, axis).to(z.dtype)
        q = t if label_smoothing == 0.0 else t * (1 - label_smoothing) + label_smoothing / classes
        q = q if w is None else q * w
        losses = product(q, rows.gap + rows.log).sum(axis)
    else:
        loss = rows.gap.gather(axis, y) + rows.log
        hard = torch.ones_like(loss)
        if w is not None:
            hard = w.expand_as(z).gather(axis, y)
        hard = hard.masked_fill(live & ~valid, nan).masked_fill(~live, 0.0)
        loss = product(hard * (1 - label_smoothing), loss)
        if label_smoothing != 0.0:
            spread = torch.ones_like(z) if w is None else w.expand_as(z)
            spread = (spread * (label_smoothing / classes)).masked_fill(~live, 0.0)
            even = product(spread, rows.gap + rows.log).sum(axis, keepdim=True)
            loss = loss + even
        losses, counted = loss.masked_fill(~live, 0.0).squeeze(axis), hard.squeeze(axis)
    if z_loss != 0.0:
        extra = z_loss * rows.logsumexp().square()
        extra = extra if soft else extra.masked_fill(~live, 0.0)
        losses = losses + extra.squeeze(axis)
    return reduce(losses, counted, sample_weight, reduction, denominator, empty)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    axis: int,
    denominator: float | None,
    empty: float,
) -> Tensor:
    x = wide(left_out(input, sample_weight, axis))
    y = indices(target, x.shape[axis]).unsqueeze(axis)
    live = y != ignore_index
    valid = (y >= 0) & (y < x.shape[axis])
    if x.shape[axis] == 0:
        return reduce(x.sum(axis), None, sample_weight, reduction, denominator, empty)
    y = y.masked_fill(~valid, 0)
    picked = x.gather(axis, y).masked_fill(~live, 0.0)
    hard = torch.ones_like(picked)
    if weight is not None:
        hard = weight.to(x.dtype).gather(0, y.flatten()).reshape(y.shape)
    hard = hard.masked_fill(live & ~valid, nan).masked_fill(~live, 0.0)
    losses = product(hard, -picked).squeeze(axis)
    return reduce(losses, hard.squeeze(axis), sample_weight, reduction, denominator, empty)


def _binary(x: Tensor, t: Tensor, pos_weight: Tensor | None) -> Tensor:
    on = t if pos_weight is None else t * pos_weight.to(t.dtype)
    return product(on, -TF.logsigmoid(x)) + product(1 - t, -TF.logsigmoid(-x))


def pointwise(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    kind: str,
    reduction: str,
    first: float,
    second: float,
    denominator: float | None,
    empty: float,
) -> Tensor:
    """`first` and `second` are alpha and gamma of the focal loss; `first` is whether the target of
    `kl_div` holds logarithms, `second` its base or 0."""
    axis = -1 if kind == "multilabel" else None
    x = wide(left_out(input, sample_weight, axis))
    t = left_out(target, sample_weight, axis).to(x.dtype)
    if kind == "probabilities":
        # Torch's, for its clamps; by parts, because it refuses targets outside of [0, 1], and NaN.
        # With autocast it would be refused, which is for input of 16 bits.
        none = torch.isnan(x)
        known = x.masked_fill(none, 0.5)
        device = x.device.type
        apart = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if apart else nullcontext():
            one = TF.binary_cross_entropy(known, torch.ones_like(x), reduction="none")
            zero = TF.binary_cross_entropy(known, torch.zeros_like(x), reduction="none")
        losses = torch.where(none, x.masked_fill(~none, 0.0) * nan, t * one + (1 - t) * zero)
    elif kind == "soft margin":
        losses = -TF.logsigmoid(t * x)
    elif kind == "kl":
        p = torch.exp(t) if first else t
        x = x.masked_fill((p == 0) & ~torch.isnan(x), 0.0)
        losses = product(p, t - x) if first else torch.special.xlogy(t, t) - t * x
        losses = losses * _unit(second or None)
    elif kind == "focal":
        wrong = t * torch.sigmoid(-x) + (1 - t) * torch.sigmoid(x)
        losses = product(wrong**second, _binary(x, t, None))
        if first >= 0:
            losses = (first * t + (1 - first) * (1 - t)) * losses
    elif kind in ("logits", "multilabel"):
        losses = _binary(x, t, pos_weight)
    else:
        raise AssertionError(kind)
    if weight is not None:
        losses = product(weight.to(x.dtype), losses)
    if kind == "multilabel":
        losses = losses.mean(-1)
    return reduce(losses, None, sample_weight, reduction, denominator, empty)


def _unit(base: float | None) -> float:
    return 1.0 if base is None else 1.0 / log(base)


def entropy(p: Tensor, kind: str, axis: int, base: float | None) -> Tensor:
    p = wide(p)
    terms = torch.special.entr(p)
    if kind == "binary":
        # p log p + (1 - p) log(1 - p), the second where nothing cancels.
        return (terms - torch.special.xlog1py(1 - p, -p)) * _unit(base)
    return terms.sum(axis) * _unit(base)


def entropy_with_logits(
    logits: Tensor,
    mask: Tensor | None,
    axis: int,
    base: float | None,
    temperature: float,
    softcap: float | None,
) -> Tensor:
    rows = rows_of(warp(logits, mask, temperature, softcap), axis)
    return rows.entropy(axis) * _unit(base)


def _excess(u: Tensor) -> Tensor:
    """exp(u) - 1 - u of small u, by its series."""
    series = torch.ones_like(u)
    for n in range(14, 2, -1):
        series = 1 + series * u / n
    return 0.5 * u * u * series


def divergence(p: Tensor, q: Tensor, kind: str, axis: int, base: float | None) -> Tensor:
    dtype = torch.promote_types(wide(p).dtype, wide(q).dtype)
    result = wide(p).dtype
    p, q = p.to(dtype), q.to(dtype)
    if kind == "kl":
        terms = _relative(p, q)
    else:
        m = ((p + q) / 2).masked_fill((p == 0) & (q == 0), 0.0)
        terms = (_relative(p, m) + _relative(q, m)) / 2
    return (terms.sum(axis) * _unit(base)).to(result)


def _relative(p: Tensor, q: Tensor) -> Tensor:
    """p log(p / q) - p + q, which is never negative; where they are near, nothing cancels."""
    none = p == 0
    nothing = none & (q == 0)
    share = p.masked_fill(nothing, 1.0)
    apart = -torch.special.entr(share) - share * torch.log(q.masked_fill(none, 1.0))
    apart = apart - p.masked_fill(nothing, 0.0) + q
    near = ((q - p).abs() < 0.25 * p) & ~none
    r = p.masked_fill(~near, 1.0)
    close = r * _excess(torch.log1p((q - p).masked_fill(~near, 0.0) / r))
    return torch.where(near, close, apart)


def divergence_with_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    mask: Tensor | None,
    kind: str,
    axis: int,
    base: float | None,
    temperature: float,
    softcap: float | None,
) -> Tensor:
    result = wide(p_logits).dtype
    dtype = torch.promote_types(result, wide(q_logits).dtype)
    a = rows_of(warp(p_logits.to(dtype), mask, temperature, softcap), axis).log_softmax()
    b = rows_of(warp(q_logits.to(dtype), mask, temperature, softcap), axis).log_softmax()
    if kind == "kl":
        terms = _between(a, b)
    else:
        # Of two infinities the sum has no derivative.
        none = (a == -inf) & (b == -inf)
        m = torch.logaddexp(a.masked_fill(none, 0.0), b.masked_fill(none, 0.0)) - log(2)
        m = m.masked_fill(none, -inf)
        terms = (_between(a, m) + _between(b, m)) / 2
    return (terms.sum(axis) * _unit(base)).to(result)


def _between(a: Tensor, b: Tensor) -> Tensor:
    """exp(a) (exp(u) - 1 - u) with u = b - a."""
    none = a == -inf
    u = (b - a).masked_fill(none, 0.0)
    share = torch.exp(a)
    near = u.abs() < 0.5
    close = share * _excess(u.masked_fill(~near, 0.0))
    return torch.where(near & ~none, close, torch.exp(b) - share - product(share, u))


def softmax(
    input: Tensor,
    mask: Tensor | None,
    kind: str,
    axis: int,
    temperature: float,
    softcap: float | None,
) -> Tensor:
    z = warp(input, mask, temperature, softcap)
    rows = rows_of(z, axis)
    if kind == "logsumexp":
        # A sum of nothing is a constant; one of infinities has the derivative of the largest.
        top = rows.maximum.masked_fill(rows.maximum == -inf, -inf)
        edge = torch.isinf(top)
        finite = rows_of(z.masked_fill(edge, 0.0), axis).logsumexp()
        return torch.where(edge, top, finite).squeeze(axis)
    out = rows.log_softmax()
    return (torch.exp(out) if kind == "softmax" else out).to(input.dtype)


def token_log_prob(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    axis: int,
    temperature: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z = warp(input, mask, temperature, softcap)
    rows = rows_of(z, axis)
    y = indices(target, z.shape[axis]).unsqueeze(axis)
    valid = (y >= 0) & (y < z.shape[axis])
    y = y.masked_fill(~valid, 0)
    log_prob = (-rows.gap.gather(axis, y) - rows.log).masked_fill(~valid, nan).squeeze(axis)
    rank = (z > z.gather(axis, y)).sum(axis)
    return log_prob, rows.entropy(axis), rows.logsumexp().squeeze(axis), rank


def sigmoid(input: Tensor, kind: str) -> Tensor:
    x = wide(input)
    return (torch.sigmoid(x) if kind == "sigmoid" else TF.logsigmoid(x)).to(input.dtype)
