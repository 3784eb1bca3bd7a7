"""Losses and their building blocks as functions, with the signatures of `torch.nn.functional`.

Arrays are NumPy's: float16, bfloat16 (of `ml_dtypes`), float32 and float64, of any strides, byte
order and alignment, read where they lie. Losses are in nats. What torch does not have is
keyword-only.

What an argument cannot be is refused before anything is written, by the errors that each function
names. Every function also raises MemoryError where it cannot have the memory for an answer or to
work in, and can be interrupted (KeyboardInterrupt); what it was writing to is undefined then.
"""

from __future__ import annotations

from math import nan
from typing import Any, NamedTuple

from numpy.typing import ArrayLike, NDArray

from crossent import _core

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


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    axis: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    z_loss: float = 0.0,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
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
        label_smoothing: $\epsilon$, in [0, 1]; spread over all classes, so that one at -inf makes
            the loss infinite.
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division; one of -inf, too.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist, as a logit of -inf after all this.
        z_loss: Adds this much of $(\log \sum_c e^{x_c})^2$ to each loss.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to, as `grad_out`. Implies
            `return_hess`.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C for class indices; input's shape for probabilities.
        - loss: a number, or for `'none'` input's shape without C.

    Returns:
        The loss; `(loss, grad)` with a gradient; `(loss, grad, hess)` with both; `(loss, hess)`.
        The loss is float32 for 16-bit input, otherwise of the input's type, in nats, within 2 ulp
        (float32) or 3 (float64) of the real number; gradients have the input's type and are within
        6 or 8 ulp where $p_i$ and the target do not cancel, elsewhere within as many ulp of the
        larger of them. A temperature or softcap is applied in float64 first, which makes float64
        logits others by an ulp or three. The mean of no rows is `empty`, with a gradient of 0.

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
        >>> grad[0]
        array([-1.0305768e-09,  1.0305768e-09], dtype=float32)

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
        (sample_weight, denominator, empty),
        label_smoothing,
        (temperature, softcap, class_mask),
        z_loss,
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
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
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
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
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
        type, in nats; the gradient has the input's type. The mean of no rows is `empty`, with a
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
        (sample_weight, denominator, empty),
        axis,
        return_grad,
        grad_output,
        grad_out,
    )


def binary_cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    *,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
) -> Any:
    r"""Binary cross-entropy between targets and probabilities.

    For each probability $p$ and target $t$ with weight $w$,

    $$\ell = -w \bigl(t \log p + (1 - t) \log(1 - p)\bigr), \qquad
      \frac{\partial \ell}{\partial p} = w \frac{p - t}{p (1 - p)}$$

    with torch's clamps: a logarithm is at least -100, the gradient's denominator at least 1e-12.
    For `sigmoid(logits)` take `binary_cross_entropy_with_logits`, which needs no clamps: a
    probability near 1 has lost what a logit still knows.

    Arguments:
        input: Probabilities, in [0, 1]; a NaN gives NaN.
        target: Targets, commonly 0 or 1 or between, of any float or integer type.
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`. The mean divides by the number of elements.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Returns:
        The loss, or `(loss, grad)`. The loss is float32 for 16-bit input, otherwise of the input's
        type, in nats, within 2 ulp (float32) or 3 (float64) of the real number; gradients have the
        input's type and are within 6 or 8 ulp.

    Errors:
        TypeError: `input` is not of a float type; `target` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `grad_out` is read-only, overlaps
            itself, or overlaps another argument without being `input`.
            An input is outside of [0, 1]: where `grad_out` is `input`, nothing was written.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.binary_cross_entropy(np.array([0.25, 1e-20]), [0, 0], reduction="none")
        array([2.87682072e-01, 1.00000000e-20])
        >>> F.binary_cross_entropy(np.array([0.5]), [1], return_grad=True)
        (np.float64(0.6931471805599453), array([-2.]))

    Reference:
        `torch.nn.functional.binary_cross_entropy`, whose meaning this follows.
    """
    return _core.binary_cross_entropy(
        input,
        target,
        weight,
        reduction,
        (sample_weight, denominator, empty),
        return_grad,
        grad_output,
        grad_out,
    )


