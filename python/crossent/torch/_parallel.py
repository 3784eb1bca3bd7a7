"""Cross-entropy over classes that are spread over processes.

Each process summarises its slice of a row by its largest logit m_r and by R_r, the sum of
exp(x - m_r) over its other classes. Summaries merge: with M the largest m_r, of rank h,

    R = R_h + sum_{r != h} exp(m_r - M) (1 + R_r)
    loss = M - x_y + log1p(R)

is a sum of numbers that are not negative, so that nothing cancels, whatever the slices are. From M
and R comes the gradient of every slice. On CUDA fused kernels summarise, merge, and write it.
Elsewhere the kernels of whole rows do, called for slices: the share of the probability that a slice
has, s_r = exp(m_r - M) (1 + R_r) / (1 + R), times its own softmax is its part of the gradient; at
the target that is 1 - p_y = -expm1(-loss), from the merged loss.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from crossent import _core
from crossent.torch import _composed as composed
from crossent.torch import _ops

IGNORED = -100
# No class, whatever the sizes of the slices are.
LARGEST = torch.iinfo(torch.int64).max


class Rules(NamedTuple):
    """What a loss is of, beside its logits."""

    axis: int
    label_smoothing: float
    z_loss: float
    group: Any


class Targets(NamedTuple):
    """Where the targets are."""

    live: Tensor
    """Whether a row counts."""
    local: Tensor
    """Among the classes of this process; 0 where they are elsewhere."""
    here: Tensor


class Merged(NamedTuple):
    """What is known of the whole rows, in float64."""

    loss: Tensor
    top: Tensor
    rest: Tensor
    gap: Tensor
    """How far the target's logit is below the top."""


def _each_rank(x: Tensor, group: Any) -> Tensor:
    """What each process has, by ranks."""
    found = x.new_empty(dist.get_world_size(group), *x.shape)
    dist.all_gather(list(found), x.contiguous(), group=group)
    return found


def _to_host(x: Tensor) -> Callable[[], list[int]]:
    """What gives the numbers, which are copied while the device goes on: it waits for the copy."""
    if not x.is_cuda:
        return lambda: list(x.tolist())
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> list[int]:
        copied.synchronize()
        numbers: list[int] = host.tolist()
        return numbers

    return wait


def _check_sizes(sizes: list[int]) -> None:
    # By every process, as the others would wait for one that refuses alone.
    for rank, classes in enumerate(sizes):
        if classes == 0:
            raise ValueError(f"logits_shard must have at least one class, has none at rank {rank}")


def _fused(x: Tensor) -> bool:
    return x.is_cuda and _ops.HAS_TRITON


def _rest(x: Tensor, at: Tensor, axis: int) -> Tensor:
    """R of the slices, whose maximum is the class `at`, in float64: its error is one of the
    gradient."""
    if not x.is_cpu or _call(x, at, axis, 0.0)[2]:
        log_prob = composed.token_log_prob(x.double(), at, None, axis, 1.0, None)[0]
    else:
        answers, _ = _core.token_log_prob(
            _ops.array(x), _ops.array(at), axis, (1.0, None, None), False, None, None, True, False
        )
        log_prob = _ops.tensor(answers[0])
    return torch.expm1(-log_prob)


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
    tensors, options, composes = _call(x, at, axis, 0.0)
    if composes:
        needs = [True, False, False, False, False]
        found = _ops.derived(_ops.cross_entropy.formula, tensors, options, up, needs)[0]
        assert found is not None
        return found
    slope: Tensor = _ops.cross_entropy.op(*tensors, *options, up, 1)[1]
    return slope


