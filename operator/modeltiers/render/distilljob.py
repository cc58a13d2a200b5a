"""The objects of a DistillJob: the plan, an account without rights, and the Job of the stage that is to run.

A Job is written once and never changed: what would change it has another digest, and so another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from modeltiers import names
from modeltiers.api.distilljob import ArtifactStore, DistillJobSpec, JobScheduling, StageResources, Training
from modeltiers.api.fields import SecretKeyRef
from modeltiers.api.model import Weights
from modeltiers.api.settings import ProfileMount, ScrubHook, Settings
from modeltiers.domain.diff import digest, sealed
from modeltiers.domain.distill.admission import JUDGE_KEY_FILE, KEY_FILE
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import ASKS_TEACHER, Next, Outcome, Stage, asks_judge, before
from modeltiers.render import network, parts
from modeltiers.render.engine import profile_volume, value_of
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner
from modeltiers.render.sidecar import HARDENED

Manifest = dict[str, Any]

USER: Final = 65532
PLAN: Final = "/etc/modeltiers/plan"
PLAN_FILE: Final = "plan.json"
STORE: Final = "/store"
SOURCES: Final = "/sources"
MODELS: Final = "/models"
TEACHER_KEY: Final = str(PurePosixPath(KEY_FILE).parent)
JUDGE_KEY: Final = str(PurePosixPath(JUDGE_KEY_FILE).parent)
SIGNING_KEY: Final = "/etc/modeltiers/signing"
GRACE_SECONDS: Final = 120
"""What a stage has to make durable what it did: a checkpoint, or the answers under way."""
FINAL_CODES: Final = (78, 79)
"""Exit codes after which another try would end alike."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that serves the model under test beside a stage: its container and what that needs of the pod."""

    serves: str
    """The weights that it is given, in its own words."""
    container: Manifest
    volumes: Sequence[Manifest]
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Manifest] = ()


def render_frame(owner: Owner, plan: Plan, admitted: Admitted | None) -> list[Manifest]:
    """What all stages share, sealed."""
    labels = names.distill_labels(owner.name)
    account = parts.metadata(owner, names.distill_account(owner.name), labels)
    found = [
        parts.service_account(account),
        parts.tables(
            parts.metadata(owner, names.distill_plan(owner.name), labels),
            {PLAN_FILE: plan.model_dump_json(by_alias=True, exclude_none=True)},
        ),
    ]
    if admitted is not None:
        found.append(network.before_stages(account, {names.LABEL_DISTILL: owner.name}, admitted))
    return [sealed(one) for one in found]


def plan_hash(plan: Plan) -> str:
    """What tells one plan from another, as far as a stage that failed could end otherwise with it."""
    spec = plan.spec.model_copy(update={"suspend": False, "scheduling": None})
    return digest(plan.model_copy(update={"spec": spec}).model_dump(mode="json", by_alias=True))


def render_job(
    owner: Owner,
    plan: Plan,
    step: Next,
    outcomes: Mapping[Stage, Outcome],
    settings: Settings,
    *,
    models: Mapping[str, Weights] | None = None,
    engine: Engine | None = None,
    retry: str = "",
) -> Manifest:
    """The Job of a stage, sealed; `models` as `models_of` has them."""
    spec = plan.spec
    how = spec.scheduling or JobScheduling()
    labels = {**names.distill_labels(owner.name), names.LABEL_STAGE: step.stage.value}
    metadata = parts.metadata(owner, names.stage_job(owner.name, step.stage, step.digest), labels)
    metadata["annotations"] = {
        names.ANNOTATION_DIGEST: step.digest,
        names.ANNOTATION_PLAN: plan_hash(plan),
        **({names.ANNOTATION_RETRY: retry} if retry else {}),
    }
    if how.queue_name:
        metadata["labels"] = {**metadata["labels"], names.LABEL_QUEUE: how.queue_name}
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": how.retries,
            "ttlSecondsAfterFinished": how.retain_seconds,
            # Two pods at once would ask the teacher the same.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.STAGE_CONTAINER,
                            "operator": "In",
                            "values": list(FINAL_CODES),
                        },
                    },
                ]
            },
            **({"suspend": True} if how.queue_name else {}),
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(owner, spec, step, outcomes, settings, how, models or {}, engine),
            },
        },
    }
    return sealed(job)


