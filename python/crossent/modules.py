"""Losses as objects that hold their options, with the signatures of `torch.nn`."""

from __future__ import annotations

from math import nan
from typing import Any

from numpy.typing import ArrayLike, NDArray

from crossent import functional

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "KLDivLoss",
    "MultiLabelSoftMarginLoss",
    "NLLLoss",
    "SoftMarginLoss",
]


class CrossEntropyLoss:
    r"""Cross-entropy between a target and the softmax of logits, as an object.

    $$\ell = -w_y \log \frac{e^{x_y}}{\sum_c e^{x_c}}$$

    Calling it is `crossent.functional.cross_entropy` with the options held here; that function's
    documentation has the mathematics of all options, the gradient and the numbers.

    Arguments:
        weight: One weight a class.
        ignore_index: The class index of rows that do not count.
        reduction: `'mean'`, `'sum'` or `'none'`.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        empty: The mean where no loss counts.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division.
        class_mask: False for classes that do not exist.
        z_loss: Adds this much of the square of log-sum-exp to each loss.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk).
        - target: input's shape without C for class indices; input's shape for probabilities.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.functional.cross_entropy`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import CrossEntropyLoss
        >>> criterion = CrossEntropyLoss(reduction="sum")
        >>> loss, grad = criterion(np.zeros((1, 4)), [2], return_grad=True)
        >>> loss, grad
        (np.float64(1.3862943611198906), array([[ 0.25,  0.25, -0.75,  0.25]]))

    Reference:
        `torch.nn.CrossEntropyLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        axis: int | None = None,
        empty: float = nan,
        temperature: float = 1.0,
        softcap: float | None = None,
        class_mask: ArrayLike | None = None,
        z_loss: float = 0.0,
    ) -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.axis = axis
        self.empty = empty
        self.temperature = temperature
        self.softcap = softcap
        self.class_mask = class_mask
        self.z_loss = z_loss

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
        return_hess: bool = False,
        hess_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient and the Hessian's diagonal."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
            axis=self.axis,
            temperature=self.temperature,
            softcap=self.softcap,
            class_mask=self.class_mask,
            z_loss=self.z_loss,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
            return_hess=return_hess,
            hess_out=hess_out,
        )

    def __repr__(self) -> str:
        return (
            f"CrossEntropyLoss(weight={self.weight!r}, ignore_index={self.ignore_index}, "
            f"reduction={self.reduction!r}, label_smoothing={self.label_smoothing}, "
            f"axis={self.axis})"
        )


class NLLLoss:
    r"""Negative log-likelihood of log-probabilities, as an object.

    $$\ell = -w_y x_y$$

    Calling it is `crossent.functional.nll_loss` with the options held here.

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
        As of `crossent.functional.nll_loss`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import NLLLoss
        >>> NLLLoss()(np.log([[0.25, 0.75]]), [0]) / np.log(2)
        np.float64(2.0)

    Reference:
        `torch.nn.NLLLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        *,
        axis: int | None = None,
        empty: float = nan,
    ) -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.axis = axis
        self.empty = empty

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient."""
        return functional.nll_loss(
            input,
            target,
            self.weight,
            self.ignore_index,
            self.reduction,
            axis=self.axis,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
        )

    def __repr__(self) -> str:
        return (
            f"NLLLoss(weight={self.weight!r}, ignore_index={self.ignore_index}, "
            f"reduction={self.reduction!r}, axis={self.axis})"
        )


class BCELoss:
    r"""Binary cross-entropy between targets and probabilities, as an object.

    $$\ell = -w \bigl(t \log p + (1 - t) \log(1 - p)\bigr)$$

    Calling it is `crossent.functional.binary_cross_entropy`
    with the options held here; that function's documentation has the gradient and the numbers.

    Arguments:
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.binary_cross_entropy`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import BCELoss
        >>> BCELoss()(np.array([0.5, 0.5]), [0, 1]) / np.log(2)
        np.float64(1.0)

    Reference:
        `torch.nn.BCELoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        reduction: str = "mean",
        *,
        empty: float = nan,
    ) -> None:
        self.weight = weight
        self.reduction = reduction
        self.empty = empty

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient."""
        return functional.binary_cross_entropy(
            input,
            target,
            self.weight,
            self.reduction,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
        )

    def __repr__(self) -> str:
        return f"BCELoss(weight={self.weight!r}, reduction={self.reduction!r})"


class BCEWithLogitsLoss:
    r"""Binary cross-entropy between targets and the sigmoid of logits, as an object.

    $$\ell = -w \bigl(v\,t \log \sigma(x) + (1 - t) \log \sigma(-x)\bigr)$$

    Calling it is `crossent.functional.binary_cross_entropy_with_logits`
    with the options held here; that function's documentation has the gradient and the numbers.

    Arguments:
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        pos_weight: A weight of the positive answer, of a shape that broadcasts to the input's.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.binary_cross_entropy_with_logits`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import BCEWithLogitsLoss
        >>> BCEWithLogitsLoss(pos_weight=[3.0])(np.zeros(1), [1]) / np.log(2)
        np.float64(3.0)

    Reference:
        `torch.nn.BCEWithLogitsLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        reduction: str = "mean",
        pos_weight: ArrayLike | None = None,
        *,
        empty: float = nan,
    ) -> None:
        self.weight = weight
        self.reduction = reduction
        self.pos_weight = pos_weight
        self.empty = empty

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
        return_hess: bool = False,
        hess_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient and the Hessian's diagonal."""
        return functional.binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            self.reduction,
            self.pos_weight,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
            return_hess=return_hess,
            hess_out=hess_out,
        )

    def __repr__(self) -> str:
        return (
            f"BCEWithLogitsLoss(weight={self.weight!r}, reduction={self.reduction!r}, "
            f"pos_weight={self.pos_weight!r})"
        )


class MultiLabelSoftMarginLoss:
    r"""Binary cross-entropy with logits, averaged over the classes, as an object.

    $$\ell = -\frac{1}{C} \sum_c w_c \bigl(t_c \log \sigma(x_c)
      + (1 - t_c) \log \sigma(-x_c)\bigr)$$

    Calling it is `crossent.functional.multilabel_soft_margin_loss`
    with the options held here; that function's documentation has the gradient and the numbers.

    Arguments:
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`.
        empty: The mean where no loss counts.

    Shape:
        - input, target: (C), (N, C) or (N, ..., C), the same.
        - loss: a number, or for `'none'` input's shape without C.

    Errors:
        As of `crossent.functional.multilabel_soft_margin_loss`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import MultiLabelSoftMarginLoss
        >>> MultiLabelSoftMarginLoss()(np.zeros((2, 3)), np.eye(2, 3)) / np.log(2)
        np.float64(1.0)

    Reference:
        `torch.nn.MultiLabelSoftMarginLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        reduction: str = "mean",
        *,
        empty: float = nan,
    ) -> None:
        self.weight = weight
        self.reduction = reduction
        self.empty = empty

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
        return_hess: bool = False,
        hess_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient and the Hessian's diagonal."""
        return functional.multilabel_soft_margin_loss(
            input,
            target,
            self.weight,
            self.reduction,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
            return_hess=return_hess,
            hess_out=hess_out,
        )

    def __repr__(self) -> str:
        return f"MultiLabelSoftMarginLoss(weight={self.weight!r}, reduction={self.reduction!r})"


class SoftMarginLoss:
    r"""Logistic regression with targets of -1 and 1, as an object.

    $$\ell = \log(1 + e^{-t x})$$

    Calling it is `crossent.functional.soft_margin_loss`
    with the options held here; that function's documentation has the gradient and the numbers.

    Arguments:
        reduction: `'mean'`, `'sum'` or `'none'`.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.soft_margin_loss`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import SoftMarginLoss
        >>> SoftMarginLoss()(np.zeros(2), [-1, 1]) / np.log(2)
        np.float64(1.0)

    Reference:
        `torch.nn.SoftMarginLoss`, whose meaning this follows.
    """

    def __init__(
        self,
        reduction: str = "mean",
        *,
        empty: float = nan,
    ) -> None:
        self.reduction = reduction
        self.empty = empty

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
        return_hess: bool = False,
        hess_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient and the Hessian's diagonal."""
        return functional.soft_margin_loss(
            input,
            target,
            self.reduction,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
            return_hess=return_hess,
            hess_out=hess_out,
        )

    def __repr__(self) -> str:
        return f"SoftMarginLoss(reduction={self.reduction!r})"