def _summarise(x: Tensor, targets: Targets, rules: Rules) -> tuple[Tensor, Tensor]:
    """Of each row, in float64: the largest logit, R, the target's logit (0 where it is elsewhere),
    and the sum of top - x over the classes (0 where nobody asks for it). Then the class at the top.
    """
    axis, smooth = rules.axis, rules.label_smoothing > 0.0
    live, local, here = targets
    top, at = x.max(dim=axis)
    # Nor is a row looked at whose classes here are all ruled out: it has no part here.
    dead = ~live | (top == -inf)
    rest = _rest(x, at, axis).masked_fill(dead, 0.0)
    picked = x.gather(axis, local.unsqueeze(axis)).squeeze(axis)
    picked = picked.double().masked_fill(~here, 0.0)
    gaps = torch.zeros_like(rest)
    if smooth:
        mean = _cross_entropy(x, at, axis, 1.0)
        gaps = (mean.double() - torch.log1p(rest)) * x.shape[axis]
    return torch.stack([top.double(), rest, picked, gaps]), at.masked_fill(dead, IGNORED)


def _below(a: Tensor, top: Tensor) -> Tensor:
    """exp(a - top) of a <= top, 1 of equal infinities too."""
    gap = (a - top).masked_fill(a == top, 0.0)
    return torch.exp(gap) * (1.0 + composed.lost(a, top))


def _merge(packet: Tensor, live: Tensor, sizes: list[int], rules: Rules) -> Merged:
    tops, rests, picked, gaps = _each_rank(packet, rules.group).unbind(1)
    top = tops.amax(0)
    lower = _below(tops, top)
    parts = lower * (1.0 + rests)
    holder = (tops == top).int().argmax(0, keepdim=True)
    rest = parts.scatter(0, holder, rests.gather(0, holder)).sum(0)
    # Neither two infinite logits nor none above -inf have a softmax.
    rest = rest.masked_fill(((tops == inf).sum(0) > 1) | (top == -inf), nan)
    log = torch.log1p(rest)
    target = picked.sum(0)
    gap = (top - target).masked_fill(top == target, 0.0)
    loss, smoothing = gap + log, rules.label_smoothing
    if smoothing > 0.0:
        counts = top.new_tensor(sizes).view(-1, *(1,) * top.ndim)
        below = (counts * (top - tops).masked_fill(tops == top, 0.0)).sum(0)
        mean_gap = (gaps.masked_fill(tops == -inf, inf).sum(0) + below) / sum(sizes)
        sure = top.new_tensor(1.0 - smoothing)
        loss = log + composed.product(sure, gap) + smoothing * mean_gap
    if rules.z_loss:
        loss = loss + rules.z_loss * (top + log).square()
    return Merged(loss.masked_fill(~live, 0.0), top, rest, gap)


def _refuse_again() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("vocab_parallel_cross_entropy has no derivative of its gradient")


