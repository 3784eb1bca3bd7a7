"""A classifier with a temperature, as an estimator."""

from __future__ import annotations

import warnings
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, column_or_1d, get_tags, indexable
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, has_fit_parameter

import crossent.functional as F
from crossent._arguments import refuse_mask
from crossent.sklearn._regression import SoftmaxRegression
from crossent.sklearn._temperature import fit_temperature

__all__ = ["TemperatureScaling"]

Array = NDArray[Any]


class TemperatureScaling(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    r"""A classifier whose probabilities are calibrated by a temperature.

    Its probabilities are $\mathrm{softmax}(z / T)$ of the classifier's logits $z$, with the one
    number $T$ that makes the cross-entropy of rows that the classifier was not fitted to least: see
    `fit_temperature`. $T > 1$ tempers a classifier that is too sure of itself. Decisions stay as
    they are.

    The logits are the classifier's `decision_function`, or if it has none its `predict_log_proba`,
    or the logarithms of its `predict_proba`. A probability of exactly 0, as forests give, would be
    an infinite loss at any temperature if that class came true: it counts as $2^{-52}$, or as the
    least other probability of its row if that is smaller.

    $T$ is fitted to logits of each row by a classifier fitted to the other folds; then the
    classifier is fitted to all rows. A classifier that is fitted already stays as it is if it comes
    as `sklearn.frozen.FrozenEstimator`: all rows then serve to fit $T$, and should be new to it.

    Arguments:
        estimator: The classifier; by default `SoftmaxRegression()`.
        cv: Folds: a number, a splitter, or pairs of indices, as everywhere in scikit-learn; by
            default 5, stratified.
        bounds: The least and the largest temperature that is allowed.

    Attributes:
        classes_: The classes, sorted.
        estimator_: The fitted classifier.
        temperature_: $T$. It may be 0 or infinite (of which `fit` warns) unless `bounds` say
            otherwise: probabilities are then the limits, 1 for the largest logit, or equal.
        n_features_in_, feature_names_in_: Those of the classifier, if it has them.

    Errors:
        TypeError: a masked array.
        ValueError: there is one class; folds do not fit; a fold's training rows miss a class.

    Warns:
        UserWarning: the temperature is 0 (the classifier makes no mistake) or infinite (its logits
            are no better than none). Weights of rows are given to a classifier whose `fit` does not
            name `sample_weight`, as that of a pipeline: they then weigh rows in the fit of $T$
            alone.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from crossent.sklearn import TemperatureScaling, log_loss
        >>> X, y = load_digits(return_X_y=True)
        >>> sure = GaussianNB(var_smoothing=1e-3).fit(X[:1000], y[:1000])
        >>> calibrated = TemperatureScaling(sure).fit(X[:1000], y[:1000])
        >>> calibrated.temperature_ > 1
        True
        >>> log_loss(y[1000:], calibrated.predict_proba(X[1000:])) < 1
        True

    Reference:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017).
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        cv: Any = None,
        bounds: tuple[float, float] = (0.0, inf),
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.bounds = bounds

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TemperatureScaling:
        """Fit the classifier and the temperature to rows and classes (N), with a weight a row."""
        for name, given in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            refuse_mask(name, given)
        X, y = indexable(X, column_or_1d(y, warn=True))
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        estimator = SoftmaxRegression() if self.estimator is None else self.estimator

        if isinstance(estimator, FrozenEstimator):
            self.estimator_ = estimator
            logits = self._logits(estimator, X)
        else:
            weight_of_fit = sample_weight
            if sample_weight is not None and not has_fit_parameter(estimator, "sample_weight"):
                warnings.warn(
                    f"{type(estimator).__name__}.fit does not name sample_weight: the classifier "
                    "is fitted without weights, and sample_weight is for the temperature alone",
                    UserWarning,
                    stacklevel=2,
                )
                weight_of_fit = None
            # First, so that bad input is the classifier's to name.
            self.estimator_ = _fit(clone(estimator), X, y, weight_of_fit)
            logits = self._logits_of_folds(estimator, X, y, weight_of_fit)
        self.temperature_ = fit_temperature(
            logits, target, sample_weight=sample_weight, bounds=self.bounds
        )
        if self.temperature_ == 0.0:
            warnings.warn(
                "the temperature is 0: every row's class has the largest logit, so that "
                "probabilities are 0 and 1; fit to more rows, or give bounds",
                UserWarning,
                stacklevel=2,
            )
        elif self.temperature_ == inf:
            warnings.warn(
                "the temperature is infinite: the logits are no better than none, so that "
                "probabilities are equal",
                UserWarning,
                stacklevel=2,
            )
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def _logits_of_folds(
        self, estimator: Any, X: Any, y: Array, sample_weight: Array | None
    ) -> Array:
        logits: Array | None = None
        seen = np.zeros(len(y), bool)
        for train, test in check_cv(self.cv, y, classifier=True).split(X, y):
            weight = None if sample_weight is None else sample_weight[train]
            fitted = _fit(clone(estimator), _safe_indexing(X, train), y[train], weight)
            of_fold = self._logits(fitted, _safe_indexing(X, test))
            if logits is None:
                logits = np.empty((len(y), *of_fold.shape[1:]), of_fold.dtype)
            logits[test] = of_fold
            seen[test] = True
        if logits is None or not seen.all():
            raise ValueError("cv must have each row in a test set")
        return logits

    def _logits(self, estimator: Any, X: Any) -> Array:
        classes = estimator.classes_
        if len(classes) != len(self.classes_) or (classes != self.classes_).any():
            raise ValueError(
                f"the classifier was fitted to the classes {list(classes)}, not to "
                f"{list(self.classes_)}: each fold needs all classes"
            )
        if hasattr(estimator, "decision_function"):
            logits = np.asarray(estimator.decision_function(X))
        else:
            logits = _log_probabilities(estimator, X)
        if logits.ndim == 2 and logits.shape[1] != len(classes):
            raise ValueError(
                f"the classifier's decision_function has {logits.shape[1]} columns for "
                f"{len(classes)} classes"
            )
        return logits

    def decision_function(self, X: Any) -> Array:
        """Calibrated logits (N, K), those of the classifier over $T$; of two classes (N), the logit
        of the second. `predict_proba` is their softmax or sigmoid.

        Where $T$ is 0 or infinite they are its limits: 0 for what has probability at all and -inf
        for the rest, of two classes 0 or an infinity.
        """
        check_is_fitted(self)
        logits = self._logits(self.estimator_, X).astype(np.float64, copy=False)
        if logits.ndim == 2 and len(self.classes_) == 2:
            logits = logits[:, 1] - logits[:, 0]
        if self.temperature_ == 0.0:
            if logits.ndim == 1:
                return np.where(logits == 0.0, 0.0, np.copysign(inf, logits))
            return np.where(logits == logits.max(axis=1, keepdims=True), 0.0, -inf)
        if self.temperature_ == inf:
            return np.where(np.isinf(logits), logits, 0.0)
        calibrated: Array = logits / self.temperature_
        return calibrated

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (N, K)."""
        check_is_fitted(self)
        logits = self._logits(self.estimator_, X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        if self.temperature_ == 0.0:
            # The limits: the largest logit has it all, and all that can be have as much.
            chosen = logits == logits.max(axis=1, keepdims=True)
        elif self.temperature_ == inf:
            chosen = logits > -inf
        else:
            return F.softmax(logits, axis=1, temperature=self.temperature_)
        shares: Array = chosen / chosen.sum(axis=1, keepdims=True)
        return shares

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row, by the logits: any temperature leaves it."""
        check_is_fitted(self)
        logits = self._logits(self.estimator_, X)
        best = (logits > 0).astype(np.intp) if logits.ndim == 1 else logits.argmax(axis=1)
        classes: Array = self.classes_[best]
        return classes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.estimator is not None:
            tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags


def _log_probabilities(estimator: Any, X: Any) -> Array:
    """The logarithms of probabilities, all finite."""
    with np.errstate(divide="ignore"):
        if hasattr(estimator, "predict_log_proba"):
            logs = np.asarray(estimator.predict_log_proba(X))
        else:
            logs = np.log(np.asarray(estimator.predict_proba(X)))
    never = logs == -inf
    if never.any():
        # By row, so that a row's answer does not depend on others.
        least = np.where(never, inf, logs).min(axis=1, keepdims=True)
        logs = np.where(never, np.minimum(least, np.log(np.finfo(np.float64).eps)), logs)
    return logs


def _fit(estimator: Any, X: Any, y: Array, sample_weight: Array | None) -> Any:
    if sample_weight is None:
        return estimator.fit(X, y)
    return estimator.fit(X, y, sample_weight=sample_weight)
