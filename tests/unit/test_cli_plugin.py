"""The plugin at a terminal, with nothing behind it: faults, names, reference, completion, and lines of logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from modeltiers.cli import show
from modeltiers.cli.cli_page import cli_page
from modeltiers.cli.completion import completions
from modeltiers.cli.kubectl import Fault, Forbidden, Kubectl, NotFound, NotInstalled, fault
from modeltiers.cli.logs import read
from modeltiers.cli.main import COMMANDS, main
from modeltiers.cli.objects import Named, ObjectName, kind_of
from modeltiers.domain.why.snapshot import JOB, POLICY, TIER
from modeltiers.domain.why.streams import Stream


def run(*args: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, list(args))
    assert done.exit_code == code, done.output
    return done.output


# What kubectl 1.37 says -> the fault, and words that a person can act on.
@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        ('error: the server doesn\'t have a resource type "modeltiers"', NotInstalled, "install the operator"),
        ('Error from server (NotFound): modeltiers.modeltiers.dev "x" not found', NotFound, "not found"),
        ('Error from server (Forbidden): pods is forbidden: User "bob" cannot list', Forbidden, "ask whoever runs"),
        ("The connection to the server localhost:8080 was refused - did you specify", Fault, "set KUBECONFIG"),
        ("error: current-context must exist in order to minify", Fault, "set KUBECONFIG"),
        ("The connection to the server 10.0.0.1:6443 was refused", Fault, "is the cluster up"),
        ("Unable to connect to the server: dial tcp: lookup x: no such host", Fault, "is the cluster up"),
        ("error: You must be logged in to the server (Unauthorized)", Fault, "log in again"),
        ("Unable to connect to the server: x509: certificate signed by unknown authority", Fault, "certificate"),
        ("Error in configuration: context was not found for specified context: x", Fault, "get-contexts"),
        ("error: stat /x/config: no such file or directory", Fault, "another --kubeconfig"),
        ("something new", Fault, "something new"),
        ("", Fault, "ended with 3"),
    ],
)
def test_faults_have_a_way_out(said: str, kind: type[Fault], word: str) -> None:
    found = fault(said, 3)
    assert type(found) is kind
    assert word in found.message


def test_what_a_server_says_of_a_kubelet_is_not_about_the_way_to_the_server() -> None:
    said = 'Error from server: Get "https://n:10250/containerLogs/": dial tcp: lookup n: no such host'
    assert fault(said, 1).message == said


@pytest.mark.parametrize("word", ["mt", "modeltier", "ModelTiers", "modeltiers.modeltiers.dev"])
def test_kinds_have_kubectls_names(word: str) -> None:
    assert kind_of(word) == TIER
    assert ObjectName(TIER, POLICY, JOB).convert(f"{word}/small", None, None) == Named(TIER, "small")


@pytest.mark.parametrize(
    ("value", "says"),
    [("small", "says no kind"), ("pod/x", "pod is not a"), ("mt/A b", "is not a name"), ("mt/", "name")],
)
def test_what_is_no_name_of_an_object(value: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        ObjectName(TIER, POLICY).convert(value, None, None)


def test_a_proposed_command_is_for_the_cluster_that_was_asked() -> None:
    where = Kubectl(context="my ctx")
    assert where.like("kubectl get nodes") == "kubectl --context='my ctx' get nodes"
    assert where.like("kubectl modeltiers logs mt/x") == "kubectl modeltiers logs mt/x --context='my ctx'"
    piped = "kubectl get mt/x -o yaml | kubectl modeltiers plan -f -"
    assert where.like(piped) == "kubectl --context='my ctx' get mt/x -o yaml | kubectl modeltiers plan -f -"
    assert Kubectl("shop").like("kubectl get nodes") == "kubectl get nodes"


def test_docs_of_reasons_fields_and_kinds() -> None:
    told = run("docs", "unschedulable")
    assert "Unschedulable, on Stalled of a ModelTier" in told or "Unschedulable, on" in told
    assert "Way out: Free accelerators" in told
    assert "spec.sizing.mode" in run("docs", "mt.spec.sizing")
    assert "spec.accelerators[].product" in run("docs", "mt.spec.accelerators")
    assert "spec.tiers" in run("docs", "RoutingPolicy")
    assert "router.image" in run("docs", "settings.router")
    assert "VolumeClaimNotFound, on Stalled of a DistillJob" in run("docs", "VolumeClaimNotFound")
    assert "reasons of a DistillJob" in run("docs")
    assert "did you mean Unschedulable" in run("docs", "Unschedulble", code=1)
    assert "did you mean mt.spec.sizing" in run("docs", "mt.spec.siizing", code=1)
    assert "modeltiers docs lists both" in run("docs", "qqqqqq", code=1)


def test_completion_in_kubectls_protocol() -> None:
    assert {line.partition("\t")[0] for line in completions([""])} == {*COMMANDS, ":4"}
    assert completions(["docs", "Unsched"]) == ["Unschedulable", ":4"]
    assert "mt.spec.sizing" in completions(["docs", "mt.spec.siz"])
    assert completions(["logs", "--stage", "Gen"]) == ["Generate", ":4"]
    assert completions(["status", "-o", "w"]) == ["wide", ":4"]
    assert completions([])[-1] == ":4"


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --no-files")]
)
def test_completion_scripts(shell: str, word: str) -> None:
    told = run("completion", shell)
    assert word in told
    assert "_MODELTIERS_COMPLETE" in told


def test_a_cluster_that_does_not_answer_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert completions(["why", "mt/"]) == [":4"]
    assert completions(["why", "-n", ""]) == [":4"]


def test_without_kubectl_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for command in (["status"], ["why"], ["logs", "mt/x"], ["report", "dj/x"], ["-n", "shop", "why", "rp/x"]):
        assert "kubectl is not on the PATH" in run(*command, code=1)


def test_report_needs_a_job_or_a_bundle(tmp_path: Path) -> None:
    assert "name a DistillJob" in run("report", code=2)
    assert "is about a namespace" in run("report", "dj/x", "--bundle", str(tmp_path / "b.tar.gz"), code=2)
    there = tmp_path / "there.tar.gz"
    there.write_text("mine")
    assert "is there already" in run("report", "--bundle", str(there), "-n", "shop", code=1)
    assert there.read_text() == "mine"


STAND_IN = """#!{python}
import sys
name = sys.argv[sys.argv.index("logs") + 1]
if name == "gone":
    sys.exit("Error from server (NotFound): pods gone not found")
