"""What a person says to a DistillJob from the command line, with a person's rights, on the real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from modeltiers.domain.distill.stages import Stage
from tests.cluster.kit import until
from tests.cluster.test_distilljob import Distill, distill, promoted

__all__ = ["distill"]


@dataclass(frozen=True)
class Person:
    """Somebody who may read and change DistillJobs, and nothing else."""

    distill: Distill
    kubeconfig: Path
    scratch: Path

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run the command; returns what it says on both streams."""
        where = ["--kubeconfig", str(self.kubeconfig), "-n", self.distill.tiers.namespace]
        path = f"{self.distill.tiers.cluster.as_admin.program.parent}:{os.environ['PATH']}"
        command = [sys.executable, "-m", "modeltiers.cli.main", *args, *where]
        env = {**os.environ, "PATH": path, "HOME": str(self.scratch)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def person(distill: Distill, tmp_path: Path) -> Person:
    """A person with two rights."""
    cluster, namespace = distill.tiers.cluster, distill.tiers.namespace
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "person")
    rights = ["--verb=get", "--verb=patch", "--resource=distilljobs.modeltiers.dev"]
    cluster.kubectl("-n", namespace, "create", "role", "person", *rights)
    who = f"--serviceaccount={namespace}:person"
    cluster.kubectl("-n", namespace, "create", "rolebinding", "person", "--role=person", who)
    return Person(distill, cluster.service_account_kubeconfig(namespace, "person"), tmp_path)


def test_a_person_approves_takes_back_and_approves_again(distill: Distill, person: Person) -> None:
    digest = promoted(distill, approval="Manual")["digest"]
    distill.until("AwaitingApproval", "True", "ApprovalWanted")
    command = f"modeltiers approve dj/arithmetic -n {distill.tiers.namespace} --digest {digest}"
    assert command in person("report", "dj/arithmetic")
    assert "and not cdcd" in person("approve", "dj/arithmetic", "--digest", "cd" * 16, code=1)
    assert "serves nobody yet" in person("rollback", "dj/arithmetic", code=1)
    assert f"would write annotation modeltiers.dev/approve={digest}" in person("approve", "dj/arithmetic", "--dry-run")
    assert distill.condition("AwaitingApproval")[0] == "True"
    assert "go live in ModelTier small" in person("approve", "dj/arithmetic", "--digest", digest)
    until(lambda: distill.status["promotion"]["state"] == "Canary", lambda: str(distill.status))
    assert "at Canary" in person("approve", "dj/arithmetic", code=1)
    person("rollback", "arithmetic")
    distill.until("Complete", "True", "RolledBack")
    assert "already" in person("rollback", "dj/arithmetic", code=1)
    assert f"{digest}@2" in person("approve", "distilljob/arithmetic")
    until(lambda: distill.status["promotion"]["state"] == "Canary", lambda: str(distill.status))
    assert f"{digest}@2" in person("rollback", "dj/arithmetic")
    distill.until("Complete", "True", "RolledBack")


def test_a_person_suspends_resumes_and_tries_again(distill: Distill, person: Person) -> None:
    distill.apply()
    distill.job(Stage.SNAPSHOT)
    assert "Snapshot" in person("report", "dj/arithmetic")
    assert "no student is packaged yet" in person("approve", "dj/arithmetic", code=1)
    person("suspend", "dj/arithmetic")
    distill.until("Reconciling", "True", "Suspended")
    assert "suspended already" in person("suspend", "dj/arithmetic", code=1)
    person("resume", "dj/arithmetic")
    said = {"outcome": "BadData", "message": "line 3 is not JSON", "field": "spec.data"}
    first = distill.end(Stage.SNAPSHOT, said, code=78)
    distill.until("Stalled", "True", "BadData")
    told = person("report", "dj/arithmetic")
    assert "line 3 is not JSON" in told
    assert "modeltiers retry dj/arithmetic" in told
    assert "Snapshot runs once more" in person("retry", "dj/arithmetic")
    assert distill.job(Stage.SNAPSHOT)["metadata"]["uid"] != first["metadata"]["uid"]
    distill.until("Stalled", "False", "NotStalled")
    assert "no stage has failed" in person("retry", "dj/arithmetic", code=1)


def test_the_report_is_fetched_from_the_store(distill: Distill, person: Person, tmp_path: Path) -> None:
    distill.apply()
    page = tmp_path / "page.html"
    fetch = ("report", "dj/arithmetic", "--html", str(page), "--store", str(tmp_path / "store"))
    distill.complete(Stage.SNAPSHOT)
    assert "there is no report yet" in person(*fetch, code=1)
    for stage in (Stage.SPLIT, Stage.GENERATE, Stage.FILTER, Stage.DECONTAMINATE, Stage.TRAIN):
        distill.complete(stage)
    for stage in (Stage.EVALUATE_TEACHER, Stage.EVALUATE_BASE, Stage.EVALUATE_STUDENT):
        distill.complete(stage)
    distill.complete(Stage.GATE, facts={"decision": "Fail", "items": 100, "needed": 90})
    distill.until("Complete", "True", "Rejected")
    digest = next(one["digest"] for one in distill.status["stages"] if one["name"] == "Gate")
    assert f"pvc://artifacts/stages/Gate/{digest}/report.html" in person("report", "dj/arithmetic")
    assert "is it the store of this job" in person(*fetch, code=1)
    place = tmp_path / "store/stages/Gate" / digest
    place.mkdir(parents=True)
    (place / "report.html").write_text("<p>the report</p>")
    person(*fetch)
    assert page.read_text() == "<p>the report</p>"


def test_what_cannot_be_is_said_in_a_line(distill: Distill, person: Person) -> None:
    assert "not found" in person("report", "dj/nobody", code=1)
    assert "is not a DistillJob" in person("approve", "mt/small", code=2)
    assert "is not a name" in person("approve", "--", "-A", code=2)
    distill.apply()
    distill.kubectl("delete", "rolebinding", "person")
    until(lambda: "forbidden" in person("report", "dj/arithmetic", code=1).lower(), "the binding to be gone")
