"""What is known of a tier when its causes are looked for, and what a finding is.

Frozen records and the few questions that every check asks of them. It refuses to know any single cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from modeltiers.domain import conditions
from modeltiers.domain.capacity import FreeGpus
from modeltiers.domain.conditions import Observation
from modeltiers.domain.engine_messages import quote
from modeltiers.domain.scaling import Scaling
from modeltiers.domain.views import ContainerView, DeploymentView, PodView


class Severity(Enum):
    """Whether progress is still expected."""

    WAITING = "Waiting"
    """It may pass by itself: the tier is Reconciling."""
    FAILING = "Failing"
    """It will not heal by itself, or failed repeatedly: the tier is Stalled."""


WAITING, FAILING = Severity.WAITING, Severity.FAILING


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a tier is not as wanted. `until` is when this answer may change by the clock alone."""

    reason: str
    message: str
    severity: Severity
    until: datetime | None = None


# --- what was gathered ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApplyError:
    """The first write of a child that failed. `reason` is the fault's own word where it has one of `REASONS`."""

    kind: str
    name: str
    code: int = 0
    reason: str = ""
    message: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it stays until somebody mends it."""
        return self.code in (400, 403, 413, 422) or self.reason in ("NameConflict", "Forbidden", "Rejected")

    def told(self, namespace: str) -> tuple[str, str]:
        """Reason and message for a resource that tells of all its children's faults alike."""
        said = f"{self.kind} {namespace}/{self.name} could not be written: “{quote(self.message) or self.code}”"
        if self.lasts:
            return "NotWritten", f"{said}. Grant the right, free the name or correct what it says"
        return "ApiUnavailable", f"{said}. It is tried again"


@dataclass(frozen=True, slots=True)
class ExternalFacts:
    """What a look at an external API found; None is not known. Reasons are from `REASONS`, or empty for the usual."""

    credentials: bool | None = None
    credentials_message: str = ""
    reachable: bool | None = None
    reachable_message: str = ""
    listed: bool | None = None
    listed_message: str = ""
    credentials_reason: str = ""
    reachable_reason: str = ""
    listed_reason: str = ""


