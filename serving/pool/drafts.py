"""Folders of the store that are being filled: who fills one holds its lock; what nobody fills or wants is swept.

It leaves what goes in to `artifacts` and `remote_artifacts`. The hub keeps drafts of its own in the same store, under
other names; they are left to it.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

_DOWNLOAD = re.compile(r"\.partial-([0-9a-f]{64})")
_COPY = re.compile(r"\.[0-9a-f]{12}-\w+")
_NEW_S = 60.0
"""Between a folder's making and its locking somebody may look at it."""
_PAUSE_S = 0.5
_log = logging.getLogger(__name__)


def draft_of(store: Path, digest: str) -> Path:
    """Where a download is filled; it goes on there after a break."""
    return store / f".partial-{digest}"


@contextlib.asynccontextmanager
async def hold_draft(draft: Path) -> AsyncIterator[None]:
    """Make the folder of a download and keep it to ourselves; another process that fills it is waited for."""
    while (lock := _take(draft)) is None:
        await asyncio.sleep(_PAUSE_S)
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def hold_copy(scratch: Path) -> Iterator[None]:
    """Keep a folder that nobody else fills from being swept."""
    lock = os.open(scratch, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # where folders cannot be locked nothing is swept either
            fcntl.flock(lock, fcntl.LOCK_EX)  # a sweeper that looks at it lets go at once
        yield
    finally:
        os.close(lock)


def sweep_drafts(store: Path, wanted: Collection[str]) -> int:
    """Remove downloads of digests not in `wanted`, and copies, that nobody fills any more; returns how many."""
    if not store.is_dir():
        return 0
    return sum(_remove_if_left(folder) for folder in store.iterdir() if _is_leftover(folder.name, wanted))


def _take(draft: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, None where another has it or sweeps it this moment."""
    draft.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(draft, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        return lock  # some network file systems lock no folders; nothing is swept there either
    if _is_at(lock, draft):
        return lock
    os.close(lock)
    return None


def _is_leftover(name: str, wanted: Collection[str]) -> bool:
    download = _DOWNLOAD.fullmatch(name)
    return download[1] not in wanted if download else _COPY.fullmatch(name) is not None


def _remove_if_left(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False  # it was renamed or swept meanwhile, or is no folder
    try:
        if not _is_free(lock) or time.time() - _touched_at(folder) < _NEW_S or not _is_at(lock, folder):
            return False
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False  # somebody else sweeps it
    except OSError as error:
        _log.warning("what is left of a download stays: %s; remove %s by hand", error, folder.name)
        return False
    finally:
        os.close(lock)
    _log.info("%s is removed: nobody wants it any more", folder.name)
    return True


def _is_free(lock: int) -> bool:
    """Lock it if nobody has. Where folders cannot be locked nothing counts as free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _touched_at(folder: Path) -> float:
    """When anything in it was last written: on some network file systems another host's lock is not seen."""
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _is_at(lock: int, folder: Path) -> bool:
    """Whether what is locked still has this name: it may have been renamed or removed before we had the lock."""
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False
