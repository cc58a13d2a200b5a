"""DistillJob: from a teacher to a promoted student, or a clear no.

What decides the result (teacher, data, training, gate) cannot be changed: another question is another DistillJob.
Budget, suspend, approval and promotion can. Whom a job asks is in `distilljob_asked`, its status in
`distilljob_status`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from modeltiers.api.base import Model, Rule, atomic, cel, distinct, listed_by
from modeltiers.api.distilljob_asked import Judge, Permille, Teacher, TierRef
from modeltiers.api.distilljob_status import DistillJobStatus
from modeltiers.api.fields import Image, LabelKey, LabelValue, Name, ObjectName, Quantity, SecretKey, SecretKeyRef
from modeltiers.api.model import Weights
from modeltiers.api.modeltier import Toleration

Path = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)*$",
        json_schema_extra=cel(Rule("!self.contains('..')", "a path must not contain '..'")),
    ),
]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]
Bucket = Annotated[
    str,
    Field(
        min_length=6,
        max_length=512,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)*$",
        json_schema_extra=cel(Rule("!self.contains('..')", "an s3:// address must not contain '..'")),
    ),
]

IMMUTABLE = ("workload", "teacher", "student", "data", "generation", "filters", "decontamination", "training")
IMMUTABLE_MORE = ("evaluation", "judge", "gate", "store")


class Verifier(Model):
    """One check that says whether an answer is right; an answer is right when all of them say so."""

    name: Name
    """Your name for it, shown in reports."""
    type: Literal["Exact", "Contains", "Numeric", "Json", "Regex"]
    """Exact: equal to what is expected, but for space around it. Contains: has it in it. Numeric: its last number is
    the expected one. Json: it is JSON, of the schema and, where something is expected, equal to it. Regex: matches
    pattern."""
    tolerance_permille: Permille | None = None
    """Numeric: how far it may be off, relative to what is expected. Left out: not at all."""
    pattern: Pattern | None = None
    """Regex: an RE2 pattern that the answer must match somewhere."""
    schema_text: str | None = Field(default=None, min_length=2, max_length=16_384)
    """Json: a JSON schema, as text."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("(self.type == 'Regex') == has(self.pattern)", "type Regex needs pattern, and pattern needs type Regex"),
        Rule("self.type == 'Json' || !has(self.schemaText)", "schemaText is for type Json: remove it"),
        Rule(
            "self.type == 'Numeric' || !has(self.tolerancePermille)", "tolerancePermille is for type Numeric: remove it"
        ),
    )


class Workload(Model):
    """The task: what it is and what makes an answer right."""

    description: str | None = Field(default=None, max_length=1024)
    """A line about the task for the report and the model card."""
    verifiers: list[Verifier] = Field(min_length=1, max_length=16, json_schema_extra=listed_by("name"))
    """What makes an answer right. A judge is no substitute: a student that only sounds like its teacher must fail."""


class Student(Model):
    """Who learns."""

    base: Weights
    """The untrained model. It is evaluated too: a student that is no better is refused."""
    trained: Weights | None = None
    """A student tuned elsewhere. It enters at Evaluate: nothing is generated or trained."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.trained) ? has(self.trained.architecture) || self.trained.source.startsWith('pvc://')"
            " : has(self.base.architecture) || self.base.source.startsWith('pvc://')",  # which Weights wants anyway
            "give the architecture of trained, or of base where nothing is tuned yet: the student is served from a"
            " volume, and no catalogue knows what lies there",
        ),
    )


class ConfigMapKey(Model):
    """One key of a ConfigMap of this namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: SecretKey
    """Key inside it."""


class ClaimPath(Model):
    """A file or folder on a volume of this namespace."""

    claim_name: ObjectName
    """PersistentVolumeClaim."""
    path: Path
    """A file of JSON lines, or a folder with *.jsonl files."""


