"""What became of a batch: `SendReport`, its rows and their file."""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ._messages import Message
from ._results import GOOD, Status
from .exceptions import BatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from ._results import SendResult
    from .exceptions import SendError

DOMAINS_SHOWN = 1_000
OTHER_DOMAINS = "other"
COLUMNS = ("index", "status", "message_id", "error")
CODES_KEPT = 100
OTHER_CODES = "other"
_DOMAINS_IN_HTML = 20
_CODES_IN_HTML = 5
# The first messages of a batch start at once: below this a share of the rate says more of them than of the pace.
_LONG_ENOUGH_FOR_A_SHARE = 60.0
# What a bad address has after its last "@" may be anything, and is shown only if it looks like a domain.
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[\w-]+(?:\.[\w-]+)+")


@attrs.frozen
class Row:
    """One line of a report: enough to find the message again, nothing personal."""

    index: int
    status: Status
    message_id: str | None
    error: str | None


class DomainCounts:
    """
    Fates per recipient domain in bounded memory.

    Exact for up to 2,000 domains. Beyond that the smaller half is folded into "other", so a large domain stays
    visible however many small ones a batch has.
    """

    _CAPACITY = 2 * DOMAINS_SHOWN

    def __init__(self) -> None:
        self._counts: dict[str, dict[Status, int]] = {}
        self._other: dict[Status, int] = {}

    def add(self, domain: str | None, status: Status) -> None:
        """Count one message to *domain*; None is one of the others."""
        counts = self._other if domain is None else self._of(domain)
        counts[status] = counts.get(status, 0) + 1

    def _of(self, domain: str) -> dict[Status, int]:
        counts = self._counts.get(domain)
        if counts is None:
            if len(self._counts) >= self._CAPACITY:
                self._fold(DOMAINS_SHOWN)
            counts = self._counts[domain] = {}
        return counts

    def _fold(self, keep: int) -> None:
        for domain, counts in self._ranked()[keep:]:
            del self._counts[domain]
            for status, number in counts.items():
                self._other[status] = self._other.get(status, 0) + number

    def _ranked(self) -> list[tuple[str, dict[Status, int]]]:
        # Copies, each made in one step: the thread that reads a report need not be the one that fills it.
        counts = [(domain, dict(counts)) for domain, counts in list(self._counts.items())]
        return sorted(counts, key=lambda item: (-sum(item[1].values()), item[0]))

    def as_mapping(self) -> dict[str, Mapping[Status, int]]:
        """The largest domains first, then "other" for the rest."""
        ranked = self._ranked()
        shown: dict[str, Mapping[Status, int]] = dict(ranked[:DOMAINS_SHOWN])
        other = Counter(dict(self._other))
        for _, counts in ranked[DOMAINS_SHOWN:]:
            other.update(counts)
        if other:
            shown[OTHER_DOMAINS] = dict(other)
        return shown


class Figures(Protocol):
    """The part of `tanksend.typing.LimiterFigures` that a report reckons with."""

    @property
    def granted_rate(self) -> float:
        """Recipients per second that the account may send."""
        ...


