"""Fused kernels for torch tensors, in Triton.

The arithmetic is that of the CPU engine (docs/numerics.md). With `m` a row's largest logit and
`R` the sum of `exp(x_c - m)` over all classes but one at the maximum,

    logsumexp = m + log1p(R)        loss = (m - x_y) + log1p(R)

so that nothing cancels and a small `R` keeps its last bit. A program has whole rows, or a tile of
rows where classes are few. A first sweep over blocks of classes finds the maximum and the sum of
the exponentials beside it, in one read; what is one number a row is computed in float64; a second
sweep, where a gradient is wanted, writes it. Sums over rows are taken in float64, in an order that
the shape fixes.

16-bit logits are computed in float32: their losses are float32, their gradients have their type.
Logits may have any stride between rows; if classes are not neighbours, they are copied first.
Nothing here waits for the GPU, and so no value is checked: where a target is no class, the row's
loss and gradient are NaN.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Elements of a block, without and with a gradient: programs are small and many, so that some load
# while others compute.
LOSS_BLOCK = 2048
GRAD_BLOCK = 2048
# Elements of a tile of short rows, of a thread, and of a program of elementwise work. Kernels that
# keep more numbers for each element, or wider ones, have half.
TILE = 1024
THREAD = 32
CHUNK = 1024
# Of cross_entropy's sweeps: blocks in flight, whether the caches are told what is read again, and a
# limit of the registers of a thread.
STAGES = 3
HINTS = True
REGISTERS: int | None = None
# Elements that the one program of a sum reads at a time.
SUM_BLOCK = 4096
# Rows that a program merges the summaries of.
MERGE_BLOCK = 128
# Programs that scale a tensor: some for each processor of the largest devices.
SCALERS = 2048

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
INDICES = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}

_INFINITY = tl.constexpr(float("inf"))
_LOG2E = tl.constexpr(1.4426950408889634)
# The same in two parts, the first short enough that its products with 16-bit floats are exact.
_LOG2E_HIGH = tl.constexpr(5909 / 4096)
_LOG2E_LOW = tl.constexpr(6.808776396336896e-05)
# log 2 in two parts, the first short enough that its products with exponents are exact.
_LN2_HIGH_32 = tl.constexpr(0.693359375)
_LN2_LOW_32 = tl.constexpr(-2.1219444005469058e-4)
_LN2_HIGH_64 = tl.constexpr(float.fromhex("0x1.62e42feep-1"))
_LN2_LOW_64 = tl.constexpr(float.fromhex("0x1.a39ef35793c76p-33"))
# Adding 1.5 times 2 to the mantissa's digits rounds to an integer, and leaves it in the low bits.
_ROUND_32 = tl.constexpr(12582912.0)
_ROUND_64 = tl.constexpr(6755399441055744.0)
# Maxima beyond this are subtracted: they would not leave room for exponents, and where it matters
# the difference is exact.
_LARGE = tl.constexpr(4096.0)
# Exponentials are kept as 2^room of themselves, for the smallest losses and gradients; those of
# logits further than the reach below the maximum are 0 in the end.
_ROOM_32 = tl.constexpr(64)
_ROOM_64 = tl.constexpr(500)
_UNROOM_32 = tl.constexpr(2.0**-64)
_UNROOM_64 = tl.constexpr(2.0**-500)
_RAISE_32 = tl.constexpr(2.0**64)
_REACH_32 = tl.constexpr(128.0)
_REACH_64 = tl.constexpr(1000.0)


# Elementary functions


@triton.jit
def _whole(v):
    """The nearest integer."""
    if v.dtype == tl.float64:
        out = (v + _ROUND_64) - _ROUND_64
    else:
        out = (v + _ROUND_32) - _ROUND_32
    return out


@triton.jit
def _over(a, b):
    """a / b, rounded to nearest, which Triton's own quotient of float32 is not."""
    if b.dtype == tl.float64:
        out = a / b
    else:
        out = tl.div_rn(a, b)
    return out


@triton.jit
def _room(v):
    """2^-room, in float64."""
    if v.dtype == tl.float64:
        out = tl.full([1], _UNROOM_64, tl.float64)
    else:
        out = tl.full([1], _UNROOM_32, tl.float64)
    return out


@triton.jit
def _reach(v):
    """`v`, less the reach."""
    if v.dtype == tl.float64:
        out = v - _REACH_64
    else:
        out = v - _REACH_32
    return out


@triton.jit
def _exp(y, k, HALF: tl.constexpr):
    """exp(y) 2^(room - k). Each y is reduced on its own, and the integer k subtracted from an
    exponent: y less a maximum would be rounded, which costs up to half of it in ulp. What rounds to
    an integer also adds the room, k and the bias, so that its low bits are the exponent's. With
    HALF, y is a 16-bit float, and the hardware's exp2, of about 2 ulp, stands for the polynomial.
    """
    if y.dtype == tl.float64:
        round = _ROUND_64 + (_ROOM_64 + 1023 - k)
        big = y * _LOG2E + round
        n = big - round
        r = (y - n * _LN2_HIGH_64) - n * _LN2_LOW_64
        scale = (big.to(tl.int64, bitcast=True) << 52).to(tl.float64, bitcast=True)
        out = tl.exp(r) * scale
    else:
        round = _ROUND_32 + (_ROOM_32 + 127 - k)
        big = y * _LOG2E + round
        n = big - round
        scale = (big.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)
        if HALF:
            out = tl.exp2((y * _LOG2E_HIGH - n) + y * _LOG2E_LOW) * scale
        else:
            r = (y - n * _LN2_HIGH_32) - n * _LN2_LOW_32
            q = 0.0013814548728987575 * r + 0.008368748240172863
            q = q * r + 0.04166839271783829
            q = q * r + 0.1666651964187622
            q = q * r + 0.4999999403953552
            out = (1.0 + (r + r * r * q)) * scale
    return out


@triton.jit
def _exp_below(y):
    """exp(y) of y <= 0."""
    low = tl.maximum(y, _reach(tl.zeros_like(y)), propagate_nan=tl.PropagateNan.ALL)
    if y.dtype == tl.float64:
        out = _exp(low, tl.zeros_like(y), False) * _UNROOM_64
    else:
        out = _exp(low, tl.zeros_like(y), False) * _UNROOM_32
    return out


@triton.jit
def _excess_of(u, TERMS: tl.constexpr):
    out = 1.0 + u * (1.0 / TERMS)
    for n in tl.static_range(TERMS - 1, 2, -1):
        out = 1.0 + out * u * (1.0 / n)
    return 0.5 * u * u * out


@triton.jit
def _excess(u):
    """exp(u) - 1 - u of |u| <= 1, by its series."""
    if u.dtype == tl.float64:
        out = _excess_of(u, 19)
    else:
        out = _excess_of(u, 11)
    return out


@triton.jit
def _log1p(r):
    """log(1 + r) of r >= 0 in float64: what rounding 1 + r lost is a factor of the result."""
    w = 1.0 + r
    out = tl.log(w) * (r / (w - 1.0))
    return tl.where((w == 1.0) | (r == _INFINITY), r, out)


@triton.jit
def _log1p_share(e):
    """log(1 + e) of e in [0, 1]."""
    if e.dtype == tl.float64:
        out = _log1p(e)
    else:
        # 2 atanh(s)
        s = _over(e, 2.0 + e)
        q = s * s
        p = 0.24290494620800018 * q + 0.21430496871471405
        p = p * q + 0.2861661911010742
        p = p * q + 0.39998888969421387
        p = p * q + 0.6666667461395264
        out = 2.0 * s + s * q * p
    return out


