"""Which texts are alike, exactly and in time that does not grow with the square of their number.

Two texts are alike in one of three ways:

- **same**: the same words in the same order, whatever case and punctuation;
- **near**: their words overlap by so much (Jaccard), in proportion most of one's runs of three words are in the other,
  and they have the same numbers in the same order;
- **contained**: SHARE of one text's runs of so many words are in the other, and all of its numbers are, unless the
  runs in common are many.

Runs of words that more than one in ONE_IN of the texts have are the form of the task ("What is ... plus ...?"). That
two texts both have them counts for nothing: else all rows of a template would be alike. For the same reason numbers
count: "7 plus 8" is not "7 plus 9".
Runs that one text alone has are counted but not indexed, and pairs are looked for by the rarest runs (prefix filtering,
as in set similarity joins), so that most texts are compared with none.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from modeltiers.domain.distill.rows import Row, system_of, texts

SHARE: Final = 0.7
"""Of a text's runs, how many another must have to contain it: the share that PaLM's report calls contaminated."""
FORM: Final = 10
ONE_IN: Final = 100
"""A run in more than FORM texts and more than one in ONE_IN is the form of the task; in few texts, one in half."""
MANY: Final = 32
"""So many runs in common outweigh numbers that differ: a long text with another date is the same text."""
SHORT: Final = 3
BREAK: Final = -2
"""Stands between texts that no run goes across."""

_SPACELESS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SIGNS: Final = r"+*/=<>^%×÷·−±√-"
# A character of a script without spaces, a word, a number, or a sign of arithmetic beside a number.
_WORD: Final = re.compile(
    rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W\d_])+(?:['’](?:(?![{_SPACELESS}])[^\W\d_])+)*|\d+(?:[.,]\d+)*"
    rf"|[{_SIGNS}](?=\s?[\d(])|(?<=[\d)])\s?[{_SIGNS}]|\((?=[-\d])|(?<=\d)\)"
)
Pair = tuple[int, int, float]
Wanted = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Text:
    """The words of a text, by their number in a vocabulary, and those among them that hold digits."""

    words: tuple[int, ...]
    numbers: tuple[int, ...]

    def and_then(self, other: Text) -> Text:
        """Both texts, with no run that goes across."""
        return Text((*self.words, BREAK, *other.words), (*self.numbers, *other.numbers))


class Vocabulary:
    """Gives each word its number."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._numbers: set[int] = set()

    def text(self, plain: str) -> Text:
        """The words of a text."""
        found = []
        for word in words_of(plain):
            number = self._known.setdefault(word, len(self._known))
            if word[0].isdigit():
                self._numbers.add(number)
            found.append(number)
        return Text(tuple(found), tuple(word for word in found if word in self._numbers))


def words_of(text: str) -> list[str]:
    """The words of a text, its case and the forms of its characters made alike."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return [word.strip() for word in _WORD.findall(text.casefold())]


class Plain:
    """What is compared of each row: its messages, and its system message unless that is one of many rows."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Look through all rows once."""
        systems = Counter(hash(system_of(row.messages)) for row in rows)
        self.rows = systems.total()
        """How many there are."""
        self._many = {key for key, count in systems.items() if count > form_of(self.rows)}

    def text(self, row: Row) -> str:
        """The text of one of the rows."""
        system = system_of(row.messages)
        return "\n".join([*([] if hash(system) in self._many else [system]), *texts(row.messages)])


