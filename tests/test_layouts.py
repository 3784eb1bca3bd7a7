"""Every layout of every argument, against the reference and against the contiguous result."""

import numpy as np
import pytest
import reference
import scipy.special
from layouts import LAYOUTS, assert_only_view_written, like
from reference import FLOATS, assert_result, assert_within, native

import crossent.functional as F

SHAPES = [(4, 7), (3, 150), (2, 5, 3, 4)]
INTEGERS = [np.dtype(code) for code in "bBhHiIlLqQ"]
EVERY_FLOAT = pytest.mark.parametrize("dtype", FLOATS, ids=str)
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(rng, shape, dtype, axis=None):
    """Logits and class indices, two of them ignored."""
    axis = reference.class_axis(len(shape), axis)
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    rest = shape[:axis] + shape[axis + 1 :]
    y = np.asarray(rng.integers(0, shape[axis], rest))
    if y.size > 2:
        y.flat[1] = y.flat[y.size - 1] = -100
    return x, y


def draw_probabilities(rng, shape, dtype):
    return scipy.special.softmax(rng.standard_normal(shape), axis=1).astype(dtype)


def same_numbers(got, want):
    """The results for two layouts agree: another traversal may add in another order."""
    for a, b in zip(got, want, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert native(a.dtype) == native(b.dtype)
        assert a.shape == b.shape
        eps = float(reference.ulp(1, b.dtype))
        largest = np.max(np.abs(b.astype(np.float64)), initial=0)
        np.testing.assert_allclose(
            a.astype(np.float64), b.astype(np.float64), rtol=12 * eps, atol=12 * eps * largest
        )


def everything(x, target, **options):
    return F.cross_entropy(x, target, return_grad=True, return_hess=True, **options)


@EVERY_FLOAT
@EVERY_LAYOUT
@EVERY_SHAPE
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_input(layout, dtype, shape, kind, rng):
    values, y = draw(rng, shape, dtype)
    x, base = like(layout, values)
    before = base.tobytes()
    target = y if kind == "index" else draw_probabilities(rng, shape, dtype)
    for options in ({}, {"reduction": "none", "label_smoothing": 0.1}):
        got = everything(x, target, **options)
        assert native(got[1].dtype) == dtype
        assert got[1].shape == shape
        assert_result(got, reference.cross_entropy(values, target, **options))
        same_numbers(got, everything(values, target, **options))
    if kind == "index":
        got = F.nll_loss(x, target, return_grad=True)
        want = reference.nll_loss(values, target)
        assert_within(np.asarray(got[0]), want.loss, 10)
        assert_within(got[1], want.grad, 2)
        same_numbers(got, F.nll_loss(values, target, return_grad=True))
    assert base.tobytes() == before


@EVERY_FLOAT
@EVERY_LAYOUT
@EVERY_SHAPE
def test_probabilities(layout, dtype, shape, rng):
    x, _ = draw(rng, shape, dtype)
    values = draw_probabilities(rng, shape, dtype)
    q, base = like(layout, values)
    before = base.tobytes()
    for options in ({}, {"reduction": "none", "label_smoothing": 0.1}):
        got = everything(x, q, **options)
        assert_result(got, reference.cross_entropy(x, values, **options))
        same_numbers(got, everything(x, values, **options))
    laid_out, _ = like(layout, x)
    assert_result(everything(laid_out, q), reference.cross_entropy(x, values))
    assert base.tobytes() == before


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(9, 7), (3, 5, 4, 6)], ids=str)
def test_index_targets(layout, dtype, shape, rng):
    x, y = draw(rng, shape, np.dtype(np.float32))
    values = np.where(y < 0, 4, y).astype(dtype)
    y, base = like(layout, values)
    before = base.tobytes()
    for options in (
        {"reduction": "none"},
        {"ignore_index": 4},
        {"weight": np.ones(shape[1], "f4")},
    ):
        got = everything(x, y, **options)
        assert_result(got, reference.cross_entropy(x, values, **options))
        same_numbers(got, everything(x, values.astype(np.int64), **options))
        options = {**options, "reduction": "none"}
        got = F.nll_loss(x, y, return_grad=True, **options)
        want = reference.nll_loss(x, values, **options)
        assert_within(got[0], want.loss, 2)
        assert_within(got[1], want.grad, 2)
    assert base.tobytes() == before


def test_ignored_index_of_each_integer_type(rng):
    """-100 in the signed types; 255, as segmentation has it, in uint8."""
    x = rng.standard_normal((4, 3)).astype(np.float32)
    for dtype in INTEGERS:
        ignore_index = -100 if dtype.kind == "i" else 255 if dtype.itemsize == 1 else 40000
        y = np.array([0, ignore_index, 2, 1]).astype(dtype)
        got = F.cross_entropy(x, y, ignore_index=ignore_index, return_grad=True)
        want = reference.cross_entropy(x[[0, 2, 3]], np.array([0, 2, 1]))
        assert_within(np.asarray(got[0]), want.loss, 2)
        assert_within(got[1][[0, 2, 3]], want.grad, 6)
        assert np.all(got[1][1] == 0)


