"""What torch tests its own losses with, run against ours: values and gradients."""

import pytest
import torch

pytest.importorskip("expecttest")

from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from crossent import torch as ct

FUNCTIONS = {
    "nn.functional.cross_entropy": ct.cross_entropy,
    "nn.functional.nll_loss": ct.nll_loss,
    "nn.functional.binary_cross_entropy": ct.binary_cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": ct.binary_cross_entropy_with_logits,
    "nn.functional.kl_div": ct.kl_div,
    "nn.functional.multilabel_soft_margin_loss": ct.multilabel_soft_margin_loss,
    "nn.functional.soft_margin_loss": ct.soft_margin_loss,
    "nn.functional.logsigmoid": ct.logsigmoid,
    "softmax": ct.softmax,
    "log_softmax": ct.log_softmax,
    "logsumexp": ct.logsumexp,
    "sigmoid": ct.sigmoid,
}
OPS = [each for each in op_db if each.name in FUNCTIONS]
MODULES = [each for each in module_db if each.module_cls.__name__ in ct.__all__]
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def compare(ours, theirs, inputs):
    close(ours, theirs)
    inputs = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    if theirs.requires_grad and inputs:
        g = torch.linspace(-1, 2, theirs.numel(), dtype=theirs.dtype).reshape(theirs.shape)
        for a, b in zip(
            torch.autograd.grad(ours, inputs, g, allow_unused=True),
            torch.autograd.grad(theirs, inputs, g, allow_unused=True),
            strict=True,
        ):
            # We write no gradient for what has no part in the result.
            close(torch.zeros_like(b) if a is None and b is not None else a, b)


def test_every_loss_is_here():
    ours = {each.name for each in op_db if each.name.removeprefix("nn.functional.") in ct.__all__}
    assert {each.name for each in OPS} == set(FUNCTIONS) == ours
    assert len(MODULES) >= 7


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@TYPES
def test_functions(op, dtype):
    count = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        arguments, options = (sample.input, *sample.args), sample.kwargs
        if op.name == "logsumexp":
            axes = options.pop("dim", None) or sample.args[0]
            if not isinstance(axes, int) and len(axes) != 1:
                continue
            axis = axes if isinstance(axes, int) else axes[0]
            arguments = (sample.input, axis, *sample.args[1:])
        theirs = op(*arguments, **options)
        compare(FUNCTIONS[op.name](*arguments, **options), theirs, arguments)
        count += 1
    assert count > 0


@pytest.mark.parametrize("info", MODULES, ids=lambda info: info.name)
def test_modules(info):
    dtype = torch.float64
    samples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True
    )
    assert samples
    for sample in samples:
        made, given = sample.constructor_input, sample.forward_input
        theirs = info.module_cls(*made.args, **made.kwargs).to(dtype)
        ours = getattr(ct, info.module_cls.__name__)(*made.args, **made.kwargs).to(dtype)
        ours.load_state_dict(theirs.state_dict())
        arguments = [x.to(dtype) if x.is_floating_point() else x for x in given.args]
        compare(ours(*arguments), theirs(*arguments), arguments)


def errors():
    """Calls that torch refuses: the module that is made, if it is one, and what it is given."""
    for op in OPS:
        for each in op.error_inputs("cpu") if op.error_inputs_func else ():
            sample = each.sample_input
            given = (sample.input, *sample.args)
            yield op.name, None, lambda f=op.name, x=given, k=sample.kwargs: FUNCTIONS[f](*x, **k)
    for info in MODULES:
        if info.module_error_inputs_func is None:
            continue
        made = info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
        )
        for each in made:
            sample = each.module_error_input
            yield (
                info.name,
                each.error_regex,
                lambda i=info, s=sample: getattr(ct, i.module_cls.__name__)(
                    *s.constructor_input.args, **s.constructor_input.kwargs
                )(*s.forward_input.args, **s.forward_input.kwargs),
            )


def test_what_torch_refuses():
    count = 0
    for name, regex, call in errors():
        if name == "nn.NLLLoss" and "expected scalar type" in regex:
            # Weights of another type than the input are taken, as by every loss.
            assert call().dtype == torch.float64
            continue
        # Of torch RuntimeError for most, here that of the argument's fault.
        with pytest.raises((ValueError, TypeError, IndexError), match=r"^[a-z_]+ must"):
            call()
        count += 1
    assert count >= 9
