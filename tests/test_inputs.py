"""What is taken for an array besides NumPy's own: pandas, torch, buffers, DLPack, the array API.

Each is read where it lies, or the error says why not.
"""

import array
import sys

import array_api_strict
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from subprocesses import printed

import crossent
import crossent.functional as F

N = 500_000
COLUMNS = 4


class OnlyDLPack:
    """A library's array that NumPy's `asarray` does not know."""

    def __init__(self, holder):
        self.holder = holder

    def __dlpack__(self, **options):
        return self.holder.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.holder.__dlpack_device__()


class OnlyArray:
    """One that gives itself as NumPy's."""

    def __init__(self, holder):
        self.holder = holder

    def __array__(self, dtype=None, copy=None):
        return self.holder


class OnlyInterface:
    """One that shows where its memory is."""

    def __init__(self, holder):
        self.holder = holder

    @property
    def __array_interface__(self):
        return self.holder.__array_interface__


def frame(x):
    return pd.DataFrame(x, columns=list("abcd"), copy=False)


# What each makes of an array without a copy of its own.
WITHOUT_A_COPY = {
    "ndarray": lambda x: x,
    "a subclass": lambda x: x.view(type("Sub", (np.ndarray,), {})),
    "memoryview": memoryview,
    "pandas.DataFrame": frame,
    "torch.Tensor": torch.from_numpy,
    "a transposed torch.Tensor": lambda x: torch.from_numpy(np.asfortranarray(x).T).T,
    "array_api_strict": array_api_strict.asarray,
    "__dlpack__": OnlyDLPack,
    "__dlpack__ of torch": lambda x: OnlyDLPack(torch.from_numpy(x)),
    "__array__": OnlyArray,
    "__array_interface__": OnlyInterface,
}


def logits(rng, dtype=np.float32):
    return rng.standard_normal((N, COLUMNS)).astype(dtype)


@pytest.mark.parametrize("kind", WITHOUT_A_COPY)
def test_read_where_it_lies(kind, rng):
    """The gradient in place of the input shows whose memory was read."""
    x = logits(rng)
    y = rng.integers(0, COLUMNS, N)
    want, gradient = F.cross_entropy(x, y, return_grad=True)
    holder = WITHOUT_A_COPY[kind](x)
    loss, grad = F.cross_entropy(holder, y, return_grad=True)
    assert loss == want
    np.testing.assert_array_equal(grad, gradient)
    if kind == "a transposed torch.Tensor":
        return  # Made of a copy.
    memory = np.from_dlpack(holder) if kind.startswith("__dlpack__") else np.asarray(holder)
    assert np.shares_memory(memory, x)
    # It is the input itself, element for element: an overlap that is allowed, and no other is.
    assert F.cross_entropy(holder, y, grad_out=x)[0] == want
    np.testing.assert_array_equal(x, gradient)
    with pytest.raises(ValueError, match=r"^grad_out must not overlap input"):
        F.cross_entropy(holder, y, grad_out=x[::-1])


