"""A compact battery for one instruction set, run as a script in a process of its own.

usage: python battery.py. CROSSENT_SIMD chooses the instruction set; the last line names it.
"""

import elements
import numpy as np
import reference
from layouts import LAYOUTS, like
from reference import FLOATS, assert_result, assert_within

import crossent
import crossent.functional as F


def check(x, target, **options):
    options.setdefault("reduction", "none")
    got = F.cross_entropy(x, target, return_grad=True, return_hess=True, **options)
    assert_result(got, reference.cross_entropy(x, target, **options), f"{x.dtype} {x.shape}")


def tails(rng, dtype):
    for n in range(1, 131):
        x = (rng.standard_normal((2, n)) * 4).astype(dtype)
        check(x, rng.integers(0, n, 2))
        weight = rng.uniform(0.1, 2, n).astype(dtype)
        for q in (rng.integers(0, n, 2), rng.dirichlet(np.ones(n), 2).astype(dtype)):
            check(x, q, label_smoothing=0.1)
            check(x, q, weight=weight)
            check(x, q, weight=weight, label_smoothing=0.1)
        for axis in (0, 1):
            softmax_bar = reference.SOFTMAX_BAR[dtype.name]
            assert_within(F.softmax(x, axis), reference.softmax(x, axis), softmax_bar)
            assert_within(F.log_softmax(x, axis), reference.log_softmax(x, axis), softmax_bar)
            assert_within(F.logsumexp(x, axis), reference.logsumexp(x, axis), 4, scale=1)
        x = (rng.standard_normal((n, 5)) * 4).astype(dtype)
        check(x, rng.integers(0, 5, n))
        check(np.ascontiguousarray(x.T), rng.integers(0, 5, n), axis=0)


def ranges(rng, dtype):
    for classes in (2, 3, 10, 17, 1000, 50257):
        count = 200 if classes < 1000 else 5
        for scale in (0.1, 3, 30, 100):
            x = (rng.standard_normal((count, classes)) * scale).astype(dtype)
            y = rng.integers(0, classes, count)
            q = rng.dirichlet(np.ones(classes), count).astype(dtype)
            weight = rng.uniform(0.1, 2, classes).astype(dtype)
            check(x, y)
            check(x, np.argmax(x.astype(np.float64), axis=1))
            check(x, q)
            check(x, y, label_smoothing=0.1, weight=weight)
            check(x, y, reduction="mean")
            if classes <= 1000:
                check(np.ascontiguousarray(x.T), y, axis=0)
    for shift in (-1e8, -3e4, -5000, -300, 300, 5000, 3e4, 1e8):
        if dtype.itemsize > 2:
            check((rng.standard_normal((20, 100)) * 20 + shift).astype(dtype), np.arange(20))


def edges(dtype):
    x = np.array([[1, -np.inf, 2], [0, np.inf, 0], [np.nan, 0, 0], [np.nan] * 3, [5, 5, 5]], dtype)
    y = np.array([2, 1, 0, -100, 1])
    check(x, y)
    check(np.ascontiguousarray(x.T), y, axis=0)
    grad = F.cross_entropy(x, y, return_grad=True)[1]
    assert np.all(grad[3] == 0)


def layouts(rng, dtype):
    values = (rng.standard_normal((3, 40, 7)) * 3).astype(dtype)
    y = rng.integers(0, 40, (3, 7))
    want = reference.cross_entropy(values, y)
    for layout in LAYOUTS:
        x, _ = like(layout, values)
        assert_result(F.cross_entropy(x, y, return_grad=True, return_hess=True), want)
        assert_result(F.cross_entropy(x, y, grad_out=x), want)


def blocks(rng, dtype):
    for axis in (0, 1, 2):
        x = (rng.standard_normal((5, 33, 6)) * 10).astype(dtype)
        bar = reference.SOFTMAX_BAR[dtype.name]
        assert_within(F.softmax(x, axis), reference.softmax(x, axis), bar)
        assert_within(F.log_softmax(x, axis), reference.log_softmax(x, axis), bar)
        assert_within(F.logsumexp(x, axis), reference.logsumexp(x, axis), 4, scale=1)
    x = rng.standard_normal((40, 9)).astype(dtype)
    y = rng.integers(0, 9, 40)
    got, want = (
        F.nll_loss(x, y, reduction="none", return_grad=True),
        reference.nll_loss(x, y, reduction="none"),
    )
    assert_within(got[0], want.loss, 2)
    assert_within(got[1], want.grad, 2)


