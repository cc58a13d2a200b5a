"""How often one sealed set may be used, and what each use may cost.

Every look at the same sealed items is another chance to promote a bad student by luck, and training that reacts to the
outcome fits itself to them. So alpha belongs to the set, not to the look: the looks share it out, and a set that has
spent it is rotated. The ledger is a value: `spend` returns the next one, and whoever called stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from modeltiers.domain.gate.items import GateError

Spending = Literal["Halving", "Equal"]
SPENDINGS: Final[tuple[str, ...]] = get_args(Spending)


class Exhausted(GateError):
    """The sealed set has been looked at as often as it may be."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the looks at one sealed set have cost so far."""

    sealed: str
    """Digest of the set."""
    spent: tuple[tuple[str, float], ...] = ()
    """(look, its alpha). A look is known by the digest of what was looked at."""
    items: tuple[str, ...] = ()
    """Names of the set's items, by which a later set is found to be no new one."""

    def to_mapping(self) -> dict[str, Any]:
        """As a program stores it."""
        spent = [{"look": look, "alpha": alpha} for look, alpha in self.spent]
        return {"sealed": self.sealed, "spent": spent, "items": list(self.items)}


def open_ledger(sealed: str, items: Iterable[str], older: Iterable[Ledger]) -> Ledger:
    """The ledger of a set, given all there are: looks at any set that shares an item with it count as looks at it.

    So a set that grew, or was drawn anew from the same rows, goes on with what was spent; only new items are a new set.
    """
    names = frozenset(items)
    spent: dict[str, float] = {}
    for ledger in sorted(older, key=lambda one: one.sealed):
        if ledger.sealed == sealed or not names.isdisjoint(ledger.items):
            spent |= dict(ledger.spent)
    return Ledger(sealed, tuple(spent.items()), tuple(sorted(names)))


def alpha_of(look: int, total_alpha: float, max_looks: int, spending: Spending = "Halving") -> float:
    """Alpha of a look, counted from 1; over all looks it adds up to `total_alpha`.

    Halving gives the first look half, the next half of what is left, the last all of it: most sets are looked at once
    or twice. Equal gives each the same. Raises Exhausted past the last.
    """
    if max_looks < 1 or look < 1:
        raise GateError(f"look {look} of {max_looks}: both count from 1")
    if look > max_looks:
        raise Exhausted(
            f"the sealed set was looked at {max_looks} times, which is all that its alpha allows: rotate it (seal new"
            " items that no student was tested on), then test again"
        )
    if spending == "Equal":
        return total_alpha / max_looks
    return total_alpha / float(2 ** min(look, max_looks - 1))


def spend(
    ledger: Ledger, look: str, total_alpha: float, max_looks: int, spending: Spending = "Halving"
) -> tuple[Ledger, float]:
    """Enter a look and return its alpha. The same look again costs nothing: it has the same outcome."""
    for known, alpha in ledger.spent:
        if known == look:
            return ledger, alpha
    alpha = alpha_of(len(ledger.spent) + 1, total_alpha, max_looks, spending)
    # A total that was lowered since binds at once.
    if sum(cost for _, cost in ledger.spent) + alpha > total_alpha * (1 + 1e-9):
        raise Exhausted(
            f"the sealed set has spent its alpha of {total_alpha:g} in {len(ledger.spent)} looks: rotate it (seal new"
            " items that no student was tested on), then test again"
        )
    return replace(ledger, spent=(*ledger.spent, (look, alpha))), alpha


def read_ledger(value: Mapping[str, Any]) -> Ledger:
    """What `to_mapping` wrote; raises GateError for anything else: a ledger is never begun anew by mistake."""
    sealed, rows, items = value.get("sealed"), value.get("spent"), value.get("items")
    if not isinstance(sealed, str) or not isinstance(rows, list) or not isinstance(items, list):
        raise GateError("ledger: sealed, spent or items are missing; restore the file, or rotate the sealed set")
    spent = []
    for number, row in enumerate(rows, 1):
        look = row.get("look") if isinstance(row, Mapping) else None
        alpha = row.get("alpha") if isinstance(row, Mapping) else None
        if not isinstance(look, str) or not isinstance(alpha, float) or not 0 < alpha < 0.5:
            raise GateError(f"ledger: look {number} is damaged; restore the file, or rotate the sealed set")
        spent.append((look, alpha))
    if len(dict(spent)) != len(spent):
        raise GateError("ledger: a look is there twice; restore the file, or rotate the sealed set")
    return Ledger(sealed, tuple(spent), tuple(map(str, items)))
