"""How the operator's own autoscaler chooses the number of a tier's pods."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from modeltiers.api.base import Model, Rule


class Autoscaling(Model):
    """Let the operator choose the number of pods by the requests that their engines hold. `replicas` has no effect
    then."""

    min: int = Field(default=1, ge=1, le=1000)
    """Pods at least."""
    max: int = Field(ge=1, le=1000)
    """Pods at most; also within the administrator's limit."""
    target_in_flight: int | None = Field(default=None, ge=1, le=100_000)
    """Requests that an engine should hold, running or waiting, as the mean of all pods. Left out: three quarters of
    sizing.concurrency."""
    scale_down_window_seconds: int = Field(default=300, ge=0, le=3600)
    """Fewer pods only when fewer would have done for the whole of this time."""
    wait_for_nodes: bool = False
    """Whether to ask for more pods than free accelerators are seen for, so that a node autoscaler adds nodes."""

    __cel__: ClassVar[tuple[Rule, ...]] = (Rule("self.min <= self.max", "min must not be greater than max"),)
