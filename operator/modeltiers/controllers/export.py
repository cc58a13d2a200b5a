"""Keeps the HTTPRoute and the InferencePool of a policy that asks for them, and takes them away when it does not.

They are read here and not watched: a cluster may not have these kinds, or get them later.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from modeltiers.render.routingpolicy import render_pool, render_route


@dataclass(eq=False)
class Exporter:
    """Writes and deletes HTTPRoutes and InferencePools."""

    api: Api
    children: Children
    settings: Settings

    async def serve(self, owner: Owner, seen: Seen, pods: Mapping[str, str] | None) -> Exported | None:
        """See to the route of a policy; None where it asks for none and has none.

        `pods` are the labels of the routers behind its Service; None while there is no Service.
        """
        before = conditions.by_type((seen.body.get("status") or {}).get("conditions") or [])
        if seen.spec is None:
            return export.left_alone() if EXPORTED in before else None
        wanted = seen.spec.export
        if wanted is None:
            return await self._withdraw(owner) if EXPORTED in before else None
        gateway = self.settings.gateways.get(wanted.gateway)
        if gateway is None:
            return export.unknown_gateway(wanted.gateway, self.settings.gateways)
        if pods is None:
            return export.nothing_yet()
        try:
            if wanted.endpoint_picker is not None:
                await self.children.apply_unwatched(owner, render_pool(owner, pods, wanted.endpoint_picker))
            route = await self.children.apply_unwatched(owner, render_route(owner, gateway, wanted))
            if wanted.endpoint_picker is None:
                await self._delete("InferencePool", owner)
        except errors.NotFound as fault:
            return export.no_api(fault.ref.kind.kind)
        except errors.ApiFault as fault:
            return export.not_written(str(fault.ref), fault.message)
        return export.told_by(route, wanted.gateway)

    async def _withdraw(self, owner: Owner) -> Exported | None:
        try:
            for kind in ("HTTPRoute", "InferencePool"):
                await self._delete(kind, owner)
        except errors.ApiFault as fault:
            return export.not_written(f"{fault.ref} is still there", fault.message)
        return None

    async def _delete(self, kind: str, owner: Owner) -> None:
        ref = Ref(KINDS[kind], owner.namespace, names.policy_route(owner.name))
        live = await self.api.get(ref)
        if live is not None and owned(live, owner.uid):
            await self.api.delete(ref, uid=live["metadata"]["uid"])
