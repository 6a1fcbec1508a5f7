"""Keeps the evidence document of a filing in the artefact store. It leaves who may read it to `api`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from werkzeug.datastructures import FileStorage

from hub.errors import NotFoundError
from hub.filings.forms import save_file
from hub.filings.refusals import translate_refusals
from hub.filings.rules import BadFilingError
from hub.organisations.texts import refuse_hidden
from registry.store import ArtifactMissingError, FolderStore

MAX_EVIDENCE_BYTES = 20 * 1024 * 1024
_STEM = "evidence"
"""What a document is called in the store, whatever its name was: an artefact of another kind has other files."""
_STARTS = {
    ".pdf": b"%PDF-",
    ".png": b"\x89PNG\r\n\x1a\n",
    ".jpg": b"\xff\xd8\xff",
    ".jpeg": b"\xff\xd8\xff",
    ".txt": b"",
}


@dataclass(frozen=True)
class Evidence:
    """One kept document: the artefact's digest, and the name it came under."""

    digest: str
    name: str


def keep_evidence(store: FolderStore, file: FileStorage) -> Evidence:
    """Store an uploaded document.

    Raises:
        BadFilingError: not a PDF, PNG, JPEG or text by name and first bytes, or a bad name.
        BadFormError: empty or longer than 20 MB.
    """
    name = PurePath((file.filename or "").replace("\\", "/")).name
    ending = PurePath(name).suffix.lower()
    if ending not in _STARTS or len(name) > 200 or not _is_plain(name):
        raise _refuse(name)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{_STEM}{ending}"
        save_file(file, target, max_bytes=MAX_EVIDENCE_BYTES)
        with target.open("rb") as stream:
            if not stream.read(16).startswith(_STARTS[ending]):
                raise _refuse(name)
        with translate_refusals():
            artifact = store.add_folder(Path(folder))
    return Evidence(digest=artifact.digest, name=name)


def find_document(store: FolderStore, digest: str) -> Evidence:
    """Return a kept document with the name that it has in the store.

    Raises:
        NotFoundError: nothing of that digest is kept, or it is no document.
        ArtifactRefusedError: the store changed its listing.
    """
    with translate_refusals():
        try:
            names = list(store.get(digest).files)
        except ArtifactMissingError as error:
            raise NotFoundError.of("document", digest) from error
    if len(names) != 1 or PurePath(names[0]).stem != _STEM:
        raise NotFoundError.of("document", digest)
    return Evidence(digest=digest, name=names[0])


def read_evidence(store: FolderStore, digest: str) -> bytes:
    """Return the document's bytes. Raises: ArtifactRefusedError if the store lost or changed it."""
    with translate_refusals():
        [name] = store.verify(digest).files
        return (store.path(digest) / name).read_bytes()


def _is_plain(name: str) -> bool:
    try:
        refuse_hidden(name)
    except ValueError:
        return False
    return True


def _refuse(name: str) -> BadFilingError:
    allowed = ", ".join(sorted(_STARTS))
    return BadFilingError(
        f"Evidence '{name[:80]!r}' is not a document of these kinds: {allowed} (by name and first bytes).",
        f"证明文件“{name[:80]!r}”类型不符，只接受 {allowed}。",
        field="evidence",
    )
