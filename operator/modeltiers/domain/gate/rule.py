"""What a gate was asked to demand. In thousandths, as in the spec; written down before anything is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from modeltiers.domain.gate.items import GateError, Target
from modeltiers.domain.gate.looks import SPENDINGS, Spending


@dataclass(frozen=True, slots=True)
class SliceRule:
    """A slice that must hold by itself."""

    name: str
    margin: int = 50
    """Permille."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """How much two models differ, known from elsewhere than this look: another set, or an earlier gate."""

    discordance: int
    """Permille of items on which they differ."""
    design_effect: int = 1000
    """Thousandths; 1000 where items stand alone."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the student has to show. Margins are permille of the score."""

    margin: int | None = 20
    """How much worse than the incumbent it may be; None where there is none, and the teacher is the measure."""
    teacher_margin: int | None = None
    """How much worse than the teacher; None: not compared."""
    alpha: int = 50
    """Permille: chance to promote a student that is just worse than the margin, over all looks at one sealed set."""
    power: int = 800
    """Permille: chance to promote one that is equal, which says how many items are needed."""
    max_looks: int = 5
    spending: Spending = "Halving"
    slices: tuple[SliceRule, ...] = ()
    out_of_slice_margin: int | None = None
    """How much worse on the items of no named slice; None: not compared."""
    red_team_margin: int | None = None
    """How much worse on the red-team part; 0: not at all, as it was seen. None: there is no such part."""
    gain: int = 50
    """The difference that is worth seeing. A student that shows no gain over the untrained base, on as many items as
    would show this one, has failed; a red-team part with margin 0 needs as many as would show such a loss."""
    pilot: Pilot | None = None
    """Where the needed number of items comes from; None: from this look itself."""

    def __post_init__(self) -> None:
        if self.margin is None and self.teacher_margin is None:
            raise GateError("the rule compares with nobody: give margin (of the incumbent), teacherMargin, or both")
        for name in ("margin", "teacher_margin", "out_of_slice_margin", "red_team_margin"):
            _within(name, getattr(self, name), 0, 999)
        _within("alpha", self.alpha, 1, 499)
        _within("power", self.power, 500, 999)
        _within("gain", self.gain, 1, 999)
        if self.max_looks < 1:
            raise GateError(f"maxLooks is {self.max_looks}; it must be at least 1")
        if self.spending not in SPENDINGS:
            raise GateError(f"spending is {self.spending!r}; give one of {', '.join(SPENDINGS)}")
        names = [one.name for one in self.slices]
        if len(set(names)) != len(names):
            raise GateError("slices: a name is there twice; name each slice once")
        for one in self.slices:
            _within(f"slices[{one.name}].margin", one.margin, 0, 999)
        if self.pilot:
            _within("pilot.discordance", self.pilot.discordance, 0, 1000)
            _within("pilot.design_effect", self.pilot.design_effect, 1000, 10**6)

    @property
    def reference(self) -> Target:
        """Whose place the student would take: the measure of slices and of the red-team part."""
        return "incumbent" if self.margin is not None else "teacher"


def _within(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
        raise GateError(f"{name} is {value!r}; give a whole number from {least} to {most}")
