"""The loss: what the teacher said, and how likely it found it beside its alternatives.

Soft targets are the teacher's k likeliest tokens and one bucket for all others, the tail. The student's probabilities
are gathered into the same buckets, so two equal distributions have a loss of nothing, however much lies in the tail.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modeltiers.distill.train.encode import IGNORED

LEAST = 1e-12


def hard(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropy of the labels over the tokens that are learnt.

    `logits` (rows, length, vocabulary), `labels` (rows, length): the label at a place is what follows the place before.
    """
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def soft(logits: Tensor, places: Tensor, tokens: Tensor, logprobs: Tensor, temperature: float) -> Tensor:
    """Sum over places of the divergence KL(teacher, student) at a temperature, times its square.

    `places` (n, 2): row and place in it of the token that is said, so the logits are those of the place before.
    `tokens`, `logprobs` (n, k): the teacher's likeliest, with a logprob of -inf where there are fewer than k.
    """
    if not len(places):
        return logits.sum() * 0.0
    student = functional.log_softmax(logits[places[:, 0], places[:, 1] - 1].float(), dim=-1)
    known = torch.isfinite(logprobs)
    theirs = _buckets(logprobs, known)
    ours = _buckets(student.gather(1, tokens).masked_fill(~known, -torch.inf), known)
    theirs, ours = _softened(theirs, temperature), _softened(ours, temperature)
    terms = theirs.exp() * (theirs - ours)
    return torch.where(torch.isfinite(theirs), terms, torch.zeros_like(terms)).sum() * temperature**2


def _buckets(logprobs: Tensor, known: Tensor) -> Tensor:
    """Add the tail: the log of what the known ones leave."""
    probabilities = torch.where(known, logprobs.exp(), torch.zeros_like(logprobs))
    tail = (1 - probabilities.sum(1, keepdim=True)).clamp(min=LEAST)
    return torch.cat([logprobs, tail.log()], dim=1)


def _softened(logprobs: Tensor, temperature: float) -> Tensor:
    """The same at a temperature; -inf stays so."""
    known = torch.isfinite(logprobs)
    scaled = torch.where(known, logprobs / temperature, torch.full_like(logprobs, -torch.inf))
    total = torch.logsumexp(torch.where(known, scaled, torch.full_like(scaled, -1e30)), dim=1, keepdim=True)
    return torch.where(known, scaled - total, torch.full_like(scaled, -torch.inf))
