"""Refusals: the type of the error, the argument it names, and buffers left as they were."""

import functools
import inspect

import numpy as np
import pytest

import crossent
import crossent.functional as F

FLOATING, INDICES = np.float32, np.int64


def base_call():
    """Four rows of three classes."""
    x = np.arange(12, dtype=FLOATING).reshape(4, 3) / 4
    return {"input": x, "target": np.array([0, 2, 1, 2])}


def x_like(dtype=FLOATING):
    return np.zeros((4, 3), dtype)


def masked(array):
    return np.ma.masked_array(array, mask=np.zeros(np.shape(array), bool))


def read_only():
    array = x_like()
    array.flags.writeable = False
    return array


def overlapping_rows():
    """Rows that share elements: the stride between rows is one element."""
    return np.lib.stride_tricks.as_strided(np.zeros(12, FLOATING), (4, 3), (4, 4))


def zero_stride():
    return np.lib.stride_tricks.as_strided(np.zeros(3, FLOATING), (4, 3), (0, 4))


def shared(shift):
    """An input and a buffer that starts `shift` elements later in the same memory."""
    memory = np.zeros(12 + shift, FLOATING)
    return {"input": memory[:12].reshape(4, 3), "grad_out": memory[shift:].reshape(4, 3)}


def reversed_input():
    x = x_like()
    return {"input": x, "grad_out": x[::-1]}


def transposed_input():
    x = np.zeros((3, 3), FLOATING)
    return {"input": x, "target": np.zeros(3, INDICES), "grad_out": x.T}


def target_as_gradient():
    q = x_like()
    return {"target": q, "grad_out": q}


def gradient_over(name, array):
    """The gradient's buffer over another argument's memory."""
    memory = np.zeros(12, FLOATING)
    return {"grad_out": memory.reshape(4, 3), name: array(memory)}


def both_outputs(memory):
    return {"grad_out": memory, "hess_out": memory}


def on_input(*names):
    x = x_like()
    return {"input": x, **dict.fromkeys(names, x)}


def indices(*values, dtype=INDICES):
    return {"target": np.array(values, dtype)}


