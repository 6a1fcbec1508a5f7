"""Copy and verify immutable folders by digest; fetching them over the network is left to `remote_artifacts`.

A folder's digest is the sha256 of its `SHA256SUMS` (coreutils format), so that anyone can check it without this code.
"""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from serving.pool.drafts import hold_copy
from serving.pool.errors import ArtifactError

SUMS_NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")


def is_remote(uri: str) -> bool:
    """Whether it has to be fetched over the network before it is a folder here."""
    return uri.lower().startswith(("https://", "http://"))


def folder_of(uri: str) -> Path:
    """The folder of a `file://` URI. Raises: ArtifactError for any other scheme, host or a relative path."""
    wanted = "is not a file:///absolute/folder URI of this node or https://host/folder"
    try:
        parts, shown = urlsplit(uri), show_uri(uri)
    except ValueError:
        raise ArtifactError("unsupported_uri", f"the artifact's URI cannot be read; it {wanted}") from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ArtifactError("unsupported_uri", f"{shown!r} {wanted}")
    return Path(unquote(parts.path))


def show_uri(uri: str) -> str:
    """Scheme, host and path: what goes before and behind may be a secret. Raises: ValueError when it is no URI."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def fetch_artifact(uri: str, digest: str, store: Path) -> Path:
    """Return the verified folder `<store>/<digest>`, copying listed files there first when `uri` is elsewhere.

    Idempotent and safe against a crash: copies appear under their digest only when whole and verified.
    Raises: ArtifactError.
    """
    source, target = folder_of(uri), store / digest
    if not target.exists():
        if not source.is_dir():
            raise ArtifactError("artifact_missing", f"no folder {source}; publish the artifact or correct its URI")
        store.mkdir(parents=True, exist_ok=True)
        _copy_verified(source, digest, target)
        return target
    verify_folder(target, digest)
    return target


def verify_base(uri: str, digest: str) -> Path:
    """Return the base folder, verified by digest where it carries `SHA256SUMS`. Raises: ArtifactError."""
    folder = folder_of(uri)
    if not (folder / "config.json").is_file():
        raise ArtifactError("artifact_missing", f"{folder} holds no config.json; import the base again")
    if (folder / SUMS_NAME).exists():
        verify_folder(folder, digest)
    return folder


def verify_folder(folder: Path, digest: str) -> None:
    """Compare the folder with its digest, file by file. Raises: ArtifactError naming the first that differs."""
    for name, wanted in read_sums(folder, digest).items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError("artifact_incomplete", f"{folder} lacks {name}; fetch it again from its source")
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ArtifactError("artifact_unreadable", f"{path}: {error.strerror}") from error
        if found != wanted:
            raise ArtifactError("digest_mismatch", f"{path} has sha256 {found}, its {SUMS_NAME} says {wanted}")


def read_sums(folder: Path, digest: str) -> dict[str, str]:
    """Return the sha256 of each listed file by name. Raises: ArtifactError when the list is not what `digest` says."""
    try:
        raw = (folder / SUMS_NAME).read_bytes()
    except FileNotFoundError:
        raise ArtifactError("artifact_incomplete", f"{folder} has no {SUMS_NAME}; it is not an artifact") from None
    found = hashlib.sha256(raw).hexdigest()
    if found != digest:
        raise ArtifactError("digest_mismatch", f"{folder / SUMS_NAME} has sha256 {found}, wanted {digest}")
    sums: dict[str, str] = {}
    for line in _decode(raw, folder).splitlines():
        match = _LINE.fullmatch(line)
        if match is None or not _is_inside(match[2]):
            raise ArtifactError("bad_sums_line", f"{folder / SUMS_NAME} has the line {line!r:.120}")
        sums[match[2]] = match[1]
    return sums


def _decode(raw: bytes, folder: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        text = f"{folder / SUMS_NAME} is no UTF-8 at byte {error.start}; publish it again"
        raise ArtifactError("bad_sums_line", text) from None


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _copy_verified(source: Path, digest: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{digest[:12]}-", dir=target.parent) as scratch, hold_copy(Path(scratch)):
        draft = Path(scratch) / "artifact"
        draft.mkdir()
        for name in [SUMS_NAME, *read_sums(source, digest)]:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            if not (source / name).is_file():
                raise ArtifactError("artifact_incomplete", f"{source} lacks {name}; publish it again")
            shutil.copyfile(source / name, draft / name)
        verify_folder(draft, digest)
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():
                raise
            verify_folder(target, digest)  # another process put the same artifact there first
