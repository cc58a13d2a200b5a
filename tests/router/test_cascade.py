"""The cascade through real processes and sockets: what is held, judged, given, escalated, kept, and what it costs.

One router with many policies over scripted tiers serves most tests; its decision records are verified at the end, all
of them, byte for byte.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from modeltiers.domain.routing.accept import judge
from modeltiers.domain.routing.hold import GRACE, most_error
from modeltiers.domain.routing.record import DecisionRecord, account, decode, verify_line
from modeltiers.domain.routing.table import read_table
from tests.router.kit import vllm
from tests.router.kit.client import Reply, Wire, ask, chat, chat_body, request
from tests.router.kit.router import Metrics, Router, spooled
from tests.router.kit.upstream import (
    Call,
    Refusing,
    Script,
    Upstream,
    answer,
    chunk,
    fails,
    hang,
    response,
    says,
    stream_head,
    streams,
)

SURE, UNSURE = -0.05, -5.0
SMALL, LARGE, MIDDLE = "the small one says this", "the large one says that", "the middle one says so"
MANY = " ".join(["word"] * 40)
TIMES = {"connectMs": 1_000, "firstByteMs": 10_000, "idleMs": 10_000, "totalMs": 20_000}
PRICE = {"inputPerMillionMicros": 3_000_000, "outputPerMillionMicros": 7_000_000}
CHEAP = {"inputPerMillionMicros": 200_000, "outputPerMillionMicros": 400_000}
DEAR_PATTERN = "(abc|abd|xyz|" + "|".join(f"w{n}[a-z]+q" for n in range(40)) + ")never"
DEAR_TEXT = " ".join(["lorem ipsum dolor"] * 300)
VERSION = "cascade-1"


def policy(model: str, tiers: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """A cascade that judges by logprobs and never stops for its share, unless the fields say otherwise."""
    made: dict[str, Any] = {
        "name": model,
        "model": model,
        "tiers": tiers or ["small", "large"],
        "mode": "Cascade",
        "accept": {"confidence": {}},
        "stream": {"windowTokens": 8, "windowMs": 10_000},
        "escalation": {"maxSharePermille": 1000},
    }
    return {key: value for key, value in (made | fields).items() if value is not ...}


def checks(*validators: Mapping[str, Any], **accept: Any) -> dict[str, Any]:
    return {"validators": list(validators), **accept}


def wholly(**stream: Any) -> dict[str, Any]:
    return {"windowTokens": 4096, "windowMs": 30_000, **stream}


POLICIES = [
    policy("window"),
    policy("timed", stream={"windowTokens": 4096, "windowMs": 200}),
    policy("bytes", stream={"hold": "Whole", "maxHoldBytes": 2048}),
    policy("whole", stream={"hold": "Whole"}),
    policy("flag", stream={"hold": "Flag"}),
    policy("long", stream=wholly()),
    policy("three", ["small", "middle", "large"]),
    policy("two-calls", ["small", "middle", "large"], escalation={"maxSharePermille": 1000, "maxCalls": 2}),
    policy("one-call", escalation={"maxSharePermille": 1000, "maxCalls": 1}),
    policy("narrow", ["small", "narrow"]),
    policy("narrow-whole", ["small", "narrow"], stream={"hold": "Whole"}),
    policy("dead", ["small", "dead"]),
    policy("dead-whole", ["small", "dead"], stream={"hold": "Whole"}),
    policy("dead-three", ["small", "middle", "dead"]),
    policy("capped", escalation={"maxSharePermille": 300}),
    policy("mute", ["mute", "large"]),
    policy("no-logprobs-wanted", accept={}),
    policy("ignores", accept={"confidence": {"missing": "Ignore"}}),
    policy("thinks", accept={"confidence": {"thinking": True}}),
    policy(
        "checked",
        accept=checks(
            {"name": "no-excuse", "kind": "Pattern", "patterns": ["sorry"], "absent": True, "required": True},
            {"name": "short", "kind": "Length", "maxChars": 200, "required": True},
            {"name": "end", "kind": "Finish", "required": True},
            {"name": "form", "kind": "JSONSchema", "required": True},
            {"name": "tools", "kind": "ToolArguments", "required": True},
            {"name": "sums", "kind": "NumericAnswer", "required": True},
            {"name": "language", "kind": "Language", "language": "en", "required": True},
            {"name": "refusal", "kind": "Refusal", "required": True},
        ),
        stream=wholly(),
    ),
    policy(
        "weighed",
        accept=checks(
            {"name": "thanks", "kind": "Pattern", "patterns": ["thanks"], "weightPermille": 900}, thresholdPermille=600
        ),
    ),
    policy(
        "dear",
        accept=checks(
            {
                "name": "heavy",
                "kind": "Pattern",
                "patterns": [DEAR_PATTERN],
                "absent": True,
                "required": True,
                "deadlineMs": 5_000,
            }
        ),
        stream={"hold": "Whole"},
    ),
    policy(
        "dear-quick",
        accept=checks(
            {
                "name": "heavy",
                "kind": "Pattern",
                "patterns": [DEAR_PATTERN],
                "absent": True,
                "required": True,
                "deadlineMs": 300,
            }
        ),
        stream={"hold": "Whole"},
    ),
    policy("hybrid", mode="Hybrid", score={"thresholdPermille": 350, "unclearPermille": 100}),
    policy("score", mode="Upfront", accept=..., stream=..., escalation=..., score={"thresholdPermille": 350}),
    policy(
        "held",
        mode="Upfront",
        accept=...,
        stream=...,
        escalation=...,
        score={"thresholdPermille": 500, "strongSharePermille": 300},
    ),
    policy("sticky", session={"header": "x-session-id"}),
    policy("override", override={"tiers": ["large"]}),
    policy("canary", canary={"tier": "large", "sharePermille": 300}, session={}),
    policy("upfront", mode="Upfront", accept=..., stream=..., escalation=...),
    policy("up", ["large"], mode="Upfront", accept=..., stream=..., escalation=...),
]


def table_of(small: int, middle: int, large: int, *, dead: int) -> dict[str, Any]:
    def tier(name: str, port: int, **fields: Any) -> dict[str, Any]:
        where = {"name": name, "address": f"127.0.0.1:{port}", "timeouts": TIMES}
        return {**where, "breaker": {"failures": 1000}, "health": {"intervalMs": 3_600_000}, **fields}

    return {
        "formatVersion": 1,
        "version": VERSION,
        "tiers": [
            tier("small", small, price=CHEAP),
            tier("mute", small, can={"logprobs": False}),
            tier("middle", middle, price=CHEAP),
            tier("large", large, price=PRICE),
            tier("narrow", large, concurrency=1),
            tier("dead", dead),
        ],
        "policies": POLICIES,
    }


class Bench:
    """The shared router, its tiers, and how far its figures and records were read."""

    def __init__(self, router: Router, tiers: list[Upstream], spool: Path) -> None:
        self.router, (self.small, self.middle, self.large), self.spool = router, tiers, spool
        self.document = json.loads(router.table.read_text())
        self.asked: list[str] = []
        """The ids of the records that clients were told of."""
        self._before = Metrics("")
        self._since = 0

    @property
    def port(self) -> int:
        return self.router.port

    def begin(self) -> None:
        self.small.script = answer(SMALL, logprobs=SURE)
        self.middle.script = answer(MIDDLE, logprobs=SURE)
        self.large.script = answer(LARGE)
        for one in (self.small, self.middle, self.large):
            one.requests.clear()
        self.router.idle()
        self._before = self.router.metrics()
        self._since = int(time.time() * 1000)

    def chat(self, model: str, text: str = "hi", *lines: str, seconds: float = 15.0, **fields: Any) -> Reply:
        reply = chat(self.port, text, *lines, seconds=seconds, model=model, **fields)
        if reply.status == 200:
            self.asked.append(reply.header("x-modeltiers-record") or "")
        return reply

    def unsure(self, text: str = SMALL, **more: Any) -> None:
        self.small.script = answer(text, logprobs=UNSURE, **more)

    def grown(self, name: str, **labels: str) -> float:
        return self.router.metrics().value(name, **labels) - self._before.value(name, **labels)

    def record(self, reply: Reply, seconds: float = 5.0) -> DecisionRecord:
        """Wait for the record of a reply; it must hold."""
        wanted = reply.header("x-modeltiers-record") or "-"
        return self.find(lambda one: one.id == wanted, seconds)

    def find(self, fits: Callable[[DecisionRecord], bool], seconds: float = 5.0) -> DecisionRecord:
        """Wait for a record of this test that fits; it must hold."""
        until = time.monotonic() + seconds
        while True:
            for line in reversed(spooled(self.spool)):
                found = decode(line)
                if found.time_ms >= self._since and fits(found):
                    assert faults_of(line, self.document) == []
                    return found
            assert time.monotonic() < until, "no such record came"
            time.sleep(0.02)


def faults_of(line: bytes, document: Any) -> list[str]:
    """Return what a line of the spool has wrong, its sums included."""
    table = read_table(document)
    found = verify_line(line, table, VERSION, judge)
    record = decode(line)
    if account(table.tiers, record.attempts) != record.cost:
        found.append("cost: does not add up")
    return found


def shape(reply: Reply) -> tuple[str | None, ...]:
    return tuple(reply.header(f"x-modeltiers-{name}") for name in ("decision", "reason", "tier"))


def outcomes(record: DecisionRecord) -> list[tuple[str, str]]:
    return [(one.tier, one.outcome) for one in record.attempts]


AT_ONCE = """import sys
if "modeltiers.router" in sys.orig_argv:
    from modeltiers.router import spool
    spool.FLUSH = 0.005
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    spool, path = tmp_path_factory.mktemp("spool"), tmp_path_factory.mktemp("path")
    # Most tests read a record: a quarter of a second for each is longer than all the rest of them.
    (path / "sitecustomize.py").write_text(AT_ONCE)
    with ExitStack() as stack:
        dead = stack.enter_context(Refusing())
        tiers = [stack.enter_context(Upstream()) for _ in range(3)]
        made = table_of(*(tier.port for tier in tiers), dead=dead.port)
        router = stack.enter_context(Router(made, "--spool", str(spool), "--log-requests", "all", python_path=[path]))
        yield Bench(router, tiers, spool)


