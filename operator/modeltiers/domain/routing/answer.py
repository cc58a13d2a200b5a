"""An answer as far as it is judged: its text, tool calls, end, and the logprobs of its tokens, thinking told apart.

Read from a whole reply or from the events of a stream, to the same result. Total: a reply that has another shape is an
answer that is not `readable`. Whether an answer is any good is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Final

import msgspec
from msgspec import Struct

from modeltiers.domain.routing.ask import Endpoint
from modeltiers.domain.routing.reply import (
    FAULTS,
    ChatChoice,
    Function,
    Message,
    Part,
    TextChoice,
    Token,
    read_chat,
    read_text,
)

UNKNOWN: Final = -9_999.0
"""What vLLM writes for a logprob that it does not know; of an alternative: that it cannot come."""
FLOOR: Final = -20.0
"""No logprob counts as less: one token in half a billion."""
_DUST: Final = 1e-9
"""Mass that is rounding."""
_OPENING: Final = frozenset({"<think>", "[THINK]", "<seed:think>", "◁think▷"})
_CLOSING: Final = frozenset({"</think>", "[/THINK]", "</seed:think>", "◁/think▷"})
_MARKS: Final = _OPENING | _CLOSING
_PAIRS: Final = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))


class ToolCall(Struct, frozen=True, gc=False):
    """A call of a tool, its arguments as the model wrote them."""

    name: str
    arguments: str


class Logs(Struct, gc=False):
    """What the logprobs of some tokens say, a number for each token in each list."""

    logprobs: list[float] = []
    """Of the tokens that were generated, in nats; unknown ones are left out."""
    margins: list[float] = []
    """How far a token stands above its best alternative; below 0 where it was not the likeliest."""
    entropies: list[float] = []
    """Of a token's alternatives, as far as they were returned: at most the true entropy."""
    unknown: int = 0


class Answer(Struct, gc=False):
    """An answer. Made by `Watch` its lists are live: they grow with the next event."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    refusal: str = ""
    logs: Logs = msgspec.field(default_factory=Logs)
    """Of the answer's own tokens, the end of it included."""
    thinking: Logs = msgspec.field(default_factory=Logs)
    tokens: int = 0
    """Generated tokens, thinking included: as the engine counts them, else those with logprobs, else the events."""
    thinking_tokens: int = 0
    readable: bool = True

    @property
    def logprobs(self) -> list[float]:
        """The logprobs of the answer's own tokens."""
        return self.logs.logprobs

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.tool_calls or self.text.strip() or self.refusal.strip())


# --- reading ----------------------------------------------------------------------------------------------------------


def read_answer(endpoint: Endpoint, body: bytes) -> Answer:
    """Return the first answer of a whole reply. Total."""
    watch = Watch(endpoint)
    watch.feed(body)
    return watch.answer


