"""A private PostgreSQL that can be crashed and started again, and databases copied from a pattern inside it.

It leaves finding the binaries and the user to `tests.hub.money.postgres`.
"""

import os
import shutil
import signal
import tempfile
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from tests.hub.money.postgres import _choose_user, _run, find_binaries


class Cluster:
    """One server on a Unix socket. `durable` keeps fsync on, as a crash test must."""

    def __init__(self, *, durable: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="guanmo-pg-", dir="/tmp")
        self.home = Path(self._folder.name)
        self._user, self._binaries, self._serial = _choose_user(), find_binaries(), count()
        if self._user is not None:
            shutil.chown(self.home, self._user)
        _run(self._user, self._binaries / "initdb", "-D", self._data, "-U", "guanmo", "-A", "trust", "-E", "UTF8")
        self._options = f"-c listen_addresses='' -c unix_socket_directories={self.home} -c max_connections=80"
        self._options += "" if durable else " -c fsync=off"
        self.start()

    @property
    def _data(self) -> Path:
        return self.home / "data"

    def url(self, database: str) -> str:
        """Return the URL of a database of this server."""
        return f"postgresql+psycopg://guanmo@/{database}?host={self.home}"

    def create(self, pattern: str = "template1") -> str:
        """Return the URL of a new database that begins as a copy of `pattern`."""
        name = f"fault_{next(self._serial)}"
        admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {pattern}"))
        admin.dispose()
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database that nobody needs any more."""
        admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {make_url(url).database} WITH (FORCE)"))
        admin.dispose()

    def start(self) -> None:
        """Start, recovering from whatever happened before."""
        control = self._binaries / "pg_ctl"
        _run(self._user, control, "-D", self._data, "-w", "-l", self.home / "log", "-o", self._options, "start")

    def crash(self, *, kill: bool) -> None:
        """SIGKILL the server with all its processes, or shut down at once without a checkpoint."""
        if not kill:
            _run(self._user, self._binaries / "pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")
            return
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in (postmaster, *map(int, children)):
            _kill(process)
        for process in (postmaster, *map(int, children)):
            _wait_gone(process)
        # Where nobody reaps the dead, their numbers look alive to the next server: it would refuse to start.
        for lock in (self._data / "postmaster.pid", self.home / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop and remove everything."""
        self.crash(kill=False)
        self._folder.cleanup()


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_gone(process: int) -> None:
    """Wait until a killed process is gone; one that nobody has waited for yet counts as gone too."""
    stat = Path(f"/proc/{process}/stat")
    while True:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
