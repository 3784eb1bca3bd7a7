"""Entropy and cross-entropy with exact gradients on NumPy arrays.

`crossent.functional` mirrors `torch.nn.functional`, the classes here mirror `torch.nn`; both are
exact to a few units in the last place and run at the speed of memory, without a framework.
"""

from crossent import functional
from crossent._core import __version__, get_num_threads, set_num_threads, simd_level
from crossent.functional import (
    TokenLogProb,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    binary_entropy,
    cross_entropy,
    entropy,
    entropy_with_logits,
    js_divergence,
    js_divergence_with_logits,
    kl_div,
    kl_divergence,
    kl_divergence_with_logits,
    log_softmax,
    logsigmoid,
    logsumexp,
    multilabel_soft_margin_loss,
    nll_loss,
    sigmoid,
    sigmoid_focal_loss,
    soft_margin_loss,
    softmax,
    token_log_prob,
)
from crossent.modules import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    KLDivLoss,
    MultiLabelSoftMarginLoss,
    NLLLoss,
    SoftMarginLoss,
)

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "KLDivLoss",
    "MultiLabelSoftMarginLoss",
    "NLLLoss",
    "SoftMarginLoss",
    "TokenLogProb",
    "__version__",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_entropy",
    "cross_entropy",
    "entropy",
    "entropy_with_logits",
    "functional",
    "get_num_threads",
    "js_divergence",
    "js_divergence_with_logits",
    "kl_div",
    "kl_divergence",
    "kl_divergence_with_logits",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "set_num_threads",
    "sigmoid",
    "sigmoid_focal_loss",
    "simd_level",
    "soft_margin_loss",
    "softmax",
    "token_log_prob",
]
