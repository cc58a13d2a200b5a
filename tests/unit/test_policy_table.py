"""Compiling a policy: what a table says of tiers and rules, each fault in the words of the spec, and the shelf."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.routingpolicy import RoutingPolicySpec
from modeltiers.domain import policy_table
from modeltiers.domain.policy_table import (
    MOST_BYTES,
    CompiledTable,
    Fault,
    TierView,
    compile_table,
    fill_shelf,
    millis,
    policy_behind,
    spec_path,
)
from modeltiers.domain.routing.record import version_of
from modeltiers.domain.routing.table import read_table

SMALL = TierView("small", "org/small", context_tokens=8192, can={"tools": False})
LARGE = TierView("large", "org/large", context_tokens=32768)
FRONTIER = TierView("frontier", "gpt-5", external=True, outside=True, price=(1_250_000, 10_000_000), currency="USD")
SHARED = TierView("shared", "big", external=True)
TIERS: dict[str, TierView | None] = {one.name: one for one in (SMALL, LARGE, FRONTIER, SHARED)}
SPEC: dict[str, Any] = {"model": "support", "tiers": [{"name": "small"}, {"name": "large"}]}
WORD = {"keywords": ["court"]}


def spec(**changes: Any) -> RoutingPolicySpec:
    """A sound spec with some of it replaced."""
    return RoutingPolicySpec.model_validate({**SPEC, **changes})


def compiled(there: dict[str, TierView | None] | None = None, /, **changes: Any) -> CompiledTable:
    """The table of a spec that compiles."""
    found = compile_table("support", spec(**changes), TIERS if there is None else there, "demo")
    assert isinstance(found, CompiledTable), [str(one) for one in found]
    return found


def faults(there: dict[str, TierView | None] | None = None, /, **changes: Any) -> list[Fault]:
    """The faults of a spec that does not compile."""
    found = compile_table("support", spec(**changes), TIERS if there is None else there, "demo")
    assert isinstance(found, list)
    return found


class TestTheTable:
    """What is written."""

    def test_the_smallest(self) -> None:
        """Nothing that the router takes for granted; tiers by the Services of their pods."""
        assert compiled().document == {
            "formatVersion": 1,
            "tiers": [
                {
                    "name": "small",
                    "address": "small-pods.demo.svc:8080",
                    "model": "org/small",
                    "hop": True,
                    "contextTokens": 8192,
                    "can": {"tools": False},
                },
                {
                    "name": "large",
                    "address": "large-pods.demo.svc:8080",
                    "model": "org/large",
                    "hop": True,
                    "contextTokens": 32768,
                },
            ],
            "policies": [{"name": "support", "model": "support", "tiers": ["small", "large"]}],
        }

    def test_the_version_is_the_routers(self) -> None:
        """The router works the same version out of the bytes; the operator waits for it in /status."""
        table = compiled()
        assert version_of(read_table(json.loads(table.content)), table.content.encode()) == table.version
        assert json.loads(table.content) == table.document

    def test_what_equals_a_default_is_the_same_table(self) -> None:
        """So that a default that the API server fills in changes no version."""
        loud = compiled(
            mode="Upfront",
            stream={"window": "1500ms", "windowTokens": 24, "maxHoldBytes": 1_048_576},
            limits={"queueTime": "10s"},
            accept={"thresholdPermille": 600},
            tiers=[{"name": "small", "timeouts": {"total": "10m"}}, {"name": "large", "concurrency": 1024}],
            fallback={
                "failures": ["Connect", "Timeout", *(f"Status{code}" for code in (429, 500, 502, 503, 504)), "Broken"]
            },
        )
        assert loud == compiled()

    def test_readiness_is_no_input(self) -> None:
        """Nothing of a tier but what is said of it."""
        assert {one.name for one in dataclasses.fields(TierView)} == {
            *("name", "model", "external", "outside", "context_tokens", "can", "price", "currency", "candidate"),
        }

    def test_the_order_of_keys_is_no_input(self) -> None:
        """A schema that means the same is the same table."""

        def checking(text: str) -> CompiledTable:
            check = {"name": "v", "kind": "JSONSchema", "jsonSchema": text}
            return compiled(accept={"validators": [check]}, mode="Cascade")

        assert checking('{"type": "object", "required": []}') == checking('{"required":[], "type":"object"}')

    def test_only_the_ladder_matters(self) -> None:
        """Another tier that changes leaves the version."""
        others = {**TIERS, "frontier": dataclasses.replace(FRONTIER, model="gpt-6"), "new": None}
        assert compiled(others) == compiled()
        assert compiled({**TIERS, "large": dataclasses.replace(LARGE, model="x")}).version != compiled().version

    def test_external_tiers_are_hops_too(self) -> None:
        """Their egress router alone has the key; the table has neither URL nor key."""
        table = compiled(tiers=[{"name": "small"}, {"name": "frontier"}])
        assert table.document["tiers"][1] == {
            "name": "frontier",
            "address": "frontier-pods.demo.svc:8080",
            "model": "gpt-5",
            "hop": True,
            "price": {"inputPerMillionMicros": 1_250_000, "outputPerMillionMicros": 10_000_000},
        }

    def test_durations_and_names(self) -> None:
        """In the table's units."""
        table = compiled(
            session={"ttl": "2h"},
            stream={"window": "2s"},
            limits={"queueTime": "1m"},
            keyLimits={"queueTime": "500ms", "requestsPerMinute": 5},
            tiers=[{"name": "small", "timeouts": {"firstByte": "5s"}, "concurrency": 8}, {"name": "large"}],
            accept={"validators": [{"name": "v", "kind": "JSONSchema", "jsonSchema": '{"a": 1}', "deadline": "1s"}]},
            fallback={"failures": ["Status429", "Broken"]},
            mode="Cascade",
        )
        policy, tier = table.document["policies"][0], table.document["tiers"][0]
        assert policy["session"] == {"ttlSeconds": 7200}
        assert policy["stream"] == {"windowMs": 2000}
        assert policy["limits"] == {"queueMs": 60_000}
        assert policy["keyLimits"] == {"queueMs": 500, "requestsPerMinute": 5}
        assert policy["accept"]["validators"] == [
            {"name": "v", "kind": "JSONSchema", "schema": {"a": 1}, "deadlineMs": 1000}
        ]
        assert policy["fallback"] == {"on": ["429", "Broken"]}
        assert (tier["timeouts"], tier["concurrency"]) == ({"firstByteMs": 5000}, 8)

    def test_no_fallback_is_sayable(self) -> None:
        """An empty list is not an absent one."""
        assert compiled(fallback={"failures": []}).document["policies"][0]["fallback"] == {"on": []}

    def test_objects_that_say_something_by_being_there(self) -> None:
        """An empty confidence asks for logprobs; an empty session keeps conversations."""
        policy = compiled(accept={"confidence": {}}, session={}, score={}).document["policies"][0]
        assert (policy["accept"], policy["session"], policy["score"]) == ({"confidence": {}}, {}, {})

    @pytest.mark.parametrize(("text", "expected"), [("1ms", 1), ("2s", 2000), ("3m", 180_000), ("1h", 3_600_000)])
    def test_millis(self, text: str, expected: int) -> None:
        """A whole number and one unit."""
        assert millis(text) == expected


