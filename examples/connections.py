"""Entropy, cross-entropy, likelihood and logistic regression, and how they are connected.

Each section below is a function that computes some numbers and asserts what it claims of them. Its
docstring is a section of a page, in which `@{name:.3f}` is a number that the function returns. The
script writes the page and its figures:

    python examples/connections.py --out docs
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import binom
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import crossent.functional as F
from crossent import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, NLLLoss

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[Any]
Numbers = dict[str, Any]

CLASSES = 10
ATTRIBUTES = {"odd": {1, 3, 5, 7, 9}, "prime": {2, 3, 5, 7}, "has a loop": {0, 6, 8, 9}}
INTENSITIES = 17  # a pixel is a count of 0 to 16
REACH = 0.6  # squared distance at which an image's vote has fallen to 1/e
STEPS = 2000
RATE = 0.15
AGREEMENT = 1e-5  # demanded of the coefficients of two fits
FEW = 4  # ulp that may lie between two exact ways to the same number
EPSILON = float(np.finfo(np.float64).eps)

BLUE, ORANGE, GREY, PALE = "#2a6fbb", "#d9730d", "#6b6b6b", "#dbe6f3"
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text as text, which is small
    "svg.hashsalt": "crossent",  # the same file from the same figure
}


def ulps(left: Any, right: Any) -> float:
    """The largest distance between two arrays, in ulp of the larger number."""
    left, right = np.asarray(left), np.asarray(right)
    spacing = np.spacing(np.maximum(np.abs(left), np.abs(right)))
    return float(np.max(np.abs(left - right) / spacing))


def apart(left: Any, right: Any) -> float:
    return float(np.max(np.abs(np.asarray(left) - np.asarray(right))))


def markdown(header: str, rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and whose others are numbers or short answers."""
    lines = [header, "|---|" + "---:|" * (header.count("|") - 2)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def code(function: Callable[..., Any]) -> str:
    return f"```python\n{inspect.getsource(function).strip()}\n```"


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """What a call is refused with."""
    try:
        call(*arguments)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("the call was not refused")


# The data and the models that several sections use


class Digits:
    """Images of 64 pixels in [0, 1], one a row: every fourth to test on, the others to learn."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        images = images / (INTENSITIES - 1)
        test = np.arange(len(labels)) % 4 == 3
        self.train, self.train_labels = images[~test], labels[~test]
        self.test, self.test_labels = images[test], labels[test]


load = cache(Digits)


def one_hot(labels: Array) -> Array:
    return np.eye(CLASSES)[labels]


def attributes(labels: Array) -> Array:
    """One column an attribute: whether the digit has it."""
    answers = [np.isin(labels, list(having)) for having in ATTRIBUTES.values()]
    return np.stack(answers, axis=1).astype(np.float64)


@cache
def softmax_model() -> Array:
    """The test images' logits of a softmax regression on the others."""
    digits = load()
    model = LogisticRegression(solver="newton-cg", tol=1e-10)
    logits: Array = model.fit(digits.train, digits.train_labels).decision_function(digits.test)
    return logits


@cache
def sigmoid_model() -> Array:
    """The same of the attributes, by one logistic regression each."""
    digits = load()
    answers = attributes(digits.train_labels)
    fits = [fit_network(digits.train, answers[:, i]) for i in range(answers.shape[1])]
    logits: Array = with_ones(digits.test) @ np.stack(fits, axis=1)
    return logits


# 1: entropy


def cross_entropy_of(p: Array, q: Array) -> Any:
    """Of distributions: the softmax of log q is q."""
    return F.cross_entropy(np.log(q), p)


def dice() -> Numbers:
    r"""Entropy: what a die is worth

    The entropy of a distribution $p$ is the mean of the surprise $-\log p_i$ of what happens
    (Shannon [1]):

    $$H(p) = -\sum_i p_i \log p_i$$

    To base 2 it is in bits: how many yes-or-no questions an outcome is worth in the mean.

    @{table}

    A widespread note writes the entropy as $-\sum_i -p_i \log_2 p_i$. One of the two minus signs is
    wrong: that expression gives the fair die @{wrong:.3f} bits. Probabilities are at most 1, their
    logarithms at most 0, and one minus makes the sum what it should be, never negative.

    Who takes a die $p$ for a die $q$ is surprised by $-\log q_i$ instead. The mean of that is the
    **cross-entropy**, and what it has above the entropy is the **Kullback-Leibler divergence** [2]:

    $$H(p, q) = -\sum_i p_i \log q_i = H(p) + D(p \,\|\, q), \qquad
    D(p \,\|\, q) = \sum_i p_i \log \frac{p_i}{q_i} \ge 0$$

    The loaded die above costs @{cross:.3f} bits a throw if it is taken for a fair one: its own
    @{loaded:.3f}, and @{divergence:.3f} for the mistake. The other way round, a fair die taken for
    that loaded one costs @{reverse:.3f} bits, @{excess:.3f} of them for the mistake: the divergence
    is not symmetric. In the picture the six is loaded, and the other faces share the rest.

    ![Entropy of a die in bits against the probability of a six](figures/connections-dice.svg)
    """
    coin, fair = np.full(2, 1 / 2), np.full(6, 1 / 6)
    loaded = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.5])
    certain = np.array([0, 0, 0, 0, 0, 1.0])
    cases = {
        "a fair coin": coin,
        "a fair die": fair,
        "a die that shows six half the time": loaded,
        "a die that always shows six": certain,
    }
    bits = {name: float(F.entropy(p, base=2)) for name, p in cases.items()}
    assert bits["a fair coin"] == 1
    assert bits["a die that always shows six"] == 0
    assert ulps(bits["a fair die"], np.log2(6)) <= FEW
    assert (
        ulps(bits["a die that shows six half the time"], 0.5 * np.log2(2) + 0.5 * np.log2(10))
        <= FEW
    )

    wrong = -np.sum(-fair * np.log2(fair))
    assert ulps(-wrong, bits["a fair die"]) <= FEW

    cross = cross_entropy_of(loaded, fair) / np.log(2)
    divergence = F.kl_divergence(loaded, fair, base=2)
    assert ulps(cross, F.entropy(loaded, base=2) + divergence) <= FEW
    reverse = cross_entropy_of(fair, loaded) / np.log(2)
    excess = F.kl_divergence(fair, loaded, base=2)
    assert ulps(reverse, F.entropy(fair, base=2) + excess) <= FEW

    six = np.linspace(0, 1, 201)
    family = np.column_stack([np.repeat((1 - six)[:, None] / 5, 5, axis=1), six])
    curve = F.entropy(family, base=2)
    # First whether it is a six, then which of the other five.
    assert apart(curve, F.binary_entropy(six, base=2) + (1 - six) * np.log2(5)) <= FEW * EPSILON
    return {
        "table": markdown(
            "| | entropy in bits |", ([name, f"{value:.3f}"] for name, value in bits.items())
        ),
        "wrong": wrong,
        "loaded": bits["a die that shows six half the time"],
        "cross": cross,
        "divergence": divergence,
        "reverse": reverse,
        "excess": excess,
        "six": six,
        "curve": curve,
    }


