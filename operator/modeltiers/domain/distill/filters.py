"""Which answers become training rows, and why the others do not. A reason a rule, in order; the first one counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import jsonschema_rs

from modeltiers.api.distilljob import Filters, Verifier
from modeltiers.domain.distill.rows import system_of, text_in
from modeltiers.domain.distill.verify import judge, judgeable, text_of, trace_length
from modeltiers.domain.routing import language

ENDS: Final = frozenset({"stop", "tool_calls", "function_call"})
"""How a whole answer ends."""
_TRACES: Final = ("reasoning_content", "reasoning")
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=262_144, dfa_size_limit=262_144)


class Reason(StrEnum):
    """Why an answer is dropped."""

    TRUNCATED = "Truncated"
    EMPTY = "Empty"
    INVALID_JSON = "InvalidJson"
    NOTHING_EXPECTED = "NothingExpected"
    WRONG_ANSWER = "WrongAnswer"
    TOO_SHORT = "TooShort"
    TOO_LONG = "TooLong"
    LANGUAGE = "Language"
    DUPLICATE = "Duplicate"
    LOW_SCORE = "LowScore"
    NOT_SCORED = "NotScored"


class Drop(NamedTuple):
    """An answer that is dropped: why, and what exactly."""

    reason: Reason
    detail: str
    score: int | None = None
    """The judge's, in permille, where it gave one."""


def without_trace(row: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A row whose answer has no reasoning trace any more, and whether its log-probabilities had to go with it.

    They are cut where the text is, and left out where no token ends there: they would stand beside other tokens.
    """
    answer = {name: value for name, value in row["answer"].items() if name not in _TRACES}
    text, lost = answer.get("content") or "", False
    made = dict(row)
    if (cut := trace_length(text)) > 0:
        answer["content"] = text[cut:] or None
        if row.get("logprobs"):
            kept = _after(row["logprobs"], text[:cut])
            lost = kept is None
            made = {name: value for name, value in made.items() if name != "logprobs"}
            made |= {"logprobs": kept} if kept else {}
    return {**made, "answer": answer}, lost


def _after(tokens: Sequence[Mapping[str, Any]], trace: str) -> list[Any] | None:
    read = ""
    for index, token in enumerate(tokens):
        if read == trace:
            return list(tokens[index:])
        read += token["token"]
        if not trace.startswith(read):
            return None
    return None


class Sieve:
    """Looks at one answer after the other; knows which it has seen."""

    def __init__(self, filters: Filters, verifiers: Sequence[Verifier]) -> None:
        self._filters = filters
        self._verifiers = tuple(verifiers)
        self._seen: set[bytes] = set()

    def drop(self, row: Mapping[str, Any]) -> Drop | None:
        """Why an answer is dropped; None when it is kept. Raises BadVerifier."""
        text = text_of(row["answer"])
        return _broken(row, text) or self._unverified(row, text) or self._unwanted(row, text)

    def _unverified(self, row: Mapping[str, Any], text: str) -> Drop | None:
        if not self._filters.verified:
            return None
        if not judgeable(self._verifiers, row.get("expected")):
            return Drop(Reason.NOTHING_EXPECTED, "the row has no `expected` that the verifiers can use")
        verdict = judge(self._verifiers, text, row.get("expected"))
        if verdict.right:
            return None
        reason = Reason.INVALID_JSON if verdict.malformed else Reason.WRONG_ANSWER
        return Drop(reason, f"{verdict.failed}: {verdict.why}")

    def _unwanted(self, row: Mapping[str, Any], text: str) -> Drop | None:
        if len(text) < self._filters.shortest:
            return Drop(Reason.TOO_SHORT, f"{len(text)} characters")
        if len(text) > self._filters.longest:
            return Drop(Reason.TOO_LONG, f"{len(text)} characters")
        if self._filters.language == "AsAsked" and (other := _other_language(row["messages"], text)):
            return Drop(Reason.LANGUAGE, other)
        if not self._filters.duplicates and self._known(row):
            return Drop(Reason.DUPLICATE, "the same answer to the same prompt is kept already")
        return None

    def _known(self, row: Mapping[str, Any]) -> bool:
        said = [row["messages"], row["answer"].get("content"), _calls(row["answer"].get("tool_calls") or ())]
        key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()[:16]
        known = key in self._seen
        self._seen.add(key)
        return known


def _broken(row: Mapping[str, Any], text: str) -> Drop | None:
    """Why an answer is none, whatever the settings."""
    if row["finishReason"] not in ENDS:
        return Drop(Reason.TRUNCATED, f"it ended by {row['finishReason']}")
    if not text.strip():
        return Drop(Reason.EMPTY, "it has no text and calls no tool")
    wrong = _wrong_call(row["answer"].get("tool_calls") or (), row.get("tools") or ())
    return Drop(Reason.INVALID_JSON, wrong) if wrong else None


def _other_language(messages: list[dict[str, Any]], text: str) -> str:
    """Which language an answer is in that it should not be in; nothing where it may, or where it cannot be told."""
    last = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if last is None:
        return ""
    wanted, found = language.wanted(text_in(last), system_of(messages)), language.languages(text)
    if not found or wanted.isdisjoint(language.KNOWN) or not wanted.isdisjoint(found):
        return ""
    return f"it is in {'/'.join(sorted(found))}, wanted is {'/'.join(sorted(wanted))}"


def _calls(calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What is called; each answer has its own ids of calls."""
    return [[call["function"]["name"], call["function"].get("arguments")] for call in calls]


def _wrong_call(calls: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the calls of tools; nothing when they are right."""
    known = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    for call in calls:
        function = call["function"]
        name, arguments = function["name"], function.get("arguments")
        if name not in known:
            return f"it calls {name!r}, which the row has no tool of"
        if not isinstance(arguments, str):
            return f"the arguments of {name} are not the text of JSON"
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return f"the arguments of {name} are not JSON"
        schema = _schema(json.dumps(known[name])) if known[name] else None
        if schema is not None and (fault := next(schema.iter_errors(value), None)) is not None:
            return f"the arguments of {name} are not of its schema: {fault.message[:200]}"
    return ""


@lru_cache(maxsize=128)
def _schema(text: str) -> Any:
    """A tool's schema made ready; None for one that cannot be, as nothing can be held against it."""
    try:
        return jsonschema_rs.validator_for(json.loads(text), pattern_options=_PATTERNS, offline=True)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return None
