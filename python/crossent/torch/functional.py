"""Losses and their building blocks on torch tensors, with the signatures of `torch.nn.functional`.

They are those of `crossent.functional`, whose documentation has the mathematics and the numbers,
and are differentiable. What torch does not have is keyword-only. Tensors may have any strides; on
the CPU they are read where they lie.
"""

from __future__ import annotations

from math import nan

import torch
from torch import Tensor

from crossent.functional import TokenLogProb
from crossent.torch import _ops

__all__ = [
    "TokenLogProb",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_entropy",
    "cross_entropy",
    "entropy",
    "entropy_with_logits",
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
]


def _class_axis(input: Tensor, axis: int | None) -> int:
    if axis is None:
        return 1 if input.ndim > 1 else 0
    return axis


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    axis: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
    z_loss: float = 0.0,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
    inplace_grad: bool = False,
) -> Tensor:
    """Cross-entropy between a target and the softmax of logits.

    `crossent.functional.cross_entropy` has the mathematics. Where `input` requires grad, the
    gradient is computed in the same sweep, and kept in one buffer of its size.

    Arguments:
        input: Logits; any real numbers, -inf for a class that cannot be.
        target: Class indices of any integer type, or probabilities of any float type.
        weight: One weight a class.
        ignore_index: The class index of rows that do not count.
        reduction: `'mean'`, `'sum'` or `'none'`.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.
        z_loss: Adds this much of the square of log-sum-exp to each loss.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.
        inplace_grad: Write the gradient into the memory of `input`, which is then no longer what it
            was. It has to be the result of an operation that does not need it again, and there is
            one backward, and no derivative of it. A compiler, which plans memory itself, is not
            told.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C for class indices; input's shape for probabilities.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.functional.cross_entropy`.
        On a GPU class indices are not checked: the loss of one out of range is NaN.
        RuntimeError: `inplace_grad` and `input` is a leaf that requires grad, or a view of one.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> logits = torch.tensor([[20.0, 0.0]], requires_grad=True)
        >>> loss = ct.cross_entropy(logits, torch.tensor([0]))
        >>> loss.detach()
        tensor(2.0612e-09)
        >>> loss.backward()
        >>> logits.grad
        tensor([[-2.0612e-09,  2.0612e-09]])

    Reference:
        `torch.nn.functional.cross_entropy`, whose meaning this follows.
    """
    tensors = (input, target, weight, sample_weight, class_mask)
    axis = _class_axis(input, axis)
    options = (
        ignore_index,
        reduction,
        label_smoothing,
        axis,
        temperature,
        softcap,
        z_loss,
        denominator,
        empty,
    )
    if inplace_grad:
        return _ops.cross_entropy_inplace(tensors, options)
    return _ops.cross_entropy(tensors, options)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    axis: int | None = None,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Negative log-likelihood of log-probabilities.

    `crossent.functional.nll_loss` has the mathematics. Of `log_softmax(logits)` it is the
    cross-entropy of the logits, which `cross_entropy` computes at once, more exactly and faster.

    Arguments:
        input: Log-probabilities.
        target: Class indices of any integer type.
        weight: One weight a class.
        ignore_index: The class index of rows that do not count.
        reduction: `'mean'`, `'sum'` or `'none'`.
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.functional.nll_loss`.
        Not on the CPU, class indices are not checked: the loss of one out of range is NaN.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.nll_loss(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
        tensor(2.)

    Reference:
        `torch.nn.functional.nll_loss`, whose meaning this follows.
    """
    tensors = (input, target, weight, sample_weight)
    options = (ignore_index, reduction, _class_axis(input, axis), denominator, empty)
    return _ops.nll_loss(tensors, options)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Binary cross-entropy between targets and probabilities.

    `crossent.functional.binary_cross_entropy` has the mathematics, and torch's clamps.

    Arguments:
        input: Probabilities, in [0, 1].
        target: Targets, commonly 0 or 1 or between, of any float or integer type.
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.binary_cross_entropy`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.binary_cross_entropy(torch.tensor([1e-20]), torch.tensor([0.0]))
        tensor(1.0000e-20)

    Reference:
        `torch.nn.functional.binary_cross_entropy`, whose meaning this follows.
    """
    tensors = (input, target, weight, None, sample_weight)
    options = ("probabilities", reduction, 0.0, 0.0, denominator, empty)
    return _ops.pointwise(tensors, options)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    *,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Binary cross-entropy between targets and the sigmoid of logits.

    `crossent.functional.binary_cross_entropy_with_logits` has the mathematics.

    Arguments:
        input: Logits; any real numbers, infinite ones too.
        target: Targets, commonly 0 or 1 or between, of any float or integer type.
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        pos_weight: A weight of the positive answer, of a shape that broadcasts to the input's.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.binary_cross_entropy_with_logits`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.binary_cross_entropy_with_logits(torch.tensor([-torch.inf]), torch.tensor([0.0]))
        tensor(0.)

    Reference:
        `torch.nn.functional.binary_cross_entropy_with_logits`, whose meaning this follows.
    """
    tensors = (input, target, weight, pos_weight, sample_weight)
    options = ("logits", reduction, 0.0, 0.0, denominator, empty)
    return _ops.pointwise(tensors, options)


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    *,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Focal loss of logits: binary cross-entropy that counts what is already decided for less.

    `crossent.functional.sigmoid_focal_loss` has the mathematics.

    Arguments:
        inputs: Logits; any real numbers, infinite ones too.
        targets: Targets, commonly 0 or 1, of any float or integer type.
        alpha: The balance of a positive target, in [0, 1]; below 0, no balance.
        gamma: The power, at least 0; 0 is no focus.
        reduction: `'mean'`, `'sum'` or `'none'`.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - inputs, targets: any, the same.
        - loss: a number, or for `'none'` the shape of `inputs`.

    Errors:
        As of `crossent.functional.sigmoid_focal_loss`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.sigmoid_focal_loss(torch.tensor([0.0]), torch.tensor([1.0]), alpha=-1)
        tensor([0.1733])

    Reference:
        `torchvision.ops.sigmoid_focal_loss`, whose meaning this follows.
    """
    tensors = (inputs, targets, None, None, sample_weight)
    options = ("focal", reduction, alpha, gamma, denominator, empty)
    return _ops.pointwise(tensors, options)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Multi-label soft margin loss: binary cross-entropy with logits, averaged over classes.

    `crossent.functional.multilabel_soft_margin_loss` has the mathematics.

    Arguments:
        input: Logits; the last axis holds the classes.
        target: Targets, commonly 0 or 1 or between, of any float or integer type.
        weight: One weight a class, or any shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - input, target: (C), (N, C) or (N, ..., C), the same.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.functional.multilabel_soft_margin_loss`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.multilabel_soft_margin_loss(torch.zeros(2, 3), torch.eye(2, 3))
        tensor(0.6931)

    Reference:
        `torch.nn.functional.multilabel_soft_margin_loss`, whose meaning this follows.
    """
    tensors = (input, target, weight, None, sample_weight)
    options = ("multilabel", reduction, 0.0, 0.0, denominator, empty)
    return _ops.pointwise(tensors, options)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    *,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Soft margin loss: logistic regression with targets of -1 and 1.

    `crossent.functional.soft_margin_loss` has the mathematics.

    Arguments:
        input: Scores; any real numbers.
        target: Targets, commonly -1 or 1, of any float or integer type.
        reduction: `'mean'`, `'sum'` or `'none'`.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.soft_margin_loss`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.soft_margin_loss(torch.tensor([40.0]), torch.tensor([1.0]))
        tensor(4.2484e-18)

    Reference:
        `torch.nn.functional.soft_margin_loss`, whose meaning this follows.
    """
    tensors = (input, target, None, None, sample_weight)
    options = ("soft margin", reduction, 0.0, 0.0, denominator, empty)
    return _ops.pointwise(tensors, options)


def kl_div(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    log_target: bool = False,
    *,
    base: float | None = None,
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    empty: float = nan,
) -> Tensor:
    """Kullback-Leibler divergence with torch's meaning: log-probabilities first, by elements.

    `crossent.functional.kl_div` has the mathematics.

    Arguments:
        input: Log-probabilities.
        target: Probabilities, or their logarithms, of any float or integer type.
        reduction: `'mean'`, `'batchmean'`, `'sum'` or `'none'`. `'batchmean'` divides by the length
            of the first axis.
        log_target: Whether `target` holds logarithms.
        base: The base of the divergence's logarithm: 2 for bits; nats without.
        sample_weight: A weight a loss, of the losses' shape; weight 0 leaves a loss out.
        denominator: What `'mean'` divides by instead.
        empty: The mean where no loss counts; the gradient is then 0.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.kl_div`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.kl_div(torch.log(torch.tensor([0.5, 0.5])), torch.tensor([1.0, 0.0]), "sum")
        tensor(0.6931)

    Reference:
        `torch.nn.functional.kl_div`, whose meaning this follows.
    """
    tensors = (input, target, None, None, sample_weight)
    _ops.check_base(base)
    options = ("kl", reduction, float(log_target), base or 0.0, denominator, empty)
    return _ops.pointwise(tensors, options)


def entropy(
    p: Tensor,
    *,
    axis: int = -1,
    base: float | None = None,
) -> Tensor:
    """Shannon's entropy of probabilities.

    `crossent.functional.entropy` has the mathematics.

    Arguments:
        p: Probabilities, or any numbers that are not negative; a NaN gives NaN.
        axis: The axis to sum over.
        base: The base of the logarithm: 2 for bits; nats without.

    Shape:
        - p: any with at least one axis; the result lacks `axis`.

    Errors:
        As of `crossent.functional.entropy`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.entropy(torch.tensor([0.5, 0.5]), base=2)
        tensor(1.)

    Reference:
        Shannon, "A mathematical theory of communication" (1948).
    """
    return _ops.entropy((p,), ("sum", axis, base))


def binary_entropy(
    p: Tensor,
    *,
    base: float | None = None,
) -> Tensor:
    """Entropy of one probability: of a coin that falls on one side with it, element by element.

    `crossent.functional.binary_entropy` has the mathematics.

    Arguments:
        p: Probabilities, in [0, 1]; a NaN gives NaN.
        base: The base of the logarithm: 2 for bits; nats without.

    Shape:
        - p, result: any, the same.

    Errors:
        As of `crossent.functional.binary_entropy`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.binary_entropy(torch.tensor([0.5, 1.0]), base=2)
        tensor([1., 0.])

    Reference:
        Cover and Thomas, *Elements of Information Theory*, section 2.1.
    """
    return _ops.entropy((p,), ("binary", 0, base))


def entropy_with_logits(
    logits: Tensor,
    *,
    axis: int = -1,
    base: float | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    """Shannon's entropy of the softmax of logits.

    `crossent.functional.entropy_with_logits` has the mathematics.

    Arguments:
        logits: Logits; any real numbers, -inf for a class that cannot be.
        axis: The class axis.
        base: The base of the logarithm: 2 for bits; nats without.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.

    Shape:
        - logits: any with at least one axis; the result lacks `axis`.

    Errors:
        As of `crossent.functional.entropy_with_logits`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.entropy_with_logits(torch.tensor([[0.0, 0.0], [50.0, 0.0]]), base=2)
        tensor([1.0000e+00, 1.4191e-20])

    Reference:
        `torch.distributions.Categorical.entropy`.
    """
    options = (axis, base, temperature, softcap)
    return _ops.entropy_with_logits((logits, class_mask), options)


def kl_divergence(
    p: Tensor,
    q: Tensor,
    *,
    axis: int = -1,
    base: float | None = None,
) -> Tensor:
    """Kullback-Leibler divergence of a distribution `q` from a distribution `p`.

    `crossent.functional.kl_divergence` has the mathematics. It is differentiable with respect to
    both.

    Arguments:
        p: Probabilities, or any numbers that are not negative; a NaN gives NaN.
        q: Probabilities likewise.
        axis: The axis to sum over.
        base: The base of the logarithm: 2 for bits; nats without.

    Shape:
        - p, q: any with at least one axis, the same; the result lacks `axis`.

    Errors:
        As of `crossent.functional.kl_divergence`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.kl_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), base=2)
        tensor(1.)

    Reference:
        Kullback and Leibler, "On information and sufficiency" (1951).
    """
    return _ops.divergence((p, q), ("kl", axis, base))


def kl_divergence_with_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    *,
    axis: int = -1,
    base: float | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    """Kullback-Leibler divergence between the softmaxes of logits.

    `crossent.functional.kl_divergence_with_logits` has the mathematics. It is differentiable
    with respect to both; detach the logits of a teacher.

    Arguments:
        p_logits: Logits of the first distribution; any real numbers, -inf for a class that cannot
            be.
        q_logits: Logits of the second.
        axis: The class axis.
        base: The base of the logarithm: 2 for bits; nats without.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.

    Shape:
        - p_logits, q_logits: any with at least one axis, the same; the result lacks `axis`.

    Errors:
        As of `crossent.functional.kl_divergence_with_logits`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> logits = torch.tensor([1.0, 2.0, 3.0])
        >>> ct.kl_divergence_with_logits(logits, logits + 64)
        tensor(0.)

    Reference:
        Kullback and Leibler, "On information and sufficiency" (1951).
    """
    tensors = (p_logits, q_logits, class_mask)
    options = ("kl", axis, base, temperature, softcap)
    return _ops.divergence_with_logits(tensors, options)


def js_divergence(
    p: Tensor,
    q: Tensor,
    *,
    axis: int = -1,
    base: float | None = None,
) -> Tensor:
    """Jensen-Shannon divergence between two distributions.

    `crossent.functional.js_divergence` has the mathematics. It is differentiable with respect to
    both.

    Arguments:
        p: Probabilities, or any numbers that are not negative; a NaN gives NaN.
        q: Probabilities likewise.
        axis: The axis to sum over.
        base: The base of the logarithm: 2 for bits; nats without.

    Shape:
        - p, q: any with at least one axis, the same; the result lacks `axis`.

    Errors:
        As of `crossent.functional.js_divergence`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.js_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), base=2)
        tensor(0.3113)

    Reference:
        Lin, "Divergence measures based on the Shannon entropy" (1991).
    """
    return _ops.divergence((p, q), ("js", axis, base))


def js_divergence_with_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    *,
    axis: int = -1,
    base: float | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    """Jensen-Shannon divergence between the softmaxes of logits.

    `crossent.functional.js_divergence_with_logits` has the mathematics. It is differentiable
    with respect to both; detach the logits of a teacher.

    Arguments:
        p_logits: Logits of the first distribution; any real numbers, -inf for a class that cannot
            be.
        q_logits: Logits of the second.
        axis: The class axis.
        base: The base of the logarithm: 2 for bits; nats without.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.

    Shape:
        - p_logits, q_logits: any with at least one axis, the same; the result lacks `axis`.

    Errors:
        As of `crossent.functional.js_divergence_with_logits`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> logits = torch.tensor([1.0, 2.0, 3.0])
        >>> ct.js_divergence_with_logits(logits, logits + 64)
        tensor(0.)

    Reference:
        Lin, "Divergence measures based on the Shannon entropy" (1991).
    """
    tensors = (p_logits, q_logits, class_mask)
    options = ("js", axis, base, temperature, softcap)
    return _ops.divergence_with_logits(tensors, options)


def token_log_prob(
    input: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
    axis: int | None = None,
) -> TokenLogProb:
    """Log-probability and rank of targets, entropy and log-sum-exp, in one pass over logits.

    `crossent.functional.token_log_prob` has the mathematics. All but the rank are
    differentiable, the first two of them in one pass on the CPU.

    Arguments:
        input: Logits; any real numbers, -inf for a class that cannot be.
        target: Class indices of any integer type.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C; so have the answers.

    Errors:
        As of `crossent.functional.token_log_prob`.
        Not on the CPU, class indices are not checked: the answers of one out of range are NaN.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> tokens = ct.token_log_prob(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
        >>> tokens.log_prob
        tensor([-2.0612e-09])
        >>> tokens.rank
        tensor([0])

    Reference:
        `cross_entropy` of a target class and `entropy_with_logits`, whose numbers these are.
    """
    axis = _class_axis(input, axis)
    answers = _ops.token_log_prob(input, target, class_mask, axis, temperature, softcap)
    return TokenLogProb(*answers)


def softmax(
    input: Tensor,
    dim: int,
    *,
    dtype: torch.dtype | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    """Probabilities proportional to the exponentials of logits.

    `crossent.functional.softmax` has the mathematics.

    Arguments:
        input: Logits.
        dim: The axis over which probabilities sum to 1.
        dtype: The type that the input is converted to first.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.

    Shape:
        - input: any with at least one axis; the result has it, too.

    Errors:
        As of `crossent.functional.softmax`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.softmax(torch.zeros(2), dim=0)
        tensor([0.5000, 0.5000])

    Reference:
        `torch.nn.functional.softmax`.
    """
    if dtype is not None:
        input = input.to(dtype)
    return _ops.softmax(input, class_mask, "softmax", dim, temperature, softcap)


def log_softmax(
    input: Tensor,
    dim: int,
    *,
    dtype: torch.dtype | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    """Logarithms of the softmax.

    `crossent.functional.log_softmax` has the mathematics.

    Arguments:
        input: Logits.
        dim: The axis over which probabilities sum to 1.
        dtype: The type that the input is converted to first.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.

    Shape:
        - input: any with at least one axis; the result has it, too.

    Errors:
        As of `crossent.functional.log_softmax`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.log_softmax(torch.zeros(2), dim=0)
        tensor([-0.6931, -0.6931])

    Reference:
        `torch.nn.functional.log_softmax`.
    """
    if dtype is not None:
        input = input.to(dtype)
    return _ops.softmax(input, class_mask, "log_softmax", dim, temperature, softcap)


def logsumexp(
    input: Tensor,
    dim: int,
    keepdim: bool = False,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    """Logarithm of a sum of exponentials, of any magnitude.

    `crossent.functional.logsumexp` has the mathematics.

    Arguments:
        input: Exponents.
        dim: The axis to sum over.
        keepdim: Keep the axis, with length 1.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.

    Shape:
        - input: any with at least one axis; the result lacks `dim`.

    Errors:
        As of `crossent.functional.logsumexp`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.logsumexp(torch.tensor([1000.0, 1000.0]), dim=0)
        tensor(1000.6932)

    Reference:
        `torch.logsumexp`.
    """
    out = _ops.softmax(input, class_mask, "logsumexp", dim, temperature, softcap)
    return out.unsqueeze(dim) if keepdim and input.ndim > 0 else out


def sigmoid(
    input: Tensor,
) -> Tensor:
    """Sigmoid of logits.

    `crossent.functional.sigmoid` has the mathematics.

    Arguments:
        input: Logits; any real numbers, infinite ones too.

    Shape:
        - input, result: any, the same.

    Errors:
        As of `crossent.functional.sigmoid`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.sigmoid(torch.tensor(0.0))
        tensor(0.5000)

    Reference:
        `torch.sigmoid`.
    """
    return _ops.sigmoid(input, "sigmoid")


def logsigmoid(
    input: Tensor,
) -> Tensor:
    """Logarithm of the sigmoid of logits, without the detour.

    `crossent.functional.logsigmoid` has the mathematics.

    Arguments:
        input: Logits; any real numbers, infinite ones too.

    Shape:
        - input, result: any, the same.

    Errors:
        As of `crossent.functional.logsigmoid`.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.logsigmoid(torch.tensor(0.0))
        tensor(-0.6931)

    Reference:
        `torch.nn.functional.logsigmoid`.
    """
    return _ops.sigmoid(input, "logsigmoid")
