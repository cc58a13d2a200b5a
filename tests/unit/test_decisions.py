"""Small decisions about a tier: refusals, what is newer, rollouts, footprints, hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import ExternalHost, Settings
from modeltiers.domain import footprint
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.hosts import Endpoint, allowed, endpoint_of, private
from modeltiers.domain.modeltier import claims_of, newer, refusals
from modeltiers.domain.surge import Rollout, choose_rollout, leaves_none
from modeltiers.domain.views import DeploymentView
from tests.unit.golden import record_of

BASE: dict[str, Any] = {
    "model": {"source": "hf://Qwen/Qwen3-8B"},
    "accelerators": [{"name": "h100", "product": "NVIDIA-H100-80GB-HBM3"}],
}


def spec(**changes: Any) -> ModelTierSpec:
    return ModelTierSpec.model_validate({**BASE, **changes})


def paths(one: ModelTierSpec, settings: Settings | None = None, **claims: ClaimView | None) -> list[str]:
    return [item.path for item in refusals(one, settings or Settings(), claims)]


def test_a_plain_tier_is_not_refused() -> None:
    assert paths(spec()) == []


def test_images_are_the_administrators_choice() -> None:
    one = spec(serving={"image": "registry.example.com/vllm:1"})
    assert paths(one) == ["spec.serving.image"]
    assert paths(one, Settings.model_validate({"allowedImages": ["registry.example.com/"]})) == []


def test_another_router_is_refused_where_there_is_none_or_no_choice() -> None:
    """By the field, with the way out."""
    one = spec(serving={"router": {"image": "registry.example.com/r:2"}})
    assert paths(one) == ["spec.serving.router.image", "spec.serving.router"]
    routed = {"router": {"image": "example.com/router:1"}}
    assert paths(one, Settings.model_validate(routed)) == ["spec.serving.router.image"]
    assert paths(one, Settings.model_validate({**routed, "allowedImages": ["registry.example.com/"]})) == []


def test_a_single_writer_volume_takes_one_replica() -> None:
    one = spec(serving={"cache": {"claimName": "c"}}, replicas=2)
    assert claims_of(one) == {"c": "spec.serving.cache.claimName"}
    once, many = ClaimView(("ReadWriteOnce",)), ClaimView(("ReadWriteOnce", "ReadWriteMany"))
    assert paths(one, c=once) == ["spec.serving.cache.claimName"]
    assert paths(one, c=many) == []
    assert paths(one, c=None) == []  # not there yet: the scheduler will say so
    assert paths(spec(serving={"cache": {"claimName": "c"}}), c=once) == []


@pytest.mark.parametrize(
    ("free", "gpus", "to_come", "single", "bounds"),
    [
        ((8, 8), 4, 1, False, (1, 0)),
        ((4,), 4, 1, False, (0, 1)),
        ((3, 3), 4, 0, False, (0, 1)),
        ((4,), 4, 0, False, (1, 0)),
        ((), 1, 0, False, (0, 1)),
        (None, 1, 0, False, (0, 1)),
        ((8, 8), 1, 1, True, (0, 1)),
    ],
)
def test_a_surge_is_taken_only_where_it_is_known_to_fit(
    free: tuple[int, ...] | None, gpus: int, to_come: int, single: bool, bounds: tuple[int, int]
) -> None:
    rollout = choose_rollout(free, gpus, to_come, single_writer=single)
    assert (rollout.max_surge, rollout.max_unavailable) == bounds
    assert len(rollout.why) <= 256


def test_newer_says_what_a_rollout_would_take() -> None:
    record = record_of("t", spec(), Settings())
    assert newer(record, record) == ()
    assert "image new" in newer(record, replace(record, image="new"))[0]
    assert "TP 4" in newer(record, replace(record, sizing={**record.sizing, "tensorParallel": 4}))[0]
    assert newer(record, replace(record, template={"x": 1})) == ("defaults of the pod template",)


@given(st.integers(1, 2 * 10**12), st.integers(1, 16))
def test_footprints_grow_with_the_weights_and_hold_together(weights: int, gpus: int) -> None:
    needs = footprint.of(weights, gpus)
    more = footprint.of(weights + footprint.GIB, gpus + 1)
    assert needs.shm < needs.memory_request <= needs.memory_limit
    assert needs.disk > weights
    assert (more.cpu_millis, more.memory_request, more.startup_seconds) >= (
        needs.cpu_millis,
        needs.memory_request,
        needs.startup_seconds,
    )


def test_start_up_time_can_be_set_by_hand() -> None:
    assert footprint.of(10**9, 1, 90).startup_seconds == 90


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://api.example.com/v1", Endpoint("https", "api.example.com", 443, "/v1")),
        ("http://a.b:8080/v1/", Endpoint("http", "a.b", 8080, "/v1")),
        ("https://a.b:99999/v1", None),
    ],
)
def test_base_urls_are_taken_apart_once(url: str, endpoint: Endpoint | None) -> None:
    assert endpoint_of(url) == endpoint


def test_hosts_match_whole_labels_only() -> None:
    hosts = [ExternalHost(host="api.example.com"), ExternalHost(host="*.corp.example")]
    assert allowed("api.example.com", hosts)
    assert allowed("a.corp.example", hosts)
    for host in ("example.com", "xapi.example.com", "api.example.com.evil", "corp.example", "evilcorp.example"):
        assert allowed(host, hosts) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "0.0.0.0",  # noqa: S104 - an address to judge, not to bind
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 - an address to judge, not to bind
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "100.64.0.1",
        "224.0.0.1",
    ],
)
def test_private_addresses(address: str) -> None:
    assert private(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert not private(address)


ONE_LESS, ONE_MORE = Rollout(0, 1, ""), Rollout(1, 0, "")
STEADY = DeploymentView("small", 1, 1, wanted=1, replicas=1, updated=1, ready_replicas=1)
ROLLING = DeploymentView("small", 2, 2, wanted=1, replicas=1, updated=0, ready_replicas=1)
UNSEEN = DeploymentView("small", 2, 1, wanted=1, replicas=1, updated=1, ready_replicas=1)
TWO = DeploymentView("small", 1, 1, wanted=2, replicas=2, updated=2, ready_replicas=2)


@pytest.mark.parametrize(
    ("rollout", "wanted", "live", "changes", "leaves"),
    [
        (ONE_LESS, 1, STEADY, True, True),
        (ONE_LESS, 1, STEADY, False, False),
        (ONE_LESS, 1, ROLLING, False, True),
        (ONE_LESS, 1, UNSEEN, False, True),
        (ONE_MORE, 1, STEADY, True, False),
        (ONE_LESS, 2, TWO, True, False),
        (ONE_LESS, 2, STEADY, True, True),
        (ONE_LESS, 1, None, True, False),
        (ONE_MORE, 0, TWO, False, True),
    ],
)
def test_a_tier_leaves_when_its_last_pods_go_before_others_are_ready(
    rollout: Rollout, wanted: int, live: DeploymentView | None, changes: bool, leaves: bool
) -> None:
    assert leaves_none(rollout, wanted, live, changes=changes) is leaves
