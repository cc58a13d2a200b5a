"""The values of the Helm chart: what an administrator decides about the installation itself.

The settings file's model is one of them, as it is. Schema, defaults and reference page of the chart are generated from
here. It refuses to know how the templates use them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from modeltiers.api.base import Model
from modeltiers.api.fields import LabelKey, LabelValue, ObjectName, Quantity
from modeltiers.api.modeltier import Toleration
from modeltiers.api.schema import anything
from modeltiers.api.settings import ProfileEnv, Settings

Registry = Annotated[str, Field(max_length=253, pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?)?$")]
Folder = Annotated[str, Field(max_length=253, pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]*[a-z0-9])?)?$")]
Duration = Annotated[str, Field(max_length=16, pattern=r"^([0-9]+(ms|s|m|h))+$")]
Annotations = dict[LabelKey, Annotated[str, Field(max_length=4096)]]
Wish = Literal["Auto", "Always", "Never"]


class ImageParts(Model):
    """An image by its parts. Without a repository it is in nobody's settings, and what needs it does not run."""

    registry: Registry = ""
    """Host, and port if it has one, of the registry."""
    repository: str = Field(default="", max_length=255, pattern=r"^([a-z0-9]+([._/-]+[a-z0-9]+)*)?$")
    """Path in the registry."""
    tag: str = Field(default="", max_length=128, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
    """Tag; the chart's appVersion when empty. Of no effect beside a digest."""
    digest: str = Field(default="", max_length=71, pattern=r"^(sha256:[a-f0-9]{64})?$")
    """Digest, which pins the image: `sha256:` and 64 hexadecimal digits."""


def _ours(name: str) -> ImageParts:
    return ImageParts(registry="localhost", repository=f"modeltiers/{name}")


class Images(Model):
    """Every image that the chart, or the operator after it, runs. Nobody publishes ours: build them from `images/`."""

    registry: Folder = ""
    """A registry, or a folder in one, that has all of them: put in the place of each image's own registry."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the operator's image is pulled."""
    pull_secrets: list[ObjectName] = Field(default=[], max_length=8)
    """Secrets to pull with: in the operator's namespace for the operator, and of the same names in each namespace of
    tiers for what it runs there."""
    operator: ImageParts = _ours("operator")
    """The operator, and the pod of `helm test`."""
    router: ImageParts = _ours("router")
    """The router before every engine, and the routers of gateways and external tiers."""
    distill: ImageParts = _ours("distill")
    """The stages of DistillJobs that move data and ask models."""
    train: ImageParts = _ours("train")
    """The training stage of DistillJobs."""
    engine: ImageParts = ImageParts(registry="docker.io", repository="vllm/vllm-openai", tag="v0.32.0")
    """The engine of tiers that name no profile."""


class Resources(Model):
    """Requests and limits of a container."""

    requests: dict[LabelKey, Quantity] = Field(default={"cpu": "100m", "memory": "256Mi"}, max_length=16)
    """What the scheduler sets aside."""
    limits: dict[LabelKey, Quantity] = Field(default={"memory": "512Mi"}, max_length=16)
    """What it may not exceed."""


class Operator(Model):
    """The operator's own Deployment."""

    replicas: int = Field(default=2, ge=0, le=9)
    """Replicas. They elect a leader by a Lease; one writes, the others are ready with the whole picture."""
    resources: Resources = Resources()
    """What one replica may take. It reads everything once at the start; a thousand tiers take 200 MiB."""
    env: list[ProfileEnv] = Field(default=[], max_length=64)
    """More environment variables, for example of a proxy."""
    pod_labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=32)
    """More labels on its pods."""
    pod_annotations: Annotations = Field(default={}, max_length=32)
    """More annotations on its pods."""
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, max_length=32)
    """Labels of nodes that it may run on."""
    tolerations: list[Toleration] = Field(default=[], max_length=32)
    """Taints that it puts up with."""
    affinity: dict[str, Any] = Field(default={}, json_schema_extra=anything())
    """Affinity, as in a pod's spec."""
    spread: Literal["Prefer", "Require", "Off"] = "Prefer"
    """Whether replicas are on nodes of their own."""
    priority_class_name: str = Field(default="", max_length=253)
    """Its priority class. Without it no tier is healed or routed anew: one above that of tiers is a good choice."""
    disruption_budget: bool = True
    """Whether a drain takes one replica at a time, where there is more than one."""


class OperatorNetwork(Model):
    """The NetworkPolicy of the operator's own pods; that of tiers, gateways and jobs is in `settings.network`."""

    enabled: bool = True
    """Whether there is one."""
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default=[443, 6443, 8443], max_length=16)
    """Ports that the operator may call: those of API servers by their own addresses, not by the Service's."""


class Crds(Model):
    """The CustomResourceDefinitions, which are templates so that an upgrade reaches them."""

    enabled: bool = True
    """Whether this chart has them. Turn it off where somebody else applies `crds/` or installs `modeltiers-crds`."""
    keep: bool = True
    """Whether they, and so every ModelTier, RoutingPolicy and DistillJob, outlive the release."""


class Monitoring(Model):
    """What Prometheus and Grafana are told. `Auto` is: when the cluster serves the kind. `Always` and `Never` do not
    ask, which suits `helm template` without a cluster."""

    service_monitor: Wish = "Auto"
    """Scraping the operator (monitoring.coreos.com/v1)."""
    pod_monitor: Wish = "Auto"
    """Scraping routers and engines (monitoring.coreos.com/v1). Admit Prometheus in `settings.network.monitoring`."""
    prometheus_rule: Wish = "Auto"
    """Alerts (monitoring.coreos.com/v1)."""
    dashboards: Wish = "Auto"
    """Dashboards as ConfigMaps for Grafana's sidecar; `Auto` when there are Prometheus' kinds."""
    grafana_dashboards: Wish = "Auto"
    """Dashboards for the Grafana operator (grafana.integreatly.org/v1beta1)."""
    interval: Duration = "30s"
    """Between two scrapes."""
    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=16)
    """More labels on these objects, for example the `release` that a Prometheus looks for."""
    dashboard_labels: dict[LabelKey, LabelValue] = Field(default={"grafana_dashboard": "1"}, max_length=16)
    """Labels by which Grafana's sidecar finds the ConfigMaps."""
    dashboard_annotations: Annotations = Field(default={}, max_length=16)
    """Annotations of the ConfigMaps, for example the folder in Grafana."""


class Values(Model):
    """What an administrator decides about the installation. What is not listed here is refused."""

    images: Images = Images()
    """Every image that the chart, or the operator after it, runs. Nobody publishes ours: build them from `images/`."""
    operator: Operator = Operator()
    """The operator's own Deployment."""
    network_policy: OperatorNetwork = OperatorNetwork()
    """The NetworkPolicy of the operator's own pods; that of tiers, gateways and jobs is in `settings.network`."""
    monitoring: Monitoring = Monitoring()
    """What Prometheus and Grafana are told. `Auto` is: when the cluster serves the kind. `Always` and `Never` do not
    ask, which suits `helm template` without a cluster."""
    crds: Crds = Crds()
    """The CustomResourceDefinitions, which are templates so that an upgrade reaches them."""
    settings: Settings = Settings()
    """The administrator's settings, as in the settings file (docs/reference/settings.md). With `watchNamespaces` the
    chart grants Roles in these namespaces and nothing in the whole cluster. Images left out come from `images`."""
