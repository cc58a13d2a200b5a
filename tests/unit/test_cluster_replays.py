"""The files in `e2e/cluster/replays` and what becomes of them."""

import re
from pathlib import Path

import pytest
import yaml

from e2e.cluster import replays
from e2e.cluster.replays import Replay
from e2e.cluster.report import HarnessError

CASES = replays.load()
EXPECTED = {
    "container-create-config-error",
    "crash-loop",
    "disk-full",
    "engine-exit-zero",
    "err-image-pull-denied",
    "evicted-ephemeral-storage",
    "gated-model",
    "gpu-memory-busy",
    "gpu-oom",
    "heads-not-divisible",
    "host-oom",
    "image-pull-backoff",
    "invalid-image-name",
    "kv-too-small",
    "rejected-flag",
    "secret-not-mounted",
    "startup-slow",
    "unknown-model",
    "unknown-revision",
}
VALID = {
    "case": "sample",
    "source": "recorded",
    "about": "a sample",
    "status": {"phase": "Running", "conditions": [], "containerStatuses": [{"state": {"waiting": {}}}]},
}


def test_the_cases_are_all_there() -> None:
    """The controller's tests name them."""
    assert {case.case for case in CASES} == EXPECTED


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_a_case_says_how_truthful_it_is(case: Replay) -> None:
    """Written by hand and recorded are different things, and each file says which it is."""
    assert case.source.startswith(("recorded ", "written from kubelet's documented status fields"))
    assert case.about


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_a_container_that_is_no_longer_starting_says_in_one_state_why(case: Replay) -> None:
    """A kubelet fills exactly one of waiting, running and terminated."""
    status = case.status["containerStatuses"][0]
    assert len(status["state"]) == 1
    message = status.get("lastState", {}).get("terminated", {}).get("message", "")
    assert len(message) <= 2048  # what kubelet keeps of a log


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_a_template_leaves_nothing_of_ours(case: Replay) -> None:
    """Every placeholder is either kwok's to fill or a mistake."""
    text = replays.template(case)
    assert "${" not in text
    assert "@now" not in text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"extra": 1}, "exactly the fields"),
        ({"case": "other"}, "the file's name says 'sample'"),
        ({"status": VALID["status"] | {"phase": "Broken"}}, "status.phase is 'Broken'"),  # type: ignore[operator]  # both are dicts
        ({"status": {"phase": "Running", "containerStatuses": []}}, "wants one entry"),
        ({"status": {"phase": "Running", "containerStatuses": [{"name": "x"}]}}, "come from the pod"),
    ],
)
def test_a_wrong_file_is_refused_by_field(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    """The error names the file and the field."""
    path = tmp_path / "sample.yaml"
    path.write_text(yaml.safe_dump(VALID | change))
    with pytest.raises(HarnessError, match=re.escape(complaint)):
        replays.parse(path)
