"""What a person says to a DistillJob: written where it would be followed, refused with the reason where not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers import names
from modeltiers.api.distilljob import Promotion
from modeltiers.domain.distill import wishes
from modeltiers.domain.distill.overview import next_commands, overview, report_address, report_path
from modeltiers.domain.distill.promotion import TierSeen, promote
from modeltiers.domain.distill.wishes import Refused, again

DIGEST = "ab" * 16
OTHER = "cd" * 16
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(promotion: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A packaged job whose promotion stands like this."""
    spec = {"promotion": {"tierRef": {"name": "small"}}, "store": {"claimName": "artifacts"}, **more.pop("spec", {})}
    status: dict[str, Any] = {"artifact": {"digest": DIGEST}, "gate": {"decision": "Pass"}, **more.pop("status", {})}
    if promotion:
        status["promotion"] = promotion
    metadata = {"name": "till", "namespace": "team", **more}
    return {"metadata": metadata, "spec": spec, "status": {k: v for k, v in status.items() if v is not None}}


def at(state: str, **more: Any) -> dict[str, Any]:
    """A promotion."""
    return {"state": state, **more}


def test_an_approval_is_the_artifacts_digest_and_is_followed() -> None:
    wish = wishes.approve(job(at("AwaitingApproval")), DIGEST)
    assert wish.patch() == {"metadata": {"annotations": {names.ANNOTATION_APPROVE: DIGEST}}}
    wanted = Promotion.model_validate({"tierRef": {"name": "small"}, "approval": "Manual"})
    waiting = promote(wanted, {"digest": DIGEST}, at("AwaitingApproval"), TierSeen("small"), {}, NOW)
    assert waiting.status["state"] == "AwaitingApproval"
    begun = promote(wanted, {"digest": DIGEST}, at("AwaitingApproval"), TierSeen("small"), wish.annotations, NOW)
    assert begun.status["state"] == "Canary"


def test_an_approval_after_a_rollback_is_said_anew_and_followed() -> None:
    back = at("RolledBack", approved=DIGEST, takenBack=DIGEST)
    wish = wishes.approve(job(back), None)
    assert wish.annotations == {names.ANNOTATION_APPROVE: f"{DIGEST}@2"}
    wanted = Promotion.model_validate({"tierRef": {"name": "small"}, "approval": "Manual"})
    said = {names.ANNOTATION_ROLLBACK: DIGEST, **wish.annotations}
    begun = promote(wanted, {"digest": DIGEST}, back, TierSeen("small"), said, NOW)
    assert begun.status["state"] == "Canary"
    live = {**begun.status, "state": "Live"}
    taken = wishes.rollback(job(live), DIGEST)
    assert taken.annotations == {names.ANNOTATION_ROLLBACK: f"{DIGEST}@2"}
    after = promote(wanted, {"digest": DIGEST}, live, TierSeen("small"), {**said, **taken.annotations}, NOW)
    assert after.status["state"] == "RolledBack"


