"""Reconciles one DistillJob: which stage is next by what is known, its Job, what its program said, and the status.

Stages are Jobs and never handlers: nothing here waits for one. What the status forgot is found again by the stages
themselves, in their manifests. It never writes to the DistillJob but to its status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.distilljob_asked import TierRef
from modeltiers.api.parse import Fault, parse_distill
from modeltiers.api.settings import Settings
from modeltiers.controllers import claims, event_log
from modeltiers.controllers.canary import CanaryCounts
from modeltiers.controllers.children import Children, owned
from modeltiers.controllers.faults import apply_error, raise_for_retry, write_status
from modeltiers.controllers.orders import Order, Orders, Scene, source_of
from modeltiers.controllers.routers import Routers, can_be_asked
from modeltiers.controllers.store import DISTILL, Body, Key, OwnerKey, Store, distill_key, policy_key
from modeltiers.domain import arrival, conditions
from modeltiers.domain.distill import admission
from modeltiers.domain.distill.following import job_of
from modeltiers.domain.distill.job import (
    MUTE_PAUSE,
    JobView,
    Known,
    Report,
    completed,
    facts_of,
    is_mute,
    is_over,
    report_of,
    unfinished,
)
from modeltiers.domain.distill.overview import report_address
from modeltiers.domain.distill.payback import estimate
from modeltiers.domain.distill.promotion import LOOK, NO_ROOM, Counted, Step, TierSeen, promote
from modeltiers.domain.distill.reasons import COMPLETE, ELSEWHERE
from modeltiers.domain.distill.stages import Next, Stage, next_stage
from modeltiers.domain.distill.verdict import Hindrance, JobFacts, columns, judge
from modeltiers.domain.views import PodView
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.events import EventRecorder
from modeltiers.render.distilljob import plan_hash, render_frame, render_job
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest

log = logging.getLogger(__name__)

KEPT: Final = ("spend", "payback", "gate", "artifact", "promotion")
"""What a status keeps of stages long past."""


@dataclass(eq=False)
class DistillReconciler:
    """Everything a reconcile needs, handed in once at the start."""

    api: Api
    store: Store
    children: Children
    orders: Orders
    admitted: Admitted | None
    settings: Settings
    events: EventRecorder
    routers: Routers
    counts: CanaryCounts
    ring: Callable[[OwnerKey], None]
    now: Callable[[], datetime]

    async def serve(self, key: Key) -> float | None:
        """Reconcile one job; returns seconds after which to look again by the clock."""
        body = self.store.distill(key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return None  # its Jobs go with it by their owner references; what it stored stays
        parsed = parse_distill(body)
        base = {"namespace": key[0], "name": key[1], "generation": body["metadata"].get("generation", 0)}
        before = dict(body.get("status") or {})
        if isinstance(parsed, Fault):
            facts = JobFacts(**base, fault=((parsed.path, parsed.message),), known=Known.of(before))
            return await self._report(body, facts, before)
        owner = Owner(key[0], key[1], body["metadata"]["uid"], DISTILL)
        scene = Scene(key, body, owner, parsed.spec, before)
        refused = admission.refusals(parsed.spec, self.settings)
        if refused:
            facts = JobFacts(**base, refusals=refused, spec=parsed.spec, known=Known.of(before))
            return await self._report(body, facts, before)
        return await self._run(scene, base)

    async def _run(self, scene: Scene, base: Mapping[str, Any]) -> float | None:
        self._take_reports(scene)
        known = Known.of(scene.status)
        step = next_stage(scene.spec, known.outcomes())
        facts = JobFacts(
            **base,
            spec=scene.spec,
            known=known,
            next=step,
            unschedulable_deadline_seconds=self.settings.limits.unschedulable_deadline_seconds,
        )
        fault: errors.ApiFault | None = None
        if step is not None:
            facts, fault = await self._serve_stage(scene, step, facts)
        else:
            facts = self._promote(scene, facts)
        wait = await self._report(scene.body, replace(facts, apply_error=apply_error(fault)), scene.status)
        if fault:
            raise_for_retry(fault)
        return wait

    # --- what stages said ---------------------------------------------------------------------------------------------

    def _take_reports(self, scene: Scene) -> None:
        """Put what complete Jobs said into the status; one after the other, since each opens the next."""
        while (step := next_stage(scene.spec, Known.of(scene.status).outcomes())) is not None:
            job = self._job(scene, step)
            report = report_of(self._pods(scene.key, job)) if job and job.complete else None
            if job is None or report is None or report.outcome != COMPLETE or report.body.get("digest") != step.digest:
                return
            self._take(scene, report, job)

    def _take(self, scene: Scene, report: Report, job: JobView) -> None:
        entry = completed(report, job)
        _put(scene.status, entry)
        scene.status.update(facts_of(report))
        if (artifact := scene.status.get("artifact")) is not None:
            places = {"source": source_of(scene.spec, Stage.PACKAGE, job.digest)}
            places["report"] = report_address({**scene.body, "status": scene.status})
            artifact.update({name: place for name, place in places.items() if place})
        self.events.record(scene.body, "Normal", "StageComplete", f"{entry['name']}: {entry['summary']}")

    def _job(self, scene: Scene, step: Next) -> JobView | None:
        name = names.stage_job(scene.key[1], step.stage, step.digest)
        body = self.store.child(distill_key(scene.key), "Job", name)
        if body is None or not owned(body, scene.owner.uid):
            return None
        found = JobView.of(body)
        return found if found.digest == step.digest else None

    def _pods(self, key: Key, job: JobView | None) -> tuple[PodView, ...]:
        """The pods of this very Job, and of none of its name that came before."""
        return tuple(pod for pod in self.store.pods_of(distill_key(key)) if job and pod.template == job.uid)

    # --- the stage to run ---------------------------------------------------------------------------------------------

    async def _serve_stage(self, scene: Scene, step: Next, facts: JobFacts) -> tuple[JobFacts, errors.ApiFault | None]:
        job = self._job(scene, step)
        pods = await event_log.with_setup_error(self.api, scene.key[0], self._pods(scene.key, job), self.now())
        facts = replace(facts, job=job, pods=pods, report=report_of(pods))
        if job is not None and job.awaits_pods and not pods:
            facts = replace(facts, refused=await event_log.refusal(self.api, scene.key[0], job))
        order = self.orders.of(scene, step)
        wanted = self._render(scene, step, facts.known, order) if order.hindrance is None else None
        running = job is not None and not job.failure
        if not running:
            found = admission.hindrance(scene.key[1], scene.spec, await self._around(scene))
            elsewhere = self._elsewhere(scene, step) if job is None else None
            found = found or self._unpaid(scene, step) or order.hindrance or elsewhere
            arriving = arrival.left(scene.body["metadata"].get("creationTimestamp", ""), self.now())
            facts = replace(facts, hindrance=admission.arrives(found, arriving))
        fault: errors.ApiFault | None = None
        if job is not None and is_over(
            job,
            facts.report,
            pods,
            suspended=scene.spec.suspend,
            plan=plan_hash(order.plan),
            retry=_retry(scene.body),
            wanted=JobView.of(wanted).applied if wanted else None,
            now=self.now(),
        ):
            name = ("Job", job.name)
            fault = await self.children.delete(distill_key(scene.key), scene.owner, [name])
            facts = replace(facts, job=None)
        elif job is None and wanted is not None and facts.hindrance is None and not scene.spec.suspend:
            fault = await self._start(scene, order, wanted)
        facts = replace(facts, progress=self._progress(scene.key, pods))
        at_work = any(pod.phase == "Running" for pod in pods)
        failed = bool(facts.job and facts.job.failure)
        _put(scene.status, unfinished(step.stage, step.digest, facts.job, running=at_work, failed=failed))
        return facts, fault

    def _render(self, scene: Scene, step: Next, known: Known, order: Order) -> Manifest:
        return render_job(
            scene.owner,
            order.plan,
            step,
            known.outcomes(),
            self.settings,
            models=order.models,
            engine=order.engine,
            retry=_retry(scene.body),
        )

    async def _start(self, scene: Scene, order: Order, job: Manifest) -> errors.ApiFault | None:
        key = distill_key(scene.key)
        frame = render_frame(scene.owner, order.plan, self.admitted)
        fault, _ = await self.children.write(key, scene.owner, [*frame, job])
        if self.admitted is None and fault is None:  # the administrator wants none any more
            old = [("NetworkPolicy", names.distill_account(scene.key[1]))]
            fault = await self.children.delete(key, scene.owner, old)
        return fault

    # --- what stands in its way ---------------------------------------------------------------------------------------

    async def _around(self, scene: Scene) -> admission.Around:
        spec, namespace = scene.spec, scene.key[0]
        name = spec.store.claim_name
        found = await claims.look(self.api, namespace, name) if name else claims.Found()
        refs = (
            spec.teacher.tier_ref,
            spec.evaluation and spec.evaluation.tier_ref,
            _goes_to(spec),
            spec.judge and spec.judge.tier_ref,
        )
        teacher, evaluation, promotion, judge = (self.orders.tier(namespace, ref.name) if ref else None for ref in refs)
        return admission.Around(teacher, evaluation, promotion, found.claim, found.missing, judge)

    def _elsewhere(self, scene: Scene, step: Next) -> Hindrance | None:
        """Whether another job of the namespace does this very stage in the same store: both would write there."""
        store = scene.spec.store
        for key in [key for key in self.store.distills if key[0] == scene.key[0] and key != scene.key]:
            name = names.stage_job(key[1], step.stage, step.digest)
            body, other = self.store.child(distill_key(key), "Job", name), self.store.distill(key)
            parsed = parse_distill(other) if body is not None and other is not None else None
            if body is None or parsed is None or isinstance(parsed, Fault) or parsed.spec.store != store:
                continue
            view = JobView.of(body)
            if view.digest == step.digest and not view.complete and not view.failure:
                said = f"DistillJob {key[1]} does it with the same inputs in the same store: its outcome will be taken"
                return Hindrance(ELSEWHERE, said, passes=True)
        return None

    def _unpaid(self, scene: Scene, step: Next) -> Hindrance | None:
        """Say when the student pays back, before it is trained; and why it is not, where that takes too long."""
        traffic = scene.spec.budget.traffic if scene.spec.budget else None
        if step.stage is not Stage.TRAIN:
            return None
        if traffic is None:
            scene.status.pop("payback", None)
            return None
        refs = (scene.spec.teacher.tier_ref, _goes_to(scene.spec))
        tiers = [self.orders.tier(scene.key[0], ref.name) if ref else None for ref in refs]
        found = estimate(scene.spec, traffic, scene.status.get("spend"), *tiers)
        scene.status["payback"] = found.status
        return admission.too_long(scene.spec, found)

    # --- promotion ----------------------------------------------------------------------------------------------------

    def _promote(self, scene: Scene, facts: JobFacts) -> JobFacts:
        """Lead a packaged student into its tier, a step at most; the tier's own reconcile does what the status says."""
        wanted = scene.spec.promotion
        artifact = scene.status.get("artifact")
        if wanted is None or wanted.tier_ref is None or not artifact or facts.known.decision != "Pass":
            return facts
        before = scene.status.get("promotion")
        if not artifact.get("source"):
            said = "the store is S3, from which tiers do not serve: use store.claimName in another DistillJob"
            return replace(facts, promotion=Step(before or {}, hindrance=("NotServable", said)))
        tier = self._tier_seen(scene, wanted.tier_ref.name, before or {})
        said_by = scene.body["metadata"].get("annotations") or {}
        step = promote(wanted, artifact, before, tier, said_by, self.now())
        if step.status:
            scene.status["promotion"] = dict(step.status)
        return replace(facts, promotion=step)

    def _tier_seen(self, scene: Scene, name: str, before: Mapping[str, Any]) -> TierSeen:
        key = (scene.key[0], name)
        found = self.orders.tier(*key)
        if found is None:
            return TierSeen(name, job=scene.key[1], found=False)
        spec, status = found
        said = conditions.by_type(status.get("conditions") or [])
        ready, candidate = said.get(conditions.READY, {}), said.get(conditions.CANDIDATE_READY, {})
        follows = job_of(spec) == scene.key[1]
        counts: dict[str, Counted] = {}
        if before.get("state") == "Canary":
            mark = f"{before.get('step')} {before.get('since')}"
            counts = self.counts.look(key, mark, lambda: self.ring(distill_key(scene.key)))
        else:
            self.counts.forget(key)
        return TierSeen(
            name,
            job=scene.key[1],
            follows=follows,
            ready=ready.get("status") == "True",
            model=str(status.get("model", "")),
            candidate={"True": True, "False": False}.get(str(candidate.get("status"))),
            candidate_why=str(candidate.get("message", "")),
            candidate_fits=candidate.get("reason") not in NO_ROOM,
            student=counts.get(names.SECOND_REVISION, Counted()),
            incumbent=counts.get(names.FIRST_REVISION, Counted()),
        )

    # --- report -------------------------------------------------------------------------------------------------------

    def _progress(self, key: Key, pods: tuple[PodView, ...]) -> Mapping[str, Any] | None:
        """What the running stage said of itself last; it is asked meanwhile, and rings when it has answered."""
        living = [pod for pod in pods if can_be_asked(pod) and not pod.deleting]
        before = [self.routers.last(pod) for pod in living]

        def told() -> None:
            if [self.routers.last(pod) for pod in living] != before:
                self.ring(distill_key(key))

        self.routers.ask(living, self.settings.distill.progress_seconds, told)
        for said in before:
            progress = (said.status or {}).get("progress") if said else None
            if isinstance(progress, Mapping):
                return progress
        return None

    async def _report(self, body: Body, facts: JobFacts, status: dict[str, Any]) -> float | None:
        before = body.get("status") or {}
        previous = before.get("conditions") or []
        judged = judge(facts, previous, self.now())
        shown: dict[str, Any] = {"observedGeneration": facts.generation, "conditions": judged}
        spend = _spend(facts, status)
        shown |= columns(facts, judged, spend)
        shown |= {name: status[name] for name in KEPT if name in status} | ({"spend": spend} if spend else {})
        if status.get("stages"):
            shown["stages"] = status["stages"]
        if facts.progress and (running := _running(facts.progress)):
            shown["running"] = running
        if shown != before:
            if (written := await write_status(self.api, DISTILL, body, shown)) is not None:
                self.store.put_distill(written)
            self._tell(body, previous, judged)
            if shown.get("promotion") != before.get("promotion"):
                for tier in self.store.tiers_after(body):  # our own writes are no news to the watch
                    self.ring(tier)
                    for policy in self.store.policies_of(tier):
                        self.ring(policy_key(policy))
        return self._again(facts, judged)

    def _again(self, facts: JobFacts, judged: list[dict[str, Any]]) -> float | None:
        """Seconds after which to look again by the clock."""
        if facts.promotion is not None:
            return facts.promotion.wait
        if facts.hindrance is not None and facts.hindrance.wait is not None:
            return facts.hindrance.wait
        if facts.hindrance is not None and facts.hindrance.reason.startswith("VolumeClaim"):
            return claims.CLAIM_RECHECK
        if facts.hindrance is not None and facts.hindrance.reason == ELSEWHERE:
            return LOOK
        if facts.job is not None and is_mute(facts.job, facts.report, facts.pods):
            return MUTE_PAUSE
        unmade = facts.job is not None and facts.job.awaits_pods and not facts.pods
        if unmade or any(pod.is_set_up_now for pod in facts.pods):
            return event_log.RECHECK
        moving = conditions.by_type(judged)[conditions.RECONCILING]["status"] == "True"
        return float(self.settings.distill.progress_seconds) if moving and facts.pods else None

    def _tell(self, body: Body, previous: Any, now: Any) -> None:
        """An event when the job is at its end, or something stands in the way."""
        for kind, level in ((COMPLETE, "Normal"), (conditions.STALLED, "Warning")):
            was, said = (conditions.by_type(one).get(kind, {}) for one in (previous, now))
            if said["status"] == "True" and (was.get("status"), was.get("reason")) != ("True", said["reason"]):
                self.events.record(body, level, said["reason"], said["message"])


def _goes_to(spec: DistillJobSpec) -> TierRef | None:
    return spec.promotion.tier_ref if spec.promotion else None


def _retry(body: Body) -> str:
    return str((body["metadata"].get("annotations") or {}).get(names.ANNOTATION_RETRY, ""))


def _put(status: dict[str, Any], entry: Mapping[str, Any]) -> None:
    """Put a stage's entry in its place among the others; what came after another outcome of it is no longer true."""
    others = [
        one for one in status.get("stages") or () if isinstance(one, Mapping) and one.get("name") != entry["name"]
    ]
    order = [stage.value for stage in Stage]
    status["stages"] = sorted([*others, dict(entry)], key=lambda one: order.index(one["name"]))


def _spend(facts: JobFacts, status: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was spent: as the running stage counts it, or as the last one to ask said."""
    for said in ((facts.progress or {}).get("spend"), (facts.report.body.get("spend") if facts.report else None)):
        if isinstance(said, Mapping) and said:
            return {name: value for name, value in said.items() if value is not None}
    return status.get("spend")


def _running(progress: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("done", "of", "unit", "etaSeconds", "lossMilli")
    return {name: progress[name] for name in fields if progress.get(name) is not None}
