"""Entropy and cross-entropy on torch tensors.

The functions mirror `torch.nn.functional`, the classes are modules that mirror `torch.nn`. On the
CPU they are crossent's own kernels, on CUDA fused kernels in Triton, on every other device formulas
composed of torch's operations.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("crossent.torch needs torch: pip install crossent[torch]") from error

from crossent.torch import functional
from crossent.torch._parallel import vocab_parallel_cross_entropy
from crossent.torch.functional import (
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
from crossent.torch.modules import (
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
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_entropy",
    "cross_entropy",
    "entropy",
    "entropy_with_logits",
    "functional",
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
    "sigmoid",
    "sigmoid_focal_loss",
    "soft_margin_loss",
    "softmax",
    "token_log_prob",
    "vocab_parallel_cross_entropy",
]
