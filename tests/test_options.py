"""What losses take beyond torch: each option, and every two of them together."""

import itertools
import math

import numpy as np
import options
import pytest
from reference import FLOATS, LOSS_BAR, assert_within

import crossent
import crossent.functional as F

N, C = 7, 5
RNG = np.random.default_rng(20)
LOGITS = RNG.standard_normal((N, C)) * 3
CLASSES = RNG.integers(0, C, N)
MASSES = RNG.dirichlet(np.ones(C), N)
EXISTS = np.array([True, True, False, True, True])
CLASSES[CLASSES == 2] = 3
MASSES[:, 2] = 0
SAMPLES = np.array([0.5, 0.0, 2.0, 1.0, 0.25, 3.0, 0.0])

# One setting or more of every option of cross_entropy.
SETTINGS = {
    "target": [{"target": CLASSES}, {"target": MASSES}],
    "weight": [{"weight": np.array([0.5, 2.0, 1.0, 0.0, 1.5])}],
    "ignore_index": [{"ignore_index": -1, "target": np.where(np.arange(N) % 3, CLASSES, -1)}],
    "reduction": [{"reduction": "sum"}, {"reduction": "none"}],
    "label_smoothing": [{"label_smoothing": 0.1}],
    "axis": [{"axis": 0}],
    "temperature": [{"temperature": 1.7}],
    "softcap": [{"softcap": 4.0}],
    "class_mask": [{"class_mask": EXISTS}],
    "z_loss": [{"z_loss": 0.01}],
    "sample_weight": [{"sample_weight": SAMPLES}],
    "denominator": [{"denominator": 11.0}],
    "empty": [{"empty": 0.0}, {"empty": 7.0, "sample_weight": np.zeros(N)}],
    "grad_output": [{"grad_output": -1.5}],
}


def together(*settings):
    """The settings in one, or None where they do not go together."""
    merged = {"target": CLASSES}
    for one in settings:
        for name, value in one.items():
            merged[name] = value
    reduction = merged.get("reduction", "mean")
    if reduction != "mean" and merged.keys() & {"denominator", "empty"}:
        return None
    # Mass on a class that does not exist is an infinite loss.
    if merged.get("label_smoothing") and "class_mask" in merged:
        return None
    return merged


PAIRS = [
    merged
    for a, b in itertools.combinations(SETTINGS, 2)
    for one, other in itertools.product(SETTINGS[a], SETTINGS[b])
    if (merged := together(one, other)) is not None
]


def name_of(merged):
    return ", ".join(f"{k}={v if np.ndim(v) == 0 else '...'}" for k, v in merged.items())


@pytest.mark.parametrize("merged", PAIRS, ids=name_of)
@pytest.mark.parametrize("classes", [C, 130])
def test_every_pair_of_options(merged, classes):
    merged = dict(merged)
    x = LOGITS
    if classes != C:
        # Many classes take another way through the engine; those beyond the first are unlikely.
        x = np.concatenate([LOGITS, RNG.standard_normal((N, classes - C)) - 6], axis=1)
        more = {"weight": np.ones(classes - C), "class_mask": np.ones(classes - C, bool)}
        for name in more.keys() & merged.keys():
            merged[name] = np.concatenate([merged[name], more[name]])
        if merged["target"].ndim == 2:
            merged["target"] = np.pad(merged["target"], [(0, 0), (0, classes - C)])
    target = merged.pop("target")
    if merged.get("axis") == 0:
        x = np.ascontiguousarray(x.T)
        target = target.T if target.ndim == 2 else target
        if "class_mask" in merged:
            merged["class_mask"] = merged["class_mask"][:, None]
    want = options.cross_entropy(x, target, **merged)
    loss, grad, hess = F.cross_entropy(x, target, **merged, return_grad=True, return_hess=True)
    size = max(float(np.max(np.abs(want.grad))), 1e-300)
    np.testing.assert_allclose(loss, want.loss.astype(float), rtol=1e-14, atol=0)
    np.testing.assert_allclose(grad, want.grad.astype(float), rtol=1e-12, atol=1e-15 * size)
    np.testing.assert_allclose(hess, want.hess.astype(float), rtol=1e-11, atol=1e-15 * size)
    alone = F.cross_entropy(x, target, **merged)
    np.testing.assert_allclose(alone, want.loss.astype(float), rtol=1e-14, atol=0)
    kept = x.copy()
    again = F.cross_entropy(kept, target, **merged, grad_out=kept)
    np.testing.assert_array_equal(again[0], loss)
    np.testing.assert_array_equal(kept, grad)
    # The same in float32, within what its logits can say.
    x32 = x.astype(np.float32)
    want = options.cross_entropy(x32, target, **merged)
    loss, grad = F.cross_entropy(x32, target, **merged, return_grad=True)
    assert np.asarray(loss).dtype == grad.dtype == np.float32
    assert_within(np.asarray(loss), want.loss, LOSS_BAR["float32"])
    np.testing.assert_allclose(grad, want.grad.astype(float), rtol=1e-6, atol=1e-7 * size)


