"""What a cluster must have before the operator can work in it: a Kubernetes that is new enough, and our CRDs.

What is missing is said, in the log and by `/readyz`, and waited for. When other kinds are served than the watches were
begun with, the program has to begin anew; that is the caller's to do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from modeltiers.domain.floor import too_old
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS

log = logging.getLogger(__name__)

LOOK_AGAIN: Final = 5.0
WATCH_OVER: Final = 30.0


class Prerequisites:
    """Looks at the cluster, first until there is enough to begin with, then for as long as the program runs."""

    def __init__(self, api: Api, first: str, others: Sequence[str]) -> None:
        self._api = api
        self._first = first
        self._others = others
        self.served: frozenset[str] = frozenset()
        """Our kinds that the cluster served when it was last asked."""
        self.problem: str | None = "the cluster has not been asked yet"
        """What is missing, and what to do; None when nothing is."""

    async def wait(self, pause: Callable[[float], Awaitable[bool]]) -> None:
        """Return when there is enough to begin with, or `pause` says that the program stops."""
        while not await self._look() or self._first not in self.served:
            if await pause(LOOK_AGAIN):
                return

    async def watch_over(self, pause: Callable[[float], Awaitable[bool]]) -> str | None:
        """Return why the program should begin anew, or None when it stops."""
        begun_with = self.served
        while not await pause(WATCH_OVER):
            seen = self.served
            # Kinds that go are waited for; it is their coming, or coming back, that takes other watches.
            if await self._look() and self.served - (begun_with & seen):
                return f"{', '.join(sorted(self.served - (begun_with & seen)))} served now"
        return None

    async def _look(self) -> bool:
        """Ask the cluster; False when it does not answer or is too old."""
        try:
            old = too_old(str((await self._api.version()).get("gitVersion")))
            served = frozenset() if old else await self._ask()
        except errors.ApiFault as fault:
            self._say(f"the API server does not say what it serves: {fault}")
            return False
        self.served = served
        self._say(old or self._missing())
        return old is None

    async def _ask(self) -> frozenset[str]:
        served = await self._api.served(KINDS[kind] for kind in (self._first, *self._others))
        return frozenset(kind.kind for kind in served)

    def _missing(self) -> str | None:
        missing = [kind for kind in (self._first, *self._others) if kind not in self.served]
        if not missing:
            return None
        return (
            f"{', '.join(missing)} not served: install the CRDs (the chart's crds.enabled, the chart modeltiers-crds,"
            " or `kubectl apply --server-side -f crds/`); what there is goes on"
        )

    def _say(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            log.warning("%s; looking again", problem)
        self.problem = problem
