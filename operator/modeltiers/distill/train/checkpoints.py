"""Checkpoints: whole or not at all, at most two, on a volume or in S3. Knows files; knows nothing of torch.

The trainer writes `checkpoint-STEP` into a folder of this machine: the stage's own where it is on a volume, else a
scratch folder. Then every file is synced (or uploaded), and the mark that lists them is written last. What has no mark,
or not the files that it lists, was cut off: it is moved aside and the one before is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from modeltiers.distill.faults import TryAgain
from modeltiers.distill.store import Folder, sync_folder

KEPT: Final = 2
MARK: Final = "whole.json"
FOLDER: Final = "checkpoints"
ASIDE: Final = "quarantine"
FULL: Final = "DiskFull"
NAME: Final = re.compile(r"checkpoint-([0-9]+)")


@dataclass
class Checkpoints:
    """The checkpoints of one stage's folder."""

    folder: Folder
    scratch: Path
    quarantined: list[str] = field(default_factory=list)
    """Names of those that were cut off."""

    @property
    def here(self) -> Path:
        """Where the trainer writes them."""
        local = self.folder.local
        return self.scratch / FOLDER if local is None else local / FOLDER

    def newest(self) -> Path | None:
        """The newest whole checkpoint, on this machine; those that were cut off are moved aside."""
        self.here.mkdir(parents=True, exist_ok=True)
        for step in sorted(self._steps(), reverse=True):
            if self._whole(step):
                return self._fetched(step)
            self._aside(step)
        return None

    def seal(self, step: int) -> None:
        """Make what the trainer wrote durable, mark it as whole, and drop what is older than the last two."""
        name = _name(step)
        files = {path.relative_to(self.here / name).as_posix(): path for path in _files(self.here / name)}
        with full_disk(self.here):
            sizes = {}
            for relative, path in sorted(files.items()):
                sizes[relative] = path.stat().st_size
                if self.folder.local is None:
                    with self._store.writing(f"{name}/{relative}") as out, path.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
                else:
                    _sync(path)
            if self.folder.local is not None:
                sync_folder(self.here / name)
                sync_folder(self.here)
            self._store.write(f"{name}/{MARK}", json.dumps(sizes, sort_keys=True).encode())
        for old in sorted(self._steps(), reverse=True)[KEPT:]:
            self._drop(old)

    def drop_unsealed(self) -> None:
        """Drop what was not written to its end, where it would only fill the disk."""
        for step in self._steps():
            if not self._whole(step):
                self._drop(step)

    def clear(self) -> None:
        """Drop all of them: training is complete."""
        for step in self._steps():
            self._drop(step)

    @property
    def _store(self) -> Folder:
        return self.folder.sub(FOLDER)

    def _steps(self) -> set[int]:
        """Steps that there are files for, whole or not."""
        tops = {name.partition("/")[0] for name in self._store.names()}
        if self.folder.local is not None:  # empty folders too
            tops |= {path.name for path in self.here.iterdir() if path.is_dir()}
        return {int(found[1]) for top in tops if (found := NAME.fullmatch(top))}

    def _whole(self, step: int) -> bool:
        store = self._store.sub(_name(step))
        if not store.has(MARK):
            return False
        try:
            sizes = json.loads(store.read(MARK))
        except ValueError:
            return False
        found = {name: store.size(name) for name in store.names() if name != MARK}
        return bool(sizes) and found == sizes

    def _fetched(self, step: int) -> Path:
        target = self.here / _name(step)
        if self.folder.local is None:
            shutil.rmtree(target, ignore_errors=True)
            store = self._store.sub(_name(step))
            with full_disk(self.here):
                for name in store.names():
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    with store.reading(name) as source, (target / name).open("wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
        return target

    def _aside(self, step: int) -> None:
        """Keep the last one that was cut off, for whoever wants to look; several would fill the disk."""
        name = _name(step)
        self.quarantined.append(name)
        shutil.rmtree(self.here / ASIDE, ignore_errors=True)
        if self.folder.local is None:
            self._store.drop(ASIDE)
            self._store.move(name, f"{ASIDE}/{name}")
            return
        (self.here / ASIDE).mkdir()
        (self.here / name).rename(self.here / ASIDE / name)

    def _drop(self, step: int) -> None:
        """Delete a checkpoint, its mark first: a half-deleted one must not look whole."""
        self._store.sub(_name(step)).drop(MARK)
        shutil.rmtree(self.here / _name(step), ignore_errors=True)
        if self.folder.local is None:
            self._store.drop(_name(step))


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Say which disk is full. torch and safetensors raise errors of their own with the system's words in them."""
    try:
        yield
    except Exception as fault:
        text = str(fault)
        full = getattr(fault, "errno", None) in {28, 122} or "No space left" in text or "os error 28" in text
        if not full and ("inline_container" in text or "iostream" in text):  # torch's writer says no more than that
            disk = shutil.disk_usage(path)
            full = disk.free < max(1 << 20, disk.total // 100)
        if not full:
            raise
        raise TryAgain(f"{path}: no space left: make the volume larger or free some", reason=FULL) from fault


def _name(step: int) -> str:
    return f"checkpoint-{step}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