def test_unused_options_change_no_bit(rng):
    for shape in ((300, 7), (40, 1000), (2, 5, 40)):
        x = rng.standard_normal(shape).astype(np.float32) * 5
        y = rng.integers(0, shape[1], shape[:1] + shape[2:])
        want = F.cross_entropy(x, y, return_grad=True)
        for unused in (
            {"sample_weight": np.ones(y.shape)},
            {"temperature": 1.0, "softcap": None, "class_mask": None, "z_loss": 0.0},
            {"class_mask": np.ones(x.shape, bool)},
            {"denominator": float(y.size), "empty": -1.0},
        ):
            for got, value in zip(
                F.cross_entropy(x, y, return_grad=True, **unused), want, strict=True
            ):
                np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_z_loss_beside_tiny_masses(dtype):
    """At a log-sum-exp of next to nothing the penalty's slope is no larger than a tiny weight."""
    x = np.array([[-1e30, -3e-31, -1e20]], dtype)
    weight = np.array([1.0, 1.0, 1e-31])
    _, grad = F.cross_entropy(x, [2], weight, z_loss=1e-3, reduction="sum", return_grad=True)
    want = 1e-31 - 2e-3 * 3e-31
    assert grad[0, 1] == pytest.approx(want, rel=4 * float(np.finfo(dtype).eps))


def test_z_loss_of_logits_near_the_largest():
    x = np.array([[-1e306, 4e306, 0.0]])
    _, grad = F.cross_entropy(x, [1], z_loss=1e-300, return_grad=True)
    np.testing.assert_allclose(grad, [[0, 8e6, 0]], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 100, 1000])
