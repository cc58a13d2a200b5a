"""ModelTier: one rung of the capability ladder, served by vLLM in this cluster or by an external OpenAI-compatible API.

The models below are the resource. The CRD, the reference page and the CLI's help are generated from them, so every
field carries its description, its bounds and its units here and nowhere else. Status models live in `modeltier_status`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from modeltiers.api.autoscaling import Autoscaling
from modeltiers.api.base import Model, Rule, atomic, cel, distinct, listed_by
from modeltiers.api.fields import Image, LabelKey, LabelValue, Name, ObjectName, Quantity, SecretKeyRef
from modeltiers.api.model import ModelSource, Weights
from modeltiers.api.modeltier_status import ModelTierStatus

# No control characters: a NUL cannot be passed to a process, and a line break is never meant.
Argument = Annotated[
    str,
    Field(
        min_length=3,
        max_length=1024,
        pattern=r"^--[a-z0-9][a-z0-9-]*(\.[a-z0-9_.-]+)?(=[^\x00-\x1f\x7f]*)?$",
        json_schema_extra=cel(
            Rule("!self.contains('$(')", "an argument must not contain '$(': Kubernetes would replace what follows"),
        ),
    ),
]


class Accelerator(Model):
    """One kind of accelerator the tier may run on."""

    name: Name
    """Your own short name for it, shown in status."""
    product: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    """Value of the node label that names the product, for example NVIDIA-H100-80GB-HBM3."""
    product_label: LabelKey | None = None
    """Node label that carries the product. Left out: nvidia.com/gpu.product, or amd.com/gpu.product-name for AMD."""
    resource: LabelKey | None = None
    """Extended resource that one accelerator is requested by. Left out: nvidia.com/gpu, or amd.com/gpu for AMD."""
    memory: Quantity | None = None
    """Memory of one accelerator, as the driver reports it. Left out: the node's label, else the bundled table."""
    gpus_per_node: int | None = Field(default=None, ge=1, le=64)
    """Accelerators on one node. Left out: the largest node seen, else the bundled table."""


class Pinned(Model):
    """A layout chosen by hand instead of by sizing. It is still checked."""

    gpus: int = Field(ge=1, le=64)
    """Accelerators per replica: tensorParallel x pipelineParallel."""
    tensor_parallel: int = Field(ge=1, le=64)
    """`--tensor-parallel-size`."""
    pipeline_parallel: int | None = Field(default=None, ge=1, le=64)
    """`--pipeline-parallel-size`; 1 when left out."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.gpus == self.tensorParallel * (has(self.pipelineParallel) ? self.pipelineParallel : 1)",
            "gpus must equal tensorParallel x pipelineParallel",
        ),
    )


class Sizing(Model):
    """How many accelerators a replica gets."""

    mode: Literal["Auto", "Pinned"] = "Auto"
    """Auto works the layout out from the model; Pinned takes `pinned`."""
    objective: Literal["Cost", "Latency"] = "Cost"
    """Cost takes the fewest accelerators that fit; Latency takes the most of one node that help."""
    concurrency: int = Field(default=16, ge=1, le=4096)
    """Requests a replica should hold at once, each at `contextPerRequest`."""
    context_per_request: int | None = Field(default=None, ge=16, le=100_000_000)
    """Tokens of KV cache to plan for each of the concurrent requests. Left out: 4096, or maxModelLen if smaller."""
    pinned: Pinned | None = None
    """The layout, when mode is Pinned."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("(self.mode == 'Pinned') == has(self.pinned)", "mode Pinned needs pinned, and pinned needs mode Pinned"),
    )


