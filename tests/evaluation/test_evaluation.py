"""`Evaluation` against NumPy in float64, SciPy, scikit-learn and mpmath; and that it merges."""

import json
import math
import pickle
import time

import ml_dtypes
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from crossent.evaluation import Evaluation, Token, evaluate


def batch(rng, n=400, classes=12, scale=3.0, dtype=np.float32):
    logits = (scale * rng.standard_normal((n, classes))).astype(dtype)
    target = rng.integers(0, classes, n)
    # A model that knows something.
    logits[np.arange(n), target] += 1
    return logits, target


def evaluated(logits, target, options=None, **arguments):
    evaluation = Evaluation(**(options or {}))
    evaluation.update(logits, target, **arguments)
    return evaluation


def close(got, want, bar=1e-6):
    assert got == pytest.approx(want, rel=bar, abs=1e-12), (got, want)


# Measures


def test_measures_are_those_of_others(rng):
    logits, target = batch(rng)
    wide = logits.astype(np.float64)
    p = scipy.special.softmax(wide, 1)
    got = evaluated(logits, target, {"top_k": (1, 3, 5)})
    loss = log_loss(target, p, labels=np.arange(12))
    close(got.cross_entropy, loss)
    close(got.bits, loss / np.log(2))
    close(got.perplexity, np.exp(loss))
    assert got.accuracy == accuracy_score(target, p.argmax(1))
    for k in (3, 5):
        assert got.top_k(k) == top_k_accuracy_score(target, p, k=k, labels=np.arange(12))
    close(got.entropy, scipy.stats.entropy(p, axis=1).mean())
    close(got.confidence, p.max(1).mean())
    assert (got.rows, got.ignored_rows, got.nan_rows, got.classes) == (400, 0, 0, 12)
    assert math.isnan(got.bits_per_byte)
    assert math.isnan(got.kl_divergence)


def test_the_mean_is_within_a_row(rng):
    """Rows are within 2 ulp, and nothing is lost in adding them up."""
    logits, target = batch(rng, 50, 7, 8)
    rows = []
    for x, y in zip(logits.tolist(), target.tolist(), strict=True):
        rows.append(mp.log(mp.fsum(mp.exp(mp.mpf(v) - mp.mpf(x[y])) for v in x)))
    want = mp.fsum(rows) / len(rows)
    assert abs(evaluated(logits, target).cross_entropy / want - 1) < 2 * 2**-23
    wide = evaluated(logits.astype(np.float64), target)
    assert abs(wide.cross_entropy / want - 1) < 3 * 2**-52


def test_confident_rows_are_not_lost():
    got = evaluated(np.array([[20.0, 0.0]] * 1000, np.float32), np.zeros(1000, int))
    assert abs(got.cross_entropy / math.log1p(math.exp(-20)) - 1) < 2**-22
    assert got.perplexity > 1


def test_reliability_is_scikit_learns(rng):
    """Of a binary model, sure of class 1 or not."""
    n, bins = 3000, 10
    z = 2 * rng.standard_normal(n)
    target = (rng.random(n) < scipy.special.expit(0.7 * z)).astype(int)
    got = evaluated(np.stack([np.zeros(n), z], 1), target, {"bins": bins}).reliability()
    confidence = scipy.special.expit(abs(z))
    correct = (target == (z > 0)).astype(int)
    share, mean = calibration_curve(correct, confidence, n_bins=bins)
    there = got["rows"] > 0
    np.testing.assert_allclose(got["accuracy"][there], share, rtol=1e-12)
    np.testing.assert_allclose(got["confidence"][there], mean, rtol=1e-9)
    assert got["rows"].sum() == n
    assert np.isnan(got["accuracy"][~there]).all()

    edges = np.linspace(0, 1, bins + 1)
    of = np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, bins - 1)
    error = sum(
        abs(np.mean(correct[of == b]) - np.mean(confidence[of == b])) * np.mean(of == b)
        for b in range(bins)
        if (of == b).any()
    )
    whole = evaluated(np.stack([np.zeros(n), z], 1), target, {"bins": bins})
    close(whole.expected_calibration_error, error, 1e-9)