@pytest.mark.parametrize("z_loss", [-0.3, 0.1, 1.0])
@pytest.mark.parametrize("center", [-10, 10])
def test_z_loss_that_outweighs_the_loss(dtype, classes, z_loss, center, rng):
    """Its gradient may be of any size and sign, also at the target of a sure row."""
    x = (rng.standard_normal((60, classes)) * 20 + center).astype(dtype)
    y = np.where(rng.random(60) < 0.5, np.argmax(x, 1), rng.integers(0, classes, 60))
    loss, grad = F.cross_entropy(x, y, z_loss=z_loss, reduction="sum", return_grad=True)
    wide = x.astype(np.longdouble)
    top = wide.max(axis=1, keepdims=True)
    lse = top + np.log(np.sum(np.exp(wide - top), axis=1, keepdims=True))
    p = np.exp(wide - lse)
    own = np.arange(classes) == y[:, None]
    want = np.sum(lse[:, 0] - wide[own]) + z_loss * np.sum(lse**2)
    np.testing.assert_allclose(loss, float(want), rtol=10 * np.finfo(dtype).eps)
    want = p - own + 2 * z_loss * lse * p
    scale = p + own + np.abs(2 * z_loss * lse * p)
    bound = 8 * np.finfo(dtype).eps * scale + np.finfo(dtype).tiny
    assert np.all(np.abs(grad - want) <= bound)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [3, 200])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_of_weight_0_is_not_looked_at(dtype, soft, classes, axis, rng):
    x = rng.standard_normal((6, classes)).astype(dtype)
    x[1], x[2, 0], x[3] = np.nan, np.inf, -np.inf
    y = rng.integers(0, classes, 6)
    # Nor is its target.
    y[1] = classes + 3
    if soft:
        y = rng.dirichlet(np.ones(classes), 6).astype(np.float32)
        y[1] = np.nan
    weight = np.array([1.0, 0.0, 0.0, 0.0, 2.0, 0.5])
    live = weight != 0
    rows = np.ascontiguousarray(x if axis == 1 else x.T)
    target = y if axis == 1 or not soft else np.ascontiguousarray(y.T)
    options_of = {"axis": axis, "sample_weight": weight}
    loss, grad = F.cross_entropy(rows, target, **options_of, return_grad=True)
    grad = grad if axis == 1 else grad.T
    want, want_grad = F.cross_entropy(
        x[live], y[live], sample_weight=weight[live], return_grad=True
    )
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_array_equal(grad[live], want_grad)
    assert np.all(grad[~live].astype(float) == 0)
    none = F.cross_entropy(rows, target, **options_of, reduction="none")
    np.testing.assert_array_equal(none[~live], 0)


def element_losses():
    """Losses of elements with their arguments; the shape of their losses; what they are of."""
    x, t = RNG.standard_normal((6, 4)), RNG.random((6, 4))
    p = RNG.uniform(0.05, 0.95, (6, 4))
    sign = np.where(t > 0.5, 1.0, -1.0)
    return {
        "binary_cross_entropy": ((p, t), {}, (6, 4)),
        "binary_cross_entropy_with_logits": ((x, t), {"pos_weight": np.arange(1.0, 5.0)}, (6, 4)),
        "sigmoid_focal_loss": ((x, np.round(t)), {}, (6, 4)),
        "multilabel_soft_margin_loss": ((x, np.round(t)), {}, (6,)),
        "soft_margin_loss": ((x, sign), {}, (6, 4)),
        "kl_div": ((np.log(p), t), {}, (6, 4)),
    }


