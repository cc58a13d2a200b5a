"""What engines say when they end, and how words of others are quoted.

An engine's last lines come with the container's status (`terminationMessagePolicy: FallbackToLogsOnError`). A table of
known messages turns them into a reason and a way out; exit codes are no help, since the engine may end with 0 when it
dies. Quoted words are cut to one short line, and whatever looks like a credential is taken out.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Final

MAX_READ: Final = 4096
MAX_QUOTE: Final = 256


@dataclass(frozen=True, slots=True)
class EngineMessage:
    """One known message. `retryable`: a later start may succeed though nobody changed anything."""

    reason: str
    pattern: re.Pattern[str]
    way_out: str
    retryable: bool = False


def _known(reason: str, pattern: str, way_out: str, *, retryable: bool = False) -> EngineMessage:
    return EngineMessage(reason, re.compile(pattern, re.IGNORECASE), way_out, retryable)


# Ordered: the special before the general, causes before their consequences. Patterns hold no nested repetition and no
# more than one bounded gap, so that a hostile log costs linear time.
KNOWN: Final[tuple[EngineMessage, ...]] = (
    _known(
        "ModelGated",
        r"GatedRepoError|cannot access gated repo|access a gated repo|access to model [^\n]{0,200} is restricted",
        "accept the model's licence on its page with the account of the token, and set spec.model.tokenSecretRef to a"
        " Secret that holds the token",
    ),
    _known(
        "RevisionNotFound",
        r"RevisionNotFoundError|revision not found for url|is not a valid git identifier|invalid rev id",
        "set spec.model.revision to a commit, tag or branch of this model, or leave it out for the default branch",
    ),
    _known(
        "ModelNotFound",
        r"RepositoryNotFoundError|repository not found for url|is not a valid model identifier"
        r"|invalid repository id or local directory|HFValidationError|cannot find any model weights",
        "check spec.model.source, letter by letter; a private model also needs spec.model.tokenSecretRef",
    ),
    _known(
        "TokenRejected",
        r"invalid user token|invalid credentials in authorization header|401 client error: unauthorized",
        "put a valid Hugging Face token into the Secret that spec.model.tokenSecretRef names",
    ),
    _known(
        "HubUnreachable",
        r"we couldn't connect to 'http|LocalEntryNotFoundError|name or service not known"
        r"|temporary failure in name resolution|NameResolutionError|ConnectTimeout|ConnectionError"
        r"|max retries exceeded with url|429 client error|too many requests|outgoing traffic has been disabled",
        "let the pods reach the hub (NetworkPolicy, proxy variables in spec.serving.env), or serve the model from a"
        " volume with a pvc:// source",
        retryable=True,
    ),
    _known(
        "DiskFull",
        r"no space left on device|errno 28\b|not enough free disk space|disk quota exceeded",
        "use a larger volume for spec.serving.cache, or nodes with more local disk",
        retryable=True,
    ),
    _known(
        "VolumeNotWritable",
        r"PermissionError: \[errno 13\]|read-only file system",
        "make the folder writable for the engine's user: check the volume of spec.serving.cache and the mounts of the"
        " profile",
    ),
    _known(
        "KVCacheTooSmall",
        r"to serve at least one request with the models?(?:'s)? max seq len|no available memory for the cache blocks"
        r"|larger than the maximum number of tokens that can be stored in kv cache"
        r"|larger than the available kv cache memory",
        "lower spec.model.maxModelLen, set spec.model.kvCacheDtype to FP8, or give the replica more accelerators with"
        " spec.sizing",
    ),
    _known(
        "ContextTooLong",
        r"is greater than the derived max_model_len",
        "lower spec.model.maxModelLen to what the model supports, or leave it out",
    ),
    _known(
        "GpuMemoryBusy",
        r"free memory on device [^\n]{0,200} is less than desired",
        "another process holds memory of this accelerator: look with nvidia-smi on the node, end it, or turn sharing"
        " of the accelerator off",
        retryable=True,
    ),
    _known(
        "HeadsNotDivisible",
        r"attention heads [^\n]{0,80}must be divisible by|\b\d{1,9} is not divisible by \d",
        "change spec.sizing.pinned.tensorParallel to a number that divides the model's heads, or set spec.sizing.mode"
        " to Auto",
    ),
    _known(
        "GpuOutOfMemory",
        r"(?:cuda|hip|xpu) out of memory|torch(?:\.cuda)?\.OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY"
        r"|cuda error: out of memory",
        "give the replica more accelerators or larger ones (spec.accelerators, spec.sizing), lower"
        " spec.sizing.concurrency or spec.model.maxModelLen, or set spec.model.quantization to FP8",
        retryable=True,
    ),
    _known(
        "FlagRejected",
        r"unrecognized arguments|error: argument -|error: ambiguous option|error: the following arguments are required",
        "remove the flag from spec.serving.args or from the engine profile, or use an engine image that knows it",
    ),
    _known(
        "RemoteCodeNeeded",
        r"pass the argument `?trust_remote_code|requires you to execute|contains custom code which must be executed",
        "the model brings code of its own, which tiers may not run: choose another model, or have an administrator"
        " allow it in an engine profile",
    ),
    _known(
        "ModelNotSupported",
        r"model architectures? [^\n]{0,200}(?:are|is) not supported|does not recognize this architecture"
        r"|has no vllm implementation|pipeline parallelism is not supported for this model",
        "use a newer engine image (spec.serving.image or an engine profile), or another model",
    ),
    _known(
        "WeightsDamaged",
        r"SafetensorError|error while deserializing header|MetadataIncompleteBuffer|PytorchStreamReader failed",
        "the weight files are incomplete: empty the folder of the model on the cache volume, so that they are"
        " downloaded again",
    ),
    _known(
        "DriverMismatch",
        r"cuda driver version is insufficient|nvidia driver on your system is too old|unsupported display driver"
        r"|forward compatibility was attempted|no kernel image is available"
        r"|cuda error: (?:the provided ptx|device kernel image)",
        "the image's CUDA and the node's driver do not go together: update the driver, or use an engine image built"
        " for it",
    ),
    _known(
        "NotSupportedByGpu",
        r"only supported on gpus with compute capability|minimum capability: \d|is not supported for the current gpu"
        r"|not supported on this gpu",
        "choose a newer accelerator in spec.accelerators, or another spec.model.quantization or dtype",
    ),
    _known(
        "GpuNotVisible",
        r"no cuda gpus are available|failed to infer device type|found no nvidia driver|no cuda-capable device"
        r"|CUDA_ERROR_NO_DEVICE|no hip gpus are available",
        "the container sees no accelerator: check the device plugin on the node and spec.scheduling.runtimeClassName",
    ),
    _known(
        "GpuCommunicationFailed",
        r"ncclSystemError|ncclUnhandledCudaError|ncclInternalError|ncclRemoteError|nccl error",
        "accelerators of one replica cannot talk to each other: check the node's links and shared memory, and NCCL"
        " variables in spec.serving.env",
        retryable=True,
    ),
    _known(
        "SharedMemoryTooSmall",
        r"\bbus error\b|insufficient shared memory",
        "raise spec.serving.resources.memory: shared memory counts against it",
        retryable=True,
    ),
    _known(
        "StartupTimeout",
        r"timed out waiting for engine|VLLM_ENGINE_READY_TIMEOUT_S",
        "raise spec.serving.startupSeconds, or keep the weights on a volume with spec.serving.cache",
        retryable=True,
    ),
    _known(
        "EngineDied",
        r"EngineDeadError|enginecore encountered an issue|engine core proc [^\n]{0,80}died",
        "the engine stopped while serving: see `kubectl logs --previous` for the first error; it is started again",
        retryable=True,
    ),
)
_BY_REASON: Final = {message.reason: message for message in reversed(KNOWN)}

_REDACTIONS: Final = (
    (re.compile(r"\b(?:Bearer|Basic) +[^\s\"',;]+", re.IGNORECASE), "[redacted]"),
    (re.compile(r"\bhf_[A-Za-z0-9]{6,}"), "hf_[redacted]"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "sk-[redacted]"),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{8,}"), "[redacted]"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), "[redacted]"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"), "[redacted]"),
    (re.compile(r"://[^\s/@:]{1,256}:[^\s/@]{1,256}@"), "://[redacted]@"),
    (
        re.compile(
            r"(api[_-]?key|token|secret|passw(?:or)?d|signature|credential|authorization)"
            r"([\"']?[=:] ?[\"']?)(?!\[redacted)[^\s\"'&,;]+",
            re.IGNORECASE,
        ),
        r"\1\2[redacted]",
    ),
)
_LONG: Final = re.compile(r"[A-Za-z0-9+/=_-]{32,}")
_PREFIX: Final = re.compile(r"^\([A-Za-z_0-9]{1,40} pid=\d{1,10}\) *")


def recognise(text: str) -> EngineMessage | None:
    """The first known message in the last 4 KiB of an engine's words; None when nothing is known."""
    tail = text[-MAX_READ:]
    return next((known for known in KNOWN if known.pattern.search(tail)), None)


