"""Arrays against pages that nobody may touch, run as a script in a process of its own.

usage: python guarded.py. CROSSENT_SIMD chooses the instruction set; the last line names it.

Every array of a call, inputs and outputs, ends where a page without access begins, or begins where
one ends: one byte read or written too far, and the process dies of it. Before each call its name is
left in a file, which the test shows if this was the last one. Results are those of the same call on
ordinary memory, bit for bit.
"""

import ctypes
import mmap
import sys

import layouts
import numpy as np
from reference import FLOATS, INTEGERS

import crossent
import crossent.functional as F
from crossent import _core

PAGE, NO_ACCESS = mmap.PAGESIZE, 0
LIBC = ctypes.CDLL(None, use_errno=True)
EDGES = ("end", "start")

# Every tail of vectors of sixteen lanes, four at a time; where the traversals along classes begin,
# and where blocks end. Across rows every tail of a vector, at few classes and at many.
ALONG = [*range(1, 20), *range(58, 62), *range(79, 82), *range(111, 177), 4095, 4096, 4097, 4113]
ALONG += [16383, 16384, 16385]
ACROSS = [(3, n) for n in range(1, 36)] + [(40, n) for n in (1, 7, 8, 9, 15, 16, 17, 33)]


# What a call is asked for: outputs of their own, one in the input's place, the losses alone.
FORMS = ("outputs", "in place", "alone")


