"""Why a RoutingPolicy does not serve: its own spec, then the tiers of its ladder, then the routers with its table."""

from __future__ import annotations

from typing import Final

from modeltiers import names
from modeltiers.domain import conditions, policy_reasons
from modeltiers.domain.why.commands import Target, next_command
from modeltiers.domain.why.findings import ABSENT, Finding, Level, Link, first_sentence
from modeltiers.domain.why.meanings import way_out
from modeltiers.domain.why.pods import target, way_down
from modeltiers.domain.why.silence import of_silence
from modeltiers.domain.why.snapshot import POLICY, TIER, Body, Snapshot, ago, git_of, maps, name_of, said, text
from modeltiers.domain.why.tiers import of_deletion, of_tier

_OWN: Final = (conditions.ACCEPTED, policy_reasons.COMPILED)
_AFTER: Final = (
    policy_reasons.LIVE,
    policy_reasons.KEYS_FOUND,
    policy_reasons.ENTRY,
    policy_reasons.EXPORTED,
)
_TIER_AT_FAULT: Final = ("TierNotAccepted", "TierStalled", "TierNotReady", "TierDeleting")


def of_policy(snapshot: Snapshot, name: str) -> Finding | None:
    """What is wrong with a policy of the snapshot; None where nothing is, or it is not in it."""
    body = snapshot.get(POLICY, name)
    if body is None:
        return None
    if text(body, "metadata", "deletionTimestamp"):
        return of_deletion(snapshot, POLICY, body)
    if silent := of_silence(snapshot, POLICY, body):
        return silent
    return _not_compiled(snapshot, body) or _not_ready(snapshot, body) or _hardly_meant(snapshot, body)


def _not_compiled(snapshot: Snapshot, body: Body) -> Finding | None:
    told = said(body)
    for kind in _OWN:
        one = told.get(kind, {})
        if one.get("status") == "False":
            return _of_tiers(snapshot, body, one) or _said(snapshot, body, one, Level.BROKEN)
    return None


def _not_ready(snapshot: Snapshot, body: Body) -> Finding | None:
    """Tiers first, since routers stand before tiers; then the policy's own routers, and what else Ready rests on."""
    told = said(body)
    ready, tiers = told.get(conditions.READY, {}), told.get(policy_reasons.TIERS_READY, {})
    if tiers.get("status") == "False":
        return _of_tiers(snapshot, body, tiers) or _said(snapshot, body, tiers, Level.BROKEN)
    if text(ready, "reason") in ("GatewayFailed", "GatewayNotReady"):
        return _of_gateway(snapshot, body, ready)
    if ready.get("status") == "True":
        return None
    level = Level.BROKEN if ready.get("status") == "False" else Level.WAITING
    return _said(snapshot, body, ready, level)


def _hardly_meant(snapshot: Snapshot, body: Body) -> Finding | None:
    told = said(body)
    for kind, status in (*((kind, "False") for kind in _AFTER), (policy_reasons.DOUBTFUL, "True")):
        one = told.get(kind, {})
        if one.get("status") == status:
            return _said(snapshot, body, one, Level.DOUBTFUL)
    return None


def ladder(body: Body) -> list[str]:
    """The tiers that a policy names, in order."""
    return [text(one, "name") for one in maps(body, "spec", "tiers")]


def _link(snapshot: Snapshot, body: Body, one: Body) -> Link:
    since = ago(text(one, "lastTransitionTime"), snapshot.now)
    ready = said(body).get(conditions.READY, {})
    served = "serves, but " if ready.get("status") == "True" else ""
    return Link(POLICY, name_of(body), f"{served}{text(one, 'reason')}{f' for {since}' if since else ''}")


def _said(snapshot: Snapshot, body: Body, one: Body, level: Level) -> Finding:
    reason, message = text(one, "reason"), text(one, "message")
    what, remedy = first_sentence(message)
    remedy = remedy or way_out(POLICY, reason)
    at = Target(POLICY, snapshot.namespace, name_of(body), message=message)
    command = next_command(reason, at)
    who = git_of(body)
    written = f"{who} writes this spec from Git: change it there, or the edit is undone"
    notes = (written,) if who and command.startswith("kubectl edit") else ()
    return Finding(level, (_link(snapshot, body, one),), reason, what, command, remedy, notes)


def _of_tiers(snapshot: Snapshot, body: Body, one: Body) -> Finding | None:
    """The tier that the condition speaks of, and why it is not ready: the worst, then the lowest of the ladder."""
    link = _link(snapshot, body, one)
    if text(one, "reason") == "TierNotFound":
        missing = [name for name in ladder(body) if snapshot.seen(TIER) and snapshot.get(TIER, name) is None]
        if missing:
            there = ", ".join(name_of(tier) for tier in snapshot.all(TIER)) or "none"
            says = f"there is no ModelTier {missing[0]} in namespace {snapshot.namespace}; there are: {there}"
            remedy = "create it, or take it off spec.tiers"
            gone = Link(TIER, missing[0], ABSENT)
            at = Target(POLICY, snapshot.namespace, name_of(body))
            return Finding(Level.BROKEN, (link, gone), "TierNotFound", says, next_command("TierNotFound", at), remedy)
        return None
    if text(one, "reason") not in _TIER_AT_FAULT:
        return None
    found = [finding for name in ladder(body) if (finding := of_tier(snapshot, name))]
    if not found:
        return None
    return min(found, key=lambda finding: finding.level).below(link)


def _of_gateway(snapshot: Snapshot, body: Body, ready: Body) -> Finding:
    name = names.gateway(name_of(body))
    deployment = snapshot.get("Deployment", name)
    pods = snapshot.labelled("Pod", {names.LABEL_POLICY: name_of(body)})
    way = way_down(snapshot, (deployment,) if deployment else (), pods, text(ready, "message"))
    found = _said(snapshot, body, ready, Level.BROKEN if ready.get("status") == "False" else Level.WAITING)
    if way is None:
        return found
    at = target(snapshot, POLICY, name_of(body), way)
    links = (*found.links, *way.links)
    return Finding(found.level, links, way.reason, way.says, next_command(way.reason, at), way.remedy)
