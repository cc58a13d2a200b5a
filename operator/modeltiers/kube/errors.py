"""What can go wrong between us and an API server, as one tree:

    Exception
    ├── Undeclared                 the code asks for a right that access.py does not declare: a mistake of ours
    ├── NotLeading                 the fence is up, nothing was sent
    └── ApiFault                   the API server refused, or did not answer
        ├── Transient              worth another try by itself: 5xx, 429, timeouts, no connection, half-deleted things
        │   └── Gone               410: the continue token or resource version is too old
        ├── Unauthorized           401: the credentials are not accepted
        ├── NotFound               404
        ├── Conflict               409: somebody else wrote in between; read again
        ├── AlreadyExists          409 on create
        ├── NameTaken              the name belongs to an object that is not ours
        ├── Rejected               400, 413, 422: stays rejected until what we send changes
        └── Forbidden              403, split by what forbids:
            ├── Denied             RBAC: a right is missing
            ├── QuotaExceeded      a ResourceQuota is used up, or asks for requests that are not set
            ├── PodSecurity        the namespace's Pod Security level forbids the pod
            ├── AdmissionDenied    a webhook, a ValidatingAdmissionPolicy or a built-in plugin says no
            └── NamespaceTerminating

`classify` is the only reader of the server's words. It refuses to know what a fault means for a tier:
`condition_reason` is a word for its status, and what to do is decided above.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from modeltiers.kube.refs import Ref


class Undeclared(Exception):
    """The code asks for a right that `access.USES` does not declare; declare it there, with the reason why."""


class NotLeading(Exception):
    """This replica may not write: it does not lead, or it was asleep for too long to be sure. Nothing was sent."""


class ApiFault(Exception):
    """The API server refused, or did not answer. `code` is the HTTP status, 0 when there was no answer."""

    condition_reason: ClassVar[str] = "ApiFault"

    def __init__(self, ref: Ref, message: str, *, code: int = 0, reason: str = "", verb: str = "") -> None:
        super().__init__(message)
        self.ref = ref
        self.message = message
        self.code = code
        self.reason = reason or type(self).__name__
        self.verb = verb
        self.retry_after: float | None = None

    def __str__(self) -> str:
        said = f" ({self.code})" if self.code else ""
        return f"{self.verb} {self.ref}: {self.message}{said}".lstrip()


class Transient(ApiFault):
    """Another try may well succeed. `retry_after` is the seconds that the server asked for, if it did."""

    condition_reason = "ApiUnavailable"

    @classmethod
    def local(cls, ref: Ref, message: str, retry_after: float | None = None) -> Self:
        """A fault that we see ourselves, without asking the server."""
        fault = cls(ref, message)
        fault.retry_after = retry_after
        return fault


class Gone(Transient):
    """The continue token or the resource version is older than what the server remembers.

    `next_token` continues an interrupted list from a newer moment, when the server offers one.
    """

    next_token: str = ""


class Unauthorized(ApiFault):
    """The credentials are not accepted, also after they were read again."""

    condition_reason = "Unauthorized"


class NotFound(ApiFault):
    """The object, its namespace or its kind does not exist."""

    condition_reason = "NotFound"


class Conflict(ApiFault):
    """The object changed, or is another one, since it was read: read it again."""

    condition_reason = "Conflict"


class AlreadyExists(ApiFault):
    """An object of this name exists."""

    condition_reason = "AlreadyExists"


class NameTaken(ApiFault):
    """An object of this name exists and belongs to somebody else; it is left alone."""

    condition_reason = "NameConflict"

    def __init__(self, ref: Ref, live: Mapping[str, Any] | None = None) -> None:
        owner = next(iter(((live or {}).get("metadata") or {}).get("ownerReferences") or ()), None)
        whose = f"belongs to {owner.get('kind')} {owner.get('name')}" if owner else "was not made by this operator"
        super().__init__(ref, f"{ref} exists and {whose}; delete or rename it, or give the tier another name", code=409)


class Rejected(ApiFault):
    """What we sent is not valid, and stays so until it changes."""

    condition_reason = "Rejected"


class Forbidden(ApiFault):
    """The server understood and says no; its subclasses say what forbids."""

    condition_reason = "Forbidden"


class Denied(Forbidden):
    """RBAC: the operator's ServiceAccount lacks a right."""


