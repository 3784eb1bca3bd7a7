"""Metrics and estimators for scikit-learn.

- `log_loss`, and the scorers `neg_log_loss_scorer` and `neg_log_loss_logits_scorer`: the mean
  cross-entropy of probabilities, as they are, or of logits.
- `fit_temperature` and `TemperatureScaling`: calibration by one number.
- `SoftmaxRegression`: multinomial logistic regression.

Needs scikit-learn and SciPy: `pip install crossent[sklearn]`. `docs/sklearn.md` has a guide.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "crossent.sklearn needs scikit-learn: pip install crossent[sklearn]"
    ) from error

from crossent.sklearn._calibration import TemperatureScaling
from crossent.sklearn._metrics import log_loss, neg_log_loss_logits_scorer, neg_log_loss_scorer
from crossent.sklearn._regression import SoftmaxRegression
from crossent.sklearn._temperature import fit_temperature

__all__ = [
    "SoftmaxRegression",
    "TemperatureScaling",
    "fit_temperature",
    "log_loss",
    "neg_log_loss_logits_scorer",
    "neg_log_loss_scorer",
]