class TestTiers:
    """What is read of a ModelTier."""

    def test_a_served_one(self) -> None:
        """Name and context; the plan's context goes before the spec's."""
        body = {"model": {"source": "hf://a/b", "maxModelLen": 4096}, "accelerators": [{"name": "a", "product": "A"}]}
        tier = ModelTierSpec.model_validate(body)
        assert TierView.of("small", tier) == TierView("small", "small", context_tokens=4096, can={"tools": False})
        planned = TierView.of("small", tier, {"sizing": {"maxModelLen": 2048}})
        assert planned.context_tokens == 2048
        named = tier.model_copy(update={"model": tier.model.model_copy(update={"served_name": "x/y"})})  # type: ignore[union-attr]  # it is there in this test
        assert TierView.of("small", named).model == "x/y"

    def test_tools_need_a_flag(self) -> None:
        """vLLM refuses them without it; a profile may bring it."""
        body = {"model": {"source": "hf://a/b"}, "serving": {"args": [policy_table.TOOL_FLAG]}}
        assert TierView.of("small", ModelTierSpec.model_validate(body)).can == {"tools": True}
        plain = ModelTierSpec.model_validate({"model": {"source": "hf://a/b"}})
        assert TierView.of("small", plain, profile_args=[policy_table.TOOL_FLAG]).can == {"tools": True}

    def test_what_a_spec_says_of_its_model_goes_before_what_is_assumed(self) -> None:
        """Also the word on tools, which the engine's flags would deny."""
        said = {"model": {"source": "hf://a/b"}, "capabilities": {"images": True, "tools": True, "jsonSchema": False}}
        view = TierView.of("small", ModelTierSpec.model_validate(said))
        assert view.can == {"images": True, "tools": True, "jsonSchema": False}
        outside = {"external": {"baseUrl": "https://a.example/v1", "model": "m", "contextTokens": 8192}}
        assert TierView.of("far", ModelTierSpec.model_validate(outside)).context_tokens == 8192

    @pytest.mark.parametrize(
        ("url", "outside"),
        [
            ("https://api.example.com/v1", True),
            ("http://large.models.svc:8000/v1", False),
            ("http://large.models.svc.cluster.local/v1", False),
            ("https://evil.svc.example.com/v1", True),
            ("https://mysvc/v1", True),
            ("https://printer.local/v1", True),
            ("http://10.0.0.8:8000/v1", True),
        ],
    )
    def test_an_external_one(self, url: str, outside: bool) -> None:
        """Inside the cluster is what a Service's name says; an address may be anywhere."""
        tier = TierView.of("x", ModelTierSpec.model_validate({"external": {"baseUrl": url, "model": "m"}}))
        assert (tier.external, tier.outside, tier.model, tier.price) == (True, outside, "m", None)

    def test_policy_behind(self) -> None:
        """A ladder may lead to another policy's Service."""
        assert policy_behind("http://support-policy.demo.svc:8080/v1", "demo") == "support"
        assert policy_behind("http://support-policy.demo.svc.cluster.local/v1", "demo") == "support"
        assert policy_behind("http://support-policy.other.svc/v1", "demo") is None
        assert policy_behind("http://large.demo.svc:8080/v1", "demo") is None
        assert policy_behind("https://support-policy.demo.svc.example.com/v1", "demo") is None


