"""The number that an answer ends with, exactly: signs, thousands, decimals, powers of ten, simple fractions.

A comma stands between thousands and a point before decimals; what is written the other way is misread, as in English.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from typing import Any, Final

_DIGITS: Final = r"(?:[0-9]{1,3}(?:[,\u202f\u00a0][0-9]{3})+|[0-9]{1,64})(?:\.[0-9]{1,64})?|\.[0-9]{1,64}"
_NUMBER: Final = re.compile(
    rf"(?<!\w)(?<![0-9]\.)(?P<minus>(?<![0-9)\]] )(?<![\w)\]])[-+][$€£]?)?[$€£]?(?P<whole>{_DIGITS})"
    r"(?:[eE](?P<e>[-+]?[0-9]{1,3})(?![\w])|\s?[×x*]\s?10\s?\^\s?\{?(?P<ten>[-+]?[0-9]{1,3})\}?)?"
    r"(?:\s?/\s?(?P<below>[0-9]{1,64})(?![0-9./]))?(?![0-9])"
)
_FRACTION: Final = re.compile(r"(-?)\\d?frac\{(-?[0-9.]{1,64})\}\{([0-9.]{1,64})\}")
_ALIKE: Final = {
    **dict.fromkeys(map(ord, "\u2212\u2013\ufe63\uff0d"), "-"),
    **{0xFF10 + digit: str(digit) for digit in range(10)},
    0xFF0E: ".",
}
"""Signs of minus, and digits as Chinese and Japanese texts have them."""


def last_number(text: str) -> Fraction | None:
    """The last number of a text; None without one."""
    found = deque(_NUMBER.finditer(_plain(text)), maxlen=1)
    return _value(found[0]) if found else None


def number_of(expected: Any) -> Fraction | None:
    """The number that is expected: a number of JSON, or a text that ends with one."""
    if isinstance(expected, bool) or expected is None:
        return None
    if isinstance(expected, (int, float)):
        return Fraction(repr(expected))
    return last_number(expected) if isinstance(expected, str) else None


def _plain(text: str) -> str:
    text = text.translate(_ALIKE)
    return _FRACTION.sub(r" \1\2/\3 ", text) if "frac{" in text else text


def _value(found: re.Match[str]) -> Fraction:
    value = Fraction(re.sub("[,\u202f\u00a0]", "", found["whole"]))
    if (power := found["e"] or found["ten"]) is not None:
        value *= Fraction(10) ** int(power)
    if found["below"] is not None and int(found["below"]):
        value /= int(found["below"])
    return -value if (found["minus"] or "").startswith("-") else value
