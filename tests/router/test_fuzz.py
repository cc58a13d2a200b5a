"""A few thousand seeded inputs of `make fuzz`, and what fuzzing once found, as the smallest input that showed it."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from e2e.fuzz.router.__main__ import targets
from e2e.fuzz.router.doubles import Loop, Transport
from e2e.fuzz.router.runner import resident, run
from e2e.fuzz.router.target import Target, demand
from modeltiers.domain.routing.table import Tier
from modeltiers.router.connection import Failure, Head
from modeltiers.router.requests import Bounds, Request
from modeltiers.router.server import Client, Server
from modeltiers.router.upstream import Attempt, Pool
from tests.router.kit.upstream import Swallowing

INPUTS = {"requests": 2_500, "bodies": 5_000, "streams": 1_500, "replies": 5_000}
EXPECTED = {
    "requests": {"taken", "refused"},
    "bodies": {"taken", "refused", "Rule", "Floor", "ScoreLow", "ContextFit", "Override", "NotReady"},
    "streams": {"done", "failed"},
    "replies": {"whole", "kept", "Broken"},
}
"""What some of a target's inputs must come to: one that refuses all tests nothing."""


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_what_clients_and_tiers_send_breaks_nothing(target: Target) -> None:
    before = resident()
    report = run(target, 1, range(INPUTS[target.name]))
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.inputs == INPUTS[target.name]
    assert EXPECTED[target.name] <= report.seen.keys()
    assert resident() - before < 16 * 2**20


class Marked:
    """A target in which one byte is a fault."""

    name = "marked"

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def make(self, dice: Random) -> bytes:
        return bytes(dice.choice(b"abcdefgh!") for _ in range(40))

    def check(self, data: bytes, dice: Random) -> None:
        demand(b"!" not in data, "a mark")


def test_a_finding_is_made_small_and_can_be_made_again() -> None:
    first, again = (run(Marked(), 1, range(100)) for _ in range(2))
    assert {finding.data for finding in first.findings} == {b"!"}
    assert [finding.number for finding in first.findings] == [finding.number for finding in again.findings]
    assert f"--at {first.findings[0].number}" in str(first.findings[0])


# -- found by fuzzing -------------------------------------------------------------------------------------------------


class Kept:
    """An exchange that waits."""

    def gone(self) -> None:
        """Do nothing."""

    def pause(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""


def test_what_comes_right_after_an_answer_is_read_behind_what_was_sent_ahead() -> None:
    """It was read before it: the body of a request became a request of its own."""
    loop, taken = Loop(), list[tuple[bytes, bytes]]()

    def handle(client: Client, request: Request) -> Kept:
        taken.append((request.target, request.body))
        return Kept()

    client = Client(Server(Bounds(), handle, loop.real))
    Transport(loop, client)
    body = b"POST /evil HTTP/1.1\r\nhost: x\r\n\r\n"
    client.data_received(b"POST /first HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    client.data_received(b"POST /second HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
    client.reply(200, b"", b"ok")
    client.data_received(body)
    loop.settle()
    assert taken == [(b"/first", b""), (b"/second", body)]


class Silent:
    """A sink that must hear nothing."""

    def upstream_head(self, head: Head) -> None:
        raise AssertionError(head)

    def upstream_data(self, data: bytes) -> None:
        raise AssertionError(data)

    def upstream_end(self) -> None:
        raise AssertionError

    def upstream_failed(self, failure: Failure) -> None:
        raise AssertionError(failure)


@pytest.mark.parametrize("turns", range(4))
async def test_an_attempt_that_is_given_up_while_it_connects_is_not_counted_for_ever(turns: int) -> None:
    """Given up before its task began, it was: in the end the address took nothing any more."""
    with Swallowing() as nowhere:
        pool = Pool(Tier(name="t", address=nowhere.address), asyncio.get_running_loop())
        attempt = Attempt(pool, [b""], Silent())
        assert attempt.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.abort()
        await asyncio.sleep(0.02)
        assert pool.addresses[0].in_flight == 0


def test_what_was_sent_ahead_is_not_begun_for_a_client_that_has_left() -> None:
    """It was: nobody told the tier to stop."""
    loop, taken = Loop(), list[bytes]()

    def handle(client: Client, request: Request) -> Kept:
        taken.append(request.target)
        return Kept()

    client = Client(Server(Bounds(), handle, loop.real))
    transport = Transport(loop, client)
    client.data_received(b"".join(b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % n for n in range(2)))
    transport.lose(ConnectionResetError())  # heard of before what was sent ahead is taken up
    client.reply(200, b"", b"ok")
    loop.settle()
    assert taken == [b"/0"]
