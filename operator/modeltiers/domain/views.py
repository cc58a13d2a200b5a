"""What the operator looks at in other people's objects, as small frozen records.

`*.of(body)` reads an API object as it comes from the wire and never fails on a missing or odd field: an object that a
newer Kubernetes wrote must not stop a tier. Only the fields that some decision reads are kept, so that thousands fit in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from modeltiers import names

POD_TEMPLATE_HASH: Final = "pod-template-hash"  # by which the Deployment controller tells its templates apart
JOB_UID: Final = "batch.kubernetes.io/controller-uid"  # by which the Job controller knows its pods
_POD_CONDITIONS: Final = ("PodScheduled", "PodReadyToStartContainers", "Ready", "DisruptionTarget")
_DEPLOYMENT_CONDITIONS: Final = ("Available", "Progressing", "ReplicaFailure")


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node: its labels, its allocatable extended resources, and whether the scheduler may use it."""

    name: str
    labels: Mapping[str, str]
    allocatable: Mapping[str, int]
    schedulable: bool

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> NodeView:
        """Read a core/v1 Node. Only extended resources (names with a slash) are kept, as whole numbers."""
        metadata, spec, status = _map(body, "metadata"), _map(body, "spec"), _map(body, "status")
        ready = any(c.type == "Ready" and c.status == "True" for c in _conditions(status, ("Ready",)))
        extended = {
            name: int(amount)
            for name, amount in _map(status, "allocatable").items()
            if "/" in str(name) and str(amount).isdecimal() and len(str(amount)) < 10
        }
        return cls(
            name=_text(metadata, "name"),
            labels=_texts(metadata, "labels"),
            allocatable=extended,
            schedulable=ready and spec.get("unschedulable") is not True,
        )


@dataclass(frozen=True, slots=True)
class ConditionView:
    """A condition on somebody else's object."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class EndView:
    """How a container ended: kubelet's reason, the exit code, and the last lines it wrote."""

    reason: str = ""
    exit_code: int | None = None
    message: str = ""
    started_at: str = ""
    finished_at: str = ""

    def seconds(self) -> float | None:
        """How long the container ran; None where that is not known."""
        began, ended = instant(self.started_at), instant(self.finished_at)
        return None if began is None or ended is None else (ended - began).total_seconds()


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pod. `ended` is how its present state ended, `last` how the run before that did."""

    name: str
    init: bool = False
    ready: bool = False
    started: bool = False
    restarts: int = 0
    image: str = ""
    waiting: str = ""
    waiting_message: str = ""
    running_since: str = ""
    ended: EndView | None = None
    last: EndView | None = None


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod: whose it is, where it is, and what scheduler and kubelet say about it."""

    name: str
    uid: str = ""
    revision: str = ""
    template: str = ""
    deleting: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""
    node: str = ""
    ip: str = ""
    created_at: str = ""
    conditions: tuple[ConditionView, ...] = ()
    containers: tuple[ContainerView, ...] = ()
    setup_error: str = ""
    """Why its node cannot set it up; events alone tell, and whoever reads them puts it here."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> PodView:
        """Read a core/v1 Pod."""
        metadata, spec, status = _map(body, "metadata"), _map(body, "spec"), _map(body, "status")
        labels = _map(metadata, "labels")
        return cls(
            name=_text(metadata, "name"),
            uid=_text(metadata, "uid"),
            revision=_text(labels, names.LABEL_REVISION),
            template=_text(labels, POD_TEMPLATE_HASH) or _text(labels, JOB_UID),
            deleting=bool(metadata.get("deletionTimestamp")),
            phase=_text(status, "phase"),
            reason=_text(status, "reason"),
            message=_text(status, "message"),
            node=_text(spec, "nodeName"),
            ip=_text(status, "podIP"),
            created_at=_text(metadata, "creationTimestamp"),
            conditions=_conditions(status, _POD_CONDITIONS),
            containers=tuple(_containers(status)),
        )

    @property
    def ready(self) -> bool:
        """Whether the pod takes requests."""
        return not self.deleting and any(c.type == "Ready" and c.status == "True" for c in self.conditions)

    @property
    def ready_since(self) -> datetime | None:
        """Since when the pod takes requests; None where it does not, or nobody said."""
        said = self.condition("Ready")
        return instant(said.since) if self.ready and said else None

    @property
    def unschedulable(self) -> bool:
        """Whether the scheduler looked and found no node."""
        seen = self.condition("PodScheduled")
        waiting = not self.node and not self.deleting and not self.finished
        return waiting and seen is not None and seen.status == "False" and seen.reason != "SchedulingGated"

    @property
    def has_begun(self) -> bool:
        """Whether any container of it runs or ran."""
        return any(one.running_since or one.ended or one.last for one in self.containers)

    @property
    def is_set_up_now(self) -> bool:
        """Whether its node has it, and has not given it its volumes and its network yet."""
        waits = bool(self.node) and self.phase == "Pending" and not self.deleting
        given = self.condition("PodReadyToStartContainers")
        return waits and not self.has_begun and given is not None and given.status == "False"

    @property
    def finished(self) -> bool:
        """Whether the pod will never run again; its controller makes another."""
        return self.phase in ("Failed", "Succeeded")

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of this type, if the pod has it."""
        return next((c for c in self.conditions if c.type == kind), None)


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A Deployment: how far its controller is, in numbers and conditions."""

    name: str
    generation: int = 0
    observed_generation: int = 0
    wanted: int = 1
    replicas: int = 0
    updated: int = 0
    ready_replicas: int = 0
    available: int = 0
    unavailable: int = 0
    conditions: tuple[ConditionView, ...] = ()
    paused: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> DeploymentView:
        """Read an apps/v1 Deployment."""
        metadata, spec, status = _map(body, "metadata"), _map(body, "spec"), _map(body, "status")
        return cls(
            name=_text(metadata, "name"),
            generation=_count(metadata, "generation"),
            observed_generation=_count(status, "observedGeneration"),
            wanted=_count(spec, "replicas", 1),
            replicas=_count(status, "replicas"),
            updated=_count(status, "updatedReplicas"),
            ready_replicas=_count(status, "readyReplicas"),
            available=_count(status, "availableReplicas"),
            unavailable=_count(status, "unavailableReplicas"),
            conditions=_conditions(status, _DEPLOYMENT_CONDITIONS),
            paused=spec.get("paused") is True,
        )

    @property
    def seen(self) -> bool:
        """Whether the numbers are about the present spec of the Deployment."""
        return self.observed_generation >= self.generation

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of this type, if the Deployment has it."""
        return next((c for c in self.conditions if c.type == kind), None)


