"""Sizing, by worked examples: what comes out, and what is said when nothing does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modeltiers.domain import accelerators, catalogue, memory
from modeltiers.domain.accelerators import Device, Unresolved, Wanted
from modeltiers.domain.architecture import WeightFormat
from modeltiers.domain.memory import GIB
from modeltiers.domain.sizing import Ask, NoFit, Plan, fit

KNOWN = catalogue.load().models
QWEN_7B = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
LLAMA_70B = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Llama-70B"]
PHI_4 = KNOWN["microsoft/phi-4"]
V3 = KNOWN["deepseek-ai/DeepSeek-V3-0324"]


def device(product: str, gpus_per_node: int | None = None) -> Device:
    """An accelerator as the bundled table has it."""
    name = product.removeprefix("NVIDIA-").lower()
    found = accelerators.resolve(Wanted(name, product, gpus_per_node=gpus_per_node), None)
    assert isinstance(found, Device)
    return found


H100 = device("NVIDIA-H100-80GB-HBM3")
H200 = device("NVIDIA-H200")
L4 = device("NVIDIA-L4")
L40S = device("NVIDIA-L40S")
A100_40 = device("NVIDIA-A100-SXM4-40GB")
UNKNOWN = Unresolved("mystery", "spec.accelerators[0].memory", "memory of X is not known")


def planned(answer: Plan | NoFit) -> Plan:
    """The plan; a failure shows the message."""
    assert isinstance(answer, Plan), answer
    return answer


def refused(answer: Plan | NoFit) -> NoFit:
    """The refusal."""
    assert isinstance(answer, NoFit), answer
    return answer


def verdicts(answer: Plan | NoFit) -> list[tuple[int, int, str]]:
    """(TP, PP, verdict) of all candidates."""
    return [(c.tensor_parallel, c.pipeline_parallel, c.verdict) for c in answer.candidates]


# --- the two models of the ladder -------------------------------------------------------------------------------------


def test_r1_distill_qwen_7b_takes_one_h100() -> None:
    """14.2 GiB of weights leave most of an H100 for 32 requests at once, and for the whole context."""
    plan = planned(fit(QWEN_7B, [H100], Ask(concurrency=32)))
    assert (plan.gpus, plan.tensor_parallel, plan.pipeline_parallel) == (1, 1, 1)
    assert plan.max_model_len == 131_072
    assert plan.max_num_seqs >= 32


def test_r1_distill_llama_70b_takes_four_h100() -> None:
    """At TP 2 the weights fit and leave 0.2 GiB; TP 3 is illegal; TP 4 it is."""
    plan = planned(fit(LLAMA_70B, [H100], Ask(concurrency=32)))
    assert (plan.gpus, plan.tensor_parallel, plan.pipeline_parallel) == (4, 4, 1)
    assert verdicts(plan) == [(1, 1, "TooSmall"), (2, 1, "TooSmall"), (3, 1, "IllegalLayout"), (4, 1, "Chosen")]


def test_r1_distill_llama_70b_in_fp8_takes_two_h100() -> None:
    """Quantised while loading it halves."""
    assert planned(fit(LLAMA_70B, [H100], Ask(concurrency=32, weights_fp8=True))).tensor_parallel == 2


def test_r1_distill_llama_70b_takes_two_h200() -> None:
    """As the vendor's profiles do."""
    assert planned(fit(LLAMA_70B, [H200], Ask())).tensor_parallel == 2


def test_plan_carries_what_the_engine_is_told() -> None:
    """Every flag that rendering needs is in the plan."""
    plan = planned(fit(QWEN_7B, [H100], Ask(concurrency=32, max_model_len=32_768)))
    assert plan.device is H100
    assert plan.max_model_len == 32_768
    assert plan.max_num_batched_tokens == 8192
    assert plan.gpu_memory_utilization_permille == 920
    assert plan.weight_bytes == memory.estimated_bytes(QWEN_7B)
    assert plan.kv_tokens == 1_022_448
    assert "catalogue" in plan.model_facts


def test_terms_add_up_to_at_most_the_budget() -> None:
    """And to nearly all of it: what is left is less than one block."""
    plan = planned(fit(QWEN_7B, [H100], Ask()))
    total = sum(term.bytes for term in plan.terms)
    assert plan.budget_bytes - 16 * 2048 * 28 < total <= plan.budget_bytes
    assert {term.name for term in plan.terms} >= {"weightsMlp", "activations", "cudaGraphs", "kvCache"}


# --- the order and the objective --------------------------------------------------------------------------------------


def test_the_users_order_counts() -> None:
    """The first accelerator that fits is taken, not the best."""
    assert planned(fit(QWEN_7B, [L40S, H100], Ask())).device is L40S
    plan = planned(fit(LLAMA_70B, [L4, H100], Ask()))
    assert plan.device is H100
    assert {c.accelerator for c in plan.candidates} == {L4.name, H100.name}


