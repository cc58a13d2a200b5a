"""What requests met on a student and on the incumbent beside it, since a step of its canary began.

Routers count attempts by revision and outcome from their own start on; the step's share is what they counted since.
Where the step began is remembered here alone: an operator that starts anew begins to count then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers import names
from modeltiers.controllers.routers import Routers, can_be_asked
from modeltiers.controllers.store import Key, OwnerKey, Store, policy_key
from modeltiers.domain.distill.promotion import Counted
from modeltiers.domain.views import PodView

JUDGED: Final = ("Answered", "Escalated", "Abandoned", "Failed")
"""Outcomes that say something of the model; the others are the client's or the router's own."""
_Counts = Mapping[tuple[str, str], int]
"""By revision and outcome."""


@dataclass(eq=False)
class CanaryCounts:
    """Counts of the canaries under way."""

    store: Store
    routers: Routers
    _began: dict[Key, tuple[str, dict[str, _Counts]]] = field(default_factory=dict)

    def look(self, tier: Key, step: str, then: Any) -> dict[str, Counted]:
        """By revision; `step` names the step, `then` is called when there is news."""
        pods = [pod for pod in self._pods(tier) if can_be_asked(pod)]
        self.routers.ask(pods, 2.0, then)
        now = {pod.uid: _counts(self._status(pod), tier[1]) for pod in pods}
        mark, began = self._began.get(tier, ("", {}))
        if mark != step:
            began = dict(now)
            self._began[tier] = (step, began)
        return _sums((_since(began.get(uid, {}), counts)) for uid, counts in now.items())

    def forget(self, tier: Key) -> None:
        """No canary is under way."""
        self._began.pop(tier, None)

    def _pods(self, tier: Key) -> Iterable[PodView]:
        """Pods whose routers may ask the tier."""
        owners: set[OwnerKey] = {tier}
        for policy in self.store.policies_of(tier):
            owners |= {policy_key(policy), *((tier[0], name) for name in self.store.ladders.get(policy, ()))}
        return [pod for owner in sorted(owners) for pod in self.store.pods_of(owner)]

    def _status(self, pod: PodView) -> Mapping[str, Any]:
        said = self.routers.last(pod)
        return (said.status if said else None) or {}


def _counts(status: Mapping[str, Any], tier: str) -> _Counts:
    found = (status.get("revisions") or {}).get(tier)
    if not isinstance(found, dict):
        return {}
    return {
        (revision, outcome): count
        for revision, outcomes in found.items()
        if isinstance(outcomes, dict)
        for outcome, count in outcomes.items()
        if isinstance(count, int)
    }


def _since(before: _Counts, now: _Counts) -> _Counts:
    """What was counted since; all of it where the router began anew."""
    anew = any(now.get(label, 0) < count for label, count in before.items())
    return now if anew else {label: count - before.get(label, 0) for label, count in now.items()}


def _sums(counts: Iterable[_Counts]) -> dict[str, Counted]:
    sums: dict[tuple[str, str], int] = {}
    for one in counts:
        for label, count in one.items():
            sums[label] = sums.get(label, 0) + count
    return {
        revision: Counted(
            attempts=sum(sums.get((revision, outcome), 0) for outcome in JUDGED),
            failed=sums.get((revision, "Failed"), 0),
            escalated=sums.get((revision, "Escalated"), 0) + sums.get((revision, "Abandoned"), 0),
        )
        for revision in (names.FIRST_REVISION, names.SECOND_REVISION)
    }
