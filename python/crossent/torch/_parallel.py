"""Cross-entropy over classes that are spread over processes.

Each process summarises its slice of a row by its largest logit m_r and by log(1 + R_r), R_r the sum
of exp(x - m_r) over its other classes. Summaries merge: with M the largest m_r, of rank h,

    R = expm1(log(1 + R_h)) + sum_{r != h} exp(m_r - M) (1 + R_r)
    loss = M - x_y + log1p(R)

is a sum of numbers that are not negative, so that nothing cancels, whatever the slices are. The
share of the probability that a slice has, s_r = exp(m_r - M) (1 + R_r) / (1 + R), times its own
softmax is its part of the gradient; at the target that is 1 - p_y = -expm1(-loss), from the merged
loss.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from crossent import _core
from crossent.torch import _composed as composed
from crossent.torch import _ops

IGNORED = -100


class Rules(NamedTuple):
    """What a loss is of, beside its logits."""

    axis: int
    label_smoothing: float
    z_loss: float
    group: Any
    start: int
    classes: int


class Slice(NamedTuple):
    """What this process knows of the rows; numbers are in float64."""

    top: Tensor
    at: Tensor
    log: Tensor
    picked: Tensor
    """The target's logit; 0 where it is elsewhere."""
    gaps: Tensor
    """The sum of top - x over the classes; 0 where nobody asks for it."""


class Merged(NamedTuple):
    """What is known of the whole rows."""

    loss: Tensor
    share: Tensor
    """Of the probability, this process's."""
    log: Tensor
    """What the loss of the target alone is."""
    log_sum_exp: Tensor


def _each_rank(x: Tensor, group: Any) -> Tensor:
    """What each process has, by ranks."""
    found = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, x.contiguous(), group=group)
    return torch.stack(found)


def _loss_of_top(x: Tensor, at: Tensor, axis: int) -> Tensor:
    """log(1 + R) of the class at the maximum, in float64: its error is one of the share's."""
    if _call(x, at, axis, 0.0)[2]:
        return -composed.token_log_prob(x.double(), at, None, axis, 1.0, None)[0]
    if x.is_cpu:
        answers, _ = _core.token_log_prob(
            _ops.array(x), _ops.array(at), axis, (1.0, None, None), False, None, None, True, False
        )
        return -_ops.tensor(answers[0])
    log_prob: Tensor = _ops.triton().wide_log_prob(_ops.rows_of(x, axis), at.flatten())
    return -log_prob.reshape(at.shape)


def _call(x: Tensor, at: Tensor, axis: int, smoothing: float) -> tuple[Any, Any, bool]:
    """Arguments and options of the operator for the losses of rows, and whether it composes."""
    tensors = (x, at, None, None, None)
    options = (IGNORED, "none", smoothing, axis, 1.0, None, 0.0, None, nan)
    return tensors, options, _ops.cross_entropy.composes(tensors, options)


def _cross_entropy(x: Tensor, at: Tensor, axis: int, smoothing: float) -> Tensor:
    """The losses of rows."""
    tensors, options, composes = _call(x, at, axis, smoothing)
    if composes:
        return _ops.cross_entropy.formula(*tensors, *options)
    loss: Tensor = _ops.cross_entropy.op(*tensors, *options, None, 0)[0]
    return loss


def _gradient(x: Tensor, at: Tensor, axis: int, up: Tensor) -> Tensor:
    """Of the losses of rows, times an upstream gradient a row."""
    if x.is_cuda and x.dtype == torch.float16:
        # Whose gradient the fused kernel rounds before it is multiplied.
        x = x.float()
    tensors, options, composes = _call(x, at, axis, 0.0)
    if composes:
        needs = [True, False, False, False, False]
        found = _ops.derived(_ops.cross_entropy.formula, tensors, options, up, needs)[0]
        assert found is not None
        return found
    slope: Tensor = _ops.cross_entropy.op(*tensors, *options, up, 1)[1]
    return slope


def _summarise(x: Tensor, local: Tensor, here: Tensor, live: Tensor, rules: Rules) -> Slice:
    axis = rules.axis
    top, at = x.max(dim=axis)
    # Nor is a row looked at whose classes here are all ruled out: it has no part here.
    dead = ~live | (top == -inf)
    log = _loss_of_top(x, at, axis).masked_fill(dead, 0.0)
    picked = x.gather(axis, local.unsqueeze(axis)).squeeze(axis)
    picked = picked.double().masked_fill(~here, 0.0)
    gaps = torch.zeros_like(log)
    if rules.label_smoothing > 0.0:
        mean = _cross_entropy(x, at, axis, 1.0)
        gaps = (mean.double() - log) * x.shape[axis]
    return Slice(top.double(), at.masked_fill(dead, IGNORED), log, picked, gaps)