def form_of(count: int) -> int:
    """How many of so many texts may share a run before it is the form of the task."""
    return min(max(FORM, count // ONE_IN), max(3, count // 2))


class Runs:
    """Runs of `length` words of many distinct texts, without the form of the task."""

    def __init__(self, rows: Sequence[Text], length: int, *, padded: bool = False) -> None:
        """`padded`: a text's first and last words are in as many runs as those between them."""
        self._rows, self._length, self._padded = rows, length, padded
        seen: Counter[int] = Counter()
        for row in rows:
            seen.update(_runs(row.words, length, padded))
        most = form_of(len(rows))
        self._form = {run for run, count in seen.items() if count > most}
        self.sizes: list[int] = []
        """How many runs of each text count."""
        self.shared: list[tuple[int, ...]] = []
        """Those that others have too, the rarest first."""
        for row in rows:
            counted = [run for run in _runs(row.words, length, padded) if seen[run] <= most]
            self.sizes.append(len(counted))
            self.shared.append(
                tuple(sorted((run for run in counted if seen[run] > 1), key=lambda run: (seen[run], run)))
            )
        self._where: dict[int, list[int]] = {}
        for index, shared in enumerate(self.shared):
            for run in shared:
                self._where.setdefault(run, []).append(index)

    def candidates(self, index: int, least: int) -> set[int]:
        """The texts that may have `least` of this one's runs: they have one of its rarest."""
        alone = self.sizes[index] - len(self.shared[index])
        rarest = self.sizes[index] - least + 1 - alone
        found: set[int] = set()
        for run in self.shared[index][: max(0, rarest)]:
            found.update(self._where[run])
        found.discard(index)
        return found

    def common(self, one: int, other: int) -> int:
        """How many runs two texts have in common, the form of the task aside."""
        return len(set(self.shared[one]).intersection(self.shared[other]))

    def missing(self, one: int, other: int) -> tuple[int, int]:
        """How many runs of the first the second has not, and how many of the form of the task."""
        gone = self._all(one) - self._all(other)
        form = len(gone & self._form)
        return len(gone) - form, form

    def _all(self, one: int) -> set[int]:
        return _runs(self._rows[one].words, self._length, self._padded)


def _runs(words: tuple[int, ...], length: int, padded: bool) -> set[int]:
    if padded and words:
        edge = (-1,) * (length - 1)
        words = edge + words + edge
    found = (words[at : at + length] for at in range(len(words) - length + 1))
    return {hash(run) for run in found if BREAK not in run} if BREAK in words else set(map(hash, found))


def near_pairs(rows: Sequence[Text], near: float, wanted: Wanted) -> Iterator[Pair]:
    """Pairs of near-duplicates among distinct texts, with the overlap of their words; each pair once at the most.

    `wanted` is asked before two texts are compared: what it refuses is not.
    """
    if near >= 1:
        return
    runs = Runs(rows, SHORT, padded=True)
    share = max(0.35, 1 - 1.6 * (1 - near))  # with one word in ten another, 0.82 of the words and 0.75 of the runs
    for one, row in enumerate(rows):
        least = _least(share, runs.sizes[one])
        for other in runs.candidates(one, least):
            if not wanted(one, other) or row.numbers != rows[other].numbers:
                continue
            common = runs.common(one, other)
            overlap = jaccard(row.words, rows[other].words) if common >= least else 0
            if overlap < near:
                continue
            (gone, form), (new, theirs) = runs.missing(one, other), runs.missing(other, one)
            # A form of its own on both sides is another value in a place of the template; on one, another wording.
            if (gone, one) < (new, other) and common >= _least(share, common + gone + min(form, theirs)):
                yield one, other, overlap


def contained_pairs(rows: Sequence[Text], length: int, wanted: Wanted) -> Iterator[Pair]:
    """Pairs of distinct texts whose first is contained in the second, with the share of its runs."""
    runs = Runs(rows, length)
    for one, row in enumerate(rows):
        least = _least(SHARE, runs.sizes[one])
        for other in runs.candidates(one, least):
            if not wanted(one, other):
                continue
            common = runs.common(one, other)
            if common < least or (common < MANY and not _within(row.numbers, rows[other].numbers)):
                continue
            counted = common + sum(runs.missing(one, other))
            if common >= _least(SHARE, counted):
                yield one, other, common / counted


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """The overlap of two bags of words."""
    first, second = Counter(one), Counter(other)
    common = (first & second).total()
    return common / (len(one) + len(other) - common)


def _least(share: float, size: int) -> int:
    return max(1, math.ceil(share * size - 1e-9))


def _within(few: tuple[int, ...], more: tuple[int, ...]) -> bool:
    return Counter(few) <= Counter(more)
