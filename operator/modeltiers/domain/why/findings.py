"""What a finding is: the way from the object that was asked about to the first cause, and the next command to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from modeltiers.domain.why.snapshot import SHORT

LONGEST: Final = 300
LINE: Final = 120
MEANWHILE: Final = "Meanwhile "
"""How conditions begin to say who serves although something is wrong."""


class Level(IntEnum):
    """How bad it is; the smaller the worse."""

    BROKEN = 0
    """It will not pass by itself."""
    WAITING = 1
    """On the way, and it may pass."""
    ASKED = 2
    """A person is waited for."""
    DOUBTFUL = 3
    """It works, and something about it is hardly meant."""


@dataclass(frozen=True, slots=True)
class Link:
    """One object on the way to the cause, and what it says."""

    kind: str
    name: str
    says: str

    @property
    def named(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with an object, why in the first place, and what to run next."""

    level: Level
    links: tuple[Link, ...]
    """From the object that was asked about to the one that is the first cause."""
    reason: str
    """The word for the cause, as conditions have it; empty where it has none."""
    says: str
    """The first cause, in a sentence that names its object."""
    next: str
    """A command."""
    remedy: str = ""
    """What lifts it."""
    notes: tuple[str, ...] = ()

    @property
    def about(self) -> Link:
        """The object that was asked about."""
        return self.links[0]

    def below(self, link: Link) -> Finding:
        """The same finding, seen from an object that rests on this one."""
        return replace(self, links=(link, *self.links))


_QUOTED: Final = re.compile(r"”[.)]? ")
_SENTENCE: Final = re.compile(r"\. (?=[A-Z])")


def first_sentence(message: str) -> tuple[str, str]:
    """A condition's message as what is wrong, and the rest of it: the way out."""
    # Quoted words have full stops of their own; the sentence ends after them.
    end = _QUOTED.search(message) or _SENTENCE.search(message)
    if end is None:
        return message.rstrip(". "), ""
    rest = message[end.end() :].partition(MEANWHILE)[0].rstrip(". ")
    return message[: end.start() + (message[end.start()] == "”")].rstrip(". "), rest[:1].lower() + rest[1:]


def meanwhile(message: str) -> tuple[str, ...]:
    """Who serves all the same, where a condition's message says so."""
    rest = message.partition(MEANWHILE)[2].rstrip(". ")
    return (f"meanwhile {rest}",) if rest else ()


def short(said: str, limit: int = LONGEST) -> str:
    """One line, cut where it is too long."""
    line = " ".join(said.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def plain(line: str) -> str:
    """A line whose characters move no cursor: messages quote what servers and engines say."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)


ABSENT: Final = "does not exist"
"""What a link to an object says that is not there."""


def headline(finding: Finding) -> str:
    """A finding in one line."""
    about = finding.about
    says = finding.says
    if len(says) > LINE and finding.reason:
        # The words that somebody else is quoted with are what is left out first.
        says = f"{finding.reason}: {says.partition(': “')[0]}"
    says = short(says, 2 * LINE)
    ours = [link for link in finding.links[1:] if link.kind in SHORT]
    if ours and ours[-1].says != ABSENT:
        says = f"because of {ours[-1].named}"
    return plain(f"{about.named}: {says}" if about.name else says)


def lines(finding: Finding, namespace: str) -> Iterator[str]:
    """A finding as a person reads it: cause, next command, and the way between."""
    about = finding.about
    where = f"{about.kind} {namespace}/{about.name}" if about.name else f"namespace {namespace}"
    cause = finding.says
    yield plain(f"{where}: {short(cause)}")
    yield plain(f"next: {finding.next}")
    if finding.remedy:
        yield plain(f"then: {finding.remedy}")
    yield ""
    width = max(len(link.named) for link in finding.links)
    for depth, link in enumerate(finding.links):
        yield plain(f"  {link.named:<{width}}  {'' if not depth else '↳ '}{short(link.says, 160)}".rstrip())
    if finding.notes:
        yield ""
    yield from (plain(f"note: {note}") for note in finding.notes)
    if finding.reason:
        yield ""
        yield f"about {finding.reason}: kubectl modeltiers docs {finding.reason}"
