"""Faults 2, 3, 15: the database crashes under load, a reply is lost, the disk is full, everybody wants to write."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from hub.database import Sessions, open_sessions
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
        self.ambiguous = 0
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
                pay(self._sessions, key, self._owner)
            except DBAPIError:
                self.ambiguous += 1
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
            f"2 {cycles} crashes, worst recovery {worst:.1f} s",
            sent=[*writers.sent, "pay-first"],
            acked=writers.acked,
            ambiguous=writers.ambiguous,
            double=count_double(market.sessions),
        )
    assert tally.sound, tally
    assert tally.in_db == tally.sent
    assert tally.ambiguous > 0


@pytest.mark.timeout(3600)
def test_sqlite_writers_are_killed(sqlite_ground: Ground, long: bool) -> None:
    """Fault 2 on SQLite: a writer is SIGKILLed again and again; what it had acknowledged is there."""
    url, sent, acked = sqlite_ground.copy(), [], []
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
        sent += [*done, f"pay-{life}-{len(done)}"]
    with sqlite_ground.market(url) as market:
        for key in sent:
            pay(market.sessions, key, market.owner("factory"))  # whatever got no answer is sent again
        double = count_double(market.sessions)
        tally = take_tally(market.sessions, "2 killed writers", sent=sent, acked=acked, double=double)
        assert market.sessions.engine.dialect.name == "sqlite"
    assert tally.sound, tally
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
    url, keys = postgresql_ground.copy(), [f"pay-{number}" for number in range(10)]
    assert postgresql_ground.cluster is not None
    with _cut(postgresql_ground, url, postgresql_ground.cluster.home / "proxy") as (market, proxy):
        pay(market.sessions, "pay-first", market.owner("factory"))
        for key in keys:
            proxy.armed = True
            with pytest.raises(OperationalError):
                pay(market.sessions, key, market.owner("factory"))
            pay(market.sessions, key, market.owner("factory"))
        assert proxy.cuts == len(keys)
        double = count_double(market.sessions)
        tally = take_tally(
            market.sessions, "3 replies lost", sent=keys, acked=keys, ambiguous=proxy.cuts, double=double
        )
    assert tally.sound, tally
    assert tally.in_db == len(keys)


def test_a_full_disk_refuses_cleanly(sqlite_ground: Ground) -> None:
    """Fault 15: SQLITE_FULL in the middle; nothing half-done stays, and with room again the same ids go through."""
    url, keys = sqlite_ground.copy(), [f"pay-{number}" for number in range(400)]
    opened = open_sessions(url)
    event.listen(opened.engine, "connect", _allow_few_pages)
    acked, refused = [], []
    for key in keys:
        try:
            pay(opened, key, sqlite_ground.pattern.owner("factory"))
            acked.append(key)
        except OperationalError as error:
            refused.append((key, str(error)))
    opened.close()
    assert len(acked) > 5
    assert len(refused) > 5
    assert all("full" in reason for _, reason in refused)
    with sqlite_ground.market(url) as market:
        tally = take_tally(market.sessions, "15 disk full", sent=acked, acked=acked)
        assert tally.sound, tally
        assert tally.in_db == len(acked)
        for key in keys:
            pay(market.sessions, key, market.owner("factory"))
        again = take_tally(
            market.sessions, "15 room again", sent=keys, acked=keys, double=count_double(market.sessions)
        )
    assert again.sound, again
    assert again.in_db == len(keys)


def test_a_storm_of_writers_is_refused_cleanly(sqlite_ground: Ground) -> None:
    """Fault 15: SQLITE_BUSY for as long as somebody holds the file; nobody's payment is half there or doubled."""
    url, keys = sqlite_ground.copy(), [f"pay-{number}" for number in range(8)]
    with sqlite_ground.market(url) as market:
        impatient = open_sessions(url)
        event.listen(impatient.engine, "connect", _wait_briefly)
        with market.sessions.write() as holder:
            holder.execute(text("UPDATE audit_positions SET done_seq = done_seq"))
            for key in keys:
                with pytest.raises(OperationalError, match="locked"):
                    pay(impatient, key, market.owner("factory"))
        for key in keys:
            pay(impatient, key, market.owner("factory"))
        impatient.close()
        tally = take_tally(market.sessions, "15 busy storm", sent=keys, acked=keys, ambiguous=len(keys))
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


def _allow_few_pages(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    pages = cursor.execute("PRAGMA page_count").fetchone()[0]
    cursor.execute(f"PRAGMA max_page_count={pages + 12}")
    cursor.close()


def _wait_briefly(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA busy_timeout=30")
    cursor.close()
