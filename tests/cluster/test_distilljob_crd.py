"""DistillJob against the real API server: every rule, bound and default, and what cannot be changed."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from modeltiers.api.crd import DISTILL_JOB, crd
from modeltiers.api.distilljob import IMMUTABLE, IMMUTABLE_MORE
from modeltiers.api.parse import Fault, parse_distill
from modeltiers.api.schema import VALIDATIONS, nodes
from tests.cluster.admission import (
    HOSTILE,
    ApiServer,
    Body,
    about,
    added,
    at,
    collection,
    find,
    illegal,
    install,
    patched,
    shown,
    steps,
    with_value,
)
from tests.cluster.kit import until

ROOT = Path(__file__).parents[2]
ALL = Path(__file__).parent / "fixtures"


def accepted(kind: str) -> dict[str, Body]:
    """The objects of a kind that are legal, by name. YAML aliases become objects of their own."""
    files = sorted((ALL / kind / "accepted").glob("*.yaml"))
    return {path.stem: json.loads(json.dumps(yaml.safe_load(path.read_text()))) for path in files}


ACCEPTED, TIERS = accepted("distilljob"), accepted("modeltier")
RULES = yaml.safe_load((ALL / "distilljob" / "rules.yaml").read_text())
TIER_RULES = yaml.safe_load((ALL / "modeltier" / "rules.yaml").read_text())
NODES = dict(nodes(crd(DISTILL_JOB)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
SPEC = {path: node for path, node in NODES.items() if path.startswith("spec")}
OURS = {(path, rule["message"]) for path, node in NODES.items() for rule in node.get(VALIDATIONS, ())}
SHARED = (
    ("spec.model", "spec.student.base"),
    ("spec.model", "spec.student.trained"),
    ("spec.model", "spec.promotion.incumbent"),
    ("spec.scheduling.tolerations", "spec.scheduling.tolerations"),
    ("spec.scheduling.nodeSelector", "spec.scheduling.nodeSelector"),
)
"""Where a ModelTier has what a DistillJob has too, under the same rules."""


class Case(NamedTuple):
    """One object for one rule."""

    at: str
    message: str
    body: Body
    accepted: bool


def ours() -> Iterator[Case]:
    """The cases of our own rules."""
    for rule in RULES:
        for verdict in ("accepted", "rejected"):
            for patch in rule[verdict]:
                body = patched(ACCEPTED[rule["base"]], patch)
                yield Case(rule["at"], rule["message"], body, verdict == "accepted")


def borrowed() -> Iterator[Case]:
    """The cases of a ModelTier's rules, with the part that they are about moved into a job."""
    for theirs, mine in SHARED:
        for rule in TIER_RULES:
            place = rule["at"].replace(theirs, mine, 1)
            known = any(path == place and message.startswith(rule["message"]) for path, message in OURS)
            if not rule["at"].startswith(theirs) or not known or "before" in rule or not isinstance(rule["base"], str):
                continue
            for verdict in ("accepted", "rejected"):
                for patch in rule[verdict]:
                    part = at(patched(TIERS[rule["base"]], patch), steps(theirs))
                    if isinstance(part, dict):
                        part.pop("servedName", None)
                        if mine == "spec.student.trained" and "architecture" not in part and verdict == "accepted":
                            continue  # more is asked of it
                    emptied = patched(ACCEPTED["elsewhere"], nested(mine, None))
                    yield Case(place, rule["message"], patched(emptied, nested(mine, part)), verdict == "accepted")


def nested(path: str, value: Any) -> Any:
    """A patch that sets one field."""
    for step in reversed(steps(path)):
        value = {step: value}
    return value


CASES = [*ours(), *borrowed()]


