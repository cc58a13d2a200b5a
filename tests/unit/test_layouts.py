"""Legal layouts, against what vLLM 0.32 was seen to accept and refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modeltiers.domain import layouts
from modeltiers.domain.architecture import Architecture, WeightFormat
from modeltiers.domain.layouts import Layout

DENSE = Architecture(
    name="LlamaForCausalLM",
    hidden_size=5120,
    layers=40,
    attention_heads=40,
    kv_heads=8,
    head_dim=128,
    vocab_size=128_000,
    max_position=32_768,
    intermediate_size=13_824,
)
QWEN3_235B = Architecture(
    name="Qwen3MoeForCausalLM",
    hidden_size=4096,
    layers=94,
    attention_heads=64,
    kv_heads=4,
    head_dim=128,
    vocab_size=151_936,
    max_position=40_960,
    experts=128,
    experts_per_token=8,
    moe_intermediate_size=1536,
)
FP8_BLOCK = WeightFormat("FP8", 8, block=128)


def shape(heads: int, kv_heads: int, **more: int | None) -> Architecture:
    """A dense model of this many heads whose other sizes divide by every layout up to 64."""
    numbers: dict[str, int | None] = {"vocab_size": 64 * 5040, "intermediate_size": 64 * 5040, **more}
    return replace(DENSE, attention_heads=heads, kv_heads=kv_heads, **numbers)  # type: ignore[arg-type]  # the numbers are of fields that are ints


def legal_tp(architecture: Architecture, most: int = 16) -> list[int]:
    """Tensor parallel sizes that are legal without expert parallelism."""
    return [tp for tp in range(1, most + 1) if layouts.legal(architecture, tp, 1) is None]


@pytest.mark.parametrize("tp", [5, 10, 20])
def test_40_heads_8_kv_heads_refuses_what_vllm_configuration_accepts(tp: int) -> None:
    """TP 5, 10 and 20 pass vLLM's configuration and die in its workers."""
    reason = layouts.legal(shape(40, 8), tp, 1)
    assert reason == f"8 KV heads neither split over nor replicate to TP {tp}"


def test_6_heads_3_kv_heads_tp_2_is_illegal() -> None:
    """It was seen to die after 40 seconds with a bare AssertionError."""
    assert layouts.legal(shape(6, 3), 2, 1) == "3 KV heads neither split over nor replicate to TP 2"


def test_1_kv_head_tp_2_is_legal() -> None:
    """One KV head is replicated, and was seen to serve."""
    assert layouts.legal(shape(8, 1), 2, 1) is None


def test_40_heads_tp_3_names_the_heads() -> None:
    """The reason carries the numbers."""
    assert layouts.legal(DENSE, 3, 1) == "40 attention heads do not divide by TP 3"


@pytest.mark.parametrize(
    ("heads", "kv_heads", "expected"),
    [
        (28, 4, [1, 2, 4]),
        (40, 10, [1, 2, 5, 10]),
        (24, 8, [1, 2, 4, 8]),
        (24, 4, [1, 2, 4, 8, 12]),
        (16, 2, [1, 2, 4, 8, 16]),
        (96, 8, [1, 2, 4, 8, 16]),
        (128, 8, [1, 2, 4, 8, 16]),
        (8, 1, [1, 2, 4, 8]),
    ],
)
def test_heads_rule(heads: int, kv_heads: int, expected: list[int]) -> None:
    """Published head counts and the tensor parallel sizes up to 16 that they allow."""
    assert expected == legal_tp(shape(heads, kv_heads))


def test_vocabulary_is_padded_before_it_is_split() -> None:
    """151665 rows do not divide by 2; padded to 151680 they do, and by 64 too."""
    odd = shape(64, 64, vocab_size=151_665)
    assert layouts.legal(odd, 2, 1) is None
    assert layouts.legal(odd, 64, 1) is None


def test_vocabulary_stops_odd_sizes() -> None:
    """phi-4's heads allow TP 5, its vocabulary does not."""
    reason = layouts.legal(shape(40, 10, vocab_size=100_352), 5, 1)
    assert reason == "the vocabulary, padded to 100352 rows, does not divide by TP 5"


def test_more_than_64_ranks_is_illegal() -> None:
    """The vocabulary's padding ends there."""
    assert layouts.legal(shape(128, 128), 128, 1) == "TP 128 is more than 64"


def test_mlp_width_must_divide() -> None:
    """A width of 13825 halves for nobody."""
    assert layouts.legal(shape(8, 8, intermediate_size=13_825), 2, 1) == "MLP width 13825 does not divide by TP 2"


def test_expert_width_must_divide_unless_experts_stay_whole() -> None:
    """Whole experts cure the width, and the layout says so."""
    odd = replace(QWEN3_235B, moe_intermediate_size=1537)
    assert layouts.legal(odd, 2, 1) == "expert width 1537 does not divide by TP 2"
    assert layouts.choose(odd, 2, 1) == Layout(2, 1, expert_parallel=True)


def test_experts_are_cut_where_that_is_legal() -> None:
    """Then every rank does the same work for every token."""
    assert layouts.choose(QWEN3_235B, 8, 1) == Layout(8, 1)


