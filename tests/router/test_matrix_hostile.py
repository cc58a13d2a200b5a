"""Clients that mean harm: slow ones, greedy ones, those with wrong keys, and headers that lie: rows P10, P11, P19, P21.

The measure is always another client: it must be served, and soon.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.router.kit import vllm
from tests.router.kit.client import CHAT, Cut, Reply, Wire, ask, chat, chat_body, chunked, get, replies, request
from tests.router.kit.router import Router, table
from tests.router.kit.setup import Shared, ladder, shared
from tests.router.kit.upstream import Call, Upstream, answer, chunk, forever, hang, response, says, stream_head

MIB = 2**20
PATIENT = {"connectMs": 5_000, "firstByteMs": 30_000, "idleMs": 30_000, "totalMs": 60_000}
QUICK = ("--head-seconds", "0.6", "--body-seconds", "0.8", "--idle-seconds", "1", "--write-seconds", "1")


@pytest.fixture(scope="module")
def started() -> Iterator[Shared]:
    with shared(*QUICK, timeouts=PATIENT) as both:
        yield both


@pytest.fixture
def pair(started: Shared) -> Iterator[Shared]:
    started.begin()
    yield started
    started.end()


def closed_after(wire: Wire, least: float, most: float) -> bytes:
    """Fail unless the other side closes within these bounds; returns what came."""
    began = time.monotonic()
    said = wire.until_closed(most)
    assert least <= time.monotonic() - began <= most
    return said


def latency(port: int, count: int = 20) -> list[float]:
    """Return how long good requests take, best first."""
    with Wire(port) as wire:
        return sorted(wire.send(request(chat_body())).reply().seconds for _ in range(count))


# -- P10: slow ones ---------------------------------------------------------------------------------------------------


def test_p10_a_connection_that_says_nothing_is_closed(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        assert closed_after(wire, 0.4, 2) == b""


@pytest.mark.parametrize("begun", [b"P", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx: y\r\n", b"\r\n"])
def test_p10_a_head_that_never_ends_is_a_408_in_time(pair: Shared, begun: bytes) -> None:
    with Wire(pair.port) as wire:
        wire.send(begun)
        said = closed_after(wire, 0.3, 3)
    assert said == b"" or replies(said)[0].status == 408
    assert pair.first.requests == []


def test_p10_dripping_a_head_buys_no_time(pair: Shared) -> None:
    began = time.monotonic()
    with Wire(pair.port) as wire:
        wire.send(request(b"", "content-length: 5", length=False)[:-2])
        while time.monotonic() - began < 3 and wire.try_send(b"x: y\r\n"):
            time.sleep(0.05)
    assert time.monotonic() - began < 2.5


def test_p10_dripping_a_body_buys_no_time(pair: Shared) -> None:
    began = time.monotonic()
    with Wire(pair.port) as wire:
        wire.send(request(b"", "content-length: 5000", length=False))
        while time.monotonic() - began < 4 and wire.try_send(b"x"):
            time.sleep(0.05)
    assert time.monotonic() - began < 3
    assert pair.first.requests == []


def test_p10_a_body_that_stops_is_a_408(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        wire.send(request(b"", "content-length: 50", length=False) + b"{")
        assert replies(closed_after(wire, 0.5, 3))[0].status == 408


def test_p10_dripping_the_next_head_on_a_kept_connection_buys_no_time(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        assert wire.send(request(chat_body())).reply().status == 200
        began = time.monotonic()
        while time.monotonic() - began < 4 and wire.try_send(b"\r\n"):
            time.sleep(0.1)
        assert time.monotonic() - began < 2.5
    with Wire(pair.port) as wire:
        assert wire.send(request(chat_body())).reply().status == 200
        began = time.monotonic()
        wire.send(b"POST /v1/")
        while time.monotonic() - began < 4 and wire.try_send(b"x"):
            time.sleep(0.1)
        assert time.monotonic() - began < 2.5


def test_p10_a_kept_connection_that_is_idle_is_closed(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        assert wire.send(request(chat_body())).reply().status == 200
        assert closed_after(wire, 0.7, 3) == b""


def test_p10_a_slow_answer_is_no_slow_client(pair: Shared) -> None:
    """The bounds are for what the client does; a tier may take longer than all of them."""
    pair.first.script = answer("worth the wait", first=1.6)
    assert chat(pair.port).text == "worth the wait"
    pair.first.script = answer("one two", between=0.7)
    assert chat(pair.port, stream=True).text == "one two"


async def flood(call: Call) -> None:
    await call.send(stream_head())
    while True:
        await call.send(chunk(vllm.chat_chunk({"content": "x" * 10_000})))


def test_p10_a_reader_that_takes_nothing_of_a_stream_is_ended(pair: Shared) -> None:
    pair.first.script = flood
    pair.router.forget_peak()
    before = pair.router.peak()
    with Wire(pair.port, receive=4096) as wire:
        wire.send(request(chat_body(stream=True)))
        pair.first.cancelled(seconds=4)
        assert pair.router.peak() - before < 8 * MIB
    pair.router.idle(2)


@pytest.mark.parametrize("keep", ["keep-alive", "close"])
def test_p10_a_reader_that_takes_nothing_of_a_long_reply_is_ended(pair: Shared, keep: str) -> None:
    pair.first.script = says(response("200 OK", vllm.chat("x" * 16 * MIB)))
    before = pair.router.rss()
    with Wire(pair.port, receive=4096) as wire:
        wire.send(request(chat_body(), f"connection: {keep}"))
        pair.first.wait(lambda: pair.first.requests and pair.first.requests[0].answered)
        time.sleep(3)
        assert pair.router.rss() - before < 12 * MIB, "the reply is still held for a reader that takes nothing"


@pytest.mark.parametrize("keep", ["keep-alive", "close"])
def test_p10_a_slow_reader_that_does_take_gets_all(pair: Shared, keep: str) -> None:
    whole = vllm.chat("x" * 8 * MIB)
    pair.first.script = says(response("200 OK", whole))
    with Wire(pair.port, receive=65_536) as wire:
        wire.send(request(chat_body(), f"connection: {keep}"))
        got, began = b"", time.monotonic()
        while len(got) < len(whole) and (more := wire.some(5)):
            got += more
            if time.monotonic() - began < 3:
                time.sleep(0.02)
    assert got.endswith(whole[-100:])
    assert len(got) > len(whole)


def test_p10_a_slow_reader_of_a_stream_slows_the_tier_and_not_the_router(pair: Shared) -> None:
    pair.first.script = flood
    router = pair.router
    router.forget_peak()
    before = router.peak()
    with Wire(pair.port, receive=16_384) as wire:
        wire.send(request(chat_body(stream=True)))
        for _ in range(30):
            assert wire.some(3)
            time.sleep(0.05)
        assert pair.first.requests[0].cancelled is None
    assert router.peak() - before < 4 * MIB


def test_p10_a_thousand_slow_sockets_do_not_delay_a_good_request() -> None:
    flags = ("--connections-per-client", "1200", "--head-seconds", "8", "--body-seconds", "8")
    with ladder(answer("good"), flags=flags, timeouts=PATIENT) as (router, _):
        calm = statistics.median(latency(router.port))
        half = [b"POST /v1/chat/completions HTTP/1.1\r\n", request(b"", "content-length: 500", length=False) + b"{"]
        wires = [Wire(router.port) for _ in range(1000)]
        try:
            for place, wire in enumerate(wires):
                wire.send(half[place % 2])
            took = latency(router.port, 60)
            for wire in wires[::3]:
                wire.try_send(b"x: y\r\n")
            took = sorted(took + latency(router.port, 60))
            assert took[-3] - calm < 0.05, took[-10:]
            assert router.status()["inFlight"] == 0
            assert router.rss() < 100 * MIB
        finally:
            for wire in wires:
                wire.close()


# -- P11: headers that lie (the corpus is in test_smuggling.py) -------------------------------------------------------

PASSED_ON = {"host", "content-type", "content-length", "x-request-id", "traceparent", "tracestate"}


def test_p11_the_outgoing_head_is_made_anew(pair: Shared) -> None:
    lines = [
        "authorization: Bearer secret",
        "cookie: a=b",
        "connection: keep-alive, close",
        "keep-alive: timeout=5",
        "proxy-authorization: x",
        "proxy-connection: x",
        "te: trailers",
        "x-forwarded-for: 1.2.3.4",
        "x-forwarded-host: evil",
        "forwarded: for=1.2.3.4",
        "x-real-ip: 1.2.3.4",
        "x-original-url: /metrics",
        "x-rewrite-url: /metrics",
        "x-http-method-override: DELETE",
        "x-modeltiers-record: x",
        "openai-organization: x",
        "api-key: secret",
        "x-api-key: secret",
        "endpoint-load-metrics-format: TEXT",
        "accept-encoding: gzip",
        "accept: */*",
        "user-agent: x",
        "range: bytes=0-1",
        "if-none-match: *",
        "transfer_encoding: chunked",
        "content_length: 5",
        "x-request-id: r-1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=b",
    ]
    assert chat(pair.port, "x", *lines).status == 200
    asked = pair.first.requests[0]
    names = [name for name, _ in asked.headers]
    assert set(names) <= PASSED_ON | {"x-modeltiers-hop", "accept-encoding"}
    assert len(names) == len(set(names))
    assert b"secret" not in asked.head
    assert asked.header("x-modeltiers-hop") is None
    assert asked.header("x-request-id") == "r-1"


@pytest.mark.parametrize(
    "named", ["authorization", "content-length", "host", "x-request-id", "close, x", "upgrade", "te, x"]
)
def test_p11_a_header_named_by_connection_is_not_dropped_on_command(pair: Shared, named: str) -> None:
    reply = chat(pair.port, "x", f"connection: {named}", "x-request-id: r-1")
    assert reply.status in (200, 400)
    for asked in pair.first.requests:
        assert asked.header("content-length")
        assert asked.header("x-request-id") == "r-1"


@pytest.mark.parametrize(
    "value",
    ["a b", "a;b", "\xe9", "a" * 129, "", "a\tb", "<script>", "'\"", "../x", "a,b", "${jndi:x}", "%0d%0a", "a:b"],
)
def test_p11_a_request_id_that_is_none_is_replaced(pair: Shared, value: str) -> None:
    reply = chat(pair.port, "x", f"x-request-id: {value}")
    assert reply.status == 200
    assert reply.header("x-request-id")
    assert reply.header("x-request-id") != value
    assert pair.first.requests[0].header("x-request-id") == reply.header("x-request-id")


@pytest.mark.parametrize("value", ["x" * 5000, "\xff\xfe", "00-zz", "a\x7f", "00-0af7-b7ad-01, evil", "<x>"])
def test_p11_trace_headers_that_are_none_do_no_harm(pair: Shared, value: str) -> None:
    reply = chat(pair.port, "x", f"traceparent: {value}", f"tracestate: {value}")
    assert reply.status in (200, 400)
    pair.still_serves()


def test_p11_no_answer_reflects_what_was_sent(pair: Shared) -> None:
    script = "<script>alert(1)</script>"
    for data in (
        request(chat_body(), path=f"/{script}"),
        request(chat_body(), f"x-request-id: {script}"),
        request(chat_body(), host=script),
        request(chat_body(), f"content-type: {script}", kind=None),
    ):
        reply = ask(pair.port, data)
        assert script.encode() not in reply.raw
        assert reply.header("content-type") == "application/json"


# -- P19: keys --------------------------------------------------------------------------------------------------------

KEYS = {"team-a": "sk-alpha-1", "team-b": "sk-beta-22", "team-c": "sk-gamma-333"}
FILE = {"keys": [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in KEYS.items()]}
ACCESS = {"access": {"mode": "Keys", "keys": ["team-a", "team-b"]}}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Shared]:
    with shared(keys=FILE, policy=ACCESS) as both:
        yield both


@pytest.fixture
def locked(guarded: Shared) -> Iterator[Shared]:
    guarded.begin()
    yield guarded
    guarded.end()


def unlocked_by(reply: Reply, locked: Shared) -> bool:
    """Whether a request was let in; fails unless a refusal is a 401 or 403 in OpenAI's shape that no tier saw."""
    if reply.status == 200:
        return True
    assert reply.status in (401, 403), reply
    assert reply.error["code"]
    assert locked.first.requests == []
    return False


