"""Where the programs of a cluster are looked for, and in which order."""

from pathlib import Path

import pytest

from e2e.cluster import binaries
from e2e.cluster.report import HarnessError

ETCD = next(tool for tool in binaries.tools() if tool.name == "etcd")


def program(directory: Path, name: str = "etcd") -> Path:
    """An executable file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text("")
    path.chmod(0o700)
    return path


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what this machine has built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in binaries.DIRECTORY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_command_line_comes_before_the_environment(tmp_path: Path) -> None:
    """--bin, then MODELTIERS_BIN, then envtest's directory."""
    for name in ("bin", "ours", "envtest"):
        (tmp_path / name).mkdir()
    environment = {"MODELTIERS_BIN": str(tmp_path / "ours"), "KUBEBUILDER_ASSETS": str(tmp_path / "envtest")}
    expected = (tmp_path / "bin", tmp_path / "ours", tmp_path / "envtest")
    assert binaries.user_directories(tmp_path / "bin", environment) == expected


def test_a_wrong_directory_is_an_error_only_where_it_was_meant_for_us(tmp_path: Path) -> None:
    """A typo must not lead to a build of five minutes."""
    missing = tmp_path / "missing"
    with pytest.raises(HarnessError, match="--bin names"):
        binaries.user_directories(missing, {})
    with pytest.raises(HarnessError, match="MODELTIERS_BIN names"):
        binaries.user_directories(None, {"MODELTIERS_BIN": str(missing)})
    assert binaries.user_directories(None, {"KUBEBUILDER_ASSETS": str(missing)}) == ()


def test_a_named_directory_comes_before_the_cache(tmp_path: Path) -> None:
    """What the user names is used even when a built program exists."""
    program(binaries.cached(ETCD).parent)
    named = program(tmp_path / "named")
    assert binaries.find(ETCD, (tmp_path / "named",)) == named


def test_what_a_named_directory_lacks_comes_from_the_cache(tmp_path: Path) -> None:
    """envtest's directory holds three programs of six."""
    program(tmp_path / "named", "kubectl")
    built = program(binaries.cached(ETCD).parent)
    assert binaries.find(ETCD, (tmp_path / "named",)) == built


def test_a_file_that_cannot_be_executed_is_no_program(tmp_path: Path) -> None:
    """A broken download is passed over."""
    program(tmp_path / "named").chmod(0o600)
    assert binaries.find(ETCD, (tmp_path / "named",)) is None


def test_without_go_the_error_names_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded silently."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HarnessError) as refused:
        binaries.build(ETCD)
    assert all(way in str(refused.value) for way in ("install Go", "--bin DIR", "MODELTIERS_BIN", "KUBEBUILDER_ASSETS"))


def test_every_pin_is_read_from_its_module() -> None:
    """The version is written once, in go.mod."""
    for release in binaries.RELEASES:
        versions = {tool.name: binaries.version(tool) for tool in binaries.tools(release)}
        assert len({versions[name] for name in versions if name.startswith("kube")}) == 1
        assert all(version.startswith("v") for version in versions.values())


def test_releases_have_caches_of_their_own() -> None:
    """The oldest supported release never takes the place of the pinned one."""
    places = [binaries.cached(binaries.tools(release)[0]) for release in binaries.RELEASES]
    assert len(set(places)) == len(places)


def test_a_module_may_name_a_newer_go_than_the_rest_is_built_with() -> None:
    """Argo CD wants one; a Go that is too old for the others shall say so and fetch nothing."""
    assert binaries.toolchain("kubernetes") == "local"
    assert binaries.toolchain("argocd").startswith("go1.")
    assert all(binaries.version(tool).startswith("v") for tool in binaries.ARGOCD)


def test_an_unknown_release_is_refused() -> None:
    """The error lists what there is."""
    with pytest.raises(HarnessError, match="pinned, floor"):
        binaries.tools("latest")


def test_kubernetes_is_told_its_version() -> None:
    """Both libraries that answer with a version are stamped."""
    flags = binaries.flags(binaries.tools()[0])[-1]
    version = binaries.version(binaries.tools()[0])
    assert f"k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"k8s.io/client-go/pkg/version.gitVersion={version}" in flags
