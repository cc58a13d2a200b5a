"""torch, transformers, TRL and PEFT in a virtual environment of their own, as requirements/train.txt pins them."""

from __future__ import annotations

import os
from pathlib import Path

from e2e.pinned import Pinned

TOP = Path(__file__).parents[2]
LOCKS = TOP / "requirements"


def pinned() -> Pinned:
    """What is installed, and from which pins."""
    return Pinned(
        name="train",
        what="the trainer",
        requirements=(LOCKS / "train.txt", LOCKS / "train-test.txt"),
        cuda=LOCKS / "train-cuda.txt",
        disk_gib=7,
        probe="import peft, trl, datasets; from trl import SFTTrainer",
        shown=("torch", "transformers", "trl", "peft"),
    )


def python() -> Path:
    """The environment's Python, made first if need be."""
    return pinned().install() / "bin" / "python"


def variables() -> dict[str, str]:
    """Environment variables for what runs in it: this checkout's code, one thread, nothing from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    ours = os.pathsep.join([str(TOP / "operator"), str(TOP)])
    return kept | {"PYTHONPATH": ours, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
