"""Data stages over a real folder: rows as a user brings them, stages run as the program runs them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.distill import manifest
from modeltiers.distill.manifest import Manifest
from modeltiers.distill.run import run_stage, stage_folder
from modeltiers.distill.stage import Result
from modeltiers.distill.store import Folder, open_store
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage, digest_of

SPEC: dict[str, Any] = {
    "workload": {"verifiers": [{"name": "right", "type": "Numeric"}]},
    "teacher": {"tierRef": {"name": "large"}},
    "student": {"base": {"source": "pvc://models/base"}},
    "data": {
        "sources": [{"name": "rows", "volume": {"claimName": "data", "path": "rows.jsonl"}}],
        "split": {"evaluation": 20},
    },
    "store": {"claimName": "artifacts"},
}


def asked(question: str, expected: Any = None, **more: Any) -> dict[str, Any]:
    """A row as a user brings it."""
    row: dict[str, Any] = {"messages": [{"role": "user", "content": question}], **more}
    return row if expected is None else {**row, "expected": expected}


def sums(count: int) -> list[dict[str, Any]]:
    """Distinct sums of two numbers below a hundred."""
    pairs = [(one % 100, (one * 37 + one // 100) % 100) for one in range(count)]
    return [asked(f"What is {one} plus {other}?", one + other) for one, other in pairs]


class Job:
    """A job's store and the stages that ran in it."""

    def __init__(self, folder: Path, rows: Iterable[Any] = (), **changes: Any) -> None:
        """`changes`: parts of the spec; `data.split` and the like are given as whole parts."""
        self.path = folder
        spec = DistillJobSpec.model_validate({**SPEC, **changes})
        self.plan = Plan(job="job", spec=spec)
        self.source = self.bring("rows", rows)
        self.root: Folder = open_store(str(folder / "store"))
        self.outcomes: dict[Stage, Outcome] = {}

    def bring(self, source: str, rows: Iterable[Any]) -> Path:
        """Put rows where a source is; its file."""
        file = self.path / f"{source}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.at(source, str(file))
        return file

    def at(self, source: str, address: str) -> None:
        """Say where a source is."""
        self.plan = self.plan.model_copy(update={"sources": {**self.plan.sources, source: address}})

    def run(self, *stages: Stage) -> Manifest:
        """Run stages in turn; the manifest of the last."""
        for stage in stages:
            found, _ = run_stage(self.plan, self.root, stage, self.outcomes)
            self.outcomes[stage] = found.outcome
        return found

    def folder(self, stage: Stage) -> Folder:
        """Where a stage's outcome lies."""
        return stage_folder(self.root, stage, digest_of(stage, self.plan.spec, self.outcomes))

    def rows(self, stage: Stage, name: str) -> list[dict[str, Any]]:
        """The rows of a file of a stage."""
        return list(self.folder(stage).rows(name))

    def training(self) -> list[dict[str, Any]]:
        """The rows that the teacher is asked."""
        return self.rows(Stage.SPLIT, "train.jsonl")

    def plant(self, rows: Sequence[Mapping[str, Any]], *, alone: bool = False) -> None:
        """Put rows into the training part, as a split would that let them through."""
        rows = [*([] if alone else self.training()), *rows]
        files = ("train.jsonl", "evaluation.jsonl", "calibration.jsonl", "redTeam.jsonl")
        self._leave(Stage.SPLIT, files, {"train.jsonl": rows})

    def answered(self, answers: Mapping[str, str] | None = None) -> None:
        """Generate's outcome: the expected answer to each row where none is given by its id."""
        self.answer([answer_to(row, (answers or {}).get(row["id"])) for row in self.training()])

    def answer(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Generate's outcome, made of these answers."""
        self._leave(Stage.GENERATE, ("answers.jsonl",), {"answers.jsonl": answers})

    def _leave(self, stage: Stage, files: tuple[str, ...], rows: Mapping[str, Sequence[Any]]) -> None:
        """A stage's outcome as its program would leave it."""
        folder = self.folder(stage)
        for name, lines in rows.items():
            folder.write_rows(name, lines)
        digest = digest_of(stage, self.plan.spec, self.outcomes)
        self.outcomes[stage] = manifest.write(folder, stage, digest, Result(files, "by hand")).outcome


def answer_to(row: Mapping[str, Any], text: str | None = None, **more: Any) -> dict[str, Any]:
    """A whole answer to a row, as Generate writes it."""
    kept = {
        name: row[name] for name in ("id", "messages", "tools", "expected", "group", "slice", "cluster") if name in row
    }
    said = str(row.get("expected", "")) if text is None else text
    answer = {"role": "assistant", "content": said}
    usage = {"promptTokens": 9, "answerTokens": 3}
    return {**kept, "sample": 0, "answer": answer, "finishReason": "stop", "usage": usage, **more}
