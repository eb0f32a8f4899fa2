"""Every call of a process that changes a folder, seen before it is made, and decided about.

The kernel asks (``SECCOMP_RET_USER_NOTIF``, Linux 5.5 or later, x86-64 and AArch64), so nothing
is missed: not what SQLite, Orbax and safetensors write from C, C++ and Rust, and not what their
threads do. What is done about a call is the caller's.
"""

import ctypes
import dataclasses
import errno
import fcntl
import os
import platform
import select
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

_NUMBERS = {
    "x86_64": {
        "open": 2, "creat": 85, "openat": 257, "openat2": 437,
        "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328,
        "copy_file_range": 326, "sendfile": 40,
        "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265,
        "symlink": 88, "symlinkat": 266,
        "unlink": 87, "unlinkat": 263, "rmdir": 84, "mkdir": 83, "mkdirat": 258,
        "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "fallocate": 285,
    },
    "aarch64": {
        "openat": 56, "openat2": 437,
        "write": 64, "pwrite64": 68, "writev": 66, "pwritev": 70, "pwritev2": 287,
        "copy_file_range": 285, "sendfile": 71,
        "renameat": 38, "renameat2": 276, "linkat": 37, "symlinkat": 36,
        "unlinkat": 35, "mkdirat": 34,
        "fsync": 82, "fdatasync": 83, "truncate": 45, "ftruncate": 46, "fallocate": 47,
    },
}  # fmt: skip
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}

KINDS = {
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile"),
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat", "symlink", "symlinkat"),
    "remove": ("unlink", "unlinkat", "rmdir"),
    "mkdir": ("mkdir", "mkdirat"),
    "sync": ("fsync", "fdatasync"),
    "truncate": ("truncate", "ftruncate", "fallocate"),
}
"""Kind of a call -> its names; ``create`` is an ``open`` that makes a file."""

