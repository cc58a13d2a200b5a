"""Whether the routers have the keys that a policy needs: those that its clients show, and the one that signs hops.

The operator may read no Secret; what is known comes from the routers, which tell names and never keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeltiers import names
from modeltiers.api.routingpolicy import Access
from modeltiers.domain.conditions import Observation
from modeltiers.domain.policy_reasons import KEYS_FOUND


@dataclass(frozen=True, slots=True)
class Keys:
    """What one router said of its keys."""

    known: int
    """How many client keys it has."""
    missing: tuple[str, ...]
    """Those that the policy names and it does not have."""
    signs: bool
    """Whether it has a key to sign hops with."""
    problem: str = ""
    """What is wrong with the file of client keys, in its words."""

    @classmethod
    def of(cls, status: Mapping[str, Any], policy: str) -> Keys | None:
        """Read a router's /status; None where it says nothing of keys, or does not have the policy."""
        routes = status.get("policies")
        route = routes.get(policy) if isinstance(routes, dict) else None
        missing = route.get("missingKeys") if isinstance(route, dict) else None
        if not isinstance(missing, list) or not isinstance(status.get("keys"), int):
            return None
        problem = str(status.get("refusedKeys") or "")
        return cls(status["keys"], tuple(map(str, missing)), bool(status.get("signs")), problem)


def observe_keys(routers: Sequence[Keys], access: Access | None, *, hops: bool) -> Observation:
    """The condition KeysFound of a policy with this access, whose ladder has hops or not."""
    if access is None or access.mode == "Open":
        wanted = "no key is asked of clients"
    else:
        wanted = f"keys asked of clients: {', '.join(access.keys) or 'any'}"
    if not routers:
        return Observation(KEYS_FOUND, "Unknown", "KeysNotKnown", f"{wanted}; no router was asked that has the table")
    if (said := _missing(routers, access)) is not None:
        return Observation(KEYS_FOUND, "False", "KeyMissing", said)
    if hops and (unable := sum(not one.signs for one in routers)):
        said = f"{unable} of {len(routers)} routers cannot sign what they forward, which then stays on its first tier"
        way_out = f"the operator makes Secret {names.HOP_SECRET} anew if it is gone; nodes need a minute to bring it"
        return Observation(KEYS_FOUND, "False", "HopKeyMissing", f"{said}; {way_out}")
    return Observation(KEYS_FOUND, "True", "AllFound", f"{wanted}; {len(routers)} routers have what they need")


def _missing(routers: Sequence[Keys], access: Access | None) -> str | None:
    """What is missing of the keys that clients show, and the way out; None when nothing is."""
    if access is None or access.mode == "Open":
        return None
    named = sorted({name for one in routers for name in one.missing})
    without = [one for one in routers if one.missing or not one.known]
    if not without:
        return None
    problem = next((f" ({one.problem})" for one in without if one.problem), "")
    where = f"to {names.CLIENT_KEYS} in Secret {names.CLIENT_KEYS_SECRET} of this namespace"
    what = f"the key {named[0]}" if len(named) == 1 else f"the keys {', '.join(named[:8])}" if named else "any key"
    said = f"{len(without)} of {len(routers)} routers do not know {what}{problem}"
    path = "spec.access.keys" if named else "spec.access"
    return f"{path}: {said}: add {'it' if len(named) == 1 else 'them' if named else 'one'} {where}; nodes need a minute"