@pytest.fixture
def bench(running: Bench) -> Iterator[Bench]:
    running.begin()
    yield running
    assert running.router.code is None, running.router.output()
    assert running.router.stderr() == ""
    running.router.idle()


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def expected(text: str, *, stream: bool, usage: bool = False, **more: Any) -> bytes:
    """What a tier says to a client that asked it by itself, byte for byte."""
    if stream:
        return b"".join(vllm.chat_events(text, include_usage=usage, **more))
    return vllm.chat(text, **more)


# -- accepted, escalated, given up ------------------------------------------------------------------------------------


@both
def test_an_answer_that_is_sure_is_given_as_the_tier_said_it(bench: Bench, stream: bool) -> None:
    reply = bench.chat("window", stream=stream)
    assert shape(reply) == ("Accepted", "Confident", "small")
    assert reply.body == expected(SMALL, stream=stream)
    assert not bench.large.requests
    asked = bench.small.requests[0].json
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 2)
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Answered")]
    assert record.attempts[0].verdict is not None
    assert record.attempts[0].verdict.accepted
    assert bench.grown("decisions_total", policy="window", decision="Accepted", reason="Confident") == 1
    assert bench.grown("held_seconds_count", policy="window") == 1


@both
def test_an_answer_that_is_unsure_is_never_seen(bench: Bench, stream: bool) -> None:
    bench.unsure()
    reply = bench.chat("window", stream=stream)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert reply.body == expected(LARGE, stream=stream)
    assert len(bench.small.requests) == len(bench.large.requests) == 1
    large = bench.large.requests[0].json
    assert "logprobs" not in large
    assert "top_logprobs" not in large
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Escalated"), ("large", "Answered")]
    assert record.final_tier == "large"
    assert bench.grown("decisions_total", policy="window", decision="Escalated") == 1
    assert bench.grown("held_seconds_count", policy="window") == 0