# (name, what differs from the base call, error, pattern). A pattern names the argument.
COMMON = [
    ("input: integers", lambda: {"input": x_like(np.int64)}, TypeError,
     r"^input must be a floating-point array, got int64"),
    ("input: unsigned", lambda: {"input": x_like(np.uint8)}, TypeError, r"^input .*uint8"),
    ("input: bool", lambda: {"input": x_like(bool)}, TypeError, r"^input .*bool"),
    ("input: complex", lambda: {"input": x_like(np.complex64)}, TypeError, r"^input .*complex64"),
    ("input: objects", lambda: {"input": x_like(object)}, TypeError, r"^input .*object"),
    ("input: strings", lambda: {"input": [["a", "b", "c"]] * 4}, TypeError, r"^input "),
    ("input: None", lambda: {"input": None}, TypeError, r"^input "),
    ("input: list of integers", lambda: {"input": [[1, 2, 3]] * 4}, TypeError, r"^input .*int"),
    ("input: masked", lambda: {"input": masked(x_like())}, TypeError, r"^input .*mask"),
    ("input: no axis", lambda: {"input": FLOATING(1), "target": 0}, ValueError, r"^input "),
    ("target: bool", lambda: {"target": np.ones(4, bool)}, TypeError, r"^target .*bool"),
    ("target: complex", lambda: {"target": np.ones(4, np.complex128)}, TypeError, r"^target "),
    ("target: objects", lambda: {"target": np.array([0, 1, 2, 0], object)}, TypeError, r"^target "),
    ("target: dates", lambda: {"target": np.zeros(4, "M8[s]")}, TypeError, r"^target "),
    ("target: None", lambda: {"target": None}, TypeError, r"^target "),
    ("target: masked", lambda: {"target": masked([0, 1, 2, 0])}, TypeError, r"^target .*mask"),
    ("target: floats of the rows' shape", lambda: {"target": np.zeros(4)},
     (TypeError, ValueError), r"^target "),
    ("target: too few", lambda: indices(0, 1, 2), ValueError, r"^target .*\(4,\).*\(3,\)"),
    ("target: too many", lambda: indices(0, 1, 2, 0, 1), ValueError, r"^target .*\(4,\).*\(5,\)"),
    ("target: indices of the input's shape", lambda: {"target": x_like(INDICES)}, ValueError,
     r"^target .*\(4, 3\)"),
    ("target: a scalar", lambda: {"target": 1}, ValueError, r"^target "),
    ("target: a column", lambda: {"target": np.zeros((4, 1), INDICES)}, ValueError, r"^target "),
    ("class too large", lambda: indices(0, 1, 7, 2), IndexError,
     r"^target\[2\] = 7 is out of range for 3 classes"),
    ("class just too large", lambda: indices(0, 1, 2, 3), IndexError,
     r"^target\[3\] = 3 is out of range for 3 classes"),
    ("class negative", lambda: indices(0, -1, 1, 2), IndexError,
     r"^target\[1\] = -1 is out of range for 3 classes"),
    ("class in int8", lambda: indices(0, 1, 127, 2, dtype=np.int8), IndexError,
     r"^target\[2\] = 127 is"),
    ("class in uint8 that wraps to -100", lambda: indices(0, 156, 1, 2, dtype=np.uint8),
     IndexError, r"^target\[1\] = 156 is out of range for 3 classes"),
    ("class in uint64 that wraps to -100",
     lambda: indices(0, 2**64 - 100, 1, 2, dtype=np.uint64), IndexError,
     r"^target\[1\] = 18446744073709551516 is out of range for 3 classes"),
    ("class in uint64 that wraps to 1", lambda: indices(0, 2**63 + 1, 1, 2, dtype=np.uint64),
     IndexError, r"^target\[1\] = 9223372036854775809 is"),
    ("class in int64 that wraps to 0 in 32 bits", lambda: indices(2**32, 0, 1, 2), IndexError,
     r"^target\[0\] = 4294967296 is"),
    ("smallest int64", lambda: indices(0, -(2**63), 1, 2), IndexError,
     r"^target\[1\] = -9223372036854775808 is"),
    ("default ignore_index is not ignored once another is named",
     lambda: {**indices(0, -100, 1, 2), "ignore_index": 1}, IndexError,
     r"^target\[1\] = -100 is"),
    ("class of an image", lambda: {"input": np.zeros((2, 3, 4, 5), FLOATING),
     "target": np.where(np.arange(40).reshape(2, 4, 5) == 37, 9, 0)}, IndexError,
     r"^target\[1, 3, 2\] = 9 is out of range for 3 classes"),
    ("class of a single row", lambda: {"input": np.zeros(3, FLOATING), "target": 3}, IndexError,
     r"^target.* = 3 is out of range for 3 classes"),
    ("weight: too long", lambda: {"weight": np.ones(4, FLOATING)}, ValueError,
     r"^weight must have shape \(3,\), one per class, got \(4,\)"),
    ("weight: a scalar", lambda: {"weight": 2.0}, ValueError, r"^weight .*\(3,\)"),
    ("weight: a column", lambda: {"weight": np.ones((3, 1), FLOATING)}, ValueError, r"^weight "),
    ("weight: complex", lambda: {"weight": np.ones(3, np.complex64)}, TypeError, r"^weight "),
    ("weight: strings", lambda: {"weight": ["a", "b", "c"]}, TypeError, r"^weight "),
    ("weight: masked", lambda: {"weight": masked(np.ones(3, FLOATING))}, TypeError,
     r"^weight .*mask"),
    ("ignore_index: fraction", lambda: {"ignore_index": 1.5}, TypeError, r"ignore_index"),
    ("ignore_index: string", lambda: {"ignore_index": "1"}, TypeError, r"ignore_index"),
    ("reduction: unknown", lambda: {"reduction": "avg"}, ValueError, r"^reduction .*avg"),
    ("reduction: empty", lambda: {"reduction": ""}, ValueError, r"^reduction "),
    ("reduction: None", lambda: {"reduction": None}, (TypeError, ValueError), r"reduction"),
    ("reduction: a number", lambda: {"reduction": 1}, (TypeError, ValueError), r"reduction"),
    ("axis: too large", lambda: {"axis": 2}, ValueError, r"^axis .*2"),
    ("axis: too small", lambda: {"axis": -3}, ValueError, r"^axis .*-3"),
    ("axis: fraction", lambda: {"axis": 0.5}, TypeError, r"axis"),
    ("axis: another than the target's", lambda: {"axis": 0}, ValueError, r"^target "),
    ("grad_output: an array for a scalar loss", lambda: {"return_grad": True,
     "grad_output": np.ones(4, FLOATING)}, ValueError, r"^grad_output .*\(4,\)"),
    ("grad_output: too short", lambda: {"return_grad": True, "reduction": "none",
     "grad_output": np.ones(3, FLOATING)}, ValueError, r"^grad_output .*\(4,\).*\(3,\)"),
    ("grad_output: complex", lambda: {"return_grad": True, "grad_output": 1j}, TypeError,
     r"^grad_output "),
    ("grad_output: string", lambda: {"return_grad": True, "grad_output": "1"}, TypeError,
     r"^grad_output "),
    ("grad_output: masked", lambda: {"return_grad": True, "reduction": "none",
     "grad_output": masked(np.ones(4, FLOATING))}, TypeError, r"^grad_output .*mask"),
    ("grad_out: another shape", lambda: {"grad_out": np.zeros((3, 4), FLOATING)}, ValueError,
     r"^grad_out .*\(4, 3\).*\(3, 4\)"),
    ("grad_out: flat", lambda: {"grad_out": np.zeros(12, FLOATING)}, ValueError, r"^grad_out "),
    ("grad_out: another type", lambda: {"grad_out": x_like(np.float64)}, TypeError,
     r"^grad_out .*float32.*float64"),
    ("grad_out: integers", lambda: {"grad_out": x_like(np.int32)}, TypeError, r"^grad_out "),
    ("grad_out: a list", lambda: {"grad_out": x_like().tolist()}, TypeError, r"^grad_out .*list"),
    ("grad_out: masked", lambda: {"grad_out": masked(x_like())}, TypeError, r"^grad_out .*mask"),
    ("grad_out: read-only", lambda: {"grad_out": read_only()}, ValueError,
     r"^grad_out .*read-only"),
    ("grad_out: 0-stride", lambda: {"grad_out": zero_stride()}, ValueError, r"^grad_out .*overlap"),
    ("grad_out: overlaps itself", lambda: {"grad_out": overlapping_rows()}, ValueError,
     r"^grad_out .*overlap"),
    ("grad_out: one element past the input", lambda: shared(1), ValueError, r"^grad_out .*overlap"),
    ("grad_out: one row past the input", lambda: shared(3), ValueError, r"^grad_out .*overlap"),
    ("grad_out: the last element of the input", lambda: shared(11), ValueError,
     r"^grad_out .*overlap"),
    ("grad_out: the input backwards", reversed_input, ValueError, r"^grad_out .*overlap"),
    ("grad_out: the input transposed", transposed_input, ValueError, r"^grad_out .*overlap"),
    ("grad_out: over the weight", lambda: gradient_over("weight", lambda m: m[4:7]), ValueError,
     r"^grad_out .*overlap"),
    ("grad_out: over grad_output",
     lambda: {"reduction": "none", **gradient_over("grad_output", lambda m: m[2:6])}, ValueError,
     r"^grad_out .*overlap"),
    ("grad_out: over the target",
     lambda: gradient_over("target", lambda m: m[:8].view(INDICES)), ValueError,
     r"^grad_out .*overlap"),
]  # fmt: skip