def test_divergence_from_a_baseline(rng):
    base, target = batch(rng, dtype=np.float64)
    logits = base + 0.1 * rng.standard_normal(base.shape)
    got = evaluated(logits, target, baseline=base)
    p, q = scipy.special.softmax(base, 1), scipy.special.softmax(logits, 1)
    rows = scipy.stats.entropy(p, q, axis=1)
    close(got.kl_divergence, rows.mean(), 1e-9)
    for share, found in zip((0.1, 0.5, 0.99), got.kl_quantiles([0.1, 0.5, 0.99]), strict=True):
        close(found, np.quantile(rows, share, method="inverted_cdf"), 2**-8)
    losses = -np.log(q[np.arange(400), target])
    close(got.loss_quantiles([0.5])[0], np.quantile(losses, 0.5, method="inverted_cdf"), 2**-8)
    assert evaluated(base, target, baseline=base).kl_divergence == 0


def test_bytes(rng):
    logits, target = batch(rng)
    loss = evaluated(logits, target).cross_entropy * len(target) / np.log(2)
    close(evaluated(logits, target, byte_count=1234).bits_per_byte, loss / 1234)
    lengths = rng.integers(1, 9, len(target))
    close(evaluated(logits, target, byte_count=lengths).bits_per_byte, loss / lengths.sum())
    target[:7] = -100
    kept = evaluated(logits, target)
    want = kept.cross_entropy * kept.rows / np.log(2) / lengths[7:].sum()
    close(evaluated(logits, target, byte_count=lengths).bits_per_byte, want)


def test_weights(rng):
    logits, target = batch(rng)
    weight = rng.integers(0, 4, len(target))
    p = scipy.special.softmax(logits.astype(np.float64), 1)
    got = evaluated(logits, target, {"per_class": True}, sample_weight=weight)
    close(got.cross_entropy, log_loss(target, p, labels=np.arange(12), sample_weight=weight))
    close(got.accuracy, accuracy_score(target, p.argmax(1), sample_weight=weight), 1e-12)
    # A whole number as weight is a row as often: of the same sums, to the last bit.
    again = evaluated(np.repeat(logits, weight, 0), np.repeat(target, weight))
    for name in ("cross_entropy", "accuracy", "entropy", "expected_calibration_error"):
        assert getattr(got, name) == getattr(again, name)
    assert got.rows == np.count_nonzero(weight)
    assert got.ignored_rows == np.count_nonzero(weight == 0)


def test_rows_that_do_not_count(rng):
    logits, target = batch(rng)
    keep = rng.random(len(target)) < 0.7
    logits[~keep] = np.nan
    left_out = np.where(keep, target, -1)
    got = evaluated(logits, left_out, {"ignore_index": -1})
    want = evaluated(logits[keep], target[keep])
    assert got.summary() == {**want.summary(), "ignored_rows": int((~keep).sum())}
    weighted = evaluated(logits, target, sample_weight=keep.astype(float))
    assert weighted.cross_entropy == want.cross_entropy


def test_warped_logits(rng):
    logits, target = batch(rng, dtype=np.float64)
    mask = np.arange(12) != 3
    target[target == 3] = 4
    got = evaluated(logits, target, {"temperature": 2.0, "softcap": 5.0}, class_mask=mask)
    warped = np.where(mask, 5 * np.tanh(logits / 5) / 2, -np.inf)
    p = scipy.special.softmax(warped, 1)
    close(got.cross_entropy, -np.log(p[np.arange(400), target]).mean(), 1e-12)
    close(got.confidence, p.max(1).mean(), 1e-12)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_probabilities_and_their_logarithms(rng, dtype):
    logits, target = batch(rng, dtype=np.float64)
    p = scipy.special.softmax(logits, 1)
    p[:, 0] = np.where(target == 0, p[:, 0], 0)
    p /= p.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs = np.log(p).astype(dtype)
    given = p.astype(dtype)
    for kind, values, exact in (
        ("probabilities", given, given.astype(np.float64)),
        ("log_probabilities", logs, np.exp(logs.astype(np.float64))),
    ):
        exact = exact / exact.sum(1, keepdims=True)
        got = evaluated(values, target, {"kind": kind}, baseline=values)
        close(got.cross_entropy, -np.log(exact[np.arange(400), target]).mean(), 1e-6)
        close(got.confidence, exact.max(1).mean(), 1e-6)
        assert got.kl_divergence == 0


