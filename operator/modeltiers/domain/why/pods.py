"""From a workload to its pods, and from a pod to what keeps it: a node, a claim, an image, or what ran in it.

The checks are the operator's own (`domain.pod_causes`), so that both say the same, also while the operator is away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from modeltiers import names
from modeltiers.domain.causes import PODS, refused_by_server
from modeltiers.domain.engine_messages import quote
from modeltiers.domain.facts import Cause, Scene, Severity, TierFacts, find
from modeltiers.domain.views import ContainerView, DeploymentView, PodView
from modeltiers.domain.why.commands import Target
from modeltiers.domain.why.findings import ABSENT, Link, first_sentence, short
from modeltiers.domain.why.places import no_node, no_volume
from modeltiers.domain.why.snapshot import Body, Snapshot, ago, claims_of, maps, name_of, number, text, when

_POD: Final = re.compile(r"\bpod [a-z0-9-]{1,63}/([a-z0-9.-]{1,253}?)(?:, container ([a-z0-9-]{1,63}))?[:,]")


@dataclass(frozen=True, slots=True)
class Way:
    """The way from a workload down to the first cause."""

    links: tuple[Link, ...]
    says: str
    reason: str = ""
    remedy: str = ""
    pod: str = ""
    container: str = ""
    claim: str = ""
    failing: bool = False
    labels: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def deep(self) -> bool:
        """Whether it leads past the pod, or to what keeps pods from being made."""
        return bool(self.links) and self.links[-1].kind not in ("Pod", "Deployment")


def way_down(snapshot: Snapshot, deployments: Sequence[Body], pods: Sequence[Body], told: str = "") -> Way | None:
    """From Deployments to a pod that is not ready, and to why. None where nothing is found to be wrong.

    `told` is what the operator says of it: the pod that it names is the one that is looked at.
    """
    lame = [body for body in deployments if _is_lame(body)]
    waiting = [pod for pod in pods if not PodView.of(pod).ready and not PodView.of(pod).deleting]
    if not lame and not waiting:
        return None
    deployment = next(iter((*lame, *deployments)), None)
    cause = _judge(snapshot, deployment, pods)
    links = (_deployment_link(deployment),) if deployment is not None else ()
    named = _POD.search(told) or (_POD.search(cause.message) if cause else None)
    pod = next((one for one in waiting if named and name_of(one) == named[1]), None) or next(iter(waiting), None)
    if pod is None:
        return _without_pods(snapshot, deployment, links, cause)
    return _into(snapshot, links, pod, cause, named[2] or "" if named else "")


def _is_lame(body: Body) -> bool:
    seen = DeploymentView.of(body)
    return not seen.seen or seen.ready_replicas < seen.wanted or seen.updated < seen.wanted


def _judge(snapshot: Snapshot, deployment: Body | None, pods: Sequence[Body]) -> Cause | None:
    """What the operator's own checks say of the pods."""
    facts = TierFacts(
        namespace=snapshot.namespace,
        name=name_of(deployment) if deployment else "",
        generation=0,
        deployment=DeploymentView.of(deployment) if deployment else None,
        pods=tuple(PodView.of(pod) for pod in pods),
        startup_seconds=max((_startup(pod) for pod in pods), default=0),
    )
    return find(Scene.of(facts, (), snapshot.now), PODS)


def _startup(pod: Body) -> int:
    for container in maps(pod, "spec", "containers"):
        if container.get("name") == names.ENGINE_CONTAINER:
            probe = container.get("startupProbe") or {}
            return (number(probe, "failureThreshold") or 0) * (number(probe, "periodSeconds") or 0)
    return 0


def _deployment_link(body: Body) -> Link:
    seen = DeploymentView.of(body)
    counted = f"{seen.ready_replicas} of {seen.wanted} pods ready"
    taken_up = "" if seen.seen else "; its controller has not taken up the last change"
    return Link("Deployment", seen.name, f"{counted}{taken_up}")


def _without_pods(snapshot: Snapshot, deployment: Body | None, links: tuple[Link, ...], cause: Cause | None) -> Way:
    """No pod to look at: whoever makes pods is refused, or has not begun."""
    assert deployment is not None
    name = name_of(deployment)
    if cause is not None:
        what, remedy = first_sentence(cause.message)
        failing = cause.severity is Severity.FAILING
        return Way((*links, Link("ReplicaSet", name, what)), what, cause.reason, remedy, failing=failing)
    for body in snapshot.all("ReplicaSet"):
        owners = [text(one, "name") for one in maps(body, "metadata", "ownerReferences")]
        short_of = (number(body, "status", "replicas") or 0) < (number(body, "spec", "replicas") or 0)
        if name in owners and short_of and (warned := snapshot.warnings("ReplicaSet", name_of(body))):
            refused = refused_by_server(f"pods of Deployment {name}", text(warned[0], "message"), "AdmissionDenied")
            what, remedy = first_sentence(refused.message)
            link = Link("ReplicaSet", name_of(body), short(quote(text(warned[0], "message")), 240))
            return Way((*links, link), what, refused.reason, remedy)
    if not DeploymentView.of(deployment).seen:
        says = f"Deployment {name} is not taken up: is the cluster's controller manager running?"
        return Way(links, says, "Applying")
    return Way(links, f"Deployment {name} has fewer pods than wanted", "Scaling")


