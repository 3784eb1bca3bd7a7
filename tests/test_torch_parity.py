"""Values and gradients against torch, in float64, over every combination of options."""

import itertools

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as TF

import crossent
import crossent.functional as F

SHAPES = [(5,), (6, 4), (3, 5, 4), (2, 3, 4, 5), (2, 4, 3, 2, 3)]
REDUCTIONS = ["mean", "sum", "none"]
RTOL = 1e-12
ATOL = 1e-14


def index_shape(shape):
    return shape[:1][1:] if len(shape) == 1 else shape[:1] + shape[2:]


def classes_of(shape):
    return shape[0] if len(shape) == 1 else shape[1]


def close(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=RTOL, atol=ATOL)


def both(name, x, target, upstream=None, **options):
    """((loss, grad) of crossent, (loss, grad) of torch)."""
    wide = torch.tensor(x, requires_grad=True)
    tensors = dict(options)
    if options.get("weight") is not None:
        tensors["weight"] = torch.tensor(options["weight"])
    loss = getattr(TF, name)(wide, torch.tensor(target), **tensors)
    loss.backward(torch.ones_like(loss) if upstream is None else torch.tensor(upstream))
    got = getattr(F, name)(x, target, return_grad=True, grad_output=upstream, **options)
    return got, (loss.detach().numpy(), wide.grad.numpy())


def indices(rng, shape, ignore_index):
    """Random classes, some of them ignored. An ignore_index among the classes occurs as well."""
    target = rng.integers(0, classes_of(shape), index_shape(shape))
    if target.size > 1 and ignore_index is not None:
        target.flat[:: max(target.size // 3, 2)] = ignore_index
    return target


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [-100, 1, 255, -1])
def test_cross_entropy_of_indices(shape, reduction, weighted, smoothing, ignore_index, rng):
    x = rng.standard_normal(shape) * 3
    target = indices(rng, shape, ignore_index)
    options = {
        "weight": rng.uniform(0.2, 2, classes_of(shape)) if weighted else None,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": smoothing,
    }
    loss_shape = target.shape if reduction == "none" else ()
    for upstream in (None, rng.standard_normal(loss_shape)):
        got, want = both("cross_entropy", x, target, upstream, **options)
        close(got[0], want[0])
        close(got[1], want[1])
    close(F.cross_entropy(x, target, **options), want[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["probabilities", "positive", "any sign", "one-hot", "zeros"])
def test_cross_entropy_of_probabilities(shape, reduction, weighted, smoothing, kind, rng):
    axis = 0 if len(shape) == 1 else 1
    x = rng.standard_normal(shape) * 3
    target = {
        "probabilities": scipy.special.softmax(rng.standard_normal(shape), axis),
        "positive": rng.uniform(0, 5, shape),
        "any sign": rng.standard_normal(shape),
        "one-hot": (np.argsort(rng.standard_normal(shape), axis) == 0).astype(np.float64),
        "zeros": np.zeros(shape),
    }[kind]
    options = {
        "weight": rng.uniform(0.2, 2, classes_of(shape)) if weighted else None,
        "reduction": reduction,
        "label_smoothing": smoothing,
    }
    loss_shape = index_shape(shape) if reduction == "none" else ()
    for upstream in (None, rng.standard_normal(loss_shape)):
        got, want = both("cross_entropy", x, target, upstream, **options)
        close(got[0], want[0])
        close(got[1], want[1])
    close(F.cross_entropy(x, target, **options), want[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("ignore_index", [-100, 1, 255, -1])
def test_nll_loss(shape, reduction, weighted, ignore_index, rng):
    x = scipy.special.log_softmax(rng.standard_normal(shape), 0 if len(shape) == 1 else 1)
    target = indices(rng, shape, ignore_index)
    options = {
        "weight": rng.uniform(0.2, 2, classes_of(shape)) if weighted else None,
        "ignore_index": ignore_index,
        "reduction": reduction,
    }
    loss_shape = target.shape if reduction == "none" else ()
    for upstream in (None, rng.standard_normal(loss_shape)):
        got, want = both("nll_loss", x, target, upstream, **options)
        close(got[0], want[0])
        close(got[1], want[1])
    close(F.nll_loss(x, target, **options), want[0])


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize(
    "shape", [(0, 4), (0, 1), (0, 0), (2, 4, 0), (0, 3, 5), (2, 3, 4, 0)], ids=str
)
def test_empty_batch(name, reduction, weighted, shape):
    x = np.zeros(shape)
    target = np.zeros(index_shape(shape), np.int64)
    weight = np.ones(classes_of(shape)) if weighted else None
    got, want = both(name, x, target, weight=weight, reduction=reduction)
    close(got[0], want[0])
    close(got[1], want[1])
    if reduction == "mean":
        assert np.isnan(got[0])
    elif reduction == "sum":
        assert got[0] == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0, 4), (2, 4, 0), (0, 3, 5)], ids=str)
def test_empty_batch_of_probabilities(reduction, shape):
    got, want = both("cross_entropy", np.zeros(shape), np.zeros(shape), reduction=reduction)
    close(got[0], want[0])
    close(got[1], want[1])


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_classes(name, reduction):
    """Rows without classes may be ignored; a live one has no class to name."""
    x = np.zeros((3, 0))
    loss, grad = getattr(F, name)(x, np.full(3, -100), reduction=reduction, return_grad=True)
    want = {"mean": np.nan, "sum": 0.0, "none": np.zeros(3)}[reduction]
    close(loss, want)
    assert grad.shape == (3, 0)
    with pytest.raises(IndexError, match=r"target\[0\] = 0 is out of range for 0 classes"):
        getattr(F, name)(x, np.zeros(3, np.int64), reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(1,), (5, 1), (3, 1, 4)], ids=str)