@dataclass(frozen=True, slots=True)
class EgressFacts:
    """What was heard from the routers of an external tier."""

    secret: str = ""
    """Name of the Secret with the API's key, and the key in it; empty where the API has none."""
    key: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    """By pod, in the router's own word; of those that could be asked."""
    models: Mapping[str, str] = field(default_factory=dict)
    """By pod, what came of asking the API for its list of models with the key; of those that did."""


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """How routers that stand by themselves are, judged as a tier's pods are."""

    serving: int
    """Pods that take requests."""
    failed: bool
    """Something stands in the way that does not pass by itself."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TierFacts:
    """Everything that is known of one tier. The Deployment is as the last write of it returned, or newer."""

    namespace: str
    name: str
    generation: int
    deleting: bool = False
    fault: tuple[tuple[str, str], ...] | None = None
    """Paths and messages, where the stored object is not valid."""
    refusals: tuple[tuple[str, str], ...] = ()
    """Paths and messages of what is valid but not allowed."""
    job_missing: tuple[tuple[str, str], ...] = ()
    """Path and message, where there is no DistillJob of the name that the tier follows."""
    arriving: timedelta | None = None
    """How long what the spec refers to may still be on its way; None once it should be there."""
    no_fit: tuple[str, str] | None = None
    """Sizing's reason and message, where no layout fits."""
    sized: str | None = None
    """The layout in words, where there is one."""
    apply_error: ApplyError | None = None
    deployment: DeploymentView | None = None
    pods: tuple[PodView, ...] = ()
    wanted_replicas: int = 1
    held_for: tuple[str, ...] = ()
    """Policies whose requests must enter elsewhere before the Deployment is written."""
    bridges: tuple[tuple[str, str], ...] = ()
    """Policies whose requests enter above this tier now, each with the tier where they do."""
    candidate: Observation | None = None
    """What is said of the candidate, if there is one."""
    scaling: Scaling | None = None
    """Who chose that number; None where it was not asked."""
    gpus_per_replica: int = 0
    resource: str = ""
    product: str = ""
    free: FreeGpus | None = None
    """None where free accelerators are not known."""
    update_available: tuple[str, ...] = ()
    unschedulable_since: datetime | None = None
    """Left out: since when the scheduler says so."""
    unschedulable_deadline_seconds: int = 900
    claim_fields: str = "spec.serving.cache.claimName or spec.model.source"
    """Fields that name volume claims."""
    startup_seconds: int = 0
    """Time the start-up probe allows; 0 where there is none."""
    rollout: str = ""
    """How pods are replaced, in words."""
    external: ExternalFacts | None = None
    egress: EgressFacts | None = None
    """What the routers of an external tier say; None where it has none. Deployment and pods are theirs."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The facts, the time, and what was said of the same generation before."""

    facts: TierFacts
    now: datetime
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: TierFacts, previous: Sequence[Mapping[str, Any]], now: datetime) -> Scene:
        """The scene of one look. Conditions of an earlier generation are about another spec and left out."""
        said = conditions.by_type(previous)
        same = {kind: item for kind, item in said.items() if item.get("observedGeneration") == facts.generation}
        return cls(facts, now, same)

    def stalled_by(self) -> str:
        """The reason this generation was called stalled by; empty when it was not."""
        item = self.before.get(conditions.STALLED, {})
        return str(item.get("reason", "")) if item.get("status") == "True" else ""

    def pods(self) -> Iterator[PodView]:
        """Pods of the present template that should be there, oldest first."""
        newest = current_template(self.facts)
        for pod in sorted(self.facts.pods, key=lambda pod: (pod.created_at, pod.name)):
            if not pod.deleting and newest in (None, pod.template):
                yield pod

    def live(self) -> Iterator[PodView]:
        """Those of them that have not ended for good."""
        return (pod for pod in self.pods() if not pod.finished)

    def containers(self) -> Iterator[tuple[PodView, ContainerView]]:
        """The containers of the live pods that are not ready."""
        return ((pod, item) for pod in self.live() for item in pod.containers if not item.ready)

    def named(self, pod: PodView, container: ContainerView | None = None) -> str:
        """How messages name a pod, or one of its containers."""
        where = f"pod {self.facts.namespace}/{pod.name}"
        return f"{where}, container {container.name}" if container else where


def current_template(facts: TierFacts) -> str | None:
    """The template hash of the pods that the Deployment wants now; None when every pod counts.

    A Deployment does not tell the hash, but only its newest template gets new pods: so it is that of the youngest pod,
    once there is one of it. Before that no pod is of the present template.
    """
    deployment = facts.deployment
    there = [pod for pod in facts.pods if not pod.deleting]
    if deployment is None or not there:
        return None
    if not deployment.seen or (deployment.updated == 0 and deployment.replicas > 0):
        return "none yet"
    return max(there, key=lambda pod: (pod.created_at, pod.name)).template


Check = Callable[[Scene], Cause | None]


def find(scene: Scene, checks: Sequence[Check]) -> Cause | None:
    """What the first check that finds something says."""
    return next((cause for check in checks if (cause := check(scene))), None)


def told(where: str, what: str, said: str, way_out: str) -> str:
    """One message: where, what is wrong, who said so in which words, and what to do."""
    # Typographic quotes, since the words of others are full of plain ones.
    words = f": “{said.rstrip('.')}”" if said else ""
    return f"{where}: {what}{words}. {way_out[:1].upper()}{way_out[1:]}"


def gave_up(facts: TierFacts) -> bool:
    """Whether the Deployment's progress deadline ran out for its present spec."""
    seen = facts.deployment.condition("Progressing") if facts.deployment and facts.deployment.seen else None
    return seen is not None and seen.status == "False" and seen.reason == "ProgressDeadlineExceeded"
