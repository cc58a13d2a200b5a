"""The rules by which Flux, Helm 4, kpt and others tell how an object is, over a plain dict.

They are written here after kstatus (kubernetes-sigs/cli-utils, pkg/kstatus/status), so that tests can prove what such
tools will say of every status we write, and so that the CLI says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How an object is."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


@dataclass(frozen=True, slots=True)
class Result:
    """How an object is, and the words for it."""

    status: Status
    message: str


def compute(obj: Mapping[str, Any]) -> Result:
    """How the object is, by kstatus's rules for kinds it does not know."""
    metadata, status = _map(obj.get("metadata")), _map(obj.get("status"))
    if metadata.get("deletionTimestamp"):
        return Result(Status.TERMINATING, "Resource scheduled for deletion")
    generation, observed = metadata.get("generation"), status.get("observedGeneration")
    if generation is not None and observed is not None and generation != observed:
        return Result(Status.IN_PROGRESS, f"generation is {generation}, but latest observed generation is {observed}")
    conditions = status.get("conditions")
    listed = [_map(item) for item in conditions] if isinstance(conditions, list) else []
    # The first of the two that is True decides; an object that says both is ambiguous, and ours never does.
    for item in listed:
        if item.get("status") == "True" and item.get("type") in ("Reconciling", "Stalled"):
            decided = Status.IN_PROGRESS if item["type"] == "Reconciling" else Status.FAILED
            return Result(decided, str(item.get("message", "")))
    return _by_ready(listed)


def _by_ready(conditions: list[Mapping[str, Any]]) -> Result:
    """Where neither standard condition decides, Ready does: anything but True is progress. Without it all is well."""
    ready = next((item for item in conditions if item.get("type") == "Ready"), None)
    if ready is None:
        return Result(Status.CURRENT, "Resource is current")
    status = Status.CURRENT if ready.get("status") == "True" else Status.IN_PROGRESS
    return Result(status, str(ready.get("message", "")))


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
