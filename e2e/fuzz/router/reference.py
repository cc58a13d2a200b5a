"""A second reader of HTTP/1.1, slow and strict, written from RFC 9112 alone: what it does not read, nobody should.

It forgives what the router's parser is known to forgive and what moves no boundary: empty lines before a message, more
than one blank around the target, another name for the protocol, any byte in a reason, anything printable in a chunk's
extension, a reply in another version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST: Final = re.compile(rb"(%b) +([!-~]+) +(?:HTTP|RTSP|ICE)/(\d)\.(\d)\r\n" % _TOKEN)
_STATUS: Final = re.compile(rb"HTTP/(?:1\.[01]|0\.9|2\.0) (\d{3})(?: [^\r\n]*)?\r\n")
_FIELD: Final = re.compile(rb"(%b):([\t\x20-\x7e\x80-\xff]*)\r\n" % _TOKEN)
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class Unreadable(ValueError):
    """What is no HTTP/1.1, or not all of it."""


@dataclass(frozen=True)
class Message:
    """One request or reply."""

    method: bytes
    target: bytes
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Reader:
    """Reads from the beginning of some bytes to their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def requests(self) -> list[Message]:
        """Return the requests up to the first that cannot be read."""
        found = list[Message]()
        try:
            while self.at < len(self._data):
                found.append(self._request())
        except Unreadable:
            pass
        return found

    def reply(self) -> Message:
        """Return the first reply that is not only announced, ended by its length or by the end; raises Unreadable."""
        while True:
            self._skip_empty_lines()
            status = int(self._match(_STATUS)[1])
            headers = self._fields()
            if status >= 200:
                break
        coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
        if status in (204, 304):
            return Message(b"", b"", status, headers, b"")
        if coding is None and length is None:
            return Message(b"", b"", status, headers, self._data[self.at :])
        return Message(b"", b"", status, headers, self._body(coding, length))

    def _request(self) -> Message:
        self._skip_empty_lines()
        line = self._match(_REQUEST)
        headers = self._fields()
        body = self._body(headers.get(b"transfer-encoding"), headers.get(b"content-length"))
        return Message(line[1], line[2], 0, headers, body)

    def _skip_empty_lines(self) -> None:
        while self._data[self.at : self.at + 1] in (b"\r", b"\n"):
            self.at += 1

    def _match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = pattern.match(self._data, self.at)
        if found is None:
            raise Unreadable
        self.at = found.end()
        return found

    def _take(self, size: int) -> bytes:
        taken = self._data[self.at : self.at + size]
        if len(taken) < size:
            raise Unreadable
        self.at += size
        return taken

    def _fields(self) -> dict[bytes, bytes]:
        found = dict[bytes, bytes]()
        while self._data[self.at : self.at + 2] != b"\r\n":
            field = self._match(_FIELD)
            name, value = field[1].lower(), field[2].strip(b" \t")
            found[name] = found[name] + b", " + value if name in found else value
        self.at += 2
        return found

    def _body(self, coding: bytes | None, length: bytes | None) -> bytes:
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise Unreadable
            return self._chunks()
        if length is None:
            return b""
        if not length.isdigit():
            raise Unreadable
        return self._take(int(length))

    def _chunks(self) -> bytes:
        parts = list[bytes]()
        while size := int(self._match(_SIZE)[1], 16):
            parts.append(self._take(size))
            if self._take(2) != b"\r\n":
                raise Unreadable
        self._fields()
        return b"".join(parts)
