"""What becomes of the models: facts that users rely on, determinism, and files that do not drift."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from click.testing import CliRunner
from pydantic import Field

from modeltiers.api import crd as crds
from modeltiers.api import schema
from modeltiers.api.base import Model, Rule, cel, listed_by
from modeltiers.api.model import ModelSource
from modeltiers.cli import generate

ROOT = Path(__file__).parent.parent.parent
CRD = crds.crd(crds.MODEL_TIER)
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
NODES = dict(schema.nodes(VERSION["schema"]["openAPIV3Schema"]))


class TestModelTier:
    """Facts of the API that a change must not slip past a review."""

    def test_names(self) -> None:
        """How people call it."""
        assert CRD["metadata"] == {"name": "modeltiers.modeltiers.dev"}
        assert CRD["spec"]["scope"] == "Namespaced"
        assert CRD["spec"]["names"] == {
            "kind": "ModelTier",
            "listKind": "ModelTierList",
            "plural": "modeltiers",
            "singular": "modeltier",
            "shortNames": ["mt"],
            "categories": ["tiering"],
        }

    def test_subresources(self) -> None:
        """What kubectl scale, HPA and KEDA use."""
        assert VERSION["subresources"] == {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        }
        assert NODES["spec.replicas"]["default"] == 1

    def test_columns(self) -> None:
        """What kubectl get shows, without and with -o wide."""
        columns = [(column["name"], column.get("priority", 0)) for column in VERSION["additionalPrinterColumns"]]
        shown = [name for name, priority in columns if priority == 0]
        assert shown == ["READY", "STATUS", "MODEL", "GPUS", "TP", "AGE"]
        assert [name for name, priority in columns if priority == 1] == ["ENDPOINT", "IMAGE", "ACCELERATOR"]

    def test_defaults(self) -> None:
        """All of them, and none below a list."""
        assert {path: node["default"] for path, node in NODES.items() if "default" in node} == {
            "spec.model.quantization": "Auto",
            "spec.model.kvCacheDtype": "Auto",
            "spec.model.architecture.tieEmbeddings": False,
            "spec.model.architecture.attention": "Full",
            "spec.external.price.currency": "USD",
            "spec.sizing.mode": "Auto",
            "spec.sizing.objective": "Cost",
            "spec.sizing.concurrency": 16,
            "spec.replicas": 1,
            "spec.candidate.model.quantization": "Auto",
            "spec.candidate.model.kvCacheDtype": "Auto",
            "spec.candidate.model.architecture.tieEmbeddings": False,
            "spec.candidate.model.architecture.attention": "Full",
            "spec.candidate.replicas": 1,
            "spec.autoscaling.min": 1,
            "spec.autoscaling.scaleDownWindowSeconds": 300,
            "spec.autoscaling.waitForNodes": False,
            "spec.serving.shutdownSeconds": 120,
            "spec.access.mode": "Policy",
            "spec.price.currency": "USD",
        }

    def test_required(self) -> None:
        """What a manifest cannot leave out at the top."""
        assert NODES[""]["required"] == ["spec"]
        assert NODES["metadata"] == {"type": "object"}
        assert "required" not in NODES["spec"]

    def test_merging_lists(self) -> None:
        """Lists that Kustomize and server-side apply merge by name."""
        keyed = {
            path: node["x-kubernetes-list-map-keys"]
            for path, node in NODES.items()
            if "x-kubernetes-list-map-keys" in node
        }
        assert keyed == {
            "spec.accelerators": ["name"],
            "spec.serving.env": ["name"],
            "status.conditions": ["type"],
            "status.sizing.terms": ["name"],
            "status.revisions": ["name"],
        }

    def test_a_generated_rule_checks_map_keys(self) -> None:
        """The API server does not look at keys by itself."""
        (rule,) = NODES["spec.scheduling.nodeSelector"]["x-kubernetes-validations"]
        assert rule["rule"].startswith("self.all(key, size(key) <= 317 && key.matches(r'^")

    def test_every_rule_of_a_model_is_in_the_crd(self) -> None:
        """None gets lost on the way."""
        found = NODES["spec.model"]["x-kubernetes-validations"]
        assert [tuple(rule.values()) for rule in found] == [tuple(rule) for rule in ModelSource.__cel__]


class Inner(Model):
    """Inner words."""

    size: int = Field(default=2, ge=0, le=9)
    """How large
    it is.

    More."""

    __cel__ = (Rule("self.size > 1", "too small"),)


class TestTypes:
    """How a type is written, and what is refused at generation."""

    def test_a_reference_is_inlined(self) -> None:
        """The field's own description wins, rules add up, Optional leaves no trace."""

        class Outer(Model):
            """Outer words."""

            inner: Inner | None = Field(default=None, json_schema_extra=cel(Rule("self.size < 5", "too large")))
            """The inner one."""
            again: Inner

        found = schema.structural(Outer)["properties"]
        assert found["inner"]["description"] == "The inner one."
        assert [rule["message"] for rule in found["inner"]["x-kubernetes-validations"]] == ["too small", "too large"]
        assert [rule["message"] for rule in found["again"]["x-kubernetes-validations"]] == ["too small"]
        assert found["again"]["description"] == "Inner words."
        assert found["inner"]["properties"] == found["again"]["properties"]
        assert found["inner"]["properties"]["size"] == {
            "description": "How large it is.\n\nMore.",
            "type": "integer",
            "format": "int64",
            "default": 2,
            "minimum": 0,
            "maximum": 9,
        }

    def test_defaults_that_make_a_diff_are_left_out(self) -> None:
        """In lists and maps, and lists and objects themselves."""

        class Outer(Model):
            """Outer words."""

            items: list[Inner] = Field(default=[], max_length=3, json_schema_extra=listed_by("name"))
            table: dict[Annotated[str, Field(max_length=9, pattern="^a$")], Inner] = Field(default={}, max_length=3)
            one: Inner = Inner()
            word: Literal["A", "B"] = "A"

        whole = schema.structural(Outer)
        kept = schema.without_troubling_defaults(whole)
        assert {path: node["default"] for path, node in schema.nodes(kept) if "default" in node} == {
            "one.size": 2,
            "word": "A",
        }
        assert "default" in whole["properties"]["items"]["items"]["properties"]["size"]

    @pytest.mark.parametrize(
        ("annotation", "message"),
        [
            (float, "x: a float has no exact form"),
            (int | str, "x: a union has no structural form"),
            (dict[str, Any], "x: a free-form object"),
            (Any, "x: no structural form"),
            (dict[Annotated[str, Field(pattern="^a$")], int], "x: keys need a max_length"),
        ],
    )
    def test_refused(self, annotation: Any, message: str) -> None:
        """Types that have no safe form stop the generation, with the field's path."""
        model = type("Bad", (Model,), {"__annotations__": {"x": annotation}, "__module__": __name__})
        with pytest.raises(TypeError, match=f"Bad.{message}"):
            schema.structural(model)


