"""The losses of boosting: from scores and labels, the derivatives and the mean.

Nothing here knows a library. Scores are logits, (N) or (N, K), in the memory order that they come
in; derivatives are in the same order and type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isfinite, nan
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

import crossent.functional as F
from crossent._arguments import check_weights, first, number, plain

Array: TypeAlias = NDArray[Any]


class Loss(ABC):
    """A loss of logits, and how a library's labels are its targets."""

    # Whether the second derivatives are never negative.
    convex = True

    @abstractmethod
    def target(self, labels: Array, scores: Array) -> Array:
        """The target that labels say, as `compute` takes it."""

    @abstractmethod
    def compute(self, scores: Array, target: Array, **options: Any) -> Any:
        """The function of `crossent.functional`."""

    def derivatives(
        self,
        scores: Array,
        target: Array,
        sample_weight: Array | None = None,
        **options: Any,
    ) -> tuple[Array, Array]:
        """The gradient and the diagonal of the Hessian of the sum of the rows' losses."""
        check_weight(sample_weight, scores)
        _, grad, hess = self.compute(
            scores,
            target,
            sample_weight=self._spread(sample_weight, scores),
            reduction="sum",
            **{"return_grad": True, "return_hess": True, **options},
        )
        return grad, hess

    def sums(
        self, scores: Array, target: Array, sample_weight: Array | None = None
    ) -> tuple[float, float]:
        """The sum of the rows' losses times the rows' weights, and that of the rows' weights."""
        check_weight(sample_weight, scores)
        if sample_weight is None:
            total = float(len(scores))
        else:
            total = float(np.sum(sample_weight, dtype=np.float64))
        if total == 0.0:
            return 0.0, 0.0
        # A mean, because a sum of many float32 losses may leave float32.
        mean = self.compute(
            scores,
            target,
            sample_weight=self._spread(sample_weight, scores),
            reduction="mean",
            denominator=total,
        )
        return float(mean) * total, total

    def mean(self, scores: Array, target: Array, sample_weight: Array | None = None) -> float:
        """The mean of the rows' losses by the rows' weights; NaN where these are all 0."""
        loss, total = self.sums(scores, target, sample_weight)
        return loss / total if total else nan

    @abstractmethod
    def logits(self, probabilities: Array) -> Array:
        """The scores whose softmax or sigmoid these are."""

    def _spread(self, sample_weight: Array | None, scores: Array) -> Array | None:
        return sample_weight


class Softmax(Loss):
    """Cross-entropy of the softmax of K scores a row."""

    def __init__(self, *, weight: ArrayLike | None = None, label_smoothing: float = 0.0) -> None:
        if not 0.0 <= number("label_smoothing", label_smoothing) <= 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        self.weight = None if weight is None else option("weight", weight)
        if self.weight is not None and self.weight.ndim != 1:
            raise ValueError(
                f"weight must have one dimension, one weight a class, got {self.weight.shape}"
            )
        self.label_smoothing = float(label_smoothing)

    def __repr__(self) -> str:
        options = f"weight={self.weight!r}, label_smoothing={self.label_smoothing!r}"
        return f"{type(self).__name__}({options})"

    def target(self, labels: Array, scores: Array) -> Array:
        if scores.ndim != 2 or scores.shape[1] == 1:
            raise ValueError(
                "SoftmaxCrossEntropy needs a score for each class: set the number of classes, or "
                "take BinaryCrossEntropy for two"
            )
        if labels.ndim != 2:
            return class_indices(labels, scores.shape[1])
        check_weights("labels", labels)
        return labels

    def compute(self, scores: Array, target: Array, **options: Any) -> Any:
        return F.cross_entropy(
            scores,
            target,
            self.weight,
            label_smoothing=self.label_smoothing,
            ignore_index=-1,
            **options,
        )

    def logits(self, probabilities: Array) -> Array:
        check_probabilities(probabilities)
        with np.errstate(divide="ignore"):
            return np.log(probabilities)


