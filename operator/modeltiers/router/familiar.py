"""A reply's head that the parser has found good: a server writes the same again, but for its date and its length.

What is the same, and another date and length, would parse to the same; so only the two are read. Strict where it
matters: a date is one as RFC 9110 writes it, the length is of digits alone, and nothing may follow the body.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from modeltiers.router.connection import Head

LONGEST: Final = 4_096
"""A head that is longer is not learned."""
LESSONS: Final = 16
"""How often a server's head is learned anew, before it is taken that each is different."""
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,9})(?=\r\n)")
_ANY_DATE: Final = rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
_DATE: Final = re.compile(rb"\r\n[Dd]ate: (%b)(?=\r\n)" % _ANY_DATE)


def learn(data: bytes, made: Head) -> Familiar | None:
    """Return what a read teaches of which the parser made this head; nothing unless it was one reply with a length."""
    size = data.find(b"\r\n\r\n") + 4
    head = data[:size]
    length = _LENGTH.search(head)
    if size < 4 or size > LONGEST or length is None or int(length[1]) != len(data) - size:
        return None
    if [name for name, _ in made.headers].count(b"content-length") != 1:
        return None
    cuts = [(length.span(1), rb"([0-9]{1,9})")]
    date = _DATE.search(head)
    if date is not None:
        cuts.append((date.span(1), _ANY_DATE))
    pattern, at = b"", 0
    for (begin, end), hole in sorted(cuts):
        pattern += re.escape(head[at:begin]) + hole
        at = end
    return Familiar(re.compile(pattern + re.escape(head[at:])), made)


class Familiar:
    """Such a head, and what the parser made of it the first time, date and length included."""

    __slots__ = ("_match", "head")

    def __init__(self, pattern: re.Pattern[bytes], head: Head) -> None:
        self._match, self.head = pattern.match, head

    def body(self, data: bytes) -> bytes | None:
        """Return the body, if this is a whole reply with this head, and nothing else."""
        found = self._match(data)
        if found is None:
            return None
        body = data[found.end() :]
        return body if len(body) == int(found[1]) else None
