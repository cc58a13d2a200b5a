"""Volume claims, as far as a tier's decisions read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A PersistentVolumeClaim: who may mount it."""

    access_modes: tuple[str, ...]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> ClaimView:
        """Read a core/v1 PersistentVolumeClaim."""
        modes = (body.get("spec") or {}).get("accessModes") or ()
        return cls(tuple(str(mode) for mode in modes))

    @property
    def single_writer(self) -> bool:
        """Whether one node only can mount the volume."""
        return not any(mode in ("ReadWriteMany", "ReadOnlyMany") for mode in self.access_modes)
