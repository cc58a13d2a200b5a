"""What requests cost: each figure can be worked out again by hand from what the status says, and unknown is unknown."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.routingpolicy_status import PolicyCost
from modeltiers.domain.policy_cost import FORMULA, TierMoney, cost_of

SMALL = TierMoney("small", gpu_hour=2_000_000, currency="USD")
LARGE = TierMoney("large", gpu_hour=3_000_000, currency="USD")
API = TierMoney("api", external=True, tokens=(5_000_000, 15_000_000), currency="USD")
COUNTS = {
    ("answered", "small"): 900,
    ("answered", "large"): 100,
    ("prompt", "small"): 400_000,
    ("completion", "small"): 200_000,
    ("prompt", "large"): 40_000,
    ("completion", "large"): 20_000,
    ("answerPrompt", "small"): 360_000,
    ("answerCompletion", "small"): 180_000,
    ("answerPrompt", "large"): 40_000,
    ("answerCompletion", "large"): 20_000,
    ("gpuMillis", "small"): 3_600_000,
    ("gpuMillis", "large"): 4 * 3_600_000,
    ("served", "small"): 600_000,
    ("served", "large"): 120_000,
}


def by_hand(cost: dict[str, Any], ladder: list[str]) -> tuple[int, int | None]:
    """The two figures, worked out from the inputs of a status by the formula in it."""
    said = {item["name"]: Fraction(item["value"].split()[0]) for item in cost["inputs"]}
    parts = Fraction()
    for tier in ladder:
        if f"{tier}.inputPrice" in said:
            parts += (
                said[f"{tier}.promptTokens"] * said[f"{tier}.inputPrice"]
                + said[f"{tier}.completionTokens"] * said[f"{tier}.outputPrice"]
            ) / 1_000_000
        elif f"{tier}.gpuSeconds" in said:
            share = (
                said[f"{tier}.tokens"] / said[f"{tier}.allTokens"]
                if said[f"{tier}.allTokens"]
                else 1 / said[f"{tier}.policies"]
            )
            parts += said[f"{tier}.gpuSeconds"] / 3600 * said[f"{tier}.gpuHourPrice"] * share
    last = ladder[-1]
    alone: Fraction | None = None
    if f"{last}.inputPrice" in said:
        alone = (
            said["answerPromptTokens"] * said[f"{last}.inputPrice"]
            + said["answerCompletionTokens"] * said[f"{last}.outputPrice"]
        ) / 1_000_000
    elif said[f"{last}.allTokens"] >= 10_000:
        tokens = said["answerPromptTokens"] + said["answerCompletionTokens"]
        alone = tokens * said[f"{last}.gpuSeconds"] / 3600 * said[f"{last}.gpuHourPrice"] / said[f"{last}.allTokens"]
    requests = said["requests"]
    return round(1000 * parts / requests), None if alone is None else round(1000 * alone / requests)


def test_a_day_at_the_office() -> None:
    cost = cost_of(COUNTS, [SMALL, LARGE], partial=False)
    assert PolicyCost.model_validate(cost).currency == "USD"
    # small: 1 h x 2.00; large: 4 h x 3.00, of which half the tokens are this policy's: 2 + 6 = 8 for 1,000 requests.
    assert cost["perThousandMicros"] == 8_000_000
    # 600,000 tokens of answers at 12.00 / 120,000 tokens each.
    assert cost["allLargePerThousandMicros"] == 60_000_000
    assert cost["savedPermille"] == 867
    assert "unknown" not in cost
    assert by_hand(cost, ["small", "large"]) == (8_000_000, 60_000_000)
    assert {"name": "large.gpuSeconds", "value": "14400.000 seconds of one accelerator"} in cost["inputs"]


def test_an_external_tier_costs_its_tokens() -> None:
    counts = {label: count for label, count in COUNTS.items() if label[1] != "large"}
    counts |= {("prompt", "api"): 40_000, ("completion", "api"): 20_000, ("answered", "api"): 100}
    counts |= {("answerPrompt", "api"): 40_000, ("answerCompletion", "api"): 20_000}
    cost = cost_of(counts, [SMALL, API], partial=False)
    assert cost["perThousandMicros"] == 2_000_000 + 200_000 + 300_000
    assert cost["allLargePerThousandMicros"] == 2_000_000 + 3_000_000
    assert cost["savedPermille"] == 500


def test_a_tier_that_nobody_used_is_paid_for_in_equal_parts() -> None:
    counts = {**COUNTS, ("served", "small"): 0, ("prompt", "small"): 0, ("completion", "small"): 0}
    cost = cost_of(counts, [SMALL.shared_by(4), LARGE], partial=False)
    assert cost["perThousandMicros"] == 500_000 + 6_000_000
    assert by_hand(cost, ["small", "large"])[0] == 6_500_000


def test_more_than_all_large_is_said_as_less_than_nothing_saved() -> None:
    cost = cost_of({**COUNTS, ("gpuMillis", "small"): 360_000_000}, [SMALL, LARGE], partial=False)
    assert cost["savedPermille"] < 0


@pytest.mark.parametrize(
    ("counts", "ladder", "partial", "said"),
    [
        ({**COUNTS, ("answered", "small"): 9, ("answered", "large"): 0}, [SMALL, LARGE], False, "fewer than 100"),
        ({}, [SMALL, LARGE], False, "fewer than 100"),
        (COUNTS, [SMALL, LARGE], True, "let the operator reach"),
        ({**COUNTS, ("unmetered", ""): 51}, [SMALL, LARGE], False, "over 5% of the answers"),
        (COUNTS, [SMALL, TierMoney("large")], False, "ModelTier large has no price; set spec.price"),
        (COUNTS, [SMALL, TierMoney("large", external=True)], False, "set spec.external.price"),
        (COUNTS, [SMALL, TierMoney("large", gpu_hour=1, currency="EUR")], False, "EUR and USD"),
    ],
)
def test_what_is_not_known_is_unknown_with_the_way_out(
    counts: Any, ladder: list[TierMoney], partial: bool, said: str
) -> None:
    cost = cost_of(counts, ladder, partial=partial)
    assert said in cost["unknown"]
    assert cost.keys() == {"formula", "unknown"}
    PolicyCost.model_validate(cost)


@pytest.mark.parametrize("label", [("served", "large"), ("gpuMillis", "large")])
def test_all_large_is_unknown_until_it_was_measured(label: tuple[str, str]) -> None:
    counts = {**COUNTS, label: 0, ("prompt", "large"): 0, ("completion", "large"): 0}
    cost = cost_of(counts, [SMALL, LARGE], partial=False)
    assert cost["unknown"].startswith("all-large: ModelTier large served fewer than 10000 tokens")
    assert cost["perThousandMicros"] > 0
    assert "allLargePerThousandMicros" not in cost
    assert "savedPermille" not in cost
    PolicyCost.model_validate(cost)


def test_a_tier_that_did_nothing_needs_no_price() -> None:
    idle = TierMoney("middle")
    assert cost_of(COUNTS, [SMALL, idle, LARGE], partial=False)["perThousandMicros"] == 8_000_000


def test_prices_are_those_of_the_tier() -> None:
    model = {"source": "hf://a/b"}
    accelerators = [{"name": "h100", "product": "H100"}]
    spec = ModelTierSpec.model_validate({"model": model, "accelerators": accelerators, "price": {"gpuHourMicros": 7}})
    assert TierMoney.of("t", spec) == TierMoney("t", gpu_hour=7, currency="USD")
    price = {"inputPerMillionMicros": 1, "outputPerMillionMicros": 2, "currency": "EUR"}
    external = {"baseUrl": "https://api.example.com/v1", "model": "m", "price": price}
    found = TierMoney.of("t", ModelTierSpec.model_validate({"external": external}))
    assert found == TierMoney("t", external=True, tokens=(1, 2), currency="EUR")
    del external["price"]
    found = TierMoney.of("t", ModelTierSpec.model_validate({"external": external}))
    assert found == TierMoney("t", external=True)
    assert TierMoney.of("t", None) == TierMoney("t")


def test_the_formula_fits_and_names_its_inputs() -> None:
    assert len(FORMULA) <= 1024
    both = [*cost_of(COUNTS, [SMALL, LARGE], partial=False)["inputs"]]
    both += cost_of({**COUNTS, ("served", "small"): 0}, [SMALL, API], partial=False)["inputs"]
    for item in both:
        assert item["name"].rpartition(".")[2] in FORMULA


numbers = st.integers(0, 10**9)


@st.composite
def worlds(draw: Any) -> tuple[dict[tuple[str, str], int], list[TierMoney]]:
    ladder, counts = [], {}
    for place in range(draw(st.integers(1, 4))):
        name = f"t{place}"
        counts["answered", name] = draw(st.integers(100, 10**6))
        for kind in ("prompt", "completion"):
            answers = counts["answer" + kind.title(), name] = draw(numbers)
            counts[kind, name] = answers + draw(numbers)
        if draw(st.booleans()):
            tokens = draw(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)))
            ladder.append(TierMoney(name, external=True, tokens=tokens, currency="USD"))
            continue
        ladder.append(
            TierMoney(name, gpu_hour=draw(st.integers(0, 10**8)), currency="USD", policies=draw(st.integers(1, 9)))
        )
        counts["gpuMillis", name] = draw(st.integers(0, 10**10))
        counts["served", name] = counts["prompt", name] + counts["completion", name] + draw(numbers)
    return counts, ladder


@given(worlds())
def test_every_figure_can_be_worked_out_from_the_status_alone(
    world: tuple[dict[tuple[str, str], int], list[TierMoney]],
) -> None:
    counts, ladder = world
    cost = cost_of(counts, ladder, partial=False)
    PolicyCost.model_validate(cost)
    actual, alone = by_hand(cost, [tier.name for tier in ladder])
    assert cost["perThousandMicros"] == actual
    if "allLargePerThousandMicros" in cost:
        assert cost["allLargePerThousandMicros"] == alone
    else:
        assert "unknown" in cost
