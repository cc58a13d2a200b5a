"""Which texts are alike, exactly and in time that does not grow with the square of their number.

Two texts are alike in one of three ways:

- **same**: the same words in the same order, whatever case and punctuation;
- **near**: their words overlap by so much (Jaccard), in proportion so do their runs of three words, and they have the
  same numbers in the same order;
- **contained**: SHARE of one text's runs of so many words are in the other, and all of its numbers are, unless the
  runs in common are many.

Runs of words that more than ONE_IN of the texts have are the form of the task ("What is ... plus ...?") and count for
nothing: else all rows of a template would be alike. For the same reason numbers count: "7 plus 8" is not "7 plus 9".
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
        self._many = {key for key, count in systems.items() if count > form_of(systems.total())}

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
        seen: Counter[int] = Counter()
        for row in rows:
            seen.update(_runs(row.words, length, padded))
        most = form_of(len(rows))
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
        """How many runs two texts have in common."""
        return len(set(self.shared[one]).intersection(self.shared[other]))


def _runs(words: tuple[int, ...], length: int, padded: bool) -> set[int]:
    if padded and words:
        edge = (-1,) * (length - 1)
        words = edge + words + edge
    return {hash(words[at : at + length]) for at in range(len(words) - length + 1)}


def near_pairs(rows: Sequence[Text], near: float, wanted: Wanted) -> Iterator[Pair]:
    """Pairs of near-duplicates among distinct texts, with the overlap of their words; each pair once at the most.

    `wanted` is asked before two texts are compared: what it refuses is not.
    """
    if near >= 1:
        return
    runs = Runs(rows, SHORT, padded=True)
    share = max(0.2, 1 - 2.4 * (1 - near))  # one word in ten is another: 0.82 of the words, 0.6 of the runs
    for one, row in enumerate(rows):
        size = runs.sizes[one]
        for other in runs.candidates(one, _least(share, size)):
            if other > one or not wanted(one, other) or row.numbers != rows[other].numbers:
                continue  # a pair is met from both sides
            common = runs.common(one, other)
            if common < _least(share, size + runs.sizes[other] - common):
                continue
            overlap = jaccard(row.words, rows[other].words)
            if overlap >= near:
                yield one, other, overlap


def contained_pairs(rows: Sequence[Text], length: int, wanted: Wanted) -> Iterator[Pair]:
    """Pairs of distinct texts whose first is contained in the second, with the share of its runs."""
    runs = Runs(rows, length)
    for one, row in enumerate(rows):
        size = runs.sizes[one]
        least = _least(SHARE, size)
        for other in runs.candidates(one, least):
            if not wanted(one, other):
                continue
            common = runs.common(one, other)
            if common >= least and (common >= MANY or _within(row.numbers, rows[other].numbers)):
                yield one, other, common / size


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """The overlap of two bags of words."""
    first, second = Counter(one), Counter(other)
    common = (first & second).total()
    return common / (len(one) + len(other) - common)


def _least(share: float, size: int) -> int:
    return max(1, math.ceil(share * size - 1e-9))


def _within(few: tuple[int, ...], more: tuple[int, ...]) -> bool:
    return Counter(few) <= Counter(more)
