"""Record what a real engine sends, byte for byte, so that fast tests need not guess.

Three files a capture in `tests/router/captures`: NAME.request.json is the body that was posted, NAME.http the whole
reply as it came from the socket with its head and its chunk framing, NAME.json or NAME.sse the body alone. ENGINE.json
tells which engine it was and how it was started.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e2e.cluster.report import HarnessError, say
from e2e.engine import environment
from e2e.engine.server import Engine, started
from e2e.engine.tiny import Answer, write_random, write_scripted

CAPTURES = Path(__file__).parents[2] / "tests" / "router" / "captures"

# Its own, not the ladder's: what tests expect of a capture must not move when a tier learns a new sentence.
ANSWERS = (
    Answer('<tool_call>\n{"name": "get_weather", "arguments": {"town": 7}}\n</tool_call>', certainty=0.9, tools=True),
    Answer("<think>\nSix times seven.\n</think>\n\nSo it makes 42.", certainty=0.9, asked="think"),
    Answer("I do not know, perhaps 17 or so.", certainty=0.25, asked="hard"),
    Answer("Well, this began as a good reply, yet who can tell how such a story ends?", (0.95, 0.2), asked="fade"),
    Answer('{"answer": 42}', certainty=0.95, asked="JSON"),
    Answer("Sure: {answer = 42", certainty=0.95, asked="broken"),
    Answer("The answer is 42.", certainty=0.95),
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": ANSWER}}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}

KINDS = {b"text/event-stream": "sse", b"text/plain": "prom"}
"""What the body of a reply is, by its content type; else it is JSON."""

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def _asks(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": text}], **more}


CALLED = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
TOLD = [
    {"role": "user", "content": "How is the weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
]

SCRIPTED: dict[str, tuple[str, Any]] = {
    "chat": (CHAT, _asks("six times seven?")),
    "chat-logprobs": (CHAT, _asks("six times seven?", **LOGPROBS)),
    "chat-stream": (CHAT, _asks("six times seven?", stream=True)),
    "chat-stream-logprobs-usage": (CHAT, _asks("six times seven?", **LOGPROBS, **STREAM)),
    "chat-unsure-logprobs": (CHAT, _asks("a hard one", **LOGPROBS)),
    "chat-fading-stream-logprobs": (CHAT, _asks("fade", logprobs=True, **STREAM)),
    "chat-continuous-usage": (
        CHAT,
        _asks("x", stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    ),
    "chat-length": (CHAT, _asks("six times seven?", max_tokens=3, **LOGPROBS)),
    "chat-stop-string": (CHAT, _asks("six times seven?", stop=["is"], **LOGPROBS)),
    "chat-n2-stream": (CHAT, _asks("six times seven?", n=2, temperature=0.7, seed=1, **STREAM)),
    "tool-call": (CHAT, _asks("How is the weather in Paris?", tools=[WEATHER], **LOGPROBS)),
    "tool-call-stream": (CHAT, _asks("How is the weather in Paris?", tools=[WEATHER], **LOGPROBS, **STREAM)),
    "tool-call-required": (CHAT, _asks("Weather?", tools=[WEATHER], tool_choice="required", max_tokens=64)),
    "tool-result": (CHAT, {"model": "small", "messages": TOLD, "tools": [WEATHER]}),
    "json-schema": (CHAT, _asks("in JSON", response_format=SCHEMA, **LOGPROBS)),
    "json-schema-stream": (CHAT, _asks("in JSON", response_format=SCHEMA, **LOGPROBS, **STREAM)),
    "completions": (TEXT, {"model": "small", "prompt": "six times seven?"}),
    "completions-logprobs": (TEXT, {"model": "small", "prompt": "six times seven?", "logprobs": 2}),
    "completions-stream-logprobs": (TEXT, {"model": "small", "prompt": "six?", "logprobs": 2, **STREAM}),
    "completions-echo": (TEXT, {"model": "small", "prompt": "six?", "logprobs": 1, "echo": True, "max_tokens": 2}),
    "completions-two-prompts": (TEXT, {"model": "small", "prompt": ["six?", "seven?"], "max_tokens": 3}),
    "error-400-max-tokens": (CHAT, _asks("x", max_tokens=-1)),
    "error-400-too-long": (CHAT, _asks("word " * 2000)),
    "error-400-logprobs": (CHAT, _asks("x", top_logprobs=2)),
    "error-400-n": (CHAT, _asks("x", n=2)),
    "error-400-schema": (CHAT, {"model": "small"}),
    "error-400-not-json": (CHAT, "{not json"),
    "error-400-stream": (CHAT, _asks("x", max_tokens=-1, stream=True)),
    "error-404-model": (CHAT, _asks("x") | {"model": "nobody"}),
    "error-404-path": ("/v1/nothing", {"model": "small"}),
    "error-404-embeddings": ("/v1/embeddings", {"model": "small", "input": "Hello"}),
    "models": ("/v1/models", None),
    "metrics": ("/metrics", None),  # the last: it counts what was asked before
}
REASONING: dict[str, tuple[str, Any]] = {
    "reasoning": (CHAT, _asks("think", **LOGPROBS)),
    "reasoning-stream": (CHAT, _asks("think", **LOGPROBS, **STREAM)),
}
RANDOM: dict[str, tuple[str, Any]] = {
    "random-logprobs": (CHAT, _asks("Hello", logprobs=True, top_logprobs=5, max_tokens=24, seed=3)),
    "random-stream-logprobs": (CHAT, _asks("Hello", **LOGPROBS, **STREAM, max_tokens=40, seed=3)),
}
POOLED: dict[str, tuple[str, Any]] = {
    "embeddings": ("/v1/embeddings", {"model": "small", "input": ["Hello", "six times seven?"]}),
    "embeddings-base64": ("/v1/embeddings", {"model": "small", "input": "Hello", "encoding_format": "base64"}),
    "error-404-chat": (CHAT, _asks("x")),
}


def main(names: Sequence[str] = ()) -> None:
    """Record everything, replacing what was there, or these captures alone."""
    if not names:
        shutil.rmtree(CAPTURES, ignore_errors=True)
        CAPTURES.mkdir(parents=True)
    began: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="modeltiers-record-") as scratch:
        for pair in _engines(Path(scratch), names):
            for engine, captures in started_with(pair):
                began |= dict.fromkeys(captures, " ".join(engine.args))
                for name, (path, body) in captures.items():
                    _record(engine, name, path, body)
                engine.stop()
    if unknown := set(names) - set(began):
        raise HarnessError(f"there is no capture {', '.join(sorted(unknown))}; see {__file__}")
    file = CAPTURES / "ENGINE.json"
    before = json.loads(file.read_text())["started with"] if names else {}
    facts = {**environment.facts(), "date": time.strftime("%Y-%m-%d"), "started with": before | began}
    facts.pop("seconds")
    file.write_text(json.dumps(facts, indent=1) + "\n")
    say(f"recorded {len(began)} replies of vLLM {facts['vllm']} in {CAPTURES}")


Captures = dict[str, tuple[str, Any]]


def started_with(pair: list[tuple[Engine, Captures]]) -> list[tuple[Engine, Captures]]:
    """Start these engines together: two at once is what a small machine holds."""
    started([engine for engine, _ in pair])
    return pair


def _engines(folder: Path, names: Sequence[str]) -> list[list[tuple[Engine, Captures]]]:
    """Return the engines that are needed, in pairs, each with what is asked of it."""
    scripted = write_scripted(folder / "scripted", ANSWERS)
    nonsense = write_random(folder / "random", sureness=1.0, seed=5)

    def engine(model: Path, log: str, **settings: Any) -> Engine:
        return Engine(model, "small", log=folder / f"{log}.log", **settings)

    pairs = [
        [
            (engine(scripted, "scripted", tools=True), SCRIPTED),
            (engine(scripted, "reasoning", tools=True, reasoning_parser="qwen3"), REASONING),
        ],
        [
            (engine(nonsense, "random"), RANDOM),
            (engine(nonsense, "pooled", args=("--runner", "pooling")), POOLED),
        ],
    ]
    wanted = [[(one, {n: c[n] for n in c if not names or n in names}) for one, c in pair] for pair in pairs]
    return [[(one, captures) for one, captures in pair if captures] for pair in wanted]


def _record(engine: Engine, name: str, path: str, body: Any) -> None:
    text = body if isinstance(body, str) else json.dumps(body, indent=1)
    if body is not None:
        (CAPTURES / f"{name}.request.json").write_text(text + "\n")
    raw = exchange(engine.port, path, None if body is None else text.encode())
    head, _, rest = raw.partition(b"\r\n\r\n")
    content = unchunked(rest) if b"transfer-encoding: chunked" in head.lower() else rest
    refused = head.split(b" ", 2)[1] != b"200"
    if refused != name.startswith("error-"):
        raise HarnessError(f"{name} was answered with {head.splitlines()[0].decode()}: {content.decode()[:500]}")
    kind = next((kind for sign, kind in KINDS.items() if sign in head.lower()), "json")
    for old in (*KINDS.values(), "json"):
        (CAPTURES / f"{name}.{old}").unlink(missing_ok=True)
    (CAPTURES / f"{name}.http").write_bytes(raw)
    (CAPTURES / f"{name}.{kind}").write_bytes(content)
    say(f"  {name}: {head.splitlines()[0].decode()}, {len(content)} bytes")


def exchange(port: int, path: str, body: bytes | None, timeout: float = 60) -> bytes:
    """Send one request on a connection of its own and return every byte that comes back."""
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout) as line:
        line.sendall(f"{head}\r\n".encode() + (body or b""))
        return b"".join(iter(lambda: line.recv(65536), b""))


def unchunked(content: bytes) -> bytes:
    """Return the content of a chunked body that is whole."""
    out, at = b"", 0
    while found := re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n").match(content, at):
        size = int(found[1], 16)
        if size == 0:
            return out
        out += content[found.end() : found.end() + size]
        at = found.end() + size + 2
    raise ValueError("a chunked body without its end")
