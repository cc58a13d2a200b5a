"""A DistillJob's store that is complete up to training, and the command that trains: for whoever has rows already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeltiers.distill import manifest
from modeltiers.distill.run import stage_folder
from modeltiers.distill.stage import Result
from modeltiers.distill.store import Folder, open_store
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage

DIGEST = "0" * 32
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Prepared:
    """A store with rows, and the plan that training goes by."""

    plan: Plan
    address: str
    outcome: Outcome

    @property
    def root(self) -> Folder:
        """The job's folder."""
        return open_store(self.address)

    @property
    def outcomes(self) -> dict[Stage, Outcome]:
        """What training rests on."""
        return {Stage.DECONTAMINATE: self.outcome}

    def arguments(self, plan: Path, result: Path) -> list[str]:
        """Arguments of `python -m modeltiers.distill`; writes the plan."""
        plan.write_text(self.plan.model_dump_json(by_alias=True))
        given = f"{Stage.DECONTAMINATE.value}={self.outcome.digest}:{self.outcome.output}"
        return ["run", "Train", "--plan", str(plan), "--store", self.address, "--input", given, "--result", str(result)]


def prepare(
    address: str,
    rows: Iterable[Mapping[str, Any]],
    models: Mapping[str, Path],
    training: Mapping[str, Any],
    *,
    verifiers: Sequence[Mapping[str, Any]] = ({"name": "right", "type": "Exact"},),
) -> Prepared:
    """Write rows where training looks for them. `models`: folders of `base`, and `teacher` where there is one."""
    spec = {
        "workload": {"verifiers": list(verifiers)},
        "teacher": {"tierRef": {"name": "teacher"}},
        "student": {"base": {"source": "pvc://models/base", "architecture": architecture(models["base"])}},
        "data": {
            "sources": [{"name": "rows", "configMap": {"name": "rows", "key": "rows.jsonl"}}],
            "split": {"evaluation": 1},
        },
        "training": dict(training),
        "store": {"claimName": "store"},
    }
    named = {name: str(folder) for name, folder in models.items()}
    plan = Plan.model_validate({"job": "trial", "spec": spec, "models": named})
    folder = stage_folder(open_store(address), Stage.DECONTAMINATE, DIGEST)
    count = folder.write_rows(ROWS, rows)
    made = manifest.write(folder, Stage.DECONTAMINATE, DIGEST, Result((ROWS,), f"{count} rows", {"rows": count}))
    return Prepared(plan, address, made.outcome)


def architecture(folder: Path) -> dict[str, Any]:
    """What a DistillJob or ModelTier must say of a model folder: the numbers of its config.json."""
    config = _config(folder)
    return {
        "name": config.get("architectures", ["?"])[0],
        "hiddenSize": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "attentionHeads": config["num_attention_heads"],
        "kvHeads": config["num_key_value_heads"],
        "headDim": config["head_dim"],
        "vocabSize": config["vocab_size"],
        "intermediateSize": config["intermediate_size"],
        "maxPosition": config["max_position_embeddings"],
    }


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found
