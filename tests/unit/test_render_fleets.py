"""Routers that stand by themselves: before an external API, and as a policy's gateway."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from pydantic import ValidationError

from modeltiers import names
from modeltiers.api.modeltier import External
from modeltiers.api.routingpolicy import Gateway
from modeltiers.api.settings import ExternalHost, Settings
from modeltiers.domain.diff import difference
from modeltiers.domain.hosts import endpoint_of, namespace_of
from modeltiers.render.egress import render_egress
from modeltiers.render.gateway import render_gateway
from modeltiers.render.network import admitted
from modeltiers.render.owner import Owner
from modeltiers.router.__main__ import arguments, called
from modeltiers.router.addresses import allowed
from tests.unit.test_render import restricted

SETTINGS = Settings.model_validate({"router": {"image": "example.com/router:1"}})
TIER = Owner("team", "frontier", "uid")
POLICY = Owner("team", "support", "uid", "RoutingPolicy")
EXTERNAL: dict[str, Any] = {
    "baseUrl": "https://api.example.com/v1",
    "model": "gpt",
    "apiKeySecretRef": {"name": "frontier-api", "key": "token"},
}
Children = dict[str, dict[str, Any]]


def by_name(found: list[dict[str, Any]]) -> Children:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def egress(
    external: dict[str, Any] | None = None, host: dict[str, Any] | None = None, settings: Settings = SETTINGS
) -> Children:
    spec = External.model_validate({**EXTERNAL, **(external or {})})
    endpoint = endpoint_of(spec.base_url)
    assert endpoint is not None
    entry = ExternalHost.model_validate({"host": endpoint.host, **(host or {})})
    who = admitted(settings.network, "modeltiers-system")
    return by_name(render_egress(TIER, spec, endpoint, entry, settings, {"support.json": "{}"}, who))


def gateway(spec: dict[str, Any] | None = None, settings: Settings = SETTINGS) -> Children:
    who = admitted(settings.network, "modeltiers-system")
    found = render_gateway(POLICY, Gateway.model_validate(spec or {}), settings, {"support.json": "{}"}, who)
    return by_name(found)


def pod(children: Children, name: str) -> dict[str, Any]:
    found: dict[str, Any] = children[f"Deployment/{name}"]["spec"]["template"]["spec"]
    return found


PODS = [
    pytest.param(pod(egress(), "frontier"), id="egress"),
    pytest.param(pod(gateway(), "support-gateway"), id="gateway"),
]


@pytest.mark.parametrize("found", PODS)
def test_the_pods_are_restricted_and_without_a_token(found: dict[str, Any]) -> None:
    [container] = found["containers"]
    assert restricted(found) == []
    assert found["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert found["securityContext"]["runAsUser"] > 0


@pytest.mark.parametrize("found", PODS)
def test_a_pod_is_probed_and_drains_before_it_ends(found: dict[str, Any]) -> None:
    [container] = found["containers"]
    assert "restartPolicy" not in container
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    drain = container["lifecycle"]["preStop"]["httpGet"]["path"]
    assert drain == "/drain?seconds=120"
    assert found["terminationGracePeriodSeconds"] > 120


@pytest.mark.parametrize("children", [egress(), gateway()], ids=["egress", "gateway"])
def test_a_second_pass_finds_nothing_to_write(children: Children) -> None:
    for one in children.values():
        assert difference(one, one) is None
        assert one["metadata"]["labels"][names.LABEL_MANAGED_BY] == names.FIELD_MANAGER
        assert one["metadata"]["ownerReferences"][0]["controller"] is True


@pytest.mark.parametrize("children", [egress(), gateway()], ids=["egress", "gateway"])
def test_whoever_selects_pods_selects_these(children: Children) -> None:
    deployment = next(one for one in children.values() if one["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for one in children.values():
        spec = one.get("spec") or {}
        chosen = spec.get("selector") or spec.get("podSelector") or {}
        assert (chosen.get("matchLabels") or (chosen if one["kind"] == "Service" else {})).items() <= labels.items()


# --- egress -----------------------------------------------------------------------------------------------------------


def test_the_key_is_a_file_and_in_no_argument_or_variable() -> None:
    found = pod(egress(), "frontier")
    [container] = found["containers"]
    options = arguments(container["args"])
    name, api = called(options)
    assert (name, api.base_url, api.private) == ("frontier", "https://api.example.com/v1", False)
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "api-key"]
    assert api.api_key_file == f"{mount['mountPath']}/key"
    assert "env" not in container
    [volume] = [one for one in found["volumes"] if one["name"] == "api-key"]
    assert volume["secret"]["items"] == [{"key": "token", "path": "key"}]
    assert volume["secret"]["optional"] is True
    assert found["securityContext"]["fsGroup"] > 0
    assert volume["secret"]["defaultMode"] == 0o440
    assert "subPath" not in mount  # a file that is mounted by itself never changes


def test_without_a_key_nothing_of_it_is_there() -> None:
    spec = External.model_validate({"baseUrl": "http://large.there.svc:8000/v1", "model": "large"})
    endpoint = endpoint_of(spec.base_url)
    assert endpoint is not None
    host = ExternalHost(host="large.there.svc", private=True)
    found = pod(by_name(render_egress(TIER, spec, endpoint, host, SETTINGS, {}, None)), "frontier")
    assert [one["name"] for one in found["volumes"]] == ["tables", "keys", "spool"]
    _, api = called(arguments(found["containers"][0]["args"]))
    assert api.api_key_file is None
    assert api.private is True


def test_an_administrator_says_how_many_and_with_which_image() -> None:
    settings = Settings.model_validate(
        {"router": {"image": "example.com/router:2", "egressReplicas": 3}, "engine": {"pullSecrets": ["pull"]}}
    )
    found = egress(settings=settings)
    assert found["Deployment/frontier"]["spec"]["replicas"] == 3
    assert pod(found, "frontier")["containers"][0]["image"] == "example.com/router:2"
    assert pod(found, "frontier")["imagePullSecrets"] == [{"name": "pull"}]


def test_the_names_are_those_that_tables_use() -> None:
    found = egress()
    assert found["Service/frontier-pods"]["spec"]["clusterIP"] == "None"
    assert found["Service/frontier-pods"]["spec"]["ports"][0]["port"] == names.SERVING_PORT
    assert found["Service/frontier"]["spec"]["ports"][0]["port"] == names.ENGINE_PORT
    assert found["ConfigMap/frontier-table"]["data"] == {"support.json": "{}"}


def outwards(**given: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = egress(**given)["NetworkPolicy/frontier"]["spec"]["egress"]
    return found


def opens(rule: dict[str, Any], address: str) -> bool:
    """Whether a rule lets connections to an address pass, as Kubernetes reads it."""
    one = ipaddress.ip_address(address)
    for peer in rule["to"]:
        block = peer.get("ipBlock")
        if block and one in ipaddress.ip_network(block["cidr"]):
            return not any(one in ipaddress.ip_network(hole) for hole in block.get("except", ()))
    return False


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "10.0.0.1", "172.20.1.1", "192.168.1.1", "100.64.1.1"),
        *("169.254.169.254", "168.63.129.16", "100.100.100.200", "2001:4860:4860::8888", "fd00::1", "fe80::1"),
        "fd00:ec2::254",
    ],
)
@pytest.mark.parametrize("private", [False, True])
def test_what_the_router_would_call_is_open_and_what_it_would_not_is_not(address: str, private: bool) -> None:
    *_, api = outwards(host={"private": private})
    assert api["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert opens(api, address) == allowed(address, private=private)


def test_an_administrator_s_ranges_are_all_that_is_open() -> None:
    *_, api = outwards(host={"cidrs": ["203.0.113.0/24"]})
    assert api["to"] == [{"ipBlock": {"cidr": "203.0.113.0/24"}}]
    assert not opens(api, "8.8.8.8")


def test_an_address_is_open_alone() -> None:
    *_, api = outwards(external={"baseUrl": "https://203.0.114.7:8443/v1"})
    assert api == {"to": [{"ipBlock": {"cidr": "203.0.114.7/32"}}], "ports": [{"port": 8443, "protocol": "TCP"}]}


def test_of_a_service_of_this_cluster_its_namespace_is_open() -> None:
    given = {"baseUrl": "https://support-policy.team-a.svc.cluster.local/v1"}
    *_, api = outwards(external=given, host={"private": True})
    assert api == {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}}]}


@pytest.mark.parametrize(("children", "name"), [(egress, "frontier"), (gateway, "support-gateway")])
def test_who_may_connect_is_the_administrator_s_to_say(children: Any, name: str) -> None:
    """As for every tier, since a policy's requests enter at either; the admin port is never open to everybody."""
    serving, managing = children()[f"NetworkPolicy/{name}"]["spec"]["ingress"]
    assert serving == {"ports": [{"port": names.SERVING_PORT, "protocol": "TCP"}]}
    assert managing["from"]
    settings = Settings.model_validate({**SETTINGS.model_dump(), "network": {"clients": [{"namespace": "apps"}]}})
    serving, _ = children(settings=settings)[f"NetworkPolicy/{name}"]["spec"]["ingress"]
    assert len(serving["from"]) == 2  # the namespace's routers, and those


