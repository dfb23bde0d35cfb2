"""Templated messages that share requests: few of them, each mail once with its own data, paced, beside urgent mail."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import anyio
import attrs
from _figures import Figure, at_least, at_most, exactly
from _world import BACKENDS, UNLIMITED, run

from tanksend import Message, Sender, SendReport, SendResult, Status, Template, Unsubscribe
from tanksend.limiters import AccountLimiter, TokenBucketLimiter
from tanksend.testing import Faults, SimulatedSES
from tanksend.transports import Credentials, SESTransport
from tanksend.typing import RateLimiter

NUMBER = 50_000
REQUESTS = 1_020
CHANCES = {
    "entry-throttled": 0.01, "entry-transient": 0.01, "entry-failed": 0.002,
    "throttle": 0.01, "500": 0.01, "reset-before": 0.01, "reset-after": 0.01, "no-id": 0.005,
}  # fmt: skip
HELLO = Template(
    subject="Hello {{name}}",
    text="Dear {{name}}, you have {{points}} points.",
    html="<p>Dear {{name}}, you have <b>{{points}}</b> points.</p>",
)
# rate, mode, bulk messages
PACED = ((14, "strict", 560), (14, "debt", 560), (50, "strict", 2_000), (50, "debt", 2_000))
LATENCY = (0.05, 0.01)
QUIET = 12.0
"""Seconds before the first transactional message."""
BESIDE = 0.15
"""Seconds of the rate that a request takes beside transactional mail."""


def _data(number: int) -> dict[str, Any]:
    return {"name": f"Friend {number}", "points": number * 7}


def _letters(number: int) -> Iterator[Message]:
    for index in range(number):
        yield Message.from_template(
            HELLO, to=f"user{index}@d{index % 20}.example.com", data=_data(index), tags={"number": str(index)},
            unsubscribe=Unsubscribe(url=f"https://example.com/out/{index}"),
        )  # fmt: skip


# --- SES, in a process of its own -------------------------------------------------------------------------------------


@attrs.frozen
class _Found:
    """What a simulated SES says in the end."""

    figures: dict[str, Any]
    arrived: Counter[str]
    wrong: int
    struck: int
    by_request: set[str]
    """Those that a fault has struck together with all others of their request."""


def _serve(pipe: Connection, options: dict[str, Any], chances: dict[str, float]) -> None:
    with SimulatedSES(daily_quota=-1, faults=Faults(probability=chances, seed=7), **options) as ses:
        pipe.send(ses.url)
        pipe.recv()
        bulk = [item for item in ses.inbox if "number" in item.tags]
        arrived = Counter(item.tags["number"] for item in bulk)
        wrong = sum(not _is_right(item) for item in bulk)
        by_request = {record.tags["number"] for record in ses.fault_log if not record.name.startswith("entry-")}
        pipe.send(_Found(ses.figures(), arrived, wrong, len(ses.fault_log), by_request))


def _is_right(item: Any) -> bool:
    """Whether everything personal is this person's own."""
    number = int(item.tags["number"])
    data = _data(number)
    return bool(
        item.recipients == (f"user{number}@d{number % 20}.example.com",)
        and item.data == data
        and item.text == f"Dear {data['name']}, you have {data['points']} points."
        and item.headers["List-Unsubscribe"] == f"<https://example.com/out/{number}>"
    )