class TestFiles:
    """What `modeltiers generate` writes."""

    def test_the_yaml_says_the_same(self) -> None:
        """Nothing is lost on the way, and the order is the order of the models."""
        text = crds.to_yaml(CRD)
        assert yaml.safe_load(text) == CRD
        assert list(yaml.safe_load(text)["spec"]["versions"][0]) == list(VERSION)

    def test_the_yaml_is_readable(self) -> None:
        """A header, no anchors, no line that prose made long."""
        text = crds.to_yaml(CRD)
        assert text.startswith("# generated by make generate; do not edit\n---\napiVersion: apiextensions.k8s.io/v1\n")
        assert "&id" not in text
        long = [line for line in text.splitlines() if len(line) > 130 and "[a-z0-9]" not in line]
        assert [line for line in long if line.strip().count(" ") > 8] == []

    def test_it_is_deterministic(self) -> None:
        """Twice the same bytes."""
        assert generate.generated() == generate.generated()

    def test_nothing_drifts(self) -> None:
        """`make generate` was run."""
        assert generate.drifted(ROOT) == []

    def test_check_names_what_differs(self, tmp_path: Path) -> None:
        """Exit code 1 and the file; after writing, 0 and silence."""
        (tmp_path / "operator" / "modeltiers").mkdir(parents=True)

        def run(*args: str) -> tuple[int, str]:
            done = CliRunner().invoke(generate.generate, [*args, "--root", str(tmp_path)])
            return done.exit_code, done.output

        assert run("--check")[0] == 1
        assert "wrote crds/modeltiers.dev_modeltiers.yaml" in run()[1]
        assert run("--check") == (0, "")
        (tmp_path / "docs" / "reference" / "modeltier.md").write_text("edited")
        code, said = run("--check")
        assert (code, said.splitlines()[1:]) == (1, ["  docs/reference/modeltier.md"])

    def test_it_writes_in_a_checkout_only(self, tmp_path: Path) -> None:
        """Run elsewhere it would leave folders about."""
        done = CliRunner().invoke(generate.generate, ["--root", str(tmp_path)])
        assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
        assert "is not a checkout of modeltiers" in done.output

    def test_no_file_has_two_generators(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The later one would win silently."""
        monkeypatch.setattr(generate, "GENERATORS", [generate.crds, generate.crds])
        with pytest.raises(ValueError, match=r"crds/modeltiers.dev_modeltiers.yaml is generated twice"):
            generate.generated()

    def test_the_pages_have_a_row_for_every_field(self) -> None:
        """Fields, rules and columns are all on the page."""
        page = generate.reference_pages()[Path("docs/reference/modeltier.md")]
        rows = [path for path in NODES if path.startswith(("spec.", "status.")) and not path.endswith(("[]", ".*"))]
        assert [path for path in rows if f"\n| `{path}` | " not in page] == []
        for node in NODES.values():
            for rule in node.get("x-kubernetes-validations", ()):
                said = re.sub(r"([\[\]*_^])", r"\\\1", rule["message"])  # Markdown must take no pattern for a link
                assert said.replace("|", "\\|") in page
        assert "| READY | always |" in page
