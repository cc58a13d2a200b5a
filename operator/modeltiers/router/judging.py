"""An answer that is judged before the client sees it: held, watched as it comes, and given or found wanting.

A whole reply is judged whole. Of a stream a window is held, or all of it, or nothing (`Flag`: judged afterwards, said
in a comment at the end). Calls of tools are held whole. What a good answer is decides `accept`; what happens then,
the exchange.
"""

from __future__ import annotations

import time
from asyncio import TimerHandle
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from modeltiers.domain.routing.accept import Evidence, Verdict, accept, dear, evidence
from modeltiers.domain.routing.answer import Answer, Watch, read_answer
from modeltiers.domain.routing.logprobs import as_asked, wanted
from modeltiers.domain.routing.question import question_of
from modeltiers.domain.routing.validators import Result
from modeltiers.router.connection import Failure, Head
from modeltiers.router.outgoing import Accepted
from modeltiers.router.reading import Metered, Reading, Usage

if TYPE_CHECKING:
    from modeltiers.router.exchange import Exchange
    from modeltiers.router.router import Router

GLANCE: Final = 4
"""Every so many tokens, and later more, it is asked whether the answer is lost already."""


class Item(Struct, gc=False):
    """A held event of a stream."""

    event: bytes
    payload: bytes
    metered: Metered | None


