"""What is counted over many sequences: intervals, tests, calibration and confusion, against known values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from flowlib.tasks.action.metrics import (
    METRICS,
    SHARES,
    ActionAnswer,
    ActionCase,
    calibration_error,
    class_accuracy,
    confusion,
    mcnemar,
    series_of,
    wilson,
)


def answer(logits, action: int = 0, partners: bool = True) -> ActionAnswer:
    logits = np.asarray(logits, float)
    return ActionAnswer(logits, ActionCase("a", torch.zeros(len(logits), 3), action, partners))


@given(count=st.integers(1, 600), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilsons_interval_is_the_one_of_scipy_and_holds_the_share(count, share, confidence):
    right = round(share * count)
    low, high = wilson(right, count, confidence)
    known = binomtest(right, count).proportion_ci(confidence, method="wilson")
    assert low == pytest.approx(known.low, abs=1e-9) and high == pytest.approx(known.high, abs=1e-9)
    assert -1e-12 <= low <= right / count <= high <= 1 + 1e-12


@given(first=st.lists(st.booleans(), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_mcnemar_counts_only_where_two_differ(first, seed):
    one = np.array(first)
    other = np.random.default_rng(seed).random(len(one)) < 0.5
    ahead, behind, p = mcnemar(one, other)
    assert ahead - behind == one.sum() - other.sum() and 0 < p <= 1
    assert mcnemar(other, one) == (behind, ahead, pytest.approx(p))
    both = np.concatenate([one, np.ones(50, bool)]), np.concatenate([other, np.ones(50, bool)])
    assert mcnemar(*both) == (ahead, behind, p)
    assert mcnemar(one, one) == (0, 0, 1.0)


@given(seed=st.integers(0, 99), K=st.integers(2, 9), count=st.integers(1, 80))
def test_a_confusion_matrix_counts_every_sequence_once(seed, K, count):
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, K, (2, count))
    counts = confusion(truth, guess, K)
    assert counts.sum() == count and np.trace(counts) == (truth == guess).sum()
    assert (counts.sum(axis=1) == np.bincount(truth, minlength=K)).all()
    rows = counts.sum(axis=1) > 0
    assert class_accuracy(truth, guess) == pytest.approx((np.diag(counts)[rows] / counts.sum(axis=1)[rows]).mean())


def test_sureness_that_is_deserved_has_no_calibration_error():
    confidence = np.repeat([0.25, 0.75], [40, 40])
    right = np.arange(80) % 40 < np.repeat([10, 30], 40)
    assert calibration_error(confidence, right) == pytest.approx(0)
    assert calibration_error(confidence, ~right) == pytest.approx(0.5)
    assert calibration_error(np.ones(4), np.zeros(4, bool)) == 1


@given(seed=st.integers(0, 99), K=st.sampled_from([4, 6, 12]), S=st.integers(1, 30), scale=st.floats(0.1, 50))
def test_numbers_of_a_sequence_follow_its_last_row(seed, K, S, scale):
    rng = np.random.default_rng(seed)
    logits, action = scale * rng.normal(size=(S, K)), int(rng.integers(K))
    one = answer(logits, action)
    found = {metric.name: metric.function(one) for metric in METRICS}
    last = logits[-1]
    rank = int((last > last[action]).sum())
    assert found["top1"] == (rank == 0) and found["top3"] == (rank < 3) and found["frames"] == S
    assert found["family"] == (last.argmax() // 2 == action // 2) and found["partner"] == (
        last[action] > last[action ^ 1]
    )
    probabilities = torch.from_numpy(last).softmax(dim=0)
    assert found["nll"] == pytest.approx(float(-probabilities.clamp(min=1e-300).log()[action]), abs=1e-6)
    assert found["confidence"] == pytest.approx(float(probabilities.max())) and found["guess"] == last.argmax()
    observed = series_of(tuple(map(str, range(K))))[0].function(one)
    assert set(observed) == set(SHARES) and observed[100] == found["top1"]
    seen = logits[max(1, -(-30 * S // 100)) - 1]
    assert observed[30] == (seen.argmax() == action)


def test_equal_logits_are_a_guess():
    one = answer(np.zeros((5, 4)), 2)
    found = {metric.name: metric.function(one) for metric in METRICS}
    assert found["top1"] == 0 and found["guess"] == 0 and found["partner"] == 0.5
    assert found["nll"] == pytest.approx(np.log(4))


def test_partners_are_measured_where_there_are_any():
    assert answer(np.zeros((1, 4))).available == {"partners"} and not answer(np.zeros((1, 4)), partners=False).available
    assert [metric.name for metric in METRICS if metric.needs] == ["family", "partner"]
