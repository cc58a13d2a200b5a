"""Status of a RoutingPolicy: which table serves where, what requests met, and what stands in the way.

Counts come from the routers and are of a stated time; what was not measured is absent or the word `unknown`, never a
guess shown as fact.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modeltiers.api.base import Model, atomic, listed_by
from modeltiers.api.modeltier_status import Generation, ShortText, Text

Pods = Annotated[int, Field(ge=0, le=1_000_000)]
Requests = Annotated[int, Field(ge=0, le=10**15)]
Permille = Annotated[int, Field(ge=0, le=1000)]
Micros = Annotated[int, Field(ge=0, le=10**18)]
Version = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
TierName = Annotated[str, Field(min_length=1, max_length=63)]


class PolicyCondition(Model):
    """One observation, in the form of metav1.Condition."""

    type: str = Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z]*$")
    """What is observed: Accepted, Compiled, TiersReady, Live, KeysFound, Entry, Exported, Ready, Reconciling, Stalled,
    Doubtful."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: str = Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")
    """One word for why; the documentation lists all of them."""
    message: str = Field(max_length=4096)
    """What is seen, where, and the way out."""
    observed_generation: Generation
    """Generation of the spec this is about."""
    last_transition_time: Time
    """When `status` changed last."""


class EntryStatus(Model):
    """Where requests enter the ladder."""

    tier: TierName
    """The tier before whose routers the policy's Service stands."""
    since: Time
    """Since when it does."""


class TableStatus(Model):
    """The table that the present spec compiles to, and how far it has come."""

    version: Version
    """Version of the table: the hash of its content."""
    live: Pods
    """Routers that are known to serve this version."""
    pods: Pods
    """Routers that should serve it."""
    unreachable: Pods = 0
    """Routers that could not be asked."""
    bytes: int = Field(ge=0, le=1_048_576)
    """Size of the table, of at most 200,000 bytes."""


class LastGood(Model):
    """The table that goes on serving while the present spec cannot be compiled."""

    version: Version
    """Version of that table."""


class TierShare(Model):
    """What one tier had of the requests."""

    name: TierName
    """Name of the tier."""
    requests: Requests
    """Requests that it answered."""
    permille: Permille
    """Its share of all requests that were answered."""


class ReasonCount(Model):
    """Why requests went up the ladder."""

    reason: str = Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")
    """The word that records, headers and metrics use."""
    requests: Requests
    """How many judged answers a tier above was asked for because of it."""


class TrafficStatus(Model):
    """What requests met, counted over a stated time."""

    since: Time
    """Begin of the time that was counted."""
    until: Time
    """End of the time that was counted."""
    requests: Requests
    """Requests that were answered."""
    judged: Requests = 0
    """Answers that were judged; a request can have several, one a tier."""
    shares: list[TierShare] = Field(default=[], max_length=10, json_schema_extra=listed_by("name"))
    """Who answered them, in the order of the ladder."""
    escalated_permille: Permille | None = None
    """Share of the judged answers for which a tier above was asked. Absent: none was judged."""
    escalations: list[ReasonCount] = Field(default=[], max_length=16, json_schema_extra=listed_by("reason"))
    """Why answers went up, the most frequent reason first."""
    fallback_permille: Permille | None = None
    """Share of requests that another tier answered because the one that was wanted could not."""
    partial: bool = False
    """Whether some routers could not be asked, so that their requests are missing."""


class CostFact(Model):
    """One number that the saving was worked out from."""

    name: str = Field(min_length=1, max_length=96, pattern=r"^[A-Za-z][A-Za-z0-9.-]*$")
    """Name of the number in the formula, after the name of the tier that it is about."""
    value: ShortText
    """Its value with its unit, or unknown and why."""


class PolicyCost(Model):
    """What a thousand requests cost, and what they would have cost on the last tier of the ladder alone."""

    per_thousand_micros: Micros | None = None
    """Cost of a thousand requests, in millionths of the currency. Absent: unknown."""
    all_large_per_thousand_micros: Micros | None = None
    """The same requests on the last tier alone. Absent: unknown."""
    saved_permille: int | None = Field(default=None, ge=-1_000_000, le=1000)
    """Part of the second that the first saves; below 0 where it costs more. Absent: unknown."""
    currency: str | None = Field(default=None, max_length=3)
    """ISO 4217 code."""
    unknown: ShortText | None = None
    """What is missing, where one of the numbers above is."""
    formula: Text
    """How they are worked out."""
    inputs: list[CostFact] = Field(default=[], max_length=64, json_schema_extra=listed_by("name"))
    """The numbers in the formula."""


class RoutingPolicyStatus(Model):
    """What the operator compiled, and what the routers say."""

    observed_generation: Generation | None = None
    """Generation of the spec this status is about."""
    conditions: list[PolicyCondition] = Field(default=[], max_length=16, json_schema_extra=listed_by("type"))
    """Observations; Ready sums them up."""
    url: str | None = Field(default=None, max_length=512)
    """Base URL to call the policy at, inside the cluster."""
    ladder: str | None = Field(default=None, max_length=1024)
    """The tiers in order, for the TIERS column."""
    live: str | None = Field(default=None, max_length=32)
    """Routers with the present table of all, for the LIVE column."""
    escalated: str | None = Field(default=None, max_length=32)
    """Share of judged answers for which a tier above was asked, for the ESCALATED column."""
    entry: EntryStatus | None = None
    """Where requests enter; the condition Entry says why."""
    table: TableStatus | None = None
    """The table of the present spec."""
    last_good: LastGood | None = None
    """What serves instead, while the present spec cannot be compiled."""
    doubts: list[Text] = Field(default=[], max_length=20, json_schema_extra=atomic())
    """What in the spec does nothing, never happens or contradicts itself, each with a way out."""
    traffic: TrafficStatus | None = None
    """What requests met."""
    cost: PolicyCost | None = None
    """What they cost."""
