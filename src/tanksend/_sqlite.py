"""
One SQLite file that threads, processes and forks may share, and that answers tasks of any event loop.

`Database` is one connection. `SQLiteFile` is what the ledger and the suppression list are made of: a thread that
writes, one that reads and one that tidies up, each with a connection of its own.

- Durability: WAL with ``synchronous=FULL``, so that a commit is on the disk when it returns. One transaction takes all
  that was asked for while the one before it was being synced.
- Checkpoints copy the log back into the file. They are made beside the writer, which is not held up by them, and only
  what was written meanwhile is copied by the writer itself, so that the log can begin anew.
- Forks: see `_forks`. All connections are closed before a fork, because SQLite's view of the locks that its process
  holds (one per file, for all connections) would be a lie in the child: https://www.sqlite.org/howtocorrupt.html, 2.6.
- For the same reason nothing here ever opens and closes the file beside SQLite: closing any descriptor of it drops the
  locks of the whole process (2.2 on the same page). Only a file that is not there yet is made with the mode 0600, and
  no thread opens it before that is done.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from ._forks import was_forked_unseen, watch
from ._sqlite_errors import BUSY, LOCKED, PROTOCOL, code_of, primary_code, told
from ._worker import Job, Worker
from .exceptions import SettingError, StorageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")
G = TypeVar("G")

SYNCHRONOUS = "FULL"
"""With WAL, ``NORMAL`` would not sync at a commit."""

LOCK_SECONDS = 10.0
"""How long to wait for others who write, when nothing else is said."""

_CHECKPOINT_PAGES = 2_000
"""How many pages this process writes, about, before it tidies up; some 8 MB of log."""

_PAGES_BESIDE_ROWS = 2
"""How many pages a transaction writes beside one for each row, about."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_5, 0.01

_making = threading.Lock()


@attrs.frozen
class Schema:
    """
    What a file of ours looks like.

    Attributes:
        part: ``ledger`` or ``suppression``.
        application_id: What SQLite keeps in the file to tell whose it is.
        steps: One tuple of statements for each version: the first makes the file, each later one brings it up to date.
    """

    part: str
    application_id: int
    steps: tuple[tuple[str, ...], ...]


