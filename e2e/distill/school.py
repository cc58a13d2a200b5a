"""A team's namespace where a student is taught: teacher and tier served by real vLLM on the CPU, rows on a volume.

What is a stand-in: the models are tiny and their task is small, the GPUs are claimed, and vLLM and the trainer's
packages are mounted from this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from e2e import team
from e2e.cluster import Cluster, HarnessError, volumes
from e2e.cluster.process import wait_until
from e2e.cluster.recipes import ENGINE_HOME
from e2e.distill.traffic import Traffic
from e2e.engine import environment as engine_environment
from e2e.train import environment as train_environment
from e2e.train import models, task

PROFILE = team.PROFILE
TEACHER, TIER, JOB = "teacher", "small", "reader"
POLICY = "reading"
SIGNING_KEY = {"name": "package-signing", "key": "private.pem"}
EVALUATION, CALIBRATION, RED_TEAM = 500, 200, 260


def settings(
    engine_image: str, router_image: str, distill_image: str, train_image: str, *, public_key: str
) -> dict[str, Any]:
    """The administrator's settings: those of a team, the images of the stages, and whose packages may be served."""
    distill = {
        "image": distill_image,
        "trainImage": train_image,
        "signingKey": SIGNING_KEY,
        "publicKeys": [public_key],
        "trainMounts": [{"name": "venv", "path": ENGINE_HOME, "claimName": "trainer"}],
        "cpu": "100m",
        "memory": "1Gi",
        "trainCpu": "300m",
        "trainMemory": "3Gi",
        "progressSeconds": 2,
    }
    return {**team.settings(engine_image, router_image), "distill": distill}


