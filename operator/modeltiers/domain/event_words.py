"""What events say and no object does: why a Job has no pod, and why a node cannot set a pod up.

Only the newest event about an object counts: a later one says that what was wrong has passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from modeltiers.domain.views import instant

_REFUSED: Final = frozenset({"FailedCreate"})
_NOT_SET_UP: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})


def refusal_in(events: Iterable[Mapping[str, Any]]) -> str:
    """Why a Job's controller could not make its pod, of all core/v1 Events about the Job; empty where it last could."""
    return _said(events, _REFUSED)


def setup_error_in(events: Iterable[Mapping[str, Any]]) -> str:
    """Why a kubelet cannot give a pod its volumes or its network, of all core/v1 Events about the pod."""
    # The scheduler may write to the microsecond of what the kubelet wrote to the second.
    return _said((one for one in events if one.get("reason") != "Scheduled"), _NOT_SET_UP)


def _said(events: Iterable[Mapping[str, Any]], reasons: frozenset[str]) -> str:
    newest = max(events, key=_seen_last, default=None)
    return str(newest.get("message", "")) if newest is not None and newest.get("reason") in reasons else ""


def _seen_last(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next(filter(None, map(instant, filter(None, times))), datetime.min.replace(tzinfo=UTC))
