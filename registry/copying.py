"""Durable copying of plain files into a folder that is being filled.

It leaves naming, listing and renaming to `registry.store`.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from registry.artifacts import ArtifactRefusedError

_CHUNK_BYTES = 1 << 20
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENOENT, errno.EACCES, errno.ENXIO})


def copy_and_hash(src: Path, dst: Path) -> tuple[str, int]:
    """Copy one regular file, synced and read-only, and return (sha256, size in bytes) of what was written.

    Raises: ArtifactRefusedError for a link, a folder, a pipe or a missing file.
    """
    digest, size_bytes = hashlib.sha256(), 0
    descriptor = _open_regular(src)
    with open(descriptor, "rb") as source, dst.open("xb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            target.write(chunk)
        _seal(target)
    return digest.hexdigest(), size_bytes


def write_synced(dst: Path, content: bytes) -> None:
    """Write a new read-only file and sync it."""
    with dst.open("xb") as target:
        target.write(content)
        _seal(target)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_regular(src: Path) -> int:
    # O_NONBLOCK: opening a pipe must not hang; O_NOFOLLOW: a link may point anywhere.
    try:
        descriptor = os.open(src, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        raise _not_regular(src) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(src)
    return descriptor


def _seal(target: BinaryIO) -> None:
    target.flush()
    os.fchmod(target.fileno(), 0o444)
    os.fsync(target.fileno())


def _not_regular(src: Path) -> ArtifactRefusedError:
    return ArtifactRefusedError(
        f"{src.name} is not a readable plain file (links, folders and pipes are not taken). Copy it in with cp -L.",
        f"{src.name} 不是可读取的普通文件（不接受链接、文件夹、管道）。请用 cp -L 复制实际文件。",
        field=src.name,
    )
