"""What a tier's conditions say: one pure function from everything that was gathered to what is written.

`judge` keeps three promises. Ready is True only when the present spec serves, False only for a confirmed failure, and
Unknown on the way. Reconciling and Stalled are never both True. The same facts give the same conditions, so that a
steady tier is not written again. It refuses to know how facts are gathered, and no clock: the time comes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from modeltiers.domain import causes, conditions, egress, pod_causes
from modeltiers.domain.capacity import FreeGpus
from modeltiers.domain.conditions import Observation, tri_state
from modeltiers.domain.engine_messages import quote
from modeltiers.domain.facts import (
    ApplyError,
    Cause,
    ExternalFacts,
    FleetFacts,
    Scene,
    Severity,
    TierFacts,
    find,
    gave_up,
)
from modeltiers.domain.views import ContainerView, DeploymentView, PodView, instant

__all__ = ["ApplyError", "ExternalFacts", "FreeGpus", "TierFacts", "Verdict", "judge"]

LOOK_AGAIN: Final = timedelta(seconds=60)  # at an external API, which sends no events
NOT_A_MOMENT: Final = timedelta(seconds=1)
# Pods that wait for a node have a deadline of their own, however long the Deployment's is.
_OWN_DEADLINE: Final = ("Unschedulable", "SchedulingGated", "VolumeClaimNotBound")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conditions to write, and after how long to look again by the clock; None if only events matter."""

    conditions: list[dict[str, Any]]
    wait: timedelta | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the tier is, before it is told in conditions."""

    ready: conditions.Status
    reason: str
    message: str
    reconciling: bool = False
    stalled: bool = False
    until: datetime | None = None
    served: str = ""
    """Who serves meanwhile; told beside the cause."""


def judge(facts: TierFacts, previous: Sequence[Mapping[str, Any]], now: datetime) -> Verdict:
    """The conditions of a tier, laid over the ones written last."""
    scene = Scene.of(facts, previous, now)
    if facts.external is not None:
        outcome, observed = _external(scene, facts.external)
    else:
        outcome = _outcome(scene)
        observed = [_sized(scene), _update(facts)]
        if facts.scaling and facts.scaling.said:
            observed.append(facts.scaling.said)
        if facts.candidate:
            observed.append(facts.candidate)
    observed += [_accepted(scene), *_summary(outcome)]
    wait = max(outcome.until - now, NOT_A_MOMENT) if outcome.until else None
    return Verdict(conditions.merge(previous, observed, facts.generation, now), wait)


def _summary(outcome: _Outcome) -> list[Observation]:
    told = f"{outcome.message} {outcome.served}".strip()
    settled = "Stalled" if outcome.stalled else "Settled"
    idle = "see the condition Stalled" if outcome.stalled else "nothing is left to do"
    if outcome.ready == "Unknown":
        idle = "see the condition Ready"
    return [
        Observation(conditions.READY, outcome.ready, outcome.reason, told),
        Observation(conditions.RECONCILING, "True", outcome.reason, told)
        if outcome.reconciling
        else Observation(conditions.RECONCILING, "False", settled, idle),
        Observation(conditions.STALLED, "True", outcome.reason, told)
        if outcome.stalled
        else Observation(conditions.STALLED, "False", "NotStalled", "nothing stands in the way"),
    ]


def _accepted(scene: Scene) -> Observation:
    cause = find(scene, causes.SPEC)
    if cause:
        return Observation(conditions.ACCEPTED, "False", cause.reason, cause.message)
    return Observation(conditions.ACCEPTED, "True", "Valid", "the spec is valid and allowed")


def _sized(scene: Scene) -> Observation:
    if find(scene, causes.SPEC):
        return Observation(conditions.SIZED, "Unknown", "NotSized", "sizing waits for a spec that is accepted")
    cause = causes.no_layout_fits(scene)
    if cause:
        return Observation(conditions.SIZED, "False", cause.reason, cause.message)
    if scene.facts.sized is None:
        return Observation(conditions.SIZED, "Unknown", "NotSized", "not worked out yet")
    return Observation(conditions.SIZED, "True", "Sized", scene.facts.sized)


def _update(facts: TierFacts) -> Observation:
    if facts.update_available:
        newer = "; ".join(facts.update_available)
        message = f"newer than what runs: {newer}. Change spec.rolloutToken to roll the tier and take it"
        return Observation(conditions.UPDATE_AVAILABLE, "True", "NewerAvailable", message)
    return Observation(conditions.UPDATE_AVAILABLE, "False", "UpToDate", "nothing is newer than what runs")


# --- a tier of this cluster -----------------------------------------------------------------------------------------


def _outcome(scene: Scene) -> _Outcome:
    facts = scene.facts
    if facts.deleting:
        return _Outcome("Unknown", "Terminating", "the tier is being deleted", reconciling=True)
    cause = find(scene, causes.BEFORE)
    if cause and cause.severity is Severity.WAITING and scene.stalled_by():
        # A write that failed for a moment does not lift what stalls the tier.
        found = find(scene, causes.PODS)
        cause = found if found and found.severity is Severity.FAILING else cause
    if cause is None and facts.held_for:
        return _bridging(facts)
    if cause is None and _settled(facts):
        return _serving(facts)
    cause = cause or find(scene, causes.PODS)
    return _caused(scene, cause) if cause else _progress(scene)


def _bridging(facts: TierFacts) -> _Outcome:
    whose = " and ".join(facts.held_for)
    many = "policies" if len(facts.held_for) > 1 else "policy"
    message = f"its last ready pods are to go: requests of {many} {whose} are led to another tier first"
    return _Outcome("Unknown", "Bridging", message, reconciling=True)


def _settled(facts: TierFacts) -> bool:
    """Whether the present spec is rolled out whole: as many pods of it as wanted, all ready, and none of another."""
    seen, wanted = facts.deployment, facts.wanted_replicas
    return (
        seen is not None
        and seen.seen
        and seen.wanted == wanted == seen.updated == seen.replicas
        and seen.ready_replicas >= wanted
    )


def _serving(facts: TierFacts) -> _Outcome:
    """Ready, also with no replicas: that is what the spec asks for, and False would call it broken in GitOps tools.

    Whoever needs an answer from the tier reads the reason, or `readyReplicas`.
    """
    if facts.wanted_replicas == 0:
        return _Outcome("True", "ScaledToZero", "no pod is wanted (spec.replicas is 0): the tier answers no requests")
    return _Outcome("True", "Serving", _counted(facts))


def _caused(scene: Scene, cause: Cause) -> _Outcome:
    stalled = cause.severity is Severity.FAILING or (
        gave_up(scene.facts) and cause.reason not in _OWN_DEADLINE and not scene.facts.apply_error
    )
    return _Outcome(
        ready="False" if stalled else "Unknown",
        reason=cause.reason,
        message=cause.message if cause.message.endswith((".", "…")) else f"{cause.message}.",
        reconciling=not stalled,
        stalled=stalled,
        until=cause.until,
        served=_meanwhile(scene),
    )


def _meanwhile(scene: Scene) -> str:
    """Who serves although the present spec does not, or not wholly."""
    seen = scene.facts.deployment
    if seen is None or seen.ready_replicas == 0:
        return ""
    count = f"{seen.ready_replicas} ready pod{'s' if seen.ready_replicas > 1 else ''}"
    present = sum(pod.ready for pod in scene.pods())
    applied = find(scene, causes.BEFORE) is None
    if applied and present >= seen.ready_replicas:
        return f"Meanwhile {count} of {scene.facts.wanted_replicas} wanted serve."
    if applied and present:
        return f"Meanwhile {count} serve, {seen.ready_replicas - present} of them of the spec before."
    return f"Meanwhile {count} of the spec before still serve{'s' if seen.ready_replicas == 1 else ''}."


def _counted(facts: TierFacts) -> str:
    ready = facts.deployment.ready_replicas if facts.deployment else 0
    if ready > facts.wanted_replicas:
        return f"{ready} pods ready, {facts.wanted_replicas} wanted"
    return f"{ready} of {facts.wanted_replicas} pod{'s' if facts.wanted_replicas != 1 else ''} ready"


def fleet(facts: TierFacts, now: datetime) -> FleetFacts:
    """How routers that stand by themselves are, of whose Deployment and pods these are the facts."""
    found = _outcome(Scene.of(facts, (), now))
    serving = sum(pod.ready for pod in facts.pods)
    return FleetFacts(serving, found.stalled, found.reason, f"{found.message} {found.served}".strip())


# --- on the way -----------------------------------------------------------------------------------------------------


def _progress(scene: Scene) -> _Outcome:
    """Nothing is wrong, and not everything is done: say how far it is."""
    facts, seen = scene.facts, scene.facts.deployment
    if seen is None:
        return _Outcome("Unknown", "Creating", "the Deployment is being created", reconciling=True)
    if not seen.seen or seen.wanted != facts.wanted_replicas:
        message = f"the change to Deployment {facts.namespace}/{seen.name} is being taken up"
        return _Outcome("Unknown", "Applying", message, reconciling=True)
    reason, detail, until = _slowest_pod(scene)
    reason = reason or _movement(facts, seen)
    parts = [_counted(facts)]
    if seen.replicas > seen.updated:
        before = seen.replicas - seen.updated
        parts.append(f"{before} pod{'s' if before > 1 else ''} of the spec before still there")
        parts += [facts.rollout] if facts.rollout else []
    parts += detail
    if not seen.ready_replicas:
        parts += [f"requests of policy {policy} enter at {tier} meanwhile" for policy, tier in facts.bridges]
    return _Outcome("Unknown", reason, "; ".join(parts), reconciling=True, until=until)


def _movement(facts: TierFacts, seen: DeploymentView) -> str:
    if seen.replicas > seen.updated:
        return "RollingOut"
    return "Scaling" if seen.replicas != facts.wanted_replicas or seen.updated != facts.wanted_replicas else "NotReady"


def _slowest_pod(scene: Scene) -> tuple[str, list[str], datetime | None]:
    """Reason and words of the pod of the present spec that is least far, and when its start-up runs out."""
    steps = [(step, pod) for pod in scene.live() if not pod.ready and (step := _step(scene, pod))]
    if not steps:
        return "", [], None
    (_, reason, what, _), pod = min(steps, key=lambda item: item[0][0])
    deadlines = [step[3] for step, _ in steps if step[3]]
    return reason, [f"{scene.named(pod)} {what}"], min(deadlines, default=None)


def _step(scene: Scene, pod: PodView) -> tuple[int, str, str, datetime | None]:
    """How far a pod is: rank, reason, words, and when its start-up runs out."""
    scheduled = pod.condition("PodScheduled")
    if not pod.node and not pod.containers and (scheduled is None or scheduled.status != "True"):
        return 0, "Scheduling", "waits for the scheduler", None
    unready = [item for item in pod.containers if not item.ready]
    running = [item for item in unready if item.running_since and not item.init]
    if not running:
        where = f"on node {pod.node} " if pod.node else ""
        return 1, "Preparing", f"{where}is being prepared: image, volumes, devices", None
    starting = next((item for item in running if not item.started), None)
    if starting is None:
        return 3, "NotReady", "runs and does not answer yet", None
    return 2, "Starting", f"starts: container {starting.name} loads", _runs_out(scene, starting)


def _runs_out(scene: Scene, item: ContainerView) -> datetime | None:
    since = instant(item.running_since)
    if since is None or not scene.facts.startup_seconds:
        return None
    return since + timedelta(seconds=scene.facts.startup_seconds + pod_causes.PROBE_SLACK)


# --- a tier elsewhere -----------------------------------------------------------------------------------------------


def _external(scene: Scene, seen: ExternalFacts) -> tuple[_Outcome, list[Observation]]:
    """Ready when the API answers and lists the model, the key is there as far as can be told, and its routers are."""
    if scene.facts.egress is not None:
        seen = egress.with_routers(seen, scene.facts.egress)
    key = _looked(conditions.CREDENTIALS_FOUND, seen.credentials, seen.credentials_reason, seen.credentials_message)
    reach = _looked(conditions.ENDPOINT_REACHABLE, seen.reachable, seen.reachable_reason, seen.reachable_message)
    model = _looked(conditions.MODEL_LISTED, seen.listed, seen.listed_reason, seen.listed_message)
    observed = [key, reach, model]
    return _external_outcome(scene, observed), observed


_USUAL: Final[Mapping[str, tuple[str, str, str]]] = {
    conditions.CREDENTIALS_FOUND: ("CredentialsFound", "CredentialsNotUsable", "CredentialsNotChecked"),
    conditions.ENDPOINT_REACHABLE: ("EndpointAnswers", "EndpointUnreachable", "NotKnownYet"),
    conditions.MODEL_LISTED: ("ModelListed", "ModelNotListed", "NotKnownYet"),
}


def _looked(kind: str, known: bool | None, reason: str, message: str) -> Observation:
    true, false, unknown = _USUAL[kind]
    usual = unknown if known is None else true if known else false
    chosen = reason if any(item.name == reason for item in conditions.REASONS) else usual
    return Observation(kind, tri_state(known), chosen, quote(message, 512))


def _external_outcome(scene: Scene, observed: Sequence[Observation]) -> _Outcome:
    """What is confirmed to be wrong comes before what is not known: of the API first, then of its routers."""
    if scene.facts.deleting:
        return _Outcome("Unknown", "Terminating", "the tier is being deleted", reconciling=True)
    cause = find(scene, causes.SPEC)
    if cause:
        return _caused(scene, cause)
    until = scene.now + LOOK_AGAIN
    routers = _routers(scene)
    if (wrong := _first(observed, "False")) is not None:
        # An API that is down comes back by itself; a missing key, a forbidden host or a wrong name does not.
        stalled = wrong.reason != "EndpointUnreachable"
        return _Outcome("False", wrong.reason, wrong.message, not stalled, stalled, until)
    if routers is not None and routers.ready == "False":
        return routers
    if (unclear := _first(observed, "Unknown")) is not None:
        # Nobody works on a key that the operator may not read: that is for a person to grant, and no progress.
        moving = unclear.reason != "CredentialsNotChecked"
        return _Outcome("Unknown", unclear.reason, unclear.message, moving, until=until)
    if routers is not None and routers.ready != "True":
        return routers
    told = "the API answers and lists the model"
    return _Outcome("True", "Serving", f"{told}; routers: {routers.message}" if routers else told, until=until)


def _first(observed: Sequence[Observation], status: conditions.Status) -> Observation | None:
    return next((item for item in observed if item.status == status), None)


def _routers(scene: Scene) -> _Outcome | None:
    """How the routers before the API are; None where none are wanted and nothing is left of them."""
    if scene.facts.egress is None:
        left = find(scene, causes.BEFORE)
        return _caused(scene, left) if left else None
    found = _outcome(scene)
    barred = egress.way_is_barred(scene.facts.egress) if found.reason == "NotReady" else None
    return replace(found, message=f"{found.message}; {barred}") if barred else found
