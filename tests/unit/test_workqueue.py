"""The work queue: nothing lost, nothing twice at a time, growing delays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from modeltiers.controllers.workqueue import LONGEST_DELAY, RetryAfter, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(clock=clock, jitter=lambda: 1.0)


async def run(queue: WorkQueue[str], serve: Callable[[str], Awaitable[float | None]], workers: int = 1) -> None:
    """Let workers run until they have nothing to do."""
    tasks = [asyncio.create_task(queue.work(serve)) for _ in range(workers)]
    for _ in range(50):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_rings_for_one_key_are_served_once(queue: WorkQueue[str]) -> None:
    served: list[str] = []

    async def serve(key: str) -> None:
        served.append(key)

    queue.ring("a")
    queue.ring("a")
    queue.ring("b")
    await run(queue, serve)
    assert served == ["a", "b"]


async def test_a_ring_while_serving_is_served_afterwards_and_never_in_parallel(queue: WorkQueue[str]) -> None:
    running = 0
    served = 0

    async def serve(key: str) -> None:
        nonlocal running, served
        running += 1
        assert running == 1
        served += 1
        if served == 1:
            queue.ring(key)
        await asyncio.sleep(0)
        running -= 1

    queue.ring("a")
    await run(queue, serve, workers=4)
    assert served == 2


async def test_the_oldest_ring_ages_until_it_is_served(queue: WorkQueue[str], clock: Clock) -> None:
    queue.ring("a")
    clock.now += 5
    queue.ring("b")
    assert (queue.oldest_age(), queue.depth) == (5.0, 2)

    async def serve(key: str) -> None:
        return None

    await run(queue, serve)
    assert (queue.oldest_age(), queue.depth) == (0.0, 0)


async def test_faults_back_off_twice_as_long_each_time_up_to_a_limit(
    queue: WorkQueue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr(queue, "ring_after", lambda key, seconds: delays.append(seconds))

    async def serve(key: str) -> None:
        raise RetryAfter("no")

    for _ in range(14):
        queue._waiting["a"] = 0.0
        await run(queue, serve)
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == LONGEST_DELAY


async def test_a_fault_may_say_how_long_the_wait_gets(queue: WorkQueue[str], monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    monkeypatch.setattr(queue, "ring_after", lambda key, seconds: delays.append(seconds))

    async def serve(key: str) -> None:
        raise RetryAfter("mended by hand", longest=20.0)

    for _ in range(14):
        queue._waiting["a"] = 0.0
        await run(queue, serve)
    assert delays[4:8] == [8.0, 16.0, 20.0, 20.0]


async def test_the_delay_that_the_server_asks_for_is_a_minimum(
    queue: WorkQueue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr(queue, "ring_after", lambda key, seconds: delays.append(seconds))

    async def serve(key: str) -> None:
        raise RetryAfter("429", 17.0)

    queue.ring("a")
    await run(queue, serve)
    assert delays == [17.0]


async def test_events_do_not_cut_a_back_off_short_but_a_new_spec_does(queue: WorkQueue[str]) -> None:
    served = 0

    async def serve(key: str) -> None:
        nonlocal served
        served += 1
        raise RetryAfter("no", 60)

    queue.ring("a")
    await run(queue, serve)
    queue.ring("a")
    await run(queue, serve)
    assert served == 1
    queue.ring("a", urgent=True)
    await run(queue, serve)
    assert served == 2
    queue.forget("a")


async def test_success_forgets_earlier_faults(queue: WorkQueue[str]) -> None:
    fail = True

    async def serve(key: str) -> None:
        if fail:
            raise RetryAfter("no", 60)

    queue.ring("a")
    await run(queue, serve)
    assert queue._failures == {"a": 1}
    fail = False
    queue.ring("a", urgent=True)
    await run(queue, serve)
    assert (queue._failures, queue._timers) == ({}, {})


async def test_a_look_by_the_clock_is_cancelled_by_an_earlier_ring(queue: WorkQueue[str]) -> None:
    queue.ring_after("a", 60)
    queue.ring("a")
    assert queue._timers == {}
    queue.ring_after("a", 60)  # it waits already
    assert queue._timers == {}