def test_p19_a_key_that_is_known_opens(locked: Shared) -> None:
    for name in ("team-a", "team-b"):
        assert unlocked_by(chat(locked.port, "x", f"authorization: Bearer {KEYS[name]}"), locked)
    assert unlocked_by(chat(locked.port, "x", f"Authorization:   bearer   {KEYS['team-a']}  "), locked)
    assert all(b"sk-" not in asked.head + asked.body for asked in locked.first.requests)


WRONG = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer sk-alpha-2",
    "Bearer sk-alpha-",
    "Bearer sk-alpha-11",
    "Bearer SK-ALPHA-1",
    "bearer x sk-alpha-1",
    "Basic sk-alpha-1",
    "sk-alpha-1",
    "Bearersk-alpha-1",
    "Bearer sk-alpha-1, Bearer x",
    'Bearer "sk-alpha-1"',
    "Bearer sk-alpha-1\x7f",
    "Bearer \xff\xfe",
    "Bearer " + "x" * 10_000,
    "Bearer " + hashlib.sha256(b"sk-alpha-1").hexdigest(),
    "Bearer team-a",
    "Bearer *",
    "Bearer null",
]


@pytest.mark.parametrize("said", WRONG, ids=lambda said: repr(said)[:30])
def test_p19_a_key_that_is_wrong_does_not(locked: Shared, said: str | None) -> None:
    lines = [f"authorization: {said}"] if said is not None else []
    reply = chat(locked.port, "x", *lines)
    if said is not None and "\x7f" in said and reply.status == 400:
        return  # no HTTP, so it is refused before a key is looked at
    assert not unlocked_by(reply, locked)


