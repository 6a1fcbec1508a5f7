"""What a deletion is about to remove, on disk before the first file goes: its receipt is true whenever a crash comes.

It leaves which files those are to `hub.datasets.deletion`. A note holds who asked and names and sizes of files, nothing
of a row.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from registry.copying import sync_folder

_FOLDER = "deletions"
Noted = dict[str, dict[str, int]]
"""Id of a version or run -> its files, below the home -> sizes in bytes."""


class _Note(TypedDict):
    asked_by: str
    files: Noted


def note_removal(home: Path, dataset_id: str, found: Mapping[str, Sequence[Path]], *, asked_by: str) -> Noted:
    """Note the files at and below these paths, durably, with those of earlier tries; returns all of them by id."""
    path = _locate_note(home, dataset_id)
    note: _Note = _read(path) if path.is_file() else {"asked_by": asked_by, "files": {}}
    noted = note["files"]
    known = {name for files in noted.values() for name in files}
    for owner, paths in found.items():
        files = noted.setdefault(owner, {})
        for one in _list_files(paths):
            name = one.relative_to(home).as_posix()
            if name not in known:
                files[name] = one.stat().st_size
                known.add(name)
    _write(path, json.dumps(note))
    return noted


def list_removals(home: Path) -> list[str]:
    """Return the ids of data sets whose deletion was begun and not told as done yet, oldest data set first."""
    return sorted(path.stem for path in (home / _FOLDER).glob("dst_*.json"))


def read_asker(home: Path, dataset_id: str) -> str:
    """Return who asked first for a deletion that was begun. Raises: FileNotFoundError."""
    return _read(_locate_note(home, dataset_id))["asked_by"]


def list_gone(home: Path, noted: Noted) -> Noted:
    """Return of a note what is no more: a file that others share since an earlier try stays, and was not removed."""
    return {
        owner: {name: size for name, size in files.items() if not (home / name).exists()}
        for owner, files in noted.items()
    }


def remove_paths(paths: Iterable[Path]) -> None:
    """Delete files and folders; what is gone already, or goes meanwhile as a check ends, is no error."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, onerror=_pass_what_is_gone)
        else:
            path.unlink(missing_ok=True)


def forget_removal(home: Path, dataset_id: str) -> None:
    """Drop the note of a deletion whose receipt is committed."""
    _locate_note(home, dataset_id).unlink(missing_ok=True)


def _pass_what_is_gone(_call: Callable[..., Any], _path: str, found: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(found[1], FileNotFoundError):
        raise found[1]


def _locate_note(home: Path, dataset_id: str) -> Path:
    return home / _FOLDER / f"{dataset_id}.json"


def _read(path: Path) -> _Note:
    note: _Note = json.loads(path.read_text(encoding="utf-8"))
    return note


def _list_files(paths: Sequence[Path]) -> list[Path]:
    return [one for path in paths for one in ([path] if path.is_file() else sorted(path.rglob("*"))) if one.is_file()]


def _write(path: Path, text: str) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(exist_ok=True, mode=0o700)
        sync_folder(path.parent.parent)  # a note in a folder that a crash takes away is none
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)
