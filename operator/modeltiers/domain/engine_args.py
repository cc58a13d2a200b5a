"""Which engine flags and environment variables a tenant may set.

An allow-list, because a flag that vLLM adds tomorrow must not open what is closed today: each allowed flag has a
shape that its value must have. Flags that the operator owns are refused with the field that sets them.
Administrators are not bound: an engine profile may say anything (`engineProfiles.<name>.args`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Refusal:
    """A value in the spec that the operator will not act on: where it is, what is wrong, and the way out."""

    path: str
    message: str


_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PATHS: Final = re.compile(r"/[A-Za-z0-9/_.,-]{0,127}")
_SWITCH, _INT, _TEXT, _JSON, _ROUTES = "switch", "integer", "word", "JSON object", "list of paths"

ALLOWED: Final[Mapping[str, str | tuple[str, ...]]] = {
    "async-scheduling": _SWITCH,
    "block-size": ("8", "16", "32", "64", "128"),
    "chat-template-content-format": ("auto", "string", "openai"),
    "default-chat-template-kwargs": _JSON,
    "disable-access-log-for-endpoints": _ROUTES,
    "disable-fastapi-docs": _SWITCH,
    "dtype": ("auto", "bfloat16", "float16", "half"),
    "enable-auto-tool-choice": _SWITCH,
    "enable-chunked-prefill": _SWITCH,
    "enable-force-include-usage": _SWITCH,
    "enable-per-request-metrics": _SWITCH,
    "enable-prefix-caching": _SWITCH,
    "enable-request-id-headers": _SWITCH,
    "enable-server-load-tracking": _SWITCH,
    "enforce-eager": _SWITCH,
    "generation-config": ("auto", "vllm"),
    "limit-mm-per-prompt": _JSON,
    "logprobs-mode": ("raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits"),
    "max-logprobs": _INT,
    "max-num-queued-reqs": _INT,
    "max-num-queued-tokens": _INT,
    "no-async-scheduling": _SWITCH,
    "no-enable-chunked-prefill": _SWITCH,
    "no-enable-prefix-caching": _SWITCH,
    "reasoning-parser": _TEXT,
    "scheduling-policy": ("fcfs", "priority"),
    "seed": _INT,
    "sse-keep-alive-interval": _INT,
    "tokenizer-mode": ("auto", "slow", "mistral"),
    "tool-call-parser": _TEXT,
    "uvicorn-log-level": ("debug", "info", "warning", "error", "critical"),
}

# Flags that the operator sets itself, and the field that decides them.
OWNED: Final[Mapping[str, str]] = {
    "model": "spec.model.source",
    "revision": "spec.model.revision",
    "tokenizer-revision": "spec.model.revision",
    "served-model-name": "spec.model.servedName",
    "max-model-len": "spec.model.maxModelLen",
    "quantization": "spec.model.quantization",
    "kv-cache-dtype": "spec.model.kvCacheDtype",
    "tensor-parallel-size": "spec.sizing",
    "tp": "spec.sizing",
    "pipeline-parallel-size": "spec.sizing",
    "pp": "spec.sizing",
    "data-parallel-size": "spec.replicas",
    "dp": "spec.replicas",
    "enable-expert-parallel": "spec.sizing",
    "ep": "spec.sizing",
    "max-num-seqs": "spec.sizing.concurrency",
    "max-num-batched-tokens": "spec.sizing",
    "gpu-memory-utilization": "spec.sizing",
    "device-memory-utilization": "spec.sizing",
    "kv-cache-memory-bytes": "spec.sizing",
    "cpu-offload-gb": "spec.sizing",
    "shutdown-timeout": "spec.serving.shutdownSeconds",
    "download-dir": "spec.serving.cache",
    "host": "the Service",
    "port": "the Service",
}

_OWNED_ENV: Final[Mapping[str, str]] = {
    "HF_TOKEN": "spec.model.tokenSecretRef",
    "HUGGING_FACE_HUB_TOKEN": "spec.model.tokenSecretRef",
    "HF_HOME": "spec.serving.cache",
    "HF_HUB_CACHE": "spec.serving.cache",
    "VLLM_CACHE_ROOT": "spec.serving.cache",
    "VLLM_ENGINE_READY_TIMEOUT_S": "spec.serving.startupSeconds",
}
_ALLOWED_ENV: Final = re.compile(
    r"(VLLM_|HF_|NCCL_|TORCH_|TORCHINDUCTOR_|OTEL_|OMP_|TOKENIZERS_|AWS_|CUDA_|SAFETENSORS_)[A-Z0-9_]*"
    r"|(HTTP|HTTPS|NO)_PROXY|(http|https|no)_proxy|TZ"
)
# Inside the allowed families, these open a door or change what the operator owns.
_DENIED_ENV: Final = re.compile(
    r"VLLM_(SERVER_DEV_MODE|ALLOW_RUNTIME_LORA_UPDATING|API_KEY|HOST_IP|PORT|RPC_.*|PLUGINS|ALLOW_INSECURE_SERIALIZATION"
    r"|ALLOW_LONG_MAX_MODEL_LEN|KEEP_ALIVE_ON_ENGINE_DEATH|USE_MODELSCOPE|TRACE_FUNCTION|CONFIG_ROOT|PP_LAYER_PARTITION"
    r"|TORCH_PROFILER_DIR|.*TRUST_REMOTE.*)|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|HF_MODULES_CACHE|TORCH_(EXTENSIONS_DIR|HOME)"
    r"|TORCHINDUCTOR_CACHE_DIR|NCCL_(CONF_FILE|.*PLUGIN.*|DEBUG_FILE|TOPO_FILE|GRAPH_FILE)|OTEL_PYTHON_.*"
)
_PROFILE = "an administrator can set it in an engine profile (engineProfiles)"


def refused_args(args: Sequence[str], path: str = "spec.serving.args") -> list[Refusal]:
    """Every argument that may not be passed on, with the reason; empty when all may."""
    found: list[Refusal] = []
    seen: dict[str, int] = {}
    for index, argument in enumerate(args):
        where = f"{path}[{index}]"
        flag, _, value = argument.removeprefix("--").partition("=")
        # vLLM takes dashes and underscores alike, and JSON flags by dotted parts: judge the flag, not its spelling.
        name = flag.split(".")[0].replace("_", "-")
        problem = _argument_problem(argument, name, value, has_value="=" in argument, dotted="." in flag)
        if problem is None and name in seen:
            problem = f"--{name} is given twice, first in {path}[{seen[name]}]: keep one"
        seen.setdefault(name, index)
        if problem:
            found.append(Refusal(where, problem))
    return found


def _argument_problem(argument: str, name: str, value: str, *, has_value: bool, dotted: bool) -> str | None:
    if not argument.startswith("--") or not name:
        return "must be one flag, as --flag or --flag=value"
    if name in OWNED:
        return f"--{name} is set by the operator: use {OWNED[name]} instead"
    if name not in ALLOWED:
        return f"--{name} is not a flag that tiers may set: remove it; {_PROFILE}"
    if dotted:
        return f"--{name} must be given whole, not by dotted parts"
    shape = ALLOWED[name]
    return _shape_problem(name, shape, value, has_value)


def _shape_problem(name: str, shape: str | tuple[str, ...], value: str, has_value: bool) -> str | None:
    if shape == _SWITCH:
        return f"--{name} takes no value" if has_value else None
    if isinstance(shape, tuple):
        return None if value in shape else f"--{name} must be one of {', '.join(shape)}"
    fits = {
        _INT: value.isascii() and value.isdigit() and len(value) <= 12,
        _TEXT: _WORD.fullmatch(value) is not None,
        _ROUTES: _PATHS.fullmatch(value) is not None and ".." not in value,
        _JSON: _is_json_object(value),
    }
    return None if fits[shape] else f"--{name} needs a {shape}, as --{name}=..."


def _is_json_object(value: str) -> bool:
    try:
        return isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def refused_env(variables: Sequence[str], path: str = "spec.serving.env") -> list[Refusal]:
    """Every variable name that may not be set, with the reason; empty when all may."""
    found: list[Refusal] = []
    for name in variables:
        where = f"{path}[{name}]"
        if name in _OWNED_ENV:
            found.append(Refusal(where, f"{name} is set by the operator: use {_OWNED_ENV[name]} instead"))
        elif not _ALLOWED_ENV.fullmatch(name) or _DENIED_ENV.fullmatch(name):
            found.append(Refusal(where, f"{name} is not a variable that tiers may set: remove it; {_PROFILE}"))
    return found
