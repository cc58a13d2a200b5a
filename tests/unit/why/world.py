"""Objects as an API server gives them, as small as findings need them, and a snapshot of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from modeltiers.domain.why.snapshot import Snapshot

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
BORN = "2026-11-27T11:00:00Z"
LATELY = "2026-11-27T11:55:00Z"
READ = ("ModelTier", "RoutingPolicy", "DistillJob", "Deployment", "ReplicaSet", "Job", "Pod", "PersistentVolumeClaim")
Body = dict[str, Any]


def world(*bodies: Body, unseen: Mapping[str, str] | None = None, alive: bool | None = True) -> Snapshot:
    """A namespace in which everything was read, and an operator that is alive, dead, or not to be seen."""
    objects: dict[str, tuple[Body, ...]] = dict.fromkeys((*READ, "Event", "Node"), ())
    if alive is not None:
        renewed = "2026-11-27T11:59:55Z" if alive else "2026-11-27T11:40:00Z"
        spec = {"holderIdentity": "operator-0", "renewTime": renewed}
        bodies = (*bodies, {"kind": "Lease", "metadata": {"name": "modeltiers-operator"}, "spec": spec})
    for body in bodies:
        objects[body["kind"]] = (*objects.get(body["kind"], ()), body)
    for kind in unseen or {}:
        objects.pop(kind, None)
    return Snapshot("shop", NOW, objects, unseen or {})


def condition(kind: str, status: str, reason: str = "Valid", message: str = "fine") -> Body:
    """A condition of the first generation."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": LATELY,
    }


def ours(kind: str, name: str, *conditions: Body, spec: Body | None = None, status: Body | None = None) -> Body:
    """One of our objects whose status is of the present generation."""
    metadata = {"name": name, "namespace": "shop", "generation": 1, "creationTimestamp": BORN, "labels": {}}
    said = {"observedGeneration": 1, "conditions": list(conditions), **(status or {})}
    return {"kind": kind, "metadata": metadata, "spec": spec or {}, "status": said}


def tier(name: str, reason: str, message: str, *more: Body, status: str = "False", **fields: Any) -> Body:
    """A tier that is not ready for a reason."""
    found = ours(
        "ModelTier",
        name,
        condition("Accepted", "True"),
        condition("Sized", "True", "Sized"),
        condition("Ready", status, reason, message),
        condition("Stalled", "True" if status == "False" else "False", reason, message),
    )
    found["status"]["conditions"] += more
    found["metadata"].update(fields)
    return found


def served(name: str) -> Body:
    """A tier that serves."""
    return tier(name, "Serving", "1 of 1 pod ready", status="True")


def policy(*conditions: Body, name: str = "support", tiers: Sequence[str] = ("small", "large")) -> Body:
    """A policy over some tiers."""
    return ours("RoutingPolicy", name, *conditions, spec={"tiers": [{"name": one} for one in tiers]})


def deployment(name: str, ready: int = 0, wanted: int = 1, *conditions: Body, label: str = "tier") -> Body:
    """A Deployment of a tier or a policy."""
    status = {"observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": ready}
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "generation": 1, "labels": {f"modeltiers.dev/{label}": name}},
        "spec": {"replicas": wanted},
        "status": {**status, "conditions": list(conditions)},
    }


def pod(name: str, of: str, *containers: Body, label: str = "tier", spec: Body | None = None, **status: Any) -> Body:
    """A pod that is not ready."""
    labels = {f"modeltiers.dev/{label}": of, "pod-template-hash": "abc"}
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": LATELY}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": LATELY}
    found: Body = {
        "phase": "Pending",
        "conditions": [scheduled, ready],
        "containerStatuses": list(containers),
        **status,
    }
    where = {"nodeName": "node-1", **(spec or {})}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "creationTimestamp": LATELY},
        "spec": {key: value for key, value in where.items() if value is not None},
        "status": found,
    }


def homeless(name: str, of: str, said: str, gpus: int = 4, selector: Body | None = None, **spec: Any) -> Body:
    """A pod that the scheduler has no node for."""
    container = {"name": "engine", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    wanted = {"containers": [container], "nodeSelector": selector or {}, "nodeName": None, **spec}
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": said,
        "lastTransitionTime": LATELY,
    }
    return pod(name, of, spec=wanted, conditions=[unscheduled], containerStatuses=[])


def waiting(reason: str, message: str = "", name: str = "engine") -> Body:
    """A container that waits."""
    return {"name": name, "ready": False, "state": {"waiting": {"reason": reason, "message": message}}}


def node(name: str, gpus: int = 8, ready: str = "True", taints: Sequence[Body] = (), **labels: str) -> Body:
    """A node with accelerators."""
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": {key.replace("__", "/"): value for key, value in labels.items()}},
        "spec": {"taints": list(taints)},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def event(kind: str, name: str, reason: str, message: str, at: str = LATELY) -> Body:
    """A warning."""
    about = {"kind": kind, "name": name}
    return {
        "kind": "Event",
        "type": "Warning",
        "metadata": {"name": f"{name}.{reason}"},
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }


def claim(name: str, phase: str = "Pending", storage: str | None = "fast") -> Body:
    """A volume claim."""
    spec = {"storageClassName": storage} if storage is not None else {}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec, "status": {"phase": phase}}


def job(*conditions: Body, stage: str = "Generate", spec: Body | None = None, **status: Any) -> Body:
    """A DistillJob at a stage."""
    wanted = {
        "teacher": {"tierRef": {"name": "large"}},
        "evaluation": {"tierRef": {"name": "small"}},
        "store": {"claimName": "artifacts"},
        **(spec or {}),
    }
    told = [condition("Accepted", "True"), *conditions]
    return ours("DistillJob", "arithmetic", *told, spec=wanted, status={"stage": stage, **status})
