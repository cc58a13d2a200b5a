"""The pod of a tier: the engine with its probes, volumes and environment, and the router before it.

Every user value becomes one list item or one map value; nothing is ever pasted into a text that something parses
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import EngineProfile, ProfileEnv, ProfileMount, RouterDefaults, Settings
from modeltiers.domain import footprint
from modeltiers.domain.distill.following import is_package
from modeltiers.domain.sizing import Plan
from modeltiers.render import sidecar

Manifest = dict[str, Any]

HOME: Final = (
    "/home/vllm"  # the image's own user has it as home; it is a fresh volume here, since the root is read-only
)
CACHE: Final = "/cache"
MODEL: Final = "/model"
PRESTOP_SECONDS: Final = 5  # endpoints need a moment to forget the pod before the engine stops taking requests
AFTER_DRAIN_SECONDS: Final = 2  # what a drain that ran out of time left is cut, truthfully, by the router
EXIT_SECONDS: Final = 15  # the engine's own shutdown after the last answer, which may hang for a while (vLLM 0.32)
_PERIOD: Final = 10


def render_template(
    name: str, spec: ModelTierSpec, plan: Plan, settings: Settings, revision: str = names.FIRST_REVISION
) -> Manifest:
    """The pod template of a tier's revision: what the record keeps."""
    profile = profile_of(spec, settings)
    needs = footprint_of(spec, plan)
    volumes, mounts = _volumes(spec, profile, needs)
    pod: Manifest = {
        "serviceAccountName": names.service_account(name),
        "automountServiceAccountToken": False,
        # A Service called `vllm` would otherwise set VLLM_PORT, and the engine refuses to start (vllm envs.py).
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _grace_seconds(spec, settings),
        "securityContext": _pod_security(profile, settings),
        "nodeSelector": {**_node_selector(spec), plan.device.product_label: plan.device.product},
        "tolerations": _tolerations(spec, plan.device.resource, settings),
        "containers": [_engine(name, spec, plan, settings, needs, mounts)],
        "volumes": volumes,
    }
    inits = _verifier(spec, settings)
    if settings.router.image:
        inits.append(sidecar.container(name, router_of(spec, settings), revision))
        pod["volumes"] = [*volumes, *sidecar.volumes(name)]
    if inits:
        pod["initContainers"] = inits
    if settings.engine.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.engine.pull_secrets]
    if spec.scheduling and spec.scheduling.priority_class_name:
        pod["priorityClassName"] = spec.scheduling.priority_class_name
    if spec.scheduling and spec.scheduling.runtime_class_name:
        pod["runtimeClassName"] = spec.scheduling.runtime_class_name
    labels = {**names.tier_labels(name), names.LABEL_REVISION: revision, names.LABEL_COMPONENT: "engine"}
    # Without it a new token would change nothing that a Deployment rolls for, when nothing is newer.
    token = {"annotations": {names.ANNOTATION_ROLLOUT: spec.rollout_token}} if spec.rollout_token else {}
    return {"metadata": {"labels": labels, **token}, "spec": pod}


def image_of(spec: ModelTierSpec, settings: Settings) -> str:
    """The engine image: the tier's own, else its profile's, else the administrator's default."""
    profile = profile_of(spec, settings)
    return (spec.serving and spec.serving.image) or profile.image or settings.engine.image


def router_of(spec: ModelTierSpec, settings: Settings) -> RouterDefaults:
    """The router before the engine: the administrator's, but for what the tier says otherwise."""
    own = spec.serving.router if spec.serving else None
    return settings.router.model_copy(update=own.model_dump(exclude_none=True) if own else {})


def profile_of(spec: ModelTierSpec, settings: Settings) -> EngineProfile:
    """The engine profile that the tier names; an empty one when it names none."""
    name = spec.serving.profile if spec.serving else None
    return settings.engine_profiles[name] if name else EngineProfile()


def engine_args(name: str, spec: ModelTierSpec, plan: Plan, settings: Settings) -> list[str]:
    """Arguments of `vllm serve`, one list item a flag: the operator's, the profile's, then the tier's."""
    model = spec.model
    assert model is not None, "only a tier with a model has an engine"
    source = _model_path(model.source) if model.source.startswith("pvc://") else model.source.removeprefix("hf://")
    args = [
        source,
        f"--served-model-name={model.served_name or name}",
        *(["--host=127.0.0.1"] if settings.router.image else []),
        f"--port={names.ENGINE_PORT}",
        f"--tensor-parallel-size={plan.tensor_parallel}",
        f"--pipeline-parallel-size={plan.pipeline_parallel}",
        f"--max-model-len={plan.max_model_len}",
        f"--max-num-seqs={plan.max_num_seqs}",
        f"--max-num-batched-tokens={plan.max_num_batched_tokens}",
        f"--gpu-memory-utilization={_decimal(plan.gpu_memory_utilization_permille)}",
        f"--shutdown-timeout={_engine_shutdown_seconds(spec, settings)}",
    ]
    if model.revision:
        args += [f"--revision={model.revision}", f"--tokenizer-revision={model.revision}"]
    if model.quantization == "FP8":
        args.append("--quantization=fp8")
    if model.kv_cache_dtype == "FP8":
        args.append("--kv-cache-dtype=fp8")
    if plan.expert_parallel:
        args.append("--enable-expert-parallel")
    own = spec.serving.args if spec.serving else []
    return [*args, *profile_of(spec, settings).args, *own]


