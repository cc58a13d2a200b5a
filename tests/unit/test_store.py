"""What the store remembers and forgets."""

from __future__ import annotations

from typing import Any

from modeltiers import names
from modeltiers.controllers.store import Store, policy_key


def body(name: str, *, tier: str | None = "small", **more: Any) -> dict[str, Any]:
    labels = {names.LABEL_TIER: tier} if tier else {}
    return {"metadata": {"namespace": "ns", "name": name, "labels": labels, "managedFields": [1]}, **more}


def test_a_child_is_kept_without_what_no_decision_reads() -> None:
    store = Store()
    store.put_child("Service", body("small", spec={"a": 1}, status={"b": 2}))
    assert store.child(("ns", "small"), "Service", "small") == {
        "metadata": {"namespace": "ns", "name": "small", "labels": {names.LABEL_TIER: "small"}},
        "spec": {"a": 1},
    }


def test_what_has_no_label_belongs_to_nobody() -> None:
    store = Store()
    assert store.put_child("Service", body("x", tier=None)) is None
    assert store.put_pod(body("x", tier=None)) is None
    assert (store.children, store.pods) == ({}, {})


def test_nothing_is_left_of_what_was_dropped() -> None:
    store = Store()
    store.put_child("Service", body("small"))
    store.put_pod(body("p"))
    store.put_tier(body("small"))
    assert store.drop_child("Service", body("small")) == ("ns", "small")
    assert store.drop_pod(body("p")) == ("ns", "small")
    assert store.drop_tier(body("small")) == ("ns", "small")
    assert (store.children, store.pods, store.tiers) == ({}, {}, {})


def test_a_ghost_is_forgotten_and_its_tier_named() -> None:
    store = Store()
    store.put_child("Service", body("small"))
    store.put_pod(body("p"))
    store.put_tier(body("small"))
    assert set(store.names_of("Service")) == {("ns", "small")}
    assert set(store.names_of("Pod")) == {("ns", "p")}
    assert set(store.names_of("ModelTier")) == {("ns", "small")}
    for kind, name in (("Service", "small"), ("Pod", "p"), ("ModelTier", "small")):
        assert store.drop_ghost(kind, "ns", name) == [("ns", "small")]
    assert (store.children, store.pods, store.tiers) == ({}, {}, {})


def of_policy(name: str, **more: Any) -> dict[str, Any]:
    labels = {names.LABEL_POLICY: "support"}
    return {"metadata": {"namespace": "ns", "name": name, "labels": labels}, **more}


def test_a_child_of_a_policy_is_the_policys_whatever_tier_it_stands_before() -> None:
    store = Store()
    key = policy_key(("ns", "support"))
    assert store.put_child("Service", of_policy("s", spec={"selector": {names.LABEL_TIER: "small"}})) == key
    store.put_child("Service", of_policy("s", spec={"selector": {names.LABEL_TIER: "large"}}))
    found = store.child(key, "Service", "s")
    assert found is not None
    assert found["spec"]["selector"] == {names.LABEL_TIER: "large"}
    assert list(store.children) == [key]
    assert store.drop_ghost("Service", "ns", "s") == [key]


def test_ready_pods_are_those_that_take_requests() -> None:
    store = Store()
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    store.put_pod(body("a", status=ready))
    store.put_pod(body("b", status={"conditions": [{"type": "Ready", "status": "False"}]}))
    assert store.ready_pods(("ns", "small")) == {"a"}
    assert store.ready_pods(("ns", "gone")) == frozenset()


def node(**allocatable: str) -> dict[str, Any]:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable}
    return {"metadata": {"name": "n", "labels": {"a": "b"}}, "status": ready}


def test_a_nodes_heartbeat_is_no_change() -> None:
    store = Store()
    assert store.put_node(node(**{"nvidia.com/gpu": "8", "cpu": "10"}))
    assert not store.put_node(node(**{"nvidia.com/gpu": "8", "cpu": "11"}))
    assert store.put_node(node(**{"nvidia.com/gpu": "4"}))
    assert store.drop_node(node())
    assert not store.drop_node(node())


def versioned(version: str, uid: str = "u1", **more: Any) -> dict[str, Any]:
    one = body("small", **more)
    one["metadata"] |= {"resourceVersion": version, "uid": uid}
    return one


def test_the_echo_of_our_own_write_is_no_news() -> None:
    store = Store()
    assert store.put_child("Service", versioned("10")) == ("ns", "small")
    assert store.put_child("Service", versioned("10")) is None
    assert store.put_child("Service", versioned("11")) == ("ns", "small")
    assert store.put_tier(versioned("10")) == ("ns", "small")
    assert store.put_tier(versioned("10")) is None
    assert store.put_pod(body("p")) == ("ns", "small")
    assert store.put_pod(body("p")) is None


def test_a_late_event_does_not_undo_what_a_write_answered() -> None:
    store = Store()
    store.put_child("Service", versioned("10", spec="new"))
    store.put_child("Service", versioned("9", spec="old"))
    found = store.child(("ns", "small"), "Service", "small")
    assert found and found["spec"] == "new"
    store.put_tier(versioned("10", spec="new"))
    store.put_tier(versioned("9", spec="old"))
    tier = store.tier(("ns", "small"))
    assert tier and tier["spec"] == "new"


def test_the_end_of_an_earlier_object_does_not_drop_its_successor() -> None:
    store = Store()
    store.put_child("Service", versioned("10", uid="u2"))
    store.drop_child("Service", versioned("11", uid="u1"))
    assert store.child(("ns", "small"), "Service", "small")
    store.put_tier(versioned("10", uid="u2"))
    store.drop_tier(versioned("11", uid="u1"))
    assert store.tiers
