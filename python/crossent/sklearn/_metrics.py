"""The log loss of predictions, from probabilities or from logits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import make_scorer
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import type_of_target

import crossent.functional as F
from crossent._arguments import refuse_mask

__all__ = ["log_loss", "neg_log_loss_logits_scorer", "neg_log_loss_scorer"]

Array = NDArray[Any]


def log_loss(
    y_true: Any,
    y_proba: Any,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
    from_logits: bool = False,
) -> float:
    r"""Log loss of predictions: the mean of minus the logarithm of each true class's probability.

    With the probability $p_{i,y_i}$ that a row's own class was given and sample weights $s$,

    $$\frac{\sum_i s_i\, (-\log p_{i, y_i})}{\sum_i s_i},$$

    of probabilities as they are: a probability of 0 for what came true is an infinite loss, one of
    1 none, and a float32 near either counts for what it is. (`sklearn.metrics.log_loss` clips them
    to $[\varepsilon, 1 - \varepsilon]$ with the type's $\varepsilon$, so that no loss of float32
    exceeds 15.9 or falls below 1.2e-7.) From logits it is the cross-entropy, which a probability
    near 1 no longer knows.

    Arguments:
        y_true: The true classes: numbers, strings or booleans, or an indicator matrix.
        y_proba: Probabilities, or with `from_logits` logits: of the classes in sorted order, or of
            the positive class (the last of two) alone.
        normalize: The mean; `False` gives the sum.
        sample_weight: A weight a row. Weight 0 leaves a row out, whatever its loss.
        labels: The classes, where `y_true` does not have all of them. In whatever order they are
            given, columns are in sorted order.
        from_logits: Whether `y_proba` is logits: softmax makes probabilities of several columns,
            the sigmoid of one.

    Shape:
        - y_true: (N), or (N, K) indicators.
        - y_proba: (N, K); (N) or (N, 1) for two classes.

    Returns:
        The loss in nats.

    Errors:
        ValueError: lengths differ; probabilities are not in [0, 1], or NaN; the classes are not as
            many as columns, or fewer than two; a true class is not among `labels`, NaN, or a number
            that is not whole; weights are not finite numbers, or all are 0.

    Warns:
        UserWarning: rows of probabilities do not sum to 1.

    Example:
        >>> import numpy as np
        >>> from crossent.sklearn import log_loss
        >>> round(log_loss(["spam", "ham"], [[0.1, 0.9], [0.8, 0.2]]), 6)
        0.164252
        >>> log_loss(["spam", "ham"], np.array([1, 1e-30], np.float32))
        5.000000015855384e-31
        >>> log_loss(["spam", "ham"], [80.0, -80.0], from_logits=True)
        1.804851387845415e-35

    Reference:
        `sklearn.metrics.log_loss`, whose arguments these are.
    """
    for name, given in (
        ("y_true", y_true),
        ("y_proba", y_proba),
        ("sample_weight", sample_weight),
    ):
        refuse_mask(name, given)
    dtype = [np.float64, np.float32]
    y_proba = check_array(
        y_proba,
        ensure_2d=False,
        dtype=dtype,
        ensure_all_finite=not from_logits,
        input_name="y_proba",
    )
    check_consistent_length(y_proba, y_true, sample_weight)
    if sample_weight is not None:
        sample_weight = _check_weight(sample_weight)
    if y_proba.ndim == 2 and y_proba.shape[1] == 1:
        y_proba = y_proba[:, 0]
    if y_proba.ndim > 2:
        raise ValueError(f"y_proba must have one or two dimensions, got {y_proba.ndim}")
    columns = 2 if y_proba.ndim == 1 else y_proba.shape[1]
    index = _class_indices(y_true, labels, columns)

    options: dict[str, Any] = {
        "sample_weight": sample_weight,
        "reduction": "mean" if normalize else "sum",
    }
    if from_logits:
        if y_proba.ndim == 1:
            return float(F.binary_cross_entropy_with_logits(y_proba, index, **options))
        return float(F.cross_entropy(y_proba, index, **options))
    _check_probabilities(y_proba)
    # One logarithm a row, in float64, summed with compensation.
    with np.errstate(divide="ignore"):
        if y_proba.ndim == 1:
            p = y_proba.astype(np.float64)
            log_p = np.where(index == 1, np.log(p), np.log1p(-p))
        else:
            log_p = np.log(y_proba[np.arange(len(index)), index].astype(np.float64))
    return float(F.nll_loss(log_p[:, None], np.zeros(len(index), np.int8), **options))


neg_log_loss_scorer = make_scorer(
    log_loss, greater_is_better=False, response_method="predict_proba"
)
neg_log_loss_scorer.__doc__ = """Minus the log loss of `predict_proba`, for `scoring=`."""

neg_log_loss_logits_scorer = make_scorer(
    log_loss, greater_is_better=False, response_method="decision_function", from_logits=True
)
neg_log_loss_logits_scorer.__doc__ = """Minus the log loss of `decision_function`, as logits."""


def _check_weight(sample_weight: Any) -> Array:
    if np.asarray(sample_weight).dtype.kind in "SU":
        raise ValueError("sample_weight must be numbers, got strings")
    checked = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    weight: Array = column_or_1d(checked)
    if not weight.any():
        raise ValueError("sample_weight must have a weight that is not 0")
    return weight


def _check_classes(classes: Any, name: str) -> None:
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # That they are as many as of a regression, says scikit-learn; of few rows they may be.
        warnings.simplefilter("ignore", UserWarning)
        kind = type_of_target(classes, input_name=name)
    if kind.startswith(("continuous", "unknown")):
        raise ValueError(f"{name} must be classes, got unknown label type {kind!r}")


def _class_indices(y_true: Any, labels: Any, columns: int) -> Array:
    """The column of each row's class."""
    given = np.asarray(y_true)
    _check_classes(given, "y_true")
    if given.ndim == 2 and given.shape[1] > 1:
        if given.shape[1] != columns or not ((given == 0) | (given == 1)).all():
            raise ValueError(
                f"y_true of shape {given.shape} is not an indicator matrix of {columns} classes"
            )
        if not (given.sum(axis=1) == 1).all():
            raise ValueError("y_true must have one class in each row")
        indices: Array = given.argmax(axis=1)
        return indices
    given = column_or_1d(given)
    classes, inverse = np.unique(given, return_inverse=True)
    if labels is not None:
        every = column_or_1d(labels)
        if len(every) == 0:
            raise ValueError("labels must not be empty")
        _check_classes(every, "labels")
        every = np.unique(every)
        place = np.minimum(np.searchsorted(every, classes), len(every) - 1)
        strange = every[place] != classes
        if strange.any():
            raise ValueError(f"y_true has {classes[strange][0]!r}, which is not among the labels")
        classes, inverse = every, place[inverse]
    if len(classes) < 2 and labels is None:
        raise ValueError(f"y_true has one class, {classes[0]!r}: give all classes as labels")
    if len(classes) != columns:
        where = "y_true" if labels is None else "labels"
        raise ValueError(
            f"{where} has {len(classes)} classes, y_proba has columns for {columns}"
            + ("; give all classes as labels" if labels is None else "")
        )
    return inverse


def _check_probabilities(y_proba: Array) -> None:
    low, high = y_proba.min(), y_proba.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"y_proba must be in [0, 1], got {low} to {high}; for logits say from_logits=True"
        )
    if y_proba.ndim == 2:
        off = np.abs(y_proba.sum(axis=1) - 1).max()
        if off > np.sqrt(np.finfo(y_proba.dtype).eps):
            warnings.warn(
                f"rows of y_proba do not sum to 1, but to as much as {off:.3g} off it",
                UserWarning,
                stacklevel=3,
            )
