"""What became of a policy's HTTPRoute: what to say of it, and when to look again.

Kinds of Gateway API are not watched, since a cluster may not have them: the route is read at each look, and how soon
the next one is hangs on what was found. It refuses to know how the route is read or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from modeltiers.domain.conditions import Status
from modeltiers.domain.engine_messages import quote

SOON: Final = timedelta(seconds=30)
"""When to look again while something is on its way, or stands in the way."""
SETTLED: Final = timedelta(minutes=5)
"""When to look again whether the route is still as it should be."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What the condition Exported says, and when to look again."""

    status: Status
    reason: str
    message: str
    wait: timedelta | None = SOON


def unknown_gateway(name: str, known: Mapping[str, Any]) -> Exported:
    """The policy names a gateway that the administrator did not."""
    there = ", ".join(sorted(known)) or "none"
    way_out = f"name one of them ({there}), or have an administrator add it to `gateways`"
    return Exported("False", "GatewayNotKnown", f"spec.export.gateway: {name} is not in the settings; {way_out}", None)


def no_api(kind: str) -> Exported:
    """The cluster does not serve HTTPRoutes, or InferencePools."""
    if kind == "InferencePool":
        said = "this cluster does not serve InferencePool of inference.networking.k8s.io/v1"
        way_out = "install Gateway API's Inference Extension, or remove spec.export.endpointPicker"
        return Exported("False", "GatewayApiMissing", f"{said}; {way_out}")
    said = "this cluster does not serve HTTPRoute of gateway.networking.k8s.io/v1"
    way_out = "install the CustomResourceDefinitions of Gateway API and a controller, or remove spec.export"
    return Exported("False", "GatewayApiMissing", f"{said}; {way_out}")


def not_written(what: str, said: str) -> Exported:
    """The API server took neither the route nor its deletion."""
    way_out = "do what it says; it is tried again"
    return Exported("False", "RouteNotWritten", f"{what}: “{quote(said)}”; {way_out}")


def nothing_yet() -> Exported:
    """There is no Service that a route could lead to."""
    return Exported("Unknown", "NothingToExport", "the policy has no Service yet that a route could lead to")


def left_alone() -> Exported:
    """The spec cannot be read, so that nobody knows whether there should be a route."""
    return Exported("Unknown", "RouteLeftAlone", "the spec is not accepted: the route stays as it was", None)


def told_by(route: Mapping[str, Any], gateway: str) -> Exported:
    """What the controllers of the route's gateways say of it."""
    found = list(_answers(route))
    if refused := next((one for one in found if one.get("status") == "False"), None):
        said = f"{refused.get('type')}={refused.get('reason')}: “{quote(str(refused.get('message', '')))}”"
        way_out = "ask whoever runs it; its listeners say which namespaces and host names it takes"
        return Exported("False", "RouteRefused", f"gateway {gateway} does not take the route, {said}; {way_out}")
    if not any(one.get("type") == "Accepted" and one.get("status") == "True" for one in found):
        way_out = "look whether there is such a Gateway, and a controller for it, if this stays"
        return Exported("Unknown", "RouteNotSeen", f"gateway {gateway} has not said yet whether it takes it; {way_out}")
    return Exported("True", "RouteAccepted", f"gateway {gateway} takes the route", SETTLED)


def _answers(route: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The conditions Accepted and ResolvedRefs of all parents that are about the present route."""
    generation = route["metadata"].get("generation", 0)
    for parent in (route.get("status") or {}).get("parents") or ():
        for one in parent.get("conditions") or ():
            if one.get("type") in ("Accepted", "ResolvedRefs") and one.get("observedGeneration", 0) >= generation:
                yield one