@EVERY_FLOAT
@EVERY_LAYOUT
@EVERY_SHAPE
def test_grad_out_and_hess_out(layout, dtype, shape, rng):
    x, y = draw(rng, shape, dtype)
    want = reference.cross_entropy(x, y)
    grad, grad_base = layout(shape, dtype)
    hess, hess_base = layout(shape, dtype)
    got = F.cross_entropy(x, y, grad_out=grad, hess_out=hess)
    assert len(got) == 3
    assert got[1] is grad
    assert got[2] is hess
    assert_result(got, want)
    same_numbers(got, everything(x, y))
    assert_only_view_written(layout, grad, grad_base)
    assert_only_view_written(layout, hess, hess_base)
    grad, grad_base = layout(shape, dtype)
    got = F.nll_loss(x, y, grad_out=grad)
    assert len(got) == 2
    assert got[1] is grad
    assert_within(grad, reference.nll_loss(x, y).grad, 2)
    assert_only_view_written(layout, grad, grad_base)


@EVERY_FLOAT
@EVERY_LAYOUT
@EVERY_SHAPE
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_gradient_in_place(layout, dtype, shape, kind, rng):
    values, y = draw(rng, shape, dtype)
    target = y if kind == "index" else draw_probabilities(rng, shape, dtype)
    want = reference.cross_entropy(values, target)
    x, base = like(layout, values)
    got = F.cross_entropy(x, target, grad_out=x)
    assert got[1] is x
    assert_result(got, want)
    same_numbers(got, F.cross_entropy(values, target, return_grad=True))
    assert_only_view_written(layout, x, base)
    x, base = like(layout, values)
    got = F.cross_entropy(x, target, grad_out=x, return_hess=True)
    assert_result(got, want)
    assert_only_view_written(layout, x, base)
    if kind == "index":
        x, base = like(layout, values)
        got = F.nll_loss(x, y, grad_out=x)
        assert got[1] is x
        assert_within(x, reference.nll_loss(values, y).grad, 2)
        assert_only_view_written(layout, x, base)


@EVERY_FLOAT
@EVERY_LAYOUT
def test_hessian_in_place(layout, dtype, rng):
    values, y = draw(rng, (4, 7), dtype)
    x, base = like(layout, values)
    got = F.cross_entropy(x, y, return_grad=True, hess_out=x)
    assert got[2] is x
    assert_result(got, reference.cross_entropy(values, y))
    assert_only_view_written(layout, x, base)


@EVERY_LAYOUT
@EVERY_SHAPE
def test_input_and_grad_out_in_different_layouts(layout, shape, rng):
    values, y = draw(rng, shape, np.dtype(np.float32))
    want = reference.cross_entropy(values, y)
    x, _ = like(layout, values)
    for other in LAYOUTS:
        grad, base = other(shape, values.dtype)
        assert_result(F.cross_entropy(x, y, grad_out=grad), want)
        assert_only_view_written(other, grad, base)


@EVERY_LAYOUT
@EVERY_SHAPE
def test_upstream_gradient_and_weight(layout, shape, rng):
    x, y = draw(rng, shape, np.dtype(np.float64))
    upstream = rng.standard_normal(y.shape)
    weights = rng.uniform(0.5, 2, shape[1])
    options = {"reduction": "none", "weight": weights, "grad_output": upstream}
    want = reference.cross_entropy(x, y, **options)
    options["grad_output"], _ = like(layout, upstream)
    options["weight"], _ = like(layout, weights)
    assert_result(everything(x, y, **options), want)
    options["grad_output"] = np.broadcast_to(np.float64(0.5), y.shape)
    options["weight"] = np.broadcast_to(np.float64(2), shape[1])
    assert_result(everything(x, y, **options), reference.cross_entropy(x, y, **options))


ALL_AXES = [
    (shape, axis)
    for shape in [(9,), (9, 5), (3, 9, 4), (2, 9, 4, 5), (3, 2, 2, 9, 2)]
    for axis in range(-len(shape), len(shape))
]


@EVERY_FLOAT
@pytest.mark.parametrize("shape, axis", ALL_AXES, ids=str)
def test_class_axis(shape, axis, dtype, rng):
    x, y = draw(rng, shape, dtype, axis)
    q = scipy.special.softmax(rng.standard_normal(shape), axis=axis).astype(dtype)
    for layout in LAYOUTS:
        view, _ = like(layout, x)
        for reduction in ("mean", "none"):
            options = {"axis": axis, "reduction": reduction}
            assert_result(everything(view, y, **options), reference.cross_entropy(x, y, **options))
        assert_result(everything(view, q, axis=axis), reference.cross_entropy(x, q, axis=axis))
        got = F.nll_loss(view, y, axis=axis, return_grad=True, reduction="none")
        want = reference.nll_loss(x, y, axis=axis, reduction="none")
        assert_within(np.asarray(got[0]), want.loss, 2)
        assert_within(got[1], want.grad, 2)


