"""What a real node is: its name, the GPUs it claims, its labels. Starts nothing and knows no path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Addresses inside the sandbox; nobody outside it sees them, so every sandbox may use the same.
ADDRESS = "10.99.0.1"
BRIDGE = "node0"
DNS_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"
KUBELET_PORT = 10250
POLICY_QUEUE = 100


@dataclass(frozen=True)
class RealNode:
    """A node whose kubelet, container runtime and network are real. Its GPUs are a claim that everybody believes.

    The engine in a pod that asks for such a GPU runs on the CPU; scheduler and kubelet count as for real ones.
    """

    name: str = "node1"
    gpus: int = 0
    product: str = "NVIDIA-L40S"
    memory_mib: int = 46068
    resource: str = "nvidia.com/gpu"
    extra_labels: Mapping[str, str] = field(default_factory=dict)
    tainted: bool = False
    enforces_policies: bool = False  # NetworkPolicies, by one more program; the network of pods alone ignores them

    def labels(self) -> dict[str, str]:
        """Return the labels that kubelet registers the node with, beyond its own."""
        labels = dict(self.extra_labels)
        if self.gpus:
            labels |= {
                "nvidia.com/gpu.product": self.product,
                "nvidia.com/gpu.memory": str(self.memory_mib),
                "nvidia.com/gpu.count": str(self.gpus),
            }
        return labels

    def taints(self) -> list[dict[str, str]]:
        """Return the taints that the node is born with."""
        if self.gpus and self.tainted:
            return [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        return []

    def advertisement(self) -> list[dict[str, Any]]:
        """Return the patch of the node's status that makes everybody believe in its GPUs."""
        resource = self.resource.replace("/", "~1")
        return [
            {"op": "add", "path": f"/status/{kind}/{resource}", "value": str(self.gpus)}
            for kind in ("capacity", "allocatable")
        ]