def test_latency_takes_the_largest_that_helps() -> None:
    """28 heads and 4 KV heads allow 1, 2 and 4; all of them help a 7B model."""
    plan = planned(fit(QWEN_7B, [H100], Ask("Latency")))
    assert plan.tensor_parallel == 4
    assert next(c.why for c in plan.candidates if c.verdict == "Fits").endswith("4 accelerators answer faster")


def test_latency_leaves_out_what_does_not_help() -> None:
    """A 0.5B model on two accelerators waits for all-reduces."""
    plan = planned(fit(KNOWN["Qwen/Qwen2.5-0.5B-Instruct"], [H100], Ask("Latency")))
    assert plan.tensor_parallel == 1
    assert (2, 1, "NotUseful") in verdicts(plan)


def test_latency_takes_the_whole_node_for_a_large_model() -> None:
    """70B on eight."""
    assert planned(fit(LLAMA_70B, [H100], Ask("Latency"))).tensor_parallel == 8


def test_stages_come_only_where_tensor_parallel_does_not_fit() -> None:
    """phi-4 has 10 KV heads: TP 4 and 8 are illegal, so small accelerators need stages."""
    plan = planned(fit(PHI_4, [L4], Ask()))
    assert (plan.tensor_parallel, plan.pipeline_parallel) == (1, 3)
    assert (2, 1, "TooSmall") in verdicts(plan)


def test_phi_4_never_gets_the_whole_node_of_eight() -> None:
    """The layout on eight A100-40GB that vLLM's KV-head assertion stops."""
    for objective in ("Cost", "Latency"):
        assert planned(fit(PHI_4, [A100_40], Ask(objective))).tensor_parallel in (1, 2)


def test_more_concurrency_takes_more() -> None:
    """16 requests of 4096 tokens fit one, 128 of 8192 do not."""
    llama = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    assert planned(fit(llama, [H100], Ask())).gpus == 1
    assert planned(fit(llama, [H100], Ask(concurrency=128, context_per_request=8192))).gpus == 4


def test_fp8_cache_takes_less() -> None:
    """Half the bytes a token."""
    llama = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    ask = Ask(concurrency=96, context_per_request=8192)
    assert planned(fit(llama, [H100], ask)).gpus == 2
    assert planned(fit(llama, [H100], replace(ask, kv_fp8=True))).gpus == 1


def test_large_devices_take_longer_steps() -> None:
    """vLLM's own defaults: 8192 tokens from 70 GiB on, 2048 below."""
    assert planned(fit(QWEN_7B, [L40S], Ask())).max_num_batched_tokens == 2048


def test_a_step_is_never_shorter_than_its_requests() -> None:
    """vLLM demands max_num_batched_tokens >= max_num_seqs."""
    plan = planned(fit(KNOWN["Qwen/Qwen3-0.6B"], [L40S], Ask(concurrency=4096, context_per_request=16)))
    assert plan.max_num_batched_tokens >= plan.max_num_seqs >= 4096


# --- context ----------------------------------------------------------------------------------------------------------


def test_context_left_out_is_the_longest_that_fits() -> None:
    """Bounded by the model, and by the cache where that is smaller."""
    assert planned(fit(KNOWN["Qwen/Qwen3-8B"], [H100], Ask())).max_model_len == 40_960
    short = planned(fit(KNOWN["meta-llama/Llama-3.1-8B-Instruct"], [L4], Ask(concurrency=1, max_gpus=1)))
    assert 4096 <= short.max_model_len < 131_072
    assert short.max_model_len % 16 == 0
    longer = Ask(concurrency=1, max_gpus=1, max_model_len=short.max_model_len + 16)
    assert refused(fit(KNOWN["meta-llama/Llama-3.1-8B-Instruct"], [L4], longer)).reason == "ContextTooLong"


def test_context_that_was_asked_for_takes_more_accelerators() -> None:
    """131072 tokens of an 8B model are 16 GiB of cache."""
    llama = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    assert planned(fit(llama, [L4], Ask(concurrency=1))).gpus == 1
    assert planned(fit(llama, [L4], Ask(concurrency=1, max_model_len=131_072))).gpus == 2


def test_context_beyond_the_model_is_refused() -> None:
    """vLLM raises for it."""
    answer = refused(fit(KNOWN["Qwen/Qwen3-8B"], [H100], Ask(max_model_len=40_961)))
    assert answer.reason == "ContextTooLong"
    assert (
        answer.message
        == "spec.model.maxModelLen is 40961, more than the 40960 tokens that the model supports: lower it"
    )


