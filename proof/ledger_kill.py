"""10,000 messages while their senders, and PostgreSQL, are killed: nobody gets two, nobody is forgotten."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
from _figures import Figure, at_least, at_most, exactly
from ledger_sending import Batch, ledger_at, said

from tanksend import Status
from tanksend.testing import SimulatedSES

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from postgres_server import PostgresServer

if TYPE_CHECKING:
    import subprocess

NUMBER = 10_000
KILLS = 10
PROCESSES = 4
PARALLEL = 32
LATENCY = (0.03, 0.02)
GRACE = 12.0
"""Seconds after PostgreSQL's start in which nobody is taken for dead, and a little more."""


@contextmanager
def _ses() -> Iterator[SimulatedSES]:
    with SimulatedSES(rate=-1, daily_quota=-1, latency=LATENCY, keep_bodies=False) as ses:
        yield ses


def _wait_for(ses: SimulatedSES, number: int, *processes: subprocess.Popen[str]) -> None:
    """Wait until so many have been accepted."""
    while len(ses.inbox) < number:
        assert all(process.poll() is None for process in processes), "a sender ended before it was killed"
        time.sleep(0.002)


async def _fates(place: str) -> dict[Status | None, int]:
    ledger = ledger_at(place)
    found = dict(await ledger.counts())  # type: ignore[union-attr]
    await ledger.aclose()  # type: ignore[union-attr]
    return found


@attrs.frozen
class _Outcome:
    """How it all stands in the end."""

    what: str
    ses: SimulatedSES
    fates: dict[Status | None, int]
    last: dict[str, Any]
    kills: int

    def figures(self, *, at_least_once: bool) -> Iterator[Figure]:
        arrived = self.ses.inbox.deliveries(tag="number")
        doubled = sum(number > 1 for number in arrived.values())
        unknown, sent = self.fates[Status.UNKNOWN], self.fates[Status.SENT]
        bound = self.kills * PARALLEL
        yield exactly(f"{self.what}: keys with a fate that is settled", sent + unknown, NUMBER)
        if at_least_once:
            yield exactly(f"{self.what}: sent, of {NUMBER:,}", sent, NUMBER)
            yield exactly(f"{self.what}: people who got it at least once", len(arrived), NUMBER)
            yield at_most(f"{self.what}: who got it more than once", doubled, bound)
            yield at_most(f"{self.what}: the most that anybody got", max(arrived.values()), 1 + self.kills)
            return
        yield exactly(f"{self.what}: people who got it twice", doubled, 0)
        yield at_most(f"{self.what}: unknown after {self.kills} kills", unknown, bound)
        yield at_most(f"{self.what}: not delivered, beyond those unknown", max(0, NUMBER - len(arrived) - unknown), 0)
        yield at_most(f"{self.what}: sent, and not delivered", max(0, sent - len(arrived)), 0)
        passed = self.last["counts"].get("ALREADY_SENT", 0), self.last["counts"].get("UNKNOWN", 0)
        yield exactly(f"{self.what}: passed over as sent, and as unknown, by one more run", passed, (sent, unknown))


def _one_process(folder: Path, *, at_least_once: bool) -> Iterator[Figure]:
    """SQLite: ten kills of the one process, wherever it may be, and a run to the end."""
    place, moments = str(folder / f"ledger-{at_least_once}.db"), random.Random(4)
    with _ses() as ses:
        batch = Batch(url=ses.url, number=NUMBER, ledger=place, max_parallel=PARALLEL, at_least_once=at_least_once)
        for kill in range(1, KILLS + 1):
            process = batch.start()
            moment = moments.randint(NUMBER * (kill - 1) // (KILLS + 1), NUMBER * kill // (KILLS + 1))
            _wait_for(ses, max(moment, len(ses.inbox) + 1), process)
            time.sleep(moments.uniform(0.0, 0.05))
            process.kill()
            process.communicate()
        batch.run()
        last = batch.run()
        outcome = _Outcome("SQLite", ses, anyio.run(_fates, place), last, KILLS)
        yield from outcome.figures(at_least_once=at_least_once)


def _kill_one(ses: SimulatedSES, number: int, running: dict[str, subprocess.Popen[str]]) -> None:
    """Kill the one that is sending at the moment when so many have been accepted."""
    _wait_for(ses, number, *running.values())
    process = running.pop(ses.inbox[-1].tags["sender"])
    process.kill()
    process.communicate()


def _four_processes(*, at_least_once: bool) -> Iterator[Figure]:
    """PostgreSQL: four send the same batch, two of them are killed, and the server itself is, too."""
    with _ses() as ses, PostgresServer() as server:
        batch = Batch(url=ses.url, number=NUMBER, ledger=server.dsn, max_parallel=PARALLEL, at_least_once=at_least_once)
        running = {f"sender-{turn}": attrs.evolve(batch, name=f"sender-{turn}").start() for turn in range(PROCESSES)}
        _kill_one(ses, int(NUMBER * 0.2), running)
        _wait_for(ses, int(NUMBER * 0.4), *running.values())
        server.restart()
        _kill_one(ses, int(NUMBER * 0.6), running)
        delivered = len(ses.inbox)
        survivors = [said(process) for process in running.values()]
        yield at_least("PostgreSQL: delivered after the last kill", len(ses.inbox) - delivered, 1)
        yield exactly("PostgreSQL: survivors that were stopped", sum(bool(each["note"]) for each in survivors), 0)
        time.sleep(GRACE)
        batch.run()
        outcome = _Outcome("PostgreSQL", ses, anyio.run(_fates, server.dsn), batch.run(), 2)
        yield from outcome.figures(at_least_once=at_least_once)


def figures() -> Iterator[Figure]:
    """Report-only and at-least-once, on SQLite and on PostgreSQL."""
    with tempfile.TemporaryDirectory() as folder:
        for at_least_once in (False, True):
            yield from _one_process(Path(folder), at_least_once=at_least_once)
    for at_least_once in (False, True):
        yield from _four_processes(at_least_once=at_least_once)
