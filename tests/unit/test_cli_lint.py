"""`modeltiers lint`: what it finds in valid tables, how it exits, and that a good table has nothing doubtful."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from modeltiers.cli.main import main

TIERS: list[dict[str, Any]] = [
    {"name": "small", "address": "127.0.0.1:1", "model": "s"},
    {"name": "large", "address": "127.0.0.1:2", "model": "l"},
]


def table(*rules: dict[str, Any], tiers: list[dict[str, Any]] | None = None, **policy: Any) -> dict[str, Any]:
    """A table with one policy of these rules."""
    made = {"name": "support", "model": "support", "tiers": ["small", "large"], "rules": list(rules), **policy}
    return {"formatVersion": 1, "tiers": tiers or TIERS, "policies": [made]}


def lint(*args: str, stdin: str | None = None) -> Result:
    """One call; an exception is a failure of the test."""
    return CliRunner().invoke(main, ["lint", *args], input=stdin, catch_exceptions=False)


def findings(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Path and problem of each finding in a table."""
    result = lint("-", "-o", "json", stdin=yaml.safe_dump(content))
    found = [
        (one["path"].removeprefix("$.policies[0]."), one["problem"]) for one in json.loads(result.stdout)["findings"]
    ]
    assert result.exit_code == (1 if found else 0), result.output
    return found


