"""Metrics and estimators for scikit-learn: against scikit-learn, mpmath and brute force."""

import doctest
import inspect
import pickle
import subprocess
import sys
import warnings
from math import inf

import mpmath
import numpy as np
import pytest
import sklearn.metrics
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from threadpoolctl import threadpool_limits

import crossent.functional as F
import crossent.sklearn
from crossent.sklearn import (
    SoftmaxRegression,
    TemperatureScaling,
    fit_temperature,
    log_loss,
    neg_log_loss_logits_scorer,
    neg_log_loss_scorer,
)

DATA = {"wine": load_wine, "cancer": load_breast_cancer, "digits": load_digits}


@pytest.fixture(autouse=True)
def one_thread_of_blas():
    """For matrices this small, BLAS threads wait for each other at length."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


CHECKS = [
    pytest.param(*pair, id=f"{type(pair[0]).__name__}-{pair[1].func.__name__}")
    for estimator in (SoftmaxRegression(), TemperatureScaling(GaussianNB(), cv=2))
    for pair in estimator_checks_generator(estimator)
    # Of arrays of other libraries, which are not claimed.
    if pair[1].func.__name__ != "check_array_api_input"
]


@pytest.mark.parametrize("estimator, check", CHECKS)
@pytest.mark.filterwarnings("ignore")
def test_estimator(estimator, check):
    check(estimator)


# Log loss

NAMES = np.array(["ham", "spam", "tofu"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
@pytest.mark.parametrize("kind", ["strings", "integers", "booleans", "one column", "indicators"])
def test_log_loss_is_scikit_learns(rng, kind, normalize, dtype):
    classes = 2 if kind in ("booleans", "one column") else 3
    proba = rng.dirichlet(np.ones(classes), 50).astype(dtype)
    index = np.arange(50) % classes
    y = {
        "strings": NAMES[index],
        "integers": 10 - 3 * index,
        "booleans": index == 1,
        "one column": NAMES[index],
        "indicators": np.eye(classes, dtype=int)[index],
    }[kind]
    if kind == "one column":
        proba = proba[:, 1]
    for weight in (None, rng.uniform(0.1, 2, 50)):
        options = {"normalize": normalize, "sample_weight": weight}
        expected = sklearn.metrics.log_loss(y, proba.astype(np.float64), **options)
        assert log_loss(y, proba, **options) == pytest.approx(expected, rel=1e-6)
    if kind == "one column":
        assert log_loss(y, proba[:, None]) == log_loss(y, proba)


def test_log_loss_has_scikit_learns_signature():
    ours = inspect.signature(log_loss).parameters
    theirs = inspect.signature(sklearn.metrics.log_loss).parameters
    shared = [name for name in theirs if name in ours]
    assert shared[-3:] == ["normalize", "sample_weight", "labels"]
    for name in shared:
        assert ours[name].kind == theirs[name].kind
        if name not in ("y_proba", "y_pred"):
            assert ours[name].default == theirs[name].default


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_at_the_ends(dtype):
    """Where scikit-learn clips."""
    y = ["a", "b"]
    assert log_loss(y, np.array([[1, 0], [0, 1]], dtype)) == 0.0
    assert log_loss(y, np.array([[0, 1], [0, 1]], dtype)) == inf
    assert log_loss(y, np.array([1, 1], dtype)) == inf
    assert log_loss(y, np.array([1, 1], dtype), sample_weight=[0, 1]) == 0.0
    for p in (1e-30, 1e-10, 1 - 3e-7):
        p = dtype(p)
        with mpmath.workdps(40):
            exact = mpmath.mpf(float(p))
            other = [float(-mpmath.log(q) / 2) for q in (exact, 1 - exact)]
        assert log_loss(y, np.array([0, p], dtype)) == pytest.approx(other[0], rel=1e-15)
        assert log_loss(y, np.array([p, 1], dtype)) == pytest.approx(other[1], rel=1e-15)
        several = np.array([[1, 0, 0], [0, p, 1 - p], [0, 0, 1]], dtype)
        expected = 2 / 3 * other[0]
        assert log_loss(["a", "b", "c"], several) == pytest.approx(expected, rel=1e-15)


def test_log_loss_from_logits(rng):
    logits = rng.normal(0, 30, (40, 3))
    index = np.arange(40) % 3
    with mpmath.workdps(40):
        rows = [
            mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(x)) for x in row)) - mpmath.mpf(row[k])
            for row, k in zip(logits, index, strict=True)
        ]
        expected = float(mpmath.fsum(rows))
    got = log_loss(NAMES[index], logits, from_logits=True, normalize=False)
    assert got == pytest.approx(expected, rel=1e-15)

    margin = np.array([40.0, -300.0, 5.0])
    with mpmath.workdps(60):
        signs = [-1, 1, 1]
        rows = [
            mpmath.log(1 + mpmath.exp(s * mpmath.mpf(m)))
            for s, m in zip(signs, margin, strict=True)
        ]
        expected = float(mpmath.fsum(rows) / 3)
    assert log_loss([True, False, False], margin, from_logits=True) == pytest.approx(
        expected, rel=1e-15
    )
    assert log_loss([1, 0], [20.0, -20.0], from_logits=True) == pytest.approx(2.0611536e-9)
    assert log_loss([1, 0], [inf, -inf], from_logits=True) == 0.0


def test_log_loss_with_labels():
    proba = [[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]]
    y, labels = ["tofu", "spam"], ["ham", "spam", "tofu"]
    expected = sklearn.metrics.log_loss(y, proba, labels=labels)
    assert log_loss(y, proba, labels=labels) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("y, proba, options, message", [
    (["a", "b"], [[0.5, 0.5]], {}, "inconsistent numbers of samples"),
    (["a", "b"], [1.5, 0.5], {}, r"in \[0, 1\], got 0.5 to 1.5"),
    (["a", "b"], [np.nan, 0.5], {}, "NaN"),
    (["a", "a"], [0.5, 0.5], {}, "one class, .*a.*: give all classes as labels"),
    (["a", "b"], [[0.2, 0.3, 0.5]] * 2, {}, "2 classes, y_proba has columns for 3; give all"),
    (["a", "b"], [0.5, 0.5], {"labels": ["a", "c"]}, "has .*b.*, which is not among the labels"),
    ([[1, 0], [1, 1]], [[0.5, 0.5]] * 2, {}, "one class in each row"),
    ([[1, 0, 0], [0, 1, 0]], [[0.5, 0.5]] * 2, {}, "not an indicator matrix of 2 classes"),
])  # fmt: skip
def test_log_loss_refuses(y, proba, options, message):
    with pytest.raises(ValueError, match=message):
        log_loss(y, proba, **options)


@pytest.mark.parametrize("y, options, message", [
    ([0.0, np.nan], {}, "y_true contains NaN"),
    ([1.5, 0.5], {}, "y_true must be classes, got unknown label type 'continuous'"),
    ([[1.0, 0.0], [0.5, 0.5]], {}, "y_true must be classes"),
    ([0, 1], {"labels": []}, "labels must not be empty"),
    ([0, 1], {"labels": [0.0, np.nan]}, "labels contains NaN"),
    ([0, 1], {"sample_weight": [0, 0]}, "sample_weight must have a weight that is not 0"),
    ([0, 1], {"sample_weight": [np.nan, 2]}, "sample_weight contains NaN"),
    ([0, 1], {"sample_weight": [np.inf, 2]}, "sample_weight contains infinity"),
    ([0, 1], {"sample_weight": ["1", "1"]}, "sample_weight must be numbers, got strings"),
])  # fmt: skip
def test_log_loss_refuses_what_scikit_learn_refuses(y, options, message):
    proba = [[0.5, 0.5], [0.25, 0.75]]
    for normalize in (True, False):
        with pytest.raises(ValueError, match=message):
            log_loss(y, proba, normalize=normalize, **options)
    with np.errstate(invalid="ignore"), pytest.raises((ValueError, TypeError)):
        sklearn.metrics.log_loss(y, proba, **options)


def test_log_loss_of_as_many_classes_as_rows(recwarn):
    assert log_loss(np.arange(50), np.eye(50)) == 0.0
    assert log_loss(np.array(["a", "b"], object), [[0, 1], [0, 1]], labels=["b", "a"]) == inf
    assert not recwarn


def test_log_loss_warns_of_rows_that_do_not_sum_to_1():
    with pytest.warns(UserWarning, match="do not sum to 1"):
        log_loss(["a", "b"], [[0.5, 0.4], [0.5, 0.5]])


def test_scorers():
    X, y = load_wine(return_X_y=True)
    names = NAMES[y]
    model = make_pipeline(StandardScaler(), LogisticRegression())
    expected = cross_val_score(model, X, names, scoring="neg_log_loss")
    for scorer in (
        neg_log_loss_scorer,
        neg_log_loss_logits_scorer,
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
    ):
        np.testing.assert_allclose(
            cross_val_score(model, X, names, scoring=scorer), expected, rtol=1e-9
        )
    X, y = load_breast_cancer(return_X_y=True)
    expected = cross_val_score(model, X, y == 1, scoring="neg_log_loss")
    for scorer in (neg_log_loss_scorer, neg_log_loss_logits_scorer):
        np.testing.assert_allclose(
            cross_val_score(model, X, y == 1, scoring=scorer), expected, rtol=1e-6
        )
    grid = {"logisticregression__C": [0.01, 1.0]}
    searches = [
        GridSearchCV(model, grid, scoring=scoring).fit(X, y)
        for scoring in (neg_log_loss_logits_scorer, "neg_log_loss")
    ]
    assert searches[0].best_params_ == searches[1].best_params_


# Temperature


def best_temperature(logits, target, weight=None):
    """By SciPy's search without derivatives, on the formula as it is usually written."""
    weight = np.ones(len(target)) if weight is None else weight

    def loss(log_beta):
        z = logits * np.exp(log_beta)
        z = z - z.max(axis=1, keepdims=True)
        rows = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), target]
        return weight @ rows

    return np.exp(-minimize_scalar(loss, bounds=(-10, 10), options={"xatol": 1e-12}).x)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_temperature_is_the_best(rng, classes, scale):
    logits = scale * rng.normal(size=(400, classes))
    target = (logits + 1.5 * scale * rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(logits, target) == pytest.approx(
        best_temperature(logits, target), rel=1e-6
    )
    weight = rng.uniform(0, 2, 400)
    got = fit_temperature(logits, target, sample_weight=weight)
    assert got == pytest.approx(best_temperature(logits, target, weight), rel=1e-6)
    # The derivative vanishes there.
    loss, grad = F.cross_entropy(
        logits, target, sample_weight=weight, temperature=got, return_grad=True
    )
    assert abs((grad * logits).sum()) < 1e-12
    assert np.isfinite(loss)
    # An offset of a row is nothing, and a weight of 0 no row.
    assert fit_temperature(logits + rng.normal(0, 1e3 * scale, (400, 1)), target) == pytest.approx(
        fit_temperature(logits, target), rel=1e-9
    )
    live = weight > 1
    logits[~live] = np.nan
    assert fit_temperature(logits, target, sample_weight=np.where(live, weight, 0)) == (
        pytest.approx(
            fit_temperature(logits[live], target[live], sample_weight=weight[live]), rel=1e-12
        )
    )


def test_temperature_of_one_logit(rng):
    margin = rng.normal(0, 3, 300)
    target = (margin + 4 * rng.logistic(size=300) > 0).astype(int)
    both = np.stack([np.zeros(300), margin], axis=1)
    assert fit_temperature(margin, target) == pytest.approx(
        best_temperature(both, target), rel=1e-6
    )
    assert fit_temperature(margin.astype(np.float32), target) == pytest.approx(
        fit_temperature(margin, target), rel=1e-6
    )


@pytest.mark.parametrize("scale", [5e-320, 1e-300, 1e-170, 1e-5, 1e5, 1e150, 1e160, 1e307])
def test_temperature_of_logits_of_any_size(rng, scale):
    logits = rng.normal(size=(400, 3))
    target = (logits + 1.5 * rng.gumbel(size=logits.shape)).argmax(axis=1)
    # As the scaled ones are: of subnormal numbers few digits are left.
    scaled = logits * scale
    expected = best_temperature(scaled / scale, target) * scale
    assert fit_temperature(scaled, target) == pytest.approx(expected, rel=1e-6, abs=1e-323)


def test_temperature_of_rows_of_all_sizes():
    # The large difference is right and says nothing; the small ones, 3 of 4, decide.
    small = 1e-200
    logits = [[1.0, 0.0]] + [[small, 0.0]] * 4
    expected = pytest.approx(small / np.log(3), rel=1e-11, abs=0)
    assert fit_temperature(logits, [0, 0, 0, 0, 1]) == expected
    # So far apart that the difference overflows.
    logits = [[1.7e308, -1.7e308]] * 4
    assert fit_temperature(logits, [0, 0, 0, 1], bounds=(0, 1e308)) == 1e308
    ratio = 2 * (1.7e308 / np.log(1e3 - 1))
    assert fit_temperature([logits[0]] * 1000, [0] * 999 + [1]) == pytest.approx(ratio, rel=1e-10)
    # Weights count by their ratios, however large.
    weight = [3e307, 3e307, 3e307, 3e307]
    logits = np.full(4, np.log(9))
    got = fit_temperature(logits, [1, 1, 1, 0], sample_weight=weight)
    assert got == pytest.approx(2, rel=1e-12)


def test_temperature_at_the_limits():
    right = [[2.0, 1.0], [0.0, 3.0]]
    assert fit_temperature(right, [0, 1]) == 0.0
    assert fit_temperature([[2.0, 2.0], [0.0, 3.0]], [0, 1]) == 0.0  # a tie is no mistake
    assert fit_temperature(right, [1, 0]) == inf
    assert fit_temperature([[1.0, -1.0], [1.0, -1.0]], [0, 1]) == inf  # nothing to tell
    assert fit_temperature([[1.0, 1.0], [5.0, 5.0]], [0, 1]) == 1.0
    assert fit_temperature(right, [0, 1], bounds=(0.1, 10)) == 0.1
    assert fit_temperature(right, [1, 0], bounds=(0.1, 10)) == 10
    # A class that cannot be is not there.
    masked = [[2.0, 1.0, -inf], [0.0, 3.0, -inf], [0.0, 3.0, -inf]]
    shown = np.array(masked)[:, :2]
    assert fit_temperature(masked, [0, 1, 0]) == fit_temperature(shown, [0, 1, 0])


@pytest.mark.parametrize("logits, target, options, error, message", [
    ([[1.0, 2.0]], [2], {}, IndexError, r"target\[0\] = 2 is out of range for 2 classes"),
    ([[1.0, 2.0]], [-1], {}, IndexError, r"target\[0\] = -1 is out of range"),
    ([[1.0, 2.0]], [0.0], {}, TypeError, "target must be class indices, got float64"),
    ([[1.0, 2.0]], [0, 1], {}, ValueError, r"target must have shape \(1,\), .* got \(2,\)"),
    ([[[1.0, 2.0]]], [0], {}, ValueError, "logits must have one or two dimensions, got 3"),
    ([[1.0, np.nan]], [0], {}, ValueError, "logits must not be NaN"),
    ([[1.0, inf]], [0], {}, ValueError, r"logits must not be .* \+inf"),
    ([[-inf, 1.0]], [0], {}, ValueError, "nor that of a target -inf"),
    (np.zeros((0, 2)), np.zeros(0, int), {}, ValueError, "a row of positive weight"),
    ([[1.0, 2.0]], [0], {"sample_weight": [-1]}, ValueError, r"weight\[0\] = -1"),
    ([[1.0, 2.0]], [0], {"sample_weight": [np.nan]}, ValueError, r"sample_weight\[0\] = nan"),
    ([[1.0, 2.0]] * 2, [0, 1], {"sample_weight": [inf, 1]}, ValueError, "weight must be finite"),
    ([[1.0, 2.0]], [0], {"sample_weight": [1, 2]}, ValueError, r"sample_weight .* \(1,\), got"),
    ([[1.0, 2.0]], [0], {"bounds": (2, 1)}, ValueError, r"bounds must be .* got \(2, 1\)"),
])  # fmt: skip
def test_temperature_refuses(logits, target, options, error, message):
    with pytest.raises(error, match=message):
        fit_temperature(logits, target, **options)


def test_calibration_of_a_sure_model():
    """Naive Bayes multiplies evidence that is not independent, and is far too sure."""
    X, y = load_digits(return_X_y=True)
    X, names = X[:900], np.array([f"digit {k}" for k in range(10)])[y]
    sure = GaussianNB(var_smoothing=1e-2)
    calibrated = TemperatureScaling(sure).fit(X[:600], names[:600])
    assert calibrated.temperature_ > 2
    assert list(calibrated.classes_) == sorted(set(names))
    test, truth = X[600:], names[600:900]
    before = log_loss(truth, sure.fit(X[:600], names[:600]).predict_proba(test))
    after = log_loss(truth, calibrated.predict_proba(test))
    assert after < 0.7 * before
    assert (calibrated.predict(test) == sure.predict(test)).all()
    again = pickle.loads(pickle.dumps(calibrated))
    assert (again.predict_proba(test) == calibrated.predict_proba(test)).all()

    # A fitted classifier stays, and gives the same as its logits by hand.
    frozen = TemperatureScaling(FrozenEstimator(sure)).fit(test, truth)
    assert frozen.estimator_.estimator is sure
    logits = sure.predict_log_proba(test)
    temperature = fit_temperature(logits, np.searchsorted(sure.classes_, truth))
    assert frozen.temperature_ == temperature
    np.testing.assert_allclose(
        frozen.predict_proba(test), F.softmax(logits, axis=1, temperature=temperature), rtol=1e-12
    )


def test_calibration_of_probabilities_that_are_0():
    X, y = load_wine(return_X_y=True)
    forest = RandomForestClassifier(10, random_state=0)
    calibrated = TemperatureScaling(forest, cv=3).fit(X, y)
    assert 0 < calibrated.temperature_ < inf
    proba = calibrated.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(calibrated.predict_proba(X[:7]), proba[:7], rtol=1e-12)


def test_calibration_at_the_limits():
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]] * 5)
    y = np.array([0, 0, 1, 1] * 5)
    with pytest.warns(UserWarning, match="temperature is 0"):
        sharp = TemperatureScaling(cv=2).fit(X, y)
    assert (sharp.predict_proba(X) == np.eye(2)[y]).all()
    bounded = TemperatureScaling(cv=2, bounds=(0.5, 2)).fit(X, y)
    assert bounded.temperature_ == 0.5
    model = SoftmaxRegression().fit(X, y)
    with pytest.warns(UserWarning, match="temperature is infinite"):
        flat = TemperatureScaling(FrozenEstimator(model)).fit(X, 1 - y)
    assert (flat.predict_proba(X) == 0.5).all()
    assert (flat.predict(X) == model.predict(X)).all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("bounds", [(0.0, inf), (0.0, 0.0), (inf, inf), (0.5, 0.5)], ids=str)
