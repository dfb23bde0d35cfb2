"""What PostgreSQL's errors mean to people: which database, what is wrong, and what to do. No password is ever named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..exceptions import LedgerError, SettingError

if TYPE_CHECKING:
    from psycopg import Error

# SQLSTATE codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "42P07",  # duplicate_table: somebody made it meanwhile, under another spelling of its name
        "23505",  # unique_violation: the same, a little earlier
        "53300",  # too_many_connections
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P05",  # idle_session_timeout
        "25P03",  # idle_in_transaction_session_timeout
    }
)
_CODES = {
    "55P03": "locked",
    "25006": "read-only",
    "42501": "read-only",
    "53100": "full",
    "42P01": "moved",
    "42703": "foreign",
    "3F000": "missing",
    "XX001": "damaged",
    "XX002": "damaged",
}
_TEXTS = {
    "locked": "is locked by another program. Close what has its table open for writing, or wait until it is done",
    "read-only": "cannot be written to. Connect to the primary server, as a user who may make its tables and write",
    "full": "cannot grow: the server's disk is full. Make room on it, then run again",
    "foreign": "belongs to another program. Name another table; this one is left as it is",
    "newer": "was written by a newer version of this library. Upgrade it here, or name another table",
    "damaged": "is damaged. Stop writing to this server, and restore it from a backup",
    "moved": "was dropped, or replaced by another, while it was in use. Put it back, then run again",
    "missing": "is not there. Check the database, and the name of the table and its schema",
    "refused": "cannot be opened: the server refuses the connection. Check user, password, database and pg_hba.conf",
    "forked": "is open in a process that was forked past Python. Start a new process, or fork with os.fork",
    "unreachable": "cannot be reached, or went away. Check that the server runs, then run again: nothing was sent "
    "whose claim it did not confirm",
}
_KNOWN = frozenset({"locked", "read-only", "full", "foreign", "newer", "damaged"})

# A refusal to connect comes without an SQLSTATE, so its text is all there is; in other languages it is just waited out.
_FATAL = re.compile(r"FATAL:|no password supplied|invalid ")
_LATER = re.compile(r"starting up|shutting down|recovery|too many|remaining connection slots|not (?:yet )?accepting")


def told(place: str, code: str, cause: BaseException | None = None) -> LedgerError:
    """The error for people: *code* is one of `StorageError.code`, or what is ``unreachable`` to programs."""
    return LedgerError(
        f"The ledger {place} {_TEXTS[code]}.",
        code=code if code in _KNOWN else "unreachable",
        cause_type=None if cause is None else _name(cause),
    )


def code_of(error: Error) -> str:
    """Which of the codes an error of PostgreSQL's stands for."""
    if error.sqlstate is None and _is_refusal(error):
        return "refused"
    return _CODES.get(error.sqlstate or "", "unreachable")


def passes(error: Error) -> bool:
    """Whether it may be done soon: the connection was lost, the server is restarting, or somebody was in the way."""
    if error.sqlstate is not None:
        return error.sqlstate in _PASSING or error.sqlstate.startswith("08")
    import psycopg

    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not _is_refusal(error)


def _is_refusal(error: Error) -> bool:
    text = str(error)
    return bool(_FATAL.search(text)) and not _LATER.search(text)


def _name(cause: BaseException) -> str:
    """Type and code of an error; its text may carry data."""
    detail = getattr(cause, "sqlstate", None)
    return f"{type(cause).__name__} ({detail})" if detail else type(cause).__name__


def need_psycopg() -> None:
    """
    See that the driver is there.

    Raises:
        SettingError: It is not installed.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise SettingError("PostgresLedger needs psycopg 3: pip install 'tanksend[postgres]'") from None
