"""Two training processes that find one another (gloo, on the CPU): together they do what one does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.train import launch
from tests.train.conftest import MakeTrial, Trial, interrupted


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage finds two devices; its processes find none and take the CPU."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def losses(one: Trial) -> list[float]:
    return [json.loads(line)["ce"] for line in one.folder.read("loss.jsonl").splitlines()]


@pytest.mark.slow
def test_two_processes_share_the_rows_and_resume(trial: MakeTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trial(into="alone")
    alone.run()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    one = trial()
    interrupted(one, 6)
    made = one.run()
    assert made.facts["worldSize"] == 2
    assert 6 <= made.body["notes"]["resumedFrom"] < 10
    assert losses(one) == pytest.approx(losses(alone), rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("two")
def test_what_a_process_ends_with_is_what_the_stage_ends_with(trial: MakeTrial) -> None:
    with pytest.raises(BadData, match="learning rate of 1") as caught:
        trial(learningRateNanos=10**9, epochs=40).run()
    assert caught.value.field == "spec.training.learningRateNanos"


@pytest.mark.usefixtures("two")
def test_processes_that_do_not_find_one_another_do_not_train(trial: MakeTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a launcher's variables are lost: each would train alone, on all rows."""
    monkeypatch.setattr(launch, "wired", lambda rank, task, port: {"RANK": str(rank)})
    with pytest.raises(BadData, match=r"1 processes with \d GPUs each, and not 2") as caught:
        trial().run()
    assert caught.value.reason == "WorldSize"


@pytest.mark.slow
@pytest.mark.usefixtures("two")
def test_a_process_that_is_lost_ends_the_others(trial: MakeTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 1.0)
    one = trial(epochs=400)
    started: list[int] = []
    begun = launch.start
    monkeypatch.setattr(launch, "start", lambda *given: started.append((made := begun(*given)).pid) or made)

    def lose() -> None:
        while one.progress.done < 3:
            time.sleep(0.05)
        os.kill(started[1], signal.SIGKILL)

    threading.Thread(target=lose, daemon=True).start()
    with pytest.raises(TryAgain, match="training processes ended with"):
        one.run()
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
