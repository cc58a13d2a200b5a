"""Both SDKs against tiers that misbehave: what a program sees is an answer that is whole, or an error that says why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.engine.record import CAPTURES
from e2e.sdk.sdk import Asking, Sdk, Seen
from tests.router.kit import setup, vllm
from tests.router.kit.upstream import Script, answer, chunk, fails, forever, hang, reset, says, stream_head, streams

pytestmark = pytest.mark.slow

TEXT: Final = "hello there, größer als 東京 😀 and on"
EVENTS: Final = vllm.chat_events(TEXT)
RETRIED: Final = {429: "RateLimitError", 500: "InternalServerError", 503: "InternalServerError"}


@pytest.fixture(scope="module")
def running() -> Iterator[setup.Shared]:
    can = {"tier": setup.NEVER_OPENS | {"can": {"embeddings": True}}}
    with setup.shared(**can, timeouts={"firstByteMs": 1500, "idleMs": 1500}) as shared:
        yield shared


@pytest.fixture
def place(running: setup.Shared) -> Iterator[setup.Shared]:
    """Two scripted tiers; model "t0" is the first alone, "support" has both."""
    running.begin()
    yield running
    running.end()


def ask(sdk: Sdk, place: setup.Shared, *, model: str = "t0", stream: bool = False, **settings: Any) -> Seen:
    more = settings.pop("more", {})
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}
    return sdk.ask(Asking(f"{place.router.url}/v1", body, **settings))


def fails_with(seen: Seen, kind: str, status: int | None) -> None:
    assert seen.fault is not None
    assert (seen.fault.kind, seen.fault.status) == (kind, status), seen.fault
    assert seen.fault.message


# -- answers however they come ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_pieces_is_read_as_it_was_written(sdk: Sdk, place: setup.Shared, stream: bool, piece: int) -> None:
    place.first.script = answer(TEXT, piece=piece)
    seen = ask(sdk, place, stream=stream)
    assert seen.fault is None, seen.fault
    assert (seen.text, seen.finish) == (TEXT, "stop")


RECORDED: Final = sorted(
    path.stem for path in Path(CAPTURES).glob("*.http") if not path.stem.startswith(("error", "models", "completions"))
)


@pytest.mark.parametrize("name", RECORDED)
def test_what_a_real_engine_once_sent_is_read(sdk: Sdk, place: setup.Shared, name: str) -> None:
    asked = json.loads((CAPTURES / f"{name}.request.json").read_text()) | {"model": "t0"}
    place.first.script = says((CAPTURES / f"{name}.http").read_bytes(), then="fin")
    endpoint: Any = "embeddings" if name.startswith("embeddings") else "chat"
    seen = sdk.ask(Asking(f"{place.router.url}/v1", asked, endpoint))
    assert seen.fault is None, seen.fault
    if asked.get("stream"):
        payloads = [json.loads(line[6:]) for line in _lines(name) if line.startswith(b"data: {")]
        wanted = [one for one in payloads if one["choices"] or "stream_options" in asked]
        assert [event["id"] for event in seen.events] == [one["id"] for one in wanted]
        assert [_said(event) for event in seen.events] == [_said(one) for one in wanted]
    else:
        assert seen.result is not None
        whole = json.loads((CAPTURES / f"{name}.json").read_bytes())
        if endpoint == "embeddings":
            assert len(seen.result["data"]) == len(whole["data"])
        else:
            assert [_said(c) for c in seen.result["choices"]] == [_said(c) for c in whole["choices"]]
            assert seen.result["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


def _lines(name: str) -> list[bytes]:
    return (CAPTURES / f"{name}.sse").read_bytes().split(b"\n")


def _said(part: dict[str, Any]) -> Any:
    """Return text, thinking, names and arguments of calls, and logprobs of an event or a choice."""
    if "choices" in part:
        return [_said(choice) for choice in part["choices"]]
    told = part.get("delta") or part.get("message") or {}
    calls = [(call["function"].get("name"), call["function"].get("arguments")) for call in told.get("tool_calls") or ()]
    tokens = [(token["token"], token["logprob"]) for token in (part.get("logprobs") or {}).get("content") or ()]
    return told.get("content"), told.get("reasoning"), calls, tokens, part["finish_reason"]


# -- tiers that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind"), RETRIED.items())
def test_a_tier_s_error_is_of_the_class_that_programs_catch(
    sdk: Sdk, place: setup.Shared, stream: bool, status: int, kind: str
) -> None:
    place.first.script = fails(status, message="broken on purpose")
    seen = ask(sdk, place, stream=stream)
    fails_with(seen, kind, status)
    assert seen.fault is not None
    assert "broken on purpose" in seen.fault.message
    assert seen.fault.code == "upstream_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [reset, fails(503), hang], ids=["reset", "503", "hang"])
def test_the_next_tier_s_answer_is_all_that_a_program_sees(
    sdk: Sdk, place: setup.Shared, stream: bool, script: Script
) -> None:
    place.first.script = script
    seen = ask(sdk, place, model="support", stream=stream)
    assert seen.fault is None, seen.fault
    assert seen.text == "second"
    assert (seen.headers["tier"], seen.headers["decision"]) == ("t1", "Fallback")


def test_the_sdk_s_own_retry_waits_as_it_was_told_and_succeeds(sdk: Sdk, place: setup.Shared) -> None:
    place.first.next(fails(429, retry_after="1"))
    place.first.script = answer("at last")
    seen = ask(sdk, place, retries=3)
    assert seen.fault is None, seen.fault
    assert seen.text == "at last"
    first, *_, last = place.first.requests
    assert last.at - first.at > 0.9


BREAKS: Final[dict[str, Script]] = {
    "reset": streams(EVENTS[:3], then="reset", last=False),
    "closed": streams(EVENTS[:3], then="fin", last=False),
    "no-done": streams(EVENTS[:-1]),
    "no-done-and-closed": streams(EVENTS[:-1], then="fin", last=False),
    "error-event": streams([*EVENTS[:3], vllm.ENGINE_DIED, vllm.DONE]),
    "silent": streams(EVENTS[:3], then="hang", last=False),
    "no-chunks": says(stream_head() + b"".join(map(chunk, EVENTS[:3])) + b"zz\r\n", then="fin"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_stream_that_breaks_raises_and_never_just_ends(sdk: Sdk, place: setup.Shared, how: str) -> None:
    place.first.script = BREAKS[how]
    seen = ask(sdk, place, model="support", stream=True)
    assert seen.fault is not None, seen.events
    assert seen.fault.kind == "APIError"
    assert seen.fault.message
    assert TEXT.startswith(seen.text)  # no word of another tier
    assert len(seen.events) >= 3


def test_an_error_before_the_first_event_is_another_tier_s_answer(sdk: Sdk, place: setup.Shared) -> None:
    place.first.script = streams([vllm.ENGINE_DIED, vllm.DONE])
    seen = ask(sdk, place, model="support", stream=True)
    assert seen.fault is None, seen.fault
    assert seen.text == "second"


# -- programs that leave ----------------------------------------------------------------------------------------------


def test_a_stream_that_is_left_is_given_up_within_a_second(sdk: Sdk, place: setup.Shared) -> None:
    place.first.script = forever()
    seen = ask(sdk, place, stream=True, leave_after=4)
    assert len(seen.events) == 4
    asked = place.first.requests[0]
    assert place.first.cancelled() - asked.at < 1.5


def test_a_program_that_gives_up_waiting_is_noticed(sdk: Sdk, place: setup.Shared) -> None:
    place.first.script = hang
    seen = ask(sdk, place, seconds=0.4)
    assert seen.fault is not None
    assert seen.fault.kind in ("APITimeoutError", "APIConnectionTimeoutError")
    assert place.first.cancelled() - place.first.requests[0].at < 1.4


# -- what the router itself refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "kind", "status", "param"),
    [
        ({"model": "nobody"}, "NotFoundError", 404, "model"),
        ({"n": 9}, "BadRequestError", 400, "n"),
        ({"stop": ["x"] * 17}, "BadRequestError", 400, "stop"),
        ({"messages": "hi"}, "BadRequestError", 400, None),
    ],
    ids=["model", "n", "stop", "messages"],
)
def test_a_refusal_names_the_field(
    sdk: Sdk, place: setup.Shared, more: dict[str, Any], kind: str, status: int, param: str | None
) -> None:
    seen = ask(sdk, place, more=more)
    fails_with(seen, kind, status)
    assert seen.fault is not None
    if param:
        assert seen.fault.param == param
    assert place.first.requests == []


def _keys() -> dict[str, Any]:
    return {"keys": [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("ann", "bob")]}


def test_keys_are_the_sdk_s_api_key(sdk: Sdk) -> None:
    policy = {"access": {"mode": "Keys", "keys": ["ann"]}}
    with setup.ladder(answer("for ann"), policy=policy, keys=_keys()) as (router, (tier,)):
        body = {"model": "support", "messages": [{"role": "user", "content": "hi"}]}
        base = f"{router.url}/v1"
        assert sdk.ask(Asking(base, body, key="ann")).text == "for ann"
        fails_with(sdk.ask(Asking(base, body, key="bob")), "PermissionDeniedError", 403)
        fails_with(sdk.ask(Asking(base, body, key="eve")), "AuthenticationError", 401)
        assert len(tier.requests) == 1
        assert tier.requests[0].header("authorization") is None
