"""The adapters of one running engine: load, warm up, unload; which ones are wanted is left to placement."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.contract import AdapterState, engine_name
from serving.pool.engine_client import EngineClient
from serving.pool.errors import EngineError, EngineSilentError

_WARM_TOKENS = 32
_WARM_TIMEOUT_S = 60.0
_RETRY_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shelved:
    """State of one adapter on this engine."""

    state: AdapterState
    reason_code: str | None = None
    retry_at: float = 0.0


class AdapterShelf:
    """Brings one engine's adapters to `wanted`, one at a time. `clock` is monotonic seconds; a warm-up is a use.

    What is no longer wanted leaves the routes at once and the engine `notice_s` later, when gateways have heard of it.
    While `may_act` is false nothing leaves, and only what the engine has already is warmed up.
    """

    def __init__(
        self,
        engine: EngineClient,
        *,
        clock: Callable[[], float],
        notice_s: float,
        on_change: Callable[[], None],
        on_use: Callable[[str], None],
        may_act: Callable[[], bool],
    ) -> None:
        self._on_use = on_use
        self._may_act = may_act
        self._engine = engine
        self._clock = clock
        self._notice_s = notice_s
        self._on_change = on_change
        self._shelved: dict[str, Shelved] = {}
        self._loaded_names: frozenset[str] = frozenset()
        self._left_at: dict[str, float] = {}

    def adopt(self, names: frozenset[str]) -> None:
        """Names that the engine served already when it was found; they only need their warm-up."""
        self._loaded_names = names

    def was_found_with(self, digest: str) -> bool:
        """Whether the engine had it when it was found, and has it still."""
        return engine_name(digest) in self._loaded_names

    def states(self) -> dict[str, Shelved]:
        """State by digest."""
        return dict(self._shelved)

    @property
    def is_loading(self) -> bool:
        """Whether the engine reads an adapter now."""
        return any(item.state is AdapterState.LOADING for item in self._shelved.values())

    def ready_digests(self) -> frozenset[str]:
        """Adapters that answer here."""
        return frozenset(digest for digest, item in self._shelved.items() if item.state is AdapterState.READY)

    async def sync(self, wanted: Mapping[str, Path]) -> None:
        """Load what is missing, unload what is not wanted. Raises: EngineSilentError when the engine is gone."""
        if self._may_act():
            await self._let_go(wanted)
        for digest, path in wanted.items():
            if self._is_due(digest) and (engine_name(digest) in self._loaded_names or self._may_act()):
                await self._bring(digest, path)

    async def _let_go(self, wanted: Mapping[str, Path]) -> None:
        for digest in [known for known in self._shelved if known not in wanted]:
            del self._shelved[digest]
            self._left_at[digest] = self._clock()
            self._on_change()
        for digest in self._left_at.keys() & wanted.keys():
            del self._left_at[digest]  # the engine still has it; loading it again changes nothing
        for digest, left_at in list(self._left_at.items()):
            if self._clock() >= left_at + self._notice_s:
                await self._engine.unload_adapter(engine_name(digest))
                self._loaded_names -= {engine_name(digest)}
                del self._left_at[digest]

    def _is_due(self, digest: str) -> bool:
        known = self._shelved.get(digest)
        if known is None or known.state in (AdapterState.LOADING, AdapterState.WARMING):
            return True
        return known.state is AdapterState.FAILED and self._clock() >= known.retry_at

    async def _bring(self, digest: str, path: Path) -> None:
        name = engine_name(digest)
        try:
            if name not in self._loaded_names:
                self._set(digest, Shelved(AdapterState.LOADING))
                await self._engine.load_adapter(name, path)
            self._set(digest, Shelved(AdapterState.WARMING))
            await self._engine.ask(name, prompt_tokens=_WARM_TOKENS, timeout_s=_WARM_TIMEOUT_S)
        except EngineSilentError:
            raise
        except EngineError as error:
            _log.warning("adapter %s: %s", digest, error)
            self._loaded_names = frozenset()
            self._set(digest, Shelved(AdapterState.FAILED, error.code, self._clock() + _RETRY_S))
            return
        self._on_use(digest)
        self._set(digest, Shelved(AdapterState.READY))

    def _set(self, digest: str, item: Shelved) -> None:
        self._shelved[digest] = item
        self._on_change()
