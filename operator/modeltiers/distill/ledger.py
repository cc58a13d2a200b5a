"""The ledger of what a model was asked and answered: append-only shards of JSON lines, from which nothing is lost.

That a request is about to be sent is durable before it is sent, and its reply is durable before it counts. So what was
answered is never asked again, and what a kill leaves in doubt is known: requests with a beginning and no end.
Several records become durable at once (group commit): one fsync on a volume, one upload to S3.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from modeltiers.distill.faults import BadData
from modeltiers.distill.store import Folder, reaching, sync_folder
from modeltiers.domain.distill.replies import Answer
from modeltiers.domain.distill.spend import NONE, Tokens

VOLUME_SHARD: Final = 8 << 20
"""Bytes after which a new shard is begun on a volume."""
BUCKET_SHARD: Final = 128 << 10
"""The same on S3, where a shard that grows is uploaded anew as a whole."""
BUCKET_SECONDS: Final = 0.05
"""Seconds between two uploads to S3, unless BUCKET_RECORDS wait: so long a reply is not yet durable there."""
BUCKET_RECORDS: Final = 64
AHEAD: Final = 8
"""Shards that are read at once."""
CACHED: Final = 8
"""Shards kept in memory while answers are read back."""

_NAME: Final = re.compile(
    r"(?P<name>(?P<job>[A-Za-z0-9-]+)\.(?P<stage>[A-Za-z]+)\.[0-9]+-(?P<process>[0-9a-f]{8})\.jsonl)"
)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reply lies."""

    shard: str
    start: int
    end: int


@dataclass(slots=True)
class Spent:
    """What a job spent on a model, over all stages and attempts."""

    tokens: Tokens = NONE
    in_doubt: int = 0
    """Requests that may have been paid for with nothing to show for it."""
    doubtful: Tokens = NONE
    """The most that those can have taken."""


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered first."""

    model: str
    fingerprint: str | None


class Shard(Protocol):
    """A file that is being appended to."""

    name: str

    @property
    def size(self) -> int:
        """Bytes so far."""

    def append(self, lines: bytes) -> None:
        """Make lines durable."""

    def close(self) -> None:
        """No more will come."""


class VolumeShard:
    """A shard on a file system."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.size = name, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / name
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        for place in (folder, *folder.parents[:2]):  # the ledger's own folders may be as new as the shard
            sync_folder(place)

    def append(self, lines: bytes) -> None:
        """Write and sync."""
        view = memoryview(lines)
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)
        self.size += len(lines)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


