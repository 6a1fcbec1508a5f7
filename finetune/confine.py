"""Shuts a trainer in before it reads anything of the customer: no network, no other files, no programs, bounded files.

Leaves who may run what to the hub. Linux only; what this kernel cannot enforce is left out and not named in the answer.
Source: landlock(7), seccomp(2), `linux/landlock.h` up to ABI 6.
"""

import ctypes
import mimetypes
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

from finetune.seccomp import forbid_calls
from finetune.spec import RunSpec

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH, _ASK_VERSION = 1, 1
_NO_NEW_PRIVILEGES = 38
_READ, _LIST = 1 << 2, 1 << 3
_ON_FILES = 0b11 << 1 | 1 << 14 | 1 << 15
"""Write, read, truncate and device control: what a rule on a single file may name."""
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights to files the kernel knows, from the lowest bit on; later ones know as many as 5."""
_NETWORK_ABI, _SCOPE_ABI = 4, 6
_PROGRAMS = ("/usr", "/lib", "/lib64", "/bin", "/sys", "/etc/ld.so.cache", "/etc/localtime", "/etc/os-release")
_PROCESS = ("self", "cpuinfo", "meminfo", "stat", "sys", "filesystems", "mounts", "driver", "version", "devices")
_DEVICES = ("null", "zero", "full", "random", "urandom", "nvidia*", "dri", "shm")
_SHARED_ON_CUDA = {"nvidia*", "dri", "shm"}


def confine(spec: RunSpec, spec_path: Path, out: Path) -> list[str]:
    """Shut this process in for good; returns what is enforced.

    `file_size` and `memory` where bounded, `files`, `network`, `signals`, `calls` as far as this kernel can.
    Call it before any other thread exists and before heavy libraries load: threads that run already stay free.
    It reads its own program, the base and the data of the spec, and writes below OUT alone.
    """
    if sys.platform != "linux":
        return []
    found = ["file_size"]
    limit = spec.limits.file_bytes or resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if spec.device == "cpu" and spec.limits.memory_bytes is not None:
        # Private memory that can be written; a driver of a GPU reserves far more than it uses.
        resource.setrlimit(resource.RLIMIT_DATA, (spec.limits.memory_bytes, spec.limits.memory_bytes))
        found.append("memory")
    os.environ["TMPDIR"] = str(out)
    os.environ["JOBLIB_MULTIPROCESSING"] = "0"  # it would try semaphores, and warn
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    readable = [spec_path, *_list_inputs(spec), *_list_programs()]
    writable = [out, *_list_devices(on_cuda=spec.device != "cpu")]
    found += _restrict_files(libc, readable=readable, writable=writable)
    return found + (["calls"] if forbid_calls(libc) else [])


def _list_inputs(spec: RunSpec) -> list[Path]:
    data = spec.data
    named = (data.source, data.train, data.valid, spec.base.path if spec.base else None, spec.resume_from)
    numbers = [Path(name).with_suffix(".rows.bin") for name in (data.train, data.valid) if name]
    return [*(Path(name) for name in named if name), *numbers]


def _list_programs() -> list[Path]:
    """The interpreter, its libraries and this package; the folder around it may hold other firms' runs."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parent.parent)}
    package = Path(__file__).resolve().parent
    processes = [Path("/proc") / name for name in _PROCESS]
    # openpyxl asks for the types of files, and the library behind it does not bear a list that it may not read.
    return [Path(name) for name in (*_PROGRAMS, *mimetypes.knownfiles, *sorted(prefixes))] + [package, *processes]


def _list_devices(*, on_cuda: bool) -> list[Path]:
    patterns = [name for name in _DEVICES if on_cuda or name not in _SHARED_ON_CUDA]
    return [path for pattern in patterns for path in Path("/dev").glob(pattern)]


def _restrict_files(libc: ctypes.CDLL, *, readable: Iterable[Path], writable: Iterable[Path]) -> list[str]:
    abi = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if abi < 1:
        return []
    rights = (1 << _RIGHTS_BY_ABI.get(abi, 16)) - 1
    handled = [rights] + ([0b11] if abi >= _NETWORK_ABI else []) + ([0b11] if abi >= _SCOPE_ABI else [])
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in readable:
        _allow(libc, ruleset, path, _READ | _LIST)
    for path in writable:
        _allow(libc, ruleset, path, rights)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)
    return ["files", "network", "signals"][: len(handled)]


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Paths that are not there need no rule."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    allowed = rights if path.is_dir() else rights & _ON_FILES
    rule = allowed.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
    failed = libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0
    error = ctypes.get_errno()
    os.close(place)
    if failed:
        raise OSError(error, "landlock_add_rule", str(path))
