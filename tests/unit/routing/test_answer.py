"""Answers read from real replies of vLLM, whole and streamed, and logprobs taken out of them by splicing."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.domain.routing.accept import compile_accept
from modeltiers.domain.routing.answer import Answer, Watch, read_answer, spread
from modeltiers.domain.routing.ask import Endpoint, read_request
from modeltiers.domain.routing.logprobs import as_asked, strip_logprobs, trim_logprobs, wanted
from modeltiers.domain.routing.question import question_of
from modeltiers.domain.routing.table import Accept, Confidence, Policy

CAPTURES = Path(__file__).parents[2] / "router" / "captures"


def body(name: str) -> bytes:
    return (CAPTURES / f"{name}.json").read_bytes()


def events(name: str) -> list[bytes]:
    blocks = (CAPTURES / f"{name}.sse").read_bytes().split(b"\n\n")
    return [block.removeprefix(b"data: ") for block in blocks if block]


def streamed(name: str, endpoint: Endpoint = "chat") -> Answer:
    watch = Watch(endpoint)
    for payload in events(name):
        watch.feed(payload)
    return watch.answer


PAIRS: list[tuple[str, str, Endpoint]] = [
    ("chat-logprobs", "chat-stream-logprobs-usage", "chat"),
    ("reasoning", "reasoning-stream", "chat"),
    ("tool-call", "tool-call-stream", "chat"),
    ("json-schema", "json-schema-stream", "chat"),
]


@pytest.mark.parametrize(("whole", "stream", "endpoint"), PAIRS)
def test_a_stream_gives_the_same_answer_as_the_whole_reply(whole: str, stream: str, endpoint: Endpoint) -> None:
    one, other = read_answer(endpoint, body(whole)), streamed(stream, endpoint)
    assert (one.text, one.reasoning, one.tool_calls) == (other.text, other.reasoning, other.tool_calls)
    assert (one.finish_reason, one.tokens, one.thinking_tokens) == (
        other.finish_reason,
        other.tokens,
        other.thinking_tokens,
    )
    assert one.logprobs == pytest.approx(other.logprobs, abs=0.01)
    assert len(one.logs.margins) == len(other.logs.margins) == len(one.logprobs)
    assert one.thinking.logprobs == pytest.approx(other.thinking.logprobs, abs=0.01)
    assert one.readable
    assert other.readable


def test_a_plain_reply_has_text_end_and_no_logprobs() -> None:
    answer = read_answer("chat", body("chat"))
    assert (answer.text, answer.finish_reason) == ("The answer is 42.", "stop")
    assert answer.logprobs == []
    assert answer.tokens > 0


def test_completions_have_logprobs_too() -> None:
    whole = read_answer("completions", body("completions-logprobs"))
    stream = streamed("completions-stream-logprobs", "completions")
    assert whole.text == stream.text == "The answer is 42."
    assert whole.logprobs == stream.logprobs
    assert whole.logs.margins[0] == pytest.approx(9.188090324 - 0.051293443, abs=1e-6)


def test_thinking_tokens_are_told_apart() -> None:
    answer = read_answer("chat", body("reasoning"))
    assert answer.reasoning == "\nSix times seven.\n"
    assert answer.text == "\n\nSo it makes 42."
    # <think>, five pieces of thought, </think>; then five pieces and the end of the message.
    assert (len(answer.thinking.logprobs), len(answer.logprobs)) == (7, 6)


def reply(tokens: list[str], logprobs: list[float], **message: Any) -> bytes:
    content: list[dict[str, Any]] = [
        {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": []}
        for token, logprob in zip(tokens, logprobs, strict=True)
    ]
    choice = {"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice]}).encode()


def test_thinking_is_told_apart_without_marks_by_its_text() -> None:
    data = reply(["a", "b", "c", "d"], [-1, -2, -3, -4], reasoning="ab", content="cd")
    answer = read_answer("chat", data)
    assert (answer.thinking.logprobs, answer.logprobs) == ([-1, -2], [-3, -4])


def test_thinking_in_the_text_is_told_apart_when_the_engine_has_no_parser() -> None:
    data = reply(["<think>", "hm", "</think>", "yes"], [-1, -2, -3, -4], content="<think>hm</think>yes")
    answer = read_answer("chat", data)
    assert (answer.reasoning, answer.text) == ("hm", "yes")
    assert (answer.thinking.logprobs, answer.logprobs) == ([-1, -2, -3], [-4])


def test_thinking_whose_opening_mark_stood_in_the_prompt_ends_at_the_closing_one() -> None:
    data = reply(["hm", "</think>", "yes"], [-1, -2, -3], content="hm</think>yes")
    answer = read_answer("chat", data)
    assert (answer.reasoning, answer.text) == ("hm", "yes")
    assert (answer.thinking.logprobs, answer.logprobs) == ([-1, -2], [-3])


def test_a_thought_that_has_not_ended_is_no_answer() -> None:
    watch = Watch("chat")
    watch.feed(b'{"choices":[{"index":0,"delta":{"content":"<think>let me"}}]}')
    assert (watch.answer.text, watch.answer.reasoning, watch.answer.empty) == ("", "let me", True)


def test_unknown_logprobs_are_counted_and_are_no_numbers() -> None:
    answer = read_answer("chat", reply(["a", "b"], [-9999.0, -1.0], content="ab"))
    assert (answer.logprobs, answer.logs.unknown) == ([-1.0], 1)


def test_tool_calls_come_in_pieces_and_in_any_number() -> None:
    watch = Watch("chat")
    for piece in (
        '{"index":0,"id":"x","function":{"name":"one","arguments":""}}',
        '{"index":0,"function":{"arguments":"{\\"a\\":"}}',
        '{"index":1,"function":{"name":"two","arguments":"{}"}}',
        '{"index":0,"function":{"arguments":"1}"}}',
    ):
        watch.feed(b'{"choices":[{"index":0,"delta":{"tool_calls":[%b]}}]}' % piece.encode())
    assert [(call.name, call.arguments) for call in watch.answer.tool_calls] == [("one", '{"a":1}'), ("two", "{}")]


def test_other_choices_are_passed_over() -> None:
    two = b'{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}'
    watch = Watch("chat")
    watch.feed(two)
    assert watch.answer.text == "a"
    assert streamed("chat-n2-stream").text == "The answer is 42."


@given(st.lists(st.binary(max_size=60) | st.sampled_from([*events("reasoning-stream"), *events("tool-call-stream")])))
def test_anything_can_be_fed(payloads: list[bytes]) -> None:
    endpoints: tuple[Endpoint, ...] = ("chat", "completions")
    for endpoint in endpoints:
        watch = Watch(endpoint)
        for payload in payloads:
            watch.feed(payload)
            assert isinstance(watch.answer, Answer)


def test_a_reply_of_another_shape_is_unreadable() -> None:
    for data in (b"", b"[]", b"<html>", b'{"choices":7}', b'{"choices":[{"message":{"content":7}}]}', b"[" * 99_999):
        answer = read_answer("chat", data)
        assert answer.readable == (data == b"")
        assert answer.empty


# --- margins and entropies --------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=12), st.integers(1, 5), st.integers(0, 11))
def test_the_entropy_never_exceeds_the_true_one_and_the_margin_is_exact(
    weights: list[float], k: int, drawn: int
) -> None:
    total = sum(weights)
    chances = sorted((weight / total for weight in weights), reverse=True)
    own = chances[drawn % len(chances)]
    tops = [log(chance) for chance in chances[:k]]
    margin, entropy = spread(log(own), tops)
    assert entropy <= -sum(chance * log(chance) for chance in chances) + 1e-9
    rest = sorted(chances, reverse=True)
    rest.remove(own)
    if k > 1 or log(own) not in tops:
        assert margin == pytest.approx(log(own) - log(rest[0]), abs=1e-9)
    else:
        assert margin <= log(own) - log(rest[0]) + 1e-9  # over all others together: at least that


def test_reading_two_alternatives_is_what_spread_says() -> None:
    for logprob, other in ((-0.05, -9.2), (-1.4, -6.5), (-2.0, -0.5), (-0.69, -0.70)):
        tops = [{"token": "x", "logprob": one} for one in (other, logprob)]
        content = [{"token": "x", "logprob": logprob, "top_logprobs": tops}]
        data = json.dumps({"choices": [{"message": {"content": "x"}, "logprobs": {"content": content}}]}).encode()
        logs = read_answer("chat", data).logs
        margin, entropy = spread(logprob, [other, logprob])
        assert logs.margins == pytest.approx([margin])
        assert logs.entropies == pytest.approx([entropy])


# --- asking for logprobs, and taking them out again -------------------------------------------------------------------


def policy(**accept: Any) -> Policy:
    return Policy(name="p", model="p", tiers=("small", "large"), mode="Cascade", accept=Accept(**accept))


@pytest.mark.parametrize(
    ("endpoint", "asked", "top", "fields"),
    [
        ("chat", {}, 2, {"logprobs": b"true", "top_logprobs": b"2"}),
        ("chat", {}, 0, {"logprobs": b"true"}),
        ("chat", {"logprobs": False}, 1, {"logprobs": b"true", "top_logprobs": b"1"}),
        ("chat", {"logprobs": True}, 2, {"top_logprobs": b"2"}),
        ("chat", {"logprobs": True, "top_logprobs": 5}, 2, {}),
        ("completions", {}, 2, {"logprobs": b"2"}),
        ("completions", {"logprobs": 0}, 2, {"logprobs": b"2"}),
        ("completions", {"logprobs": 5}, 2, {}),
        ("completions", {}, 0, {"logprobs": b"0"}),
        ("embeddings", {}, 2, {}),
    ],
)
def test_what_is_asked_of_the_tier_is_never_less_than_the_client_wants(
    endpoint: Endpoint, asked: dict[str, Any], top: int, fields: dict[str, bytes]
) -> None:
    prompt: dict[str, dict[str, Any]] = {
        "chat": {"messages": [{"role": "user", "content": "x"}]},
        "completions": {"prompt": "x"},
    }
    request = read_request(endpoint, json.dumps({**prompt.get(endpoint, {"input": "x"}), **asked}).encode())
    assert wanted(compile_accept(policy(confidence=Confidence(top=top))), endpoint, request) == fields
    assert wanted(compile_accept(policy()), endpoint, request) == {}


@pytest.mark.parametrize("name", ["chat-logprobs", "tool-call", "reasoning", "json-schema", "random-logprobs"])
def test_logprobs_leave_a_whole_reply_and_nothing_else_does(name: str) -> None:
    data = body(name)
    value = json.loads(data)["choices"][0]["logprobs"]
    inside = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    stripped = strip_logprobs(data, "chat")
    head, _, tail = data.partition(b'"logprobs":{')
    assert stripped.startswith(head + b'"logprobs":null,')
    assert data.endswith(stripped[len(head) + len(b'"logprobs":null') :])
    assert tail.startswith(inside[1:12])
    expected = json.loads(data)
    expected["choices"][0]["logprobs"] = None
    assert json.loads(stripped) == expected


@pytest.mark.parametrize("name", ["chat-stream-logprobs-usage", "reasoning-stream", "tool-call-stream"])
def test_logprobs_leave_the_events_of_a_stream(name: str) -> None:
    for payload in events(name):
        stripped = strip_logprobs(payload, "chat")
        if payload == b"[DONE]":
            assert stripped == payload
            continue
        expected = json.loads(payload)
        for choice in expected["choices"]:
            choice["logprobs"] = None
        assert json.loads(stripped) == expected


@pytest.mark.parametrize("name", ["chat", "completions-two-prompts", "completions", "models", "error-400-logprobs"])
def test_a_reply_without_logprobs_is_the_same_object(name: str) -> None:
    data = body(name)
    assert strip_logprobs(data, "chat") is data
    assert trim_logprobs(data, "chat", 0) is data


texts = st.text(max_size=12) | st.sampled_from(
    ['"logprobs":{', '},"finish_reason":', '{"logprobs":{"content":[]}}', "\\", '"', "}]}", "\u2028"]
)
spaces = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])


@settings(max_examples=60)
@given(st.lists(st.tuples(texts, st.floats(-30, 0)), max_size=5), texts, spaces, st.booleans(), st.integers(0, 3))
def test_whatever_the_tokens_say_only_the_logprobs_change(
    tokens: list[tuple[str, float]], content: str, separators: tuple[str, str], escaped: bool, top: int
) -> None:
    entries = [{"token": name, "logprob": value, "bytes": [1]} for name, value in tokens]
    logprobs = {"content": [{**entry, "top_logprobs": entries} for entry in entries]}
    choice = {"index": 0, "message": {"content": content}, "logprobs": logprobs, "finish_reason": "stop"}
    document = {"id": content, "choices": [choice, {**choice, "index": 1}], "usage": {"completion_tokens": 3}}
    data = json.dumps(document, separators=separators, ensure_ascii=escaped).encode()
    assert json.loads(strip_logprobs(data, "chat")) == {
        **document,
        "choices": [{**choice, "logprobs": None}, {**choice, "index": 1, "logprobs": None}],
    }
    short = {"content": [{**entry, "top_logprobs": entries[:top]} for entry in entries]}
    assert json.loads(trim_logprobs(data, "chat", top)) == {
        **document,
        "choices": [{**choice, "logprobs": short}, {**choice, "index": 1, "logprobs": short}],
    }


def test_completions_keep_the_token_itself_and_the_best_alternatives() -> None:
    data = body("completions-logprobs")
    alone = json.loads(trim_logprobs(data, "completions", 0))["choices"][0]["logprobs"]["top_logprobs"]
    assert alone[0] == {"The ": -0.05129344388842583}
    assert trim_logprobs(data, "completions", 2) == data
    drawn = b'{"choices":[{"logprobs":{"top_logprobs":[{"own":-5.0,"best":-0.1,"next":-2.0},null]}}]}'
    kept = b'{"choices":[{"logprobs":{"top_logprobs":[{"own":-5.0,"best":-0.1},null]}}]}'
    assert trim_logprobs(drawn, "completions", 1) == kept


@pytest.mark.parametrize(
    ("asked", "alternatives"), [({}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 1}, 1)]
)
def test_the_client_gets_what_it_asked_for(asked: dict[str, Any], alternatives: int | None) -> None:
    message = {"messages": [{"role": "user", "content": "x"}]}
    question = question_of(read_request("chat", json.dumps({**message, **asked}).encode()))
    choice = json.loads(as_asked(question, "chat", body("chat-logprobs")))["choices"][0]
    if alternatives is None:
        assert choice["logprobs"] is None
    else:
        assert {len(token["top_logprobs"]) for token in choice["logprobs"]["content"]} == {alternatives}
