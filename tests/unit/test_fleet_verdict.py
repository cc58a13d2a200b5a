"""What conditions say of routers that stand by themselves: before an external API, and as a policy's gateway."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from modeltiers.domain import verdict as of_tiers
from modeltiers.domain.egress import way_is_barred, with_routers
from modeltiers.domain.entry import Entry, by_gateway, entry_status
from modeltiers.domain.facts import ApplyError, EgressFacts, ExternalFacts, FleetFacts, TierFacts
from modeltiers.domain.policy_verdict import judge
from modeltiers.domain.views import DeploymentView, PodView
from tests.unit.test_routingpolicy_verdict import FACTS, HERE, NOW, message, summary, told

WELL = ExternalFacts(True, "there", True, "it answers 200", True, "gpt is listed")
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def deployment(ready: int = 2, wanted: int = 2) -> DeploymentView:
    return DeploymentView("frontier", 1, 1, wanted, wanted, wanted, ready, ready)


def pod(name: str, node: str = "n", **status: Any) -> PodView:
    metadata = {"name": name, "creationTimestamp": "2026-01-01T11:00:00Z"}
    return PodView.of({"metadata": metadata, "spec": {"nodeName": node}, "status": status})


def unpulled(name: str = "b") -> PodView:
    waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
    return pod(name, initContainerStatuses=[], containerStatuses=[{"name": "router", "state": {"waiting": waiting}}])


def starting(name: str = "b") -> PodView:
    state = {"running": {"startedAt": "2026-01-01T11:59:00Z"}}
    return pod(name, containerStatuses=[{"name": "router", "started": True, "state": state}])


def tier(seen: ExternalFacts = WELL, heard: EgressFacts | None = None, **changes: Any) -> TierFacts:
    found: dict[str, Any] = {
        "external": seen,
        "egress": heard or EgressFacts(),
        "deployment": deployment(),
        "pods": (pod("a", **READY), pod("b", **READY)),
        "wanted_replicas": 2,
    }
    return TierFacts("demo", "frontier", 1, **{**found, **changes})


def said(facts: TierFacts, kind: str = "Ready") -> tuple[str, str, str]:
    item = next(one for one in of_tiers.judge(facts, [], NOW).conditions if one["type"] == kind)
    return item["status"], item["reason"], item["message"]


# --- external tiers ---------------------------------------------------------------------------------------------------


def test_ready_when_the_api_and_all_routers_are() -> None:
    status, reason, words = said(tier())
    assert (status, reason) == ("True", "Serving")
    assert words == "the API answers and lists the model; routers: 2 of 2 pods ready"


def test_what_is_wrong_with_the_api_comes_first() -> None:
    down = ExternalFacts(True, "", False, "no answer")
    status, reason, _ = said(tier(down, deployment=deployment(0), pods=(unpulled(),)))
    assert (status, reason) == ("False", "EndpointUnreachable")


def test_a_router_s_image_that_is_not_there_is_the_administrator_s_to_mend() -> None:
    status, reason, words = said(tier(deployment=deployment(1), pods=(pod("a", **READY), unpulled())))
    assert (status, reason) == ("False", "ImageNotFound")
    assert "router.image in the administrator's settings" in words
    assert "spec.serving" not in words
    assert "Meanwhile 1 ready pod" in words


def test_a_failure_of_the_routers_comes_before_what_is_not_known_of_the_api() -> None:
    unknown = dataclasses.replace(WELL, credentials=None)
    assert said(tier(unknown, deployment=deployment(0), pods=(unpulled(),)))[1] == "ImageNotFound"
    assert said(tier(unknown))[:2] == ("Unknown", "CredentialsNotChecked")


@pytest.mark.parametrize(
    ("word", "words"), [("NameNotResolved", "cannot be resolved"), ("AddressRefused", "private: true")]
)
def test_a_router_says_itself_why_it_takes_no_requests(word: str, words: str) -> None:
    heard = EgressFacts(states={"b": word})
    status, reason, told_ = said(tier(heard=heard, deployment=deployment(0), pods=(starting(),)))
    assert (status, reason) == ("Unknown", "NotReady")
    assert words in told_


def test_a_router_without_a_node_needs_no_accelerator() -> None:
    waits = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
    _, reason, words = said(tier(deployment=deployment(0), pods=(pod("a", "", conditions=waits),)))
    assert reason == "Unschedulable"
    assert "ccelerator" not in words


def test_what_could_not_be_written_or_deleted_is_told() -> None:
    error = ApplyError("Deployment", "frontier", 403, "", 'cannot delete resource "deployments" in API group "apps"')
    assert said(tier(apply_error=error))[:2] == ("False", "Forbidden")
    assert said(tier(egress=None, deployment=None, pods=(), apply_error=error))[:2] == ("False", "Forbidden")


def test_without_a_router_image_the_api_alone_counts() -> None:
    assert said(tier(egress=None, deployment=None, pods=()))[:2] == ("True", "Serving")


@pytest.mark.parametrize("word", ["APIKeyMissing", "APIKeyEmpty", "APIKeyInvalid"])
def test_the_routers_know_of_a_key_that_the_operator_may_not_read(word: str) -> None:
    heard = EgressFacts("api", "token", {"a": "Ready", "b": word})
    status, reason, words = said(tier(dataclasses.replace(WELL, credentials=None), heard), "CredentialsFound")
    assert (status, reason) == ("False", "CredentialsNotUsable")
    assert "spec.external.apiKeySecretRef" in words
    assert "Secret api" in words and "token" in words


def test_a_key_that_the_routers_hold_is_there() -> None:
    unknown = dataclasses.replace(WELL, credentials=None)
    heard = EgressFacts("api", "token", {"a": "Ready"})
    status, _, words = said(tier(unknown, heard), "CredentialsFound")
    assert status == "True"
    assert "not tried" in words


@pytest.mark.parametrize(
    ("models", "key", "listed", "reason"),
    [
        ({"a": "KeyRejected", "b": "Listed"}, True, True, "Serving"),
        ({"a": "NotListed", "b": "KeyRejected"}, True, False, "ModelNotListed"),
        ({"a": "KeyRejected", "b": "NoAnswer"}, False, None, "KeyRejected"),
    ],
)
def test_the_routers_try_the_key_for_the_operator(
    models: dict[str, str], key: bool, listed: bool | None, reason: str
) -> None:
    """An API that tells its models to whoever has a key need not stay unknown."""
    closed = dataclasses.replace(WELL, credentials=None, listed=None, listed_message="the list needs a key")
    heard = EgressFacts("api", "token", {"a": "Ready"}, models)
    known = with_routers(closed, heard)
    assert (known.credentials, known.listed) == (key, listed)
    assert said(tier(closed, heard))[1] == reason
    assert with_routers(closed, EgressFacts("api", "token", {"a": "Ready"}, {"a": "NoList"})).listed is None


def test_the_operator_s_own_look_at_the_key_counts_for_more() -> None:
    heard = EgressFacts("api", "token", {"a": "APIKeyMissing"})
    assert with_routers(WELL, heard) == WELL
    unheard = EgressFacts("api", "token", {"a": "Starting"})
    unknown = dataclasses.replace(WELL, credentials=None)
    assert with_routers(unknown, unheard) == unknown
    assert way_is_barred(unheard) is None


# --- gateways ---------------------------------------------------------------------------------------------------------


def fleet(deployed: DeploymentView | None, *pods: PodView) -> FleetFacts:
    return of_tiers.fleet(TierFacts("demo", "support", 1, deployment=deployed, pods=pods, wanted_replicas=2), NOW)


@pytest.mark.parametrize(
    ("deployed", "pods", "serving", "failed", "reason"),
    [
        (None, (), 0, False, "Creating"),
        (deployment(), (pod("a", **READY), pod("b", **READY)), 2, False, "Serving"),
        (deployment(1), (pod("a", **READY), starting()), 1, False, "NotReady"),
        (deployment(1), (pod("a", **READY), unpulled()), 1, True, "ImageNotFound"),
    ],
)
def test_how_a_gateway_is(
    deployed: DeploymentView | None, pods: tuple[PodView, ...], serving: int, failed: bool, reason: str
) -> None:
    found = fleet(deployed, *pods)
    assert (found.serving, found.failed, found.reason) == (serving, failed, reason)


@pytest.mark.parametrize(
    ("gateway", "ready", "overall"),
    [
        (FleetFacts(2, False, "Serving", "2 of 2 pods ready"), "True/Serving", "Current"),
        (FleetFacts(1, False, "Scaling", "1 of 2 pods ready"), "True/Serving", "Current"),
        (FleetFacts(0, False, "Starting", "0 of 2 pods ready"), "Unknown/GatewayNotReady", "InProgress"),
        (FleetFacts(1, True, "ImageNotFound", "no such image. Correct it"), "False/GatewayFailed", "Failed"),
    ],
)
def test_a_policy_is_ready_with_its_gateway(gateway: FleetFacts, ready: str, overall: str) -> None:
    facts = dataclasses.replace(FACTS, gateway=gateway, entry=by_gateway(gateway.serving, HERE))
    found = judge(facts, [], NOW)
    assert summary(found)["Ready"] == ready
    assert told(facts, found) == overall
    if not ready.startswith("True"):
        assert gateway.reason in message(found)


def test_requests_enter_at_the_gateway_while_it_can_take_them() -> None:
    assert by_gateway(1, HERE).reason == "Gateway"
    assert by_gateway(1, None).tier == ""
    refuge = by_gateway(0, HERE)
    assert (refuge.tier, refuge.reason) == ("small", "GatewayNotReady")
    nobody = Entry("small", "NoPodReady", "no tier has a ready pod that could take requests")
    assert by_gateway(0, nobody).reason == "Gateway"
    assert by_gateway(0, None).reason == "Gateway"
    assert entry_status(by_gateway(1, HERE), {}, NOW) is None


def test_without_a_router_image_a_policy_says_so() -> None:
    facts = dataclasses.replace(FACTS, routers=(), router_image=False, entry=None)
    found = judge(facts, [], NOW)
    assert summary(found)["Ready"] == "False/NoRouterImage"
    assert summary(found)["Live"] == "False/NoRouterImage"
    assert "router.image" in message(found)
    older = dataclasses.replace(FACTS, router_image=False)  # pods of before the setting was taken away still serve
    assert summary(judge(older, [], NOW))["Ready"] == "True/Serving"
    wanted = dataclasses.replace(older, gateway=FleetFacts(0, False, "Creating", "the Deployment is being created"))
    assert summary(judge(wanted, [], NOW))["Ready"] == "False/NoRouterImage"
