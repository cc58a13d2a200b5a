"""The pod of a tier with the router before its engine, as the administrator's settings switch it on."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.render.modeltier import render_tier
from modeltiers.render.owner import Owner
from modeltiers.router.__main__ import arguments
from tests.unit.golden import record_of
from tests.unit.test_render import base, restricted

ROUTED = Settings.model_validate({"router": {"image": "example.com/router:1"}})
OWNER = Owner("team", "small", "uid")


def children(spec: ModelTierSpec | None = None, settings: Settings = ROUTED) -> dict[str, dict[str, Any]]:
    """Return the tier's children by kind and name."""
    found = render_tier(OWNER, 1, record_of("small", spec or base(), settings))
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def pod(spec: ModelTierSpec | None = None) -> dict[str, Any]:
    template: dict[str, Any] = children(spec)["Deployment/small"]["spec"]["template"]["spec"]
    return template


def test_the_router_is_a_native_sidecar_and_the_pod_stays_restricted() -> None:
    found = pod()
    [router] = found["initContainers"]
    assert router["restartPolicy"] == "Always"
    assert restricted({**found, "containers": [router, *({**one, "ports": []} for one in found["containers"])]}) == []
    assert router["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_engine_is_reached_through_the_router_only() -> None:
    found = pod()
    [engine], [router] = found["containers"], found["initContainers"]
    assert "--host=127.0.0.1" in engine["args"]
    assert "ports" not in engine
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine[probe]["httpGet"]["port"] == names.ADMIN_PORT
    assert engine["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert engine["startupProbe"]["httpGet"]["path"] == "/engine/health"
    assert [port["containerPort"] for port in router["ports"]] == [names.SERVING_PORT, names.ADMIN_PORT]
    assert router["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_a_tier_may_have_another_router_than_the_administrators() -> None:
    """As far as it says so; the rest stays."""
    [router] = pod(base(serving={"router": {"memory": "512Mi", "image": "example.com/other:2"}}))["initContainers"]
    assert router["image"] == "example.com/other:2"
    assert router["resources"] == {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}}
    [usual] = pod()["initContainers"]
    assert (usual["image"], usual["resources"]["limits"]["memory"]) == ("example.com/router:1", "256Mi")


def test_services_lead_to_the_router() -> None:
    found = children()
    assert found["Service/small"]["spec"]["ports"][0]["targetPort"] == names.SERVING_PORT_NAME
    headless = found["Service/small-pods"]["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["selector"] == {**found["Service/small"]["spec"]["selector"], names.LABEL_REVISION: "r1"}


@pytest.mark.parametrize("seconds", [1, 120, 3600])
def test_the_router_drains_before_the_engine_is_told_to_end(seconds: int) -> None:
    found = pod(base(serving={"shutdownSeconds": seconds}))
    [engine] = found["containers"]
    assert engine["lifecycle"]["preStop"]["httpGet"]["path"] == f"/drain?seconds={seconds}"
    [left] = [int(one.split("=")[1]) for one in engine["args"] if one.startswith("--shutdown-timeout=")]
    assert found["terminationGracePeriodSeconds"] >= seconds + left + 10


def test_what_a_policy_brings_later_is_mounted_from_the_start_and_may_be_missing() -> None:
    volumes = {one["name"]: one for one in pod()["volumes"]}
    assert volumes["tables"]["configMap"] == {"name": "small-table", "optional": True}
    secrets = [one["secret"] for one in volumes["keys"]["projected"]["sources"]]
    assert [one["name"] for one in secrets] == [names.CLIENT_KEYS_SECRET, names.HOP_SECRET]
    assert all(one["optional"] for one in secrets)


def test_the_router_takes_the_arguments_it_is_given() -> None:
    [router] = pod()["initContainers"]
    options = arguments(router["args"])
    assert options.local == ("small", f"127.0.0.1:{names.ENGINE_PORT}")
    assert (options.listen[1], options.admin[1]) == (names.SERVING_PORT, names.ADMIN_PORT)


def test_without_a_router_image_nothing_of_it_is_there() -> None:
    found = children(settings=Settings())
    assert "Service/small-pods" not in found
    assert "initContainers" not in found["Deployment/small"]["spec"]["template"]["spec"]


def test_a_tier_that_runs_without_a_router_keeps_its_pods_and_service_when_the_setting_comes() -> None:
    """The record says what runs: a new setting rolls no pod, and the Service still leads to the engine's own port."""
    before = record_of("small", base(), Settings())
    found = {one["kind"]: one for one in render_tier(OWNER, 1, before)}
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == names.ENGINE_PORT_NAME
