"""Objects that tiers, egress routers and gateways all have: ServiceAccount, Services, tables, PodDisruptionBudget.

Each takes the metadata whole; whose they are and how they are named is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeltiers import names
from modeltiers.render.owner import Owner

Manifest = dict[str, Any]


def metadata(owner: Owner, name: str, labels: Mapping[str, str]) -> Manifest:
    """The metadata of a child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner.reference()],
    }


def service_account(meta: Manifest) -> Manifest:
    """An account without rights, whose token no pod gets."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "automountServiceAccountToken": False}


def service(meta: Manifest, selector: Mapping[str, str], port: int, target: str) -> Manifest:
    """A Service before pods, by a port's name."""
    return _service(meta, selector, names.ENGINE_PORT_NAME, port, target)


def pods_service(meta: Manifest, selector: Mapping[str, str]) -> Manifest:
    """A name for all routers of a kind: who calls them chooses among the addresses by itself."""
    found = _service(meta, selector, names.SERVING_PORT_NAME, names.SERVING_PORT, names.SERVING_PORT_NAME)
    found["spec"]["clusterIP"] = "None"
    return found


def _service(meta: Manifest, selector: Mapping[str, str], name: str, port: int, target: str) -> Manifest:
    ports = [{"name": name, "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": "http"}]
    spec = {"type": "ClusterIP", "selector": dict(selector), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def tables(meta: Manifest, data: Mapping[str, str]) -> Manifest:
    """The ConfigMap with the tables that routers read, by file name."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        # Left out when empty: the API server keeps no empty map, and a second pass must find nothing to write.
        **({"data": dict(data)} if data else {}),
    }


def disruption_budget(meta: Manifest, selector: Mapping[str, str]) -> Manifest:
    """A drain takes one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": dict(selector)},
            # A pod that never became ready must not block a node's drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
