"""Reads volume claims. They are not watched: whoever waits for one looks again after `CLAIM_RECHECK` seconds."""

from __future__ import annotations

from typing import Final, NamedTuple

from modeltiers.controllers.workqueue import RetryAfter
from modeltiers.domain.claims import ClaimView
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Ref

CLAIM_RECHECK: Final = 60.0


class Found(NamedTuple):
    """A claim as it was seen; without one, whether it is known not to be there."""

    claim: ClaimView | None = None
    missing: bool = False


async def look(api: Api, namespace: str, name: str) -> Found:
    """Read one claim. Raises RetryAfter for a fault that passes."""
    try:
        body = await api.get(Ref(KINDS["PersistentVolumeClaim"], namespace, name))
    except errors.Forbidden:
        return Found()  # not known; the kubelet's or the scheduler's own words will tell
    except errors.Transient as fault:
        raise RetryAfter(str(fault), fault.retry_after) from fault
    return Found(ClaimView.of(body)) if body else Found(missing=True)
