"""The oldest Kubernetes that the operator works in, and whether a server is older."""

from __future__ import annotations

import re
from typing import Final

FLOOR: Final = (1, 33)
"""A router beside an engine is a native sidecar, which is stable from there; older ones are tested by nobody."""


def too_old(git_version: str) -> str | None:
    """What is wrong with a server of this version; nothing when it is new enough, or its version is no version."""
    found = re.match(r"v?(\d+)\.(\d+)", git_version)
    if not found or (int(found[1]), int(found[2])) >= FLOOR:
        return None
    return f"Kubernetes {git_version} is older than {FLOOR[0]}.{FLOOR[1]}, the oldest that works: upgrade the cluster"
