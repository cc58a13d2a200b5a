"""The router as its own process on free ports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tests import canaries

ROOT = Path(__file__).parents[2]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Run these tests on the loop that the router runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Router:
    """A running router."""

    def __init__(self, process: asyncio.subprocess.Process, said: dict[str, Any], table: Path) -> None:
        self.process, self.table = process, table
        self.port, self.admin_port = said["serving"][1], said["admin"][1]
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        self.admin = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin_port}", timeout=40)

    async def chat(self, text: str = canaries.PROMPT, **fields: Any) -> httpx.Response:
        body = {"model": "support", "messages": [{"role": "user", "content": text}], **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def raw(self, data: bytes, seconds: float = 5) -> bytes:
        """Send these bytes on a connection of its own; return all that came until it closed or fell silent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        got = b""
        try:
            async with asyncio.timeout(seconds):
                while more := await reader.read(65_536):
                    got += more
        except TimeoutError:
            pass
        finally:
            writer.close()
        return got

    async def metric(self, name: str, **labels: str) -> float:
        text = (await self.admin.get("/metrics")).text
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"modeltiers_router_{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    async def status(self) -> Any:
        return (await self.admin.get("/status")).json()

    async def until(self, holds: Callable[[Any], bool]) -> Any:
        """Wait until the status says something."""
        for _ in range(1000):
            if holds(found := await self.status()):
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"the status never came to hold: {found}")


Start = Callable[..., AbstractAsyncContextManager[Router]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a router over a table; it must not have died, nor written to stderr, when the test ends."""

    @asynccontextmanager
    async def run(table: Any, *flags: str) -> AsyncIterator[Router]:
        path = tmp_path / "table.json"
        path.write_text(table if isinstance(table, str) else json.dumps(table))
        command = ["-m", "modeltiers.router", "--table", str(path), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        command += ["--settle-seconds", "0.1"]
        pipe = asyncio.subprocess.PIPE
        env = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, *flags, stdout=pipe, stderr=pipe, env=env
        )
        assert process.stdout is not None
        said: dict[str, Any] = {}
        while said.get("event") != "listening":
            said = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
        router = Router(process, said, path)
        try:
            yield router
            assert process.returncode in (None, 0)
        finally:
            await router.http.aclose()
            await router.admin.aclose()
            if process.returncode is None:
                process.terminate()
            said_more, errors = await asyncio.wait_for(process.communicate(), 15)
            assert errors == b"", errors.decode()
            canaries.look("the router's log", said_more)

    return run


def table(*ports: int, policy: dict[str, Any] | None = None, tier: dict[str, Any] | None = None) -> dict[str, Any]:
    """A table with one tier a port, t0 the lowest."""
    quick = {"timeouts": {"connectMs": 2_000, "firstByteMs": 2_000, "idleMs": 2_000}, **(tier or {})}
    tiers = [{"name": f"t{index}", "address": f"127.0.0.1:{port}", **quick} for index, port in enumerate(ports)]
    names = [one["name"] for one in tiers]
    return {
        "formatVersion": 1,
        "tiers": tiers,
        "policies": [{"name": "support", "model": "support", "tiers": names, **(policy or {})}],
    }
