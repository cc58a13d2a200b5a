"""DistillJobs on the real API server and Job controller; the test plays the kubelet that ends a stage's pod."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from modeltiers.domain.distill.stages import Stage
from tests.cluster.kit import LARGE, Tiers, until
from tests.cluster.kit import SPEC as SPEC_OF_TIER

NOWHERE = {"example.com/nowhere": "yes"}  # no node has it, so that no kubelet interferes
ARCHITECTURE = {
    "name": "LlamaForCausalLM",
    "hiddenSize": 64,
    "layers": 2,
    "attentionHeads": 2,
    "kvHeads": 2,
    "headDim": 32,
    "vocabSize": 512,
    "intermediateSize": 128,
    "maxPosition": 512,
}
SPEC: dict[str, Any] = {
    "workload": {"verifiers": [{"name": "right", "type": "Numeric"}]},
    "teacher": {"tierRef": {"name": "large"}},
    "student": {"base": {"source": "pvc://models/base", "architecture": ARCHITECTURE}},
    "data": {
        "sources": [{"name": "rows", "configMap": {"name": "rows", "key": "rows.jsonl"}}],
        "split": {"evaluation": 100},
    },
    "evaluation": {"tierRef": {"name": "small"}},
    "scheduling": {"nodeSelector": NOWHERE},
    "store": {"claimName": "artifacts"},
}
GATE = {"decision": "Pass", "items": 100, "needed": 90, "differencePermille": 5, "lowerPermille": -12}


@dataclass(frozen=True)
class Distill:
    """One DistillJob, and the words to lead it through its stages."""

    tiers: Tiers
    name: str = "arithmetic"

    def apply(self, **spec: Any) -> None:
        """Apply it with some fields changed."""
        metadata = {"name": self.name, "namespace": self.tiers.namespace}
        body = {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "DistillJob", "metadata": metadata}
        self.kubectl("apply", "-f", "-", input=json.dumps({**body, "spec": {**SPEC, **spec}}))

    def kubectl(self, *args: str, **more: Any) -> str:
        """Run kubectl in the namespace as the administrator."""
        return self.tiers.cluster.kubectl("-n", self.tiers.namespace, *args, **more).stdout

    def get(self, kind: str, name: str) -> Any:
        """Read an object; nothing if it is not there."""
        return self.tiers.get(kind, name) or {}

    @property
    def status(self) -> dict[str, Any]:
        """Its status as it is now."""
        return dict(self.get("dj", self.name).get("status") or {})

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        for one in self.status.get("conditions", ()):
            if one["type"] == kind:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    def until(self, kind: str, status: str, reason: str, timeout: float = 20) -> str:
        """Wait for a condition, and return its message."""
        until(
            lambda: self.condition(kind)[:2] == (status, reason),
            lambda: f"{kind}={status} {reason}: {json.dumps(self.status, indent=1)}",
            timeout,
        )
        return self.condition(kind)[2]

    def jobs(self) -> list[dict[str, Any]]:
        """Its Jobs."""
        return self.tiers.listed("jobs", f"modeltiers.dev/distilljob={self.name}")

    def job(self, stage: Stage) -> dict[str, Any]:
        """The Job of a stage that is not at its end, as soon as it is there with a pod."""
        found: dict[str, Any] = until(lambda: self._open(stage), lambda: f"a Job of {stage}: {self.status}", 40)
        for pod in self.pods(found):
            scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            self._play(pod, {"phase": "Running", "conditions": [scheduled]})
        return found

    def plan(self) -> Any:
        """What its stages are told."""
        return json.loads(self.get("cm", f"{self.name}-plan")["data"]["plan.json"])

    def _play(self, pod: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch)

    def _open(self, stage: Stage) -> dict[str, Any] | None:
        for one in self.jobs():
            over = {item["type"] for item in one.get("status", {}).get("conditions", ()) if item["status"] == "True"}
            mine = one["metadata"]["labels"]["modeltiers.dev/stage"] == stage
            if mine and not over & {"Complete", "Failed"} and self.pods(one):
                return one
        return None

    def pods(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pods of a Job that have not ended."""
        found = self.tiers.listed("pods", f"batch.kubernetes.io/job-name={job['metadata']['name']}")
        return [pod for pod in found if pod["status"]["phase"] not in ("Succeeded", "Failed")]

    def end(self, stage: Stage, report: Mapping[str, Any] | str, code: int = 0) -> dict[str, Any]:
        """Have the stage's pod end as a kubelet would tell it; returns its Job."""
        job = self.job(stage)
        pod = self.pods(job)[0]
        text = report if isinstance(report, str) else json.dumps(report)
        ended = {"exitCode": code, "reason": "Completed" if not code else "Error", "message": text}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # whichever pod of a stage ended last has the last word
        ended |= {"startedAt": now, "finishedAt": now}
        container = {"name": "stage", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        statuses = [{**container, "state": {"terminated": ended}}]
        self._play(pod, {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses})
        return job

    def complete(self, stage: Stage, *, reused: bool = False, **more: Any) -> dict[str, Any]:
        """Have a stage come to its end well."""
        digest = self.job(stage)["metadata"]["annotations"]["modeltiers.dev/digest"]
        report = {"outcome": "Complete", "stage": stage.value, "digest": digest, "output": digest[::-1]}
        report |= {"reused": reused, "summary": f"{stage.value} went well", "facts": {}, "spend": {}}
        return self.end(stage, {**report, **more})

    def complete_until(self, last: Stage, **more: Any) -> None:
        """Have all stages before this one come to their ends well."""
        for stage in Stage:
            if stage is last:
                return
            if stage not in (Stage.EVALUATE_INCUMBENT, Stage.JUDGE, Stage.CALIBRATE):
                self.complete(stage, **more, **({"facts": GATE} if stage is Stage.GATE else {}))


@pytest.fixture
def distill(tiers: Tiers) -> Distill:
    """A DistillJob to be, with all that it names."""
    return prepared(tiers)


def prepared(tiers: Tiers) -> Distill:
    """A DistillJob to be, with a teacher that serves and a tier whose engine tests."""
    tiers.apply("large", {**LARGE, "access": {"mode": "Open"}})
    tiers.apply("small")
    tiers.ready("large")
    tiers.ready("small")
    for claim in ("artifacts", "models"):
        size = {"requests": {"storage": "1Gi"}}
        volume = f"{tiers.namespace}-{claim}"
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        spec = {**common, "resources": size, "volumeName": volume}
        place = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nowhere"}}
        bound = {"claimRef": {"namespace": tiers.namespace, "name": claim}}
        found = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}}
        tiers.cluster.kubectl("apply", "-f", "-", input=json.dumps({**found, "spec": {**common, **place, **bound}}))
        tiers.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": spec})
    return Distill(tiers)


