"""DistillJob against the real API server, beyond what holds for every resource: what cannot be changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.admission import ApiServer, Body, collection
from tests.cluster.kinds import JOB, JOBS

CHANGES = {
    "workload": {"description": "another"},
    "teacher": {"keyRef": {"name": "another", "key": "key"}},
    "student": {"base": {"maxModelLen": 1024}},
    "data": {"split": {"seed": 5}},
    "generation": {"samples": 3},
    "filters": {"leastRows": 501},
    "decontamination": {"words": 11},
    "training": {"epochs": 4},
    "evaluation": {"samples": 5},
    "judge": {"rubric": "another"},
    "gate": {"looks": 4},
    "store": {"claimName": "another"},
}
FREE = (
    {"suspend": False},
    {"budget": {"teacherTokens": 60_000_000}},
    {"budget": None},
    {"promotion": {"approval": "None", "canary": {"holdSeconds": 60}}},
    {"promotion": {"strategy": "Replace", "canary": None}},
    {"scheduling": {"retries": 9, "image": None, "queueName": "other"}},
    {"scheduling": None},
)


class TestChanges:
    """What decides the result stays; the rest may change."""

    @pytest.fixture
    def stored(self, server: ApiServer, shared: str) -> Iterator[Body]:
        """A job that is there."""
        made = server.create(JOBS["whole"], shared, dry=False)
        assert made.accepted, made.message
        yield made.body
        server.ask("DELETE", f"{collection(made.body, shared)}/whole")

    def patch(self, server: ApiServer, shared: str, spec: Any) -> tuple[int, list[str]]:
        """What the API server says to a change."""
        path = f"{collection(JOBS['whole'], shared)}/whole?dryRun=All"
        answer = server.ask("PATCH", path, {"spec": spec}, "application/merge-patch+json")
        return answer.code, answer.causes

    @pytest.mark.usefixtures("stored")
    def test_what_cannot_be_changed(self, server: ApiServer, shared: str) -> None:
        """Neither changed nor, where that is possible, taken away; said with the way out."""
        assert CHANGES.keys() == set(JOB.immutable)
        required = JOB.nodes["spec"]["required"]
        for name, change in CHANGES.items():
            for value in [change] if name in required else [change, None]:
                code, causes = self.patch(server, shared, {name: value})
                assert code == 422, (name, value)
                assert any(f"{name} cannot be changed" in cause for cause in causes), causes
                assert any("Create another DistillJob" in cause for cause in causes), causes

    @pytest.mark.usefixtures("stored")
    @pytest.mark.parametrize("change", FREE, ids=str)
    def test_what_can(self, server: ApiServer, shared: str, change: Any) -> None:
        """Budget, suspend, promotion and scheduling."""
        assert self.patch(server, shared, change) == (200, [])

    def test_what_was_left_out_cannot_be_added(self, server: ApiServer, shared: str) -> None:
        """Its default was used."""
        made = server.create(JOBS["smallest"], shared, dry=False)
        assert made.accepted, made.message
        path = f"{collection(made.body, shared)}/smallest"
        for name in ("generation", "filters", "decontamination", "training", "gate"):
            answer = server.ask("PATCH", f"{path}?dryRun=All", {"spec": {name: {}}}, "application/merge-patch+json")
            assert [f"{name} cannot be changed" in cause for cause in answer.causes] == [True], answer.causes
        judge = {"judge": {"tierRef": {"name": "wise"}, "rubric": "r"}}
        answer = server.ask("PATCH", f"{path}?dryRun=All", {"spec": judge}, "application/merge-patch+json")
        assert ["judge cannot be changed" in cause for cause in answer.causes] == [True], answer.causes
        server.ask("DELETE", path)
