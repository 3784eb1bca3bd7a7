"""Calls at random for as long as one likes, against the references in long double.

usage: python fuzz.py SECONDS [DATABASE], or python fuzz.py --examples COUNT

Hypothesis draws the calls and, of one that fails, finds the smallest; it is kept in the database
and comes first in the next run. With a count, calls are the same in every run. Prints how many were
made of each kind.
"""

import functools
import sys
import time
from collections import Counter

import elements
import hypothesis.extra.numpy as arrays
import numpy as np
import options as with_options
import reference
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from layouts import LAYOUTS, assert_only_view_written, like
from reference import (
    FLOATS,
    GRAD_BAR,
    INTEGERS,
    LOSS_BAR,
    SOFTMAX_BAR,
    assert_result,
    assert_within,
)

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
def rows_of_classes(draw):
    """A shape, its class axis, the shape of its rows, and how many classes there are."""
    shape = draw(SHAPES)
    axis = draw(st.integers(0, len(shape) - 1))
    return shape, axis, shape[:axis] + shape[axis + 1 :], shape[axis]


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
    shape, axis, rows, classes = data.draw(rows_of_classes())
    x, values = data.draw(array(shape, NUMBERS))
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
    shape, axis, _, _ = data.draw(rows_of_classes())
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
    else:
        x, values = data.draw(array(shape, MASSES))
        got = derived(F.binary_cross_entropy, x, target, **options)
        want = elements.bce(values, t)
    assert_within(got[0], want.loss, LOSS_BAR[got[0].dtype.name], what=kind)
    assert_within(got[1], want.grad, GRAD_BAR[got[1].dtype.name], want.scale, kind)


# What long double loses of a difference of numbers of this size.
LOST = np.longdouble(2) ** -58


def near(got, want, bar, slack, what):
    """Asserts that numbers are within so many ulp, and what the reference may be off by."""
    got, want = np.asarray(got), np.asarray(want, np.longdouble)
    same = (np.isnan(got.astype(float)) & np.isnan(want)) | (got.astype(float) == want)
    with np.errstate(invalid="ignore", over="ignore"):
        away = np.abs(got.astype(np.longdouble) - want)
        ulp = reference.ulp(np.where(np.isfinite(want), want, 0), got.dtype)
    wrong = ~same & ~(away <= bar * ulp + slack)
    assert not wrong.any(), f"{what}: got {got[wrong][:3]}, want {want[wrong][:3]}"


def rows_last(values, axis):
    return np.moveaxis(np.asarray(values).astype(np.longdouble), axis, -1)


def bars(dtype):
    loss = LOSS_BAR["float64" if dtype == np.float64 else "float32"]
    return loss, GRAD_BAR[np.dtype(dtype).name]


@st.composite
def warp(draw, shape, needed):
    """Options of logits; every class that is needed exists."""
    chosen = {}
    if draw(st.booleans()):
        chosen["temperature"] = draw(st.sampled_from([0.5, 2.0, 1.3]))
    if draw(st.booleans()):
        chosen["softcap"] = draw(st.sampled_from([3.0, 30.0]))
    if draw(st.booleans()):
        chosen["class_mask"] = draw(arrays.arrays(bool, shape)) | needed
    return chosen


def lost(values, options):
    """What a difference of logits may be off by: what long double loses of it, and of float64
    logits that an option makes others, an ulp or three of theirs."""
    size = 1 + 2 * np.max(np.abs(values.astype(float)))
    made = values.dtype == np.float64 and not {"temperature", "softcap"}.isdisjoint(options)
    return size * (8 * LOST + (6 * np.finfo(np.float64).eps if made else 0))


@st.composite
def classes_of(draw, rows, count):
    """Class indices, of any integer type that holds them."""
    dtype = draw(st.sampled_from([kind for kind in INTEGERS if count - 1 <= np.iinfo(kind).max]))
    return draw(arrays.arrays(dtype, rows, elements=st.integers(0, count - 1)))


