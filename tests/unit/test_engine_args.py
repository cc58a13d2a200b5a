"""Which flags and variables a tenant may set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.engine_args import ALLOWED, OWNED, refused_args, refused_env

GOOD = [
    "--enable-auto-tool-choice",
    "--tool-call-parser=hermes",
    "--reasoning-parser=deepseek_r1",
    "--max-logprobs=20",
    "--seed=0",
    '--limit-mm-per-prompt={"image": 2}',
    "--generation-config=vllm",
    "--disable-access-log-for-endpoints=/health,/metrics",
]


def test_useful_flags_are_allowed() -> None:
    assert refused_args(GOOD) == []


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("--tensor-parallel-size=8", "spec.sizing"),
        ("--tp=8", "spec.sizing"),
        ("--max-model-len=1", "spec.model.maxModelLen"),
        ("--max_model_len=1", "spec.model.maxModelLen"),
        ("--host=0.0.0.0", "the Service"),
        ("--trust-remote-code", "engine profile"),
        ("--allowed-local-media-path=/", "engine profile"),
        ("--api-key=x", "engine profile"),
        ("--tool-server=x", "engine profile"),
        ("--speculative-config={}", "engine profile"),
        ("--config=/tmp/x.yaml", "engine profile"),
        ("--hf-overrides={}", "engine profile"),
        ("--default-chat-template-kwargs.x=1", "not by dotted parts"),
        ("--enforce-eager=true", "takes no value"),
        ("--max-logprobs", "integer"),
        ("--max-logprobs=-1", "integer"),
        ("--max-logprobs=٣", "integer"),
        ("--seed=1 --trust-remote-code", "integer"),
        ("--reasoning-parser=../../x", "word"),
        ("--reasoning-parser=a\nb", "word"),
        ("--generation-config=/etc", "one of auto, vllm"),
        ("--limit-mm-per-prompt=[1]", "JSON object"),
        ("--disable-access-log-for-endpoints=/../etc", "list of paths"),
        ("--", "must be one flag"),
        ("@file", "must be one flag"),
        ("-tp", "must be one flag"),
    ],
)
def test_a_refusal_names_the_argument_and_the_way_out(argument: str, word: str) -> None:
    [refusal] = refused_args([argument])
    assert refusal.path == "spec.serving.args[0]"
    assert word in refusal.message


def test_a_flag_given_twice_is_refused_whatever_its_spelling() -> None:
    [refusal] = refused_args(["--max-logprobs=1", "--max_logprobs=2"])
    assert refusal.path == "spec.serving.args[1]"
    assert "twice" in refusal.message


def test_no_flag_is_both_owned_and_allowed() -> None:
    assert not set(ALLOWED) & set(OWNED)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_gets_an_answer(arguments: list[str]) -> None:
    assert len(refused_args(arguments)) <= len(arguments)


def test_useful_variables_are_allowed() -> None:
    assert refused_env(["VLLM_LOGGING_LEVEL", "HF_HUB_OFFLINE", "NCCL_DEBUG", "HTTPS_PROXY", "OMP_NUM_THREADS"]) == []


@pytest.mark.parametrize(
    "name",
    [
        "VLLM_SERVER_DEV_MODE",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_PLUGINS",
        "VLLM_API_KEY",
        "VLLM_PORT",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PATH",
        "HOME",
        "USER",
        "HF_TOKEN",
        "HF_HOME",
        "VLLM_CACHE_ROOT",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "NCCL_NET_PLUGIN",
        "TORCH_EXTENSIONS_DIR",
        "BASH_ENV",
    ],
)
def test_variables_that_open_a_door_are_refused(name: str) -> None:
    [refusal] = refused_env([name])
    assert name in refusal.path
