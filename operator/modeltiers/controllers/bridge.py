"""Sees to it that nobody's requests enter at a tier while its last pods are replaced or taken away.

The policies are told first; the Deployment is written once their Services lead elsewhere. Where no other tier could
take the requests, nothing is waited for; and nothing is waited for longer than `PATIENCE`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from modeltiers.controllers.store import Key, Store

PATIENCE: Final = timedelta(seconds=30)
AGAIN: Final = 0.5
"""Seconds between two looks while something is waited for."""


@dataclass(eq=False)
class Bridge:
    """Which tiers are about to have no pod, and since when that is waited for."""

    store: Store
    ring_policy: Callable[[Key], None]
    now: Callable[[], datetime]
    _since: dict[Key, datetime] = field(default_factory=dict)

    def hold(self, key: Key, *, leaves: bool, pending: bool) -> tuple[str, ...]:
        """The policies that must go elsewhere before the tier's Deployment is written; empty when it may be.

        `leaves` says that the tier will have no ready pod for a while; `pending`, that this is still to be written.
        """
        if not leaves:
            self.forget(key)
            return ()
        if key not in self.store.leaving:
            self.store.leaving.add(key)
            for policy in self.store.policies_of(key):
                self.ring_policy(policy)
        here = [policy for policy in self.store.policies_of(key) if self.store.entry_of(policy) == key[1]]
        held = tuple(policy[1] for policy in here if self._refuge(key, policy)) if pending else ()
        if not held:
            self._since.pop(key, None)
            return ()
        return held if self.now() - self._since.setdefault(key, self.now()) < PATIENCE else ()

    def forget(self, key: Key) -> None:
        """The tier has its pods, or is gone: requests may enter there as the policies see fit."""
        self._since.pop(key, None)
        if key in self.store.leaving:
            self.store.leaving.discard(key)
            for policy in self.store.policies_of(key):
                self.ring_policy(policy)

    def ways(self, key: Key) -> tuple[tuple[str, str], ...]:
        """The policies whose requests enter above this tier now, each with the tier where they do."""
        found = []
        for policy in self.store.policies_of(key):
            ladder, entry = self.store.ladders.get(policy, ()), self.store.entry_of(policy)
            if entry in ladder and ladder.index(entry) > ladder.index(key[1]):
                found.append((policy[1], entry))
        return tuple(found)

    def _refuge(self, key: Key, policy: Key) -> bool:
        """Whether another tier of the ladder has a ready pod and is not about to lose it."""
        others = ((key[0], name) for name in self.store.ladders.get(policy, ()) if name != key[1])
        return any(other not in self.store.leaving and self.store.ready_pods(other) for other in others)
