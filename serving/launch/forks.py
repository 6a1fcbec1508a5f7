"""The side of `loaded` in the loaded program: it forks itself for each request and is in the fork what was asked for.

It leaves records and watching to `run`, loading and the program's own work to its caller. Stdlib only.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from serving.launch import run

REQUEST_BYTES = 1 << 17


def serve(channel: socket.socket) -> None:
    """Fork for each request until the other end of `channel` is gone, then exit; returns in forked programs only.

    There arguments, environment, folder and output are what was asked for. Nothing may have started a thread before.
    A channel that `listen`s has no other end and goes on for good.
    """
    gc.collect()
    gc.freeze()  # what is loaded stays shared with every fork
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 1)
        if not message:
            os._exit(0)  # nothing is open, and libraries would report what they never let go of
        is_awaited = _is_awaited(*descriptors)
        if is_awaited and os.fork() == 0:
            channel.close()
            if _is_program(json.loads(message), *descriptors):
                return
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        if is_awaited:
            os.wait()


def listen(path: Path) -> socket.socket:
    """Return a channel at the socket `path`, for any process of this user's; a stale one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # whole messages, and no asker keeps another waiting
    channel.bind(str(draft))
    draft.chmod(0o600)
    draft.replace(path)  # an asker finds a socket for this user alone, or none
    return channel


def _is_awaited(writer: int) -> bool:
    """Whether the asker still reads what becomes of its request: one that is gone has given the start up."""
    poll = select.poll()
    poll.register(writer, 0)  # POLLERR, told when the other end is closed, need not be asked for
    return not poll.poll(0)


def _is_program(request: dict[str, Any], writer: int) -> bool:
    """Detach a watcher as `run.main` does. True in the program that it forked."""
    try:
        if os.fork() == 0:
            os.setsid()
            run.watch(Path(request["record"]), writer, partial(_fork, request, writer))
    except _ForkedError:
        return True
    except BaseException:  # noqa: BLE001  a watcher ends here, whatever happened to it
        traceback.print_exc()
    return False


def _fork(request: dict[str, Any], writer: int, _record: dict[str, Any], scratch: Path, log: int) -> "_Fork":
    os.chdir(request["cwd"])  # here, where a failure is still told
    before = signal.pthread_sigmask(signal.SIG_BLOCK, run.ENDING)  # the watcher's handlers would swallow the program's
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Fork(pid)
    os.setsid()
    os.close(writer)
    for number in run.ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    null = os.open(os.devnull, os.O_RDONLY)
    for stream, descriptor in enumerate((null, log, log)):
        os.dup2(descriptor, stream)
    os.close(null)
    os.environ.clear()
    os.environ.update(request["env"], TMPDIR=str(scratch))
    tempfile.tempdir = None  # it was found in another environment
    sys.argv = request["argv"]
    raise _ForkedError


class _ForkedError(BaseException):
    """Unwinds a watcher's frames in the program that it forked."""


class _Fork:
    """A forked child, waited for as one of `subprocess`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        """Return its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
