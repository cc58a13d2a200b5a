"""The images of this project for a real node: router and operator, and an engine whose environment is mounted.

Decides what is in an image, from the distribution's packages, the project's lock files and its source; how an archive
is written is `images`' business. An image's tag is the digest of its content, so changed code is another image.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import distribution, images
from e2e.cluster.binaries import exclusively
from e2e.cluster.images import Image
from e2e.cluster.report import HarnessError, say

ROOT = Path(__file__).parents[2]
PYTHON = "3.11"  # what the lock file of the engine is made for; the other programs take any from there on
INTERPRETER = f"/usr/bin/python{PYTHON}"
KEPT_ARCHIVES = 3
RECIPE = "1"  # raise it when something below changes what is in an image

# No maintainer script runs, so the list is whole: what python and vLLM load, and nothing that a shell would want.
PACKAGES = (
    *("base-files", "netbase", "media-types", "busybox-static"),
    *("libc6", "libgcc-s1", "libstdc++6", "libcrypt1", "zlib1g", "libexpat1", "libssl3", "libffi8", "libbz2-1.0"),
    *("liblzma5", "libuuid1", "libtinfo6", "libncursesw6", "libreadline8", "libsqlite3-0", "libdb5.3"),
    *("libnsl2", "libtirpc3", "libnuma1", "libgomp1"),
    *(f"python{PYTHON}", f"python{PYTHON}-minimal"),
    *(f"libpython{PYTHON}", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"),
    # vLLM runs lscpu to see what it runs on
    *("util-linux", "libsmartcols1", "libmount1", "libblkid1", "libselinux1", "libpcre2-8-0", "libcap-ng0"),
    *("libudev1", "libsystemd0", "libcap2"),
)
UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
WRITABLE = "/tmp"  # noqa: S108 - of the container, where nothing else may be written
USERS = {"root": (0, "/root"), "vllm": (2000, WRITABLE), "modeltiers": (10001, WRITABLE)}  # torch looks up who it is
ACCOUNTS = {
    "etc/passwd": "".join(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n" for name, (uid, home) in USERS.items()),
    "etc/group": "".join(f"{name}:x:{uid}:\n" for name, (uid, _) in USERS.items()),
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
ENGINE_HOME = "/venv"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENGINE_ENV = {
    "PATH": PATH,
    "PYTHONPATH": f"{ENGINE_HOME}/lib/python{PYTHON}/site-packages",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

TRAINER_ENV = {
    "PATH": PATH,
    "PYTHONPATH": f"/app:{ENGINE_HOME}/lib/python{PYTHON}/site-packages",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Made:
    """An image as an archive: what pods call it, and what `Cluster.load_image` takes."""

    reference: str
    archive: Path


@dataclass(frozen=True)
class Program:
    """What an image of ours consists of beside its base; its Containerfile in images/ says the same."""

    lock: Path
    entry: tuple[str, ...]
    env: Mapping[str, str]
    user: str = Image.user


def program(name: str) -> Program:
    """Return what the image `router`, `operator` or `distill` consists of."""
    modules = {"router": "modeltiers.router", "operator": "modeltiers.controllers", "distill": "modeltiers.distill"}
    module = modules[name]
    env = {"PATH": PATH, "PYTHONPATH": "/app:/site", "PYTHONUNBUFFERED": "1"}
    return Program(ROOT / "requirements" / f"{name}.txt", (INTERPRETER, "-m", module), env)


def router() -> Made:
    """Make the router's image."""
    return _program("router")


def operator() -> Made:
    """Make the operator's image."""
    return _program("operator")


def distill() -> Made:
    """Make the image of the stages that move data and ask models."""
    return _program("distill")


def trainer() -> Made:
    """Make the image of the training stage: Python and our code. torch and TRL are mounted at /venv, like an engine's
    vLLM."""
    source = ROOT / "operator"
    key = _digest(_base_key(), *_contents(source / "modeltiers"))
    layers = ((base(), "/"), (_stage(source, key), "/app"))
    return _made("train", layers, (INTERPRETER, "-m", "modeltiers.distill"), TRAINER_ENV, key)


def engine() -> Made:
    """Make an engine's image: Python and what vLLM loads from the system. vLLM itself is mounted at /venv.

    In an image its 5 GB would take two minutes and four times the disk; a volume takes neither.
    """
    entry = (INTERPRETER, "-m", "vllm.entrypoints.cli.main", "serve")
    return _made("engine", ((base(), "/"), (_shell(), "/usr/bin")), entry, ENGINE_ENV, _digest(_base_key()))


def _shell() -> Path:
    """Return what makes busybox the shell: vLLM starts lscpu through one. Our own programs get none."""
    return _stored(f"shell-{RECIPE}", "the engine's shell", lambda fresh: (fresh / "sh").symlink_to("busybox"))


def _program(name: str) -> Made:
    plan, source = program(name), ROOT / "operator"
    key = _digest(_base_key(), plan.lock.read_text(), *_contents(source / "modeltiers"))
    layers = ((base(), "/"), (_site(name, plan.lock), "/site"), (_stage(source, key), "/app"))
    return _made(name, layers, plan.entry, plan.env, key)


