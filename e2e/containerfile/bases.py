"""Stand-ins for the bases that Containerfiles name, for machines that reach no registry of images.

They consist of the same packages of Debian as the image of Python that Containerfiles end with, with its accounts; the
stage that builds has pip besides. What they are not is the same bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from e2e.cluster import distribution, images, recipes

# Debian's Python without whatever a shell would want: no package here has one.
PACKAGES = (
    *("base-files", "netbase", "tzdata", "media-types", "libc6", "libssl3"),
    *("libgcc-s1", "libgomp1", "libstdc++6", "gcc-12-base"),
    *("libbz2-1.0", "libdb5.3", "libexpat1", "liblzma5", "libsqlite3-0", "libuuid1", "libncursesw6", "libtinfo6"),
    *("python3-distutils", "zlib1g", "libcom-err2", "libcrypt1", "libgssapi-krb5-2", "libk5crypto3", "libkeyutils1"),
    *("libkrb5-3", "libkrb5support0", "libnsl2", "libreadline8", "libtirpc3", "libffi8"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"),
)
PIP = ("python3-pip", "python3-setuptools", "python3-wheel", "python3-pkg-resources", "python3-lib2to3", "python3.11")
USERS = {"root": (0, "/root"), "nobody": (65534, "/nonexistent"), "nonroot": (65532, "/home/nonroot")}
ACCOUNTS = {
    "etc/passwd": "".join(f"{name}:x:{uid}:{uid}:{name}:{home}:/sbin/nologin\n" for name, (uid, home) in USERS.items()),
    "etc/group": "".join(f"{name}:x:{uid}:\n" for name, (uid, _) in USERS.items()),
    "etc/nsswitch.conf": "hosts: files dns\n",
}


def write(home: Path) -> dict[str, Path]:
    """Write both bases into a folder: archives by the argument that names them."""
    home.mkdir(parents=True, exist_ok=True)
    python = _python(home / "python")
    layers = {"BASE": (python,), "BUILD": (python, distribution.base(PIP))}
    made = {}
    for argument, trees in layers.items():
        laid = tuple((tree, "/") for tree in trees)
        name, env = f"{argument.lower()}:debian", {"PATH": recipes.PATH, "LANG": "C.UTF-8"}
        image = images.Image(name, laid, (recipes.INTERPRETER,), env, user="0:0")
        made[argument] = images.write(image, home / f"{argument.lower()}.tar")
    shutil.rmtree(python)
    return made


def _python(tree: Path) -> Path:
    shutil.copytree(distribution.base(PACKAGES, described=True), tree, symlinks=True)
    for unread in recipes.UNREAD:
        shutil.rmtree(tree / unread, ignore_errors=True)
    for file, text in ACCOUNTS.items():
        (tree / file).write_text(text)
    for directory, mode in (("tmp", 0o1777), ("root", 0o700)):
        (tree / directory).mkdir(exist_ok=True)
        (tree / directory).chmod(mode)
    (tree / "usr/bin/python3").symlink_to(Path(recipes.INTERPRETER).name)
    return tree