def _pod(
    owner: Owner,
    spec: DistillJobSpec,
    step: Next,
    outcomes: Mapping[Stage, Outcome],
    settings: Settings,
    how: JobScheduling,
    models: Mapping[str, Weights],
    engine: Engine | None,
) -> Manifest:
    volumes, mounts = _volumes(owner, spec, step.stage, settings, models)
    pod: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": names.distill_account(owner.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, step, outcomes, settings, mounts, models)],
        "volumes": volumes,
    }
    selector = dict(how.node_selector)
    tolerations = [one.model_dump(by_alias=True, exclude_none=True) for one in how.tolerations]
    secrets = [{"name": name} for name in settings.engine.pull_secrets]
    if step.stage is Stage.SNAPSHOT and (hook := _hook(spec, settings)) is not None:
        pod["initContainers"] = [_scrubber(hook)]
    if engine is not None:
        # It starts first and is ended when the stage is done; the stage waits until it answers.
        pod["initContainers"] = [{**engine.container, "restartPolicy": "Always"}]
        # An engine that still loads would be process 1 and deaf to the signal that ends it: a stage that was found in
        # the store would wait for it as long as the grace goes.
        pod["shareProcessNamespace"] = True
        pod["volumes"] = [*volumes, *engine.volumes]
        selector, tolerations = {**selector, **engine.node_selector}, [*tolerations, *engine.tolerations]
    optional = {
        "nodeSelector": selector,
        "tolerations": tolerations,
        "imagePullSecrets": secrets,
        "priorityClassName": how.priority_class_name,
    }
    return _claims_once({**pod, **{name: value for name, value in optional.items() if value}})


def _hook(spec: DistillJobSpec, settings: Settings) -> ScrubHook | None:
    name = spec.data.scrub.hook if spec.data.scrub else None
    return settings.distill.scrubbers.get(name) if name else None


def scrubber_url(spec: DistillJobSpec, settings: Settings) -> str | None:
    """Where Snapshot finds the program that scrubs its texts; None where there is none."""
    hook = _hook(spec, settings)
    return f"http://127.0.0.1:{hook.port}/" if hook else None


def _scrubber(hook: ScrubHook) -> Manifest:
    return {
        "name": "scrubber",
        "image": hook.image,
        "args": list(hook.args),
        "env": [{"name": one.name, **value_of(one)} for one in hook.env],
        "resources": {"requests": {"cpu": hook.cpu, "memory": hook.memory}, "limits": {"memory": hook.memory}},
        "restartPolicy": "Always",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(HARDENED),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "subPath": "scrubber"}],  # noqa: S108 - in the container
    }


def _claims_once(pod: Manifest) -> Manifest:
    """One volume for each claim: were one mounted twice and once for reading, all of it could only be read.

    What may only be read is said by each mount.
    """
    kept: dict[str, Manifest] = {}
    names_of: dict[str, str] = {}
    for volume in pod["volumes"]:
        claim = volume.get("persistentVolumeClaim", {}).get("claimName", volume["name"])
        first = kept.setdefault(claim, volume)
        names_of[volume["name"]] = first["name"]
        if first is not volume and not volume["persistentVolumeClaim"].get("readOnly"):
            kept[claim] = {**first, "persistentVolumeClaim": {"claimName": claim}}

    def renamed(container: Manifest) -> Manifest:
        mounts = [{**one, "name": names_of[one["name"]]} for one in container["volumeMounts"]]
        return {**container, "volumeMounts": mounts}

    found = {**pod, "volumes": list(kept.values())}
    for kind in ("containers", "initContainers"):
        if kind in pod:
            found[kind] = [renamed(one) for one in pod[kind]]
    return found


