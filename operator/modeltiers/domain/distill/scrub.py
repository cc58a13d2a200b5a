"""What is replaced in rows before anything is stored: forms of personal data, and the user's own patterns.

A pattern finds what looks like one and misses what does not: a name, an address in prose. Numbers of cards and IBANs
are checked by their check digits, so that order numbers stay.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import re2

from modeltiers.api.distilljob import Scrub
from modeltiers.domain.distill.rows import Row
from modeltiers.domain.routing.patterns import options

_KEPT: Final = frozenset({"role", "type", "id", "tool_call_id", "name"})
"""Keys of a message whose values are no texts but names and references."""
HOOK: Final = "hook"
"""What texts that a program changed are counted under."""
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# In the order in which they are looked for: a number of a card is none of a phone.
_FORMS: Final = {
    "Email": r"[\pL\pN._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b",
    "Iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "CardNumber": r"\b\d(?:[ -]?\d){12,18}\b",
    "IpAddress": rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b|\b(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}\b"
    r"|\b(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}\b",
    "Phone": r"(?:\+|\b00)[1-9]\d{0,2}[ ./-]?(?:\(0?\d{1,5}\)[ ./-]?)?\d{1,5}(?:[ ./-]?\d{2,5}){1,4}\b"
    r"|\(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]\d{2,5}){1,3}\b|\b0\d{1,4}[ /-]\d{3,5}(?:[ -]?\d{2,5}){1,3}\b"
    r"|\b[2-9]\d{2}[-.]\d{3}[-.]\d{4}\b",
}


class BadPattern(ValueError):
    """A pattern that cannot be used: its path in the spec, and why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class Scrubber:
    """Replaces texts in rows, and counts what it replaced."""

    def __init__(self, spec: Scrub | None) -> None:
        """Make the patterns ready; raises BadPattern."""
        self.counts: Counter[str] = Counter()
        self._steps: list[tuple[str, Any, Callable[[str], bool]]] = []
        if spec is None:
            return
        for kind, form in _FORMS.items():
            if kind in spec.kinds:
                self._steps.append((kind, re2.compile(form, options()), _CHECKS.get(kind, _always)))
        for own in spec.patterns:
            field = f"spec.data.scrub.patterns[{own.name}].pattern"
            self._steps.append((own.name, compiled(own.pattern, field), bool))

    def row(self, row: Row) -> Row:
        """A row with its texts replaced, under the id of what is left. A group that says who it was becomes a hash."""
        return mapped(row, self._replaced) if self._steps else row

    def hooked(self, rows: Sequence[Row], ask: Callable[[list[str]], list[str]]) -> list[Row]:
        """Rows whose texts are what a program makes of them, asked once for all; counts those that it changed."""
        texts: list[str] = []

        def see(text: str, *, count: bool) -> str:
            del count
            texts.append(text)
            return text

        for row in rows:
            mapped(row, see)
        answers = iter(zip(texts, ask(texts), strict=True))

        def put(_: str, *, count: bool) -> str:
            before, after = next(answers)
            self.counts[HOOK] += count and before != after
            return after

        return [mapped(row, put) for row in rows]

    def _replaced(self, text: str, *, count: bool) -> str:
        for name, pattern, holds in self._steps:
            if pattern.search(text) is None:
                continue

            def put(found: Any, name: str = name, holds: Callable[[str], bool] = holds) -> str:
                whole = str(found.group())
                if not holds(whole):
                    return whole
                self.counts[name] += count
                return f"[{name}]"

            text = pattern.sub(put, text)
        return text


class _Put(Protocol):
    """What becomes of a text; whether it counts as one."""

    def __call__(self, text: str, /, *, count: bool) -> str: ...


def mapped(row: Row, put: _Put) -> Row:
    """A row with other texts, under the id of what is left. A group that says who it was becomes a hash."""
    messages = _value(row.messages, put, _KEPT)
    expected, recorded = _value(row.expected, put), _value(row.recorded, put)
    group = row.group if row.group != row.id else ""
    if group and put(group, count=False) != group:
        group = hashlib.sha256(group.encode()).hexdigest()[:16]
    return replace(row, messages=messages, expected=expected, recorded=recorded, group=group).named()


def _value(value: Any, put: _Put, kept: frozenset[str] = frozenset()) -> Any:
    if isinstance(value, str):
        return put(value, count=True)
    if isinstance(value, list):
        return [_value(one, put, kept) for one in value]
    if isinstance(value, dict):
        return {key: inner if key in kept else _value(inner, put, kept) for key, inner in value.items()}
    return value


def compiled(pattern: str, field: str) -> Any:
    """An RE2 pattern made ready; raises BadPattern."""
    try:
        return re2.compile(pattern, options())
    except (re2.error, UnicodeEncodeError) as error:
        told = error.args[0] if isinstance(error, re2.error) and error.args else error
        said = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise BadPattern(field, f"RE2 does not take {pattern!r}: {said}") from None


def _always(_: str) -> bool:
    return True


def _luhn(text: str) -> bool:
    digits = [int(sign) for sign in reversed(text) if sign.isdigit()]
    doubled = [digit if index % 2 == 0 else sum(divmod(2 * digit, 10)) for index, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0


def _mod97(text: str) -> bool:
    plain = text.replace(" ", "")
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


_CHECKS: Final[dict[str, Callable[[str], bool]]] = {"CardNumber": _luhn, "Iban": _mod97}
