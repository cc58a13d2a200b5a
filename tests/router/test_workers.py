"""Dear checks in real processes: results, deadlines, deaths, bounds, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modeltiers.domain.routing.remarks import Result
from modeltiers.domain.routing.table import Validator
from modeltiers.domain.routing.validators import Check, Wish
from modeltiers.router.workers import Workers

LONG = "".join(random.Random(1).choices("ab", k=4_000_000))  # noqa: S311 - it only has to be irregular


def quick(name: str = "quick", text: str = "order 66") -> Check:
    return Check(Validator(name=name, kind="Pattern", patterns=(r"\d+",)), Wish(), text)


def endless(name: str = "endless") -> Check:
    """Return a check of several seconds: the automaton of the pattern has too many states to be built."""
    return Check(Validator(name=name, kind="Pattern", patterns=("(a|b)*a(a|b){180}c",)), Wish(), LONG)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    one = Workers(1, queue=4)
    yield one
    await one.close()


async def result(workers: Workers, check: Check, seconds: float = 10.0) -> Result:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    workers.run(check, seconds, future.set_result)
    return await asyncio.wait_for(future, 20)


async def test_a_check_gives_the_result_it_gives_here(workers: Workers) -> None:
    assert workers.pids == ()  # nothing runs before the first check
    assert await result(workers, quick()) == Result("quick", passed=True)
    assert await result(workers, quick(text="none")) == Result("quick", passed=False, why="NotFound")
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    long = Check(Validator(name="json", kind="JSONSchema", schema=schema), Wish(), str(list(range(100_000))))
    assert await result(workers, long) == Result("json", passed=True)
    assert len(workers.pids) == 1


async def test_a_check_that_overruns_is_ended_and_the_next_one_runs(workers: Workers) -> None:
    await result(workers, quick())
    (before,) = workers.pids
    began = time.monotonic()
    assert await result(workers, endless(), 0.3) == Result("endless", passed=False, why="Deadline")
    assert time.monotonic() - began < 2
    assert await result(workers, quick()) == Result("quick", passed=True)
    assert workers.pids != (before,)
    assert not alive(before)


async def test_waiting_counts_against_the_deadline(workers: Workers) -> None:
    await result(workers, quick())
    first = asyncio.create_task(result(workers, endless(), 0.6))
    await asyncio.sleep(0.05)
    second = await result(workers, quick(), 0.1)
    assert second == Result("quick", passed=False, why="Deadline")
    assert (await first).why == "Deadline"


async def test_a_process_that_dies_is_replaced(workers: Workers) -> None:
    await result(workers, quick())
    (before,) = workers.pids
    waiting = asyncio.create_task(result(workers, endless()))
    await asyncio.sleep(0.2)
    os.kill(before, signal.SIGKILL)
    assert await waiting == Result("endless", passed=False, why="Crashed")
    assert (await result(workers, quick())).passed


async def test_a_process_that_died_idle_costs_one_check_at_most(workers: Workers) -> None:
    await result(workers, quick())
    os.kill(workers.pids[0], signal.SIGKILL)
    await asyncio.sleep(0.1)
    first = await result(workers, quick())
    assert first.passed or first.why == "Crashed"
    assert (await result(workers, quick())).passed


async def test_memory_is_bounded() -> None:
    workers = Workers(1, memory_bytes=400 << 20)
    nested = "[" + "[],[[]]," * 1_500_000 + "0]"
    check = Check(Validator(name="big", kind="JSONSchema", schema={"type": "array"}), Wish(), nested)
    assert await result(workers, check) == Result("big", passed=False, why="Crashed")
    assert (await result(workers, quick())).passed
    await workers.close()


async def test_a_full_queue_says_so_at_once(workers: Workers) -> None:
    await result(workers, quick())
    busy = asyncio.create_task(result(workers, endless(), 0.5))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(result(workers, quick(), 10)) for _ in range(4)]
    await asyncio.sleep(0)
    assert await result(workers, quick("fifth")) == Result("fifth", passed=False, why="Busy")
    assert (await busy).why == "Deadline"
    assert all(one.passed for one in await asyncio.gather(*waiting))


async def test_a_process_inherits_no_descriptor_and_no_environment(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "plugh")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        await result(workers, quick())
        (pid,) = workers.pids
        assert descriptor(os.getpid(), writer) not in descriptors(pid)
        assert len(descriptors(pid)) <= 5  # nothing thrice, and its two pipes
        assert b"plugh" not in environment(pid)
        assert os.getsid(pid) == pid
    finally:
        os.close(reader)
        os.close(writer)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def descriptor(pid: int, number: int) -> str:
    return str(Path(f"/proc/{pid}/fd/{number}").readlink())


def descriptors(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_end_leaves_no_process_and_answers_all_that_wait() -> None:
    workers = Workers(2)
    workers.start()
    await asyncio.gather(*(result(workers, quick()) for _ in range(4)))
    pids = workers.pids
    waiting = [asyncio.create_task(result(workers, endless())) for _ in range(4)]
    await asyncio.sleep(0.2)
    await workers.close()
    assert [one.why for one in await asyncio.gather(*waiting)] == ["Busy"] * 4
    assert pids
    assert not any(map(alive, pids))
    assert (await result(workers, quick())).why == "Busy"
    await workers.close()


async def test_a_process_ends_when_its_router_is_gone() -> None:
    workers = Workers(1)
    await result(workers, quick())
    (pid,) = workers.pids
    process = workers._processes[pid]
    assert process.stdin is not None
    process.stdin.close()
    await asyncio.wait_for(process.wait(), 5)
    await workers.close()
