"""Every argument of every function and class, given what it cannot take: the type of the error, a
message that names argument, value and place, and no byte changed.

The signatures say what there is to test: an argument without a row fails.
"""

import functools
import inspect
import itertools
import re
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from reference import INTEGERS

import crossent
import crossent.functional as F
from crossent import _core, modules

FLOATING = np.float32
IN = r"\["
ROWS, CLASSES = 4, 3
SHAPE = (ROWS, CLASSES)
FUNCTIONS = [name for name in F.__all__ if inspect.isfunction(getattr(F, name))]
MODULES = {function: module for function, module in _core.losses() if module is not None}
OF_CLASSES = ("cross_entropy", "nll_loss", "token_log_prob")
FIRST = ("input", "inputs", "logits", "p", "p_logits")
SECOND = ("target", "targets", "q", "q_logits")


def arguments_of(name):
    return inspect.signature(getattr(F, name)).parameters


def first_of(name):
    return next(argument for argument in FIRST if argument in arguments_of(name))


def second_of(name):
    return next((argument for argument in SECOND if argument in arguments_of(name)), None)


def has_one_loss_a_row(name):
    """Whether losses are summed over classes, rather than one an element."""
    whole = {"reduction": "none"} if "reduction" in arguments_of(name) else {}
    answer = getattr(F, name)(**base_call(name), **whole)
    return np.shape(answer[0] if isinstance(answer, tuple) else answer) == (ROWS,)


def numbers(shape=SHAPE, dtype=FLOATING):
    """In (0, 1], so that they are anything: logits, probabilities, weights."""
    return ((np.arange(np.prod(shape)) % 7 + 1) / 8).reshape(shape).astype(dtype)


def base_call(name):
    """A call that is accepted, in new memory."""
    call = {first_of(name): numbers()}
    second = second_of(name)
    if second is not None:
        call[second] = np.array([0, 2, 1, 2]) if name in OF_CLASSES else numbers()
    if arguments_of(name).get("axis") is not None and name in (
        "softmax",
        "log_softmax",
        "logsumexp",
    ):
        call["axis"] = 1
    return call


class Row(NamedTuple):
    """What differs from the base call, and the error. The pattern follows the argument's name."""

    case: str
    change: object
    error: object
    pattern: str


def values(error, pattern, *given):
    """An option's values that are refused; `{}` in the pattern is the value."""
    for value in given:
        shown = pattern.replace("{}", re.escape(str(value)))
        yield Row(f"{value!r}"[:30], value, error, shown)


def masked(array):
    return np.ma.masked_array(array, mask=np.zeros(np.shape(array), bool))


def kinds(want, shape=SHAPE, integers=False, number_may_be=False):
    """What is no array of real numbers."""
    given = [
        (np.zeros(shape, bool), "bool"),
        (np.zeros(shape, np.complex64), "complex64"),
        (np.zeros(shape, np.longdouble), np.dtype(np.longdouble).name),
        (np.zeros(shape, object), "object"),
        (np.full(shape, "a"), "<U1"),
        (np.full(shape, b"a"), r"\|S1"),
        (np.zeros(shape, "M8[s]"), r"datetime64\[s\]"),
        (np.zeros(shape, "m8[s]"), r"timedelta64\[s\]"),
        (np.zeros(shape, [("a", "f4")]), r"\[\('a', '<f4'\)\]"),
        (np.zeros(shape, "V4"), r"\|V4"),
        (np.zeros(shape, ml_dtypes.float8_e4m3fn), "float8_e4m3fn"),
        ("a", "<U1"),
        ({"a": 1}, "object"),
        (object(), "object"),
    ]
    if not integers:
        given += [(np.zeros(shape, dtype), dtype.name) for dtype in INTEGERS]
        given += [(np.zeros(shape, int).tolist(), "int64")]
    for value, name in given:
        case = name.replace("\\", "") + (" array" if isinstance(value, np.ndarray) else " object")
        yield Row(case, value, TypeError, f"must be {want}, got {name}")
    yield Row("masked", masked(np.ones(shape, FLOATING)), TypeError, "must not be a masked array")
    yield Row(
        "ragged", [[1.0], [1.0, 2.0]], TypeError, "must be an array or array-like: .*inhomogen"
    )


