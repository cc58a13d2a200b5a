"""The keyed work queue: events ring a key, workers serve it, and one key is never served twice at a time.

A ring while the key is being served makes it be served once more afterwards: nothing is lost and nothing runs in
parallel with itself. It refuses to know what a key stands for or what serving it does; faults come back as a delay
to wait.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

Serve = Callable[[K], Awaitable[float | None]]
"""Serves one key; returns seconds after which to serve it again by the clock, or None."""

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 300.0


class RetryAfter(Exception):
    """Serving failed for now.

    `seconds` is what the other side asked for, None to back off by ourselves, for `longest` seconds at most.
    """

    def __init__(self, reason: str, seconds: float | None = None, longest: float = LONGEST_DELAY) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.longest = longest


@dataclass(eq=False)
class WorkQueue(Generic[K]):
    """Keys waiting to be served, oldest ring first."""

    clock: Callable[[], float]
    jitter: Callable[[], float] = random.random
    _waiting: dict[K, float] = field(default_factory=dict)  # key -> when it was rung; insertion order is service order
    _serving: dict[K, float] = field(default_factory=dict)
    _failures: dict[K, int] = field(default_factory=dict)
    _timers: dict[K, asyncio.TimerHandle] = field(default_factory=dict)
    _bell: asyncio.Event = field(default_factory=asyncio.Event)

    def ring(self, key: K, *, urgent: bool = False) -> None:
        """Ask for the key to be served soon.

        A key that is backing off waits its time out, or an object that fails would spin with its own events. What
        changes the odds, such as a new spec, is `urgent` and does not wait.
        """
        if key in self._timers and self._failures.get(key) and not urgent:
            return
        self._cancel_timer(key)
        if key not in self._waiting:
            self._waiting[key] = self.clock()
            self._bell.set()

    def ring_after(self, key: K, seconds: float) -> None:
        """Ask for the key to be served after some time; an earlier ring comes first and cancels this one."""
        if key in self._waiting:
            return
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._on_timer, key)

    def forget(self, key: K) -> None:
        """Drop what is remembered of a key that is gone for good."""
        self._failures.pop(key, None)
        self._cancel_timer(key)

    @property
    def depth(self) -> int:
        """Keys that wait or are being served."""
        return len(self._waiting) + len(self._serving)

    def oldest_age(self) -> float:
        """Seconds since the oldest ring that is not served yet; 0 when nothing waits."""
        rung = (*self._waiting.values(), *self._serving.values())
        return max(0.0, self.clock() - min(rung)) if rung else 0.0

    async def work(self, serve: Serve[K]) -> None:
        """Serve keys for ever; run as many of these as there should be keys served at once."""
        while True:
            key = await self._take()
            try:
                again = await serve(key)
            except RetryAfter as fault:
                self._back_off(key, fault)
            else:
                self._failures.pop(key, None)
                if again is not None:
                    self.ring_after(key, again)
            finally:
                del self._serving[key]
                self._bell.set()

    async def _take(self) -> K:
        while True:
            for key in self._waiting:
                if key not in self._serving:
                    self._serving[key] = self._waiting.pop(key)
                    return key
            self._bell.clear()
            await self._bell.wait()

    def _back_off(self, key: K, fault: RetryAfter) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        growing = min(fault.longest, FIRST_DELAY * 2.0 ** min(failures - 1, 20))
        # Jitter over the upper half, so that a crowd that failed together does not come back together.
        delay = growing * (0.5 + self.jitter() / 2)
        self.ring_after(key, delay if fault.seconds is None else max(delay, fault.seconds))

    def _on_timer(self, key: K) -> None:
        del self._timers[key]
        self.ring(key)

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
