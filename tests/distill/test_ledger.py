"""The ledger's files: what is half written, what is damaged, whose money it was, and a store that is no file system."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from obstore.fsspec import FsspecStore

from modeltiers.distill import ledger as ledgers
from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.ledger import Ledger, Served
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.replies import Answer
from modeltiers.domain.distill.spend import Tokens
from tests.distill.kit import Job, local, row

MOST = Tokens(20, 512)


def answer(text: str) -> Answer:
    """A reply."""
    return Answer({"message": {"content": text}, "finish_reason": "stop"}, "teacher-1", "fp", (10, 2))


async def keep(folder: Folder, keys: range, job: str = "demo", stage: str = "Generate") -> Ledger:
    """A ledger with a reply to each of these, and one request whose end nobody saw."""
    found = Ledger.read(folder, job, stage)
    async with found.writing():
        for key in keys:
            await found.intent(f"k{key}", MOST)
            await found.answered(f"k{key}", answer(f"a{key}"), Tokens(10, 2))
        await found.intent("open", MOST)
    return found


async def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Replies, sums, who answered first, and what is in doubt."""
    folder = local(tmp_path)
    written = await keep(folder, range(5))
    read = Ledger.read(folder, "demo", "Generate")
    assert read.served == Served("teacher-1", "fp")
    assert read.spent == written.spent
    assert read.spent.tokens == Tokens(50, 10)
    assert (read.spent.in_doubt, read.spent.doubtful) == (1, MOST)
    found = read.reply("k3")
    assert found is not None
    assert found["choice"]["message"]["content"] == "a3"
    assert read.reply("open") is None
    assert not read.known("open")


async def test_it_goes_over_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may begin in one shard and end in the next; that is no doubt."""
    monkeypatch.setattr(ledgers, "VOLUME_SHARD", 200)
    folder = local(tmp_path)
    await keep(folder, range(50))
    assert len(folder.names()) > 10
    read = Ledger.read(folder, "demo", "Generate")
    assert read.spent.in_doubt == 1
    assert len(read.replies) == 50
    assert all(read.reply(f"k{number}") for number in range(50))


async def test_other_jobs_answers_are_shared_and_their_money_is_not(tmp_path: Path) -> None:
    """In one store."""
    folder = local(tmp_path)
    await keep(folder, range(5), job="other")
    await keep(folder, range(5, 7), stage="EvaluateTeacher")
    mine = Ledger.read(folder, "demo", "Generate")
    assert len(mine.replies) == 7
    assert mine.spent.tokens == Tokens(20, 4)
    assert mine.spent.in_doubt == 1


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
async def test_a_half_written_last_line_is_in_doubt(tmp_path: Path, cut: int) -> None:
    """The reply that was being written is asked for again."""
    folder = local(tmp_path)
    found = Ledger.read(folder, "demo", "Generate")
    async with found.writing():
        for key in ("a", "b"):
            await found.intent(key, MOST)
            await found.answered(key, answer(key), Tokens(10, 2))
    (name,) = folder.names()
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-cut])
    read = Ledger.read(folder, "demo", "Generate")
    assert read.known("a")
    assert not read.known("b")
    assert read.spent.in_doubt == 1
    assert read.spent.tokens == Tokens(10, 2)


@pytest.mark.parametrize(
    "rubbish", [b"{not json}\n", b"\0\0\0\n", b"[]\n", b'{"is":"reply"}\n', b'{"is":"?","key":"k"}\n']
)
async def test_a_damaged_line_is_named(tmp_path: Path, rubbish: bytes) -> None:
    """Somebody changed the file: shard and line are told, and nothing is asked."""
    folder = local(tmp_path)
    await keep(folder, range(5))
    (name,) = folder.names()
    lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
    (tmp_path / name).write_bytes(b"".join([*lines[:3], rubbish, *lines[4:]]))
    with pytest.raises(BadData, match=f"{name}, line 4 is damaged") as caught:
        Ledger.read(folder, "demo", "Generate")
    assert caught.value.reason == "LedgerDamaged"


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """What a file system or a person put there."""
    folder = local(tmp_path)
    await keep(folder, range(5))
    (tmp_path / "notes.txt").write_text("hello")
    assert len(Ledger.read(folder, "demo", "Generate").replies) == 5


async def test_a_disk_that_fails_fails_whoever_waits(tmp_path: Path) -> None:
    """And everything after: what was half written is not written on."""
    folder = local(tmp_path / "gone")
    found = Ledger.read(folder, "demo", "Generate")
    (tmp_path / "gone").write_text("a file where the folder would be")
    async with found.writing():
        with pytest.raises(TryAgain, match="gone"):
            await asyncio.gather(*(found.intent(f"k{number}", MOST) for number in range(3)))
        with pytest.raises(TryAgain, match="gone"):
            await found.intent("later", MOST)


def bucket() -> Folder:
    """A store that is no file system, through the library that S3 is reached with."""
    return Folder(FsspecStore("memory"), "/bucket/job")


async def test_an_object_store_keeps_a_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that grows is uploaded anew; a full one is left."""
    monkeypatch.setattr(ledgers, "BUCKET_SHARD", 400)
    monkeypatch.setattr(ledgers, "BUCKET_SECONDS", 0.01)
    folder = bucket()
    await keep(folder, range(10))
    assert len(folder.names()) > 2
    read = Ledger.read(folder, "demo", "Generate")
    assert len(read.replies) == 10
    assert all(read.reply(f"k{number}") for number in range(10))


