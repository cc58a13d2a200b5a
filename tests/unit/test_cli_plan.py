"""`modeltiers plan`: what it prints, how it exits, and that no input makes it fall over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from modeltiers.api.modeltier_status import SizingStatus
from modeltiers.cli.main import main

TIER: dict[str, Any] = {
    "apiVersion": "modeltiers.dev/v1alpha1",
    "kind": "ModelTier",
    "metadata": {"name": "small"},
    "spec": {
        "model": {"source": "hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "maxModelLen": 32768},
        "accelerators": [{"name": "h100", "product": "NVIDIA-H100-80GB-HBM3"}],
        "sizing": {"concurrency": 32},
    },
}
EXTERNAL = {
    **TIER,
    "metadata": {"name": "far"},
    "spec": {"external": {"baseUrl": "https://api.example.com/v1", "model": "big"}},
}


def tier(name: str = "small", **spec: Any) -> dict[str, Any]:
    """The small tier with parts of its spec replaced."""
    return {**TIER, "metadata": {"name": name}, "spec": {**TIER["spec"], **spec}}


def model(source: str, **more: Any) -> dict[str, Any]:
    """A model part of a spec."""
    return {"source": source, **more}


def run(*args: str, stdin: str | bytes | None = None) -> Result:
    """One call of `modeltiers plan`; an exception is a failure of the test."""
    return CliRunner().invoke(main, ["plan", *args], input=stdin, catch_exceptions=False)


def plan(*documents: Any, args: tuple[str, ...] = ()) -> Result:
    """Plan these documents from standard input."""
    return run("-f", "-", *args, stdin=yaml.safe_dump_all(documents))


# --- what it prints ---------------------------------------------------------------------------------------------------


def test_the_small_tier_takes_one_gpu() -> None:
    """Layout first, then every term, then what was tried."""
    result = plan(TIER)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "small: 1 GPU, TP 1, PP 1  hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert any(line.split() == ["weightsMlp", "10.6", "GiB", *line.split()[3:]] for line in lines)
    assert any("Chosen" in line for line in lines)


def test_the_large_tier_shows_why_smaller_ones_lost() -> None:
    """TP 2 holds the weights and no requests, TP 3 is illegal."""
    result = plan(tier("large", model=model("hf://deepseek-ai/DeepSeek-R1-Distill-Llama-70B")))
    assert result.exit_code == 0
    assert result.output.startswith("large: 4 GPUs, TP 4, PP 1")
    assert "64 attention heads do not divide by TP 3" in result.output
    assert "0 of 32 requests of 4096 tokens, all need 20.0 GiB" in result.output


def test_json_is_the_status_of_the_resource() -> None:
    """`sizing` is what the operator writes to status.sizing, field by field."""
    result = plan(TIER, EXTERNAL, args=("-o", "json"))
    small, far = json.loads(result.output)["tiers"]
    SizingStatus.model_validate(small["sizing"])
    assert (small["name"], small["document"], small["fits"]) == ("small", 1, True)
    assert small["sizing"]["freeGpus"] == "unknown"
    assert far == {"name": "far", "file": "standard input", "document": 2, "fits": True, "external": True}


def test_yaml_says_the_same_as_json() -> None:
    """One body, two spellings."""
    as_json = json.loads(plan(TIER, args=("-o", "json")).output)
    assert as_json == yaml.safe_load(plan(TIER, args=("-o", "yaml")).output)


def test_external_tiers_need_no_plan() -> None:
    """They are said to, and do not fail."""
    result = plan(EXTERNAL)
    assert (result.exit_code, result.output) == (0, "far: external (https://api.example.com/v1), needs no plan\n")


def test_no_fit_exits_1_and_prints_the_terms() -> None:
    """In every output."""
    big = tier(model=model("hf://deepseek-ai/DeepSeek-V3-0324"))
    result = plan(big)
    assert result.exit_code == 1
    assert result.output.startswith("small: does not fit (FitsNoAccelerator)")
    assert "layouts over several nodes are not available yet" in result.output
    body = json.loads(plan(big, args=("-o", "json")).output)["tiers"][0]
    assert (body["fits"], body["reason"]) == (False, "FitsNoAccelerator")
    assert body["terms"]
    assert body["candidates"]


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    """And with the way out."""
    result = plan(tier(model=model("hf://deepseek-ai/DeepSeek-R1-Distil-Qwen-7B")))
    assert result.exit_code == 1
    assert "Did you mean deepseek-ai/DeepSeek-R1-Distill-Qwen-7B" in result.output
    assert "spec.model.architecture" in result.output


def test_a_model_that_is_not_understood_is_no_guess() -> None:
    """The reason differs from that of an unknown one."""
    result = plan(tier(model=model("hf://Qwen/Qwen3-Next-80B-A3B-Instruct")))
    assert result.exit_code == 1
    assert "ArchitectureNotSupported" in result.output


def test_an_architecture_in_the_spec_is_taken() -> None:
    """For volumes, and for models that the catalogue does not know."""
    shape = {
        "name": "LlamaForCausalLM",
        "hiddenSize": 4096,
        "layers": 32,
        "attentionHeads": 32,
        "kvHeads": 8,
        "headDim": 128,
        "vocabSize": 128256,
        "intermediateSize": 14336,
        "maxPosition": 131072,
    }
    result = plan(tier(model=model("pvc://models/llama", architecture=shape)))
    assert result.exit_code == 0
    assert "spec.model.architecture; weights estimated from the shapes" in result.output


def test_a_volume_without_architecture_says_what_to_give() -> None:
    """Nobody can look into it from here."""
    result = plan(tier(model=model("pvc://models/llama")))
    assert result.exit_code == 1
    assert "Give spec.model.architecture" in result.output


def test_fp8_pinned_and_latency_are_passed_on() -> None:
    """Every field of sizing counts."""
    llama = model("hf://deepseek-ai/DeepSeek-R1-Distill-Llama-70B", quantization="FP8")
    assert "2 GPUs, TP 2" in plan(tier(model=llama)).output
    pinned = {"mode": "Pinned", "pinned": {"gpus": 4, "tensorParallel": 2, "pipelineParallel": 2}}
    assert "4 GPUs, TP 2, PP 2" in plan(tier(model=llama, sizing=pinned)).output
    assert "8 GPUs, TP 8" in plan(tier(model=llama, sizing={"objective": "Latency"})).output


# --- nodes and settings -----------------------------------------------------------------------------------------------


def a_node(gpus: int, **status: Any) -> dict[str, Any]:
    """A node as kubectl prints it."""
    ready = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "allocatable": {"cpu": "8", "nvidia.com/gpu": str(gpus)},
    }
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "a", "labels": labels},
        "status": {**ready, **status},
    }


def test_nodes_bound_the_layout(tmp_path: Path) -> None:
    """70B needs four; these nodes have two."""
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [a_node(2), a_node(1)]}))
    large = tier(model=model("hf://deepseek-ai/DeepSeek-R1-Distill-Llama-70B"))
    result = plan(large, args=("--nodes", str(nodes)))
    assert result.exit_code == 1
    assert "4 accelerators are more than the 2 of a node" in result.output
    assert "largest of 2 nodes" in plan(TIER, args=("--nodes", str(nodes))).output


def test_only_nodes_that_the_tier_selects_count(tmp_path: Path) -> None:
    """A node of eight beside the pool does not help a tier that may not run there."""
    small, large = a_node(2), a_node(8)
    small["metadata"]["labels"]["pool"] = "tiers"
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(yaml.safe_dump_all([small, large]))
    llama = model("hf://deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
    assert plan(tier(model=llama), args=("--nodes", str(nodes))).exit_code == 0
    picky = tier(model=llama, scheduling={"nodeSelector": {"pool": "tiers"}})
    assert plan(picky, args=("--nodes", str(nodes))).exit_code == 1


def test_nodes_as_json(tmp_path: Path) -> None:
    """The same in the other spelling."""
    nodes = tmp_path / "nodes.json"
    nodes.write_text(json.dumps({"apiVersion": "v1", "kind": "NodeList", "items": [a_node(8)]}))
    assert "largest of 1 nodes" in plan(TIER, args=("--nodes", str(nodes))).output


@pytest.mark.parametrize("text", ["kind: Pod\n", "a: b\n", "", "[]", "{"])
def test_files_without_nodes_are_bad_input(tmp_path: Path, text: str) -> None:
    """Planning for no nodes at all would be planning for something else."""
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(text)
    assert plan(TIER, args=("--nodes", str(nodes))).exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "kind: Node\nmetadata: text\n",
        "kind: Node\nstatus: {conditions: 3, allocatable: {nvidia.com/gpu: [1]}}\n",
        "kind: Node\nmetadata: {labels: {nvidia.com/gpu.memory: 81559, nvidia.com/gpu.product: [1]}}\n",
    ],
)
def test_odd_nodes_are_passed_over(tmp_path: Path, text: str) -> None:
    """A node that a newer Kubernetes or a hand wrote must not stop a plan."""
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(text)
    assert plan(TIER, args=("--nodes", str(nodes))).exit_code == 0


def test_settings_teach_accelerators_and_limits(tmp_path: Path) -> None:
    """The administrator's file, as the operator reads it."""
    settings = tmp_path / "settings.yaml"
    body = {
        "accelerators": [{"product": "NEW", "memory": "80Gi", "gpusPerNode": 2}],
        "limits": {"maxGpusPerReplica": 1},
    }
    settings.write_text(yaml.safe_dump(body))
    new = tier(accelerators=[{"name": "new", "product": "NEW"}])
    assert plan(new).exit_code == 1
    result = plan(new, args=("--settings", str(settings)))
    assert result.exit_code == 0
    assert "memory 81920 MiB: settings" in result.output
    settings.write_text("limits: {maxGpus: 1}\n")
    result = plan(new, args=("--settings", str(settings)))
    assert result.exit_code == 2
    assert "settings.yaml, document 1: limits.maxGpus: is not a known field" in result.output


