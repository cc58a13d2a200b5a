"""Reads events, where they alone tell what is wrong. They are not watched: who waits looks again after `RECHECK`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from modeltiers.domain.distill.job import JobView
from modeltiers.domain.event_words import refusal_in, setup_error_in
from modeltiers.domain.views import PodView, instant
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS

RECHECK: Final = 10.0
"""Seconds between two looks."""
_USUAL: Final = timedelta(seconds=8)
"""How long a node may take to set a pod up until it is asked about."""
_MOST: Final = 200


async def refusal(api: Api, namespace: str, job: JobView) -> str:
    """What a Job's controller said of the pod that it could not make; empty where it said nothing or is not heard."""
    return refusal_in(await _about(api, namespace, "Job", job.name, job.uid))


async def with_setup_error(api: Api, namespace: str, pods: tuple[PodView, ...], now: datetime) -> tuple[PodView, ...]:
    """The pods, of which the first that is set up for long has its kubelet's words of it, if there are any."""
    for at, pod in enumerate(pods):
        born = instant(pod.created_at)
        if pod.is_set_up_now and born is not None and now - born >= _USUAL:
            said = setup_error_in(await _about(api, namespace, "Pod", pod.name, pod.uid))
            return (*pods[:at], replace(pod, setup_error=said), *pods[at + 1 :])
    return pods


async def _about(api: Api, namespace: str, kind: str, name: str, uid: str) -> list[dict[str, Any]]:
    """At most a page of events: who may write events in the namespace could write many."""
    about = f"involvedObject.kind={kind},involvedObject.name={name},involvedObject.uid={uid}"
    try:
        found: list[dict[str, Any]] = []
        async for event in api.list(KINDS["Event"], namespace, fields=about, limit=_MOST):
            found.append(event)
            if len(found) == _MOST:
                break
    except errors.ApiFault:
        return []  # nothing depends on it but words
    return found
