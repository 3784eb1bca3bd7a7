"""Objectives for boosting: the libraries' own objectives grow the same trees."""

import doctest
import json
import pickle
import subprocess
import sys
import tracemalloc

import catboost
import lightgbm
import mpmath
import numpy as np
import pytest
import xgboost
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

import crossent.functional as F
from crossent.boosting import catboost as for_catboost
from crossent.boosting import lightgbm as for_lightgbm
from crossent.boosting import xgboost as for_xgboost

MODULES = {"xgboost": for_xgboost, "lightgbm": for_lightgbm, "catboost": for_catboost}
DATA = {"digits": load_digits, "wine": load_wine, "cancer": load_breast_cancer}
ROUNDS = 8

every_data = pytest.mark.parametrize("name", DATA)
weighted = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])


def data(name, weighted=False):
    features, labels = DATA[name](return_X_y=True)
    weight = np.random.default_rng(0).uniform(0.2, 3, len(labels)) if weighted else None
    return features, labels, weight, len(set(labels))


def xgboost_parameters(classes):
    chosen = {"max_depth": 4, "nthread": 1, "seed": 0, "base_score": 0.5}
    if classes > 2:
        return {**chosen, "objective": "multi:softprob", "num_class": classes}
    return {**chosen, "objective": "binary:logistic"}


def lightgbm_parameters(classes):
    chosen = {
        "verbose": -1,
        "num_threads": 1,
        "deterministic": True,
        "boost_from_average": False,
        "min_data_in_leaf": 5,
    }
    return {**chosen, "num_class": classes} if classes > 2 else chosen


def catboost_parameters():
    return {
        "iterations": 4,
        "depth": 4,
        "learning_rate": 0.3,
        "verbose": 0,
        "thread_count": 1,
        "allow_writing_files": False,
        "random_seed": 0,
        "boost_from_average": False,
        "bootstrap_type": "No",
        "leaf_estimation_method": "Newton",
        "leaf_estimation_iterations": 1,
        "leaf_estimation_backtracking": "No",
    }


def same_trees(ours, theirs, columns):
    ours, theirs = ours.trees_to_dataframe(), theirs.trees_to_dataframe()
    assert len(ours) == len(theirs)
    for column in columns:
        assert ours[column].equals(theirs[column]), column


def catboost_splits(model, path):
    """The feature and the border of every split, tree by tree."""
    model.save_model(str(path), format="json")
    trees = json.loads(path.read_text())["oblivious_trees"]
    return [[(s["float_feature_index"], s["border"]) for s in tree["splits"]] for tree in trees]


# The libraries' own objectives


@weighted
@every_data
def test_xgboost_grows_the_same_trees(name, weighted):
    features, labels, weight, classes = data(name, weighted)
    matrix = xgboost.DMatrix(features, label=labels, weight=weight)
    kind = for_xgboost.SoftmaxCrossEntropy if classes > 2 else for_xgboost.BinaryCrossEntropy
    loss, parameters = kind(), xgboost_parameters(classes)
    heard = {"ours": {}, "theirs": {}}

    def train(who, **options):
        return xgboost.train(
            parameters, matrix, ROUNDS, evals=[(matrix, "all")], evals_result=heard[who],
            verbose_eval=False, **options,
        )  # fmt: skip

    ours = train("ours", obj=loss, custom_metric=loss.metric())
    parameters = {**parameters, "eval_metric": "mlogloss" if classes > 2 else "logloss"}
    theirs = train("theirs", custom_metric=loss.metric(from_logits=False))
    same_trees(ours, theirs, ["Feature", "Split", "Yes", "No"])
    np.testing.assert_allclose(
        ours.predict(matrix, output_margin=True),
        theirs.predict(matrix, output_margin=True),
        rtol=1e-5,
        atol=1e-5,
    )
    (builtin, expected), (_, of_probabilities) = heard["theirs"]["all"].items()
    assert builtin == parameters["eval_metric"]
    # Both metrics are printed with six digits on the way.
    np.testing.assert_allclose(heard["ours"]["all"]["crossent"], expected, rtol=2e-5)
    np.testing.assert_allclose(of_probabilities, expected, rtol=2e-5)


