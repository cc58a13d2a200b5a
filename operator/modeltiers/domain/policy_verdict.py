"""What a policy's conditions and status say: pure functions from everything that was gathered to what is written.

The promises are those of a tier (`verdict`): Ready is True only when the present spec serves, False only for a
confirmed failure, Unknown on the way; Reconciling and Stalled are never both True; the same facts give the same
conditions. A policy that cannot be compiled says so while its last good table goes on serving. It refuses to know how
facts are gathered, and no clock: the time comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from modeltiers.api.routingpolicy import Access, RoutingPolicySpec
from modeltiers.domain import conditions
from modeltiers.domain.conditions import Observation, Status
from modeltiers.domain.engine_messages import quote
from modeltiers.domain.entry import Entry
from modeltiers.domain.export import Exported
from modeltiers.domain.facts import ApplyError, FleetFacts
from modeltiers.domain.policy_keys import Keys, observe_keys
from modeltiers.domain.policy_reasons import COMPILED, DOUBTFUL, ENTRY, EXPORTED, LIVE, ORDER, TIERS_READY
from modeltiers.domain.policy_table import CompiledTable, Doubt, Fault

ASK_AGAIN: Final = timedelta(seconds=1)
"""How soon the routers are asked again while a table is on its way to them."""
LOOK_AGAIN: Final = timedelta(seconds=30)
"""How soon routers that could not be asked are asked again."""
MOST_DOUBTS: Final = 20


# --- what was gathered ------------------------------------------------------------------------------------------------


class Standing(Enum):
    """How a tier on the ladder is."""

    READY = "Ready"
    """It answers."""
    ASLEEP = "Asleep"
    """It is scaled to zero, as its spec asks."""
    PROGRESSING = "Progressing"
    """It is on the way."""
    STALLED = "Stalled"
    """Something stands in its way."""
    DELETING = "Deleting"
    """It is being deleted."""
    MISSING = "Missing"
    """There is none of this name."""


@dataclass(frozen=True, slots=True)
class TierFacts:
    """A tier on the ladder: how it is, and what its own Ready condition says."""

    name: str
    standing: Standing
    message: str = ""


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """One router that should serve the table, and what its /status said."""

    pod: str
    reached: bool = True
    version: str | None = None
    """Version of this policy's table that it serves; None when it has none."""
    refused: str = ""
    """Why it refused the table, in its own words."""
    keys: Keys | None = None
    """What it said of its keys; None where it said nothing."""

    def behind(self, version: str) -> bool:
        """Whether it serves another table than this, and did not refuse it."""
        return self.reached and not self.refused and self.version != version


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """Everything that is known of one policy."""

    namespace: str
    name: str
    generation: int
    deleting: bool = False
    fault: tuple[tuple[str, str], ...] | None = None
    """Paths and messages, where the stored object is not valid."""
    model: str = ""
    """The name that clients ask for."""
    older: str | None = None
    """Name of an older policy with the same model name."""
    cycle: tuple[str, ...] = ()
    """Policies through which the ladder leads back to this one, this one first and last."""
    tiers: tuple[TierFacts, ...] = ()
    """In the order of the ladder."""
    faults: tuple[Fault, ...] = ()
    """Why the present spec does not compile."""
    arriving: timedelta | None = None
    """How long what the spec refers to may still be on its way; None once it should be there."""
    table: CompiledTable | None = None
    """The table of the present spec."""
    last_good: str | None = None
    """Version of the table that is on the shelf, of this spec or an earlier one."""
    apply_error: ApplyError | None = None
    """The first write of a child that failed."""
    routers: tuple[RouterFacts, ...] = ()
    """The routers that should serve the table."""
    access: Access | None = None
    """Who may ask."""
    entry: Entry | None = None
    """Where requests enter; None while they enter nowhere."""
    gateway: FleetFacts | None = None
    """How the policy's own routers are; None where it wants none."""
    router_image: bool = True
    """Whether the settings name an image for routers."""
    exported: Exported | None = None
    """What became of its HTTPRoute; None where it asks for none."""


