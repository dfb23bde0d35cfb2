"""
The rows of a ledger in PostgreSQL: read, changed and written for all that was asked for at once.

What a lost connection was doing may have been done, so a group may be carried out twice. Each `Errand` has a mark, and
a row keeps the mark of the last one that changed it: an errand that finds its own mark has been done, and answers as it
would have done then.

A group is one transaction. It locks the rows there are, in the order of their digests, and then makes those there are
not. What somebody else made meanwhile is left out and tried again in a transaction of its own: so nobody ever waits in
a circle. Keys have nothing to do with each other, so that is as good as one.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

import attrs

from .._results import Status
from ..typing import LedgerEntry
from ._book import CLAIMED, CODES, STATUSES
from ._keys import digest
from ._postgres_link import living, together
from ._states import Row, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import psycopg

    from ..typing import Clock
    from ._postgres_tables import Tables

    Connection = psycopg.Connection[tuple[Any, ...]]
    Act = Callable[["Row | None", Any, View, bool], tuple[Any, "Row | None"]]

_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_NOW = b"SELECT extract(epoch FROM clock_timestamp())::float8"
_COLUMNS = "status, owner, until, doubt, message_id, error_code, at"
_NAMED = "digest, key, " + _COLUMNS
_FIND = f"SELECT digest, {_COLUMNS}, mark, id FROM {{table}} WHERE digest = ANY(%s) ORDER BY digest FOR UPDATE"  # noqa: S608
_LOOK_UP = f"SELECT digest, {_COLUMNS} FROM {{table}} WHERE digest = ANY(%s)"  # noqa: S608
_PAGE = (
    f"SELECT id, key, {_COLUMNS} FROM {{table}} "  # noqa: S608
    "WHERE id > %s AND id <= %s AND status = ANY(%s) ORDER BY id LIMIT %s"
)
_VALUES = (
    "%s::smallint[], %s::bigint[], %s::float8[], %s::boolean[], %s::text[], %s::text[], %s::float8[], %s::bigint[]"
)
_INSERT = (
    f"INSERT INTO {{table}} ({_NAMED}, mark) SELECT * FROM unnest(%s::bytea[], %s::text[], {_VALUES}) "  # noqa: S608
    "ON CONFLICT (digest) DO NOTHING RETURNING digest"
)
_UPDATE = (
    "UPDATE {table} AS old SET status = new.status, owner = new.owner, until = new.until, doubt = new.doubt, "  # noqa: S608
    "message_id = new.message_id, error_code = new.error_code, at = new.at, mark = new.mark "
    f"FROM unnest(%s::bigint[], {_VALUES}) AS new (id, {_COLUMNS}, mark) WHERE old.id = new.id"
)
_COUNT = """
SELECT status, CASE WHEN status = 0 AND until > %s THEN owner END AS working, count(*) FROM {table}
WHERE id > %s AND id <= %s GROUP BY 1, 2
"""
_LAST = "SELECT coalesce(max(id), 0) FROM {table}"
# Rows that others have in hand are not old; passing over them, this waits for nobody.
_PURGE = """
DELETE FROM {table} WHERE id = ANY(array(
    SELECT id FROM {table}
    WHERE id > %(first)s AND id <= %(last)s AND at < %(before)s
      AND (status NOT IN (0, 2) OR %(unknown)s AND (status = 2 OR until <= %(now)s))
    FOR UPDATE SKIP LOCKED))
