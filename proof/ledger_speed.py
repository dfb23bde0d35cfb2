"""1,000,000 keys in SQLite: look-ups, claims, memory and CPU of the ledger alone."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
from _figures import Figure, at_least, at_most, exactly

from tanksend import Status
from tanksend.ledgers import SQLiteLedger
from tanksend.typing import Claim, LedgerEntry

NUMBER = 1_000_000
BATCH = 1_000
MESSAGE_ID = "0100018f0a1b2c3d-4e5f6a7b-8c9d-4e5f-6a7b-8c9d0e1f2a3b-000000"


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _batches(name: str) -> Iterator[list[str]]:
    for start in range(0, NUMBER, BATCH):
        yield [f"{name}-{number}" for number in range(start, start + BATCH)]


async def _lookups(ledger: SQLiteLedger, name: str) -> tuple[int, float]:
    """How many keys are found, and the best rate of three passes: a neighbour on the machine slows one down."""
    rates, found = [], 0
    for _ in range(3):
        began, found = time.monotonic(), 0
        for keys in _batches(name):
            found += len(await ledger.lookup(keys))
        rates.append(NUMBER / (time.monotonic() - began))
    return found, max(rates)


async def _ledger(folder: Path) -> AsyncIterator[Figure]:
    async with SQLiteLedger(folder / "ledger.db") as ledger:
        for keys in _batches("campaign-2026-11"):
            await ledger.claim(keys)
            await ledger.record([LedgerEntry(key, Status.SENT, MESSAGE_ID) for key in keys])
        before = _megabytes()
        found, rate = await _lookups(ledger, "campaign-2026-11")
        yield exactly("ledger: keys of a finished batch that are found", found, NUMBER)
        yield at_least("ledger: look-ups of a finished batch, best of 3", rate, 100_000, "/s")
        found, rate = await _lookups(ledger, "campaign-2026-12")
        yield exactly("ledger: keys of a new batch that are found", found, 0)
        yield at_least("ledger: look-ups of a new batch, best of 3", rate, 100_000, "/s")
        yield at_most("ledger: memory that both took", _megabytes() - before, 20, " MB")
        yield exactly("ledger: counted as sent", (await ledger.counts())[Status.SENT], NUMBER)


async def _paced(ledger: SQLiteLedger | None, name: str, rate: float, number: int) -> float:
    """CPU of the process per message, in microseconds, when so many a second claim a key and record a fate."""

    async def one(key: str) -> None:
        if ledger is not None:
            await ledger.claim([key])
            await ledger.record([LedgerEntry(key, Status.SENT, MESSAGE_ID)])

    cpu, began = time.process_time(), time.monotonic()
    async with anyio.create_task_group() as tasks:
        for index in range(number):
            tasks.start_soon(one, f"{name}-{index}")
            await anyio.sleep(max(0.0, began + index / rate - time.monotonic()))
    return (time.process_time() - cpu) / number * 1e6


async def _cost(folder: Path) -> AsyncIterator[Figure]:
    async with SQLiteLedger(folder / "paced.db") as ledger:
        await ledger.claim(["warm"])
        costs = []
        for turn in range(3):
            without = await _paced(None, f"none-{turn}", 500, 2_500)
            costs.append(await _paced(ledger, f"paced-{turn}", 500, 2_500) - without)
        yield at_most("ledger: CPU of a claim and a record at 500/s, best of 3", min(costs), 300, " µs")
        began, granted = time.monotonic(), 0

        async def work(name: int) -> None:
            nonlocal granted
            for index in range(300):
                key = f"free-{name}-{index}"
                answers = await ledger.claim([key])
                granted += answers[key] is Claim.GRANTED
                await ledger.record([LedgerEntry(key, Status.SENT, MESSAGE_ID)])

        async with anyio.create_task_group() as tasks:
            for name in range(100):
                tasks.start_soon(work, name)
        yield at_least(
            "ledger: keys claimed and recorded by 100 at once", granted / (time.monotonic() - began), 3_000, "/s"
        )


def figures() -> Iterator[Figure]:
    """All of it, on the disk that temporary files are on."""
    with tempfile.TemporaryDirectory() as folder:
        for run in (_cost, _ledger):  # the largest comes last: memory is counted at its highest

            async def collect(run=run) -> list[Figure]:
                return [figure async for figure in run(Path(folder))]

            yield from anyio.run(collect)