def first(name):
    yield from kinds("a floating-point array")
    yield Row("None", None, TypeError, "must be a floating-point array, got object")
    if "axis" in arguments_of(name) or name.startswith("multilabel"):
        yield Row("no axis", FLOATING(1), ValueError, "must have at least one axis, got a number")


def second(name):
    want = (
        "a floating-point array" if second_of(name).startswith("q") else "an array of real numbers"
    )
    yield from kinds(want, integers=not second_of(name).startswith("q"))
    yield Row("None", None, TypeError, f"must be {want}, got object")
    of = rf"must have the shape of {first_of(name)} \(4, 3\), got "
    for shape in ((4,), (3, 4), (4, 3, 1), (1, 3), (), (0,), (12,)):
        shown = re.escape(str(shape))
        yield Row(f"shape {shape}", numbers(shape), ValueError, of + shown)


def classes(name):
    """Class indices; of `cross_entropy` also probabilities."""
    soft = name == "cross_entropy"
    want = r"an array of integers" + (
        r" \(class indices\) or of floats \(probabilities\)" if soft else ""
    )
    yield from kinds(want, (ROWS,), integers=True)
    yield Row("None", None, TypeError, f"must be {want}, got object")
    for shape in ((3,), (5,), (4, 3), (4, 1), (), (1,), (0,)):
        shown = re.escape(str(shape))
        yield Row(
            f"shape {shape}",
            np.zeros(shape, int),
            ValueError,
            rf"must have shape \(4,\) \(class indices for input of shape \(4, 3\)\), got {shown}",
        )
    if soft:
        for shape in ((4,), (3, 4), (4, 1), ()):
            shown = re.escape(str(shape))
            yield Row(
                f"probabilities of shape {shape}",
                numbers(shape),
                ValueError,
                rf"must have shape \(4, 3\) \(probabilities .*, got {shown}",
            )
    else:
        yield Row("floats", np.zeros(ROWS), TypeError, "must be an array of integers, got float64")
    yield Row(
        "no classes",
        lambda call: {"input": np.zeros((4, 0), FLOATING)},
        IndexError,
        r"\[0\] = 0 is out of range for 0 classes",
    )
    for at, value in itertools.product((0, 1, 3), (3, -1, 2**31, 2**32, -(2**63))):
        target = np.zeros(ROWS, int)
        target[at] = value
        yield Row(
            f"{value} at {at}",
            target,
            IndexError,
            rf"\[{at}\] = {value} is out of range for 3 classes",
        )
    if "ignore_index" in arguments_of(name):
        yield Row(
            "what was ignored by default",
            lambda call: {"target": np.array([0, -100, 1, 2]), "ignore_index": 1},
            IndexError,
            r"\[1\] = -100 is",
        )


def shaped(want, *shapes):
    for shape in shapes:
        shown = re.escape(str(shape))
        yield Row(f"shape {shape}", np.ones(shape, FLOATING), ValueError, f"{want}.*, got {shown}")


def weight(name):
    yield from kinds("an array of real numbers", (CLASSES,), integers=True)
    if name in OF_CLASSES:
        yield from shaped(r"must have shape \(3,\), one per class", (4,), (3, 1), (), (0,), (4, 3))
    else:
        yield from shaped(
            rf"must broadcast to the shape of {first_of(name)} \(4, 3\)",
            (4,),
            (3, 1),
            (1, 4, 3),
            (0,),
        )


def sample_weight(name):
    rows = has_one_loss_a_row(name)
    yield from kinds("an array of real numbers", (ROWS,) if rows else SHAPE, integers=True)
    losses = (
        r"must have the shape \(4,\) of the losses"
        if rows
        else r"must have the shape \(4, 3\) of the losses"
    )
    yield from shaped(losses, (3,), (4, 1), (), (0,), *([SHAPE] if rows else [(4,), (3, 4)]))