def test_without_network_policies_there_is_none() -> None:
    settings = Settings.model_validate({**SETTINGS.model_dump(), "network": {"policies": False}})
    assert not any(
        name.startswith("NetworkPolicy/") for name in (*egress(settings=settings), *gateway(settings=settings))
    )


@pytest.mark.parametrize("cidr", ["nonsense", "10.0.0.1/8", "10.0.0.0/33", "::/129"])
def test_a_range_that_is_none_is_refused_where_it_is_written(cidr: str) -> None:
    with pytest.raises(ValidationError, match="cidrs"):
        Settings.model_validate({"externalHosts": [{"host": "a.example.com", "cidrs": [cidr]}]})


@pytest.mark.parametrize(
    ("host", "namespace"),
    [
        ("large.team-a.svc", "team-a"),
        ("large.team-a.svc.cluster.local", "team-a"),
        ("pod-0.large.team-a.svc", "team-a"),
        ("api.example.com", None),
        ("svc", None),
        ("team-a.svc", None),
        ("large.team-a.svc.example.com", None),
    ],
)
def test_the_namespace_of_a_host(host: str, namespace: str | None) -> None:
    assert namespace_of(host) == namespace


# --- gateway ----------------------------------------------------------------------------------------------------------


def test_the_autoscaler_owns_how_many_routers_a_gateway_has() -> None:
    found = gateway({"minReplicas": 3, "maxReplicas": 9, "cpuPercent": 50})
    assert "replicas" not in found["Deployment/support-gateway"]["spec"]
    scaler = found["HorizontalPodAutoscaler/support-gateway"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 9)
    assert scaler["scaleTargetRef"]["name"] == "support-gateway"
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    requests = pod(found, "support-gateway")["containers"][0]["resources"]["requests"]
    assert requests["cpu"] == SETTINGS.router.gateway_cpu


def test_a_gateway_has_no_tier_of_its_own() -> None:
    options = arguments(pod(gateway(), "support-gateway")["containers"][0]["args"])
    assert options.local is None
    assert options.external is None


def test_a_gateway_reaches_routers_and_nothing_else() -> None:
    lookups, hops = gateway()["NetworkPolicy/support-gateway"]["spec"]["egress"]
    assert {one["port"] for one in lookups["ports"]} == {53, 5353}
    assert hops["ports"] == [{"port": names.SERVING_PORT, "protocol": "TCP"}]


def test_no_child_of_a_policy_has_the_name_of_a_tier_s() -> None:
    """A policy and a tier may well have one name."""
    tier = Owner("team", "support", "uid")
    endpoint = endpoint_of("https://api.example.com/v1")
    assert endpoint is not None
    spec = External.model_validate(EXTERNAL)
    host = ExternalHost(host="api.example.com")
    who = admitted(SETTINGS.network, "modeltiers-system")
    of_tier = by_name(render_egress(tier, spec, endpoint, host, SETTINGS, {}, who))
    assert not of_tier.keys() & gateway().keys()
