"""One request's life: sent to a tier, answered or judged, or sent to the next one as long as no answer has begun.

The contract for streams: before the first event of an answer a failure goes to the next tier and the client sees
nothing of it; after it nothing switches, and a stream that breaks ends with an error event and without [DONE]. A reply
that is no stream is held until it is whole. How an answer is judged is `judging`'s business.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from modeltiers.domain.routing import record
from modeltiers.domain.routing.accept import Verdict
from modeltiers.domain.routing.choose import choose
from modeltiers.router.connection import BROKEN, CONNECT, TIMEOUT, Failure, Head
from modeltiers.router.judging import Judging
from modeltiers.router.limits import Ticket, Waiting
from modeltiers.router.metrics import Histogram
from modeltiers.router.outgoing import Accepted, render, wants_usage, with_usage
from modeltiers.router.reading import Metered, Reading, Usage, message_in
from modeltiers.router.replies import JSON_LINE, Refusal, error_event
from modeltiers.router.server import Client
from modeltiers.router.upstream import Address, Pool

if TYPE_CHECKING:
    from modeltiers.router.router import Router

NO_GAPS: Final = Histogram(())
COOL_SECONDS: Final = 30.0
"""The longest that an address is left alone because it said Retry-After."""
STREAM_LINES: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
Decision = Literal["Chosen", "Fallback", "Accepted", "Escalated", "Kept"]
"""Chosen: the tier that was chosen. Fallback: the one before it failed. Accepted: judged and found good enough.
Escalated: a lower tier's answer was found wanting. Kept: found wanting, but no tier above it could answer."""
Outcome = Literal["Answered", "Rejected", "Failed", "Broken", "Limited", "ClientLeft", "Drained"]
"""How a request ended."""


class Ending(Struct, frozen=True):
    """How a request ended, with which status, and on which tier; no tier when none was asked."""

    outcome: Outcome
    status: int
    tier: str


class Kept(Struct, frozen=True):
    """An answer that was found wanting, and is given all the same if no tier above it can answer."""

    index: int
    """Its tier's place in the choice."""
    attempt: int
    """Its place among the attempts."""
    judging: Judging
    verdict: Verdict


