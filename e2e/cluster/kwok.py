"""Fake GPU nodes: real Node objects of a believable shape, whose kubelet is played by kwok.

Nodes carry the labels that NVIDIA's feature discovery sets and the usual GPU taint, so unmodified tier manifests
schedule onto them. Pods become ready after an adjustable delay, or replay a recorded failure.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import replays
from e2e.cluster.layout import Layout
from e2e.cluster.process import Program
from e2e.cluster.supervisor import write_private

KWOK = "kwok"
STAGES = Path(__file__).parent / "stages.yaml"
LABEL = "type=kwok"


@dataclass(frozen=True)
class NodePool:
    """A number of equal fake nodes, named `<name>-0`, `<name>-1` and so on."""

    name: str
    count: int
    product: str = "NVIDIA-H100-80GB-HBM3"
    memory_mib: int = 81559
    gpus: int = 8
    resource: str = "nvidia.com/gpu"
    cpu: str = "192"
    memory: str = "2Ti"
    extra_labels: dict[str, str] = field(default_factory=dict)
    tainted: bool = True

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Return the Node manifests."""
        return (self._node(f"{self.name}-{index}") for index in range(self.count))

    def _node(self, name: str) -> dict[str, Any]:
        labels = {
            "type": "kwok",
            "kubernetes.io/hostname": name,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
        }
        resources = {"cpu": self.cpu, "memory": self.memory, "ephemeral-storage": "3Ti", "pods": "110"}
        taints = []
        if self.gpus:
            labels["nvidia.com/gpu.product"] = self.product
            labels["nvidia.com/gpu.memory"] = str(self.memory_mib)
            labels["nvidia.com/gpu.count"] = str(self.gpus)
            resources[self.resource] = str(self.gpus)
            if self.tainted:
                taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": labels | self.extra_labels,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
            },
            "spec": {"taints": taints},
            "status": {"allocatable": resources, "capacity": resources},
        }


def write_stages(layout: Layout, delay_ms: int) -> None:
    """Write kwok's stages: the ones beside this file with the delay filled in, and one for every replay case."""
    stages = [stage for stage in yaml.safe_load_all(STAGES.read_text()) if stage]
    for stage in stages:
        if stage["metadata"]["name"] in ("pod-ready", "pod-complete"):
            stage["spec"]["delay"] = {"durationMilliseconds": delay_ms}
        for condition in stage["spec"]["selector"]["matchExpressions"]:
            if condition["key"] == "CASE_OF_POD":
                condition["key"] = replays.CASE_OF_POD
        following = stage["spec"]["next"]
        if "statusTemplate" in following:
            following["statusTemplate"] = following["statusTemplate"].replace("BORN", replays.BORN)
    stages += [replays.stage(replay, delay_ms) for replay in replays.load()]
    write_private(layout.config / STAGES.name, yaml.safe_dump_all(stages, sort_keys=False))


def program(layout: Layout) -> Program:
    """Describe kwok, set to manage our fake nodes and no other node of the cluster."""
    argv = (
        str(layout.binaries[KWOK]),
        f"--config={layout.config / STAGES.name}",
        f"--kubeconfig={layout.kubeconfig(KWOK)}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={LABEL}",
        "--node-lease-duration-seconds=40",
        f"--server-address=127.0.0.1:{layout.ports.kwok}",
        "--cidr=10.250.0.0/16",
        "--node-ip=192.0.2.1",
    )
    return Program(KWOK, argv, lambda: _healthy(layout.ports.kwok))


def _healthy(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as wire:
        try:
            wire.request("GET", "/healthz")
            return wire.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