class BucketShard:
    """A shard in an object store: uploaded anew, whole, each time it grows."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.name, self._folder, self._content = name, folder, b""

    @property
    def size(self) -> int:
        """Bytes so far."""
        return len(self._content)

    def append(self, lines: bytes) -> None:
        """Upload."""
        self._folder.write(self.name, self._content + lines)
        self._content += lines

    def close(self) -> None:
        """All is uploaded."""


@dataclass
class Ledger:
    """The ledger of one model, shared by all stages that ask it, and by all jobs in the same store."""

    folder: Folder
    job: str
    stage: str
    served: Served | None = None
    replies: dict[str, Place] = field(default_factory=dict)
    """By the requests' keys."""
    refused: dict[str, str] = field(default_factory=dict)
    """Requests that the server will not answer, and why."""
    spent: Spent = field(default_factory=Spent)
    """This job's."""
    pace: float = BUCKET_SECONDS
    _open: dict[str, Tokens] = field(default_factory=dict)
    _pending: list[tuple[Record, bytes, asyncio.Future[None]]] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _shard: Shard | None = None
    _shards: int = 0
    _fault: Exception | None = None
    _closing: bool = False
    _process: str = field(default_factory=lambda: secrets.token_hex(4))
    _cache: OrderedDict[str, bytes] = field(default_factory=OrderedDict)

    @classmethod
    def read(cls, folder: Folder, job: str, stage: str) -> Ledger:
        """The ledger as the store has it; BadData names the shard and line that is damaged."""
        ledger = cls(folder, re.sub(r"[^A-Za-z0-9-]", "-", job), stage)
        shards = [found for name in folder.names() if (found := _NAME.fullmatch(name))]
        last = {shard["process"]: shard["name"] for shard in shards}
        left: dict[str, dict[str, Tokens]] = {}
        for shard, content in _contents(folder, shards):
            mine = shard["job"] == ledger.job
            still = left.setdefault(shard["process"], {})
            whole = last[shard["process"]] != shard["name"]
            ledger._load(shard["name"], content, still, ledger.spent if mine else Spent(), whole=whole)
            if not mine:
                still.clear()  # what other jobs spent is none of this one's business
        for still in left.values():
            ledger._doubt(still)
        ledger._shards = len(shards)
        return ledger

    def _load(self, name: str, content: bytes, left: dict[str, Tokens], spent: Spent, *, whole: bool) -> None:
        start = 0
        for number, text in enumerate(content.splitlines(keepends=True), 1):
            if not text.endswith(b"\n") and not whole:
                break  # half written when the program was killed: what it was about to say is still open
            try:
                self._apply(orjson.loads(text), Place(name, start, start + len(text)), left, spent)
            except (ValueError, KeyError, TypeError) as fault:
                where = f"{self.folder.at(name)}, line {number}"
                raise BadData(
                    f"{where} is damaged: restore the file. Without it, what it holds is asked and paid for again",
                    reason="LedgerDamaged",
                ) from fault
            start += len(text)

    def _doubt(self, left: dict[str, Tokens]) -> None:
        self.spent.in_doubt += len(left)
        self.spent.doubtful += sum(left.values(), NONE)
        left.clear()

    def _apply(self, record: Record, place: Place, left: dict[str, Tokens], spent: Spent) -> None:
        """Take a durable record into account; one table for what is read and what is written."""
        key = record["key"]
        match record["is"]:
            case "intent":
                left[key] = Tokens(*record["most"])
                return
            case "doubt":
                spent.in_doubt += 1
                spent.doubtful += Tokens(*record["most"])
                return
            case "reply":
                self.replies.setdefault(key, place)
                self.served = self.served or Served(record["model"], record["fingerprint"])
                spent.tokens += Tokens(*record["took"])
            case "other":
                spent.tokens += Tokens(*record["took"])
            case "refused":
                self.refused[key] = str(record["why"])
            case "dropped":
                pass
            case unknown:
                raise ValueError(unknown)
        left.pop(key, None)

    def known(self, key: str) -> bool:
        """Whether a request has an end: a reply, or a refusal."""
        return key in self.replies or key in self.refused

    def reply(self, key: str) -> Record | None:
        """A reply's record: `choice`, `took`, `model`, `fingerprint`; None where there is none."""
        place = self.replies.get(key)
        if place is None:
            return None
        content = self._cache.get(place.shard)
        if content is None or len(content) < place.end:
            content = self._cache[place.shard] = self.folder.read(place.shard)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        found: Record = orjson.loads(content[place.start : place.end])
        return found

    # --- writing ------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[Ledger]:
        """While this is open, records can be written; at its end what is still open is in doubt."""
        keeper = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            self._closing = True
            self._wake.set()
            await keeper
            if self._shard is not None:
                self._shard.close()
            self._doubt(self._open)

    async def intent(self, key: str, most: Tokens) -> None:
        """A request is about to be sent; durable when this returns."""
        await self._note({"is": "intent", "key": key, "most": (most.prompt, most.answer)})

    async def answered(self, key: str, answer: Answer, took: Tokens, *, other: bool = False) -> None:
        """A reply came; durable when this returns. `other`: from somebody else than was asked."""
        record: Record = {"is": "other" if other else "reply", "key": key, "took": (took.prompt, took.answer)}
        record |= {"model": answer.model, "fingerprint": answer.fingerprint}
        await self._note(record if other else {**record, "choice": answer.choice})

    async def doubted(self, key: str, most: Tokens, why: str) -> None:
        """A try may have been paid for, and had no reply."""
        await self._note({"is": "doubt", "key": key, "most": (most.prompt, most.answer), "why": why})

    async def refuse(self, key: str, why: str) -> None:
        """The server will not answer a request."""
        await self._note({"is": "refused", "key": key, "why": why})

    async def drop(self, key: str) -> None:
        """A request has ended without a reply, and cost nothing that is not noted."""
        await self._note({"is": "dropped", "key": key})

    async def _note(self, record: Record) -> None:
        if self._fault is not None:
            raise self._fault
        durable = asyncio.get_running_loop().create_future()
        self._pending.append((record, orjson.dumps(record) + b"\n", durable))
        self._wake.set()
        await durable

    async def _keep(self) -> None:
        """Make durable what waits, all of it at once, as long as more comes."""
        last = 0.0
        while self._pending or not self._closing:
            await self._wake.wait()
            await asyncio.sleep(0)  # others that are about to write come along
            self._wake.clear()
            while self.folder.local is None and len(self._pending) < BUCKET_RECORDS:
                if (left := last + self.pace - time.monotonic()) <= 0:
                    break
                await asyncio.sleep(min(left, 0.02))
            last = time.monotonic()
            if self._pending:
                await self._commit()

    async def _commit(self) -> None:
        batch, self._pending = self._pending, []
        try:
            name, start = await asyncio.to_thread(self._append, b"".join(line for _, line, _ in batch))
            for record, line, durable in batch:
                self._apply(record, Place(name, start, start + len(line)), self._open, self.spent)
                start += len(line)
                if not durable.done():
                    durable.set_result(None)
        except Exception as fault:  # whatever it is, those who wait for it raise it
            self._fault = fault
            for _, _, durable in batch:
                if not durable.done():
                    durable.set_exception(fault)

    def _append(self, lines: bytes) -> tuple[str, int]:
        shard = self._shard if self._shard is not None and self._shard.size < self._most else self._next_shard()
        start = shard.size
        with reaching(self.folder.at(shard.name)):
            shard.append(lines)
        return shard.name, start

    @property
    def _most(self) -> int:
        return BUCKET_SHARD if self.folder.local is None else VOLUME_SHARD

    def _next_shard(self) -> Shard:
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        self._shards += 1
        name = f"{self.job}.{self.stage}.{self._shards:05d}-{self._process}.jsonl"
        local = self.folder.local
        with reaching(self.folder.at(name)):
            self._shard = BucketShard(self.folder, name) if local is None else VolumeShard(local, name)
        return self._shard


def _contents(folder: Folder, shards: Sequence[re.Match[str]]) -> Iterator[tuple[re.Match[str], bytes]]:
    """The shards with what is in them, a few read at a time: an object store has many, and each is far."""
    with ThreadPoolExecutor(AHEAD) as pool:
        for begin in range(0, len(shards), AHEAD):
            some = shards[begin : begin + AHEAD]
            yield from zip(some, pool.map(lambda shard: folder.read(shard["name"]), some), strict=True)
