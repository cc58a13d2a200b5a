"""The generated files of the Helm charts: CRDs as templates, rights, and the values with their schema.

What the code declares is written here; how the chart is put together is in its templates, by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from modeltiers import __version__, names
from modeltiers.api.crd import HEADER, RESOURCES, crd, to_yaml
from modeltiers.api.reference import fields_page
from modeltiers.api.schema import structural
from modeltiers.api.values import Values
from modeltiers.api.values_schema import defaults, values_file, values_schema, with_defaults
from modeltiers.domain.floor import FLOOR
from modeltiers.kube.access import USES, Scope, rules

CHART: Final = Path("charts/modeltiers")
CRD_CHART: Final = Path("charts/modeltiers-crds")
KUBE_VERSION: Final = f">={FLOOR[0]}.{FLOOR[1]}.0-0"

KEPT: Final = {
    "helm.sh/resource-policy": "keep",
    "argocd.argoproj.io/sync-options": "Prune=confirm,ServerSideApply=true",
}
"""Helm leaves an object when the chart goes, and Argo CD asks before it prunes one: with a CRD, every tier would go."""

KEYWORDS: Final = ["llm", "inference", "vllm", "routing", "distillation", "operator"]

_RIGHTS: Final[dict[str, Scope]] = {"tiers": "Tier namespaces", "cluster": "Cluster", "own": "Own namespace"}


def chart() -> dict[Path, str]:
    """The generated part of the operator's chart."""
    about = _about("modeltiers", "A Kubernetes operator for model tiers: the right request to the right model.")
    files = {
        CHART / "Chart.yaml": to_yaml(
            {**about, "appVersion": __version__, "keywords": KEYWORDS, "annotations": _annotations()}
        ),
        CHART / "values.yaml": f"# {HEADER}\n---\n{values_file(Values, 'settings')}",
        CHART / "values.schema.json": values_schema(Values),
        CHART / "templates" / "_rights.tpl": _rights(),
    }
    for resource in RESOURCES:
        files[CHART / "templates" / "crds" / f"{resource.plural}.yaml"] = _optional(crd(resource))
    return files


def _annotations() -> dict[str, str]:
    """What catalogues of charts show."""
    kinds = [
        {"kind": one.kind, "version": names.VERSION, "name": one.name, "displayName": one.kind} for one in RESOURCES
    ]
    return {
        "artifacthub.io/license": "Apache-2.0",
        "artifacthub.io/operator": "true",
        "artifacthub.io/crds": yaml.safe_dump(kinds, sort_keys=False),
    }


def values_page() -> str:
    """The reference page of the chart's values; the settings among them have a page of their own."""
    whole = with_defaults(structural(Values), defaults(Values))
    inside = dict(whole["properties"])
    settings = inside["settings"]
    inside["settings"] = {"description": settings["description"], "type": "object"}
    return fields_page({**whole, "properties": inside}, "Values of the chart")


def crd_chart() -> dict[Path, str]:
    """A chart of the CRDs alone, for who wants them in another release; kept when it goes."""
    files = {CRD_CHART / "Chart.yaml": to_yaml(_about("modeltiers-crds", "The CRDs of modeltiers."))}
    for resource in RESOURCES:
        body = crd(resource)
        body["metadata"]["annotations"] = dict(KEPT)
        files[CRD_CHART / "templates" / f"{resource.plural}.yaml"] = _escaped(to_yaml(body))
    return files


def _about(name: str, description: str) -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "name": name,
        "description": description,
        "type": "application",
        "version": __version__,
        "kubeVersion": KUBE_VERSION,
    }


def _optional(body: dict[str, Any]) -> str:
    """A CRD that is there unless the values say no."""
    head, _, spec = _escaped(to_yaml(body)).partition("---\n")[2].partition("spec:\n")
    kept = "".join(f"    {name}: {value}\n" for name, value in KEPT.items())
    return (
        f"{{{{/* {HEADER} */}}}}\n"
        "{{- if .Values.crds.enabled }}\n"
        f"{head}"
        '  labels: {{- include "modeltiers.labels" . | nindent 4 }}\n'
        "  {{- if .Values.crds.keep }}\n"
        f"  annotations:\n{kept}"
        "  {{- end }}\n"
        f"spec:\n{spec}"
        "{{- end }}\n"
    )


def _escaped(text: str) -> str:
    """Helm would take the braces of a description for a template."""
    return text.replace("{{", "{{ `{{` }}")


def _rights() -> str:
    """The operator's rights as templates to include, by where they hold."""
    found = [f"{{{{/* {HEADER} */}}}}\n"]
    for name, scope in _RIGHTS.items():
        listed = to_yaml({"rules": rules(USES, scope)}).partition("rules:\n")[2]
        found.append(f'{{{{- define "modeltiers.rights.{name}" }}}}\n{_escaped(listed)}{{{{- end }}}}\n')
    return "".join(found)