def draw_dice(numbers: Numbers) -> Any:
    figure, axes = plt.subplots(figsize=(6, 3.4))
    six, curve, fair = numbers["six"], numbers["curve"], np.log2(6)
    axes.fill_between(six, curve, fair, color=ORANGE, alpha=0.15, linewidth=0)
    axes.plot(six, curve, color=BLUE, linewidth=2)
    axes.axhline(fair, color=ORANGE, linewidth=2)
    axes.text(0.99, fair + 0.05, "cross-entropy if taken for fair", color=ORANGE, ha="right")
    axes.text(0.72, 0.95, "entropy", color=BLUE, ha="right")
    axes.text(0.8, 2.1, "divergence\nfrom the fair die", color=ORANGE, ha="center")
    for x, y, name, shift in (
        (1 / 6, fair, "fair", (0, -14)),
        (0.5, numbers["loaded"], "six half the time", (-6, -14)),
        (1, 0, "always six", (-8, 4)),
    ):
        axes.plot(x, y, "o", color=BLUE, clip_on=False, zorder=3)
        align = "center" if name == "fair" else "right"
        axes.annotate(name, (x, y), shift, textcoords="offset points", ha=align)
    axes.set(xlim=(0, 1), ylim=(0, 2.9), xlabel="probability of a six", ylabel="bits a throw")
    return figure


# 2: likelihood


def in_three_ways(logits: Array, labels: Array) -> list[Array]:
    return [
        F.nll_loss(F.log_softmax(logits, 1), labels, reduction="none"),
        F.cross_entropy(logits, labels, reduction="none"),
        F.cross_entropy(logits, one_hot(labels), reduction="none"),
    ]


