"""Training itself: TRL's SFTTrainer with our loss, our checkpoints and our count of how far it is.

One process for each device runs `fit` with the same `Task`; what it is told is a file, so that it can be another
process than the stage's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import torch
import transformers
from peft import LoraConfig
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.train import base, loss
from modeltiers.distill.train.checkpoints import full_disk
from modeltiers.distill.train.encode import IGNORED, labels_of
from modeltiers.domain.distill.training import WINDOW, astray

TERMS: Final = "terms.jsonl"
"""In a checkpoint: the loss terms of each step so far, a line each."""


@dataclass(frozen=True)
class Task:
    """All that a training process is told."""

    base: str
    """Folder of the student's base."""
    rows: str
    """File of the examples, as `datasets` keeps them."""
    into: str
    """Folder for checkpoints."""
    checkpoint: str | None
    """The one to go on from."""
    steps: int
    epochs: int
    rows_at_once: int
    parts: int
    devices: int
    learning_rate: float
    warmup_steps: int
    checkpoint_steps: int
    seed: int
    pad: int
    soft_weight: float
    """Share of the soft term; 0 for the method Sequence."""
    temperature: float
    lora: Mapping[str, int] | None

    def write(self, path: Path) -> None:
        """Put it down for other processes."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> Task:
        """As it was put down."""
        return Task(**json.loads(path.read_text()))


@dataclass(frozen=True, slots=True)
class Step:
    """Means over the answer tokens of one step's rows, and the rate that it was taken with."""

    step: int
    loss: float
    ce: float
    soft: float
    rate: float


@dataclass(frozen=True)
class Hooks:
    """What the stage does while it is trained; in the first process only, but for `stop`."""

    stop: Callable[[], bool]
    seal: Callable[[int], None]
    told: Callable[[Step], None]


def fit(task: Task, hooks: Hooks) -> tuple[PreTrainedModel | None, list[Step]]:
    """Train to the end, and return the student (in the first process) with what each step lost.

    TryAgain: it was asked to stop, and has a checkpoint of the step it came to. BadData: it went astray.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.set_seed(task.seed)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    trainer = _trainer(task, hooks)
    _verify(trainer, task)
    try:
        with full_disk(Path(task.into)):
            trainer.train(resume_from_checkpoint=task.checkpoint)
    except torch.OutOfMemoryError as fault:
        raise BadData(
            f"the GPU's memory is too small for {task.rows_at_once} rows at once: train adapters (training.lora), lower"
            " training.maxLength, or ask for GPUs with more memory",
            reason="OutOfMemory",
            field="spec.training",
        ) from fault
    if trainer.state.global_step < task.steps:
        raise TryAgain(
            f"interrupted at step {trainer.state.global_step} of {task.steps}: a checkpoint of it is kept",
            reason="Interrupted",
        )
    if not trainer.is_world_process_zero():
        return None, trainer.told
    model = trainer.accelerator.unwrap_model(trainer.model)
    return (model.merge_and_unload() if task.lora else model), trainer.told


def _trainer(task: Task, hooks: Hooks) -> Student:
    config = SFTConfig(
        output_dir=task.into,
        max_steps=task.steps,
        num_train_epochs=task.epochs,
        per_device_train_batch_size=task.rows_at_once,
        gradient_accumulation_steps=task.parts,
        learning_rate=task.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=task.warmup_steps,
        seed=task.seed,
        data_seed=task.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        activation_checkpointing=torch.cuda.is_available(),
        max_length=None,
        remove_unused_columns=False,
        save_strategy="no",  # `Keeper` says when
        logging_strategy="no",  # and `Student` keeps the terms of every step
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
        ddp_find_unused_parameters=False if task.devices > 1 else None,
    )
    peft = None
    if task.lora:
        peft = LoraConfig(
            r=task.lora["rank"], lora_alpha=task.lora["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
        )
    rows = datasets.Dataset.from_file(task.rows)
    folder = Path(task.base)
    return Student(
        task,
        hooks,
        model=base.model_of(folder, low_rank=bool(task.lora)),
        args=config,
        train_dataset=rows,
        processing_class=base.tokenizer_of(folder),
        data_collator=Collator(task.pad),
        peft_config=peft,
    )


def _verify(trainer: SFTTrainer, task: Task) -> None:
    """A process that does not find the others would train alone, on all rows, and say nothing."""
    found = trainer.accelerator.num_processes
    if found != task.devices or trainer.args.n_gpu > 1:
        raise BadData(
            f"training has {found} processes with {trainer.args.n_gpu} GPUs each, and not {task.devices} with one each",
            reason="WorldSize",
        )


@dataclass(frozen=True)
class Collator:
    """A batch of examples, padded on the left: so all answers are at the end, and only there are logits needed, which
    for a long prompt and a large vocabulary are most of the memory.
    """

    pad: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Padded tensors; for soft targets the places and what the teacher said there."""
        length = max(len(example["input_ids"]) for example in examples)
        mask = _padded([[1] * len(example["input_ids"]) for example in examples], length, 0)
        batch = {
            "input_ids": _padded([example["input_ids"] for example in examples], length, self.pad),
            "labels": _padded([labels_of(one["input_ids"], one["answer_from"]) for one in examples], length, IGNORED),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        }
        return batch | _soft_targets(examples, length)


def _padded(rows: Iterable[Sequence[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*[filler] * (length - len(row)), *row] for row in rows])


