"""Who chooses the number of pods, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.controllers.hpas import Hpas
from modeltiers.domain.scaling import bounds_of, expected, most_pods, others_rule, own_rules

OWN = {"min": 2, "max": 6}


def spec(**fields: Any) -> ModelTierSpec:
    return ModelTierSpec.model_validate(
        {
            "model": {"source": "hf://org/name"},
            "accelerators": [{"name": "a", "product": "A"}],
            **fields,
        }
    )


def test_the_target_is_three_quarters_of_the_concurrency_unless_given() -> None:
    assert bounds_of(spec()) is None
    for fields, target in (
        ({}, 12),
        ({"sizing": {"concurrency": 1}}, 1),
        ({"sizing": {"concurrency": 64}}, 48),
        ({"autoscaling": {**OWN, "targetInFlight": 5}}, 5),
    ):
        bounds = bounds_of(spec(**{"autoscaling": OWN, **fields}))
        assert bounds is not None
        assert (bounds.least, bounds.most, bounds.target) == (2, 6, target)


@pytest.mark.parametrize(("live", "pods"), [(None, 2), (1, 2), (4, 4), (9, 6)])
def test_what_is_there_is_where_the_own_autoscaler_begins(live: int | None, pods: int) -> None:
    assert expected(spec(autoscaling=OWN), live) == pods
    assert expected(spec(replicas=3), live) == 3
    assert most_pods(spec(autoscaling=OWN)) == ("spec.autoscaling.max", 6)
    assert most_pods(spec(replicas=3)) == ("spec.replicas", 3)


def test_another_autoscaler_is_never_written_against() -> None:
    own, plain = spec(autoscaling=OWN), spec()
    # One that scales the tier is how a tier without autoscaling is meant to be scaled.
    assert others_rule("t", plain, 4, on_workload=None, on_tier="hpa") is None
    assert others_rule("t", own, 4, on_workload=None, on_tier=None) is None
    held = others_rule("t", own, 4, on_workload=None, on_tier="hpa")
    assert held is not None
    assert held.wanted == 4
    for one in (own, plain):
        let = others_rule("t", one, 9, on_workload="hpa", on_tier=None)
        assert let is not None
        assert let.wanted == 9
        assert let.said is not None
        assert (let.said.status, let.said.reason) == ("False", "AnotherAutoscaler")
    # There is nothing to leave alone before there is a Deployment.
    assert others_rule("t", plain, None, on_workload="hpa", on_tier=None) is None


def test_the_condition_names_what_has_no_effect() -> None:
    one = spec(autoscaling=OWN, replicas=4)
    bounds = bounds_of(one)
    assert bounds is not None
    assert "spec.replicas (4) has no effect" in own_rules(one, bounds, "Steady").message
    assert own_rules(one, bounds, "MetricsUnknown").status == "Unknown"
    assert own_rules(one, bounds, "").status == "Unknown"


def hpa(name: str, kind: str, target: str, group: str) -> dict[str, Any]:
    ref = {"apiVersion": group, "kind": kind, "name": target}
    return {"metadata": {"namespace": "n", "name": name}, "spec": {"scaleTargetRef": ref}}


def test_autoscalers_are_found_by_what_they_scale() -> None:
    hpas = Hpas()
    assert hpas.put(hpa("a", "ModelTier", "t", "modeltiers.dev/v1alpha1")) == [("n", "t")]
    assert hpas.put(hpa("a", "ModelTier", "t", "modeltiers.dev/v1alpha1")) == []
    assert hpas.put(hpa("b", "ModelTier", "t", "modeltiers.dev/v1")) == [("n", "t")]
    assert hpas.of("n", "ModelTier", "t") == "a"
    assert hpas.put(hpa("a", "Deployment", "t-r2", "apps/v1")) == [("n", "t"), ("n", "t-r2"), ("n", "t")]
    assert hpas.of("n", "ModelTier", "t") == "b"
    assert hpas.of("n", "Deployment", "t-r2") == "a"
    assert hpas.put(hpa("c", "Deployment", "t", "example.com/v1")) == []
    assert hpas.put({"metadata": {"namespace": "n", "name": "odd"}}) == []
    assert sorted(hpas.names()) == [("n", "a"), ("n", "b")]
    assert hpas.drop(("n", "b")) == [("n", "t")]
    assert hpas.drop(("n", "b")) == []
    assert hpas.of("n", "ModelTier", "t") is None