def likelihood() -> Numbers:
    r"""Negative log likelihood is cross-entropy with one-hot targets

    A softmax model gives image $n$ the probabilities $q_n = \mathrm{softmax}(x_n)$. The likelihood
    of the labels is the product of the probabilities of what was seen, $\prod_n q_{n, y_n}$. A
    product of many probabilities is a very small number: a model that gives each of the @{images}
    images of the digits data 1/10 has a likelihood of $10^{-@{images}}$, which float64 rounds to
    @{underflow:g}. So one takes the logarithm, and a minus to have something to minimise:

    $$-\log \prod_n q_{n, y_n} = \sum_n -\log q_{n, y_n}
    = \sum_n H(t_n, q_n), \qquad t_{n, c} = [c = y_n]$$

    The last step is all there is to it. A one-hot target $t_n$ has all its mass on the label and
    leaves one term of the cross-entropy's sum. Its own entropy is 0, so that the cross-entropy is
    also the divergence $D(t_n \,\|\, q_n)$.

    @{code}

    For the @{rows} test images of a softmax regression (scikit-learn's) on the other @{others}, the
    three agree within @{few} ulp on every image. Their mean is @{mean:.4f} nats: the model gives
    the true digit @{geometric:.1%} in the geometric mean, and the likelihood of all test labels is
    $e^{-@{total:.1f}}$.

    ![Five test images, their probabilities and losses](figures/connections-likelihood.svg)

    Blue is the label, and the loss is the surprise at it: little for a sure and right answer, much
    for a sure and wrong one. The last image has the largest loss of all.
    """
    digits = load()
    logits, labels = softmax_model(), digits.test_labels
    losses, *others = in_three_ways(logits, labels)
    assert all(ulps(losses, other) <= FEW for other in others)

    q = F.softmax(logits, 1)
    # By hand, whose error is that of a probability near 1.
    assert apart(losses, -np.log(q[np.arange(len(labels)), labels])) <= 16 * EPSILON
    assert apart(losses, F.kl_divergence(one_hot(labels), q)) <= 16 * EPSILON
    assert not F.entropy(one_hot(labels)).any()

    images = len(digits.train) + len(digits.test)
    underflow = np.prod(np.full(images, 1 / CLASSES))
    assert underflow == 0
    order = np.argsort(losses)
    return {
        "code": code(in_three_ways),
        "images": images,
        "rows": len(labels),
        "others": len(digits.train),
        "underflow": underflow,
        "few": FEW,
        "mean": losses.mean(),
        "geometric": np.exp(-losses.mean()),
        "total": losses.sum(),
        "losses": losses,
        "q": q,
        "chosen": order[[len(order) // 2, int(0.85 * len(order)), -20, -6, -1]],
    }


def draw_likelihood(numbers: Numbers) -> Any:
    digits, chosen = load(), numbers["chosen"]
    figure, axes = plt.subplots(
        2, len(chosen), figsize=(8.5, 3.6), height_ratios=(1, 1.2), sharey="row"
    )
    for (image, bars), row in zip(axes.T, chosen, strict=True):
        label, probabilities = digits.test_labels[row], numbers["q"][row]
        image.imshow(digits.test[row].reshape(8, 8), cmap="Greys")
        image.set_axis_off()
        image.set_title(f"label {label}")
        colours = [BLUE if c == label else GREY for c in range(CLASSES)]
        bars.bar(range(CLASSES), probabilities, color=colours)
        bars.grid(axis="x", visible=False)
        bars.set(xticks=range(CLASSES), xlabel="digit", ylim=(0, 1))
        bars.set_title(f"loss {numbers['losses'][row]:.3f}", color=BLUE)
    axes[1, 0].set_ylabel("probability")
    return figure


# 3: the sum


def vote(images: Array, voters: Array, labels: Array) -> Array:
    """Every voter votes for its own label, with a weight that falls with the distance."""
    return F.softmax(-cdist(images, voters, "sqeuclidean") / REACH, 1) @ one_hot(labels)


def decomposition() -> Numbers:
    r"""Cross-entropy is entropy plus divergence

    With soft targets the entropy is not 0. Here the target $p$ of a test image is a vote: each
    image of the training set votes for its own digit, the near ones with more weight.

    @{code}

    The model's cross-entropy with the votes then has a part that no model can be rid of, the
    entropy of the votes, and a part that is the model's own, the divergence:

    @{table}

    The first three columns are computed apart, by `entropy`, `kl_div` and `cross_entropy`. On each
    of the @{rows} images the first two add up to the third within 2 ulp.

    ![Entropy and divergence of each digit, stacked](figures/connections-sum.svg)

    Since the entropy does not depend on the model, cross-entropy and divergence have the same
    gradient with respect to the logits, $q - p$, and whatever minimises one minimises the other.
    Training on soft targets (distillation, label smoothing) ends at a loss above 0 even where the
    model is perfect; the divergence ends at 0.
    """
    digits = load()
    logits, labels = softmax_model(), digits.test_labels
    p = vote(digits.test, digits.train, digits.train_labels)
    log_q = F.log_softmax(logits, 1)
    entropy = F.entropy(p)
    divergence, by_log_q = F.kl_div(log_q, p, reduction="none", return_grad=True)
    divergence = divergence.sum(axis=1)
    cross, by_logits = F.cross_entropy(logits, p, reduction="none", return_grad=True)
    assert ulps(entropy + divergence, cross) <= 2

    q = F.softmax(logits, 1)
    assert apart(divergence, F.kl_divergence(p, q)) <= 16 * EPSILON
    # The divergence's gradient goes back through log_softmax, that of cross_entropy has been there.
    assert apart(by_log_q - q * by_log_q.sum(axis=1, keepdims=True), by_logits) <= 4 * EPSILON
    assert apart(by_logits, q - p) <= 4 * EPSILON

    means = np.array(
        [
            [part[labels == digit].mean() for part in (entropy, divergence, cross)]
            for digit in range(CLASSES)
        ]
    )
    overall = [entropy.mean(), divergence.mean(), cross.mean()]
    rows = [*zip(map(str, range(CLASSES)), means, strict=True), ("all", overall)]
    return {
        "code": code(vote),
        "rows": len(labels),
        "means": means,
        "table": markdown(
            "| digit | entropy of the votes | divergence | cross-entropy |",
            ([name, *(f"{mean:.3f}" for mean in parts)] for name, parts in rows),
        ),
    }


def draw_decomposition(numbers: Numbers) -> Any:
    figure, axes = plt.subplots(figsize=(6, 3.2))
    entropy, divergence, cross = numbers["means"].T
    places = np.arange(CLASSES)
    axes.bar(places, entropy, color=BLUE, label="entropy of the votes")
    axes.bar(places, divergence, bottom=entropy, color=ORANGE, label="divergence of the model")
    axes.plot(places, cross, "_", color="black", markersize=22, label="cross-entropy")
    axes.grid(axis="x", visible=False)
    axes.set(xticks=places, xlabel="digit", ylabel="mean over its images, nats")
    axes.legend(loc="upper left")
    return figure


# 4: maximum likelihood


def distribution_and_gradient(
    parameters: Array, base: Array, features: Array, p: Array
) -> tuple[float, Array]:
    """Cross-entropy of p with the softmax of base + features @ parameters, and its gradient."""
    loss, grad = F.cross_entropy(base + features @ parameters, p, return_grad=True)
    return float(loss), features.T @ grad


def fit_distribution(base: Array, features: Array, p: Array) -> Array:
    def hessian(parameters: Array) -> Array:
        q = F.softmax(base + features @ parameters, 0)
        centred = features - q @ features
        curvature: Array = (features.T * q) @ centred
        return curvature

    result = minimize(
        lambda parameters: distribution_and_gradient(parameters, base, features, p),
        np.zeros(features.shape[1]),
        method="trust-exact",
        jac=True,
        hess=hessian,
        options={"gtol": 1e-7},
    )
    assert result.success
    parameters: Array = result.x
    return parameters


def maximum_likelihood() -> Numbers:
    r"""Minimising the divergence from the data is maximum likelihood

    Let $\hat p_k$ be the share of the value $k$ among $N$ data. Grouping equal values, the mean
    negative log likelihood of any model $q$ is the cross-entropy of $\hat p$ with it:

    $$-\frac{1}{N} \sum_n \log q_{k_n} = -\sum_k \hat p_k \log q_k
    = H(\hat p) + D(\hat p \,\|\, q)$$

    The entropy of the data is a constant. So the most likely model and the one of least divergence
    are the same model, and the likelihood cannot exceed $e^{-N H(\hat p)}$, which is reached by
    $q = \hat p$ alone.

    The data here are the @{pixels} pixels of all the digits; a pixel is a count from 0 to 16. Four
    models, whose parameters were fitted with the value and gradient of `cross_entropy`:

    @{table}

    The last is $q = \hat p$. The difference of the two columns on the right is the entropy of the
    data, @{entropy:.4f} nats, in every row. What was found can be checked: the binomial's
    parameter is the mean over 16, @{mean:.4f}; the model with three parameters, whose logits are
    $a\,[k = 0] + b\,[k = 16] + c\,k$, has the data's share of blank pixels, of full ones, and the
    data's mean, because its gradient is the difference of these between model and data.

    @{code}

    ![The pixels with their models; losses along a line](figures/connections-path.svg)

    On the right the parameters go along a line, from the uniform distribution at 0 through the
    maximum of the likelihood at 1 and on. Both curves have their minimum there, and what lies
    between them never changes.
    """
    digits = load()
    images = np.concatenate([digits.train, digits.test])
    pixels = (images * (INTENSITIES - 1)).astype(np.int64).ravel()
    p = np.bincount(pixels, minlength=INTENSITIES) / len(pixels)
    entropy = float(F.entropy(p))

    k = np.arange(INTENSITIES)
    share = k[:, None] / (INTENSITIES - 1)
    marks = np.column_stack([k == 0, k == INTENSITIES - 1, share]).astype(np.float64)
    flat, coins = np.zeros(INTENSITIES), np.log(binom(INTENSITIES - 1, k))
    families = {
        "uniform": (flat, np.empty((INTENSITIES, 0))),
        "binomial": (coins, share),
        "blank, full, ink": (flat, marks),
        "any distribution": (np.log(p), np.empty((INTENSITIES, 0))),
    }
    counts = (0, 1, 3, INTENSITIES - 1)
    rows, models, parameters = [], {}, {}
    for count, (name, (base, features)) in zip(counts, families.items(), strict=True):
        fit = fit_distribution(base, features, p) if features.size else np.empty(0)
        logits = base + features @ fit
        # Of all pixels one by one, and of their distribution.
        loss = F.cross_entropy(np.broadcast_to(logits, (len(pixels), INTENSITIES)), pixels)
        assert ulps(loss, F.cross_entropy(logits, p)) <= FEW
        q = F.softmax(logits, 0)
        divergence = F.kl_divergence(p, q)
        assert apart(loss, entropy + divergence) <= 16 * EPSILON
        models[name], parameters[name] = q, fit
        rows.append([name, str(count), f"{divergence:.4f}", f"{loss:.4f}"])

    mean = pixels.mean() / (INTENSITIES - 1)
    assert abs(F.sigmoid(parameters["binomial"] / (INTENSITIES - 1))[0] - mean) <= 1e-6
    assert apart(models["blank, full, ink"] @ marks, p @ marks) <= 1e-6
    assert F.kl_divergence(p, models["any distribution"]) <= EPSILON

    line = np.linspace(0, 2, 81)
    along = line[:, None] * (marks @ parameters["blank, full, ink"])
    targets = np.broadcast_to(p, along.shape)
    losses = F.cross_entropy(along, targets, reduction="none")
    divergences = F.kl_divergence(targets, F.softmax(along, 1))
    assert apart(losses - divergences, entropy) <= 16 * EPSILON
    assert line[losses.argmin()] == line[divergences.argmin()] == 1
    return {
        "code": code(distribution_and_gradient),
        "table": markdown(
            "| model | free parameters | divergence | mean negative log likelihood |", rows
        ),
        "pixels": len(pixels),
        "entropy": entropy,
        "mean": mean,
        "p": p,
        "models": models,
        "line": line,
        "losses": losses,
        "divergences": divergences,
    }


def draw_maximum_likelihood(numbers: Numbers) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4))
    k = np.arange(INTENSITIES)
    left.bar(k, numbers["p"], color=PALE, label="data")
    models = numbers["models"]
    left.plot(k, models["binomial"], "s--", color=GREY, markersize=3, label="binomial")
    left.plot(
        k, models["blank, full, ink"], "o-", color=BLUE, markersize=3.5, label="blank, full, ink"
    )
    left.grid(axis="x", visible=False)
    left.set(xticks=k[::4], xlabel="value of a pixel", ylabel="probability")
    left.legend()

    line, losses, divergences = numbers["line"], numbers["losses"], numbers["divergences"]
    right.fill_between(line, divergences, losses, color=PALE, linewidth=0)
    right.plot(line, losses, color=BLUE, linewidth=2)
    right.plot(line, divergences, color=ORANGE, linewidth=2)
    right.plot(1, losses.min(), "o", color=BLUE)
    right.plot(1, divergences.min(), "o", color=ORANGE, clip_on=False, zorder=3)
    right.text(1, losses.min() + 0.4, "mean negative log likelihood", color=BLUE, ha="center")
    right.text(1, divergences.min() + 0.4, "divergence", color=ORANGE, ha="center")
    right.text(1, 1.15, f"{numbers['entropy']:.4f}, the entropy of the data", ha="center")
    right.set(xlim=(0, 2), ylim=(0, 3), ylabel="nats", xlabel="place on the line of parameters")
    return figure