def _container(
    spec: DistillJobSpec,
    step: Next,
    outcomes: Mapping[Stage, Outcome],
    settings: Settings,
    mounts: Sequence[Manifest],
    models: Mapping[str, Weights],
) -> Manifest:
    given = [f"--input={other.value}={_told(outcomes[other])}" for other in before(step.stage, spec)]
    training = step.stage is Stage.TRAIN
    own = settings.distill.train_env if training else []
    return {
        "name": names.STAGE_CONTAINER,
        "image": image_of(spec, step.stage, settings),
        "args": [
            "run",
            step.stage.value,
            f"--plan={PLAN}/{PLAN_FILE}",
            f"--store={address_of(spec.store)}",
            *given,
            "--result=/dev/termination-log",
            f"--port={names.ADMIN_PORT}",
        ],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a path in the container, on a volume of its own
            {"name": "HF_HOME", "value": "/tmp/huggingface"},  # noqa: S108 - likewise
            # torch asks for the user's name at import and stops when the image does not know the uid
            {"name": "USER", "value": "modeltiers"},
            *_store_env(spec.store),
            *_hub_env(models),
            *({"name": one.name, **value_of(one)} for one in own),
        ],
        "ports": [{"name": names.ADMIN_PORT_NAME, "containerPort": names.ADMIN_PORT, "protocol": "TCP"}],
        "resources": _resources(spec, training, settings),
        # The program's own report; the last lines of its log where it had no time for one.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(HARDENED),
        "volumeMounts": list(mounts),
    }


def image_of(spec: DistillJobSpec, stage: Stage, settings: Settings) -> str | None:
    """Image of a stage."""
    if stage is not Stage.TRAIN:
        return settings.distill.image
    return (spec.scheduling and spec.scheduling.image) or settings.distill.train_image or settings.distill.image


def address_of(store: ArtifactStore) -> str:
    """Where the store is, as stages reach it."""
    return store.s3 or STORE


def models_of(spec: DistillJobSpec, stage: Stage, teacher: Weights | None) -> dict[str, Weights]:
    """The models whose files a stage reads, by their role; `teacher` where it is served in this cluster."""
    if stage is Stage.PACKAGE and spec.student.trained:
        return {"trained": spec.student.trained}
    if stage is not Stage.TRAIN:
        return {}
    found = {"base": spec.student.base}
    if teacher is not None and (spec.training or Training()).method != "Sequence":
        found["teacher"] = teacher  # its tokenizer tells whether there can be soft targets
    return found


def model_path(role: str, weights: Weights) -> str:
    """Where a stage finds a model's weights: under the mount of its claim, or as the Hub names them."""
    if weights.source.startswith("hf://"):
        return weights.source
    _, _, path = weights.source.removeprefix("pvc://").partition("/")
    return f"{MODELS}/{role}/{path}" if path else f"{MODELS}/{role}"


def _told(outcome: Outcome) -> str:
    return ":".join((outcome.digest, outcome.output, *([outcome.decision] if outcome.decision else [])))


def _store_env(store: ArtifactStore) -> list[Manifest]:
    found: list[Manifest] = []
    if store.s3_endpoint:
        found.append({"name": "AWS_ENDPOINT_URL", "value": store.s3_endpoint})
    keys = {"AWS_ACCESS_KEY_ID": store.s3_access_key_id_ref, "AWS_SECRET_ACCESS_KEY": store.s3_secret_access_key_ref}
    for name, ref in keys.items():
        if ref is not None:
            found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}})
    return found


def _hub_env(models: Mapping[str, Weights]) -> list[Manifest]:
    for one in models.values():
        if (ref := one.token_secret_ref) is not None:
            return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}]
    return []


def _resources(spec: DistillJobSpec, training: bool, settings: Settings) -> Manifest:
    how = spec.scheduling or JobScheduling()
    own = (how.train if training else how.work) or StageResources()
    cpu = own.cpu or (settings.distill.train_cpu if training else settings.distill.cpu)
    memory = own.memory or (settings.distill.train_memory if training else settings.distill.memory)
    gpus = {own.gpu_resource or "nvidia.com/gpu": str(own.gpus)} if own.gpus else {}
    return {"requests": {"cpu": cpu, "memory": memory, **gpus}, "limits": {"memory": memory, **gpus}}


