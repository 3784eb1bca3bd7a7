"""The losses as operators of torch, one a family, in the namespace `crossent`.

An operator computes the gradient in the sweep that computes the loss, where one is wanted, and
returns it beside the loss. `backward` gives that buffer away, scaled in place by the upstream
gradient; called again, it computes the gradient again. So there is one buffer of the input's size,
and no result that a later call could overwrite. Everything else goes through the composed formula
of `_composed`: derivatives of derivatives, and with respect to targets and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossent import _core
from crossent import functional as F
from crossent.torch import _composed as composed

try:
    from ml_dtypes import bfloat16 as BFLOAT16
except ImportError:
    BFLOAT16 = None

PLAIN = (Tensor, torch.nn.Parameter)
# Looked up here once, as small losses feel it.
F16, BF16 = torch.float16, torch.bfloat16
FLOATS = (F16, BF16, torch.float32, torch.float64)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
HAS_TRITON = find_spec("triton") is not None
# From this many bytes on NumPy asks for large pages.
LARGE = 1 << 22
# Kept alive: the operators go when it does.
LIBRARY = torch.library.Library("crossent", "DEF")

Tensors = tuple[Tensor | None, ...]
Options = tuple[Any, ...]


# Between torch and NumPy


def array(x: Tensor) -> NDArray[Any]:
    """A tensor's memory as an array. NumPy has no bfloat16 of its own."""
    if x.requires_grad:
        x = x.detach()
    if x.dtype == BF16:
        view: NDArray[Any] = x.view(torch.int16).numpy().view(BFLOAT16)
        return view
    plain: NDArray[Any] = x.numpy()
    return plain


def arrays(*tensors: Tensor | None) -> list[NDArray[Any] | None]:
    return [None if x is None else array(x) for x in tensors]


def tensor(x: Any) -> Tensor:
    return torch.from_numpy(np.asarray(x))


def buffer_like(x: Tensor) -> Tensor:
    """`torch.empty_like` on the CPU. A large one comes from NumPy, which asks the system for large
    pages: there are then fewer to be handed out while the kernel writes, which takes longer than
    the kernel does."""
    if x.nbytes < LARGE:
        return torch.empty_like(x)
    layout = torch.empty_like(x, device="meta")
    memory = torch.from_numpy(np.empty(x.nbytes, np.uint8)).view(x.dtype)
    return memory.as_strided(layout.shape, layout.stride())


def result_type(x: Tensor) -> torch.dtype:
    """The type of a loss."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@lru_cache(maxsize=1)
def triton() -> Any:
    """The fused kernels. Loaded when first needed, for that takes a moment."""
    from crossent.torch import _triton

    return _triton


# Checks, for the devices where the extension does not make them


def check_float(x: Tensor, name: str) -> None:
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")


def check_integer(x: Tensor, name: str) -> None:
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name} must be a tensor of integers, got {x.dtype}")


def check_shape(x: Tensor | None, shape: torch.Size, name: str) -> None:
    if x is not None and x.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(x.shape)}")


def check_broadcast(x: Tensor | None, shape: torch.Size, name: str) -> None:
    if x is None:
        return
    fits = x.ndim <= len(shape) and all(
        a in (1, b) for a, b in zip(x.shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must broadcast to shape {tuple(shape)}, got {tuple(x.shape)}")


def check_reduction(reduction: str, denominator: float | None, empty: float, *more: str) -> None:
    known = ("mean", "sum", "none", *more)
    if reduction not in known:
        raise ValueError(f"reduction must be one of {', '.join(known)}, got {reduction!r}")
    for name, given in (("denominator", denominator is not None), ("empty", empty == empty)):
        if given and reduction != "mean":
            raise ValueError(
                f"{name} must not be given where reduction is not 'mean', got {reduction!r}"
            )
    if denominator is not None and not 0.0 < denominator < float("inf"):
        raise ValueError(f"denominator must be positive and finite, got {denominator}")


def check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")


def check_warp(
    mask: Tensor | None, shape: torch.Size, temperature: float, softcap: float | None
) -> None:
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if softcap is not None and not 0.0 < softcap < float("inf"):
        raise ValueError(f"softcap must be positive and finite, got {softcap}")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"class_mask must be a tensor of booleans, got {mask.dtype}")
    check_broadcast(mask, shape, "class_mask")


def check_base(base: float | None) -> None:
    if base is not None and (not 0.0 < base < float("inf") or base == 1.0):
        raise ValueError(f"base must be positive and not 1, got {base}")


def without(shape: torch.Size, axis: int, name: str) -> torch.Size:
    """The shape without an axis."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis must be one of {name}'s {len(shape)} axes, got {axis}")
    axis %= len(shape)
    return torch.Size(shape[:axis] + shape[axis + 1 :])


# Operators


