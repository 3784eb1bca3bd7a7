"""Handwritten digits, classified on crossent's loss and gradient with NumPy and SciPy alone.

Four steps, each a function below:

1. `fit_regression` fits multinomial logistic regression: SciPy's L-BFGS minimises the mean
   cross-entropy plus a penalty, given the value and the gradient.
2. `fit_sklearn` fits the same model with scikit-learn; the coefficients agree.
3. `train_network` trains a network with one hidden layer, its backward pass written out in NumPy.
4. `compare_formula` takes the loss of one confident row, here and by the usual formula.

At the end a picture shows how the network learned, and what it mistook for what.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import crossent.functional as F

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[Any]

SEED = 0
CLASSES = 10

# Logistic regression
INVERSE_PENALTY = 1.0  # scikit-learn's C
TOLERANCE = 1e-8  # on the largest element of the gradient
AGREEMENT = 1e-4  # demanded of the coefficients of both fits

# The network
HIDDEN = 256
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-3
REQUIRED_ACCURACY = 0.97


class Progress:
    """One line that is written over on a terminal; elsewhere a line a second."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.due = 0.0

    def show(self, text: str) -> None:
        now = time.perf_counter()
        if now < self.due:
            return
        if self.live:
            self.due = now + 0.05
            print(f"\r\x1b[K  {text}", end="", flush=True)
        else:
            self.due = now + 1
            print(f"  {text}", flush=True)

    def close(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", flush=True)


@dataclass
class Digits:
    """Images of 8 x 8 pixels in [0, 1], one a row, and the digits that they show."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array


def load() -> Digits:
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    return Digits(train, train_labels, test, test_labels)


# 1, 2: logistic regression


@dataclass
class Regression:
    coefficients: Array  # (classes, pixels)
    intercepts: Array  # (classes,)
    seconds: float

    def accuracy(self, images: Array, labels: Array) -> float:
        logits = images @ self.coefficients.T + self.intercepts
        return float(np.mean(logits.argmax(1) == labels))


def fit_regression(digits: Digits, progress: Progress) -> Regression:
    """Minimise mean cross-entropy + |coefficients|^2 / (2 C N); the intercepts go unpenalised."""
    count, pixels = digits.train.shape
    penalty = 1 / (INVERSE_PENALTY * count)

    def split(parameters: Array) -> tuple[Array, Array]:
        matrix = parameters.reshape(CLASSES, pixels + 1)
        return matrix[:, :pixels], matrix[:, pixels]

    def objective(parameters: Array) -> tuple[float, Array]:
        coefficients, intercepts = split(parameters)
        logits = digits.train @ coefficients.T + intercepts
        loss, grad = F.cross_entropy(logits, digits.train_labels, return_grad=True)
        gradient = np.empty_like(parameters)
        by_coefficients, by_intercepts = split(gradient)
        by_coefficients[:] = grad.T @ digits.train + penalty * coefficients
        by_intercepts[:] = grad.sum(axis=0)
        return loss + penalty / 2 * np.sum(coefficients**2), gradient

    iterations = 0

    def report(intermediate_result: Any) -> None:
        nonlocal iterations
        iterations += 1
        progress.show(f"L-BFGS, iteration {iterations}: {intermediate_result.fun:.9f}")

    start = time.perf_counter()
    result = minimize(
        objective,
        np.zeros(CLASSES * (pixels + 1)),
        method="L-BFGS-B",
        jac=True,
        callback=report,
        options={"gtol": TOLERANCE, "ftol": 0, "maxiter": 10_000, "maxfun": 20_000},
    )
    seconds = time.perf_counter() - start
    progress.close()
    coefficients, intercepts = split(result.x)
    return Regression(coefficients, intercepts, seconds)


def fit_sklearn(digits: Digits) -> Regression:
    """The same model, penalty, solver and tolerance by scikit-learn."""
    model = LogisticRegression(C=INVERSE_PENALTY, tol=TOLERANCE, max_iter=10_000)
    start = time.perf_counter()
    model.fit(digits.train, digits.train_labels)
    seconds = time.perf_counter() - start
    return Regression(model.coef_, model.intercept_, seconds)


# 3: a network


@dataclass
class Network:
    """64 pixels, a hidden layer of rectified linear units, 10 logits; all in float32."""

    parameters: list[Array]

    @classmethod
    def initial(cls, pixels: int, rng: np.random.Generator) -> Network:
        first = rng.standard_normal((pixels, HIDDEN), np.float32) * np.sqrt(2 / pixels)
        second = rng.standard_normal((HIDDEN, CLASSES), np.float32) * np.sqrt(1 / HIDDEN)
        zeros = [np.zeros(HIDDEN, np.float32), np.zeros(CLASSES, np.float32)]
        return cls([first.astype(np.float32), zeros[0], second.astype(np.float32), zeros[1]])

    def forward(self, images: Array) -> tuple[Array, Array]:
        first, first_bias, second, second_bias = self.parameters
        hidden = np.maximum(images @ first + first_bias, 0)
        return hidden, hidden @ second + second_bias

    def predict(self, images: Array) -> Array:
        predicted: Array = self.forward(images)[1].argmax(1)
        return predicted

    def loss_and_gradient(self, images: Array, labels: Array) -> tuple[float, list[Array]]:
        hidden, logits = self.forward(images)
        # The gradient takes the place of the logits: the loss needs no memory of its own.
        loss, grad = F.cross_entropy(logits, labels, grad_out=logits)
        second = self.parameters[2]
        by_hidden = (grad @ second.T) * (hidden > 0)
        gradient = [images.T @ by_hidden, by_hidden.sum(0), hidden.T @ grad, grad.sum(0)]
        return float(loss), gradient


@dataclass
class History:
    losses: list[float] = field(default_factory=list)  # on the training set, one an epoch
    accuracies: list[float] = field(default_factory=list)  # on the test set
    predicted: Array = field(default_factory=lambda: np.empty(0, np.int64))
    seconds: float = 0.0


def batches(count: int, rng: np.random.Generator) -> Iterator[Array]:
    order = rng.permutation(count)
    for start in range(0, count, BATCH):
        yield order[start : start + BATCH]


def train_network(digits: Digits, progress: Progress) -> History:
    """Stochastic gradient descent with momentum, the rate falling by a cosine."""
    rng = np.random.default_rng(SEED)
    train, test = digits.train.astype(np.float32), digits.test.astype(np.float32)
    count, pixels = train.shape
    network = Network.initial(pixels, rng)
    velocity = [np.zeros_like(parameter) for parameter in network.parameters]
    history = History()

    start = time.perf_counter()
    for epoch in range(EPOCHS):
        rate = LEARNING_RATE * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2
        total = 0.0
        for rows in batches(count, rng):
            loss, gradient = network.loss_and_gradient(train[rows], digits.train_labels[rows])
            total += loss * len(rows)
            for parameter, slope, speed in zip(network.parameters, gradient, velocity, strict=True):
                speed *= MOMENTUM
                speed -= np.float32(rate) * (slope + np.float32(WEIGHT_DECAY) * parameter)
                parameter += speed
        history.predicted = network.predict(test)
        history.losses.append(total / count)
        history.accuracies.append(float(np.mean(history.predicted == digits.test_labels)))
        progress.show(
            f"epoch {epoch + 1} of {EPOCHS}: "
            f"loss {history.losses[-1]:.5f}, test accuracy {history.accuracies[-1]:.2%}"
        )
    history.seconds = time.perf_counter() - start
    progress.close()
    return history


# 4: the number


def usual_formula(logits: Array, target: int) -> Any:
    """Shift by the maximum, sum the exponentials, take the logarithm: the small terms are lost."""
    shifted = logits - logits.max()
    return np.log(np.exp(shifted).sum()) - shifted[target]


def compare_formula() -> tuple[float, float]:
    row = np.array([20, 0], np.float32)
    return float(F.cross_entropy(row, 0)), float(usual_formula(row, 0))


# The picture


def draw(history: History, labels: Array, path: Path) -> None:
    blue, orange = "#2a6fbb", "#d9730d"
    figure, axes = plt.subplot_mosaic(
        [["loss", "confusion"], ["accuracy", "confusion"]],
        figsize=(11, 5.5),
        width_ratios=(1, 1.15),
        layout="constrained",
    )

    epochs = np.arange(1, len(history.losses) + 1)
    axes["loss"].semilogy(epochs, history.losses, color=blue, linewidth=2)
    axes["loss"].set_title("Mean cross-entropy on the training set, nats")
    axes["accuracy"].plot(epochs, 100 * np.array(history.accuracies), color=orange, linewidth=2)
    axes["accuracy"].set_title("Accuracy on the test set, %")
    axes["accuracy"].set_ylim(90, 100)
    axes["accuracy"].set_xlabel("epoch")
    for name in ("loss", "accuracy"):
        axes[name].set_xlim(1, epochs[-1])
        axes[name].grid(color="#e4e4e4")
        axes[name].spines[["top", "right"]].set_visible(False)

    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels, history.predicted), 1)
    matrix = axes["confusion"]
    # Mistakes are few: the root lets a single one be seen.
    matrix.imshow(np.sqrt(counts), cmap="Blues", vmax=np.sqrt(counts.max()) * 1.15)
    for row, column in np.argwhere(counts):
        colour = "white" if row == column else orange
        matrix.text(
            column, row, counts[row, column], ha="center", va="center", color=colour, weight="bold"
        )
    wrong = int(counts.sum() - counts.trace())
    matrix.set_title(f"Confusion matrix: {wrong} of {counts.sum()} test images mistaken")
    matrix.set_xlabel("predicted digit")
    matrix.set_ylabel("true digit")
    matrix.set_xticks(range(CLASSES))
    matrix.set_yticks(range(CLASSES))
    matrix.tick_params(length=0)
    matrix.spines[:].set_visible(False)

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# The main program


def demonstrate(path: Path) -> bool:
    """Run all steps; answer whether the results are what they should be."""
    progress = Progress()
    digits = load()
    print(f"{len(digits.train)} images to learn from, {len(digits.test)} to test on\n")

    print("Multinomial logistic regression, float64")
    ours, theirs = fit_regression(digits, progress), fit_sklearn(digits)
    accuracies = []
    for name, fit in (("crossent + SciPy", ours), ("scikit-learn", theirs)):
        accuracies.append(fit.accuracy(digits.test, digits.test_labels))
        print(f"  {name:18}test accuracy {accuracies[-1]:.2%}, {fit.seconds:.2f} s")
    apart = max(
        float(np.max(np.abs(ours.coefficients - theirs.coefficients))),
        float(np.max(np.abs(ours.intercepts - theirs.intercepts))),
    )
    print(f"  coefficients at most {apart:.1e} apart (demanded: {AGREEMENT:.0e})\n")

    print(f"Network with {HIDDEN} hidden units, float32")
    history = train_network(digits, progress)
    accuracy = history.accuracies[-1]
    print(f"  crossent + NumPy  test accuracy {accuracy:.2%}, {history.seconds:.2f} s")
    print(f"  demanded: {REQUIRED_ACCURACY:.0%}\n")

    here, there = compare_formula()
    print("Loss of the float32 logits [20, 0] for class 0")
    print(f"  crossent          {here:.8g}")
    print(f"  usual formula     {there:.8g}\n")

    draw(history, digits.test_labels, path)
    print(f"Picture: {path}")

    checks = {
        "the coefficients differ": apart <= AGREEMENT,
        "the accuracies of the regressions differ": accuracies[0] == accuracies[1],
        "the network is not accurate enough": accuracy >= REQUIRED_ACCURACY,
        "the loss of [20, 0] is wrong": abs(here / 2.0611536e-9 - 1) < 1e-6,
    }
    for failure in (failure for failure, passed in checks.items() if not passed):
        print(f"error: {failure}", file=sys.stderr)
    return all(checks.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("digits.png"), help="the picture (default: %(default)s)"
    )
    path = parser.parse_args().out
    # For matrices this small, the BLAS threads of NumPy and SciPy wait for each other at length.
    with threadpool_limits(limits=1, user_api="blas"):
        return 0 if demonstrate(path) else 1


if __name__ == "__main__":
    sys.exit(main())
