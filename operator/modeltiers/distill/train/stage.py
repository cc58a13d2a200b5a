"""The stage from end to end: rows to examples, base to student, and what is said about it."""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Features, List, Value
from datasets.arrow_writer import ArrowWriter

from modeltiers.api.distilljob import Training
from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.stage import Result, Work
from modeltiers.distill.store import reaching
from modeltiers.distill.train import base, launch
from modeltiers.distill.train.checkpoints import FULL, Checkpoints, full_disk
from modeltiers.distill.train.encode import Encoder
from modeltiers.distill.train.fit import Hooks, Step, Task, fit
from modeltiers.distill.train.outcome import write_course, write_model
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.training import Chosen, choose_method, share_out, steps_of

log = logging.getLogger(__name__)

ROWS: Final = "rows.jsonl"
EXAMPLES: Final = "examples.arrow"
MATTERS: Final = ("torch", "transformers", "trl", "peft")


def train(work: Work) -> Result:
    """Train the student that the plan asks for."""
    with _scratch(work) as scratch:
        return _Run(work, scratch).result()


@contextmanager
def _scratch(work: Work) -> Iterator[Path]:
    """A folder for what is made anew each time: on the volume, which is large, or else on this machine."""
    local = work.folder.local
    if local is None:
        with tempfile.TemporaryDirectory(prefix="modeltiers-train-") as made:
            yield Path(made)
        return
    with reaching(str(local)):
        local.mkdir(parents=True, exist_ok=True)
    with _alone(local), _made(local / ".scratch") as made_here:
        yield made_here


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second process where the first one still writes, as a pod does on a node that was given up for lost."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgain(f"{folder}: another process trains there: it is waited for", reason="Busy") from None
        yield


@contextmanager
def _made(made_here: Path) -> Iterator[Path]:
    shutil.rmtree(made_here, ignore_errors=True)  # a killed process leaves its own
    with reaching(str(made_here)):
        made_here.mkdir()
    try:
        yield made_here
    finally:
        shutil.rmtree(made_here, ignore_errors=True)


