"""The course of the loss as an SVG picture, by hand: the same bytes for the same numbers, and nothing to install.

Parts have a class beside their colour, so that a page which shows the picture may draw them in its own, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final, Protocol

WIDE, HIGH = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 40, 40
COLOURS: Final = {"cross-entropy": "#1f77b4", "soft targets": "#d62728"}


class Point(Protocol):
    """What is drawn of a step."""

    @property
    def step(self) -> int: ...
    @property
    def ce(self) -> float: ...
    @property
    def soft(self) -> float: ...


def drawn(points: Sequence[Point], title: str) -> str:
    """The picture: both terms over the steps, from 0 up."""
    last = max((point.step for point in points), default=1)
    curves: dict[str, list[float]] = {"cross-entropy": [point.ce for point in points]}
    if any(point.soft for point in points):
        curves["soft targets"] = [point.soft for point in points]
    highest = max((value for curve in curves.values() for value in curve), default=1.0) or 1.0
    marks = ticks(highest)
    top = max(marks[-1], highest)

    def x(step: float) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">',
        f'<rect class="paper" width="{WIDE}" height="{HIGH}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for tick in marks:
        at = f'x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
        parts.append(f'<line class="grid" {at} stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text x="{x(tick):.1f}" y="{HIGH - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks(last)
        if tick <= last
    ]
    parts.append(f'<text x="{WIDE - RIGHT}" y="{HIGH - 6}" text-anchor="end">step</text>')
    parts += _lines(points, curves, x, y)
    return "\n".join([*parts, "</svg>", ""])


def _lines(
    points: Sequence[Point], curves: dict[str, list[float]], x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    parts = []
    for number, (name, values) in enumerate(curves.items()):
        way = " ".join(f"{x(point.step):.1f},{y(value):.1f}" for point, value in zip(points, values, strict=True))
        parts.append(f'<polyline points="{way}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>')
        at = WIDE - RIGHT - 120, TOP + 16 * number
        parts.append(f'<line x1="{at[0]}" x2="{at[0] + 20}" y1="{at[1]}" y2="{at[1]}" stroke="{COLOURS[name]}"/>')
        parts.append(f'<text x="{at[0] + 26}" y="{at[1] + 4}">{name}</text>')
    return parts


def ticks(highest: float) -> list[float]:
    """Round numbers from 0 to the highest or just above."""
    rough = highest / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    return [round(step * number, 10) for number in range(math.ceil(highest / step) + 1)]
