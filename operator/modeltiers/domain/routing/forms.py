"""Whether an answer has the form that was asked for, and whether it refuses or says that it does not know.

Signs, not understanding: each is chosen so that what it says is wrong is wrong indeed; a doubtful answer passes.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import re2

from modeltiers.domain.routing.arithmetic import has_number
from modeltiers.domain.routing.patterns import options as _options

OPENING: Final = 240
"""Characters at the beginning in which a refusal is looked for."""
_JSON_FENCE: Final = re.compile(r"```(?:json|JSON)?\s*\n(.*?)```", re.DOTALL)
_ITEM: Final = re.compile(r"(?m)^[ \t]*(?:[-*+•–]|\(?\d{1,3}[.)]|[a-zA-Z][.)])[ \t]+\S")
_ROW: Final = re.compile(r"(?m)^[ \t]*\|?[^|\n]*\|[^\n]*$")
_RULE: Final = re.compile(r"(?m)^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t:-]*)+$")
_CODE: Final = re.compile(
    r"(?m)```|^[ \t]*(?:def |class |function |import |from \w+ import|#include|SELECT |INSERT |CREATE |public |private "
    r"|const |let |var |fn |func |return\b|<\w+[^>]{0,200}>|#!/)|[;{}][ \t]*$"
)
_YES: Final = "yes true correct yeah ja oui vrai sí si sim да 是 はい"
_NO: Final = "no false incorrect nope nein non faux não нет 不是 いいえ"
_YES_NO: Final = frozenset(f"{_YES} {_NO}".split())
_WORD: Final = re.compile(r"[^\W\d_]+")


def has_form(form: str, text: str, options: tuple[str, ...] = ()) -> bool:
    """Whether a text has a form; for Choice, one of the options by its letter."""
    if form == "JSON":
        return _is_json(text)
    if form == "List":
        return len(_ITEM.findall(text)) > 1
    if form == "Table":
        return (_RULE.search(text) is not None and len(_ROW.findall(text)) > 2) or "<table" in text
    if form == "Code":
        return _CODE.search(text) is not None
    if form == "YesNo":
        return _says_yes_or_no(text)
    if form == "Choice":
        return _chooses(text, options)
    return has_number(text)


def _is_json(text: str) -> bool:
    found = _JSON_FENCE.search(text) if "```" in text else None
    try:
        msgspec.json.decode(found.group(1) if found else text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _says_yes_or_no(text: str) -> bool:
    """Whether the first words or the last line say yes or no."""
    body = text.strip()
    words = _WORD.findall(body[:80].lower())[:4] + _WORD.findall(body.rpartition("\n")[2][-120:].lower())
    return not _YES_NO.isdisjoint(words) or body[:2] in ("是的", "不是") or body[:1] in ("是", "否")


def _chooses(text: str, options: tuple[str, ...]) -> bool:
    labels = "".join(options) or "ABCDEFGH"
    return re.search(rf"(?<![\w'])[{labels}](?![\w'])", text) is not None


# --- refusals ---------------------------------------------------------------------------------------------------------

_ABLE: Final = (
    r"(?:help|assist|provide|answer|fulfil|fulfill|comply|complete|do that|do this|discuss|create|generate|write|offer"
    r"|give|share|support|engage|participate|browse|access|process|continue|respond|advise|recommend)"
)
_CANNOT: Final = (
    r"(?: can't| cannot| can not| won't| will not| am not able to|'m not able to| am unable to|'m unable to"
    r"| must decline to| have to decline to)"
)
_REFUSALS: Final = (
    rf"(?:^|[.!?,\n] ?|\b(?:sorry|but|unfortunately),? )(?:i|we){_CANNOT}(?: \w+){{0,2}} {_ABLE}\b",
    r"(?:^|[.!?,\n] ?|\bbut )i(?:'m| am) (?:unable|not able) to\b",
    r"\bas an ai(?: language model| assistant| model)?\b",
    r"\bi(?:'m| am) (?:just )?an ai\b",
    r"^(?:i'm |i am )?(?:very |so )?sorry,? (?:but )?(?:i|we) (?:can't|cannot|can not|won't|don't)\b",
    r"\b(?:es )?tut mir leid,? (?:aber )?(?:ich|das|dabei)\b",
    r"\bich kann (?:ihnen |dir )?(?:dabei |damit )?(?:leider )?nicht (?:helfen|weiterhelfen)\b",
    r"\bje (?:ne peux pas|suis désolée?,? mais)\b",
    r"\blo siento,? pero\b",
    r"\bno puedo (?:ayudar|proporcionar|responder)",
    r"抱歉,?，?我(?:无法|不能)|我无法(?:回答|提供|帮助)",
)
_HAD: Final = r"(?:information|knowledge|data|details|access|context)"
_HEDGES: Final = (
    r"\bi (?:really |honestly )?(?:don't|do not) know\b(?:[^a-z]|$| the (?:answer|exact)|,| how to| what)",
    r"\bi(?:'m| am) (?:really )?not (?:entirely |quite |really |completely )?(?:sure|certain)\b",
    rf"\bi (?:don't|do not) have (?:any |enough |sufficient |the )?(?:specific )?{_HAD}\b",
    r"\bi have no (?:idea|information|way of knowing)\b",
    r"\bich (?:weiß|bin mir) (?:es )?nicht\b",
    r"\bje ne sais pas\b",
    r"\bno (?:lo )?sé\b",
    r"我不(?:知道|确定|清楚)",
)
_REFUSAL: Final = re2.compile("|".join(f"(?:{one})" for one in _REFUSALS), _options())
_HEDGE: Final = re2.compile("|".join(f"(?:{one})" for one in _HEDGES), _options())


def refuses(text: str) -> bool:
    """Whether a text begins with a refusal: a first person that says it cannot or will not."""
    return _REFUSAL.search(_plain(text[:OPENING])) is not None


def hedges(text: str) -> bool:
    """Whether a text says, at its beginning or its end, that its author does not know."""
    both = text if len(text) <= 2 * OPENING else f"{text[:OPENING]}\n{text[-OPENING:]}"
    return _HEDGE.search(_plain(both)) is not None


def _plain(text: str) -> str:
    return text.strip().lower().replace("’", "'")
