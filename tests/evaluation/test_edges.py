"""Where measures could be wrong in silence: NaN, bytes of some rows, mixed labels, changed sums."""

import copy
import math

import numpy as np
import pandas as pd
import pytest

from crossent.evaluation import Evaluation, evaluate

EVEN = np.zeros((2, 2))


def evaluated(logits, target, options=None, **arguments):
    evaluation = Evaluation(**(options or {}))
    evaluation.update(logits, target, **arguments)
    return evaluation


@pytest.mark.parametrize("k", [1, 3, 4, 5, 100])
def test_a_nan_is_a_miss_among_any_number_of_classes(k):
    got = evaluated([[np.nan, 0, 1], [0, 0, 9.0]], [0, 2], {"top_k": (k,)})
    assert got.top_k(k) == 0.5
    assert math.isnan(got.cross_entropy)


# Probabilities


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_the_baseline_must_be_of_the_kind(kind):
    even = np.full((2, 2), 0.5)
    wrong = np.array([[0.5, 0.5], [3.0, 90.0]])
    if kind == "log_probabilities":
        even, wrong = np.log(even), np.log(wrong)
    with pytest.raises(ValueError, match=r"baseline must hold probabilities: those of row 1 .* 93"):
        evaluated(even, [0, 1], {"kind": kind}, baseline=wrong)
    assert evaluated(even, [0, -100], {"kind": kind}, baseline=wrong).kl_divergence == 0


def test_rows_that_do_not_count_may_hold_anything():
    rows = np.array([[0.5, 0.5], [-1.0, -1.0]])
    options = {"kind": "probabilities"}
    want = evaluated(rows[:1], [0], options).cross_entropy
    assert evaluated(rows, [0, -100], options).cross_entropy == want
    assert evaluated(rows, [0, 1], options, sample_weight=[1.0, 0.0]).cross_entropy == want
    assert evaluated(rows.T, [0, -100], options, axis=0, baseline=rows.T).cross_entropy == want
    with pytest.raises(ValueError, match="input must not have negative probabilities"):
        evaluated(rows, [0, 1], options)
    with pytest.raises(ValueError, match="baseline must not have negative probabilities"):
        evaluated(np.full((2, 2), 0.5), [0, 1], options, baseline=rows)


# Bytes


def test_bits_per_byte_is_of_the_rows_with_bytes():
    """Each row of even logits has 1 bit."""
    got = evaluated(EVEN, [0, 1], {"per_class": True}, byte_count=[1, 3], group=[0, 1])
    got.update(EVEN, [0, 1], group=[0, 1])
    assert got.bits_per_byte == 0.5
    assert got.by_group()["bits_per_byte"].tolist() == [1, 1 / 3]
    assert got.by_class()["bits_per_byte"].tolist() == [1, 1 / 3]
    got.update(EVEN, [0, 1], group=[0, 1], byte_count=12)
    assert got.bits_per_byte == 0.25
    # A number for all is of no group.
    assert got.by_group()["bits_per_byte"].tolist() == [1, 1 / 3]
    assert Evaluation.from_dict(got.to_dict()) == got


def test_bytes_of_all_count_with_every_slice():
    logits, target = np.zeros((10, 2)), np.zeros(10, int)
    for byte_count in (5, np.int64(5), np.array(5)):
        assert evaluate(logits, target, byte_count=byte_count, batch_rows=3).bits_per_byte == 2


@pytest.mark.parametrize(
    "byte_count, weight, error",
    [
        (-5, None, "byte_count must not be negative"),
        (5.0, None, "byte_count must be integers, got float64"),
        (5, np.ones(10), "byte_count must have target's shape where there is a sample_weight"),
    ],
)
def test_bytes_are_refused_before_anything_is_read(byte_count, weight, error):
    seen = []
    with pytest.raises((TypeError, ValueError), match=f"^{error}"):
        evaluate(
            np.zeros((10, 2)),
            np.zeros(10, int),
            byte_count=byte_count,
            sample_weight=weight,
            batch_rows=3,
            on_batch=lambda _, position: seen.append(position),
        )
    assert seen == []


def test_weighted_bytes_are_not_cut_off():
    some = evaluated(EVEN, [0, 1], byte_count=[1, 1], sample_weight=[0.25, 0.5])
    assert some.summary()["bytes"] == 0.75
    many = evaluated(EVEN, [0, 1], byte_count=[100, 0], sample_weight=[1e307, 1.0])
    assert many.summary()["bytes"] == math.inf
    whole = evaluated(EVEN, [0, 1], byte_count=[1, 2]).summary()["bytes"]
    assert (whole, type(whole)) == (3, int)