def test_p19_a_key_for_another_policy_is_a_403(locked: Shared) -> None:
    reply = chat(locked.port, "x", f"authorization: Bearer {KEYS['team-c']}")
    assert reply.status == 403
    assert reply.error["type"] == "permission_error"
    assert KEYS["team-c"] not in reply.body.decode()


@pytest.mark.parametrize(
    "where",
    [
        request(chat_body(), path=f"{CHAT}?api_key={KEYS['team-a']}"),
        request(chat_body(), path=f"{CHAT}?authorization=Bearer%20{KEYS['team-a']}"),
        request(chat_body(), f"x-api-key: {KEYS['team-a']}"),
        request(chat_body(), f"api-key: {KEYS['team-a']}"),
        request(chat_body(), f"cookie: authorization={KEYS['team-a']}"),
        request(chat_body(), f"proxy-authorization: Bearer {KEYS['team-a']}"),
        request(chat_body(api_key=KEYS["team-a"])),
    ],
    ids=["query", "query, whole", "x-api-key", "api-key", "cookie", "proxy", "body"],
)
def test_p19_a_key_anywhere_else_does_not_open(locked: Shared, where: bytes) -> None:
    reply = ask(locked.port, where)
    assert reply.status in (401, 403, 404)
    assert locked.first.requests == []


