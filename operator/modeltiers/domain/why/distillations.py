"""Why a DistillJob does not go on: it waits for a person, a tier, a claim or a stage's pod, or is at its end."""

from __future__ import annotations

from typing import Final

from modeltiers import names
from modeltiers.domain import conditions
from modeltiers.domain.distill.overview import next_commands
from modeltiers.domain.distill.reasons import AWAITING_APPROVAL, COMPLETE
from modeltiers.domain.why.commands import Target, next_command, retry
from modeltiers.domain.why.findings import ABSENT, Finding, Level, Link, first_sentence
from modeltiers.domain.why.meanings import way_out
from modeltiers.domain.why.places import no_volume
from modeltiers.domain.why.pods import target, way_down
from modeltiers.domain.why.silence import of_silence
from modeltiers.domain.why.snapshot import JOB, TIER, Body, Snapshot, ago, maps, name_of, said, text
from modeltiers.domain.why.tiers import of_deletion, of_tier

_TIERS: Final = tuple((part, "tierRef", "name") for part in ("teacher", "judge", "evaluation", "promotion"))
_OF_PODS: Final = frozenset(one.name for one in conditions.REASONS)
_OF_A_TIER: Final = frozenset(
    ["TierNotReady", "TierNotFound", "TierNotAdmitting", "TierIsExternal", "TierNotFollowing", "CanaryDoesNotFit"]
)
_UNSUCCESSFUL: Final = ("Rejected", "Inconclusive", "RolledBack", "BudgetExhausted")


def of_job(snapshot: Snapshot, name: str) -> Finding | None:
    """What keeps a DistillJob of the snapshot; None where nothing does, or it is not in it."""
    body = snapshot.get(JOB, name)
    if body is None:
        return None
    if text(body, "metadata", "deletionTimestamp"):
        return of_deletion(snapshot, JOB, body)
    if silent := of_silence(snapshot, JOB, body):
        return silent
    told = said(body)
    complete, stalled = told.get(COMPLETE, {}), told.get(conditions.STALLED, {})
    if told.get(AWAITING_APPROVAL, {}).get("status") == "True":
        return _person(snapshot, body, told[AWAITING_APPROVAL])
    if complete.get("status") == "True":
        over = text(complete, "reason") in _UNSUCCESSFUL
        return _said(snapshot, body, complete, Level.DOUBTFUL) if over else None
    if stalled.get("status") == "True":
        return _below(snapshot, body, stalled, Level.BROKEN)
    way = told.get(conditions.RECONCILING, {})
    # A stage that runs is what is wanted: nothing is wrong.
    return None if text(way, "reason") in _WORKING else _below(snapshot, body, way, Level.WAITING)


_WORKING: Final = ("StageRunning", "CanaryRunning", "SettlingRunning", "Settled", "")


def _link(snapshot: Snapshot, body: Body, one: Body) -> Link:
    stage = text(body, "status", "stage")
    since = ago(text(one, "lastTransitionTime"), snapshot.now)
    parts = [text(one, "reason"), f"at {stage}" if stage else "", f"for {since}" if since else ""]
    return Link(JOB, name_of(body), ", ".join(filter(None, parts)))


def _said(snapshot: Snapshot, body: Body, one: Body, level: Level) -> Finding:
    reason, message = text(one, "reason"), text(one, "message")
    what, remedy = first_sentence(message)
    remedy = remedy or way_out(JOB, reason)
    at = Target(JOB, snapshot.namespace, name_of(body), message=message)
    return Finding(level, (_link(snapshot, body, one),), reason, what, next_command(reason, at), remedy)


def _person(snapshot: Snapshot, body: Body, one: Body) -> Finding:
    found = _said(snapshot, body, one, Level.ASKED)
    todo = next((command for command in next_commands(body) if " approve " in command), "")
    remedy = f"read that report, then: kubectl {todo}" if todo else found.remedy
    return Finding(found.level, found.links, found.reason, found.says, found.next, remedy)


def _below(snapshot: Snapshot, body: Body, one: Body, level: Level) -> Finding:
    reason = text(one, "reason")
    if reason in _OF_A_TIER and (found := _of_tiers(snapshot, body, one)):
        return found
    own = _said(snapshot, body, one, level)
    claim = text(body, "spec", "store", "claimName")
    if reason == "VolumeClaimNotFound" and claim and (place := no_volume(snapshot, (claim,))):
        return Finding(level, (*own.links, place), reason, own.says, own.next, own.remedy)
    if reason in ("StageStarting", "StageFailed", "StageQueued") or reason in _OF_PODS:
        return _of_stage(snapshot, body, one, own)
    failed = any(stage.get("state") == "Failed" for stage in maps(body, "status", "stages"))
    if failed:
        again = f"correct what it names, then: {retry(Target(JOB, snapshot.namespace, name_of(body)))}"
        return Finding(level, own.links, reason, own.says, own.next, again)
    return own


def _of_tiers(snapshot: Snapshot, body: Body, one: Body) -> Finding | None:
    """The first tier that the spec names and that is wrong, where the message speaks of it."""
    message = text(one, "message")
    for path in _TIERS:
        name = text(body, "spec", *path)
        if not name or f"ModelTier {name}" not in message:
            continue
        link = _link(snapshot, body, one)
        if snapshot.seen(TIER) and snapshot.get(TIER, name) is None:
            own = _said(snapshot, body, one, Level.BROKEN)
            gone = Link(TIER, name, ABSENT)
            return Finding(own.level, (link, gone), "TierNotFound", own.says, own.next, own.remedy)
        if found := of_tier(snapshot, name):
            return found.below(link)
    return None


def _of_stage(snapshot: Snapshot, body: Body, one: Body, own: Finding) -> Finding:
    """The pod of the stage that is at work or failed."""
    labels = {names.LABEL_DISTILL: name_of(body)}
    stage = text(body, "status", "stage")
    jobs = snapshot.labelled("Job", {**labels, names.LABEL_STAGE: stage})
    pods = [
        pod
        for pod in snapshot.labelled("Pod", {**labels, names.LABEL_STAGE: stage})
        if text(pod, "status", "phase") != "Succeeded"
    ]
    link = [Link("Job", name_of(job), f"stage {stage}") for job in jobs[-1:]]
    way = way_down(snapshot, (), pods, text(one, "message"))
    if way is None:
        return Finding(own.level, (*own.links, *link), own.reason, own.says, own.next, own.remedy)
    deeper = way.deep or own.reason in ("StageStarting", "StageQueued")
    reason = way.reason if deeper and way.reason else own.reason
    at = target(snapshot, JOB, name_of(body), way)
    says = way.says if deeper else own.says
    remedy = own.remedy or way.remedy
    return Finding(own.level, (*own.links, *link, *way.links), reason, says, next_command(reason, at), remedy)
