"""Streams: clients that leave, events cut anywhere, and what a cascade may show: rows P5 to P7."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.router.kit import vllm
from tests.router.kit.client import Wire, chat, chat_body, data_of, request
from tests.router.kit.router import Router, table
from tests.router.kit.setup import Shared, ladder, shared
from tests.router.kit.upstream import (
    LAST,
    Call,
    Script,
    Swallowing,
    answer,
    chunk,
    forever,
    hang,
    response,
    says,
    stream_head,
    streams,
)

PATIENT = {"connectMs": 5_000, "firstByteMs": 10_000, "idleMs": 10_000, "totalMs": 60_000}
STREAMED = request(chat_body(stream=True))


@pytest.fixture(scope="module")
def started() -> Iterator[Shared]:
    with shared(timeouts=PATIENT) as both:
        yield both


@pytest.fixture
def pair(started: Shared) -> Iterator[Shared]:
    started.begin()
    yield started
    started.end()


# -- P5: a client leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_p05_client_leaves_and_the_upstream_is_cancelled_within_a_second(pair: Shared, how: str) -> None:
    pair.first.script = forever()
    with Wire(pair.port) as wire:
        wire.send(STREAMED)
        assert b"word" in wire.until_quiet(0.1, 0.3)
        getattr(wire, how)()
        left = time.monotonic()
        assert pair.first.cancelled(seconds=2) - left < 1
    pair.router.idle(1)
    assert pair.count("requests_total", outcome="ClientLeft") == 1
    assert pair.second.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_p05_a_client_that_leaves_before_the_first_byte_cancels_too(pair: Shared, stream: bool, how: str) -> None:
    pair.first.script = hang
    with Wire(pair.port) as wire:
        wire.send(request(chat_body(stream=stream)))
        pair.first.wait(lambda: pair.first.requests)
        getattr(wire, how)()
        left = time.monotonic()
        assert pair.first.cancelled(seconds=2) - left < 1
    pair.router.idle(1)
    assert pair.second.requests == []


@pytest.mark.parametrize("behind", [b"\r\n", STREAMED, b"junk"], ids=["a line", "a request", "junk"])
@pytest.mark.parametrize("script", [forever(), hang], ids=["mid-stream", "before a word"])
def test_p05_a_client_that_sent_more_and_leaves_cancels_too(pair: Shared, behind: bytes, script: Script) -> None:
    """What is sent ahead must not make the router blind to the leaving: some clients end a body with one line more."""
    pair.first.script = script
    with Wire(pair.port) as wire:
        wire.send(STREAMED)
        pair.first.wait(lambda: pair.first.requests)
        wire.send(behind)
        time.sleep(0.1)
        wire.close()
        left = time.monotonic()
        assert pair.first.cancelled(seconds=2) - left < 1
    pair.router.idle(1)
    assert len(pair.first.requests) == 1


def test_p05_a_client_that_stopped_reading_and_leaves_cancels_too(pair: Shared) -> None:
    async def flood(call: Call) -> None:
        await call.send(stream_head())
        while True:
            await call.send(chunk(vllm.chat_chunk({"content": "x" * 10_000})))

    pair.first.script = flood
    with Wire(pair.port, receive=4096) as wire:
        wire.send(STREAMED)
        time.sleep(0.3)  # every buffer on the way is full
        wire.close()
        left = time.monotonic()
        assert pair.first.cancelled(seconds=2) - left < 1
    pair.router.idle(1)


def test_p05_a_client_that_leaves_while_connecting_leaves_nothing_behind() -> None:
    with Swallowing() as deaf, Router(table(deaf.port, timeouts=PATIENT)) as router:
        before = router.descriptors()
        for _ in range(10):
            with Wire(router.port) as wire:
                wire.send(STREAMED)
                router.until(lambda status: status["inFlight"] == 1)
            router.idle(1)
        time.sleep(0.1)
        assert router.descriptors() <= before + 2


def test_p05_two_hundred_clients_that_leave_leak_nothing(pair: Shared) -> None:
    pair.first.script = forever(0.005)
    before = pair.router.descriptors()
    for _ in range(4):
        wires = [Wire(pair.port) for _ in range(50)]
        for place, wire in enumerate(wires):
            wire.send(STREAMED)
            if place % 2:
                assert wire.some()
        for place, wire in enumerate(wires):
            wire.reset() if place % 3 else wire.close()
    pair.router.idle(3)
    pair.first.wait(lambda: all(one.cancelled for one in pair.first.requests), 3)
    assert pair.router.descriptors() <= before + 3
    assert pair.count("requests_total", outcome="ClientLeft") == 200


def test_p05_a_client_that_leaves_during_the_fallback_stops_the_second_tier(pair: Shared) -> None:
    pair.first.script, pair.second.script = says(b"", then="reset"), forever()
    with Wire(pair.port) as wire:
        wire.send(STREAMED)
        assert b"word" in wire.until_quiet(0.1, 0.3)
    left = time.monotonic()
    assert pair.second.cancelled(seconds=2) - left < 1


# -- P6: byte for byte ------------------------------------------------------------------------------------------------

WORDS = vllm.chat_events("caf\u00e9 \u6f22\u5b57 \U0001f600 na\u00efve", include_usage=True, logprobs=-0.5, top=2)
PLAIN = b"".join(WORDS)
ODD = (
    b"\xef\xbb\xbf: a comment\n\n:\n\nretry: 10\nid: 7\n\nevent: delta\n"
    b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"\xe2\x82\xac"}}]}\n\n'
    b'data:{"no":"space"}\n\ndata\n\ndata: \n\nunknown: x\n\n\n\n: ping\n\ndata: [DONE]\n\n'
)
BIG = vllm.chat_chunk({"content": "\u20ac" * 350_000})
STREAMS: dict[str, bytes] = {
    "as vLLM writes": PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "odd": ODD,
    "odd, CRLF": ODD.replace(b"\n", b"\r\n"),
    "odd, CR": ODD.replace(b"\n", b"\r"),
    "mixed ends": b"".join(
        one[:-2] + end
        for one, end in zip(WORDS, [b"\n\r\n", b"\r\n\n", b"\r\n\r\n", b"\n\n", b"\r\r", b"\n\n", b"\n\n"], strict=True)
    ),
    "LF and then CR": b"".join(one[:-2] + b"\n\r" for one in WORDS),
    "no blank line at the end": PLAIN[:-1],
    "no line end at the end": PLAIN[:-2],
    "words after DONE are dropped": PLAIN,
}


def in_pieces(stream: bytes, size: int, *, framed: bool) -> Script:
    """Send a stream in pieces of so many bytes: each its own chunk, or one chunk cut on the wire."""

    async def run(call: Call) -> None:
        await call.send(stream_head())
        if framed:
            for at in range(0, len(stream), size):
                await call.send(chunk(stream[at : at + size]))
            await call.send(LAST)
        else:
            await call.send(chunk(stream) + LAST, piece=size)

    return run


@pytest.mark.parametrize("framed", [True, False], ids=["in chunks", "in packets"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 10**6])
@pytest.mark.parametrize("case", STREAMS)
def test_p06_a_stream_cut_anywhere_comes_out_byte_for_byte(pair: Shared, case: str, size: int, framed: bool) -> None:
    stream = STREAMS[case]
    sent = stream + b"data: late\n\n" if case.startswith("words after") else stream
    pair.first.script = in_pieces(sent, size, framed=framed)
    reply = chat(pair.port, stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)
    assert reply.whole
    assert reply.body == stream
    assert pair.count("requests_total", outcome="Answered") == 1
    if stream.startswith(b"data"):
        assert pair.count("tokens_total", kind="completion") == 4


@pytest.mark.parametrize("size", [1000, 65_536, 10**7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_p06_an_event_of_a_mebibyte_comes_out_byte_for_byte(pair: Shared, size: int, end: bytes) -> None:
    stream = (BIG + vllm.DONE).replace(b"\n", end)
    assert len(BIG) > 2**20
    pair.first.script = in_pieces(stream, size, framed=True)
    assert chat(pair.port, stream=True, stream_options={"include_usage": True}).body == stream


def test_p06_events_are_passed_on_before_the_next_one_comes(pair: Shared) -> None:
    pair.first.script = answer("a b c d", between=0.15)
    came = []
    with Wire(pair.port) as wire:
        wire.send(request(chat_body(stream=True, stream_options={"include_usage": True})))
        got = b""
        while b"[DONE]" not in got:
            got += wire.some()
            came.append((time.monotonic(), got.count(b"data:")))
    begun = pair.first.requests[0].at
    for count, (at, seen) in enumerate(came, 1):
        assert seen == count
        assert at - begun < 0.15 * (count - 1) + 0.1, came


def test_p06_usage_that_we_asked_for_is_taken_out_and_nothing_else(pair: Shared) -> None:
    events = vllm.chat_events("a b c", include_usage=True)
    for size in (1, 3, 50, 10**6):
        pair.first.script = in_pieces(b"".join(events), size, framed=True)
        reply = chat(pair.port, stream=True)
        assert reply.body == b"".join(events[:-2] + events[-1:])
        assert pair.first.requests[-1].json["stream_options"]["include_usage"] is True
    assert pair.count("tokens_total", kind="completion") == 12


def test_p06_usage_in_every_event_is_left_when_it_comes_with_a_choice(pair: Shared) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = [
        vllm.event({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": vllm.usage(5, place + 1)})
        for place in range(3)
    ] + [vllm.event({"choices": [], "usage": vllm.usage(5, 3)}), vllm.DONE]
    pair.first.script = streams(events)
    assert chat(pair.port, stream=True, stream_options=options).body == b"".join(events)
    assert pair.count("tokens_total", kind="completion") == 3


def test_p06_words_that_look_like_control_are_only_words(pair: Shared) -> None:
    events = [
        vllm.chat_chunk({"content": text})
        for text in ('"usage"', '"error":{"message":"x"}', "data: [DONE]\n\n", '{"choices":[],"usage":{}}', "[DONE]")
    ]
    pair.first.script = streams([*events, vllm.DONE])
    reply = chat(pair.port, stream=True)
    assert reply.body == b"".join([*events, vllm.DONE])


def test_p06_completions_stream_too(pair: Shared) -> None:
    body = json.dumps({"model": "support", "prompt": "x", "stream": True}).encode()
    pair.first.script = answer("one two")
    with Wire(pair.port) as wire:
        reply = wire.send(request(body, path="/v1/completions")).reply()
    assert reply.body == b"".join(vllm.completion_events("one two"))


def test_p06_many_streams_at_once_do_not_mix(pair: Shared) -> None:
    async def by_body(call: Call) -> None:
        marker = call.asked.json["marker"]
        await call.send(stream_head())
        for place in range(20):
            await call.send(chunk(vllm.chat_chunk({"content": f"{marker}-{place} "})))
            await call.sleep(0.001)
        await call.send(chunk(vllm.DONE) + LAST)

    pair.first.script = by_body
    wires = [Wire(pair.port) for _ in range(40)]
    try:
        for place, wire in enumerate(wires):
            wire.send(request(chat_body(stream=True, marker=f"m{place}")))
        for place, wire in enumerate(wires):
            assert wire.reply().text == "".join(f"m{place}-{n} " for n in range(20))
    finally:
        for wire in wires:
            wire.close()


# -- P7: a cascade shows one answer -----------------------------------------------------------------------------------

SURE, UNSURE = -0.01, -6.0
CASCADE = {
    "mode": "Cascade",
    "accept": {"thresholdPermille": 600, "confidence": {}},
    "escalation": {"maxSharePermille": 1000},
}
SMALL, LARGE = "small one says this much", "large one says that much"


def cascade(hold: str = "Window", **stream: int) -> dict[str, object]:
    return {**CASCADE, "stream": {"hold": hold, **stream}}


@pytest.mark.parametrize("hold", ["Window", "Whole"])
@pytest.mark.parametrize("stream", [False, True])
def test_p07_an_unsure_answer_is_replaced_whole(hold: str, stream: bool) -> None:
    small, large = answer(SMALL, logprobs=UNSURE), answer(LARGE, logprobs=SURE)
    with ladder(small, large, policy=cascade(hold)) as (router, (first, second)):
        reply = chat(router.port, stream=stream)
        assert reply.text == LARGE
        assert "small" not in reply.body.decode()
        assert reply.header("x-modeltiers-tier") == "t1"
        assert (len(first.requests), len(second.requests)) == (1, 1)


@pytest.mark.parametrize("hold", ["Window", "Whole", "Flag"])
@pytest.mark.parametrize("stream", [False, True])
def test_p07_a_sure_answer_is_given_and_the_large_tier_is_not_asked(hold: str, stream: bool) -> None:
    small, large = answer(SMALL, logprobs=SURE), answer(LARGE, logprobs=SURE)
    with ladder(small, large, policy=cascade(hold)) as (router, (first, second)):
        reply = chat(router.port, stream=stream)
        assert reply.text == SMALL
        assert (len(first.requests), len(second.requests)) == (1, 0)
        assert "logprob" not in reply.body.decode().replace('"logprobs":null', "")
        assert "logprobs" in first.requests[0].json


@pytest.mark.parametrize("stream", [False, True])
def test_p07_logprobs_that_the_client_asked_for_stay(stream: bool) -> None:
    with ladder(answer(SMALL, logprobs=SURE), answer(LARGE), policy=cascade("Whole")) as (router, _):
        reply = chat(router.port, stream=stream, logprobs=True, top_logprobs=1)
        assert reply.text == SMALL
        assert b'"top_logprobs":[{' in reply.body


@pytest.mark.parametrize("hold", ["Window", "Whole"])
def test_p07_a_small_tier_that_breaks_while_it_is_held_is_not_noticed(hold: str) -> None:
    breaks = streams(vllm.chat_events(SMALL, logprobs=SURE)[:3], then="reset", last=False)
    with ladder(breaks, answer(LARGE, logprobs=SURE), policy=cascade(hold, windowTokens=100)) as (router, _):
        reply = chat(router.port, stream=True)
        assert reply.body == b"".join(vllm.chat_events(LARGE))


def test_p07_after_the_commit_a_bad_end_switches_nothing() -> None:
    """Sure for longer than the window, then lost: the answer that was begun goes on."""
    events = vllm.chat_events("w " * 40, logprobs=SURE, done=False)[:-1] + vllm.chat_events("bad end", logprobs=UNSURE)
    with ladder(streams(events), answer(LARGE), policy=cascade(windowTokens=8)) as (router, (_, second)):
        reply = chat(router.port, stream=True)
        assert LARGE not in reply.text
        assert reply.text.endswith("bad end")
        assert data_of(reply.body)[-1] == b"[DONE]"
        assert second.requests == []


def test_p07_the_window_holds_no_longer_than_it_says() -> None:
    slow = answer("a b c d e f", logprobs=SURE, between=0.2)
    policy = cascade(windowTokens=4000, windowMs=300)
    with ladder(slow, answer(LARGE), policy=policy, timeouts=PATIENT) as (router, _), Wire(router.port) as wire:
        began = time.monotonic()
        wire.send(STREAMED)
        assert wire.some(2)
        assert time.monotonic() - began < 0.8


def test_p07_an_answer_too_long_to_hold_is_committed_or_refused_but_bounded() -> None:
    long = streams([*(vllm.chat_chunk({"content": "x" * 10_000}) for _ in range(400)), vllm.DONE])
    policy = cascade("Whole", maxHoldBytes=65_536)
    with ladder(long, answer(LARGE, logprobs=SURE), policy=policy) as (router, _):
        reply = chat(router.port, stream=True)
        assert reply.status == 200
        texts = {"x" in reply.text, LARGE in reply.text}
        assert texts == {True, False}


def test_p07_an_unsure_whole_reply_of_the_small_tier_costs_both_and_says_so() -> None:
    small, large = answer(SMALL, logprobs=UNSURE), answer(LARGE, logprobs=SURE)
    with ladder(small, large, policy=cascade()) as (router, _):
        reply = chat(router.port)
        assert reply.json["usage"]["completion_tokens"] == len(LARGE.split())
        assert router.metrics().value("tokens_total", kind="completion") == len(SMALL.split()) + len(LARGE.split())


def test_p07_a_large_tier_that_fails_leaves_the_held_answer() -> None:
    with ladder(answer(SMALL, logprobs=UNSURE), says(b"", then="reset"), policy=cascade("Whole")) as (router, _):
        reply = chat(router.port)
        assert reply.status == 200
        assert reply.text == SMALL


def test_p07_missing_logprobs_are_a_condition_of_their_own() -> None:
    with ladder(answer(SMALL, logprobs=None), answer(LARGE, logprobs=SURE), policy=cascade()) as (router, _):
        reply = chat(router.port)
        assert reply.text == LARGE
        assert "ogprob" in (reply.header("x-modeltiers-reason") or "")


def test_p07_a_client_that_leaves_while_the_answer_is_held_cancels() -> None:
    slow = answer("a b c d e f g h", logprobs=SURE, between=0.3)
    with ladder(slow, answer(LARGE), policy=cascade("Whole"), timeouts=PATIENT) as (router, (first, second)):
        with Wire(router.port) as wire:
            wire.send(STREAMED)
            first.wait(lambda: first.requests)
            time.sleep(0.2)
        left = time.monotonic()
        assert first.cancelled(seconds=2) - left < 1
        assert second.requests == []


def test_p07_nothing_is_lost_of_a_reply_that_is_no_chat() -> None:
    small = says(response("200 OK", vllm.completion("x")))
    with ladder(small, answer(LARGE), policy=CASCADE) as (router, _), Wire(router.port) as wire:
        body = json.dumps({"model": "support", "prompt": "x"}).encode()
        assert wire.send(request(body, path="/v1/completions")).reply().status == 200
