"""Tails of t against values that any table has, and against the normal distribution."""

from __future__ import annotations

from math import inf
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.gate.student_t import critical, upper_tail


@pytest.mark.parametrize(
    ("df", "alpha", "value"),
    [
        (1, 0.05, 6.313752),
        (2, 0.025, 4.302653),
        (5, 0.01, 3.364930),
        (10, 0.05, 1.812461),
        (29, 0.025, 2.045230),
        (120, 0.005, 2.617421),
        (inf, 0.05, 1.644854),
    ],
)
def test_table_values(df: float, alpha: float, value: float) -> None:
    assert critical(alpha, df) == pytest.approx(value, abs=2e-6)
    assert upper_tail(value, df) == pytest.approx(alpha, abs=2e-7)


def test_one_degree_of_freedom_is_cauchy_and_two_are_algebraic() -> None:
    assert upper_tail(1.0, 1) == pytest.approx(0.25)
    assert upper_tail(3.0, 2) == pytest.approx(0.5 - 3 / (2 * 11**0.5))


@given(st.floats(-8, 8), st.floats(0.5, 1e6))
def test_both_tails_make_one_and_the_middle_is_a_half(value: float, df: float) -> None:
    assert upper_tail(value, df) + upper_tail(-value, df) == pytest.approx(1)
    assert upper_tail(0.0, df) == 0.5


@given(st.floats(-5, 5))
def test_many_degrees_of_freedom_are_normal(value: float) -> None:
    assert upper_tail(value, 1e9) == pytest.approx(NormalDist().cdf(-value), abs=1e-6)


@given(st.floats(1e-6, 0.49), st.floats(0.5, 1e4))
def test_the_critical_value_is_the_inverse(alpha: float, df: float) -> None:
    assert upper_tail(critical(alpha, df), df) == pytest.approx(alpha, rel=1e-6)


def test_ends() -> None:
    assert upper_tail(inf, 3) == 0.0
    assert upper_tail(-inf, 3) == 1.0
