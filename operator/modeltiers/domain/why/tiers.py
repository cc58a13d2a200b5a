"""Why a ModelTier does not serve: its conditions first, and where these speak of pods, the way down to them."""

from __future__ import annotations

from typing import Final

from modeltiers import names
from modeltiers.domain import conditions
from modeltiers.domain.why.commands import Target, next_command
from modeltiers.domain.why.findings import Finding, Level, Link, first_sentence, meanwhile, short
from modeltiers.domain.why.meanings import way_out
from modeltiers.domain.why.pods import Way, target, way_down
from modeltiers.domain.why.silence import of_silence
from modeltiers.domain.why.snapshot import (
    TIER,
    Body,
    Snapshot,
    ago,
    dig,
    git_of,
    name_of,
    number,
    pods_of_tier,
    said,
    text,
)

GATES: Final = (
    conditions.ACCEPTED,
    conditions.SIZED,
    conditions.CREDENTIALS_FOUND,
    conditions.ENDPOINT_REACHABLE,
    conditions.MODEL_LISTED,
)
"""Conditions that come before any pod."""


def of_tier(snapshot: Snapshot, name: str) -> Finding | None:
    """What is wrong with a tier of the snapshot; None where nothing is, or it is not in it."""
    body = snapshot.get(TIER, name)
    if body is None:
        return None
    if text(body, "metadata", "deletionTimestamp"):
        return of_deletion(snapshot, TIER, body)
    if silent := of_silence(snapshot, TIER, body):
        return silent
    told = said(body)
    ready = told.get(conditions.READY, {})
    link = Link(TIER, name, _summary(snapshot, body, ready))
    for kind in GATES:
        one = told.get(kind, {})
        if one.get("status") == "False":
            return _said_by(snapshot, body, link, one, Level.BROKEN)
    if ready.get("status") == "True":
        return _contradicted(snapshot, body, link) or _doubts(snapshot, body, link)
    level = Level.BROKEN if ready.get("status") == "False" else Level.WAITING
    # Where pods are not the cause (a write that was refused), what the operator says is all there is.
    if text(ready, "reason") in _BEFORE_PODS:
        return _said_by(snapshot, body, link, ready, level)
    deployments = snapshot.labelled("Deployment", {names.LABEL_TIER: name})
    way = way_down(snapshot, deployments, pods_of_tier(snapshot, name), text(ready, "message"))
    if way is None:
        return _said_by(snapshot, body, link, ready, level)
    return _caused(snapshot, body, link, ready, way, level)


_IN_SPEC: Final = frozenset(one.name for one in conditions.REASONS if one.condition in GATES)
_BEFORE_PODS: Final = (
    *("NameConflict", "Forbidden", "Rejected", "Unauthorized", "ApiUnavailable", "NamespaceTerminating"),
    *("Bridging", "Creating", "CredentialsNotChecked", "NotKnownYet", "RolloutPaused"),
)


def _summary(snapshot: Snapshot, body: Body, ready: Body) -> str:
    since = ago(text(ready, "lastTransitionTime"), snapshot.now)
    pods = text(body, "status", "ready")
    parts = [text(ready, "reason"), f"{pods} pods ready" if pods else "", f"for {since}" if since else ""]
    return ", ".join(filter(None, parts))


def _said_by(snapshot: Snapshot, body: Body, link: Link, one: Body, level: Level) -> Finding:
    """What a condition says is the cause."""
    reason, message = text(one, "reason"), text(one, "message")
    # What is wrong with a spec is told with its numbers; the table of reasons has the way out.
    whole = one.get("type") in GATES or reason in _IN_SPEC
    what, remedy = (message.rstrip(". "), way_out(TIER, reason)) if whole else first_sentence(message)
    at = Target(TIER, snapshot.namespace, link.name, message=message)
    notes = _git_notes(body, next_command(reason, at))
    return Finding(level, (link,), reason, what, next_command(reason, at), remedy or way_out(TIER, reason), notes)


def _caused(snapshot: Snapshot, body: Body, link: Link, ready: Body, way: Way, level: Level) -> Finding:
    """What the operator says of pods, and what is to be seen below: claims, nodes, events say more."""
    reason, message = text(ready, "reason"), text(ready, "message")
    says, remedy = first_sentence(message)
    if way.reason and (way.reason == reason or way.deep or reason in _PROGRESS):
        says, remedy = way.says, remedy if way.reason == reason else way.remedy
        reason = way.reason
    command = next_command(reason, target(snapshot, TIER, link.name, way))
    notes = (*_git_notes(body, command), *meanwhile(message))
    return Finding(level, (link, *way.links), reason, says, command, remedy, notes)


_PROGRESS: Final = ("Applying", "Scaling", "RollingOut", "Scheduling", "Preparing", "Starting", "NotReady")


def _contradicted(snapshot: Snapshot, body: Body, link: Link) -> Finding | None:
    """The status says Ready, and the Deployment says otherwise: what is written is old."""
    name = name_of(body)
    deployments = snapshot.labelled("Deployment", {names.LABEL_TIER: name})
    first = next((one for one in deployments if name_of(one) == names.workload(name)), None)
    wanted = number(first, "spec", "replicas")
    if first is None or not wanted or (number(first, "status", "readyReplicas") or 0) >= wanted:
        return None
    way = way_down(snapshot, (first,), pods_of_tier(snapshot, name))
    if way is None:
        return None
    level = Level.BROKEN if way.failing else Level.WAITING
    at = target(snapshot, TIER, name, way)
    note = "its status says Ready: it is older than what its pods say"
    return Finding(
        level, (link, *way.links), way.reason, way.says, next_command(way.reason, at), way.remedy, notes=(note,)
    )


_DOUBTS: Final = (
    (conditions.CANDIDATE_READY, "False"),
    (conditions.SCALING_ACTIVE, "False"),
    (conditions.SCALING_ACTIVE, "Unknown"),
)


def _doubts(snapshot: Snapshot, body: Body, link: Link) -> Finding | None:
    told = said(body)
    for kind, status in _DOUBTS:
        one = told.get(kind, {})
        if one.get("status") == status:
            return _said_by(snapshot, body, link, one, Level.DOUBTFUL)
    return None


def _git_notes(body: Body, command: str) -> tuple[str, ...]:
    who = git_of(body)
    if who and command.startswith("kubectl edit"):
        return (f"{who} writes this spec from Git: change it there, or the edit is undone",)
    return ()


def of_deletion(snapshot: Snapshot, kind: str, body: Body) -> Finding:
    """An object that is on its way out, and who holds it."""
    since = ago(text(body, "metadata", "deletionTimestamp"), snapshot.now)
    holders = dig(body, "metadata", "finalizers") or []
    held = f"; it waits for {short(', '.join(map(str, holders)), 120)}" if holders else ""
    says = f"is being deleted{f' for {since}' if since else ''}{held}"
    at = Target(kind, snapshot.namespace, name_of(body))
    link = Link(kind, name_of(body), "being deleted")
    command = f"kubectl get {at.short} -n {at.namespace} -o jsonpath='{{.metadata.finalizers}}'"
    return Finding(Level.WAITING, (link,), "Terminating", says, command)
