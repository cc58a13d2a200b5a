"""Each alert fires when it should and not else, by promtool; each has its section in the runbooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.prometheus import promtool
from modeltiers.cli.main import COMMANDS
from modeltiers.render.alerts import ALERTS, RUNBOOKS, Alert
from tests.monitoring.alerts import CASES, Series

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts/modeltiers/files/rules"
EVERY = {alert.name: alert for group in ALERTS.values() for alert in group}
PAGE = (ROOT / "docs/runbooks.md").read_text(encoding="utf-8")
PARTS = ("Meaning", "Impact", "First command", "Fix")


def test_the_rules_are_valid_and_each_alert_has_its_cases(tmp_path: Path) -> None:
    files = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    assert {Path(path).stem for path in files} == set(ALERTS)
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *files, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert CASES.keys() == EVERY.keys()
    assert all(case.quiet for case in CASES.values())


@pytest.mark.parametrize("group", ALERTS)
def test_alerts_fire_when_they_should_and_not_else(group: str, tmp_path: Path) -> None:
    tests = [test for alert in ALERTS[group] for test in _tests(alert)]
    files = [str(RULES / f"{group}.yaml")]
    written = {"rule_files": files, "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(written))
    done = promtool("test", "rules", "test.yaml", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def _tests(alert: Alert) -> Iterator[dict[str, Any]]:
    case = CASES[alert.name]
    annotations = {"summary": case.summary, "runbook_url": f"{RUNBOOKS}#{alert.name.lower()}"}
    fired = {"exp_labels": {"severity": alert.severity, **case.labels}, "exp_annotations": annotations}
    yield _test(alert, case.fires, case.at, [fired])
    for series in case.quiet:
        yield _test(alert, series, case.at, [])


def _test(alert: Alert, series: Series, at: int, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{at}m", "alertname": alert.name, "exp_alerts": expected}],
    }


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(EVERY)
    for name, text in sections.items():
        found = re.findall(r"^\*\*([\w ]+)\.\*\* \S", text, re.MULTILINE)
        assert tuple(found) == PARTS, name
        assert "```" in text, f"{name} has no command"
        for command in re.findall(r"kubectl modeltiers (\w+)", text):
            assert command in COMMANDS, f"{name} names a command that is none: {command}"
