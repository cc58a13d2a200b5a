"""NetworkPolicies: clients reach a router's serving port, operator and monitoring its admin port, nobody anything else.

The kubelet's probes come from the node and are always let in. What leaves a tier's pod is not restricted here: it
fetches its model from where its source says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modeltiers import names
from modeltiers.api.settings import Network, Peer

Manifest = dict[str, Any]

NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""Label that the API server puts on every namespace."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who may connect, as the peers of a NetworkPolicy; clients are everybody when there are none."""

    clients: Sequence[Manifest]
    managers: Sequence[Manifest]


def admitted(network: Network, operator_namespace: str) -> Admitted | None:
    """Return who may connect by the administrator's settings; None when no policies are wanted."""
    if not network.policies:
        return None
    routers = {"podSelector": {"matchLabels": {names.LABEL_MANAGED_BY: names.FIELD_MANAGER}}}
    operator = Peer(namespace=operator_namespace, pod_labels={names.LABEL_NAME: names.OPERATOR_NAME})
    clients = [_peer(one) for one in network.clients]
    return Admitted([routers, *clients] if clients else [], [_peer(one) for one in (operator, *network.monitoring)])


def before_routers(metadata: Mapping[str, Any], selector: Mapping[str, str], who: Admitted) -> Manifest:
    """The NetworkPolicy before the routers that a selector finds."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": dict(metadata),
        "spec": {
            "podSelector": {"matchLabels": dict(selector)},
            "policyTypes": ["Ingress"],
            "ingress": [
                _rule(names.SERVING_PORT, who.clients),
                _rule(names.ADMIN_PORT, who.managers),
            ],
        },
    }


def before_stages(metadata: Mapping[str, Any], selector: Mapping[str, str], who: Admitted) -> Manifest:
    """The NetworkPolicy before the pods of a distillation: nobody calls them but who may read how far they are."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": dict(metadata),
        "spec": {
            "podSelector": {"matchLabels": dict(selector)},
            "policyTypes": ["Ingress"],
            "ingress": [_rule(names.ADMIN_PORT, who.managers)],
        },
    }


def _rule(port: int, peers: Sequence[Manifest]) -> Manifest:
    # Left out when empty, which means everybody: the API server keeps no empty list.
    return {"ports": [{"port": port, "protocol": "TCP"}], **({"from": list(peers)} if peers else {})}


def _peer(one: Peer) -> Manifest:
    namespace = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: one.namespace}}} if one.namespace else {}
    pods = {"podSelector": {"matchLabels": dict(one.pod_labels)} if one.pod_labels else {}}
    return {**namespace, **pods}