# Names


@pytest.mark.parametrize(
    "first, second, want",
    [
        ([1, 2], ["1", "a"], [1, 2, "1", "a"]),
        (np.array([2**64 - 1, 5], np.uint64), [-1, 5], [-1, 5, 2**64 - 1]),
        (np.array([2**63, 5], np.uint64), [-1, 5], [-1, 5, 2**63]),
        ([2, 1], [3, 1], [1, 2, 3]),
    ],
)
def test_labels_stay_what_they_are(first, second, want):
    got = evaluated(EVEN, [0, 1], group=first)
    got.update(EVEN, [0, 1], group=second)
    labels = got.by_group()["label"].tolist()
    assert labels == want
    assert [type(each) for each in labels] == [type(each) for each in want]
    assert Evaluation.from_dict(got.to_dict()) == got


@pytest.mark.parametrize("make", [list, pd.Series, lambda names: np.array(names, object)])
def test_labels_may_be_python_strings(make):
    names = ["prose", "code\0", "code"] * 2
    logits, target = np.zeros((6, 2)), np.zeros(6, int)
    got = evaluated(logits, target, group=make(names))
    want = ["code", "prose"] if make is list else ["code", "code\0", "prose"]
    assert got.by_group()["label"].tolist() == want
    assert evaluate(logits, target, group=make(names), batch_rows=2) == got
    assert Evaluation.from_dict(got.to_dict()) == got


def test_objects_that_are_no_labels():
    with pytest.raises(TypeError, match=r"integers or strings: group\[1\] = nan among objects"):
        evaluated(EVEN, [0, 1], group=np.array(["a", np.nan], object))


def test_quantiles_have_names_of_their_own():
    got = evaluated(EVEN, [0, 1]).summary([0.9999999, 1, 0.5])["loss_quantiles"]
    assert list(got) == ["0.9999999", "1", "0.5"]


def test_a_sure_row_has_the_log_probability_zero():
    token = evaluated([[0.0, 1000.0]], [1], {"worst": 1}).worst_tokens()[0]
    assert math.copysign(1, token.log_prob) == 1


# Sums that contradict one another


def kept_sums(rng):
    evaluation = Evaluation(worst=2, per_class=True)
    logits, target = rng.standard_normal((9, 3)), np.arange(9) % 3
    weight = rng.uniform(0, 3, 9)
    evaluation.update(logits, target, group=target % 2, sample_weight=weight)
    kept = evaluation.to_dict()
    assert Evaluation.from_dict(kept) == evaluation
    return copy.deepcopy(kept)


def seen(kept):
    kept["seen"] = 0


def no_loss(kept):
    kept["total"]["loss"] = {"digits": {}}


def more_worst(kept):
    kept["worst"] *= 9


def worst_in_disorder(kept):
    kept["worst"].reverse()


def worst_of_no_class(kept):
    kept["worst"][0]["target"] = 3


def no_classes(kept):
    kept["by_class"] = None


def other_classes(kept):
    kept["by_class"]["entropy"] = {"digits": {}}


def other_bins(kept):
    kept["calibration"]["top1"] = {"digits": {}}


def other_rows(kept):
    kept["total"]["rows"] = {"digits": {"0": [8]}}


def twice_a_group(kept):
    kept["groups"]["labels"][1] = kept["groups"]["labels"][0]


def strange_group(kept):
    kept["groups"]["labels"][1] = 1.5


def large_groups(kept):
    kept["groups"]["cells"]["rows"] = {"digits": {"0": [8, 8]}}


CHANGES = [seen, no_loss, more_worst, worst_in_disorder, worst_of_no_class, no_classes,
           other_classes, other_bins, other_rows, twice_a_group, strange_group,
           large_groups]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_sums_that_contradict_one_another(rng, change):
    kept = kept_sums(rng)
    change(kept)
    with pytest.raises(ValueError, match="kept is damaged"):
        Evaluation.from_dict(kept)


@pytest.mark.parametrize("scale", [1e-320, 1e-160, 1.0, 1e300])
def test_sums_of_any_size_are_no_contradiction(rng, scale):
    logits = scale * rng.standard_normal((50, 4))
    logits[0] = np.nan if scale == 1 else logits[0]
    made = evaluated(logits, rng.integers(0, 4, 50), {"per_class": True, "worst": 60},
                     sample_weight=rng.uniform(0, 1e-200, 50))  # fmt: skip
    assert Evaluation.from_dict(made.to_dict()) == made
