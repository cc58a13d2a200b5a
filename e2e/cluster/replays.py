"""Turn recorded pod statuses into kwok stages, so that a controller meets real-looking failures on a real API server.

A case is a file in `replays/`: what the kubelet wrote (or documents that it writes) into a pod's status. It replaces
the start of a pod that carries the annotation `modeltiers.dev/replay: CASE`, or that runs in a pool named
`replay-CASE`. The annotation may come, change and go while the pod runs. Nothing here knows what a case means.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.report import HarnessError

DIRECTORY = Path(__file__).parent / "replays"
ANNOTATION = "modeltiers.dev/replay"
CONTAINER_ANNOTATION = "modeltiers.dev/replay-container"
CONDITION = "modeltiers.dev/Replayed"
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")

# The case a pod asks for: its annotation, else the name of the pool its node belongs to, else nothing.
CASE_OF_POD = (
    f'(.metadata.annotations // {{}})["{ANNOTATION}"] // '
    '((.spec.nodeName // "") | capture("^replay-(?<case>.+)-[0-9]+$") | .case)'
)
CASE_SHOWN = f'.status.conditions.[] | select( .type == "{CONDITION}" ) | .reason'
PLACEHOLDERS = {
    "${container}": "{{ $c.name }}",
    "${image}": "{{ $c.image }}",
    "${pod}": "{{ $.metadata.name }}",
    "${namespace}": "{{ $.metadata.namespace }}",
    "${uid}": "{{ $.metadata.uid }}",
    "${node}": "{{ $.spec.nodeName }}",
}


@dataclass(frozen=True)
class Replay:
    """One recorded pod status; `source` says how truthful it is."""

    case: str
    source: str
    about: str
    status: dict[str, Any]
    event: dict[str, str] | None = None
    """What the kubelet says of it in a Warning: `reason` and `message`."""


def load(directory: Path = DIRECTORY) -> tuple[Replay, ...]:
    """Return every case of a directory, by name."""
    return tuple(parse(path) for path in sorted(directory.glob("*.yaml")))


def parse(path: Path) -> Replay:
    """Read and check one file; the error names the field."""
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, dict) or set(document) - {"event"} != {"case", "source", "about", "status"}:
        raise HarnessError(f"{path}: wants exactly the fields case, source, about, status, and perhaps event")
    replay = Replay(**document)
    if replay.case != path.stem:
        raise HarnessError(f"{path}: case is {replay.case!r}, the file's name says {path.stem!r}")
    if replay.status.get("phase") not in PHASES:
        raise HarnessError(f"{path}: status.phase is {replay.status.get('phase')!r}, not one of {', '.join(PHASES)}")
    if len(replay.status.get("containerStatuses", ())) != 1:
        raise HarnessError(f"{path}: status.containerStatuses wants one entry, for the container the case is about")
    if {"name", "image"} & set(replay.status["containerStatuses"][0]):
        raise HarnessError(f"{path}: status.containerStatuses has name or image: these come from the pod")
    return replay


def stage(replay: Replay, delay_ms: int) -> dict[str, Any]:
    """Return the kwok stage that puts a pod into this status, once for each time it is asked for."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"replay-{replay.case}"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {
                "matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                    {"key": ".status.phase", "operator": "In", "values": ["Pending", "Running"]},
                    {"key": CASE_OF_POD, "operator": "In", "values": [replay.case]},
                    {"key": CASE_SHOWN, "operator": "NotIn", "values": [replay.case]},
                ]
            },
            "delay": {"durationMilliseconds": delay_ms},
            "next": {
                "statusTemplate": template(replay),
                **({"event": {"type": "Warning", **replay.event}} if replay.event else {}),
            },
        },
    }


def template(replay: Replay) -> str:
    """Return the status as a Go template: the case's container as recorded, its sidecars running beside it."""
    pod = {key: value for key, value in replay.status.items() if key not in ("conditions", "containerStatuses")}
    given = {one["type"]: one["status"] for one in replay.status["conditions"]}
    # Where no container runs any more, or none can yet, the record holds for all of them.
    whole = replay.status["phase"] == "Failed" or given.get("PodReadyToStartContainers") == "False"
    asked = f'(index (or .metadata.annotations dict) "{CONTAINER_ANNOTATION}")'
    recorded = replay.status["containerStatuses"][0]
    sidecar = recorded if whole else RUNNING
    lines = [
        "{{ $c := index .spec.containers 0 }}",
        f"{{{{ $target := or {asked} $c.name }}}}",
        "{{ range .spec.containers }}{{ if eq .name $target }}{{ $c = . }}{{ end }}{{ end }}",
        *(f"{key}: {_inline(value)}" for key, value in pod.items()),
        BORN,
        "conditions:",
        *(f"- {_inline({'lastTransitionTime': '@now'} | condition)}" for condition in replay.status["conditions"]),
        f"- {_inline({'type': CONDITION, 'status': 'True', 'reason': replay.case, 'lastTransitionTime': '@now'})}",
        "containerStatuses:",
        "{{ range $c := .spec.containers }}",
        "" if whole else "{{ if eq $c.name $target }}",
        f"- {_inline(NAMED | recorded)}",
        "" if whole else f"{{{{ else }}}}\n- {_inline(NAMED | RUNNING)}\n{{{{ end }}}}",
        "{{ end }}",
        "initContainerStatuses:",
        "{{ range $c := .spec.initContainers }}",
        f'{{{{ if eq (or $c.restartPolicy "") "Always" }}}}\n- {_inline(NAMED | sidecar)}',
        f"{{{{ else }}}}\n- {_inline(NAMED | ENDED | {'ready': True})}\n{{{{ end }}}}",
        "{{ end }}",
    ]
    return "\n".join(line for line in lines if line)


NAMED: dict[str, Any] = {
    "name": "${container}",
    "image": "${image}",
    "imageID": "",
    "ready": False,
    "started": False,
    "restartCount": 0,
}
RUNNING: dict[str, Any] = {
    "ready": True,
    "started": True,
    "state": {"running": {"startedAt": "@now"}},
}
ENDED: dict[str, Any] = {
    "state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "@now", "finishedAt": "@now"}},
}
# What kubelet sets once, when the pod's sandbox starts. A second address of a family would be refused.
BORN = """\
{{ if not .status.startTime }}
startTime: {{ Now | Quote }}
{{ end }}
{{ if not .status.podIP }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
hostIPs: [{ip: {{ NodeIPWith .spec.nodeName | Quote }}}]
{{ $ip := PodIPWith .spec.nodeName (or .spec.hostNetwork false) .metadata.uid .metadata.name .metadata.namespace }}
podIP: {{ $ip | Quote }}
podIPs: [{ip: {{ $ip | Quote }}}]
{{ end }}"""


def _inline(value: Any) -> str:
    """Write a value as JSON on one line, with the moments and names that only kwok knows left to its template."""
    text = json.dumps(value)
    for placeholder, field in PLACEHOLDERS.items():
        text = text.replace(placeholder, field)
    text = text.replace('"@now"', "{{ Now | Quote }}")
    past = r'"{{ dateInZone "2006-01-02T15:04:05Z" (dateModify "-\1" now) "UTC" }}"'
    return re.sub(r'"@now-([0-9]+[hms])"', past, text)