@attrs.define
class Place:
    """
    Where a file is, and which file it was when it was first opened.

    What is written into a file that nobody finds any more would be forgotten, and one that is made anew in its place
    knows nothing: both would send mail twice.
    """

    path: str
    identity: tuple[int, int] | None = None

    def check(self) -> bool:
        """Whether the file is still the one that it was."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  (for each transaction: a Path costs more than the question)
        except FileNotFoundError:
            return self.identity is None
        if self.identity is None:
            self.identity = (found.st_dev, found.st_ino)
        return self.identity == (found.st_dev, found.st_ino)


class Database:
    """
    One connection to one file, opened when it is first used. Blocks; for one thread at a time.

    Args:
        place: Where the file is.
        schema: What the file looks like; it is made so, or brought up to date.
        lock_timeout: Seconds to wait for others who write.
    """

    def __init__(self, place: Place, schema: Schema, lock_timeout: float = LOCK_SECONDS) -> None:
        self._place = place
        self._path = place.path
        self._schema = schema
        self._lock_timeout = lock_timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        watch(self)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        Call *work*, again if the file was locked meanwhile.

        Raises:
            StorageError: It cannot be read.
        """
        return self._patiently(lambda: self._with_connection(work))

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        Call *work* in a transaction of its own, which is on the disk when this returns.

        Raises:
            StorageError: It cannot be written; nothing of it was.
        """
        return self._patiently(lambda: self._with_connection(lambda connection: self._transact(connection, work)))

    def checkpoint(self) -> None:
        """Copy what is in the log into the file, as far as that holds up nobody. Never raises."""
        with suppress(StorageError, _LockedError):
            self._with_connection(lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())

    def close(self) -> None:
        """Close the connection. It is opened again when it is used again."""
        with self._lock:
            self._drop()

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """
        Repeat while others hold the lock.

        SQLite's own way to wait polls ever more slowly, up to 0.1 s, and would hold our lock meanwhile.
        """
        begun, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except _LockedError as error:
                if time.monotonic() - begun >= self._lock_timeout:
                    raise told(self._path, self._schema.part, "locked", error.cause) from None
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  (so that not all come back at once)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _with_connection(self, work: Callable[[sqlite3.Connection], T]) -> T:
        import sqlite3

        with self._lock:
            try:
                return work(self._opened())
            except sqlite3.Error as error:
                if primary_code(error) in {BUSY, LOCKED, PROTOCOL}:
                    raise _LockedError(error) from None
                self._drop()  # whatever is wrong, the next one begins afresh
                raise self._told(error) from None
            except OSError as error:
                raise self._told(error) from None

    def _told(self, error: BaseException) -> StorageError:
        return told(self._path, self._schema.part, code_of(self._path, error), error)

    def _transact(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        self._check_place()
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcome = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcome

    def _check_place(self) -> None:
        if not self._place.check():
            self._drop()
            raise told(self._path, self._schema.part, "moved")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        import sqlite3

        self._check_place()
        with _making, suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
            self._check_place()
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with snapshot(connection):
            version = self._version(connection)
        if _one(connection, "PRAGMA journal_mode=WAL") != "wal":
            raise told(self._path, self._schema.part, "unreachable")
        connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        if version < len(self._schema.steps):
            self._migrate(connection)

    def _version(self, connection: sqlite3.Connection) -> int:
        """
        The version, 0 if nothing has been made yet. In a transaction: another process may be making it at this moment.

        Raises:
            StorageError: It is somebody else's, or newer.
        """
        tables = _one(connection, "SELECT count(*) FROM sqlite_master")
        whose = _one(connection, "PRAGMA application_id")
        version = _one(connection, "PRAGMA user_version")
        if whose != self._schema.application_id:
            if whose or version or tables:
                raise told(self._path, self._schema.part, "foreign")
            return 0
        if version > len(self._schema.steps):
            raise told(self._path, self._schema.part, "newer")
        return int(version)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = self._version(connection)  # somebody else, and be it another program, may have been faster
            for statement in (statement for step in self._schema.steps[version:] for statement in step):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={self._schema.application_id}")
            connection.execute(f"PRAGMA user_version={len(self._schema.steps)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def before_fork(self) -> None:
        """Wait for the transaction under way, and close."""
        self._lock.acquire()
        self._drop()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """The lock is held by a thread of the parent's, as it were."""
        self._lock = threading.Lock()


class _LockedError(Exception):
    """Somebody else holds the lock, for now."""

    def __init__(self, cause: sqlite3.Error) -> None:
        super().__init__()
        self.cause = cause