@weighted
@every_data
def test_lightgbm_grows_the_same_trees(name, weighted):
    features, labels, weight, classes = data(name, weighted)
    builtin, metric = (
        ("multiclass", "multi_logloss") if classes > 2 else ("binary", "binary_logloss")
    )
    kind = for_lightgbm.SoftmaxCrossEntropy if classes > 2 else for_lightgbm.BinaryCrossEntropy
    loss, heard = kind(), {}

    def train(who, objective, metric, feval):
        own = lightgbm.Dataset(features, label=labels, weight=weight, params={"verbose": -1})
        heard[who] = {}
        return lightgbm.train(
            {**lightgbm_parameters(classes), "objective": objective, "metric": metric},
            own, ROUNDS, valid_sets=[own], feval=feval,
            callbacks=[lightgbm.record_evaluation(heard[who])],
        )  # fmt: skip

    ours = train("ours", loss, "none", loss.metric())
    theirs = train("theirs", builtin, metric, loss.metric(from_logits=False))
    same_trees(ours, theirs, ["split_feature", "threshold", "left_child", "right_child"])
    scores = [model.predict(features, raw_score=True) for model in (ours, theirs)]
    np.testing.assert_allclose(*scores, rtol=1e-6, atol=1e-6)
    expected = heard["theirs"]["training"][metric]
    np.testing.assert_allclose(heard["ours"]["training"]["crossent"], expected, rtol=1e-6)
    np.testing.assert_allclose(heard["theirs"]["training"]["crossent"], expected, rtol=1e-6)


@weighted
@every_data
def test_catboost_grows_the_same_trees(name, weighted, tmp_path):
    features, labels, weight, classes = data(name, weighted)
    weight = None if weight is None else weight[:400]
    pool = catboost.Pool(features[:400], labels[:400], weight=weight)
    parameters = catboost_parameters()
    if classes > 2:
        loss, builtin = for_catboost.SoftmaxCrossEntropy(), "MultiClass"
    else:
        loss, builtin = for_catboost.BinaryCrossEntropy(), "Logloss"
    theirs = catboost.CatBoostClassifier(loss_function=builtin, **parameters).fit(pool)
    if classes > 2:
        parameters["classes_count"] = classes
    ours = catboost.CatBoostClassifier(
        loss_function=loss, eval_metric=loss.metric(), **parameters
    ).fit(pool)
    splits = [catboost_splits(model, tmp_path / "model.json") for model in (ours, theirs)]
    assert splits[0] == splits[1]
    assert len(splits[0]) == parameters["iterations"]
    scores = [m.predict(features, prediction_type="RawFormulaVal") for m in (ours, theirs)]
    np.testing.assert_allclose(*scores, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        ours.evals_result_["learn"]["CrossentMetric"],
        theirs.evals_result_["learn"][builtin],
        rtol=1e-4,  # its Logloss is of a rough exponential
    )


def test_scale_pos_weight_is_pos_weight():
    features, labels, _, _ = data("cancer")
    matrix = xgboost.DMatrix(features, label=labels)
    parameters = xgboost_parameters(2)
    loss = for_xgboost.BinaryCrossEntropy(pos_weight=3)
    ours = xgboost.train(parameters, matrix, ROUNDS, obj=loss)
    theirs = xgboost.train({**parameters, "scale_pos_weight": 3}, matrix, ROUNDS)
    same_trees(ours, theirs, ["Feature", "Split"])

    parameters = lightgbm_parameters(2)
    loss = for_lightgbm.BinaryCrossEntropy(pos_weight=3)
    scores = []
    for options in ({"objective": loss}, {"objective": "binary", "scale_pos_weight": 3}):
        model = lightgbm.train(
            {**parameters, **options}, lightgbm.Dataset(features, labels), ROUNDS
        )
        scores.append(model.predict(features, raw_score=True))
    np.testing.assert_allclose(*scores, rtol=1e-6)


@pytest.mark.parametrize("scale_pos_weight", [1, 3])
def test_rows_of_weight_0_are_xgboosts(scale_pos_weight):
    """XGBoost floors a second derivative of two classes before the row's weight."""
    # A seed at which a floor after the weight moves margins by 0.4.
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(300, 5)), rng.integers(0, 2, 300)
    matrix = xgboost.DMatrix(features, label=labels, weight=rng.choice([0.0, 1.0, 2.0], 300))
    parameters = {**xgboost_parameters(2), "max_depth": 6, "tree_method": "exact",
                  "scale_pos_weight": scale_pos_weight}  # fmt: skip
    loss = for_xgboost.BinaryCrossEntropy(pos_weight=scale_pos_weight)
    ours = xgboost.train(parameters, matrix, 1, obj=loss)
    theirs = xgboost.train(parameters, matrix, 1)
    same_trees(ours, theirs, ["Feature", "Split", "Yes", "No"])
    margins = [model.predict(matrix, output_margin=True) for model in (ours, theirs)]
    np.testing.assert_allclose(*margins, rtol=1e-5, atol=1e-6)


