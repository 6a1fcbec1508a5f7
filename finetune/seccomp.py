"""Forbids this process the system calls by which it could reach a network, start programs or look into other processes.

Leaves files to `finetune.confine`. Source: seccomp(2), `linux/filter.h`, `asm/unistd.h` of x86-64 and arm64.
"""

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass

_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT = 0, 4, 16
_THREAD = 0x00010000
"""CLONE_THREAD: a clone without it is another process."""


@dataclass(frozen=True)
class _Machine:
    """Audit number of an architecture, its `clone`, and the forbidden calls with the error that each answers."""

    audit: int
    clone: int
    forbidden: dict[int, int]


def _forbid(*numbers: int, error: int = errno.EACCES) -> dict[int, int]:
    return dict.fromkeys(numbers, error)


_MACHINES = {
    # socket, execve, execveat, ptrace, process_vm_*, mount, umount2, unshare, setns, pivot_root, chroot, bpf,
    # pidfd_getfd
    "x86_64": _Machine(
        0xC000003E,
        56,
        _forbid(41, 59, 322, 101, 310, 311, 165, 166, 272, 308, 155, 161, 321, 438)
        | _forbid(57, 58, error=errno.EAGAIN)  # fork, vfork
        | _forbid(435, 425, error=errno.ENOSYS),  # clone3, for which libc then uses clone; io_uring_setup
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        _forbid(198, 221, 281, 117, 270, 271, 40, 39, 97, 268, 41, 51, 280, 438)
        | _forbid(435, 425, error=errno.ENOSYS),
    ),
}


def forbid_calls(libc: ctypes.CDLL) -> bool:
    """Install the filter for this thread and all it starts; False where this machine's calls are not known here.

    Needs `no_new_privs` to be set. Raises: OSError: the kernel refuses the filter.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = _write_program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count as a short, padded to the pointer behind it
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return True


def _write_program(machine: _Machine) -> bytes:
    """Classic BPF over `struct seccomp_data`: another machine's calls kill, forbidden ones answer with their error."""
    lines = [
        (_LOAD, 0, 0, _AT_MACHINE),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    for number, error in machine.forbidden.items():
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    lines += [
        (_EQUAL, 0, 3, machine.clone),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_ANY_BIT, 1, 0, _THREAD),
        (_RETURN, 0, 0, _ERRNO | errno.EAGAIN),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
