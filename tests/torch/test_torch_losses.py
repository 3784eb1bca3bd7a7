"""The losses against torch's own and against the functions of arrays."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from cases import by_formulas

import crossent.functional as F
from crossent import _core
from crossent import torch as ct

REDUCTIONS = ["mean", "sum", "none"]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(4,), (6, 4), (3, 4, 5), (2, 4, 3, 2)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def gradient(f, x, *arguments, **options):
    x = x.detach().requires_grad_()
    loss = f(x, *arguments, **options)
    loss.backward(torch.linspace(1, -2, loss.numel(), dtype=loss.dtype).reshape(loss.shape))
    return loss.detach(), x.grad


def same(name, x, *arguments, **options):
    for a, b in zip(
        gradient(getattr(ct, name), x, *arguments, **options),
        gradient(getattr(TF, name), x, *arguments, **options),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, equal_nan=True)


def indices(shape, ignored=None):
    y = torch.randint(0, 4, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if ignored is not None and y.numel() > 1:
        y.view(-1)[::3] = ignored
    return y


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64) * 3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
def test_cross_entropy(shape, reduction, weighted):
    x = double(*shape)
    weight = torch.rand(4, dtype=torch.float64) + 0.1 if weighted else None
    options = {"weight": weight, "reduction": reduction}
    soft = torch.softmax(double(*shape), 0)
    for smoothing, ignored in itertools.product([0.0, 0.3, 1.0], [-100, 1, -1]):
        y = indices(shape, ignored)
        same("cross_entropy", x, y, ignore_index=ignored, label_smoothing=smoothing, **options)
    same("cross_entropy", x, soft, label_smoothing=smoothing, **options)
    same("nll_loss", torch.log_softmax(x, 0), indices(shape, 1), ignore_index=1, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_elements(reduction):
    x, t, w = double(3, 4), torch.rand(3, 4).double(), torch.rand(4).double()
    p = torch.sigmoid(x)
    ends = {"reduction": reduction}
    same("binary_cross_entropy", p, t, w, **ends)
    same("binary_cross_entropy_with_logits", x, t, w, pos_weight=w, **ends)
    same("multilabel_soft_margin_loss", x, t, w, **ends)
    same("soft_margin_loss", x, torch.sign(t - 0.5), **ends)
    same("kl_div", x, t, log_target=True, **ends)
    same("kl_div", x, t, reduction="batchmean")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_types(dtype):
    """As the functions of arrays have them: the loss of 16-bit logits is float32."""
    x, y = torch.randn(6, 5).to(dtype), torch.arange(6) % 5
    loss, grad = gradient(ct.cross_entropy, x, y)
    want, slope = F.cross_entropy(x.double().numpy(), y.numpy(), return_grad=True)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad.dtype == dtype
    assert loss.item() == pytest.approx(want, rel=2 * torch.finfo(loss.dtype).eps)
    np.testing.assert_allclose(grad.double(), slope, rtol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint64],
    ids=str,
)
def test_types_of_targets(dtype):
    x, y = torch.randn(6, 5), torch.arange(6) % 5
    assert ct.cross_entropy(x, y.to(dtype)) == ct.cross_entropy(x, y)


LAYOUTS = {
    "transposed": lambda x: x.t().contiguous().t(),
    "steps": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "rows apart": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "expanded": lambda x: x[:1].expand(x.shape),
    "offset": lambda x: torch.cat([x[:1], x])[1:],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layouts(layout, dtype):
    x, y = layout(torch.randn(6, 5).to(dtype)), torch.arange(6) % 5
    plain = x.clone(memory_format=torch.contiguous_format)
    for reduction in REDUCTIONS:
        ours = gradient(ct.cross_entropy, x, y, reduction=reduction)
        want = gradient(ct.cross_entropy, plain, y, reduction=reduction)
        torch.testing.assert_close(ours, want, rtol=1e-6, atol=1e-7)


def test_nothing_is_copied(monkeypatch):
    seen = []
    function = _core.cross_entropy

    def note(input, *arguments):
        seen.append(input)
        return function(input, *arguments)

    monkeypatch.setattr(_core, "cross_entropy", note)
    for dtype in FLOATS:
        x = torch.randn(5, 6).to(dtype).t()
        ct.cross_entropy(x, torch.zeros(6, dtype=torch.int64))
        assert seen[-1].ctypes.data == x.data_ptr()
        assert seen[-1].strides == tuple(s * x.element_size() for s in x.stride())


# The numbers


def test_small_losses():
    x = torch.tensor([[20.0, 0.0]])
    loss, grad = gradient(ct.cross_entropy, x, torch.tensor([0]))
    assert loss.item() == pytest.approx(2.0611537e-9, rel=1e-7)
    np.testing.assert_allclose(grad, [[-2.0611537e-9, 2.0611537e-9]], rtol=1e-7)
    assert grad.sum() == 0


INF = float("inf")
EXTREMES = [
    ([1e8] * 4, 0),
    ([20.0, 0.0], 0),
    ([1.0, -INF, 2.0], 0),
    ([1.0, -INF, 2.0], 1),
    ([1.0, INF, 2.0], 1),
    ([1.0, INF, 2.0], 0),
    ([INF, INF], 0),
    ([-INF, -INF], 0),
    ([1.0, float("nan")], 0),
    ([3.0], 0),
]


@pytest.mark.parametrize("logits, target", EXTREMES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_formulas_at_extremes(logits, target, dtype, monkeypatch):
    """The composed formulas have the limits that the kernels have."""
    x, y = torch.tensor([logits], dtype=dtype), torch.tensor([target])
    one = torch.nn.functional.one_hot(y, len(logits)).to(dtype)
    calls = [
        lambda: ct.cross_entropy(x, y),
        lambda: ct.cross_entropy(x, one),
        lambda: ct.logsumexp(x, 1),
        lambda: ct.log_softmax(x, 1),
        lambda: ct.softmax(x, 1),
        lambda: ct.entropy_with_logits(x),
        lambda: ct.token_log_prob(x, y).log_prob,
        lambda: ct.binary_cross_entropy_with_logits(x, one),
        lambda: ct.sigmoid_focal_loss(x, one),
        lambda: ct.kl_divergence_with_logits(x, x.flip(1)),
        lambda: ct.js_divergence_with_logits(x, x.flip(1)),
        lambda: ct.kl_divergence(one, one.flip(1)),
        lambda: ct.js_divergence(one, one.flip(1)),
        lambda: ct.kl_div(x, one),
        lambda: ct.binary_cross_entropy(one, one.flip(1)),
    ]
    kernels = [call() for call in calls]
    by_formulas(monkeypatch)
    for call, want in zip(calls, kernels, strict=True):
        torch.testing.assert_close(call(), want, rtol=1e-6, atol=0, equal_nan=True)


def test_ignored_rows_are_out():
    x = torch.tensor([[1.0, 2.0], [float("nan"), INF]])
    loss, grad = gradient(ct.cross_entropy, x, torch.tensor([0, -100]))
    assert loss.isfinite()
    assert (grad[1] == 0).all()
    weights = torch.tensor([1.0, 0.0])
    loss, grad = gradient(ct.cross_entropy, x, torch.full((2, 2), 0.5), sample_weight=weights)
    assert loss.isfinite()
    assert (grad[1] == 0).all()


def test_gradients_in_float16_keep_what_a_scale_saves():
    """One divided by a million is nothing in float16; times a scale of a million it is 1."""
    x, y = torch.zeros(1, 2, dtype=torch.float16, requires_grad=True), torch.tensor([0])
    (ct.cross_entropy(x, y, reduction="sum") * 1e-8 * 1e8).backward()
    loss = ct.cross_entropy(x, y, denominator=1e8)
    x.grad = None
    (loss * 1e8).backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-0.5, 0.5]], dtype=torch.float16))


# Derivatives


def test_backward_again():
    x, y = torch.randn(5, 4, requires_grad=True), torch.arange(5) % 4
    for reduction in REDUCTIONS:
        loss = ct.cross_entropy(x, y, reduction=reduction).sum()
        first = torch.autograd.grad(3 * loss, x, retain_graph=True)[0]
        kept = first.clone()
        second = torch.autograd.grad(loss, x, retain_graph=True)[0]
        torch.testing.assert_close(first, 3 * second)
        assert torch.equal(first, kept)
        torch.testing.assert_close(torch.autograd.grad(0 * loss, x)[0], torch.zeros_like(x))


def test_accumulation():
    x, y = torch.randn(5, 4, requires_grad=True), torch.arange(5) % 4
    loss = ct.cross_entropy(x, y)
    loss.backward(retain_graph=True)
    once = x.grad.clone()
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(x.grad, 3 * once)


def test_one_buffer():
    """The gradient is the buffer that the forward pass wrote."""
    x, y = torch.randn(50, 40, requires_grad=True), torch.arange(50) % 40
    loss = ct.cross_entropy(x, y)
    _, _, _, _, _, buffer = loss.grad_fn.saved_tensors
    assert buffer.shape == x.shape
    place = buffer.data_ptr()
    del buffer
    (2 * loss).backward()
    assert x.grad.data_ptr() == place
    with torch.no_grad():
        assert ct.cross_entropy(x, y).grad_fn is None


def test_gradients_of_targets_and_weights():
    x, t = double(5, 4).requires_grad_(), torch.rand(5, 4).double().requires_grad_()
    w = torch.rand(4).double().requires_grad_()
    ours = torch.autograd.grad(ct.cross_entropy(x, t, label_smoothing=0.1), (x, t))
    theirs = torch.autograd.grad(TF.cross_entropy(x, t, label_smoothing=0.1), (x, t))
    torch.testing.assert_close(ours, theirs)
    y = torch.arange(5) % 4
    assert torch.autograd.gradcheck(lambda x, w: ct.cross_entropy(x, y, w), (x, w))
    assert torch.autograd.gradcheck(ct.binary_cross_entropy_with_logits, (x, t))
    assert torch.autograd.gradcheck(ct.kl_div, (x, t))
    op = torch.ops.crossent.pointwise.default
    loss = op(x, t, None, None, None, "logits", "sum", 0.0, 0.0, None, float("nan"), None, 1)[0]
    theirs = TF.binary_cross_entropy_with_logits(x, t, reduction="sum")
    torch.testing.assert_close(
        torch.autograd.grad(loss, (x, t)), torch.autograd.grad(theirs, (x, t))
    )


def test_input_as_its_own_target():
    x = torch.rand(5, 4).double().requires_grad_()
    (ours,) = torch.autograd.grad(ct.cross_entropy(x, x), x)
    (theirs,) = torch.autograd.grad(TF.cross_entropy(x, x), x)
    torch.testing.assert_close(ours, theirs)
    (zero,) = torch.autograd.grad(ct.kl_divergence_with_logits(x, x).sum(), x)
    assert (zero == 0).all()


# The gradient in place


def linear(rows=6, classes=5):
    w = torch.randn(classes, 3, requires_grad=True)
    return w, torch.randn(rows, 3), torch.arange(rows) % classes


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_in_place(reduction, scale):
    w, x, y = linear()
    logits = x @ w.t()
    loss = ct.cross_entropy(logits, y, reduction=reduction, inplace_grad=True)
    (loss.sum() * scale).backward()
    want = torch.autograd.grad(
        ct.cross_entropy(x @ w.t(), y, reduction=reduction).sum() * scale, w
    )[0]
    torch.testing.assert_close(w.grad, want)


def test_in_place_is_in_place():
    w, x, y = linear()
    logits = x @ w.t()
    seen = []
    logits.register_hook(lambda g: seen.append(g.data_ptr()))
    loss = ct.cross_entropy(logits, y, inplace_grad=True)
    want = torch.softmax((x @ w.t()).detach(), 1) - TF.one_hot(y, 5)
    torch.testing.assert_close(logits.detach(), want / 6)
    loss.backward()
    assert seen == [logits.data_ptr()]
    with torch.no_grad():
        kept = x @ w.t()
        again = kept.clone()
        ct.cross_entropy(kept, y, inplace_grad=True)
        assert torch.equal(kept, again)


def test_in_place_is_refused():
    w, x, y = linear()
    leaf = torch.randn(6, 5, requires_grad=True)
    part = torch.randn(8, 5)[:6].requires_grad_()
    for each in (leaf, leaf.view(6, 5), leaf[:, :], part):
        before = leaf.detach().clone()
        with pytest.raises(RuntimeError, match="leaf that requires grad"):
            ct.cross_entropy(each, y, inplace_grad=True)
        assert torch.equal(leaf, before)
    half = (x @ w.t()).half()
    before = half.detach().clone()
    with pytest.raises(RuntimeError, match="inplace_grad is not for float16"):
        ct.cross_entropy(half, y, inplace_grad=True)
    assert torch.equal(half, before)
    loss = ct.cross_entropy(torch.tanh(x @ w.t()), y, inplace_grad=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = ct.cross_entropy(x @ w.t(), y, inplace_grad=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="given away"):
        loss.backward()
    loss = ct.cross_entropy(x @ w.t(), y, inplace_grad=True)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.autograd.grad(loss, w, create_graph=True)
    logits = x @ w.t()
    loss = ct.cross_entropy(logits, y, inplace_grad=True)
    with torch.no_grad():
        logits.zero_()
    with pytest.raises(RuntimeError, match="modified"):
        loss.backward()
    with pytest.raises(ValueError, match="overlap"):
        ct.cross_entropy((x @ w.t())[:1].expand(6, 5), y, inplace_grad=True)
    with pytest.raises(RuntimeError, match="transforms"):
        torch.func.grad(lambda w: ct.cross_entropy(x @ w.t(), y, inplace_grad=True))(w.detach())


# Refusals, which are those of the functions of arrays wherever the tensors are

X, Y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
REFUSED = [
    (TypeError, "input", lambda d: ct.cross_entropy(Y[:, None].to(d), Y.to(d))),
    (TypeError, "target", lambda d: ct.cross_entropy(X.to(d), Y.bool().to(d))),
    (ValueError, "target", lambda d: ct.cross_entropy(X.to(d), Y[:2].to(d))),
    (ValueError, "target", lambda d: ct.cross_entropy(X.to(d), X[:, :2].to(d))),
    (ValueError, "weight", lambda d: ct.cross_entropy(X.to(d), Y.to(d), torch.ones(3).to(d))),
    (ValueError, "reduction", lambda d: ct.cross_entropy(X.to(d), Y.to(d), reduction="all")),
    (ValueError, "label_smoothing", lambda d: ct.cross_entropy(X.to(d), Y.to(d),
                                                               label_smoothing=2.0)),
    (ValueError, "ignore_index", lambda d: ct.cross_entropy(X.to(d), X.to(d), ignore_index=1)),
    (ValueError, "axis", lambda d: ct.cross_entropy(X.to(d), Y.to(d), axis=2)),
    (ValueError, "temperature", lambda d: ct.cross_entropy(X.to(d), Y.to(d), temperature=0.0)),
    (ValueError, "softcap", lambda d: ct.cross_entropy(X.to(d), Y.to(d), softcap=-1.0)),
    (ValueError, "class_mask", lambda d: ct.cross_entropy(X.to(d), Y.to(d),
                                                          class_mask=Y.bool().to(d))),
    (ValueError, "denominator", lambda d: ct.cross_entropy(X.to(d), Y.to(d), reduction="sum",
                                                           denominator=2.0)),
    (ValueError, "empty", lambda d: ct.cross_entropy(X.to(d), Y.to(d), reduction="sum",
                                                     empty=0.0)),
    (ValueError, "sample_weight", lambda d: ct.cross_entropy(X.to(d), Y.to(d),
                                                             sample_weight=X.to(d))),
    (TypeError, "target", lambda d: ct.nll_loss(X.to(d), X[:, 0].to(d))),
    (ValueError, "target", lambda d: ct.binary_cross_entropy(X.to(d), X[0].to(d))),
    (ValueError, "pos_weight", lambda d: ct.binary_cross_entropy_with_logits(
        X.to(d), X.to(d), pos_weight=torch.ones(3).to(d))),
    (ValueError, "gamma", lambda d: ct.sigmoid_focal_loss(X.to(d), X.to(d), gamma=-1.0)),
    (ValueError, "reduction", lambda d: ct.soft_margin_loss(X.to(d), X.to(d), "batchmean")),
    (ValueError, "base", lambda d: ct.entropy(X.to(d), base=1.0)),
    (ValueError, "base", lambda d: ct.kl_div(X.to(d), X.to(d), base=0)),
    (ValueError, "axis", lambda d: ct.entropy_with_logits(X.to(d), axis=5)),
    (ValueError, "q", lambda d: ct.kl_divergence(X.to(d), X[:2].to(d))),
    (ValueError, "q_logits", lambda d: ct.js_divergence_with_logits(X.to(d), X[:2].to(d))),
    (ValueError, "axis", lambda d: ct.softmax(X.to(d), 2)),
    (TypeError, "input", lambda d: ct.sigmoid(Y.to(d))),
    (ValueError, "target", lambda d: ct.token_log_prob(X.to(d), Y[:2].to(d))),
]  # fmt: skip


@pytest.mark.parametrize("error, argument, call", REFUSED)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_refusals(error, argument, call, device):
    with pytest.raises(error, match=argument):
        call(device)


def test_classes_out_of_range():
    for f in (ct.cross_entropy, ct.nll_loss, ct.token_log_prob):
        with pytest.raises(IndexError, match=r"target\[1\] = 4 is out of range for 4 classes"):
            f(X.clone().requires_grad_(), torch.tensor([0, 4, 0]))


# Modules, and what is imported when


def test_modules_show_their_options():
    assert repr(ct.CrossEntropyLoss()) == "CrossEntropyLoss()"
    module = ct.CrossEntropyLoss(torch.ones(3), 1, "sum", softcap=30.0)
    want = "CrossEntropyLoss(weight=<3>, ignore_index=1, reduction='sum', softcap=30.0)"
    assert repr(module) == want


def test_modules_are_torchs():
    module = ct.CrossEntropyLoss(torch.ones(3), class_mask=torch.tensor([True, True, False]))
    assert isinstance(module, torch.nn.CrossEntropyLoss)
    assert set(module.state_dict()) == {"weight", "class_mask"}
    module.to(torch.float64)
    assert module.weight.dtype == torch.float64
    assert module.class_mask.dtype == torch.bool
    assert module.to("meta").weight.is_meta
    other = ct.CrossEntropyLoss(torch.zeros(3))
    other.load_state_dict(torch.nn.CrossEntropyLoss(torch.ones(3)).state_dict())
    assert (other.weight == 1).all()


def test_module_passes_everything_on():
    x, y = torch.randn(3, 4), torch.arange(3)
    options = {
        "weight": torch.rand(4), "ignore_index": 1, "label_smoothing": 0.1, "axis": 1,
        "empty": 0.0, "temperature": 2.0, "softcap": 3.0, "z_loss": 0.1,
        "class_mask": torch.tensor([True] * 4),
    }  # fmt: skip
    call = {"sample_weight": torch.rand(3), "denominator": 2.0}
    assert ct.CrossEntropyLoss(**options)(x, y, **call) == ct.cross_entropy(x, y, **options, **call)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_alone_imports_no_torch():
    done = run("import crossent, sys; assert not any('torch' in m for m in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_without_torch():
    done = run("import sys; sys.modules['torch'] = None; import crossent.torch")
    assert done.stderr.strip().endswith(
        "ImportError: crossent.torch needs torch: pip install crossent[torch]"
    )


def test_without_ml_dtypes():
    """bfloat16 is then computed by the composed formula."""
    code = (
        "import sys; sys.modules['ml_dtypes'] = None; import torch; "
        "from crossent import torch as ct; "
        "x = torch.tensor([[20.0, 0.0]], dtype=torch.bfloat16, requires_grad=True); "
        "loss = ct.cross_entropy(x, torch.tensor([0])); loss.backward(); "
        "print(loss.item(), ct.softmax(x, 1).dtype)"
    )
    done = run(code)
    assert done.stdout.startswith("2.0611"), done.stderr
    assert done.stdout.strip().endswith("torch.bfloat16")
