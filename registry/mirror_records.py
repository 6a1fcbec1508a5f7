"""What goes to the MLflow mirror and what comes back, and which names it takes.

It leaves the calls to `registry.mlflow_mirror`; nothing here needs mlflow.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from registry.errors import RegistryError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)+")
_MAX_NAME_CHARS = 200


class MirrorNameRefusedError(RegistryError):
    """MLflow's registry cannot hold a model of that name."""

    code = "mlflow_name_refused"


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One figure of a run; `at` is aware UTC, so that a repeated call writes the same row."""

    name: str
    step: int
    value: float
    at: datetime

    @property
    def at_ms(self) -> int:
        """Milliseconds since the epoch, MLflow's unit."""
        return round(self.at.astimezone(UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class MirroredRun:
    """MLflow's ids of a run."""

    experiment_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class MirroredVersion:
    """MLflow's ids of a registered version; `model_id` is the logged model that holds its files."""

    name: str
    version: int
    model_id: str
    run_id: str


def registered_name(organisation: str, model: str) -> str:
    """Return `organisation.model`: MLflow takes neither '/' nor ':'.

    Raises: MirrorNameRefusedError.
    """
    return check_registered_name(f"{organisation}.{model}")


def check_registered_name(name: str) -> str:
    """Return `name` if MLflow can hold it. Raises: MirrorNameRefusedError."""
    if len(name) > _MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise MirrorNameRefusedError(
            f"Model name {name[:80]!r} is not 'organisation.model' of letters, digits, '-', '_' and '.', at most "
            f"{_MAX_NAME_CHARS}. Choose another name.",
            f"模型名 {name[:80]!r} 不是“组织.模型”形式（字母、数字、“-”“_”“.”，最多 {_MAX_NAME_CHARS} 个字符）。"
            "请换一个名称。",
            field="name",
        )
    return name
