"""The student's base: found, checked, loaded. Knows model folders; knows nothing of rows or training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from modeltiers.distill.faults import BadData, TryAgain

FIELD: Final = "spec.student.base.source"
HUB: Final = "hf://"
WEIGHTS: Final = ("*.safetensors", "*.safetensors.index.json")
SURROUNDS: Final = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""What a model's folder holds besides weights."""
TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken", "tekken.json")


def folder_of(name: str, address: str, revision: str | None, *, weights: bool = True) -> Path:
    """The local folder of a model at a path or at hf://ORG/NAME; `name` is what the plan calls it."""
    if not address.startswith(HUB):
        return Path(address)
    repository = address.removeprefix(HUB)
    wanted = [*WEIGHTS, *SURROUNDS] if weights else list(SURROUNDS)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError) as fault:
        raise BadData(
            f"{name}: the Hub has no {repository} at revision {revision or 'main'} for this key", field=FIELD
        ) from fault
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as fault:
        raise TryAgain(f"{name}: {repository} could not be had from the Hub: {_first_line(fault)}") from fault


def tokenizer_of(folder: Path, *, field: str = FIELD) -> PreTrainedTokenizerBase:
    """A model's tokenizer."""
    if not any(path for pattern in TOKENIZERS for path in folder.glob(pattern)):
        # transformers would make an empty one
        raise BadData(f"{folder} has no tokenizer: {', '.join(TOKENIZERS)} are looked for", field=field)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)  # nosec B615 # a folder
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise BadData(f"{folder} has no tokenizer that can be loaded: {_first_line(fault)}", field=field) from fault


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of how text becomes tokens: equal for tokenizers that give the same ids for every text.

    Not the chat template: that makes prompts, and each model has its own.
    """
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is not None:
        what = json.loads(rust.to_str())
        what.pop("truncation", None)
        what.pop("padding", None)
    else:
        what = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def model_of(folder: Path, *, low_rank: bool) -> PreTrainedModel:
    """The base's weights, ready to train: float32, or bfloat16 on a GPU where only adapters are trained."""
    config = config_of(folder)
    if "quantization_config" in config:
        raise BadData(f"{folder} is quantised and cannot be trained: name the unquantised base", field=FIELD)
    dtype = torch.bfloat16 if low_rank and torch.cuda.is_available() else torch.float32
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a folder
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except Exception as fault:  # the loader raises whatever its many parts raise
        raise BadData(f"{folder} cannot be loaded as a language model: {_first_line(fault)}", field=FIELD) from fault
    # Checkpoints hold it, and those that engines take (temperature 0) need not please transformers; the student gets
    # the base's file as it is.
    model.generation_config = GenerationConfig()
    wrong = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
    if wrong:  # transformers would fill these with random numbers
        raise BadData(f"{folder} lacks weights that its config.json speaks of: {', '.join(wrong[:5])}", field=FIELD)
    return model


def config_of(folder: Path) -> dict[str, Any]:
    """A model folder's config.json."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_bytes())
    except OSError as fault:
        raise BadData(f"{path}: {fault.strerror}: this is no model's folder", field=FIELD) from fault
    except ValueError as fault:
        raise BadData(f"{path} is not JSON: {fault}", field=FIELD) from fault
    if not isinstance(found, dict):
        raise BadData(f"{path} is not a JSON object", field=FIELD)
    return found


def ends_of(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer, as an engine reads them from the folder."""
    ends = {tokenizer.eos_token_id}
    path = folder / "generation_config.json"
    for source in (json.loads(path.read_bytes()) if path.exists() else {}, config_of(folder)):
        given = source.get("eos_token_id")
        ends.update(given if isinstance(given, list) else [given])
    found = frozenset(end for end in ends if isinstance(end, int))
    if not found:
        raise BadData(
            f"{folder} names no token that ends an answer (eos_token): the student would never stop", field=FIELD
        )
    return found


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0][:300]
