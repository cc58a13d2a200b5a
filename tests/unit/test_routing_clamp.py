"""What a request asks for beyond its policy's clamp: lowered where that is honest, else refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing.ask import BadRequest, Endpoint, read_request
from modeltiers.domain.routing.clamp import clamp
from modeltiers.domain.routing.table import Clamp

LIMITS = Clamp(n=4, max_tokens=100, logprobs=5, stop=4)
REFUSING = Clamp(n=4, max_tokens=100, logprobs=5, stop=4, action="Refuse")


def clamped(endpoint: Endpoint = "chat", limits: Clamp = LIMITS, **fields: Any) -> dict[str, bytes]:
    """What must change of a request that has its end set unless it says otherwise."""
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]} if endpoint == "chat" else {}
    body = {"model": "m", "max_tokens": 5, **prompt, **fields}
    return clamp(limits, read_request(endpoint, json.dumps(body).encode()))


def refusal(*args: Any, **fields: Any) -> BadRequest:
    """Why a request is refused."""
    with pytest.raises(BadRequest) as found:
        clamped(*args, **fields)
    return found.value


def test_a_request_within_its_limits_is_left_alone() -> None:
    assert clamped(n=4, max_tokens=100, top_logprobs=5, logprobs=True, stop=["a"] * 4, min_tokens=100) == {}
    assert clamped("completions", prompt=["x"] * 2, n=2, logprobs=5, prompt_logprobs=5, best_of=2) == {}


@pytest.mark.parametrize(
    ("endpoint", "field", "value", "most"),
    [
        ("chat", "max_tokens", 101, b"100"),
        ("chat", "max_completion_tokens", 10**9, b"100"),
        ("chat", "min_tokens", 101, b"100"),
        ("chat", "top_logprobs", 6, b"5"),
        ("chat", "prompt_logprobs", 6, b"5"),
        ("completions", "logprobs", 20, b"5"),
        ("completions", "prompt_logprobs", 10**6, b"5"),
        ("completions", "min_tokens", 10**9, b"100"),
    ],
)
def test_a_number_beyond_its_limit_is_lowered_or_refused_as_the_policy_says(
    endpoint: Endpoint, field: str, value: int, most: bytes
) -> None:
    fields: dict[str, Any] = {field: value} | ({"prompt": "x"} if endpoint == "completions" else {})
    assert clamped(endpoint, **fields) == {field: most}
    error = refusal(endpoint, REFUSING, **fields)
    assert (error.param, most.decode() in error.message) == (field, True)


def test_whether_logprobs_are_wanted_is_no_number() -> None:
    assert clamped(limits=Clamp(logprobs=0), logprobs=True) == {}
    assert clamped(limits=Clamp(logprobs=0), logprobs=True, top_logprobs=1) == {"top_logprobs": b"0"}


@pytest.mark.parametrize("field", ["n", "best_of"])
@pytest.mark.parametrize("limits", [LIMITS, REFUSING])
def test_answers_are_never_taken_away_silently(field: str, limits: Clamp) -> None:
    assert refusal("completions", limits, prompt="x", **{field: 5}).param == field


def test_stop_texts_are_counted_and_never_dropped() -> None:
    assert refusal(stop=["x"] * 5).param == "stop"
    assert clamped(stop="a text alone") == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ["x"] * 5}, "5 prompts"),
        ({"prompt": [[1]] * 1000}, "1000 prompts"),
        ({"prompt": ["x"] * 2, "n": 3}, "2 prompts with 3 answers each"),
        ({"prompt": ["x"] * 3, "best_of": 2}, "3 prompts with 2 answers each"),
    ],
)
def test_each_of_several_prompts_counts_as_often_as_it_is_answered(fields: dict[str, Any], said: str) -> None:
    error = refusal("completions", **fields)
    assert error.param == "prompt"
    assert said in error.message


def test_a_list_of_tokens_is_one_prompt_and_embeddings_are_no_answers() -> None:
    assert clamped("completions", prompt=[1] * 1000, n=4) == {}
    assert clamped("embeddings", input=["x"] * 1000) == {}


@pytest.mark.parametrize(
    "field", ["prompt_embeds", "logits_processors", "vllm_xargs", "kv_transfer_params", "ec_transfer_params"]
)
@pytest.mark.parametrize("value", ["x", ["x"], {"a": 1}, {}, "", 0], ids=str)
def test_what_reaches_into_an_engine_is_refused_and_null_is_no_wish(field: str, value: Any) -> None:
    error = refusal(**{field: value})
    assert error.param == field
    assert "leave it out" in error.message
    nothing: dict[str, Any] = {field: None}
    assert clamped(**nothing) == {}


@pytest.mark.parametrize("fields", [{}, {"max_completion_tokens": None}])
def test_an_open_end_is_closed_unless_no_text_is_generated(fields: dict[str, Any]) -> None:
    assert clamped(max_tokens=None, **fields) == {"max_tokens": b"100"}
    assert clamped(limits=Clamp(), max_tokens=None, **fields) == {}
    assert clamped("embeddings", max_tokens=None, input="x") == {}


NUMBERS = st.none() | st.integers(0, 300)


@given(
    st.fixed_dictionaries(dict.fromkeys(("max_tokens", "max_completion_tokens", "min_tokens"), NUMBERS)),
    st.fixed_dictionaries(dict.fromkeys(("top_logprobs", "prompt_logprobs"), NUMBERS)),
)
def test_after_the_changes_nothing_is_left_to_change(ends: dict[str, Any], logprobs: dict[str, Any]) -> None:
    fields = {**ends, **logprobs}
    changes = {name: json.loads(value) for name, value in clamped(**fields).items()}
    after = fields | changes
    assert clamped(**after) == {}
    assert all((after[name] or 0) <= 100 for name in ends)
    assert all((after[name] or 0) <= 5 for name in logprobs)
    assert {name for name in fields if fields[name] != after[name]} == changes.keys() & fields.keys()
