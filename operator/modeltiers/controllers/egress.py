"""Keeps the routers before an external API: written where the administrator allows the host, taken away where not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modeltiers.api.modeltier import External
from modeltiers.api.settings import Settings
from modeltiers.controllers.children import owned
from modeltiers.controllers.routers import Routers, can_be_asked
from modeltiers.controllers.shelf import tables_of
from modeltiers.controllers.store import Key, Store
from modeltiers.domain.facts import EgressFacts
from modeltiers.domain.hosts import allowed, endpoint_of
from modeltiers.domain.views import DeploymentView, PodView
from modeltiers.render.egress import fleet_of, render_egress
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest


@dataclass(eq=False)
class Egress:
    """The routers of external tiers."""

    store: Store
    settings: Settings
    routers: Routers
    admitted: Admitted | None
    ring: Callable[[Key], None]

    def wanted(self, key: Key, owner: Owner, external: External) -> list[Manifest]:
        """What should exist: nothing without a router image, or where the host is not allowed."""
        endpoint = endpoint_of(external.base_url)
        host = allowed(endpoint.host, self.settings.external_hosts) if endpoint else None
        if endpoint is None or host is None or self.settings.router.image is None:
            return []
        tables = tables_of(self.store, self.settings, key)
        return render_egress(owner, external, endpoint, host, self.settings, tables, self.admitted)

    def facts(self, key: Key, owner: Owner, external: External) -> Mapping[str, Any]:
        """What is known of the routers, as fields of the tier's facts."""
        child = self.store.child(key, "Deployment", fleet_of(owner).name)
        pods = self.store.pods_of(key)
        ref = external.api_key_secret_ref
        return {
            "deployment": DeploymentView.of(child) if child and owned(child, owner.uid) else None,
            "pods": pods,
            "wanted_replicas": self.settings.router.egress_replicas,
            "unschedulable_deadline_seconds": self.settings.limits.unschedulable_deadline_seconds,
            "egress": EgressFacts(ref.name if ref else "", ref.key if ref else "", *self._asked(key, pods)),
        }

    def _asked(self, key: Key, pods: tuple[PodView, ...]) -> tuple[dict[str, str], dict[str, str]]:
        """What each router said last of its way to the API, and of its models; those with news are asked, and ring."""
        before = self._heard(pods)

        def told() -> None:
            if self._heard(pods) != before:
                self.ring(key)

        self.routers.ask(pods, then=told)
        return before

    def _heard(self, pods: tuple[PodView, ...]) -> tuple[dict[str, str], dict[str, str]]:
        states, models = dict[str, str](), dict[str, str]()
        for pod in pods:
            said = self.routers.last(pod) if can_be_asked(pod) else None
            engine = (said.status or {}).get("engine") if said else None
            for word, found in (("state", states), ("models", models)):
                told = engine.get(word) if isinstance(engine, Mapping) else None
                if isinstance(told, str):
                    found[pod.name] = told
        return states, models