def test_planned_context_beyond_the_longest_request_is_refused() -> None:
    """The two fields contradict each other."""
    answer = refused(fit(QWEN_7B, [H100], Ask(max_model_len=2048, context_per_request=4096)))
    assert (answer.reason, answer.message.split()[0]) == ("ContextTooLong", "spec.sizing.contextPerRequest")


# --- kinds of models --------------------------------------------------------------------------------------------------


def test_deepseek_v3_takes_eight_h200() -> None:
    """641 GiB in FP8; eight H100 hold it and nothing else."""
    assert planned(fit(V3, [H200], Ask())).tensor_parallel == 8
    answer = refused(fit(V3, [H100], Ask()))
    assert answer.reason == "FitsNoAccelerator"
    assert answer.candidates[-1].verdict == "NodeTooSmall"


def test_mla_cache_does_not_shrink_with_tensor_parallel() -> None:
    """Its term says so."""
    plan = planned(fit(V3, [H200], Ask()))
    assert "whole on every rank" in next(term.how for term in plan.terms if term.name == "kvCache")


def test_gpt_oss_120b_takes_one_h100() -> None:
    """60.7 GiB of MXFP4, half of what the files hold."""
    plan = planned(fit(KNOWN["openai/gpt-oss-120b"], [H100], Ask()))
    assert plan.gpus == 1


def test_gpt_oss_on_many_small_ones_keeps_experts_whole() -> None:
    """2880 / 8 is no multiple of 32, so whole experts go round, and the plan says why."""
    plan = planned(fit(KNOWN["openai/gpt-oss-120b"], [L4], Ask()))
    assert (plan.tensor_parallel, plan.expert_parallel) == (8, True)
    assert any("--enable-expert-parallel" in note and "2880 / TP 8" in note for note in plan.notes)


def test_sliding_windows_are_cheaper_than_full_attention() -> None:
    """gemma-3-27b: 52 of 62 layers end at 1024 tokens."""
    gemma = KNOWN["google/gemma-3-27b-it"]
    full = replace(gemma, attention="Full")
    ask = Ask(concurrency=16, context_per_request=32_768)
    assert planned(fit(gemma, [H100], ask)).gpus < planned(fit(full, [H100], ask)).gpus


@pytest.mark.parametrize(
    ("name", "word"),
    [("Qwen3NextForCausalLM", "linear attention"), ("NemotronHForCausalLM", "Mamba"), ("Llama4ForCausalLM", "chunked")],
)
def test_kinds_that_are_not_understood_are_refused(name: str, word: str) -> None:
    """However complete their numbers look."""
    answer = refused(fit(replace(QWEN_7B, name=name), [H100], Ask()))
    assert answer.reason == "ArchitectureNotSupported"
    assert word in answer.message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"intermediate_size": None}, "intermediateSize"),
        ({"experts": 8}, "moeIntermediateSize"),
        ({"attention": "MLA"}, "kvLoraRank"),
        ({"attention": "MLA", "kv_lora_rank": 512, "qk_rope_head_dim": 128}, "headDim"),
        ({"attention": "SlidingAndFull"}, "slidingWindow"),
        ({"attention": "SlidingAndFull", "sliding_window": 8, "full_attention_layers": 99}, "fullAttentionLayers"),
        ({"attention_heads": 0}, "attentionHeads"),
        ({"kv_heads": 3}, "kvHeads"),
        ({"experts": 8, "moe_intermediate_size": 64, "dense_first_layers": 99}, "denseFirstLayers"),
    ],
)
def test_numbers_that_make_no_whole_are_refused(change: dict[str, object], field: str) -> None:
    """Each names its field."""
    answer = refused(fit(replace(QWEN_7B, **change), [H100], Ask()))  # type: ignore[arg-type]  # fields by their names
    assert answer.reason == "ArchitectureIncomplete"
    assert field in answer.message


def test_a_size_that_cannot_be_is_refused() -> None:
    """70B in 14 GiB: somebody copied the wrong number, or forgot to say how it is quantised."""
    answer = refused(fit(replace(LLAMA_70B, weight_bytes=14 * GIB), [H100], Ask()))
    assert answer.reason == "ImplausibleWeights"
    assert "131.4 GiB" in answer.message


def test_quantising_twice_is_refused() -> None:
    """vLLM refuses another method than the checkpoint's."""
    awq = replace(LLAMA_70B, quantization=WeightFormat("AWQ", 4, 128))
    assert refused(fit(awq, [H100], Ask(weights_fp8=True))).reason == "QuantizationConflict"


def test_four_bit_weights_take_one_h100() -> None:
    """70B in AWQ is 39 GiB."""
    awq = replace(LLAMA_70B, quantization=WeightFormat("AWQ", 4, 128))
    assert planned(fit(awq, [H100], Ask())).gpus == 1