_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that is about to change something.

    Attributes:
      kind: ``create`` or one of :data:`KINDS`.
      path: what it changes; the new name, for a rename.
      offset: of a write, where it is known.
      data: of a write, where it is known: the bytes that it would write.
    """

    kind: str
    path: Path
    offset: int | None = None
    data: bytes | None = None


def is_available() -> bool:
    """Return whether this machine can intercept calls."""
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return False
    return platform.machine() in _NUMBERS and "user_notif" in actions


def ask_before_calls(parent: socket.socket) -> None:
    """Let the process at the other end of `parent` decide about this process from now on.

    Irrevocable, and inherited by threads and processes that are started later.

    Raises:
      OSError: where the kernel refuses.
    """
    program = _filter(platform.machine())
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    no_new_privileges, set_mode_filter, new_listener = 38, 1, 8
    if libc.prctl(no_new_privileges, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(
        _SECCOMP[platform.machine()],
        ctypes.c_uint(set_mode_filter),
        ctypes.c_uint(new_listener),
        ctypes.create_string_buffer(header),
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(parent, [b"l"], [listener])
    os.close(listener)


def decide(child: socket.socket, folder: Path, decision: Callable[[Call, int], int | None]) -> None:
    """Decide about the calls of a process that has called :func:`ask_before_calls`; until it ends.

    Args:
      child: connected to the process.
      folder: calls that change something elsewhere are made.
      decision: called with each call and the process's id; returns None for a call that is to be
        made, or the error that it ends with. It may also kill the process.
    """
    _, descriptors, _, _ = socket.recv_fds(child, 1, 1)
    if not descriptors:
        return
    (listener,) = descriptors
    names = {number: name for name, number in _NUMBERS[platform.machine()].items()}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while True:
            if poll.poll()[0][1] & select.POLLHUP:
                return
            notification = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, notification)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # It has been killed meanwhile.
                    continue
                raise
            identifier, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
            try:
                call = _call(pid, names[number], arguments)
            except OSError:
                call = None  # It has been killed, or passes what is no address.
            failed = None
            if call is not None and call.path.is_relative_to(folder):
                failed = decision(call, pid)
            answer = _ANSWER.pack(identifier, 0, -(failed or 0), 0 if failed else 1)
            try:
                fcntl.ioctl(listener, _SEND, answer)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
    finally:
        os.close(listener)


_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101


def _filter(machine: str) -> list[bytes]:
    """Return a BPF program that notifies about the calls above, but not of mere reads."""
    numbers = _NUMBERS[machine]
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    allow, notify = 0x7FFF0000, 0x7FC00000
    low = 16  # Offset of the first argument; its lower half comes first.
    changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    program = [
        instruction(load, 4),
        instruction(equal, _AUDIT[machine], 1, 0),
        instruction(answer, allow),
        instruction(load, 0),
    ]
    for name, argument in (("open", 1), ("openat", 2)):
        if name in numbers:
            program += [
                instruction(equal, numbers[name], 0, 4),
                instruction(load, low + 8 * argument),
                instruction(any_bit, changing, 1, 0),
                instruction(answer, allow),
                instruction(answer, notify),
            ]
    for name, number in numbers.items():
        if name not in ("open", "openat"):
            program += [instruction(equal, number, 0, 1), instruction(answer, notify)]
    return [*program, instruction(answer, allow)]


def _call(pid: int, name: str, arguments: Sequence[int]) -> Call | None:
    """Return what a call would change; None for nothing."""
    if name in ("open", "creat", "openat", "openat2"):
        at = name.startswith("openat")
        path = _path(pid, arguments[0] if at else None, arguments[at])
        flags = arguments[at + 1]
        if name == "creat":
            flags = os.O_CREAT | os.O_TRUNC
        elif name == "openat2":
            (flags,) = struct.unpack("Q", _memory(pid, flags, 8))
        if not os.path.lexists(path):
            return Call("create", path) if flags & os.O_CREAT else None
        return Call("truncate", path) if flags & os.O_TRUNC and path.stat().st_size else None
    kind = _KIND_OF[name]
    if kind == "write":
        target = arguments[2] if name == "copy_file_range" else arguments[0]
        path = _descriptor(pid, target)
        if not path.is_absolute():  # A pipe or a socket.
            return None
        if name not in ("write", "pwrite64"):
            return Call(kind, path)
        offset = arguments[3] if name == "pwrite64" else _position(pid, target, path)
        return Call(kind, path, offset, _memory(pid, arguments[1], arguments[2]))
    if kind in ("sync", "truncate") and name != "truncate":
        return Call(kind, _descriptor(pid, arguments[0]))
    two = kind in ("rename", "link")
    at = name.endswith("at") or name == "renameat2"
    place = (2 if at else 1) if two else 0
    if name == "symlinkat":
        place = 1
    return Call(kind, _path(pid, arguments[place] if at else None, arguments[place + at]))


def _memory(pid: int, address: int, size: int) -> bytes:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        return os.pread(memory.fileno(), size, address)


def _path(pid: int, folder: int | None, address: int) -> Path:
    text = b""
    while b"\0" not in text:
        start = address + len(text)
        part = _memory(pid, start, 4096 - start % 4096)
        if not part:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        text += part
    path = Path(os.fsdecode(text.partition(b"\0")[0]))
    if path.is_absolute():
        return Path(os.path.normpath(path))
    here = folder is None or folder & 0xFFFFFFFF == 0xFFFFFF9C  # AT_FDCWD
    base = Path(f"/proc/{pid}/cwd").readlink() if here else _descriptor(pid, folder or 0)
    return Path(os.path.normpath(base / path))


def _descriptor(pid: int, number: int) -> Path:
    return Path(f"/proc/{pid}/fd/{number & 0xFFFFFFFF}").readlink()


def _position(pid: int, descriptor: int, path: Path) -> int:
    fields = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().split()
    position, flags = int(fields[1]), int(fields[3], 8)
    return path.stat().st_size if flags & os.O_APPEND and path.exists() else position
