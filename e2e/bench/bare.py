"""The bare client: an aiohttp session and json. The operator is held against it, and it fills a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from modeltiers.kube.session import Connection

WORKERS = 8  # as many as the operator's


async def send(connection: Connection, calls: Iterable[tuple[str, str, dict[str, Any], str]]) -> list[dict[str, Any]]:
    """Make these calls with a few workers; the bare client: an aiohttp session and json, nothing else."""
    waiting = list(calls)[::-1]
    answers: list[dict[str, Any]] = []

    async def work() -> None:
        while waiting:
            verb, path, body, content = waiting.pop()
            data = json.dumps(body).encode()
            headers = {"Content-Type": content}
            async with connection.session.request(verb, connection.server + path, data=data, headers=headers) as answer:
                answer.raise_for_status()
                answers.append(await answer.json())

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return answers


def apply_call(body: dict[str, Any], *, status: bool = False) -> tuple[str, str, dict[str, Any], str]:
    """A server-side apply as a bare call."""
    group = body["apiVersion"]
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    plural = body["kind"].lower() + "s"
    metadata = body["metadata"]
    path = f"{root}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}{'/status' if status else ''}"
    return "PATCH", f"{path}?fieldManager=bench&force=true", body, "application/apply-patch+yaml"