# 5: logistic regression


def with_ones(features: Array) -> Array:
    return np.column_stack([features, np.ones(len(features))])


def network(parameters: Array, inputs: Array, answers: Array) -> tuple[float, Array, Array]:
    """One layer under binary cross-entropy: the loss, its gradient and its Hessian."""
    logits = inputs @ parameters
    loss, grad, hess = F.binary_cross_entropy_with_logits(
        logits, answers, reduction="sum", return_grad=True, return_hess=True
    )
    return loss, inputs.T @ grad, (inputs.T * hess) @ inputs


def fit_network(features: Array, answers: Array) -> Array:
    """The weights, and the bias last: least loss + |weights|^2 / 2, as scikit-learn has it."""
    inputs = with_ones(features)
    penalty = np.append(np.ones(features.shape[1]), 0)

    def objective(parameters: Array) -> tuple[float, Array]:
        loss, gradient, _ = network(parameters, inputs, answers)
        penalised = penalty * parameters
        return loss + parameters @ penalised / 2, gradient + penalised

    result = minimize(
        objective,
        np.zeros(inputs.shape[1]),
        method="trust-exact",
        jac=True,
        hess=lambda parameters: network(parameters, inputs, answers)[2] + np.diag(penalty),
        options={"gtol": 1e-8},
    )
    assert result.success
    parameters: Array = result.x
    return parameters


