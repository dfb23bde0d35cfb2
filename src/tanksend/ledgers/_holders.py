"""
Who holds claims, and whether he lives: a locked file beside the ledger for each.

The operating system lets go of a lock (`flock`) when the process dies, however it dies, and gives nobody else's lock to
a process that happens to get the same number. A lock belongs to the open file, which a fork shares: so a child closes
it, lest its parent seem alive for as long as the child is.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .._forks import watch

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import fcntl
except ImportError:  # pragma: no cover  (there is none on Windows: only the lease tells there)
    fcntl = None  # type: ignore[assignment]

_MIDDLE = "-holder-"
_BITS = 62  # what an integer of SQLite's and PostgreSQL's holds


class Holder:
    """
    One who claims, with a random number that nobody else has. Whoever let go begins anew, with another number.

    Args:
        path: Of the ledger; the files are beside it.

    Attributes:
        number: Under which it claims.
        past: Under which it did: those claims are unknown for good, and it may still say what came of them.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._begin()
        watch(self)

    def _begin(self) -> None:
        self.number = secrets.randbits(_BITS)
        self.past: set[int] = set()
        self._descriptor: int | None = None
        self._dead: set[int] = set()

    def hold(self) -> int:
        """
        Show that this one lives, from before its first claim on; the number to claim under. Raises `OSError`.

        Files that the dead left behind are removed on the way.
        """
        if self._descriptor is None:
            self._sweep()
            self._descriptor = _locked(self._file(self.number))
        return self.number

    def let_go(self) -> None:
        """Show that this one has ended: what it still has claimed is unknown from now on."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                self._file(self.number).unlink()
            os.close(descriptor)
            self.past.add(self.number)  # first: whoever sees the new number sees the old one here
            self.number = secrets.randbits(_BITS)

    def alive(self, number: int) -> bool:
        """Whether that holder may still be working: False only if he is provably dead."""
        if number == self.number:
            return True
        if number in self._dead:
            return False
        if _is_locked(self._file(number)):
            return True
        self._dead.add(number)
        return False

    def glance(self) -> Callable[[int], bool]:
        """`alive`, for one moment: each holder is looked at once, and not once for each of its keys."""
        seen: dict[int, bool] = {}

        def alive(number: int) -> bool:
            if number not in seen:
                seen[number] = self.alive(number)
            return seen[number]

        return alive

    def _file(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}{_MIDDLE}{number:016x}")

    def _sweep(self) -> None:
        for file in self._path.parent.glob(f"*{_MIDDLE}*"):
            if file.name.startswith(self._path.name + _MIDDLE) and not _is_locked(file):
                with suppress(OSError):
                    file.unlink()

    def before_fork(self) -> None:
        """Nothing to wait for."""

    def after_fork_in_parent(self) -> None:
        """Nothing changed."""

    def after_fork_in_child(self) -> None:
        """The claims are the parent's, and so is the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._begin()


def _locked(file: Path) -> int:
    """Make the file and lock it, so that nobody who sweeps meanwhile can take it away."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, exclusive=True)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ENOENT}:
                os.close(descriptor)
                raise
        os.close(descriptor)


def _is_locked(file: Path) -> bool:
    """Whether somebody holds the file; True also where that cannot be told."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        _lock(descriptor, exclusive=False)
    except OSError:
        return True
    else:
        return fcntl is None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, exclusive: bool) -> None:
    if fcntl is not None:
        # Shared to look: two who look at once must not take each other for the one they look for.
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
