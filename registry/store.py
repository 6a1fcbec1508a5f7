"""The artefact store as a folder: each artefact lies, read-only, at <root>/<digest>/.

It leaves what may go in to the upload gates; object storage will be a second store of the same shape.
"""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from registry.artifacts import (
    SUMS_NAME,
    Artifact,
    ArtifactRefusedError,
    check_digest,
    check_file_name,
    digest_of_sums,
    format_sums,
    hash_file,
    parse_sums,
)
from registry.copying import copy_and_hash, sync_folder, write_synced
from registry.errors import RegistryError
from registry.partials import open_partial, sweep_partials

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ArtifactMissingError(RegistryError):
    """The store holds no artefact, or no file, of that name."""

    code = "artifact_missing"


class ArtifactCorruptError(RegistryError):
    """The bytes on disk are not those of the digest."""

    code = "artifact_corrupt"


class StoreFullError(RegistryError):
    """The disk took no more bytes; nothing of the artefact stays behind."""

    code = "store_full"


class FolderStore:
    """Immutable artefacts below one folder; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        """Name the folder; it is created by the first `add_folder`."""
        self.root = root.absolute()

    def add_folder(self, src: Path, names: Iterable[str] | None = None) -> Artifact:
        """Copy the files `names` (default: all) of `src` in; the same content again changes nothing.

        A SHA256SUMS file in `src` is not copied but, where all files are taken, must agree with what was copied.
        Raises: ArtifactRefusedError, StoreFullError.
        """
        wanted = sorted({check_file_name(name) for name in (_list_names(src) if names is None else names)})
        if not wanted:
            raise ArtifactRefusedError(
                f"Folder {src.name} holds no file. Name a folder with the artefact's files.",
                f"文件夹 {src.name} 中没有文件。请指定含有模型文件的文件夹。",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with open_partial(self.root) as partial:
                return self._fill_and_rename(partial, src, wanted=wanted, check_listing=names is None)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _store_full(self.root, src) from error
            raise

    def path(self, digest: str) -> Path:
        """Return the artefact's folder. Raises: ArtifactMissingError."""
        folder = self.root / check_digest(digest)
        if not folder.is_dir():
            raise ArtifactMissingError(
                f"The store holds no artefact {digest}. Upload it again, or restore the store from its backup.",
                f"存储中没有 {digest}。请重新上传，或从备份恢复。",
                field=digest,
            )
        return folder

    def uri(self, digest: str) -> str:
        """Return the artefact's `file://` address. Raises: ArtifactMissingError."""
        return self.path(digest).as_uri()

    def get(self, digest: str) -> Artifact:
        """Return what the listing says, without hashing the files.

        Raises: ArtifactMissingError, ArtifactCorruptError.
        """
        folder = self.path(digest)
        sums = folder / SUMS_NAME
        raw = sums.read_bytes() if sums.is_file() else b""
        if digest_of_sums(raw) != digest:
            raise _corrupt(digest, SUMS_NAME)
        files = parse_sums(raw)
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise _corrupt(digest, missing[0])
        return Artifact(digest, files, sum((folder / name).stat().st_size for name in files))

    def verify(self, digest: str) -> Artifact:
        """Hash every file again.

        Raises: ArtifactMissingError, ArtifactCorruptError naming the first bad or extra file.
        """
        artifact = self.get(digest)
        folder = self.path(digest)
        extra = {entry.name for entry in folder.iterdir()} - set(artifact.files) - {SUMS_NAME}
        bad = [name for name in sorted(artifact.files) if hash_file(folder / name) != artifact.files[name]]
        for name in [*bad, *sorted(extra)]:
            raise _corrupt(digest, name)
        return artifact

    def open(self, digest: str, name: str) -> BinaryIO:
        """Return one file of the artefact, opened for reading. Raises: ArtifactMissingError."""
        file = self.path(digest) / check_file_name(name)
        if not file.is_file():
            raise ArtifactMissingError(
                f"Artefact {digest} has no file {name}. Its files stand in {SUMS_NAME}.",
                f"{digest} 中没有文件 {name}。文件清单见 {SUMS_NAME}。",
                field=name,
            )
        return file.open("rb")

    def sweep_partials(self) -> int:
        """Remove what killed copies left and return how many; copies still running hold a lock and stay."""
        return sweep_partials(self.root)

    def _fill_and_rename(self, partial: Path, src: Path, *, wanted: list[str], check_listing: bool) -> Artifact:
        copied = {name: copy_and_hash(src / name, partial / name) for name in wanted}
        sums = format_sums({name: digest for name, (digest, _) in copied.items()})
        if check_listing:
            _check_against_source(src, sums)
        write_synced(partial / SUMS_NAME, sums)
        artifact = Artifact(
            digest_of_sums(sums),
            {name: digest for name, (digest, _) in copied.items()},
            sum(size_bytes for _, size_bytes in copied.values()),
        )
        self._publish(partial, artifact.digest)
        return artifact

    def _publish(self, partial: Path, digest: str) -> None:
        target = self.root / digest
        if target.is_dir():
            return
        partial.chmod(0o555)
        sync_folder(partial)
        try:
            partial.rename(target)
        except OSError as error:
            # Another process finished the same content first: its copy stands.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        sync_folder(self.root)


def _list_names(src: Path) -> list[str]:
    if not src.is_dir():
        raise ArtifactRefusedError(
            f"{src.name} is not a folder. Name the folder that holds the files.",
            f"{src.name} 不是文件夹。请指定存放文件的文件夹。",
        )
    return [entry.name for entry in src.iterdir() if entry.name != SUMS_NAME]


def _check_against_source(src: Path, sums: bytes) -> None:
    listing = src / SUMS_NAME
    if not listing.is_file():
        return
    stated, copied = parse_sums(listing.read_bytes()), parse_sums(sums)
    wrong = sorted(name for name in stated.keys() | copied.keys() if stated.get(name) != copied.get(name))
    if wrong:
        raise ArtifactRefusedError(
            f"File {wrong[0]} does not agree with the {SUMS_NAME} beside it ({len(wrong)} in all). "
            "Write the folder again.",
            f"文件 {wrong[0]} 与同目录的 {SUMS_NAME} 不一致（共 {len(wrong)} 个）。请重新生成该文件夹。",
            field=wrong[0],
        )


def _corrupt(digest: str, name: str) -> ArtifactCorruptError:
    return ArtifactCorruptError(
        f"File {name} of artefact {digest} is not what its digest says. Quarantine the version and restore the file.",
        f"{digest} 的文件 {name} 与摘要不符。请隔离该版本并恢复文件。",
        field=name,
    )


def _store_full(root: Path, src: Path) -> StoreFullError:
    need_bytes = sum(entry.stat().st_size for entry in src.iterdir() if entry.is_file())
    free_bytes = shutil.disk_usage(root).free
    return StoreFullError(
        f"The store could not take {src.name} ({need_bytes} bytes, {free_bytes} free). Free disk space and try again.",
        f"存储空间不足：{src.name} 需要 {need_bytes} 字节，剩余 {free_bytes} 字节。请清理磁盘后重试。",
    )
