"""What a report shows: intervals, plots as XML, and text that stays text."""

from __future__ import annotations

from math import sqrt
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.distill.report import in_markdown, quoted
from modeltiers.domain.distill.calibration import Judged, reliability
from modeltiers.domain.distill.charts import Axis, Bar, Mark, bars, intervals
from modeltiers.domain.distill.charts import reliability as drawn
from modeltiers.domain.distill.curve import drawn as curve
from modeltiers.domain.distill.report import Loss
from modeltiers.domain.distill.scores import by_slice, score, wilson

HOSTILE = "</text><script>alert(1)</script>&\"'"


@pytest.mark.parametrize(("right", "items"), [(90, 100), (20, 20), (0, 7), (1, 3)])
def test_wilsons_bounds_are_the_shares_that_the_score_test_just_does_not_reject(right: int, items: int) -> None:
    share = right / items
    for bound in wilson(share, items):
        if bound != share:  # at 0 or 1 the interval ends there
            assert abs(share - bound) == pytest.approx(1.959964 * sqrt(bound * (1 - bound) / items), rel=1e-5)


@given(st.floats(0, 1), st.floats(0.01, 1e6))
def test_an_interval_holds_its_mean(share: float, number: float) -> None:
    low, high = wilson(share, number)
    assert 0 <= low <= share <= high <= 1


def test_items_of_one_cluster_say_less() -> None:
    def rows(clusters: int) -> list[dict[str, object]]:
        return [{"cluster": f"c{n % clusters}", "scores": {"student": 1000 * (n % clusters < 8)}} for n in range(100)]

    alone, together = score(rows(100), "student"), score(rows(10), "student")
    assert alone is not None
    assert together is not None
    assert together.high - together.low > alone.high - alone.low
    assert score(rows(10), "teacher") is None


def test_the_largest_slices_are_shown() -> None:
    rows = [{"slice": name} for name in "aabbbc"] + [{"slice": None}]
    shown, left_out = by_slice(rows, 2)
    assert (list(shown), left_out) == (["a", "b"], 1)
    assert by_slice([{"slice": None}], 2) == ({}, 0)


@given(st.lists(st.builds(Judged, st.integers(0, 1000), st.booleans()), max_size=60))
def test_every_answer_is_in_one_bin(judged: list[Judged]) -> None:
    bins = reliability(judged)
    assert sum(one.answers for one in bins) == len(judged)
    assert sum(one.right for one in bins) == sum(one.right for one in judged)
    assert [one.sure for one in bins] == sorted(one.sure for one in bins)
    assert all(one.answers for one in bins)


def test_an_axis_has_round_numbers_around_both() -> None:
    assert Axis.over(62.8, 100, "").marks == (60, 70, 80, 90, 100)
    assert Axis.over(-3, 8, "").marks[0] <= -3
    assert Axis.over(5, 5, "").marks[-1] >= 5


def test_pictures_are_xml_and_hold_texts_as_texts() -> None:
    mark = Mark(HOSTILE, "student", 1, 0, 2, HOSTILE, limit=-1)
    point = Mark("50", "student", 60, 40, 70, "1")
    pictures = [
        intervals([(HOSTILE, [mark])], Axis.over(-1, 2, HOSTILE, signed=True), HOSTILE),
        bars([Bar(HOSTILE, 0.5, HOSTILE)], HOSTILE),
        drawn([point], 55, HOSTILE),
        drawn([point], None, HOSTILE),
        curve([Loss(1, 2.0, 0.0), Loss(2, 1.0, 0.5)], HOSTILE),
    ]
    for picture in pictures:
        root = ElementTree.fromstring(picture)  # noqa: S314 - our own
        assert not root.findall(".//{*}script")


@given(st.text(alphabet=st.sampled_from("a|`*_[]()<>#\\\n !-~&"), max_size=40))
def test_markdown_keeps_a_text_in_its_cell(text: str) -> None:
    told = in_markdown(text)
    assert "\n" not in told
    assert "<" not in told
    assert "|" not in told.replace("\\|", "")
    assert "`" not in told.replace("\\`", "")
    assert all(line.startswith("    ") for line in quoted(text).split("\n"))