class TestDataClass:
    """What never leaves the cluster."""

    def test_of_a_whole_policy(self) -> None:
        """A tier outside is refused; a shared one inside is not."""
        (found,) = faults(tiers=[{"name": "small"}, {"name": "frontier"}], dataClass="NeverLeavesCluster")
        assert (found.reason, found.path) == ("DataWouldLeave", "spec.dataClass")
        assert "frontier would take data out of the cluster" in found.message
        assert compiled(tiers=[{"name": "small"}, {"name": "shared"}], dataClass="NeverLeavesCluster")

    def test_of_a_rule_without_a_tier_outside(self) -> None:
        """There is nothing to keep it from: the rule is left out, or does what else it says."""
        rules = [
            {"name": "secret", "when": WORD, "dataClass": "NeverLeavesCluster"},
            {"name": "both", "when": WORD, "dataClass": "NeverLeavesCluster", "risk": "High"},
        ]
        (rule,) = compiled(classify=rules).document["policies"][0]["rules"]
        assert rule == {"name": "both", "when": {"keywords": ["court"]}, "risk": "High"}
        found = compiled(classify=[{"name": "vip", "when": WORD, "tier": "large"}, *rules]).document["policies"][0]
        assert [one["name"] for one in found["rules"]] == ["both", "vip"]

    def test_of_a_rule_that_the_router_keeps(self) -> None:
        """Such rules are read first, so that no other ends the reading before; tiers outside are marked."""
        rules = [
            {"name": "vip", "when": WORD, "tier": "frontier"},
            {"name": "secret", "when": WORD, "dataClass": "NeverLeavesCluster"},
        ]
        document = compiled(tiers=[{"name": "small"}, {"name": "frontier"}], classify=rules).document
        assert [one["name"] for one in document["policies"][0]["rules"]] == ["secret", "vip"]
        assert document["policies"][0]["rules"][0]["inside"] is True
        assert [one.get("outside", False) for one in document["tiers"]] == [False, True]


