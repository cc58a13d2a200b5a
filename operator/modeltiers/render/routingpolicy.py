"""The Service that clients of a policy call, before the routers of the entry; and the way to it from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modeltiers import names
from modeltiers.api.settings import GatewayRef
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


def render_route(owner: Owner, gateway: GatewayRef, hostnames: Sequence[str]) -> dict[str, Any]:
    """The HTTPRoute from a gateway to the Service of a policy, with the defaults that the API server adds in lists."""
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name}
    parent |= {"namespace": gateway.namespace} if gateway.namespace else {}
    parent |= {"sectionName": gateway.section_name} if gateway.section_name else {}
    backend = {"group": "", "kind": "Service", "name": names.policy_service(owner.name), "port": 80, "weight": 1}
    match = {"path": {"type": "PathPrefix", "value": "/v1"}}
    return sealed(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {
                "name": names.policy_route(owner.name),
                "namespace": owner.namespace,
                "labels": names.policy_labels(owner.name),
                "ownerReferences": [owner.reference()],
            },
            "spec": {
                "parentRefs": [parent],
                "hostnames": list(hostnames),
                "rules": [{"matches": [match], "backendRefs": [backend]}],
            },
        }
    )
