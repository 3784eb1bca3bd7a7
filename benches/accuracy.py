"""The numbers: crossent beside torch, jax with optax, SciPy and scikit-learn.

First the cases in which others answer 0, inf or NaN, beside the formula that everyone writes, too.
Then the worst error of each loss and of the elements of its gradient, in ulp at the exact number,
over the same rows for all. The truth is mpmath's at 60 digits, or more.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mpmath import mp
from numpy.typing import NDArray

import crossent
import crossent.functional as F

Array = NDArray[Any]
Answer = Callable[..., tuple[Any, Any]]
# An exact number, and its size: that of the larger of the terms that cancel in it, if any do.
Number = tuple[Any, Any]
INF, NAN = np.inf, np.nan
# Of divergences of confident logits that are near each other, all but the last of 60 digits cancel.
DIGITS, MANY_DIGITS = 60, 200
mp.dps = DIGITS


def module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch, TF = module("torch"), module("torch.nn.functional")
jax, jax_special, optax = module("jax"), module("jax.scipy.special"), module("optax")
scipy, special = module("scipy"), module("scipy.special")
sklearn, metrics = module("sklearn"), module("sklearn.metrics")
sklearn_loss = module("sklearn._loss")

LIBRARIES: dict[str, tuple[Any, ...]] = {
    "crossent": (crossent,),
    "torch": (torch,),
    "jax/optax": (jax, optax),
    "SciPy": (scipy,),
    "scikit-learn": (sklearn,),
}
PRESENT = [name for name, modules in LIBRARIES.items() if None not in modules]

if jax is not None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)


def by_torch(function: Callable[..., Any], inputs: int = 1) -> Answer:
    """The losses, and the gradient with respect to the first arguments."""

    def answer(*arrays: Array) -> tuple[Any, Any]:
        tensors = [torch.tensor(array) for array in arrays]
        leaves = [tensor.requires_grad_() for tensor in tensors[:inputs]]
        loss = function(*tensors)
        grads = torch.autograd.grad(loss.sum(), leaves)
        return loss.detach().numpy(), np.concatenate([grad.numpy() for grad in grads], -1)

    return answer


def by_jax(function: Callable[..., Any], inputs: int = 1) -> Answer:
    def answer(*arrays: Array) -> tuple[Any, Any]:
        slope = jax.grad(lambda *a: function(*a).sum(), tuple(range(inputs)))
        loss, grads = jax.jit(lambda *a: (function(*a), slope(*a)))(*arrays)
        return np.asarray(loss), np.concatenate([np.asarray(grad) for grad in grads], -1)

    return answer


def by_scipy(function: Callable[..., Any]) -> Answer:
    def answer(*arrays: Array) -> tuple[Any, Any]:
        with np.errstate(all="ignore"):
            return function(*arrays), None

    return answer


# The cases


def of_crossent(x: Array, y: Array, **options: Any) -> tuple[Any, Any]:
    loss, grad = F.cross_entropy(x, y, return_grad=True, **options)
    return loss, grad


def of_torch(x: Array, y: Array, **options: Any) -> tuple[Any, Any]:
    if "weight" in options:
        options = options | {"weight": torch.tensor(options["weight"])}
    return by_torch(lambda x, y: TF.cross_entropy(x, y, **options))(x, y)


def of_formula(x: Array, y: Array, **options: Any) -> tuple[Any, Any]:
    """Shift by the maximum, sum the exponentials, take the logarithm, multiply by weights."""
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis=-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        if y.dtype.kind == "i":
            counts = y != options.get("ignore_index", -100)
            at = np.where(counts, y, 0)
            weight = options.get("weight", np.ones(x.shape[-1], x.dtype))[at] * counts
            losses = -weight * np.take_along_axis(logs, at[:, None], -1)[:, 0]
            onehot = np.arange(x.shape[-1]) == at[:, None]
        else:
            weight = np.ones(len(x), x.dtype)
            losses, onehot = -(y * logs).sum(axis=-1), y
        reduce = {
            "none": lambda: losses,
            "sum": lambda: losses.sum(),
            "mean": lambda: losses.mean() if weight.all() else losses.sum() / weight.sum(),
        }
        return reduce[options.get("reduction", "mean")](), weight[:, None] * (np.exp(logs) - onehot)


ANSWERS: dict[str, Answer] = {"NumPy": of_formula, "crossent": of_crossent}
if "torch" in PRESENT:
    ANSWERS = {"torch": of_torch} | ANSWERS


def row(*logits: float) -> Array:
    return np.array([logits], np.float32)


@dataclass
class Case:
    name: str
    x: Array
    y: Array
    options: dict[str, Any] = field(default_factory=dict)
    gradient: bool = False
    # By default that of the first row, to which all others are equal.
    truth: str = ""


CASES = [
    Case("[20, 0], class 0: loss", row(20, 0), np.array([0])),
    Case("its gradient", row(20, 0), np.array([0]), gradient=True),
    Case("four equal logits at 1e8", row(1e8, 1e8, 1e8, 1e8), np.array([2])),
    Case("-inf off the target", row(0, -INF, 0), np.array([0])),
    Case(
        "probability 0 on a logit of -inf",
        row(0, -INF, 0),
        np.array([[0.5, 0, 0.5]], np.float32),
        truth=mp.nstr(mp.log(2), 8),
    ),
    Case(
        "class weight 0 at an infinite loss",
        row(0, -INF),
        np.array([1]),
        {"weight": np.array([1, 0], np.float32), "reduction": "sum"},
        truth="0",
    ),
    Case(
        "NaN in an ignored row: its gradient",
        np.array([[NAN, 0], [0, 0]], np.float32),
        np.array([-100, 0]),
        gradient=True,
        truth="0, 0",
    ),
    Case("+inf at the target", row(INF, 0), np.array([0]), truth="0"),
    Case("+inf elsewhere", row(INF, 0), np.array([1]), truth="inf"),
    Case(
        "float16, 20000 rows of 1000 zeros",
        np.zeros((20000, 1000), np.float16),
        np.zeros(20000, np.int64),
    ),
    Case("all rows ignored: mean", row(1, 2), np.array([-100]), truth="nan (0 / 0)"),
]


def show(value: Any) -> str:
    numbers = np.atleast_1d(np.asarray(value)).ravel()[:2]
    return ", ".join(f"{float(v) + 0.0:.8g}" for v in numbers)


def special_cases() -> list[list[str]]:
    table = [["case", *ANSWERS, "truth"]]
    for case in CASES:
        cells = []
        for answer in ANSWERS.values():
            loss, grad = answer(case.x, case.y, **case.options)
            cells.append(show(grad[0] if case.gradient else loss))
        truth = case.truth
        if not truth:
            loss, grad = exact_cross_entropy(case.x[0].tolist(), case.y[0])
            truth = show([float(value) for value, _ in (grad if case.gradient else [loss])])
        table.append([case.name, *cells, truth])
    return table


# The exact numbers: the loss of a row and the elements of its gradient


def plain(value: Any) -> Number:
    return value, abs(value)


def difference(a: Any, b: Any) -> Number:
    return a - b, max(abs(a), abs(b))


def times(a: Any, b: Any) -> Any:
    """Where 0 times infinity is 0."""
    return a * b if a and b else mp.zero


def softmax(row: list[float]) -> tuple[list[Any], list[Any], list[Any], Any]:
    """Probabilities, their complements, distances to the largest logit, and log(1 + rest)."""
    x = [mp.mpf(v) for v in row]
    top = max(range(len(x)), key=x.__getitem__)
    e = [mp.exp(v - x[top]) for v in x]
    rest = mp.fsum(v for i, v in enumerate(e) if i != top)
    total = 1 + rest
    p = [v / total for v in e]
    others = [(rest if i == top else total - v) / total for i, v in enumerate(e)]
    return p, others, [x[top] - v for v in x], mp.log1p(rest)


def exact_cross_entropy(x: list[float], y: int) -> tuple[Number, list[Number]]:
    p, others, gaps, log = softmax(x)
    return plain(gaps[y] + log), [plain(-others[i] if i == y else v) for i, v in enumerate(p)]


def exact_bce_with_logits(x: float, t: float) -> tuple[Number, list[Number]]:
    x, t = mp.mpf(x), mp.mpf(t)
    loss = times(t, mp.log1p(mp.exp(-x))) + times(1 - t, mp.log1p(mp.exp(x)))
    return plain(loss), [difference((1 - t) / (1 + mp.exp(-x)), t / (1 + mp.exp(x)))]


def exact_bce(p: float, t: float) -> tuple[Number, list[Number]]:
    p, t = mp.mpf(p), mp.mpf(t)
    loss = -t * mp.log(p) - (1 - t) * mp.log1p(-p)
    return plain(loss), [plain((p - t) / (p * (1 - p)))]


def exact_kl_div(x: float, t: float) -> tuple[Number, list[Number]]:
    x, t = mp.mpf(x), mp.mpf(t)
    return difference(t * mp.log(t) if t else t, times(t, x)), [plain(-t)]


def exact_entropy_with_logits(x: list[float]) -> tuple[Number, list[Number]]:
    p, _, gaps, log = softmax(x)
    mean = mp.fsum(map(times, p, gaps))
    grad = [difference(times(a, gap), a * mean) for a, gap in zip(p, gaps, strict=True)]
    return plain(mean + log), grad


def exact_entropy(row: list[float]) -> tuple[Number, list[Number]]:
    p = [mp.mpf(v) for v in row]
    logs = [mp.log(v) if v else -mp.inf for v in p]
    return plain(-mp.fsum(map(times, p, logs))), [difference(-log, mp.one) for log in logs]


def exact_kl_divergence(p: list[float], q: list[float]) -> tuple[Number, list[Number]]:
    pairs = [(mp.mpf(a), mp.mpf(b)) for a, b in zip(p, q, strict=True)]
    logs = [mp.log(a / b) if a else -mp.inf for a, b in pairs]
    loss = mp.fsum(times(a, log) - a + b for (a, b), log in zip(pairs, logs, strict=True))
    return plain(loss), [plain(log) for log in logs] + [plain(1 - a / b) for a, b in pairs]


def exact_focal(x: float, t: float) -> tuple[Number, list[Number]]:
    """With the balance 1/4 and the power 2."""
    (entropy, _), [(slope, size)] = exact_bce_with_logits(x, t)
    x, t = mp.mpf(x), mp.mpf(t)
    up, down = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
    missed = t * down + (1 - t) * up
    factor = (t / 4 + (1 - t) * 3 / 4) * missed**2
    by_slope = 2 * times((1 - 2 * t) * up * down / missed, entropy) if missed else mp.zero
    grad = factor * (slope + by_slope), factor * max(size, abs(by_slope))
    return plain(times(factor, entropy)), [grad]


def exact_binary_entropy(p: float) -> tuple[Number, list[Number]]:
    p = mp.mpf(p)
    log, log_rest = mp.log(p), mp.log1p(-p)
    return plain(-p * log - (1 - p) * log_rest), [difference(log_rest, log)]


def exact_js_divergence(p: list[float], q: list[float]) -> tuple[Number, list[Number]]:
    pairs = [(mp.mpf(a), mp.mpf(b)) for a, b in zip(p, q, strict=True)]
    sides = [[mp.log(2 * v / (a + b)) if v else -mp.inf for v in (a, b)] for a, b in pairs]
    terms = [
        times(a, of_a) + times(b, of_b) for (a, b), (of_a, of_b) in zip(pairs, sides, strict=True)
    ]
    return plain(mp.fsum(terms) / 2), [plain(side[i] / 2) for i in (0, 1) for side in sides]


def exact_kl_of_logits(a: list[float], b: list[float]) -> tuple[Number, list[Number]]:
    p, q = softmax(a)[0], softmax(b)[0]
    logs = [mp.log(v / w) for v, w in zip(p, q, strict=True)]
    kl = mp.fsum(map(times, p, logs))
    apart = mp.fsum(abs(w - v) for v, w in zip(p, q, strict=True))
    first = [(v * (log - kl), v * max(abs(log), kl, apart)) for v, log in zip(p, logs, strict=True)]
    second = [(w - v, max(abs(w - v), w * apart)) for v, w in zip(p, q, strict=True)]
    return plain(kl), first + second


def exact_js_of_logits(a: list[float], b: list[float]) -> tuple[Number, list[Number]]:
    both = softmax(a)[0], softmax(b)[0]
    slopes, total = [], mp.zero
    for p, q in (both, both[::-1]):
        logs = [mp.log(2 * v / (v + w)) / 2 for v, w in zip(p, q, strict=True)]
        mean = mp.fsum(map(times, p, logs))
        apart = mp.fsum(abs(w - v) for v, w in zip(p, q, strict=True))
        slopes += [
            (v * (log - mean), v * max(abs(log), mean, apart))
            for v, log in zip(p, logs, strict=True)
        ]
        total += mean
    return plain(total), slopes


# The rows

Rows = Iterator[tuple[Array, ...]]
SIZES = ((2, 200), (10, 100), (1000, 3))


def logits(rng: np.random.Generator, dtype: Any, classes: int, count: int) -> Array:
    """Unconfident to confident, tied, masked by -inf, and far from 0."""
    z = rng.standard_normal((6, count, classes))
    masked = np.where(rng.random(z[0].shape) < 0.3, -INF, 3 * z[0])
    masked[:, 0] = z[0, :, 0]
    far = (20 * z[1] + shift for shift in (-3e4, 300, 1e8))
    x = [0.3 * z[2], 3 * z[3], 30 * z[4], np.round(z[5]), masked, *far]
    return np.concatenate(x).astype(dtype)


def distributions(rng: np.random.Generator, dtype: Any, classes: int, count: int) -> Array:
    """Even, uneven, sure of one class, and with masses of 0."""
    even, uneven, masked = (rng.dirichlet(np.full(classes, a), count) for a in (30, 0.5, 0.5))
    sure = 10 ** rng.uniform(-12, -2, (count, classes)) / classes
    sure[:, -1] = 1 - sure[:, :-1].sum(axis=1)
    masked[:, 1:][rng.random((count, classes - 1)) < 0.3] = 0
    return np.concatenate([even, uneven, sure, masked]).astype(dtype)


def rows_with_classes(rng: np.random.Generator, dtype: Any) -> Rows:
    """The target is the largest logit of half of the rows."""
    for classes, count in SIZES:
        x = logits(rng, dtype, classes, count)
        y, at = rng.integers(0, classes, len(x)), np.arange(len(x))
        sure = (rng.random(len(x)) < 0.5) | np.isinf(x[at, y])
        yield x, np.where(sure, x.argmax(axis=1), y)


def rows_of_logits(rng: np.random.Generator, dtype: Any) -> Rows:
    for classes, count in SIZES:
        yield (logits(rng, dtype, classes, count),)


def rows_of_masses(rng: np.random.Generator, dtype: Any) -> Rows:
    for classes, count in SIZES:
        yield (distributions(rng, dtype, classes, count),)


def pairs_of_masses(rng: np.random.Generator, dtype: Any) -> Rows:
    """Far from each other, near, and very near."""
    for classes, count in SIZES:
        p = distributions(rng, dtype, classes, count)
        z = rng.standard_normal(p.shape)
        near = np.where(p == 0, 1e-3, p) * np.exp(0.1 * z)
        nearer = np.where(p == 0, 1e-3, p * (1 + 1e-5 * z))
        far = rng.dirichlet(np.ones(classes), len(p))
        yield np.tile(p, (3, 1)), np.concatenate([far, near, nearer]).astype(dtype)


def pairs_of_logits(rng: np.random.Generator, dtype: Any) -> Rows:
    """Unconfident to confident and far from 0; far from each other, near, and very near."""
    for classes, count in SIZES:
        z = rng.standard_normal((5, count, classes))
        x = np.tile(np.concatenate([0.3 * z[0], 3 * z[1], 30 * z[2], 20 * z[3] + 300]), (3, 1))
        step = np.repeat([3, 0.1, 1e-4], len(x) // 3)[:, None]
        yield x.astype(dtype), (x + step * rng.standard_normal(x.shape)).astype(dtype)


def one_by_one(rng: np.random.Generator, dtype: Any) -> Rows:
    for p, _ in elements_of_probabilities(rng, dtype):
        yield (p,)


def targets(rng: np.random.Generator, count: int) -> Array:
    """Sure ones, then soft ones."""
    return np.concatenate([rng.integers(0, 2, count // 2), rng.random(count - count // 2)])


def elements_of_logits(rng: np.random.Generator, dtype: Any) -> Rows:
    """Masked by an infinite logit, too."""
    x = np.concatenate([rng.standard_normal(400) * spread for spread in (0.01, 1, 10, 60)])
    t = np.concatenate([targets(rng, 400) for _ in range(4)])
    x, t = np.append(x, [INF, -INF]), np.append(t, [1, 0])
    yield x.astype(dtype), t.astype(dtype)


def elements_of_probabilities(rng: np.random.Generator, dtype: Any) -> Rows:
    """Anywhere, near 0 and near 1: but not so near that torch's clamps, which crossent shares,
    matter."""
    u = rng.random((3, 400))
    p = np.concatenate([u[0], 10 ** (-11 * u[1]), 1 - 10 ** (-11 * u[2])])
    t = np.concatenate([targets(rng, 400) for _ in range(3)])
    inside = (p.astype(dtype) > 0) & (p.astype(dtype) < 1)
    yield p[inside].astype(dtype), t[inside].astype(dtype)


def elements_of_logs(rng: np.random.Generator, dtype: Any) -> Rows:
    """Log-probabilities far from the target's and near it; -inf where the target is 0."""
    t = distributions(rng, dtype, 10, 20).ravel()
    t = np.tile(t, 2)
    far, near = rng.dirichlet(np.ones(10), t.size // 20).ravel(), t[t.size // 2 :]
    with np.errstate(divide="ignore"):
        x = np.log(np.concatenate([far, near * np.exp(0.1 * rng.standard_normal(near.size))]))
    yield np.where(t == 0, -INF, x).astype(dtype), t


# The losses


@dataclass
class Loss:
    name: str
    rows: Callable[[np.random.Generator, Any], Rows]
    exact: Callable[..., tuple[Number, list[Number]]]
    answers: dict[str, Answer]
    digits: int = DIGITS


def both_gradients(function: Callable[..., Any]) -> Answer:
    def answer(*arrays: Array) -> tuple[Any, Any]:
        loss, *grads = function(*arrays, return_grad="both")
        return loss, np.concatenate(grads, -1)

    return answer


def torch_focal(x: Any, t: Any) -> Any:
    """The formula of torchvision.ops.sigmoid_focal_loss."""
    p = torch.sigmoid(x)
    loss = TF.binary_cross_entropy_with_logits(x, t, reduction="none")
    loss = loss * (1 - (p * t + (1 - p) * (1 - t))) ** 2
    return (0.25 * t + 0.75 * (1 - t)) * loss


def torch_js(p: Any, q: Any) -> Any:
    m = ((p + q) / 2).log()
    return (TF.kl_div(m, p, reduction="none") + TF.kl_div(m, q, reduction="none")).sum(-1) / 2


def js(rel_entr: Callable[..., Any], p: Any, q: Any) -> Any:
    """Of a library that has the terms of relative entropies."""
    m = (p + q) / 2
    return (rel_entr(p, m) + rel_entr(q, m)).sum(-1) / 2


def torch_kl_divergence(p: Any, q: Any) -> Any:
    return (TF.kl_div(q.log(), p, reduction="none") - p + q).sum(-1)


def log_loss(p: Array, t: Array) -> tuple[Any, Any]:
    """One element at a time: the function has no losses before their sum."""
    losses = [
        metrics.log_loss([0, 1], np.stack([b, b]), sample_weight=[1 - a, a], normalize=False)
        for a, b in zip(t, p, strict=True)
    ]
    return np.array(losses), None


def multinomial(x: Array, y: Array) -> tuple[Any, Any]:
    loss = sklearn_loss.HalfMultinomialLoss(n_classes=x.shape[1])
    answer: tuple[Any, Any] = loss.loss_gradient(y.astype(x.dtype), x)
    return answer


LOSSES = [
    Loss(
        "cross_entropy",
        rows_with_classes,
        exact_cross_entropy,
        {
            "crossent": lambda x, y: F.cross_entropy(x, y, reduction="none", return_grad=True),
            "torch": by_torch(lambda x, y: TF.cross_entropy(x, y, reduction="none")),
            "jax/optax": by_jax(lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, y)),
            "SciPy": by_scipy(
                lambda x, y: -np.take_along_axis(special.log_softmax(x, -1), y[:, None], -1)
            ),
            "scikit-learn": multinomial,
        },
    ),
    Loss(
        "binary_cross_entropy_with_logits",
        elements_of_logits,
        exact_bce_with_logits,
        {
            "crossent": lambda x, t: F.binary_cross_entropy_with_logits(
                x, t, reduction="none", return_grad=True
            ),
            "torch": by_torch(
                lambda x, t: TF.binary_cross_entropy_with_logits(x, t, reduction="none")
            ),
            "jax/optax": by_jax(lambda x, t: optax.sigmoid_binary_cross_entropy(x, t)),
            "SciPy": by_scipy(
                lambda x, t: -t * special.log_expit(x) - (1 - t) * special.log_expit(-x)
            ),
            "scikit-learn": lambda x, t: sklearn_loss.HalfBinomialLoss().loss_gradient(t, x),
        },
    ),
    Loss(
        "binary_cross_entropy",
        elements_of_probabilities,
        exact_bce,
        {
            "crossent": lambda p, t: F.binary_cross_entropy(
                p, t, reduction="none", return_grad=True
            ),
            "torch": by_torch(lambda p, t: TF.binary_cross_entropy(p, t, reduction="none")),
            "jax/optax": by_jax(
                lambda p, t: -jax_special.xlogy(t, p) - jax_special.xlog1py(1 - t, -p)
            ),
            "SciPy": by_scipy(lambda p, t: -special.xlogy(t, p) - special.xlog1py(1 - t, -p)),
            "scikit-learn": log_loss,
        },
    ),
    Loss(
        "kl_div",
        elements_of_logs,
        exact_kl_div,
        {
            "crossent": lambda x, t: F.kl_div(x, t, reduction="none", return_grad=True),
            "torch": by_torch(lambda x, t: TF.kl_div(x, t, reduction="none")),
            "jax/optax": by_jax(lambda x, t: optax.losses.kl_divergence(x[:, None], t[:, None])),
        },
    ),
    Loss(
        "entropy_with_logits",
        rows_of_logits,
        exact_entropy_with_logits,
        {
            "crossent": lambda x: F.entropy_with_logits(x, return_grad=True),
            "torch": by_torch(lambda x: torch.distributions.Categorical(logits=x).entropy()),
            "jax/optax": by_jax(lambda x: jax_special.entr(jax.nn.softmax(x)).sum(-1)),
            "SciPy": by_scipy(lambda x: special.entr(special.softmax(x, -1)).sum(-1)),
        },
    ),
    Loss(
        "entropy",
        rows_of_masses,
        exact_entropy,
        {
            "crossent": lambda p: F.entropy(p, return_grad=True),
            "torch": by_torch(lambda p: torch.special.entr(p).sum(-1)),
            "jax/optax": by_jax(lambda p: jax_special.entr(p).sum(-1)),
            "SciPy": by_scipy(lambda p: special.entr(p).sum(-1)),
        },
    ),
    Loss(
        "kl_divergence",
        pairs_of_masses,
        exact_kl_divergence,
        {
            "crossent": both_gradients(F.kl_divergence),
            "torch": by_torch(torch_kl_divergence, inputs=2),
            "jax/optax": by_jax(lambda p, q: jax_special.kl_div(p, q).sum(-1), inputs=2),
            "SciPy": by_scipy(lambda p, q: special.kl_div(p, q).sum(-1)),
        },
    ),
    Loss(
        "js_divergence",
        pairs_of_masses,
        exact_js_divergence,
        {
            "crossent": both_gradients(F.js_divergence),
            "torch": by_torch(torch_js, inputs=2),
            "jax/optax": by_jax(lambda p, q: js(jax_special.rel_entr, p, q), inputs=2),
            "SciPy": by_scipy(lambda p, q: js(special.rel_entr, p, q)),
        },
    ),
    Loss(
        "kl_divergence_with_logits",
        pairs_of_logits,
        exact_kl_of_logits,
        {
            "crossent": both_gradients(F.kl_divergence_with_logits),
            "torch": by_torch(
                lambda a, b: torch.distributions.kl_divergence(
                    torch.distributions.Categorical(logits=a),
                    torch.distributions.Categorical(logits=b),
                ),
                inputs=2,
            ),
            "jax/optax": by_jax(
                lambda a, b: optax.losses.kl_divergence(jax.nn.log_softmax(b), jax.nn.softmax(a)),
                inputs=2,
            ),
            "SciPy": by_scipy(
                lambda a, b: special.rel_entr(special.softmax(a, -1), special.softmax(b, -1)).sum(
                    -1
                )
            ),
        },
        digits=MANY_DIGITS,
    ),
    Loss(
        "js_divergence_with_logits",
        pairs_of_logits,
        exact_js_of_logits,
        {
            "crossent": both_gradients(F.js_divergence_with_logits),
            "torch": by_torch(
                lambda a, b: torch_js(torch.softmax(a, -1), torch.softmax(b, -1)), inputs=2
            ),
            "jax/optax": by_jax(
                lambda a, b: js(jax_special.rel_entr, jax.nn.softmax(a), jax.nn.softmax(b)),
                inputs=2,
            ),
            "SciPy": by_scipy(
                lambda a, b: js(special.rel_entr, special.softmax(a, -1), special.softmax(b, -1))
            ),
        },
        digits=MANY_DIGITS,
    ),
    Loss(
        "binary_entropy",
        one_by_one,
        exact_binary_entropy,
        {
            "crossent": lambda p: F.binary_entropy(p, return_grad=True),
            "torch": by_torch(lambda p: torch.special.entr(p) + torch.special.entr(1 - p)),
            "jax/optax": by_jax(lambda p: jax_special.entr(p) + jax_special.entr(1 - p)),
            "SciPy": by_scipy(lambda p: special.entr(p) + special.entr(1 - p)),
        },
    ),
    Loss(
        "sigmoid_focal_loss",
        elements_of_logits,
        exact_focal,
        {
            "crossent": lambda x, t: F.sigmoid_focal_loss(x, t, return_grad=True),
            "torch": by_torch(torch_focal),
        },
    ),
]


