"""Asks an OpenAI-compatible server, one try at a time; what a try came to is a value, never an exception.

The surroundings do not change who is asked: no redirects, and no proxies or netrc from the environment. A reply is read
up to a limit, and within the time for one answer, however slowly it drips. The key is read from its file and is in no
message.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from modeltiers.distill.faults import BadData
from modeltiers.domain.distill.plan import Target
from modeltiers.domain.distill.replies import Answer, Call, Failure, Kind, clean, read
from modeltiers.domain.distill.requests import renamed

MOST: Final = 64 << 20
"""Bytes of a reply; logprobs of a long answer are some megabytes."""
CONNECT: Final = 10.0
"""Seconds to connect."""
IDLE: Final = 3.0
"""Seconds after which an idle connection is not used again; many servers close theirs after five."""


RENAMED: Final = "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, and how messages name it."""

    target: Target
    who: str
    """As in "the teacher"."""
    field: str
    """Path in the spec that says who it is."""
    key_field: str
    """Path in the spec that names the key."""
    settings: str
    """Path in the spec that says how it is asked."""
    fingerprinted: bool = False
    """Whether another `system_fingerprint` is another model. Large providers change theirs from request to request."""
    role: str = "Teacher"
    """As reasons begin: `TeacherChanged`."""


@dataclass
class Client:
    """A connection pool to one server."""

    asked: Asked
    seconds: float
    """For one answer."""
    concurrency: int
    _http: httpx.AsyncClient = field(init=False)
    _key: str | None = None
    _renamed: bool = False
    """The server wants the newer name of `max_tokens`."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Client]:
        """The client with its connections."""
        self._key = self._read_key()
        async with httpx.AsyncClient(
            base_url=self.asked.target.base_url.rstrip("/"),
            timeout=httpx.Timeout(self.seconds, connect=min(CONNECT, self.seconds)),
            limits=httpx.Limits(max_connections=self.concurrency, keepalive_expiry=IDLE),
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "modeltiers-distill", "Accept-Encoding": "identity"},
        ) as self._http:
            yield self

    async def ask(self, body: bytes) -> Answer | Failure:
        """Ask for a chat completion, once; once more with a key that was changed meanwhile, or a field renamed."""
        used = self._key
        got = await self._completion(body)
        if isinstance(got, Failure) and got.kind is Kind.KEY and (key := self._read_key()) != used:
            self._key = key
            return await self._completion(body)
        if isinstance(got, Failure) and got.kind is Kind.REFUSED and RENAMED in got.said:
            self._renamed = True
            return await self._completion(body)
        return got

    async def _completion(self, body: bytes) -> Answer | Failure:
        found = await self._try("POST", "/chat/completions", renamed(body) if self._renamed else body)
        return found if isinstance(found, Failure) else read(*found)

    async def models(self) -> list[dict[str, Any]] | Failure:
        """The models that the server says it serves."""
        found = await self._try("GET", "/models", None)
        if isinstance(found, Failure):
            return found
        status, headers, body = found
        if status != 200:
            failure = read(status, headers, body)
            return failure if isinstance(failure, Failure) else Failure(Call.AGAIN, Kind.GARBAGE)
        try:
            listed = orjson.loads(body)["data"]
            return [model for model in listed if isinstance(model["id"], str)]
        except (ValueError, KeyError, TypeError):
            return Failure(Call.AGAIN, Kind.GARBAGE, "no list of models")

    async def _try(self, method: str, path: str, body: bytes | None) -> tuple[int, Mapping[str, str], bytes] | Failure:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(self.seconds),
                self._http.stream(method, path, content=body, headers=headers) as reply,
            ):
                content = bytearray()
                async for chunk in reply.aiter_bytes():
                    content += chunk
                    if len(content) > MOST:
                        said = f"more than {MOST >> 20} MiB"
                        return Failure(Call.AGAIN, Kind.GARBAGE, said, paid=True)
                if reply.status_code != 200 and self._key:  # servers quote the key that they refuse
                    content = content.replace(self._key.encode(), b"[key]")
                return reply.status_code, reply.headers, bytes(content)
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            return Failure(Call.AGAIN, Kind.CONNECTION, "it did not let us connect in time")
        except (httpx.TimeoutException, TimeoutError):
            return Failure(Call.AGAIN, Kind.TIMEOUT, f"{self.seconds:g} s", paid=True)
        except httpx.ConnectError as fault:
            return _unreached(fault)
        except httpx.HTTPError as fault:  # broken off, or not HTTP at all: the request may have been worked on
            return Failure(Call.AGAIN, Kind.SERVER, clean(f"{type(fault).__name__} {fault}"), paid=True)

    def _read_key(self) -> str | None:
        where = self.asked.target.key_file
        if where is None:
            return None
        try:
            key = Path(where).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise BadData(
                f"{self.asked.key_field}: its file cannot be read ({type(fault).__name__}): look at the Secret and key"
                " that it names",
                reason="KeyRefused",
                field=self.asked.key_field,
            ) from None
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise BadData(
                f"{self.asked.key_field}: the Secret's value is no key: it is empty, or holds spaces, line breaks or"
                " other than ASCII characters",
                reason="KeyRefused",
                field=self.asked.key_field,
            )
        return key


def _unreached(fault: httpx.ConnectError) -> Failure:
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failure(Call.STOP, Kind.UNTRUSTED, clean(cause.verify_message))
        cause = cause.__cause__ or cause.__context__
    return Failure(Call.AGAIN, Kind.CONNECTION, clean(str(fault)))
