"""What is made of a stage's Job: when it stays, and when it has to go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from modeltiers.domain.distill.job import JobView, Report, is_over
from modeltiers.domain.views import ContainerView, PodView

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
JOB = JobView("job", "uid", digest="d", plan="p", retry="", ended="2026-11-27T11:00:00Z")
DONE = {"complete": True}
SAID = Report("Complete", {"digest": "d"})
GIVEN_UP = {"failure": "BackoffLimitExceeded: too often"}


def over(
    job: dict[str, Any],
    report: Report | None = None,
    *phases: str,
    suspended: bool = False,
    plan: str = "p",
    wanted: str | None = None,
    began: str = "",
) -> bool:
    seen = JobView(**{**{name: getattr(JOB, name) for name in JobView.__slots__}, **job})
    inside = (ContainerView("stage", running_since=began),)
    pods = [PodView(str(number), phase=phase, containers=inside) for number, phase in enumerate(phases)]
    return is_over(seen, report, pods, suspended=suspended, plan=plan, retry="", wanted=wanted, now=NOW)


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_job_that_is_complete_before_its_pod_is_seen_to_end_is_waited_for(phase: str) -> None:
    assert not over(DONE, None, phase)
    assert not over(DONE, None, "Failed", phase)


def test_a_complete_job_of_which_no_word_is_left_is_run_again() -> None:
    assert over(DONE, None, "Succeeded")
    assert over(DONE, None)
    assert over(DONE, Report("Complete", {"digest": "another"}), "Succeeded")


def test_it_is_not_run_again_at_once() -> None:
    """What hides the word of one pod may hide that of the next, and a Job a second helps nobody."""
    assert not over({**DONE, "ended": "2026-11-27T11:59:01Z"}, None, "Succeeded")
    assert over({**DONE, "ended": "2026-11-27T11:59:00Z"}, None, "Succeeded")


def test_a_complete_job_that_said_what_came_of_it_stays() -> None:
    assert not over(DONE, SAID, "Succeeded")
    assert not over(DONE, SAID, "Succeeded", suspended=True)


def test_suspended_stops_what_runs_and_leaves_what_failed() -> None:
    assert over({}, None, "Running", suspended=True)
    assert not over(GIVEN_UP, None, "Failed", suspended=True)


def test_a_failed_job_goes_once_its_plan_is_another_or_it_is_to_be_retried() -> None:
    assert not over(GIVEN_UP, None, "Failed")
    assert over(GIVEN_UP, None, "Failed", plan="another")
    assert over({**GIVEN_UP, "retry": "then"}, None, "Failed")
    assert not over({}, None, "Running")


def test_a_job_of_which_nothing_has_begun_is_made_anew_when_it_would_be_another() -> None:
    waits = {"applied": "old", "active": 1}
    assert over(waits, None, wanted="new")
    assert over(waits, None, "Pending", wanted="new")
    assert not over(waits, None, "Pending", wanted="old")
    assert not over(waits, None, "Pending", wanted=None)  # what it would be is not known
    assert not over({"active": 1}, None, "Pending", wanted="new")  # made by a version that noted nothing
    assert not over(waits, None, "Running", wanted="new", began="2026-11-27T11:59:00Z")
    assert not over(waits, None, "Pending", wanted="new", began="2026-11-27T11:59:00Z")  # an init container works
