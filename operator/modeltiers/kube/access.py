"""Every right that the operator uses, and why; RBAC manifests are rendered from it.

`Api` refuses what is not declared here, so the declaration cannot fall behind the code; tests run the operator under
the roles rendered here, so they cannot fall behind either. It refuses wildcards: a right is a verb on a kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from modeltiers import names
from modeltiers.api.crd import HEADER
from modeltiers.kube.refs import KINDS, Kind

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete"]
Scope = Literal["Tier namespaces", "Own namespace", "Cluster"]
Declared = tuple[str, str, str]
"""A verb, the name of a kind, and a subresource or nothing."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Verbs on one kind, where they hold, and why they are needed.

    A grant by the user is declared, so that `Api` may try, and is in no manifest of ours: users grant it on one object.
    """

    kind: str
    verbs: tuple[Verb, ...]
    scope: Scope
    why: str
    subresource: str = ""
    only: tuple[str, ...] = ()
    """Names of the objects that it is for; all when empty."""
    by_user: bool = False


USES: Final[tuple[Grant, ...]] = (
    Grant("ModelTier", ("list", "watch"), "Tier namespaces", "read the tiers to serve"),
    Grant("ModelTier", ("patch",), "Tier namespaces", "say in status what was seen", subresource="status"),
    Grant("RoutingPolicy", ("list", "watch"), "Tier namespaces", "read the policies to put into force"),
    Grant("RoutingPolicy", ("patch",), "Tier namespaces", "say in status what was seen", subresource="status"),
    Grant("DistillJob", ("list", "watch"), "Tier namespaces", "read the distillations to run"),
    Grant("DistillJob", ("patch",), "Tier namespaces", "say in status what was seen", subresource="status"),
    Grant("Job", ("get", "list", "watch", "create", "patch"), "Tier namespaces", "run the stages of a distillation"),
    # Server-side apply is a patch that also asks for `create` when there is no object yet.
    Grant("Deployment", ("get", "list", "watch", "create", "patch"), "Tier namespaces", "run the engine of a tier"),
    Grant("Service", ("get", "list", "watch", "create", "patch"), "Tier namespaces", "give a tier its address"),
    Grant(
        "ConfigMap",
        ("get", "list", "watch", "create", "patch"),
        "Tier namespaces",
        "give the routers of a tier their tables",
    ),
    Grant("ServiceAccount", ("get", "list", "watch", "create", "patch"), "Tier namespaces", "run pods without a token"),
    Grant(
        "PodDisruptionBudget",
        ("get", "list", "watch", "create", "patch"),
        "Tier namespaces",
        "keep a drain from taking a tier's last replica",
    ),
    Grant(
        "NetworkPolicy",
        ("get", "list", "watch", "create", "patch"),
        "Tier namespaces",
        "let clients reach a router's serving port alone",
    ),
    Grant(
        "HorizontalPodAutoscaler",
        ("get", "list", "watch", "create", "patch"),
        "Tier namespaces",
        "have as many routers in a gateway as its load asks for; leave pods alone whose number another one writes",
    ),
    *(
        Grant(
            kind,
            ("delete",),
            "Tier namespaces",
            "take away the routers of a gateway or before an external API, or a candidate, when a spec wants none",
        )
        for kind in (
            *("Deployment", "Service", "ConfigMap", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"),
            "HorizontalPodAutoscaler",
        )
    ),
    Grant(
        "Job",
        ("delete",),
        "Tier namespaces",
        "end a stage that is suspended, to be tried again, or another before it has begun",
    ),
    Grant(
        "HTTPRoute",
        ("get", "create", "patch", "delete"),
        "Tier namespaces",
        "lead clients from outside to a policy that asks for it",
    ),
    Grant(
        "InferencePool",
        ("get", "create", "patch", "delete"),
        "Tier namespaces",
        "let an endpoint picker choose among the routers of a policy that asks for it",
    ),
    Grant("Pod", ("list", "watch"), "Tier namespaces", "say why a replica is not ready; count accelerators in use"),
    Grant("Pod", ("patch",), "Tier namespaces", "touch an annotation, so that a new table is read within a second"),
    Grant("PersistentVolumeClaim", ("get",), "Tier namespaces", "tell whether many nodes can mount a cache or a store"),
    Grant("Event", ("create", "patch"), "Tier namespaces", "tell users what happened, and count it up"),
    Grant("Event", ("list",), "Tier namespaces", "say why a Job has no pod or a pod no volumes: only they tell"),
    Grant("Secret", ("get",), "Tier namespaces", "try an external tier's key, where a user allows it", by_user=True),
    # An apply names its object, so that creating can be granted for one name. No `get`: what was made is never read.
    Grant(
        "Secret",
        ("create", "patch"),
        "Tier namespaces",
        "make the key with which the routers of a namespace sign what they forward",
        only=(names.HOP_SECRET,),
    ),
    Grant("Node", ("list", "watch"), "Cluster", "see which accelerators the cluster has"),
    Grant("Lease", ("get", "create", "update"), "Own namespace", "have one leader among the replicas"),
)

RBAC: Final = "rbac.authorization.k8s.io"


def declared(uses: Iterable[Grant] = USES) -> frozenset[Declared]:
    """The grants as the set that `Api` looks a call up in."""
    return frozenset((verb, grant.kind, grant.subresource) for grant in uses for verb in grant.verbs)


def rules(uses: Iterable[Grant], *scopes: Scope) -> list[dict[str, Any]]:
    """The rules of a role that grants what holds in these places, but for what users grant themselves."""
    return [_rule(grant) for scope in scopes for grant in uses if grant.scope == scope and not grant.by_user]


def rbac_manifests(
    watch_namespaces: Sequence[str] = (),
    namespace: str = names.OPERATOR_NAMESPACE,
    uses: Sequence[Grant] = USES,
) -> list[dict[str, Any]]:
    """The operator's ServiceAccount, roles and bindings.

    With no `watch_namespaces` the operator works in all of them and gets a ClusterRole; else it gets a Role in each and
    nothing cluster-wide: no nodes.
    """
    account = _object("v1", "ServiceAccount", names.OPERATOR_NAME, namespace)
    made = [account, *_role(rules(uses, "Own namespace"), names.OPERATOR_NAME, namespace, account)]
    if not watch_namespaces:
        return [*made, *_role(rules(uses, "Tier namespaces", "Cluster"), names.OPERATOR_NAME, "", account)]
    for watched in sorted(set(watch_namespaces)):
        made += _role(rules(uses, "Tier namespaces"), f"{names.OPERATOR_NAME}-tiers", watched, account)
    return made


def _role(
    granted: Sequence[Mapping[str, Any]], name: str, namespace: str, account: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A Role and its binding in a namespace, or a ClusterRole and its binding when the namespace is empty."""
    prefix = "" if namespace else "Cluster"
    yield {**_object(f"{RBAC}/v1", f"{prefix}Role", name, namespace), "rules": list(granted)}
    metadata = account["metadata"]
    yield {
        **_object(f"{RBAC}/v1", f"{prefix}RoleBinding", name, namespace),
        "roleRef": {"apiGroup": RBAC, "kind": f"{prefix}Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": metadata["name"], "namespace": metadata["namespace"]}],
    }


