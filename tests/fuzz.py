"""Calls at random for as long as one likes, against the references in long double.

usage: python fuzz.py SECONDS [DATABASE]

Hypothesis draws the calls and, of one that fails, finds the smallest; it is kept in the database
and comes first in the next run. Prints how many calls were made of each function.
"""

import functools
import sys
import time
from collections import Counter

import elements
import hypothesis.extra.numpy as arrays
import numpy as np
import reference
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from layouts import LAYOUTS, assert_only_view_written, like
from reference import FLOATS, GRAD_BAR, LOSS_BAR, SOFTMAX_BAR, assert_result, assert_within

import crossent
import crossent.functional as F

MADE = Counter()
DTYPES = st.sampled_from(FLOATS)
SHAPES = st.one_of(
    arrays.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9),
    st.tuples(st.integers(1, 4), st.integers(1, 140)),
    st.tuples(st.integers(1, 140), st.integers(1, 5)),
    st.tuples(st.just(1), st.sampled_from([255, 257, 4095, 4096, 4097])),
)
# Ordinary numbers, whole ones (which tie), any at all, and those at the ends.
NUMBERS = st.one_of(
    st.floats(-30, 30, width=16),
    st.integers(-3, 3).map(float),
    st.floats(width=32),
    st.sampled_from([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-45, -3e38, 65504.0]),
)
FINITE = st.one_of(st.floats(-60, 60, width=32), st.integers(-3, 3).map(float))
# Below the normal range, a mass times a class weight is coarse.
MASSES = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1, width=32, allow_subnormal=False)
)


@st.composite
def array(draw, shape, numbers, dtypes=DTYPES):
    """Numbers of a type in a layout; and the same, plainly."""
    values = draw(arrays.arrays(np.float64, shape, elements=numbers, fill=numbers))
    with np.errstate(over="ignore"):
        values = values.astype(draw(dtypes))
    return like(draw(st.sampled_from(LAYOUTS)), values)[0], values


def counted(property_):
    @functools.wraps(property_)
    def run(data):
        MADE[property_.__name__] += 1
        property_(data)

    return run


def derived(function, x, *args, **options):
    """Loss and gradient: in a new array, in a given one, or in place."""
    way, layout = options.pop("way"), options.pop("layout")
    if way == "in place":
        return function(x, *args, grad_out=x, **options)
    if way == "given":
        out, base = layout(x.shape, x.dtype.newbyteorder("="))
        got = function(x, *args, grad_out=out, **options)
        assert_only_view_written(layout, out, base)
        return got
    return function(x, *args, return_grad=True, **options)


WAYS = st.sampled_from(["new", "given", "in place"])


@counted
def cross_entropy(data):
    shape = data.draw(SHAPES)
    axis = data.draw(st.integers(0, len(shape) - 1))
    x, values = data.draw(array(shape, NUMBERS))
    rows, classes = shape[:axis] + shape[axis + 1 :], shape[axis]
    options = {"axis": axis, "reduction": data.draw(st.sampled_from(["none", "mean", "sum"]))}
    if data.draw(st.booleans()):
        options["label_smoothing"] = data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    if data.draw(st.booleans()):
        weight = data.draw(arrays.arrays(np.float32, classes, elements=st.floats(0, 8, width=32)))
        options["weight"] = weight
    if data.draw(st.booleans()):
        target, t = data.draw(array(shape, MASSES))
    else:
        t = data.draw(arrays.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
        dead = data.draw(arrays.arrays(bool, rows))
        t = np.where(dead, -100, t)
        target = like(data.draw(st.sampled_from(LAYOUTS)), t)[0]
    want = reference.cross_entropy(values, t, **options)
    # No mass at all on a row that is no distribution: nobody says whether 0 or NaN.
    undefined = np.isnan(reference.softmax(values, axis)).any(axis)
    if target.dtype.kind == "i":
        mass = np.ones(rows) if "weight" not in options else options["weight"][np.maximum(t, 0)]
    else:
        weights = np.asarray(options.get("weight", 1)).reshape([-1] + [1] * (len(shape) - 1 - axis))
        smoothing = options.get("label_smoothing", 0)
        mass = np.max((t.astype(float) * (1 - smoothing) + smoothing) * weights, axis=axis)
    assume(not np.any(undefined & (mass == 0)))
    way, layout = data.draw(WAYS), data.draw(st.sampled_from(LAYOUTS))
    got = derived(F.cross_entropy, x, target, way=way, layout=layout, **options)
    assert_result(got, want)


@counted
def distributions(data):
    shape = data.draw(SHAPES)
    axis = data.draw(st.integers(0, len(shape) - 1))
    x, values = data.draw(array(shape, NUMBERS))
    bar = SOFTMAX_BAR[values.dtype.name]
    with np.errstate(invalid="ignore"):
        assert_within(F.softmax(x, axis), reference.softmax(values, axis), bar)
        assert_within(F.log_softmax(x, axis), reference.log_softmax(values, axis), bar)
    if np.isfinite(values.astype(float)).all():
        size = np.max(np.abs(values.astype(float)), axis=axis)
        assert_within(F.logsumexp(x, axis), reference.logsumexp(values, axis), 4, size)


@counted
def losses_of_elements(data):
    shape = data.draw(SHAPES)
    x, values = data.draw(array(shape, FINITE))
    target, t = data.draw(array(shape, MASSES))
    kind = data.draw(st.sampled_from(["with logits", "soft margin", "focal", "probabilities"]))
    options = {"reduction": "none", "way": data.draw(WAYS)}
    options["layout"] = data.draw(st.sampled_from(LAYOUTS))
    if kind == "with logits":
        got = derived(F.binary_cross_entropy_with_logits, x, target, **options)
        want = elements.bce_with_logits(values, t)
    elif kind == "soft margin":
        got = derived(F.soft_margin_loss, x, target, **options)
        want = elements.soft_margin(values, t)
    elif kind == "focal":
        gamma = data.draw(st.sampled_from([0.0, 1.0, 2.0, 2.5]))
        got = derived(F.sigmoid_focal_loss, x, target, gamma=gamma, **options)
        want = elements.focal(values, t, gamma=gamma)
        assert_within(got[0], want.loss, 5)
        bar = max(GRAD_BAR[got[1].dtype.name], 10 if got[1].dtype.itemsize > 2 else 0)
        assert_within(got[1], want.grad, bar, want.scale)
        return
    else:
        x, values = data.draw(array(shape, MASSES))
        got = derived(F.binary_cross_entropy, x, target, **options)
        want = elements.bce(values, t)
    assert_within(got[0], want.loss, LOSS_BAR[got[0].dtype.name], what=kind)
    assert_within(got[1], want.grad, GRAD_BAR[got[1].dtype.name], want.scale, kind)


PROPERTIES = [cross_entropy, distributions, losses_of_elements]


def main():
    seconds = float(sys.argv[1])
    folder = sys.argv[2] if len(sys.argv) > 2 else "build/fuzz-python"
    profile = settings(
        max_examples=50,
        deadline=None,
        database=DirectoryBasedExampleDatabase(folder),
        suppress_health_check=list(HealthCheck),
    )
    start = time.monotonic()
    try:
        while time.monotonic() < start + seconds:
            for property_ in PROPERTIES:
                profile(given(st.data())(property_))()
    finally:
        spent = time.monotonic() - start
        made = ", ".join(f"{count} of {name}" for name, count in MADE.items())
        print(f"{sum(MADE.values())} calls in {spent:.0f} s at {crossent.simd_level()}: {made}")


if __name__ == "__main__":
    main()
