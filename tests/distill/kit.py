"""A teacher in a process of its own, a job's store with a split in it, and the stage program run over both."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeltiers.distill import evaluate, filter, generate, judge, manifest  # noqa: A004 - the stage's name
from modeltiers.distill.run import stage_folder
from modeltiers.distill.stage import Progress, Result, Work
from modeltiers.distill.store import Folder, open_store
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage, before, digest_of
from tests import canaries
from tests.distill.teacher import MODEL
from tests.unit.test_distill_stages import SPEC

ROOT = Path(__file__).parents[2]
LOG = "stage.log"
KEY_FILE = "key-of-the-teacher"
SHORT = Patience(tries=3, base=0.02, longest=0.1, total=3.0)


@dataclass
class TeacherProcess:
    """A running teacher."""

    port: int
    record: Path

    @property
    def base_url(self) -> str:
        """What to ask."""
        return f"http://127.0.0.1:{self.port}/v1"

    def misbehave(self, **how: Any) -> None:
        """Change how it answers; nothing: as it should."""
        self._say("/misbehave", how)

    def forget(self) -> None:
        """Begin anew."""
        self._say("/forget", {})

    def stats(self) -> dict[str, Any]:
        """What it was asked, and what that took."""
        found: dict[str, Any] = json.loads(self._say("/stats", {}))
        return found

    def _say(self, path: str, body: dict[str, Any]) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - our own server's port
            return bytes(reply.read())

    def asked(self) -> list[dict[str, Any]]:
        """Every request, in order, with its hash."""
        return [json.loads(line) for line in self.record.read_text().splitlines()]


@contextmanager
def teacher(record: Path) -> Iterator[TeacherProcess]:
    """A teacher in a process of its own."""
    record.touch()
    command = [sys.executable, "-m", "tests.distill.teacher", "--record", str(record)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield TeacherProcess(int(process.stdout.readline()), record)
        finally:
            process.kill()


def row(number: int, **more: Any) -> dict[str, Any]:
    """A row with a sum in it."""
    return {
        "id": f"row-{number}",
        "messages": [{"role": "user", "content": f"What is {number} + {number * 7}?{canaries.PROMPT}"}],
        "expected": str(number * 8),
        "group": f"g{number // 2}",
        "slice": "odd" if number % 2 else "even",
        "source": "rows",
        "cluster": f"c{number // 2}",
        **more,
    }


@dataclass
class Job:
    """A job whose split is done."""

    store: Folder
    teacher: TeacherProcess
    spec: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    plan_more: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[Stage, Outcome] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    """How a process of its own reaches the store, where that is not a folder."""

    @property
    def plan(self) -> Plan:
        """What the stages are told."""
        target = {"baseUrl": self.teacher.base_url, "model": MODEL, **self.target}
        whole = {"job": "demo", "spec": {**SPEC, **self.spec}, "teacher": target, **self.plan_more}
        return Plan.model_validate(whole)

    def split(self, train: Sequence[dict[str, Any]], **parts: Sequence[dict[str, Any]]) -> Job:
        """Put rows where Split would."""
        spec = self.plan.spec
        snapshot = Outcome(digest_of(Stage.SNAPSHOT, spec, {}), "0" * 32)
        digest = digest_of(Stage.SPLIT, spec, {Stage.SNAPSHOT: snapshot})
        folder = stage_folder(self.store, Stage.SPLIT, digest)
        names = {"train": train, "evaluation": (), "calibration": (), "redTeam": (), **parts}
        for name, rows in names.items():
            folder.write_rows(f"{name}.jsonl", rows)
        files = tuple(f"{name}.jsonl" for name in names)
        made = manifest.write(folder, Stage.SPLIT, digest, Result(files, "split"))
        self.outcomes = {Stage.SNAPSHOT: snapshot, Stage.SPLIT: made.outcome}
        return self

    def work(self, stage: Stage = Stage.GENERATE, stop: threading.Event | None = None) -> Work:
        """One stage to do, in this process."""
        plan = self.plan
        rests = {**self.outcomes, **{other: Outcome("1" * 32, "2" * 32) for other in before(stage, plan.spec)}}
        rests |= self.outcomes
        digest = digest_of(stage, plan.spec, rests)
        inputs = {other: stage_folder(self.store, other, rests[other].digest) for other in before(stage, plan.spec)}
        folder = stage_folder(self.store, stage, digest)
        return Work(plan, stage, digest, self.store, folder, inputs, Progress(), stop or threading.Event())

    def generate(self, patience: Patience = SHORT, **more: Any) -> Result:
        """Generate, in this process."""
        return generate.run(self.work(**more), patience)

    def evaluate(self, stage: Stage, patience: Patience = SHORT, engine_seconds: float = 5) -> Result:
        """Evaluate, in this process."""
        return evaluate.run(self.work(stage), patience, engine_seconds)

    def filter(self, patience: Patience = SHORT, **more: Any) -> Result:
        """Filter, in this process."""
        return filter.run(self.work(Stage.FILTER, **more), patience)

    def judge(self, patience: Patience = SHORT, **more: Any) -> Result:
        """Judge, in this process."""
        return judge.run(self.work(Stage.JUDGE, **more), patience)

    def done(self, stage: Stage, result: Result) -> None:
        """Make a stage complete that ran in this process."""
        work = self.work(stage)
        self.outcomes[stage] = manifest.write(work.folder, stage, work.digest, result, work.plan.job).outcome

    def rows(self, name: str, stage: Stage = Stage.GENERATE) -> list[dict[str, Any]]:
        """What a stage wrote."""
        return list(self.work(stage).folder.rows(name))

    def sha256(self) -> str:
        """Hash of the answers."""
        return self.work().folder.facts("answers.jsonl").sha256

    def shards(self) -> list[str]:
        """The ledger's files."""
        return self.store.sub("ledger").names()

    def start(self, folder: Path, stage: Stage = Stage.GENERATE, **popen: Any) -> subprocess.Popen[bytes]:
        """The stage's program, in a process of its own; its result goes to FOLDER/result.json."""
        plan = folder / "plan.json"
        plan.write_text(self.plan.model_dump_json(by_alias=True, exclude_none=True))
        command = [sys.executable, "-m", "modeltiers.distill", "run", stage.value, "--plan", str(plan)]
        for other, outcome in self.outcomes.items():
            command += ["--input", f"{other.value}={outcome.digest}:{outcome.output}"]
        command += ["--store", address(self.store), "--result", str(folder / "result.json")]
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}", **self.env}
        with (folder / LOG).open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=env, stderr=log, **popen)


def address(store: Folder) -> str:
    """What the program is given to reach a store."""
    return store.path if store.local else f"s3://{store.path}"


def local(path: Path) -> Folder:
    """A store on a volume."""
    return open_store(str(path))
