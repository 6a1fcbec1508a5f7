"""Coded errors of the pool; each `code` is what the hub sees as `reason_code`."""


class PoolError(Exception):
    """Something the controller reports and, where it helps, tries again."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ArtifactError(PoolError):
    """A model or adapter folder is missing or not what its digest says."""


class EngineError(PoolError):
    """An engine refused a call or could not be configured."""


class EngineSilentError(EngineError):
    """An engine did not answer in time or closed the connection."""

    def __init__(self, message: str) -> None:
        super().__init__("engine_silent", message)


class ReplicaFaultError(PoolError):
    """An engine process ended, hung or never came up; it is replaced by its next epoch."""
