"""Reconciles one RoutingPolicy: compile, see to it that the tiers carry the table, apply its Service, report.

The tables themselves are written by the tiers' own reconciles, which this one rings when their ConfigMap is behind; so
each object has one writer. It never writes to the policy but to its status.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from modeltiers import names
from modeltiers.api.settings import Settings
from modeltiers.controllers.export import Exporter
from modeltiers.controllers.faults import apply_error, raise_for_retry, write_status
from modeltiers.controllers.gateway import Gateways
from modeltiers.controllers.hopkey import HopKeys
from modeltiers.controllers.routers import FRESH, KEPT, Routers
from modeltiers.controllers.shelf import Seen, see_policy
from modeltiers.controllers.store import POLICY, Body, Key, OwnerKey, Store, policy_key
from modeltiers.controllers.traffic import SHOWN, Traffic
from modeltiers.domain import arrival, conditions
from modeltiers.domain.entry import Entry, Rung, by_gateway, choose_entry, entry_status, table_at
from modeltiers.domain.facts import FleetFacts
from modeltiers.domain.policy_table import policy_behind
from modeltiers.domain.policy_verdict import (
    PolicyFacts,
    RouterFacts,
    Standing,
    TierFacts,
    cycle,
    judge,
    oldest,
    status_of,
)
from modeltiers.domain.views import PodView
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.events import EventRecorder
from modeltiers.render.gateway import selector as gateway_selector
from modeltiers.render.owner import Owner
from modeltiers.render.routingpolicy import render_entry

log = logging.getLogger(__name__)

SETTLED: Final = 5.0
"""Seconds for which an answer is good where every router serves the present table."""


@dataclass(eq=False)
class PolicyReconciler:
    """Everything a reconcile needs, handed in once at the start."""

    api: Api
    store: Store
    gateways: Gateways
    settings: Settings
    events: EventRecorder
    routers: Routers
    hop_keys: HopKeys
    traffic: Traffic
    exporter: Exporter
    ring_tier: Callable[[Key], None]
    ring_policy: Callable[[Key], None]
    now: Callable[[], datetime]

    async def serve(self, key: Key) -> float | None:
        """Reconcile one policy; returns seconds after which to look again by the clock."""
        seen = see_policy(self.store, self.settings, key)
        if seen is None or seen.body["metadata"].get("deletionTimestamp"):
            self.traffic.forget(key)
            return None  # its Service goes with it by its owner reference; the tiers were rung by its event
        self._ring_what_is_behind(key, seen)
        routers, fresh = self._routers(key, seen)
        gateway = self.gateways.facts(key, seen, self.now())
        entry = self._entry(key, seen, gateway)
        if entry is not None:
            self.traffic.follow(key, seen.body["metadata"]["uid"])
        fault = await self._apply(key, seen, entry) if entry is not None else None
        if routers is None:  # they are asked for the first time, and ring when they have answered
            if fault:
                raise_for_retry(fault)
            return None
        facts = replace(self._facts(key, seen, routers, fault), entry=entry, gateway=gateway)
        if any(one.keys and not one.keys.signs for one in facts.routers):
            fault = fault or await self.hop_keys.renew(key[0])
        owner = Owner(key[0], key[1], seen.body["metadata"]["uid"], POLICY)
        pods = _routers_at(key, entry) if entry is not None and not facts.apply_error else None
        exported = await self.exporter.serve(owner, seen, pods)
        facts = replace(facts, exported=exported)
        if fresh:
            await self._touch(key, seen, facts.routers)
        wait = await self._report(key, seen, facts)
        if fault:
            raise_for_retry(fault)
        return wait

    # --- tables and Service -------------------------------------------------------------------------------------------

    def _ring_what_is_behind(self, key: Key, seen: Seen) -> None:
        if seen.spec is None or seen.table is None:
            return
        for tier in seen.spec.tiers:
            if self._on_shelf(key, tier.name) != seen.table.content:
                self.ring_tier((key[0], tier.name))

    def _on_shelf(self, key: Key, tier: str) -> str | None:
        """The text of the policy's table that a tier's routers read now."""
        found = self.store.child((key[0], tier), "ConfigMap", names.table_config_map(tier))
        text = ((found or {}).get("data") or {}).get(names.table_key(key[1]))
        return text if isinstance(text, str) else None

    async def _apply(self, key: Key, seen: Seen, entry: Entry) -> errors.ApiFault | None:
        owner = Owner(key[0], key[1], seen.body["metadata"]["uid"], POLICY)
        return await self.gateways.keep(key, owner, seen, render_entry(owner, _routers_at(key, entry)))

    # --- entry --------------------------------------------------------------------------------------------------------

    def _entry(self, key: Key, seen: Seen, gateway: FleetFacts | None) -> Entry | None:
        """Where requests enter; None while no router has a table for them, of this spec or of an earlier one."""
        below = self._entry_tier(key, seen)
        if gateway is None or (seen.table is None and not gateway.serving):
            return below
        return by_gateway(gateway.serving, below)

    def _entry_tier(self, key: Key, seen: Seen) -> Entry | None:
        ladder = self.store.ladders.get(key, ())
        if seen.table is None and all(self._on_shelf(key, name) is None for name in ladder):
            return None
        now = self.now()
        rungs = [self._rung(key, seen, name, now) for name in ladder if self._routed(key[0], name)]
        steady = timedelta(seconds=self.settings.router.entry_return_seconds)
        return choose_entry(rungs, self.store.entry_of(key), now, steady)

    def _rung(self, key: Key, seen: Seen, tier: str, now: datetime) -> Rung:
        pods = self._routed_pods(key[0], tier)
        answers = self.routers.facts(pods, key[1])
        said = None if answers is None else [(one.version, one.refused) for one in answers if one.reached]
        expected = seen.table is not None or self._on_shelf(key, tier) is not None
        leaves = (key[0], tier) in self.store.leaving
        return Rung(tier, tuple(pod.ready_since or now for pod in pods), table_at(said, expected=expected), leaves)

    # --- facts --------------------------------------------------------------------------------------------------------

    def _facts(
        self,
        key: Key,
        seen: Seen,
        routers: tuple[RouterFacts, ...],
        fault: errors.ApiFault | None,
    ) -> PolicyFacts:
        metadata, spec = seen.body["metadata"], seen.spec
        ladder = [tier.name for tier in spec.tiers] if spec else []
        kept = [text for name in ladder if (text := self._on_shelf(key, name)) is not None]
        return PolicyFacts(
            namespace=key[0],
            name=key[1],
            generation=metadata.get("generation", 0),
            fault=((seen.invalid.path, seen.invalid.message),) if seen.invalid else None,
            model=spec.model if spec else "",
            older=self._older(key, spec.model) if spec else None,
            cycle=self._cycle(key, ladder),
            tiers=tuple(TierFacts(name, *self._standing(key[0], name)) for name in ladder),
            faults=seen.faults,
            arriving=arrival.left(metadata.get("creationTimestamp", ""), self.now()),
            table=seen.table,
            last_good=hashlib.sha256(kept[0].encode()).hexdigest()[:12] if kept else None,
            apply_error=apply_error(fault),
            routers=routers,
            access=spec.access if spec else None,
            router_image=self.settings.router.image is not None,
        )

    def _routers(self, key: Key, seen: Seen) -> tuple[tuple[RouterFacts, ...] | None, bool]:
        """What the routers said last, None while one was never asked; and whether that is fresh.

        Those who may have news are asked meanwhile, and ring when they have.
        """
        pods = [pod for name in self.store.ladders.get(key, ()) for pod in self._routed_pods(key[0], name)]
        pods += self.gateways.pods(key)
        if seen.table is None:
            self.routers.ask(pods, KEPT, partial(self.ring_policy, key))  # whether they have the table before
            return (), True
        version = seen.table.version
        known = self.routers.facts(pods, key[1])

        def told() -> None:
            now = self.routers.facts(pods, key[1])
            if now is not None and (now != known or any(one.behind(version) for one in now)):
                self.ring_policy(key)

        settled = known is not None and all(one.version == version for one in known)
        asked = self.routers.ask(pods, SETTLED if settled else FRESH, told)
        return known, not asked

    def _routed_pods(self, namespace: str, tier: str) -> list[PodView]:
        """The pods of a tier whose routers take requests."""
        if not self._routed(namespace, tier):
            return []
        return [pod for pod in self.store.pods_of((namespace, tier)) if pod.ready]

    async def _touch(self, key: Key, seen: Seen, routers: Sequence[RouterFacts]) -> None:
        """Have the kubelet bring the table to routers that do not serve it yet; again each time they are asked."""
        if seen.table is None or seen.spec is None:
            return
        if any(self._on_shelf(key, tier.name) != seen.table.content for tier in seen.spec.tiers):
            return  # nothing to bring yet
        owners: list[OwnerKey] = [policy_key(key), *((key[0], tier.name) for tier in seen.spec.tiers)]
        uids = {pod.name: pod.uid for owner in owners for pod in self.store.pods_of(owner)}
        stamp = {names.ANNOTATION_TABLES: self.now().isoformat()}
        for router in routers:
            if router.behind(seen.table.version):
                uid = uids.get(router.pod)  # of another pod of the name, or of none, nothing is written
                metadata = {"name": router.pod, "namespace": key[0], "uid": uid, "annotations": stamp}
                try:
                    await self.api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
                except errors.ApiFault as fault:
                    log.info("cannot touch pod %s/%s: %s; its kubelet looks by itself", key[0], router.pod, fault)

    def _routed(self, namespace: str, tier: str) -> bool:
        """Whether a tier's pods have the router before their engine."""
        return self.store.child((namespace, tier), "ConfigMap", names.table_config_map(tier)) is not None

    def _standing(self, namespace: str, tier: str) -> tuple[Standing, str]:
        body = self.store.tier((namespace, tier))
        if body is None:
            return Standing.MISSING, ""
        if body["metadata"].get("deletionTimestamp"):
            return Standing.DELETING, ""
        found = conditions.by_type((body.get("status") or {}).get("conditions") or [])
        ready, stalled = found.get(conditions.READY, {}), found.get(conditions.STALLED, {})
        message = str(ready.get("message", ""))
        if ready.get("status") == "True":
            return (Standing.ASLEEP if ready.get("reason") == "ScaledToZero" else Standing.READY), message
        return (Standing.STALLED if stalled.get("status") == "True" else Standing.PROGRESSING), message

    def _cycle(self, key: Key, ladder: Sequence[str]) -> tuple[str, ...]:
        """The way by which the ladder leads back to this policy, through external tiers that are policies' Services."""
        if not any(self._behind(key[0], tier) for tier in ladder):
            return ()
        ladders = {name: tiers for (namespace, name), tiers in self.store.ladders.items() if namespace == key[0]}
        named = {tier for tiers in ladders.values() for tier in tiers}
        leads_to = {tier: there for tier in named if (there := self._behind(key[0], tier)) is not None}
        return cycle(key[1], ladders, leads_to)

    def _behind(self, namespace: str, tier: str) -> str | None:
        """The policy of this namespace that an external tier leads to."""
        body = self.store.tier((namespace, tier))
        external = ((body or {}).get("spec") or {}).get("external") or {}
        return policy_behind(str(external.get("baseUrl", "")), namespace)

    def _older(self, key: Key, model: str) -> str | None:
        """An older policy of the namespace that has the same model name already."""
        same = [
            (str(body["metadata"].get("creationTimestamp", "")), one[1])
            for one in self.store.named_alike(key[0], model)
            if (body := self.store.policy(one)) is not None
        ]
        first = oldest(same)
        return first if first != key[1] else None

    # --- report -------------------------------------------------------------------------------------------------------

    async def _report(self, key: Key, seen: Seen, facts: PolicyFacts) -> float | None:
        before = seen.body.get("status") or {}
        previous = before.get("conditions") or []
        verdict = judge(facts, previous, self.now())
        url = names.policy_url(key[1], key[0]) if facts.table is not None and facts.entry is not None else None
        entry = entry_status(facts.entry, before.get("entry") or {}, self.now()) if facts.entry is not None else None

        def told(shown: Mapping[str, Any]) -> dict[str, Any]:
            status = status_of(facts, seen.spec, verdict.conditions, url=url, **shown)
            return status if entry is None else {**status, "entry": entry}

        status = told({name: before.get(name) for name in SHOWN})
        status = told(self.traffic.facts(key, before, changed=status != before))
        if status != before:
            if (written := await write_status(self.api, POLICY, seen.body, status)) is not None:
                self.store.put_policy(written)
            self._tell(seen.body, previous, verdict.conditions)
        return verdict.wait.total_seconds() if verdict.wait else None

    def _tell(self, body: Body, previous: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
        """An event when the policy becomes ready, or stops being so."""
        was, ready = (conditions.by_type(one).get(conditions.READY, {}) for one in (previous, now))
        if (was.get("status"), was.get("reason")) == (ready["status"], ready["reason"]) or ready["status"] == "Unknown":
            return
        level = "Warning" if ready["status"] == "False" else "Normal"
        self.events.record(body, level, ready["reason"], ready["message"])


def _routers_at(key: Key, entry: Entry) -> dict[str, str]:
    """Labels of the routers where a policy's requests enter."""
    return names.selector(entry.tier) if entry.tier else gateway_selector(key[1])
