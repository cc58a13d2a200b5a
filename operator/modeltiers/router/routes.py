"""A policy in force: compiled, with the pools of its ladder, and what it learns as requests pass.

What it learns are the held threshold, the share that escalated, and which conversation was given which tier. The
arithmetic is the domain's; here is where the numbers live, bounded, for one process.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from modeltiers.domain.routing import hold, revisions
from modeltiers.domain.routing.accept import CompiledAccept
from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.choose import Choice, CompiledPolicy, Load
from modeltiers.domain.routing.table import Tier
from modeltiers.domain.routing.tally import Tally
from modeltiers.router.upstream import Pool

SESSIONS: Final = 100_000
"""The most conversations that are remembered for one policy; the longest unused is forgotten first."""


class Counts:
    """What a policy's requests met, since a start that has a name: another name means that all began at zero."""

    __slots__ = ("_began", "start", "tally")

    def __init__(self) -> None:
        self.tally = Tally()
        self.start = os.urandom(8).hex()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Return how long it has counted."""
        return time.monotonic() - self._began


class Route:
    """A policy in force."""

    __slots__ = (
        "_sessions",
        "_ttl",
        "accept",
        "counts",
        "escalated",
        "held",
        "local",
        "policy",
        "pools",
        "seconds",
        "table",
    )

    def __init__(
        self,
        policy: CompiledPolicy,
        accept: CompiledAccept,
        table: str,
        pool: Callable[[Tier], Pool],
        old: Route | None,
    ) -> None:
        self.policy, self.accept, self.table = policy, accept, table
        self.pools = tuple(pool(revisions.first(tier)) for tier in policy.ladder)
        seconds = tuple(pool(one) if (one := revisions.second(tier)) else None for tier in policy.ladder)
        self.seconds = seconds if any(seconds) else ()
        """The addresses of the tiers' candidates; empty where no tier has one."""
        self.local = next((tier.name for tier in policy.ladder if revisions.is_beside(tier)), None)
        session = policy.policy.session
        self._ttl = session.ttl_seconds if session is not None else 0
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.held = hold.start(policy)
        self.escalated = hold.Share()
        self.counts = Counts()
        if old is not None:  # a new table of the same policy goes on where the old one was
            self._sessions, self.escalated = old._sessions, old.escalated
            if old.policy.policy.name == policy.policy.name:
                self.counts = old.counts
            if old.policy.policy.score == policy.policy.score:
                self.held = old.held

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        """The addresses of all tiers and their candidates."""
        return (*self.pools, *(pool for pool in self.seconds if pool is not None))

    def pool(self, tier: str, *, candidate: bool = False) -> Pool:
        """Return the addresses of a tier of the ladder; of its candidate, if it has one and that is asked for."""
        place = self.policy.place(tier)
        second = self.seconds[place] if candidate and self.seconds else None
        return second or self.pools[place]

    def revision(self, tier: str, pool: Pool) -> str | None:
        """Return which revision of a tier has these addresses, where it has two."""
        place = self.policy.place(tier)
        return revisions.revision_of(
            self.policy.ladder[place], candidate=bool(self.seconds) and pool is self.seconds[place]
        )

    def load(self, ask: Ask, now: float) -> Load:
        """Return what of the world the choice depends on."""
        usable = tuple([pool.usable(now) for pool in self.pools])
        candidates: tuple[revisions.State, ...] = ()
        if self.seconds:
            candidates, usable = self._candidates(usable, now)
        ready = usable
        saturated: tuple[bool, ...] = ()
        if not all(usable):
            saturated = tuple([pool.saturated(now) for pool in self.pools])
            ready = tuple(map(max, usable, saturated))
        held = self.policy.score.strong_share_permille is not None
        return Load(
            ready,
            self.held.threshold_permille if held else None,
            self._sticky(ask.session, now) if ask.session is not None else None,
            self.escalated.weighed if self.escalated.permille else 0.0,
            saturated,
            candidates,
        )

    def _candidates(self, first: tuple[bool, ...], now: float) -> tuple[tuple[revisions.State, ...], tuple[bool, ...]]:
        """Return how the candidates are, and which tiers take requests by either revision."""
        # One without a share gets nothing, also where the first revision takes no requests.
        second = [
            pool is not None and tier.candidate is not None and tier.candidate.share_permille > 0 and pool.usable(now)
            for pool, tier in zip(self.seconds, self.policy.ladder, strict=True)
        ]
        states: list[revisions.State] = [
            "" if pool is None else ("Ready" if one else "Alone") if other else "NotReady"
            for pool, one, other in zip(self.seconds, first, second, strict=True)
        ]
        return tuple(states), tuple(map(max, first, second))

    def chose(self, choice: Choice) -> None:
        """Learn what was chosen."""
        target = self.policy.score.strong_share_permille
        if target is not None:
            self.held = hold.hold(self.held, target, strong=hold.went_up(self.policy, choice))

    def ended(self, ask: Ask, choice: Choice, tier: str, *, answered: bool, escalated: bool, now: float) -> None:
        """Learn how it ended: which tier answered, and whether a lower one was found wanting first."""
        if choice.cascade or choice.reason == "EscalationCap":
            self.escalated = hold.share(self.escalated, escalated)
        if answered and self._ttl and ask.session is not None:
            self._sessions[ask.session] = tier, now + self._ttl
            self._sessions.move_to_end(ask.session)
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)

    def _sticky(self, session: str, now: float) -> str | None:
        tier, until = self._sessions.get(session, ("", 0.0))
        return tier if now < until and tier in self.policy.names else None
