"""Does a live object still say what we want it to say?

Desired objects hold only the fields we own; the server adds defaults and other managers add fields of their own. So
an object is up to date when (a) the intent applied last is the one wanted now and (b) every wanted value is still
there. (a) catches fields we no longer want, (b) catches hands. It refuses to know any kind's schema beyond the merge
keys below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modeltiers import names

# Lists that Kubernetes merges by key; everything else is atomic. (field name -> keys, first present wins)
_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
}


def digest(value: Any) -> str:
    """A short, stable hash of any JSON value: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed(desired: Mapping[str, Any]) -> dict[str, Any]:
    """The desired object with the hash of its own intent as an annotation."""
    metadata = dict(desired["metadata"])
    metadata["annotations"] = {**(metadata.get("annotations") or {}), names.ANNOTATION_APPLIED: digest(desired)}
    return {**desired, "metadata": metadata}


def difference(desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> str | None:
    """Name the first difference of a sealed desired object from the live one; None when nothing has to be written."""
    if live is None:
        return "missing"
    return _missing(desired, live, "")


def _missing(want: Any, have: Any, path: str) -> str | None:
    if isinstance(want, Mapping):
        if not isinstance(have, Mapping):
            return path or "."
        for key, value in want.items():
            found = _missing(value, have.get(key), f"{path}.{key}")
            if found:
                return found
        return None
    if isinstance(want, list) and want and (key := _merge_key(path, want)):
        return _missing_items(want, have, path, key)
    # An empty list or map and an absent one are the same thing to Kubernetes; so are an empty string and an absent one.
    if want in ({}, [], "") and not have:
        return None
    return None if want == have else path or "."


def _merge_key(path: str, items: Sequence[Any]) -> str | None:
    field = path.rsplit(".", 1)[-1]
    candidates = _MERGE_KEYS.get(field, ())
    return next((key for key in candidates if all(isinstance(item, Mapping) and key in item for item in items)), None)


def _missing_items(want: Sequence[Any], have: Any, path: str, key: str) -> str | None:
    if not isinstance(have, list):
        return path
    by_key = {item.get(key): item for item in have if isinstance(item, Mapping)}
    for item in want:
        where = f"{path}[{item[key]}]"
        found = where if item[key] not in by_key else _missing(item, by_key[item[key]], where)
        if found:
            return found
    return None