def test_the_floor_of_xgboost_has_the_weights(rng):
    scores, labels = np.full(4, 80.0, np.float32), np.array([1.0, 0.0, 1.0, 0.0])
    weight = np.array([0.0, 0.5, 2.0, 0.0], np.float32)
    floor = np.float32(1e-16) * weight
    _, hess = for_xgboost.BinaryCrossEntropy(pos_weight=3)(labels, scores, weight)
    np.testing.assert_allclose(hess, floor * [3, 1, 3, 1], rtol=1e-6)
    _, hess = for_xgboost.FocalLoss()(labels, scores, weight)
    np.testing.assert_allclose(hess, floor, rtol=1e-6)
    columns = np.stack([scores, scores], axis=1)
    _, hess = for_xgboost.BinaryCrossEntropy(pos_weight=[3, 5])(labels, columns, weight)
    # Label 1 is positive in the second column, label 0 in the first.
    np.testing.assert_allclose(hess, floor[:, None] * [[1, 5], [3, 1], [1, 5], [3, 1]], rtol=1e-6)


def test_catboosts_own_focal_loss():
    features, labels, _, _ = data("cancer")
    parameters = catboost_parameters()
    loss = for_catboost.FocalLoss(alpha=0.25, gamma=2)
    ours = catboost.CatBoostClassifier(
        loss_function=loss, eval_metric=loss.metric(), **parameters
    ).fit(features, labels)
    builtin = "Focal:focal_alpha=0.25;focal_gamma=2.0"
    theirs = catboost.CatBoostClassifier(loss_function=builtin, **parameters).fit(features, labels)
    scores = [m.predict(features, prediction_type="RawFormulaVal") for m in (ours, theirs)]
    np.testing.assert_allclose(*scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        ours.evals_result_["learn"]["CrossentMetric"],
        theirs.evals_result_["learn"][builtin],
        rtol=1e-9,
    )


def test_class_weights_are_sample_weights():
    features, labels, _, classes = data("wine")
    by_class = np.array([1.0, 0.25, 3.0])
    weight = by_class[labels]
    parameters = xgboost_parameters(classes)
    ours = xgboost.train(
        parameters,
        xgboost.DMatrix(features, label=labels),
        ROUNDS,
        obj=for_xgboost.SoftmaxCrossEntropy(weight=by_class),
    )
    theirs = xgboost.train(
        parameters, xgboost.DMatrix(features, label=labels, weight=weight), ROUNDS
    )
    same_trees(ours, theirs, ["Feature", "Split"])


def test_lightgbm_one_against_all():
    features, labels, _, classes = data("wine")
    scores = [
        lightgbm.train(
            {**lightgbm_parameters(classes), "objective": objective},
            lightgbm.Dataset(features, labels),
            ROUNDS,
        ).predict(features, raw_score=True)
        for objective in (for_lightgbm.BinaryCrossEntropy(), "multiclassova")
    ]
    np.testing.assert_allclose(*scores, rtol=1e-6, atol=1e-7)


# Estimators


@pytest.mark.parametrize("name", ["wine", "cancer"])
def test_estimators_take_them(name):
    features, labels, weight, classes = data(name, True)
    kind = "SoftmaxCrossEntropy" if classes > 2 else "BinaryCrossEntropy"

    loss = getattr(for_xgboost, kind)()
    common = {"n_estimators": ROUNDS, "n_jobs": 1, "base_score": 0.5}
    ours = xgboost.XGBClassifier(objective=loss, eval_metric=loss.metric(), **common)
    ours = clone(ours).fit(features, labels, sample_weight=weight, verbose=False,
                           eval_set=[(features, labels)])  # fmt: skip
    theirs = xgboost.XGBClassifier(**common).fit(features, labels, sample_weight=weight)
    np.testing.assert_allclose(
        ours.predict_proba(features), theirs.predict_proba(features), rtol=1e-4, atol=1e-6
    )
    assert "crossent" in ours.evals_result()["validation_0"]

    loss = getattr(for_lightgbm, kind)()
    common = {"n_estimators": ROUNDS, "n_jobs": 1, "boost_from_average": False, "verbose": -1}
    ours = lightgbm.LGBMClassifier(objective=loss, **common)
    ours = clone(ours).fit(features, labels, sample_weight=weight, eval_X=features, eval_y=labels,
                           eval_metric=loss.metric())  # fmt: skip
    theirs = lightgbm.LGBMClassifier(**common).fit(features, labels, sample_weight=weight)
    np.testing.assert_allclose(
        ours.predict(features, raw_score=True),
        theirs.predict(features, raw_score=True),
        rtol=1e-6,
        atol=1e-7,
    )
    assert "crossent" in ours.evals_result_["valid_0"]


