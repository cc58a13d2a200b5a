"""One attempt's reply as it comes in: checked, cut into events or kept whole, and handed to the exchange.

What a tier sends is not trusted to be an answer: a 200 must be a stream where one was asked for, and a whole JSON
object without an error otherwise. A reply that failed reaches nobody any more, even when more of it is still in hand.
"""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw, Struct

from modeltiers.domain.routing.ask import ABSENT
from modeltiers.router import sse
from modeltiers.router.connection import BROKEN, Failure, Head
from modeltiers.router.metrics import Book
from modeltiers.router.replies import error_body
from modeltiers.router.upstream import Address, Attempt, Pool

EVENTS: Final = "text/event-stream"
CODED: Final = "coded"
REPLY_BYTES: Final = 32 * 2**20
"""The longest reply that is held until it is whole."""


class Usage(Struct):
    """What a tier says it counted."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class Choice(Struct):
    """How a choice ended, and its logprobs as they are written."""

    finish_reason: str | None = None
    logprobs: Raw = ABSENT


class Metered(Struct):
    """The part of a reply, or of a stream's event, that is looked at whatever the policy."""

    usage: Usage | None = None
    choices: list[Choice] | None = None
    error: Raw = ABSENT


class Loose(Struct):
    """The same where the choices have a shape that nobody here knows."""

    usage: Usage | None = None
    choices: list[Raw] | None = None
    error: Raw = ABSENT


class Ended(Struct):
    """The part of a reply that says how its choices ended."""

    choices: list[Choice] | None = None


CUT: Final = frozenset({"abort", "error"})
"""Finish reasons of an answer that is not whole."""
_ENDED: Final = msgspec.json.Decoder(Ended)
_METERED: Final = msgspec.json.Decoder(Metered)
_LOOSE: Final = msgspec.json.Decoder(Loose)
_ERROR: Final = msgspec.json.Decoder(dict[str, Any])


class Consumer(Protocol):
    """Who wants the reply of an attempt."""

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        """Take one event of a stream: its bytes, its data, and what of it is metered, if anything."""

    def done(self, reading: Reading, event: bytes) -> None:
        """Take the event that ends a stream."""

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        """Take a whole reply: an answer, or a refusal that is the client's own fault."""

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        """Learn that the attempt brings no answer, or not the rest of it."""


class Silent:
    """A consumer that wants nothing any more."""

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        """Take nothing."""

    def done(self, reading: Reading, event: bytes) -> None:
        """Take nothing."""

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        """Take nothing."""

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        """Take nothing."""


SILENT: Final = Silent()


class Reading:
    """The reply of one attempt on one tier."""

    __slots__ = (
        "_events",
        "_fresh",
        "_head",
        "_parts",
        "_request",
        "_size",
        "_stream",
        "answered",
        "attempt",
        "book",
        "consumer",
        "dead",
        "pool",
        "started",
        "tier",
    )

    def __init__(self, consumer: Consumer, book: Book, pool: Pool, request: list[bytes], *, stream: bool) -> None:
        """`book` is where whoever gets the reply counts it."""
        self.consumer: Consumer = consumer
        self.book, self.tier, self.pool, self._request, self._stream = book, pool.tier, pool, request, stream
        self._head: Head | None = None
        self._events: sse.Splitter | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._fresh = False
        self.answered = self.dead = False
        self.attempt: Attempt = pool.attempt(request, self)
        self.started = time.monotonic()

    def start(self, avoid: Address | None = None) -> bool:
        """Send the request; False when no address takes it now."""
        return self.attempt.start(avoid)

    def abort(self) -> None:
        """End the attempt; nothing more reaches the consumer."""
        self.dead = True
        self.attempt.abort()

    def let_go(self) -> None:
        """Drop what it holds, so that nothing waits for the garbage collector: a reply may be large."""
        self.attempt.forget()
        self.consumer = SILENT
        self._parts, self._request = [], []

    # -- what the connection says ---------------------------------------------------------------------------------

    def upstream_head(self, head: Head) -> None:
        """Judge how the tier answers."""
        self._head = head
        form, status = head.form, head.status
        if form is None:
            form = head.form = form_of(head)
        if form == CODED or (status < 400 and (status != 200 or (form == EVENTS) != self._stream)):
            # What we cannot read we cannot judge or meter; or a stream that nobody asked for, or none where one was.
            self._give_up()
        elif form == EVENTS and status == 200:
            self._events = sse.Splitter()

    def upstream_data(self, data: bytes) -> None:
        """Take some of the reply."""
        if self.dead:
            return
        if self._events is None:
            self._size += len(data)
            if self._size > REPLY_BYTES:
                self._give_up()
            else:
                self._parts.append(data)
            return
        payload = self._events.alone(data)
        if payload is not None:
            self._take(data, payload)
            return
        try:
            events = self._events.feed(data)
        except sse.TooLong:
            self._give_up()
            return
        for event in events:
            if self._ended():
                return  # an event before it was the last
            self._take(event, sse.payload(event))

    def _ended(self) -> bool:
        return self.dead

    def _take(self, event: bytes, data: bytes) -> None:
        metered = None
        if data == sse.DONE:
            if not self.answered:
                self._give_up()  # the end of nothing
                return
            self.dead = True
            self.consumer.done(self, event)
            return
        odd = b'"error"' in data  # a quote within a text has a backslash before it
        if odd or b'"usage"' in data:
            metered = read_metered(data)
            if memoryview(metered.error) and metered.choices is None:
                self._give_up()
                return
        if (odd or b'"abort"' in data) and was_cut(data):
            self._give_up()
            return
        if data:
            self.answered = True
        self.consumer.event(self, event, data, metered)

    def upstream_end(self) -> None:
        """Finish: a stream is whole only if it said so, and a 200 only if it is a JSON object without an error."""
        head = self._head
        if self.dead or head is None:
            return
        if self._events is not None:
            last = self._events.last()
            if last:
                self._take(last, sse.payload(last))
            if not self._ended():
                self._fail(BROKEN, None, b"")
            return
        body = b"".join(self._parts)
        if head.status == 429 or head.status >= 500:
            self._fail(Failure(str(head.status)), head, body)
        elif head.status in (401, 403) and (self.tier.hop or self.tier.external is not None):
            self._fail(Failure("503"), None, b"")  # the key is ours, not the client's: it is not told of it
        elif head.status >= 400:
            self.dead = True
            self.consumer.whole(self, head, openai_error(head.status, body), Metered())
        elif (metered := whole_answer(body)) is None:
            if self.attempt.address is not None:
                self.attempt.address.failed()
            self._fail(BROKEN, None, b"")
        else:
            self.dead = True
            self.consumer.whole(self, head, body, metered)

    def upstream_failed(self, failure: Failure) -> None:
        """Try once more where the server closed an idle connection while the request was on its way; else fail."""
        if self.dead:
            return
        if failure == BROKEN and self.attempt.reused and self._head is None and not self._fresh:
            self._fresh = True
            self.attempt.forget()
            self.attempt = self.pool.attempt(self._request, self)
            if self.attempt.start(fresh=True):
                return
        self._fail(failure, None, b"")

    def _give_up(self) -> None:
        """End an attempt whose reply is no answer."""
        self.attempt.abort()
        if self.attempt.address is not None:
            self.attempt.address.failed()
        self._fail(BROKEN, None, b"")

    def _fail(self, failure: Failure, head: Head | None, body: bytes) -> None:
        self.dead = True
        self.consumer.failed(self, failure, head, body)


