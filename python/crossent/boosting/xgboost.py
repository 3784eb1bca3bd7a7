r"""Objectives and metrics for XGBoost.

The same object goes to XGBoost's own training and to its scikit-learn estimators:

    import xgboost as xgb
    from crossent.boosting.xgboost import SoftmaxCrossEntropy

    loss = SoftmaxCrossEntropy(label_smoothing=0.1)
    params = {"num_class": 10, "objective": "multi:softprob", "base_score": 0.0}
    booster = xgb.train(params, dtrain, obj=loss, custom_metric=loss.metric())

    xgb.XGBClassifier(objective=loss, eval_metric=loss.metric(), base_score=0.5)

XGBoost has scores, labels and weights in float32, scores of several classes row by row, and wants
derivatives so. With $p$ the probability of a class by the scores and $s$ the row's weight, it takes
as second derivatives

$$h = \max(2 s\, p (1 - p),\ 10^{-16}) \quad\text{of several classes}, \qquad
  h = s\, \max(p (1 - p),\ 10^{-16}) \quad\text{of two};$$

so do these objectives: of two, a row of weight 0 has none. With the factor 2 the diagonal bounds
the whole Hessian, in whose rows absolute values sum to $2 p (1 - p)$.

The parameter `objective` is still of use beside `obj`: it is what `predict` and built-in metrics
make of the scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent.boosting import _losses
from crossent.boosting._callable import Dataset, Metric, given
from crossent.boosting._losses import Array

__all__ = ["BinaryCrossEntropy", "FocalLoss", "SoftmaxCrossEntropy"]

# XGBoost's own floor.
FLOOR = 1e-16


class _Metric(Metric):
    def __call__(self, y_true: Any, y_score: Any, sample_weight: Any = None) -> Any:
        mean = self.mean(y_true, y_score, sample_weight)
        return (self.__name__, mean) if hasattr(y_score, "get_label") else mean


class _Objective(_losses.Loss):
    _factor = 1.0

    def __call__(
        self,
        y_true: Array,
        y_pred: Array | Dataset,
        sample_weight: Array | None = None,
    ) -> tuple[Array, Array]:
        """Gradient and second derivatives, by `(labels, scores, weights)` or `(scores, data)`."""
        scores, labels, sample_weight = given(y_true, y_pred, sample_weight)
        target = self.target(labels, scores)
        grad, hess = self.derivatives(scores, target, sample_weight)
        if self._factor != 1.0:
            hess *= hess.dtype.type(self._factor)
        np.maximum(hess, self._floor(scores, target, sample_weight), out=hess, dtype=hess.dtype)
        return grad, hess

    def _floor(self, scores: Array, target: Array, sample_weight: Array | None) -> Array:
        """The least second derivative, a number or one a score, in the type of the scores."""
        return np.asarray(FLOOR, scores.dtype)

    def metric(self, *, from_logits: bool = True, name: str = "crossent") -> Metric:
        """The loss as `custom_metric` or `eval_metric`: the mean over rows by weight.

        Beside a built-in objective XGBoost hands probabilities to its own training's metrics and to
        those of estimators: say `from_logits=False` then.
        """
        return _Metric(self, name, from_logits)


class _SigmoidObjective(_Objective, _losses.Sigmoid):
    """Of a floor that is of the loss itself, before weights: weight 0 leaves a row out."""

    def _floor(self, scores: Array, target: Array, sample_weight: Array | None) -> Array:
        floor = FLOOR * self._mass(target)
        if sample_weight is not None:
            floor = floor * self._spread(sample_weight, scores)
        return np.asarray(floor, scores.dtype)


class SoftmaxCrossEntropy(_Objective, _losses.Softmax):
    r"""Cross-entropy of the softmax of a score a class.

    With class weights $w$, smoothed target $q$ and $M = \sum_c w_c q_c$, each row has

    $$\ell = -\sum_c w_c q_c \log p_c, \qquad g_i = M p_i - w_i q_i, \qquad
      h_i = 2 M p_i (1 - p_i)$$

    all times the row's weight. Without options it is `multi:softprob`.

    Arguments:
        weight: One weight a class, finite and not negative.
        label_smoothing: $\epsilon$, in [0, 1]: the target is replaced by
            $(1 - \epsilon)\, t + \epsilon / K$.

    Shape:
        - labels: (N) class indices, or (N, K) probabilities: soft labels. For these give `DMatrix`
          a matrix as label, and leave `num_class` and `objective` out.
        - scores, gradient, second derivatives: (N, K).

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; the scores are one a row; a label is not a whole
            number in [0, K); a soft label is negative or not finite.

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.xgboost import SoftmaxCrossEntropy
        >>> scores = np.zeros((1, 4), np.float32)
        >>> grad, hess = SoftmaxCrossEntropy()(np.array([2.0]), scores)
        >>> grad, hess
        (array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32),
         array([[0.375, 0.375, 0.375, 0.375]], dtype=float32))

    Reference:
        Chen and Guestrin, "XGBoost: A Scalable Tree Boosting System" (2016).
    """

    _factor = 2.0


class BinaryCrossEntropy(_SigmoidObjective, _losses.Binary):
    r"""Cross-entropy of the sigmoid of a score, with a weight of the positive class.

    With the label $t$ and the positive class's weight $v$, each score has

    $$g = (1 - t)\, \sigma(x) - v\,t\, \sigma(-x), \qquad
      h = (v\,t + 1 - t)\, \max(\sigma(x)\, \sigma(-x),\ 10^{-16})$$

    all times the row's weight. Without options it is `binary:logistic`, and `pos_weight` is
    XGBoost's `scale_pos_weight`.

    Arguments:
        pos_weight: The weight of the positive class, finite and not negative: a number, or one a
            column of scores.

    Shape:
        - labels: (N), in [0, 1]; for scores of shape (N, K): (N) class indices, each class against
          all others, or (N, K) of numbers in [0, 1].
        - scores, gradient, second derivatives: (N) or (N, K).

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; a label is not in [0, 1], or not a whole number in
            [0, K).

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.xgboost import BinaryCrossEntropy
        >>> BinaryCrossEntropy(pos_weight=3)(np.array([1.0, 0.0]), np.zeros(2, np.float32))
        (array([-1.5,  0.5], dtype=float32), array([0.75, 0.25], dtype=float32))

    Reference:
        `crossent.functional.binary_cross_entropy_with_logits`.
    """


class FocalLoss(_SigmoidObjective, _losses.Focal):
    r"""Focal loss of the sigmoid of a score: less weight on what is already decided.

    With the cross-entropy $c$ and the probability $m$ of being wrong, each score has $b\, m^\gamma
    c$, where $b$ is $\alpha$ for a positive label and $1 - \alpha$ for a negative one. It is not
    convex: where a row is badly wrong the second derivative is negative. The exact one is taken
    where it is above the floor, the floor elsewhere ($10^{-16}$ times the row's weight): such a row
    has its gradient's say in a leaf and next to none in the leaf's denominator. `min_child_weight`
    and `lambda` keep the steps of leaves with none but such rows finite.

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
        >>> from crossent.boosting.xgboost import FocalLoss
        >>> grad, hess = FocalLoss(alpha=-1)(np.array([1.0, 1.0]), np.array([-9, 0], np.float32))
        >>> grad
        array([-1.0018505, -0.2982868], dtype=float32)
        >>> hess
        array([1.000000e-16, 3.991434e-01], dtype=float32)

    Reference:
        Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection" (2017).
    """