# The errors

NOTES = """\
Loss / gradient. (0), (inf), (NaN): so came out a number that is finite, and for (0) not 0. Numbers
below the type's normal range are left out. Where two terms of a number cancel (gradients of soft
targets, entropies and divergences, `kl_div`), the ulp are those of the larger; of divergences of
logits, of p times the sum of |q - p| where that is larger. A dash: no gradient, or no such
function; where a library has the pieces of a loss, they were put together. scikit-learn's losses of
logits are those of its estimators (`sklearn._loss`); `log_loss` clips probabilities."""


def worst_error(got: list[Array], numbers: list[Number], dtype: Any) -> str:
    """In ulp; and whether anything came out as 0, inf or NaN that was not."""
    high = np.array([float(value) for value, _ in numbers])
    # What float64 does not hold of them.
    low = np.array([float(v - h) for (v, _), h in zip(numbers, high, strict=True)])
    size = np.array([float(size) for _, size in numbers])
    answer = np.concatenate([np.ravel(part) for part in got]).astype(np.float64)
    limits = np.finfo(dtype)
    finite = np.isfinite(high)
    seen = finite & (size > 4 * float(limits.tiny))
    with np.errstate(invalid="ignore"):
        errors = np.abs(answer - high - low) / np.ldexp(1.0, np.frexp(size)[1] - 1 - limits.nmant)
    wrong = {
        "0": seen & (answer == 0) & (errors > 1),
        "inf": finite & np.isinf(answer),
        "NaN": finite & np.isnan(answer),
    }
    worst = np.max(errors[seen & np.isfinite(answer)])
    marks = ", ".join(mark for mark, where in wrong.items() if where.any())
    return (f"{worst:.2f}" if worst < 100 else f"{worst:.1e}") + (f" ({marks})" if marks else "")


