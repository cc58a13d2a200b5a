"""A router's admin port by itself, on an address of its own as a pod has one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from modeltiers import names


def host(number: int = 1) -> str:
    """An address of this process's own: the port is fixed, and runs side by side must not share one."""
    return f"127.{number}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


@dataclass
class Admin:
    """What it says, and how often it was asked."""

    body: str = "{}"
    code: int = 200
    asked: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    def says(self, status: Any) -> None:
        """Say this from now on."""
        self.body = json.dumps(status)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.hold.wait()
        head = f"HTTP/1.1 {self.code} OK\r\ncontent-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
        writer.write((head + self.body).encode())
        writer.close()


@asynccontextmanager
async def admin_port(number: int = 1) -> AsyncIterator[Admin]:
    """Serve one at `host(number)`."""
    admin = Admin()
    server = await asyncio.start_server(admin.answer, host(number), names.ADMIN_PORT)
    try:
        yield admin
    finally:
        server.close()
        await server.wait_closed()
