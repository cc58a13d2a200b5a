"""Where the router meets others: another router, an API behind TLS, limits, a full disk's bound, the log, ids."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from modeltiers.domain.routing.accept import judge
from modeltiers.domain.routing.record import decode, verify_line, version_of
from modeltiers.domain.routing.table import read_table
from tests.router.kit import vllm
from tests.router.kit.client import Reply, Wire, ask, chat, chat_body, request
from tests.router.kit.router import Router, spooled, table
from tests.router.kit.setup import NEVER_OPENS, ladder
from tests.router.kit.upstream import (
    Call,
    Refusing,
    Script,
    Upstream,
    answer,
    fails,
    hang,
    says,
    streams,
)

TIMES = {"connectMs": 1_000, "firstByteMs": 10_000, "idleMs": 10_000, "totalMs": 20_000}
SURE, UNSURE = -0.05, -5.0


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it never came to hold within {seconds} s"
        time.sleep(0.01)


# -- from one router to another ---------------------------------------------------------------------------------------


def tier(name: str, port: int, **fields: Any) -> dict[str, Any]:
    made = {"name": name, "address": f"127.0.0.1:{port}", "timeouts": TIMES, **NEVER_OPENS}
    return {**made, "health": {"intervalMs": 3_600_000}, **fields}


def hop_table(*tiers: dict[str, Any], **policy: Any) -> dict[str, Any]:
    """One policy over these tiers, the same version wherever it is used."""
    names = [one["name"] for one in tiers]
    made = {"name": "support", "model": "support", "tiers": names, **policy}
    return {"formatVersion": 1, "version": "hop-1", "tiers": list(tiers), "policies": [made]}


CASCADE = {
    "mode": "Cascade",
    "accept": {"confidence": {}},
    "escalation": {"maxSharePermille": 1000},
    "stream": {"windowTokens": 8, "windowMs": 10_000},
}


class Hops:
    """Two routers: the front one stands beside `near`, the back one beside `far`, which is the tier above."""

    def __init__(self, folder: Path, stack: ExitStack, *, keys: tuple[bytes, bytes], **policy: Any) -> None:
        self.near, self.far, self.spare = (stack.enter_context(Upstream()) for _ in range(3))
        self.spools = folder / "front", folder / "back"
        back_table = hop_table(
            tier("small", self.near.port, hop=True), tier("large", self.far.port, local=True, model="far"), **policy
        )
        self.back = stack.enter_context(Router(back_table, *self._flags(folder, 1, keys)))
        front_table = hop_table(
            tier("small", self.near.port, local=True, model="near"),
            tier("large", self.back.port, hop=True),
            tier("spare", self.spare.port),
            **policy,
        )
        self.front = stack.enter_context(Router(front_table, *self._flags(folder, 0, keys)))

    def _flags(self, folder: Path, place: int, keys: tuple[bytes, bytes]) -> tuple[str, ...]:
        flags = ["--spool", str(self.spools[place]), "--log-requests", "all"]
        if keys[place]:
            path = folder / f"key-{place}"
            path.write_bytes(keys[place])
            flags += ["--hop-key", str(path)]
        return tuple(flags)

    def begin(self) -> None:
        self.near.script, self.far.script = answer("near says", logprobs=UNSURE), answer("far says", logprobs=SURE)
        self.spare.script = answer("spare says")
        for one in (self.near, self.far, self.spare):
            one.requests.clear()
        for router in (self.front, self.back):
            router.idle()
            router.until(rested)


def rested(status: dict[str, Any]) -> bool:
    """Whether no tier is left alone because of what a test before did."""
    return {one["state"] for tier_ in status["tiers"].values() for one in tier_["addresses"].values()} == {"Closed"}


KEY = b"k" * 40
SURE_WORD = vllm.chat_chunk({"content": " word"}, logprobs={"content": [vllm.logprob(" word", SURE, 2)]})
UNGENEROUS = {"limits": {"requestsPerMinute": 1000, "concurrency": 50}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hops]:
    with ExitStack() as stack:
        yield Hops(tmp_path_factory.mktemp("hops"), stack, keys=(KEY, KEY), **CASCADE, **UNGENEROUS)


@pytest.fixture
def hops(pair: Hops) -> Hops:
    pair.begin()
    return pair


@pytest.mark.parametrize("stream", [False, True])
def test_a_hop_is_served_by_the_engine_of_the_other_router(hops: Hops, stream: bool) -> None:
    trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = chat(hops.front.port, "hi", trace, "x-request-id: mine-1", stream=stream)
    assert reply.header("x-modeltiers-tier") == "large"
    assert reply.header("x-modeltiers-decision") == "Escalated"
    # The front judges, and there is a tier above: so logprobs are asked for through both, and taken out once.
    assert reply.body == (b"".join(vllm.chat_events("far says")) if stream else vllm.chat("far says"))
    (asked,) = hops.far.requests
    assert asked.json["model"] == "far"
    assert (asked.json["logprobs"], asked.json["top_logprobs"]) == (True, 2)
    assert asked.header("x-modeltiers-hop") is None
    assert asked.header("x-request-id") == "mine-1"
    assert (asked.header("traceparent") or "").startswith("00-0af7651916cd43dd8448eb211c80319c")
    assert len([name for name, _ in reply.headers if name == "x-modeltiers-tier"]) == 1
    assert len(hops.near.requests) == 1


def test_a_hop_leaves_one_record_and_takes_of_one_limit(hops: Hops) -> None:
    spool, other = hops.spools
    before = len(spooled(spool))
    for _ in range(3):
        assert chat(hops.front.port).header("x-modeltiers-tier") == "large"
    until(lambda: len(spooled(spool)) >= before + 3)
    content = hops.front.table.read_bytes()
    made = read_table(json.loads(content))
    assert [f for one in spooled(spool) for f in verify_line(one, made, version_of(made, content), judge)] == []
    time.sleep(0.4)
    assert spooled(other) == []


def test_a_hop_is_not_limited(hops: Hops) -> None:
    with Wire(hops.front.port) as wire:
        wire.send(request(chat_body())).reply()
    limited = hop_table(
        tier("small", hops.near.port, hop=True),
        tier("large", hops.far.port, local=True, model="far"),
        **CASCADE,
        limits={"requestsPerMinute": 1, "queue": 0},
        access={"mode": "Keys"},
    )
    old = hops.back.table.read_text()
    hops.back.reload(limited)
    try:
        until(lambda: chat(hops.back.port).status == 401)  # a client of its own needs a key there
        assert [chat(hops.front.port).header("x-modeltiers-tier") for _ in range(4)] == ["large"] * 4
    finally:
        hops.back.reload(old)
    until(lambda: chat(hops.back.port).status == 200)


def test_a_client_that_leaves_ends_the_call_through_both(hops: Hops) -> None:
    hops.far.script = streams([SURE_WORD] * 20, then="hang", last=False)
    with Wire(hops.front.port) as wire:
        wire.send(request(chat_body(stream=True)))
        assert b"word" in wire.some(5)
    left = time.monotonic()
    assert hops.far.cancelled(0, 3.0) - left < 1
    hops.front.idle(1)
    hops.back.idle(1)


def test_an_engine_that_breaks_off_behind_two_routers_is_no_end_well(hops: Hops) -> None:
    hops.far.script = streams([SURE_WORD] * 20, then="reset", last=False)
    reply = chat(hops.front.port, stream=True)
    assert reply.header("x-modeltiers-tier") == "large"
    assert reply.body.count(b'" word"') == 20
    assert b"[DONE]" not in reply.body
    assert b'"error"' in reply.events[-1]


def test_a_hop_is_not_judged_again(hops: Hops) -> None:
    # The back's own policy would find it wanting, and the tier above it is there: only the front decides.
    hops.far.script = answer("far says", logprobs=UNSURE)
    now = int(time.time())
    reply = chat(hops.back.port, "hi", sign(KEY, f"1.support.hop-1.{now}"))
    assert reply.text == "far says"
    assert "logprobs" not in hops.far.requests[0].json
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-reason")) == ("Chosen", "Hop")
    assert not hops.near.requests
    assert chat(hops.front.port).header("x-modeltiers-tier") == "spare"


@pytest.mark.parametrize("status", [500, 503])
def test_an_engine_that_fails_behind_the_other_router_is_fallen_back_from(hops: Hops, status: int) -> None:
    hops.far.script = fails(status)
    reply = chat(hops.front.port)
    assert reply.header("x-modeltiers-tier") == "spare"


def test_one_failure_behind_the_other_router_takes_nothing_from_others(hops: Hops) -> None:
    hops.far.next(fails(500))
    assert chat(hops.front.port).header("x-modeltiers-tier") == "spare"
    assert chat(hops.front.port).header("x-modeltiers-tier") == "large"


def sign(key: bytes, said: str) -> str:
    mac = hmac.digest(key, b"modeltiers-hop-1\n" + said.encode(), "sha256").hex()
    return f"x-modeltiers-hop: {said}.{mac}"


def test_only_a_holder_of_the_key_hops(hops: Hops) -> None:
    now = int(time.time())
    good = sign(KEY, f"1.support.hop-1.{now}")
    assert chat(hops.back.port, "hi", good).text == "far says"
    hops.far.requests.clear()
    for bad in (
        "x-modeltiers-hop: 1",
        "x-modeltiers-hop: ",
        "x-modeltiers-hop: 1.support.hop-1.0.00",
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.replace("1.support", "2.support"),
        sign(b"another key, as long as the real", f"1.support.hop-1.{now}"),
        sign(b"", f"1.support.hop-1.{now}"),
    ):
        for router in (hops.back, hops.front):
            reply = chat(router.port, "hi", bad)
            assert (reply.status, reply.error["code"]) == (403, "hop_refused")
    assert not hops.far.requests
    assert not hops.near.requests


def test_a_hop_of_another_time_policy_or_length_is_told_apart(hops: Hops) -> None:
    now = int(time.time())
    for said, status, code in (
        (f"1.support.hop-1.{now - 120}", 503, "hop_expired"),
        (f"1.support.hop-1.{now + 120}", 503, "hop_expired"),
        (f"1.other.hop-1.{now}", 503, "hop_policy"),
        (f"4.support.hop-1.{now}", 508, "hop_loop"),
        (f"0.support.hop-1.{now}", 508, "hop_loop"),
    ):
        reply = chat(hops.back.port, "hi", sign(KEY, said))
        assert (reply.status, reply.error["code"]) == (status, code)
    assert not hops.far.requests


@pytest.mark.parametrize(
    "keys", [(KEY, b"o" * 40), (KEY, b""), (b"", KEY)], ids=["differ", "back has none", "front has none"]
)
def test_routers_whose_keys_differ_fall_back(tmp_path: Path, keys: tuple[bytes, bytes]) -> None:
    with ExitStack() as stack:
        found = Hops(tmp_path, stack, keys=keys, **CASCADE)
        found.begin()
        reply = chat(found.front.port)
        assert reply.header("x-modeltiers-tier") == "spare"
        assert reply.text == "spare says"
        assert not found.far.requests


def test_routers_that_point_at_each_other_end_a_request_with_508(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    with ExitStack() as stack:
        nobody = stack.enter_context(Refusing())
        routers = [
            stack.enter_context(
                Router(hop_table(tier("one", nobody.port, local=True, hop=True)), "--hop-key", str(key))
            )
            for _ in range(2)
        ]
        for router, other in (routers, routers[::-1]):
            router.reload(hop_table(tier("one", other.port, local=True, hop=True)))
        for router, other in (routers, routers[::-1]):
            where = f"127.0.0.1:{other.port}"
            until(lambda router=router, where=where: where in router.status()["tiers"]["one"]["addresses"])  # type: ignore[misc]  # mypy does not infer a lambda's default
        began = time.monotonic()
        for stream in (False, True):
            reply = chat(routers[0].port, stream=stream)
            assert reply.status == 508
            assert "circle" in reply.error["message"]
        assert time.monotonic() - began < 2
        for router in routers:
            router.idle(2)


# -- an API outside, behind TLS ---------------------------------------------------------------------------------------


class Secure(Upstream):
    """A tier behind TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, self.host, self.port, limit=2**26, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]


