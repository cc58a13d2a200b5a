"""The stages of a distillation: what each rests on, and which comes next. One table; all else follows from it.

A stage's outcome is known by the digest of all it rests on: the parts of the spec it reads, and the outcomes before it.
So what was done once is found again, whatever was lost in between, and a changed question never gets an old answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from modeltiers.api.base import Model
from modeltiers.api.distilljob import (
    Decontamination,
    DistillJobSpec,
    Evaluation,
    Filters,
    Gate,
    Generation,
    Promotion,
    Training,
)

FORMAT: Final = 1
"""Changes when a stage of a newer program would give another outcome for the same inputs."""
DIGEST_LENGTH: Final = 32


class Stage(StrEnum):
    """The stages, in order."""

    SNAPSHOT = "Snapshot"
    SPLIT = "Split"
    GENERATE = "Generate"
    FILTER = "Filter"
    DECONTAMINATE = "Decontaminate"
    TRAIN = "Train"
    EVALUATE_TEACHER = "EvaluateTeacher"
    EVALUATE_BASE = "EvaluateBase"
    EVALUATE_INCUMBENT = "EvaluateIncumbent"
    EVALUATE_STUDENT = "EvaluateStudent"
    JUDGE = "Judge"
    GATE = "Gate"
    CALIBRATE = "Calibrate"
    PACKAGE = "Package"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a complete stage left: the digest of what it rested on, and that of what came out."""

    digest: str
    output: str
    decision: str | None = None
    """Gate: Pass, Fail or Inconclusive."""


Outcomes = Mapping[Stage, Outcome]


@dataclass(frozen=True, slots=True)
class _Rests:
    """What a stage rests on: outcomes of others where they take part, and parts of the spec."""

    on: tuple[Stage, ...]
    spec: Callable[[DistillJobSpec], tuple[Model | None, ...]]


def _judge_of_rows(spec: DistillJobSpec) -> tuple[Model, ...]:
    """The judge as far as it chooses training rows; nothing without one, so that older digests stay as they are."""
    judge = spec.judge
    return (judge.model_copy(update={"evaluation": True}),) if judge and judge.min_score_permille else ()


def _answers(spec: DistillJobSpec) -> tuple[Model | None, ...]:
    return (spec.workload, spec.evaluation or Evaluation())


_EVALUATED: Final = (
    Stage.EVALUATE_TEACHER,
    Stage.EVALUATE_BASE,
    Stage.EVALUATE_INCUMBENT,
    Stage.EVALUATE_STUDENT,
)
_ASKED: Final = tuple(stage for stage in Stage if stage not in (Stage.GATE, Stage.CALIBRATE, Stage.PACKAGE))

_TABLE: Final[Mapping[Stage, _Rests]] = {
    Stage.SNAPSHOT: _Rests((), lambda spec: (*spec.data.sources, spec.data.scrub)),
    # The verifiers say which rows can be tested.
    Stage.SPLIT: _Rests((Stage.SNAPSHOT,), lambda spec: (spec.data.split, spec.workload)),
    Stage.GENERATE: _Rests((Stage.SPLIT,), lambda spec: (spec.teacher, spec.generation or Generation())),
    Stage.FILTER: _Rests(
        (Stage.GENERATE,), lambda spec: (spec.workload, spec.filters or Filters(), *_judge_of_rows(spec))
    ),
    Stage.DECONTAMINATE: _Rests((Stage.FILTER, Stage.SPLIT), lambda spec: (spec.decontamination or Decontamination(),)),
    Stage.TRAIN: _Rests((Stage.DECONTAMINATE,), lambda spec: (spec.student.base, spec.training or Training())),
    Stage.EVALUATE_TEACHER: _Rests((Stage.SPLIT,), lambda spec: (spec.teacher, *_answers(spec))),
    Stage.EVALUATE_BASE: _Rests((Stage.SPLIT,), lambda spec: (spec.student.base, *_answers(spec))),
    Stage.EVALUATE_INCUMBENT: _Rests((Stage.SPLIT,), lambda spec: (_incumbent(spec), *_answers(spec))),
    Stage.EVALUATE_STUDENT: _Rests((Stage.TRAIN, Stage.SPLIT), lambda spec: (spec.student.trained, *_answers(spec))),
    # It reads what the others answered, and nothing rests on what it says but the report.
    Stage.JUDGE: _Rests((Stage.SPLIT, *_EVALUATED), lambda spec: (spec.judge,)),
    # The report tells of all stages, and is written with the decision and with the package.
    Stage.GATE: _Rests(_ASKED, lambda spec: (spec.gate or Gate(),)),
    Stage.CALIBRATE: _Rests(
        (Stage.EVALUATE_STUDENT, Stage.GATE),
        lambda spec: ((spec.promotion or Promotion()).calibration,),
    ),
    Stage.PACKAGE: _Rests(
        (*_ASKED, Stage.GATE, Stage.CALIBRATE),
        lambda spec: (spec.workload, spec.student, spec.teacher),
    ),
}


