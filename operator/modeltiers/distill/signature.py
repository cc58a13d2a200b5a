"""Signatures over packages, as OpenSSF model-signing writes them; any tool that knows the format can check one.

`python -m modeltiers.distill verify` runs before an engine, in the pod of the tier that serves a package: an artifact
that was changed, or that nobody signed whom the administrator trusts, is not served.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modeltiers.distill.faults import BadData

_BEGIN: Final = "-----BEGIN PUBLIC KEY-----"


def sign(folder: Path, signature: Path, key: Path) -> None:
    """Sign every file of a folder with an elliptic curve's private key; raises BadData where the key is none."""
    from model_signing import signing  # takes seconds to load, and most stages sign nothing

    try:
        signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, signature)
    except (ValueError, TypeError) as fault:
        said = f"the signing key is not the private key of an elliptic curve in PEM: {fault}"
        raise BadData(said, reason="SigningKeyWrong") from fault


def verify(folder: Path, signature: Path, keys: Sequence[str]) -> None:
    """Check a folder against public keys in PEM; raises BadData unless one of them signed exactly these files."""
    from model_signing import verifying  # as above

    if not folder.is_dir():
        raise BadData(f"{folder} is not there: nothing can be served from it", reason="ArtifactMissing")
    if not signature.is_file():
        raise BadData(f"{folder} has no signature beside it: it was packaged without one", reason="ArtifactNotSigned")
    why = "no public key is given"
    for key in keys:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(key)
            file.flush()
            try:
                verifying.Config().use_elliptic_key_verifier(public_key=file.name).verify(folder, signature)
            except Exception as fault:
                why = str(fault)[:300] or type(fault).__name__
            else:
                return
    said = f"the files of {folder} are not those that were signed by a trusted key: {why}"
    raise BadData(said, reason="ArtifactChanged")


def keys_in(text: str) -> list[str]:
    """The public keys of a text, PEM after PEM."""
    return [f"{_BEGIN}{part}" for part in text.split(_BEGIN)[1:]]
