"""Asks the API server how many accelerators are free, when a decision needs it; never in the background.

Only the nodes of the product are read, and only the pods on them. Questions that come at once share one answer, and an
answer is good for some seconds, so that a hundred tiers that start together ask once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from modeltiers.domain import capacity
from modeltiers.domain.capacity import FreeGpus
from modeltiers.domain.views import NodeView
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS

FRESH: Final = 10.0
"""Seconds that an answer is good for, where it decides how a rollout proceeds."""
NOW: Final = 0.5
"""And where it is told to a person; more where asking takes long."""
SHARE: Final = 10
"""An answer is good for this many times what it took to get it, at least."""
ANSWERS_KEPT: Final = 64
NODES_ASKED_ONE_BY_ONE: Final = 64
"""With more nodes than this, one list of all pods is cheaper than a list for every node."""
LIVING: Final = "status.phase!=Succeeded,status.phase!=Failed"
Asked = tuple[str, str, str]


class Capacity:
    """Free accelerators, at most some seconds old."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._answers: dict[Asked, tuple[float, asyncio.Task[FreeGpus | None]]] = {}
        self._took: dict[Asked, float] = {}

    async def free(self, resource: str, product_label: str, product: str, *, age: float = FRESH) -> FreeGpus | None:
        """Free accelerators of this product, None where the operator may not see nodes or pods. Raises ApiFault.

        `age` is how many seconds old the answer may be; it may be older where asking takes long.
        """
        asked = (resource, product_label, product)
        known = self._answers.get(asked)
        good = max(age, SHARE * self._took.get(asked, 0.0))
        if known is None or self._clock() - known[0] > good or _failed(known[1]):
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.clear()
                self._took.clear()
            known = (self._clock(), asyncio.create_task(self._look(*asked), name=f"free {product}"))
            self._answers[asked] = known
        # Shielded: who asked first may give up while others wait for the same answer.
        return await asyncio.shield(known[1])

    async def _look(self, resource: str, product_label: str, product: str) -> FreeGpus | None:
        began = self._clock()
        try:
            nodes = [
                NodeView.of(node) async for node in self._api.list(KINDS["Node"], labels=f"{product_label}={product}")
            ]
            return capacity.free_gpus(nodes, await self._taken(nodes, resource), resource)
        except errors.Forbidden:
            return None
        finally:
            self._took[resource, product_label, product] = self._clock() - began

    async def _taken(self, nodes: Sequence[NodeView], resource: str) -> dict[str, int]:
        places = [f"spec.nodeName={node.name}" for node in nodes if node.allocatable.get(resource)]
        if len(places) > NODES_ASKED_ONE_BY_ONE:
            places = ["spec.nodeName!="]
        found = await asyncio.gather(*(self._taken_at(place, resource) for place in places))
        return {node: taken for part in found for node, taken in part.items()}

    async def _taken_at(self, place: str, resource: str) -> dict[str, int]:
        taken: dict[str, int] = {}
        async for pod in self._api.list(KINDS["Pod"], fields=f"{place},{LIVING}"):
            for node, asked in capacity.taken_by((pod,), resource).items():
                taken[node] = taken.get(node, 0) + asked
        return taken


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