ELEMENTS = element_losses()


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighing", ["sample_weight", "denominator", "empty", "all", "nothing"])
def test_losses_of_elements(name, reduction, weighing, rng):
    (x, t), given, shape = ELEMENTS[name]
    loss_of = getattr(F, name)
    sample = rng.choice([0.0, 0.5, 1.0, 2.0], shape)
    sample.flat[:2] = 0, 1
    weighing = {
        "sample_weight": {"sample_weight": sample},
        "denominator": {"denominator": 5.0},
        "empty": {"empty": 3.0},
        "all": {"sample_weight": sample, "denominator": 5.0, "empty": 3.0},
        "nothing": {"sample_weight": np.zeros(shape), "empty": 3.0},
    }[weighing]
    if reduction != "mean":
        weighing = {k: v for k, v in weighing.items() if k == "sample_weight"}
    losses, slopes = loss_of(x, t, reduction="none", return_grad=True, **given)
    want, factor = options.reduce(losses.astype(np.longdouble), reduction, **weighing)
    factor = factor if shape == x.shape else factor[:, None]
    got, grad = loss_of(
        x, t, reduction=reduction, return_grad=True, grad_output=-2.0, **given, **weighing
    )
    np.testing.assert_allclose(got, want.astype(float), rtol=1e-14)
    np.testing.assert_allclose(grad, (-2 * factor * slopes).astype(float), rtol=1e-14)


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_element_of_weight_0_is_not_looked_at(name, dtype):
    (x, t), given, shape = ELEMENTS[name]
    x, t = x.astype(dtype), t.copy()
    sample = np.ones(shape)
    sample[1] = 0
    # Outside of where any loss is defined, or no number at all.
    x[1, 0], t[1, 1] = 3, np.nan
    x[1, 2] = np.nan
    loss_of = getattr(F, name)
    loss, grad = loss_of(x, t, reduction="mean", sample_weight=sample, return_grad=True, **given)
    rest = np.delete(x, 1, 0), np.delete(t, 1, 0)
    want, want_grad = loss_of(*rest, reduction="mean", return_grad=True, **given)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_array_equal(np.delete(grad, 1, 0), want_grad)
    assert np.all(grad[1].astype(float) == 0)
    if name == "binary_cross_entropy":
        with pytest.raises(ValueError, match=r"input\[1, 0\] must be a probability"):
            loss_of(x, t)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll_loss(reduction, rng):
    x = np.log(rng.dirichlet(np.ones(4), 9))
    y = rng.integers(0, 4, 9)
    y[2] = -100
    weight = np.array([1.0, 2.0, 0.5, 3.0])
    sample = rng.uniform(0, 2, 9)
    sample[4] = 0
    x[4] = np.nan
    of_class = np.where(y < 0, 0, weight[y % 4])
    losses = -of_class * x[np.arange(9), y % 4]
    want, factor = options.reduce(
        losses.astype(np.longdouble),
        reduction,
        live=y >= 0,
        counted=of_class,
        sample_weight=sample,
    )
    got, grad = F.nll_loss(
        x, y, weight, reduction=reduction, sample_weight=sample, return_grad=True
    )
    np.testing.assert_allclose(got, want.astype(float), rtol=1e-14)
    one_hot = y[:, None] == np.arange(4)
    want_grad = -(factor * of_class)[:, None] * one_hot
    np.testing.assert_allclose(grad, want_grad.astype(float), rtol=1e-14)
    if reduction == "mean":
        got = F.nll_loss(x, y, weight, sample_weight=sample, denominator=3.0)
        want, _ = options.reduce(losses, "sum", live=y >= 0, sample_weight=sample)
        np.testing.assert_allclose(got, float(want) / 3, rtol=1e-14)
        assert F.nll_loss(x, np.full(9, -100), empty=0.0) == 0


def test_scikit_learns_weighted_mean(rng):
    from sklearn.metrics import log_loss

    p = rng.dirichlet(np.ones(4), 50)
    y, weight = rng.integers(0, 4, 50), rng.random(50)
    want = log_loss(y, p, sample_weight=weight, labels=range(4))
    np.testing.assert_allclose(F.nll_loss(np.log(p), y, sample_weight=weight), want, rtol=1e-13)
    got = F.cross_entropy(np.log(p), y, sample_weight=weight)
    np.testing.assert_allclose(got, want, rtol=1e-13)


def test_batches_add_up(rng):
    """What `denominator` is for: means over parts that sum to the mean of the whole."""
    x, y = rng.standard_normal((90, 6)), rng.integers(0, 6, 90)
    y[60:] = -100
    whole, grad = F.cross_entropy(x, y, return_grad=True)
    parts = [
        F.cross_entropy(x[i : i + 30], y[i : i + 30], denominator=60.0, return_grad=True)
        for i in (0, 30, 60)
    ]
    np.testing.assert_allclose(sum(loss for loss, _ in parts), whole, rtol=1e-14)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), grad, rtol=1e-14)
    assert parts[2][0] == 0


def test_the_mean_of_nothing():
    x, y = np.zeros((3, 4)), np.full(3, -100)
    assert math.isnan(F.cross_entropy(x, y))
    loss, grad = F.cross_entropy(x, y, empty=0.5, return_grad=True)
    assert loss == 0.5
    assert not grad.any()
    assert F.cross_entropy(x[:0], y[:0], empty=0.5) == 0.5
    weightless = {"weight": np.zeros(4), "z_loss": 0.1, "label_smoothing": 0.1}
    assert math.isnan(F.cross_entropy(x, [0, 1, 2], **weightless))
    assert F.cross_entropy(x, [0, 1, 2], **weightless, empty=2.0) == 2
    assert F.binary_cross_entropy(x[:0], x[:0], empty=0.5) == 0.5
    assert F.cross_entropy(x, y, reduction="sum") == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(50, 7), (20, 300), (3, 5, 40)], ids=str)