@EVERY_FLOAT
@EVERY_LAYOUT
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax(layout, dtype, axis, rng):
    values = (rng.standard_normal((4, 21, 5)) * 4).astype(dtype)
    x, _ = like(layout, values)
    for name in ("softmax", "log_softmax"):
        function, want = getattr(F, name), getattr(reference, name)(values, axis)
        bar = reference.SOFTMAX_BAR[dtype.name]
        got = function(x, axis)
        assert native(got.dtype) == dtype
        assert_within(got, want, bar)
        out, base = layout(values.shape, dtype)
        assert function(values, axis, out=out) is out
        assert_within(out, want, bar)
        assert_only_view_written(layout, out, base)
        inplace, base = like(layout, values)
        assert function(inplace, axis, out=inplace) is inplace
        assert_within(inplace, want, bar)
        assert_only_view_written(layout, inplace, base)
    want = reference.logsumexp(values, axis)
    assert_within(F.logsumexp(x, axis), want, 4, scale=1)


@EVERY_FLOAT
@pytest.mark.parametrize("shape", [(6, 11), (3, 4, 5, 6)], ids=str)
def test_broadcast_input(dtype, shape, rng):
    """0-stride input, along each axis and along all of them."""
    for axis in (*range(len(shape)), None):
        small = tuple(1 if axis in (i, None) else n for i, n in enumerate(shape))
        x = np.broadcast_to((rng.standard_normal(small) * 3).astype(dtype), shape)
        _, y = draw(rng, shape, dtype)
        assert_result(everything(x, y), reference.cross_entropy(x, y))
        same_numbers(everything(x, y), everything(x.copy(), y))
        q = np.broadcast_to(draw_probabilities(rng, small, dtype), shape)
        assert_result(everything(x, q), reference.cross_entropy(x, q))
        one = np.broadcast_to(np.int64(2), y.shape)
        assert_result(everything(x, one), reference.cross_entropy(x, one))
        assert_within(F.softmax(x, 1), reference.softmax(x, 1), reference.SOFTMAX_BAR[dtype.name])


@EVERY_FLOAT
def test_read_only(dtype, rng):
    x, y = draw(rng, (5, 9), dtype)
    q = draw_probabilities(rng, (5, 9), dtype)
    weight = np.ones(9, dtype)
    for array in (x, y, q, weight):
        array.flags.writeable = False
    assert_result(everything(x, y, weight=weight), reference.cross_entropy(x, y))
    assert_result(everything(x, q, weight=weight), reference.cross_entropy(x, q))


@EVERY_FLOAT
@pytest.mark.parametrize("offset", [0, 3])
def test_memory_maps(dtype, offset, rng, tmp_path):
    """Read-only maps as input and target, a writable one as grad_out and in place."""
    values, y = draw(rng, (40, 30), dtype)

    def mapped(name, array, mode):
        path = tmp_path / name
        path.write_bytes(b"\xff" * offset + array.tobytes())
        return np.memmap(path, array.dtype, mode, offset, array.shape)

    x, target = mapped("x", values, "r"), mapped("y", y, "r")
    want = reference.cross_entropy(values, y)
    assert_result(everything(x, target), want)
    grad = mapped("grad", values, "r+")
    got = F.cross_entropy(x, target, grad_out=grad)
    assert got[1] is grad
    assert_result(got, want)
    want = reference.cross_entropy(np.array(grad), y)
    assert_result(F.cross_entropy(grad, target, grad_out=grad), want)
    grad.flush()
    assert (tmp_path / "grad").read_bytes()[offset:] == grad.tobytes()


def test_lists():
    x, y = [[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]], [2, 0]
    q = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    for target in (y, q, tuple(y)):
        got = everything(x, target, weight=[1.0, 2.0, 0.5], grad_output=2.0)
        assert got[0].dtype == np.float64
        arrays = np.array(x), np.array(target)
        want = reference.cross_entropy(*arrays, weight=np.array([1, 2, 0.5]), grad_output=2.0)
        assert_result(got, want)
    got = F.nll_loss(x, y, return_grad=True)
    assert_within(np.asarray(got[0]), np.longdouble(-1.75), 3)
    assert_within(F.softmax(x, 1), reference.softmax(np.array(x), 1), 8)
    exported = memoryview(np.array(x)), memoryview(np.array(y))
    want = reference.cross_entropy(np.array(x), np.array(y))
    assert_result(everything(*exported), want)
    assert_result(
        everything(x[0], 2, reduction="sum"), reference.cross_entropy(np.array(x[0]), np.array(2))
    )