class EnvVar(Model):
    """One environment variable of the engine: a value or a Secret's key."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the variable. Names that would change what the operator owns are refused, see the documentation."""
    value: str | None = Field(default=None, max_length=4096, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")
    """Plain value. It is passed on as it is: `$(NAME)` is not replaced."""
    secret_key_ref: SecretKeyRef | None = None
    """Value from a Secret of this namespace."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.value) != has(self.secretKeyRef)", "give exactly one of value and secretKeyRef"),
    )


class Cache(Model):
    """A volume that keeps downloaded weights and compiled kernels between restarts."""

    claim_name: ObjectName
    """PersistentVolumeClaim of this namespace. With more than one replica it must be ReadWriteMany."""


class EngineResources(Model):
    """CPU and memory of the engine container, where the computed requests do not suit."""

    cpu: Quantity | None = None
    """CPU request; no CPU limit is set."""
    memory: Quantity | None = None
    """Memory request and limit, shared memory included."""


class RouterOverride(Model):
    """The router before the engine, where the administrator's does not suit this tier."""

    image: Image | None = None
    """Router image, if the administrator allows a choice."""
    cpu: Quantity | None = None
    """CPU request; no CPU limit is set."""
    memory: Quantity | None = None
    """Memory request and limit."""


class Serving(Model):
    """The engine that serves the model."""

    profile: Name | None = None
    """Engine profile from the administrator's settings (image, environment, mounts)."""
    image: Image | None = None
    """Engine image, if the administrator allows a choice. Left out: the profile's, else the administrator's default."""
    args: list[Argument] = Field(default=[], max_length=32, json_schema_extra=atomic())
    """More vLLM flags, one per item as `--flag` or `--flag=value`. Only flags on the allow-list are accepted."""
    env: list[EnvVar] = Field(default=[], max_length=32, json_schema_extra=listed_by("name"))
    """More environment variables for the engine."""
    cache: Cache | None = None
    """Where downloaded weights are kept. Left out: they are downloaded again by every new pod."""
    resources: EngineResources | None = None
    """CPU and memory, where the computed requests do not suit."""
    router: RouterOverride | None = None
    """The router before the engine, where the administrator's does not suit."""
    shutdown_seconds: int = Field(default=120, ge=0, le=3600)
    """Longest answer to wait for when a pod stops."""
    startup_seconds: int | None = Field(default=None, ge=30, le=86_400)
    """Time the engine may take to start. Left out: worked out from the bytes of the weights."""


class Toleration(Model):
    """A taint that the tier's pods tolerate."""

    key: LabelKey | None = None
    """Taint key; left out with operator Exists it matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """Equal compares the value, Exists does not. Equal when left out."""
    value: LabelValue | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; every effect when left out."""
    toleration_seconds: int | None = Field(default=None, ge=0, le=2_147_483_647)
    """Seconds to stay on a node after a NoExecute taint."""

    # What Kubernetes would refuse in the pod is refused here, where its author sees it.
    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without key needs operator Exists",
        ),
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator Exists takes no value: remove it, or use operator Equal",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect NoExecute",
        ),
    )


class Scheduling(Model):
    """Where the tier's pods may run, beyond what the accelerator asks for."""

    node_selector: dict[LabelKey, LabelValue] = Field(default={}, max_length=16)
    """Labels a node must have."""
    tolerations: list[Toleration] = Field(default=[], max_length=16, json_schema_extra=atomic())
    """Taints to tolerate, besides the accelerator's own."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, for example nvidia."""


class Price(Model):
    """What the tier costs, as you pay it."""

    gpu_hour_micros: int = Field(ge=0, le=10**12)
    """Price of one accelerator for one hour, in millionths of the currency."""
    currency: str = Field(default="USD", min_length=3, max_length=3, pattern=r"^[A-Z]{3}$")
    """ISO 4217 code."""


class TokenPrice(Model):
    """Price of an external API."""

    input_per_million_micros: int = Field(ge=0, le=10**12)
    """Price of a million input tokens, in millionths of the currency."""
    output_per_million_micros: int = Field(ge=0, le=10**12)
    """Price of a million output tokens, in millionths of the currency."""
    currency: str = Field(default="USD", min_length=3, max_length=3, pattern=r"^[A-Z]{3}$")
    """ISO 4217 code."""


class External(Model):
    """A model behind an OpenAI-compatible API outside this tier."""

    base_url: str = Field(
        min_length=8,
        max_length=512,
        # ASCII only, no user info, no query, no fragment.
        pattern=r"^https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$",
    )
    """Base URL up to and with the version, for example https://api.example.com/v1. The administrator allows hosts."""
    model: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:@-]*$")
    """Name of the model at that API."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key. Left out: the API is called without one."""
    price: TokenPrice | None = None
    """What the API charges."""
    context_tokens: int | None = Field(default=None, ge=16, le=100_000_000)
    """Longest prompt plus answer that the API takes, in tokens. Left out: no request is too long for it."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.baseUrl.startsWith('https://') || !has(self.apiKeySecretRef)"
            " || self.baseUrl.matches('^http://[a-z0-9-]+[.][a-z0-9-]+[.]svc([.]cluster[.]local)?(:|/|$)')",
            "an API key is only sent over https, or to a Service of this cluster by its name NAME.NAMESPACE.svc: use an"
            " https:// baseUrl or leave apiKeySecretRef out",
        ),
    )


class TierAccess(Model):
    """Who may call the tier itself, past every policy."""

    mode: Literal["Policy", "Open", "Keys"] = "Policy"
    """Policy: nobody; the tier answers what a RoutingPolicy sends to it, and nothing else. Open: everybody who reaches
    its Service. Keys: with a key of the namespace's Secret of client keys."""
    keys: list[Name] = Field(default=[], max_length=200, json_schema_extra=distinct())
    """Names of keys in that Secret; every key of it when left out."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.keys) || size(self.keys) == 0 || self.mode == 'Keys'",
            "keys are named but mode is not Keys: set mode: Keys, or remove keys",
        ),
    )


class Capabilities(Model):
    """What the model can take, where that is not known by itself; a request that needs more never goes to it."""

    tools: bool | None = None
    """Calls tools. Left out: as the engine's flags say, yes for an external API."""
    images: bool | None = None
    """Reads images. Left out: no."""
    audio: bool | None = None
    """Reads or speaks audio. Left out: no."""
    json_schema: bool | None = None
    """Keeps to a JSON schema. Left out: yes."""
    logprobs: bool | None = None
    """Returns token logprobs, from which confidence is judged. Left out: yes."""
    embeddings: bool | None = None
    """Answers /v1/embeddings. Left out: no."""


