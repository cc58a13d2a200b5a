"""Tiny models and stores for the trainer's tests. They run in the trainer's environment only: `make train-test`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.train import environment
from e2e.train.models import answered, make_base
from e2e.train.store import Prepared, prepare
from e2e.train.task import make_rows
from modeltiers.distill.faults import TryAgain
from modeltiers.distill.manifest import Manifest
from modeltiers.distill.run import run_stage, stage_folder
from modeltiers.distill.stage import Progress
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.stages import Stage, digest_of

# The project's own environment has no torch: there is nothing to collect there.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]

QUICK = {"batchSize": 8, "epochs": 2, "learningRateNanos": 3_000_000, "checkpointSteps": 5}


@dataclass
class Trial:
    """One run of the stage over a store of its own."""

    prepared: Prepared
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Progress = field(default_factory=Progress)

    @property
    def folder(self) -> Folder:
        """The stage's folder."""
        digest = digest_of(Stage.TRAIN, self.prepared.plan.spec, self.prepared.outcomes)
        return stage_folder(self.prepared.root, Stage.TRAIN, digest)

    @property
    def local(self) -> Path:
        """The same, on this machine."""
        found = self.folder.local
        assert found is not None
        return found

    def start(self, *, port: int = 0) -> subprocess.Popen[bytes]:
        """Run it as its pod does, in a process of its own."""
        place = self.local.parents[3]
        given = self.prepared.arguments(place / "plan.json", place / "result.json")
        with (place / "log").open("ab") as log:
            command = [sys.executable, "-m", "modeltiers.distill", *given, "--port", str(port)]
            return subprocess.Popen(command, env=environment.variables(), stdout=log, stderr=log)

    @property
    def log(self) -> str:
        """What that process said."""
        return (self.local.parents[3] / "log").read_text()

    @property
    def result(self) -> dict[str, Any]:
        """What it left for the operator."""
        found: dict[str, Any] = json.loads((self.local.parents[3] / "result.json").read_bytes())
        return found

    def run(self) -> Manifest:
        """Run the stage in this process."""
        plan, root = self.prepared.plan, self.prepared.root
        made, _ = run_stage(plan, root, Stage.TRAIN, self.prepared.outcomes, progress=self.progress, stop=self.stop)
        return made


class StopsAt(Progress):
    """Tells the stage to end after a step."""

    def __init__(self, step: int, stop: threading.Event) -> None:
        super().__init__()
        self._step, self._stop = step, stop

    def at(self, done: int, of: int, unit: str, **facts: Any) -> None:
        """Say how far it is."""
        super().at(done, of, unit, **facts)
        if done == self._step:
            self._stop.set()


def interrupted(one: Trial, at: int) -> None:
    """Leave a run that was told to end after a step, with its checkpoint."""
    one.progress = StopsAt(at, one.stop)
    with pytest.raises(TryAgain, match="interrupted at step"):
        one.run()
    one.progress = Progress()
    one.stop.clear()


MakeTrial = Callable[..., Trial]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows nothing."""
    return make_base(tmp_path_factory.mktemp("base"), hidden=64, layers=1)


def make_trial(
    base: Path,
    folder: Path,
    rows: Iterable[Mapping[str, Any]] | None = None,
    *,
    models: Mapping[str, Path] | None = None,
    **training: Any,
) -> Trial:
    """A trial of 40 rows, unless others are given."""
    given = answered(make_rows(40, 1)) if rows is None else rows
    return Trial(prepare(str(folder), given, {"base": base, **(models or {})}, {**QUICK, **training}))


@pytest.fixture
def trial(base: Path, tmp_path: Path) -> MakeTrial:
    """Make trials, each `into` a store of its own."""

    def make(*given: Any, into: str = "store", **more: Any) -> Trial:
        return make_trial(base, tmp_path / into, *given, **more)

    return make


def with_probabilities(rows: Iterable[Mapping[str, Any]], folder: Path, k: int = 4) -> list[dict[str, Any]]:
    """The rows with what a model would have said at each token of the answer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    made = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True)["input_ids"]
        answer = [*tokenizer(row["answer"]["content"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        told = []
        for token, likely in zip(answer, logprobs, strict=True):
            values, others = likely.topk(k)
            top = [[f"token_id:{one}", value] for one, value in zip(others.tolist(), values.tolist(), strict=True)]
            told.append({"token": f"token_id:{token}", "logprob": likely[token].item(), "top": top})
        made.append({**row, "logprobs": told})
    return made
