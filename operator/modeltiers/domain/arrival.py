"""Objects that are applied together arrive in any order: a new one waits a moment for those that it refers to.

A policy that is stored a second before its tiers would else be Stalled for that second, and who waits for the health of
all of it (a sync wave of Argo CD, a Kustomization of Flux, `kubectl wait`) would take it for a failure and give up.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from modeltiers.domain.views import instant

GRACE: Final = timedelta(seconds=10)


def left(created: str, now: datetime) -> timedelta | None:
    """How long an object of this creation time still waits; None once what it refers to should be there.

    The two clocks are those of two machines: a time that lies too far ahead is none.
    """
    since = instant(created)
    if since is None or not -GRACE <= now - since < GRACE:
        return None
    return since + GRACE - now