def test_p19_two_keys_do_not_open(locked: Shared) -> None:
    lines = (f"authorization: Bearer {KEYS['team-a']}", "authorization: Bearer x")
    for order in (lines, lines[::-1]):
        assert chat(locked.port, "x", *order).status in (400, 401)
    trailing = chunked([chat_body()])[:-2] + f"authorization: Bearer {KEYS['team-a']}\r\n\r\n".encode()
    assert ask(locked.port, trailing).status == 401
    assert locked.first.requests == []


def test_p19_models_show_only_what_the_key_may_ask_for(locked: Shared) -> None:
    def seen(*lines: str) -> set[str]:
        reply = ask(locked.port, request(b"", *lines, path="/v1/models", method="GET"))
        return {one["id"] for one in reply.json["data"]} if reply.status == 200 else set()

    assert seen() == set()
    assert seen("authorization: Bearer x") == set()
    assert seen(f"authorization: Bearer {KEYS['team-c']}") == set()
    assert "support" in seen(f"authorization: Bearer {KEYS['team-a']}")


def test_p19_without_a_key_nobody_learns_which_models_there_are(locked: Shared) -> None:
    known, unknown = chat(locked.port), chat(locked.port, model="nobody-has-it")
    assert known.status == 401
    assert unknown.status in (401, 404)
    assert unknown.status == known.status, "404 for an unknown and 401 for a known model tell which exist"


def test_p19_without_a_key_a_body_is_not_worked_on(locked: Shared) -> None:
    """Whoever shows no key must not be able to make the router parse ten mebibytes: it learns nothing of the body."""
    for body in (b"{" * MIB, b'{"model":"support"', b"\xff"):
        assert ask(locked.port, request(body)).status == 401
        assert ask(locked.port, request(body, f"authorization: Bearer {KEYS['team-a']}")).status == 400


def test_p19_wrong_keys_in_great_number_do_not_disturb_others(locked: Shared) -> None:
    good = request(chat_body(), f"authorization: Bearer {KEYS['team-a']}")
    with Wire(locked.port) as wire, Wire(locked.port) as other:
        for place in range(1500):
            wire.send(request(chat_body(), f"authorization: Bearer guess-{place}"))
            assert wire.reply().status in (401, 429)
            if place % 100 == 0:
                reply = other.send(good).reply()
                assert reply.status == 200
                assert reply.seconds < 0.3
    assert locked.router.metrics().value("refused_total", status="401") >= 1