def class_mask(name):
    for array in (np.ones(SHAPE), np.ones(SHAPE, int), np.ones(SHAPE, object), np.full(SHAPE, "a")):
        yield Row(
            f"{array.dtype}", array, TypeError, f"must be an array of booleans, got {array.dtype}"
        )
    yield Row("list", [1, 1, 0], TypeError, "must be an array of booleans, got int64")
    yield Row("masked", masked(np.ones(SHAPE, bool)), TypeError, "must not be a masked array")
    for shape in ((4,), (3, 1), (2, 4, 3), (0,)):
        shown = re.escape(str(shape))
        yield Row(
            f"shape {shape}",
            np.ones(shape, bool),
            ValueError,
            rf"must broadcast to the input's shape \(4, 3\), got {shown}",
        )


def axis(name):
    yield from values(
        ValueError, r"must be in \[-2, 2\) for .* of shape \(4, 3\), got {}", 2, -3, 100, -(2**63)
    )
    yield from values(ValueError, "must fit 64 bits, got {}", 10**30)
    yield Row("0.5", 0.5, TypeError, "must be an integer, got float")
    yield Row("string", "1", TypeError, "must be an integer, got str")
    yield Row("tuple", (0, 1), TypeError, "must be an integer, got tuple")
    if arguments_of(name)["axis"].default is not None:
        yield Row("None", None, TypeError, "must be an integer, got NoneType")


def not_numbers(optional):
    given = [
        ("a", "str"),
        (1j, "complex"),
        ([1.0, 2.0], "list"),
        (np.ones(2), "ndarray"),
        (object(), "object"),
    ]
    for value, kind in given + ([] if optional else [(None, "NoneType")]):
        yield Row(kind, value, TypeError, f"must be a number, got {kind}")
    yield Row("too large", 10**400, ValueError, "must fit a float, got 1000")


def option(pattern, *wrong, optional=False):
    """An option that is a number."""
    return lambda name: [*not_numbers(optional), *values(ValueError, pattern, *wrong)]


def of_the_mean(name, value):
    """What is refused where the reduction is none to divide."""
    for reduction in ("sum", "none"):
        change = {"reduction": reduction, "SUBJECT": value}
        why = f"must not be given where reduction is not 'mean', got \"{reduction}\""
        yield Row(f"with {reduction}", lambda call, c=change: c, ValueError, why)


def denominator(name):
    yield from option("must be positive and finite, got {}", 0, -1.5, optional=True)(name)
    yield from values(
        ValueError, "must be positive and finite, got (?i:{})", np.nan, np.inf, -np.inf
    )
    yield from of_the_mean(name, 2.0)


def empty(name):
    yield from not_numbers(False)
    yield from of_the_mean(name, 0.0)


def positive(optional):
    def rows(name):
        yield from not_numbers(optional)
        yield from values(ValueError, "must be positive and finite, got {}", 0, -1.5)
        yield from values(
            ValueError, "must be positive and finite, got (?i:{})", np.nan, np.inf, -np.inf
        )

    return rows


def reduction(name):
    names = (
        "'none', 'mean', 'batchmean' or 'sum'" if name == "kl_div" else "'none', 'mean' or 'sum'"
    )
    yield from values(ValueError, f'must be {names}, got "{{}}"', "avg", "", "Mean", "mean ")
    for value in (None, 1, b"mean", ["mean"]):
        yield Row(f"{value!r}", value, TypeError, f"must be a string, got {type(value).__name__}")


def ignore_index(name):
    for value, kind in (
        (1.5, "float"),
        ("1", "str"),
        (None, "NoneType"),
        ([1], "list"),
        (1j, "complex"),
    ):
        yield Row(kind, value, TypeError, f"must be an integer, got {kind}")
    yield from values(ValueError, "must fit 64 bits, got {}", 2**63, 2**64 - 1, -(2**63) - 1)
    yield from values(ValueError, r"must be less than 2\^63 - 1, got {}", 2**63 - 1)
    if name == "cross_entropy":
        yield Row(
            "with probabilities",
            lambda call: {"target": numbers(), "SUBJECT": 1},
            ValueError,
            "must be negative .*got 1",
        )


