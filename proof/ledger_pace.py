"""What a ledger in SQLite costs a batch: pace, throughput, CPU; and four processes that share one."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _figures import Figure, at_least, at_most, exactly
from _process import RemoteSES, simulated
from ledger_sending import Batch, said

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from redis_server import RedisServer

LATENCY = "0.04,0.02"
FAST = 500
PACES = ((50, 1_500), (FAST, 15_000))
"""Recipients per second, and messages."""
TURNS = 3
"""The best of so many is compared: neighbours on the machine only ever slow one down."""
PROCESSES = 4
_numbers = itertools.count()


def _send(ses: RemoteSES, number: int, folder: Path | None, **options: Any) -> dict[str, Any]:
    ledger = None if folder is None else str(folder / f"ledger-{next(_numbers)}.db")
    found = Batch(url=ses.url, number=number, ledger=ledger, **options).run()
    assert found["counts"] == {"SENT": number}, found
    return found


def _paced(folder: Path, rate: int, number: int) -> Iterator[Figure]:
    cpu: dict[bool, list[float]] = {True: [], False: []}
    for turn, with_ledger in itertools.product(range(TURNS if rate == FAST else 1), (False, True)):
        with simulated("--rate", str(rate), "--latency", LATENCY, "--daily-quota", "-1") as ses:
            sent = _send(ses, number, folder if with_ledger else None)
            found = ses.figures()
        cpu[with_ledger].append(sent["cpu"])
        what = f"{rate}/s {'with' if with_ledger else 'without'} a ledger, turn {turn + 1}"
        yield at_least(f"{what}: use of the rate", found["rate"] / rate, 0.98)
        yield at_most(f"{what}: throttled of {found['sends']} requests", found["throttled"] / found["sends"], 0.002)
    if rate == FAST:
        without = min(cpu[False])
        what = f"{rate}/s: CPU of the sending process for a message, beyond {without:.0f} µs without a ledger"
        yield at_most(what, min(cpu[True]) - without, 300.0, " µs")


def _throughput(folder: Path, number: int, least: float, latency: float, parallel: int | None) -> Iterator[Figure]:
    """Messages per second with a ledger over those without one, in turns."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with simulated("--rate", "-1", "--latency", str(latency), "--daily-quota", "-1") as ses:
        for _, with_ledger in itertools.product(range(TURNS), (False, True)):
            sent = _send(ses, number, folder if with_ledger else None, max_parallel=parallel, warm=True)
            rates[with_ledger].append(number / sent["seconds"])
    without = max(rates[False])
    what = f"unlimited, {latency * 1e3:g} ms latency, {parallel or 256} in flight"
    yield at_least(f"{what}: share of the {without:.0f}/s without a ledger", max(rates[True]) / without, least)


def _shared(folder: Path, number: int = 6_000, rate: int = 100) -> Iterator[Figure]:
    """Four processes are given the same batch, and take its slots from one limiter."""
    with simulated("--rate", str(rate), "--latency", LATENCY, "--daily-quota", "-1") as ses, RedisServer() as redis:
        batch = Batch(
            url=ses.url, number=number, ledger=str(folder / "shared.db"), redis=redis.url, rate=rate,
            begin=time.time() + 6.0,
        )  # fmt: skip
        results = [said(process) for process in [batch.start() for _ in range(PROCESSES)]]
        found = ses.figures()
    sent = sum(result["counts"].get("SENT", 0) for result in results)
    kept = sum(result["kept"] for result in results)
    what = f"{PROCESSES} processes share a batch at {rate}/s"
    yield exactly(f"{what}: sent, of {number:,}", sent, number)
    yield exactly(f"{what}: who got it twice", found["doubled"], 0)
    yield at_most(f"{what}: slots kept and not used", (kept - found["accepted"]) / kept, 0.05)
    yield at_least(f"{what}: use of the rate", found["rate"] / rate, 0.95)
    yield at_most(f"{what}: throttled of {found['sends']} requests", found["throttled"] / found["sends"], 0.005)


def figures() -> Iterator[Figure]:
    """Each sender in a process of its own, and the simulated SES in another."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _shared(folder)
        yield from _throughput(folder, 15_000, 0.9, 0.06, 100)
        yield from _throughput(folder, 10_000, 0.5, 0.0, None)
        for rate, number in PACES:
            yield from _paced(folder, rate, number)