class Exchange:
    """Answers one accepted request."""

    __slots__ = (
        "_begun",
        "_calls",
        "_closed",
        "_failure",
        "_gaps",
        "_held",
        "_index",
        "_kept",
        "_last",
        "_own_usage",
        "_parked",
        "_reading",
        "_relayed",
        "_retried",
        "_revision",
        "_router",
        "_steady",
        "_stream",
        "_tier",
        "accepted",
        "attempts",
        "client",
        "decision",
        "flag",
        "reason",
        "ticket",
        "usage",
    )

    def __init__(self, router: Router, client: Client, accepted: Accepted) -> None:
        self._router, self.client, self.accepted = router, client, accepted
        self._index = -1
        self._calls = 0
        self._reading: Reading | None = None
        self._tier = ""
        self._revision: str | None = None
        self._steady = ""
        """The tier whose candidate has failed, so that its first revision is asked."""
        self._failure: tuple[Failure, Head | None, bytes] | None = None
        self._kept: Kept | None = None
        self._parked: Waiting | None = None
        self._begun = self._closed = self._retried = False
        self._last = 0.0
        self._relayed = 0
        """Events of a stream that the client got."""
        self._gaps = NO_GAPS
        self._held = b""
        self._stream = bool(accepted.fields.stream) and accepted.endpoint != "embeddings"
        self._own_usage = self._stream and not wants_usage(accepted.fields)
        self.ticket: Ticket | None = None
        self.attempts: list[record.Attempt] = []
        self.decision: Decision = "Chosen"
        self.reason: str = accepted.choice.reason
        self.flag: Verdict | None = None
        """What was found of an answer that was given before it was judged."""
        self.usage = Usage()

    # -- admission --------------------------------------------------------------------------------------------------

    def start(self, entered: Ticket | Waiting) -> None:
        """Send the request to the first tier that takes it, or wait in line; raises Refusal when none does."""
        if isinstance(entered, Waiting):
            self._parked = entered
            return
        self.ticket = entered
        try:
            if not self._next() and not self._park():
                raise self._unanswered()
        except Refusal:
            entered.leave(0, self._router.loop.time())
            raise

    def enter(self, entered: Ticket | Refusal) -> bool:
        """Go on after the line: choose anew, since the world may have changed; or be turned away."""
        self._parked = None
        if isinstance(entered, Refusal):
            self._refuse(entered, "Limited")
            return True
        accepted = self.accepted
        accepted.load = accepted.route.load(accepted.ask, self._router.loop.time())
        accepted.choice = choose(accepted.route.policy, accepted.ask, accepted.load)
        self.reason = accepted.choice.reason
        try:
            self.start(entered)
        except Refusal as refusal:
            self._refuse(refusal, "Failed")
        return True

    def _park(self) -> bool:
        """Wait for room on the first tier that is only full; raises Refusal when the line is full too."""
        router, now = self._router, self._router.loop.time()
        for name in self.accepted.choice.tiers:
            if self._pool(name).saturated(now):
                parked = router.park(self, name)
                if isinstance(parked, Refusal):
                    raise parked
                self._parked = parked
                return True
        return False

    def unpark(self, outcome: Ticket | Refusal) -> bool:
        """Try again now that there is room; False when there is none after all. Or give up."""
        if isinstance(outcome, Refusal):
            self._parked = None
            self._refuse(outcome, "Limited")
            return True
        self._index = -1
        if not self._next():
            return False
        self._parked = None
        return True

    # -- attempts -------------------------------------------------------------------------------------------------

    def _next(self) -> bool:
        """Try the tiers that are left; False when none takes the request."""
        while self._index + 1 < len(self.accepted.choice.tiers):
            self._index += 1
            if self._try():
                return True
        return False

    def _up(self) -> bool:
        """Try the tiers above, in order."""
        while self._index + 1 < self.accepted.choice.up:
            self._index += 1
            if self._try():
                return True
        return False

    def _judged(self) -> bool:
        """Whether this attempt's answer is judged: only where a tier above it may still be asked."""
        choice = self.accepted.choice
        most = self.accepted.route.policy.policy.escalation.max_calls
        return choice.cascade and self._index + 1 < choice.up and self._calls + 1 < most

    def _pool(self, tier: str) -> Pool:
        """Return the addresses of the tier's revision that the request gets."""
        candidate = tier in self.accepted.choice.candidates and tier != self._steady
        return self.accepted.route.pool(tier, candidate=candidate)

    def _try(self, avoid: Address | None = None, *, again: bool = False) -> bool:
        """Send the request to the tier at hand; `again` asks for an answer that was judged already."""
        accepted, router = self.accepted, self._router
        name = accepted.choice.tiers[self._index]
        pool = self._pool(name)
        tier = pool.tier
        route, changes = accepted.route, accepted.changes
        if self._own_usage:
            changes = {**changes, "stream_options": with_usage(accepted.fields)}
        judging = Judging(self, router, accepted) if accepted.choice.cascade and not again and self._judged() else None
        if judging is not None and tier.can.logprobs:
            changes = {**changes, **judging.wanted}
        request = render(accepted, tier, changes, router.sign(accepted, tier))
        book = router.metrics.books[route.policy.policy.name, name]
        reading = Reading(judging or self, book, pool, request, stream=self._stream)
        if not reading.start(avoid):
            reading.let_go()
            return False
        if self._reading is not None:
            self._drop()
        self._reading, self._tier = reading, name
        self._revision = route.revision(name, pool)
        self._held, self.usage = b"", Usage()
        self._calls += 1
        return True

    def _drop(self) -> None:
        """End the attempt at hand and let go of it."""
        reading, self._reading = self._reading, None
        if reading is None:
            return
        if isinstance(reading.consumer, Judging):
            reading.consumer.stop()
        if not reading.dead:  # else it has ended, or only the end of its framing is to come
            reading.abort()
        reading.let_go()
        self._router.freed(reading.tier)

    def _attempted(
        self,
        reading: Reading,
        outcome: record.Outcome,
        reason: str | None,
        status: int | None,
        judging: Judging | None = None,
    ) -> None:
        """Note how an attempt went."""
        if isinstance(reading.consumer, Judging):
            judging = reading.consumer
        usage, estimated = self._used(judging)
        metrics, name = self._router.metrics, reading.tier.name
        metrics.attempts[name, reason if outcome == "Failed" and reason else outcome] += 1
        revision = self.accepted.route.revision(name, reading.pool)
        if revision is not None:
            metrics.revisions[name, revision, outcome] += 1
        seconds = time.monotonic() - reading.started
        reading.book.upstream.observe(seconds)
        self.attempts.append(
            record.Attempt(  # by place: msgspec looks for each name among all
                name,
                outcome,
                reason,
                status,
                int(seconds * 1000),
                record.Usage(usage.prompt_tokens, usage.completion_tokens or 0),
                estimated,
                judging.evidence if judging is not None else None,
                judging.verdict if judging is not None else None,
                revision,
            )
        )

    def _used(self, judging: Judging | None) -> tuple[Usage, bool]:
        """Return what an attempt used, and whether that is an estimate: one that was stopped did cost all the same."""
        if judging is not None and not judging.committed:
            usage, tokens = judging.usage or Usage(), judging.tokens
        else:
            usage, tokens = self.usage, self._relayed - (self.accepted.endpoint == "chat")  # its first names the role
        if tokens <= 0 or usage.prompt_tokens or usage.completion_tokens:
            return usage, False
        return Usage(self.accepted.ask.prompt_tokens, tokens), True

    # -- what the tier says ---------------------------------------------------------------------------------------

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        """Relay one event of a stream, byte for byte, unless it is ours alone."""
        if metered is not None and metered.usage is not None:
            self.usage = metered.usage
            if self._own_usage and metered.choices == []:
                return
        now = time.monotonic()
        self._relayed += 1
        if self._begun:
            self._gaps.observe(now - self._last)
            self.client.send(event)
        elif not payload:
            self._held += event  # a comment is no answer yet
            return
        else:
            self._begun = True
            reading.book.first.observe(now - self.accepted.began)
            self._gaps = reading.book.between
            self.client.begin(200, STREAM_LINES + self._lines(reading.tier.name), self._held + event)
        self._last = now

    def done(self, reading: Reading, event: bytes) -> None:
        """End the stream as the tier did."""
        if not self._begun:  # all that came was ours alone
            self._begun = True
            self.client.begin(200, STREAM_LINES + self._lines(reading.tier.name), self._held + event)
        else:
            self.client.send(event)
        self.client.end()
        self._answered(reading, 200)

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        """Send a whole reply; where a lower tier did answer, a refusal is not the client's fault."""
        refused = head.status != 200
        if refused:
            self._attempted(reading, "Rejected", None, head.status)
            if self._kept is not None and (self._up() or self._keep()):
                return
        else:
            self.usage = metered.usage or self.usage
            reading.book.first.observe(time.monotonic() - self.accepted.began)
        self.client.reply(head.status, JSON_LINE + self._lines(reading.tier.name), body)
        if refused:
            self._close("Rejected", head.status)
        else:
            self._answered(reading, 200)

    def _answered(self, reading: Reading, status: int) -> None:
        kept = self._kept
        if kept is not None and self.decision == "Kept" and kept.attempt < len(self.attempts):
            # Its attempt was noted when it was found wanting.
            self.attempts[kept.attempt] = msgspec.structs.replace(self.attempts[kept.attempt], outcome="Answered")
        else:
            self._attempted(reading, "Answered", None, status)
        self._close("Answered", status)

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        """Go to the next tier, or tell the client the truth."""
        address = reading.attempt.address
        # Other statuses speak of one request, not of the server.
        if head is not None and head.status in (429, 503) and address is not None:
            address.cool(min(_seconds(head.get(b"retry-after")), COOL_SECONDS))
        self._attempted(reading, "Failed", failure, head.status if head is not None else None)
        self._failure = failure, head, body
        if self._begun:
            self.client.send(error_event(f"tier {reading.tier.name} broke off its answer; ask again"))
            self.client.end()
            self._close("Broken", 200)
        elif not self._falls_back(reading, failure) and not self._keep():
            self._refuse(self._unanswered(), "Failed")

    def _falls_back(self, reading: Reading, failure: Failure) -> bool:
        """Whether another attempt is under way; on the same tier once, at another address, within its budget."""
        policy = self.accepted.route.policy.policy
        if failure not in policy.fallback.on or self._calls >= policy.escalation.max_calls:
            return False
        address = reading.attempt.address
        if failure == CONNECT and not self._retried and address is not None and reading.pool.others(address):
            self._retried = True
            if self._router.retry(reading.tier, policy.fallback.retry_share_permille) and self._try(address):
                self._calls -= 1  # nothing was called: no connection came about
                return True
        if self._to_first(reading):
            return True
        if self._kept is not None:
            return self._up()
        before, self.decision = self.decision, "Fallback"
        if self._next():
            return True
        self.decision = before
        return False

    def _to_first(self, reading: Reading) -> bool:
        """Whether the tier's first revision is asked in the place of its candidate, which has failed."""
        name = reading.tier.name
        if self.accepted.hops or name not in self.accepted.choice.candidates or name == self._steady:
            return False
        before, self._steady = self._steady, name
        if self._pool(name) is not reading.pool and self._try():
            self.decision = "Fallback"
            return True
        self._steady = before
        return False

    def _unanswered(self) -> Refusal:
        """Return what the client is told when no tier answered."""
        if self._failure is None:
            return Refusal(503, "no tier takes requests now; try again", code="no_tier_ready", retry_after=1)
        failure, head, body = self._failure
        name = self._tier or "the tier"
        if failure == TIMEOUT:
            return Refusal(504, f"tier {name} did not answer in time", code="upstream_timeout", retry_after=1)
        if head is None:
            word = {CONNECT: "could not be reached", BROKEN: "broke off its answer"}.get(failure, "takes no requests")
            return Refusal(502, f"tier {name} {word}; try again", code="upstream_error", retry_after=1)
        said, wait = message_in(body) or f"tier {name} answered {failure}", _seconds(head.get(b"retry-after"))
        return Refusal(head.status, said, code="upstream_error", retry_after=wait or 1)

    # -- what the judgement says ------------------------------------------------------------------------------------

    def commit(self, verdict: Verdict) -> None:
        """Give the answer at hand, as good enough; nothing switches after it."""
        self.reason = verdict.reason
        if self.decision != "Escalated":
            self.decision = "Accepted"

    def wanting(self, judging: Judging, verdict: Verdict) -> bool:
        """Ask a tier above; False when none can be asked, and then the answer at hand is given.

        An answer that has not come to its end is stopped only once another tier was asked.
        """
        reading, index = self._reading, self._index
        assert reading is not None
        self.reason = verdict.reason
        if not self._up():
            self._index, self.decision = index, "Kept"
            return False
        self.decision = "Escalated"
        self._kept = Kept(index, len(self.attempts), judging, verdict)
        self._attempted(reading, "Escalated" if judging.complete else "Abandoned", verdict.reason, 200, judging)
        return True

    def flagged(self, said: bytes, verdict: Verdict) -> None:
        """Say at the end of an answer that was given at once that it was found wanting."""
        self.flag = verdict
        self.client.send(said)

    def _keep(self) -> bool:
        """After the tiers above failed, give the answer that was found wanting; ask for it again if it was cut."""
        kept = self._kept
        if kept is None:
            return False
        self._index, self.decision, self.reason = kept.index, "Kept", kept.verdict.reason
        self._revision = self.attempts[kept.attempt].revision
        self._tier = self.accepted.choice.tiers[kept.index]
        if kept.judging.complete:
            kept.judging.give()
            return True
        self._kept = None
        return self._calls < self.accepted.route.policy.policy.escalation.max_calls and self._try(again=True)

    # -- what the client does -------------------------------------------------------------------------------------

    def gone(self) -> None:
        """Stop the tier at once: nobody waits for its answer."""
        self._leave("ClientLeft")
        self._close("ClientLeft", 499)

    def _leave(self, outcome: record.Outcome) -> None:
        if self._parked is not None:
            self._parked.cancel()
            self._parked = None
        reading = self._reading
        # One that is whole and still judged waits for a check that runs elsewhere.
        if reading is not None and (not reading.dead or isinstance(reading.consumer, Judging)):
            self._attempted(reading, outcome, None, None)

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
        self._leave("Drained")
        if self._begun:
            self.client.send(error_event("the server is shutting down; ask again"))
            self.client.end()
            self._close("Drained", 200)
        else:
            refusal = Refusal(503, "the server is shutting down; ask again", code="draining", retry_after=1)
            self._refuse(refusal, "Drained")

    # -- ends -------------------------------------------------------------------------------------------------------

    def _lines(self, tier: str) -> bytes:
        """Return the headers that say how the answer came to be given."""
        accepted = self.accepted
        revision = "" if self._revision is None else f"x-modeltiers-revision: {self._revision}\r\n"
        return (
            f"x-modeltiers-tier: {tier}\r\nx-modeltiers-decision: {self.decision}\r\n"
            f"x-modeltiers-reason: {self.reason}\r\nx-modeltiers-record: {accepted.id}\r\n"
            f"x-request-id: {accepted.request_id}\r\n{revision}"
        ).encode()

    def _refuse(self, refusal: Refusal, outcome: Outcome) -> None:
        """Tell the client why there is no answer."""
        accepted = self.accepted
        lines = (
            f"x-modeltiers-tier: {self._tier}\r\nx-modeltiers-record: {accepted.id}\r\n"
            f"x-request-id: {accepted.request_id}\r\n"
        )
        self.client.reply(refusal.status, refusal.lines() + lines.encode(), refusal.body())
        self._close(outcome, refusal.status)

    def _close(self, outcome: Outcome, status: int) -> None:
        """End, once: let go of everything, and leave the account to the router."""
        if self._closed:
            return
        self._closed = True
        tier = self._tier
        self._drop()
        self._kept = None
        self._router.finished(self, Ending(outcome, status, tier))


def _seconds(value: bytes | None) -> float:
    """Return a Retry-After in seconds; a date or nonsense is no number and gives 0."""
    return float(value) if value is not None and value.isdigit() and len(value) < 7 else 0.0
