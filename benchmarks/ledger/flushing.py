"""How long this machine's disk takes to flush what was written; making it longer is left to those who measure."""

import os
import statistics
import time
from pathlib import Path

PAGE = bytes(8192)
TIMES = 400


def measure_ms(folder: Path) -> float:
    """Return the median milliseconds of writing a page at the end of a file and flushing it."""
    took = []
    fd = os.open(folder / "flush", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(TIMES):
            began = time.perf_counter()
            os.write(fd, PAGE)
            os.fdatasync(fd)
            took.append(time.perf_counter() - began)
    finally:
        os.close(fd)
        os.unlink(folder / "flush")
    return 1000 * statistics.median(took)
