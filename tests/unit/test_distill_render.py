"""The Job of a stage: what it mounts, and that it mounts nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers import names
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.model import Weights
from modeltiers.api.settings import Settings
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Next, Outcome, Stage, before
from modeltiers.render.distilljob import Engine, models_of, plan_hash, render_job, scrubber_url
from modeltiers.render.owner import Owner
from tests.unit.test_distill_stages import BASE, SPEC, spec

OWNER = Owner("ns", "job", "uid", "DistillJob")
SETTINGS = Settings.model_validate(
    {
        "distill": {
            "image": "example.com/distill:1",
            "scrubbers": {"people": {"image": "example.com/people:1", "args": ["--fast"]}},
        }
    }
)
ENGINE = Engine(
    serves="/model",
    container={"name": "engine", "volumeMounts": [{"name": "engine-model", "mountPath": "/model", "readOnly": True}]},
    volumes=[{"name": "engine-model", "persistentVolumeClaim": {"claimName": "artifacts", "readOnly": True}}],
)


def job(
    stage: Stage,
    wanted: DistillJobSpec,
    teacher: Weights | None = None,
    settings: Settings = SETTINGS,
    **more: Any,
) -> dict[str, Any]:
    """The Job of a stage whose stages before it are complete."""
    outcomes = {other: Outcome("d" * 32, "e" * 32, "Pass") for other in before(stage, wanted)}
    models = models_of(wanted, stage, teacher)
    step = Next(stage, "a" * 32)
    return render_job(OWNER, Plan(job="job", spec=wanted), step, outcomes, settings, models=models, **more)


def volumes(found: dict[str, Any]) -> dict[str, Any]:
    """Its volumes by name."""
    return {one["name"]: one for one in found["spec"]["template"]["spec"]["volumes"]}


def test_a_claim_that_two_need_is_mounted_once_and_can_be_written() -> None:
    found = job(Stage.EVALUATE_STUDENT, spec(), engine=ENGINE)
    pod = found["spec"]["template"]["spec"]
    claims = [one for one in pod["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [{"name": "store", "persistentVolumeClaim": {"claimName": "artifacts"}}]
    assert pod["initContainers"][0]["volumeMounts"] == [{"name": "store", "mountPath": "/model", "readOnly": True}]


def test_a_claim_that_is_only_read_stays_so() -> None:
    found = job(Stage.TRAIN, spec())
    assert volumes(found)["base"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    same = job(Stage.TRAIN, spec(student={"base": {**BASE, "source": "pvc://artifacts/base"}}))
    assert "base" not in volumes(same)
    assert volumes(same)["store"]["persistentVolumeClaim"] == {"claimName": "artifacts"}


TEACHER = Weights.model_validate({**BASE, "source": "pvc://teachers/large"})


def test_the_trainer_reads_the_tokenizer_of_a_teacher_in_this_cluster_unless_it_needs_none() -> None:
    assert volumes(job(Stage.TRAIN, spec(), TEACHER))["teacher"]["persistentVolumeClaim"]["claimName"] == "teachers"
    assert "teacher" not in volumes(job(Stage.TRAIN, spec(training={"method": "Sequence"}), TEACHER))
    assert "teacher" not in volumes(job(Stage.GENERATE, spec(), TEACHER))


def test_the_trainer_has_the_hubs_token_that_the_base_names_by_reference() -> None:
    ref = {"name": "hub", "key": "token"}
    gated = spec(student={"base": {**BASE, "source": "hf://org/base", "tokenSecretRef": ref}})

    def env(stage: Stage) -> dict[str, Any]:
        container = job(stage, gated)["spec"]["template"]["spec"]["containers"][0]
        return {one["name"]: one.get("valueFrom") for one in container["env"]}

    assert env(Stage.TRAIN)["HF_TOKEN"] == {"secretKeyRef": ref}
    assert "HF_TOKEN" not in env(Stage.GENERATE)


def test_a_scrubber_stands_beside_snapshot_alone_and_is_restricted() -> None:
    hooked = spec(data={**SPEC["data"], "scrub": {"hook": "people"}})
    pod = job(Stage.SNAPSHOT, hooked)["spec"]["template"]["spec"]
    (beside,) = pod["initContainers"]
    assert (beside["image"], beside["restartPolicy"], beside["args"]) == ("example.com/people:1", "Always", ["--fast"])
    assert beside["securityContext"]["readOnlyRootFilesystem"]
    assert scrubber_url(hooked, SETTINGS) == "http://127.0.0.1:8790/"
    assert "initContainers" not in job(Stage.SPLIT, hooked)["spec"]["template"]["spec"]
    assert "initContainers" not in job(Stage.SNAPSHOT, spec())["spec"]["template"]["spec"]


def test_an_engine_beside_a_stage_can_be_ended_while_it_loads() -> None:
    """Not as process 1, which is deaf to signals that it does not ask for."""
    assert job(Stage.EVALUATE_BASE, spec(), engine=ENGINE)["spec"]["template"]["spec"]["shareProcessNamespace"]
    assert "shareProcessNamespace" not in job(Stage.GATE, spec())["spec"]["template"]["spec"]


@pytest.mark.parametrize("stage", [one for one in Stage if one is not Stage.EVALUATE_INCUMBENT])
def test_only_who_asks_the_teacher_has_its_key(stage: Stage) -> None:
    keyed = spec(teacher={"tierRef": {"name": "large"}, "keyRef": {"name": "key", "key": "k"}})
    has = "teacher-key" in volumes(job(stage, keyed))
    assert has == (stage in (Stage.GENERATE, Stage.EVALUATE_TEACHER))


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("chooses", [True, False])
def test_only_who_asks_the_judge_has_its_key(stage: Stage, chooses: bool) -> None:
    wanted = {"tierRef": {"name": "wise"}, "rubric": "r", "keyRef": {"name": "key", "key": "k"}}
    found = job(stage, spec(judge={**wanted, **({"minScorePermille": 700} if chooses else {})}))
    has = volumes(found).get("judge-key")
    assert (has is not None) == (stage in ((Stage.FILTER, Stage.JUDGE) if chooses else (Stage.JUDGE,)))
    if has is not None:
        assert has["secret"]["secretName"] == "key"
        (mount,) = [
            one
            for one in found["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
            if one["name"] == "judge-key"
        ]
        assert mount == {"name": "judge-key", "mountPath": "/etc/modeltiers/judge", "readOnly": True}


def test_names_fit_and_differ() -> None:
    made = {names.stage_job("j" * names.MAX_DISTILL_NAME, stage, "a" * 32) for stage in Stage}
    assert len(made) == len(Stage)
    assert all(len(name) <= 63 for name in made)


def test_what_does_not_change_an_outcome_changes_no_plan() -> None:
    plain = plan_hash(Plan(job="job", spec=spec()))
    assert plan_hash(Plan(job="job", spec=spec(suspend=True, scheduling={"retries": 1}))) == plain
    assert plan_hash(Plan(job="job", spec=spec(budget={"teacherTokens": 5}))) != plain


def test_a_job_is_known_by_what_it_was_made_from() -> None:
    """So one that has not begun is made anew when its spec or the administrator's settings change, and only then."""

    def known(made: dict[str, Any]) -> str:
        return str(made["metadata"]["annotations"][names.ANNOTATION_APPLIED])

    distill = SETTINGS.distill.model_copy(update={"train_image": "example.com/train:2"})
    newer = job(Stage.TRAIN, spec(), settings=SETTINGS.model_copy(update={"distill": distill}))
    larger = job(Stage.TRAIN, spec(scheduling={"train": {"memory": "64Gi"}}))
    same = known(job(Stage.TRAIN, spec()))
    assert known(job(Stage.TRAIN, spec())) == same
    assert len({same, known(newer), known(larger)}) == 3
