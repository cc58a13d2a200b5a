"""What the Job of a stage is told and given: whom it asks, which weights, which engine; or why it is not begun yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.model import Weights
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault, parse
from modeltiers.api.settings import Settings
from modeltiers.controllers.store import Body, Key, Store
from modeltiers.domain.catalogue import Catalogue
from modeltiers.domain.distill import admission
from modeltiers.domain.distill.following import job_of
from modeltiers.domain.distill.job import Known
from modeltiers.domain.distill.plan import Plan, Target
from modeltiers.domain.distill.stages import Next, Stage
from modeltiers.domain.distill.verdict import Hindrance
from modeltiers.domain.sizing import NoFit
from modeltiers.render.distilljob import SIGNING_KEY, Engine, model_path, models_of, scrubber_url, source_paths
from modeltiers.render.owner import Owner
from modeltiers.render.testbed import SERVED, URL, render_engine

_TESTED: Final = (Stage.EVALUATE_BASE, Stage.EVALUATE_INCUMBENT, Stage.EVALUATE_STUDENT)


@dataclass(frozen=True, slots=True)
class Scene:
    """One DistillJob as it was read."""

    key: Key
    body: Body
    owner: Owner
    spec: DistillJobSpec
    status: dict[str, Any]
    """As it was written last, with what the reports of ended stages add."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the Job of a stage is told and given."""

    plan: Plan
    models: Mapping[str, Weights] = field(default_factory=dict)
    engine: Engine | None = None
    hindrance: Hindrance | None = None
    """Why it cannot be begun yet."""


@dataclass(eq=False)
class Orders:
    """Draws up the order of a stage from what the store has of the tiers around its job."""

    store: Store
    settings: Settings
    catalogue: Catalogue
    see_nodes: bool

    def of(self, scene: Scene, step: Next) -> Order:
        """The order of the next stage."""
        spec = scene.spec
        teacher, judge = self._asked(scene)
        plan = Plan(
            job=scene.key[1],
            spec=spec,
            teacher=teacher.target,
            judge=judge.target,
            sources=source_paths(spec),
            scrubber=scrubber_url(spec, self.settings),
        )
        if (hindered := admission.not_asked(step.stage, spec, teacher, judge)) is not None:
            return Order(plan, hindrance=hindered)
        models = models_of(spec, step.stage, self._teachers_weights(scene))
        plan = plan.model_copy(update={"models": {role: model_path(role, one) for role, one in models.items()}})
        if step.stage is Stage.PACKAGE and self.settings.distill.signing_key:
            plan = plan.model_copy(update={"signing_key_file": f"{SIGNING_KEY}/key"})
        if step.stage not in _TESTED:
            return Order(plan, models)
        engine = self._engine(scene, step)
        if isinstance(engine, Hindrance):
            return Order(plan, models, hindrance=engine)
        served = Target(base_url=URL, model=SERVED, root=engine.serves)
        return Order(plan.model_copy(update={"engine": served}), models, engine)

    def tier(self, namespace: str, name: str) -> tuple[ModelTierSpec, Mapping[str, Any]] | None:
        """A tier's spec and status; None where there is none, or none that can be understood."""
        body = self.store.tier((namespace, name))
        parsed = parse(body) if body is not None else None
        if body is None or parsed is None or isinstance(parsed, Fault):
            return None
        return parsed.spec, body.get("status") or {}

    def _asked(self, scene: Scene) -> tuple[admission.Reach, admission.Reach]:
        """Where teacher and judge are asked."""
        spec, namespace = scene.spec, scene.key[0]
        refs = (spec.teacher.tier_ref, spec.judge.tier_ref if spec.judge else None)
        teacher, judge = (self.tier(namespace, ref.name) if ref else None for ref in refs)
        return (
            admission.teacher_of(spec, teacher, namespace, self.settings),
            admission.judge_of(spec, judge, namespace, self.settings),
        )

    def _teachers_weights(self, scene: Scene) -> Weights | None:
        """Those that a tier of this cluster serves as they lie; nothing of a student or an API."""
        ref = scene.spec.teacher.tier_ref
        tier = self.tier(scene.key[0], ref.name) if ref else None
        return tier[0].model if tier and job_of(tier[0]) is None else None

    def _engine(self, scene: Scene, step: Next) -> Engine | Hindrance:
        spec = scene.spec
        ref = (spec.evaluation and spec.evaluation.tier_ref) or (spec.promotion and spec.promotion.tier_ref)
        assert ref, "the schema wants one of them"
        tier = self.tier(scene.key[0], ref.name)
        if tier is None or tier[0].model is None:
            said = f"there is no ModelTier {ref.name} that this cluster serves: its engine tests the student"
            return Hindrance("TierNotFound", said, passes=False)
        nodes = tuple(self.store.nodes.values()) if self.see_nodes else None
        found = render_engine(tier[0], _weights(scene, step), self.catalogue, nodes, self.settings)
        return Hindrance("DoesNotFit", found.message, passes=False) if isinstance(found, NoFit) else found


def source_of(spec: DistillJobSpec, stage: Stage, digest: str) -> str | None:
    """Where a stage left weights, as a tier would name them; None in a store that pods cannot mount."""
    claim = spec.store.claim_name
    return f"pvc://{claim}/stages/{stage.value}/{digest}/model" if claim else None


def _weights(scene: Scene, step: Next) -> Weights:
    """The weights of the model under test."""
    spec = scene.spec
    if step.stage is Stage.EVALUATE_BASE:
        return spec.student.base
    if step.stage is Stage.EVALUATE_INCUMBENT:
        assert spec.promotion is not None, "without it the stage takes no part"
        assert spec.promotion.incumbent is not None, "likewise"
        return spec.promotion.incumbent
    if spec.student.trained is not None:
        return spec.student.trained
    trained = Known.of(scene.status).outcomes()[Stage.TRAIN]
    source = source_of(spec, Stage.TRAIN, trained.digest)
    return spec.student.base.model_copy(update={"source": source, "revision": None, "token_secret_ref": None})