def flag(name):
    both = name.startswith(("kl_divergence", "js_divergence"))
    for value in ("a", 1, None, 1.0, [True], np.array([True, False])):
        if both:
            yield Row(f"{value!r}", value, ValueError, "must be True, False or 'both', got ")
        else:
            yield Row(f"{value!r}", value, TypeError, f"must be a bool, got {type(value).__name__}")


def grad_output(name):
    if name == "token_log_prob":
        for value in (1.0, (1.0,), (1.0, 2.0, 3.0), "a", np.ones(3)):
            yield Row(
                f"{value!r}", value, TypeError, f"must be a pair, .*got {type(value).__name__}"
            )
        for at in (0, 1):

            def pair(value, at=at):
                return tuple(value if i == at else 1.0 for i in range(2))

            for row in kinds("an array of real numbers", (ROWS,), integers=True):
                yield Row(
                    f"[{at}] {row.case}", pair(row.change), row.error, rf"\[{at}\] {row.pattern}"
                )
            yield Row(
                f"[{at}] shape",
                pair(np.ones(3)),
                ValueError,
                rf"\[{at}\] must be a number or have target's shape \(4,\), got \(3,\)",
            )
        return
    reduces = "reduction" in arguments_of(name)
    losses = r"\(4,\)" if has_one_loss_a_row(name) else r"\(4, 3\)"
    yield from kinds("an array of real numbers", (), integers=True)
    of_losses = f"must be a number or have the loss's shape {losses}, got "
    for shape in ((3,), (4, 4), (1,), (0,)):
        shown = re.escape(str(shape))
        change = {"return_grad": True, "SUBJECT": np.ones(shape)}
        if reduces:
            of_mean = {**change, "reduction": "mean"}
            yield Row(
                f"shape {shape} of a number",
                lambda call, c=of_mean: c,
                ValueError,
                rf"must be a number or have the loss's shape \(\), got {shown}",
            )
            change = {**change, "reduction": "none"}
        yield Row(f"shape {shape}", lambda call, c=change: c, ValueError, of_losses + shown)


def over(argument, shift):
    """An output that starts `shift` bytes into another argument's memory."""

    def change(call):
        taken = call[argument]
        memory = np.zeros(256, np.uint8)
        there = memory[64 : 64 + taken.nbytes].view(taken.dtype).reshape(taken.shape)
        there[...] = taken
        out = memory[64 + shift : 64 + shift + 48].view(FLOATING).reshape(SHAPE)
        return {argument: there, "SUBJECT": out}

    return change


