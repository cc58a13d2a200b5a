"""Looks at what the routers of a tier say their engines hold, every 15 s, and remembers what the next look needs.

How many pods follow from it is `domain.autoscale`'s; the number is applied with the Deployment, like all else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.controllers.routers import Routers
from modeltiers.controllers.store import Key, Store
from modeltiers.domain import autoscale, scaling
from modeltiers.domain.autoscale import Decision, Memory, PodLoad
from modeltiers.domain.scaling import Scaling
from modeltiers.domain.views import PodView

FRESH: Final = 10.0
"""Seconds for which what a router said of its engine is good."""
Room = Callable[[int], Awaitable[int | None]]
"""For how many pods more than so many free accelerators are seen; None where that is not known."""


@dataclass(eq=False)
class Autoscaler:
    """Chooses the number of pods of every tier."""

    store: Store
    routers: Routers
    ring: Callable[[Key], None]
    now: Callable[[], datetime]
    _decided: dict[Key, Decision] = field(default_factory=dict)

    async def look(
        self, key: Key, spec: ModelTierSpec, live: int | None, before: Mapping[str, Any] | None, room: Room
    ) -> Scaling:
        """How many pods a tier wants now.

        `live` is what its Deployment wants, None where there is none; `before` is the `autoscaling` of its status.
        """
        hpas, (namespace, name) = self.store.hpas, key
        bounds = scaling.bounds_of(spec)
        theirs = scaling.others_rule(
            name,
            spec,
            live,
            on_workload=hpas.of(namespace, "Deployment", names.workload(name)),
            on_tier=hpas.of(namespace, "ModelTier", name),
        )
        if theirs is not None or bounds is None:
            self.forget(key)
            return theirs or Scaling(spec.replicas)
        last = self._decided.get(key)
        wait = autoscale.due(last.memory if last else Memory(), bounds, self.now()).total_seconds()
        current = scaling.expected(spec, live)
        if not wait:
            pods = self._pods(key)
            if self.routers.ask([pod for pod in pods if pod.ready], FRESH, partial(self.ring, key)):
                wait = FRESH  # they ring when they have answered
            else:
                last = await self._decide(key, bounds, pods, live or current, last, spec, room)
                wait, current = autoscale.PERIOD.total_seconds(), last.wanted
        status = autoscale.told(last, before) if last else before
        return Scaling(current, scaling.own_rules(spec, bounds, last.reason if last else ""), status, wait)

    def forget(self, key: Key) -> None:
        """Let go of what is remembered of a tier."""
        self._decided.pop(key, None)

    async def _decide(
        self,
        key: Key,
        bounds: autoscale.Bounds,
        pods: Sequence[PodView],
        current: int,
        last: Decision | None,
        spec: ModelTierSpec,
        room: Room,
    ) -> Decision:
        assert spec.autoscaling is not None
        loads = [PodLoad(pod.ready, self._held(pod) if pod.ready else None) for pod in pods]
        made = autoscale.decide(bounds, loads, current, last.memory if last else Memory(), self.now())
        if made.wanted > current:
            free = await room(current)
            made = autoscale.within_room(made, current, free, wait_for_nodes=spec.autoscaling.wait_for_nodes)
        self._decided[key] = made
        return made

    def _pods(self, key: Key) -> list[PodView]:
        """The pods that the number is about: those of the first revision that are to stay."""
        own = (pod for pod in self.store.pods_of(key) if pod.revision == names.FIRST_REVISION)
        return [pod for pod in own if not pod.deleting and not pod.finished]

    def _held(self, pod: PodView) -> int | None:
        """Requests on a pod's engine and in line for it, None where its router did not say so lately."""
        said = self.routers.last(pod)
        if said is None or said.status is None or self.routers.clock() - said.at > 2 * FRESH:
            return None
        engine = said.status.get("engine")
        figures = [engine.get(name) for name in ("inFlight", "waiting")] if isinstance(engine, Mapping) else []
        known = [one for one in figures if isinstance(one, int) and one >= 0]
        return sum(known) if len(known) == 2 else None
