"""Bytes of weights and KV cache, against published numbers and vLLM's own messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modeltiers.domain import catalogue, memory
from modeltiers.domain.layouts import Layout
from modeltiers.domain.memory import GIB, MIB, Cache, Load, Stage

KNOWN = catalogue.load().models
LLAMA_8B = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
LLAMA_70B = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Llama-70B"]
V3 = KNOWN["deepseek-ai/DeepSeek-V3-0324"]
GEMMA = KNOWN["google/gemma-3-27b-it"]
OSS = KNOWN["openai/gpt-oss-20b"]
LOAD = Load(max_num_batched_tokens=8192, max_num_seqs=256)
WHOLE = Layout(1, 1)


def stage_of(name: str) -> Stage:
    """The only stage of a model."""
    return memory.stages(KNOWN[name], 1)[0]


@pytest.mark.parametrize(
    ("tp", "expected"),
    [(1, 4096), (2, 2048), (8, 512), (16, 512)],
)
def test_gqa_cache_splits_until_kv_heads_are_replicated(tp: int, expected: int) -> None:
    """8 KV heads x 2 x 128 x 2 bytes a token and layer, never less than one head."""
    assert expected == memory.token_bytes(LLAMA_8B, tp, kv_fp8=False)


def test_llama_8b_takes_128_kib_a_token() -> None:
    """32 layers of 4 KiB; half of it at TP 2, half again in FP8."""
    assert memory.token_bytes(LLAMA_8B, 1, kv_fp8=False) * LLAMA_8B.layers == 128 * 1024
    assert memory.token_bytes(LLAMA_8B, 2, kv_fp8=False) * LLAMA_8B.layers == 64 * 1024
    assert memory.token_bytes(LLAMA_8B, 2, kv_fp8=True) * LLAMA_8B.layers == 32 * 1024


def test_mla_cache_is_not_divided() -> None:
    """DeepSeek V3: 1152 bytes a layer, 70272 a token, at any TP."""
    for tp in (1, 8, 16):
        assert memory.token_bytes(V3, tp, kv_fp8=False) == 1152
    assert 1152 * V3.layers == 70_272


def test_vllm_estimate_of_the_longest_context() -> None:
    """vLLM 0.32 said 32640 for 1 GiB at 32 KiB a token in blocks of 128: one block is the null block."""
    paged = Cache(128, 128 * 32 * 1024, 1, 0, 0, 0)
    blocks = GIB // paged.block_bytes - 1
    assert paged.longest(blocks, 65_536) == 32_640


def test_layers_of_stages_follow_vllm() -> None:
    """The remainder goes to the stages before the last, and not to the first while it can be helped."""
    assert [stage.layers for stage in memory.stages(LLAMA_70B, 3)] == [27, 27, 26]
    assert [stage.layers for stage in memory.stages(replace(LLAMA_70B, layers=10), 4)] == [2, 3, 3, 2]
    assert [stage.layers for stage in memory.stages(replace(LLAMA_70B, layers=11), 4)] == [3, 3, 3, 2]


def test_dense_first_layers_fall_on_the_first_stage() -> None:
    """DeepSeek V3's three dense layers are cheaper than its expert layers."""
    assert [stage.dense for stage in memory.stages(V3, 4)] == [3, 0, 0, 0]


def test_weights_split_by_tensor_parallel() -> None:
    """Everything but norms halves; nothing is lost."""
    one = memory.rank_weights(LLAMA_70B, WHOLE, memory.stages(LLAMA_70B, 1)[0], weights_fp8=False)
    two = memory.rank_weights(LLAMA_70B, Layout(2, 1), memory.stages(LLAMA_70B, 1)[0], weights_fp8=False)
    assert one.replicated == two.replicated
    assert one.total - one.replicated == 2 * (two.total - two.replicated)


def test_kv_projections_are_replicated_beyond_the_kv_heads() -> None:
    """At TP 16 each rank keeps one of 8 KV heads: as much as at TP 8."""
    stage = memory.stages(LLAMA_70B, 1)[0]
    eight, sixteen = (memory.rank_weights(LLAMA_70B, Layout(tp, 1), stage, weights_fp8=False) for tp in (8, 16))
    projections = 2 * 2 * LLAMA_70B.head_dim * LLAMA_70B.hidden_size * LLAMA_70B.layers
    assert sixteen.attention == (eight.attention - projections) // 2 + projections


def test_stages_carry_their_ends() -> None:
    """The first has the input embedding, the last the output; in the middle there is none."""
    weights = [memory.rank_weights(LLAMA_70B, Layout(1, 4), s, weights_fp8=False) for s in memory.stages(LLAMA_70B, 4)]
    one = 128_256 * 8192 * 2
    assert [held.embedding for held in weights] == [one, 0, 0, one]
    assert sum(held.attention for held in weights) == 80 * (2 * 64 + 2 * 8) * 128 * 8192 * 2


def test_tied_embeddings_are_on_both_ends() -> None:
    """One matrix in one stage, two copies over two."""
    tied = KNOWN["meta-llama/Llama-3.2-3B-Instruct"]
    one = 128_256 * 3072 * 2
    assert memory.rank_weights(tied, WHOLE, memory.stages(tied, 1)[0], weights_fp8=False).embedding == one
    both = [memory.rank_weights(tied, Layout(1, 2), s, weights_fp8=False).embedding for s in memory.stages(tied, 2)]
    assert both == [one, one]