def label(case: Case) -> str:
    """A name for a case that tells what it is about."""
    words = re.sub(r"[^a-z0-9]+", "-", case.message[:40].lower())
    return f"{case.at or 'object'}-{words}-{'accepted' if case.accepted else 'rejected'}"


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server with our CRDs."""
    install(cluster, DISTILL_JOB.name, "-f", str(ROOT / "crds"))
    with ApiServer(cluster.kubeconfig, tmp_path_factory.mktemp("admission")) as api:
        wait_until(lambda: api.create(ACCEPTED["smallest"], "default").accepted, "distilljobs to be served")
        yield api


@pytest.fixture(scope="module")
def shared(cluster: Cluster, server: ApiServer) -> Iterator[str]:
    """A namespace for questions that leave nothing behind."""
    name = cluster.create_namespace(f"test-{secrets.token_hex(4)}")
    yield name
    cluster.delete_namespace(name)


class TestRules:
    """CEL, one case at a time."""

    def test_every_rule_has_cases(self) -> None:
        """A rule that nothing tests may be wrong for years; a case for no rule is a leftover."""
        still = {(path, message) for path, message in OURS if "cannot be changed" not in message}
        for verdict in (True, False):
            told = [{"at": case.at, "message": case.message} for case in CASES if case.accepted is verdict]
            assert {rule for rule in still if not any(about(case, *rule) for case in told)} == set()
            assert [case for case in told if not any(about(case, *rule) for rule in still)] == []

    @pytest.mark.parametrize("case", CASES, ids=label)
    def test_rule(self, server: ApiServer, shared: str, case: Case) -> None:
        """Accepted and read by us, or refused for this rule, in its words, and for nothing else."""
        answer = server.create(case.body, shared)
        if case.accepted:
            assert answer.accepted, answer.message
            assert not isinstance(parse_distill(case.body), Fault)
        else:
            assert answer.code == 422
            assert len(answer.causes) == 1, answer.causes
            assert case.message in answer.causes[0]


CHANGES = {
    "workload": {"description": "another"},
    "teacher": {"keyRef": {"name": "another", "key": "key"}},
    "student": {"base": {"maxModelLen": 1024}},
    "data": {"split": {"seed": 5}},
    "generation": {"samples": 3},
    "filters": {"leastRows": 501},
    "decontamination": {"words": 11},
    "training": {"epochs": 4},
    "evaluation": {"samples": 5},
    "judge": {"rubric": "another"},
    "gate": {"looks": 4},
    "store": {"claimName": "another"},
}
FREE = (
    {"suspend": False},
    {"budget": {"teacherTokens": 60_000_000}},
    {"budget": None},
    {"promotion": {"approval": "None", "canary": {"holdSeconds": 60}}},
    {"promotion": {"strategy": "Replace", "canary": None}},
    {"scheduling": {"retries": 9, "image": None, "queueName": "other"}},
    {"scheduling": None},
)


class TestChanges:
    """What decides the result stays; the rest may change."""

    @pytest.fixture
    def stored(self, server: ApiServer, shared: str) -> Iterator[Body]:
        """A job that is there."""
        made = server.create(ACCEPTED["whole"], shared, dry=False)
        assert made.accepted, made.message
        yield made.body
        server.ask("DELETE", f"{collection(made.body, shared)}/whole")

    def patch(self, server: ApiServer, shared: str, spec: Any) -> tuple[int, list[str]]:
        """What the API server says to a change."""
        path = f"{collection(ACCEPTED['whole'], shared)}/whole?dryRun=All"
        answer = server.ask("PATCH", path, {"spec": spec}, "application/merge-patch+json")
        return answer.code, answer.causes

    @pytest.mark.usefixtures("stored")
    def test_what_cannot_be_changed(self, server: ApiServer, shared: str) -> None:
        """Neither changed nor, where that is possible, taken away; said with the way out."""
        assert CHANGES.keys() == {*IMMUTABLE, *IMMUTABLE_MORE}
        required = NODES["spec"]["required"]
        for name, change in CHANGES.items():
            for value in [change] if name in required else [change, None]:
                code, causes = self.patch(server, shared, {name: value})
                assert code == 422, (name, value)
                assert any(f"{name} cannot be changed" in cause for cause in causes), causes
                assert any("Create another DistillJob" in cause for cause in causes), causes

    @pytest.mark.usefixtures("stored")
    @pytest.mark.parametrize("change", FREE, ids=str)
    def test_what_can(self, server: ApiServer, shared: str, change: Any) -> None:
        """Budget, suspend, promotion and scheduling."""
        assert self.patch(server, shared, change) == (200, [])

    def test_what_was_left_out_cannot_be_added(self, server: ApiServer, shared: str) -> None:
        """Its default was used."""
        made = server.create(ACCEPTED["smallest"], shared, dry=False)
        assert made.accepted, made.message
        path = f"{collection(made.body, shared)}/smallest"
        for name in ("generation", "filters", "decontamination", "training", "gate"):
            answer = server.ask("PATCH", f"{path}?dryRun=All", {"spec": {name: {}}}, "application/merge-patch+json")
            assert [f"{name} cannot be changed" in cause for cause in answer.causes] == [True], answer.causes
        judge = {"judge": {"tierRef": {"name": "wise"}, "rubric": "r"}}
        answer = server.ask("PATCH", f"{path}?dryRun=All", {"spec": judge}, "application/merge-patch+json")
        assert ["judge cannot be changed" in cause for cause in answer.causes] == [True], answer.causes
        server.ask("DELETE", path)


def places(path: str) -> Iterator[tuple[Body, tuple[str | int, ...]]]:
    """The first place of a schema path in the fixtures, the whole one first."""
    for name in ("whole", "smallest", "elsewhere"):
        for place in find(ACCEPTED[name], steps(path)):
            yield ACCEPTED[name], place
            return


def beyond(path: str) -> Iterator[tuple[str, str, Body]]:
    """For each bound of a field: where, which bound, and an object one step beyond it."""
    for body, place in places(path):
        for word, value in illegal(SPEC[path], at(body, place)):
            where = place[:-1] if path.endswith(".*") else place  # a map's refusals name the map
            yield shown(where), word, with_value(body, place, value)


class TestFields:
    """Bounds, patterns, unknown fields and defaults."""

    def test_every_field_is_in_a_fixture(self) -> None:
        """The walks below reach what the fixtures hold."""
        assert [path for path in SPEC if not any(True for _ in places(path))] == []

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_fixture(self, server: ApiServer, shared: str, name: str) -> None:
        """Each is accepted and read back by us; defaults appear beside what was written, never inside a list."""
        answer = server.create(ACCEPTED[name], shared)
        assert answer.accepted, answer.message
        assert not isinstance(parse_distill(answer.body), Fault)
        assert added(ACCEPTED[name]["spec"], answer.body["spec"], "spec") <= {
            path for path, node in NODES.items() if "default" in node
        }

    def test_every_bound(self, server: ApiServer, shared: str) -> None:
        """Every bound of every field, one step beyond it: refused, with the field's path."""
        probes = [(where, word, body) for path in SPEC for where, word, body in beyond(path)]
        answers = server.create_all([body for _, _, body in probes], shared)
        wrong = [
            f"{where} beyond {word}: {answer.code} {answer.message}"
            for (where, word, _), answer in zip(probes, answers, strict=True)
            if answer.code != 422 or where not in answer.message
        ]
        assert wrong == []
        assert len(probes) > 400

    def test_every_integer_at_its_bounds(self, server: ApiServer, shared: str) -> None:
        """The bounds themselves are legal, whatever a rule says about the combination."""
        probes = [
            (shown(place), with_value(body, place, node[word]))
            for path, node in SPEC.items()
            for word in ("minimum", "maximum")
            if word in node
            for body, place in places(path)
        ]
        answers = server.create_all([body for _, body in probes], shared)
        wrong = [
            f"{where}: {answer.message}"
            for (where, _), answer in zip(probes, answers, strict=True)
            if any(cause.startswith(f"{where}: ") and "in body should be" in cause for cause in answer.causes)
        ]
        assert wrong == []
        assert len(probes) > 100

    def test_unknown_fields(self, cluster: Cluster, server: ApiServer, namespace: str) -> None:
        """kubectl refuses a typing error, also deep inside."""
        body = patched(ACCEPTED["smallest"], {"spec": {"training": {"learningRate": "2e-5"}}})
        refused = cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body), check=False)
        assert 'unknown field "spec.training.learningRate"' in refused.stderr

    def test_the_author_cannot_write_status(self, server: ApiServer, shared: str) -> None:
        """It is the operator's: nobody applies a gate that was passed."""
        body = {**ACCEPTED["smallest"], "status": {"gate": {"decision": "Pass", "items": 1}}}
        assert "status" not in server.create(body, shared).body


