"""What a server's reply to a chat completion means: an answer, or what went wrong and what that calls for. Pure.

Servers that call themselves compatible say all sorts of things: nothing in a reply is believed unseen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import orjson

SHOWN: Final = 200
"""Characters of a server's own words that are passed on."""
TRUNCATED: Final = "length"
WITHHELD: Final = "content_filter"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")
_SECRET: Final = re.compile(r"\b(sk|key|hf|Bearer)[-_ ][A-Za-z0-9_*.-]{6,}")


class Call(Enum):
    """What a failed try calls for."""

    AGAIN = auto()
    """It may go another time."""
    DROP = auto()
    """This row cannot be answered."""
    STOP = auto()
    """No row can, until somebody changes something."""


class Kind(Enum):
    """What went wrong."""

    BUSY = "the server has too much to do"
    SERVER = "the server failed"
    TIMEOUT = "no answer in time"
    CONNECTION = "the connection failed"
    GARBAGE = "the reply is no chat completion"
    REFUSED = "the server refuses the request"
    KEY = "the key is refused"
    MODEL = "the model or the path is unknown there"
    MOVED = "the server redirects"
    QUOTA = "the account may not spend more"
    UNTRUSTED = "the server's certificate is not trusted"


@dataclass(frozen=True, slots=True)
class Failure:
    """A try without an answer."""

    call: Call
    kind: Kind
    said: str = ""
    """The server's own words, cut and cleaned."""
    after: float | None = None
    """Seconds that the server wants to be left alone."""
    paid: bool = False
    """Whether it may have been paid for."""

    @property
    def why(self) -> str:
        """In one line."""
        return f"{self.kind.value}: {self.said}" if self.said else self.kind.value

    @property
    def likeness(self) -> tuple[Kind, str]:
        """Equal for failures that are alike but for numbers in them."""
        return self.kind, re.sub(r"\d+", "0", self.said)


@dataclass(frozen=True, slots=True)
class Answer:
    """A chat completion as it came: its one choice, and who gave it."""

    choice: dict[str, Any]
    model: str
    fingerprint: str | None
    usage: tuple[int, int] | None
    """Tokens of prompt and answer, where the server says."""


_BUSY: Final = (429, 503, 529)
_AGAIN: Final = (408, 409, 425)
_STOP: Final = {401: Kind.KEY, 403: Kind.KEY, 402: Kind.QUOTA, 404: Kind.MODEL}


def read(status: int, headers: Mapping[str, str], body: bytes) -> Answer | Failure:
    """What a reply means; `headers` in lower case."""
    if status == 200:
        return _answer(body)
    if 200 < status < 300:
        return _garbage(f"status {status}")
    if 300 <= status < 400:
        return Failure(Call.STOP, Kind.MOVED, f"{status} to {clean(headers.get('location', 'nowhere'))}")
    said = f"{status} {words(body)}".strip()
    if status == 429 and ("insufficient_quota" in said or "billing" in said.lower()):
        return Failure(Call.STOP, Kind.QUOTA, said)
    if status in _AGAIN or status in _BUSY or status >= 500:
        kind = Kind.BUSY if status in _BUSY else Kind.SERVER
        return Failure(Call.AGAIN, kind, said, after=retry_after(headers))
    if status in _STOP:
        return Failure(Call.STOP, _STOP[status], said)
    return Failure(Call.DROP, Kind.REFUSED, said)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of Retry-After; a date is not read, since clocks differ."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if 0 <= seconds < 1e9:
            return seconds
    return None


def words(body: bytes) -> str:
    """A server's own words in an error's body, fit to be shown."""
    try:
        found = orjson.loads(body)
    except ValueError:
        return clean(body[:2000].decode(errors="replace"))
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    if isinstance(found, dict):
        found = found.get("type") or found.get("code") or ""
    return clean(found if isinstance(found, str) else orjson.dumps(found).decode())


def clean(text: str) -> str:
    """Text of others, cut, in one line, without what may be a key."""
    flat = _SECRET.sub("[key]", _CONTROL.sub(" ", text)).strip()
    return flat if len(flat) <= SHOWN else flat[: SHOWN - 1] + "…"


def _garbage(said: str) -> Failure:
    return Failure(Call.AGAIN, Kind.GARBAGE, said, paid=True)


def _answer(body: bytes) -> Answer | Failure:
    try:
        found = orjson.loads(body)
    except ValueError:
        return _garbage(f"not JSON: {clean(body[:60].decode(errors='replace'))}")
    if not isinstance(found, dict):
        return _garbage("not an object")
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return _garbage("no choices")
    choice = choices[0]
    if wrong := _wrong(choice):
        return _garbage(wrong)
    model, fingerprint = found.get("model"), found.get("system_fingerprint")
    if not isinstance(model, str) or not model:
        return _garbage("no model")
    return Answer(choice, model, fingerprint if isinstance(fingerprint, str) else None, _usage(found.get("usage")))


def _wrong(choice: Mapping[str, Any]) -> str | None:
    message = choice.get("message")
    if not isinstance(message, dict):
        return "no message"
    if not isinstance(message.get("content"), str | None):
        return "the content is not text"
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
        return "the tool calls are not of their form"
    if not isinstance(choice.get("finish_reason"), str):
        return "no finish_reason"
    try:
        logprobs_of(choice)
    except (TypeError, KeyError, ValueError, AttributeError):
        return "the logprobs are not of their form"
    return None


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _usage(given: Any) -> tuple[int, int] | None:
    if not isinstance(given, dict):
        return None
    found = given.get("prompt_tokens"), given.get("completion_tokens", 0)
    whole = all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 10**9 for count in found)
    return found if whole else None  # type: ignore[return-value]  # both were looked at just above


Token = dict[str, Any]


def message_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A choice's message: role, content, and tool calls and reasoning where there are any."""
    given = choice["message"]
    kept = {"role": "assistant", "content": given.get("content")}
    if given.get("tool_calls"):
        kept["tool_calls"] = given["tool_calls"]
    reasoning = given.get("reasoning_content") or given.get("reasoning")
    if isinstance(reasoning, str):
        kept["reasoning_content"] = reasoning
    return kept


def logprobs_of(choice: Mapping[str, Any]) -> list[Token] | None:
    """The tokens' log-probabilities; None where none came."""
    given = choice.get("logprobs")
    content = given.get("content") if given is not None else None
    if not content:
        return None
    return [
        {
            "token": str(token["token"]),
            "logprob": float(token["logprob"]),
            "top": [[str(other["token"]), float(other["logprob"])] for other in token.get("top_logprobs") or ()],
        }
        for token in content
    ]
