"""Writes every generated file of the repository, or says which have drifted from the code.

What is generated is a list of functions from nothing to texts, so that a new kind of file is one entry more. It refuses
to merge: a generated file is overwritten as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from modeltiers import names
from modeltiers.api import reference
from modeltiers.api.crd import RESOURCES, crd, to_yaml
from modeltiers.api.settings import Settings
from modeltiers.cli.charts import chart, crd_chart, values_page
from modeltiers.cli.gitops import argocd_config
from modeltiers.cli.reasons_page import reasons_pages
from modeltiers.cli.routing_page import routing_page
from modeltiers.cli.table_page import table_page
from modeltiers.kube.access import rbac_manifests, rights_page
from modeltiers.render import alerts, dashboard
from modeltiers.render.dashboards import DASHBOARDS
from modeltiers.render.limits import limits
from modeltiers.render.operator import IMAGE, ROUTER_IMAGE, render_operator


def crds() -> dict[Path, str]:
    """A CustomResourceDefinition for each resource."""
    return {Path("crds") / f"{names.GROUP}_{resource.plural}.yaml": to_yaml(crd(resource)) for resource in RESOURCES}


def reference_pages() -> dict[Path, str]:
    """A reference page for each resource, reasons in conditions, the settings, the table, metrics and commands."""
    # Late: it looks at every command, this one too.
    from modeltiers.cli.cli_page import cli_page

    # Late: the metrics are the operator's and the router's, whose packages a user of the command line may lack.
    from modeltiers.cli.metrics_page import metrics_page

    folder = Path("docs") / "reference"
    pages = {folder / f"{one.kind.lower()}.md": reference.resource_page(one) for one in RESOURCES}
    settings = reference.settings_page(Settings, "Settings")
    more = {
        **reasons_pages(),
        "settings.md": settings,
        "chart.md": values_page(),
        "rights.md": rights_page(),
        "table.md": table_page(),
        "routing.md": routing_page(),
        "metrics.md": metrics_page(),
        "cli.md": cli_page(),
    }
    return pages | {folder / name: text for name, text in more.items()}


def manifests() -> dict[Path, str]:
    """What `kubectl apply -k manifests` applies: CRDs; the operator's namespace, ServiceAccount and rights, from what
    the code declares it uses; its Deployment.
    """
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": names.OPERATOR_NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["crds.yaml", "rbac.yaml", "operator.yaml"],
        "images": [{"name": IMAGE.partition(":")[0], "newTag": IMAGE.partition(":")[2]}],
    }
    settings = to_yaml({"router": {"image": ROUTER_IMAGE}}).partition("---\n")[2]
    return {
        Path("manifests/crds.yaml"): _stream(*(crd(resource) for resource in RESOURCES)),
        Path("manifests/kustomization.yaml"): to_yaml(kustomization),
        Path("manifests/limits.yaml"): _stream(*limits()),
        Path("manifests/rbac.yaml"): _stream(namespace, *rbac_manifests()),
        Path("manifests/operator.yaml"): _stream(*render_operator(settings)),
    }


def monitoring() -> dict[Path, str]:
    """Grafana dashboards and Prometheus rules, which the chart wraps as it finds them."""
    folder = Path("charts/modeltiers/files")
    boards = {
        folder / "dashboards" / f"{name}.json": json.dumps(dashboard.render(board), indent=2, ensure_ascii=False) + "\n"
        for name, board in DASHBOARDS.items()
    }
    rules = {
        folder / "rules" / f"{group}.yaml": to_yaml(alerts.render(group, of_it))
        for group, of_it in alerts.ALERTS.items()
    }
    return boards | rules


def _stream(*bodies: Mapping[str, Any]) -> str:
    """Several objects as one file, under one header."""
    documents = [to_yaml(body).partition("---\n") for body in bodies]
    return documents[0][0] + "".join("---\n" + text for _, _, text in documents)


GENERATORS: Final[list[Callable[[], dict[Path, str]]]] = [
    *(crds, crd_chart, chart, manifests, monitoring, reference_pages, argocd_config)
]
"""Each returns the files it stands for, with paths relative to the repository."""


def generated() -> dict[Path, str]:
    """All generated files; two generators of one file are a mistake."""
    files: dict[Path, str] = {}
    for generator in GENERATORS:
        for path, text in generator().items():
            if path in files:
                raise ValueError(f"{path} is generated twice: give one of them another name in GENERATORS")
            files[path] = text
    return files


def drifted(root: Path) -> list[Path]:
    """The generated files that differ from what the code says, or are missing."""
    return [path for path, text in generated().items() if _read(root / path) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 and name the files that differ.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The repository; the current folder when left out.",
)
def generate(check: bool, root: Path) -> None:
    """Write CRDs and reference pages from the models. For developers, in a checkout."""
    if not (root / "operator" / "modeltiers").is_dir():
        raise click.UsageError(f"{root.resolve()} is not a checkout of modeltiers: change into one, or use --root")
    changed = drifted(root)
    if check and changed:
        listed = "\n".join(f"  {path}" for path in changed)
        click.echo(f"These files differ from what the code says; run make generate and review:\n{listed}", err=True)
        raise SystemExit(1)
    texts = generated()
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts[path], encoding="utf-8")
        click.echo(f"wrote {path}")


if __name__ == "__main__":
    generate()
