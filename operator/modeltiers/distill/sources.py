"""Where rows come from: files of JSON lines on a volume, in S3 or on the Hub, read line by line, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.store import Folder, open_store

LONGEST: Final = 8 << 20
"""Bytes of a line."""
SUFFIX: Final = ".jsonl"
HUB: Final = "hf://datasets/"
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
    if address.startswith(HUB):
        return open_store(str(_from_hub(source, address.removeprefix(HUB))))
    return open_store(address)


def _from_hub(source: str, address: str) -> Path:
    """Fetch ORG/NAME[@REVISION]/FILE; returns where it is now."""
    field = f"spec.data.sources[{source}].hf"
    org, name, file = address.split("/", 2)
    dataset, _, revision = name.partition("@")
    repository = f"{org}/{dataset}"
    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision or None))
    except LocalEntryNotFoundError as fault:  # no answer, and nothing here from before; a kind of EntryNotFoundError
        raise _away(source, repository, fault) from fault
    except EntryNotFoundError:
        said = f"the Hub's dataset {repository} has no file {file} at {revision or 'main'}"
        raise BadData(f"source {source}: {said}: correct {field}", field=field) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError):
        said = f"the Hub shows nobody a dataset {repository} at {revision or 'main'}"
        way_out = f"correct {field}; copy one that is not public to a volume or to S3, and name that"
        raise BadData(f"source {source}: {said}: {way_out}", field=field) from None
    except (HfHubHTTPError, OSError) as fault:
        raise _away(source, repository, fault) from fault


def _away(source: str, repository: str, fault: Exception) -> TryAgain:
    said = str(fault.__cause__ or fault).partition("\n")[0][:300]
    return TryAgain(f"source {source}: {repository} could not be had from the Hub: {said}")