# What the API server lets through on purpose, and why it does no harm.
TEXT = set(HOSTILE) - {"long"}
HARMLESS: dict[str, set[str]] = {
    # Words of a report and of prompts: in the plan they are JSON values, in a page they are escaped.
    "spec.workload.description": TEXT,
    "spec.generation.system": TEXT,
    "spec.judge.rubric": TEXT,
    # Compiled by RE2 or read as JSON in the stage's program; what it cannot read is BadData with the field.
    "spec.workload.verifiers[].pattern": TEXT,
    "spec.workload.verifiers[].schemaText": TEXT | {"long"},
    "spec.data.scrub.patterns[].pattern": TEXT,
    # Keys of Secrets and ConfigMaps, which may begin so; rendered as references, never as arguments.
    "spec.data.sources[].configMap.key": {"flag"},
    "spec.teacher.keyRef.key": {"flag"},
    "spec.judge.keyRef.key": {"flag"},
    "spec.store.s3AccessKeyIdRef.key": {"flag"},
    "spec.store.s3SecretAccessKeyRef.key": {"flag"},
    **{f"{place}.tokenSecretRef.key": {"flag"} for _, place in SHARED[:3]},
}


class TestHostileStrings:
    """What a tenant could try to smuggle into a pod, a prompt's file or a log."""

    def test_every_string(self, server: ApiServer, shared: str) -> None:
        """Every string field, every string: refused, or on the list above and stored as sent."""
        probes = [
            (path, kind, place, with_value(body, place, text))
            for path, node in SPEC.items()
            if node["type"] == "string"
            for body, place in places(path)
            for kind, text in HOSTILE.items()
        ]
        answers = server.create_all([body for *_, body in probes], shared)
        found: dict[str, set[str]] = {}
        for (path, kind, place, body), answer in zip(probes, answers, strict=True):
            if answer.accepted:
                found.setdefault(path, set()).add(kind)
                assert at(answer.body, place) == at(body, place)
            else:
                assert answer.code in (400, 422), answer.message
        assert found == HARMLESS
        assert len(probes) > 500

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_names_and_keys(self, server: ApiServer, shared: str, kind: str) -> None:
        """The object's name and the keys of maps."""
        named = patched(ACCEPTED["smallest"], {"metadata": {"name": HOSTILE[kind]}})
        keyed = patched(ACCEPTED["smallest"], {"spec": {"scheduling": {"nodeSelector": {HOSTILE[kind]: ""}}}})
        assert [answer.accepted for answer in server.create_all([named, keyed], shared)] == [False, False]


