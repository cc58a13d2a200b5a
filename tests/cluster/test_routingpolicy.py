"""RoutingPolicies on a real API server: the table reaches every tier on the ladder, and status says what is true."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime

from e2e.cluster import replays
from modeltiers.domain.routing.table import read_table
from tests.cluster.conftest import ENTRY_RETURN
from tests.cluster.kit import LARGE, Tiers, until
from tests.cluster.policies import apply, reasoned, table


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


def entered(tiers: Tiers) -> str:
    """The tier before which the policy's Service stands."""
    service = tiers.get("service", "support-policy")
    return str(service["spec"]["selector"]["modeltiers.dev/tier"]) if service else ""


def set_ready(tiers: Tiers, tier: str, ready: bool) -> datetime:
    """Say of a tier's pod that it is ready or not, as its kubelet would; returns when.

    A pod that asks for a replay which there is not is left alone by the simulated kubelet, and taken up again after.
    """
    name = tiers.kubectl("get", "pods", "-l", f"modeltiers.dev/tier={tier}", "-o", "jsonpath={.items[0].metadata.name}")
    tiers.kubectl("annotate", "pod", name, f"{replays.ANNOTATION}-" if ready else f"{replays.ANNOTATION}=none")
    now = datetime.now(UTC)
    if not ready:
        said = {"status": "False", "lastTransitionTime": now.isoformat(timespec="seconds")}
        patch = {"status": {"conditions": [{"type": kind, **said} for kind in ("Ready", "ContainersReady")]}}
        tiers.kubectl("patch", "pod", name, "--subresource=status", "-p", json.dumps(patch))
    return now


def slices(tiers: Tiers) -> set[str]:
    """The pods that the EndpointSlices of the policy's Service list as ready."""
    text = tiers.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=support-policy", "-o", "json")
    points = [point for one in json.loads(text)["items"] for point in one.get("endpoints") or ()]
    return {point["targetRef"]["name"] for point in points if point["conditions"]["ready"]}


def test_the_entry_leaves_a_tier_without_ready_pods_and_comes_back_when_it_is_steady(ladder: Tiers) -> None:
    until(lambda: {name.rpartition("-")[0].rpartition("-")[0] for name in slices(ladder)} == {"small"}, "small's pods")
    began = set_ready(ladder, "small", False)
    until(lambda: any(name.startswith("large-") for name in slices(ladder)), "endpoints of the other tier")
    print(f"not ready until the other tier was listed: {(datetime.now(UTC) - began).total_seconds():.2f} s")
    assert entered(ladder) == "large"
    assert "small has no ready pod" in reasoned(ladder, "Entry", "False", "FirstTierNotReady")
    status = (ladder.get("routingpolicy", "support") or {})["status"]["entry"]
    assert status["tier"] == "large"
    assert datetime.fromisoformat(status["since"]) >= began.replace(microsecond=0)
    back = set_ready(ladder, "small", True)
    reasoned(ladder, "Entry", "False", "FirstTierUnsteady")
    reasoned(ladder, "Entry", "True", "FirstTier")
    assert entered(ladder) == "small"
    assert (datetime.now(UTC) - back).total_seconds() >= ENTRY_RETURN - 1  # times of pods are whole seconds


def test_the_entry_leaves_while_the_present_spec_does_not_compile(ladder: Tiers) -> None:
    apply(ladder, tiers=[{"name": "small"}, {"name": "large"}, {"name": "gone"}])
    reasoned(ladder, "Stalled", "True", "TierNotFound")
    set_ready(ladder, "small", False)
    until(lambda: entered(ladder) == "large", "the other tier, with the last good table")


def test_a_service_that_somebody_deletes_or_turns_comes_back(ladder: Tiers) -> None:
    until(lambda: entered(ladder) == "small", "the Service")
    ladder.kubectl("patch", "service", "support-policy", "-p", '{"spec":{"selector":{"modeltiers.dev/tier":"gone"}}}')
    until(lambda: entered(ladder) == "small", "the selector as it was")
    ladder.kubectl("delete", "service", "support-policy")
    until(lambda: entered(ladder) == "small", "the Service anew")
