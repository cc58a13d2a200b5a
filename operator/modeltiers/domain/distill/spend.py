"""What asking costs, and whether one more request fits the budget. Pure: sums, estimates and a verdict.

Before a request is sent, as much is set aside as it can take; what it took is known when its reply comes. What is spent
and what is set aside never exceed the cap together, so near it fewer requests are under way, and at it none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from modeltiers.api.modeltier import TokenPrice

MILLION: Final = 1_000_000
SLACK: Final = 1.1
"""On the most tokens for a byte that were seen."""
UNSEEN: Final = 256
"""Tokens that a chat template may put around the messages, before any reply told."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of prompts and answers."""

    prompt: int = 0
    answer: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.answer + other.answer)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.answer - other.answer)

    @property
    def total(self) -> int:
        """Both."""
        return self.prompt + self.answer


NONE: Final = Tokens()


def cost_micros(tokens: Tokens, price: TokenPrice) -> int:
    """What tokens cost, rounded up, in millionths of the price's currency."""
    whole = tokens.prompt * price.input_per_million_micros + tokens.answer * price.output_per_million_micros
    return -(-whole // MILLION)


class Verdict(Enum):
    """Whether a request may be sent."""

    GO = auto()
    WAIT = auto()
    """Not before one that is under way is done."""
    STOP = auto()
    """It does not fit."""


@dataclass(frozen=True, slots=True)
class Cap:
    """Where spending stops; None where nothing does."""

    tokens: int | None = None
    cost_micros: int | None = None
    price: TokenPrice | None = None
    """Of the model that is asked."""
    other_tokens: int = 0
    """What another model has taken of the same budget."""
    other_micros: int = 0

    def __post_init__(self) -> None:
        if self.cost_micros is not None and self.price is None:
            raise ValueError("a cap in money needs a price")

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.tokens is not None or self.cost_micros is not None

    def holds(self, tokens: Tokens) -> bool:
        """Whether so much is still within it."""
        if self.tokens is not None and self.other_tokens + tokens.total > self.tokens:
            return False
        return self.cost_micros is None or self.cost(tokens) <= self.cost_micros

    def cost(self, tokens: Tokens) -> int:
        """What so much costs with what the other model cost."""
        return self.other_micros + (cost_micros(tokens, self.price) if self.price else 0)


@dataclass(slots=True)
class Purse:
    """What is spent and set aside. `spent` begins with all that the job spent before, and with the most that
    requests in doubt can have taken."""

    cap: Cap
    max_tokens: int
    spent: Tokens = NONE
    aside: Tokens = NONE
    under_way: int = 0
    per_byte: float | None = None
    """The most prompt tokens for a byte that a reply showed."""
    fewest: int = 0
    """The fewest prompt tokens that one showed: what stands around the messages is not more."""

    def most(self, prompt_bytes: int) -> Tokens:
        """The most that a request of this size can take; before any reply told, no more tokens than bytes."""
        if self.per_byte is None:
            return Tokens(prompt_bytes + UNSEEN, self.max_tokens)
        seen = int(prompt_bytes * self.per_byte * SLACK) + self.fewest
        return Tokens(seen, self.max_tokens)

    def verdict(self, prompt_bytes: int) -> Verdict:
        """Whether a request of this size may be sent now. Before any reply told what a byte costs, one goes alone."""
        if not self.cap.any:
            return Verdict.GO
        if self.per_byte is None and self.under_way:
            return Verdict.WAIT
        if self.cap.holds(self.spent + self.aside + self.most(prompt_bytes)):
            return Verdict.GO
        return Verdict.WAIT if self.under_way else Verdict.STOP

    def reserve(self, prompt_bytes: int) -> Tokens:
        """Set aside what a request can take; hand it back to `settle`."""
        most = self.most(prompt_bytes)
        self.aside += most
        self.under_way += 1
        return most

    def settle(self, most: Tokens, took: Tokens) -> None:
        """A request is done, and took so much."""
        self.aside -= most
        self.under_way -= 1
        self.spent += took

    def learn(self, prompt_bytes: int, took: Tokens) -> None:
        """A reply showed what a request took."""
        self.fewest = took.prompt if self.per_byte is None else min(self.fewest, took.prompt)
        self.per_byte = max(self.per_byte or 0.0, took.prompt / max(1, prompt_bytes))
        self.max_tokens = max(self.max_tokens, took.answer)
