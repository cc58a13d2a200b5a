"""How hard a prompt looks, as a number, and what kind of task it is: counts of cheap signs and one table of weights.

A heuristic that nobody fitted to outcomes: the score orders prompts, it is no probability. It knows words of English
and some of German, French, Spanish and Chinese, and refuses to understand any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from math import exp, log1p
from operator import itemgetter, mul
from typing import Final, NamedTuple

from msgspec import Struct

from modeltiers.domain.routing import lexicon
from modeltiers.domain.routing.table import Task


class Feature(NamedTuple):
    """One term of the score: weight x ln(1 + count / scale)."""

    name: str
    scale: float
    weight: float
    why: str


FEATURES: Final = (
    Feature("chars", 200, 0.45, "characters of the last user message: length alone is a strong baseline"),
    Feature("prompt_tokens", 2000, 0.15, "tokens of the whole prompt: more to keep in view"),
    Feature("messages", 4, 0.15, "messages: long conversations carry more state"),
    Feature("code_words", 1, 0.45, "different words of programming"),
    Feature("code_signs", 20, 0.25, "brackets, underscores and the like: code itself"),
    Feature("math_words", 1, 0.55, "different words of mathematics"),
    Feature("math_signs", 8, 0.25, "operators"),
    Feature("reasoning", 1, 1.0, "different words that ask for a chain of thought: prove, why, compare, derive"),
    Feature("constraints", 1, 0.5, "different words that bind the answer: must, exactly, only, without"),
    Feature("steps", 1, 0.35, "different words that put several things in order: first, then, step, finally"),
    Feature("questions", 1, 0.15, "question marks"),
    Feature("digits", 10, 0.15, "digits: numbers to be kept right"),
    Feature("foreign", 500, 0.15, "bytes beyond ASCII in a thousand characters: small models know English best"),
    Feature("tools", 2, 0.2, "tools that are offered: choosing among them and filling their arguments"),
    Feature("json", 1, 0.15, "JSON is asked for"),
    Feature("translation", 1, 0.1, "different words of translation"),
    Feature("summary", 1, 0.15, "different words of summaries"),
    Feature("extraction", 1, 0.1, "different words of extraction and classification"),
    Feature("writing", 1, 0.2, "different words of creative and business writing"),
)
"""Every weight is above 0: more of any sign never lowers the score."""
SCORER: Final = "heuristic-1"
"""Names this table and its weights in records; another table has another name."""
BIAS: Final = -1.9
"""The sum before anything is seen: a greeting scores about 0.13."""
DIGITS: Final = 6
"""Decimals of the score that are kept."""

_SCALES: Final = tuple(1.0 / feature.scale for feature in FEATURES)
_WEIGHTS: Final = tuple(feature.weight for feature in FEATURES)
_PLACE: Final = {feature.name: index for index, feature in enumerate(FEATURES)}
_WORDS: Final = {word.encode(): _PLACE[name] for name, listed in lexicon.WORDS.items() for word in listed.split()}
_UNSPACED: Final = tuple((mark, _PLACE[name]) for name, listed in lexicon.UNSPACED.items() for mark in listed.split())
KNOWN: Final = frozenset(_WORDS)
_CODE_SIGNS: Final = b"{}[]<>=_`|&;#\\@~"
_MATH_SIGNS: Final = b"+*^=%$<>/"
# What kind of sign a byte is, so that one pass over a text serves all counts: 1 of code, 2 of mathematics, 3 of both,
# 4 a digit, 5 a question mark.
_KINDS: Final = bytes(
    (c in _CODE_SIGNS) + 2 * (c in _MATH_SIGNS) + 4 * (48 <= c < 58) + 5 * (c == 63) for c in range(256)
)
_CODE, _MATH, _REASONING = _PLACE["code_words"], _PLACE["math_words"], _PLACE["reasoning"]
_CODE_SIGN, _MATH_SIGN, _QUESTIONS = _PLACE["code_signs"], _PLACE["math_signs"], _PLACE["questions"]
_NUMBER, _FOREIGN = _PLACE["digits"], _PLACE["foreign"]
_TAIL: Final = (_PLACE["tools"], _PLACE["json"])
_TASKS: Final[tuple[tuple[Task, int, int], ...]] = (
    ("Translation", _PLACE["translation"], 3),
    ("Summary", _PLACE["summary"], 3),
    ("Extraction", _PLACE["extraction"], 2),
    ("Code", _CODE, 2),
    ("Math", _MATH, 2),
    ("Writing", _PLACE["writing"], 2),
    ("Reasoning", _REASONING, 2),
)
"""Task, the count that speaks for it, and with how many points each; of equals the first wins."""
_PLACES: Final = itemgetter(*(place for _, place, _ in _TASKS))
_POINTS: Final = tuple(points for _, _, points in _TASKS)
_CODE_TASK, _MATH_TASK = (next(i for i, one in enumerate(_TASKS) if one[1] == place) for place in (_CODE, _MATH))


class Shape(Struct, frozen=True, gc=False):
    """What the score uses of a request besides the text."""

    chars: int
    prompt_tokens: int
    messages: int
    tools: int
    json: bool


def count(folded: str, raw: bytes, words: Iterable[bytes], shape: Shape) -> tuple[int, ...]:
    """Return the counts in the order of FEATURES.

    `folded` is the text that is looked at, `raw` the same in UTF-8, `words` its words.
    """
    found = [0] * len(FEATURES)
    found[0], found[1], found[2] = shape.chars, shape.prompt_tokens, shape.messages
    found[_TAIL[0]], found[_TAIL[1]] = shape.tools, int(shape.json)
    for word in KNOWN.intersection(words):
        found[_WORDS[word]] += 1
    kinds = raw.translate(_KINDS)
    both = kinds.count(3)
    found[_CODE_SIGN] = kinds.count(1) + both
    found[_MATH_SIGN] = kinds.count(2) + both
    found[_NUMBER] = kinds.count(4)
    found[_QUESTIONS] = kinds.count(5)
    if len(raw) > len(folded):
        _count_foreign(found, folded, raw)
    return tuple(found)


def _count_foreign(found: list[int], folded: str, raw: bytes) -> None:
    """Count what only a text beyond ASCII has."""
    found[_FOREIGN] = (len(raw) - len(folded)) * 1000 // len(folded)
    found[_MATH_SIGN] += raw.count(b"\xe2\x88") + raw.count(b"\xe2\x89")  # U+2200 to U+227F: mathematical operators
    for mark, place in _UNSPACED:
        if mark in folded:
            found[place] += 1


def difficulty(counts: Sequence[int]) -> float:
    """Return how hard a prompt looks, between 0 and 1; strictly greater when any count is greater."""
    total = BIAS
    for value, scale, weight in compress(zip(counts, _SCALES, _WEIGHTS, strict=False), counts):
        total += weight * log1p(value * scale)
    return 1.0 / (1.0 + exp(-total))


def parts(counts: Iterable[int]) -> list[float]:
    """Return what each count adds to the sum, in the order of FEATURES."""
    return [weight * log1p(value * scale) for value, scale, weight in zip(counts, _SCALES, _WEIGHTS, strict=False)]


def score(counts: Sequence[int]) -> float:
    """Return the difficulty to DIGITS decimals, as it is compared and recorded."""
    return round(difficulty(counts), DIGITS)


def task(counts: Sequence[int]) -> Task:
    """Return the kind of task with the most points, Chat when none has two."""
    points = [*map(mul, _PLACES(counts), _POINTS)]
    points[_CODE_TASK] += counts[_CODE_SIGN] // 12
    points[_MATH_TASK] += counts[_MATH_SIGN] // 4
    most = max(points)
    return _TASKS[points.index(most)][0] if most > 1 else "Chat"
