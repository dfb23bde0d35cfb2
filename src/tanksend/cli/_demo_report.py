"""What the demo says at its end: fates, domains, pace, and what the simulated SES has in its inbox."""

from __future__ import annotations

import statistics
import sys
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from .._results import GOOD, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._messages import Message
    from .._report import SendReport
    from .._results import SendResult
    from ..testing import Inbox, SimulatedSES

ROW_TAG = "row"
"""The message tag by which a message in the inbox finds its row again."""

_FATES = (Status.SENT, Status.SUPPRESSED, Status.INVALID, Status.UNKNOWN, Status.FAILED, Status.HELD)
_MARGIN = 12
_BAR = 40
_DOMAIN = 40


@attrs.frozen
class Audit:
    """
    What tanksend said, held against what the simulated SES has taken.

    Args:
        doubled: Messages that were delivered more than once.
        lost: Messages that are called sent and are not in the inbox.
        strays: Messages that are in the inbox and called neither sent nor unknown.
        fateless: Messages without a fate, and fates without a message.
        arrived: Messages with an unknown fate that are in the inbox.
    """

    doubled: int
    lost: int
    strays: int
    fateless: int
    arrived: int

    @property
    def complaints(self) -> list[str]:
        """What must not be, in words; empty when all is well."""
        found = {
            "delivered more than once": self.doubled,
            "called sent, but not in the inbox": self.lost,
            "in the inbox, but not called sent": self.strays,
            "without a fate, or with two": self.fateless,
        }
        return [f"{number} {text}" for text, number in found.items() if number]


def audit(messages: Sequence[Message], report: SendReport, inbox: Inbox) -> Audit:
    """Compare, message by message; *report* has to hold all rows."""
    deliveries = inbox.deliveries(tag=ROW_TAG)
    receipts = {(item.tags[ROW_TAG], item.message_id) for item in inbox}
    fates = [(messages[row.index].tags[ROW_TAG], row) for row in report.rows]
    named = Counter(tag for tag, _ in fates)
    possible = {tag for tag, row in fates if row.status in GOOD or row.status is Status.UNKNOWN}
    return Audit(
        doubled=sum(number > 1 for number in deliveries.values()),
        lost=sum(row.status is Status.SENT and (tag, row.message_id) not in receipts for tag, row in fates),
        strays=len(deliveries.keys() - possible),
        fateless=abs(len(messages) - len(named)) + sum(number > 1 for number in named.values()),
        arrived=sum(row.status is Status.UNKNOWN and tag in deliveries for tag, row in fates),
    )


def closing_line(report: SendReport, found: Audit) -> str:
    """The last line of the demo."""
    fates = [f"{status.value} {report.counts[status]}" for status in _FATES]
    return " · ".join([*fates, f"doubled {found.doubled}", f"lost {found.lost}"])


def fate_lines(report: SendReport, found: Audit) -> Iterator[str]:
    """How many of each fate, with a bar and a remark."""
    most = max(report.counts.values()) or 1
    remarks = {Status.UNKNOWN: f"no usable answer came; SES has {found.arrived} of them, and none was sent again"}
    for status in _FATES:
        number = report.counts[status]
        remark = remarks.get(status) or _codes(report, status)
        bar = bar_of(number / most)
        yield f"  {status.value:<{_MARGIN}}{number:>5}  {bar}{'  ' if bar else ''}{remark if number else ''}".rstrip()


def _codes(report: SendReport, status: Status) -> str:
    """Why messages failed or were held, by code."""
    if status not in {Status.FAILED, Status.HELD}:
        return ""
    codes = Counter(row.error for row in report.rows if row.status is status)
    return ", ".join(f"{code} {number}" for code, number in codes.most_common())


def domain_lines(report: SendReport, most: int = 10) -> Iterator[str]:
    """The largest domains: a column for each fate that occurred."""
    domains = [(shown_domain(domain), counts) for domain, counts in list(report.by_domain.items())[:most]]
    used = [status for status in _FATES if any(counts.get(status) for _, counts in domains)]
    width = max([_width(domain) for domain, _ in domains], default=0)
    yield f"  {'':<{width}}" + "".join(f"{status.value:>12}" for status in used)
    for domain, counts in domains:
        cells = "".join(f"{counts.get(status) or '-':>12}" for status in used)
        yield f"  {domain}{' ' * (width - _width(domain))}{cells}"


def shown_domain(domain: str) -> str:
    """A domain as its owner writes it. What is none, in a bad row, may be anything, and is not repeated."""
    if not domain or not all(character.isalnum() or character in ".-" for character in domain):
        return "(no domain)"
    try:
        shown = domain.encode("ascii").decode("idna")
    except UnicodeError:
        shown = domain
    return shown if len(shown) <= _DOMAIN else f"{shown[: _DOMAIN - 3]}..."


def _width(text: str) -> int:
    """Columns on a terminal: Korean and Japanese letters take two. Source: Unicode Standard Annex #11."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def bad_row_lines(refused: Sequence[SendResult], most: int) -> Iterator[str]:
    """Which lines of the file cannot be sent to, and why; never what they hold."""
    for result in refused[:most]:
        yield f"  line {result.message.tags[ROW_TAG]:>5}  {_reason(result)}"
    if len(refused) > most:
        yield f"  and {len(refused) - most} more"


def _reason(result: SendResult) -> str:
    problems: Iterable[object] = getattr(result.error, "problems", ())
    return "; ".join(str(getattr(problem, "reason", problem)) for problem in problems)


def pace_lines(report: SendReport, ses: SimulatedSES) -> Iterator[str]:
    """The rate that was held, beside the quota, and what went wrong on purpose."""
    faults = ", ".join(f"{name} {number}" for name, number in sorted(ses.counts.faults.items()))
    yield (
        f"  {'rate':<{_MARGIN}}{median_second(ses.inbox):g} recipients in the median second, "
        f"{ses.inbox.busiest()} in the busiest, {ses.rate:g} allowed"
    )
    yield f"  {'throttled':<{_MARGIN}}{report.throttled} of {ses.counts.sends} requests"
    yield f"  {'took':<{_MARGIN}}{report.duration:.1f} s over {ses.counts.connections} connections"
    yield f"  {'faults':<{_MARGIN}}{faults or 'none'}"


def median_second(inbox: Inbox) -> float:
    """Recipients accepted in the median of the whole seconds; of what there is, if that is less than one."""
    if not len(inbox):
        return 0.0
    begin = inbox[0].at
    seconds: Counter[int] = Counter()
    for item in inbox:
        seconds[int(item.at - begin)] += len(item.recipients)
    whole = max(1, int(inbox[-1].at - begin))
    return statistics.median(seconds[second] for second in range(whole))


def bar_of(share: float, width: int = _BAR) -> str:
    """A bar of *width* characters when *share* is 1; whatever is above nothing can be seen."""
    return glyph() * (max(1, round(share * width)) if share > 0 else 0)


def glyph() -> str:
    """What bars are made of, where stdout can show it."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "#"
    return "█"
