"""Target: how the router reads and changes bodies, and what it decides of them.

What must hold: a body that is taken is JSON for Python's reader too, each field where and what that one says; changed
fields are changed and every other byte stays; reading fields, seeing and choosing raise nothing but a refusal.
"""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any, Final

import msgspec

from e2e.fuzz.router.target import demand, spoil
from modeltiers.domain.routing.ask import BadRequest, Endpoint, media_urls, read_request
from modeltiers.domain.routing.choose import CompiledPolicy, Load, choose
from modeltiers.domain.routing.see import see
from modeltiers.domain.routing.table import read_table
from modeltiers.router.wire import BadBody, Body

ENDPOINTS: Final[tuple[Endpoint, ...]] = ("chat", "completions", "embeddings")
CHANGES: Final = {"model": b'"changed"', "stream_options": b'{"include_usage":true}', "logprobs": b"true"}
WORDS: Final = (
    b'"model":',
    b'"model":"support"',
    b'"mod\\u0065l":"x"',
    b'"messages":',
    b'"messages":[{"role":"user","content":"x"}]',
    b'"prompt":"x"',
    b'"prompt":[1,2]',
    b'"input":["x"]',
    b'"stream":true',
    b'"n":2',
    b'"n":1e400',
    b'"max_tokens":-1',
    b'"max_tokens":99999999999999999999',
    b'"tools":[{}]',
    b'"tool_choice":"none"',
    b'"response_format":{"type":"json_schema"}',
    b'"metadata":{"team":"legal"}',
    b'"user":"u"',
    b'"stop":["a","b"]',
    b'{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}',
    b'{"role":"tool","content":"x"}',
    b"null",
    b"true",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud83d\\ude00",
    b"\\ud800",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-0",
    b"1e5",
    b" \t\r\n",
)
TABLE: Final = {
    "formatVersion": 1,
    "tiers": [
        {"name": "small", "address": "127.0.0.1:1", "contextTokens": 64},
        {"name": "middle", "address": "127.0.0.1:2", "can": {"tools": False, "images": True}},
        {"name": "large", "address": "127.0.0.1:3", "can": {"embeddings": True}, "contextTokens": 100_000},
    ],
    "policies": [
        {
            "name": "support",
            "model": "support",
            "tiers": ["small", "middle", "large"],
            "mode": "Hybrid",
            "session": {},
            "score": {"thresholdPermille": 300},
            "override": {"tiers": ["large"]},
            "rules": [
                {"name": "words", "when": {"keywords": ["refund", "court"]}, "risk": "High", "floor": "large"},
                {"name": "pattern", "when": {"patterns": ["(a+)+b"]}, "tier": "middle"},
                {"name": "team", "when": {"metadata": [{"key": "team", "values": ["legal"]}]}, "tier": "large"},
            ],
        }
    ],
}


