"""Every pod that the operator makes, judged by a real API server that enforces Pod Security `restricted`.

Those of the examples, of every stage, of routers of all kinds, of the engine beside Evaluate, and of specs and settings
that hypothesis draws. They are created as a dry run: admission judges, and nothing is kept.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from e2e.cluster import Cluster
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.model import Weights
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Next, Outcome, Stage, before
from modeltiers.render.distilljob import Engine, render_job
from modeltiers.render.owner import Owner
from modeltiers.render.testbed import render_engine
from tests.unit.golden import CATALOGUE, children_of, examples, record_of
from tests.unit.test_distill_stages import spec as distillation
from tests.unit.test_render import base
from tests.unit.test_render_fleets import egress, gateway

Pod = dict[str, Any]
EXAMPLES = 60
"""Drawn specs of each kind; a dry run of all of them is one call."""
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=20)
CPU = st.sampled_from(["100m", "1", "64"])
MEMORY = st.sampled_from(["512Mi", "1Gi", "2Ti"])
VARIABLES = st.lists(
    st.builds(
        lambda name, value: {"name": f"VLLM_{name}", "value": value}, st.from_regex(r"[A-Z]{3,8}", fullmatch=True), TEXT
    ),
    max_size=3,
    unique_by=lambda one: one["name"],
)


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> str:
    """A namespace where the API server enforces `restricted`, at the newest version of the standard."""
    return cluster.create_namespace("pod-security", {"pod-security.kubernetes.io/enforce": "restricted"})


def refused(cluster: Cluster, namespace: str, pods: list[Pod]) -> str:
    """What the API server says of the pods that it does not admit, by a dry run."""
    made = [_as_pod(f"pod-{number}", pod) for number, pod in enumerate(pods)]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    done = cluster.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", input=listed, check=False)
    assert done.stdout.count("created (server dry run)") + done.stderr.count("Error from server") == len(made), (
        done.stderr
    )
    return done.stderr


def _as_pod(name: str, spec: Pod) -> dict[str, Any]:
    """A pod of this spec. Admission looks up objects by these names, which are not there and change no verdict."""
    looked_up = ("serviceAccountName", "priorityClassName", "runtimeClassName", "imagePullSecrets")
    kept = {key: value for key, value in spec.items() if key not in looked_up}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": kept}


def pod_of(workload: dict[str, Any]) -> Pod:
    """The pod of a Deployment or a Job."""
    found: Pod = workload["spec"]["template"]["spec"]
    return found


def workloads(children: list[dict[str, Any]]) -> list[Pod]:
    return [pod_of(child) for child in children if child["kind"] in ("Deployment", "Job")]


def test_the_namespace_refuses_what_is_not_restricted(cluster: Cluster, restricted: str) -> None:
    """Else all that follows would prove nothing."""
    [pod] = workloads(children_of(next(one for _, one in examples() if one["kind"] == "ModelTier")))[:1]
    for change in ({"hostNetwork": True}, {"securityContext": {}}):
        assert "violates PodSecurity" in refused(cluster, restricted, [{**pod, **change}])


def test_what_the_examples_become(cluster: Cluster, restricted: str) -> None:
    pods = [pod for _, document in examples() for pod in workloads(children_of(document))]
    assert len(pods) >= 10
    assert refused(cluster, restricted, pods) == ""


def test_routers_that_stand_by_themselves(cluster: Cluster, restricted: str) -> None:
    pods = workloads([*egress().values(), *egress({"apiKeySecretRef": None}).values(), *gateway().values()])
    assert len(pods) == 3
    assert refused(cluster, restricted, pods) == ""


def test_every_stage_and_the_engine_beside_it(cluster: Cluster, restricted: str) -> None:
    """The trainer, too."""
    admin = Settings.model_validate({"distill": {"image": "example.com/d:1", "trainImage": "example.com/t:1"}})
    found = render_engine(base(), Weights(source="hf://Qwen/Qwen3-8B"), CATALOGUE, None, admin)
    engines: list[Engine | None] = [None, *([found] if isinstance(found, Engine) else [])]
    assert len(engines) == 2, found
    pods = [
        pod_of(stage_job(stage, distillation(), admin, engine))
        for engine in engines
        for stage in Stage
        if stage is not Stage.EVALUATE_INCUMBENT
    ]
    assert refused(cluster, restricted, pods) == ""


def stage_job(stage: Stage, spec: DistillJobSpec, admin: Settings, engine: Engine | None = None) -> dict[str, Any]:
    """The Job of a stage whose stages before it are complete."""
    outcomes = {other: Outcome("d" * 32, "e" * 32, "Pass") for other in before(stage, spec)}
    owner = Owner("ns", "job", "uid", "DistillJob")
    return render_job(owner, Plan(job="job", spec=spec), Next(stage, "a" * 32), outcomes, admin, engine=engine)


# --- what hypothesis draws --------------------------------------------------------------------------------------------


PROFILES = st.fixed_dictionaries(
    {},
    optional={
        "command": st.lists(st.sampled_from(["/bin/sh", "python3", "-c", "id"]), max_size=3),
        "args": st.lists(TEXT, max_size=3),
        "env": VARIABLES,
        "runAsUser": st.integers(1, 2**31 - 1),
        "cpu": CPU,
        "memory": MEMORY,
        "mounts": st.lists(
            st.one_of(
                st.builds(
                    lambda n, ro: {"name": n, "path": f"/m/{n}", "claimName": n, "readOnly": ro}, NAMES, st.booleans()
                ),
                st.builds(lambda n: {"name": n, "path": f"/m/{n}", "configMapName": n}, NAMES),
            ),
            max_size=3,
            unique_by=lambda one: one["name"],
        ),
    },
)
ADMINISTRATORS = st.fixed_dictionaries(
    {"engineProfiles": st.fixed_dictionaries({"p": PROFILES})},
    optional={
        "engine": st.fixed_dictionaries({}, optional={"runAsUser": st.integers(1, 2**31 - 1)}),
        "router": st.fixed_dictionaries(
            {"image": st.sampled_from(["example.com/router:1"])}, optional={"memory": MEMORY}
        ),
    },
)
SERVINGS = st.fixed_dictionaries(
    {"profile": st.just("p")},
    optional={
        "env": VARIABLES,
        "cache": st.builds(lambda name: {"claimName": name}, NAMES),
        "resources": st.fixed_dictionaries({}, optional={"cpu": CPU, "memory": MEMORY}),
        "shutdownSeconds": st.integers(0, 3600),
        "startupSeconds": st.integers(30, 86_400),
        "args": st.lists(st.sampled_from(["--enable-prefix-caching", "--max-num-seqs=8", "--seed=1"]), max_size=2),
    },
)
SCHEDULINGS = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.dictionaries(NAMES, NAMES, max_size=2),
        "tolerations": st.lists(st.builds(lambda key: {"key": key, "operator": "Exists"}, NAMES), max_size=2),
    },
)
TIERS = st.fixed_dictionaries(
    {"serving": SERVINGS},
    optional={
        "scheduling": SCHEDULINGS,
        "replicas": st.integers(0, 9),
        "rolloutToken": NAMES,
    },
)


def test_whatever_a_tenant_and_an_administrator_write(cluster: Cluster, restricted: str) -> None:
    drawn: list[Pod] = []

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(TIERS, ADMINISTRATORS)
    def draw(tier: dict[str, Any], admin: dict[str, Any]) -> None:
        spec: ModelTierSpec = base(**tier)
        drawn.append(record_of("t", spec, Settings.model_validate(admin)).template["spec"])

    draw()
    assert len(drawn) >= EXAMPLES
    assert refused(cluster, restricted, drawn) == ""


def test_whatever_a_distillation_is_given(cluster: Cluster, restricted: str) -> None:
    drawn: list[Pod] = []

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from([one for one in Stage if one is not Stage.EVALUATE_INCUMBENT]), SCHEDULINGS, PROFILES)
    def draw(stage: Stage, scheduling: dict[str, Any], profile: dict[str, Any]) -> None:
        more = {name: profile[key] for name, key in (("trainEnv", "env"), ("trainMounts", "mounts")) if key in profile}
        distill = {"image": "example.com/distill:1", "trainImage": "example.com/train:1", **more}
        admin = Settings.model_validate({"distill": distill})
        drawn.append(pod_of(stage_job(stage, distillation(scheduling=scheduling), admin)))

    draw()
    assert refused(cluster, restricted, drawn) == ""
