"""Style up and accuracy not: found, and how grave it is."""

from __future__ import annotations

from modeltiers.domain.gate.items import Pair
from modeltiers.domain.gate.mimicry import Finding, mimicry


def pairs(count: int, student: int, base: int) -> list[Pair]:
    return [Pair(str(n), student, base) for n in range(count)]


def found(style: list[Pair], accuracy: list[Pair]) -> Finding | None:
    return mimicry(style, accuracy, alpha=0.05, power=0.8, gain=0.05)


def test_style_up_and_accuracy_flat_fails() -> None:
    finding = found(pairs(300, 700, 400), pairs(300, 1000, 1000))
    assert finding is not None
    assert (finding.reason, finding.outcome) == ("Mimicry", "Fail")
    assert "its verifiable accuracy did not rise, +0.0 points" in finding.message


def test_style_up_and_accuracy_down_fails() -> None:
    finding = found(pairs(300, 700, 400), pairs(100, 0, 1000) + [Pair(f"x{n}", 1000, 0) for n in range(20)])
    assert finding is not None


def test_style_and_accuracy_up_is_learning() -> None:
    assert found(pairs(300, 700, 400), pairs(300, 1000, 0)) is None


def test_style_flat_is_none_of_its_business() -> None:
    assert found(pairs(300, 400, 400), pairs(300, 1000, 1000)) is None
    assert found([], pairs(300, 0, 1000)) is None


def test_too_few_verifiable_items_do_not_fail_it_but_do_not_let_it_pass() -> None:
    finding = found(pairs(300, 700, 400), pairs(20, 1000, 1000))
    assert finding is not None
    assert finding.outcome == "Inconclusive"
    assert finding.message.endswith("59 verifiable items are needed to tell")
    finding = found(pairs(300, 700, 400), [])
    assert finding is not None
    assert finding.outcome == "Inconclusive"
    assert "no item has a verifiable score" in finding.message
