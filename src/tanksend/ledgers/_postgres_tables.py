"""The tables of a ledger in PostgreSQL: their names, how they are made, and whether they are those they were."""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..exceptions import SettingError
from ._postgres_errors import told

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

# Unquoted names of PostgreSQL's; 63 bytes, of which the names of the index and of the second table need some.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}(?:\.[a-z_][a-z0-9_]{0,47})?")

# Rows are changed once or twice soon after they are made: there is room for that beside them, so no index is touched.
# A key holds no NUL and no half of a surrogate pair (`kept`); it is found by its digest alone.
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE {table} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            digest bytea NOT NULL,
            key text NOT NULL,
            status smallint NOT NULL,
            owner bigint,
            until double precision,
            doubt boolean NOT NULL,
            message_id text,
            error_code text,
            at double precision NOT NULL,
            mark bigint NOT NULL
        ) WITH (fillfactor = 70)
        """,
        "CREATE UNIQUE INDEX ON {table} (digest)",
    ),
)
"""One tuple of statements for each version: the first makes the tables, each later one brings them up to date."""


class Tables:
    """
    The table of the entries, and the one that says which version they have and which ledger they are.

    Args:
        name: Of the first, with a schema or without.
        create: Make them where they are not there.

    Raises:
        SettingError: *name* is no name of a table.
    """

    def __init__(self, name: str, *, create: bool = True) -> None:
        if not _NAME.fullmatch(name):
            raise SettingError(
                "table must be 1 to 48 lower-case letters, digits or _, not beginning with a digit, "
                "and may have a schema before it"
            )
        self.name = name
        self.quoted = ".".join(f'"{part}"' for part in name.split("."))
        self._about = f'{self.quoted[:-1]}_about"'
        self._create = create
        self._identity: int | None = None
        self._turn = int.from_bytes(sha256(f"tanksend ledger {name}".encode()).digest()[:8], "big", signed=True)

    def statement(self, text: str) -> bytes:
        """A statement about the entries, whose ``{table}`` is filled in."""
        return text.replace("{table}", self.quoted).encode()

    def prepare(self, connection: Connection, place: str) -> None:
        """
        Make them, or bring them up to date, if they need it.

        Raises:
            LedgerError: They are somebody else's, newer than this library, or no longer those that they were.
        """
        if self._found(connection) == (True, True) and self._version(connection, place) == len(_STEPS):
            return
        # One at a time. The session holds the lock and not the transaction: one that begins after the wait sees what
        # somebody else made meanwhile, and an older one might not. Whether one table is there and the other is not can
        # be told only here: `to_regclass` sees what was committed after its statement began, so elsewhere the two
        # looks may fall before and after somebody else's making.
        connection.execute("SELECT pg_advisory_lock(%s::bigint)", (self._turn,))
        connection.execute("BEGIN")  # whoever gets an error here closes the connection
        self._migrate(connection, self._known(connection, place))
        connection.execute("COMMIT")
        self._version(connection, place)
        connection.execute("SELECT pg_advisory_unlock(%s::bigint)", (self._turn,))

    def _found(self, connection: Connection) -> tuple[Any, ...]:
        """Whether each of the two is there."""
        names = (self.quoted, self._about)
        return _row(connection, b"SELECT to_regclass(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL", names)

    def _known(self, connection: Connection, place: str) -> int:
        """The version, 0 if there are none; who was seen once has to be seen again."""
        found = self._found(connection)
        if found == (True, True):
            return self._version(connection, place)
        if any(found):
            raise told(place, "foreign")
        if self._identity is not None:
            raise told(place, "moved")
        if not self._create:
            raise told(place, "missing")
        return 0

    def _version(self, connection: Connection, place: str) -> int:
        """The version of tables that are there, which have to be those that were seen before."""
        version, identity = _row(connection, f"SELECT version, identity FROM {self._about}".encode())  # noqa: S608
        if version > len(_STEPS):
            raise told(place, "newer")
        if self._identity not in {None, identity}:
            raise told(place, "moved")
        self._identity = identity
        return int(version)

    def _migrate(self, connection: Connection, version: int) -> None:
        for statement in (statement for step in _STEPS[version:] for statement in step):
            connection.execute(self.statement(statement))
        if version == 0:
            about = f"CREATE TABLE {self._about} (version integer NOT NULL, identity bigint NOT NULL)"
            connection.execute(about.encode())
            made = f"INSERT INTO {self._about} VALUES (%s, %s)".encode()  # noqa: S608
            connection.execute(made, (len(_STEPS), secrets.randbits(62)))
        elif version < len(_STEPS):
            connection.execute(f"UPDATE {self._about} SET version = %s".encode(), (len(_STEPS),))  # noqa: S608


def _row(connection: Connection, statement: bytes, values: tuple[object, ...] | None = None) -> tuple[Any, ...]:
    found = connection.execute(statement, values).fetchone()
    assert found is not None  # noqa: S101  (each of them gives one)
    return found