def test_fp8_blocks_stop_qwen3_235b_at_tp_4() -> None:
    """1536 / 8 = 192 is not a multiple of 128: the recipes pin TP 4, though bf16 runs at 8."""
    quantised = replace(QWEN3_235B, quantization=FP8_BLOCK)
    assert layouts.legal(quantised, 4, 1) is None
    reason = layouts.legal(quantised, 8, 1)
    assert reason == "expert width 1536 / TP 8 = 192 is not a multiple of the FP8 block 128"


def test_fp8_blocks_on_kv_heads_of_64() -> None:
    """One KV head of 64 on a rank is half a block."""
    quantised = replace(shape(32, 8), head_dim=64, quantization=FP8_BLOCK)
    assert (
        layouts.legal(quantised, 8, 1)
        == "key and value output of a rank at TP 8 is 64, not a multiple of the FP8 block 128"
    )


def test_expert_parallelism_does_not_cure_attention() -> None:
    """Heads are cut either way."""
    assert (
        layouts.choose(replace(QWEN3_235B, quantization=FP8_BLOCK), 3, 1) == "64 attention heads do not divide by TP 3"
    )


def test_whole_experts_need_one_for_every_rank() -> None:
    """Sixteen ranks for eight experts leave eight without."""
    few = replace(QWEN3_235B, experts=8, moe_intermediate_size=1537)
    assert layouts.legal(few, 16, 1, expert_parallel=True) == "8 experts are too few for TP 16 with whole experts"


def test_expert_parallelism_needs_experts() -> None:
    """vLLM refuses the flag on a dense model."""
    assert layouts.legal(DENSE, 2, 1, expert_parallel=True) == "expert parallelism needs a model with experts"


def test_step_3_5_width_1280_in_fp8() -> None:
    """1280 / 4 = 320 is not a multiple of 128: TP 1 and 2 are what the recipe pins."""
    step = replace(QWEN3_235B, moe_intermediate_size=1280, quantization=FP8_BLOCK)
    assert legal_tp(step, 8) == [1, 2]


@pytest.mark.parametrize(("group", "expected"), [(128, [1, 2, 4]), (32, [1, 2, 4]), (None, [1, 2, 4])])
def test_marlin_needs_128_inputs_and_whole_groups(group: int | None, expected: list[int]) -> None:
    """4096 / 8 = 512 is fine, 4608 / 8 = 576 is not a multiple of 128."""
    quantised = replace(shape(32, 8, intermediate_size=4608), quantization=WeightFormat("AWQ", 4, group_size=group))
    assert legal_tp(quantised, 8) == expected


def test_large_groups_must_stay_whole() -> None:
    """A shard of 1024 does not hold whole groups of 768."""
    quantised = replace(shape(32, 8, intermediate_size=6144), quantization=WeightFormat("GPTQ", 4, group_size=768))
    assert (
        layouts.legal(quantised, 2, 1)
        == "attention input of a rank at TP 2 is 2048, not a multiple of the group size 768"
    )


def test_mxfp4_experts_are_cut_in_32s() -> None:
    """gpt-oss: 2880 / 2 = 1440 is 45 blocks, 2880 / 4 = 720 is not; whole experts go on to TP 8."""
    form = WeightFormat("MXFP4", 4, experts_only=True)
    oss = replace(QWEN3_235B, kv_heads=8, moe_intermediate_size=2880, quantization=form)
    assert legal_tp(oss, 8) == [1, 2]
    assert layouts.choose(oss, 8, 1) == Layout(8, 1, expert_parallel=True)


def test_mla_has_no_kv_heads_to_split() -> None:
    """Every rank keeps the latent, so only attention heads count."""
    mla = replace(shape(64, 1), attention="MLA", kv_heads=3, kv_lora_rank=512, qk_rope_head_dim=64, head_dim=192)
    assert legal_tp(mla) == [1, 2, 4, 8, 16]


def test_more_stages_than_layers_is_illegal() -> None:
    """vLLM's configuration accepts 3 stages for 2 layers."""
    assert layouts.legal(replace(DENSE, layers=2), 1, 3) == "PP 3 is more than the 2 layers"


def test_stages_only_where_known() -> None:
    """An unknown class may stop with NotImplementedError; sliding windows are not modelled over stages."""
    assert (
        layouts.legal(replace(DENSE, name="NewForCausalLM"), 1, 2)
        == "PP: NewForCausalLM is not known to support pipeline stages"
    )
    sliding = replace(DENSE, attention="SlidingAndFull", sliding_window=1024, full_attention_layers=8)
    assert "not modelled" in (layouts.legal(sliding, 1, 2) or "")
    assert layouts.legal(DENSE, 2, 3) is None


def test_per_tensor_fp8_needs_sixteens() -> None:
    """Without blocks only the tensor cores' tiles count."""
    quantised = replace(shape(32, 8, intermediate_size=11_008), quantization=WeightFormat("FP8", 8))
    assert legal_tp(quantised, 16) == [1, 2, 4, 8, 16]
    assert "not a multiple of the 16" in (layouts.legal(replace(quantised, intermediate_size=11_016), 8, 1) or "")