MEMORY = """
import sys
import numpy as np, pandas as pd, torch, array_api_strict
import crossent.functional as F
import test_inputs
kind = sys.argv[1]
x = np.ones((6_000_000, 4), np.float32)
holder = test_inputs.WITHOUT_A_COPY[kind](x)
y = np.zeros(len(x), np.uint8)
F.cross_entropy(test_inputs.WITHOUT_A_COPY[kind](x[:200_000]), y[:200_000])

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
assert abs(F.cross_entropy(holder, y) / np.log(4) - 1) < 1e-6
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak of memory")
@pytest.mark.parametrize("kind", ["pandas.DataFrame", "__dlpack__ of torch"])
def test_no_copy_of_96_megabytes(kind):
    assert int(printed(MEMORY, kind)) < 16 * 2**20


def test_targets_and_weights_of_pandas(rng):
    x = logits(rng)
    y = rng.integers(0, COLUMNS, N)
    weight = np.array([1.0, 2.0, 0.5, 1.0])
    want = F.cross_entropy(x, y, weight)
    table = frame(x)
    assert F.cross_entropy(table, pd.Series(y), pd.Series(weight)) == want
    for dtype in (np.int8, np.uint16, np.int32):
        assert F.cross_entropy(table, pd.Series(y.astype(dtype)), pd.Series(weight)) == want
    assert F.cross_entropy(table, pd.Series(pd.array(y, dtype="Int64")), weight) == want
    assert crossent.CrossEntropyLoss(pd.Series(weight))(table, pd.Series(y)) == want
    # Columns of one type each are put together, which copies.
    apart = pd.DataFrame({name: x[:, i].copy() for i, name in enumerate("abcd")})
    assert F.cross_entropy(apart, y, weight) == want
    assert F.entropy(pd.Series([0.5, 0.5]), base=2) == 1


@pytest.mark.parametrize(
    "target, error, pattern",
    [
        # NumPy gets it as objects or as floats, NaN for what is missing: no class indices.
        (pd.Series([0, None, 1], dtype="Int64"), (TypeError, ValueError), "^target must"),
        (pd.Series(["a", "b", "c"]), TypeError, "^target must be an array of integers"),
        (pd.Series(["a", "b", "a"], dtype="category"), TypeError, "^target must be an array"),
        (pd.Series(pd.date_range("2020", periods=3)), TypeError, "^target .*datetime64"),
        (pd.Series([0, 1, 4]), IndexError, r"^target\[2\] = 4 is out of range for 4 classes"),
        (pd.Series([True, False, True]), TypeError, "^target .*bool"),
    ],
    ids=str,
)
def test_refusals_of_pandas(target, error, pattern):
    with pytest.raises(error, match=pattern):
        F.cross_entropy(np.zeros((3, 4)), target)


def test_a_frame_of_several_types():
    mixed = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    with pytest.raises(TypeError, match=r"^input must be a floating-point array, got object"):
        F.softmax(mixed, 1)
    whole = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    with pytest.raises(TypeError, match=r"^input must be a floating-point array, got int64"):
        F.softmax(whole, 1)


def test_lists_and_buffers():
    want = F.cross_entropy(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([0, 1]))
    assert F.cross_entropy([[1.0, 2.0], [3.0, 0.0]], [0, 1]) == want
    assert F.cross_entropy(((1.0, 2.0), (3.0, 0.0)), (0, 1)) == want
    assert (
        F.cross_entropy(
            [array.array("d", [1, 2]), array.array("d", [3, 0])], array.array("q", [0, 1])
        )
        == want
    )
    assert F.cross_entropy(np.array([[1.0, 2.0], [3.0, 0.0]]), bytearray([0, 1])) == want
    matrix = np.array([[1.0, 2.0], [3.0, 0.0]]).view(np.matrix)
    assert F.cross_entropy(matrix, [0, 1]) == want


def test_bytes():
    x = np.zeros((2, 3))
    assert F.cross_entropy(x, memoryview(b"\0\1")) == F.cross_entropy(x, [0, 1])
    with pytest.raises(TypeError, match=r"^target must be an array of integers .*got \|S2"):
        F.cross_entropy(x, b"\1\1")


def test_torch_tensors_that_cannot_be_read():
    x = torch.zeros(2, 3)
    for tensor, why in (
        (x.clone().requires_grad_(), "requires grad"),
        (x.to(torch.bfloat16), "BFloat16"),
        (x.to("meta"), "meta"),
        (x.to_sparse(), "layout|Sparse|sparse"),
        (torch.conj(x.to(torch.complex64)), "complex|conj"),
    ):
        with pytest.raises(TypeError, match=rf"^input must be an? .*({why})"):
            F.softmax(tensor, 1)
    # bfloat16 by way of a view of its bits.
    bits = x.to(torch.bfloat16).view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    np.testing.assert_allclose(F.softmax(bits, 1).astype(float), 1 / 3, rtol=4e-3)


def test_what_dlpack_cannot_give():
    class Elsewhere(OnlyDLPack):
        def __dlpack__(self, **options):
            raise BufferError("the memory is of a GPU")

    with pytest.raises(TypeError, match=r"^input must be .*: the memory is of a GPU"):
        F.softmax(Elsewhere(np.zeros((2, 3))), 1)
    with pytest.raises(TypeError, match=r"^target must be an array of integers"):
        F.cross_entropy(np.zeros((2, 3)), OnlyDLPack(np.zeros(2, bool)))


@pytest.mark.parametrize(
    "kind", ["memoryview", "pandas.DataFrame", "torch.Tensor", "array_api_strict"]
)
def test_outputs_are_numpy_arrays(kind):
    """What is written to is said by its owner to be writeable: an ndarray alone says so."""
    holder = WITHOUT_A_COPY[kind](np.zeros((5, COLUMNS), np.float32))
    with pytest.raises(
        TypeError, match=rf"^out must be a NumPy array, got {type(holder).__name__}"
    ):
        F.softmax(np.zeros((5, COLUMNS), np.float32), 1, out=holder)
