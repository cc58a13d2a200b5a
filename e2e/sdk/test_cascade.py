"""Both SDKs in front of a cascade: a program cannot tell it from one model, but by the headers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.engine import ladder
from e2e.engine.pytest_plugin import Pair
from e2e.engine.record import WEATHER
from e2e.router.cascade import table
from e2e.sdk.sdk import Asking, How, Sdk, Seen
from tests.router.kit.router import Router

pytestmark = pytest.mark.slow

SMALL, LARGE = ladder.SMALL[-1].text, ladder.LARGE[-1].text

UNSURE = next(answer.text for answer in ladder.SMALL if answer.asked == "hard")


@pytest.fixture(scope="module")
def router(real_tiers: Pair) -> Iterator[Router]:
    with Router(table(*(engine.address for engine in real_tiers))) as running:
        yield running


def asks(sdk: Sdk, router: Router, text: str, how: How = "create", model: str = "support", **more: Any) -> Seen:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    seen = sdk.ask(Asking(f"{router.url}/v1", body, how=how))
    assert seen.fault is None, seen.fault
    return seen


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "said", "tier", "decision"),
    [
        ("six times seven?", SMALL, "small", "Accepted"),
        ("a hard one", LARGE, "large", "Escalated"),
        ("lost", LARGE, "large", "Escalated"),
    ],
)
def test_one_answer_whole(
    sdk: Sdk, router: Router, stream: bool, text: str, said: str, tier: str, decision: str
) -> None:
    seen = asks(sdk, router, text, stream=stream)
    assert (seen.text, seen.finish) == (said, "stop")
    assert (seen.headers["tier"], seen.headers["decision"]) == (tier, decision)
    choices = [c for event in seen.events for c in event["choices"]] if stream else (seen.result or {})["choices"]
    assert all(choice.get("logprobs") is None for choice in choices)
    assert all(event["choices"] for event in seen.events)  # no usage that nobody asked for


@pytest.mark.parametrize(("text", "said"), [("six times seven?", SMALL), ("a hard one", LARGE)])
def test_the_helper_for_streams_puts_the_answer_together(sdk: Sdk, router: Router, text: str, said: str) -> None:
    assert asks(sdk, router, text, "helper").text == said


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_tool_call_is_never_seen(sdk: Sdk, router: Router, stream: bool) -> None:
    seen = asks(sdk, router, "weather?", "helper" if stream else "create", "tools", tools=[WEATHER])
    assert seen.result is not None
    (call,) = seen.result["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_structured_output_parsed_by_the_sdk(sdk: Sdk, router: Router) -> None:
    assert asks(sdk, router, "in JSON", "parse").parsed == {"answer": 42}


def test_a_flag_at_the_end_of_a_stream_disturbs_no_program(sdk: Sdk, router: Router) -> None:
    seen = asks(sdk, router, "a hard one", model="flag", stream=True)
    assert (seen.headers["tier"], seen.text, seen.finish) == ("small", UNSURE, "stop")
