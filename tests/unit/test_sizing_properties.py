"""Sizing, by property: whatever the numbers, it answers, keeps its promises, and never wants less for more."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeltiers.api.modeltier_status import SizingStatus
from modeltiers.domain import accelerators, asks, catalogue, layouts, memory
from modeltiers.domain.accelerators import Device, Unresolved
from modeltiers.domain.architecture import Architecture, WeightFormat
from modeltiers.domain.layouts import Layout
from modeltiers.domain.memory import GIB, Load
from modeltiers.domain.sizing import Ask, NoFit, Plan, fit

KNOWN = sorted(catalogue.load().models.items())
UNKNOWN = Unresolved("x", "spec.accelerators[0].memory", "not known")

thorough = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

forms = st.none() | st.builds(
    WeightFormat,
    method=st.sampled_from(["FP8", "AWQ", "GPTQ", "CompressedTensors", "MXFP4"]),
    bits=st.integers(2, 8),
    group_size=st.none() | st.integers(16, 1024),
    block=st.none() | st.integers(16, 1024),
    experts_only=st.booleans(),
)
# Anything the resource's schema lets through, whole or not.
shapes = st.builds(
    Architecture,
    name=st.sampled_from(
        ["LlamaForCausalLM", "Qwen3MoeForCausalLM", "NewForConditionalGeneration", "Qwen3NextForCausalLM"]
    ),
    hidden_size=st.integers(1, 20_000),
    layers=st.integers(1, 1024),
    attention_heads=st.integers(0, 4096) | st.sampled_from([16, 32, 64]),
    kv_heads=st.integers(0, 4096) | st.sampled_from([1, 4, 8]),
    head_dim=st.integers(1, 2048),
    vocab_size=st.integers(1, 4_000_000),
    max_position=st.integers(1, 100_000_000),
    intermediate_size=st.none() | st.integers(1, 1_000_000),
    experts=st.none() | st.integers(1, 4096),
    moe_intermediate_size=st.none() | st.integers(1, 1_000_000),
    shared_experts=st.none() | st.integers(0, 64),
    dense_first_layers=st.none() | st.integers(0, 1024),
    tie_embeddings=st.booleans(),
    attention=st.sampled_from(["Full", "SlidingAndFull", "MLA"]),
    sliding_window=st.none() | st.integers(1, 1_000_000),
    full_attention_layers=st.none() | st.integers(0, 1024),
    kv_lora_rank=st.none() | st.integers(1, 1_000_000),
    qk_rope_head_dim=st.none() | st.integers(1, 1_000_000),
    weight_bytes=st.none() | st.integers(1, 10**14),
    quantization=forms,
)


@st.composite
def whole(draw: st.DrawFn) -> Architecture:
    """A model whose numbers make a whole, of any kind that is understood."""
    attention = draw(st.sampled_from(["Full", "SlidingAndFull", "MLA"]))
    layers, kv_heads, unit = (
        draw(st.integers(1, 128)),
        draw(st.integers(1, 16)),
        draw(st.sampled_from([1, 32, 64, 128])),
    )
    moe = draw(st.booleans())
    return Architecture(
        name=draw(st.sampled_from(["LlamaForCausalLM", "NewForConditionalGeneration"])),
        hidden_size=draw(st.integers(1, 64)) * 128,
        layers=layers,
        attention_heads=kv_heads * draw(st.integers(1, 16)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([96, 128, 192, 256])),
        vocab_size=draw(st.integers(1000, 300_000)),
        max_position=draw(st.integers(16, 1_000_000)),
        intermediate_size=draw(st.integers(1, 300)) * unit,
        experts=draw(st.integers(1, 512)) if moe else None,
        moe_intermediate_size=draw(st.integers(1, 64)) * unit if moe else None,
        shared_experts=draw(st.integers(0, 4)) if moe else None,
        dense_first_layers=draw(st.integers(0, layers)) if moe else None,
        tie_embeddings=draw(st.booleans()),
        attention=attention,
        sliding_window=draw(st.integers(1, 10_000)) if attention == "SlidingAndFull" else None,
        full_attention_layers=draw(st.integers(0, layers)) if attention == "SlidingAndFull" else None,
        kv_lora_rank=512 if attention == "MLA" else None,
        qk_rope_head_dim=64 if attention == "MLA" else None,
        quantization=draw(forms),
    )


models = st.sampled_from([architecture for _, architecture in KNOWN]) | whole()
tables = st.sampled_from(sorted(accelerators.TABLE))


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """An accelerator of the table, or one of any memory, in nodes of any size."""
    known = accelerators.resolve(accelerators.Wanted("a", draw(tables)), None)
    assert isinstance(known, Device)
    size = draw(st.none() | st.integers(1, 10 * 1024 * GIB))
    return replace(known, gpus_per_node=draw(st.integers(1, 16)), memory=size or known.memory)


loads = st.builds(
    Ask,
    objective=st.sampled_from(["Cost", "Latency"]),
    concurrency=st.integers(1, 4096),
    context_per_request=st.none() | st.integers(16, 200_000),
    max_model_len=st.none() | st.integers(16, 200_000),
    weights_fp8=st.booleans(),
    kv_fp8=st.booleans(),
    pinned=st.none() | st.tuples(st.integers(1, 16), st.integers(1, 8)),
    max_gpus=st.integers(1, 64),
)
lists = st.lists(devices() | st.just(UNKNOWN), max_size=3)


def check(plan: Plan, architecture: Architecture, ask: Ask) -> None:
    """Every promise a plan makes."""
    device, tp, pp = plan.device, plan.tensor_parallel, plan.pipeline_parallel
    assert plan.gpus == tp * pp <= min(device.gpus_per_node, ask.max_gpus)
    loaded = replace(architecture, quantization=WeightFormat("FP8", 8)) if ask.weights_fp8 else architecture
    effective = architecture if architecture.quantization else loaded
    assert layouts.legal(effective, tp, pp, plan.expert_parallel) is None
    assert sum(term.bytes for term in plan.terms) <= plan.budget_bytes <= device.memory
    assert all(term.bytes > 0 for term in plan.terms)
    assert 1 <= plan.max_model_len <= architecture.max_position
    assert 1 <= plan.max_num_seqs <= plan.max_num_batched_tokens
    assert [c.verdict for c in plan.candidates].count("Chosen") == 1
    assert len(plan.candidates) <= 64
    # Reckoned again from the plan alone: one longest request fits, and all requests of the planned length.
    load = Load(plan.max_num_batched_tokens, max(256, ask.concurrency), ask.weights_fp8, ask.kv_fp8)
    ledger = memory.account(architecture, Layout(tp, pp, plan.expert_parallel), device.memory, load)
    assert ledger.cache.blocks(plan.max_model_len) <= ledger.blocks
    context = ask.context_per_request or min(4096, ask.max_model_len or architecture.max_position)
    if not ask.pinned:
        assert plan.max_num_seqs >= ask.concurrency
        assert ledger.cache.blocks(context, ask.concurrency) <= ledger.blocks


@thorough
@given(shapes | models, lists, loads)
def test_total_deterministic_and_true(architecture: Architecture, found: list[Device | Unresolved], ask: Ask) -> None:
    """Never raises, says the same twice, and keeps its promises."""
    answer = fit(architecture, found, ask)
    assert answer == fit(architecture, found, ask)
    if isinstance(answer, Plan):
        check(answer, architecture, ask)
        SizingStatus.model_validate(asks.sizing_status(answer, "ab12"))
    else:
        assert answer.reason.isalpha()
        assert "spec." in answer.message
        assert len(answer.candidates) <= 64


@thorough
@given(models, lists, loads)
def test_models_keep_the_promises(architecture: Architecture, found: list[Device | Unresolved], ask: Ask) -> None:
    """The same where plans are likely."""
    answer = fit(architecture, found, ask)
    if isinstance(answer, Plan):
        check(answer, architecture, ask)


def gpus(answer: Plan | NoFit) -> int:
    """Accelerators of an answer; none is more than any."""
    return answer.gpus if isinstance(answer, Plan) else 10**9


@thorough
@given(models, devices(), loads, st.integers(1, 4096), st.integers(16, 200_000))
def test_more_never_needs_fewer(architecture: Architecture, one: Device, ask: Ask, more: int, longer: int) -> None:
    """More concurrency or longer contexts, alone or together, never end in fewer accelerators."""
    context = min(ask.context_per_request or 4096, architecture.max_position)
    base = replace(ask, objective="Cost", pinned=None, max_model_len=None, context_per_request=context)
    long = replace(base, context_per_request=min(max(context, longer), architecture.max_position))
    busy = replace(base, concurrency=max(base.concurrency, more))
    both = replace(long, concurrency=busy.concurrency)
    few, long_gpus, busy_gpus, most = (gpus(fit(architecture, [one], a)) for a in (base, long, busy, both))
    assert few <= long_gpus <= most
    assert few <= busy_gpus <= most


@thorough
@given(models, devices(), loads, st.integers(16, 200_000))
def test_a_longer_request_never_needs_fewer(architecture: Architecture, one: Device, ask: Ask, longer: int) -> None:
    """The same for the longest single request."""
    limit = architecture.max_position
    shorter = min(ask.max_model_len or 4096, limit)
    base = replace(ask, objective="Cost", pinned=None, max_model_len=shorter, context_per_request=min(256, shorter))
    long = replace(base, max_model_len=min(max(shorter, longer), limit))
    assert gpus(fit(architecture, [one], base)) <= gpus(fit(architecture, [one], long))


@thorough
@given(st.integers(1, 64), st.integers(1, 1024))
def test_stages_hold_every_layer(pp: int, layers: int) -> None:
    """Nothing is lost, and no two stages differ by more than one layer."""
    counts = [stage.layers for stage in memory.stages(replace(KNOWN[0][1], layers=layers), pp)]
    assert sum(counts) == layers
    assert max(counts) - min(counts) <= 1


@thorough
@given(models, st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 64))
def test_cache_counts_agree(architecture: Architecture, tokens: int, blocks: int, requests: int) -> None:
    """What `requests` and `longest` promise, `blocks` confirms."""
    paged = memory.cache(architecture, Layout(1, 1), memory.stages(architecture, 1)[0], Load(8192, 256))
    held = paged.requests(tokens, blocks)
    assert held == 0 or paged.blocks(tokens, held) <= blocks
    assert paged.blocks(tokens, held + 1) > blocks
    longest = paged.longest(blocks, tokens)
    assert longest == 0 or paged.blocks(longest) <= blocks
    assert longest == tokens or paged.blocks(longest + 1) > blocks
    assert paged.blocks(tokens, requests) <= requests * paged.blocks(tokens)
