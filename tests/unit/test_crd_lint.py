"""Our CRDs pass every check, and every check can fail: a mutated CRD makes exactly that one fail."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from modeltiers.api.crd import MODEL_TIER, RESOURCES, Resource, crd
from modeltiers.api.lint import CHECKS, LONGEST_CRD, lint

Crd = dict[str, Any]


class At:
    """A CRD with short ways to its parts."""

    def __init__(self, body: Crd) -> None:
        self.body = body
        self.spec: Crd = body["spec"]
        self.version: Crd = self.spec["versions"][0]
        self.root: Crd = self.version["schema"]["openAPIV3Schema"]

    def __call__(self, path: str) -> Crd:
        """The node at `spec.accelerators[].name` and the like."""
        node = self.root
        for part in path.replace("[]", ".[]").split("."):
            node = {"[]": lambda n: n["items"], "*": lambda n: n["additionalProperties"]}.get(
                part, lambda n, part=part: n["properties"][part]
            )(node)
        return node


def pop(key: str, path: str) -> Callable[[At], object]:
    """Take a key from a node."""
    return lambda at: at(path).pop(key)


def put(path: str, **values: Any) -> Callable[[At], object]:
    """Put values into a node; `x_` stands for `x-kubernetes-`."""
    return lambda at: at(path).update(
        {key.replace("x_", "x-kubernetes-").replace("_", "-"): v for key, v in values.items()}
    )


def add(path: str, name: str, **values: Any) -> Callable[[At], object]:
    """Add a field to an object."""
    return lambda at: at(path)["properties"].update({name: {"description": "Added by a test.", **values}})


def rule(path: str, text: str, message: str = "is wrong", reason: str = "FieldValueInvalid") -> Callable[[At], object]:
    """Add a rule to a node."""
    new = {"rule": text, "message": message, "reason": reason}
    return lambda at: at(path).setdefault("x-kubernetes-validations", []).append(new)


TEXT = {"type": "string", "maxLength": 9}

MUTATIONS: dict[str, list[Callable[[At], object]]] = {
    "nodes_are_typed": [pop("type", "spec.model.servedName"), pop("type", "spec.scheduling.nodeSelector.*")],
    "field_names_are_text_to_yaml": [add("spec", "on", **TEXT)],
    "no_floats": [put("status.cost.perHourMicros", type="number")],
    "no_unions": [put("spec.rank", anyOf=[{"type": "integer"}]), put("spec.rank", **{"not": {"enum": [3]}})],
    "no_int_or_string": [put("spec.rank", x_int_or_string=True)],
    "no_unknown_fields_are_kept": [
        put("spec.serving", x_preserve_unknown_fields=True),
        lambda at: at.spec.update(preserveUnknownFields=True),
    ],
    "objects_are_closed": [
        add("spec", "extra", type="object"),
        put("spec.serving.cache", additionalProperties=False),
        put("spec.scheduling.nodeSelector", additionalProperties=True),
    ],
    "nothing_is_nullable": [put("spec.rank", nullable=True)],
    "strings_are_bounded": [pop("maxLength", "spec.rolloutToken"), pop("maxLength", "spec.serving.args[]")],
    "lists_are_bounded": [pop("maxItems", "spec.accelerators")],
    "maps_are_bounded": [pop("maxProperties", "spec.scheduling.nodeSelector")],
    "map_keys_are_checked": [pop("x-kubernetes-validations", "spec.scheduling.nodeSelector")],
    "integers_are_bounded": [pop("maximum", "spec.rank"), pop("minimum", "status.sizing.terms[].bytes")],
    "integers_are_int64": [pop("format", "spec.rank"), put("spec.rank", format="int32")],
    "bounds_survive_the_api_server": [put("status.observedGeneration", maximum=2**62)],
    "bounds_are_in_order": [put("spec.rank", minimum=2000), put("spec.rolloutToken", minLength=65)],
    "objects_fit_in_storage": [put("status.conditions", maxItems=1000)],
    "lists_have_a_type": [pop("x-kubernetes-list-type", "spec.serving.args")],
    "list_keys_are_required": [
        lambda at: at("spec.accelerators[]")["required"].remove("name"),
        pop("x-kubernetes-list-map-keys", "spec.accelerators"),
    ],
    "no_defaults_in_lists": [put("spec.accelerators[].gpusPerNode", default=8)],
    "no_composite_defaults": [put("spec.accelerators", default=[]), put("spec.sizing", default={})],
    "defaults_are_legal": [put("spec.replicas", maximum=0, minimum=0), put("spec.sizing.mode", default="Manual")],
    "fields_are_described": [pop("description", "spec.rank"), put("spec.rank", description="Rank.")],
    "descriptions_are_sentences": [put("spec.rank", description="Place on the ladder")],
    "descriptions_say_something": [
        put("spec.rank", description="TODO: say what it is."),
        put("spec.rank", description="This field is the place on the ladder."),
    ],
    "field_names_are_camel_case": [add("spec", "image_name", **TEXT), add("spec", "Image", **TEXT)],
    "enum_values_are_camel_case": [put("spec.sizing.objective", enum=["Cost", "latency"])],
    "no_phase": [add("status", "phase", **TEXT)],
    "no_other_namespaces": [add("spec.serving", "namespace", **TEXT), add("spec.serving", "cacheNamespace", **TEXT)],
    "no_plain_secrets": [add("spec.external", "apiKey", **TEXT), add("spec.external", "clientSecret", **TEXT)],
    "required_fields_exist": [lambda at: at("spec.external")["required"].append("models")],
    "patterns_are_anchored": [put("spec.rolloutToken", pattern="^a"), put("spec.rolloutToken", pattern="a$")],
    "patterns_are_re2": [
        put("spec.rolloutToken", pattern=r"^(?!x).*$"),
        put("spec.rolloutToken", pattern=r"^(a)\1$"),
        put("spec.rolloutToken", pattern=r"^(?<=a)b$"),
        put("spec.rolloutToken", pattern=r"^a{1,1001}$"),
        put("spec.rolloutToken", pattern=r"^(a$"),
    ],
    "rules_have_messages": [
        rule("spec.sizing", "self.concurrency < 9", message=""),
        rule("spec.sizing", "self.concurrency < 9", message="two\nlines"),
        rule("spec.sizing", "self.concurrency < 9", message="long" * 100),
    ],
    "rules_have_known_reasons": [rule("spec.sizing", "self.concurrency < 9", reason="Bad")],
    "rules_are_core_cel": [
        rule("spec.external", "isURL(self.baseUrl)"),
        rule("spec.external", "url(self.baseUrl).getScheme() == 'https'"),
        rule("spec.serving", "self.?image.orValue('') != ''"),
        rule("spec.serving", "self[?'image'] == ''"),
        rule("spec.serving.resources", "quantity(self.cpu).isGreaterThan(quantity('1'))"),
        rule("spec.external", "self.model.lowerAscii() == self.model"),
    ],
    "rules_run_seldom": [put("spec.scheduling.tolerations", maxItems=1000)],
    "transition_rules_can_run": [rule("spec.scheduling.tolerations[]", "self == oldSelf")],
    "names_agree": [
        lambda at: at.body["metadata"].update(name="tiers.modeltiers.dev"),
        lambda at: at.spec["names"].update(singular="tier"),
    ],
    "scope_is_namespaced": [lambda at: at.spec.update(scope="Cluster")],
    "one_version_is_stored": [
        lambda at: at.version.update(served=False),
        lambda at: at.spec["versions"].append({**at.version, "name": "v1beta1"}),
    ],
    "has_a_short_name": [lambda at: at.spec["names"].update(shortNames=[])],
    "has_a_category_of_its_own": [
        lambda at: at.spec["names"].pop("categories"),
        lambda at: at.spec["names"].update(categories=["all"]),
    ],
    "is_small_enough_to_apply": [put("spec.rank", description="x" * LONGEST_CRD + ".")],
    "spec_is_required": [lambda at: at.root.update(required=[])],
    "has_a_status_subresource": [lambda at: at.version["subresources"].pop("status")],
    "status_has_observed_generation": [lambda at: at("status")["properties"].pop("observedGeneration")],
    "conditions_are_standard": [
        lambda at: at("status.conditions[]")["required"].remove("reason"),
        add("status.conditions[]", "severity", **TEXT),
        put("status.conditions", x_list_map_keys=["reason"]),
    ],
    "replicas_can_be_scaled": [
        lambda at: at.version["subresources"].pop("scale"),
        lambda at: at.version["subresources"]["scale"].pop("labelSelectorPath"),
        lambda at: at.version["subresources"]["scale"].update(statusReplicasPath=".status.pods"),
        pop("default", "spec.replicas"),
    ],
    "columns_are_enough": [
        lambda at: at.version["additionalPrinterColumns"].pop(),
        lambda at: at.version["additionalPrinterColumns"].__delitem__(slice(0, 2)),
    ],
    "columns_show_fields": [
        lambda at: at.version["additionalPrinterColumns"][0].update(jsonPath=".status.readyPods"),
        lambda at: at.version["additionalPrinterColumns"][0].update(type="integer"),
    ],
}

CASES = [
    pytest.param(name, mutate, id=f"{name}-{number}")
    for name, mutations in MUTATIONS.items()
    for number, mutate in enumerate(mutations, 1)
]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_passes(resource: Resource, name: str) -> None:
    """Our own CRDs are clean."""
    assert list(CHECKS[name](crd(resource))) == []


@pytest.mark.parametrize(("name", "mutate"), CASES)
def test_the_check_can_fail(name: str, mutate: Callable[[At], object]) -> None:
    """One change, one complaint: the check sees it, and no other check is in the way."""
    mutated = copy.deepcopy(crd(MODEL_TIER))
    mutate(At(mutated))
    assert {name} == set(lint(mutated))


def test_every_check_has_a_mutation() -> None:
    """A check that cannot fail is a defect."""
    assert set(CHECKS) == set(MUTATIONS)


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_says_why(name: str) -> None:
    """The reason is in the docstring."""
    assert (CHECKS[name].__doc__ or "").endswith(".")
