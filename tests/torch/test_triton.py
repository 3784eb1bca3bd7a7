"""The Triton kernels against 60-digit and long double references.

Without a GPU they run in Triton's interpreter. The module is loaded from its file, so that neither
the package nor its extension need be installed. On a machine with a GPU this file, reference.py of
the folder above and python/crossent/torch/_triton.py suffice, each at its place in a checkout, with
the packages numpy, pytest, torch, triton, ml_dtypes and mpmath.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import reference  # noqa: E402
from reference import BFLOAT16, assert_within  # noqa: E402


def load():
    path = ROOT / "python" / "crossent" / "torch" / "_triton.py"
    spec = importlib.util.spec_from_file_location("crossent_torch_triton", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


K = load()

# NumPy's warnings about what the interpreter does to infinities, and to blocks of NaN.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
NAMES = {v: k for k, v in TYPES.items()}
# The exponentials of 16-bit logits are the hardware's, which are within 2 ulp of float32.
LOSS_BAR = {
    "float16": 4.0 if DEVICE == "cuda" else 2.0,
    "bfloat16": 4.0 if DEVICE == "cuda" else 2.0,
    "float32": 2.0,
    "float64": 3.0,
}
# The interpreter cuts float32 off to bfloat16; a GPU rounds.
GRAD_BAR = {
    "float16": 0.51,
    "bfloat16": 0.51 if DEVICE == "cuda" else 1.01,
    "float32": 6.0,
    "float64": 8.0,
}
SIZES = [1, 2, 3, 7, 127, 128, 129, 1000, 4097]


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture
def blocks(monkeypatch):
    """Blocks so small that rows have several."""
    monkeypatch.setattr(K, "LOSS_BLOCK", 256)
    monkeypatch.setattr(K, "GRAD_BLOCK", 256)


def tensor(array, dtype=None):
    if isinstance(array, np.ndarray) and array.dtype == BFLOAT16:
        array, dtype = array.astype(np.float32), torch.bfloat16
    return torch.as_tensor(np.array(array)).to(dtype).to(DEVICE)


def numpy(x):
    x = x.detach().cpu()
    return x.view(torch.int16).numpy().view(BFLOAT16) if x.dtype == torch.bfloat16 else x.numpy()


def logits_of(rng, shape, dtype, scale=4.0):
    return tensor(rng.standard_normal(shape) * scale, dtype)


def longdouble(x):
    return numpy(x).astype(np.float64).astype(np.longdouble)


def lse_of(x):
    x = longdouble(x)
    top = x.max(-1, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(-1, keepdims=True)))[..., 0]


def want_cross_entropy(x, target, z_loss=0.0, exact=False, **options):
    """The reference's, and what z-loss adds."""
    array, target = numpy(x), numpy(target)
    options = {k: numpy(v) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    known = reference.exact_terms(array) if exact else None
    want = reference.cross_entropy(array, target, known=known, **options)
    if not z_loss:
        return want
    live = target != options.get("ignore_index", -100) if target.ndim == 1 else np.ones(len(array))
    lse, p = lse_of(x), reference.terms(array.astype(np.longdouble)).p
    reduction = options.get("reduction", "mean")
    scale = np.longdouble(1)
    if reduction == "mean":
        own = live * 1.0
        if target.ndim == 1 and options.get("weight") is not None:
            own = np.where(live, options["weight"][np.where(live, target, 0)], 0)
        scale = 1 / own.astype(np.longdouble).sum()
    extra = np.where(live, z_loss * lse**2, 0)
    loss = want.loss + (extra if reduction == "none" else extra.sum() * scale)
    slope = np.where(live, 2 * z_loss * lse, 0)[:, None] * p * scale
    return want._replace(
        loss=loss, grad=want.grad + slope, scale=np.maximum(want.scale, np.abs(slope))
    )


def check_grad(grad, want, bar, scale):
    """Within the bar of the gradient's type, times `bar`."""
    name, grad = NAMES[grad.dtype], numpy(grad)
    if name == "bfloat16" and DEVICE == "cpu":
        # The interpreter makes something else of what is subnormal.
        grad = np.where(np.abs(want) < 2.0**-126, np.asarray(want).astype(BFLOAT16), grad)
    assert_within(grad, want, bar * GRAD_BAR[name], scale, "gradient")


def check(got, want, name, factor=1.0):
    loss, grad = got
    assert_within(numpy(loss), want.loss, factor * LOSS_BAR[name], what="loss")
    if grad is not None:
        assert NAMES[grad.dtype] == name
        check_grad(grad, want.grad, factor, want.scale)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("classes", SIZES)
@pytest.mark.usefixtures("blocks")
def test_cross_entropy_of_sizes(name, classes, rng):
    x = logits_of(rng, (5, classes), TYPES[name])
    x[1] *= 6  # confident
    target = torch.from_numpy(rng.integers(0, classes, 5)).to(DEVICE)
    target[3] = -100
    target[4] = int(x[4].argmax())
    want = want_cross_entropy(x, target, exact=classes < 200, reduction="none")
    check(K.cross_entropy(x, target, reduction="none", grad=True), want, name)
    check(K.cross_entropy(x, target, reduction="none"), want, name)


@pytest.mark.parametrize("name", TYPES)
def test_cross_entropy_of_a_block(name, rng):
    x = logits_of(rng, (3, 5000), TYPES[name], 3.0)
    target = torch.tensor([1, 4999, int(x[2].argmax())], device=DEVICE)
    want = want_cross_entropy(x, target, reduction="mean")
    check(K.cross_entropy(x, target, grad=True), want, name)
    check(K.cross_entropy(x, target), want, name)


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 1e-3])
@pytest.mark.usefixtures("blocks")
def test_cross_entropy_options(name, reduction, weighted, smoothing, z_loss, rng):
    x = logits_of(rng, (6, 300), TYPES[name])
    target = torch.from_numpy(rng.integers(0, 300, 6)).to(torch.int32).to(DEVICE)
    target[2] = 7
    weight = tensor(rng.uniform(0.2, 2, 300), torch.float32) if weighted else None
    options = {
        "weight": weight, "reduction": reduction, "label_smoothing": smoothing, "ignore_index": 7,
    }  # fmt: skip
    want = want_cross_entropy(x, target, z_loss=z_loss, **options)
    # Masses and weights are rounded, each once.
    factor = 1.0 if smoothing == 0 else 1.5
    check(K.cross_entropy(x, target, z_loss=z_loss, grad=True, **options), want, name, factor)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.usefixtures("blocks")
