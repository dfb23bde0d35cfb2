"""
``tanksend demo``: a campaign to a simulated SES that fails on purpose, and a count of what arrived.

`letter` and `campaign` are how a program uses tanksend. The rest sets the stage, and does not take anybody's word for
what happened: it looks into the inbox.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from .._messages import Message, Unsubscribe
from .._results import Status
from .._sender import Sender
from ..limiters import TokenBucketLimiter
from ..suppression import MemorySuppressionStore
from ..testing import Credential, Faults, SimulatedSES
from ..transports import Credentials, SESTransport
from ._demo_report import (
    ROW_TAG,
    Audit,
    audit,
    bad_row_lines,
    bar_of,
    closing_line,
    domain_lines,
    fate_lines,
    pace_lines,
)
from ._people import Person, each_once, read_people, suppressions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .._report import SendReport
    from .._results import SendResult

PEOPLE = Path(__file__).parent / "people.csv"
FAULTS = {
    "reset-before": 0.01,
    "reset-after": 0.01,
    "close-after": 0.005,
    "500": 0.01,
    "503": 0.015,
    "garbage": 0.005,
    "slow": 0.01,
}
_KEYS = Credentials("AKIADEMO", "not-a-secret")
_DOMAIN = "yokee.co.id"
_HEADROOM = 0.98  # Of the rate: on a busy machine a request may reach SES 20 ms late, and so too near to the next.
_BAD_ROWS_SHOWN = {True: 5, False: 50}
_INTERRUPTED = 130

_LETTERS = {
    "en": ("News from Tank in November", "Hello {name}!", "Your tank is full, and so is this letter."),
    "id": ("Kabar Tank bulan November", "Halo {name}!", "Tangki Anda penuh, begitu juga surat ini."),
    "ja": ("タンク便り 11月号", "{name} 様", "11月のお知らせをお届けします。"),
    "ko": ("탱크 11월 소식", "{name}님, 안녕하세요!", "11월의 소식을 전해 드립니다."),
}


# --- how a program uses tanksend --------------------------------------------------------------------------------------


def letter(person: Person) -> Message:
    """The message to one person. A bad address is no error here: its row gets the fate ``INVALID``, others go on."""
    subject, greeting, news = _LETTERS.get(person.language, _LETTERS["en"])
    greeting = greeting.format(name=person.address.name or "friend")
    return Message(
        to=person.address,
        subject=subject,
        text=f"{greeting}\n\n{news}\n",
        html=f"<p>{escape(greeting)}</p><p>{escape(news)}</p>",
        unsubscribe=Unsubscribe(url=f"https://{_DOMAIN}/unsubscribe/{person.line}"),
        tags={"campaign": "2026-11-news", ROW_TAG: str(person.line)},
    )


def sender_to(ses: SimulatedSES, people: Sequence[Person]) -> Sender:
    """A sender that goes a little slower than SES allows, and leaves alone who asked for it."""
    return Sender(
        from_=f"Tank <no-reply@{_DOMAIN}>",
        transport=SESTransport(region=ses.region, endpoint_url=ses.url, credentials=_KEYS, read_timeout=5),
        limiter=TokenBucketLimiter(_HEADROOM * ses.rate),
        suppression=MemorySuppressionStore(suppressions(people)),
    )


async def campaign(
    sender: Sender, messages: Sequence[Message], on_result: Callable[[SendResult], object]
) -> SendReport:
    """Send them all; each gets one fate, whatever SES and the network do."""
    async with sender:
        return await sender.send_all(
            messages, campaign="2026-11 news", progress=progress(), on_result=on_result, keep=len(messages)
        )


# --- the stage --------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if nothing was lost, doubled or left without a fate. `argv` is without the program's name."""
    parser = _parser()
    options = parser.parse_args(argv)
    _never_choke(sys.stdout, sys.stderr)
    try:
        people = read_people(options.csv)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {options.csv.name}: {getattr(error, 'strerror', None) or error}\n")
    chosen = each_once(people)
    ses = _simulated_ses(options)
    print(_opening(ses, options, people=len(people), twice=len(people) - len(chosen)))
    show = Show(people, chosen)
    with _nobodys_account(), ses:
        finished = show.run(ses)
    return show.report(ses, shipped=options.csv == PEOPLE, finished=finished)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tanksend demo",
        description="Send a campaign to a simulated Amazon SES that fails on purpose, and count what arrived. Nothing"
        " leaves this machine.",
    )
    add = parser.add_argument
    add("--csv", type=Path, default=PEOPLE, metavar="PATH", help="your own people: UTF-8, columns name and email")
    add("--rate", type=_rate, default=50.0, help="recipients per second that the simulated SES allows (default: 50)")
    add("--faults", action=argparse.BooleanOptionalAction, default=True, help="lose answers and fail, on purpose")
    add("--seed", type=int, default=11, help="of the faults (default: %(default)s)")
    return parser


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 1 <= rate < math.inf:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return rate


