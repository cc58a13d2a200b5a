"""How conditions are laid over the ones before, the reference page, and kstatus's rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from modeltiers.api.modeltier_status import Condition
from modeltiers.domain import kstatus
from modeltiers.domain.conditions import MAX_MESSAGE, ORDER, REASONS, Observation, merge, tri_state

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
READY = Observation("Ready", "True", "Serving", "1 of 1 pod ready")
STALLED = Observation("Stalled", "False", "NotStalled", "nothing stands in the way")


def test_the_same_again_is_the_same() -> None:
    """Whenever it is said."""
    first = merge([], [STALLED, READY], 1, NOW)
    assert merge(first, [READY, STALLED], 1, LATER) == first
    assert [item["type"] for item in first] == ["Ready", "Stalled"]


def test_the_transition_time_moves_with_the_status_alone() -> None:
    """A new reason, message or generation leaves it."""
    first = merge([], [READY], 1, NOW)
    other = merge(first, [Observation("Ready", "True", "ScaledToZero", "other")], 2, LATER)
    assert other[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert other[0]["observedGeneration"] == 2
    flipped = merge(other, [Observation("Ready", "Unknown", "Starting", "x")], 2, LATER)
    assert flipped[0]["lastTransitionTime"] == "2026-01-01T00:01:00Z"


def test_time_never_goes_back() -> None:
    """Not with a clock that was set back, nor with one that was wrong before."""
    first = merge([], [READY], 1, LATER)
    flipped = merge(first, [Observation("Ready", "False", "CrashLoop", "x")], 1, NOW)
    assert flipped[0]["lastTransitionTime"] == "2026-01-01T00:01:00Z"


@pytest.mark.parametrize(
    "before",
    [
        [],
        ["odd", None, 3],
        [{"type": "Ready", "status": "True"}],
        [{"type": "Ready", "status": "True", "lastTransitionTime": 7}],
        [{"type": ["Ready"]}],
    ],
)
def test_odd_conditions_before_are_replaced(before: list[Any]) -> None:
    """A status that somebody else scribbled on heals with the next look."""
    assert merge(before, [READY], 1, NOW)[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_conditions_are_valid_by_our_own_schema() -> None:
    """Also with the longest message."""
    long = Observation("Ready", "False", "CrashLoop", "x" * 10_000)
    condition = merge([], [long], 1, NOW)[0]
    assert len(condition["message"]) == MAX_MESSAGE
    TypeAdapter(Condition).validate_python(condition)


def test_tri_state() -> None:
    """None is Unknown."""
    assert [tri_state(value) for value in (True, False, None)] == ["True", "False", "Unknown"]


def test_reasons_belong_to_conditions_that_exist() -> None:
    """The table's second column; CandidateReady says what Ready does."""
    assert {item.condition for item in REASONS} == set(ORDER) - {"CandidateReady"}


def condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status, "message": f"{kind} {status}"}


@pytest.mark.parametrize(
    ("metadata", "status", "expected"),
    [
        ({"deletionTimestamp": "x", "generation": 2}, {"observedGeneration": 1}, "Terminating"),
        ({"generation": 2}, {"observedGeneration": 1, "conditions": [condition("Ready", "True")]}, "InProgress"),
        ({"generation": 2}, {"observedGeneration": 2, "conditions": [condition("Ready", "True")]}, "Current"),
        ({"generation": 2}, {"conditions": [condition("Ready", "True")]}, "Current"),
        ({}, {"conditions": [condition("Reconciling", "True"), condition("Ready", "True")]}, "InProgress"),
        ({}, {"conditions": [condition("Ready", "True"), condition("Stalled", "True")]}, "Failed"),
        ({}, {"conditions": [condition("Stalled", "True"), condition("Reconciling", "True")]}, "Failed"),
        ({}, {"conditions": [condition("Stalled", "False"), condition("Reconciling", "False")]}, "Current"),
        ({}, {"conditions": [condition("Ready", "False")]}, "InProgress"),
        ({}, {"conditions": [condition("Ready", "Unknown")]}, "InProgress"),
        ({}, {}, "Current"),
        ({}, {"conditions": "odd"}, "Current"),
    ],
)
def test_kstatus(metadata: dict[str, Any], status: dict[str, Any], expected: str) -> None:
    """The rules in their order."""
    assert kstatus.compute({"metadata": metadata, "status": status}).status == expected
