"""Signs and checks the header of a request that one router forwards to another router of the same table.

A hop says: this was judged and admitted already, serve it with the tier at hand. Only a holder of the key can say so.
Knows nothing of tables, and not what the request is.

A header that is present and not ours is refused, never taken for absent. A client without the key gains nothing by
sending one; and two routers that hold different keys would otherwise take each other's hops for fresh requests and
forward them in a circle.
"""

from __future__ import annotations

import hmac
import re
from collections import deque
from pathlib import Path
from typing import Final

from msgspec import Struct

from modeltiers.router.replies import Refusal

HEADER: Final = b"x-modeltiers-hop"
LEAST: Final = 32
MOST: Final = 4_096
"""How many bytes a key has."""
HOPS: Final = 3
"""The most hops of one request."""
WINDOW: Final = 60
"""How far, in seconds, a hop's time may lie from ours."""
SETTLE: Final = 120.0
"""How long, in seconds, a new key only checks: a mounted Secret reaches the last pod that late."""
GRACE: Final = 300.0
"""How long, in seconds, a key that was replaced still checks."""
KEPT: Final = 4
"""How many keys are held at once, however fast the file changes."""
_LABEL: Final = b"modeltiers-hop-1\n"
_SHAPE: Final = re.compile(
    rb"([0-9]{1,3})\.([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\.([A-Za-z0-9._-]{1,64})\.([0-9]{1,12})\.([0-9a-f]{64})"
)


class Hop(Struct, frozen=True):
    """A request that another router has judged."""

    count: int
    policy: str
    version: str


class HopKey:
    """The key of a namespace's routers, read again when its file changes.

    A new key checks at once and signs after `SETTLE`, when every router has it; the old one checks until `GRACE` is
    over. Without a file, or before the first good one, nothing is signed and every hop is refused.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: deque[tuple[bytes, float]] = deque(maxlen=KEPT)
        """Newest first, each with the time at which it was read."""
        self._signing = b""
        self.error: str | None = None
        self.reload(0.0)

    @property
    def signs(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._signing)

    def reload(self, now: float) -> bool:
        """Read the file if it changed, and let keys come of age; returns whether a new key was taken.

        `now` is monotonic seconds. A bad file is refused and the keys at hand stay.
        """
        fresh = self._read()
        if fresh is not None:
            self._take(fresh, now)
        self._age(now)
        return fresh is not None

    def _read(self) -> bytes | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                return None
            key = self._path.read_bytes() if found.st_size <= MOST else b""
        except OSError as error:
            self._stamp = None
            self.error = f"{self._path.name}: {error.strerror or 'cannot be read'}"
            return None
        self._stamp = stamp
        if not LEAST <= len(key) <= MOST:
            self.error = f"{self._path.name}: a hop key has {LEAST} to {MOST} bytes; put random ones in the file"
            return None
        self.error = None
        return key

    def _take(self, key: bytes, now: float) -> None:
        self._keys = deque(((old, since) for old, since in self._keys if old != key), maxlen=KEPT)
        self._keys.appendleft((key, now))
        if not self._signing:
            self._signing = key  # there is no older one that the others could know

    def _age(self, now: float) -> None:
        """Let the newest key that has settled sign, and drop those replaced for longer than the grace."""
        while len(self._keys) > 1 and now - self._keys[-2][1] >= GRACE:
            self._keys.pop()
        settled = [key for key, since in self._keys if now - since >= SETTLE]
        if settled:
            self._signing = settled[0]
        elif self._keys and self._signing not in [key for key, _ in self._keys]:
            self._signing = self._keys[-1][0]

    def sign(self, policy: str, version: str, count: int, now: float) -> bytes:
        """Return the header's value for a request that is forwarded now; `now` is unix seconds.

        A first hop has the count 1, a further one that of the hop it came with and 1. Raises Refusal for one too many.
        """
        if count > HOPS:
            raise _loop()
        said = b"%d.%b.%b.%d" % (count, policy.encode(), version.encode(), int(now))
        return b"%b.%b" % (said, _mac(self._signing, said))

    def check(self, value: bytes | None, policy: str | None, version: str | None, now: float) -> Hop | None:
        """Return the hop that a request came with, None when it has no such header; raises Refusal for all else.

        `now` is unix seconds; None for policy or version takes any. 403: not signed by a router of ours. 503: signed,
        and of another time, policy or table, so that the sender falls back. 508: it went in a circle.
        """
        if value is None:
            return None
        found = _SHAPE.fullmatch(value)
        if found is None or not self._known(value, found[5]):
            raise Refusal(403, "the header x-modeltiers-hop is not for clients; leave it out", code="hop_refused")
        hop = Hop(int(found[1]), found[2].decode(), found[3].decode())
        if abs(int(found[4]) - int(now)) > WINDOW:
            raise _other("hop_expired", "was signed more than a minute from now; set the clocks of the nodes")
        if policy is not None and hop.policy != policy:
            raise _other("hop_policy", "is of another policy")
        if version is not None and hop.version != version:
            raise _other("hop_version", "is of another version of the table")
        if not 1 <= hop.count <= HOPS:
            raise _loop()
        return hop

    def _known(self, value: bytes, mac: bytes) -> bool:
        said = value[: -len(mac) - 1]
        fits = False
        for key, _ in self._keys:  # all of them: the time tells nothing of which one fits
            fits |= hmac.compare_digest(_mac(key, said), mac)
        return fits


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, _LABEL + said, "sha256").hex().encode()


def _loop() -> Refusal:
    return Refusal(508, f"the request went through more than {HOPS} routers; tiers point in a circle", code="hop_loop")


def _other(code: str, problem: str) -> Refusal:
    return Refusal(503, f"the forwarded request {problem}", code=code, retry_after=1)
