"""Transactional messages in the middle of a bulk batch at 14/s: how soon they go, and what bulk loses by it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import anyio
from _figures import Figure, at_least, at_most, exactly
from _process import RemoteSES, simulated
from _world import BACKENDS, run

from tanksend import Message, Sender, SendReport
from tanksend.limiters import AccountLimiter
from tanksend.transports import Credentials, SESTransport

RATE = 14
SLOT = 1 / (RATE * 0.995)
LATENCY = (0.05, 0.01)
BULK, URGENT = 500, 60


async def _campaign(ses: RemoteSES) -> tuple[SendReport, list[float]]:
    transport = SESTransport(region=ses.region, endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", "secret"))
    waits: list[float] = []
    moments = random.Random(5)
    async with Sender(from_="a@example.com", transport=transport, limiter=AccountLimiter()) as sender:

        async def urgent() -> None:
            result = await sender.send(Message("now@example.com", "Your code", "123456"))
            waits.append(result.elapsed)

        async with anyio.create_task_group() as tasks:
            sent: list[SendReport] = []

            async def bulk() -> None:
                sent.append(await sender.send_all([Message(f"u{n}@example.com", "News", "Hello") for n in range(BULK)]))

            tasks.start_soon(bulk)
            await anyio.sleep(3)
            for _ in range(URGENT):
                await anyio.sleep(moments.uniform(0.2, 0.8))
                tasks.start_soon(urgent)
        return sent[0], waits


def _measure(backend: str) -> Iterator[Figure]:
    with simulated("--rate", str(RATE), "--latency", "{},{}".format(*LATENCY), "--daily-quota", "-1") as ses:
        report, waits = run(backend, _campaign, ses)
        found = ses.figures()
    in_time = sum(wait <= SLOT + sum(LATENCY) for wait in waits) / len(waits)
    yield exactly(f"{backend}: transactional sent", len(waits), URGENT)
    yield at_least(f"{backend}: share that started within one slot, plus latency", in_time, 0.95)
    yield exactly(f"{backend}: bulk sent", report.total, BULK)
    yield at_least(f"{backend}: use of the rate by both together", found["rate"] / RATE, 0.985)
    yield at_most(f"{backend}: throttled", found["throttled"], 1)


def figures() -> Iterator[Figure]:
    """In real time, one process."""
    for backend in BACKENDS:
        yield from _measure(backend)
