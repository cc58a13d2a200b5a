"""What is doubtful about a policy's rules: some are never reached, never match, contradict another or do nothing.

It reasons about conditions, not about texts: two patterns are alike only if they are written alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import Any, Final

import re2
from msgspec import Struct

from modeltiers.domain.routing.choose import ends_reading
from modeltiers.domain.routing.patterns import options
from modeltiers.domain.routing.rules import (
    AUDIO,
    IMAGES,
    SCHEMA,
    TOOLS,
    WHAT,
    abilities,
    compile_pattern,
)
from modeltiers.domain.routing.table import HeaderMatch, InvalidTable, MetadataMatch, Policy, Rule, Tier, When
from modeltiers.domain.routing.text import fold, stands_alone

LARGE: Final = 2_000
"""An RE2 program from which on the worst text may cost more than some milliseconds."""
_MANY: Final = re2.compile(rb"\{\d*,?\d{3,}\}", options())


class Finding(Struct, frozen=True):
    """Something in a table that is allowed and hardly meant: where, what, and the way out."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def lint_rules(path: str, policy: Policy, ladder: tuple[Tier, ...]) -> Iterator[Finding]:
    """Yield what is doubtful about the rules of a policy."""
    for index, rule in enumerate(policy.rules):
        here = f"{path}.rules[{index}]"
        yield from _never(here, rule.when)
        yield from _always(here, rule.when)
        yield from _words(f"{here}.when.keywords", rule.when.keywords)
        for number, pattern in enumerate(rule.when.patterns):
            yield from lint_pattern(f"{here}.when.patterns[{number}]", pattern)
        yield from _own(here, rule, policy)
        yield from _unable(here, rule, policy, ladder)
    for (_, first), (later, second) in combinations(enumerate(policy.rules), 2):
        yield from _pair(f"{path}.rules[{later}]", first, second, policy)


# --- two rules --------------------------------------------------------------------------------------------------------


def _pair(path: str, first: Rule, second: Rule, policy: Policy) -> Iterator[Finding]:
    """Yield what a later rule suffers from an earlier one."""
    if not implies(second.when, first.when):
        return
    same = implies(first.when, second.when)
    if same and (problem := _contradiction(first, second, policy)):
        yield Finding(path, f"has the conditions of rule {first.name} and {problem}; keep one of them")
    elif ends_reading(first):
        what = "refuses" if first.action == "Refuse" else f"sends to {first.tier}"
        yield Finding(
            path, f"is never reached: all that it looks for, rule {first.name} {what}; move it before that one"
        )


def _contradiction(first: Rule, second: Rule, policy: Policy) -> str | None:
    """Return how two rules of the same conditions disagree."""
    if ends_reading(first) and ends_reading(second) and (first.action, first.tier) != (second.action, second.tier):
        return "another outcome: " + " against ".join(
            "Refuse" if rule.action == "Refuse" else f"tier {rule.tier}" for rule in (first, second)
        )
    if first.floor and second.tier and policy.tiers.index(second.tier) < policy.tiers.index(first.floor):
        return f"sends to {second.tier}, below the floor {first.floor} that rule {first.name} sets"
    return None


def implies(narrow: When, wide: When) -> bool:
    """Whether every request that has what `narrow` looks for also has what `wide` looks for, as far as can be told."""
    return (
        (not wide.keywords or (bool(narrow.keywords) and all(_covered(word, wide) for word in narrow.keywords)))
        and _within(narrow.patterns, wide.patterns)
        and _named(narrow.headers, wide.headers)
        and _named(narrow.metadata, wide.metadata)
        and _numbers(narrow, wide)
        and wide.tools in (None, narrow.tools)
        and wide.json_mode in (None, narrow.json_mode)
        and ("Text" in wide.modalities or _within(narrow.modalities, wide.modalities))
        and _within(narrow.tasks, wide.tasks)
    )


_folded: Final = lru_cache(16_384)(fold)
"""Rules are compared in pairs: each word is met many times."""


def _covered(word: str, wide: When) -> bool:
    folded = _folded(word)
    return any(stands_alone(folded, _folded(other)) for other in wide.keywords if other.strip())


def _within(narrow: tuple[Any, ...], wide: tuple[Any, ...]) -> bool:
    """Whether one of `narrow` is always one of `wide`; an empty list asks for nothing."""
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _named(narrow: tuple[HeaderMatch | MetadataMatch, ...], wide: tuple[HeaderMatch | MetadataMatch, ...]) -> bool:
    return all(
        any(_name(one) == _name(other) and set(one.values) <= set(other.values) for one in narrow) for other in wide
    )


def _name(match: HeaderMatch | MetadataMatch) -> str:
    return match.name if isinstance(match, HeaderMatch) else match.key


def _numbers(narrow: When, wide: When) -> bool:
    return (
        (narrow.prompt_chars_at_least or 0) >= (wide.prompt_chars_at_least or 0)
        and _most(narrow.prompt_chars_at_most) <= _most(wide.prompt_chars_at_most)
        and (narrow.score_at_least_permille or 0) >= (wide.score_at_least_permille or 0)
        and min(1000, _most(narrow.score_at_most_permille)) <= _most(wide.score_at_most_permille)
    )


def _most(value: int | None) -> float:
    return float("inf") if value is None else value


# --- one rule ---------------------------------------------------------------------------------------------------------


