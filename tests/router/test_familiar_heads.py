"""A reply's head that is known is taken for what the parser would make of it, and for nothing else."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from modeltiers.domain.routing.table import Tier
from modeltiers.router.connection import Connection, Failure, Head
from modeltiers.router.familiar import LESSONS
from modeltiers.router.upstream import Address, Pool
from tests.router.test_known_heads import Transport

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
HEAD = b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: uvicorn\r\ncontent-length: %b\r\ncontent-type: application/json\r\n\r\n"


def whole(body: bytes, date: bytes = DATE, length: bytes | None = None) -> bytes:
    return HEAD % (date, length or b"%d" % len(body)) + body


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.said = list[Any]()

    def upstream_head(self, head: Head) -> None:
        self.said.append((head.status, head.get(b"content-type"), head.get(b"server")))

    def upstream_data(self, data: bytes) -> None:
        if isinstance(self.said[-1], bytes):
            self.said[-1] += data
        else:
            self.said.append(data)

    def upstream_end(self) -> None:
        self.said.append("whole")

    def upstream_failed(self, failure: Failure) -> None:
        self.said = [failure]  # what of a broken reply came before is nobody's answer


async def address() -> Address:
    return Pool(Tier(name="t", address="127.0.0.1:1"), asyncio.get_running_loop()).addresses[0]


def ask(where: Address, reads: list[bytes]) -> tuple[list[Any], bool]:
    """Return what a sink is told of these reads on a fresh connection, and whether the connection is kept."""
    connection, sink, transport = Connection(where), Kept(), Transport()
    connection.connection_made(cast(Any, transport))
    where.in_flight += 1
    connection.send([b"GET / HTTP/1.1\r\n\r\n"], sink)
    for data in reads:
        if not transport.closed:
            connection.data_received(data)
    if connection.sink is not None:
        connection.connection_lost(None)
    return sink.said, not transport.closed


async def taught() -> Address:
    found = await address()
    ask(found, [whole(b"{}")])
    assert found.familiar is not None
    return found


async def test_a_head_is_learned_and_the_next_reply_needs_no_parser() -> None:
    known = await taught()
    assert known.familiar is not None
    later = whole(b"x" * 1000, b"Mon, 07 Nov 1994 08:49:38 GMT")
    assert known.familiar.body(later) == b"x" * 1000
    assert ask(known, [later]) == ([(200, b"application/json", b"uvicorn"), b"x" * 1000, "whole"], True)


NOT_FAMILIAR = {
    "shorter body": whole(b"{}", length=b"3"),
    "more behind it": whole(b"{}") + b"HTTP/1.1 200 OK\r\n",
    "longer length": whole(b"{}", length=b"1"),
    "a sign": whole(b"{}", length=b"+2"),
    "a space": whole(b"{}", length=b" 2"),
    "no digits": whole(b"{}", length=b"\xb2"),
    "a date that is none": whole(b"{}", b"Sun, 06 Nov 1994 08:49:37 UTC"),
    "a line in the date": whole(b"{}", b"Sun, 06 Nov\r\nx: 08:49:37 GMT"),
    "another status": whole(b"{}").replace(b"200 OK", b"500 No", 1),
    "another header": whole(b"{}").replace(b"uvicorn", b"Uvicorn", 1),
    "two lengths": whole(b"{}").replace(b"server: uvicorn", b"content-length: 2", 1),
    "closes": whole(b"{}").replace(b"server: uvicorn", b"connection: close", 1),
}


@pytest.mark.parametrize("case", NOT_FAMILIAR)
async def test_what_differs_is_read_by_the_parser(case: str) -> None:
    known, data = await taught(), NOT_FAMILIAR[case]
    assert known.familiar is not None
    assert known.familiar.body(data) is None
    assert ask(known, [data]) == ask(await address(), [data])


async def test_spoiled_and_cut_replies_are_read_as_without_what_was_learned() -> None:
    dice, known = random.Random(5), await taught()  # noqa: S311  the same each time
    for _ in range(3_000):
        body = bytes(dice.choices(b"{}\r\n0 ", k=dice.randrange(0, 30)))
        data = bytearray(whole(body))
        for _ in range(dice.randrange(3)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        cut = dice.choice((len(data), dice.randrange(len(data) + 1)))
        reads = [bytes(one) for one in (data[:cut], data[cut:]) if one]
        assert ask(known, reads) == ask(await address(), reads), reads


async def test_a_server_whose_heads_all_differ_is_learned_from_a_few_times_only() -> None:
    found = await address()
    for number in range(2 * LESSONS):
        found.familiar = None
        ask(found, [whole(b"{}").replace(b"uvicorn", b"u%d" % number)])
    assert found.familiar is None


@pytest.mark.parametrize("status", [b"201 OK", b"404 Not", b"503 No"])
async def test_only_answers_are_learned(status: bytes) -> None:
    found = await address()
    ask(found, [whole(b"{}").replace(b"200 OK", status)])
    assert found.familiar is None
