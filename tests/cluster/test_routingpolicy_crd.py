"""RoutingPolicy against the real API server: every rule, bound and default, and what GitOps tools do with it."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from modeltiers.api.crd import RESOURCES, ROUTING_POLICY, crd
from modeltiers.api.parse import Fault, parse_policy
from modeltiers.api.schema import VALIDATIONS, nodes
from modeltiers.domain.policy_table import CompiledTable, TierView, compile_table
from tests.cluster.admission import (
    HOSTILE,
    Answer,
    ApiServer,
    Body,
    about,
    added,
    at,
    find,
    illegal,
    install,
    patched,
    shown,
    steps,
    with_value,
)

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures" / "routingpolicy"
ACCEPTED = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((FIXTURES / "accepted").glob("*.yaml"))}
RULES = yaml.safe_load((FIXTURES / "rules.yaml").read_text())
NODES = dict(nodes(crd(ROUTING_POLICY)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
SPEC = {path: node for path, node in NODES.items() if path.startswith("spec")}
TIERS = {name: TierView(name, name, external=name == "frontier") for name in ("small", "large", "frontier")}


class Case(NamedTuple):
    """One object for one rule."""

    message: str
    body: Body
    accepted: bool


def cases() -> Iterator[Any]:
    """All cases of the rules table."""
    for rule in RULES:
        for verdict in ("accepted", "rejected"):
            for number, patch in enumerate(rule[verdict], 1):
                case = Case(rule["message"], patched(ACCEPTED[rule["base"]], patch), verdict == "accepted")
                label = re.sub(r"[^a-z0-9]+", "-", rule["message"][:40].lower())
                yield pytest.param(case, id=f"{rule['at'] or 'object'}-{label}-{verdict}-{number}")


class Policies:
    """The policies of one namespace, asked about without storing anything unless said so."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server = server
        self.path = f"/apis/modeltiers.dev/v1alpha1/namespaces/{namespace}/routingpolicies"

    def create(self, body: Body, *, dry: bool = True) -> Answer:
        """Create one."""
        return self.server.ask("POST", self.path + ("?dryRun=All" if dry else ""), body)

    def create_all(self, bodies: Iterable[Body]) -> list[Answer]:
        """Ask whether each may be created."""
        return [self.create(body) for body in bodies]

    def patch(self, name: str, body: Body, subresource: str = "") -> Answer:
        """Merge into a stored one."""
        return self.server.ask("PATCH", f"{self.path}/{name}{subresource}", body, "application/merge-patch+json")


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server with our CRDs."""
    for resource in RESOURCES:
        install(cluster, resource.name, "-f", str(ROOT / "crds"))
    with ApiServer(cluster.kubeconfig, tmp_path_factory.mktemp("admission")) as api:
        policies = Policies(api, "default")
        wait_until(lambda: policies.create(ACCEPTED["smallest"]).accepted, "routingpolicies to be served")
        yield api


@pytest.fixture(scope="module")
def shared(cluster: Cluster, server: ApiServer) -> Iterator[Policies]:
    """A namespace for questions that leave nothing behind."""
    name = cluster.create_namespace(f"test-{secrets.token_hex(4)}")
    yield Policies(server, name)
    cluster.delete_namespace(name)


class TestTheCrd:
    """The CRD as a whole."""

    def test_no_field_is_a_boolean_to_yaml(self) -> None:
        """`on: x` would reach the API server as `true: x`."""
        names = {path.rpartition(".")[2] for path in NODES}
        assert [name for name in names if not isinstance(yaml.safe_load(name or "a"), str)] == []
        assert not names & {"y", "n", "Y", "N"}

    def test_columns(self, cluster: Cluster, server: ApiServer, namespace: str) -> None:
        """kubectl get, by short name, with what a status shows."""
        policies = Policies(server, namespace)
        assert policies.create(ACCEPTED["smallest"], dry=False).accepted
        # Its status is the operator's, where one is at work on this cluster: what that shows is tested with it.
        header, row = cluster.kubectl("get", "rp", "-n", namespace).stdout.splitlines()
        assert header.split() == ["NAME", "MODEL", "MODE", "TIERS", "LIVE", "ESCALATED", "READY", "AGE"]
        assert row.split()[:3] == ["smallest", "support", "Upfront"]
        wide = cluster.kubectl("get", "rp", "-n", namespace, "-o", "wide").stdout.splitlines()[0].split()
        assert wide == [*header.split()[:-1], "REASON", "PLACEMENT", "TABLE", "URL", "AGE"]
        assert "smallest" in cluster.kubectl("get", "tiering", "-n", namespace).stdout

    def test_explain_shows_descriptions(self, cluster: Cluster, server: ApiServer) -> None:
        """The documentation is in the cluster."""
        explain = ("explain", "rp.spec.accept")
        wait_until(lambda: cluster.kubectl(*explain, check=False).returncode == 0, "the published schema")
        words = " ".join(cluster.kubectl(*explain).stdout.split())
        for name, node in NODES["spec.accept"]["properties"].items():
            assert name in words
            assert " ".join(node["description"].split()) in words


class TestRules:
    """CEL, one case at a time."""

    def test_every_rule_has_cases(self) -> None:
        """A rule that nothing tests may be wrong for years; a case for no rule is a leftover."""
        rules = {(path, rule["message"]) for path, node in NODES.items() for rule in node.get(VALIDATIONS, ())}
        assert {
            (path, message) for path, message in rules if not any(about(case, path, message) for case in RULES)
        } == set()
        assert [case for case in RULES if not any(about(case, *rule) for rule in rules)] == []
        assert [case for case in RULES if not case["accepted"] or not case["rejected"]] == []

    def test_messages_name_the_way_out(self) -> None:
        """After a colon, or as what must be."""
        for node in NODES.values():
            for rule in node.get(VALIDATIONS, ()):
                assert re.search(r": [a-z]|must be|needs", rule["message"]), rule["message"]

    @pytest.mark.parametrize("case", list(cases()))
    def test_rule(self, shared: Policies, case: Case) -> None:
        """Accepted and compiled, or refused for this rule, in its words, and for nothing else."""
        answer = shared.create(case.body)
        policy = parse_policy(case.body)
        assert not isinstance(policy, Fault)
        if case.accepted:
            assert answer.accepted, answer.message
            found = compile_table("smallest", policy.spec, TIERS, "demo")
            assert isinstance(found, CompiledTable), [str(one) for one in found]
        else:
            assert answer.code == 422
            assert len(answer.causes) == 1, answer.causes
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
    def test_fixture(self, shared: Policies, name: str) -> None:
        """Each is accepted, read back and compiled by us; lists come back as they were sent."""
        answer = shared.create(ACCEPTED[name])
        assert answer.accepted, answer.message
        back, sent = parse_policy(answer.body), parse_policy(ACCEPTED[name])
        assert not isinstance(back, Fault)
        assert not isinstance(sent, Fault)
        table = compile_table(name, sent.spec, TIERS, "demo")
        assert isinstance(table, CompiledTable), [str(one) for one in table]
        assert compile_table(name, back.spec, TIERS, "demo") == table
        assert added(ACCEPTED[name]["spec"], answer.body["spec"], "spec") <= {
            path for path, node in NODES.items() if "default" in node
        }

    def test_every_bound(self, shared: Policies) -> None:
        """Every bound of every field, one step beyond it: refused, with the field's path."""
        probes = [(where, word, body) for path in SPEC for where, word, body in beyond(path)]
        answers = shared.create_all(body for _, _, body in probes)
        wrong = [
            f"{where} beyond {word}: {answer.code} {answer.message}"
            for (where, word, _), answer in zip(probes, answers, strict=True)
            if answer.code != 422 or where not in answer.message
        ]
        assert wrong == []
        assert len(probes) > 300

    def test_every_integer_at_its_bounds(self, shared: Policies) -> None:
        """The bounds themselves are legal, whatever a rule says about the combination."""
        probes = [
            (shown(place), with_value(ACCEPTED["whole"], place, node[word]))
            for path, node in SPEC.items()
            for word in ("minimum", "maximum")
            if word in node
            for place in list(find(ACCEPTED["whole"], steps(path)))[:1]
        ]
        answers = shared.create_all(body for _, body in probes)
        wrong = [
            f"{where}: {answer.message}"
            for (where, _), answer in zip(probes, answers, strict=True)
            if any(cause.startswith(f"{where}: ") and "in body should be" in cause for cause in answer.causes)
        ]
        assert wrong == []
        assert len(probes) > 60

    def test_unknown_fields(self, cluster: Cluster, server: ApiServer, namespace: str) -> None:
        """kubectl refuses a typing error, also deep inside."""
        body = patched(ACCEPTED["smallest"], {"spec": {"accept": {"tresholdPermille": 3}}})
        refused = cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body), check=False)
        assert 'unknown field "spec.accept.tresholdPermille"' in refused.stderr

    def test_the_author_cannot_write_status(self, shared: Policies) -> None:
        """It is the operator's."""
        assert "status" not in shared.create({**ACCEPTED["smallest"], "status": {"url": "http://evil"}}).body

    @pytest.mark.parametrize("kind", sorted(HOSTILE))
    def test_hostile_names(self, shared: Policies, kind: str) -> None:
        """The object's name, the model's, and names of tiers, rules, keys, headers and hosts."""
        value = HOSTILE[kind]
        rule = {"name": "a", "when": {"headers": [{"name": value, "values": ["b"]}]}, "tier": "large"}
        patches = [
            {"metadata": {"name": value}},
            {"spec": {"model": value}},
            {"spec": {"tiers": [{"name": value}]}},
            {"spec": {"classify": [{"name": value, "when": {"tools": True}, "tier": "large"}]}},
            {"spec": {"classify": [rule]}},
            {"spec": {"access": {"mode": "Keys", "keys": [value]}}},
            {"spec": {"mediaHosts": [value]}},
            {"spec": {"session": {"header": value}}},
        ]
        answers = shared.create_all(patched(ACCEPTED["smallest"], patch) for patch in patches)
        assert [answer.accepted for answer in answers] == [False] * len(patches)

    @pytest.mark.parametrize("kind", sorted(HOSTILE))
    def test_hostile_text_is_data(self, shared: Policies, kind: str) -> None:
        """Words and patterns may be anything; in the table they are values, and nothing else in it changes."""
        value = HOSTILE[kind][:64]
        rule = {"name": "a", "when": {"keywords": [value], "patterns": [re.escape(value)[:256]]}, "tier": "large"}
        body = patched(ACCEPTED["smallest"], {"spec": {"classify": [rule]}})
        assert shared.create(body).accepted
        policy = parse_policy(body)
        assert not isinstance(policy, Fault)
        found = compile_table("smallest", policy.spec, TIERS, "demo")
        if isinstance(found, list):
            assert [one.path for one in found] == ["spec.classify[0].when.patterns[0]"]
            return
        made = json.loads(found.content)["policies"][0]
        assert made["rules"][0]["when"]["keywords"] == [value]
        assert made.keys() == {"name", "model", "tiers", "rules"}


