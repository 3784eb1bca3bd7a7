"""What the packages around the losses refuse: the type of the error, and a message that names the
argument, with the value and its place where it is an element."""

import numpy as np
import pytest
import torch

from crossent import torch as ct
from crossent.boosting import catboost, lightgbm, xgboost
from crossent.evaluation import Evaluation, evaluate
from crossent.sklearn import SoftmaxRegression, TemperatureScaling, fit_temperature, log_loss

X, Y = np.zeros((3, 4)), np.array([0, 1, 2])
P = np.full((3, 4), 0.25)


def masked(values):
    return np.ma.masked_array(values, mask=np.zeros(np.shape(values), bool))


def update(kind="logits", **arguments):
    return lambda: Evaluation(kind=kind).update(**{"input": X, "target": Y, **arguments})


def changed(array, at, value):
    array = array.copy()
    array[at] = value
    return array


CASES = [
    (lambda: evaluate(None, Y), TypeError, "input must be an array, got None"),
    (lambda: evaluate(X, None), TypeError, "target must be an array, got None"),
    (lambda: evaluate(X, Y, into=5), TypeError, "into must be an Evaluation, got int"),
    (lambda: evaluate(X, Y, class_mask=masked(np.ones(4, bool))), TypeError, "class_mask must not"),
    (lambda: Evaluation(top_k=5), TypeError, "top_k must be integers, got int"),
    (lambda: Evaluation(top_k=["a"]), TypeError, "top_k must be an integer, got str"),
    (lambda: Evaluation(temperature=None), TypeError, "temperature must be a number, got None"),
    (lambda: Evaluation(temperature="2"), TypeError, "temperature must be a number, got str"),
    (lambda: Evaluation(softcap="2"), TypeError, "softcap must be a number, got str"),
    (update(input=masked(X)), TypeError, "input must not be a masked array"),
    (update(byte_count=masked([1, 1, 1])), TypeError, "byte_count must not be a masked array"),
    (update(group=masked([1, 1, 1])), TypeError, "group must not be a masked array"),
    (update(sample_weight=masked([1, 1, 1])), TypeError, "sample_weight must not be a masked"),
    (
        update(sample_weight=[1, -2, 1]),
        ValueError,
        r"sample_weight must be finite and not negative: sample_weight\[1\] = -2",
    ),
    (
        update(sample_weight=[1, 1, np.nan]),
        ValueError,
        r"sample_weight must be finite and not negative: sample_weight\[2\] = nan",
    ),
    (
        update("probabilities", input=changed(P, (1, 2), -0.5)),
        ValueError,
        r"input must not have negative probabilities: input\[1, 2\] = -0.5",
    ),
    (update("probabilities", input=np.zeros((3, 4), "V4")), TypeError, r"input must be a floating"),
    (lambda: xgboost.SoftmaxCrossEntropy(label_smoothing="a"), TypeError, "label_smoothing must"),
    (lambda: catboost.SoftmaxCrossEntropy(label_smoothing=2), ValueError, "label_smoothing must"),
    (lambda: lightgbm.FocalLoss(alpha=None), TypeError, "alpha must be a number, got NoneType"),
    (lambda: xgboost.FocalLoss(gamma="a"), TypeError, "gamma must be a number, got str"),
    (
        lambda: xgboost.SoftmaxCrossEntropy()(np.array(["a", "b", "c"]), X),
        TypeError,
        "labels must be an array of numbers, got <U1",
    ),
    (lambda: xgboost.SoftmaxCrossEntropy()(masked(Y), X), TypeError, "labels must not be a masked"),
    (lambda: xgboost.SoftmaxCrossEntropy()(Y, masked(X)), TypeError, "scores must not be a masked"),
    (
        lambda: xgboost.SoftmaxCrossEntropy().metric()(Y, X, np.array([1.0, -1, 1])),
        ValueError,
        r"sample_weight must be finite and not negative: sample_weight\[1\] = -1",
    ),
    (
        lambda: xgboost.BinaryCrossEntropy()(Y, X, np.ones(2)),
        ValueError,
        r"sample_weight must have shape \(3,\), got \(2,\)",
    ),
    (
        lambda: xgboost.BinaryCrossEntropy().metric(from_logits=False)([0, 1], [0.5, 1.5]),
        ValueError,
        r"probabilities must be in \[0, 1\]: probabilities\[1\] = 1.5",
    ),
    (
        lambda: lightgbm.BinaryCrossEntropy()(Y > 0, X[:, 0], np.array([1.0, 1, np.inf])),
        ValueError,
        r"sample_weight must be finite and not negative: sample_weight\[2\] = inf",
    ),
    (
        lambda: xgboost.SoftmaxCrossEntropy()(changed(P, (1, 2), -0.5), X),
        ValueError,
        r"labels must be finite and not negative: labels\[1, 2\] = -0.5",
    ),
    (
        lambda: xgboost.SoftmaxCrossEntropy().metric()(changed(P, (2, 0), np.nan), X),
        ValueError,
        r"labels must be finite and not negative: labels\[2, 0\] = nan",
    ),
    (
        lambda: lightgbm.SoftmaxCrossEntropy(soft_labels=changed(P, (0, 3), np.inf)),
        ValueError,
        r"soft_labels must be finite and not negative: soft_labels\[0, 3\] = inf",
    ),
    (
        lambda: lightgbm.SoftmaxCrossEntropy(soft_labels=masked(P)),
        TypeError,
        "soft_labels must not be a masked array",
    ),
    (
        lambda: lightgbm.SoftmaxCrossEntropy(soft_labels=[["a", "b"]]),
        TypeError,
        "soft_labels must be an array of numbers, got <U1",
    ),
    (
        lambda: lightgbm.SoftmaxCrossEntropy(soft_labels=[0.5, 0.5]),
        ValueError,
        r"soft_labels must have shape \(N, K\), a column a class, got \(2,\)",
    ),
    (
        lambda: catboost.SoftLabelCrossEntropy().calc_ders_multi(X[0], changed(P[0], 1, -1), 1.0),
        ValueError,
        r"labels must be finite and not negative: labels\[1\] = -1",
    ),
    (
        lambda: catboost.SoftLabelCrossEntropy().calc_ders_multi(X[0], masked(P[0]), 1.0),
        TypeError,
        "labels must not be a masked array",
    ),
    (
        lambda: catboost.SoftmaxCrossEntropy().calc_ders_multi(masked(X[0]), 1.0, 1.0),
        TypeError,
        "approxes must not be a masked array",
    ),
    (
        lambda: catboost.SoftmaxCrossEntropy().calc_ders_multi(X[0], 1.0, np.nan),
        ValueError,
        "weight must be finite and not negative, got nan",
    ),
    (
        lambda: catboost.BinaryCrossEntropy().calc_ders_range(masked(X[0]), P[0], None),
        TypeError,
        "approxes must not be a masked array",
    ),
    (
        lambda: catboost.BinaryCrossEntropy().calc_ders_range(X[0], masked(P[0]), None),
        TypeError,
        "targets must not be a masked array",
    ),
    (
        lambda: catboost.FocalLoss().calc_ders_range(X[0], P[0], masked(P[0])),
        TypeError,
        "weights must not be a masked array",
    ),
    (
        lambda: catboost.FocalLoss().metric().evaluate([masked(X[0])], P[0], None),
        TypeError,
        "approxes must not be a masked array",
    ),
    (
        lambda: catboost.SoftmaxCrossEntropy().metric().evaluate(list(X), masked(P[0]), None),
        TypeError,
        "target must not be a masked array",
    ),
    (
        lambda: lightgbm.BinaryCrossEntropy()(Y > 0, X[:, 0], masked(P[:, 0])),
        TypeError,
        "sample_weight must not be a masked array",
    ),
    (
        lambda: lightgbm.SoftmaxCrossEntropy()(Y, X * 1j),
        TypeError,
        "scores must be an array of numbers, got complex128",
    ),
    (lambda: log_loss(masked(Y), P, labels=range(4)), TypeError, "y_true must not be a masked"),
    (lambda: log_loss(Y, masked(P), labels=range(4)), TypeError, "y_proba must not be a masked"),
    (lambda: fit_temperature(masked(X), Y), TypeError, "logits must not be a masked array"),
    (lambda: fit_temperature(X, masked(Y)), TypeError, "target must not be a masked array"),
    (lambda: fit_temperature(X.astype(str), Y), TypeError, "logits must be an array of real num"),
    (lambda: fit_temperature(X * 1j, Y), TypeError, "logits must be .*, got complex128"),
    (lambda: fit_temperature(X > 0, Y), TypeError, "logits must be .*, got bool"),
    (lambda: fit_temperature(X, Y * 1.0), TypeError, "target must be class indices, got float64"),
    (lambda: fit_temperature(X, Y.astype("S1")), TypeError, r"target must be .*, got \|S1"),
    (
        lambda: fit_temperature(X, Y, sample_weight=["1", "1", "1"]),
        TypeError,
        "sample_weight must be an array of real numbers, got <U1",
    ),
    (
        lambda: fit_temperature(X, Y, sample_weight=[1, 1, np.nan]),
        ValueError,
        r"sample_weight must be finite and not negative: sample_weight\[2\] = nan",
    ),
    (lambda: SoftmaxRegression(max_iter="a").fit(X, Y), TypeError, "max_iter must be an integer"),
    (lambda: SoftmaxRegression(C=True).fit(X, Y), TypeError, "C must be a number, got bool"),
    (lambda: SoftmaxRegression(tol="a").fit(X, Y), TypeError, "tol must be a number, got str"),
    (
        lambda: SoftmaxRegression(fit_intercept="a").fit(X, Y),
        TypeError,
        "fit_intercept must be a bool, got 'a'",
    ),
    (lambda: SoftmaxRegression().fit(masked(X), Y), TypeError, "X must not be a masked array"),
    (lambda: SoftmaxRegression().fit(X, masked(Y)), TypeError, "y must not be a masked array"),
    (lambda: TemperatureScaling().fit(masked(X), Y), TypeError, "X must not be a masked array"),
    (
        lambda: TemperatureScaling().fit(X, Y, masked([1, 1, 1])),
        TypeError,
        "sample_weight must not be a masked array",
    ),
    (lambda: fit_temperature(X, Y, bounds=3), TypeError, "bounds must be two numbers, got 3"),
    (lambda: fit_temperature(X, Y, bounds=("a", 1)), TypeError, "bounds must be a number, got str"),
    (lambda: ct.cross_entropy(X, torch.tensor(Y)), TypeError, "input must be a tensor, got ndar"),
    (lambda: ct.cross_entropy(torch.tensor(X), [0, 1, 2]), TypeError, "target must be a tensor"),
    (lambda: ct.softmax(X, 1), TypeError, "input must be a tensor, got ndarray"),
]