def test_a_job_goes_from_stage_to_stage_and_is_packaged(distill: Distill) -> None:
    distill.apply()
    distill.complete(Stage.SNAPSHOT)
    distill.complete(Stage.SPLIT)
    spend = {"promptTokens": 1200, "answerTokens": 345, "costMicros": 1234, "currency": "USD", "inDoubt": 1}
    distill.complete(Stage.GENERATE, spend=spend)
    until(lambda: distill.status.get("spent") == "1,545 tokens, 0.0012 USD", lambda: str(distill.status))
    for stage in (Stage.FILTER, Stage.DECONTAMINATE, Stage.TRAIN, Stage.EVALUATE_TEACHER, Stage.EVALUATE_BASE):
        distill.complete(stage)
    distill.complete(Stage.EVALUATE_STUDENT)
    distill.complete(Stage.GATE, facts=GATE)
    distill.complete(Stage.PACKAGE, facts={"digest": "ab" * 16})
    assert distill.until("Complete", "True", "Packaged") == "Package went well"
    status = distill.status
    assert status["gate"] == GATE
    assert (status["stage"], status["decision"], status["spend"]) == ("Packaged", "Pass", spend)
    assert status["artifact"]["digest"] == "ab" * 16
    place = f"pvc://artifacts/stages/Package/{status['stages'][-1]['digest']}"
    assert (status["artifact"]["source"], status["artifact"]["report"]) == (f"{place}/model", f"{place}/report.html")
    assert [one["state"] for one in status["stages"]] == ["Complete"] * 11
    assert distill.condition("Ready")[0] == "True"
    columns = distill.kubectl("get", "dj", "arithmetic").split()
    assert columns[:5] == ["NAME", "STAGE", "PROGRESS", "DECISION", "SPEND"]
    assert {"Packaged", "Pass"} <= set(columns)