@EVERY_FLOAT
def test_types_of_results(dtype, rng):
    """Scalars are NumPy scalars; 16-bit input has a float32 loss and a gradient of its own type."""
    x, y = draw(rng, (4, 3), dtype)
    scalar = reference.loss_type(dtype).type
    for target in (y, draw_probabilities(rng, (4, 3), dtype)):
        for reduction in ("mean", "sum"):
            assert type(F.cross_entropy(x, target, reduction=reduction)) is scalar
        loss = F.cross_entropy(x, target, reduction="none")
        assert type(loss) is np.ndarray
        assert loss.shape == (4,)
        assert loss.dtype == scalar
        assert_within(loss, reference.cross_entropy(x, target, reduction="none").loss, 3)
        assert type(F.cross_entropy(x[0], target[0], reduction="none")) is scalar
        loss, grad = F.cross_entropy(x, target, return_grad=True)
        assert type(loss) is scalar
        assert type(grad) is np.ndarray
        assert grad.dtype == dtype
        loss, hess = F.cross_entropy(x, target, return_hess=True)
        assert type(loss) is scalar
        assert hess.dtype == dtype
    assert type(F.nll_loss(x, y)) is scalar
    assert type(F.nll_loss(x[0], y[0], reduction="none")) is scalar
    loss, grad = F.nll_loss(x, y, return_grad=True)
    assert type(loss) is scalar
    assert grad.dtype == dtype
    assert F.softmax(x, 1).dtype == F.log_softmax(x, 1).dtype == dtype


@EVERY_FLOAT
@EVERY_LAYOUT
@pytest.mark.parametrize(
    "shape, axis",
    [((301, 203), 1), ((203, 301), 0), ((2, 40, 37, 41), 1), ((3, 5003), 1), ((2000, 3), 1)],
    ids=str,
)
def test_many_blocks(layout, dtype, shape, axis, rng):
    """Large enough that kernels work block by block, with blocks left over at both ends."""
    values, classes = draw(rng, shape, dtype, axis)
    x, base = like(layout, values)
    y, _ = like(layout, classes)
    want = reference.cross_entropy(values, classes, axis=axis, reduction="none")
    got = everything(x, y, axis=axis, reduction="none")
    assert_result(got, want)
    q, _ = like(layout, np.repeat(values[:1], shape[0], 0).clip(0, 1))
    soft = reference.cross_entropy(values, np.array(q), axis=axis, reduction="none")
    assert_result(everything(x, q, axis=axis, reduction="none"), soft)
    assert_result(F.cross_entropy(x, y, axis=axis, reduction="none", grad_out=x), want)
    assert_only_view_written(layout, x, base)


@EVERY_FLOAT
@EVERY_LAYOUT
def test_every_number_of_classes(layout, dtype, rng):
    """Rows whose classes lie side by side: every tail of a vector."""
    for classes in range(1, 131):
        values, y = draw(rng, (3, classes), dtype)
        x, _ = like(layout, values)
        assert_result(everything(x, y, reduction="none"), exact_rows(values, y))


def exact_rows(x, y, **options):
    return reference.cross_entropy(x, y, reduction="none", **options)


@EVERY_FLOAT
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 10, 33])
def test_every_number_of_rows(dtype, classes, rng):
    """Few classes side by side, in many rows."""
    for count in range(1, 131):
        x, y = draw(rng, (count, classes), dtype)
        assert_result(everything(x, y, reduction="none"), exact_rows(x, y))
        inplace = x.copy()
        got = F.cross_entropy(inplace, y, reduction="none", grad_out=inplace)
        assert_result(got, exact_rows(x, y))


@EVERY_FLOAT
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 10, 33])
def test_every_number_of_rows_with_classes_first(dtype, classes, rng):
    """The class axis first: rows lie side by side."""
    for count in range(1, 131):
        x, y = draw(rng, (classes, count), dtype, 0)
        want = exact_rows(x, y, axis=0)
        assert_result(everything(x, y, reduction="none", axis=0), want)
        inplace = x.copy()
        got = F.cross_entropy(inplace, y, reduction="none", axis=0, grad_out=inplace)
        assert_result(got, want)


@EVERY_FLOAT
def test_every_number_of_classes_with_classes_first(dtype, rng):
    for classes in range(1, 131):
        x, y = draw(rng, (classes, 19), dtype, 0)
        assert_result(everything(x, y, reduction="none", axis=0), exact_rows(x, y, axis=0))


@EVERY_FLOAT
def test_every_width_of_an_image(dtype, rng):
    for width in range(1, 131):
        x, y = draw(rng, (2, 5, 2, width), dtype)
        assert_result(everything(x, y, reduction="none"), exact_rows(x, y))
