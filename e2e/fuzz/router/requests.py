"""Target: how the router reads requests. Mutated heads and framing, cut anywhere, answered at any moment.

What must hold: whatever is taken for a request, the strict reader takes for the same; cut differently, it is the same;
one at a time; every reply is whole; after a refusal nothing more is read or written.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from e2e.fuzz.router.doubles import Loop, Transport
from e2e.fuzz.router.reference import Reader
from e2e.fuzz.router.target import cuts, demand, spoil
from modeltiers.router.replies import Refusal
from modeltiers.router.requests import Bounds, Request
from modeltiers.router.server import Client, Server

WORDS: Final = (
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: ",
    b"chunked",
    b"identity",
    b"gzip, ",
    b"Host: x\r\n",
    b"Connection: close\r\n",
    b"Connection: ",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"CONNECT ",
    b"0\r\n\r\n",
    b"5\r\n",
    b"0x",
    b"-1",
    b"+",
    b";a=b",
    b';a="\r\n"',
    b"ffffffffffffffff\r\n",
    b"18446744073709551617",
    b"\r\n ",
    b"\n\n",
    b"POST /evil HTTP/1.1\r\nHost: e\r\n\r\n",
    b"/v1/chat/completions",
    b"http://x/",
)
Taken = tuple[bytes, bytes, dict[bytes, bytes], bytes]


class Answer:
    """An exchange of a request that is answered when the die says so."""

    def __init__(self, client: Client, number: int, *, streams: bool) -> None:
        self._client, self._number, self._streams = client, number, streams
        self.over = False

    def gone(self) -> None:
        """Learn that nobody waits."""
        self.over = True

    def pause(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Answer: whole, or as a stream."""
        self.over = True
        if not self._streams:
            self._client.reply(200, b"x-number: %d\r\n" % self._number, b"whole")
        else:
            self._client.begin(200, b"x-number: %d\r\n" % self._number, b"first")
            self._client.send(b"second")
            self._client.end()


class Run:
    """One connection from its beginning to its end."""

    def __init__(self, pieces: list[bytes], dice: Random | None, *, rough: bool = False) -> None:
        """Run it; a rough one has a client that also reads slowly, waits too long or leaves."""
        self.loop = Loop()
        self.server = Server(Bounds(), self._handle, self.loop.real)
        self.taken: list[Taken] = []
        self._answers: list[Answer] = []
        self.begun: list[Answer] = []
        self.client = Client(self.server)
        self.transport = Transport(self.loop, self.client)
        self._dice, self._rough = dice, rough
        for piece in pieces:
            if self.transport.is_closing():
                break
            self.client.data_received(piece)
            self._move()
        while self._answers or self._turns():
            self._finish()
        if not self.transport.is_closing():
            self.transport.lose(None)
        self.loop.settle()

    def _handle(self, client: Client, request: Request) -> Answer | None:
        demand(all(answer.over for answer in self._answers), "a request was begun while another was being answered")
        demand(not self.transport.ended, "a request was begun after the end")
        demand(client in self.server.clients, "a request was begun for a client that has left")
        self.taken.append((request.method, request.target, _bare(request.headers), request.body))
        number = len(self.taken)
        if number % 5 == 4:
            raise Refusal(400, "no")
        answer = Answer(client, number, streams=number % 2 == 0 and request.method != b"HEAD")
        if number % 5 == 3:
            answer.finish()
            return None
        self._answers.append(answer)
        self.begun.append(answer)
        return answer

    def _move(self) -> None:
        """Let the loop turn, or an answer end, between two reads: or neither."""
        if self._dice is None:
            return
        if self._dice.random() < 0.5:
            self._finish()
        if self._dice.random() < 0.5:
            self.loop.turn()
        if self._rough and self._dice.random() < 0.1:
            self._dice.choice((self._wait, self._read_slowly, self._read_on, self._leave))()

    def _wait(self) -> None:
        self.loop.now += 40
        self.server.sweep(self.loop.now)

    def _read_slowly(self) -> None:
        self.transport.left = 100_000
        self.client.pause_writing()

    def _read_on(self) -> None:
        if self.transport.left:
            self.transport.left = 0
            self.client.resume_writing()

    def _leave(self) -> None:
        self.transport.lose(ConnectionResetError())

    def _finish(self) -> None:
        if self._answers and not (answer := self._answers.pop()).over:
            answer.finish()

    def _turns(self) -> bool:
        self.loop.settle()
        return bool(self._answers)

    @property
    def refused(self) -> bool:
        return bool(sum(self.server.refused.values()))