def _into(snapshot: Snapshot, links: tuple[Link, ...], pod: Body, cause: Cause | None, container: str) -> Way:
    seen = PodView.of(pod)
    if cause is not None and seen.name in cause.message:
        what, remedy = first_sentence(cause.message)
        failing = cause.severity is Severity.FAILING
        way = Way((*links, _pod_link(snapshot, seen)), what, cause.reason, remedy, seen.name, container, "", failing)
    else:
        says, reason = _hint(snapshot, seen)
        way = Way((*links, _pod_link(snapshot, seen)), says, reason, "", seen.name, container)
    return _below(snapshot, pod, way)


def _below(snapshot: Snapshot, pod: Body, way: Way) -> Way:
    """What the pod waits for, where that is an object of its own."""
    if way.reason in ("VolumeClaimNotFound", "VolumeClaimNotBound", "Unschedulable") and (
        claim := no_volume(snapshot, claims_of(pod))
    ):
        missing = claim.says == ABSENT
        reason = "VolumeClaimNotFound" if missing else "VolumeClaimNotBound"
        says = f"pod {way.pod} waits for {claim.kind} {claim.name}, which {'' if missing else 'is '}{claim.says}"
        return replace(way, links=(*way.links, claim), says=says, reason=reason, claim=claim.name)
    if way.reason == "Unschedulable":
        place = no_node(snapshot, pod)
        says = f"pod {way.pod} has no node: {place.says}" if place.says else way.says
        links = (*way.links, place.link)
        return replace(way, links=links, says=says, labels=place.labels, nodes=place.full)
    return way


def _pod_link(snapshot: Snapshot, pod: PodView) -> Link:
    age = ago(pod.created_at, snapshot.now)
    state = _state(pod)
    return Link("Pod", pod.name, f"{state}{f', {age} old' if age else ''}{f', on {pod.node}' if pod.node else ''}")


def _state(pod: PodView) -> str:
    if pod.unschedulable:
        return "Pending, not scheduled"
    item = _lame(pod)
    if item is None:
        return pod.reason or pod.phase or "Pending"
    end = item.ended or item.last
    what = item.waiting or (f"ended with {end.exit_code}" if end and item.ended else "running, not ready")
    restarts = f", restarted {item.restarts} times" if item.restarts else ""
    return f"{pod.phase or 'Pending'}, container {item.name}: {what}{restarts}"


def _lame(pod: PodView) -> ContainerView | None:
    return next((item for item in pod.containers if not item.ready and not (item.init and item.ended)), None)


def _hint(snapshot: Snapshot, pod: PodView) -> tuple[str, str]:
    """Nothing is found to be wrong with a pod by its status: its events may say more."""
    warned = [one for one in snapshot.warnings("Pod", pod.name) if text(one, "reason") not in _ECHOES]
    item = _lame(pod)
    where = f"pod {pod.name}" + (f", container {item.name}" if item else "")
    if warned and not pod.ready:
        event = warned[0]
        age = ago(when(event), snapshot.now)
        said = short(quote(text(event, "message")), 240)
        since = f" ({age} ago)" if age else ""
        return f"{where}: {text(event, 'reason')}{since}: {said}", "Preparing" if not _runs(pod) else "NotReady"
    if not pod.node:
        return f"{where} waits for the scheduler: is it running?", "Scheduling"
    if not _runs(pod):
        return f"{where} is being prepared by node {pod.node}: image, volumes, devices", "Preparing"
    if item and not item.started:
        return f"{where} is starting", "Starting"
    return f"{where} runs and does not answer", "NotReady"


def target(snapshot: Snapshot, kind: str, name: str, way: Way) -> Target:
    """What the next command is about, for an object and the way down from it."""
    pod = snapshot.get("Pod", way.pod)
    item = next((one for one in PodView.of(pod or {}).containers if one.name == way.container), None)
    return Target(
        kind,
        snapshot.namespace,
        name,
        pod=way.pod,
        claim=way.claim,
        message=way.says,
        labels=way.labels,
        nodes=way.nodes,
        again=bool(item and item.restarts),
    )


_ECHOES: Final = ("FailedScheduling", "BackOff")  # said by the pod's conditions, and better


def _runs(pod: PodView) -> bool:
    return any(item.running_since for item in pod.containers)