def logistic_regression() -> Numbers:
    r"""Logistic regression is a network of one layer

    One layer with one output, a sigmoid, and binary cross-entropy:

    $$x = w \cdot f + b, \qquad q = \sigma(x), \qquad
    \ell = -t \log q - (1 - t) \log(1 - q)$$

    This is the negative log likelihood of yes-or-no answers $t$, and the model is logistic
    regression. The layer's backward pass is the transposed matrix; with the diagonal of the loss's
    Hessian, Newton's method needs nothing else:

    @{code}

    On the breast cancer data (@{rows} tumours, @{features} features, standardised) this and
    scikit-learn's `LogisticRegression` find the same @{count} numbers: the largest difference is
    below $10^{-@{decimals}}$. Both minimise the summed loss plus $|w|^2 / 2$. The mean loss is
    @{mean:.4f} nats, and @{accuracy:.1%} of the tumours are on the right side.

    ![Weights of the features, here and by scikit-learn](figures/connections-logistic.svg)

    Two classes are enough for a softmax, too: the sigmoid of $x$ is the softmax of $(0, x)$, and
    `cross_entropy` of these two logits agrees with `binary_cross_entropy_with_logits` within @{few}
    ulp on every tumour.
    """
    data = load_breast_cancer()
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    parameters = fit_network(features, data.target)
    reference = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(features, data.target)
    theirs = np.append(reference.coef_, reference.intercept_)
    assert apart(parameters, theirs) < AGREEMENT

    logits = with_ones(features) @ parameters
    losses = F.binary_cross_entropy_with_logits(logits, data.target, reduction="none")
    pairs = np.column_stack([np.zeros_like(logits), logits])
    assert ulps(losses, F.cross_entropy(pairs, data.target, reduction="none")) <= FEW
    # As in the definition: from probabilities, which near 1 have lost some bits.
    assert (
        apart(losses, F.binary_cross_entropy(F.sigmoid(logits), data.target, reduction="none"))
        < 1e-9
    )
    return {
        "code": code(network),
        "rows": len(features),
        "features": features.shape[1],
        "count": len(parameters),
        "decimals": round(-np.log10(AGREEMENT)),
        "few": FEW,
        "mean": losses.mean(),
        "accuracy": np.mean((logits > 0) == data.target),
        "names": [*data.feature_names, "(bias)"],
        "ours": parameters,
        "theirs": theirs,
    }


def draw_logistic_regression(numbers: Numbers) -> Any:
    figure, axes = plt.subplots(figsize=(6.5, 5.6))
    order = np.argsort(numbers["ours"])
    places = np.arange(len(order))
    axes.barh(places, numbers["ours"][order], color=BLUE, alpha=0.45, label="crossent + SciPy")
    axes.plot(
        numbers["theirs"][order], places, "o", color=ORANGE, markersize=4, label="scikit-learn"
    )
    axes.set_yticks(places, [numbers["names"][i] for i in order], fontsize=7.5)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set(ylim=(-0.8, len(order) - 0.2), xlabel="weight (above 0: benign)")
    axes.legend(loc="lower right")
    return figure


# 6: which of many, and which ones


def many_answers() -> Numbers:
    r"""One answer of many, or many answers

    **Multi-class**: an image shows exactly one of ten digits. A softmax makes probabilities of ten
    logits that compete: they sum to 1.

    **Multi-label**: a digit may be odd, prime, have a loop, or several of these, or none. Each is a
    yes or no of its own, with its own sigmoid; the sum is whatever it is. Under the sum of binary
    cross-entropies, three sigmoids are three logistic regressions.

    Softmax regression on the ten digits: @{digit_accuracy:.1%} of the test images right. Sigmoids
    on the same pixels:

    @{table}

    A 7 is odd and prime, and has no loop; a 4 is none of the three. The sigmoids' probabilities of
    these sum to @{seven:.2f} and @{four:.2f} in the mean, which no softmax can say.

    ![Mean probabilities by digit: softmax, sigmoids](figures/connections-labels.svg)

    ### What each loss expects

    | loss (as in torch [3-6]) | its input | its target |
    |---|---|---|
    | `NLLLoss` | log-probabilities: `log_softmax(x, 1)` | the class, an integer a row |
    | `CrossEntropyLoss` | logits `x`; the softmax is inside | the class, or a distribution a row |
    | `BCELoss` | probabilities: `sigmoid(x)` | a number from 0 to 1 an element |
    | `BCEWithLogitsLoss` | logits `x`; the sigmoid is inside | a number from 0 to 1 an element |

    Each pair is one loss with two doors. On the test images:

    @{pairs}
    """
    digits = load()
    logits, scores = softmax_model(), sigmoid_model()
    labels, answers = digits.test_labels, attributes(digits.test_labels)

    right = (scores > 0) == (answers > 0)
    rows = [
        [name, ", ".join(map(str, sorted(having))), f"{answers[:, i].mean():.3f}", f"{share:.1%}"]
        for i, ((name, having), share) in enumerate(
            zip(ATTRIBUTES.items(), right.mean(axis=0), strict=True)
        )
    ]
    q, yes = F.softmax(logits, 1), F.sigmoid(scores)
    assert apart(q.sum(axis=1), 1) <= 8 * EPSILON
    means = [
        np.stack([table[labels == digit].mean(axis=0) for digit in range(CLASSES)])
        for table in (q, yes)
    ]

    together = BCEWithLogitsLoss(reduction="sum")(scores, answers)
    one_by_one = [
        F.binary_cross_entropy_with_logits(scores[:, i], answers[:, i], reduction="sum")
        for i in range(len(ATTRIBUTES))
    ]
    assert ulps(together, sum(one_by_one)) <= FEW

    pairs = {
        "`NLLLoss()(log_softmax(x, 1), y)`": NLLLoss()(F.log_softmax(logits, 1), labels),
        "`CrossEntropyLoss()(x, y)`": CrossEntropyLoss()(logits, labels),
        "`BCELoss()(sigmoid(x), t)`": BCELoss()(F.sigmoid(scores), answers),
        "`BCEWithLogitsLoss()(x, t)`": BCEWithLogitsLoss()(scores, answers),
    }
    nll, cross, of_probabilities, of_logits = pairs.values()
    assert ulps(nll, cross) <= FEW
    assert apart(of_probabilities, of_logits) < 1e-12
    return {
        "table": markdown("| attribute | digits | share of yes | right |", rows),
        "digit_accuracy": np.mean(logits.argmax(axis=1) == labels),
        "means": means,
        "seven": means[1][7].sum(),
        "four": means[1][4].sum(),
        "pairs": markdown(
            "| call | mean loss, nats |", ([name, f"{loss:.4f}"] for name, loss in pairs.items())
        ),
    }


