"""How answers of an API server become faults. The messages are those of a real kube-apiserver 1.37, shortened."""

from typing import Any

import pytest

from modeltiers.kube import errors
from modeltiers.kube.refs import KINDS, Ref, kind_of, path_of, ref_of


def status(code: int, message: str, reason: str = "", causes: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """A Status object as it comes from the wire."""
    made: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    made |= {"reason": reason} if reason else {}
    return made | ({"details": {"causes": causes}} if causes else {})


ACCOUNT = "system:serviceaccount:modeltiers-system:modeltiers-operator"
REAL = [
    (
        errors.Denied,
        403,
        f'deployments.apps "d" is forbidden: User "{ACCOUNT}" cannot patch resource "deployments" in API group "apps"',
        "Forbidden",
        None,
    ),
    (
        errors.Denied,
        403,
        'deployments.apps "d" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource',
        "Forbidden",
        None,
    ),
    (
        errors.QuotaExceeded,
        403,
        'pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0',
        "Forbidden",
        None,
    ),
    (
        errors.QuotaExceeded,
        403,
        'pods "p" is forbidden: failed quota: q: must specify limits.cpu for: e',
        "Forbidden",
        None,
    ),
    (
        errors.PodSecurity,
        403,
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
        "Forbidden",
        None,
    ),
    (
        errors.NamespaceTerminating,
        403,
        'serviceaccounts "s" is forbidden: unable to create new content in namespace x because it is being terminated',
        "Forbidden",
        [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}],
    ),
    (
        errors.AdmissionDenied,
        403,
        'pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2',
        "Forbidden",
        None,
    ),
    # A policy chooses its own code and words; its words do not make it a quota.
    (
        errors.AdmissionDenied,
        422,
        "pods \"s\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: exceeded quota: ha",
        "Invalid",
        [{"message": "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: exceeded quota: ha"}],
    ),
    (errors.AdmissionDenied, 400, 'admission webhook "w.example.com" denied the request: no', "BadRequest", None),
    (errors.AdmissionDenied, 403, 'admission webhook "w.example.com" denied the request: no', "Forbidden", None),
    # A webhook that cannot be reached is not a verdict.
    (
        errors.Transient,
        500,
        'Internal error occurred: failed calling webhook "w.example.com": dial tcp 127.0.0.1:1: connect: refused',
        "InternalError",
        None,
    ),
    (errors.AlreadyExists, 409, 'deployments.apps "d" already exists', "AlreadyExists", None),
    (
        errors.Conflict,
        409,
        'Operation cannot be fulfilled on deployments.apps "d": the object has been modified',
        "Conflict",
        None,
    ),
    (
        errors.Conflict,
        422,
        'Deployment.apps "d" is invalid: metadata.uid: Invalid value: "u": field is immutable',
        "Invalid",
        [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}],
    ),
    (
        errors.Rejected,
        422,
        'Deployment.apps "d" is invalid: spec.selector: Invalid value: {}: field is immutable',
        "Invalid",
        [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "spec.selector"}],
    ),
    (
        errors.Rejected,
        500,
        "failed to create typed patch object (x/d; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema",
        "",
        None,
    ),
    (errors.Rejected, 413, "Request entity too large: limit is 3145728", "RequestEntityTooLarge", None),
    (errors.Rejected, 400, "field label not supported: nope", "BadRequest", None),
    (errors.NotFound, 404, 'namespaces "nons" not found', "NotFound", None),
    (errors.Unauthorized, 401, "Unauthorized", "Unauthorized", None),
    (errors.Gone, 410, "The provided continue parameter is too old", "Expired", None),
    (errors.Transient, 429, "the server has received too many requests", "TooManyRequests", None),
    (errors.Transient, 503, "apiserver not ready", "ServiceUnavailable", None),
    (errors.Transient, 504, "Timeout: request did not complete within requested timeout", "Timeout", None),
]


