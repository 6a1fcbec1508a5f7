"""`guanmo up` with stand-ins instead of the marketplace: keep_up.py HOME PORT well|starting.

With `starting` one of them never answers. Who interrupts it is left to the test.
"""

import sys
from dataclasses import replace
from pathlib import Path

from hub.cli.processes import Process
from hub.cli.running import keep_up
from hub.settings import Settings


def main() -> None:
    """Start and stay, as `guanmo up` does."""
    home, port, moment = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    command = [sys.executable, "-S", str(Path(__file__).parent / "stand_in.py")]
    answering = Process("hub", [*command, "hub", str(home), str(port)], f"http://127.0.0.1:{port}/", port)
    worker = Process("worker", [*command, "worker", str(home)], "", None)
    silent = replace(worker, health_url="http://127.0.0.1:9/")
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'hub.sqlite3'}", hub_port=port)
    keep_up(settings, [answering, worker if moment == "well" else silent])


if __name__ == "__main__":
    main()