def _rule(grant: Grant) -> dict[str, Any]:
    kind: Kind = KINDS[grant.kind]
    resource = f"{kind.plural}/{grant.subresource}" if grant.subresource else kind.plural
    some = {"resourceNames": list(grant.only)} if grant.only else {}
    return {"apiGroups": [kind.group], "resources": [resource], **some, "verbs": list(grant.verbs)}


def _object(api_version: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
    labels = {names.LABEL_NAME: names.OPERATOR_NAME, names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


_ABOUT_RIGHTS: Final = """\
What its roles grant, and no more. The roles in `manifests/rbac.yaml` and in the chart are made from this list, the
operator refuses itself a call that is not on it, and the tests on a control plane fail for a right that none of them
uses. No verb and no kind is a wildcard. With `watchNamespaces` the rights in namespaces of tiers are Roles there, and
those in the cluster are left out.
"""


def rights_page() -> str:
    """The reference page of the operator's rights."""
    lines = [f"<!-- {HEADER} -->\n", "# Rights of the operator\n", _ABOUT_RIGHTS]
    lines += ["| kind | verbs | where | why |", "|---|---|---|---|"]
    for grant in USES:
        kind = f"{grant.kind}/{grant.subresource}" if grant.subresource else grant.kind
        only = f", named `{'`, `'.join(grant.only)}`" if grant.only else ""
        where = "one object, where a user grants it" if grant.by_user else grant.scope.lower()
        lines.append(f"| {kind}{only} | {', '.join(grant.verbs)} | {where} | {grant.why} |")
    return "\n".join(lines) + "\n"
