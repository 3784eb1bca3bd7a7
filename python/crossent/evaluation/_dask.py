"""Evaluation of arrays that are spread over a cluster: a tree of merges, in any order the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent._arguments import plain
from crossent.evaluation._evaluation import Evaluation
from crossent.evaluation._extra import needs
from crossent.evaluation._stream import checked_axis
from crossent.evaluation._tokens import bytes_of

# How many evaluations a task merges.
FAN_IN = 8


def evaluate_dask(
    input: Any,
    target: Any,
    *,
    axis: int | None = None,
    baseline: Any = None,
    sample_weight: Any = None,
    byte_count: Any = None,
    group: Any = None,
    class_mask: Any = None,
    compute: bool = True,
    **options: Any,
) -> Any:
    r"""Evaluates `dask.array`s, a block at a time where the blocks are, and merges in a tree.

    A block's sums are a pure function of the block, and merging is exact: with any scheduler,
    number of workers, chunks and order, and also where a worker was lost and its blocks computed
    again, the result has the same bits, as long as the workers have the same instruction set.

    Arguments:
        input: Logits, or what `kind` says, as a dask array. Classes that are in several chunks are
            put together; along other axes chunks stay as they are.
        target: Class indices, of input's shape without the class axis: a dask array, which is
            rechunked as the input, or any array.
        axis: The class axis; by default torch's: 1. It cannot be the first.
        baseline: Another model's logits for the same rows; see `Evaluation.update`.
        sample_weight, group: Of each row, as `target`.
        byte_count: Bytes of text that each row stands for, or a number that all do.
        class_mask: Booleans, one a class; False is a class that does not exist.
        compute: Compute it now, with the client of this process if there is one; False returns a
            `dask.delayed.Delayed` of it.
        options: The arguments of `Evaluation`.

    Returns:
        The `Evaluation`. Rows are numbered as those of the whole array, for `worst_tokens`; only
        the first axis may then have more than one chunk.

    Errors:
        ImportError: dask is not installed.
        ValueError: shapes do not fit; those of `Evaluation.update`, from the block that has them.

    Example:
        >>> import dask.array as da
        >>> import numpy as np
        >>> from crossent.evaluation import evaluate_dask
        >>> logits = da.from_array(np.eye(4), chunks=(2, 4))
        >>> evaluate_dask(logits, np.arange(4)).accuracy
        1.0
    """
    dask, da = needs("dask", "dask"), needs("dask.array", "dask")
    start = Evaluation(**options)
    if not isinstance(input, da.Array):
        raise TypeError(f"input must be a dask.array.Array, got {type(input).__name__}")
    axis = checked_axis(input.shape, axis)
    if any(np.isnan(size) for size in input.shape):
        raise ValueError("input must know its shape: call compute_chunk_sizes() on it first")
    input = input.rechunk({axis: -1})
    others = [i for i in range(input.ndim) if i != axis]
    per_row, chunks = tuple(input.shape[i] for i in others), tuple(input.chunks[i] for i in others)
    if options.get("worst") and any(len(sizes) > 1 for sizes in chunks[1:]):
        raise ValueError("input must have one chunk on each axis but the first, for worst")
    mask = None if class_mask is None else plain("class_mask", class_mask)
    if mask is not None:
        if mask.shape != (input.shape[axis],):
            raise ValueError(f"class_mask must have the shape {(input.shape[axis],)}, one a class")
        mask = mask.reshape([-1 if i == axis else 1 for i in range(input.ndim)])

    def blocks(name: str, array: Any, shape: tuple[int, ...], like: Any) -> Any:
        if array is None:
            return np.full(input.numblocks, None)
        array = array if isinstance(array, da.Array) else np.asarray(array)
        if tuple(array.shape) != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {tuple(array.shape)}")
        return da.asarray(array).rechunk(like).to_delayed()

    number, of_all = byte_count is not None and np.ndim(byte_count) == 0, None
    if number:
        _, of_all = bytes_of(byte_count, per_row, sample_weight is not None)
    arrays = [
        blocks("input", input, input.shape, input.chunks),
        blocks("target", target, per_row, chunks),
        blocks("baseline", baseline, input.shape, input.chunks),
        blocks("sample_weight", sample_weight, per_row, chunks),
        blocks("byte_count", None if number else byte_count, per_row, chunks),
        blocks("group", group, per_row, chunks),
    ]
    firsts = np.concatenate([[0], np.cumsum(chunks[0])]) * int(np.prod(per_row[1:]))
    part, merged = dask.delayed(evaluate_block, pure=True), dask.delayed(merge_all, pure=True)
    level = [
        part(
            start,
            [each.ravel()[i] for each in arrays],
            axis,
            (of_all if i == 0 else 0) if number else None,
            mask,
            int(firsts[np.unravel_index(i, input.numblocks)[0]]),
        )
        for i in range(arrays[0].size)
    ]
    while len(level) > 1:
        level = [merged(level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
    return level[0].compute() if compute else level[0]


def evaluate_block(
    start: Evaluation, arrays: list[Any], axis: int, bytes_of_all: int | None, mask: Any, first: int
) -> Evaluation:
    """The sums of one block. What a task is given it must not change."""
    input, target, baseline, sample_weight, byte_count, group = arrays
    evaluation = start.empty_like()
    evaluation.update(
        input,
        target,
        axis=axis,
        baseline=baseline,
        sample_weight=sample_weight,
        byte_count=byte_count if bytes_of_all is None else bytes_of_all,
        group=group,
        class_mask=mask,
        first_row=first,
    )
    return evaluation


def merge_all(parts: list[Evaluation]) -> Evaluation:
    """The sums of all parts."""
    total = parts[0].empty_like()
    for each in parts:
        total.merge(each)
    return total
