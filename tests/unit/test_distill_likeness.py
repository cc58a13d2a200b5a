"""What is alike: near-duplicates and quotations are found, all of them; rows of one template are not mixed up."""

from __future__ import annotations

import random
import string
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.domain.distill.likeness import (
    SHARE,
    Plain,
    Text,
    Vocabulary,
    contained_pairs,
    form_of,
    jaccard,
    near_pairs,
    words_of,
)
from modeltiers.domain.distill.rows import read_row

STORY = (
    "My parcel left the depot in Leeds on Monday, and since then the tracking page has only shown that it is on its way"
    " to me; can you find out where it is now and when the driver will ring at my door?"
)
QUESTION = "Which planet of our solar system has by far the most known moons?"


def texts(*plain: str) -> list[Text]:
    """Texts of one vocabulary."""
    vocabulary = Vocabulary()
    return [vocabulary.text(one) for one in plain]


def near(*plain: str, at: float = 0.8) -> set[tuple[int, int]]:
    """Which are near-duplicates."""
    return {(min(pair), max(pair)) for *pair, _ in near_pairs(texts(*plain), at, lambda *_: True)}


def contained(*plain: str, length: int = 8) -> set[tuple[int, int]]:
    """Which are contained in which."""
    return {(one, other) for one, other, _ in contained_pairs(texts(*plain), length, lambda *_: True)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's 7 plus 8?", ["what's", "7", "plus", "8"]),
        ("7+8 = 1,500.5", ["7", "+", "8", "=", "1,500.5"]),
        ("7 - 8, -5 and well-known", ["7", "-", "8", "-", "5", "and", "well", "known"]),
        ("(2 + 3) * 4 (see below)", ["(", "2", "+", "3", ")", "*", "4", "see", "below"]),
        ("**bold** - list --- <b>", ["bold", "list", "b"]),
        ("Straße \uff21\uff22", ["strasse", "ab"]),
        ("今天好 ok", ["今", "天", "好", "ok"]),
        ("🙂", []),
    ],
)
def test_words_are_what_tells_texts_apart(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_few_changed_words_make_a_near_duplicate() -> None:
    others = [QUESTION, "How far is the moon?"]
    assert near(STORY, STORY.replace("ring at", "knock on").replace("Monday", "Tuesday"), *others) == {(0, 1)}
    assert near(QUESTION, QUESTION.replace("our", "the"), STORY) == {(0, 1)}
    assert near(QUESTION, QUESTION.upper().replace("?", " ..."), STORY) == {(0, 1)}


def test_at_a_thousand_only_equal_ones_are_alike() -> None:
    assert near(QUESTION, QUESTION.replace("our", "the"), STORY, at=1.0) == set()


def test_other_numbers_are_another_question() -> None:
    one = "A farmer has 17 cows and buys 4 more at the market in town; how many cows does the farmer have?"
    assert near(one, one.replace("17", "18"), QUESTION) == set()
    assert near(one, one.replace("town", "York"), QUESTION) == {(0, 1)}
    assert near("What is 7 plus 8?", "What is 7 plus 9?", "What is 8 plus 7?", at=0.5) == set()


def test_a_long_text_with_another_date_is_the_same_text() -> None:
    log = STORY + " " + QUESTION + " The order was placed on 12 May and paid by card."
    assert contained(log, log.replace("12", "13"), "How far is the moon?") == {(0, 1), (1, 0)}


def test_a_longer_conversation_contains_its_beginning() -> None:
    assert contained(STORY, f"Good morning. {STORY} {QUESTION} {QUESTION[:20]}", "hello") == {(0, 1)}


def test_short_texts_are_contained_in_none() -> None:
    assert contained("Thank you for your help", "Thank you for your help, it works again now for us", STORY) == set()


@pytest.mark.parametrize(
    "template",
    [
        "What is {} plus {}?",
        "Please tell me what is the sum of {} plus {}, and answer with the number only.",
        "I have {} apples and you have {} pears. How many pieces of fruit do we have, you and I together?",
        "{} + {} =",
    ],
)
@pytest.mark.parametrize("most", [10, 100])
def test_rows_of_a_template_are_not_alike(template: str, most: int) -> None:
    rows = [template.format(one, other) for one in range(most) for other in range(10)]
    assert near(*rows) == set()
    assert contained(*rows) == set()


def test_rows_of_a_template_of_words_are_not_alike() -> None:
    roll = random.Random(7)  # noqa: S311 - names for a test
    names = ["".join(roll.choices(string.ascii_lowercase, k=6)) for _ in range(60)]
    rows = {
        f"My name is {first}, I live in {second} and would like to have a {third} from you, if you have some left."
        for first, second, third in (roll.sample(names, 3) for _ in range(2000))
    }
    assert near(*rows) == set()
    assert contained(*rows) == set()


def test_one_question_among_many_of_a_template_is_still_found() -> None:
    rows = [f"Classify this ticket as one of billing, refund or other: parcel {n} is late." for n in range(500)]
    ticket = "Classify this ticket as one of billing, refund or other: " + STORY
    assert near(*rows, ticket, ticket.replace("Monday", "Tuesday")) == {(500, 501)}


def test_how_many_may_share_a_run_before_it_is_the_tasks_form() -> None:
    assert [form_of(count) for count in (2, 8, 20, 100, 1000, 20_000)] == [3, 4, 10, 10, 10, 200]


WORDS = st.sampled_from(["red", "blue", "green", "has", "the", "a", "7", "8", "cat", "dog"])
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=14).map(" ".join), min_size=2, max_size=12, unique=True)