def _difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a - b, 0 of equal infinities too, and what its rounding took (TwoSum: Knuth), which counts
    in the exponential of a large one."""
    d = (a - b).masked_fill(a == b, 0.0)
    seen = d - a
    lost = (a - (d - seen)) - (b + seen)
    return d, lost.masked_fill(torch.isinf(d) | (a == b), 0.0)


def _merge(mine: Slice, live: Tensor, sizes: Tensor, rules: Rules) -> Merged:
    packet = torch.stack([mine.top, mine.log, mine.picked, mine.gaps])
    tops, logs, picked, gaps = _each_rank(packet, rules.group).unbind(1)
    top = tops.amax(0)
    lower, lost = _difference(tops, top)
    parts = torch.exp(lower) * (1.0 + lost) * torch.exp(logs)
    holder = (tops == top).int().argmax(0, keepdim=True)
    rest = parts.scatter(0, holder, torch.expm1(logs.gather(0, holder))).sum(0)
    # Neither two infinite logits nor none above -inf have a softmax.
    rest = rest.masked_fill(((tops == inf).sum(0) > 1) | (top == -inf), nan)
    log = torch.log1p(rest)
    target = picked.sum(0)
    gap = (top - target).masked_fill(top == target, 0.0)
    own = gap + log
    loss, smoothing = own, rules.label_smoothing
    if smoothing > 0.0:
        below = composed.product(sizes.double().view(-1, *(1,) * top.ndim), -lower).sum(0)
        mean_gap = (gaps.masked_fill(tops == -inf, inf).sum(0) + below) / rules.classes
        sure = top.new_tensor(1.0 - smoothing)
        loss = log + composed.product(sure, gap) + smoothing * mean_gap
    log_sum_exp = top + log
    loss = loss + rules.z_loss * log_sum_exp * log_sum_exp if rules.z_loss else loss
    share = parts[dist.get_rank(rules.group)] / (1.0 + rest)
    return Merged(loss.masked_fill(~live, 0.0), share, own, log_sum_exp)


class _VocabParallel(torch.autograd.Function):
    """The losses of rows, in float64. The gradient waits until its factors are known: it then reads
    the logits once more, and is written once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, live: Tensor, sizes: Tensor, rules: Rules
    ) -> Tensor:
        local = target - rules.start
        here = live & (local >= 0) & (local < x.shape[rules.axis])
        local = local.masked_fill(~here, 0)
        mine = _summarise(x, local, here, live, rules)
        merged = _merge(mine, live, sizes, rules)
        ctx.rules = rules
        ctx.save_for_backward(
            x, mine.at, mine.log, merged.share, merged.log, merged.log_sum_exp, local, here, live
        )
        return merged.loss

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("vocab_parallel_cross_entropy has no derivative of its gradient")
        rules: Rules = ctx.rules
        x, at, own_log, share, log, log_sum_exp, local, here, live = ctx.saved_tensors
        axis, smoothing = rules.axis, rules.label_smoothing
        g = g.masked_fill(~live, 0.0)
        extra = 2.0 * rules.z_loss * log_sum_exp if rules.z_loss else torch.zeros_like(log)
        factor = (g * (1.0 + extra) * share).masked_fill(~live, 0.0)
        even = g * (smoothing / rules.classes)
        wide = _ops.result_type(x)
        slope = _gradient(x, at, axis, factor.to(wide))
        # No softmax, and a slice of which nothing was looked at.
        lost = torch.isnan(factor) & (at == IGNORED)
        if lost.any():
            slope.masked_fill_(lost.unsqueeze(axis), nan)
        top = at.clamp(min=0)
        at_top = factor * torch.exp(-own_log)
        slope.scatter_(axis, top.unsqueeze(axis), at_top.to(slope.dtype).unsqueeze(axis))
        if smoothing > 0.0:
            slope.sub_(even.to(wide).unsqueeze(axis))
        # 1 - p of the target by itself: nothing cancels so.
        p, other = torch.exp(-log), -torch.expm1(-log)
        at_target = g * ((extra + smoothing) * p - (1.0 - smoothing) * other) - even
        index = torch.where(here, local, top).unsqueeze(axis)
        value = torch.where(here, at_target, at_top - even).to(slope.dtype)
        slope.scatter_(axis, index, value.unsqueeze(axis))
        return slope.to(x.dtype), None, None, None, None


