"""What leaves a cluster in a support bundle has no canary in it, wherever one sat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.why.redact import GONE, redacted, redacted_line

CANARY = "CANARY-7f3a"
PROSE = f"You are {CANARY}, a helpful clerk."


def leaks(body: Any) -> bool:
    return CANARY in json.dumps(redacted(body))


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "Secret", "metadata": {"name": "a"}, "data": {"key": CANARY}, "stringData": {"key": CANARY}},
        {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"t.json": CANARY}, "binaryData": {"b": CANARY}},
        {"kind": "ModelTier", "spec": {"serving": {"env": [{"name": "TOKEN", "value": CANARY}]}}},
        {
            "kind": "Deployment",
            "spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": CANARY}]}]}}},
        },
        {
            "kind": "Deployment",
            "spec": {"template": {"metadata": {"annotations": {"modeltiers.dev/record": json.dumps({"env": CANARY})}}}},
        },
        {"kind": "Pod", "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": CANARY}}},
        {"kind": "Pod", "metadata": {"managedFields": [{"manager": CANARY}]}},
        {"kind": "RoutingPolicy", "spec": {"classify": [{"name": "a", "when": {"keywords": [CANARY]}}]}},
        {"kind": "RoutingPolicy", "spec": {"accept": {"validators": [{"type": "Regex", "pattern": CANARY}]}}},
        {"kind": "DistillJob", "spec": {"generation": {"system": PROSE}}},
        {"kind": "DistillJob", "spec": {"data": {"somethingNew": PROSE}}},
        {"kind": "DistillJob", "spec": {"data": {"scrub": {"patterns": [{"name": "a", "pattern": CANARY}]}}}},
        {"kind": "Event", "message": f"Authorization: Bearer {CANARY}"},
        {"kind": "ModelTier", "status": {"conditions": [{"message": f"api_key={CANARY} was refused"}]}},
    ],
)
def test_no_canary_gets_out(body: dict[str, Any]) -> None:
    assert CANARY in json.dumps(body)
    assert not leaks(body)


def test_what_is_needed_stays() -> None:
    body = {
        "kind": "ModelTier",
        "metadata": {"name": "small", "annotations": {"modeltiers.dev/approve": "abab", "other": "x"}},
        "spec": {"model": {"source": "hf://a/b"}, "serving": {"args": ["--max-num-seqs=8"]}, "replicas": 2},
        "status": {"conditions": [{"type": "Ready", "message": "pod shop/small-1: no node for it"}]},
    }
    told = redacted(body)
    assert told["spec"]["model"] == {"source": "hf://a/b"}
    assert told["spec"]["serving"] == {"args": ["--max-num-seqs=8"]}
    assert told["metadata"]["annotations"] == {"modeltiers.dev/approve": "abab", "other": GONE}
    assert told["status"] == body["status"]
    sizes = redacted({"kind": "ConfigMap", "data": {"a.json": "{}"}})["data"]["a.json"]
    assert sizes.startswith("[2 bytes, sha256 ")


def test_the_examples_keep_their_shape() -> None:
    for path in Path("examples").glob("*/*.yaml"):
        for body in yaml.safe_load_all(path.read_text()):
            if body and body.get("kind") in ("ModelTier", "RoutingPolicy", "DistillJob"):
                told = redacted(body)
                assert told["metadata"]["name"] == body["metadata"]["name"]
                assert set(told["spec"]) == set(body["spec"])


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {CANARY}",
        f'{{"api_key": "{CANARY}", "n": 1}}',
        f"https://user:{CANARY}@host/x",
        f"token={CANARY}",
        "using key sk-CANARY-7f3a-0123456789",
        "hf_CANARY7f3a0123 was given",
    ],
)
def test_no_canary_in_a_line(line: str) -> None:
    assert CANARY.replace("-", "") not in redacted_line(line).replace("-", "")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_whatever_there_is_comes_out_as_data(body: Any) -> None:
    json.dumps(redacted(body))
