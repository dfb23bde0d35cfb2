"""1,000,000 suppressed addresses in SQLite: import, memory, and what a look-up in front of sending costs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from _figures import Figure, at_least, at_most, exactly

NUMBER = 1_000_000
LOOKED_UP = 500_000
SENT = 100_000
BATCH = 64
"""Messages that intake asks for at once."""
TURNS = 3
"""The best of so many: neighbours on the machine only ever slow one down."""

_IMPORT = """
import json, resource, sys, time
import anyio
from tanksend.suppression import SQLiteSuppressionStore

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main(path, *lists):
    async with SQLiteSuppressionStore(path) as store:
        await store.import_csv(lists[0])
        before, begun = megabytes(), time.monotonic()
        report = await store.import_csv(lists[1])
        took = time.monotonic() - begun
    print(json.dumps([report.imported, report.skipped, report.rows / took, megabytes() - before]))

anyio.run(main, *sys.argv[1:])
"""

_LOOK_UP = """
import json, sys, time
import anyio
from tanksend.suppression import SQLiteSuppressionStore

async def main(path, domain, number, batch):
    number, batch, found = int(number), int(batch), 0
    async with SQLiteSuppressionStore(path) as store:
        await store.lookup(["nobody@example.com"])
        begun = time.monotonic()
        for start in range(0, number, batch):
            some = [f"person.{n}@{domain}-{n % 5_000}.example" for n in range(start, min(number, start + batch))]
            found += len(await store.lookup(some))
        print(json.dumps([found, (time.monotonic() - begun) / number * 1e6]))

anyio.run(main, *sys.argv[1:])
"""

_SEND = """
import json, sys, time
import anyio
from tanksend import Message, Receipt, Sender
from tanksend.suppression import SQLiteSuppressionStore

checkpoint = anyio.lowlevel.checkpoint

class Null:
    paced = False
    async def send(self, request):
        await checkpoint()
        return Receipt("0100018c-null")
    async def aclose(self): pass

async def main(path, number):
    messages = [Message(f"p{n}@elsewhere-{n % 20}.example", "News", "Hello") for n in range(int(number))]
    costs = []
    for store in (None, SQLiteSuppressionStore(path)):
        sender = Sender(from_="no-reply@example.com", transport=Null(), suppression=store)
        await sender.send_all(messages[:1_000])
        begun = time.process_time()
        assert (await sender.send_all(messages)).ok
        costs.append((time.process_time() - begun) / len(messages) * 1e6)
    print(json.dumps(costs))

anyio.run(main, *sys.argv[1:])
"""


def _python(script: str, *arguments: object) -> list[float]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    found: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _list_of(path: Path, number: int) -> Path:
    """A list as SES exports it, each person once, in no order."""
    with path.open("w", encoding="utf-8") as file:
        file.write("EmailAddress,Reason,LastUpdateTime\n")
        for index in range(number):
            person = index * 612_345_679 % number
            day = person % 28 + 1
            file.write(f"person.{person}@domain-{person % 5_000}.example,BOUNCE,2026-10-{day:02}T08:00:00Z\n")
    return path


def _import(folder: Path) -> Iterator[Figure]:
    few, many = _list_of(folder / "few.csv", 1_000), _list_of(folder / "many.csv", NUMBER)
    imported, skipped, rate, grown = _python(_IMPORT, folder / "store.db", few, many)
    yield exactly("import: taken and skipped", (imported, skipped), (NUMBER, 0))
    yield at_least("import, in random order", rate, 50_000, " rows/s")
    yield at_most("import: memory that it took", grown, 60, " MB")


def _look_up(store: Path) -> Iterator[Figure]:
    for name, domain, expected in (("nobody", "elsewhere", 0), ("everybody", "domain", LOOKED_UP)):
        passes = [_python(_LOOK_UP, store, domain, LOOKED_UP, BATCH) for _ in range(TURNS)]
        yield exactly(f"look-up, {name} is suppressed: found", passes[0][0], expected)
        each = min(took for _, took in passes)
        yield at_most(
            f"look-up in batches of {BATCH}, {name} is suppressed, best of {TURNS}", each, 10.0, " µs a message"
        )


def _send(store: Path) -> Iterator[Figure]:
    passes = [_python(_SEND, store, SENT) for _ in range(TURNS)]
    without, with_store = (min(column) for column in zip(*passes, strict=True))
    what = f"CPU of sending {SENT:,} to nowhere, beyond {without:.0f} µs with the list in memory, best of {TURNS}"
    yield at_most(what, with_store - without, 10.0, " µs a message")


def figures() -> Iterator[Figure]:
    """Each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        yield from _import(Path(name))
        yield from _look_up(Path(name) / "store.db")
        yield from _send(Path(name) / "store.db")
