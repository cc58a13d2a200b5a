"""The kit by itself, without a router: a tier that misbehaves does so on the wire, and the client sees it as it is."""

from __future__ import annotations

import time

import pytest

from tests.router.kit import vllm
from tests.router.kit.client import Cut, Wire, ask, chat, chat_body, chunked, data_of, get, replies, request
from tests.router.kit.upstream import (
    LAST,
    Refusing,
    Swallowing,
    Upstream,
    answer,
    chunk,
    fails,
    forever,
    hang,
    reset,
    response,
    says,
    stale,
    stream_head,
    streams,
)


def test_a_tier_answers_every_endpoint() -> None:
    with Upstream(answer("hello there friend")) as tier:
        assert chat(tier.port).text == "hello there friend"
        streamed = chat(tier.port, stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)
        assert streamed.text == "hello there friend"
        assert streamed.body == b"".join(
            vllm.chat_events("hello there friend", include_usage=True, logprobs=-0.25, top=2)
        )
        done = ask(tier.port, request(b'{"prompt":"x"}', path="/v1/completions"))
        assert done.json["choices"][0]["text"] == "hello there friend"
        vectors = ask(tier.port, request(b'{"input":["a","b"]}', path="/v1/embeddings"))
        assert len(vectors.json["data"]) == 2
        assert get(tier.port, "/v1/models").json["data"][0]["id"] == vllm.MODEL
        assert [one.target for one in tier.requests][-1] == "/v1/models"


def test_health_is_answered_aside() -> None:
    with Upstream() as tier:
        assert get(tier.port, "/health").status == 200
        tier.healthy = False
        assert get(tier.port, "/health").status == 503
        assert (tier.requests, tier.seen.probes) == ([], 2)


def test_a_request_is_kept_raw() -> None:
    data = request(chat_body("x"), "X-Odd:  two ")
    with Upstream() as tier:
        ask(tier.port, data)
        assert tier.requests[0].head + tier.requests[0].body == data
        ask(tier.port, chunked([b'{"a":', b"1}"]))
        assert tier.requests[1].body == b'{"a":1}'


def test_a_tier_knows_who_left_and_when() -> None:
    with Upstream(forever()) as tier, Wire(tier.port) as wire:
        wire.send(request(chat_body(stream=True)))
        assert wire.some()
        wire.close()
        left = time.monotonic()
        assert 0 <= tier.cancelled() - left < 0.5


def test_scripts_go_to_the_next_requests_in_order() -> None:
    with Upstream(answer("usual")) as tier:
        tier.next(fails(503, retry_after="2"), hang)
        assert chat(tier.port).header("retry-after") == "2"
        with pytest.raises(TimeoutError):
            chat(tier.port, seconds=0.2)
        assert chat(tier.port).text == "usual"


def test_cuts_are_seen_as_cuts() -> None:
    events = vllm.chat_events("a b c")
    with Upstream() as tier:
        tier.next(says(response("200 OK", b"x" * 50)[:-10], then="fin"))
        assert not chat(tier.port).whole
        tier.next(streams(events[:2], then="reset", last=False))
        cut = chat(tier.port)
        assert (cut.whole, cut.body) == (False, b"".join(events[:2]))
        tier.next(reset)
        with pytest.raises((Cut, ConnectionError)):
            chat(tier.port)


def test_pieces_and_pauses_arrive_apart() -> None:
    with Upstream(says(response("200 OK", b"{}"), piece=1)) as tier:
        assert chat(tier.port).body == b"{}"
        with Wire(tier.port) as wire:
            began = time.monotonic()
            wire.send(request(chat_body())[:3], request(chat_body())[3:], pause=0.2)
            assert wire.reply().status == 200
            assert time.monotonic() - began >= 0.2


def test_a_tier_can_vanish_and_come_back() -> None:
    with Upstream() as tier:
        tier.refuse()
        with pytest.raises(ConnectionRefusedError):
            chat(tier.port)
        tier.listen()
        assert chat(tier.port).status == 200


def test_a_port_can_refuse_or_swallow() -> None:
    with Refusing() as port, pytest.raises(ConnectionRefusedError):
        Wire(port.port)
    with Swallowing() as port, pytest.raises(TimeoutError):
        Wire(port.port, timeout=0.3)


def test_a_kept_connection_is_closed_when_idle_or_reset_when_stale() -> None:
    with Upstream() as tier:
        tier.keep_alive = 0.2
        with Wire(tier.port) as wire:
            assert wire.send(request(chat_body())).reply().status == 200
            assert wire.until_closed(2) == b""
        tier.next(stale())
        with Wire(tier.port) as wire:
            assert wire.send(request(chat_body())).reply().status == 200
            assert wire.until_closed(0.15) == b""


def test_replies_are_cut_out_of_what_came() -> None:
    two = response("200 OK", b"a") + stream_head() + chunk(b"data: x\n\n", b";a=b") + LAST
    assert [one.status for one in replies(two)] == [200, 200]
    with Upstream(says(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + two)) as tier, Wire(tier.port) as wire:
        wire.send(request(chat_body()))
        assert wire.reply().body == b"a"
        assert wire.reply().chunks == (b"data: x\n\n",)


def test_events_are_read_by_the_standard() -> None:
    assert data_of(b": c\n\ndata:a\r\ndata: b\r\n\r\nevent: x\n\ndata: c") == [b"a\nb", b"c"]
