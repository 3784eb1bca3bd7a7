"""Losses as objects that hold their options, with the signatures of `torch.nn`."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from crossent import functional

__all__ = ["CrossEntropyLoss", "NLLLoss"]


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
    ) -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.axis = axis

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
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
    ) -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.axis = axis

    def __call__(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
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
            return_grad=return_grad,
            grad_output=grad_output,
            grad_out=grad_out,
        )

    def __repr__(self) -> str:
        return (
            f"NLLLoss(weight={self.weight!r}, ignore_index={self.ignore_index}, "
            f"reduction={self.reduction!r}, axis={self.axis})"
        )
