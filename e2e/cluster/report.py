"""Tell a person what happens: progress lines, a timing table, and the one error type whose text names the way out."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field


class HarnessError(Exception):
    """The cluster cannot do what was asked; the text says what to do about it."""


def say(text: str) -> None:
    """Print a progress line. It goes to stderr, so that `eval "$(… env)"` sees shell lines only."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Stopwatch:
    """Remember how many seconds after the start each step was done."""

    began: float = field(default_factory=time.monotonic)
    steps: list[tuple[str, float]] = field(default_factory=list)

    def mark(self, step: str) -> None:
        """Note that `step` is done now."""
        self.steps.append((step, time.monotonic() - self.began))

    @property
    def total(self) -> float:
        """Seconds from the start to the last step."""
        return self.steps[-1][1] if self.steps else 0.0

    def table(self) -> str:
        """Return one line a step: what was done, and the seconds since the start."""
        width = max((len(step) for step, _ in self.steps), default=0)
        return "\n".join(f"  {step:<{width}}  {seconds:6.2f} s" for step, seconds in self.steps)