async def test_uploads_are_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in so many seconds, however many records come, unless very many wait."""
    uploads: list[float] = []
    folder = bucket()
    monkeypatch.setattr(Folder, "write", lambda *_: uploads.append(time.monotonic()))
    found = Ledger.read(folder, "demo", "Generate")

    async def one(number: int) -> None:
        await asyncio.sleep(number * 0.01)
        await found.intent(f"k{number}", MOST)

    began = time.monotonic()
    async with found.writing():
        await asyncio.gather(*(one(number) for number in range(60)))
    assert 2 <= len(uploads) <= (time.monotonic() - began) / ledgers.BUCKET_SECONDS + 2


@pytest.mark.parametrize("seed", range(2))
def test_what_an_object_store_has_at_any_moment_is_enough_to_go_on(job: Job, seed: int) -> None:
    """The store as it is somewhere in the middle is what a kill leaves: the doubt has its bound, and nothing that is in
    it is asked again."""
    dice = random.Random(seed)  # noqa: S311 - moments to look at
    fsspec.filesystem("memory").store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    job.store = Folder(MemoryFileSystem(), "/bucket/demo")
    job.spec["generation"] = {"concurrency": 8}
    job.teacher.misbehave(seconds=0.02)
    job.split([row(number) for number in range(100)])
    stop, failed = threading.Event(), list[Any]()

    def work() -> None:
        try:
            job.generate(stop=stop)
        except TryAgain as fault:
            failed.append(fault)

    running = threading.Thread(target=work)
    running.start()
    while not job.teacher.asked():
        time.sleep(0.01)
    time.sleep(dice.uniform(0.0, 1.0))
    left = {path: bytes(file.getvalue()) for path, file in list(MemoryFileSystem.store.items())}
    stop.set()
    running.join()
    seen = len(job.teacher.asked())

    MemoryFileSystem.store.clear()
    for path, content in left.items():
        job.store.fs.pipe_file(path, content)
    shards = {shard.split("/")[0] for shard in job.shards()}
    ledger = Ledger.read(job.store.sub(f"ledger/{shards.pop()}"), "demo", "Generate")
    assert ledger.spent.in_doubt <= 8
    result = job.generate()
    assert result.facts["answered"] == 100
    assert len(job.teacher.asked()) - seen == 100 - len(ledger.replies)
    assert result.spend["inDoubt"] == ledger.spent.in_doubt
