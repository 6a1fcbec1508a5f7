"""Run one program, watch it from a session of its own and write down how it ended; naming and reading is left to local.

Started as `python -I run.py RECORD` with the program's whole environment. It detaches, starts the program as leader of
another session, writes pid and start ticks into RECORD, and only then lets its starter go on; when the program ends,
it kills what is left of the program's process group, removes its folder for temporary files and writes RECORD's exit
file. Meanwhile it bounds the log. Stdlib only and not importing its own package, so that nothing in the program's
environment can break it.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

EXIT_SUFFIX = ".exit"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What tells a program to end, and its watcher to stay."""
_SWEEP_S = 10.0
_LOG_LOOK_S = 1.0


class Program(Protocol):
    """A started child of the watcher, leader of a session of its own."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def wait(self) -> int:
        """Return its exit code, negative for a signal."""


Start = Callable[[dict[str, Any], Path, int], Program]
"""Given the record, the program's folder for temporary files and its log's descriptor. Raises: OSError."""


def main(record_path: Path) -> int:
    """Detach a watcher and wait until it has started the program. Returns 0, or 1 with the reason on stderr."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.setsid()
        watch(record_path, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        problem = stream.read()
    sys.stderr.write(problem)
    return 1 if problem else 0


def write_atomically(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` by JSON through a synced temporary file: a reader sees the old text or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, ensure_ascii=False, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_start_ticks(pid: int) -> int | None:
    """Clock ticks from boot to the start of `pid`; None when it is gone or a zombie. Source: proc_pid_stat(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def read_group_ticks(group: int) -> int:
    """Clock ticks of processor time, user and system, of a group's running processes and of the children they outlived.

    Without the children the sum would fall when a compiler that an engine ran ends. Source: proc_pid_stat(5).
    """
    members = (fields for fields in _read_members(group) if fields[0] not in ("Z", "X"))
    return sum(sum(map(int, fields[11:15])) for fields in members)


def bound_log(path: Path, most_bytes: int) -> None:
    """Move a log that holds `most_bytes` to `<path>.1`, its newest part if it holds more.

    The program appends to the file itself: it is never held up, outlives whoever calls this, and goes on at the start
    of the emptied file. A line written between copy and emptying is lost, and on a full disk the whole part.
    """
    older = path.with_name(f"{path.name}.1")
    draft = path.with_name(f"{path.name}.draft")
    with contextlib.suppress(OSError):
        size = path.stat().st_size
        if size < most_bytes:
            return
        try:
            with path.open("rb") as log, draft.open("wb") as copy:
                log.seek(size - most_bytes)
                shutil.copyfileobj(log, copy)
            draft.replace(older)
        finally:
            draft.unlink(missing_ok=True)
            os.truncate(path, 0)


def watch(record_path: Path, writer: int, start: Start | None = None) -> None:
    """Start the program and see it end, with its folder for temporary files: a killed engine leaves sockets there.

    The watcher outlives its starter and the program's group, so an exit code is lost only with the host. What hinders a
    start is written to `writer`, which is closed once the program's pid is in the record.
    """
    for number in ENDING:
        signal.signal(number, _stay)  # a handler, not SIG_IGN: the program must not inherit it
    record = json.loads(record_path.read_text(encoding="utf-8"))
    try:
        program, scratch = _start_program(record, start or _start_anew)
    except OSError as error:
        os.write(writer, f"{error.strerror}: {error.filename or record['argv'][0]}".encode())
        return
    try:
        _note_program(record_path, record, program)
    except Exception as error:  # noqa: BLE001  whatever it was, nobody could find the program again
        _end_unknown(program)
        shutil.rmtree(scratch, ignore_errors=True)
        os.write(writer, f"its pid could not be noted: {type(error).__name__} {error}".encode())
        return
    os.close(writer)
    if record["log_bytes"] is not None:
        bounding = (Path(record["log_path"]), record["log_bytes"])
        threading.Thread(target=_keep_bounded, args=bounding, daemon=True).start()
    exit_code = _wait_and_sweep(program)
    shutil.rmtree(scratch, ignore_errors=True)
    if record_path.exists():
        write_atomically(
            record_path.with_suffix(EXIT_SUFFIX), {"exit_code": exit_code, "ended_us": time.time_ns() // 1000}
        )


def _start_program(record: dict[str, Any], start: Start) -> tuple[Program, Path]:
    log_path = Path(record["log_path"])
    log_path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="gm-"))  # short: the path of a socket has 107 bytes
    with log_path.open("ab") as log:
        try:
            program = start(record, scratch, log.fileno())
        except OSError:
            scratch.rmdir()
            raise
        for number in (1, 2):
            os.dup2(log.fileno(), number)  # let go of the starter's pipes; own last words go to the log
    return program, scratch


def _start_anew(record: dict[str, Any], scratch: Path, log: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        record["argv"],
        cwd=record["cwd"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _note_program(record_path: Path, record: dict[str, Any], program: Program) -> None:
    """Write pid and start ticks. Raises: OSError, also when the record is gone, because the start was given up."""
    watcher = {"watcher_pid": os.getpid(), "watcher_ticks": read_start_ticks(os.getpid())}
    record |= {"pid": program.pid, "start_ticks": read_start_ticks(program.pid) or 0} | watcher
    known = json.loads(record_path.read_text(encoding="utf-8"))  # writing would make a record that is gone anew
    if known["started_us"] != record["started_us"]:
        raise FileNotFoundError(f"{record_path} is of another start: this one was given up")
    write_atomically(record_path, record)


def _end_unknown(program: Program) -> None:
    os.kill(program.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # a fork that was so early had no group of its own
        _wait_and_sweep(program)


def _wait_and_sweep(program: Program) -> int:
    """Kill the rest of the group while the unreaped leader still keeps its number from being reused."""
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    deadline = time.monotonic() + _SWEEP_S
    os.killpg(program.pid, signal.SIGKILL)
    while _has_members(program.pid) and time.monotonic() < deadline:
        os.killpg(program.pid, signal.SIGKILL)
        time.sleep(0.01)
    return program.wait()


def _keep_bounded(path: Path, most_bytes: int) -> None:
    while True:
        bound_log(path, most_bytes)
        time.sleep(_LOG_LOOK_S)


def _has_members(group: int) -> bool:
    """Whether any process of the group still runs, zombies not counted."""
    return any(fields[0] not in ("Z", "X") for fields in _read_members(group))


def _read_members(group: int) -> Iterator[list[str]]:
    """Fields of `stat` after the name, of every process of the group."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group:
            yield fields


def _stay(_number: int, _frame: object) -> None:
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
