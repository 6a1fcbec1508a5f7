"""Writes where a gateway that stands alone finds the replicas and the names behind them; reading is left to it."""

import logging
from collections.abc import Mapping
from pathlib import Path

from serving.contract import Desired, NamedModel, Routes, RoutesFile, encode
from serving.launch.run import write_atomically
from serving.pool.engine_command import context_tokens

_log = logging.getLogger(__name__)


class RoutesWriter:
    """Replaces one file whole, so that a reader sees the old routes or the new ones."""

    def __init__(self, path: Path, *, pool_url: str) -> None:
        self._path = path
        self._pool_url = pool_url
        self._written: RoutesFile | None = None
        self._is_failing = False

    def write(self, routes: Routes, models: tuple[NamedModel, ...]) -> None:
        """Write what is new; where that fails it is tried again with the next call, and said once."""
        fresh = RoutesFile(routes, models, self._pool_url)
        if fresh == self._written:
            return
        try:
            write_atomically(self._path, encode(fresh))
        except OSError as error:
            if not self._is_failing:
                _log.warning("routes file %s cannot be written: %s; gateways keep the last one", self._path, error)
            self._is_failing = True
        else:
            self._written, self._is_failing = fresh, False


def name_models(desired: Desired | None, names: Mapping[str, str]) -> tuple[NamedModel, ...]:
    """What each public name stands for, by name; a name whose digest nothing desired has is left out."""
    if desired is None:
        return ()
    base_of = {adapter.digest: adapter.base_digest for adapter in desired.adapters}
    base_of |= {one.base_digest: one.base_digest for one in desired.replica_sets}
    fewest: dict[str, int] = {}
    for one in desired.replica_sets:
        tokens = context_tokens(one)
        fewest[one.base_digest] = min(tokens, fewest.get(one.base_digest, tokens))
    return tuple(
        NamedModel(name, digest, base_of[digest], fewest[base_of[digest]])
        for name, digest in sorted(names.items())
        if base_of.get(digest) in fewest
    )