# Soft labels and smoothing


def test_soft_labels_are_label_smoothing():
    features, labels, _, classes = data("wine")
    soft = np.full((len(labels), classes), 0.3 / classes)
    soft[np.arange(len(labels)), labels] += 0.7

    parameters = {"nthread": 1, "max_depth": 3, "base_score": 0.0, "disable_default_eval_metric": 1}
    smoothed = xgboost.train(
        {**parameters, "num_class": classes}, xgboost.DMatrix(features, label=labels), ROUNDS,
        obj=for_xgboost.SoftmaxCrossEntropy(label_smoothing=0.3),
    )  # fmt: skip
    loss = for_xgboost.SoftmaxCrossEntropy()
    matrix, heard = xgboost.DMatrix(features, label=soft), {}
    of_soft = xgboost.train(
        parameters, matrix, ROUNDS, obj=loss, custom_metric=loss.metric(),
        evals=[(matrix, "all")], evals_result=heard, verbose_eval=False,
    )  # fmt: skip
    scores = [
        model.predict(xgboost.DMatrix(features), output_margin=True)
        for model in (smoothed, of_soft)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)
    expected = F.cross_entropy(scores[1].astype(np.float64), soft)
    np.testing.assert_allclose(heard["all"]["crossent"][-1], expected, rtol=1e-5)

    scores = [
        lightgbm.train(
            {**lightgbm_parameters(classes), "objective": objective},
            lightgbm.Dataset(features, labels),
            ROUNDS,
        ).predict(features, raw_score=True)
        for objective in (
            for_lightgbm.SoftmaxCrossEntropy(label_smoothing=0.3),
            for_lightgbm.SoftmaxCrossEntropy(soft_labels=soft),
        )
    ]
    np.testing.assert_allclose(*scores, rtol=1e-6, atol=1e-7)

    parameters = catboost_parameters()
    del parameters["boost_from_average"]
    loss = for_catboost.SoftLabelCrossEntropy()
    of_soft = catboost.CatBoost(
        {**parameters, "loss_function": loss, "eval_metric": loss.metric()}
    ).fit(features, soft)
    loss = for_catboost.SoftmaxCrossEntropy(label_smoothing=0.3)
    smoothed = catboost.CatBoostClassifier(
        loss_function=loss, eval_metric=loss.metric(), classes_count=classes, **parameters
    ).fit(features, labels)
    np.testing.assert_allclose(
        of_soft.predict(features),
        smoothed.predict(features, prediction_type="RawFormulaVal"),
        rtol=1e-5,
        atol=1e-6,
    )
    assert of_soft.evals_result_["learn"]["CrossentMultiTargetMetric"][-1] == pytest.approx(
        F.cross_entropy(of_soft.predict(features), soft), rel=1e-6
    )


# The derivatives


def truth(of_scores, scores):
    """Gradient and whole Hessian by differentiation in 50 digits."""
    with mpmath.workdps(50):
        point = [mpmath.mpf(float(score)) for score in scores]
        count = range(len(point))

        def derivative(*orders):
            return float(mpmath.diff(lambda *x: of_scores(x), point, tuple(orders)))

        gradient = [derivative(*(int(i == k) for k in count)) for i in count]
        hessian = [
            [derivative(*((i == k) + (j == k) for k in count)) for j in count] for i in count
        ]
    return np.array(gradient), np.array(hessian)


WEIGHT = [1.0, 0.5, 2.0]
SMOOTHING = 0.1


def softmax_loss(masses):
    def of_scores(scores):
        total = mpmath.log(mpmath.fsum(mpmath.exp(x) for x in scores))
        return mpmath.fsum(m * (total - x) for m, x in zip(masses, scores, strict=True))

    return of_scores


