"""Buckets that fill with time, and a queue that is fair between those who wait in it. Pure: time is passed in.

Decides how much may go now, how long the rest takes, and whose turn is next. Knows nothing of requests or of policies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, Literal, TypeVar

from modeltiers.domain.routing.table import Limits

FOREVER: Final = float("inf")
WEIGHT: Final = 0.1
"""The weight of the newest request in the average of how long one takes."""
Cause = Literal["Requests", "Tokens", "Concurrency", "QueueFull", "QueueTimeout"]
T = TypeVar("T", bound=Hashable)


class Bucket:
    """So many a minute, a minute's worth at once; what was taken too much is owed.

    In the long run never more than the rate, in any one minute never more than twice of it.
    """

    __slots__ = ("_rate", "_stamp", "capacity", "level")

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity, self._rate = per_minute, per_minute / 60
        self.level, self._stamp = per_minute, now

    def resize(self, per_minute: float, now: float) -> None:
        """Change the rate; what was used stays used."""
        self.wait(0.0, now)
        self.level += per_minute - self.capacity
        self.capacity, self._rate = per_minute, per_minute / 60

    def wait(self, amount: float, now: float) -> float:
        """Return how many seconds from now the bucket holds this much; 0.0 is now."""
        level = self.level
        if now > self._stamp:
            level += (now - self._stamp) * self._rate
            self.level = level = level if level < self.capacity else self.capacity
            self._stamp = now
        return 0.0 if amount <= level else (amount - level) / self._rate

    def take(self, amount: float) -> None:
        """Take this much out; a negative amount goes back in."""
        level = self.level - amount
        self.level = level if level < self.capacity else self.capacity

    def fits(self, amount: float) -> float:
        """Return what is charged for this much: never more than the bucket can hold, or it would wait for ever."""
        return amount if amount <= self.capacity else self.capacity


class Meter:
    """The state of one set of limits: what is used of each."""

    __slots__ = ("active", "concurrency", "hold", "requests", "tokens")

    def __init__(self, limits: Limits, share: float, now: float) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.concurrency: int | None = None
        self.active = 0
        self.hold = 0.0
        """How long a request takes on average, in seconds."""
        self.set(limits, share, now)

    def set(self, limits: Limits, share: float, now: float) -> None:
        """Take up limits, or new ones; `share` of them is this process's, at least one of each."""
        self.requests = _resized(self.requests, limits.requests_per_minute, share, now)
        self.tokens = _resized(self.tokens, limits.tokens_per_minute, share, now)
        most = limits.concurrency
        self.concurrency = None if most is None else max(1, round(most * share))

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self.active

    def full(self, now: float) -> bool:
        """Whether nothing of the buckets is used: forgetting it would change nothing."""
        return not any(bucket and bucket.wait(bucket.capacity, now) for bucket in (self.requests, self.tokens))

    def blocked(self, tokens: float, now: float) -> tuple[Cause, float] | None:
        """Return what holds a request back now, and for how long; forever means until another one ends."""
        if self.concurrency is not None and self.active >= self.concurrency:
            return "Concurrency", FOREVER
        if self.requests is not None and (wait := self.requests.wait(1.0, now)):
            return "Requests", wait
        if self.tokens is not None and (wait := self.tokens.wait(self.tokens.fits(tokens), now)):
            return "Tokens", wait
        return None

    def estimate(self, ahead: int, tokens_ahead: float, tokens: float, now: float) -> tuple[Cause, float]:
        """Return how long a request waits behind these, and mostly for what."""
        cause: Cause = "Concurrency"
        longest = 0.0
        if self.concurrency is not None and self.active + ahead >= self.concurrency:
            longest = self.hold * (ahead + 1) / self.concurrency
        if self.requests is not None and (wait := self.requests.wait(ahead + 1.0, now)) > longest:
            cause, longest = "Requests", wait
        if self.tokens is not None:
            wait = self.tokens.wait(tokens_ahead + self.tokens.fits(tokens), now)
            if wait > longest:
                cause, longest = "Tokens", wait
        return cause, longest

    def take(self, tokens: float) -> float:
        """Admit a request; returns what of its tokens was charged."""
        self.active += 1
        if self.requests is not None:
            self.requests.level -= 1.0
        bucket = self.tokens
        if bucket is None:
            return 0.0
        charged = tokens if tokens <= bucket.capacity else bucket.capacity
        bucket.level -= charged
        return charged

    def leave(self, seconds: float, correction: float) -> None:
        """End a request that took so long and used so many tokens more than were charged."""
        self.active -= 1
        self.hold += (seconds - self.hold) * (WEIGHT if self.hold else 1.0)
        if self.tokens is not None and correction:
            self.tokens.take(correction)


