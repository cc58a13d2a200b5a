"""The configuration of the router, of its peers and of the load: text from ports and folders, nothing started here.

The router has all that is built switched on: keys, twenty rules, model names to change, metering, metrics, and records
and scores and limits where they are built. nginx and haproxy relay and do nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from e2e.bench.router.bodies import HEADERS, KEY, MODEL, PATH

OPTIONAL: Final[dict[str, Any]] = {
    "score": {"thresholdPermille": 990},
    "session": {},
    "limits": {"requestsPerMinute": 900_000_000, "tokensPerMinute": 900_000_000, "concurrency": 50_000},
    "keyLimits": {"requestsPerMinute": 900_000_000, "tokensPerMinute": 900_000_000, "concurrency": 50_000},
}
"""Fields of a policy that are switched on as soon as the router takes them; so wide that none bites."""


def rules() -> list[dict[str, Any]]:
    """Return twenty rules: words, patterns, a header, metadata, sizes and forms; the requests here meet none of them.

    So each of them is looked at. The first that names a tier would end the reading.
    """
    topics = {
        "legal": ["lawsuit", "subpoena", "court order", "attorney"],
        "medical": ["diagnosis", "prescription", "side effects"],
        "safety": ["suicide", "self harm", "weapon"],
        "fraud": ["chargeback", "stolen card", "identity theft"],
        "privacy": ["gdpr", "data protection", "erase my data"],
        "code": ["traceback", "stack trace", "segfault", "compile error"],
        "math": ["integral", "derivative", "matrix"],
        "finance": ["balance sheet", "quarterly report", "audit"],
        "translate": ["translate", "translation"],
        "summary": ["summarise", "summarize", "tl;dr"],
        "complaint": ["complaint", "ombudsman", "regulator"],
    }
    found: list[dict[str, Any]] = [
        {"name": name, "when": {"keywords": words}, "tier": "large"} for name, words in topics.items()
    ]
    patterns = {
        "iban": r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b",
        "case-number": r"\bCASE-\d{6,}\b",
        "hash": r"\b[0-9a-f]{40}\b",
    }
    found += [{"name": name, "when": {"patterns": [one]}, "floor": "large"} for name, one in patterns.items()]
    found += [
        {"name": "gold", "when": {"headers": [{"name": "x-plan", "values": ["gold"]}]}, "tier": "large"},
        {"name": "batch", "when": {"metadata": [{"key": "kind", "values": ["batch"]}]}, "tier": "small"},
        {"name": "long", "when": {"promptCharsAtLeast": 200_000}, "tier": "large"},
        {"name": "tools", "when": {"tools": True}, "floor": "large"},
        {"name": "json", "when": {"jsonMode": True}, "floor": "large"},
        {"name": "media", "when": {"modalities": ["Image", "Audio"]}, "tier": "large"},
    ]
    return found


def table(port: int, optional: Iterable[str] = ()) -> dict[str, Any]:
    """Return a table of two tiers on one port; `optional` names fields of OPTIONAL."""
    tiers = [
        {"name": name, "address": f"127.0.0.1:{port}", "model": f"{MODEL}-{name}", "concurrency": 50_000}
        for name in ("small", "large")
    ]
    policy: dict[str, Any] = {"name": MODEL, "model": MODEL, "tiers": ["small", "large"], "mode": "Upfront"}
    policy |= {"access": {"mode": "Keys"}, "rules": rules(), "clamp": {"maxTokens": 4096}}
    policy |= {name: OPTIONAL[name] for name in optional}
    return {"formatVersion": 1, "tiers": tiers, "policies": [policy]}


def keys() -> dict[str, Any]:
    """Return a key file with a hundred keys, ours among them."""
    known = [("bench", KEY), *((f"other-{number}", f"sk-other-{number}") for number in range(99))]
    return {"keys": [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in known]}


def nginx_upstream(folder: Path, port: int, reply: bytes) -> str:
    """Return an nginx that answers every request with the same reply, from memory."""
    quoted = reply.decode()
    assert "'" not in quoted, "a quote would end the reply"
    assert "$" not in quoted, "a dollar would begin a variable"
    serves = f"listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{quoted}'; }}"
    return _nginx(folder, f"server {{ {serves} }}")


def nginx_proxy(folder: Path, port: int, upstream: int, *, streams: bool) -> str:
    """Return an nginx as a plain reverse proxy: connections kept on both sides, no log; streams are not held back."""
    relays = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
    if streams:
        relays += " proxy_buffering off;"
    return _nginx(
        folder,
        f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {relays} }} }}",
    )


def _nginx(folder: Path, servers: str) -> str:
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_timeout 600s;
  client_body_buffer_size 1m; client_max_body_size 10m; {temporary}
  {servers}
}}
"""


def haproxy(port: int, upstream: int) -> str:
    """Return an haproxy of one thread as a plain reverse proxy."""
    return f"""global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend front
  bind 127.0.0.1:{port} backlog 4096
  default_backend back
backend back
  server up 127.0.0.1:{upstream}
"""


def wrk(body: Path) -> str:
    """Return a wrk script that posts the same body again and again and prints its counts as one line of JSON."""
    lines = [
        'wrk.method = "POST"',
        f'local file = io.open("{body}", "rb")',
        'wrk.body = file:read("*a")',
        "file:close()",
    ]
    lines.append(f'wrk.path = "{PATH}"')
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in HEADERS.items()]
    errors = ("status", "connect", "read", "write", "timeout")
    fields = [
        '"requests":%d,"microseconds":%d,"p50":%d,"p99":%d',
        *(f'"{name}":%d' for name in errors),
    ]
    counts = ["summary.requests", "summary.duration", "latency:percentile(50)", "latency:percentile(99)"]
    counts += [f"summary.errors.{name}" for name in errors]
    shown = json.dumps("{" + ",".join(fields) + "}\n")
    lines.append(f"function done(summary, latency, requests) io.write(string.format({shown}, {', '.join(counts)})) end")
    return "\n".join(lines) + "\n"