def test_cross_entropy_of_probabilities(name, weighted, smoothing, rng):
    x = logits_of(rng, (4, 300), TYPES[name])
    q = rng.dirichlet(np.ones(300), 4)
    q[1] = np.eye(300)[17]
    q = tensor(q, torch.float64 if name == "float64" else torch.float32)
    weight = tensor(rng.uniform(0.2, 2, 300), torch.float32) if weighted else None
    for reduction in ("none", "mean"):
        options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
        want = want_cross_entropy(x, q, **options)
        check(K.cross_entropy(x, q, grad=True, **options), want, name, 2.0)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_confident_rows(name):
    x = tensor([[20.0, 0.0], [100.0, 0.0], [0.0, 1e-3]], TYPES[name])
    target = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    want = want_cross_entropy(x, target, exact=True, reduction="none")
    check(K.cross_entropy(x, target, reduction="none", grad=True), want, name)


def test_the_smallest_losses_are_not_lost():
    x = tensor([[85.0, 0.0], [0.0, -87.0], [100.0, 0.0]], torch.float32)
    target = torch.tensor([0, 0, 0], device=DEVICE)
    loss, grad = K.cross_entropy(x, target, reduction="none", grad=True)
    want = want_cross_entropy(x, target, exact=True, reduction="none")
    assert_within(numpy(loss), want.loss, 2.0)
    assert_within(numpy(grad), want.grad, 6.0)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_no_probability_is_above_1(name):
    """Of rows that are sure of another class, and of maxima that are no powers of two."""
    x = tensor(np.arange(96.0)[:, None] * [0.337, 0.0] + [70.0, 0.0], TYPES[name])
    target = torch.ones(96, dtype=torch.int64, device=DEVICE)
    _, grad = K.cross_entropy(x, target, reduction="sum", grad=True)
    assert grad.abs().max() == 1
    capped = tensor(np.arange(96.0)[:, None] * [3e-4, 0.0] - [0.0, 1e4], TYPES[name])
    _, grad = K.cross_entropy(capped, target, reduction="sum", softcap=50.0, grad=True)
    assert grad.abs().max() == 1
    ones, zeros = torch.ones(96, device=DEVICE), torch.zeros(96, device=DEVICE)
    *_, grad = K.token_log_prob(x, target, grad_output=(ones, zeros))
    assert grad.abs().max() == 1
    merged = torch.stack([x[:, 0], zeros, x[:, 0] - x[:, 1]]).double()
    live, sizes = torch.ones(96, dtype=torch.bool, device=DEVICE), torch.tensor([2], device=DEVICE)
    grad = K.shard_slope(x, target, live, sizes, 0, merged, ones.double())
    assert grad.abs().max() == 1


