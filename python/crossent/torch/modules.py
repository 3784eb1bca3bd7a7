"""Losses as modules, with the signatures of `torch.nn`.

Each is a subclass of torch's module of its name, and exchanges its state with it.
"""

from __future__ import annotations

from inspect import signature
from math import isnan, nan

import torch
from torch import Tensor

from crossent.torch import functional

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "KLDivLoss",
    "MultiLabelSoftMarginLoss",
    "NLLLoss",
    "SoftMarginLoss",
]


def _shown(module: torch.nn.Module, of: type[torch.nn.Module]) -> str:
    """The options that are not their defaults, for `repr`."""
    parts = []
    for name, option in signature(of).parameters.items():
        value, default = getattr(module, name), option.default
        if isinstance(value, Tensor):
            parts.append(f"{name}=<{', '.join(map(str, value.shape))}>")
        elif value != default and not (isinstance(value, float) and isnan(value)):
            parts.append(f"{name}={value!r}")
    return ", ".join(parts)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """Cross-entropy between a target and the softmax of logits, as a module.

    Calling it is `crossent.torch.cross_entropy` with the options held here;
    tensors among them are buffers.

    Arguments:
        weight: One weight a class.
        ignore_index: The class index of rows that do not count.
        reduction: `'mean'`, `'sum'` or `'none'`.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        empty: The mean where no loss counts.
        temperature: What logits are divided by.
        softcap: Logits become `c * tanh(x / c)`, before the division.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist.
        z_loss: Adds this much of the square of log-sum-exp to each loss.
        inplace_grad: Write the gradient into the memory of the input.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk).
        - target: input's shape without C for class indices; input's shape for probabilities.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.torch.cross_entropy`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> criterion = ct.CrossEntropyLoss(reduction="sum", label_smoothing=0.1)
        >>> criterion
        CrossEntropyLoss(reduction='sum', label_smoothing=0.1)
        >>> criterion(torch.zeros(1, 4), torch.tensor([2]))
        tensor(1.3863)

    Reference:
        `torch.nn.CrossEntropyLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        axis: int | None = None,
        empty: float = nan,
        temperature: float = 1.0,
        softcap: float | None = None,
        class_mask: Tensor | None = None,
        z_loss: float = 0.0,
        inplace_grad: bool = False,
    ) -> None:
        super().__init__(
            weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
        self.axis = axis
        self.empty = empty
        self.temperature = temperature
        self.softcap = softcap
        self.register_buffer("class_mask", class_mask)
        self.z_loss = z_loss
        self.inplace_grad = inplace_grad

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
            axis=self.axis,
            empty=self.empty,
            temperature=self.temperature,
            softcap=self.softcap,
            class_mask=self.class_mask,
            z_loss=self.z_loss,
            inplace_grad=self.inplace_grad,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, CrossEntropyLoss)


class NLLLoss(torch.nn.NLLLoss):
    """Negative log-likelihood of log-probabilities, as a module.

    Calling it is `crossent.torch.nll_loss` with the options held here;
    tensors among them are buffers.

    Arguments:
        weight: One weight a class.
        ignore_index: The class index of rows that do not count.
        reduction: `'mean'`, `'sum'` or `'none'`.
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        empty: The mean where no loss counts.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk).
        - target: input's shape without C.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.torch.nll_loss`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.NLLLoss()(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
        tensor(2.)

    Reference:
        `torch.nn.NLLLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        *,
        axis: int | None = None,
        empty: float = nan,
    ) -> None:
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction)
        self.axis = axis
        self.empty = empty

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.nll_loss(
            input,
            target,
            self.weight,
            self.ignore_index,
            self.reduction,
            axis=self.axis,
            empty=self.empty,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, NLLLoss)


class BCELoss(torch.nn.BCELoss):
    """Binary cross-entropy between targets and probabilities, as a module.

    Calling it is `crossent.torch.binary_cross_entropy` with the options held here;
    tensors among them are buffers.

    Arguments:
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.torch.binary_cross_entropy`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.BCELoss()(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
        tensor(0.6931)

    Reference:
        `torch.nn.BCELoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        *,
        empty: float = nan,
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.empty = empty

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.binary_cross_entropy(
            input,
            target,
            self.weight,
            self.reduction,
            empty=self.empty,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, BCELoss)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """Binary cross-entropy between targets and the sigmoid of logits, as a module.

    Calling it is `crossent.torch.binary_cross_entropy_with_logits` with the options held here;
    tensors among them are buffers.

    Arguments:
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        pos_weight: A weight of the positive answer, of a shape that broadcasts to the input's.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.torch.binary_cross_entropy_with_logits`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> criterion = ct.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))
        >>> criterion(torch.zeros(1), torch.ones(1))
        tensor(2.0794)

    Reference:
        `torch.nn.BCEWithLogitsLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        empty: float = nan,
    ) -> None:
        super().__init__(weight, reduction=reduction, pos_weight=pos_weight)
        self.empty = empty

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            self.reduction,
            self.pos_weight,
            empty=self.empty,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, BCEWithLogitsLoss)


class MultiLabelSoftMarginLoss(torch.nn.MultiLabelSoftMarginLoss):
    """Binary cross-entropy with logits, averaged over the classes, as a module.

    Calling it is `crossent.torch.multilabel_soft_margin_loss` with the options held here;
    tensors among them are buffers.

    Arguments:
        weight: One weight a class.
        reduction: `'mean'`, `'sum'` or `'none'`.
        empty: The mean where no loss counts.

    Shape:
        - input, target: (C), (N, C) or (N, ..., C), the same.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.torch.multilabel_soft_margin_loss`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.MultiLabelSoftMarginLoss()(torch.zeros(2, 3), torch.eye(2, 3))
        tensor(0.6931)

    Reference:
        `torch.nn.MultiLabelSoftMarginLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        *,
        empty: float = nan,
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.empty = empty

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.multilabel_soft_margin_loss(
            input,
            target,
            self.weight,
            self.reduction,
            empty=self.empty,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, MultiLabelSoftMarginLoss)


class SoftMarginLoss(torch.nn.SoftMarginLoss):
    """Logistic regression with targets of -1 and 1, as a module.

    Calling it is `crossent.torch.soft_margin_loss` with the options held here.

    Arguments:
        reduction: `'mean'`, `'sum'` or `'none'`.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.torch.soft_margin_loss`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.SoftMarginLoss()(torch.zeros(2), torch.tensor([-1.0, 1.0]))
        tensor(0.6931)

    Reference:
        `torch.nn.SoftMarginLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        reduction: str = "mean",
        *,
        empty: float = nan,
    ) -> None:
        super().__init__(reduction=reduction)
        self.empty = empty

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.soft_margin_loss(
            input,
            target,
            self.reduction,
            empty=self.empty,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, SoftMarginLoss)


class KLDivLoss(torch.nn.KLDivLoss):
    """Kullback-Leibler divergence with torch's meaning, as a module.

    Calling it is `crossent.torch.kl_div` with the options held here.

    Arguments:
        reduction: `'mean'`, `'batchmean'`, `'sum'` or `'none'`.
        log_target: Whether `target` holds logarithms.
        base: The base of the divergence's logarithm: 2 for bits; nats without.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.torch.kl_div`, when called.

    Example:
        >>> import torch
        >>> from crossent import torch as ct
        >>> ct.KLDivLoss("sum")(torch.log(torch.tensor([0.5, 0.5])), torch.tensor([1.0, 0.0]))
        tensor(0.6931)

    Reference:
        `torch.nn.KLDivLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        reduction: str = "mean",
        log_target: bool = False,
        *,
        base: float | None = None,
        empty: float = nan,
    ) -> None:
        super().__init__(reduction=reduction, log_target=log_target)
        self.base = base
        self.empty = empty

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return functional.kl_div(
            input,
            target,
            self.reduction,
            self.log_target,
            base=self.base,
            empty=self.empty,
            sample_weight=sample_weight,
            denominator=denominator,
        )

    def extra_repr(self) -> str:
        """The options that are not their defaults."""
        return _shown(self, KLDivLoss)
