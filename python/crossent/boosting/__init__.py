r"""Objectives and metrics for XGBoost, LightGBM and CatBoost.

One module a library, each with the same three losses, in that library's conventions:
`crossent.boosting.xgboost`, `crossent.boosting.lightgbm` and `crossent.boosting.catboost`.

- `SoftmaxCrossEntropy`: several classes; class weights, label smoothing, soft labels.
- `BinaryCrossEntropy`: two classes, or several one against all; a weight of the positive class.
- `FocalLoss`: likewise, with less weight on what is already decided.

An objective hands a library the gradient of each row's loss with respect to its scores, which are
logits, and the diagonal of the Hessian (CatBoost: the whole matrix for several classes), scaled and
floored as the library's own objective does it. `objective.metric()` is the loss as a metric.

`docs/boosting.md` has a guide. The modules of XGBoost and LightGBM need NumPy alone and work with
what the library hands over; `pip install crossent[boosting]` installs all three libraries.
"""

from crossent.boosting import lightgbm, xgboost

__all__ = ["lightgbm", "xgboost"]
