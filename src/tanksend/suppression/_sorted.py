"""
Many rows in the order of their keys, whatever order they came in, in bounded memory.

A file that is filled in the order of its keys is written once from front to back; filled in any other, nearly each row
touches a page of its own. The sorting is SQLite's, in a file that it makes, hides and removes.
"""

from __future__ import annotations

import errno
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._forks import watch

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator


@contextmanager
def _told() -> Iterator[None]:
    import sqlite3

    try:
        yield
    except sqlite3.Error:  # its text is of a file that nobody sees
        text = "the rows could not be sorted: make room in the folder for temporary files (TMPDIR)"
        raise OSError(errno.ENOSPC, text) from None


class Sorted:
    """
    Takes tuples of one width, then gives them back sorted by their first column, then by age. Blocks.

    What goes wrong with the file that it sorts in is an `OSError`.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        watch(self)

    def put(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Add rows."""
        with self._lock, _told():
            marks = ",".join("?" * self._width)
            self._opened().executemany(f"INSERT INTO staged VALUES ({marks})", rows)  # noqa: S608  (marks alone)

    def some(self, number: int) -> list[tuple[object, ...]]:
        """The next *number* rows; none at the end."""
        with self._lock, _told():
            if self._cursor is None:
                self._cursor = self._opened().execute("SELECT * FROM staged ORDER BY c0, rowid")
            return self._cursor.fetchmany(number)

    def close(self) -> None:
        """Give the space back."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _opened(self) -> sqlite3.Connection:
        import sqlite3

        if self._connection is None:
            # "" is a file of SQLite's own, which is gone when it is closed.
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=OFF")
            columns = ",".join(f"c{number}" for number in range(self._width))
            self._connection.execute(f"CREATE TABLE staged ({columns})")
            self._connection.execute("BEGIN")
        return self._connection

    def before_fork(self) -> None:
        """Wait for the step under way."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Whoever sorts is not here; its file is the parent's, and closes with it."""
        self._lock = threading.Lock()
