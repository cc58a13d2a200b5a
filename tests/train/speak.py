"""What a model answers, greedily: for tests that ask many questions in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def answers(folder: Path, rows: Sequence[Mapping[str, Any]], *, at_once: int = 100) -> list[str]:
    """One answer a row."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    settings = GenerationConfig(
        max_new_tokens=8, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    found = []
    for start in range(0, len(rows), at_once):
        prompts = [
            tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
            for row in rows[start : start + at_once]
        ]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(**batch, generation_config=settings)
        found += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def share_right(folder: Path, rows: Sequence[Mapping[str, Any]]) -> float:
    """The share that the task calls right."""
    said = answers(folder, rows)
    return sum(row["expected"] in text for text, row in zip(said, rows, strict=True)) / len(rows)
