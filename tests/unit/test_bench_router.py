"""The bench's own arithmetic: verdicts, the table it prints, bodies of the size asked for, a table the router takes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from e2e.bench.router import bodies, configs, inside, upstream
from e2e.bench.router.report import Row, as_json, missed, number, render
from modeltiers.domain.routing.ask import read_request
from modeltiers.domain.routing.table import read_table


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("a", 1.0, target=1.0), "ok"),
        (Row("a", 1.01, target=1.0), "MISSED"),
        (Row("a", 20_000.0, target=20_000, at_least=True), "ok"),
        (Row("a", 19_999.0, target=20_000, at_least=True), "MISSED"),
        (Row("a", 30.0, nginx=20.0, target=1.5, relative=True), "ok"),
        (Row("a", 31.0, nginx=20.0, target=1.5, relative=True), "MISSED"),
        (Row("a", 31.0, target=1.5, relative=True), ""),
        (Row("a", None, target=1.0), ""),
        (Row("a", 5.0), ""),
    ],
)
def test_a_row_is_judged_by_its_figure_or_by_its_ratio_to_nginx(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_a_peer_that_took_nothing_is_nothing_to_be_compared_with() -> None:
    assert Row("a", 1.0, nginx=0.0).ratio is None


@pytest.mark.parametrize(
    ("value", "shown"), [(0.3333, "0.333"), (12.34, "12.3"), (123.4, "123"), (20_000.4, "20,000"), (0.0, "0")]
)
def test_figures_are_shown_with_three_digits_that_count(value: float, shown: str) -> None:
    assert number(value) == shown


def test_the_table_names_what_is_missed_and_lines_up_its_columns() -> None:
    rows = [
        Row("CPU a request", 60.0, "us", 20.0, 21.0, 1.5, relative=True),
        Row("start", 0.2, "s", target=0.5, note="0.1 s of processor"),
        Row("accept", None, "us", target=150, note="not built yet"),
    ]
    first, cpu, start, accept = render(rows).splitlines()
    assert cpu.split() == ["CPU", "a", "request,", "us", "60", "20", "21", "3.00x", "<=", "1.5x", "MISSED"]
    assert start.endswith("<= 0.5  ok      0.1 s of processor")
    assert "-" in accept
    assert accept.endswith("not built yet")
    assert len({line.index(word) + len(word) for line, word in ((first, "target"), (cpu, "1.5x"), (start, "0.5"))}) == 1
    assert missed(rows) == ["CPU a request"]
    kept = as_json(rows, {"machine": "one"})
    assert kept["machine"] == "one"
    assert [row["verdict"] for row in kept["rows"]] == ["MISSED", "ok", ""]


@pytest.mark.parametrize("size", [600, 1024, 65_536])
def test_a_request_is_as_long_as_asked_for_and_reads_as_a_chat(size: int) -> None:
    body = bodies.request(size)
    assert size - 40 <= len(body) <= size
    request = read_request("chat", body)
    assert request.model == bodies.MODEL
    assert request.messages is not None
    assert request.messages[-1].role == "user"
    assert bodies.request(size) == body


def test_an_answer_has_as_many_logprobs_as_tokens_each_with_its_alternatives_falling() -> None:
    content = json.loads(bodies.answer(300, top=2))["choices"][0]["logprobs"]["content"]
    assert len(content) == 300
    for token in content:
        best, second = (one["logprob"] for one in token["top_logprobs"])
        assert token["logprob"] == best >= second
    assert json.loads(bodies.answer())["choices"][0]["logprobs"] is None


def test_a_stream_begins_with_the_role_and_ends_with_a_reason_and_the_usage() -> None:
    events = [json.loads(bodies.event(token, 3).removeprefix(b"data: ")) for token in range(5)]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [one["choices"][0]["finish_reason"] for one in events] == [None, None, None, None, "length"]
    assert json.loads(bodies.usage_event(3).removeprefix(b"data: "))["usage"]["completion_tokens"] == 3


def test_a_chunk_is_framed_by_its_length_in_hexadecimal() -> None:
    assert upstream.chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_the_table_has_twenty_rules_and_is_one_that_the_router_reads() -> None:
    table = read_table(configs.table(18_000, configs.OPTIONAL))
    policy = table.policies[0]
    assert len(policy.rules) == 20
    assert policy.access.mode == "Keys"
    assert policy.limits.concurrency == policy.key_limits.concurrency == 50_000


def test_only_a_proxy_of_streams_turns_its_buffers_off() -> None:
    whole, streams = (configs.nginx_proxy(Path("/x"), 1, 2, streams=streams) for streams in (False, True))
    assert "proxy_buffering off" in streams
    assert "proxy_buffering" not in whole
    assert "keepalive 2048" in whole


@pytest.mark.parametrize("kind", inside.KINDS)
async def test_a_request_without_sockets_is_answered_and_takes_the_same_steps_each_time(
    kind: str, tmp_path: Path
) -> None:
    one = inside.Inside(kind, 1024, tmp_path, asyncio.get_running_loop())
    one.ask(50)
    one.check()
    steps = [inside.bytecodes(one, 20).total() for _ in range(2)]
    assert steps[0] > 1_000
    assert abs(steps[0] - steps[1]) < 50