class Source(Model):
    """Where conversations come from: JSON lines with OpenAI `messages`, and `expected`, `group`, `slice` where you have
    them. Exactly one place."""

    name: Name
    """Your name for it."""
    config_map: ConfigMapKey | None = None
    """A small example's rows."""
    volume: ClaimPath | None = None
    """Rows on a volume."""
    s3: Bucket | None = None
    """Rows under an S3 address; credentials are the store's."""
    hf: str | None = Field(
        default=None,
        min_length=8,
        max_length=256,
        pattern=r"^hf://datasets/[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*(@[A-Za-z0-9._-]+)?(/[A-Za-z0-9_.-]+)+$",
    )
    """A file of a Hub dataset, `hf://datasets/ORG/NAME@REVISION/FILE`."""
    part: Literal["Any", "RedTeam"] = "Any"
    """Any: split into training, evaluation and calibration. RedTeam: all of it is the red-team part."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.configMap), has(self.volume), has(self.s3), has(self.hf)].filter(x, x).size() == 1",
            "give exactly one of configMap, volume, s3 and hf",
        ),
    )


class ScrubPattern(Model):
    """Text to replace."""

    name: Name
    """What stands in its place, in brackets: `[NAME]`."""
    pattern: Pattern
    """An RE2 pattern."""


class Scrub(Model):
    """What is replaced in every row before anything is stored."""

    kinds: list[Literal["Email", "Phone", "CardNumber", "Iban", "IpAddress"]] = Field(
        default=[], max_length=8, json_schema_extra=distinct()
    )
    """Well-known forms. They find what looks like one, and miss what does not."""
    patterns: list[ScrubPattern] = Field(default=[], max_length=32, json_schema_extra=listed_by("name"))
    """Your own patterns."""
    hook: Name | None = None
    """A program of the administrator's that replaces texts after these: a name in `distill.scrubbers` of the
    settings."""


class Split(Model):
    """How rows are parted, before the teacher is asked. Conversations and clusters of near-duplicates stay together."""

    evaluation: int = Field(ge=1, le=100_000)
    """Items of the sealed evaluation part; the gate needs enough of them (docs/gate.md)."""
    calibration: int = Field(default=0, ge=0, le=100_000)
    """Items of the sealed part that the acceptance threshold is calibrated on. 0: nothing is calibrated."""
    seed: int = Field(default=17, ge=0, le=2**31 - 1)
    """Another seed is another split."""
    near_duplicate_permille: int = Field(default=800, ge=300, le=1000)
    """Rows whose words overlap by so much (Jaccard) are one cluster; 1000 finds equal ones only (docs/data.md)."""


class Data(Model):
    """What is learnt from and tested on."""

    sources: list[Source] = Field(min_length=1, max_length=16, json_schema_extra=listed_by("name"))
    """Where rows come from."""
    scrub: Scrub | None = None
    """What is replaced in them."""
    split: Split
    """How they are parted."""


class Generation(Model):
    """How the teacher is asked."""

    system: str | None = Field(default=None, min_length=1, max_length=8192)
    """A system message put before each conversation that has none."""
    samples: int = Field(default=1, ge=1, le=32)
    """Answers for each prompt."""
    temperature_milli: int = Field(default=0, ge=0, le=2000)
    """Thousandths of the sampling temperature. 0 with more than one sample gives the same answer again."""
    max_tokens: int = Field(default=512, ge=1, le=1_000_000)
    """Longest answer. Answers cut there are dropped and counted."""
    concurrency: int = Field(default=8, ge=1, le=512)
    """Requests under way at once; after a kill at most so many are in doubt."""
    timeout_seconds: int = Field(default=120, ge=1, le=3600)
    """Longest wait for one answer."""
    top_logprobs: int = Field(default=0, ge=0, le=20)
    """Alternatives to keep for each token, for soft targets."""


class Filters(Model):
    """Which answers become training rows. What is dropped is kept beside, with the reason."""

    verified: bool = True
    """Only answers that the workload's verifiers call right."""
    shortest: int = Field(default=1, ge=0, le=1_000_000)
    """Fewest characters."""
    longest: int = Field(default=100_000, ge=1, le=10_000_000)
    """Most characters."""
    duplicates: bool = False
    """Keep rows with equal prompt and answer more than once."""
    language: Literal["Any", "AsAsked"] = "Any"
    """AsAsked: drop what is in another language than the prompt names, or else is in, where that can be told."""
    reasoning: Literal["Keep", "Strip"] = "Strip"
    """What becomes of a reasoning trace before the answer."""
    least_rows: int = Field(default=1, ge=1, le=10_000_000)
    """With fewer rows left nothing is trained."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("self.shortest <= self.longest", "shortest must be at most longest: no answer would be left"),
    )


class Decontamination(Model):
    """Training rows that are too like a sealed one."""

    words: int = Field(default=8, ge=3, le=64)
    """A training row that has most of a sealed row's runs of so many words quotes it: an overlap."""
    near_duplicate_permille: int = Field(default=800, ge=300, le=1000)
    """So much of the words in common (Jaccard) is an overlap; 1000 finds equal ones only."""
    drop_at_most: int = Field(default=0, ge=0, le=1_000_000)
    """Overlapping rows that are dropped; one more, and the job stops: something is wrong with the data."""