PATTERN = {"name": "p", "kind": "Pattern", "patterns": ["(?=a)"]}


class TestFaults:
    """Each names the field of the spec and the way out."""

    @pytest.mark.parametrize(
        ("changes", "reason", "path", "words"),
        [
            ({"tiers": [{"name": "gone"}]}, "TierNotFound", "spec.tiers[0]", "create it, or take it off the ladder"),
            ({"tiers": [{"name": "frontier"}]}, "NeedsGateway", "spec.placement", "set placement: Gateway"),
            (
                {"classify": [{"name": "a", "when": {"patterns": ["x", "(?<=y)"]}, "tier": "large"}]},
                "InvalidPolicy",
                "spec.classify[0].when.patterns[1]",
                "RE2 does not take",
            ),
            (
                {"classify": [{"name": "a", "when": WORD, "tier": "medium"}]},
                "InvalidPolicy",
                "spec.classify[0].tier",
                "is not on this policy's ladder (small, large)",
            ),
            (
                {"classify": [{"name": "a", "when": {"keywords": []}, "tier": "large"}]},
                "InvalidPolicy",
                "spec.classify[0].when",
                "say at least one thing",
            ),
            ({"risks": [{"risk": "High", "floor": "x"}]}, "InvalidPolicy", "spec.risks[0].floor", "ladder"),
            ({"canary": {"tier": "x", "sharePermille": 1}}, "InvalidPolicy", "spec.canary.tier", "ladder"),
            ({"override": {"tiers": ["large", "x"]}}, "InvalidPolicy", "spec.override.tiers[1]", "ladder"),
            ({"access": {"keys": ["a"]}}, "InvalidPolicy", "spec.access.keys", "mode: Keys"),
            (
                {"accept": {"validators": [PATTERN]}},
                "InvalidPolicy",
                "spec.accept.validators[0].patterns[0]",
                "RE2 does not take",
            ),
            (
                {"accept": {"validators": [{"name": "l", "kind": "Length"}]}},
                "InvalidPolicy",
                "spec.accept.validators[0]",
                "needs minChars or maxChars",
            ),
            (
                {"accept": {"validators": [{"name": "s", "kind": "JSONSchema", "jsonSchema": "{type: x}"}]}},
                "InvalidPolicy",
                "spec.accept.validators[0].jsonSchema",
                "is not JSON",
            ),
            (
                {"accept": {"validators": [{"name": "s", "kind": "JSONSchema", "jsonSchema": "[]"}]}},
                "InvalidPolicy",
                "spec.accept.validators[0].jsonSchema",
                "is not a JSON object",
            ),
            (
                {"accept": {"validators": [{"name": "s", "kind": "JSONSchema", "jsonSchema": '{"type": 3}'}]}},
                "InvalidPolicy",
                "spec.accept.validators[0].jsonSchema",
                "",
            ),
            (
                {
                    "accept": {
                        "validators": [{"name": "s", "kind": "JSONSchema", "jsonSchema": '{"a":' * 99 + "1" + "}" * 99}]
                    }
                },
                "InvalidPolicy",
                "spec.accept.validators[0].jsonSchema",
                "flatten the schema",
            ),
            (
                {"accept": {"validators": [{"name": "s", "kind": "JSONSchema", "jsonSchema": "[" * 4000}]}},
                "InvalidPolicy",
                "spec.accept.validators[0].jsonSchema",
                "is not JSON",
            ),
            (
                {"accept": {"validators": [{"name": "s", "kind": "JSONSchema", "jsonSchema": '{"maximum": NaN}'}]}},
                "InvalidPolicy",
                "spec.accept.validators[0].jsonSchema",
                "is not JSON",
            ),
        ],
    )
    def test_fault(self, changes: dict[str, Any], reason: str, path: str, words: str) -> None:
        """One wrong thing, one fault."""
        (found,) = faults(**changes)
        assert (found.reason, found.path) == (reason, path)
        assert words in found.message
        assert str(found) == f"{path}: {found.message}"

    def test_a_tier_that_is_not_accepted(self) -> None:
        """It exists, and nothing is known of its model."""
        (found,) = faults({**TIERS, "large": None})
        assert (found.reason, found.path) == ("TierNotAccepted", "spec.tiers[1]")

    def test_a_tier_that_does_not_suit(self) -> None:
        """What is wrong with a tier is said of the tier."""
        (found,) = faults({**TIERS, "large": dataclasses.replace(LARGE, model="a b")})
        assert (found.path, found.message[:37]) == ("spec.tiers[1]", "the tier's model does not suit a tabl")

    def test_all_that_is_missing_is_told(self) -> None:
        """Not one after the other."""
        found = faults(tiers=[{"name": "a"}, {"name": "b"}], accept={"validators": [{**PATTERN, "jsonSchema": "{x"}]})
        assert [one.path for one in found] == ["spec.tiers[0]", "spec.tiers[1]", "spec.accept.validators[0].jsonSchema"]

    def test_a_gateway_may_begin_outside(self) -> None:
        """It has routers of its own."""
        assert compiled(tiers=[{"name": "frontier"}], placement="Gateway")

    def test_the_place_of_a_rule_is_the_specs(self) -> None:
        """Also where the table has another order."""
        assert spec_path("$.policies[0].rules[0].when.patterns[1]", [3, 0]) == "spec.classify[3].when.patterns[1]"
        assert spec_path("$.policies[0].rules", [3, 0]) == "spec.classify"
        assert spec_path("accept.validators[2].schema", []) == "spec.accept.validators[2].jsonSchema"
        assert spec_path("$.tiers[1].timeouts.firstByteMs", []) == "spec.tiers[1].timeouts.firstByte"
        assert spec_path("$.policies", []) == "spec"

    def test_too_large(self) -> None:
        """The field that takes most is named."""
        many = [
            {"name": f"r{n}", "when": {"keywords": [f"{'ü' * 60}{i}" for i in range(50)]}, "tier": "large"}
            for n in range(40)
        ]
        many[7] = {"name": "r7", "when": {"keywords": [f"{'ü' * 62}{i}" for i in range(50)]}, "tier": "large"}
        (found,) = faults(classify=many)
        assert (found.reason, found.path) == ("TableTooLarge", "spec.classify[7]")
        assert f"at most {MOST_BYTES:,} are served" in found.message
        assert compiled(classify=many[:5]).size < MOST_BYTES


