"""Policies with routers of their own, on a real API server with the operator under its own rights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.kit import Tiers, until
from tests.cluster.policies import apply, condition, reasoned, table
from tests.cluster.test_egress import external, running

GATEWAY = "support-gateway"
PARTS = (
    ("deployment", GATEWAY),
    ("configmap", f"{GATEWAY}-table"),
    ("poddisruptionbudget", GATEWAY),
    ("horizontalpodautoscaler", GATEWAY),
    ("serviceaccount", GATEWAY),
    ("networkpolicy", GATEWAY),
)
ALONE: dict[str, Any] = {"tiers": [{"name": "frontier"}], "mode": "Upfront", "accept": None}


def entered(tiers: Tiers) -> dict[str, str]:
    """The labels of the pods that the policy's Service leads to."""
    service = tiers.get("service", "support-policy") or {"spec": {}}
    found: dict[str, str] = service["spec"].get("selector") or {}
    return found


def parts(tiers: Tiers) -> list[tuple[str, str]]:
    """Which parts of the gateway are there."""
    return [one for one in PARTS if tiers.get(*one) is not None]


def explain(tiers: Tiers) -> str:
    return json.dumps((tiers.get("routingpolicy", "support") or {}).get("status"), indent=1)


@pytest.fixture
def alone(tiers: Tiers) -> Tiers:
    """A policy over an external tier alone."""
    tiers.apply("frontier", external())
    apply(tiers, placement="Gateway", **ALONE)
    running(tiers, GATEWAY)
    return tiers


def test_a_ladder_of_external_tiers_is_served_by_a_gateway(alone: Tiers) -> None:
    assert parts(alone) == list(PARTS)
    # Until its first pods are ready, the routers before the API may take the requests.
    labels = ("modeltiers.dev/policy", "modeltiers.dev/tier")
    until(lambda: [entered(alone).get(label) for label in labels] == ["support", None], lambda: explain(alone))
    said = json.loads((alone.get("configmap", f"{GATEWAY}-table") or {})["data"]["support.json"])
    assert said == table(alone, "frontier")
    reasoned(alone, "Compiled", "True", "Compiled")
    reasoned(alone, "Entry", "True", "Gateway")
    # Simulated pods: nobody can be asked, and that is what is said. Two of the gateway and two before the API.
    reasoned(alone, "Live", "Unknown", "RoutersUnreachable")
    until(lambda: (alone.get("routingpolicy", "support") or {})["status"].get("live") == "0/4", lambda: explain(alone))
    status = (alone.get("routingpolicy", "support") or {})["status"]
    assert status["url"] == f"http://support-policy.{alone.namespace}.svc/v1"
    assert "entry" not in status


def test_the_autoscaler_says_how_many(alone: Tiers) -> None:
    """It raises them to its least without a metric, and the operator does not take them back."""
    apply(alone, placement="Gateway", gateway={"minReplicas": 3, "maxReplicas": 4}, **ALONE)
    running(alone, GATEWAY, 3)
    alone.kubectl("annotate", "deployment", GATEWAY, "look=again")
    until(lambda: parts(alone) == list(PARTS), "all parts")
    running(alone, GATEWAY, 3)


def test_with_sidecars_alone_it_is_told_and_the_gateway_goes_on(alone: Tiers) -> None:
    apply(alone, placement="Sidecar", gateway=None, **ALONE)
    message = reasoned(alone, "Stalled", "True", "NeedsGateway")
    assert "placement: Gateway" in message
    assert parts(alone) == list(PARTS)
    assert entered(alone)["modeltiers.dev/policy"] == "support"


def test_there_and_back_leaves_nothing_behind(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    apply(tiers, tiers=[{"name": "small"}], mode="Upfront", accept=None)
    until(lambda: entered(tiers).get("modeltiers.dev/tier") == "small", lambda: explain(tiers))
    for _ in range(2):
        apply(tiers, tiers=[{"name": "small"}], mode="Upfront", accept=None, placement="Gateway")
        until(lambda: entered(tiers).get("modeltiers.dev/policy") == "support", lambda: explain(tiers), 40)
        assert parts(tiers) == list(PARTS)
        apply(tiers, tiers=[{"name": "small"}], mode="Upfront", accept=None)
        until(lambda: entered(tiers).get("modeltiers.dev/tier") == "small", lambda: explain(tiers))
        until(lambda: not parts(tiers), lambda: str(parts(tiers)))
    left = tiers.kubectl("get", "all,cm,hpa,netpol,pdb,sa", "-l", "modeltiers.dev/policy=support", "-o", "name")
    assert [one for one in left.split() if not one.startswith("pod/")] == ["service/support-policy"]


def test_while_no_router_of_its_own_is_ready_a_tier_takes_the_requests(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "1"}}}
    tiers.create(quota)
    until(lambda: (tiers.get("resourcequota", "none") or {}).get("status"), "the quota")
    apply(tiers, tiers=[{"name": "small"}], mode="Upfront", accept=None, placement="Gateway")
    reasoned(tiers, "Ready", "False", "GatewayFailed")
    assert "small" in reasoned(tiers, "Entry", "False", "GatewayNotReady")
    assert entered(tiers)["modeltiers.dev/tier"] == "small"
    tiers.kubectl("delete", "resourcequota", "none")
    until(lambda: entered(tiers).get("modeltiers.dev/policy") == "support", lambda: explain(tiers), 90)
    reasoned(tiers, "Entry", "True", "Gateway")
    assert condition(tiers, "Ready")["reason"] != "GatewayFailed"


def test_a_deleted_policy_takes_its_gateway_along(alone: Tiers) -> None:
    alone.kubectl("delete", "routingpolicy", "support", "--wait=false")
    until(lambda: not parts(alone), lambda: str(parts(alone)), 90)
    until(lambda: table(alone, "frontier") is None, "no table left")


def test_a_part_that_is_deleted_or_edited_by_hand_comes_back(alone: Tiers) -> None:
    for kind, name in PARTS:
        alone.kubectl("delete", kind, name, "--wait=false")
    until(lambda: parts(alone) == list(PARTS), lambda: str(parts(alone)))
    alone.kubectl("patch", "service", "support-policy", "-p", '{"spec": {"selector": {"app": "evil"}}}')
    until(lambda: entered(alone).get("modeltiers.dev/policy") == "support", lambda: explain(alone), 40)


def test_an_autoscaler_of_somebody_else_that_has_its_name_is_left_alone(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "theirs"}
    foreign = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": GATEWAY}}
    tiers.create({**foreign, "spec": {"scaleTargetRef": scaled, "maxReplicas": 2}})
    apply(tiers, tiers=[{"name": "small"}], mode="Upfront", accept=None, placement="Gateway")
    message = reasoned(tiers, "Ready", "False", "NotWritten")
    assert "HorizontalPodAutoscaler" in message
    assert (tiers.get("hpa", GATEWAY) or {})["spec"]["scaleTargetRef"] == scaled
    tiers.kubectl("delete", "hpa", GATEWAY)
    running(tiers, GATEWAY)
