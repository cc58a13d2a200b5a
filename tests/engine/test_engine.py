"""Two real vLLM tiers answer as their makers said: what other end-to-end tests build on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.report import HarnessError
from e2e.engine import environment, ladder
from e2e.engine.record import SCHEMA, WEATHER
from e2e.engine.server import Engine
from e2e.engine.tiny import write_random

pytestmark = pytest.mark.slow
Tiers = tuple[Engine, Engine]


def chat(engine: Engine, text: str, **more: Any) -> dict[str, Any]:
    status, body = engine.ask("/v1/chat/completions", _request(engine, text, more), timeout=60)
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)["choices"][0]
    return found


def stream(engine: Engine, text: str, **more: Any) -> list[dict[str, Any]]:
    status, body = engine.ask("/v1/chat/completions", _request(engine, text, {"stream": True, **more}), timeout=60)
    assert status == 200, body
    events = [line.removeprefix("data: ") for line in body.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def _request(engine: Engine, text: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": engine.name, "messages": [{"role": "user", "content": text}], "max_tokens": 48, **more}


def logprobs(choice: Mapping[str, Any]) -> list[float]:
    return [token["logprob"] for token in choice["logprobs"]["content"]]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def joined(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


def test_a_scripted_tier_says_its_sentence_and_stops(real_tiers: Tiers) -> None:
    small, large = real_tiers
    for engine, text in ((small, "The answer is 42."), (large, "Looked at with care, the answer is 42.")):
        choice = chat(engine, "six times seven?")
        assert choice["message"]["content"] == text
        assert choice["finish_reason"] == "stop"


def test_a_scripted_tier_streams_the_same_sentence(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    events = stream(small, "six times seven?", logprobs=True, stream_options={"include_usage": True})
    assert joined(events) == "The answer is 42."
    assert [event["choices"][0]["finish_reason"] for event in events if event["choices"]][-1] == "stop"
    assert events[-1]["choices"] == []
    tokens = [t for event in events for c in event["choices"] for t in (c["logprobs"] or {"content": []})["content"]]
    assert events[-1]["usage"]["completion_tokens"] == len(tokens)  # a busy engine puts several into one event


def test_its_logprobs_are_the_certainty_it_was_given(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    sure = logprobs(chat(small, "x", logprobs=True))
    assert sure == pytest.approx([math.log(0.95)] * len(sure), abs=0.01)
    assert mean(logprobs(chat(small, "a hard one", logprobs=True))) == pytest.approx(math.log(0.08), abs=0.01)


def test_where_it_is_unsure_other_words_are_nearly_as_likely(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    for token in chat(small, "a hard one", logprobs=True, top_logprobs=4)["logprobs"]["content"]:
        first, *rivals = [one["logprob"] for one in token["top_logprobs"]]
        assert rivals == pytest.approx([first - 0.05] * 3, abs=0.01)


def test_its_certainty_may_change_on_the_way(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    found = logprobs(chat(small, "fade", logprobs=True))
    half = len(found) // 2
    assert found[:half] == pytest.approx([math.log(0.95)] * half, abs=0.01)
    assert found[half + 1 :] == pytest.approx([math.log(0.05)] * (len(found) - half - 1), abs=0.01)


def test_structured_output_keeps_the_sentence_that_the_schema_allows(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    choice = chat(small, "in JSON", response_format=SCHEMA, logprobs=True)
    assert json.loads(choice["message"]["content"]) == {"answer": 42}
    assert choice["finish_reason"] == "stop"
    # what the schema forbids is gone before probabilities are taken: the tier looks surer than it is
    assert mean(logprobs(choice)) > mean(logprobs(chat(small, "in JSON", logprobs=True))) + 0.02


def test_tools_are_called_and_their_results_answered(real_tiers: Tiers) -> None:
    for engine, arguments in zip(real_tiers, ({"town": 7}, {"city": "Paris"}), strict=True):
        choice = chat(engine, "weather?", tools=[WEATHER])
        call = choice["message"]["tool_calls"][0]["function"]
        assert (call["name"], json.loads(call["arguments"])) == ("get_weather", arguments)
        assert choice["finish_reason"] == "tool_calls"
        events = stream(engine, "weather?", tools=[WEATHER])
        deltas = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls") or ()]
        said = "".join(delta["function"].get("arguments") or "" for delta in deltas)
        assert json.loads(said) == arguments
    told = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": call}]}
    messages = [{"role": "user", "content": "weather?"}, called, told]
    assert chat(real_tiers[1], "", messages=messages, tools=[WEATHER])["message"]["content"] == ladder.LARGE[-1].text


def test_plain_completions_start_the_last_answer(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    status, body = small.ask("/v1/completions", {"model": "small", "prompt": "Once upon a time", "logprobs": 1})
    assert status == 200
    assert json.loads(body)["choices"][0]["text"] == "The answer is 42."


def test_a_frozen_engine_is_silent_until_it_thaws(real_tiers: Tiers) -> None:
    small, _ = real_tiers
    small.freeze()
    try:
        assert small.ask("/health", timeout=1) == (0, "")
    finally:
        small.thaw()
    assert small.ask("/health", timeout=10)[0] == 200


def test_a_killed_engine_leaves_no_process_and_comes_back(real_tiers: Tiers) -> None:
    _, large = real_tiers
    pids = large.pids()
    assert len(pids) > 1  # the API server and its core
    large.kill()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _zombie(pid)] == []
    assert large.ask("/health", timeout=1) == (0, "")
    large.start().wait_ready()
    assert chat(large, "x")["message"]["content"] == ladder.LARGE[-1].text


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_two_engines_fit_in_five_gigabytes(real_tiers: Tiers) -> None:
    assert sum(engine.memory_mib() for engine in real_tiers) < 5000


def test_random_tiers_answer_and_one_is_surer(random_tiers: Tiers) -> None:
    unsure, sure = (
        mean(logprobs(chat(engine, "Hello", logprobs=True, top_logprobs=3, seed=1))) for engine in random_tiers
    )
    assert unsure < -4.5
    assert -1.5 < sure < -0.05
    for engine in random_tiers:
        choice = chat(engine, "Hello", max_tokens=9)
        assert choice["finish_reason"] == "length"
        events = stream(engine, "Hello", logprobs=True, max_tokens=9)
        assert sum(len((event["choices"][0]["logprobs"] or {"content": []})["content"]) for event in events) == 9


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model")
    with pytest.raises(HarnessError, match=r"(?s)engine broken ended with 2 while starting.*--no-such-flag"):
        Engine(folder, "broken", args=("--no-such-flag",)).start().wait_ready()


def test_the_environment_tells_what_it_holds() -> None:
    home = environment.install()
    assert environment.facts()["vllm"] == "0.32.0"
    assert os.access(environment.program(home), os.X_OK)
