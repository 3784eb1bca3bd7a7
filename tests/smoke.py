"""What an installed crossent computes, against decimal arithmetic of 50 digits.

    python -I tests/smoke.py

It is run where only the wheel and NumPy are installed (`make matrix`, releases), so it needs no
more than them and the standard library. -I keeps the checkout from being imported instead.
"""

import platform
import sys
import sysconfig
from decimal import Decimal, getcontext
from importlib import import_module, metadata, util

import numpy as np

import crossent
import crossent.functional as F

getcontext().prec = 50
getcontext().Emax, getcontext().Emin = 10**6, -(10**6)

# From docs/numerics.md: the distance that is promised, in ulp.
LOSS = {np.float32: 2, np.float64: 3}
GRAD = {np.float32: 6, np.float64: 8}

checked = 0
worst = 0.0


def close(name, got, wanted, ulps):
    """Fails unless each number is within so many ulp of the number that it should be."""
    global checked, worst
    got = np.asarray(got)
    wanted = np.asarray(wanted, dtype=object).reshape(got.shape)
    for at in np.ndindex(got.shape):
        nearest = got.dtype.type(str(wanted[at]))
        ulp = Decimal(float(np.spacing(abs(nearest))))
        away = abs(Decimal(float(got[at])) - wanted[at]) / ulp
        assert away <= ulps, (
            f"{name}{list(at)} is {got[at]!r}, {away:.2f} ulp from {wanted[at]:.20}"
        )
        worst = max(worst, float(away) / ulps)
        checked += 1


def same(name, got, wanted):
    """Fails unless two arrays are equal, as are their types."""
    global checked
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == wanted.dtype, f"{name}: {got.dtype}, not {wanted.dtype}"
    assert np.array_equal(got, wanted), f"{name}: {got!r}, not {wanted!r}"
    checked += got.size


def exact(array):
    """An array's numbers, without rounding."""
    found = np.empty(array.shape, dtype=object)
    for at in np.ndindex(array.shape):
        found[at] = Decimal(float(array[at]))
    return found


def softmax(row):
    """Probabilities of logits, and the logarithm of the sum of exponentials."""
    exponentials = [x.exp() for x in row]
    total = sum(exponentials)
    return np.array([e / total for e in exponentials], dtype=object), total.ln()


def known():
    """Numbers of docs/numerics.md and of textbooks, written out."""
    wanted = {
        "confident": Decimal("2.0611536203143807032389827988779e-9"),  # log(1 + exp(-20))
        "ties": Decimal("1.3862943611198906188344642429164"),  # log 4
        "classes": Decimal("6.9077552789821370520539743640531"),  # log 1000
        "two": Decimal("0.69314718055994530941723212145818"),  # log 2
    }
    confident = np.array([[20.0, 0.0]], dtype=np.float32)
    loss, grad = F.cross_entropy(confident, [0], return_grad=True)
    close("confident", loss, [wanted["confident"]], 2)
    same("confident, gradient", grad[0, 0], -grad[0, 1])
    close("ties", F.cross_entropy(np.full((1, 4), 1e8, np.float32), [2]), [wanted["ties"]], 2)
    halves = np.zeros((20000, 1000), dtype=np.float16)
    close("float16", F.cross_entropy(halves, np.zeros(20000, int)), [wanted["classes"]], 2)
    same("in bits", F.entropy(np.array([0.5, 0.25, 0.25]), base=2), np.float64(1.5))
    disjoint = F.js_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    close("disjoint", disjoint, [wanted["two"]], 3)
    p = np.array([0.2, 0.3, 0.5])
    same("to itself", F.kl_divergence(p, p), np.float64(0.0))