def _verifier(spec: ModelTierSpec, settings: Settings) -> list[Manifest]:
    """What checks a student's package before its engine starts; nothing where no key is trusted, or another model."""
    model, keys, image = spec.model, settings.distill.public_keys, settings.distill.image
    if model is None or not keys or image is None or not is_package(model):
        return []
    folder = _model_path(model.source)
    signature = f"{folder.removesuffix('/model')}/{names.PACKAGE_SIGNATURE}"
    return [
        {
            "name": names.VERIFY_CONTAINER,
            "image": image,
            "args": ["verify", f"--model={folder}", f"--signature={signature}"],
            "env": [{"name": names.PUBLIC_KEYS_ENV, "value": "\n".join(keys)}, {"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a path in the container, on a volume of its own
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": dict(sidecar.HARDENED),
            "volumeMounts": [
                {"name": "model", "mountPath": MODEL, "readOnly": True},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - likewise
            ],
        }
    ]


def _model_path(source: str) -> str:
    _, _, path = source.removeprefix("pvc://").partition("/")
    return f"{MODEL}/{path}" if path else MODEL


def _decimal(permille: int) -> str:
    return f"{permille // 1000}.{permille % 1000:03d}".rstrip("0").rstrip(".")


def _engine(
    name: str,
    spec: ModelTierSpec,
    plan: Plan,
    settings: Settings,
    needs: footprint.Footprint,
    mounts: Sequence[Manifest],
) -> Manifest:
    profile = profile_of(spec, settings)
    container: Manifest = {
        "name": names.ENGINE_CONTAINER,
        "image": image_of(spec, settings),
        "args": engine_args(name, spec, plan, settings),
        "env": _environment(spec, profile, needs),
        **_exposed(settings),
        "resources": _resources(spec, profile, plan, needs),
        **_watched(spec, settings, needs),
        # The last log lines become the container's status when it fails: the operator needs no right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": list(mounts),
    }
    if profile.command:
        container["command"] = list(profile.command)
    return container


def _exposed(settings: Settings) -> Manifest:
    if settings.router.image:
        return {}  # it listens on loopback
    return {"ports": [{"name": names.ENGINE_PORT_NAME, "containerPort": names.ENGINE_PORT, "protocol": "TCP"}]}


def _watched(spec: ModelTierSpec, settings: Settings, needs: footprint.Footprint) -> Manifest:
    """How the engine is probed and drained: through the router before it, or by itself."""
    startup = -(-needs.startup_seconds // _PERIOD)
    if settings.router.image:
        return {
            "startupProbe": sidecar.probe("/engine/health", period=_PERIOD, failures=startup),
            # The canary's first token on cold caches takes as long as it takes: readiness waits, nothing restarts.
            "readinessProbe": sidecar.probe("/readyz", period=5, failures=3),
            "livenessProbe": sidecar.probe("/engine/health", period=_PERIOD, failures=6),
            "lifecycle": {"preStop": sidecar.drain(_shutdown_seconds(spec))},
        }
    return {
        "startupProbe": _probe(failures=startup),
        "readinessProbe": _probe(period=5, failures=3),
        "livenessProbe": _probe(failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRESTOP_SECONDS}}},
    }


def _engine_shutdown_seconds(spec: ModelTierSpec, settings: Settings) -> int:
    """How long the engine waits for answers in flight once it is told to end; behind a router they were waited for."""
    return AFTER_DRAIN_SECONDS if settings.router.image else _shutdown_seconds(spec)


def _grace_seconds(spec: ModelTierSpec, settings: Settings) -> int:
    """The router's drain, or the pause for endpoints to forget the pod; then the engine's own end."""
    before = _shutdown_seconds(spec) if settings.router.image else PRESTOP_SECONDS
    return before + _engine_shutdown_seconds(spec, settings) + EXIT_SECONDS


def _probe(failures: int, period: int = _PERIOD) -> Manifest:
    return {
        "httpGet": {"path": "/health", "port": names.ENGINE_PORT_NAME, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _environment(spec: ModelTierSpec, profile: EngineProfile, needs: footprint.Footprint) -> list[Manifest]:
    own: dict[str, Manifest] = {
        "HOME": {"value": HOME},
        # torch asks for the user's name at import and stops when the image does not know the uid; this answers first.
        "USER": {"value": "vllm"},
        "HF_HOME": {"value": f"{CACHE}/huggingface"},
        "VLLM_CACHE_ROOT": {"value": f"{CACHE}/vllm"},
        "VLLM_ENGINE_READY_TIMEOUT_S": {"value": str(needs.startup_seconds)},
        "VLLM_NO_USAGE_STATS": {"value": "1"},
    }
    if spec.model and spec.model.token_secret_ref:
        own["HF_TOKEN"] = _from_secret(spec.model.token_secret_ref.name, spec.model.token_secret_ref.key)
    variables: list[Any] = [*profile.env, *(spec.serving.env if spec.serving else [])]
    for variable in variables:
        own[variable.name] = value_of(variable)
    return [{"name": name, **source} for name, source in own.items()]


def value_of(variable: ProfileEnv) -> Manifest:
    """Where an environment variable has its value from."""
    if variable.secret_key_ref:
        return _from_secret(variable.secret_key_ref.name, variable.secret_key_ref.key)
    # `$(NAME)` in a value would be expanded by the kubelet; doubling the dollar keeps it as written.
    return {"value": (variable.value or "").replace("$(", "$$(")}


def _from_secret(name: str, key: str) -> Manifest:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _resources(spec: ModelTierSpec, profile: EngineProfile, plan: Plan, needs: footprint.Footprint) -> Manifest:
    wanted = spec.serving.resources if spec.serving else None
    memory = (wanted and wanted.memory) or profile.memory
    cpu = (wanted and wanted.cpu) or profile.cpu
    gpus = {plan.device.resource: str(plan.gpus)}
    return {
        # No CPU limit: throttling an engine's scheduler thread stalls every stream it serves.
        "requests": {"cpu": cpu or millis(needs.cpu_millis), "memory": memory or binary(needs.memory_request), **gpus},
        "limits": {"memory": memory or binary(needs.memory_limit), **gpus},
    }


def _volumes(
    spec: ModelTierSpec, profile: EngineProfile, needs: footprint.Footprint
) -> tuple[list[Manifest], list[Manifest]]:
    cache = spec.serving.cache if spec.serving else None
    volumes: list[Manifest] = [
        {"name": "home", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # Rings between ranks and NCCL's buffers; the container's default of 64 MiB is too small. Counts as memory.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": binary(needs.shm)}},
        {"name": "cache", "persistentVolumeClaim": {"claimName": cache.claim_name}}
        if cache
        else {"name": "cache", "emptyDir": {"sizeLimit": binary(needs.disk)}},
    ]
    mounts: list[Manifest] = [
        {"name": "home", "mountPath": HOME},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container, on a volume of its own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - likewise
        {"name": "cache", "mountPath": CACHE},
    ]
    if spec.model and spec.model.source.startswith("pvc://"):
        claim = spec.model.source.removeprefix("pvc://").partition("/")[0]
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "model", "mountPath": MODEL, "readOnly": True})
    for mount in profile.mounts:
        volumes.append(profile_volume(mount))
        mounts.append({"name": f"p-{mount.name}", "mountPath": mount.path, "readOnly": mount.read_only})
    return volumes, mounts


def profile_volume(mount: ProfileMount) -> Manifest:
    """The volume that an administrator mounts."""
    if mount.claim_name:
        claim = {"claimName": mount.claim_name, "readOnly": mount.read_only}
        return {"name": f"p-{mount.name}", "persistentVolumeClaim": claim}
    return {"name": f"p-{mount.name}", "configMap": {"name": mount.config_map_name}}


def _pod_security(profile: EngineProfile, settings: Settings) -> Manifest:
    user = profile.run_as_user or settings.engine.run_as_user
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _node_selector(spec: ModelTierSpec) -> dict[str, str]:
    return dict(spec.scheduling.node_selector) if spec.scheduling else {}


def _tolerations(spec: ModelTierSpec, resource: str, settings: Settings) -> list[Manifest]:
    tolerations: list[Manifest] = []
    if resource in settings.gpu_taints:
        value = settings.gpu_taints[resource]
        match = {"operator": "Equal", "value": value} if value else {"operator": "Exists"}
        tolerations.append({"key": resource, "effect": "NoSchedule", **match})
    if spec.scheduling:
        tolerations += [item.model_dump(by_alias=True, exclude_none=True) for item in spec.scheduling.tolerations]
    return tolerations


def _shutdown_seconds(spec: ModelTierSpec) -> int:
    return spec.serving.shutdown_seconds if spec.serving else 120


def footprint_of(spec: ModelTierSpec, plan: Plan) -> footprint.Footprint:
    """What a pod of a plan needs beside its accelerators."""
    startup_seconds = spec.serving.startup_seconds if spec.serving else None
    return footprint.of(plan.weight_bytes, plan.gpus, startup_seconds)


def binary(amount: int) -> str:
    """Bytes in the largest binary unit that divides them: the spelling that the API server keeps."""
    for shift, unit in ((40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")):
        if amount and amount % (1 << shift) == 0:
            return f"{amount >> shift}{unit}"
    return str(amount)


def millis(amount: int) -> str:
    """Thousandths in the spelling that the API server keeps."""
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