CROSS_ENTROPY_ONLY = [
    ("label_smoothing: negative", lambda: {"label_smoothing": -0.1}, ValueError,
     r"^label_smoothing .*-0.1"),
    ("label_smoothing: above 1", lambda: {"label_smoothing": 1.5}, ValueError,
     r"^label_smoothing .*1.5"),
    ("label_smoothing: NaN", lambda: {"label_smoothing": np.nan}, ValueError, r"^label_smoothing "),
    ("label_smoothing: string", lambda: {"label_smoothing": "a"}, TypeError, r"label_smoothing"),
    ("target: probabilities of another shape", lambda: {"target": np.zeros((3, 4))}, ValueError,
     r"^target "),
    ("target: masked probabilities", lambda: {"target": masked(x_like())}, TypeError,
     r"^target .*mask"),
    ("ignore_index: with probabilities", lambda: {"target": x_like(), "ignore_index": 1},
     ValueError, r"^ignore_index "),
    ("grad_out: the target", target_as_gradient, ValueError, r"^grad_out .*overlap"),
    ("hess_out: another shape", lambda: {"hess_out": np.zeros((3, 4), FLOATING)}, ValueError,
     r"^hess_out "),
    ("hess_out: another type", lambda: {"hess_out": x_like(np.float64)}, TypeError, r"^hess_out "),
    ("hess_out: a list", lambda: {"hess_out": x_like().tolist()}, TypeError, r"^hess_out "),
    ("hess_out: masked", lambda: {"hess_out": masked(x_like())}, TypeError, r"^hess_out .*mask"),
    ("hess_out: read-only", lambda: {"hess_out": read_only()}, ValueError,
     r"^hess_out .*read-only"),
    ("hess_out: 0-stride", lambda: {"hess_out": zero_stride()}, ValueError, r"^hess_out .*overlap"),
    ("hess_out: overlaps itself", lambda: {"hess_out": overlapping_rows()}, ValueError,
     r"^hess_out .*overlap"),
    ("hess_out: grad_out", lambda: both_outputs(x_like()), ValueError, r"_out .*overlap"),
    ("hess_out and grad_out: the input", lambda: on_input("grad_out", "hess_out"), ValueError,
     r"_out .*overlap"),
    ("hess_out: one row past the input",
     lambda: {"hess_out" if k == "grad_out" else k: v for k, v in shared(3).items()}, ValueError,
     r"^hess_out .*overlap"),
]  # fmt: skip

