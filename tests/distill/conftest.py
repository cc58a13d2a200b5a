"""A teacher that forgets between tests, and a job that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distill.kit import Job, TeacherProcess, local, teacher


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
    return Job(local(tmp_path / "store"), server)
