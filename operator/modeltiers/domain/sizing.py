"""From a model and the accelerators in the user's order to a layout: accelerators per replica, TP, PP, context.

`fit` tries the layouts of one node in a fixed order, keeps an account of each, and takes the first that holds what was
asked (Cost) or the largest that helps (Latency). It proposes nothing that the arithmetic says cannot start, and refuses
to know clusters, clocks and the resource's own types: the same call serves the operator, the CLI and the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from modeltiers.domain import layouts, memory
from modeltiers.domain.accelerators import Device, Unresolved
from modeltiers.domain.architecture import Architecture, WeightFormat, incomplete, not_understood
from modeltiers.domain.layouts import Layout
from modeltiers.domain.memory import GIB, Ledger, Load, Term, gib

DEFAULT_CONTEXT: Final = 4096
"""Tokens to plan for each concurrent request when the spec does not say."""
USEFUL_WEIGHTS: Final = GIB
"""Weights a rank must hold for more ranks to answer faster: below it, all-reduces outlast the reading. Assumed."""
MANY_SEQS: Final = 256
"""Requests the engine may run at once beyond the concurrency asked for, as far as the KV cache holds them."""
LARGE_DEVICE: Final = 70 * GIB
"""From here on a step takes 8192 tokens, below it 2048: vLLM's own defaults for a server."""
MOST_RECORDED: Final = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """What the layout is for. Counts and tokens; `pinned` is (TP, PP)."""

    objective: str = "Cost"
    concurrency: int = 16
    context_per_request: int | None = None
    max_model_len: int | None = None
    weights_fp8: bool = False
    kv_fp8: bool = False
    pinned: tuple[int, int] | None = None
    max_gpus: int = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout that was tried, and why it won or lost."""

    accelerator: str
    gpus: int
    tensor_parallel: int
    pipeline_parallel: int
    verdict: str
    """Chosen, Fits, TooSmall, IllegalLayout, NodeTooSmall or NotUseful."""
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A layout that fits, with the account it was chosen by. Bytes are predictions for the fullest accelerator."""

    device: Device
    gpus: int
    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: bool
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization_permille: int
    kv_tokens: int
    """Tokens of KV cache in one replica."""
    weight_bytes: int
    """Bytes of the weight files, all of them."""
    budget_bytes: int
    terms: tuple[Term, ...]
    """They add up to at most the budget."""
    candidates: tuple[Candidate, ...]
    model_facts: str
    notes: tuple[str, ...] = ()
    """What a careful reader should know besides."""