def test_one_class(reduction, smoothing, shape, rng):
    x = rng.standard_normal(shape)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for target in (np.zeros(index_shape(shape), np.int64), np.ones(shape)):
        got, want = both("cross_entropy", x, target, **options)
        close(got[0], want[0])
        close(got[1], want[1])
        assert np.all(np.asarray(got[0]) == 0)
        if target.ndim < len(shape):
            assert np.all(got[1] == 0)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_ignored(name, reduction, shape, rng):
    x = rng.standard_normal(shape)
    target = np.full(index_shape(shape), 2)
    got, want = both(name, x, target, ignore_index=2, reduction=reduction)
    close(got[0], want[0])
    assert np.isnan(got[0]) if reduction == "mean" else np.all(np.asarray(got[0]) == 0)
    assert got[1].shape == shape
    assert np.all(got[1] == 0)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_live_rows_without_weight(name, rng):
    """mean divides by the sum of the weights applied: 0 / 0."""
    x, weight = rng.standard_normal((4, 3)), np.array([1.0, 0.0, 1.0])
    got, want = both(name, x, np.ones(4, np.int64), weight=weight)
    assert np.isnan(want[0])
    assert np.isnan(got[0])
    got, want = both(name, x, np.ones(4, np.int64), weight=weight, reduction="sum")
    close(got[0], want[0])
    close(got[1], want[1])


