"""When the operator has not spoken: whether it lives, as far as its lease and its pods are to be seen."""

from __future__ import annotations

from typing import Final

from modeltiers import names
from modeltiers.domain.views import DeploymentView, instant
from modeltiers.domain.why import commands
from modeltiers.domain.why.commands import Target
from modeltiers.domain.why.findings import Finding, Level, Link
from modeltiers.domain.why.pods import way_down
from modeltiers.domain.why.snapshot import Body, Snapshot, ago, is_stale, name_of, number, text

PATIENCE: Final = 10  # seconds that an operator at work needs for a first look, with room to spare
LEASE: Final = 60  # seconds without a renewal after which nobody leads; clocks of two machines differ a little
OPERATOR: Final = "Operator Deployment"
"""The kind under which the operator's own Deployment and pods are in a snapshot, apart from the namespace's."""
OPERATOR_POD: Final = "Operator Pod"


def of_silence(snapshot: Snapshot, kind: str, body: Body) -> Finding | None:
    """Why the operator has said nothing of the present spec; None where it has."""
    if not is_stale(body):
        return None
    moment = instant(text(body, "metadata", "creationTimestamp"))
    observed = number(body, "status", "observedGeneration")
    young = moment is not None and (snapshot.now - moment).total_seconds() < PATIENCE and observed is None
    says = "the operator has not looked at it yet" if observed is None else "the operator has not seen its last change"
    link = Link(kind, name_of(body), says)
    if away := of_operator(snapshot):
        return away.below(link)
    at = Target(kind, snapshot.namespace, name_of(body))
    if young:
        return Finding(Level.WAITING, (link,), "", f"{says}: it is {ago(_born(body), snapshot.now)} old", _watch(at))
    known = snapshot.seen("Lease") and snapshot.all("Lease")
    hint = "it runs: does it watch this namespace?" if known else "whether it runs is not known"
    return Finding(Level.BROKEN, (link,), "", f"{says}; {hint}", commands.operator_log(at))


def _born(body: Body) -> str:
    return text(body, "metadata", "creationTimestamp")


def _watch(at: Target) -> str:
    return f"kubectl get {at.short} -n {at.namespace} --watch"


def of_operator(snapshot: Snapshot) -> Finding | None:
    """Why the operator is not at work; None where it is, or where that is not to be seen."""
    at = Target("ModelTier", snapshot.namespace, "")
    deployment = next(iter(snapshot.all(OPERATOR)), None)
    alive = _leads(snapshot)
    if alive or (alive is None and not snapshot.seen(OPERATOR)):
        return None
    if deployment is None:
        if alive is None:
            says = f"the operator is not installed: namespace {names.OPERATOR_NAMESPACE} has no Deployment of it"
            link = Link("Operator", "", "not there")
            return Finding(Level.BROKEN, (link,), "", says, commands.operator(at))
        return _no_leader(snapshot, Link("Operator", "", "no Deployment of it is to be seen"), at)
    link = Link(
        "Deployment", f"{text(deployment, 'metadata', 'namespace')}/{name_of(deployment)}", _counted(deployment)
    )
    if DeploymentView.of(deployment).wanted == 0:
        says = f"the operator is scaled to zero: Deployment {link.name}"
        again = f"kubectl scale deployment {name_of(deployment)} -n {names.OPERATOR_NAMESPACE} --replicas=1"
        return Finding(Level.BROKEN, (link,), "", says, again)
    way = way_down(snapshot, (deployment,), snapshot.all(OPERATOR_POD))
    if way is None:
        return _no_leader(snapshot, link, at) if alive is False else None
    links = (link, *way.links[1:])
    says = f"the operator does not run: {way.says}"
    return Finding(Level.BROKEN, links, way.reason, says, _of_pod(way.pod), way.remedy)


def _leads(snapshot: Snapshot) -> bool | None:
    """Whether somebody holds the lease; None where there is none, or it may not be read."""
    lease = next((body for body in snapshot.all("Lease") if name_of(body) == names.LEASE), None)
    renewed = instant(text(lease, "spec", "renewTime")) if lease else None
    if lease is None or renewed is None:
        return None
    return bool(text(lease, "spec", "holderIdentity")) and (snapshot.now - renewed).total_seconds() < LEASE


def _no_leader(snapshot: Snapshot, link: Link, at: Target) -> Finding:
    lease = next(body for body in snapshot.all("Lease") if name_of(body) == names.LEASE)
    age = ago(text(lease, "spec", "renewTime"), snapshot.now)
    held = Link("Lease", name_of(lease), f"renewed {age} ago, by {text(lease, 'spec', 'holderIdentity') or 'nobody'}")
    says = f"the operator does not run: it has not renewed its lease for {age}"
    return Finding(Level.BROKEN, (link, held), "", says, commands.operator(at))


def _counted(body: Body) -> str:
    seen = DeploymentView.of(body)
    return f"{seen.ready_replicas} of {seen.wanted} pods ready"


def _of_pod(pod: str) -> str:
    if not pod:
        return f"kubectl describe deployment {names.OPERATOR_NAME} -n {names.OPERATOR_NAMESPACE}"
    return f"kubectl describe pod {pod} -n {names.OPERATOR_NAMESPACE}"
