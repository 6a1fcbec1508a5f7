"""A private PostgreSQL with fsync on, and pgbench's TPC-B-like script on it, the yardstick of every other figure.

It leaves the ledger's own work to `posting` and `ingest`.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import create_engine, text

from hub.tables import import_tables, metadata
from tests.hub.money.postgres import find_binaries, run_server

CLIENTS = 4
SCALE = 10
_TPS = re.compile(r"tps = ([0-9.]+) \(without initial connection time\)")


@dataclass(frozen=True)
class Cluster:
    """A running server: `url` of the hub's tables, `socket` for pgbench."""

    url: str
    socket: str

    def measure_tpcb(self, seconds: float) -> float:
        """Return transactions a second of pgbench's TPC-B-like script with prepared statements."""
        duration = str(max(1, round(seconds)))
        return _read_rate(self.pgbench("-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", duration))

    def measure_script(self, script: str, seconds: float) -> float:
        """Return transactions a second of a pgbench script on the hub's database, by as many clients."""
        with tempfile.NamedTemporaryFile("w", prefix="guanmo-bench-", dir="/tmp") as file:
            file.write(script)
            file.flush()
            options = ("-n", "-f", file.name, "-M", "prepared", "-c", str(CLIENTS), "-j", "2")
            return _read_rate(self.pgbench(*options, "-T", str(max(1, round(seconds))), database="hub"))

    def set_flush_ms(self, flush_ms: float) -> None:
        """Let every flush of the log take so much longer, for all clients alike; 0 takes it back."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            # PostgreSQL's own setting: whoever flushes for a group of commits waits that long before.
            connection.execute(text(f"ALTER SYSTEM SET commit_delay = {round(flush_ms * 1000)}"))
            connection.execute(text("ALTER SYSTEM SET commit_siblings = 0"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()

    def pgbench(self, *options: str, database: str = "tpcb") -> str:
        """Run pgbench, on its own database unless told another, and return what it printed."""
        command = [str(find_binaries() / "pgbench"), "-h", self.socket, "-U", "guanmo", *options, database]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout

    def count_deadlocks(self) -> int:
        """Return how many deadlocks the server has broken in the hub's database."""
        engine = create_engine(self.url)
        with engine.connect() as connection:
            query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            count = int(connection.execute(query).scalar_one())
        engine.dispose()
        return count


def _read_rate(printed: str) -> float:
    found = _TPS.search(printed)
    if found is None:
        raise RuntimeError(f"pgbench printed no rate: {printed}")
    return float(found[1])


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Yield a fresh cluster with the hub's tables, and pgbench's at scale 10."""
    with run_server(durable=True) as template:
        admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            for name in ("tpcb", "hub"):
                connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        cluster = Cluster(template.format(database="hub"), template.rpartition("host=")[2])
        cluster.pgbench("-i", "-q", "-s", str(SCALE))
        import_tables()
        engine = create_engine(cluster.url)
        with engine.begin() as connection:
            metadata.create_all(connection)
        engine.dispose()
        yield cluster