def test_ties_at_the_maximum():
    x = tensor(np.full((4, 5), 1e8), torch.float32)
    x[1] = torch.tensor([3.0, 3.0, -1.0, 3.0, 2.0])
    x[2] = torch.tensor([-1e8, -1e8, -2e8, -1e8, -1e8])
    x[3] = torch.tensor([4100.0, 4090.0, 4100.0, 4095.0, -4100.0])
    target = torch.tensor([0, 1, 0, 1], device=DEVICE)
    want = want_cross_entropy(x, target, exact=True, reduction="none")
    check(K.cross_entropy(x, target, reduction="none", grad=True), want, "float32")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
@pytest.mark.usefixtures("blocks")
def test_maxima_that_come_late(name, rng):
    """Each block lifts the maximum, across the bound where maxima are subtracted as well."""
    x = logits_of(rng, (5, 1024), TYPES[name])
    steps = torch.arange(1024, device=DEVICE) // 256
    x[0] += 20.0 * steps
    x[1] += (2000.0 * steps - 4000).to(x.dtype)
    x[2] += (3000.0 * steps).to(x.dtype)
    x[3, :512] = -torch.inf
    x[3, 512:] -= 3000.0
    x[4, :] = x[4, 3]
    target = torch.tensor([5, 1000, 900, 1023, 7], device=DEVICE)
    want = want_cross_entropy(x, target, reduction="none")
    check(K.cross_entropy(x, target, reduction="none", grad=True), want, name)
    _, entropy, *_ = K.token_log_prob(x, target)
    assert_within(numpy(entropy), want_entropy(x)[0], 8.0)


def test_masked_classes():
    inf = torch.inf
    x = tensor([[1.0, -inf, 2.0], [-inf, -inf, 0.5], [-inf, 3.0, -inf]], torch.float32)
    target = torch.tensor([0, 2, 1], device=DEVICE)
    loss, grad = K.cross_entropy(x, target, reduction="none", grad=True)
    want = want_cross_entropy(x, target, reduction="none")
    check((loss, grad), want, "float32")
    assert (grad[x == -inf] == 0).all()
    assert (loss[1:] == 0).all()
    # A class that is masked has an infinite loss, or none where its mass is 0.
    target = torch.tensor([1, 0, 0], device=DEVICE)
    assert (K.cross_entropy(x, target, reduction="none")[0] == inf).all()
    q = tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], torch.float32)
    loss, _ = K.cross_entropy(x, q, reduction="none", grad=True)
    assert torch.isfinite(loss).all()
    assert (loss[1:] == 0).all()
    weight = tensor([1.0, 0.0, 1.0], torch.float32)
    loss, _ = K.cross_entropy(x[:1], target[:1], reduction="none", weight=weight)
    assert loss.item() == 0


