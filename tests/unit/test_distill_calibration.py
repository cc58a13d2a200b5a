"""The acceptance threshold: what is promised holds, and nothing is promised that cannot be shown."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from modeltiers.domain.distill.calibration import Judged, binomial_below, calibrate, probability_of, upper_bound


@given(st.integers(1, 400), st.data(), st.floats(0.001, 0.5))
def test_the_binomial_is_scipys(n: int, data: st.DataObject, p: float) -> None:
    k = data.draw(st.integers(0, n))
    assert binomial_below(n, k, p) == pytest.approx(binom.cdf(k, n, p), abs=1e-9)


@given(st.integers(1, 400), st.data())
def test_the_bound_is_clopper_and_pearsons(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n - 1))
    assert upper_bound(n, k, 0.05) == pytest.approx(beta.ppf(0.95, k + 1, n - k), abs=1e-6)


def test_too_few_answers_promise_nothing() -> None:
    found = calibrate([Judged(990, right=True)] * 58, 50, 950)
    assert (found.threshold, found.accepted, found.upper) == (None, 0, None)
    assert calibrate([Judged(990, right=True)] * 59, 50, 950).threshold == 0


def test_unsure_answers_that_are_wrong_are_left_out() -> None:
    sure = [Judged(900, right=True)] * 200
    unsure = [Judged(400, right=number % 2 == 0) for number in range(200)]
    found = calibrate(sure + unsure, 50, 950)
    assert found.threshold is not None
    assert 400 < found.threshold <= 900
    assert (found.accepted, found.wrong) == (200, 0)
    assert found.upper is not None
    assert found.upper <= 50


def test_a_student_that_is_sure_and_wrong_gets_no_threshold() -> None:
    assert calibrate([Judged(950, right=number % 4 > 0) for number in range(400)], 50, 950).threshold is None


def test_the_promise_is_broken_no_more_often_than_it_says() -> None:
    """Answers whose chance to be right is what they say: the true share of wrong ones above the threshold is known."""
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    broken, drawn = 0, 400
    for _ in range(drawn):
        chances = [dice.choice((500, 800, 900, 940, 960, 990)) for _ in range(300)]
        found = calibrate([Judged(one, right=dice.random() * 1000 < one) for one in chances], 50, 950)
        if found.threshold is not None:
            taken = [one for one in (500, 800, 900, 940, 960, 990) if one >= found.threshold]
            broken += sum(1000 - one for one in taken) / len(taken) > 50
    assert broken / drawn <= 0.05 + 2 * (0.05 * 0.95 / drawn) ** 0.5


def test_confidence_is_the_routers() -> None:
    def of(logprob: float) -> int | None:
        tokens = [{"token": "5", "logprob": logprob, "top": [["5", logprob], ["6", -3.0]]}]
        return probability_of({"role": "assistant", "content": "5"}, tokens)

    sure, unsure = of(-0.01), of(-2.5)
    assert sure is not None
    assert unsure is not None
    assert sure > unsure
    assert probability_of({"role": "assistant", "content": "5"}, None) is None
