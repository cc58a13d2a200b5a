"""How long a server is asked again before it is given up. Pure; the dice are passed in."""

from __future__ import annotations

from dataclasses import dataclass

from modeltiers.domain.distill.replies import Failure, Kind


@dataclass(frozen=True, slots=True)
class Patience:
    """Tries for one request, with full jitter between them."""

    tries: int = 8
    garbage: int = 3
    """Tries where replies come and are none."""
    base: float = 0.5
    """Seconds that the first wait is shorter than; it doubles."""
    longest: float = 30.0
    """Seconds that no wait is longer than, but for the server's own wish."""
    total: float = 300.0
    """Seconds of waiting for one request."""
    alike: int = 20
    """So many rows that fail alike, with none answered, and the fault is not in the rows."""
    healthy: int = 3
    """Answers to others meanwhile, from which on a request that keeps failing is at fault itself."""

    def wait(self, failure: Failure, tries: int, waited: float, dice: float) -> float | None:
        """Seconds until the next try after so many; None: no more. `dice` is even between 0 and 1."""
        if tries >= (self.garbage if failure.kind is Kind.GARBAGE else self.tries):
            return None
        jitter = dice * min(self.longest, self.base * 2.0 ** (tries - 1))
        wait = jitter + (failure.after or 0.0)
        return wait if waited + wait <= self.total else None

    def blames_row(self, failure: Failure, answered: int) -> bool:
        """Whether a request that was given up is at fault itself, `answered` others having been answered meanwhile."""
        if failure.kind is Kind.GARBAGE:
            return True
        return failure.kind in (Kind.SERVER, Kind.TIMEOUT) and answered >= self.healthy
