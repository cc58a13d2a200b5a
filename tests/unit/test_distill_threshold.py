"""A route's threshold goes live and back with the student that it was calibrated for."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.api.routingpolicy import RoutingPolicySpec
from modeltiers.domain.distill import calibration
from modeltiers.domain.distill.threshold import with_threshold
from modeltiers.domain.policy_table import CompiledTable, Fault, TierView, compile_table

TIERS = {name: TierView(name, name) for name in ("small", "large")}


def policy(**confidence: Any) -> RoutingPolicySpec:
    """A cascade whose threshold comes from the job `reader`."""
    accept = {"thresholdPermille": 600, "confidence": {"thresholdFrom": {"distillJob": "reader"}, **confidence}}
    tiers = [{"name": "small"}, {"name": "large"}]
    return RoutingPolicySpec.model_validate({"model": "m", "tiers": tiers, "mode": "Cascade", "accept": accept})


@pytest.mark.parametrize(
    ("state", "found", "counts"),
    [
        (None, 850, 600),
        ("AwaitingApproval", 850, 600),
        ("Canary", 850, 600),
        ("Settling", 850, 850),
        ("Live", 850, 850),
        ("Live", None, 1000),
        ("RolledBack", 850, 600),
    ],
)
def test_it_counts_while_the_student_serves(state: str | None, found: int | None, counts: int) -> None:
    status = {"artifact": {"digest": "d", "thresholdPermille": found}, "promotion": {"state": state}}
    spec = with_threshold(policy(), status)
    assert isinstance(spec, RoutingPolicySpec)
    table = compile_table("p", spec, TIERS, "ns")
    assert isinstance(table, CompiledTable)
    accept = table.document["policies"][0]["accept"]
    assert accept.get("thresholdPermille", 600) == counts
    assert "thresholdFrom" not in accept["confidence"]


def test_a_job_that_is_not_there_is_said() -> None:
    found = with_threshold(policy(), None)
    assert isinstance(found, Fault)
    assert (found.reason, found.path) == ("DistillJobNotFound", "spec.accept.confidence.thresholdFrom")


def test_settings_other_than_those_of_the_calibration_are_refused() -> None:
    found = with_threshold(policy(quantilePermille=50), {})
    assert isinstance(found, Fault)
    assert "quantilePermille" in found.message


def test_students_are_calibrated_with_what_policies_have_by_default() -> None:
    spec = policy()
    assert spec.accept is not None
    assert spec.accept.confidence is not None
    assert calibration.CONFIDENCE.quantile_permille == spec.accept.confidence.quantile_permille
    assert calibration.CONFIDENCE.top == spec.accept.confidence.top
    assert spec.accept.prior_permille == calibration.PRIOR