def test_p19_the_time_to_refuse_says_nothing_of_how_near_a_guess_is(locked: Shared) -> None:
    """Medians of interleaved tries; a comparison byte by byte in Python would show tens of nanoseconds, a scan more."""

    def tries(key: str) -> bytes:
        return request(chat_body(), f"authorization: Bearer {key}")

    near, far = tries(KEYS["team-a"][:-1] + "x"), tries("y" * len(KEYS["team-a"]))
    took: dict[bytes, list[float]] = {near: [], far: []}
    with Wire(locked.port) as wire:
        for _ in range(400):
            for data in (near, far):
                took[data].append(wire.send(data).reply().seconds)
    assert abs(statistics.median(took[near]) - statistics.median(took[far])) < 50e-6


def test_p19_new_keys_are_taken_and_old_ones_stop_without_a_restart() -> None:
    with ladder(answer("x"), keys=FILE, policy={"access": {"mode": "Keys"}}) as (router, _):

        def status(key: str) -> int:
            return chat(router.port, "x", f"authorization: Bearer {key}").status

        assert (status(KEYS["team-a"]), status("sk-new")) == (200, 401)
        fresh = {"keys": [{"name": "team-n", "sha256": hashlib.sha256(b"sk-new").hexdigest()}]}
        router.keys.write_text(json.dumps(fresh))
        router.until(lambda _: status("sk-new") == 200)
        assert status(KEYS["team-a"]) == 401
        for bad in ("{", '{"keys": [{"name": "x", "sha256": "sk-plain"}]}', '{"keys": 1}', "[]", "\xff", ""):
            router.keys.write_text(bad)
            router.until(lambda found: found["refusedKeys"])
            assert status("sk-new") == 200
            assert "sk-plain" not in json.dumps(router.status())
            router.keys.write_text(json.dumps(fresh))
            router.until(lambda found: not found["refusedKeys"])


def test_p19_a_router_tells_by_name_which_keys_it_lacks() -> None:
    """So that the operator can say it without reading a Secret; and a file that nobody asks for is not missed."""
    with ladder(answer("x"), keys=FILE, policy={"access": {"mode": "Keys", "keys": ["team-a", "batch"]}}) as (
        router,
        _,
    ):
        status = router.status()
        assert (status["keys"], status["policies"]["support"]["missingKeys"]) == (len(KEYS), ["batch"])
        fresh = {"keys": [{"name": "batch", "sha256": hashlib.sha256(b"sk-new").hexdigest()}]}
        router.keys.write_text(json.dumps(fresh))
        router.until(lambda found: found["policies"]["support"]["missingKeys"] == ["team-a"])
    with ladder(answer("x"), flags=("--keys", "/nowhere/keys.json")) as (router, _):
        assert router.status()["refusedKeys"] is None
        assert router.status()["policies"]["support"]["missingKeys"] == []


def test_p19_without_a_key_file_a_guarded_policy_lets_nobody_in() -> None:
    with ladder(answer("x"), policy={"access": {"mode": "Keys"}}) as (router, (tier,)):
        assert chat(router.port, "x", "authorization: Bearer x").status in (401, 403, 503)
        assert chat(router.port).status in (401, 403, 503)
        assert tier.requests == []


def test_p19_a_refusal_of_a_tier_shows_no_key(locked: Shared) -> None:
    locked.first.script = says(response("401 Unauthorized", b'{"error":"Unauthorized"}'))
    reply = chat(locked.port, "x", f"authorization: Bearer {KEYS['team-a']}")
    assert KEYS["team-a"].encode() not in reply.raw + reply.body
    assert reply.status in (401, 502)
    assert reply.error


# -- P21: greedy ones -------------------------------------------------------------------------------------------------


def test_p21_one_client_holds_only_so_many_connections() -> None:
    flags = ("--connections-per-client", "20", "--connections", "1000")
    with ladder(answer("x"), flags=flags) as (router, _):
        wires = [Wire(router.port) for _ in range(20)]
        try:
            assert wires[0].send(request(chat_body())).reply().status == 200
            with Wire(router.port) as one_more:
                refused = one_more.reply(2)
                assert refused.status == 429
                assert refused.error
                assert int(refused.header("retry-after") or 0) >= 1
                one_more.until_closed(3)
            assert wires[1].send(request(chat_body())).reply().status == 200
            wires.pop().close()
            time.sleep(1.2)
            assert chat(router.port).status == 200
        finally:
            for wire in wires:
                wire.close()


