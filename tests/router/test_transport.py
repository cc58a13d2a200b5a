"""The router against real sockets: what a client sees when tiers answer, fail, stall, break off or lie."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from tests.router.conftest import Start, table
from tests.router.upstream import (
    STREAM,
    Asked,
    Behaviour,
    Upstream,
    answers,
    chunk,
    completion,
    events,
    never,
    reply,
    says,
    upstream,
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_an_answer_passes_byte_for_byte(start: Start) -> None:
    async with upstream(says("hello")) as tier, start(table(tier.port)) as router:
        answer = await router.chat()
        assert answer.status_code == 200
        assert answer.content == completion("hello")
        assert answer.headers["x-modeltiers-tier"] == "t0"
        assert await router.metric("tokens_total", kind="completion") == 3


async def test_a_body_passes_byte_for_byte(start: Start) -> None:
    """Order, numbers, white space and unknown fields: nothing is decoded and encoded again."""
    text = b'"\\u00e9 \xc3\xa9"'
    body = (
        b'{ "zeta" :1.10e2, "model":"support","messages": [{"role":"user","content":%b}] ,"b":12345678901234567890}'
        % text
    )
    async with upstream(says("x")) as tier, start(table(tier.port)) as router:
        kind = {"content-type": "application/json"}
        assert (await router.http.post("/v1/chat/completions", content=body, headers=kind)).status_code == 200
        assert tier.asked[0].body == body


async def test_a_model_name_is_mapped_and_nothing_else_changes(start: Start) -> None:
    body = b'{"a": [1,  2], "model" : "support", "messages":[{"role":"user","content":"\\"model\\":\\"support\\""}]}'
    async with upstream(says("x")) as tier, start(table(tier.port, tier={"model": "org/tiny"})) as router:
        kind = {"content-type": "application/json"}
        await router.http.post("/v1/chat/completions", content=body, headers=kind)
        assert tier.asked[0].body == body.replace(b'"model" : "support"', b'"model" : "org/tiny"')


async def test_of_the_head_only_what_is_meant_for_a_tier_goes_on(start: Start) -> None:
    async with upstream(says("x")) as tier, start(table(tier.port)) as router:
        sent = {"authorization": "Bearer secret", "cookie": "a=b", "traceparent": "00-1-2-01", "x-request-id": "abc-1"}
        answer = await router.http.post(
            "/v1/chat/completions",
            json={"model": "support", "messages": [{"role": "user", "content": "x"}]},
            headers=sent,
        )
        head = tier.asked[0].head
        assert b"secret" not in head
        assert b"cookie" not in head
        assert b"traceparent: 00-1-2-01\r\n" in head
        assert b"x-request-id: abc-1\r\n" in head
        assert answer.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("asks", [False, True])
async def test_usage_of_a_stream_is_counted_and_shown_only_to_those_who_asked(start: Start, asks: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asks else {}
    async with upstream(says("one two")) as tier, start(table(tier.port)) as router:
        answer = await router.chat(stream=True, **options)
        assert answer.content == b"".join(events("one two", usage=asks))
        assert tier.asked[0].json["stream_options"] == {"include_usage": True}
        assert await router.metric("tokens_total", kind="prompt") == 5


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_a_stream_cut_anywhere_comes_out_the_same(start: Start, size: int, end: bytes) -> None:
    whole = b': hello\n\ndata: {"choices":[1]}\ndata: second\n\nevent: x\ndata: \xe2\x82\xac\n\ndata: [DONE]\n\n'
    whole = whole.replace(b"\n", end)

    async def dribble(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for at in range(0, len(whole), size):
            writer.write(chunk(whole[at : at + size]))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with upstream(dribble) as tier, start(table(tier.port)) as router:
        answer = await router.chat(stream=True, stream_options={"include_usage": True})
        assert answer.content == whole


FAILURES: dict[str, tuple[Behaviour, str]] = {
    "says nothing": (never, "Timeout"),
    "closes at once": (answers(b"", close=True), "Broken"),
    "500": (answers(reply("500 Oops", b"{}")), "500"),
    "503": (answers(reply("503 Busy", b"{}")), "503"),
    "429": (answers(reply("429 Slow", b"{}", "retry-after: 1")), "429"),
    "cut body": (answers(reply("200 OK", b"x" * 50)[:-10], close=True), "Broken"),
    "two framings": (
        answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "Broken",
    ),
    "two lengths": (answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"), "Broken"),
    "no HTTP": (answers(b"SSH-2.0-x\r\n\r\n"), "Broken"),
    "NUL in a header": (answers(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}"), "Broken"),
    "huge head": (answers(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 2**20 + b"\r\ncontent-length: 2\r\n\r\n{}"), "Broken"),
    "redirect": (answers(reply("302 Found", b"", "location: http://127.0.0.1:1/")), "Broken"),
    "gzip": (answers(reply("200 OK", b"\x1f\x8b", "content-encoding: gzip")), "Broken"),
    "error before a word": (answers(STREAM + chunk(b'data: {"error":{"message":"x"}}\n\n') + b"0\r\n\r\n"), "Broken"),
    "empty stream": (answers(STREAM + b"0\r\n\r\n"), "Broken"),
}


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tier_that_fails_before_a_word_is_not_noticed(start: Start, case: str, stream: bool) -> None:
    behaviour, outcome = FAILURES[case]
    async with (
        upstream(behaviour) as bad,
        upstream(says("rescued")) as good,
        start(table(bad.port, good.port)) as router,
    ):
        answer = await router.chat(stream=stream)
        assert answer.status_code == 200
        assert b"rescued" in answer.content
        assert answer.headers["x-modeltiers-tier"] == "t1"
        assert answer.headers["x-modeltiers-decision"] == "Fallback"
        assert await router.metric("attempts_total", tier="t0", outcome=outcome) == 1


async def test_nobody_listening_costs_no_time(start: Start) -> None:
    async with upstream(says("rescued")) as good, start(table(free_port(), good.port)) as router:
        began = time.monotonic()
        assert b"rescued" in (await router.chat()).content
        assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("case", FAILURES)
async def test_with_no_tier_left_the_error_is_openais_and_says_when(start: Start, case: str) -> None:
    behaviour, _ = FAILURES[case]
    async with upstream(behaviour) as bad, start(table(bad.port)) as router:
        answer = await router.chat()
        assert answer.status_code in (429, 500, 502, 503, 504)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        chunk(b'data: {"error":{"message":"EngineCore","code":500}}\n\n') + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
        b"0\r\n\r\n",
    ],
    ids=["cut", "error frame", "no DONE"],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_no_done(start: Start, tail: bytes) -> None:
    begun = STREAM + b"".join(map(chunk, events("one two", usage=False)[:-1]))
    async with upstream(answers(begun + tail, close=not tail)) as bad, upstream(says("other")) as good:
        async with start(table(bad.port, good.port)) as router:
            answer = await router.chat(stream=True)
            last = answer.content.rstrip().rsplit(b"\n\n", 1)[-1]
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_error"
            assert b"[DONE]" not in answer.content
            assert b"other" not in answer.content
            assert good.asked == []
            assert await router.metric("requests_total", outcome="Broken") == 1


async def test_a_stream_that_stalls_ends_with_an_error(start: Start) -> None:
    async def stall(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(events("one", usage=False)[0]))
        await asyncio.sleep(30)

    async with upstream(stall) as bad, start(table(bad.port)) as router:
        assert b'"error"' in (await router.chat(stream=True)).content
        await asyncio.wait_for(bad.left.wait(), 1)


async def test_a_client_that_leaves_stops_the_tier_within_a_second(start: Start) -> None:
    async def forever(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(chunk(events("word", usage=False)[1]))
            await asyncio.sleep(0.02)

    async with upstream(forever) as tier, start(table(tier.port)) as router:
        body = {"model": "support", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with router.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for _ in answer.aiter_raw():
                break
        await asyncio.wait_for(tier.left.wait(), 1)
        await router.until(
            lambda status: (
                status["inFlight"] == 0 and not status["tiers"]["t0"]["addresses"][f"127.0.0.1:{tier.port}"]["inFlight"]
            )
        )
        assert await router.metric("requests_total", outcome="ClientLeft") == 1


async def test_a_connection_closed_while_idle_is_no_failure(start: Start) -> None:
    """vLLM closes after five idle seconds; a request that meets the closing is sent again, and nothing is counted."""

    async def once(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", completion("x")))
        await writer.drain()
        asyncio.get_running_loop().call_later(0.05, writer.transport.abort)

    async with upstream(once) as tier, start(table(tier.port)) as router:
        for _ in range(20):
            assert (await router.chat()).status_code == 200
            await asyncio.sleep(0.045)
        assert await router.metric("attempts_total", outcome="Broken") == 0


async def test_a_breaker_opens_and_closes_again(start: Start) -> None:
    breaker = {"breaker": {"failures": 2, "openMs": 300}}
    async with upstream(FAILURES["500"][0]) as tier, start(table(tier.port, tier=breaker)) as router:
        assert [(await router.chat()).status_code for _ in range(4)] == [500, 500, 503, 503]
        assert len(tier.asked) == 2
        tier.behaviour = says("well again")
        await asyncio.sleep(0.35)
        assert (await router.chat()).status_code == 200


async def test_a_tier_that_says_later_is_left_alone(start: Start) -> None:
    async with upstream(FAILURES["429"][0]) as busy, upstream(says("x")) as other:
        async with start(table(busy.port, other.port)) as router:
            for _ in range(3):
                assert (await router.chat()).status_code == 200
            assert len(busy.asked) == 1


async def test_a_refusal_of_the_tier_is_the_clients(start: Start) -> None:
    """A 400 is nobody else's fault: no other tier is asked, and the shape is OpenAI's whatever the engine said."""
    async with upstream(answers(reply("400 Bad", b'{"detail":"too long"}'))) as tier, upstream(says("x")) as other:
        async with start(table(tier.port, other.port)) as router:
            answer = await router.chat()
            assert (answer.status_code, answer.json()["error"]["message"]) == (400, "too long")
            assert other.asked == []


async def test_a_new_table_is_taken_and_a_bad_one_is_not(start: Start) -> None:
    async with upstream(says("one")) as one, upstream(says("two")) as two, start(table(one.port)) as router:
        assert b"one" in (await router.chat()).content
        router.table.write_text(json.dumps({**table(two.port), "version": "v2"}))
        await router.until(lambda status: status["tables"]["table.json"]["version"] == "v2")
        assert b"two" in (await router.chat()).content
        router.table.write_text('{"formatVersion": 1, "tiers": []}')
        status = await router.until(lambda status: bool(status["refusedTables"]))
        assert "$.tiers" in status["refusedTables"]["table.json"]
        assert b"two" in (await router.chat()).content
        assert await router.metric("table_reloads_total", outcome="Refused") == 1


async def test_a_hundred_reloads_drop_nothing(start: Start) -> None:
    async with upstream(says("x")) as one, upstream(says("x")) as two, start(table(one.port)) as router:
        done = False

        async def ask() -> list[int]:
            codes = []
            while not done:
                codes.append((await router.chat()).status_code)
            return codes

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for number in range(100):
            router.table.write_text(json.dumps({**table((one, two)[number % 2].port), "version": f"v{number}"}))
            await asyncio.sleep(0.03)
        await router.until(lambda status: status["tables"]["table.json"]["version"] == "v99")
        done = True
        codes = [code for found in await asyncio.gather(*asking) for code in found]
        assert len(codes) > 100
        assert set(codes) == {200}


async def test_a_drain_waits_for_streams_and_then_says_so(start: Start) -> None:
    async def slowly(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for event in events("a b c", usage=True):
            await asyncio.sleep(0.3)
            writer.write(chunk(event))
        writer.write(b"0\r\n\r\n")

    async with upstream(slowly) as tier, start(table(tier.port)) as router:
        stream = asyncio.create_task(router.chat(stream=True))
        await router.until(lambda status: status["inFlight"] == 1)
        drained = asyncio.create_task(router.admin.post("/drain?seconds=10"))
        await router.until(lambda status: status["draining"])
        assert (await router.admin.get("/readyz")).status_code == 503
        assert (await drained).json() == {"drained": True, "inFlight": 0}
        assert (await stream).content.endswith(b"data: [DONE]\n\n")
        assert (await router.chat()).status_code == 503


async def test_what_a_shutdown_does_not_wait_for_ends_with_an_error(start: Start) -> None:
    async def stall(_: Upstream, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(events("one", usage=False)[0]))
        await asyncio.sleep(30)

    patient = {"timeouts": {"idleMs": 30000}}
    async with upstream(stall) as tier, start(table(tier.port, tier=patient)) as router:
        stream = asyncio.create_task(router.chat(stream=True))
        await router.until(lambda status: status["inFlight"] == 1)
        await router.admin.post("/drain?seconds=0.1")
        router.process.terminate()
        content = (await stream).content
        assert b'"error"' in content
        assert b"[DONE]" not in content
        assert await asyncio.wait_for(router.process.wait(), 5) == 0
