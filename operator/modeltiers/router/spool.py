"""Keeps decision records on local disk as JSON lines, within a bound, until somebody fetches them.

A request only puts its line in memory; a thread writes. Whatever the disk does, serving goes on: what cannot be kept is
dropped and counted. Knows nothing of what a line says.

What survives: a line counts as kept once the thread has written it, at most a quarter of a second after it was given.
The end of the process costs what was not yet written, the end of the machine also what was not yet synced: files are
synced every five seconds, when a segment ends and when the spool closes. A line that was cut is cut off on start.

Each process owns a slot of the folder, by a lock that the system lets go with the process, and writes segments named
`<slot>-<number>.jsonl`. Whoever fetches may delete any segment but the newest of a slot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

PENDING: Final = 8 * 2**20
"""Bytes that wait in memory at most."""
LINE: Final = 2**20
FLUSH: Final = 0.25
SYNC: Final = 5.0
PAUSE: Final = 1.0
"""How long the disk is left alone after it failed, in seconds."""
SLOTS: Final = 256
_NAME: Final = re.compile(r"([0-9]{1,3})-([0-9]{12})\.jsonl")
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
Dropped = Literal["Full", "Disk", "Long", "Old"]
"""Full: more came than was written. Disk: it could not be written. Long: no line is that long. Old: the oldest had to
make room."""


class Spool:
    """The spool of one process."""

    def __init__(self, folder: Path, most_bytes: int, *, segment_seconds: float = 300.0) -> None:
        """Begin; a folder that cannot be used is counted as a failing disk, and tried again and again.

        `most_bytes` is the bound of this process's files, at least 256 KiB of it used.
        """
        self._most = max(most_bytes, 2**18)
        self._segment_bytes = min(max(self._most // 16, 2**16), 8 * 2**20)
        self._lines: deque[bytes] = deque()
        self._given = self._taken = 0
        """Bytes by the two threads, each of which writes its own: their difference waits."""
        self._stop = threading.Event()
        self._disk = _Disk(folder, self._most, self._segment_bytes, segment_seconds)
        self._full = 0
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def append(self, line: bytes) -> None:
        """Keep a line, which has no line break in it. Never blocks and never raises."""
        if self._given - self._taken > PENDING:
            self._full += 1
            return
        self._given += len(line) + 1
        self._lines.append(line)

    @property
    def error(self) -> str | None:
        """What the disk said last; None while it does well."""
        return self._disk.error

    def figures(self) -> dict[str, int]:
        """Return what was written, what was dropped and why, and what there is now."""
        disk = self._disk
        dropped = {f"dropped_{cause.lower()}": disk.dropped[cause] for cause in ("Disk", "Long", "Old")}
        return {
            "written": disk.written,
            "bytes": disk.total,
            "segments": disk.segments,
            "torn": disk.torn,
            "errors": disk.errors,
            "dropped_full": self._full,
            "waiting": len(self._lines),
            **dropped,
        }

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits and end, within so many seconds."""
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH):
            self._flush()
        self._flush()
        self._disk.close()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        self._disk.write(lines)
        self._taken += sum(map(len, lines)) + len(lines)


