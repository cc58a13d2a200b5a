"""What is looked at of a prompt's text: both ends of a long one, case folded, cut into words. It gives them no meaning.

Bounded: at most LOOKED_AT characters from each end, whatever the length.
"""

from __future__ import annotations

import unicodedata
from typing import Final

LOOKED_AT: Final = 8_192
"""Characters from each end of the last user message that rules and features look at; what lies between is not."""

# Punctuation beyond ASCII that separates words. str.translate would ask a dict for each letter of a text in Russian.
_SEPARATORS: Final = "“”„‘’‚«»‹›–—―…•·¿¡、。，！？；：（）「」『』【】《》\u00a0\u3000\u200b"  # noqa: RUF001 - that is the point
_TO_WORDS: Final = bytes(c if c >= 128 or chr(c).isalnum() else 32 for c in range(256))
_UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def ends(text: str) -> str:
    """Return a text, or its first and last LOOKED_AT characters on two lines."""
    return text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"


def fold(text: str) -> str:
    """Return a text with case and forms of accents made alike, and punctuation beyond ASCII as spaces."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFC", text).casefold()
    for separator in _SEPARATORS:
        if separator in text:
            text = text.replace(separator, " ")
    return text


def words(folded: bytes) -> list[bytes]:
    """Return the words of a folded text in UTF-8: what stands between spaces and ASCII punctuation."""
    return folded.translate(_TO_WORDS).split()


def unspaced(text: str) -> bool:
    """Whether a text has letters of a script that writes no spaces between words."""
    return any(low <= ord(char) <= high for char in text for low, high in _UNSPACED)


def stands_alone(text: str, word: str) -> bool:
    """Whether a word is in a text and not inside another word; both are folded."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        before, after = text[at - 1 : at] if at else "", text[end : end + 1]
        if not (before.isalnum() and word[0].isalnum()) and not (after.isalnum() and word[-1].isalnum()):
            return True
        at = text.find(word, at + 1)
    return False
