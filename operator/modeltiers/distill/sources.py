"""Where rows come from: files of JSON lines at a path or an fsspec address, read line by line, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fsspec.core import url_to_fs

from modeltiers.distill.faults import BadData
from modeltiers.distill.store import Folder, open_store

LONGEST: Final = 8 << 20
"""Bytes of a line."""
SUFFIX: Final = ".jsonl"
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source, and where it is."""

    where: str
    content: bytes


def lines(source: str, address: str) -> Iterator[Line]:
    """The lines of a source in order; blank ones are passed over. Raises BadData, TryAgain."""
    folder, names = _files(source, address)
    for name in names:
        shown = f"source {source}, {name}"
        with folder.reading(name) as file:
            number = 0
            while content := file.readline(LONGEST + 1):
                number += 1
                where = f"{shown}, line {number}"
                if len(content) > LONGEST:
                    raise BadData(f"{where} is longer than {LONGEST >> 20} MiB: a line is one conversation")
                if number == 1:
                    content = content.removeprefix(_BOM)
                if content.strip():
                    yield Line(where, content)


def _files(source: str, address: str) -> tuple[Folder, list[str]]:
    """The files of a source: the one that it names, or the *.jsonl of the folder that it names."""
    place = _open(source, address)
    field = f"spec.data.sources[{source}]"
    if not place.is_folder():
        path = PurePosixPath(place.path)
        folder = Folder(place.fs, str(path.parent))
        if not folder.has(path.name):
            raise BadData(f"source {source}: nothing is at {address}: correct {field}, or put it there", field=field)
        return folder, [path.name]
    names = [name for name in place.names() if "/" not in name and name.endswith(SUFFIX)]
    if not names:
        raise BadData(f"source {source}: no *{SUFFIX} file is in {address}: rows are JSON lines", field=field)
    return place, names


def _open(source: str, address: str) -> Folder:
    if "://" not in address or address.startswith("s3://"):
        return open_store(address)
    try:
        fs, path = url_to_fs(address)
    except (ImportError, ValueError) as fault:  # fsspec knows the scheme and lacks its package, or does not know it
        field = f"spec.data.sources[{source}]"
        said = f"source {source}: this image cannot open {address} ({fault})"
        raise BadData(f"{said}: copy the file to a volume or to S3, and name that", field=field) from None
    return Folder(fs, path.rstrip("/"))
