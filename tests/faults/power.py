"""A disk that can lose its power: notes every write and sync of SQLite, and rebuilds what would be left at any moment.

A killed process leaves its writes to the kernel, so only this tells synchronous=FULL from NORMAL. It stands between
SQLite and its own file layer (a VFS): https://www.sqlite.org/vfs.html. It leaves judging what is left to the tests.
"""

import _sqlite3
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

SECTOR_BYTES = 512
POINTER = ctypes.c_void_p


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3; only what is replaced has a name."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", POINTER),
        ("read", POINTER),
        ("write", POINTER),
        ("truncate", POINTER),
        ("sync", POINTER),
        ("others", POINTER * 13),
    )


class _File(ctypes.Structure):
    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


class _Layer(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes", ctypes.c_int),
        ("next", POINTER),
        ("name", ctypes.c_char_p),
        ("own", POINTER),
        ("open", POINTER),
        ("others", POINTER * 15),
    )


_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, POINTER, ctypes.c_char_p, ctypes.POINTER(_File), ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, ctypes.c_int)


@dataclass(frozen=True)
class Deed:
    """One thing done to a file: `content` written at `offset`, cut to `offset` (None), or synced (no offset)."""

    path: str
    offset: int | None
    content: bytes | None = None

    @property
    def is_sync(self) -> bool:
        """Whether everything before it is safe from now on."""
        return self.offset is None


class Disk:
    """The deeds in order, and what a power cut after any of them leaves."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = ctypes.POINTER(_Layer)
        self._real = self._library.sqlite3_vfs_find(None)
        self._paths: dict[int, str] = {}
        self._wrapped: dict[int, Any] = {}
        self._kept: list[Any] = []

    @contextmanager
    def attached(self) -> Iterator["Disk"]:
        """Note what every connection does that is opened inside."""
        layer = _Layer.from_buffer_copy(self._real.contents)
        layer.name, layer.next = b"power", None
        real_open = _OPEN(self._real.contents.open)

        def open_file(_layer: int, name: bytes | None, file: Any, flags: int, given: Any) -> int:
            status = real_open(ctypes.addressof(self._real.contents), name, file, flags, given)
            if status == 0 and name is not None:
                self._paths[ctypes.addressof(file.contents)] = name.decode()
                file.contents.methods = self._wrap(file.contents.methods)
            return status

        opener = _OPEN(open_file)
        layer.open = ctypes.cast(opener, POINTER)
        self._kept += [layer, opener]
        self._library.sqlite3_vfs_register(ctypes.byref(layer), 1)
        try:
            yield self
        finally:
            self._library.sqlite3_vfs_unregister(ctypes.byref(layer))
            self._library.sqlite3_vfs_register(self._real, 1)

    def cut(self, moment: int, base: dict[str, bytes], rng: Random) -> dict[str, bytearray]:
        """Return the files as a power cut after `moment` deeds may leave them: unsynced writes kept, torn or gone."""
        files = {path: bytearray(content) for path, content in base.items()}
        done = self.deeds[:moment]
        synced = {deed.path: number for number, deed in enumerate(done) if deed.is_sync}
        everything_gone = rng.random() < 0.3
        for number, deed in enumerate(done):
            content = files.setdefault(deed.path, bytearray())
            if deed.offset is None:
                continue
            if number < synced.get(deed.path, -1):
                _apply(content, deed)
            elif not everything_gone and rng.random() < 0.5:
                _apply(content, _tear(deed, rng))
        return files

    def _wrap(self, methods: Any) -> Any:
        address = ctypes.addressof(methods.contents)
        if address not in self._wrapped:
            own = _Methods.from_buffer_copy(methods.contents)
            write, truncate, sync = _WRITE(own.write), _TRUNCATE(own.truncate), _SYNC(own.sync)

            def note_write(file: int, content: int, size: int, offset: int) -> int:
                self._note(file, offset, ctypes.string_at(content, size))
                return int(write(file, content, size, offset))

            def note_truncate(file: int, size: int) -> int:
                self._note(file, size)
                return int(truncate(file, size))

            def note_sync(file: int, flags: int) -> int:
                status = int(sync(file, flags))
                self._note(file, None)
                return status

            noted = (_WRITE(note_write), _TRUNCATE(note_truncate), _SYNC(note_sync))
            own.write, own.truncate, own.sync = (ctypes.cast(one, POINTER) for one in noted)
            self._kept += [own, *noted]
            self._wrapped[address] = ctypes.pointer(own)
        return self._wrapped[address]

    def _note(self, file: int, offset: int | None, content: bytes | None = None) -> None:
        self.deeds.append(Deed(self._paths[file], offset, content))


def write_files(files: dict[str, bytearray], folder: Path) -> Path:
    """Write what a cut left into a folder, without SQLite's shared memory, and return the database's path."""
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
    return folder / min((Path(path).name for path in files), key=len)


def _apply(content: bytearray, deed: Deed) -> None:
    assert deed.offset is not None
    if deed.content is None:
        del content[deed.offset :]
        return
    if len(content) < deed.offset:
        content.extend(bytes(deed.offset - len(content)))
    content[deed.offset : deed.offset + len(deed.content)] = deed.content


def _tear(deed: Deed, rng: Random) -> Deed:
    """Return the write whole, or only its first sectors."""
    if deed.content is None or rng.random() < 0.5:
        return deed
    sectors = rng.randrange(len(deed.content) // SECTOR_BYTES + 1)
    return Deed(deed.path, deed.offset, deed.content[: sectors * SECTOR_BYTES])