class Outside:
    """A router with a tier in the cluster and one outside, whose key is in a file."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        ca.cert_pem.write_to_path(folder / "ca.pem")
        trustme.CA().cert_pem.write_to_path(folder / "other.pem")
        self.key = folder / "api-key"
        self.key.write_text("sk-first")
        self.near, self.far = stack.enter_context(Upstream()), stack.enter_context(Secure(context))
        self.spool = folder / "spool"
        outside = {"baseUrl": f"https://localhost:{self.far.port}/v1", "private": True, "headers": ["x-kept"]}
        outside |= {"apiKeyFile": str(self.key), "caBundleFile": str(folder / "ca.pem")}
        more = {"timeouts": TIMES, **NEVER_OPENS, "model": "gpt-outside"}
        price = {"inputPerMillionMicros": 2_000_000, "outputPerMillionMicros": 8_000_000}
        tiers = [
            tier("near", self.near.port),
            {"name": "far", "external": outside, "price": price, **more},
            {"name": "distrusted", "external": outside | {"caBundleFile": str(folder / "other.pem")}, **more},
        ]
        policies = [
            {"name": "support", "model": "support", "tiers": ["near", "far"]},
            {"name": "cascade", "model": "cascade", "tiers": ["near", "far"], **CASCADE},
            {"name": "outside", "model": "outside", "tiers": ["far"]},
            {"name": "judged", "model": "judged", "tiers": ["far", "near"], **CASCADE},
            {"name": "wrong", "model": "wrong", "tiers": ["distrusted", "near"]},
        ]
        made = {"formatVersion": 1, "tiers": tiers, "policies": policies}
        self.router = stack.enter_context(Router(made, "--spool", str(self.spool), "--log-requests", "all"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with ExitStack() as stack:
        yield Outside(tmp_path_factory.mktemp("outside"), stack)


@pytest.fixture
def outside(api: Outside) -> Outside:
    api.near.script, api.far.script = answer("near says", logprobs=UNSURE), answer("far says", logprobs=SURE)
    for one in (api.near, api.far):
        one.requests.clear()
    api.router.idle()
    return api


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["fails", "hangs up", "is away"])
def test_a_tier_in_the_cluster_falls_back_to_one_outside(outside: Outside, stream: bool, how: str) -> None:
    outside.near.script = fails(503) if how == "fails" else says(b"", then="reset")
    if how == "is away":
        outside.near.refuse()
    try:
        reply = chat(
            outside.router.port, "hi", "authorization: Bearer sk-client", "x-kept: yes", "x-other: no", stream=stream
        )
    finally:
        if how == "is away":
            outside.near.listen()
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-tier")) == ("Fallback", "far")
    assert reply.body == (b"".join(vllm.chat_events("far says")) if stream else vllm.chat("far says"))
    (asked,) = outside.far.requests
    assert asked.json["model"] == "gpt-outside"
    assert asked.target == "/v1/chat/completions"
    assert asked.header("authorization") == "Bearer sk-first"
    assert asked.header("x-kept") == "yes"
    assert asked.header("x-other") is None
    assert "sk-client" not in asked.head.decode("latin-1")


@pytest.mark.parametrize("stream", [False, True])
def test_a_cascade_escalates_to_one_outside_and_judges_one_there(outside: Outside, stream: bool) -> None:
    reply = chat(outside.router.port, model="cascade", stream=stream)
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-tier")) == ("Escalated", "far")
    assert reply.body == (b"".join(vllm.chat_events("far says")) if stream else vllm.chat("far says"))
    reply = chat(outside.router.port, model="judged", stream=stream)
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-tier")) == ("Accepted", "far")
    assert reply.body == (b"".join(vllm.chat_events("far says")) if stream else vllm.chat("far says"))
    outside.far.script = answer("far says", logprobs=UNSURE)
    reply = chat(outside.router.port, model="judged", stream=stream)
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-tier")) == ("Escalated", "near")


def test_an_outside_answer_that_is_lost_is_given_up_at_once(outside: Outside) -> None:
    said = {"content": [vllm.logprob(" word", UNSURE, 2)]}
    outside.far.script = streams([vllm.chat_chunk({"content": " word"}, logprobs=said)] * 40, then="hang", last=False)
    reply = chat(outside.router.port, model="judged", stream=True)
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-tier")) == ("Escalated", "near")
    assert outside.far.cancelled(0, 1.5)


def test_a_key_that_rotates_is_used_at_once(outside: Outside) -> None:
    try:
        for key in ("sk-second", "sk-third"):
            fresh = outside.key.with_suffix(".new")
            fresh.write_text(f"{key}\n")
            fresh.replace(outside.key)
            assert chat(outside.router.port, model="outside").status == 200
            assert outside.far.requests[-1].header("authorization") == f"Bearer {key}"
    finally:
        outside.key.write_text("sk-first")
    assert "sk-" not in outside.router.output()
    assert "sk-" not in json.dumps(outside.router.status())


def test_a_key_that_is_missing_is_said_and_fallen_back_from(outside: Outside) -> None:
    outside.key.unlink()
    try:
        reply = chat(outside.router.port, model="judged")
        assert reply.header("x-modeltiers-tier") == "near"
        reply = chat(outside.router.port, model="outside")
        assert reply.status in (502, 503)
        assert reply.error["message"]
        assert "APIKey" in json.dumps(outside.router.status()["tiers"]["far"])
    finally:
        outside.key.write_text("sk-first")
    assert chat(outside.router.port, model="outside").status == 200


def test_one_that_shows_a_wrong_certificate_is_fallen_back_from(outside: Outside) -> None:
    reply = chat(outside.router.port, model="wrong")
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-tier")) == ("Fallback", "near")
    assert not outside.far.requests


def test_a_key_that_the_api_refuses_says_nothing_of_it(outside: Outside) -> None:
    outside.far.script = fails(401, message="Incorrect API key provided")
    reply = chat(outside.router.port, model="outside")
    assert reply.status >= 400
    assert "sk-first" not in reply.raw.decode("latin-1")


def test_records_of_outside_hold_and_are_paid_for(outside: Outside) -> None:
    reply = chat(outside.router.port, model="outside")
    content = outside.router.table.read_bytes()
    made = read_table(json.loads(content))
    until(lambda: reply.header("x-modeltiers-record") in {decode(one).id for one in spooled(outside.spool)})
    lines = spooled(outside.spool)
    assert [fault for one in lines for fault in verify_line(one, made, version_of(made, content), judge)] == []
    record = next(one for one in map(decode, lines) if one.id == reply.header("x-modeltiers-record"))
    assert record.cost.answer_micros == 5 * 2 + 2 * 8


# -- limits -----------------------------------------------------------------------------------------------------------


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def hold(router: Router, upstream: Upstream, data: bytes | None = None) -> Wire:
    """Send a request and wait until its tier has it."""
    before = len(upstream.requests)
    wire = Wire(router.port)
    wire.send(data or request(chat_body()))
    upstream.wait(lambda: len(upstream.requests) > before)
    return wire


def test_a_limit_says_when_to_come_back_and_means_it() -> None:
    policy = {"limits": {"requestsPerMinute": 60, "queue": 0}}
    with ladder(answer("x"), policy=policy) as (router, (tier_,)):
        began = time.monotonic()
        with Wire(router.port) as wire:
            said = [wire.send(request(chat_body())).reply() for _ in range(70)]
        refused = [one for one in said if one.status == 429]
        assert refused
        assert 60 <= sum(one.status == 200 for one in said) <= 61 + time.monotonic() - began
        for one in refused:
            assert one.error["type"] == "rate_limit_error"
            assert one.error["code"] == "rate_limit_exceeded"
            assert 1 <= int(one.header("retry-after") or 0) <= 2
        assert len(tier_.requests) == 70 - len(refused)
        assert router.metrics().value("limited_total", policy="support", cause="Requests") == len(refused)
        time.sleep(float(refused[-1].header("retry-after") or 0))
        assert chat(router.port).status == 200


def test_tokens_that_were_not_used_are_given_back_and_those_used_are_owed() -> None:
    # A request that asks for 500 tokens and uses 4 must not cost 500.
    policy = {"limits": {"tokensPerMinute": 2000, "queue": 0}}
    with ladder(answer("a b c d"), policy=policy) as (router, _):
        statuses = [chat(router.port, max_tokens=500).status for _ in range(40)]
        assert statuses == [200] * 40


def test_two_keys_take_turns_in_the_queue() -> None:
    keys = {"keys": [{"name": name, "sha256": digest(name)} for name in ("greedy", "modest")]}
    policy = {"limits": {"concurrency": 1, "queue": 20, "queueMs": 10_000}, "access": {"mode": "Keys"}}

    def data(key: str, text: str) -> bytes:
        return request(chat_body(text), f"authorization: Bearer {key}")

    with ladder(answer("x", first=0.05), policy=policy, keys=keys, timeouts=TIMES) as (router, (tier_,)):
        with ExitStack() as stack:
            wires = [stack.enter_context(hold(router, tier_, data("greedy", "g")))]
            for _ in range(8):
                wires.append(stack.enter_context(Wire(router.port)))
                wires[-1].send(data("greedy", "g"))
            router.until(lambda status: status["waiting"]["support"] == 8)
            for _ in range(3):
                wires.append(stack.enter_context(Wire(router.port)))
                wires[-1].send(data("modest", "m"))
            router.until(lambda status: sum(status["waiting"].values()) >= 8)
            assert {wire.reply().status for wire in wires} == {200}
        order = "".join(asked.json["messages"][0]["content"] for asked in tier_.requests)
        assert len(order) == 12
        # Modest's three are served in turn with greedy's, not behind all eight of them.
        assert order.rindex("m") <= 8, order
        assert "mm" not in order[: order.rindex("m")], order


ONE = {"concurrency": 1, "queue": 0}
KEPT_BUSY = {"limits": ONE, **CASCADE}


def test_a_ticket_comes_back_when_the_tier_is_down() -> None:
    with Refusing() as nobody:
        made = table(nobody.port, policy={"limits": ONE}, tier=NEVER_OPENS)
        with Router(made) as router:
            for stream in (False, True):
                assert {chat(router.port, stream=stream).status for _ in range(12)} == {502}
            assert router.status()["waiting"] == {"support": 0}


def test_a_ticket_comes_back_when_the_breaker_is_open() -> None:
    with Refusing() as nobody:
        made = table(nobody.port, policy={"limits": ONE}, tier={"breaker": {"failures": 1, "openMs": 60_000}})
        with Router(made) as router:
            statuses = [chat(router.port).status for _ in range(12)]
            assert set(statuses) <= {502, 503}
            assert statuses[-1] == 503


def test_a_ticket_comes_back_however_a_request_ends() -> None:
    unsure = answer("x y z", logprobs=UNSURE)
    broken = streams([vllm.chat_chunk({"content": "half"})], then="reset", last=False)
    ways: list[tuple[Script, Script, dict[str, Any]]] = [
        (answer("good", logprobs=SURE), fails(500), {}),
        (fails(400), fails(400), {}),
        (fails(500), fails(500), {}),
        (fails(500), fails(500), {"stream": True}),
        (unsure, answer("large"), {}),
        (unsure, answer("large"), {"stream": True}),
        (unsure, fails(503), {}),
        (unsure, fails(400), {}),
        (unsure, broken, {"stream": True}),
        (broken, broken, {"stream": True}),
        (says(b"nonsense\r\n\r\n"), says(b"nonsense\r\n\r\n"), {}),
        (answer("x"), answer("x"), {"n": 1000}),
        (answer("x"), answer("x"), {"temperature": "hot"}),
    ]
    with ladder(answer("x"), answer("y"), policy=KEPT_BUSY, tier=NEVER_OPENS, timeouts=TIMES) as (router, (low, high)):
        for place, (first, second, fields) in enumerate(ways):
            low.script, high.script = first, second
            statuses = [chat(router.port, **fields).status for _ in range(3)]
            assert 429 not in statuses, (place, statuses)
        low.script, high.script = hang, hang
        for stream in (False, True):
            for _ in range(3):
                hold(router, low, request(chat_body(stream=stream))).close()
                router.idle(1)
        low.script = answer("well", logprobs=SURE)
        assert chat(router.port).text == "well"
        assert router.metrics().value("limited_total") == 0


def test_a_ticket_comes_back_when_one_leaves_the_queue_or_waits_too_long() -> None:
    policy = {"limits": {"concurrency": 1, "queue": 5, "queueMs": 300}}
    with ladder(hang, policy=policy, timeouts=TIMES) as (router, (tier_,)):
        held = hold(router, tier_)
        wires = [Wire(router.port).send(request(chat_body())) for _ in range(3)]
        router.until(lambda status: status["waiting"]["support"] == 3)
        wires[0].close()
        router.until(lambda status: status["waiting"]["support"] == 2)
        for wire in wires[1:]:
            reply = wire.reply(2)
            assert reply.status == 429
            assert reply.header("retry-after")
            wire.close()
        held.close()
        router.idle(2)
        tier_.script = answer("free")
        assert {chat(router.port).text for _ in range(5)} == {"free"}


def with_limits(router: Router, **limits: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(router.table.read_text())
    made["policies"][0]["limits"] = limits
    made["version"] = hashlib.sha256(json.dumps(limits).encode()).hexdigest()[:12]
    return made


def reload(router: Router, made: dict[str, Any]) -> None:
    router.reload(made)
    router.until(lambda status: status["tables"]["table.json"]["version"] == made["version"])


def test_limits_that_change_while_they_are_held() -> None:
    policy = {"limits": {"concurrency": 1, "queue": 5, "queueMs": 10_000}}
    with ladder(hang, policy=policy, timeouts=TIMES) as (router, (tier_,)):
        held = hold(router, tier_)
        waits = Wire(router.port).send(request(chat_body()))
        router.until(lambda status: status["waiting"]["support"] == 1)
        reload(router, with_limits(router, concurrency=2, queue=5, queueMs=10_000))
        tier_.wait(lambda: len(tier_.requests) == 2, 1.0)  # there is room now, and nobody ended
        reload(router, with_limits(router, concurrency=1, queue=0))
        assert chat(router.port).status == 429
        waits.close()
        router.until(lambda status: status["inFlight"] == 1)
        assert chat(router.port).status == 429  # one is still held, and one there may be
        held.close()
        router.idle(1)
        tier_.script = answer("free")
        assert chat(router.port).text == "free"


def test_limits_that_are_taken_away_and_come_back_while_they_are_held() -> None:
    policy = {"limits": {"concurrency": 1, "queue": 5, "queueMs": 10_000}}
    with ladder(hang, policy=policy, timeouts=TIMES) as (router, (tier_,)):
        held = hold(router, tier_)
        waits = Wire(router.port).send(request(chat_body()))
        router.until(lambda status: status["waiting"]["support"] == 1)
        reload(router, with_limits(router))
        tier_.wait(lambda: len(tier_.requests) == 2, 1.0)
        free = hold(router, tier_)
        for wire in (held, waits, free):
            wire.close()
        router.idle(1)
        reload(router, with_limits(router, concurrency=1, queue=0))
        # What ended under no limits has left no debt and no credit: one may go, the second may not.
        held = hold(router, tier_)
        assert chat(router.port).status == 429
        held.close()
        router.idle(1)
        tier_.script = answer("free")
        assert chat(router.port).text == "free"


def test_who_waits_for_a_policy_that_is_gone_is_told_so() -> None:
    policy = {"limits": {"concurrency": 1, "queue": 5, "queueMs": 10_000}}
    with ladder(answer("old", first=0.7), policy=policy, timeouts=TIMES) as (router, (tier_,)):
        with hold(router, tier_) as held, Wire(router.port) as waits:
            waits.send(request(chat_body()))
            router.until(lambda status: status["waiting"]["support"] == 1)
            made = with_limits(router)
            made["policies"][0] |= {"name": "other", "model": "other"}
            reload(router, made)
            reply = waits.reply(2)
            assert (reply.status, reply.error["code"]) == (503, "policy_gone")
            assert held.reply().text == "old"
        router.idle(1)


# -- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["all", "failed", "none"])
def test_requests_are_logged_as_told(which: str) -> None:
    with ladder(answer("fine words"), flags=("--log-requests", which)) as (router, (tier_,)):
        good = [chat(router.port, "a secret").header("x-modeltiers-record") for _ in range(3)]
        tier_.script = fails(500)
        bad = [chat(router.port, "a secret").header("x-modeltiers-record") for _ in range(2)]
        tier_.script = fails(400)
        bad.append(chat(router.port, "a secret").header("x-modeltiers-record"))
        wanted = {"all": {*good, *bad}, "failed": set(bad), "none": set[str | None]()}[which]

        def said() -> set[Any]:
            return {one["id"] for one in router.log() if one["event"] == "request"}

        until(lambda: said() >= wanted)
        time.sleep(0.3)
        assert said() == wanted
        for one in router.log():
            if one["event"] == "request":
                assert one["policy"] == "support"
                assert one["tier"] == "t0"
                assert one["status"] == (200 if one["id"] in good else one["status"])
                assert one["outcome"] in ("Answered", "Failed", "Rejected")
        assert "secret" not in router.output()
        assert "words" not in router.output()


def test_requests_that_were_refused_before_any_tier_are_counted() -> None:
    with ladder(answer("x"), flags=("--log-requests", "all")) as (router, _):
        assert chat(router.port, model="nobody").status == 404
        assert ask(router.port, request(b"{", path="/v1/chat/completions")).status == 400
        assert ask(router.port, request(b"{}", path="/v1/none")).status == 404
        metrics = router.metrics()
        assert metrics.value("refused_total", status="404") == 2
        assert metrics.value("refused_total", status="400") == 1
        assert metrics.value("requests_total") == 0


# -- the spool --------------------------------------------------------------------------------------------------------


def test_the_spool_keeps_within_its_bound_and_serves_on(tmp_path: Path) -> None:
    most = 256 * 1024
    with ladder(answer("x"), flags=("--spool", str(tmp_path), "--spool-bytes", str(most))) as (router, _):

        def crowd() -> None:
            with Wire(router.port) as wire:
                for _ in range(200):
                    assert wire.send(request(chat_body())).reply().status == 200

        threads = [threading.Thread(target=crowd) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(20)
        router.idle()
        until(lambda: router.status()["spool"]["written"] == 800)
        figures = router.status()["spool"]
        assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) <= most
        assert figures["dropped_old"] > 0
        assert router.metrics().value("spool", figure="dropped_old") == figures["dropped_old"]
    lines = spooled(tmp_path)
    assert len(lines) == 800 - figures["dropped_old"]
    assert len({decode(one).id for one in lines}) == len(lines)


def test_a_spool_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with ladder(answer("x"), flags=("--spool", str(tmp_path / "file" / "spool"))) as (router, _):
        assert {chat(router.port).status for _ in range(5)} == {200}
        until(lambda: router.metrics().value("spool", figure="dropped_disk") == 5)


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[Router, Upstream]]:
    with ladder(answer("x"), tier=NEVER_OPENS) as (router, (tier_,)):
        yield router, tier_


def test_a_request_keeps_its_id_if_it_is_one_and_gets_one_if_not(plain: tuple[Router, Upstream]) -> None:
    router, tier_ = plain

    def asked(*lines: str) -> tuple[Reply, str | None]:
        reply = chat(router.port, "hi", *lines)
        assert reply.status == 200
        return reply, tier_.requests[-1].header("x-request-id")

    for good in ("a", "req-1.2_3", "Z" * 128):
        reply, sent = asked(f"x-request-id: {good}")
        assert reply.header("x-request-id") == sent == good
    for bad in ("", "a b", "é", "x" * 129, "a;b", 'a"b', "<script>"):
        reply, sent = asked(f"x-request-id: {bad}")
        assert reply.header("x-request-id") == sent == reply.header("x-modeltiers-record")
    reply, sent = asked()
    assert sent == reply.header("x-request-id") == reply.header("x-modeltiers-record")
    same = {asked("x-request-id: same")[0].header("x-modeltiers-record") for _ in range(5)}
    assert len(same) == 5  # the record's name is ours: nobody else's is taken for it


def test_refusals_carry_the_id_too(plain: tuple[Router, Upstream]) -> None:
    router, tier_ = plain
    tier_.next(fails(500))
    reply = chat(router.port, "hi", "x-request-id: mine")
    assert reply.status == 500
    assert reply.header("x-request-id") == "mine"
    assert reply.header("x-modeltiers-record")


# -- a table that changes under way -----------------------------------------------------------------------------------


def changed(router: Router, place: int, **fields: Any) -> dict[str, Any]:
    """Return the table of a router with one tier changed."""
    made: dict[str, Any] = json.loads(router.table.read_text())
    made["tiers"][place] |= fields
    made["version"] = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:12]
    return made


def test_a_tier_that_hangs_is_timed_out_though_its_table_is_gone() -> None:
    silent = streams([vllm.chat_chunk({"content": "half"})], then="hang", last=False)
    quick = {**TIMES, "firstByteMs": 600, "idleMs": 600}
    with ladder(hang, timeouts=quick) as (router, (tier_,)), Upstream(answer("new")) as new, ExitStack() as stack:
        whole, streamed = (
            stack.enter_context(hold(router, tier_, request(chat_body(stream=stream)))) for stream in (False, True)
        )
        tier_.script = silent
        begun = stack.enter_context(hold(router, tier_, request(chat_body(stream=True))))
        reload(router, changed(router, 0, address=new.address))
        assert whole.reply(3).status == 504
        assert streamed.reply(3).status == 504
        reply = begun.reply(3)
        assert b'"error"' in reply.events[-1]
        assert b"[DONE]" not in reply.body
        assert chat(router.port).text == "new"
        router.idle(1)


def test_a_request_falls_back_to_the_tier_of_its_own_table() -> None:
    gate = list[str]()

    async def late(call: Call) -> None:
        while not gate:
            await call.sleep(0.005)
        await fails(503)(call)

    with ladder(late, answer("old"), timeouts=TIMES) as (router, (low, high)), Upstream(answer("new")) as new:
        with ExitStack() as stack:
            wires = [stack.enter_context(hold(router, low, request(chat_body(stream=one)))) for one in (False, True)]
            reload(router, changed(router, 1, address=new.address))
            gate.append("open")
            for wire in wires:
                reply = wire.reply(3)
                assert reply.status == 200
                assert reply.text == "old"
        assert len(high.requests) == 2
        assert not new.requests
