"""Who may call a tier, and what keeps others out: its own table, the hop key, NetworkPolicies. On a real API server."""

from __future__ import annotations

import base64
import json

import pytest

from e2e.cluster import HarnessError
from e2e.operator_process import NAMESPACE, OperatorProcess
from modeltiers import names
from modeltiers.domain.routing.table import Table, read_table
from tests.cluster.kit import Tiers, until
from tests.cluster.policies import apply as apply_policy
from tests.cluster.policies import reasoned


def tables(tiers: Tiers, tier: str = "small") -> dict[str, Table]:
    """The tables that the routers of a tier read, by file."""
    data = (tiers.get("configmap", names.table_config_map(tier)) or {}).get("data") or {}
    return {name: read_table(json.loads(text)) for name, text in data.items()}


def pods(tiers: Tiers) -> str:
    """What tells one pod of the namespace from the next."""
    return tiers.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")


def test_a_tier_answers_nobody_by_itself(tiers: Tiers) -> None:
    """The default: what does not come through a policy is refused, so no URL is shown to call."""
    tiers.apply("small")
    status = tiers.ready("small")
    assert tables(tiers) == {}
    assert "endpoint" not in status


def test_access_opens_and_closes_without_a_restart(tiers: Tiers) -> None:
    tiers.apply("small", access={"mode": "Keys", "keys": ["batch"]})
    status = tiers.ready("small")
    assert status["endpoint"] == f"http://small.{tiers.namespace}.svc:8000/v1"
    before = pods(tiers)
    [policy] = tables(tiers)["direct-small.json"].policies
    assert (policy.model, policy.access.mode, policy.access.keys) == ("small", "Keys", ("batch",))
    tiers.apply("small", access={"mode": "Open"})
    until(lambda: tables(tiers)["direct-small.json"].policies[0].access.mode == "Open", "an open table")
    tiers.apply("small", access={"mode": "Policy"})
    until(lambda: not tables(tiers), "no table")
    until(lambda: "endpoint" not in tiers.status("small"), "no endpoint")
    assert pods(tiers) == before


def test_a_policy_with_the_name_of_the_model_goes_before_the_tiers_own_table(tiers: Tiers) -> None:
    """Else a router would have two answers for one name."""
    tiers.apply("small", access={"mode": "Open"})
    tiers.ready("small")
    apply_policy(tiers, "broken", model="small", tiers=[{"name": "small"}, {"name": "gone"}])
    reasoned(tiers, "Stalled", "True", "TierNotFound", "broken")
    assert set(tables(tiers)) == {"direct-small.json"}  # what does not compile takes nothing away
    tiers.kubectl("delete", "rp", "broken")
    apply_policy(tiers, model="small", tiers=[{"name": "small"}])
    until(lambda: set(tables(tiers)) == {"support.json"}, lambda: str(set(tables(tiers))))
    tiers.kubectl("delete", "rp", "support")
    until(lambda: set(tables(tiers)) == {"direct-small.json"}, lambda: str(set(tables(tiers))))


def test_keys_without_their_mode_are_refused(tiers: Tiers) -> None:
    with pytest.raises(HarnessError, match="set mode: Keys, or remove keys"):
        tiers.apply("small", access={"keys": ["batch"]})


def test_a_policy_may_not_be_named_like_a_tiers_own_table(tiers: Tiers) -> None:
    with pytest.raises(HarnessError, match="must not begin with 'direct-'"):
        apply_policy(tiers, "direct-small")


def test_what_a_model_can_take_reaches_the_table(tiers: Tiers) -> None:
    tiers.apply("small", access={"mode": "Open"}, capabilities={"tools": True, "images": True})
    tiers.ready("small")
    before = pods(tiers)
    [tier] = tables(tiers)["direct-small.json"].tiers
    assert (tier.can.tools, tier.can.images, tier.can.audio) == (True, True, False)
    tiers.apply("small", access={"mode": "Open"}, capabilities={"audio": True})
    until(lambda: tables(tiers)["direct-small.json"].tiers[0].can.audio, "the change")
    assert pods(tiers) == before


def test_the_operator_makes_a_hop_key_once_and_never_reads_it(tiers: Tiers, operator: OperatorProcess) -> None:
    tiers.apply("small")
    tiers.ready("small")
    made = tiers.get("secret", names.HOP_SECRET)
    assert made is not None
    assert len(base64.b64decode(made["data"][names.HOP_KEY])) == 64
    tiers.apply("large")
    tiers.ready("large")
    again = tiers.get("secret", names.HOP_SECRET)
    assert again is not None
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    account = f"--as=system:serviceaccount:{NAMESPACE}:{names.OPERATOR_NAME}"
    for verb, what, may in (
        ("get", f"secret/{names.HOP_SECRET}", "no"),
        ("list", "secrets", "no"),
        ("create", "secrets", "no"),
        ("patch", "secret/another", "no"),
        ("patch", f"secret/{names.HOP_SECRET}", "yes"),
    ):
        assert tiers.kubectl("auth", "can-i", verb, what, account, check=False).strip() == may, (verb, what)


def test_a_hop_key_that_is_there_is_left_alone(tiers: Tiers) -> None:
    """An administrator may bring it, and a restored backup does."""
    own = base64.b64encode(b"k" * 48).decode()
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names.HOP_SECRET}, "data": {"hop.key": own}}
    tiers.create(body)
    tiers.apply("small")
    tiers.ready("small")
    found = tiers.get("secret", names.HOP_SECRET)
    assert found is not None
    assert found["data"] == {"hop.key": own}


def test_the_network_lets_clients_to_the_serving_port_and_the_operator_to_the_other(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    found = tiers.get("networkpolicy", "small")
    assert found is not None
    assert found["spec"]["podSelector"]["matchLabels"] == {names.LABEL_TIER: "small"}
    serving, admin = found["spec"]["ingress"]
    assert (serving["ports"][0]["port"], "from" in serving) == (names.SERVING_PORT, False)
    [who] = admin["from"]
    assert admin["ports"][0]["port"] == names.ADMIN_PORT
    assert who["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    tiers.kubectl("delete", "networkpolicy", "small")
    until(lambda: tiers.get("networkpolicy", "small"), "the policy back")
