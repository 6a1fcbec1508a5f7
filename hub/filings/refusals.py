"""Turns refusals of the registry into the hub's coded errors, once. It leaves the texts to the registry."""

from collections.abc import Iterator
from contextlib import contextmanager

from hub.errors import GuanmoError
from registry.errors import RegistryError


class ArtifactRefusedError(GuanmoError):
    """The artefact store or an upload gate said no; `cause` is the registry's own code."""

    code = "artifact_refused"
    status = 422


@contextmanager
def translate_refusals() -> Iterator[None]:
    """Raise the registry's errors as `ArtifactRefusedError`, texts unchanged."""
    try:
        yield
    except RegistryError as error:
        raise ArtifactRefusedError(error.en, error.zh, field=error.field, cause=error.code) from error
