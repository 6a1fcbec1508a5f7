"""How much engines may write: two files each, and those of the engines that ended last; turning is left to launch."""

from collections.abc import Collection
from pathlib import Path

LOG_BYTES = 16 * 2**20
"""Of each of an engine's two files, the current one and the one before."""
KEPT_LOGS = 20
"""Of engines that ended, newest first."""
LOADED_LOG = "loaded.log"
"""What the loaded vLLM says from which engines are forked; no engine's."""


def drop_old_logs(folder: Path, *, in_use: Collection[Path]) -> None:
    """Remove logs of engines that ended long ago; one still written to would only become invisible."""
    ended = [path for path in folder.glob("*.log") if path not in in_use and path.name != LOADED_LOG]
    for path in sorted(ended, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_LOGS:]:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.1").unlink(missing_ok=True)
