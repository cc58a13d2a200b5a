"""An image is read as a container would see it, and what must not be in one is found."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import images
from e2e.containerfile import rootfs
from tests.node.imagery import faults_of


def layer(*entries: tuple[str, int, bytes | None], uid: int = 0) -> bytes:
    """A layer of files, and of directories where there are no bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, mode, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.size = mode, uid, len(content or b"")
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            tar.addfile(entry, io.BytesIO(content or b""))
    return out.getvalue()


def archive(path: Path, *layers: bytes) -> Path:
    """An OCI archive of these layers."""
    with tarfile.open(path, "w") as out:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))

        def blob(content: bytes) -> dict[str, Any]:
            digest = hashlib.sha256(content).hexdigest()
            add(f"blobs/sha256/{digest}", content)
            return {"digest": f"sha256:{digest}", "size": len(content)}

        listed = [blob(one) for one in layers]
        config = blob(json.dumps({"config": {"User": "1:1"}}).encode())
        manifest = blob(json.dumps({"config": config, "layers": listed}).encode())
        add("index.json", json.dumps({"manifests": [manifest]}).encode())
    return path


def test_what_an_upper_layer_strikes_out_is_gone(tmp_path: Path) -> None:
    lower = layer(("a", 0o755, None), ("a/one", 0o644, b"1"), ("a/two", 0o644, b"22"), ("b/three", 0o644, b"3"))
    upper = layer(("./a/.wh.one", 0, b""), ("b/.wh..wh..opq", 0, b""), ("b/four", 0o600, b"4444"))
    found = rootfs.read(archive(tmp_path / "x.tar", lower, upper))
    assert sorted(found.files) == ["a", "a/two", "b/four"]
    assert found.size == 6
    assert (found.compressed, found.config) == (len(lower) + len(upper), {"User": "1:1"})
    assert len(set(found.layers)) == 2


def test_a_directory_that_is_struck_out_takes_what_is_in_it(tmp_path: Path) -> None:
    lower = layer(("a", 0o755, None), ("a/one", 0o644, b"1"), ("ab", 0o644, b"1"))
    found = rootfs.read(archive(tmp_path / "x.tar", lower, layer((".wh.a", 0, b""))))
    assert sorted(found.files) == ["ab"]


@pytest.mark.parametrize(
    ("path", "mode", "uid", "said"),
    [
        ("app/one.py", 0o664, 0, "can be written"),
        ("app/one.py", 0o644, 10001, "belongs to 10001"),
        ("app/one.py", 0o640, 0, "cannot be read"),
        ("usr/bin/ping", 0o4755, 0, "runs as another"),
        ("usr/bin/gcc", 0o755, 0, "nothing needs"),
        ("root/.cache/pip/x", 0o644, 0, "left over"),
        ("requirements.txt", 0o644, 0, "left over"),
        ("tmp/x", 0o644, 0, "left over"),
    ],
)
def test_what_must_not_be_in_an_image_is_found(tmp_path: Path, path: str, mode: int, uid: int, said: str) -> None:
    found = rootfs.read(archive(tmp_path / "x.tar", layer((path, mode, b""), uid=uid)))
    [fault] = faults_of(found)
    assert path in fault and said in fault


def test_an_image_of_our_own_is_read(tmp_path: Path) -> None:
    """The quick local way writes the same format."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/one.py").write_text("1")
    made = images.write(images.Image("x:1", ((tmp_path / "app", "/app"),), ("/app/one.py",)), tmp_path / "x.tar")
    found = rootfs.read(made)
    assert list(found.files) == ["app/one.py"]
    assert found.config["User"] == "10001:10001"
    assert faults_of(found) == []
