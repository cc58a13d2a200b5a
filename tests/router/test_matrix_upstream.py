"""Tiers that cannot be reached, do not answer, are busy, break off or talk nonsense: rows P1 to P4 and P25.

Times are measured between the client's first byte and what the tiers took down; both are on one clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.router.kit import vllm
from tests.router.kit.client import CHAT, Reply, Wire, chat, chat_body, request
from tests.router.kit.router import Router, table
from tests.router.kit.setup import NEVER_OPENS, Shared, ladder, shared
from tests.router.kit.upstream import (
    LAST,
    Call,
    Refusing,
    Script,
    Swallowing,
    Upstream,
    answer,
    chunk,
    chunks,
    fails,
    forever,
    hang,
    leave,
    reset,
    response,
    says,
    stale,
    stream_head,
    streams,
)

PATIENT = {"connectMs": 5_000, "firstByteMs": 5_000, "idleMs": 5_000, "totalMs": 20_000}


@pytest.fixture(scope="module")
def started() -> Iterator[Shared]:
    with shared() as both:
        yield both


@pytest.fixture
def pair(started: Shared) -> Iterator[Shared]:
    started.begin()
    yield started
    started.end()


def is_an_error(reply: Reply, *statuses: int) -> None:
    """An error of the router's own that says when to come again."""
    assert reply.status in statuses, (reply.status, reply.body)
    assert reply.error
    assert int(reply.header("retry-after") or 0) >= 1


# -- P1: cannot be reached --------------------------------------------------------------------------------------------


