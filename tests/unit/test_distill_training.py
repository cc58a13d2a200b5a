"""What training decides: method, batches, whether it has gone astray."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.distill.training import (
    TOKENS_AT_ONCE,
    WINDOW,
    Chosen,
    astray,
    choose_method,
    share_out,
    steps_of,
)


@pytest.mark.parametrize(
    ("asked", "rows", "teacher", "method", "why"),
    [
        ("Sequence", 5, "a", "Sequence", "training.method is Sequence"),
        ("Auto", 5, "a", "SoftTargets", "same tokenizer"),
        ("Auto", 0, "a", "Sequence", "generation.topLogprobs"),
        ("Auto", 5, None, "Sequence", "not known"),
        ("Auto", 5, "b", "Sequence", "different tokenizers"),
        ("SoftTargets", 5, "a", "SoftTargets", "same tokenizer"),
    ],
)
def test_the_method_is_chosen_and_it_says_why(
    asked: str, rows: int, teacher: str | None, method: str, why: str
) -> None:
    chosen = choose_method(asked, with_probabilities=rows, student="a", teacher=teacher)
    assert isinstance(chosen, Chosen)
    assert chosen.method == method
    assert why in chosen.why


@pytest.mark.parametrize(
    ("rows", "teacher", "why"), [(0, "a", "topLogprobs"), (5, None, "not known"), (5, "b", "different tokenizers")]
)
def test_soft_targets_that_cannot_be_are_refused(rows: int, teacher: str | None, why: str) -> None:
    refused = choose_method("SoftTargets", with_probabilities=rows, student="a", teacher=teacher)
    assert isinstance(refused, str)
    assert why in refused


@given(batch=st.integers(1, 4096), devices=st.integers(1, 16), longest=st.integers(1, 100_000))
def test_a_batch_is_shared_out_whole(batch: int, devices: int, longest: int) -> None:
    shared = share_out(batch, devices, longest)
    if isinstance(shared, str):
        assert batch % devices
        return
    assert shared.rows * shared.parts * devices == batch
    assert shared.rows == 1 or shared.rows * longest <= TOKENS_AT_ONCE


def test_an_epochs_last_batch_may_be_smaller() -> None:
    assert steps_of(33, 16, 2) == 6


def test_training_goes_astray_when_the_loss_is_no_number() -> None:
    assert astray([1.0, math.nan], 100)
    assert astray([math.inf], 100)
    assert not astray([], 100)


def test_training_goes_astray_when_it_is_long_worse_than_knowing_nothing() -> None:
    high = 3 * math.log(100)
    assert astray([4.6, *[high] * WINDOW], 100)
    assert not astray([4.6, *[high] * (WINDOW - 1)], 100)
    assert not astray([high, *[high] * WINDOW], 100)
    assert not astray([0.1, *[4.0] * WINDOW], 100)
