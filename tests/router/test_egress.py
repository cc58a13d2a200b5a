"""A router that stands before an external API (`--external`), and the way of a request between two namespaces.

Every process is a router of its own on real sockets: the one that the client asks, the egress router that alone holds
the key, and the router of the other namespace that asks for it.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.router.kit.client import chat, get
from tests.router.kit.router import Refused, Router, table
from tests.router.kit.upstream import Asked, Upstream, answer, fails, response, says

KEY = "sk-of-the-other-namespace"
RING = {"keys": [{"name": "team-b", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}


@pytest.fixture
def hop_key(tmp_path: Path) -> Path:
    """The hop key that both routers of a namespace have."""
    path = tmp_path / "hop.key"
    path.write_bytes(secrets.token_bytes(64))
    return path


@pytest.fixture
def api_key(tmp_path: Path) -> Path:
    """The key of the API, as a mounted Secret has it."""
    path = tmp_path / "api.key"
    path.write_text(KEY + "\n")
    return path


def egress(where: int | str, api_key: Path | None = None, hop_key: Path | None = None, **changes: Any) -> Router:
    """The egress router of tier t1, before an API; its table is the one that every router of the ladder reads."""
    url = f"http://127.0.0.1:{where}/v1" if isinstance(where, int) else where
    flags = ["--external", f"t1={url}", "--external-private"]
    flags += ["--external-key", str(api_key)] if api_key else []
    flags += ["--hop-key", str(hop_key)] if hop_key else []
    return Router(one_table(1, 1, **changes), *flags)


def one_table(small: int, large: int, **changes: Any) -> dict[str, Any]:
    """The table that the operator writes: t0 beside its engine, t1 behind the egress router, both as hops."""
    hop = {"hop": True, "timeouts": {"connectMs": 5_000, "firstByteMs": 10_000, "idleMs": 10_000, "totalMs": 20_000}}
    tiers = {0: {**hop, "model": "tiny"}, 1: {**hop, "model": "support"}}
    return {**table(small, large, tiers=tiers, **changes), "version": "v1"}


def ready(router: Router) -> None:
    router.until(lambda status: status["engine"]["state"] == "Ready")


def asked_by(api: Upstream) -> Asked:
    return next(one for one in api.requests if one.target == "/v1/chat/completions")


def test_it_is_ready_without_a_request_to_the_api(api_key: Path) -> None:
    with Upstream(answer("x")) as api, egress(api.port, api_key) as router:
        ready(router)
        assert get(router.admin, "/readyz").status == 200
        assert api.requests == []


MODELS = b'{"object": "list", "data": [{"id": "other"}, {"id": "frontier-large"}]}'


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        ("200 OK", MODELS, "Listed"),
        ("200 OK", MODELS.replace(b"frontier", b"former"), "NotListed"),
        ("401 Unauthorized", b'{"error": {"message": "no"}}', "KeyRejected"),
        ("404 Not Found", b"nothing here", "NoList"),
        ("200 OK", b'{"data": 7}', "NoList"),
    ],
)
def test_the_api_is_asked_for_its_list_of_models_with_the_key(
    status: str, body: bytes, word: str, api_key: Path
) -> None:
    """That costs no tokens, and tells of the key what nobody else can."""
    with Upstream(says(response(status, body))) as api:
        flags = (
            "--external",
            f"t1=http://127.0.0.1:{api.port}/v1",
            "--external-private",
            "--external-key",
            str(api_key),
        )
        with Router(one_table(1, 1), *flags, "--external-model", "frontier-large") as router:
            router.until(lambda found: found["engine"]["models"] == word)
            [asked] = api.requests
            assert (asked.method, asked.target) == ("GET", "/v1/models")
            assert asked.header("authorization") == f"Bearer {KEY}"
            ready(router)
            assert KEY not in router.output()


def test_an_api_that_cannot_be_asked_keeps_nobody_away(tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    flags = ("--external", "t1=http://127.0.0.1:1/v1", "--external-private", "--external-key", str(key))
    with Router(one_table(1, 1), *flags, "--external-model", "m") as router:
        router.until(lambda found: found["engine"]["state"] == "APIKeyMissing")
        assert router.status()["engine"]["models"] is None  # nothing is asked without a key
        key.write_text("sk")
        ready(router)


def test_without_a_policy_it_is_ready_too(api_key: Path, tmp_path: Path) -> None:
    """The tier is as ready as it can be: a policy that comes later is read as it comes."""
    folder = tmp_path / "tables"
    folder.mkdir()
    flags = ("--table", str(folder), "--external", "t1=http://127.0.0.1:1/v1", "--external-private")
    with Router(one_table(1, 1), *flags, "--external-key", str(api_key)) as router:
        ready(router)
        assert router.status()["tables"] == {}
        assert get(router.admin, "/readyz").status == 200


@pytest.mark.parametrize(
    ("url", "word"),
    [("https://nowhere.invalid/v1", "NameNotResolved"), ("http://localhost:1/v1", "AddressRefused")],
)
def test_what_keeps_requests_away_is_told_in_a_word(url: str, word: str, api_key: Path) -> None:
    flags = ("--external", f"t1={url}", "--external-key", str(api_key))  # no private address
    with Router(one_table(1, 1), *flags) as router:
        router.until(lambda status: status["engine"]["state"] == word, seconds=10)
        assert get(router.admin, "/readyz").status == 503
        assert get(router.admin, "/healthz").status == 200
        assert get(router.admin, "/engine/health").status == 503


def test_the_key_comes_and_goes_and_changes_without_a_restart(tmp_path: Path, hop_key: Path) -> None:
    path = tmp_path / "api.key"
    with Upstream(answer("from the API")) as api, egress(api.port, path, hop_key) as router:
        router.until(lambda status: status["engine"]["state"] == "APIKeyMissing")
        assert get(router.admin, "/readyz").status == 503
        path.write_text("first")
        ready(router)
        with Router(one_table(1, router.port), "--hop-key", str(hop_key)) as entry:
            assert chat(entry.port).text == "from the API"
            assert api.requests[-1].header("authorization") == "Bearer first"
            path.write_text("second")
            assert chat(entry.port).text == "from the API"
            assert api.requests[-1].header("authorization") == "Bearer second"
        assert "first" not in router.output()
        path.unlink()
        router.until(lambda status: status["engine"]["state"] == "APIKeyMissing")


def test_a_base_url_that_is_none_stops_it_at_once() -> None:
    with pytest.raises(Refused, match="private: true"), egress("http://169.254.169.254/v1"):
        pass
    with pytest.raises(Refused, match="plain URL"), egress("http://user@example.com/v1"):
        pass
    with (
        pytest.raises(Refused, match="not allowed with"),
        Router(table(1), "--local", "t0=127.0.0.1:1", "--external", "t0=http://a/v1"),
    ):
        pass


def test_a_request_goes_by_the_egress_router_to_the_other_namespace(hop_key: Path, api_key: Path) -> None:
    """Client, router beside the small tier, egress router, router of the other namespace, its engine; and back."""
    with Upstream(answer("from over there")) as far_engine, Upstream(fails(503)) as small:
        far = table(far_engine.port, policy={"access": {"mode": "Keys", "keys": ["team-b"]}})
        with (
            Router(far, keys=RING) as there,
            egress(there.port, api_key, hop_key) as out,
            Router(one_table(small.port, out.port), "--local", f"t0=127.0.0.1:{small.port}") as unkeyed,
            Router(one_table(1, out.port), "--local", f"t0=127.0.0.1:{small.port}", "--hop-key", str(hop_key)) as entry,
        ):
            ready(out)
            reply = chat(entry.port, "hi", "authorization: Bearer a-client-key")
            assert (reply.status, reply.text) == (200, "from over there")
            assert reply.header("x-modeltiers-tier") == "t1"
            asked = asked_by(far_engine)
            assert asked.header("authorization") is None  # the key ends at the router that asks for it
            assert asked.header("x-modeltiers-hop") is None  # and a hop at the namespace's border
            for router in (entry, out, there):
                assert KEY not in router.output()
                assert KEY not in router.get("/status").body.decode()
            assert chat(unkeyed.port).status == 502  # who cannot sign is not let through


def test_a_stream_goes_the_same_way(hop_key: Path, api_key: Path) -> None:
    with (
        Upstream(answer("one two three")) as far_engine,
        Router(table(far_engine.port, policy={"access": {"mode": "Keys"}}), keys=RING) as there,
        egress(there.port, api_key, hop_key) as out,
        Router(one_table(1, out.port), "--hop-key", str(hop_key)) as entry,
    ):
        ready(out)
        reply = chat(entry.port, stream=True)
        assert (reply.status, reply.text) == (200, "one two three")
        assert reply.body.endswith(b"data: [DONE]\n\n")


def test_a_key_that_the_other_side_refuses_is_not_told_to_the_client(hop_key: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "api.key"
    wrong.write_text("sk-not-admitted")
    with (
        Upstream(answer("never")) as far_engine,
        Upstream(answer("the small one")) as small,
        Router(table(far_engine.port, policy={"access": {"mode": "Keys"}}), keys=RING) as there,
        egress(there.port, wrong, hop_key) as out,
        Router(one_table(small.port, out.port), "--hop-key", str(hop_key)) as entry,
    ):
        ready(out)
        # t0 is no router here, so it takes the signed request; that the ladder goes on is what is looked at.
        first = chat(entry.port)
        assert first.text == "the small one"
        entry.reload(one_table(1, out.port))
        entry.until(lambda status: "127.0.0.1:1" in status["tiers"]["t0"]["addresses"])
        refused = chat(entry.port)
        assert refused.status in (502, 503)
        assert b"key" not in refused.body
        assert far_engine.requests == []