def draw_many_answers(numbers: Numbers) -> Any:
    figure, panels = plt.subplots(
        1, 2, figsize=(8.5, 4.4), width_ratios=(CLASSES, len(ATTRIBUTES) + 1.6)
    )
    truths = np.eye(CLASSES), attributes(np.arange(CLASSES))
    columns = [str(c) for c in range(CLASSES)], list(ATTRIBUTES)
    titles = "softmax over the digits", "sigmoids of attributes"
    for axes, mean, truth, names, title in zip(
        panels, numbers["means"], truths, columns, titles, strict=True
    ):
        axes.imshow(mean, cmap="Blues", vmin=0, vmax=1.1, aspect="auto")
        for row, column in np.ndindex(mean.shape):
            value = mean[row, column]
            if value >= 0.01:
                colour = "white" if value > 0.6 else GREY
                style = {"ha": "center", "va": "center", "fontsize": 7.5, "color": colour}
                axes.text(column, row, f"{value:.2f}", **style)
            if truth[row, column]:
                corner = (column - 0.47, row - 0.46)
                axes.add_patch(
                    plt.Rectangle(corner, 0.94, 0.92, fill=False, edgecolor=ORANGE, linewidth=1.6)
                )
        for row, total in enumerate(mean.sum(axis=1)):
            axes.text(len(names) - 0.2, row, f"{total:.2f}", ha="center", va="center", fontsize=7.5)
        axes.text(len(names) - 0.2, -0.75, "sum", ha="center", fontsize=7.5)
        axes.set(xlim=(-0.5, len(names) + 0.3), title=title + "\n")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(CLASSES))
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    panels[0].set(ylabel="true digit", xlabel="predicted digit; orange: the truth")
    return figure


# 7: wrong doors


def probabilities(squash: str | None, logits: Array) -> Array:
    if squash is None:
        return logits
    return F.softmax(logits, 1) if squash == "softmax" else F.sigmoid(logits)


def through(squash: str, logits: Array, by_probabilities: Array) -> Array:
    """The gradient with respect to logits, by the chain rule through softmax or sigmoid."""
    if squash == "sigmoid":
        back: Array = F.sigmoid(logits) * F.sigmoid(-logits) * by_probabilities
    else:
        q = F.softmax(logits, 1)
        back = q * (by_probabilities - (q * by_probabilities).sum(axis=1, keepdims=True))
    return back


def descend(
    loss: Callable[..., Any], squash: str | None, images: Array, target: Array, outputs: int
) -> tuple[list[float], Array]:
    """Gradient descent from 0 on a loss of logits or of probabilities: losses, parameters."""
    inputs = with_ones(images)
    parameters = np.zeros((inputs.shape[1], outputs))
    losses = []
    for _ in range(STEPS):
        logits = inputs @ parameters
        value, grad = loss(probabilities(squash, logits), target, return_grad=True)
        if squash:
            grad = through(squash, logits, grad)
        losses.append(float(value))
        parameters -= RATE * (inputs.T @ grad)
    return losses, parameters


