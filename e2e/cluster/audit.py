"""Read the API server's audit log: who asked for what. It tells whether an operator at rest writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One answered request, from the line in the audit log."""

    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    agent: str
    at: str
    forbidden: bool  # by RBAC, not by admission

    @property
    def writes(self) -> bool:
        """Whether this asks for a change; reviews of rights and tokens are written as creations and store nothing."""
        reviews = self.resource.endswith(("accessreviews", "rulesreviews", "tokenreviews"))
        return self.verb in WRITES and not reviews and self.subresource != "token"


def requests(log: Path, user: str | None = None) -> list[Request]:
    """Return the answered requests of one user, or of all, oldest first."""
    with log.open() as lines:
        return list(_answered((line for line in lines if line.endswith("\n")), user))  # the last may be half written


def _answered(lines: Iterable[str], user: str | None) -> Iterator[Request]:
    for line in lines:
        event = json.loads(line)
        if event["stage"] in ("ResponseComplete", "Panic") and user in (None, event["user"].get("username")):
            yield _request(event)


class Follower:
    """Reads the log as it grows: each answered request of a user once."""

    def __init__(self, log: Path, user: str | None = None) -> None:
        self.log = log
        self.user = user
        self._at = log.stat().st_size

    def new(self) -> list[Request]:
        """Return what was answered since the last call."""
        with self.log.open("rb") as lines:
            lines.seek(self._at)
            whole = lines.read().rpartition(b"\n")[0]
        self._at += len(whole) + bool(whole)
        return list(_answered(whole.decode().splitlines(), self.user))


def _request(event: dict[str, Any]) -> Request:
    target = event.get("objectRef", {})
    return Request(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        agent=event.get("userAgent", ""),
        at=event.get("stageTimestamp", ""),
        forbidden=event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid",
    )