def test_probabilities_refuse_an_ignored_class(rng):
    x, target = rng.standard_normal((3, 4)), np.full((3, 4), 0.25)
    with pytest.raises(RuntimeError, match="ignore_index"):
        TF.cross_entropy(torch.tensor(x), torch.tensor(target), ignore_index=2)
    with pytest.raises(ValueError, match="ignore_index"):
        F.cross_entropy(x, target, ignore_index=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_index": 2},
        {"reduction": "sum"},
        {"reduction": "none", "label_smoothing": 0.2},
        {"weight": [0.5, 1.0, 2.0, 0.25]},
        {"weight": [0.5, 1.0, 2.0, 0.25], "ignore_index": 1, "label_smoothing": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_modules(name, options, rng):
    options = dict(options)
    if name == "NLLLoss":
        options.pop("label_smoothing", None)
    x, target = rng.standard_normal((5, 4, 3)), rng.integers(0, 4, (5, 3))
    weight = options.pop("weight", None)
    ours = getattr(crossent, name)(
        weight=None if weight is None else np.array(weight, np.float64), **options
    )
    theirs = getattr(torch.nn, name)(
        weight=None if weight is None else torch.tensor(weight, dtype=torch.float64), **options
    )
    wide = torch.tensor(x, requires_grad=True)
    loss = theirs(wide, torch.tensor(target))
    upstream = rng.standard_normal(tuple(loss.shape))
    loss.backward(torch.tensor(upstream))
    close(ours(x, target), loss.detach().numpy())
    got = ours(x, target, return_grad=True, grad_output=upstream)
    close(got[0], loss.detach().numpy())
    close(got[1], wide.grad.numpy())
    out = np.empty_like(x)
    got = ours(x, target, grad_output=upstream, grad_out=out)
    assert got[1] is out
    close(out, wide.grad.numpy())


def test_module_hessian(rng):
    """The diagonal of torch's own Hessian."""
    x, target = rng.standard_normal((3, 4)), np.array([0, 3, 1])

    def loss(flat):
        return TF.cross_entropy(flat.reshape(3, 4), torch.tensor(target), label_smoothing=0.1)

    full = torch.autograd.functional.hessian(loss, torch.tensor(x.ravel())).numpy()
    want = np.diag(full).reshape(3, 4)
    module = crossent.CrossEntropyLoss(label_smoothing=0.1)
    close(module(x, target, return_hess=True)[1], want)
    close(module(x, target, return_grad=True, return_hess=True)[2], want)
    out = np.empty_like(x)
    got = module(x, target, hess_out=out)
    assert len(got) == 2
    assert got[1] is out
    close(out, want)


def test_module_axis(rng):
    x, target = rng.standard_normal((5, 3, 4)), rng.integers(0, 4, (5, 3))
    want = TF.cross_entropy(torch.tensor(np.moveaxis(x, -1, 1).copy()), torch.tensor(target))
    close(crossent.CrossEntropyLoss(axis=-1)(x, target), want.numpy())
    picked = -np.take_along_axis(x, target[..., None], -1)
    close(crossent.NLLLoss(axis=-1)(x, target), picked.mean())


ALL_AXES = [
    (shape, axis)
    for shape in [(7,), (3, 5), (2, 3, 4), (2, 3, 4, 5), (3, 1, 4), (2, 3, 2, 3, 2)]
    for axis in range(-len(shape), len(shape))
]


@pytest.mark.parametrize("shape, axis", ALL_AXES, ids=str)
def test_softmax_and_logsumexp_at_every_axis(shape, axis, rng):
    x = rng.standard_normal(shape) * 5
    wide = torch.tensor(x)
    close(F.softmax(x, axis), torch.softmax(wide, axis).numpy())
    close(F.softmax(x, axis), scipy.special.softmax(x, axis))
    close(F.log_softmax(x, axis), torch.log_softmax(wide, axis).numpy())
    close(F.log_softmax(x, axis=axis), scipy.special.log_softmax(x, axis))
    for keepdims in (False, True):
        got = F.logsumexp(x, axis, keepdims)
        close(got, torch.logsumexp(wide, axis, keepdims).numpy())
        close(got, scipy.special.logsumexp(x, axis, keepdims=keepdims))
    for name in ("softmax", "log_softmax"):
        out = np.empty_like(x)
        assert getattr(F, name)(x, axis, out=out) is out
        close(out, getattr(torch, name)(wide, axis).numpy())
        inplace = x.copy()
        assert getattr(F, name)(inplace, axis, out=inplace) is inplace
        close(inplace, out)


def test_logsumexp_of_edges():
    inf, nan = np.inf, np.nan
    rows = np.array(
        [[-inf, -inf], [inf, inf], [inf, 1], [inf, -inf], [nan, inf], [-inf, 2], [0, 0]]
    )
    want = torch.logsumexp(torch.tensor(rows), 1).numpy()
    np.testing.assert_allclose(F.logsumexp(rows, 1), want, rtol=RTOL)


@pytest.mark.parametrize("shape, axis", [((3, 0), 1), ((0, 3), 1), ((0, 3), 0), ((0,), 0)], ids=str)
def test_softmax_and_logsumexp_of_nothing(shape, axis):
    x = np.zeros(shape)
    close(F.logsumexp(x, axis), torch.logsumexp(torch.tensor(x), axis).numpy())
    close(F.softmax(x, axis), x)
    close(F.log_softmax(x, axis), x)


def test_options_by_position(rng):
    x, target = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    target[2] = 3
    weight = rng.uniform(0.5, 2, 4)
    for options in itertools.product([None, weight], [-100, 3], REDUCTIONS, [0.0, 0.2]):
        w, ignore_index, reduction, smoothing = options
        got = F.cross_entropy(x, target, w, ignore_index, reduction, smoothing)
        wide = (torch.tensor(x), torch.tensor(target))
        w = None if w is None else torch.tensor(w)
        want = TF.cross_entropy(*wide, w, None, ignore_index, None, reduction, smoothing)
        close(got, want.numpy())
        got = F.nll_loss(x, target, options[0], ignore_index, reduction)
        close(got, TF.nll_loss(*wide, w, None, ignore_index, None, reduction).numpy())
