"""The plots of a report as SVG, by hand: the same bytes for the same numbers, no scripts, nothing to install.

Parts have a class beside their colour, so that a page may draw them in its own, light or dark. Texts are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from modeltiers.domain.distill.curve import ticks

COLOURS: Final = {
    "student": "#0072b2",
    "incumbent": "#d55e00",
    "base": "#7a7a7a",
    "teacher": "#009e73",
    "Pass": "#1a7f37",
    "Fail": "#c62828",
    "Inconclusive": "#9a6700",
}
"""By class; the first four are told apart by people who see few colours, too."""
WIDE: Final = 760
_Scale = Callable[[float], float]
LINE: Final = 22
"""Height of a row."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval."""

    label: str
    kind: str
    """Its class."""
    value: float
    low: float
    high: float
    said: str
    """The same in words, at the right."""
    limit: float | None = None
    """Where the interval must not reach."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What is drawn of a scale: round numbers from the first to the last."""

    marks: tuple[float, ...]
    unit: str
    signed: bool = False

    @classmethod
    def over(cls, low: float, high: float, unit: str, *, signed: bool = False) -> Axis:
        """The round numbers around both."""
        steps = ticks(max(high - low, 1e-9))
        step = steps[1] - steps[0]
        first, last = math.floor(round(low / step, 6)), math.ceil(round(high / step, 6))
        return cls(tuple(round(step * number, 10) for number in range(first, last + 1)), unit, signed)

    def told(self, value: float) -> str:
        """A round number as it is written."""
        return f"{value:+g}" if self.signed and value else f"{value:g}"


@dataclass
class _Picture:
    """Parts of a picture, as they are put down."""

    wide: float
    high: float
    says: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, said: str, anchor: str = "start", name: str = "", size: int = 12) -> None:
        """A line of text."""
        shown = f'class="{name}" ' if name else ""
        self.parts.append(
            f'<text {shown}x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(said)}</text>'
        )

    def line(self, start: tuple[float, float], end: tuple[float, float], name: str, width: float = 1.0) -> None:
        """A straight line."""
        at = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        self.parts.append(f'<line class="{name}" {at} stroke="{_colour(name)}" stroke-width="{width:g}"/>')

    def dot(self, x: float, y: float, name: str, radius: float = 4.5) -> None:
        """A point."""
        self.parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{_colour(name)}"/>')

    def box(self, x: float, y: float, wide: float, high: float, name: str) -> None:
        """A filled rectangle."""
        at = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"'
        self.parts.append(f'<rect class="{name}" {at} fill="{_colour(name)}"/>')

    def done(self) -> str:
        """The picture."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.wide:g} {self.high:g}" role="img"'
        look = 'font-family="system-ui, sans-serif" font-size="12"'
        return "\n".join([f'{head} aria-label="{escape(self.says)}" {look}>', *self.parts, "</svg>"])


def _colour(name: str) -> str:
    return COLOURS.get(name, "#ddd" if name == "grid" else "#555")


def intervals(groups: Sequence[tuple[str, Sequence[Mark]]], axis: Axis, says: str) -> str:
    """Values with their intervals, a row each, in named groups, over one scale."""
    left, right, top = 200 if any(name for name, _ in groups) else 130, 200, 26
    rows = sum(len(marks) for _, marks in groups)
    picture = _Picture(WIDE, top + rows * LINE + 8 * len(groups) + 8, says)

    def x(value: float) -> float:
        first, last = axis.marks[0], axis.marks[-1]
        return left + (WIDE - left - right) * (min(max(value, first), last) - first) / (last - first)

    for tick in axis.marks:
        strong = axis.signed and tick == 0
        picture.line((x(tick), top), (x(tick), picture.high - 6), "axis" if strong else "grid")
        picture.text(x(tick), top - 8, axis.told(tick), "middle", "dim", 11)
    picture.text(WIDE - right + 26, top - 8, axis.unit, name="dim", size=11)
    y = top + 8.0
    for name, marks in groups:
        if name:
            picture.text(0, y + LINE / 2 + 4, _cut(name, 16), name="strong")
        for mark in marks:
            _row(picture, mark, x, y + LINE / 2, left, right)
            y += LINE
        y += 8
    return picture.done()


def _row(picture: _Picture, mark: Mark, x: _Scale, y: float, left: float, right: float) -> None:
    picture.text(left - 12, y + 4, _cut(mark.label, 18), "end")
    picture.line((x(mark.low), y), (x(mark.high), y), mark.kind, 2)
    for end in (mark.low, mark.high):
        picture.line((x(end), y - 4), (x(end), y + 4), mark.kind, 2)
    picture.dot(x(mark.value), y, mark.kind)
    if mark.limit is not None:
        picture.line((x(mark.limit), y - 9), (x(mark.limit), y + 9), "limit", 2)
    picture.text(WIDE - right + 26, y + 4, mark.said)


@dataclass(frozen=True, slots=True)
class Bar:
    """A length from 0 to 1."""

    label: str
    share: float
    said: str


def bars(rows: Sequence[Bar], says: str) -> str:
    """Shares of a whole, a row each."""
    left, right = 200, 230
    picture = _Picture(WIDE, len(rows) * LINE + 8, says)
    for number, row in enumerate(rows):
        y = 4.0 + number * LINE
        picture.text(left - 12, y + LINE / 2 + 4, _cut(row.label, 28), "end")
        picture.box(left, y + 5, WIDE - left - right, LINE - 10, "grid")
        picture.box(left, y + 5, (WIDE - left - right) * min(max(row.share, 0.0), 1.0), LINE - 10, "student")
        picture.text(WIDE - right + 14, y + LINE / 2 + 4, row.said)
    return picture.done()


def reliability(bins: Sequence[Mark], threshold: float | None, says: str) -> str:
    """How often answers were right (up, in per cent), by how sure the student was of them (along; a mark's `label`)."""
    left, top, wide, high = 60, 40, 560, 240
    picture = _Picture(WIDE, top + high + 44, says)
    sure = [float(one.label) for one in bins] + ([] if threshold is None else [threshold])
    along = Axis.over(min(*sure, 95.0), 100.0, "")
    up = Axis.over(min(*(one.low for one in bins), 95.0), 100.0, "")

    def x(value: float) -> float:
        return left + wide * (value - along.marks[0]) / (along.marks[-1] - along.marks[0])

    def y(value: float) -> float:
        return top + high * (1 - (value - up.marks[0]) / (up.marks[-1] - up.marks[0]))

    for mark in up.marks:
        picture.line((left, y(mark)), (left + wide, y(mark)), "grid")
        picture.text(left - 8, y(mark) + 4, up.told(mark), "end", "dim", 11)
    for mark in along.marks:
        picture.text(x(mark), top + high + 18, along.told(mark), "middle", "dim", 11)
    both = max(along.marks[0], up.marks[0])
    picture.line((x(both), y(both)), (x(100), y(100)), "axis")
    for one in bins:
        at = x(float(one.label))
        picture.line((at, y(one.low)), (at, y(one.high)), one.kind, 2)
        picture.dot(at, y(one.value), one.kind)
    if threshold is not None:
        picture.line((x(threshold), top), (x(threshold), top + high), "limit", 2)
        picture.text(x(threshold), top - 6, f"threshold {threshold:g}", "middle", "", 11)
    picture.text(left - 8, top - 26, "right, in %", "start", "dim", 11)
    picture.text(left + wide / 2, top + high + 38, "how sure the student was, in %", "middle", "dim", 11)
    return picture.done()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
