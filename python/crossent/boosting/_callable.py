"""Objectives and metrics as functions, which XGBoost and LightGBM take alike.

Both libraries call a function in two ways: their own training as `f(scores, dataset)`, their
scikit-learn estimators as `f(labels, scores, sample_weight)`. The second argument tells which.
"""

from __future__ import annotations

from typing import Any, Protocol

from crossent.boosting._losses import Array, Loss, numbers


class Dataset(Protocol):
    """An `xgboost.DMatrix` or a `lightgbm.Dataset`, as far as it is used here."""

    def get_label(self) -> Any: ...
    def get_weight(self) -> Any: ...


def given(first: Any, second: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
    """Scores, labels and sample weights from either way of calling."""
    if hasattr(second, "get_label"):
        first, second, sample_weight = second.get_label(), first, second.get_weight()
    if sample_weight is not None:
        sample_weight = numbers("sample_weight", sample_weight)
        # XGBoost's way of having none.
        if sample_weight.size == 0:
            sample_weight = None
    return numbers("scores", second), numbers("labels", first), sample_weight


class Metric:
    """A loss as a metric: its mean over rows. Made by `objective.metric()`."""

    def __init__(self, loss: Loss, name: str, from_logits: bool) -> None:
        self.loss = loss
        self.from_logits = from_logits
        # What XGBoost's estimators call it by.
        self.__name__ = name

    def __repr__(self) -> str:
        return f"{self.loss!r}.metric(from_logits={self.from_logits})"

    def mean(self, first: Any, second: Any, sample_weight: Any) -> float:
        scores, labels, sample_weight = given(first, second, sample_weight)
        if not self.from_logits:
            scores = self.loss.logits(scores)
        return self.loss.mean(scores, self.loss.target(labels, scores), sample_weight)
