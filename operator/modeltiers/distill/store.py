"""Where artifacts lie: folders under one root, on a volume or in an S3-compatible store, through fsspec.

A stage's folder is `stages/STAGE/DIGEST`; the stage is complete when `manifest.json` is in it, which is written last.
A file is there whole or not at all: on a volume it is written beside, synced and renamed; S3 does so by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from fsspec.implementations.local import LocalFileSystem
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.fsspec import FsspecStore

from modeltiers.distill.faults import BadData, TryAgain

MANIFEST: Final = "manifest.json"
BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as a manifest lists it."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Folder:
    """One folder of the store."""

    fs: Any  # fsspec has no types of its own worth naming
    path: str

    @property
    def local(self) -> Path | None:
        """The folder on this machine's file system, where it is on one."""
        return Path(self.path) if isinstance(self.fs, LocalFileSystem) else None

    def sub(self, name: str) -> Folder:
        """A folder inside this one."""
        return Folder(self.fs, f"{self.path}/{_safe(name)}")

    def at(self, name: str) -> str:
        """The path of a file inside this folder."""
        return f"{self.path}/{_safe(name)}"

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        with reaching(self.at(name)):
            return bool(self.fs.exists(self.at(name)))

    def is_folder(self) -> bool:
        """Whether it is one, or in S3 the beginning of names."""
        with reaching(self.path):
            return bool(self.fs.isdir(self.path))

    def names(self) -> list[str]:
        """The files of the folder and of those inside, by their path from here, in order."""
        with reaching(self.path):
            if not self.fs.exists(self.path):
                return []
            start = len(self.path.rstrip("/")) + 1
            found = [str(path)[start:] for path in self.fs.find(self.path)]
            return sorted(name for name in found if not PurePosixPath(name).name.startswith("."))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with reaching(self.at(name)):
            return bytes(self.fs.cat_file(self.at(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, durable when this returns."""
        with reaching(self.at(name)):
            if self.local is None:
                self.fs.pipe_file(self.at(name), content)
            else:
                with _fresh(Path(self.at(name))) as out:
                    out.write(content)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file in pieces; it is there, whole, when the block ends well."""
        with reaching(self.at(name)):
            if self.local is None:
                try:
                    with self.fs.open(self.at(name), "wb") as out:
                        yield out
                except BaseException:
                    self.drop(name)  # closing made what there was of it a whole file
                    raise
            else:
                with _fresh(Path(self.at(name))) as out:
                    yield out

    def reading(self, name: str) -> IO[bytes]:
        """A file to read in pieces."""
        with reaching(self.at(name)):
            return io.BufferedReader(self.fs.open(self.at(name), "rb"), BLOCK)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        with reaching(self.at(name)):
            return int(self.fs.info(self.at(name))["size"])

    def drop(self, name: str) -> None:
        """Delete a file, or a folder with all in it; what is not there is as well."""
        with reaching(self.at(name)):
            if self.fs.exists(self.at(name)):
                self.fs.rm(self.at(name), recursive=True)

    def move(self, name: str, to: str) -> None:
        """Give every file of a folder another place."""
        for file in self.sub(name).names():
            with self.sub(name).reading(file) as source, self.writing(f"{to}/{file}") as out:
                while block := source.read(BLOCK):
                    out.write(block)
        self.drop(name)

    def facts(self, name: str) -> FileFacts:
        """A file's hash and size."""
        digest, size = hashlib.sha256(), 0
        with self.reading(name) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
        return FileFacts(digest.hexdigest(), size)

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a file of JSON lines that a stage wrote."""
        with self.reading(name) as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError:
                    where = f"{self.at(name)}, line {number}"
                    raise BadData(f"{where} is not JSON: the store was changed by others") from None

    def write_rows(self, name: str, rows: Iterable[Any]) -> int:
        """Write objects as JSON lines; returns how many."""
        count = 0
        with self.writing(name) as out:
            for row in rows:
                out.write(line(row))
                count += 1
        return count


def line(row: Any) -> bytes:
    """One object as a line: the same bytes for equal objects of equal order."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def open_store(address: str) -> Folder:
    """The store at a path or at s3://BUCKET/PREFIX; S3's credentials and endpoint are in the environment, as AWS names
    them.
    """
    if not address.startswith("s3://"):
        return Folder(LocalFileSystem(), str(Path(address).absolute()))
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    remote = FsspecStore("s3", client_options={"allow_http": endpoint.startswith("http://")})
    return Folder(remote, address.removeprefix("s3://").rstrip("/"))


def _safe(name: str) -> str:
    if not name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise BadData(f"{name!r} is no path inside the store")
    return name


@contextlib.contextmanager
def _fresh(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make a file's name as durable as its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def reaching(path: str) -> Iterator[None]:
    """Say which file could not be had; what may go by itself is tried again."""
    try:
        yield
    except FileNotFoundError:
        raise BadData(f"{path} is not there") from None
    except PermissionError as fault:
        said = f"{path}: {fault.strerror or fault}"
        raise BadData(f"{said}: let the pods' group or the key's user write there") from fault
    except OSError as fault:  # a full disk, a network file system
        raise TryAgain(f"{path}: {fault.strerror or fault}") from fault
    except (PermissionDeniedError, UnauthenticatedError) as fault:
        refs = "spec.store.s3AccessKeyIdRef and s3SecretAccessKeyRef"
        raise BadData(f"{path}: {_first_line(fault)}: look at the key that {refs} name") from fault
    except BaseError as fault:  # an S3 server that does not answer, or not well
        raise TryAgain(f"{path}: {_first_line(fault)}") from fault


def _first_line(fault: Exception) -> str:
    return str(fault).partition("\n")[0][:300]
