"""What a judged attempt asks of the tier beyond the client's wish, and how that is taken out of the reply again.

Bytes are cut where a value begins and ends; all others stay as they were. What the logprobs mean is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct

from modeltiers.domain.routing.ask import ABSENT, Endpoint, Request

if TYPE_CHECKING:
    from modeltiers.domain.routing.accept import CompiledAccept
    from modeltiers.domain.routing.question import Question

_KEY: Final = b'"logprobs"'
_TOPS: Final = b'"top_logprobs"'
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Choice(Struct, gc=False):
    logprobs: Raw = ABSENT


class _Reply(Struct, gc=False):
    choices: list[_Choice] | None = None


class _Token(Struct, gc=False):
    top_logprobs: Raw = ABSENT


class _Content(Struct, gc=False):
    content: list[_Token] | None = None
    top_logprobs: Raw = ABSENT


_REPLY: Final = msgspec.json.Decoder(_Reply).decode
_CONTENT: Final = msgspec.json.Decoder(_Content).decode
_LIST: Final = msgspec.json.Decoder(list[Raw]).decode
_DICTS: Final = msgspec.json.Decoder(list[dict[str, float | None] | None]).decode
_ENTRIES: Final = msgspec.json.Decoder(list[dict[str, Raw] | None]).decode


def wanted(compiled: CompiledAccept, endpoint: Endpoint, request: Request) -> dict[str, bytes]:
    """Return the fields to set in the body of a judged attempt, as JSON; none where the client asked for enough."""
    confidence = compiled.accept.confidence
    if confidence is None or endpoint == "embeddings":
        return {}
    top, asked = confidence.top, int(request.logprobs or 0)
    if endpoint == "completions":
        missing = request.logprobs is None or request.logprobs is False or asked < top
        return {"logprobs": b"%d" % max(top, asked)} if missing else {}
    fields: dict[str, bytes] = {}
    if not request.logprobs:
        fields["logprobs"] = b"true"
    if (request.top_logprobs or 0) < top:
        fields["top_logprobs"] = b"%d" % top
    return fields


def as_asked(question: Question, endpoint: Endpoint, data: bytes, logprobs: Iterable[Raw] = ()) -> bytes:
    """Return a reply, or the data of an event, with the logprobs that the client asked for and no others.

    `logprobs` are those of its choices, each in its turn, where somebody has read them already; else they are read.
    """
    if not question.logprobs:
        return strip_logprobs(data, endpoint, logprobs)
    return trim_logprobs(data, endpoint, question.top_logprobs, logprobs)


def strip_logprobs(data: bytes, endpoint: Endpoint, logprobs: Iterable[Raw] = ()) -> bytes:
    """Return a reply, or the data of an event, with null for each choice's logprobs; as it was if it cannot be read."""
    if endpoint == "embeddings":
        return data
    at = data.find(_KEY)
    if at < 0 or (data.startswith(b":null", at + 10) and data.find(_KEY, at + 10) < 0):
        return data  # as most events of most streams
    found = _values(data, logprobs)
    return _replaced(data, _KEY, [(value, b"null") for value in found]) if found else data


def trim_logprobs(data: bytes, endpoint: Endpoint, top: int, logprobs: Iterable[Raw] = ()) -> bytes:
    """Return a reply, or the data of an event, with at most so many alternatives at each token."""
    if endpoint == "embeddings" or _KEY not in data or _TOPS not in data:
        return data
    shorten = _shorter_chat if endpoint == "chat" else _shorter_text
    found = _values(data, logprobs)
    return _replaced(data, _KEY, [(value, shorten(value, top)) for value in found]) if found else data


def _values(data: bytes, logprobs: Iterable[Raw]) -> list[bytes]:
    """Return the logprobs of all choices that have some, in their order, as they are written."""
    found = [value for raw in logprobs if (value := bytes(raw)) not in (b"", b"null")]
    if found:
        return found
    try:
        choices = _REPLY(data).choices or ()
    except _FAULTS:
        return []
    return [value for choice in choices if (value := bytes(choice.logprobs)) not in (b"", b"null")]


def _replaced(data: bytes, key: bytes, changes: list[tuple[bytes, bytes]]) -> bytes:
    """Replace the values of a key, each in its turn.

    In JSON a quoted key cannot occur inside a text, where quotes are escaped: so the place of each value is where the
    key and the very bytes of the value follow one another.
    """
    pieces, begin, at = list[bytes](), 0, 0
    for old, new in changes:
        while True:
            at = data.find(key, at)
            if at < 0:
                return data
            at += len(key)
            place = at + 1 if data.startswith(b":{", at) else _value_at(data, at)
            if place and data.startswith(old, place):
                break
        pieces += (data[begin:place], new)
        begin = at = place + len(old)
    pieces.append(data[begin:])
    return b"".join(pieces)


def _value_at(data: bytes, at: int) -> int:
    """Return where the value of the key that ends here begins; 0 when it is no key."""
    while data[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
        at += 1
    if data[at : at + 1] != b":":
        return 0
    at += 1
    while data[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
        at += 1
    return at


def _shorter_chat(value: bytes, top: int) -> bytes:
    try:
        tokens = _CONTENT(value).content or ()
        changes = []
        for token in tokens:
            old = bytes(token.top_logprobs)
            if old[:1] == b"[":
                entries = _LIST(old)
                short = b"[" + b",".join(map(bytes, entries[:top])) + b"]"
                changes.append((old, short if len(entries) > top else old))
    except _FAULTS:
        return value
    return _replaced(value, _TOPS, changes)


def _shorter_text(value: bytes, top: int) -> bytes:
    """Return logprobs of completions as vLLM gives them for fewer alternatives: the token itself and the best ones."""
    try:
        old = bytes(_CONTENT(value).top_logprobs)
        if old[:1] != b"[":
            return value
        numbers, raws = _DICTS(old), _ENTRIES(old)
    except _FAULTS:
        return value
    written = [_best(chances, raw, top) for chances, raw in zip(numbers, raws, strict=True)]
    return _replaced(value, _TOPS, [(old, b"[" + b",".join(written) + b"]")])


def _best(chances: dict[str, Any] | None, raws: dict[str, Raw] | None, top: int) -> bytes:
    if chances is None or raws is None:
        return b"null"
    best = sorted(chances, key=lambda name: -1e308 if chances[name] is None else chances[name], reverse=True)[:top]
    kept = [name for place, name in enumerate(chances) if place == 0 or name in best]
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + bytes(raws[name]) for name in kept) + b"}"
