"""docs/router.md and docs/streams.md: each list that has a counterpart in the code is what the code says."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest

from modeltiers.domain.routing import accept, ask, budget, choose, clamp, record
from modeltiers.domain.routing.table import Timeouts
from modeltiers.router import __main__ as program
from modeltiers.router import admin, keys, replies, spool, tables
from modeltiers.router.exchange import Decision, Outcome
from modeltiers.router.logs import Line
from modeltiers.router.metrics import PREFIX, Metrics
from modeltiers.router.outgoing import PATHS

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "operator" / "modeltiers"
ROUTER: Final = (ROOT / "docs" / "router.md").read_text(encoding="utf-8")
STREAMS: Final = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
Row = tuple[str, ...]


def section(page: str, title: str) -> str:
    """Return what stands below a heading, up to the next one."""
    _, found, text = page.partition(f"# {title}\n")
    assert found, title
    return re.split(r"^#{2,3} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str, *head: str) -> list[Row]:
    """Return the rows of the first table whose first columns have these names."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in block.splitlines()]
        if cells[0][: len(head)] == head:
            return cells[2:]
    raise AssertionError(f"there is no table with the columns {head}")


def names(*cells: str) -> list[str]:
    """Return what stands in backticks."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def block(page: str, kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def fields(*types: Any) -> list[str]:
    return [field.encode_name for one in types for field in msgspec.structs.fields(one)]


def tree(path: str) -> ast.Module:
    return ast.parse((SOURCES / path).read_text(encoding="utf-8"))


# --- docs/router.md --------------------------------------------------------------------------------------------------


def test_the_quick_start_is_a_table_of_ten_lines_that_the_router_takes(tmp_path: Path) -> None:
    text = block(ROUTER, "yaml table.yaml")
    assert len(text.splitlines()) == 10
    (tmp_path / "table.yaml").write_text(text)
    read = tables.Tables(tmp_path / "table.yaml")
    assert read.reload() == [("table.yaml", "Loaded")]
    assert read.loaded["table.yaml"].policies.keys() == {"support"}


def test_the_quick_start_in_python_can_be_read() -> None:
    assert len(ast.parse(block(ROUTER, "python")).body) == 6


def test_the_keys_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(block(ROUTER, "json"))
    ring = keys.KeyRing(tmp_path / "keys.json")
    assert ring.error is None
    assert ring.check(b"Bearer example") == "team-a"


def test_every_flag_stands_there_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[argparse.ArgumentParser] = []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, _: made.append(self))
    program.arguments([])
    wanted = {}
    for action in made[0]._actions:
        if action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        default = "{}:{}".format(*action.default) if isinstance(action.default, tuple) else f"{action.default}"
        wanted[action.option_strings[0]] = "required" if action.required else default.replace("None", "none")
        assert not action.choices or {*action.choices} <= {*names(*flag(action.option_strings[0]))}
    assert {names(name)[0]: default.strip("`") for name, default, _ in rows(ROUTER, "flag")} == wanted


def flag(name: str) -> Row:
    return next(row for row in rows(ROUTER, "flag") if row[0] == f"`{name}`")


def test_every_endpoint_stands_there() -> None:
    listed = {*names(*re.findall(r"^\| `/.*?\|", section(ROUTER, "Endpoints"), re.MULTILINE))}
    said = [node.value for node in ast.walk(tree("router/admin.py")) if isinstance(node, ast.Constant)]
    here = {one.decode() for one in said if isinstance(one, bytes) and one.startswith(b"/")}
    assert here >= set(re.findall(r"/[a-z/]+", admin.NOTHING))
    assert listed == here | {path.decode() for path in PATHS.values()} | {"/v1/models"}


def test_every_field_of_the_status_stands_there() -> None:
    parts = [one for one in ast.walk(tree("router/admin.py")) if isinstance(one, ast.FunctionDef)]
    parts = [one for one in parts if one.name in ("status", "_engine_status", "_route_status", "_pool_status")]
    assert len(parts) == 4
    keys_ = [key for part in parts for one in ast.walk(part) if isinstance(one, ast.Dict) for key in one.keys]
    wanted = {key.value for key in keys_ if isinstance(key, ast.Constant)} - {"addresses"}
    found = names(*(cell for row in rows(section(ROUTER, "Status"), "field") for cell in row))
    assert wanted <= {*found}
    assert {*found} <= wanted | {"/readyz"}


def test_every_metric_stands_there_with_its_type_and_labels() -> None:
    wanted = {}
    for family in Metrics().collect():
        name = family.name.removeprefix(PREFIX) + ("_total" if family.type == "counter" else "")
        wanted[name] = family.type, tuple(getattr(family, "_labelnames", ()))
    listed = [row for row in rows(ROUTER, "metric") if row[3]]
    found = {names(name)[0]: (kind, tuple(filter(None, labels.split(", ")))) for name, kind, labels, _ in listed}
    assert found == wanted
    assert len(rows(ROUTER, "metric")) == len(wanted)


def test_every_metric_of_several_processes_stands_there() -> None:
    said = (SOURCES / "router" / "processes.py").read_text(encoding="utf-8")
    wanted = {(name, kind) for name, kind in re.findall(rf"# TYPE {PREFIX}(\w+) (\w+)\\n", said)}
    listed = rows(section(ROUTER, "Metrics").partition("`--processes` above 1")[2], "metric")
    assert {(names(name)[0].removesuffix("_total"), kind) for name, kind, *_ in listed} == wanted


def test_every_outcome_of_a_request_stands_there() -> None:
    assert names(*(row[0] for row in rows(section(ROUTER, "Metrics"), "outcome"))) == [*get_args(Outcome)]


def test_every_cause_of_a_limit_stands_there() -> None:
    row = next(row for row in rows(ROUTER, "metric") if row[0] == "`limited_total`")
    assert names(row[3]) == [*get_args(budget.Cause)]


def test_every_cause_of_a_refused_client_stands_there() -> None:
    said = (SOURCES / "router" / "server.py").read_text(encoding="utf-8")
    wanted = {*re.findall(r'refused\["(\w+)"\]|self\._refuse\(.*, "(\w+)"\)', said)}
    row = next(row for row in rows(ROUTER, "metric") if row[0] == "`clients_refused_total`")
    assert {*names(row[3])} == {one or other for one, other in wanted}


def test_every_reply_header_stands_there() -> None:
    found = {*re.findall(r"(x-[a-z-]+): \{", (SOURCES / "router" / "exchange.py").read_text(encoding="utf-8"))}
    assert sorted(names(*(row[0] for row in rows(section(ROUTER, "Reply headers"), "header")))) == sorted(found)


def test_every_decision_and_reason_stands_there() -> None:
    text = section(ROUTER, "Reply headers")
    assert names(*(row[0] for row in rows(text, "decision"))) == [*get_args(Decision)]
    before, after = rows(text, "reason")
    assert names(before[0]) == [*choose.REASONS]
    assert names(after[0]) == [*accept.REASONS]


def test_every_field_of_a_decision_record_stands_there() -> None:
    text = section(ROUTER, "Decision records")
    listed = rows(text, "field")
    assert names(*(row[0] for row in listed)) == fields(record.DecisionRecord)
    said = {names(row[0])[0]: row[1] for row in listed}
    assert names(said["ask"]) == fields(ask.Ask)
    assert names(said["load"]) == fields(choose.Load)
    assert names(said["choice"]) == fields(choose.Choice)
    assert names(said["attempts"]) == fields(record.Attempt)
    assert names(said["cost"]) == fields(record.Cost)
    usage, evidence, verdict = rows(text.partition("Of an attempt:")[2], "field")
    assert names(usage[1]) == fields(record.Usage)
    assert names(evidence[1]) == fields(accept.Evidence)
    assert names(verdict[1]) == fields(accept.Verdict)
    assert {*names(*(row[0] for row in rows(text, "outcome")))} == {*get_args(record.Outcome)}


def test_every_figure_of_the_spool_stands_there(tmp_path: Path) -> None:
    made = spool.Spool(tmp_path / "spool", 2**20)
    found = names(*(row[0] for row in rows(section(ROUTER, "Decision records"), "figure")))
    assert {*found} == made.figures().keys()
    made.close()


def test_every_problem_of_an_external_tier_stands_there() -> None:
    text = "".join((SOURCES / "router" / f"{one}.py").read_text() for one in ("external", "addresses", "secrets"))
    wanted = {*re.findall(r'"((?:BaseURL|APIKey|CABundle|Address)[A-Z]\w+)"', text)}
    found = names(*(row[0] for row in rows(section(ROUTER, "External tiers"), "`problem` in `/status`")))
    assert {*found} == wanted


def test_every_field_of_a_log_line_stands_there() -> None:
    found = names(*(row[0] for row in rows(section(ROUTER, "Logs"), "field")))
    assert {*found} == {"event", *fields(Line)}


def test_every_event_of_the_log_stands_there() -> None:
    said = set()
    for path in sorted((SOURCES / "router").glob("*.py")):
        said |= {*re.findall(r'[lL]og\.say\(\s*"(\w+)"', path.read_text(encoding="utf-8"))}
    said |= {"table_loaded", "table_refused", "table_gone", "log_dropped", "request"}
    assert {*names(section(ROUTER, "Logs").partition("| field")[0])} - {"--log-requests"} == said


def test_every_field_that_no_client_may_send_stands_there() -> None:
    assert {*clamp._NEVER} <= {*names(section(ROUTER, "Security notes"))}


# --- docs/streams.md -------------------------------------------------------------------------------------------------


def test_every_error_that_the_router_answers_stands_there() -> None:
    wanted = set()
    for path in sorted((SOURCES / "router").glob("*.py")):
        if path.name not in ("admin.py", "processes.py"):  # the admin port is no API
            wanted |= {*refusals(ast.parse(path.read_text(encoding="utf-8")))}
    listed = [(status, kind.strip("`"), code.strip("`")) for status, kind, code, _ in rows(STREAMS, "status")]
    assert {(status, code) for status, _, code in listed} == wanted | {*unanswerable()}
    assert len(listed) == len({*listed})
    for status, kind, code in listed:
        if status.isdigit():
            said = msgspec.json.decode(replies.error_body(int(status), "x", code=code or None))
            assert said["error"]["type"] == kind, status


def refusals(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield status and code of every Refusal that is made; what a tier said has no number."""
    for call in ast.walk(module):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        if call.func.id == "_other":
            yield "503", value(call.args[0])
        elif call.func.id == "Refusal":
            yield from coded(call)


