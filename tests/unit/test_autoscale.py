"""How many pods: the HorizontalPodAutoscaler's rules, what differs from them, and a day of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.autoscale import (
    GAP,
    PERIOD,
    REASONS,
    TOLD_AGAIN,
    Bounds,
    Decision,
    Memory,
    PodLoad,
    decide,
    due,
    told,
    within_room,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
WINDOW = timedelta(seconds=300)
BOUNDS = Bounds(1, 8, 10, WINDOW)


def pods(*held: int | None, unready: int = 0) -> list[PodLoad]:
    return [*(PodLoad(True, one) for one in held), *(PodLoad(False) for _ in range(unready))]


def after(
    loads: list[PodLoad], current: int, seconds: float, memory: Memory | None = None, bounds: Bounds = BOUNDS
) -> Decision:
    """The decision after the same was seen for so long; what is wanted follows it."""
    now, end, memory = NOON, NOON + timedelta(seconds=seconds), memory or Memory()
    made = decide(bounds, loads, current, memory, now)
    while now < end:
        now += PERIOD
        made = decide(bounds, loads, made.wanted, made.memory, now)
    return made


# --- what is needed ---------------------------------------------------------------------------------------------------


def test_more_than_the_target_adds_pods_at_once() -> None:
    made = decide(BOUNDS, pods(15, 15), 2, Memory(), NOON)
    assert (made.wanted, made.reason) == (3, "ScaledUp")
    assert made.message == "30 requests on 2 of 2 ready pods, 10 each aimed at: 3 needed"


def test_within_a_tenth_nothing_changes() -> None:
    for held in (9, 10, 11):
        assert decide(BOUNDS, pods(held), 1, Memory(), NOON).reason == "Steady"
    assert decide(BOUNDS, pods(12), 1, Memory(), NOON).wanted == 2


def test_no_word_from_any_ready_pod_changes_nothing() -> None:
    for loads in (pods(), pods(None, None), pods(unready=3)):
        made = decide(BOUNDS, loads, 3, Memory(), NOON)
        assert (made.wanted, made.reason, made.held) == (3, "MetricsUnknown", None)


def test_pods_that_start_count_as_empty_when_more_seem_needed() -> None:
    # 24 on one pod: 3 needed, and two are on their way already.
    assert decide(BOUNDS, pods(24, unready=2), 3, Memory(), NOON).wanted == 3
    assert decide(BOUNDS, pods(45, unready=2), 3, Memory(), NOON).wanted == 5


def test_a_ready_pod_that_does_not_say_counts_as_full_when_fewer_seem_needed() -> None:
    assert after(pods(0, 0, 0, None), 4, 315).wanted == 3
    assert after(pods(0, None), 2, 315).wanted == 1
    # And as empty when more do: 18 on one of two is no more than two hold.
    assert decide(BOUNDS, pods(18, None), 2, Memory(), NOON).wanted == 2


# --- not too much at once ---------------------------------------------------------------------------------------------


def test_at_most_double_or_four_more_at_once() -> None:
    wide = Bounds(1, 100, 10, WINDOW)
    assert decide(wide, pods(1000), 1, Memory(), NOON).wanted == 5
    assert decide(wide, pods(*[100] * 20), 20, Memory(), NOON).wanted == 40


def test_fewer_only_after_a_whole_window_and_by_one_a_minute() -> None:
    made = after(pods(0, 0, 0, 0), 4, WINDOW.total_seconds() - 1)
    assert (made.wanted, made.reason) == (4, "Stabilizing")
    made = after(pods(0, 0, 0, 0), 4, WINDOW.total_seconds() + 15)
    assert made.wanted == 3
    made = decide(BOUNDS, pods(0, 0, 0), 3, made.memory, made.at + PERIOD)
    assert (made.wanted, made.reason) == (3, "Stabilizing")


def test_one_busy_look_within_the_window_keeps_the_pods() -> None:
    made = after(pods(0, 0, 0), 3, 200)
    made = decide(BOUNDS, pods(10, 10, 10), 3, made.memory, made.at + PERIOD)
    for _ in range(19):
        made = decide(BOUNDS, pods(0, 0, 0), made.wanted, made.memory, made.at + PERIOD)
    assert made.wanted == 3


def test_a_moment_without_figures_counts_as_need() -> None:
    made = after(pods(0, 0, 0), 3, 290)
    made = decide(BOUNDS, pods(None, None, None), 3, made.memory, made.at + PERIOD)
    made = after(pods(0, 0, 0), 3, 0, made.memory)
    assert decide(BOUNDS, pods(0, 0, 0), 3, made.memory, made.at + WINDOW - PERIOD * 2).wanted == 3


def test_a_restart_or_a_long_gap_begins_a_new_window() -> None:
    made = after(pods(0, 0, 0), 3, 290)
    later = decide(BOUNDS, pods(0, 0, 0), 3, made.memory, made.at + GAP + PERIOD)
    assert (later.wanted, later.reason) == (3, "Stabilizing")
    assert decide(BOUNDS, pods(0, 0, 0), 3, Memory(), NOON).wanted == 3


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_bounds_hold_whatever_is_seen() -> None:
    assert decide(BOUNDS, pods(None), 20, Memory(), NOON).wanted == 8
    assert decide(Bounds(4, 8, 10, WINDOW), pods(), 1, Memory(), NOON).wanted == 4
    assert decide(BOUNDS, pods(*[99] * 8), 8, Memory(), NOON).reason == "AtMaximum"
    assert decide(BOUNDS, pods(0), 1, Memory(), NOON).reason == "AtMinimum"


def test_no_more_than_free_accelerators_allow_unless_the_tier_waits_for_nodes() -> None:
    made = decide(BOUNDS, pods(99), 2, Memory(), NOON)
    assert made.wanted == 6
    kept = within_room(made, 2, 1, wait_for_nodes=False)
    assert (kept.wanted, kept.reason) == (3, "NoFreeAccelerators")
    assert "free for 1 of 4 more" in kept.message
    waits = within_room(made, 2, 1, wait_for_nodes=True)
    assert waits.wanted == 6
    assert "the others wait for nodes" in waits.message
    assert "unknown" in within_room(made, 2, None, wait_for_nodes=False).message
    assert within_room(made, 2, 9, wait_for_nodes=False) is made


# --- when to look and what to write -----------------------------------------------------------------------------------


def test_looks_every_15_s_and_at_once_when_the_spec_changes() -> None:
    memory = decide(BOUNDS, pods(1), 1, Memory(), NOON).memory
    assert due(memory, BOUNDS, NOON + timedelta(seconds=5)) == timedelta(seconds=10)
    assert not due(memory, BOUNDS, NOON + PERIOD)
    assert not due(memory, Bounds(2, 8, 10, WINDOW), NOON)
    assert not due(Memory(), BOUNDS, NOON)


def test_figures_alone_are_written_once_a_minute_and_never_when_they_stand_still() -> None:
    first = told(decide(BOUNDS, pods(10), 1, Memory(), NOON), None)
    soon = decide(BOUNDS, pods(9), 1, Memory(), NOON + PERIOD)
    assert told(soon, first) == first
    assert told(decide(BOUNDS, pods(9), 1, Memory(), NOON + TOLD_AGAIN), first)["inFlight"] == 9
    assert told(decide(BOUNDS, pods(10), 1, Memory(), NOON + timedelta(hours=1)), first) == first
    assert told(decide(BOUNDS, pods(30), 1, Memory(), NOON + PERIOD), first)["wanted"] == 3


# --- properties -------------------------------------------------------------------------------------------------------

LOADS = st.lists(st.builds(PodLoad, st.booleans(), st.none() | st.integers(0, 500)), max_size=12)


@given(
    least=st.integers(1, 5),
    more=st.integers(0, 20),
    target=st.integers(1, 100),
    looks=st.lists(LOADS, min_size=1, max_size=40),
    current=st.integers(1, 30),
)
def test_whatever_is_seen_the_bounds_hold_and_steps_are_small(
    least: int, more: int, target: int, looks: list[list[PodLoad]], current: int
) -> None:
    bounds, memory, now = Bounds(least, least + more, target, WINDOW), Memory(), NOON
    current = min(max(current, least), bounds.most)
    for index, loads in enumerate(looks):
        made = decide(bounds, loads, current, memory, now)
        assert made == decide(bounds, loads, current, memory, now)
        assert bounds.least <= made.wanted <= bounds.most
        assert made.reason in REASONS
        assert made.wanted <= max(2 * current, current + 4)
        assert made.wanted >= current - max(1, current // 10)
        assert len(made.memory.wishes) <= WINDOW / PERIOD + 2
        if not any(pod.ready and pod.held is not None for pod in loads):
            assert made.wanted == current
        if index * PERIOD < WINDOW:
            assert made.wanted >= current, "a whole window first"
        current, memory, now = made.wanted, made.memory, now + PERIOD


@given(held=st.integers(0, 400), current=st.integers(1, 40))
def test_a_load_that_stays_leads_to_pods_that_hold_it_and_stays_there(held: int, current: int) -> None:
    bounds = Bounds(1, 50, 10, WINDOW)
    made = None
    memory, now, wanted = Memory(), NOON, current
    for _ in range(400):
        spread = [held // wanted + (index < held % wanted) for index in range(wanted)]
        made = decide(bounds, pods(*spread), wanted, memory, now)
        wanted, memory, now = made.wanted, made.memory, now + PERIOD
    assert made is not None
    needed = max(1, math.ceil(held / 10))
    assert abs(wanted - needed) <= 1 + wanted // 10
    assert held <= 11 * wanted or wanted == bounds.most


# --- a day ------------------------------------------------------------------------------------------------------------


def test_a_day_of_office_hours_with_slow_starts_and_blind_minutes() -> None:
    """Load rises to 60 requests by noon and falls; a pod takes 6 minutes to start; routers are silent now and then."""
    bounds = Bounds(1, 8, 10, WINDOW)
    start_up = timedelta(minutes=6)
    born = [NOON - timedelta(days=1)]
    memory, now, changes, short, most = Memory(), NOON.replace(hour=0), 0, 0, 0
    for step in range(24 * 240):
        hour = step / 240
        held = int(60 * max(0.0, math.sin((hour - 6) / 12 * math.pi)))
        ready = [one for one in born if now - one >= start_up]
        blind = step % 480 < 4
        spread = [held // len(ready) + (index < held % len(ready)) for index in range(len(ready))]
        loads = pods(*(None if blind else one for one in spread), unready=len(born) - len(ready))
        made = decide(bounds, loads, len(born), memory, now)
        changes += made.wanted != len(born)
        born = sorted(born)[: made.wanted] + [now] * (made.wanted - len(born))
        short += held > 15 * len(ready)
        most = max(most, made.wanted)
        memory, now = made.memory, now + PERIOD
    assert most == 6
    assert len(born) == 1
    assert changes <= 16, "it does not swing"
    assert short <= 30, "it is never short for long"