# What a row may be that its neighbours are not: far above or below, tied, without numbers.
ODD = [
    lambda row: row + 30,
    lambda row: row - 45,
    lambda row: row + 1e4,
    lambda row: row * 40,
    lambda row: np.full_like(row, 7),
    lambda row: np.where(np.arange(len(row)) < 256, -np.inf, row),
    lambda row: np.where(np.arange(len(row)) == 3, np.nan, row),
    lambda row: np.where(np.arange(len(row)) == 3, np.inf, row),
]


def groups(rng, dtype):
    """Rows that are swept together, each kind of odd row first among them in turn, and some that do
    not count."""
    few = (59, 60, 61, 79, 80, 100)
    sizes = [(rows, classes) for rows in (1, 8, 9, 16, 17, 33) for classes in few]
    sizes += [(70, 77), (5, 4095), (4, 4096), (3, 4097), (2, 16383), (1, 16384), (2, 16385)]
    for number, (rows, classes) in enumerate(sizes):
        x = rng.standard_normal((rows, classes)) * 3
        y = rng.integers(0, classes, rows)
        g = rng.uniform(0.5, 2, rows)
        compare_alone(x.astype(dtype), y, g)
        for turn in range(len(ODD)) if classes < 4000 else [number % len(ODD)]:
            odd = x.copy()
            for row in range(min(rows, len(ODD))):
                odd[row] = ODD[(row + turn) % len(ODD)](odd[row])
            ignored = y.copy()
            ignored[2::5] = -100
            compare_alone(odd.astype(dtype), ignored, g)


def compare_alone(x, y, g):
    """The loss alone, and the gradient without a Hessian, in an array of its own and in place."""
    want = reference.cross_entropy(x, y, reduction="none", grad_output=g)
    got = F.cross_entropy(x, y, reduction="none", grad_output=g, return_grad=True)
    assert_result(got, want, f"{x.dtype} {x.shape}")
    loss = F.cross_entropy(x, y, reduction="none")
    assert_within(loss, want.loss, reference.LOSS_BAR[loss.dtype.name])
    bar = reference.SOFTMAX_BAR[x.dtype.name]
    assert_within(F.softmax(x, 1), reference.softmax(x, 1), bar)
    assert_within(F.log_softmax(x, 1), reference.log_softmax(x, 1), bar)
    assert_result(F.cross_entropy(x, y, reduction="none", grad_output=g, grad_out=x), want)


def losses_of_elements(rng, dtype):
    k = {"return_grad": True, "return_hess": True}
    for n in (1, 7, 8, 9, 31, 1023, 1024, 1025, 3000):
        for scale in (0.01, 1, 10, 60):
            x = (rng.standard_normal((2, n)) * scale).astype(dtype)
            for t in (rng.integers(0, 2, x.shape).astype(dtype), rng.random(x.shape).astype(dtype)):
                got = F.binary_cross_entropy_with_logits(x, t, None, "none", **k)
                assert_result(got, elements.bce_with_logits(x, t), "with logits")
                got = F.multilabel_soft_margin_loss(x, t, None, "none", **k)
                want = elements.by_rows(elements.bce_with_logits(x, t), "none")
                assert_result(got, want, "multilabel")
                p = F.sigmoid(x)
                loss, grad = F.binary_cross_entropy(p, t, None, "none", return_grad=True)
                want = elements.bce(p, t)
                assert_within(loss, want.loss, reference.LOSS_BAR[loss.dtype.name])
                assert_within(grad, want.grad, reference.GRAD_BAR[grad.dtype.name])
            got = F.soft_margin_loss(x, 2 * t - 1, "none", **k)
            assert_result(got, elements.soft_margin(x, 2 * t - 1), "soft margin")
            loss, grad = F.sigmoid_focal_loss(x, t.round(), return_grad=True)
            want = elements.focal(x, t.round())
            assert_within(loss, want.loss, reference.LOSS_BAR[loss.dtype.name])
            assert_within(grad, want.grad, reference.GRAD_BAR[grad.dtype.name], want.scale)
            wide = x.astype(np.float64).astype(np.longdouble)
            assert_within(F.sigmoid(x), elements.sigmoid(wide), 3)
            assert_within(F.logsigmoid(x), elements.logsigmoid(wide), 3)


def main():
    rng = np.random.default_rng(7)
    for dtype in FLOATS:
        tails(rng, dtype)
        ranges(rng, dtype)
        edges(dtype)
        layouts(rng, dtype)
        blocks(rng, dtype)
        groups(rng, dtype)
        losses_of_elements(rng, dtype)
    print(crossent.simd_level())


if __name__ == "__main__":
    main()