def output(name, others=()):
    yield Row(
        "another shape",
        np.zeros((3, 4), FLOATING),
        ValueError,
        r"must have the input's shape \(4, 3\), got \(3, 4\)",
    )
    for shape in ((12,), (), (0, 3), (4, 3, 1)):
        yield Row(
            f"shape {shape}", np.zeros(shape, FLOATING), ValueError, "must have the input's shape"
        )
    for dtype in (np.float64, np.float16, np.int32, bool, object, "U1", "M8[s]", [("a", "f4")]):
        yield Row(
            f"type {dtype}",
            np.zeros(SHAPE, dtype),
            TypeError,
            "must have the input's type float32, got ",
        )
    for value in (np.zeros(SHAPE).tolist(), memoryview(np.zeros(SHAPE, FLOATING)), 1.0, "a"):
        kind = type(value).__name__
        yield Row(kind, value, TypeError, f"must be a NumPy array, got {kind}")
    yield Row("masked", masked(np.zeros(SHAPE, FLOATING)), TypeError, "must not be a masked array")
    read_only = np.zeros(SHAPE, FLOATING)
    read_only.flags.writeable = False
    yield Row("read-only", read_only, ValueError, "must be writeable, got a read-only array")
    stride = np.lib.stride_tricks.as_strided
    yield Row(
        "0-stride",
        stride(np.zeros(3, FLOATING), SHAPE, (0, 4)),
        ValueError,
        r"must not overlap itself, got shape \(4, 3\) with strides \[0, 4\]",
    )
    yield Row(
        "rows that share",
        stride(np.zeros(12, FLOATING), SHAPE, (4, 4)),
        ValueError,
        "must not overlap itself",
    )
    yield Row(
        "elements that share",
        stride(np.zeros(64, np.uint8).view(FLOATING), SHAPE, (6, 2)),
        ValueError,
        "must not overlap itself",
    )
    this = first_of(name)
    for shift in (-44, -12, -4, 1, 4, 12, 44):
        yield Row(
            f"{shift} bytes past {this}", over(this, shift), ValueError, f"must not overlap {this}"
        )
    yield Row(
        "the input backwards",
        lambda call: {"SUBJECT": call[this][::-1]},
        ValueError,
        f"must not overlap {this} unless it is {this} itself",
    )
    other = second_of(name)
    if other is not None:
        yield Row(f"over {other}", over(other, 4), ValueError, f"must not overlap {other}")
    arrays = {"weight": (CLASSES,), "pos_weight": (CLASSES,), "class_mask": (CLASSES,)}
    if "sample_weight" in arguments_of(name):
        arrays["sample_weight"] = (ROWS,) if has_one_loss_a_row(name) else SHAPE
    for argument, shape in arrays.items():
        if argument in arguments_of(name):
            yield Row(
                f"over {argument}",
                lambda call, a=argument, s=shape: over(a, 0)(
                    {a: np.ones(s, bool if a == "class_mask" else FLOATING)}
                ),
                ValueError,
                f"must not overlap {argument}",
            )
    upstream = (ROWS,) if has_one_loss_a_row(name) else SHAPE
    if "grad_output" in arguments_of(name) and name != "token_log_prob":
        none = {"reduction": "none"} if "reduction" in arguments_of(name) else {}
        yield Row(
            "over grad_output",
            lambda call: {
                **none,
                **over("grad_output", 0)({"grad_output": np.ones(upstream, FLOATING)}),
            },
            ValueError,
            "must not overlap grad_output",
        )


def grad_out(name):
    yield from output(name)
    if not name.startswith(("kl_divergence", "js_divergence")):
        return
    both = {"return_grad": "both"}
    for value in (np.zeros(SHAPE, FLOATING), (np.zeros(SHAPE, FLOATING),), 1.0):
        yield Row(
            f"no pair: {type(value).__name__}",
            lambda call, v=value: {**both, "SUBJECT": v},
            TypeError,
            f"must be a pair of arrays where return_grad is 'both', got {type(value).__name__}",
        )
    for at in (0, 1):
        for row in output(name):
            if callable(row.change):
                continue
            pair = tuple(row.change if i == at else np.zeros(SHAPE, FLOATING) for i in range(2))
            yield Row(
                f"[{at}] {row.case}",
                lambda call, p=pair: {**both, "SUBJECT": p},
                row.error,
                rf"\[{at}\] {row.pattern}",
            )
    same = np.zeros(SHAPE, FLOATING)
    yield Row(
        "the same twice",
        lambda call: {**both, "SUBJECT": (same, same)},
        ValueError,
        r"\[1\] must not overlap grad_out\[0\]",
    )
    yield Row(
        "swapped",
        lambda call: {**both, "SUBJECT": (call[second_of(name)], call[first_of(name)])},
        ValueError,
        rf"\[0\] must not overlap {second_of(name)}",
    )


def hess_out(name):
    yield from output(name)
    same = np.zeros(SHAPE, FLOATING)
    yield Row(
        "grad_out",
        lambda call: {"grad_out": same, "SUBJECT": same},
        ValueError,
        "must not overlap grad_out",
    )
    yield Row(
        "both the input",
        lambda call: dict.fromkeys(("grad_out", "SUBJECT"), call[first_of(name)]),
        ValueError,
        "must not overlap grad_out",
    )


def base(name):
    yield from not_numbers(True)
    yield from values(ValueError, "must be positive.*got {}", 0, -2.5, 1)
    yield from values(ValueError, "must be positive.*got (?i:{})", np.nan, np.inf)


