"""Arrays of any size, evaluated a slice at a time."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossent._arguments import plain, whole
from crossent.evaluation._evaluation import Evaluation
from crossent.evaluation._tokens import bytes_of

# How much of the input a slice holds, where nothing is said.
SLICE_BYTES = 1 << 26


class Sliceable(Protocol):
    """What slices are taken from: an array, a memory map, or anything with a shape and a type whose
    slices NumPy understands."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, rows: slice, /) -> Any: ...


def evaluate(
    input: Sliceable,
    target: Sliceable,
    *,
    axis: int | None = None,
    baseline: Sliceable | None = None,
    sample_weight: Sliceable | None = None,
    byte_count: Sliceable | int | None = None,
    group: Sliceable | None = None,
    class_mask: Any = None,
    batch_rows: int | None = None,
    start: int = 0,
    into: Evaluation | None = None,
    on_batch: Callable[[Evaluation, int], None] | None = None,
    **options: Any,
) -> Evaluation:
    r"""Evaluates arrays that need not fit in memory, slice by slice along their first axis.

    Only one slice of each array is held at a time: of a memory map that was opened for reading the
    pages are given back when a slice is done, so that resident memory stays at a slice's size. The
    result has the same bits for any `batch_rows`.

    Arguments:
        input: Logits, or what `kind` says: an array, a memory map (`np.load(path, mmap_mode="r")`),
            or any object with `shape`, a `dtype` of NumPy's and slices along the first axis, as
            Zarr and h5py have. What else `np.asarray` takes, as a torch tensor or a `DataFrame`,
            it takes whole, at the start.
        target: Class indices of any integer type, of input's shape without the class axis.
        axis: The class axis; by default torch's: 1. It cannot be the first.
        baseline: Another model's logits for the same rows; see `Evaluation.update`.
        sample_weight: A weight a row.
        byte_count: Bytes of text that each row stands for, or that all together do.
        group: Labels of the groups that rows belong to.
        class_mask: Booleans that broadcast to the input's shape; False is a class that does not
            exist. Of input's number of axes and length, it is sliced with it.
        batch_rows: How much of the first axis is read at a time; by default about 64 MiB.
        start: Where on the first axis to start: a run that was interrupted goes on there, `into`
            the evaluation that it had.
        into: The evaluation that rows are added to; by default a new one.
        on_batch: Called after each slice with the evaluation and the place of the next slice.
        options: The arguments of a new `Evaluation`.

    Returns:
        The evaluation.

    Errors:
        TypeError, ValueError, IndexError: as those of `Evaluation.update`, before the slice that
            has the error is added.

    Example:
        >>> import numpy as np
        >>> from crossent.evaluation import evaluate
        >>> logits = np.log([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
        >>> evaluate(logits, np.array([0, 2, 2]), batch_rows=2, top_k=(2,)).accuracy
        0.6666666666666666
    """
    if into is not None and options:
        raise ValueError(f"into has its own arguments, and {', '.join(options)} cannot be given")
    if into is not None and not isinstance(into, Evaluation):
        raise TypeError(f"into must be an Evaluation, got {type(into).__name__}")
    for name, value in (("input", input), ("target", target)):
        if value is None:
            raise TypeError(f"{name} must be an array, got None")
    evaluation = Evaluation(**options) if into is None else into
    input, target, baseline, sample_weight, group = map(
        sliceable, (input, target, baseline, sample_weight, group)
    )
    shape = tuple(input.shape)
    axis = checked_axis(shape, axis)
    per_row = shape[:axis] + shape[axis + 1 :]
    for name, array, wanted in (
        ("target", target, per_row),
        ("baseline", baseline, shape),
        ("sample_weight", sample_weight, per_row),
        ("group", group, per_row),
    ):
        if array is not None and tuple(array.shape) != wanted:
            raise ValueError(f"{name} must have the shape {wanted}, got {tuple(array.shape)}")
    bytes_per_row, bytes_of_all = sliceable(byte_count), None
    if bytes_per_row is not None and tuple(bytes_per_row.shape) == ():
        # What is wrong with it shows now, though it is added at the end.
        _, bytes_of_all = bytes_of(bytes_per_row, per_row, sample_weight is not None)
        bytes_per_row = None
    if bytes_per_row is not None and tuple(bytes_per_row.shape) != per_row:
        raise ValueError(f"byte_count must be a number or have the shape {per_row}")
    mask = None if class_mask is None else plain("class_mask", class_mask)
    mask_has_rows = mask is not None and mask.ndim == len(shape) and len(mask) == shape[0] != 1

    length = shape[0]
    start = whole("start", start, 0)
    if start > length:
        raise ValueError(f"start must be at most {length}, the length of input, got {start}")
    if batch_rows is None:
        row_bytes = prod(shape[1:]) * np.dtype(input.dtype).itemsize
        batch_rows = max(1, SLICE_BYTES // max(1, row_bytes))
    batch_rows = whole("batch_rows", batch_rows, 1)

    rows_each = prod(per_row[1:])
    arrays = (input, target, baseline, sample_weight, group, bytes_per_row)
    for first, stop in slices(start, length, batch_rows):
        part: list[Any] = [None if array is None else array[first:stop] for array in arrays]
        of_rows = part[5]
        if bytes_of_all is not None:
            # All of them with the last slice, which every run that ends has once; the slices before
            # have their share in it.
            of_rows = bytes_of_all if stop == length else 0
        try:
            evaluation.update(
                part[0],
                part[1],
                axis=axis,
                baseline=part[2],
                sample_weight=part[3],
                group=part[4],
                byte_count=of_rows,
                class_mask=mask[first:stop] if mask is not None and mask_has_rows else mask,
                first_row=first * rows_each,
            )
        except (TypeError, ValueError, IndexError) as error:
            if first == 0:
                raise
            raise type(error)(f"in the slice from {first} on: {error}") from error
        for array in part:
            give_back(array)
        if on_batch is not None:
            on_batch(evaluation, stop)
    return evaluation


def slices(start: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """One empty slice of an empty array, so that its classes are known."""
    if start == length == 0:
        yield 0, 0
    for first in range(start, length, step):
        yield first, min(first + step, length)


def sliceable(array: Any) -> Any:
    """What has a shape and a type of NumPy's, such as a file, is read slice by slice; lists,
    tensors and pandas' tables become arrays, without a copy where NumPy needs none."""
    # Slices of pandas' objects may go by label.
    whole_now = hasattr(array, "iloc") or not hasattr(array, "shape") or not has_dtype(array)
    return np.asarray(array) if array is not None and whole_now else array


def has_dtype(array: Any) -> bool:
    """Whether its type is one that NumPy knows."""
    try:
        np.dtype(array.dtype)
    except (AttributeError, TypeError):
        return False
    return True


def checked_axis(shape: tuple[int, ...], axis: int | None) -> int:
    """The class axis, which slices leave whole."""
    if len(shape) < 2:
        raise ValueError(f"input must have at least two axes, got the shape {shape}")
    axis = 1 if axis is None else whole("axis", axis, None)
    if not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
        raise ValueError(
            f"axis must be one of the {len(shape)} axes of input but the first, got {axis}"
        )
    return axis % len(shape)


def give_back(array: NDArray[Any] | None) -> None:
    """Lets go of the pages that a slice of a memory map has touched: they are in the file.

    Only of maps that cannot be written: pages of one that was written privately exist nowhere else.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    whole_map = np.frombuffer(base, np.uint8)
    if whole_map.flags.writeable:
        return
    assert array is not None
    reach = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
    at = array.__array_interface__["data"][0]
    low = at + sum(far for far in reach if far < 0)
    high = at + sum(far for far in reach if far > 0) + array.itemsize
    origin = whole_map.__array_interface__["data"][0]
    # Pages that it shares with its neighbours are given back, too; who needs them reads them again.
    first = (low - origin) // mmap.PAGESIZE * mmap.PAGESIZE
    if array.size:
        base.madvise(mmap.MADV_DONTNEED, first, high - origin - first)