@pytest.mark.parametrize("kind", [GaussianNB, LogisticRegression])
@pytest.mark.filterwarnings("ignore:the temperature is")
def test_calibrated_logits(kind, bounds, classes):
    X, y = load_wine(return_X_y=True)
    X, y = StandardScaler().fit_transform(X[y < classes])[:, :4], y[y < classes]
    calibrated = TemperatureScaling(kind(), bounds=bounds).fit(X, y)
    logits, proba = calibrated.decision_function(X), calibrated.predict_proba(X)
    if classes == 2:
        assert logits.shape == y.shape
        np.testing.assert_allclose(F.sigmoid(logits), proba[:, 1], rtol=1e-12)
    else:
        np.testing.assert_allclose(F.softmax(logits, axis=1), proba, rtol=1e-12)
        if bounds == (0.5, 0.5) and kind is LogisticRegression:
            theirs = calibrated.estimator_.decision_function(X)
            np.testing.assert_allclose(logits, theirs / 0.5, rtol=1e-12)
    if bounds == (0.0, inf):
        score = neg_log_loss_logits_scorer(calibrated, X, y)
        assert score == pytest.approx(neg_log_loss_scorer(calibrated, X, y), rel=1e-12)


@pytest.mark.parametrize("estimator, name", [
    (make_pipeline(StandardScaler(), LogisticRegression()), "Pipeline"),
    (KNeighborsClassifier(15), "KNeighborsClassifier"),
])  # fmt: skip
def test_calibration_of_a_classifier_without_weights(estimator, name):
    X, y = load_wine(return_X_y=True)
    weight = np.where(y == 0, 5.0, 1.0)
    with pytest.warns(UserWarning, match=f"{name}.fit does not name sample_weight") as warned:
        calibrated = TemperatureScaling(estimator).fit(X, y, sample_weight=weight)
    assert len(warned) == 1
    plain = TemperatureScaling(estimator).fit(X, y)
    # The classifier is the same, and the weights are in the temperature.
    np.testing.assert_allclose(
        calibrated.estimator_.predict_proba(X), plain.estimator_.predict_proba(X), rtol=1e-12
    )
    assert calibrated.temperature_ != plain.temperature_


