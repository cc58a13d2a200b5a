"""Rows as tokens: the engine's own prompt, the answer up to its end, the teacher's tokens where they can be told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from e2e.train.models import answered
from e2e.train.task import make_rows
from modeltiers.distill.faults import BadData
from modeltiers.distill.train.base import ends_of
from modeltiers.distill.train.encode import IGNORED, Encoder, Example, labels_of


@pytest.fixture
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture
def encoder(base: Path, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tokenizer, ends_of(base, tokenizer), longest=500, soft=True)


def row(content: str = "Lima", **more: Any) -> dict[str, Any]:
    return {**answered(make_rows(1, 3))[0], "answer": {"role": "assistant", "content": content}, **more}


def encoded(encoder: Encoder, given: dict[str, Any]) -> Example:
    return next(encoder.examples([given]))


def told(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[dict[str, Any]]:
    """What a server says of the tokens of its answer."""
    others = [[tokenizer.decode([token]), -0.5] for token in (tokens[0], 300)]
    return [{"token": tokenizer.decode([token]), "logprob": -0.5, "top": others} for token in tokens]


def test_the_prompt_is_what_an_engine_makes_and_only_the_answer_is_learnt(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    given = row()
    example = encoded(encoder, given)
    prompt = tokenizer.apply_chat_template(given["messages"], add_generation_prompt=True)["input_ids"]
    assert example.input_ids[: example.answer_from] == prompt
    labels = labels_of(example.input_ids, example.answer_from)
    learnt = [token for token, label in zip(example.input_ids, labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt) == "Lima<|im_end|>"


def test_an_answer_without_an_end_gets_one(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.chat_template is not None
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert encoded(encoder, row()).input_ids[-1] == tokenizer.eos_token_id


def test_tools_and_calls_are_rendered_by_the_template(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lima"}'}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    text = tokenizer.decode(encoded(encoder, row(tools=[tool], answer=answer)).input_ids)
    assert "<tools>" in text
    assert text.endswith("</tool_call><|im_end|>")


def test_rows_that_are_too_long_are_dropped_and_counted(encoder: Encoder) -> None:
    rows = [row(), row("Lima " * 600), row()]
    assert len(list(encoder.examples(rows))) == 2
    assert encoder.counts["tooLong"] == 1
    assert encoder.longest_seen > 600


def test_the_teachers_tokens_are_told_by_their_text(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer("Lima<|im_end|>")["input_ids"]
    example = encoded(encoder, row(logprobs=told(tokenizer, tokens)))
    assert [place for place, _ in example.soft] == [example.answer_from + at for at in range(len(tokens))]
    assert example.soft[0][1] == sorted([(tokens[0], -0.5), (300, -0.5)])
    assert encoder.counts["soft"] == 1


def test_the_end_need_not_be_told(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer("Lima")["input_ids"]
    example = encoded(encoder, row(logprobs=told(tokenizer, tokens)))
    assert len(example.soft) == len(tokens)
    assert example.input_ids[-1] == tokenizer.eos_token_id


def test_the_teachers_own_cut_into_tokens_is_taken(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    letters = [tokenizer(letter)["input_ids"][0] for letter in "Lima"]
    assert letters != tokenizer("Lima")["input_ids"]
    example = encoded(encoder, row(logprobs=told(tokenizer, letters)))
    assert example.input_ids[example.answer_from : -1] == letters


def test_tokens_by_number_are_understood(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer("Lima")["input_ids"]
    said = [{"token": f"token_id:{token}", "logprob": -1.0, "top": [[f"token_id:{token}", -1.0]]} for token in tokens]
    assert [top for _, top in encoded(encoder, row(logprobs=said)).soft] == [[(token, -1.0)] for token in tokens]


def test_probabilities_of_another_answer_are_not_taken(encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
    example = encoded(encoder, row(logprobs=told(tokenizer, tokenizer("Oslo")["input_ids"])))
    assert not example.soft
    assert encoder.counts["unaligned"] == 1
    assert tokenizer.decode(example.input_ids[example.answer_from :]) == "Lima<|im_end|>"


def test_a_token_that_several_are_written_as_is_left_to_the_tail(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokens = tokenizer("Lima")["input_ids"]
    said = told(tokenizer, tokens)
    said[0]["top"] = [["\ufffd", -0.1], ["nobody says this", -0.2], ["a", -math.inf], ["b", -2.0]]
    assert len(encoded(encoder, row(logprobs=said)).soft[0][1]) == 1


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('no system message') }}", "cannot render"),
        ("{% if add_generation_prompt %}>{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}", "another way"),
    ],
)
def test_a_template_that_makes_no_prompts_is_refused(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase, template: str | None, why: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(BadData, match=why):
        encoded(encoder, row())
