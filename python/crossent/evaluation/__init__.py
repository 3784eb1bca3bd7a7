"""Evaluation of models at any size: sums that merge exactly, and the measures read from them.

    >>> import numpy as np
    >>> from crossent.evaluation import evaluate
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3]])
    >>> evaluate(logits, [0, 2]).accuracy
    0.5

It needs NumPy alone; `evaluate_dask` needs `pip install crossent[dask]`.
"""

from crossent.evaluation._dask import evaluate_dask
from crossent.evaluation._evaluation import Evaluation, Token
from crossent.evaluation._quantiles import Quantiles
from crossent.evaluation._stream import evaluate

__all__ = ["Evaluation", "Quantiles", "Token", "evaluate", "evaluate_dask"]
