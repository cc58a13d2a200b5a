"""What holds for every resource on the real API server: rules, bounds, defaults, hostile strings, and apply."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from modeltiers.api.crd import crd
from modeltiers.api.schema import VALIDATIONS
from modeltiers.names import GROUP
from tests.cluster.admission import CRDS, HOSTILE, ApiServer, added, at, collection, patched, shown, with_value
from tests.cluster.kinds import FIXTURES, KINDS, Case, Kind
from tests.cluster.kit import until

EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
FIXTURE = pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, id=f"{kind.resource.kind}-{name}") for kind in KINDS for name in kind.accepted],
)
CASES = [
    pytest.param(kind, case, id=f"{kind.resource.kind}-{number}-{case}")
    for kind in KINDS
    for number, case in enumerate(kind.cases)
]


@EVERY
class TestTheCrd:
    """The CRD as a whole."""

    def test_what_is_stored_is_what_is_generated(self, cluster: Cluster, server: ApiServer, kind: Kind) -> None:
        """Nothing is pruned, defaulted or rounded, so no GitOps tool sees a difference."""
        stored = json.loads(cluster.kubectl("get", "crd", kind.resource.name, "-o", "json").stdout)["spec"]
        stored.pop("conversion")  # the API server writes strategy None, which tools know
        assert stored == crd(kind.resource)["spec"]

    def test_it_can_be_applied_client_side(self, cluster: Cluster, server: ApiServer, kind: Kind) -> None:
        """The last-applied annotation has room for it."""
        file = CRDS / f"{GROUP}_{kind.resource.plural}.yaml"
        cluster.kubectl("apply", "-f", str(file), "--dry-run=server")

    def test_no_field_is_a_boolean_to_yaml(self, kind: Kind) -> None:
        """`on: x` would reach the API server as `true: x`."""
        names = {path.rpartition(".")[2] for path in kind.nodes} - {"", "*"}
        assert [name for name in names if not isinstance(yaml.safe_load(name), str)] == []
        assert not names & {"y", "n", "Y", "N"}

    def test_explain_shows_descriptions(self, cluster: Cluster, server: ApiServer, kind: Kind) -> None:
        """The documentation is in the cluster."""
        explain = ("explain", f"{kind.resource.short_name}.{kind.explained}")
        wait_until(lambda: cluster.kubectl(*explain, check=False).returncode == 0, "the published schema")
        words = " ".join(cluster.kubectl(*explain).stdout.split())
        for name, node in kind.nodes[kind.explained]["properties"].items():
            assert name in words
            assert " ".join(node["description"].split()) in words

    def test_columns(self, cluster: Cluster, server: ApiServer, namespace: str, kind: Kind) -> None:
        """kubectl get, by short name and by category; what a status shows there is tested with the operator."""
        assert server.create(kind.accepted["smallest"], namespace, dry=False).accepted
        header, row = cluster.kubectl("get", kind.resource.short_name, "-n", namespace).stdout.splitlines()
        assert (" ".join(header.split()), row.split()[0]) == (kind.columns[0], "smallest")
        wide = cluster.kubectl("get", "tiering", "-n", namespace, "-o", "wide").stdout.splitlines()[0]
        assert " ".join(wide.split()) == kind.columns[1]


class TestRules:
    """CEL, one case at a time."""

    @EVERY
    def test_every_rule_has_cases(self, kind: Kind) -> None:
        """A rule that nothing tests may be wrong for years; a case for no rule is a leftover."""
        changes = tuple(f"{name} cannot be changed" for name in kind.immutable)
        still = {(path, said) for path, said in kind.messages if not said.startswith(changes or "\0")}
        for verdict in (True, False):
            told = [case for case in kind.cases if case.accepted is verdict]
            assert {rule for rule in still if not any(case.about(*rule) for case in told)} == set()
            assert [case for case in told if not any(case.about(*rule) for rule in still)] == []

    @EVERY
    def test_transition_rules_are_tested_by_changes(self, kind: Kind) -> None:
        """oldSelf needs a before."""
        for path, node in kind.nodes.items():
            for rule in node.get(VALIDATIONS, ()):
                mine = [case for case in kind.cases if case.about(path, rule["message"])]
                assert all(("oldSelf" in rule["rule"]) == (case.before is not None) for case in mine)

    @EVERY
    def test_messages_name_the_way_out(self, kind: Kind) -> None:
        """After a colon, in a sentence of its own, or as what must be."""
        for _, said in kind.messages:
            assert re.search(r": [a-z]|\. [A-Z]|^give |\bmust\b|needs", said), said

    @pytest.mark.parametrize(("kind", "case"), CASES)
    def test_rule(self, server: ApiServer, shared: str, kind: Kind, case: Case) -> None:
        """Accepted and understood by us, or refused for this rule, in its words, and for nothing else."""
        if case.before:
            created = server.apply(case.before, shared, dry=False)
            assert created.accepted, created.message
        answer = server.apply(case.body, shared) if case.before else server.create(case.body, shared)
        if case.before:
            server.ask("DELETE", f"{collection(case.body, shared)}/{case.body['metadata']['name']}")
        if case.accepted:
            assert answer.accepted, answer.message
            kind.read(case.body)
        else:
            assert answer.code == 422
            assert len(answer.causes) == 1, answer.causes
            assert case.message in answer.causes[0]


class TestFields:
    """Bounds, patterns, unknown fields and defaults."""

    @EVERY
    def test_every_field_is_in_a_fixture(self, kind: Kind) -> None:
        """The walks below reach what the fixtures hold."""
        assert [path for path in kind.spec if not any(True for _ in kind.places(path))] == []

    @FIXTURE
    def test_fixture(self, server: ApiServer, shared: str, kind: Kind, name: str) -> None:
        """Each is accepted and means the same when read back; defaults appear beside what was written, not in lists."""
        sent = kind.accepted[name]
        answer = server.create(sent, shared)
        assert answer.accepted, answer.message
        assert meaning(kind, answer.body) == meaning(kind, sent)
        defaults = {path for path, node in kind.nodes.items() if "default" in node}
        assert added(sent["spec"], answer.body["spec"], "spec") <= defaults

    @EVERY
    def test_every_bound(self, server: ApiServer, shared: str, kind: Kind) -> None:
        """Every bound of every field, one step beyond it: refused, with the field's path."""
        probes = [(where, word, body) for path in kind.spec for where, word, body in kind.beyond(path)]
        answers = server.create_all([body for _, _, body in probes], shared)
        wrong = [
            f"{where} beyond {word}: {answer.code} {answer.message}"
            for (where, word, _), answer in zip(probes, answers, strict=True)
            if answer.code != 422 or where not in answer.message
        ]
        assert wrong == []
        assert len(probes) > 300

    @EVERY
    def test_every_integer_at_its_bounds(self, server: ApiServer, shared: str, kind: Kind) -> None:
        """The bounds themselves are legal, whatever a rule says about the combination."""
        probes = [
            (shown(place), with_value(body, place, node[word]))
            for path, node in kind.spec.items()
            for word in ("minimum", "maximum")
            if word in node
            for body, place in kind.places(path)
        ]
        answers = server.create_all([body for _, body in probes], shared)
        wrong = [
            f"{where}: {answer.message}"
            for (where, _), answer in zip(probes, answers, strict=True)
            if any(cause.startswith(f"{where}: ") and "in body should be" in cause for cause in answer.causes)
        ]
        assert wrong == []
        assert len(probes) > 40

    @EVERY
    def test_unknown_fields(self, cluster: Cluster, server: ApiServer, namespace: str, kind: Kind) -> None:
        """kubectl refuses a typing error, also deep inside; where validation is off, it is pruned and not stored."""
        _, part, wrong = kind.typing_error.split(".")
        body = patched(kind.accepted["smallest"], {"spec": {part: {wrong: 3}}})
        apply = ("-n", namespace, "-f", "-")
        refused = cluster.kubectl("apply", *apply, input=json.dumps(body), check=False)
        assert f'unknown field "{kind.typing_error}"' in refused.stderr
        stored = server.create(body, namespace, strict=False)
        assert stored.accepted, stored.message
        assert wrong not in stored.body["spec"][part]

    @EVERY
    def test_the_author_cannot_write_status(self, server: ApiServer, shared: str, kind: Kind) -> None:
        """It is the operator's."""
        assert "status" not in server.create({**kind.accepted["smallest"], "status": dict(kind.status)}, shared).body


