"""What every example becomes, computed the way the operator does, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from modeltiers import names
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.routingpolicy import Gateway, RoutingPolicySpec
from modeltiers.api.settings import Settings
from modeltiers.domain import asks, catalogue
from modeltiers.domain.distill.following import followed, job_of
from modeltiers.domain.distill.plan import Plan as StagePlan
from modeltiers.domain.distill.stages import next_stage
from modeltiers.domain.hosts import allowed, endpoint_of
from modeltiers.domain.policy_table import CompiledTable, TierView, compile_table
from modeltiers.domain.record import Record, inputs_of
from modeltiers.domain.revisions import revisions_of
from modeltiers.domain.scaling import expected
from modeltiers.domain.sizing import Plan
from modeltiers.domain.surge import choose_rollout
from modeltiers.render.distilljob import render_frame, render_job, source_paths
from modeltiers.render.egress import render_egress
from modeltiers.render.gateway import render_gateway, selector
from modeltiers.render.modeltier import render_candidate, render_tier, resolve
from modeltiers.render.network import admitted
from modeltiers.render.owner import Owner
from modeltiers.render.routingpolicy import render_entry

ROOT = Path(__file__).parents[2]
CATALOGUE = catalogue.load()
# Goldens show what an administrator with these settings gets; the examples use the profile.
SETTINGS = Settings.model_validate(yaml.safe_load((ROOT / "examples/settings.yaml").read_text()))


def examples() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every ModelTier and DistillJob in examples/, and every policy with routers of its own."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            kind, spec = (document or {}).get("kind"), (document or {}).get("spec") or {}
            if kind in ("ModelTier", "DistillJob") or (kind == "RoutingPolicy" and spec.get("placement") == "Gateway"):
                yield path, document


def policies() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every policy in examples/."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if (document or {}).get("kind") == "RoutingPolicy":
                yield path, document


def table_of(document: dict[str, Any]) -> CompiledTable:
    """The table that the routers of a policy read, with the tiers of all examples as they are before any pod."""
    tiers: dict[str, TierView | None] = {
        tier["metadata"]["name"]: TierView.of(tier["metadata"]["name"], ModelTierSpec.model_validate(tier["spec"]))
        for _, tier in examples()
        if tier["kind"] == "ModelTier"
    }
    metadata = document["metadata"]
    spec = RoutingPolicySpec.model_validate(document["spec"])
    table = compile_table(metadata["name"], spec, tiers, metadata.get("namespace", "default"))
    assert isinstance(table, CompiledTable), table
    return table


def record_of(
    name: str, spec: ModelTierSpec, settings: Settings = SETTINGS, revision: str = names.FIRST_REVISION
) -> Record:
    """Plan and resolve a tier as a cluster without visible nodes would."""
    plan = asks.size(spec, CATALOGUE, None, settings)
    assert isinstance(plan, Plan), plan.message
    inputs = inputs_of(spec)
    rollout = choose_rollout(None, plan.gpus, expected(spec, None), single_writer=False)
    return resolve(name, spec, plan, asks.sizing_status(plan, inputs, None), rollout, settings, revision)


def children_of(document: dict[str, Any], settings: Settings = SETTINGS) -> list[dict[str, Any]]:
    """The children of an example: of a DistillJob those of its first stage."""
    if document["kind"] == "RoutingPolicy":
        return _gateway_of(document, settings)
    if document["kind"] == "DistillJob":
        return _first_stage_of(document, settings)
    spec = _served(ModelTierSpec.model_validate(document["spec"]))
    name, namespace = document["metadata"]["name"], document["metadata"].get("namespace", "default")
    owner = Owner(namespace, name, "00000000-0000-0000-0000-000000000000")
    who = admitted(settings.network, names.OPERATOR_NAMESPACE)
    if spec.external:
        endpoint = endpoint_of(spec.external.base_url)
        host = allowed(endpoint.host, settings.external_hosts) if endpoint else None
        assert endpoint is not None and host is not None, "the settings allow what the examples call"
        return render_egress(owner, spec.external, endpoint, host, settings, {}, who)
    made = render_tier(owner, expected(spec, None), record_of(name, spec, settings), {}, who)
    for one in revisions_of(spec)[1:]:
        record = record_of(name, one.spec, settings, one.name)
        made += render_candidate(owner, one.spec.replicas, record, one.name)
    return made


def _served(spec: ModelTierSpec) -> ModelTierSpec:
    """A tier that follows a DistillJob serves what that means before anything is promoted."""
    name = job_of(spec)
    if name is None:
        return spec
    jobs = {job["metadata"]["name"]: job for _, job in examples() if job["kind"] == "DistillJob"}
    return followed(spec, DistillJobSpec.model_validate(jobs[name]["spec"]), {})


def _first_stage_of(document: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    name, spec = document["metadata"]["name"], DistillJobSpec.model_validate(document["spec"])
    owner = Owner("default", name, "00000000-0000-0000-0000-000000000000", "DistillJob")
    plan = StagePlan(job=name, spec=spec, sources=source_paths(spec))
    step = next_stage(spec, {})
    assert step is not None, "no stage is complete"
    frame = render_frame(owner, plan, admitted(settings.network, names.OPERATOR_NAMESPACE))
    return [*frame, render_job(owner, plan, step, {}, settings)]


def _gateway_of(document: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    name, spec = document["metadata"]["name"], RoutingPolicySpec.model_validate(document["spec"])
    table = table_of(document)
    owner = Owner("default", name, "00000000-0000-0000-0000-000000000000", "RoutingPolicy")
    who = admitted(settings.network, names.OPERATOR_NAMESPACE)
    tables = {names.table_key(name): table.content}
    return [
        *render_gateway(owner, spec.gateway or Gateway(), settings, tables, who),
        render_entry(owner, selector(name)),
    ]
