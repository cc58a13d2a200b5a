"""The files that an external tier needs: its API key and the certificates that it is trusted by.

Both are read again when they change, so that a mounted Secret may rotate. What is wrong with a file is said in one
word; nothing of the key is in any message.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

KEY_BYTES: Final = 8_192
_KEY: Final = re.compile(rb"[!-~]+")


class Secret:
    """A file with an API key, read again when it changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._value: bytes | None = None
        self.problem: str | None = None

    def read(self) -> bytes | None:
        """Return the key; None when there is none, and `problem` says why unless none is needed."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp != self._stamp:
                self._value = self._parse(self._path.read_bytes() if found.st_size <= KEY_BYTES else b"\0")
                self._stamp = stamp
        except OSError:
            self._stamp = self._value = None
            self.problem = "APIKeyMissing"
        return self._value

    def _parse(self, content: bytes) -> bytes | None:
        key = content.strip()
        self.problem = None if _KEY.fullmatch(key) else "APIKeyInvalid" if key else "APIKeyEmpty"
        return key if self.problem is None else None


class Trust:
    """The certificates that a tier's may be signed with, read again when their file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._context: ssl.SSLContext | None = None
        self.problem: str | None = None

    def load(self) -> None:
        """Read the file if it changed; takes milliseconds, so not in the event loop. A bad one keeps what is in use."""
        if self._path is None:
            self._context = self._context or ssl.create_default_context()
            return
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp != self._stamp:
                self._context = ssl.create_default_context(cafile=str(self._path))
                self._stamp, self.problem = stamp, None
        except (OSError, ValueError):  # an SSLError is an OSError
            self.problem = "CABundleInvalid"

    @property
    def context(self) -> ssl.SSLContext | None:
        """What is in force, if anything was ever good."""
        return self._context