def oldest(policies: Iterable[tuple[str, str]]) -> str | None:
    """Of policies with one model name, the one that keeps it: (creation time, name), the oldest, then by name."""
    return min(policies, default=("", None))[1]


def cycle(policy: str, ladders: Mapping[str, Sequence[str]], leads_to: Mapping[str, str]) -> tuple[str, ...]:
    """Return a way from a policy back to itself: its name, those between, its name again; empty when there is none.

    `ladders` has the tiers of each policy; `leads_to` the policy behind an external tier whose base URL is its Service.
    """
    came: dict[str, str] = {}
    front = [policy]
    while front:
        here = front.pop()
        for tier in ladders.get(here, ()):
            there = leads_to.get(tier)
            if there == policy:
                way = [policy, here]
                while way[-1] != policy:
                    way.append(came[way[-1]])
                return tuple(reversed(way)) if here != policy else (policy, policy)
            if there is not None and there not in came:
                came[there] = here
                front.append(there)
    return ()


# --- the verdict ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conditions to write, and after how long to look again by the clock; None if only events matter."""

    conditions: list[dict[str, Any]]
    wait: timedelta | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the policy is, before it is told in conditions."""

    ready: Status
    reason: str
    message: str
    reconciling: bool = False
    stalled: bool = False
    wait: timedelta | None = None


def judge(facts: PolicyFacts, previous: Sequence[Mapping[str, Any]], now: datetime) -> Verdict:
    """The conditions of a policy, laid over the ones written last."""
    observed = [_accepted(facts), _compiled(facts), _tiers_ready(facts), _live(facts), _keys(facts)]
    outcome = _outcome(facts, observed)
    observed += [_entry(facts), *_summary(outcome), _doubtful(facts)]
    if facts.exported is not None:
        observed.append(Observation(EXPORTED, facts.exported.status, facts.exported.reason, facts.exported.message))
    timed = (outcome, facts.entry, facts.exported)
    waits = [one.wait for one in timed if one is not None and one.wait is not None]
    return Verdict(conditions.merge(previous, observed, facts.generation, now, ORDER), min(waits, default=None))


def _accepted(facts: PolicyFacts) -> Observation:
    if facts.fault is not None:
        said = _listed(facts.fault) or "the stored object is not valid: apply a valid one"
        return Observation(conditions.ACCEPTED, "False", "InvalidSpec", said)
    if facts.older is not None:
        said = f"spec.model: the older policy {facts.older} has the model name {facts.model} already"
        way_out = "choose another name, or delete that policy"
        return Observation(conditions.ACCEPTED, "False", "ModelNameTaken", f"{said}; {way_out}")
    if facts.cycle:
        said = f"spec.tiers: the ladder leads back to this policy: {' > '.join(facts.cycle)}"
        way_out = "take the external tier that closes the circle off one of the ladders"
        return Observation(conditions.ACCEPTED, "False", "LadderInCircle", f"{said}; {way_out}")
    return Observation(conditions.ACCEPTED, "True", "Valid", "the spec is valid and allowed")


def _compiled(facts: PolicyFacts) -> Observation:
    if _accepted(facts).status != "True":
        return Observation(COMPILED, "Unknown", "NotCompiled", "compiling waits for a spec that is accepted")
    if facts.faults:
        found = [(one.path, one.message) for one in facts.faults]
        return Observation(COMPILED, "False", facts.faults[0].reason, _listed(found))
    if facts.table is None:
        return Observation(COMPILED, "Unknown", "NotCompiled", "not compiled yet")
    said = f"table {facts.table.version}, {facts.table.size:,} bytes"
    return Observation(COMPILED, "True", "Compiled", said)


_NOT_READY: Final[Mapping[Standing, str]] = {
    Standing.MISSING: "there is no ModelTier of this name",
    Standing.DELETING: "is being deleted",
    Standing.STALLED: "is stalled",
    Standing.PROGRESSING: "is not ready yet",
    Standing.ASLEEP: "is scaled to zero",
}
_WORST: Final = (Standing.MISSING, Standing.DELETING, Standing.STALLED, Standing.PROGRESSING)
_WORDS: Final[Mapping[Standing, str]] = {
    Standing.MISSING: "TierNotFound",
    Standing.DELETING: "TierDeleting",
    Standing.STALLED: "TierStalled",
    Standing.PROGRESSING: "TierNotReady",
}


def _tiers_ready(facts: PolicyFacts) -> Observation:
    if not facts.tiers:
        return Observation(TIERS_READY, "Unknown", "TiersNotKnown", "the tiers were not looked at yet")
    told = "; ".join(_of_tier(one) for one in facts.tiers if one.standing is not Standing.READY)
    for standing in _WORST:
        if any(one.standing is standing for one in facts.tiers):
            return Observation(TIERS_READY, "False", _WORDS[standing], told)
    if told:
        return Observation(TIERS_READY, "True", "SomeAsleep", f"{told}; requests go past it")
    return Observation(TIERS_READY, "True", "AllReady", f"{', '.join(one.name for one in facts.tiers)} answer")


def _of_tier(tier: TierFacts) -> str:
    said = quote(tier.message, 256)
    return f"ModelTier {tier.name} {_NOT_READY[tier.standing]}" + (f": {said.rstrip('.')}" if said else "")


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the present table has come."""

    live: int
    unreachable: int
    pods: int
    refused: RouterFacts | None = None

    @classmethod
    def of(cls, facts: PolicyFacts) -> Reach:
        """Count the routers."""
        version = facts.table.version if facts.table else None
        live = [one for one in facts.routers if one.reached and version is not None and one.version == version]
        refused = next((one for one in facts.routers if one.reached and one.refused and one not in live), None)
        return cls(len(live), sum(not one.reached for one in facts.routers), len(facts.routers), refused)

    @property
    def shown(self) -> str:
        """For the LIVE column."""
        return f"{self.live}/{self.pods}"

    def __str__(self) -> str:
        rest = f"; {self.unreachable} cannot be asked" if self.unreachable else ""
        return f"live in {self.live} of {self.pods} routers{rest}"


