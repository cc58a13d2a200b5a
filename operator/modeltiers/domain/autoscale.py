"""How many pods a tier should have for what its engines hold now. Pure: the clock and what was seen last come in.

The rules are those of Kubernetes' HorizontalPodAutoscaler for a metric of pods, with its constants: a tolerance of a
tenth, 15 s between two looks, at most double or four more at once, pods that did not say what they hold counted so that
nothing hasty happens. Three things differ, since a pod here costs accelerators and minutes to start: it goes down by a
pod or a tenth a minute and not at once, what is not known for a moment counts as need, and no more pods are asked for
than accelerators are seen free, unless the tier says to wait for nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from modeltiers.domain.conditions import stamp
from modeltiers.domain.views import instant

PERIOD: Final = timedelta(seconds=15)
"""Between two looks."""
GAP: Final = timedelta(seconds=60)
"""Without a look for longer than this, what was seen before does not count."""
TOLERANCE: Final = 10
"""A difference of less than one part in so many changes nothing."""
MOST_UP: Final = 4
"""Pods that may be added at once, where double is less."""
DOWN_SHARE: Final = 10
"""One part in so many may be taken away at once; one pod at least."""
DOWN_PERIOD: Final = timedelta(seconds=60)
TOLD_AGAIN: Final = timedelta(seconds=60)
"""Figures alone are written no more often than this."""

Reason = Literal[
    "Steady",
    "ScaledUp",
    "ScaledDown",
    "Stabilizing",
    "AtMinimum",
    "AtMaximum",
    "NoFreeAccelerators",
    "MetricsUnknown",
]
REASONS: Final[Mapping[Reason, str]] = {
    "Steady": "what is held lies within a tenth of the target",
    "ScaledUp": "more is held than the target: pods are added",
    "ScaledDown": "less was held than the target for the whole window: pods are taken away",
    "Stabilizing": "less is held than the target: not for the whole window yet, or a pod left a moment ago",
    "AtMinimum": "fewer pods would do, and min does not allow it",
    "AtMaximum": "more pods are needed, and max does not allow it",
    "NoFreeAccelerators": "more pods are needed, and no accelerators are seen free for them",
    "MetricsUnknown": "no ready pod said what it holds: nothing changes",
}
"""Why the number is what it is: the words of `status.autoscaling.reason`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the tier's spec allows: pods at least and at most, requests a pod should hold, and the window for less."""

    least: int
    most: int
    target: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class PodLoad:
    """A pod that is not being deleted, and the requests its engine holds; None when nobody could say lately."""

    ready: bool
    held: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a tier's next decision needs of the ones before; an empty one is where every restart begins.

    The first look notes the pods that are there as needed, so nothing is taken away before a whole window was seen.
    """

    wishes: tuple[tuple[datetime, int], ...] = ()
    """When how many pods were needed, as far back as the window goes."""
    looked: datetime | None = None
    went_down: datetime | None = None
    bounds: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """How many pods, why, and what that was worked out from."""

    wanted: int
    reason: Reason
    message: str
    held: int | None
    """Requests on the pods that were measured."""
    measured: int
    ready: int
    at: datetime
    memory: Memory


def due(memory: Memory, bounds: Bounds, now: datetime) -> timedelta:
    """How long until the next look; zero when it is time, also because the spec has changed."""
    if memory.looked is None or memory.bounds != bounds or now < memory.looked:
        return timedelta(0)
    return max(timedelta(0), memory.looked + PERIOD - now)


def decide(bounds: Bounds, pods: Sequence[PodLoad], current: int, memory: Memory, now: datetime) -> Decision:
    """Look once. `current` is how many pods are wanted now; the answer lies within the bounds."""
    held = [pod.held for pod in pods if pod.ready and pod.held is not None]
    wish = _needed(bounds.target, pods, current)
    noted = _noted(memory, current if wish is None else wish, current, bounds.window, now)
    wanted, reason = _settled(wish, current, noted, memory.went_down, now)
    bounded = min(max(wanted, bounds.least), bounds.most)
    if bounded < wanted:
        reason = "AtMaximum"
    elif bounded > wanted or (wish is not None and wish < bounded == current == bounds.least):
        reason = "AtMinimum"
    went_down = now if bounded < current else memory.went_down
    ready = sum(pod.ready for pod in pods)
    total = sum(held) if held else None
    return Decision(
        wanted=bounded,
        reason=reason,
        message=_words(bounds, wish, total, len(held), ready, bounded),
        held=total,
        measured=len(held),
        ready=ready,
        at=now,
        memory=Memory(noted, now, went_down, bounds),
    )


def _needed(target: int, pods: Sequence[PodLoad], current: int) -> int | None:
    """How many pods would hold `target` requests each; None when no ready pod said anything.

    Pods that are not ready, or did not say, count as empty when more seem needed, and ready ones that did not say as
    full when fewer do. If that turns the answer round, nothing is needed.
    """
    held = [pod.held for pod in pods if pod.ready and pod.held is not None]
    if not held:
        return None
    silent = sum(pod.ready for pod in pods) - len(held)
    total, room = sum(held), target * len(held)
    more = total > room
    if more:
        again, counted = total, target * len(pods)
    else:
        again, counted = total + target * silent, room + target * silent
    if abs(again - counted) * TOLERANCE <= counted or (again > counted) is not more:
        return current
    needed = -(-again // target)
    return max(needed, current) if more else min(needed, current)


def _noted(
    memory: Memory, wish: int, current: int, window: timedelta, now: datetime
) -> tuple[tuple[datetime, int], ...]:
    seen = memory.looked is not None and timedelta(0) <= now - memory.looked <= GAP
    before = memory.wishes if seen else ((now, current),)
    return (*((when, said) for when, said in before if now - window <= when <= now), (now, wish))


def _settled(
    wish: int | None,
    current: int,
    noted: Iterable[tuple[datetime, int]],
    went_down: datetime | None,
    now: datetime,
) -> tuple[int, Reason]:
    """The number for a wish, before the bounds: not too much at once, and fewer only after a whole window of it."""
    if wish is None:
        return current, "MetricsUnknown"
    if wish > current:
        return min(wish, max(2 * current, current + MOST_UP)), "ScaledUp"
    if wish == current:
        return current, "Steady"
    stable = min(current, max(said for _, said in noted))
    if stable == current or (went_down is not None and now - went_down < DOWN_PERIOD):
        return current, "Stabilizing"
    return max(stable, current - max(1, current // DOWN_SHARE)), "ScaledDown"


def within_room(decision: Decision, current: int, room: int | None, *, wait_for_nodes: bool) -> Decision:
    """The decision with what the free accelerators allow said, and kept to unless the tier waits for nodes.

    `room` is for how many more pods free accelerators are seen, beside those that are wanted already; None when the
    operator may not see nodes.
    """
    more = decision.wanted - current
    if more <= 0:
        return decision
    if room is None:
        return replace(decision, message=f"{decision.message}; free accelerators are unknown")
    if room >= more:
        return decision
    seen = f"accelerators are seen free for {room} of {more} more"
    if wait_for_nodes:
        return replace(decision, message=f"{decision.message}; {seen}, the others wait for nodes")
    return replace(decision, wanted=current + room, reason="NoFreeAccelerators", message=f"{decision.message}; {seen}")


def _words(bounds: Bounds, wish: int | None, held: int | None, measured: int, ready: int, wanted: int) -> str:
    if wish is None or held is None:
        none = "no pod is ready" if not ready else f"none of {ready} ready pods said what it holds"
        return f"{none}: {wanted} wanted"
    kept = "" if wish == wanted else f", {wanted} wanted"
    return f"{held} requests on {measured} of {ready} ready pods, {bounds.target} each aimed at: {wish} needed{kept}"


def told(decision: Decision, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What status says of a decision; `before`, if nothing but figures changed, and that less than a minute ago.

    So `measuredAt` is when the figures were seen first, and a tier whose load stands still is not written.
    """
    status: dict[str, Any] = {
        "wanted": decision.wanted,
        "reason": decision.reason,
        "message": decision.message,
        "podsMeasured": decision.measured,
        "podsReady": decision.ready,
        "measuredAt": stamp(decision.at),
    }
    if decision.held is not None:
        status["inFlight"] = decision.held
    if before is None or any(before.get(key) != status[key] for key in ("wanted", "reason")):
        return status
    seen = instant(str(before.get("measuredAt", "")))
    fresh = seen is not None and timedelta(0) <= decision.at - seen < TOLD_AGAIN
    same = {**before, "measuredAt": ""} == {**status, "measuredAt": ""}
    return dict(before) if fresh or same else status
