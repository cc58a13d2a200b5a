"""The engine that serves a model for its test: rendered as a tier's is, but on loopback and without a router."""

from __future__ import annotations

from typing import Final

from modeltiers import names
from modeltiers.api.model import ModelSource, Weights
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain.asks import size
from modeltiers.domain.catalogue import Catalogue
from modeltiers.domain.sizing import NoFit
from modeltiers.domain.views import NodeView
from modeltiers.render.distilljob import Engine
from modeltiers.render.engine import render_template

SERVED: Final = "under-test"
"""Name that the model under test is asked by."""
URL: Final = f"http://127.0.0.1:{names.ENGINE_PORT}/v1"
_LEFT_OUT: Final = ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle")


def render_engine(
    spec: ModelTierSpec,
    weights: Weights,
    known: Catalogue,
    nodes: tuple[NodeView, ...] | None,
    settings: Settings,
) -> Engine | NoFit:
    """The engine of a tier with other weights; `nodes` is None where nodes may not be seen."""
    model = ModelSource(**dict(weights), served_name=SERVED)
    tested = spec.model_copy(update={"model": model, "replicas": 1, "autoscaling": None, "candidate": None})
    plan = size(tested, known, nodes, settings)
    if isinstance(plan, NoFit):
        return plan
    alone = settings.model_copy(update={"router": settings.router.model_copy(update={"image": None})})
    pod = render_template(SERVED, tested, plan, alone)["spec"]
    whole = pod["containers"][0]
    container = {name: value for name, value in whole.items() if name not in _LEFT_OUT}
    # The kubelet cannot reach loopback: the stage beside it waits until it answers, and says so when it does not.
    container["args"] = [container["args"][0], "--host=127.0.0.1", *container["args"][1:]]
    container["volumeMounts"] = [{**one, "name": _own(one["name"])} for one in container["volumeMounts"]]
    user = pod["securityContext"]["runAsUser"]
    container["securityContext"] = {**container["securityContext"], "runAsUser": user, "runAsGroup": user}
    return Engine(
        serves=container["args"][0],
        container=container,
        volumes=[{**one, "name": _own(one["name"])} for one in pod["volumes"]],
        node_selector=pod["nodeSelector"],
        tolerations=pod["tolerations"],
    )


def _own(volume: str) -> str:
    return f"engine-{volume}"
