"""The record that keeps a GPU pod still: what was resolved, and the hash of the spec it was resolved from.

A plan depends on things that move by themselves: nodes, the catalogue, default images, this code. None of them may
roll a pod. So the first resolution is written on the workload and reused word for word until the spec's own part
changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.domain.diff import digest
from modeltiers.domain.surge import Rollout

FORMAT: Final = 1
# Changing one of these never changes what a pod runs.
_FREE: Final = frozenset(
    {"rank", "replicas", "autoscaling", "candidate", "price", "external", "access", "capabilities"}
)


@dataclass(frozen=True, slots=True)
class Record:
    """What one revision of a tier was resolved to."""

    inputs: str
    image: str
    sizing: Mapping[str, Any]
    template: Mapping[str, Any]
    startup_seconds: int
    rollout: Rollout

    @property
    def routed(self) -> bool:
        """Whether the pod template, which may be an older release's, has the router before its engine."""
        inits = self.template["spec"].get("initContainers", ())
        return any(one["name"] == names.ROUTER_CONTAINER for one in inits)

    def dump(self) -> str:
        """The record as the annotation's text."""
        body = {
            "format": FORMAT,
            "inputs": self.inputs,
            "image": self.image,
            "startupSeconds": self.startup_seconds,
            "rollout": [self.rollout.max_surge, self.rollout.max_unavailable, self.rollout.why],
            "sizing": self.sizing,
            "template": self.template,
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"))


def load(text: str | None) -> Record | None:
    """Read an annotation; None when there is none or it is not one that this version wrote."""
    if not text:
        return None
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            return None
        return Record(
            inputs=str(body["inputs"]),
            image=str(body["image"]),
            sizing=dict(body["sizing"]),
            template=dict(body["template"]),
            startup_seconds=int(body["startupSeconds"]),
            rollout=Rollout(*body["rollout"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def inputs_of(spec: ModelTierSpec) -> str:
    """Hash of the part of the spec that decides what a pod runs.

    Defaults are left out, so that neither a new field nor its absence on an older API server changes the hash.
    """
    return digest(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(_FREE)))
