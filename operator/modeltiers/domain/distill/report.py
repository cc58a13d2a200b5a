"""What a person reads before approving a student: every section of the report, from what the stages left. Pure.

A section is paragraphs, plots, tables and examples; how these become HTML and Markdown is another's business. What
comes from rows and models (answers, names, messages) is text like any other here: whoever renders it escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers.domain.distill.calibration import Bin
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage

MODELS: Final = ("student", "incumbent", "base", "teacher")
ATTACKS: Final = "red team"


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and what it shows, in a line."""

    svg: str
    says: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts; the first column names them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    says: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One item, as student and teacher answered it."""

    title: str
    asked: str
    expected: str
    student: str
    teacher: str
    right: bool
    """Whether the student's answer was."""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report."""

    title: str
    texts: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    """In small print."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, with the command where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    job: str
    about: str
    outcome: str
    meaning: str
    """In a sentence."""
    why: tuple[str, ...]
    """What decided it."""
    steps: tuple[Step, ...]
    sections: tuple[Section, ...]
    program: str


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss at one step of training."""

    step: int
    ce: float
    soft: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the report is made from."""

    plan: Plan
    program: str
    """Name and version of what writes it."""
    decision: Mapping[str, Any]
    """What the gate wrote."""
    items: Sequence[Mapping[str, Any]]
    """The gate's items with every model's score."""
    facts: Mapping[Stage, Mapping[str, Any]] = field(default_factory=dict)
    """Figures of the stages that are complete."""
    outcomes: Mapping[Stage, Outcome] = field(default_factory=dict)
    spend: Mapping[Stage, Mapping[str, Any]] = field(default_factory=dict)
    """Of the stages that this job ran."""
    others: tuple[str, ...] = ()
    """Jobs of the store that asked teacher or judge what this one found there."""
    loss: Sequence[Loss] = ()
    bins: Sequence[Bin] = ()
    """Of the calibration."""
    judged: Sequence[Mapping[str, Any]] = ()
    """The judge's scores, item by item."""
    examples: Sequence[Example] = ()
    differing: int = 0
    """Items of which the examples are some."""
    artifact: str | None = None
    """Digest of the packaged student; None before there is one."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were asked; where the incumbent is the base, it is told once."""
        asked = set(MODELS) if Stage.EVALUATE_INCUMBENT in self.outcomes else {"student", "base", "teacher"}
        return tuple(name for name in MODELS if name in asked)

    def called(self, model: str) -> str:
        """What a model is called in the report."""
        same = model == "base" and "incumbent" not in self.models
        return "base (incumbent)" if same else model


def percent(permille: float | None) -> str:
    """`93.4 %`; a dash where nothing is known."""
    return "–" if permille is None else f"{permille / 10:.1f} %"


def points(permille: float | None) -> str:
    """A difference, as `+1.2`."""
    return "–" if permille is None else f"{permille / 10:+.1f}"


def count(value: Any) -> str:
    """A whole number with its thousands apart; a dash where nothing is known."""
    return f"{value:,}" if isinstance(value, int) else "–"


def filled(rows: Iterator[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    """The rows of which something is known."""
    return tuple((name, str(value)) for name, value in rows if value not in (None, "", {}))