# --- bad input --------------------------------------------------------------------------------------------------------


def test_faults_are_path_and_message_with_file_and_document(tmp_path: Path) -> None:
    """Good documents are planned all the same; bad ones make it exit 2."""
    file = tmp_path / "tiers.yaml"
    wrong = tier(sizing={"concurrency": 0, "objective": "Speed"}, nonsense=1)
    file.write_text(yaml.safe_dump_all([TIER, wrong]))
    result = run("-f", str(file))
    assert result.exit_code == 2
    assert "small: 1 GPU" in result.stdout
    faults = result.stderr.splitlines()
    assert f"error: {file}, document 2: spec.nonsense: is not a known field: remove it" in faults
    assert any("document 2: spec.sizing.concurrency: input should be greater than or equal to 1" in f for f in faults)
    assert any("document 2: spec.sizing.objective:" in f for f in faults)


def test_lists_in_paths_are_written_as_in_yaml() -> None:
    """accelerators[1], not accelerators.1."""
    pair = [*TIER["spec"]["accelerators"], {"name": "L4"}]
    result = plan(tier(accelerators=pair))
    assert "spec.accelerators[1].name: " in result.stderr
    assert "spec.accelerators[1].product: field required" in result.stderr


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"accelerators": []}, "spec.accelerators: a tier with a model needs at least one entry"),
        ({"sizing": {"mode": "Pinned"}}, "spec.sizing: mode Pinned needs pinned"),
        ({"sizing": {"mode": "Pinned", "pinned": {"gpus": 3, "tensorParallel": 2}}}, "gpus must equal tensorParallel"),
        ({"external": EXTERNAL["spec"]["external"]}, "give exactly one of model and external"),
        ({"accelerators": TIER["spec"]["accelerators"] * 2}, "names must differ"),
    ],
)
def test_rules_of_the_crd_hold_without_an_api_server(spec: dict[str, Any], message: str) -> None:
    """What CEL says in a cluster is said here too, as far as sizing needs it."""
    result = plan(tier(**spec))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("name", ["", "Small", "a" * 51, "9a", "a_b", 3, None, "a\n"])
