r"""Objectives and metrics for CatBoost.

    from catboost import CatBoostClassifier
    from crossent.boosting.catboost import BinaryCrossEntropy, SoftmaxCrossEntropy

    loss = BinaryCrossEntropy(pos_weight=2)
    CatBoostClassifier(loss_function=loss, eval_metric=loss.metric())

    loss = SoftmaxCrossEntropy(label_smoothing=0.1)
    CatBoostClassifier(loss_function=loss, eval_metric=loss.metric(), classes_count=10)

CatBoost maximises: it wants the derivatives of minus the loss. For one score a row it hands over
ranges of rows and takes an (N, 2) array of both derivatives, which is filled in place. For several
scores a row it calls once a row and takes the whole Hessian, of which it reads lists faster than
arrays; a call from C++ to Python for each row and iteration is what training then costs, whatever
the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, inf
from typing import Any

import numpy as np

import crossent.functional as F
from crossent._arguments import check_weights, refuse_mask
from crossent.boosting import _losses
from crossent.boosting._losses import Array, numbers

try:
    import catboost
except ImportError as error:
    raise ImportError(
        "crossent.boosting.catboost needs catboost: pip install crossent[boosting]"
    ) from error

__all__ = ["BinaryCrossEntropy", "FocalLoss", "SoftLabelCrossEntropy", "SoftmaxCrossEntropy"]

# Of minus the loss: above what is left of a positive second derivative.
CEILING = -1e-16
# CatBoost tries to compile methods with Numba, where that is installed, unless told not to.
NO_JIT = True


class CrossentMetric:
    """A loss as CatBoost's `eval_metric`: its mean over rows. Made by `objective.metric()`.

    CatBoost's logs call a metric by the name of its class.
    """

    no_jit = NO_JIT

    def __init__(self, loss: _losses.Loss) -> None:
        self.loss = loss

    def __repr__(self) -> str:
        return f"{self.loss!r}.metric()"

    def is_max_optimal(self) -> bool:
        """Whether more is better."""
        return False

    def evaluate(
        self, approxes: Sequence[Array], target: Array | Sequence[Array], weight: Array | None
    ) -> tuple[float, float]:
        """The sum of the losses of a range of rows times their weights, and that of the weights."""
        # A vector a class, which lie where they lie: rows need a copy.
        columns = [numbers("approxes", column) for column in approxes]
        scores = columns[0] if len(columns) == 1 else np.stack(columns).T
        if isinstance(target, (list, tuple)):
            labels = np.stack([numbers("target", column) for column in target]).T
        else:
            labels = numbers("target", target)
        if weight is not None:
            weight = numbers("weight", weight)
        return self.loss.sums(scores, self.loss.target(labels, scores), weight)

    def get_final_error(self, error: float, weight: float) -> float:
        """The mean, of sums over all ranges."""
        return error / weight if weight else 0.0


class CrossentMultiTargetMetric(CrossentMetric, catboost.MultiTargetCustomMetric):
    pass


class _Ranges(_losses.Sigmoid):
    no_jit = NO_JIT

    def calc_ders_range(self, approxes: Array, targets: Array, weights: Array | None) -> Array:
        """Both derivatives of minus the loss, (N, 2), of a range of rows."""
        approxes, targets = numbers("approxes", approxes), numbers("targets", targets)
        if weights is not None:
            weights = numbers("weights", weights)
        ders = np.empty((len(approxes), 2))
        self.derivatives(
            approxes,
            self.target(targets, approxes),
            weights,
            grad_output=-1.0,
            grad_out=ders[:, 0],
            hess_out=ders[:, 1],
        )
        if not self.convex:
            np.minimum(ders[:, 1], CEILING, out=ders[:, 1])
        return ders

    def metric(self) -> CrossentMetric:
        """The loss as `eval_metric`: the mean over rows by weight; less is better."""
        return CrossentMetric(self)


class SoftmaxCrossEntropy(_losses.Softmax):
    r"""Cross-entropy of the softmax of a score a class, with the whole Hessian.

    With class weights $w$, smoothed target $q$ and $M = \sum_c w_c q_c$, each row has

    $$\ell = -\sum_c w_c q_c \log p_c, \qquad g_i = w_i q_i - M p_i, \qquad
      H_{ij} = M (p_i p_j - [i = j]\, p_i)$$

    (derivatives of minus the loss), all times the row's weight. Without options it is CatBoost's
    `MultiClass`. Set `classes_count`, which CatBoost does not find out for an objective in Python.

    Arguments:
        weight: One weight a class, finite and not negative.
        label_smoothing: $\epsilon$, in [0, 1]: the target is replaced by
            $(1 - \epsilon)\, t + \epsilon / K$.

    Shape:
        - labels: (N) class indices.

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; the scores are one a row; a label is not a whole
            number in [0, K).

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.catboost import SoftmaxCrossEntropy
        >>> SoftmaxCrossEntropy().calc_ders_multi(np.zeros(2), 1.0, 1.0)
        ([-0.5, 0.5], [[-0.25, 0.25], [0.25, -0.25]])

    Reference:
        Prokhorenkova et al., "CatBoost: unbiased boosting with categorical features" (2018).
    """

    no_jit = NO_JIT

    def calc_ders_multi(
        self, approxes: Array, target: Any, weight: float
    ) -> tuple[list[float], list[list[float]]]:
        """Gradient (K) and Hessian (K, K) of minus the loss, of a row."""
        refuse_mask("approxes", approxes)
        if not 0.0 <= weight < inf:
            raise ValueError(f"weight must be finite and not negative, got {weight}")
        probabilities = F.softmax(approxes, axis=0)
        # Single numbers cost less from lists.
        p = probabilities.tolist()
        masses = self._masses(target, len(p))
        mass = fsum(masses)
        scale = weight * mass
        hess: list[list[float]] = (probabilities[:, None] * (scale * probabilities)).tolist()
        grad = []
        for k, share in enumerate(p):
            part = scale * share
            hess[k][k] -= part
            grad.append(weight * masses[k] - part)
        # Only the likeliest class can be so near to 1 that 1 - p is made of rounding.
        top = max(p)
        likeliest = p.index(top)
        p[likeliest] = 0.0
        others = fsum(p)
        grad[likeliest] = weight * (masses[likeliest] - mass) + scale * others
        hess[likeliest][likeliest] = -scale * top * others
        return grad, hess

    def metric(self) -> CrossentMetric:
        """The loss as `eval_metric`: the mean over rows by weight; less is better."""
        return CrossentMetric(self)

    def _masses(self, target: Any, classes: int) -> list[float]:
        """What each class's logarithm counts in a row's loss, w q."""
        if not (0 <= target < classes and target == int(target)):
            raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}, got {target}")
        masses = [self.label_smoothing / classes] * classes
        masses[int(target)] += 1.0 - self.label_smoothing
        return self._weighted(masses)

    def _weighted(self, masses: list[float]) -> list[float]:
        if self.weight is None:
            return masses
        if len(self.weight) != len(masses):
            raise ValueError(
                f"weight must have shape ({len(masses)},), one per class, got {self.weight.shape}"
            )
        return [w * mass for w, mass in zip(self.weight.tolist(), masses, strict=True)]


class SoftLabelCrossEntropy(SoftmaxCrossEntropy, catboost.MultiTargetCustomObjective):
    r"""`SoftmaxCrossEntropy` between scores and soft labels.

    To CatBoost it is an objective of several targets: give `CatBoost` or `CatBoostRegressor` the
    probabilities as labels. Its predictions are scores: `crossent.softmax` makes probabilities.

    Arguments:
        weight: One weight a class, finite and not negative.
        label_smoothing: $\epsilon$, in [0, 1], on top of the labels.

    Shape:
        - labels: (N, K) probabilities.

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; a row of labels has another length than its scores; a
            label is negative or not finite.

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.catboost import SoftLabelCrossEntropy
        >>> loss = SoftLabelCrossEntropy()
        >>> loss.calc_ders_multi(np.zeros(2), np.array([0.25, 0.75], np.float32), 1.0)
        ([-0.25, 0.25], [[-0.25, 0.25], [0.25, -0.25]])

    Reference:
        `crossent.functional.cross_entropy`.
    """

    def metric(self) -> CrossentMetric:
        """The loss as `eval_metric`: the mean over rows by weight; less is better."""
        return CrossentMultiTargetMetric(self)

    def _masses(self, target: Any, classes: int) -> list[float]:
        labels = numbers("labels", target)
        if labels.shape != (classes,):
            raise ValueError(f"labels must have shape ({classes},), got {labels.shape}")
        check_weights("labels", labels)
        even = self.label_smoothing / classes
        sharp = 1.0 - self.label_smoothing
        return self._weighted([sharp * label + even for label in labels.tolist()])


class BinaryCrossEntropy(_Ranges, _losses.Binary):
    r"""Cross-entropy of the sigmoid of a score, with a weight of the positive class.

    With the label $t$ and the positive class's weight $v$, each score has

    $$g = v\,t\, \sigma(-x) - (1 - t)\, \sigma(x), \qquad
      h = -(v\,t + 1 - t)\, \sigma(x)\, \sigma(-x)$$

    (derivatives of minus the loss), all times the row's weight. Without options it is CatBoost's
    `Logloss` (`CrossEntropy` for labels between 0 and 1). CatBoost's own `scale_pos_weight` is a
    weight of rows, which its scores of splits count as well: with `pos_weight` trees may differ.

    Arguments:
        pos_weight: The weight of the positive class, finite and not negative.

    Shape:
        - labels: (N), in [0, 1].

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option is out of range; a label is not in [0, 1].

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.catboost import BinaryCrossEntropy
        >>> labels = np.array([1.0, 0.0], np.float32)
        >>> BinaryCrossEntropy(pos_weight=3).calc_ders_range(np.zeros(2), labels, None)
        array([[ 1.5 , -0.75],
               [-0.5 , -0.25]])

    Reference:
        `crossent.functional.binary_cross_entropy_with_logits`.
    """


class FocalLoss(_Ranges, _losses.Focal):
    r"""Focal loss of the sigmoid of a score: less weight on what is already decided.

    With the cross-entropy $c$ and the probability $m$ of being wrong, each score has $b\, m^\gamma
    c$, where $b$ is $\alpha$ for a positive label and $1 - \alpha$ for a negative one. It is not
    convex: where a row is badly wrong the second derivative of the loss is negative. The exact one
    is taken where it is positive, and $10^{-16}$ elsewhere (minus that, as CatBoost has it): such a
    row has its gradient's say in a leaf and next to none in the leaf's denominator. `l2_leaf_reg`
    keeps the steps of leaves with none but such rows finite. CatBoost's own is
    `Focal:focal_alpha=...;focal_gamma=...`.

    Arguments:
        alpha: The balance $\alpha$ of a positive label, in [0, 1]; below 0, no balance.
        gamma: The power $\gamma$, at least 0.

    Shape:
        - labels: (N), in [0, 1].

    Errors:
        TypeError: an option, a label or a score is no number; a masked array.
        ValueError: an option or a label is out of range.

    Example:
        >>> import numpy as np
        >>> from crossent.boosting.catboost import FocalLoss
        >>> labels = np.ones(2, np.float32)
        >>> FocalLoss(alpha=-1).calc_ders_range(np.array([-9.0, 0.0]), labels, None)
        array([[ 1.00185045e+00, -1.00000000e-16],
               [ 2.98286795e-01, -3.99143398e-01]])

    Reference:
        Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection" (2017).
    """
