"""Signed hops: who may say that a request was judged already, for how long, and how keys change."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.router import hops
from modeltiers.router.hops import GRACE, SETTLE, WINDOW, Hop, HopKey
from modeltiers.router.replies import Refusal

NOW = 1_764_000_000.5
KEY = bytes(range(32))


def ring(tmp_path: Path, key: bytes = KEY) -> HopKey:
    path = tmp_path / "hop"
    path.write_bytes(key)
    return HopKey(path)


def code(found: HopKey, value: bytes, policy: str | None = None, version: str | None = None, now: float = NOW) -> str:
    """The code of the refusal."""
    with pytest.raises(Refusal) as refused:
        found.check(value, policy, version, now)
    return f"{refused.value.status} {refused.value.code}"


def forged(said: bytes, key: bytes = KEY) -> bytes:
    mac = hmac.new(key, b"modeltiers-hop-1\n" + said, hashlib.sha256).hexdigest().encode()
    return said + b"." + mac


def test_a_hop_passes_with_what_it_says(tmp_path: Path) -> None:
    found = ring(tmp_path)
    for version in ("abc123def456", "1.2.3", "v-1_2"):
        value = found.sign("support", version, 1, NOW)
        assert found.check(value, "support", version, NOW) == Hop(1, "support", version)
        assert found.check(value, None, None, NOW) == Hop(1, "support", version)
    assert found.check(None, "support", None, NOW) is None


def test_the_header_has_the_form_that_is_written_down(tmp_path: Path) -> None:
    value = ring(tmp_path).sign("support", "v1", 2, NOW)
    assert value == forged(b"2.support.v1.1764000000")


def test_another_policy_version_or_time_is_told_apart_from_a_forgery(tmp_path: Path) -> None:
    found = ring(tmp_path)
    value = found.sign("support", "v1", 1, NOW)
    assert code(found, value, policy="sales") == "503 hop_policy"
    assert code(found, value, version="v2") == "503 hop_version"
    for shift in (WINDOW, -WINDOW):
        assert found.check(value, None, None, NOW + shift) is not None
        assert code(found, value, now=NOW + shift + (1 if shift > 0 else -1)) == "503 hop_expired"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"1",
        b"1.support.v1.1764000000.",
        b"1.support.v1.1764000000." + b"0" * 64,
        forged(b"1.support.v1.1764000000", b"x" * 32),
        forged(b"1.support.v1.1764000000", b""),
        forged(b"1.Support.v1.1764000000"),
        forged(b"+1.support.v1.1764000000"),
        forged(b"-1.support.v1.1764000000"),
        forged(b"1.support..1764000000"),
        forged(b"1.support.v1.17e9"),
        forged(b"1.support.v1.99999999999999999"),
        forged(b"1.support.v1.1764000000") + b", " + forged(b"1.support.v1.1764000000"),
        forged(b"1.support.v1.1764000000").upper(),
        forged(b"1.support.v1.1764000000") + b" ",
        forged(b"1.support.v1.1764000000") + b"\n",
        b"1.support.v1.\xef\xbc\x91\xef\xbc\x97." + b"0" * 64,
        b"\xff" * 200,
        b"1." * 10_000,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_no_router_of_ours_signed_is_refused_and_never_taken_for_absent(tmp_path: Path, value: bytes) -> None:
    assert code(ring(tmp_path), value) == "403 hop_refused"


def test_without_a_key_every_hop_is_refused_even_one_signed_with_nothing(tmp_path: Path) -> None:
    for found in (HopKey(None), HopKey(tmp_path / "missing")):
        assert not found.signs
        assert code(found, forged(b"1.support.v1.1764000000", b"")) == "403 hop_refused"
        assert found.check(None, None, None, NOW) is None


@given(st.binary(max_size=200))
def test_no_bytes_pass_by_chance_and_none_raise_anything_else(value: bytes) -> None:
    with pytest.raises(Refusal):
        HopKey(None).check(value, None, None, NOW)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_single_changed_byte_is_refused(place: int, change: int) -> None:
    found = HopKey(None)
    found._keys.append((KEY, 0.0))
    value = bytearray(forged(b"1.support.v1.1764000000"))
    value[place % len(value)] ^= change
    with pytest.raises(Refusal):
        found.check(bytes(value), None, None, NOW)


def test_a_circle_ends_at_the_sender_and_at_the_receiver(tmp_path: Path) -> None:
    found = ring(tmp_path)
    assert found.check(found.sign("support", "v1", hops.HOPS, NOW), None, None, NOW) is not None
    with pytest.raises(Refusal) as refused:
        found.sign("support", "v1", hops.HOPS + 1, NOW)
    assert (refused.value.status, refused.value.code) == (508, "hop_loop")
    for count in (b"4", b"0", b"999"):
        assert code(found, forged(count + b".support.v1.1764000000")) == "508 hop_loop"


# -- keys that change -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 4_097], ids=len)
def test_a_key_that_is_none_is_refused_and_named(tmp_path: Path, key: bytes) -> None:
    found = ring(tmp_path, key)
    assert not found.signs
    assert found.error is not None
    assert "32" in found.error


def test_a_bad_or_lost_file_keeps_the_key_at_hand(tmp_path: Path) -> None:
    found = ring(tmp_path)
    path = tmp_path / "hop"
    value = found.sign("support", "v1", 1, NOW)
    path.write_bytes(b"short")
    assert not found.reload(1.0)
    assert found.error is not None
    assert found.check(value, None, None, NOW) is not None
    path.unlink()
    assert not found.reload(2.0)
    assert found.error is not None
    assert found.sign("support", "v1", 1, NOW) == value
    path.write_bytes(KEY)
    assert found.reload(3.0)
    assert found.error is None


def test_a_file_that_comes_back_as_it_was_is_well_again(tmp_path: Path) -> None:
    found = ring(tmp_path)
    away = (tmp_path / "hop").rename(tmp_path / "away")
    errors = []
    for now in (1.0, 2.0):
        found.reload(now)
        errors.append(found.error)
        if now == 1.0:
            away.rename(tmp_path / "hop")
    assert errors == ["hop: No such file or directory", None]


def test_a_new_key_checks_at_once_and_signs_when_all_have_it(tmp_path: Path) -> None:
    sender, receiver = ring(tmp_path), HopKey(tmp_path / "hop")
    old = sender.sign("support", "v1", 1, NOW)
    (tmp_path / "hop").write_bytes(b"n" * 32)
    assert sender.reload(1000.0)
    assert sender.sign("support", "v1", 1, NOW) == old  # the receiver may not have read it yet
    assert receiver.check(old, None, None, NOW) is not None
    assert receiver.reload(1000.0 + SETTLE - 1)
    assert not sender.reload(1000.0 + SETTLE)
    new = sender.sign("support", "v1", 1, NOW)
    assert new == forged(b"1.support.v1.1764000000", b"n" * 32)
    assert receiver.check(new, None, None, NOW) is not None
    assert sender.check(old, None, None, NOW) is not None
    sender.reload(1000.0 + GRACE - 1)
    assert sender.check(old, None, None, NOW) is not None
    sender.reload(1000.0 + GRACE)
    assert code(sender, old) == "403 hop_refused"
    assert sender.check(new, None, None, NOW) is not None


@pytest.mark.parametrize("pause", [1.0, 50.0, 130.0])
def test_keys_that_change_without_pause_leave_one_that_signs_and_checks(tmp_path: Path, pause: float) -> None:
    found = ring(tmp_path)
    for step in range(30):
        (tmp_path / "hop").write_bytes(os.urandom(32 + step))
        found.reload(pause * step)
        value = found.sign("support", "v1", 1, NOW)
        assert found.check(value, None, None, NOW) is not None
        assert len(found._keys) <= hops.KEPT


def test_a_key_that_comes_back_is_a_key_once(tmp_path: Path) -> None:
    found = ring(tmp_path)
    for now, key in ((10.0, b"n" * 32), (20.0, KEY), (30.0, b"n" * 33), (40.0, KEY + b"")):
        (tmp_path / "hop").write_bytes(key)
        found.reload(now)
    keys = [key for key, _ in found._keys]
    assert len(set(keys)) == len(keys)
    assert keys[0] == KEY


def test_the_key_is_in_no_error_and_no_representation(tmp_path: Path) -> None:
    found = ring(tmp_path, b"canary-4711-canary-4711-canary-4711")
    with pytest.raises(Refusal) as refused:
        found.check(b"canary?", None, None, NOW)
    assert "canary" not in f"{refused.value} {found!r} {found.error}"
