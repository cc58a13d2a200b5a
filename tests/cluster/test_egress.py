"""The routers before external APIs, on a real API server with the operator under its own rights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.kit import Tiers, until
from tests.cluster.policies import apply, reasoned, table

HERE = "http://localhost:1/v1"
"""A host that the settings allow; nobody answers there, which these tests do not look at."""
KINDS = ("deployment", "serviceaccount", "poddisruptionbudget", "networkpolicy", "service")


def external(url: str = HERE, **more: Any) -> dict[str, Any]:
    return {"external": {"baseUrl": url, "model": "frontier-1", **more}}


def uids(tiers: Tiers, tier: str) -> set[str]:
    """The pods of a tier."""
    listed = json.loads(tiers.kubectl("get", "pods", "-l", f"modeltiers.dev/tier={tier}", "-o", "json"))
    return {one["metadata"]["uid"] for one in listed["items"]}


def running(tiers: Tiers, tier: str = "frontier", count: int = 2) -> None:
    """Wait until so many routers of a tier are ready."""

    def ready() -> bool:
        found = tiers.get("deployment", tier) or {}
        return bool((found.get("status") or {}).get("readyReplicas", 0) == count)

    until(ready, lambda: tiers.kubectl("get", "pods", "-o", "wide"), 40)


@pytest.fixture
def frontier(tiers: Tiers) -> Tiers:
    """An external tier with its routers running."""
    tiers.apply("frontier", external())
    running(tiers)
    return tiers


def test_routers_stand_before_the_api(frontier: Tiers) -> None:
    for kind in KINDS:
        assert frontier.get(kind, "frontier") is not None, kind
    headless = frontier.get("service", "frontier-pods")
    assert headless is not None
    assert headless["spec"]["clusterIP"] == "None"
    assert frontier.get("secret", "modeltiers-hop") is not None
    [container] = (frontier.get("deployment", "frontier") or {})["spec"]["template"]["spec"]["containers"]
    assert f"--external=frontier={HERE}" in container["args"]
    until(lambda: frontier.status("frontier").get("endpoint") == HERE, lambda: frontier.explain("frontier"))


def test_a_policy_s_table_reaches_them(frontier: Tiers) -> None:
    frontier.apply("small")
    apply(frontier, tiers=[{"name": "small"}, {"name": "frontier"}], mode="Upfront", accept=None)
    until(lambda: table(frontier, "frontier"), "the table")
    assert table(frontier, "frontier") == table(frontier, "small")
    [_, tier] = (table(frontier, "frontier") or {})["tiers"]
    assert tier["address"] == f"frontier-pods.{frontier.namespace}.svc:8080"
    assert "external" not in tier
    reasoned(frontier, "Compiled", "True", "Compiled")


def test_a_key_that_comes_or_changes_rolls_no_pod(tiers: Tiers) -> None:
    ref = {"name": "api", "key": "key"}
    tiers.apply("frontier", external("https://localhost:1/v1", apiKeySecretRef=ref))
    running(tiers)  # also without the Secret: the routers themselves say that it is missing
    before = uids(tiers, "frontier")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}}
    for value in ("first-0123456789", "second-0123456789"):
        tiers.create({**secret, "stringData": {"key": value}})
    apply(tiers, tiers=[{"name": "frontier"}], mode="Upfront", placement="Gateway", accept=None)
    until(lambda: table(tiers, "frontier"), "the table")
    assert uids(tiers, "frontier") == before
    pod = (tiers.get("deployment", "frontier") or {})["spec"]["template"]["spec"]
    [volume] = [one for one in pod["volumes"] if one["name"] == "api-key"]
    assert volume["secret"]["optional"] is True
    assert "0123456789" not in tiers.kubectl("get", "mt,rp,deploy,configmap,events", "-o", "yaml")


def test_a_host_that_is_not_allowed_any_more_loses_its_routers(frontier: Tiers) -> None:
    frontier.apply("frontier", external("https://api.example.org/v1"))
    frontier.reasoned("frontier", "Stalled", "True", "HostNotAllowed")
    gone = [("configmap", "frontier-table"), ("service", "frontier-pods"), *((kind, "frontier") for kind in KINDS)]
    until(lambda: not any(frontier.get(*one) for one in gone), lambda: frontier.kubectl("get", "all"))
    frontier.apply("frontier", external())
    running(frontier)
    for one in gone:
        assert frontier.get(*one) is not None, one


def test_another_url_rolls_the_routers(frontier: Tiers) -> None:
    frontier.apply("frontier", external("http://localhost:2/v1"))

    def rolled() -> bool:
        found = frontier.get("deployment", "frontier") or {}
        [container] = found["spec"]["template"]["spec"]["containers"]
        return "--external=frontier=http://localhost:2/v1" in container["args"]

    until(rolled, "the new URL")
    running(frontier)


def test_pods_that_cannot_be_made_are_told_with_the_way_out(tiers: Tiers) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    tiers.create(quota)
    until(lambda: (tiers.get("resourcequota", "none") or {}).get("status"), "the quota")
    tiers.apply("frontier", external("http://localhost:1/v1"))
    apply(tiers, tiers=[{"name": "frontier"}], mode="Upfront", placement="Gateway", accept=None)
    message = reasoned(tiers, "Ready", "False", "GatewayFailed")
    assert "QuotaExceeded" in message
    assert "raise the quota" in message.lower()


def test_a_deleted_tier_takes_its_routers_along(frontier: Tiers) -> None:
    frontier.kubectl("delete", "modeltier", "frontier", "--wait=false")
    until(lambda: frontier.get("deployment", "frontier") is None, "no routers left", 90)


def test_they_take_a_policy_s_requests_while_no_engine_is_ready(frontier: Tiers) -> None:
    frontier.apply("small")
    frontier.ready("small")
    apply(frontier, tiers=[{"name": "small"}, {"name": "frontier"}], mode="Upfront", accept=None)

    def entry() -> str:
        service = frontier.get("service", "support-policy") or {"spec": {"selector": {}}}
        return str(service["spec"]["selector"].get("modeltiers.dev/tier"))

    until(lambda: entry() == "small", entry)
    frontier.apply("small", replicas=0)
    until(lambda: entry() == "frontier", entry)
    assert "small has no ready pod" in reasoned(frontier, "Entry", "False", "FirstTierNotReady")
