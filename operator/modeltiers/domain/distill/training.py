"""What training decides before it starts and while it runs: method, sizes of batches, whether it has gone astray.

Pure: the trainer (`distill/train`) measures, this decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Method = Literal["Sequence", "SoftTargets"]
TOKENS_AT_ONCE: Final = 16_384
"""Tokens that go through the model at once on one device; more is done in parts whose gradients are added up."""
WINDOW: Final = 10
"""Steps that a loss must have been astray before training is stopped."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the student is trained, and why so."""

    method: Method
    why: str


def choose_method(asked: str, *, with_probabilities: int, student: str, teacher: str | None) -> Chosen | str:
    """The method, or why what was asked for cannot be.

    `with_probabilities`: rows that have the teacher's token probabilities. `student` and `teacher`: hashes of the
    tokenizers; None where the teacher's is not known.
    """
    if asked == "Sequence":
        return Chosen("Sequence", "training.method is Sequence")
    if not with_probabilities:
        lacks = "no row has the teacher's token probabilities: set generation.topLogprobs"
    elif teacher is None:
        lacks = "the teacher's tokenizer is not known, since its weights are not at hand"
    elif teacher != student:
        lacks = f"teacher and student have different tokenizers ({teacher[:12]} and {student[:12]})"
    else:
        return Chosen("SoftTargets", f"teacher and student have the same tokenizer ({student[:12]})")
    return Chosen("Sequence", lacks) if asked == "Auto" else lacks


@dataclass(frozen=True, slots=True)
class Batches:
    """How a step's rows are shared out: `rows` at once on each device, `parts` times."""

    rows: int
    parts: int


def share_out(batch: int, devices: int, longest: int) -> Batches | str:
    """How a batch is cut, or why it cannot be. `longest`: tokens of the longest row."""
    if batch % devices:
        return f"{batch} rows cannot be shared out evenly among {devices} GPUs"
    each = batch // devices
    fits = max(1, TOKENS_AT_ONCE // max(1, longest))
    rows = next(size for size in range(min(each, fits), 0, -1) if each % size == 0)
    return Batches(rows, each // rows)


def steps_of(rows: int, batch: int, epochs: int) -> int:
    """Steps that so many rows make; an epoch's last batch may be smaller."""
    return math.ceil(rows / batch) * epochs


def astray(losses: Sequence[float], vocabulary: int) -> bool:
    """Whether training has diverged: the loss is no number, or for a while worse than that of a model that knows
    nothing, and worse than where it began.
    """
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) <= WINDOW:
        return False
    recent = sum(losses[-WINDOW:]) / WINDOW
    return recent > 2 * math.log(vocabulary) and recent > 1.5 * losses[0]
