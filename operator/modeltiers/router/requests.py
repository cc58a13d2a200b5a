"""A request as it came: what of a head is refused, and a head that is known already.

Knows the rules of HTTP/1.1 that two readers could read differently, and nothing of sockets.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from modeltiers.router.replies import Refusal

ONCE: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"expect",
        b"x-modeltiers-hop",
    )
)
CONNECTION: Final = frozenset((b"keep-alive", b"close", b"te", b""))


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may take of the router; sizes in bytes, times in seconds."""

    head_bytes: int = 32_768
    head_seconds: float = 10
    body_bytes: int = 10 * 2**20
    body_seconds: float = 30
    idle_seconds: float = 60
    write_seconds: float = 30
    connections: int = 4_096
    connections_per_client: int = 1_024


class Request:
    """One request as it came; header names in lower case."""

    __slots__ = ("body", "facts", "headers", "keep_alive", "method", "peer", "target", "version")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.target = self.method = self.body = b""
        self.version = ""
        self.headers: dict[bytes, bytes] = {}
        self.keep_alive = True
        self.facts: Any = None
        """What whoever handles it has made of the head, to be found again where the same head comes again."""


class Known:
    """A head that the parser found good, and the request it made of it: clients say the same again, but for the length.

    Bytes that are the same, and another length, would parse to the same. So only what differs is read, and the request
    is the same object each time: a connection has one in hand at a time.
    """

    __slots__ = ("_after", "_before", "_like")

    def __init__(self, before: bytes, after: bytes, like: Request) -> None:
        self._before, self._after, self._like = before, after, like

    def again(self, data: bytes, bounds: Bounds) -> Request | None:
        """Return the request, if this is one and nothing else, with the head that is known."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        begin = len(before)
        end = data.find(b"\r", begin, begin + 9)
        length = data[begin:end]
        if not length.isdigit() or not data.startswith(after, end):
            return None
        body = data[end + len(after) :]
        if int(length) != len(body) or len(body) > bounds.body_bytes:
            return None
        like = self._like
        like.headers[b"content-length"] = length
        like.body = body
        return like


def learn(data: bytes, request: Request) -> Known | None:
    """Return what a read teaches that was one whole request with a plain length; nothing where it was more."""
    headers, length = request.headers, len(request.body)
    if not length or not request.keep_alive or b"transfer-encoding" in headers or b"expect" in headers:
        return None
    head = data[: len(data) - length]
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0 or not head.endswith(b"\r\n\r\n") or head.find(b"\r\n\r\n") != len(head) - 4:
        return None
    begin = at + 17
    while head[begin : begin + 1] == b" ":
        begin += 1
    end = head.find(b"\r", begin)
    if head[begin:end] != headers.get(b"content-length") or int(head[begin:end]) != length:
        return None
    return Known(head[:begin], head[end:], request)


def judge(request: Request) -> None:
    """Refuse a head that another reader could read differently, or that means to change the protocol."""
    headers = request.headers
    if request.version not in ("1.1", "1.0"):
        raise Refusal(505, "this server speaks HTTP/1.1")
    if request.version == "1.0" and b"transfer-encoding" in headers:
        raise Refusal(400, "HTTP/1.0 has no transfer encodings")
    if request.version == "1.1" and b"host" not in headers:
        raise Refusal(400, "the header host is missing")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or b"content-length" in headers):
        raise Refusal(400, "the only transfer encoding understood is chunked, without content-length")
    named = headers.get(b"connection")
    if named is not None and not {token.strip().lower() for token in named.split(b",")} <= CONNECTION:
        raise Refusal(400, "the header connection may only say keep-alive or close")
    if b"upgrade" in headers:
        raise Refusal(400, "this server speaks HTTP/1.1 and upgrades to nothing")
    if any(b"\0" in value for value in headers.values()):
        raise Refusal(400, "a header holds a NUL byte")
