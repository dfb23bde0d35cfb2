"""10,000 messages while answers are lost and connections break: nothing doubled, nothing lost, one fate each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from _figures import Figure, at_most, exactly
from _world import BACKENDS, UNLIMITED, certificates, messages, run

from tanksend import Sender, SendReport, Status
from tanksend.limiters import TokenBucketLimiter
from tanksend.retries import ExponentialBackoff
from tanksend.testing import Faults, SimulatedSES
from tanksend.transports import Credentials, SESTransport

NUMBER = 10_000
CHANCES = {"reset-after": 0.01, "close-after": 0.01, "reset-before": 0.01, "close-before": 0.01, "500": 0.02}


async def _send(ses: SimulatedSES, retry: ExponentialBackoff, fates: dict[str, Status]) -> SendReport:
    transport = SESTransport(region=ses.region, endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", "secret"))
    limiter = TokenBucketLimiter(UNLIMITED)

    def keep(result: object) -> None:
        number = result.message.tags["number"]  # type: ignore[attr-defined]
        assert number not in fates, "two fates for one message"
        fates[number] = result.status  # type: ignore[attr-defined]

    async with Sender(
        from_="no-reply@example.com", transport=transport, limiter=limiter, retry=retry, max_parallel=32
    ) as sender:
        return await sender.send_all(messages(NUMBER), on_result=keep)


def _campaign(backend: str, *, at_least_once: bool) -> Iterator[Figure]:
    fates: dict[str, Status] = {}
    retry = ExponentialBackoff(attempts=8, resend_unknown=True, base=0.05) if at_least_once else ExponentialBackoff()
    with certificates() as context, SimulatedSES(
        rate=UNLIMITED, daily_quota=UNLIMITED, tls=context, faults=Faults(probability=CHANCES, seed=7),
        close_after_requests=100, keep_bodies=False,
    ) as ses:  # fmt: skip
        run(backend, _send, ses, retry, fates)
    arrived = Counter(item.tags["number"] for item in ses.inbox)
    injected = len(ses.fault_log)
    what = f"{backend}{', at least once' if at_least_once else ''}"
    yield exactly(f"{what}: messages with one fate", len(fates), NUMBER)
    lost = sum(status is Status.SENT and not arrived[number] for number, status in fates.items())
    yield exactly(f"{what}: lost (called sent, not in the inbox)", lost, 0)
    if at_least_once:
        yield exactly(f"{what}: delivered at least once", sum(arrived[number] >= 1 for number in fates), NUMBER)
        return
    unknown = {number for number, status in fates.items() if status is Status.UNKNOWN}
    swallowed = {item.tags["number"] for item in ses.inbox} - {n for n, s in fates.items() if s is Status.SENT}
    yield exactly(f"{what}: doubled", sum(number > 1 for number in arrived.values()), 0)
    yield exactly(f"{what}: accepted but neither sent nor unknown", len(swallowed - unknown), 0)
    yield at_most(f"{what}: unknown, with {injected} faults injected", len(unknown), injected + 5)


def figures() -> Iterator[Figure]:
    """Report-only and at-least-once, on both backends."""
    for backend in BACKENDS:
        yield from _campaign(backend, at_least_once=False)
        yield from _campaign(backend, at_least_once=True)