def wrong_doors() -> Numbers:
    r"""How each goes wrong when fed the other's

    The four losses take arrays of the same shapes, so a wrong one is often not refused. The fitted
    models of above, with right targets, fed in three ways each:

    @{multiclass}

    @{multilabel}

    - **`NLLLoss` fed logits** is $-x_y$: negative, without a lower bound. Its gradient is -1 at the
      label, whatever the model says.
    - **`NLLLoss` fed probabilities** is $-q_y$, between -1 and 0: minus the expected accuracy, not
      the likelihood. Its gradient vanishes where the model is sure and wrong, and there it matters
      most.
    - **`CrossEntropyLoss` fed probabilities** takes a softmax of a softmax. Its input is between 0
      and 1, so that a perfect model has a loss of $\log(1 + 9 / e) =$ @{floor:.4f}, and one that
      knows nothing @{start:.4f}. Fed **log-probabilities** it is right: the softmax of $\log q$ is
      $q$.
    - **`BCELoss` fed logits** is refused, as every number outside of 0 to 1 is:
      `@{refused}`.
    - **`BCEWithLogitsLoss` fed probabilities** takes a sigmoid of a sigmoid, between 0.5 and 0.73.
      A yes costs at least $\log(1 + e^{-1}) =$ @{yes_floor:.4f}, a no at least $\log 2 =$
      @{no_floor:.4f}; with @{share:.1%} of yes, as in the training set, the mean cannot be below
      @{binary_floor:.4f}. Fed **log-probabilities** it takes each answer for a no: the sigmoid of
      $\log q$ is $q / (1 + q)$, at most 0.5.

    Training does not give the mistake away. Here are linear models of the pixels after @{steps}
    steps of gradient descent from 0, with the gradient taken through the softmax or sigmoid where
    there is one. Accuracy is that on the test images, and confidence what the softmax or the
    sigmoid of the logits gives to the model's own answer:

    @{training}

    ![Loss against steps, for right and wrong inputs](figures/connections-wrong.svg)

    The dotted lines are the least that `CrossEntropyLoss` and `BCEWithLogitsLoss` can be of
    probabilities. Each loss falls, and each model learns something. But the wrong ones are less
    often right, and `NLLLoss` fed logits, which falls by the same amount in every step, is the
    surest of all and the least often right about the digits.

    Targets can be mistaken, too:

    - **`CrossEntropyLoss` with attributes as target** takes (1, 1, 0) for a distribution. A softmax
      cannot give two classes 1 each: for $k$ yeses the loss is at least $k \log k$, which is
      @{two:.4f} for two. A digit without any attribute, as 4, has loss @{none:g} and teaches
      nothing.
    - **`NLLLoss` with one-hot targets**: `@{one_hot_refused}`.
    - **`BCELoss` with classes**: `@{classes_refused}`.
    """
    digits = load()
    logits, scores = softmax_model(), sigmoid_model()
    labels, answers = digits.test_labels, attributes(digits.test_labels)

    def fed(loss: Callable[..., Any], inputs: Array, target: Array, right: bool = False) -> str:
        value = f"{loss(inputs, target):.4f}"
        return f"**{value}**" if right else value

    nll, cross, bce, bce_logits = NLLLoss(), CrossEntropyLoss(), BCELoss(), BCEWithLogitsLoss()
    log_q, q = F.log_softmax(logits, 1), F.softmax(logits, 1)
    log_yes, yes = F.logsigmoid(scores), F.sigmoid(scores)
    refused = refusal(bce, np.round(scores, 2), answers)
    refusal(bce, log_yes, answers)

    # The bounds, each at the input that comes nearest.
    floor = float(np.log1p((CLASSES - 1) / np.e))
    assert ulps(cross(one_hot(labels), labels), floor) <= FEW
    assert floor < cross(q, labels) < np.log(CLASSES)
    assert -1 < nll(q, labels) < 0
    assert nll(logits, labels) < -1
    # Sure and wrong: the gradient that was lost, and the one that was wanted.
    wrong = np.array([[40.0, 0.0]])
    lost = through("softmax", wrong, nll(F.softmax(wrong, 1), [1], return_grad=True)[1])
    assert np.max(np.abs(lost)) < 1e-16
    assert apart(cross(wrong, [1], return_grad=True)[1], [[1, -1]]) < 1e-16
    assert np.all(F.sigmoid(log_yes) <= 0.5)
    assert ulps(nll(100 * logits, labels), 100 * nll(logits, labels)) <= 100
    assert apart(cross(log_q, labels), cross(logits, labels)) <= FEW * EPSILON
    yes_floor, no_floor = float(np.log1p(np.exp(-1))), float(np.log(2))
    train_answers = attributes(digits.train_labels)
    share = train_answers.mean()
    binary_floor = share * yes_floor + (1 - share) * no_floor
    assert ulps(bce_logits(train_answers, train_answers), binary_floor) <= FEW
    assert binary_floor < bce_logits(yes, answers)

    # Two yeses: least where the softmax is half and half.
    half = np.array([[30.0, 30.0, -30.0]])
    two = float(cross(half, np.array([[1.0, 1.0, 0.0]])))
    assert abs(two - 2 * np.log(2)) < 1e-12
    none, nothing = cross(scores[:1], np.zeros((1, 3)), return_grad=True)
    assert none == 0
    assert not nothing.any()
    assert not attributes(np.array([4])).any()

    doors: list[tuple[str, Callable[..., Any], str]] = [
        ("softmax", cross, "logits"),
        ("softmax", cross, "probabilities"),
        ("softmax", nll, "logits"),
        ("softmax", nll, "probabilities"),
        ("sigmoid", bce_logits, "logits"),
        ("sigmoid", bce_logits, "probabilities"),
    ]
    runs, accuracy, sureness = {}, {}, {}
    for squash, loss, fed_with in doors:
        name = f"`{type(loss).__name__}` of {fed_with}"
        between = squash if fed_with == "probabilities" else None
        if squash == "softmax":
            runs[name], parameters = descend(
                loss, between, digits.train, digits.train_labels, CLASSES
            )
            final = with_ones(digits.test) @ parameters
            right = np.mean(final.argmax(axis=1) == labels)
            confidence = F.softmax(final, 1).max(axis=1)
        else:
            runs[name], parameters = descend(
                loss, between, digits.train, train_answers, len(ATTRIBUTES)
            )
            final = with_ones(digits.test) @ parameters
            right = np.mean((final > 0) == (answers > 0))
            confidence = F.sigmoid(np.abs(final))
        accuracy[name], sureness[name] = float(right), float(confidence.mean())
    assert all(losses[-1] < losses[0] for losses in runs.values())
    assert min(runs["`CrossEntropyLoss` of probabilities"]) > floor
    assert min(runs["`BCEWithLogitsLoss` of probabilities"]) > binary_floor
    # The gradient never changes, so that the loss falls by the same amount in every step.
    falling = np.array(runs["`NLLLoss` of logits"])
    assert apart(falling / falling[1], np.arange(STEPS)) <= 1e-6
    of_digits = [name for name in runs if "BCE" not in name]
    assert max(of_digits, key=accuracy.__getitem__) == "`CrossEntropyLoss` of logits"
    assert max(runs, key=sureness.__getitem__) == "`NLLLoss` of logits"
    assert min(of_digits, key=accuracy.__getitem__) == "`NLLLoss` of logits"
    of_attributes = [name for name in runs if "BCE" in name]
    assert max(of_attributes, key=accuracy.__getitem__) == "`BCEWithLogitsLoss` of logits"
    rows = [
        [name, f"{losses[-1]:.3f}", f"{accuracy[name]:.1%}", f"{sureness[name]:.1%}"]
        for name, losses in runs.items()
    ]

    return {
        "multiclass": markdown(
            "| fed, for the ten digits | `NLLLoss` | `CrossEntropyLoss` |",
            [
                ["logits", fed(nll, logits, labels), fed(cross, logits, labels, True)],
                [
                    "log-probabilities",
                    fed(nll, log_q, labels, True),
                    fed(cross, log_q, labels, True),
                ],
                ["probabilities", fed(nll, q, labels), fed(cross, q, labels)],
            ],
        ),
        "multilabel": markdown(
            "| fed, for the attributes | `BCELoss` | `BCEWithLogitsLoss` |",
            [
                ["logits", "refused", fed(bce_logits, scores, answers, True)],
                ["log-probabilities", "refused", fed(bce_logits, log_yes, answers)],
                ["probabilities", fed(bce, yes, answers, True), fed(bce_logits, yes, answers)],
            ],
        ),
        "training": markdown("| trained by | loss | accuracy | mean confidence |", rows),
        "steps": STEPS,
        "floor": floor,
        "start": np.log(CLASSES),
        "refused": refused,
        "yes_floor": yes_floor,
        "no_floor": no_floor,
        "share": share,
        "binary_floor": binary_floor,
        "two": two,
        "none": none,
        "one_hot_refused": refusal(nll, log_q, one_hot(labels)),
        "classes_refused": refusal(bce, q, labels),
        "runs": runs,
    }


