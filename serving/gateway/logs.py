"""Whether each call has a log line; how lines look is left to `serving.logs`."""

from __future__ import annotations

import logging

from serving.logs import write_json_lines

CALLS = "serving.calls"


def configure_logs(*, calls: bool) -> None:
    """Write JSON lines to standard error, one for each call if `calls`."""
    write_json_lines()
    logging.getLogger(CALLS).setLevel(logging.INFO if calls else logging.WARNING)