@counted
def cross_entropy_with_options(data):
    shape, axis, rows, count = data.draw(rows_of_classes())
    x, values = data.draw(array(shape, FINITE))
    t = data.draw(classes_of(rows, count))
    target = like(data.draw(st.sampled_from(LAYOUTS)), t)[0]
    needed = np.moveaxis(t[..., None] == np.arange(count), -1, axis)
    options = {"axis": axis, **data.draw(warp(shape, needed))}
    options["reduction"] = data.draw(st.sampled_from(["none", "mean", "sum"]))
    weights = st.floats(0.125, 8, width=32)
    if data.draw(st.booleans()):
        options["weight"] = data.draw(arrays.arrays(np.float32, count, elements=weights))
    if data.draw(st.booleans()):
        options["z_loss"] = data.draw(st.sampled_from([1e-3, 0.5]))
    if data.draw(st.booleans()):
        some = st.one_of(st.just(0.0), weights)
        options["sample_weight"] = data.draw(arrays.arrays(np.float32, rows, elements=some))
    if options["reduction"] == "mean" and data.draw(st.booleans()):
        options["denominator"] = 3.0
    if options["reduction"] == "mean" and data.draw(st.booleans()):
        options["empty"] = 0.0
    grad_output = data.draw(st.sampled_from([1.0, -0.5]))
    given = {name: value for name, value in options.items() if name != "weight"}
    if "weight" in options:
        given["weight"] = options["weight"].astype(np.longdouble)
    want = with_options.cross_entropy(values, t, **given, grad_output=grad_output)
    size = 1 + 2 * float(np.max(np.abs(values.astype(float))))
    by_square = 1 + options.get("z_loss", 0) * size
    slack = lost(values, options) * by_square
    for name in ("weight", "sample_weight"):
        slack *= max(1, np.max(options.get(name, 1)))
    most = float(np.max(np.abs(want.grad)))
    loss_bar, grad_bar = bars(values.dtype)
    way, layout = data.draw(WAYS), data.draw(st.sampled_from(LAYOUTS))
    got = derived(F.cross_entropy, x, target, way=way, layout=layout, grad_output=grad_output,
                  **options)  # fmt: skip
    slack_of_all = slack * (1 if np.ndim(want.loss) else t.size)
    near(got[0], want.loss, loss_bar, slack_of_all, "loss")
    # A z-loss may cancel the pull, and smoothing a mass.
    own = np.finfo(np.float64 if values.dtype == np.float64 else np.float32).eps
    near(got[1], want.grad, grad_bar, 8 * LOST * size * by_square + (slack + 4 * own) * most,
         "gradient")  # fmt: skip


@counted
def negative_log_likelihood(data):
    shape, axis, rows, count = data.draw(rows_of_classes())
    x, values = data.draw(array(shape, FINITE))
    t = data.draw(classes_of(rows, count))
    options = {"axis": axis, "reduction": data.draw(st.sampled_from(["none", "mean", "sum"]))}
    if data.draw(st.booleans()):
        elements = st.floats(0.125, 8, width=32)
        options["weight"] = data.draw(arrays.arrays(np.float32, count, elements=elements))
    want = reference.nll_loss(values, t, **options)
    way, layout = data.draw(WAYS), data.draw(st.sampled_from(LAYOUTS))
    got = derived(F.nll_loss, x, t, way=way, layout=layout, **options)
    size = float(np.sum(np.abs(values.astype(float)))) * 8
    loss_bar, grad_bar = bars(values.dtype)
    # Terms of both signs cancel in the sum of rows.
    own = np.finfo(np.asarray(got[0]).dtype).eps if options["reduction"] != "none" else 0
    near(got[0], want.loss, loss_bar, (LOST + own) * size, "loss")
    near(got[1], want.grad, grad_bar, 0, "gradient")