def _live(facts: PolicyFacts) -> Observation:
    reach = Reach.of(facts)
    if facts.table is None:
        return Observation(LIVE, "Unknown", "NoTable", f"the present spec has no table. {_serves(facts)}".strip())
    told = f"table {facts.table.version} is {reach}"
    if reach.refused is not None:
        said = f"{told}; pod {facts.namespace}/{reach.refused.pod} refuses it: “{quote(reach.refused.refused)}”"
        way_out = "a router of an older version may not know a field: restart its tier, or remove the field"
        return Observation(LIVE, "False", "TableRefused", f"{said}. {way_out[:1].upper()}{way_out[1:]}")
    if not facts.router_image and (reach.pods == 0 or facts.gateway is not None):
        said = "the settings name no image for routers, so that nothing serves the table as the spec asks"
        return Observation(LIVE, "False", "NoRouterImage", f"{said}; have an administrator set router.image")
    if reach.pods == 0:
        return Observation(LIVE, "Unknown", "NoRouters", "no router is there yet that could serve the table")
    if reach.live == reach.pods:
        return Observation(LIVE, "True", "LiveEverywhere", told)
    if reach.live + reach.unreachable == reach.pods:
        way_out = "routers are asked again; let the operator reach their admin port if this stays"
        return Observation(LIVE, "Unknown", "RoutersUnreachable", f"{told}; {way_out}")
    return Observation(LIVE, "False", "Spreading", f"{told}; the others are being told")


_ENTERED: Final[Mapping[str, Status]] = {"FirstTier": "True", "Gateway": "True", "NoPodReady": "Unknown"}


