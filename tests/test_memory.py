"""No copies of a large input, whatever its layout: the peak of resident memory, in a process alone.

The kernel's own record of the peak is reset after the input is made (Linux: /proc/self/clear_refs).
"""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIMIT = 16 * 2**20

SCRIPT = """
import sys

import ml_dtypes
import numpy as np

import crossent
import crossent.functional as F

layout, dtype, action = sys.argv[1:]
dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
MEGABYTES = 400
rows = {"many rows": 10_000_000, "image": 20, "one row": 1}.get(layout, 1000)
classes = MEGABYTES * 1_000_000 // dtype.itemsize // rows
if layout == "image":
    rows, classes = 20, 20


def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024


def call(x, y, **options):
    if action == "in place":
        options["grad_out"] = x
    if action == "gradient":
        options["return_grad"] = True
    if action == "softmax in place":
        return F.softmax(x, 1, out=x)
    if action == "nll_loss in place":
        return F.nll_loss(x, y, grad_out=x)[0]
    if action == "probabilities in place":
        q = np.broadcast_to(dtype.type(1 / classes), x.shape)
        return F.cross_entropy(x, q, grad_out=x)[0]
    got = F.cross_entropy(x, y, **options)
    return got[0] if isinstance(got, tuple) else got


# The pool, its scratch and every lazy import, before anything is measured.
small = np.zeros((500, 2000), np.float32)
F.cross_entropy(small, np.zeros(500, np.uint8), grad_out=small)

order = dtype
if layout == "big-endian":
    order = dtype.newbyteorder(">")
if layout == "Fortran":
    x = np.empty((classes, rows), order).T
elif layout == "misaligned":
    x = np.empty(rows * classes * dtype.itemsize + 1, np.uint8)[1:].view(dtype)
    x = x.reshape(rows, classes)
elif layout == "strided":
    x = np.empty((rows, classes), order)[:, ::2]
elif layout == "negative":
    x = np.empty((rows, classes), order)[::-1, ::-1]
elif layout == "image":
    x = np.empty((rows, classes, 1000, 1000 // dtype.itemsize), order)
else:
    x = np.empty((rows, classes), order)
classes = x.shape[1]
pattern = np.resize(np.arange(7, dtype=np.float32).astype(dtype), classes)
step = max(1, 1_000_000 // classes)
if x.ndim == 4:
    for image in x:
        image[...] = pattern[:, None, None]
else:
    for start in range(0, rows, step):
        x[start : start + step] = pattern
y = np.ones(x.shape[:1] + x.shape[2:], np.uint8)

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
got = call(x, y)
added = resident("VmHWM") - before

# Every row counts up from 0 to 6 again and again, and every target is class 1.
logits = np.arange(7, dtype=np.longdouble)
counts = np.array([len(range(first, classes, 7)) for first in range(7)])
total = np.sum(counts * np.exp(logits))
loss = np.log(total) - (np.sum(counts * logits) / classes if action.startswith("prob") else 1)
if action == "nll_loss in place":
    loss = -1
if not action.startswith("softmax"):
    assert abs(float(got) / loss - 1) < 1e-6, (got, loss)
if action == "in place":
    want = (np.exp(logits[:3]) / total - [0, 1, 0]) / y.size
    row = x[0, :3] if x.ndim == 2 else x[0, :3, 0, 0]
    bound = 0.01 * abs(want) + float(ml_dtypes.finfo(dtype).smallest_subnormal)
    assert np.all(abs(row.astype(np.float64) - want) <= bound), (row, want)
print(added)
"""

ACTIONS = ["loss", "in place"]
CASES = [
    *((layout, "float32", action) for layout in ("contiguous", "Fortran") for action in ACTIONS),
    *((layout, "float32", action) for layout in ("big-endian", "misaligned") for action in ACTIONS),
    *((layout, "float32", action) for layout in ("strided", "negative") for action in ACTIONS),
    *((layout, "float32", action) for layout in ("many rows", "image") for action in ACTIONS),
    *(("contiguous", dtype, action) for dtype in ("float16", "bfloat16") for action in ACTIONS),
    ("one row", "float32", "in place"),
    ("contiguous", "float64", "in place"),
    ("image", "float16", "in place"),
    ("Fortran", "float32", "probabilities in place"),
    ("contiguous", "float32", "softmax in place"),
    ("Fortran", "float32", "softmax in place"),
    ("Fortran", "float32", "nll_loss in place"),
]


def added_memory(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("layout, dtype, action", CASES)
def test_no_copy_of_the_input(layout, dtype, action):
    added = added_memory(layout, dtype, action)
    assert added < LIMIT, f"{added / 2**20:.1f} MiB"


@pytest.mark.parametrize("layout", ["contiguous", "Fortran"])
def test_a_gradient_takes_its_own_size(layout):
    added = added_memory(layout, "float32", "gradient")
    assert 390_000_000 < added < 400_000_000 + LIMIT, f"{added / 2**20:.1f} MiB"
