"""Packages are signed, and what was changed since, or signed by nobody trusted, is refused by its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modeltiers import names
from modeltiers.distill.faults import BadData
from modeltiers.distill.signature import keys_in, sign, verify


def pair(folder: Path, name: str) -> tuple[Path, str]:
    """A private key in a file, and its public key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = folder / name
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return private, key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path, str]:
    """A folder, its signature and the public key."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    private, public = pair(tmp_path, "key")
    signature = tmp_path / "model.sig"
    sign(model, signature, private)
    return model, signature, public


def test_what_was_signed_is_served(signed: tuple[Path, Path, str], tmp_path: Path) -> None:
    model, signature, public = signed
    _, other = pair(tmp_path, "other")
    verify(model, signature, keys_in(f"{other}\n{public}"))


def change(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"weightz")


def add(model: Path) -> None:
    (model / "extra.json").write_text("{}")


def take(model: Path) -> None:
    (model / "config.json").unlink()


@pytest.mark.parametrize("do", [change, add, take])
def test_what_was_changed_is_not(signed: tuple[Path, Path, str], do: object) -> None:
    model, signature, public = signed
    assert callable(do)
    do(model)
    with pytest.raises(BadData) as refused:
        verify(model, signature, [public])
    assert refused.value.reason == "ArtifactChanged"


def test_nor_what_somebody_else_signed(signed: tuple[Path, Path, str], tmp_path: Path) -> None:
    model, signature, _ = signed
    _, other = pair(tmp_path, "other")
    with pytest.raises(BadData, match="trusted key"):
        verify(model, signature, [other])


def test_nor_what_nobody_signed(signed: tuple[Path, Path, str]) -> None:
    model, signature, public = signed
    signature.unlink()
    with pytest.raises(BadData) as refused:
        verify(model, signature, [public])
    assert refused.value.reason == "ArtifactNotSigned"


def test_a_key_of_another_kind_is_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a").write_text("a")
    with pytest.raises(BadData) as refused:
        sign(tmp_path / "model", tmp_path / "sig", tmp_path / "key")
    assert refused.value.reason == "SigningKeyWrong"


def test_the_program_says_it_by_its_exit_code(signed: tuple[Path, Path, str]) -> None:
    model, signature, public = signed
    command = [sys.executable, "-m", "modeltiers.distill", "verify", f"--model={model}", f"--signature={signature}"]
    env = {**os.environ, names.PUBLIC_KEYS_ENV: public, "PYTHONPATH": "operator"}
    assert subprocess.run(command, env=env, check=False, timeout=60).returncode == 0
    change(model)
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "ArtifactChanged" in done.stderr) == (78, True)
