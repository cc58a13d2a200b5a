"""How a packaged student goes live: each look at the tier gives the next state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modeltiers import names
from modeltiers.api.distilljob import DistillJobSpec, Promotion
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.domain.conditions import REASONS
from modeltiers.domain.distill.following import followed
from modeltiers.domain.distill.promotion import NO_ROOM, Counted, Step, TierSeen, promote
from tests.unit.test_distill_stages import BASE, spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "ab" * 16
SOURCE = "pvc://artifacts/stages/Package/0a/model"
ARTIFACT = {"digest": DIGEST, "source": SOURCE}
WANTED = Promotion.model_validate(
    {"tierRef": {"name": "small"}, "canary": {"stepsPermille": [50, 500], "holdSeconds": 60}}
)
SERVES = TierSeen("small", job="job", ready=True, model="pvc://models/base", candidate=True)


def look(
    status: Mapping[str, Any] | None,
    tier: TierSeen = SERVES,
    seconds: int = 0,
    wanted: Promotion = WANTED,
    **said: str,
) -> Step:
    """One look, so many seconds later; `said` are annotations by their last word."""
    annotations = {f"{names.GROUP}/{word}": text for word, text in said.items()}
    return promote(wanted, ARTIFACT, status, tier, annotations, NOW + timedelta(seconds=seconds))


def canary(weight: int = 50, step: int = 1, **more: Any) -> dict[str, Any]:
    """A canary under way."""
    return {"state": "Canary", "weightPermille": weight, "step": step, "since": "2026-01-01T00:00:00Z", **more}


def test_a_student_goes_up_by_steps_settles_and_is_live() -> None:
    begun = look(None, TierSeen("small", ready=True)).status
    assert begun == {"state": "Canary", "weightPermille": 50, "step": 1}
    waiting = look(begun, TierSeen("small", ready=True, candidate_why="it starts"))
    assert waiting.status == begun  # the hold begins when the student takes requests
    held = look(begun).status
    assert held["since"] == "2026-01-01T00:00:00Z"
    assert look(held, seconds=59).status == held
    second = look(held, seconds=60).status
    assert (second["weightPermille"], second["step"]) == (500, 2)
    settling = look(second, seconds=120).status
    assert (settling["state"], settling["weightPermille"]) == ("Settling", 1000)
    assert look(settling, seconds=125).status == settling  # the tier still serves the incumbent
    live = look(settling, TierSeen("small", ready=True, model=SOURCE), 130).status
    assert live["state"] == "Live"
    assert look(live, seconds=1000).wait is None


@pytest.mark.parametrize(
    ("student", "incumbent", "back"),
    [
        (Counted(100, 5, 0), Counted(1000, 10, 0), True),
        (Counted(100, 2, 0), Counted(1000, 10, 0), False),
        (Counted(100, 0, 40), Counted(1000, 0, 200), True),
        (Counted(100, 0, 30), Counted(1000, 0, 200), False),
        (Counted(19, 19, 0), Counted(1000, 0, 0), False),
        (Counted(20, 20, 0), Counted(), True),
    ],
)
def test_a_breach_takes_the_student_back_at_once(student: Counted, incumbent: Counted, back: bool) -> None:
    seen = TierSeen("small", candidate=True, student=student, incumbent=incumbent)
    found = look(canary(), seen, 1)
    assert found.status["state"] == ("RolledBack" if back else "Canary")
    if back:
        assert found.status["weightPermille"] == 0
        assert "‰ more" in found.status["why"]


def test_a_student_whose_pods_fail_is_taken_back() -> None:
    found = look(canary(), TierSeen("small", candidate=False, candidate_why="CrashLoopBackOff"), 1)
    assert (found.status["state"], "CrashLoopBackOff" in found.status["why"]) == ("RolledBack", True)


def test_a_canary_does_not_go_on_while_the_student_takes_no_requests() -> None:
    unready = TierSeen("small", job="job", candidate_why="its pod is being replaced")
    found = look(canary(), unready, 3600)
    assert found.status == canary()
    assert "being replaced" in found.message
    assert look(canary(), seconds=3600).status["step"] == 2


def test_pods_of_both_that_do_not_fit_are_said_and_nothing_moves() -> None:
    begun = {"state": "Canary", "weightPermille": 50, "step": 1}
    seen = TierSeen("small", candidate=None, candidate_fits=False, candidate_why="no GPU is free")
    found = look(begun, seen)
    assert found.status == begun
    assert found.hindrance is not None
    assert found.hindrance[0] == "CanaryDoesNotFit"
    assert "Replace" in found.hindrance[1]


def test_replace_rolls_the_tier_over_without_a_canary() -> None:
    wanted = Promotion.model_validate({"tierRef": {"name": "small"}, "strategy": "Replace"})
    assert look(None, wanted=wanted).status["state"] == "Settling"


def test_a_person_approves_the_digest_and_nothing_else() -> None:
    wanted = WANTED.model_copy(update={"approval": "Manual"})
    waiting = look(None, wanted=wanted)
    assert waiting.status["state"] == "AwaitingApproval"
    assert DIGEST in waiting.message
    assert look(waiting.status, wanted=wanted, approve="cd" * 16).status == waiting.status
    gone = look(waiting.status, wanted=wanted, approve=DIGEST).status
    assert (gone["state"], gone["approved"]) == ("Canary", DIGEST)


@pytest.mark.parametrize("state", ["Canary", "Settling", "Live"])
def test_a_person_takes_it_back_once_and_may_try_again(state: str) -> None:
    back = look(canary() | {"state": state}, rollback=DIGEST).status
    assert back["state"] == "RolledBack"
    assert look(back, rollback=DIGEST).status == back
    assert look(back, rollback=DIGEST, approve=DIGEST).status["state"] == "Canary"
    again = look(back, rollback=DIGEST, approve=DIGEST).status
    # The older rollback is not a new word, nor is the approval after the next one.
    assert look(again, rollback=DIGEST, approve=DIGEST).status["state"] == "Canary"
    last = look(again, rollback=f"{DIGEST}@2", approve=DIGEST).status
    assert look(last, rollback=f"{DIGEST}@2", approve=DIGEST).status == last


@pytest.mark.parametrize("tier", [TierSeen("small", found=False), TierSeen("small", job="job", follows=False)])
def test_a_tier_that_does_not_follow_stops_it(tier: TierSeen) -> None:
    found = look(None, tier)
    assert found.hindrance is not None
    assert found.hindrance[0] in ("TierNotFound", "TierNotFollowing")
    assert not found.status


# --- what the tier serves ---------------------------------------------------------------------------------------------

TIER = ModelTierSpec.model_validate(
    {
        "model": {"source": "distill://job", "maxModelLen": 256, "servedName": "support"},
        "accelerators": [{"name": "a", "product": "X"}],
        "replicas": 2,
    }
)
JOB: DistillJobSpec = spec(promotion={"tierRef": {"name": "small"}})


@pytest.mark.parametrize(
    ("promotion", "first", "second"),
    [
        (None, "pvc://models/base", None),
        ({"state": "AwaitingApproval"}, "pvc://models/base", None),
        ({"state": "Canary", "weightPermille": 50}, "pvc://models/base", 50),
        ({"state": "Settling", "weightPermille": 1000}, SOURCE, 1000),
        ({"state": "Live", "weightPermille": 1000}, SOURCE, None),
        ({"state": "RolledBack", "weightPermille": 0}, "pvc://models/base", None),
    ],
)
def test_a_tier_serves_what_the_status_means(promotion: dict[str, Any] | None, first: str, second: int | None) -> None:
    status = {"artifact": ARTIFACT, **({"promotion": promotion} if promotion else {})}
    found = followed(TIER, JOB, status)
    assert found.model is not None
    assert (found.model.source, found.model.served_name, found.model.max_model_len) == (first, "support", 256)
    assert found.model.architecture is not None
    assert (found.candidate.weight_permille if found.candidate else None) == second
    if found.candidate:
        assert (found.candidate.model.source, found.candidate.replicas) == (SOURCE, 2)


def test_another_incumbent_is_served_until_then() -> None:
    other = spec(promotion={"incumbent": {**BASE, "source": "pvc://models/before"}})
    found = followed(TIER, other, {})
    assert found.model is not None
    assert found.model.source == "pvc://models/before"


def test_what_says_that_there_is_no_room_is_what_a_tier_says() -> None:
    assert {one.name for one in REASONS} >= NO_ROOM