# The rows of each argument, of the function that has it.
REFUSALS = {
    **dict.fromkeys(FIRST, first),
    **dict.fromkeys(SECOND, lambda name: classes(name) if name in OF_CLASSES else second(name)),
    "weight": weight,
    "pos_weight": weight,
    "sample_weight": sample_weight,
    "class_mask": class_mask,
    "ignore_index": ignore_index,
    "reduction": reduction,
    "axis": axis,
    "denominator": denominator,
    "empty": empty,
    "temperature": positive(optional=False),
    "softcap": positive(optional=True),
    "label_smoothing": option(r"must be in \[0, 1\], got (?i:{})", -0.1, 1.5, np.nan, np.inf),
    "z_loss": option("must be .*got (?i:{})", np.nan, np.inf, -np.inf),
    "alpha": option(r"must be in \[0, 1\] or negative, got (?i:{})", 1.5, np.nan, np.inf),
    "gamma": option("must be at least 0 and finite, got (?i:{})", -1.5, np.nan, np.inf),
    "base": base,
    "log_target": flag,
    "keepdims": flag,
    "return_grad": flag,
    "return_hess": flag,
    "grad_output": grad_output,
    "grad_out": grad_out,
    "hess_out": hess_out,
    "out": output,
}


ARGUMENTS = [(name, argument) for name in FUNCTIONS for argument in arguments_of(name)]


def memory_of(value):
    """The bytes of every array in some arguments."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        whole = (
            value if value.base is None or not isinstance(value.base, np.ndarray) else value.base
        )
        return [value.tobytes(), whole.tobytes()]
    if isinstance(value, dict):
        value = list(value.values())
    return [memory_of(each) for each in value] if isinstance(value, list | tuple) else []


def of_module(name, /, **arguments):
    """The same call through the loss's class."""
    settings = inspect.signature(getattr(crossent, MODULES[name])).parameters
    options = {k: v for k, v in arguments.items() if k in settings}
    call = {k: v for k, v in arguments.items() if k not in settings}
    return getattr(crossent, MODULES[name])(**options)(**call)


OUTPUTS = ("grad_out", "hess_out", "out")


def outputs_of(name, shape=SHAPE):
    """Arrays for all outputs that a function takes, full of sevens."""
    taken = [output for output in OUTPUTS if output in arguments_of(name)]
    return {output: np.full(shape, 7, FLOATING) for output in taken}


def refuse(name, argument, row):
    """Makes a call that is to be refused, by each door; what is amiss, or None."""
    call = base_call(name)
    change = row.change(call) if callable(row.change) else {"SUBJECT": row.change}
    call.update({argument if key == "SUBJECT" else key: value for key, value in change.items()})
    if argument not in OUTPUTS:
        subject = call[first_of(name)]
        shape = subject.shape if isinstance(subject, np.ndarray | np.generic) else SHAPE
        call = {**outputs_of(name, shape), **call}
    before = memory_of(call)
    # What is wrong inside an argument follows its name at once: grad_out[1].
    pattern = f"{argument}{row.pattern if row.pattern.startswith(IN) else ' ' + row.pattern}"
    doors = [getattr(F, name)]
    if name in MODULES:
        doors.append(functools.partial(of_module, name))
    for door in doors:
        try:
            door(**call)
        except Exception as error:
            if type(error) is not row.error or not re.match(pattern, str(error)):
                return f"{error!r}, not {row.error.__name__} {pattern!r}"
        else:
            return "no error"
        if memory_of(call) != before:
            return "changed"
    return None


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_refusals(name, argument):
    assert argument in REFUSALS, f"no rows for {argument} of {name}"
    rows = list(REFUSALS[argument](name))
    assert rows, f"no rows for {argument} of {name}"
    amiss = {row.case: what for row in rows if (what := refuse(name, argument, row)) is not None}
    assert not amiss


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_base_call_is_accepted(name):
    getattr(F, name)(**base_call(name))
    if name in MODULES:
        of_module(name, **base_call(name))