def _resized(bucket: Bucket | None, per_minute: int | None, share: float, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    size = max(1.0, per_minute * share)
    if bucket is None:
        return Bucket(size, now)
    if bucket.capacity != size:
        bucket.resize(size, now)
    return bucket


class FairQueue(Generic[T]):
    """Those who wait, a line for each flow; the flows take turns. Every step takes the same time, however many wait."""

    __slots__ = ("_depths", "_held", "_lines", "_ring", "deepest", "size")

    def __init__(self) -> None:
        self._lines: dict[Hashable, OrderedDict[T, None]] = {}
        self._ring: OrderedDict[Hashable, None] = OrderedDict()
        self._held: set[Hashable] = set()
        self._depths: dict[int, OrderedDict[Hashable, None]] = {}
        self.deepest = 0
        """The length of the longest line."""
        self.size = 0

    def depth(self, flow: Hashable) -> int:
        """Return how many of a flow wait."""
        line = self._lines.get(flow)
        return 0 if line is None else len(line)

    @property
    def flows(self) -> int:
        """How many flows wait."""
        return len(self._lines)

    @property
    def moving(self) -> bool:
        """Whether anybody waits who is not held back."""
        return bool(self._ring)

    def push(self, flow: Hashable, item: T) -> None:
        """Put one at the end of its flow's line."""
        line = self._lines.get(flow)
        if line is None:
            line = self._lines[flow] = OrderedDict()
            self._ring[flow] = None
        line[item] = None
        self.size += 1
        self._moved(flow, len(line) - 1, len(line))

    def first(self) -> tuple[Hashable, T] | None:
        """Return whose turn it is; they stay in line."""
        for flow in self._ring:
            return flow, next(iter(self._lines[flow]))
        return None

    def turn(self, flow: Hashable) -> None:
        """End a flow's turn: its next one comes after all others'."""
        if flow in self._ring:
            self._ring.move_to_end(flow)

    def discard(self, flow: Hashable, item: T) -> bool:
        """Take one out wherever they stand; False when they do not wait."""
        line = self._lines.get(flow)
        if line is None or item not in line:
            return False
        del line[item]
        self.size -= 1
        self._moved(flow, len(line) + 1, len(line))
        if not line:
            del self._lines[flow]
            self._ring.pop(flow, None)
            self._held.discard(flow)
        return True

    def last_of_longest(self) -> tuple[Hashable, T]:
        """Return the newest of the longest line; somebody must wait."""
        flow = next(iter(self._depths[self.deepest]))
        return flow, next(reversed(self._lines[flow]))

    def hold(self, flow: Hashable) -> None:
        """Let a flow's turns pass until it is released."""
        if flow in self._ring:
            del self._ring[flow]
            self._held.add(flow)

    def release(self, flow: Hashable) -> None:
        """Let a flow take turns again."""
        if flow in self._held:
            self._held.discard(flow)
            self._ring[flow] = None

    def _moved(self, flow: Hashable, before: int, after: int) -> None:
        """Keep the flows sorted by the length of their lines; a length changes by one at a time."""
        if before:
            same = self._depths[before]
            del same[flow]
            if not same:
                del self._depths[before]
        if after:
            self._depths.setdefault(after, OrderedDict())[flow] = None
        if after > self.deepest or (before == self.deepest and before not in self._depths):
            self.deepest = after
