"""Whom a DistillJob asks for money or time: the teacher, and the judge where there is one. Both are named alike."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from modeltiers.api.base import Model, Rule
from modeltiers.api.fields import Name, SecretKeyRef
from modeltiers.api.modeltier import TokenPrice

Permille = Annotated[int, Field(ge=0, le=1000)]
_ONE: Final = Rule("has(self.tierRef) != has(self.endpoint)", "give exactly one of tierRef and endpoint")


class TierRef(Model):
    """A ModelTier of this namespace."""

    name: Name
    """Name of the ModelTier."""


class Endpoint(Model):
    """An OpenAI-compatible API."""

    base_url: str = Field(
        min_length=8,
        max_length=512,
        pattern=r"^https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$",
    )
    """Base URL up to and with the version, for example https://api.example.com/v1. The administrator allows hosts."""
    model: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:@-]*$")
    """Name of the model at that API."""
    price: TokenPrice | None = None
    """What the API charges; needed for a budget in money."""


class Teacher(Model):
    """Who is learnt from: exactly one of a tier and an endpoint."""

    tier_ref: TierRef | None = None
    """A ModelTier, asked at its own Service past every policy: its access must be Open, or Keys with `keyRef`."""
    endpoint: Endpoint | None = None
    """An OpenAI-compatible API."""
    key_ref: SecretKeyRef | None = None
    """Key to ask with: the API's key, or one that the tier admits. Handed to the pods by reference."""
    terms_acknowledged: bool = False
    """You have read the terms of an external teacher and may train on its answers. Kept with the artifact."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        _ONE,
        Rule(
            "!has(self.endpoint) || self.termsAcknowledged",
            "an endpoint is somebody else's model: read its terms on training with answers, then set"
            " termsAcknowledged: true",
        ),
    )


class Judge(Model):
    """A model that reads an answer and gives it a score, from 0 to 1000 in hundreds: exactly one of a tier and an
    endpoint."""

    tier_ref: TierRef | None = None
    """A ModelTier, asked at its own Service past every policy: its access must be Open, or Keys with `keyRef`."""
    endpoint: Endpoint | None = None
    """An OpenAI-compatible API."""
    key_ref: SecretKeyRef | None = None
    """Key to ask with: the API's key, or one that the tier admits. Handed to the pods by reference."""
    terms_acknowledged: bool = False
    """You have read the terms of an external judge and may choose training rows by its scores. Needed with
    `minScorePermille`, and kept with the artifact."""
    rubric: str = Field(min_length=1, max_length=8192)
    """What makes an answer good, in plain text. It is shown to the judge as it is; nothing in it is a template."""
    min_score_permille: int | None = Field(default=None, ge=1, le=1000)
    """The teacher's answers that verifiers and filters keep must have this score to become training rows. Left out: the
    judge is not asked about them."""
    evaluation: bool = True
    """Score the answers to the sealed items too, for the report. The gate does not look at these scores."""
    max_tokens: int = Field(default=256, ge=16, le=1_000_000)
    """Longest reply; a model that reasons before it answers needs more."""
    concurrency: int = Field(default=8, ge=1, le=512)
    """Requests under way at once."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        _ONE,
        Rule(
            "!has(self.endpoint) || !has(self.minScorePermille) || self.termsAcknowledged",
            "the scores of somebody else's model would choose what the student learns from: read its terms on that,"
            " then set termsAcknowledged: true, or remove minScorePermille",
        ),
        Rule(
            "has(self.minScorePermille) || self.evaluation",
            "the judge would be asked nothing: set minScorePermille, or evaluation: true",
        ),
    )
