"""Keeps the routers of policies with placement Gateway: written while the spec wants them, then taken away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modeltiers import names
from modeltiers.api.routingpolicy import Gateway
from modeltiers.api.settings import Settings
from modeltiers.controllers.children import Children, owned
from modeltiers.controllers.shelf import Seen
from modeltiers.controllers.store import Key, Store, policy_key
from modeltiers.domain.facts import FleetFacts, TierFacts
from modeltiers.domain.verdict import fleet
from modeltiers.domain.views import DeploymentView, PodView
from modeltiers.kube import errors
from modeltiers.render.gateway import render_gateway
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest


@dataclass(eq=False)
class Gateways:
    """The gateways of policies."""

    store: Store
    children: Children
    settings: Settings
    admitted: Admitted | None

    async def keep(self, key: Key, owner: Owner, seen: Seen, service: Manifest) -> errors.ApiFault | None:
        """Write what the spec wants, its Service last, and take away what it does not; returns the first fault.

        While the spec does not compile, what is there goes on serving.
        """
        wanted = [*self._wanted(owner, seen), service]
        fault, _ = await self.children.write(policy_key(key), owner, wanted)
        if fault is None and seen.table is not None:
            fault = await self.children.prune(policy_key(key), owner, wanted)
        return fault

    def _wanted(self, owner: Owner, seen: Seen) -> list[Manifest]:
        if (
            seen.spec is None
            or seen.table is None
            or seen.spec.placement != "Gateway"
            or not self.settings.router.image
        ):
            return []
        tables = {names.table_key(owner.name): seen.table.content}
        return render_gateway(owner, seen.spec.gateway or Gateway(), self.settings, tables, self.admitted)

    # --- facts --------------------------------------------------------------------------------------------------------

    def pods(self, key: Key) -> tuple[PodView, ...]:
        """The pods of a policy's gateway that take requests; none when it has no gateway."""
        return tuple(pod for pod in self.store.pods_of(policy_key(key)) if pod.ready)

    def facts(self, key: Key, seen: Seen, now: datetime) -> FleetFacts | None:
        """How the gateway is; None when none is wanted, or while the spec does not compile and there is none."""
        found = self.store.child(policy_key(key), "Deployment", names.gateway(key[1]))
        ours = found is not None and owned(found, seen.body["metadata"]["uid"])
        compiled = seen.table is not None and seen.spec is not None
        if not (seen.spec is not None and seen.spec.placement == "Gateway" if compiled else ours):
            return None
        deployment = DeploymentView.of(found) if ours and found else None
        facts = TierFacts(
            namespace=key[0],
            name=key[1],
            generation=seen.body["metadata"].get("generation", 0),
            deployment=deployment,
            pods=self.store.pods_of(policy_key(key)),
            wanted_replicas=deployment.wanted if deployment else 1,
            unschedulable_deadline_seconds=self.settings.limits.unschedulable_deadline_seconds,
        )
        return fleet(facts, now)
