"""Makes the key with which the routers of a namespace sign what they forward to each other, once a namespace.

The key is random, written by an apply that creates or fails, and never read: the operator may not. So a key that is
there stays, whoever made it. It goes with its namespace.
"""

from __future__ import annotations

import base64
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers import names
from modeltiers.kube import errors
from modeltiers.kube.client import CREATE_ONLY, Api

log = logging.getLogger(__name__)

BYTES: Final = 64


RENEW: Final = 300.0
"""Seconds between two tries where routers say that they have no key: nodes need a minute or two to bring one."""


@dataclass(eq=False)
class HopKeys:
    """The hop keys of namespaces."""

    api: Api
    clock: Callable[[], float] = time.monotonic
    _tried: dict[str, float] = field(default_factory=dict)

    async def ensure(self, namespace: str) -> None:
        """Make the namespace's key if it has none. Raises ApiFault."""
        try:
            await self.api.apply(_secret(namespace, secrets.token_bytes(BYTES)))
        except errors.Conflict:
            return  # there is one
        log.info("made Secret %s/%s", namespace, names.HOP_SECRET)

    async def renew(self, namespace: str) -> errors.ApiFault | None:
        """Make the key of a namespace whose routers say that they have none, now and then; returns what failed."""
        now = self.clock()
        if now - self._tried.get(namespace, -RENEW) < RENEW:
            return None
        try:
            await self.ensure(namespace)
        except errors.ApiFault as fault:
            return fault
        self._tried = {where: when for where, when in self._tried.items() if now - when < RENEW} | {namespace: now}
        return None


def _secret(namespace: str, key: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.HOP_SECRET,
            "namespace": namespace,
            "resourceVersion": CREATE_ONLY,
            "labels": {names.LABEL_MANAGED_BY: names.FIELD_MANAGER},
        },
        "type": "Opaque",
        "data": {names.HOP_KEY: base64.b64encode(key).decode()},
    }