def form_of(head: Head) -> str:
    """Return the media type of a reply's body, CODED where it has a coding: we asked for none."""
    if head.get(b"content-encoding") not in (None, b"identity"):
        return CODED
    return (head.get(b"content-type") or b"").partition(b";")[0].strip().lower().decode("latin-1")


def read_metered(data: bytes) -> Metered:
    """Return what is metered of an event; nothing when it is not in a form that we know."""
    try:
        return _METERED.decode(data)
    except msgspec.ValidationError:
        return _loosely(data) or Metered()
    except (msgspec.DecodeError, RecursionError):
        return Metered()


def _loosely(data: bytes) -> Metered | None:
    try:
        found = _LOOSE.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    choices = None if found.choices is None else [Choice() for _ in found.choices]
    return Metered(found.usage, choices, found.error)


def whole_answer(body: bytes) -> Metered | None:
    """Return what is metered of a whole reply, or nothing when it is no JSON object, or one that holds an error."""
    try:
        found = _METERED.decode(body)
    except msgspec.ValidationError:
        loose = _loosely(body)
        if loose is None:
            return Metered() if body.lstrip(b" \t\r\n").startswith(b"{") and _is_json(body) else None
        found = loose
    except (msgspec.DecodeError, RecursionError):
        return None
    for choice in found.choices or ():
        if choice.finish_reason in CUT:
            return None
    failed = found.error is not ABSENT and bytes(found.error) != b"null"
    return None if failed and not found.choices else found


def was_cut(data: bytes) -> bool:
    """Whether an engine says that it ended an answer before its end: vLLM does so, with 200, when it is told to end."""
    try:
        choices = _ENDED.decode(data).choices
    except (msgspec.DecodeError, RecursionError):
        return False
    return any(choice.finish_reason in CUT for choice in choices or ())


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def openai_error(status: int, body: bytes) -> bytes:
    """Return a tier's refusal in OpenAI's shape: as it came if it has it, else with the words found in it."""
    try:
        said: Any = _ERROR.decode(body)
    except (msgspec.DecodeError, RecursionError):
        said = {}
    error = said.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return body
    return error_body(status, message_of(said) or "the tier refused the request")


def message_of(said: Any) -> str:
    """Return what an engine says is wrong, in any of the shapes that engines use."""
    for key in ("error", "detail", "message"):
        said = said.get(key, said) if isinstance(said, dict) else said
    return said[:1000] if isinstance(said, str) else ""


def message_in(body: bytes) -> str:
    """Return what an engine's reply says is wrong; empty when it says nothing that we understand."""
    try:
        return message_of(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return ""
