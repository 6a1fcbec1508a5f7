"""What an immutable artefact is: its files, their sums, and the digest that names it.

It leaves where artefacts lie to `registry.store`, and what they mean to the upload gates.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.errors import RegistryError

SUMS_NAME = "SHA256SUMS"
# Plain names only: coreutils escapes other characters, and no store key may carry a path.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


class ArtifactRefusedError(RegistryError):
    """The folder, the name or the listing is not one of an artefact."""

    code = "artifact_refused"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One immutable folder: `digest` = sha256 of its SHA256SUMS file; `files` maps name to sha256."""

    digest: str
    files: Mapping[str, str]
    size_bytes: int


def format_sums(files: Mapping[str, str]) -> bytes:
    """Return the SHA256SUMS file of `files`, sorted by name, as `sha256sum` of coreutils writes it."""
    return "".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode("ascii")


def parse_sums(raw: bytes) -> dict[str, str]:
    """Return name -> sha256 of a SHA256SUMS file.

    Raises: ArtifactRefusedError unless it is exactly what `format_sums` writes.
    """
    matches = [_SUMS_LINE.fullmatch(line) for line in raw.decode("ascii", errors="replace").splitlines()]
    files = {match[2]: match[1] for match in matches if match}
    if format_sums(files) != raw:
        raise ArtifactRefusedError(
            f"{SUMS_NAME} is not a sorted list of '<sha256>  <name>' lines. Write it again with sha256sum.",
            f"{SUMS_NAME} 不是按文件名排序的“<sha256>  <文件名>”列表。请用 sha256sum 重新生成。",
            field=SUMS_NAME,
        )
    return files


def digest_of_sums(raw: bytes) -> str:
    """Return the artefact digest that belongs to the bytes of a SHA256SUMS file."""
    return hashlib.sha256(raw).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of one file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_file_name(name: str) -> str:
    """Return `name` if an artefact may hold a file of that name.

    Raises: ArtifactRefusedError.
    """
    if not _FILE_NAME.fullmatch(name) or name == SUMS_NAME:
        raise ArtifactRefusedError(
            f"File name {name[:80]!r} is not allowed: letters, digits, '.', '_' and '-' only, at most 128, "
            f"not starting with a dot, and not {SUMS_NAME}. Rename the file.",
            f"文件名 {name[:80]!r} 不允许：只能用字母、数字、“.”“_”“-”，最多 128 个字符，"
            f"不以点开头，也不能是 {SUMS_NAME}。请改名。",
            field=name[:80],
        )
    return name


def check_digest(digest: str) -> str:
    """Return `digest` if it is 64 lower-case hex digits.

    Raises: ArtifactRefusedError.
    """
    if not _DIGEST.fullmatch(digest):
        raise ArtifactRefusedError(
            f"Digest {digest[:80]!r} is not 64 lower-case hex digits. Copy it from the version's page.",
            f"摘要 {digest[:80]!r} 不是 64 位小写十六进制。请从版本页面复制。",
            field="digest",
        )
    return digest
