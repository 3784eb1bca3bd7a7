"""What the kernels say of the rows of one batch, checked, without those that do not count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _core
from crossent._arguments import first, plain
from crossent.functional import kl_divergence_with_logits, logsumexp

Array = NDArray[Any]
Floats = NDArray[np.float64]

KINDS = ("logits", "log_probabilities", "probabilities")
# By how much the sum of a row's probabilities may miss 1: a float16 or bfloat16 of -12, which a
# logarithm may be, is rounded by up to 1/32.
SLACK, SLACK_16_BIT = 1e-3, 0.1


@dataclass
class Batch:
    """Rows that count: a number each, of float64 where nothing else is said."""

    classes: int
    # All rows, those that do not count included.
    seen: int
    # Places among all rows.
    place: NDArray[np.int64]
    target: NDArray[np.int64]
    loss: Floats
    entropy: Floats
    # Classes above the target; one more than there are where the row is NaN.
    rank: NDArray[np.int64]
    # How many classes share the top, where the target is one of them; else 1.
    ties: NDArray[np.int64]
    # The probability of the most likely class.
    confidence: Floats
    # Of the baseline's distribution from this one.
    kl: Floats | None
    weight: Floats | None
    bytes: Floats | None
    # Bytes that belong to no row; None where a byte_count was not given.
    more_bytes: int | None
    group: Array | None


@dataclass(frozen=True)
class Reading:
    """How batches are read."""

    kind: str
    ignore_index: int
    temperature: float
    softcap: float | None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"kind must be one of {', '.join(map(repr, KINDS))}, got {self.kind!r}"
            )
        if self.kind != "logits" and not (self.temperature == 1 and self.softcap is None):
            raise ValueError(f"temperature and softcap are of logits, and kind is {self.kind!r}")
        # Refuses what the kernels would refuse later, in their words.
        _core.logsumexp([0.0], 0, False, (self.temperature, self.softcap, None))

    def read(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        axis: int | None,
        baseline: ArrayLike | None,
        sample_weight: ArrayLike | None,
        byte_count: ArrayLike | None,
        group: ArrayLike | None,
        class_mask: ArrayLike | None,
    ) -> Batch:
        """The numbers of a batch's rows."""
        if class_mask is not None and self.kind != "logits":
            raise ValueError(f"class_mask is of logits, and kind is {self.kind!r}")
        masked = isinstance(target, np.ma.MaskedArray)
        target = np.asanyarray(target) if masked else np.asarray(target)
        shape = target.shape
        weight = per_row("sample_weight", sample_weight, shape)
        counts = target != self.ignore_index
        if weight is not None:
            counts = counts & (weight != 0)
        everything = bool(np.all(counts))

        logits = as_logits("input", input, self.kind, axis, counts)
        warp = (self.temperature, self.softcap, class_mask)
        answers, _ = _core.token_log_prob(
            logits,
            target if everything or masked else np.where(counts, target, 0),
            axis,
            warp,
            False,
            None,
            None,
            False,
            True,
        )
        log_prob, entropy, log_sum, rank, top, ties = map(np.ravel, answers)
        place = np.flatnonzero(counts)

        def kept(values: Array) -> Array:
            return values if everything else values[place]

        if self.kind != "logits":
            check_sums("input", kept(log_sum), place, np.asarray(input).dtype)
        classes = logits.shape[class_axis(logits.ndim, axis)]
        log_prob = kept(log_prob)
        rank = np.where(np.isnan(log_prob), classes + 1, kept(rank))
        # 0 - x rather than -x, as the loss of a log-probability of 0 is 0 and not -0.
        loss = 0.0 - log_prob.astype(np.float64)
        kl = None
        if baseline is not None:
            of = class_axis(logits.ndim, axis)
            against = as_logits("baseline", baseline, self.kind, axis, counts)
            kl = kept(divergence(against, logits, of, warp)).astype(np.float64)
            if self.kind != "logits":
                sums = kept(np.ravel(logsumexp(against, axis=of)))
                check_sums("baseline", sums, place, np.asarray(baseline).dtype)
        row_bytes, more_bytes = bytes_of(byte_count, shape, weight is not None)
        return Batch(
            classes=classes,
            seen=target.size,
            place=place,
            target=kept(target.ravel()).astype(np.int64),
            loss=loss,
            entropy=kept(entropy).astype(np.float64),
            rank=rank,
            ties=np.where(rank == 0, kept(ties), 1),
            confidence=np.exp(kept(top).astype(np.float64)),
            kl=kl,
            weight=None if weight is None else kept(weight.ravel()),
            bytes=None if row_bytes is None else kept(row_bytes.ravel()),
            more_bytes=more_bytes,
            group=labels_of(group, shape, kept),
        )