@pytest.mark.parametrize(("decision", "reason"), [("Fail", "Rejected"), ("Inconclusive", "Inconclusive")])
def test_a_gate_that_is_not_passed_is_the_end(distill: Distill, decision: str, reason: str) -> None:
    distill.apply()
    distill.complete_until(Stage.GATE)
    distill.complete(Stage.GATE, facts={**GATE, "decision": decision}, summary="the base is as good")
    assert distill.until("Complete", "True", reason) == "the base is as good"
    assert distill.condition("Stalled")[0] == "False"
    assert not [one for one in distill.jobs() if one["metadata"]["labels"]["modeltiers.dev/stage"] == "Package"]


def test_a_used_up_budget_ends_the_job_until_it_is_raised(distill: Distill) -> None:
    distill.apply(budget={"teacherTokens": 100})
    distill.complete_until(Stage.GENERATE)
    said = {"outcome": "BudgetExhausted", "message": "100 of 100 tokens are used", "spend": {"promptTokens": 100}}
    first = distill.end(Stage.GENERATE, said, code=79)
    assert "100 of 100" in distill.until("Complete", "True", "BudgetExhausted")
    distill.apply(budget={"teacherTokens": 1000})
    second = distill.job(Stage.GENERATE)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert second["metadata"]["name"] == first["metadata"]["name"]
    assert distill.until("Complete", "False", "InProgress")


def test_data_at_fault_stalls_the_job_until_a_retry_is_asked_for(distill: Distill) -> None:
    distill.apply()
    distill.complete_until(Stage.DECONTAMINATE)
    said = {"outcome": "Contaminated", "message": "3 rows overlap", "field": "spec.decontamination"}
    first = distill.end(Stage.DECONTAMINATE, said, code=78)
    message = distill.until("Stalled", "True", "Contaminated")
    assert message == "spec.decontamination: 3 rows overlap"
    assert distill.condition("Ready")[0] == "False"
    distill.kubectl("annotate", "dj", "arithmetic", "modeltiers.dev/retry=once")
    assert distill.job(Stage.DECONTAMINATE)["metadata"]["uid"] != first["metadata"]["uid"]
    distill.until("Stalled", "False", "NotStalled")


def test_a_stage_that_was_interrupted_is_tried_again_by_its_job(distill: Distill) -> None:
    distill.apply()
    first = distill.end(Stage.SNAPSHOT, {"outcome": "Interrupted", "code": 75, "message": "m"}, code=75)
    until(lambda: distill.get("job", first["metadata"]["name"])["status"].get("failed") == 1, "the failure counted")
    distill.complete(Stage.SNAPSHOT)
    distill.job(Stage.SPLIT)
    entry = next(one for one in distill.status["stages"] if one["name"] == "Snapshot")
    assert (entry["state"], entry["attempts"]) == ("Complete", 2)


def test_a_stage_that_left_no_word_is_told_and_not_run_again_at_once(distill: Distill) -> None:
    distill.apply()
    job = distill.end(Stage.SNAPSHOT, "killed before it could say a word")
    said = distill.until("Reconciling", "True", "ReportMissing")
    assert job["metadata"]["name"] in said
    assert [one["metadata"]["uid"] for one in distill.jobs()] == [job["metadata"]["uid"]]


def test_a_lost_status_is_found_again_by_the_stages(distill: Distill) -> None:
    """The operator knows nothing any more, and asks every stage again; each finds its own manifest."""
    distill.apply()
    distill.complete_until(Stage.TRAIN)
    before = distill.job(Stage.TRAIN)
    distill.apply(suspend=True)
    until(lambda: not distill._open(Stage.TRAIN), "no Job")
    distill.kubectl("delete", "jobs", "--all", "--wait=true")
    distill.until("Reconciling", "True", "Suspended")
    body = distill.get("dj", "arithmetic")
    del body["status"]
    path = f"/apis/modeltiers.dev/v1alpha1/namespaces/{distill.tiers.namespace}/distilljobs/arithmetic/status"
    distill.kubectl("replace", "--raw", path, "-f", "-", input=json.dumps({**body, "status": {}}))
    until(lambda: distill.status.get("progress") == "0/11 stages", lambda: str(distill.status))
    distill.apply()
    distill.complete_until(Stage.TRAIN, reused=True)
    again = distill.job(Stage.TRAIN)
    assert again["metadata"]["name"] == before["metadata"]["name"]
    assert [one["reused"] for one in distill.status["stages"] if one["state"] == "Complete"] == [True] * 5