class _Run:
    """One run of the stage."""

    def __init__(self, work: Work, scratch: Path) -> None:
        self.work, self.scratch = work, scratch
        self.training = work.plan.spec.training or Training()
        self.checkpoints = Checkpoints(work.folder, scratch)
        self.folder = self._model("base", work.plan.spec.student.base.revision)
        base.config_of(self.folder)  # first: what lacks it is no model's folder at all
        self.tokenizer = base.tokenizer_of(self.folder)
        self.devices = max(1, torch.cuda.device_count())

    def result(self) -> Result:
        """Do it."""
        chosen = self._method()
        encoder = self._encode(soft=chosen.method == "SoftTargets")
        newest = self.checkpoints.newest()
        if self.checkpoints.quarantined:
            log.warning("cut off while they were written, moved aside: %s", ", ".join(self.checkpoints.quarantined))
        task = self._task(chosen, encoder, newest)
        came_from = int(newest.name.rpartition("-")[2]) if newest else 0
        log.info("%s, %d rows, %d steps from step %d", chosen.method, encoder.counts["used"], task.steps, came_from)
        self.work.progress.at(came_from, task.steps, "steps")
        hooks = Hooks(self.work.stop.is_set, self.checkpoints.seal, lambda step: self._tell(step, task.steps))
        try:
            model, told = launch.fit(task, hooks, self.scratch) if self.devices > 1 else fit(task, hooks)
        except TryAgain as fault:
            if fault.reason == FULL:
                self.checkpoints.drop_unsealed()
            raise
        assert model is not None
        files = write_model(model, self.folder, self.work.folder, self.scratch)
        files += write_course(told, self.work.folder, f"{self.work.plan.job}: {chosen.method}")
        self.checkpoints.clear()
        notes = {"quarantined": self.checkpoints.quarantined, "resumedFrom": came_from}
        facts = self._facts(chosen, encoder, task, told)
        summary = f"{task.steps} steps on {encoder.counts['used']} rows, {chosen.method}, loss {told[-1].loss:.3f}"
        return Result(tuple(files), summary, facts, notes=notes)

    def _model(self, name: str, revision: str | None, *, weights: bool = True) -> Path:
        address = self.work.plan.models.get(name)
        if address is None:
            raise BadData(
                f"the plan does not say where the model {name} is", reason="InvalidPlan", field=f"models.{name}"
            )
        return base.folder_of(name, address, revision, weights=weights)

    def _method(self) -> Chosen:
        asked = self.training.method
        with_probabilities = 0
        if asked != "Sequence":
            with_probabilities = sum(1 for row in self._rows() if row.get("logprobs"))
        teacher = None
        if with_probabilities and "teacher" in self.work.plan.models:
            folder = self._model("teacher", None, weights=False)
            teacher = base.tokenizer_hash(base.tokenizer_of(folder, field="spec.teacher"))
        student = base.tokenizer_hash(self.tokenizer)
        chosen = choose_method(asked, with_probabilities=with_probabilities, student=student, teacher=teacher)
        if isinstance(chosen, str):
            raise BadData(
                f"training.method SoftTargets cannot be: {chosen}; or set training.method to Auto or Sequence",
                reason="SoftTargetsImpossible",
                field="spec.training.method",
            )
        return chosen

    def _rows(self) -> Iterator[dict[str, Any]]:
        return self.work.inputs[Stage.DECONTAMINATE].rows(ROWS)

    def _encode(self, *, soft: bool) -> Encoder:
        """Rows to examples, in a file that every training process maps into memory."""
        ends = base.ends_of(self.folder, self.tokenizer)
        encoder = Encoder(self.tokenizer, ends, self.training.max_length, soft)

        def examples() -> Iterator[dict[str, Any]]:
            for example in encoder.examples(self._rows()):
                self.work.check()
                row: dict[str, Any] = {"input_ids": example.input_ids, "answer_from": example.answer_from}
                if soft:
                    row["soft_at"] = [at for at, _ in example.soft]
                    row["soft_tokens"] = [[token for token, _ in top] for _, top in example.soft]
                    row["soft_logprobs"] = [[logprob for _, logprob in top] for _, top in example.soft]
                yield row

        with full_disk(self.scratch), ArrowWriter(path=str(self.scratch / EXAMPLES), features=_features(soft)) as out:
            for example in examples():
                out.write(example)
            out.finalize()
        if not encoder.counts["used"]:
            raise self._nothing(encoder)
        return encoder

    def _nothing(self, encoder: Encoder) -> BadData:
        if not encoder.counts["tooLong"]:
            return BadData("there is no row to train on: the stages before dropped all of them", reason="NoRows")
        return BadData(
            f"all {encoder.counts['tooLong']} rows are longer than training.maxLength"
            f" ({self.training.max_length} tokens; the longest has {encoder.longest_seen}): raise it",
            reason="NoRows",
            field="spec.training.maxLength",
        )

    def _task(self, chosen: Chosen, encoder: Encoder, newest: Path | None) -> Task:
        training = self.training
        longest = min(encoder.longest_seen, training.max_length)
        shared = share_out(training.batch_size, self.devices, longest)
        if isinstance(shared, str):
            raise BadData(f"training.batchSize: {shared}", field="spec.training.batchSize")
        steps = steps_of(encoder.counts["used"], training.batch_size, training.epochs)
        pad = self.tokenizer.pad_token_id
        lora = training.lora
        return Task(
            base=str(self.folder),
            rows=str(self.scratch / EXAMPLES),
            into=str(self.checkpoints.here),
            checkpoint=str(newest) if newest else None,
            steps=steps,
            epochs=training.epochs,
            rows_at_once=shared.rows,
            parts=shared.parts,
            devices=self.devices,
            learning_rate=training.learning_rate_nanos / 10**9,
            warmup_steps=steps * training.warmup_permille // 1000,
            checkpoint_steps=training.checkpoint_steps,
            seed=training.seed,
            pad=pad if isinstance(pad, int) else min(base.ends_of(self.folder, self.tokenizer)),
            soft_weight=training.soft_weight_permille / 1000 if chosen.method == "SoftTargets" else 0.0,
            temperature=training.soft_temperature_milli / 1000,
            lora={"rank": lora.rank, "alpha": lora.alpha} if lora else None,
        )

    def _tell(self, step: Step, steps: int) -> None:
        self.work.progress.at(step.step, steps, "steps", lossMilli=round(step.loss * 1000))

    def _facts(self, chosen: Chosen, encoder: Encoder, task: Task, told: list[Step]) -> dict[str, Any]:
        counts, last = encoder.counts, told[-1]
        return {
            "method": chosen.method,
            "why": chosen.why,
            "steps": task.steps,
            "rows": counts["used"],
            "rowsTooLong": counts["tooLong"],
            "rowsWithSoftTargets": counts["soft"],
            "rowsUnaligned": counts["unaligned"],
            "answerTokens": counts["tokens"],
            "lossMilli": round(last.loss * 1000),
            "ceMilli": round(last.ce * 1000),
            "softMilli": round(last.soft * 1000),
            "firstCeMilli": round(told[0].ce * 1000),
            "lowRank": task.lora["rank"] if task.lora else 0,
            "worldSize": task.devices,
            "rowsAtOnce": task.rows_at_once,
            "seed": task.seed,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "tokenizer": base.tokenizer_hash(self.tokenizer),
            "versions": {name: version(name) for name in MATTERS},
        }


def _features(soft: bool) -> Features:
    """How an example is kept."""
    whole, real = Value("int32"), Value("float32")
    kept = {"input_ids": List(whole), "answer_from": whole}
    if soft:
        kept |= {"soft_at": List(whole), "soft_tokens": List(List(whole)), "soft_logprobs": List(List(real))}
    return Features(kept)