def instant(text: str) -> datetime | None:
    """Read an RFC 3339 time as Kubernetes writes it; None when it is absent or odd."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _containers(status: Mapping[str, Any]) -> Iterator[ContainerView]:
    for field, init in (("initContainerStatuses", True), ("containerStatuses", False)):
        for body in _maps(status, field):
            state, last = _map(body, "state"), _map(body, "lastState")
            waiting = _map(state, "waiting")
            yield ContainerView(
                name=_text(body, "name"),
                init=init,
                ready=body.get("ready") is True,
                started=body.get("started") is True,
                restarts=_count(body, "restartCount"),
                image=_text(body, "image"),
                waiting=_text(waiting, "reason"),
                waiting_message=_text(waiting, "message"),
                running_since=_text(_map(state, "running"), "startedAt"),
                ended=_end(state),
                last=_end(last),
            )


def _end(state: Mapping[str, Any]) -> EndView | None:
    body = state.get("terminated")
    if not isinstance(body, Mapping):
        return None
    code = body.get("exitCode")
    return EndView(
        reason=_text(body, "reason"),
        exit_code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        message=_text(body, "message"),
        started_at=_text(body, "startedAt"),
        finished_at=_text(body, "finishedAt"),
    )


def _conditions(status: Mapping[str, Any], wanted: tuple[str, ...]) -> tuple[ConditionView, ...]:
    return tuple(
        ConditionView(
            type=_text(body, "type"),
            status=_text(body, "status"),
            reason=_text(body, "reason"),
            message=_text(body, "message"),
            since=_text(body, "lastTransitionTime"),
        )
        for body in _maps(status, "conditions")
        if body.get("type") in wanted
    )


def _map(body: object, key: str) -> Mapping[str, Any]:
    value = body.get(key) if isinstance(body, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _maps(body: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = body.get(key)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _texts(body: Mapping[str, Any], key: str) -> Mapping[str, str]:
    value = _map(body, key)
    return value if all(isinstance(item, str) for item in value.values()) else {k: str(v) for k, v in value.items()}


def _count(body: Mapping[str, Any], key: str, missing: int = 0) -> int:
    value = body.get(key)
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else missing