def test_classes_and_groups(rng):
    logits, target = batch(rng)
    target[target == 5] = 6
    group = rng.integers(0, 3, len(target))
    names = np.array(["prose", "code", "lists"])[group]
    base = logits + 1
    options = {"per_class": True, "bins": 5}
    bytes_each = rng.integers(1, 5, len(target))
    got = evaluated(logits, target, options, group=names, baseline=base, byte_count=bytes_each)
    for table, of in ((got.by_class(), target), (got.by_group(), names)):
        for i, label in enumerate(table["label"].tolist()):
            mine = of == label
            if not mine.any():
                assert label == 5
                assert np.isnan(table["cross_entropy"][i])
                continue
            want = evaluated(logits[mine], target[mine], {"bins": 5}, baseline=base[mine],
                             byte_count=bytes_each[mine])  # fmt: skip
            assert table["rows"][i] == want.rows
            for name in table.keys() - {"label", "rows", "weight", "top5"}:
                assert table[name][i] == getattr(want, name), name
            if of is names:
                diagram = got.reliability(group=label)
                for name, values in want.reliability().items():
                    np.testing.assert_array_equal(diagram[name], values)
            assert table["top5"][i] == want.top_k(5)
    assert got.by_class().keys() == got.by_group().keys() - {"expected_calibration_error"}
    assert got.by_group()["label"].tolist() == ["code", "lists", "prose"]
    assert evaluated(logits, target, group=group).by_group()["label"].tolist() == [0, 1, 2]


def test_the_diagram_of_no_group(rng):
    logits, target = batch(rng)
    got = evaluated(logits, target, group=target % 2)
    assert got.reliability(group=np.int8(1))["rows"].sum() == np.count_nonzero(target % 2)
    for label in (2, "1"):
        with pytest.raises(ValueError, match=f"group must be the label of a group, got {label!r}"):
            got.reliability(group=label)
    with pytest.raises(TypeError, match="group must be an integer"):
        got.reliability(group=1.5)


def test_a_table_of_a_vocabulary_takes_no_time(rng):
    """Of 128256 classes most have no rows; a fraction for each took half a minute."""
    logits, target = rng.standard_normal((40, 128_256), np.float32), rng.integers(0, 128_256, 40)
    got = evaluated(logits, target, {"per_class": True})
    start = time.perf_counter()
    table = got.by_class()
    assert time.perf_counter() - start < 5
    assert np.count_nonzero(table["rows"]) == len(set(target.tolist()))
    one = evaluated(logits[:1], target[:1])
    mine = target[0]
    if np.count_nonzero(target == mine) == 1:
        assert table["cross_entropy"][mine] == one.cross_entropy
    assert np.isnan(table["entropy"][table["rows"] == 0]).all()


def test_images(rng):
    logits = rng.standard_normal((3, 5, 4, 2)).astype(np.float32)
    target = rng.integers(0, 5, (3, 4, 2))
    got = evaluated(logits, target, {"worst": 24})
    rows = np.moveaxis(logits, 1, -1).reshape(-1, 5)
    assert got == evaluated(rows, target.ravel(), {"worst": 24})
    assert got == evaluated(rows.reshape(3, 4, 2, 5), target, {"worst": 24}, axis=-1)
    one = evaluated(rows[0], target[0, 0, 0])
    assert one.cross_entropy == evaluated(rows[:1], target[0, 0, :1]).cross_entropy


def test_worst_tokens(rng):
    logits, target = batch(rng, 300)
    logits[[17, 3, 40]] = np.nan
    logits[200, target[200]] = -np.inf
    logits[5] = logits[4]
    target[5] = target[4]
    p = scipy.special.log_softmax(logits.astype(np.float64), 1)[np.arange(300), target]
    order = np.lexsort((np.arange(300), p, ~np.isnan(p)))
    whole = evaluated(logits, target, {"worst": 250}).worst_tokens()
    assert [token.row for token in whole] == order[:250].tolist()
    assert [token.target for token in whole] == target[order[:250]].tolist()
    np.testing.assert_allclose([t.log_prob for t in whole], p[order[:250]], rtol=1e-5)
    above = (logits > logits[np.arange(300), target][:, None]).sum(1)
    assert [t.rank for t in whole[3:]] == above[order[3:250]].tolist()

    parts = Evaluation(worst=20)
    for start in range(280, -20, -20):
        part = parts.empty_like()
        part.update(logits[start : start + 20], target[start : start + 20], first_row=start)
        parts.merge(part)
    assert list(map(repr, parts.worst_tokens())) == list(map(repr, whole[:20]))
    assert isinstance(whole[0], Token)