class Lora(Model):
    """Low-rank adapters, merged into the weights at the end."""

    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the update."""
    alpha: int = Field(default=32, ge=1, le=2048)
    """Scale of the update."""


class Training(Model):
    """How the student is trained."""

    method: Literal["Auto", "Sequence", "SoftTargets"] = "Auto"
    """Sequence: on the teacher's text. SoftTargets: on its token probabilities, which needs the same tokenizer and
    `generation.topLogprobs`. Auto: soft targets where they can be had."""
    lora: Lora | None = None
    """Train low-rank adapters. Left out: all weights."""
    epochs: int = Field(default=2, ge=1, le=1000)
    """Passes over the rows."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Rows for one step, over all GPUs."""
    learning_rate_nanos: int = Field(default=20_000, ge=1, le=10**9)
    """Peak rate in billionths: 20000 is 2e-5."""
    warmup_permille: Permille = 30
    """Share of the steps in which the rate rises."""
    max_length: int = Field(default=2048, ge=16, le=1_000_000)
    """Longest row in tokens; longer ones are dropped and counted."""
    soft_weight_permille: Permille = 500
    """SoftTargets: share of the soft term in the loss."""
    soft_temperature_milli: int = Field(default=1000, ge=100, le=10_000)
    """SoftTargets: temperature of both sides."""
    checkpoint_steps: int = Field(default=100, ge=1, le=1_000_000)
    """Steps between two checkpoints: the most that a kill can cost."""
    seed: int = Field(default=17, ge=0, le=2**31 - 1)
    """For order and initial adapters."""


class Evaluation(Model):
    """How student, base, incumbent and teacher are asked the sealed items: all in the same way."""

    tier_ref: TierRef | None = None
    """The ModelTier whose engine serves student and base for the test: its image, profile, accelerators and flags. Left
    out: the promotion's tier."""
    samples: int = Field(default=1, ge=1, le=16)
    """Answers for each item; its score is their mean."""
    temperature_milli: int = Field(default=0, ge=0, le=2000)
    """Thousandths of the sampling temperature."""
    max_tokens: int = Field(default=512, ge=1, le=1_000_000)
    """Longest answer; one that is cut there counts as it stands."""
    concurrency: int = Field(default=8, ge=1, le=512)
    """Requests under way at once."""


class GateSlice(Model):
    """A slice that must hold by itself."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    """Value of `slice` in the rows."""
    margin_permille: int = Field(default=50, ge=0, le=500)
    """How much worse than the reference it may be."""


class Gate(Model):
    """When the student is good enough. docs/gate.md says how that is decided."""

    margin_permille: int = Field(default=20, ge=0, le=500)
    """How much worse than the incumbent it may be, in thousandths of the score."""
    teacher_margin_permille: int | None = Field(default=None, ge=0, le=1000)
    """How much worse than the teacher. Left out: not compared."""
    alpha_permille: int = Field(default=50, ge=1, le=200)
    """Chance to promote a student that is just worse than the margin."""
    power_permille: int = Field(default=800, ge=500, le=990)
    """Chance to promote one that is equal, from which the needed number of items follows."""
    looks: int = Field(default=5, ge=1, le=100)
    """How often one sealed evaluation part may be used; alpha is shared out among them."""
    slices: list[GateSlice] = Field(default=[], max_length=16, json_schema_extra=listed_by("name"))
    """Slices that must hold by themselves."""
    out_of_slice_margin_permille: int | None = Field(default=None, ge=0, le=500)
    """How much worse on the items of no named slice. Left out: not compared by themselves."""
    gain_permille: int = Field(default=50, ge=1, le=500)
    """The gain over the untrained base that is worth seeing: a student that shows none, on as many items as would show
    this one, is refused."""
    red_team_margin_permille: int = Field(default=0, ge=0, le=500)
    """How much worse on the red-team part."""


class Calibration(Model):
    """What the acceptance threshold promises."""

    max_wrong_permille: int = Field(default=50, ge=1, le=500)
    """Most wrong answers among those accepted without escalation."""
    confidence_permille: int = Field(default=950, ge=500, le=999)
    """How sure that promise is."""


class Canary(Model):
    """How traffic moves from the incumbent to the student."""

    steps_permille: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        default=[50, 250, 1000], min_length=1, max_length=10, json_schema_extra=atomic()
    )
    """Shares of conversations, rising."""
    hold_seconds: int = Field(default=300, ge=10, le=86_400)
    """How long each is held."""
    max_error_permille: Permille = 10
    """Requests of the student that may fail, beyond the incumbent's share; more takes it back."""
    max_escalation_permille: int = Field(default=100, ge=0, le=1000)
    """Escalations beyond the incumbent's share; more takes it back."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.stepsPermille) || [1, 2, 3, 4, 5, 6, 7, 8, 9].all(i, i >= self.stepsPermille.size()"
            " || self.stepsPermille[i - 1] < self.stepsPermille[i])",
            "stepsPermille must rise from step to step",
        ),
    )


class Promotion(Model):
    """How the student goes live, in a tier whose `model.source` is `distill://NAME` of this job."""

    tier_ref: TierRef | None = None
    """The tier. Left out: the student is packaged and goes nowhere."""
    incumbent: Weights | None = None
    """What the tier serves until the student is promoted, and after a rollback. Left out: the student's base."""
    approval: Literal["None", "Manual"] = "None"
    """Manual: wait for the annotation that `modeltiers approve` writes."""
    strategy: Literal["Canary", "Replace"] = "Canary"
    """Canary: both revisions run, traffic moves by steps. Replace: the tier rolls over, where both do not fit."""
    canary: Canary | None = None
    """Steps and limits of the canary."""
    calibration: Calibration | None = None
    """What the threshold promises that goes live with the student."""


