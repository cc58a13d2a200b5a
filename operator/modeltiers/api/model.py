"""A model and what sizing needs to know of it: where its weights are, and the numbers of its config.json."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modeltiers.api.base import Model, Rule, cel
from modeltiers.api.fields import SecretKeyRef

Dim = Annotated[int, Field(ge=1, le=1_000_000)]
Small = Annotated[int, Field(ge=0, le=4096)]


class WeightQuantization(Model):
    """How the checkpoint's weights are quantised, when they are."""

    method: Literal["FP8", "AWQ", "GPTQ", "CompressedTensors", "MXFP4"]
    """Quantisation scheme of the checkpoint."""
    bits: int = Field(ge=2, le=8)
    """Bits per quantised weight."""
    group_size: int | None = Field(default=None, ge=16, le=1024)
    """Weights that share one scale along the input dimension (AWQ, GPTQ, compressed-tensors, MXFP4)."""
    block: int | None = Field(default=None, ge=16, le=1024)
    """Edge of the square FP8 block that shares one scale; leave out for per-tensor or per-channel FP8."""


class Architecture(Model):
    """The numbers of a model's config.json that sizing needs, for models that the bundled catalogue lacks."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """Value of `architectures[0]` in config.json, for example LlamaForCausalLM."""
    hidden_size: Dim
    """`hidden_size`: width of the residual stream."""
    layers: int = Field(ge=1, le=1024)
    """`num_hidden_layers`."""
    attention_heads: Small
    """`num_attention_heads`."""
    kv_heads: Small
    """`num_key_value_heads`; equal to the attention heads where config.json has none."""
    head_dim: int = Field(ge=1, le=2048)
    """`head_dim` where config.json has it, else hidden size / attention heads."""
    vocab_size: int = Field(ge=1, le=4_000_000)
    """`vocab_size`."""
    intermediate_size: Dim | None = None
    """`intermediate_size`: width of the dense MLP; leave out for models whose every layer is a mixture of experts."""
    experts: int | None = Field(default=None, ge=1, le=4096)
    """Routed experts per mixture-of-experts layer."""
    experts_per_token: int | None = Field(default=None, ge=1, le=256)
    """Routed experts active for a token."""
    moe_intermediate_size: Dim | None = None
    """`moe_intermediate_size`: width of one expert."""
    shared_experts: int | None = Field(default=None, ge=0, le=64)
    """Experts that every token passes."""
    dense_first_layers: int | None = Field(default=None, ge=0, le=1024)
    """Leading layers with a dense MLP in a mixture-of-experts model."""
    tie_embeddings: bool = False
    """`tie_word_embeddings`: input and output embedding are one matrix."""
    attention: Literal["Full", "SlidingAndFull", "MLA"] = "Full"
    """Kind of attention: Full (MHA, GQA, MQA), SlidingAndFull (some layers see a window only) or MLA (one latent)."""
    sliding_window: Dim | None = None
    """Tokens a sliding-window layer sees."""
    full_attention_layers: int | None = Field(default=None, ge=0, le=1024)
    """Layers with full attention in a SlidingAndFull model."""
    kv_lora_rank: Dim | None = None
    """`kv_lora_rank` of an MLA model."""
    qk_rope_head_dim: Dim | None = None
    """`qk_rope_head_dim` of an MLA model."""
    max_position: int = Field(ge=1, le=100_000_000)
    """Longest context the model supports, in tokens (`max_position_embeddings`, rope scaling included)."""
    weight_bytes: int | None = Field(default=None, ge=1, le=10**14)
    """Bytes of the checkpoint's weight files. Better than the estimate made from the shapes."""
    quantization: WeightQuantization | None = None
    """Set when the checkpoint's weights are quantised."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.intermediateSize) || (has(self.experts) && has(self.moeIntermediateSize))",
            "give intermediateSize (dense model) or experts with moeIntermediateSize (mixture of experts)",
        ),
        Rule(
            "self.attention != 'MLA' || (has(self.kvLoraRank) && has(self.qkRopeHeadDim))",
            "attention MLA needs kvLoraRank and qkRopeHeadDim",
        ),
        Rule(
            "self.attention != 'SlidingAndFull' || (has(self.slidingWindow) && has(self.fullAttentionLayers))",
            "attention SlidingAndFull needs slidingWindow and fullAttentionLayers",
        ),
        Rule(
            "!has(self.fullAttentionLayers) || self.fullAttentionLayers <= self.layers",
            "fullAttentionLayers must not exceed layers",
        ),
    )


_PLACES = (
    r"hf://[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
    r"|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
)
_NO_DOTS = Rule("!self.contains('..')", "source must not contain '..'")
_SOURCE_RULES = (
    Rule("self.source.startsWith('hf://') || !has(self.revision)", "revision is for hf:// sources only: remove it"),
    Rule(
        "self.source.startsWith('hf://') || !has(self.tokenSecretRef)",
        "tokenSecretRef is for hf:// sources only: remove it",
    ),
    Rule(
        "!self.source.startsWith('pvc://') || has(self.architecture)",
        "a pvc:// model needs architecture: copy the numbers from its config.json",
    ),
)


class Weights(Model):
    """A model's weights: where they are and how they are loaded."""

    source: str = Field(
        min_length=6,
        max_length=512,
        pattern=f"^({_PLACES})$",
        json_schema_extra=cel(_NO_DOTS),
    )
    """Where the weights are: `hf://ORG/NAME` (Hugging Face Hub) or `pvc://CLAIM/PATH` (a folder on a volume of this
    namespace)."""
    revision: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Commit, tag or branch of an hf:// model. Pin a commit: a branch may change under a running tier."""
    max_model_len: int | None = Field(default=None, ge=16, le=100_000_000)
    """Longest prompt plus answer to serve, in tokens. Left out: the longest the model supports that fits."""
    quantization: Literal["Auto", "FP8"] = "Auto"
    """Auto serves the checkpoint as it is. FP8 quantises 16-bit weights to 8 bits while loading."""
    kv_cache_dtype: Literal["Auto", "FP8"] = "Auto"
    """Type of the KV cache: Auto is the model's own type, FP8 halves it."""
    token_secret_ref: SecretKeyRef | None = None
    """Hugging Face token for gated models, handed to the engine by reference."""
    architecture: Architecture | None = None
    """Overrides the bundled catalogue; needed for pvc:// models and for models the catalogue does not know."""

    __cel__: ClassVar[tuple[Rule, ...]] = _SOURCE_RULES


class ModelSource(Weights):
    """Which model the tier serves and how it is loaded."""

    source: str = Field(
        min_length=6,
        max_length=512,
        pattern=rf"^({_PLACES}|distill://[a-z]([-a-z0-9]*[a-z0-9])?)$",
        json_schema_extra=cel(_NO_DOTS),
    )
    """Where the weights are: `hf://ORG/NAME` (Hugging Face Hub), `pvc://CLAIM/PATH` (a folder on a volume of this
    namespace), or `distill://NAME`: what the DistillJob NAME of this namespace says, its incumbent until its student is
    promoted."""
    served_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:-]*$",
    )
    """Name that clients put in the request's `model`. Defaults to the tier's name. Cannot be changed."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        *_SOURCE_RULES,
        Rule(
            "!self.source.startsWith('distill://') || !has(self.architecture)",
            "a distill:// model has the architecture that its DistillJob says: remove architecture",
        ),
        Rule(
            "has(self.servedName) == has(oldSelf.servedName)"
            " && (!has(self.servedName) || self.servedName == oldSelf.servedName)",
            "servedName cannot be changed: clients depend on it. Create a new ModelTier and delete this one",
        ),
    )