class TestDoubts:
    """What is allowed and hardly meant."""

    def test_paths_are_the_specs(self) -> None:
        """With the router's own words."""
        rules = [
            {"name": "a", "when": {"keywords": ["Court"]}, "tier": "large"},
            {"name": "b", "when": {"keywords": ["court"]}, "tier": "small"},
        ]
        found = compiled(classify=rules, accept={"thresholdPermille": 900}, mode="Cascade").doubts
        paths = [one.path for one in found]
        assert "spec.classify[0].when.keywords[0]" in paths
        assert "spec.classify[1]" in paths
        assert "spec.accept.thresholdPermille" in paths

    def test_two_currencies(self) -> None:
        """They do not add up."""
        euro = TierView("euro", "m", external=True, outside=True, price=(1, 1), currency="EUR")
        found = compiled({**TIERS, "euro": euro}, tiers=[{"name": n} for n in ("small", "euro", "frontier")]).doubts
        assert any("EUR and USD" in one.message for one in found)


class TestTheShelf:
    """A tier's ConfigMap."""

    def test_a_key_for_each_policy(self) -> None:
        """One policy's change leaves the others' text."""
        first, second = compiled(), dataclasses.replace(compiled(model="other"), policy="other")
        shelf = fill_shelf("small", [first, second])
        assert shelf.data == {"support.json": first.content, "other.json": second.content}
        assert shelf.left == {}

    def test_the_oldest_have_room(self) -> None:
        """One that does not fit says so, and a later small one still does."""
        first = compiled()
        tables = [dataclasses.replace(first, policy=name) for name in ("a", "b", "c")]
        shelf = fill_shelf("small", tables, most=2 * (first.size + len("a.json")))
        assert list(shelf.data) == ["a.json", "b.json"]
        assert (shelf.left["c"].reason, shelf.left["c"].path) == ("ShelfFull", "spec.tiers")
        assert list(fill_shelf("small", tables, most=2 * (first.size + len("a.json")) - 1).data) == ["a.json"]
