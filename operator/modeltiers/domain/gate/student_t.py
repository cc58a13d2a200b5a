"""Tails of the normal distribution and of Student's t, which the standard library lacks."""

from __future__ import annotations

from math import exp, inf, isinf, lgamma, log, log1p
from statistics import NormalDist
from typing import Final

_NORMAL: Final = NormalDist()
_TINY: Final = 1e-300
_STEPS: Final = 10_000
"""The fraction converges in about the root of the degrees of freedom."""


def upper_tail(value: float, df: float = inf) -> float:
    """Chance of more than `value`; `df` degrees of freedom, the normal distribution when infinite."""
    if isinf(value):
        return 0.0 if value > 0 else 1.0
    if isinf(df):
        return _NORMAL.cdf(-value)
    half = _beta(df, value * value) / 2
    return half if value >= 0 else 1 - half


def critical(alpha: float, df: float = inf) -> float:
    """The value that is exceeded with chance `alpha`, which lies in (0, 0.5)."""
    if isinf(df):
        return -_NORMAL.inv_cdf(alpha)
    low, high = 0.0, 2.0
    while upper_tail(high, df) > alpha:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, df) > alpha else (low, middle)
    return high


def _beta(df: float, square: float) -> float:
    """Regularised incomplete beta function at x = df / (df + square), for df / 2 and 1 / 2."""
    if square == 0:
        return 1.0
    a, b = df / 2, 0.5
    x, rest = df / (df + square), square / (df + square)
    # log1p keeps the digits that x loses near 1.
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) - a * log1p(square / df) + b * log(rest))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
