"""Sessions with the API server: where it is, whom to trust, who we are. The official client reads the configuration.

Its ApiClient is not used on the wire: it copies every object it sends and builds model classes from every answer,
and we speak plain dicts (docs/adr/0004). Credentials are asked for at every request and read anew when
they are refused, so a rotated token needs no restart.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

USER_AGENT: Final = "modeltiers-operator"
ANSWERED_LATELY: Final = 60.0
REREAD_EVERY: Final = 5.0
"""Credentials that stay refused are read again no more often than this; it may start a program each time."""


class BadConnection(Exception):
    """There is no usable way to the API server; the text says what to set."""


class Connection:
    """The way to one API server, shared by everything that talks to it."""

    def __init__(self, configuration: Any, reread: Callable[[Any], Awaitable[None]]) -> None:
        self._configuration = configuration
        self._reread = reread
        self._reread_at = 0.0
        self._rereading = asyncio.Lock()
        self.server: str = configuration.host.rstrip("/")
        self._trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            self._trust.load_cert_chain(configuration.cert_file, configuration.key_file)
        # Since 3.13 Python asks certificates for more than Go does, and many clusters' own CAs do not have it.
        self._trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not configuration.verify_ssl:
            self._trust.check_hostname = False
            self._trust.verify_mode = ssl.CERT_NONE
        self._sessions: list[aiohttp.ClientSession] = []
        self._answered: float | None = None
        self.session = self._open()

    def _open(self, trace: aiohttp.TraceConfig | None = None) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._trust),
            headers={"User-Agent": USER_AGENT},
            middlewares=(self._authorize,),
            proxy=self._configuration.proxy or None,
            trace_configs=[trace] if trace else [],
        )
        self._sessions = [known for known in self._sessions if not known.closed] + [session]
        return session

    async def traced(self, trace: aiohttp.TraceConfig) -> tuple[str, aiohttp.ClientSession]:
        """Another session of the same kind with hooks of the caller's; whoever takes it closes it."""
        return self.server, self._open(trace)

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._configuration.tls_server_name:
            request.server_hostname = self._configuration.tls_server_name
        token = await self._token()
        if token is None:
            return await handler(request)
        request.headers["Authorization"] = token
        response = await handler(request)
        if response.status != 401:
            return response
        fresh = await self._fresh_token(token)
        if fresh is None or fresh == token:
            return response
        response.release()
        request.headers["Authorization"] = fresh
        return await handler(request)

    async def _token(self) -> str | None:
        settings = await self._configuration.auth_settings()
        value: str | None = settings.get("BearerToken", {}).get("value")
        return value or None

    async def _fresh_token(self, refused: str) -> str | None:
        """The token after it was refused: many requests are refused at once, and one of them reads it again."""
        async with self._rereading:
            current = await self._token()
            if current != refused or time.monotonic() - self._reread_at < REREAD_EVERY:
                return current
            self._reread_at = time.monotonic()
            try:
                await self._reread(self._configuration)
            except (config.ConfigException, OSError):
                return current  # half-written or gone for a moment; the refusal stands, and the caller tries again
            return await self._token()

    def answered(self) -> None:
        """Note that the server has just answered something."""
        self._answered = time.monotonic()

    def answering(self) -> bool:
        """Whether the server answered lately."""
        return self._answered is not None and time.monotonic() - self._answered < ANSWERED_LATELY

    async def close(self) -> None:
        """Close every session."""
        for session in self._sessions:
            await session.close()


async def connect(kubeconfig: Path | None = None) -> Connection:
    """Connect by this kubeconfig, else as the pod's ServiceAccount. A kubeconfig that nobody named is not used."""
    if kubeconfig is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise BadConnection("not in a pod and no kubeconfig named: set MODELTIERS_KUBECONFIG to a kubeconfig file")

    async def read(into: Any) -> None:
        if kubeconfig:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=into, persist_config=False)
        else:
            config.load_incluster_config(client_configuration=into)

    configuration = Configuration()
    try:
        await read(configuration)
    except (config.ConfigException, OSError) as fault:
        raise BadConnection(f"cannot connect: {fault}") from None
    return Connection(configuration, read)
