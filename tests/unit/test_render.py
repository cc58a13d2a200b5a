"""What holds for every pod we render, whatever the spec says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain import record as records
from modeltiers.domain.record import inputs_of
from modeltiers.render.engine import binary, millis
from tests.unit.golden import children_of, examples, record_of

PODS = [
    (document["metadata"]["name"], child["spec"]["template"]["spec"])
    for _, document in examples()
    for child in children_of(document)
    if child["kind"] == "Deployment"
]


def base(**spec: Any) -> ModelTierSpec:
    return ModelTierSpec.model_validate(
        {
            "model": {"source": "hf://Qwen/Qwen3-8B"},
            "accelerators": [{"name": "h100", "product": "NVIDIA-H100-80GB-HBM3"}],
            **spec,
        }
    )


def engine(spec: ModelTierSpec, chosen: Settings | None = None) -> dict[str, Any]:
    record = record_of("t", spec, chosen or Settings())
    container: dict[str, Any] = record.template["spec"]["containers"][0]
    return container


def restricted(pod: dict[str, Any]) -> list[str]:
    """Pod Security `restricted` as far as our pods could break it; empty when they do not."""
    broken = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    allowed = {
        "emptyDir",
        "persistentVolumeClaim",
        "configMap",
        "secret",
        "projected",
        "downwardAPI",
        "ephemeral",
        "csi",
    }
    broken += [v["name"] for v in pod["volumes"] if not set(v) - {"name"} <= allowed]
    security = pod["securityContext"]
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        broken.append("root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        broken.append("seccomp")
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            broken.append("privilege")
        if own["capabilities"] != {"drop": ["ALL"]}:
            broken.append("capabilities")
        broken += [f"hostPort {port}" for port in container.get("ports", ()) if "hostPort" in port]
    return broken


@pytest.mark.parametrize(("name", "pod"), PODS, ids=[name for name, _ in PODS])
def test_pods_pass_pod_security_restricted(name: str, pod: dict[str, Any]) -> None:
    assert restricted(pod) == []
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("seconds", [1, 120, 3600])
def test_grace_covers_the_drain_without_a_router(seconds: int) -> None:
    """The kubelet must not kill an engine that still answers: preStop, the longest answer and the exit fit in."""
    pod = record_of("t", base(serving={"shutdownSeconds": seconds}), Settings()).template["spec"]
    [container] = pod["containers"]
    [shutdown] = [a.split("=")[1] for a in container["args"] if a.startswith("--shutdown-timeout=")]
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pre_stop + int(shutdown) + 10


def test_no_user_value_is_split_or_expanded() -> None:
    hostile = "$(HOME) --trust-remote-code\n--x"
    spec = base(
        serving={"env": [{"name": "VLLM_X", "value": hostile}]},
        model={"source": "hf://Qwen/Qwen3-8B", "servedName": "a/b"},
    )
    container = engine(spec)
    assert {"name": "VLLM_X", "value": "$$(HOME) --trust-remote-code\n--x"} in container["env"]
    assert [a for a in container["args"] if a.startswith("--served-model-name")] == ["--served-model-name=a/b"]
    assert all(isinstance(argument, str) for argument in container["args"])


def test_a_secret_is_handed_on_by_reference_only() -> None:
    spec = base(model={"source": "hf://Qwen/Qwen3-8B", "tokenSecretRef": {"name": "hf", "key": "token"}})
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}} in engine(spec)["env"]


def test_a_profile_brings_command_env_args_and_mounts_before_the_tier_has_its_say() -> None:
    chosen = Settings.model_validate(
        {
            "engineProfiles": {
                "cpu": {
                    "image": "example.com/vllm-cpu:1",
                    "command": ["python3", "-m", "vllm"],
                    "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}],
                    "args": ["--enforce-eager"],
                    "mounts": [{"name": "venv", "path": "/venv", "claimName": "venv"}],
                    "memory": "4Gi",
                }
            }
        }
    )
    spec = base(
        serving={"profile": "cpu", "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}], "args": ["--seed=1"]}
    )
    container = engine(spec, chosen)
    assert (container["image"], container["command"]) == ("example.com/vllm-cpu:1", ["python3", "-m", "vllm"])
    assert container["args"][-2:] == ["--enforce-eager", "--seed=1"]
    assert {"name": "VLLM_LOGGING_LEVEL", "value": "INFO"} in container["env"]
    assert {"name": "p-venv", "mountPath": "/venv", "readOnly": True} in container["volumeMounts"]
    assert container["resources"]["limits"]["memory"] == "4Gi"


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"source": "hf://Qwen/Qwen3-8B", "maxModelLen": 4096}},
        {"sizing": {"concurrency": 4}},
        {"serving": {"args": ["--seed=1"]}},
        {"scheduling": {"nodeSelector": {"a": "b"}}},
        {"rolloutToken": "again"},
    ],
)
def test_what_a_pod_runs_decides_the_inputs(change: dict[str, Any]) -> None:
    assert inputs_of(base(**change)) != inputs_of(base())


@pytest.mark.parametrize(
    "change",
    [{"replicas": 5}, {"rank": 3}, {"price": {"gpuHourMicros": 1}}, {"serving": {}}, {"sizing": {"mode": "Auto"}}],
)
def test_what_a_pod_does_not_run_leaves_the_inputs(change: dict[str, Any]) -> None:
    """An empty section and one that says the defaults are what no section is... as far as the pod is concerned."""
    spec = base(**change)
    if "serving" in change or "sizing" in change:
        assert record_of("t", spec, Settings()).template == record_of("t", base(), Settings()).template
    else:
        assert inputs_of(spec) == inputs_of(base())


def test_a_record_survives_its_annotation() -> None:
    record = record_of("t", base(), Settings())
    assert records.load(record.dump()) == record


@given(st.text() | st.none())
def test_any_annotation_is_a_record_or_none(text: str | None) -> None:
    assert records.load(text) is None


def test_a_record_of_another_format_is_not_trusted() -> None:
    body = json.loads(record_of("t", base(), Settings()).dump())
    assert records.load(json.dumps(body | {"format": 99})) is None
    del body["template"]
    assert records.load(json.dumps(body)) is None


@settings(max_examples=50)
@given(st.integers(0, 2**50))
def test_quantities_are_spelt_as_the_server_keeps_them(amount: int) -> None:
    text = binary(amount)
    units = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}
    unit = text[-2:] if text[-2:] in units else ""
    number = int(text.removesuffix(unit))
    assert number << units.get(unit, 0) == amount
    assert unit == "Ti" or not amount or number % 1024


def test_millis() -> None:
    assert [millis(4000), millis(2500)] == ["4", "2500m"]


def test_a_new_rollout_token_alone_rolls_the_pods() -> None:
    templates = [
        record_of("t", base(**token), Settings()).template
        for token in ({}, {"rolloutToken": "a"}, {"rolloutToken": "b"})
    ]
    assert templates[0] != templates[1] != templates[2]
    assert templates[0]["spec"] == templates[1]["spec"] == templates[2]["spec"]
