"""Both SDKs against real engines behind the router: what their users do every day."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from e2e.engine import ladder
from e2e.engine.pytest_plugin import Pair
from e2e.engine.record import SCHEMA, WEATHER
from e2e.router.figures import ENDLESS, eventually, figures
from e2e.sdk.sdk import Asking, Sdk, Seen
from tests.router.kit.router import Router

pytestmark = pytest.mark.slow

SMALL = ladder.SMALL[-1].text


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "small-only", "messages": [{"role": "user", "content": text}], **more}


def asks(sdk: Sdk, router: Router, text: str = "six times seven?", **more: Any) -> Seen:
    """Ask for a chat completion that must come."""
    seen = sdk.ask(Asking(f"{router.url}/v1", body(text, **more)))
    assert seen.fault is None, seen.fault
    return seen


def call_of(message: dict[str, Any]) -> tuple[str, Any]:
    (call,) = message["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def test_a_whole_answer(sdk: Sdk, upfront: Router) -> None:
    seen = asks(sdk, upfront)
    assert (seen.text, seen.finish) == (SMALL, "stop")
    assert seen.headers["tier"] == "small"
    assert seen.headers["decision"] == "Chosen"
    assert seen.result is not None
    usage = seen.result["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_a_stream(sdk: Sdk, upfront: Router) -> None:
    seen = asks(sdk, upfront, stream=True)
    assert (seen.text, seen.finish) == (SMALL, "stop")
    assert len(seen.events) > 1  # a busy engine puts several tokens into one event
    assert all(event["choices"] for event in seen.events)  # usage that the router asked for is not the client's
    assert seen.headers["tier"] == "small"


def test_a_stream_with_usage(sdk: Sdk, upfront: Router) -> None:
    seen = asks(sdk, upfront, stream=True, stream_options={"include_usage": True})
    assert seen.text == SMALL
    assert seen.events[-1]["choices"] == []
    assert seen.events[-1]["usage"]["completion_tokens"] > 0


def test_the_helper_for_streams_puts_the_answer_together(sdk: Sdk, upfront: Router) -> None:
    seen = sdk.ask(Asking(f"{upfront.url}/v1", body("six times seven?"), how="helper"))
    assert seen.fault is None, seen.fault
    assert (seen.text, seen.finish) == (SMALL, "stop")
    assert len(seen.events) > 1  # a busy engine puts several tokens into one event


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(sdk: Sdk, upfront: Router, stream: bool) -> None:
    seen = asks(sdk, upfront, logprobs=True, top_logprobs=2, stream=stream)
    choices = [c for event in seen.events for c in event["choices"]] if stream else (seen.result or {})["choices"]
    tokens = [token for choice in choices for token in (choice["logprobs"] or {"content": []})["content"]]
    assert "".join(token["token"] for token in tokens).startswith(SMALL)
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    assert [token["logprob"] for token in tokens] == pytest.approx([math.log(0.95)] * len(tokens), abs=0.01)


def test_a_tool_call(sdk: Sdk, upfront: Router) -> None:
    seen = asks(sdk, upfront, "weather?", tools=[WEATHER], model="large-only")
    assert seen.finish == "tool_calls"
    assert seen.result is not None
    assert call_of(seen.result["choices"][0]["message"]) == ("get_weather", {"city": "Paris"})


def test_a_tool_call_in_a_stream(sdk: Sdk, upfront: Router) -> None:
    asking = Asking(f"{upfront.url}/v1", body("weather?", tools=[WEATHER], model="large-only"), how="helper")
    seen = sdk.ask(asking)
    assert seen.fault is None, seen.fault
    assert seen.finish == "tool_calls"
    assert seen.result is not None
    assert call_of(seen.result["choices"][0]["message"]) == ("get_weather", {"city": "Paris"})
    assert any(c["delta"].get("tool_calls") for event in seen.events for c in event["choices"])


def test_a_tool_s_result_is_answered(sdk: Sdk, upfront: Router) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    told = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    seen = asks(sdk, upfront, messages=told, tools=[WEATHER])
    assert (seen.text, seen.finish) == (SMALL, "stop")


def test_structured_output_by_a_schema(sdk: Sdk, upfront: Router) -> None:
    assert json.loads(asks(sdk, upfront, "in JSON", response_format=SCHEMA).text) == {"answer": 42}


def test_structured_output_parsed_by_the_sdk(sdk: Sdk, upfront: Router) -> None:
    seen = sdk.ask(Asking(f"{upfront.url}/v1", body("in JSON"), how="parse"))
    assert seen.fault is None, seen.fault
    assert seen.parsed == {"answer": 42}


def test_several_choices(sdk: Sdk, upfront: Router) -> None:
    seen = asks(sdk, upfront, n=3, temperature=0.5, seed=1)
    assert seen.result is not None
    assert [choice["index"] for choice in seen.result["choices"]] == [0, 1, 2]


def test_plain_completions(sdk: Sdk, upfront: Router) -> None:
    asking = {"model": "small-only", "prompt": "six?"}
    seen = sdk.ask(Asking(f"{upfront.url}/v1", asking, "completions"))
    assert seen.result is not None
    assert seen.result["choices"][0]["text"] == SMALL
    seen = sdk.ask(Asking(f"{upfront.url}/v1", asking | {"stream": True}, "completions"))
    assert "".join(event["choices"][0]["text"] for event in seen.events) == SMALL


def test_the_list_of_models(sdk: Sdk, upfront: Router) -> None:
    seen = sdk.ask(Asking(f"{upfront.url}/v1", {}, "models"))
    assert seen.result is not None
    assert {one["id"] for one in seen.result["data"]} == {"support", "small-only", "large-only"}


@pytest.mark.parametrize(
    ("more", "kind", "status"),
    [
        ({"model": "nobody"}, "NotFoundError", 404),
        ({"max_tokens": -1}, "BadRequestError", 400),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "BadRequestError", 400),
        ({"model": "support", "messages": [{"role": "user", "content": "explosives"}]}, "PermissionDeniedError", 403),
    ],
    ids=["model", "max-tokens", "too-long", "refused"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_of_the_sdk_s_own_classes(
    sdk: Sdk, upfront: Router, stream: bool, more: dict[str, Any], kind: str, status: int
) -> None:
    seen = sdk.ask(Asking(f"{upfront.url}/v1", body("x", **more, stream=stream)))
    assert seen.fault is not None
    assert (seen.fault.kind, seen.fault.status) == (kind, status)
    assert seen.fault.message
    assert seen.events == []


def test_a_stream_that_its_reader_leaves_ends_the_engine_s_work(sdk: Sdk, upfront: Router, real_tiers: Pair) -> None:
    small, _ = real_tiers
    before = figures(small)
    seen = sdk.ask(Asking(f"{upfront.url}/v1", body("on", stream=True, **ENDLESS), leave_after=9))
    assert len(seen.events) == 9
    assert eventually(lambda: figures(small).running == 0) < 1.0
    assert figures(small).since(before).finished == 0


def test_a_time_out_of_the_sdk_ends_the_engine_s_work(sdk: Sdk, upfront: Router, real_tiers: Pair) -> None:
    small, _ = real_tiers
    before = figures(small)
    seen = sdk.ask(Asking(f"{upfront.url}/v1", body("on", **ENDLESS), seconds=0.7))
    assert seen.fault is not None
    assert seen.fault.kind in ("APITimeoutError", "APIConnectionTimeoutError")
    assert eventually(lambda: figures(small).running == 0) < 1.0
    assert figures(small).since(before).finished == 0
