"""Asks an API for its list of models now and then: the one question to it that costs no tokens.

It tells whether the API takes the key that this router alone holds, and whether it has the model. Requests do not wait
for it, and readiness does not depend on it: there are APIs without a list.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Literal

import msgspec
from msgspec import Struct

from modeltiers.router.external import ExternalPool

Word = Literal["Listed", "NotListed", "KeyRejected", "NoList", "NoAnswer"]
STEADY: Final = 60.0
"""Seconds until it is asked again when all is well."""
UNSTEADY: Final = 10.0
"""And when it is not."""
SECONDS: Final = 10.0
"""How long an answer may take."""
LARGEST: Final = 4 * 1024 * 1024


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


class Listing:
    """What an API says of a model, with the key of the pool."""

    def __init__(self, pool: ExternalPool, model: str) -> None:
        self._pool, self._model = pool, model
        self.word: Word | None = None
        """What came of it last; None before the first answer."""

    async def run(self) -> None:
        """Ask until cancelled, while there is a key to ask with."""
        while True:
            if self._pool.problem is None:
                self.word = await self.look()
            await asyncio.sleep(STEADY if self.word == "Listed" else UNSTEADY)

    async def look(self) -> Word:
        """Ask once."""
        import aiohttp  # as the pool does: a router without an API starts without it

        context = await self._pool.context()
        if context is None:
            return "NoAnswer"
        try:
            async with asyncio.timeout(SECONDS):
                status, body = await self._get(context)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return "NoAnswer"
        if status in (401, 403):
            return "KeyRejected"
        try:
            listed = msgspec.json.decode(body, type=_Models).data if status == 200 else None
        except (msgspec.DecodeError, RecursionError):
            listed = None
        if listed is None:
            return "NoList"
        return "Listed" if any(one.id == self._model for one in listed) else "NotListed"

    async def _get(self, context: ssl.SSLContext) -> tuple[int, bytes]:
        url, headers, _ = self._pool.outgoing([b"GET /v1/models HTTP/1.1\r\n\r\n"])
        del headers["content-length"]
        async with self._pool.session(fresh=True).get(
            url,
            headers=headers,
            allow_redirects=False,
            ssl=context,
            proxy=self._pool.external.proxy,
            trace_request_ctx=_Nobody(),
        ) as reply:
            body = b""
            async for piece in reply.content.iter_any():
                body += piece
                if len(body) > LARGEST:
                    raise ValueError("a longer list than any API has")
            return reply.status, body


class _Nobody:
    """Who is told that a connection is there: the client's hooks expect somebody."""

    reused = False

    def connected(self) -> None:
        """Take notice of nothing."""
