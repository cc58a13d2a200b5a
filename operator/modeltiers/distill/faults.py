"""How a stage can end without its outcome, and the exit code that says so to the Job (docs/distillation.md)."""

from __future__ import annotations

from typing import ClassVar, Final

COMPLETE: Final = 0


class StageFault(Exception):
    """A stage did not come to its end; the message names the field or the row, and the way out."""

    code: ClassVar[int]

    def __init__(self, message: str, *, reason: str | None = None, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason or type(self).__name__
        self.field = field
        """Path in the spec, where a field is at fault."""


class TryAgain(StageFault):
    """It may go another time: interrupted, or something did not answer. What is durable is not done again."""

    code = 75


class BadData(StageFault):
    """Data or configuration is at fault: it would fail again until somebody changes something."""

    code = 78


class BudgetExhausted(StageFault):
    """The budget is used up; the stage goes on where it stopped when it is raised."""

    code = 79
