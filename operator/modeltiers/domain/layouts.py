"""Which layouts vLLM starts: how a model may be cut over accelerators, and the reason when it may not.

A list of named checks over (architecture, layout), read from top to bottom; the first that objects gives its reason in
words with the numbers. It refuses to know about memory: a legal layout may still not fit. Rules are those of vLLM 0.32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from modeltiers.domain.architecture import Architecture, WeightFormat

MAX_TENSOR_PARALLEL: Final = 64
VOCAB_PADDING: Final = 64  # rows; vocab_parallel_embedding.py pads to it before it splits
# The largest group in common use. Assumed where a 4-bit checkpoint does not say: its multiples are those of 32 and 64.
ASSUMED_GROUP: Final = 128

# Classes that vLLM's table of supported models marks for pipeline parallelism (docs/models/supported_models.md).
# Another class may well support it, but one that does not stops with NotImplementedError.
PIPELINE: Final = frozenset(
    {
        "DeepseekForCausalLM",
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "FalconForCausalLM",
        "GraniteForCausalLM",
        "GraniteMoeForCausalLM",
        "InternLM2ForCausalLM",
        "InternLM3ForCausalLM",
        "LlamaForCausalLM",
        "MiMoForCausalLM",
        "MiniMaxM2ForCausalLM",
        "MistralForCausalLM",
        "MistralLarge3ForCausalLM",
        "MixtralForCausalLM",
        "NemotronForCausalLM",
        "Olmo2ForCausalLM",
        "OlmoForCausalLM",
        "OlmoeForCausalLM",
        "Phi3ForCausalLM",
        "PhiForCausalLM",
        "PhiMoEForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "SeedOssForCausalLM",
        "SmolLM3ForCausalLM",
        "SolarForCausalLM",
    }
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one replica is cut: `tensor_parallel` x `pipeline_parallel` accelerators."""

    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: bool = False
    """Whole experts a rank (`--enable-expert-parallel`) instead of a slice of every expert."""

    @property
    def gpus(self) -> int:
        """Accelerators one replica takes."""
        return self.tensor_parallel * self.pipeline_parallel


Check = Callable[[Architecture, Layout], str | None]


def heads_divide(a: Architecture, at: Layout) -> str | None:
    """Every rank computes the same number of attention heads (checked by vLLM's configuration)."""
    if a.attention_heads % at.tensor_parallel:
        return f"{a.attention_heads} attention heads do not divide by TP {at.tensor_parallel}"
    return None


def kv_heads_split_or_replicate(a: Architecture, at: Layout) -> str | None:
    """KV heads are split evenly or replicated evenly. vLLM does not check this before its workers fail on it."""
    if a.attention == "MLA" or a.kv_heads % at.tensor_parallel == 0 or at.tensor_parallel % a.kv_heads == 0:
        return None
    return f"{a.kv_heads} KV heads neither split over nor replicate to TP {at.tensor_parallel}"


def vocabulary_divides(a: Architecture, at: Layout) -> str | None:
    """The embedding is padded to a multiple of 64 rows and then split: powers of two up to 64 always pass."""
    if at.tensor_parallel > MAX_TENSOR_PARALLEL:
        return f"TP {at.tensor_parallel} is more than {MAX_TENSOR_PARALLEL}"
    padded = padded_vocab(a)
    if padded % at.tensor_parallel:
        return f"the vocabulary, padded to {padded} rows, does not divide by TP {at.tensor_parallel}"
    return None


def mlp_divides(a: Architecture, at: Layout) -> str | None:
    """Column and row parallel layers assert that their width divides."""
    for what, width in (("MLP", a.intermediate_size or 0), ("shared expert", a.shared_width)):
        if width % at.tensor_parallel:
            return f"{what} width {width} does not divide by TP {at.tensor_parallel}"
    return None


def experts_divide(a: Architecture, at: Layout) -> str | None:
    """Experts are cut like any MLP, or spread whole; then every rank needs at least one."""
    if at.expert_parallel:
        if not a.experts:
            return "expert parallelism needs a model with experts"
        if at.tensor_parallel > a.experts:
            return f"{a.experts} experts are too few for TP {at.tensor_parallel} with whole experts"
        return None
    if a.expert_width % at.tensor_parallel:
        return f"expert width {a.expert_width} does not divide by TP {at.tensor_parallel}"
    return None


def quantised_experts_divide(a: Architecture, at: Layout) -> str | None:
    """A slice of an expert holds whole quantisation blocks. Whole experts need no slice."""
    form = a.quantization
    if form is None or at.expert_parallel or at.tensor_parallel == 1 or not a.experts:
        return None
    unit = _moe_unit(form)
    shard = a.expert_width // at.tensor_parallel
    if shard % unit:
        cut = f"expert width {a.expert_width} / TP {at.tensor_parallel} = {shard}"
        return f"{cut} is not a multiple of the {_unit_name(form, unit)}"
    return None


