"""A teacher that forgets between tests, and a job that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import canaries
from tests.distill.kit import KEY_FILE, LOG, Job, TeacherProcess, local, teacher


@pytest.fixture(scope="session", autouse=True)
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of all, nothing that stages wrote shows the teacher's key, and their logs and results no prompt."""
    yield
    base = tmp_path_factory.getbasetemp()
    seen = canaries.in_files(base, [canaries.KEY], but=[*base.rglob(KEY_FILE), *base.rglob("asked.jsonl")])
    for name in (LOG, "result.json", "manifest.json"):
        seen += canaries.in_files(base, names=name)
    assert seen == []


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeacherProcess]:
    """A teacher in a process of its own."""
    with teacher(tmp_path_factory.mktemp("teacher") / "asked.jsonl") as found:
        yield found


@pytest.fixture
def server(running: TeacherProcess) -> TeacherProcess:
    """The teacher, which was asked nothing yet."""
    running.forget()
    return running


@pytest.fixture
def job(tmp_path: Path, server: TeacherProcess) -> Job:
    """A job on a volume, with the teacher to ask."""
    key = tmp_path / KEY_FILE
    key.write_text(canaries.KEY)
    return Job(local(tmp_path / "store"), server, target={"keyFile": str(key)})
