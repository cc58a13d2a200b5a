"""What training leaves: the student's folder as an engine serves it, the course of the loss, and a picture of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel

from modeltiers.distill.store import Folder
from modeltiers.distill.train.base import SURROUNDS, config_of
from modeltiers.distill.train.checkpoints import full_disk
from modeltiers.distill.train.fit import Step
from modeltiers.domain.distill.curve import drawn

MODEL: Final = "model"
LOSS, PICTURE = "loss.jsonl", "loss.svg"
POINTS: Final = 2000
"""Most steps that are kept in the course of the loss."""


def write_model(model: PreTrainedModel, base: Path, into: Folder, scratch: Path) -> list[str]:
    """Write the student's folder; returns its files.

    All but the weights is the base's own, byte for byte: what serves the base serves the student.
    """
    fresh = scratch / MODEL
    shutil.rmtree(fresh, ignore_errors=True)
    with full_disk(scratch):
        model.to(_dtype(base)).save_pretrained(fresh, max_shard_size="5GB")
    weights = sorted([*fresh.glob("*.safetensors"), *fresh.glob("*.safetensors.index.json")])
    around = sorted({path for pattern in SURROUNDS for path in base.glob(pattern)} - set(base.glob("*.index.json")))
    into.drop(MODEL)
    names = []
    for path in [*around, *weights]:
        names.append(f"{MODEL}/{path.name}")
        with full_disk(scratch), into.writing(names[-1]) as out, path.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
    shutil.rmtree(fresh)
    return names


def write_course(told: Sequence[Step], into: Folder, title: str) -> list[str]:
    """Write the loss of each step (of some, where there are very many) and a picture of it."""
    every = max(1, len(told) // POINTS)
    kept = [step for step in told if step.step % every == 0 or step.step == len(told)]
    into.write_rows(LOSS, (asdict(step) for step in kept))
    into.write(PICTURE, drawn(kept, title).encode())
    return [LOSS, PICTURE]


def _dtype(base: Path) -> torch.dtype:
    """The type that the base's config.json promises an engine."""
    config = config_of(base)
    found = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"), None)
    return found if isinstance(found, torch.dtype) else torch.float32
