"""How sure may a model be? Handwritten digits, a network, and one number that calibrates it.

A small network of scikit-learn learns digits from few images until it makes no mistake on them. It
then says nearly 100 % of most others, also of those that it mistakes. `fit_temperature` finds by
which number to divide its logits, on images that it has not seen; on others again, the expected
calibration error and the log loss fall, and no answer changes. At the end a picture, if matplotlib
is installed, shows how often it was right beside how sure it was.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

import crossent
from crossent.sklearn import TemperatureScaling, fit_temperature, log_loss

Array = NDArray[Any]

BINS = 10


def calibration_error(proba: Array, labels: Array) -> tuple[float, Array]:
    """Expected calibration error; of each bin how sure, how often right, and how many.

    Answers go to bins by the largest probability. The error is the mean distance between how sure
    and how often right the answers of a bin are, by their number (Naeini et al. 2015).
    """
    sure, right = proba.max(axis=1), proba.argmax(axis=1) == labels
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    some = np.maximum(counts, 1)
    mean_sure = np.bincount(place, sure, minlength=BINS) / some
    mean_right = np.bincount(place, right, minlength=BINS) / some
    error = float(counts @ np.abs(mean_sure - mean_right) / len(labels))
    return error, np.stack([mean_sure, mean_right, counts])


def show(name: str, proba: Array, labels: Array) -> tuple[float, float, Array]:
    error, bins = calibration_error(proba, labels)
    loss = log_loss(labels, proba, labels=range(10))
    accuracy = float(np.mean(proba.argmax(axis=1) == labels))
    print(f"  {name:22}calibration error {error:.4f}, log loss {loss:.4f}, accuracy {accuracy:.2%}")
    return error, loss, bins


def draw(before: Array, after: Array, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharey=True, layout="constrained")
    for ax, (title, bins) in zip(axes, (("Before", before), ("After", after)), strict=True):
        sure, right, counts = bins[:, bins[2] > 0]
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=1)
        ax.scatter(sure, right, s=8 + 2 * counts, color="#2a6fbb", alpha=0.8)
        ax.set_title(title)
        ax.set_xlabel("how sure: mean probability of the answer")
        ax.set_xlim(0, 1.03)
        ax.set_ylim(0, 1.03)
        ax.grid(color="#e4e4e4")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("how often right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"\nPicture: {path}")


def demonstrate(path: Path) -> bool:
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    order = np.random.default_rng(0).permutation(len(labels))
    train, held, test = np.split(order, [200, 1000])

    print(f"A network, fitted to {len(train)} images")
    network = MLPClassifier(
        (100,),
        alpha=0.0,
        learning_rate_init=0.02,
        max_iter=300,
        tol=0,
        random_state=0,
        n_iter_no_change=300,
    )
    with warnings.catch_warnings():
        # It is to be too sure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(images[train], labels[train])

    def logits_of(rows: Array) -> Array:
        hidden = np.maximum(images[rows] @ network.coefs_[0] + network.intercepts_[0], 0)
        logits: Array = hidden @ network.coefs_[1] + network.intercepts_[1]
        return logits

    temperature = fit_temperature(logits_of(held), labels[held])
    logits = logits_of(test)
    before = show("as it is", crossent.softmax(logits, axis=1), labels[test])
    calibrated = crossent.softmax(logits, axis=1, temperature=temperature)
    after = show(f"temperature {temperature:.3f}", calibrated, labels[test])

    print("\nNaive Bayes, which takes pixels for independent")
    bayes = GaussianNB(var_smoothing=1e-2).fit(images[train], labels[train])
    scaled = TemperatureScaling(FrozenEstimator(bayes)).fit(images[held], labels[held])
    first = show("as it is", bayes.predict_proba(images[test]), labels[test])
    second = show(
        f"temperature {scaled.temperature_:.3f}", scaled.predict_proba(images[test]), labels[test]
    )
    try:
        draw(before[2], after[2], path)
    except ImportError:
        print("\nNo picture: matplotlib is not installed")
    return after[0] < before[0] and after[1] < before[1] and second[:2] < first[:2]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("calibration.png"),
        help="the picture (default: %(default)s)",
    )
    path = parser.parse_args().out
    with threadpool_limits(limits=1, user_api="blas"):
        if demonstrate(path):
            return 0
    print("error: the model is no better calibrated", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