def write_key(home: Path) -> str:
    """Write `private.pem` for packages to be signed with; returns its public key."""
    home.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = home / "private.pem"
    path.touch(0o600)
    path.write_bytes(secret)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def write_files(home: Path, rows: int) -> Path:
    """Write the models and the rows: `models/teacher`, `models/base`, `data/rows.jsonl`, `data/red-team.jsonl`."""
    models.make_teacher(home / "models" / "teacher")
    models.make_base(home / "models" / "base")
    data, store = home / "data", home / "artifacts"
    for folder in (data, store):
        folder.mkdir(parents=True, exist_ok=True)
    store.chmod(0o777)  # the stages run as nobody that this machine knows
    _write_rows(data / "rows.jsonl", task.make_rows(rows + EVALUATION + CALIBRATION, 11))
    _write_rows(data / "red-team.jsonl", task.make_rows(RED_TEAM, 12, red_team=True))
    for path in (home, *(home / "models").rglob("*"), *data.rglob("*"), home / "models", data):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return home


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@dataclass(frozen=True)
class School:
    """A namespace, and the files that its volumes hold."""

    cluster: Cluster
    namespace: str
    home: Path

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002  as in subprocess.run
        """Run kubectl in the namespace and return what it says."""
        done = self.cluster.kubectl("-n", self.namespace, *args, input=input, check=check)
        return done.stdout + ("" if check else done.stderr)

    def apply(self, *items: Mapping[str, Any]) -> str:
        """Apply objects as a user does."""
        body = {"apiVersion": "v1", "kind": "List", "items": items}
        return self.kubectl("apply", "-f", "-", input=json.dumps(body))

    def get(self, *what: str) -> Any:
        """Read an object or a list; nothing if it is not there."""
        said = self.kubectl("get", *what, "-o", "json", "--ignore-not-found")
        return json.loads(said) if said.strip() else {}

    def create(self) -> None:
        """Make the namespace with its volumes."""
        node = self.cluster.node
        if node is None:
            raise HarnessError("a distillation runs Jobs, and simulated nodes run none: it takes a real node")
        self.cluster.create_namespace(self.namespace, team.RESTRICTED)
        items = volumes.local(node, self.namespace, "engine", engine_environment.install())
        items += volumes.local(node, self.namespace, "trainer", train_environment.pinned().install())
        items += volumes.local(node, self.namespace, "models", self.home / "models")
        items += volumes.local(node, self.namespace, "data", self.home / "data")
        items += volumes.local(node, self.namespace, "artifacts", self.home / "artifacts", shared=True)
        key = (self.home / "private.pem").read_text()
        secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {SIGNING_KEY["key"]: key}}
        self.apply(*items, {**secret, "metadata": {"name": SIGNING_KEY["name"], "namespace": self.namespace}})

    def architecture(self, name: str) -> dict[str, Any]:
        """The numbers of a model's config.json, as a spec has them."""
        shape = json.loads((self.home / "models" / name / "config.json").read_text())
        return {
            "name": shape["architectures"][0],
            "hiddenSize": shape["hidden_size"],
            "layers": shape["num_hidden_layers"],
            "attentionHeads": shape["num_attention_heads"],
            "kvHeads": shape["num_key_value_heads"],
            "headDim": shape["head_dim"],
            "vocabSize": shape["vocab_size"],
            "intermediateSize": shape["intermediate_size"],
            "maxPosition": shape["max_position_embeddings"],
        }

    def tier(self, name: str, model: Mapping[str, Any], rank: int) -> dict[str, Any]:
        """A ModelTier that answers its direct callers."""
        spec = {
            "rank": rank,
            "replicas": 1,
            "model": {"maxModelLen": 512, **model},
            "accelerators": [{"name": "l40s", "product": "NVIDIA-L40S"}],
            "serving": {"profile": PROFILE, "shutdownSeconds": 30},
            "access": {"mode": "Open"},
        }
        return self.object("ModelTier", name, spec)

    def teacher(self) -> dict[str, Any]:
        """The tier that is learnt from."""
        model = {"source": "pvc://models/teacher", "architecture": self.architecture("teacher")}
        return self.tier(TEACHER, model, 20)

    def student(self, job: str = JOB) -> dict[str, Any]:
        """The tier that serves what the job says."""
        return self.tier(TIER, {"source": f"distill://{job}"}, 10)

    def policy(self, job: str = JOB) -> dict[str, Any]:
        """Small first; the threshold below which answers go up comes and goes with the job's student."""
        accept = {"thresholdPermille": 900, "confidence": {"thresholdFrom": {"distillJob": job}}}
        tiers = [{"name": TIER}, {"name": TEACHER}]
        return self.object(
            "RoutingPolicy", POLICY, {"model": POLICY, "tiers": tiers, "mode": "Cascade", "accept": accept}
        )

    @contextmanager
    def asked(self) -> Iterator[Traffic]:
        """A client that asks the policy."""
        wait_until(lambda: self.get("service", f"{POLICY}-policy"), "the policy's Service", 60)
        with self.cluster.gate_to(self.namespace, f"{POLICY}-policy", 80) as gate:
            with Traffic(f"http://{gate.address}", POLICY) as traffic:
                yield traffic

    def promotion(self) -> dict[str, Any]:
        """How the student goes live."""
        return dict((self.get("dj", JOB).get("status") or {}).get("promotion") or {})

    def job(self, name: str = JOB, **spec: Any) -> dict[str, Any]:
        """A DistillJob; `spec` is laid over its own."""
        own: dict[str, Any] = {
            "workload": {"description": "Finds in a short text what is asked for.", "verifiers": list(task.VERIFIERS)},
            "teacher": {"tierRef": {"name": TEACHER}},
            "student": {"base": {"source": "pvc://models/base", "architecture": self.architecture("base")}},
            "data": {
                "sources": [
                    {"name": "rows", "volume": {"claimName": "data", "path": "rows.jsonl"}},
                    {"name": "attacks", "volume": {"claimName": "data", "path": "red-team.jsonl"}, "part": "RedTeam"},
                ],
                "split": {"evaluation": EVALUATION, "calibration": CALIBRATION},
            },
            "generation": {"maxTokens": 16, "concurrency": 16, "topLogprobs": 5},
            "training": dict(models.STUDENT),
            "evaluation": {"tierRef": {"name": TIER}, "maxTokens": 16, "concurrency": 16},
            "gate": {"slices": [{"name": one, "marginPermille": 100} for one in task.SLICES]},
            "promotion": {
                "tierRef": {"name": TIER},
                "canary": {"stepsPermille": [500], "holdSeconds": 10},
                "calibration": {"maxWrongPermille": 100},
            },
            "store": {"claimName": "artifacts"},
        }
        whole = {field: value for field, value in (own | spec).items() if value is not None}
        return self.object("DistillJob", name, whole)

    def object(self, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """An object of ours."""
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": "modeltiers.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}

    def wait_ready(self, *what: str, timeout: int = team.READY_SECONDS) -> None:
        """Wait until these objects are Ready; tells what there is when they do not become so."""
        waited = self.kubectl("wait", "--for=condition=Ready", *what, f"--timeout={timeout}s", check=False)
        if waited.count("condition met") != len(what):
            raise HarnessError(f"{' and '.join(what)} did not become Ready: {waited}\n{self.describe()}")

    def describe(self) -> str:
        """What there is, for a person who looks for a fault."""
        asked = (["get", "pods,jobs,mt,dj", "-o", "wide"], ["get", "dj", "-o", "yaml"], ["get", "events"])
        logs = [["logs", f"job/{one}", "--all-containers", "--tail=30"] for one in self._jobs()]
        return "\n".join(self.kubectl(*one, check=False) for one in (*asked, *logs))

    def _jobs(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.get("jobs").get("items", [])]


@contextmanager
def school(cluster: Cluster, home: Path, namespace: str) -> Iterator[School]:
    """A namespace to teach in; it is gone at the end."""
    made = School(cluster, namespace, home)
    made.create()
    try:
        yield made
    finally:
        cluster.delete_namespace(namespace)
        for claim in ("engine", "trainer", "models", "data", "artifacts"):
            cluster.kubectl("delete", "pv", f"{namespace}-{claim}", "--ignore-not-found", "--wait=false")