def quantised_layers_divide(a: Architecture, at: Layout) -> str | None:
    """A slice of a quantised matrix holds whole quantisation blocks, on the side that is cut."""
    form = a.quantization
    if form is None or form.experts_only or at.tensor_parallel == 1:
        return None
    for what, shard, unit in _shards(a, at.tensor_parallel, form):
        if shard % unit:
            cut = f"{what} of a rank at TP {at.tensor_parallel} is {shard}"
            return f"{cut}, not a multiple of the {_unit_name(form, unit)}"
    return None


def stages_have_layers(a: Architecture, at: Layout) -> str | None:
    """Every stage needs a layer. vLLM's configuration accepts an empty stage."""
    if at.pipeline_parallel > a.layers:
        return f"PP {at.pipeline_parallel} is more than the {a.layers} layers"
    return None


def stages_are_supported(a: Architecture, at: Layout) -> str | None:
    """Pipeline stages only where vLLM's model class is known to have them and where their cache can be sized."""
    if at.pipeline_parallel == 1:
        return None
    if a.attention == "SlidingAndFull":
        return "PP: how the cache groups of sliding-window layers fall on stages is not modelled yet"
    if a.name not in PIPELINE:
        return f"PP: {a.name} is not known to support pipeline stages"
    return None


EXPERT_CHECKS: Final[tuple[Check, ...]] = (experts_divide, quantised_experts_divide)
CHECKS: Final[tuple[Check, ...]] = (
    heads_divide,
    kv_heads_split_or_replicate,
    vocabulary_divides,
    mlp_divides,
    quantised_layers_divide,
    stages_have_layers,
    stages_are_supported,
    *EXPERT_CHECKS,
)


def legal(architecture: Architecture, tp: int, pp: int, expert_parallel: bool = False) -> str | None:
    """Why vLLM would not start this layout, in words with numbers; None when nothing speaks against it."""
    return _first(CHECKS, architecture, Layout(tp, pp, expert_parallel))


def choose(architecture: Architecture, tp: int, pp: int) -> Layout | str:
    """The layout of this size, or why there is none.

    Experts are cut like every other matrix where that is legal, since then every rank does the same work for every
    token. They stay whole only where cutting is what forbids the layout.
    """
    cut = Layout(tp, pp)
    reason = _first(CHECKS, architecture, cut)
    if reason is None:
        return cut
    whole = Layout(tp, pp, expert_parallel=True)
    if (
        architecture.experts
        and tp > 1
        and _first(EXPERT_CHECKS, architecture, cut)
        and not _first(CHECKS, architecture, whole)
    ):
        return whole
    return reason


def padded_vocab(a: Architecture) -> int:
    """Rows of the embedding after padding."""
    return -(-a.vocab_size // VOCAB_PADDING) * VOCAB_PADDING


def _first(checks: tuple[Check, ...], a: Architecture, at: Layout) -> str | None:
    return next((reason for check in checks if (reason := check(a, at))), None)


def _group(form: WeightFormat) -> int:
    return form.group_size or ASSUMED_GROUP


def _moe_unit(form: WeightFormat) -> int:
    if form.method == "MXFP4":
        return 32
    if form.bits >= 8:
        return form.block or 16
    return math.lcm(_group(form), 128)


def _shards(a: Architecture, tp: int, form: WeightFormat) -> Iterator[tuple[str, int, int]]:
    """(what, its size on a rank, what that must be a multiple of) for the sides of matrices that TP cuts."""
    into, out = _units(form)
    yield "attention output", a.attention_heads * a.head_dim // tp, out
    yield "attention input", a.attention_heads * a.value_head_dim // tp, into
    if a.attention != "MLA":
        yield "key and value output", max(1, a.kv_heads // tp) * a.head_dim, out
    for what, width in (("MLP", a.intermediate_size or 0), ("shared expert", a.shared_width)):
        yield f"{what} output", width // tp, out
        yield f"{what} input", width // tp, into


def _units(form: WeightFormat) -> tuple[int, int]:
    """What input and output shards must be multiples of."""
    if form.method == "MXFP4":
        return 32, 32
    if form.bits >= 8:
        # Block FP8 (fp8_utils.py); else 16 for the tensor cores' tiles.
        return form.block or 16, form.block or 16
    # Marlin's tiles (marlin_utils.py), and whole groups.
    return math.lcm(_group(form), 128), 64


def _unit_name(form: WeightFormat, unit: int) -> str:
    if form.block == unit:
        return f"FP8 block {unit}"
    if form.bits < 8 and unit == _group(form):
        return f"group size {unit}" + ("" if form.group_size else " (assumed)")
    return f"{unit} that {form.method} kernels need"