def draw_wrong_doors(numbers: Numbers) -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 4))
    families = ("CrossEntropyLoss", "NLLLoss"), ("BCEWithLogitsLoss",)
    looks = {
        "`CrossEntropyLoss` of logits": (BLUE, "-"),
        "`CrossEntropyLoss` of probabilities": (ORANGE, "-"),
        "`NLLLoss` of logits": (GREY, "-"),
        "`NLLLoss` of probabilities": (GREY, "--"),
        "`BCEWithLogitsLoss` of logits": (BLUE, "-"),
        "`BCEWithLogitsLoss` of probabilities": (ORANGE, "-"),
    }
    steps = np.arange(1, STEPS + 1)
    for axes, family, floor in zip(
        panels, families, (numbers["floor"], numbers["binary_floor"]), strict=True
    ):
        for name, losses in numbers["runs"].items():
            if name.startswith(tuple(f"`{loss}`" for loss in family)):
                colour, line = looks[name]
                label = name.replace("`", "")
                axes.semilogx(steps, losses, line, color=colour, linewidth=2, label=label)
        axes.axhline(floor, color=ORANGE, linestyle=":", linewidth=1.2)
        axes.annotate(
            "least possible",
            (STEPS, floor),
            (-4, -10),
            textcoords="offset points",
            ha="right",
            color=ORANGE,
        )
        axes.set(xlim=(1, STEPS), xlabel="step")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=7.5)
    panels[0].set(ylim=(-1.5, 2.5), ylabel="loss, nats", title="ten digits")
    panels[1].set(ylim=(0, 0.8), title="three attributes")
    return figure


# The page

INTRODUCTION = """\
# The connections

Entropy, cross-entropy, the Kullback-Leibler divergence, the likelihood and logistic regression are
one thing under several names. This page shows how, in numbers and pictures on real data: the
handwritten digits and the breast cancer data that come with scikit-learn.

`python examples/connections.py --out docs` writes it. Every number below was computed by that
script, which asserts what is claimed. Logarithms are natural, and losses in nats, where nothing
else is said. An *ulp* is the distance between neighbouring float64 numbers. The functions are those
of `crossent.functional`; [losses.md](losses.md) has each one's formulas.
"""

REFERENCES = """\
## References

1. C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27 (1948).
2. S. Kullback, R. A. Leibler, "On information and sufficiency", Annals of Mathematical Statistics
   22 (1951).
3. PyTorch documentation,
   [`torch.nn.NLLLoss`](https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html).
4. PyTorch documentation, [`torch.nn.CrossEntropyLoss`](
   https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html).
5. PyTorch documentation,
   [`torch.nn.BCELoss`](https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html).
6. PyTorch documentation, [`torch.nn.BCEWithLogitsLoss`](
   https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html).
"""

SECTIONS: dict[Callable[[], Numbers], Callable[[Numbers], Any]] = {
    dice: draw_dice,
    likelihood: draw_likelihood,
    decomposition: draw_decomposition,
    maximum_likelihood: draw_maximum_likelihood,
    logistic_regression: draw_logistic_regression,
    many_answers: draw_many_answers,
    wrong_doors: draw_wrong_doors,
}


def render(section: Callable[[], Numbers], numbers: Numbers) -> str:
    """The section's docstring with its numbers."""

    def fill(place: re.Match[str]) -> str:
        return format(numbers[place[1]], place[2] or "")

    return re.sub(r"@\{(\w+)(?::([^}]*))?\}", fill, "## " + (inspect.getdoc(section) or "")) + "\n"


def figure_of(text: str) -> str:
    """The path of the figure that a section shows."""
    found = re.search(r"\((figures/[\w-]+\.svg)\)", text)
    assert found
    return found[1]


def page(computed: dict[Callable[[], Numbers], Numbers]) -> str:
    sections = [render(section, numbers) for section, numbers in computed.items()]
    return "\n".join([INTRODUCTION, *sections, REFERENCES])


def write(directory: Path, computed: dict[Callable[[], Numbers], Numbers]) -> None:
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    (directory / "connections.md").write_text(page(computed), encoding="utf-8")
    with matplotlib.rc_context(STYLE):
        for section, numbers in computed.items():
            figure = SECTIONS[section](numbers)
            path = directory / figure_of(inspect.getdoc(section) or "")
            figure.savefig(path, metadata={"Date": None})
            plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("connections"),
        help="the directory for the page and its figures (default: %(default)s)",
    )
    directory = parser.parse_args().out
    # For matrices this small, BLAS threads wait for each other at length.
    with threadpool_limits(limits=1, user_api="blas"):
        write(directory, {section: section() for section in SECTIONS})
    print(f"Page: {directory / 'connections.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
