"""The Service that clients of a policy call: it leads to the routers of the ladder's entry tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeltiers import names
from modeltiers.domain.diff import sealed
from modeltiers.render.owner import Owner


def render_entry(owner: Owner, pods: Mapping[str, str]) -> dict[str, Any]:
    """The Service of a policy, before the ready routers that have these labels."""
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": names.policy_service(owner.name),
                "namespace": owner.namespace,
                "labels": names.policy_labels(owner.name),
                "ownerReferences": [owner.reference()],
            },
            "spec": {
                "type": "ClusterIP",
                "selector": dict(pods),
                "ports": [
                    {
                        "name": names.ENGINE_PORT_NAME,
                        "port": 80,
                        "targetPort": names.SERVING_PORT_NAME,
                        "protocol": "TCP",
                        "appProtocol": "http",
                    }
                ],
            },
        }
    )
