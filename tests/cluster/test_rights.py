"""The operator has no right that it does not use: judged by the audit logs, after all other tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.rights import granted, used


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The audit logs of all clusters of this session."""
    found = sorted(tmp_path_factory.getbasetemp().glob("*/logs/audit.log"))
    return [log for log in found if not log.parents[1].is_symlink()]


def test_nothing_is_used_that_is_not_granted(logs: list[Path]) -> None:
    assert used(logs) <= granted() | granted(by_user=True)


def test_everything_that_is_granted_is_used(logs: list[Path], whole_suite: bool) -> None:
    """A right that no test needs is taken from the operator, or gets a test that needs it."""
    if not whole_suite:
        pytest.skip("only the whole of tests/cluster uses every right")
    assert granted() - used(logs) == set()
