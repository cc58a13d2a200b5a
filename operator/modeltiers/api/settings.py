"""The administrator's one settings file: images, engine profiles, limits, allowed external hosts.

It is data like the resources are, so it is modelled like them; reading the file is the controllers' business.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from modeltiers.api.base import Model
from modeltiers.api.fields import LabelKey, LabelValue, Name, ObjectName, Quantity, SecretKeyRef


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))  # raises ValueError, also for bits beside the mask


# What is no network is refused where it is written: one such entry would keep a tier from being served.
Cidr = Annotated[str, Field(max_length=49), AfterValidator(_network)]


class ProfileEnv(Model):
    """One environment variable of an engine profile."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the variable."""
    value: str | None = Field(default=None, max_length=4096)
    """Plain value."""
    secret_key_ref: SecretKeyRef | None = None
    """Value from a Secret of the tier's namespace."""


class ProfileMount(Model):
    """A volume that a profile mounts into the engine, read-only unless said otherwise."""

    name: Name
    """Name of the volume."""
    path: str = Field(min_length=2, max_length=256, pattern=r"^/[A-Za-z0-9_./-]+$")
    """Where it is mounted."""
    claim_name: ObjectName | None = None
    """A PersistentVolumeClaim of the tier's namespace."""
    config_map_name: ObjectName | None = None
    """A ConfigMap of the tier's namespace."""
    read_only: bool = True
    """Whether the engine may only read it."""


class EngineProfile(Model):
    """An engine that tiers may name: image, environment, mounts. Tenants choose it, administrators write it."""

    image: str | None = Field(default=None, max_length=512)
    """Engine image; the default image when left out."""
    command: list[Annotated[str, Field(max_length=1024)]] = Field(default=[], max_length=16)
    """Entry point, for an image whose own is not vLLM's server."""
    run_as_user: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """User id that the image knows; the default's when left out."""
    env: list[ProfileEnv] = Field(default=[], max_length=64)
    """Environment variables."""
    args: list[Annotated[str, Field(max_length=1024)]] = Field(default=[], max_length=64)
    """More engine flags, before the tier's own; not checked against the allow-list."""
    mounts: list[ProfileMount] = Field(default=[], max_length=16)
    """Volumes to mount."""
    cpu: Quantity | None = None
    """CPU request instead of the computed one."""
    memory: Quantity | None = None
    """Memory request and limit instead of the computed ones."""


class EngineDefaults(Model):
    """The engine that a tier gets when it names no profile."""

    image: str = Field(default="docker.io/vllm/vllm-openai:v0.32.0", max_length=512)
    """Engine image. Pin it by digest in production."""
    run_as_user: int = Field(default=2000, ge=1, le=2**31 - 1)
    """User id that the image knows: torch looks its own user up and stops when there is none."""
    pull_secrets: list[ObjectName] = Field(default=[], max_length=8)
    """Image pull Secrets, looked up in the tier's namespace."""


class RouterDefaults(Model):
    """The router that stands before every engine, in the engine's pod."""

    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Router image. Left out, no router is put before engines: their port is reached directly, and policies have no
    effect. Pin it by digest in production."""
    cpu: Quantity = "100m"
    """CPU request of one router."""
    memory: Quantity = "256Mi"
    """Memory request and limit of one router."""
    gateway_cpu: Quantity = "500m"
    """CPU request of one router of a gateway, of which `spec.gateway.cpuPercent` of its policy is a share."""
    egress_replicas: int = Field(default=2, ge=1, le=100)
    """Routers before each external API; they alone hold its key."""
    entry_return_seconds: int = Field(default=30, ge=0, le=3600)
    """How long a lower tier must have been ready on end before the requests of a policy enter there again. They leave a
    tier at once when none of its pods is ready."""


class ScrubHook(Model):
    """A program that replaces personal data in texts; it runs beside Snapshot, on loopback (docs/data.md)."""

    image: str = Field(min_length=1, max_length=512)
    """Its image. Pin it by digest; another one under the same name does not scrub anew what was scrubbed."""
    args: list[Annotated[str, Field(max_length=1024)]] = Field(default=[], max_length=64)
    """Its arguments."""
    env: list[ProfileEnv] = Field(default=[], max_length=64)
    """Environment variables."""
    port: int = Field(default=8790, ge=1024, le=65535)
    """Where it listens."""
    cpu: Quantity = "250m"
    """CPU request."""
    memory: Quantity = "1Gi"
    """Memory request and limit."""


class DistillDefaults(Model):
    """The programs that run in the pods of DistillJobs."""

    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of the stages that move data and ask models. Left out, DistillJobs do not run. Pin it by digest."""
    train_image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of the training stage; `image` when left out, which must then have what training needs."""
    train_env: list[ProfileEnv] = Field(default=[], max_length=64)
    """Environment variables of the training stage."""
    train_mounts: list[ProfileMount] = Field(default=[], max_length=16)
    """Volumes to mount into the training stage."""
    signing_key: SecretKeyRef | None = None
    """Private key (PEM, elliptic curve) that packages are signed with: a Secret of this name in each namespace that
    runs DistillJobs, mounted into the pods of the packaging stage alone. Left out: nothing is signed."""
    public_keys: list[Annotated[str, Field(max_length=2048, pattern=r"^-----BEGIN PUBLIC KEY-----")]] = Field(
        default=[], max_length=16
    )
    """Public keys (PEM) of those whose packages may be served. Tiers that follow a DistillJob check before each start
    of an engine. Left out: nothing is checked."""
    scrubbers: dict[Name, ScrubHook] = Field(default={}, max_length=16)
    """Programs that DistillJobs may name to scrub their rows with."""
    cpu: Quantity = "250m"
    """CPU request of a stage."""
    memory: Quantity = "1Gi"
    """Memory request and limit of a stage."""
    train_cpu: Quantity = "1"
    """CPU request of training."""
    train_memory: Quantity = "8Gi"
    """Memory request and limit of training."""
    progress_seconds: int = Field(default=5, ge=1, le=600)
    """Between two looks at a running stage, and so the least time between two writes of its progress."""


class FactsSettings(Model):
    """How the operator learns what requests met, for the status of policies."""

    read_seconds: int = Field(default=30, ge=1, le=600)
    """Between two readings of all routers."""
    window_seconds: int = Field(default=3600, ge=60, le=86_400)
    """Time over which shares, rates and costs are worked out."""
    write_seconds: int = Field(default=60, ge=1, le=3600)
    """Least time between two writes of a policy's status that only have new numbers."""


