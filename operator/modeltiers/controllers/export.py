"""Keeps the HTTPRoute of a policy that asks for one, and takes it away when it does not any more.

HTTPRoutes are read here and not watched: a cluster may not have them, or get them later.
"""

from __future__ import annotations

from dataclasses import dataclass

from modeltiers import names
from modeltiers.api.settings import Settings
from modeltiers.controllers.children import Children, owned
from modeltiers.controllers.shelf import Seen
from modeltiers.domain import conditions, export
from modeltiers.domain.export import Exported
from modeltiers.domain.policy_reasons import EXPORTED
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Ref
from modeltiers.render.owner import Owner
from modeltiers.render.routingpolicy import render_route


@dataclass(eq=False)
class Exporter:
    """Writes and deletes HTTPRoutes."""

    api: Api
    children: Children
    settings: Settings

    async def serve(self, owner: Owner, seen: Seen, *, entered: bool) -> Exported | None:
        """See to the route of a policy; None where it asks for none and has none. `entered`: its Service is there."""
        before = conditions.by_type((seen.body.get("status") or {}).get("conditions") or [])
        if seen.spec is None:
            return export.left_alone() if EXPORTED in before else None
        wanted = seen.spec.export
        if wanted is None:
            return await self._withdraw(owner) if EXPORTED in before else None
        gateway = self.settings.gateways.get(wanted.gateway)
        if gateway is None:
            return export.unknown_gateway(wanted.gateway, self.settings.gateways)
        if not entered:
            return export.nothing_yet()
        try:
            route = await self.children.apply_unwatched(owner, render_route(owner, gateway, wanted.hostnames))
        except errors.NotFound:
            return export.no_api()
        except errors.ApiFault as fault:
            return export.not_written(str(fault.ref), fault.message)
        return export.told_by(route, wanted.gateway)

    async def _withdraw(self, owner: Owner) -> Exported | None:
        ref = Ref(KINDS["HTTPRoute"], owner.namespace, names.policy_route(owner.name))
        try:
            live = await self.api.get(ref)
            if live is not None and owned(live, owner.uid):
                await self.api.delete(ref, uid=live["metadata"]["uid"])
        except errors.ApiFault as fault:
            return export.not_written(f"{ref} is still there", fault.message)
        return None