@dataclass(frozen=True, slots=True)
class NoFit:
    """No layout: one word for why, and a message that names the field, the numbers and the way out."""

    reason: str
    message: str
    candidates: tuple[Candidate, ...] = ()
    terms: tuple[Term, ...] = ()
    """The account of the layout that came closest."""
    budget_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Goal:
    concurrency: int
    context: int
    longest: int
    """Tokens that a single request must be able to reach."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One question: this model on this accelerator."""

    architecture: Architecture
    effective: Architecture
    """The model as the engine will hold it: layouts are judged with the weights it quantises while loading."""
    device: Device
    ask: Ask
    goal: _Goal
    load: Load

    @property
    def most(self) -> int:
        """Accelerators that a replica may take: those of a node, or the administrator's limit."""
        return min(self.device.gpus_per_node, self.ask.max_gpus)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A layout without an account: it is illegal."""

    device: Device
    layout: Layout
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class _Trial:
    """A legal layout and its account."""

    device: Device
    layout: Layout
    verdict: str
    why: str
    load: Load
    ledger: Ledger
    held: int
    """Requests of the planned context that it holds."""


_Tried = _Refused | _Trial


def fit(architecture: Architecture, devices: Sequence[Device | Unresolved], ask: Ask) -> Plan | NoFit:
    """Choose a layout on the first accelerator that has one; else say what stands in the way. Never raises."""
    if refused := _refused(architecture, ask):
        return refused
    tried: list[_Tried] = []
    for device in devices:
        if isinstance(device, Unresolved):
            continue
        case = _case(architecture, device, ask)
        trials = _within_node(case)
        tried += trials
        if chosen := _chosen(trials, ask):
            skipped = [d for d in devices[: devices.index(device)] if isinstance(d, Unresolved)]
            return _plan(architecture, chosen, tried, ask, skipped)
        tried += _beyond_node(case)
    return _no_fit(architecture, devices, tried, ask)


# --- what is asked ----------------------------------------------------------------------------------------------------


def _refused(a: Architecture, ask: Ask) -> NoFit | None:
    """What no accelerator can help: numbers that make no whole, a kind not understood, a context out of reach."""
    if why := not_understood(a.name):
        return NoFit(
            "ArchitectureNotSupported",
            f"spec.model: {a.name} cannot be sized by this version: {why}. Choose a model whose attention is Full, "
            f"SlidingAndFull or MLA",
        )
    if why := incomplete(a):
        return NoFit("ArchitectureIncomplete", f"spec.model.architecture: {why}")
    estimated = memory.estimated_bytes(a)
    if a.weight_bytes and a.weight_bytes * 4 < estimated * 3:
        return NoFit(
            "ImplausibleWeights",
            f"spec.model.architecture.weightBytes says {gib(a.weight_bytes)}, but these shapes need about "
            f"{gib(estimated)}: correct it, leave it out, or say in quantization how the weights are quantised",
        )
    if ask.weights_fp8 and a.quantization is not None and a.quantization.method != "FP8":
        return NoFit(
            "QuantizationConflict",
            f"spec.model.quantization FP8 quantises 16-bit weights, but these are {a.quantization.method} already: "
            f"set Auto",
        )
    return _refused_context(a, ask)


def _refused_context(a: Architecture, ask: Ask) -> NoFit | None:
    limit = ask.max_model_len or a.max_position
    for field, tokens, most, of in (
        ("spec.model.maxModelLen", ask.max_model_len, a.max_position, "the model supports"),
        ("spec.sizing.contextPerRequest", ask.context_per_request, limit, "one request may have"),
    ):
        if tokens and tokens > most:
            return NoFit("ContextTooLong", f"{field} is {tokens}, more than the {most} tokens that {of}: lower it")
    return None


def _goal(a: Architecture, ask: Ask) -> _Goal:
    context = ask.context_per_request or min(DEFAULT_CONTEXT, ask.max_model_len or a.max_position)
    return _Goal(max(1, ask.concurrency), context, max(ask.max_model_len or context, context))


def _case(a: Architecture, device: Device, ask: Ask) -> _Case:
    goal = _goal(a, ask)
    seqs = max(MANY_SEQS, goal.concurrency)
    step = max(8192 if device.memory >= LARGE_DEVICE else 2048, seqs)
    return _Case(a, _effective(a, ask), device, ask, goal, Load(step, seqs, ask.weights_fp8, ask.kv_fp8))


def _effective(a: Architecture, ask: Ask) -> Architecture:
    return replace(a, quantization=WeightFormat("FP8", 8)) if ask.weights_fp8 and not a.quantization else a


# --- trying layouts ---------------------------------------------------------------------------------------------------


def _within_node(case: _Case) -> list[_Tried]:
    """Layouts of one node in order, each judged, up to the first that fits where that one is wanted."""
    if case.ask.pinned:
        return [_pinned(case, case.ask.pinned)]
    found: list[_Tried] = []
    for tp, pp in _sizes(case.effective, case.most):
        if pp > 1 and any(trial.verdict == "Fits" for trial in found):
            break  # stages only where no layout without them fits: they add latency and idle time
        found.append(_judge(case, tp, pp))
        if found[-1].verdict == "Fits" and (case.ask.objective != "Latency" or pp > 1):
            break
    return found


def _sizes(a: Architecture, limit: int) -> Iterator[tuple[int, int]]:
    """(TP, PP) in the order to try: TP alone from small to large, then stages, never with fewer accelerators.

    Since every later layout has at least as many accelerators, more load can never end in fewer of them.
    """
    legal = [1]
    for tp in range(1, limit + 1):
        yield tp, 1
        if tp > 1 and _is_legal(a, tp):
            legal.append(tp)
    if layouts.stages_are_supported(a, Layout(1, 2)):
        if limit > legal[-1]:
            yield legal[-1], 2  # once, for the record of why there are no stages
        return
    for gpus in range(max(2, legal[-1]), limit + 1):
        for tp in reversed(legal):
            if gpus % tp == 0 and gpus > tp:
                yield tp, gpus // tp


def _judge(case: _Case, tp: int, pp: int) -> _Tried:
    """One layout: illegal, too small, or fits."""
    device, goal = case.device, case.goal
    layout = layouts.choose(case.effective, tp, pp)
    if isinstance(layout, str):
        return _Refused(device, Layout(tp, pp), "IllegalLayout", layout)
    ledger = memory.account(case.architecture, layout, device.memory, case.load)
    held = ledger.cache.requests(goal.context, ledger.blocks)
    if held >= goal.concurrency and _one_fits(ledger, goal):
        return _Trial(device, layout, "Fits", _fits(held, goal), case.load, ledger, held)
    return _Trial(device, layout, "TooSmall", _too_small(ledger, held, goal), case.load, ledger, held)


def _one_fits(ledger: Ledger, goal: _Goal) -> bool:
    return ledger.cache.blocks(goal.longest) <= ledger.blocks


def _fits(held: int, goal: _Goal) -> str:
    return f"holds {held} requests of {goal.context} tokens, {goal.concurrency} asked"


def _too_small(ledger: Ledger, held: int, goal: _Goal) -> str:
    room = f"budget {gib(ledger.budget)} - weights {gib(ledger.weights.total)} - overhead {gib(ledger.overhead)}"
    if ledger.blocks == 0:
        return f"{room} leaves nothing for KV cache"
    if held < goal.concurrency:
        need = (ledger.cache.blocks(goal.context, goal.concurrency) + 1) * ledger.cache.block_bytes
        asked = f"{held} of {goal.concurrency} requests of {goal.context} tokens, all need {gib(need)}"
    else:
        need = (ledger.cache.blocks(goal.longest) + 1) * ledger.cache.block_bytes
        asked = f"one request of {goal.longest} tokens needs {gib(need)}"
    return f"{room} leaves {gib(ledger.cache_bytes)} for KV cache: {asked}"


def _pinned(case: _Case, size: tuple[int, int]) -> _Tried:
    """A layout chosen by hand: it must be able to start, and may hold less than was asked."""
    trial = _judge(case, *size)
    if isinstance(trial, _Refused):
        return trial
    if why := _too_many(case, trial.layout.gpus):
        return replace(trial, verdict="NodeTooSmall", why=why)
    if trial.held >= 1 and _one_fits(trial.ledger, case.goal):
        return replace(trial, verdict="Fits", why=_fits(trial.held, case.goal))
    return trial


def _too_many(case: _Case, gpus: int) -> str | None:
    device, most = case.device, case.ask.max_gpus
    if gpus > most:
        return f"{gpus} accelerators are more than the administrator's limit of {most} (limits.maxGpusPerReplica)"
    if gpus > device.gpus_per_node:
        slices = "a slice works alone" if device.alone else "layouts over several nodes are not available yet"
        return f"{gpus} accelerators are more than the {device.gpus_per_node} of a node: {slices}"
    return None


def _beyond_node(case: _Case) -> Iterator[_Trial]:
    """The first layout past the limit or the node that would fit, so that the record says what is missing."""
    device = case.device
    if device.alone or case.ask.pinned:
        return
    wider = range(case.most + 1, device.gpus_per_node + 1)
    widest = max(tp for tp in range(1, device.gpus_per_node + 1) if tp == 1 or _is_legal(case.effective, tp))
    for tp, pp in (*((tp, 1) for tp in wider), *((widest, nodes) for nodes in range(2, 9))):
        why = _too_many(case, tp * pp)
        if why is None:
            continue
        trial = _judge(case, tp, pp)
        if isinstance(trial, _Trial) and trial.verdict == "Fits":
            yield replace(trial, verdict="NodeTooSmall", why=f"would fit, but {why}")
            return


def _is_legal(a: Architecture, tp: int) -> bool:
    return not isinstance(layouts.choose(a, tp, 1), str)


def _chosen(tried: Sequence[_Tried], ask: Ask) -> _Trial | None:
    """Cost: the first that fits, which is the smallest. Latency: the largest that fits and helps."""
    fitting = [trial for trial in tried if isinstance(trial, _Trial) and trial.verdict == "Fits"]
    if not fitting:
        return None
    if ask.objective != "Latency":
        return fitting[0]
    return max((t for t in fitting if _useful(t) or t is fitting[0]), key=lambda trial: trial.layout.gpus)


def _useful(trial: _Trial) -> bool:
    return trial.ledger.weights.total >= USEFUL_WEIGHTS


# --- saying it --------------------------------------------------------------------------------------------------------


def _plan(a: Architecture, chosen: _Trial, tried: Sequence[_Tried], ask: Ask, skipped: Sequence[Unresolved]) -> Plan:
    ledger, load, at = chosen.ledger, chosen.load, chosen.layout
    return Plan(
        device=chosen.device,
        gpus=at.gpus,
        tensor_parallel=at.tensor_parallel,
        pipeline_parallel=at.pipeline_parallel,
        expert_parallel=at.expert_parallel,
        max_model_len=ask.max_model_len or ledger.cache.longest(ledger.blocks, a.max_position),
        max_num_seqs=max(1, min(chosen.held, load.max_num_seqs)),
        max_num_batched_tokens=load.max_num_batched_tokens,
        gpu_memory_utilization_permille=memory.UTILIZATION_PERMILLE,
        kv_tokens=ledger.tokens,
        weight_bytes=memory.checkpoint_bytes(a),
        budget_bytes=ledger.budget,
        terms=memory.terms(a, at, ledger, load),
        candidates=_candidates(tried, chosen),
        model_facts=_model_facts(a),
        notes=tuple(_notes(a, chosen, ask, skipped)),
    )


def _model_facts(a: Architecture) -> str:
    weights = "weight files as published" if a.weight_bytes else "weights estimated from the shapes"
    return f"{a.facts}; {weights}" if a.facts else weights


def _notes(a: Architecture, chosen: _Trial, ask: Ask, skipped: Sequence[Unresolved]) -> Iterator[str]:
    goal = _goal(a, ask)
    for unresolved in skipped:
        yield f"{unresolved.name} was skipped: {unresolved.message}"
    yield from chosen.device.warnings
    if chosen.layout.gpus > 1 and chosen.device.node_size_assumed:
        most = chosen.device.gpus_per_node
        yield f"nodes with {most} {chosen.device.name} are assumed: give gpusPerNode if yours have fewer"
    if chosen.held < goal.concurrency:
        asked = f"{goal.concurrency} requests of {goal.context} tokens"
        yield f"the pinned layout holds {chosen.held} of the {asked} asked for"
    if chosen.layout.expert_parallel:
        cut = layouts.legal(_effective(a, ask), chosen.layout.tensor_parallel, chosen.layout.pipeline_parallel)
        yield f"experts stay whole on their ranks (--enable-expert-parallel), because {cut}"


def _candidates(tried: Sequence[_Tried], chosen: _Trial | None) -> tuple[Candidate, ...]:
    found = [_candidate(trial, chosen) for trial in tried]
    # Too many for a status: of all, illegal ones say least, and later ones less than earlier ones.
    for verdict in ("IllegalLayout", "TooSmall", "NotUseful", "Fits", "NodeTooSmall"):
        for candidate in [c for c in reversed(found) if c.verdict == verdict][: max(0, len(found) - MOST_RECORDED)]:
            found.remove(candidate)
    return tuple(found)


def _candidate(trial: _Tried, chosen: _Trial | None) -> Candidate:
    verdict, why = trial.verdict, trial.why
    if trial is chosen:
        verdict = "Chosen"
    elif chosen and isinstance(trial, _Trial) and verdict == "Fits":
        if trial.layout.gpus < chosen.layout.gpus:
            why = f"{why}; {chosen.layout.gpus} accelerators answer faster"
        else:
            held = gib(trial.ledger.weights.total)
            verdict = "NotUseful"
            why = (
                f"a rank would hold {held} of weights: below {gib(USEFUL_WEIGHTS)} more ranks wait more than they read"
            )
    at = trial.layout
    return Candidate(trial.device.name, at.gpus, at.tensor_parallel, at.pipeline_parallel, verdict, why)


def _no_fit(a: Architecture, devices: Sequence[Device | Unresolved], tried: Sequence[_Tried], ask: Ask) -> NoFit:
    goal = _goal(a, ask)
    unknown = [device for device in devices if isinstance(device, Unresolved)]
    if not tried:
        message = (
            "; ".join(f"{u.path}: {u.message}" for u in unknown) or "spec.accelerators is empty: name at least one"
        )
        return NoFit("AcceleratorUnknown", message)
    small = [trial for trial in tried if isinstance(trial, _Trial) and trial.verdict == "TooSmall"]
    if not small:
        return _no_layout(a, tried, ask)
    best = max(small, key=lambda trial: (_share(trial, goal), trial.ledger.cache_bytes))
    only_longest = best.held >= (1 if ask.pinned else goal.concurrency)
    field = "spec.model.maxModelLen" if only_longest else "spec.sizing.pinned" if ask.pinned else "spec.accelerators"
    skipped = "".join(f" {u.name} was skipped: {u.message}." for u in unknown)
    outs = "; ".join(_ways_out(a, devices, best, ask, goal))
    return NoFit(
        reason="ContextTooLong" if only_longest else "FitsNoAccelerator",
        message=f"{field}: no layout fits. {_closest(best)}.{skipped} Ways out: {outs}",
        candidates=_candidates(tried, None),
        terms=memory.terms(a, best.layout, best.ledger, best.load),
        budget_bytes=best.ledger.budget,
    )


def _no_layout(a: Architecture, tried: Sequence[_Tried], ask: Ask) -> NoFit:
    """Nothing was too small: what was tried is illegal, or larger than a node or the administrator's limit."""
    first = tried[0]
    reason = "IllegalLayout" if first.verdict == "IllegalLayout" else "FitsNoAccelerator"
    field = "spec.sizing.pinned" if ask.pinned else "spec.accelerators"
    whys = "; ".join(f"{trial.device.name}: {trial.why}" for trial in tried)
    most = min(first.device.gpus_per_node, ask.max_gpus)
    legal = ", ".join(str(tp) for tp in range(1, most + 1) if _is_legal(_effective(a, ask), tp))
    message = f"{field}: {whys}. Legal TP within a node of {most}: {legal or 'none'}"
    return NoFit(reason, message, _candidates(tried, None))


