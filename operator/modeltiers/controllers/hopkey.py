"""Makes the key with which the routers of a namespace sign what they forward to each other, once a namespace.

The key is random, written by an apply that creates or fails, and never read: the operator may not. So a key that is
there stays, whoever made it. It goes with its namespace.
"""

from __future__ import annotations

import base64
import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final

from modeltiers import names
from modeltiers.controllers.children import CREATE_ONLY
from modeltiers.kube import errors
from modeltiers.kube.client import Api

log = logging.getLogger(__name__)

BYTES: Final = 64


@dataclass(frozen=True)
class HopKeys:
    """The hop keys of namespaces."""

    api: Api

    async def ensure(self, namespace: str) -> None:
        """Make the namespace's key if it has none. Raises ApiFault."""
        try:
            await self.api.apply(_secret(namespace, secrets.token_bytes(BYTES)))
        except errors.Conflict:
            return  # there is one
        log.info("made Secret %s/%s", namespace, names.HOP_SECRET)


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