def classes(dtype, rng):
    """Cross-entropy, its gradient and the building blocks, on rows of several lengths."""
    for rows, count, spread in ((7, 2, 3.0), (5, 10, 8.0), (3, 33, 1.0), (2, 1000, 4.0)):
        logits = (rng.standard_normal((rows, count)) * spread).astype(dtype)
        target = rng.integers(0, count, rows)
        losses, gradients, sums, odds = [], [], [], []
        for row, chosen in zip(exact(logits), target, strict=True):
            p, total = softmax(row)
            losses.append(total - row[chosen])
            sums.append(total)
            odds.append(p)
            off = p.copy()
            off[chosen] = -sum(p[:chosen]) - sum(p[chosen + 1 :])
            gradients.append(off)
        name = f"{np.dtype(dtype).name} ({rows}, {count})"
        loss, grad = F.cross_entropy(logits, target, reduction="none", return_grad=True)
        close(f"cross_entropy {name}", loss, losses, LOSS[dtype])
        close(f"gradient {name}", grad, gradients, GRAD[dtype])
        close(f"softmax {name}", F.softmax(logits, 1), odds, 4)
        close(f"logsumexp {name}", F.logsumexp(logits, 1), sums, 4)

        # Layouts, types of targets and threads change no bit.
        swapped = logits.astype(logits.dtype.newbyteorder())
        for other in (np.asfortranarray(logits), logits[::-1].copy()[::-1], swapped):
            same(f"layout {name}", F.cross_entropy(other, target, reduction="none"), loss)
        for kind in (np.uint16, np.int32, np.uint64):
            narrow = target.astype(kind)
            same(f"{kind} {name}", F.cross_entropy(logits, narrow, reduction="none"), loss)
        inside = logits.copy()
        F.cross_entropy(inside, target, reduction="none", grad_out=inside)
        same(f"in place {name}", inside, grad)
        threads = crossent.get_num_threads()
        crossent.set_num_threads(1)
        same(f"one thread {name}", F.cross_entropy(logits, target, reduction="none"), loss)
        crossent.set_num_threads(threads)


def elements(dtype, rng):
    """Binary cross-entropy of logits, and entropy."""
    logits = (rng.standard_normal(50) * 6).astype(dtype)
    target = rng.integers(0, 2, 50).astype(dtype)
    losses, gradients = [], []
    for x, t in zip(exact(logits), target, strict=True):
        right = x if t else -x
        losses.append((1 + (-right).exp()).ln())
        gradients.append((-1 if t else 1) / (1 + right.exp()))
    loss, grad = F.binary_cross_entropy_with_logits(
        logits, target, reduction="none", return_grad=True
    )
    close("binary_cross_entropy_with_logits", loss, losses, LOSS[dtype])
    close("its gradient", grad, gradients, GRAD[dtype])

    p = rng.dirichlet(np.ones(20)).astype(dtype)
    close("entropy", F.entropy(p), [-sum(x * x.ln() for x in exact(p))], LOSS[dtype])


def refused(call, kind, message):
    """Fails unless a call raises an error of a kind whose message has a part."""
    try:
        call()
    except kind as error:
        found = str(error)
    else:
        found = "no error"
    assert message in found, f"{found}, not {message}"


def refusals():
    """Errors name the argument, nothing is written, and an extra that is missing says so."""
    grad = np.full((2, 3), 5.0)
    logits = np.zeros((2, 3))
    refused(lambda: F.cross_entropy(logits, [0, 7], grad_out=grad), IndexError, "target[1] = 7")
    same("a gradient that was refused", grad, np.full((2, 3), 5.0))
    if util.find_spec("torch") is None:
        extra = "pip install crossent[torch]"
        refused(lambda: import_module("crossent.torch"), ImportError, extra)


def main():
    assert metadata.version("crossent") == crossent.__version__
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        # An extension that did not declare itself safe would have brought the lock back.
        assert not sys._is_gil_enabled()
    rng = np.random.default_rng(0)
    known()
    for dtype in (np.float32, np.float64):
        classes(dtype, rng)
        elements(dtype, rng)
    refusals()
    print(
        f"crossent {crossent.__version__}, {platform.python_implementation()} "
        f"{platform.python_version()}, NumPy {np.__version__}, {crossent.simd_level()}: "
        f"{checked} numbers, the worst at {worst:.2f} of its bar"
    )


if __name__ == "__main__":
    sys.exit(main())