def test_two_jobs_that_are_the_same_do_each_stage_once(distill: Distill) -> None:
    """In one store they have one folder for it: the second waits, and finds the outcome there."""
    distill.apply()
    distill.job(Stage.SNAPSHOT)
    twin = Distill(distill.tiers, "twin")
    twin.apply()
    assert "DistillJob arithmetic does it" in twin.until("Reconciling", "True", "StageElsewhere")
    assert twin.jobs() == []
    distill.complete(Stage.SNAPSHOT)
    distill.job(Stage.SPLIT)
    twin.complete(Stage.SNAPSHOT, reused=True)
    twin.until("Reconciling", "True", "StageElsewhere", 30)
    distill.kubectl("delete", "dj", "arithmetic")
    assert twin.job(Stage.SPLIT)["metadata"]["ownerReferences"][0]["name"] == "twin"


def test_suspend_ends_what_runs_and_starts_nothing(distill: Distill) -> None:
    distill.apply()
    distill.job(Stage.SNAPSHOT)
    distill.apply(suspend=True)
    until(lambda: not distill.jobs(), "no Job")
    assert "spec.suspend" in distill.until("Reconciling", "True", "Suspended")
    distill.apply()
    distill.job(Stage.SNAPSHOT)


def test_a_job_of_somebody_else_that_has_a_stages_name_is_left_alone(distill: Distill) -> None:
    distill.apply()
    name = distill.job(Stage.SNAPSHOT)["metadata"]["name"]
    distill.kubectl("delete", "dj", distill.name)
    until(lambda: not distill.get("job", name), "the Job gone with its owner", 60)
    container = {"name": "theirs", "image": "example.com/theirs:1"}
    spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    distill.tiers.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
    distill.apply()
    assert name in distill.until("Stalled", "True", "NotWritten", 40)
    assert distill.get("job", name)["spec"]["template"]["spec"]["containers"][0]["name"] == "theirs"


def test_a_queued_job_waits_for_its_queue(distill: Distill) -> None:
    distill.apply(scheduling={"nodeSelector": NOWHERE, "queueName": "team"})
    job = until(distill.jobs, "the Job")[0]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["name"] in distill.until("Reconciling", "True", "StageQueued")
    patch = json.dumps({"spec": {"suspend": False}})
    distill.kubectl("patch", "job", job["metadata"]["name"], "--type=merge", "-p", patch)  # as Kueue does
    distill.complete(Stage.SNAPSHOT)


def test_a_teacher_that_answers_policies_only_is_said(distill: Distill) -> None:
    distill.tiers.apply("large", LARGE)
    distill.apply()
    distill.complete_until(Stage.GENERATE)
    assert "spec.access.mode" in distill.until("Stalled", "True", "TierNotAdmitting")
    distill.tiers.apply("large", {**LARGE, "access": {"mode": "Open"}})
    distill.job(Stage.GENERATE)


