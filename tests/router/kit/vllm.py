"""The wire format of vLLM: replies, events and errors, byte for byte as an engine writes them.

Knows nothing of sockets or of framing; what is made here is a body or one event of a stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

MODEL: Final = "tiny"
CREATED: Final = 1_790_000_000
DONE: Final = b"data: [DONE]\n\n"
Words = Sequence[str]


def compact(value: Any) -> bytes:
    """Encode as vLLM does: no spaces, text as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: %b\n\n" % compact(value)


def words(text: str) -> list[str]:
    """Cut a text into tokens: each word with the space before it."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def usage(prompt: int = 5, completion: int = 3) -> dict[str, Any]:
    """Return the usage object of a reply."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }


def logprob(token: str, value: float = -0.25, top: int = 0) -> dict[str, Any]:
    """Return one entry of `logprobs.content`."""
    others = [{"token": f"{token}{n}", "logprob": value - n, "bytes": [*f"{token}{n}".encode()]} for n in range(top)]
    return {"token": token, "logprob": value, "bytes": [*token.encode()], "top_logprobs": others}


def chat(text: str, *, logprobs: float | None = None, top: int = 0, n: int = 1, **changes: Any) -> bytes:
    """Return a whole chat reply; `changes` replace top-level fields, and one that is ... is left out."""
    tokens = words(text)
    content = None if logprobs is None else {"content": [logprob(token, logprobs, top) for token in tokens]}
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
    choices = [
        {"index": i, "message": message, "logprobs": content, "finish_reason": "stop", "stop_reason": None}
        for i in range(n)
    ]
    body = {
        "id": "chatcmpl-7f3a",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": "vllm-0.32.0-tp1-3f2a",
        "usage": usage(5, len(tokens) * n),
        "kv_transfer_params": None,
    }
    return compact({key: value for key, value in (body | changes).items() if value is not ...})


def chat_chunk(delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None, index: int = 0) -> bytes:
    """Return one event of a chat stream."""
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish, "token_ids": None}
    return event(_chunk([choice]))


def _chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-7f3a", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
    return {**head, "choices": choices, **more}


def chat_events(
    text: str, *, include_usage: bool = False, logprobs: float | None = None, top: int = 0, done: bool = True
) -> list[bytes]:
    """Return the events of a chat stream: the role, the words, the last word with its reason, usage if asked, DONE."""
    tokens = words(text)
    made = [chat_chunk({"role": "assistant", "content": ""})]
    for place, token in enumerate(tokens):
        said = None if logprobs is None else {"content": [logprob(token, logprobs, top)]}
        made.append(chat_chunk({"content": token}, finish="stop" if place == len(tokens) - 1 else None, logprobs=said))
    if include_usage:
        made.append(event(_chunk([], usage=usage(5, len(tokens)))))
    return [*made, DONE] if done else made


def completion(text: str, **changes: Any) -> bytes:
    """Return a whole reply of /v1/completions."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    body = {
        "id": "cmpl-7f3a",
        "object": "text_completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [choice],
        "usage": usage(5, len(words(text))),
    }
    return compact({key: value for key, value in (body | changes).items() if value is not ...})


def completion_events(text: str, *, include_usage: bool = False) -> list[bytes]:
    """Return the events of a stream of /v1/completions."""
    head = {"id": "cmpl-7f3a", "object": "text_completion", "created": CREATED, "model": MODEL}
    tokens = words(text)
    made = []
    for place, token in enumerate(tokens):
        finish = "stop" if place == len(tokens) - 1 else None
        made.append(event(head | {"choices": [{"index": 0, "text": token, "logprobs": None, "finish_reason": finish}]}))
    if include_usage:
        made.append(event(head | {"choices": [], "usage": usage(5, len(tokens))}))
    return [*made, DONE]


def embeddings(count: int = 1, size: int = 8) -> bytes:
    """Return a reply of /v1/embeddings."""
    vector = [round(math.sin(place + 1), 6) for place in range(size)]
    data = [{"index": index, "object": "embedding", "embedding": vector} for index in range(count)]
    tokens = {"prompt_tokens": 5 * count, "total_tokens": 5 * count, "completion_tokens": 0}
    return compact(
        {"id": "embd-7f3a", "object": "list", "created": CREATED, "model": MODEL, "data": data, "usage": tokens}
    )


def models(*names: str) -> bytes:
    """Return a reply of /v1/models."""
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "vllm", "root": name} for name in names]
    return compact({"object": "list", "data": data})


def error(status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> bytes:
    """Return vLLM's error object, whose code is a number."""
    return compact({"error": {"message": message, "type": kind, "param": param, "code": status}})


ENGINE_DIED: Final = event(
    {
        "error": {
            "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "type": "InternalServerError",
            "param": None,
            "code": 500,
        }
    }
)
"""What a stream of a dying engine ends with, before a DONE that is a lie."""