@pytest.mark.usefixtures("blocks")
def test_ignored_rows_are_not_read(rng):
    x = logits_of(rng, (4, 600), torch.float32)
    x[1] = torch.nan
    x[2, 5] = torch.inf
    target = torch.tensor([3, -100, -100, 599], device=DEVICE)
    loss, grad = K.cross_entropy(x, target, grad=True)
    assert torch.isfinite(loss)
    assert (grad[1:3] == 0).all()
    clean = torch.stack([x[0], x[3]])
    again, clean_grad = K.cross_entropy(clean, target[[0, 3]], grad=True)
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(clean_grad, grad[[0, 3]], rtol=2e-6, atol=0)
    few = torch.tensor([[torch.nan, 0.0], [1.0, 2.0]], device=DEVICE)
    loss, grad = K.cross_entropy(few, torch.tensor([-100, 0], device=DEVICE), grad=True)
    assert torch.isfinite(loss)
    assert (grad[0] == 0).all()


@pytest.mark.usefixtures("blocks")
def test_rows_that_are_not_numbers():
    inf, nan = torch.inf, torch.nan
    x = torch.zeros(6, 600, device=DEVICE)
    x[0, 300] = nan
    x[1, :300] = nan
    x[2, 4] = inf
    x[3, 4] = inf
    x[4, [4, 500]] = inf
    x[5] = -inf
    target = torch.tensor([0, 400, 4, 5, 4, 4], device=DEVICE)
    loss, grad = K.cross_entropy(x, target, reduction="none", grad=True)
    assert torch.isnan(loss[[0, 1, 4, 5]]).all()
    assert torch.isnan(grad[[0, 1, 4, 5]]).all()
    assert loss[2:4].tolist() == [0.0, inf]
    assert (grad[2] == 0).all()
    assert (grad[3, 4], grad[3, 5], grad[3].abs().sum()) == (1.0, -1.0, 2.0)
    bad = torch.tensor([600, -1], device=DEVICE)
    loss, grad = K.cross_entropy(torch.zeros(2, 600, device=DEVICE), bad, grad=True)
    assert torch.isnan(loss)
    assert torch.isnan(grad).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.usefixtures("blocks")
def test_16_bit_rows_that_are_not_numbers(name, rng):
    inf, nan = torch.inf, torch.nan
    x = logits_of(rng, (8, 600), TYPES[name], 1.0)
    x[0, 300] = nan
    x[1, [4, 500]] = inf
    x[2:4, 4] = inf
    x[4, ::3] = -inf
    x[5] *= 20000.0  # maxima that are subtracted
    x[6, :300] = 7.0  # ties, in a whole block and a part of one
    x[6, 300:] = -inf
    x[7] = nan
    target = torch.tensor([0, 4, 4, 5, 7, int(x[5].argmax()), 4, -100], device=DEVICE)
    loss, grad = K.cross_entropy(x, target, reduction="none", grad=True)
    assert torch.isnan(loss[:2]).all()
    assert torch.isnan(grad[:2]).all()
    assert loss[2:4].tolist() == [0.0, inf]
    assert (grad[2] == 0).all()
    assert (grad[3, 4], grad[3, 5], grad[3].abs().sum()) == (1.0, -1.0, 2.0)
    assert loss[7] == 0
    assert (grad[7] == 0).all()
    assert (grad[4, ::3] == 0).all()
    rows = torch.tensor([4, 5, 6], device=DEVICE)
    want = want_cross_entropy(x[rows], target[rows], reduction="none")
    check((loss[rows], grad[rows]), want, name)
    ones = torch.ones(8, device=DEVICE)
    *_, grad = K.token_log_prob(x, target.clamp(min=0), grad_output=(0 * ones, ones))
    assert torch.isnan(grad[[0, 1, 7]]).all()
    assert torch.isfinite(grad[4:7]).all()


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.usefixtures("blocks")
def test_settings_do_not_matter(name, stages, rng, monkeypatch):
    x = logits_of(rng, (5, 900), TYPES[name])
    target = torch.from_numpy(rng.integers(0, 900, 5)).to(DEVICE)
    first = K.cross_entropy(x, target, grad=True)
    monkeypatch.setattr(K, "STAGES", stages)
    monkeypatch.setattr(K, "HINTS", False)
    again = K.cross_entropy(x, target, grad=True)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
