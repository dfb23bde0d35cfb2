"""``tanksend ledger``: what became of the keys of a ledger, and what a person may decide about them."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Protocol, cast

import anyio

from .._csv import moment
from .._results import Status
from ..exceptions import TanksendError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from ..typing import LedgerEntry

_DAY = 86_400.0
_LISTED = 100
_INTERRUPTED = 130  # as a shell says it
_SETTLED = {"sent": Status.SENT, "not-sent": Status.FAILED}
_MEANS = {
    None: "claimed: somebody is working on them",
    Status.SENT: "sent",
    Status.UNKNOWN: "unknown: SES may have them; never sent again unless you say so",
    Status.FAILED: "failed: sent again by the next run",
    Status.HELD: "held: sent again by the next run",
    Status.INVALID: "invalid: tried again by the next run",
    Status.SUPPRESSED: "suppressed: asked again by the next run",
}
_URL = re.compile(r"postgres(?:ql)?://")
_SETTINGS = re.compile(r"\s*(?:host|hostaddr|port|dbname|user|service)\s*=")


class _Book(Protocol):
    """What both ledgers that last can do, beyond `Ledger`."""

    def pending(self) -> AsyncIterator[LedgerEntry]: ...
    async def counts(self) -> Mapping[Status | None, int]: ...
    async def settle(self, key: str, status: Status, *, message_id: str | None = None) -> bool: ...
    async def purge(self, older_than: float | dt.timedelta, *, unknown: bool = False) -> int: ...
    async def to_csv(self, path: str | os.PathLike[str]) -> int: ...
    async def aclose(self) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked, then show the ledger; `argv` is without the program's name. 1: not all of it could be done."""
    parser = _parser()
    options = parser.parse_args(argv)
    if bad := _mistake(options):
        parser.error(bad)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a key may hold what this terminal cannot show
    try:
        book = _open(options)
        status = anyio.run(_run, book, options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has; what is still to be shown goes nowhere
        _hush()
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (TanksendError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return status


def _hush() -> None:
    """Point the output to nowhere, so that Python does not complain of it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tanksend ledger",
        description="Show what became of the keys of a ledger: how many came to which fate, and those whose fate is "
        "unknown. Everything else is done first, in the order below. A key that is settled as not sent, or forgotten, "
        "is sent by the next run that has it.",
        epilog="A password need not be written here: PGPASSWORD, PGPASSFILE and a pg_service.conf work as usual.",
    )
    add = parser.add_argument
    add("ledger", metavar="PATH|DSN", help="an SQLite file, or postgresql://user@host/database")
    add("--table", default="tanksend_ledger", help="the table, in PostgreSQL (default: %(default)s)")
    add(
        "--settle",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "sent|not-sent"),
        help="decide the fate of an unknown key; may be repeated",
    )
    add("--message-id", metavar="ID", help="SES's message id, for one key that is settled as sent")
    add("--csv", metavar="FILE", help="write all keys with their fates, mode 0600")
    add("--purge", type=float, metavar="DAYS", help="forget keys that came to their fate longer ago")
    add("--purge-unknown", action="store_true", help="with --purge: those whose fate is unknown, too")
    add("--limit", type=int, default=_LISTED, metavar="N", help="list so many unknown keys (default: %(default)s)")
    return parser


def _mistake(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, if anything is."""
    if wrong := next((word for _, word in options.settle if word not in _SETTLED), None):
        return f"a key is settled as sent or not-sent, not as {wrong!r}"
    if options.message_id is not None and [word for _, word in options.settle] != ["sent"]:
        return "--message-id belongs to one key that is settled as sent"
    if options.purge is not None and not options.purge >= 0:
        return "--purge takes a number of days, from 0 on"
    if options.purge_unknown and options.purge is None:
        return "--purge-unknown belongs to --purge"
    return None


def _open(options: argparse.Namespace) -> _Book:
    """
    The ledger; it has to be there already.

    Raises:
        FileNotFoundError: There is no such file, or nothing in it.
        SettingError: The DSN or the table cannot be used.
    """
    name = options.ledger
    if _URL.match(name) or (_SETTINGS.match(name) and not os.path.exists(name)):  # noqa: PTH110
        from ..ledgers import PostgresLedger

        return PostgresLedger(name, table=options.table, timeout=5.0, create=False)
    if not os.path.exists(name):  # noqa: PTH110
        raise FileNotFoundError(f"there is no file {name}")
    if os.path.isfile(name) and not os.path.getsize(name):  # noqa: PTH113, PTH202
        raise FileNotFoundError(f"there is no ledger in {name}: it is empty")
    from ..ledgers import SQLiteLedger

    return SQLiteLedger(name)


async def _run(book: _Book, options: argparse.Namespace) -> int:
    try:
        missed = [key for key, word in options.settle if not await _settle(book, key, word, options.message_id)]
        if options.csv is not None:
            print(f"{await book.to_csv(options.csv):,} keys written to {options.csv}")
        if options.purge is not None:
            gone = await book.purge(options.purge * _DAY, unknown=options.purge_unknown)
            print(f"{gone:,} keys forgotten")
        await _show(book, options.limit)
    finally:
        with anyio.CancelScope(shield=True):
            await book.aclose()
    return 1 if missed else 0


async def _settle(book: _Book, key: str, word: str, message_id: str | None) -> bool:
    done = await book.settle(key, _SETTLED[word], message_id=message_id)
    if done:
        print(f"{_shown(key)}: {word}")
    else:
        reason = "its fate is not unknown: it is settled or free already, or somebody is working on it"
        print(f"{_shown(key)}: left as it is, {reason}", file=sys.stderr)
    return done


async def _show(book: _Book, limit: int) -> None:
    counts = await book.counts()
    width = max(len(f"{number:,}") for number in (*counts.values(), 0))
    print("\n".join(f"{counts.get(fate, 0):>{width},}  {text}" for fate, text in _MEANS.items()))
    if unknown := counts.get(Status.UNKNOWN, 0):
        print(f"\nunknown ({min(limit, unknown):,} of {unknown:,}):")
        await _list(book, limit)


async def _list(book: _Book, limit: int) -> None:
    listed = count(1)
    if limit < 1:
        return
    async with aclosing(cast("AsyncGenerator[LedgerEntry, None]", book.pending())) as pending:
        async for entry in pending:
            if entry.status is Status.UNKNOWN:
                print(f"  {moment(round(entry.at))}  {_shown(entry.key)}  {entry.error_code or ''}".rstrip())
                if next(listed) >= limit:
                    return


def _shown(key: str) -> str:
    """A key on one line of a terminal, which it cannot command; it is the operator's own."""
    return key if key.isprintable() else ascii(key)[1:-1]