@triton.jit
def _softcap(x, cap, cap_inverse):
    """cap tanh(x / cap), and its derivative 1 - tanh^2 = 4 e / (1 + e)^2, e = exp(-2 |x / cap|)."""
    v = -2.0 * tl.abs(x * cap_inverse)
    far = _exp_below(v)
    near = v + _excess(v)
    less = tl.where(v > -1.0, near, far - 1.0)
    e = tl.where(v > -1.0, 1.0 + near, far)
    tanh = _over(-less, 2.0 + less)
    slope = _over(4.0 * e, (1.0 + e) * (1.0 + e))
    # Where the rounding of the square would have it above.
    slope = tl.minimum(slope, 1.0, propagate_nan=tl.PropagateNan.ALL)
    return cap * tl.where(x < 0.0, -tanh, tanh), slope


# Summaries of rows


@triton.jit
def _unit(m):
    """What the exponentials of a row with the maximum m are measured in: exp(offset) 2^k. Returns
    the offset, the maximum less the offset, and k."""
    small = tl.where(tl.abs(m) > _LARGE, tl.zeros_like(m), m)
    offset = tl.where(m == -_INFINITY, tl.zeros_like(m), m - small)
    return offset, small, _whole(small * _LOG2E)


@triton.jit
def _own(small, k):
    """The exponential of the maximum itself in its unit, in float64."""
    k = k.to(tl.float64)
    return tl.exp((small.to(tl.float64) - k * _LN2_HIGH_64) - k * _LN2_LOW_64)


@triton.jit
def _lift(m, new, rest, ties, gaps):
    """A summary in the unit of a larger maximum. Where m is -inf, nothing but ties was seen."""
    offset, _, k = _unit(m)
    new_offset, _, new_k = _unit(new)
    steps = k.to(tl.float64) - new_k.to(tl.float64)
    way = offset.to(tl.float64) - new_offset.to(tl.float64)
    ln2 = steps * _LN2_HIGH_64 + steps * _LN2_LOW_64
    ratio = tl.where(offset == new_offset, tl.exp2(steps), tl.exp(way + ln2))
    ratio = tl.where(m == -_INFINITY, tl.zeros_like(ratio), ratio)
    own = _own(m - new_offset, new_k) / _room(m)
    grew = new > m
    lifted = rest * ratio + ties * own
    rise = tl.where(m == -_INFINITY, tl.zeros_like(m), new - m).to(tl.float64)
    gaps = tl.where(grew, gaps * ratio + rise * lifted, gaps)
    return tl.where(grew, lifted, rest), tl.where(grew, tl.zeros_like(ties), ties), gaps


@triton.jit
def _any(condition):
    """Whether it holds of a row, as one value for the whole program."""
    return tl.max(condition.to(tl.int32), axis=0) > 0


