"""Takes part in the election over one Lease and says at any moment whether this replica may write.

The rules are pure (`domain/election.py`); here are the reads, the guarded writes and the clock. An API server that does
not answer costs the leadership and never the process. The clock counts while the machine sleeps, so a leader that was
frozen, or whose machine was, does not trust itself when it wakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from modeltiers.domain import election as rules
from modeltiers.domain.election import Acquire, Config, Hold, LeaseRecord, Renew, Standing, Wait
from modeltiers.kube import errors, metrics
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Ref

log = logging.getLogger(__name__)

_LOST_RACE: Final = (errors.Conflict, errors.AlreadyExists, errors.NotFound)


def _awake_or_not() -> float:
    """Seconds on a clock that never steps and counts suspended time too, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Election:
    """One candidate. Its `Api` must have no fence: the fence asks us."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        config: Config | None = None,
        clock: Callable[[], float] = _awake_or_not,
    ) -> None:
        # A process that starts anew under the name of its pod is another candidate: it must not trust what it finds.
        self.identity = f"{identity}_{secrets.token_hex(4)}"
        self._api = api
        self._ref = Ref(KINDS["Lease"], namespace, name)
        self._config = config or Config()
        self._clock = clock
        self._standing = Standing()
        self._body: dict[str, Any] = {}
        self._reread = True
        self._gained = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost.set()
        self._alarm: asyncio.TimerHandle | None = None
        self._trouble = ""

    def is_leading(self) -> bool:
        """Whether this replica may write now. Cheap; ask before every write."""
        return rules.leads(self._standing, self._clock(), self._config)

    async def wait_leading(self) -> None:
        """Return once this replica leads."""
        while not self.is_leading():
            # When the loop is late, the time is up before its alarm has rung: the event would still say that we lead.
            self._announce()
            await self._gained.wait()

    async def wait_lost(self) -> None:
        """Return once this replica does not lead (any more)."""
        await self._lost.wait()

    async def run(self, stopping: asyncio.Event) -> None:
        """Take part until `stopping` is set, then give the lease back."""
        try:
            while not stopping.is_set():
                pause = await self._step()
                # Spread, so that candidates that started together do not ask together.
                await _rest(stopping, pause * random.uniform(0.9, 1.0))  # noqa: S311  no secret
        finally:
            await self._release()

    async def _step(self) -> float:
        """Look, decide, write; returns seconds until the next step. Raises nothing that an API server can cause."""
        try:
            async with asyncio.timeout(self._config.renew_deadline / 2):
                pause = await self._advance()
            self._trouble = ""
            return pause
        except _LOST_RACE:
            self._reread = True
            return self._config.retry / 4
        except (errors.ApiFault, TimeoutError) as fault:
            self._reread = True
            text = str(fault) or "no answer in time"
            if text != self._trouble:
                log.warning("election: %s; trying again", text)
            self._trouble = text
            return self._config.retry
        finally:
            self._announce()

    async def _advance(self) -> float:
        if self._reread or not self.is_leading():
            await self._look()
        match rules.decide(self._standing, self.identity, self._clock(), self._config):
            case Hold(seconds) | Wait(seconds):
                return seconds
            case Renew(version, transitions) | Acquire(version, transitions):
                await self._write(self.identity, version, transitions)
                return self._config.retry

    async def _look(self) -> None:
        body = await self._api.get(self._ref)
        record = _record(body) if body else None
        self._standing = rules.observe(self._standing, record, self._clock())
        self._body = body or {}
        self._reread = False

    async def _write(self, holder: str, version: str | None, transitions: int) -> None:
        sent = self._clock()
        desired = self._desired(holder, transitions)
        # Guarded by the resourceVersion in the body that was read: of two who try, one loses.
        self._body = await (self._api.update(desired) if version else self._api.create(desired))
        self._standing = rules.renewed(self._standing, _record(self._body), sent, self._clock())
        self._announce()

    def _desired(self, holder: str, transitions: int) -> dict[str, Any]:
        """The Lease as read, with our spec; labels and annotations of others stay."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = self._body.get("spec") or {}
        acquired = before.get("acquireTime") if before.get("holderIdentity") == holder else None
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": math.ceil(self._config.lease),
            "acquireTime": acquired or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        kind = self._ref.kind
        metadata = self._body.get("metadata") or {"name": self._ref.name, "namespace": self._ref.namespace}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        """Stop writing, then tell the others not to wait. Best effort: they would find out by themselves."""
        was_leading = self.is_leading()
        self._standing = rules.resigned(self._standing)
        self._announce()
        seen = self._standing.observed
        if not was_leading or seen is None or seen.record.holder != self.identity:
            return
        with contextlib.suppress(errors.ApiFault, TimeoutError):
            async with asyncio.timeout(self._config.retry):
                await self._api.update(self._desired("", seen.record.transitions))
                log.info("election: gave the lease back")

    def _announce(self) -> None:
        """Set the events when leadership has changed, and be back when it will have run out."""
        leading = self.is_leading()
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None
        if leading:
            assert self._standing.trusted_from is not None
            left = self._standing.trusted_from + self._config.renew_deadline - self._clock()
            self._alarm = asyncio.get_running_loop().call_later(max(0.001, left), self._announce)
        if leading == self._gained.is_set():
            return
        log.info("election: %s %s", self.identity, "leads" if leading else "does not lead any more")
        metrics.LEADERSHIP.labels("gained" if leading else "lost").inc()
        gone, come = (self._lost, self._gained) if leading else (self._gained, self._lost)
        gone.clear()
        come.set()


def _record(body: Mapping[str, Any]) -> LeaseRecord:
    spec = body.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        duration=float(spec.get("leaseDurationSeconds") or 0),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=body["metadata"]["resourceVersion"],
    )


async def _rest(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
