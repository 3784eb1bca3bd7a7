"""Entropy and cross-entropy with exact gradients on NumPy arrays.

`crossent.functional` mirrors `torch.nn.functional`, the classes here mirror `torch.nn`; both are
exact to a few units in the last place and run at the speed of memory, without a framework.
"""

from crossent import functional
from crossent._core import __version__, get_num_threads, set_num_threads, simd_level
from crossent.functional import (
    cross_entropy,
    log_softmax,
    logsumexp,
    nll_loss,
    softmax,
)
from crossent.modules import CrossEntropyLoss, NLLLoss

__all__ = [
    "CrossEntropyLoss",
    "NLLLoss",
    "__version__",
    "cross_entropy",
    "functional",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "set_num_threads",
    "simd_level",
    "softmax",
]