def test_p01_a_refused_connection_goes_to_the_next_tier_within_50_ms() -> None:
    took = []
    with Refusing() as nobody, Upstream(answer("rescued")) as good:
        shape = table(nobody.port, good.port, tier={"breaker": {"failures": 1000}})
        with Router(shape) as router:
            for place in range(6):
                began = time.monotonic()
                assert chat(router.port).text == "rescued"
                took.append(good.requests[place].at - began)
            assert router.metrics().value("requests_total", tier="t1", outcome="Answered") == 6
    assert sorted(took)[len(took) // 2] < 0.05, took


@pytest.mark.parametrize("stream", [False, True])
def test_p01_a_refused_connection_with_no_tier_left_is_a_502_that_says_when(stream: bool) -> None:
    with Refusing() as nobody, Router(table(nobody.port)) as router:
        is_an_error(chat(router.port, stream=stream), 502)


@pytest.mark.parametrize("host", ["a" * 70, "bad..name"], ids=["label too long", "empty label"])
def test_p01_a_name_that_leads_nowhere_goes_to_the_next_tier(host: str) -> None:
    with Upstream(answer("rescued")) as good, Router(table(f"{host}:80", good.port)) as router:
        assert chat(router.port).text == "rescued"
        assert router.status()["tiers"]["t0"]["addresses"] == {}


def test_p01_a_name_that_leads_nowhere_with_no_tier_left_says_when() -> None:
    with Router(table(f"{'a' * 70}:80")) as router:
        is_an_error(chat(router.port), 502, 503)
        assert router.get("/readyz").status == 503


def test_p01_a_name_is_resolved_and_serves() -> None:
    with Upstream(answer("here")) as good, Router(table(f"localhost:{good.port}")) as router:
        router.until(lambda status: status["tiers"]["t0"]["addresses"])
        assert chat(router.port).text == "here"


def test_p01_a_connection_that_never_opens_is_given_up_in_its_own_time() -> None:
    with Swallowing() as deaf, Upstream(answer("rescued")) as good:
        times = {**PATIENT, "connectMs": 300}
        with Router(table(deaf.port, good.port, timeouts=times)) as router:
            reply = chat(router.port)
            assert reply.text == "rescued"
            assert 0.25 <= reply.seconds < 1.5


def test_p01_a_tier_that_comes_back_serves_again() -> None:
    quick = {"breaker": {"failures": 1, "openMs": 200}}
    with ladder(answer("first"), answer("second"), tier=quick) as (router, (first, _)):
        first.refuse()
        assert chat(router.port).text == "second"
        first.listen()
        until = time.monotonic() + 10
        while chat(router.port).text != "first":
            assert time.monotonic() < until, "it does not come back"
            time.sleep(0.05)


# -- P2: accepts and is silent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_p02_a_tier_that_never_answers_is_left_in_time(stream: bool) -> None:
    times = {**PATIENT, "firstByteMs": 300}
    with ladder(hang, answer("rescued"), timeouts=times) as (router, (silent, _)):
        reply = chat(router.port, stream=stream)
        assert reply.text == "rescued"
        assert 0.25 <= reply.seconds < 1.5
        silent.cancelled(seconds=1)
        router.idle()


def test_p02_a_tier_that_never_answers_with_no_other_is_a_504() -> None:
    with ladder(hang, timeouts={**PATIENT, "firstByteMs": 300}) as (router, _):
        is_an_error(chat(router.port), 504)


def test_p02_one_that_accepts_and_does_not_even_read_is_left_in_time() -> None:
    with ladder(hang, answer("rescued"), timeouts={**PATIENT, "firstByteMs": 300}) as (router, (deaf, _)):
        deaf.silent = True
        assert chat(router.port).text == "rescued"


def test_p02_headers_and_then_silence_is_left_after_the_idle_time() -> None:
    times = {**PATIENT, "idleMs": 300}
    begun = says(response("200 OK", vllm.chat("x"))[:-10], then="hang")
    with ladder(begun, answer("rescued"), timeouts=times) as (router, _):
        reply = chat(router.port)
        assert reply.text == "rescued"
        assert 0.25 <= reply.seconds < 1.5


def test_p02_a_stream_whose_head_came_and_no_event_is_left_after_the_idle_time() -> None:
    times = {**PATIENT, "idleMs": 300}
    with ladder(says(stream_head(), then="hang"), answer("rescued"), timeouts=times) as (router, _):
        reply = chat(router.port, stream=True)
        assert reply.text == "rescued"
        assert reply.seconds < 1.5


def test_p02_silence_between_two_events_ends_the_stream_after_the_idle_time() -> None:
    times = {**PATIENT, "idleMs": 300}
    stalls = streams(vllm.chat_events("one two")[:2], then="hang", last=False)
    with ladder(stalls, answer("other"), timeouts=times) as (router, (tier, other)):
        reply = chat(router.port, stream=True)
        ends_with_an_error(reply)
        assert 0.25 <= reply.seconds < 1.5
        tier.cancelled(seconds=1)
        assert other.requests == []


def test_p02_a_steady_stream_outlives_the_first_byte_and_idle_times() -> None:
    times = {**PATIENT, "firstByteMs": 300, "idleMs": 300}
    with ladder(answer("a b c d e f g h", between=0.12), timeouts=times) as (router, _):
        reply = chat(router.port, stream=True)
        assert reply.text == "a b c d e f g h"
        assert reply.seconds > 0.8


def test_p02_a_first_byte_may_take_longer_than_the_idle_time() -> None:
    with ladder(answer("late", first=0.6), timeouts={**PATIENT, "idleMs": 200}) as (router, _):
        assert chat(router.port).text == "late"


def test_p02_the_total_time_ends_a_steady_stream() -> None:
    with ladder(forever(), timeouts={**PATIENT, "totalMs": 600}) as (router, (tier,)):
        reply = chat(router.port, stream=True)
        ends_with_an_error(reply)
        assert 0.5 <= reply.seconds < 2
        tier.cancelled(seconds=1)


def test_p02_the_total_time_ends_a_reply_that_drips() -> None:
    drips = says(response("200 OK", vllm.chat("x")), piece=1, pause=0.05)
    with ladder(drips, timeouts={**PATIENT, "totalMs": 600}) as (router, _):
        reply = chat(router.port)
        is_an_error(reply, 504)
        assert reply.seconds < 2


def test_p02_a_client_that_leaves_a_silent_tier_leaves_nothing_behind() -> None:
    with ladder(hang, timeouts=PATIENT) as (router, (silent,)):
        with Wire(router.port) as wire:
            wire.send(request(chat_body()))
            silent.wait(lambda: silent.requests)
        left = time.monotonic()
        assert silent.cancelled(seconds=1) - left < 1
        router.idle(1)


# -- P3: busy or failing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_p03_a_busy_tier_is_left_alone_for_as_long_as_it_says(status: int) -> None:
    with ladder(fails(status, retry_after="1"), answer("other")) as (router, (busy, _)):
        for _ in range(5):
            assert chat(router.port).text == "other"
        assert len(busy.requests) == 1
        busy.script = answer("well again")
        time.sleep(1.2)
        assert chat(router.port).text == "well again"


@pytest.mark.parametrize("status", [429, 503])
def test_p03_with_no_other_tier_its_answer_and_its_time_reach_the_client(status: int) -> None:
    with ladder(fails(status, retry_after="7")) as (router, _):
        reply = chat(router.port)
        is_an_error(reply, status)
        assert 7 <= int(reply.header("retry-after") or 0) <= 9


@pytest.mark.parametrize(
    "said", ["-5", "1e9", "99999999999999999999", "Wed, 25 Nov 2026 11:00:00 GMT", "soon", "\xb2", ""]
)
def test_p03_a_time_that_makes_no_sense_is_not_believed(said: str) -> None:
    with ladder(fails(503, retry_after=said), answer("other")) as (router, (busy, _)):
        assert chat(router.port).text == "other"
        busy.script = answer("well again")
        router.until(lambda _: chat(router.port).text == "well again", 3)


@pytest.mark.parametrize("fault", [fails(500), reset, leave], ids=["500", "reset", "closed"])
def test_p03_a_failing_tier_gets_at_most_a_tenth_more_than_was_offered(fault: Script) -> None:
    with ladder(fault, tier=NEVER_OPENS) as (router, (tier,)):
        with Wire(router.port) as wire:
            for _ in range(100):
                assert wire.send(request(chat_body())).reply().status in (500, 502)
        assert 100 <= len(tier.requests) <= 111


def test_p03_a_refusing_tier_is_tried_at_most_a_tenth_more_than_was_offered() -> None:
    with Refusing() as nobody, Router(table(nobody.port, tier=NEVER_OPENS)) as router:
        with Wire(router.port) as wire:
            for _ in range(100):
                assert wire.send(request(chat_body())).reply().status == 502
        assert router.metrics().value("attempts_total", tier="t0", outcome="Connect") <= 111


def test_p03_every_tier_failing_is_each_asked_once() -> None:
    with ladder(fails(500), fails(503), fails(502), tier=NEVER_OPENS) as (router, tiers):
        assert chat(router.port).status in (500, 502, 503)
        assert [len(tier.requests) for tier in tiers] == [1, 1, 1]


def test_p03_nothing_is_asked_again_after_the_first_event() -> None:
    breaks = streams(vllm.chat_events("one two three")[:3], then="reset", last=False)
    with ladder(breaks, answer("other")) as (router, (tier, other)):
        ends_with_an_error(chat(router.port, stream=True))
        assert (len(tier.requests), len(other.requests)) == (1, 0)


def test_p03_a_breaker_opens_for_one_tier_alone_and_tries_with_one_request() -> None:
    quick = {"breaker": {"failures": 3, "openMs": 400}}
    with ladder(fails(500), answer("other"), tier=quick) as (router, (bad, _)):
        for _ in range(8):
            assert chat(router.port).text == "other"
        assert len(bad.requests) == 3
        tiers = router.status()["tiers"]
        assert next(iter(tiers["t0"]["addresses"].values()))["state"] == "Open"
        assert next(iter(tiers["t1"]["addresses"].values()))["state"] == "Closed"
        time.sleep(0.45)
        for _ in range(4):
            assert chat(router.port).text == "other"
        assert len(bad.requests) == 4


def test_p03_while_the_one_trial_is_out_no_other_goes_there() -> None:
    quick = {"breaker": {"failures": 1, "openMs": 200}}
    with ladder(fails(500), answer("other"), tier=quick, timeouts=PATIENT) as (router, (bad, _)):
        assert chat(router.port).text == "other"
        time.sleep(0.25)
        bad.script = answer("slow but well", first=0.5)
        with Wire(router.port) as wire:
            wire.send(request(chat_body()))
            bad.wait(lambda: len(bad.requests) == 2)
            assert chat(router.port).text == "other"
            assert wire.reply().text == "slow but well"
        assert chat(router.port).text == "slow but well"


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.03])
def test_p03_a_connection_that_closes_when_it_is_reused_is_no_failure(after: float) -> None:
    with ladder(stale(after=after)) as (router, (tier,)):
        with Wire(router.port) as wire:
            for _ in range(20):
                assert wire.send(request(chat_body())).reply().status == 200
                time.sleep(0.018)
        assert router.metrics().value("attempts_total", outcome="Broken") == 0
        assert 20 <= len(tier.requests) <= 40  # a request may have come in just before the reset


