"""Whether a JSON text holds more values or fields than anybody means: found before objects are made of it.

A few bytes of JSON become a hundred of memory, so a large body of empty lists would hurt. It counts signs outside
strings and knows nothing of what they mean; that the text is JSON is for the decoder to say.
"""

from __future__ import annotations

import re
from typing import Final

LARGE: Final = 256 * 1024
"""Bytes from which a text is counted; what is smaller cannot become much."""
MOST: Final = 100_000
"""Values, or fields, that a text may hold: ten thousand messages in parts are half of it."""
STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
"""A JSON string, for a pattern with DOTALL. It never goes back, so its time is that of the string's length."""


def _more(signs: bytes) -> re.Pattern[bytes]:
    """Return a pattern that matches a text with more than MOST of some signs outside its strings."""
    other = rb'[^"%b]*+' % signs
    return re.compile(rb"(?:%b(?:%b%b)*+[%b]){%d}" % (other, STRING, other, signs, MOST + 1), re.DOTALL)


_VALUES: Final = _more(rb",\[{")
_NESTED: Final = _more(rb"\[{")
_FIELDS: Final = _more(rb":")


def many_values(raw: bytes | memoryview) -> bool:
    """Whether a text of LARGE bytes or more holds more than MOST values, each list and object being one."""
    if len(raw) < LARGE:
        return False
    held = bytes(raw)
    # In strings too; but a count is quick, and a long text of few commas is the common one.
    return held.count(b",") + held.count(b"[") + held.count(b"{") > MOST and _VALUES.match(held) is not None


def many_prompts(raw: bytes | memoryview) -> bool:
    """Whether a prompt of LARGE bytes or more holds more than MOST texts or lists; the tokens in lists do not count."""
    if len(raw) < LARGE:
        return False
    held = bytes(raw)
    if held.startswith(b'"'):
        return False
    if b'"' in held:
        return many_values(held)
    return held.count(b"[") + held.count(b"{") > MOST and _NESTED.match(held) is not None


def many_fields(raw: bytes) -> bool:
    """Whether a text of LARGE bytes or more holds more than MOST fields, in all its objects together."""
    return len(raw) >= LARGE and raw.count(b":") > MOST and _FIELDS.match(raw) is not None