def test_warped_building_blocks(dtype, shape, rng):
    x = (rng.standard_normal(shape) * 4).astype(dtype)
    for warp in (
        {"temperature": 0.7},
        {"softcap": 3.0},
        {"class_mask": rng.random(shape) > 0.2},
        {"class_mask": rng.random((shape[1],) + (1,) * (len(shape) - 2)) > 0.2},
        {"temperature": 2.0, "softcap": 5.0, "class_mask": rng.random(shape) > 0.2},
    ):
        mask = warp.get("class_mask")
        if mask is not None:
            mask = np.array(np.broadcast_to(mask, shape))
            mask[:, 0] = True
            warp["class_mask"] = mask
        wide = np.moveaxis(x.astype(np.longdouble), 1, -1)
        warp_of = dict(warp)
        if mask is not None:
            warp_of["class_mask"] = np.moveaxis(mask, 1, -1)
        z, slope, _ = options.warped(wide, **warp_of)
        lse = options.logsumexp(z)
        p = np.exp(z - lse)
        rtol = 1e-6 if dtype == np.float32 else 2e-14
        back = lambda v: np.moveaxis(v, -1, 1).astype(float)  # noqa: E731
        np.testing.assert_allclose(F.softmax(x, 1, **warp), back(p), rtol=rtol)
        np.testing.assert_allclose(
            F.log_softmax(x, 1, **warp), back(z - lse), rtol=rtol, atol=1e-17
        )
        np.testing.assert_allclose(F.logsumexp(x, 1, **warp), lse[..., 0].astype(float), rtol=rtol)
        entropy, grad = F.entropy_with_logits(x, axis=1, return_grad=True, **warp)
        h = -np.sum(options.times(p, z - lse), axis=-1)
        np.testing.assert_allclose(entropy, h.astype(float), rtol=rtol, atol=1e-17)
        want = options.times(p, -(z - lse) - h[..., None])
        np.testing.assert_allclose(grad, back(options.times(slope, want)), rtol, atol=rtol)
        kept = x.copy()
        F.softmax(kept, 1, out=kept, **warp)
        np.testing.assert_array_equal(kept, F.softmax(x, 1, **warp))


def test_many_threads(rng):
    x = rng.standard_normal((1003, 777)).astype(np.float32)
    y, weight = rng.integers(0, 777, 1003), rng.random(1003)
    options_of = {"sample_weight": weight, "softcap": 5.0, "z_loss": 0.1}
    before = crossent.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            crossent.set_num_threads(threads)
            results.append(F.cross_entropy(x, y, **options_of, return_grad=True, return_hess=True))
    finally:
        crossent.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_classes_hold_options(rng):
    x, y = rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    mask, weight = np.array([True, True, True, False]), rng.random(5)
    y[y == 3] = 0
    held = {"temperature": 2.0, "softcap": 3.0, "class_mask": mask, "z_loss": 0.1, "empty": 0.0}
    criterion = crossent.CrossEntropyLoss(**held)
    want = F.cross_entropy(x, y, sample_weight=weight, denominator=3.0, **held)
    assert criterion(x, y, sample_weight=weight, denominator=3.0) == want
    assert crossent.NLLLoss(empty=0.0)(x, np.full(5, -100)) == 0
    assert crossent.BCEWithLogitsLoss(empty=2.0)(x[:0], x[:0]) == 2