def test_softmax_derivatives(rng):
    scores = rng.normal(0, 2, (4, 3))
    labels = np.array([0.0, 2.0, 1.0, 2.0])
    weight = np.array([1.0, 2.0, 0.5, 0.0])
    options = {"weight": WEIGHT, "label_smoothing": SMOOTHING}
    by_xgboost = for_xgboost.SoftmaxCrossEntropy(**options)(labels, scores, weight)
    by_lightgbm = for_lightgbm.SoftmaxCrossEntropy(**options)(labels, scores, weight)
    for row, (x, y, s) in enumerate(zip(scores, labels, weight, strict=True)):
        smoothed = np.full(3, SMOOTHING / 3)
        smoothed[int(y)] += 1 - SMOOTHING
        grad, hess = truth(softmax_loss(smoothed * WEIGHT), x)
        grad, hess, diagonal = s * grad, s * hess, s * np.diag(hess)
        np.testing.assert_allclose(by_xgboost[0][row], grad, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(by_lightgbm[0][row], grad, rtol=1e-13, atol=1e-16)
        floored = np.maximum(2 * diagonal, 1e-16)
        np.testing.assert_allclose(by_xgboost[1][row], floored, rtol=1e-13)
        np.testing.assert_allclose(by_lightgbm[1][row], 1.5 * diagonal, rtol=1e-13)
        ders, matrix = for_catboost.SoftmaxCrossEntropy(**options).calc_ders_multi(x, y, s)
        np.testing.assert_allclose(ders, -grad, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(matrix, -hess, rtol=1e-13, atol=1e-16)
        ders, matrix = for_catboost.SoftLabelCrossEntropy(**options).calc_ders_multi(
            x, np.eye(3, dtype=np.float32)[int(y)], s
        )
        np.testing.assert_allclose(ders, -grad, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(matrix, -hess, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT, "label_smoothing": SMOOTHING}], ids=str)
@pytest.mark.parametrize("scores", [
    [40.0, 0.0, -300.0],
    [0.0, 1e3, 0.0],
    [-1e3, 1e3, 999.0],
    [0.5, 0.5, 0.5],
], ids=str)  # fmt: skip
def test_catboost_derivatives_of_confident_rows(scores, options):
    """Where 1 - p in floats is made of rounding, or 0."""
    loss = for_catboost.SoftmaxCrossEntropy(**options)
    eps, w = options.get("label_smoothing", 0.0), options.get("weight", [1.0] * 3)
    for label in range(3):
        ders, matrix = loss.calc_ders_multi(np.array(scores), float(label), 0.5)
        with mpmath.workdps(900):
            exponentials = [mpmath.exp(x) for x in scores]
            p = [e / mpmath.fsum(exponentials) for e in exponentials]
            masses = [
                mpmath.mpf(w[k]) * (mpmath.mpf(eps) / 3 + (k == label) * (1 - mpmath.mpf(eps)))
                for k in range(3)
            ]
            mass = mpmath.fsum(masses)
            grad = [float((masses[k] - mass * p[k]) / 2) for k in range(3)]
            hess = [
                [float(mass * p[i] * (p[j] - (i == j)) / 2) for j in range(3)] for i in range(3)
            ]
        # With smoothing a target and its probability cancel: so many digits of the larger.
        lost = 1e-15 * max(w) if eps else 1e-300
        np.testing.assert_allclose(ders, grad, rtol=2e-15, atol=lost)
        np.testing.assert_allclose(matrix, hess, rtol=2e-15, atol=1e-300)


@pytest.mark.parametrize("kind, options", [
    ("BinaryCrossEntropy", {"pos_weight": 2.5}),
    ("FocalLoss", {"alpha": 0.25, "gamma": 2.0}),
    ("FocalLoss", {"alpha": -1, "gamma": 0.5}),
])  # fmt: skip
def test_sigmoid_derivatives(kind, options):
    scores = np.array([-9.0, -1.0, 0.0, 2.0, 9.0, 40.0])

    def loss(score, label):
        p = 1 / (1 + mpmath.exp(-score))
        right = p if label else 1 - p
        if kind == "BinaryCrossEntropy":
            return -(options["pos_weight"] if label else 1) * mpmath.log(right)
        alpha = options["alpha"]
        balance = 1 if alpha < 0 else alpha if label else 1 - alpha
        return -balance * (1 - right) ** options["gamma"] * mpmath.log(right)

    negative = 0
    for label in (0.0, 1.0):
        labels = np.full(len(scores), label)
        expected = [truth(lambda x, t=label: loss(x[0], t), [score]) for score in scores]
        grad = np.array([gradient[0] for gradient, _ in expected])
        hess = np.array([hessian[0, 0] for _, hessian in expected])
        negative += (hess < 0).sum()
        # XGBoost's floor comes before the weight of the positive class.
        floored = np.maximum(hess, 1e-16 * (options.get("pos_weight", 1) if label else 1))
        by_xgboost = getattr(for_xgboost, kind)(**options)(labels, scores)
        np.testing.assert_allclose(by_xgboost[0], grad, rtol=1e-11)
        np.testing.assert_allclose(by_xgboost[1], floored, rtol=1e-11)
        by_lightgbm = getattr(for_lightgbm, kind)(**options)(labels, scores)
        np.testing.assert_allclose(by_lightgbm[0], grad, rtol=1e-11)
        # LightGBM's own objectives have no floor, nor has a convex one of ours.
        lowest = floored if kind == "FocalLoss" else hess
        np.testing.assert_allclose(by_lightgbm[1], lowest, rtol=1e-11)
        ders = getattr(for_catboost, kind)(**options).calc_ders_range(scores, labels, None)
        np.testing.assert_allclose(ders, -np.stack([grad, lowest], axis=1), rtol=1e-11)
    assert (negative > 0) == (kind == "FocalLoss")


def test_focal_loss_trains():
    """On labels that are wrong for one row in ten, where second derivatives are negative."""
    features, labels, _, _ = data("cancer")
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(labels)) < 0.1, 1 - labels, labels)
    loss = for_xgboost.FocalLoss(alpha=-1)
    booster = xgboost.train(
        {**xgboost_parameters(2), "max_depth": 3},
        xgboost.DMatrix(features, label=noisy), 20, obj=loss,
    )  # fmt: skip
    right = (booster.predict(xgboost.DMatrix(features)) > 0.5) == labels
    assert right.mean() > 0.9

    loss = for_lightgbm.FocalLoss(alpha=-1)
    model = lightgbm.train(
        {**lightgbm_parameters(2), "objective": loss}, lightgbm.Dataset(features, noisy), 20
    )
    assert ((model.predict(features) > 0) == labels).mean() > 0.9

    loss = for_catboost.FocalLoss(alpha=-1)
    model = catboost.CatBoostClassifier(
        loss_function=loss, eval_metric=loss.metric(),
        **{**catboost_parameters(), "iterations": 20},
    ).fit(features, noisy)  # fmt: skip
    assert ((model.predict(features, prediction_type="RawFormulaVal") > 0) == labels).mean() > 0.9


