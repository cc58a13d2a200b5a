"""Buckets that fill with time and queues that are fair: what they promise, by property."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing.budget import Bucket, FairQueue, Meter
from modeltiers.domain.routing.table import Limits


def test_a_bucket_gives_a_minutes_worth_at_once_and_then_the_rate() -> None:
    bucket = Bucket(60, 0.0)
    for _ in range(60):
        assert bucket.wait(1, 0.0) == 0
        bucket.take(1)
    assert bucket.wait(1, 0.0) == 1.0
    assert bucket.wait(3, 0.5) == 2.5
    assert bucket.wait(1, 1.0) == 0


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=100))
def test_never_more_than_a_minutes_worth_and_the_rate(rate: int, asked: list[tuple[float, int]]) -> None:
    bucket, now, given_out = Bucket(rate, 0.0), 0.0, 0.0
    for pause, amount in asked:
        now += pause
        if bucket.wait(amount, now) == 0:
            bucket.take(amount)
            given_out += amount
    assert given_out <= rate + now * rate / 60 + 1e-6


@given(st.integers(1, 1000), st.floats(0, 100), st.floats(1, 500))
def test_after_the_wait_that_was_told_it_goes(rate: int, used: float, amount: float) -> None:
    bucket = Bucket(rate, 0.0)
    bucket.take(used)
    amount = bucket.fits(amount)
    wait = bucket.wait(amount, 0.0)
    if wait > 0.01:
        assert bucket.wait(amount, wait - 0.01) > 0
    assert bucket.wait(amount, wait) < 1e-6


def test_more_than_a_bucket_holds_waits_for_a_full_one_and_not_for_ever() -> None:
    bucket = Bucket(100, 0.0)
    assert bucket.fits(1_000) == 100
    bucket.take(bucket.fits(1_000))
    bucket.take(900)  # what it really used
    assert bucket.wait(1, 0.0) == 901 / (100 / 60)


def test_what_comes_back_never_overfills_and_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = Bucket(10, 5.0)
    bucket.take(-100)
    assert bucket.wait(10, 5.0) == 0
    assert bucket.wait(11, 5.0) > 0
    bucket.take(10)
    assert bucket.wait(1, 5.0) == bucket.wait(1, 4.0) == 6.0


def test_a_new_rate_keeps_what_was_used() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(50)
    bucket.resize(120, 0.0)
    assert bucket.wait(70, 0.0) == 0
    assert bucket.wait(71, 0.0) > 0
    bucket.resize(10, 0.0)
    assert bucket.wait(1, 0.0) == 41 / (10 / 60)


def test_a_share_of_a_limit_is_at_least_one() -> None:
    meter = Meter(Limits(requests_per_minute=2, tokens_per_minute=100, concurrency=2), 1 / 8, 0.0)
    assert meter.concurrency == 1
    assert meter.requests is not None
    assert meter.tokens is not None
    assert (meter.requests.capacity, meter.tokens.capacity) == (1, 12.5)


def test_without_limits_nothing_blocks() -> None:
    meter = Meter(Limits(), 1.0, 0.0)
    for _ in range(1000):
        assert meter.blocked(10**9, 0.0) is None
        meter.take(10**9)
    assert meter.full(0.0)


# -- the queue --------------------------------------------------------------------------------------------------------


def drain(queue: FairQueue[int]) -> list[int]:
    """Take all, in turn."""
    found = []
    while (turn := queue.first()) is not None:
        flow, item = turn
        queue.turn(flow)
        assert queue.discard(flow, item)
        found.append(item)
    return found


def test_flows_take_turns_however_many_one_has() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(5):
        queue.push("greedy", number)
    queue.push("a", 100)
    queue.push("b", 200)
    queue.push("a", 101)
    assert drain(queue) == [0, 100, 200, 1, 101, 2, 3, 4]
    assert (queue.size, queue.flows, queue.deepest) == (0, 0, 0)


def test_a_held_flow_loses_its_turns_and_not_its_place() -> None:
    queue: FairQueue[int] = FairQueue()
    for flow in ("a", "b"):
        for number in range(2):
            queue.push(flow, number + (10 if flow == "b" else 0))
    moving = [queue.moving]
    for flow in ("a", "b"):
        queue.hold(flow)
        moving.append(queue.moving)
    assert moving == [True, True, False]
    assert queue.first() is None
    queue.release("b")
    queue.release("a")
    assert drain(queue) == [10, 0, 11, 1]


Step = st.tuples(st.sampled_from(["push", "pop", "drop", "hold", "release"]), st.integers(0, 4), st.integers(0, 30))


@given(st.lists(Step, max_size=200))
def test_it_is_what_plain_lists_say(steps: list[tuple[str, int, int]]) -> None:
    """Against a model that is slow and plain: lines of their own, and a ring of those that may go."""
    queue: FairQueue[int] = FairQueue()
    lines: dict[int, list[int]] = {}
    ring: deque[int] = deque()
    held: set[int] = set()
    for number, (step, flow, place) in enumerate(steps):
        line = lines.get(flow, [])
        if step == "push":
            queue.push(flow, number)
            if not line:
                ring.append(flow)
            lines.setdefault(flow, []).append(number)
        elif step == "pop" and ring:
            first = ring[0], lines[ring[0]][0]
            assert queue.first() == first
            _take(queue, lines, ring, held, *first)
        elif step == "drop" and line:
            item = line[place % len(line)]
            assert queue.discard(flow, item)
            assert not queue.discard(flow, item)
            _forget(lines, ring, held, flow, item)
        elif step == "hold" and flow in ring:
            queue.hold(flow)
            ring.remove(flow)
            held.add(flow)
        elif step == "release" and flow in held:
            queue.release(flow)
            held.discard(flow)
            ring.append(flow)
        _same(queue, lines, ring)


def _take(
    queue: FairQueue[int], lines: dict[int, list[int]], ring: deque[int], held: set[int], flow: int, item: int
) -> None:
    queue.turn(flow)
    queue.discard(flow, item)
    ring.rotate(-1)
    _forget(lines, ring, held, flow, item)


def _forget(lines: dict[int, list[int]], ring: deque[int], held: set[int], flow: int, item: int) -> None:
    lines[flow].remove(item)
    if not lines[flow]:
        del lines[flow]
        held.discard(flow)
        if flow in ring:
            ring.remove(flow)


def _same(queue: FairQueue[int], lines: dict[int, list[int]], ring: deque[int]) -> None:
    assert queue.size == sum(map(len, lines.values()))
    assert queue.flows == len(lines)
    assert queue.moving == bool(ring)
    assert queue._held == lines.keys() - set(ring)
    assert queue.deepest == max(map(len, lines.values()), default=0)
    for flow, line in lines.items():
        assert queue.depth(flow) == len(line)
    if lines:
        longest, item = queue.last_of_longest()
        assert isinstance(longest, int)
        assert len(lines[longest]) == queue.deepest
        assert lines[longest][-1] == item