class Traffic(Model):
    """What the tier will serve, for the payback estimate."""

    requests_per_day: int = Field(ge=1, le=10**10)
    """Requests a day that the student would answer in the teacher's place."""
    prompt_tokens: int = Field(ge=1, le=10**7)
    """Mean tokens of a prompt."""
    answer_tokens: int = Field(ge=1, le=10**7)
    """Mean tokens of an answer."""


class Budget(Model):
    """Where the job stops; raise it, and the job goes on where it stopped."""

    teacher_tokens: int | None = Field(default=None, ge=1, le=10**13)
    """Tokens asked of and answered by the teacher, evaluation included; those of the judge count, too."""
    cost_micros: int | None = Field(default=None, ge=1, le=10**15)
    """What the answers of teacher and judge cost together, in millionths of the price's currency."""
    max_payback_days: int | None = Field(default=None, ge=1, le=3650)
    """Do not train when the estimate says that it takes longer to pay back. Needs `traffic` and prices."""
    traffic: Traffic | None = None
    """What the tier will serve."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.maxPaybackDays) || has(self.traffic)", "maxPaybackDays needs traffic: add it"),
    )


class StageResources(Model):
    """What one pod of a stage asks for."""

    cpu: Quantity | None = None
    """CPU request; no CPU limit is set."""
    memory: Quantity | None = None
    """Memory request and limit."""
    gpus: int | None = Field(default=None, ge=0, le=64)
    """GPUs; none when left out."""
    gpu_resource: LabelKey | None = None
    """Extended resource that a GPU is requested by; nvidia.com/gpu when left out."""


class JobScheduling(Model):
    """Where and how the Jobs run."""

    queue_name: Name | None = None
    """Kueue LocalQueue: every Job is born suspended with its label."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, max_length=16)
    """Labels a node must have."""
    tolerations: list[Toleration] = Field(default=[], max_length=16, json_schema_extra=atomic())
    """Taints to tolerate."""
    retries: int = Field(default=6, ge=0, le=100)
    """Failed pods of one stage before the job is Stalled. Preemption and eviction do not count."""
    image: Image | None = None
    """Trainer image, if the administrator allows a choice."""
    work: StageResources | None = None
    """Stages that move data and ask models."""
    train: StageResources | None = None
    """The training stage."""
    retain_seconds: int = Field(default=3600, ge=60, le=604_800)
    """How long a finished Job stays to be looked at. The DistillJob stays until you delete it."""


