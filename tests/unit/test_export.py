"""What is said of a policy's HTTPRoute, and what it looks like."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from modeltiers.api.routingpolicy import EndpointPicker, Export
from modeltiers.api.settings import GatewayRef
from modeltiers.domain.export import no_api, not_written, nothing_yet, told_by, unknown_gateway
from modeltiers.render.owner import Owner
from modeltiers.render.routingpolicy import render_pool, render_route

OWNER = Owner("demo", "support", "u1", "RoutingPolicy")


def route(*said: tuple[str, str], generation: int = 2) -> dict[str, Any]:
    """A route of generation 2 and what a gateway said of some generation."""
    told = [
        {"type": kind, "status": status, "reason": "Why", "message": "words", "observedGeneration": generation}
        for kind, status in said
    ]
    return {"metadata": {"generation": 2}, "status": {"parents": [{"conditions": told}] if told else []}}


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        ({"metadata": {}}, "Unknown", "RouteNotSeen"),
        (route(), "Unknown", "RouteNotSeen"),
        (route(("Accepted", "True"), ("ResolvedRefs", "True"), generation=1), "Unknown", "RouteNotSeen"),
        (route(("Accepted", "True")), "True", "RouteAccepted"),
        (route(("Accepted", "True"), ("ResolvedRefs", "True"), ("Odd", "False")), "True", "RouteAccepted"),
        (route(("Accepted", "True"), ("ResolvedRefs", "False")), "False", "RouteRefused"),
        (route(("Accepted", "False")), "False", "RouteRefused"),
    ],
)
def test_what_gateways_say(found: dict[str, Any], status: str, reason: str) -> None:
    told = told_by(found, "public")
    assert (told.status, told.reason) == (status, reason)
    assert "public" in told.message
    assert told.wait == (timedelta(minutes=5) if status == "True" else timedelta(seconds=30))


def test_what_stands_in_the_way_names_the_way_out() -> None:
    known = unknown_gateway("private", {"public": 1, "internal": 2})
    assert known.message.startswith("spec.export.gateway: private")
    assert "internal, public" in known.message
    assert known.wait is None  # only a new spec or new settings change it
    assert "install" in no_api("HTTPRoute").message
    assert "“no”" in not_written("HTTPRoute demo/support-policy", "no").message
    assert nothing_yet().status == "Unknown"


def test_the_route_leads_to_the_policys_service() -> None:
    gateway = GatewayRef(name="edge", namespace="gateways", section_name="https")
    wanted = Export(gateway="public", hostnames=["models.example.com"])
    found = render_route(OWNER, gateway, wanted)
    assert found["metadata"]["name"] == "support-policy"
    assert found["spec"]["hostnames"] == ["models.example.com"]
    (parent,) = found["spec"]["parentRefs"]
    assert (parent["name"], parent["namespace"], parent["sectionName"]) == ("edge", "gateways", "https")
    (rule,) = found["spec"]["rules"]
    assert rule["backendRefs"][0]["name"] == "support-policy"
    here = render_route(OWNER, GatewayRef(name="edge"), wanted)["spec"]["parentRefs"][0]
    assert set(here) == {"group", "kind", "name"}  # of the policy's own namespace, all listeners


def test_with_a_picker_the_route_leads_to_a_pool_of_the_same_routers() -> None:
    wanted = Export(gateway="public", hostnames=["a.example.com"], endpoint_picker=EndpointPicker(name="picker"))
    (rule,) = render_route(OWNER, GatewayRef(name="edge"), wanted)["spec"]["rules"]
    assert rule["backendRefs"][0]["kind"] == "InferencePool"
    assert wanted.endpoint_picker is not None
    pool = render_pool(OWNER, {"modeltiers.dev/tier": "small"}, wanted.endpoint_picker)
    assert pool["metadata"]["name"] == rule["backendRefs"][0]["name"]
    assert pool["spec"]["selector"] == {"matchLabels": {"modeltiers.dev/tier": "small"}}


@pytest.mark.parametrize(
    "name", ["", "UPPER.example.com", "a..b", "*", "http://x", "a.example.com:443", "-a.example.com"]
)
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Export.model_validate({"gateway": "public", "hostnames": [name]})
    assert Export.model_validate({"gateway": "public", "hostnames": ["*.example.com"]})
