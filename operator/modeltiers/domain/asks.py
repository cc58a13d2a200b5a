"""Between the resource and sizing: what a ModelTier asks for, and how a plan is told in its status.

The one place where sizing and the API's types meet, so that either can change alone. `size` is what the operator and
`modeltiers plan` share: same spec, same nodes, same answer. It refuses to read anything by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from modeltiers.api.model import Architecture as ApiArchitecture
from modeltiers.api.modeltier import ModelTierSpec, Sizing
from modeltiers.api.settings import Limits, Settings
from modeltiers.domain import accelerators, catalogue, sizing
from modeltiers.domain.accelerators import Known, Wanted
from modeltiers.domain.architecture import Architecture, WeightFormat
from modeltiers.domain.catalogue import Catalogue
from modeltiers.domain.sizing import Ask, Candidate, NoFit, Plan
from modeltiers.domain.views import NodeView

_FACTS: Final = 256
_WHY: Final = 1024
_NOTES: Final = 8


@dataclass(frozen=True, slots=True)
class Unknown:
    """A model whose shapes are not known: one word for why, and the way out."""

    reason: str
    message: str


def size(spec: ModelTierSpec, known: Catalogue, nodes: Sequence[NodeView] | None, settings: Settings) -> Plan | NoFit:
    """The plan of a tier that this cluster serves. `nodes` is None where nodes may not be seen. Never raises."""
    if fault := contradiction(spec):
        return NoFit("InvalidSpec", fault)
    architecture = architecture_of(spec, known)
    if isinstance(architecture, Unknown):
        return NoFit(architecture.reason, architecture.message)
    table = known_of(settings)
    allowed = _selected(nodes, spec.scheduling.node_selector if spec.scheduling else {})
    devices = [accelerators.resolve(wanted, allowed, table) for wanted in wanted_of(spec)]
    return sizing.fit(architecture, devices, ask_of(spec, settings.limits))


def _selected(nodes: Sequence[NodeView] | None, selector: Mapping[str, str]) -> list[NodeView] | None:
    """The nodes that the tier's own selector allows: a larger one beside them does not help it."""
    if nodes is None:
        return None
    return [node for node in nodes if all(node.labels.get(key) == value for key, value in selector.items())]


def contradiction(spec: ModelTierSpec) -> str | None:
    """What the CRD's rules would have refused, for specs that no API server has seen; None when nothing."""
    if spec.model is None or spec.external is not None:
        return "spec: give exactly one of model and external; sizing is for tiers with a model"
    if not spec.accelerators:
        return "spec.accelerators: a tier with a model needs at least one entry"
    if len({accelerator.name for accelerator in spec.accelerators}) < len(spec.accelerators):
        return "spec.accelerators: names must differ"
    return _contradictory_sizing(spec.sizing) if spec.sizing else None


def _contradictory_sizing(wanted: Sizing) -> str | None:
    if (wanted.mode == "Pinned") != (wanted.pinned is not None):
        return "spec.sizing: mode Pinned needs pinned, and pinned needs mode Pinned"
    if wanted.pinned and wanted.pinned.gpus != wanted.pinned.tensor_parallel * (wanted.pinned.pipeline_parallel or 1):
        return "spec.sizing.pinned: gpus must equal tensorParallel x pipelineParallel"
    return None


def ask_of(spec: ModelTierSpec, limits: Limits) -> Ask:
    """What the layout is for."""
    ask = Ask(max_gpus=limits.max_gpus_per_replica)
    if spec.model:
        ask = replace(
            ask,
            max_model_len=spec.model.max_model_len,
            weights_fp8=spec.model.quantization == "FP8",
            kv_fp8=spec.model.kv_cache_dtype == "FP8",
        )
    if spec.sizing:
        pinned = spec.sizing.pinned
        ask = replace(
            ask,
            objective=spec.sizing.objective,
            concurrency=spec.sizing.concurrency,
            context_per_request=spec.sizing.context_per_request,
            pinned=(pinned.tensor_parallel, pinned.pipeline_parallel or 1) if pinned else None,
        )
    return ask


