"""What is kept of other people's objects, and that no shape of theirs can stop us."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.views import DeploymentView, NodeView, PodView, instant

POD = {
    "metadata": {
        "name": "small-7d9f-abcde",
        "uid": "u1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"modeltiers.dev/revision": "r1", "pod-template-hash": "7d9f"},
    },
    "spec": {"nodeName": "gpu-1"},
    "status": {
        "phase": "Running",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Initialized", "status": "True"},
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
        ],
        "initContainerStatuses": [{"name": "setup", "ready": True, "state": {"terminated": {"exitCode": 0}}}],
        "containerStatuses": [
            {
                "name": "engine",
                "ready": False,
                "started": False,
                "restartCount": 4,
                "image": "vllm:1",
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {
                    "terminated": {
                        "exitCode": 1,
                        "reason": "Error",
                        "message": "boom",
                        "startedAt": "2026-01-01T00:00:00Z",
                        "finishedAt": "2026-01-01T00:00:40Z",
                    }
                },
            }
        ],
    },
}


def test_a_pod_keeps_what_decisions_read() -> None:
    """Names, conditions that matter, and how each container is."""
    pod = PodView.of(POD)
    assert (pod.name, pod.uid, pod.revision, pod.template, pod.node) == (
        "small-7d9f-abcde",
        "u1",
        "r1",
        "7d9f",
        "gpu-1",
    )
    assert [item.type for item in pod.conditions] == ["PodScheduled", "Ready"]
    assert not pod.ready
    assert not pod.unschedulable
    setup, engine = pod.containers
    assert setup.init
    assert setup.ended is not None
    assert setup.ended.exit_code == 0
    assert (engine.restarts, engine.waiting, engine.image) == (4, "CrashLoopBackOff", "vllm:1")
    assert engine.last is not None
    assert engine.last.seconds() == 40
    assert engine.ended is None


@pytest.mark.parametrize(
    ("metadata", "spec", "condition", "expected"),
    [
        ({}, {}, {"status": "False", "reason": "Unschedulable"}, True),
        ({}, {"nodeName": "n"}, {"status": "False", "reason": "Unschedulable"}, False),
        ({"deletionTimestamp": "x"}, {}, {"status": "False", "reason": "Unschedulable"}, False),
        ({}, {}, {"status": "False", "reason": "SchedulingGated"}, False),
        ({}, {}, {"status": "True"}, False),
    ],
)
def test_unschedulable_is_what_the_scheduler_said_of_a_pod_without_node(
    metadata: dict[str, Any], spec: dict[str, Any], condition: dict[str, Any], expected: bool
) -> None:
    """A queue's gate, a node, or a pod on its way out are something else."""
    body = {"metadata": metadata, "spec": spec, "status": {"conditions": [{"type": "PodScheduled", **condition}]}}
    assert PodView.of(body).unschedulable is expected


def test_a_deployment_is_its_numbers() -> None:
    """Absent numbers are 0, as Kubernetes leaves them out; wanted is 1 by default."""
    body = {
        "metadata": {"name": "small", "generation": 3},
        "spec": {"replicas": 2},
        "status": {
            "observedGeneration": 2,
            "replicas": 3,
            "updatedReplicas": 1,
            "readyReplicas": 2,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}],
        },
    }
    seen = DeploymentView.of(body)
    assert (seen.wanted, seen.replicas, seen.updated, seen.ready_replicas, seen.available) == (2, 3, 1, 2, 0)
    assert not seen.seen
    assert seen.condition("Progressing") is not None
    assert DeploymentView.of({}).wanted == 1


def test_a_node_keeps_extended_resources() -> None:
    """CPU and memory are nobody's business here."""
    body = {
        "metadata": {"name": "n", "labels": {"a": "b"}},
        "status": {
            "allocatable": {"cpu": "4", "nvidia.com/gpu": "8", "x.io/odd": "1k"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    assert NodeView.of(body) == NodeView("n", {"a": "b"}, {"nvidia.com/gpu": 8}, True)
    assert not NodeView.of({**body, "spec": {"unschedulable": True}}).schedulable


def test_times_are_read_in_utc() -> None:
    """With or without an offset; odd ones are unknown."""
    assert instant("2026-01-01T01:00:00+01:00") == datetime(2026, 1, 1, tzinfo=UTC)
    assert instant("2026-01-01T00:00:00.123456Z") == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert instant("yesterday") is None
    assert instant("") is None


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8)
json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = [
    "metadata",
    "spec",
    "status",
    "labels",
    "annotations",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
    "state",
    "lastState",
    "waiting",
    "running",
    "terminated",
    "type",
    "reason",
    "message",
    "exitCode",
    "startedAt",
    "finishedAt",
    "allocatable",
    "replicas",
    "nodeName",
    "phase",
    "generation",
    "name",
    "ready",
]
# Arbitrary values below the very keys that are read.
shaped = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)
)
bodies = st.dictionaries(st.sampled_from(FIELDS), json | shaped, max_size=6)


@given(body=bodies)
def test_no_shape_stops_us(body: dict[str, Any]) -> None:
    """An object of a newer or broken server is read as far as it is understood."""
    pod, deployment, node = PodView.of(body), DeploymentView.of(body), NodeView.of(body)
    assert pod.unschedulable in (True, False)
    assert deployment.replicas >= 0
    assert all(amount >= 0 for amount in node.allocatable.values())
    for container in pod.containers:
        for end in (container.ended, container.last):
            assert end is None or end.seconds() is None or isinstance(end.seconds(), float)
