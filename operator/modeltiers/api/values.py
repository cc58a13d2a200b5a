"""The values of the Helm chart: what an administrator decides about the installation itself.

The settings file's model is one of them, as it is. Schema, defaults and reference page of the chart are generated from
here. It refuses to know how the templates use them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modeltiers.api.base import Model
from modeltiers.api.fields import LabelKey, ObjectName, Quantity
from modeltiers.api.settings import Settings


class ImageParts(Model):
    """An image by its parts. Left without a repository it is in nobody's settings, and what needs it does not run."""

    registry: str = Field(default="", max_length=253, pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?)?$")
    """Host, and port if it has one, of the registry."""
    repository: str = Field(default="", max_length=255, pattern=r"^([a-z0-9]+([._/-]+[a-z0-9]+)*)?$")
    """Path in the registry."""
    tag: str = Field(default="", max_length=128, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
    """Tag; the chart's appVersion when empty. Of no effect beside a digest."""
    digest: str = Field(default="", max_length=71, pattern=r"^(sha256:[a-f0-9]{64})?$")
    """Digest. Pin every image by it in production."""


def _ours(name: str) -> ImageParts:
    return ImageParts(registry="localhost", repository=f"modeltiers/{name}")


class Images(Model):
    """Every image that the chart, or the operator after it, runs. Build ours from `images/`: nobody publishes them."""

    registry: str = Field(default="", max_length=253, pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]*[a-z0-9])?)?$")
    """A registry, or a folder of one, that has all of them: put in place of each image's own registry."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the operator's image is pulled."""
    pull_secrets: list[ObjectName] = Field(default=[], max_length=8)
    """Secrets to pull with: in the operator's namespace for the operator, and of the same names in each namespace of
    tiers for what it runs there."""
    operator: ImageParts = _ours("operator")
    """The operator."""
    router: ImageParts = _ours("router")
    """The router before every engine, and the routers of gateways and external tiers."""


class Resources(Model):
    """Requests and limits of a container."""

    requests: dict[LabelKey, Quantity] = Field(default={"cpu": "100m", "memory": "256Mi"}, max_length=16)
    """What the scheduler sets aside."""
    limits: dict[LabelKey, Quantity] = Field(default={"memory": "512Mi"}, max_length=16)
    """What it may not exceed."""


class Operator(Model):
    """The operator's own Deployment."""

    replicas: int = Field(default=1, ge=0, le=9)
    """Replicas. They elect a leader by a Lease; one writes, the others are ready with the whole picture."""
    resources: Resources = Resources()
    """What one replica may take. It reads everything once at the start; a thousand tiers take 200 MiB."""


class Crds(Model):
    """The CustomResourceDefinitions, which are templates so that an upgrade reaches them."""

    enabled: bool = True
    """Whether this chart has them. Turn it off where somebody else applies `crds/` or installs `modeltiers-crds`."""
    keep: bool = True
    """Whether they, and so every ModelTier, RoutingPolicy and DistillJob, outlive the release."""


class Values(Model):
    """Values of the chart. What is not listed here is refused at install."""

    images: Images = Images()
    """Every image that the chart, or the operator after it, runs."""
    operator: Operator = Operator()
    """The operator's own Deployment."""
    crds: Crds = Crds()
    """The CustomResourceDefinitions."""
    settings: Settings = Settings()
    """The administrator's settings, as in the settings file. `watchNamespaces` makes the chart grant Roles in these
    namespaces and nothing in the whole cluster. Images left out here come from `images`."""
