"""The panels about the operator, asked of a real Prometheus that scrapes a real operator with one of everything."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.prometheus import Prometheus, Target
from modeltiers import names
from modeltiers.distill.serve import serve
from modeltiers.distill.stage import Progress
from modeltiers.domain.distill.stages import Stage
from tests.cluster import policies
from tests.cluster.kit import Tiers, until
from tests.cluster.test_distilljob import Distill, prepared, promoted
from tests.cluster.test_traffic import UNSURE, Ladder, answers, routed
from tests.monitoring.kit import empty, panels

__all__ = ["routed"]  # a fixture

SPEND = {"promptTokens": 1200, "answerTokens": 345, "costMicros": 1234, "currency": "USD", "inDoubt": 0}


@pytest.fixture
def elsewhere(installed: Cluster) -> Iterator[Tiers]:
    """A second namespace."""
    name = installed.create_namespace(f"test-{secrets.token_hex(4)}")
    yield Tiers(installed, name)
    installed.delete_namespace(name)


def at_work(distill: Distill) -> None:
    """Have the first stage run, and say how far it is as the real program does."""
    job = distill.job(Stage.SNAPSHOT)
    pod = distill.pods(job)[0]
    host = f"127.103.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    progress = Progress()
    progress.at(25, 100, "rows", spend=SPEND)
    serve(names.ADMIN_PORT, Stage.SNAPSHOT, progress, host)
    patch = {"status": {"podIP": host, "podIPs": [{"ip": host}]}}
    distill.kubectl(
        "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", json.dumps(patch)
    )
    until(lambda: distill.status.get("running"), lambda: json.dumps(distill.status), 40)


def test_each_panel_about_the_operator_has_a_series(
    routed: Ladder, operator: OperatorProcess, elsewhere: Tiers, tmp_path: Path
) -> None:
    with Prometheus(
        tmp_path / "prometheus", [Target(f"127.0.0.1:{operator.port}", labels={"pod": "operator-0"})]
    ) as seen:
        seen.scraped(1)
        routed.ask(90)
        routed.engines["small"].script = answers("the small one is not sure", UNSURE)
        routed.ask(30)
        status = routed.comes(120)
        assert "savedPermille" in status["cost"], json.dumps(status["cost"], indent=1)
        routed.tiers.apply("own", autoscaling={"min": 1, "max": 2, "targetInFlight": 4}, access={"mode": "Open"})
        routed.tiers.apply("never", accelerators=[{"name": "none", "product": "NVIDIA-None", "memory": "80Gi"}])
        policies.apply(routed.tiers, "lost", model="lost", tiers=[{"name": "nobody"}, {"name": "large"}])
        student = prepared(elsewhere)
        promoted(student, approval="Manual")
        student.until("AwaitingApproval", "True", "ApprovalWanted")
        running = Distill(elsewhere, "running")
        running.apply()
        at_work(running)
        until(lambda: operator.metric("modeltiers_tier_autoscaler_wanted", tier="own"), "the autoscaler's wish", 60)
        seen.scraped(2)
        assert len(list(panels("operator"))) > 40
        assert empty(seen, "operator") == []
        # A second scrape of a standby would tell the same of each object, so the panels count objects, not series.
        (ready,) = seen.query('count(max by (namespace, name) (modeltiers_condition{kind="RoutingPolicy"}))')
        assert float(ready["value"][1]) >= 2