@counted
def information(data):
    shape, axis, _, _ = data.draw(rows_of_classes())
    base = data.draw(st.sampled_from([None, 2, 10]))
    unit = np.log(np.longdouble(base)) if base else np.longdouble(1)
    x, p = data.draw(array(shape, MASSES))
    loss_bar, _ = bars(p.dtype)  # 16-bit losses are float32
    p = rows_last(p, axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(p == 0, 0, np.log(p))
        rest = np.where(p == 1, 0, np.log1p(-p))
        near(F.entropy(x, axis=axis, base=base), -np.sum(p * log, -1) / unit, loss_bar,
             LOST * p.shape[-1], "entropy")  # fmt: skip
        got = np.moveaxis(F.binary_entropy(x, base=base), axis, -1)
        near(got, -(p * log + (1 - p) * rest) / unit, loss_bar, LOST, "binary entropy")
        y, q = data.draw(array(shape, MASSES))
        q = rows_last(q, axis)
        m = (p + q) / 2
        term = np.where(q == 0, np.where(p == 0, 0, np.inf), p * (log - np.log(q)) - p + q)
        kl = np.sum(np.where(p == 0, q, term), -1)
        middle = np.where(m == 0, 0, np.log(m))
        of_q = np.where(q == 0, 0, q * (np.log(q) - middle))
        js = np.sum(np.where(p == 0, 0, p * (log - middle)) + of_q, -1) / 2
    slack = LOST * (1 + np.sum(p + q, -1)) * 200
    near(F.kl_divergence(x, y, axis=axis, base=base), kl / unit, loss_bar, slack, "kl")
    near(F.js_divergence(x, y, axis=axis, base=base), js / unit, loss_bar, slack, "js")


@counted
def information_of_logits(data):
    shape, axis, rows, count = data.draw(rows_of_classes())
    base = data.draw(st.sampled_from([None, 2, 10]))
    unit = np.log(np.longdouble(base)) if base else np.longdouble(1)
    dtypes = st.just(data.draw(DTYPES))
    x, of_x = data.draw(array(shape, FINITE, dtypes))
    y, of_y = data.draw(array(shape, FINITE, dtypes))
    target = data.draw(classes_of(rows, count))
    needed = np.moveaxis(target[..., None] == np.arange(count), -1, axis)
    options = data.draw(warp(shape, needed))
    mask = options.get("class_mask")
    given = {**options, **({} if mask is None else {"class_mask": np.moveaxis(mask, axis, -1)})}
    a, b = (with_options.warped(rows_last(v, axis), **given)[0] for v in (of_x, of_y))
    of_a, of_b = (z - with_options.logsumexp(z) for z in (a, b))
    p, q = np.exp(of_a), np.exp(of_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.where(p == 0, 0, p * of_a)
        u = np.where(p == 0, 0, of_b - of_a)
        middle = np.log((p + q) / 2)
        sides = [np.where(v == 0, 0, v * (of - middle)) for v, of in ((p, of_a), (q, of_b))]
    slack = lost(np.array([of_x, of_y]), options)
    bar, _ = bars(of_x.dtype)
    plain = {"axis": axis, **options}
    measured = {**plain, "base": base}
    near(F.entropy_with_logits(x, **measured), -np.sum(gaps, -1) / unit, bar, slack, "entropy")
    kl = F.kl_divergence_with_logits(x, y, **measured)
    near(kl, -np.sum(p * u, -1) / unit, bar, slack, "kl")
    js = F.js_divergence_with_logits(x, y, **measured)
    near(js, np.sum(sides[0] + sides[1], -1) / 2 / unit, bar, slack, "js")
    tokens = F.token_log_prob(x, target, **plain)
    at = np.take_along_axis(of_a, target[..., None].astype(np.int64), -1)[..., 0]
    near(tokens.log_prob, at, bar, slack, "log-probability")
    near(tokens.entropy, -np.sum(gaps, -1), bar, slack, "entropy of tokens")
    slack += np.finfo(tokens.logsumexp.dtype).eps * (1 + np.max(np.abs(of_x.astype(float)))) * 8
    near(tokens.logsumexp, with_options.logsumexp(a)[..., 0], 4, slack, "log-sum-exp")


@counted
def more_of_elements(data):
    shape = data.draw(SHAPES)
    x, values = data.draw(array(shape, FINITE))
    wide = values.astype(np.longdouble)
    loss_bar, grad_bar = bars(values.dtype)
    bar = max(3, grad_bar)
    near(F.sigmoid(x), elements.sigmoid(wide), bar, 0, "sigmoid")
    near(F.logsigmoid(x), elements.logsigmoid(wide), bar, 0, "logsigmoid")
    target, t = data.draw(array(shape, MASSES))
    way, layout = data.draw(WAYS), data.draw(st.sampled_from(LAYOUTS))
    got = derived(F.multilabel_soft_margin_loss, x, target, reduction="none", way=way,
                  layout=layout)  # fmt: skip
    want = elements.bce_with_logits(values, t)
    bar = loss_bar if shape[-1] <= 64 else 3.5
    near(got[0], np.mean(np.asarray(want.loss), -1), bar, LOST, "multi-label")
    x, values = data.draw(array(shape, FINITE))
    way, layout = data.draw(WAYS), data.draw(st.sampled_from(LAYOUTS))
    base = data.draw(st.sampled_from([None, 2, 10]))
    loss, grad = derived(F.kl_div, x, target, "none", base=base, way=way, layout=layout)
    p = t.astype(np.longdouble)
    unit = np.log(np.longdouble(base)) if base else 1
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p == 0, 0, p * np.log(p)), p * values.astype(np.longdouble)
    own = np.finfo(loss.dtype).eps
    scale = np.maximum(*map(np.abs, parts))
    near(loss, (parts[0] - parts[1]) / unit, 0.5, own * 3 * scale / unit, "kl_div")
    near(grad, -p / unit, bars(grad.dtype)[1], 0, "kl_div gradient")


@counted
def refused(data):
    """What is out of range is refused, and nothing is written."""
    shape, axis, rows, count = data.draw(rows_of_classes())
    x, _ = data.draw(array(shape, MASSES))
    out = np.full_like(x, 7)
    name = data.draw(st.sampled_from(["cross_entropy", "nll_loss", "entropy"]))
    if name == "entropy":
        at = data.draw(st.integers(0, x.size - 1))
        x[np.unravel_index(at, shape)] = -1
        call = functools.partial(F.entropy, x, axis=axis, grad_out=out)
        error = ValueError
    else:
        dtype = data.draw(
            st.sampled_from([kind for kind in INTEGERS if np.iinfo(kind).max > count])
        )
        t = np.zeros(rows, dtype)
        at = data.draw(st.integers(0, t.size - 1))
        t[np.unravel_index(at, rows)] = data.draw(st.integers(count, int(np.iinfo(dtype).max)))
        call = functools.partial(getattr(F, name), x, t, axis=axis, grad_out=out)
        error = IndexError
    before = x.copy()
    try:
        call()
    except error:
        pass
    else:
        raise AssertionError(f"{name} accepted it")
    assert np.array_equal(x, before)
    assert np.all(out == 7)


PROPERTIES = [
    cross_entropy,
    cross_entropy_with_options,
    negative_log_likelihood,
    distributions,
    losses_of_elements,
    more_of_elements,
    information,
    information_of_logits,
    refused,
]


def main():
    if sys.argv[1] == "--examples":
        profile = settings(max_examples=int(sys.argv[2]), deadline=None, derandomize=True,
                           database=None, suppress_health_check=list(HealthCheck))  # fmt: skip
        for property_ in PROPERTIES:
            profile(given(st.data())(property_))()
        print(sum(MADE.values()), crossent.simd_level())
        return
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
