"""The manifest: what a stage rested on, what came out, and what that cost. It makes a stage complete."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from modeltiers.distill.stage import Result
from modeltiers.distill.store import MANIFEST, Folder
from modeltiers.domain.distill.stages import Outcome, Stage, hash_of

MOST: Final = 3800
"""Bytes of the summary: a container's termination message holds 4096."""


@dataclass(frozen=True)
class Manifest:
    """A complete stage, as its manifest says."""

    body: dict[str, Any]

    @property
    def outcome(self) -> Outcome:
        """What the next stages rest on."""
        return Outcome(self.body["digest"], self.body["output"], self.body["facts"].get("decision"))

    @property
    def facts(self) -> dict[str, Any]:
        """The stage's figures."""
        return dict(self.body["facts"])

    def report(self, job: str, *, reused: bool) -> dict[str, Any]:
        """What the operator is told."""
        kept = {name: self.body[name] for name in ("stage", "digest", "output", "summary", "facts", "spend")}
        if self.body.get("job") != job:
            kept["spend"] = {}  # another job of the store paid for it
        whole = {"outcome": "Complete", "reused": reused, **kept}
        if len(json.dumps(whole).encode()) > MOST:
            flat = self.body["facts"].items()
            whole["facts"] = {name: value for name, value in flat if not isinstance(value, (dict, list))}
        return whole


def read(folder: Folder) -> Manifest | None:
    """The manifest of a stage's folder; None while it is not complete."""
    return Manifest(json.loads(folder.read(MANIFEST))) if folder.has(MANIFEST) else None


def write(folder: Folder, stage: Stage, digest: str, result: Result, job: str = "") -> Manifest:
    """Make a stage complete."""
    files = {name: folder.facts(name) for name in sorted(result.outputs)}
    outputs = {name: {"sha256": facts.sha256, "bytes": facts.bytes} for name, facts in files.items()}
    body = {
        "formatVersion": 1,
        "job": job,
        "stage": stage.value,
        "digest": digest,
        "output": hash_of({"outputs": outputs, "facts": result.facts}),
        "outputs": outputs,
        "summary": result.summary[:1000],
        "facts": dict(result.facts),
        "spend": dict(result.spend),
        "notes": dict(result.notes),
    }
    folder.write(MANIFEST, json.dumps(body, indent=1, ensure_ascii=False).encode())
    return Manifest(body)