def _incumbent(spec: DistillJobSpec) -> Model | None:
    return spec.promotion.incumbent if spec.promotion else None


def takes_part(stage: Stage, spec: DistillJobSpec) -> bool:
    """Whether a job has this stage."""
    match stage:
        case Stage.GENERATE | Stage.FILTER | Stage.DECONTAMINATE | Stage.TRAIN:
            return spec.student.trained is None
        case Stage.EVALUATE_INCUMBENT:
            return _incumbent(spec) is not None
        case Stage.JUDGE:
            return spec.judge is not None and spec.judge.evaluation
        case Stage.CALIBRATE:
            return spec.data.split.calibration > 0
        case _:
            return True


ASKS_TEACHER: Final = (Stage.GENERATE, Stage.EVALUATE_TEACHER)


def asks_judge(stage: Stage, spec: DistillJobSpec) -> bool:
    """Whether a stage asks the judge."""
    if stage is Stage.FILTER:
        return spec.judge is not None and spec.judge.min_score_permille is not None
    return stage is Stage.JUDGE


def stages_of(spec: DistillJobSpec) -> tuple[Stage, ...]:
    """The stages of a job, in order."""
    return tuple(stage for stage in Stage if takes_part(stage, spec))


def before(stage: Stage, spec: DistillJobSpec) -> tuple[Stage, ...]:
    """The stages whose outcomes this one reads."""
    return tuple(other for other in _TABLE[stage].on if takes_part(other, spec))


def digest_of(stage: Stage, spec: DistillJobSpec, outcomes: Outcomes) -> str:
    """Digest of all that a stage rests on; every stage before it must be in `outcomes`."""
    parts = _TABLE[stage].spec(spec)
    rests = {
        "format": FORMAT,
        "stage": stage.value,
        # A field that is left out counts for nothing, so that one a newer version knows repeats no work.
        "spec": [part and part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in parts],
        "outcomes": {other.value: outcomes[other].output for other in before(stage, spec)},
    }
    return hash_of(rests)


def hash_of(document: Any) -> str:
    """Hash of a JSON document, the same for equal ones."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True, slots=True)
class Next:
    """A stage to run, and the digest of what it rests on."""

    stage: Stage
    digest: str


def walk(spec: DistillJobSpec, known: Outcomes) -> Iterator[Next | Outcome]:
    """The job as far as it is known: an outcome for each stage that is complete, then the stage to run, if any.

    An outcome that rests on something else than the spec says now does not count, nor does any after it.
    """
    sound: dict[Stage, Outcome] = {}
    for stage in stages_of(spec):
        digest = digest_of(stage, spec, sound)
        found = known.get(stage)
        if found is None or found.digest != digest:
            yield Next(stage, digest)
            return
        sound[stage] = found
        yield found
        if stage is Stage.GATE and found.decision != "Pass":
            return


def next_stage(spec: DistillJobSpec, known: Outcomes) -> Next | None:
    """The stage to run; None when the job is at its end."""
    return next((step for step in walk(spec, known) if isinstance(step, Next)), None)
