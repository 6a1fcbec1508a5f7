"""Runs a specification in a fork of the warm trainer, or cold where none answers: `ask_warm.py SOCKET SPEC OUT`.

Standard library only and started as a file, so that it is there in milliseconds. It stands for the trainer: its exit
code is the trainer's, signals that it gets are passed on, and when it is killed the kernel kills the trainer too.
"""

import json
import os
import signal
import socket
import sys

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_KILLED_EXIT = 137
_PID_BYTES = 4


def main(arguments: list[str]) -> int:
    """Exit code of the run, 137 when the trainer was killed."""
    path, spec, out = arguments
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
        pid = _hand_over(connection, spec, out)
    except (OSError, ConnectionError):
        os.execv(sys.executable, [sys.executable, "-P", "-m", "finetune", spec, out])  # noqa: S606 - same program
    for number in _PASSED_ON:
        signal.signal(number, lambda seen, _frame: os.kill(pid, seen))
    answer = connection.recv(1)
    return answer[0] if answer else _KILLED_EXIT


def _hand_over(connection: socket.socket, spec: str, out: str) -> int:
    """Send the run with our output streams; returns the trainer's pid."""
    request = json.dumps({"spec": spec, "out": out, "env": dict(os.environ), "cwd": os.getcwd()})
    socket.send_fds(connection, [request.encode()], [1, 2])
    found = connection.recv(_PID_BYTES)
    if len(found) < _PID_BYTES:
        raise ConnectionError
    return int.from_bytes(found, "big")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