@pytest.mark.parametrize(
    "match, error, given",
    [
        (r"temperature must be positive and finite, got 0", ValueError, {"temperature": 0.0}),
        (r"temperature must be a number, got str", TypeError, {"temperature": "hot"}),
        (r"softcap must be positive and finite, got -1", ValueError, {"softcap": -1}),
        (r"z_loss must be finite, got inf", ValueError, {"z_loss": np.inf}),
        (r"z_loss must be a number, got str", TypeError, {"z_loss": "a"}),
        (r"label_smoothing must be a number, got str", TypeError, {"label_smoothing": "a"}),
        (
            r"class_mask must be an array of booleans, got int64",
            TypeError,
            {"class_mask": np.ones(4, np.int64)},
        ),
        (
            r"class_mask must broadcast to the input's shape \(3, 4\), got \(3,\)",
            ValueError,
            {"class_mask": np.ones(3, bool)},
        ),
        (
            r"sample_weight must have the shape \(3,\) of the losses, got \(4,\)",
            ValueError,
            {"sample_weight": np.ones(4)},
        ),
        (
            r"sample_weight must be an array of real numbers",
            TypeError,
            {"sample_weight": np.ones(3, complex)},
        ),
        (r"denominator must be positive and finite, got 0", ValueError, {"denominator": 0}),
        (r"denominator must be a number, got list", TypeError, {"denominator": [1]}),
        (
            r"denominator must not be given where reduction is not 'mean', got \"sum\"",
            ValueError,
            {"denominator": 2.0, "reduction": "sum"},
        ),
        (
            r"empty must not be given where reduction is not 'mean', got \"none\"",
            ValueError,
            {"empty": 0.0, "reduction": "none"},
        ),
        (r"empty must be a number, got str", TypeError, {"empty": "no"}),
    ],
)
def test_refusals(match, error, given):
    x, y = np.zeros((3, 4)), np.zeros(3, int)
    out = np.full((3, 4), 9.0)
    with pytest.raises(error, match=match) as raised:
        F.cross_entropy(x, y, grad_out=out, **given)
    notes = getattr(raised.value, "__notes__", [])
    assert all(name in note for note in notes for name in given)
    assert np.all(out == 9)


def test_overlapping_outputs_are_refused():
    x, y = np.zeros((3, 3), np.float32), np.zeros(3, int)
    for name, array in (
        ("sample_weight", x[0]),
        ("class_mask", x.view(np.uint8)[:, :3].view(bool)),
    ):
        with pytest.raises(ValueError, match=f"grad_out must not overlap {name}"):
            F.cross_entropy(np.ones((3, 3), np.float32), y, grad_out=x, **{name: array})


def test_batchmean_has_no_denominator():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="denominator must not be given"):
        F.kl_div(x, x, "batchmean", denominator=2.0)


@pytest.mark.parametrize("z", [1e-12, 1e-8, 1e-4, 0.1])
def test_z_loss_does_not_cancel(z):
    x = np.array([[5.0, -45.0]])
    _, grad, hess = F.cross_entropy(x, [0], z_loss=z, return_grad=True, return_hess=True)
    np.testing.assert_allclose(hess[0, 0], 2 * z + np.exp(-50.0), rtol=1e-15)
    np.testing.assert_allclose(grad[0, 0], 10 * z - np.exp(-50.0), rtol=1e-14)
    for x, given in (
        (np.zeros((1, 1)), {"weight": [0.0]}),
        (np.array([[0.0, -800.0]]), {"weight": [0.0, 1.0]}),
    ):
        loss, grad, hess = F.cross_entropy(
            x, [0], **given, z_loss=z, reduction="sum", return_grad=True, return_hess=True
        )
        assert loss == 0
        assert not grad.any()
        assert hess[0, 0] == 2 * z


def test_every_loss_of_elements_is_here():
    from inspect import signature

    reduced = {
        name
        for name, _ in crossent._core.losses()
        if "reduction" in signature(getattr(F, name)).parameters
    }
    assert reduced == ELEMENTS.keys() | {"cross_entropy", "nll_loss"}