@pytest.mark.usefixtures("blocks")
def test_gradient_in_place(name, rng):
    wide = logits_of(rng, (5, 900), TYPES[name])
    x = wide[:, 100:800]
    target = torch.from_numpy(rng.integers(0, 700, 5)).to(DEVICE)
    loss, grad = K.cross_entropy(x, target, label_smoothing=0.1, grad=True)
    kept = wide.clone()
    again, same = K.cross_entropy(x, target, label_smoothing=0.1, inplace_grad=True)
    assert same is x
    rtol = 2.0**-7 if name == "bfloat16" else 2e-6
    torch.testing.assert_close(x, grad, rtol=rtol, atol=0)
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=0)
    assert torch.equal(wide[:, :100], kept[:, :100])
    assert torch.equal(wide[:, 800:], kept[:, 800:])
    with pytest.raises(ValueError, match="next to each other"):
        K.cross_entropy(wide.T, torch.zeros(900, dtype=torch.int64), inplace_grad=True)
    columns = wide.T.contiguous().T
    target = torch.from_numpy(rng.integers(0, 900, 5)).to(DEVICE)
    losses = [K.cross_entropy(v, target)[0] for v in (columns, wide)]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.usefixtures("blocks")
def test_softcap_and_temperature(name, temperature, softcap, rng):
    x = logits_of(rng, (5, 300), TYPES[name])
    x[3] /= 100
    target = torch.from_numpy(rng.integers(0, 300, 5)).to(DEVICE)
    wide = x.detach().double().requires_grad_()
    z = wide if softcap is None else softcap * torch.tanh(wide / softcap)
    want = torch.nn.functional.cross_entropy(z / temperature, target, reduction="none")
    want.sum().backward()
    options = {"softcap": softcap, "temperature": temperature, "reduction": "none"}
    loss, grad = K.cross_entropy(x, target, grad=True, **options)
    # The scaled logits, of up to 20, are rounded.
    unit = 2.0**-52 if name == "float64" else 2.0**-23
    assert ((loss - want).abs() <= 12 * unit * (1 + want.abs())).all()
    close = (grad - wide.grad).abs() <= 30 * unit * wide.grad.abs() + 2.0**-149
    if name == "bfloat16":
        close = (grad - wide.grad).abs() <= 2.0**-7 * wide.grad.abs()
    assert close.all()


@pytest.mark.usefixtures("blocks")
def test_the_same_bits_again(rng):
    x = logits_of(rng, (7, 1000), torch.float32)
    target = torch.from_numpy(rng.integers(0, 1000, 7)).to(DEVICE)
    first, again = (K.cross_entropy(x, target, grad=True) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_nothing():
    x = torch.zeros(0, 5, device=DEVICE)
    target = torch.zeros(0, dtype=torch.int64, device=DEVICE)
    assert torch.isnan(K.cross_entropy(x, target)[0])
    assert K.cross_entropy(x, target, reduction="sum")[0] == 0
    ignored = torch.full((3,), -100, device=DEVICE)
    loss, grad = K.cross_entropy(torch.ones(3, 5, device=DEVICE), ignored, grad=True)
    assert torch.isnan(loss)
    assert (grad == 0).all()
    # What smoothing and z-loss have of rows without weight has nothing to be divided by either.
    loss, grad = K.cross_entropy(
        torch.ones(3, 5, device=DEVICE),
        torch.zeros(3, dtype=torch.int64, device=DEVICE),
        weight=torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0], device=DEVICE),
        label_smoothing=0.1,
        z_loss=0.1,
        grad=True,
    )
    assert torch.isnan(loss)
    assert (grad == 0).all()


def test_refusals():
    x = torch.zeros(2, 3, device=DEVICE)
    target = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    with pytest.raises(TypeError, match="target must be a tensor of integers"):
        K.cross_entropy(x, target.bool())
    with pytest.raises(TypeError, match="logits must be a floating-point tensor"):
        K.cross_entropy(x.int(), target)
    with pytest.raises(ValueError, match=r"target must have shape \(2,\)"):
        K.cross_entropy(x, target[:1])
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\)"):
        K.cross_entropy(x, target, weight=x[0, :2])
    with pytest.raises(ValueError, match="at least one class"):
        K.entropy_with_logits(x[:, :0])
    with pytest.raises(ValueError, match="rows of their own"):
        K.cross_entropy(x[:1].expand(2, 3), target, inplace_grad=True)
    with pytest.raises(ValueError, match="reduction"):
        K.cross_entropy(x, target, reduction="average")
    with pytest.raises(ValueError, match="label_smoothing"):
        K.cross_entropy(x, target, label_smoothing=1.5)
    with pytest.raises(ValueError, match="weight must broadcast"):
        K.binary_cross_entropy_with_logits(x, x, weight=x[:, :2])