def _simulated_ses(options: argparse.Namespace) -> SimulatedSES:
    return SimulatedSES(
        rate=options.rate,
        daily_quota=-1,
        region="ap-southeast-1",
        identities=[_DOMAIN],
        verify_signatures=True,
        credentials={_KEYS.access_key: Credential(_KEYS.secret_key)},
        latency=(0.008, 0.006),
        seed=options.seed,
        faults=Faults(probability=FAULTS if options.faults else {}, seed=options.seed),
        close_after_requests=100 if options.faults else None,
        idle_timeout=0.5 if options.faults else None,
        keep_bodies=False,
    )


def _opening(ses: SimulatedSES, options: argparse.Namespace, *, people: int, twice: int) -> str:
    lines = ["", f"  A simulated Amazon SES on this machine takes {ses.rate:g} recipients in any second and no more."]
    if options.faults:
        lines.append("  It loses answers, breaks connections and fails now and then, on purpose.")
    rows = f"{people} row{'' if people == 1 else 's'} in {options.csv.name}"
    skipped = f", {twice} of them skipped: they name somebody again" if twice else ""
    return "\n".join([*lines, "", f"  {rows}{skipped}", ""])


@attrs.define
class Show:
    """
    One run of the demo.

    Args:
        people: All rows.
        chosen: Each person once.
    """

    people: Sequence[Person] = attrs.field(repr=False)
    chosen: Sequence[Person] = attrs.field(repr=False)
    messages: Sequence[Message] = attrs.field(init=False, repr=False)
    refused: list[SendResult] = attrs.field(init=False, factory=list, repr=False)
    sent: SendReport | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.messages = [letter(person) for person in self.chosen]

    def run(self, ses: SimulatedSES) -> bool:
        """Send; whether it came to its end. After Ctrl-C there is a report too, of what had been taken in."""
        sender = sender_to(ses, self.people)
        try:
            self.sent = anyio.run(campaign, sender, self.messages, self._note)
        except KeyboardInterrupt:
            self.sent = sender.last_report
            return False
        return True

    def _note(self, result: SendResult) -> None:
        if result.status is Status.INVALID:
            self.refused.append(result)

    def report(self, ses: SimulatedSES, *, shipped: bool, finished: bool) -> int:
        """Print what happened, and return the exit status."""
        if self.sent is None:
            return _INTERRUPTED
        found = audit(self.messages, self.sent, ses.inbox)
        _print_blocks(
            fate_lines(self.sent, found),
            domain_lines(self.sent),
            bad_row_lines(self.refused, _BAD_ROWS_SHOWN[shipped]),
            pace_lines(self.sent, ses),
        )
        return _close(self.sent, found, finished=finished)


def _close(report: SendReport, found: Audit, *, finished: bool) -> int:
    for complaint in found.complaints if finished else ():
        print(f"tanksend demo: {complaint}", file=sys.stderr)
    print(closing_line(report, found))
    if not finished:
        return _INTERRUPTED
    return 1 if found.complaints else 0


def _print_blocks(*blocks: Iterator[str]) -> None:
    for block in blocks:
        lines = list(block)
        if lines:
            print("\n" + "\n".join(lines))
    print()


def progress() -> bool | Callable[[int, int | None], object]:
    """A bar of tqdm's, on a terminal with tqdm installed; a plain one elsewhere, and few lines of it in a log."""
    terminal = _on_a_terminal()
    if terminal and find_spec("tqdm") is not None:
        return True
    return _PlainBar(steps=100 if terminal else 5, end="\r" if terminal else "\n")


def _on_a_terminal() -> bool:
    """Whether stderr is a terminal with a size: some that are only recorded have none, and tqdm draws nothing then."""
    try:
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):
        return False


@attrs.define
class _PlainBar:
    """A bar without tqdm: drawn over itself on a terminal, on lines of its own in a log."""

    steps: int
    end: str = "\n"
    _shown: int = attrs.field(init=False, default=0)

    def __call__(self, done: int, total: int | None) -> None:
        step = self.steps * done // (total or done)
        if step == self._shown:
            return
        self._shown = step
        share = step / self.steps
        end = self.end if step < self.steps else "\n"
        print(f"  {bar_of(share):.<40} {share:4.0%}", end=end, file=sys.stderr, flush=True)


def _never_choke(*streams: object) -> None:
    """A stream that cannot show a letter shows a question mark; lines come out as they are printed."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace", line_buffering=True)


@contextmanager
def _nobodys_account() -> Iterator[None]:
    """Do not look at this machine's AWS settings and proxies: no real account has a part in this."""
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            del os.environ[name]
    os.environ.update({"NO_PROXY": "*", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull})
    try:
        yield
    finally:
        _restore(before)


def _restore(before: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)
