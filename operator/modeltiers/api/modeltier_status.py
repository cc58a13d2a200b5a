"""Status of a ModelTier: what was seen, what was worked out, and what stands in the way.

Predicted numbers (sizing) and observed ones (replicas) are in different places, and nothing here is a guess shown as
fact: what is not known is absent or the word `unknown`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modeltiers.api.base import Model, atomic, listed_by

# A bound is a float64 to the API server; these powers of ten come back as they were written, 2**62 does not.
Generation = Annotated[int, Field(ge=0, le=10**18)]
Bytes = Annotated[int, Field(ge=0, le=10**16)]
Text = Annotated[str, Field(max_length=1024)]
ShortText = Annotated[str, Field(max_length=256)]


class Condition(Model):
    """One observation, in the form of metav1.Condition."""

    type: str = Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z]*$")
    """What is observed: Accepted, Sized, Reconciling, Ready, Stalled, UpdateAvailable, ScalingActive, CandidateReady,
    CredentialsFound, EndpointReachable, ModelListed."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: str = Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")
    """One word for why; the documentation lists all of them."""
    message: str = Field(max_length=4096)
    """What is seen, where, and the way out."""
    observed_generation: Generation
    """Generation of the spec this is about."""
    last_transition_time: str = Field(max_length=32, json_schema_extra={"format": "date-time"})
    """When `status` changed last."""


class Term(Model):
    """One term of the memory arithmetic, for one accelerator."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$")
    """Name of the term, for example weights or kvCache."""
    bytes: Bytes
    """Predicted bytes on the fullest accelerator."""
    how: ShortText
    """How it was worked out."""


class Candidate(Model):
    """A layout that was tried."""

    accelerator: ShortText
    """Name of the accelerator in the spec."""
    gpus: int = Field(ge=1, le=4096)
    """Accelerators per replica."""
    tensor_parallel: int = Field(ge=1, le=4096)
    """Tensor parallel size."""
    pipeline_parallel: int = Field(ge=1, le=4096)
    """Pipeline parallel size."""
    verdict: Literal["Chosen", "Fits", "TooSmall", "IllegalLayout", "NodeTooSmall", "NotUseful"]
    """What came of it."""
    why: Text
    """Why, with the numbers."""


class SizingStatus(Model):
    """The layout and every term it was worked out from. All numbers are predictions."""

    accelerator: ShortText
    """Name of the accelerator chosen from the spec."""
    product: ShortText
    """Its product label."""
    gpus_per_replica: int = Field(ge=1, le=4096)
    """Accelerators per replica."""
    tensor_parallel: int = Field(ge=1, le=4096)
    """Tensor parallel size."""
    pipeline_parallel: int = Field(ge=1, le=4096)
    """Pipeline parallel size."""
    max_model_len: int = Field(ge=1, le=10**9)
    """Longest prompt plus answer served, in tokens."""
    max_num_seqs: int = Field(ge=1, le=10**6)
    """Most sequences the engine runs at once."""
    memory_bytes: Bytes
    """Memory of one accelerator."""
    budget_bytes: Bytes
    """Part of it the engine may use."""
    kv_tokens: int = Field(ge=0, le=10**12)
    """Tokens of KV cache predicted to fit in one replica."""
    terms: list[Term] = Field(default=[], max_length=16, json_schema_extra=listed_by("name"))
    """The terms, for the fullest accelerator; they add up to at most the budget."""
    candidates: list[Candidate] = Field(default=[], max_length=64, json_schema_extra=atomic())
    """The layouts tried, in order, and why each won or lost."""
    notes: list[Text] = Field(default=[], max_length=8, json_schema_extra=atomic())
    """What else to know about the plan: assumptions made, accelerators passed over."""
    model_facts: ShortText
    """Where the model's numbers came from."""
    accelerator_facts: ShortText
    """Where the accelerator's numbers came from."""
    free_gpus: str = Field(max_length=64, pattern=r"^(unknown|[0-9]+)$")
    """Free accelerators of this kind when the plan was made, or unknown where the operator may not see nodes."""
    input_hash: str = Field(max_length=64, pattern=r"^[a-f0-9]+$")
    """Hash of the part of the spec that the plan was made from; the plan stays while it stays."""


class RevisionStatus(Model):
    """One revision of the tier: a workload of its own."""

    name: str = Field(max_length=63)
    """Name of the revision."""
    workload: str = Field(max_length=253)
    """Deployment that serves it."""
    image: str = Field(max_length=512)
    """Engine image it was recorded with."""
    replicas: int = Field(ge=0, le=100_000)
    """Pods that exist."""
    ready_replicas: int = Field(ge=0, le=100_000)
    """Pods that answer."""
    rollout: str = Field(max_length=256)
    """How a change is rolled out, and why so."""
    model: str | None = Field(default=None, max_length=512)
    """The model of a candidate."""
    max_model_len: int | None = Field(default=None, ge=1, le=10**9)
    """Longest prompt plus answer that a candidate serves, in tokens."""
    weight_permille: int | None = Field(default=None, ge=0, le=1000)
    """Share of conversations that a candidate gets while it is ready."""


class AutoscalingStatus(Model):
    """The last decision of the operator's own autoscaler, and what it was made from."""

    wanted: int = Field(ge=0, le=1000)
    """Pods that it wants."""
    reason: str = Field(max_length=64)
    """One word for why: Steady, ScaledUp, ScaledDown, Stabilizing, AtMinimum, AtMaximum, NoFreeAccelerators or
    MetricsUnknown."""
    message: Text
    """The arithmetic, in words."""
    in_flight: int | None = Field(default=None, ge=0, le=10**9)
    """Requests on the engines of the pods that were measured; absent when none was."""
    pods_measured: int = Field(ge=0, le=100_000)
    """Ready pods whose router said what the engine holds."""
    pods_ready: int = Field(ge=0, le=100_000)
    """Pods that were ready."""
    measured_at: str = Field(max_length=32, json_schema_extra={"format": "date-time"})
    """When these figures were seen first. They are looked at every 15 s; figures alone are written once a minute."""


class CostStatus(Model):
    """What the tier costs at the price in the spec."""

    per_hour_micros: int = Field(ge=0, le=10**18)
    """GPUs per replica x replicas that exist x price, in millionths of the currency."""
    currency: str = Field(max_length=3)
    """ISO 4217 code."""


class ModelTierStatus(Model):
    """What the operator saw and did."""

    observed_generation: Generation | None = None
    """Generation of the spec this status is about."""
    conditions: list[Condition] = Field(default=[], max_length=16, json_schema_extra=listed_by("type"))
    """Observations; Ready sums them up."""
    ready: str | None = Field(default=None, max_length=32)
    """Ready pods of wanted ones, for the READY column."""
    replicas: int | None = Field(default=None, ge=0, le=100_000)
    """Pods that exist."""
    ready_replicas: int | None = Field(default=None, ge=0, le=100_000)
    """Pods that answer."""
    selector: str | None = Field(default=None, max_length=512)
    """Label selector of the pods, for the scale subresource."""
    endpoint: str | None = Field(default=None, max_length=512)
    """Base URL to call the tier at, inside the cluster."""
    model: str | None = Field(default=None, max_length=512)
    """The model, for the MODEL column."""
    sizing: SizingStatus | None = None
    """The plan in force."""
    revisions: list[RevisionStatus] = Field(default=[], max_length=4, json_schema_extra=listed_by("name"))
    """Revisions of the tier, usually one."""
    autoscaling: AutoscalingStatus | None = None
    """What the operator's own autoscaler decided, when the spec asks for it."""
    cost: CostStatus | None = None
    """What it costs, when a price is given."""