def _soft_targets(examples: Sequence[Mapping[str, Any]], length: int) -> dict[str, Tensor]:
    entries = [
        (row, place + length - len(example["input_ids"]), tokens, logprobs)
        for row, example in enumerate(examples)
        for place, tokens, logprobs in zip(
            example.get("soft_at", ()), example.get("soft_tokens", ()), example.get("soft_logprobs", ()), strict=True
        )
    ]
    if not entries:
        return {}
    widest = max(len(tokens) for _, _, tokens, _ in entries)
    filled = [(tokens, logprobs, widest - len(tokens)) for _, _, tokens, logprobs in entries]
    return {
        "soft_places": torch.tensor([(row, place) for row, place, _, _ in entries]),
        "soft_tokens": torch.tensor([[*tokens, *[0] * lacks] for tokens, _, lacks in filled]),
        "soft_logprobs": torch.tensor([[*logprobs, *[-math.inf] * lacks] for _, logprobs, lacks in filled]),
    }


class Student(SFTTrainer):
    """TRL's trainer with the stage's loss."""

    def __init__(self, task: Task, hooks: Hooks, **more: Any) -> None:
        super().__init__(**more)
        self.task, self.hooks = task, hooks
        self.told: list[Step] = steps_so_far(task.checkpoint)
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._items = 1.0
        self.loss_is_scaled_for_ga = True
        self.add_callback(Keeper(self))
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean over the step's answer tokens of (1 - w) times cross-entropy and w times divergence."""
        places, tokens, logprobs = (inputs.pop(name, None) for name in ("soft_places", "soft_tokens", "soft_logprobs"))
        labels = inputs.pop("labels")
        # One place more than the longest answer: the logits before its first token. Models that know no such argument
        # give all of them.
        start = int((labels != IGNORED).any(0).nonzero()[0]) - 1
        outputs = model(**inputs, use_cache=False, logits_to_keep=labels.shape[1] - start)
        logits, labels = outputs.logits[:, start - labels.shape[1] :], labels[:, start:]
        assert num_items_in_batch is not None
        ce = loss.hard(logits, labels)
        soft = ce * 0.0
        if self.task.soft_weight and places is not None:
            soft = loss.soft(logits, places - places.new_tensor([0, start]), tokens, logprobs, self.task.temperature)
        self._items = float(num_items_in_batch)
        self._sums += torch.stack([ce.detach(), soft.detach()]).cpu().double()
        weight = self.task.soft_weight
        total = ((1 - weight) * ce + weight * soft) / num_items_in_batch
        total = (
            total * self.accelerator.num_processes
        )  # gradients are averaged over devices, the items are those of all
        return (total, outputs) if return_outputs else total

    def tell(self, step: int, rate: float) -> None:
        """Close a step: what it lost, over all devices."""
        sums = self._sums
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums.to(self.accelerator.device).float(), "sum").cpu().double()
        ce, soft = (sums / self._items).tolist()
        weight = self.task.soft_weight
        done = Step(step, (1 - weight) * ce + weight * soft, ce, soft, rate)
        self.told.append(done)
        self._sums = torch.zeros(2, dtype=torch.float64)
        if astray([told.ce for told in self.told[:1] + self.told[-WINDOW - 1 :]], self.model.config.vocab_size):
            raise BadData(
                f"training went astray: the loss is {done.ce:.4g} at step {step} of {self.task.steps} with a learning"
                f" rate of {self.task.learning_rate:g}: lower training.learningRateNanos",
                reason="Diverged",
                field="spec.training.learningRateNanos",
            )
        if self.is_world_process_zero():
            self.hooks.told(done)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Not for a checkpoint: the stage Package writes the artifact's."""


class Keeper(TrainerCallback):
    """Says when a checkpoint is written, and when it is time to stop."""

    def __init__(self, trainer: Student) -> None:
        self._trainer = trainer
        self._rate = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Remember the rate of this step."""
        self._rate = float(self._trainer.lr_scheduler.get_last_lr()[0])

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> Any:
        """Count, and write a checkpoint where one is due or the process is to end."""
        trainer, task = self._trainer, self._trainer.task
        trainer.tell(state.global_step, self._rate)
        stop = self._anyone_stops()
        control.should_save = stop or state.global_step % task.checkpoint_steps == 0
        control.should_training_stop = stop or state.global_step >= task.steps
        return control

    def on_save(self, _: Any, state: Any, __: Any, **___: Any) -> None:
        """Mark the checkpoint as whole once every process has written its part."""
        trainer = self._trainer
        if trainer.is_world_process_zero():
            folder = Path(trainer.task.into) / f"checkpoint-{state.global_step}"
            lines = [json.dumps(asdict(step)) + "\n" for step in trainer.told]
            (folder / TERMS).write_text("".join(lines))
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            trainer.hooks.seal(state.global_step)

    def _anyone_stops(self) -> bool:
        """Whether a process was asked to end: then all do, after the same step."""
        stop = self._trainer.hooks.stop()
        accelerator = self._trainer.accelerator
        if accelerator.num_processes == 1:
            return stop
        asked = torch.tensor([float(stop)], device=accelerator.device)
        return bool(accelerator.reduce(asked, "sum").item() > 0)


def steps_so_far(checkpoint: str | None) -> list[Step]:
    """The loss terms of the steps that a checkpoint has behind it."""
    if checkpoint is None:
        return []
    return [Step(**json.loads(line)) for line in (Path(checkpoint) / TERMS).read_text().splitlines()]
