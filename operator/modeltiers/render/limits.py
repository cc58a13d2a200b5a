"""What a namespace's administrator allows its tenants, as a ValidatingAdmissionPolicy; optional, and apart from us.

The limits are annotations of the Namespace, which its tenants cannot write. The API server itself refuses what is over
them, whether the operator runs or not. A namespace without an annotation has no limit of that kind.
"""

from __future__ import annotations

from typing import Any, Final

from modeltiers import names

Manifest = dict[str, Any]

NAME: Final = "modeltiers-limits"
IMAGES: Final = f"{names.GROUP}/allowed-images"
SOURCES: Final = f"{names.GROUP}/allowed-sources"
ARGS: Final = f"{names.GROUP}/allowed-args"
REPLICAS: Final = f"{names.GROUP}/max-replicas"

_ANNOTATIONS: Final = "namespaceObject.metadata.annotations"
_SET: Final = "'{0}' in variables.annotations"
_LIST: Final = _SET + " ? variables.annotations['{0}'].split(',').map(one, one.trim()).filter(one, one != '') : []"
_REPLICAS: Final = (
    "[has(object.spec.replicas) ? object.spec.replicas : 0,"
    " has(object.spec.autoscaling) && has(object.spec.autoscaling.max) ? object.spec.autoscaling.max : 0,"
    " has(object.spec.candidate) && has(object.spec.candidate.replicas) ? object.spec.candidate.replicas : 0]"
)
_SOURCES: Final = (
    "(has(object.spec.model) ? [object.spec.model.source] : [])"
    " + (has(object.spec.candidate) ? [object.spec.candidate.model.source] : [])"
)
_IMAGES: Final = (
    "(has(object.spec.serving) && has(object.spec.serving.image) ? [object.spec.serving.image] : [])"
    " + (has(object.spec.serving) && has(object.spec.serving.router) && has(object.spec.serving.router.image)"
    " ? [object.spec.serving.router.image] : [])"
)
_FLAGS: Final = (
    "has(object.spec.serving) && has(object.spec.serving.args)"
    " ? object.spec.serving.args.map(arg, arg.split('=')[0]) : []"
)


def limits() -> list[Manifest]:
    """The policy, and the binding that puts it into force in every namespace."""
    return [_policy(), _binding()]


def _policy() -> Manifest:
    rule = {"apiGroups": [names.GROUP], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{**rule, "resources": ["modeltiers"]}]},
            "variables": [
                {"name": "annotations", "expression": f"has({_ANNOTATIONS}) ? {_ANNOTATIONS} : {{}}"},
                *_variables("images", IMAGES, _IMAGES),
                *_variables("sources", SOURCES, _SOURCES),
                *_variables("args", ARGS, _FLAGS),
            ],
            "validations": [
                _allowed("images", IMAGES, "image", "one.startsWith(allowed)"),
                _allowed("sources", SOURCES, "model source", "one.startsWith(allowed)"),
                _allowed("args", ARGS, "engine flag", "one == allowed"),
                {
                    "expression": f"!({_SET.format(REPLICAS)})"
                    f" || {_REPLICAS}.all(one, one <= int(variables.annotations['{REPLICAS}']))",
                    "messageExpression": f"'this namespace allows at most ' + variables.annotations['{REPLICAS}']"
                    f" + ' replicas (annotation {REPLICAS})'",
                    "reason": "Forbidden",
                },
            ],
        },
    }


def _variables(name: str, annotation: str, found: str) -> list[Manifest]:
    """What the namespace allows, and what the tier asks for."""
    return [
        {"name": f"{name}Allowed", "expression": _LIST.format(annotation)},
        {"name": f"{name}Wanted", "expression": found},
    ]


def _allowed(name: str, annotation: str, what: str, test: str) -> Manifest:
    allowed = f"variables.{name}Allowed.exists(allowed, {test})"
    return {
        "expression": f"!({_SET.format(annotation)}) || variables.{name}Wanted.all(one, {allowed})",
        "messageExpression": f"'this namespace does not allow the {what} '"
        f" + variables.{name}Wanted.filter(one, !{allowed}).join(', ')"
        f" + '; it allows ' + variables.{name}Allowed.join(', ') + ' (annotation {annotation})'",
        "reason": "Forbidden",
    }


def _binding() -> Manifest:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    }
