"""The rules of the election, alone and as a model: candidates with clocks of their own and a slow API server."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.domain.election import (
    Acquire,
    Config,
    Hold,
    LeaseRecord,
    Renew,
    Standing,
    Wait,
    decide,
    leads,
    observe,
    renewed,
    resigned,
)

CONFIG = Config()


def held(by: str, version: str = "1", duration: float = 10.0, transitions: int = 3) -> LeaseRecord:
    """A lease that somebody holds."""
    return LeaseRecord(by, duration, transitions, version)


def test_a_lease_that_is_not_there_is_created() -> None:
    """The first candidate takes it."""
    assert decide(Standing(), "me", 0.0, CONFIG) == Acquire(None, 0)


def test_a_lease_of_another_is_waited_for_from_when_it_was_seen() -> None:
    """Its time starts when we see it first, however old it says it is, and anew with every change."""
    seen = observe(Standing(), held("other"), 100.0)
    assert decide(seen, "me", 100.0, CONFIG) == Wait(2.0)
    assert decide(seen, "me", 109.0, CONFIG) == Wait(1.0)
    assert decide(seen, "me", 110.0, CONFIG) == Acquire("1", 4)
    same = observe(seen, held("other"), 109.0)
    assert decide(same, "me", 110.0, CONFIG) == Acquire("1", 4)
    changed = observe(seen, held("other", "2"), 109.0)
    assert decide(changed, "me", 110.0, CONFIG) == Wait(2.0)


def test_a_holder_that_promised_more_time_gets_it() -> None:
    """Replicas of two versions may have two settings; the longer counts."""
    seen = observe(Standing(), held("other", duration=30.0), 0.0)
    assert decide(seen, "me", 29.0, CONFIG) == Wait(1.0)


def test_a_released_lease_is_free() -> None:
    """Nobody waits for a holder that has said goodbye."""
    assert decide(observe(Standing(), held(""), 0.0), "me", 0.0, CONFIG) == Acquire("1", 4)


def test_a_deleted_lease_frees_nothing_before_its_time() -> None:
    """Its holder may not know yet."""
    seen = observe(observe(Standing(), held("other"), 0.0), None, 5.0)
    assert decide(seen, "me", 5.0, CONFIG) == Wait(2.0)
    assert decide(seen, "me", 10.0, CONFIG) == Acquire(None, 4)


def test_a_leader_renews_when_it_is_due() -> None:
    """Not before, and with the version that it wrote."""
    won = renewed(Standing(), held("me", "7"), 100.0, 101.0)
    assert decide(won, "me", 101.0, CONFIG) == Hold(1.0)
    assert decide(won, "me", 102.0, CONFIG) == Renew("7", 3)


def test_a_leader_trusts_itself_from_before_it_sent() -> None:
    """A slow answer does not lengthen its time."""
    won = renewed(Standing(), held("me"), 100.0, 104.0)
    assert leads(won, 105.9, CONFIG)
    assert not leads(won, 106.0, CONFIG)
    assert not leads(won, 99.0, CONFIG)
    assert not leads(resigned(won), 101.0, CONFIG)


def test_what_is_found_in_our_name_is_not_trusted() -> None:
    """A lease with our name, found by reading, makes us renew; only the renewal makes us lead."""
    found = observe(Standing(), held("me"), 0.0)
    assert not leads(found, 0.0, CONFIG)
    assert decide(found, "me", 0.0, CONFIG) == Renew("1", 3)


@pytest.mark.parametrize("times", [(10, 10, 2), (10, 6, 6), (10, 6, 0), (5, 6, 2)])
def test_times_that_would_not_be_safe_are_refused(times: tuple[float, float, float]) -> None:
    """Two could lead, or one slow answer would cost the lease."""
    with pytest.raises(ValueError, match="needs retry"):
        Config(*times)


# --- the model --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Server:
    """An API server with one lease; a write is guarded by the version."""

    record: LeaseRecord | None = None
    writes: int = 0

    def write(self, holder: str, guard: str | None, transitions: int) -> LeaseRecord | None:
        """The record as it is after the write; None when somebody was faster."""
        current = self.record.version if self.record else None
        if current != guard:
            return None
        self.writes += 1
        self.record = LeaseRecord(holder, CONFIG.lease, transitions, str(self.writes))
        return self.record


@dataclass(eq=False)
class World:
    """True time, what happens next, and delays drawn from a seed."""

    chance: random.Random
    slow: float
    now: float = 0.0
    queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    count: int = 0

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Let something happen later."""
        self.count += 1
        heapq.heappush(self.queue, (self.now + seconds, self.count, do))

    def delay(self) -> float:
        """How long something takes: mostly little, at times much, now and then a whole freeze."""
        kind = self.chance.random()
        if kind < 0.8:
            return self.chance.random() * 0.1
        return self.chance.random() * (self.slow if kind < 0.97 else 10 * self.slow)

    def run(self, until: float, check: Callable[[], None]) -> None:
        """Let everything happen up to a moment, checking before and after each."""
        while self.queue and self.queue[0][0] <= until:
            when, _, do = heapq.heappop(self.queue)
            self.now = when
            check()
            do()
            check()


