"""What leaves a cluster in a support bundle: shapes, names, numbers and conditions; no values of environment variables,
no Secrets, no data of ConfigMaps, no texts that somebody wrote for a model, no keys.

It takes away more than it must: what is not known to be harmless goes. Names of things (images, models, Secrets) stay,
for without them nothing can be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from modeltiers import names
from modeltiers.domain.engine_messages import quote

GONE: Final = "[redacted]"
LINE: Final = 4096
_TEXTS: Final = frozenset(
    {
        *("value", "system", "prompt", "prompts", "rubric", "instructions", "text", "texts", "when", "example"),
        *("pattern", "patterns", "keywords", "words", "phrases", "schemaText", "schema", "regex", "examples"),
        *("caBundle", "token", "password", "apiKey"),
    }
)
"""Keys below which people write words, or keep what is nobody's business."""
_ANNOTATIONS: Final = frozenset(
    {
        *(names.ANNOTATION_APPLIED, names.ANNOTATION_ROLLOUT, names.ANNOTATION_DIGEST, names.ANNOTATION_TABLES),
        *(names.ANNOTATION_RETRY, names.ANNOTATION_APPROVE, names.ANNOTATION_ROLLBACK),
        *("deployment.kubernetes.io/revision", "argocd.argoproj.io/tracking-id", "helm.sh/resource-policy"),
    }
)
"""The annotations that stay; any other may hold a whole spec with its values."""
_KEYS: Final = frozenset({"data", "binaryData", "stringData"})
"""Where objects keep data of no known form."""


def redacted(body: Any) -> Any:
    """An object as it may leave the cluster."""
    if not isinstance(body, Mapping):
        return _value(body, prose=False)
    if body.get("kind") == "Secret":
        metadata = body.get("metadata") or {}
        return {"kind": "Secret", "metadata": {key: metadata.get(key) for key in ("name", "namespace")}}
    return {**{key: _part(key, value) for key, value in body.items() if key not in _KEYS}, **_sizes(body)}


def redacted_line(line: str) -> str:
    """A line of a log: credentials are taken out."""
    return quote(line, LINE)


def _part(key: str, value: Any) -> Any:
    """A part of an object. What people wrote is in the spec; what programs say of it is quoted and redacted already."""
    if key == "metadata" and isinstance(value, Mapping):
        return _metadata(value)
    return GONE if key in _TEXTS else _value(value, prose=key == "spec")


def _metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: _value(value, prose=False) for key, value in body.items() if key not in ("annotations", "managedFields")
    }
    notes = body.get("annotations")
    if isinstance(notes, Mapping):
        kept["annotations"] = {
            key: redacted_line(str(value)) if key in _ANNOTATIONS else GONE for key, value in notes.items()
        }
    return kept


def _sizes(body: Mapping[str, Any]) -> dict[str, Any]:
    """Of data the keys, with size and hash of what is there: enough to tell whether two are the same."""
    found: dict[str, Any] = {}
    for field in sorted(_KEYS):
        entries = body.get(field)
        if isinstance(entries, Mapping):
            found[field] = {key: _sum(str(value)) for key, value in entries.items()}
    return found


def _sum(value: str) -> str:
    raw = value.encode()
    return f"[{len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()[:16]}]"


def _value(value: Any, *, prose: bool) -> Any:
    if isinstance(value, Mapping):
        # A pod template has metadata of its own.
        return {
            str(key): _metadata(inner)
            if key == "metadata" and isinstance(inner, Mapping)
            else GONE
            if key in _TEXTS and not isinstance(inner, bool)
            else _value(inner, prose=prose)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_value(one, prose=prose) for one in value]
    if not isinstance(value, str):
        return value
    if prose and len(value.split()) > 1:
        return f"[text of {len(value)} characters]"
    return "\n".join(redacted_line(line) for line in value.splitlines()) if "\n" in value else redacted_line(value)
