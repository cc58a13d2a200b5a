"""What one rank of an engine holds in memory: weights, KV cache, and everything else, in whole bytes.

It adds up what vLLM will find when it profiles itself (v1/worker/gpu_worker.py), term by term, on the fullest stage.
Shapes are arithmetic; what is not is a named constant below with its source, or the word `assumed`. It refuses to know
whether a layout is legal, and it measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from modeltiers.domain.architecture import Architecture, WeightFormat
from modeltiers.domain.layouts import Layout, padded_vocab

MIB: Final = 1024**2
GIB: Final = 1024**3

UTILIZATION_PERMILLE: Final = 920
"""`--gpu-memory-utilization`: vLLM's default, but set explicitly so that an upgrade cannot move it."""

BLOCK_TOKENS: Final = 16
"""Tokens in a KV block: vLLM's default on GPUs."""
MLA_BLOCK_TOKENS: Final = 128
"""Tokens in a KV block of an MLA model: its kernels want 64 or 128, the larger is assumed."""
STEPS_IN_FLIGHT: Final = 2
"""Steps whose tokens a sliding window must hold besides itself: asynchronous scheduling keeps two, stages one each."""

ALLOCATOR_PERMILLE: Final = 20
"""Padding and fragmentation of the weights: KAITO measured 1.02 x weight files on vLLM 0.10.1."""
CONTEXT: Final = 615 * MIB
"""CUDA context and libraries on each accelerator: KAITO measured 0.6 GiB outside torch on vLLM 0.10.1."""
COMMUNICATION: Final = 1 * GIB
"""NCCL and all-reduce buffers on each accelerator when a replica has more than one: assumed."""
ACTIVATIONS_LEAST: Final = 1741 * MIB
"""Least peak of activations: KAITO measured 1.7 GiB on vLLM 0.10.1."""
ACTIVATION_HALVES: Final = {1: 22, 2: 13, 4: 10}
"""Peak of a step in half hidden-sized 16-bit rows a token, by TP: dense models in AIConfigurator's memory model."""
ACTIVATION_HALVES_MOE: Final = {1: 44, 2: 26, 4: 20}
"""The same for mixtures of experts."""
SAMPLER_BYTES: Final = 20
"""Bytes a logit costs while sampling: 32-bit logits, their sorted copy, 64-bit indices. Assumed."""
MLA_WORKSPACE_TOKENS: Final = 64 * 1024
"""Tokens of latent that chunked prefill projects up at once: the largest workspace in vLLM's MLA backend."""
GRAPHS: Final = 512 * MIB
"""CUDA graphs: a base, and so much a layer below. Assumed: 1 GiB for 32 layers, inside the 0.5 to 2 GiB often seen."""
GRAPHS_LAYER: Final = 16 * MIB
DRIVER: Final = 256 * MIB
"""Memory that the driver reports but no process gets: this and 1 % of the whole. Assumed, above what torch reports."""
DRIVER_PERMILLE: Final = 10
TOWER: Final = 1 * GIB
"""Activations and cache of an image or sound tower, and as much for its weights without weightBytes. Assumed."""
Q_LORA_RANKS: Final = 3
"""`q_lora_rank` of an MLA model in units of kv_lora_rank: 1536 / 512 in DeepSeek V3 and Kimi K2; assumed for others."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the arithmetic: bytes on the fullest accelerator of a replica."""

    name: str
    bytes: int
    how: str


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is told to hold: limits of one step, and the types of weights and cache."""

    max_num_batched_tokens: int
    max_num_seqs: int
    weights_fp8: bool = False
    kv_fp8: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage: how many layers it has, how many of them with a dense MLP, and what hangs at its ends."""

    layers: int
    dense: int
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of weights by kind."""

    embedding: int
    attention: int
    mlp: int
    experts: int
    replicated: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.attention + self.mlp + self.experts + self.replicated

    def scaled(self, numerator: int, denominator: int) -> Weights:
        """In proportion, each rounded up."""
        parts = (self.embedding, self.attention, self.mlp, self.experts, self.replicated)
        return Weights(*(-(-part * numerator // denominator) for part in parts))


@dataclass(frozen=True, slots=True)
class Cache:
    """How vLLM pages the KV cache of one rank.

    Layers are put in groups of equal size; a request takes blocks from every group, and one block serves all layers of
    a group. Sliding groups never take more than `window_blocks` a request, besides the tokens in flight.
    """

    block_tokens: int
    block_bytes: int
    full_groups: int
    sliding_groups: int
    window_blocks: int
    flight_blocks: int

    def blocks(self, tokens: int, requests: int = 1) -> int:
        """Blocks that so many requests of this length need at once."""
        whole = -(-tokens // self.block_tokens)
        full = requests * whole * self.full_groups
        window = min(requests * whole, requests * min(whole, self.window_blocks) + self.flight_blocks)
        return full + window * self.sliding_groups

    def requests(self, tokens: int, blocks: int) -> int:
        """Requests of this length that so many blocks hold."""
        whole = -(-tokens // self.block_tokens)
        plain = blocks // (whole * (self.full_groups + self.sliding_groups))
        if not self.sliding_groups:
            return plain
        each = whole * self.full_groups + min(whole, self.window_blocks) * self.sliding_groups
        return max(plain, (blocks - self.flight_blocks * self.sliding_groups) // each, 0)

    def longest(self, blocks: int, limit: int) -> int:
        """Longest single request that so many blocks hold, at most `limit` tokens; 0 when there is no block."""
        if self.blocks(limit) <= blocks:
            return limit
        low, high = 0, -(-limit // self.block_tokens)  # in blocks of tokens: low holds, high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.blocks(middle * self.block_tokens) <= blocks else (low, middle)
        return low * self.block_tokens


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of the fullest accelerator of a layout. What is left for KV may be below zero."""

    budget: int
    weights: Weights
    stage: Stage
    allocator: int
    context: int
    communication: int
    activations: int
    graphs: int
    driver: int
    towers: int
    cache: Cache

    @property
    def overhead(self) -> int:
        """Everything but weights and KV cache."""
        return (
            self.allocator
            + self.context
            + self.communication
            + self.activations
            + self.graphs
            + self.driver
            + self.towers
        )

    @property
    def cache_bytes(self) -> int:
        """What is left for the KV cache."""
        return self.budget - self.weights.total - self.overhead

    @property
    def blocks(self) -> int:
        """Blocks that requests can use: all but the null block."""
        return max(0, self.cache_bytes // self.cache.block_bytes - 1)

    @property
    def tokens(self) -> int:
        """KV tokens as vLLM counts them (`kv_cache_size_tokens`): every group holds every token."""
        return self.blocks // (self.cache.full_groups + self.cache.sliding_groups) * self.cache.block_tokens


def account(a: Architecture, at: Layout, memory: int, load: Load) -> Ledger:
    """The account of the stage that leaves the least room for KV cache. `memory` is one accelerator's, in bytes."""
    return min(
        (_account(a, at, memory, load, stage) for stage in dict.fromkeys(stages(a, at.pipeline_parallel))),
        key=lambda ledger: (ledger.blocks, ledger.cache_bytes),
    )


def _account(a: Architecture, at: Layout, memory: int, load: Load, stage: Stage) -> Ledger:
    held = rank_weights(a, at, stage, load.weights_fp8)
    return Ledger(
        budget=-(-memory * UTILIZATION_PERMILLE // 1000),
        weights=held,
        stage=stage,
        allocator=-(-held.total * ALLOCATOR_PERMILLE // 1000),
        context=CONTEXT,
        communication=COMMUNICATION if at.gpus > 1 else 0,
        activations=_activations(a, at.tensor_parallel, load),
        graphs=GRAPHS + GRAPHS_LAYER * stage.layers,
        driver=-(-(DRIVER + memory * DRIVER_PERMILLE // 1000) * UTILIZATION_PERMILLE // 1000),
        towers=(TOWER if a.weight_bytes else 2 * TOWER) if a.multimodal else 0,
        cache=cache(a, at, stage, load),
    )


def stages(a: Architecture, pp: int) -> tuple[Stage, ...]:
    """How vLLM deals layers to stages: evenly, the rest to those before the last (get_pp_indices)."""
    counts = [a.layers // pp] * pp
    for extra in range(a.layers % pp):
        counts[-(extra + 2)] += 1
    dense_before = a.dense_first_layers or 0
    found, start = [], 0
    for index, count in enumerate(counts):
        dense = min(max(dense_before - start, 0), count) if a.experts else count
        found.append(Stage(count, dense, first=index == 0, last=index == pp - 1))
        start += count
    return tuple(found)


# --- weights ----------------------------------------------------------------------------------------------------------


def checkpoint_bytes(a: Architecture) -> int:
    """Bytes of the weight files: as published, else worked out from the shapes."""
    return a.weight_bytes or estimated_bytes(a)


def estimated_bytes(a: Architecture) -> int:
    """Bytes of the weight files worked out from the shapes: matrices in their format, gated MLPs, no biases."""
    return _weights(a, Layout(1, 1), stages(a, 1)[0], a.quantization, padded=False).total


def rank_weights(a: Architecture, at: Layout, stage: Stage, weights_fp8: bool) -> Weights:
    """Bytes of weights on one rank of a stage, scaled to the published size of the files where that is known."""
    form = WeightFormat("FP8", 8) if weights_fp8 and a.quantization is None else a.quantization
    held = _weights(a, at, stage, form, padded=True)
    return held.scaled(a.weight_bytes, estimated_bytes(a)) if a.weight_bytes else held


def _weights(a: Architecture, at: Layout, stage: Stage, form: WeightFormat | None, padded: bool) -> Weights:
    tp, hidden = at.tensor_parallel, a.hidden_size
    dense_form = None if form and form.experts_only else form
    rows = padded_vocab(a) if padded else a.vocab_size
    matrices = stage.first + stage.last if not a.tie_embeddings else int(stage.first or stage.last)
    sparse = stage.layers - stage.dense
    sharded, replicated = _attention(a, tp)
    mlp = stage.dense * (a.intermediate_size or 0) + sparse * a.shared_width
    return Weights(
        embedding=matrices * -(-rows // tp) * hidden * 2,
        attention=stage.layers * _size(sharded + replicated, dense_form),
        mlp=_size(3 * hidden * -(-mlp // tp), dense_form),
        experts=sparse * _size(_experts(a, at, form, padded), form),
        # Norms and the router are 16-bit and whole on every rank.
        replicated=2 * hidden * (stage.layers * 4 + 1 + sparse * (a.experts or 0)),
    )


def _attention(a: Architecture, tp: int) -> tuple[int, int]:
    """Weights of one layer's attention on a rank: (its share, what every rank holds whole)."""
    hidden, heads = a.hidden_size, a.attention_heads
    if a.attention == "MLA":
        latent = a.kv_lora_rank or 0
        query = Q_LORA_RANKS * latent
        up = query * a.head_dim + latent * 2 * a.value_head_dim + hidden * a.value_head_dim
        return -(-heads // tp) * up, hidden * (query + latent + (a.qk_rope_head_dim or 0))
    own = -(-heads // tp) * a.head_dim * hidden * 2
    # More ranks than KV heads: each keeps a whole one.
    return own, 2 * max(1, a.kv_heads // tp) * a.head_dim * hidden


def _experts(a: Architecture, at: Layout, form: WeightFormat | None, padded: bool) -> int:
    """Weights of one layer's routed experts on a rank: a slice of each, or whole ones on the fullest rank."""
    experts, width = a.experts or 0, a.expert_width
    if at.expert_parallel:
        experts = -(-experts // at.tensor_parallel)
    else:
        width = -(-width // at.tensor_parallel)
    if padded and form and form.method == "MXFP4":
        width = -(-width // 128) * 128  # kernels pad the slice to their tiles; assumed 128
    return 3 * a.hidden_size * width * experts


def _size(weights: int, form: WeightFormat | None) -> int:
    """Bytes of so many weights in a format, scales and zero points included; 16-bit without one."""
    if form is None:
        return weights * 2
    size = -(-weights * form.bits // 8)
    if form.method == "MXFP4":
        return size + -(-weights // 32)
    if form.group_size or form.bits < 8:
        group = form.group_size or 32  # unknown: the small one, which has the most scales
        return size + -(-weights * (16 + form.bits) // (8 * group))
    return size + -(-weights * 4 // (form.block or 128) ** 2)


# --- the rest ---------------------------------------------------------------------------------------------------------


def _activations(a: Architecture, tp: int, load: Load) -> int:
    halves = ACTIVATION_HALVES_MOE if a.experts else ACTIVATION_HALVES
    step = load.max_num_batched_tokens * a.hidden_size * halves[1 if tp == 1 else 2 if tp < 4 else 4]
    if a.attention == "MLA":
        step += MLA_WORKSPACE_TOKENS * -(-a.attention_heads // tp) * 2 * a.value_head_dim * 2
    # Sampling comes after the step, so the larger of the two is the peak.
    return max(ACTIVATIONS_LEAST, step, load.max_num_seqs * a.vocab_size * SAMPLER_BYTES)


def token_bytes(a: Architecture, tp: int, kv_fp8: bool) -> int:
    """KV bytes of one token in one layer on one rank. Every MLA rank keeps the whole latent."""
    each = 1 if kv_fp8 else 2
    if a.attention == "MLA":
        return ((a.kv_lora_rank or 0) + (a.qk_rope_head_dim or 0)) * each
    return max(1, a.kv_heads // tp) * 2 * a.head_dim * each


def cache(a: Architecture, at: Layout, stage: Stage, load: Load) -> Cache:
    """How the KV cache of one rank of a stage is paged."""
    block = MLA_BLOCK_TOKENS if a.attention == "MLA" else BLOCK_TOKENS
    page = block * token_bytes(a, at.tensor_parallel, load.kv_fp8)
    if not a.sliding_layers:
        return Cache(block, page * stage.layers, 1, 0, 0, 0)
    full, sliding = a.full_layers, a.sliding_layers
    small, large = sorted((full, sliding)) if full else (sliding, sliding)
    # kv_cache_utils.py: groups are as large as the rarer kind, or as the commoner one where they are within a quarter.
    group = large if large * 4 < small * 5 else small
    flight = max(STEPS_IN_FLIGHT, at.pipeline_parallel) * load.max_num_batched_tokens
    return Cache(
        block_tokens=block,
        block_bytes=page * group,
        full_groups=-(-full // group),
        sliding_groups=-(-sliding // group),
        window_blocks=-(-((a.sliding_window or 1) - 1) // block) + 1,
        flight_blocks=-(-flight // block),
    )


def terms(a: Architecture, at: Layout, ledger: Ledger, load: Load) -> tuple[Term, ...]:
    """Every term of an account with how it came about; zero terms are left out. They add up to at most the budget."""
    named = (
        *_weight_terms(a, at, ledger, load),
        *_overhead_terms(ledger, load),
        _cache_term(a, at, ledger, load),
    )
    return tuple(term for term in named if term.bytes)


def _weight_terms(a: Architecture, at: Layout, ledger: Ledger, load: Load) -> Iterator[Term]:
    tp, stage, held = at.tensor_parallel, ledger.stage, ledger.weights
    source = "scaled to the weight files" if a.weight_bytes else "from the shapes"
    form = "FP8 while loading" if load.weights_fp8 and not a.quantization else _format_name(a.quantization)
    ends = " and ".join(name for name, here in (("input", stage.first), ("output", stage.last)) if here)
    tied = ", one matrix" if a.tie_embeddings and stage.first and stage.last else ""
    yield Term("weightsEmbedding", held.embedding, f"{ends} embedding{tied}, 16-bit, / TP {tp}, {source}")
    kept = "" if a.attention == "MLA" or tp <= a.kv_heads else f"; {a.kv_heads} KV heads replicated"
    dense = "16-bit" if a.quantization and a.quantization.experts_only else form
    yield Term("weightsAttention", held.attention, f"{stage.layers} layers, {dense}, / TP {tp}{kept}, {source}")
    kinds = "dense MLPs and shared experts" if a.experts else "MLPs"
    yield Term("weightsMlp", held.mlp, f"{kinds}, {dense}, / TP {tp}, {source}")
    if a.experts:
        whole = -(-a.experts // tp)
        share = f"{whole} whole of {a.experts}" if at.expert_parallel else f"{a.experts} experts / TP {tp}"
        yield Term("weightsExperts", held.experts, f"{stage.layers - stage.dense} layers x {share}, {form}, {source}")
    yield Term("weightsReplicated", held.replicated, f"norms{' and routers' if a.experts else ''}, whole on every rank")


def _overhead_terms(ledger: Ledger, load: Load) -> Iterator[Term]:
    yield Term("allocator", ledger.allocator, "2 % of the weights (measured by KAITO, vLLM 0.10.1)")
    yield Term("cudaContext", ledger.context, "0.6 GiB (measured by KAITO, vLLM 0.10.1)")
    yield Term("communication", ledger.communication, "NCCL and all-reduce buffers, 1 GiB (assumed)")
    how = f"peak of a step of {load.max_num_batched_tokens} tokens or of sampling {load.max_num_seqs}, at least 1.7 GiB"
    yield Term("activations", ledger.activations, f"{how} (AIConfigurator, KAITO)")
    yield Term("cudaGraphs", ledger.graphs, f"512 MiB + 16 MiB x {ledger.stage.layers} layers (assumed)")
    yield Term("driverReserve", ledger.driver, "reported by the driver, not usable: 256 MiB + 1 % (assumed)")
    yield Term("towers", ledger.towers, "image or sound tower (assumed)")


def _cache_term(a: Architecture, at: Layout, ledger: Ledger, load: Load) -> Term:
    paged, tp = ledger.cache, at.tensor_parallel
    each = f"{token_bytes(a, tp, load.kv_fp8)} B a token and layer"
    if a.attention == "MLA":
        kind = f"MLA latent {a.kv_lora_rank} + {a.qk_rope_head_dim}, whole on every rank"
    else:
        kind = f"{max(1, a.kv_heads // tp)} KV heads x 2 x {a.head_dim}"
    if paged.sliding_groups:
        kind += f", {a.full_layers} full and {a.sliding_layers} sliding layers (window {a.sliding_window})"
    else:
        kind += f", {ledger.stage.layers} layers"
    blocks = ledger.blocks + 1 if ledger.blocks else 0
    form = "FP8" if load.kv_fp8 else "16-bit"
    how = f"{kind}: {each}, {form}; {blocks} blocks of {paged.block_tokens} tokens, one is vLLM's null block"
    return Term("kvCache", blocks * paged.block_bytes, how)


def _format_name(form: WeightFormat | None) -> str:
    if form is None:
        return "16-bit"
    grain = f", group {form.group_size}" if form.group_size else f", block {form.block}" if form.block else ""
    return f"{form.method} {form.bits}-bit{grain}"


def gib(amount: int) -> str:
    """Bytes as GiB with one decimal, rounded to the nearest: for people, never for arithmetic."""
    sign = "-" if amount < 0 else ""
    tenths = (abs(amount) * 10 + GIB // 2) // GIB
    return f"{sign}{tenths // 10}.{tenths % 10} GiB"
