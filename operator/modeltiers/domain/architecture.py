"""The shape of a model: the numbers of its config.json that sizing reads, and whether they can be sized at all.

It decides which shapes are complete and of a kind whose arithmetic is known, and says so in words. It refuses to know
where the numbers came from (a spec, the catalogue), beyond the sentence that it passes on to status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the weights of a checkpoint are quantised."""

    method: str
    """FP8, AWQ, GPTQ, CompressedTensors or MXFP4."""
    bits: int
    """Bits of one quantised weight."""
    group_size: int | None = None
    """Weights along the input dimension that share a scale."""
    block: int | None = None
    """Edge of the square FP8 block that shares a scale."""
    experts_only: bool = False
    """Whether only the routed experts are quantised and the rest is 16-bit."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a model that decide layouts and memory. Fields are named after config.json; sizes are counts."""

    name: str
    hidden_size: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_position: int
    intermediate_size: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    moe_intermediate_size: int | None = None
    shared_experts: int | None = None
    dense_first_layers: int | None = None
    tie_embeddings: bool = False
    attention: str = "Full"
    """Full, SlidingAndFull or MLA."""
    sliding_window: int | None = None
    full_attention_layers: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    weight_bytes: int | None = None
    """Bytes of the weight files, where known."""
    quantization: WeightFormat | None = None
    facts: str = ""
    """Where the numbers came from, in words."""

    @property
    def expert_width(self) -> int:
        """Width of one routed expert; 0 in a model without experts."""
        return (self.moe_intermediate_size or 0) if self.experts else 0

    @property
    def shared_width(self) -> int:
        """Width of the experts that every token passes, together."""
        return self.expert_width * (self.shared_experts or 0)

    @property
    def full_layers(self) -> int:
        """Layers whose KV cache grows with the whole context."""
        return (self.full_attention_layers or 0) if self.attention == "SlidingAndFull" else self.layers

    @property
    def sliding_layers(self) -> int:
        """Layers whose KV cache ends at the window."""
        return self.layers - self.full_layers

    @property
    def value_head_dim(self) -> int:
        """Width of a value head. MLA keys carry the rope part besides; values are as wide as keys without it."""
        return self.head_dim - (self.qk_rope_head_dim or 0) if self.attention == "MLA" else self.head_dim

    @property
    def multimodal(self) -> bool:
        """Whether the model has towers for images or sound: config.json says so in the class name."""
        return self.name.endswith("ForConditionalGeneration")


# Families whose cache or layers have a form that the fields above cannot say. Prefixes of `architectures[0]`.
_NOT_UNDERSTOOD: Final[Mapping[str, str]] = {
    "Bamba": "Mamba layers keep a state of fixed size",
    "DeciLM": "layers differ from each other, and some have no attention",
    "DeepseekV32": "sparse MLA stores a packed row and an indexer's cache",
    "DeepseekV4": "compressed attention stores several tokens in one row",
    "FalconH1": "Mamba layers keep a state of fixed size",
    "FalconMamba": "Mamba layers keep a state of fixed size",
    "Gemma3n": "some layers use the KV cache of others",
    "Gemma4": "full and sliding layers have different heads",
    "GlmMoeDsa": "sparse MLA stores a packed row and an indexer's cache",
    "GraniteMoeHybrid": "Mamba layers keep a state of fixed size",
    "Jamba": "Mamba layers keep a state of fixed size",
    "KimiLinear": "linear attention keeps a state of fixed size",
    "Lfm2": "convolution layers keep a state of fixed size",
    "Llama4": "chunked attention ends at a chunk, and dense and expert layers alternate",
    "LongcatFlash": "a layer holds two attentions, and some experts have no weights",
    "Mamba": "Mamba layers keep a state of fixed size",
    "MiniMaxM3": "sparse attention keeps a cache of its own kind",
    "MiniMaxText01": "linear attention keeps a state of fixed size",
    "NemotronH": "Mamba layers keep a state of fixed size",
    "OlmoHybrid": "linear attention keeps a state of fixed size",
    "Plamo2": "Mamba layers keep a state of fixed size",
    "Qwen3Next": "linear attention keeps a state of fixed size",
    "Qwen3_5": "linear attention keeps a state of fixed size",
    "Zamba2": "Mamba layers keep a state of fixed size",
}


def not_understood(name: str) -> str | None:
    """Why a model of this class cannot be sized; None where nothing is known against it."""
    return next((why for prefix, why in _NOT_UNDERSTOOD.items() if name.startswith(prefix)), None)


def incomplete(architecture: Architecture) -> str | None:
    """What the numbers lack or contradict, naming the field; None when they make a whole."""
    a = architecture
    if a.attention_heads < 1 or a.kv_heads < 1:
        return "attentionHeads and kvHeads must be at least 1: models without attention cannot be sized"
    if a.intermediate_size is None and not (a.experts and a.moe_intermediate_size):
        return "give intermediateSize (dense model) or experts with moeIntermediateSize (mixture of experts)"
    if bool(a.experts) != bool(a.moe_intermediate_size):
        return "experts and moeIntermediateSize belong together: give both or neither"
    if a.dense_first_layers and a.intermediate_size is None:
        return f"denseFirstLayers is {a.dense_first_layers}, so intermediateSize is needed"
    if (a.dense_first_layers or 0) > a.layers:
        return f"denseFirstLayers ({a.dense_first_layers}) must not exceed layers ({a.layers})"
    return _incomplete_attention(a)


def _incomplete_attention(a: Architecture) -> str | None:
    if a.attention == "MLA":
        return _incomplete_mla(a)
    if a.attention_heads % a.kv_heads:
        return f"attentionHeads ({a.attention_heads}) must be a multiple of kvHeads ({a.kv_heads})"
    if a.attention == "SlidingAndFull":
        if not a.sliding_window or a.full_attention_layers is None:
            return "attention SlidingAndFull needs slidingWindow and fullAttentionLayers"
        if a.full_attention_layers > a.layers:
            return f"fullAttentionLayers ({a.full_attention_layers}) must not exceed layers ({a.layers})"
    return None


def _incomplete_mla(a: Architecture) -> str | None:
    if not a.kv_lora_rank or not a.qk_rope_head_dim:
        return "attention MLA needs kvLoraRank and qkRopeHeadDim"
    if a.head_dim <= a.qk_rope_head_dim:
        return f"headDim ({a.head_dim}) includes qkRopeHeadDim ({a.qk_rope_head_dim}), so it must be larger"
    return None
