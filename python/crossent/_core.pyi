from typing import Any, TypeAlias

from numpy.typing import ArrayLike, NDArray

__all__ = [
    "__version__",
    "_copy_floor",
    "_read_floor",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_entropy",
    "cross_entropy",
    "entropy",
    "entropy_with_logits",
    "get_num_threads",
    "js_divergence",
    "js_divergence_with_logits",
    "kl_div",
    "kl_divergence",
    "kl_divergence_with_logits",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "losses",
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

__version__: str

# sample_weight, denominator, empty
_Weighing: TypeAlias = tuple[ArrayLike | None, float | None, float]
# temperature, softcap, class_mask
_Warp: TypeAlias = tuple[float, float | None, ArrayLike | None]

def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    weighing: _Weighing,
    label_smoothing: float,
    warp: _Warp,
    z_loss: float,
    axis: int | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
    return_hess: bool,
    hess_out: NDArray[Any] | None,
) -> Any: ...
def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    weighing: _Weighing,
    axis: int | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
) -> Any: ...
def binary_cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    reduction: str,
    weighing: _Weighing,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
) -> Any: ...
def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    reduction: str,
    weighing: _Weighing,
    pos_weight: ArrayLike | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
    return_hess: bool,
    hess_out: NDArray[Any] | None,
) -> Any: ...
def sigmoid_focal_loss(
    inputs: ArrayLike,
    targets: ArrayLike,
    alpha: float,
    gamma: float,
    reduction: str,
    weighing: _Weighing,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
    return_hess: bool,
    hess_out: NDArray[Any] | None,
) -> Any: ...
def multilabel_soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    reduction: str,
    weighing: _Weighing,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
    return_hess: bool,
    hess_out: NDArray[Any] | None,
) -> Any: ...
def soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str,
    weighing: _Weighing,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
    return_hess: bool,
    hess_out: NDArray[Any] | None,
) -> Any: ...
def kl_div(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str,
    weighing: _Weighing,
    log_target: bool,
    base: float | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
) -> Any: ...
def entropy(
    p: ArrayLike,
    axis: int,
    base: float | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
) -> Any: ...
def entropy_with_logits(
    logits: ArrayLike,
    axis: int,
    base: float | None,
    warp: _Warp,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
    return_hess: bool,
    hess_out: NDArray[Any] | None,
) -> Any: ...
def binary_entropy(
    p: ArrayLike,
    base: float | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
) -> Any: ...
def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    axis: int,
    base: float | None,
    return_grad: bool | str,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None,
) -> Any: ...
def js_divergence(
    p: ArrayLike,
    q: ArrayLike,
    axis: int,
    base: float | None,
    return_grad: bool | str,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None,
) -> Any: ...
def kl_divergence_with_logits(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    axis: int,
    base: float | None,
    warp: _Warp,
    return_grad: bool | str,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None,
) -> Any: ...
def js_divergence_with_logits(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    axis: int,
    base: float | None,
    warp: _Warp,
    return_grad: bool | str,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None,
) -> Any: ...
def token_log_prob(
    input: ArrayLike,
    target: ArrayLike,
    axis: int | None,
    warp: _Warp,
    return_grad: bool,
    grad_output: tuple[ArrayLike, ArrayLike] | None,
    grad_out: NDArray[Any] | None,
    wide: bool,
    with_top: bool,
) -> tuple[list[Any], NDArray[Any] | None]: ...
def sigmoid(input: ArrayLike, out: NDArray[Any] | None) -> NDArray[Any]: ...
def logsigmoid(input: ArrayLike, out: NDArray[Any] | None) -> NDArray[Any]: ...
def softmax(
    input: ArrayLike,
    axis: int,
    warp: _Warp,
    out: NDArray[Any] | None,
) -> NDArray[Any]: ...
def log_softmax(
    input: ArrayLike,
    axis: int,
    warp: _Warp,
    out: NDArray[Any] | None,
) -> NDArray[Any]: ...
def logsumexp(
    input: ArrayLike,
    axis: int,
    keepdims: bool,
    warp: _Warp,
) -> Any: ...
def losses() -> list[tuple[str, str | None]]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def simd_level() -> str: ...
def _read_floor(array: NDArray[Any]) -> float: ...
def _copy_floor(source: NDArray[Any], destination: NDArray[Any]) -> None: ...
