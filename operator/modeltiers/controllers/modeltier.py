"""Reconciles one ModelTier: gather, decide, render, apply, report. The same function for every cause and every restart.

Everything it knows comes from the store, everything it concludes from pure functions; what is left here is the order of
things and what a fault means. It never writes to the tier but to its status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault, parse
from modeltiers.api.settings import Settings
from modeltiers.controllers import event_log
from modeltiers.controllers.autoscaler import Autoscaler
from modeltiers.controllers.bridge import AGAIN, Bridge
from modeltiers.controllers.children import Children, owned
from modeltiers.controllers.claims import CLAIM_RECHECK, look
from modeltiers.controllers.egress import Egress
from modeltiers.controllers.external import ExternalProbe, good_for
from modeltiers.controllers.faults import apply_error, raise_for_retry, write_status
from modeltiers.controllers.following import JobNotFound, served_spec
from modeltiers.controllers.shelf import tables_of
from modeltiers.controllers.store import Body, Key, Store
from modeltiers.controllers.workqueue import RetryAfter
from modeltiers.domain import arrival, conditions
from modeltiers.domain import modeltier as decisions
from modeltiers.domain import record as records
from modeltiers.domain.asks import size, sizing_status
from modeltiers.domain.capacity import FreeGpus
from modeltiers.domain.catalogue import Catalogue
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.record import Record
from modeltiers.domain.revisions import Second, refused_candidate, revisions_of, told_apart
from modeltiers.domain.scaling import Scaling, expected
from modeltiers.domain.sizing import NoFit, Plan
from modeltiers.domain.surge import choose_rollout, leaves_none, pods_that_fit
from modeltiers.domain.verdict import ApplyError, TierFacts, Verdict, judge
from modeltiers.domain.views import DeploymentView, PodView
from modeltiers.kube import errors
from modeltiers.kube.capacity import FRESH, NOW, Capacity
from modeltiers.kube.client import Api
from modeltiers.kube.events import EventRecorder
from modeltiers.render.modeltier import render_candidate, render_tier, resolve
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner

log = logging.getLogger(__name__)

KIND: Final = "ModelTier"
# Reasons that only say how far a tier is.
_STEPS: Final = frozenset(item.name for item in conditions.REASONS if item.condition == conditions.RECONCILING)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tier should run, or why that cannot be said."""

    record: Record | None = None
    refusals: tuple[Refusal, ...] = ()
    no_fit: NoFit | None = None
    newer: tuple[str, ...] = ()