def test_calibration_refuses():
    X, y = load_wine(return_X_y=True)
    with pytest.raises(ValueError, match="each fold needs all classes"):
        TemperatureScaling(cv=[(np.arange(60), np.arange(60, len(y)))]).fit(X, y)
    rows = np.arange(len(y))
    with pytest.raises(ValueError, match="each row in a test set"):
        TemperatureScaling(cv=[(rows, rows[:5])]).fit(X, y)


# Softmax regression


@pytest.mark.filterwarnings("ignore:the fit stopped .* rounding")
@pytest.mark.parametrize("options", [
    {}, {"C": 0.05, "class_weight": "balanced"}, {"fit_intercept": False},
    {"C": 10.0, "class_weight": {0: 2.0}},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", DATA)
def test_the_fit_is_logistic_regressions(name, weighted, options):
    X, y = DATA[name](return_X_y=True)
    X = StandardScaler().fit_transform(X)
    if name == "digits":
        X, y = X[:600], y[:600]
    weight = np.random.default_rng(0).uniform(0, 3, len(y)) if weighted else None
    ours = SoftmaxRegression(tol=1e-10, **options).fit(X, y, weight)
    # For ten classes its Newton's method takes seconds.
    solver = "newton-cg" if name == "digits" else "newton-cholesky"
    theirs = LogisticRegression(solver=solver, tol=1e-12, max_iter=5000, **options)
    theirs.fit(X, y, weight)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(
        ours.decision_function(X), theirs.decision_function(X), atol=1e-4, rtol=1e-5
    )
    assert (ours.classes_ == theirs.classes_).all()
    assert (ours.predict(X) == theirs.predict(X)).all()


def test_features_of_any_scale():
    """As they come, from thousandths to thousands."""
    X, y = load_wine(return_X_y=True)
    names = NAMES[y]
    raw = SoftmaxRegression().fit(X, names)
    theirs = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=500).fit(X, names)
    np.testing.assert_allclose(raw.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(raw.intercept_, theirs.intercept_, atol=1e-4)
    assert list(raw.classes_) == sorted(NAMES)
    assert raw.n_iter_ < 200
    # By the diagonal alone, which more than 2000 features get.
    wide = np.concatenate([X - X.mean(axis=0), np.zeros((len(X), 2000))], axis=1)
    slow = SoftmaxRegression(tol=1e-6).fit(wide, names)
    np.testing.assert_allclose(slow.predict_proba(wide), raw.predict_proba(X), atol=1e-3)


def test_no_penalty():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)[:, :4]
    ours = SoftmaxRegression(C=inf, tol=1e-8).fit(X, y)
    theirs = LogisticRegression(C=inf, solver="newton-cholesky", tol=1e-10).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4)