@pytest.mark.parametrize("call, error, message", CASES, ids=[case[2][:40] for case in CASES])
def test_refusals_of_packages(call, error, message):
    with pytest.raises(error, match=f"^{message}") as raised:
        call()
    assert type(raised.value) is error


@pytest.mark.parametrize("module", [xgboost, lightgbm, catboost])
@pytest.mark.parametrize(
    "name, wrong, error, message",
    [
        ("weight", [1, 2, -1], ValueError, r"be finite and not negative: weight\[2\] = -1"),
        ("weight", [1, np.nan], ValueError, r"be finite and not negative: weight\[1\] = nan"),
        ("weight", [1, np.inf], ValueError, r"be finite and not negative: weight\[1\] = inf"),
        ("weight", 2.0, ValueError, r"have one dimension, one weight a class, got \(\)"),
        ("weight", "abc", TypeError, "be an array of numbers, got <U3"),
        ("weight", masked([1, 2]), TypeError, "not be a masked array"),
        ("pos_weight", -1, ValueError, "be finite and not negative: pos_weight = -1"),
        ("pos_weight", np.nan, ValueError, "be finite and not negative: pos_weight = nan"),
        ("pos_weight", [1, -2], ValueError, r"be finite and not negative: pos_weight\[1\] = -2"),
        ("pos_weight", "a", TypeError, "be an array of numbers, got <U1"),
        ("pos_weight", True, TypeError, "be numbers, got bool"),
        ("pos_weight", masked([1, 2]), TypeError, "not be a masked array"),
        ("pos_weight", np.ones((2, 2)), ValueError, r"be a number or .*, got \(2, 2\)"),
    ],
)
def test_options_of_objectives(module, name, wrong, error, message):
    kind = module.SoftmaxCrossEntropy if name == "weight" else module.BinaryCrossEntropy
    with pytest.raises(error, match=f"^{name} must {message}") as raised:
        kind(**{name: wrong})
    assert type(raised.value) is error


def test_a_batch_that_is_refused_changes_nothing():
    evaluation = Evaluation()
    evaluation.update(X, Y)
    before = evaluation.to_dict()
    for call, error in (
        (lambda: evaluation.update(X, Y, sample_weight=[1, -2, 1]), ValueError),
        (lambda: evaluation.update(X, Y, group=masked([1, 1, 1])), TypeError),
        (lambda: evaluation.update(X, [0, 1, 4]), IndexError),
    ):
        with pytest.raises(error):
            call()
        assert evaluation.to_dict() == before
