"""One request's life: judged, sent to a tier, answered, or sent to the next one as long as no answer has begun.

The contract for streams: before the first event of an answer a failure goes to the next tier and the client sees
nothing of it; after it nothing switches, and a stream that breaks ends with an error event and without [DONE]. A reply
that is no stream is held until it is whole.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct

from modeltiers.domain.routing.ask import ABSENT, Endpoint
from modeltiers.domain.routing.ask import Request as Fields
from modeltiers.domain.routing.choose import Choice, CompiledPolicy
from modeltiers.domain.routing.table import Tier
from modeltiers.router import sse
from modeltiers.router.replies import JSON, Refusal, error_body, error_event
from modeltiers.router.server import Client
from modeltiers.router.server import Request as HttpRequest
from modeltiers.router.upstream import BROKEN, CONNECT, TIMEOUT, Address, Attempt, Failure, Head
from modeltiers.router.wire import Body

if TYPE_CHECKING:
    from modeltiers.router.router import Router

EVENTS: Final = b"text/event-stream"
REPLY_BYTES: Final = 32 * 2**20
"""The longest reply that is held until it is whole."""
COOL_SECONDS: Final = 30.0
"""The longest that an address is left alone because it said Retry-After."""
PATHS: Final[dict[Endpoint, bytes]] = {
    "chat": b"/v1/chat/completions",
    "completions": b"/v1/completions",
    "embeddings": b"/v1/embeddings",
}


class Usage(Struct):
    """What a tier says it counted."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class UsageOnly(Struct):
    """The part of a reply or of a stream's event that is metered."""

    usage: Usage | None = None
    choices: list[Raw] | None = None
    error: Raw = ABSENT


_METERED: Final = msgspec.json.Decoder(UsageOnly)


class Accepted(Struct):
    """A request that was judged and found good: what is sent, where, and for whom."""

    http: HttpRequest
    endpoint: Endpoint
    policy: CompiledPolicy
    body: Body
    fields: Fields
    choice: Choice
    changes: dict[str, bytes]
    key: str
    request_id: str
    began: float


