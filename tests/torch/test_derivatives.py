"""Derivatives, first and second, against differences; and against the composed formulas."""

import pytest
import torch
from cases import CASES, by_formulas

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
