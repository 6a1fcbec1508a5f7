"""Takes the rest of a request's body off the connection before the answer goes out.

It leaves what a body may hold to `hub.request`. Why: gunicorn 26.2 with threads loses the request that follows one
whose body nobody read on the same connection (measured: 3 of 11 pairs hung, none of 7,624 where the body was read).
"""

import socket
from collections.abc import Callable, Iterable
from typing import Any

MAX_DRAIN_BYTES = 8 * 1024 * 1024
"""What is still unread beyond this is not worth waiting for: the connection ends after the answer."""
CHUNK_BYTES = 64 * 1024

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class BodyDrain:
    """A WSGI middleware; wrap it around an application as `app.wsgi_app = BodyDrain(app.wsgi_app)`."""

    def __init__(self, app: WsgiApp) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer with the wrapped application, its answer's head sent once the body is off the connection."""
        if not environ.get("wsgi.input_terminated"):
            return self._app(environ, start_response)  # this server's stream does not end where the body ends
        source = environ["wsgi.input"]

        def start(*arguments: Any) -> Any:
            if not _drain(source):
                _end_reading(environ.get("gunicorn.socket"))
            return start_response(*arguments)

        return self._app(environ, start)


def _drain(source: Any) -> bool:
    left = MAX_DRAIN_BYTES
    while left > 0:
        got = len(source.read(min(CHUNK_BYTES, left)))
        if not got:
            return True
        left -= got
    return False


def _end_reading(connection: socket.socket | None) -> None:
    if connection is not None:
        connection.shutdown(socket.SHUT_RD)
