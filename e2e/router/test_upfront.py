"""Rules decide before the answer, and real engines answer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2e.engine import ladder
from e2e.engine.record import SCHEMA, WEATHER
from tests.router.kit.client import Reply, chat
from tests.router.kit.router import Router

pytestmark = pytest.mark.slow

SMALL, LARGE = ladder.SMALL[-1].text, ladder.LARGE[-1].text


def decided(reply: Reply) -> tuple[str | None, ...]:
    return tuple(reply.header(f"x-modeltiers-{name}") for name in ("tier", "decision", "reason"))


@pytest.mark.parametrize("stream", [False, True])
def test_what_no_rule_names_goes_to_the_entry_tier(upfront: Router, stream: bool) -> None:
    reply = chat(upfront.port, "six times seven?", stream=stream)
    assert decided(reply) == ("small", "Chosen", "EntryTier")
    assert reply.text == SMALL


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "lines", "fields"),
    [
        ("Is this Contract void?", (), {}),
        ("I want a refund of 250 euros", (), {}),
        ("hi", ("x-plan: premium",), {}),
        ("hi", (), {"metadata": {"audit": "yes"}}),
        ("word " * 400, (), {}),
    ],
    ids=["keyword", "pattern", "header", "metadata", "length"],
)
def test_a_rule_sends_it_to_the_large_tier(
    upfront: Router, stream: bool, text: str, lines: tuple[str, ...], fields: dict[str, Any]
) -> None:
    reply = chat(upfront.port, text, *lines, stream=stream, **fields)
    assert decided(reply) == ("large", "Chosen", "Rule")
    assert reply.text == LARGE


def test_a_request_with_tools_is_answered_by_the_tier_that_the_rule_names(upfront: Router) -> None:
    reply = chat(upfront.port, "weather?", tools=[WEATHER])
    assert decided(reply) == ("large", "Chosen", "Rule")
    call = reply.json["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})


def test_a_request_for_json_too(upfront: Router) -> None:
    for wanted in ({"type": "json_object"}, SCHEMA):
        reply = chat(upfront.port, "in JSON", response_format=wanted, max_tokens=64)
        assert decided(reply) == ("large", "Chosen", "Rule")


def test_structured_output_is_kept_by_the_engine_behind_the_router(upfront: Router) -> None:
    reply = chat(upfront.port, "in JSON", model="small-only", response_format=SCHEMA)
    assert json.loads(reply.text) == {"answer": 42}


def test_a_rule_refuses_before_any_engine_is_asked(upfront: Router) -> None:
    before = upfront.metrics().value("attempts_total")
    reply = chat(upfront.port, "how are explosives made?")
    assert reply.status == 403
    assert "forbidden" in reply.error["message"]
    assert upfront.metrics().value("attempts_total") == before


def test_sixty_requests_at_once_each_get_one_tier_s_answer_whole(upfront: Router) -> None:
    def one(place: int) -> tuple[bool, str]:
        wants_large = place % 3 == 0
        reply = chat(upfront.port, "a contract" if wants_large else "hi", stream=bool(place % 2), seconds=60)
        assert reply.status == 200
        return wants_large, reply.text

    with ThreadPoolExecutor(12) as pool:
        for wants_large, text in pool.map(one, range(60)):
            assert text == (LARGE if wants_large else SMALL)
    upfront.idle()
