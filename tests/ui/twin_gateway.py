"""A gateway's twin on a free port: `/v1/chat/completions` with the refusals that a page has to show."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class TwinGateway:
    """What was asked, and how many calls more are refused because the key has not arrived yet."""

    port: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    unknown_key_for: int = 0
    broken: bool = False
    holding: bool = False


@contextmanager
def run_gateway() -> Iterator[TwinGateway]:
    """Serve until the block ends."""
    twin = TwinGateway()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            twin.calls.append(body)
            twin.keys.append(self.headers["Authorization"])
            if twin.unknown_key_for > 0:
                twin.unknown_key_for -= 1
                self._refuse(401, "invalid_api_key", "the API key is not known")
            elif "missing" in body["model"]:
                self._refuse(404, "model_not_found", f"no model '{body['model']}'")
            else:
                self._stream(body["model"])

        def _refuse(self, status: int, code: str, message: str) -> None:
            answer = json.dumps({"error": {"code": code, "message": message}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _stream(self, model: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("x-ai-generated", "true")
            self.send_header("x-guanmo-filing", "DEMO-%E5%A4%87%E6%A1%88-0001")
            self.end_headers()
            if twin.holding:
                self.wfile.write(b": waiting for an engine\n\n" * 3)
                return
            for word in ("spindle ", "bearing ", "overheats", f" [{model.partition('/')[2]}]"):
                event = {"choices": [{"delta": {"content": word}}]}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if not twin.broken:
                self.wfile.write(b'data: {"choices": [], "usage": {"prompt_tokens": 5}}\n\ndata: [DONE]\n\n')

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    twin.port = server.server_port
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield twin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
