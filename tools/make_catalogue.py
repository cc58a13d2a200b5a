"""Write the bundled model catalogue from the table of architectures.

    PYTHONPATH=operator python tools/make_catalogue.py operator/modeltiers/domain/data/model-architectures.csv

The table is the source; `catalogue.json` beside it is generated and a test fails when the two differ. A row is left out
of the models, with the reason kept, when its shapes are incomplete or of a kind that sizing does not understand: a plan
made from half a row would be a guess. Change READ when the table is read anew.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modeltiers.domain.architecture import not_understood

READ: Final = "2026-11-24"

_ATTENTION: Final = {"full": "Full", "sliding+full": "SlidingAndFull", "mla": "MLA"}
# The table says "like" where config.json says the class itself.
_CLASS: Final = {"DeepseekV3-like (kimi_k2)": "DeepseekV3ForCausalLM"}
_FORMATS: Final[Mapping[str, dict[str, Any] | None]] = {
    "bf16": None,
    "fp8 (block 128x128)": {"method": "FP8", "bits": 8, "block": 128},
    # The table does not say the block. 128 is assumed: it allows fewer layouts than none, never more.
    "fp8": {"method": "FP8", "bits": 8, "block": 128},
    "int4 (pack-quantized)": {"method": "CompressedTensors", "bits": 4},
    "mxfp4 experts, rest bf16": {"method": "MXFP4", "bits": 4, "experts_only": True},
}
_NUMBERS: Final = {
    "hidden_size": "hidden_size",
    "layers": "layers",
    "heads": "attention_heads",
    "kv_heads": "kv_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
    "max_position": "max_position",
}
_OPTIONAL: Final = {
    "intermediate_size": "intermediate_size",
    "experts": "experts",
    "experts_per_token": "experts_per_token",
    "moe_intermediate_size": "moe_intermediate_size",
    "shared_experts": "shared_experts",
    "dense_first_layers": "dense_first_layers",
}
_BY_ATTENTION: Final = {
    "Full": {},
    "SlidingAndFull": {"sliding_window": "sliding_window", "full_attn_layers": "full_attention_layers"},
    "MLA": {"kv_lora_rank": "kv_lora_rank", "qk_rope_head_dim": "qk_rope_head_dim"},
}


def make(text: str) -> dict[str, Any]:
    """The catalogue as a JSON object: models by id, and the ids that are known but cannot be sized, with the reason."""
    models: dict[str, Any] = {}
    left_out: dict[str, Any] = {}
    for row in csv.DictReader(text.splitlines()):
        if reason := _unusable(row):
            left_out[row["model"]] = reason
        else:
            models[row["model"]] = _model(row)
    return {"version": READ, "models": dict(sorted(models.items())), "left_out": dict(sorted(left_out.items()))}


def _unusable(row: Mapping[str, str]) -> dict[str, str] | None:
    if why := not_understood(row["architecture"]):
        return {"reason": "NotUnderstood", "why": why}
    missing = [name for column, name in _NUMBERS.items() if not row[column]]
    missing += [name for column, name in _BY_ATTENTION[_ATTENTION[row["attention"]]].items() if not row[column]]
    if not row["intermediate_size"] and not row["moe_intermediate_size"]:
        missing.append("intermediate_size")
    if missing:
        return {"reason": "Incomplete", "why": f"the source does not say {', '.join(missing)}"}
    return None


def _model(row: Mapping[str, str]) -> dict[str, Any]:
    attention = _ATTENTION[row["attention"]]
    model: dict[str, Any] = {"name": _CLASS.get(row["architecture"], row["architecture"]), "attention": attention}
    for column, name in {**_NUMBERS, **_OPTIONAL, **_BY_ATTENTION[attention]}.items():
        if row[column]:
            model[name] = int(row[column])
    model["tie_embeddings"] = row["tie_embeddings"] == "true"
    # Only a published size is a fact of its own; and one that counts the weights twice is none.
    if row["weight_gib_how"].startswith("published") and "duplicate" not in row["weight_gib_how"]:
        model["weight_bytes"] = round(float(row["weight_gib"]) * 100) * 1024**3 // 100
    if form := _FORMATS[row["weight_dtype"]]:
        model["quantization"] = form
    model["source"] = row["source"]
    return model


def main(path: Path) -> None:
    """Write catalogue.json beside the table."""
    catalogue = make(path.read_text(encoding="utf-8"))
    target = path.with_name("catalogue.json")
    target.write_text(json.dumps(catalogue, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{target}: {len(catalogue['models'])} models, {len(catalogue['left_out'])} left out\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
