"""One question put to an SDK and what the SDK made of the reply, in a form that two languages share.

Knows neither SDK; `python` and `node` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Endpoint = Literal["chat", "completions", "embeddings", "models"]
How = Literal["create", "helper", "parse"]
"""`create` is the plain call; `helper` the SDK's accumulator of streams; `parse` its structured output."""


@dataclass(frozen=True)
class Fault:
    """The error that the SDK raised: the name of its class, and what it tells a program."""

    kind: str
    status: int | None
    message: str
    code: str | None
    param: str | None
    type: str | None


@dataclass(frozen=True)
class Seen:
    """What came of one question."""

    result: dict[str, Any] | None = None
    """The whole reply, or what the helper put together."""
    parsed: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    """The chunks of a stream, as the SDK gave them."""
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the router, without the prefix."""
    fault: Fault | None = None

    @property
    def text(self) -> str:
        """The answer's text, streamed or not."""
        if self.result is not None:
            return str(self.result["choices"][0]["message"]["content"])
        return "".join(c["delta"].get("content") or "" for event in self.events for c in event["choices"])

    @property
    def finish(self) -> str | None:
        """The first choice's finish reason."""
        if self.result is not None:
            found: str | None = self.result["choices"][0]["finish_reason"]
            return found
        reasons = [c["finish_reason"] for event in self.events for c in event["choices"] if c["finish_reason"]]
        return reasons[-1] if reasons else None


@dataclass(frozen=True)
class Asking:
    """One question. `leave_after`: close a stream after so many chunks."""

    base: str
    body: Mapping[str, Any]
    endpoint: Endpoint = "chat"
    how: How = "create"
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str = "unused"
    retries: int = 0
    seconds: float = 30
    leave_after: int | None = None


class Sdk(Protocol):
    """An SDK at work."""

    name: str

    def ask(self, asking: Asking) -> Seen:
        """Put one question."""