def ordinary() -> bool:
    """Whether code runs as it stands: not traced, not transformed, not derived forwards."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def transformed() -> bool:
    """Whether functions are being transformed (`torch.func`), or derived forwards."""
    level: int = torch.autograd.forward_ad._current_level
    return level >= 0 or bool(torch._C._are_functorch_transforms_active())


def in_memory(tensors: Tensors) -> bool:
    """Whether each is a tensor of the CPU, and of no other kind; nor negated when it is read."""
    # Not by `all`, whose generator takes twice the time.
    for x in tensors:
        if x is not None and not (type(x) in PLAIN and x.is_cpu and not x.is_neg()):
            return False
    return True


def check_devices(names: Sequence[str], tensors: Tensors) -> None:
    """Refuses tensors of several devices, which the dispatcher would give to the kernel of one."""
    first = tensors[0]
    assert first is not None
    for name, x in zip(names, tensors, strict=True):
        if x is not None and x.device != first.device:
            raise RuntimeError(
                f"{name} must be on the device of {names[0]}, {first.device}, got {x.device}"
            )


def unsized(x: Tensor) -> Tensor:
    """In place of a gradient that nobody wants."""
    return x.new_empty(0)


def strided_as(slope: Tensor, x: Tensor) -> Tensor:
    """A gradient with the strides that `torch.empty_like` gives it, as fake tensors have."""
    if slope.stride() == torch.empty_like(x, device="meta").stride():
        return slope
    return torch.empty_like(x).copy_(slope)


def derived(formula: Callable[..., Tensor], tensors: Tensors, options: Options, g: Tensor,
            needs: list[bool]) -> list[Tensor | None]:  # fmt: skip
    """The gradients that are needed, by torch's derivatives of the formula: themselves
    differentiable where grad mode is on."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Each is a node of its own: the same tensor may be there twice.
        given = [
            x if x is None or not need
            else x.view_as(x) if again
            else x.detach().requires_grad_()
            for x, need in zip(tensors, needs, strict=True)
        ]  # fmt: skip
        wanted = [x for x, need in zip(given, needs, strict=True) if need]
        loss = formula(*given, *options)
        found = iter(torch.autograd.grad(loss, wanted, g, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def one_by_one(op: Any) -> Callable[..., tuple[Any, Any]]:
    """The rule of `torch.vmap`: each of the batch is a call of its own, since it has a mean of its
    own. Where compilers trace a transform; elsewhere the formulas are transformed."""

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        found = [
            op(
                *(
                    x if d is None else x.select(d, i)
                    for x, d in zip(arguments, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])

    return rule


class Operator:
    """A family of losses: tensors, of which the first `inputs` are differentiated by the kernel,
    then options.

    Arguments:
        name: The operator's.
        tensors: The schema of the tensors.
        options: The schema of the options.
        formula: The loss composed of torch's operations.
        shape: Checks the arguments; returns the shape of the loss.
        cpu: The loss by the extension. Keyword arguments ask it for gradients.
        axis: Of the options, the axis of the input that the loss lacks.
        cuda: Whether the fused kernels have these options, and the fused kernel.
    """

    def __init__(
        self,
        name: str,
        tensors: str,
        options: str,
        *,
        formula: Callable[..., Tensor],
        shape: Callable[..., torch.Size],
        cpu: Callable[..., Any],
        axis: Callable[[Options], int | None],
        inputs: int = 1,
        cuda: tuple[Callable[[Tensors, Options], bool], Callable[..., Any]] | None = None,
    ) -> None:
        self.names = [each.split()[-1] for each in tensors.split(",")]
        self.count = len(self.names)
        self.inputs = inputs
        self.formula, self.shape, self.cpu, self.axis, self.cuda = formula, shape, cpu, axis, cuda
        results = ", ".join(["Tensor"] * (1 + inputs))
        LIBRARY.define(
            f"{name}({tensors}, {options}, Tensor? upstream, int grads) -> ({results})",
            tags=(torch.Tag.pt2_compliant_tag,),
        )
        self.op = getattr(torch.ops.crossent, name).default
        full = f"crossent::{name}"
        LIBRARY.impl(name, self._cpu, "CPU")
        if cuda is not None:
            LIBRARY.impl(name, self._cuda, "CUDA")
        torch.library.register_fake(full, self._fake, lib=LIBRARY)
        torch.library.register_vmap(full, one_by_one(self.op), lib=LIBRARY)
        torch.library.register_autograd(
            full, self._backward, setup_context=self._setup, lib=LIBRARY
        )

    def __call__(self, tensors: Tensors, options: Options) -> Tensor:
        try:
            return self._call(tensors, options)
        except AttributeError:
            # Of what is no tensor: said afterwards, as looking first takes time of every call.
            for name, x in zip(self.names, tensors, strict=True):
                if x is not None and not isinstance(x, Tensor):
                    raise TypeError(f"{name} must be a tensor, got {type(x).__name__}") from None
            raise

    def _call(self, tensors: Tensors, options: Options) -> Tensor:
        x = tensors[0]
        assert x is not None
        grads = self.wanted(tensors)
        needs = grads > 0
        # What a gradient in float16 would lose before it is scaled by the upstream gradient is
        # not lost: it is computed when that is known. So it is where a compiler plans: that scales
        # whatever the factor is, in memory of its own, which takes longer than to read again.
        usual = ordinary()
        if x.dtype == F16 or (not usual and torch.compiler.is_compiling()):
            grads = 0
        if (not usual and transformed()) or self.composes(tensors, options):
            self.shape(*tensors, *options)
            return self.formula(*tensors, *options)
        if usual and in_memory(tensors):
            # The same without the dispatcher, which takes longer than a small loss.
            if needs:
                found = self._run(tensors, options, None, grads)
                inputs = tensors[: self.inputs]
                direct: Tensor = direct_apply(self, options, grads, tensors, found, *inputs)
                return direct
            return self._run(tensors, options, None, 0)[0]
        check_devices(self.names, tensors)
        return self.op(*tensors, *options, None, grads)[0]

    def wanted(self, tensors: Tensors) -> int:
        """Of how many of the first tensors the gradient is wanted."""
        if torch.is_grad_enabled():
            for i in range(self.inputs, 0, -1):
                x = tensors[i - 1]
                if x is not None and x.requires_grad:
                    return i
        return 0

    def composes(self, tensors: Tensors, options: Options) -> bool:
        """Whether the formula stands in for the operator."""
        x = tensors[0]
        assert x is not None
        if torch.is_grad_enabled():
            for y in tensors[self.inputs :]:
                if y is not None and y.requires_grad:
                    return True
        if x.is_cpu:
            return BFLOAT16 is None and any(
                y is not None and y.dtype == torch.bfloat16 for y in tensors
            )
        if x.is_cuda:
            return not HAS_TRITON or self.cuda is None or not self.cuda[0](tensors, options)
        return not x.is_meta

    def _run(
        self, tensors: Tensors, options: Options, upstream: Tensor | None, grads: int
    ) -> tuple[Tensor, list[Tensor]]:
        given = arrays(*tensors)
        if grads == 0:
            return tensor(self.cpu(*given, *options)), []
        # Outputs are written whole or, where an argument is refused, given to nobody.
        outs = [buffer_like(x) for x in tensors[:grads] if x is not None]
        found = self.cpu(
            *given,
            *options,
            return_grad=True if grads == 1 else "both",
            grad_output=None if upstream is None else array(upstream),
            grad_out=array(outs[0]) if grads == 1 else tuple(map(array, outs)),
        )
        return tensor(found[0]), outs

    def _cpu(self, *arguments: Any) -> tuple[Tensor, ...]:
        tensors, (*options, upstream, grads) = arguments[: self.count], arguments[self.count :]
        loss, outs = self._run(tensors, tuple(options), upstream, grads)
        return loss, *outs, *(unsized(tensors[0]) for _ in range(self.inputs - grads))

    def _cuda(self, *arguments: Any) -> tuple[Tensor, ...]:
        assert self.cuda is not None
        tensors, (*options, upstream, grads) = arguments[: self.count], arguments[self.count :]
        self.shape(*tensors, *options)
        loss, slope = self.cuda[1](*tensors, *options, bool(grads))
        x = tensors[0]
        others = [unsized(x) for _ in range(self.inputs - 1)]
        if slope is None:
            return loss, unsized(x), *others
        if upstream is not None:
            slope = scaled(slope, self._spread(upstream, tuple(options)))
        return loss, strided_as(slope, x), *others

    def _fake(self, *arguments: Any) -> tuple[Tensor, ...]:
        tensors, (*options, _, grads) = arguments[: self.count], arguments[self.count :]
        x = tensors[0]
        shape = self.shape(*tensors, *options)
        outs = [torch.empty_like(x) for x in tensors[:grads]]
        outs += [unsized(x) for _ in range(self.inputs - grads)]
        return x.new_empty(shape, dtype=result_type(x)), *outs

    def _spread(self, g: Tensor, options: Options) -> Tensor:
        """The upstream gradient, such that it broadcasts to the input."""
        axis = self.axis(options)
        return g if axis is None or g.ndim == 0 else g.unsqueeze(axis)

    def keep(self, ctx: Any, tensors: Any, slopes: Any, options: Options, grads: int) -> None:
        ctx.save_for_backward(*tensors, *slopes)
        ctx.set_materialize_grads(False)
        ctx.options, ctx.grads = options, grads
        # Popped by whoever takes the buffers first; threads may race.
        ctx.turn = [True]

    def _setup(self, ctx: Any, inputs: Any, output: Any) -> None:
        count = self.count
        self.keep(ctx, inputs[:count], output[1:], inputs[count:-2], inputs[-1])
        ctx.mark_non_differentiable(*output[1:])

    def _backward(self, ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[: self.count]
        return *self.gradients(ctx, g, needs), *(None,) * (len(ctx.options) + 2)

    def gradients(self, ctx: Any, g: Tensor | None, needs: Any) -> list[Tensor | None]:
        """Of each tensor, what `backward` returns."""
        found: list[Tensor | None] = [None] * self.count
        if g is None:
            return found
        saved = ctx.saved_tensors
        tensors, slopes = saved[: self.count], saved[self.count :]
        wanted = [i for i in range(self.inputs) if needs[i]]
        enough = len(wanted) > 0 and ctx.grads > wanted[-1] and len(ctx.turn) > 0
        batched = torch._C._functorch.is_legacy_batchedtensor(g)
        usual = type(g) is Tensor and not batched and ordinary()
        if torch.is_grad_enabled() or any(needs[self.inputs :]) or (batched and not enough):
            return derived(self.formula, tensors, ctx.options, g, needs)
        if enough and usual:
            try:
                ctx.turn.pop()
            except IndexError:
                enough = False
        if not enough:
            slopes = self.op(*tensors, *ctx.options, g, wanted[-1] + 1)[1:]
        factor = self._spread(g, ctx.options)
        for i in wanted:
            if not enough:
                found[i] = slopes[i]
            elif usual:
                # Not the saved tensor itself, whose version counts.
                found[i] = scaled(slopes[i].data, factor)
            else:
                product = (slopes[i] * factor).to(slopes[i].dtype)
                found[i] = torch.where(slopes[i] == 0, slopes[i], product)
        return found


class _Direct(torch.autograd.Function):
    """A node of what was found: in a tuple, as an input would be no result. The extension is called
    before, not in `forward`."""

    @staticmethod
    def forward(
        ctx: Any, operator: Operator, options: Options, grads: int, tensors: Tensors,
        found: tuple[Tensor, list[Tensor]], *inputs: Any,
    ) -> Tensor:  # fmt: skip
        loss, slopes = found
        if operator.inputs > 1:
            # The extension has the second gradient with the first alone.
            slopes = [
                slope if x.requires_grad else unsized(x)
                for slope, x in zip(slopes, inputs, strict=False)
            ]
        operator.keep(ctx, tensors, slopes, options, grads)
        ctx.operator = operator
        return loss

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        operator: Operator = ctx.operator
        needs = ctx.needs_input_grad[5:] + (False,) * (operator.count - operator.inputs)
        found = operator.gradients(ctx, g, needs)
        return None, None, None, None, None, *found[: operator.inputs]


# `apply` without its look for transforms, of which none is active where it is called: that takes as
# long as a small loss.
direct_apply: Any = super(torch.autograd.Function, _Direct).apply


def scaled(slope: Tensor, factor: Tensor) -> Tensor:
    """The gradient times the upstream gradient, in its place; without a pass where that is 1.

    Nothing stays nothing: a row that does not count has no gradient, whatever comes from above."""
    if factor.ndim == 0 and factor.is_cpu and factor.item() == 1.0:
        return slope
    if HAS_TRITON and factor.ndim == 0 and slope.is_cuda and slope.is_contiguous():
        scaled_in_place: Tensor = triton().scale_(slope, factor)
        return scaled_in_place
    # One that is not finite is in the sum, too.
    if factor.is_cpu and isfinite(factor.sum().item()):
        return slope.mul_(factor)
    nothing = slope == 0
    return slope.mul_(factor).masked_fill_(nothing, 0.0)


# Cross-entropy


def _cross_entropy_shape(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None,
    mask: Tensor | None, ignore_index: int, reduction: str, label_smoothing: float, axis: int,
    temperature: float, softcap: float | None, z_loss: float, denominator: float | None,
    empty: float,
) -> torch.Size:  # fmt: skip
    check_float(input, "input")
    shape = without(input.shape, axis, "input")
    if target.is_floating_point():
        check_shape(target, input.shape, "target")
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index must be negative for probabilities as target, got {ignore_index}"
            )
    else:
        check_integer(target, "target")
        check_shape(target, shape, "target")
    check_shape(weight, input.shape[axis : axis + 1 or None], "weight")
    check_shape(sample_weight, shape, "sample_weight")
    check_reduction(reduction, denominator, empty)
    check_warp(mask, input.shape, temperature, softcap)
    check_smoothing(label_smoothing)
    return shape if reduction == "none" else torch.Size()


def _cross_entropy_cpu(
    input: Any, target: Any, weight: Any, sample_weight: Any, mask: Any, ignore_index: int,
    reduction: str, label_smoothing: float, axis: int, temperature: float, softcap: float | None,
    z_loss: float, denominator: float | None, empty: float, return_grad: Any = False,
    grad_output: Any = None, grad_out: Any = None,
) -> Any:  # fmt: skip
    # Not through the function of crossent.functional: keywords take longer than a small loss.
    return _core.cross_entropy(
        input, target, weight, ignore_index, reduction, (sample_weight, denominator, empty),
        label_smoothing, (temperature, softcap, mask), z_loss, axis, return_grad, grad_output,
        grad_out, False, None,
    )  # fmt: skip


def rows_of(x: Tensor, axis: int) -> Tensor:
    """As rows of classes, a view where strides allow it."""
    return x.movedim(axis, -1).flatten(0, -2) if x.ndim > 1 else x.unsqueeze(0)


def indices(target: Tensor, classes: int) -> Tensor:
    """Class indices of a type that the fused kernels read."""
    return composed.indices(target, classes) if target.dtype in UNSIGNED else target


def unrows(slope: Tensor | None, like: Tensor, axis: int) -> Tensor | None:
    if slope is None:
        return None
    if like.ndim == 1:
        return slope.squeeze(0)
    return slope.unflatten(0, without(like.shape, axis, "input")).movedim(-1, axis)


def _cross_entropy_fused(tensors: Tensors, options: Options) -> bool:
    *_, denominator, empty = options
    return tensors[3] is None and tensors[4] is None and denominator is None and empty != empty


def _cross_entropy_cuda(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: None, mask: None,
    ignore_index: int, reduction: str, label_smoothing: float, axis: int, temperature: float,
    softcap: float | None, z_loss: float, denominator: None, empty: float, grad: bool,
    inplace: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    if target.is_floating_point():
        target = rows_of(target, axis)
    else:
        target = indices(target, input.shape[axis]).flatten()
    loss, slope = triton().cross_entropy(
        rows_of(input, axis), target, weight=weight, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, reduction=reduction, softcap=softcap,
        temperature=temperature, grad=grad, inplace_grad=inplace,
    )  # fmt: skip
    if reduction == "none":
        loss = loss.reshape(without(input.shape, axis, "input"))
    return loss, unrows(slope, input, axis)


CROSS_ENTROPY_TENSORS = (
    "Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight, Tensor? class_mask"
)
CROSS_ENTROPY_OPTIONS = (
    "int ignore_index, str reduction, float label_smoothing, int axis, float temperature, "
    "float? softcap, float z_loss, float? denominator, float empty"
)

cross_entropy = Operator(
    "cross_entropy",
    CROSS_ENTROPY_TENSORS,
    CROSS_ENTROPY_OPTIONS,
    formula=composed.cross_entropy,
    shape=_cross_entropy_shape,
    cpu=_cross_entropy_cpu,
    axis=lambda options: options[3],
    cuda=(_cross_entropy_fused, _cross_entropy_cuda),
)


# The gradient in the logits' place

LIBRARY.define(
    "cross_entropy_inplace("
    + CROSS_ENTROPY_TENSORS.replace("Tensor input", "Tensor(a!) input")
    + f", {CROSS_ENTROPY_OPTIONS}) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _inplace_cpu(*arguments: Any) -> Tensor:
    given = arrays(*arguments[:5])
    call: Any = (*given, *arguments[5:], True, None, given[0])
    return tensor(_cross_entropy_cpu(*call)[0])


def _inplace_cuda(*arguments: Any) -> Tensor:
    _cross_entropy_shape(*arguments)
    x, axis = arguments[0], arguments[8]
    if rows_of(x, axis).data_ptr() != x.data_ptr():
        raise ValueError("inplace_grad needs logits that are rows of neighbouring classes")
    call: Any = (*arguments, True, True)
    return _cross_entropy_cuda(*call)[0]


def _inplace_fake(*arguments: Any) -> Tensor:
    x = arguments[0]
    return x.new_empty(_cross_entropy_shape(*arguments), dtype=result_type(x))


LIBRARY.impl("cross_entropy_inplace", _inplace_cpu, "CPU")
LIBRARY.impl("cross_entropy_inplace", _inplace_cuda, "CUDA")
torch.library.register_fake("crossent::cross_entropy_inplace", _inplace_fake, lib=LIBRARY)


class _InPlace(torch.autograd.Function):
    """A function, since operators that write to their input have no derivative in torch."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, tensors: Tensors, options: Options) -> Tensor:
        ctx.buffer = input.detach()
        ctx.axis = options[3]
        loss: Tensor = torch.ops.crossent.cross_entropy_inplace.default(
            ctx.buffer, *tensors, *options
        )
        # Whoever saved the logits for a derivative of its own gets torch's error, not a gradient.
        torch.autograd.graph.increment_version(ctx.buffer)
        ctx.version = ctx.buffer._version
        return loss

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "with inplace_grad the logits are gone: there is no derivative of the gradient"
            )
        slope, ctx.buffer = ctx.buffer, None
        if slope is None:
            raise RuntimeError(
                "with inplace_grad the gradient is given away by the first backward: there is no "
                "second"
            )
        if slope._version != ctx.version:
            raise RuntimeError(
                "the logits of a loss with inplace_grad, whose memory holds the gradient, were "
                "modified by an in-place operation"
            )
        return scaled(slope, g.unsqueeze(ctx.axis) if g.ndim else g), None, None


def cross_entropy_inplace(tensors: Tensors, options: Options) -> Tensor:
    x, others = tensors[0], tensors[1:]
    assert x is not None
    if not (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        # A compiler plans its own memory.
        return cross_entropy(tensors, options)
    if x.dtype == F16:
        raise RuntimeError(
            "inplace_grad is not for float16: its gradient, which would lose what is below 6e-8, "
            "waits for the upstream gradient, and needs the logits then"
        )
    owner = x._base if x._is_view() else x
    if x.is_leaf or (owner.is_leaf and owner.requires_grad):
        raise RuntimeError(
            "inplace_grad would overwrite a leaf that requires grad (or a view of one): give it "
            "the result of an operation"
        )
    if transformed() or cross_entropy.composes(tensors, options):
        raise RuntimeError(
            "inplace_grad is for the kernels of CPU and CUDA, with a gradient with respect to "
            "input alone, and without transforms of functions"
        )
    check_devices(cross_entropy.names, tensors)
    loss: Tensor = _InPlace.apply(x, others, options)
    return loss


# Negative log-likelihood


def _nll_loss_shape(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None,
    ignore_index: int, reduction: str, axis: int, denominator: float | None, empty: float,
) -> torch.Size:  # fmt: skip
    check_float(input, "input")
    check_integer(target, "target")
    shape = without(input.shape, axis, "input")
    check_shape(target, shape, "target")
    check_shape(weight, input.shape[axis : axis + 1 or None], "weight")
    check_shape(sample_weight, shape, "sample_weight")
    check_reduction(reduction, denominator, empty)
    return shape if reduction == "none" else torch.Size()


def _nll_loss_cpu(
    input: Any, target: Any, weight: Any, sample_weight: Any, ignore_index: int, reduction: str,
    axis: int, denominator: float | None, empty: float, **gradient: Any,
) -> Any:  # fmt: skip
    return F.nll_loss(
        input, target, weight, ignore_index, reduction, axis=axis, sample_weight=sample_weight,
        denominator=denominator, empty=empty, **gradient,
    )  # fmt: skip


nll_loss = Operator(
    "nll_loss",
    "Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight",
    "int ignore_index, str reduction, int axis, float? denominator, float empty",
    formula=composed.nll_loss,
    shape=_nll_loss_shape,
    cpu=_nll_loss_cpu,
    axis=lambda options: options[2],
)


# Losses of elements

POINTWISE: dict[str, Callable[..., Any]] = {
    "probabilities": F.binary_cross_entropy,
    "logits": F.binary_cross_entropy_with_logits,
    "focal": F.sigmoid_focal_loss,
    "multilabel": F.multilabel_soft_margin_loss,
    "soft margin": F.soft_margin_loss,
    "kl": F.kl_div,
}


def _pointwise_shape(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None,
    sample_weight: Tensor | None, kind: str, reduction: str, first: float, second: float,
    denominator: float | None, empty: float,
) -> torch.Size:  # fmt: skip
    check_float(input, "input")
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"target must be a tensor of numbers, got {target.dtype}")
    check_shape(target, input.shape, "target")
    check_broadcast(weight, input.shape, "weight")
    check_broadcast(pos_weight, input.shape, "pos_weight")
    check_reduction(reduction, denominator, empty, *(("batchmean",) if kind == "kl" else ()))
    if kind == "focal" and not (first <= 1.0 and 0.0 <= second < float("inf")):
        raise ValueError(
            f"alpha must be at most 1 and gamma at least 0 and finite, got {first} and {second}"
        )
    shape = without(input.shape, -1, "input") if kind == "multilabel" else input.shape
    check_shape(sample_weight, shape, "sample_weight")
    return shape if reduction == "none" else torch.Size()


def _pointwise_cpu(
    input: Any, target: Any, weight: Any, pos_weight: Any, sample_weight: Any, kind: str,
    reduction: str, first: float, second: float, denominator: float | None, empty: float,
    **gradient: Any,
) -> Any:  # fmt: skip
    own: dict[str, Any] = {}
    if kind == "focal":
        own = {"alpha": first, "gamma": second}
    elif kind == "kl":
        own = {"log_target": bool(first), "base": second or None}
    elif kind != "soft margin":
        own = {"weight": weight}
    if kind == "logits":
        own["pos_weight"] = pos_weight
    return POINTWISE[kind](
        input, target, reduction=reduction, sample_weight=sample_weight, denominator=denominator,
        empty=empty, **gradient, **own,
    )  # fmt: skip


def _pointwise_fused(tensors: Tensors, options: Options) -> bool:
    kind, *_, denominator, empty = options
    return kind == "logits" and tensors[4] is None and denominator is None and empty != empty


def _pointwise_cuda(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None,
    sample_weight: None, kind: str, reduction: str, first: float, second: float, denominator: None,
    empty: float, grad: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    out: tuple[Tensor, Tensor | None] = triton().binary_cross_entropy_with_logits(
        input, target, weight=weight, pos_weight=pos_weight, reduction=reduction, grad=grad
    )
    return out


pointwise = Operator(
    "pointwise",
    "Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, Tensor? sample_weight",
    "str kind, str reduction, float first, float second, float? denominator, float empty",
    formula=composed.pointwise,
    shape=_pointwise_shape,
    cpu=_pointwise_cpu,
    axis=lambda options: -1 if options[0] == "multilabel" else None,
    cuda=(_pointwise_fused, _pointwise_cuda),
)


# Information


def _entropy_shape(p: Tensor, kind: str, axis: int, base: float | None) -> torch.Size:
    check_float(p, "p")
    check_base(base)
    return p.shape if kind == "binary" else without(p.shape, axis, "p")


def _entropy_cpu(p: Any, kind: str, axis: int, base: float | None, **gradient: Any) -> Any:
    if kind == "binary":
        return F.binary_entropy(p, base=base, **gradient)
    return F.entropy(p, axis=axis, base=base, **gradient)


entropy = Operator(
    "entropy",
    "Tensor p",
    "str kind, int axis, float? base",
    formula=composed.entropy,
    shape=_entropy_shape,
    cpu=_entropy_cpu,
    axis=lambda options: None if options[0] == "binary" else options[1],
)


def _entropy_with_logits_shape(
    logits: Tensor, mask: Tensor | None, axis: int, base: float | None, temperature: float,
    softcap: float | None,
) -> torch.Size:  # fmt: skip
    check_float(logits, "logits")
    check_base(base)
    check_warp(mask, logits.shape, temperature, softcap)
    return without(logits.shape, axis, "logits")


def _entropy_with_logits_cpu(
    logits: Any, mask: Any, axis: int, base: float | None, temperature: float,
    softcap: float | None, **gradient: Any,
) -> Any:  # fmt: skip
    return F.entropy_with_logits(
        logits, axis=axis, base=base, temperature=temperature, softcap=softcap, class_mask=mask,
        **gradient,
    )  # fmt: skip


def _unwarped(tensors: Tensors, options: Options) -> bool:
    *_, base, temperature, softcap = options
    return tensors[-1] is None and base is None and temperature == 1.0 and softcap is None


def _entropy_with_logits_cuda(
    logits: Tensor, mask: None, axis: int, base: None, temperature: float, softcap: None,
    grad: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    loss, slope = triton().entropy_with_logits(rows_of(logits, axis), grad=grad)
    return loss.reshape(without(logits.shape, axis, "logits")), unrows(slope, logits, axis)


entropy_with_logits = Operator(
    "entropy_with_logits",
    "Tensor logits, Tensor? class_mask",
    "int axis, float? base, float temperature, float? softcap",
    formula=composed.entropy_with_logits,
    shape=_entropy_with_logits_shape,
    cpu=_entropy_with_logits_cpu,
    axis=lambda options: options[0],
    cuda=(_unwarped, _entropy_with_logits_cuda),
)


def _divergence_shape(p: Tensor, q: Tensor, kind: str, axis: int, base: float | None) -> torch.Size:
    check_float(p, "p")
    check_float(q, "q")
    check_shape(q, p.shape, "q")
    check_base(base)
    return without(p.shape, axis, "p")


def _divergence_cpu(
    p: Any, q: Any, kind: str, axis: int, base: float | None, **gradient: Any
) -> Any:
    function = F.kl_divergence if kind == "kl" else F.js_divergence
    return function(p, q, axis=axis, base=base, **gradient)


divergence = Operator(
    "divergence",
    "Tensor p, Tensor q",
    "str kind, int axis, float? base",
    inputs=2,
    formula=composed.divergence,
    shape=_divergence_shape,
    cpu=_divergence_cpu,
    axis=lambda options: options[1],
)


def _divergence_with_logits_shape(
    p_logits: Tensor, q_logits: Tensor, mask: Tensor | None, kind: str, axis: int,
    base: float | None, temperature: float, softcap: float | None,
) -> torch.Size:  # fmt: skip
    check_float(p_logits, "p_logits")
    check_float(q_logits, "q_logits")
    check_shape(q_logits, p_logits.shape, "q_logits")
    check_base(base)
    check_warp(mask, p_logits.shape, temperature, softcap)
    return without(p_logits.shape, axis, "p_logits")


def _divergence_with_logits_cpu(
    p_logits: Any, q_logits: Any, mask: Any, kind: str, axis: int, base: float | None,
    temperature: float, softcap: float | None, **gradient: Any,
) -> Any:  # fmt: skip
    function = F.kl_divergence_with_logits if kind == "kl" else F.js_divergence_with_logits
    return function(
        p_logits, q_logits, axis=axis, base=base, temperature=temperature, softcap=softcap,
        class_mask=mask, **gradient,
    )  # fmt: skip


def _divergence_with_logits_fused(tensors: Tensors, options: Options) -> bool:
    kind = options[0]
    p, q, _ = tensors
    assert p is not None
    assert q is not None
    first = not (torch.is_grad_enabled() and q.requires_grad)
    return kind == "kl" and _unwarped(tensors, options) and first and p.dtype == q.dtype


def _divergence_with_logits_cuda(
    p_logits: Tensor, q_logits: Tensor, mask: None, kind: str, axis: int, base: None,
    temperature: float, softcap: None, grad: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    loss, slope = triton().kl_divergence_with_logits(
        rows_of(p_logits, axis), rows_of(q_logits, axis), grad=grad
    )
    return loss.reshape(without(p_logits.shape, axis, "p_logits")), unrows(slope, p_logits, axis)


divergence_with_logits = Operator(
    "divergence_with_logits",
    "Tensor p_logits, Tensor q_logits, Tensor? class_mask",
    "str kind, int axis, float? base, float temperature, float? softcap",
    inputs=2,
    formula=composed.divergence_with_logits,
    shape=_divergence_with_logits_shape,
    cpu=_divergence_with_logits_cpu,
    axis=lambda options: options[1],
    cuda=(_divergence_with_logits_fused, _divergence_with_logits_cuda),
)


# Blocks: results of which the derivative is a short formula


def _softmax_shape(
    input: Tensor, mask: Tensor | None, kind: str, axis: int, temperature: float,
    softcap: float | None,
) -> torch.Size:  # fmt: skip
    check_float(input, "input")
    check_warp(mask, input.shape, temperature, softcap)
    shape = without(input.shape, axis, "input")
    return shape if kind == "logsumexp" else input.shape


def _softmax_cpu(
    input: Tensor, mask: Tensor | None, kind: str, axis: int, temperature: float,
    softcap: float | None,
) -> Tensor:  # fmt: skip
    x, class_mask = arrays(input, mask)
    assert x is not None
    if kind == "logsumexp":
        return tensor(
            F.logsumexp(x, axis, temperature=temperature, softcap=softcap, class_mask=class_mask)
        )
    out = buffer_like(input)
    function = F.softmax if kind == "softmax" else F.log_softmax
    function(
        x, axis, temperature=temperature, softcap=softcap, class_mask=class_mask, out=array(out)
    )
    return out


def _softmax_fake(input: Tensor, mask: Tensor | None, kind: str, *options: Any) -> Tensor:
    shape = _softmax_shape(input, mask, kind, *options)
    if kind == "logsumexp":
        return input.new_empty(shape, dtype=result_type(input))
    return torch.empty_like(input)


def _softmax_setup(ctx: Any, inputs: Any, output: Any) -> None:
    input, mask, ctx.kind, ctx.axis, ctx.temperature, ctx.softcap = inputs
    ctx.save_for_backward(input, mask, output)


def _softmax_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, mask, y = ctx.saved_tensors
    axis, softcap = ctx.axis, ctx.softcap
    out, up = composed.wide(y), composed.wide(g)
    if ctx.kind == "softmax":
        slope = out * (up - (out * up).sum(axis, keepdim=True))
    elif ctx.kind == "log_softmax":
        slope = up - torch.exp(out) * up.sum(axis, keepdim=True)
    else:
        z = composed.warp(x, mask, ctx.temperature, softcap)
        share = torch.exp(z - out.unsqueeze(axis))
        # The limits: of one infinite logit, and of none above -inf.
        share = share.masked_fill(z == float("inf"), 1.0).masked_fill(z == float("-inf"), 0.0)
        slope = share * up.unsqueeze(axis)
    slope = slope / ctx.temperature
    if softcap is not None:
        slope = slope * (1 - torch.tanh(composed.wide(x) / softcap).square())
    if mask is not None:
        slope = slope.masked_fill(~mask, 0.0)
    return slope.to(x.dtype), None, None, None, None, None


def _sigmoid_cpu(input: Tensor, kind: str) -> Tensor:
    out = buffer_like(input)
    (F.sigmoid if kind == "sigmoid" else F.logsigmoid)(array(input), out=array(out))
    return out


def _sigmoid_fake(input: Tensor, kind: str) -> Tensor:
    check_float(input, "input")
    return torch.empty_like(input)


def _sigmoid_setup(ctx: Any, inputs: Any, output: Any) -> None:
    input, ctx.kind = inputs
    ctx.save_for_backward(input)


def _sigmoid_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    up, wide = composed.wide(g), composed.wide(x)
    # sigmoid(-x) and not 1 - sigmoid(x), which cancels.
    slope = up * torch.sigmoid(-wide)
    if ctx.kind == "sigmoid":
        slope = slope * torch.sigmoid(wide)
    return slope.to(x.dtype), None


def _token_shape(
    input: Tensor, target: Tensor, mask: Tensor | None, axis: int, temperature: float,
    softcap: float | None,
) -> torch.Size:  # fmt: skip
    check_float(input, "input")
    check_integer(target, "target")
    check_warp(mask, input.shape, temperature, softcap)
    shape = without(input.shape, axis, "input")
    check_shape(target, shape, "target")
    return shape


def _token_cpu(
    input: Tensor, target: Tensor, mask: Tensor | None, axis: int, temperature: float,
    softcap: float | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    x, y, class_mask = arrays(input, target, mask)
    assert x is not None
    assert y is not None
    tokens = F.token_log_prob(
        x, y, axis=axis, temperature=temperature, softcap=softcap, class_mask=class_mask
    )
    return tuple(tensor(each) for each in tokens)


def _token_cuda(
    input: Tensor, target: Tensor, mask: Tensor | None, axis: int, temperature: float,
    softcap: float | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    shape = _token_shape(input, target, mask, axis, temperature, softcap)
    y = indices(target, input.shape[axis]).flatten()
    found = triton().token_log_prob(rows_of(input, axis), y)
    return tuple(each.reshape(shape) for each in found[:4])


def _token_fake(input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    shape = _token_shape(input, *rest)
    dtypes = [result_type(input)] * 3 + [torch.int64]
    return tuple(input.new_empty(shape, dtype=dtype) for dtype in dtypes)


def _token_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _token_backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    x, target, mask = ctx.saved_tensors
    axis = ctx.options[0]
    rest = (None,) * 5
    given = [g for g in upstream[:3] if g is not None]
    if not given:
        return None, *rest
    fused = x.is_cpu or (x.is_cuda and HAS_TRITON)
    if torch.is_grad_enabled() or upstream[2] is not None or not fused:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = x.view_as(x) if again else x.detach().requires_grad_()
            found = composed.token_log_prob(leaf, target, mask, *ctx.options)
            parts = [y for y, g in zip(found, upstream, strict=True) if g is not None]
            (slope,) = torch.autograd.grad(parts, leaf, given, create_graph=again)
        return slope, *rest
    like = x.new_zeros(without(x.shape, axis, "input"), dtype=result_type(x))
    pair = [like if g is None else g for g in upstream[:2]]
    return torch.ops.crossent.token_log_prob_backward.default(
        x, target, mask, *pair, *ctx.options
    ), *rest  # fmt: skip


def _token_backward_cpu(
    input: Tensor, target: Tensor, mask: Tensor | None, log_prob: Tensor, entropy: Tensor,
    axis: int, temperature: float, softcap: float | None,
) -> Tensor:  # fmt: skip
    x, y, class_mask = arrays(input, target, mask)
    assert x is not None
    assert y is not None
    out = buffer_like(input)
    F.token_log_prob(
        x, y, axis=axis, temperature=temperature, softcap=softcap, class_mask=class_mask,
        grad_output=(array(log_prob), array(entropy)), grad_out=array(out),
    )  # fmt: skip
    return out


def _token_backward_cuda(
    input: Tensor, target: Tensor, mask: None, log_prob: Tensor, entropy: Tensor, axis: int,
    temperature: float, softcap: None,
) -> Tensor:  # fmt: skip
    y = indices(target, input.shape[axis]).flatten()
    pair = (log_prob.flatten(), entropy.flatten())
    found = triton().token_log_prob(rows_of(input, axis), y, grad_output=pair)[4]
    slope = unrows(found, input, axis)
    assert slope is not None
    return strided_as(slope, input)


_WARP = "int axis, float temperature, float? softcap"
_TAGS = (torch.Tag.pt2_compliant_tag,)
LIBRARY.define(
    f"softmax(Tensor input, Tensor? class_mask, str kind, {_WARP}) -> Tensor", tags=_TAGS
)
LIBRARY.define("sigmoid(Tensor input, str kind) -> Tensor", tags=_TAGS)
LIBRARY.define(
    f"token_log_prob(Tensor input, Tensor target, Tensor? class_mask, {_WARP}) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
LIBRARY.define(
    "token_log_prob_backward(Tensor input, Tensor target, Tensor? class_mask, Tensor log_prob, "
    f"Tensor entropy, {_WARP}) -> Tensor",
    tags=_TAGS,
)


def _block(
    name: str,
    cpu: Callable[..., Any],
    fake: Callable[..., Any],
    setup: Callable[..., None],
    backward: Callable[..., Any],
) -> Any:
    full = f"crossent::{name}"
    LIBRARY.impl(name, cpu, "CPU")
    torch.library.register_fake(full, fake, lib=LIBRARY)
    torch.library.register_autograd(full, backward, setup_context=setup, lib=LIBRARY)
    op = getattr(torch.ops.crossent, name).default
    torch.library.register_vmap(full, one_by_one(op), lib=LIBRARY)
    return op


_softmax = _block("softmax", _softmax_cpu, _softmax_fake, _softmax_setup, _softmax_backward)
_sigmoid = _block("sigmoid", _sigmoid_cpu, _sigmoid_fake, _sigmoid_setup, _sigmoid_backward)
_token = _block("token_log_prob", _token_cpu, _token_fake, _token_setup, _token_backward)
LIBRARY.impl("token_log_prob", _token_cuda, "CUDA")
LIBRARY.impl("token_log_prob_backward", _token_backward_cpu, "CPU")
LIBRARY.impl("token_log_prob_backward", _token_backward_cuda, "CUDA")
torch.library.register_fake(
    "crossent::token_log_prob_backward", lambda input, *rest: torch.empty_like(input), lib=LIBRARY
)


def _kernels(x: Tensor) -> bool:
    """Whether a block's operator takes this tensor; else the formula does."""
    if not isinstance(x, Tensor):
        raise TypeError(f"input must be a tensor, got {type(x).__name__}")
    if transformed() or not (x.is_cpu or x.is_meta):
        return False
    return BFLOAT16 is not None or x.dtype != torch.bfloat16


def softmax(
    input: Tensor, mask: Tensor | None, kind: str, axis: int, temperature: float,
    softcap: float | None,
) -> Tensor:  # fmt: skip
    if input.ndim == 0:
        # A row of one class, for torch.
        whole = softmax(input.unsqueeze(0), mask, kind, axis, temperature, softcap)
        return whole if kind == "logsumexp" else whole.squeeze(0)
    if _kernels(input):
        check_devices(["input", "class_mask"], (input, mask))
        return _softmax(input, mask, kind, axis, temperature, softcap)
    _softmax_shape(input, mask, kind, axis, temperature, softcap)
    return composed.softmax(input, mask, kind, axis, temperature, softcap)


def sigmoid(input: Tensor, kind: str) -> Tensor:
    if _kernels(input):
        return _sigmoid(input, kind)
    check_float(input, "input")
    return composed.sigmoid(input, kind)


def token_log_prob(
    input: Tensor, target: Tensor, mask: Tensor | None, axis: int, temperature: float,
    softcap: float | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    fused = input.is_cuda and HAS_TRITON and not transformed()
    fused = fused and mask is None and temperature == 1.0 and softcap is None
    if fused or _kernels(input):
        check_devices(["input", "target", "class_mask"], (input, target, mask))
        answers: tuple[Tensor, ...] = _token(input, target, mask, axis, temperature, softcap)
        return answers
    _token_shape(input, target, mask, axis, temperature, softcap)
    return composed.token_log_prob(input, target, mask, axis, temperature, softcap)