for number in range(3):
    print(name, number, "\\x1b[31mred")
"""


def test_lines_of_several_logs_have_their_pods_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for kubectl: what is looked at here is how the lines of several come out."""
    program = tmp_path / "kubectl"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    read(Kubectl("shop"), [Stream("a", "engine"), Stream("b", "router"), Stream("gone", "router")], ["--tail=3"])
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [
        f"{pod}: {pod[0]} {number} \N{REPLACEMENT CHARACTER}[31mred"
        for pod in ("a/engine", "b/router")
        for number in range(3)
    ]
    with pytest.raises(SystemExit):
        read(Kubectl("shop"), [Stream("gone", "router")], [])


def test_the_reference_page_has_every_command() -> None:
    page = cli_page()
    for name in COMMANDS:
        assert f"\n## {name}\n" in page
    assert "`-A`, `--all-namespaces`" in page
    assert "not one.hidden" not in page


@pytest.mark.parametrize(
    ("terminal", "env", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    env: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    show.line("broken", fg="red")
    assert ("\x1b[31m" in capsys.readouterr().out) is coloured


def test_a_pipe_has_no_colours() -> None:
    """Through a pipe nothing is coloured, whatever the terminal can do."""
    done = subprocess.run(
        [sys.executable, "-m", "modeltiers.cli.main", "docs", "Unschedulable"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"\x1b" not in done.stdout