def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
    return_hess: bool = False,
    hess_out: NDArray[Any] | None = None,
) -> Any:
    r"""Binary cross-entropy between targets and the sigmoid of logits.

    For each logit $x$ and target $t$ with weight $w$ and the positive answer's weight $v$,

    $$\ell = -w \bigl(v\,t \log \sigma(x) + (1 - t) \log \sigma(-x)\bigr)$$

    $$\frac{\partial \ell}{\partial x} = w \bigl((1 - t)\, \sigma(x) - v\,t\, \sigma(-x)\bigr),
      \qquad \frac{\partial^2 \ell}{\partial x^2} = w (v\,t + 1 - t)\, \sigma(x)\, \sigma(-x)$$

    with $\sigma(x) = 1 / (1 + e^{-x})$. It is the negative log-likelihood of logistic regression.

    Arguments:
        input: Logits; any real numbers, infinite ones too.
        target: Targets, commonly 0 or 1 or between, of any float or integer type.
        weight: A weight an element, of a shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`. The mean divides by the number of elements.
        pos_weight: A weight of the positive answer, of a shape that broadcasts to the input's:
            one a class is common.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to, as `grad_out`. Implies
            `return_hess`.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Returns:
        The loss; `(loss, grad)` with a gradient; `(loss, grad, hess)` with both; `(loss, hess)`.
        The loss is float32 for 16-bit input, otherwise of the input's type, in nats, within 2 ulp
        (float32) or 3 (float64) of the real number; gradients have the input's type and are within
        6 or 8 ulp, of the larger of their two terms where those cancel. A weight of 0 on an
        infinite loss counts nothing. A float32 mean of more than 64 losses, of which one outweighs
        the others, may be 3.5 ulp off.

    Errors:
        TypeError: `input` is not of a float type; `target` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `grad_out` is read-only, overlaps
            itself, or overlaps another argument without being `input`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> logits = np.array([40.0, -np.inf], dtype=np.float32)
        >>> F.binary_cross_entropy_with_logits(logits, [1, 0], reduction="none")
        array([4.248354e-18, 0.000000e+00], dtype=float32)
        >>> F.binary_cross_entropy_with_logits(np.zeros(1), [1], return_grad=True)
        (np.float64(0.6931471805599453), array([-0.5]))

    Reference:
        `torch.nn.functional.binary_cross_entropy_with_logits`, whose meaning this follows.
    """
    return _core.binary_cross_entropy_with_logits(
        input,
        target,
        weight,
        reduction,
        (sample_weight, denominator, empty),
        pos_weight,
        return_grad,
        grad_output,
        grad_out,
        return_hess,
        hess_out,
    )


def sigmoid_focal_loss(
    inputs: ArrayLike,
    targets: ArrayLike,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    *,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
    return_hess: bool = False,
    hess_out: NDArray[Any] | None = None,
) -> Any:
    r"""Focal loss of logits: binary cross-entropy that counts what is already decided for less.

    For each logit $x$ and target $t$, with the cross-entropy $c$ and the probability $m$ of being
    wrong,

    $$\ell = b\, m^\gamma c, \qquad m = t\, \sigma(-x) + (1 - t)\, \sigma(x), \qquad
      b = \alpha t + (1 - \alpha)(1 - t)$$

    $$\frac{\partial \ell}{\partial x} = b\, m^\gamma \Bigl(c' + \gamma \frac{m'}{m} c\Bigr)$$

    At $\gamma = 0$ without a balance it is the binary cross-entropy, bit for bit.

    Arguments:
        inputs: Logits; any real numbers, infinite ones too.
        targets: Targets, commonly 0 or 1, of any float or integer type.
        alpha: The balance $\alpha$ of a positive target, in [0, 1]; below 0, no balance ($b = 1$).
        gamma: The power $\gamma$, at least 0; 0 is no focus.
        reduction: `'none'`, `'mean'` or `'sum'`. The mean divides by the number of elements.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `inputs`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `inputs` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to, as `grad_out`. Implies
            `return_hess`.

    Shape:
        - inputs, targets: any, the same.
        - loss: a number, or for `'none'` the shape of `inputs`.

    Returns:
        The loss; `(loss, grad)` with a gradient; `(loss, grad, hess)` with both; `(loss, hess)`.
        The loss is float32 for 16-bit input, otherwise of the input's type, in nats, within 2 ulp
        (float32) or 3 (float64) of the real number, gradients within 6 or 8: in float64 for a gamma
        of up to 20, beyond which a power costs gamma / 8 ulp. Gradients are finite at any logit and
        any gamma; an error of theirs is one of the larger of their two terms where those cancel. A
        float32 mean of more than 64 losses, of which one outweighs the others, may be 3.5 ulp off.

    Errors:
        TypeError: `inputs` is not of a float type; `targets` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `grad_out` is read-only, overlaps
            itself, or overlaps another argument without being `inputs`.
            `alpha` or `gamma` is out of range.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.sigmoid_focal_loss(np.array([0.0, 100.0]), [1, 1], alpha=-1)
        array([1.73286795e-001, 5.14820022e-131])

    Reference:
        Lin, Goyal, Girshick, He and Dollar, "Focal loss for dense object detection" (2017);
        `torchvision.ops.sigmoid_focal_loss`, whose meaning this follows.
    """
    return _core.sigmoid_focal_loss(
        inputs,
        targets,
        alpha,
        gamma,
        reduction,
        (sample_weight, denominator, empty),
        return_grad,
        grad_output,
        grad_out,
        return_hess,
        hess_out,
    )