@both
def test_the_cost_is_told_apart(bench: Bench, stream: bool) -> None:
    bench.unsure()
    record = bench.record(bench.chat("window", stream=stream))
    words = len(SMALL.split())
    assert (record.cost.decision.prompt_tokens, record.cost.decision.completion_tokens) == (5, words)
    assert (record.cost.answer.prompt_tokens, record.cost.answer.completion_tokens) == (5, len(LARGE.split()))
    assert record.cost.decision_micros == -(-(5 * 200_000 + words * 400_000) // 1_000_000)
    assert record.cost.answer_micros == 5 * 3 + len(LARGE.split()) * 7
    assert not any(one.estimated for one in record.attempts)
    for use, tier in (("answer", "large"), ("decision", "small")):
        same = {"policy": "window", "tier": tier, "use": use}
        assert bench.grown("tokens_total", kind="prompt", **same) == 5
        assert bench.grown("tokens_total", kind="completion", **same) == words
        micros = record.cost.answer_micros if use == "answer" else record.cost.decision_micros
        assert bench.grown("cost_micros_total", policy="window", use=use) == micros
    assert bench.grown("tokens_total", policy="window") == 10 + 2 * words


def test_a_lost_answer_is_given_up_early_and_its_tier_left_at_once(bench: Bench) -> None:
    async def endless(call: Call) -> None:
        await call.send(stream_head() + chunk(vllm.chat_chunk({"role": "assistant", "content": ""})))
        while True:
            said = {"content": [vllm.logprob(" word", UNSURE, 2)]}
            await call.send(chunk(vllm.chat_chunk({"content": " word"}, logprobs=said)))
            await call.sleep(0.01)

    bench.small.script = endless
    reply = bench.chat("whole", stream=True, seconds=5)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert reply.body == expected(LARGE, stream=True)
    assert bench.small.cancelled(0, 1.0) - bench.large.requests[0].at < 1
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Abandoned"), ("large", "Answered")]
    first = record.attempts[0]
    assert first.estimated
    assert first.evidence is not None
    assert not first.evidence.whole
    assert 12 <= first.usage.completion_tokens <= 40
    assert record.cost.decision.completion_tokens == first.usage.completion_tokens


def test_an_answer_is_given_up_for_a_check_that_nothing_can_mend(bench: Bench) -> None:
    bench.small.script = streams(
        [vllm.chat_chunk({"content": word}) for word in ("I", " am", " sorry", " but", " no", " and", " so")],
        then="hang",
        last=False,
    )
    reply = bench.chat("checked", "say it", stream=True, seconds=5)
    assert reply.header("x-modeltiers-decision") == "Escalated"
    assert reply.header("x-modeltiers-reason") in ("PatternFailed", "Refused")
    assert bench.small.cancelled(0, 1.0)


# -- the window -------------------------------------------------------------------------------------------------------


def sure_words(count: int, then: str = "hang", between: float = 0.0, value: float = SURE) -> Script:
    """So many words with logprobs, and then nothing."""

    async def run(call: Call) -> None:
        await call.send(stream_head() + chunk(vllm.chat_chunk({"role": "assistant", "content": ""})))
        for _ in range(count):
            said = {"content": [vllm.logprob(" word", value, 2)]}
            await call.send(chunk(vllm.chat_chunk({"content": " word"}, logprobs=said)))
            await call.sleep(between)
        await says(b"", then=then)(call)

    return run


def test_a_window_of_tokens_opens_with_its_last_token_and_not_before(bench: Bench) -> None:
    bench.small.script = sure_words(7)
    with Wire(bench.port) as wire:
        wire.send(request(chat_body(model="window", stream=True)))
        bench.small.wait(lambda: bench.small.requests)
        assert wire.until_quiet(0.2) == b""
    bench.small.cancelled()
    bench.small.requests.clear()
    bench.small.script = sure_words(8)
    with Wire(bench.port) as wire:
        got = wire.send(request(chat_body(model="window", stream=True))).until_quiet(0.2, 3)
        assert got.count(b'" word"') == 8
        assert b"x-modeltiers-decision: Accepted" in got


def test_a_window_of_time_opens_in_time_and_what_comes_later_is_relayed_at_once(bench: Bench) -> None:
    bench.small.script = sure_words(3)
    with Wire(bench.port) as wire:
        began = time.monotonic()
        wire.send(request(chat_body(model="timed", stream=True)))
        first = wire.some(3)
        took = time.monotonic() - began
    assert b"Accepted" in first
    assert 0.19 <= took < 1


def test_a_window_of_time_decides_for_good_when_its_time_is_up(bench: Bench) -> None:
    bench.small.script = sure_words(3, value=UNSURE)
    reply = bench.chat("timed", stream=True, seconds=5)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert outcomes(bench.record(reply)) == [("small", "Abandoned"), ("large", "Answered")]


def test_the_hold_ends_with_its_bytes_whatever_the_policy_holds(bench: Bench) -> None:
    bench.small.script = sure_words(30)
    with Wire(bench.port) as wire:
        got = wire.send(request(chat_body(model="bytes", stream=True))).until_quiet(0.2, 3)
    assert b"Accepted" in got
    assert got.count(b'" word"') == 30


@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
def test_what_was_held_and_what_comes_after_are_one_stream(bench: Bench, count: int) -> None:
    text = " ".join(["word"] * count)
    bench.small.script = answer(text, logprobs=SURE, piece=37)
    reply = bench.chat("window", stream=True)
    assert shape(reply) == ("Accepted", "Confident", "small")
    assert reply.body == expected(text, stream=True)


def test_the_first_token_waits_no_longer_than_the_window(bench: Bench) -> None:
    # A tier that drips a token each 20 ms: 200 ms are held, and only those.
    bench.small.script = answer(MANY, logprobs=SURE, between=0.02)

    def first(model: str) -> float:
        with Wire(bench.port) as wire:
            began = time.monotonic()
            wire.send(request(chat_body(model=model, stream=True))).some(5)
            return time.monotonic() - began

    bare, held = min(first("upfront") for _ in range(3)), sorted(first("timed") for _ in range(3))
    assert held[0] >= 0.2
    assert held[0] - bare <= 0.2 + 0.06  # the window, a token of the tier, and what a busy machine adds
    bench.router.idle()
    count = bench.grown("held_seconds_count", policy="timed")
    assert count == 3
    assert 0.19 <= bench.grown("held_seconds_sum", policy="timed") / count < 0.4


def test_the_whole_is_held_when_the_policy_says_so(bench: Bench) -> None:
    bench.small.script = sure_words(60)
    with Wire(bench.port) as wire:
        wire.send(request(chat_body(model="whole", stream=True)))
        assert wire.until_quiet(0.25, 2) == b""
    bench.small.cancelled()
    bench.small.script = answer(MANY, logprobs=SURE)
    assert bench.chat("whole", stream=True).body == expected(MANY, stream=True)


def test_an_answer_that_is_short_of_the_window_is_judged_at_its_end(bench: Bench) -> None:
    bench.unsure("no")
    reply = bench.chat("window", stream=True)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    record = bench.record(reply)
    assert outcomes(record)[0] == ("small", "Escalated")
    assert record.attempts[0].evidence is not None
    assert record.attempts[0].evidence.whole


@both
def test_an_empty_answer_is_no_answer(bench: Bench, stream: bool) -> None:
    empty = vllm.chat("") if not stream else b""
    if stream:
        bench.small.script = streams(
            [vllm.chat_chunk({"role": "assistant", "content": ""}), vllm.chat_chunk({}, finish="stop"), vllm.DONE]
        )
    else:
        bench.small.script = says(response("200 OK", empty))
    reply = bench.chat("no-logprobs-wanted", stream=stream)
    assert shape(reply) == ("Escalated", "Empty", "large")


# -- flag -------------------------------------------------------------------------------------------------------------


def test_flag_gives_the_first_token_at_once(bench: Bench) -> None:
    bench.small.script = sure_words(1, value=UNSURE)
    with Wire(bench.port) as wire:
        began = time.monotonic()
        assert b'" word"' in wire.send(request(chat_body(model="flag", stream=True))).until_quiet(0.2, 2)
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("usage", [False, True])
def test_flag_says_at_the_end_what_it_found(bench: Bench, usage: bool) -> None:
    bench.unsure(MANY)
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    reply = bench.chat("flag", stream=True, **more)
    assert reply.header("x-modeltiers-tier") == "small"
    assert reply.header("x-modeltiers-decision") == "Chosen"
    body, _, end = reply.body.partition(b": modeltiers ")
    said, _, last = end.partition(b"\n\n")
    assert last == vllm.DONE
    assert said.startswith(b"BelowThreshold 0.0")
    assert body + last == expected(MANY, stream=True, usage=usage)
    assert not bench.large.requests
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Answered")]
    verdict = record.attempts[0].verdict
    assert verdict is not None
    assert not verdict.accepted
    assert record.cost.answer.completion_tokens == 40


def test_flag_says_nothing_of_a_good_answer(bench: Bench) -> None:
    reply = bench.chat("flag", stream=True)
    assert reply.body == expected(SMALL, stream=True)
    assert bench.record(reply).attempts[0].verdict is not None


def test_flag_judges_a_whole_answer_before_it_is_given(bench: Bench) -> None:
    bench.unsure()
    assert shape(bench.chat("flag")) == ("Escalated", "BelowThreshold", "large")


def test_a_flagged_stream_that_breaks_ends_with_an_error_and_no_done(bench: Bench) -> None:
    bench.small.script = sure_words(5, then="reset")
    reply = bench.chat("flag", stream=True)
    assert b"[DONE]" not in reply.body
    assert b'"error"' in reply.events[-1]
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Failed")]
    assert record.final_tier is None


# -- kept: the tiers above cannot answer ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("model", ["dead", "dead-whole"])
def test_a_whole_answer_is_kept_when_no_tier_above_can_be_reached(bench: Bench, stream: bool, model: str) -> None:
    bench.unsure()
    reply = bench.chat(model, stream=stream)
    assert shape(reply) == ("Kept", "BelowThreshold", "small")
    assert reply.body == expected(SMALL, stream=stream)
    assert len(bench.small.requests) == 1
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Answered"), ("dead", "Failed")]
    assert record.final_tier == "small"
    assert record.cost.answer.completion_tokens == len(SMALL.split())
    assert record.cost.decision.completion_tokens == 0
    assert bench.grown("decisions_total", policy=model, decision="Kept") == 1
    assert bench.grown("requests_total", policy=model, tier="small", outcome="Answered") == 1
    assert bench.grown("tokens_total", policy=model, use="answer") == 5 + len(SMALL.split())


def test_a_cut_answer_is_asked_for_again_unjudged(bench: Bench) -> None:
    bench.unsure(MANY, between=0.01)
    reply = bench.chat("dead", stream=True)
    assert shape(reply) == ("Kept", "BelowThreshold", "small")
    assert reply.body == expected(MANY, stream=True)
    assert len(bench.small.requests) == 2
    assert "logprobs" not in bench.small.requests[1].json
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Abandoned"), ("dead", "Failed"), ("small", "Answered")]
    assert record.cost.answer.completion_tokens == 40
    assert record.cost.decision.completion_tokens >= 8


@both
def test_an_answer_is_kept_when_the_tier_above_has_no_room(bench: Bench, stream: bool) -> None:
    bench.large.script = hang
    bench.unsure()
    with Wire(bench.port) as busy:
        busy.send(request(chat_body(model="narrow")))
        bench.large.wait(lambda: bench.large.requests)
        reply = bench.chat("narrow", stream=stream)
        assert shape(reply) == ("Kept", "BelowThreshold", "small")
        assert reply.body == expected(SMALL, stream=stream)
        assert outcomes(bench.record(reply)) == [("small", "Answered")]


def test_a_stream_that_is_kept_for_want_of_room_goes_on_where_it_was(bench: Bench) -> None:
    bench.large.script = hang
    with Wire(bench.port) as busy:
        bench.unsure()
        busy.send(request(chat_body(model="narrow")))
        bench.large.wait(lambda: bench.large.requests)
        bench.unsure(MANY, between=0.005)
        reply = bench.chat("narrow", stream=True)
        assert shape(reply) == ("Kept", "BelowThreshold", "small")
        assert reply.body == expected(MANY, stream=True)
        assert len(bench.small.requests) == 2  # one for each client
        assert outcomes(bench.record(reply)) == [("small", "Answered")]


@both
@pytest.mark.parametrize("how", [fails(503), fails(500), says(b"", then="reset"), says(b"", then="fin")])
def test_an_answer_is_kept_when_the_tier_above_fails(bench: Bench, stream: bool, how: Script) -> None:
    bench.unsure()
    bench.large.script = how
    reply = bench.chat("window", stream=stream)
    assert shape(reply) == ("Kept", "BelowThreshold", "small")
    assert reply.body == expected(SMALL, stream=stream)
    record = bench.record(reply)
    assert outcomes(record)[0] == ("small", "Answered")
    assert record.final_tier == "small"


@both
def test_an_answer_is_kept_when_the_tier_above_refuses_the_request(bench: Bench, stream: bool) -> None:
    # Good enough a request for the small tier: an answer is at hand, and that the large one cannot is no one's fault.
    bench.unsure()
    bench.large.script = fails(400)
    reply = bench.chat("window", stream=stream)
    assert shape(reply) == ("Kept", "BelowThreshold", "small")
    assert reply.body == expected(SMALL, stream=stream)
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Answered"), ("large", "Rejected")]


def test_of_two_kept_answers_the_higher_tiers_is_given(bench: Bench) -> None:
    bench.unsure()
    bench.middle.script = answer(MIDDLE, logprobs=UNSURE)
    reply = bench.chat("dead-three")
    assert shape(reply) == ("Kept", "BelowThreshold", "middle")
    assert reply.body == expected(MIDDLE, stream=False)
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Escalated"), ("middle", "Answered"), ("dead", "Failed")]
    assert record.final_tier == "middle"


# -- three tiers ------------------------------------------------------------------------------------------------------


@both
def test_a_ladder_of_three_is_climbed_as_far_as_needed(bench: Bench, stream: bool) -> None:
    bench.unsure()
    reply = bench.chat("three", stream=stream)
    assert shape(reply) == ("Escalated", "Confident", "middle")
    assert reply.body == expected(MIDDLE, stream=stream)
    assert outcomes(bench.record(reply)) == [("small", "Escalated"), ("middle", "Answered")]
    bench.middle.script = answer(MIDDLE, logprobs=UNSURE)
    reply = bench.chat("three", stream=stream)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert reply.body == expected(LARGE, stream=stream)
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Escalated"), ("middle", "Escalated"), ("large", "Answered")]
    assert record.cost.decision.completion_tokens == len(SMALL.split()) + len(MIDDLE.split())


@both
def test_a_tier_in_the_middle_that_fails_is_passed_over(bench: Bench, stream: bool) -> None:
    bench.unsure()
    bench.middle.script = fails(503)
    reply = bench.chat("three", stream=stream)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert reply.body == expected(LARGE, stream=stream)
    assert outcomes(bench.record(reply)) == [("small", "Escalated"), ("middle", "Failed"), ("large", "Answered")]


@both
def test_when_the_first_tier_fails_the_next_one_is_judged(bench: Bench, stream: bool) -> None:
    bench.small.script = fails(500)
    reply = bench.chat("three", stream=stream)
    assert reply.header("x-modeltiers-tier") == "middle"
    assert reply.header("x-modeltiers-decision") in ("Accepted", "Fallback")
    assert reply.body == expected(MIDDLE, stream=stream)
    assert outcomes(bench.record(reply)) == [("small", "Failed"), ("middle", "Answered")]
    bench.middle.script = answer(MIDDLE, logprobs=UNSURE)
    reply = bench.chat("three", stream=stream)
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")


@both
def test_when_the_first_of_two_fails_the_other_answers_unjudged(bench: Bench, stream: bool) -> None:
    bench.small.script = fails(503)
    reply = bench.chat("window", stream=stream)
    assert reply.header("x-modeltiers-decision") == "Fallback"
    assert reply.body == expected(LARGE, stream=stream)
    assert outcomes(bench.record(reply)) == [("small", "Failed"), ("large", "Answered")]


def test_a_stream_that_breaks_while_it_is_held_leaves_no_trace(bench: Bench) -> None:
    bench.small.script = sure_words(5, then="reset")
    reply = bench.chat("window", stream=True)
    assert reply.header("x-modeltiers-decision") == "Fallback"
    assert reply.body == expected(LARGE, stream=True)
    record = bench.record(reply)
    assert outcomes(record) == [("small", "Failed"), ("large", "Answered")]
    assert record.attempts[0].usage.completion_tokens == 5
    assert record.attempts[0].estimated


def test_a_stream_that_breaks_after_it_was_given_ends_with_an_error(bench: Bench) -> None:
    bench.small.script = sure_words(20, then="reset")
    reply = bench.chat("window", stream=True)
    assert reply.header("x-modeltiers-tier") == "small"
    assert b"[DONE]" not in reply.body
    assert b'"error"' in reply.events[-1]
    assert not bench.large.requests


@both
def test_calls_are_capped(bench: Bench, stream: bool) -> None:
    # Two calls: the first is judged, the second is the last and given as it is.
    bench.unsure()
    bench.middle.script = answer(MIDDLE, logprobs=UNSURE)
    reply = bench.chat("two-calls", stream=stream)
    assert shape(reply) == ("Escalated", "BelowThreshold", "middle")
    assert reply.body == expected(MIDDLE, stream=stream)
    assert not bench.large.requests
    assert "logprobs" not in bench.middle.requests[0].json
    reply = bench.chat("one-call", stream=stream)
    assert shape(reply) == ("Chosen", "EscalationCap", "small")
    assert "logprobs" not in bench.small.requests[-1].json


def test_with_two_calls_a_failure_above_leads_back_and_no_further(bench: Bench) -> None:
    bench.unsure()
    bench.middle.script = fails(503)
    reply = bench.chat("two-calls")
    assert shape(reply) == ("Kept", "BelowThreshold", "small")
    assert not bench.large.requests
    assert bench.record(reply).final_tier == "small"


def test_the_share_that_escalates_is_capped(bench: Bench) -> None:
    bench.unsure()
    found = Counter[str]()
    with Wire(bench.port) as wire:
        for _ in range(100):
            reply = wire.send(request(chat_body(model="capped"))).reply()
            found[reply.header("x-modeltiers-reason") or ""] += 1
    assert found["BelowThreshold"] + found["EscalationCap"] == 100
    # The first few are given: the share is weighed as if GRACE requests without an escalation had come first.
    most = 0.3 * (100 + GRACE) + 1
    assert most - 3 <= found["BelowThreshold"] <= most
    said = bench.router.status()["policies"]["capped"]["escalatedSharePermille"]
    assert said == pytest.approx(found["BelowThreshold"] * 10, abs=1)


def test_a_cap_of_all_never_caps(bench: Bench) -> None:
    bench.unsure()
    with Wire(bench.port) as wire:
        for _ in range(30):
            reply = wire.send(request(chat_body(model="window"))).reply()
            assert reply.header("x-modeltiers-decision") == "Escalated"


# -- what the client asked for, and what we did -----------------------------------------------------------------------


@both
@pytest.mark.parametrize("top", [0, 1, 2, 4])
def test_logprobs_that_the_client_asked_for_stay_and_no_others(bench: Bench, stream: bool, top: int) -> None:
    reply = bench.chat("window", stream=stream, logprobs=True, top_logprobs=top)
    assert shape(reply) == ("Accepted", "Confident", "small")
    assert bench.small.requests[0].json["top_logprobs"] == max(2, top)
    assert reply.body == expected(SMALL, stream=stream, logprobs=SURE, top=top)


@both
def test_usage_is_the_clients_if_it_asked_and_else_taken_out(bench: Bench, stream: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    assert bench.chat("window", stream=stream, **options).body == expected(SMALL, stream=stream, usage=True)
    assert bench.chat("window", stream=stream).body == expected(SMALL, stream=stream, usage=False)
    if stream:
        assert all(one.json["stream_options"] == {"include_usage": True} for one in bench.small.requests)


@both
@pytest.mark.parametrize("kind", ["long", "whole", "timed"])
def test_what_is_taken_out_leaves_no_mark_however_the_bytes_come(bench: Bench, stream: bool, kind: str) -> None:
    text = 'say "logprobs": null and {"top_logprobs":[]} \\ é 🙂'
    for piece in (1, 3, 64):
        bench.small.script = answer(text, logprobs=SURE, piece=piece)
        assert bench.chat(kind, stream=stream).body == expected(text, stream=stream)


def completions(text: str, value: float | None) -> Script:
    """Answer /v1/completions with the logprobs that are asked for, as vLLM does."""

    async def run(call: Call) -> None:
        body = call.asked.json
        tops = body.get("logprobs")
        names = vllm.words(text)
        logs = None
        if tops is not None and value is not None:
            alternatives = [{name: value, **{f"{name}{n}": value - n - 1 for n in range(tops)}} for name in names]
            logs = {
                "text_offset": [0] * len(names),
                "token_logprobs": [value] * len(names),
                "tokens": names,
                "top_logprobs": alternatives,
            }
        choice = {"index": 0, "text": text, "logprobs": logs, "finish_reason": "stop", "stop_reason": None}
        await call.send(response("200 OK", vllm.completion(text, choices=[choice])))

    return run


def test_completions_are_judged_too(bench: Bench) -> None:
    def complete() -> Reply:
        return ask(bench.port, request(b'{"model":"window","prompt":"say"}', path="/v1/completions"))

    bench.small.script, bench.large.script = completions(SMALL, SURE), completions(LARGE, SURE)
    reply = complete()
    assert shape(reply) == ("Accepted", "Confident", "small")
    assert reply.body == vllm.completion(SMALL)
    assert bench.small.requests[0].json["logprobs"] == 2
    bench.small.script = completions(SMALL, UNSURE)
    reply = complete()
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert reply.body == vllm.completion(LARGE)


def test_several_answers_are_chosen_upfront(bench: Bench) -> None:
    bench.unsure()
    reply = bench.chat("window", n=2)
    assert (reply.header("x-modeltiers-decision"), reply.header("x-modeltiers-reason")) == ("Chosen", "NSeveral")
    assert "logprobs" not in bench.small.requests[0].json
    assert len(reply.json["choices"]) == 2


@both
def test_logprobs_that_do_not_come_are_a_condition_of_their_own(bench: Bench, stream: bool) -> None:
    bench.small.script = answer(SMALL, logprobs=None)
    assert shape(bench.chat("window", stream=stream)) == ("Escalated", "LogprobsMissing", "large")
    assert shape(bench.chat("ignores", stream=stream)) == ("Accepted", "Confident", "small")
    assert shape(bench.chat("no-logprobs-wanted", stream=stream)) == ("Accepted", "Confident", "small")


@both
def test_a_tier_that_has_no_logprobs_is_not_asked_for_them(bench: Bench, stream: bool) -> None:
    reply = bench.chat("mute", stream=stream)
    assert shape(reply) == ("Escalated", "LogprobsMissing", "large")
    assert "logprobs" not in bench.small.requests[0].json
    assert "top_logprobs" not in bench.small.requests[0].json


@both
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_of_a_judged_tier_is_the_clients_to_read(bench: Bench, stream: bool, status: int) -> None:
    bench.small.script = fails(status, message="too long by far")
    reply = bench.chat("window", stream=stream)
    assert reply.status == status
    assert reply.error["message"] == "too long by far"
    assert reply.header("x-modeltiers-tier") == "small"
    assert not bench.large.requests
    assert outcomes(bench.record(reply)) == [("small", "Rejected")]


@both
def test_every_reply_says_how_it_was_decided(bench: Bench, stream: bool) -> None:
    reply = bench.chat("window", "hi", "x-request-id: mine-1", stream=stream)
    assert reply.header("x-request-id") == "mine-1"
    names = [name for name, _ in reply.headers if name.startswith("x-modeltiers-")]
    assert sorted(names) == [f"x-modeltiers-{one}" for one in ("decision", "reason", "record", "tier")]
    assert bench.small.requests[0].header("x-request-id") == "mine-1"


# -- thinking and tools -----------------------------------------------------------------------------------------------


def thinking(thoughts: int, words: int, thought: float, said: float, then: str = "keep") -> Script:
    def event(field: str, value: float) -> bytes:
        return vllm.chat_chunk({field: " word"}, logprobs={"content": [vllm.logprob(" word", value, 2)]})

    parts = [vllm.chat_chunk({"role": "assistant", "content": ""})]
    parts += [event("reasoning", thought)] * thoughts + [event("content", said)] * words
    ends = [vllm.chat_chunk({}, finish="stop"), vllm.DONE] if then == "keep" else []
    return streams([*parts, *ends], then=then, last=then == "keep")


def test_thinking_fills_no_window(bench: Bench) -> None:
    bench.small.script = thinking(40, 0, SURE, SURE, then="hang")
    with Wire(bench.port) as wire:
        assert wire.send(request(chat_body(model="window", stream=True))).until_quiet(0.25, 2) == b""
    bench.small.cancelled()
    bench.small.script = thinking(40, 8, SURE, SURE, then="hang")
    with Wire(bench.port) as wire:
        got = wire.send(request(chat_body(model="window", stream=True))).until_quiet(0.25, 2)
    assert got.count(b'" word"') == 48


def test_unsure_thoughts_count_only_where_the_policy_says_so(bench: Bench) -> None:
    bench.small.script = thinking(40, 6, UNSURE, SURE)
    reply = bench.chat("window", stream=True)
    assert shape(reply) == ("Accepted", "Confident", "small")
    record = bench.record(reply)
    assert record.attempts[0].evidence is not None
    assert record.attempts[0].evidence.thinking_tokens == 40
    assert shape(bench.chat("thinks", stream=True)) == ("Escalated", "BelowThreshold", "large")


def test_thinking_alone_is_no_answer(bench: Bench) -> None:
    bench.small.script = thinking(20, 0, SURE, SURE)
    assert shape(bench.chat("window", stream=True)) == ("Escalated", "Empty", "large")


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


def calling(arguments: str, then: str = "keep") -> Script:
    head = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    cut = [arguments[at : at + 1] for at in range(len(arguments))]
    parts = [vllm.chat_chunk({"role": "assistant", "content": None}), vllm.chat_chunk({"tool_calls": [head]})]
    said = {"content": [vllm.logprob("x", SURE, 2)]}
    parts += [
        vllm.chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": one}}]}, logprobs=said) for one in cut
    ]
    ends = [vllm.chat_chunk({}, finish="tool_calls"), vllm.DONE] if then == "keep" else []
    return streams([*parts, *ends], then=then, last=then == "keep")


@pytest.mark.parametrize("model", ["window", "timed"])
def test_calls_of_tools_are_held_whole(bench: Bench, model: str) -> None:
    bench.small.script = calling('{"city": "Ulm or somewhere else"}', then="hang")
    with Wire(bench.port) as wire:
        wire.send(request(chat_body(model=model, stream=True, tools=TOOLS)))
        assert wire.until_quiet(0.25, 2) == b""
    bench.small.cancelled()


def test_good_calls_of_tools_are_given_and_wrong_ones_escalated(bench: Bench) -> None:
    bench.small.script = calling('{"city": "Ulm"}')
    reply = bench.chat("checked", stream=True, tools=TOOLS)
    assert shape(reply) == ("Accepted", "Confident", "small")
    deltas = [json.loads(one)["choices"][0]["delta"] for one in reply.events if one != b"[DONE]"]
    said = "".join(call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls") or ())
    assert json.loads(said) == {"city": "Ulm"}
    for wrong in ('{"town": "Ulm"}', '{"city": 7}', '{"city": '):
        bench.small.script = calling(wrong)
        assert shape(bench.chat("checked", stream=True, tools=TOOLS)) == ("Escalated", "ToolCallWrong", "large")


# -- validators -------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I am sorry to hear that, well well", "PatternFailed"),
        ("far too long " * 30, "LengthWrong"),
        ("2 + 2 = 5 is what it comes to", "NumberWrong"),
        ("Das ist eine Antwort in einer ganz anderen Sprache, und sie ist nicht kurz", "OtherLanguage"),
        ("I cannot help with that request.", "Refused"),
    ],
)
def test_a_required_check_that_fails_escalates_with_its_reason(
    bench: Bench, stream: bool, text: str, reason: str
) -> None:
    bench.small.script = answer(text)
    reply = bench.chat("checked", stream=stream)
    assert shape(reply) == ("Escalated", reason, "large")
    assert reply.body == expected(LARGE, stream=stream)
    record = bench.record(reply)
    verdict = record.attempts[0].verdict
    assert verdict is not None
    assert verdict.probability == 0
    assert verdict.failed


@both
def test_an_answer_that_was_cut_at_its_length_escalates(bench: Bench, stream: bool) -> None:
    if stream:
        bench.small.script = streams([vllm.chat_chunk({"content": "It is"}, finish="length"), vllm.DONE])
    else:
        cut = json.loads(vllm.chat("It is"))
        cut["choices"][0]["finish_reason"] = "length"
        bench.small.script = says(response("200 OK", vllm.compact(cut)))
    assert shape(bench.chat("checked", stream=stream)) == ("Escalated", "Truncated", "large")


def test_json_that_was_asked_for_is_checked_against_its_schema(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    bench.small.script = answer('{"city":"Ulm"}')
    assert shape(bench.chat("checked", response_format=wish)) == ("Accepted", "Confident", "small")
    for wrong in ('{"town":"Ulm"}', "Ulm, of course"):
        bench.small.script = answer(wrong)
        assert shape(bench.chat("checked", response_format=wish)) == ("Escalated", "SchemaFailed", "large")


def test_a_check_with_a_weight_lowers_the_probability(bench: Bench) -> None:
    bench.small.script = answer("thanks for that")
    assert shape(bench.chat("weighed")) == ("Accepted", "Confident", "small")
    bench.small.script = answer("you are welcome")
    assert shape(bench.chat("weighed")) == ("Escalated", "BelowThreshold", "large")


# -- dear checks ------------------------------------------------------------------------------------------------------


def workers(pid: int) -> list[int]:
    """Return the worker processes of a router."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@contextmanager
def stopped(bench: Bench) -> Iterator[int]:
    """Stop the worker, which must have started; goes on at the end if it still lives."""
    (worker,) = workers(bench.router.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield worker
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)


def warm(bench: Bench) -> None:
    bench.small.script = answer(DEAR_TEXT)
    assert shape(bench.chat("dear")) == ("Accepted", "Confident", "small")


@both
def test_a_dear_check_runs_aside_and_its_result_counts(bench: Bench, stream: bool) -> None:
    warm(bench)
    assert workers(bench.router.pid)
    reply = bench.chat("dear", stream=stream)
    assert shape(reply) == ("Accepted", "Confident", "small")
    assert reply.body == expected(DEAR_TEXT, stream=stream)
    bench.small.script = answer(f"{DEAR_TEXT} abcnever")
    reply = bench.chat("dear", stream=stream)
    assert shape(reply) == ("Escalated", "PatternFailed", "large")
    assert reply.body == expected(LARGE, stream=stream)
    assert outcomes(bench.record(reply)) == [("small", "Escalated"), ("large", "Answered")]


@both
def test_a_worker_that_dies_fails_the_check_and_not_the_next(bench: Bench, stream: bool) -> None:
    warm(bench)
    bench.small.requests.clear()
    with stopped(bench) as worker, Wire(bench.port) as wire:
        wire.send(request(chat_body(model="dear", stream=stream)))
        bench.small.wait(lambda: bench.small.requests and bench.small.requests[0].answered)
        time.sleep(0.05)
        assert wire.until_quiet(0.1) == b""
        os.kill(worker, signal.SIGKILL)
        reply = wire.reply()
    assert shape(reply) == ("Escalated", "CheckFailed", "large")
    assert reply.body == expected(LARGE, stream=stream)
    assert shape(bench.chat("dear", stream=stream)) == ("Accepted", "Confident", "small")


def test_a_check_that_runs_out_of_time_has_failed(bench: Bench) -> None:
    warm(bench)
    with stopped(bench):
        began = time.monotonic()
        reply = bench.chat("dear-quick")
    assert shape(reply) == ("Escalated", "CheckFailed", "large")
    assert 0.29 < time.monotonic() - began < 1.5
    record = bench.record(reply)
    assert record.attempts[0].evidence is not None
    assert [one.why for one in record.attempts[0].evidence.results] == ["Deadline"]


def test_others_are_served_while_a_dear_check_runs(bench: Bench) -> None:
    warm(bench)
    bench.small.requests.clear()
    with Wire(bench.port) as waiting:
        with stopped(bench):
            waiting.send(request(chat_body(model="dear")))
            bench.small.wait(lambda: bench.small.requests and bench.small.requests[0].answered)
            assert bench.chat("up", seconds=2).text == LARGE
        assert shape(waiting.reply()) == ("Accepted", "Confident", "small")


@both
def test_a_client_that_leaves_while_a_dear_check_runs_is_forgotten_and_paid_for(bench: Bench, stream: bool) -> None:
    warm(bench)
    bench.router.idle()
    bench.small.requests.clear()
    with stopped(bench):
        with Wire(bench.port) as wire:
            wire.send(request(chat_body(model="dear", stream=stream)))
            bench.small.wait(lambda: bench.small.requests and bench.small.requests[0].answered)
            time.sleep(0.1)
        bench.router.idle(1.5)
    assert not bench.large.requests
    assert bench.grown("requests_total", policy="dear", outcome="ClientLeft") == 1
    record = bench.find(lambda one: one.policy == "dear" and one.final_tier is None)
    # The small tier gave all of its answer: that it reached nobody makes it no cheaper.
    assert outcomes(record) == [("small", "ClientLeft")]
    assert record.cost.decision.completion_tokens == len(DEAR_TEXT.split())


# -- clients that leave, and ends -------------------------------------------------------------------------------------


def test_a_client_that_leaves_while_its_answer_is_held_ends_the_call(bench: Bench) -> None:
    bench.small.script = sure_words(5)
    with Wire(bench.port) as wire:
        wire.send(request(chat_body("a client that leaves", model="window", stream=True)))
        bench.small.wait(lambda: bench.small.requests)
        time.sleep(0.1)
    left = time.monotonic()
    assert bench.small.cancelled(0, 2.0) - left < 1
    bench.router.idle(1)
    assert not bench.large.requests
    record = bench.find(lambda one: one.policy == "window" and outcomes(one) == [("small", "ClientLeft")])
    assert record.attempts[0].estimated
    assert record.cost.decision.completion_tokens == 5
    assert record.final_tier is None


def test_a_client_that_leaves_after_the_escalation_ends_the_second_call(bench: Bench) -> None:
    bench.unsure()
    bench.middle.script = answer(MIDDLE, logprobs=UNSURE)
    bench.large.script = hang
    with Wire(bench.port) as wire:
        wire.send(request(chat_body(model="three", stream=True)))
        bench.large.wait(lambda: bench.large.requests)
    assert bench.large.cancelled(0, 2.0)
    bench.router.idle(1)
    record = bench.find(lambda one: one.policy == "three" and one.final_tier is None)
    assert outcomes(record) == [("small", "Escalated"), ("middle", "Escalated"), ("large", "ClientLeft")]


@pytest.mark.parametrize("model", ["upfront", "window"])
@pytest.mark.parametrize("how", ["leaves", "breaks"])
def test_what_was_given_of_an_answer_without_an_end_is_paid_for(bench: Bench, model: str, how: str) -> None:
    # No usage came: what was relayed is counted instead, and the record says that it is an estimate.
    bench.small.script = sure_words(20, then="hang" if how == "leaves" else "reset")
    with Wire(bench.port) as wire:
        got = wire.send(request(chat_body(model=model, stream=True))).until_quiet(0.2, 2)
    assert got.count(b'"content":" word"') == 20
    record = bench.find(lambda one: one.policy == model and one.final_tier is None)
    assert outcomes(record) == [("small", "ClientLeft" if how == "leaves" else "Failed")]
    assert record.attempts[0].estimated
    assert record.attempts[0].usage.completion_tokens == 20
    assert record.cost.decision.completion_tokens == 20


@contextmanager
def alone(*scripts: Script, model: str = "window", flags: tuple[str, ...] = (), spool: Path) -> Iterator[Any]:
    """A router of its own over the bench's table."""
    with ExitStack() as stack:
        dead = stack.enter_context(Refusing())
        tiers = [stack.enter_context(Upstream(script)) for script in scripts]
        made = table_of(tiers[0].port, tiers[0].port, tiers[1].port, dead=dead.port)
        yield stack.enter_context(Router(made, "--spool", str(spool), *flags)), tiers


def test_what_is_held_when_the_end_comes_is_given_in_time_or_refused_truthfully(tmp_path: Path) -> None:
    slow = answer(" ".join(["word"] * 10), logprobs=SURE, between=0.05)
    flags = ("--drain-seconds", "1.5", "--settle-seconds", "0.05")
    with alone(slow, answer(LARGE), flags=flags, spool=tmp_path) as (router, (small, _)):
        with Wire(router.port) as held, Wire(router.port) as stuck:
            small.next(slow, sure_words(3))
            held.send(request(chat_body(model="long", stream=True)))
            small.wait(lambda: small.requests)
            stuck.send(request(chat_body(model="long", stream=True)))
            small.wait(lambda: len(small.requests) == 2)
            router.terminate()
            assert held.reply().body == expected(" ".join(["word"] * 10), stream=True)
            reply = stuck.reply()
        assert reply.status == 503
        assert reply.error["code"] == "draining"
        assert router.ended() == 0
    lines = spooled(tmp_path)
    found = sorted((outcomes(decode(line)) for line in lines), key=str)
    assert found == [[("small", "Answered")], [("small", "Drained")]]
    made = decode(next(line for line in lines if b"Drained" in line))
    assert made.cost.decision.completion_tokens == 3


# -- before the answer ------------------------------------------------------------------------------------------------

EASY = "hi"
HARD = (
    "Prove step by step that the algorithm terminates, analyse its time complexity, derive the recurrence, and "
    "implement it in Python with tests:\n```python\ndef f(x):\n    return x\n```\nWhy does this hold for all n? "
) * 6


def test_hybrid_chooses_where_the_score_is_clear_and_judges_between(bench: Bench) -> None:
    bench.unsure()
    replies = [bench.chat("hybrid", text) for text in (EASY, HARD, *(HARD[:size] for size in range(20, 400, 20)))]
    for reply in replies:
        score = bench.record(reply).choice.score
        assert score is not None
        if score < 0.25:
            assert shape(reply) == ("Chosen", "ScoreLow", "small")
        elif score < 0.45:
            assert shape(reply) == ("Escalated", "BelowThreshold", "large")
        else:
            assert shape(reply) == ("Chosen", "ScoreHigh", "large")
    assert {"ScoreLow", "ScoreHigh", "BelowThreshold"} == {reply.header("x-modeltiers-reason") for reply in replies}


def test_a_score_threshold_chooses(bench: Bench) -> None:
    assert shape(bench.chat("score", EASY)) == ("Chosen", "ScoreLow", "small")
    assert shape(bench.chat("score", HARD)) == ("Chosen", "ScoreHigh", "large")


def test_a_share_of_strong_traffic_is_held(bench: Bench) -> None:
    count, strong = 400, 0
    with Wire(bench.port) as wire:
        for number in range(count):
            text = HARD[: 10 + (number * 37) % 700]
            reply = wire.send(request(chat_body(text, model="held"))).reply()
            strong += reply.header("x-modeltiers-tier") == "large"
    assert abs(strong / count * 1000 - 300) <= min(60.0, most_error(count))
    status = bench.router.status()["policies"]["held"]
    assert abs(status["strongSharePermille"] - strong / count * 1000) <= 60
    assert 0 <= status["thresholdPermille"] <= 1000


def test_a_conversation_stays_where_it_was_answered(bench: Bench) -> None:
    bench.unsure()
    session = "x-session-id: conversation-1"
    assert shape(bench.chat("sticky", "one", session)) == ("Escalated", "BelowThreshold", "large")
    assert shape(bench.chat("sticky", "two", session)) == ("Chosen", "Sticky", "large")
    assert shape(bench.chat("sticky", "two", "x-session-id: other"))[0] == "Escalated"
    assert shape(bench.chat("sticky", "two"))[0] == "Escalated"


def test_a_kept_answer_keeps_the_conversation_on_its_own_tier(bench: Bench) -> None:
    bench.unsure()
    bench.large.script = fails(503)
    session = "x-session-id: conversation-kept"
    assert shape(bench.chat("sticky", "one", session)) == ("Kept", "BelowThreshold", "small")
    bench.large.script = answer(LARGE)
    bench.small.script = answer(SMALL, logprobs=SURE)
    reply = bench.chat("sticky", "two", session)
    assert reply.header("x-modeltiers-tier") == "small"
    assert bench.record(reply).load.sticky == "small"


def test_a_tools_result_goes_back_to_the_tier_that_called(bench: Bench) -> None:
    session = "x-session-id: conversation-2"
    bench.small.script = calling('{"city": "Ulm"}')
    first = bench.chat("sticky", "weather", session, stream=True, tools=TOOLS)
    assert shape(first)[2] == "small"
    call = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "weather"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
    ]
    bench.unsure()
    reply = bench.chat("sticky", "", session, messages=messages, tools=TOOLS)
    # The loop is locked: its answer is not judged, the tier does not change in the middle of it.
    assert shape(reply) == ("Chosen", "ToolLoop", "small")


def test_a_client_may_ask_for_a_tier_that_the_policy_allows(bench: Bench) -> None:
    assert shape(bench.chat("override", "x", "x-modeltiers-tier: large")) == ("Chosen", "Override", "large")
    assert shape(bench.chat("override", "x", "x-modeltiers-tier: small")) == ("Accepted", "Confident", "small")
    assert shape(bench.chat("override", "x", "x-modeltiers-tier: none")) == ("Accepted", "Confident", "small")
    assert shape(bench.chat("window", "x", "x-modeltiers-tier: large")) == ("Accepted", "Confident", "small")
    assert bench.large.requests[0].header("x-modeltiers-tier") is None


def test_a_canary_takes_its_share_of_conversations(bench: Bench) -> None:
    found = Counter[str]()
    for number in range(100):
        reply = bench.chat("canary", "x", f"x-session-id: canary-{number}")
        found[reply.header("x-modeltiers-reason") or ""] += 1
        if number < 10:
            again = bench.chat("canary", "y", f"x-session-id: canary-{number}")
            assert again.header("x-modeltiers-tier") == reply.header("x-modeltiers-tier")
    assert found["Canary"] + found["Confident"] == 100
    assert 15 <= found["Canary"] <= 45  # of 100 draws with 0.3, three deviations


# -- many at once -----------------------------------------------------------------------------------------------------


def test_many_at_once_never_get_a_mixed_answer(bench: Bench) -> None:
    bench.small.script = coin_script()
    faults = list[str]()

    def client(seed: int) -> None:
        with Wire(bench.port) as wire:
            for turn in range(15):
                stream = bool((seed + turn) % 2)
                body = chat_body(f"{seed}-{turn}", model=("window", "whole", "timed")[turn % 3], stream=stream)
                reply = wire.send(request(body)).reply(15)
                right = expected(SMALL if reply.header("x-modeltiers-tier") == "small" else LARGE, stream=stream)
                if reply.status != 200 or reply.body != right:
                    faults.append(f"{seed}-{turn}: {reply.status} {reply.body[:200]!r}")

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert faults == []
    given = bench.grown("decisions_total", decision="Accepted"), bench.grown("decisions_total", decision="Escalated")
    assert sum(given) == 120
    assert min(given) > 20


def coin_script() -> Script:
    """Sure of every other answer."""
    turns = iter(range(10**9))

    async def run(call: Call) -> None:
        await answer(SMALL, logprobs=SURE if next(turns) % 2 else UNSURE)(call)

    return run


# -- what tiers do besides --------------------------------------------------------------------------------------------


@both
def test_usage_after_an_escalation_is_that_of_the_answer_alone(bench: Bench, stream: bool) -> None:
    bench.unsure()
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    assert bench.chat("window", stream=stream, **more).body == expected(LARGE, stream=stream, usage=True)


def test_comments_of_a_tier_are_held_with_its_words(bench: Bench) -> None:
    parts = [b": ping\n\n", *vllm.chat_events(MANY, logprobs=SURE, top=2)[:-1], b": pong\n\n", vllm.DONE]
    bench.small.script = streams(parts)
    reply = bench.chat("window", stream=True)
    plain = vllm.chat_events(MANY)
    assert reply.body == b"".join([b": ping\n\n", *plain[:-1], b": pong\n\n", vllm.DONE])
    bench.small.script = streams([b": ping\n\n", *vllm.chat_events(MANY, logprobs=UNSURE, top=2)])
    assert bench.chat("window", stream=True).body == expected(LARGE, stream=True)


def test_an_engine_that_dies_while_its_answer_is_held_leaves_no_trace(bench: Bench) -> None:
    words = vllm.chat_events("two words", logprobs=SURE, top=2)[:3]
    bench.small.script = streams([*words, vllm.ENGINE_DIED, vllm.DONE])
    reply = bench.chat("window", stream=True)
    assert reply.header("x-modeltiers-decision") == "Fallback"
    assert reply.body == expected(LARGE, stream=True)


def test_several_tokens_in_an_event_are_counted_each(bench: Bench) -> None:
    said = {"content": [vllm.logprob(" word", SURE, 2)] * 4}
    bench.small.script = streams(
        [vllm.chat_chunk({"content": " word" * 4}, logprobs=said)] * 2, then="hang", last=False
    )
    with Wire(bench.port) as wire:
        got = wire.send(request(chat_body(model="window", stream=True))).until_quiet(0.2, 2)
    assert got.count(b" word word word word") == 2


def test_endless_thinking_ends_with_the_bytes_that_may_be_held(bench: Bench) -> None:
    bench.small.script = thinking(200, 0, SURE, SURE, then="hang")
    reply = bench.chat("bytes", stream=True, seconds=3)
    assert shape(reply) == ("Escalated", "Undecided", "large")
    assert bench.small.cancelled(0, 1)


def test_completions_are_streamed_and_judged_alike(bench: Bench) -> None:
    def events(value: float | None) -> list[bytes]:
        made = [json.loads(one[6:]) for one in vllm.completion_events(MANY)[:-1]]
        for one in made:
            if value is None:
                break
            text = one["choices"][0]["text"]
            logs = {"tokens": [text], "token_logprobs": [value], "top_logprobs": [{text: value, "x": value - 3}]}
            one["choices"][0]["logprobs"] = logs
        return [*map(vllm.event, made), vllm.DONE]

    def complete() -> Reply:
        return ask(bench.port, request(b'{"model":"window","prompt":"say","stream":true}', path="/v1/completions"))

    bench.small.script, bench.large.script = streams(events(SURE)), streams(vllm.completion_events(LARGE))
    reply = complete()
    assert shape(reply) == ("Accepted", "Confident", "small")
    assert reply.body == b"".join(events(None))
    bench.small.script = streams(events(UNSURE))
    reply = complete()
    assert shape(reply) == ("Escalated", "BelowThreshold", "large")
    assert reply.body == b"".join(vllm.completion_events(LARGE))


@both
def test_an_answer_that_was_whole_leaves_its_connection_in_use(bench: Bench, stream: bool) -> None:
    bench.unsure("short")
    bench.chat("whole", stream=stream)
    opened = len(bench.small.seen.sockets), len(bench.large.seen.sockets)
    for _ in range(5):
        assert bench.chat("whole", stream=stream).header("x-modeltiers-decision") == "Escalated"
    assert (len(bench.small.seen.sockets), len(bench.large.seen.sockets)) == opened


def test_a_worker_that_died_while_it_had_nothing_to_do_costs_no_check(bench: Bench) -> None:
    warm(bench)
    (worker,) = workers(bench.router.pid)
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.1)
    assert shape(bench.chat("dear")) == ("Accepted", "Confident", "small")


