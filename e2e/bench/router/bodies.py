"""What goes over the wire: requests as the OpenAI SDK serialises them, and answers as vLLM does.

Compact JSON, fields in the SDK's order, all of the SDK's headers: a client that sends less makes every proxy look
faster than it is. Pure, and the same bytes each time.
"""

from __future__ import annotations

import json
import random
from typing import Any, Final

MODEL: Final = "support"
"""The name that clients ask for; the tiers serve under others, so that the router has to change it."""
KEY: Final = "sk-bench-0123456789abcdef0123456789abcdef"
PATH: Final = "/v1/chat/completions"
USAGE_ASKED: Final = b'"include_usage":true'
HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 2.8.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.8.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "X-Stainless-Async": "async:asyncio",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Read-Timeout": "600",
    "Authorization": f"Bearer {KEY}",
}
_SYSTEM: Final = "You are a support assistant. Answer briefly and name the policy that applies."
_PROSE: Final = (
    "the order customer service please refund invoice number shipping late parcel account reset password "
    "how do I change address payment card declined subscription renew cancel plan upgrade answer explain "
    "policy returns days warranty device battery screen replace model serial"
)
_WORDS: Final = tuple(_PROSE.split())


def request(size: int, *, stream: bool = False, max_tokens: int = 256) -> bytes:
    """Return a chat request of about `size` bytes, never more: 3 messages below 5 kB, 31 above."""
    turns = 3 if size < 5_000 else 31
    empty = len(compact(_request([""] * turns, stream, max_tokens)))
    each = max(0, size - empty) // turns
    words = random.Random(size)  # noqa: S311  the same words each time are what is wanted
    return compact(_request([_prose(words, each) for _ in range(turns)], stream, max_tokens))


def _request(texts: list[str], stream: bool, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": _SYSTEM}]
    messages += [
        {"role": "assistant" if turn % 2 else "user", "content": text} for turn, text in enumerate(texts)
    ]  # the last one is the user's: the turns are odd
    made: dict[str, Any] = {"messages": messages, "model": MODEL, "max_tokens": max_tokens, "temperature": 0.2}
    return made | ({"stream": True} if stream else {})


def _prose(words: random.Random, size: int) -> str:
    text = " ".join(words.choice(_WORDS) for _ in range(size // 3 + 1))
    return text[:size].rstrip().ljust(size, ".")


def compact(value: Any) -> bytes:
    """Return JSON as the SDK writes it: without white space, and without escapes for what is not ASCII."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def answer(tokens: int = 59, *, top: int | None = None) -> bytes:
    """Return a whole chat completion as vLLM writes it; with logprobs and `top` alternatives a token, if asked for."""
    words = random.Random(1)  # noqa: S311  no secret
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _prose(words, 5 * tokens),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning_content": None,
    }
    logprobs = None if top is None else {"content": [_token(words, top) for _ in range(tokens)]}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop", "stop_reason": None}
    return compact(
        {
            "id": "chatcmpl-9a1f0c7e4b7d4c0f8a2e6d5b3c1a0f9e",
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": "support-small",
            "choices": [{**choice, "token_ids": None}],
            "service_tier": None,
            "system_fingerprint": None,
            "usage": _usage(tokens),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "kv_transfer_params": None,
        }
    )


def _token(words: random.Random, top: int) -> dict[str, Any]:
    """Return the logprobs of one token: its own, and those of the best, falling."""
    logprobs = sorted((-words.expovariate(0.8) for _ in range(max(1, top))), reverse=True)
    texts = [f" {words.choice(_WORDS)}" for _ in logprobs]
    best: list[dict[str, Any]] = [
        {"token": text, "logprob": one, "bytes": list(text.encode())} for text, one in zip(texts, logprobs, strict=True)
    ]
    return {**best[0], "top_logprobs": best[:top]}


def event(token: int, tokens: int) -> bytes:
    """Return one event of a stream: 0 is the role, then `tokens` words, then the end of the choice."""
    delta: dict[str, Any] = {"content": f" {_WORDS[token % len(_WORDS)]}"}
    if token == 0:
        delta = {"role": "assistant", "content": ""}
    elif token > tokens:
        delta = {"content": ""}
    reason = "length" if token > tokens else None
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _event([choice | ({"stop_reason": None} if reason else {}) | {"token_ids": None}], None)


def usage_event(tokens: int) -> bytes:
    """Return the event that says what a stream used."""
    return _event([], _usage(tokens))


def _event(choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
    chunk: dict[str, Any] = {
        "id": "chatcmpl-9a1f0c7e4b7d4c0f8a2e6d5b3c1a0f9e",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "support-small",
        "choices": choices,
    }
    return b"data: %b\n\n" % compact(chunk | ({"usage": usage} if usage else {}))


def _usage(completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 231,
        "total_tokens": 231 + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }


def head(length: int, host: str) -> bytes:
    """Return the head of a request with the SDK's headers."""
    lines = [f"POST {PATH} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in HEADERS.items())]
    return ("\r\n".join([*lines, f"Content-Length: {length}"]) + "\r\n\r\n").encode()