def multilabel_soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    *,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
    return_hess: bool = False,
    hess_out: NDArray[Any] | None = None,
) -> Any:
    r"""Multi-label soft margin loss: binary cross-entropy with logits, averaged over classes.

    For a row of $C$ logits $x$ and targets $t$ with class weights $w$,

    $$\ell = -\frac{1}{C} \sum_c w_c \bigl(t_c \log \sigma(x_c) + (1 - t_c) \log \sigma(-x_c)\bigr),
      \qquad \frac{\partial \ell}{\partial x_c} = \frac{w_c}{C} \bigl(\sigma(x_c) - t_c\bigr)$$

    Arguments:
        input: Logits; the last axis holds the classes.
        target: Targets, commonly 0 or 1 or between, of any float or integer type.
        weight: One weight a class, or any shape that broadcasts to the input's.
        reduction: `'mean'`, `'sum'` or `'none'`. The mean divides by the number of rows.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to, as `grad_out`. Implies
            `return_hess`.

    Shape:
        - input, target: (C), (N, C) or (N, ..., C), the same.
        - loss: a number, or for `'none'` input's shape without C.

    Returns:
        The loss; `(loss, grad)` with a gradient; `(loss, grad, hess)` with both; `(loss, hess)`.
        The loss is float32 for 16-bit input, otherwise of the input's type, in nats, within 2 ulp
        (float32) or 3 (float64) of the real number; gradients have the input's type and are within
        6 or 8 ulp, of the larger of their two terms where those cancel. A float32 mean of more than
        64 losses, of which one outweighs the others, may be 3.5 ulp off.

    Errors:
        TypeError: `input` is not of a float type; `target` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `grad_out` is read-only, overlaps
            itself, or overlaps another argument without being `input`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.multilabel_soft_margin_loss(np.zeros((2, 3)), np.eye(2, 3), reduction="none")
        array([0.69314718, 0.69314718])

    Reference:
        `torch.nn.functional.multilabel_soft_margin_loss`, whose meaning this follows.
    """
    return _core.multilabel_soft_margin_loss(
        input,
        target,
        weight,
        reduction,
        (sample_weight, denominator, empty),
        return_grad,
        grad_output,
        grad_out,
        return_hess,
        hess_out,
    )


def soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    *,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
    return_hess: bool = False,
    hess_out: NDArray[Any] | None = None,
) -> Any:
    r"""Soft margin loss: logistic regression with targets of -1 and 1.

    For each score $x$ and target $t$,

    $$\ell = \log(1 + e^{-t x}), \qquad \frac{\partial \ell}{\partial x} = -t\, \sigma(-t x), \qquad
      \frac{\partial^2 \ell}{\partial x^2} = t^2 \sigma(t x)\, \sigma(-t x)$$

    At $t = \pm 1$ it is `binary_cross_entropy_with_logits` of the targets 1 and 0.

    Arguments:
        input: Scores; any real numbers.
        target: Targets, commonly -1 or 1, of any float or integer type.
        reduction: `'mean'`, `'sum'` or `'none'`. The mean divides by the number of elements.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to, as `grad_out`. Implies
            `return_hess`.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Returns:
        The loss; `(loss, grad)` with a gradient; `(loss, grad, hess)` with both; `(loss, hess)`.
        The loss is float32 for 16-bit input, otherwise of the input's type, in nats, within 2 ulp
        (float32) or 3 (float64) of the real number; gradients have the input's type and are within
        6 or 8 ulp. A float32 mean of more than 64 losses, of which one outweighs the others, may be
        3.5 ulp off.

    Errors:
        TypeError: `input` is not of a float type; `target` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `grad_out` is read-only, overlaps
            itself, or overlaps another argument without being `input`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.soft_margin_loss(np.array([40.0, 40.0]), [1, -1], reduction="none")
        array([4.24835426e-18, 4.00000000e+01])

    Reference:
        `torch.nn.functional.soft_margin_loss`, whose meaning this follows.
    """
    return _core.soft_margin_loss(
        input,
        target,
        reduction,
        (sample_weight, denominator, empty),
        return_grad,
        grad_output,
        grad_out,
        return_hess,
        hess_out,
    )


def kl_div(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    log_target: bool = False,
    *,
    base: float | None = None,
    sample_weight: ArrayLike | None = None,
    denominator: float | None = None,
    empty: float = nan,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
) -> Any:
    r"""Kullback-Leibler divergence with torch's meaning: log-probabilities first, by elements.

    For each log-probability $x$ and target probability $t$,

    $$\ell = t (\log t - x), \qquad \frac{\partial \ell}{\partial x} = -t$$

    or with `log_target`, where the target holds $\log t$, the same of $t = e^{\log t}$. Summed over
    the classes of a row it is $\mathrm{KL}(t \,\|\, e^x)$. A target of 0 adds nothing.

    Arguments:
        input: Log-probabilities.
        target: Probabilities, or their logarithms, of any float or integer type.
        reduction: `'mean'`, `'batchmean'`, `'sum'` or `'none'`. The mean divides by the number of
            elements, which is not the divergence; `'batchmean'` divides by the length of the first
            axis, which is its mean over the rows of a batch.
        log_target: Whether `target` holds logarithms.
        base: The base of the divergence's logarithm: 2 for bits; nats without. Those of `input` and
            `target` are natural ones whatever it is.
        sample_weight: A weight a loss, of the losses' shape, on top of other weights. The mean
            divides by the sum of what was applied; weight 0 leaves a loss out, whatever its input.
        denominator: What `'mean'` divides by instead: across batches or processes, say.
        empty: The mean where no loss counts, so that it would divide by 0; the gradient is then 0.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.

    Shape:
        - input, target: any, the same.
        - loss: a number, or for `'none'` input's shape.

    Returns:
        The loss, or `(loss, grad)`. The loss is float32 for 16-bit input, otherwise of the input's
        type. Each element is within 2 ulp (float32) or 3 (float64) of the larger of its
        two terms, whose difference vanishes where input and target agree; the gradient is exact, or
        with `log_target` or a `base` within 2 or 3 ulp.

    Errors:
        TypeError: `input` is not of a float type; `target` is bool; a masked array.
        ValueError: shapes do not fit; `reduction` is not one; `base` is not positive or 1;
            `grad_out` is read-only, overlaps itself, or overlaps another argument without being
            `input`.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> log_q = np.log([[0.5, 0.5], [0.9, 0.1]])
        >>> F.kl_div(log_q, [[1.0, 0.0], [0.9, 0.1]], reduction="batchmean", base=2)
        np.float64(0.5)

    Reference:
        `torch.nn.functional.kl_div`, whose meaning this follows.
    """
    return _core.kl_div(
        input,
        target,
        reduction,
        (sample_weight, denominator, empty),
        log_target,
        base,
        return_grad,
        grad_output,
        grad_out,
    )


