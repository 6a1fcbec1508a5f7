"""Runs one kind of work in several processes for a while and returns its rate.

It leaves what the work is to `posting` and `ingest`.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hub.database import Sessions, open_sessions

Step = Callable[[], int]
Make = Callable[[Sessions, int], Step]
"""Given sessions of its own process and a seed, returns the unit of work."""
WARM_UP = 20


def measure_rate(url: str, make: Make, *, seconds: float, processes: int) -> float:
    """Return units a second of all processes together; each warms up before the common start."""
    fork = multiprocessing.get_context("fork")
    start, results = fork.Barrier(processes), fork.SimpleQueue()
    seeds = [time.time_ns() + number for number in range(processes)]
    workers = [fork.Process(target=_work, args=(url, make, seed, seconds, start, results)) for seed in seeds]
    for worker in workers:
        worker.start()
    rates = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    failed = [rate for rate in rates if isinstance(rate, str)]
    if failed:
        raise RuntimeError(failed[0])
    return float(sum(rates))


def measure_threads(step: Step, *, seconds: float, threads: int) -> float:
    """Return units a second of one step done by several threads of this process at once."""
    for _ in range(WARM_UP):
        step()
    with ThreadPoolExecutor(threads) as pool:
        rates = [pool.submit(measure_here, step, seconds=seconds) for _ in range(threads)]
    return sum(rate.result() for rate in rates)


def measure_here(step: Step, *, seconds: float) -> float:
    """Return units a second of one step repeated in this process."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        done += step()
    return done / (time.perf_counter() - begin)


def with_flush(step: Step, flush_ms: float) -> Step:
    """Return the step with a commit's flush made so much longer; exact where one process writes alone, as on SQLite."""

    def slowed() -> int:
        done = step()
        time.sleep(flush_ms / 1000)
        return done

    return slowed if flush_ms else step


def _work(url: str, make: Make, seed: int, seconds: float, start: Any, results: Any) -> None:
    try:
        sessions = open_sessions(url)
        step = make(sessions, seed)
        for _ in range(WARM_UP):
            step()
        start.wait()
        results.put(measure_here(step, seconds=seconds))
        sessions.close()
    except Exception as error:  # noqa: BLE001  the parent must hear of it, or it waits for ever
        start.abort()
        results.put(f"{type(error).__name__}: {error}")
