from typing import Any

from numpy.typing import ArrayLike, NDArray

__all__ = [
    "__version__",
    "_copy_floor",
    "_read_floor",
    "cross_entropy",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "losses",
    "nll_loss",
    "set_num_threads",
    "simd_level",
    "softmax",
]

__version__: str

def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
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
    axis: int | None,
    return_grad: bool,
    grad_output: ArrayLike | None,
    grad_out: NDArray[Any] | None,
) -> Any: ...
def softmax(input: ArrayLike, axis: int, out: NDArray[Any] | None) -> NDArray[Any]: ...
def log_softmax(input: ArrayLike, axis: int, out: NDArray[Any] | None) -> NDArray[Any]: ...
def logsumexp(input: ArrayLike, axis: int, keepdims: bool) -> Any: ...
def losses() -> list[tuple[str, str]]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def simd_level() -> str: ...
def _read_floor(array: NDArray[Any]) -> float: ...
def _copy_floor(source: NDArray[Any], destination: NDArray[Any]) -> None: ...
