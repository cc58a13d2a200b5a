"""Who chooses the number of a tier's pods: the spec, the operator's own autoscaler, or somebody else's; and how it is
told. How many the own autoscaler wants is `autoscale`'s.

The number in a Deployment has one writer. Where another autoscaler writes it, it is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec, Sizing
from modeltiers.domain import conditions
from modeltiers.domain.autoscale import Bounds
from modeltiers.domain.conditions import Observation


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many pods are wanted, and what to say of it."""

    wanted: int
    said: Observation | None = None
    """The condition ScalingActive; None where the spec alone rules."""
    status: Mapping[str, Any] | None = None
    """Status of the own autoscaler's last decision."""
    wait: float | None = None
    """Seconds until the next look; None when nothing but events matters."""


def bounds_of(spec: ModelTierSpec) -> Bounds | None:
    """What the own autoscaler has to keep to; None when the spec does not ask for it."""
    asked = spec.autoscaling
    if asked is None:
        return None
    target = asked.target_in_flight or max(1, (spec.sizing or Sizing()).concurrency * 3 // 4)
    return Bounds(asked.min, asked.max, target, timedelta(seconds=asked.scale_down_window_seconds))


def most_pods(spec: ModelTierSpec) -> tuple[str, int]:
    """The most pods that the spec asks for, and the field that says so."""
    if spec.autoscaling:
        return "spec.autoscaling.max", spec.autoscaling.max
    return "spec.replicas", spec.replicas


def expected(spec: ModelTierSpec, live: int | None) -> int:
    """How many pods there will be for the spec, before anybody has looked; `live` is what the Deployment wants now."""
    if spec.autoscaling is None:
        return spec.replicas
    return min(max(live or 0, spec.autoscaling.min), spec.autoscaling.max)


def others_rule(
    name: str, spec: ModelTierSpec, live: int | None, *, on_workload: str | None, on_tier: str | None
) -> Scaling | None:
    """The number where a HorizontalPodAutoscaler of this name writes it, or would; None where none is in the way.

    One that scales the tier itself is in nobody's way as long as the spec asks for no autoscaling.
    """
    if on_workload is not None and live is not None:
        problem = (
            f"HorizontalPodAutoscaler {on_workload} scales Deployment {names.workload(name)}, whose number is left"
        )
        way_out = "let it scale the ModelTier instead" if spec.autoscaling is None else "remove it or spec.autoscaling"
        return Scaling(live, _active("False", "AnotherAutoscaler", f"{problem} to it: {way_out}"))
    if on_tier is not None and spec.autoscaling is not None:
        problem = f"HorizontalPodAutoscaler {on_tier} scales this tier, too: while both are there nobody does"
        return Scaling(
            expected(spec, live),
            _active("False", "AnotherAutoscaler", f"{problem}. Remove it or spec.autoscaling"),
        )
    return None


def own_rules(spec: ModelTierSpec, bounds: Bounds, reason: str) -> Observation:
    """The condition while the own autoscaler is at work; `reason` is its last decision's, empty before the first."""
    unused = f"; spec.replicas ({spec.replicas}) has no effect" if spec.replicas != 1 else ""
    about = f"from {bounds.least} to {bounds.most} pods for {bounds.target} requests each{unused}"
    if reason in ("", "MetricsUnknown"):
        return _active("Unknown", "MetricsUnknown", f"{about}; not known what the pods hold: their number stays")
    return _active("True", "Autoscaling", f"{about}; see status.autoscaling")


def _active(status: conditions.Status, reason: str, message: str) -> Observation:
    return Observation(conditions.SCALING_ACTIVE, status, reason, message)