@pytest.mark.parametrize(("expected", "code", "message", "reason", "causes"), REAL)
def test_real_answers_are_told_apart(
    expected: type[errors.ApiFault], code: int, message: str, reason: str, causes: list[dict[str, str]] | None
) -> None:
    """Each answer of a real server has the class that says what to do about it."""
    assert errors.classify(code, status(code, message, reason, causes)) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [(403, errors.Forbidden), (404, errors.NotFound), (502, errors.Transient), (302, errors.Transient)],
)
def test_an_answer_that_is_not_a_status(code: int, expected: type[errors.ApiFault]) -> None:
    """A proxy in between answers in its own words; nothing is read out of them."""
    assert errors.classify(code, None) is expected
    assert errors.classify(code, {"error": "x"}) is expected


def test_a_name_cannot_pretend_to_be_a_cause() -> None:
    """Only the start of what the server says is read: names and policies' words come later."""
    message = 'widgets "x" is forbidden: a plugin says: violates PodSecurity "no"'
    assert errors.classify(403, status(403, message, "Forbidden")) is errors.AdmissionDenied


def test_the_fence_and_a_mistake_of_ours_are_not_faults_of_the_server() -> None:
    """Code that handles faults of the server does not swallow them."""
    assert not issubclass(errors.NotLeading, errors.ApiFault)
    assert not issubclass(errors.Undeclared, errors.ApiFault)


def test_the_docstring_draws_every_class() -> None:
    """The tree in the module's docstring is the tree."""
    tree = errors.__doc__ or ""
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert len(classes) > 10
    assert all(item.__name__ in tree for item in classes)


def test_a_fault_says_what_was_asked_of_what() -> None:
    """The text names the verb, the object and the code."""
    ref = Ref(KINDS["Service"], "team-a", "small")
    assert str(errors.Rejected(ref, "no such field", code=422, verb="patch")) == (
        "patch Service team-a/small: no such field (422)"
    )
    live = {"metadata": {"ownerReferences": [{"kind": "Ingress", "name": "i"}]}}
    assert "belongs to Ingress i" in str(errors.NameTaken(ref, live))
    assert errors.Transient.local(ref, "later", 3.0).retry_after == 3.0


def test_paths() -> None:
    """Paths of objects, collections and subresources, with and without a group and a namespace."""
    tier = Ref(KINDS["ModelTier"], "team-a", "small")
    assert path_of(tier, "status") == "/apis/modeltiers.dev/v1alpha1/namespaces/team-a/modeltiers/small/status"
    assert path_of(Ref(KINDS["Pod"], "", "")) == "/api/v1/pods"
    assert path_of(Ref(KINDS["Pod"], "team-a", "")) == "/api/v1/namespaces/team-a/pods"
    assert path_of(Ref(KINDS["Node"], "", "n1")) == "/api/v1/nodes/n1"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?x", "a%2e", "-a", "a b", "ä"])
def test_a_name_that_would_change_the_path_is_refused(name: str) -> None:
    """Whatever a resource refers to, a path cannot be walked with it."""
    with pytest.raises(ValueError, match="name"):
        Ref(KINDS["Secret"], "team-a", name)
    with pytest.raises(ValueError, match="name"):
        Ref(KINDS["Secret"], name, "a")


def test_every_object_names_its_namespace() -> None:
    """A namespaced object without one, or a cluster-wide object with one, is a mistake."""
    with pytest.raises(ValueError, match="needs a namespace"):
        Ref(KINDS["Service"], "", "small")
    with pytest.raises(ValueError, match="has no namespace"):
        Ref(KINDS["Node"], "team-a", "n1")


def test_only_kinds_of_the_table_exist() -> None:
    """No kind that a user names can be touched, nor a known kind of another version."""
    with pytest.raises(ValueError, match="is not a kind"):
        kind_of({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"})
    with pytest.raises(ValueError, match="is not a kind"):
        ref_of({"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "b"}})
