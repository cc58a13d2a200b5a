"""How many accelerators are free: what nodes offer, less what the pods on them ask for.

Pure arithmetic over what an API server lists. It knows extended resources only (a whole number, requested by name) and
refuses to know about device claims (DRA) or what the scheduler will think of taints and affinities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeltiers.domain.views import NodeView


@dataclass(frozen=True, slots=True)
class FreeGpus:
    """Free accelerators of one product on every node that the scheduler may use, in the order of the nodes' names."""

    by_node: tuple[int, ...]

    @property
    def total(self) -> int:
        """Free accelerators on all nodes together."""
        return sum(self.by_node)

    @property
    def largest(self) -> int:
        """The most that are free on one node."""
        return max(self.by_node, default=0)


def requested(pod: Mapping[str, Any], resource: str) -> int:
    """What a pod takes of an extended resource, as the scheduler counts it.

    Init containers run one after the other and before the rest, so only the largest matters; a sidecar among them keeps
    what it has from then on.
    """
    spec = pod.get("spec") or {}
    sidecars = peak = 0
    for container in spec.get("initContainers") or ():
        asked = _asked(container, resource)
        if container.get("restartPolicy") == "Always":
            sidecars += asked
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + asked)
    running = sidecars + sum(_asked(container, resource) for container in spec.get("containers") or ())
    return max(peak, running)


def free_gpus(nodes: Sequence[NodeView], taken: Mapping[str, int], resource: str) -> FreeGpus:
    """Free accelerators on these nodes, given what is taken on each node by its name."""
    usable = sorted((node for node in nodes if node.schedulable), key=lambda node: node.name)
    return FreeGpus(tuple(max(0, node.allocatable.get(resource, 0) - taken.get(node.name, 0)) for node in usable))


def taken_by(pods: Iterable[Mapping[str, Any]], resource: str) -> dict[str, int]:
    """What pods take of a resource on each node; pods that have no node or have ended take nothing."""
    taken: dict[str, int] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        phase = (pod.get("status") or {}).get("phase")
        asked = requested(pod, resource)
        if node and asked and phase not in ("Succeeded", "Failed"):
            taken[node] = taken.get(node, 0) + asked
    return taken


def _asked(container: Mapping[str, Any], resource: str) -> int:
    resources = container.get("resources") or {}
    # For an extended resource the two are equal; a pod that was not defaulted may have only the limit.
    amount = (resources.get("requests") or {}).get(resource) or (resources.get("limits") or {}).get(resource) or 0
    return int(amount) if str(amount).isdigit() else 0
