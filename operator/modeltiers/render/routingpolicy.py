"""The Service that clients of a policy call: it leads to the routers of the ladder's entry tier."""

from __future__ import annotations

from typing import Any

from modeltiers import names
from modeltiers.domain.diff import sealed
from modeltiers.render.owner import Owner


def render_entry(owner: Owner, tier: str) -> dict[str, Any]:
    """The Service of a policy, before the ready routers of this tier."""
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": names.policy_service(owner.name),
                "namespace": owner.namespace,
                # The tier's label, since it stands before the tier's pods: it is watched with the tier's own children.
                "labels": {**names.tier_labels(tier), names.LABEL_POLICY: owner.name},
                "ownerReferences": [owner.reference()],
            },
            "spec": {
                "type": "ClusterIP",
                "selector": names.selector(tier),
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