# --- volumes ----------------------------------------------------------------------------------------------------------


def _volumes(
    owner: Owner, spec: DistillJobSpec, stage: Stage, settings: Settings, models: Mapping[str, Weights]
) -> tuple[list[Manifest], list[Manifest]]:
    made: list[tuple[Manifest, str, bool]] = [
        (_config_map("plan", names.distill_plan(owner.name)), PLAN, True),
        ({"name": "tmp", "emptyDir": {}}, "/tmp", False),  # noqa: S108 - a path in the container
    ]
    if spec.store.claim_name:
        made.append((_claim("store", spec.store.claim_name), STORE, False))
    if stage is Stage.SNAPSHOT:
        made += _sources(spec)
    for role, weights in models.items():
        if claim := claim_of(weights):
            made.append((_claim(role, claim, read_only=True), f"{MODELS}/{role}", True))
    if stage is Stage.PACKAGE and settings.distill.signing_key:
        made.append((_secret("signing-key", settings.distill.signing_key), SIGNING_KEY, True))
    if stage in ASKS_TEACHER and spec.teacher.key_ref:
        made.append((_secret("teacher-key", spec.teacher.key_ref), TEACHER_KEY, True))
    if asks_judge(stage, spec) and spec.judge and spec.judge.key_ref:
        made.append((_secret("judge-key", spec.judge.key_ref), JUDGE_KEY, True))
    volumes, mounts = [one for one, _, _ in made], [_mount(*one) for one in made]
    for extra in settings.distill.train_mounts if stage is Stage.TRAIN else ():
        volumes.append(profile_volume(extra))
        mounts.append(_profile_mount(extra))
    return volumes, mounts


def claim_of(weights: Weights) -> str | None:
    """The claim that holds a model's weights; None for the Hub's."""
    if not weights.source.startswith("pvc://"):
        return None
    return weights.source.removeprefix("pvc://").partition("/")[0]


def _sources(spec: DistillJobSpec) -> list[tuple[Manifest, str, bool]]:
    found: list[tuple[Manifest, str, bool]] = []
    for one in spec.data.sources:
        name = f"source-{digest(one.name)[:8]}"  # two long names must not meet at 63 characters
        if one.config_map:
            volume = _config_map(name, one.config_map.name)
            volume["configMap"]["items"] = [{"key": one.config_map.key, "path": "rows.jsonl"}]
            found.append((volume, f"{SOURCES}/{one.name}", True))
        elif one.volume:
            found.append((_claim(name, one.volume.claim_name, read_only=True), f"{SOURCES}/{one.name}", True))
    return found


def source_paths(spec: DistillJobSpec) -> dict[str, str]:
    """Where Snapshot finds each source."""
    found = {}
    for one in spec.data.sources:
        if one.config_map:
            found[one.name] = f"{SOURCES}/{one.name}/rows.jsonl"
        elif one.volume:
            found[one.name] = f"{SOURCES}/{one.name}/{one.volume.path}"
        else:
            found[one.name] = one.s3 or one.hf or ""
    return found


def _config_map(volume: str, name: str) -> Manifest:
    return {"name": volume, "configMap": {"name": name}}


def _claim(volume: str, name: str, *, read_only: bool = False) -> Manifest:
    return {"name": volume, "persistentVolumeClaim": {"claimName": name, **({"readOnly": True} if read_only else {})}}


def _secret(volume: str, ref: SecretKeyRef) -> Manifest:
    items = [{"key": ref.key, "path": "key"}]
    return {"name": volume, "secret": {"secretName": ref.name, "defaultMode": 0o440, "items": items}}


def _mount(volume: Manifest, path: str, read_only: bool) -> Manifest:
    return {"name": volume["name"], "mountPath": path, **({"readOnly": True} if read_only else {})}


def _profile_mount(mount: ProfileMount) -> Manifest:
    return {"name": f"p-{mount.name}", "mountPath": mount.path, **({"readOnly": True} if mount.read_only else {})}
