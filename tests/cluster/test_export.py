"""A policy's HTTPRoute on a real API server, with Gateway API's own schema: there, not there, and there later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.cluster import crds
from tests.cluster.kit import Tiers, until, without_crds
from tests.cluster.policies import apply, condition, reasoned

CRD = "httproutes.gateway.networking.k8s.io"
POOL_CRD = "inferencepools.inference.networking.k8s.io"
POOLS = Path(__file__).parent / "fixtures/inferencepools.yaml"
EXPORT = {"gateway": "public", "hostnames": ["support.example.com"]}


def serve(tiers: Tiers) -> None:
    """Have the cluster serve HTTPRoutes, as an administrator would."""
    tiers.cluster.kubectl("apply", "--server-side", "-f", str(crds.http_routes()))
    tiers.cluster.wait_established(CRD)


def answer(tiers: Tiers, **said: str) -> None:
    """Say what a gateway's controller says of the route."""
    route = tiers.get("httproute", "support-policy") or {}
    generation = route["metadata"]["generation"]
    told = [
        {
            "type": kind,
            "status": status,
            "reason": "Said",
            "message": "in the words of a gateway",
            "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind, status in said.items()
    ]
    parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "example.com/gateway", "conditions": told}
    patch = json.dumps({"status": {"parents": [parent]}})
    tiers.kubectl("patch", "httproute", "support-policy", "--subresource=status", "--type=merge", "-p", patch)


def ring(tiers: Tiers, **changes: Any) -> None:
    """Change the policy, so that it is looked at now."""
    apply(tiers, export={**EXPORT, **changes})


def test_a_policy_is_exported_once_gateway_api_is_there_and_withdrawn_again(tiers: Tiers) -> None:
    without_crds(tiers.cluster, CRD)
    for name in ("small", "large"):
        tiers.apply(name)
        tiers.ready(name)
    apply(tiers, export=EXPORT)
    assert "install" in reasoned(tiers, "Exported", "False", "GatewayApiMissing")
    serve(tiers)
    ring(tiers, hostnames=["support.example.com", "help.example.com"])
    reasoned(tiers, "Exported", "Unknown", "RouteNotSeen")
    route = tiers.get("httproute", "support-policy")
    assert route is not None
    assert route["spec"]["hostnames"] == ["support.example.com", "help.example.com"]
    assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == "support-policy"
    assert route["metadata"]["ownerReferences"][0]["kind"] == "RoutingPolicy"
    answer(tiers, Accepted="True", ResolvedRefs="False")
    reasoned(tiers, "Exported", "False", "RouteRefused", timeout=45)
    version = (tiers.get("httproute", "support-policy") or {})["metadata"]["generation"]
    answer(tiers, Accepted="True", ResolvedRefs="True")
    reasoned(tiers, "Exported", "True", "RouteAccepted", timeout=45)
    # Looked at several times meanwhile, and written once: what the server adds by itself is no difference.
    assert (tiers.get("httproute", "support-policy") or {})["metadata"]["generation"] == version
    ring(tiers, gateway="private")
    assert "public" in reasoned(tiers, "Exported", "False", "GatewayNotKnown")
    apply(tiers)
    until(lambda: tiers.get("httproute", "support-policy") is None, "no route left")
    until(lambda: not condition(tiers, "Exported"), "nothing said of a route")


def test_a_picker_of_pods_gets_a_pool_of_the_routers_where_requests_enter(tiers: Tiers) -> None:
    serve(tiers)
    without_crds(tiers.cluster, POOL_CRD)
    for name in ("small", "large"):
        tiers.apply(name)
        tiers.ready(name)
    ring(tiers, endpointPicker={"name": "picker"})
    assert "Inference Extension" in reasoned(tiers, "Exported", "False", "GatewayApiMissing")
    tiers.cluster.kubectl("apply", "--server-side", "-f", str(POOLS))
    tiers.cluster.wait_established(POOL_CRD)
    ring(tiers, endpointPicker={"name": "picker", "port": 9003})
    reasoned(tiers, "Exported", "Unknown", "RouteNotSeen")
    pool = tiers.get("inferencepool", "support-policy")
    assert pool is not None
    service = tiers.get("service", "support-policy") or {}
    assert pool["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert pool["spec"]["targetPorts"] == [{"number": 8080}]
    assert pool["spec"]["endpointPickerRef"]["port"] == {"number": 9003}
    backend = (tiers.get("httproute", "support-policy") or {})["spec"]["rules"][0]["backendRefs"][0]
    assert (backend["kind"], backend["name"]) == ("InferencePool", "support-policy")
    ring(tiers)
    until(lambda: tiers.get("inferencepool", "support-policy") is None, "no pool left")
    backend = (tiers.get("httproute", "support-policy") or {})["spec"]["rules"][0]["backendRefs"][0]
    assert backend["kind"] == "Service"


def test_a_route_that_is_somebody_elses_is_left_alone(tiers: Tiers) -> None:
    serve(tiers)
    tiers.apply("small")
    tiers.apply("large")
    theirs = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "support-policy"}}
    tiers.create({**theirs, "spec": {"hostnames": ["theirs.example.com"]}})
    apply(tiers, export=EXPORT)
    assert "support-policy" in reasoned(tiers, "Exported", "False", "RouteNotWritten")
    apply(tiers)
    until(lambda: not condition(tiers, "Exported"), "nothing said of a route")
    assert (tiers.get("httproute", "support-policy") or {})["spec"]["hostnames"] == ["theirs.example.com"]
