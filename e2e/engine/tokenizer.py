"""A small byte-level BPE tokenizer, learnt from a page of text, as the `tokenizers` library reads it from a file.

Decides which strings are tokens and what their numbers are; knows nothing of models. The same text and the same extra
tokens always give the same file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
"""Tokens that never show up in an answer."""
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Tokens of their own that are part of the answer's text, as Qwen has them; vLLM's parsers look for them."""
MERGES = 160

# The split that byte-level BPE makes before it merges, near enough for learning with the standard library.
WORDS = re.compile(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+|\s+(?!\S)|\s+")

TEXT = """\
The customer asks where the parcel is. The parcel left the warehouse on Monday and should arrive on Thursday.
I can help you with that. Please tell me the number of the order, and the name that you used for it.
The answer is 42. The total of the invoice is 1250 euros, and it was paid on the 3rd of March.
Could you summarise this text in one sentence? The meeting was moved from Tuesday to Friday, because the room is in use.
{"answer": 42, "unit": "days", "sure": true} {"name": "weather", "arguments": {"city": "Paris", "days": 3}}
A small model answers the easy questions, and a large model answers the hard ones. What is not sure is asked again.
First, open the settings. Then choose the network, and write down the address. If it does not work, restart the router.
def add(first, second): return first + second
"""


def _alphabet() -> dict[int, str]:
    """Return the printable character that stands for each byte; the table that GPT-2 brought in."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


ALPHABET = _alphabet()


def spelled(text: str) -> str:
    """Return a text as its token is written in the vocabulary: one character a byte."""
    return "".join(ALPHABET[byte] for byte in text.encode())


@dataclass(frozen=True)
class Tokenizer:
    """Vocabulary and merges. `extra` are plain tokens that no text is ever encoded to, only a model can say them."""

    merges: tuple[tuple[str, str], ...]
    extra: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        plain = [*ALPHABET.values(), *("".join(pair) for pair in self.merges), *(spelled(text) for text in self.extra)]
        names = [*dict.fromkeys(plain), *SPECIAL, *self.control, *MARKS]
        object.__setattr__(self, "ids", {name: number for number, name in enumerate(names)})

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, text: str) -> int:
        """Return the number of the token that stands for exactly this text."""
        return self.ids[text] if text in (*SPECIAL, *self.control, *MARKS) else self.ids[spelled(text)]

    def file(self) -> dict[str, Any]:
        """Return the content of tokenizer.json."""
        added = {*SPECIAL, *self.control, *MARKS}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": number,
                    "content": name,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": name not in MARKS,
                }
                for name, number in self.ids.items()
                if name in added
            ],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {name: number for name, number in self.ids.items() if name not in added},
                "merges": [list(pair) for pair in self.merges],
            },
        }

    def dump(self) -> str:
        """Return tokenizer.json as text."""
        return json.dumps(self.file(), ensure_ascii=False, indent=1)


def learn(text: str = TEXT, merges: int = MERGES) -> tuple[tuple[str, str], ...]:
    """Return the merges of the most frequent neighbours, most frequent first; ties go to the alphabet."""
    words = Counter(tuple(spelled(word)) for word in WORDS.findall(text))
    found: list[tuple[str, str]] = []
    while len(found) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return tuple(found)


def _merged(word: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for part in word:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return tuple(out)
