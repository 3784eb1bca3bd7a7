"""The operators of CUDA, whose kernels are Triton's; without a GPU, in its interpreter."""

import pytest
import torch
from cases import CASES

from crossent import torch as ct
from crossent.torch import _ops

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = [
    "ce mean", "ce options none", "ce options mean", "ce soft sum", "ce one row", "ce last axis",
    "bce logits none", "entropy logits",
]  # fmt: skip


@pytest.fixture
def called(monkeypatch):
    calls = []
    monkeypatch.setattr(_ops, "ordinary", lambda: False)
    for each in vars(_ops).values():
        if isinstance(each, _ops.Operator):

            def note(*arguments, each=each):
                calls.append((each, arguments))
                return each._cpu(*arguments)

            monkeypatch.setattr(each, "op", note)
    return calls


def moved(arguments):
    return [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in arguments]


@pytest.mark.parametrize("name", NAMES)
def test_same_as_the_cpu(name, called):
    CASES[name].f(*[x.requires_grad_() for x in CASES[name].make(torch.float32)])
    ((operator, arguments),) = called
    tensors = arguments[: operator.count]
    options = arguments[operator.count : -2]
    # Weights of losses are not among what is fused.
    if name.startswith("bce"):
        arguments = (*arguments[:4], None, *arguments[5:])
        tensors = arguments[: operator.count]
    assert operator.cuda[0](tensors, options)
    want = operator._cpu(*arguments)
    got = operator._cuda(*moved(arguments))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert a.stride() == b.stride()
    torch.testing.assert_close(got[0].cpu(), want[0])
    if want[0].ndim == 0:
        torch.testing.assert_close(got[1].cpu(), want[1])


def test_divergence():
    p, q = torch.randn(5, 4), torch.randn(5, 4)
    arguments = (p, q, None, "kl", -1, None, 1.0, None, None, 1)
    operator = _ops.divergence_with_logits
    assert operator.cuda[0](arguments[:3], arguments[3:-2])
    got = operator._cuda(*moved(arguments))
    for a, b in zip(got, operator._cpu(*arguments), strict=True):
        torch.testing.assert_close(a.cpu(), b)
    assert not operator.cuda[0]((p, q.requires_grad_(), None), arguments[3:-2])


def test_an_upstream_gradient():
    x, y = torch.randn(2, 4, 3), torch.randint(0, 4, (2, 3))
    options = (-100, "none", 0.0, 1, 1.0, None, 0.0, None, float("nan"))
    arguments = (x, y, None, None, None, *options, torch.rand(2, 3), 1)
    got = _ops.cross_entropy._cuda(*moved(arguments))
    torch.testing.assert_close(got[1].cpu(), _ops.cross_entropy._cpu(*arguments)[1])


def test_in_place():
    x, y = torch.randn(6, 5), torch.arange(6) % 5
    options = (-100, "mean", 0.0, 1, 1.0, None, 0.0, None, float("nan"))
    logits = x.clone().to(DEVICE)
    loss = _ops._inplace_cuda(logits, y.to(DEVICE), None, None, None, *options)
    want, slope = _ops.cross_entropy._cpu(x, y, None, None, None, *options, None, 1)
    torch.testing.assert_close(loss.cpu(), want)
    torch.testing.assert_close(logits.cpu(), slope)
    planes = torch.randn(2, 4, 3, 3).to(DEVICE)
    classes = torch.zeros(2, 3, 3, dtype=torch.int64).to(DEVICE)
    with pytest.raises(ValueError, match="neighbouring classes"):
        _ops._inplace_cuda(planes, classes, None, None, None, *options)


def test_token_log_prob():
    x, y = torch.randn(3, 2, 5), torch.randint(0, 5, (3, 2))
    got = _ops._token_cuda(x.to(DEVICE), y.to(DEVICE), None, 2, 1.0, None)
    for a, b in zip(got, ct.token_log_prob(x, y, axis=-1), strict=True):
        torch.testing.assert_close(a.cpu(), b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_of_token_log_prob(dtype):
    x, y = torch.randn(3, 5, 2).to(dtype), torch.randint(0, 5, (3, 2), dtype=torch.uint8)
    arguments = (x, y, None, torch.rand(3, 2), torch.rand(3, 2), 1, 1.0, None)
    got = _ops._token_backward_cuda(*moved(arguments))
    want = _ops._token_backward_cpu(*arguments)
    assert got.stride() == want.stride()
    bar = 32 * torch.finfo(dtype).eps
    torch.testing.assert_close(got.cpu(), want, rtol=bar, atol=bar)


@pytest.mark.parametrize("dtype", _ops.UNSIGNED, ids=str)
def test_unsigned_classes(dtype):
    x, y = torch.randn(6, 5), (torch.arange(6) % 5)
    options = (-100, "none", 0.0, 1, 1.0, None, 0.0, None, float("nan"))
    arguments = [x, y.to(dtype), None, None, None, *options, None, 1]
    want = _ops.cross_entropy._cpu(*arguments)
    if dtype == torch.uint64:
        arguments[1] = torch.tensor([*y[:5].tolist(), 2**64 - 100], dtype=dtype)
    got = _ops.cross_entropy._cuda(*moved(arguments))
    some = slice(0, 5 if dtype == torch.uint64 else 6)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.cpu()[some], b[some])
    # Beyond int64: no class, and not that which is ignored.
    assert got[0][5:].isnan().all() == (dtype == torch.uint64)
    tokens = _ops._token_cuda(*moved((x, y.to(dtype))), None, 1, 1.0, None)
    torch.testing.assert_close(tokens[0].cpu(), ct.token_log_prob(x, y).log_prob)


def test_nothing_stays_nothing():
    x, y = torch.randn(3, 5), torch.tensor([1, -100, 2])
    options = (-100, "none", 0.0, 1, 1.0, None, 0.0, None, float("nan"))
    upstream = torch.tensor([1.0, torch.inf, 2.0])
    arguments = (x, y, None, None, None, *options, upstream, 1)
    got = _ops.cross_entropy._cuda(*moved(arguments))[1].cpu()
    assert (got[1] == 0).all()
    torch.testing.assert_close(got, _ops.cross_entropy._cpu(*arguments)[1])


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu(case, dtype):
    """Fused or composed: values and gradients of the CPU."""
    results = []
    for device in ("cpu", "cuda"):
        x = [each.to(device).requires_grad_() for each in case.make(dtype)]
        out = case.f(*x)
        outs = out if isinstance(out, tuple) else (out,)
        grads = torch.autograd.grad([each.sum() * 3 for each in outs], x)
        results.append([each.cpu() for each in (*outs, *grads)])
    for a, b in zip(*results, strict=True):
        bar = 32 * torch.finfo(b.dtype).eps
        torch.testing.assert_close(a, b, rtol=bar, atol=bar)