def is_bfloat16(array: Array) -> bool:
    return bool(array.dtype.name == "bfloat16")


def class_axis(ndim: int, axis: int | None) -> int:
    """torch's, where none is given."""
    return (min(1, ndim - 1) if axis is None else axis) % ndim


def as_logits(
    name: str, values: ArrayLike, kind: str, axis: int | None, counts: NDArray[np.bool_]
) -> Array:
    """Log-probabilities are logits as they are; probabilities, which rows that count must have,
    need their logarithms."""
    array = plain(name, values)
    if kind != "probabilities":
        return array
    if array.dtype.kind != "f" and not is_bfloat16(array):
        raise TypeError(f"{name} must be a floating-point array, got {array.dtype}")
    if array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    negative = array < 0
    if negative.any():
        by_row = negative.any(axis=class_axis(array.ndim, axis)) if array.ndim else negative
        if by_row.shape != counts.shape or (by_row & counts).any():
            place = first(negative, array)
            raise ValueError(f"{name} must not have negative probabilities: {name}{place}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(array))


def check_sums(name: str, log_sum: Array, place: NDArray[np.int64], dtype: np.dtype[Any]) -> None:
    slack = SLACK_16_BIT if dtype.itemsize < 4 else SLACK
    with np.errstate(over="ignore"):
        wrong = np.abs(np.expm1(log_sum.astype(np.float64))) > slack
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} must hold probabilities: those of row {place[row]} add up to "
            f"{np.exp(float(log_sum[row])):.6g}"
        )


def divergence(p: Array, q: Array, axis: int, warp: tuple[Any, Any, Any]) -> Array:
    if p.shape != q.shape:
        raise ValueError(f"baseline must have the shape of input, {q.shape}, got {p.shape}")
    temperature, softcap, class_mask = warp
    try:
        found = kl_divergence_with_logits(
            p, q, axis=axis, temperature=temperature, softcap=softcap, class_mask=class_mask
        )
    except (TypeError, ValueError) as error:
        message = str(error).replace("p_logits", "baseline").replace("q_logits", "input")
        raise type(error)(message) from None
    return np.ravel(found)


def per_row(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> Floats | None:
    """Numbers that are not negative, one a row."""
    if values is None:
        return None
    array = plain(name, values)
    if array.dtype.kind not in "fiu" and not is_bfloat16(array):
        raise TypeError(f"{name} must be an array of numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have target's shape {shape}, got {array.shape}")
    numbers = array.astype(np.float64)
    wrong = ~((numbers >= 0) & (numbers < np.inf))
    if wrong.any():
        raise ValueError(f"{name} must be finite and not negative: {name}{first(wrong, numbers)}")
    return numbers


def bytes_of(
    byte_count: ArrayLike | None, shape: tuple[int, ...], weighted: bool
) -> tuple[Floats | None, int | None]:
    """Bytes of each row, and of the batch besides; None for either that was not given."""
    if byte_count is None:
        return None, None
    given = plain("byte_count", byte_count)
    if given.dtype.kind not in "iu":
        raise TypeError(f"byte_count must be integers, got {given.dtype}")
    if given.shape == shape and shape:
        return per_row("byte_count", given, shape), None
    if given.ndim:
        raise ValueError(
            f"byte_count must be one number, or have target's shape {shape}, got {given.shape}"
        )
    if weighted:
        raise ValueError("byte_count must have target's shape where there is a sample_weight")
    if given < 0:
        raise ValueError(f"byte_count must not be negative, got {given}")
    return None, int(given)


def labels_of(
    group: ArrayLike | None, shape: tuple[int, ...], kept: Callable[[Array], Array]
) -> Array | None:
    """Labels of rows' groups: integers or strings."""
    if group is None:
        return None
    array = plain("group", group)
    if array.dtype.kind == "O":
        # pandas holds strings so.
        other = np.array([not isinstance(label, str) for label in array.flat], np.bool_)
        if other.any():
            place = first(other.reshape(array.shape), array)
            raise TypeError(f"group must be integers or strings: group{place} among objects")
    elif array.dtype.kind not in "iuUT":
        raise TypeError(f"group must be integers or strings, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"group must have target's shape {shape}, got {array.shape}")
    return kept(array.ravel())