def entropy(
    p: ArrayLike,
    *,
    axis: int = -1,
    base: float | None = None,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
) -> Any:
    r"""Shannon's entropy of probabilities.

    $$H = -\sum_i p_i \log p_i, \qquad \frac{\partial H}{\partial p_i} = -\log p_i - 1$$

    of the numbers as they are, which are not normalised; $0 \log 0$ is 0.

    Arguments:
        p: Probabilities, or any numbers that are not negative; a NaN gives NaN.
        axis: The axis to sum over.
        base: The base of the logarithm: 2 for bits; nats without.
        return_grad: Also return the gradient with respect to `p`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type, of any
            strides; it may be `p` itself. Implies `return_grad`.

    Shape:
        - p: any with at least one axis; the result lacks `axis`.

    Returns:
        The entropies, or `(entropies, grad)`: float32 for 16-bit `p`, otherwise of its type, within
        2 ulp (float32) or 3 (float64) of the real number where no `p` is above 1, and elsewhere of
        the sum of its terms' magnitudes. The gradient is within 6 or 8 ulp of the larger of its two
        terms, whose difference vanishes at 1/e.

    Errors:
        TypeError: `p` is not of a float type; a masked array.
        ValueError: an element is negative: where `grad_out` is `p`, nothing was written; there is
            no such `axis`; `base` is not positive or 1; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.entropy(np.array([[0.5, 0.5], [1.0, 0.0]]), base=2)
        array([1., 0.])
        >>> F.entropy(np.full(6, 1 / 6), base=2)  # a fair die
        np.float64(2.584962500721156)

    Reference:
        Shannon, "A mathematical theory of communication" (1948); `scipy.stats.entropy`, which
        normalises.
    """
    return _core.entropy(
        p,
        axis,
        base,
        return_grad,
        grad_output,
        grad_out,
    )


def entropy_with_logits(
    logits: ArrayLike,
    *,
    axis: int = -1,
    base: float | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
    return_hess: bool = False,
    hess_out: NDArray[Any] | None = None,
) -> Any:
    r"""Shannon's entropy of the softmax of logits.

    With $p = \mathrm{softmax}(x)$ and the largest logit $m$,

    $$H = -\sum_i p_i \log p_i = \log\Bigl(1 + \sum_{c \ne m} e^{x_c - m}\Bigr)
      + \sum_i p_i (m - x_i), \qquad
      \frac{\partial H}{\partial x_i} = p_i (d_i - E), \qquad
      \frac{\partial^2 H}{\partial x_i^2} = p_i \bigl((1 - 2 p_i) (d_i - E) - (1 - p_i)\bigr)$$

    with the gaps $d_i = m - x_i$ and their mean $E = \sum_c p_c d_c$,

    where no term of the entropy is negative: a confident row's keeps all of its bits, which
    `entropy(softmax(x))` has lost.

    Arguments:
        logits: Logits; any real numbers, -inf for a class that cannot be.
        axis: The class axis.
        base: The base of the logarithm: 2 for bits; nats without.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division; one of -inf, too.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist, as a logit of -inf after all this.
        return_grad: Also return the gradient with respect to `logits`.
        grad_output: The upstream gradient: a number, or an array of the result's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type of `logits`, of
            any strides; it may be `logits` itself. Implies `return_grad`.
        return_hess: Also return the diagonal of the Hessian, times `grad_output`.
        hess_out: The array that the Hessian's diagonal is written to, as `grad_out`. Implies
            `return_hess`.

    Shape:
        - logits: any with at least one axis; the result lacks `axis`.

    Returns:
        The entropies; `(entropies, grad)`, `(entropies, grad, hess)` or `(entropies, hess)`:
        float32 for 16-bit logits, otherwise of their type, within 2 ulp (float32) or 3 (float64) of
        the real number. Derivatives are within 6 or 8 ulp of $p_i$ times the largest of the numbers
        whose difference they have. A row with a NaN, with two logits at +inf or with none above
        -inf is NaN; one +inf has no entropy.

    Errors:
        TypeError: `logits` is not of a float type; a masked array.
        ValueError: there is no such `axis`; `base` is not positive or 1; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.entropy_with_logits(np.array([[0.0, 0.0], [50.0, 0.0]]), base=2)
        array([1.0000000e+00, 1.4191249e-20])

    Reference:
        Shannon, "A mathematical theory of communication" (1948);
        `torch.distributions.Categorical.entropy`.
    """
    return _core.entropy_with_logits(
        logits,
        axis,
        base,
        (temperature, softcap, class_mask),
        return_grad,
        grad_output,
        grad_out,
        return_hess,
        hess_out,
    )


