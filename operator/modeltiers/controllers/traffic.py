"""Reads what routers counted, round after round, and keeps what a policy's status says of its traffic and its cost.

One part of the program, in the background: reconciles read the results and wait for nothing. All of it is lost with the
program, and `since` in the status says so. The arithmetic is in `domain/policy_traffic.py` and `policy_cost.py`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from modeltiers import names
from modeltiers.api.parse import Fault, parse
from modeltiers.api.settings import FactsSettings
from modeltiers.controllers.routers import AT_ONCE, Routers, can_be_asked
from modeltiers.controllers.store import Key, OwnerKey, Store, policy_key
from modeltiers.domain.conditions import stamp
from modeltiers.domain.policy_cost import TierMoney, cost_of
from modeltiers.domain.policy_traffic import GPU_MILLIS, LOST, SERVED, Window, due, readings, traffic_of
from modeltiers.domain.policy_verdict import RouterFacts
from modeltiers.domain.views import PodView, instant

BATCH: Final = AT_ONCE // 2
"""Pods that a round asks at once: half of what may be, so that a reconcile's questions are not behind all of them."""
SOON: Final = 3.0
"""Seconds after the start until the first round, from which on increments are known."""
UNREAD: Final = 2
"""Rounds in a row in which a pod could not be asked, after which its requests count as missing."""
SHOWN: Final = ("traffic", "cost")

Facts = Mapping[str, Any]
"""`traffic` and `cost` as in a policy's status."""


@dataclass(slots=True)
class _Asked:
    """A pod that is asked, and how that goes."""

    policies: set[Key]
    ready: bool = False
    failures: int = 0
    unread: bool = False
    """It took requests and could not be asked, and was not read since."""
    back: bool = False
    """It was unread until now."""
    read: bool = False
    """It was read at least once, before this round."""


