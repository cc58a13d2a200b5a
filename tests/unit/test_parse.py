"""Reading a ModelTier: whatever JSON comes, the answer is a model or a fault with the way out."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.modeltier import ModelTier
from modeltiers.api.parse import LONGEST_MESSAGE, Fault, parse

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
TIER: dict[str, Any] = {
    "apiVersion": "modeltiers.dev/v1alpha1",
    "kind": "ModelTier",
    "metadata": {"name": "small"},
    "spec": {"model": {"source": "hf://org/name"}, "accelerators": [{"name": "h100", "product": "NVIDIA-H100"}]},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)
FIELDS = sorted(ModelTier.model_json_schema()["$defs"]["ModelTierSpec"]["properties"])


def tier(**spec: Any) -> dict[str, Any]:
    """A sound tier with some of its spec replaced."""
    return {**TIER, "spec": {**TIER["spec"], **spec}}


def fault(body: object) -> Fault:
    """The fault of a body that has one."""
    found = parse(body)
    assert isinstance(found, Fault)
    return found


def well_formed(found: ModelTier | Fault) -> bool:
    """What every answer keeps to."""
    if isinstance(found, ModelTier):
        return True
    return 0 < len(found.message) <= LONGEST_MESSAGE and len(found.path) <= 256 and found.message.isprintable()


class TestAnyJson:
    """Properties over everything that JSON can say."""

    @given(JSON)
    def test_a_value(self, body: Any) -> None:
        """Never an exception."""
        assert well_formed(parse(body))

    @given(st.dictionaries(st.sampled_from(FIELDS) | st.text(st.characters()), JSON, max_size=5), JSON, JSON)
    def test_a_spec(self, spec: dict[str, Any], metadata: Any, status: Any) -> None:
        """Also where it looks like a tier, whatever is in it."""
        assert well_formed(parse({**TIER, "metadata": metadata, "status": status, "spec": spec}))

    @given(st.text(string.ascii_letters, min_size=65, max_size=2000), st.sampled_from(FIELDS))
    def test_long_values_are_not_repeated(self, value: str, field: str) -> None:
        """No more than 64 characters of anything that was sent: it may be a secret in the wrong place."""
        for body in (tier(**{field: value}), tier(**{value: 1}), tier(model={"source": value, value: value})):
            message = fault(body).message
            assert not any(value[start : start + 65] in message for start in range(len(value) - 64))


class TestTolerance:
    """What must not stop a tier."""

    @pytest.mark.parametrize("status", [None, 3, {"observedGeneration": "x"}, {"conditions": {"a": 1}, "new": True}])
    def test_the_status_is_ignored(self, status: Any) -> None:
        """An older or newer operator wrote it, or somebody else."""
        found = parse({**TIER, "status": status})
        assert isinstance(found, ModelTier)
        assert found.status is None

    def test_metadata_is_taken_as_it_is(self) -> None:
        """It belongs to Kubernetes, which adds fields."""
        metadata = {"name": "small", "newField": {"a": [1]}}
        found = parse({**TIER, "metadata": metadata})
        assert isinstance(found, ModelTier)
        assert found.metadata == metadata

    def test_defaults_are_filled_in(self) -> None:
        """Those below lists and those that the API server does not know."""
        found = parse(tier(serving={}))
        assert isinstance(found, ModelTier)
        assert found.spec.serving is not None
        assert (found.spec.replicas, found.spec.serving.args, found.spec.serving.shutdown_seconds) == (1, [], 120)

    @pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXAMPLES)))
    def test_examples(self, path: Path) -> None:
        """All of ours can be read."""
        for body in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if body and body.get("kind") == "ModelTier":
                assert isinstance(parse(body), ModelTier), parse(body)


class TestFaults:
    """Each names the field and the way out."""

    @pytest.mark.parametrize(
        ("spec", "path", "message"),
        [
            (
                {"color": 1},
                "spec.color",
                "spec.color: is not a field that this version of the operator knows (modeltiers.dev/v1alpha1);",
            ),
            (
                {"replicas": "3"},
                "spec.replicas",
                "spec.replicas: should be a valid integer; see kubectl explain modeltier.spec.replicas",
            ),
            (
                {"model": 3},
                "spec.model",
                "spec.model: should be an object; see kubectl explain modeltier.spec.model",
            ),
            (
                {"accelerators": [{"name": "a", "product": "P", "gpusPerNode": 65}]},
                "spec.accelerators[0].gpusPerNode",
                "spec.accelerators[0].gpusPerNode: should be less than or equal to 64; see kubectl",
            ),
            (
                {"external": {"model": "m"}},
                "spec.external.baseUrl",
                "spec.external.baseUrl: is required; add it, see kubectl explain modeltier.spec.external.baseUrl",
            ),
            (
                {"scheduling": {"nodeSelector": {"a b": "x"}}},
                "spec.scheduling.nodeSelector.a b",
                "spec.scheduling.nodeSelector.a b: its key should match pattern",
            ),
        ],
    )
    def test_field(self, spec: dict[str, Any], path: str, message: str) -> None:
        """One wrong field, one sentence."""
        found = fault(tier(**spec))
        assert found.path == path
        assert found.message.startswith(message)

    def test_all_of_them_are_named(self) -> None:
        """Several faults are one message, in the order of the spec."""
        found = fault(tier(rank=-1, replicas=-1))
        assert found.path == "spec.rank"
        assert [part.split(":")[0] for part in found.message.split("; ")][::2] == ["spec.rank", "spec.replicas"]

    def test_too_many_are_counted(self) -> None:
        """A message stays inside its bound and says what it leaves out."""
        found = fault(tier(**{f"field{number}": number for number in range(100)}))
        assert len(found.message) <= LONGEST_MESSAGE
        assert found.message.endswith(" more")

    @pytest.mark.parametrize(
        "body", [{}, {**TIER, "kind": "Pod"}, {**TIER, "apiVersion": "modeltiers.dev/v9"}, 3, None]
    )
    def test_another_thing(self, body: Any) -> None:
        """What is no ModelTier of this version is said to be none."""
        assert "ModelTier" in fault(body).message or "v1alpha1" in fault(body).message

    def test_control_characters_do_not_get_through(self) -> None:
        """A name that nobody knows cannot write a line of its own into a log."""
        assert "\n" not in fault(tier(**{"a\nb\x1b[31m": 1})).message


def test_deeply_nested() -> None:
    """Depth is no way to bring the operator down."""
    deep: Any = json.loads("[" * 900 + "]" * 900)
    assert well_formed(parse(tier(model=deep)))
    assert well_formed(parse({**TIER, "metadata": {"deep": deep}}))