def binary_entropy(
    p: ArrayLike,
    *,
    base: float | None = None,
    return_grad: bool = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | None = None,
) -> Any:
    r"""Entropy of one probability: of a coin that falls on one side with it, element by element.

    $$H(p) = -p \log p - (1 - p) \log(1 - p), \qquad
      \frac{\partial H}{\partial p} = \log(1 - p) - \log p$$

    Arguments:
        p: Probabilities, in [0, 1]; a NaN gives NaN.
        base: The base of the logarithm: 2 for bits; nats without.
        return_grad: Also return the gradient with respect to `p`.
        grad_output: The upstream gradient: a number, or an array of the loss's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type, of any
            strides; it may be `p` itself. Implies `return_grad`.

    Shape:
        - p, result: any, the same.

    Returns:
        The entropies, or `(entropies, grad)`: float32 for 16-bit `p`, otherwise of its type, within
        2 ulp (float32) or 3 (float64) of the real number. The gradient is within 6 or 8 ulp of the
        larger of its two terms, whose difference vanishes at 1/2.

    Errors:
        TypeError: `p` is not of a float type; a masked array.
        ValueError: an element is outside of [0, 1]: where `grad_out` is `p`, nothing was written;
            `base` is not positive or 1; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.binary_entropy(np.array([0.5, 1.0, 1e-20]), base=2)
        array([1.00000000e+00, 0.00000000e+00, 6.78812569e-19])

    Reference:
        Cover and Thomas, *Elements of Information Theory*, section 2.1.
    """
    return _core.binary_entropy(
        p,
        base,
        return_grad,
        grad_output,
        grad_out,
    )


def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: int = -1,
    base: float | None = None,
    return_grad: bool | str = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Any:
    r"""Kullback-Leibler divergence of a distribution $q$ from a distribution $p$.

    $$D = \sum_i p_i \log \frac{p_i}{q_i} - p_i + q_i, \qquad
      \frac{\partial D}{\partial p_i} = \log \frac{p_i}{q_i}, \qquad
      \frac{\partial D}{\partial q_i} = 1 - \frac{p_i}{q_i}$$

    For distributions, whose sums agree, $-p + q$ adds nothing; with it no term is negative, so that
    the divergence is not, and is exactly 0 of a distribution from itself. Cross-entropy is entropy
    plus this: $-\sum_i p_i \log q_i = H(p) + D(p, q)$. For torch's function of log-probabilities
    see `kl_div`.

    Arguments:
        p: Probabilities, or any numbers that are not negative; a NaN gives NaN.
        q: Probabilities likewise. Where one is 0 and its $p$ is not, the divergence is infinite.
        axis: The axis to sum over.
        base: The base of the logarithm: 2 for bits; nats without.
        return_grad: Also return the gradient with respect to `p`; `'both'`: and that to `q`.
        grad_output: The upstream gradient: a number, or an array of the result's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type of `p`, of any
            strides; it may be `p` itself. Implies `return_grad`. With `'both'` a pair of arrays.

    Shape:
        - p, q: any with at least one axis, the same; the result lacks `axis`.

    Returns:
        The divergence, `(divergence, grad_p)` or `(divergence, grad_p, grad_q)`: float32 for 16-bit
        `p`, otherwise of its type, within 2 ulp (float32) or 3 (float64) of the real number;
        gradients have the types of `p` and `q` and are within 6 or 8 ulp. Where both numbers are 0
        the gradients are 0 and 1.

    Errors:
        TypeError: `p` or `q` is not of a float type; a masked array; `grad_out` is no pair.
        ValueError: an element is negative: where an output is its input, nothing was written;
            shapes do not fit; there is no such `axis`; `base` is not positive or 1; `return_grad`
            is not one; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> fair, loaded = np.full(6, 1 / 6), np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.5])
        >>> F.kl_divergence(loaded, fair, base=2)
        np.float64(0.423998453277475)
        >>> F.kl_divergence(loaded, loaded)
        np.float64(0.0)

    Reference:
        Kullback and Leibler, "On information and sufficiency" (1951); `scipy.special.kl_div`, whose
        sum this is.
    """
    return _core.kl_divergence(
        p,
        q,
        axis,
        base,
        return_grad,
        grad_output,
        grad_out,
    )