def _closest(best: _Trial) -> str:
    at, device = best.layout, best.device
    size = f"TP {at.tensor_parallel}, PP {at.pipeline_parallel}"
    return f"Closest is {at.gpus} x {device.name} ({gib(device.memory)} each, {size}): {best.why}"


def _share(trial: _Trial, goal: _Goal) -> int:
    """How near a layout came: permille of the KV blocks that were needed."""
    needed = max(trial.ledger.cache.blocks(goal.context, goal.concurrency), trial.ledger.cache.blocks(goal.longest))
    return trial.ledger.blocks * 1000 // needed


def _ways_out(
    a: Architecture, devices: Sequence[Device | Unresolved], best: _Trial, ask: Ask, goal: _Goal
) -> Iterator[str]:
    """Changes that were tried and would fit, then the one that always helps."""
    changes: list[tuple[str, Ask]] = []
    if 1 <= best.held < goal.concurrency:
        changes.append((f"spec.sizing.concurrency {best.held}", replace(ask, concurrency=best.held)))
    longest = best.ledger.cache.longest(best.ledger.blocks, goal.longest)
    if goal.context <= longest < goal.longest:
        changes.append((f"spec.model.maxModelLen {longest}", replace(ask, max_model_len=longest)))
    if ask.pinned:
        changes.append(("spec.sizing.mode Auto", replace(ask, pinned=None)))
    if not ask.kv_fp8:
        changes.append(("spec.model.kvCacheDtype FP8", replace(ask, kv_fp8=True)))
    if not ask.weights_fp8 and a.quantization is None:
        changes.append(("spec.model.quantization FP8", replace(ask, weights_fp8=True)))
    for name, changed in changes:
        for device in devices:
            if isinstance(device, Unresolved):
                continue
            if found := _chosen(_within_node(_case(a, device, changed)), changed):
                yield f"{name} fits {found.layout.gpus} x {device.name}"
                break
    yield "an accelerator with more memory in spec.accelerators"