@given(LINES, st.sampled_from([0.3, 0.5, 0.8, 0.9]))
def test_none_is_missed_that_a_comparison_of_all_with_all_finds(lines: list[str], at: float) -> None:
    rows = list(dict.fromkeys(texts(*lines)))
    found = {(min(one, other), max(one, other)) for one, other, _ in near_pairs(rows, at, lambda *_: True)}
    share = max(0.35, 1 - 1.6 * (1 - at))
    runs = [_runs(row, 3, pad=2) for row in rows]
    form = _form(runs, form_of(len(rows)))
    for one, other in combinations(range(len(rows)), 2):
        both, mine, theirs = (runs[one] & runs[other]) - form, runs[one] - runs[other], runs[other] - runs[one]
        apart = min(len(mine - form), len(theirs - form)) + min(len(mine & form), len(theirs & form))
        alike = (
            rows[one].numbers == rows[other].numbers
            and jaccard(rows[one].words, rows[other].words) >= at
            and len(both) > 0
            and len(both) >= share * (len(both) + apart) - 1e-9
        )
        assert ((one, other) in found) is alike


@given(LINES)
def test_no_quotation_is_missed(lines: list[str]) -> None:
    rows = list(dict.fromkeys(texts(*lines)))
    found = {(one, other) for one, other, _ in contained_pairs(rows, 2, lambda *_: True)}
    runs = [_runs(row, 2) for row in rows]
    form = _form(runs, form_of(len(rows)))
    for one, small in enumerate(rows):
        for other, large in enumerate(rows):
            common = len((runs[one] & runs[other]) - form)
            numbers = all(small.numbers.count(word) <= large.numbers.count(word) for word in small.numbers)
            counted = common + len(runs[one] - runs[other])
            quoted = one != other and common > 0 and common >= SHARE * counted - 1e-9 and numbers
            assert ((one, other) in found) is quoted


def _runs(row: Text, length: int, pad: int = 0) -> set[tuple[int, ...]]:
    words = (*[-1] * pad, *row.words, *[-1] * pad)
    return {words[at : at + length] for at in range(len(words) - length + 1)}


def _form(runs: list[set[tuple[int, ...]]], most: int) -> set[tuple[int, ...]]:
    every = set[tuple[int, ...]]().union(*runs)
    return {run for run in every if sum(run in one for one in runs) > most}


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_the_order_of_texts_does_not_matter(roll: random.Random) -> None:
    lines = [STORY, STORY.replace("Monday", "Friday"), QUESTION, QUESTION.replace("our", "the"), STORY + QUESTION]
    mixed = roll.sample(lines, len(lines))
    ahead = {frozenset((lines[one], lines[other])) for one, other in near(*lines)}
    behind = {frozenset((mixed[one], mixed[other])) for one, other in near(*mixed)}
    assert ahead == behind
    assert len(ahead) == 2


def test_a_system_message_of_many_rows_is_not_compared_and_one_of_few_is() -> None:
    def row(system: str, text: str) -> object:
        return read_row(
            {"messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]}, "rows", "Any"
        )

    rows = [row("Be brief.", f"question {n}") for n in range(20)] + [row(STORY, "where?")]
    plain = Plain(rows)
    assert plain.text(rows[0]) == "question 0"
    assert plain.text(rows[20]) == f"{STORY}\nwhere?"