def _made(
    name: str, layers: tuple[tuple[Path, str], ...], entry: tuple[str, ...], env: Mapping[str, str], key: str
) -> Made:
    tag = _digest(key, RECIPE, *entry, *(f"{variable}={value}" for variable, value in sorted(env.items())))
    image = Image(f"{name}:{tag}", layers, entry, env)
    archive = distribution.cache() / "images" / f"{name}-{tag}.tar"
    with exclusively(archive, f"the image of {name}"):
        if not archive.exists():
            images.write(image, archive)
            _forget_old(archive, name)
    return Made(image.reference, archive)


def _forget_old(newest: Path, name: str) -> None:
    """Delete the archives of earlier content, but for a few that another process may still be reading."""
    archives = sorted(newest.parent.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in archives[:-KEPT_ARCHIVES]:
        path.unlink(missing_ok=True)


def _base_key() -> str:
    return _digest(RECIPE, base().name)


@functools.cache
def base() -> Path:
    """Return the tree that every image begins with."""
    packages = distribution.base(PACKAGES)

    def fill(fresh: Path) -> None:
        shutil.copytree(packages, fresh, symlinks=True, dirs_exist_ok=True)
        for unread in UNREAD:
            shutil.rmtree(fresh / unread, ignore_errors=True)
        for file, text in ACCOUNTS.items():
            (fresh / file).write_text(text)
        for directory, mode in (("tmp", 0o1777), ("root", 0o700), (ENGINE_HOME.strip("/"), 0o755)):
            (fresh / directory).mkdir(exist_ok=True)
            (fresh / directory).chmod(mode)
        (fresh / "usr/bin/python3").symlink_to(f"python{PYTHON}")
        _compile(fresh / "usr/lib" / f"python{PYTHON}", fresh, f"/usr/lib/python{PYTHON}")

    key = _digest(RECIPE, packages.name, *ACCOUNTS.values())
    return _stored(f"python-{key}", "the base of images", fill)


def _site(name: str, lock: Path) -> Path:
    """Return a directory with the packages of a lock file, each checked against its hashes."""

    def fill(fresh: Path) -> None:
        say(f"fetching the packages of requirements/{lock.name} for the image of {name} (once)")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command += ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--target", str(fresh)]
        if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
            machine = platform.machine()
            tags = (f"manylinux_2_{minor}_{machine}" for minor in (17, 24, 27, 28, 34, 36))
            command += ["--python-version", PYTHON, *(f"--platform={tag}" for tag in tags)]
        done = subprocess.run(
            [*command, "--requirement", str(lock)], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise HarnessError(
                f"pip cannot install requirements/{lock.name} for an image: {done.stderr.strip()[-2000:]}"
            )
        _compile(fresh, base(), "/site")

    return _stored(f"site-{name}-{_digest(RECIPE, _base_key(), lock.read_text())}", f"packages of {name}", fill)


def _stage(source: Path, key: str) -> Path:
    """Return a copy of our own code, as an image has it."""

    def fill(fresh: Path) -> None:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / "modeltiers", fresh / "modeltiers", ignore=ignore)
        _compile(fresh, base(), "/app")

    staged = _stored(f"app-{key}", "our code for images", fill)
    others = sorted(staged.parent.glob("app-*/"), key=lambda path: path.stat().st_mtime)
    for old in others[:-KEPT_ARCHIVES]:
        shutil.rmtree(old, ignore_errors=True)
    return staged


def _stored(name: str, what: str, fill: Callable[[Path], None]) -> Path:
    """Return a directory of the cache, filled once; an interrupted filling leaves nothing that looks whole."""
    home = distribution.cache() / name
    with exclusively(home, what):
        if not home.exists():
            fresh = home.with_name(f".{name}.{os.getpid()}")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            fill(fresh)
            fresh.rename(home)
    return home


def _compile(directory: Path, base: Path, seen: str) -> None:
    """Compile bytecode with the image's own Python, for files that an image shows below `seen` with no time of change.

    A container's root is read-only: without this, every start would compile every module again.
    """
    loader = next(base.glob("lib64/ld-linux-*.so.*"))
    libraries = ":".join(map(str, (base / "usr/lib").glob("*-linux-gnu")))
    command = [str(loader), "--library-path", libraries, str(base / INTERPRETER.lstrip("/")), "-S", "-m", "compileall"]
    command += ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(directory), "-p", seen]
    env = {"PYTHONHOME": str(base / "usr"), "PATH": os.environ.get("PATH", "")}
    done = subprocess.run([*command, str(directory)], env=env, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode and "SyntaxError" not in done.stdout:  # some packages ship files that are templates
        raise HarnessError(f"cannot compile {directory} for an image: {(done.stdout + done.stderr).strip()[-2000:]}")


def _contents(directory: Path) -> Iterable[str]:
    """Return what a tree of source consists of, names and bytes."""
    for file in sorted(directory.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield f"{file.relative_to(directory)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
