"""What the store knows of policies and tiers, compiled to the tables that routers read.

One place for it, since a policy tells of its table and each tier on its ladder carries it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault as Invalid
from modeltiers.api.parse import parse, parse_policy
from modeltiers.api.routingpolicy import RoutingPolicySpec
from modeltiers.api.settings import Settings
from modeltiers.controllers.following import served_spec
from modeltiers.controllers.store import Body, Key, Store
from modeltiers.domain.direct_table import direct_table
from modeltiers.domain.distill.threshold import job_named, with_threshold
from modeltiers.domain.policy_table import CompiledTable, Fault, TierView, compile_table, fill_shelf


@dataclass(frozen=True, slots=True)
class Seen:
    """A policy, read and compiled."""

    body: Body
    spec: RoutingPolicySpec | None
    invalid: Invalid | None = None
    table: CompiledTable | None = None
    faults: tuple[Fault, ...] = ()


def see_policy(store: Store, settings: Settings, key: Key) -> Seen | None:
    """Return a policy and its table, or why there is none; None when there is no such policy."""
    body = store.policy(key)
    if body is None:
        return None
    policy = parse_policy(body)
    if isinstance(policy, Invalid):
        return Seen(body, None, policy)
    tiers = {one.name: view for one in policy.spec.tiers if (view := _view(store, settings, key[0], one.name))}
    known = {name: None if isinstance(view, Invalid) else view for name, view in tiers.items()}
    spec = _with_threshold(store, key[0], policy.spec)
    found = [spec] if isinstance(spec, Fault) else compile_table(key[1], spec, known, key[0])
    if isinstance(found, CompiledTable):
        return Seen(body, policy.spec, table=found)
    return Seen(body, policy.spec, faults=tuple(found))


def _with_threshold(store: Store, namespace: str, spec: RoutingPolicySpec) -> RoutingPolicySpec | Fault:
    named = job_named(spec)
    body = store.distill((namespace, named)) if named else None
    return with_threshold(spec, None if body is None else body.get("status") or {})


def _view(store: Store, settings: Settings, namespace: str, name: str) -> TierView | Invalid | None:
    body = store.tier((namespace, name))
    if body is None:
        return None
    tier = parse(body)
    if isinstance(tier, Invalid):
        return tier
    spec = served_spec(store, namespace, tier.spec)
    return spec if isinstance(spec, Invalid) else _view_of(name, body, spec, settings)


def _view_of(name: str, body: Body, spec: ModelTierSpec, settings: Settings) -> TierView:
    profile = settings.engine_profiles.get(spec.serving.profile) if spec.serving and spec.serving.profile else None
    return TierView.of(name, spec, body.get("status"), list(profile.args) if profile else [])


def tables_of(store: Store, settings: Settings, tier: Key) -> Mapping[str, str]:
    """Return the files that the routers of a tier read: for each policy that crosses it its table, the oldest first.

    A policy whose present spec does not compile keeps the file that is there: the last good table goes on serving.
    """
    seen = [(key, found) for key in store.policies_of(tier) if (found := see_policy(store, settings, key)) is not None]
    seen.sort(key=lambda one: (one[1].body["metadata"].get("creationTimestamp") or "", one[0]))
    tables = [one.table for _, one in seen if one.table is not None]
    kept = {key: text for key, one in seen if one.table is None for text in _there(store, tier, key[1])}
    taken = {store.models.get(key, "") for key, one in seen if one.table is not None or key in kept}
    if (direct := _direct(store, settings, tier, taken)) is not None:
        tables.insert(0, direct)
    shelf = fill_shelf(tier[1], tables)
    return {**{names.table_key(key[1]): text for key, text in kept.items()}, **shelf.data}


def _direct(store: Store, settings: Settings, tier: Key, taken: Container[str]) -> CompiledTable | None:
    """The table for calls of the tier itself, where its spec allows them and no policy on it has its model's name."""
    body = store.tier(tier)
    parsed = parse(body) if body is not None else None
    if body is None or parsed is None or isinstance(parsed, Invalid) or parsed.spec.access is None:
        return None
    spec = served_spec(store, tier[0], parsed.spec)
    if isinstance(spec, Invalid):
        return None
    view = _view_of(tier[1], body, spec, settings)
    return direct_table(view, parsed.spec.access, tier[0]) if view.model not in taken else None


def _there(store: Store, tier: Key, policy: str) -> list[str]:
    """The file of a policy as it is in the tier's ConfigMap now, if it is there."""
    found = store.child(tier, "ConfigMap", names.table_config_map(tier[1]))
    text = ((found or {}).get("data") or {}).get(names.table_key(policy))
    return [text] if text is not None else []
