"""Where the requests of a policy enter: the lowest tier of its ladder that can take them, and when to change it.

The entry leaves a tier at once when none of its pods is ready, and goes back to a lower one only after that has been
ready for a while: connections are dropped by neither, but each change makes clients dial anew, and a tier that comes
and goes must not take the entry along. What is remembered is in the cluster, in the selector of the policy's Service
and in the times at which pods became ready, so that a restart changes nothing. It refuses to know a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from modeltiers.domain.conditions import stamp


class Table(Enum):
    """Whether a tier's routers have the policy's table, of the present spec or of an earlier one."""

    THERE = "There"
    """They serve it; or they cannot be asked, and it is where they look for it."""
    COMING = "Coming"
    """They have not read it yet, or were not asked yet."""
    ABSENT = "Absent"
    """They refuse it, or it is not where they look for it."""


def table_at(said: Sequence[tuple[str | None, str]] | None, *, expected: bool) -> Table:
    """Return what is known of the table at a tier: the version that each router serves that answered, and its refusal.

    `said` is None while not all were asked. `expected` says that the table is where they look for it, or about to be.
    """
    if not expected:
        return Table.ABSENT
    if said is None:
        return Table.COMING
    if not said or any(version is not None for version, _ in said):
        return Table.THERE
    return Table.ABSENT if all(refusal for _, refusal in said) else Table.COMING


@dataclass(frozen=True, slots=True)
class Rung:
    """A tier on the ladder whose pods have routers.

    Ready pods are counted and not the tier's own condition Ready asked: that is False also while a rollout is late, a
    quota is full or one replica of three fails, and the pods that are ready answer all the same. It is what the
    EndpointSlices of the Service hang on, too.
    """

    name: str
    ready: tuple[datetime, ...] = ()
    """Since when each of its ready pods is."""
    table: Table = Table.THERE
    leaving: bool = False
    """Its last ready pods are about to be replaced or taken away."""

    @property
    def usable(self) -> bool:
        """Whether requests would be answered here."""
        return bool(self.ready) and self.table is not Table.ABSENT and not self.leaving

    @property
    def since(self) -> datetime:
        """Since when the tier was ready without interruption, at the latest: its oldest ready pod is."""
        return min(self.ready)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where requests enter, why it is not lower, and after how long that may change by the clock alone."""

    tier: str
    """Empty where they enter at routers of the policy's own."""
    reason: str
    message: str
    wait: timedelta | None = None


def by_gateway(serving: int, below: Entry | None) -> Entry:
    """Return where the requests of a policy with a gateway enter: there, or `below` while none of its routers is ready.

    The routers of a tier that has the table can take them as well; where none can, the gateway is waited for.
    """
    if serving or below is None or below.reason == "NoPodReady":
        return Entry("", "Gateway", "requests enter at routers of the policy's own")
    return replace(below, reason="GatewayNotReady", message=f"no router of the policy's own is ready; {below.message}")


def choose_entry(rungs: Sequence[Rung], at: str | None, now: datetime, steady: timedelta) -> Entry | None:
    """Return where requests shall enter, given where they do; None when no tier has routers.

    `rungs` are in the order of the ladder. `at` is None when they enter nowhere yet; then nothing is waited for.
    """
    if not rungs:
        return None
    here = next((rung for rung in rungs if rung.name == at), None)
    if at is None:
        chosen = next((rung for rung in rungs if rung.usable), rungs[0])
    elif here is None or not here.usable:
        chosen = _refuge(rungs) or here or rungs[0]
    else:
        below = rungs[: rungs.index(here)]
        chosen = next((rung for rung in below if _back(rung) and now - rung.since >= steady), here)
    return _told(rungs, chosen, now, steady)


def _refuge(rungs: Sequence[Rung]) -> Rung | None:
    """The lowest tier that answers; one whose routers have not read the table yet only when no other does."""
    usable = [rung for rung in rungs if rung.usable]
    return next((rung for rung in usable if _back(rung)), usable[0] if usable else None)


def _back(rung: Rung) -> bool:
    """Whether the entry may go here of its own accord."""
    return rung.usable and rung.table is Table.THERE


def _told(rungs: Sequence[Rung], chosen: Rung, now: datetime, steady: timedelta) -> Entry:
    if not chosen.ready:
        return Entry(chosen.name, "NoPodReady", "no tier has a ready pod that could take requests")
    below = rungs[: rungs.index(chosen)]
    if not below:
        return Entry(chosen.name, "FirstTier", f"requests enter at {chosen.name}, the first tier that has routers")
    where = f"requests enter at {chosen.name}, since"
    coming = [rung for rung in below if _back(rung)]
    if coming:
        soonest = min(coming, key=lambda rung: rung.since)
        left = min(steady, max(timedelta(), steady - (now - soonest.since)))  # a node's clock may be ahead
        said = f"{where} {soonest.name} has not been ready for {steady.total_seconds():.0f} s on end yet"
        return Entry(chosen.name, "FirstTierUnsteady", said, left)
    leaving = next((rung for rung in below if rung.leaving and rung.ready), None)
    if leaving is not None:
        return Entry(chosen.name, "FirstTierLeaving", f"{where} the pods of {leaving.name} are about to go")
    first = next((rung for rung in below if rung.ready), None)
    if first is None:
        none = " and ".join(rung.name for rung in below)
        verb = "has" if len(below) == 1 else "have"
        return Entry(chosen.name, "FirstTierNotReady", f"{where} {none} {verb} no ready pod")
    return Entry(chosen.name, "TableNotThere", f"{where} the routers of {first.name} do not have the table")


def entry_status(entry: Entry, before: Mapping[str, Any], now: datetime) -> dict[str, Any] | None:
    """The entry as status tells it: `since` moves only with the tier; None where it is no tier."""
    if not entry.tier:
        return None
    since = before.get("since") if before.get("tier") == entry.tier else None
    return {"tier": entry.tier, "since": since or stamp(now)}
