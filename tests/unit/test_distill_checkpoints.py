"""Checkpoints are whole or moved aside, in a folder and in a store that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from modeltiers.distill.faults import TryAgain
from modeltiers.distill.store import Folder, open_store
from modeltiers.distill.train.checkpoints import ASIDE, FOLDER, Checkpoints, full_disk


@pytest.fixture(params=["volume", "elsewhere"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A stage's folder on a volume, and in a store that only fsspec reaches."""
    if request.param == "volume":
        return open_store(str(tmp_path / "store"))
    return Folder(MemoryFileSystem(), f"/{tmp_path.name}/store")


@pytest.fixture
def checkpoints(folder: Folder, tmp_path: Path) -> Checkpoints:
    made = Checkpoints(folder, tmp_path / "scratch")
    assert made.newest() is None
    return made


def written(checkpoints: Checkpoints, step: int) -> Path:
    """What the trainer writes."""
    place = checkpoints.here / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"w" * step)
    (place / "state").write_text(str(step))
    return place


def again(checkpoints: Checkpoints, tmp_path: Path) -> Checkpoints:
    """As the next process finds them: its own scratch folder is empty."""
    return Checkpoints(checkpoints.folder, tmp_path / "another")


def test_the_newest_whole_one_is_found_by_the_next_process(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (5, 10):
        written(checkpoints, step)
        checkpoints.seal(step)
    later = again(checkpoints, tmp_path)
    found = later.newest()
    assert found is not None
    assert (found.name, (found / "state").read_text(), (found / "weights").stat().st_size) == (
        "checkpoint-10",
        "10",
        10,
    )
    assert later.quarantined == []


def test_at_most_two_are_kept(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 15):
        written(checkpoints, step)
        checkpoints.seal(step)
    tops = {name.split("/")[1] for name in checkpoints.folder.names()}
    assert tops == {"checkpoint-10", "checkpoint-15"}
    assert {path.name for path in checkpoints.here.iterdir()} == tops


@pytest.mark.parametrize("cut", ["mark", "short", "missing", "more"])
def test_one_that_was_cut_off_is_moved_aside(checkpoints: Checkpoints, tmp_path: Path, cut: str) -> None:
    for step in (5, 10):
        written(checkpoints, step)
        checkpoints.seal(step)
    last = checkpoints.folder.sub(f"{FOLDER}/checkpoint-10")
    if cut == "mark":
        last.drop("whole.json")
    elif cut == "missing":
        last.drop("state")
    else:
        last.write("weights" if cut == "short" else "another", b"w")
    later = again(checkpoints, tmp_path)
    found = later.newest()
    assert found is not None
    assert found.name == "checkpoint-5"
    assert later.quarantined == ["checkpoint-10"]
    assert any(name.startswith(f"{FOLDER}/{ASIDE}/checkpoint-10/") for name in later.folder.names())
    assert again(checkpoints, tmp_path).quarantined == []


def test_only_the_last_one_cut_off_is_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (5, 10):
        written(checkpoints, step)
        checkpoints.seal(step)
        checkpoints.folder.sub(f"{FOLDER}/checkpoint-{step}").drop("whole.json")
    later = again(checkpoints, tmp_path)
    assert later.newest() is None
    assert later.quarantined == ["checkpoint-10", "checkpoint-5"]
    aside = {name.split("/")[2] for name in later.folder.names() if name.startswith(f"{FOLDER}/{ASIDE}/")}
    assert aside == {"checkpoint-5"}


def test_what_the_trainer_began_but_never_sealed_is_no_checkpoint(checkpoints: Checkpoints) -> None:
    (checkpoints.here / "checkpoint-5").mkdir(parents=True)
    if checkpoints.folder.local is not None:
        assert checkpoints.newest() is None
        assert checkpoints.quarantined == ["checkpoint-5"]


def test_when_training_is_complete_all_go(checkpoints: Checkpoints) -> None:
    written(checkpoints, 5)
    checkpoints.seal(5)
    checkpoints.clear()
    assert checkpoints.folder.names() == []


@pytest.mark.parametrize(
    "fault",
    [OSError(28, "No space left on device"), RuntimeError("SafetensorError: I/O error: No space left (os error 28)")],
)
def test_a_full_disk_is_named(tmp_path: Path, fault: Exception) -> None:
    with pytest.raises(TryAgain, match=f"{tmp_path}: no space left"), full_disk(tmp_path):
        raise fault


def test_another_fault_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), full_disk(tmp_path):
        raise RuntimeError("wrong shape")