NLL_ONLY = [
    ("target: probabilities", lambda: {"target": x_like()}, (TypeError, ValueError), r"^target "),
]

CASES = [
    *(("cross_entropy", *case) for case in COMMON + CROSS_ENTROPY_ONLY),
    *(("nll_loss", *case) for case in COMMON + NLL_ONLY),
]
MODULES = {"cross_entropy": "CrossEntropyLoss", "nll_loss": "NLLLoss"}


def memory_of(arguments):
    return {k: v.tobytes() for k, v in arguments.items() if isinstance(v, np.ndarray)}


def of_module(name, /, **arguments):
    """The same call through the loss's class."""
    settings = inspect.signature(getattr(crossent, MODULES[name])).parameters
    options = {k: v for k, v in arguments.items() if k in settings}
    call = {k: v for k, v in arguments.items() if k not in settings}
    return getattr(crossent, MODULES[name])(**options)(**call)


@pytest.mark.parametrize("door", ["function", "module"])
@pytest.mark.parametrize(
    "name, case, build, error, pattern", CASES, ids=[f"{name} {case}" for name, case, *_ in CASES]
)
def test_refusal(name, case, build, error, pattern, door):
    arguments = {**base_call(), **build()}
    before = memory_of(arguments)
    call = getattr(F, name) if door == "function" else functools.partial(of_module, name)
    with pytest.raises(error, match=pattern):
        call(**arguments)
    assert memory_of(arguments) == before


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_the_base_call_is_accepted(name):
    getattr(F, name)(**base_call())
    of_module(name, **base_call())


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("at", [0, 50_000, 99_999])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_bad_class_anywhere_leaves_large_buffers_alone(name, at, axis, in_place, rng):
    """The last class is checked before the first row is written, with every thread at work."""
    x = rng.standard_normal((100_000, 12) if axis == 1 else (12, 100_000)).astype(np.float32)
    target = rng.integers(0, 12, 100_000)
    target[at] = 12
    grad = x if in_place else np.full_like(x, 7)
    hess = np.full_like(x, 7)
    before = x.copy(), target.copy(), grad.copy()
    options = {"hess_out": hess} if name == "cross_entropy" else {}
    with pytest.raises(IndexError, match=rf"^target\[{at}\] = 12 is out of range for 12 classes"):
        getattr(F, name)(x, target, axis=axis, grad_out=grad, **options)
    for array, copy in zip((x, target, grad), before, strict=True):
        assert np.array_equal(array, copy)
    assert np.all(hess == 7)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_ignored_classes_are_not_checked(name):
    x = base_call()["input"]
    for bad in (-1, 3, 2**62, -(2**63)):
        target = np.array([0, bad, 2, 1])
        loss, grad = getattr(F, name)(x, target, ignore_index=bad, return_grad=True)
        want = getattr(F, name)(x[[0, 2, 3]], target[[0, 2, 3]])
        assert loss == pytest.approx(want, rel=1e-6)
        assert np.isfinite(want)
        assert np.all(grad[1] == 0)


def test_keyword_only():
    x, y = base_call().values()
    with pytest.raises(TypeError, match="positional"):
        F.cross_entropy(x, y, None, -100, "mean", 0.0, 1)
    with pytest.raises(TypeError, match="positional"):
        F.nll_loss(x, y, None, -100, "mean", 1)
    with pytest.raises(TypeError, match="positional"):
        crossent.CrossEntropyLoss(None, -100, "mean", 0.0, 1)
    with pytest.raises(TypeError, match="positional"):
        crossent.NLLLoss(None, -100, "mean", 1)
    with pytest.raises(TypeError, match="positional"):
        crossent.CrossEntropyLoss()(x, y, True)
    with pytest.raises(TypeError, match="size_average"):
        F.cross_entropy(x, y, size_average=True)


