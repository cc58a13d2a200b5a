"""Volumes of a real node that are directories of this machine: the manifests, nothing else.

A static local volume passes the `restricted` pod security that a hostPath in the pod does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.cluster.node import STORAGE_CLASS
from e2e.cluster.realnode import RealNode
from e2e.cluster.report import HarnessError


def local(
    node: RealNode, namespace: str, name: str, directory: Path, *, writable: bool = False, shared: bool = False
) -> list[dict[str, Any]]:
    """Return a volume over `directory` and the claim `name` that is bound to it and to it alone.

    `shared`: pods may write it on any node, which is true where there is one. Mount a read-only one with `readOnly:
    true`. A writable one belongs to whoever the pod runs as: give no fsGroup with a large one, because kubelet then
    changes the owner of every file.
    """
    if not (writable or shared) and directory.stat().st_mode & 0o005 != 0o005:
        raise HarnessError(f"no container could read {directory}, whatever its user: chmod o+rx it")
    mode = "ReadWriteMany" if shared else "ReadWriteOnce" if writable else "ReadOnlyMany"
    modes, size = [mode], {"storage": "1Gi"}
    volume = f"{namespace}-{name}"
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "persistentVolumeReclaimPolicy": "Retain",  # the directory is the caller's
                "storageClassName": STORAGE_CLASS,
                "claimRef": {"namespace": namespace, "name": name},
                "local": {"path": str(directory.resolve())},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "accessModes": modes,
                "storageClassName": STORAGE_CLASS,
                "volumeName": volume,
                "resources": {"requests": size},
            },
        },
    ]
