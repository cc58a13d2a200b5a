"""Which pods and containers a person's words mean, and what is said where none has anything to say."""

from __future__ import annotations

from typing import Any

from modeltiers.domain.why.snapshot import JOB, POLICY, TIER
from modeltiers.domain.why.streams import Choice, Stream, Wanted, choose
from tests.unit.why.world import homeless, job, pod, policy, served, waiting, world

RUNNING = {"state": {"running": {"startedAt": "2026-11-27T11:00:00Z"}}, "ready": True}


def engine(name: str, tier: str, *statuses: dict[str, Any], **more: Any) -> dict[str, Any]:
    containers = {"containers": [{"name": "engine"}], "initContainers": [{"name": "router", "restartPolicy": "Always"}]}
    states = statuses or ({"name": "router", **RUNNING}, {"name": "engine", **RUNNING})
    return pod(name, tier, *states, spec=containers, phase="Running", **more)


def pairs(choice: Choice) -> list[tuple[str, str]]:
    return [(one.pod, one.container) for one in choice.streams]


def test_a_tier_is_its_engines_and_routers() -> None:
    snapshot = world(
        served("small"), engine("small-1", "small"), engine("small-2", "small"), engine("large-1", "large")
    )
    assert pairs(choose(snapshot, Wanted(TIER, "small"))) == [
        ("small-1", "router"),
        ("small-1", "engine"),
        ("small-2", "router"),
        ("small-2", "engine"),
    ]
    assert pairs(choose(snapshot, Wanted(TIER, "small", "engine", pod="small-2"))) == [("small-2", "engine")]
    assert choose(snapshot, Wanted(TIER, "small", pod="small-9")).silent == (
        "ModelTier small has no pod small-9; there are small-1, small-2",
    )


def test_a_container_that_has_not_started_says_nothing() -> None:
    lame = engine("small-1", "small", {"name": "router", **RUNNING}, waiting("ImagePullBackOff"))
    found = choose(world(served("small"), lame, homeless("small-2", "small", "0/1 nodes")), Wanted(TIER, "small"))
    assert found.streams == (Stream("small-1", "router"),)
    assert found.silent == (
        "pod small-1, container engine has not started: ImagePullBackOff",
        "pod small-2, container engine: the pod has no node yet",
    )


def test_a_run_before_the_present_one() -> None:
    again = {"name": "engine", "restartCount": 2, **RUNNING}
    snapshot = world(served("small"), engine("small-1", "small", {"name": "router", **RUNNING}, again))
    found = choose(snapshot, Wanted(TIER, "small", previous=True))
    assert found.streams == (Stream("small-1", "engine"),)
    assert found.silent == ("pod small-1, container router has no run before this one",)


def test_a_policy_is_the_routers_before_its_entry() -> None:
    body = policy()
    body["status"]["entry"] = {"tier": "large"}
    snapshot = world(body, engine("small-1", "small"), engine("large-1", "large"))
    assert pairs(choose(snapshot, Wanted(POLICY, "support"))) == [("large-1", "router")]
    nowhere = choose(world(policy()), Wanted(POLICY, "support"))
    assert nowhere.silent == ("no router takes requests of RoutingPolicy support",)


def test_a_job_is_the_pod_of_its_stage() -> None:
    body = pod("a-train-1", "a", {"name": "stage", **RUNNING}, spec={"containers": [{"name": "stage"}]})
    body["metadata"]["labels"] = {"modeltiers.dev/distilljob": "arithmetic", "modeltiers.dev/stage": "Train"}
    snapshot = world(job(stage="Train", stages=[{"name": "Split"}]), body)
    assert pairs(choose(snapshot, Wanted(JOB, "arithmetic"))) == [("a-train-1", "stage")]
    gone = choose(snapshot, Wanted(JOB, "arithmetic", stage="Split")).silent[0]
    assert "no pod of stage Split" in gone
    assert "stages so far: Split" in gone


def test_pods_that_may_not_be_read() -> None:
    found = choose(world(served("small"), unseen={"Pod": "cannot list"}), Wanted(TIER, "small"))
    assert found.silent == ("pods may not be read: cannot list",)
