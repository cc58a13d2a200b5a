"""What a fuzz target is, and how inputs are spoiled, cut and made small again. Knows nothing of the router."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

INTERESTING: Final = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc0\xaf",
    b":",
)


class Fault(AssertionError):
    """Something that must hold did not."""


class Target(Protocol):
    """Something that is fuzzed."""

    name: str
    seen: Counter[str]
    """What became of the inputs: a target that refuses all of them tests nothing."""

    def make(self, dice: Random) -> bytes:
        """Return an input."""

    def check(self, data: bytes, dice: Random) -> None:
        """Throw it in; raises Fault, or whatever the code raises, when something does not hold."""


def demand(holds: object, why: str) -> None:
    """Raise Fault unless it holds."""
    if not holds:
        raise Fault(why)


def spoil(data: bytes, dice: Random, words: Sequence[bytes]) -> bytes:
    """Return the data with a few changes, or as it is: one in four inputs stays good."""
    for _ in range(dice.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        data = dice.choice(_CHANGES)(data, dice, words)
    return data


def _replace(data: bytes, dice: Random, _: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes((dice.randrange(256),)) + data[at + 1 :]


def _insert(data: bytes, dice: Random, words: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(words if dice.random() < 0.6 else INTERESTING) + data[at:]


def _delete(data: bytes, dice: Random, _: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at + dice.choice((1, 1, 2, 4, 16)) :]


def _repeat(data: bytes, dice: Random, _: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at : at + dice.choice((1, 2, 8, 40))] * dice.choice((2, 2, 3, 9)) + data[at:]


def _move(data: bytes, dice: Random, _: Sequence[bytes]) -> bytes:
    at, to = dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)
    piece = data[at : at + dice.choice((1, 4, 20))]
    rest = data[:at] + data[at + len(piece) :]
    return rest[:to] + piece + rest[to:]


def _cut(data: bytes, dice: Random, _: Sequence[bytes]) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _swap_word(data: bytes, dice: Random, words: Sequence[bytes]) -> bytes:
    """Put one word in the place of another: what a byte alone seldom makes."""
    here = [word for word in words if word in data]
    return data.replace(dice.choice(here), dice.choice(words), 1) if here else _insert(data, dice, words)


_CHANGES: Final[tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...]] = (
    _replace,
    _insert,
    _insert,
    _delete,
    _repeat,
    _move,
    _cut,
    _swap_word,
    _swap_word,
)


def cuts(data: bytes, dice: Random) -> list[bytes]:
    """Cut the data: at every byte, or at a few places, line ends before others."""
    if dice.random() < 0.3:
        return [data[at : at + 1] for at in range(len(data))]
    places = {dice.randrange(len(data) + 1) for _ in range(dice.randrange(1, 6))}
    if (line := data.find(b"\n", dice.randrange(len(data) + 1))) >= 0:
        places.add(line + dice.randrange(2))
    edges = sorted(places | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges) if end > begin]


def shrink(data: bytes, fails: Callable[[bytes], bool], tries: int = 2_000) -> bytes:
    """Return a smaller input that still fails, by leaving out ever smaller pieces."""
    size = max(1, len(data) // 2)
    while tries > 0:
        at, smaller = 0, False
        while at < len(data) and tries > 0:
            shorter, tries = data[:at] + data[at + size :], tries - 1
            if fails(shorter):
                data, smaller = shorter, True
            else:
                at += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return data