SOFTMAX_CASES = [
    ("input: integers", lambda: {"input": x_like(np.int64)}, TypeError, r"^input .*int64"),
    ("input: masked", lambda: {"input": masked(x_like())}, TypeError, r"^input .*mask"),
    ("input: bool", lambda: {"input": x_like(bool)}, TypeError, r"^input .*bool"),
    ("axis: too large", lambda: {"axis": 2}, ValueError, r"^axis .*2"),
    ("axis: too small", lambda: {"axis": -3}, ValueError, r"^axis .*-3"),
    ("axis: fraction", lambda: {"axis": 0.5}, TypeError, r"axis"),
]  # fmt: skip

OUT_CASES = [
    ("out: another shape", lambda: {"out": np.zeros((3, 4), FLOATING)}, ValueError, r"^out "),
    ("out: another type", lambda: {"out": x_like(np.float64)}, TypeError, r"^out "),
    ("out: a list", lambda: {"out": x_like().tolist()}, TypeError, r"^out "),
    ("out: masked", lambda: {"out": masked(x_like())}, TypeError, r"^out .*mask"),
    ("out: read-only", lambda: {"out": read_only()}, ValueError, r"^out .*read-only"),
    ("out: 0-stride", lambda: {"out": zero_stride()}, ValueError, r"^out .*overlap"),
    ("out: overlaps itself", lambda: {"out": overlapping_rows()}, ValueError, r"^out .*overlap"),
    ("out: one row past the input",
     lambda: {"out" if k == "grad_out" else k: v for k, v in shared(3).items()}, ValueError,
     r"^out .*overlap"),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, case, build, error, pattern",
    [
        *((name, *c) for name in ("softmax", "log_softmax") for c in SOFTMAX_CASES + OUT_CASES),
        *(("logsumexp", *c) for c in SOFTMAX_CASES),
    ],
    ids=str,
)
def test_refusal_of_building_blocks(name, case, build, error, pattern):
    arguments = {"input": base_call()["input"], "axis": 1, **build()}
    before = memory_of(arguments)
    with pytest.raises(error, match=pattern):
        getattr(F, name)(**arguments)
    assert memory_of(arguments) == before


@pytest.mark.parametrize(
    "options, error, pattern",
    [
        ({"ignore_index": 2**64 - 1}, ValueError, "^ignore_index must fit 64 bits, got 1844"),
        ({"ignore_index": 2**63 - 1}, ValueError, r"^ignore_index must be less than 2\^63 - 1"),
        ({"ignore_index": None}, TypeError, "^ignore_index must be an integer, got NoneType"),
        ({"axis": 10**30}, ValueError, "^axis must fit 64 bits, got 1000"),
        ({"axis": 1.5}, TypeError, "^axis must be an integer, got float"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_refusal_of_integers(name, options, error, pattern):
    with pytest.raises(error, match=pattern):
        getattr(F, name)(**{**base_call(), **options})


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_an_array_like_raises_is_passed_on(error):
    class Lazy:
        def __array__(self, dtype=None, copy=None):
            raise error

    with pytest.raises(error):
        F.cross_entropy(Lazy(), [0, 1])


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_an_overflow_is_no_error(name):
    """Where NumPy would raise, the outputs are written already."""
    x = np.array([[-3e38, 3e38], [-3e38, 3e38]], np.float32)
    with np.errstate(all="raise"):
        loss, grad = getattr(F, name)(x, [0, 0], reduction="sum", return_grad=True)
    assert loss == np.inf
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_an_empty_list_is_a_target(name):
    assert getattr(F, name)(np.zeros((0, 3)), [], reduction="sum") == 0
    assert getattr(F, name)(np.zeros((0, 3, 2)), np.zeros((0, 2)), reduction="sum") == 0


@pytest.mark.parametrize("name, argument", [("entropy", "p"), ("softmax", "input")])
def test_the_axis_of_a_number(name, argument):
    with pytest.raises(ValueError, match=f"^{argument} must have at least one axis"):
        getattr(F, name)(1.0, axis=0)


@pytest.mark.parametrize(
    "threads, error",
    [
        (-1, ValueError),
        ("2", TypeError),
        (1.5, TypeError),
        (10**6, ValueError),
        (2**70, ValueError),
    ],
)
def test_refusal_of_threads(threads, error):
    before = crossent.get_num_threads()
    with pytest.raises(error):
        crossent.set_num_threads(threads)
    assert crossent.get_num_threads() == before