@dataclass(eq=False)
class Traffic:
    """What the routers of all policies counted."""

    store: Store
    routers: Routers
    settings: FactsSettings
    ring_policy: Callable[[Key], None]
    leading: Callable[[], bool]
    now: Callable[[], datetime]
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    round_seconds: float = 0.0
    """How long the last round took."""
    _followed: dict[Key, str] = field(default_factory=dict)  # the uid of each policy that has a table
    _windows: dict[Key, Window] = field(default_factory=dict)  # of these, and of what else is counted on their tiers
    _asked: dict[str, _Asked] = field(default_factory=dict)  # by the pod's uid
    _read_at: float = 0.0
    _said: dict[Key, tuple[RouterFacts, ...] | None] = field(default_factory=dict)
    _fresh: dict[Key, Facts] = field(default_factory=dict)
    _shown: dict[Key, Facts] = field(default_factory=dict)
    _tiers: dict[Key, tuple[str, TierMoney, int]] = field(default_factory=dict)  # with the version they were read at

    # --- what reconciles do -------------------------------------------------------------------------------------------

    def follow(self, key: Key, uid: str) -> None:
        """Read the counters of a policy from now on."""
        if self._followed.get(key) != uid:
            self.forget(key)
            self._followed[key] = uid
            self._windows[key] = self._window()

    def forget(self, key: Key) -> None:
        """Read them no more."""
        for kept in (self._followed, self._windows, self._said, self._fresh, self._shown):
            kept.pop(key, None)

    def facts(self, key: Key, status: Facts, *, changed: bool) -> Facts:
        """Return what the status should say: what it says now, or the fresh facts where they are due.

        `changed` says that the status is written anyway.
        """
        shown = {name: status[name] for name in SHOWN if name in status}
        fresh = self._fresh.get(key)
        if fresh is not None and self._due(shown, fresh, 0 if changed else self.settings.write_seconds):
            shown = dict(fresh)
        self._shown[key] = shown
        return shown

    # --- rounds -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read all counters every so often, until cancelled."""
        pause = min(SOON, self.settings.read_seconds)
        while True:
            await asyncio.sleep(pause * (0.9 + 0.2 * self.jitter()))
            pause = self.settings.read_seconds
            if self.leading():
                began = self.clock()
                await self.round()
                self.round_seconds = self.clock() - began
            else:  # who leads reads; what was read before has a gap after it
                self._windows = {key: self._window() for key in self._followed}
                self._fresh.clear()

    async def round(self) -> None:
        """Read all counters once, and ring the policies whose status has something new to say."""
        deciding = {key: self._deciding(key) for key in self._followed}
        pods = {pod.uid: (key[0], pod) for key, found in deciding.items() for pod in found}
        asked = [pod for _, pod in pods.values()]
        for begin in range(0, len(asked), BATCH):
            await self.routers.read(asked[begin : begin + BATCH], self.settings.read_seconds / 2)
        now = self.clock()
        self._note(deciding, now)
        self._measure(self._take(pods.values(), now), now)
        self._tiers = {tier: known for tier, known in self._tiers.items() if tier in self.store.tiers}
        for key in [key for key in deciding if key in self._windows]:
            if self._look(key, deciding[key], now):
                self.ring_policy(key)
            await asyncio.sleep(0)  # so that others get their turn between two of hundreds

    def _window(self) -> Window:
        return Window(self.clock(), float(self.settings.window_seconds))

    def _deciding(self, key: Key) -> list[PodView]:
        """The pods whose routers may decide for a policy, those included that drain."""
        owners: list[OwnerKey] = [(key[0], tier) for tier in self.store.ladders.get(key, ())]
        owners.append(policy_key(key))
        return [pod for owner in owners for pod in self.store.pods_of(owner) if _has_router(pod) and can_be_asked(pod)]

    def _note(self, deciding: Mapping[Key, Iterable[PodView]], now: float) -> None:
        """Note who could not be asked, and who is gone with what nobody had read."""
        asked: dict[str, _Asked] = {}
        for key, pods in deciding.items():
            for pod in pods:
                said = self.routers.last(pod)
                if (one := asked.get(pod.uid)) is None:
                    one = asked[pod.uid] = self._asked.get(pod.uid) or _Asked(set())
                    one.ready = pod.ready
                    one.failures = 0 if said is not None and said.status is not None else one.failures + 1
                    one.back = one.unread and not one.failures
                    one.unread = one.failures > 0 and (one.unread or (one.failures >= UNREAD and one.ready))
                one.policies.add(key)
        for uid, one in self._asked.items():
            if one.unread and uid not in asked:
                for key in one.policies & self._windows.keys():
                    self._windows[key].add({(LOST, ""): 1}, now)
        self._asked = asked

    def _take(self, pods: Iterable[tuple[str, PodView]], now: float) -> Mapping[Key, int]:
        """Add what has been counted; returns the tokens that each tier served for all its policies."""
        served: dict[Key, int] = defaultdict(int)
        there = set(self._followed)
        for namespace, pod in pods:
            said = self.routers.last(pod)
            one = self._asked[pod.uid]
            if said is None or said.status is None:
                continue
            for reading in readings(said.status):
                key = namespace, reading.policy
                there.add(key)
                if (window := self._windows.get(key)) is None:
                    window = self._windows[key] = self._window()
                known = window.knows(reading.start)
                for (kind, tier), count in window.take(reading, said.at, now).items():
                    if kind in ("prompt", "completion"):
                        served[namespace, tier] += count
                if one.back and not known and (one.read or not window.whole(reading.start)):
                    window.add({(LOST, ""): 1}, now)  # it counted what nobody could read
            one.read = True
        self._windows = {key: window for key, window in self._windows.items() if key in there}
        return served

    def _measure(self, served: Mapping[Key, int], now: float) -> None:
        """Add the time of accelerators, and what was served with it, to each policy that crosses a tier."""
        for key in self._followed.keys() & self._windows.keys():
            window, ladder = self._windows[key], self.store.ladders.get(key, ())
            millis = 1000 * max(0.0, now - max(self._read_at, window.began))
            held = {(GPU_MILLIS, tier): round(millis * self._accelerators((key[0], tier))) for tier in ladder}
            window.add({**held, **{(SERVED, tier): served.get((key[0], tier), 0) for tier in ladder}}, now)
        self._read_at = now

    def _look(self, key: Key, pods: Sequence[PodView], now: float) -> bool:
        """Work out what the status should say; returns whether it should now, or the routers say something else."""
        said = self.routers.facts([pod for pod in pods if pod.ready], key[1])
        before, self._said[key] = self._said.get(key, said), said
        if fresh := self._facts(key, pods, now):
            self._fresh[key] = fresh
            if self._due(self._shown.get(key, {}), fresh, self.settings.write_seconds):
                return True
        return before != said

    def _facts(self, key: Key, pods: Iterable[PodView], now: float) -> Facts:
        """The facts; none as long as nothing is known to be otherwise than a status may say already."""
        window, ladder = self._windows[key], self.store.ladders.get(key, ())
        counts = window.sums(now)
        if not ladder or not (window.full(now) or any(kind == "answered" for kind, _ in counts)):
            return {}
        missing = any(one.unread and one.ready for one in self._of(pods))
        partial = missing or bool(counts.get((LOST, "")))
        until = self.now()
        since = until - timedelta(seconds=now - window.since(now))
        traffic = traffic_of(counts, ladder, stamp(since), stamp(until), partial=partial)
        money = [self._tier((key[0], tier))[0] for tier in ladder]
        return {"traffic": traffic, "cost": cost_of(counts, money, partial=partial)}

    def _of(self, pods: Iterable[PodView]) -> Iterable[_Asked]:
        return (one for pod in pods if (one := self._asked.get(pod.uid)) is not None)

    def _due(self, shown: Facts, fresh: Facts, least: float) -> bool:
        until = instant(str((shown.get("traffic") or {}).get("until", "")))
        return due(shown, fresh, None if until is None else (self.now() - until).total_seconds(), least)

    # --- tiers --------------------------------------------------------------------------------------------------------

    def _accelerators(self, tier: Key) -> int:
        """How many accelerators the pods of a tier hold now."""
        each = self._tier(tier)[1]
        return each * sum(1 for pod in self.store.pods_of(tier) if pod.node and not pod.finished)

    def _tier(self, tier: Key) -> tuple[TierMoney, int]:
        """The price of a tier, and the accelerators of one of its pods."""
        kept = self.store.tiers.get(tier)
        version = kept.version if kept else ""
        known = self._tiers.get(tier)
        if known is None or known[0] != version:
            body = kept.body() if kept else {}
            read = parse(body) if kept else None
            spec = None if read is None or isinstance(read, Fault) else read.spec
            each = ((body.get("status") or {}).get("sizing") or {}).get("gpusPerReplica", 0)
            count = each if spec is not None and spec.external is None and isinstance(each, int) else 0
            known = self._tiers[tier] = version, TierMoney.of(tier[1], spec), count
        return known[1].shared_by(len(self.store.policies_of(tier))), known[2]


def _has_router(pod: PodView) -> bool:
    return any(container.name == names.ROUTER_CONTAINER for container in pod.containers)
