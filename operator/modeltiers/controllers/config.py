"""Reads the administrator's settings file and the few things that come with the process: where it runs and as whom."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, YamlConfigSettingsSource

from modeltiers import names
from modeltiers.api.settings import Settings


class BadSettings(Exception):
    """The settings file cannot be used; the text names the field and the file."""


class Process(BaseSettings):
    """What the pod's manifest decides, from environment variables `MODELTIERS_*`."""

    model_config = SettingsConfigDict(env_prefix="MODELTIERS_", extra="ignore")

    settings: Path | None = None
    """The settings file; defaults when there is none."""
    namespace: str = names.OPERATOR_NAMESPACE
    """Namespace of the operator: its Lease is there."""
    identity: str = Field(default_factory=socket.gethostname)
    """Name of this replica, unique among replicas."""
    kubeconfig: Path | None = None
    """A kubeconfig instead of the pod's own ServiceAccount."""
    host: str = "127.0.0.1"
    """Address of the health and metrics server."""
    port: int = 8080
    """Port of the health and metrics server."""
    elect: bool = True
    """Whether to take part in leader election."""


def load(path: Path | None) -> Settings:
    """The settings in this file; the defaults when there is no file."""
    if path is None:
        return Settings()
    if not path.is_file():
        raise BadSettings(f"{path}: there is no such file; set MODELTIERS_SETTINGS to the settings file, or unset it")

    try:
        return Settings.model_validate(YamlConfigSettingsSource(Process, yaml_file=path)())
    except ValidationError as fault:
        lines = [f"{path}: {'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors()]
        raise BadSettings("\n".join(lines)) from None
    except Exception as fault:  # a YAML parser's own errors have no common base across loaders
        raise BadSettings(f"{path}: not readable as YAML: {fault}") from None
