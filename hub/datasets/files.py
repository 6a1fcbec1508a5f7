"""Uploaded files on disk: `<home>/datasets/<organisation_id>/<digest>/source.<format>`, written once, then read-only.

It leaves rows to the database and their content to the trainer's check.
"""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from finetune.spec import SourceFormat
from hub.datasets.rules import MAX_UPLOAD_BYTES, too_large
from hub.errors import GuanmoError, InvalidValueError

_BLOCK_BYTES = 1024 * 1024
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(GuanmoError):
    """The disk took no more bytes; nothing of the upload stays behind."""

    code = "disk_full"
    status = 507


@dataclass(frozen=True)
class StoredFile:
    """An upload as it lies on disk."""

    digest: str
    size_bytes: int


def locate_folder(home: Path, organisation_id: str, digest: str) -> Path:
    """Return the folder of one upload and of everything derived from it."""
    return home / "datasets" / organisation_id / digest


def locate_source(home: Path, organisation_id: str, digest: str, source_format: SourceFormat) -> Path:
    """Return the uploaded file's path."""
    return locate_folder(home, organisation_id, digest) / f"source.{source_format}"


def store_upload(home: Path, organisation_id: str, stream: BinaryIO, source_format: SourceFormat) -> StoredFile:
    """Write an upload under the sha256 of its bytes; the same bytes again change nothing.

    Raises:
        InvalidValueError: empty, or above MAX_UPLOAD_BYTES.
        DiskFullError: no space; the partial file is gone.
    """
    root = home / "datasets" / organisation_id
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = root / f".partial-{uuid.uuid4().hex}"
    try:
        stored = _write_and_hash(partial, stream)
        target = locate_source(home, organisation_id, stored.digest, source_format)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        partial.chmod(0o400)
        partial.replace(target)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _disk_full(root) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
    return stored


def locate_removable(
    home: Path, organisation_id: str, digest: str, version_id: str, *, keeps_upload: bool
) -> Sequence[Path]:
    """Return the folders that go with a version: its upload's with all in it, or only what was derived for it."""
    folder = locate_folder(home, organisation_id, digest)
    return sorted(folder.glob(f"*-{version_id}-*")) if keeps_upload else [folder]


def digest_text(text: str) -> str:
    """Return the sha256 of UTF-8 text as lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _write_and_hash(partial: Path, stream: BinaryIO) -> StoredFile:
    found, size_bytes = hashlib.sha256(), 0
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        while block := stream.read(_BLOCK_BYTES):
            size_bytes += len(block)
            if size_bytes > MAX_UPLOAD_BYTES:
                raise too_large(MAX_UPLOAD_BYTES)
            found.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    if size_bytes == 0:
        raise InvalidValueError(
            "The file is empty (0 bytes). Choose a file with at least 10 rows.",
            "文件为空（0 字节）。请选择至少含 10 行的文件。",
            field="file",
        )
    return StoredFile(found.hexdigest(), size_bytes)


def _disk_full(root: Path) -> DiskFullError:
    free_bytes = shutil.disk_usage(root).free
    return DiskFullError(
        f"The disk is full ({free_bytes} bytes free). Nothing was stored; ask your operator to free space, then retry.",
        f"磁盘空间不足（剩余 {free_bytes} 字节）。未保存任何内容，请联系运营方清理后重试。",
    )