@dataclass(eq=False)
class Candidate:
    """Plays the shell: reads, decides, writes; every step takes its time and any answer may be lost."""

    name: str
    world: World
    server: Server
    skew: float
    lossy: float
    standing: Standing = field(default_factory=Standing)
    led: int = 0

    def clock(self) -> float:
        """Its own clock: any offset, the same rate."""
        return self.world.now + self.skew

    def leading(self) -> bool:
        """Whether it would write now."""
        return leads(self.standing, self.clock(), CONFIG)

    def step(self) -> None:
        """Read; a leader may skip that, a read does it no harm."""
        read: list[LeaseRecord | None] = []
        self.world.after(self.world.delay(), lambda: read.append(self.server.record))

        def answered() -> None:
            if not read:
                self.world.after(0.05, answered)
                return
            self.standing = observe(self.standing, read[0], self.clock())
            self.act()

        self.world.after(self.world.delay(), answered)

    def act(self) -> None:
        """Do what is decided, with a delay before the request leaves, on the wire and on the way back."""
        match decide(self.standing, self.name, self.clock(), CONFIG):
            case Hold(seconds) | Wait(seconds):
                self.world.after(seconds + self.world.delay(), self.step)
            case Renew(version, transitions) | Acquire(version, transitions):
                sent = self.clock()
                self.world.after(self.world.delay(), lambda: self.arrive(sent, version, transitions))

    def arrive(self, sent: float, version: str | None, transitions: int) -> None:
        """The write reaches the server."""
        written = self.server.write(self.name, version, transitions)
        lost = self.world.chance.random() < self.lossy

        def answered() -> None:
            if written and not lost:
                self.standing = renewed(self.standing, written, sent, self.clock())
                self.led += 1
            self.world.after(CONFIG.retry, self.step)

        self.world.after(self.world.delay(), answered)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    skews=st.lists(st.floats(-4000, 4000), min_size=2, max_size=4),
    slow=st.sampled_from([0.5, 3.0, 8.0]),
    lossy=st.sampled_from([0.0, 0.2, 0.6]),
)
def test_two_never_lead(seed: int, skews: list[float], slow: float, lossy: float) -> None:
    """Whatever clocks say, answers take or get lost: at no moment would two candidates write."""
    world, server = World(random.Random(seed), slow), Server()  # noqa: S311  no secret
    candidates = [Candidate(f"c{number}", world, server, skew, lossy) for number, skew in enumerate(skews)]
    for candidate in candidates:
        world.after(world.delay(), candidate.step)

    def check() -> None:
        leading = [candidate.name for candidate in candidates if candidate.leading()]
        assert len(leading) <= 1, f"{leading} lead at {world.now}"

    world.run(300.0, check)
    if slow == 0.5:  # on a usable network somebody leads
        assert sum(candidate.led for candidate in candidates) > 0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), killed_at=st.floats(0, 2))
def test_a_takeover_takes_less_than_fifteen_seconds(seed: int, killed_at: float) -> None:
    """After a leader dies without a word, on a network that takes up to a tenth of a second."""
    world, server = World(random.Random(seed), 0.0), Server()  # noqa: S311  no secret
    first, second = (Candidate(name, world, server, skew, 0.0) for name, skew in (("a", 5000.0), ("b", -5000.0)))
    world.after(0.0, first.step)
    world.after(1.0, second.step)
    world.run(30.0 + killed_at, lambda: None)
    assert first.leading()
    dead = world.now
    first.step = first.act = lambda: None  # type: ignore[method-assign]  # what is tested is who calls them
    took: list[float] = []
    world.run(60.0, lambda: took.append(world.now - dead) if second.leading() else None)
    assert took[0] <= 15.0
