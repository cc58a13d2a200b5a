"""The task's tiny models: a base that knows nothing, and a teacher that was trained on the right answers."""

from __future__ import annotations

from pathlib import Path

from e2e.engine import tiny
from e2e.engine.tokenizer import Tokenizer, learn
from e2e.train.task import make_rows

MERGES = 400


def tokenizer() -> Tokenizer:
    """The tokenizer of the task's models: its words are one token each, most of them."""
    rows = [*make_rows(800, 0), *make_rows(200, 0, red_team=True)]
    text = "\n".join(f"{row['messages'][0]['content']}\n{row['expected']}" for row in rows)
    return Tokenizer(learn(f"{text}\nuser\nassistant\nsystem\n", MERGES))


def make_base(folder: Path, *, hidden: int = 64, layers: int = 2, seed: int = 1) -> Path:
    """Write an untrained model."""
    return tiny.write_untrained(folder, tokenizer(), hidden=hidden, layers=layers, seed=seed)
