"""The sums over decision records: every request once, every attempt's tokens, and nothing that was not there."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing.accept import Verdict
from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.choose import Choice, Load
from modeltiers.domain.routing.record import Attempt, DecisionRecord, Usage
from modeltiers.domain.routing.tally import Tally, TierTokens

TIERS = ("small", "middle", "large")
GOOD, POOR = Verdict(accepted=True, probability=0.9, reason="Confident"), Verdict(False, 0.1, "BelowThreshold")


def record(*attempts: Attempt, final: str | None, reason: Any = "EntryTier", tiers: Any = TIERS) -> DecisionRecord:
    return DecisionRecord(
        format=1,
        id="1",
        time_ms=0,
        policy="support",
        table="t",
        ask=Ask(endpoint="chat", model="support"),
        load=Load((True, True, True)),
        choice=Choice(tiers, reason),
        attempts=attempts,
        final_tier=final,
    )


def counted(*records: DecisionRecord) -> Tally:
    tally = Tally()
    for one in records:
        tally.count(one)
    return tally


def test_an_answer_that_was_thrown_away_costs_and_is_not_among_the_answers() -> None:
    low = Attempt("small", "Escalated", "BelowThreshold", usage=Usage(10, 3), verdict=POOR)
    high = Attempt("middle", "Answered", usage=Usage(10, 7), verdict=GOOD)
    said = counted(record(low, high, final="middle"))
    assert said == Tally(
        answered={"middle": 1},
        judged=2,
        escalated={"BelowThreshold": 1},
        tokens={"small": TierTokens(10, 3), "middle": TierTokens(10, 7, 10, 7)},
    )


def test_a_flagged_answer_was_judged_and_went_nowhere() -> None:
    said = counted(record(Attempt("small", "Answered", usage=Usage(10, 3), verdict=POOR), final="small"))
    assert (said.judged, said.escalated, said.fallbacks) == (1, {}, 0)


def test_a_fallback_is_an_answer_of_another_tier_than_the_one_that_was_wanted() -> None:
    broken = Attempt("small", "Failed", "Timeout")
    again = Attempt("small", "Answered", usage=Usage(1, 1))
    other = Attempt("middle", "Answered", usage=Usage(1, 1))
    assert counted(record(broken, again, final="small")).fallbacks == 0
    assert counted(record(broken, other, final="middle")).fallbacks == 1
    assert counted(record(other, final="middle", tiers=("middle", "large"))).fallbacks == 0
    assert counted(record(other, final="middle", tiers=("middle", "large"), reason="NotReady")).fallbacks == 1
    poor = Attempt("small", "Escalated", "BelowThreshold", verdict=POOR)
    skipped = Attempt("large", "Answered", usage=Usage(1, 1))
    assert counted(record(poor, other, final="middle")).fallbacks == 0
    assert counted(record(poor, skipped, final="large")).fallbacks == 1


def test_answers_without_usage_are_known_as_such() -> None:
    assert counted(record(Attempt("small", "Answered"), final="small")).unmetered == 1
    assert counted(record(Attempt("small", "Failed", "Timeout"), final=None)).unmetered == 0


usages = st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6))
attempts = st.builds(
    Attempt,
    st.sampled_from(TIERS),
    st.sampled_from(["Escalated", "Abandoned", "Failed", "Rejected"]),
    st.sampled_from([None, "BelowThreshold", "Timeout"]),
    usage=usages,
    verdict=st.sampled_from([None, GOOD, POOR]),
)


@st.composite
def records(draw: Any) -> DecisionRecord:
    before = draw(st.lists(attempts, max_size=4))
    final = draw(st.sampled_from([None, *TIERS]))
    if final is not None:
        before.append(Attempt(final, "Answered", usage=draw(usages), verdict=draw(st.sampled_from([None, GOOD]))))
    return record(*before, final=final)


@given(st.lists(records(), max_size=12))
def test_the_sums_are_those_of_the_records_in_any_order(made: list[DecisionRecord]) -> None:
    said = counted(*made)
    assert said == counted(*reversed(made))
    answers = sum(one.final_tier is not None for one in made)
    assert sum(said.answered.values()) == answers
    assert said.fallbacks <= answers
    assert said.unmetered <= answers
    assert sum(said.escalated.values()) <= said.judged
    used = [attempt.usage for one in made for attempt in one.attempts]
    assert sum(one.prompt for one in said.tokens.values()) == sum(one.prompt_tokens for one in used)
    assert sum(one.completion for one in said.tokens.values()) == sum(one.completion_tokens for one in used)
    assert all(
        one.answer_prompt <= one.prompt and one.answer_completion <= one.completion for one in said.tokens.values()
    )