class Judging:
    """Takes the reply of one attempt in the exchange's place until it is known whether it is good enough."""

    __slots__ = (
        "_accepted",
        "_body",
        "_bytes",
        "_done",
        "_exchange",
        "_glance",
        "_head",
        "_held",
        "_metered",
        "_question",
        "_reading",
        "_results",
        "_router",
        "_since",
        "_stopped",
        "_timer",
        "_waits",
        "_watch",
        "committed",
        "evidence",
        "usage",
        "verdict",
        "wanted",
    )

    def __init__(self, exchange: Exchange, router: Router, accepted: Accepted) -> None:
        self._exchange, self._router, self._accepted = exchange, router, accepted
        self.wanted = wanted(accepted.route.accept, accepted.endpoint, accepted.fields)
        """Fields of the body that must be asked for so that the answer can be judged."""
        self._question = question_of(accepted.fields)
        self._watch = Watch(accepted.endpoint)
        self._held: list[Item] = []
        self._bytes = self._waits = 0
        self._glance = GLANCE
        self._results: dict[str, Result] = {}
        self._reading: Reading | None = None
        self._head: Head | None = None
        self._done = self._body = b""
        self._metered = Metered()
        self._timer: TimerHandle | None = None
        self._since = 0.0
        self._stopped = self.committed = False
        self.usage: Usage | None = None
        """What the tier says it counted, once it has."""
        self.evidence: Evidence | None = None
        self.verdict: Verdict | None = None

    @property
    def complete(self) -> bool:
        """Whether all of the reply is at hand."""
        return self._head is not None or bool(self._done)

    @property
    def tokens(self) -> int:
        """How many tokens came so far."""
        return self._watch.answer.tokens

    # -- what the tier says ---------------------------------------------------------------------------------------

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        """Hold one event of a stream, or relay it when the answer is given already."""
        self._reading = reading
        stream = self._accepted.route.policy.policy.stream
        if metered is not None and metered.usage is not None:
            self.usage = metered.usage
        if self.committed:
            if stream.hold == "Flag":
                self._watch.feed(payload)
            self._relay(Item(event, payload, metered))
            return
        self._watch.feed(payload)
        self._held.append(Item(event, payload, metered))
        self._bytes += len(event)
        answer = self._watch.answer
        if not answer.tokens:
            return
        if not self._since:
            self._since = time.monotonic()
            if stream.hold == "Flag":
                self._give(None)
                return
        if self._timer is None and stream.hold == "Window" and not answer.empty:
            self._timer = self._router.loop.call_later(stream.window_ms / 1000, self._time_is_up)
        self._look(answer)

    def _look(self, answer: Answer) -> None:
        """Decide if the window is full or the answer lost; neither thinking nor calls of tools fill a window."""
        stream = self._accepted.route.policy.policy.stream
        said = 0 if answer.empty or answer.tool_calls else answer.tokens - answer.thinking_tokens
        if (stream.hold == "Window" and said >= stream.window_tokens) or self._bytes > stream.max_hold_bytes:
            self._decide(whole=False)
        elif answer.tokens >= self._glance:
            # Each look costs as much as there are tokens: ever fewer keep the whole linear.
            self._glance = answer.tokens + max(GLANCE, answer.tokens // 8)
            seen = evidence(self._accepted.route.accept, self._question, answer, whole=False)
            verdict = accept(self._accepted.route.accept, seen)
            if verdict.lost:
                self._say(seen, verdict)

    def _time_is_up(self) -> None:
        if not (self.committed or self._stopped or self._waits or self._watch.answer.tool_calls):
            self._decide(whole=False)

    def done(self, reading: Reading, event: bytes) -> None:
        """Judge a stream that is whole."""
        self._reading, self._done = reading, event
        self._since = self._since or time.monotonic()
        if self.committed and self.verdict is not None:
            self._exchange.done(reading, event)
        else:
            self._judge_whole(self._watch.answer)

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        """Judge a whole reply; a refusal of the tier is the client's own fault and goes to it."""
        self._reading = reading
        if head.status != 200:
            self._exchange.whole(reading, head, body, metered)
            return
        self._head, self._body, self._metered = head, body, metered
        self.usage = metered.usage
        self._since = time.monotonic()
        self._judge_whole(read_answer(self._accepted.endpoint, body))

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        """Leave a failure to the exchange: there is nothing to judge."""
        self.stop()
        self._exchange.failed(reading, failure, head, body)

    # -- judging ----------------------------------------------------------------------------------------------------

    def _judge_whole(self, answer: Answer) -> None:
        checks = dear(self._accepted.route.accept, self._question, answer) if not self.committed else []
        self._waits = len(checks)
        for check in checks:
            self._router.workers.run(check, check.deadline_ms / 1000, lambda result: self._checked(result, answer))
        if not checks:
            self._decide(whole=True, answer=answer)

    def _checked(self, result: Result, answer: Answer) -> None:
        """Take the outcome of a check that ran elsewhere; the last one lets the judgement go on."""
        self._results[result.name] = result
        self._waits -= 1
        if not self._waits and not self._stopped:
            self._decide(whole=True, answer=answer)

    def _decide(self, *, whole: bool, answer: Answer | None = None) -> None:
        compiled = self._accepted.route.accept
        seen = evidence(compiled, self._question, answer or self._watch.answer, self._results, whole=whole)
        self._say(seen, accept(compiled, seen))

    def _say(self, seen: Evidence, verdict: Verdict) -> None:
        """Give the answer if it is good enough, or if no tier above can be asked."""
        self.evidence, self.verdict = seen, verdict
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.committed:
            self._flag(verdict)
        elif verdict.accepted or not self._exchange.wanting(self, verdict):
            self._give(verdict)

    def _give(self, verdict: Verdict | None) -> None:
        """Commit to this answer and send what was held."""
        self.committed = True
        self._router.metrics.held[self._accepted.route.policy.policy.name].observe(time.monotonic() - self._since)
        if verdict is not None and verdict.accepted:
            self._exchange.commit(verdict)
        self.give()

    def give(self) -> None:
        """Send what is held, as the client asked for it."""
        self.committed = True
        reading = self._reading
        assert reading is not None
        if self._head is not None:
            body = self._body
            if self.wanted:
                logprobs = [choice.logprobs for choice in self._metered.choices or ()]
                body = as_asked(self._question, self._accepted.endpoint, body, logprobs)
            self._exchange.whole(reading, self._head, body, self._metered)
            return
        held, self._held = self._held, []
        for item in held:
            self._relay(item)
        if self._done:
            self._exchange.done(reading, self._done)

    def _relay(self, item: Item) -> None:
        reading = self._reading
        assert reading is not None
        event = item.event
        if self.wanted and item.payload:
            asked = as_asked(self._question, self._accepted.endpoint, item.payload)
            if asked is not item.payload:  # other lines of the event stay; data in several lines is written anew
                event = event.replace(item.payload, asked, 1) if item.payload in event else _lines(asked)
        self._exchange.event(reading, event, item.payload, item.metered)

    def _flag(self, verdict: Verdict) -> None:
        """Say at the end of a stream that was given before it was judged what the judgement is."""
        assert self._reading is not None
        if not verdict.accepted:
            said = f": modeltiers {verdict.reason} {verdict.probability:.3f}\n\n".encode()
            self._exchange.flagged(said, verdict)
        self._exchange.done(self._reading, self._done)

    def stop(self) -> None:
        """Judge no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _lines(data: bytes) -> bytes:
    return b"".join(b"data: %b\n" % line for line in data.split(b"\n")) + b"\n"