def _never(path: str, when: When) -> Iterator[Finding]:
    """Yield conditions that no request meets."""
    if when.keywords and not any(word.strip() for word in when.keywords):
        yield Finding(f"{path}.when.keywords", "hold only spaces, so the rule never matches; name a word")
    pairs: tuple[tuple[str, tuple[HeaderMatch | MetadataMatch, ...]], ...] = (
        ("headers", when.headers),
        ("metadata", when.metadata),
    )
    for field, matches in pairs:
        for one, other in combinations(matches, 2):
            if _name(one) == _name(other) and not set(one.values) & set(other.values):
                problem = f"asks {_name(one)!r} for two values at once, so the rule never matches; put them in one list"
                yield Finding(f"{path}.when.{field}", problem)
    if (when.score_at_least_permille or 0) > 999:
        yield Finding(f"{path}.when.scoreAtLeastPermille", "no score reaches 1000; ask for less")
    if when.score_at_most_permille == 0:
        yield Finding(f"{path}.when.scoreAtMostPermille", "no score is 0; ask for more")


def _always(path: str, when: When) -> Iterator[Finding]:
    """Yield conditions that every request meets."""
    if "Text" in when.modalities:
        problem = "every request has the modality Text, so this asks for nothing; name Image or Audio only"
        yield Finding(f"{path}.when.modalities", problem)
    if when.score_at_least_permille == 0:
        yield Finding(f"{path}.when.scoreAtLeastPermille", "every score is at least 0; leave it out")
    if when.score_at_most_permille == 1000:
        yield Finding(f"{path}.when.scoreAtMostPermille", "every score is at most 1000; leave it out")
    if len(set(when.tasks)) == 8:
        yield Finding(f"{path}.when.tasks", "every request is one of these; leave them out")


def _words(path: str, keywords: tuple[str, ...]) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for number, word in enumerate(keywords):
        folded, here = fold(word), f"{path}[{number}]"
        if word != word.lower():
            yield Finding(here, f"{word!r} has capital letters, and case is ignored; write {word.lower()!r}")
        if word != " ".join(word.split()):
            problem = f"{word!r} has spaces that no text need have; write {' '.join(word.split())!r}"
            yield Finding(here, problem)
        if folded in seen:
            yield Finding(here, f"{word!r} is keyword {seen[folded]} again; leave it out")
        elif wider := next((one for one in seen if one.strip() and stands_alone(folded, one)), None):
            yield Finding(here, f"{word!r} is found wherever {wider!r} is, which is in the list; leave it out")
        seen.setdefault(folded, number)


def lint_pattern(path: str, pattern: str) -> Iterator[Finding]:
    """Yield what is doubtful about a pattern."""
    try:
        made = compile_pattern(pattern, path)
    except InvalidTable as error:
        yield Finding(path, error.faults[0].problem)
        return
    if made.search(b"") is not None:
        yield Finding(path, f"{pattern!r} matches the empty text, so it matches every text; ask for at least one sign")
    if made.programsize > LARGE or _MANY.search(pattern.encode()) is not None:
        problem = f"{pattern!r} can be slow on a text that is made for it ({made.programsize} steps); repeat less in it"
        yield Finding(path, problem)
    if pattern.startswith(".*") or pattern.endswith(".*"):
        yield Finding(path, f"{pattern!r} is searched for anywhere in the text; leave out .* at its ends")


def _own(path: str, rule: Rule, policy: Policy) -> Iterator[Finding]:
    """Yield what a rule demands of itself and cannot have."""
    place = policy.tiers.index
    if rule.tier and rule.floor and place(rule.tier) < place(rule.floor):
        yield Finding(f"{path}.tier", f"{rule.tier} is below the rule's own floor {rule.floor}; name one of them")
    demands = [one for one in policy.risks if rule.risk in ("High", one.risk)]
    for demand in demands:
        if demand.action == "Refuse" and rule.tier:
            yield Finding(f"{path}.tier", f"is never used: requests of risk {rule.risk} are refused; drop one of them")
        elif demand.floor and rule.tier and place(rule.tier) < place(demand.floor):
            problem = f"{rule.tier} is below {demand.floor}, the floor of risk {demand.risk}; name {demand.floor}"
            yield Finding(f"{path}.tier", problem)
    if rule.risk and not demands and not (rule.tier or rule.floor or rule.action == "Refuse"):
        problem = f"nothing follows from risk {rule.risk}; add it to risks with a floor or an action"
        yield Finding(f"{path}.risk", problem)


def _unable(path: str, rule: Rule, policy: Policy, ladder: tuple[Tier, ...]) -> Iterator[Finding]:
    """Yield a rule whose requests no tier that it allows can take."""
    when = rule.when
    needed = TOOLS * (when.tools is True)
    if len(when.modalities) == 1:
        needed |= IMAGES * ("Image" in when.modalities) | AUDIO * ("Audio" in when.modalities)
    if not needed or rule.action == "Refuse":
        return
    lowest = policy.tiers.index(rule.floor) if rule.floor else 0
    if any(needed & ~abilities(tier) == 0 for tier in ladder[lowest:]):
        return
    what = " and ".join(word for bit, word in WHAT.items() if bit & needed & ~SCHEMA)
    where = f"at or above {rule.floor}" if rule.floor else "of the ladder"
    yield Finding(path, f"is refused for every request: no tier {where} takes {what}; say so in a tier's `can`")
