"""What every stage's code is handed, and what it hands back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modeltiers.distill.faults import TryAgain
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Stage


@dataclass
class Progress:
    """How far a stage is; written by it, read by the server of `serve`."""

    clock: Callable[[], float] = time.monotonic
    done: int = 0
    of: int = 0
    unit: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """More to show: `lossMilli`, and `spend` as in the manifest."""
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def at(self, done: int, of: int, unit: str, **facts: Any) -> None:
        """Say how far it is."""
        if unit != self.unit or done < self.done:
            self._marks.clear()
        self.done, self.of, self.unit = done, of, unit
        self.facts.update(facts)
        now = self.clock()
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks = [*self._marks[-29:], (now, done)]

    def shown(self) -> dict[str, Any]:
        """As JSON: what is done, of how much, and the time left at the rate of the last half minute."""
        body: dict[str, Any] = {"done": self.done, "of": self.of, "unit": self.unit, **self.facts}
        if len(self._marks) > 1:
            (then, before), (now, done) = self._marks[0], self._marks[-1]
            if done > before and now > then and self.of >= done:  # of how much may not be known
                body["etaSeconds"] = round((self.of - self.done) * (now - then) / (done - before))
        return body


@dataclass(frozen=True)
class Work:
    """One stage to do."""

    plan: Plan
    stage: Stage
    digest: str
    root: Folder
    """The store, which all jobs share: what two of them rest on alike is done once."""
    folder: Folder
    """The stage's own: its outcome, and what it keeps to go on after an interruption."""
    inputs: Mapping[Stage, Folder]
    """Folders of the stages that this one reads, all complete."""
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the program is asked to end: a stage makes durable what it has, and raises TryAgain."""

    def sealed(self) -> Folder:
        """Where the looks at sealed sets are kept, by all jobs of the store."""
        return self.root.sub("sealed")

    def check(self) -> None:
        """Stop here if asked to."""
        if self.stop.is_set():
            raise TryAgain("interrupted: what is durable is kept", reason="Interrupted")


@dataclass(frozen=True)
class Result:
    """What a stage hands back."""

    outputs: tuple[str, ...]
    """Files of its folder that are its outcome, the rest being means."""
    summary: str
    """In one line, for status."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Figures for status and report: small, and the same for the same inputs."""
    spend: Mapping[str, Any] = field(default_factory=dict)
    """`promptTokens`, `answerTokens`, `costMicros`, `currency`, `inDoubt`; not part of the outcome's hash."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What happened on the way, interruptions for one; not part of the outcome's hash."""


Run = Callable[[Work], Result]