@triton.jit
def _reduced(x, offset, small):
    """x less the offset, but within reach. Offsets other than 0 are rare."""
    y = x
    if _any(offset != 0.0):
        y = tl.where(x == _INFINITY, x, x - offset[:, None])
    return tl.maximum(y, _reach(small)[:, None], propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _absorb(x, m, rest, ties, gaps, HALF: tl.constexpr, GAPS: tl.constexpr):
    """The summary of rows and of one more block of their classes: the maximum, the sum of the
    exponentials below it (in its unit), how many classes are at it, and with GAPS the sum of
    exp(x) (m - x). Only in blocks that have the maximum are elements compared with it."""
    top = tl.max(x, axis=1)
    # Not tl.maximum: it depends on the backend what becomes of a NaN.
    new = tl.where(top > m, top, m)
    if _any(top > m):
        rest, ties, gaps = _lift(m, new, rest, ties, gaps)
    offset, small, k = _unit(new)
    y = _reduced(x, offset, small)
    e = _exp(y, k[:, None], HALF)
    below = tl.sum(e, axis=1)
    if GAPS:
        far = tl.sum(e * (small[:, None] - y), axis=1)
    if _any(top == new):
        at = y >= small[:, None]
        zero = tl.zeros_like(e)
        below = tl.sum(tl.where(at, zero, e), axis=1)
        if GAPS:
            far = tl.sum(tl.where(at, zero, e * (small[:, None] - y)), axis=1)
        ties += tl.sum(at.to(tl.int32), axis=1).to(tl.float64)
    rest += below.to(tl.float64)
    if GAPS:
        gaps += far.to(tl.float64)
    return new, rest, ties, gaps


@triton.jit
def _odds(m, rest, ties):
    """R, and the maximum's exponential with its room. One infinite logit is a limit; two, or none
    that is finite, are nothing."""
    _, small, k = _unit(m)
    own = _own(small, k) / _room(m)
    odds = rest / own + (ties - 1.0)
    none = (m == -_INFINITY) | ((m == _INFINITY) & (ties > 1.0))
    return tl.where(none, tl.full(odds.shape, float("nan"), tl.float64), odds), own


@triton.jit
def _exp_again(x, m, own, HALF: tl.constexpr):
    """The exponentials of a block of a row that is summarised, and how far below the maximum."""
    offset, small, k = _unit(m)
    y = _reduced(x, offset, small)
    at = y >= small[:, None]
    e = tl.where(at, own.to(x.dtype)[:, None], _exp(y, k[:, None], HALF))
    return e, tl.where(at, tl.zeros_like(x), small[:, None] - y)


@triton.jit
def _slope_unit(own, HALF: tl.constexpr):
    """The maximum's exponential among those of _exp_slope."""
    if HALF:
        own = tl.full(own.shape, _RAISE_32, tl.float64)
    return own


@triton.jit
def _exp_slope(x, m, own, HALF: tl.constexpr):
    """As _exp_again, for gradients: those of 16-bit logits are rounded to 16 bits, and so one
    product and the hardware's exp2 suffice, which costs up to 2^-17 of the result."""
    if HALF:
        y = x - m[:, None]
        e = tl.exp2(y * _LOG2E + _ROOM_32)
        if _any(m == _INFINITY):
            at = x == m[:, None]
            y = tl.where(at, 0.0, y)
            e = tl.where(at, _RAISE_32, e)
        far = -tl.maximum(y, -_REACH_32)
    else:
        e, far = _exp_again(x, m, own, False)
    return e, far


@triton.jit
def _bounded(d, bound, HALF: tl.constexpr):
    """A multiple of probabilities, no further from 0 than the factor. The rounding of the maximum's
    exponential may take it there; with HALF that is a power of two."""
    if not HALF:
        limit = tl.abs(bound)[:, None]
        d = tl.minimum(d, limit, propagate_nan=tl.PropagateNan.ALL)
        d = tl.maximum(d, -limit, propagate_nan=tl.PropagateNan.ALL)
    return d


@triton.jit
def _load(row, cols, inside, T: tl.constexpr, KEEP: tl.constexpr):
    """A block of logits; with KEEP it is asked to stay in the second-level cache."""
    at = row[:, None] + cols[None, :]
    if KEEP:
        x = tl.load(at, mask=inside, other=float("-inf"), eviction_policy="evict_last")
    else:
        x = tl.load(at, mask=inside, other=float("-inf"))
    return x.to(T)


@triton.jit
def _load_last(row, cols, inside, T: tl.constexpr, HINTS: tl.constexpr):
    """A block of logits that nobody reads again."""
    at = row[:, None] + cols[None, :]
    if HINTS:
        x = tl.load(at, mask=inside, other=float("-inf"), eviction_policy="evict_first")
    else:
        x = tl.load(at, mask=inside, other=float("-inf"))
    return x.to(T)


@triton.jit
def _store(row, cols, inside, values, HINTS: tl.constexpr):
    at = row[:, None] + cols[None, :]
    if HINTS:
        tl.store(at, values, mask=inside, eviction_policy="evict_first")
    else:
        tl.store(at, values, mask=inside)


@triton.jit
def _inside(there, cols, classes, TAIL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """What a block has of its rows: all of it, where it is not at their end."""
    if TAIL:
        inside = there[:, None] & (cols < classes)[None, :]
    else:
        inside = tl.full([ROWS, BLOCK], True, tl.int1)
    return inside


@triton.jit
def _set_target(out, y, values, live):
    """Stores the gradient of target classes, when that of all classes has been."""
    tl.debug_barrier()
    tl.store(out + y, values, mask=live)


@triton.jit
def _target(target, weight, rows, there, classes, ignore, WEIGHT: tl.constexpr):
    """The class of rows, whether they count, and their weight: NaN where the class is none."""
    y = tl.load(target + rows, mask=there, other=0).to(tl.int64)
    live = there & (y != ignore)
    valid = live & (y >= 0) & (y < classes)
    y = tl.where(valid, y, tl.zeros_like(y))
    if WEIGHT:
        hard = tl.load(weight + y, mask=valid, other=0.0).to(tl.float64)
    else:
        hard = tl.full(y.shape, 1.0, tl.float64)
    hard = tl.where(live & (valid == 0), tl.full(y.shape, float("nan"), tl.float64), hard)
    return y, live, hard


@triton.jit
def _not_target(picked, gap, m, ties, odds):
    """1 - p of the target, and p: the sum of the others where it alone is the maximum."""
    alone = (picked == m) & (ties == 1.0)
    p = tl.exp(-gap) / (1.0 + odds)
    return tl.where(alone, odds / (1.0 + odds), 1.0 - p), p


# Kernels


@triton.jit(do_not_specialize=["ignore"])
def _denominator_kernel(target, weight, out, n, classes, ignore, WEIGHT: tl.constexpr,
                        BLOCK: tl.constexpr):  # fmt: skip
    """The sum of the weights of the rows that count."""
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, n, BLOCK):
        rows = start + tl.arange(0, BLOCK).to(tl.int64)
        _, live, hard = _target(target, weight, rows, rows < n, classes, ignore, WEIGHT)
        total += tl.where(live, hard, tl.zeros_like(hard))
    tl.store(out, tl.sum(total, axis=0))


@triton.jit
def _total_kernel(values, denominator, out, n, count, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of values in float64; with MEAN "pointer" or "count", over a denominator."""
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK).to(tl.int64)
        total += tl.load(values + at, mask=at < n, other=0.0)
    result = tl.sum(total, axis=0)
    if MEAN == "pointer":
        # Nothing by nothing: smoothing and z-loss have a part in rows without weight, too.
        over = tl.load(denominator)
        result = tl.where(over == 0.0, 0.0, result) / over
    if MEAN == "count":
        result = result / count
    tl.store(out, result)


@triton.jit
def _scale_kernel(x, factor, n, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr):
    """x times a factor, in place; nothing is read or written where that is 1. Of 0 it stays 0."""
    T: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    by = tl.load(factor).to(T)
    if by != 1.0:
        first = tl.program_id(0).to(tl.int64) * BLOCK
        for start in range(first, n, PROGRAMS * BLOCK):
            at = start + tl.arange(0, BLOCK)
            values = tl.load(x + at, mask=at < n).to(T)
            values = tl.where(values == 0.0, values, values * by)
            tl.store(x + at, values.to(x.dtype.element_ty), mask=at < n)


@triton.jit(do_not_specialize=["ignore"])
def _cross_entropy_kernel(
    logits, logits_stride, target, target_stride, weight, settings, denominator, loss, grad,
    grad_stride, n, classes, ignore, T: tl.constexpr, HALF: tl.constexpr, SOFT: tl.constexpr,
    WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, Z: tl.constexpr, CAP: tl.constexpr,
    WARM: tl.constexpr, MEAN: tl.constexpr, GRAD: tl.constexpr, STAGES: tl.constexpr,
    HINTS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """loss = sum_c q_c (m - x_c) + M log1p(R) + z logsumexp^2, M the sum of the masses q; and its
    gradient g (M p - q + 2 z logsumexp p). With a target class, q is its weight there, and what
    smoothing spreads over all classes."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < n
    row = logits + rows * logits_stride
    masses = target + rows * target_stride
    if SMOOTH:
        share = tl.load(settings)
        even = tl.load(settings + 1)
    if CAP:
        cap = tl.load(settings + 3).to(T)
        cap_inverse = tl.load(settings + 4).to(T)
    if WARM:
        warm = tl.load(settings + 5).to(T)
    if SOFT:
        live = there
    else:
        y, live, hard = _target(target, weight, rows, there, classes, ignore, WEIGHT)
        picked = tl.load(row + y, mask=live, other=0.0).to(T)
        if CAP:
            picked, picked_slope = _softcap(picked, cap, cap_inverse)
        if WARM:
            picked = picked * warm
        if SMOOTH:
            hard = hard * share

    # A tile of rows that are ignored is not even read.
    limit = tl.where(_any(live), classes, 0)
    # Whole blocks of one row need no masks.
    whole = limit // BLOCK * BLOCK if ROWS == 1 else 0
    m = tl.full([ROWS], -_INFINITY, T)
    rest = tl.zeros([ROWS], tl.float64)
    ties = tl.zeros([ROWS], tl.float64)
    gaps = tl.zeros([ROWS], tl.float64)
    mass = tl.zeros([ROWS], tl.float64)
    spread = tl.zeros([ROWS], tl.float64)
    for TAIL in tl.static_range(0 if ROWS == 1 else 1, 2):
        first, last = (whole, limit) if TAIL else (0, whole)
        for start in tl.range(first, last, BLOCK, num_stages=1 if TAIL else STAGES):
            cols = start + tl.arange(0, BLOCK)
            inside = _inside(live, cols, classes, TAIL, ROWS, BLOCK)
            x = _load(row, cols, inside, T, GRAD and HINTS)
            if CAP:
                capped, _ = _softcap(x, cap, cap_inverse)
                x = tl.where(inside, capped, -_INFINITY)
            if WARM:
                x = x * warm
            old = m
            m, rest, ties, gaps = _absorb(x, m, rest, ties, gaps, HALF, False)
            if SOFT or SMOOTH:
                if SOFT:
                    q = tl.load(masses[:, None] + cols[None, :], mask=inside, other=0.0).to(T)
                    if SMOOTH:
                        q = q * share.to(T) + even.to(T)
                else:
                    q = tl.zeros_like(x) + even.to(T)
                if WEIGHT:
                    q = q * tl.load(weight + cols, mask=cols < classes, other=0.0).to(T)[None, :]
                q = tl.where(inside, q, tl.zeros_like(q))
                # A mass of nothing makes no loss, however far its class.
                far = tl.where((q == 0.0) | (x == m[:, None]), tl.zeros_like(x), m[:, None] - x)
                moved = (m > old) & (mass != 0.0)
                spread += tl.where(moved, mass * (m.to(tl.float64) - old.to(tl.float64)), 0.0)
                spread += tl.sum(q * far, axis=1).to(tl.float64)
                mass += tl.sum(q, axis=1).to(tl.float64)

    odds, own = _odds(m, rest, ties)
    log = _log1p(odds)
    value = spread
    if not SOFT:
        gap = tl.where(picked == m, 0.0, m.to(tl.float64) - picked.to(tl.float64))
        other, p = _not_target(picked, gap, m, ties, odds)
        value += tl.where(hard == 0.0, 0.0, hard * gap)
        all_mass = mass + hard
    else:
        all_mass = mass
    value += all_mass * log
    if Z:
        z = tl.load(settings + 2)
        log_sum = m.to(tl.float64) + log
        value += z * log_sum * log_sum
    tl.store(loss + rows, tl.where(live, value, 0.0), mask=there)

    if GRAD:
        g = tl.full([ROWS], 1.0, tl.float64)
        if MEAN == "pointer":
            # Where nothing counts there is nothing to differentiate.
            over = tl.load(denominator)
            g = tl.where(over == 0.0, 0.0, g / over)
        if MEAN == "count":
            g = g / n
        if WARM:
            g = g * tl.load(settings + 5)
        pull = all_mass
        if Z:
            pull += 2.0 * z * log_sum
        a = (g * pull / (_slope_unit(own, HALF) * (1.0 + odds))).to(T)
        bound = (g * pull).to(T)
        b = g.to(T)
        # What is not read has a gradient of 0.
        a = tl.where(live, a, tl.zeros_like(a))
        b = tl.where(live, b, tl.zeros_like(b))
        bound = tl.where(live, bound, tl.zeros_like(bound))
        m = tl.where(live, m, tl.zeros_like(m))
        if not SOFT:
            at_target = -hard * other + mass * p
            if SMOOTH:
                q_target = tl.zeros_like(hard) + even
                if WEIGHT:
                    q_target = q_target * tl.load(weight + y, mask=live, other=0.0).to(tl.float64)
                at_target -= q_target
            if Z:
                at_target += 2.0 * z * log_sum * p
            at_target = g * at_target
            if CAP:
                at_target = at_target * picked_slope.to(tl.float64)
            at_target = at_target.to(T)
        out = grad + rows * grad_stride
        for TAIL in tl.static_range(0 if ROWS == 1 else 1, 2):
            first, last = (whole, classes) if TAIL else (0, whole)
            for start in tl.range(first, last, BLOCK, num_stages=1 if TAIL else STAGES):
                cols = start + tl.arange(0, BLOCK)
                inside = _inside(there, cols, classes, TAIL, ROWS, BLOCK)
                read = _inside(live, cols, classes, TAIL, ROWS, BLOCK)
                x = _load_last(row, cols, read, T, HINTS)
                if CAP:
                    x, slope = _softcap(x, cap, cap_inverse)
                if WARM:
                    x = x * warm
                e, _ = _exp_slope(x, m, own, HALF)
                d = a[:, None] * e
                if SOFT or SMOOTH:
                    if SOFT:
                        q = tl.load(masses[:, None] + cols[None, :], mask=inside, other=0.0).to(T)
                        if SMOOTH:
                            q = q * share.to(T) + even.to(T)
                    else:
                        q = tl.zeros_like(x) + even.to(T)
                    if WEIGHT:
                        w = tl.load(weight + cols, mask=cols < classes, other=0.0).to(T)
                        q = q * w[None, :]
                    d = d - b[:, None] * q
                else:
                    d = _bounded(d, bound, HALF)
                if CAP:
                    d = d * slope
                _store(out, cols, inside, d, HINTS)
        if not SOFT:
            _set_target(out, y, at_target, live)


@triton.jit
def _shard_target(target, live, sizes, rank, rows, there, classes, WORLD: tl.constexpr):
    """Whether rows count, whether their target is in this slice of the classes, and where."""
    ranks = tl.arange(0, WORLD)
    start = tl.sum(tl.load(sizes + ranks, mask=ranks < rank, other=0), axis=0)
    counted = tl.load(live + rows, mask=there, other=0) != 0
    y = tl.load(target + rows, mask=there, other=0) - start
    here = counted & (y >= 0) & (y < classes)
    return counted, here, tl.where(here, y, tl.zeros_like(y))


@triton.jit(do_not_specialize=["rank"])
def _shard_summary_kernel(
    logits, logits_stride, target, live, sizes, packet, n, classes, rank, T: tl.constexpr,
    HALF: tl.constexpr, SMOOTH: tl.constexpr, WORLD: tl.constexpr, STAGES: tl.constexpr,
    HINTS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of slices of rows, in float64: the maximum, R (0 of a slice without a logit above -inf), the
    target's logit (0 where it is in no class here), and with SMOOTH the sum of m - x."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < n
    row = logits + rows * logits_stride
    counted, here, y = _shard_target(target, live, sizes, rank, rows, there, classes, WORLD)
    picked = tl.load(row + y, mask=here, other=0.0).to(tl.float64)
    limit = tl.where(_any(counted), classes, 0)
    whole = limit // BLOCK * BLOCK if ROWS == 1 else 0
    m = tl.full([ROWS], -_INFINITY, T)
    rest = tl.zeros([ROWS], tl.float64)
    ties = tl.zeros([ROWS], tl.float64)
    gaps = tl.zeros([ROWS], tl.float64)
    spread = tl.zeros([ROWS], tl.float64)
    for TAIL in tl.static_range(0 if ROWS == 1 else 1, 2):
        first, last = (whole, limit) if TAIL else (0, whole)
        for block in tl.range(first, last, BLOCK, num_stages=1 if TAIL else STAGES):
            cols = block + tl.arange(0, BLOCK)
            inside = _inside(counted, cols, classes, TAIL, ROWS, BLOCK)
            x = _load(row, cols, inside, T, HINTS)
            old = m
            m, rest, ties, gaps = _absorb(x, m, rest, ties, gaps, HALF, False)
            if SMOOTH:
                level = (x == m[:, None]) | (inside == 0)
                far = tl.where(level, tl.zeros_like(x), m[:, None] - x)
                rise = block * (m.to(tl.float64) - old.to(tl.float64))
                spread += tl.where((m > old) & (block > 0), rise, 0.0)
                spread += tl.sum(far, axis=1).to(tl.float64)
    odds, _ = _odds(m, rest, ties)
    # What is summed where nothing is above -inf is NaN or nothing.
    odds = tl.where((m == -_INFINITY) & (rest == rest), 0.0, odds)
    tl.store(packet + rows, tl.where(counted, m.to(tl.float64), 0.0), mask=there)
    tl.store(packet + n + rows, tl.where(counted, odds, 0.0), mask=there)
    tl.store(packet + 2 * n + rows, picked, mask=there)
    tl.store(packet + 3 * n + rows, tl.where(counted, spread, 0.0), mask=there)


@triton.jit
def _shard_merge_kernel(
    packets, sizes, target, live, settings, loss, merged, n, world, SMOOTH: tl.constexpr,
    Z: tl.constexpr, WORLD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From the summaries of the slices, in float64: the losses of whole rows, their maximum, R, and
    how far the target's logit is below the maximum."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = rows < n
    top = tl.full([BLOCK], -_INFINITY, tl.float64)
    picked = tl.zeros([BLOCK], tl.float64)
    packet = packets + rows
    for _rank in range(world):
        m = tl.load(packet, mask=there, other=0.0)
        top = tl.where(m > top, m, top)
        picked += tl.load(packet + 2 * n, mask=there, other=0.0)
        packet += 4 * n
    rest = tl.zeros([BLOCK], tl.float64)
    spread = tl.zeros([BLOCK], tl.float64)
    holders = tl.zeros([BLOCK], tl.int32)
    packet = packets + rows
    for r in range(world):
        m = tl.load(packet, mask=there, other=0.0)
        own = tl.load(packet + n, mask=there, other=0.0)
        same = m == top
        lower = tl.where(same, 0.0, m - top)
        # What rounding the difference took (TwoSum: Knuth) counts in its exponential.
        seen = lower - m
        lost = (m - (lower - seen)) - (top + seen)
        lost = tl.where(same | (lower == -_INFINITY), 0.0, lost)
        part = tl.exp(lower) * (1.0 + lost) * (1.0 + own)
        rest += tl.where(same & (holders == 0), own, part)
        holders += same.to(tl.int32)
        if SMOOTH:
            far = tl.load(packet + 3 * n, mask=there, other=0.0)
            spread += tl.where(m == -_INFINITY, _INFINITY, far)
            spread -= tl.load(sizes + r).to(tl.float64) * lower
        packet += 4 * n
    ranks = tl.arange(0, WORLD)
    classes = tl.sum(tl.load(sizes + ranks, mask=ranks < world, other=0), axis=0)
    counted = tl.load(live + rows, mask=there, other=0) != 0
    y = tl.load(target + rows, mask=there, other=0)
    # No softmax, or no class.
    none = (top == -_INFINITY) | ((top == _INFINITY) & (holders > 1)) | (y < 0) | (y >= classes)
    rest = tl.where(counted & none, float("nan"), rest)
    log = _log1p(rest)
    gap = tl.where(top == picked, 0.0, top - picked)
    value = gap + log
    if SMOOTH:
        share = tl.load(settings)
        value = log + tl.where(share == 0.0, 0.0, share * gap)
        value += tl.load(settings + 1) * (spread / classes)
    if Z:
        value += tl.load(settings + 2) * (top + log) * (top + log)
    tl.store(loss + rows, tl.where(counted, value, 0.0), mask=there)
    tl.store(merged + rows, top, mask=there)
    tl.store(merged + n + rows, rest, mask=there)
    tl.store(merged + 2 * n + rows, gap, mask=there)


@triton.jit(do_not_specialize=["rank"])
def _shard_slope_kernel(
    logits, logits_stride, target, live, sizes, merged, up, settings, grad, grad_stride, n,
    classes, world, rank, T: tl.constexpr, HALF: tl.constexpr, SMOOTH: tl.constexpr,
    Z: tl.constexpr, WORLD: tl.constexpr, STAGES: tl.constexpr, HINTS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of slices of rows whose maximum, R and gap of the target are known, times an
    upstream gradient a row: g ((1 + 2 z logsumexp) p - q)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < n
    row = logits + rows * logits_stride
    counted, here, y = _shard_target(target, live, sizes, rank, rows, there, classes, WORLD)
    g = tl.load(up + rows, mask=counted, other=0.0)
    highest = tl.load(merged + rows, mask=counted, other=0.0)
    odds = tl.load(merged + n + rows, mask=counted, other=0.0)
    below = tl.load(merged + 2 * n + rows, mask=counted, other=0.0)
    m = highest.to(T)
    # The offset by a name that no loop has.
    _offset, small, k = _unit(m)
    own = _own(small, k) / _room(m)
    p = tl.exp(-below) / (1.0 + odds)
    # Not the maximum's class it has half of the probability at most, and nothing cancels.
    other = tl.where(below == 0.0, odds / (1.0 + odds), 1.0 - p)
    pull = tl.full([ROWS], 1.0, tl.float64)
    if Z:
        pull += 2.0 * tl.load(settings + 2) * (highest + _log1p(odds))
    at_target = (pull - 1.0) * p - other
    if SMOOTH:
        ranks = tl.arange(0, WORLD)
        whole_classes = tl.sum(tl.load(sizes + ranks, mask=ranks < world, other=0), axis=0)
        share = tl.load(settings)
        even = tl.load(settings + 1) / whole_classes
        at_target = (pull - share) * p - share * other - even
        b = (g * even).to(T)
    at_target = g * at_target
    a = (g * pull / (_slope_unit(own, HALF) * (1.0 + odds))).to(T)
    bound = (g * pull).to(T)
    whole = tl.where(_any(counted), classes, 0) // BLOCK * BLOCK if ROWS == 1 else 0
    out = grad + rows * grad_stride
    for TAIL in tl.static_range(0 if ROWS == 1 else 1, 2):
        first, last = (whole, classes) if TAIL else (0, whole)
        for block in tl.range(first, last, BLOCK, num_stages=1 if TAIL else STAGES):
            cols = block + tl.arange(0, BLOCK)
            inside = _inside(there, cols, classes, TAIL, ROWS, BLOCK)
            read = _inside(counted, cols, classes, TAIL, ROWS, BLOCK)
            x = _load_last(row, cols, read, T, HINTS)
            e, _ = _exp_slope(x, m, own, HALF)
            d = _bounded(a[:, None] * e, bound, HALF)
            if SMOOTH:
                d = d - b[:, None]
            _store(out, cols, inside, d, HINTS)
    _set_target(out, y, at_target.to(T), here)


@triton.jit
def _token_kernel(
    logits, logits_stride, target, log_prob, entropy, log_sum_exp, rank, grad, grad_stride,
    up_log_prob, up_entropy, n, classes, T: tl.constexpr, HALF: tl.constexpr,
    TARGET: tl.constexpr, GRAD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """With E = sum_c p_c (m - x_c), the entropy log1p(R) + E and its gradient p ((m - x) - E); and
    of a target the log-probability, the number of classes above it, and the gradient of both."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < n
    row = logits + rows * logits_stride
    m = tl.full([ROWS], -_INFINITY, T)
    rest = tl.zeros([ROWS], tl.float64)
    ties = tl.zeros([ROWS], tl.float64)
    gaps = tl.zeros([ROWS], tl.float64)
    above = tl.zeros([ROWS], tl.int64)
    if TARGET:
        # There is no index that would be ignored: the least integer is no class either.
        y, _, hard = _target(target, target, rows, there, classes, -0x8000000000000000, False)
        picked = tl.load(row + y, mask=there, other=0.0).to(T)
    for start in range(0, classes, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        inside = there[:, None] & (cols < classes)[None, :]
        x = _load(row, cols, inside, T, GRAD)
        m, rest, ties, gaps = _absorb(x, m, rest, ties, gaps, HALF, True)
        if TARGET:
            above += tl.sum((x > picked[:, None]).to(tl.int32), axis=1).to(tl.int64)
    odds, own = _odds(m, rest, ties)
    log = _log1p(odds)
    total = own * (1.0 + odds)
    mean_gap = gaps / total
    tl.store(entropy + rows, log + mean_gap, mask=there)
    if TARGET:
        gap = tl.where(picked == m, 0.0, m.to(tl.float64) - picked.to(tl.float64))
        tl.store(log_prob + rows, -hard * (gap + log), mask=there)
        tl.store(log_sum_exp + rows, m.to(tl.float64) + log, mask=there)
        tl.store(rank + rows, above, mask=there)

    if GRAD:
        g = tl.load(up_entropy + rows, mask=there, other=0.0).to(tl.float64)
        scale = _slope_unit(own, HALF) * (1.0 + odds)
        a = (g / scale).to(T)
        centre = mean_gap.to(T)
        if TARGET:
            other, p = _not_target(picked, gap, m, ties, odds)
            g_log_prob = hard * tl.load(up_log_prob + rows, mask=there, other=0.0).to(tl.float64)
            b = (g_log_prob / scale).to(T)
            bound = g_log_prob.to(T)
            at_target = (g_log_prob * other + g * p * (gap - mean_gap)).to(T)
        out = grad + rows * grad_stride
        for start in range(0, classes, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            inside = there[:, None] & (cols < classes)[None, :]
            x = _load_last(row, cols, inside, T, True)
            e, far = _exp_slope(x, m, own, HALF)
            # In this order, so that the room is used.
            d = a[:, None] * (e * (far - centre[:, None]))
            if TARGET:
                d = d - _bounded(b[:, None] * e, bound, HALF)
            _store(out, cols, inside, d, True)
        if TARGET:
            _set_target(out, y, at_target, there)


@triton.jit
def _summary(row, there, classes, T: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr,
             BLOCK: tl.constexpr):  # fmt: skip
    """The maximum of rows, R, and the maximum's exponential with its room."""
    m = tl.full([ROWS], -_INFINITY, T)
    rest = tl.zeros([ROWS], tl.float64)
    ties = tl.zeros([ROWS], tl.float64)
    gaps = tl.zeros([ROWS], tl.float64)
    for start in range(0, classes, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        inside = there[:, None] & (cols < classes)[None, :]
        x = _load(row, cols, inside, T, True)
        m, rest, ties, gaps = _absorb(x, m, rest, ties, gaps, HALF, False)
    odds, own = _odds(m, rest, ties)
    return m, odds, own


@triton.jit
def _limit(x, top):
    """The logits of a row with an infinite one, which has all: 0, and -inf for the others."""
    zero = tl.zeros_like(x)
    one = tl.where(x == _INFINITY, zero, zero - _INFINITY)
    return tl.where(top[:, None] == _INFINITY, one, x)


@triton.jit
def _kl_parts(a, b, a_max, b_max, a_own, b_own, a_scale, b_scale, high, low, HALF: tl.constexpr):
    """p, q and u = log(q / p) of a block; the last is 0 where p is."""
    e, _ = _exp_again(a, a_max, a_own, HALF)
    p = e * a_scale[:, None]
    e, _ = _exp_again(b, b_max, b_own, HALF)
    q = e * b_scale[:, None]
    u = ((_limit(b, b_max) - _limit(a, a_max)) - high[:, None]) - low[:, None]
    return p, q, tl.where(p == 0.0, tl.zeros_like(u), u)


@triton.jit
def _kl_kernel(
    p_logits, p_stride, q_logits, q_stride, loss, grad, grad_stride, n, classes,
    T: tl.constexpr, HALF: tl.constexpr, GRAD: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """KL = sum_i p_i (exp(u_i) - 1 - u_i), u = log(q / p): terms of which none is negative, and
    which are small where p and q agree. Its gradient is p_i (-u_i - KL)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < n
    p_row = p_logits + rows * p_stride
    q_row = q_logits + rows * q_stride
    p_max, p_odds, p_own = _summary(p_row, there, classes, T, HALF, ROWS, BLOCK)
    q_max, q_odds, q_own = _summary(q_row, there, classes, T, HALF, ROWS, BLOCK)
    p_scale = (1.0 / (p_own * (1.0 + p_odds))).to(T)
    q_scale = (1.0 / (q_own * (1.0 + q_odds))).to(T)
    p_top = tl.where(p_max == _INFINITY, 0.0, p_max)
    q_top = tl.where(q_max == _INFINITY, 0.0, q_max)
    shift = (q_top.to(tl.float64) - p_top.to(tl.float64)) + (_log1p(q_odds) - _log1p(p_odds))
    high = shift.to(T)
    low = (shift - high.to(tl.float64)).to(T)
    total = tl.zeros([ROWS], tl.float64)
    drift = tl.zeros([ROWS], tl.float64)
    for start in range(0, classes, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        inside = there[:, None] & (cols < classes)[None, :]
        a = _load(p_row, cols, inside, T, GRAD)
        b = _load(q_row, cols, inside, T, GRAD)
        p, q, u = _kl_parts(a, b, p_max, q_max, p_own, q_own, p_scale, q_scale, high, low, HALF)
        excess = _excess(u)
        near = tl.abs(u) <= 1.0
        term = tl.where(p == 0.0, q, tl.where(near, p * excess, (q - p) - p * u))
        change = tl.where((p != 0.0) & near, p * (u + excess), q - p)
        total += tl.sum(tl.where(inside, term, tl.zeros_like(term)), axis=1).to(tl.float64)
        drift += tl.sum(tl.where(inside, change, tl.zeros_like(term)), axis=1).to(tl.float64)
    # An error of the shift changes the terms' sum by what it makes of the sum of q - p.
    kl = tl.maximum(total - 0.5 * drift * drift, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(loss + rows, kl, mask=there)
    if GRAD:
        value = kl.to(T)
        out = grad + rows * grad_stride
        for start in range(0, classes, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            inside = there[:, None] & (cols < classes)[None, :]
            a = _load_last(p_row, cols, inside, T, True)
            b = _load_last(q_row, cols, inside, T, True)
            p, _, u = _kl_parts(a, b, p_max, q_max, p_own, q_own, p_scale, q_scale, high, low, HALF)
            d = tl.where(p == 0.0, tl.zeros_like(u), p * (-u - value[:, None]))
            _store(out, cols, inside, d, True)


@triton.jit
def _binary_kernel(
    logits, target, weight, pos_weight, loss, sums, grad, n, weights, pos_weights,
    T: tl.constexpr, WEIGHT: tl.constexpr, POS: tl.constexpr, REDUCE: tl.constexpr,
    MEAN: tl.constexpr, GRAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """loss = w (pos t softplus(-x) + (1 - t) softplus(x)), softplus(x) = max(x, 0) +
    log1p(exp(-|x|)): terms of one sign. Its gradient is w ((1 - t) sigmoid(x) - pos t
    sigmoid(-x))."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(logits + at, mask=inside, other=0.0).to(T)
    t = tl.load(target + at, mask=inside, other=0.0).to(T)
    zero = tl.zeros_like(x)
    e = _exp_below(-tl.abs(x))
    log = _log1p_share(e)
    off = 1.0 - t
    if POS:
        on = t * tl.load(pos_weight + at % pos_weights, mask=inside, other=0.0).to(T)
    else:
        on = t
    # A share of nothing counts nothing, however unlikely.
    value = tl.where(on == 0.0, zero, on * (tl.where(x < 0.0, -x, zero) + log))
    value += tl.where(off == 0.0, zero, off * (tl.where(x > 0.0, x, zero) + log))
    value = tl.where(x != x, x, value)
    if WEIGHT:
        w = tl.load(weight + at % weights, mask=inside, other=0.0).to(T)
        # Infinite losses do not count then either; NaN stays NaN.
        out = (w == 0.0) & (x == x)
        value = tl.where(out, zero, value * w)
    if REDUCE:
        counted = tl.where(inside, value, zero).to(tl.float64)
        tl.store(sums + tl.program_id(0), tl.sum(counted, axis=0))
    else:
        tl.store(loss + at, value, mask=inside)
    if GRAD:
        major = _over(zero + 1.0, 1.0 + e)
        minor = _over(e, 1.0 + e)
        d = off * tl.where(x < 0.0, minor, major) - on * tl.where(x < 0.0, major, minor)
        d = tl.where(x != x, x, d)
        if WEIGHT:
            d = tl.where(out, zero, d * w)
        if MEAN:
            d = d * (tl.full([1], 1.0, tl.float64) / n).to(T)
        tl.store(grad + at, d, mask=inside)


# Launchers


def _result_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _compute_type(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _check_logits(x: Tensor, name: str) -> None:
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"{name} must have shape (N, C), got {tuple(x.shape)}")
    if x.shape[0] > 0 and x.shape[1] == 0:
        raise ValueError(f"{name} must have at least one class, got {tuple(x.shape)}")


def _check_shape(x: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")


def _check_indices(target: Tensor, rows: int) -> None:
    if target.dtype not in INDICES:
        raise TypeError(f"target must be a tensor of integers, got {target.dtype}")
    _check_shape(target, (rows,), "target")


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def _neighbours(x: Tensor) -> Tensor:
    """Rows whose classes are next to each other."""
    return x if x.stride(1) == 1 or x.shape[1] <= 1 else x.contiguous()


def _tile(rows: int, classes: int, grad: bool, heavy: bool) -> dict[str, int]:
    """Rows and classes of a program's blocks, and its warps."""
    block = triton.next_power_of_2(max(classes, 1))
    block = max(16, min(block, (GRAD_BLOCK if grad else LOSS_BLOCK) >> heavy))
    tile = max(1, min((TILE >> heavy) // block, triton.next_power_of_2(max(rows, 1))))
    warps = min(32, max(1, tile * block // (32 * (THREAD >> heavy))))
    return {"ROWS": tile, "BLOCK": block, "num_warps": warps}


def _half(dtype: torch.dtype) -> bool:
    return dtype in (torch.float16, torch.bfloat16)


def _launch(kernel: Any, programs: int, *tensors_and_sizes: Any, **constants: Any) -> None:
    """Runs a kernel on the device of its first tensor."""
    with torch.cuda.device_of(tensors_and_sizes[0]):
        kernel[(programs,)](*tensors_and_sizes, **constants)


@lru_cache(maxsize=256)
def _options(device: torch.device, *values: float) -> Tensor:
    """Options in float64, which arguments of kernels cannot be; made once for each choice."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def _total(
    values: Tensor, mean: str, count: int, denominator: Tensor, dtype: torch.dtype
) -> Tensor:
    out = torch.empty((), dtype=dtype, device=values.device)
    _launch(_total_kernel, 1, values, denominator, out, values.numel(), count, MEAN=mean,
            BLOCK=SUM_BLOCK, num_warps=16)  # fmt: skip
    return out


def scale_(x: Tensor, factor: Tensor) -> Tensor:
    """A contiguous tensor times a factor of no axes, in place, without waiting for the factor.

    A factor of 1, which most losses have, costs no pass over the tensor.
    """
    programs = min(SCALERS, triton.cdiv(max(x.numel(), 1), CHUNK))
    _launch(_scale_kernel, programs, x, factor, x.numel(), PROGRAMS=programs, BLOCK=CHUNK)
    return x


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    softcap: float | None = None,
    temperature: float = 1.0,
    grad: bool = False,
    inplace_grad: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The cross-entropy of logits (N, C), and its gradient with respect to them.

        loss = sum_c q_c (m - x_c) + M log1p(R) + z logsumexp(x)^2

    `target` holds N classes (q is the weight at the class) or (N, C) probabilities; smoothing
    spreads a share of q over all classes. x is cap tanh(logits / cap) / temperature, rounded to the
    type that is computed in. With reduction "none" the gradient is that of the sum. With
    `inplace_grad` it is written over the logits.
    """
    _check_logits(logits, "logits")
    _check_reduction(reduction)
    n, classes = logits.shape
    soft = target.is_floating_point()
    if soft:
        _check_shape(target, (n, classes), "target")
    else:
        _check_indices(target, n)
    if weight is not None:
        _check_shape(weight, (classes,), "weight")
        weight = weight.contiguous()
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    if softcap is not None and not softcap > 0.0:
        raise ValueError(f"softcap must be positive, got {softcap}")
    if not temperature > 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    x = _neighbours(logits)
    if inplace_grad and (x is not logits or (n > 1 and x.stride(0) < classes)):
        raise ValueError(
            "inplace_grad needs logits whose classes are next to each other, in rows of their own"
        )
    q = _neighbours(target) if soft else target.contiguous()
    dtype, device = _result_type(logits.dtype), logits.device
    cap = softcap or 1.0
    options = _options(device, 1.0 - label_smoothing, label_smoothing / max(classes, 1), z_loss,
                       cap, 1.0 / cap, 1.0 / temperature)  # fmt: skip
    mean = ("count" if soft else "pointer") if reduction == "mean" else ""
    denominator = options
    if mean == "pointer":
        denominator = torch.empty((), dtype=torch.float64, device=device)
        _launch(_denominator_kernel, 1, q, q if weight is None else weight, denominator, n, classes,
                ignore_index, WEIGHT=weight is not None, BLOCK=SUM_BLOCK, num_warps=16)  # fmt: skip
    losses = torch.empty(n, dtype=dtype if reduction == "none" else torch.float64, device=device)
    slope = None
    if grad or inplace_grad:
        slope = logits if inplace_grad else torch.empty_like(x)
    if n > 0:
        heavy = dtype == torch.float64 or soft or label_smoothing > 0.0 or softcap is not None
        half = _half(logits.dtype) and softcap is None and temperature == 1.0
        tile = _tile(n, classes, slope is not None, heavy)
        _launch(
            _cross_entropy_kernel, triton.cdiv(n, tile["ROWS"]),
            x, x.stride(0), q, q.stride(0), q if weight is None else weight, options, denominator,
            losses, x if slope is None else slope, 0 if slope is None else slope.stride(0), n,
            classes, ignore_index, T=_compute_type(logits.dtype), HALF=half,
            SOFT=soft, WEIGHT=weight is not None, SMOOTH=label_smoothing > 0.0, Z=z_loss != 0.0,
            CAP=softcap is not None, WARM=temperature != 1.0, MEAN=mean, GRAD=slope is not None,
            STAGES=STAGES, HINTS=HINTS, maxnreg=REGISTERS, **tile,
        )  # fmt: skip
    if reduction == "none":
        return losses, slope
    return _total(losses, mean, n, denominator, dtype), slope


def shard_summary(
    logits: Tensor, target: Tensor, live: Tensor, sizes: Tensor, rank: int, *, spread: bool
) -> Tensor:
    """Summaries (4, N) in float64 of logits (N, C) whose classes are the slice `rank` of those that
    the targets are among, with `sizes` of all slices; of rows that are `live`, else zeros.

    They are the maximum m, R, the target's logit where it is in the slice, else 0, and with
    `spread` the sum of m - x.
    """
    n, classes = logits.shape
    _check_shard(logits, target, live)
    x = _neighbours(logits)
    packet = torch.empty(4, n, dtype=torch.float64, device=x.device)
    if n > 0:
        tile = _tile(n, classes, False, x.dtype == torch.float64 or spread)
        _launch(
            _shard_summary_kernel, triton.cdiv(n, tile["ROWS"]),
            x, x.stride(0), target.contiguous(), live.contiguous().view(torch.uint8), sizes, packet,
            n, classes, rank, T=_compute_type(x.dtype), HALF=_half(x.dtype), SMOOTH=spread,
            WORLD=_world(sizes), STAGES=STAGES, HINTS=HINTS, **tile,
        )  # fmt: skip
    return packet


def shard_merge(
    packets: Tensor, target: Tensor, live: Tensor, sizes: Tensor, *, label_smoothing: float,
    z_loss: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """From the summaries of all slices (W, 4, N): the losses of rows, and what their gradient needs
    (3, N): their maximum, R, and how far the target's logit is below the maximum."""
    world, _, n = packets.shape
    loss, merged = packets.new_empty(n), packets.new_empty(3, n)
    if n > 0:
        _launch(
            _shard_merge_kernel, triton.cdiv(n, MERGE_BLOCK),
            packets, sizes, target.contiguous(), live.contiguous().view(torch.uint8),
            _options(packets.device, 1.0 - label_smoothing, label_smoothing, z_loss), loss, merged,
            n, world, SMOOTH=label_smoothing > 0.0, Z=z_loss != 0.0, WORLD=_world(sizes),
            BLOCK=MERGE_BLOCK, num_warps=4,
        )  # fmt: skip
    return loss, merged


def shard_slope(
    logits: Tensor, target: Tensor, live: Tensor, sizes: Tensor, rank: int, merged: Tensor,
    up: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0,
) -> Tensor:  # fmt: skip
    """The gradient of a slice of the logits: the losses' times an upstream gradient a row, in
    float64."""
    n, classes = logits.shape
    _check_shard(logits, target, live)
    _check_shape(merged, (3, n), "merged")
    _check_shape(up, (n,), "up")
    x = _neighbours(logits)
    slope = torch.empty_like(x)
    if n > 0:
        smooth = label_smoothing > 0.0
        tile = _tile(n, classes, True, x.dtype == torch.float64 or smooth)
        _launch(
            _shard_slope_kernel, triton.cdiv(n, tile["ROWS"]),
            x, x.stride(0), target.contiguous(), live.contiguous().view(torch.uint8), sizes, merged,
            up.contiguous(), _options(x.device, 1.0 - label_smoothing, label_smoothing, z_loss),
            slope, slope.stride(0), n, classes, sizes.numel(), rank, T=_compute_type(x.dtype),
            HALF=_half(x.dtype), SMOOTH=smooth, Z=z_loss != 0.0, WORLD=_world(sizes),
            STAGES=STAGES, HINTS=HINTS, **tile,
        )  # fmt: skip
    return slope


def _check_shard(logits: Tensor, target: Tensor, live: Tensor) -> None:
    n = logits.shape[0]
    _check_indices(target, n)
    _check_shape(live, (n,), "live")


def _world(sizes: Tensor) -> int:
    """Slices, as a size of blocks."""
    return max(2, int(triton.next_power_of_2(sizes.numel())))


def _rows_of(
    logits: Tensor, target: Tensor | None, up: tuple[Tensor, Tensor] | None
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """What is one number a row, in the order of the kernel: log-probability, entropy, logsumexp.
    The rank; and the gradient."""
    n, classes = logits.shape
    x = _neighbours(logits)
    dtype, device = _result_type(logits.dtype), logits.device
    counted = 3 if target is not None else 1
    rows = list(torch.empty(counted, n, dtype=dtype, device=device))
    rank = torch.empty(n if target is not None else 0, dtype=torch.int64, device=device)
    slope = None if up is None else torch.empty_like(x)
    if n > 0:
        first, second = up or (rows[0], rows[0])
        tile = _tile(n, classes, slope is not None, True)
        _launch(
            _token_kernel, triton.cdiv(n, tile["ROWS"]),
            x, x.stride(0), rank if target is None else target.contiguous(), rows[0],
            rows[counted // 2], rows[-1], rank, x if slope is None else slope,
            0 if slope is None else slope.stride(0), first, second, n, classes,
            T=_compute_type(logits.dtype), HALF=_half(logits.dtype), TARGET=target is not None,
            GRAD=slope is not None, **tile,
        )  # fmt: skip
    return rows, rank, slope


def entropy_with_logits(logits: Tensor, *, grad: bool = False) -> tuple[Tensor, Tensor | None]:
    """The entropy of the softmax of each row, log1p(R) + E with E = sum_c p_c (m - x_c), and the
    gradient p ((m - x) - E) of their sum."""
    _check_logits(logits, "logits")
    ones = torch.ones(logits.shape[0], dtype=torch.float32, device=logits.device) if grad else None
    rows, _, slope = _rows_of(logits, None, None if ones is None else (ones, ones))
    return rows[0], slope


def token_log_prob(
    logits: Tensor, target: Tensor, *, grad_output: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Of each row: log p_y, the entropy, logsumexp, and the rank, which is the number of classes
    strictly above the target. With `grad_output`, a pair of tensors (N,), also the gradient of
    g_log_prob log p_y + g_entropy entropy."""
    _check_logits(logits, "logits")
    n = logits.shape[0]
    _check_indices(target, n)
    if grad_output is not None:
        for g, name in zip(grad_output, ("log_prob", "entropy"), strict=True):
            _check_shape(g, (n,), f"grad_output of {name}")
        grad_output = (grad_output[0].contiguous(), grad_output[1].contiguous())
    (log_prob, entropy, log_sum_exp), rank, slope = _rows_of(logits, target, grad_output)
    return log_prob, entropy, log_sum_exp, rank, slope


def kl_divergence_with_logits(
    p_logits: Tensor, q_logits: Tensor, *, grad: bool = False
) -> tuple[Tensor, Tensor | None]:
    """KL(p, q) = sum_i p_i (exp(u_i) - 1 - u_i) of the softmax of each row, u = log(q / p), and the
    gradient p (-u - KL) of their sum with respect to the logits of p."""
    _check_logits(p_logits, "p_logits")
    _check_logits(q_logits, "q_logits")
    n, classes = p_logits.shape
    _check_shape(q_logits, (n, classes), "q_logits")
    p, q = _neighbours(p_logits), _neighbours(q_logits)
    wide = torch.promote_types(p.dtype, q.dtype)
    losses = torch.empty(n, dtype=_result_type(wide), device=p.device)
    slope = torch.empty_like(p) if grad else None
    if n > 0:
        # The second sweep reads again in either case.
        tile = _tile(n, classes, True, True)
        _launch(
            _kl_kernel, triton.cdiv(n, tile["ROWS"]),
            p, p.stride(0), q, q.stride(0), losses, p if slope is None else slope,
            0 if slope is None else slope.stride(0), n, classes, T=_compute_type(wide),
            HALF=_half(wide), GRAD=grad, **tile,
        )  # fmt: skip
    return losses, slope


def _spread(weight: Tensor | None, x: Tensor, name: str) -> Tensor | None:
    """A weight as a period that repeats over the elements of x, one after another."""
    if weight is None:
        return None
    try:
        whole = torch.broadcast_shapes(weight.shape, x.shape) == x.shape
    except RuntimeError:
        whole = False
    if not whole:
        raise ValueError(
            f"{name} must broadcast to shape {tuple(x.shape)}, got {tuple(weight.shape)}"
        )
    trailing = tuple(weight.shape)
    while trailing and trailing[0] == 1:
        trailing = trailing[1:]
    repeats = trailing == tuple(x.shape[x.ndim - len(trailing) :])
    return (weight if repeats else weight.expand(x.shape)).contiguous()


def binary_cross_entropy_with_logits(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
    grad: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The binary cross-entropy of logits of any shape, and its gradient with respect to them.

        loss = w (pos t softplus(-x) + (1 - t) softplus(x))

    `weight` and `pos_weight` broadcast to the logits. With reduction "none" the gradient is that of
    the sum.
    """
    if logits.dtype not in FLOATS:
        raise TypeError(f"logits must be a floating-point tensor, got {logits.dtype}")
    _check_shape(target, tuple(logits.shape), "target")
    _check_reduction(reduction)
    x, t = logits.contiguous(), target.contiguous()
    w, pos = _spread(weight, x, "weight"), _spread(pos_weight, x, "pos_weight")
    n, dtype, device = x.numel(), _result_type(x.dtype), x.device
    programs = triton.cdiv(n, CHUNK)
    reduced = reduction != "none"
    losses = torch.empty(() if reduced else x.shape, dtype=dtype, device=device)
    sums = torch.empty(programs if reduced else 0, dtype=torch.float64, device=device)
    slope = torch.empty_like(x) if grad else None
    if n > 0:
        _launch(
            _binary_kernel, programs,
            x, t, x if w is None else w, x if pos is None else pos, losses, sums,
            x if slope is None else slope, n, 1 if w is None else w.numel(),
            1 if pos is None else pos.numel(), T=_compute_type(x.dtype), WEIGHT=w is not None,
            POS=pos is not None, REDUCE=reduced, MEAN=reduction == "mean", GRAD=grad, BLOCK=CHUNK,
            num_warps=4,
        )  # fmt: skip
    if not reduced:
        return losses, slope
    return _total(sums, "count" if reduction == "mean" else "", n, sums, dtype), slope