def _one(connection: sqlite3.Connection, statement: str) -> Any:  # noqa: ANN401  (whatever the column holds)
    return connection.execute(statement).fetchone()[0]


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read in the block is of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def plain(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The connection itself, for those who keep nothing else for a group."""
    yield connection


class SQLiteFile(Generic[G]):
    """
    A file with a thread that writes, one that reads and one that tidies up.

    Args:
        path: Of the file; it is made, with mode 0600, when it is first used.
        schema: What the file looks like.
        group: Called with the connection at the beginning of each transaction; what it gives is handed to each piece
            of work in it. What is left to write is written when it ends.
        lock_timeout: Seconds to wait for others who write.
        rest: Called in the writing thread when it ends.

    Raises:
        SettingError: *path* names no file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: Schema,
        *,
        group: Callable[[sqlite3.Connection], AbstractContextManager[G]],
        lock_timeout: float = LOCK_SECONDS,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = absolute(path)
        self.schema = schema
        self._place = Place(self.path)
        self.lock_timeout = lock_timeout
        self._group = group
        self._rest = rest
        self._writing, self._reading, self._tidying = (self.database() for _ in range(3))
        self._writer = Worker("tanksend-writer", self._write, rest=self._end)
        self._reader: Worker[sqlite3.Connection] = Worker("tanksend-reader", self._read, rest=self._reading.close)
        self._tidier: Worker[None] = Worker("tanksend-tidier", self._tidy, rest=self._tidying.close)
        self._pages = 0
        self._tidied = False

    def database(self) -> Database:
        """A connection of one's own, for work that takes long."""
        return Database(self._place, self.schema, self.lock_timeout)

    async def read(self, work: Callable[[sqlite3.Connection], T], moment: float = 0.0) -> T:
        """What *work* reads, in the reading thread; for *moment*, see `Worker.ask`. Raises `StorageError`."""
        self._check_process()
        return await self._reader.ask(work, moment)

    async def write(self, work: Callable[[G], T]) -> T:
        """
        What *work* returns, when what it wrote is on the disk. Raises `StorageError`.

        It has to look before it writes: an error of its own, after it wrote something, undoes nothing.
        """
        self._check_process()
        return await self._writer.ask(work)

    async def write_in_turn(self, *works: Callable[[G], Any]) -> list[Any]:
        """What *works* return, done one after the other; see `write`."""
        self._check_process()
        return await self._writer.ask_in_turn(*works)

    def spare(self, path: str | os.PathLike[str]) -> None:
        """
        See that *path*, which somebody will open by hand, is none of this file and those beside it.

        Raises:
            SettingError: It is one of them.
        """
        if os.path.realpath(path) in {self.path + ending for ending in ("", "-wal", "-shm", "-journal")}:
            raise SettingError(f"the CSV needs a file of its own: {self.path} is the {self.schema.part} itself")

    def write_here(self, work: Callable[[G], object]) -> None:
        """As `write`, in this thread, with a connection of its own. Blocks. Raises `StorageError`."""
        self._check_process()
        database = self.database()
        try:
            database.write(lambda connection: self._write_group(connection, [Job(work)]))
        finally:
            database.close()

    def stop(self) -> None:
        """Let all threads end and close their connections; does not wait. For finalizers, too."""
        for worker in (self._writer, self._reader, self._tidier):
            worker.stop()

    def close(self) -> None:
        """Close, after what is under way. Blocks. It opens again when it is used again."""
        # One by one: the last to close tidies up, and of two that close at once each takes the other for the last.
        for worker in (self._reader, self._tidier, self._writer):
            worker.stop()
            worker.join()

    async def aclose(self) -> None:
        """Close, after what is under way."""
        import anyio.to_thread

        await anyio.to_thread.run_sync(self.close)

    def _check_process(self) -> None:
        if was_forked_unseen():
            raise told(self.path, self.schema.part, "forked")

    def _write(self, jobs: Sequence[Job[G, Any]]) -> None:
        if self._tidied:
            self._tidied = False
            self._writing.checkpoint()  # what little was written while the other was at it
        rows = self._writing.write(lambda connection: self._write_group(connection, jobs))
        self._pages += rows + _PAGES_BESIDE_ROWS
        if self._pages >= _CHECKPOINT_PAGES:
            self._pages = 0
            with suppress(RuntimeError):  # no thread can be started: it is done another time
                self._tidier.tell(lambda _: None)

    def _write_group(self, connection: sqlite3.Connection, jobs: Sequence[Job[G, Any]]) -> int:
        before = connection.total_changes
        with self._group(connection) as given:
            for job in jobs:
                _do(job, given)
        return connection.total_changes - before

    def _end(self) -> None:
        self._writing.close()
        self._rest()

    def _read(self, jobs: Sequence[Job[sqlite3.Connection, Any]]) -> None:
        for job in jobs:
            try:
                self._reading.read(job.do)
            except Exception as error:  # noqa: BLE001  (whoever asked has to hear of it)
                job.error = error

    def _tidy(self, jobs: Sequence[Job[None, Any]]) -> None:
        self._tidying.checkpoint()
        self._tidied = True
        for job in jobs:
            job.do(None)


def _do(job: Job[G, Any], given: G) -> None:
    """Do one piece of work; an error of its own is its own, one of SQLite's is the whole group's."""
    import sqlite3

    job.error = None  # of an earlier try
    try:
        job.do(given)
    except (sqlite3.Error, OSError):
        raise
    except Exception as error:  # noqa: BLE001  (whoever asked has to hear of it)
        job.error = error


def absolute(path: str | os.PathLike[str]) -> str:
    """
    Where the file really is.

    Links are followed: the files beside it have to be the same whichever name somebody uses.

    Raises:
        SettingError: It names no file.
    """
    name = os.fspath(path)
    if name in {"", ":memory:"} or "\0" in name:
        raise SettingError("a path to a file on a disk is needed; what is kept in memory survives nothing")
    return os.path.realpath(name)


def when_gone(thing: object, file: SQLiteFile[Any]) -> None:
    """Let the threads of *file* end when *thing*, which uses it, is gone."""
    weakref.finalize(thing, file.stop)