class _Disk:
    """The files of one slot; used by one thread."""

    def __init__(self, folder: Path, most: int, segment_bytes: int, segment_seconds: float) -> None:
        self._folder, self._most = folder, most
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self.dropped: Counter[Dropped] = Counter()
        self.written = self.torn = self.errors = self.total = 0
        self.error: str | None = None
        self._file = self._lock = -1
        self._slot = self._number = self._size = 0
        self._kept: deque[tuple[Path, int]] = deque()
        """Ended segments of this slot and of those that nobody holds, the oldest first, with their sizes."""
        self._since = self._synced = self._again = 0.0
        self._dirty = False

    @property
    def segments(self) -> int:
        """How many files there are."""
        return len(self._kept) + (self._file >= 0)

    def write(self, lines: list[bytes]) -> None:
        """Write these lines, or count them as dropped; and see to the open segment."""
        now = time.monotonic()
        for batch in self._batches(lines):
            if now < self._again:
                self.dropped["Disk"] += len(batch)
                continue
            try:
                self._put(b"\n".join(batch) + b"\n", now)
                self.written += len(batch)
                self.error = None
            except OSError as error:
                self.dropped["Disk"] += len(batch)
                self._failed(error, now)
        try:
            self._tend(now)
        except OSError as error:
            self._failed(error, now)

    def close(self) -> None:
        """Sync and close."""
        try:
            self._end_segment()
        except OSError as error:
            self._failed(error, time.monotonic())
        self._let_go()

    def _batches(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        """Yield the lines in parts that fit a segment."""
        part, size = list[bytes](), 0
        most = min(LINE, self._segment_bytes)
        for line in lines:
            if len(line) >= most or b"\n" in line:
                self.dropped["Long"] += 1
                continue
            if part and size + len(line) >= self._segment_bytes:
                yield part
                part, size = [], 0
            part.append(line)
            size += len(line) + 1
        if part:
            yield part

    def _put(self, data: bytes, now: float) -> None:
        if self._file >= 0 and not os.fstat(self._file).st_nlink:
            self._let_go()  # the file is gone, and maybe the folder: what is written there is lost
        if self._lock < 0:
            self._claim(now)
        if self._file >= 0 and self._size + len(data) > self._segment_bytes:
            self._end_segment()
        self._make_room(len(data))
        if self._file < 0:
            self._begin_segment(now)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # a part of a line, and whole ones that are counted as dropped
            raise
        self._size += len(data)
        self.total += len(data)
        self._dirty = True

    def _tend(self, now: float) -> None:
        """End a segment that is old enough to be fetched, and sync what was written."""
        if self._file < 0:
            return
        if self._size and now - self._since >= self._segment_seconds:
            self._end_segment()
        elif self._dirty and now - self._synced >= SYNC:
            os.fdatasync(self._file)
            self._dirty, self._synced = False, now

    def _failed(self, error: OSError, now: float) -> None:
        self.errors += 1
        self.error = error.strerror or type(error).__name__
        self._again = now + PAUSE
        self._let_go()

    def _let_go(self) -> None:
        """Close everything; the next line finds out what there is."""
        for number in (self._file, self._lock):
            if number >= 0:
                with contextlib.suppress(OSError):
                    os.close(number)
        self._file = self._lock = -1
        self._dirty = False

    # -- segments -----------------------------------------------------------------------------------------------------

    def _claim(self, now: float) -> None:
        """Take a slot that nobody holds, and go on behind what lies in it."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for slot in range(SLOTS):
            self._lock = self._locked(slot)
            if self._lock >= 0:
                break
        else:
            raise BlockingIOError(errno.EAGAIN, f"all {SLOTS} slots of the spool are held")
        self._slot = slot
        found = sorted((int(match[2]), int(match[1]), one.path, one.stat().st_size) for one, match in self._entries())
        own = [(number, path) for number, where, path, _ in found if where == slot]
        self._number = own[-1][0] if own else 0
        mine = own[-1][1] if own else None
        others = {where for _, where, _, _ in found if where != slot and self._is_free(where)}
        kept = [(path, size) for _, where, path, size in found if path != mine and where in {slot, *others}]
        self._kept = deque((Path(path), size) for path, size in kept)
        self.total = sum(size for _, size in self._kept)
        if mine is not None:
            self._go_on(mine, now)

    def _entries(self) -> list[tuple[os.DirEntry[str], re.Match[str]]]:
        with os.scandir(self._folder) as entries:
            return [(one, match) for one in entries if (match := _NAME.fullmatch(one.name)) and one.is_file()]

    def _locked(self, slot: int) -> int:
        """Return a descriptor that holds a slot, or -1 when somebody else does."""
        number = os.open(self._folder / f"{slot}.lock", _FLAGS, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return -1
        except OSError:
            os.close(number)
            raise
        return number

    def _is_free(self, slot: int) -> bool:
        number = self._locked(slot)
        if number >= 0:
            os.close(number)
        return number >= 0

    def _go_on(self, path: str, now: float) -> None:
        """Open the newest segment again, and cut a line off that was not written whole."""
        self._file = os.open(path, _FLAGS | os.O_APPEND)
        os.fchmod(self._file, 0o600)
        size = os.fstat(self._file).st_size
        self._size = _whole(self._file, size)
        if self._size < size:
            self.torn += 1
            os.ftruncate(self._file, self._size)
        self.total += self._size
        self._since = now

    def _begin_segment(self, now: float) -> None:
        # Seconds of the clock, so that no name comes again after everything was fetched.
        self._number = max(self._number + 1, int(time.time()))
        path = self._folder / f"{self._slot}-{self._number:012d}.jsonl"
        self._file = os.open(path, _FLAGS | os.O_APPEND | os.O_EXCL, 0o600)
        self._size, self._since, self._synced = 0, now, now

    def _end_segment(self) -> None:
        if self._file < 0:
            return
        os.fdatasync(self._file)
        os.close(self._file)
        self._file, self._dirty = -1, False
        self._kept.append((self._folder / f"{self._slot}-{self._number:012d}.jsonl", self._size))

    def _make_room(self, size: int) -> None:
        """Delete the oldest ended segments until this much fits."""
        while self._kept and self.total + size > self._most:
            path, taken = self._kept.popleft()
            self.total -= taken
            self._delete(path)

    def _delete(self, path: Path) -> None:
        """Delete a segment and count its lines; one of a slot that has an owner again is that one's matter."""
        slot = int(path.name.partition("-")[0])
        number = -1 if slot == self._slot else self._locked(slot)
        if number < 0 and slot != self._slot:
            return
        try:
            lines = _count(path)
            path.unlink()
            self.dropped["Old"] += lines
        except FileNotFoundError:
            return  # somebody fetched it
        finally:
            if number >= 0:
                os.close(number)


def _whole(number: int, size: int) -> int:
    """Return the length of a file up to the end of its last whole line."""
    end = size
    while end:
        begin = max(0, end - 65_536)
        found = os.pread(number, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))
