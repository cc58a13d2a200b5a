"""What stands in a DistillJob's way before its first stage, and before its training."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.distill.admission import (
    Around,
    Reach,
    arrives,
    hindrance,
    judge_of,
    not_asked,
    refusals,
    teacher_of,
    too_long,
)
from modeltiers.domain.distill.payback import Estimate, Tier, estimate
from modeltiers.domain.distill.stages import Stage
from tests.unit.test_distill_stages import SPEC, spec

TRAFFIC = {"requestsPerDay": 100_000, "promptTokens": 500, "answerTokens": 100}
API_PRICE = {"inputPerMillionMicros": 2_000_000, "outputPerMillionMicros": 8_000_000}
PAID = {"costMicros": 300_000_000, "currency": "USD"}
SHARED, ALONE = ClaimView(("ReadWriteMany",)), ClaimView(("ReadWriteOnce",))


def served(source: str = "distill://job", *, sized: int | None = 1, **more: Any) -> Tier:
    """A tier of this cluster."""
    accelerators = [{"name": "a", "product": "X"}]
    read = ModelTierSpec.model_validate({"model": {"source": source}, "accelerators": accelerators, **more})
    return read, {"sizing": {"gpusPerReplica": sized}} if sized else {}


def api(**more: Any) -> Tier:
    """A tier that is an external API."""
    return ModelTierSpec.model_validate({"external": {"baseUrl": "https://x.example/v1", "model": "m", **more}}), {}


def job(**changes: Any) -> Any:
    """A job that goes live in the tier `small`."""
    return spec(**{"promotion": {"tierRef": {"name": "small"}}, **changes})


@pytest.mark.parametrize(
    ("changes", "around", "reason", "words"),
    [
        ({}, Around(claim_missing=True), "VolumeClaimNotFound", "artifacts (spec.store.claimName): create it"),
        ({}, Around(promotion=api()), "TierIsExternal", "small (spec.promotion.tierRef) is an external API"),
        (
            {"promotion": None, "evaluation": {"tierRef": {"name": "frontier"}}},
            Around(evaluation=api()),
            "TierIsExternal",
            "frontier (spec.evaluation.tierRef)",
        ),
        ({}, Around(teacher=served("distill://job")), "TeacherIsStudent", "model.source to the teacher's own weights"),
        ({}, Around(claim=ALONE), "VolumeClaimNotShared", "ReadWriteOnce, and its canary runs both"),
        (
            {"promotion": {"tierRef": {"name": "small"}, "strategy": "Replace"}},
            Around(claim=ALONE, promotion=served(replicas=2)),
            "VolumeClaimNotShared",
            "the tier has 2 replicas: use a ReadWriteMany claim",
        ),
    ],
)
def test_what_would_end_badly_is_said_first(changes: dict[str, Any], around: Around, reason: str, words: str) -> None:
    found = hindrance("job", job(**changes), around)
    assert found is not None
    assert (found.reason, found.passes) == (reason, False)
    assert words in found.message


def test_what_may_be_on_its_way_passes_for_a_moment() -> None:
    """A claim that is missing may come; a claim that cannot be shared stays as it is."""
    missing, alone = (hindrance("job", job(), one) for one in (Around(claim_missing=True), Around(claim=ALONE)))
    assert missing is not None
    assert arrives(missing, timedelta(seconds=7)) == replace(missing, passes=True, wait=7.0)
    assert arrives(missing, None) == missing
    assert arrives(alone, timedelta(seconds=7)) == alone
    assert arrives(None, timedelta(seconds=7)) is None


@pytest.mark.parametrize(
    ("changes", "around"),
    [
        ({}, Around()),  # nothing is known: nothing is refused
        ({}, Around(teacher=api(), promotion=served(), claim=SHARED)),
        ({}, Around(teacher=served("distill://another"))),
        ({"promotion": None}, Around(claim=ALONE)),
        ({"promotion": {"tierRef": {"name": "small"}, "strategy": "Replace"}}, Around(None, None, served(), ALONE)),
        ({"store": {"s3": "s3://bucket/path"}}, Around(promotion=served())),
    ],
)
def test_what_may_go_well_is_begun(changes: dict[str, Any], around: Around) -> None:
    assert hindrance("job", job(**changes), around) is None


def test_a_budget_in_money_needs_a_price() -> None:
    endpoint = {"endpoint": {"baseUrl": "https://x.example/v1", "model": "m"}, "termsAcknowledged": True}
    found = refusals(job(teacher=endpoint, budget={"costMicros": 5}), Settings())
    assert [one.path for one in found] == ["spec", "spec.teacher.endpoint.baseUrl", "spec.teacher.endpoint.price"]


def test_a_scrubber_that_the_settings_have_not_is_refused() -> None:
    hooked = job(data={**SPEC["data"], "scrub": {"hook": "people"}})
    scrubbers = {"addresses": {"image": "example.com/a:1"}}
    (found,) = refusals(hooked, Settings.model_validate({"distill": {"image": "i", "scrubbers": scrubbers}}))
    assert (found.path, "no scrubber people (addresses)" in found.message) == ("spec.data.scrub.hook", True)
    known = Settings.model_validate({"distill": {"image": "i", "scrubbers": {"people": scrubbers["addresses"]}}})
    assert refusals(hooked, known) == []


# --- payback ----------------------------------------------------------------------------------------------------------


def paid_back(
    teacher: Tier | None = None, target: Tier | None = None, spend: Any = PAID, **changes: Any
) -> tuple[Estimate, Any]:
    """The estimate of a job, and its spec."""
    wanted = job(**{"budget": {"traffic": TRAFFIC, "maxPaybackDays": 30}, **changes})
    assert wanted.budget.traffic is not None
    return estimate(wanted, wanted.budget.traffic, spend, teacher, target), wanted


PRICED = served(price={"gpuHourMicros": 2_000_000})


def test_days_with_the_arithmetic() -> None:
    """100,000 requests of 0.0018 USD a day, less 24 hours of an accelerator at 2 USD."""
    found, wanted = paid_back(api(price=API_PRICE), PRICED)
    assert found.status == {
        "days": 3,
        "how": "3 days = 300.00 USD paid for answers / (180.00 USD a day for the teacher's answers to 100,000 requests"
        " - 48.00 USD a day for 1 accelerators of ModelTier small); the training's own accelerators are not counted",
    }
    assert too_long(wanted, found) is None


def test_too_long_is_not_trained_until_the_budget_is_raised() -> None:
    found, wanted = paid_back(api(price=API_PRICE), PRICED, budget={"traffic": TRAFFIC, "maxPaybackDays": 2})
    stop = too_long(wanted, found)
    assert stop is not None
    assert stop.reason == "PaybackTooLong"
    assert "longer than the 2 days of budget.maxPaybackDays: 3 days = 300.00 USD" in stop.message
    assert too_long(job(budget={"traffic": TRAFFIC}), found) is None


def test_never_is_too_long() -> None:
    found, wanted = paid_back(api(price=API_PRICE), served(price={"gpuHourMicros": 2_000_000}, replicas=4))
    assert (found.days, found.known) == (None, True)
    assert found.status.keys() == {"how"}
    stop = too_long(wanted, found)
    assert stop is not None
    assert (stop.reason, "never = 300.00 USD" in stop.message) == ("PaybackTooLong", True)


@pytest.mark.parametrize(
    ("teacher", "target", "spend", "changes", "words"),
    [
        (api(), PRICED, PAID, {}, "set spec.external.price of ModelTier large"),
        (served("hf://a/b"), PRICED, PAID, {}, "on accelerators of this cluster no price of a token is known"),
        (api(price=API_PRICE), PRICED, {"promptTokens": 5}, {}, "what an answer of the teacher costs"),
        (api(price=API_PRICE), PRICED, None, {}, "what an answer of the teacher costs"),
        (api(price=API_PRICE), served(), PAID, {}, "set spec.price of ModelTier small"),
        (api(price=API_PRICE), None, PAID, {}, "set spec.price of ModelTier small"),
        (api(price=API_PRICE), served(price={"gpuHourMicros": 1}, sized=None), PAID, {}, "not sized yet"),
        (api(price=API_PRICE), served(price={"gpuHourMicros": 1, "currency": "EUR"}), PAID, {}, "one currency"),
        (api(price=API_PRICE), PRICED, PAID, {"promotion": None}, "set promotion.tierRef"),
    ],
)
def test_what_has_no_price_is_unknown_and_never_guessed(
    teacher: Tier, target: Tier | None, spend: Any, changes: dict[str, Any], words: str
) -> None:
    found, wanted = paid_back(teacher, target, spend, **changes)
    assert (found.days, found.known) == (None, False)
    assert words in found.how
    stop = too_long(wanted, found)
    assert stop is not None
    assert stop.reason == "PaybackUnknown"
    assert "remove budget.maxPaybackDays" in stop.message


# --- the judge --------------------------------------------------------------------------------------------------------

WISE = {"tierRef": {"name": "wise"}, "rubric": "r"}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
HIDDEN = Settings.model_validate({"router": {"image": "r"}})


def own(**more: Any) -> Tier:
    """A tier of this cluster that serves."""
    return served("pvc://models/wise", **more)[0], READY


def test_a_judge_is_reached_as_a_teacher_is() -> None:
    keyed = job(judge={**WISE, "keyRef": {"name": "a", "key": "b"}})
    found = judge_of(keyed, own(), "team", Settings())
    assert found.hindrance is None
    assert found.target is not None
    taught = teacher_of(job(teacher={"tierRef": {"name": "wise"}}), own(), "team", Settings()).target
    assert taught is not None
    assert found.target.base_url == taught.base_url
    assert found.target.key_file == "/etc/modeltiers/judge/key"
    assert judge_of(job(), None, "team", Settings()) == Reach()


@pytest.mark.parametrize(
    ("tier", "settings", "reason", "words"),
    [
        (None, Settings(), "TierNotFound", "there is no ModelTier wise (spec.judge.tierRef): create it"),
        (own(), HIDDEN, "TierNotAdmitting", "to Keys and name a key in spec.judge.keyRef"),
        (served("pvc://models/wise"), Settings(), "TierNotReady", "ModelTier wise does not serve"),
    ],
)
def test_why_a_judge_cannot_be_asked(tier: Tier | None, settings: Settings, reason: str, words: str) -> None:
    found = judge_of(job(judge=WISE), tier, "team", settings).hindrance
    assert found is not None
    assert (found.reason, words in found.message) == (reason, True)


def test_terms_are_for_scores_that_choose_training_rows() -> None:
    """What an external tier says of sealed items teaches nobody."""
    far = (api()[0], READY)
    assert judge_of(job(judge=WISE), far, "team", Settings()).hindrance is None
    choosing = {**WISE, "minScorePermille": 700}
    found = judge_of(job(judge=choosing), far, "team", Settings()).hindrance
    assert found is not None
    assert found.reason == "TermsNotAcknowledged"
    assert "judge.termsAcknowledged: true" in found.message
    read = {**choosing, "termsAcknowledged": True}
    assert judge_of(job(judge=read), far, "team", Settings()).hindrance is None


def test_a_stage_waits_for_whom_it_asks_and_for_knowing_the_other() -> None:
    """What the other took counts in the budget; it need not serve for that."""
    wanted = job(judge={**WISE, "minScorePermille": 700})
    idle = judge_of(wanted, served("pvc://models/wise"), "team", Settings())
    missing = judge_of(wanted, None, "team", Settings())
    good = judge_of(wanted, own(), "team", Settings())
    for stage, teacher, judge, reason in (
        (Stage.GENERATE, good, idle, None),
        (Stage.GENERATE, good, missing, "TierNotFound"),
        (Stage.FILTER, good, idle, "TierNotReady"),
        (Stage.FILTER, idle, good, None),
        (Stage.JUDGE, missing, good, "TierNotFound"),
        (Stage.TRAIN, missing, missing, None),
    ):
        found = not_asked(stage, wanted, teacher, judge)
        assert (found.reason if found else None) == reason, stage
    assert not_asked(Stage.FILTER, job(judge=WISE), missing, missing) is None  # nothing is asked there
    assert not_asked(Stage.GENERATE, job(), good, Reach()) is None


def test_a_judge_that_is_the_student_is_said_first() -> None:
    found = hindrance("job", job(judge=WISE), Around(judge=served("distill://job")))
    assert found is not None
    assert found.reason == "JudgeIsStudent"


def test_a_judges_host_and_price_are_looked_at_as_a_teachers() -> None:
    endpoint = {"endpoint": {"baseUrl": "https://x.example/v1", "model": "m"}, "rubric": "r"}
    found = refusals(job(judge=endpoint, budget={"costMicros": 5}), Settings())
    assert [one.path for one in found] == ["spec", "spec.judge.endpoint.baseUrl", "spec.judge.endpoint.price"]


def test_payback_counts_what_the_judge_was_paid() -> None:
    spend = {**PAID, "costMicros": 200_000_000, "judge": {"costMicros": 100_000_000, "currency": "USD"}}
    found, _ = paid_back(api(price=API_PRICE), PRICED, spend)
    assert found.how.startswith("3 days = 300.00 USD paid for answers")
    other = {**spend, "judge": {"costMicros": 1, "currency": "EUR"}}
    assert not paid_back(api(price=API_PRICE), PRICED, other)[0].known
    free = {**PAID, "judge": {"promptTokens": 5}}
    assert paid_back(api(price=API_PRICE), PRICED, free)[0].how.startswith("3 days = 300.00 USD")