def known(reason: str) -> EngineMessage:
    """The (first) known message of a reason."""
    return _BY_REASON[reason]


def line_of(text: str, message: EngineMessage | None = None) -> str:
    """The line worth quoting: the one that was recognised, else the last that says something."""
    tail = text[-MAX_READ:]
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    if message:
        lines = [line for line in lines if message.pattern.search(line)][:1] or lines
    return quote(_PREFIX.sub("", lines[-1])) if lines else ""


def quote(text: str, limit: int = MAX_QUOTE) -> str:
    """Somebody else's words: one line, credentials taken out, at most `limit` characters."""
    # Cut before looking for credentials to bound the work, and again after; a credential across the first cut is long
    # enough to be seen from its beginning.
    line = " ".join(text[: 4 * MAX_READ].split())[: 8 * limit]
    line = "".join(char for char in line if char.isprintable())
    for pattern, instead in _REDACTIONS:
        line = pattern.sub(instead, line)
    line = _LONG.sub(lambda match: "[redacted]" if _looks_random(match[0]) else match[0], line)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _looks_random(word: str) -> bool:
    """Base64 changes between upper case, lower case and digits all the time; names, paths and digests do not."""
    kinds = [0 if c.isupper() else 1 if c.islower() else 2 for c in word if c.isalnum()]
    changes = sum(one != other for one, other in itertools.pairwise(kinds))
    return len(set(kinds)) == 3 and changes > 0.45 * len(kinds)
