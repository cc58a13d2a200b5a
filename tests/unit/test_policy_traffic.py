"""What is counted of a policy: never twice, never negative, never more than the routers counted."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.routingpolicy_status import TrafficStatus
from modeltiers.domain.policy_traffic import Reading, Window, due, permille, readings, traffic_of
from modeltiers.domain.routing.tally import Tally, TierTokens

JUDGED = ("judged", "")


def reading(judged: int, seconds: float, start: str = "s1") -> Reading:
    return Reading("support", start, seconds, {JUDGED: judged})


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_tally_is_read_as_it_is_written() -> None:
    tally = Tally({"small": 3}, 2, {"Empty": 1}, 1, 0, {"small": TierTokens(10, 20, 5, 6)})
    entry = {"policy": "support", "start": "ab12", "seconds": 3.5, **msgspec.to_builtins(tally)}
    assert readings({"counters": [entry]}) == [
        Reading(
            "support",
            "ab12",
            3.5,
            {
                JUDGED: 2,
                ("fallbacks", ""): 1,
                ("unmetered", ""): 0,
                ("answered", "small"): 3,
                ("escalated", "Empty"): 1,
                ("prompt", "small"): 10,
                ("completion", "small"): 20,
                ("answerPrompt", "small"): 5,
                ("answerCompletion", "small"): 6,
            },
        )
    ]


@pytest.mark.parametrize(
    "odd",
    [
        7,
        {},
        {"policy": 1, "start": "a", "seconds": 1},
        {"policy": "p", "start": "", "seconds": 1},
        {"policy": "p", "start": "a" * 65, "seconds": 1},
        {"policy": "p", "start": "a", "seconds": -1},
        {"policy": "p", "start": "a", "seconds": True},
        {"policy": "p", "start": "a", "seconds": float("nan")},
        {"policy": "p", "start": "a", "seconds": float("inf")},
    ],
)
def test_an_odd_entry_is_left_out(odd: Any) -> None:
    assert readings({"counters": [odd]}) == []
    assert readings({"counters": odd}) == []
    assert readings({}) == []


def test_odd_numbers_and_names_are_left_out() -> None:
    entry = {
        "policy": "p",
        "start": "a",
        "seconds": 1,
        "judged": -1,
        "fallbacks": True,
        "unmetered": 10**16,
        "answered": {"a b": 1, "small": "3", "x" * 64: 1, "large": 2},
        "escalated": [1],
        "tokens": {"small": 7},
    }
    assert readings({"counters": [entry]})[0].counts == {("answered", "large"): 2}
    entry["answered"] = {f"t{number}": 1 for number in range(1000)}
    assert len(readings({"counters": [entry]})[0].counts) == 20


# --- the window -------------------------------------------------------------------------------------------------------


def test_of_a_start_that_was_seen_all_counts_and_of_an_older_one_only_what_comes() -> None:
    window = Window(began=1000.0)
    assert window.take(reading(5, 10), 1020.0, 1020.0) == {JUDGED: 5}
    assert window.take(reading(500, 9999, "old"), 1020.0, 1020.0) == {}
    assert window.take(reading(7, 40), 1050.0, 1050.0) == {JUDGED: 2}
    assert window.take(reading(503, 10_029, "old"), 1050.0, 1050.0) == {JUDGED: 3}
    assert window.sums(1050.0) == {JUDGED: 10}
    assert window.since(1050.0) == 1000.0


def test_a_restart_begins_at_zero_and_what_nobody_read_is_lost() -> None:
    window = Window(began=1000.0)
    window.take(reading(100, 10, "a"), 1030.0, 1030.0)
    # It went on to 120, died, and began anew: nothing negative, and the 20 are not invented.
    assert window.take(reading(3, 5, "b"), 1060.0, 1060.0) == {JUDGED: 3}
    assert window.sums(1060.0) == {JUDGED: 103}


def test_the_watching_begins_with_the_first_reading_of_those_who_were_there() -> None:
    window = Window(began=1000.0)
    window.take(reading(100, 9000, "a"), 1003.0, 1003.5)
    assert window.since(1010.0) == 1003.0


def test_what_is_older_than_the_window_goes() -> None:
    window = Window(began=0.0, seconds=600.0, buckets=10)
    window.add({JUDGED: 1}, 30.0)
    window.add({JUDGED: 2}, 90.0)
    assert window.sums(599.0) == {JUDGED: 3}
    assert window.since(629.0) == 60.0
    assert window.sums(629.0) == {JUDGED: 2}
    assert window.sums(700.0) == {}
    assert window.full(700.0)
    assert not window.full(300.0)


def test_a_source_that_is_heard_of_again_after_an_hour_is_not_counted_again() -> None:
    window = Window(began=0.0, seconds=600.0, buckets=10)
    assert window.take(reading(50, 10), 20.0, 20.0) == {JUDGED: 50}
    window.sums(5000.0)
    assert window.take(reading(60, 4990), 5000.0, 5000.0) == {}


@st.composite
def histories(draw: Any) -> list[tuple[str, list[tuple[float, int]]]]:
    """Starts of counting, each with its (time, count) as it grew, from zero."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        at, count, points = float(draw(st.integers(0, 500))), 0, []
        for _ in range(draw(st.integers(1, 6))):
            at += draw(st.integers(1, 200))
            count += draw(st.integers(0, 50))
            points.append((at, count))
        found.append((f"s{number}", points))
    return found


