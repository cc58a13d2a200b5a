"""When a student has paid for itself: by hand, from the numbers that the estimate shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.gate.items import GateError
from modeltiers.domain.gate.payback import FORMULA, OwnGpus, Prices, SharedGpus, TokenPrice, Traffic, payback

API = TokenPrice(5_000_000, 15_000_000, "USD")
SMALL = OwnGpus(2_000_000, 1, "USD")
TRAFFIC = Traffic(requests=100_000, prompt_tokens=400, answer_tokens=200, share_then=800)


def test_an_api_that_a_small_tier_relieves() -> None:
    found = payback(Prices(API, SMALL), TRAFFIC, 4_000_000_000, "USD")
    # 100,000 x (400 x 5 + 200 x 15) / 1e6 = 500 a day; then 24 x 2 + a fifth of 500: 352
    # saved, 4,000 / 352 = 11.4 days.
    assert found.saved_per_day_micros == 352_000_000
    assert found.days == 12
    assert not found.never
    said = dict(found.inputs)
    assert said["large.inputPrice"] == "5000000 millionths of USD a million tokens"
    assert said["student.gpus"] == "1 accelerators"
    assert found.formula == FORMULA


def test_accelerators_that_follow_the_load() -> None:
    large = SharedGpus(3_000_000, 4_000_000, "USD")
    found = payback(Prices(large, SharedGpus(2_000_000, 40_000_000, "USD")), TRAFFIC, 10_000_000, "USD")
    # 60 million tokens a day at 3 / 4 million = 45; then 3 + a fifth of 45 = 12: 33 saved.
    assert found.saved_per_day_micros == 33_000_000
    assert found.days == 1


def test_a_small_tier_that_is_there_already() -> None:
    traffic = Traffic(100_000, 400, 200, share_then=800, share_now=700)
    found = payback(Prices(API, SMALL, small_now=SMALL), traffic, 100_000_000, "USD")
    assert found.saved_per_day_micros == 50_000_000  # a tenth of 500
    assert found.days == 2


def test_what_costs_more_than_it_saves_never_pays() -> None:
    found = payback(Prices(API, OwnGpus(2_000_000, 8, "USD")), Traffic(10_000, 400, 200, 800), 1, "USD")
    assert found.never
    assert found.days is None
    assert found.saved_per_day_micros == 40_000_000 - 384_000_000
    assert payback(Prices(API, SMALL), Traffic(0, 0, 0, 0), 0, "USD").never


def test_what_costs_nothing_pays_at_once() -> None:
    assert payback(Prices(API, SMALL), TRAFFIC, 0, "USD").days == 0


@pytest.mark.parametrize(
    ("prices", "traffic", "said"),
    [
        (Prices(None, SMALL), TRAFFIC, "the large tier has no price; set its spec.price"),
        (Prices(API, None), TRAFFIC, "the student tier has no price"),
        (Prices(API, SMALL), Traffic(1, 1, 1, 800, share_now=1), "the smallNow tier has no price"),
        (Prices(API, SharedGpus(1, 0, "USD")), TRAFFIC, "what a GPU hour serves at the student tier is not measured"),
        (Prices(API, OwnGpus(1, 1, "EUR")), TRAFFIC, "charges in EUR, the cost is in USD; give all one currency"),
    ],
)
def test_what_is_not_known_is_unknown(prices: Prices, traffic: Traffic, said: str) -> None:
    found = payback(prices, traffic, 1, "USD")
    assert found.unknown is not None
    assert said in found.unknown
    assert (found.days, found.never, found.saved_per_day_micros) == (None, False, None)


@pytest.mark.parametrize(
    ("traffic", "cost", "said"),
    [
        (Traffic(-1, 1, 1, 800), 1, "requests is -1; it must not be below 0"),
        (Traffic(1, -1, 1, 800), 1, "promptTokens is -1"),
        (Traffic(1, 1, -1, 800), 1, "answerTokens is -1"),
        (TRAFFIC, -1, "cost is -1"),
        (Traffic(1, 1, 1, 1001), 1, "shareThen is 1001; give permille"),
        (Traffic(1, 1, 1, 800, -1), 1, "shareNow is -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(traffic: Traffic, cost: int, said: str) -> None:
    with pytest.raises(GateError, match=said):
        payback(Prices(API, SMALL), traffic, cost, "USD")


counts = st.integers(0, 10**9)


@given(counts, st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 1000), counts, counts)
def test_more_cost_is_never_paid_sooner(
    requests: int, prompt: int, answer: int, share: int, one: int, other: int
) -> None:
    traffic = Traffic(requests, prompt, answer, share)
    cheap, dear = (payback(Prices(API, SMALL), traffic, cost, "USD") for cost in sorted((one, other)))
    assert cheap.never == dear.never
    if cheap.days is not None and dear.days is not None:
        assert cheap.days <= dear.days


def test_the_formula_names_its_inputs() -> None:
    assert len(FORMULA) <= 1024
    traffic = Traffic(1, 1, 1, 1, 1)
    for prices in (Prices(API, SMALL, SharedGpus(1, 1, "USD")), Prices(SharedGpus(1, 1, "USD"), API, SMALL)):
        for name, _ in payback(prices, traffic, 1, "USD").inputs:
            assert name.rpartition(".")[2] in FORMULA
