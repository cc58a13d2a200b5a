"""`modeltiers plan`: the layout a tier would get, with every term, without a cluster.

It calls the operator's own `size` on the documents of the files, so a pull request can be refused before anything is
applied. Without `--nodes` it plans from the spec and the bundled table alone, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import click
import yaml
from pydantic import ValidationError

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault, parse_distill
from modeltiers.api.settings import Settings
from modeltiers.cli import documents
from modeltiers.cli.documents import Document
from modeltiers.cli.resources import problems, read_tier
from modeltiers.cli.show import columns
from modeltiers.domain import asks, catalogue
from modeltiers.domain.distill.following import followed, job_of
from modeltiers.domain.memory import gib
from modeltiers.domain.record import inputs_of
from modeltiers.domain.sizing import Candidate, NoFit, Plan
from modeltiers.domain.views import NodeView

_READ: Final = ("ModelTier", "DistillJob", "")
_HELP: Final = """Print the layout that each ModelTier would get, and why. Needs no cluster.

\b
Exit codes, for CI:
  0  every tier fits (or is external and needs no plan)
  1  some tier does not fit
  2  some input is bad: unreadable, not a ModelTier, or a field is wrong

\b
Examples:
  modeltiers plan -f tier.yaml
  kubectl get nodes -o yaml > nodes.yaml && modeltiers plan -f tiers.yaml --nodes nodes.yaml
  kustomize build . | modeltiers plan -f - -o json
  modeltiers plan -f tiers.yaml -f job.yaml   (a tier with model.source distill://NAME, and what it follows)
"""


@dataclass(frozen=True, slots=True)
class Planned:
    """One tier and what came of it; an external tier has no answer and needs none."""

    where: Document
    name: str
    spec: ModelTierSpec
    answer: Plan | NoFit | None


@click.command(help=_HELP)
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, help="File with ModelTiers, - for standard input."
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.option("--settings", "settings_file", help="The administrator's settings file: known accelerators and limits.")
@click.option("--nodes", "nodes_file", help="Output of `kubectl get nodes -o yaml` (or json): plan for these nodes.")
@click.pass_context
def plan(
    ctx: click.Context, files: tuple[str, ...], output: str, settings_file: str | None, nodes_file: str | None
) -> None:
    """Print the layout that each ModelTier would get."""
    faults: list[str] = []
    settings = _settings(settings_file, faults)
    nodes = _nodes(nodes_file, faults)
    known = catalogue.load()
    planned: list[Planned] = []
    for tier in _tiers(files, faults):
        spec = tier.spec
        answer = None if spec.external and not spec.model else asks.size(spec, known, nodes, settings)
        planned.append(Planned(tier.where, tier.name, spec, answer))
    if planned or output != "table":
        click.echo(_render(planned, output), nl=False)
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    if faults:
        ctx.exit(2)
    ctx.exit(1 if any(isinstance(tier.answer, NoFit) for tier in planned) else 0)


# --- reading ----------------------------------------------------------------------------------------------------------


def _tiers(files: Sequence[str], faults: list[str]) -> Iterator[Planned]:
    """Every ModelTier of the files; what is wrong goes to `faults`, other kinds are passed over."""
    given: list[Document] = []
    for path in files:
        before = len(faults)
        found = list(documents.unfolded(documents.read(path), faults))
        # What has no kind is meant to be a tier, and is told what it lacks.
        held = [one for one in found if not isinstance(kind := one.content.get("kind"), str) or kind in _READ]
        given += held
        if not held and len(faults) == before:
            faults.append(f"{'standard input' if path == '-' else path}: holds no ModelTier")
    jobs = {_name_of(one): one for one in given if one.content.get("kind") == "DistillJob"}
    if given and len(jobs) == len(given):
        faults.append("there is no ModelTier beside the DistillJobs")
    for document in given:
        if document.content.get("kind") != "DistillJob" and (tier := read_tier(document, faults)):
            name, spec = tier
            yield from _followed(Planned(document, name, spec, None), jobs, faults)


def _name_of(document: Document) -> str:
    metadata = document.content.get("metadata")
    return str(metadata.get("name")) if isinstance(metadata, dict) else ""


def _followed(tier: Planned, jobs: Mapping[str, Document], faults: list[str]) -> Iterator[Planned]:
    """The tier as it is served before anything is promoted, where it follows a DistillJob."""
    name = job_of(tier.spec)
    if name is None:
        yield tier
        return
    place = f"{tier.where.where}: spec.model.source: DistillJob {name}"
    if name not in jobs:
        faults.append(f"{place} says what this serves: name its file too, with another -f")
        return
    job = parse_distill(jobs[name].content)
    if isinstance(job, Fault):
        faults.append(f"{place}, {jobs[name].where}: {job.message}")
        return
    yield replace(tier, spec=followed(tier.spec, job.spec, {}))


def _settings(path: str | None, faults: list[str]) -> Settings:
    if path is None:
        return Settings()
    found = list(documents.unfolded(documents.read(path), faults))
    if not found:
        return Settings()
    try:
        return Settings.model_validate(found[0].content)
    except ValidationError as error:
        faults += [f"{found[0].where}: {line}" for line in problems(error)]
        return Settings()


def _nodes(path: str | None, faults: list[str]) -> list[NodeView] | None:
    if path is None:
        return None
    before = len(faults)
    bodies = (document.content for document in documents.unfolded(documents.read(path), faults))
    found = [NodeView.of(body) for body in bodies if body.get("kind") == "Node"]
    if not found and len(faults) == before:
        faults.append(f"{path}: holds no Node; make it with `kubectl get nodes -o yaml`")
    return found


# --- printing ---------------------------------------------------------------------------------------------------------


def _render(planned: Sequence[Planned], output: str) -> str:
    if output == "table":
        return "\n".join("\n".join(_table(tier)) + "\n" for tier in planned)
    body = {"tiers": [_body(tier) for tier in planned]}
    if output == "json":
        return json.dumps(body, indent=2) + "\n"
    return yaml.safe_dump(body, sort_keys=False, width=120)


def _body(tier: Planned) -> dict[str, Any]:
    head: dict[str, Any] = {"name": tier.name, "file": tier.where.file, "document": tier.where.number}
    answer = tier.answer
    if answer is None:
        return {**head, "fits": True, "external": True}
    if isinstance(answer, Plan):
        sized = asks.sizing_status(answer, inputs_of(tier.spec))
        return {**head, "fits": True, "notes": list(answer.notes), "sizing": sized}
    return {
        **head,
        "fits": False,
        "reason": answer.reason,
        "message": answer.message,
        "terms": asks.terms_status(answer),
        "candidates": asks.candidates_status(answer.candidates),
    }


def _table(tier: Planned) -> Iterator[str]:
    answer, model = tier.answer, tier.spec.model
    source = model.source if model else ""
    if answer is None:
        yield f"{tier.name}: external ({tier.spec.external.base_url if tier.spec.external else ''}), needs no plan"
        return
    if isinstance(answer, NoFit):
        yield f"{tier.name}: does not fit ({answer.reason})  {source}"
        yield f"  {answer.message}"
    else:
        yield from _chosen(tier.name, source, answer)
    if answer.terms:
        whose = "the fullest accelerator" if isinstance(answer, Plan) else "the closest layout"
        yield f"\n  Memory of {whose}, predicted"
        rows = [_term_row(t.name, t.bytes, t.how) for t in answer.terms]
        yield from columns([*rows, _sum_row(answer)], right={1}, indent="  ")
    if answer.candidates:
        yield "\n  Layouts tried, in order"
        rows = [("ACCELERATOR", "GPUS", "TP", "PP", "VERDICT", "WHY"), *map(_candidate_row, answer.candidates)]
        yield from columns(rows, right={1, 2, 3}, indent="  ")


def _chosen(name: str, source: str, chosen: Plan) -> Iterator[str]:
    device = chosen.device
    experts = ", whole experts (--enable-expert-parallel)" if chosen.expert_parallel else ""
    gpus = "GPU" if chosen.gpus == 1 else "GPUs"
    yield f"{name}: {chosen.gpus} {gpus}, TP {chosen.tensor_parallel}, PP {chosen.pipeline_parallel}{experts}  {source}"
    rows = [
        ("accelerator", f"{device.name}: {device.product}, {chosen.gpus} x {device.resource}"),
        ("context", f"{chosen.max_model_len} tokens a request, at most {chosen.max_num_seqs} requests at once"),
        ("KV cache", f"{chosen.kv_tokens} tokens in a replica"),
        (
            "budget",
            f"{gib(chosen.budget_bytes)} of {gib(device.memory)}, {chosen.gpu_memory_utilization_permille / 1000:.0%}",
        ),
        ("model facts", chosen.model_facts),
        ("device facts", device.facts),
        *(("note", note) for note in chosen.notes),
    ]
    yield from columns(rows, indent="  ")


def _term_row(name: str, amount: int, how: str) -> tuple[str, ...]:
    return name, gib(amount), how


def _sum_row(answer: Plan | NoFit) -> tuple[str, ...]:
    return "sum", gib(sum(term.bytes for term in answer.terms)), f"of a budget of {gib(answer.budget_bytes)}"


def _candidate_row(candidate: Candidate) -> tuple[str, ...]:
    sizes = (candidate.gpus, candidate.tensor_parallel, candidate.pipeline_parallel)
    return candidate.accelerator, *map(str, sizes), candidate.verdict, candidate.why