def rule(name: str, when: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rule that sends to the large tier unless it says otherwise."""
    return {"name": name, "when": when, **(more or {"tier": "large"})}


WORDS = {"keywords": ["court"]}
TEAM = {"headers": [{"name": "x-team", "values": ["a", "b"]}]}
FOUND: dict[str, tuple[dict[str, Any], str, str]] = {
    "contradicting tiers": (
        table(rule("a", WORDS), rule("b", WORDS, tier="small")),
        "rules[1]",
        "tier large against tier small",
    ),
    "contradicting a refusal": (
        table(rule("a", WORDS, action="Refuse"), rule("b", WORDS)),
        "rules[1]",
        "Refuse against tier large",
    ),
    "a tier below an earlier floor": (
        table(rule("a", WORDS, floor="large"), rule("b", WORDS, tier="small")),
        "rules[1]",
        "below the floor large that rule a sets",
    ),
    "shadowed by the same": (table(rule("a", WORDS), rule("b", WORDS, floor="large")), "rules[1]", "never reached"),
    "shadowed by fewer words": (
        table(rule("a", {"keywords": ["court", "law"]}), rule("b", {"keywords": ["high court"]})),
        "rules[1]",
        "never reached",
    ),
    "shadowed by fewer conditions": (
        table(rule("a", TEAM), rule("b", {**TEAM, "tools": True}, action="Refuse")),
        "rules[1]",
        "never reached",
    ),
    "shadowed by more values": (
        table(rule("a", TEAM), rule("b", {"headers": [{"name": "x-team", "values": ["a"]}]})),
        "rules[1]",
        "never reached",
    ),
    "shadowed by wider numbers": (
        table(rule("a", {"promptCharsAtLeast": 10}), rule("b", {"promptCharsAtLeast": 20})),
        "rules[1]",
        "never reached",
    ),
    "two values at once": (
        table(rule("a", {"headers": [{"name": "x", "values": ["a"]}, {"name": "x", "values": ["b"]}]})),
        "rules[0].when.headers",
        "never matches",
    ),
    "a keyword in capitals": (table(rule("a", {"keywords": ["Court"]})), "rules[0].when.keywords[0]", "'court'"),
    "a keyword again": (table(rule("a", {"keywords": ["a", "a"]})), "rules[0].when.keywords[1]", "again"),
    "a keyword in another": (table(rule("a", {"keywords": ["a", "a b"]})), "rules[0].when.keywords[1]", "wherever"),
    "a pattern for all": (table(rule("a", {"patterns": ["x*"]})), "rules[0].when.patterns[0]", "empty text"),
    "a pattern with ends": (table(rule("a", {"patterns": [".*x"]})), "rules[0].when.patterns[0]", "leave out .*"),
    "a slow pattern": (table(rule("a", {"patterns": ["(a?){300}b"]})), "rules[0].when.patterns[0]", "slow"),
    "text for all": (table(rule("a", {"modalities": ["Text"]})), "rules[0].when.modalities", "asks for nothing"),
    "a score for all": (table(rule("a", {"scoreAtLeastPermille": 0})), "rules[0].when.scoreAtLeastPermille", "leave"),
    "a score for none": (table(rule("a", {"scoreAtMostPermille": 0})), "rules[0].when.scoreAtMostPermille", "no score"),
    "a risk for nothing": (table(rule("a", WORDS, risk="Low")), "rules[0].risk", "nothing follows"),
    "a tier below its own floor": (
        table(rule("a", WORDS, tier="small", floor="large")),
        "rules[0].tier",
        "own floor",
    ),
    "images that nobody reads": (table(rule("a", {"modalities": ["Image"]})), "rules[0]", "no tier of the ladder"),
    "a tier of no ladder": (
        table(rule("a", WORDS), tiers=[*TIERS, {"name": "odd", "address": "x:1"}]),
        "$.tiers[2]",
        "no policy's ladder",
    ),
    "a ladder that shrinks": (
        table(rule("a", WORDS), tiers=[TIERS[0], {**TIERS[1], "contextTokens": 10}]),
        "tiers[1]",
        "cannot escalate",
    ),
    "a cascade of one": (
        table(rule("a", WORDS, action="Refuse"), tiers=TIERS, mode="Cascade")
        | {"policies": [{"name": "p", "model": "m", "tiers": ["large"], "mode": "Cascade"}]},
        "mode",
        "to escalate to",
    ),
    "accept in Upfront": (table(accept={"confidence": {}}), "accept", "no answer is judged"),
    "all accepted": (table(mode="Cascade"), "accept", "all are accepted"),
    "none accepted": (
        table(mode="Cascade", accept={"thresholdPermille": 900}),
        "accept.thresholdPermille",
        "escalates",
    ),
    "a threshold at the end": (table(score={"thresholdPermille": 0}), "score.thresholdPermille", "above the entry"),
    "nothing unclear": (
        table(mode="Hybrid", score={"unclearPermille": 0}, accept={"confidence": {}}),
        "score.unclearPermille",
        "no score is unclear",
    ),
    "a canary of nothing": (
        table(canary={"tier": "large", "sharePermille": 0}),
        "canary.sharePermille",
        "nothing goes",
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_is_doubtful_is_named_with_its_path(case: str) -> None:
    content, path, problem = FOUND[case]
    found = findings(content)
    assert any(where == path and problem in said for where, said in found), found


GOOD: dict[str, dict[str, Any]] = {
    "plain": table(),
    "rules apart": table(rule("a", WORDS), rule("b", {"keywords": ["law"]}), rule("c", TEAM, floor="large")),
    "the narrow one first": table(
        rule("a", {"keywords": ["court"], "tools": True}, tier="small"), rule("b", WORDS), rule("c", TEAM)
    ),
    "floors add up": table(rule("a", WORDS, floor="small"), rule("b", {**WORDS, "tools": True}, floor="large")),
    "patterns": table(rule("a", {"patterns": [r"\bX\d{4}\b"]}), rule("b", {"patterns": [r"Y+"]})),
    "a cascade": table(mode="Cascade", accept={"confidence": {}}),
    "a hybrid": table(mode="Hybrid", score={}, accept={"confidence": {}}),
    "a share": table(score={"strongSharePermille": 200}),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_table_that_means_what_it_says_has_nothing_doubtful(case: str) -> None:
    assert findings(GOOD[case]) == []


def test_a_risk_class_with_a_floor_makes_its_rule_useful() -> None:
    good = table(rule("a", WORDS, risk="High"), risks=[{"risk": "High", "floor": "large"}])
    assert findings(good) == []
    unused = table(rule("a", WORDS), risks=[{"risk": "High", "floor": "large"}])
    assert findings(unused)


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_each_output_says_the_same(tmp_path: Path, output: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(FOUND["shadowed by the same"][0]))
    result = lint("-t", str(path), "-o", output)
    assert result.exit_code == 1
    for part in (str(path), "$.policies[0].rules[1]", "never reached"):
        assert part in result.output


def test_a_folder_is_linted_file_by_file_and_bad_ones_exit_with_2(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(GOOD["plain"]))
    (tmp_path / ".hidden").write_text("not: a table")
    assert lint("-t", str(tmp_path)).exit_code == 0
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(FOUND["all accepted"][0]))
    assert lint(str(tmp_path)).exit_code == 1
    (tmp_path / "c.yaml").write_text("formatVersion: 2")
    result = lint("-t", str(tmp_path))
    assert result.exit_code == 2
    assert "all are accepted" in result.stdout
    assert "c.yaml: $.formatVersion" in result.stderr


@pytest.mark.parametrize("content", ["", "x", "[]", "a: [", "{}", "- 1\n- 2", "&a [*a]", "formatVersion: 1"])
def test_a_bad_table_exits_with_2_and_no_traceback(content: str) -> None:
    result = lint("-", stdin=content)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_no_file_is_a_mistake() -> None:
    assert lint().exit_code == 2
    assert "cannot be read" in lint("no such file").stderr


# --- DistillJobs ------------------------------------------------------------------------------------------------------

JOBS = Path(__file__).parents[1] / "cluster/fixtures/distilljob/accepted"


def distill(judge: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
    """A job with a judge."""
    body: dict[str, Any] = yaml.safe_load((JOBS / "smallest.yaml").read_text())
    body["spec"] |= {"judge": {"rubric": "r", **judge}, "teacher": teacher}
    return body


def test_a_judge_of_the_teachers_family_is_doubtful() -> None:
    tier = {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "ModelTier",
        "metadata": {"name": "wise"},
        "spec": {"rank": 1, "external": {"baseUrl": "https://x.example/v1", "model": "gpt-4o"}},
    }
    endpoint = {"endpoint": {"baseUrl": "https://x.example/v1", "model": "gpt-5"}, "termsAcknowledged": True}
    given = yaml.safe_dump_all([distill({"tierRef": {"name": "wise"}}, endpoint), tier])
    result = lint("-f", "-", stdin=given)
    assert result.exit_code == 1
    assert "standard input, document 1: spec.judge: teacher and judge are of one family (gpt)" in result.stdout
    alone = yaml.safe_dump(distill({"tierRef": {"name": "wise"}}, endpoint))
    assert lint("-f", "-", stdin=alone).exit_code == 0  # which model the tier serves is not known


def test_a_judge_that_is_the_teacher_is_doubtful() -> None:
    same = {"tierRef": {"name": "large"}}
    result = lint("-f", "-", "-o", "json", stdin=yaml.safe_dump(distill(same, same)))
    (found,) = json.loads(result.stdout)["findings"]
    assert (result.exit_code, found["path"]) == (1, "spec.judge")
    assert "the same model" in found["problem"]


def test_a_job_that_cannot_be_read_is_a_fault() -> None:
    result = lint("-f", "-", stdin=yaml.safe_dump(distill({}, {"tierRef": {"name": 5}})))
    assert result.exit_code == 2
    assert "spec.teacher.tierRef.name" in result.stderr


def test_the_fixtures_have_nothing_doubtful() -> None:
    paths = [part for path in sorted(JOBS.glob("*.yaml")) for part in ("-f", str(path))]
    assert lint(*paths).exit_code == 0


# --- RoutingPolicies --------------------------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "examples"
LADDER = [str(EXAMPLES / f"ladder/{name}.yaml") for name in ("small", "large")]


def policy(**changes: Any) -> str:
    """The example of a cascade, changed."""
    body: dict[str, Any] = yaml.safe_load((EXAMPLES / "routing/cascade.yaml").read_text())
    body["spec"] |= changes
    return yaml.safe_dump(body)


def test_what_is_doubtful_in_a_policy_has_the_path_of_its_spec() -> None:
    result = lint("-", *LADDER, stdin=policy(accept={"thresholdPermille": 900}))
    assert result.exit_code == 1, result.output
    assert "standard input, document 1: spec.accept.thresholdPermille: " in result.stdout


def test_a_policy_without_its_tiers_files_asks_for_them() -> None:
    result = lint("-", stdin=policy())
    assert result.exit_code == 2
    assert "spec.tiers: name the file of ModelTier small, large too" in result.stderr


def test_a_policy_or_a_tier_that_cannot_be_read_is_a_fault() -> None:
    result = lint("-", *LADDER, stdin=policy(mode="Sideways"))
    assert result.exit_code == 2
    assert "spec.mode" in result.stderr
    tier = yaml.safe_load(Path(LADDER[0]).read_text())
    result = lint("-", stdin=yaml.safe_dump({**tier, "spec": {**tier["spec"], "rank": "high"}}))
    assert result.exit_code == 2
    assert "spec.rank" in result.stderr


def test_a_tier_that_is_nothing_is_a_fault_and_no_traceback() -> None:
    tier = yaml.safe_load(Path(LADDER[0]).read_text())
    nothing = yaml.safe_dump({**tier, "spec": {"rank": 1}})
    result = lint("-", LADDER[1], stdin=f"{policy()}---\n{nothing}")
    assert result.exit_code == 2
    assert "give exactly one of model and external" in result.stderr


def test_tiers_of_another_namespace_are_not_the_policys() -> None:
    tiers = [yaml.safe_load(Path(path).read_text()) for path in LADDER]
    away = [{**one, "metadata": {**one["metadata"], "namespace": "away"}} for one in tiers]
    result = lint("-", stdin=f"{policy()}---\n{yaml.safe_dump_all(away)}")
    assert result.exit_code == 2
    assert "name the file of ModelTier small, large too" in result.stderr


def test_other_resources_are_passed_over() -> None:
    assert lint("-", stdin="apiVersion: v1\nkind: Service\nmetadata: {name: x}\n").exit_code == 0


def test_every_example_has_nothing_doubtful() -> None:
    """As a user's CI would: all files of examples at once."""
    about_delivery = ("argocd", "flux")
    paths = [path for path in sorted(EXAMPLES.glob("*/*.yaml")) if path.parts[-2] not in about_delivery]
    result = lint(*map(str, paths))
    assert result.exit_code == 0, result.output
