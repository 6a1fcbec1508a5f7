"""Folders that are being filled: locked while their process lives, removed when it fails or was killed.

It leaves what goes in, and the renaming to a final name, to `registry.store`.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".partial-"


@contextmanager
def open_partial(root: Path) -> Iterator[Path]:
    """Yield a new locked folder below `root`; whatever is left of it at the end is removed."""
    folder = root / f"{_PREFIX}{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        if folder.exists():
            _remove_folder(folder)
        os.close(descriptor)


def sweep_partials(root: Path) -> int:
    """Remove the folders whose process is gone and return how many; to be called when a process starts.

    What the pool began to download into the same store has a longer name; it goes on from there.
    """
    return sum(_remove_if_abandoned(folder) for folder in root.glob(_PREFIX + "[0-9a-f]" * 32))


def _remove_if_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_folder(folder)
    except (BlockingIOError, FileNotFoundError):
        # Somebody is still copying, or has just finished and renamed it.
        return False
    finally:
        os.close(descriptor)
    return True


def _remove_folder(folder: Path) -> None:
    folder.chmod(0o700)
    shutil.rmtree(folder)
