"""Means and bootstrap intervals against slow loops and against what theory says of known distributions."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.evaluation.statistics import estimate, estimates, nan_mean, per_group, ratio, resamples

numbers = st.one_of(st.just(float("nan")), st.integers(-20, 20).map(float))


def slow_mean(values):
    """Of what is not NaN, by addition."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def slow_percentile(values, percent):
    """Linear between the sorted values, the least being 0 % and the greatest 100 %."""
    values = sorted(values)
    place = percent / 100 * (len(values) - 1)
    below = min(int(place), len(values) - 2)
    return values[below] + (place - below) * (values[below + 1] - values[below])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), numbers)), max_size=8))
def test_a_group_has_the_mean_of_each_number_that_any_of_its_samples_has(samples):
    found = per_group([row for _, row in samples], [group for group, _ in samples])
    expected = {}
    for group, row in samples:
        for name, value in row.items():
            expected.setdefault(group, {}).setdefault(name, []).append(value)
        expected.setdefault(group, {})
    assert list(found) == sorted(expected)
    for group, numbers_of in expected.items():
        assert set(found[group]) == set(numbers_of)
        for name, values in numbers_of.items():
            np.testing.assert_allclose(found[group][name], slow_mean(values))


def test_draws_are_even_over_all_groups_and_follow_the_seed():
    draws = resamples(7, 3000, seed=3)
    assert draws.shape == (3000, 7)
    counts = np.bincount(draws.ravel(), minlength=7)
    assert len(counts) == 7 and np.abs(counts - 3000).max() < 5 * np.sqrt(3000 * 6 / 7)  # five deviations
    assert np.array_equal(draws, resamples(7, 3000, seed=3)) and not np.array_equal(draws, resamples(7, 3000, seed=4))
    assert resamples(0, 5, seed=0).shape == (5, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, max_size=6), st.sampled_from([0.5, 0.8, 0.95, 0.99]), st.integers(0, 100))
def test_an_estimate_is_what_slow_loops_find(values, confidence, seed):
    draws = resamples(len(values), 60, seed)
    found = estimate(np.array(values, np.float64), draws, confidence)
    known = sum(value == value for value in values)
    assert (found.videos, found.left_out) == (known, len(values) - known)
    np.testing.assert_allclose(found.mean, slow_mean(values))
    assert found.has_interval == (known >= 2)
    if known >= 2:
        means = [slow_mean([values[index] for index in draw]) for draw in draws]
        means = [mean for mean in means if mean == mean]  # a draw may hold nothing but NaN
        tail = 50 * (1 - confidence)
        np.testing.assert_allclose(found.low, slow_percentile(means, tail), atol=1e-9)
        np.testing.assert_allclose(found.high, slow_percentile(means, 100 - tail), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 4), st.integers(0, 100), st.data())
def test_estimates_of_a_table_are_those_of_its_columns(groups, columns, seed, data):
    some = st.one_of(numbers, st.just(float("inf")))
    table = np.array([data.draw(some) for _ in range(groups * columns)], np.float64).reshape(groups, columns)
    draws = resamples(groups, 40, seed)
    found = estimates(table, draws, 0.9)
    np.testing.assert_equal([vars(one) for one in found], [vars(estimate(column, draws, 0.9)) for column in table.T])
    for column, one in zip(table.T, found, strict=True):
        if one.has_interval:
            means = [slow_mean([column[index] for index in draw]) for draw in draws]
            means = [mean for mean in means if np.isfinite(mean)]  # one that holds what is infinite says nothing
            np.testing.assert_allclose(one.low, slow_percentile(means, 5) if means else np.nan, atol=1e-9)


@pytest.mark.parametrize("confidence, deviations", [(0.6827, 1.0), (0.9, 1.6449), (0.95, 1.96), (0.99, 2.5758)])
def test_an_interval_is_as_wide_as_theory_says(confidence, deviations):
    """The mean of 400 values is nearly normal; 4000 draws tell its quantiles to within 10 %."""
    values = np.random.default_rng(0).normal(5, 2, size=400)
    found = estimate(values, resamples(400, 4000, seed=1), confidence)
    error = values.std() / 20
    assert (found.mean - found.low) / error == pytest.approx(deviations, rel=0.1)
    assert (found.high - found.mean) / error == pytest.approx(deviations, rel=0.1)


def test_an_interval_is_of_95_percent_unless_asked_otherwise():
    values, draws = np.arange(20.0) ** 2, resamples(20, 500, seed=0)
    assert estimate(values, draws) == estimate(values, draws, 0.95) != estimate(values, draws, 0.9)


def test_the_mean_is_that_of_the_values_not_of_the_draws():
    assert estimate(np.array([1.0, 2.0, 9.0]), np.zeros((5, 3), int)).mean == 4


def test_a_draw_without_a_known_value_says_nothing():
    values = np.array([np.nan, 1.0, 3.0])
    found = estimate(values, np.array([[0, 0, 0], [1, 1, 0], [2, 0, 2], [1, 2, 0]]), 0.5)
    assert (found.mean, found.videos, found.left_out) == (2, 2, 1)
    assert (found.low, found.high) == (1.5, 2.5)  # quartiles of 1, 2, 3


@pytest.mark.parametrize("values, mean", [([], np.nan), ([np.nan], np.nan), ([4.0, np.nan], 4), ([1.0, 2.0], 1.5)])
def test_a_mean_of_nothing_is_nan_without_a_warning(values, mean):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = nan_mean(np.array(values))
        nan_mean(np.full((2, 3), np.nan), axis=1)
    np.testing.assert_equal(found, mean)
    assert not said


positive = st.one_of(st.just(float("nan")), st.just(0.0), st.floats(0.1, 20))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(positive, positive), max_size=6), st.sampled_from([0.5, 0.95]), st.integers(0, 100))
def test_a_ratio_is_what_slow_loops_find(pairs, confidence, seed):
    draws = resamples(len(pairs), 60, seed)
    above, below = (np.array([pair[k] for pair in pairs], np.float64) for k in (0, 1))
    found = ratio(above, below, draws, confidence)
    known = [(a, b) for a, b in pairs if a > 0 and b > 0]
    assert found.pooled.videos == found.geometric.videos == len(known)
    if not known:
        assert np.isnan(found.pooled.mean) and found.worst[1] == -1
        return
    assert found.pooled.mean == pytest.approx(sum(a for a, _ in known) / sum(b for _, b in known))
    assert found.geometric.mean == pytest.approx(np.prod([a / b for a, b in known]) ** (1 / len(known)))
    assert found.worst[0] == pytest.approx(max(a / b for a, b in known))
    assert above[found.worst[1]] / below[found.worst[1]] == pytest.approx(found.worst[0])
    if len(known) >= 2:
        drawn = []
        for draw in draws:
            taken = [pairs[i] for i in draw if pairs[i][0] > 0 and pairs[i][1] > 0]
            drawn += [sum(a for a, _ in taken) / sum(b for _, b in taken)] if taken else []
        tail = (1 - confidence) / 2 * 100
        assert found.pooled.low == pytest.approx(slow_percentile(drawn, tail))
        assert found.pooled.high == pytest.approx(slow_percentile(drawn, 100 - tail))


def test_twice_the_error_everywhere_is_a_ratio_of_two_without_doubt():
    below = np.array([1.0, 5.0, 0.2, 30.0])
    found = ratio(2 * below, below, resamples(4, 500, seed=0), 0.95)
    for part in (found.pooled, found.geometric):
        assert (part.mean, part.low, part.high) == pytest.approx((2, 2, 2))
