"""Engines' last words: what they mean, and what of them is shown."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.engine_messages import KNOWN, MAX_QUOTE, line_of, quote, recognise

# One or more real sentences for every entry, as engines, torch, NCCL and the hub's client print them.
SENTENCES = {
    "ModelGated": [
        "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
        "Access to model meta-llama/Llama-3.1-8B is restricted. You must have access to it",
        "OSError: You are trying to access a gated repo.",
    ],
    "RevisionNotFound": [
        "OSError: 0000 is not a valid git identifier (branch name, tag name or commit id) that exists.",
        "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.",
    ],
    "ModelNotFound": [
        "OSError: example/nope is not a local folder and is not a valid model identifier listed on the hub",
        "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error: Unauthorized",
        "Invalid repository ID or local directory specified: '/models/x'.",
        "RuntimeError: Cannot find any model weights with `/models/x`",
    ],
    "TokenRejected": ["Invalid user token.", "401 Client Error: Unauthorized for url: https://hub.example.com/api"],
    "HubUnreachable": [
        "OSError: We couldn't connect to 'https://hub.example.com' to load the files",
        "socket.gaierror: [Errno -3] Temporary failure in name resolution",
        "429 Client Error: Too Many Requests",
    ],
    "DiskFull": ["OSError: [Errno 28] No space left on device", "Not enough free disk space to download the file."],
    "VolumeNotWritable": ["PermissionError: [Errno 13] Permission denied: '/cache/hub'"],
    "KVCacheTooSmall": [
        "ValueError: To serve at least one request with the model's max seq len (65536), (2.0 GiB KV cache is needed",
        "ValueError: To serve at least one request with the models's max seq len (65536), 2.0 GiB KV cache is needed",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    ],
    "ContextTooLong": [
        "User-specified max_model_len (65536) is greater than the derived max_model_len (max_position=32768)",
    ],
    "GpuMemoryBusy": [
        "ValueError: Free memory on device (60.2/79.19 GiB) on startup is less than desired GPU memory",
        "Free memory on device cuda:0 (1.0/2.0 GiB) on startup is less than desired GPU memory utilization",
    ],
    "HeadsNotDivisible": [
        "Total number of attention heads (40) must be divisible by tensor parallel size (3).",
        "AssertionError: 18944 is not divisible by 5",
    ],
    "GpuOutOfMemory": [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB.",
        "RuntimeError: CUDA error: out of memory",
        "torch.OutOfMemoryError: HIP out of memory.",
    ],
    "FlagRejected": [
        "vllm serve: error: unrecognized arguments: --foo",
        "vllm serve: error: argument --dtype: invalid choice: 'x'",
        "vllm serve: error: ambiguous option: --device could match --device-ids",
    ],
    "RemoteCodeNeeded": [
        "The repository x contains custom code which must be executed to correctly load the model.",
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
    ],
    "ModelNotSupported": [
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
        "model type `foo` but Transformers does not recognize this architecture.",
    ],
    "WeightsDamaged": ["safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer"],
    "DriverMismatch": [
        "CUDA driver version is insufficient for CUDA runtime version",
        "Error 803: system has unsupported display driver / cuda driver combination",
        "CUDA error: no kernel image is available for execution on the device",
    ],
    "NotSupportedByGpu": ["Bfloat16 is only supported on GPUs with compute capability of at least 8.0."],
    "GpuNotVisible": ["RuntimeError: No CUDA GPUs are available", "RuntimeError: Failed to infer device type"],
    "GpuCommunicationFailed": ["torch.distributed.DistBackendError: NCCL error in: x, ncclSystemError"],
    "SharedMemoryTooSmall": ["RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error."],
    "StartupTimeout": [
        "TimeoutError: Timed out waiting for engine core processes to start. Waited 600s (configured by X).",
    ],
    "EngineDied": ["vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."],
}
HARMLESS = [
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
    "INFO non-default args: {'model': 'x', 'trust_remote_code': False, 'max_model_len': 4096}",
    "INFO Initializing a V1 LLM engine with config: trust_remote_code=False, dtype=torch.bfloat16",
    "RuntimeError: something nobody has seen before",
    "",
]


def test_every_entry_has_a_sentence() -> None:
    """A pattern that nothing shows to work does not stay."""
    assert {known.reason for known in KNOWN} == set(SENTENCES)


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in SENTENCES.items() for text in texts])
def test_known_sentences_are_recognised(reason: str, text: str) -> None:
    """Also with the engine's own prefix and with what follows it."""
    log = f"(EngineCore pid=61) {text}\n(APIServer pid=1) {HARMLESS[0]}"
    found = recognise(log)
    assert found is not None
    assert found.reason == reason
    assert found.way_out
    assert line_of(log, found) == quote(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_other_sentences_are_not(text: str) -> None:
    """A consequence, a configuration dump or the unknown names no cause."""
    assert recognise(text) is None


def test_only_the_end_is_read() -> None:
    """What kubelet keeps is 4 KiB at most; more is not looked at."""
    assert recognise("CUDA out of memory" + "x" * 5000) is None
    assert recognise("x" * 5000 + "\nCUDA out of memory") is not None


SECRETS = [
    "hf_abcdefGHIJKLmnopqrSTUVWXyz0123",
    "sk-proj-abcdefghijklmnop",
    "Bearer abc.def-ghi",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    base64.b64encode(hashlib.sha512(b"x").digest()).decode(),
    base64.b64encode(hashlib.sha256(b"y").digest()).decode(),
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["failed with {} in it", "Authorization: {}", "https://host/x?token={}&y=1", "'{}'"])
def test_credentials_are_taken_out(secret: str, around: str) -> None:
    """Whatever stands around them."""
    shown = quote(around.format(secret))
    assert "redacted" in shown
    assert secret.removeprefix("Bearer ")[6:] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2@registry.example.com/v2/",
        "password=hunter2",
        "api_key: 'hunter2'",
        "HF_TOKEN=hunter2",
        "Authorization: Basic hunter2",
    ],
)
def test_named_credentials_are_taken_out(text: str) -> None:
    """Short ones are known by what stands before them."""
    assert "hunter2" not in quote(text)


@pytest.mark.parametrize(
    "text",
    [
        'secret "hf-token" not found',
        "couldn't find key token in Secret demo/hf-token",
        "registry.example.com/vllm@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef: not found",
        "/models/deepseek-ai/DeepSeek-R1-Distill-Qwen-32B-AWQ/snapshots/0123456789abcdef0123456789abcdef01234567",
        "0/5 nodes are available: 5 Insufficient nvidia.com/gpu. preemption: 0/5 nodes are available.",
        "max_num_batched_tokens=2048 is smaller than max_num_seqs",
    ],
)
def test_names_and_digests_stay(text: str) -> None:
    """A message without its names helps nobody."""
    assert quote(text) == text


@given(st.text(max_size=3000))
def test_a_quote_is_one_short_line(text: str) -> None:
    """Whatever was written."""
    shown = quote(text)
    assert len(shown) <= MAX_QUOTE
    assert "\n" not in shown
    assert shown == "" or shown.isprintable()
    assert len(line_of(text)) <= MAX_QUOTE
    recognise(text)


@pytest.mark.parametrize(
    "unit", ["a", "1", "://a:", "access to model ", "token=", "eyJ.", "Ab1", "attention heads ", " "]
)
def test_hostile_logs_cost_little(unit: str) -> None:
    """A pattern that went quadratic would not end within the tests' patience here."""
    text = unit * (1_000_000 // len(unit))
    recognise(text)
    assert len(quote(text)) <= MAX_QUOTE
