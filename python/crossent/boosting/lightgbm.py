r"""Objectives and metrics for LightGBM.

The same object goes to LightGBM's own training and to its scikit-learn estimators:

    import lightgbm as lgb
    from crossent.boosting.lightgbm import SoftmaxCrossEntropy

    loss = SoftmaxCrossEntropy(label_smoothing=0.1)
    params = {"objective": loss, "num_class": 10, "metric": "none"}
    booster = lgb.train(params, data, feval=loss.metric())

    lgb.LGBMClassifier(objective=loss)

LightGBM has scores in float64, of several classes class by class (Fortran order); they are read
where they lie, and the derivatives are made in the same order. With $p$ the probability of a class
by the scores and $s$ the row's weight, LightGBM takes as second derivatives

$$h = \frac{K}{K - 1}\, s\, p (1 - p) \quad\text{of $K$ classes}, \qquad
  h = s\, p (1 - p) \quad\text{of two};$$

so do these objectives. The factor is that of Friedman's algorithm for several classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from crossent._arguments import check_weights
from crossent.boosting import _losses
from crossent.boosting._callable import Dataset, Metric, given
from crossent.boosting._losses import Array, numbers

__all__ = ["BinaryCrossEntropy", "FocalLoss", "SoftmaxCrossEntropy"]

# Below what is left of a negative second derivative. LightGBM's own objectives have no floor.
FLOOR = 1e-16


class _Metric(Metric):
    def __call__(self, y_true: Any, y_score: Any, weight: Any = None) -> tuple[str, float, bool]:
        return self.__name__, self.mean(y_true, y_score, weight), False


class _Objective(_losses.Loss):
    def __call__(
        self,
        y_true: Array,
        y_pred: Array | Dataset,
        weight: Array | None = None,
    ) -> tuple[Array, Array]:
        """Gradient and second derivatives, by `(labels, scores, weights)` or `(scores, data)`."""
        scores, labels, weight = given(y_true, y_pred, weight)
        return self._scaled(scores, self.target(labels, scores), weight)

    def _scaled(self, scores: Array, target: Array, weight: Array | None) -> tuple[Array, Array]:
        grad, hess = self.derivatives(scores, target, weight)
        factor = self._factor(scores)
        if factor != 1.0:
            hess *= factor
        if not self.convex:
            np.maximum(hess, FLOOR, out=hess)
        return grad, hess

    def _factor(self, scores: Array) -> float:
        return 1.0

    def metric(self, *, from_logits: bool = True, name: str = "crossent") -> Metric:
        """The loss as `feval` or `eval_metric`: the mean over rows by weight; less is better.

        Beside a built-in objective LightGBM hands probabilities to metrics: say
        `from_logits=False` then.
        """
        return _Metric(self, name, from_logits)


class SoftmaxCrossEntropy(_Objective, _losses.Softmax):
    r"""Cross-entropy of the softmax of a score a class.

    With class weights $w$, smoothed target $q$ and $M = \sum_c w_c q_c$, each row has

    $$\ell = -\sum_c w_c q_c \log p_c, \qquad g_i = M p_i - w_i q_i, \qquad
      h_i = \frac{K}{K - 1} M p_i (1 - p_i)$$

    all times the row's weight. Without options it is LightGBM's `multiclass`.

    Arguments:
        weight: One weight a class, finite and not negative.
        label_smoothing: $\epsilon$, in [0, 1]: the target is replaced by
            $(1 - \epsilon)\, t + \epsilon / K$.
        soft_labels: Probabilities of the classes of each row of the training set, in its order, in
            place of its labels, of which LightGBM's `Dataset` has one a row. A metric goes by the
            labels of the data that it is given.

    Shape:
        - labels: (N) class indices. soft_labels: (N, K).
        - scores, gradient, second derivatives: (N, K).

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; the scores are one a row; a label is not a whole
            number in [0, K); a soft label is negative or not finite; `soft_labels` is of another
            shape than the scores.

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.lightgbm import SoftmaxCrossEntropy
        >>> scores = np.zeros((1, 4), order="F")
        >>> grad, hess = SoftmaxCrossEntropy()(np.array([2.0]), scores)
        >>> grad, hess
        (array([[ 0.25,  0.25, -0.75,  0.25]]), array([[0.25, 0.25, 0.25, 0.25]]))

    Reference:
        Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree" (2017); Friedman,
        "Greedy function approximation: a gradient boosting machine" (2001).
    """

    def __init__(
        self,
        *,
        weight: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        soft_labels: ArrayLike | None = None,
    ) -> None:
        super().__init__(weight=weight, label_smoothing=label_smoothing)
        self.soft_labels = None if soft_labels is None else _soft(soft_labels)

    def __call__(
        self,
        y_true: Array,
        y_pred: Array | Dataset,
        weight: Array | None = None,
    ) -> tuple[Array, Array]:
        """Gradient and second derivatives, by `(labels, scores, weights)` or `(scores, data)`."""
        if self.soft_labels is None:
            return super().__call__(y_true, y_pred, weight)
        scores, _, weight = given(y_true, y_pred, weight)
        if self.soft_labels.shape != scores.shape:
            raise ValueError(
                f"soft_labels must have the shape of the scores, {scores.shape}, "
                f"got {self.soft_labels.shape}"
            )
        return self._scaled(scores, self.soft_labels, weight)

    def _factor(self, scores: Array) -> float:
        classes: int = scores.shape[1]
        return classes / (classes - 1)


def _soft(soft_labels: ArrayLike) -> Array:
    """Soft labels as they are, if they are floats: all of a training set may be large."""
    array = numbers("soft_labels", soft_labels)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(f"soft_labels must have shape (N, K), a column a class, got {array.shape}")
    check_weights("soft_labels", array)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


class BinaryCrossEntropy(_Objective, _losses.Binary):
    r"""Cross-entropy of the sigmoid of a score, with a weight of the positive class.

    With the label $t$ and the positive class's weight $v$, each score has

    $$g = (1 - t)\, \sigma(x) - v\,t\, \sigma(-x), \qquad
      h = (v\,t + 1 - t)\, \sigma(x)\, \sigma(-x)$$

    all times the row's weight. Without options it is LightGBM's `binary`, of several classes its
    `multiclassova`, and `pos_weight` is its `scale_pos_weight`.

    Arguments:
        pos_weight: The weight of the positive class, finite and not negative: a number, or one a
            column of scores.

    Shape:
        - labels: (N), in [0, 1]; for scores of shape (N, K): (N) class indices, each class against
          all others.
        - scores, gradient, second derivatives: (N) or (N, K).

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; a label is not in [0, 1], or not a whole number in
            [0, K).

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.lightgbm import BinaryCrossEntropy
        >>> BinaryCrossEntropy(pos_weight=3)(np.array([1.0, 0.0]), np.zeros(2))
        (array([-1.5,  0.5]), array([0.75, 0.25]))

    Reference:
        `crossent.functional.binary_cross_entropy_with_logits`.
    """


class FocalLoss(_Objective, _losses.Focal):
    r"""Focal loss of the sigmoid of a score: less weight on what is already decided.

    With the cross-entropy $c$ and the probability $m$ of being wrong, each score has $b\, m^\gamma
    c$, where $b$ is $\alpha$ for a positive label and $1 - \alpha$ for a negative one. It is not
    convex: where a row is badly wrong the second derivative is negative. The exact one is taken
    where it is positive, and $10^{-16}$ elsewhere: such a row has its gradient's say in a leaf and
    next to none in the leaf's denominator. `min_sum_hessian_in_leaf` and `lambda_l2` keep the steps
    of leaves with none but such rows finite.

    Arguments:
        alpha: The balance $\alpha$ of a positive label, in [0, 1]; below 0, no balance.
        gamma: The power $\gamma$, at least 0.

    Shape:
        As `BinaryCrossEntropy`.

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option or a label is out of range.

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.lightgbm import FocalLoss
        >>> FocalLoss(alpha=-1)(np.array([1.0, 1.0]), np.array([-9.0, 0.0]))
        (array([-1.00185045, -0.2982868 ]), array([1.00000000e-16, 3.99143398e-01]))

    Reference:
        Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection" (2017).
    """
