"""Statements of arithmetic in a text, `a op b = c`, and whether they hold: exactly, with fractions, nothing guessed.

A statement that is part of a longer expression, or whose numbers could be read in two ways, is passed over. Numbers of
more than 15 digits are not looked at, so the cost of one statement is bounded.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

import re2

from modeltiers.domain.routing.patterns import options

STATEMENTS: Final = 48
"""How many equals signs of a text are looked at."""
WINDOW: Final = 48
"""Characters on each side of an equals sign in which its numbers must stand."""
_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,12})?"
_LEFT: Final = re.compile(rf"(-?{_NUMBER})[ ]{{0,2}}([-+*/x×÷·−])[ ]{{0,2}}[$€£]?(-?{_NUMBER})[ ]{{0,2}}\Z")
_RIGHT: Final = re.compile(rf"[ ]{{0,2}}[$€£]?(-?{_NUMBER})")
_AMBIGUOUS: Final = re.compile(r"-?\d{1,3}\.\d{3}")
_FENCED: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_POWER: Final = re.compile(r"([\d)]) ?\*\* ?(?=[\d(])")
_BEFORE: Final = frozenset("+-*/×÷·−^%.,)]}_\\")
_AFTER: Final = frozenset("+-*/×÷·−^%([{_=\\!")
_DIGITS: Final = re.compile(r"\d")
_WORDS: Final = re2.compile(
    r"(?i)\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety|hundred|thousand|million|none|null|eins|zwei|drei|vier|fünf|deux|trois|quatre|cinq|dos"
    r"|tres|cuatro|cinco)\b|[一二三四五六七八九十百千万零]",
    options(),
)


def has_number(text: str) -> bool:
    """Whether a text states a number, in digits or as a word."""
    return _DIGITS.search(text) is not None or _WORDS.search(text) is not None


def false_statement(text: str) -> bool:
    """Whether a text states a sum, difference, product or quotient of two numbers that is wrong.

    Code between fences is not looked at. A result with decimals may be rounded or cut at its last one.
    """
    if "=" not in text:
        return False
    if "```" in text:
        text = _FENCED.sub("\n", text)
    if "\\" in text:
        text = text.replace("\\times", "×").replace("\\cdot", "·").replace("\\div", "÷")
    at = 0
    for _ in range(STATEMENTS):
        at = text.find("=", at) + 1
        if not at:
            return False
        before, after = text[max(0, at - 1 - WINDOW) : at - 1], text[at : at + WINDOW]
        if "**" in before or "**" in after:  # powers, or bold type
            before, after = (_POWER.sub(r"\1^", part).replace("**", "") for part in (before, after))
        left, right = _LEFT.search(before), _RIGHT.match(after)
        if left is None or right is None or any(map(_AMBIGUOUS.fullmatch, (left[1], left[3], right[1]))):
            continue
        alone = _begins(before[: left.start()]) and _ends(after[right.end() :])
        if alone and not _holds(left[1], left[2], left[3], right[1]):
            return True
    return False


def _begins(before: str) -> bool:
    """Whether a longer expression does not go on into what stands behind this text."""
    front = before.rstrip(" $€£(")
    last = front[-1:]
    if not last:
        return True
    if before[-1].isalnum() or last.isdigit():
        return False
    if last in "xX" and not front[-2:-1].isalpha():
        return False  # a sign of multiplication
    return last not in _BEFORE or (last in ".," and before[-1] == " ")


def _ends(after: str) -> bool:
    """Whether no longer expression, and no longer number, goes on in this text."""
    head = after.lstrip(" ")
    if after[:1].isalnum() or (after[:1] in (".", ",") and after[1:2].isdigit()):
        return False
    if head[:1] == "x" and not head[1:2].isalpha():
        return False
    return not head or head[0] not in _AFTER


def _holds(first: str, operator: str, second: str, said: str) -> bool:
    a, b, c = (Fraction(number.replace(",", "")) for number in (first, second, said))
    if operator == "+":
        exact = a + b
    elif operator in "-−":
        exact = a - b
    elif operator in "*x×·":
        exact = a * b
    elif b == 0:
        return False
    else:
        exact = a / b
    if exact == c:
        return True
    decimals = len(said.partition(".")[2])
    # 10 / 3 = 3.33 is right; 7 / 2 = 3 is not, and 1.5 + 1.5 = 3.1 is not: it had no need to be rounded.
    step = Fraction(1, 10**decimals)
    return decimals > 0 and (exact / step).denominator != 1 and abs(exact - c) < step
