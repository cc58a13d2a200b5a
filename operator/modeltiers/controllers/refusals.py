"""Reads why a Job has no pod. Its controller tells that in events alone, which are not watched: look again later."""

from __future__ import annotations

from typing import Final

from modeltiers.domain.distill.job import JobView, refusal_in
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS

RECHECK: Final = 10.0
"""Seconds until the next look at a Job without a pod."""


async def look(api: Api, namespace: str, job: JobView) -> str:
    """What the Job's controller said of the pod that it could not make; empty where it said nothing or is not heard."""
    about = f"involvedObject.kind=Job,involvedObject.name={job.name},involvedObject.uid={job.uid}"
    try:
        return refusal_in([event async for event in api.list(KINDS["Event"], namespace, fields=about)])
    except errors.ApiFault:
        return ""  # nothing depends on it but words
