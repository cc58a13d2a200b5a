"""What a model is asked: the body of a request, and the key that its answer is known by. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modeltiers.domain.distill.stages import hash_of

FORMAT: Final = 1
"""Changes when a newer program would ask otherwise for the same row."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn: the same for every row of a stage."""

    temperature_milli: int
    max_tokens: int
    top_logprobs: int = 0
    """Alternatives asked for at each token; 0 asks for no logprobs at all."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to be had: a row's, with the number of the sample."""

    key: str
    row: str
    sample: int
    body: bytes
    """As it is sent."""

    @property
    def prompt_bytes(self) -> int:
        """Size of what the model reads, give or take the few fields around it."""
        return len(self.body)


def body_of(model: str, row: Mapping[str, Any], sampling: Sampling, system: str | None = None) -> dict[str, Any]:
    """The body of a chat completion for a row; messages and tools stand in it exactly as they are in the row."""
    body: dict[str, Any] = {"model": model, "messages": with_system(row["messages"], system)}
    if row.get("tools"):
        body["tools"] = row["tools"]
    body["temperature"] = sampling.temperature_milli / 1000
    body["max_tokens"] = sampling.max_tokens
    if sampling.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return body


def renamed(body: bytes) -> bytes:
    """The same request for a server that knows the longest answer by its newer name, `max_completion_tokens`."""
    given = json.loads(body)
    given["max_completion_tokens"] = given.pop("max_tokens")
    return json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()


def with_system(messages: Sequence[Any], system: str | None) -> list[Any]:
    """The messages, with a system message in front where there is none and one is given."""
    has = any(message.get("role") in ("system", "developer") for message in messages)
    return list(messages) if has or system is None else [{"role": "system", "content": system}, *messages]


def key_of(body: Mapping[str, Any], sample: int) -> str:
    """What an answer is known by: the body, the model in it, and the sample's number."""
    return hash_of({"format": FORMAT, "body": body, "sample": sample})


def requests_of(
    model: str, row: Mapping[str, Any], sampling: Sampling, samples: int, system: str | None = None
) -> list[Request]:
    """The requests for one row, sample by sample."""
    body = body_of(model, row, sampling, system)
    sent = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return [Request(key_of(body, sample), str(row["id"]), sample, sent) for sample in range(samples)]