class Guarded:
    """Memory with a page without access on either side."""

    def __init__(self, count):
        self.room = max(1, -(-count // PAGE)) * PAGE
        self.map = mmap.mmap(-1, self.room + 2 * PAGE)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for page in (first, first + PAGE + self.room):
            if LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")

    def bytes(self, count, edge):
        start = PAGE + (self.room - count if edge == "end" else 0)
        array = np.frombuffer(self.map, np.uint8, count, start)
        array[:] = 0xFF
        return array


class Memory:
    """Guarded bytes, taken again once nothing holds them."""

    def __init__(self, edge):
        self.edge, self.free, self.taken = edge, {}, []

    def __call__(self, count):
        room = max(1, -(-count // PAGE))
        free = self.free.setdefault(room, [])
        guarded = free.pop() if free else Guarded(count)
        self.taken.append((room, guarded))
        return guarded.bytes(count, self.edge)

    def release(self):
        for room, guarded in self.taken:
            self.free[room].append(guarded)
        self.taken.clear()


MEMORY = {edge: Memory(edge) for edge in EDGES}


class Call:
    """What one call of a function needs, drawn for a shape: `make` answers (args, options)."""

    def __init__(self, rng, shape, axis, dtype):
        self.rng, self.shape, self.axis, self.dtype = rng, shape, axis, dtype
        self.rows = shape[:axis] + shape[axis + 1 :]
        self.wide = np.float64 if dtype == np.float64 else np.float32

    def logits(self):
        return (self.rng.standard_normal(self.shape) * 4).astype(self.dtype)

    def masses(self):
        return self.rng.random(self.shape).astype(self.dtype)

    def classes(self):
        count = self.shape[self.axis]
        fits = [dtype for dtype in INTEGERS if count - 1 <= np.iinfo(dtype).max]
        dtype = fits[self.rng.integers(len(fits))]
        return np.asarray(self.rng.integers(0, count, self.rows), dtype)

    def of_rows(self):
        return np.asarray(self.rng.random(self.rows), self.wide) + self.wide(0.5)

    def of_classes(self):
        return self.rng.random(self.shape[self.axis]).astype(self.wide)

    def mask(self):
        return self.rng.random(self.shape) < 0.9

    # One method a function: the calls that are made of it.

    def cross_entropy(self):
        plain, warped = {"axis": self.axis}, {"temperature": 1.3, "softcap": 30.0}
        none = {"reduction": "none", "axis": self.axis}
        rich = {"weight": self.of_classes(), "sample_weight": self.of_rows()}
        rich["grad_output"] = self.of_rows()
        yield (self.logits(), self.classes()), plain
        yield (self.logits(), self.classes()), {**plain, "hess": True}
        yield (self.logits(), self.classes()), {**none, **rich, "label_smoothing": 0.1}
        yield (self.logits(), self.masses()), {**plain, "hess": True}
        yield (
            (self.logits(), self.classes()),
            {**none, **warped, "class_mask": self.mask(), "z_loss": 1e-3},
        )

    def nll_loss(self):
        options = {"reduction": "none", "axis": self.axis, "sample_weight": self.of_rows()}
        options |= {"weight": self.of_classes(), "grad_output": self.of_rows()}
        yield (self.logits(), self.classes()), options

    def elementwise(self, inputs, hess=True, **weights):
        """With and without what there is one of an element."""
        hess = {"hess": True} if hess else {}
        yield inputs(), hess
        each = {name: self.masses() for name in ("sample_weight", "grad_output")}
        each |= {name: self.masses() for name in weights}
        yield inputs(), {"reduction": "none", **each, **hess}

    def binary_cross_entropy(self):
        yield from self.elementwise(lambda: (self.masses(), self.masses()), False, weight=True)

    def binary_cross_entropy_with_logits(self):
        weights = {"weight": True, "pos_weight": True}
        yield from self.elementwise(lambda: (self.logits(), self.masses()), **weights)

    def sigmoid_focal_loss(self):
        sure = (self.masses() > 0.5).astype(self.dtype)
        yield from self.elementwise(lambda: (self.logits(), self.masses()))
        yield (self.logits(), sure), {"reduction": "none"}

    def soft_margin_loss(self):
        yield from self.elementwise(lambda: (self.logits(), self.masses()))

    def kl_div(self):
        yield from self.elementwise(lambda: (self.logits(), self.masses()), False)

    def multilabel_soft_margin_loss(self):
        if self.axis != len(self.shape) - 1:
            return
        rows = {"sample_weight": self.of_rows(), "grad_output": self.of_rows()}
        yield (self.logits(), self.masses()), {"hess": True}
        yield (
            (self.logits(), self.masses()),
            {"reduction": "none", "weight": self.of_classes(), **rows},
        )

    def entropy(self):
        yield (self.masses(),), {"axis": self.axis, "grad_output": self.of_rows()}

    def entropy_with_logits(self):
        options = {"axis": self.axis, "grad_output": self.of_rows(), "hess": True}
        yield (self.logits(),), options
        yield (self.logits(),), {**options, "class_mask": self.mask(), "temperature": 1.3}

    def binary_entropy(self):
        yield (self.masses(),), {"grad_output": self.masses().astype(self.wide)}

    def two(self, inputs, **more):
        options = {"axis": self.axis, "grad_output": self.of_rows(), "both": True, **more}
        yield (inputs(), inputs()), options

    def kl_divergence(self):
        yield from self.two(self.masses)

    js_divergence = kl_divergence

    def kl_divergence_with_logits(self):
        yield from self.two(self.logits)
        yield from self.two(self.logits, class_mask=self.mask(), softcap=20.0)

    js_divergence_with_logits = kl_divergence_with_logits

    def token_log_prob(self):
        of_rows = (self.of_rows(), self.of_rows())
        yield (self.logits(), self.classes()), {"axis": self.axis, "grad_output": of_rows}

    def softmax(self):
        yield (self.logits(),), {"axis": self.axis, "map": True}
        yield (self.logits(),), {"axis": self.axis, "map": True, "class_mask": self.mask()}

    log_softmax = softmax

    def logsumexp(self):
        yield (self.logits(),), {"axis": self.axis, "map": False}

    def sigmoid(self):
        yield (self.logits(),), {"map": True}

    logsigmoid = sigmoid


FUNCTIONS = [name for name, _ in _core.losses()]
FUNCTIONS += ["softmax", "log_softmax", "logsumexp", "sigmoid", "logsigmoid"]


def guard(value, layout):
    """An argument against the edge: every array in it."""
    if isinstance(value, np.ndarray):
        return layouts.like(layout, value)[0]
    if isinstance(value, tuple):
        return tuple(guard(v, layout) for v in value)
    return value


def outputs(args, options, layout, form="outputs"):
    """Room for what the call gives, and the options without the words that ask for it."""
    options = dict(options)
    hess, both = options.pop("hess", False), options.pop("both", False)
    maps = options.pop("map", None)
    if form == "alone":
        # An upstream gradient is of a gradient.
        options.pop("grad_output", None)
        return options
    room = [args[0], args[-1]]
    if form != "in place":
        room = [layout(a.shape, a.dtype)[0] for a in room]
    if maps is not None:
        return {**options, **({"out": room[0]} if maps else {})}
    options["grad_out"] = tuple(room) if both else room[0]
    if both:
        options["return_grad"] = "both"
    if hess:
        options["hess_out"] = layout(args[0].shape, args[0].dtype)[0]
    return options


def flat(answer):
    if isinstance(answer, tuple):
        return [leaf for part in answer for leaf in flat(part)]
    return [np.asarray(answer)]


def walk(name, case, layout, note, form="outputs"):
    """Calls a function at both edges, and compares with ordinary memory in the same layout."""
    assert hasattr(case, name), f"tests/guarded.py: Call has no calls of {name}"
    for args, options in getattr(case, name)():
        layouts.allocate = layouts.fresh
        ordinary = [guard(a, layout) for a in args]
        kept = {k: guard(v, layout) for k, v in options.items()}
        want = flat(getattr(F, name)(*ordinary, **outputs(ordinary, kept, layout, form)))
        for edge in EDGES:
            note(f"{name} {case.shape} {case.axis} {case.dtype} {layout.__name__} {edge} {form}")
            layouts.allocate = MEMORY[edge]
            inputs = [guard(a, layout) for a in args]
            own = {k: guard(v, layout) for k, v in options.items()}
            got = flat(getattr(F, name)(*inputs, **outputs(inputs, own, layout, form)))
            for a, b in zip(got, want, strict=True):
                assert a.tobytes() == b.tobytes(), (name, args[0].shape, layout.__name__)
            del inputs, own, got
            MEMORY[edge].release()


def main():
    rng = np.random.default_rng(11)
    log = open(sys.argv[1], "w+b", buffering=0) if len(sys.argv) > 1 else None  # noqa: SIM115
    calls = 0

    def note(text):
        nonlocal calls
        calls += 1
        if log is not None:
            log.seek(0)
            log.write(text.ljust(120).encode())

    for name in FUNCTIONS:
        for dtype in FLOATS:
            for form in FORMS:
                for n in ALONG if form == "outputs" else ALONG[::2]:
                    walk(name, Call(rng, (2, n), 1, dtype), layouts.contiguous, note, form)
                for shape in ACROSS if form == "outputs" else ACROSS[::2]:
                    walk(name, Call(rng, shape, 0, dtype), layouts.contiguous, note, form)
                    walk(name, Call(rng, shape[::-1], 1, dtype), layouts.contiguous, note, form)
            for layout in layouts.LAYOUTS[1:]:
                for shape, axis in (((3, 37), 1), ((3, 150), 1), ((2, 5, 19), 1)):
                    walk(name, Call(rng, shape, axis, dtype), layout, note)
        # Rows and arrays that threads share, and outputs that are written past the caches.
        crossent.set_num_threads(3)
        for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
            walk(name, Call(rng, (1, 262_147), 1, dtype), layouts.contiguous, note)
            walk(name, Call(rng, (7, 30_011), 0, dtype), layouts.contiguous, note)
        large = np.dtype(np.float32)
        walk(name, Call(rng, (65, 33_001), 1, large), layouts.contiguous, note)
        walk(name, Call(rng, (3, 700_001), 0, large), layouts.contiguous, note)
        crossent.set_num_threads(1)
    print(calls, "calls")
    print(crossent.simd_level())


if __name__ == "__main__":
    main()
