"""Multinomial logistic regression on crossent's loss and gradient."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

import crossent.functional as F
from crossent._arguments import number, refuse_mask, whole

__all__ = ["SoftmaxRegression"]

Array = NDArray[Any]

# Up to so many features their Gram matrix shapes the steps, beyond it its diagonal.
GRAM_FEATURES = 2000


class SoftmaxRegression(ClassifierMixin, BaseEstimator):
    r"""Multinomial logistic regression with an L2 penalty; of two classes, logistic regression.

    With coefficients $W$, intercepts $b$ and sample weights $s$ (times class weights),

    $$\min_{W, b}\; C \sum_i s_i\, \ell(W x_i + b,\, y_i) + \tfrac{1}{2} \lVert W \rVert^2$$

    where $\ell$ is the cross-entropy: what `sklearn.linear_model.LogisticRegression` minimises, and
    so the same coefficients. Of two classes there is one row of coefficients, for the logit of the
    second.

    SciPy's L-BFGS minimises it in coordinates in which the features are nearly independent: with
    $A = \frac{1}{4} \overline{\tilde x \tilde x^\top} + \lambda I$, the mean over rows with the
    intercept's 1 among the features (Böhning's bound of the Hessian, but for a factor), and
    $A = L L^\top$, it moves $(W, b)\, L$. Features of any scale, and correlated ones, so take about
    as many steps as standardised ones. Of more than 2000 features, $A$ is its diagonal.

    Arguments:
        C: The inverse of the penalty's strength; infinity is no penalty.
        fit_intercept: Whether there are intercepts; they are not penalised.
        class_weight: `{class: weight}`, `'balanced'` (inversely to the classes' frequencies), or
            none.
        tol: Stop where no element of the gradient, of the mean loss and in the coordinates above,
            is larger.
        max_iter: The most iterations of L-BFGS.

    Attributes:
        classes_: The classes, sorted; what columns of logits and probabilities stand for.
        coef_: (K, features), or (1, features) for two classes.
        intercept_: (K), or (1).
        n_iter_: The iterations.
        n_features_in_, feature_names_in_: As everywhere in scikit-learn.

    Errors:
        ValueError: an argument is out of range; there is one class; X or y has NaN or infinity.
        TypeError: an argument is of another type; X is sparse; a masked array.

    Warns:
        ConvergenceWarning: `tol` was not reached: `max_iter` was not enough, or rounding lets it be
            no better.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from crossent.sklearn import SoftmaxRegression
        >>> X, y = load_wine(return_X_y=True)
        >>> model = SoftmaxRegression().fit(X, y)
        >>> model.coef_.shape, round(model.score(X, y), 3)
        ((3, 13), 0.994)

    Reference:
        `sklearn.linear_model.LogisticRegression`; Böhning, "Multinomial logistic regression
        algorithm" (1992).
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        tol: float = 1e-7,
        max_iter: int = 10_000,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxRegression:
        """Fit to features (N, features) and classes (N), with a weight a row."""
        for name in ("C", "tol"):
            value = getattr(self, name)
            if not number(name, value) > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        whole("max_iter", self.max_iter, 1)
        if not isinstance(self.fit_intercept, (bool, np.bool_)):
            raise TypeError(f"fit_intercept must be a bool, got {self.fit_intercept!r}")
        for name, given in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            refuse_mask(name, given)
        X, y = validate_data(self, X, y, dtype=np.float64, order="C")
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: two are needed at least")
        weight = self._weights(X, y, target, sample_weight)

        problem = _Problem(X, target, len(self.classes_), weight, self.C, self.fit_intercept)
        result = minimize(
            problem.loss,
            np.zeros(problem.rows * problem.columns),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": self.max_iter,
                "maxfun": 2 * self.max_iter,
                "gtol": self.tol,
                # Stop by the gradient alone, or where rounding lets no step be one.
                "ftol": 0.0,
                "maxcor": 20,
            },
        )
        reached = float(np.abs(result.jac).max())
        if reached > self.tol:
            why = (
                f"max_iter={self.max_iter} iterations were not enough"
                if result.status == 1
                else "rounding let no step be one"
            )
            warnings.warn(
                f"the fit stopped at a gradient of {reached:.1e}, above tol={self.tol}: {why}",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_, self.intercept_ = problem.coefficients(result.x)
        self.n_iter_ = int(result.nit)
        return self

    def _weights(self, X: Array, y: Array, target: Array, sample_weight: Any) -> Array | None:
        if sample_weight is None and self.class_weight is None:
            return None
        weight: Array = _check_sample_weight(
            sample_weight, X, dtype=np.float64, copy=True, ensure_non_negative=True
        )
        if self.class_weight is not None:
            by_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y, sample_weight=weight
            )
            weight *= by_class[target]
        if not weight.sum() > 0:
            raise ValueError("sample_weight and class_weight leave no row with a positive weight")
        return weight

    def decision_function(self, X: Any) -> Array:
        """Logits (N, K); of two classes (N), the logit of the second."""
        check_is_fitted(self)
        refuse_mask("X", X)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        logits: Array = X @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (N, K)."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            return np.stack([F.sigmoid(-logits), F.sigmoid(logits)], axis=1)
        probabilities: Array = F.softmax(logits, axis=1, out=logits)
        return probabilities

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of the probabilities, also of those that are too small for a float."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            return np.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], axis=1)
        logs: Array = F.log_softmax(logits, axis=1, out=logits)
        return logs

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row."""
        logits = self.decision_function(X)
        best = (logits > 0).astype(np.intp) if logits.ndim == 1 else logits.argmax(axis=1)
        classes: Array = self.classes_[best]
        return classes


class _Problem:
    """The mean loss with its penalty, and its gradient, in the coordinates of the search."""

    def __init__(
        self,
        X: Array,
        target: Array,
        classes: int,
        weight: Array | None,
        C: float,
        fit_intercept: bool,
    ) -> None:
        self.X, self.target, self.weight = X, target, weight
        self.fit_intercept = fit_intercept
        count, self.features = X.shape
        self.rows = 1 if classes == 2 else classes
        self.columns = self.features + fit_intercept
        self.total = float(count) if weight is None else float(weight.sum())
        self.penalty = 1.0 / (C * self.total)
        # Class by class: products with X, sums over rows and the loss are all quicker so.
        self.logits = np.empty((self.rows, count))
        self._shape_steps()

    def _shape_steps(self) -> None:
        """L, or its diagonal alone."""
        X, weight = self.X, self.weight
        penalties = np.full(self.columns, self.penalty)
        penalties[self.features :] = 0.0
        self.factor: Array | None = None
        self.scale: Array = np.ones(self.columns)
        if self.columns <= GRAM_FEATURES:
            scaled = X if weight is None else X * weight[:, None]
            bound = np.empty((self.columns, self.columns))
            bound[: self.features, : self.features] = X.T @ scaled
            if self.fit_intercept:
                bound[-1, :-1] = bound[:-1, -1] = scaled.sum(axis=0)
                bound[-1, -1] = self.total
            bound *= 0.25 / self.total
            diagonal = np.einsum("ii->i", bound)
            diagonal += penalties
            # Features that depend on each other, or are 0, where the penalty is too weak to tell.
            diagonal += 1e-12 * diagonal + np.finfo(np.float64).tiny
            try:
                self.factor = cholesky(bound, lower=True, check_finite=False)
            except LinAlgError:
                self.scale = np.sqrt(diagonal)
            return
        share = np.ones(len(X)) if weight is None else weight
        squares = np.einsum("i,ij,ij->j", share, X, X)
        squares = np.append(squares, [self.total] * self.fit_intercept)
        self.scale = np.sqrt(0.25 * squares / self.total + penalties)
        self.scale[self.scale == 0.0] = 1.0

    def _parameters(self, place: Array) -> Array:
        """Coefficients and intercepts (rows, columns) of a place of the search."""
        place = place.reshape(self.rows, self.columns)
        if self.factor is None:
            return place / self.scale
        turned: Array = solve_triangular(
            self.factor, place.T, lower=True, trans="T", check_finite=False
        ).T
        return turned

    def _gradient(self, gradient: Array) -> Array:
        """A gradient with respect to parameters, as one with respect to the place."""
        if self.factor is None:
            return gradient / self.scale
        turned: Array = solve_triangular(self.factor, gradient.T, lower=True, check_finite=False).T
        return turned

    def coefficients(self, place: Array) -> tuple[Array, Array]:
        parameters = self._parameters(place)
        coefficients = np.ascontiguousarray(parameters[:, : self.features])
        if self.fit_intercept:
            intercepts = parameters[:, -1].copy()
            if self.rows > 1:
                # The same number more for every class is the same model.
                intercepts -= intercepts.mean()
            return coefficients, intercepts
        return coefficients, np.zeros(self.rows)

    def loss(self, place: Array) -> tuple[float, Array]:
        parameters = self._parameters(place)
        coefficients = np.ascontiguousarray(parameters[:, : self.features])
        np.matmul(coefficients, self.X.T, out=self.logits)
        if self.fit_intercept:
            self.logits += parameters[:, -1:]
        # The gradient takes the place of the logits.
        logits = self.logits[0] if self.rows == 1 else self.logits.T
        loss_of = F.binary_cross_entropy_with_logits if self.rows == 1 else F.cross_entropy
        loss, _ = loss_of(
            logits,
            self.target,
            sample_weight=self.weight,
            denominator=self.total,
            grad_out=logits,
        )
        gradient = np.empty((self.rows, self.columns))
        gradient[:, : self.features] = self.logits @ self.X
        gradient[:, : self.features] += self.penalty * coefficients
        if self.fit_intercept:
            gradient[:, -1] = self.logits.sum(axis=1)
        loss = float(loss) + 0.5 * self.penalty * float(np.vdot(coefficients, coefficients))
        return loss, self._gradient(gradient).ravel()
