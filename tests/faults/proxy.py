"""A socket between client and PostgreSQL that passes everything on and, when told, swallows the reply to a COMMIT."""

import socket
import threading
from contextlib import suppress
from pathlib import Path


class CuttingProxy:
    """`armed` cuts the next connection after the server has answered its COMMIT; the client never hears of it."""

    def __init__(self, server: Path, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.armed, self.cuts = folder, False, 0
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                cut = threading.Event()
                for source, target, outward in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, cut, outward), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, cut: threading.Event, outward: bool) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                if outward and self.armed and b"COMMIT" in block:
                    self.armed = False
                    cut.set()
                if not outward and cut.is_set():
                    self.cuts += 1
                    break
                target.sendall(block)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