def _entry(facts: PolicyFacts) -> Observation:
    if facts.entry is None:
        return Observation(ENTRY, "Unknown", "NoEntry", "no tier has routers with a table for this policy yet")
    return Observation(ENTRY, _ENTERED.get(facts.entry.reason, "False"), facts.entry.reason, facts.entry.message)


def _keys(facts: PolicyFacts) -> Observation:
    # What a router misses depends on the table that it serves.
    serving = [one for one in facts.routers if facts.table is not None and one.version == facts.table.version]
    return observe_keys([one.keys for one in serving if one.keys], facts.access, hops=len(facts.tiers) > 1)


def _doubtful(facts: PolicyFacts) -> Observation:
    if facts.table is None:
        return Observation(DOUBTFUL, "Unknown", "NotLinted", "only a spec that compiles is looked at")
    doubts = facts.table.doubts
    if not doubts:
        return Observation(DOUBTFUL, "False", "NothingDoubtful", "nothing in the spec is idle or contradicts itself")
    return Observation(DOUBTFUL, "True", "DoubtsFound", _listed([(one.path, one.message) for one in doubts]))


def _listed(items: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{path}: {quote(message, 512)}" if path else quote(message, 512) for path, message in items[:3])
    return f"{shown}; and {len(items) - 3} more" if len(items) > 3 else shown


# --- the summary ------------------------------------------------------------------------------------------------------


def _outcome(facts: PolicyFacts, observed: Sequence[Observation]) -> _Outcome:
    """Ready takes the first thing that is wrong, in the order: spec, table, write, routers, keys, tiers."""
    accepted, compiled, tiers, live, keys = observed
    if facts.deleting:
        return _Outcome("Unknown", "Terminating", "the policy is being deleted", reconciling=True)
    if facts.arriving is not None and accepted.status == "True" and _refers_to_what_is_not_there(facts):
        said = f"{compiled.message}. {_serves(facts)}".strip()
        return _Outcome("Unknown", compiled.reason, said, reconciling=True, wait=facts.arriving)
    for item in (accepted, compiled):
        if item.status == "False":
            return _Outcome("False", item.reason, f"{item.message}. {_serves(facts)}".strip(), stalled=True)
    if compiled.status == "Unknown":
        return _Outcome("Unknown", compiled.reason, compiled.message, reconciling=True)
    if facts.apply_error is not None:
        return _unwritten(facts, facts.apply_error)
    if live.reason in ("TableRefused", "NoRouterImage"):
        return _Outcome("False", live.reason, f"{live.message}. {_serves(facts)}".strip(), stalled=True)
    if keys.status == "False":
        waits = keys.reason == "HopKeyMissing"
        return _Outcome("Unknown" if waits else "False", keys.reason, keys.message, waits, not waits, LOOK_AGAIN)
    return _through_gateway(facts, _served(facts, tiers, live))


def _refers_to_what_is_not_there(facts: PolicyFacts) -> bool:
    """Whether that alone is wrong with the spec; a tier may itself wait for the job that it follows."""
    passing = ("TierNotFound", "TierNotAccepted", "DistillJobNotFound")
    return bool(facts.faults) and all(one.reason in passing for one in facts.faults)


def _through_gateway(facts: PolicyFacts, served: _Outcome) -> _Outcome:
    """What the policy's own routers make of it, if it wants any."""
    gateway = facts.gateway
    told = f"the policy's own routers: {gateway.reason}: {gateway.message}" if gateway else ""
    if gateway is not None and gateway.failed:
        return _Outcome("False", "GatewayFailed", told, stalled=True)
    if gateway is not None and not gateway.serving and served.ready == "True":
        return _Outcome("Unknown", "GatewayNotReady", told, reconciling=True)
    return served


def _unwritten(facts: PolicyFacts, error: ApplyError) -> _Outcome:
    """A child could not be written: for a moment, or for a reason that only a person lifts."""
    reason, message = error.told(facts.namespace)
    return _Outcome("False" if error.lasts else "Unknown", reason, message, not error.lasts, error.lasts)


def _served(facts: PolicyFacts, tiers: Observation, live: Observation) -> _Outcome:
    """The table is written: Ready when it is live and every tier that should answer does."""
    serving = [one.name for one in facts.tiers if one.standing is Standing.READY]
    coming = any(one.standing is Standing.PROGRESSING for one in facts.tiers)
    told = f"{live.message}; {tiers.message}"
    if tiers.status == "Unknown":
        return _Outcome("Unknown", tiers.reason, tiers.message, reconciling=True)
    if not serving:
        message = f"no tier answers: {tiers.message}"
        return _Outcome("Unknown" if coming else "False", "NoTierReady", message, coming, not coming)
    if live.reason == "Spreading":
        return _Outcome("Unknown", live.reason, told, reconciling=True, wait=ASK_AGAIN)
    if tiers.status == "False":
        message = f"{tiers.message}. Meanwhile {' and '.join(serving)} answer{'s' if len(serving) == 1 else ''}"
        return _Outcome("Unknown" if coming else "False", tiers.reason, message, coming, not coming)
    if live.status == "Unknown" and not Reach.of(facts).live:
        # Routers that cannot be asked are nobody's progress, so that nothing waits for them.
        return _Outcome("Unknown", live.reason, live.message, wait=LOOK_AGAIN)
    return _Outcome("True", "Serving", told, wait=LOOK_AGAIN if live.status == "Unknown" else None)


def _serves(facts: PolicyFacts) -> str:
    """What goes on serving although the present spec does not."""
    if facts.last_good is None:
        return ""
    return f"The last good table {facts.last_good} goes on serving"


def _summary(outcome: _Outcome) -> list[Observation]:
    settled = "Stalled" if outcome.stalled else "Settled"
    idle = "see the condition Stalled" if outcome.stalled else "nothing is left to do"
    if outcome.ready == "Unknown":
        idle = "see the condition Ready"
    return [
        Observation(conditions.READY, outcome.ready, outcome.reason, outcome.message),
        Observation(conditions.RECONCILING, "True", outcome.reason, outcome.message)
        if outcome.reconciling
        else Observation(conditions.RECONCILING, "False", settled, idle),
        Observation(conditions.STALLED, "True", outcome.reason, outcome.message)
        if outcome.stalled
        else Observation(conditions.STALLED, "False", "NotStalled", "nothing stands in the way"),
    ]


# --- status -----------------------------------------------------------------------------------------------------------


def status_of(
    facts: PolicyFacts,
    spec: RoutingPolicySpec | None,
    judged: Sequence[Mapping[str, Any]],
    *,
    url: str | None = None,
    traffic: Mapping[str, Any] | None = None,
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole status of a policy; what is not known is left out, or `unknown` in a column."""
    status: dict[str, Any] = {"observedGeneration": facts.generation, "conditions": [dict(item) for item in judged]}
    if spec is None:
        return status
    status["ladder"] = " > ".join(tier.name for tier in spec.tiers)
    status["escalated"] = _percent((traffic or {}).get("escalatedPermille"))
    if url is not None:
        status["url"] = url
    if facts.table is not None:
        reach = Reach.of(facts)
        status["live"] = reach.shown
        status["table"] = {
            "version": facts.table.version,
            "live": reach.live,
            "pods": reach.pods,
            "unreachable": reach.unreachable,
            "bytes": facts.table.size,
        }
        if facts.table.doubts:
            status["doubts"] = [_short(one) for one in facts.table.doubts[:MOST_DOUBTS]]
    elif facts.last_good is not None:
        status["live"] = "last good"
        status["lastGood"] = {"version": facts.last_good}
    status |= {"traffic": dict(traffic)} if traffic else {}
    status |= {"cost": dict(cost)} if cost else {}
    return status


def _percent(permille: object) -> str:
    return f"{permille // 10}.{permille % 10}%" if isinstance(permille, int) else "unknown"


def _short(doubt: Doubt) -> str:
    text = str(doubt)
    return text if len(text) <= 1024 else text[:1023] + "…"
