"""Which rights the operator used, by what the API servers of this session wrote into their audit logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from e2e.cluster.audit import requests
from modeltiers import names
from modeltiers.kube.access import USES
from modeltiers.kube.refs import KINDS

Right = tuple[str, str]
"""A verb, and a resource with its subresource."""


_OPERATOR = re.compile(rf"system:serviceaccount:(?!test-).*:{names.OPERATOR_NAME}")
"""Not the accounts of the same name with which tests try rights themselves, in namespaces of their own."""


def used(logs: Iterable[Path]) -> set[Right]:
    """What every operator asked for and was allowed.

    A server-side apply is a patch, and a creation too where there was nothing. Discovery has no resource, and every
    account may ask it.
    """
    found: set[Right] = set()
    for log in logs:
        for one in requests(log):
            if not _OPERATOR.fullmatch(one.user) or one.forbidden or not one.resource:
                continue
            resource = f"{one.resource}/{one.subresource}" if one.subresource else one.resource
            found.add((one.verb, resource))
            if one.verb == "patch" and one.code == 201:
                found.add(("create", resource))
    return found


def granted(*, by_user: bool = False) -> set[Right]:
    """What the operator's roles grant; or what users grant on single objects."""
    return {
        (verb, f"{KINDS[one.kind].plural}/{one.subresource}" if one.subresource else KINDS[one.kind].plural)
        for one in USES
        if one.by_user is by_user
        for verb in one.verbs
    }