def beyond(path: str) -> Iterator[tuple[str, str, Body]]:
    """For each bound of a field: where, which bound, and an object one step beyond it."""
    whole = ACCEPTED["whole"]
    for place in list(find(whole, steps(path)))[:1]:
        for word, value in illegal(SPEC[path], at(whole, place)):
            yield shown(place), word, with_value(whole, place, value)


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
        cluster.kubectl("diff", *mode, *manifest)  # exit code 1 would be a difference
        cluster.kubectl("apply", *mode, *manifest)
        generation = "jsonpath={.metadata.generation}"
        assert cluster.kubectl("get", "rp", name, "-n", namespace, "-o", generation).stdout == "1"

    def test_the_order_of_the_ladder_is_kept(self, cluster: Cluster, server: ApiServer, namespace: str) -> None:
        """A list that is merged by name is still in the order that was applied last."""
        for order in (["small", "large"], ["large", "small"], ["medium", "large", "small"]):
            body = patched(ACCEPTED["smallest"], {"spec": {"tiers": [{"name": name} for name in order]}})
            text = json.dumps(body)
            cluster.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=text)
            stored = cluster.kubectl("get", "rp", "smallest", "-n", namespace, "-o", "json").stdout
            assert [tier["name"] for tier in json.loads(stored)["spec"]["tiers"]] == order
