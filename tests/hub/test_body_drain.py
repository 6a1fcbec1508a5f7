"""The rest of a body is off the connection before the answer goes out, also under the real server."""

import io
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hub.body_drain import MAX_DRAIN_BYTES, BodyDrain

PAIRS = 60


def refuse_unread(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """An application that never looks at a body."""
    answer = environ["REQUEST_METHOD"].encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


drained = BodyDrain(refuse_unread)
"""What gunicorn serves below."""


@pytest.fixture
def server_port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    argv = ["gunicorn", "--no-control-socket", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "75"]
    server = subprocess.Popen([sys.executable, "-m", *argv, "--bind", f"127.0.0.1:{port}", f"{__name__}:drained"])
    try:
        wait_until_open(port)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_request_after_an_unread_body_is_answered(server_port: int) -> None:
    for _ in range(PAIRS):
        with socket.create_connection(("127.0.0.1", server_port), timeout=20) as line:
            # Head and body apart, as httpx and requests send them: so the body can still be on its way.
            line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n")
            line.sendall(b"x" * 20_000)
            assert read_answer(line) == b"POST"
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(line) == b"GET"


def read_answer(line: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        chunk = line.recv(4096)
        assert chunk
        got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        chunk = line.recv(4096)
        assert chunk
        body += chunk
    return body


def test_an_endless_body_is_left_and_its_connection_ends() -> None:
    body = io.BytesIO(b"x" * (MAX_DRAIN_BYTES + 1))
    here, there = socket.socketpair()
    with here, there:
        started: list[str] = []
        environ = {"REQUEST_METHOD": "POST", "wsgi.input": body, "wsgi.input_terminated": True, "gunicorn.socket": here}
        assert drained(environ, lambda status, _headers: started.append(status)) == [b"POST"]
        assert (started, body.tell(), here.recv(1)) == (["200 OK"], MAX_DRAIN_BYTES, b"")
