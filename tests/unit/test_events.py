"""The event recorder: what is counted, what is told, and that it never gets in the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modeltiers.kube import errors
from modeltiers.kube.events import BURST, FORGET, NOTE_BYTES, REFILL, EventRecorder, Tally, cut, event_name
from modeltiers.kube.refs import ref_of

TIER = {
    "apiVersion": "modeltiers.dev/v1alpha1",
    "kind": "ModelTier",
    "metadata": {"name": "small", "namespace": "team-a", "uid": "u1", "resourceVersion": "9"},
}


class FakeApi:
    """Takes what is applied, or refuses it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.applied: list[dict[str, Any]] = []
        self.fault = fault

    async def apply(self, event: dict[str, Any]) -> dict[str, Any]:
        if self.fault:
            raise self.fault
        self.applied.append(event)
        return event


async def sent(recorder: EventRecorder) -> None:
    """Let the recorder send what it has."""
    task = asyncio.create_task(recorder.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not recorder._waiting
    task.cancel()


def recorder(api: FakeApi, now: float = 1_000.0) -> EventRecorder:
    """A recorder with a clock that stands still."""
    return EventRecorder(api, "pod-1", clock=lambda: now)  # type: ignore[arg-type]  # a part of an Api


async def test_an_event_is_told_once_and_counted() -> None:
    """The same words about the same object are one event; waiting ones are not sent twice."""
    api = FakeApi()
    told = recorder(api)
    for _ in range(3):
        told.record(TIER, "Warning", "Unschedulable", "needs 8, largest free 4")
    await sent(told)
    (event,) = api.applied
    assert event["count"] == 3
    assert event["involvedObject"]["uid"] == "u1"
    assert event["metadata"]["name"] == event_name(TIER, "Unschedulable", "needs 8, largest free 4")
    assert ref_of(event).namespace == "team-a"
    told.record(TIER, "Warning", "Unschedulable", "needs 8, largest free 4")
    await sent(told)
    assert api.applied[-1]["count"] == 4
    assert api.applied[-1]["metadata"] == event["metadata"]


async def test_other_words_are_another_event() -> None:
    """Reason and message make the name, with the object's uid."""
    api = FakeApi()
    told = recorder(api)
    told.record(TIER, "Normal", "Ready", "2 of 2 replicas are ready")
    told.record(TIER, "Normal", "Ready", "1 of 1 replicas is ready", related=TIER)
    await sent(told)
    assert len({event["metadata"]["name"] for event in api.applied}) == 2
    assert api.applied[1]["related"]["name"] == "small"


def test_a_burst_then_one_in_five_minutes() -> None:
    """By object and reason; what is not told is counted all the same."""
    tally = Tally()
    told = [tally.note(f"e{number}", "u1", "Failed", 0.0) for number in range(BURST + 5)]
    assert sum(count is not None for count in told) == BURST
    assert tally.note("other", "u1", "Ready", 0.0)
    assert tally.note("other", "u2", "Failed", 0.0)
    assert tally.note("e0", "u1", "Failed", REFILL - 1) is None
    again = tally.note("e0", "u1", "Failed", REFILL + 1)
    assert again is not None
    assert again.times == 3
    assert tally.note("e0", "u1", "Failed", REFILL + 1) is None


def test_counting_starts_anew_when_the_server_has_forgotten() -> None:
    """The server drops events after an hour."""
    tally = Tally()
    tally.note("e", "u1", "Ready", 0.0)
    count = tally.note("e", "u1", "Ready", FORGET + 1)
    assert count is not None
    assert (count.times, count.first) == (1, FORGET + 1)


def test_memory_is_bounded() -> None:
    """The oldest are forgotten."""
    tally = Tally(remembered=10)
    for number in range(1000):
        tally.note(f"e{number}", f"u{number}", "Ready", float(number))
    assert len(tally._counts) == len(tally._buckets) == 10


@pytest.mark.parametrize(
    "fault",
    [
        errors.NotLeading(),
        errors.Denied(ref_of(TIER), "no"),
        errors.Transient(ref_of(TIER), "down"),
        RuntimeError("a bug"),
    ],
)
async def test_nothing_that_goes_wrong_reaches_the_caller(fault: Exception) -> None:
    """Not a refused event, not a fence, not a mistake; and the next event is told."""
    api = FakeApi(fault)
    told = recorder(api)
    told.record(TIER, "Normal", "Ready", "one")
    await sent(told)
    api.fault = None
    told.record(TIER, "Normal", "Ready", "two")
    await sent(told)
    assert [event["message"] for event in api.applied] == ["two"]


async def test_a_call_that_makes_no_event_does_not_raise() -> None:
    """An odd reason, an odd type, an object without a name: logged and counted."""
    api = FakeApi()
    told = recorder(api)
    told.record(TIER, "Normal", "not a reason", "x")
    told.record(TIER, "Error", "Ready", "x")
    told.record({}, "Normal", "Ready", "x")
    await sent(told)
    assert api.applied == []


def test_a_long_message_is_cut_within_its_bytes() -> None:
    """And never in the middle of a character."""
    assert cut("short") == "short"
    long = cut("ä" * 2000)
    assert len(long.encode()) <= NOTE_BYTES
    assert long.endswith("ä…")


def test_a_name_fits_and_is_a_name() -> None:
    """Whatever the object is called."""
    name = event_name({"metadata": {"name": "a" * 199 + ".b", "uid": "u"}}, "Ready", "x")
    assert len(name) <= 253
    assert ".." not in name
