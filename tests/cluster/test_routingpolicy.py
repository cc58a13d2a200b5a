"""RoutingPolicies on a real API server: the table reaches every tier on the ladder, and status says what is true."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from modeltiers.domain.routing.table import read_table
from tests.cluster.kit import LARGE, Tiers, until

POLICY: dict[str, Any] = {
    "model": "support",
    "tiers": [{"name": "small"}, {"name": "large"}],
    "mode": "Cascade",
    "accept": {"confidence": {}},
}


def apply(where: Tiers, name: str = "support", **changes: Any) -> None:
    """Apply a policy as a user does."""
    body = {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": name, "namespace": where.namespace},
        "spec": {**POLICY, **changes},
    }
    where.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))


def condition(tiers: Tiers, kind: str, name: str = "support") -> dict[str, Any]:
    """One condition of a policy, for the current generation; empty when there is none."""
    body = tiers.get("routingpolicy", name) or {"metadata": {}}
    for item in (body.get("status") or {}).get("conditions") or ():
        if item["type"] == kind and item["observedGeneration"] == body["metadata"]["generation"]:
            return dict(item)
    return {}


def reasoned(tiers: Tiers, kind: str, status: str, reason: str, name: str = "support") -> str:
    """Wait for a condition and return its message."""

    def holds() -> bool:
        item = condition(tiers, kind, name)
        return (item.get("status"), item.get("reason")) == (status, reason)

    until(holds, lambda: json.dumps((tiers.get("routingpolicy", name) or {}).get("status"), indent=1), 30)
    return str(condition(tiers, kind, name)["message"])


def table(tiers: Tiers, tier: str, policy: str = "support") -> dict[str, Any] | None:
    """The table of a policy that the routers of a tier read."""
    found = tiers.get("configmap", f"{tier}-table")
    text = ((found or {}).get("data") or {}).get(f"{policy}.json")
    return dict(json.loads(text)) if text else None


@pytest.fixture
def ladder(tiers: Tiers) -> Tiers:
    """Two tiers, ready, and a policy over them."""
    tiers.apply("small")
    tiers.apply("large", LARGE)
    tiers.ready("small")
    tiers.ready("large")
    apply(tiers)
    until(lambda: table(tiers, "small") and table(tiers, "large"), "the table on both tiers")
    return tiers


def test_one_table_reaches_every_tier_and_the_service_stands_before_the_entry(ladder: Tiers) -> None:
    said = table(ladder, "small")
    assert said == table(ladder, "large")
    read = read_table(said)
    assert [tier.hop for tier in read.tiers] == [True, True]
    assert read.tiers[0].address == f"small-pods.{ladder.namespace}.svc:8080"
    service = ladder.get("service", "support-policy")
    assert service is not None
    assert service["spec"]["selector"]["modeltiers.dev/tier"] == "small"
    reasoned(ladder, "Compiled", "True", "Compiled")
    reasoned(ladder, "TiersReady", "True", "AllReady")
    # The pods here are simulated: their routers cannot be asked, and that is what is said.
    reasoned(ladder, "Live", "Unknown", "RoutersUnreachable")
    status = (ladder.get("routingpolicy", "support") or {})["status"]
    assert status["url"] == f"http://support-policy.{ladder.namespace}.svc/v1"
    assert status["ladder"] == "small > large"
    row = ladder.kubectl("get", "rp", "support").splitlines()[1]
    assert re.split(r"\s{2,}", row)[:7] == [
        *("support", "support", "Cascade", "small > large", "0/2", "unknown", "Unknown"),
    ]


def test_a_change_reaches_the_tables_and_restarts_no_pod(ladder: Tiers) -> None:
    pods = ladder.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
    apply(ladder, accept={"confidence": {}, "thresholdPermille": 700})
    until(lambda: (table(ladder, "large") or {})["policies"][0]["accept"].get("thresholdPermille") == 700, "the change")
    assert ladder.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}") == pods


def test_a_policy_that_does_not_compile_leaves_the_last_good_table(ladder: Tiers) -> None:
    before = table(ladder, "small")
    apply(ladder, tiers=[{"name": "small"}, {"name": "gone"}])
    message = reasoned(ladder, "Stalled", "True", "TierNotFound")
    assert "gone" in message
    assert "goes on serving" in message
    assert table(ladder, "small") == before


def test_a_deleted_policy_takes_its_table_and_service_along(ladder: Tiers) -> None:
    ladder.kubectl("delete", "routingpolicy", "support")
    until(lambda: table(ladder, "small") is None and table(ladder, "large") is None, "no table left")
    until(
        lambda: ladder.get("service", "support-policy") is None, "no Service left", 90
    )  # the collector is in no hurry


def test_of_two_policies_with_one_model_name_the_older_keeps_it(ladder: Tiers) -> None:
    time.sleep(1.1)  # creation times are whole seconds
    apply(ladder, "second")
    message = reasoned(ladder, "Accepted", "False", "ModelNameTaken", "second")
    assert "support" in message


def test_a_deleted_tier_is_told_and_comes_back(ladder: Tiers) -> None:
    ladder.kubectl("delete", "modeltier", "large", "--wait=false")
    reasoned(ladder, "Stalled", "True", "TierNotFound")
    ladder.apply("large", LARGE)
    reasoned(ladder, "TiersReady", "True", "AllReady")
    until(lambda: table(ladder, "large"), "the table on the new tier")


def test_a_ladder_that_leads_back_to_its_policy_is_told(ladder: Tiers) -> None:
    there = f"http://support-policy.{ladder.namespace}.svc/v1"
    ladder.apply("loop", {"external": {"baseUrl": there, "model": "support"}})
    apply(ladder, tiers=[{"name": "small"}, {"name": "loop"}])
    assert "support > support" in reasoned(ladder, "Accepted", "False", "LadderInCircle")