class TestApply:
    """What GitOps tools and people do with manifests."""

    @pytest.mark.parametrize(
        "mode", [(), ("--server-side", "--field-manager=argocd-controller")], ids=["client-side", "server-side"]
    )
    @pytest.mark.parametrize("name", ACCEPTED)
    def test_no_difference(
        self, cluster: Cluster, server: ApiServer, namespace: str, name: str, mode: tuple[str, ...]
    ) -> None:
        """Applied twice, the second time changes nothing; the same manifest shows no difference."""
        manifest = ("-n", namespace, "-f", str(ALL / "distilljob" / "accepted" / f"{name}.yaml"))
        cluster.kubectl("apply", *mode, *manifest)
        # Exit code 1 would be a difference. One is due to an operator that writes status between the two looks.
        until(lambda: cluster.kubectl("diff", *mode, *manifest, check=False).returncode == 0, "no difference")
        cluster.kubectl("apply", *mode, *manifest)
        generation = "jsonpath={.metadata.generation}"
        assert cluster.kubectl("get", "dj", name, "-n", namespace, "-o", generation).stdout == "1"

    def test_explain_shows_descriptions(self, cluster: Cluster, server: ApiServer) -> None:
        """The documentation is in the cluster."""
        explain = ("explain", "dj.spec.training")
        wait_until(lambda: cluster.kubectl(*explain, check=False).returncode == 0, "the published schema")
        words = " ".join(cluster.kubectl(*explain).stdout.split())
        for name, node in NODES["spec.training"]["properties"].items():
            assert name in words
            assert " ".join(node["description"].split()) in words