"""

_LOOKED_AT_ONCE = 200_000
"""Rows that one statement looks at: whatever the size of the table, it answers soon, or the server is frozen."""

_HARD = re.compile(r"[\\\0\ud800-\udfff]")
_FOREIGN = re.compile(r"[^\x01-\x5b\x5d-\x7f]")
_ESCAPED = re.compile(r"\\u\{([0-9a-f]+)\}")


def _mark() -> int:
    """A number that no other errand has: of no other process either, nor of one that is forked from this."""
    return secrets.randbits(62)


@attrs.define(eq=False)
class Errand:
    """
    What one call asks of some keys.

    Attributes:
        act: From the row, what is asked, the view and whether the row has our mark: the answer, and the row as it is to
            be, or None where nothing changes.
        asked: Digest, key and what is asked of it.
        mine: Marks that are as good as this errand's own, by digest.
        mark: Its own.
        answers: One for each that was asked.
    """

    act: Act
    asked: Sequence[tuple[bytes, str, Any]]
    mine: Mapping[bytes, int] = attrs.field(factory=dict)
    mark: int = attrs.field(factory=_mark)
    answers: list[Any] = attrs.field(factory=list)

    def __call__(self, _: object) -> list[Any]:
        return self.answers

    def is_mine(self, name: bytes, mark: int) -> bool:
        """Whether a row with this mark has been changed by this errand, or by one that it follows."""
        return mark == self.mark or mark == self.mine.get(name)


@attrs.frozen
class Rows:
    """
    The entries' table, for whoever has a connection.

    Args:
        tables: Where it is.
        clock: Where the time comes from; None is the server, whose time is the same for all hosts.
    """

    tables: Tables
    clock: Clock | None

    def carry_out(self, connection: Connection, errands: Sequence[Errand], me: int) -> None:
        """Carry out *errands*, in their order for each key. Their answers hold when this returns, and not before."""
        steps: dict[bytes, list[tuple[Errand, int]]] = {}
        for errand in errands:
            errand.answers = [None] * len(errand.asked)
            for index, (name, _, _) in enumerate(errand.asked):
                steps.setdefault(name, []).append((errand, index))
        left = sorted(steps)
        while left:
            left = self._carry_out(connection, left, steps, me)

    def _carry_out(
        self, connection: Connection, names: list[bytes], steps: Mapping[bytes, list[tuple[Errand, int]]], me: int
    ) -> list[bytes]:
        with together(connection):
            connection.execute(_BEGIN)
            cursor = connection.execute(self.tables.statement(_FIND), (names,), binary=True)
            asked = connection.execute(_NOW)
        found = {name: (row_of(values), mark, place) for name, *values, mark, place in cursor.fetchall()}
        view = self._view(connection, me, self._now(asked), (row for row, _, _ in found.values()))
        changes = _Changes(_is_foreign(connection))
        for name in names:
            row, mark, place = found.get(name, (None, None, None))
            _fold(changes, steps[name], view, name=name, row=row, mark=mark, place=place)
        return self._write(connection, changes)

    def _write(self, connection: Connection, changes: _Changes) -> list[bytes]:
        """Commit; what somebody else made meanwhile is returned."""
        made = None
        with together(connection):
            if changes.names:
                made = connection.execute(self.tables.statement(_INSERT), changes.made(), binary=True)
            if changes.places:
                connection.execute(self.tables.statement(_UPDATE), changes.changed())
            connection.execute(b"COMMIT")
        there = {name for (name,) in made.fetchall()} if made is not None else set()
        return [name for name in changes.names if name not in there]

    def find(self, connection: Connection, keys: Sequence[str], me: int) -> Mapping[str, LedgerEntry]:
        """What is known of *keys*."""
        names = {digest(key): key for key in keys}
        with together(connection):
            cursor = connection.execute(self.tables.statement(_LOOK_UP), (list(names),), binary=True)
            asked = connection.execute(_NOW)
        found = cursor.fetchall()
        view = self._view(connection, me, self._now(asked), map(row_of, _claimed(values[1:] for values in found)))
        return {names[name]: _entry(names[name], values, view) for name, *values in found}

    def page(
        self, connection: Connection, *, after: int, codes: Sequence[int], size: int, me: int
    ) -> tuple[int, list[LedgerEntry]]:
        """Some of the next entries of these statuses, and the place up to which these are all."""
        end = after + _LOOKED_AT_ONCE
        with together(connection):
            cursor = connection.execute(self.tables.statement(_PAGE), (after, end, list(codes), size), binary=True)
            asked = connection.execute(_NOW)
        found = cursor.fetchall()
        view = self._view(connection, me, self._now(asked), map(row_of, _claimed(values[2:] for values in found)))
        entries = [_entry(unescaped(key), values, view) for _, key, *values in found]
        return (found[-1][0] if len(found) == size else end), entries

    def count(self, connection: Connection, me: int) -> Mapping[Status | None, int]:
        """Keys by fate."""
        counts: dict[Status | None, int] = dict.fromkeys(STATUSES, 0)
        now, found = self._now(connection.execute(_NOW)), list[tuple[Any, ...]]()
        for start in range(0, self.last(connection), _LOOKED_AT_ONCE):
            places = (start, start + _LOOKED_AT_ONCE)
            found += connection.execute(self.tables.statement(_COUNT), (now, *places)).fetchall()
        alive = living(connection, {owner for _, owner, _ in found if owner not in {None, me}})
        for code, owner, number in found:
            is_over = code == CLAIMED and (owner is None or not (owner == me or alive(owner)))
            counts[Status.UNKNOWN if is_over else STATUSES[code]] += number
        return counts

    def last(self, connection: Connection) -> int:
        """The place of the last row."""
        found = connection.execute(self.tables.statement(_LAST)).fetchone()
        return int(found[0]) if found else 0

    def purge(self, connection: Connection, *, places: tuple[int, int], age: float, unknown: bool) -> int:
        """Delete what is older, of a range of places."""
        now = self._now(connection.execute(_NOW))
        values = {"first": places[0], "last": places[1], "before": now - age, "now": now, "unknown": unknown}
        return connection.execute(self.tables.statement(_PURGE), values).rowcount

    def _now(self, asked: psycopg.Cursor[tuple[Any, ...]]) -> float:
        if self.clock is not None:
            return self.clock.wall()
        found = asked.fetchone()
        return float(found[0]) if found else 0.0

    def _view(self, connection: Connection, me: int, now: float, rows: Iterable[Row]) -> View:
        """Who lives is asked only where it matters, and after the rows were read."""
        open_ = (row for row in rows if row.status is None and now < row.until)
        return View(
            me, now, living(connection, {row.owner for row in open_ if row.owner is not None and row.owner != me})
        )


class _Changes:
    """Rows to make and rows to change, as columns."""

    def __init__(self, foreign: bool) -> None:  # noqa: FBT001
        self._foreign = foreign
        self.names: list[bytes] = []
        self.places: list[int] = []
        self._keys: list[str] = []
        self._made: list[tuple[object, ...]] = []
        self._changed: list[tuple[object, ...]] = []

    def put(self, row: Row, mark: int, *, name: bytes, key: str, place: int | None) -> None:
        """Note a row; without a *place* it has to be made."""
        texts = (self._text(row.message_id), self._text(row.error_code))
        values = (CODES[row.status], row.owner, row.until or None, row.doubt, *texts, row.at, mark)
        if place is None:
            self.names.append(name)
            self._keys.append(escaped(key, foreign=self._foreign))
            self._made.append(values)
        else:
            self.places.append(place)
            self._changed.append(values)

    def _text(self, text: str | None) -> str | None:
        return None if text is None else escaped(text, foreign=self._foreign)

    def made(self) -> list[list[object]]:
        """The columns of the rows to make."""
        return [[*self.names], [*self._keys], *map(list, zip(*self._made, strict=True))]

    def changed(self) -> list[list[object]]:
        """The columns of the rows to change."""
        return [[*self.places], *map(list, zip(*self._changed, strict=True))]


def _fold(
    changes: _Changes,
    steps: Iterable[tuple[Errand, int]],
    view: View,
    *,
    name: bytes,
    row: Row | None,
    mark: int | None,
    place: int | None,
) -> None:
    """Do to one row what is asked of it, one errand after the other."""
    new_mark, name_of_new = None, ""
    for errand, index in steps:
        _, key, what = errand.asked[index]
        mine = mark is not None and errand.is_mine(name, mark)
        errand.answers[index], new = errand.act(row, what, view, mine)
        if new is not None:
            row, mark, new_mark, name_of_new = new, None, errand.mark, key
    if row is not None and new_mark is not None:
        changes.put(row, new_mark, name=name, key=name_of_new, place=place)


def row_of(values: Sequence[Any]) -> Row:
    """A row from its columns."""
    status, owner, until, doubt, message_id, error_code, at = values
    return Row(STATUSES[status], owner, until or 0.0, doubt, _told(message_id), _told(error_code), at)


def _claimed(rows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    return (values for values in rows if values[0] == CLAIMED)


def _entry(key: str, values: Sequence[Any], view: View) -> LedgerEntry:
    if values[0] == CLAIMED:
        return view.entry(key, row_of(values))
    return LedgerEntry(key, STATUSES[values[0]], _told(values[4]), _told(values[5]), values[6])


def _told(text: str | None) -> str | None:
    return None if text is None else unescaped(text)


def _is_foreign(connection: Connection) -> bool:
    """Whether the database holds some alphabets only."""
    return connection.info.parameter_status("server_encoding") not in {"UTF8", "SQL_ASCII"}


def escaped(text: str, *, foreign: bool = False) -> str:
    r"""*text* as the database can hold it: what it cannot hold as ``\u{…}``, and the backslash too."""
    return (_FOREIGN if foreign else _HARD).sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)


def unescaped(text: str) -> str:
    """What was `escaped`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "\\" in text else text
