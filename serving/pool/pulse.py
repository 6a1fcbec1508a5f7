"""Whether a serving engine is alive, judged by inference: it answers a tiny question, or its token counters move.

What happens to an engine without a pulse is left to the replica.
"""

import logging
from collections.abc import Callable

from serving.contract import BASE_ENGINE_NAME
from serving.pool.engine_client import EngineClient, EngineLoad
from serving.pool.errors import EngineSilentError
from serving.pool.settings import Timing

_PROBE_TOKENS = 4
_LEAST_BUSY_SHARE = 0.08
_LOOKS_AT_MOST = 3
"""Waits of a look: for counters, for the answer, for counters again."""
_log = logging.getLogger(__name__)


class Pulse:
    """Of one engine. `cpu_s` is the processor time of its processes so far, `clock` monotonic seconds.

    `is_loading` tells whether it reads an adapter now.

    `queue_wait_ms` is how long requests waited inside it lately.
    """

    def __init__(
        self,
        engine: EngineClient,
        cpu_s: Callable[[], float],
        timing: Timing,
        *,
        clock: Callable[[], float],
        is_loading: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._cpu_s = cpu_s
        self._timing = timing
        self._clock = clock
        self._is_loading = is_loading
        self._last: EngineLoad | None = None
        self._jammed_since: float | None = None
        self._silent_looks = 0
        self._silent_from_cpu_s = 0.0
        """Its processor time when the last wait began that ended without a word."""
        self._speaks = False
        self.queue_wait_ms = 0
        self._moved_at = clock()

    async def feel(self) -> None:
        """Ask unless tokens moved since the last time. Raises: EngineSilentError for an engine that hangs."""
        began_s = self._clock()
        try:
            if await self._moved() or await self._is_busy():
                return
        except EngineSilentError:
            self._silent_looks += 1
            if self._computes() or self._may_read() or self._stood_still(began_s):
                _log.info("engine is busy: no answer within %g s", self._timing.probe_timeout_s)
                return
            raise
        self._note_life()

    async def _is_busy(self) -> bool:
        """Whether tokens moved instead of an answer to the tiny question. Raises: EngineSilentError for neither."""
        cpu_s = self._cpu_s()
        try:
            await self._engine.ask(
                BASE_ENGINE_NAME, prompt_tokens=_PROBE_TOKENS, timeout_s=self._timing.probe_timeout_s
            )
        except EngineSilentError:
            self._silent_from_cpu_s = cpu_s
            if not await self._moved():
                raise
            return True
        return False

    async def _moved(self) -> bool:
        cpu_s, self._speaks = self._cpu_s(), False
        try:
            load = await self._engine.read_load(self._timing.probe_timeout_s)
        except EngineSilentError:
            self._silent_from_cpu_s = cpu_s
            raise
        self._speaks = True
        moved = self._last is not None and load.tokens_total != self._last.tokens_total
        if moved:
            self._note_life()
        self._note_wait(self._last or load, load)
        self._last = load
        return moved

    def _note_wait(self, before: EngineLoad, load: EngineLoad) -> None:
        """Mean wait of what began since the last look, or how long already nothing that waits has begun."""
        begun = load.begun - before.begun
        is_jammed = load.waiting > 0 and begun == 0
        self._jammed_since = (self._jammed_since or self._clock()) if is_jammed else None
        jammed_s = 0.0 if self._jammed_since is None else self._clock() - self._jammed_since
        waited_s = (load.waited_s - before.waited_s) / begun if begun else jammed_s
        self.queue_wait_ms = int(1000 * waited_s)

    def _note_life(self) -> None:
        self._moved_at, self._silent_looks = self._clock(), 0

    def _may_read(self) -> bool:
        """An engine core that waits for a disk computes nothing, and only its counters answer: one look is forgiven."""
        return self._silent_looks == 1 and self._speaks and self._is_loading()

    def _stood_still(self, began_s: float) -> bool:
        """A look that took far longer than it may: we ourselves, or the whole machine, were not running meanwhile."""
        longest_s = _LOOKS_AT_MOST * self._timing.probe_timeout_s
        return self._silent_looks == 1 and self._clock() - began_s > longest_s + self._timing.probe_interval_s

    def _computes(self) -> bool:
        """A stopped or locked engine burns no processor time while it is silent; one on a long prompt does."""
        busy_share = (self._cpu_s() - self._silent_from_cpu_s) / self._timing.probe_timeout_s
        return busy_share > _LEAST_BUSY_SHARE and self._clock() - self._moved_at < self._timing.stuck_timeout_s
