"""The operator has no right that it does not use: judged after all tests of this folder, by what they left word of.

pytest tests/cluster --rights=FOLDER && pytest tests/cluster/test_rights.py --rights=FOLDER
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.rights import Right, granted


@pytest.fixture(scope="module")
def rights(pytestconfig: pytest.Config) -> set[Right]:
    """What operators used in the runs that left word."""
    folder = pytestconfig.getoption("--rights")
    if folder is None:
        pytest.skip("only the whole of tests/cluster uses every right: `make cluster-test` looks")
    found = list(Path(folder).glob("*.json"))
    assert found
    return {(verb, resource) for file in found for verb, resource in json.loads(file.read_text())}


def test_nothing_is_used_that_is_not_granted(rights: set[Right]) -> None:
    assert rights <= granted() | granted(by_user=True)


def test_everything_that_is_granted_is_used(rights: set[Right]) -> None:
    """A right that no test needs is taken from the operator, or gets a test that needs it."""
    assert granted() - rights == set()