@both
def test_a_table_that_changes_while_an_answer_is_held_changes_nothing_for_it(tmp_path: Path, stream: bool) -> None:
    gate = list[str]()

    async def gated(call: Call) -> None:
        while not gate:
            await call.sleep(0.005)
        await answer(SMALL, logprobs=UNSURE)(call)

    with alone(gated, answer(LARGE), spool=tmp_path) as (router, (small, large)), Upstream(answer("new")) as new:
        with Wire(router.port) as wire:
            wire.send(request(chat_body(model="window", stream=stream)))
            small.wait(lambda: small.requests)
            made = json.loads(router.table.read_text())
            made["version"] = "other"
            made["tiers"][3]["address"] = new.address
            router.reload(made)
            router.until(lambda status: status["tables"]["table.json"]["version"] == "other")
            gate.append("open")
            reply = wire.reply()
        assert shape(reply) == ("Escalated", "BelowThreshold", "large")
        assert reply.body == expected(LARGE, stream=stream)
        assert chat(router.port, model="up").text == "new"
        assert len(large.requests) == 1


# -- records ----------------------------------------------------------------------------------------------------------


def test_every_record_of_this_run_holds_and_has_no_text(bench: Bench) -> None:
    secret = "a-secret-prompt-9F2C"
    bench.unsure("a-secret-answer-7B1D")
    for model in ("window", "dead", "flag", "checked", "hybrid", "sticky"):
        bench.chat(model, secret, "x-session-id: secret-session", stream=model != "dead", user="secret-user")
    bench.router.idle()
    until = time.monotonic() + 5
    while not set(bench.asked) <= {decode(line).id for line in spooled(bench.spool)} and time.monotonic() < until:
        time.sleep(0.05)
    lines = spooled(bench.spool)
    ids = [decode(line).id for line in lines]
    assert len(ids) == len(set(ids))
    assert set(bench.asked) <= set(ids)
    faults = [(fault, line) for line in lines for fault in faults_of(line, bench.document)]
    assert faults == []
    everything = b"\n".join(lines) + bench.router.output().encode()
    for text in (b"secret", SMALL.encode(), LARGE.encode(), b"word word", b"lorem", b"mine-1"):
        assert text not in everything
    logged = [one for one in bench.router.log() if one.get("event") == "request"]
    assert {one["id"] for one in logged} >= set(bench.asked)