class SendReport:
    """
    What became of a batch.

    It fills while the batch runs; `Sender.last_report` shows it at any time, also after a stop.
    """

    def __init__(self, *, keep: int = 10_000) -> None:
        self._keep = keep
        self._counts = dict.fromkeys(Status, 0)
        self._domains = DomainCounts()
        self._rows: list[tuple[int, Status, str | None, str | None]] = []
        self._errors: dict[str, tuple[int, str]] = {}
        self._recipients = 0
        self._seconds_waited = 0.0
        self.throttled = 0
        """How often SES answered that the rate was exceeded."""
        self.duration = 0.0
        """Seconds from the first message taken in to the last fate."""
        self.note: str | None = None
        """Why the batch stopped early, when it did."""
        self.limiter: Figures | None = None
        """What the limiter knew of the account at the end (`tanksend.typing.LimiterFigures`), if it learns."""

    def add(self, result: SendResult) -> None:
        """Count one result."""
        status = result.status
        self._counts[status] += 1
        if status is Status.SENT:
            self._recipients += len(result.recipients)
        self._seconds_waited += result.waited
        people = result.recipients
        self._domains.add(people[0].domain if people else _domain(result), status)
        error = result.error
        if error is not None:
            self._add_error(error)
        if len(self._rows) < self._keep:
            self._rows.append((result.index, status, result.message_id, None if error is None else error.code))

    def _add_error(self, error: SendError) -> None:
        code = error.code or type(error).__name__
        if code not in self._errors and len(self._errors) >= CODES_KEPT:
            code = OTHER_CODES
        number, text = self._errors.get(code) or (0, str(error))
        self._errors[code] = (number + 1, text)

    @property
    def counts(self) -> Mapping[Status, int]:
        """Messages by fate; a fate that did not occur counts 0."""
        return MappingProxyType(dict(self._counts))

    @property
    def total(self) -> int:
        """Messages that have a fate."""
        return sum(self._counts.values())

    @property
    def by_domain(self) -> Mapping[str, Mapping[Status, int]]:
        """Fates by the domain of the first recipient: the 1,000 largest, and "other"; adds up to `counts`."""
        return MappingProxyType(self._domains.as_mapping())

    @property
    def rows(self) -> tuple[Row, ...]:
        """The first *keep* results, in the order they ended; `rows_cut` says how many are not here."""
        return tuple(Row(*row) for row in self._rows)

    @property
    def rows_cut(self) -> int:
        """Results that `rows` left out; ``save_to=`` keeps them all."""
        return self.total - len(self._rows)

    @property
    def errors(self) -> Mapping[str, tuple[int, str]]:
        """Why messages were not sent: by code, the most frequent first, how many, and what the first of them says."""
        ranked = sorted(dict(self._errors).items(), key=lambda item: -item[1][0])
        return MappingProxyType(dict(ranked))

    @property
    def recipients(self) -> int:
        """Recipients that SES accepted in this batch."""
        return self._recipients

    @property
    def waited(self) -> float:
        """Seconds that messages spent waiting for the pace and for retries, added up."""
        return self._seconds_waited

    @property
    def recipients_per_second(self) -> float:
        """Recipients that SES accepted, by the duration; 0.0 when nothing was timed."""
        return self._recipients / self.duration if self.duration > 0 else 0.0

    @property
    def use_of_rate(self) -> float | None:
        """`recipients_per_second` as a share of the account's rate; None where that is not known or unlimited."""
        granted = self.limiter.granted_rate if self.limiter is not None else math.inf
        return None if math.isinf(granted) else self.recipients_per_second / granted

    @property
    def ok(self) -> bool:
        """Whether SES has every message, now or from an earlier run."""
        return all(status in GOOD for status, number in self._counts.items() if number) and self.note is None

    def raise_for_failures(self) -> None:
        """
        Do nothing when all is well.

        Raises:
            BatchError: Some message is not with SES; `BatchError.report` is this report.
        """
        if not self.ok:
            why = [f"{code}: {text}" for code, (_, text) in list(self.errors.items())[:1] if not self.note]
            raise BatchError("; ".join([str(self), *why]), report=self)

    def to_pandas(self) -> Any:  # noqa: ANN401  (pandas is optional)
        """
        `rows` as a ``pandas.DataFrame``.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd  # optional, and slow to import

        return pd.DataFrame([cells(row) for row in self.rows], columns=list(COLUMNS))

    def to_csv(self, path: str | Path) -> None:
        """Write `rows` to a file that only this user may read; what was in it is gone. Blocks while it writes."""
        with RowFile(path) as file:
            for row in self.rows:
                file.write(row)

    def __str__(self) -> str:
        parts = [f"{status.value} {number}" for status, number in self._counts.items() if number]
        text = " · ".join(parts) or "nothing to send"
        return f"{text} ({self.note})" if self.note else text

    def __repr__(self) -> str:
        return f"<SendReport {self}>"

    def _repr_html_(self) -> str:
        """Counts and domains as HTML tables, and why messages were not sent, for notebooks."""
        used = [status for status, number in self.counts.items() if number]
        head = "".join(f"<th>{_escaped(status.value)}</th>" for status in used)
        lines = [f"<tr><td><b>all</b></td>{_cells_html(self._counts, used)}</tr>"]
        domains = list(self.by_domain.items())
        for domain, counts in domains[:_DOMAINS_IN_HTML]:
            lines.append(f"<tr><td>{_escaped(domain)}</td>{_cells_html(counts, used)}</tr>")
        if len(domains) > _DOMAINS_IN_HTML:
            lines.append(f"<tr><td>… and {len(domains) - _DOMAINS_IN_HTML:,} more</td></tr>")
        pace = f"{self.duration:.1f} s, {self.recipients_per_second:.1f} recipients/s, throttled {self.throttled}"
        if self.use_of_rate is not None and self.duration >= _LONG_ENOUGH_FOR_A_SHARE:
            pace += f", {self.use_of_rate:.1%} of the account's rate"
        note = f"<p>{_escaped(self.note)}</p>" if self.note else ""
        why = "".join(
            f"<p>{_escaped(code)} ({number}): {_escaped(text)}</p>"
            for code, (number, text) in list(self.errors.items())[:_CODES_IN_HTML]
        )
        return f"<table><tr><th>domain</th>{head}</tr>{''.join(lines)}</table><p>{pace}</p>{note}{why}"


def _escaped(text: str) -> str:
    from html import escape  # only here: keeps the import of the package quick

    return escape(text)


def _cells_html(counts: Mapping[Status, int], used: Iterable[Status]) -> str:
    return "".join(f"<td>{counts.get(status, 0)}</td>" for status in used)


def _domain(result: SendResult) -> str | None:
    """The domain of the first who was not to get it, None when there is nothing that looks like one."""
    if result.suppressed:
        return result.suppressed[0].domain
    message = result.message
    if not isinstance(message, Message):  # a batch reports that, too
        return None
    domain = next((address.domain.lower() for address in message.recipients), "")
    return domain if _DOMAIN.fullmatch(domain) else None


def row_of(result: SendResult) -> Row:
    """The line of a report for one result."""
    error = result.error.code if result.error is not None else None
    return Row(result.index, result.status, result.message_id, error)


def cells(row: Row) -> tuple[str | int | None, ...]:
    """The values of a line, in the order of `COLUMNS`."""
    return (row.index, row.status.value, row.message_id, row.error)


class RowFile:
    """
    A CSV file of rows that only this user may read (mode 0600). Blocks while it writes.

    Each row is handed to the operating system as it comes: a process that is killed leaves all of them.

    A cell that a spreadsheet would run as a formula is quoted with an apostrophe.
    """

    def __init__(self, path: str | Path) -> None:
        import csv  # only here: keeps the import of the package quick

        # The replacement is for ids with half a surrogate pair: no answer of any server may stop a batch here.
        self._file = open(  # noqa: SIM115  (closed below)
            path, "w", buffering=1, encoding="utf-8", errors="backslashreplace", newline="", opener=open_private
        )
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        """Add one line."""
        self._writer.writerow([harmless(cell) for cell in cells(row)])

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_private(path: str, flags: int) -> int:
    """Open, with mode 0600 also for a file that was there before."""
    descriptor = os.open(path, flags, 0o600)
    try:
        # A device or a pipe, such as /dev/null, is not ours to close to others.
        if os.chmod in os.supports_fd and stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.chmod(descriptor, 0o600)  # noqa: PTH101  (a path may meanwhile be another file)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def harmless(cell: str | int | None) -> str:
    """A cell that no spreadsheet runs as a formula."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