def test_a_tie_is_a_fair_draw():
    """A model that knows nothing is right as often as chance."""
    nothing = evaluated(np.zeros((64, 16), np.float16), np.arange(64) % 16, {"top_k": (4, 20)})
    assert (nothing.accuracy, nothing.top_k(4), nothing.top_k(20)) == (1 / 16, 1 / 4, 1)
    assert nothing.expected_calibration_error < 1e-8
    two = np.array([[3.0, 3.0, 1.0]] * 3)
    got = evaluated(two, [0, 1, 2], {"top_k": (2, 3)})
    assert (got.accuracy, got.top_k(2), got.top_k(3)) == (1 / 3, 2 / 3, 1)
    infinite = evaluated(np.array([[np.inf, 1.0]]), [0])
    assert infinite.accuracy == 1


def test_limits(rng):
    logits = np.array([[np.inf, 0.0], [0.0, -np.inf]])
    assert evaluated(logits, [0, 0]).cross_entropy == 0
    got = evaluated(logits, [1, 0])
    assert got.cross_entropy == got.perplexity == np.inf
    assert got.loss_quantiles([1.0]) == [np.inf]
    logits[0] = np.nan
    broken = evaluated(logits, [0, 0])
    assert broken.nan_rows == 1
    assert math.isnan(broken.cross_entropy)
    assert math.isnan(broken.expected_calibration_error)
    assert broken.accuracy == 0.5
    huge = evaluated(np.array([[1e30, 0.0]], np.float32), [1])
    assert huge.perplexity == np.inf
    assert huge.cross_entropy == float(np.float32(1e30))
    nothing = evaluated(np.zeros((0, 3)), np.zeros(0, int), {"per_class": True, "worst": 1})
    assert math.isnan(nothing.cross_entropy)
    assert nothing.worst_tokens() == []
    assert Evaluation().summary()["classes"] is None


# Parts

OPTIONS = {"per_class": True, "worst": 3, "top_k": (2,), "bins": 4}


@st.composite
def parts(draw):
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    n, classes = draw(st.integers(1, 60)), draw(st.sampled_from([2, 3, 17, 130]))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    logits, target = batch(rng, n, classes, draw(st.sampled_from([0.1, 3.0, 100.0])), dtype)
    logits[rng.random((n, classes)) < 0.02] = -np.inf
    weight = draw(st.sampled_from([None, "some"]))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    bounds = list(zip([0, *cuts], [*cuts, n], strict=True))
    return {
        "logits": logits,
        "target": np.where(rng.random(n) < 0.1, -100, target),
        "baseline": (logits + dtype(0.1)),
        "group": rng.integers(0, 3, n),
        "sample_weight": None if weight is None else rng.random(n),
    }, draw(st.permutations(bounds))


def of_slice(arrays, start, stop):
    part = Evaluation(**OPTIONS)
    given = {k: None if v is None else v[start:stop] for k, v in arrays.items()}
    part.update(given.pop("logits"), given.pop("target"), first_row=start, **given)
    return part


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(parts())
def test_the_same_bits_in_any_order_and_parts(made):
    arrays, bounds = made
    n = len(arrays["target"])
    whole = of_slice(arrays, 0, n)
    pieces = [of_slice(arrays, *each) for each in bounds]
    left = whole.empty_like()
    for piece in pieces:
        left.merge(piece)
    assert left == whole
    right = whole.empty_like()
    for piece in reversed(pieces):
        right = piece.empty_like().merge(piece).merge(right)
    assert right == whole
    assert right.summary() == left.summary() or np.isnan(left.cross_entropy)
    kept = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert Evaluation.from_dict(kept) == whole
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_one_batch_after_the_other(rng):
    logits, target = batch(rng)
    whole = evaluated(logits, target, OPTIONS)
    one = Evaluation(**OPTIONS)
    for start in range(0, 400, 37):
        one.update(logits[start : start + 37], target[start : start + 37])
    assert one == whole
    assert evaluate(logits, target, batch_rows=13, **OPTIONS) == whole


def test_merging_with_itself_counts_twice(rng):
    logits, target = batch(rng)
    twice = evaluated(logits, target)
    once = twice.cross_entropy
    twice.merge(twice)
    assert (twice.rows, twice.cross_entropy) == (800, once)


# Errors


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"kind": "odds"}, ValueError, "kind must be one of"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"softcap": -1.0}, ValueError, "softcap"),
        ({"kind": "probabilities", "temperature": 2.0}, ValueError, "temperature and softcap"),
        ({"top_k": (0,)}, ValueError, "top_k must be at least 1"),
        ({"top_k": (1.5,)}, TypeError, "top_k must be an integer"),
        ({"bins": 0}, ValueError, "bins must be at least 1"),
        ({"worst": -1}, ValueError, "worst must be at least 0"),
        ({"ignore_index": True}, TypeError, "ignore_index must be an integer"),
    ],
)
def test_arguments_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Evaluation(**options)