class ArtifactStore(Model):
    """Where data, checkpoints and artifacts are kept: exactly one place."""

    claim_name: ObjectName | None = None
    """PersistentVolumeClaim of this namespace; ReadWriteMany, or everything runs on one node."""
    s3: Bucket | None = None
    """An S3 address, for students tuned elsewhere that go into no tier."""
    s3_endpoint: str | None = Field(
        default=None, max_length=512, pattern=r"^https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$"
    )
    """URL of an S3-compatible server other than AWS."""
    s3_access_key_id_ref: SecretKeyRef | None = None
    """Access key id, handed to the pods by reference."""
    s3_secret_access_key_ref: SecretKeyRef | None = None
    """Secret access key, handed to the pods by reference."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.claimName) != has(self.s3)", "give exactly one of claimName and s3"),
        Rule("has(self.s3) || !has(self.s3Endpoint)", "s3Endpoint needs s3"),
        Rule(
            "has(self.s3) || (!has(self.s3AccessKeyIdRef) && !has(self.s3SecretAccessKeyRef))",
            "the keys are for an S3 store: set s3, or remove them",
        ),
        Rule(
            "has(self.s3AccessKeyIdRef) == has(self.s3SecretAccessKeyRef)",
            "s3AccessKeyIdRef and s3SecretAccessKeyRef are a pair: give both, or neither",
        ),
    )


def _immutable(*fields: str) -> tuple[Rule, ...]:
    """Rules that fields of the spec stay as they are."""
    return tuple(
        Rule(
            f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
            f"{name} cannot be changed: what was generated, trained and tested rests on it. Create another DistillJob;"
            " what it has in common with this one in the same store is not done again",
        )
        for name in fields
    )


class DistillJobSpec(Model):
    """What you want: who learns what from whom, how that is tested, and where the result goes."""

    workload: Workload
    """The task, and what makes an answer right."""
    teacher: Teacher
    """Who is learnt from."""
    student: Student
    """The model that learns."""
    data: Data
    """What is learnt from and tested on."""
    generation: Generation | None = None
    """How the teacher is asked."""
    filters: Filters | None = None
    """Which answers become training rows."""
    decontamination: Decontamination | None = None
    """Which rows are too like a sealed one."""
    training: Training | None = None
    """How the student is trained."""
    evaluation: Evaluation | None = None
    """How models are tested."""
    judge: Judge | None = None
    """A model that scores answers beside the verifiers. It never decides the gate."""
    gate: Gate | None = None
    """When the student is good enough."""
    promotion: Promotion | None = None
    """How it goes live."""
    budget: Budget | None = None
    """Where the job stops."""
    scheduling: JobScheduling | None = None
    """Where and how the Jobs run."""
    store: ArtifactStore
    """Where everything is kept."""
    suspend: bool = False
    """Stop after what is durable; false goes on there."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.evaluation) && has(self.evaluation.tierRef)"
            " || has(self.promotion) && has(self.promotion.tierRef)",
            "name the ModelTier whose engine serves the student: promotion.tierRef, or evaluation.tierRef where nothing"
            " is promoted",
        ),
        Rule(
            "!has(self.data.split.calibration) || self.data.split.calibration == 0 || has(self.promotion)",
            "data.split.calibration is for a threshold that goes live: add promotion, or remove it",
        ),
        Rule(
            "!has(self.promotion) || !has(self.promotion.calibration) || self.data.split.calibration > 0",
            "promotion.calibration needs items to calibrate on: set data.split.calibration",
        ),
        Rule(
            "!has(self.training) || self.training.method != 'SoftTargets'"
            " || has(self.generation) && self.generation.topLogprobs > 0",
            "method SoftTargets needs the teacher's token probabilities: set generation.topLogprobs",
        ),
        Rule(
            "!has(self.teacher.tierRef) || !has(self.promotion) || !has(self.promotion.tierRef)"
            " || self.teacher.tierRef.name != self.promotion.tierRef.name",
            "promotion.tierRef is the teacher's own tier, which the student would replace: name another ModelTier",
        ),
        Rule(
            "!has(self.judge) || !has(self.judge.tierRef) || !has(self.promotion) || !has(self.promotion.tierRef)"
            " || self.judge.tierRef.name != self.promotion.tierRef.name",
            "promotion.tierRef is the judge's own tier, which would judge itself: name another ModelTier",
        ),
        Rule(
            "!has(self.store.s3) || has(self.student.trained)",
            "a store in S3 is for students tuned elsewhere, since an engine tests what is trained from a volume: set"
            " store.claimName",
        ),
        Rule(
            "!has(self.store.s3) || !has(self.promotion) || !has(self.promotion.tierRef)",
            "tiers serve a student from a volume, and not from S3: set store.claimName, or remove promotion.tierRef",
        ),
        *_immutable(*IMMUTABLE, *IMMUTABLE_MORE),
    )


class DistillJob(Model):
    """From a teacher to a promoted student: data, training, an honest test, a reversible promotion; or a clear no."""

    api_version: Literal["modeltiers.dev/v1alpha1"]
    kind: Literal["DistillJob"]
    metadata: dict[str, Any]
    spec: DistillJobSpec
    status: DistillJobStatus | None = None

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be at most 40 lower-case letters, digits and '-', beginning with a letter:"
            " Jobs are named after it",
        ),
    )
