"""Where the values of a JSON object lie in its bytes, and whether a key is given twice.

A decoder keeps the last of two values without a word; another reader may keep the first. It knows nothing of what the
fields mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from modeltiers.domain.routing.census import STRING

# A field up to its value, and what follows a value. Possessive: linear in what they pass over, whatever it is.
_KEY: Final = re.compile(rb"[ \t\n\r]*+(%b)[ \t\n\r]*+:[ \t\n\r]*+" % STRING, re.DOTALL).match
_NEXT: Final = re.compile(rb"[ \t\n\r]*+([,}])").match


def spans(raw: bytes, fields: Mapping[str, Raw]) -> dict[str, tuple[int, int]] | None:
    """Return where each value begins and ends, in the order of the bytes; None when a key is given twice.

    `fields` is `raw`, decoded: msgspec says how long each value is, not where, so the keys between them are walked
    over. Of a key given twice it keeps the last value: the walk meets the key again, or bytes that are not its value's.
    """
    found = dict[str, tuple[int, int]]()
    at, last = raw.index(b"{") + 1, b","
    while last == b"," and (field := _KEY(raw, at)) is not None:
        key, begin = _text(field[1]), field.end()
        value = None if key in found else fields.get(key)
        if value is None:
            return None
        said = bytes(value)
        end = begin + len(said)
        if raw[begin:end] != said or (follows := _NEXT(raw, end)) is None:
            return None
        found[key] = begin, end
        at, last = follows.end(), follows[1]
    return found if len(found) == len(fields) else None


def _text(string: bytes) -> str:
    return string[1:-1].decode() if b"\\" not in string else msgspec.json.decode(string, type=str)
