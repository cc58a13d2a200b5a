"""The ladder at a glance: rows for tiers, policies and distillations, from what their status says. Pure.

What was not measured is `-` or the word that status has for it, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modeltiers.domain import conditions
from modeltiers.domain.distill.reasons import COMPLETE
from modeltiers.domain.why.policies import ladder
from modeltiers.domain.why.snapshot import (
    JOB,
    POLICY,
    TIER,
    Body,
    Snapshot,
    dig,
    is_stale,
    maps,
    name_of,
    number,
    said,
    text,
)

NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and whether it is shown with `-o wide` only."""

    title: str
    wide: bool = False
    right: bool = False


COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    TIER: (
        Column("TIER"),
        Column("RANK", right=True),
        Column("READY", right=True),
        Column("STATUS"),
        Column("GPUS", right=True),
        Column("COST/H", right=True),
        Column("MODEL"),
        Column("ACCELERATOR", wide=True),
        Column("CONTEXT", wide=True, right=True),
        Column("ENDPOINT", wide=True),
    ),
    POLICY: (
        Column("POLICY"),
        Column("MODE"),
        Column("STATUS"),
        Column("LIVE", right=True),
        Column("ENTRY"),
        Column("REQUESTS", right=True),
        Column("ESCALATED", right=True),
        Column("SAVED", right=True),
        Column("TIERS"),
        Column("MODEL", wide=True),
        Column("SHARES", wide=True),
        Column("URL", wide=True),
    ),
    JOB: (
        Column("DISTILLJOB"),
        Column("STATUS"),
        Column("STAGE"),
        Column("PROGRESS"),
        Column("DECISION"),
        Column("PROMOTION"),
        Column("SPENT"),
        Column("GATE", wide=True),
        Column("ARTIFACT", wide=True),
    ),
}


def rows(snapshot: Snapshot, kind: str) -> list[tuple[str, ...]]:
    """A row for each object of a kind, under `COLUMNS`: tiers by rank, the others by name."""
    bodies = list(snapshot.all(kind))
    if kind == TIER:
        bodies.sort(key=lambda body: (number(body, "spec", "rank") or 0, name_of(body)))
    return [tuple(cell or NOTHING for cell in _ROWS[kind](body)) for body in bodies]


def _tier(body: Body) -> tuple[str, ...]:
    status = body.get("status") or {}
    sizing = dig(status, "sizing")
    gpus, replicas = number(sizing, "gpusPerReplica"), number(status, "replicas")
    context = number(sizing, "maxModelLen")
    return (
        name_of(body),
        _shown(number(body, "spec", "rank")),
        text(status, "ready"),
        _word(body),
        _shown(gpus * replicas if gpus is not None and replicas is not None else None),
        money(number(status, "cost", "perHourMicros"), text(status, "cost", "currency")),
        text(status, "model") or text(body, "spec", "model", "source") or text(body, "spec", "external", "model"),
        text(sizing, "product"),
        _shown(context),
        text(status, "endpoint"),
    )


def _policy(body: Body) -> tuple[str, ...]:
    status = body.get("status") or {}
    saved = number(status, "cost", "savedPermille")
    shares = [f"{text(one, 'name')} {percent(number(one, 'permille'))}" for one in maps(status, "traffic", "shares")]
    return (
        name_of(body),
        text(body, "spec", "mode"),
        _word(body),
        text(status, "live"),
        text(status, "entry", "tier"),
        _shown(number(status, "traffic", "requests")),
        text(status, "escalated"),
        percent(saved),
        " > ".join(ladder(body)),
        text(body, "spec", "model"),
        ", ".join(shares),
        text(status, "url"),
    )


def _job(body: Body) -> tuple[str, ...]:
    status = body.get("status") or {}
    gate = dig(status, "gate")
    lower, difference = number(gate, "lowerPermille"), number(gate, "differencePermille")
    return (
        name_of(body),
        _word(body),
        text(status, "stage"),
        text(status, "progress"),
        text(status, "decision"),
        text(status, "promotion", "state"),
        text(status, "spent"),
        f"{points(difference)} (at least {points(lower)})" if difference is not None and lower is not None else "",
        text(status, "artifact", "digest")[:12],
    )


_ROWS: Final = {TIER: _tier, POLICY: _policy, JOB: _job}


def _word(body: Body) -> str:
    """The one word for how it is."""
    if text(body, "metadata", "deletionTimestamp"):
        return "Terminating"
    told = said(body)
    if is_stale(body):
        return "NotSeenYet"
    over = told.get(COMPLETE, {})
    if over.get("status") == "True":
        return text(over, "reason")
    ready, stalled, way = (
        told.get(kind, {}) for kind in (conditions.READY, conditions.STALLED, conditions.RECONCILING)
    )
    # A job's Ready says only that it is not at its end: what it does is said by the others.
    if over:
        return text(stalled if stalled.get("status") == "True" else way, "reason")
    return text(ready, "reason")


def percent(permille: int | None) -> str:
    """A share."""
    return "" if permille is None else f"{permille / 10:.1f}%"


def points(permille: int) -> str:
    """A difference of scores."""
    return f"{permille / 10:+.1f} points"


def money(micros: int | None, currency: str) -> str:
    """An amount."""
    return "" if micros is None else f"{micros / 1e6:.2f} {currency}".strip()


def _shown(value: int | None) -> str:
    return "" if value is None else f"{value}"


def as_data(snapshot: Snapshot, kind: str) -> list[dict[str, Any]]:
    """The same rows for machines: titles in lower case, and null where nothing is known."""
    titles = [column.title.lower().replace("/", "Per") for column in COLUMNS[kind]]
    return [
        {title: None if cell == NOTHING else cell for title, cell in zip(titles, row, strict=True)}
        for row in rows(snapshot, kind)
    ]
