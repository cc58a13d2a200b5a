"""What goes through the router to a real engine and back is the same, byte for byte, but for what must differ."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.engine import ladder
from e2e.engine.pytest_plugin import Pair
from e2e.router.conftest import upfront_table
from e2e.router.figures import figures
from e2e.router.tap import Tap
from tests.router.kit.client import Reply, ask, chat, data_of, get, request
from tests.router.kit.router import Router

pytestmark = pytest.mark.slow

SAID = ladder.SMALL[-1].text
ODD = (
    '{ "model" :"support",\t"messages":[{"role":"user","content":"six \\u0074imes seven? é \\ud83d\\ude00",'
    '"x_note":[1,2.50,{}]}],\r\n "x_big":123456789012345678901234567890, "x_float":1.0e+2,"x_empty":{},'
    '"x_text":"\\/\\u00e9", "metadata" : {"b":"1","a":"2"}, "temperature":0.0 %s}'
).encode()
"""Fields that nobody knows, numbers that no reader keeps, and white space that no writer writes."""


@pytest.fixture(scope="module")
def tapped(real_tiers: Pair) -> Iterator[tuple[Router, Tap]]:
    small, large = real_tiers
    with Tap(small.port) as tap, Router(upfront_table(tap.address, large.address)) as router:
        yield router, tap


def odd(router: Router, more: bytes = b"") -> tuple[bytes, Reply]:
    body = ODD.replace(b"%s", more)
    return body, ask(router.port, request(body))


def renamed(body: bytes) -> bytes:
    """What the tier must get: the name it serves under, and nothing else changed."""
    assert body.count(b'"support"') == 1
    return body.replace(b'"support"', b'"small"')


def test_a_request_reaches_the_engine_with_its_model_s_name_changed_and_nothing_else(
    tapped: tuple[Router, Tap],
) -> None:
    router, tap = tapped
    body, reply = odd(router)
    assert reply.status == 200, reply.body
    assert reply.text == SAID
    assert tap.asked()[1] == renamed(body)


def test_a_whole_reply_reaches_the_client_as_the_engine_wrote_it(tapped: tuple[Router, Tap]) -> None:
    router, tap = tapped
    _, reply = odd(router, b', "logprobs": true, "top_logprobs": 3')
    assert reply.body == tap.answered()
    assert len(reply.json["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 3


def test_a_stream_reaches_the_client_as_the_engine_wrote_it(tapped: tuple[Router, Tap]) -> None:
    router, tap = tapped
    body, reply = odd(router, b', "stream": true, "stream_options": {"include_usage": true}')
    assert tap.asked()[1] == renamed(body)
    assert reply.body == tap.answered()
    assert reply.events[-1] == b"[DONE]"
    assert reply.text == SAID


def test_usage_that_only_the_router_wants_is_asked_for_and_taken_out_again(tapped: tuple[Router, Tap]) -> None:
    router, tap = tapped
    before = router.metrics()
    body, reply = odd(router, b', "stream": true')
    asked = json.loads(tap.asked()[1])
    assert asked.pop("stream_options") == {"include_usage": True}
    assert asked == json.loads(renamed(body))
    engines = data_of(tap.answered())
    ours = [event for event in engines if b'"usage"' in event]
    assert len(ours) == 1
    assert reply.events == [event for event in engines if event not in ours]
    used = json.loads(ours[0])["usage"]
    after = router.metrics()
    for kind in ("prompt", "completion"):
        grown = after.value("tokens_total", tier="small", kind=kind) - before.value(
            "tokens_total", tier="small", kind=kind
        )
        assert grown == used[f"{kind}_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_has_ended_leaves_its_connection_to_the_next(real_tiers: Pair, stream: bool) -> None:
    small, large = real_tiers
    with Tap(small.port) as tap, Router(upfront_table(tap.address, large.address)) as router:
        for _ in range(6):
            assert chat(router.port, "hi", stream=stream).text == SAID
            tap.answered()  # the engine ends its chunks a moment after [DONE]
    assert tap.connections() == 1


def test_a_trace_goes_on_and_a_key_and_cookies_do_not(tapped: tuple[Router, Tap]) -> None:
    router, tap = tapped
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    lines = (f"traceparent: {trace}", "authorization: Bearer secret-canary", "cookie: a=canary", "x-request-id: abc-1")
    reply = chat(router.port, "hi", *lines)
    head = tap.asked()[0].lower().decode()
    assert f"traceparent: {trace}" in head
    assert "x-request-id: abc-1" in head
    assert "canary" not in head
    assert reply.header("x-request-id") == "abc-1"
    assert reply.json["id"] == "chatcmpl-abc-1"


@pytest.mark.parametrize("stream", [False, True])
def test_plain_completions_pass_too(tapped: tuple[Router, Tap], stream: bool) -> None:
    router, tap = tapped
    body = {"model": "support", "prompt": "six?", "logprobs": 1, "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    reply = ask(router.port, request(json.dumps(body).encode(), path="/v1/completions"))
    assert reply.status == 200, reply.body
    assert reply.body == tap.answered()
    assert tap.asked()[0].startswith(b"POST /v1/completions ")


@pytest.mark.parametrize(
    ("more", "status"),
    [({"max_tokens": -1}, 400), ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400), ({"n": 2}, 400)],
)
def test_what_the_engine_refuses_is_the_client_s_fault_in_the_engine_s_words(
    tapped: tuple[Router, Tap], more: dict[str, object], status: int
) -> None:
    router, tap = tapped
    body = {"model": "small-only", "messages": [{"role": "user", "content": "x"}], **more}
    reply = ask(router.port, request(json.dumps(body).encode()))
    assert reply.status == status
    if reply.header("x-modeltiers-tier"):  # else the router knew better than to ask
        assert reply.body == tap.answered()
    assert reply.json["error"]["message"]


def test_an_endpoint_that_the_engine_lacks_is_an_error_of_openai_s_shape(upfront: Router) -> None:
    reply = ask(upfront.port, request(b'{"model": "small-only", "input": "x"}', path="/v1/embeddings"))
    assert reply.status in (400, 404)
    assert reply.error["message"]


def test_models_are_the_policies_names(upfront: Router) -> None:
    assert [one["id"] for one in get(upfront.port, "/v1/models").json["data"]] == [
        "large-only",
        "small-only",
        "support",
    ]


def test_engines_and_router_count_the_same_tokens(upfront: Router, real_tiers: Pair) -> None:
    before, counted = [figures(engine) for engine in real_tiers], upfront.metrics()
    for place in range(4):
        for model in ("small-only", "large-only"):
            assert chat(upfront.port, "count me", model=model, stream=bool(place % 2)).status == 200
    after = upfront.metrics()
    for engine, then in zip(real_tiers, before, strict=True):
        grown = figures(engine).since(then)
        assert grown.finished == 4
        for kind, tokens in (("prompt", grown.prompt_tokens), ("completion", grown.answer_tokens)):
            labels = {"tier": engine.name, "kind": kind}
            assert after.value("tokens_total", **labels) - counted.value("tokens_total", **labels) == tokens > 0


def test_the_admin_port_relays_the_engine_s_health_and_figures(real_tiers: Pair) -> None:
    small, large = real_tiers
    table = upfront_table(small.address, large.address).replace("model: small}", "model: small, local: true}", 1)
    with Router(table) as router:
        assert router.get("/engine/health").status == 200
        relayed = router.get("/engine/metrics")
        assert relayed.status == 200
        assert b"vllm:num_requests_running" in relayed.body
        assert router.get("/engine/v1/models").status == 404
        assert router.get("/readyz").status == 200