def test_names_are_checked(name: object) -> None:
    """By the CRD's rule."""
    result = plan({**TIER, "metadata": {"name": name}})
    assert (result.exit_code, "metadata.name" in result.stderr) == (2, True)


def test_other_kinds_are_passed_over_but_not_alone() -> None:
    """A file may hold more than tiers; one that holds none is a mistake."""
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    assert plan(other, TIER).exit_code == 0
    result = plan(other)
    assert (result.exit_code, result.stderr) == (2, "error: standard input: holds no ModelTier\n")


def test_status_is_left_alone() -> None:
    """`kubectl get -o yaml` prints one, perhaps of a newer operator."""
    assert plan({**TIER, "status": {"new": True}}).exit_code == 0


def test_lists_are_unfolded() -> None:
    """`kubectl get modeltiers -o yaml`."""
    result = plan({"apiVersion": "v1", "kind": "List", "items": [TIER, EXTERNAL]})
    assert result.output.count("\n\n") >= 2
    assert result.exit_code == 0


def bomb(width: int = 10, depth: int = 9) -> bytes:
    """Aliases of aliases: a billion values in a few lines."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "holds no ModelTier"),
        (b"---\n---\n", "holds no ModelTier"),
        (b"just text", "is a text, not a resource (a mapping)"),
        (b"[1, 2]", "is a list, not a resource"),
        (b"kind: ModelTier\nkind: ModelTier\n", "has the key 'kind' twice (again in line 2)"),
        (b"a: [", "is not YAML in line"),
        (b"a: b: c", "is not YAML in line 1"),
        (b"a: !!python/object:os.system x", "is not YAML"),
        (b"a: 2026-99-99T99:99:99Z", "is not YAML"),
        (b"{? [a]: b}", "is not YAML"),
        (b"&a [*a]", "holds an alias inside itself"),
        (b"a: *missing", "is not YAML"),
        (b"\x7fELF\x02\x01\x00\xff", "is not UTF-8 text"),
        (b"\x00\x01\x02", "is not YAML"),
        (b"[" * 100_000, "is"),
        (b"- " * 100_000, "is"),
        (b"a: " * 50_000, "is not YAML"),
        (bomb(), "unfolds its aliases to more than 100000 values"),
        (b"kind: 3", "kind: input should be"),
        (b"kind: ModelTier", "apiVersion: field required"),
        (b"kind: ModelTier\nspec: []\nmetadata: 3\napiVersion: x", "spec:"),
        (b"1: 2", "apiVersion: field required"),
        (b"kind: List\nitems: 3", "holds no ModelTier"),
        (b"kind: List\nitems: [3, null]", "is a number"),
    ],
)
def test_hostile_input_is_bad_input(raw: bytes, message: str) -> None:
    """One line a fault, exit 2, never a traceback."""
    result = run("-f", "-", stdin=raw)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert all(line.startswith("error: ") for line in result.stderr.splitlines())


@pytest.mark.parametrize("path", ["/nonexistent/tier.yaml", ".", "a\x00b"])
def test_files_that_cannot_be_read(path: str) -> None:
    """Missing, a folder, no name at all."""
    result = run("-f", path)
    assert result.exit_code == 2
    assert "cannot be read: " in result.stderr


def test_output_of_bad_input_alone_is_still_a_document() -> None:
    """A program that reads the JSON gets JSON."""
    result = run("-f", "/nonexistent", "-o", "json")
    assert json.loads(result.stdout) == {"tiers": []}


def test_a_file_is_needed() -> None:
    """click says so, with the exit code for bad input."""
    assert run().exit_code == 2


def test_help_documents_the_exit_codes() -> None:
    """What CI needs to know."""
    result = run("--help")
    assert result.exit_code == 0
    assert "Exit codes" in result.output
    assert "plan" in CliRunner().invoke(main, ["--help"]).output


# --- documentation ----------------------------------------------------------------------------------------------------


def test_the_example_in_the_documentation_is_what_is_printed() -> None:
    """docs/sizing.md shows a tier and the output; run it again after a change and paste."""
    page = (Path(__file__).parents[2] / "docs" / "sizing.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    shown = page.partition("```text\n")[2].partition("```")[0]
    assert shown == run("-f", "-", stdin=example).output


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml")), ids=str)
def test_examples_can_be_planned(file: Path) -> None:
    """Every example that holds a tier fits; one that follows a DistillJob is planned with that."""
    text = file.read_text(encoding="utf-8")
    if "\nkind: ModelTier\n" in text:
        beside = ["-f", str(file.parent / "job.yaml")] if "distill://" in text else []
        result = run("-f", str(file), *beside)
        assert result.exit_code == 0, result.output + result.stderr


def test_a_tier_that_follows_a_job() -> None:
    """Planned for what it serves before anything is promoted; without the job it says what is missing."""
    files = [str(Path(__file__).parents[2] / "examples" / "distill" / name) for name in ("tiers.yaml", "job.yaml")]
    whole = run("-f", files[0], "-f", files[1], "-o", "json")
    sized = {tier["name"]: tier["sizing"] for tier in json.loads(whole.output)["tiers"]}
    assert sized["orders-small"]["gpusPerReplica"] == 1
    alone = run("-f", files[0])
    assert alone.exit_code == 2
    assert "spec.model.source: DistillJob orders says what this serves: name its file too" in alone.stderr
