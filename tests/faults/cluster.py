"""A private PostgreSQL that can be crashed and started again, and databases copied from a pattern inside it.

It leaves finding the binaries and the user to `tests.hub.money.postgres`.
"""

import os
import shutil
import signal
import tempfile
from itertools import count
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests.hub.money.postgres import _choose_user, _run, find_binaries


class Cluster:
    """One server on a Unix socket. `durable` keeps fsync on and its files on disk, as a crash test must."""

    def __init__(self, *, durable: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="guanmo-pg-", dir="/tmp" if durable else None)
        self.home = Path(self._folder.name)
        self._user, self._binaries, self._serial = _choose_user(), find_binaries(), count()
        self._admins: dict[int, psycopg.Connection] = {}
        if self._user is not None:
            shutil.chown(self.home, self._user)
        made = [self._binaries / "initdb", "-D", self._data, "-U", "guanmo", "-A", "trust", "-E", "UTF8"]
        _run(self._user, *made, "--wal-segsize=1", *(() if durable else ("--no-sync",)))
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
        name = f"fault_{os.getpid()}_{next(self._serial)}"
        # Files are copied as they are, which takes half as long as writing their content to the log.
        self._administer(f"CREATE DATABASE {name} TEMPLATE {pattern} STRATEGY FILE_COPY")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database that nobody needs any more."""
        self._administer(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def _administer(self, statement: str) -> None:
        """Run a statement on a connection that this process keeps: making one takes longer than the statement."""
        # A parent's connection stays in the dictionary, because letting go of it would end it for the parent too.
        if os.getpid() not in self._admins:
            self._admins[os.getpid()] = psycopg.connect(
                host=str(self.home), user="guanmo", dbname="postgres", autocommit=True
            )
        self._admins[os.getpid()].execute(statement.encode())

    def start(self, *, file_limit_bytes: int | None = None) -> None:
        """Start, recovering from whatever happened before; with a limit no file grows beyond it: the disk is full."""
        control = self._binaries / "pg_ctl"
        command: list[object] = [control, "-D", self._data, "-w", "-l", self.home / "log", "-o", self._options]
        if file_limit_bytes is not None:
            command = ["sh", "-c", f'ulimit -f {file_limit_bytes // 512}; exec "$@"', "sh", *command]
        _run(self._user, *command, "start")

    def crash(self, *, kill: bool) -> None:
        """SIGKILL the server with all its processes, or shut down at once without a checkpoint."""
        admin = self._admins.pop(os.getpid(), None)
        if admin is not None:
            admin.close()
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