def test_p21_all_clients_together_hold_only_so_many_connections() -> None:
    with ladder(answer("x"), flags=("--connections", "10")) as (router, _):
        wires = [Wire(router.port) for _ in range(10)]
        try:
            assert ask(router.port).status == 429
            assert wires[0].send(request(chat_body())).reply().status == 200
            assert get(router.admin, "/healthz").status == 200
        finally:
            for wire in wires:
                wire.close()


def test_p21_connections_over_the_bound_come_and_go_without_a_leak() -> None:
    with ladder(answer("x"), flags=("--connections", "10")) as (router, _):
        before = router.descriptors()
        for _ in range(5):
            wires = [Wire(router.port) for _ in range(100)]
            time.sleep(0.1)
            for place, wire in enumerate(wires):
                wire.reset() if place % 2 else wire.close()
        time.sleep(1.5)
        assert router.descriptors() <= before + 2
        assert chat(router.port).status == 200


def test_p21_a_thousand_streams_of_one_client_leave_room_for_another() -> None:
    """And memory stays small: a stream costs what it holds, not what it might."""
    with ladder(
        forever(1.0), answer("other"), alone=True, flags=("--connections-per-client", "1100"), timeouts=PATIENT
    ) as (
        router,
        _,
    ):
        idle = router.rss()
        wires = [Wire(router.port) for _ in range(1000)]
        try:
            for wire in wires:
                wire.send(request(chat_body(model="t0", stream=True)))
            router.until(lambda status: status["inFlight"] == 1000, 20)
            with Wire(router.port) as other:
                took = sorted(other.send(request(chat_body(model="t1"))).reply().seconds for _ in range(20))
            assert took[len(took) // 2] < 0.15, took
            assert get(router.admin, "/healthz").status == 200
            assert router.rss() - idle < 75 * MIB
        finally:
            for wire in wires:
                wire.close()
        router.idle(10)


def test_p21_the_lag_of_the_loop_is_told_and_liveness_holds_under_load(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        for _ in range(200):
            wire.send(request(chat_body()))
            assert wire.reply().status == 200
    metrics = pair.router.metrics()
    assert "modeltiers_router_loop_lag_seconds" in metrics.text
    assert metrics.value("loop_lag_seconds") < 1
    assert get(pair.router.admin, "/healthz").status == 200


def test_p21_with_no_descriptors_left_it_serves_those_it_has_and_recovers() -> None:
    """Accepting fails when the process may open nothing more; it must neither die nor spin, and go on afterwards."""
    with Upstream(answer("x")) as tier, Router(table(tier.port), "--connections-per-client", "5000") as router:
        assert chat(router.port).status == 200
        import resource

        now = router.descriptors()
        resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (now + 12, now + 12))
        wires = [Wire(router.port) for _ in range(60)]
        try:
            time.sleep(0.3)
            spent = router.cpu()
            assert wires[0].send(request(chat_body())).reply().status in (200, 502, 503)
            time.sleep(1)
            assert router.cpu() - spent < 0.6, "it spins"
        finally:
            for wire in wires:
                wire.close()
        until = time.monotonic() + 5
        while not _serves(router):
            assert time.monotonic() < until
            time.sleep(0.1)


def _serves(router: Router) -> bool:
    try:
        return chat(router.port).status == 200
    except (Cut, OSError):  # it has not noticed yet that the others are gone
        return False


def test_p21_many_models_and_ids_that_nobody_knows_make_no_new_series(pair: Shared) -> None:
    before = len(pair.router.metrics().text)
    with Wire(pair.port) as wire:
        for place in range(300):
            body: dict[str, Any] = {"model": f"nobody-{place}", "user": f"u{place}"}
            wire.send(request(chat_body(**body), f"x-request-id: id-{place}", f"x-modeltiers-tier: t{place}")).reply()
            wire.send(request(chat_body(), path=f"/nowhere/{place}")).reply()
    assert len(pair.router.metrics().text) < before + 2000


def test_p21_hanging_tiers_hold_only_their_own_requests(pair: Shared) -> None:
    pair.first.script = hang
    wires = [Wire(pair.port) for _ in range(100)]
    try:
        for wire in wires:
            wire.send(request(chat_body(model="t0")))
        pair.first.wait(lambda: len(pair.first.requests) == 100)
        assert chat(pair.port, model="t1").text == "second"
    finally:
        for wire in wires:
            wire.close()
