"""Who leads: decided from one Lease record and our own monotonic clock, with the rules of client-go.

A lease is expired when its record has not changed *before our eyes* for its duration; the times written in it are for
people and are never read. A leader trusts itself for a shorter time, counted from before it sent its last renewal: it
stops before anybody else can start. Clocks may differ by any amount; only their rates must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Config:
    """Seconds. A leader stops `lease - renew_deadline` before the earliest moment at which another may start."""

    lease: float = 10.0
    renew_deadline: float = 6.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        """Refuse times with which two could lead, or a leader could lose the lease by one slow answer."""
        if not 0 < self.retry < self.renew_deadline < self.lease:
            raise ValueError("an election needs retry < renew_deadline < lease")


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the Lease says. `version` changes with every write; `duration` is what its holder promises to renew within.

    A version of None stands for a Lease that is gone since it was seen like that.
    """

    holder: str
    duration: float
    transitions: int
    version: str | None


@dataclass(frozen=True, slots=True)
class Observed:
    """The record as seen last, and when it was first seen like that."""

    record: LeaseRecord
    since: float


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a candidate remembers. `trusted_from` is when its last successful renewal was sent."""

    observed: Observed | None = None
    trusted_from: float | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """We lead and the renewal is not due for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renew:
    """We hold the lease: write it again, guarded by this version; None creates it."""

    version: str | None
    transitions: int


@dataclass(frozen=True, slots=True)
class Acquire:
    """The lease is free or expired: take it, guarded by this version; None creates it."""

    version: str | None
    transitions: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else leads: look again after some seconds."""

    seconds: float


Decision = Hold | Renew | Acquire | Wait


def decide(standing: Standing, me: str, now: float, config: Config) -> Decision:
    """What a candidate does next, having just looked at the lease or renewed it."""
    observed = standing.observed
    if observed is None:
        return Acquire(None, 0)
    record = observed.record
    if record.holder == me:
        due = now if standing.trusted_from is None else standing.trusted_from + config.retry
        if due > now and leads(standing, now, config):
            return Hold(due - now)
        return Renew(record.version, record.transitions)
    expires = observed.since + max(record.duration, config.lease)
    if not record.holder or now >= expires:
        return Acquire(record.version, record.transitions + 1)
    return Wait(min(config.retry, expires - now))


def leads(standing: Standing, now: float, config: Config) -> bool:
    """Whether we may still act as the leader."""
    return standing.trusted_from is not None and 0 <= now - standing.trusted_from < config.renew_deadline


def observe(standing: Standing, record: LeaseRecord | None, now: float) -> Standing:
    """Remember a record that was read. One that has changed starts its time anew.

    A Lease that somebody deleted frees nobody's place: its holder does not know yet, and was promised its time.
    """
    if record is None:
        seen = standing.observed
        return replace(standing, observed=seen and Observed(replace(seen.record, version=None), seen.since))
    if standing.observed and standing.observed.record == record:
        return standing
    return replace(standing, observed=Observed(record, now))


def renewed(standing: Standing, record: LeaseRecord, sent: float, now: float) -> Standing:
    """Remember that our write, sent at `sent`, was accepted and made the lease look like this."""
    return replace(standing, observed=Observed(record, now), trusted_from=sent)


def resigned(standing: Standing) -> Standing:
    """Stop trusting ourselves, whatever the lease says."""
    return replace(standing, trusted_from=None)