def worst_errors() -> list[list[str]]:
    table = [["loss", "type", *PRESENT]]
    for loss in LOSSES:
        for dtype in (np.float32, np.float64):
            batches = list(loss.rows(np.random.default_rng(0), dtype))
            mp.dps = loss.digits
            exact = [
                loss.exact(*line)
                for arrays in batches
                for line in zip(*(array.tolist() for array in arrays), strict=True)
            ]
            losses = [value for value, _ in exact]
            slopes = [slope for _, grad in exact for slope in grad]
            table.append([f"`{loss.name}`", np.dtype(dtype).name])
            for name in PRESENT:
                cell = "-"
                if name in loss.answers:
                    answers = [loss.answers[name](*arrays) for arrays in batches]
                    cell = worst_error([answer for answer, _ in answers], losses, dtype) + " / "
                    grads = [grad for _, grad in answers if grad is not None]
                    cell += worst_error(grads, slopes, dtype) if grads else "-"
                table[-1].append(cell)
    return table


def print_table(table: list[list[str]], markdown: bool) -> None:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for number, line in enumerate(table):
        if markdown:
            print("| " + " | ".join(line) + " |")
            if number == 0:
                print("|---" * len(line) + "|")
        else:
            print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="print the tables of the README")
    markdown = parser.parse_args().markdown
    print_table(special_cases(), markdown)
    print_table(worst_errors(), markdown)
    print(NOTES)
    for name in LIBRARIES:
        if name not in PRESENT:
            print(f"\n{name} is not installed, and has no column.")
    modules = [m for name in PRESENT for m in LIBRARIES[name]]
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in modules)
    print(f"\n{versions}; crossent with {crossent.simd_level()}.")


if __name__ == "__main__":
    main()
