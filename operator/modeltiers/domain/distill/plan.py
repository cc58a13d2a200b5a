"""What one stage's program is told: the job's spec, and where the models and files that it names are to be reached.

The operator writes it, `python -m modeltiers.distill` reads it. Nothing in it is secret: keys are files that it names.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modeltiers.api.base import Model
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.modeltier import TokenPrice


class Target(Model):
    """A model to ask, through an OpenAI-compatible API."""

    base_url: str
    """Up to and with the version."""
    model: str
    """Its name there."""
    root: str | None = None
    """Where the server must say that it has the model from, if it says so; None: anywhere."""
    key_file: str | None = None
    """File that holds the key to ask with."""
    price: TokenPrice | None = None
    """What a token costs."""
    external: bool = False
    """Whether it is somebody else's."""


class Plan(Model):
    """All that a stage is told."""

    format_version: Literal[1] = 1
    """Of this document."""
    job: str
    """Name of the DistillJob."""
    spec: DistillJobSpec
    """Its spec."""
    teacher: Target | None = None
    """Where the teacher is asked."""
    judge: Target | None = None
    """Where the judge is asked; None where there is none."""
    incumbent: Target | None = None
    """Where the incumbent is asked; None where it is the student's base."""
    engine: Target | None = None
    """Where the engine beside this program serves the model under test."""
    scrubber: str | None = None
    """URL of the program beside this one that scrubs texts; None where there is none."""
    signing_key_file: str | None = None
    """File with the private key that packages are signed with; None where they are not."""
    sources: dict[str, str] = Field(default={})
    """Where each source's rows are: a path or an fsspec address, by the source's name."""
    models: dict[str, str] = Field(default={})
    """Where `base` and `trained` have their weights: a path, or hf://ORG/NAME. `teacher` too, where it is served in
    this cluster: its tokenizer tells whether soft targets can be."""