class _Fused(torch.autograd.Function):
    """The losses of rows by the fused kernels, which take the slices' sizes from the device."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, live: Tensor, sizes: Tensor, rules: Rules
    ) -> Tensor:
        kernels, rank = _ops.triton(), dist.get_rank(rules.group)
        targets = target.flatten(), live.flatten(), sizes
        packet = kernels.shard_summary(
            _ops.rows_of(x, rules.axis), *targets, rank, spread=rules.label_smoothing > 0.0
        )
        loss, merged = kernels.shard_merge(
            _each_rank(packet, rules.group), *targets, label_smoothing=rules.label_smoothing,
            z_loss=rules.z_loss,
        )  # fmt: skip
        ctx.rules, ctx.rank = rules, rank
        ctx.save_for_backward(x, *targets, merged)
        losses: Tensor = loss.reshape(target.shape)
        return losses

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_again()
        x, *targets, merged = ctx.saved_tensors
        rules: Rules = ctx.rules
        slope = _ops.triton().shard_slope(
            _ops.rows_of(x, rules.axis), *targets, ctx.rank, merged, g.flatten(),
            label_smoothing=rules.label_smoothing, z_loss=rules.z_loss,
        )  # fmt: skip
        return _ops.unrows(slope, x, rules.axis), None, None, None, None


class _VocabParallel(torch.autograd.Function):
    """The losses of rows, in float64. The gradient waits until its factors are known: it then reads
    the logits once more, and is written once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, live: Tensor, sizes: list[int], rules: Rules
    ) -> Tensor:
        local = target - sum(sizes[: dist.get_rank(rules.group)])
        here = live & (local >= 0) & (local < x.shape[rules.axis])
        targets = Targets(live, local.masked_fill(~here, 0), here)
        packet, at = _summarise(x, targets, rules)
        merged = _merge(packet, live, sizes, rules)
        ctx.rules, ctx.classes = rules, sum(sizes)
        ctx.save_for_backward(x, *targets, *merged[1:], packet[:2].clone(), at)
        return merged.loss

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_again()
        rules: Rules = ctx.rules
        x, live, local, here, top, rest, gap, own, at = ctx.saved_tensors
        axis, smoothing = rules.axis, rules.label_smoothing
        log = torch.log1p(rest)
        extra = 2.0 * rules.z_loss * (top + log) if rules.z_loss else torch.zeros_like(log)
        # A class at the top of this slice, and all of its classes.
        at_top = g * (1.0 + extra) * _below(own[0], top) / (1.0 + rest)
        at_top = at_top.masked_fill(~live, 0.0)
        factor = at_top * (1.0 + own[1])
        even = (g * (smoothing / ctx.classes)).masked_fill(~live, 0.0)
        wide = _ops.result_type(x)
        # What smoothing takes off, a rounding to 16 bits would come before.
        given = x.to(wide) if smoothing > 0.0 else x
        slope = _gradient(given, at, axis, factor.to(wide))
        # No softmax, and a slice of which nothing was looked at.
        lost = torch.isnan(factor) & (at == IGNORED)
        if lost.any():
            slope.masked_fill_(lost.unsqueeze(axis), nan)
        first = at.clamp(min=0)
        slope.scatter_(axis, first.unsqueeze(axis), at_top.to(slope.dtype).unsqueeze(axis))
        if smoothing > 0.0:
            slope.sub_(even.to(wide).unsqueeze(axis))
        # 1 - p of the target by itself: nothing cancels so.
        p, other = torch.exp(-(gap + log)), -torch.expm1(-(gap + log))
        at_target = g * ((extra + smoothing) * p - (1.0 - smoothing) * other) - even
        index = torch.where(here, local, first).unsqueeze(axis)
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

    Slices are merged by one gathering of four numbers a row and process; another, for which the
    host waits, is of their sizes, which may differ. Every process of the group calls the function
    at the same time, with the same targets and options. The gradient takes no memory but its own,
    in the backward pass, and has no derivative.

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
        IndexError: For a class index out of range, on the CPU; on a GPU the row's loss is NaN.

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
    if dist.get_rank(group) < 0:
        raise ValueError("group must be one that this process is a member of")
    size = torch.full((1,), logits_shard.shape[axis], device=logits_shard.device)
    sizes = _each_rank(size, group)[:, 0]
    known = _to_host(sizes)
    given, target = target, composed.indices(target, LARGEST)
    live = target != ignore_index
    if sample_weight is not None:
        live &= sample_weight != 0
    rules = Rules(axis, label_smoothing, z_loss, group)
    losses: Tensor
    if _fused(logits_shard):
        losses = _Fused.apply(logits_shard, target, live, sizes, rules)
        # Late, so that the device has its work while this waits for what it did before.
        _check_sizes(known())
    else:
        counts = known()
        _check_sizes(counts)
        wrong = live & ((target < 0) | (target >= sum(counts)))
        if target.is_cpu and wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            name = f"target{list(place)}" if place else "target"
            raise IndexError(
                f"{name} = {given[place].item()} is out of range for {sum(counts)} classes"
            )
        losses = _VocabParallel.apply(logits_shard, target, live, counts, rules)
        losses = losses.masked_fill(wrong, nan)
    loss = composed.reduce(losses, live.double(), sample_weight, reduction, denominator, empty)
    return loss.to(_ops.result_type(logits_shard))
