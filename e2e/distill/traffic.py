"""A client of a policy that asks, until it is told to stop, questions of the task that no model ever saw."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import httpx

from e2e.train import task

SEED: Final = 99
QUESTIONS: Final = 400


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one question."""

    at: float
    """On the monotonic clock."""
    decision: str
    """What the policy decided; empty when there was no answer."""
    right: bool


@dataclass(eq=False)
class Traffic:
    """Questions at a steady pace, each a conversation of its own, one after the other."""

    url: str
    model: str
    pause: float = 1.0
    """Seconds between an answer and the next question; may be changed on the way."""
    answers: list[Answered] = field(default_factory=list)
    """From the first answer on: before it, the tiers are on their way up."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Traffic:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(90)

    def since(self, began: float) -> list[Answered]:
        """What was answered from a time on."""
        return [one for one in self.answers if one.at >= began]

    @property
    def failed(self) -> int:
        """Questions that nobody answered."""
        return sum(not one.decision for one in self.answers)

    def _run(self) -> None:
        rows = task.make_rows(QUESTIONS, SEED)
        with httpx.Client(timeout=60, trust_env=False) as client:
            number = 0
            while not self._stop.wait(self.pause):
                answered = self._ask(client, rows[number % len(rows)], number)
                number += 1
                if self.answers or answered.decision:
                    self.answers.append(answered)

    def _ask(self, client: httpx.Client, row: dict[str, Any], number: int) -> Answered:
        body = {"model": self.model, "messages": row["messages"], "max_tokens": 16, "user": f"user-{number}"}
        try:
            reply = client.post(f"{self.url}/v1/chat/completions", json=body)
            text = reply.json()["choices"][0]["message"]["content"] if reply.status_code == httpx.codes.OK else ""
        except (httpx.HTTPError, ValueError):
            return Answered(time.monotonic(), "", right=False)
        decision = reply.headers.get("x-modeltiers-decision", "") if text else ""
        return Answered(time.monotonic(), decision, row["expected"] in text)


def told(answers: Sequence[Answered]) -> str:
    """Counts in words."""
    words = Counter(one.decision for one in answers if one.decision)
    counts = [f"{count} {word}" for word, count in words.most_common()]
    right, failed = sum(one.right for one in answers), sum(not one.decision for one in answers)
    return f"{len(answers)} questions: {', '.join(counts)}, {right} answered rightly, {failed} failed"
