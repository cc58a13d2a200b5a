"""What events say and no object does."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.domain.event_words import refusal_in, setup_error_in


def event(reason: str, at: str, **more: Any) -> dict[str, Any]:
    return {"reason": reason, "message": f"{reason} at {at}", "lastTimestamp": at, **more}


def test_the_last_word_of_a_jobs_controller_counts() -> None:
    refused, made = event("FailedCreate", "2026-11-27T11:00:00Z"), event("SuccessfulCreate", "2026-11-27T11:00:05Z")
    assert refusal_in([]) == ""
    assert refusal_in([refused]) == "FailedCreate at 2026-11-27T11:00:00Z"
    assert refusal_in([made, refused]) == ""
    again = {**refused, "lastTimestamp": None, "series": {"lastObservedTime": "2026-11-27T11:00:09.000001Z"}}
    assert refusal_in([made, again]) == refused["message"]
    assert refusal_in([made, {**refused, "lastTimestamp": None}]) == ""


@pytest.mark.parametrize("reason", ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"])
def test_a_pod_that_is_not_set_up(reason: str) -> None:
    placed, failed = event("Scheduled", "2026-11-27T11:00:00Z"), event(reason, "2026-11-27T11:00:02Z")
    assert setup_error_in([placed, failed]) == failed["message"]
    assert setup_error_in([placed, failed, event("Pulling", "2026-11-27T11:00:04Z")]) == ""
    assert refusal_in([placed, failed]) == ""
