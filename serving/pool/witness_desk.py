"""Hands the engines' own counts to the hub and reads their counters beside them when nothing runs.

It leaves counting to `serving.witness` inside the engine, and comparing with bills to the hub.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from serving.contract import EngineReading, WitnessBatch
from serving.pool.engine_client import EngineClient, EngineLoad
from serving.pool.errors import EngineError
from serving.pool.hub_link import Hub
from serving.pool.witness_tail import WitnessTail, witness_folder, witness_path
from serving.witness.book import close_dead

_MOST_ROWS = 500
_LATE_ROW_S = 0.3
EngineKey = tuple[str, int]


class WitnessDesk:
    """All witness files of this controller; `living` maps (replica id, epoch) of started engines to their address."""

    def __init__(self, state: Path, hub: Hub) -> None:
        self._state = state
        self._hub = hub
        self._tails: dict[EngineKey, WitnessTail] = {}
        self._readings: dict[EngineKey, EngineReading] = {}
        self._told: dict[EngineKey, EngineReading] = {}
        self._busy = asyncio.Lock()

    async def send(self, living: Mapping[EngineKey, EngineClient]) -> None:
        """Send every new row and reading; files of ended engines are closed, sent and removed.

        Raises: HubSilentError, WrongEpochError; what was not sent stays for the next call.
        """
        async with self._busy:
            self._find_files(living)
            for key, tail in list(self._tails.items()):
                tail.read()
                await self._send_one(tail)
                if key not in living and not tail.next_rows(1):
                    tail.forget()
                    self._forget(key)

    async def take_reading(self, key: EngineKey, engine: EngineClient) -> None:
        """Read an idle engine's counters beside its rows; an engine at work or silent gives no reading."""
        tail = self._tail(key)
        try:
            before = await engine.read_load()
            if before.in_flight:
                return
            async with self._busy:
                tail.read()
            if not _agrees(before, tail):
                await asyncio.sleep(_LATE_ROW_S)  # the row of an aborted request comes a moment after it left
                async with self._busy:
                    tail.read()
            after = await engine.read_load()
        except EngineError:
            return
        if after == before:
            counts = (tail.seq, after.prompt_tokens, after.completion_tokens)
            self._readings[key] = EngineReading(*key, *counts, read_at=time.time_ns() // 1000)

    def _find_files(self, living: Mapping[EngineKey, EngineClient]) -> None:
        for path in sorted(witness_folder(self._state).glob("*.jsonl")):
            replica_id, _, epoch = path.stem.rpartition("-")
            key = (replica_id, int(epoch))
            if key not in living:
                close_dead(path)
            self._tail(key)

    def _tail(self, key: EngineKey) -> WitnessTail:
        if key not in self._tails:
            self._tails[key] = WitnessTail(witness_path(self._state, *key))
        return self._tails[key]

    async def _send_one(self, tail: WitnessTail) -> None:
        key = (tail.replica_id, tail.epoch)
        while rows := tail.next_rows(_MOST_ROWS):
            await self._hub.send_witness(WitnessBatch(rows))
            tail.mark_sent(len(rows))
        reading = self._readings.get(key)
        if reading is not None and _is_news(reading, self._told.get(key)):
            await self._hub.send_witness(WitnessBatch((), (reading,)))
            self._told[key] = reading

    def _forget(self, key: EngineKey) -> None:
        for known in (self._tails, self._readings, self._told):
            known.pop(key, None)


def _agrees(load: EngineLoad, tail: WitnessTail) -> bool:
    return (load.prompt_tokens, load.completion_tokens) == (tail.prompt_tokens, tail.completion_tokens)


def _is_news(reading: EngineReading, told: EngineReading | None) -> bool:
    counts = (reading.through_seq, reading.prompt_tokens, reading.completion_tokens)
    return told is None or counts != (told.through_seq, told.prompt_tokens, told.completion_tokens)