def test_a_judge_is_asked_by_its_stages_alone_and_paid_apart(distill: Distill) -> None:
    """It must be there before anything is spent, and serve and admit when it is asked; its key is where it is asked."""
    judge = {"tierRef": {"name": "wise"}, "keyRef": {"name": "wise-key", "key": "key"}, "rubric": "Be right."}
    distill.apply(judge={**judge, "minScorePermille": 700})
    distill.complete_until(Stage.GENERATE)
    message = distill.until("Stalled", "True", "TierNotFound")
    assert "there is no ModelTier wise (spec.judge.tierRef): create it" in message
    distill.tiers.apply("wise", LARGE)
    spend = {"promptTokens": 10, "answerTokens": 5, "inDoubt": 0}
    distill.complete(Stage.GENERATE, spend=spend)
    assert "name a key in spec.judge.keyRef" in distill.until("Stalled", "True", "TierNotAdmitting")
    distill.tiers.apply("wise", {**LARGE, "access": {"mode": "Open"}})
    volumes = distill.job(Stage.FILTER)["spec"]["template"]["spec"]["volumes"]
    assert [one["secret"]["secretName"] for one in volumes if "secret" in one] == ["wise-key"]
    plan = distill.plan()
    assert plan["judge"]["keyFile"] == "/etc/modeltiers/judge/key"
    assert plan["judge"]["baseUrl"].startswith("http://wise.")
    assert "keyFile" not in plan["teacher"]
    own = {"promptTokens": 100, "answerTokens": 20, "costMicros": 7, "currency": "USD", "inDoubt": 1}
    distill.complete(Stage.FILTER, spend={**spend, "judge": own})
    until(lambda: distill.status.get("spent") == "135 tokens, 0.0000 USD", lambda: str(distill.status))
    assert distill.status["spend"] == {**spend, "judge": own}
    distill.complete(Stage.DECONTAMINATE)
    distill.complete(Stage.TRAIN)
    for stage in (Stage.EVALUATE_TEACHER, Stage.EVALUATE_BASE, Stage.EVALUATE_STUDENT):
        assert "wise-key" not in json.dumps(distill.complete(stage))
    assert "wise-key" in json.dumps(distill.complete(Stage.JUDGE))
    distill.complete(Stage.GATE, facts=GATE)
    distill.complete(Stage.PACKAGE, facts={"digest": "ab" * 16})
    assert distill.until("Complete", "True", "Packaged")


def test_a_spec_without_a_tier_for_the_test_is_refused(distill: Distill) -> None:
    with pytest.raises(Exception, match=r"promotion\.tierRef"):
        distill.apply(evaluation=None)


def test_pods_are_restricted_and_hold_no_token(distill: Distill) -> None:
    """Also with an engine beside the stage."""
    name = distill.tiers.namespace
    distill.kubectl("label", "ns", name, "pod-security.kubernetes.io/enforce=restricted")
    distill.apply()
    distill.complete_until(Stage.TRAIN)
    distill.job(Stage.TRAIN)
    base = "/models/base/base"
    assert distill.plan()["models"] == {"base": base, "teacher": LARGE["model"]["source"]}, "for its tokenizer"
    for stage in (Stage.TRAIN, Stage.EVALUATE_TEACHER, Stage.EVALUATE_BASE):
        distill.complete(stage)
    pod = distill.pods(distill.job(Stage.EVALUATE_STUDENT))[0]["spec"]
    assert pod["automountServiceAccountToken"] is False
    engine = pod["initContainers"][0]
    assert engine["restartPolicy"] == "Always"
    assert "--host=127.0.0.1" in engine["args"]
    assert engine["args"][0].startswith("/model/stages/Train/")
    assert distill.plan()["engine"]["root"] == engine["args"][0]
    assert {one["name"] for one in pod["containers"]} == {"stage"}


# --- promotion --------------------------------------------------------------------------------------------------------

CANARY = {"stepsPermille": [100, 500], "holdSeconds": 10}


def promoted(distill: Distill, **promotion: Any) -> dict[str, Any]:
    """A job whose student is packaged, for the tier that follows it; returns the artifact."""
    base = {"maxModelLen": 256, "source": f"distill://{distill.name}"}
    distill.apply(evaluation=None, promotion={"tierRef": {"name": "small"}, "canary": CANARY, **promotion})
    distill.tiers.apply("small", {**SPEC_OF_TIER, "model": base})
    distill.tiers.ready("small")
    distill.complete_until(Stage.PACKAGE)
    distill.complete(Stage.PACKAGE, facts={"digest": "ab" * 16})
    found: dict[str, Any] = until(lambda: distill.status.get("artifact"), "the artifact")
    return found


def weights(distill: Distill, workload: str = "small") -> str:
    """The model path that a revision of the tier serves."""
    found = distill.get("deployment", workload)
    return str(found["spec"]["template"]["spec"]["containers"][0]["args"][0]) if found else ""