# Memory


@pytest.mark.parametrize("name, order, dtype", [
    ("xgboost", "C", np.float32), ("lightgbm", "F", np.float64),
])  # fmt: skip
def test_scores_are_not_copied(name, order, dtype):
    scores = np.zeros((200_000, 10), dtype, order=order)
    labels = np.zeros(len(scores), np.float32)
    before = scores.copy(order=order)
    loss = MODULES[name].SoftmaxCrossEntropy()
    loss(labels[:10], scores[:10])
    tracemalloc.start()
    try:
        grad, hess = loss(labels, scores)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for made in (grad, hess):
        assert made.strides == scores.strides
        assert not np.shares_memory(made, scores)
    # Both derivatives, and integers for the labels.
    assert peak < 2.2 * scores.nbytes + 3 * labels.nbytes
    assert (scores == before).all()


def test_scores_are_seen_where_the_library_has_them():
    """What reaches the kernel shares its memory with what the library handed over."""
    features, labels, _, classes = data("wine")
    seen = []

    def watched(loss):
        compute = loss.compute

        class Watched(type(loss)):
            def __call__(self, first, second, weight=None):
                self.handed = first
                return super().__call__(first, second, weight)

            def compute(self, scores, target, **options):
                seen.append(
                    (np.shares_memory(scores, self.handed), scores.dtype, scores.flags.f_contiguous)
                )
                return compute(scores, target, **options)

        return Watched()

    xgboost.train(
        xgboost_parameters(classes), xgboost.DMatrix(features, label=labels), 2,
        obj=watched(for_xgboost.SoftmaxCrossEntropy()),
    )  # fmt: skip
    assert seen == [(True, np.float32, False)] * 2
    seen.clear()
    parameters = lightgbm_parameters(classes)
    booster = lightgbm.Booster(
        {**parameters, "objective": "none"}, lightgbm.Dataset(features, labels)
    )
    loss = watched(for_lightgbm.SoftmaxCrossEntropy())
    booster.update(fobj=loss)
    booster.update(fobj=loss)
    assert seen == [(True, np.float64, True)] * 2


