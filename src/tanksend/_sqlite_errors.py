"""What SQLite's errors mean to people: which file, what is wrong with it, and what to do."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from .exceptions import LedgerError, StorageError

if TYPE_CHECKING:
    import sqlite3

# Primary result codes, https://www.sqlite.org/rescode.html: the low byte of `sqlite3.Error.sqlite_errorcode`.
PERM, BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB = 3, 5, 6, 8, 10, 11, 13, 14, 15, 26

_CODES = {
    PERM: "read-only",
    BUSY: "locked",
    LOCKED: "locked",
    PROTOCOL: "locked",
    READONLY: "read-only",
    FULL: "full",
    CORRUPT: "damaged",
    NOTADB: "foreign",
}
_ERRNOS = {
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.EROFS: "read-only",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
}
_TEXTS = {
    "locked": "is locked by another program. Close what has it open, or wait until it is done, then run again",
    "read-only": "cannot be written to. Let this user write to the file and to its folder",
    "full": "cannot grow: the disk is full. Make room on it, then run again",
    "foreign": "belongs to another program, or is not an SQLite file. Name another file; this one is left as it is",
    "newer": "was written by a newer version of this library. Upgrade it here, or name another file",
    "damaged": "is damaged. Keep a copy of it, then try to recover it with the sqlite3 program",
    "forked": "is open in a process that was forked past Python. Start a new process, or fork with os.fork",
    "moved": "was moved or deleted while it was in use. Put it back, then run again",
    "unreachable": "cannot be opened or read. Check that its folder exists on a disk of this machine that works",
}


def told(path: str, part: str, code: str, cause: BaseException | None = None) -> StorageError:
    """The error for people: *code* is one of `StorageError.code`, or what is ``unreachable`` to programs."""
    name = {"ledger": "ledger", "suppression": "suppression list"}[part]
    kind = LedgerError if part == "ledger" else StorageError
    return kind(
        f"The {name} {path} {_TEXTS[code]}.",
        part=part,
        code="unreachable" if code in {"moved", "forked"} else code,
        cause_type=None if cause is None else _name(cause),
    )


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code, or 0 for an error of the ``sqlite3`` module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def code_of(path: str, error: BaseException) -> str:
    """Which of the codes an error of SQLite, or of the system, stands for."""
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0, "unreachable")
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary == CANTOPEN and not _may_write(path):
        return "read-only"
    if primary == IOERR and not _has_room(path):
        return "full"
    return _CODES.get(primary, "unreachable")


def _may_write(path: str) -> bool:
    """Whether what is missing is not the right to write; a folder that is not there is another matter."""
    folder = os.path.dirname(path)  # noqa: PTH120  (SQLite works with plain names)
    if not os.path.isdir(folder):  # noqa: PTH112
        return True
    return os.access(folder, os.W_OK) and (not os.path.exists(path) or os.access(path, os.W_OK))  # noqa: PTH110


def _has_room(path: str) -> bool:
    if not hasattr(os, "statvfs"):
        return True
    try:
        return os.statvfs(os.path.dirname(path)).f_bavail > 0  # noqa: PTH120
    except OSError:
        return True


def _name(cause: BaseException) -> str:
    """Type and code of an error; its text may carry data."""
    detail = getattr(cause, "sqlite_errorname", None)
    return f"{type(cause).__name__} ({detail})" if detail else type(cause).__name__
