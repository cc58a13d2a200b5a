"""A policy compiled: its ladder, its rules' words in one index and their patterns in one automaton, ready to be asked.

What rules look for in text, headers and metadata is found here, once for all rules; what they ask of numbers is a test
on an `Ask`. It decides nothing: which rule counts is `choose`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import and_, attrgetter
from typing import Any, Final

import msgspec
import re2
from msgspec import Raw

from modeltiers.domain.routing.ask import Ask, Request
from modeltiers.domain.routing.features import KNOWN
from modeltiers.domain.routing.patterns import options
from modeltiers.domain.routing.table import Fault, InvalidTable, Policy, Rule, Score, Table, Tier, When
from modeltiers.domain.routing.text import fold, stands_alone, unspaced, words

PROGRAM: Final = 4_000
"""The largest RE2 program that a pattern may become: the worst text costs time by its product with the program."""
_TOGETHER: Final = 20_000
"""Patterns whose programs add up to more are searched for one by one."""

Test = Callable[[Ask], bool]


class CompiledPolicy:
    """A policy with its tiers, words and patterns; immutable, shared by all requests."""

    __slots__ = (
        "_place",
        "finder",
        "fits_all",
        "has",
        "ladder",
        "names",
        "needs_score",
        "open_rules",
        "places",
        "policy",
        "rules",
        "score",
        "shared",
        "shortest",
        "vocabulary",
    )

    def __init__(self, table: Table, policy: Policy) -> None:
        """Compile; raises InvalidTable for a pattern that RE2 does not take."""
        by_name = {tier.name: tier for tier in table.tiers}
        self.policy = policy
        self.ladder: tuple[Tier, ...] = tuple(by_name[name] for name in policy.tiers)
        self.names = policy.tiers
        self.has = tuple(map(abilities, self.ladder))
        self.score = policy.score or Score()
        self.places = list(range(len(policy.tiers)))
        self.fits_all: tuple[None, ...] = (None,) * len(policy.tiers)
        """What no tier lacks of a request that each can take."""
        self._place = {name: index for index, name in enumerate(policy.tiers)}
        index = next((i for i, one in enumerate(table.policies) if one.name == policy.name), 0)
        self.finder = Finder(policy.rules, f"$.policies[{index}]")
        self.vocabulary = self.finder.known | KNOWN
        """The words that rules and score look for: a text is searched for all of them at once."""
        self.rules = tuple((rule, private(rule.when), public(rule.when)) for rule in policy.rules)
        self.open_rules = tuple(one for one in self.rules if not one[1])
        """Those that look at no text, header or metadata: the only ones to read for a request that matched none."""
        # What every tier can take, and the shortest context: most requests are within both, and nobody looks further.
        self.shared = reduce(and_, self.has)
        self.shortest = min(
            (tier.context_tokens for tier in self.ladder if tier.context_tokens is not None), default=None
        )
        scored = policy.mode == "Hybrid" or (policy.mode == "Upfront" and policy.score is not None)
        self.needs_score = (scored and len(policy.tiers) > 1) or any(map(_asks_score, policy.rules))

    def place(self, name: str) -> int:
        """Return how high a tier stands on the ladder; 0 is the entry."""
        return self._place[name]


def compile_policy(table: Table, policy: Policy) -> CompiledPolicy:
    """Return a policy of a table, compiled; raises InvalidTable with the path of a pattern that RE2 does not take."""
    return CompiledPolicy(table, policy)


TOOLS, IMAGES, AUDIO, SCHEMA, EMBEDDINGS, LOGPROBS = 1, 2, 4, 8, 16, 32
WHAT: Final = {
    TOOLS: "tools",
    IMAGES: "images",
    AUDIO: "audio",
    SCHEMA: "a JSON schema",
    EMBEDDINGS: "embeddings",
    LOGPROBS: "logprobs",
}
"""What each bit of `abilities` and `needs` stands for, in words of messages."""


def abilities(tier: Tier) -> int:
    """Return what a tier can take, as bits."""
    can = tier.can
    return (
        TOOLS * can.tools
        | IMAGES * can.images
        | AUDIO * can.audio
        | SCHEMA * can.json_schema
        | EMBEDDINGS * can.embeddings
        | LOGPROBS * can.logprobs
    )


def needs(ask: Ask) -> int:
    """Return what a request needs of a tier, as bits."""
    if ask.endpoint == "embeddings":
        return EMBEDDINGS
    found = 0
    if ask.tools or ask.json_schema or ask.logprobs:
        found = TOOLS * ask.tools | SCHEMA * ask.json_schema | LOGPROBS * ask.logprobs
    if len(ask.modalities) > 1:
        found |= IMAGES * ("Image" in ask.modalities) | AUDIO * ("Audio" in ask.modalities)
    return found


# --- what is asked of numbers -----------------------------------------------------------------------------------------


def private(when: When) -> bool:
    """Whether a rule looks at text, headers or metadata, which a record does not keep."""
    return bool(when.keywords or when.patterns or when.headers or when.metadata)


def public(when: When) -> tuple[Test, ...]:
    """Return the tests of a rule that an ask answers."""
    found = list(_bounds("prompt_chars", when.prompt_chars_at_least, when.prompt_chars_at_most))
    least, most = when.score_at_least_permille, when.score_at_most_permille
    found += _bounds("score", _share(least), _share(most))
    if when.tools is not None:
        found.append(lambda ask: ask.tools is when.tools)
    if when.json_mode is not None:
        found.append(lambda ask: ask.json_mode is when.json_mode)
    if when.modalities:
        kinds = frozenset(when.modalities)
        found.append(lambda ask: not kinds.isdisjoint(ask.modalities))
    if when.tasks:
        tasks = frozenset(when.tasks)
        found.append(lambda ask: ask.task in tasks)
    return tuple(found)


def _share(permille: int | None) -> float | None:
    return None if permille is None else permille / 1000


def _bounds(field: str, least: float | None, most: float | None) -> Iterable[Test]:
    """Yield the tests of a number; one that was not taken is within no bounds."""
    get = attrgetter(field)
    if least is not None:
        yield lambda ask: (value := get(ask)) is not None and value >= least
    if most is not None:
        yield lambda ask: (value := get(ask)) is not None and value <= most


def _asks_score(rule: Rule) -> bool:
    when = rule.when
    return bool(when.tasks) or when.score_at_least_permille is not None or when.score_at_most_permille is not None


# --- what is looked for in text, headers, metadata --------------------------------------------------------------------


class Finder:
    """Finds which rules' texts, headers and metadata a request has. A rule is a bit; every word is looked up once."""

    __slots__ = (
        "_all",
        "_any",
        "_headers",
        "_keyed",
        "_literals",
        "_metadata",
        "_names",
        "_patterned",
        "_patterns",
        "_phrases",
        "_set",
        "_unspaced",
        "_worded",
        "_words",
        "known",
        "reads_text",
    )

    def __init__(self, rules: tuple[Rule, ...], path: str) -> None:
        """Index the rules of the policy at a path; raises InvalidTable."""
        self._names = tuple((1 << index, rule.name) for index, rule in enumerate(rules))
        whens = [(1 << index, rule.when) for index, rule in enumerate(rules)]
        self._all = sum(bit for bit, when in whens if private(when))
        self._worded = sum(bit for bit, when in whens if when.keywords)
        self._patterned = sum(bit for bit, when in whens if when.patterns)
        self.reads_text = bool(self._worded | self._patterned)
        self._headers = tuple((bit, one.name, one.values) for bit, when in whens for one in when.headers)
        self._metadata = tuple((bit, one.key, one.values) for bit, when in whens for one in when.metadata)
        self._keyed = sum({bit for bit, _, _ in self._metadata})
        self._index(
            (bit, " ".join(fold(word).split())) for bit, when in whens for word in when.keywords if word.strip()
        )
        self._compile(rules, path)

    def _index(self, keywords: Iterable[tuple[int, str]]) -> None:
        """Sort keywords by how they are found: a word, words in a row, with signs in it, in a script without spaces."""
        single: dict[bytes, int] = {}
        phrases: dict[bytes, list[tuple[bytes, int]]] = {}
        literals: dict[str, int] = {}
        inside: dict[str, int] = {}
        for bit, keyword in keywords:
            plain = keyword.replace(" ", "")
            if unspaced(keyword):
                inside[keyword] = inside.get(keyword, 0) | bit
            elif not plain.isalnum():
                literals[keyword] = literals.get(keyword, 0) | bit
            elif len(row := words(keyword.encode())) == 1:
                single[row[0]] = single.get(row[0], 0) | bit
            else:
                phrases.setdefault(row[0], []).append((b" %b " % b" ".join(row), bit))
        self._words, self._phrases = single, phrases
        self.known = frozenset(single) | frozenset(phrases)
        self._literals, self._unspaced = tuple(literals.items()), tuple(inside.items())

    def _compile(self, rules: tuple[Rule, ...], path: str) -> None:
        found: list[tuple[Any, int]] = []
        for index, rule in enumerate(rules):
            for number, pattern in enumerate(rule.when.patterns):
                where = f"{path}.rules[{index}].when.patterns[{number}]"
                found.append((compile_pattern(pattern, where), 1 << index))
        self._patterns = tuple(found)
        self._any: Any = None
        self._set: Any = None
        # A quote that is never closed (\Q) would swallow what is put behind it.
        closed = not any(rb"\Q" in one.pattern for one, _ in found)
        if closed and len(found) > 1 and sum(one.programsize for one, _ in found) <= _TOGETHER:
            self._together([one.pattern for one, _ in found])

    def _together(self, patterns: list[bytes]) -> None:
        """Compile all patterns into one, and into a set that says which; without them, each is searched for."""
        try:
            whole = re2.compile(b"|".join(b"(?:%b)" % pattern for pattern in patterns), options())
            every = re2.Set.SearchSet(options())
            for pattern in patterns:
                every.Add(pattern)
            every.Compile()
        except re2.error:
            return
        self._any, self._set = whole, every

    def find(
        self, text: str, folded: str, raw: bytes, known: Iterable[bytes], headers: Mapping[str, str], request: Request
    ) -> tuple[str, ...]:
        """Return the names of the rules that found what they look for, in the order of the rules.

        `text` is what is looked at of the last user message; then the same folded, in UTF-8, and those of its words
        that the policy's vocabulary has.
        """
        held = self._all
        if self._headers:
            held &= ~_missed(self._headers, headers.get)
        if self._metadata and held:
            held &= ~(_missed(self._metadata, _metadata(request.metadata)) if request.metadata else self._keyed)
        if self._worded & held:
            held &= self._by_words(folded, raw, known) | ~self._worded
        if self._patterned & held:
            held &= self._by_patterns(text) | ~self._patterned
        return tuple(name for bit, name in self._names if bit & held) if held else ()

    def _by_words(self, folded: str, raw: bytes, known: Iterable[bytes]) -> int:
        held, joined = 0, b""
        for word in self.known.intersection(known):
            held |= self._words.get(word, 0)
            for phrase, bit in self._phrases.get(word, ()):
                joined = joined or b" %b " % b" ".join(words(raw))
                held |= bit if phrase in joined else 0
        for keyword, bit in self._literals:
            if keyword in folded and stands_alone(folded, keyword):
                held |= bit
        if len(raw) > len(folded):
            for keyword, bit in self._unspaced:
                held |= bit if keyword in folded else 0
        return held

    def _by_patterns(self, text: str) -> int:
        raw, held = text.encode(), 0
        if self._any is not None:
            if self._any.search(raw) is None:
                return 0
            # A set that runs out of its memory says that nothing matched; that something does is known by now.
            for index in self._set.Match(raw) or ():
                held |= self._patterns[index][1]
            if held:
                return held
        for pattern, bit in self._patterns:
            if not bit & held and pattern.search(raw) is not None:
                held |= bit
        return held


def compile_pattern(pattern: str, path: str) -> Any:
    """Return a pattern for UTF-8 bytes; raises InvalidTable where RE2 does not take it, or it is too large."""
    try:
        made = re2.compile(pattern.encode(), options())
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidTable([Fault(path, f"RE2 does not take {pattern!r}: {_said(error)}")]) from None
    if made.programsize > PROGRAM:
        problem = f"becomes a program of {made.programsize} steps, at most {PROGRAM} are run: repeat less in it"
        raise InvalidTable([Fault(path, problem)])
    return made


def _said(error: Exception) -> str:
    told = error.args[0] if error.args else error
    return told.decode(errors="replace") if isinstance(told, bytes) else str(error)


def _missed(conditions: Iterable[tuple[int, str, tuple[str, ...]]], get: Callable[[str], str | None]) -> int:
    """Return the rules with a condition that does not hold."""
    missed, last, value = 0, None, None
    for bit, name, values in conditions:
        if name != last:
            last, value = name, get(name)
        if value not in values:
            missed |= bit
    return missed


def _metadata(entries: Mapping[str, Raw]) -> Callable[[str], str | None]:
    def get(key: str) -> str | None:
        raw = entries.get(key)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    return get
