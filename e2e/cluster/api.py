"""Ask a component one question over HTTP, as the administrator: for readiness checks, where kubectl is too slow."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Api:
    """The components of one cluster behind 127.0.0.1, trusted by its own authority."""

    pki: Path

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        return context

    def answers(self, port: int, path: str) -> bool:
        """Tell whether GET `path` is 200 now."""
        return self.get(port, path) is not None

    def get_json(self, port: int, path: str) -> Any:
        """Return the JSON answer to GET `path`; None when it is not 200 now."""
        body = self.get(port, path)
        return None if body is None else json.loads(body)

    def get(self, port: int, path: str) -> bytes | None:
        """Return the body of GET `path`; None when there is no answer, or none with status 200."""
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=self._trust)) as wire:
            try:
                wire.request("GET", path)
                response = wire.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                return None
        return body if response.status == http.client.OK else None