def test_a_student_goes_through_its_canary_and_is_live(distill: Distill) -> None:
    artifact = promoted(distill)
    assert weights(distill) == "/model/base"
    path = "/model/" + artifact["source"].removeprefix("pvc://artifacts/")
    until(lambda: weights(distill, "small-r2") == path, lambda: str(distill.status), 40)
    seen = until(lambda: distill.status["promotion"].get("since"), lambda: str(distill.status), 40)
    assert seen
    assert weights(distill) == "/model/base"  # the incumbent stays until the student is live
    assert distill.status["progress"] in ("100 ‰ of conversations", "500 ‰ of conversations")
    distill.until("Complete", "True", "Promoted", 60)
    assert weights(distill) == path
    until(lambda: not distill.get("deployment", "small-r2"), "no second revision")
    assert distill.tiers.ready("small")["model"] == artifact["source"]


def test_a_person_approves_and_takes_it_back(distill: Distill) -> None:
    artifact = promoted(distill, approval="Manual")
    message = distill.until("AwaitingApproval", "True", "ApprovalWanted")
    assert artifact["digest"] in message
    assert weights(distill) == "/model/base"
    distill.kubectl("annotate", "dj", distill.name, f"modeltiers.dev/approve={artifact['digest']}")
    until(lambda: distill.get("deployment", "small-r2"), "the student's pods", 30)
    distill.kubectl("annotate", "dj", distill.name, f"modeltiers.dev/rollback={artifact['digest']}")
    assert "rollback" in distill.until("Complete", "True", "RolledBack")
    until(lambda: not distill.get("deployment", "small-r2"), "no second revision")
    assert weights(distill) == "/model/base"


def test_a_canary_that_a_quota_leaves_no_room_is_said_and_goes_on(distill: Distill) -> None:
    artifact = promoted(distill, approval="Manual")
    distill.until("AwaitingApproval", "True", "ApprovalWanted")
    hard = {"hard": {"requests.nvidia.com/gpu": "0"}}  # what runs stays
    distill.tiers.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": hard})
    distill.kubectl("annotate", "dj", distill.name, f"modeltiers.dev/approve={artifact['digest']}")
    said = distill.until("Stalled", "True", "CanaryDoesNotFit", 40)
    assert "exceeded quota: none" in said
    assert "promotion.strategy to Replace" in said
    assert weights(distill) == "/model/base"
    distill.kubectl("delete", "resourcequota", "none")
    distill.until("Complete", "True", "Promoted", 120)


def test_a_tier_that_serves_something_else_is_said(distill: Distill) -> None:
    distill.apply(promotion={"tierRef": {"name": "small"}, "canary": CANARY}, evaluation=None)
    distill.complete_until(Stage.PACKAGE)
    distill.complete(Stage.PACKAGE, facts={"digest": "ab" * 16})
    assert "distill://arithmetic" in distill.until("Stalled", "True", "TierNotFollowing")


def test_a_tier_that_follows_nobody_says_so(tiers: Tiers) -> None:
    tiers.apply("small", {**SPEC_OF_TIER, "model": {"source": "distill://nobody"}})
    assert "DistillJob nobody" in tiers.reasoned("small", "Reconciling", "True", "DistillJobNotFound")
    assert "DistillJob nobody" in tiers.stalled("small", "DistillJobNotFound")


# --- before anything is spent -----------------------------------------------------------------------------------------

FRONTIER = {
    "external": {
        "baseUrl": "https://localhost:1/v1",
        "model": "m",
        "price": {"inputPerMillionMicros": 2_000_000, "outputPerMillionMicros": 8_000_000},
    }
}


def test_a_claim_that_is_missing_is_said_and_made(distill: Distill) -> None:
    distill.apply(store={"claimName": "elsewhere"})
    assert "no PersistentVolumeClaim elsewhere" in distill.until("Stalled", "True", "VolumeClaimNotFound")
    assert not distill.jobs()
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    named = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "elsewhere"}, "spec": claim}
    distill.tiers.create(named)
    distill.kubectl("annotate", "dj", distill.name, "example.com/look=again")
    distill.until("Stalled", "False", "NotStalled")
    until(distill.jobs, "the first stage's Job")


def test_a_claim_of_one_node_takes_no_canary(distill: Distill) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    named = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "alone"}, "spec": claim}
    distill.tiers.create(named)
    distill.apply(store={"claimName": "alone"}, promotion={"tierRef": {"name": "small"}})
    assert "ReadWriteMany" in distill.until("Stalled", "True", "VolumeClaimNotShared")
    distill.apply(store={"claimName": "alone"}, promotion={"tierRef": {"name": "small"}, "strategy": "Replace"})
    until(distill.jobs, "the first stage's Job")