class QuotaExceeded(Forbidden):
    """A ResourceQuota of the namespace is used up, or demands requests that are not set."""

    condition_reason = "QuotaExceeded"


class PodSecurity(Forbidden):
    """The Pod Security level of the namespace forbids the pod."""

    condition_reason = "PodSecurityViolation"


class AdmissionDenied(Forbidden):
    """A webhook, a ValidatingAdmissionPolicy or a built-in admission plugin says no."""

    condition_reason = "AdmissionDenied"


class NamespaceTerminating(Forbidden):
    """The namespace is being deleted: nothing new can be made in it."""

    condition_reason = "NamespaceTerminating"


_BY_CODE: Final[Mapping[int, type[ApiFault]]] = {
    400: Rejected,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: Rejected,
    406: Rejected,
    409: Conflict,
    410: Gone,
    413: Rejected,
    415: Rejected,
    422: Rejected,
}

# A webhook chooses its own status code, so admission is recognised by its words, whatever the code.
_ADMISSION: Final = re.compile(r"admission webhook \"[^\"]*\" denied the request")
_POLICY: Final = re.compile(r"ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request")
# Tried in this order on what follows "... is forbidden: ", at its start only: what comes later may be a user's words.
_FORBIDDEN: Final[tuple[tuple[re.Pattern[str], type[ApiFault]], ...]] = (
    (re.compile(r"User \"[^\"]*\" cannot "), Denied),
    (re.compile(r"cannot set blockOwnerDeletion"), Denied),
    (re.compile(r"(exceeded|failed) quota: |insufficient quota to match"), QuotaExceeded),
    (re.compile(r"violates PodSecurity "), PodSecurity),
    (re.compile(r"unable to create new content in namespace \S+ because it is being terminated"), NamespaceTerminating),
    (re.compile(r"status unknown for quota: "), Transient),
)


def classify(code: int, body: Mapping[str, Any] | None) -> type[ApiFault]:
    """The class of fault for an HTTP status and the `Status` object that came with it, if one did."""
    status = body or {}
    message = str(status.get("message") or "")
    if 400 <= code < 500 and (_ADMISSION.match(message) or _POLICY.match(_after_forbidden(message))):
        return AdmissionDenied
    if code == 403:
        return _forbidden(status, message)
    if code == 409 and status.get("reason") == "AlreadyExists":
        return AlreadyExists
    if code == 422 and _another_uid(status):
        # The object was deleted and made anew since it was read: a matter of time, not of what we sent.
        return Conflict
    if code == 500 and message.startswith("failed to create typed patch object"):
        # What server-side apply says of a field that the server's schema lacks or has of another type.
        return Rejected
    return _BY_CODE.get(code, Transient)


def _forbidden(status: Mapping[str, Any], message: str) -> type[ApiFault]:
    causes = (status.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return NamespaceTerminating
    words = _after_forbidden(message)
    for pattern, fault in _FORBIDDEN:
        if pattern.match(words):
            return fault
    # A sentence of the server's own that is none of the above comes from an admission plugin, such as LimitRanger;
    # anything else is from something in between, such as a proxy.
    return AdmissionDenied if words and status.get("kind") == "Status" else Forbidden


def _another_uid(status: Mapping[str, Any]) -> bool:
    causes = (status.get("details") or {}).get("causes") or ()
    return any(cause.get("field") == "metadata.uid" for cause in causes)


def _after_forbidden(message: str) -> str:
    return message.partition(" is forbidden: ")[2]
