"""Valid specs of many forms: what hypothesis draws around the fixtures of admission, and the API server takes."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from e2e.operator_process import ROOT
from modeltiers.api import crd as crds
from modeltiers.api.schema import Schema
from tests.cluster.admission import ApiServer, Body
from tests.unit.test_policy_table_properties import policies

MANY = 30
"""Of each kind."""
TRIES = 10 * MANY
FIXTURES = ROOT / "tests/cluster/fixtures"
QUANTITIES = st.sampled_from(["1", "0.5", "1500m", "1.50", "0.125Gi", "1024Mi", "2.000Gi"])
"""As people write them, not as Kubernetes would."""


def varied(schema: Schema, value: Any) -> st.SearchStrategy[Any]:
    """The value or another that the schema allows: optional fields left out, numbers, words and quantities changed."""
    if isinstance(value, dict):
        fields, rest = schema.get("properties", {}), schema.get("additionalProperties")
        inside = {key: varied(fields.get(key, rest), one) for key, one in value.items()}
        must = {key: one for key, one in inside.items() if key in schema.get("required", ())}
        may = {key: one for key, one in inside.items() if key not in must}
        return st.one_of(*3 * [st.fixed_dictionaries(inside)], st.fixed_dictionaries(must, optional=may))
    if isinstance(value, list):
        return st.tuples(*(varied(schema["items"], one) for one in value)).map(list)
    return st.one_of(*4 * [st.just(value)], another(schema, value))


def another(schema: Schema, value: Any) -> st.SearchStrategy[Any]:
    """Another scalar, as far as its node says what else there is."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "boolean":
        return st.booleans()
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    return QUANTITIES if "(m|k|M|G" in schema.get("pattern", "") else st.just(value)


def around_fixtures(resource: crds.Resource) -> st.SearchStrategy[Body]:
    """Objects like those that are known to be accepted."""
    schema = crds.crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    folder = FIXTURES / resource.model.__name__.lower() / "accepted"
    bodies = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    return st.one_of(
        *(varied(schema, body["spec"]).map(lambda spec, body=body: body | {"spec": spec}) for body in bodies)
    )


def any_policy() -> st.SearchStrategy[Body]:
    """Policies of any form."""
    head = {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "RoutingPolicy", "metadata": {"name": "p"}}
    return policies().map(
        lambda one: head | {"spec": one.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)}
    )


def accepted(bodies: st.SearchStrategy[Body], server: ApiServer, namespace: str) -> list[Body]:
    """Different ones that the API server takes, as many as wanted or as there are among so many."""
    found: list[Body] = []

    @settings(
        max_examples=TRIES,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies)
    def draw(body: Body) -> None:
        if len(found) < MANY and body not in found and server.create(body, namespace).accepted:
            found.append(body)

    draw()
    return found


def drawn_specs(server: ApiServer, namespace: str) -> list[Body]:
    """Objects of every kind with names of their own, the same in every run."""
    forms = [*map(around_fixtures, crds.RESOURCES), any_policy()]
    found = [body for bodies in forms for body in accepted(bodies, server, namespace)]
    return [{**body, "metadata": {"name": f"f{number}"}} for number, body in enumerate(found)]
