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
        found, length = _compact_spans(self.fields)
        if len(raw) != length:
            walked = spans(raw, self.fields)
            if walked is None:
                raise BadBody("a field is given twice; give each once")
            found = walked
        self._spans = found

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return where each value begins and ends, in the order of the bytes."""
        return self._spans

    def with_changes(self, changes: Mapping[str, bytes]) -> bytes:
        """Return the body with these values in place of those given, or behind them; all else is byte-identical."""
        raw, spans = self.raw, self._spans
        edits, fresh = [], []
        for key, value in changes.items():
            if key in spans:
                edits.append((spans[key], value))
            else:
                fresh.append(b'"%b":%b' % (key.encode(), value))
        if fresh:
            close = raw.rindex(b"}")
            edits.append(((close, close), (b"," if spans else b"") + b",".join(fresh)))
        edits.sort()
        at = 0
        parts: list[bytes] = []
        for (begin, end), value in edits:
            parts += (raw[at:begin], value)
            at = end
        return b"".join([*parts, raw[at:]])


def _compact_spans(fields: Mapping[str, Raw]) -> tuple[dict[str, tuple[int, int]], int]:
    """Return where the values lie in an object written without white space or escapes, each key once, and its length.

    No writing is shorter. A body of just this length has nothing else in it, no key twice; so it need not be walked.
    """
    at = 1
    found: dict[str, tuple[int, int]] = {}
    for key, value in fields.items():
        begin = at + len(key) + 3
        end = begin + len(memoryview(value))
        found[key] = begin, end
        at = end + 1
    return found, at + (not fields)


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
