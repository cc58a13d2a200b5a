"""The two questions: what is wrong with this object, and what is wrong in this namespace, the worst first."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from modeltiers.domain.why.distillations import of_job
from modeltiers.domain.why.findings import Finding
from modeltiers.domain.why.policies import of_policy
from modeltiers.domain.why.silence import of_operator
from modeltiers.domain.why.snapshot import JOB, OURS, POLICY, TIER, Snapshot, name_of
from modeltiers.domain.why.tiers import of_tier

_OF: Final[Mapping[str, Callable[[Snapshot, str], Finding | None]]] = {
    TIER: of_tier,
    POLICY: of_policy,
    JOB: of_job,
}


def explain(snapshot: Snapshot, kind: str, name: str) -> Finding | None:
    """What is wrong with one object; None where nothing is."""
    return _OF[kind](snapshot, name)


def findings(snapshot: Snapshot) -> list[Finding]:
    """Everything that is wrong in the namespace, the worst first.

    A tier that keeps three policies is told of once, as the tier: what rests on it follows with what is its own.
    """
    found = [one for kind in OURS for body in snapshot.all(kind) if (one := explain(snapshot, kind, name_of(body)))]
    told = {(one.about.kind, one.about.name) for one in found}
    roots = [one for one in found if not any((link.kind, link.name) in told for link in one.links[1:])]
    rest = [one for one in found if one not in roots]
    silent = of_operator(snapshot)
    ordered = sorted(roots, key=lambda one: one.level) + sorted(rest, key=lambda one: one.level)
    return [silent, *ordered] if silent and silent not in ordered else ordered


def near(snapshot: Snapshot, kind: str, name: str) -> list[str]:
    """Names of this kind that the given one may have meant."""
    return meant(name, [name_of(body) for body in snapshot.all(kind)])


def meant(name: str, there: Sequence[str]) -> list[str]:
    """Which of some names a person may have meant; the first few where none is like it."""
    return difflib.get_close_matches(name, there, 3, 0.4) or list(there[:5])