def kl_divergence_with_logits(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    *,
    axis: int = -1,
    base: float | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    return_grad: bool | str = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Any:
    r"""Kullback-Leibler divergence between the softmaxes of logits.

    With $p = \mathrm{softmax}(a)$, $q = \mathrm{softmax}(b)$ and $u_i = \log(q_i / p_i)$,

    $$D = -\sum_i p_i u_i = \sum_i p_i (e^{u_i} - 1 - u_i), \qquad
      \frac{\partial D}{\partial a_i} = p_i (-u_i - D), \qquad
      \frac{\partial D}{\partial b_i} = q_i - p_i$$

    where $u_i$ comes of differences of logits: no term of the second sum is negative, and where the
    distributions are close none of them cancels, as the difference of two log-softmaxes does. It is
    the loss of distillation, and what a quantised model has lost against its base.

    Arguments:
        p_logits: Logits of the first distribution; any real numbers, -inf for a class that cannot
            be.
        q_logits: Logits of the second. Where it rules a class out that the first does not, the
            divergence is infinite.
        axis: The class axis.
        base: The base of the logarithm: 2 for bits; nats without.
        temperature: What both logits are divided by.
        softcap: Both logits become $c \tanh(x / c)$, before the division.
        class_mask: Booleans that broadcast to the logits' shape: False is a class that does not
            exist, as a logit of -inf in both.
        return_grad: Also return the gradient with respect to `p_logits`; `'both'`: and that to
            `q_logits`.
        grad_output: The upstream gradient: a number, or an array of the result's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type of `p_logits`, of
            any strides; it may be `p_logits` itself. Implies `return_grad`. With `'both'` a pair of
            arrays.

    Shape:
        - p_logits, q_logits: any with at least one axis, the same; the result lacks `axis`.

    Returns:
        The divergence, `(divergence, grad_p)` or `(divergence, grad_p, grad_q)`: float32 for 16-bit
        `p_logits`, otherwise of their type, within 2 ulp (float32) or 3 (float64) of the real
        number. Gradients have the types of their logits and are within 6 or 8 ulp: that to
        `q_logits` of itself or of $q_i \sum_c |q_c - p_c|$, that to `p_logits` of $p_i$ times that
        sum or the larger of the two numbers whose difference it has. A row with a NaN, with two
        logits at +inf or with none above -inf is NaN.

    Errors:
        TypeError: logits are not of a float type; a masked array; `grad_out` is no pair.
        ValueError: shapes do not fit; there is no such `axis`; `base` is not positive or 1;
            `return_grad` is not one; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> logits = np.array([1.0, 2.0, 3.0])
        >>> F.kl_divergence_with_logits(logits, logits)
        np.float64(0.0)
        >>> F.kl_divergence_with_logits(np.log([0.5, 0.5]), np.log([0.25, 0.75])).round(12)
        np.float64(0.143841036226)

    Reference:
        Kullback and Leibler, "On information and sufficiency" (1951); Hinton, Vinyals and Dean,
        "Distilling the knowledge in a neural network" (2015).
    """
    return _core.kl_divergence_with_logits(
        p_logits,
        q_logits,
        axis,
        base,
        (temperature, softcap, class_mask),
        return_grad,
        grad_output,
        grad_out,
    )


def js_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: int = -1,
    base: float | None = None,
    return_grad: bool | str = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Any:
    r"""Jensen-Shannon divergence between two distributions.

    With $m = (p + q) / 2$ and the divergence $D$ of Kullback and Leibler,

    $$J = \tfrac{1}{2} D(p, m) + \tfrac{1}{2} D(q, m), \qquad
      \frac{\partial J}{\partial p_i} = \tfrac{1}{2} \log \frac{p_i}{m_i}, \qquad
      \frac{\partial J}{\partial q_i} = \tfrac{1}{2} \log \frac{q_i}{m_i}.$$

    It is symmetric, finite, and at most $\log 2$, which disjoint distributions have. Its square
    root is a metric.

    Arguments:
        p: Probabilities, or any numbers that are not negative; a NaN gives NaN.
        q: Probabilities likewise.
        axis: The axis to sum over.
        base: The base of the logarithm: 2 for bits; nats without.
        return_grad: Also return the gradient with respect to `p`; `'both'`: and that to `q`.
        grad_output: The upstream gradient: a number, or an array of the result's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type of `p`, of any
            strides; it may be `p` itself. Implies `return_grad`. With `'both'` a pair of arrays.

    Shape:
        - p, q: any with at least one axis, the same; the result lacks `axis`.

    Returns:
        The divergence, `(divergence, grad_p)` or `(divergence, grad_p, grad_q)`: float32 for 16-bit
        `p`, otherwise of its type, within 2 ulp (float32) or 3 (float64) of the real number;
        gradients have the types of `p` and `q` and are within 6 or 8 ulp. Where both numbers are 0
        the gradients are 0.

    Errors:
        TypeError: `p` or `q` is not of a float type; a masked array; `grad_out` is no pair.
        ValueError: an element is negative: where an output is its input, nothing was written;
            shapes do not fit; there is no such `axis`; `base` is not positive or 1; `return_grad`
            is not one; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.js_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0]), base=2)
        np.float64(1.0)

    Reference:
        Lin, "Divergence measures based on the Shannon entropy" (1991);
        `scipy.spatial.distance.jensenshannon`, which normalises and takes the square root.
    """
    return _core.js_divergence(
        p,
        q,
        axis,
        base,
        return_grad,
        grad_output,
        grad_out,
    )


def js_divergence_with_logits(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    *,
    axis: int = -1,
    base: float | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    return_grad: bool | str = False,
    grad_output: ArrayLike | None = None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Any:
    r"""Jensen-Shannon divergence between the softmaxes of logits.

    With $p = \mathrm{softmax}(a)$, $q = \mathrm{softmax}(b)$, their mean $m$ and the divergence $D$
    of Kullback and Leibler,

    $$J = \tfrac{1}{2} D(p, m) + \tfrac{1}{2} D(q, m), \qquad
      \frac{\partial J}{\partial a_i}
      = \tfrac{1}{2} p_i \Bigl(\log \frac{p_i}{m_i} - D(p, m)\Bigr)$$

    and likewise with respect to $b$. It is symmetric, finite, and at most $\log 2$.

    Arguments:
        p_logits: Logits of the first distribution; any real numbers, -inf for a class that cannot
            be.
        q_logits: Logits of the second.
        axis: The class axis.
        base: The base of the logarithm: 2 for bits; nats without.
        temperature: What both logits are divided by.
        softcap: Both logits become $c \tanh(x / c)$, before the division.
        class_mask: Booleans that broadcast to the logits' shape: False is a class that does not
            exist, as a logit of -inf in both.
        return_grad: Also return the gradient with respect to `p_logits`; `'both'`: and that to
            `q_logits`.
        grad_output: The upstream gradient: a number, or an array of the result's shape. Default 1.
        grad_out: The array that the gradient is written to, of the shape and type of `p_logits`, of
            any strides; it may be `p_logits` itself. Implies `return_grad`. With `'both'` a pair of
            arrays.

    Shape:
        - p_logits, q_logits: any with at least one axis, the same; the result lacks `axis`.

    Returns:
        The divergence, `(divergence, grad_p)` or `(divergence, grad_p, grad_q)`: float32 for 16-bit
        `p_logits`, otherwise of their type, within 2 ulp (float32) or 3 (float64) of the real
        number. Gradients have the types of their logits, and are within 6 or 8 ulp of the larger
        of the two numbers whose difference they have, or of $p_i \sum_c |q_c - p_c|$. A row with a
        NaN, with two logits at +inf or with none above -inf is NaN.

    Errors:
        TypeError: logits are not of a float type; a masked array; `grad_out` is no pair.
        ValueError: shapes do not fit; there is no such `axis`; `base` is not positive or 1;
            `return_grad` is not one; `grad_out` does not fit.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> a, b = np.array([0.0, -np.inf]), np.array([-np.inf, 0.0])
        >>> F.js_divergence_with_logits(a, b, base=2)
        np.float64(1.0)

    Reference:
        Lin, "Divergence measures based on the Shannon entropy" (1991).
    """
    return _core.js_divergence_with_logits(
        p_logits,
        q_logits,
        axis,
        base,
        (temperature, softcap, class_mask),
        return_grad,
        grad_output,
        grad_out,
    )


class TokenLogProb(NamedTuple):
    """What `token_log_prob` answers of each row: arrays, or numbers of one row.

    Example:
        >>> import crossent.functional as F
        >>> F.token_log_prob([0.0, 0.0], 1).rank
        np.int64(0)
    """

    log_prob: Any
    entropy: Any
    logsumexp: Any
    rank: Any


def token_log_prob(
    input: ArrayLike,
    target: ArrayLike,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    axis: int | None = None,
    return_grad: bool = False,
    grad_output: tuple[ArrayLike, ArrayLike] | None = None,
    grad_out: NDArray[Any] | None = None,
) -> Any:
    r"""Log-probability and rank of targets, entropy and log-sum-exp, in one pass over logits.

    For a row of logits $x$ with $p = \mathrm{softmax}(x)$, a target $y$ and the largest logit $m$,

    $$\log p_y = x_y - \log \sum_c e^{x_c}, \qquad H = -\sum_c p_c \log p_c, \qquad
      \mathrm{rank} = \#\{c : x_c > x_y\}$$

    The gradient of $g \log p_y + h H$, the two upstream gradients being $g$ and $h$, is what policy
    gradients with an entropy bonus need:

    $$g\,([i = y] - p_i) + h\,p_i \Bigl((m - x_i) - \sum_c p_c (m - x_c)\Bigr)$$

    Arguments:
        input: Logits; any real numbers, -inf for a class that cannot be.
        target: Class indices of any integer type.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division; one of -inf, too.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist, as a logit of -inf after all this.
        axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
        return_grad: Also return the gradient with respect to `input`.
        grad_output: The upstream gradients of the log-probability and of the entropy, each a number
            or an array of target's shape. Default (1, 0).
        grad_out: The array that the gradient is written to, of the input's shape and type, of any
            strides; it may be `input` itself. Implies `return_grad`.

    Shape:
        - input: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
        - target: input's shape without C; so have the answers.

    Returns:
        A `TokenLogProb`, or `(TokenLogProb, grad)`: `log_prob`, `entropy` and `logsumexp` in nats,
        float32 for 16-bit input, otherwise of the input's type, the first two within 2 ulp
        (float32) or 3 (float64) of the real number; `rank` in int64: classes above the target, of
        which ties are none; log-sum-exp is that of `logsumexp`. The gradient has the input's type
        and is within 6 or 8 ulp of the sum of its terms' magnitudes: those of the target, of
        $m - x_i$ and of its mean.

    Errors:
        TypeError: `input` is not of a float type; `target` not of an integer type; a masked array;
            `grad_output` is no pair.
        ValueError: shapes do not fit; `grad_out` does not fit.
        IndexError: a target class is not in [0, C). Nothing was written.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> tokens = F.token_log_prob(np.array([[20.0, 0.0], [1.0, 1.0]], np.float32), [0, 1])
        >>> tokens.log_prob
        array([-2.0611537e-09, -6.9314718e-01], dtype=float32)
        >>> tokens.rank
        array([0, 0])

    Reference:
        `cross_entropy` of a target class and `entropy_with_logits`, whose numbers these are.
    """
    answers, grad = _core.token_log_prob(
        input,
        target,
        axis,
        (temperature, softcap, class_mask),
        return_grad,
        grad_output,
        grad_out,
        False,
        False,
    )
    tokens = TokenLogProb(*answers)
    return tokens if grad is None else (tokens, grad)


def sigmoid(input: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    r"""Sigmoid of logits.

    $$\sigma(x) = \frac{1}{1 + e^{-x}}$$

    Arguments:
        input: Logits; any real numbers, infinite ones too.
        out: The array that the result is written to, of the input's shape and type; it may be
            `input` itself.

    Shape:
        - input, result: any, the same.

    Returns:
        The result, of the input's type, within 2 ulp (float32) or 3 (float64) of the real number.

    Errors:
        TypeError: `input` is not of a float type; a masked array.
        ValueError: `out` does not fit, is read-only, overlaps itself, or overlaps `input` without
            being it.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.sigmoid(np.array([0.0, -800.0, np.inf], dtype=np.float32))
        array([0.5, 0. , 1. ], dtype=float32)

    Reference:
        `torch.sigmoid`.
    """
    return _core.sigmoid(input, out)


def logsigmoid(input: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    r"""Logarithm of the sigmoid of logits, without the detour.

    $$\log \sigma(x) = \min(x, 0) - \log(1 + e^{-|x|})$$

    Arguments:
        input: Logits; any real numbers, infinite ones too.
        out: The array that the result is written to, of the input's shape and type; it may be
            `input` itself.

    Shape:
        - input, result: any, the same.

    Returns:
        The result, of the input's type, within 2 ulp (float32) or 3 (float64) of the real number.

    Errors:
        TypeError: `input` is not of a float type; a masked array.
        ValueError: `out` does not fit, is read-only, overlaps itself, or overlaps `input` without
            being it.

    Example:
        >>> import numpy as np
        >>> import crossent.functional as F
        >>> F.logsigmoid(np.array([-800.0, 0.0, 40.0]))
        array([-8.00000000e+02, -6.93147181e-01, -4.24835426e-18])

    Reference:
        `torch.nn.functional.logsigmoid`.
    """
    return _core.logsigmoid(input, out)


def softmax(
    input: ArrayLike,
    axis: int,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    r"""Probabilities proportional to the exponentials of logits.

    $$p_i = \frac{e^{x_i}}{\sum_c e^{x_c}}$$

    Arguments:
        input: Logits; one at +inf has all the probability.
        axis: The axis over which probabilities sum to 1.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division; one of -inf, too.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist, as a logit of -inf after all this.
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
    return _core.softmax(input, axis, (temperature, softcap, class_mask), out)


def log_softmax(
    input: ArrayLike,
    axis: int,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    r"""Logarithms of the softmax.

    $$\log p_i = (x_i - m) - \log\Bigl(1 + \sum_{c \ne m} e^{x_c - m}\Bigr)$$

    with $m$ the largest logit: both terms are at most 0, and nothing cancels.

    Arguments:
        input: Logits.
        axis: The axis over which probabilities sum to 1.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division; one of -inf, too.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist, as a logit of -inf after all this.
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
    return _core.log_softmax(input, axis, (temperature, softcap, class_mask), out)


def logsumexp(
    input: ArrayLike,
    axis: int,
    keepdims: bool = False,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: ArrayLike | None = None,
) -> Any:
    r"""Logarithm of a sum of exponentials, of any magnitude.

    $$\log \sum_c e^{x_c} = m + \log\Bigl(1 + \sum_{c \ne m} e^{x_c - m}\Bigr)$$

    with $m$ the largest of them.

    Arguments:
        input: Exponents.
        axis: The axis to sum over.
        keepdims: Keep the axis, with length 1.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division; one of -inf, too.
        class_mask: Booleans that broadcast to the input's shape: False is a class that does not
            exist, as a logit of -inf after all this.

    Shape:
        - input: any with at least one axis; the result lacks `axis`.

    Returns:
        The logarithms, float32 for 16-bit input, otherwise of the input's type; -inf for a sum of
        nothing. Within 2 ulp (float32) or 4 (float64) of the larger of the result and of $m$, which
        may cancel.

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
    return _core.logsumexp(input, axis, keepdims, (temperature, softcap, class_mask))
