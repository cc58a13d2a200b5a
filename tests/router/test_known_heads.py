"""A head that is known is taken for what the parser would make of it, and for nothing else."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any, cast

import pytest

from modeltiers.router import server
from modeltiers.router.requests import Bounds, Request
from modeltiers.router.server import Client, Server

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: %b\r\nAuthorization: Bearer k\r\n\r\n"
)


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.out = list[bytes]()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.out.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.out += parts

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    close = abort

    def pause_reading(self) -> None:
        """Nothing comes by itself here."""

    def resume_reading(self) -> None:
        """Nothing comes by itself here."""

    def get_write_buffer_size(self) -> int:
        return 0


def replies(reads: list[bytes], loop: asyncio.AbstractEventLoop, bounds: Bounds) -> tuple[list[Any], bytes]:
    """Return the requests that were made of these reads, and what was written."""
    seen = list[Any]()

    def handle(client: Client, request: Request) -> None:
        seen.append((request.method, request.target, request.version, dict(request.headers), request.body))
        client.reply(200, b"", b"ok")

    transport = Transport()
    client = Server(bounds, cast(Any, handle), loop).protocol()
    client.connection_made(cast(Any, transport))
    for data in reads:
        client.data_received(data)
        for _ in range(2 * server.PIPELINE):  # what was sent ahead is taken up in turns of the loop
            loop.run_until_complete(asyncio.sleep(0))
    return seen, b"".join(transport.out)


def whole(length: bytes, body: bytes) -> bytes:
    return HEAD % length + body


@pytest.mark.parametrize(
    "second",
    [
        whole(b"3", b"abc"),
        whole(b"12", b"abcdefghijkl"),
        whole(b"0", b""),
        whole(b"003", b"abc"),
        whole(b"+3", b"abc"),
        whole(b"3 ", b"abc"),
        whole(b"3,3", b"abc"),
        whole(b"", b"abc"),
        whole(b"0x3", b"abc"),
        whole(b"\xb2", b"ab"),
        whole(b"4", b"abc"),
        whole(b"2", b"abc"),
        whole(b"3", b"abc") + whole(b"1", b"x"),
        whole(b"3", b"abc") + b"GET / HTTP/1.1\r\n",
        whole(b"99999999", b"abc"),
        whole(b"999999999999", b"abc"),
        whole(b"21", b"x" * 21),
        whole(b"3", b"abc").replace(b"Bearer k", b"Bearer j"),
        whole(b"3", b"abc").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"),
        whole(b"3", b"abc").replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        whole(b"3\r\nX: y", b"abc"),
        whole(b"3\n", b"abc"),
        b"\r\n" + whole(b"3", b"abc"),
    ],
)
def test_a_second_request_is_what_the_parser_alone_makes_of_it(second: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    bounds = Bounds(body_bytes=20)
    reads = [whole(b"2", b"hi"), second, whole(b"1", b"z")]
    here = replies(reads, loop, bounds)
    monkeypatch.setattr(server, "LESSONS", 0)
    assert here == replies(reads, loop, bounds)
    loop.close()


def test_however_requests_are_cut_they_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    dice = random.Random(11)  # noqa: S311 - repeatable, not secret
    known = server.LESSONS
    for _ in range(200):
        bodies = [b"b" * dice.choice((1, 2, 9, 10, 11, 20)) for _ in range(5)]
        stream = b"".join(whole(b"%d" % len(body), body) for body in bodies)
        cuts = sorted({0, len(stream), *(dice.randrange(len(stream)) for _ in range(dice.randrange(8)))})
        ends = [len(b"".join(whole(b"%d" % len(one), one) for one in bodies[:n])) for n in range(6)]
        cuts = sorted({*cuts, *dice.sample(ends, dice.randrange(6))})
        reads = [stream[begin:end] for begin, end in pairwise(cuts)]
        monkeypatch.setattr(server, "LESSONS", known)
        here = replies(reads, loop, Bounds())
        monkeypatch.setattr(server, "LESSONS", 0)
        assert here == replies(reads, loop, Bounds())
        assert [one[4] for one in here[0]] == bodies
    loop.close()


def test_a_head_is_learned_and_then_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    parsed = list[bytes]()
    begin = Client.on_url
    monkeypatch.setattr(Client, "on_url", lambda self, url: (parsed.append(url), begin(self, url))[1])
    seen, _ = replies([whole(b"%d" % n, b"x" * n) for n in (2, 3, 11, 9)], loop, Bounds())
    assert [len(one[4]) for one in seen] == [2, 3, 11, 9]
    assert [one[3][b"content-length"] for one in seen] == [b"2", b"3", b"11", b"9"]
    assert len(parsed) == 1
    loop.close()