def test_no_student_goes_live_in_an_external_tier(distill: Distill) -> None:
    distill.tiers.apply("frontier", FRONTIER)
    distill.apply(promotion={"tierRef": {"name": "frontier"}})
    assert "spec.promotion.tierRef" in distill.until("Stalled", "True", "TierIsExternal")
    assert not distill.jobs()
    distill.apply()
    until(distill.jobs, "the first stage's Job")


def test_training_waits_for_a_payback_that_is_soon_enough(distill: Distill) -> None:
    price = {"inputPerMillionMicros": 2_000_000, "outputPerMillionMicros": 8_000_000}
    teacher = {"endpoint": {"baseUrl": "https://localhost:1/v1", "model": "m", "price": price}}
    traffic = {"requestsPerDay": 100_000, "promptTokens": 500, "answerTokens": 100}
    distill.tiers.apply("small", {**SPEC_OF_TIER, "price": {"gpuHourMicros": 2_000_000}})
    distill.tiers.ready("small")

    def apply(days: int) -> None:
        asked = {**teacher, "termsAcknowledged": True}
        budget = {"traffic": traffic, "maxPaybackDays": days}
        distill.apply(teacher=asked, budget=budget, promotion={"tierRef": {"name": "small"}}, evaluation=None)

    apply(2)
    distill.complete_until(Stage.GENERATE)
    distill.complete(Stage.GENERATE, spend={"promptTokens": 1, "costMicros": 300_000_000, "currency": "USD"})
    for stage in (Stage.FILTER, Stage.DECONTAMINATE):
        distill.complete(stage)
    message = distill.until("Stalled", "True", "PaybackTooLong")
    assert "3 days = 300.00 USD paid" in message
    assert not [one for one in distill.jobs() if one["metadata"]["labels"]["modeltiers.dev/stage"] == "Train"]
    assert distill.status["payback"]["days"] == 3
    apply(3)
    distill.job(Stage.TRAIN)
    distill.until("Stalled", "False", "NotStalled")
    assert distill.status["payback"]["how"].startswith("3 days = ")


def test_a_stage_whose_pods_are_refused_says_why_and_takes_another_size(distill: Distill) -> None:
    most = {"type": "Container", "max": {"memory": "96Mi"}}
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "few"}, "spec": {"limits": [most]}}
    distill.tiers.create(limits)
    distill.apply()
    said = distill.until("Stalled", "True", "LimitRangeViolated")
    assert "Snapshot: pods of Job" in said
    assert "maximum memory usage per Container is 96Mi" in said
    assert "spec.scheduling.work" in said
    distill.apply(scheduling={"nodeSelector": NOWHERE, "work": {"memory": "64Mi"}})
    job = distill.job(Stage.SNAPSHOT)  # another, with a pod
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == "64Mi"
    distill.until("Reconciling", "True", "StageRunning")
    assert distill.condition("Stalled")[0] == "False"


def test_a_quota_is_said_and_waited_for(distill: Distill) -> None:
    hard = {"hard": {"count/pods": "0"}}
    distill.tiers.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": hard})
    distill.apply()
    assert "a ResourceQuota of the namespace does not allow it" in distill.until("Stalled", "True", "QuotaExceeded")
    distill.kubectl("delete", "resourcequota", "none")
    distill.job(Stage.SNAPSHOT)
    distill.until("Reconciling", "True", "StageRunning")


def test_what_has_begun_is_not_made_anew(distill: Distill) -> None:
    distill.apply()
    before = distill.job(Stage.SNAPSHOT)  # its pod runs, as its kubelet would say
    pod = distill.pods(before)[0]
    running = {"name": "stage", "image": "i", "imageID": "", "ready": True, "restartCount": 0}
    running["state"] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    distill._play(pod, {"containerStatuses": [running]})
    distill.apply(scheduling={"nodeSelector": NOWHERE, "work": {"memory": "64Mi"}})
    distill.until("Reconciling", "True", "StageRunning")
    until(lambda: distill.status.get("observedGeneration") == 2, "the new spec to be looked at")
    assert distill.job(Stage.SNAPSHOT)["metadata"]["uid"] == before["metadata"]["uid"]
