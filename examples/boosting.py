"""Handwritten digits by boosted trees, on crossent's objectives.

Four steps, each a function below:

1. `same_trees` trains XGBoost and LightGBM with their own softmax and with crossent's: the trees
   are the same.
2. `soft_labels` trains on what no built-in objective takes: labels that are smoothed.
3. `focal` finds one rare digit among all others, with and without weights on what is hard.
4. `several_scores` trains CatBoost with the whole Hessian of ten classes.
"""

from __future__ import annotations

import sys
from typing import Any

import catboost
import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import crossent
import crossent.functional as F
from crossent.boosting import catboost as for_catboost
from crossent.boosting import lightgbm as for_lightgbm
from crossent.boosting import xgboost as for_xgboost

Array = NDArray[Any]

CLASSES = 10
ROUNDS = 20
XGBOOST = {
    "objective": "multi:softprob", "num_class": CLASSES, "max_depth": 4, "eta": 0.3,
    "base_score": 0.5, "nthread": 1,
}  # fmt: skip
LIGHTGBM = {
    "num_class": CLASSES, "num_leaves": 15, "boost_from_average": False, "verbose": -1,
    "num_threads": 1, "metric": "none",
}  # fmt: skip


class Digits:
    """Images of 8 x 8 pixels, one a row, and the digits that they show."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        parts = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
        self.train, self.test, self.train_labels, self.test_labels = parts


def report(name: str, scores: Array, labels: Array) -> float:
    loss = float(F.cross_entropy(scores, labels))
    accuracy = float(np.mean(scores.argmax(axis=1) == labels))
    print(f"  {name:36}test loss {loss:.4f}, accuracy {accuracy:.2%}")
    return accuracy


def same_trees(digits: Digits) -> bool:
    print("Softmax cross-entropy of ten classes")
    loss = for_xgboost.SoftmaxCrossEntropy()
    train = xgboost.DMatrix(digits.train, label=digits.train_labels)
    test = xgboost.DMatrix(digits.test)
    ours = xgboost.train(XGBOOST, train, ROUNDS, obj=loss)
    theirs = xgboost.train(XGBOOST, train, ROUNDS)
    scores = [model.predict(test, output_margin=True) for model in (ours, theirs)]
    report("XGBoost, crossent", scores[0], digits.test_labels)
    report("XGBoost, multi:softprob", scores[1], digits.test_labels)
    apart = [float(np.abs(scores[0] - scores[1]).max())]

    scores = [
        lightgbm.train(
            {**LIGHTGBM, "objective": objective},
            lightgbm.Dataset(digits.train, digits.train_labels),
            ROUNDS,
        ).predict(digits.test, raw_score=True)
        for objective in (for_lightgbm.SoftmaxCrossEntropy(), "multiclass")
    ]
    report("LightGBM, crossent", scores[0], digits.test_labels)
    report("LightGBM, multiclass", scores[1], digits.test_labels)
    apart.append(float(np.abs(scores[0] - scores[1]).max()))
    print(f"  scores at most {max(apart):.1e} apart\n")
    return max(apart) < 1e-4


def soft_labels(digits: Digits) -> bool:
    print("Labels smoothed by 0.1")
    loss = for_lightgbm.SoftmaxCrossEntropy(label_smoothing=0.1)
    model = lightgbm.train(
        {**LIGHTGBM, "objective": loss},
        lightgbm.Dataset(digits.train, digits.train_labels),
        ROUNDS,
    )
    scores = model.predict(digits.test, raw_score=True)
    accuracy = report("LightGBM, crossent", scores, digits.test_labels)
    print(f"  the surest answer has probability {crossent.softmax(scores, axis=1).max():.4f}\n")
    return accuracy > 0.9


def focal(digits: Digits) -> bool:
    print("An 8, or not")
    train = xgboost.DMatrix(digits.train, label=digits.train_labels == 8)
    test, truth = xgboost.DMatrix(digits.test), digits.test_labels == 8
    parameters = {"objective": "binary:logistic", "max_depth": 3, "base_score": 0.5, "nthread": 1}
    found = []
    for loss in (
        for_xgboost.BinaryCrossEntropy(),
        for_xgboost.BinaryCrossEntropy(pos_weight=9),
        for_xgboost.FocalLoss(alpha=0.75, gamma=2),
    ):
        scores = xgboost.train(parameters, train, ROUNDS, obj=loss).predict(
            test, output_margin=True
        )
        right = (scores > 0) & truth
        found.append(right.sum() / truth.sum())
        wrong = ((scores > 0) & ~truth).sum()
        print(f"  {loss!s:36}finds {found[-1]:.1%}, of others {wrong}")
    print()
    return bool(min(found) > 0.7)


def several_scores(digits: Digits) -> bool:
    print("CatBoost, the whole Hessian of ten classes")
    loss = for_catboost.SoftmaxCrossEntropy()
    model = catboost.CatBoostClassifier(
        loss_function=loss, eval_metric=loss.metric(), classes_count=CLASSES, iterations=10,
        depth=4, learning_rate=0.5, verbose=0, thread_count=1, allow_writing_files=False,
    )  # fmt: skip
    model.fit(digits.train, digits.train_labels)
    scores = model.predict(digits.test, prediction_type="RawFormulaVal")
    return report("CatBoost, crossent", scores, digits.test_labels) > 0.8


def main() -> int:
    digits = Digits()
    steps = (same_trees, soft_labels, focal, several_scores)
    failed = [step.__name__ for step in steps if not step(digits)]
    for name in failed:
        print(f"error: {name} is not what it should be", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
