"""Reads where the top-level fields of a JSON body lie, and changes some of them without touching another byte.

A body is never decoded and encoded again: order, numbers, white space and fields that nobody here knows stay as they
came. Refuses what two readers could read differently: duplicate keys, invalid UTF-8, a byte order mark, nesting without
end. Knows nothing of what the fields mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from modeltiers.domain.routing.census import MOST, many_fields
from modeltiers.domain.routing.spans import spans

MOST_FIELDS: Final = 1_000
"""Top-level fields of a body; OpenAI's longest request has about forty."""
_decode: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_SPACE: Final = b" \t\n\r"


class BadBody(ValueError):
    """A body that is no JSON object, or one that two readers could read differently."""


class Body:
    """A JSON object as bytes, and its top-level fields as views on them."""

    __slots__ = ("_spans", "fields", "raw")

    def __init__(self, raw: bytes) -> None:
        """Read the fields; raises BadBody. Its time and memory grow with the length of the body and no faster."""
        if not raw.isascii():
            _check_text(raw)
        if many_fields(raw):
            raise BadBody(f"the body has more than {MOST} fields in all; send fewer")
        try:
            self.fields: dict[str, Raw] = _decode(raw)
        except msgspec.DecodeError as error:
            raise BadBody(_problem(raw, error)) from None
        except RecursionError:
            raise BadBody("the body is nested too deeply") from None
        if len(self.fields) > MOST_FIELDS:
            raise BadBody(f"the body has {len(self.fields)} top-level fields; at most {MOST_FIELDS} are taken")
        self.raw = raw
        self._spans: dict[str, tuple[int, int]] | None = None
        if len(raw) != _compact_length(self.fields):
            self._spans = spans(raw, self.fields)
            if self._spans is None:
                raise BadBody("a field is given twice; give each once")

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return where each value begins and ends, in the order of the bytes."""
        if self._spans is None:
            self._spans = _compact_spans(self.fields)
        return self._spans

    def with_changes(self, changes: Mapping[str, bytes]) -> bytes:
        """Return the body with these values in place of those given, or behind them; all else is byte-identical."""
        raw = self.raw
        fresh = changes.keys() - self.fields.keys()
        edits = self._edits(changes, len(changes) - len(fresh))
        if fresh:
            close = raw.rindex(b"}")
            added = b",".join([b'"%b":%b' % (key.encode(), changes[key]) for key in changes if key in fresh])
            edits.append((close, close, b"," + added if self.fields else added))
        at = 0
        parts: list[bytes] = []
        for begin, end, value in edits:
            parts += (raw[at:begin], value)
            at = end
        parts.append(raw[at:])
        return b"".join(parts)

    def _edits(self, changes: Mapping[str, bytes], count: int) -> list[tuple[int, int, bytes]]:
        """Return where values become others, in the order of the bytes; so many are changes of what is there."""
        if self._spans is not None:
            return sorted((*span, changes[key]) for key, span in self._spans.items() if key in changes)
        at = 1
        found: list[tuple[int, int, bytes]] = []
        for key, value in self.fields.items():
            begin = at + len(key) + 3
            at = begin + len(memoryview(value)) + 1
            if key in changes:
                found.append((begin, at - 1, changes[key]))
                if len(found) == count:
                    break
        return found


def _compact_length(fields: Mapping[str, Raw]) -> int:
    """Return how long an object is that is written without white space or escapes, each key once.

    No writing is shorter. A body of just this length has nothing else in it, no key twice; so it need not be walked.
    """
    values = sum([len(memoryview(value)) for value in fields.values()])
    return len("".join(fields)) + values + 4 * len(fields) + (1 if fields else 2)


def _compact_spans(fields: Mapping[str, Raw]) -> dict[str, tuple[int, int]]:
    """Return where the values lie in an object that is written so."""
    at = 1
    found: dict[str, tuple[int, int]] = {}
    for key, value in fields.items():
        begin = at + len(key) + 3
        at = begin + len(memoryview(value)) + 1
        found[key] = begin, at - 1
    return found


def _check_text(raw: bytes) -> None:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise BadBody("the body begins with a byte order mark; send plain UTF-8")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise BadBody(f"the body is not UTF-8: byte {error.start}") from None


def _problem(raw: bytes, error: msgspec.DecodeError) -> str:
    if not raw.strip(_SPACE):
        return "the body is empty; send a JSON object"
    if isinstance(error, msgspec.ValidationError):
        return "the body is not a JSON object"
    return f"the body is not JSON: {error}"