@given(histories(), st.integers(0, 600), st.randoms(use_true_random=False))
def test_in_any_order_nothing_is_negative_nor_more_than_was_counted(
    made: list[tuple[str, list[tuple[float, int]]]], began: int, dice: random.Random
) -> None:
    def read(in_order: bool) -> Window:
        window = Window(began=float(began), seconds=100_000.0)
        window.add({("other", ""): 1}, 0.0)  # so that `began` stays
        reads = [
            (at, Reading("p", start, at - points[0][0] + 1, {JUDGED: count}))
            for start, points in made
            for at, count in points
            if at >= began
        ]
        reads.sort(key=lambda one: one[0])
        if not in_order:
            dice.shuffle(reads)
        last = max((at for at, _ in reads), default=0.0)
        for at, one in reads:
            grown = window.take(one, at, last)
            assert all(count > 0 for count in grown.values())
        return window

    first, second = read(True), read(False)
    now = 10_000.0
    assert first.sums(now) == second.sums(now)
    assert first.sums(now).get(JUDGED, 0) <= sum(points[-1][1] for _, points in made)


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["a", "b"]), st.integers(0, 9)), max_size=40))
def test_the_sums_are_those_of_the_buckets_that_are_left(adds: list[tuple[int, str, int]]) -> None:
    window, now, kept = Window(began=0.0, seconds=60.0, buckets=6), 0.0, list[tuple[float, str, int]]()
    for pause, kind, count in adds:
        now += pause
        window.add({(kind, ""): count}, now)
        kept.append((now, kind, count))
        wanted: Counter[tuple[str, str]] = Counter()
        for at, name, number in kept:
            if at >= window.since(now):
                wanted[name, ""] += number
        assert dict(window.sums(now)) == {label: number for label, number in wanted.items() if number}


# --- status -----------------------------------------------------------------------------------------------------------

COUNTS = {
    ("answered", "small"): 870,
    ("answered", "large"): 130,
    ("answered", "gone"): 5,
    JUDGED: 800,
    ("escalated", "BelowThreshold"): 90,
    ("escalated", "Empty"): 10,
    ("fallbacks", ""): 4,
}


def test_the_status_says_shares_rates_and_reasons() -> None:
    status = traffic_of(COUNTS, ["small", "large"], "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", partial=False)
    assert TrafficStatus.model_validate(status).requests == 1000
    assert status["shares"] == [
        {"name": "small", "requests": 870, "permille": 870},
        {"name": "large", "requests": 130, "permille": 130},
    ]
    assert status["escalatedPermille"] == 125
    assert status["escalations"][0] == {"reason": "BelowThreshold", "requests": 90}
    assert status["fallbackPermille"] == 4


def test_what_was_not_counted_is_absent() -> None:
    status = traffic_of({}, ["small"], "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", partial=True)
    assert TrafficStatus.model_validate(status).partial
    assert status.keys() == {"since", "until", "requests", "judged", "partial"}


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_share_is_within_half_a_thousandth(part: int, whole: int) -> None:
    part = min(part, whole)
    assert 0 <= permille(part, whole) <= 1000
    assert abs(permille(part, whole) * whole - 1000 * part) * 2 <= whole


def test_new_numbers_are_due_when_the_last_write_is_old_enough() -> None:
    def facts(requests: int, until: str) -> dict[str, Any]:
        return {"traffic": {"requests": requests, "since": "x", "until": until}, "cost": {"unknown": "why"}}

    def costs(micros: int | None, **more: Any) -> dict[str, Any]:
        return {"traffic": {"requests": 1}, "cost": {"perThousandMicros": micros, **more}}

    assert due({}, facts(1, "b"), None, 60)
    assert not due(facts(1, "a"), facts(1, "b"), 9999, 60)
    assert not due(facts(1, "a"), facts(2, "b"), 59, 60)
    assert due(facts(1, "a"), facts(2, "b"), 60, 60)
    assert not due(costs(1000), costs(1010), 60, 60)
    assert due(costs(1000), costs(1011), 60, 60)
    assert due(costs(1000), costs(989), 60, 60)
    assert due(costs(None), costs(1), 60, 60)
    assert due(costs(1000), costs(1000, unknown="why"), 60, 60)
