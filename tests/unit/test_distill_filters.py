"""Filters: which answers become training rows."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.api.distilljob import Filters, Verifier
from modeltiers.domain.distill.filters import Sieve, without_trace

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
SUM = [Verifier.model_validate({"name": "right", "type": "Numeric"})]


def answer(content: str | None = "15", **more: Any) -> dict[str, Any]:
    """A row with the teacher's answer."""
    row = {
        "id": "r1",
        "sample": 0,
        "messages": [{"role": "user", "content": "What is 7 plus 8?"}],
        "answer": {"role": "assistant", "content": content},
        "finishReason": "stop",
        "expected": 15,
        "group": "r1",
        "slice": None,
    }
    return {**row, **more}


def called(name: str = "add", arguments: Any = '{"a": 7}') -> dict[str, Any]:
    """A row whose answer calls a tool."""
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    return answer(answer=said, tools=[TOOL], finishReason="tool_calls")


def reason(row: dict[str, Any], verifiers: Any = SUM, **filters: Any) -> str | None:
    """Why an answer is dropped."""
    found = Sieve(Filters.model_validate(filters), verifiers).drop(row)
    return None if found is None else f"{found.reason.value}: {found.detail}"


@pytest.mark.parametrize(
    ("row", "filters", "why"),
    [
        (answer(), {}, None),
        (answer(finishReason="length"), {}, "Truncated: it ended by length"),
        (answer(finishReason="content_filter"), {}, "Truncated: it ended by content_filter"),
        (answer(""), {}, "Empty: it has no text and calls no tool"),
        (answer(None), {"verified": False}, "Empty: it has no text and calls no tool"),
        (answer("<think>15"), {}, "Empty: it has no text and calls no tool"),
        (answer("16"), {}, "WrongAnswer: right: its last number is not the one expected"),
        (answer("16"), {"verified": False}, None),
        (answer(expected=None), {}, "NothingExpected: the row has no `expected` that the verifiers can use"),
        (answer(expected=None), {"verified": False}, None),
        (answer(), {"shortest": 3}, "TooShort: 2 characters"),
        (answer("it is 15"), {"longest": 5}, "TooLong: 8 characters"),
        (answer("<think>" + "x" * 99 + "</think>15"), {"longest": 5, "reasoning": "Keep"}, None),
        (called(), {"verified": False}, None),
        (called("sub"), {"verified": False}, "InvalidJson: it calls 'sub', which the row has no tool of"),
        (called(arguments="{"), {"verified": False}, "InvalidJson: the arguments of add are not JSON"),
        (called(arguments={"a": 7}), {"verified": False}, "InvalidJson: the arguments of add are not the text of JSON"),
        (
            called(arguments='{"a": "x"}'),
            {"verified": False},
            'InvalidJson: the arguments of add are not of its schema: "x" is not of type "integer"',
        ),
    ],
)
def test_an_answer_is_kept_or_dropped_for_a_reason(row: dict[str, Any], filters: dict[str, Any], why: str) -> None:
    assert reason(row, **filters) == why


def test_what_should_be_json_and_is_not_says_so() -> None:
    checks = [Verifier.model_validate({"name": "form", "type": "Json"})]
    assert reason(answer("so: {}"), checks) == "InvalidJson: form: is not JSON"
    assert reason(answer("{}"), checks) == "WrongAnswer: form: is not the JSON expected"


def test_equal_answers_to_equal_prompts_are_kept_once() -> None:
    sieve = Sieve(Filters(), SUM)
    rows = [answer(), answer(sample=1), answer("It is 15."), answer(messages=[{"role": "user", "content": "8 + 7?"}])]
    assert [drop and drop.reason.value for drop in map(sieve.drop, rows)] == [None, "Duplicate", None, None]
    again = Sieve(Filters(duplicates=True), SUM)
    assert [again.drop(row) for row in rows] == [None] * 4


def test_answers_that_call_tools_are_equal_whatever_the_ids_of_calls() -> None:
    sieve, other = Sieve(Filters(verified=False), SUM), called()
    other["answer"]["tool_calls"][0]["id"] = "c2"
    assert sieve.drop(called()) is None
    assert (drop := sieve.drop(other)) is not None
    assert drop.reason == "Duplicate"


GERMAN = "Die Antwort ist fünfzehn, denn sieben und acht sind zusammen fünfzehn, und das ist nicht schwer."
ENGLISH = "What is the sum of seven and eight, and how would you explain that to a child of six?"


@pytest.mark.parametrize(
    ("question", "text", "why"),
    [
        (ENGLISH, GERMAN, "Language: it is in de, wanted is en"),
        (f"{ENGLISH} Answer in German.", GERMAN, None),
        (f"{ENGLISH} Answer in French.", GERMAN, "Language: it is in de, wanted is fr"),
        (ENGLISH, "15", None),
        ("7 + 8 =", GERMAN, None),
    ],
)
def test_an_answer_in_another_language_than_was_asked_for(question: str, text: str, why: str | None) -> None:
    row = answer(text, messages=[{"role": "user", "content": question}])
    assert reason(row, verified=False, language="AsAsked") == why
    assert reason(row, verified=False) is None


def tokens(*texts: str) -> list[dict[str, Any]]:
    """Log-probabilities of tokens."""
    return [{"token": text, "logprob": -0.1, "top": []} for text in texts]


def test_a_trace_goes_with_its_logprobs() -> None:
    row = answer("<think>7</think>\n15", logprobs=tokens("<think>", "7", "</think>", "\n", "15"))
    row["answer"]["reasoning_content"] = "7"
    found, lost = without_trace(row)
    assert found["answer"] == {"role": "assistant", "content": "15"}
    assert found["logprobs"] == tokens("15")
    assert not lost
    assert row["answer"]["content"] == "<think>7</think>\n15"


def test_logprobs_go_where_no_token_ends_with_the_trace() -> None:
    found, lost = without_trace(answer("<think>7</think>15", logprobs=tokens("<think>", "7", "</think>1", "5")))
    assert lost
    assert "logprobs" not in found


def test_without_a_trace_nothing_changes() -> None:
    row = answer(logprobs=tokens("1", "5"))
    assert without_trace(row) == (row, False)
