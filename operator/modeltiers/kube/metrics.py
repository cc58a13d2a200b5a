"""What the API server is asked, how it answers and how long it takes, as Prometheus metrics.

Label values come from the closed table of kinds, from our own verbs and from HTTP status codes. Children are kept once
found, because finding one by its labels costs more than counting on it.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

REQUESTS: Final = Counter(
    "modeltiers_api_requests", "Requests to the API server; code 0 means no answer", ["verb", "resource", "code"]
)
SECONDS: Final = Histogram(
    "modeltiers_api_request_duration_seconds",
    "Time until the API server has answered",
    ["verb", "resource"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
EVENTS: Final = Counter("modeltiers_events", "Events by outcome", ["outcome"])
LEADERSHIP: Final = Counter("modeltiers_leadership_changes", "Times the lease was gained or lost", ["change"])

_counts: dict[tuple[str, str, int], Counter] = {}
_times: dict[tuple[str, str], Histogram] = {}


def observe(verb: str, resource: str, code: int, seconds: float) -> None:
    """Note one request and its answer."""
    count = _counts.get((verb, resource, code))
    if count is None:
        count = _counts[verb, resource, code] = REQUESTS.labels(verb, resource, str(code))
    count.inc()
    time = _times.get((verb, resource))
    if time is None:
        time = _times[verb, resource] = SECONDS.labels(verb, resource)
    time.observe(seconds)