class _Remote:
    """Where it listens, and what it has found once it is asked."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    def ask(self) -> _Found:
        self._pipe.send(None)
        found: _Found = self._pipe.recv()
        return found


@contextmanager
def _simulated(chances: dict[str, float] | None = None, **options: Any) -> Iterator[_Remote]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, options, chances or {}))
    process.start()
    try:
        yield _Remote(ours)
    finally:
        process.terminate()
        process.join()


def _sender(ses: _Remote, limiter: RateLimiter) -> Sender:
    transport = SESTransport(region="us-east-1", endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", "secret"))
    return Sender(from_="no-reply@example.com", transport=transport, limiter=limiter)


# --- as fast as it goes -----------------------------------------------------------------------------------------------


async def _send(ses: _Remote, fates: dict[str, Status]) -> SendReport:
    def keep(result: SendResult) -> None:
        number = result.message.tags["number"]
        assert number not in fates, "two fates for one message"
        fates[number] = result.status

    async with _sender(ses, TokenBucketLimiter(UNLIMITED)) as sender:
        return await sender.send_all(_letters(NUMBER), on_result=keep)


def _unlimited(backend: str) -> Iterator[Figure]:
    fates: dict[str, Status] = {}
    with _simulated(rate=UNLIMITED) as ses:
        report = run(backend, _send, ses, fates)
        found = ses.ask()
    what = f"{backend}, {NUMBER} recipients"
    counts = found.figures
    yield at_most(f"{what}: requests", counts["bulk_sends"] + counts["sends"], REQUESTS)
    yield exactly(f"{what}: arrived exactly once", sum(number == 1 for number in found.arrived.values()), NUMBER)
    yield exactly(f"{what}: with another's data, or nobody's", found.wrong, 0)
    yield exactly(f"{what}: sent", report.counts[Status.SENT], NUMBER)
    yield Figure(f"{what}: a second, load {_load()}", f"{NUMBER / report.duration:.0f}", "seen", ok=True)


def _faulty(backend: str) -> Iterator[Figure]:
    fates: dict[str, Status] = {}
    with _simulated(CHANCES, rate=UNLIMITED) as ses:
        report = run(backend, _send, ses, fates)
        found = ses.ask()
    what = f"{backend}, {found.struck} messages struck by faults"
    arrived = found.arrived
    sent = {number for number, status in fates.items() if status is Status.SENT}
    unknown = {number for number, status in fates.items() if status is Status.UNKNOWN}
    yield exactly(f"{what}: messages with one fate", len(fates), NUMBER)
    yield exactly(f"{what}: doubled", sum(number > 1 for number in arrived.values()), 0)
    yield exactly(f"{what}: lost (called sent, and did not arrive)", len(sent - arrived.keys()), 0)
    yield exactly(f"{what}: unknown, and no request of it was struck", len(unknown - found.by_request), 0)
    yield exactly(f"{what}: arrived, and neither sent nor unknown", len(arrived.keys() - sent - unknown), 0)
    yield exactly(f"{what}: with another's data, or nobody's", found.wrong, 0)
    requests = found.figures["bulk_sends"] + found.figures["sends"]
    fared = {status.name: number for status, number in report.counts.items() if number}
    yield Figure(f"{what}: {requests} requests, fates", fared, "seen", ok=True)


# --- at the account's pace --------------------------------------------------------------------------------------------


async def _campaign(ses: _Remote, bulk: int) -> tuple[SendReport, list[float]]:
    waits: list[float] = []
    moments = random.Random(5)
    reports: list[SendReport] = []

    async with _sender(ses, AccountLimiter()) as sender:

        async def send_bulk() -> None:
            reports.append(await sender.send_all(_letters(bulk)))

        async def urgent() -> None:
            result = await sender.send(Message("now@example.com", "Your code", "123456"))
            waits.append(result.elapsed)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_bulk)
            await anyio.sleep(QUIET)
            while not reports:
                tasks.start_soon(urgent)
                await anyio.sleep(moments.uniform(0.2, 0.8))
    return reports[0], waits


def _paced(rate: int, mode: str, bulk: int) -> Iterator[Figure]:
    with _simulated(rate=rate, mode=mode, latency=LATENCY) as ses:
        report, waits = run("asyncio", _campaign, ses, bulk)
        found = ses.ask()
    counts = found.figures
    what = f"{rate}/s {mode}"
    slot = int(rate * BESIDE) / rate
    late = sorted(waits[1:])
    in_time = sum(wait <= 2 * slot + sum(LATENCY) for wait in late) / len(late)
    yield exactly(f"{what}: bulk sent", report.counts[Status.SENT], bulk)
    yield exactly(f"{what}: bulk arrived exactly once", sum(number == 1 for number in found.arrived.values()), bulk)
    yield at_least(f"{what}: messages of a bulk request", counts["entries"] / counts["bulk_sends"], 1.5)
    yield at_least(f"{what}: use of the rate", counts["rate"] / rate, 0.98)
    yield at_most(f"{what}: throttled", counts["throttled"] / (counts["entries"] + counts["sends"]), 0.005)
    yield at_least(f"{what}: share of {len(late)} urgent ones within two slots of {slot:.3f} s", in_time, 0.95)
    shown = f"{waits[0]:.3f}; {late[len(late) // 2]:.3f}, {late[int(len(late) * 0.95)]:.3f}, {late[-1]:.3f}"
    yield Figure(f"{what}: waits in seconds, load {_load()}", shown, "first; median, 95 in 100, longest", ok=True)


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def figures() -> Iterator[Figure]:
    """Over the loopback, in real time."""
    for backend in BACKENDS:
        yield from _unlimited(backend)
        yield from _faulty(backend)
    for rate, mode, bulk in PACED:
        yield from _paced(rate, mode, bulk)
