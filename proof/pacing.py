"""One process on an account that counts strictly or goes into debt: the use it makes of the rate, and at what cost."""

from __future__ import annotations

import random
from collections.abc import Iterator

from _figures import Figure, at_least, at_most, exactly
from _process import RemoteSES, simulated
from _world import run

from tanksend import Message, Sender, SendReport, Status
from tanksend.limiters import AccountLimiter
from tanksend.transports import Credentials, SESTransport

LATENCY = "0.04,0.02"
# rate, mode, heaviest message, messages, least use of the rate, most throttled
RUNS = (
    (14, "strict", 1, 700, 0.99, 0.001),
    (50, "strict", 1, 2_500, 0.99, 0.001),
    (200, "strict", 1, 10_000, 0.99, 0.001),
    (500, "strict", 1, 30_000, 0.99, 0.001),
    (14, "debt", 50, 60, 0.98, 0.005),
    (50, "debt", 50, 220, 0.98, 0.005),
    (50, "strict", 40, 600, 0.90, 0.002),
)


def mixed(number: int, heaviest: int) -> list[Message]:
    """Messages to 1 to *heaviest* recipients each, all in Bcc but the first."""
    weights = random.Random(number)
    return [
        Message(
            f"user{index}@example.com", f"Note {index}", "Hello",
            bcc=[f"user{index}.{other}@example.com" for other in range(1, weights.randint(1, heaviest))],
        )
        for index in range(number)
    ]  # fmt: skip


async def _send(ses: RemoteSES, messages: list[Message]) -> SendReport:
    transport = SESTransport(region=ses.region, endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", "secret"))
    async with Sender(from_="no-reply@example.com", transport=transport, limiter=AccountLimiter()) as sender:
        return await sender.send_all(messages)


def _campaign(chosen: tuple[int, str, int, int, float, float]) -> Iterator[Figure]:
    rate, mode, heaviest, number, use, throttled = chosen
    with simulated("--rate", str(rate), "--mode", mode, "--latency", LATENCY, "--daily-quota", "-1") as ses:
        report = run("asyncio", _send, ses, mixed(number, heaviest))
        found = ses.figures()
    what = f"{rate}/s {mode}, {'one recipient each' if heaviest == 1 else f'1 to {heaviest} recipients'}"
    yield at_least(f"{what}: use of the rate", found["rate"] / rate, use)
    yield at_most(f"{what}: throttled of {found['sends']} requests", found["throttled"] / found["sends"], throttled)
    yield exactly(f"{what}: not sent", number - report.counts[Status.SENT], 0)


def figures() -> Iterator[Figure]:
    """Each on an account of its own, over the loopback."""
    for chosen in RUNS:
        yield from _campaign(chosen)
