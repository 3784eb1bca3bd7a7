"""Arrays of one shape and type in many layouts.

Each layout is a function of a shape and a dtype that answers `(view, base)`: a writable array of
that shape, laid out in its own way, and the bytes it lives in, all 0xFF at first. Every float of
those bytes is a NaN, so that a read of the gaps shows in the result, and a write to them in `base`.
"""

import math

import numpy as np


def fresh(count):
    return np.full(count, 0xFF, np.uint8)


# Where bytes come from: what walks along the edges of pages puts another in its place.
allocate = fresh


def contiguous(shape, dtype):
    base = allocate(math.prod(shape) * dtype.itemsize)
    return base.view(dtype).reshape(shape), base


def fortran(shape, dtype):
    view, base = contiguous(shape[::-1], dtype)
    return view.T, base


def negative(shape, dtype):
    view, base = contiguous(shape, dtype)
    return view[(slice(None, None, -1),) * len(shape)], base


def negative_last(shape, dtype):
    view, base = contiguous(shape, dtype)
    return view[..., ::-1], base


def every_second_column(shape, dtype):
    view, base = contiguous((*shape[:-1], 2 * shape[-1]), dtype)
    return view[..., ::2], base


def every_third_row(shape, dtype):
    view, base = contiguous((3 * shape[0], *shape[1:]), dtype)
    return view[1::3], base


def spread_out(shape, dtype):
    view, base = contiguous(tuple(2 * n for n in shape), dtype)
    return view[(slice(None, None, -2),) * len(shape)], base


def inside(shape, dtype):
    view, base = contiguous(tuple(n + 3 for n in shape), dtype)
    return view[tuple(slice(1, n + 1) for n in shape)], base


def first_axis_last(shape, dtype):
    view, base = contiguous((*shape[1:], shape[0]), dtype)
    return np.moveaxis(view, -1, 0), base


def second_axis_last(shape, dtype):
    if len(shape) < 2:
        return contiguous(shape, dtype)
    view, base = contiguous((shape[0], *shape[2:], shape[1]), dtype)
    return np.moveaxis(view, -1, 1), base


def misaligned(shape, dtype):
    base = allocate(math.prod(shape) * dtype.itemsize + 1)
    return base[1:].view(dtype).reshape(shape), base


def big_endian(shape, dtype):
    return contiguous(shape, dtype.newbyteorder(">"))


def big_endian_fortran(shape, dtype):
    return fortran(shape, dtype.newbyteorder(">"))


def big_endian_misaligned_negative(shape, dtype):
    view, base = misaligned(shape, dtype.newbyteorder(">"))
    return view[(slice(None, None, -1),) * len(shape)], base


def record_field(shape, dtype):
    """Strides that are no multiple of the item."""
    record = np.dtype(
        {"names": ["v"], "formats": [dtype], "offsets": [1], "itemsize": dtype.itemsize + 3}
    )
    view, base = contiguous(shape, record)
    return view["v"], base


LAYOUTS = [
    contiguous,
    fortran,
    negative,
    negative_last,
    every_second_column,
    every_third_row,
    spread_out,
    inside,
    first_axis_last,
    second_axis_last,
    misaligned,
    big_endian,
    big_endian_fortran,
    big_endian_misaligned_negative,
    record_field,
]


def like(layout, array):
    """`array`'s values in a layout: a view, and the bytes it lives in."""
    array = np.asarray(array)
    view, base = layout(array.shape, array.dtype)
    view[...] = array
    return view, base


def assert_only_view_written(layout, view, base):
    """Nothing of `base` was written but the elements of `view`."""
    fresh, untouched = layout(view.shape, view.dtype.newbyteorder("="))
    fresh[...] = view
    assert np.array_equal(untouched, base)
