"""Reads routing tables for commands: a file or a folder of them, each valid or with every fault and its path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modeltiers.cli import documents
from modeltiers.cli.documents import Document
from modeltiers.domain.routing.accept import compile_accept
from modeltiers.domain.routing.record import version_of
from modeltiers.domain.routing.rules import CompiledPolicy, compile_policy
from modeltiers.domain.routing.table import Fault, InvalidTable, Policy, Table, read_table


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table that is valid, patterns included."""

    path: str
    table: Table
    version: str
    policies: tuple[CompiledPolicy, ...]


def read(paths: tuple[str, ...], faults: list[str]) -> list[TableFile]:
    """Return the valid tables among files and folders; what is wrong with the others goes to `faults`."""
    listed = files(paths, faults)
    return [table for one in listed if (table := table_of(one, documents.read(one), faults)) is not None]


def files(paths: tuple[str, ...], faults: list[str]) -> list[str]:
    """Return the files, and those of the folders, that are not hidden."""
    found = []
    for path in paths:
        try:
            listed = list(_files(path))
        except OSError as error:
            faults.append(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}")
            continue
        if not listed:
            faults.append(f"{path}: holds no file")
        found += listed
    return found


def _files(path: str) -> Iterator[str]:
    folder = Path(path)
    if not folder.is_dir():
        yield path
        return
    # A mounted ConfigMap has hidden folders behind its links.
    yield from (str(one) for one in sorted(folder.iterdir()) if one.name[0] != "." and one.is_file())


def table_of(path: str, read_documents: list[Document], faults: list[str]) -> TableFile | None:
    """Return the table that a file's documents are; what is wrong goes to `faults`."""
    bad = [f"{one.where}: {one.fault}" for one in read_documents if one.fault]
    if not bad and len(read_documents) != 1:
        bad = [f"{path}: holds {len(read_documents)} documents; a table is one"]
    if bad:
        faults += bad
        return None
    try:
        table = read_table(read_documents[0].content)
        policies = tuple(compile_policy(table, policy) for policy in table.policies)
        for index, policy in enumerate(table.policies):
            _check_accept(index, policy)
        content = Path(path).read_bytes() if path != "-" else b""
    except InvalidTable as error:
        faults += [f"{path}: {fault}" for fault in error.faults]
        return None
    except OSError as error:
        faults.append(f"{path}: cannot be read again: {(error.strerror or str(error)).lower()}")
        return None
    return TableFile(path, table, version_of(table, content), policies)


def _check_accept(index: int, policy: Policy) -> None:
    """Raise InvalidTable where an answer's checks cannot be made ready, with paths from the table's root."""
    try:
        compile_accept(policy)
    except InvalidTable as error:
        raise InvalidTable([Fault(f"$.policies[{index}].{one.path}", one.problem) for one in error.faults]) from None
