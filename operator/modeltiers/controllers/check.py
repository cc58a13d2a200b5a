"""`python -m modeltiers.controllers check URL`: asks a running operator whether it is ready, for `helm test`.

It prints what the operator says, which names what is lacking. It refuses to judge the answer any further.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from typing import Final

PATIENCE: Final = 60.0
"""Seconds in which an operator that has just been installed may become ready."""
PAUSE: Final = 2.0


def check(url: str, patience: float = PATIENCE) -> int:
    """Exit status 0 when the operator is ready within so many seconds; what it said last is printed."""
    end = time.monotonic() + patience
    while True:
        ready, said = _ask(url)
        if ready or time.monotonic() > end:
            sys.stdout.write(f"{said}\n")
            return 0 if ready else 1
        time.sleep(PAUSE)


def _ask(url: str) -> tuple[bool, str]:
    """Whether the operator is ready, and what it says of that."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the chart names the URL
            return True, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as fault:
        return False, f"the operator is not ready:\n{fault.read().decode(errors='replace')}"
    except OSError as fault:
        # Its own pods answer before they are ready, so there are none that run.
        return False, (
            f"nobody answers at {url}: {fault}; look at the operator's pods with `kubectl get pods -l "
            "app.kubernetes.io/name=modeltiers-operator` and at the end of their logs; a NetworkPolicy may be between"
        )