class Exchange:
    """Answers one accepted request."""

    __slots__ = (
        "_address",
        "_attempt",
        "_begun",
        "_calls",
        "_done",
        "_events",
        "_failure",
        "_fresh",
        "_head",
        "_held",
        "_index",
        "_last",
        "_own_usage",
        "_parts",
        "_router",
        "_size",
        "_started",
        "_tier",
        "accepted",
        "client",
        "usage",
    )

    def __init__(self, router: Router, client: Client, accepted: Accepted) -> None:
        self._router, self.client, self.accepted = router, client, accepted
        self._index = -1
        self._calls = 0
        self._attempt: Attempt | None = None
        self._address: Address | None = None
        self._tier: Tier | None = None
        self._failure: tuple[Failure, Head | None, bytes] | None = None
        self._begun = self._done = self._fresh = False
        self._started = self._last = 0.0
        self.usage = Usage()
        options = accepted.fields.stream_options or {}
        wants = "include_usage" in options and bytes(memoryview(options["include_usage"])) == b"true"
        self._own_usage = bool(accepted.fields.stream) and not wants and accepted.endpoint != "embeddings"
        self._reset()

    def _reset(self) -> None:
        self._head: Head | None = None
        self._events: sse.Splitter | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._held = b""

    # -- attempts -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the request to the first tier that takes it; raises Refusal when none does."""
        if not self._next():
            raise self._unanswered()

    def _next(self) -> bool:
        """Try the tiers that are left; False when none takes the request."""
        choice = self.accepted.choice
        while self._index + 1 < len(choice.tiers):
            self._index += 1
            self._fresh = False
            if self._try(None):
                return True
        return False

    def _try(self, avoid: Address | None, *, fresh: bool = False) -> bool:
        accepted, router = self.accepted, self._router
        name = accepted.choice.tiers[self._index]
        tier = accepted.policy.ladder[accepted.policy.place(name)]
        self._reset()
        self._tier = tier
        attempt = Attempt(router.pool(tier), self._request(tier), self)
        if not attempt.start(avoid, fresh=fresh):
            return False
        self._attempt, self._address = attempt, attempt.address
        self._calls += 1
        self._started = time.monotonic()
        return True

    def _request(self, tier: Tier) -> list[bytes]:
        """Return the request for a tier: a fresh head, and the client's body with what must change."""
        accepted = self.accepted
        changes = dict(accepted.changes)
        if tier.model is not None and tier.model != accepted.fields.model:
            changes["model"] = msgspec.json.encode(tier.model)
        if self._own_usage:
            options = dict(accepted.fields.stream_options or {})
            options["include_usage"] = Raw(b"true")
            changes["stream_options"] = msgspec.json.encode(options)
        body = accepted.body.with_changes(changes) if changes else accepted.body.raw
        headers = accepted.http.headers
        lines = [
            b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (PATHS[accepted.endpoint], (tier.address or "").encode()),
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            b"x-request-id: %b\r\n" % accepted.request_id.encode(),
        ]
        lines += [b"%b: %b\r\n" % (name, headers[name]) for name in (b"traceparent", b"tracestate") if name in headers]
        lines.append(b"\r\n")
        return [b"".join((*lines, body))] if len(body) < 16_384 else [b"".join(lines), body]

    # -- what the tier says ---------------------------------------------------------------------------------------

    def upstream_head(self, head: Head) -> None:
        """Learn how the tier answers."""
        self._head = head
        kind = (head.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        if head.get(b"content-encoding") not in (None, b"identity"):
            self._give_up(BROKEN)  # we asked for none; what we cannot read we cannot judge or meter
        elif (head.status == 200 and kind == EVENTS) != bool(self.accepted.fields.stream and head.status == 200):
            self._give_up(BROKEN)  # a stream that nobody asked for, or none where one was
        elif head.status == 200 and kind == EVENTS:
            self._events = sse.Splitter()
        elif 300 <= head.status < 400:
            self._give_up(BROKEN)

    def upstream_data(self, data: bytes) -> None:
        """Take some of the answer."""
        if self._done:
            return
        if self._events is None:
            self._size += len(data)
            if self._size > REPLY_BYTES:
                self._give_up(BROKEN)
            else:
                self._parts.append(data)
            return
        try:
            events = self._events.feed(data)
        except sse.TooLong:
            self._give_up(BROKEN)
            return
        for event in events:
            if self._ended():
                return  # an event before it was the last
            self._event(event)

    def _ended(self) -> bool:
        return self._done

    def _event(self, event: bytes) -> None:
        """Relay one event of a stream, byte for byte, unless it is ours alone."""
        data = sse.payload(event)
        if b'"usage"' in data or b'"error"' in data:
            metered = _metered(data)
            if memoryview(metered.error) and metered.choices is None:
                self._give_up(BROKEN)
                return
            if metered.usage is not None:
                self.usage = metered.usage
                if self._own_usage and metered.choices == []:
                    return
        now, router = time.monotonic(), self._router
        if self._begun:
            router.metrics.between[self._labels()].observe(now - self._last)
            self.client.send(event)
        elif not data:
            self._held += event  # a comment is no answer yet
            return
        else:
            self._begun = True
            router.metrics.first[self._labels()].observe(now - self.accepted.began)
            kind = (b"content-type", b"text/event-stream; charset=utf-8")
            headers = (kind, (b"cache-control", b"no-cache"), *self._headers())
            self.client.begin(200, headers, self._held + event)
        self._last = now
        if data == sse.DONE:
            self.client.end()
            self._close("Answered")

    def upstream_end(self) -> None:
        """Finish: a whole reply is sent now, a stream is whole only if it said so."""
        head = self._head
        if head is None or self._done:
            return
        if self._events is not None:
            rest = self._events.rest()
            if rest:
                self._event(rest)
            if not self._ended():
                self._fail(BROKEN, None, b"")
            return
        body = b"".join(self._parts)
        if head.status == 429 or head.status >= 500:
            self._cool(head)
            self._fail(Failure(str(head.status)), head, body)
            return
        self._answer(head, body)

    def upstream_failed(self, failure: Failure) -> None:
        """Go to the next tier, or tell the client the truth."""
        if self._done:
            return
        attempt = self._attempt
        stale = attempt is not None and attempt.reused and self._head is None and failure == BROKEN and not self._fresh
        if stale and not self._begun:
            # The server closed an idle connection while the request was on its way: it was never read.
            self._fresh = True
            self._calls -= 1
            if self._try(None, fresh=True):
                return
        self._fail(failure, None, b"")

    def _give_up(self, failure: Failure) -> None:
        """End the attempt at hand and treat it as failed."""
        if self._attempt is not None:
            self._attempt.abort()
        if self._address is not None:
            self._address.failed()
        self._fail(failure, None, b"")

    def _fail(self, failure: Failure, head: Head | None, body: bytes) -> None:
        router, tier = self._router, self._tier
        assert tier is not None
        router.metrics.attempts[tier.name, failure] += 1
        router.metrics.upstream[self._labels()].observe(time.monotonic() - self._started)
        self._failure = failure, head, body
        if self._begun:
            self.client.send(error_event(f"tier {tier.name} broke off its answer; ask again"))
            self.client.end()
            self._close("Broken")
            return
        policy = self.accepted.policy.policy
        if failure in policy.fallback.on and self._calls < policy.escalation.max_calls:
            if (
                failure == CONNECT
                and router.retry(tier, policy.fallback.retry_share_permille)
                and self._try(self._address)
            ):
                return
            if self._next():
                return
        refusal = self._unanswered()
        self.client.reply(
            refusal.status, [(b"content-type", JSON), *refusal.headers(), *self._headers()], refusal.body()
        )
        self._close("Failed")

    def _unanswered(self) -> Refusal:
        """Return what the client is told when no tier answered."""
        if self._failure is None:
            return Refusal(503, "no tier takes requests now; try again", code="no_tier_ready", retry_after=1)
        failure, head, body = self._failure
        said = _message(body) if head is not None else ""
        name = self._tier.name if self._tier is not None else "the tier"
        if failure == TIMEOUT:
            return Refusal(504, f"tier {name} did not answer in time", code="upstream_timeout", retry_after=1)
        if head is None:
            word = "could not be reached" if failure == CONNECT else "broke off its answer"
            return Refusal(502, f"tier {name} {word}; try again", code="upstream_error", retry_after=1)
        wait = _seconds(head.get(b"retry-after"))
        return Refusal(
            head.status, said or f"tier {name} answered {failure}", code="upstream_error", retry_after=wait or 1
        )

    def _answer(self, head: Head, body: bytes) -> None:
        """Send a whole reply."""
        router = self._router
        if head.status == 200:
            metered = _metered(body)
            self.usage = metered.usage or self.usage
            router.metrics.first[self._labels()].observe(time.monotonic() - self.accepted.began)
        elif head.status >= 400 and not body.lstrip().startswith(b'{"error":{'):
            body = error_body(head.status, _message(body) or "the tier refused the request")
        kind = (b"content-type", head.get(b"content-type") or JSON)
        self.client.reply(head.status, (kind, *self._headers()), body)
        self._close("Answered" if head.status < 400 else "Rejected")

    # -- what the client does -------------------------------------------------------------------------------------

    def gone(self) -> None:
        """Stop the tier at once: nobody waits for its answer."""
        if self._attempt is not None:
            self._attempt.abort()
        self._close("ClientLeft")

    def pause(self) -> None:
        """Read no faster than the client does."""
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        """Read on."""
        if self._attempt is not None:
            self._attempt.resume()

    def expire(self) -> None:
        """End what a shutdown does not wait for, truthfully."""
        if self._attempt is not None:
            self._attempt.abort()
        if self._begun:
            self.client.send(error_event("the server is shutting down; ask again"))
            self.client.end()
        else:
            refusal = Refusal(503, "the server is shutting down; ask again", code="draining", retry_after=1)
            self.client.reply(refusal.status, [(b"content-type", JSON), *refusal.headers()], refusal.body())
        self._close("Drained")

    # -- ends -------------------------------------------------------------------------------------------------------

    def _cool(self, head: Head) -> None:
        wait = _seconds(head.get(b"retry-after"))
        if wait and self._address is not None:
            self._address.cool(min(wait, COOL_SECONDS))

    def _labels(self) -> tuple[str, str]:
        assert self._tier is not None
        return self.accepted.policy.policy.name, self._tier.name

    def _headers(self) -> list[tuple[bytes, bytes]]:
        accepted, tier = self.accepted, self._tier
        return [
            (b"x-modeltiers-tier", tier.name.encode() if tier is not None else b""),
            (b"x-modeltiers-decision", b"Fallback" if self._index > 0 else b"Chosen"),
            (b"x-modeltiers-reason", accepted.choice.reason.encode()),
            (b"x-request-id", accepted.request_id.encode()),
        ]

    def _close(self, outcome: str) -> None:
        """Count the end of the request, once."""
        self._done = True
        if self._attempt is None and self._tier is None:
            return
        self._attempt = None
        router, accepted = self._router, self.accepted
        policy, tier = self._labels()
        metrics = router.metrics
        metrics.requests[policy, tier, outcome, accepted.choice.reason] += 1
        if outcome == "Answered":
            metrics.attempts[tier, "Answered"] += 1
            metrics.upstream[policy, tier].observe(time.monotonic() - self._started)
        if self.usage.prompt_tokens:
            metrics.tokens[policy, tier, "prompt"] += self.usage.prompt_tokens
            metrics.tokens[policy, tier, "completion"] += self.usage.completion_tokens or 0
        router.finished(self)


def _metered(body: bytes) -> UsageOnly:
    try:
        return _METERED.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return UsageOnly()


def _message(body: bytes) -> str:
    """Return what an engine says is wrong, in any of the shapes that engines use."""
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return ""
    for key in ("error", "detail", "message"):
        said = said.get(key, said) if isinstance(said, dict) else said
    return said[:1000] if isinstance(said, str) else ""


def _seconds(value: bytes | None) -> float:
    """Return a Retry-After in seconds; a date or nonsense is no number and gives 0."""
    return float(value) if value is not None and value.isdigit() and len(value) < 7 else 0.0
