"""Losses and their building blocks as functions, with the signatures of `torch.nn.functional`.

Arrays are NumPy's: float16, bfloat16 (of `ml_dtypes`), float32 and float64, of any strides, byte
order and alignment, read where they lie. Losses are in nats. What torch does not have is
keyword-only.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from crossent import _core

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    axis: int | None = None,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
    return_hess: bool = False,
    hess_out: NDArray[Any] | None = None,
) -> Any:
    r"""Cross-entropy between a target and the softmax of logits.

    For a row of logits $x$ and a target class $y$ with class weight $w$,

    $$\ell = -w_y \log \frac{e^{x_y}}{\sum_c e^{x_c}}, \qquad
      \frac{\partial \ell}{\partial x_i} = w_y (p_i - [i = y]), \qquad
      \frac{\partial^2 \ell}{\partial x_i^2} = w_y\, p_i (1 - p_i)$$

    with $p = \mathrm{softmax}(x)$. Probabilities $t$ as target give $\ell = -\sum_c w_c t_c \log
    p_c$. Label smoothing $\epsilon$ replaces the target by $(1 - \epsilon)\, t + \epsilon / C$.

    Arguments:
        input: Logits; any real numbers, -inf for a class that cannot be.
        target: Class indices of any integer type, or probabilities of any float type. A
            probability of 0 on an infinite loss counts nothing.
        weight: One weight a class.
        ignore_index: The class index of rows that do not count: their loss and gradient are
            exactly 0, whatever their logits. It must be negative for probabilities as target.
        reduction: `'mean'`, `'sum'` or `'none'`. The mean divides by the sum of the class weights
            of the targets that count; for probabilities as target, by the number of rows.
        label_smoothing: $\epsilon$, in [0, 1].
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to. Implies `return_hess`.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C for class indices; input's shape for probabilities.
        - loss: a number, or for `'none'` input's shape without C.

    Returns:
        The loss; `(loss, grad)` with a gradient; `(loss, grad, hess)` with both; `(loss, hess)`.
        The loss is float32 for 16-bit input, otherwise of the input's type, in nats, within 2 ulp
        (float32) or 3 (float64) of the real number; gradients have the input's type and are within
        6 or 8 ulp where $p_i$ and the target do not cancel, elsewhere within as many ulp of the
        larger of them. The mean of no rows is NaN, with a gradient of 0.

    Errors:
        TypeError: `input` is not of a float type; `target` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` or `label_smoothing` is not one; `grad_out` is
            read-only, overlaps itself, or overlaps another argument without being `input`.
        IndexError: a target class is not in [0, C) and is not `ignore_index`. Nothing was written.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> logits = np.array([[20.0, 0.0], [1.0, 1.0]], dtype=np.float32)
        >>> target = np.array([0, 1])
        >>> F.cross_entropy(logits, target, reduction="none")
        array([2.0611537e-09, 6.9314718e-01], dtype=float32)
        >>> loss, grad = F.cross_entropy(logits, target, return_grad=True)
        >>> grad
        array([[-1.0305768e-09,  1.0305768e-09],
               [ 2.5000000e-01, -2.5000000e-01]], dtype=float32)

    Reference:
        `torch.nn.functional.cross_entropy`, whose meaning this follows; Blanchard, Higham and
        Higham, "Accurately computing the log-sum-exp and softmax functions" (2021).
    """
    return _core.cross_entropy(
        input,
        target,
        weight,
        ignore_index,
        reduction,
        label_smoothing,
        axis,
        return_grad,
        grad_output,
        grad_out,
        return_hess,
        hess_out,
    )


def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    axis: int | None = None,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
) -> Any:
    r"""Negative log-likelihood of log-probabilities.

    For a row of log-probabilities $x$ and a target class $y$ with class weight $w$,

    $$\ell = -w_y x_y, \qquad \frac{\partial \ell}{\partial x_i} = -w_y [i = y].$$

    Of `log_softmax(logits)` it is the cross-entropy of the logits, which `cross_entropy` computes
    at once, more exactly and faster.

    Arguments:
        input: Log-probabilities.
        target: Class indices of any integer type.
        weight: One weight a class; weight 0 on an infinite loss counts nothing.
        ignore_index: The class index of rows that do not count: their loss and gradient are 0.
        reduction: `'mean'`, `'sum'` or `'none'`. The mean divides by the sum of the class weights
            of the targets that count.
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C.
        - loss: a number, or for `'none'` input's shape without C.

    Returns:
        The loss, or `(loss, grad)`. The loss is float32 for 16-bit input, otherwise of the input's
        type, in nats; the gradient has the input's type. The mean of no rows is NaN, with a
        gradient of 0.

    Errors:
        TypeError: `input` is not of a float type; `target` not of an integer type; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `grad_out` is read-only, overlaps
            itself, or overlaps another argument without being `input`.
        IndexError: a target class is not in [0, C) and is not `ignore_index`. Nothing was written.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> log_probabilities = np.log([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
        >>> F.nll_loss(log_probabilities, [0, 2], reduction="sum") / np.log(2)
        np.float64(4.0)

    Reference:
        `torch.nn.functional.nll_loss`, whose meaning this follows.
    """
    return _core.nll_loss(
        input,
        target,
        weight,
        ignore_index,
        reduction,
        axis,
        return_grad,
        grad_output,
        grad_out,
    )


def softmax(input: ArrayLike, axis: int, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    r"""Probabilities proportional to the exponentials of logits.

    $$p_i = \frac{e^{x_i}}{\sum_c e^{x_c}}$$

    Arguments:
        input: Logits; one at +inf has all the probability.
        axis: The axis over which probabilities sum to 1.
        out: The array to write to, of the input's shape and type; it may be `input` itself.

    Shape:
        - input: any with at least one axis; the result has it, too.

    Returns:
        Probabilities of the input's type, each within 4 ulp of the real number; NaN for a row with
        a NaN, with two logits at +inf, or with none above -inf.

    Errors:
        TypeError: `input` is not of a float type; `out` has another type; a masked array.
        ValueError: there is no such `axis`; `out` has another shape, is read-only, overlaps itself
            or part of `input`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.softmax(np.log([[1.0, 2.0, 5.0]]), 1).round(15)
        array([[0.125, 0.25 , 0.625]])

    Reference:
        `torch.nn.functional.softmax`; Blanchard, Higham and Higham, "Accurately computing the
        log-sum-exp and softmax functions" (2021).
    """
    return _core.softmax(input, axis, out)


def log_softmax(input: ArrayLike, axis: int, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    r"""Logarithms of the softmax.

    $$\log p_i = (x_i - m) - \log\Bigl(1 + \sum_{c \ne m} e^{x_c - m}\Bigr)$$

    with $m$ the largest logit: both terms are at most 0, and nothing cancels.

    Arguments:
        input: Logits.
        axis: The axis over which probabilities sum to 1.
        out: The array to write to, of the input's shape and type; it may be `input` itself.

    Shape:
        - input: any with at least one axis; the result has it, too.

    Returns:
        Log-probabilities of the input's type, in nats; NaN where `softmax` is.

    Errors:
        TypeError: `input` is not of a float type; `out` has another type; a masked array.
        ValueError: there is no such `axis`; `out` has another shape, is read-only, overlaps itself
            or part of `input`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.log_softmax(np.array([20.0, 0.0], dtype=np.float32), 0)
        array([-2.0611537e-09, -2.0000000e+01], dtype=float32)

    Reference:
        `torch.nn.functional.log_softmax`; Blanchard, Higham and Higham, "Accurately computing the
        log-sum-exp and softmax functions" (2021).
    """
    return _core.log_softmax(input, axis, out)


def logsumexp(input: ArrayLike, axis: int, keepdims: bool = False) -> Any:
    r"""Logarithm of a sum of exponentials, of any magnitude.

    $$\log \sum_c e^{x_c} = m + \log\Bigl(1 + \sum_{c \ne m} e^{x_c - m}\Bigr)$$

    with $m$ the largest of them.

    Arguments:
        input: Exponents.
        axis: The axis to sum over.
        keepdims: Keep the axis, with length 1.

    Shape:
        - input: any with at least one axis; the result lacks `axis`.

    Returns:
        The logarithms, float32 for 16-bit input, otherwise of the input's type; -inf for a sum of
        nothing.

    Errors:
        TypeError: `input` is not of a float type; a masked array.
        ValueError: there is no such `axis`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.logsumexp(np.array([[1000.0, 1000.0], [-np.inf, -np.inf]]), 1)
        array([1000.69314718,         -inf])

    Reference:
        `torch.logsumexp`; Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and
        softmax functions" (2021).
    """
    return _core.logsumexp(input, axis, keepdims)
