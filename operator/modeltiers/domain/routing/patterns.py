"""How RE2 patterns are compiled. On its own, so that nothing else of the router comes with it."""

from __future__ import annotations

from typing import Any

import re2


def options() -> Any:
    """Return how patterns are compiled: no groups are kept, no error goes to standard error."""
    made = re2.Options()
    made.never_capture = True
    made.log_errors = False
    return made
