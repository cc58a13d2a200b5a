"""Runs targets over numbered inputs and reports: what failed, made small; how fast; how much memory stayed.

An input that takes longer than its bound is a finding like a crash: one client must not hold up the others.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

from e2e.fuzz.router.target import Target, shrink

BOUND: Final = 2.0
"""Seconds that one input may take at most; machines that are busy need some room."""
FINDINGS: Final = 5
"""A target that failed so often is not asked further."""


class Hang(Exception):
    """An input that took too long."""


@dataclass
class Finding:
    """An input that broke something."""

    target: str
    seed: int
    number: int
    data: bytes
    why: str

    def __str__(self) -> str:
        again = f"python -m e2e.fuzz.router --seed {self.seed} --only {self.target} --at {self.number}"
        return f"FAILED {self.target} {self.number}: {self.why}\n  input: {self.data!r}\n  again: {again}"


@dataclass
class Report:
    """What a target's run showed."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    """Seconds, and the number of the input."""
    findings: list[Finding] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        each = 1e6 * self.seconds / max(1, self.inputs)
        seen = ", ".join(f"{name} {count}" for name, count in sorted(self.seen.items()))
        return (
            f"{self.target}: {self.inputs} inputs in {self.seconds:.0f} s ({each:.0f} us each, slowest "
            f"{1e3 * self.slowest[0]:.0f} ms at {self.slowest[1]}), {len(self.findings)} findings; {seen}"
        )


def dice_for(target: str, seed: int, number: int) -> Random:
    """Return the die that makes one input and cuts it."""
    return Random(f"{target} {seed} {number}")  # noqa: S311 - repeatable, not secret


def run(target: Target, seed: int, numbers: Sequence[int]) -> Report:
    """Throw these inputs at a target."""
    report = Report(target.name)
    before = signal.signal(signal.SIGALRM, _alarm)
    began = time.monotonic()
    try:
        for number in numbers:
            dice = dice_for(target.name, seed, number)
            data = target.make(dice)
            state, start = dice.getstate(), time.monotonic()
            why = _problem(target, data, dice)
            report.slowest = max(report.slowest, (time.monotonic() - start, number))
            report.inputs += 1
            if why is not None:
                report.findings.append(_finding(target, seed, number, data, state, why))
                if len(report.findings) >= FINDINGS:
                    break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    report.seconds = time.monotonic() - began
    report.seen = dict(target.seen)
    return report


def _problem(target: Target, data: bytes, dice: Random) -> str | None:
    signal.setitimer(signal.ITIMER_REAL, BOUND)
    try:
        target.check(data, dice)
    except Exception as error:  # whatever the code raises is what is looked for
        return f"{type(error).__name__}: {error}"[:2_000]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _finding(target: Target, seed: int, number: int, data: bytes, state: object, why: str) -> Finding:
    """Return the finding with the smallest input that fails in the same way."""
    kind = _kind(why)

    def fails(smaller: bytes) -> bool:
        dice = Random()  # noqa: S311 - repeatable, not secret
        dice.setstate(state)  # type: ignore[arg-type]  # what getstate gave
        found = _problem(target, smaller, dice)
        return found is not None and _kind(found) == kind

    small = shrink(data, fails)
    dice = Random()  # noqa: S311 - repeatable, not secret
    dice.setstate(state)  # type: ignore[arg-type]  # what getstate gave
    return Finding(target.name, seed, number, small, _problem(target, small, dice) or why)


def _kind(why: str) -> str:
    return why[:24]


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"took longer than {BOUND} s")


def resident() -> int:
    """Return this process's memory in bytes, after what is garbage was collected."""
    gc.collect()
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
