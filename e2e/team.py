"""A team's namespace on the real node: two tiers whose engines are real vLLM on the CPU, and a policy over them.

What is a stand-in is here and nowhere else: the models are tiny and say what a script has them say, the GPUs are
claimed, and vLLM is mounted from this machine. Everything else is as in any cluster.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster, HarnessError, volumes
from e2e.cluster.gate import Gate
from e2e.cluster.recipes import ENGINE_HOME
from e2e.engine import environment, ladder, tiny

PROFILE = "cpu"
POLICY, MODEL = "support", "support"
TIERS = ("small", "large")
READY_SECONDS = 240
"""An engine takes about 30 s on two free cores."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def settings(engine_image: str, router_image: str) -> dict[str, Any]:
    """The administrator's settings: a router before every engine, and a profile whose engine finds vLLM in a volume."""
    profile = {
        "image": engine_image,
        "runAsUser": 10001,
        "cpu": "300m",
        "memory": "3Gi",
        "args": ["--enforce-eager", "--dtype=float32", "--kv-cache-memory-bytes=64M"],
        # The image has no compiler, with which torch on the CPU would compile what counts logprobs.
        "env": [{"name": "TORCHDYNAMO_DISABLE", "value": "1"}],
        "mounts": [{"name": "venv", "path": ENGINE_HOME, "claimName": "engine"}],
    }
    return {
        "engineProfiles": {PROFILE: profile},
        # Half a minute and a minute otherwise, which is long to wait for in a demo.
        "router": {"image": router_image, "entryReturnSeconds": 5, "gatewayCpu": "100m"},
        "facts": {"readSeconds": 5, "writeSeconds": 10},
        "externalHosts": [{"host": "*.svc", "private": True}],
    }


def write_models(home: Path) -> Path:
    """Write what the tiers say: the small one is sometimes unsure, the large one never."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # the engine is nobody that this machine knows
    tiny.write_scripted(home / "small", ladder.SMALL)
    tiny.write_scripted(home / "large", ladder.LARGE)
    return home


@dataclass(frozen=True)
class Team:
    """A namespace, and the models that its tiers serve."""

    cluster: Cluster
    namespace: str
    models: Path

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002  as in subprocess.run
        """Run kubectl in the namespace and return what it says."""
        done = self.cluster.kubectl("-n", self.namespace, *args, input=input, check=check)
        return done.stdout + ("" if check else done.stderr)

    def apply(self, *items: Mapping[str, Any]) -> str:
        """Apply objects as a user does."""
        body = items[0] if len(items) == 1 else {"apiVersion": "v1", "kind": "List", "items": items}
        return self.kubectl("apply", "-f", "-", input=json.dumps(body))

    def get(self, *what: str) -> Any:
        """Read an object or a list; nothing if it is not there."""
        said = self.kubectl("get", *what, "-o", "json", "--ignore-not-found")
        return json.loads(said) if said.strip() else {}

    def tier(self, name: str, **spec: Any) -> dict[str, Any]:
        """A ModelTier whose model lies on a volume, for the GPU that the node claims; `spec` is laid over its own."""
        shape = json.loads((self.models / name / "config.json").read_text())
        architecture = {
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
        own = {
            "rank": 10 * (1 + TIERS.index(name)),
            "replicas": 1,
            "model": {"source": f"pvc://models/{name}", "maxModelLen": 1024, "architecture": architecture},
            "accelerators": [{"name": "l40s", "product": "NVIDIA-L40S"}],
            "serving": {"profile": PROFILE, "shutdownSeconds": 30},
        }
        return _object("ModelTier", name, own | spec)

    def policy(self, **spec: Any) -> dict[str, Any]:
        """The policy over both tiers: small first, and what it is not sure of goes to large."""
        own = {
            "model": MODEL,
            "tiers": [{"name": name} for name in TIERS],
            "mode": "Cascade",
            "accept": {"thresholdPermille": 600, "confidence": {}},
        }
        return _object("RoutingPolicy", POLICY, own | spec)

    def create(self) -> None:
        """Make the namespace with the volumes of vLLM and of the models. Installs vLLM first where it is not there."""
        assert self.cluster.node, "engines take a real node"
        self.cluster.create_namespace(self.namespace, RESTRICTED)
        items = volumes.local(self.cluster.node, self.namespace, "engine", environment.install())
        items += volumes.local(self.cluster.node, self.namespace, "models", self.models)
        self.apply(*items)

    def wait_ready(self, *what: str, timeout: int = READY_SECONDS) -> None:
        """Wait until these objects are Ready; tells what there is when they do not become so."""
        waited = self.kubectl("wait", "--for=condition=Ready", *what, f"--timeout={timeout}s", check=False)
        if waited.count("condition met") != len(what):
            raise HarnessError(f"{' and '.join(what)} did not become Ready: {waited}\n{self.describe()}")

    def describe(self) -> str:
        """What there is, for a person who looks for a fault."""
        asked = (["get", "pods,mt,rp", "-o", "wide"], ["describe", "pods"], ["get", "mt,rp", "-o", "yaml"])
        logs = [["logs", f"deploy/{name}", "--all-containers", "--tail=40"] for name in TIERS]
        return "\n".join(self.kubectl(*one, check=False) for one in (*asked, *logs))

    def pods(self, tier: str = "") -> list[dict[str, Any]]:
        """The pods of a tier or of all, those that are ending included."""
        selector = f"modeltiers.dev/tier={tier}" if tier else "modeltiers.dev/tier"
        found: list[dict[str, Any]] = self.get("pods", "-l", selector).get("items", [])
        return found

    def conditions(self, what: str) -> dict[str, dict[str, Any]]:
        """The conditions of an object by type."""
        return {one["type"]: one for one in self.get(what).get("status", {}).get("conditions", ())}

    def entry(self) -> str:
        """The tier that the policy's Service leads to."""
        found: str = self.get("service", f"{POLICY}-policy")["spec"]["selector"].get("modeltiers.dev/tier", "")
        return found

    def gate(self) -> Gate:
        """Open a port of this machine that leads to the policy's Service."""
        return self.cluster.gate_to(self.namespace, f"{POLICY}-policy", 80)

    def delete(self) -> None:
        """Ask for the end of everything, and wait for nothing."""
        self.cluster.delete_namespace(self.namespace)
        held = [f"{self.namespace}-{name}" for name in ("engine", "models")]
        self.cluster.kubectl("delete", "pv", *held, "--wait=false", "--ignore-not-found")


@contextmanager
def team(cluster: Cluster, models: Path, prefix: str = "team") -> Iterator[Team]:
    """A fresh namespace that goes at the end."""
    made = Team(cluster, f"{prefix}-{secrets.token_hex(4)}", models)
    made.create()
    try:
        yield made
    finally:
        made.delete()


def restarts(pods: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """Name to uid and restarts of all containers: unchanged as long as nothing was restarted or replaced."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(
                one["restartCount"]
                for kind in ("initContainerStatuses", "containerStatuses")
                for one in pod["status"].get(kind, ())
            ),
        )
        for pod in pods
    }


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "modeltiers.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}
