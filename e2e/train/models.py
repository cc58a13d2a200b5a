"""The task's tiny models: a base that knows nothing, and a teacher that was trained on the right answers.

Both are ordinary Hugging Face folders that the engine serves. The teacher takes a minute or two of one core; it is kept
in the user's cache by the hash of all that it is made from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from e2e.cluster.report import HarnessError, say
from e2e.engine import tiny
from e2e.engine.tokenizer import Tokenizer, learn
from e2e.train import environment
from e2e.train.store import prepare
from e2e.train.task import answer_of, make_rows

MERGES: Final = 400
TEACHER: Final[Mapping[str, Any]] = {
    "method": "Sequence",
    "batchSize": 32,
    "epochs": 4,
    "learningRateNanos": 1_500_000,
    "checkpointSteps": 1_000_000,
}
TEACHER_ROWS: Final = 4000
STUDENT: Final[Mapping[str, Any]] = {
    "batchSize": 32,
    "epochs": 6,
    "learningRateNanos": 1_500_000,
    "checkpointSteps": 100,
}
"""A recipe with which a base learns the task from STUDENT_ROWS of the teacher's answers."""
STUDENT_ROWS: Final = 2000
BAD_STUDENT: Final[Mapping[str, Any]] = {**STUDENT, "epochs": 1, "learningRateNanos": 100}
"""One with which it learns nothing: no better than the base, and refused."""


def tokenizer() -> Tokenizer:
    """The tokenizer of the task's models: its words are one token each, most of them."""
    rows = [*make_rows(800, 0), *make_rows(200, 0, red_team=True)]
    text = "\n".join(f"{row['messages'][0]['content']}\n{answer_of(row)}" for row in rows)
    return Tokenizer(learn(f"{text}\nuser\nassistant\nsystem\n", MERGES))


def make_base(folder: Path, *, hidden: int = 64, layers: int = 2, seed: int = 1) -> Path:
    """Write an untrained model."""
    return tiny.write_untrained(folder, tokenizer(), hidden=hidden, layers=layers, seed=seed)


def make_teacher(folder: Path) -> Path:
    """Write a model that does the task; trains it first if it is not in the cache."""
    kept = teacher()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return folder


def teacher() -> Path:
    """The teacher in the cache."""
    rows = answered([*make_rows(TEACHER_ROWS, 7), *make_rows(TEACHER_ROWS // 4, 7, red_team=True)])
    made_from = [rows, TEACHER, environment.pinned().location().name, tokenizer().file()]
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    home = environment.pinned().root().with_name("models") / digest
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".") as scratch:
            _train(rows, Path(scratch)).rename(home)
    return home


def answered(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Source rows as training gets them, with the right answers."""
    return [
        {
            "id": row["group"],
            "sample": 0,
            **row,
            "answer": {"role": "assistant", "content": answer_of(row)},
            "finishReason": "stop",
        }
        for row in rows
    ]


def _train(rows: Iterable[Mapping[str, Any]], scratch: Path) -> Path:
    python = environment.python()
    say("training a teacher: once a machine, about a minute")
    base = make_base(scratch / "base", seed=2)
    store = prepare(str(scratch / "store"), rows, {"base": base}, TEACHER)
    command = [
        str(python),
        "-m",
        "modeltiers.distill",
        *store.arguments(scratch / "plan.json", scratch / "result.json"),
    ]
    done = subprocess.run(command, env=environment.variables(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(
            f"the teacher could not be trained ({done.returncode}); the log ends:\n{done.stderr[-2000:]}"
        )
    return next((scratch / "store" / "stages" / "Train").glob("*/model"))
