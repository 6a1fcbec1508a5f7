"""Faults 2 and 3: the database or its writer is killed under load; a reply is lost after the commit."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from hub.database import Sessions
from tests.faults.cluster import Cluster
from tests.faults.ground import Ground
from tests.faults.paying import count_double, pay
from tests.faults.proxy import CuttingProxy
from tests.faults.tally import take_tally
from tests.hub.money.market import Market


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Ground]:
    """A server of its own with fsync on, to be crashed."""
    cluster = Cluster(durable=True)
    yield Ground("postgresql", tmp_path / "ground", cluster)
    cluster.close()


class Writers:
    """Threads that pay without pause, and send again under the same id whatever they got no answer to."""

    def __init__(self, sessions: Sessions, owner: str, count: int = 4) -> None:
        self.sent: list[str] = []
        self.acked: list[str] = []
        self.unanswered = self.exists = 0
        self.stopping = threading.Event()
        self._sessions, self._owner = sessions, owner
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish what it is sending."""
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        turn = 0
        while not self.stopping.is_set():
            key, turn = f"pay-{number}-{turn}", turn + 1
            self.sent.append(key)
            self._send(key)
            self.acked.append(key)

    def _send(self, key: str) -> None:
        while True:
            try:
                self.exists += not pay(self._sessions, key, self._owner)
            except DBAPIError:
                self.unanswered += 1
                time.sleep(0.05)
            else:
                return


@pytest.mark.timeout(3600)
def test_postgresql_crashes_under_load(durable: Ground, long: bool) -> None:
    """Fault 2: all processes SIGKILLed and immediate shutdowns in turn, four writers never stopping."""
    cycles, worst = (100 if long else 4), 0.0
    cluster = durable.cluster
    assert cluster is not None
    with durable.market(durable.copy()) as market:
        pay(market.sessions, "pay-first", market.owner("factory"))
        writers = Writers(market.sessions, market.owner("factory"))
        for cycle in range(cycles):
            time.sleep(0.4)
            started = time.monotonic()
            cluster.crash(kill=cycle % 2 == 0)
            cluster.start()
            worst = max(worst, time.monotonic() - started)
        writers.stop()
        tally = take_tally(
            market.sessions,
            f"2 {cycles} crashes, {writers.unanswered} sends unanswered",
            sent=[*writers.sent, "pay-first"],
            acked=writers.acked,
            exists=writers.exists,
            double=count_double(market.sessions),
            recovery_s=worst,
        )
    assert tally.sound, tally
    assert tally.in_db == tally.sent
    assert writers.unanswered > 0


@pytest.mark.timeout(3600)
def test_sqlite_writers_are_killed(sqlite_ground: Ground, long: bool) -> None:
    """Fault 2 on SQLite: a writer is SIGKILLed again and again; what it had acknowledged is there."""
    url, sent, acked, last = sqlite_ground.copy(), [], [], []
    for life in range(50 if long else 6):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _pay_until_killed(sqlite_ground, url, life, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            first = pipe.readline()
            time.sleep(0.1)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines = [first, *pipe.readlines()]
        done = [line.strip() for line in lines if line.endswith("\n")]
        acked += done
        last.append(f"pay-{life}-{len(done)}")
        sent += [*done, last[-1]]
    began = time.monotonic()
    with sqlite_ground.market(url) as market:
        lost = [key for key in acked if pay(market.sessions, key, market.owner("factory"))]
        recovery_s = time.monotonic() - began
        # Whatever got no answer is sent again, and some of it had been stored.
        exists = sum(not pay(market.sessions, key, market.owner("factory")) for key in last)
        tally = take_tally(
            market.sessions,
            f"2 writer killed {len(last)} times",
            sent=sent,
            acked=acked,
            exists=exists,
            double=count_double(market.sessions),
            recovery_s=recovery_s,
        )
        assert market.sessions.engine.dialect.name == "sqlite"
    assert tally.sound, tally
    assert lost == []
    assert tally.in_db == len(sent) > 12


@contextmanager
def _cut(ground: Ground, url: str, folder: Path) -> Iterator[tuple[Market, CuttingProxy]]:
    cluster = ground.cluster
    assert cluster is not None
    proxy = CuttingProxy(cluster.home / ".s.PGSQL.5432", folder)
    with ground.market(url.replace(f"host={cluster.home}", f"host={folder}")) as market:
        yield market, proxy
    proxy.close()


def test_a_lost_reply_is_sent_again_and_counts_once(postgresql_ground: Ground) -> None:
    """Fault 3: the server commits, the proxy swallows its answer; the same ids again: exactly once."""
    url, keys, exists = postgresql_ground.copy(), [f"pay-{number}" for number in range(10)], 0
    assert postgresql_ground.cluster is not None
    with _cut(postgresql_ground, url, postgresql_ground.cluster.home / "proxy") as (market, proxy):
        pay(market.sessions, "pay-first", market.owner("factory"))
        for key in keys:
            proxy.armed = True
            with pytest.raises(OperationalError):
                pay(market.sessions, key, market.owner("factory"))
            exists += not pay(market.sessions, key, market.owner("factory"))
        assert proxy.cuts == exists == len(keys)
        double = count_double(market.sessions)
        tally = take_tally(market.sessions, "3 replies lost", sent=keys, acked=keys, exists=exists, double=double)
    assert tally.sound, tally
    assert tally.in_db == len(keys)


def _pay_until_killed(ground: Ground, url: str, life: int, pipe: int) -> None:
    try:
        with ground.market(url) as market:
            for turn in range(100_000):
                pay(market.sessions, f"pay-{life}-{turn}", market.owner("factory"))
                os.write(pipe, f"pay-{life}-{turn}\n".encode())
    finally:
        os._exit(70)