ROWS = np.zeros((2, 3))
MASKED = np.ma.masked_array([0, 1], [True, False])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((ROWS, [0, 3]), IndexError, r"target\[1\] = 3"),
        ((ROWS, [0.0, 1.0]), TypeError, "target"),
        ((ROWS, [0]), ValueError, "target"),
        ((ROWS.astype(int), [0, 1]), TypeError, "input"),
        ((np.zeros((2, 4)), [0, 1]), ValueError, "input has 4 classes, .* before 3"),
        ((ROWS, MASKED), TypeError, "masked"),
        ((np.ma.masked_array(ROWS), [0, 1]), TypeError, "masked"),
        ((ROWS, [0, 1], {"baseline": ROWS[:1]}), ValueError, "baseline must have the shape"),
        ((ROWS, [0, 1], {"baseline": ROWS.astype(int)}), TypeError, "^baseline"),
        ((ROWS, [0, 1], {"sample_weight": [1.0]}), ValueError, "sample_weight must have"),
        ((ROWS, [0, 1], {"sample_weight": [1.0, -1.0]}), ValueError, "sample_weight must be"),
        ((ROWS, [0, 1], {"sample_weight": [1.0, np.nan]}), ValueError, "sample_weight must be"),
        ((ROWS, [0, 1], {"byte_count": 1.5}), TypeError, "byte_count must be integers"),
        ((ROWS, [0, 1], {"byte_count": -1}), ValueError, "byte_count must not be negative"),
        ((ROWS, [0, 1], {"byte_count": [1]}), ValueError, "byte_count must be one number"),
        ((ROWS, [0, 1], {"group": [0.5, 1]}), TypeError, "group must be integers or strings"),
        ((ROWS, [0, 1], {"group": [0]}), ValueError, "group must have"),
        ((ROWS, [0, 1], {"class_mask": [1, 1, 1]}), TypeError, "class_mask"),
        ((ROWS, [0, 1], {"axis": 2}), ValueError, "axis"),
        ((ROWS, [0, 1], {"first_row": -1}), ValueError, "first_row must be at least 0"),
    ],
)
def test_a_refused_batch_changes_nothing(arguments, error, message):
    evaluation = Evaluation(per_class=True, worst=2)
    evaluation.update(ROWS, [0, 1], group=["a", "b"])
    before = evaluation.to_dict()
    *positional, named = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(error, match=message):
        evaluation.update(*positional, **{"group": ["c", "d"], **named})
    assert evaluation.to_dict() == before


def test_probabilities_that_are_none():
    p = np.array([[0.5, 0.5], [0.5, 0.1]])
    with pytest.raises(ValueError, match=r"those of row 1 add up to 0\.6"):
        Evaluation(kind="probabilities").update(p, [0, 1])
    with pytest.raises(ValueError, match="those of row 0 add up to 2"):
        Evaluation(kind="log_probabilities").update(np.zeros((1, 2)), [0])
    with pytest.raises(ValueError, match="negative"):
        Evaluation(kind="probabilities").update([[1.5, -0.5]], [0])
    with pytest.raises(ValueError, match="class_mask is of logits"):
        Evaluation(kind="probabilities").update(p, [0, 1], class_mask=[True, True])
    ignored = Evaluation(kind="probabilities")
    ignored.update(p, [0, -100])
    assert ignored.rows == 1


def test_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="other has bins=3, and this 15"):
        Evaluation().merge(Evaluation(bins=3))
    with pytest.raises(TypeError, match="other must be an Evaluation"):
        Evaluation().merge({})
    with pytest.raises(ValueError, match="other has 2 classes, and this 3"):
        evaluated(ROWS, [0, 1]).merge(evaluated(ROWS[:, :2], [0, 1]))
    with pytest.raises(ValueError, match="k must be one of"):
        Evaluation().top_k(2)
    with pytest.raises(ValueError, match="per_class"):
        Evaluation().by_class()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"options": {"bins": 0}},
        {"options": {"no": 0}},
        {"total": {}},
        {"classes": "3"},
        {"loss_quantiles": {"bins": [3], "counts": [-1], "nans": 0}},
        {"worst": [{}]},
    ],
)
def test_kept_sums_that_are_damaged(change):
    kept = evaluated(ROWS, [0, 1]).to_dict()
    with pytest.raises(ValueError, match=r"kept|bins"):
        Evaluation.from_dict({**kept, **change})
