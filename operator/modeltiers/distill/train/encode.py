"""Rows as tokens: what the student sees, what it must say, and what the teacher would have said with which probability.

The prompt is made by the student's own chat template and tokenised alone, as an engine does it; the answer's tokens
follow. Where the row holds the teacher's own tokens and both have one tokenizer, these are taken as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from modeltiers.distill.faults import BadData
from modeltiers.distill.train.base import FIELD

IGNORED: Final = -100
"""Label of a token that is not learnt."""
TOKEN_ID: Final = "token_id:"  # noqa: S105 - how an engine writes a token by its number
REPLACEMENT: Final = "\ufffd"
NO_TEMPLATE: Final = "has no chat template, so neither trainer nor engine could make prompts of messages"


@dataclass(frozen=True, slots=True)
class Example:
    """One row as tokens. `soft` has an entry for each answer token that the teacher's probabilities are known for:
    its place in `input_ids`, and the teacher's likeliest tokens with their logprobs.
    """

    input_ids: list[int]
    answer_from: int
    soft: list[tuple[int, list[tuple[int, float]]]]


def labels_of(input_ids: Sequence[int], answer_from: int) -> list[int]:
    """What is learnt of an example: the answer."""
    return [IGNORED] * answer_from + list(input_ids[answer_from:])


@dataclass
class Encoder:
    """Makes examples of rows. `counts` says what became of them: `used`, `tooLong`, `soft`, `unaligned`."""

    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int]
    longest: int
    soft: bool
    counts: Counter[str] = field(default_factory=Counter)
    longest_seen: int = 0

    def examples(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
        """The rows that fit, in order."""
        for number, row in enumerate(rows, 1):
            example = self._one(row, number)
            self.longest_seen = max(self.longest_seen, len(example.input_ids))
            if len(example.input_ids) > self.longest:
                self.counts["tooLong"] += 1
                continue
            self.counts["used"] += 1
            self.counts["soft"] += bool(example.soft)
            self.counts["tokens"] += len(example.input_ids) - example.answer_from
            yield example

    def _one(self, row: Mapping[str, Any], number: int) -> Example:
        prompt, answer = self._texts(row, number)
        first = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tokens = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        soft: list[tuple[int, list[tuple[int, float]]]] = []
        if self.soft and (said := row.get("logprobs")):
            known = self._align(said, tokens)
            if known is None:
                self.counts["unaligned"] += 1
            else:
                said_ids, tops = known
                rest = tokens[len(said_ids) :] if tokens[: len(said_ids)] == said_ids else []
                tokens = [*said_ids, *rest]
                soft = [(len(first) + at, top) for at, top in enumerate(tops) if top]
        return Example([*first, *self._ended(tokens)], len(first), soft)

    def _texts(self, row: Mapping[str, Any], number: int) -> tuple[str, str]:
        """The prompt as an engine would make it, and what must follow."""
        if not self.tokenizer.chat_template:
            raise BadData(f"{self.tokenizer.name_or_path} {NO_TEMPLATE}: name a base that has one", field=FIELD)
        try:
            messages, answer = row["messages"], row["answer"]
            more = {"tools": row["tools"]} if row.get("tools") else {}
            prompt = self._render(messages, **more, add_generation_prompt=True)
            whole = self._render([*messages, answer], **more, add_generation_prompt=False)
        except (TemplateError, KeyError, TypeError, ValueError) as fault:
            name = row.get("id", f"number {number}")
            raise BadData(f"row {name}: the base's chat template cannot render it: {fault}") from fault
        if not whole.startswith(prompt):
            name = row.get("id", f"number {number}")
            raise BadData(
                f"row {name}: the base's chat template renders the conversation with its answer in another way than the"
                " prompt that the answer follows: the student would learn prompts that no engine makes",
                field=FIELD,
            )
        return prompt, whole[len(prompt) :]

    def _render(self, messages: Sequence[Any], **more: Any) -> str:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, **more)
        assert isinstance(text, str)
        return text

    def _ended(self, tokens: list[int]) -> list[int]:
        """The answer up to its end: a template may write a line break after it, which no engine lets it come to."""
        last = max((at for at, token in enumerate(tokens) if token in self.ends), default=None)
        return tokens[: last + 1] if last is not None else [*tokens, self._end]

    @cached_property
    def _end(self) -> int:
        own = self.tokenizer.eos_token_id
        return own if isinstance(own, int) else min(self.ends)

    def _align(
        self, said: Sequence[Mapping[str, Any]], tokens: Sequence[int]
    ) -> tuple[list[int], list[list[tuple[int, float]]]] | None:
        """The teacher's tokens by number, with the likeliest ones at each place; None where a token cannot be told."""
        ids: list[int] = []
        for at, entry in enumerate(said):
            expected = tokens[at] if at < len(tokens) else None
            number = self._number(entry["token"], expected)
            if number is None:
                return None
            ids.append(number)
        kept = self.tokenizer.decode([token for token in ids if token not in self.ends])
        meant = self.tokenizer.decode([token for token in self._ended(list(tokens)) if token not in self.ends])
        if kept != meant:  # a trace that was stripped, or another's words: the probabilities are not of this answer
            return None
        return ids, [self._top(entry) for entry in said]

    def _top(self, entry: Mapping[str, Any]) -> list[tuple[int, float]]:
        """The likeliest tokens that can be told; what cannot goes into the tail."""
        found: dict[int, float] = {}
        for text, logprob in entry["top"]:
            number = self._number(text, None)
            if number is not None and math.isfinite(logprob):
                found.setdefault(number, float(logprob))
        return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))

    def _number(self, text: str, expected: int | None) -> int | None:
        """The number of a token that a server wrote as text; None where several are written so."""
        if text.startswith(TOKEN_ID) and text.removeprefix(TOKEN_ID).isdigit():
            number = int(text.removeprefix(TOKEN_ID))
            return number if number < len(self.tokenizer) else None
        candidates = self._by_text.get(text, ())
        if expected is not None and expected in candidates:
            return expected
        return candidates[0] if len(candidates) == 1 else None

    @cached_property
    def _by_text(self) -> dict[str, tuple[int, ...]]:
        """Tokens by how a server writes them: as they are decoded alone. Bytes of half a character are all alike."""
        found: dict[str, list[int]] = {}
        for number in range(len(self.tokenizer)):
            text = self.tokenizer.decode([number])
            if text and text != REPLACEMENT:
                found.setdefault(text, []).append(number)
        return {text: tuple(numbers) for text, numbers in found.items()}
