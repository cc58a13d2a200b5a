"""Writes children where they differ from what is wanted, and never over an object that is somebody else's."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modeltiers.controllers import metrics
from modeltiers.controllers.hopkey import HopKeys
from modeltiers.controllers.store import OwnerKey, Store
from modeltiers.domain.diff import difference
from modeltiers.kube import errors
from modeltiers.kube.client import CREATE_ONLY, Api
from modeltiers.kube.refs import KINDS, Ref, ref_of
from modeltiers.render.owner import Owner

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Children:
    """Applies children of a tier or a policy."""

    api: Api
    store: Store
    hop_keys: HopKeys

    async def write(
        self, key: OwnerKey, owner: Owner, wanted: Iterable[Mapping[str, Any]]
    ) -> tuple[errors.ApiFault | None, bool]:
        """Write every child that differs; returns the first fault, after trying the others, and whether tables were."""
        first, tables = None, False
        for desired in wanted:
            try:
                kind, name = desired["kind"], desired["metadata"]["name"]
                if kind == "ConfigMap" and owner.kind != "DistillJob" and self.store.child(key, kind, name) is None:
                    await self.hop_keys.ensure(owner.namespace)  # before the first router of the namespace
                tables |= await self.apply(key, owner, desired) and kind == "ConfigMap"
            except errors.ApiFault as fault:
                first = first or fault
        return first, tables

    async def apply(self, key: OwnerKey, owner: Owner, desired: Mapping[str, Any]) -> bool:
        """Write a child if it differs from the one that is remembered of this owner; returns whether it did.

        Raises ApiFault.
        """
        kind, name = desired["kind"], desired["metadata"]["name"]
        live = self.store.child(key, kind, name)
        if live is not None and not owned(live, owner.uid):
            live = await self._whose(owner, desired)
        cause = difference(desired, live)
        if cause is None:
            return False
        try:
            applied = await self._write(desired, live)
        except errors.Conflict:
            # Created, deleted or changed hands between the watch and now: look once, then say or try once more.
            live = await self._whose(owner, desired)
            applied = await self._write(desired, live)
        self.store.put_child(kind, applied)
        metrics.WRITES.labels(kind, "missing" if live is None else "differs").inc()
        log.info("applied %s %s/%s: %s", kind, owner.namespace, name, cause)
        return True

    async def prune(self, key: OwnerKey, owner: Owner, wanted: Iterable[Mapping[str, Any]]) -> errors.ApiFault | None:
        """Delete what this owner has of old and does not want any more; returns what failed."""
        kept = {(desired["kind"], desired["metadata"]["name"]) for desired in wanted}
        return await self.delete(key, owner, (one for one in self.store.children_of(key) if one not in kept))

    async def delete(self, key: OwnerKey, owner: Owner, old: Iterable[tuple[str, str]]) -> errors.ApiFault | None:
        """Delete these children, kinds and names, where this owner has them; returns what failed, and stops there."""
        for kind, name in tuple(old):
            live = self.store.child(key, kind, name)
            if live is None or not owned(live, owner.uid):
                continue
            try:
                await self.api.delete(Ref(KINDS[kind], owner.namespace, name), uid=live["metadata"]["uid"])
            except errors.ApiFault as fault:
                return fault
            self.store.drop_child(kind, live)
            log.info("deleted %s %s/%s: not wanted any more", kind, owner.namespace, name)
        return None

    async def apply_unwatched(self, owner: Owner, desired: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write a child of a kind that is not watched if it differs, and return it as it is then. Raises ApiFault."""
        live = await self._whose(owner, desired)
        cause = difference(desired, live)
        if cause is None and live is not None:
            return live
        applied = await self._write(desired, live)
        metrics.WRITES.labels(desired["kind"], "missing" if live is None else "differs").inc()
        log.info("applied %s %s/%s: %s", desired["kind"], owner.namespace, desired["metadata"]["name"], cause)
        return applied

    async def _write(self, desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> Mapping[str, Any]:
        guard = {"resourceVersion": CREATE_ONLY} if live is None else {"uid": live["metadata"]["uid"]}
        return await self.api.apply({**desired, "metadata": {**desired["metadata"], **guard}})

    async def _whose(self, owner: Owner, desired: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The live object if it is ours or absent; a fault when it is somebody else's."""
        ref = ref_of(desired)
        live = await self.api.get(ref)
        if live is None or owned(live, owner.uid):
            return live
        if _owned_by_namesake(live, owner):
            what = {"ModelTier": "tier", "RoutingPolicy": "policy"}.get(owner.kind, owner.kind)
            raise errors.Transient.local(
                ref, f"waits for the garbage collector: it belongs to a deleted {what} of this name"
            )
        raise errors.NameTaken(ref, live)


def owned(body: Mapping[str, Any], uid: str) -> bool:
    """Whether an object belongs to the owner with this uid."""
    return any(owner.get("uid") == uid for owner in body["metadata"].get("ownerReferences") or ())


def _owned_by_namesake(body: Mapping[str, Any], owner: Owner) -> bool:
    owners = body["metadata"].get("ownerReferences") or ()
    return any(one.get("kind") == owner.kind and one.get("name") == owner.name for one in owners)