def test_the_tightest_stage_is_counted() -> None:
    """The last stage has the output embedding and decides; its account is the one shown."""
    ledger = memory.account(replace(LLAMA_8B, weight_bytes=None), Layout(1, 2), 80 * GIB, LOAD)
    assert ledger.weights.embedding == 128_256 * 4096 * 2


def test_fp8_while_loading_halves_matrices_and_leaves_embeddings() -> None:
    """The head and the embedding stay 16-bit."""
    stage = memory.stages(LLAMA_70B, 1)[0]
    plain = memory.rank_weights(LLAMA_70B, WHOLE, stage, weights_fp8=False)
    half = memory.rank_weights(LLAMA_70B, WHOLE, stage, weights_fp8=True)
    assert plain.embedding == half.embedding
    assert abs(half.mlp * 2 - plain.mlp) < plain.mlp // 1000


def test_published_size_scales_the_shares() -> None:
    """Twice the bytes in the files are twice the bytes on a rank."""
    doubled = replace(LLAMA_70B, weight_bytes=2 * memory.estimated_bytes(LLAMA_70B))
    stage = memory.stages(LLAMA_70B, 1)[0]
    once = memory.rank_weights(LLAMA_70B, Layout(4, 1), stage, weights_fp8=False)
    assert memory.rank_weights(doubled, Layout(4, 1), stage, weights_fp8=False).total == 2 * once.total


def test_mxfp4_takes_four_and_a_quarter_bits() -> None:
    """gpt-oss-20b loads about half of its 25.63 GiB of files, which hold the weights twice."""
    assert abs(memory.estimated_bytes(OSS) * 2 / GIB - 25.63) < 0.1


def test_whole_experts_count_the_fullest_rank() -> None:
    """128 experts over 12 ranks: eleven on the fullest."""
    moe = KNOWN["Qwen/Qwen3-30B-A3B"]
    held = memory.rank_weights(moe, Layout(12, 1, expert_parallel=True), memory.stages(moe, 1)[0], weights_fp8=False)
    assert held.experts == 48 * 11 * 3 * 2048 * 768 * 2


def test_sliding_layers_form_groups_of_the_rarer_kind() -> None:
    """gemma-3-27b: 10 full and 52 sliding layers are 1 + 6 groups of 10, the last one padded."""
    paged = memory.cache(GEMMA, WHOLE, stage_of("google/gemma-3-27b-it"), LOAD)
    assert (paged.full_groups, paged.sliding_groups) == (1, 6)
    assert paged.block_bytes == 16 * 16 * 2 * 128 * 2 * 10


def test_nearly_equal_kinds_form_two_groups() -> None:
    """12 and 13 layers are two groups of 13, not three of 12."""
    near = replace(OSS, layers=25, full_attention_layers=12)
    paged = memory.cache(near, WHOLE, memory.stages(near, 1)[0], LOAD)
    assert (paged.full_groups, paged.sliding_groups) == (1, 1)


def test_a_sliding_group_is_capped() -> None:
    """At 128k tokens gemma-3's sliding groups hold the window, the tokens in flight and one block more."""
    paged = memory.cache(GEMMA, WHOLE, stage_of("google/gemma-3-27b-it"), LOAD)
    window = -(-1023 // 16) + 1 + 2 * 8192 // 16
    assert paged.blocks(131_072) == 8192 + 6 * window
    assert paged.blocks(16) == 7


def test_tokens_in_flight_are_shared_between_requests() -> None:
    """Ten long requests need ten windows, but the step in flight only once."""
    paged = memory.cache(GEMMA, WHOLE, stage_of("google/gemma-3-27b-it"), LOAD)
    assert paged.blocks(131_072, 10) < 10 * paged.blocks(131_072)
    assert paged.requests(131_072, paged.blocks(131_072, 10)) == 10


def test_budget_is_092_of_the_memory_rounded_up() -> None:
    """vLLM: ceil(total x utilisation)."""
    assert memory.account(LLAMA_8B, WHOLE, 81_559 * MIB, LOAD).budget == -(-81_559 * MIB * 92 // 100)


def test_overhead_is_above_kaitos_measurement() -> None:
    """KAITO: 2 % of the weights, 1.7 GiB of activations and 0.6 GiB outside torch; graphs and reserve come on top."""
    ledger = memory.account(LLAMA_8B, WHOLE, 80 * GIB, LOAD)
    assert ledger.overhead > ledger.weights.total // 50 + (17 * GIB + 6 * GIB) // 10


def test_one_accelerator_needs_no_communication() -> None:
    """And more than one do."""
    assert memory.account(LLAMA_8B, WHOLE, 80 * GIB, LOAD).communication == 0
    assert memory.account(LLAMA_8B, Layout(1, 2), 80 * GIB, LOAD).communication == memory.COMMUNICATION


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, "0.0 GiB"), (GIB, "1.0 GiB"), (GIB * 3 // 2, "1.5 GiB"), (-GIB, "-1.0 GiB"), (GIB // 20 + 1, "0.1 GiB")],
)
def test_gib_rounds_to_the_nearest_tenth(amount: int, expected: str) -> None:
    """For people only."""
    assert expected == memory.gib(amount)
