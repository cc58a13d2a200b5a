"""The log: what is in a line, what never is, and that nobody waits for whoever reads it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modeltiers.router.logs import ATOMIC, Line, Log

F_SETPIPE_SZ = 1031


class Pipe:
    """A pipe with a log at one end."""

    def __init__(self, most_lines: int = 10_000) -> None:
        self.end, self.descriptor = os.pipe()
        fcntl.fcntl(self.descriptor, F_SETPIPE_SZ, 4096)
        self.log = Log(self.descriptor, most_lines)
        self.rest = b""

    def lines(self, count: int, seconds: float = 5) -> list[Any]:
        """Wait for so many lines."""
        until = time.monotonic() + seconds
        while self.rest.count(b"\n") < count:
            left = until - time.monotonic()
            assert left > 0, self.rest
            if select.select([self.end], [], [], left)[0]:
                self.rest += os.read(self.end, 65_536)
        *whole, self.rest = self.rest.split(b"\n")
        assert all(len(one) < ATOMIC for one in whole)
        return [json.loads(one) for one in whole]

    def close(self) -> None:
        os.close(self.end)
        self.log.close()
        os.close(self.descriptor)


@pytest.fixture
def pipe() -> Iterator[Callable[..., Pipe]]:
    found: list[Pipe] = []

    def make(*values: int) -> Pipe:
        found.append(Pipe(*values))
        return found[-1]

    yield make
    for one in found:
        one.close()
        assert not one.log._thread.is_alive()


def request(**fields: Any) -> Line:
    usual: dict[str, Any] = {
        "time_ms": 1_764_000_000_123,
        "id": "abc-1",
        "policy": "support",
        "outcome": "Answered",
        "status": 200,
    }
    return Line(**(usual | {"ms": 12} | fields))


def test_a_request_is_one_line(pipe: Callable[..., Pipe]) -> None:
    made = pipe()
    made.log.request(request(tier="small", reason="EntryTier", attempts=2, prompt_tokens=5, completion_tokens=3))
    assert made.lines(1) == [
        {
            "event": "request",
            "timeMs": 1_764_000_000_123,
            "id": "abc-1",
            "policy": "support",
            "tier": "small",
            "outcome": "Answered",
            "reason": "EntryTier",
            "status": 200,
            "ms": 12,
            "attempts": 2,
            "promptTokens": 5,
            "completionTokens": 3,
        }
    ]


def test_an_event_is_one_line_at_once(pipe: Callable[..., Pipe]) -> None:
    made = pipe()
    made.log.say("listening", serving=["127.0.0.1", 8080])
    (found,) = made.lines(1, 1)
    assert found.pop("timeMs") > 1_700_000_000_000
    assert found == {"event": "listening", "serving": ["127.0.0.1", 8080]}
    made.log.say("long", text="x" * 10_000)
    assert made.lines(1)[0]["tooLong"] > 10_000


@pytest.mark.parametrize("field", ["id", "policy", "tier", "outcome", "reason", "key"])
@pytest.mark.parametrize("odd", ["a b", "tell me a secret", "x\ny", "\u00e9", "\0", "x" * 129, '"', "a?b=c"], ids=repr)
def test_a_text_that_is_no_name_is_not_written(pipe: Callable[..., Pipe], field: str, odd: str) -> None:
    made = pipe()
    made.log.request(request(**{field: odd}))
    (found,) = made.lines(1)
    assert found[field] == "?"


def test_a_pipe_that_nobody_reads_stops_nobody(pipe: Callable[..., Pipe]) -> None:
    made = pipe(100)
    began = time.perf_counter()
    for number in range(5000):
        made.log.request(request(ms=number))
    assert time.perf_counter() - began < 1
    assert made.log.dropped > 4000
    time.sleep(0.1)
    for number in range(200):
        made.log.request(request(ms=number))
    made.log.say("important")  # has room that requests do not take
    found: list[Any] = []
    told = 0
    while told < made.log.dropped or "important" not in {one["event"] for one in found}:
        found += made.lines(1)
        told = sum(one["lines"] for one in found if one["event"] == "log_dropped")
    assert told == made.log.dropped
    assert sum(one["event"] == "request" for one in found) == 5200 - told


def test_a_reader_that_has_gone_costs_lines_and_nothing_else() -> None:
    made = Pipe()
    os.close(made.end)
    made.end = os.open(os.devnull, os.O_RDONLY)
    for _ in range(3):
        made.log.request(request())
        time.sleep(0.05)
    assert made.log.dropped == 3
    made.close()


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Callable[..., Pipe]) -> None:
    made = pipe()
    os.set_blocking(made.descriptor, False)
    for number in range(500):
        made.log.request(request(ms=number))
    time.sleep(0.1)
    assert [one["ms"] for one in made.lines(500)] == list(range(500))
    assert not os.get_blocking(made.descriptor)


def test_the_end_waits_for_what_was_said_but_not_for_a_reader() -> None:
    made = Pipe()
    for number in range(20):
        made.log.request(request(ms=number))
    made.log.close()
    assert len(made.lines(20)) == 20
    os.close(made.end)
    os.close(made.descriptor)
    stuck = Pipe()
    for number in range(500):
        stuck.log.request(request(ms=number))
    began = time.monotonic()
    stuck.log.close(0.2)
    assert 0.15 < time.monotonic() - began < 1
    os.close(stuck.end)
    stuck.log._thread.join(5)
    assert not stuck.log._thread.is_alive()
    os.close(stuck.descriptor)


def test_two_processes_on_one_pipe_keep_their_lines_whole() -> None:
    end, descriptor = os.pipe()
    fcntl.fcntl(descriptor, F_SETPIPE_SZ, 8192)
    logs = [Log(descriptor) for _ in range(3)]
    for number in range(300):
        for one in logs:
            one.request(request(ms=number, id="x" * 100))
    rest = b""
    while rest.count(b"\n") < 900:
        rest += os.read(end, 1_000)
    assert all(json.loads(one)["id"] == "x" * 100 for one in rest.splitlines())
    for one in logs:
        one.close()
    os.close(end)
    os.close(descriptor)