def test_catboost_derivatives_are_written_in_place(rng):
    scores, labels = rng.normal(size=100_000), np.ones(100_000, np.float32)
    loss = for_catboost.BinaryCrossEntropy()
    loss.calc_ders_range(scores[:10], labels[:10], None)
    tracemalloc.start()
    try:
        ders = loss.calc_ders_range(scores, labels, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * ders.nbytes


# Bad input, and what else a user meets


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_bad_options(module):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], got 2"):
        module.SoftmaxCrossEntropy(label_smoothing=2)
    with pytest.raises(ValueError, match=r"alpha must be .* got 2"):
        module.FocalLoss(alpha=2)
    with pytest.raises(ValueError, match=r"gamma must be .* got -1"):
        module.FocalLoss(gamma=-1)


@pytest.mark.parametrize("module", [for_xgboost, for_lightgbm], ids=["xgboost", "lightgbm"])
@pytest.mark.parametrize("wrong", [0.5, -1, 3, np.nan])
def test_bad_labels(module, wrong):
    labels = np.array([0.0, wrong])
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 2, got .* in row 1"):
        module.SoftmaxCrossEntropy()(labels, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 2, got .* in row 1"):
        module.BinaryCrossEntropy()(labels, np.zeros((2, 3)))
    if wrong != 0.5:
        with pytest.raises(ValueError, match=r"labels must be in \[0, 1\]"):
            module.FocalLoss()(labels, np.zeros(2))
    with pytest.raises(ValueError, match="a score for each class"):
        module.SoftmaxCrossEntropy()(labels, np.zeros(2))


@pytest.mark.parametrize("module", [for_xgboost, for_lightgbm], ids=["xgboost", "lightgbm"])
def test_one_column(module):
    column, row = np.zeros((2, 1)), np.zeros(2)
    for labels in (row, column):
        for act in (module.SoftmaxCrossEntropy(), module.SoftmaxCrossEntropy().metric()):
            with pytest.raises(ValueError, match="needs a score for each class"):
                act(labels, column)
    for loss in (module.BinaryCrossEntropy(), module.FocalLoss()):
        with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(2, 1\)"):
            loss(column, row)
        with pytest.raises(ValueError, match=r"labels must have shape \(2, 1\), got \(2,\)"):
            loss(row, column)
        grad, _ = loss(column, column)
        np.testing.assert_array_equal(grad[:, 0], loss(row, row)[0])


def test_bad_soft_labels():
    loss = for_lightgbm.SoftmaxCrossEntropy(soft_labels=np.ones((3, 2)) / 2)
    with pytest.raises(ValueError, match=r"soft_labels must have .* \(2, 3\), got \(3, 2\)"):
        loss(np.zeros(2), np.zeros((2, 3)))


@pytest.mark.parametrize("module", [for_xgboost, for_lightgbm], ids=["xgboost", "lightgbm"])
def test_a_weight_of_the_positive_class_is_one_a_column(module):
    loss = module.BinaryCrossEntropy(pos_weight=[1.0, 2.0])
    labels = np.array([0.0, 1.0])
    loss(labels, np.zeros((2, 2)))
    # Not one a row.
    with pytest.raises(ValueError, match=r"pos_weight must .* \(1,\), .* got \(2,\)"):
        loss(labels, np.zeros(2))
    with pytest.raises(ValueError, match=r"pos_weight must .* \(3,\), .* got \(2,\)"):
        loss(labels, np.zeros((2, 3)))


@pytest.mark.parametrize("whole", [np.int64, bool])
def test_soft_labels_may_be_whole(whole):
    onehot, scores = np.eye(3), np.zeros((3, 3))
    ours = for_lightgbm.SoftmaxCrossEntropy(soft_labels=onehot.astype(whole))
    expected = for_lightgbm.SoftmaxCrossEntropy(soft_labels=onehot)(np.zeros(3), scores)
    np.testing.assert_array_equal(ours(np.zeros(3), scores), expected)


def test_options_are_checked_once():
    weight = np.ones(3)
    loss = for_catboost.SoftmaxCrossEntropy(weight=weight)
    weight[0] = -1
    assert loss.weight.tolist() == [1, 1, 1]
    loss = for_catboost.BinaryCrossEntropy(pos_weight=weight[1:])
    weight[1] = -1
    assert loss.pos_weight.tolist() == [1, 1]


def test_bad_labels_of_catboost():
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 1, got 2"):
        for_catboost.SoftmaxCrossEntropy().calc_ders_multi(np.zeros(2), 2.0, 1.0)
    for wrong in (-1.0, 0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"whole numbers from 0 to 1, got {wrong}"):
            for_catboost.SoftmaxCrossEntropy().calc_ders_multi(np.zeros(2), wrong, 1.0)
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(3,\)"):
        for_catboost.SoftLabelCrossEntropy().calc_ders_multi(np.zeros(2), np.ones(3), 1.0)
    with pytest.raises(ValueError, match=r"weight must have shape \(2,\), .* got \(3,\)"):
        for_catboost.SoftmaxCrossEntropy(weight=WEIGHT).calc_ders_multi(np.zeros(2), 0.0, 1.0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 1\]"):
        for_catboost.BinaryCrossEntropy().calc_ders_range(np.zeros(1), np.array([2.0]), None)


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_objectives_are_pickled_and_print_their_options(module):
    loss = pickle.loads(pickle.dumps(module.SoftmaxCrossEntropy(label_smoothing=0.25)))
    assert repr(loss) == "SoftmaxCrossEntropy(weight=None, label_smoothing=0.25)"
    assert repr(module.BinaryCrossEntropy(pos_weight=2)) == "BinaryCrossEntropy(pos_weight=2)"
    metric = pickle.loads(pickle.dumps(module.FocalLoss().metric()))
    assert repr(metric).startswith("FocalLoss(alpha=0.25, gamma=2.0).metric(")


def test_metric_of_several_columns_and_weights(rng):
    scores, labels = rng.normal(size=(6, 3)), rng.integers(0, 3, 6).astype(np.float32)
    weight = rng.uniform(0.5, 2, 6)
    onehot = np.eye(3)[labels.astype(int)]
    rows = F.binary_cross_entropy_with_logits(scores, onehot, reduction="none").sum(axis=1)
    expected = np.average(rows, weights=weight)
    metric = for_xgboost.BinaryCrossEntropy().metric()
    assert metric(labels, scores, sample_weight=weight) == pytest.approx(expected, rel=1e-14)
    name, value, higher = for_lightgbm.BinaryCrossEntropy().metric()(labels, scores, weight)
    assert (name, higher) == ("crossent", False)
    assert value == pytest.approx(expected, rel=1e-14)
    ours = for_catboost.BinaryCrossEntropy().metric()
    error, total = ours.evaluate([scores[:, 0]], np.ones(6, np.float32), weight)
    one = F.binary_cross_entropy_with_logits(scores[:, 0], np.ones(6), reduction="none")
    assert ours.get_final_error(error, total) == pytest.approx(np.average(one, weights=weight))


def test_metric_with_class_weights(rng):
    """The mean of the documented loss by the rows' weights, of hard and one-hot labels alike."""
    scores, labels = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    weight, onehot = rng.uniform(0, 3, 40), np.eye(3)[labels]
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    options = {"weight": WEIGHT, "label_smoothing": SMOOTHING}
    rows = -(((1 - SMOOTHING) * onehot + SMOOTHING / 3) * WEIGHT * log_p).sum(axis=1)
    for sample_weight in (None, weight):
        expected = pytest.approx(np.average(rows, weights=sample_weight), rel=1e-13)
        for target in (labels.astype(np.float32), onehot):
            metric = for_xgboost.SoftmaxCrossEntropy(**options).metric()
            assert metric(target, scores, sample_weight=sample_weight) == expected
            metric = for_lightgbm.SoftmaxCrossEntropy(**options).metric()
            assert metric(target, scores, sample_weight)[1] == expected
        for kind, target in (("SoftmaxCrossEntropy", labels), ("SoftLabelCrossEntropy", onehot)):
            metric = getattr(for_catboost, kind)(**options).metric()
            sums = np.zeros(2)
            for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
                sums += metric.evaluate(
                    list(scores[part].T),
                    list(target[part].T) if target.ndim == 2 else target[part],
                    None if sample_weight is None else sample_weight[part],
                )
            assert sums[1] == pytest.approx(40 if sample_weight is None else weight.sum())
            assert metric.get_final_error(*sums) == expected
    metric = for_xgboost.SoftmaxCrossEntropy(**options).metric()
    assert np.isnan(metric(labels, scores, np.zeros(40)))


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_examples(module):
    assert sorted(module.__all__) == module.__all__
    for name in module.__all__:
        assert getattr(module, name).__doc__
    failed, attempted = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
    assert attempted >= len(module.__all__)


def test_a_missing_library_is_named():
    script = """
import sys
sys.modules["catboost"] = sys.modules["xgboost"] = sys.modules["lightgbm"] = None
import crossent.boosting
try:
    import crossent.boosting.catboost
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == (
        "crossent.boosting.catboost needs catboost: pip install crossent[boosting]\n"
    ), done.stderr


def test_crossent_imports_none_of_them():
    script = "import crossent, sys; print(sorted({'sklearn', 'xgboost'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