class Sigmoid(Loss):
    """What the losses of the sigmoid family share: each score has a loss of its own."""

    def target(self, labels: Array, scores: Array) -> Array:
        if scores.ndim == labels.ndim:
            if labels.size and not (labels.min() >= 0 and labels.max() <= 1):
                raise ValueError(
                    f"labels must be in [0, 1], got {labels.min()} to {labels.max()}; of more than "
                    "two classes, set the number of classes"
                )
            return labels
        # One column has no others to be against.
        if scores.ndim == 1 or scores.shape[1] == 1:
            raise ValueError(f"labels must have shape {scores.shape}, got {labels.shape}")
        return one_against_all(labels, scores)

    def logits(self, probabilities: Array) -> Array:
        check_probabilities(probabilities)
        with np.errstate(divide="ignore"):
            logits: Array = np.log(probabilities) - np.log1p(-probabilities)
        return logits

    def _spread(self, sample_weight: Array | None, scores: Array) -> Array | None:
        if sample_weight is None or scores.ndim == 1:
            return sample_weight
        return np.broadcast_to(np.asarray(sample_weight)[:, None], scores.shape)

    def _mass(self, target: Array) -> Any:
        """What each score's loss is multiplied by, beside the row's weight."""
        return 1.0


class Binary(Sigmoid):
    """Cross-entropy of the sigmoid of scores."""

    def __init__(self, *, pos_weight: ArrayLike | None = None) -> None:
        self.pos_weight: Any = pos_weight
        if pos_weight is not None:
            checked = option("pos_weight", pos_weight)
            if checked.ndim > 1:
                raise ValueError(
                    "pos_weight must be a number or have one dimension, one weight a column, got "
                    f"{checked.shape}"
                )
            # A number is printed as it came.
            if checked.ndim == 1:
                self.pos_weight = checked

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pos_weight={self.pos_weight!r})"

    def compute(self, scores: Array, target: Array, **options: Any) -> Any:
        columns = scores.shape[1] if scores.ndim == 2 else 1
        if self.pos_weight is not None and np.size(self.pos_weight) not in (1, columns):
            raise ValueError(
                f"pos_weight must be a number or have shape ({columns},), one a column of scores, "
                f"got {np.shape(self.pos_weight)}"
            )
        return F.binary_cross_entropy_with_logits(
            scores, target, pos_weight=self.pos_weight, **options
        )

    def _mass(self, target: Array) -> Any:
        if self.pos_weight is None:
            return 1.0
        return 1.0 + (np.asarray(self.pos_weight, np.float64) - 1.0) * target


class Focal(Sigmoid):
    """Focal loss of the sigmoid of scores."""

    convex = False

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        if not number("alpha", alpha) <= 1.0:
            raise ValueError(f"alpha must be in [0, 1] or negative, got {alpha}")
        if not (number("gamma", gamma) >= 0.0 and isfinite(gamma)):
            raise ValueError(f"gamma must be at least 0 and finite, got {gamma}")
        self.alpha = alpha
        self.gamma = gamma

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha!r}, gamma={self.gamma!r})"

    def compute(self, scores: Array, target: Array, **options: Any) -> Any:
        return F.sigmoid_focal_loss(scores, target, self.alpha, self.gamma, **options)


def check_probabilities(probabilities: Array) -> None:
    """Refuses what is outside of [0, 1]; a NaN is not."""
    wrong = (probabilities < 0) | (probabilities > 1)
    if wrong.any():
        raise ValueError(
            f"probabilities must be in [0, 1]: probabilities{first(wrong, probabilities)}"
        )


def numbers(name: str, values: ArrayLike) -> Array:
    """An array of real numbers, which no mask hides a part of."""
    array = plain(name, values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of numbers, got {array.dtype}")
    return array


def option(name: str, values: ArrayLike) -> Array:
    """The weights that an option gives, in an array of its own."""
    array = numbers(name, values)
    if array.dtype.kind == "b":
        raise TypeError(f"{name} must be numbers, got bool")
    check_weights(name, array)
    return array.astype(np.float64)


def check_weight(sample_weight: Array | None, scores: Array) -> None:
    """Refuses weights that are not one a row, or not weights."""
    if sample_weight is None:
        return
    if sample_weight.shape != scores.shape[:1]:
        raise ValueError(
            f"sample_weight must have shape {scores.shape[:1]}, got {sample_weight.shape}"
        )
    check_weights("sample_weight", sample_weight)


def class_indices(labels: Array, classes: int) -> Array:
    """Labels, which libraries keep as floats, as integers in [0, classes)."""
    with np.errstate(invalid="ignore"):
        indices: Array = labels.astype(np.int32)
    wrong = (indices != labels) | (indices < 0) | (indices >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"labels must be whole numbers from 0 to {classes - 1}, got {labels[row]} in row {row}"
        )
    return indices


def one_against_all(labels: Array, scores: Array) -> Array:
    """1 at the class of each row and 0 elsewhere, in the memory order of the scores."""
    indices = class_indices(labels, scores.shape[1])
    target = np.zeros_like(scores, dtype=np.uint8, subok=False)
    target[np.arange(len(indices)), indices] = 1
    return target
