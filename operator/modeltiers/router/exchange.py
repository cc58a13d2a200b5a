"""One request's life: sent to a tier, answered, or sent to the next one as long as no answer has begun.

The contract for streams: before the first event of an answer a failure goes to the next tier and the client sees
nothing of it; after it nothing switches, and a stream that breaks ends with an error event and without [DONE]. A reply
that is no stream is held until it is whole.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from modeltiers.domain.routing.ask import Endpoint
from modeltiers.domain.routing.ask import Request as Fields
from modeltiers.domain.routing.choose import Choice, CompiledPolicy
from modeltiers.domain.routing.table import Tier
from modeltiers.router.reading import Metered, Reading, Usage, message_in
from modeltiers.router.replies import JSON, Refusal, error_event
from modeltiers.router.server import Client
from modeltiers.router.server import Request as HttpRequest
from modeltiers.router.upstream import CONNECT, TIMEOUT, Address, Failure, Head
from modeltiers.router.wire import Body

if TYPE_CHECKING:
    from modeltiers.router.router import Router

COOL_SECONDS: Final = 30.0
"""The longest that an address is left alone because it said Retry-After."""
STREAM_HEADERS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
PATHS: Final[dict[Endpoint, bytes]] = {
    "chat": b"/v1/chat/completions",
    "completions": b"/v1/completions",
    "embeddings": b"/v1/embeddings",
}


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
        "_begun",
        "_calls",
        "_closed",
        "_failure",
        "_held",
        "_index",
        "_last",
        "_own_usage",
        "_reading",
        "_router",
        "_stream",
        "accepted",
        "client",
        "usage",
    )

    def __init__(self, router: Router, client: Client, accepted: Accepted) -> None:
        self._router, self.client, self.accepted = router, client, accepted
        self._index = -1
        self._calls = 0
        self._reading: Reading | None = None
        self._failure: tuple[Failure, Head | None, bytes] | None = None
        self._begun = self._closed = False
        self._last = 0.0
        self._held = b""
        self.usage = Usage()
        self._stream = bool(accepted.fields.stream) and accepted.endpoint != "embeddings"
        options = accepted.fields.stream_options or {}
        wants = "include_usage" in options and bytes(memoryview(options["include_usage"])) == b"true"
        self._own_usage = self._stream and not wants

    # -- attempts -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the request to the first tier that takes it; raises Refusal when none does."""
        if not self._next():
            raise self._unanswered()

    def _next(self) -> bool:
        """Try the tiers that are left; False when none takes the request."""
        while self._index + 1 < len(self.accepted.choice.tiers):
            self._index += 1
            if self._try(None):
                return True
        return False

    def _try(self, avoid: Address | None) -> bool:
        accepted = self.accepted
        tier = accepted.policy.ladder[accepted.policy.place(accepted.choice.tiers[self._index])]
        reading = Reading(self, tier, self._router.pool(tier), self._request(tier), stream=self._stream)
        if not reading.start(avoid):
            return False
        self._reading = reading
        self._held = b""
        self._calls += 1
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

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        """Relay one event of a stream, byte for byte, unless it is ours alone."""
        if metered is not None and metered.usage is not None:
            self.usage = metered.usage
            if self._own_usage and metered.choices == []:
                return
        now, metrics = time.monotonic(), self._router.metrics
        if self._begun:
            metrics.between[self._labels(reading)].observe(now - self._last)
            self.client.send(event)
        elif not payload:
            self._held += event  # a comment is no answer yet
            return
        else:
            self._begun = True
            metrics.first[self._labels(reading)].observe(now - self.accepted.began)
            self.client.begin(200, (*STREAM_HEADERS, *self._headers(reading)), self._held + event)
        self._last = now

    def done(self, reading: Reading, event: bytes) -> None:
        """End the stream as the tier did."""
        if not self._begun:  # all that came was ours alone
            self._begun = True
            self.client.begin(200, (*STREAM_HEADERS, *self._headers(reading)), self._held + event)
        else:
            self.client.send(event)
        self.client.end()
        self._close("Answered")

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        """Send a whole reply."""
        if head.status == 200:
            self.usage = metered.usage or self.usage
            self._router.metrics.first[self._labels(reading)].observe(time.monotonic() - self.accepted.began)
        self.client.reply(head.status, ((b"content-type", JSON), *self._headers(reading)), body)
        self._close("Answered" if head.status == 200 else "Rejected")

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        """Go to the next tier, or tell the client the truth."""
        router, tier, address = self._router, reading.tier, reading.attempt.address
        router.metrics.attempts[tier.name, failure] += 1
        router.metrics.upstream[self._labels(reading)].observe(time.monotonic() - reading.started)
        if head is not None and address is not None and (wait := _seconds(head.get(b"retry-after"))):
            address.cool(min(wait, COOL_SECONDS))
        self._failure = failure, head, body
        if self._begun:
            self.client.send(error_event(f"tier {tier.name} broke off its answer; ask again"))
            self.client.end()
            self._close("Broken")
        elif not self._falls_back(reading, failure):
            refusal = self._unanswered()
            headers = ((b"content-type", JSON), *refusal.headers(), *self._headers(reading))
            self.client.reply(refusal.status, headers, refusal.body())
            self._close("Failed")

    def _falls_back(self, reading: Reading, failure: Failure) -> bool:
        """Whether another attempt is under way; on the same tier only at another address, and within its budget."""
        policy = self.accepted.policy.policy
        if failure not in policy.fallback.on or self._calls >= policy.escalation.max_calls:
            return False
        tier, address = reading.tier, reading.attempt.address
        if failure == CONNECT and self._router.retry(tier, policy.fallback.retry_share_permille) and self._try(address):
            return True
        return self._next()

    def _unanswered(self) -> Refusal:
        """Return what the client is told when no tier answered."""
        if self._failure is None:
            return Refusal(503, "no tier takes requests now; try again", code="no_tier_ready", retry_after=1)
        failure, head, body = self._failure
        name = self._reading.tier.name if self._reading is not None else "the tier"
        if failure == TIMEOUT:
            return Refusal(504, f"tier {name} did not answer in time", code="upstream_timeout", retry_after=1)
        if head is None:
            word = "could not be reached" if failure == CONNECT else "broke off its answer"
            return Refusal(502, f"tier {name} {word}; try again", code="upstream_error", retry_after=1)
        said, wait = message_in(body) or f"tier {name} answered {failure}", _seconds(head.get(b"retry-after"))
        return Refusal(head.status, said, code="upstream_error", retry_after=wait or 1)

    # -- what the client does -------------------------------------------------------------------------------------

    def gone(self) -> None:
        """Stop the tier at once: nobody waits for its answer."""
        if self._reading is not None:
            self._reading.abort()
        self._close("ClientLeft")

    def pause(self) -> None:
        """Read no faster than the client does."""
        if self._reading is not None:
            self._reading.attempt.pause()

    def resume(self) -> None:
        """Read on."""
        if self._reading is not None:
            self._reading.attempt.resume()

    def expire(self) -> None:
        """End what a shutdown does not wait for, truthfully."""
        if self._reading is not None:
            self._reading.abort()
        if self._begun:
            self.client.send(error_event("the server is shutting down; ask again"))
            self.client.end()
        else:
            refusal = Refusal(503, "the server is shutting down; ask again", code="draining", retry_after=1)
            self.client.reply(refusal.status, ((b"content-type", JSON), *refusal.headers()), refusal.body())
        self._close("Drained")

    # -- ends -------------------------------------------------------------------------------------------------------

    def _labels(self, reading: Reading) -> tuple[str, str]:
        return self.accepted.policy.policy.name, reading.tier.name

    def _headers(self, reading: Reading) -> tuple[tuple[bytes, bytes], ...]:
        accepted = self.accepted
        return (
            (b"x-modeltiers-tier", reading.tier.name.encode()),
            (b"x-modeltiers-decision", b"Fallback" if self._index > 0 else b"Chosen"),
            (b"x-modeltiers-reason", accepted.choice.reason.encode()),
            (b"x-request-id", accepted.request_id.encode()),
        )

    def _close(self, outcome: str) -> None:
        """Count the end of the request, once."""
        reading = self._reading
        if self._closed or reading is None:
            return
        self._closed = True
        router, metrics = self._router, self._router.metrics
        policy, tier = self._labels(reading)
        metrics.requests[policy, tier, outcome, self.accepted.choice.reason] += 1
        if outcome == "Answered":
            metrics.attempts[tier, "Answered"] += 1
            metrics.upstream[policy, tier].observe(time.monotonic() - reading.started)
        if self.usage.prompt_tokens:
            metrics.tokens[policy, tier, "prompt"] += self.usage.prompt_tokens
            metrics.tokens[policy, tier, "completion"] += self.usage.completion_tokens or 0
        router.finished(self)


def _seconds(value: bytes | None) -> float:
    """Return a Retry-After in seconds; a date or nonsense is no number and gives 0."""
    return float(value) if value is not None and value.isdigit() and len(value) < 7 else 0.0