# --- pinned -----------------------------------------------------------------------------------------------------------


def test_pinned_layouts_are_taken_when_they_start() -> None:
    """More than needed is the user's business."""
    plan = planned(fit(QWEN_7B, [H100], Ask(pinned=(2, 1))))
    assert (plan.tensor_parallel, plan.pipeline_parallel, verdicts(plan)) == (2, 1, [(2, 1, "Chosen")])


def test_pinned_layouts_are_checked() -> None:
    """An illegal one is refused with the legal ones named."""
    answer = refused(fit(QWEN_7B, [H100], Ask(pinned=(8, 1))))
    assert answer.reason == "IllegalLayout"
    assert "28 attention heads do not divide by TP 8" in answer.message
    assert answer.message.endswith("Legal TP within a node of 8: 1, 2, 4")


def test_pinned_too_small_is_refused_with_a_way_out() -> None:
    """TP 2 cannot hold 70B; auto would find four."""
    answer = refused(fit(LLAMA_70B, [H100], Ask(pinned=(2, 1))))
    assert answer.reason == "FitsNoAccelerator"
    assert "spec.sizing.mode Auto fits 4 x" in answer.message


def test_pinned_may_hold_less_than_asked_and_says_so() -> None:
    """It starts, so it is not refused; the note gives the number."""
    llama = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    plan = planned(fit(llama, [L4], Ask(concurrency=64, pinned=(1, 1))))
    assert 1 <= plan.max_num_seqs < 64
    assert any("64 requests" in note for note in plan.notes)


def test_pinned_beyond_a_node_is_refused() -> None:
    """Several nodes come later."""
    answer = refused(fit(LLAMA_70B, [H100], Ask(pinned=(8, 2))))
    assert verdicts(answer) == [(8, 2, "NodeTooSmall")]
    assert "several nodes" in answer.message


# --- nothing fits -----------------------------------------------------------------------------------------------------


def test_no_fit_names_field_terms_and_ways_out() -> None:
    """The message alone is enough to act on, and each way out was tried."""
    llama = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    answer = refused(fit(llama, [L4], Ask(concurrency=400, context_per_request=8192, max_gpus=4)))
    assert answer.reason == "FitsNoAccelerator"
    assert answer.message.startswith("spec.accelerators: no layout fits. Closest is 4 x l4 (22.5 GiB each, TP")
    assert "spec.sizing.concurrency" in answer.message
    assert {term.name for term in answer.terms} >= {"weightsMlp", "kvCache"}
    lower = int(answer.message.partition("spec.sizing.concurrency ")[2].split()[0])
    assert planned(fit(llama, [L4], Ask(concurrency=lower, context_per_request=8192, max_gpus=4)))


def test_the_administrators_limit_is_kept_and_named() -> None:
    """Eight would fit; four are allowed."""
    answer = refused(fit(LLAMA_70B, [L40S], Ask(max_gpus=4)))
    assert answer.candidates[-1].verdict == "NodeTooSmall"
    assert "limits.maxGpusPerReplica" in answer.candidates[-1].why


def test_an_unknown_accelerator_alone_is_refused() -> None:
    """With the field that would make it known."""
    answer = refused(fit(QWEN_7B, [UNKNOWN], Ask()))
    assert (answer.reason, answer.message) == (
        "AcceleratorUnknown",
        "spec.accelerators[0].memory: memory of X is not known",
    )


def test_an_unknown_accelerator_is_skipped_with_a_note() -> None:
    """The next in the user's order serves, and nobody has to wonder why."""
    plan = planned(fit(QWEN_7B, [UNKNOWN, H100], Ask()))
    assert plan.device is H100
    assert plan.notes[0] == "mystery was skipped: memory of X is not known"


def test_no_accelerators_is_refused() -> None:
    """Total for every input."""
    assert refused(fit(QWEN_7B, [], Ask())).reason == "AcceleratorUnknown"


def test_node_size_from_the_table_is_called_assumed() -> None:
    """Only where more than one accelerator is taken does it matter."""
    assert planned(fit(QWEN_7B, [H100], Ask())).notes == ()
    assert "are assumed" in planned(fit(LLAMA_70B, [H100], Ask())).notes[0]
    said = device("NVIDIA-H100-80GB-HBM3", gpus_per_node=8)
    assert planned(fit(LLAMA_70B, [said], Ask())).notes == ()


def test_at_most_64_candidates_are_recorded() -> None:
    """The chosen one is always among them."""
    many = replace(L4, gpus_per_node=64, memory=4 * GIB)
    plan = planned(fit(LLAMA_70B, [many, many, H100], Ask()))
    assert len(plan.candidates) <= 64
    assert [c.verdict for c in plan.candidates].count("Chosen") == 1
