"""The table at the end: what was measured for each, what it should be, and whether it is.

Knows nothing of how a figure came about. A row without a target is there to be compared with; a row without a figure
says why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["", "ok", "MISSED"]


@dataclass(frozen=True)
class Row:
    """One figure of the router, those of its peers, and the target."""

    what: str
    ours: float | None
    unit: str = ""
    nginx: float | None = None
    haproxy: float | None = None
    target: float | None = None
    """The most, or the least, of our figure; of its ratio to nginx's where `relative`."""
    relative: bool = False
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Return how many times nginx's figure ours is."""
        return ratio(self.ours, self.nginx)

    @property
    def judged(self) -> float | None:
        """Return the figure that the target is for."""
        return self.ratio if self.relative else self.ours

    @property
    def verdict(self) -> Verdict:
        """Return whether the target is kept; empty where there is none or nothing was measured."""
        if self.judged is None or self.target is None:
            return ""
        kept = self.judged >= self.target if self.at_least else self.judged <= self.target
        return "ok" if kept else "MISSED"

    @property
    def wanted(self) -> str:
        """Return the target in words."""
        if self.target is None:
            return ""
        return f"{'>=' if self.at_least else '<='} {number(self.target)}{'x' if self.relative else ''}"


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return how many times as much ours is; nothing where there is nothing to be compared with."""
    return ours / theirs if ours is not None and theirs else None


def number(value: float) -> str:
    """Return a figure with three digits that count; whole from a hundred on."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def render(rows: Sequence[Row]) -> str:
    """Return the table as text, in columns as wide as they must be."""
    cells = [("", "ours", "nginx", "haproxy", "ratio", "target", "", "")]
    for row in rows:
        times = "" if row.ratio is None else f"{row.ratio:.2f}x"
        ours = "-" if row.ours is None else number(row.ours)
        what = f"{row.what}, {row.unit}" if row.unit else row.what
        cells.append((what, ours, _number(row.nginx), _number(row.haproxy), times, row.wanted, row.verdict, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(7)]
    return "\n".join(_line(line, widths) for line in cells)


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    figures = "".join(f"{cell:>{width + 2}}" for cell, width in zip(cells[1:6], widths[1:6], strict=True))
    return f"{cells[0]:{widths[0]}}{figures}  {cells[6]:{widths[6]}}  {cells[7]}".rstrip()


def as_json(rows: Iterable[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Return what a file keeps of a run: the rows, their verdicts, and where they were measured."""
    return {**about, "rows": [{**asdict(row), "ratio": row.ratio, "verdict": row.verdict} for row in rows]}


def missed(rows: Iterable[Row]) -> list[str]:
    """Return the names of the rows that missed their target."""
    return [row.what for row in rows if row.verdict == "MISSED"]
