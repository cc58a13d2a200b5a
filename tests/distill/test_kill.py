"""The generator killed at random: equal answers, nothing paid for twice that was durable, and the doubt has a bound.

Real processes and a real server in another one, which has every request on record.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from modeltiers.distill.ledger import Ledger
from modeltiers.domain.distill.requests import Sampling, requests_of
from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import Job, local, row
from tests.distill.teacher import MODEL

CONCURRENCY = 8
ROWS = [row(number) for number in range(160)]
KILLS = 4


def ledger(job: Job) -> Ledger:
    """The ledger as it lies in the store."""
    (name,) = {shard.split("/")[0] for shard in job.shards()}
    return Ledger.read(job.store.sub(f"ledger/{name}"), "demo", "Generate")


def wire_hashes() -> dict[str, str]:
    """The server's hash of each request, by the ledger's key."""
    requests = [request for one in ROWS for request in requests_of(MODEL, one, Sampling(0, 512), 1)]
    return {
        request.key: hashlib.sha256(json.dumps(json.loads(request.body), sort_keys=True).encode()).hexdigest()
        for request in requests
    }


def kill_while_asking(job: Job, folder: Path, dice: random.Random) -> bool:
    """Start the program, and kill it somewhere between its first request and its end; False: it was done before."""
    before = len(job.teacher.asked())
    process = job.start(folder)
    while len(job.teacher.asked()) == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(dice.uniform(0, 0.3))
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_killed_at_random_it_ends_as_if_it_had_not_been(job: Job, tmp_path: Path, seed: int) -> None:
    """Some kills, then to the end."""
    kill_and_go_on(job, tmp_path, seed)


def kill_and_go_on(job: Job, tmp_path: Path, seed: int) -> None:
    """Kill the generator some times, let it end, and hold what came of it against a run of one piece."""
    dice = random.Random(seed)  # noqa: S311 - moments to kill at
    job.spec["generation"] = {"concurrency": CONCURRENCY}
    job.teacher.misbehave(seconds=0.02)
    job.split(ROWS)
    hashes, doubt = wire_hashes(), 0
    for _ in range(KILLS):
        before = len(job.teacher.asked())
        durable = {hashes[key] for key in ledger(job).replies} if job.shards() else set()
        killed = kill_while_asking(job, tmp_path, dice)
        assert not durable & {one["hash"] for one in job.teacher.asked()[before:]}
        if not killed:
            break
        now = ledger(job).spent.in_doubt if job.shards() else 0
        assert now - doubt <= CONCURRENCY
        doubt = now
    before = len(job.teacher.asked())
    durable = {hashes[key] for key in ledger(job).replies}
    assert job.start(tmp_path).wait(60) == 0
    asked = job.teacher.asked()
    assert not durable & {one["hash"] for one in asked[before:]}
    said = json.loads((tmp_path / "result.json").read_text())
    times = Counter(one["hash"] for one in asked)
    assert set(times) == set(hashes.values())
    assert sum(times.values()) - len(times) <= said["spend"]["inDoubt"] == doubt

    whole = Job(local(tmp_path / "whole"), job.teacher, job.spec).split(ROWS)
    whole.generate()
    assert whole.sha256() == job.sha256()


def test_asked_to_end_the_program_says_try_again(job: Job, tmp_path: Path) -> None:
    """SIGTERM: nothing is in doubt, and the next attempt goes on."""
    job.spec["generation"] = {"concurrency": CONCURRENCY}
    job.teacher.misbehave(seconds=0.1)
    job.split(ROWS)
    process = job.start(tmp_path)
    while not job.teacher.asked():
        time.sleep(0.01)
    process.terminate()
    assert process.wait(30) == 75
    said = json.loads((tmp_path / "result.json").read_text())
    assert said["outcome"] == "Interrupted"
    assert said["spend"]["inDoubt"] == 0
    assert said["spend"]["answerTokens"] == len(job.teacher.asked()) > 0
    assert job.start(tmp_path).wait(60) == 0
    assert len(job.teacher.asked()) == len(ROWS)


def test_an_evaluation_goes_on_after_a_kill(job: Job, tmp_path: Path) -> None:
    """By the same ledger."""
    job.teacher.misbehave(seconds=0.05)
    job.spec["evaluation"] = {"concurrency": CONCURRENCY}
    job.split([row(1)], evaluation=ROWS, redTeam=[row(999)])
    process = job.start(tmp_path, Stage.EVALUATE_TEACHER)
    while len(job.teacher.asked()) < 60:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert job.start(tmp_path, Stage.EVALUATE_TEACHER).wait(60) == 0
    said = json.loads((tmp_path / "result.json").read_text())
    assert (said["facts"]["score"], said["facts"]["n"]) == (1000, len(ROWS))
    assert len(job.teacher.asked()) - len(ROWS) - 1 <= said["spend"]["inDoubt"] <= CONCURRENCY


def test_a_full_disk_loses_nothing(job: Job, tmp_path: Path) -> None:
    """The path is named, and with room again it goes on."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    job.split(ROWS)
    assert job.start(tmp_path, preexec_fn=small).wait(60) == 75
    said = json.loads((tmp_path / "result.json").read_text())
    assert job.store.path in said["message"]
    assert "File too large" in said["message"]
    assert said["spend"]["inDoubt"] <= CONCURRENCY
    durable = {wire_hashes()[key] for key in ledger(job).replies}
    assert durable
    before = len(job.teacher.asked())
    assert job.start(tmp_path).wait(60) == 0
    assert not durable & {one["hash"] for one in job.teacher.asked()[before:]}