def vocab_parallel_cross_entropy(
    logits_shard: Tensor,
    target: Tensor,
    group: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    axis: int | None = None,
    z_loss: float = 0.0,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Cross-entropy of logits whose classes are spread over the processes of a group.

    The loss, on each process the same bits, and the gradient of each slice are those of
    `cross_entropy` on the logits of all processes, one after the other by rank:

    $$\\ell = \\log \\sum_r \\sum_{c \\in r} e^{x_c} - x_y$$

    Slices are merged by one gathering of four numbers a row and process; their sizes, which may
    differ, by one of a number. Every process of the group calls the function at the same time, with
    the same targets and options. The gradient takes no memory but its own, in the backward pass,
    and has no derivative.

    Arguments:
        logits_shard: Logits of this process's classes, at least one; any real numbers, -inf for a
            class that cannot be.
        target: Class indices among the classes of all processes, of any integer type; shaped as the
            logits without the class axis.
        group: The process group; by default all processes.
        ignore_index: The class index of rows that do not count.
        reduction: `'mean'`, `'sum'` or `'none'`.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        z_loss: Adds z logsumexp(row)^2 to each row's loss.
        sample_weight: One weight a row, of the target's shape; a row of weight 0 does not count.
        denominator: What the mean divides by instead.
        empty: The mean where no row counts.

    Returns:
        The loss: float32 for 16-bit logits, otherwise of their type, within 2 ulp (float32) or 3
        (float64) of the real number; gradients are within 6 or 12 ulp, of the larger of their terms
        where those cancel.

    Raises:
        TypeError: For logits that are not of a float type, or targets that are not integers.
        ValueError: For shapes, a reduction or options that do not fit, and where a process has no
            class.
        IndexError: For a class index out of range, on the CPU.

    The idea of a loss over sharded classes is that of Megatron-LM (Shoeybi et al. 2019), whose
    `vocab_parallel_cross_entropy` this is named after; it reduces thrice and subtracts a target's
    logit from a logarithm.

    >>> import torch
    >>> import torch.distributed as dist
    >>> from crossent import torch as ct
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> ct.vocab_parallel_cross_entropy(logits, torch.tensor([0]))
    tensor(0.1698)
    >>> dist.destroy_process_group()
    """
    _ops.check_float(logits_shard, "logits_shard")
    _ops.check_integer(target, "target")
    if axis is None:
        axis = 1 if logits_shard.ndim > 1 else 0
    shape = _ops.without(logits_shard.shape, axis, "logits_shard")
    axis %= logits_shard.ndim
    _ops.check_shape(target, shape, "target")
    _ops.check_shape(sample_weight, shape, "sample_weight")
    _ops.check_reduction(reduction, denominator, empty)
    _ops.check_smoothing(label_smoothing)
    if not 0.0 <= z_loss < inf:
        raise ValueError(f"z_loss must be at least 0 and finite, got {z_loss}")
    if target.device != logits_shard.device:
        raise ValueError(
            f"target must be on the device of logits_shard, {logits_shard.device}, got "
            f"{target.device}"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("group must be one that this process is a member of")
    size = torch.tensor([logits_shard.shape[axis]], device=logits_shard.device)
    sizes = _each_rank(size, group)[:, 0]
    bounds = [0, *torch.cumsum(sizes, 0).tolist()]
    # By every process, as the others would wait for one that refuses alone.
    for other, classes in enumerate(sizes.tolist()):
        if classes == 0:
            raise ValueError(f"logits_shard must have at least one class, has none at rank {other}")
    given, target = target, target.long()
    # A uint64 beyond int64 is negative now, and no class that could be ignored.
    beyond = (
        target < 0 if given.dtype == torch.uint64 else torch.zeros_like(target, dtype=torch.bool)
    )
    live = (target != ignore_index) | beyond
    if sample_weight is not None:
        live = live & (sample_weight != 0)
    wrong = live & ((target < 0) | (target >= bounds[-1]))
    if target.is_cpu and wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        name = f"target{list(place)}" if place else "target"
        raise IndexError(f"{name} = {given[place].item()} is out of range for {bounds[-1]} classes")
    start = bounds[rank]
    rules = Rules(axis, label_smoothing, z_loss, group, start, bounds[-1])
    losses: Tensor = _VocabParallel.apply(logits_shard, target, live, sizes, rules)
    losses = losses.masked_fill(wrong, nan)
    loss = composed.reduce(losses, live.double(), sample_weight, reduction, denominator, empty)
    return loss.to(_ops.result_type(logits_shard))