class Peer(Model):
    """Pods that may connect."""

    namespace: ObjectName | None = None
    """Their namespace; the tier's own when left out."""
    pod_labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=16)
    """Labels that they have; every pod of the namespace when empty."""


class Network(Model):
    """Who may connect to routers. It takes a network plugin that enforces NetworkPolicies."""

    policies: bool = True
    """Whether the operator writes NetworkPolicies for what it runs."""
    clients: list[Peer] = Field(default=[], max_length=64)
    """Who may ask for models; everybody when empty. Routers of the same namespace always may."""
    monitoring: list[Peer] = Field(default=[], max_length=16)
    """Who may read metrics from the admin port, for example Prometheus. The operator always may."""


class Limits(Model):
    """What no tier may exceed."""

    max_gpus_per_replica: int = Field(default=64, ge=1, le=4096)
    """Most accelerators one replica may take."""
    max_replicas: int = Field(default=100, ge=1, le=1000)
    """Most replicas a tier may ask for."""
    unschedulable_deadline_seconds: int = Field(default=900, ge=10, le=86_400)
    """How long pods may wait for a node before the tier is Stalled. Node autoscalers need minutes from zero."""


class KnownAccelerator(Model):
    """An accelerator that the bundled table lacks, or has wrong for this cluster."""

    product: str = Field(min_length=1, max_length=63)
    """Value of the node's product label."""
    memory: Quantity
    """Memory of one accelerator as the driver reports it."""
    gpus_per_node: int = Field(ge=1, le=64)
    """Accelerators on one node."""
    product_label: LabelKey | None = None
    """Node label that carries the product."""
    resource: LabelKey | None = None
    """Extended resource it is requested by."""


class ExternalHost(Model):
    """A host that external tiers may call."""

    host: str = Field(min_length=1, max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Host name, or `*.domain` for every name below a domain."""
    private: bool = False
    """Whether its addresses may be private ones, for example a Service of this cluster."""
    cidrs: list[Cidr] = Field(default=[], max_length=64)
    """Addresses that the NetworkPolicy of its tiers opens, since a policy cannot name a host. Left out: of a Service
    of this cluster the pods of its namespace; of other hosts the URL's port at every address that is neither private
    nor a cloud's metadata; with `private` also at private ones."""


class GatewayRef(Model):
    """A Gateway of Gateway API that policies may be exported through."""

    name: ObjectName
    """Name of the Gateway."""
    namespace: ObjectName | None = None
    """Its namespace; the policy's own when left out."""
    section_name: str | None = Field(default=None, min_length=1, max_length=253)
    """One of its listeners; all of them when left out."""


class Settings(Model):
    """Everything an administrator decides for the operator."""

    watch_namespaces: list[ObjectName] = Field(default=[], max_length=1000)
    """Namespaces to work in; all of them when empty (needs a ClusterRole)."""
    engine: EngineDefaults = EngineDefaults()
    """The engine that a tier gets when it names no profile."""
    router: RouterDefaults = RouterDefaults()
    """The router that stands before every engine."""
    distill: DistillDefaults = DistillDefaults()
    """The programs that run in the pods of DistillJobs."""
    network: Network = Network()
    """Who may connect to routers."""
    facts: FactsSettings = FactsSettings()
    """How the operator learns what requests met."""
    engine_profiles: dict[Name, EngineProfile] = Field(default={}, max_length=64)
    """Engines that tiers may name."""
    allowed_images: list[Annotated[str, Field(max_length=512)]] = Field(default=[], max_length=64)
    """Image prefixes that `spec.serving.image` may begin with; none may be chosen when empty."""
    accelerators: list[KnownAccelerator] = Field(default=[], max_length=64)
    """Accelerators that the bundled table lacks."""
    gpu_taints: dict[LabelKey, LabelValue] = Field(default={"nvidia.com/gpu": "", "amd.com/gpu": ""}, max_length=16)
    """Taint keys of GPU nodes, tolerated by tiers whose resource has the same name; an empty value tolerates any."""
    limits: Limits = Limits()
    """What no tier may exceed."""
    external_hosts: list[ExternalHost] = Field(default=[], max_length=256)
    """Hosts that external tiers may call; none when empty."""
    gateways: dict[Name, GatewayRef] = Field(default={}, max_length=64)
    """Gateways that policies may name in `spec.export.gateway`; none when empty."""
    workers: int = Field(default=8, ge=1, le=64)
    """Objects reconciled at once."""
