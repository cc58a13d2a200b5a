"""Tells users what happened, as Kubernetes Events: deduplicated, limited, and never in the way of a reconcile.

Events are of core/v1 and are applied: events.k8s.io/v1 lets nothing but `series` change after creation, so counting up
would need a read, while one apply by a deterministic name creates or counts up, also after a restart. A recorder
refuses to raise: an event that cannot be told is a number in a metric, for what matters is in the object's status.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.kube import errors, metrics
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Kind

log = logging.getLogger(__name__)

BURST: Final = 25
REFILL: Final = 300.0
"""Seconds until one more event of the same reason may be told of the same object."""
FORGET: Final = 3600.0
"""Seconds after which the API server has dropped an event, by its default, and counting starts anew."""
REMEMBERED: Final = 4096
WAITING: Final = 1000
NOTE_BYTES: Final = 1024

_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,127}")


@dataclass(slots=True)
class Count:
    """How often one event was told, and when first and last."""

    times: int
    first: float
    last: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(eq=False, slots=True)
class Tally:
    """Counts events and says which may be told. Pure but for what it remembers; the clock is passed in."""

    remembered: int = REMEMBERED
    _counts: OrderedDict[str, Count] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[tuple[str, str], _Bucket] = field(default_factory=OrderedDict)

    def note(self, name: str, uid: str, reason: str, now: float) -> Count | None:
        """Count the event of this name; None when it may not be told now. What is not told is counted all the same."""
        count = self._counts.get(name)
        if count is None or now - count.last > FORGET:
            count = self._counts[name] = Count(0, now, now)
        count.times += 1
        count.last = now
        _keep(self._counts, name, self.remembered)
        return count if self._may(uid, reason, now) else None

    def _may(self, uid: str, reason: str, now: float) -> bool:
        bucket = self._buckets.setdefault((uid, reason), _Bucket(BURST, now))
        bucket.tokens = min(float(BURST), bucket.tokens + (now - bucket.at) / REFILL)
        bucket.at = now
        _keep(self._buckets, (uid, reason), self.remembered)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class EventRecorder:
    """Records events about objects; `run` must be running for them to be sent."""

    def __init__(self, api: Api, identity: str, *, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._identity = identity
        self._clock = clock
        self._tally = Tally()
        self._waiting: dict[str, dict[str, Any]] = {}  # by name: an event that waits is replaced, not sent twice
        self._bell = asyncio.Event()

    def record(
        self,
        body: Mapping[str, Any],
        level: str,
        reason: str,
        message: str,
        *,
        related: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell that something happened to an object. `level` is Normal or Warning. Returns at once and never raises.

        `message` must carry no secret and no prompt: everybody who may read events reads it.
        """
        try:
            self._enqueue(body, level, reason, message, related)
        except Exception:
            log.exception("an event %s could not be made", reason)
            metrics.EVENTS.labels("failed").inc()

    def _enqueue(
        self, body: Mapping[str, Any], level: str, reason: str, message: str, related: Mapping[str, Any] | None
    ) -> None:
        if not _REASON.fullmatch(reason) or level not in ("Normal", "Warning"):
            raise ValueError(f"{level} {reason!r} is not a type and reason of an event")
        note = cut(message)
        name = event_name(body, reason, note)
        count = self._tally.note(name, body["metadata"]["uid"], reason, self._clock())
        if count is None:
            metrics.EVENTS.labels("limited").inc()
        elif len(self._waiting) >= WAITING and name not in self._waiting:
            metrics.EVENTS.labels("full").inc()
        else:
            self._waiting[name] = self._event(name, body, level, reason, note, count, related)
            self._bell.set()

    async def run(self) -> None:
        """Send what was recorded, one at a time, for ever."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                name = next(iter(self._waiting))
                metrics.EVENTS.labels(await self._send(self._waiting.pop(name))).inc()

    async def _send(self, event: Mapping[str, Any]) -> str:
        try:
            await self._api.apply(event)
        except errors.NotLeading:
            return "fenced"
        except errors.ApiFault as fault:
            log.debug("event not told: %s", fault)
            return "failed" if isinstance(fault, errors.Transient) else "refused"
        except Exception:
            log.exception("event not told")
            return "failed"
        return "sent"

    def _event(
        self,
        name: str,
        body: Mapping[str, Any],
        level: str,
        reason: str,
        note: str,
        count: Count,
        related: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        kind: Kind = KINDS["Event"]
        event = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": body["metadata"]["namespace"]},
            "involvedObject": _reference(body),
            "type": level,
            "reason": reason,
            "message": note,
            "action": "Reconcile",
            "count": count.times,
            "firstTimestamp": _stamp(count.first),
            "lastTimestamp": _stamp(count.last),
            "source": {"component": names.OPERATOR_NAME},
            "reportingComponent": f"{names.GROUP}/{names.OPERATOR_NAME}",
            "reportingInstance": self._identity[:128],
        }
        return {**event, "related": _reference(related)} if related else event


def event_name(body: Mapping[str, Any], reason: str, note: str) -> str:
    """The name of the event that says this of this object: the same from every replica and after every restart."""
    metadata = body["metadata"]
    digest = hashlib.sha256("\0".join((metadata["uid"], reason, note)).encode()).hexdigest()
    return f"{metadata['name'][:200].rstrip('.-')}.{digest[:16]}"


def cut(message: str) -> str:
    """The message within the limit that the API has for a note, in bytes."""
    data = message.encode()
    if len(data) <= NOTE_BYTES:
        return message
    return data[: NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _reference(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = body["metadata"]
    found = {
        "apiVersion": body.get("apiVersion"),
        "kind": body.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "uid": metadata.get("uid"),
        "resourceVersion": metadata.get("resourceVersion"),
    }
    return {key: value for key, value in found.items() if value}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _keep(kept: OrderedDict[Any, Any], key: Any, most: int) -> None:
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