def meaning(kind: Kind, body: Any) -> Any:
    """What our code makes of an object, without what the API server notes about it."""
    read = kind.read(body)
    return read.spec if hasattr(read, "spec") else read


@EVERY
class TestHostileStrings:
    """What a tenant could try to smuggle into a pod, a prompt's file, a log or a shell."""

    def test_every_string(self, server: ApiServer, shared: str, kind: Kind) -> None:
        """Every string field, every string: refused, or known to do no harm and stored as sent."""
        probes = [
            (path, word, place, with_value(body, place, text))
            for path, node in kind.spec.items()
            if node["type"] == "string"
            for body, place in kind.places(path)
            for word, text in HOSTILE.items()
        ]
        answers = server.create_all([body for *_, body in probes], shared)
        accepted: dict[str, set[str]] = {}
        for (path, word, place, body), answer in zip(probes, answers, strict=True):
            if answer.accepted:
                accepted.setdefault(path, set()).add(word)
                assert at(answer.body, place) == at(body, place)
            else:
                assert answer.code in (400, 422), answer.message
        assert accepted == kind.harmless
        assert len(probes) > 500

    def test_names_and_keys(self, server: ApiServer, shared: str, kind: Kind) -> None:
        """The object's name and the keys of maps."""
        smallest = kind.accepted["smallest"]
        named = [patched(smallest, {"metadata": {"name": text}}) for text in HOSTILE.values()]
        keyed = [
            with_value(body, place[:-1], {text: at(body, place)})
            for path in kind.spec
            if path.endswith(".*")
            for body, place in kind.places(path)
            for text in HOSTILE.values()
        ]
        answers = server.create_all([*named, *keyed], shared)
        assert [answer.body for answer in answers if answer.accepted] == []


class TestApply:
    """What GitOps tools and people do with manifests."""

    @pytest.mark.parametrize(
        "mode", [(), ("--server-side", "--field-manager=gitops")], ids=["client-side", "server-side"]
    )
    @FIXTURE
    def test_no_difference(
        self, cluster: Cluster, server: ApiServer, namespace: str, kind: Kind, name: str, mode: tuple[str, ...]
    ) -> None:
        """Applied twice, the second time changes nothing; the same manifest shows no difference."""
        file = FIXTURES / kind.resource.kind.lower() / "accepted" / f"{name}.yaml"
        manifest = ("-n", namespace, "-f", str(file))
        cluster.kubectl("apply", *mode, *manifest)
        # Exit code 1 would be a difference. One is due to an operator that writes status between the two looks.
        until(lambda: cluster.kubectl("diff", *mode, *manifest, check=False).returncode == 0, "no difference")
        cluster.kubectl("apply", *mode, *manifest)
        generation = "jsonpath={.metadata.generation}"
        found = cluster.kubectl("get", kind.resource.short_name, name, "-n", namespace, "-o", generation)
        assert found.stdout == "1"
