"""A tiny process for supervision tests: writes its pid and that of a child (`trainer`: of its group), then serves.

python stand_in.py NAME FOLDER [PORT]; without a port it only sleeps. What is done with the pids is left to the tests.
"""

import http.server
import os
import subprocess
import sys
import time
from pathlib import Path


class Answer(http.server.BaseHTTPRequestHandler):
    """200 to every address, quietly."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    """Run until killed."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    # A launched process has no supervisor's mark; its children are known by its process group.
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=name != "trainer"
    )
    with (folder / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n{child.pid}\n")
    print(f"{name} began", flush=True)  # noqa: T201  its log
    if len(sys.argv) > 3:
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Answer).serve_forever()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
