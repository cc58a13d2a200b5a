"""The bundled catalogue: generated from its table, and reproduced by the formulas, row by row."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any, Final

import pytest

from modeltiers.domain import catalogue, memory
from modeltiers.domain.architecture import incomplete, not_understood
from modeltiers.domain.memory import GIB

ROOT: Final = Path(__file__).parents[2]
DATA: Final = ROOT / "operator" / "modeltiers" / "domain" / "data"
TABLE: Final = DATA / "model-architectures.csv"
ROWS: Final = {row["model"]: row for row in csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines())}
KNOWN: Final = catalogue.load()

# Published sizes that the shapes do not give to within 0.5 %, and why. (estimate / published in permille)
WEIGHT_EXCEPTIONS: Final = {
    "deepseek-ai/DeepSeek-R1-0528": (970, 985, "the files hold the layer that predicts several tokens"),
    "deepseek-ai/DeepSeek-V3-0324": (970, 985, "the files hold the layer that predicts several tokens"),
    "google/gemma-3-27b-it": (980, 990, "the files hold an image tower"),
    "google/gemma-3-4b-it": (890, 910, "the files hold an image tower"),
    "openai/gpt-oss-120b": (495, 505, "the files hold the weights twice"),
    "openai/gpt-oss-20b": (495, 505, "the files hold the weights twice"),
}
UNPUBLISHED: Final = {"moonshotai/Kimi-K2-Instruct"}


def make() -> Any:
    """The generator, which is a script and no module of the package."""
    spec = importlib.util.spec_from_file_location("make_catalogue", ROOT / "tools" / "make_catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_catalogue_is_generated_from_its_table() -> None:
    """Change the table, run tools/make_catalogue.py, commit both."""
    generated = make().make(TABLE.read_text(encoding="utf-8"))
    assert catalogue.parse(json.dumps(generated)) == KNOWN


def test_every_row_is_a_model_or_left_out_with_a_reason() -> None:
    """Nothing is dropped in silence."""
    assert set(ROWS) == set(KNOWN.models) | set(KNOWN.left_out)
    assert not set(KNOWN.models) & set(KNOWN.left_out)
    assert all(entry.why for entry in KNOWN.left_out.values())


@pytest.mark.parametrize("model", sorted(KNOWN.models))
def test_kv_bytes_a_token(model: str) -> None:
    """Full-attention layers x bytes a token and layer, to the byte, for every model."""
    architecture = KNOWN.models[model]
    slope = memory.token_bytes(architecture, 1, kv_fp8=False) * architecture.full_layers
    assert int(ROWS[model]["kv_bytes_per_token_bf16"]) == slope


@pytest.mark.parametrize("model", sorted(set(KNOWN.models) - UNPUBLISHED))
def test_weight_bytes(model: str) -> None:
    """Shapes give the table's size to 0.5 % (small sizes: to its rounding), save for the exceptions named above."""
    estimate = memory.estimated_bytes(KNOWN.models[model])
    published = float(ROWS[model]["weight_gib"])
    if model in WEIGHT_EXCEPTIONS:
        low, high, _ = WEIGHT_EXCEPTIONS[model]
        assert low <= estimate * 1000 / (published * GIB) <= high
    else:
        assert abs(estimate / GIB - published) <= max(0.005 * published, 0.0101)


@pytest.mark.parametrize("model", sorted(KNOWN.models))
def test_models_can_be_sized(model: str) -> None:
    """Each is complete, of a kind that is understood, and says where its numbers come from."""
    architecture = KNOWN.models[model]
    assert incomplete(architecture) is None
    assert not_understood(architecture.name) is None
    assert f"catalogue {KNOWN.version}" in architecture.facts
    assert ROWS[model]["source"] in architecture.facts


def test_sizes_that_count_the_weights_twice_are_no_facts() -> None:
    """gpt-oss is sized from its shapes."""
    assert KNOWN.models["openai/gpt-oss-120b"].weight_bytes is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "NotUnderstood"),
        ("deepseek-ai/DeepSeek-V3.2", "NotUnderstood"),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "NotUnderstood"),
        ("google/gemma-4-31B-it", "NotUnderstood"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "NotUnderstood"),
        ("Qwen/Qwen3-8B-AWQ", "Incomplete"),
        ("zai-org/GLM-4.5", "Incomplete"),
    ],
)
def test_rows_that_would_be_guesses_are_left_out(model: str, reason: str) -> None:
    """Kinds whose arithmetic is not known, and rows without all numbers."""
    assert catalogue.find(KNOWN, model) is None
    assert KNOWN.left_out[model].reason == reason


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deepseek-ai/DeepSeek-R1-Distil-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("meta-llama/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("unsloth/Qwen3-8B", "Qwen/Qwen3-8B"),
    ],
)
def test_nearest_names_what_was_meant(typed: str, meant: str) -> None:
    """A slip, other case, another organisation."""
    assert meant == catalogue.nearest(KNOWN, typed)[0]


def test_nearest_of_nothing_alike_is_nothing() -> None:
    """No far-fetched suggestions."""
    assert catalogue.nearest(KNOWN, "x/y") == []