@pytest.mark.parametrize(
    ("body", "digest", "why"),
    [
        (job(at("AwaitingApproval")), OTHER, "is abab.*and not cdcd.*read the report"),
        (job(at("Canary")), None, "at Canary"),
        (job(at("Live")), None, "at Live"),
        (job(), None, "nobody's approval is waited for"),
        (
            job(status={"artifact": None, "gate": {"decision": "Fail"}}),
            None,
            "the gate said Fail: there is no artifact",
        ),
        (job(status={"artifact": None, "gate": None, "stage": "Train"}), None, "it is at Train"),
        (job(spec={"promotion": None}), None, "spec.promotion.tierRef"),
    ],
)
def test_nothing_to_approve_is_refused(body: dict[str, Any], digest: str | None, why: str) -> None:
    with pytest.raises(Refused, match=why):
        wishes.approve(body, digest)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (job(at("AwaitingApproval")), "serves nobody yet"),
        (job(at("RolledBack", why="too many failed")), "already: too many failed"),
        (job(status={"artifact": None}), "no student is packaged yet"),
    ],
)
def test_nothing_to_take_back_is_refused(body: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        wishes.rollback(body, None)


def failed(**more: Any) -> dict[str, Any]:
    """A job whose Filter stage failed."""
    stages = [{"name": "Split", "state": "Complete", "digest": OTHER}]
    stages += [{"name": "Filter", "state": "Failed", "digest": DIGEST}]
    return job(status={"artifact": None, "stages": stages, **more.pop("status", {})}, **more)


def test_a_retry_is_another_value_than_the_last() -> None:
    assert wishes.retry(failed(), None).annotations == {names.ANNOTATION_RETRY: DIGEST}
    said = {names.ANNOTATION_RETRY: f"{DIGEST}@4"}
    assert wishes.retry(failed(annotations=said), DIGEST).annotations == {names.ANNOTATION_RETRY: f"{DIGEST}@5"}
    with pytest.raises(Refused, match=r"Filter failed with digest abab.*and not cdcd"):
        wishes.retry(failed(), OTHER)
    with pytest.raises(Refused, match=r"no stage has failed \(it is at Train\)"):
        wishes.retry(job(status={"stage": "Train"}), None)
    used_up = [{"type": "Complete", "status": "True", "reason": "BudgetExhausted"}]
    with pytest.raises(Refused, match=r"raise spec\.budget"):
        wishes.retry(failed(status={"conditions": used_up}), None)


def test_suspend_and_resume_are_each_others_way_back() -> None:
    running, stopped = job(status={"artifact": None}), job(spec={"suspend": True}, status={"artifact": None})
    assert wishes.suspend(running).patch() == {"spec": {"suspend": True}}
    assert wishes.resume(stopped).patch() == {"spec": {"suspend": False}}
    done = [{"type": "Complete", "status": "True", "reason": "Rejected"}]
    for wish, body, why in (
        (wishes.suspend, stopped, "suspended already"),
        (wishes.suspend, job(status={"conditions": done}), "at its end"),
        (wishes.suspend, job(at("Canary")), "roll back"),
        (wishes.resume, running, "not suspended"),
    ):
        with pytest.raises(Refused, match=why):
            wish(body)


@given(st.none() | st.text(max_size=40) | st.integers(0, 10**12).map(lambda number: f"{DIGEST}@{number}"))
def test_what_is_said_again_is_of_the_digest_and_another_value(followed: str | None) -> None:
    value = again(DIGEST, followed)
    assert value.partition("@")[0] == DIGEST
    assert value != followed


def test_an_overview_says_what_is_known_and_what_is_next() -> None:
    stages = [
        {"name": "Snapshot", "state": "Complete", "digest": OTHER, "reused": True, "summary": "120 rows"},
        {
            "name": "Train",
            "state": "Complete",
            "digest": OTHER,
            "attempts": 2,
            "started": "2026-01-01T00:00:00Z",
            "ended": "2026-01-01T00:07:30Z",
            "summary": "40 steps",
        },
        {"name": "Package", "state": "Complete", "digest": DIGEST, "summary": "3 files"},
    ]
    ready = {"type": "Ready", "status": "Unknown", "reason": "ApprovalWanted", "message": "read the report"}
    status = {
        "conditions": [{"type": "Complete", "status": "False", "reason": "InProgress"}, ready],
        "stages": stages,
        "spend": {"promptTokens": 1000, "answerTokens": 234, "costMicros": 59_920, "currency": "USD", "inDoubt": 2},
        "gate": {"decision": "Pass", "items": 600, "needed": 198, "studentPermille": 977, "differencePermille": 55}
        | {"lowerPermille": 31, "why": "incumbent: not worse"},
        "artifact": {"digest": DIGEST, "thresholdPermille": 940, "source": "pvc://artifacts/till"},
    }
    body = job(at("AwaitingApproval", since="2026-01-01T00:10:00Z"), status=status)
    told = overview(body)
    for said in (
        "DistillJob team/till",
        "ApprovalWanted: read the report",
        "found  120 rows",
        "7 min  2 tries; 40 steps",
        "1,234 tokens, 0.0599 USD, 2 requests in doubt",
        "Pass on 600 sealed items, 198 needed",
        "student 97.7 %",
        "difference +5.5 points, lower bound +3.1",
        "accepted from a confidence of 94.0 %",
        f"pvc://artifacts/stages/Package/{DIGEST}/report.html",
        f"Next       modeltiers approve dj/till -n team --digest {DIGEST}",
    ):
        assert said in told
    assert list(next_commands(job(at("Live")))) == [f"modeltiers rollback dj/till -n team --digest {DIGEST}"]
    assert next(next_commands(failed())).startswith("modeltiers retry dj/till -n team")
    moved = [
        {"type": one, "status": "True", "reason": "BadData", "message": "\x1b[2J"} for one in ("Complete", "Ready")
    ]
    assert "\x1b" not in overview(job(status={"conditions": moved}))


def test_an_overview_of_nothing_claims_nothing() -> None:
    told = overview({"metadata": {"name": "till"}, "spec": {}})
    assert "not looked at it yet" in told
    assert "no stage has begun" in told
    assert "Gate" not in told
    assert report_path({}) is None


def test_a_refused_students_report_lies_beside_the_decision() -> None:
    stages = [{"name": "Gate", "state": "Complete", "digest": OTHER}]
    body = job(spec={"store": {"s3": "s3://bucket/runs"}}, status={"artifact": None, "stages": stages})
    assert report_address(body) == f"s3://bucket/runs/stages/Gate/{OTHER}/report.html"