class Candidate(Model):
    """A second revision of the tier, beside the first: another model under the same name, for a share of requests."""

    model: Weights
    """The model that it serves, under the tier's name; everything else is as in the tier."""
    replicas: int = Field(default=1, ge=1, le=1000)
    """Its pods, beside those of the tier."""
    weight_permille: int = Field(ge=0, le=1000)
    """How many of a thousand conversations it gets while it is ready, whatever the number of pods. 0: it runs and gets
    none."""


class ModelTierSpec(Model):
    """What you want: exactly one of `model` (served here) and `external` (served elsewhere)."""

    rank: int | None = Field(default=None, ge=0, le=1000)
    """Place on the ladder; lower is cheaper."""
    model: ModelSource | None = None
    """The model to serve in this cluster."""
    external: External | None = None
    """A model served by somebody else."""
    accelerators: list[Accelerator] = Field(default=[], max_length=8, json_schema_extra=listed_by("name"))
    """Kinds of accelerator in order of preference; the first that fits is taken."""
    sizing: Sizing | None = None
    """How many accelerators a replica gets."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """Copies of the model. Leave it out of the manifest when an autoscaler owns it; with `autoscaling` it has no
    effect."""
    autoscaling: Autoscaling | None = None
    """Bounds and target of the operator's own autoscaler. Left out: `replicas` rules, which HPA, KEDA and
    `kubectl scale` write through the scale subresource."""
    candidate: Candidate | None = None
    """A second revision beside the first, to be tried on a share of requests."""
    serving: Serving | None = None
    """The engine that serves the model."""
    scheduling: Scheduling | None = None
    """Where the pods may run."""
    price: Price | None = None
    """What an accelerator costs, for the figures in status."""
    access: TierAccess | None = None
    """Who may call the tier itself, past every policy; nobody when left out. Without a router before the engine
    (administrator's setting) everybody who reaches its Service may."""
    capabilities: Capabilities | None = None
    """What the model can take, where that is not known by itself."""
    rollout_token: str | None = Field(
        default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$"
    )
    """Change it to roll the tier once and take what is newer: plan, catalogue, image, defaults."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.model) != has(self.external)", "give exactly one of model and external"),
        Rule(
            "!has(self.model) || (has(self.accelerators) && size(self.accelerators) > 0)",
            "a tier with a model needs at least one entry in accelerators",
        ),
        Rule(
            "!has(self.external) || !(has(self.accelerators) && size(self.accelerators) > 0 || has(self.sizing)"
            " || has(self.serving) || has(self.scheduling) || has(self.price))",
            "an external tier has no accelerators, sizing, serving, scheduling or price: remove them"
            " (its price goes to external.price)",
        ),
        Rule("!has(self.external) || self.replicas == 1", "an external tier has no replicas: remove the field"),
        Rule("!has(self.external) || !has(self.candidate)", "an external tier has no revisions: remove candidate"),
        Rule("!has(self.external) || !has(self.autoscaling)", "an external tier has no pods: remove autoscaling"),
        Rule(
            "has(self.model) == has(oldSelf.model)",
            "a tier cannot change between model and external. Create a new ModelTier and delete this one",
        ),
    )


class ModelTier(Model):
    """A rung of the capability ladder: vLLM with the right GPU count, parallelism and context, or an external API."""

    api_version: Literal["modeltiers.dev/v1alpha1"]
    kind: Literal["ModelTier"]
    metadata: dict[str, Any]
    spec: ModelTierSpec
    status: ModelTierStatus | None = None

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be at most 50 lower-case letters, digits and '-', beginning with a letter:"
            " Services and labels are named after it",
        ),
    )
