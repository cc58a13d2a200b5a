"""What the reconcilers make of a write that failed: words for conditions, and when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modeltiers import names
from modeltiers.controllers.workqueue import LONGEST_DELAY, RetryAfter
from modeltiers.domain.facts import ApplyError
from modeltiers.kube import errors
from modeltiers.kube.client import Api

MENDED_RECHECK: Final = 20.0
"""Longest wait, in seconds, for what somebody has to mend."""


def apply_error(fault: errors.ApiFault | None) -> ApplyError | None:
    """What a failed write says, for conditions."""
    if fault is None:
        return None
    return ApplyError(
        kind=fault.ref.kind.kind,
        name=fault.ref.name,
        code=fault.code,
        reason=fault.condition_reason,
        message=fault.message,
    )


def raise_for_retry(fault: errors.ApiFault) -> None:
    """A rejected object stays rejected until the spec changes; all else is worth another try, later and later.

    What a person mends where we do not watch, a name, a quota, a right, is looked at often enough to be seen to work.
    """
    if not isinstance(fault, errors.Rejected):
        mended = isinstance(fault, errors.NameTaken | errors.Forbidden)
        longest = MENDED_RECHECK if mended else LONGEST_DELAY
        raise RetryAfter(str(fault), getattr(fault, "retry_after", None), longest) from fault


async def write_status(
    api: Api, kind: str, body: Mapping[str, Any], status: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Apply a status to the very object that was looked at, and return it as it is then; None when it is gone.

    Raises RetryAfter.
    """
    metadata = {name: body["metadata"][name] for name in ("name", "namespace", "uid")}
    desired = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "status": status}
    try:
        return await api.apply(desired, status=True)
    except errors.NotFound:
        return None  # deleted meanwhile
    except errors.ApiFault as fault:
        raise_for_retry(fault)
        raise RetryAfter(f"status: {fault}") from fault