def want_entropy(x):
    """The entropy and its gradient, with the gradient's yardstick."""
    rows = longdouble(x)
    terms = reference.terms(rows)
    top = rows.max(-1, keepdims=True)
    gaps = np.where(terms.p == 0, 0, top - rows)
    mean = (terms.p * gaps).sum(-1, keepdims=True)
    log = np.take_along_axis(terms.neglogp, rows.argmax(-1)[:, None], -1)
    return (mean + log)[:, 0], terms.p * (gaps - mean), terms.p * np.maximum(gaps, mean)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("classes", [1, 2, 129, 1000])
@pytest.mark.usefixtures("blocks")
def test_entropy_with_logits(name, classes, rng):
    x = logits_of(rng, (4, classes), TYPES[name])
    x[1] *= 4
    x[2, : classes // 2] = -torch.inf
    entropy, grad = K.entropy_with_logits(x, grad=True)
    want, slope, scale = want_entropy(x)
    assert_within(numpy(entropy), want, 2 * LOSS_BAR[name], what="entropy")
    check_grad(grad, slope, 2.0, scale)
    torch.testing.assert_close(K.entropy_with_logits(x)[0], entropy, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("classes", [1, 3, 129, 1000])
@pytest.mark.usefixtures("blocks")
def test_token_log_prob(name, classes, rng):
    x = logits_of(rng, (5, classes), TYPES[name])
    x[1] *= 6
    target = torch.from_numpy(rng.integers(0, classes, 5)).to(DEVICE)
    target[4] = int(x[4].argmax())
    up = tuple(tensor(rng.standard_normal(5), torch.float32) for _ in range(2))
    log_prob, entropy, lse, rank, grad = K.token_log_prob(x, target, grad_output=up)
    want = want_cross_entropy(x, target, reduction="none")
    assert_within(numpy(-log_prob), want.loss, LOSS_BAR[name], what="log_prob")
    want_h, slope, scale = want_entropy(x)
    assert_within(numpy(entropy), want_h, 2 * LOSS_BAR[name], what="entropy")
    assert_within(numpy(lse), lse_of(x), 1.0, np.abs(longdouble(x)).max(-1), "logsumexp")
    picked = x[torch.arange(5, device=DEVICE), target]
    assert rank.tolist() == (x > picked[:, None]).sum(1).tolist()
    g_lp, g_h = (longdouble(g)[:, None] for g in up)
    want_grad = -g_lp * want.grad + g_h * slope
    scale = np.maximum(np.abs(g_lp) * want.scale, np.abs(g_h) * scale)
    check_grad(grad, want_grad, 2.0, scale)


def want_kl(a, b):
    """The divergence, its gradient and its yardstick, from mpmath."""
    mp = reference.mp
    values, slopes, scales = [], [], []
    for rows in zip(*(numpy(v).astype(np.float64).tolist() for v in (a, b)), strict=True):
        pair = []
        for row in rows:
            exps = [mp.exp(mp.mpf(v)) for v in row]
            total = mp.fsum(exps)
            pair.append([e / total for e in exps])
        p, q = pair
        logs = [
            mp.log(i / j) if i and j else mp.inf if i else mp.mpf(0)
            for i, j in zip(p, q, strict=True)
        ]
        kl = mp.fsum(i * log if i else mp.mpf(0) for i, log in zip(p, logs, strict=True))
        values.append(float(kl))
        slopes.append([float(i * (log - kl)) if i else 0.0 for i, log in zip(p, logs, strict=True)])
        scales.append(
            [float(i * (abs(log) + kl)) if i else 0.0 for i, log in zip(p, logs, strict=True)]
        )
    return np.array(values), np.array(slopes), np.array(scales)


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
@pytest.mark.usefixtures("blocks")
def test_divergences_of_what_is_close(apart, rng):
    a = logits_of(rng, (4, 600), torch.float32, 2.0)
    b = (a.double() + apart * logits_of(rng, (4, 600), torch.float64, 1.0)).float()
    loss, _ = K.kl_divergence_with_logits(a, b)
    want, _, _ = want_kl(a, b)
    assert (np.abs(numpy(loss) / want - 1) <= 4 * 2.0**-23).all()


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 3, 129, 600])
@pytest.mark.usefixtures("blocks")
def test_kl_divergence_with_logits(name, classes, rng):
    a = logits_of(rng, (4, classes), TYPES[name], 2.0)
    b = logits_of(rng, (4, classes), TYPES[name], 2.0)
    b[1] = a[1]
    b[2] = a[2] + 0.01 * logits_of(rng, (classes,), TYPES[name], 1.0)
    a[3, : classes // 2] = -torch.inf
    loss, grad = K.kl_divergence_with_logits(a, b, grad=True)
    want, slope, scale = want_kl(a, b)
    assert loss[1] == 0
    assert (loss >= 0).all()
    unit = 2.0**-52 if name == "float64" else 2.0**-23
    assert (np.abs(numpy(loss) - want) <= 8 * unit * want).all()
    bound = 2.0 ** (-8 if DEVICE == "cuda" else -7) if name == "bfloat16" else 8 * unit
    slack = 8 * unit * np.where(scale > 0, np.exp(longdouble(a) - lse_of(a)[:, None]), 0)
    got = numpy(grad).astype(np.float64)
    assert (np.abs(got - slope) <= bound * scale + slack).all()


def test_kl_divergence_of_what_is_masked():
    inf = torch.inf
    a = tensor([[0.0, -inf, 1.0], [0.0, 1.0, 2.0]], torch.float32)
    b = tensor([[1.0, -inf, 0.0], [0.0, -inf, 2.0]], torch.float32)
    loss, grad = K.kl_divergence_with_logits(a, b, grad=True)
    want = np.tanh(0.5)  # of two classes, the logits exchanged
    assert abs(loss[0].item() - want) < 1e-7
    assert loss[1] == inf
    assert grad[0, 1] == 0


def test_kl_divergence_of_one_infinite_logit():
    inf = torch.inf
    a = tensor([[inf, 0, 0], [inf, 0, 0], [0, 0, 0], [inf, 0, 0]], torch.float32)
    b = tensor([[inf, 0, 0], [0, 0, 0], [inf, 0, 0], [0, inf, 0]], torch.float32)
    loss, grad = K.kl_divergence_with_logits(a, b, grad=True)
    functional = pytest.importorskip("crossent.functional")
    want = functional.kl_divergence_with_logits(numpy(a), numpy(b), return_grad=True)
    np.testing.assert_allclose(numpy(loss), want[0], rtol=1e-6)
    np.testing.assert_allclose(numpy(grad)[:2], want[1][:2], atol=1e-6)


def want_binary(x, t, weight, pos):
    x, t, weight, pos = (np.asarray(v, np.longdouble) for v in (x, t, weight, pos))
    log = np.log1p(np.exp(-np.abs(x)))
    small = np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    large = 1 / (1 + np.exp(-np.abs(x)))
    up, down = np.where(x < 0, small, large), np.where(x < 0, large, small)
    on, off = weight * pos * t, weight * (1 - t)
    with np.errstate(invalid="ignore"):
        loss = np.where(on == 0, 0, on * (np.maximum(-x, 0) + log))
        loss = loss + np.where(off == 0, 0, off * (np.maximum(x, 0) + log))
    return loss, off * up - on * down, np.maximum(np.abs(off * up), np.abs(on * down))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weights", [(None, None), ((40,), (60, 1)), ((60, 40), (1,))], ids=str)
def test_binary_cross_entropy_with_logits(name, reduction, weights, rng):
    x = logits_of(rng, (60, 40), TYPES[name], 6.0)
    x[0, :4] = torch.tensor([80.0, -80.0, 100.0, -100.0])
    t = tensor(rng.integers(0, 2, (60, 40)) * 1.0, TYPES[name])
    t[30:] = tensor(rng.uniform(0, 1, (30, 40)), TYPES[name])
    w, pos = (s and tensor(rng.uniform(0.5, 2, s), torch.float32) for s in weights)
    wide = [1 if v is None else longdouble(v) for v in (w, pos)]
    loss, grad = K.binary_cross_entropy_with_logits(
        x, t, weight=w, pos_weight=pos, reduction=reduction, grad=True
    )
    want, slope, scale = want_binary(longdouble(x), longdouble(t), *wide)
    want = {"none": want, "mean": want.mean(), "sum": want.sum()}[reduction]
    count = x.numel() if reduction == "mean" else 1
    # Each element is computed in the type of the loss, where the CPU takes float64 for float32.
    assert_within(numpy(loss), want, 4.0 if w is None else 5.0, what="loss")
    check_grad(grad, slope / count, 1.0, scale / count)


def test_binary_cross_entropy_at_infinity():
    inf = torch.inf
    x = tensor([inf, -inf, -inf, inf, torch.nan], torch.float32)
    t = tensor([1.0, 0.0, 1.0, 0.0, 1.0], torch.float32)
    loss, grad = K.binary_cross_entropy_with_logits(x, t, reduction="none", grad=True)
    assert loss[:4].tolist() == [0, 0, inf, inf]
    assert grad[:4].tolist() == [0, 0, -1, 1]
    assert torch.isnan(loss[4])
    assert torch.isnan(grad[4])


def test_binary_cross_entropy_without_weight():
    x = tensor([torch.inf, 1.0, -torch.inf, torch.nan], torch.float32)
    t, w = tensor([0.0, 1.0, 1.0, 1.0], torch.float32), tensor([0.0, 1.0, 0.0, 0.0], torch.float32)
    loss, grad = K.binary_cross_entropy_with_logits(x, t, weight=w, reduction="none", grad=True)
    assert loss[[0, 2]].tolist() == grad[[0, 2]].tolist() == [0, 0]
    assert loss[1] > 0
    assert torch.isnan(loss[3])
    loss, _ = K.binary_cross_entropy_with_logits(x[:3], t[:3], weight=w[:3], reduction="sum")
    assert abs(loss.item() - np.log1p(np.exp(-1))) < 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_beside_the_cpu(smoothing, rng):
    functional = pytest.importorskip("crossent.functional")
    x = logits_of(rng, (9, 500), torch.float32)
    x[3, 7] = -torch.inf
    target = torch.from_numpy(rng.integers(8, 500, 9)).to(DEVICE)
    target[2] = -100
    got = K.cross_entropy(x, target, label_smoothing=smoothing, grad=True)
    want = functional.cross_entropy(
        numpy(x), numpy(target), label_smoothing=smoothing, return_grad=True
    )
    if smoothing == 0:
        assert_within(numpy(got[0]), want[0], 3.0)
        assert_within(numpy(got[1]), want[1], 10.0)
    else:
        assert got[0].item() == want[0] == np.inf
    entropy = functional.entropy_with_logits(numpy(x))
    assert_within(numpy(K.entropy_with_logits(x)[0]), entropy, 4.0)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", *sys.argv[1:]]))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 1000, 5000])
def test_scale(dtype, size, monkeypatch):
    monkeypatch.setattr(K, "SCALERS", 2)
    x = torch.randn(size, dtype=torch.float64).to(DEVICE, TYPES[dtype])
    wide = torch.float64 if dtype == "float64" else torch.float32
    for factor in (1.0, 0.3, float("nan")):
        by = torch.tensor(factor, dtype=wide, device=DEVICE)
        want = (x.to(wide) * by).to(x.dtype)
        got = x.clone()
        assert K.scale_(got, by) is got
        if dtype == "bfloat16" and DEVICE == "cpu":
            # The interpreter cuts float32 off to bfloat16; a GPU rounds.
            torch.testing.assert_close(got, want, rtol=8e-3, atol=0, equal_nan=True)
        else:
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
