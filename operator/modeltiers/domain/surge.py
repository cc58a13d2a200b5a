"""How a tier's pods are replaced: one more first, where the nodes seen have room for it, else one less first.

A rolling update that waits for accelerators which the old pod holds never ends. So a surge is taken only when it is
known to fit; where nothing is known, the safe way is taken and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modeltiers.domain.views import DeploymentView


@dataclass(frozen=True, slots=True)
class Rollout:
    """Bounds of a rolling update and the words that explain them."""

    max_surge: int
    max_unavailable: int
    why: str


def choose_rollout(free_by_node: Sequence[int] | None, gpus: int, pods_to_come: int, *, single_writer: bool) -> Rollout:
    """Bounds for replacing pods of `gpus` accelerators each.

    `free_by_node` are the free accelerators of every node that would do, None when the operator may not see nodes.
    `pods_to_come` are replicas that do not exist yet and will take their share first.
    """
    if single_writer:
        return Rollout(0, 1, "one pod less first: its volume can be mounted by one node only")
    if free_by_node is None:
        return Rollout(0, 1, "one pod less first: free accelerators are unknown")
    room = pods_that_fit(free_by_node, gpus)
    if room > pods_to_come:
        return Rollout(1, 0, f"one pod more first: room for {room - pods_to_come} more of {gpus} accelerators seen")
    return Rollout(0, 1, f"one pod less first: no room for one more pod of {gpus} accelerators seen")


def pods_that_fit(free_by_node: Sequence[int], gpus: int) -> int:
    """How many pods of so many accelerators each the free ones of every node hold."""
    return sum(free // gpus for free in free_by_node)


def leaves_none(rollout: Rollout, wanted: int, live: DeploymentView | None, *, changes: bool) -> bool:
    """Whether the pods that serve are about to go, or on their way out, before others are ready.

    `changes` says that the Deployment's pods are to be replaced, which is not written yet.
    """
    if live is None or not live.replicas:
        return False
    if not wanted:
        return True
    if rollout.max_surge or rollout.max_unavailable < min(wanted, live.wanted):
        return False
    return changes or not live.seen or live.updated < live.replicas
