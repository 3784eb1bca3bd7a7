"""Derivatives, first and second, against differences; and against the composed formulas."""

import numpy as np
import pytest
import reference
import torch
from cases import CASES, by_formulas
from reference import GRAD_BAR, LOSS_BAR, assert_within

from crossent import torch as ct

EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def leaves(case, dtype=torch.float64):
    return tuple(x.requires_grad_() for x in case.make(dtype))


@pytest.mark.parametrize(
    "case",
    [case for name, case in CASES.items() if not name.endswith("sum")],
    ids=[name for name in CASES if not name.endswith("sum")],
)
def test_first_and_second(case):
    assert torch.autograd.gradcheck(case.f, leaves(case))
    assert torch.autograd.gradgradcheck(case.f, leaves(case))


def gradients(case, dtype):
    x = leaves(case, dtype)
    out = case.f(*x)
    outs = out if isinstance(out, tuple) else (out,)
    g = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape) for y in outs]
    return outs, torch.autograd.grad(outs, x, g)


@EVERY
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_formula_has_the_kernels_numbers(case, dtype, monkeypatch):
    kernels = gradients(case, dtype)
    by_formulas(monkeypatch)
    formulas = gradients(case, dtype)
    for ours, theirs in zip(kernels[0] + kernels[1], formulas[0] + formulas[1], strict=True):
        assert ours.dtype == theirs.dtype
        bar = 32 * torch.finfo(ours.dtype).eps
        torch.testing.assert_close(ours, theirs, rtol=bar, atol=bar)


@pytest.mark.parametrize("classes", [2, 10, 1000, 50257])
@pytest.mark.parametrize("soft", [False, True])
def test_formulas_of_many_classes(classes, soft, rng, monkeypatch):
    """Where the largest class has next to nothing, and where it has next to everything."""
    by_formulas(monkeypatch)
    x = rng.standard_normal((6, classes)).astype(np.float32)
    x[3:] *= 60
    y = rng.integers(0, classes, 6)
    y[[0, 3]] = x[[0, 3]].argmax(1)
    t = rng.dirichlet(np.ones(classes), 6).astype(np.float32) if soft else y
    want = reference.cross_entropy(x, t, reduction="none")
    given = torch.tensor(x, requires_grad=True)
    loss = ct.cross_entropy(given, torch.tensor(t), reduction="none")
    loss.sum().backward()
    assert_within(loss.detach().numpy(), want.loss, LOSS_BAR["float32"])
    assert_within(given.grad.numpy(), want.grad, GRAD_BAR["float32"], want.scale)
    # Of a log-sum-exp, shares.
    (shares,) = torch.autograd.grad(ct.logsumexp(given, 1).sum(), given)
    p = reference.softmax(x, 1)
    assert_within(shares.numpy(), p, 16)
    (slope,) = torch.autograd.grad(ct.token_log_prob(given, torch.tensor(y)).log_prob.sum(), given)
    want = reference.cross_entropy(x, y, reduction="none")
    assert_within(-slope.numpy(), want.grad, GRAD_BAR["float32"], want.scale)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_formulas_without_data(case, monkeypatch):
    """As a device without kernels has them: shapes, types and gradients of meta tensors."""
    want = gradients(case, torch.float32)
    by_formulas(monkeypatch)
    x = tuple(each.to("meta").requires_grad_() for each in case.make(torch.float32))
    out = case.f(*x)
    outs = out if isinstance(out, tuple) else (out,)
    for got, real in zip(outs, want[0], strict=True):
        assert (got.is_meta, got.shape, got.dtype) == (True, real.shape, real.dtype)
    floats = [each for each in outs if each.requires_grad]
    for got, real in zip(torch.autograd.grad([y.sum() for y in floats], x), want[1], strict=True):
        assert (got.is_meta, got.shape, got.dtype) == (True, real.shape, real.dtype)


ROWS = torch.tensor([True, False, True, True])
"""Which count, of the losses below."""
LEFT_OUT = {
    "ignored": lambda x: ct.cross_entropy(x, torch.tensor([0, -100, 2, 1]), reduction="none"),
    "ignored, nll": lambda x: ct.nll_loss(x, torch.tensor([0, -100, 2, 1]), reduction="none"),
    "weightless": lambda x: ct.cross_entropy(
        x, torch.tensor([0, 1, 2, 1]), reduction="none", sample_weight=ROWS.to(x.dtype)
    ),
    "weightless, binary": lambda x: ct.binary_cross_entropy_with_logits(
        x, torch.ones_like(x), reduction="none", sample_weight=ROWS.float()[:, None].expand(4, 3)
    ).sum(1),
}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_does_not_count_has_no_gradient(name, value, dtype):
    """Not even of an upstream gradient that is no number, as where a mean is of nothing."""
    f = LEFT_OUT[name]
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
    g = torch.tensor([0.5, value, 1.0, 2.0])
    want = torch.autograd.grad(f(x), x, g.masked_fill(~ROWS, 0.0))[0]
    loss = f(x)
    for _ in range(2):
        (got,) = torch.autograd.grad(loss, x, g, retain_graph=True)
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(torch.autograd.grad(compiled, x, g)[0], want)
    (many,) = torch.autograd.grad(f(x), x, torch.stack([g, g]), is_grads_batched=True)
    torch.testing.assert_close(many[1], want)


def test_a_weightless_row_has_no_part_in_other_gradients():
    x, t = torch.randn(3, 4), torch.softmax(torch.randn(3, 4), 1)
    w, sample = torch.rand(4, requires_grad=True), torch.tensor([1.0, 0.0, 2.0])
    want = torch.autograd.grad(ct.cross_entropy(x, t, w, sample_weight=sample), w)[0]
    t[1], x[1] = torch.nan, torch.nan
    got = torch.autograd.grad(ct.cross_entropy(x, t, w, sample_weight=sample), w)[0]
    torch.testing.assert_close(got, want)


def test_views_that_are_negated_when_read():
    z = torch.randn(5, 4, dtype=torch.complex64)
    x, y = z.conj().imag, torch.arange(5) % 4
    assert x.is_neg()
    plain = x.clone().resolve_neg().requires_grad_()
    want = ct.cross_entropy(plain, y)
    got = ct.cross_entropy(x.requires_grad_(), y)
    assert got == want
    torch.testing.assert_close(
        torch.autograd.grad(got, x)[0], torch.autograd.grad(want, plain)[0], rtol=0, atol=0
    )
