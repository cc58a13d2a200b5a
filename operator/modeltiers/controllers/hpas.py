"""Which HorizontalPodAutoscaler scales what, so that nobody here writes a number that another one writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers import names

Key = tuple[str, str]
Target = tuple[str, str, str]
"""Namespace, kind and name of what is scaled."""
_GROUPS: Final = {"ModelTier": names.GROUP, "Deployment": "apps"}


@dataclass(eq=False)
class Hpas:
    """The targets of all HorizontalPodAutoscalers that scale a tier or a Deployment."""

    targets: dict[Key, Target] = field(default_factory=dict)
    scaled: dict[Target, set[str]] = field(default_factory=dict)

    def put(self, body: Mapping[str, Any]) -> list[Key]:
        """Remember one; returns the tiers to look at again, if that was news."""
        key = body["metadata"]["namespace"], body["metadata"]["name"]
        before, now = self.targets.get(key), _target(body)
        if before == now:
            return []
        rung = self.drop(key)
        if now is not None:
            self.targets[key] = now
            self.scaled.setdefault(now, set()).add(key[1])
            rung += tiers_of(now)
        return rung

    def drop(self, key: Key) -> list[Key]:
        """Forget one; returns the tiers to look at again."""
        target = self.targets.pop(key, None)
        if target is None:
            return []
        self.scaled[target].discard(key[1])
        if not self.scaled[target]:
            del self.scaled[target]
        return tiers_of(target)

    def of(self, namespace: str, kind: str, name: str) -> str | None:
        """Name of an autoscaler of this object, the first by name if there are several."""
        return min(self.scaled.get((namespace, kind, name), ()), default=None)

    def names(self) -> Iterator[Key]:
        """Namespace and name of every one that is remembered."""
        yield from self.targets


def tiers_of(target: Target) -> list[Key]:
    """The tiers that may be meant: a Deployment is named after its tier and revision."""
    namespace, kind, name = target
    if kind == "ModelTier":
        return [(namespace, name)]
    return [(namespace, tier) for tier in names.tiers_of_workload(name)]


def _target(body: Mapping[str, Any]) -> Target | None:
    ref = (body.get("spec") or {}).get("scaleTargetRef") or {}
    kind, name = str(ref.get("kind", "")), str(ref.get("name", ""))
    group = str(ref.get("apiVersion", "")).rpartition("/")[0]
    if _GROUPS.get(kind) != group or not name:
        return None
    return body["metadata"]["namespace"], kind, name
