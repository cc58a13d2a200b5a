"""Watches a stream of server-sent events go by: where each event ends, and what the router must know of it.

Bytes are never changed here. Line ends may be LF, CRLF or CR, and a stream may be cut anywhere.
"""

from __future__ import annotations

import re
from typing import Final

EVENT_BYTES: Final = 8 * 2**20
"""The longest event that is held together; a longer one breaks the stream."""
DONE: Final = b"[DONE]"
_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE: Final = re.compile(rb"\r\n|\n|\r")


class TooLong(ValueError):
    """An event without end."""


class Splitter:
    """Cuts a stream into whole events, each with the blank line that ends it."""

    __slots__ = ("_rest", "_seen")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0

    def alone(self, data: bytes) -> bytes | None:
        """Return the payload, where this is one whole event as engines write it and nothing waits; else nothing."""
        if self._rest or not data.startswith(b"data: ") or data.find(b"\n") != len(data) - 2:
            return None
        return data[6:-2] if data.endswith(b"\n") and b"\r" not in data else None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are whole now; raises TooLong."""
        if not self._rest and data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
            return [data]  # one event in one piece, as vLLM writes
        rest = self._rest
        rest += data
        events: list[bytes] = []
        begin, at = 0, max(0, self._seen - 3)
        while (found := _END.search(rest, at)) is not None:
            if found.end() == len(rest) and rest.endswith(b"\r"):
                break  # a line feed may follow and belong to it
            events.append(bytes(rest[begin : found.end()]))
            begin = at = found.end()
            del found  # a match holds the buffer
        if begin:
            self._rest = rest[begin:]
        self._seen = len(self._rest)
        if self._seen > EVENT_BYTES:
            raise TooLong
        return events

    def last(self) -> bytes:
        """Return the event that the stream's end completes: one that waited for a line feed, or a bare [DONE]."""
        rest, self._rest, self._seen = bytes(self._rest), bytearray(), 0
        return rest if _END.search(rest) or payload(rest) == DONE else b""


def payload(event: bytes) -> bytes:
    """Return the data of an event: its data lines, joined by line feeds; empty for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [line[5:] for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines)
