"""Who may ask: API keys as hashes in a mounted file, read again when it changes.

A key is looked up by its SHA-256. The time that takes says nothing of the keys that are known: an attacker cannot
choose a digest, only a key, and learns from a near miss no more than from any other.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from modeltiers.domain.routing.table import Access, Name
from modeltiers.router.replies import Refusal

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
LONGEST: Final = 512
MOST_NAMED: Final = 20
"""How many missing keys are told."""


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """One key: a name for limits and records, and the hash of the secret."""

    name: Name
    sha256: Digest


class KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    keys: Annotated[list[Key], Meta(max_length=10_000)]


class KeyRing:
    """The keys in force."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._by_digest: dict[bytes, str] = {}
        self.error: str | None = None
        self.generation = 0
        """Another number stands for other keys: what was found of a key before holds no more."""
        self.reload()

    def reload(self) -> bool:
        """Read the file again if it changed; an invalid one is refused and the keys at hand stay."""
        if self._path is None:
            return False
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            keys = msgspec.json.decode(self._path.read_bytes(), type=KeyFile).keys
        except (OSError, msgspec.DecodeError) as error:
            self.error = f"{self._path.name}: {error}"
            return False
        self._by_digest = {bytes.fromhex(key.sha256): key.name for key in keys}
        self.generation += 1
        self.error = None
        return True

    @property
    def known(self) -> set[str]:
        """The names of the keys in force."""
        return set(self._by_digest.values())

    def missing(self, access: Access) -> list[str]:
        """Return the first keys that a policy names and nobody can show: they are not in the file."""
        return [] if access.mode == "Open" else sorted(set(access.keys) - self.known)[:MOST_NAMED]

    def check(self, authorization: bytes | None) -> str:
        """Return the name of the key that a request shows; raises Refusal."""
        if authorization is None:
            raise Refusal(401, "an API key is missing; send it as Authorization: Bearer KEY", code="missing_api_key")
        scheme, _, key = authorization.partition(b" ")
        key = key.strip()
        if scheme.lower() != b"bearer" or not key or len(key) > LONGEST:
            raise Refusal(401, "the header authorization must be: Bearer KEY", code="invalid_api_key")
        name = self._by_digest.get(hashlib.sha256(key).digest())
        if name is None:
            raise Refusal(401, "the API key is not known here", code="invalid_api_key")
        return name