class KLDivLoss:
    r"""Kullback-Leibler divergence with torch's meaning, as an object.

    $$\ell = t (\log t - x)$$

    Calling it is `crossent.functional.kl_div`
    with the options held here; that function's documentation has the gradient and the numbers.

    Arguments:
        reduction: `'mean'`, `'batchmean'`, `'sum'` or `'none'`.
        log_target: Whether `target` holds logarithms.
        base: The base of the divergence's logarithm: 2 for bits; nats without.
        empty: The mean where no loss counts.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Errors:
        As of `crossent.functional.kl_div`, when called.

    Example:
        >>> import numpy as np
        >>> from crossent import KLDivLoss
        >>> KLDivLoss("sum", base=2)(np.log([0.5, 0.5]), [1.0, 0.0])
        np.float64(1.0)

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
        self.reduction = reduction
        self.log_target = log_target
        self.base = base
        self.empty = empty

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        denominator: float | None = None,
        return_grad: bool = False,
        grad_output: ArrayLike | None = None,
        grad_out: NDArray[Any] | None = None,
    ) -> Any:
        """Compute the loss, and on request its gradient."""
        return functional.kl_div(
            input,
            target,
            self.reduction,
            self.log_target,
            base=self.base,
            sample_weight=sample_weight,
            denominator=denominator,
            empty=self.empty,
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
        )

    def __repr__(self) -> str:
        return (
            f"KLDivLoss(reduction={self.reduction!r}, log_target={self.log_target}, "
            f"base={self.base})"
        )