class Bodies:
    """Bodies as bytes."""

    name = "bodies"

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        table = read_table(TABLE)
        self._policy = CompiledPolicy(table, table.policies[0])

    def make(self, dice: Random) -> bytes:
        """Return a body, spoiled."""
        text = json.dumps(
            _body(dice),
            ensure_ascii=dice.random() < 0.5,
            separators=dice.choice(((",", ":"), (", ", ": "), (" ,\n", "\t: "))),
        )
        return spoil(text.encode("utf-8", "surrogatepass"), dice, WORDS)

    def check(self, data: bytes, dice: Random) -> None:
        """Read it, change it, decide on it."""
        try:
            body = Body(data)
        except BadBody as error:
            demand(str(error), "a refusal says why")
            self.seen["refused"] += 1
            body = None
        pairs = _pairs(data)
        if body is None:
            demand(pairs is None or _may_be_refused(data), "a good body is refused")
        else:
            demand(pairs is not None, "what is no JSON object, or says a field twice, is taken")
            self._compare(body, dict(pairs or ()))
        self._decide(data, dice, taken=body is not None)

    def _compare(self, body: Body, fields: dict[str, Any]) -> None:
        self.seen["taken"] += 1
        spans = body.spans()
        demand(list(spans) == list(fields), f"fields {list(spans)}, Python's: {list(fields)}")
        for key, (begin, end) in spans.items():
            demand(_value(body.raw[begin:end]) == fields[key], f"the field {key!r} is not where it is said to be")
        changed = body.with_changes(CHANGES)
        expected = fields | {key: _value(value) for key, value in CHANGES.items()}
        demand(dict(_pairs(changed) or ()) == expected, f"changed into {changed!r}")
        for key, (begin, end) in Body(changed).spans().items():
            if key not in CHANGES:
                at, to = spans[key]
                demand(changed[begin:end] == body.raw[at:to], f"the bytes of {key!r} were changed")
        demand(body.with_changes({}) == body.raw, "changed by no change")

    def _decide(self, data: bytes, dice: Random, *, taken: bool) -> None:
        try:
            request = read_request(dice.choice(ENDPOINTS), data)
        except BadRequest as error:
            demand(error.message, "a refusal says why")
            return
        if not taken:
            return  # the router reads fields only of a body that it took
        media_urls(request)
        headers = {"x-modeltiers-tier": "large"} if dice.random() < 0.3 else {}
        ask = see(self._policy, request, headers, "id")
        again = msgspec.json.decode(msgspec.json.encode(ask), type=type(ask))
        ready = dice.random() < 0.5
        for load in (Load((True, ready, True)), Load((False, ready, False))):
            choice = choose(self._policy, ask, load)
            demand(choice == choose(self._policy, again, load), "decided otherwise from what a record keeps")
            demand(bool(choice.tiers) != (choice.refused is not None), f"neither sent nor refused: {choice}")
            demand(set(choice.tiers) <= {"small", "middle", "large"}, f"sent to nobody: {choice}")
            self.seen[choice.reason] += 1


def _pairs(data: bytes) -> list[tuple[str, Any]] | None:
    """Return the fields as Python reads them, numbers as written; None for what is no object, or has a field twice."""
    try:
        value = _value(data, top=True)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, Pairs) or len({key for key, _ in value.items}) < len(value.items):
        return None
    return [(key, _plain(one)) for key, one in value.items]


class Pairs:
    """An object's members in order, with those given twice."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def _plain(value: Any) -> Any:
    if isinstance(value, Pairs):
        return {key: _plain(one) for key, one in value.items}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _value(data: bytes, *, top: bool = False) -> Any:
    """Read JSON as Python does, strictly; raises ValueError."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError("a byte order mark")
    found = json.loads(
        data.decode(), parse_int=_number, parse_float=_number, parse_constant=_refuse, object_pairs_hook=Pairs
    )
    return found if top else _plain(found)


def _number(text: str) -> tuple[str, str]:
    return ("number", text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _may_be_refused(data: bytes) -> bool:
    """Whether the router may be stricter than Python: halves of characters, and depth."""
    return b"\\ud" in data.lower() or data.count(b"[") + data.count(b"{") > 500


def _body(dice: Random) -> dict[str, Any]:
    text = dice.choice(
        ("hi", "", "a refund before the court", "aaaaaaaaab", "Grüße 你好 😀", 'quotes " and \\ and /', "x" * 400)
    )
    fields: dict[str, Any] = {
        "model": dice.choice(("support", "other", "é")),
        "messages": [{"role": dice.choice(("user", "system", "tool")), "content": _content(dice, text)}],
        "prompt": dice.choice((text, [text, text], [1, 2, 3], [[1], [2]])),
        "input": text,
        "stream": dice.random() < 0.5,
        "n": dice.choice((1, 2, 128)),
        "max_tokens": dice.choice((1, 100, 10**6)),
        "temperature": dice.choice((0, 0.7, 1e-7, -1)),
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "stream_options": {"include_usage": dice.random() < 0.5, "x": None},
        "response_format": {"type": dice.choice(("text", "json_object", "json_schema"))},
        "metadata": {"team": "legal"},
        "logprobs": True,
        "user": "u",
        "unknown": {"a": [1, {"b": [[], {}]}], "": None},
        "ключ": "é",
    }
    return dict(dice.sample(list(fields.items()), dice.randrange(1, 9)))


def _content(dice: Random, text: str) -> Any:
    url = dice.choice(("data:image/png;base64,AA", "http://127.0.0.1/", "https://img.test/a.png"))
    return dice.choice(
        (text, text, [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}], None)
    )
