"""Free accelerators: the arithmetic, and that one answer serves everybody who asks at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.capacity import FreeGpus, free_gpus, requested, taken_by
from modeltiers.domain.views import NodeView
from modeltiers.kube import errors
from modeltiers.kube.capacity import FRESH, NODES_ASKED_ONE_BY_ONE, Capacity
from modeltiers.kube.refs import KINDS, Kind, Ref

GPU = "nvidia.com/gpu"


def container(gpus: int, *, sidecar: bool = False) -> dict[str, Any]:
    """A container that asks for accelerators."""
    made: dict[str, Any] = {"resources": {"limits": {GPU: str(gpus)}}} if gpus else {}
    return made | ({"restartPolicy": "Always"} if sidecar else {})


def pod(node: str, *gpus: int, init: list[dict[str, Any]] | None = None, phase: str = "Running") -> dict[str, Any]:
    """A pod on a node."""
    spec = {"nodeName": node, "initContainers": init or [], "containers": [container(n) for n in gpus]}
    return {"spec": spec, "status": {"phase": phase}}


def node(name: str, gpus: int, *, ready: bool = True, cordoned: bool = False) -> dict[str, Any]:
    """A node as the API has it."""
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }


@pytest.mark.parametrize(
    ("init", "gpus", "expected"),
    [
        ([], [2, 1], 3),
        ([container(4)], [2], 4),
        ([container(1, sidecar=True), container(4)], [2], 5),
        ([container(4), container(1, sidecar=True)], [2], 4),
        ([container(1, sidecar=True), container(1, sidecar=True)], [2], 4),
        ([], [], 0),
    ],
)
def test_what_a_pod_takes(init: list[dict[str, Any]], gpus: list[int], expected: int) -> None:
    """Init containers run one by one before the rest; sidecars among them stay."""
    assert requested(pod("a", *gpus, init=init), GPU) == expected


def test_free_is_what_is_offered_less_what_is_taken() -> None:
    """By node, for nodes that the scheduler may use; pods that ended or have no node take nothing."""
    unusable = (node("c", 8, cordoned=True), node("d", 8, ready=False))
    nodes = [NodeView.of(item) for item in (node("b", 8), node("a", 8), *unusable)]
    pods = [pod("a", 2), pod("a", 4), pod("b", 8, phase="Succeeded"), pod("", 8), pod("b", 9)]
    free = free_gpus(nodes, taken_by(pods, GPU), GPU)
    assert free == FreeGpus((2, 0))
    assert (free.total, free.largest) == (2, 2)
    assert FreeGpus(()).largest == 0


@given(st.lists(st.tuples(st.integers(0, 16), st.lists(st.integers(0, 16), max_size=5)), max_size=5))
def test_free_is_never_negative_nor_more_than_there_is(world: list[tuple[int, list[int]]]) -> None:
    """Whatever pods claim."""
    nodes = [NodeView.of(node(str(number), gpus)) for number, (gpus, _) in enumerate(world)]
    pods = [pod(str(number), gpus) for number, (_, asked) in enumerate(world) for gpus in asked]
    free = free_gpus(nodes, taken_by(pods, GPU), GPU)
    assert all(0 <= left <= there for left, (there, _) in zip(free.by_node, world, strict=True))


class FakeApi:
    """Lists nodes and pods, and remembers what was asked."""

    def __init__(self, nodes: list[dict[str, Any]], pods: list[dict[str, Any]], fault: Exception | None = None) -> None:
        self.nodes, self.pods, self.fault = nodes, pods, fault
        self.asked: list[tuple[str, str | None]] = []

    async def list(
        self, kind: Kind, *, labels: str | None = None, fields: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        self.asked.append((kind.kind, labels or fields))
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        where = (fields or "").split(",")[0].removeprefix("spec.nodeName")
        for item in self.nodes if kind.kind == "Node" else self.pods:
            if kind.kind == "Node" or where == "!=" or where == f"={item['spec']['nodeName']}":
                yield item


def capacity(api: FakeApi, now: list[float]) -> Capacity:
    """With a clock that the test moves."""
    return Capacity(api, clock=lambda: now[0])  # type: ignore[arg-type]  # a part of an Api


async def test_who_asks_at_once_shares_an_answer() -> None:
    """Two lists for a hundred tiers, and again when the answer is old."""
    api, now = FakeApi([node("a", 8)], [pod("a", 3)]), [0.0]
    asked = capacity(api, now)
    answers = await asyncio.gather(*(asked.free(GPU, "product", "h100") for _ in range(100)))
    assert set(answers) == {FreeGpus((5,))}
    assert api.asked == [
        ("Node", "product=h100"),
        ("Pod", "spec.nodeName=a,status.phase!=Succeeded,status.phase!=Failed"),
    ]
    now[0] = FRESH - 1
    await asked.free(GPU, "product", "h100")
    assert len(api.asked) == 2
    now[0] = FRESH + 1
    await asked.free(GPU, "product", "h100")
    assert len(api.asked) == 4


async def test_many_nodes_are_asked_for_in_one_list() -> None:
    """A list for every node would be more than the list of all pods."""
    api = FakeApi([node(f"n{n}", 8) for n in range(NODES_ASKED_ONE_BY_ONE + 1)], [pod("n0", 3), pod("n1", 8)])
    free = await capacity(api, [0.0]).free(GPU, "product", "h100")
    assert len(api.asked) == 2
    assert free is not None
    assert free.total == 8 * (NODES_ASKED_ONE_BY_ONE + 1) - 11


async def test_forbidden_is_unknown() -> None:
    """Where the operator may not see nodes or pods, nothing is claimed."""
    api = FakeApi([], [], errors.Denied(Ref(KINDS["Node"], "", ""), "no"))
    assert await capacity(api, [0.0]).free(GPU, "product", "h100") is None


async def test_a_fault_is_not_kept() -> None:
    """The next who asks, asks the server."""
    api = FakeApi([node("a", 8)], [], errors.Transient(Ref(KINDS["Node"], "", ""), "down"))
    asked = capacity(api, [0.0])
    with pytest.raises(errors.Transient):
        await asked.free(GPU, "product", "h100")
    api.fault = None
    assert await asked.free(GPU, "product", "h100") == FreeGpus((8,))


async def test_who_gives_up_does_not_take_the_answer_from_others() -> None:
    """One of two that wait is cancelled."""
    asked = capacity(FakeApi([node("a", 8)], []), [0.0])
    first = asyncio.create_task(asked.free(GPU, "product", "h100"))
    second = asyncio.create_task(asked.free(GPU, "product", "h100"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == FreeGpus((8,))
