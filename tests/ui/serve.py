"""Serves the tests' marketplace beside a gateway's twin for a look: `python -m tests.ui.serve FOLDER PORT`.

Templates reload; the clock stands still.
"""

import shutil
import sys
from pathlib import Path

from werkzeug.serving import run_simple

from tests.ui.twin_gateway import run_gateway
from tests.ui.world import build_world, mark_ready


def main(folder: Path, port: int) -> None:
    """Serve on loopback until interrupted; `folder` is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with run_gateway() as twin:
        world = build_world(folder, gateway_port=twin.port)
        mark_ready(world, "orders", "integrator")
        world.app.config["TEMPLATES_AUTO_RELOAD"] = True
        run_simple("127.0.0.1", port, world.app, threaded=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
