"""Requests that two readers could frame differently: each is refused and the end, or reaches the tier as just one.

The corpus says what is sent and what must come of it. What the tier saw is compared byte for byte with what a plain
request becomes, and the next request on the same connection shows where the router thought the last one ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.router.kit.client import CHAT, Wire, chat_body, replies, request
from tests.router.kit.setup import Shared, shared

CORPUS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "corpus/smuggling.json").read_text())["cases"]
BODY, AFTER, EVIL_BODY, NEXT_BODY = (chat_body(text) for text in ("good", "after", "EVIL", "next"))
EVIL, NEXT = request(EVIL_BODY, host="evil"), request(NEXT_BODY)
CHUNK: Final = b"%x\r\n%b\r\n" % (len(BODY), BODY)
LAST: Final = b"0\r\n\r\n"
PARTS: Final = {
    b"<POST>": b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % CHAT.encode(),
    b"<BODY>": BODY,
    b"<N>": b"%d" % len(BODY),
    b"<X>": b"%X" % len(BODY),
    b"<CHUNK>": CHUNK,
    b"<LAST>": LAST,
    b"<EVIL>": EVIL,
    b"<EVILN>": b"%d" % len(EVIL),
    b"<EVILX>": b"%x" % len(EVIL),
    b"<NEXT>": NEXT,
}
REFUSALS: Final = range(400, 600)


def bytes_of(case: str) -> bytes:
    """Return what a case sends."""
    text = "".join(CORPUS[case]["send"]).encode("latin-1")
    return re.sub(rb"<[A-Z]+>", lambda found: PARTS[found[0]], text)


def plain(head: bytes) -> bytes:
    """Return a head that a tier got, without what differs from request to request."""
    return re.sub(rb"(?m)^(x-request-id|content-length): [!-~]+\r$", rb"\1\r", head)


@pytest.fixture(scope="module")
def started() -> Iterator[Shared]:
    times = {"firstByteMs": 5_000, "idleMs": 5_000}
    with shared("--head-seconds", "0.5", "--body-seconds", "0.5", "--idle-seconds", "1", timeouts=times) as both:
        yield both


@pytest.fixture(scope="module")
def usual(started: Shared) -> bytes:
    """The head that a plain request becomes."""
    started.begin()
    with Wire(started.port) as wire:
        assert wire.send(request(BODY)).reply().status == 200
    return plain(started.first.requests[0].head)


@pytest.fixture
def pair(started: Shared, usual: bytes) -> Iterator[Shared]:
    started.begin()
    yield started
    started.end()


# -- what must come of it ---------------------------------------------------------------------------------------------


def goes_on(wire: Wire) -> None:
    """Fail unless the next request on this connection is read from its first byte on."""
    assert wire.send(request(AFTER)).reply(3).status == 200


def refused(wire: Wire, method: str) -> list[bytes]:
    (reply,) = replies(wire.until_closed(3))
    assert reply.status in REFUSALS
    assert reply.header("connection") == "close"
    assert reply.error["message"]
    return []


def own(wire: Wire, method: str) -> list[bytes]:
    reply = wire.reply(3, method=method)
    assert reply.status in REFUSALS or b'"support"' in reply.body or method == "HEAD"
    goes_on(wire)
    return [AFTER]


def one(wire: Wire, method: str) -> list[bytes]:
    assert wire.reply(3).status == 200
    goes_on(wire)
    return [BODY, AFTER]


def one_closed(wire: Wire, method: str) -> list[bytes]:
    reply = wire.reply(3)
    assert reply.status == 200
    assert reply.header("connection") == "close"
    assert wire.until_closed(3) == b""
    return [BODY]


def at_most_one(wire: Wire, method: str) -> list[bytes]:
    """What is behind a request that asks for the end may be refused with it, when it comes in the same packet."""
    said = replies(wire.until_closed(3))
    answered = [reply for reply in said if reply.status == 200]
    assert said
    assert said[: len(answered)] == answered
    assert all(reply.error["message"] for reply in said[len(answered) :])
    assert len(answered) <= 1
    return [BODY] * len(answered)


def two(wire: Wire, method: str) -> list[bytes]:
    assert [wire.reply(3).status, wire.reply(3).status] == [200, 200]
    goes_on(wire)
    return [BODY, NEXT_BODY, AFTER]


def own_one(wire: Wire, method: str) -> list[bytes]:
    assert wire.reply(3).status in REFUSALS
    assert wire.reply(3).status == 200
    goes_on(wire)
    return [NEXT_BODY, AFTER]


VERDICTS: Final[dict[str, Callable[[Wire, str], list[bytes]]]] = {
    "refused": refused,
    "own": own,
    "one": one,
    "one, closed": one_closed,
    "at most one": at_most_one,
    "two": two,
    "own, one": own_one,
}


@pytest.mark.parametrize("each", [0, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", CORPUS)
def test_p11_what_could_be_framed_in_two_ways(pair: Shared, usual: bytes, case: str, each: int) -> None:
    """The verdict returns the bodies that the tier must have seen, in order, and nothing else."""
    data, sockets = bytes_of(case), len(pair.first.seen.sockets)
    with Wire(pair.port) as wire:
        if each:
            all(wire.try_send(data[at : at + 1]) for at in range(len(data)))
        else:
            wire.send(data)
        expected = VERDICTS[CORPUS[case]["expect"]](wire, data.partition(b" ")[0].decode("latin-1"))
    pair.router.idle()
    seen = pair.first.requests
    assert [asked.body for asked in seen] == expected
    assert {plain(asked.head) for asked in seen} <= {usual}
    assert all(int(asked.header("content-length") or -1) == len(asked.body) for asked in seen)
    assert b"".join(one.junk for one in pair.first.seen.sockets[sockets:]) == b""
    assert pair.second.requests == []


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len({bytes_of(case) for case in CORPUS}) >= 60
    assert all(CORPUS[case]["expect"] in VERDICTS for case in CORPUS)
