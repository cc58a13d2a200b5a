"""A tier dies, hangs or is left by its client: nobody gets a mixed or a silently cut answer, and no engine works on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from e2e.cluster.report import HarnessError
from e2e.engine import ladder
from e2e.engine.pytest_plugin import Pair
from e2e.engine.server import Engine
from e2e.router.conftest import upfront_table
from e2e.router.figures import ENDLESS, eventually, figures
from e2e.router.streams import begun, ends_truthfully, rest
from tests.router.kit.client import Reply, Wire, chat, chat_body, request
from tests.router.kit.router import Router

pytestmark = pytest.mark.slow

SMALL, LARGE = ladder.SMALL[-1].text, ladder.LARGE[-1].text


def endless(router: Router, model: str = "small-only", *, stream: bool = True) -> Wire:
    """Ask for an answer that takes seconds; the caller closes the wire."""
    body = chat_body("on and on", model=model, stream=stream, **ENDLESS)
    return Wire(router.port, timeout=30).send(request(body))


# -- a client that leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_engine_s_work_within_a_second(
    upfront: Router, real_tiers: Pair, stream: bool
) -> None:
    small, _ = real_tiers
    before = figures(small)
    wire = endless(upfront, stream=stream)
    if stream:
        begun(wire)
    eventually(lambda: figures(small).running == 1)
    wire.close()
    took = eventually(lambda: figures(small).running == 0)
    assert took < 1.0
    grown = figures(small).since(before)
    assert grown.finished == 0
    assert grown.answer_tokens < ENDLESS["max_tokens"] / 2
    assert figures(small).since(before) == grown  # it does not work on
    eventually(lambda: upfront.metrics().value("in_flight") == 0)


def test_twenty_clients_that_leave_leave_nothing_behind(upfront: Router, real_tiers: Pair) -> None:
    small, _ = real_tiers
    before = figures(small)
    wires = [endless(upfront) for _ in range(20)]
    eventually(lambda: figures(small).running > 3)
    for wire in wires:
        wire.reset()
    eventually(lambda: figures(small).running == 0, 3)
    upfront.idle()
    assert figures(small).since(before).finished == 0
    assert chat(upfront.port, "hi").text == SMALL


# -- a router that ends -----------------------------------------------------------------------------------------------


def test_a_drain_waits_for_an_answer_that_has_begun(real_tiers: Pair) -> None:
    small, large = real_tiers
    with Router(upfront_table(small.address, large.address)) as router, Wire(router.port, timeout=30) as wire:
        wire.send(request(chat_body("on", model="small-only", stream=True, ignore_eos=True, max_tokens=1500)))
        eventually(lambda: figures(small).running == 1)
        drained = router.get("/drain?seconds=9")  # as the engine's preStop asks
        assert drained.json == {"drained": True, "inFlight": 0}
        assert router.get("/readyz").status == 503
        reply = wire.reply(5)
        assert reply.events[-1] == b"[DONE]"
        assert reply.text.startswith(SMALL * 100)


def test_a_drain_whose_time_is_up_ends_a_stream_with_an_error(real_tiers: Pair) -> None:
    small, large = real_tiers
    with Router(upfront_table(small.address, large.address)) as router, endless(router) as wire:
        got = begun(wire)
        router.terminate()  # a drain of half a second
        got += rest(wire, 5)
        assert router.ended() == 0
    ends_truthfully(got)
    assert eventually(lambda: figures(small).running == 0) < 1.0


# -- a tier that hangs ------------------------------------------------------------------------------------------------


def test_a_tier_that_hangs_is_passed_over_and_its_stream_ends_with_an_error(real_tiers: Pair) -> None:
    small, large = real_tiers
    quick = "timeouts: {firstByteMs: 700, idleMs: 700}, model: small"
    table = upfront_table(small.address, large.address).replace("model: small}", f"{quick}}}", 1)
    with Router(table) as router:
        with endless(router, "support") as wire:
            got = begun(wire)
            small.freeze()
            try:
                ends_truthfully(got + rest(wire, 5))
                for stream in (False, True):
                    reply = chat(router.port, "hi", stream=stream)
                    assert (reply.header("x-modeltiers-tier"), reply.text) == ("large", LARGE)
                    assert reply.header("x-modeltiers-decision") == "Fallback"
                alone = chat(router.port, "hi", model="small-only")
                assert alone.status in (503, 504)
                assert alone.error["message"]
            finally:
                small.thaw()


# -- a tier that dies -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="class")
def cut(real_tiers: Pair, upfront: Router) -> Iterator[bytes]:
    """What the client of the dying tier saw; the tier is dead until the class ends."""
    small, _ = real_tiers
    with endless(upfront, "support") as wire:
        got = begun(wire)
        small.kill()
        got += rest(wire, 5)
    yield got
    small.start().wait_ready()


class TestTheSmallTierDies:
    """While it streams. The tests of this class run in order: first what its client saw, last its return."""

    def test_its_stream_ends_with_an_error_and_no_other_tier_s_words(self, cut: bytes) -> None:
        ends_truthfully(cut)
        assert b"Looked" not in cut

    @pytest.mark.usefixtures("cut")
    @pytest.mark.parametrize("stream", [False, True])
    def test_the_next_tier_answers_instead(self, upfront: Router, stream: bool) -> None:
        for _ in range(8):
            reply = chat(upfront.port, "hi", stream=stream)
            assert reply.status == 200
            assert reply.text == LARGE
            assert reply.header("x-modeltiers-tier") == "large"
            assert reply.seconds < 2
            if stream:
                assert reply.events[-1] == b"[DONE]"

    @pytest.mark.usefixtures("cut")
    def test_a_policy_without_another_tier_says_so_at_once(self, upfront: Router) -> None:
        reply = chat(upfront.port, "hi", model="small-only")
        assert reply.status in (502, 503)
        assert reply.header("retry-after")
        assert reply.error["message"]
        assert reply.seconds < 1

    @pytest.mark.usefixtures("cut")
    def test_it_is_used_again_when_it_comes_back(self, real_tiers: Pair, upfront: Router) -> None:
        real_tiers[0].start().wait_ready()
        eventually(lambda: chat(upfront.port, "hi").header("x-modeltiers-tier") == "small", 30, every=0.25)
        assert chat(upfront.port, "hi").text == SMALL


@pytest.fixture(scope="class")
def seen(real_tiers: Pair, upfront: Router) -> Iterator[tuple[Router, bytes, Reply]]:
    small, large = real_tiers
    table = upfront_table(small.address, large.address)
    table = table.replace("model: large}", "timeouts: {idleMs: 1500, firstByteMs: 3000}, model: large}", 1)
    replies = list[Reply]()
    with Router(table) as router:
        ask = threading.Thread(
            target=lambda: replies.append(chat(router.port, "hi", model="large-only", seconds=30, **ENDLESS))
        )
        with endless(router, "large-only") as wire:
            ask.start()
            got = begun(wire)
            eventually(lambda: figures(large).running == 2)
            ending = threading.Thread(target=_end, args=(large,))
            ending.start()
            got += rest(wire, 10)
            ask.join(20)
            ending.join(25)
        assert replies
        yield router, got, replies[0]
    large.start().wait_ready()
    eventually(lambda: chat(upfront.port, "hi", model="large-only").status == 200, 15, every=0.25)  # others need it


def _end(engine: Engine) -> None:
    with contextlib.suppress(HarnessError):  # one that hangs is killed: what the clients saw is what counts
        engine.stop()


class TestTheLargeTierIsToldToEnd:
    """By SIGTERM while it answers, as a rollout does; vLLM aborts then, and was seen to hang with its socket open."""

    def test_its_stream_ends_with_an_error(self, seen: tuple[Router, bytes, Reply]) -> None:
        ends_truthfully(seen[1])

    def test_its_whole_reply_is_an_error_not_a_half(self, seen: tuple[Router, bytes, Reply]) -> None:
        reply = seen[2]
        assert reply.status in (500, 502, 503, 504)
        assert reply.error["message"]

    def test_others_are_served_meanwhile(self, seen: tuple[Router, bytes, Reply]) -> None:
        assert chat(seen[0].port, "hi").text == SMALL