class Requests:
    """Requests as bytes."""

    name = "requests"

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def make(self, dice: Random) -> bytes:
        """Return one to four requests, spoiled."""
        return spoil(b"".join(_request(dice) for _ in range(dice.choice((1, 1, 2, 3, 4)))), dice, WORDS)

    def check(self, data: bytes, dice: Random) -> None:
        """Read it whole and cut, and compare with the strict reader."""
        whole, cut = Run([data], None), Run(cuts(data, dice) if data else [], dice)
        expected = [(one.method, one.target, _bare(one.headers), one.body) for one in Reader(data).requests()]
        rough = Run(cuts(data, dice) if data else [], dice, rough=True)
        for run in (whole, cut, rough):
            demand(run.taken == expected[: len(run.taken)], f"taken: {run.taken}; the strict reader: {expected}")
            demand(run.client not in run.server.clients, "a connection that ended is still counted")
            demand(not run.server.peers, "a client that left is still counted")
            demand(all(answer.over for answer in run.begun), "the client left, and who worked for it was not told")
        for run in (whole, cut):
            replies = _replies(b"".join(run.transport.written), run)
            demand(replies == len(run.taken) + run.refused, f"{replies} replies to {len(run.taken)} requests")
        short, long = sorted((whole, cut), key=lambda run: len(run.taken))
        demand(long.taken[: len(short.taken)] == short.taken, "cut differently, other requests")
        demand(len(short.taken) == len(long.taken) or _may_end(short), "cut differently, fewer requests")
        self.seen["taken"] += len(whole.taken)
        self.seen["refused"] += whole.refused


def _bare(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return headers without blanks: where a value is trimmed moves no boundary."""
    return {name: value.translate(None, b" \t") for name, value in headers.items()}


def _may_end(run: Run) -> bool:
    return run.refused or run.transport.ended


def _replies(data: bytes, run: Run) -> int:
    """Return how many replies were written; the strict reader must read them all."""
    count, reader = 0, Reader(data)
    methods = [one[0] for one in run.taken]
    while reader.at < len(data):
        begin, end = reader.at, data.index(b"\r\n\r\n", reader.at) + 4
        if data.startswith(b"HTTP/1.1 100 ", begin):
            reader.at = end
            continue
        if count < len(methods) and methods[count] == b"HEAD":
            reader.at = end
        else:
            reader.reply()
        if reader.at == begin or not _says_length(data[begin:end]):
            reader.at = len(data)
        count += 1
    return count


def _says_length(head: bytes) -> bool:
    return b"content-length" in head or b"chunked" in head


def _request(dice: Random) -> bytes:
    method = dice.choice((b"POST", b"POST", b"POST", b"GET", b"HEAD", b"OPTIONS"))
    lines = [b"%b /v1/%b HTTP/1.1" % (method, dice.choice((b"models", b"chat/completions"))), b"Host: x"]
    if dice.random() < 0.1:
        lines[0] = lines[0][:-1] + b"0"
    lines += dice.sample((b"X-A: b", b"Accept: */*", b"Content-Type: application/json", b"x-a: c", b"Cookie:"), 2)
    if dice.random() < 0.1:
        lines.append(b"Connection: " + dice.choice((b"close", b"keep-alive", b"keep-alive, close")))
    body = dice.choice((b"", b"{}", b"hello", b"GET /evil HTTP/1.1\r\nHost: e\r\n\r\n", b"0\r\n\r\n"))
    framing = dice.random()
    if framing < 0.45:
        lines.append(b"Content-Length: %d" % len(body))
    elif framing < 0.9:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(body, dice)
    else:
        body = b""
    return b"\r\n".join((*lines, b"", b"")) + body


def _chunked(body: bytes, dice: Random) -> bytes:
    parts, at = list[bytes](), 0
    while at < len(body):
        piece = body[at : at + dice.randrange(1, 12)]
        extension = dice.choice((b"", b"", b";a", b";a=b", b';a="b c"'))
        parts.append(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece))
        at += len(piece)
    trailer = dice.choice((b"", b"", b"", b"X-T: y\r\n", b"Host: e\r\n"))
    return b"".join((*parts, b"0\r\n", trailer, b"\r\n"))
