"""The fusion: continuous, monotone in every sign, and silent where nothing was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing.answer import Answer, Logs
from modeltiers.domain.routing.confidence import (
    Signals,
    confidence_log_odds,
    fused,
    hopeless,
    quantile,
    signals,
)
from modeltiers.domain.routing.table import Confidence

logprob = st.floats(-20, 0)
margin = st.floats(-20, 20)
entropy = st.floats(0, 20)
permille = st.integers(1, 999)
weights = st.lists(st.integers(0, 1000), max_size=4)


@given(st.lists(logprob, min_size=1, max_size=50), st.integers(0, 1000))
def test_the_quantile_is_one_of_the_values_with_the_right_share_below(values: list[float], share: int) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value < found for value in values) <= (len(values) - 1) * share // 1000


@given(permille, logprob, logprob, margin, margin, entropy, entropy, weights)
def test_more_of_any_good_sign_never_lowers_the_probability(
    prior: int, q1: float, q2: float, m1: float, m2: float, e1: float, e2: float, failed: list[int]
) -> None:
    worse = Signals(9, min(q1, q2), min(m1, m2), max(e1, e2))
    better = Signals(9, max(q1, q2), max(m1, m2), min(e1, e2))
    assert fused(prior, worse, failed) <= fused(prior, better, failed)


@given(permille, permille, logprob, weights, st.integers(0, 1000))
def test_a_failed_check_never_raises_the_probability_and_a_higher_prior_never_lowers_it(
    one: int, other: int, q: float, failed: list[int], more: int
) -> None:
    found = Signals(9, q)
    assert fused(one, found, [*failed, more]) <= fused(one, found, failed)
    assert fused(min(one, other), found, failed) <= fused(max(one, other), found, failed)


@given(permille, logprob, margin, entropy, weights, st.floats(0, 1e-3))
def test_a_small_change_of_a_sign_changes_the_probability_little(
    prior: int, q: float, m: float, e: float, failed: list[int], step: float
) -> None:
    here = fused(prior, Signals(9, q, m, e), failed)
    there = fused(prior, Signals(9, q + step, m + step, e + step), failed)
    assert abs(here - there) <= step + 2e-6


def test_the_score_does_not_collapse_into_classes() -> None:
    found = {fused(800, Signals(9, -step / 100), []) for step in range(400)}
    assert len(found) > 350


def test_nothing_seen_is_the_prior() -> None:
    assert fused(800, None, []) == 0.8
    assert fused(800, None, [1000]) == 0.0
    assert fused(800, None, [500]) == pytest.approx(2 / 3, abs=1e-6)


@given(permille, st.one_of(st.none(), logprob), weights)
def test_the_probability_is_a_probability_with_six_decimals(prior: int, q: float | None, failed: list[int]) -> None:
    found = fused(prior, None if q is None else Signals(3, q), failed)
    assert 0 <= found <= 1
    assert round(found, 6) == found


def logs(*values: float) -> Logs:
    return Logs(list(values), [value + 3 for value in values], [-value for value in values])


def test_no_logprobs_are_no_signals_and_not_zeros() -> None:
    assert signals(Confidence(), Answer(text="x", tokens=1)) is None
    assert signals(Confidence(), Answer(text="x", logs=Logs([], [], [], unknown=3))) is None


def test_without_alternatives_margin_and_entropy_add_nothing() -> None:
    found = signals(Confidence(top=0), Answer(logs=Logs([-1.0, -2.0], [], [])))
    assert found == Signals(2, -2.0)
    assert confidence_log_odds(Signals(2, -1.2)) == 0.0


def test_the_thinking_counts_only_when_the_policy_says_so() -> None:
    answer = Answer(logs=logs(-0.1, -0.2), thinking=logs(-5.0))
    alone, both = signals(Confidence(), answer), signals(Confidence(thinking=True), answer)
    assert alone is not None
    assert both is not None
    assert (alone.scored, alone.quantile, alone.thinking) == (2, -0.2, False)
    assert (both.scored, both.quantile, both.thinking) == (3, -5.0, True)
    assert answer.logs.logprobs == [-0.1, -0.2]  # what is live is not touched


def test_one_guess_in_a_sure_answer_shows_in_the_quantile() -> None:
    answer = Answer(logs=logs(*[-0.01] * 8, -6.0))
    low, middle = (signals(Confidence(quantile_permille=share), answer) for share in (100, 500))
    assert low is not None
    assert middle is not None
    assert (low.quantile, middle.quantile) == (-6.0, -0.01)


@given(st.floats(0, 1), st.integers(0, 1000), st.integers(0, 5000), st.integers(0, 5000))
def test_more_tokens_never_make_a_lost_answer_hopeful(probability: float, threshold: int, one: int, more: int) -> None:
    if hopeless(probability, threshold, one):
        assert hopeless(probability, threshold, one + more)
        assert probability * 1000 < threshold


def test_an_answer_is_not_given_up_for_a_few_bad_tokens_or_by_a_hair() -> None:
    assert not hopeless(0.001, 600, 11)
    assert hopeless(0.001, 600, 12)
    assert not hopeless(0.55, 600, 24)
    assert hopeless(0.55, 600, 100_000)
    assert not hopeless(0.0, 0, 1000)
    assert not hopeless(0.9, 1000, 1000)
