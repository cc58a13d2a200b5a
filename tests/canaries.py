"""Words that the suites plant where secrets are, and the look for them in all that our programs wrote.

A prompt, an answer, a client's or provider's key and a cookie: each is on the wire and in its own file only. Whoever
starts one of our programs in a test hands what it wrote to `look`, when it ends.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PROMPT: Final = "CANARY-PROMPT-7f3a"
ANSWER: Final = "CANARY-ANSWER-9c1d"
KEY: Final = "sk-CANARY-KEY-5b2e"
COOKIE: Final = "CANARY-COOKIE-c07e"
ALL: Final = (PROMPT, ANSWER, KEY, COOKIE)
LARGEST: Final = 64 << 20
"""Files beyond it are models."""


def found(text: str | bytes, words: Iterable[str] = ALL) -> list[str]:
    """The planted words that are in a text, as they are or in Base64."""
    data = text.encode() if isinstance(text, str) else text
    return [word for word in words if any(form in data for form in _forms(word))]


def in_files(folder: Path, words: Iterable[str] = ALL, names: str = "*", but: Iterable[Path] = ()) -> list[str]:
    """Each file below a folder that holds a planted word, with the word."""
    passed = {path.resolve() for path in but}
    files = (path for path in sorted(folder.rglob(names)) if path.is_file() and path.resolve() not in passed)
    return [
        f"{word} in {path}"
        for path in files
        if path.stat().st_size <= LARGEST
        for word in found(path.read_bytes(), words)
    ]


def look(what: str, text: str | bytes, words: Iterable[str] = ALL) -> None:
    """Fail when a planted word is in what a program wrote."""
    assert not (seen := found(text, words)), f"{what} shows {', '.join(seen)}"


def _forms(word: str) -> list[bytes]:
    """The word itself, and the part of its Base64 that does not depend on what is around it, at each offset."""
    plain = word.encode()
    encoded = []
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + plain)
        encoded.append(text[4 if offset else 0 : (offset + len(plain)) // 3 * 4])
    return [plain, *encoded]