@dataclass(eq=False)
class TierReconciler:
    """Everything a reconcile needs, handed in once at the start."""

    api: Api
    store: Store
    children: Children
    admitted: Admitted | None
    settings: Settings
    catalogue: Catalogue
    capacity: Capacity
    events: EventRecorder
    external: ExternalProbe
    autoscaler: Autoscaler
    egress: Egress
    ring: Callable[[Key], None]
    bridge: Bridge
    ring_policy: Callable[[Key], None]
    now: Callable[[], datetime]
    see_nodes: bool

    async def serve(self, key: Key) -> float | None:
        """Reconcile one tier; returns seconds after which to look again by the clock."""
        body = self.store.tier(key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            self.store.waiting_for_nodes.discard(key)
            self.autoscaler.forget(key)
            self.bridge.forget(key)
            return None  # its children go with it by their owner references
        parsed = parse(body)
        if isinstance(parsed, Fault):
            return await self._report(
                key, body, None, TierFacts(**self._base(key, body), fault=((parsed.path, parsed.message),))
            )
        if parsed.spec.external:
            return await self._serve_external(key, body, parsed.spec)
        spec = served_spec(self.store, key[0], parsed.spec)
        if isinstance(spec, Fault):
            facts = TierFacts(**self._base(key, body), **_why_not(spec))
            return await self._report(key, body, parsed.spec, facts, self._existing(key, body))
        return await self._serve_model(key, body, spec)

    async def _serve_external(self, key: Key, body: Body, spec: ModelTierSpec) -> float | None:
        assert spec.external is not None
        owner = Owner(key[0], key[1], body["metadata"]["uid"])
        wanted = self.egress.wanted(key, owner, spec.external)
        fault = await self._write(key, owner, wanted) or await self.children.prune(key, owner, wanted)
        seen = await self.external.look(key, spec.external, self.settings.external_hosts, self.ring)
        known = self.egress.facts(key, owner, spec.external) if wanted else {}
        facts = TierFacts(**self._base(key, body), external=seen, apply_error=apply_error(fault), **known)
        await self._report(key, body, spec, facts)
        if fault:
            raise_for_retry(fault)
        return good_for(seen)

    async def _serve_model(self, key: Key, body: Body, spec: ModelTierSpec) -> float | None:
        claims = await self._claims(key[0], spec)
        existing = self._existing(key, body)
        resolved = await self._resolve(key, body, spec, existing, claims)
        fault: errors.ApiFault | None = None
        scaling = Scaling(expected(spec, self._live(key, body)))
        held: tuple[str, ...] = ()
        if resolved.record:
            scaling = await self._scaling(key, body, spec, resolved.record)
            held = self._bridged(key, body, scaling.wanted, existing, resolved.record)
            fault = await self._apply(key, body, scaling.wanted, resolved.record, held=bool(held))
        second, second_fault = await self._serve_candidate(key, body, spec, resolved.record)
        facts = await self._facts(key, body, resolved, scaling, held, apply_error(fault))
        wait = await self._report(key, body, spec, facts, resolved.record, second)
        if fault := fault or second_fault:
            raise_for_retry(fault)
        waits = (
            wait,
            scaling.wait,
            CLAIM_RECHECK if None in claims.values() else None,
            AGAIN if held else None,
            event_log.RECHECK if any(pod.is_set_up_now for pod in self.store.pods_of(key)) else None,
        )
        return min((one for one in waits if one is not None), default=None)

    async def _serve_candidate(
        self, key: Key, body: Body, spec: ModelTierSpec, first: Record | None
    ) -> tuple[Second | None, errors.ApiFault | None]:
        """The candidate beside the first revision, planned and written like it; what is left of an old one goes."""
        owner = Owner(key[0], key[1], body["metadata"]["uid"])
        revision = next(iter(revisions_of(spec)[1:]), None)
        if revision is None:
            second = names.SECOND_REVISION
            mine = ("Deployment", names.workload(key[1], second)), ("Service", names.pods_service(key[1], second))
            return None, await self.children.delete(key, owner, mine)
        if first is None:
            return None, None  # there is nothing that it could stand beside
        claims = await self._claims(key[0], revision.spec)
        existing = self._existing(key, body, revision.name)
        refused = decisions.refusals(revision.spec, self.settings, claims)
        resolved = Resolved(existing, refused_candidate(refused, claims, routed=first.routed))
        if not resolved.refusals:
            resolved = await self._resolve(key, body, revision.spec, existing, claims, revision.name)
        fault: errors.ApiFault | None = None
        live = self._live(key, body, revision.name)
        theirs = self.store.hpas.of(key[0], "Deployment", names.workload(key[1], revision.name))
        pods = live if theirs and live is not None else revision.spec.replicas
        if resolved.record and not resolved.refusals:
            fault = await self._write(key, owner, render_candidate(owner, pods, resolved.record, revision.name))
        facts = await self._facts(key, body, resolved, Scaling(pods), (), apply_error(fault), revision.name)
        return Second(revision, resolved.record, facts), fault

    # --- gather -------------------------------------------------------------------------------------------------------

    def _base(self, key: Key, body: Body) -> dict[str, Any]:
        return {
            "namespace": key[0],
            "name": key[1],
            "generation": body["metadata"].get("generation", 0),
            "deleting": bool(body["metadata"].get("deletionTimestamp")),
            "arriving": arrival.left(body["metadata"].get("creationTimestamp", ""), self.now()),
        }

    def _deployment(self, key: Key, body: Body, revision: str = names.FIRST_REVISION) -> Body | None:
        """The Deployment of a revision, unless it is somebody else's."""
        child = self.store.child(key, "Deployment", names.workload(key[1], revision))
        return child if child is not None and owned(child, body["metadata"]["uid"]) else None

    def _live(self, key: Key, body: Body, revision: str = names.FIRST_REVISION) -> int | None:
        """How many pods the Deployment wants now."""
        child = self._deployment(key, body, revision)
        return None if child is None else DeploymentView.of(child).wanted

    def _existing(self, key: Key, body: Body, revision: str = names.FIRST_REVISION) -> Record | None:
        child = self._deployment(key, body, revision)
        if child is None:
            return None
        return records.load((child["metadata"].get("annotations") or {}).get(names.ANNOTATION_RECORD))

    async def _claims(self, namespace: str, spec: ModelTierSpec) -> dict[str, ClaimView | None]:
        found: dict[str, ClaimView | None] = {}
        for name in decisions.claims_of(spec):
            found[name] = (await look(self.api, namespace, name)).claim
        return found

    # --- decide -------------------------------------------------------------------------------------------------------

    async def _resolve(
        self,
        key: Key,
        body: Body,
        spec: ModelTierSpec,
        existing: Record | None,
        claims: Mapping[str, ClaimView | None],
        revision: str = names.FIRST_REVISION,
    ) -> Resolved:
        refused = tuple(decisions.refusals(spec, self.settings, claims))
        if refused:
            return Resolved(record=existing, refusals=refused)
        nodes = tuple(self.store.nodes.values()) if self.see_nodes else None
        outcome = size(spec, self.catalogue, nodes, self.settings)
        inputs = records.inputs_of(spec)
        if existing and existing.inputs == inputs:
            # The plan stays whatever sizing says now; what it says is only worth a remark.
            fresh = self._record(key, spec, outcome, inputs, existing, revision) if isinstance(outcome, Plan) else None
            return Resolved(record=existing, newer=decisions.newer(existing, fresh) if fresh else ())
        if isinstance(outcome, NoFit):
            self.store.waiting_for_nodes.add(key)
            return Resolved(record=existing, no_fit=outcome)
        if revision == names.FIRST_REVISION:
            self.store.waiting_for_nodes.discard(key)
        pods = expected(spec, self._live(key, body, revision))
        to_come = max(0, pods - len(self._pods(key, revision)))
        return Resolved(record=await self._plan_anew(key, spec, outcome, claims, to_come, revision))

    def _pods(self, key: Key, revision: str) -> tuple[PodView, ...]:
        return tuple(pod for pod in self.store.pods_of(key) if pod.revision == revision)

    async def _plan_anew(
        self,
        key: Key,
        spec: ModelTierSpec,
        plan: Plan,
        claims: Mapping[str, ClaimView | None],
        to_come: int,
        revision: str,
    ) -> Record:
        free = await self._free(plan.device.resource, plan.device.product_label, plan.device.product)
        rollout = choose_rollout(
            free.by_node if free else None, plan.gpus, to_come, single_writer=decisions.single_writer(claims)
        )
        inputs = records.inputs_of(spec)
        sizing = sizing_status(plan, input_hash=inputs, free_gpus=free.total if free else None)
        return resolve(key[1], spec, plan, sizing, rollout, self.settings, revision)

    def _record(
        self, key: Key, spec: ModelTierSpec, plan: Plan, inputs: str, existing: Record, revision: str
    ) -> Record:
        sizing = sizing_status(plan, input_hash=inputs, free_gpus=None)
        return resolve(key[1], spec, plan, sizing, existing.rollout, self.settings, revision)

    async def _free(self, resource: str, label: str, product: str, *, age: float = FRESH) -> FreeGpus | None:
        if not self.see_nodes:
            return None
        try:
            return await self.capacity.free(resource, label, product, age=age)
        except errors.Transient as fault:
            raise RetryAfter(str(fault), fault.retry_after) from fault

    async def _scaling(self, key: Key, body: Body, spec: ModelTierSpec, record: Record) -> Scaling:
        async def room(wanted: int) -> int | None:
            label, product = _product_of(record)
            free = await self._free(_resource_of(record), label, product)
            if free is None:
                return None
            placed = sum(bool(pod.node) for pod in self.store.pods_of(key) if not pod.deleting and not pod.finished)
            return max(0, pods_that_fit(free.by_node, record.sizing["gpusPerReplica"]) - max(0, wanted - placed))

        before = (body.get("status") or {}).get("autoscaling")
        return await self.autoscaler.look(key, spec, self._live(key, body), before, room)

    def _bridged(self, key: Key, body: Body, wanted: int, existing: Record | None, record: Record) -> tuple[str, ...]:
        """The policies that must be led elsewhere before the Deployment is written."""
        child = self._deployment(key, body)
        live = DeploymentView.of(child) if child else None
        changes = existing is not None and existing.template != record.template
        leaves = leaves_none(record.rollout, wanted, live, changes=changes)
        pending = changes or (live is not None and live.wanted > 0 and not wanted)
        return self.bridge.hold(key, leaves=leaves, pending=pending)

    # --- apply --------------------------------------------------------------------------------------------------------

    async def _apply(
        self, key: Key, body: Body, replicas: int, record: Record, *, held: bool
    ) -> errors.ApiFault | None:
        owner = Owner(key[0], key[1], body["metadata"]["uid"])
        tables = tables_of(self.store, self.settings, key) if record.routed else {}
        wanted = render_tier(owner, replicas, record, tables, self.admitted)
        fault = await self._write(key, owner, [one for one in wanted if not held or one["kind"] != "Deployment"])
        if self.admitted is None:  # the administrator wants none any more
            old = [("NetworkPolicy", names.network_policy(key[1]))]
            fault = fault or await self.children.delete(key, owner, old)
        return fault

    async def _write(self, key: Key, owner: Owner, wanted: Iterable[Mapping[str, Any]]) -> errors.ApiFault | None:
        fault, tables = await self.children.write(key, owner, wanted)
        if tables:
            self._ring_policies(key)
        return fault

    # --- report -------------------------------------------------------------------------------------------------------

    async def _facts(
        self,
        key: Key,
        body: Body,
        resolved: Resolved,
        scaling: Scaling,
        held: tuple[str, ...],
        error: ApplyError | None,
        revision: str = names.FIRST_REVISION,
    ) -> TierFacts:
        child = self._deployment(key, body, revision)
        pods = await event_log.with_setup_error(self.api, key[0], self._pods(key, revision), self.now())
        record = resolved.record
        free = None
        if record and any(pod.unschedulable for pod in pods):
            label, product = _product_of(record)
            free = await self._free(_resource_of(record), label, product, age=NOW)
        return TierFacts(
            **self._base(key, body),
            refusals=tuple((item.path, item.message) for item in resolved.refusals),
            no_fit=(resolved.no_fit.reason, resolved.no_fit.message) if resolved.no_fit else None,
            sized=_sized_words(record) if record and not resolved.no_fit else None,
            apply_error=error,
            deployment=DeploymentView.of(child) if child else None,
            pods=pods,
            wanted_replicas=scaling.wanted,
            held_for=held,
            bridges=self.bridge.ways(key),
            scaling=scaling,
            gpus_per_replica=record.sizing["gpusPerReplica"] if record else 0,
            resource=_resource_of(record) if record else "",
            product=_product_of(record)[1] if record else "",
            free=free,
            update_available=resolved.newer,
            rollout=record.rollout.why if record else "",
            unschedulable_deadline_seconds=self.settings.limits.unschedulable_deadline_seconds,
            startup_seconds=record.startup_seconds if record else 0,
        )

    async def _report(
        self,
        key: Key,
        body: Body,
        spec: ModelTierSpec | None,
        facts: TierFacts,
        record: Record | None = None,
        second: Second | None = None,
    ) -> float | None:
        """Write status if it differs, tell what changed as events, and say when to look again."""
        before = body.get("status") or {}
        previous = before.get("conditions") or []
        waits = []
        if second is not None:
            said, about = told_apart(second.facts, previous, self.now())
            facts = replace(facts, candidate=said)
            waits.append(about.wait)
        verdict = judge(facts, previous, self.now())
        waits.append(verdict.wait)
        status = decisions.status_of(facts, spec, record, verdict.conditions, second)
        if status != before:
            if (written := await write_status(self.api, KIND, body, status)) is not None:
                self.store.put_tier(written)
                self._ring_policies(key)
            self._tell(body, previous, verdict)
        return min((one.total_seconds() for one in waits if one), default=None)

    def _ring_policies(self, key: Key) -> None:
        """Tell the policies that cross this tier what we wrote ourselves: the watch's echo is no news."""
        for policy in self.store.policies_of(key):
            self.ring_policy(policy)

    def _tell(self, body: Body, previous: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
        """An event for what a person would want to hear of: ready, or a cause; not every step on the way."""
        was = conditions.by_type(previous).get(conditions.READY, {})
        ready = conditions.by_type(verdict.conditions)[conditions.READY]
        same = (was.get("status"), was.get("reason")) == (ready["status"], ready["reason"])
        if same or ready["reason"] in _STEPS:
            return
        level = "Warning" if ready["status"] == "False" else "Normal"
        self.events.record(body, level, ready["reason"], ready["message"])


def _resource_of(record: Record) -> str:
    limits: Mapping[str, str] = record.template["spec"]["containers"][0]["resources"]["limits"]
    return next(name for name in limits if "/" in name)


def _product_of(record: Record) -> tuple[str, str]:
    product = record.sizing["product"]
    label = next(key for key, value in record.template["spec"]["nodeSelector"].items() if value == product)
    return label, product


def _sized_words(record: Record) -> str:
    plan = record.sizing
    notes = "".join(f"; {note}" for note in plan.get("notes", ()))
    return (
        f"{plan['gpusPerReplica']} x {plan['product']} per replica, tensor parallel {plan['tensorParallel']}, "
        f"pipeline parallel {plan['pipelineParallel']}, context {plan['maxModelLen']} tokens{notes}"
    )


def _why_not(spec: Fault) -> dict[str, Any]:
    """What the facts say of a tier whose model cannot be said."""
    said = ((spec.path, spec.message),)
    return {"job_missing": said} if isinstance(spec, JobNotFound) else {"refusals": said}
