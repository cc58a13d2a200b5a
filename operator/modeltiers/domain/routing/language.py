"""Which language a text is in, by its script and its commonest words, for the few languages that these can tell.

Where they cannot, it says so: a short text, a mixture, a language that is not listed. It never guesses.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import re2

from modeltiers.domain.routing.patterns import options
from modeltiers.domain.routing.text import words

SAMPLED: Final = 800
"""Characters at the beginning of a text that are looked at."""
LETTERS: Final = 20
"""Letters of a script that a text needs before it is told; scripts with a sign for a word need a quarter."""
WORDS: Final = 4
"""Common words that a text needs before its language is told among those of one script."""

_COMMON: Final = {
    "en": "the of and to is in that it was for on are with as be this have from or by not but what which you an will",
    "de": "der die das und ist nicht ein eine zu den mit von auf für im dem sich auch als wird sind es wie oder ich",
    "fr": "le la les des est et un une du dans que qui pour pas sur au avec ce il sont plus par cette nous vous être",
    "es": "el la los las de y en que es un una por con para del se no su al como más pero son está este lo",
    "it": "il la di che e un una per non sono del della con è le nel gli alla da più come anche questo dei si",
    "pt": "o a os as de e em que é um uma para com não do da dos por se mais como mas ao são na no está",
    "nl": "de het een en van is niet dat op te zijn voor met die aan er ook bij als maar om naar wordt deze hij",
}
_STOPWORDS: Final = {name: frozenset(row.encode().split()) for name, row in _COMMON.items()}
_EVERY: Final = frozenset[bytes]().union(*_STOPWORDS.values())
_SCRIPTS: Final = (
    ("kana", re.compile("[\u3040-\u30ff]")),
    ("hangul", re.compile("[\uac00-\ud7af]")),
    ("han", re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")),
    ("cyrillic", re.compile("[\u0400-\u04ff]")),
    ("greek", re.compile("[\u0370-\u03ff]")),
    ("hebrew", re.compile("[\u0590-\u05ff]")),
    ("arabic", re.compile("[\u0600-\u06ff]")),
    ("thai", re.compile("[\u0e00-\u0e7f]")),
    ("devanagari", re.compile("[\u0900-\u097f]")),
)
_OF_SCRIPT: Final = {
    "kana": frozenset({"ja"}),
    "hangul": frozenset({"ko"}),
    "han": frozenset({"zh"}),
    "cyrillic": frozenset({"ru", "uk", "bg", "sr", "be", "mk", "kk", "mn"}),
    "greek": frozenset({"el"}),
    "hebrew": frozenset({"he", "yi"}),
    "arabic": frozenset({"ar", "fa", "ur", "ps"}),
    "thai": frozenset({"th"}),
    "devanagari": frozenset({"hi", "mr", "ne", "sa"}),
}
KNOWN: Final = frozenset(_COMMON).union(*_OF_SCRIPT.values())
"""Languages that can be told, some only from those of another script."""
_DENSE: Final = frozenset({"kana", "hangul", "han"})
_FENCED: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NAMES: Final = {
    "english": "en", "englisch": "en", "anglais": "en", "inglés": "en",
    "german": "de", "deutsch": "de", "allemand": "de", "alemán": "de",
    "french": "fr", "französisch": "fr", "français": "fr", "francés": "fr",
    "spanish": "es", "spanisch": "es", "espagnol": "es", "español": "es",
    "italian": "it", "italienisch": "it", "italien": "it", "italiano": "it",
    "portuguese": "pt", "portugiesisch": "pt", "português": "pt",
    "dutch": "nl", "niederländisch": "nl", "nederlands": "nl",
    "russian": "ru", "russisch": "ru", "russe": "ru", "ruso": "ru",
    "chinese": "zh", "chinesisch": "zh", "chinois": "zh", "chino": "zh",
    "japanese": "ja", "japanisch": "ja", "japonais": "ja", "japonés": "ja",
    "korean": "ko", "koreanisch": "ko", "coréen": "ko",
    "arabic": "ar", "hebrew": "he", "greek": "el", "hindi": "hi", "thai": "th", "ukrainian": "uk",
}  # fmt: skip
_ASKED: Final = re.compile(rf"(?i)\b(?:in|into|to|ins|auf|en|nach|au|al) ({'|'.join(_NAMES)})\b")
_HINT: Final = re2.compile(_ASKED.pattern, options())


def languages(text: str) -> frozenset[str]:
    """Return the languages, by ISO 639-1, that a text may be in; empty when it cannot be told."""
    if "```" in text[:SAMPLED]:
        text = _FENCED.sub(" ", text[: 2 * SAMPLED])
    text = text[:SAMPLED]
    if not text.isascii():
        found = _by_script(text)
        if found is not None:
            return found
    return _by_words(text)


def _by_script(text: str) -> frozenset[str] | None:
    """Return the languages of the one script beside Latin that prevails; None where Latin does."""
    letters = sum(map(str.isalpha, text))
    counts = {name: len(sign.findall(text)) for name, sign in _SCRIPTS}
    if counts["kana"] * 10 > counts["han"]:
        counts["kana"] += counts.pop("han")
    name = max(counts, key=lambda one: counts[one])
    dense = name in _DENSE
    if counts[name] * (4 if dense else 2) <= letters:
        return None
    if counts[name] * (4 if dense else 1) < LETTERS:
        return frozenset()
    return _OF_SCRIPT[name]


def _by_words(text: str) -> frozenset[str]:
    row = words(text.lower().encode("utf-8", "replace"))
    common = Counter(filter(_EVERY.__contains__, row))
    if common.total() < WORDS:
        return frozenset()
    counts = sorted(
        ((sum([common[word] for word in known.intersection(common)]), name) for name, known in _STOPWORDS.items()),
        reverse=True,
    )
    (most, name), (second, _) = counts[:2]
    # One word in eight of any text in these languages is a common one; a table of names has fewer.
    if most < WORDS or most * 3 < second * 4 or most * 12 < len(row):
        return frozenset()
    return frozenset({name})


def wanted(last: str, system: str) -> frozenset[str]:
    """Return the languages that an answer may be in: the one that the request names, or else its own.

    Empty where it names several, or its own cannot be told.
    """
    named = asked(last, system)
    return languages(last) if named is None else frozenset({named} - {""})


def asked(last: str, system: str) -> str | None:
    """Return the language that a request names for its answer; None without one, "" where it names several."""
    text = f"{system}\n{last}"
    if _HINT.search(text) is None:
        return None
    found = {_NAMES[name.lower()] for name in _ASKED.findall(text)}
    return found.pop() if len(found) == 1 else "" if found else None