def coded(call: ast.Call) -> Iterator[tuple[str, str]]:
    status = value(call.args[0])
    code = next((one.value for one in call.keywords if one.arg == "code"), ast.Constant(""))
    if status == "choice.status" or (isinstance(code, ast.Name) and status == "503"):
        return  # named where they come from: `unanswerable`, `_other`
    for one in (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,):
        yield {"head.status": "the tier's"}.get(status, status), value(one)


def unanswerable() -> Iterator[tuple[str, str]]:
    """Yield status and reason of every choice that refuses: the reason is the code."""
    for call in ast.walk(tree("domain/routing/choose.py")):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Choice":
            status = [one.value for one in call.keywords if one.arg == "status"]
            reason = call.args[1] if len(call.args) > 1 else None
            for one in outcomes(reason) if reason is not None and status else ():
                yield value(status[0]), value(one)


def outcomes(node: ast.expr) -> list[ast.expr]:
    """Return what an expression with conditions can come to."""
    return [*outcomes(node.body), *outcomes(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def value(node: ast.AST) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def test_the_event_that_ends_a_broken_stream_is_the_one_that_is_sent() -> None:
    shown = next(text for text in re.findall(r"^```\n(.*?)^```$", STREAMS, re.DOTALL | re.MULTILINE) if "error" in text)
    assert shown.encode() + b"\n" == replies.error_event("tier small broke off its answer; ask again")


def test_every_time_out_stands_there_with_its_default() -> None:
    listed = {names(name)[0]: int(default.replace(",", "")) for name, default, *_ in rows(STREAMS, "field")}
    assert listed == {field.encode_name: field.default for field in msgspec.structs.fields(Timeouts)}


def test_what_is_judged_ends_in_decisions_that_there_are() -> None:
    said = names(*(row[2] for row in rows(STREAMS, "the judgement")))
    assert {*said} == {*get_args(Decision)}


def test_every_link_leads_to_a_page_and_a_heading() -> None:
    for page, name in ((ROUTER, "router.md"), (STREAMS, "streams.md")):
        for file, anchor in re.findall(r"\]\(([\w./-]*)#?([\w-]*)\)", page):
            text = (ROOT / "docs" / (file or name)).read_text(encoding="utf-8")
            heads = {head.lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
            assert not anchor or anchor in heads, (file, anchor)
