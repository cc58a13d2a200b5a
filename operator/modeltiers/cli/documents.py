"""Read YAML or JSON that anybody may have written: what is in it, or what is wrong with it, never a traceback.

It bounds what a small file may unfold to, refuses keys given twice (the API server does too), and keeps the number of
each document for messages. It knows nothing of the resources inside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

MOST_BYTES: Final = 128 * 1024**2
"""Largest file: the nodes of a large cluster with all their images are tens of MiB."""
MOST_UNFOLDED: Final = 100_000
"""Values that aliases may add: ten aliases of ten aliases nine times over would be a billion."""

# libyaml is ten times as fast where it is there, and limits nesting by itself.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: where it stands, and its content or its fault."""

    file: str
    number: int
    """Counted from 1; 0 where the fault is the whole file's."""
    content: Any = None
    fault: str | None = None

    @property
    def where(self) -> str:
        """File and document, for messages."""
        return f"{self.file}, document {self.number}" if self.number else self.file


def read(path: str) -> list[Document]:
    """All documents of a file, `-` for standard input. Empty documents are left out."""
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        return [Document(name, 0, fault=f"cannot be read: {(error.strerror or str(error)).lower()}")]
    except ValueError as error:  # a NUL in the name
        return [Document(name, 0, fault=f"cannot be read: {error}")]
    if len(raw) > MOST_BYTES:
        return [Document(name, 0, fault=f"is larger than {MOST_BYTES // 1024**2} MiB")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [Document(name, 0, fault=f"is not UTF-8 text (byte {error.start}): is it a YAML file?")]
    return list(_documents(name, text))


def unfolded(read: Iterable[Document], faults: list[str]) -> Iterator[Document]:
    """Documents that are mappings, the items of a List each for itself."""
    for document in read:
        if document.fault:
            faults.append(f"{document.where}: {document.fault}")
        elif not isinstance(document.content, dict):
            faults.append(f"{document.where}: is a {_kind_of(document.content)}, not a resource (a mapping)")
        elif str(document.content.get("kind", "")).endswith("List") and isinstance(document.content.get("items"), list):
            items = (Document(document.file, document.number, item) for item in document.content["items"])
            yield from unfolded(items, faults)
        else:
            yield document


def _kind_of(value: object) -> str:
    words = {str: "text", list: "list", int: "number", float: "number", bool: "truth value"}
    return words.get(type(value), type(value).__name__)


def _documents(name: str, text: str) -> Iterator[Document]:
    number = 0
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            number += 1
            node = loader.get_node()
            if node is None:
                continue
            if fault := _fault(node):
                yield Document(name, number, fault=fault)
                continue
            content = loader.construct_document(node)
            if content is not None:
                yield Document(name, number, content)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        yield Document(name, number or 1, fault=f"is not YAML{at}: {error.problem or error.context}")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        yield Document(name, number or 1, fault=f"is not YAML: {' '.join(str(error).split())[:200]}")
    except RecursionError:
        yield Document(name, number or 1, fault="is nested too deeply")
    finally:
        if loader is not None:
            loader.dispose()


def _fault(root: yaml.Node) -> str | None:
    """A key given twice, an alias inside itself, or more than a file may unfold to."""
    sizes: dict[int, int] = {}
    if fault := _measure(root, sizes):
        return fault
    if sizes[id(root)] > len(sizes) + MOST_UNFOLDED:
        return f"unfolds its aliases to more than {MOST_UNFOLDED} values"
    return None


def _measure(node: yaml.Node, sizes: dict[int, int]) -> str | None:
    if id(node) in sizes:
        return None if sizes[id(node)] else "holds an alias inside itself"
    sizes[id(node)] = 0  # being measured
    total = 1
    for child in _children(node):
        if fault := _measure(child, sizes):
            return fault
        total += sizes[id(child)]
    sizes[id(node)] = total
    return _twice(node)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _twice(node: yaml.Node) -> str | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen and key.value != "<<":
                return f"has the key {key.value!r} twice (again in line {key.start_mark.line + 1})"
            seen.add(key.value)
    return None
