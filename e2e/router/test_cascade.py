"""The small tier first, judged by what it really said and how sure it was; the large one when that is not good enough.

The client sees one tier's answer, whole: never a mixed one, never one that is silently cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.engine import ladder
from e2e.engine.pytest_plugin import Pair
from e2e.engine.record import WEATHER
from e2e.router.cascade import Cascade, table
from e2e.router.figures import ENDLESS, eventually
from e2e.router.streams import begun, ends_truthfully, rest
from e2e.router.tap import Tap
from tests.router.kit.client import Reply, Wire, chat, chat_body, data_of, request
from tests.router.kit.router import Router
from tests.router.kit.upstream import Refusing

pytestmark = pytest.mark.slow

SMALL, LARGE = ladder.SMALL[-1].text, ladder.LARGE[-1].text
UNSURE = next(answer.text for answer in ladder.SMALL if answer.asked == "hard")
FADING = next(answer.text for answer in ladder.SMALL if answer.asked == "fade")
CHECKED = next(answer.text for answer in ladder.LARGE if answer.asked == "broken")
BROKEN = next(answer.text for answer in ladder.SMALL if answer.asked == "broken")


@pytest.fixture(scope="module")
def running(real_tiers: Pair) -> Iterator[Cascade]:
    with Tap(real_tiers[0].port) as small, Tap(real_tiers[1].port) as large:
        with Router(table(small.address, large.address)) as router:
            yield Cascade(router, small, large, real_tiers)


@pytest.fixture
def cascade(running: Cascade) -> Iterator[Cascade]:
    running.begin()
    yield running
    running.router.idle()


def decided(reply: Reply) -> tuple[str | None, str | None]:
    assert reply.header("x-modeltiers-reason")
    return reply.header("x-modeltiers-tier"), reply.header("x-modeltiers-decision")


def bare(said: Any) -> Any:
    """Return a reply or an event without its logprobs."""
    return said | {"choices": [choice | {"logprobs": None} for choice in said["choices"]]}


def events_of(stream: bytes) -> list[Any]:
    return [json.loads(event) for event in data_of(stream) if event != b"[DONE]"]


# -- good enough ------------------------------------------------------------------------------------------------------


def test_a_sure_answer_is_accepted_and_the_large_tier_is_not_asked(cascade: Cascade) -> None:
    reply = cascade.chat("six times seven?")
    assert decided(reply) == ("small", "Accepted")
    assert reply.text == SMALL
    small, large = cascade.did()
    assert (small.finished, large.finished, large.prompt_tokens) == (1, 0, 0)


def test_logprobs_that_only_the_router_wants_are_asked_for_and_taken_out_again(cascade: Cascade) -> None:
    reply = cascade.chat("six times seven?")
    asked = json.loads(cascade.small.asked()[1])
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 2)
    engine = json.loads(cascade.small.answered())
    assert engine["choices"][0]["logprobs"]["content"]
    assert reply.json == bare(engine)


@pytest.mark.parametrize("top", [0, 1, 4])
@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_that_the_client_wants_too_are_what_it_asked_for(cascade: Cascade, stream: bool, top: int) -> None:
    more: dict[str, Any] = {"top_logprobs": top} if top else {}
    reply = cascade.chat("six times seven?", logprobs=True, stream=stream, **more)
    said = events_of(reply.body) if stream else [reply.json]
    tokens = [t for one in said for c in one["choices"] for t in (c["logprobs"] or {"content": []})["content"]]
    assert "".join(token["token"] for token in tokens).startswith(SMALL)
    assert {len(token["top_logprobs"]) for token in tokens} == {top}


@pytest.mark.parametrize("model", ["support", "window", "whole"])
@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_that_is_accepted_is_the_small_tier_s_own(cascade: Cascade, model: str, usage: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    reply = cascade.chat("six times seven?", model, stream=True, **more)
    assert decided(reply) == ("small", "Accepted")
    wanted = [bare(one) for one in events_of(cascade.small.answered()) if usage or one["choices"]]
    assert [bare(one) for one in events_of(reply.body)] == wanted
    assert b'"logprob"' not in reply.body
    assert reply.text == SMALL


# -- not good enough --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["support", "window", "whole"])
def test_an_unsure_answer_is_escalated_and_only_the_large_tier_is_heard(
    cascade: Cascade, model: str, stream: bool
) -> None:
    reply = cascade.chat("a hard one", model, stream=stream)
    assert decided(reply) == ("large", "Escalated")
    assert reply.text == LARGE
    assert b'"logprob"' not in reply.body
    assert b'"small"' not in reply.body


def test_the_small_tier_s_tokens_are_counted_too_and_reported_apart(cascade: Cascade) -> None:
    reply = cascade.chat("a hard one")
    assert reply.json["usage"] == json.loads(cascade.large.answered())["usage"]
    small, large = cascade.did()
    for tier, used in (("small", small), ("large", large)):
        assert cascade.count("tokens_total", tier=tier, kind="prompt") == used.prompt_tokens > 0
        assert cascade.count("tokens_total", tier=tier, kind="completion") == used.answer_tokens > 0


@pytest.mark.parametrize("model", ["support", "window"])
def test_a_lost_answer_is_given_up_early_and_its_engine_stops(cascade: Cascade, model: str) -> None:
    reply = cascade.chat("lost", model, stream=True)
    assert decided(reply) == ("large", "Escalated")
    assert reply.text == LARGE
    eventually(lambda: cascade.did()[0].running == 0, 1)
    small, large = cascade.did()
    assert (small.finished, large.finished) == (0, 1)  # it did not come to its end
    assert small.answer_tokens < 100
    assert cascade.count("attempts_total", tier="small", outcome="Abandoned") == 1
    assert 0 < cascade.count("tokens_total", tier="small", kind="completion") <= small.answer_tokens


def test_what_was_committed_is_never_taken_back(cascade: Cascade) -> None:
    reply = cascade.chat("fade", "window", stream=True)
    assert decided(reply) == ("small", "Accepted")
    assert reply.text == FADING
    assert cascade.did()[1].prompt_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_fades_is_seen_by_who_holds_it_whole(cascade: Cascade, stream: bool) -> None:
    reply = cascade.chat("fade", "whole", stream=stream)
    assert decided(reply) == ("large", "Escalated")
    assert reply.text == LARGE


def test_a_policy_that_only_flags_streams_the_small_tier_s_answer(cascade: Cascade) -> None:
    reply = cascade.chat("a hard one", "flag", stream=True)
    assert reply.header("x-modeltiers-tier") == "small"
    assert reply.text == UNSURE
    assert b"\n: modeltiers BelowThreshold 0." in reply.body  # a comment, which clients skip
    assert cascade.did()[1].prompt_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
def test_beyond_the_cap_the_answer_at_hand_is_given(cascade: Cascade, stream: bool) -> None:
    reply = cascade.chat("a hard one", "capped", stream=stream)
    assert reply.header("x-modeltiers-tier") == "small"
    assert reply.header("x-modeltiers-decision") != "Accepted"
    assert reply.text == UNSURE
    assert cascade.did()[1].prompt_tokens == 0


# -- validators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_the_wrong_form_is_escalated(cascade: Cascade, stream: bool) -> None:
    reply = cascade.chat("the broken one, in JSON", "form", stream=stream)
    assert decided(reply) == ("large", "Escalated")
    assert json.loads(reply.text) == json.loads(CHECKED)
    assert BROKEN[:6] not in reply.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_the_right_form_is_accepted(cascade: Cascade, stream: bool) -> None:
    reply = cascade.chat("in JSON", "form", stream=stream)
    assert decided(reply) == ("small", "Accepted")
    assert json.loads(reply.text) == {"answer": 42}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_with_wrong_arguments_is_escalated_and_never_seen(cascade: Cascade, stream: bool) -> None:
    reply = cascade.chat("weather?", "tools", stream=stream, tools=[WEATHER])
    assert decided(reply) == ("large", "Escalated")
    said = events_of(reply.body) if stream else [reply.json]
    parts = [choice["delta" if stream else "message"] for one in said for choice in one["choices"]]
    calls = [call["function"] for part in parts for call in part.get("tool_calls") or ()]
    assert json.loads("".join(call.get("arguments") or "" for call in calls)) == {"city": "Paris"}
    assert b"town" not in reply.body


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_small_tier_is_passed_over(real_tiers: Pair, stream: bool) -> None:
    with Refusing() as dead, Router(table(dead.address, real_tiers[1].address)) as router:
        for _ in range(4):
            reply = chat(router.port, "six times seven?", stream=stream)
            assert (reply.status, decided(reply)) == (200, ("large", "Fallback"))
            assert reply.text == LARGE


@pytest.mark.parametrize("stream", [False, True])
def test_with_a_dead_large_tier_a_sure_answer_is_given_all_the_same(real_tiers: Pair, stream: bool) -> None:
    with Refusing() as dead, Router(table(real_tiers[0].address, dead.address)) as router:
        for _ in range(4):
            reply = chat(router.port, "six times seven?", stream=stream)
            assert (reply.status, reply.text) == (200, SMALL)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["support", "whole"])
def test_with_a_dead_large_tier_an_unsure_answer_is_whole_or_an_error(
    real_tiers: Pair, model: str, stream: bool
) -> None:
    with Refusing() as dead, Router(table(real_tiers[0].address, dead.address)) as router:
        for _ in range(4):
            reply = chat(router.port, "a hard one", model=model, stream=stream)
            if reply.status == 200:
                assert reply.text == UNSURE
                assert reply.header("x-modeltiers-decision") not in ("Accepted", "Escalated")
                assert not stream or reply.events[-1] == b"[DONE]"
            else:
                assert reply.error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_small_tier_that_breaks_off_while_it_is_held_is_never_heard(cascade: Cascade, stream: bool) -> None:
    body = chat_body("on and on", model="whole", stream=stream, ignore_eos=True, max_tokens=1200)
    with Wire(cascade.router.port) as wire:
        wire.send(request(body))
        eventually(lambda: cascade.did()[0].running == 1)
        cascade.small.cut()
        reply = wire.reply(20)
    assert (reply.status, decided(reply)) == (200, ("large", "Fallback"))
    assert reply.text.startswith(LARGE * 2)
    assert SMALL not in reply.text
    assert not stream or reply.events[-1] == b"[DONE]"


def test_a_small_tier_that_breaks_off_after_the_commit_is_an_error(cascade: Cascade) -> None:
    with Wire(cascade.router.port) as wire:
        wire.send(request(chat_body("on and on", model="window", stream=True, **ENDLESS)))
        got = begun(wire)
        cascade.small.cut()
        got += rest(wire, 5)
    ends_truthfully(got)
    assert b"Looked" not in got
    assert cascade.did()[1].prompt_tokens == 0


@pytest.mark.parametrize("text", ["lost on and on", "on and on"])
def test_a_client_that_leaves_while_it_is_judged_ends_all_work(cascade: Cascade, text: str) -> None:
    for _ in range(3):
        with Wire(cascade.router.port) as wire:
            wire.send(request(chat_body(text, model="whole", **ENDLESS)))
            eventually(lambda: sum(one.running for one in cascade.did()) > 0)
        assert eventually(lambda: sum(one.running for one in cascade.did()) == 0) < 1.0
    assert [one.finished for one in cascade.did()] == [0, 0]


def test_many_at_once_each_get_one_tier_s_answer(cascade: Cascade) -> None:
    asked = [("six times seven?", SMALL), ("a hard one", LARGE), ("lost", LARGE)] * 8
    wires = [Wire(cascade.router.port, timeout=60) for _ in asked]
    for place, (wire, (text, _)) in enumerate(zip(wires, asked, strict=True)):
        wire.send(request(chat_body(text, model="support", stream=bool(place % 2))))
    for wire, (_, wanted) in zip(wires, asked, strict=True):
        with wire:
            assert wire.reply(60).text == wanted
