"""A process with the training libraries imported that forks one trainer per request: `python -m finetune.warm SOCKET`.

Leaves the run itself to `finetune.__main__`, and asking for one to `finetune.ask_warm`. It never opens a parallel
region itself, so a fork finds no half-dead threads.
"""

import contextlib
import fcntl
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.run import leave_out_unused

_MODULES = (
    "torch",
    "safetensors.torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.llama.modeling_llama",
    "peft",
    "finetune.artifact",
    "finetune.prepare",
    "finetune.rate_probe",
    "finetune.train",
    "finetune.run",
)
_REQUEST_BYTES = 1 << 20
_STREAMS = 2


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM; returns 2 for wrong usage."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m finetune.warm SOCKET\n")
        return 2
    path = Path(arguments[0])
    leave_out_unused()
    for module in _MODULES:
        importlib.import_module(module)
    from finetune.__main__ import run_confined

    return serve(path, run_confined)


def serve(path: Path, run_spec: Callable[[list[str]], int]) -> int:
    """Fork for each request at the socket `path` until SIGTERM; a fork exits with what `run_spec` returns."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for a trainer: its asker does
    with listen(path) as listener:
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(_run_guarded(connection, run_spec))
            connection.close()


def listen(path: Path) -> socket.socket:
    """The listening socket at `path`, for this user only; a stale one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(draft))
    draft.chmod(0o600)
    listener.listen()
    draft.replace(path)  # an asker finds a socket that listens already, or none
    return listener


def _run_guarded(connection: socket.socket, run_spec: Callable[[list[str]], int]) -> int:
    """Exit code of the run, sent to the asker too; whatever goes wrong here ends this child alone."""
    exit_code = 1
    try:
        exit_code = _run(connection, run_spec)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        with contextlib.suppress(OSError):
            connection.send(bytes([exit_code]))
    return exit_code


def _run(connection: socket.socket, run_spec: Callable[[list[str]], int]) -> int:
    message, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, _STREAMS)
    request: dict[str, Any] = json.loads(message)
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for stream, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    connection.send(os.getpid().to_bytes(4, "big"))
    _die_with_asker(connection)
    return run_spec([request["spec"], request["out"]])


def _die_with_asker(connection: socket.socket) -> None:
    """The kernel kills this process as soon as the asker is gone: a fenced name can do nothing any more."""
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
