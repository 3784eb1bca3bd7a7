"""What arguments of the packages around the losses have in common: errors that name them."""

from __future__ import annotations

from math import inf
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def refuse_mask(name: str, values: Any) -> None:
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: its mask would be lost")


def plain(name: str, values: ArrayLike) -> NDArray[Any]:
    """An array, which no mask hides a part of."""
    refuse_mask(name, values)
    return np.asarray(values)


def number(name: str, value: Any) -> float:
    """A real number; a bool or a string is none."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.number)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(value)


def whole(name: str, value: Any, least: int | None) -> int:
    """An integer that is not too small."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_weights(name: str, values: NDArray[Any]) -> None:
    """Refuses what is negative, infinite or no number."""
    # By the ends, which no NaN lies between: no array is made where nothing is wrong.
    if values.size and not (values.min() >= 0 and values.max() < inf):
        wrong = ~((values >= 0) & (values < inf))
        raise ValueError(f"{name} must be finite and not negative: {name}{first(wrong, values)}")


def first(wrong: NDArray[np.bool_], values: NDArray[Any]) -> str:
    """The place of the first element that is wrong, and its value."""
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    place = f"[{', '.join(map(str, at))}]" if at else ""
    return f"{place} = {values[at]}"
