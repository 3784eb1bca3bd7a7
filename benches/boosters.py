"""Boosting with crossent's objectives, beside each library's own and beside NumPy's formulas.

`--rows` rows of 20 features are trained on for `--rounds` rounds, once with each objective in turn,
`--repeats` times; medians are printed. The columns of calls time the objective alone, on the scores
after training, in the library's own type and memory order. A library's own objective is not to be
called from outside.

    python benches/boosters.py            # needs: pip install crossent[boosting]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.boosting import catboost as for_catboost
from crossent.boosting import lightgbm as for_lightgbm
from crossent.boosting import xgboost as for_xgboost

Array = NDArray[Any]

FEATURES = 20


def data(rows: int, classes: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, FEATURES), np.float32)
    scores = features[:, :classes] + rng.gumbel(size=(rows, classes))
    return features, scores.argmax(axis=1)


# As people write them


def softmax_in_numpy(factor: float, floor: float) -> Callable[..., tuple[Array, Array]]:
    def objective(scores: Array, data: Any) -> tuple[Array, Array]:
        labels = data.get_label().astype(int)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        p = exponentials / exponentials.sum(axis=1, keepdims=True)
        hess = np.maximum(factor * p * (1 - p), floor)
        p[np.arange(len(labels)), labels] -= 1
        return p, hess

    return objective


def sigmoid_in_numpy(scores: Array, data: Any) -> tuple[Array, Array]:
    p = 1 / (1 + np.exp(-scores))
    return p - data.get_label(), p * (1 - p)


class SoftmaxInNumPy:
    """Of the tutorials for CatBoost."""

    def calc_ders_multi(self, approxes: Array, target: float, weight: float) -> Any:
        exponentials = np.exp(approxes - np.max(approxes))
        p = exponentials / exponentials.sum()
        grad = -weight * p
        grad[int(target)] += weight
        return grad, weight * (np.outer(p, p) - np.diag(p))


class SigmoidInNumPy:
    """Of the tutorials for CatBoost."""

    def calc_ders_range(self, approxes: Array, targets: Array, weights: Array | None) -> Any:
        ders = []
        for score, target in zip(approxes, targets, strict=True):
            p = 1 / (1 + np.exp(-score))
            ders.append((target - p, -p * (1 - p)))
        return ders


class MadeBefore:
    """Derivatives of equal scores, made once: what handing them over takes, and nothing else."""

    def __init__(self, classes: int) -> None:
        p = np.full(classes, 1 / classes)
        self.several = (np.eye(classes) - p).tolist(), (np.outer(p, p) - np.diag(p)).tolist()
        self.one = [(target - 0.5, -0.25) for target in (0.0, 1.0)]

    def calc_ders_multi(self, approxes: Array, target: float, weight: float) -> Any:
        return self.several[0][int(target)], self.several[1]

    def calc_ders_range(self, approxes: Array, targets: Array, weights: Array | None) -> Any:
        return [self.one[int(target)] for target in targets]


class Labels:
    """What an objective wants of a data set."""

    def __init__(self, labels: Array) -> None:
        self.labels = labels.astype(np.float32)

    def get_label(self) -> Array:
        return self.labels

    def get_weight(self) -> None:
        return None


# Time


def seconds(repeats: int, ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median of each way, which take turns; one turn to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in taken.items()}


def row(what: str, trained: dict[str, float], called: dict[str, float]) -> str:
    own, ours = trained["own"], trained["crossent"]
    cells = [f"{ours:.2f} s", f"{own:.2f} s ({own / ours:.2f}×)"]
    cells += [f"{trained['NumPy']:.2f} s ({trained['NumPy'] / ours:.2f}×)"]
    cells += [f"{1e3 * called['crossent']:.3g} ms"]
    cells += [f"{1e3 * called['NumPy']:.3g} ms ({called['NumPy'] / called['crossent']:.1f}×)"]
    return f"| {what} | " + " | ".join(cells) + " |"


def bench_xgboost(rows: int, classes: int, rounds: int, repeats: int, threads: int) -> str:
    import xgboost

    features, labels = data(rows, classes)
    matrix = xgboost.DMatrix(features, label=labels)
    parameters: dict[str, Any] = {"nthread": threads, "base_score": 0.5}
    objective: Any
    if classes > 2:
        parameters |= {"objective": "multi:softprob", "num_class": classes}
        objective, usual = for_xgboost.SoftmaxCrossEntropy(), softmax_in_numpy(2.0, 1e-16)
    else:
        parameters |= {"objective": "binary:logistic"}
        objective, usual = for_xgboost.BinaryCrossEntropy(), sigmoid_in_numpy

    def train(obj: Any) -> Any:
        return xgboost.train(parameters, matrix, rounds, obj=obj)

    trained = seconds(
        repeats,
        {
            "crossent": lambda: train(objective),
            "own": lambda: train(None),
            "NumPy": lambda: train(usual),
        },
    )
    scores = train(None).predict(matrix, output_margin=True)
    given = Labels(labels)
    called = seconds(
        21,
        {"crossent": lambda: objective(scores, given), "NumPy": lambda: usual(scores, given)},
    )
    return row(f"XGBoost {xgboost.__version__}, {classes} classes", trained, called)


def bench_lightgbm(rows: int, classes: int, rounds: int, repeats: int, threads: int) -> str:
    import lightgbm

    features, labels = data(rows, classes)
    parameters: dict[str, Any] = {
        "num_threads": threads, "verbose": -1, "boost_from_average": False, "force_col_wise": True,
    }  # fmt: skip
    objective: Any
    if classes > 2:
        parameters |= {"num_class": classes}
        own, objective = "multiclass", for_lightgbm.SoftmaxCrossEntropy()
        usual = softmax_in_numpy(classes / (classes - 1), 0.0)
    else:
        own, objective, usual = "binary", for_lightgbm.BinaryCrossEntropy(), sigmoid_in_numpy

    def train(with_objective: Any) -> Any:
        every = lightgbm.Dataset(features, labels, params=parameters)
        return lightgbm.train({**parameters, "objective": with_objective}, every, rounds)

    trained = seconds(
        repeats,
        {
            "crossent": lambda: train(objective),
            "own": lambda: train(own),
            "NumPy": lambda: train(usual),
        },
    )
    scores = np.asarray(train(own).predict(features, raw_score=True), order="F")
    given = Labels(labels)
    called = seconds(
        21,
        {"crossent": lambda: objective(scores, given), "NumPy": lambda: usual(scores, given)},
    )
    return row(f"LightGBM {lightgbm.__version__}, {classes} classes", trained, called)


def bench_catboost(rows: int, classes: int, rounds: int, repeats: int, threads: int) -> str:
    import catboost

    features, labels = data(rows, classes)
    pool = catboost.Pool(features, labels)
    parameters = {
        "iterations": rounds, "depth": 6, "learning_rate": 0.3, "verbose": 0,
        "thread_count": threads, "allow_writing_files": False, "boost_from_average": False,
        "leaf_estimation_method": "Newton", "leaf_estimation_iterations": 1,
        "leaf_estimation_backtracking": "No", "bootstrap_type": "No",
    }  # fmt: skip
    objective: Any
    usual: Any
    if classes > 2:
        own, objective, usual = "MultiClass", for_catboost.SoftmaxCrossEntropy(), SoftmaxInNumPy()
    else:
        own, objective, usual = "Logloss", for_catboost.BinaryCrossEntropy(), SigmoidInNumPy()

    def train(loss: Any, **options: Any) -> Any:
        if not isinstance(loss, str):
            options["eval_metric"] = objective.metric()
            if classes > 2:
                options["classes_count"] = classes
        chosen = {**parameters, **options}
        return catboost.CatBoostClassifier(loss_function=loss, **chosen).fit(pool)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = seconds(
            repeats,
            {
                "crossent": lambda: train(objective),
                "own": lambda: train(own),
                "NumPy": lambda: train(usual),
                "made before": lambda: train(MadeBefore(classes)),
            },
        )
        scores = train(own).predict(features, prediction_type="RawFormulaVal")
    as_floats = labels.astype(np.float32)

    def call(loss: Any) -> None:
        if classes == 2:
            loss.calc_ders_range(scores, as_floats, None)
        else:
            for each, label in zip(scores, as_floats.tolist(), strict=True):
                loss.calc_ders_multi(each, label, 1.0)

    called = seconds(3, {"crossent": lambda: call(objective), "NumPy": lambda: call(usual)})
    line = row(f"CatBoost {catboost.__version__}, {classes} classes", trained, called)
    times = f"{trained['made before']:.2f} s ({trained['own'] / trained['made before']:.2f}×)"
    return f"{line}\n| - derivatives made before | {times} | | | | |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=crossent.get_num_threads())
    parser.add_argument("--libraries", nargs="+", default=["xgboost", "lightgbm", "catboost"])
    options = parser.parse_args()
    print(
        f"{options.rows} rows, {options.rounds} rounds, {options.threads} threads, "
        f"{crossent.simd_level()}; CatBoost: a tenth of the rows.\n"
    )
    print("| | crossent | the library's own | NumPy | a call: crossent | a call: NumPy |")
    print("|---|---:|---:|---:|---:|---:|")
    benches = {"xgboost": bench_xgboost, "lightgbm": bench_lightgbm, "catboost": bench_catboost}
    for name in options.libraries:
        rows = options.rows // 10 if name == "catboost" else options.rows
        for classes in (2, 10):
            print(
                benches[name](rows, classes, options.rounds, options.repeats, options.threads),
                flush=True,
            )


if __name__ == "__main__":
    main()