def test_log_probabilities_reach_below_the_smallest_float():
    model = SoftmaxRegression().fit([[-1.0], [1.0]], [0, 1])
    far = [[1e5]]
    assert model.predict_proba(far)[0, 0] == 0.0
    margin = model.decision_function(far)[0]
    np.testing.assert_allclose(model.predict_log_proba(far), [[-margin, 0.0]], rtol=1e-12)


def test_regression_refuses_and_warns():
    X, y = load_wine(return_X_y=True)
    for name, wrong in (("C", 0), ("C", np.nan), ("tol", -1), ("max_iter", 0)):
        with pytest.raises(ValueError, match=f"{name} must be .*, got {wrong!r}"):
            SoftmaxRegression(**{name: wrong}).fit(X, y)
    with pytest.raises(ValueError, match="one class"):
        SoftmaxRegression().fit(X, np.zeros(len(y)))
    with pytest.raises(ValueError, match="positive weight"):
        SoftmaxRegression(class_weight=dict.fromkeys(range(3), 0.0)).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        SoftmaxRegression(max_iter=2).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxRegression().fit(X, y)
    assert clone(SoftmaxRegression(C=3.0)).C == 3.0


# Documentation


@pytest.mark.parametrize("name", crossent.sklearn.__all__)
def test_examples(name):
    thing = getattr(crossent.sklearn, name)
    assert inspect.getdoc(thing)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs={}):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
    assert runner.tries > 0 or name.endswith("_scorer")


def test_a_missing_library_is_named():
    script = """
import sys
sys.modules["sklearn"] = None
try:
    import crossent.sklearn
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "crossent.sklearn needs scikit-learn: pip install crossent[sklearn]\n", (
        done.stderr
    )
