"""How long a new object waits for what it refers to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modeltiers.domain.arrival import GRACE, left

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("2026-11-27T12:00:00Z", 10),
        ("2026-11-27T11:59:57Z", 7),
        ("2026-11-27T11:59:50Z", None),
        ("2025-01-01T00:00:00Z", None),
        ("2026-11-27T12:00:04Z", 14),  # the API server's clock is ahead
        ("2026-11-27T13:00:00Z", None),  # so far that it says nothing
        ("", None),
        ("yesterday", None),
    ],
)
def test_left(created: str, seconds: int | None) -> None:
    """Never more than twice the grace, and over for good at some time."""
    assert left(created, NOW) == (None if seconds is None else timedelta(seconds=seconds))
    assert left(created, NOW + 3 * GRACE) is None or created > "2026-11-27T12:01"
