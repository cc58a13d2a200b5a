"""The Service that clients of a policy call, before the routers of the entry; and the way to it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modeltiers import names
from modeltiers.api.routingpolicy import EndpointPicker, Export
from modeltiers.api.settings import GatewayRef
from modeltiers.domain.diff import sealed
from modeltiers.render import parts
from modeltiers.render.owner import Owner

_INFERENCE: Final = "inference.networking.k8s.io"


def render_entry(owner: Owner, pods: Mapping[str, str]) -> dict[str, Any]:
    """The Service of a policy, before the ready routers that have these labels."""
    meta = _metadata(owner, names.policy_service(owner.name))
    return sealed(parts.service(meta, pods, 80, names.SERVING_PORT_NAME))


def render_pool(owner: Owner, pods: Mapping[str, str], picker: EndpointPicker) -> dict[str, Any]:
    """The InferencePool of the routers that have these labels: the ones behind the policy's Service."""
    return sealed(
        {
            "apiVersion": f"{_INFERENCE}/v1",
            "kind": "InferencePool",
            "metadata": _metadata(owner, names.policy_route(owner.name)),
            "spec": {
                "selector": {"matchLabels": dict(pods)},
                "targetPorts": [{"number": names.SERVING_PORT}],
                # The route leads on when the picker is away: to any router, as the Service would.
                "endpointPickerRef": {
                    "name": picker.name,
                    "port": {"number": picker.port},
                    "failureMode": "FailOpen",
                },
            },
        }
    )


def render_route(owner: Owner, gateway: GatewayRef, export: Export) -> dict[str, Any]:
    """The HTTPRoute from a gateway to a policy's Service or pool, with the API server's own defaults in lists."""
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name}
    parent |= {"namespace": gateway.namespace} if gateway.namespace else {}
    parent |= {"sectionName": gateway.section_name} if gateway.section_name else {}
    backend = {"group": "", "kind": "Service", "name": names.policy_service(owner.name), "port": 80, "weight": 1}
    if export.endpoint_picker is not None:
        backend = {"group": _INFERENCE, "kind": "InferencePool", "name": names.policy_route(owner.name), "weight": 1}
    match = {"path": {"type": "PathPrefix", "value": "/v1"}}
    return sealed(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": _metadata(owner, names.policy_route(owner.name)),
            "spec": {
                "parentRefs": [parent],
                "hostnames": list(export.hostnames),
                "rules": [{"matches": [match], "backendRefs": [backend]}],
            },
        }
    )


def _metadata(owner: Owner, name: str) -> dict[str, Any]:
    return parts.metadata(owner, name, names.policy_labels(owner.name))
