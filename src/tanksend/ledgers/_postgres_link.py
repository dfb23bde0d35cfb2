"""
Connections to one PostgreSQL, which outlive it: lost ones are made again, and what they were asked for is asked again.

- A session advisory lock, shared, with the number of the holder shows that he lives: the server lets go of it when the
  session ends, however the process died. It is taken before the first claim and by every connection that claims, so a
  new session holds it also while the server has not yet noticed the end of the old one.
- What a lost connection was doing may have been done. So what is run here must be harmless when it is run again.
- Forks: a child shares the socket. It closes its copy without a word to the server, lest it end its parent's session or
  keep it alive, and begins as a new holder.
- No timeout of PostgreSQL's or of the driver's covers a server that is frozen; `_Bounded` does.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import selectors
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from .._forks import was_forked_unseen, watch
from ..exceptions import SettingError
from ._postgres_errors import code_of, need_psycopg, passes, told

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator
    from contextlib import AbstractContextManager

    import psycopg

    from ._postgres_tables import Tables

    Connection = psycopg.Connection[tuple[Any, ...]]

T = TypeVar("T")

GRACE_SECONDS = 10.0
"""For how long after its start a server takes nobody for dead: the living have to come back first."""

_BITS = 62  # what an integer of PostgreSQL's holds
_CONNECT_SECONDS = 10
_FORK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_Selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)
_ADDRESS = re.compile(r"[\w.:/,*-]+")

# A host that went down silently is noticed after 30 + 3 * 10 seconds; a process that is stopped with locks in its hands
# loses them. `synchronous_commit` is raised to "on", never lowered: that is what makes a commit durable. A plan is kept
# while the table grows from nothing to millions of rows, so it has to go by the indexes from the beginning.
_SET_UP = b"""
SELECT set_config('lock_timeout', %(wait)s, false),
       set_config('idle_in_transaction_session_timeout', %(idle)s, false),
       set_config('statement_timeout', '0', false),
       (SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('tcp_keepalives_idle', '30', false),
       set_config('tcp_keepalives_interval', '10', false),
       set_config('tcp_keepalives_count', '3', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false),
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
            THEN set_config('synchronous_commit', 'on', false) END
"""
_LIVING = b"""
SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8,
       array(SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
             WHERE locktype = 'advisory' AND objsubid = 1 AND granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND ((classid::bigint << 32) | objid::bigint) = ANY(%s::bigint[]))
"""


_dropped: list[Connection] = []


class Holder:
    """One who claims, with a random number that nobody else has; a forked child is another one."""

    def __init__(self) -> None:
        self._begin()
        watch(self)

    def _begin(self) -> None:
        self.number = secrets.randbits(_BITS)

    def before_fork(self) -> None:
        """Nothing to wait for."""

    def after_fork_in_parent(self) -> None:
        """Nothing changed."""

    def after_fork_in_child(self) -> None:
        """The claims are the parent's."""
        self._begin()


class Link:
    """
    One connection, made when it is first used. Blocks; for one thread at a time.

    Args:
        dsn: Where the database is.
        tables: What has to be there; it is made, or brought up to date.
        timeout: Seconds to wait for a server that is away, and for locks of others.
        holder: Whose lock the connection holds, if it claims.

    Raises:
        SettingError: *dsn* cannot be read, or psycopg is not installed.
    """

    def __init__(self, dsn: str, tables: Tables, timeout: float, holder: Holder | None = None) -> None:
        need_psycopg()
        self._dsn = dsn
        self._tables = tables
        self._timeout = timeout
        self._holder = holder
        self._place = f"{tables.name} ({_place(dsn)})"
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._at_rest = False
        watch(self)

    def run(self, work: Callable[[Connection], T]) -> T:
        """
        Call *work*, again if the connection was lost or others were in the way.

        Raises:
            LedgerError: It cannot be done; what was written may be there all the same.
        """
        import psycopg

        begun, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                return self._attempt(work)
            except psycopg.Error as error:
                # From None, and by its name alone: the text of an error may hold a key.
                if not passes(error) or time.monotonic() - begun >= self._timeout:
                    raise told(self._place, code_of(error), error) from None
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  (so that not all come back at once)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def check_process(self) -> None:
        """Raises `LedgerError` in a process that nothing here could be prepared for."""
        if was_forked_unseen():
            raise told(self._place, "forked")

    def close(self) -> None:
        """Let go and close the connection. It is made again when it is used again."""
        import psycopg

        with self._lock:
            if self._connection is not None and self._holder is not None:
                with suppress(psycopg.Error):  # the server would notice by itself, but not before this returns
                    self._connection.execute("SELECT pg_advisory_unlock_shared(%s::bigint)", (self._holder.number,))
            self._drop()

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return work(self._connection)
            except BaseException:
                self._tidy()
                raise

    def _open(self) -> Connection:
        connection = _connect(self._dsn, self._timeout)
        try:
            wait = round(self._timeout * 1000)
            connection.execute(_SET_UP, {"wait": str(wait), "idle": str(max(wait // 2, 1))})
            self._tables.prepare(connection, self._place)
            if self._holder is not None:
                connection.execute("SELECT pg_advisory_lock_shared(%s::bigint)", (self._holder.number,))
        except BaseException:
            connection.close()
            raise
        return connection

    def _tidy(self) -> None:
        """After an error: the lock of the holder is kept if the connection is, so it is kept if it can be."""
        import psycopg

        if self._connection is None:
            return
        try:
            if self._connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self._drop()  # it still waits for an answer
            else:
                self._connection.rollback()
        except psycopg.Error:
            self._drop()
        if self._connection is not None and self._connection.closed:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def before_fork(self) -> None:
        """Wait for what is under way, but not for a server that is away."""
        self._at_rest = self._lock.acquire(timeout=_FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._at_rest:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of the parent's connection unspoken; the driver never speaks on one that another process made."""
        self._lock = threading.Lock()
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            with suppress(OSError):
                os.close(connection.fileno())
            _dropped.append(connection)  # kept, as it would complain that nobody closed it


def living(connection: Connection, numbers: Collection[int]) -> Callable[[int], bool]:
    """
    Which of the holders may still be working.

    Ask after their claims were read: who claimed has had his lock before.
    """
    if not numbers:
        return lambda _: True
    row = connection.execute(_LIVING, (list(numbers),)).fetchone()
    assert row is not None  # noqa: S101  (there is no FROM)
    up, found = row[0], frozenset(row[1])
    return lambda number: up < GRACE_SECONDS or number in found or number not in numbers


@contextmanager
def together(connection: Connection) -> Iterator[None]:
    """Send all statements of the block before waiting for the first answer, where the client library can."""
    import psycopg

    pipeline: AbstractContextManager[object]
    pipeline = connection.pipeline() if psycopg.Pipeline.is_supported() else nullcontext()
    pipeline.__enter__()
    try:
        yield
    except BaseException:
        # Told of the error, the driver would log those that follow from it, with the server's text in them.
        with suppress(Exception):
            pipeline.__exit__(None, None, None)
        raise
    pipeline.__exit__(None, None, None)


def _connect(dsn: str, timeout: float) -> Connection:
    defaults = {
        "connect_timeout": min(_CONNECT_SECONDS, max(2, round(timeout))),  # libpq knows whole seconds, from 2 on
        "fallback_application_name": "tanksend",
        "tcp_user_timeout": round(timeout * 1000),
    }
    import psycopg.conninfo

    given = psycopg.conninfo.conninfo_to_dict(dsn)
    more: dict[str, Any] = {name: value for name, value in defaults.items() if name not in given}
    # Twice the time: a server that works says by itself that a lock was not to be had.
    return _bounded(2 * timeout).connect(dsn, autocommit=True, client_encoding="utf8", **more)


def _bounded(seconds: float) -> type[Connection]:
    """A class of connections that wait for each answer so long at most."""
    import psycopg

    class _Bounded(psycopg.Connection[tuple[Any, ...]]):
        def wait(self, gen: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401  (the driver's)
            return _answer(gen, self.pgconn.socket, seconds)

    return _Bounded


def _answer(gen: Generator[Any, Any, T], descriptor: int, seconds: float) -> T:
    """
    What the driver's generator gives in the end, which says what it waits for: to read, to write, or both.

    Its own way to wait knows no end, or one for all of it together.
    """
    import psycopg

    try:
        wanted = next(gen)
        with _Selector() as selector:
            selector.register(descriptor, wanted)
            while True:
                ready = selector.select(seconds)
                if not ready:
                    raise psycopg.OperationalError("no answer")
                wanted = gen.send(ready[0][1])
                selector.modify(descriptor, wanted)
    except StopIteration as end:
        value: T = end.value
        return value


def _place(dsn: str) -> str:
    """Host, port and database, for people."""
    import psycopg
    import psycopg.conninfo

    try:
        given = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:  # its text quotes the DSN
        raise SettingError("the DSN must be a postgresql:// URL or a string such as 'host=… dbname=…'") from None
    parts = [
        (word, str(given.get(name) or "")) for word, name in (("at", "host"), ("port", "port"), ("database", "dbname"))
    ]
    return " ".join(["PostgreSQL", *(f"{word} {value}" for word, value in parts if _ADDRESS.fullmatch(value))])
