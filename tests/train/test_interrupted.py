"""Killed, told to end, cut off while a checkpoint is written: the student is the same, bit by bit, as without."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from modeltiers.distill.faults import TryAgain
from modeltiers.distill.manifest import Manifest
from modeltiers.distill.run import run_stage
from modeltiers.distill.stage import Progress
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.stages import Stage
from tests.train.conftest import MakeTrial, StopsAt, Trial, interrupted, make_trial

PATIENCE = 120.0
STEPS = 60
LONG = {"epochs": 12, "checkpointSteps": 7}  # 60 steps


@pytest.fixture(scope="module")
def uninterrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes out when nothing happens."""
    return make_trial(base, tmp_path_factory.mktemp("uninterrupted"), **LONG).run().body


@pytest.fixture
def started() -> Iterator[Callable[[Trial], tuple[subprocess.Popen[bytes], int]]]:
    """Start trials as processes; what still runs at the end is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def start(one: Trial) -> tuple[subprocess.Popen[bytes], int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        running.append(one.start(port=port))
        return running[-1], port

    yield start
    for process in running:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], port: int, step: int) -> int:
    """Wait until so many steps are done, and return how many there are then."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
                progress = json.load(answer)["progress"]
        except (URLError, ConnectionError, TimeoutError):
            progress = {}
        if progress.get("unit") == "steps" and progress["done"] >= step:
            return int(progress["done"])
        time.sleep(0.005)
    raise AssertionError(f"no step {step}; exit code {process.poll()}")


def checkpoints(one: Trial) -> list[int]:
    folder = one.local / "checkpoints"
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))


def killed_at_random(one: Trial, start: Callable[[Trial], tuple[subprocess.Popen[bytes], int]], seed: int) -> None:
    process, port = start(one)
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    wait_for(process, port, dice.randrange(1, STEPS - 10))
    time.sleep(dice.random() * 0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, one.log
    assert not one.folder.has("manifest.json")


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_a_random_step(
    trial: MakeTrial,
    started: Callable[[Trial], tuple[subprocess.Popen[bytes], int]],
    uninterrupted: dict[str, Any],
    seed: int,
) -> None:
    one = trial(**LONG)
    killed_at_random(one, started, seed)
    made = one.run().body
    assert made["outputs"] == uninterrupted["outputs"]
    assert made["output"] == uninterrupted["output"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_killed_at_one_of_twenty_random_steps(
    trial: MakeTrial,
    started: Callable[[Trial], tuple[subprocess.Popen[bytes], int]],
    uninterrupted: dict[str, Any],
    seed: int,
) -> None:
    one = trial(**LONG, **({"lora": {"rank": 4, "alpha": 8}} if seed % 4 == 0 else {}))
    expected = uninterrupted if seed % 4 else trial(into="low", lora={"rank": 4, "alpha": 8}, **LONG).run().body
    killed_at_random(one, started, seed)
    made = one.run().body
    assert made["outputs"] == expected["outputs"]


def test_told_to_end_it_keeps_the_step_it_came_to_and_says_try_again(
    trial: MakeTrial, started: Callable[[Trial], tuple[subprocess.Popen[bytes], int]], uninterrupted: dict[str, Any]
) -> None:
    one = trial(**LONG)
    process, port = started(one)
    wait_for(process, port, 15)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == TryAgain.code, one.log
    assert (one.result["outcome"], one.result["code"]) == ("Interrupted", 75)
    last = checkpoints(one)[-1]
    assert f"interrupted at step {last} of {STEPS}" in one.result["message"]
    assert 15 <= last < STEPS
    made = one.run()
    assert made.body["notes"]["resumedFrom"] == last
    assert made.body["outputs"] == uninterrupted["outputs"]


@pytest.mark.parametrize(
    "cut",
    [
        lambda folder: (folder / "whole.json").unlink(),
        lambda folder: (folder / "whole.json").write_text('{"model.saf'),
        lambda folder: (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:1000]),
        lambda folder: (folder / "rng_state.pth").unlink(),
    ],
    ids=["mark", "half-mark", "short", "missing"],
)
def test_a_checkpoint_that_was_cut_off_is_moved_aside(
    trial: MakeTrial, uninterrupted: dict[str, Any], cut: Callable[[Path], None]
) -> None:
    one = trial(**LONG)
    interrupted(one, 16)
    assert checkpoints(one) == [14, 16]
    cut(one.local / "checkpoints" / "checkpoint-16")
    made = one.run().body
    assert made["notes"] == {"quarantined": ["checkpoint-16"], "resumedFrom": 14}
    assert made["outputs"] == uninterrupted["outputs"]
    assert made["output"] == uninterrupted["output"]
    assert (one.local / "checkpoints" / "quarantine" / "checkpoint-16" / "model.safetensors").exists()


def test_a_second_process_does_not_write_where_the_first_does(trial: MakeTrial) -> None:
    one = trial(**LONG)
    one.local.mkdir(parents=True)
    with (one.local / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TryAgain, match="another process trains there") as caught:
            one.run()
    assert caught.value.reason == "Busy"


def test_in_a_store_that_is_no_folder_it_goes_on_from_what_was_uploaded(
    trial: MakeTrial, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    one = trial(**LONG)
    there = Folder(MemoryFileSystem(), f"/{tmp_path.name}")
    for name in one.prepared.root.names():
        there.write(name, one.prepared.root.read(name))

    def run(progress: Progress, stop: threading.Event) -> Manifest:
        plan, outcomes = one.prepared.plan, one.prepared.outcomes
        return run_stage(plan, there, Stage.TRAIN, outcomes, progress=progress, stop=stop)[0]

    stop = threading.Event()
    stopping = StopsAt(16, stop)
    with pytest.raises(TryAgain):
        run(stopping, stop)
    made = run(Progress(), threading.Event()).body
    assert made["notes"]["resumedFrom"] == 16
    assert made["output"] == uninterrupted["output"]
    assert not [name for name in there.names() if "checkpoint-" in name]


def test_two_checkpoints_are_kept(trial: MakeTrial) -> None:
    one = trial(**LONG)
    interrupted(one, 43)
    assert checkpoints(one) == [42, 43]


def test_adapters_and_soft_targets_go_on_as_well(trial: MakeTrial, base: Path) -> None:
    first = trial(into="first", lora={"rank": 4, "alpha": 8}, **LONG).run().body
    one = trial(lora={"rank": 4, "alpha": 8}, **LONG)
    interrupted(one, 23)
    assert one.run().body["outputs"] == first["outputs"]


def test_what_a_killed_process_left_beside_does_not_matter(trial: MakeTrial, uninterrupted: dict[str, Any]) -> None:
    one = trial(**LONG)
    interrupted(one, 16)
    (one.local / ".scratch").mkdir()
    (one.local / ".scratch" / "rows").write_text("half")
    shutil.copytree(one.local / "checkpoints" / "checkpoint-16", one.local / "model")
    assert one.run().body["outputs"] == uninterrupted["outputs"]
