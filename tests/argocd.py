"""Argo CD's scripts as Argo CD runs them, and what they should say by a reference that is written in Python.

Lua 5.1 with the libraries that Argo CD opens for a script from argocd-cm: base and table, no strings, no files. The
reference is kstatus, with the two states that only people end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lupa import lua51

from modeltiers.domain import kstatus
from modeltiers.domain.conditions import by_type

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "manifests/argocd/resource_customizations/modeltiers.dev"
KINDS = ("ModelTier", "RoutingPolicy", "DistillJob")
CLOSED = ("string", "math", "io", "debug", "coroutine", "package", "require", "os", "python", "dofile", "loadfile")
"""What Argo CD does not open; of `os` it opens a few harmless functions, which ours do without."""


@dataclass(frozen=True)
class Health:
    """What Argo CD shows of a resource."""

    status: str
    message: str


def run(script: Path, obj: Mapping[str, Any]) -> Any:
    """Run a script over an object and return what it returns, as JSON would have it."""
    lua, chunk = _compiled(script)
    lua.globals()["obj"] = _given(lua, obj)
    return _taken(chunk())


def health(obj: Mapping[str, Any]) -> Health:
    """What Argo CD says of an object of ours; of one that is being deleted it says so without asking the script."""
    if obj["metadata"].get("deletionTimestamp"):
        return Health("Progressing", "Pending deletion")
    found = run(SCRIPTS / obj["kind"] / "health.lua", obj)
    assert found.keys() == {"status", "message"}
    return Health(found["status"], found["message"])


def actions(obj: Mapping[str, Any]) -> dict[str, bool]:
    """The actions that Argo CD offers on an object, and whether each is enabled."""
    found = run(SCRIPTS / obj["kind"] / "actions/discovery.lua", obj)
    return {name: not about.get("disabled", False) for name, about in found.items()}


def acted(obj: Mapping[str, Any], action: str) -> dict[str, Any]:
    """The object as an action would leave it."""
    changed = _cleaned(run(SCRIPTS / obj["kind"] / "actions" / action / "action.lua", obj), obj)
    assert isinstance(changed, dict)
    return changed


def expected(obj: Mapping[str, Any]) -> Health:
    """What should be said: kstatus, but that a person's pause is Suspended, and the reason comes with the message."""
    said = by_type((obj.get("status") or {}).get("conditions") or ())
    told = kstatus.compute(obj).status
    observed = (obj.get("status") or {}).get("observedGeneration")
    if told is kstatus.Status.TERMINATING:
        return Health("Progressing", "Pending deletion")
    if observed is None or observed != obj["metadata"].get("generation"):
        return Health("Progressing", "Waiting for the operator to look at the present spec")
    if told is kstatus.Status.FAILED:
        return Health("Degraded", _told(said, "Stalled"))
    if told is kstatus.Status.CURRENT:
        return Health("Healthy", _told(said, "Complete" if obj["kind"] == "DistillJob" else "Ready"))
    if said.get("AwaitingApproval", {}).get("status") == "True":
        return Health("Suspended", _told(said, "AwaitingApproval"))
    moving = said.get("Reconciling", {})
    if obj["kind"] == "DistillJob" and moving.get("status") == "True" and moving.get("reason") == "Suspended":
        return Health("Suspended", _told(said, "Reconciling"))
    return Health("Progressing", _told(said, "Reconciling" if moving.get("status") == "True" else "Ready"))


def breach(obj: Mapping[str, Any]) -> str | None:
    """How Argo CD's word on an object differs from what should be said; None when it does not."""
    found, wanted = health(obj), expected(obj)
    ready = by_type((obj.get("status") or {}).get("conditions") or ()).get("Ready", {}).get("status")
    if found.status == "Healthy" and ready != "True":
        return "Argo CD says Healthy and it is not Ready"
    return None if found == wanted else f"Argo CD says {found}, and should say {wanted}"


def _told(said: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    return f"{said[kind]['reason']}: {said[kind]['message']}" if kind in said else f"No condition {kind} yet"


@cache
def _compiled(script: Path) -> tuple[Any, Any]:
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    for name in CLOSED:
        lua.globals()[name] = None
    # Without its library a string has no methods either.
    lua.execute("getmetatable('').__index = nil")
    return lua, lua.compile(script.read_text(encoding="utf-8"))


def _given(lua: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _given(lua, item) for key, item in value.items() if item is not None})
    if isinstance(value, list | tuple):
        return lua.table_from([_given(lua, item) for item in value])
    return value


def _taken(value: Any) -> Any:
    """A value of Lua's; an empty table is an empty list, as it is to Argo CD."""
    if lua51.lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    found = dict(value.items())
    if all(isinstance(key, int) for key in found):
        return [_taken(found[place]) for place in range(1, len(found) + 1)]
    return {key: _taken(item) for key, item in found.items()}


def _cleaned(value: Any, before: Any) -> Any:
    """What Argo CD makes of an action's answer: what was an empty map is one again."""
    if isinstance(before, Mapping) and value == []:
        return {}
    if isinstance(value, dict) and isinstance(before, Mapping):
        return {key: _cleaned(item, before.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(before, list):
        return [_cleaned(item, before[place] if place < len(before) else None) for place, item in enumerate(value)]
    return value
