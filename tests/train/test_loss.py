"""The soft loss: nothing for equal distributions, one bucket for the tail, nothing where nothing is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from modeltiers.distill.train import loss
from modeltiers.distill.train.encode import IGNORED

PLACES = torch.tensor([(0, 1), (0, 3), (1, 2)])


def logits(seed: int, vocabulary: int = 9) -> torch.Tensor:
    """Logits of two rows of four places."""
    return torch.randn(2, 4, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def told(of: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k likeliest at the places before PLACES, as a teacher tells them."""
    all_of_them = functional.log_softmax(of[PLACES[:, 0], PLACES[:, 1] - 1], dim=-1)
    best = all_of_them.topk(k)
    return best.indices, best.values


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_equal_distributions_cost_nothing(k: int, temperature: float) -> None:
    same = logits(1)
    assert float(loss.soft(same, PLACES, *told(same, k), temperature)) == pytest.approx(0, abs=1e-5)
    assert float(loss.soft(logits(2), PLACES, *told(same, k), temperature)) > 0.01


def test_with_all_tokens_told_it_is_the_whole_divergence() -> None:
    teacher, student = logits(1), logits(2)
    at = PLACES[:, 0], PLACES[:, 1] - 1
    whole = functional.kl_div(
        student[at].log_softmax(-1), teacher[at].log_softmax(-1), log_target=True, reduction="sum"
    )
    assert float(loss.soft(student, PLACES, *told(teacher, 9), 1.0)) == pytest.approx(float(whole), rel=1e-4)


def test_what_is_in_the_tail_does_not_matter_how_much_does() -> None:
    teacher, student = logits(1), logits(2)
    tokens, logprobs = told(teacher, 3)
    before = float(loss.soft(student, PLACES, tokens, logprobs, 1.0))
    at = PLACES[:, 0], PLACES[:, 1] - 1
    swapped, raised = student.clone(), student.clone()
    for row, place, known in zip(*at, tokens.tolist(), strict=True):
        tail = [token for token in range(9) if token not in known]
        swapped[row, place, tail] = student[row, place, tail[::-1]]
        raised[row, place, tail] += 1
    assert float(loss.soft(swapped, PLACES, tokens, logprobs, 1.0)) == pytest.approx(before, rel=1e-5)
    assert float(loss.soft(raised, PLACES, tokens, logprobs, 1.0)) != pytest.approx(before, rel=1e-2)


def test_a_place_with_fewer_tokens_counts_as_if_no_more_were_asked_for() -> None:
    teacher, student = logits(1), logits(2).requires_grad_()
    tokens, logprobs = told(teacher, 3)
    filled = logprobs.clone()
    filled[1, 1:] = -math.inf
    together = loss.soft(student, PLACES, tokens, filled, 2.0)
    apart = loss.soft(student, PLACES[[0, 2]], tokens[[0, 2]], logprobs[[0, 2]], 2.0)
    apart = apart + loss.soft(student, PLACES[[1]], tokens[[1]][:, :1], logprobs[[1]][:, :1], 2.0)
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)
    together.backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_only_places_that_are_told_are_learnt() -> None:
    student = logits(2).requires_grad_()
    tokens, logprobs = told(logits(1), 3)
    loss.soft(student, PLACES, tokens, logprobs, 1.0).backward()
    assert student.grad is not None
    touched = {(int(row), int(place)) for row, place in student.grad.abs().sum(-1).nonzero()}
    assert touched == {(int(row), int(place) - 1) for row, place in PLACES}


def test_no_places_cost_nothing_and_can_be_learnt_from() -> None:
    student = logits(2).requires_grad_()
    nothing = loss.soft(student, PLACES[:0], torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1), 1.0)
    assert nothing.item() == 0
    nothing.backward()


def test_the_hard_loss_leaves_out_what_is_not_learnt() -> None:
    student = logits(2)
    labels = torch.tensor([[IGNORED, IGNORED, 4, 5], [IGNORED, 1, 2, IGNORED]])
    expected = -sum(
        student[row, place - 1].log_softmax(-1)[labels[row, place]] for row, place in ((0, 2), (0, 3), (1, 1), (1, 2))
    )
    assert float(loss.hard(student, labels)) == pytest.approx(float(expected), rel=1e-5)