def architecture_of(spec: ModelTierSpec, known: Catalogue) -> Architecture | Unknown:
    """The model's numbers: those of the spec, else the catalogue's, else what to do about it."""
    model = spec.model
    if model is None:
        return Unknown("UnknownModel", "spec.model: there is none")
    if model.architecture:
        return _from_api(model.architecture)
    way_out = "Give spec.model.architecture: the numbers are in the model's config.json"
    if not model.source.startswith("hf://"):
        return Unknown("UnknownModel", f"spec.model.source {model.source} is not in the catalogue. {way_out}")
    name = model.source.removeprefix("hf://")
    return catalogue.find(known, name) or _not_found(name, known, way_out)


def _not_found(name: str, known: Catalogue, way_out: str) -> Unknown:
    left = known.left_out.get(name)
    if left and left.reason == "NotUnderstood":
        return Unknown(
            "ArchitectureNotSupported",
            f"spec.model.source: {name} cannot be sized by this version: {left.why}. Choose a model whose attention "
            f"is Full, SlidingAndFull or MLA",
        )
    if left:
        return Unknown("UnknownModel", f"spec.model.source: {name} is not in the catalogue: {left.why}. {way_out}")
    close = catalogue.nearest(known, name)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return Unknown(
        "UnknownModel", f"spec.model.source: {name} is not in the catalogue ({known.version}).{meant} {way_out}"
    )


def _from_api(given: ApiArchitecture) -> Architecture:
    form = given.quantization
    numbers = given.model_dump(exclude={"quantization"})
    if form is None:
        return Architecture(**numbers, facts="spec.model.architecture")
    # MXFP4 checkpoints quantise their experts and keep the rest in 16 bits.
    experts_only = form.method == "MXFP4" and given.experts is not None
    quantization = WeightFormat(form.method, form.bits, form.group_size, form.block, experts_only)
    return Architecture(**numbers, quantization=quantization, facts="spec.model.architecture")


def wanted_of(spec: ModelTierSpec) -> list[Wanted]:
    """The accelerators in the user's order."""
    return [
        Wanted(
            name=accelerator.name,
            product=accelerator.product,
            product_label=accelerator.product_label,
            resource=accelerator.resource,
            memory=accelerators.quantity_bytes(accelerator.memory) if accelerator.memory else None,
            gpus_per_node=accelerator.gpus_per_node,
            path=f"spec.accelerators[{index}]",
        )
        for index, accelerator in enumerate(spec.accelerators)
    ]


def known_of(settings: Settings) -> list[Known]:
    """The administrator's own table of accelerators."""
    return [
        Known(
            product=entry.product,
            memory=accelerators.quantity_bytes(entry.memory) or 0,
            gpus_per_node=entry.gpus_per_node,
            product_label=entry.product_label,
            resource=entry.resource,
        )
        for entry in settings.accelerators
    ]


def sizing_status(plan: Plan, input_hash: str, free_gpus: int | None = None) -> dict[str, Any]:
    """`status.sizing` of a plan, in the API's spelling. `free_gpus` is None where nodes may not be seen."""
    return {
        "accelerator": plan.device.name,
        "product": plan.device.product,
        "gpusPerReplica": plan.gpus,
        "tensorParallel": plan.tensor_parallel,
        "pipelineParallel": plan.pipeline_parallel,
        "maxModelLen": plan.max_model_len,
        "maxNumSeqs": plan.max_num_seqs,
        "memoryBytes": plan.device.memory,
        "budgetBytes": plan.budget_bytes,
        "kvTokens": plan.kv_tokens,
        "terms": terms_status(plan),
        "candidates": candidates_status(plan.candidates),
        **({"notes": [_clip(note, _WHY) for note in plan.notes[:_NOTES]]} if plan.notes else {}),
        "modelFacts": _clip(plan.model_facts, _FACTS),
        "acceleratorFacts": _clip(plan.device.facts, _FACTS),
        "freeGpus": "unknown" if free_gpus is None else str(free_gpus),
        "inputHash": input_hash,
    }


def terms_status(answer: Plan | NoFit) -> list[dict[str, Any]]:
    """The terms in the API's spelling."""
    return [{"name": term.name, "bytes": term.bytes, "how": _clip(term.how, _FACTS)} for term in answer.terms]


def candidates_status(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The candidates in the API's spelling."""
    return [_candidate(candidate) for candidate in candidates]


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "accelerator": candidate.accelerator,
        "gpus": candidate.gpus,
        "tensorParallel": candidate.tensor_parallel,
        "pipelineParallel": candidate.pipeline_parallel,
        "verdict": candidate.verdict,
        "why": _clip(candidate.why, _WHY),
    }


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
