"""What every example becomes, computed the way the operator does, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain import asks, catalogue
from modeltiers.domain.record import Record, inputs_of
from modeltiers.domain.scaling import expected
from modeltiers.domain.sizing import Plan
from modeltiers.domain.surge import choose_rollout
from modeltiers.render.modeltier import render_tier, resolve
from modeltiers.render.network import admitted
from modeltiers.render.owner import Owner

ROOT = Path(__file__).parents[2]
CATALOGUE = catalogue.load()
# Goldens show what an administrator with these settings gets; the examples use the profile.
SETTINGS = Settings.model_validate(yaml.safe_load((ROOT / "examples/settings.yaml").read_text()))


def examples() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every ModelTier in examples/."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document and document.get("kind") == "ModelTier":
                yield path, document


def record_of(name: str, spec: ModelTierSpec, settings: Settings = SETTINGS) -> Record:
    """Plan and resolve a tier as a cluster without visible nodes would."""
    plan = asks.size(spec, CATALOGUE, None, settings)
    assert isinstance(plan, Plan), plan.message
    inputs = inputs_of(spec)
    rollout = choose_rollout(None, plan.gpus, expected(spec, None), single_writer=False)
    return resolve(name, spec, plan, asks.sizing_status(plan, inputs, None), rollout, settings)


def children_of(document: dict[str, Any], settings: Settings = SETTINGS) -> list[dict[str, Any]]:
    """The children of an example; none for an external tier."""
    spec = ModelTierSpec.model_validate(document["spec"])
    name = document["metadata"]["name"]
    if spec.external:
        return []
    owner = Owner("default", name, "00000000-0000-0000-0000-000000000000")
    who = admitted(settings.network, names.OPERATOR_NAMESPACE)
    return render_tier(owner, expected(spec, None), record_of(name, spec, settings), {}, who)
