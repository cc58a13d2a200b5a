"""Target: how the router reads a tier's replies. Mutated heads and framing, cut anywhere, ended in every way.

What must hold: just one end reaches the sink and nothing after it; a reply called whole is whole for the strict reader,
with the same body; cut differently, the same; and a connection that is kept gives the next request its own reply.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from e2e.fuzz.router.doubles import Loop, Transport
from e2e.fuzz.router.reference import Reader, Unreadable
from e2e.fuzz.router.target import cuts, demand, spoil
from modeltiers.domain.routing.table import Tier
from modeltiers.router.connection import Connection, Failure, Head
from modeltiers.router.upstream import Pool

WORDS: Final = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.0 ",
    b"HTTP/0.9 ",
    b" 304 ",
    b" 999 ",
    b"Content-Length: ",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: ",
    b"chunked",
    b"gzip, ",
    b"identity",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b";a=b",
    b"ffffffffffffffff\r\n",
    b"0x",
    b"+",
    b"-1",
    b"\r\n ",
    b"\n\n",
)
NEXT: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


class Kept:
    """A sink that keeps what it is told, and what must not be."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.parts: list[bytes] = []
        self.end: str | None = None

    def upstream_head(self, head: Head) -> None:
        """Keep the head."""
        demand(self.head is None and self.end is None, "a second head, or one after the end")
        self.head = head

    def upstream_data(self, data: bytes) -> None:
        """Keep some of the body."""
        demand(self.head is not None and self.end is None, "data before a head, or after the end")
        self.parts.append(data)

    def upstream_end(self) -> None:
        """Keep the end."""
        demand(self.head is not None and self.end is None, "an end before a head, or a second one")
        self.end = "whole"

    def upstream_failed(self, failure: Failure) -> None:
        """Keep the failure."""
        demand(self.end is None, "a failure after the end")
        self.end = failure

    @property
    def outcome(self) -> tuple[str | None, int, bytes]:
        whole = self.end == "whole" and self.head is not None
        return self.end, self.head.status if whole and self.head else 0, b"".join(self.parts) if whole else b""


class Replies:
    """Replies as bytes."""

    name = "replies"

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._tier = Tier(name="t", address="127.0.0.1:1")

    def make(self, dice: Random) -> bytes:
        """Return a reply, spoiled."""
        return spoil(_reply(dice), dice, WORDS)

    def check(self, data: bytes, dice: Random) -> None:
        """Read it whole and cut, then ask again on what is kept."""
        ends = dice.random() < 0.7
        whole = self._run([data] if data else [], ends=ends)
        demand(whole == (again := self._run(cuts(data, dice) if data else [], ends=ends)), f"{whole}, cut: {again}")
        end, status, body = whole
        if end == "whole":
            try:
                read = Reader(data).reply()
            except Unreadable:
                demand(False, f"a reply that the strict reader does not read was called whole: {body!r}")
            else:
                demand((read.status, read.body) == (status, body), f"read {whole}, the strict reader {read}")
        self.seen[str(end)] += 1

    def _run(self, pieces: list[bytes], *, ends: bool) -> tuple[str | None, int, bytes]:
        """Ask once, and again if the connection is kept; then the other side ends it, in order or not."""
        loop = Loop()
        pool = Pool(self._tier, loop.real)
        address = pool.addresses[0]
        connection = Connection(address)
        transport = Transport(loop, connection)
        sink = self._ask(connection)
        for piece in pieces:
            if not transport.is_closing():
                connection.data_received(piece)
        if ends and not transport.is_closing():
            connection.eof_received()
            transport.close()
        loop.settle()
        if (kept := address.take()) is not None:
            self.seen["kept"] += 1
            after = self._ask(kept)
            kept.data_received(NEXT)
            demand(after.outcome == ("whole", 200, b"next"), f"the next request got {after.outcome}")
        transport.lose(None)
        loop.settle()
        demand(sink.end is not None, "the connection ended and nobody was told")
        demand(address.in_flight == 0, f"{address.in_flight} in flight after the end")
        demand(not pool.active, "still active after the end")
        demand(address.take() is None, "a connection that ended was kept")
        return sink.outcome

    def _ask(self, connection: Connection) -> Kept:
        sink, address = Kept(), connection.address
        address.in_flight += 1
        address.pool.active.add(connection)
        connection.send([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"], sink)
        return sink


def _reply(dice: Random) -> bytes:
    status = dice.choice((200, 200, 200, 204, 304, 404, 500, 599))
    lines = [b"HTTP/1.1 %d OK" % status, *dice.sample((b"Server: uvicorn", b"Date: x", b"X-A: b", b"X-B:"), 2)]
    if dice.random() < 0.1:
        lines[0] = lines[0].replace(b"1.1", b"1.0")
    if dice.random() < 0.15:
        lines.append(dice.choice((b"Connection: close", b"Connection: keep-alive")))
    body = dice.choice((b"", b'{"a":1}', b"hello", b"HTTP/1.1 200 OK\r\n\r\n", b"data: x\n\n"))
    framing = dice.random()
    if framing < 0.4:
        lines.append(b"Content-Length: %d" % len(body))
    elif framing < 0.85:
        lines.append(b"Transfer-Encoding: chunked")
        trailer = dice.choice((b"", b"", b"X-T: y\r\n"))
        body = (
            b"".join(b"1%b\r\n%c\r\n" % (dice.choice((b"", b";a=b")), one) for one in body) + b"0\r\n%b\r\n" % trailer
        )
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" if dice.random() < 0.1 else b""
    return early + b"\r\n".join((*lines, b"", b"")) + body
