"""
A batch in a process of its own, for the runs that kill its sender, time it, or let several share it.

As a script it sends what its argument describes, and prints what came of it in one line of JSON.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from tanksend import Message, Sender
from tanksend.ledgers import PostgresLedger, SQLiteLedger
from tanksend.limiters import AccountLimiter, RedisLimiter
from tanksend.retries import ExponentialBackoff
from tanksend.transports import Credentials, SESTransport

if TYPE_CHECKING:
    from tanksend.typing import Demand, Ledger, RateLimiter, Signal, Slot

TEXT = "Dear reader, this is the news. " * 20
WARM = 200
"""Messages of no campaign that go before those that are timed."""


@attrs.frozen(kw_only=True)
class Batch:
    """
    What is sent, and how.

    Attributes:
        url: Of the simulated SES.
        number: How many messages, each with its number as a tag.
        ledger: The path of a file, a DSN, or None for no ledger.
        redis: Where the limiter is that several share; None learns the pace from the account.
        rate: What the shared limiter is told of the account.
        max_parallel: As for `Sender`.
        at_least_once: Whether what may have arrived is sent again.
        name: Of the sender, a tag of all its messages.
        begin: Unix time of the beginning.
        warm: Whether connections are opened before.
    """

    url: str
    number: int
    ledger: str | None = None
    redis: str | None = None
    rate: float | None = None
    max_parallel: int | None = None
    at_least_once: bool = False
    name: str = "one"
    begin: float = 0.0
    warm: bool = False

    def start(self) -> subprocess.Popen[str]:
        """The process, which begins at once."""
        command = [sys.executable, __file__, json.dumps(attrs.asdict(self))]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(self) -> dict[str, Any]:
        """What came of it, once it has ended."""
        return said(self.start())


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process says that was not killed."""
    text = process.communicate()[0]
    assert process.returncode == 0, "a sender failed"
    found: dict[str, Any] = json.loads(text)
    return found


class Counted:
    """A limiter, and how many recipients its slots carried that were not given back."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self.kept = 0

    async def reserve(self, demand: Demand) -> Slot:
        slot = await self._limiter.reserve(demand)
        self.kept += slot.recipients
        return slot

    async def release(self, slot: Slot) -> None:
        self.kept -= slot.recipients
        await self._limiter.release(slot)

    async def feedback(self, signal: Signal) -> None:
        await self._limiter.feedback(signal)


def ledger_at(place: str | None) -> Ledger | None:
    """The ledger of a path or a DSN."""
    if place is None:
        return None
    return PostgresLedger(place) if place.startswith("postgresql:") else SQLiteLedger(place)


def _limiter(batch: Batch) -> RateLimiter:
    return AccountLimiter() if batch.redis is None else Counted(RedisLimiter(batch.redis, "proof", batch.rate))


def _messages(batch: Batch) -> Iterator[Message]:
    for number in range(batch.number):
        yield Message(f"user{number}@d{number % 20}.example.com", f"News {number}", TEXT, tags={"number": str(number)})


async def _send(batch: Batch) -> dict[str, Any]:
    transport = SESTransport(region="us-east-1", endpoint_url=batch.url, credentials=Credentials("AKIDEXAMPLE", "x"))
    limiter, ledger = _limiter(batch), ledger_at(batch.ledger)
    retry = ExponentialBackoff(resend_unknown=batch.at_least_once)
    options: dict[str, Any] = {
        "from_": "no-reply@example.com",
        "transport": transport,
        "max_parallel": batch.max_parallel,
        "tags": {"sender": batch.name},
    }
    if batch.warm:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sender(**options).send_all, [Message("w@example.com", f"{n}", "x") for n in range(WARM)])
    if ledger is not None:
        await ledger.lookup(["opens it"])
    await anyio.sleep(max(0.0, batch.begin - time.time()))
    sender = Sender(**options, limiter=limiter, retry=retry, ledger=ledger)
    cpu = time.process_time()
    report = await sender.send_all(_messages(batch), campaign="proof", keep=0)
    cpu = time.process_time() - cpu
    await sender.aclose()
    return {
        "counts": {status.name: number for status, number in report.counts.items() if number},
        "throttled": report.throttled,
        "seconds": report.duration,
        "cpu": cpu / batch.number * 1e6,
        "kept": getattr(limiter, "kept", math.nan),
        "note": report.note,
    }


if __name__ == "__main__":
    print(json.dumps(anyio.run(_send, Batch(**json.loads(sys.argv[1])))), flush=True)
