"""Statuses that the operator wrote on a real control plane, one of each shape, kept for the pure tests.

`pytest tests/cluster --statuses=rewrite` adds what it sees to the file. A shape is what a GitOps tool decides by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modeltiers.domain.conditions import by_type

FILE = Path(__file__).parent / "cluster/fixtures/statuses.json"
DECIDING = ("Ready", "Reconciling", "Stalled", "Complete", "AwaitingApproval")


def shape(obj: Mapping[str, Any]) -> str:
    """What tells one status from another."""
    metadata, status = obj["metadata"], obj["status"]
    said = by_type(status.get("conditions") or ())
    parts = [f"{kind}={said[kind]['status']}/{said[kind]['reason']}" for kind in DECIDING if kind in said]
    lags = status.get("observedGeneration") != metadata["generation"]
    return " ".join([obj["kind"], *parts, *(["lags"] if lags else []), *(["deleting"] if _gone(metadata) else [])])


def recorded() -> list[dict[str, Any]]:
    """The objects of the file."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def record(seen: Iterable[Mapping[str, Any]]) -> None:
    """Add the first object of every shape that the file does not have."""
    kept = {shape(one): one for one in (recorded() if FILE.exists() else [])}
    for obj in seen:
        if obj.get("status"):
            kept.setdefault(shape(obj), _short(obj))
    text = ",\n".join(json.dumps(kept[one], ensure_ascii=False) for one in sorted(kept))
    FILE.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def _short(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an object that a tool looks at."""
    metadata = {name: obj["metadata"][name] for name in ("name", "generation")}
    metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if _gone(obj["metadata"]) else {}
    status = {name: obj["status"][name] for name in ("observedGeneration", "conditions") if name in obj["status"]}
    return {"kind": obj["kind"], "metadata": metadata, "status": status}


def _gone(metadata: Mapping[str, Any]) -> bool:
    return bool(metadata.get("deletionTimestamp"))
