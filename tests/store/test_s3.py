"""Stages over a real S3 server: what a volume promises holds there too."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from e2e.cluster.process import wait_until
from modeltiers.distill import snapshot
from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.store import Folder, open_store
from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import Job, TeacherProcess, address
from tests.distill.test_chain import go_through
from tests.distill.test_kill import CONCURRENCY, ROWS, kill_and_go_on
from tests.store.conftest import BUCKET, S3


def test_a_file_is_there_whole_and_is_what_was_written(store: Folder, tmp_path: Path) -> None:
    """Small in one piece, large in parts; a folder's names; another place; gone."""
    large = os.urandom((12 << 20) + 5)
    store.write("a/small", b"x")
    with store.writing("a/b/large") as out:
        for start in range(0, len(large), 1 << 20):
            out.write(large[start : start + (1 << 20)])
    assert store.sub("a").names() == ["b/large", "small"]
    assert store.facts("a/b/large").sha256 == hashlib.sha256(large).hexdigest()
    assert store.size("a/b/large") == len(large)
    store.move("a", "c")
    assert store.names() == ["c/b/large", "c/small"]
    assert not store.has("a/small")
    store.drop("c")
    assert store.names() == []


def test_a_file_that_was_given_up_is_not_there(store: Folder) -> None:
    with pytest.raises(RuntimeError), store.writing("half") as out:
        out.write(b"x" * (12 << 20))
        raise RuntimeError
    assert not store.has("half")


def test_stages_go_through_and_find_it_all_again(store: Folder, teacher: TeacherProcess, tmp_path: Path) -> None:
    go_through(teacher, store, tmp_path)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_killed_at_random_it_ends_as_if_it_had_not_been(job: Job, tmp_path: Path, seed: int) -> None:
    kill_and_go_on(job, tmp_path, seed)


def test_a_server_that_goes_away_costs_a_try_and_nothing_that_was_paid_for(job: Job, s3: S3, tmp_path: Path) -> None:
    """The stage ends with the code that asks for another try, and that one goes on."""
    job.spec["generation"] = {"concurrency": CONCURRENCY}
    job.teacher.misbehave(seconds=0.05)
    job.split(ROWS)
    process = job.start(tmp_path)
    wait_until(lambda: len(job.teacher.asked()) >= 20, "some questions", 60, poll=0.02)
    s3.kill()
    assert process.wait(120) == 75
    said = json.loads((tmp_path / "result.json").read_text())
    assert BUCKET in said["message"]
    asked = len(job.teacher.asked())
    assert 0 < asked < len(ROWS)
    s3.start()
    assert job.start(tmp_path).wait(120) == 0
    again = len(job.teacher.asked()) - len(ROWS)
    assert 0 <= again <= json.loads((tmp_path / "result.json").read_text())["spend"]["inDoubt"] <= CONCURRENCY


def test_a_key_that_is_not_known_is_said_and_names_the_field(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BadData, match="s3SecretAccessKeyRef"):
        open_store(f"s3://{BUCKET}/x").write("a", b"x")


def test_a_bucket_that_is_not_there_is_said(s3: S3) -> None:
    with pytest.raises(BadData, match="nowhere"):
        open_store("s3://nowhere/x").write("a", b"x")


def test_a_server_that_does_not_answer_is_tried_again(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TryAgain):
        open_store(f"s3://{BUCKET}/x").has("a")


def test_rows_come_from_a_bucket(job: Job, store: Folder) -> None:
    """A file, or the *.jsonl of a folder."""
    for name, first in (("a", 0), ("b", 10)):
        rows = [{"messages": [{"role": "user", "content": f"{first + one}?"}], "expected": one} for one in range(10)]
        store.write_rows(f"rows/{name}.jsonl", rows)
    store.write("rows/readme.txt", b"no row")
    for place, count in (("rows", 20), ("rows/b.jsonl", 10)):
        job.plan_more = {"sources": {"rows": f"{address(store)}/{place}"}}
        assert snapshot.run(job.work(Stage.SNAPSHOT)).facts["rows"] == count
