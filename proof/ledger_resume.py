"""A finished batch of 1,000,000 keys is run again: how fast it is passed over, and in how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from _figures import Figure, at_least, at_most, exactly

NUMBER = 1_000_000
TURNS = 2
"""The best of so many: neighbours on the machine only ever slow one down."""
MEMORY = 20.0
"""MB by which the peak may grow after the first 10,000."""

_FILL = """
import sys
import anyio
from tanksend import Status
from tanksend.ledgers import SQLiteLedger
from tanksend.typing import LedgerEntry

async def main(path, number):
    async with SQLiteLedger(path) as ledger:
        for start in range(0, number, 5_000):
            keys = [f"order-{index}" for index in range(start, min(number, start + 5_000))]
            await ledger.claim(keys)
            message_id = "0100018f0a1b2c3d-4e5f6a7b-8c9d-4e5f-6a7b-8c9d0e1f2a3b-000000"
            await ledger.record([LedgerEntry(key, Status.SENT, message_id) for key in keys])

anyio.run(main, sys.argv[1], int(sys.argv[2]))
"""

_RESUME = """
import json, resource, sys, time
import anyio
from tanksend import Message, Sender
from tanksend.ledgers import SQLiteLedger

path, number, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Nothing:
    paced = False
    async def send(self, request):
        raise AssertionError("a message was sent that had been sent")
    async def aclose(self): pass

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def messages(number):
    for index in range(number):
        yield Message(f"user{index}@d{index % 20}.example.com", "News", "Hello", key=f"order-{index}")

async def send_all(ledger, number):
    sender = Sender(from_="no-reply@example.com", transport=Nothing(), ledger=ledger)
    report = await sender.send_all(messages(number))
    return {status.name: found for status, found in report.counts.items() if found}

async def lookup(ledger, number):
    found = 0
    for start in range(0, number, 1_000):
        found += len(await ledger.lookup([f"order-{index}" for index in range(start, start + 1_000)]))
    return {"ALREADY_SENT": found}

async def main():
    async with SQLiteLedger(path) as ledger:
        use = {"send_all": send_all, "lookup": lookup}[way]
        await use(ledger, 10_000)
        before, begun = megabytes(), time.monotonic()
        counts = await use(ledger, number)
        took = time.monotonic() - begun
        print(json.dumps([counts, number / took, megabytes() - before]))

anyio.run(main)
"""


def _python(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def figures() -> Iterator[Figure]:
    """Each pass in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        _python(_FILL, path, NUMBER)
        for way, least in (("lookup", 100_000), ("send_all", 30_000)):
            passes = [json.loads(_python(_RESUME, path, NUMBER, way)) for _ in range(TURNS)]
            for counts, _, _ in passes:
                yield exactly(f"{way}: passed over", counts, {"ALREADY_SENT": NUMBER})
            best, grown = max(rate for _, rate, _ in passes), max(grown for _, _, grown in passes)
            yield at_least(f"{way}: keys of a finished batch, best of {TURNS}", best, least, "/s")
            yield at_most(f"{way}: memory that {NUMBER:,} keys took", grown, MEMORY, " MB")