def test_p03_idle_connections_are_dropped_before_the_tier_drops_them() -> None:
    with ladder(answer("x"), tier={"keepAliveMs": 300}) as (router, (tier,)):
        assert chat(router.port).status == 200
        used = next(one for one in tier.seen.sockets if one is tier.requests[0].connection)
        tier.wait(lambda: used.closed, 2)
        assert chat(router.port).status == 200
        assert tier.requests[1].connection is not used


# -- P4: breaks off ---------------------------------------------------------------------------------------------------


def ends_with_an_error(reply: Reply) -> None:
    """A stream that was begun and broke: clean framing, every event whole, an error last, no DONE."""
    assert (reply.status, reply.whole) == (200, True), reply
    assert b"[DONE]" not in reply.body
    assert reply.body.endswith((b"\n\n", b"\r\n\r\n"))
    said = [json.loads(event) for event in reply.events]
    assert set(said[-1]) == {"error"}
    assert set(said[-1]["error"]) == {"message", "type", "param", "code"}
    assert all("error" not in one for one in said[:-1])


EVENTS = vllm.chat_events("one two three")
HALF = EVENTS[2][:-20]
BREAKS: dict[str, Script] = {
    "closed": streams(EVENTS[:2], then="fin", last=False),
    "reset": streams(EVENTS[:2], then="reset", last=False),
    "closed in a chunk": says(stream_head() + chunk(EVENTS[0]) + chunk(EVENTS[1])[:-9], then="fin"),
    "closed in an event": streams([*EVENTS[:2], HALF], then="fin", last=False),
    "whole chunks, half an event": streams([*EVENTS[:2], HALF]),
    "whole chunks, an event without its blank line": streams([*EVENTS[:2], EVENTS[2][:-1]]),
    "no DONE": streams(EVENTS[:-1]),
    "half a DONE": streams([*EVENTS[:-1], b"data: [DO"]),
    "error, then DONE": streams([*EVENTS[:2], vllm.ENGINE_DIED, vllm.DONE]),
    "error and DONE in one": streams([*EVENTS[:2], vllm.ENGINE_DIED + vllm.DONE]),
    "all in one packet": says(stream_head() + chunks([*EVENTS[:2], vllm.ENGINE_DIED, vllm.DONE])),
    "error with spaces": streams([*EVENTS[:2], b'data: { "error" : {"message": "x"} }\n\n', vllm.DONE]),
    "error as an event": streams([*EVENTS[:2], b'event: error\ndata: {"error":{"message":"x"}}\n\n', vllm.DONE]),
    "bad chunk": says(stream_head() + chunks(EVENTS[:2], last=False) + b"zz\r\n", then="hang"),
    "no length and closed": says(
        stream_head().replace(b"transfer-encoding: chunked\r\n", b"") + b"".join(EVENTS[:2]), then="fin"
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_p04_a_stream_that_breaks_ends_with_an_error_and_no_done(pair: Shared, case: str) -> None:
    pair.first.script = BREAKS[case]
    reply = chat(pair.port, stream=True)
    ends_with_an_error(reply)
    whole = [event for event in EVENTS if event in reply.body]
    assert whole == EVENTS[: len(whole)]
    assert len(whole) >= (1 if "chunk" in case else 2)
    assert len(reply.events) in (len(whole) + 1, len(whole) + 2)
    assert (len(pair.first.requests), len(pair.second.requests)) == (1, 0)
    assert pair.count("requests_total", outcome="Broken") == 1
    assert pair.count("requests_total", outcome="Answered") == 0


EARLY: dict[str, Script] = {
    "closed": says(stream_head(), then="fin"),
    "reset": says(stream_head(), then="reset"),
    "half an event": says(stream_head() + chunk(HALF), then="fin"),
    "whole chunks, half an event": streams([HALF]),
    "an error": streams([vllm.ENGINE_DIED]),
    "an error, then DONE": streams([vllm.ENGINE_DIED, vllm.DONE]),
    "an error and DONE in one": streams([vllm.ENGINE_DIED + vllm.DONE]),
    "all in one packet": says(stream_head() + chunks([vllm.ENGINE_DIED, vllm.DONE])),
    "an error without its blank line": streams([vllm.ENGINE_DIED[:-2]]),
    "a comment, then an error": streams([b": hello\n\n", vllm.ENGINE_DIED, vllm.DONE]),
    "nothing": streams([]),
    "DONE alone": streams([vllm.DONE]),
    "only comments": streams([b": a\n\n", b": b\n\n"]),
}


@pytest.mark.parametrize("case", EARLY)
def test_p04_a_stream_that_breaks_before_a_word_goes_to_the_next_tier_whole(pair: Shared, case: str) -> None:
    pair.first.script = EARLY[case]
    pair.second.script = answer("rescued by the other")
    reply = chat(pair.port, stream=True)
    assert reply.body == b"".join(vllm.chat_events("rescued by the other"))
    assert reply.header("x-modeltiers-tier") == "t1"
    assert (len(pair.first.requests), len(pair.second.requests)) == (1, 1)
    assert pair.count("requests_total") == 1


WHOLE = response("200 OK", vllm.chat("the whole answer"))
CUT: dict[str, Script] = {
    "closed": says(WHOLE[:-10], then="fin"),
    "reset": says(WHOLE[:-10], then="reset"),
    "chunked and closed": says(stream_head(kind="application/json") + chunk(vllm.chat("x")), then="fin"),
    "chunked and no JSON": says(stream_head(kind="application/json") + chunk(vllm.chat("x")[:-9]) + LAST),
    "no length, closed in the middle": says(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + vllm.chat("x")[:-9], then="fin"
    ),
    "HTTP/1.0, closed in the middle": says(
        b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + vllm.chat("x")[:-9], then="fin"
    ),
    "empty": says(response("200 OK", b"")),
    "an error inside 200": says(response("200 OK", vllm.error(500, "EngineCore encountered an issue"))),
}


@pytest.mark.parametrize("case", CUT)
def test_p04_a_reply_that_was_cut_is_never_given_as_whole(pair: Shared, case: str) -> None:
    pair.first.script = CUT[case]
    assert chat(pair.port).text == "second"
    assert len(pair.second.requests) == 1
    is_an_error(chat(pair.port, model="t0"), 502)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_p04_a_reply_without_a_length_that_came_whole_is_given(pair: Shared, version: bytes) -> None:
    head = b"HTTP/%b 200 OK\r\ncontent-type: application/json\r\n\r\n" % version
    pair.first.script = says(head + vllm.chat("all"), then="fin")
    assert chat(pair.port).text == "all"


def test_p04_usage_of_a_broken_stream_is_what_came_of_it() -> None:
    """Engines that send usage in every event let a stream that breaks be metered as far as it went."""
    counted = [
        vllm.event({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": vllm.usage(5, place + 1)})
        for place in range(3)
    ]
    with ladder(streams(counted, then="reset", last=False)) as (router, _):
        ends_with_an_error(chat(router.port, stream=True))
        assert router.metrics().value("tokens_total", kind="completion") == 3


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize("stream", [False, True])
def test_p04_an_answer_that_its_engine_cut_is_no_answer(pair: Shared, reason: str, stream: bool) -> None:
    """vLLM ends what is in flight with a 200 and such a reason when it is told to end."""
    cut = vllm.chat("half an ans").replace(b'"stop"', b'"%b"' % reason.encode())
    events = [vllm.chat_chunk({"content": "half an ans"}), vllm.chat_chunk({}, finish=reason), vllm.DONE]
    pair.first.script = streams(events) if stream else says(response("200 OK", cut))
    reply = chat(pair.port, stream=stream)
    if stream:
        assert b"[DONE]" not in reply.body
        assert b'"code":"upstream_error"' in reply.body
    else:
        assert reply.text == "second"


def test_p04_a_text_about_an_abort_is_a_text(pair: Shared) -> None:
    pair.first.script = answer('the "abort" and the "error" of it')
    assert chat(pair.port).text == 'the "abort" and the "error" of it'
    assert b"[DONE]" in chat(pair.port, stream=True).body


# -- P25: talks nonsense ----------------------------------------------------------------------------------------------

OK = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
GOOD = vllm.chat("good")
SIZE = f"content-length: {len(GOOD)}\r\n"


def raw(head: str, body: bytes = GOOD) -> bytes:
    return head.encode("latin-1") + b"\r\n" + body


NONSENSE: dict[str, bytes] = {
    "length and chunked": raw(f"{OK}{SIZE}transfer-encoding: chunked\r\n", chunk(GOOD) + LAST),
    "chunked and length": raw(f"{OK}transfer-encoding: chunked\r\n{SIZE}", chunk(GOOD) + LAST),
    "two lengths": raw(f"{OK}{SIZE}content-length: 3\r\n"),
    "a list of lengths": raw(f"{OK}content-length: 3, {len(GOOD)}\r\n"),
    "a negative length": raw(f"{OK}content-length: -1\r\n"),
    "a signed length": raw(f"{OK}content-length: +{len(GOOD)}\r\n"),
    "a length that overflows": raw(f"{OK}content-length: {2**64 + len(GOOD)}\r\n"),
    "a length in words": raw(f"{OK}content-length: many\r\n"),
    "an empty length": raw(f"{OK}content-length:\r\n"),
    "an unknown coding": raw(f"{OK}transfer-encoding: gzip\r\n"),
    "a coding before chunked": raw(f"{OK}transfer-encoding: gzip, chunked\r\n", chunk(GOOD) + LAST),
    "chunked twice": raw(f"{OK}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", chunk(GOOD) + LAST),
    "chunked before another": raw(f"{OK}transfer-encoding: chunked, identity\r\n", chunk(GOOD) + LAST),
    "a header of 1 MiB": raw(f"{OK}{SIZE}x: {'a' * 2**20}\r\n"),
    "a head without end": f"{OK}x: ".encode() + b"a" * 2**20,
    "ten thousand headers": raw(f"{OK}{SIZE}" + "x: y\r\n" * 10_000),
    "line feeds alone": raw(f"{OK}{SIZE}").replace(b"\r\n", b"\n"),
    "a line feed alone": raw(f"{OK}x: a\nset-cookie: a=b\r\n{SIZE}"),
    "a carriage return alone": raw(f"{OK}x: a\rset-cookie: a=b\r\n{SIZE}"),
    "NUL in a value": raw(f"{OK}x: a\0b\r\n{SIZE}"),
    "NUL in a name": raw(f"{OK}x\0y: a\r\n{SIZE}"),
    "a space before the colon": raw(f"{OK}content-length : {len(GOOD)}\r\n"),
    "no colon": raw(f"{OK}nonsense\r\n{SIZE}"),
    "an empty name": raw(f"{OK}: x\r\n{SIZE}"),
    "a folded line": raw(f"{OK}x: a\r\n b\r\n{SIZE}"),
    "a first line that is none": raw(f"hello\r\n{SIZE}"),
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/0.9": GOOD,
    "HTTP/2": b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    "HTTP/3.7": raw(f"HTTP/3.7 200 OK\r\n{SIZE}"),
    "status 99": raw(f"HTTP/1.1 099 No\r\n{SIZE}"),
    "status 1000": raw(f"HTTP/1.1 1000 No\r\n{SIZE}"),
    "status abc": raw(f"HTTP/1.1 abc No\r\n{SIZE}"),
    "status 600": raw(f"HTTP/1.1 600 No\r\n{SIZE}"),
    "a switch of protocols": raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n", b""),
    "announcements without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    "a redirect": raw(f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n{SIZE}"),
    "a permanent redirect": raw(f"HTTP/1.1 308 Found\r\nlocation: /v1/completions\r\n{SIZE}"),
    "not modified": raw("HTTP/1.1 304 Not Modified\r\n", b""),
    "no content": raw("HTTP/1.1 204 No Content\r\n", b""),
    "a page": response("200 OK", b"<html>hello</html>", kind="text/html"),
    "a page that says JSON": response("200 OK", b"<html>hello</html>"),
    "JSON that is no object": response("200 OK", b'["choices"]'),
    "compressed": response("200 OK", b"\x1f\x8b\x08\0\0", "content-encoding: gzip"),
    "a stream that nobody asked for": stream_head() + chunks(vllm.chat_events("x")),
    "a chunk size in words": raw(f"{OK}transfer-encoding: chunked\r\n", b"zz\r\n"),
    "a chunk size that overflows": raw(f"{OK}transfer-encoding: chunked\r\n", b"fffffffffffffffff\r\nx\r\n0\r\n\r\n"),
    "a negative chunk size": raw(f"{OK}transfer-encoding: chunked\r\n", b"-1\r\nx\r\n0\r\n\r\n"),
    "a chunk longer than it says": raw(f"{OK}transfer-encoding: chunked\r\n", b"1\r\nxyz\r\n0\r\n\r\n"),
    "a chunk size with 0x": raw(f"{OK}transfer-encoding: chunked\r\n", b"0x2\r\n{}\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_p25_nonsense_from_a_tier_is_a_502_and_the_next_answer_is_clean(pair: Shared, case: str) -> None:
    pair.first.script = says(NONSENSE[case])
    with Wire(pair.port) as wire:
        reply = wire.send(request(chat_body(model="t0"))).reply()
        is_an_error(reply, 502, 504)
        assert reply.header("set-cookie") is None
        assert len(pair.first.requests) <= 2
        pair.first.script = answer("clean")
        assert wire.send(request(chat_body(model="t0"))).reply().text == "clean"


def test_p25_a_redirect_is_not_followed() -> None:
    with Upstream(answer("elsewhere")) as other:
        there = says(raw(f"HTTP/1.1 307 Found\r\nlocation: http://{other.address}{CHAT}\r\ncontent-length: 0\r\n", b""))
        with ladder(there) as (router, _):
            is_an_error(chat(router.port), 502)
        assert other.requests == []
        assert other.seen.sockets == []


def test_p25_a_reply_without_end_is_bounded() -> None:
    async def endless(call: Call) -> None:
        await call.send(raw(f"{OK}transfer-encoding: chunked\r\n", b""))
        while True:
            await call.send(chunk(b" " * 2**20))

    with ladder(endless, timeouts=PATIENT) as (router, (tier,)):
        router.forget_peak()
        before = router.peak()
        is_an_error(chat(router.port), 502)
        tier.cancelled(seconds=1)
        assert router.peak() - before < 128 * 2**20


def test_p25_an_event_without_end_is_bounded() -> None:
    async def endless(call: Call) -> None:
        await call.send(stream_head() + chunk(EVENTS[0] + b"data: "))
        while True:
            await call.send(chunk(b"x" * 2**20))

    with ladder(endless, timeouts=PATIENT) as (router, (tier,)):
        router.forget_peak()
        before = router.peak()
        ends_with_an_error(chat(router.port, stream=True))
        tier.cancelled(seconds=1)
        assert router.peak() - before < 128 * 2**20


def test_p25_trailers_without_end_are_bounded() -> None:
    async def endless(call: Call) -> None:
        await call.send(raw(f"{OK}transfer-encoding: chunked\r\n", chunk(GOOD) + b"0\r\nx: "))
        while True:
            await call.send(b"x" * 2**18)

    times = {**PATIENT, "totalMs": 1500}
    with ladder(endless, timeouts=times) as (router, (tier,)):
        router.forget_peak()
        before = router.peak()
        is_an_error(chat(router.port), 502, 504)
        tier.cancelled(seconds=1)
        assert router.peak() - before < 64 * 2**20


KIND = "content-type: application/json"
TAKEN: dict[str, bytes] = {
    "announced by 100": b"HTTP/1.1 100 Continue\r\n\r\n" + response("200 OK", GOOD),
    "announced by 103": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + response("200 OK", GOOD),
    "announced twice": b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 102 Wait\r\n\r\n" + response("200 OK", GOOD),
    "chunks with extensions": raw(
        f"{OK}transfer-encoding: chunked\r\n", chunk(GOOD[:9], b";a=b") + chunk(GOOD[9:], b';q="x y"') + LAST
    ),
    "chunks with trailers": raw(
        f"{OK}transfer-encoding: chunked\r\ntrailer: x-sum\r\n",
        chunk(GOOD) + b"0\r\nx-sum: 1\r\nset-cookie: a=b\r\n\r\n",
    ),
    "upper case": raw(f"{OK}TRANSFER-ENCODING: Chunked\r\n", chunk(GOOD) + LAST),
    "no reason": raw(f"HTTP/1.1 200\r\n{KIND}\r\n{SIZE}"),
    "HTTP/1.0 with a length": raw(f"HTTP/1.0 200 OK\r\n{KIND}\r\n{SIZE}"),
    "closing after it": raw(f"{OK}{SIZE}connection: close\r\n"),
    "identity": raw(f"{OK}{SIZE}content-encoding: identity\r\n"),
    "white space around": raw(
        f"HTTP/1.1 200 OK\r\ncontent-type:  application/json \t\r\ncontent-length:\t{len(GOOD)} \r\n"
    ),
    "a charset": raw(f"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n{SIZE}"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_p25_what_is_odd_and_right_is_taken(pair: Shared, case: str) -> None:
    pair.first.script = says(TAKEN[case])
    for _ in range(2):
        reply = chat(pair.port)
        assert (reply.status, reply.body) == (200, GOOD)
        assert reply.header("set-cookie") is None
        assert reply.header("x-sum") is None
    assert len(pair.first.requests) == 2


def test_p25_headers_of_a_tier_do_not_reach_the_client() -> None:
    lines = [
        "set-cookie: a=b",
        "x-modeltiers-tier: forged",
        "x-request-id: forged",
        "access-control-allow-origin: *",
        "location: http://127.0.0.1:1/",
        "authorization: Bearer secret",
        "www-authenticate: Basic",
        "x-internal: secret",
    ]
    with ladder(says(response("200 OK", GOOD, *lines))) as (router, _):
        reply = chat(router.port)
        assert reply.status == 200
        names = [name for name, _ in reply.headers]
        assert not {"set-cookie", "location", "access-control-allow-origin", "authorization"} & set(names)
        assert not {"www-authenticate", "x-internal", "server"} & set(names)
        assert names.count("x-modeltiers-tier") == names.count("x-request-id") == 1
        assert "forged" not in str(reply.headers)


POISON = raw(f"HTTP/1.1 200 OK\r\n{KIND}\r\ncontent-length: {len(vllm.chat('poison'))}\r\n", vllm.chat("poison"))


@pytest.mark.parametrize(
    "extra",
    [POISON, POISON[:-50], POISON[:20], POISON[:60], b"\r\n", b"x", b"0\r\n\r\n"],
    ids=["a second answer", "most of one", "a first line", "half a head", "a line", "a letter", "a last chunk"],
)
def test_p25_what_follows_an_answer_never_becomes_the_next_one(pair: Shared, extra: bytes) -> None:
    pair.first.script = says(response("200 OK", GOOD) + extra)
    with Wire(pair.port) as wire:
        for _ in range(5):
            reply = wire.send(request(chat_body())).reply()
            assert (reply.status, reply.body) == (200, GOOD)
    assert len(pair.first.requests) == 5


def test_p25_an_answer_that_comes_unasked_is_dropped_with_its_connection(pair: Shared) -> None:
    async def afterwards(call: Call) -> None:
        await call.send(response("200 OK", GOOD))
        await call.sleep(0.05)
        await call.send(POISON)

    pair.first.script = afterwards
    for _ in range(5):
        assert chat(pair.port).body == GOOD
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (vllm.error(400, "too long", param="input_tokens"), "too long"),
        (
            b'{ "error" : {"message": "too long", "type": "BadRequestError", "param": "input_tokens", "code": 400}}',
            "too long",
        ),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"old shape","type":"x","param":null,"code":400}', "old shape"),
        (b"not even JSON", ""),
        (b"", ""),
        (b'{"error":{"message":' + b"[" * 5000, ""),
    ],
    ids=["vLLM", "with spaces", "a string", "a detail", "the old shape", "no JSON", "nothing", "bottomless"],
)
def test_p25_a_refusal_of_a_tier_comes_in_openais_shape_whatever_its_own(
    pair: Shared, body: bytes, message: str
) -> None:
    pair.first.script = says(response("400 Bad Request", body))
    reply = chat(pair.port)
    assert reply.status == 400
    assert message in reply.error["message"]
    if b"input_tokens" in body:
        assert reply.error["param"] == "input_tokens"
    assert pair.second.requests == []
