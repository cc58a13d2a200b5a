"""What was seen of one namespace, as plain dicts by kind, and the questions that every finding asks of it.

Nothing in it is trusted to be complete: a kind that could not be read is named with the reason, so that "there is
none" and "nobody may look" are told apart. Values of Secrets are never in it: Secrets are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.domain import conditions
from modeltiers.domain.views import instant

Body = Mapping[str, Any]
TIER: Final = "ModelTier"
POLICY: Final = "RoutingPolicy"
JOB: Final = "DistillJob"
OURS: Final = (TIER, POLICY, JOB)
SHORT: Final[Mapping[str, str]] = {TIER: "mt", POLICY: "rp", JOB: "dj"}
CLUSTER: Final = ("Node", "Lease")
"""Kinds that are not of the namespace: nodes, and the operator's lease where its own namespace could be read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The objects of a namespace by kind, those of the cluster around it, and what could not be read."""

    namespace: str
    now: datetime
    objects: Mapping[str, tuple[Body, ...]] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)
    """Kind -> why it could not be read. A kind in neither was not asked for."""

    def all(self, kind: str) -> tuple[Body, ...]:
        """Every object of a kind, by name."""
        return tuple(sorted(self.objects.get(kind, ()), key=name_of))

    def seen(self, kind: str) -> bool:
        """Whether the kind was read, so that what is not in it is not there."""
        return kind in self.objects and kind not in self.unseen

    def get(self, kind: str, name: str) -> Body | None:
        """One object."""
        return next((body for body in self.objects.get(kind, ()) if name_of(body) == name), None)

    def labelled(self, kind: str, wanted: Mapping[str, str]) -> tuple[Body, ...]:
        """Objects of a kind that have these labels, the oldest first."""
        found = [body for body in self.all(kind) if wanted.items() <= labels_of(body).items()]
        return tuple(sorted(found, key=lambda body: text(body, "metadata", "creationTimestamp")))

    def warnings(self, kind: str, name: str) -> tuple[Body, ...]:
        """Warning events about an object, the latest first."""
        about = [
            event
            for event in self.objects.get("Event", ())
            if text(event, "type") == "Warning"
            and (text(event, "involvedObject", "kind"), text(event, "involvedObject", "name")) == (kind, name)
        ]
        return tuple(sorted(about, key=when, reverse=True))


def name_of(body: Body) -> str:
    """Its name."""
    return text(body, "metadata", "name")


def labels_of(body: Body) -> Mapping[str, str]:
    """Its labels."""
    found = dig(body, "metadata", "labels")
    return found if isinstance(found, Mapping) else {}


def dig(body: object, *path: str) -> Any:
    """A value at a path of maps; None where there is none."""
    for step in path:
        body = body.get(step) if isinstance(body, Mapping) else None
    return body


def text(body: object, *path: str) -> str:
    """A text at a path; empty where there is none."""
    found = dig(body, *path)
    return found if isinstance(found, str) else ""


def number(body: object, *path: str) -> int | None:
    """A whole number at a path; None where there is none."""
    found = dig(body, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def maps(body: object, *path: str) -> list[Body]:
    """The maps in a list at a path."""
    found = dig(body, *path)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list | tuple) else []


def said(body: Body) -> Mapping[str, Body]:
    """Its conditions by type."""
    return conditions.by_type(maps(body, "status", "conditions"))


def is_stale(body: Body) -> bool:
    """Whether the status is not about the present spec, or there is none."""
    return number(body, "status", "observedGeneration") != number(body, "metadata", "generation") or not said(body)


def when(event: Body) -> str:
    """When an event was seen last."""
    series = text(event, "series", "lastObservedTime")
    return series or text(event, "lastTimestamp") or text(event, "eventTime") or text(event, "firstTimestamp")


def ago(then: str, now: datetime) -> str:
    """How long ago in words; empty where that is not known."""
    moment = instant(then)
    if moment is None:
        return ""
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def claims_of(pod: Body) -> Iterator[str]:
    """Names of the volume claims that a pod mounts."""
    for volume in maps(pod, "spec", "volumes"):
        if claim := text(volume, "persistentVolumeClaim", "claimName"):
            yield claim


def git_of(body: Body) -> str:
    """Who writes its spec, where a GitOps tool says that it does; empty otherwise."""
    notes = dig(body, "metadata", "annotations")
    tracked = text(notes, "argocd.argoproj.io/tracking-id")
    if tracked:
        return f"Argo CD application {tracked.partition(':')[0]}"
    flux = labels_of(body).get("kustomize.toolkit.fluxcd.io/name")
    return f"Flux Kustomization {flux}" if flux else ""


def pods_of_tier(snapshot: Snapshot, tier: str) -> tuple[Body, ...]:
    """A tier's pods: its engines, or the routers before an external API."""
    return snapshot.labelled("Pod", names.selector(tier))
