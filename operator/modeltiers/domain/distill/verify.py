"""What makes an answer right: the workload's verifiers, the same for the teacher's answers and for every model tested.

They look at the answer's text without its reasoning trace, or at its calls of tools as JSON; no model has a say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs

from modeltiers.api.distilljob import Verifier
from modeltiers.domain.distill.numbers import last_number, number_of
from modeltiers.domain.distill.scrub import BadPattern, compiled

_COMPARING: Final = frozenset({"Exact", "Contains", "Numeric"})
_TRACE: Final = re.compile(r"\s*<(think|thinking|reasoning|thought)>.*?(?:</\1>|\Z)\s*", re.DOTALL)
_TAIL: Final = re.compile(r".*?</(?:think|thinking|reasoning|thought)>\s*", re.DOTALL)
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=262_144, dfa_size_limit=262_144)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right; if not, which verifier says so, and why."""

    right: bool
    failed: str | None = None
    why: str = ""
    malformed: bool = False
    """It should have been JSON and is not."""


RIGHT: Final = Verdict(right=True)
Check = Callable[[str, Any], str]
"""Says what is wrong with an answer; nothing when it is right."""


class BadVerifier(ValueError):
    """A verifier that cannot be run: its path in the spec, and why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


def judge(verifiers: Sequence[Verifier], text: str, expected: Any) -> Verdict:
    """Whether all verifiers call an answer right; the first that does not is named. Raises BadVerifier.

    `text` is an answer's `text_of`; a reasoning trace before it is not looked at.
    """
    text = text[trace_length(text) :]
    for name, check in ready(tuple(verifiers)):
        why = check(text, expected)
        if why:
            return Verdict(right=False, failed=name, why=why, malformed=why == NOT_JSON)
    return RIGHT


def needing(verifiers: Iterable[Verifier]) -> str | None:
    """The first verifier that can say nothing without `expected`."""
    return next((verifier.name for verifier in verifiers if verifier.type in _COMPARING), None)


def judgeable(verifiers: Iterable[Verifier], expected: Any) -> bool:
    """Whether what is expected lets all verifiers do their work."""
    return all(_usable(verifier.type, expected) for verifier in verifiers)


def _usable(kind: str, expected: Any) -> bool:
    if kind == "Numeric":
        return number_of(expected) is not None
    if kind in _COMPARING:
        return bool(written(expected).strip()) if not isinstance(expected, list) else bool(expected)
    return True


def text_of(answer: Mapping[str, Any]) -> str:
    """What is judged of an assistant's message: its text without the reasoning trace; without text, its calls of tools
    as JSON, `[{"name": ..., "arguments": {...}}]`.
    """
    text = str(answer.get("content") or "")
    text, calls = text[trace_length(text) :], answer.get("tool_calls")
    if text.strip() or not calls:
        return text
    return json.dumps([_called(call["function"]) for call in calls], ensure_ascii=False)


def _called(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    with suppress(TypeError, ValueError, RecursionError):  # what is no JSON is told as it came
        arguments = json.loads(arguments or "{}")
    return {"name": function["name"], "arguments": arguments}


def trace_length(text: str) -> int:
    """Characters of the reasoning trace that a text begins with, the space behind it included; 0 without one."""
    found = _TRACE.match(text)
    if found is None and "</" in text:  # templates that open the trace themselves leave its end alone in the answer
        found = _TAIL.match(text)
    return found.end() if found is not None else 0


@lru_cache(maxsize=32)
def ready(verifiers: tuple[Verifier, ...]) -> tuple[tuple[str, Check], ...]:
    """Verifiers made ready, by name; raises BadVerifier for one that cannot be run."""
    return tuple((verifier.name, _MAKE[verifier.type](verifier)) for verifier in verifiers)


def written(expected: Any) -> str:
    """What is expected, as a text."""
    if expected is None:
        return ""
    return expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False)


# --- the types --------------------------------------------------------------------------------------------------------

NOT_JSON: Final = "is not JSON"
_UNKNOWN: Final = "nothing is expected of this row, so nothing says whether it is right"


def _exact(_: Verifier) -> Check:
    def check(text: str, expected: Any) -> str:
        if expected is None:
            return _UNKNOWN
        return "" if text.strip() == written(expected).strip() else "is not what is expected"

    return check


def _contains(_: Verifier) -> Check:
    def check(text: str, expected: Any) -> str:
        wanted = [written(one) for one in (expected if isinstance(expected, list) else [expected])]
        if expected is None or not any(wanted):
            return _UNKNOWN
        missing = [one for one in wanted if one not in text]
        return f"has not {missing[0][:80]!r} in it" if missing else ""

    return check


def _numeric(verifier: Verifier) -> Check:
    off = verifier.tolerance_permille or 0

    def check(text: str, expected: Any) -> str:
        wanted, found = number_of(expected), last_number(text)
        if wanted is None:
            return _UNKNOWN
        if found is None:
            return "has no number"
        return "" if abs(found - wanted) * 1000 <= off * abs(wanted) else "its last number is not the one expected"

    return check


def _json(verifier: Verifier) -> Check:
    schema = _schema(verifier)

    def check(text: str, expected: Any) -> str:
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return NOT_JSON
        if schema is not None and (fault := next(schema.iter_errors(value), None)) is not None:
            return f"is not of the schema: {fault.message[:200]}"
        return "" if expected is None or _same(value, _meant(expected)) else "is not the JSON expected"

    return check


def _schema(verifier: Verifier) -> Any:
    if verifier.schema_text is None:
        return None
    field = f"spec.workload.verifiers[{verifier.name}].schemaText"
    try:
        schema = json.loads(verifier.schema_text)
        return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)
    except (ValueError, RecursionError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise BadVerifier(field, f"is no JSON schema: {str(error).partition(chr(10))[0]}") from None


def _regex(verifier: Verifier) -> Check:
    field = f"spec.workload.verifiers[{verifier.name}].pattern"
    try:
        pattern = compiled(verifier.pattern or "", field)
    except BadPattern as bad:
        raise BadVerifier(field, str(bad).removeprefix(f"{field}: ")) from None

    def check(text: str, _: Any) -> str:
        return "" if pattern.search(text) is not None else "does not match the pattern"

    return check


_MAKE: Final[Mapping[str, Callable[[Verifier], Check]]] = {
    "Exact": _exact,
    "Contains": _contains,
    "Numeric": _numeric,
    "Json": _json,
    "Regex": _regex,
}


def _meant(expected: Any) -> Any:
    """What is expected as JSON: a text that is JSON stands for what it says."""
    try:
        return json.loads(expected) if isinstance(expected, str) else expected
    except (ValueError, RecursionError):
        return expected


def _same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