class Watch:
    """Reads the events of a stream, one after the other; what it knows by now is `answer`. Choices but the first are
    passed over: a cascade asks for one.
    """

    __slots__ = (
        "_answer",
        "_calls",
        "_chat",
        "_counted",
        "_events",
        "_finish",
        "_fresh",
        "_logs",
        "_reasoning",
        "_reasoning_tokens",
        "_refusal",
        "_said",
        "_text",
        "_thinking",
        "_thought",
        "readable",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self._chat = endpoint == "chat"
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal = ""
        self._calls: list[list[str]] = []
        self._finish: str | None = None
        self._logs, self._thought = _logs(), _logs()
        self._thinking = self._said = False
        self._events = self._reasoning_tokens = 0
        self._counted: int | None = None
        self._fresh = False
        self._answer = Answer()
        self.readable = True

    def feed(self, payload: bytes) -> None:
        """Take the data of one event. Total; [DONE] and an empty event say nothing."""
        if payload[:1] != b"{":
            self.readable &= payload.strip() in (b"", b"[DONE]")
            self._fresh = False
            return
        self._fresh = False
        try:
            reply = read_chat(payload) if self._chat else read_text(payload)
        except FAULTS:
            self.readable = False
            return
        for choice in reply.choices or ():
            if choice.index == 0:
                if isinstance(choice, ChatChoice):
                    self._take_chat(choice)
                else:
                    self._take_text(choice)
        if reply.usage is not None and reply.usage.completion_tokens is not None:
            self._counted = reply.usage.completion_tokens
            details = reply.usage.completion_tokens_details
            if details is not None:
                self._reasoning_tokens = details.reasoning_tokens or 0

    @property
    def answer(self) -> Answer:
        """What is known of the answer by now."""
        if not self._fresh:
            self._fresh = True
            self._answer = self._made()
        return self._answer

    # --- one event ----------------------------------------------------------------------------------------------------

    def _take_chat(self, choice: ChatChoice) -> None:
        self._finish = choice.finish_reason or self._finish
        message = choice.delta or choice.message
        content = reasoning = ""
        calls = False
        if message is not None:
            said = message.content
            content = said if isinstance(said, str) else _joined(said)
            reasoning = message.reasoning or message.reasoning_content or ""
            if message.tool_calls or message.function_call is not None:
                calls = True
                self._take_calls(message)
            if message.refusal:
                self._refusal += message.refusal
        tokens = choice.logprobs.content if choice.logprobs is not None else None
        if tokens:
            self._take_tokens(tokens, reasoning, content, calls)
        if reasoning:
            self._reasoning.append(reasoning)
            self._events += 1
        if content:
            self._text.append(content)
            self._events += 1
        self._said = self._said or bool(content) or calls

    def _take_calls(self, message: Message) -> None:
        """Add to tool calls: a stream sends them in pieces, each with the index of its call."""
        calls, count = self._calls, len(self._calls)
        for place, call in enumerate(message.tool_calls or ()):
            # Without an index, as in a whole reply, each is a call of its own.
            index = count + place if call.index is None else call.index
            if index >= len(calls):
                index = len(calls)
                calls.append(["", ""])
            _extend(calls[index], call.function)
        if message.function_call is not None:
            if not calls:
                calls.append(["", ""])
            _extend(calls[0], message.function_call)

    def _take_text(self, choice: TextChoice) -> None:
        self._finish = choice.finish_reason or self._finish
        if choice.text:
            self._text.append(choice.text)
            self._events += 1
        logs = choice.logprobs
        if logs is None or not logs.token_logprobs:
            return
        names, tops = logs.tokens or (), logs.top_logprobs or ()
        for place, logprob in enumerate(logs.token_logprobs):
            top = tops[place] if place < len(tops) else None
            values = [value for value in top.values() if value is not None] if top else None
            self._note(names[place] if place < len(names) else "", logprob, values)

    # --- tokens -------------------------------------------------------------------------------------------------------

    def _take_tokens(self, tokens: Sequence[Token], reasoning: str, content: str, calls: bool) -> None:
        """Note the tokens of an event, and which of them were thought."""
        if reasoning:
            if not self._said and not self._thinking:
                self._all_was_thought()  # a mark of a kind that is not known here
            self._thinking = True
            if (content or calls) and not any(token.token in _MARKS for token in tokens):
                begin = _first_said(tokens, reasoning, content)
                self._note_all(tokens[:begin])
                self._thinking = False
                self._note_all(tokens[begin:])
                return
        elif content or calls:
            self._thinking = self._thinking and not self._reasoning
        self._note_all(tokens)

    def _note_all(self, tokens: Sequence[Token]) -> None:
        logs = self._thought if self._thinking else self._logs
        marked = not _MARKS.isdisjoint([token.token for token in tokens])
        for token in tokens:
            tops, logprob = token.top_logprobs, token.logprob
            if tops is not None and len(tops) == 2 and logprob is not None and not (marked and token.token in _MARKS):
                first, second = tops[0].logprob, tops[1].logprob
                other = second if first == logprob else first if second == logprob else None
                if other is not None and FLOOR < logprob < 0.0 and FLOOR < other < 0.0:
                    # What `spread` does, for the one case that nearly all tokens are.
                    chance, against = exp(logprob), exp(other)
                    rest = 1.0 - chance - against
                    entropy = -chance * logprob - against * other
                    if rest > _DUST:
                        entropy -= rest * (other if against <= rest else log(rest))
                    logs.logprobs.append(logprob)
                    logs.margins.append(logprob - other)
                    logs.entropies.append(entropy)
                    continue
            values = [top.logprob for top in tops if top.logprob is not None] if tops else None
            self._note(token.token, logprob, values)
            logs = self._thought if self._thinking else self._logs

    def _note(self, name: str, logprob: float | None, tops: list[float] | None) -> None:
        """Note a token where it belongs. A mark belongs to the thinking."""
        logs = self._thought if self._thinking else self._logs
        if name in _MARKS:
            if name in _CLOSING and not self._thinking and not self._thought.logprobs:
                self._all_was_thought()  # the opening mark stood in the prompt
            self._thinking = name in _OPENING
            logs = self._thought
        if logprob is None or logprob <= UNKNOWN:
            logs.unknown += 1
            return
        logs.logprobs.append(logprob if FLOOR < logprob < 0.0 else min(0.0, max(FLOOR, logprob)))
        if tops:
            margin, entropy = spread(logprob, tops)
            logs.margins.append(margin)
            logs.entropies.append(entropy)

    def _all_was_thought(self) -> None:
        if not self._thought.logprobs:
            self._logs, self._thought = self._thought, self._logs

    # --- the answer ---------------------------------------------------------------------------------------------------

    def _made(self) -> Answer:
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        if len(self._reasoning) > 1:
            self._reasoning = ["".join(self._reasoning)]
        text = self._text[0] if self._text else ""
        reasoning = self._reasoning[0] if self._reasoning else ""
        if not reasoning and text:
            reasoning, text = _apart(text)
        seen, thought = len(self._logs.logprobs) + self._logs.unknown, len(self._thought.logprobs)
        counted = seen + thought + self._thought.unknown or self._events
        return Answer(
            text=text,
            reasoning=reasoning,
            tool_calls=tuple([ToolCall(*call) for call in self._calls]) if self._calls else (),
            finish_reason=self._finish,
            refusal=self._refusal,
            logs=self._logs,
            thinking=self._thought,
            tokens=counted if self._counted is None else self._counted,
            thinking_tokens=self._reasoning_tokens or thought,
            readable=self.readable,
        )


def _logs() -> Logs:
    return Logs([], [], [])


def _joined(parts: list[Part] | None) -> str:
    return "".join([part.text for part in parts if part.text]) if parts else ""


def _extend(call: list[str], piece: Function | None) -> None:
    if piece is None:
        return
    call[0] += piece.name or ""
    said = piece.arguments
    if said is not None:
        call[1] += said if isinstance(said, str) else msgspec.json.encode(said).decode()


def _first_said(tokens: Sequence[Token], reasoning: str, content: str) -> int:
    """Return the place of the first token that is no thought, in an event with both and without a mark."""
    names = [token.token for token in tokens]
    joined = "".join(names)
    at = joined.find(reasoning)
    end = at + len(reasoning) if at >= 0 else joined.rfind(content) if content else -1
    if end < 0:
        return 0  # which is which cannot be told: all counts as said
    length = 0
    for place, name in enumerate(names):
        if length >= end:
            return place
        length += len(name)
    return len(names)


def _apart(text: str) -> tuple[str, str]:
    """Return the thinking and the answer of a text in which an engine without a reasoning parser left both."""
    for opening, closing in _PAIRS:
        begin = text.lstrip()[: len(opening)] == opening
        head, mark, tail = text.partition(closing)
        if mark and (begin or opening not in head):
            return head.lstrip().removeprefix(opening), tail
        if begin:
            return text.lstrip()[len(opening) :], ""
    return "", text


def spread(logprob: float, tops: list[float]) -> tuple[float, float]:
    """Return a token's margin over its best alternative, and the least entropy that its alternatives can have.

    Those that were not returned are each at most as likely as the least of those that were: so their entropy is at
    least their mass times its surprise. Where no other token was returned, the margin is over all others together.
    """
    own = logprob if FLOOR < logprob < 0.0 else min(0.0, max(FLOOR, logprob))
    mass = exp(own)
    entropy = -mass * own
    others = tops
    if logprob in tops:
        others = tops.copy()
        others.remove(logprob)
    for value in others:
        if value > FLOOR:
            chance = exp(value)
            mass += chance
            entropy -= chance * value
    rest = 1.0 - mass
    surprise = 0.0
    if rest > _DUST:
        surprise = -log(rest)
        if others:
            surprise = max(surprise, min(-FLOOR, -min(others)))
        entropy += rest * surprise
    best = max(others) if others else -surprise if rest > _DUST else FLOOR
    return own - max(FLOOR, best), max(0.0, entropy)
