"""ModelTier against the real API server: every rule, every bound, every default, and what a hostile author can send."""

import copy
import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from modeltiers.api.crd import MODEL_TIER, RESOURCES, crd
from modeltiers.api.parse import parse
from modeltiers.api.schema import VALIDATIONS, Schema, nodes
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

ROOT = Path(__file__).parent.parent.parent
CRDS = ROOT / "crds"
FIXTURES = Path(__file__).parent / "fixtures" / "modeltier"
ACCEPTED = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((FIXTURES / "accepted").glob("*.yaml"))}


def beside(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule of a tier's model as that of its candidate's, with the same cases."""
    base = ACCEPTED[rule["base"]]
    candidate = {"weightPermille": 100, "model": {**base["spec"]["model"], "servedName": None}}
    moved = [{"spec": {"candidate": one["spec"]}} for verdict in ("accepted", "rejected") for one in rule[verdict]]
    count = len(rule["accepted"])
    return {
        "at": rule["at"].replace("spec.model", "spec.candidate.model"),
        "message": rule["message"],
        "base": patched(base, {"spec": {"candidate": candidate}}),
        "accepted": moved[:count],
        "rejected": moved[count:],
    }


RULES = yaml.safe_load((FIXTURES / "rules.yaml").read_text())
# A candidate's model keeps the rules of the tier's, but for those that are about following a DistillJob.
RULES += [
    beside(rule)
    for rule in RULES
    if rule["at"].startswith("spec.model") and "before" not in rule and rule.get("candidate", True)
]
NODES = dict(nodes(crd(MODEL_TIER)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
SPEC = {path: node for path, node in NODES.items() if path.startswith("spec")}


class Case(NamedTuple):
    """One object for one rule; with `before`, what it is changed from."""

    message: str
    body: Body
    accepted: bool
    before: Body | None


def cases() -> Iterator[Any]:
    """All cases of the rules table."""
    for rule in RULES:
        base = rule["base"] if isinstance(rule["base"], dict) else ACCEPTED[rule["base"]]
        before = patched(base, rule["before"]) if "before" in rule else None
        for verdict in ("accepted", "rejected"):
            for number, patch in enumerate(rule[verdict], 1):
                case = Case(rule["message"], patched(base, patch), verdict == "accepted", before)
                label = re.sub(r"[^a-z0-9]+", "-", rule["message"][:40].lower())
                yield pytest.param(case, id=f"{rule['at'] or 'object'}-{label}-{verdict}-{number}")


@pytest.fixture(scope="session")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server with our CRDs."""
    for resource in RESOURCES:
        install(cluster, resource.name, "-f", str(CRDS))
    with ApiServer(cluster.kubeconfig, tmp_path_factory.mktemp("admission")) as api:
        wait_until(lambda: api.create(ACCEPTED["smallest"], "default").accepted, "modeltiers to be served")
        yield api


def in_group(group: str, change: Callable[[Schema], object] = lambda root: None) -> Body:
    """Our CRD in another group, so that a test may change it beside the others."""
    copied: Body = copy.deepcopy(crd(MODEL_TIER))
    copied["metadata"]["name"] = f"modeltiers.{group}"
    copied["spec"]["group"] = group
    copied["spec"]["names"]["shortNames"] = copied["spec"]["names"]["categories"] = []
    change(copied["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    return copied


@pytest.fixture(scope="session")
def shared(cluster: Cluster) -> Iterator[str]:
    """A namespace for questions that leave nothing behind."""
    name = cluster.create_namespace(f"test-{secrets.token_hex(4)}")
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def group(cluster: Cluster) -> Iterator[str]:
    """A group of one test's own; its CRD goes with the test."""
    name = f"test-{secrets.token_hex(3)}.example.com"
    yield name
    cluster.kubectl("delete", "crd", f"modeltiers.{name}", "--ignore-not-found", "--wait=false")


class TestTheCrd:
    """The CRD as a whole."""

    @pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
    def test_what_is_stored_is_what_is_generated(self, cluster: Cluster, server: ApiServer, resource: Any) -> None:
        """Nothing is pruned, defaulted or rounded, so no GitOps tool sees a difference."""
        stored = json.loads(cluster.kubectl("get", "crd", resource.name, "-o", "json").stdout)["spec"]
        stored.pop("conversion")  # the API server writes strategy None, which tools know
        assert stored == crd(resource)["spec"]

    def test_it_can_be_applied_client_side(self, cluster: Cluster, server: ApiServer) -> None:
        """The last-applied annotation has room for it."""
        cluster.kubectl("apply", "-f", str(CRDS), "--dry-run=server")

    def test_explain_shows_descriptions(self, cluster: Cluster, server: ApiServer) -> None:
        """The documentation is in the cluster."""
        explain = ("explain", "modeltier.spec.model")
        wait_until(lambda: cluster.kubectl(*explain, check=False).returncode == 0, "the published schema")
        words = " ".join(cluster.kubectl(*explain).stdout.split())
        for name, node in NODES["spec.model"]["properties"].items():
            assert name in words
            assert " ".join(node["description"].split()) in words
        assert "maxPosition\t<integer> -required-" in cluster.kubectl(*explain, "--recursive").stdout

    def test_columns(self, cluster: Cluster, server: ApiServer, namespace: str) -> None:
        """kubectl get, by short name and by category."""
        assert server.apply({**ACCEPTED["smallest"]}, namespace, dry=False).accepted
        header = cluster.kubectl("get", "mt", "-n", namespace).stdout.splitlines()[0].split()
        assert header == ["NAME", "READY", "STATUS", "MODEL", "GPUS", "TP", "AGE"]
        wide = cluster.kubectl("get", "tiering", "-n", namespace, "-o", "wide").stdout.splitlines()[0].split()
        assert wide == [*header[:-1], "ENDPOINT", "IMAGE", "ACCELERATOR", "AGE"]


class TestRules:
    """CEL, one case at a time."""

    def test_every_rule_has_cases(self) -> None:
        """A rule that nothing tests may be wrong for years; a case for no rule is a leftover."""
        rules = {(path, rule["message"]) for path, node in NODES.items() for rule in node.get(VALIDATIONS, ())}
        covered = {(path, message) for path, message in rules for case in RULES if about(case, path, message)}
        assert rules == covered
        assert [case for case in RULES if not any(about(case, *rule) for rule in rules)] == []
        assert [case for case in RULES if not case["accepted"] or not case["rejected"]] == []

    def test_transition_rules_are_tested_by_changes(self) -> None:
        """oldSelf needs a before."""
        for path, node in NODES.items():
            for rule in node.get(VALIDATIONS, ()):
                mine = [case for case in RULES if about(case, path, rule["message"])]
                assert all(("oldSelf" in rule["rule"]) == ("before" in case) for case in mine)

    @pytest.mark.parametrize("case", list(cases()))
    def test_rule(self, server: ApiServer, shared: str, case: Case) -> None:
        """Accepted, or refused for this rule, in its words, and for nothing else."""
        if case.before:
            created = server.apply(case.before, shared, dry=False)
            assert created.accepted, created.message
        answer = server.apply(case.body, shared)
        if case.before:
            server.ask("DELETE", f"{collection(case.body, shared)}/{case.body['metadata']['name']}")
        if case.accepted:
            assert answer.accepted, answer.message
            assert not hasattr(parse(case.body), "message"), "parse refuses what the API server accepts"
        else:
            assert answer.code == 422
            assert len(answer.causes) == 1
            assert case.message in answer.causes[0]


class TestFields:
    """Bounds, patterns, unknown fields and defaults."""

    def test_every_field_is_in_a_fixture(self) -> None:
        """The walks below reach what the fixtures hold."""
        missing = [
            path for path in SPEC if not any(True for body in ACCEPTED.values() for _ in find(body, steps(path)))
        ]
        assert missing == []

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_fixture(self, server: ApiServer, shared: str, name: str) -> None:
        """Each is accepted and read back by us."""
        answer = server.create(ACCEPTED[name], shared)
        assert answer.accepted, answer.message
        assert not hasattr(parse(answer.body), "message")

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
        assert len(probes) > 200

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

    def test_unknown_fields(self, cluster: Cluster, server: ApiServer, namespace: str) -> None:
        """kubectl refuses a typing error; where validation is off, it is pruned and not stored."""
        body = patched(ACCEPTED["smallest"], {"spec": {"sizing": {"concurency": 3}}})
        text = json.dumps(body)
        refused = cluster.kubectl("apply", "--validate=strict", "-n", namespace, "-f", "-", input=text, check=False)
        assert 'unknown field "spec.sizing.concurency"' in refused.stderr
        assert 'unknown field "spec.sizing.concurency"' in server.apply(body, namespace).message or "not declared" in (
            server.apply(body, namespace).message
        )
        cluster.kubectl("create", "--validate=ignore", "-n", namespace, "-f", "-", input=text)
        stored = json.loads(cluster.kubectl("get", "modeltier", "smallest", "-n", namespace, "-o", "json").stdout)
        assert stored["spec"]["sizing"] == {"mode": "Auto", "objective": "Cost", "concurrency": 16}

    def test_the_author_cannot_write_status(self, server: ApiServer, shared: str) -> None:
        """It is the operator's."""
        body = {**ACCEPTED["smallest"], "status": {"endpoint": "http://evil.example.com"}}
        assert "status" not in server.create(body, shared).body

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_lists_come_back_as_sent(self, server: ApiServer, shared: str, name: str) -> None:
        """Defaults appear beside what was written, never inside a list."""
        answer = server.create(ACCEPTED[name], shared)
        assert added(ACCEPTED[name]["spec"], answer.body["spec"], "spec") <= {
            path for path, node in NODES.items() if "default" in node
        }


def places(path: str) -> Iterator[tuple[Body, tuple[str | int, ...]]]:
    """The first place of a schema path in the fixtures."""
    for body in (ACCEPTED["served"], ACCEPTED["external"]):
        for place in find(body, steps(path)):
            yield body, place
            return


def beyond(path: str) -> Iterator[tuple[str, str, Body]]:
    """For each bound of a field: where, which bound, and an object one step beyond it."""
    for body, place in places(path):
        for word, value in illegal(SPEC[path], at(body, place)):
            where = place[:-1] if path.endswith(".*") else place  # a map's refusals name the map
            yield shown(where), word, with_value(body, place, value)


# What the API server lets through on purpose, and why it does no harm.
HARMLESS = {
    # Never more than the value of one variable: rendered as data, with $( doubled (render/modeltier.py).
    "spec.serving.env[].value": set(HOSTILE) - {"NUL", "escape", "long"},
    # An argument of its own; which flags pass is the allow-list's business (domain/engine_args.py).
    "spec.serving.args[]": {"flag"},
    # Keys of Secrets, which may begin so; rendered as references, never as arguments.
    "spec.model.tokenSecretRef.key": {"flag"},
    "spec.candidate.model.tokenSecretRef.key": {"flag"},
    "spec.external.apiKeySecretRef.key": {"flag"},
    "spec.serving.env[].secretKeyRef.key": {"flag"},
}


class TestHostileStrings:
    """What a tenant could try to smuggle into a pod, a log or a shell."""

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
        accepted: dict[str, set[str]] = {}
        for (path, kind, place, body), answer in zip(probes, answers, strict=True):
            if answer.accepted:
                accepted.setdefault(path, set()).add(kind)
                assert at(answer.body, place) == at(body, place)
            else:
                assert answer.code in (400, 422), answer.message
        assert accepted == HARMLESS
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
        "mode", [(), ("--server-side", "--field-manager=gitops")], ids=["client-side", "server-side"]
    )
    @pytest.mark.parametrize("name", ACCEPTED)
    def test_no_difference(
        self, cluster: Cluster, server: ApiServer, namespace: str, name: str, mode: tuple[str, ...]
    ) -> None:
        """Applied twice, the second time changes nothing; the same manifest shows no difference."""
        manifest = ("-n", namespace, "-f", str(FIXTURES / "accepted" / f"{name}.yaml"))
        cluster.kubectl("apply", *mode, *manifest)
        # Exit code 1 would be a difference. One is due to an operator that writes status between the two looks.
        until(lambda: cluster.kubectl("diff", *mode, *manifest, check=False).returncode == 0, "no difference")
        cluster.kubectl("apply", *mode, *manifest)
        generation = "jsonpath={.metadata.generation}"
        assert cluster.kubectl("get", "mt", name, "-n", namespace, "-o", generation).stdout == "1"


class TestScale:
    """The scale subresource, in a group of its own so that no operator answers."""

    def test_scale(self, cluster: Cluster, server: ApiServer, namespace: str, group: str) -> None:
        """It works on an object that omits replicas, and shows the selector that an HPA needs."""
        install(cluster, f"modeltiers.{group}", text=json.dumps(in_group(group)))
        body = {**ACCEPTED["smallest"], "apiVersion": f"{group}/v1alpha1"}
        path = f"/apis/{group}/v1alpha1/namespaces/{namespace}/modeltiers/smallest"
        wait_until(lambda: server.apply(body, namespace, dry=False).accepted, "the copied CRD to be served")
        status = {"status": {"replicas": 1, "selector": "modeltiers.dev/tier=smallest"}}
        assert server.ask("PATCH", f"{path}/status", status, "application/merge-patch+json").accepted
        scale = server.ask("GET", f"{path}/scale").body
        assert scale["spec"] == {"replicas": 1}
        assert scale["status"] == {"replicas": 1, "selector": "modeltiers.dev/tier=smallest"}
        wait_until(
            lambda: (
                not cluster.kubectl(
                    "scale", f"modeltiers.{group}/smallest", "--replicas=3", "-n", namespace, check=False
                ).returncode
            ),
            "kubectl to discover the group",
        )
        assert server.ask("GET", path).body["spec"]["replicas"] == 3


def loosen(root: Schema) -> None:
    """A schema as it may have been earlier: fewer rules, wider bounds."""
    root["properties"]["spec"].pop(VALIDATIONS)
    root["properties"]["spec"]["properties"]["rank"]["maximum"] = 100_000
    root["properties"]["spec"]["properties"]["rolloutToken"].pop("pattern")


class TestRatcheting:
    """A schema that got stricter does not strand what was stored before."""

    def test_old_objects_live_on(self, cluster: Cluster, server: ApiServer, namespace: str, group: str) -> None:
        """Status and other fields can be written; what is changed must be legal; new objects must be whole."""
        install(cluster, f"modeltiers.{group}", text=json.dumps(in_group(group, loosen)))
        path = f"/apis/{group}/v1alpha1/namespaces/{namespace}/modeltiers/smallest"
        old = patched(ACCEPTED["smallest"], {"spec": {"rank": 5000, "rolloutToken": "not legal", "accelerators": None}})
        old["apiVersion"] = f"{group}/v1alpha1"
        wait_until(lambda: server.apply(old, namespace, dry=False).accepted, "the loose CRD to be served")
        install(cluster, f"modeltiers.{group}", text=json.dumps(in_group(group)))
        again = patched(old, {"metadata": {"name": "another"}})
        wait_until(lambda: server.create(again, namespace).code == 422, "the strict CRD to be served")

        def patch(body: Body, subresource: str = "") -> tuple[int, str]:
            answer = server.ask("PATCH", path + subresource, body, "application/merge-patch+json")
            return answer.code, answer.message

        assert patch({"status": {"observedGeneration": 1, "ready": "0/1"}}, "/status") == (200, "")
        assert patch({"metadata": {"labels": {"a": "b"}}}) == (200, "")
        assert (
            patch({"spec": {"model": {"maxModelLen": 4096}}})[0] == 422
        )  # the rule about accelerators sees a new spec
        assert patch({"spec": {"rank": 6000, "accelerators": ACCEPTED["smallest"]["spec"]["accelerators"]}})[0] == 422
        assert patch({"spec": {"accelerators": ACCEPTED["smallest"]["spec"]["accelerators"]}}) == (200, "")
        assert patch({"spec": {"model": {"maxModelLen": 4096}}}) == (200, "")
        assert patch({"spec": {"rank": 10, "rolloutToken": "a"}}) == (200, "")
        stored = server.ask("GET", path).body
        assert (stored["status"]["ready"], stored["spec"]["rank"]) == ("0/1", 10)
