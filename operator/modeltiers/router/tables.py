"""The tables in force: read from a file or a folder, swapped whole, and the last good one kept when a new one is bad.

Each file stands alone: a fault in one leaves the others as they are.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import structs

from modeltiers.domain.routing import revisions
from modeltiers.domain.routing.accept import CompiledAccept, compile_accept
from modeltiers.domain.routing.choose import CompiledPolicy
from modeltiers.domain.routing.table import External, Fault, InvalidTable, Table, Tier, read_table
from modeltiers.router.addresses import base_fault

TABLE_BYTES: Final = 1_048_576
FIRST: Final = "r1"
Own = tuple[str, str | External]
"""The tier that is behind one router alone: its name, and the address of its engine or the API that it is."""


class Loaded:
    """A table that serves."""

    __slots__ = ("policies", "table", "version")

    def __init__(self, table: Table, content: bytes, own: Own | None = None, revision: str = FIRST) -> None:
        if own is not None:
            table = beside(table, *own, revision)
        self.table = table
        self.version = table.version or hashlib.sha256(content).hexdigest()[:12]
        self.policies = _compiled(table)


class Tables:
    """Every table file, by name."""

    def __init__(self, path: Path, own: Own | None = None, revision: str = FIRST) -> None:
        """`own` is the tier whose engine, of this revision, stands beside this router, or whose API it alone calls."""
        self._path, self._own, self._revision = path, own, revision
        self._folder = path.is_dir()
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self.loaded: dict[str, Loaded] = {}
        self.errors: dict[str, str] = {}

    def reload(self) -> list[tuple[str, str]]:
        """Read what has changed; returns (file, "Loaded" | "Refused" | "Gone") for each that did."""
        found = self._files()
        said = []
        for name in [name for name in self._stamps if name not in found]:
            del self._stamps[name]
            self.errors.pop(name, None)
            if self.loaded.pop(name, None):
                said.append((name, "Gone"))
        for name, path in found.items():
            stamp = _stamp(path)
            if self._stamps.get(name, _NEVER) == stamp:
                continue
            self._stamps[name] = stamp
            said.append((name, self._read(name, path)))
        return said

    def _files(self) -> dict[str, Path]:
        if self._folder:
            # A mounted ConfigMap has hidden folders behind its links.
            return {one.name: one for one in sorted(self._path.iterdir()) if one.name[0] != "." and one.is_file()}
        return {self._path.name: self._path}

    def _read(self, name: str, path: Path) -> str:
        try:
            content = path.read_bytes()
            loaded = Loaded(read_table(_decode(content)), content, self._own, self._revision)
            self._unique(name, loaded)
        except (OSError, InvalidTable) as error:
            self.errors[name] = str(error)
            return "Refused"
        self.errors.pop(name, None)
        self.loaded[name] = loaded
        return "Loaded"

    def _unique(self, name: str, loaded: Loaded) -> None:
        for other, one in self.loaded.items():
            if other != name and (both := loaded.policies.keys() & one.policies.keys()):
                model = min(both)
                raise InvalidTable([Fault("$.policies", f"model {model!r} is routed by {other} already; name another")])


def beside(table: Table, name: str, behind: str | External, revision: str = FIRST) -> Table:
    """Return a table as the router of one tier reads it: that tier is the engine or API behind it, without a hop.

    So one table serves the routers of all its tiers.
    """
    tiers = tuple(
        _behind(tier, behind, revision)
        if tier.name == name and tier.external is None
        else structs.replace(tier, local=False)
        for tier in table.tiers
    )
    return structs.replace(table, tiers=tiers)


def _behind(tier: Tier, behind: str | External, revision: str) -> Tier:
    if isinstance(behind, External):
        return structs.replace(tier, address=None, external=behind, local=True, hop=False)
    return revisions.beside(tier, behind, revision)


_NEVER: Final = (-1, -1, -1)


def _decode(content: bytes) -> Any:
    if len(content) > TABLE_BYTES:
        raise InvalidTable([Fault("$", f"the table is longer than {TABLE_BYTES} bytes; split it into several files")])
    try:
        return msgspec.json.decode(content) if content.lstrip().startswith(b"{") else _yaml(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTable([Fault("$", f"neither JSON nor YAML: {error}")]) from None


def _yaml(content: bytes) -> Any:
    import yaml  # only a table written by hand is YAML

    try:
        aliases = b"*" in content and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(content))
        document = None if aliases else yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise InvalidTable([Fault("$", f"not YAML: {' '.join(str(error).split())}")]) from None
    if aliases:
        raise InvalidTable([Fault("$", "aliases are not read; write the values out")])
    return document


def _compiled(table: Table) -> dict[str, tuple[CompiledPolicy, CompiledAccept]]:
    """Return what the policies compile to, by the model that clients ask for; raises InvalidTable."""
    found: list[Fault] = []
    made = {}
    for index, policy in enumerate(table.policies):
        try:
            made[policy.model] = CompiledPolicy(table, policy), compile_accept(policy)
        except InvalidTable as error:
            found += [Fault(_below(index, fault.path), fault.problem) for fault in error.faults]
    for index, tier in enumerate(table.tiers):
        if tier.external is not None and (problem := base_fault(tier.external)) is not None:
            found.append(Fault(f"$.tiers[{index}].external.baseUrl", problem))
    if found:
        raise InvalidTable(found)
    return made


def _below(index: int, path: str) -> str:
    return path if path.startswith("$") else f"$.policies[{index}].{path}"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