@pytest.mark.parametrize("name, module", MODULES.items())
def test_a_class_has_its_functions_arguments(name, module):
    cls = getattr(crossent, module)
    both = [inspect.signature(cls).parameters, inspect.signature(cls.__call__).parameters]
    assert {*both[0], *both[1]} - {"self"} == set(arguments_of(name))
    assert set(modules.__all__) == set(MODULES.values())


def is_valid(dtype, value):
    bounds = np.iinfo(dtype)
    return bounds.min <= value <= bounds.max


# With what an index in another type could be mistaken for, and shapes whose rows are counted in
# other orders.
@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 4, 5), (3,)], ids=str)
def test_a_class_out_of_range(name, dtype, shape):
    rows = (*shape[: len(shape) > 1], *shape[2:])
    x = numbers(shape)
    last = int(np.prod(rows)) - 1
    wraps = (3, -1, 127, 156, 2**16, 2**32, 2**63, 2**63 + 1, 2**64 - 100, -(2**63), 2**31)
    for at in sorted({0, last // 2, last}):
        index = np.unravel_index(at, rows)
        place = "[" + ", ".join(map(str, index)) + "]" if rows else ""
        for value in filter(functools.partial(is_valid, dtype), wraps):
            for order in "CF":
                target = np.zeros(rows, dtype, order)
                target[index] = value
                grad = np.full_like(x, 7, order=order)
                with pytest.raises(IndexError) as raised:
                    getattr(F, name)(x, target, grad_out=grad)
                assert str(raised.value) == f"target{place} = {value} is out of range for 3 classes"
                with pytest.raises(IndexError) as raised:
                    getattr(F, name)(x, target)
                assert str(raised.value) == f"target{place} = {value} is out of range for 3 classes"
                assert np.all(grad == 7)
                assert target[index] == value


# Functions of probabilities, and what is refused of which argument.
PROBABILITIES = {
    ("binary_cross_entropy", "input"): (-0.25, 1.5, np.inf),
    ("binary_entropy", "p"): (-0.25, 1.5, np.inf),
    ("entropy", "p"): (-0.25, -np.inf),
    ("kl_divergence", "p"): (-0.25, -np.inf),
    ("kl_divergence", "q"): (-0.25, -np.inf),
    ("js_divergence", "p"): (-0.25, -np.inf),
    ("js_divergence", "q"): (-0.25, -np.inf),
}


@pytest.mark.parametrize("name, argument", PROBABILITIES, ids=str)
@pytest.mark.parametrize("at", [(0, 0), (2, 1), (3, 2)], ids=str)
def test_a_probability_out_of_range(name, argument, at):
    for value in PROBABILITIES[name, argument]:
        call = base_call(name)
        call[argument][at] = value
        before = memory_of(call)
        pattern = rf"^{argument}\[{at[0]}, {at[1]}\] must be a probability .*, got {value}$"
        outputs = outputs_of(name)
        for output in ({}, {"return_grad": True}, {"grad_out": call[first_of(name)]}, outputs):
            with pytest.raises(ValueError, match=pattern):
                getattr(F, name)(**call, **output)
            assert memory_of(call) == before
        assert all(np.all(output == 7) for output in outputs.values())


def test_a_probability_out_of_range_of_weight_0_is_accepted():
    p, grad = np.array([0.5, 1.5], FLOATING), np.full(2, 7, FLOATING)
    weight = np.array([1, 0], FLOATING)
    F.binary_cross_entropy(p, np.zeros(2, FLOATING), sample_weight=weight, grad_out=grad)
    assert np.array_equal(grad, [2, 0])


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
    x = numbers()
    for bad in (-1, 3, 2**62, -(2**63)):
        target = np.array([0, bad, 2, 1])
        loss, grad = getattr(F, name)(x, target, ignore_index=bad, return_grad=True)
        want = getattr(F, name)(x[[0, 2, 3]], target[[0, 2, 3]])
        assert loss == pytest.approx(want, rel=1e-6)
        assert np.isfinite(want)
        assert np.all(grad[1] == 0)


def test_keyword_only():
    x, y = base_call("cross_entropy").values()
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
