"""Wrong credentials, denied actions and an unverified sender cost one answer, not a campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from _figures import Figure, at_most, exactly
from _world import BACKENDS, UNLIMITED, run

from tanksend import Message, Sender, SendReport, Status
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import Credential, SimulatedSES
from tanksend.transports import Credentials, SESTransport

NUMBER = 1_000
PARALLEL = 16


def _messages(*senders: str) -> list[Message]:
    return [
        Message(f"user{index}@example.org", "Hi", "Hello", from_=senders[index % len(senders)])
        for index in range(NUMBER)
    ]


async def _send(ses: SimulatedSES, secret: str, *senders: str) -> tuple[SendReport, list[str]]:
    transport = SESTransport(region=ses.region, endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", secret))
    texts = []

    def keep(result: object) -> None:
        if result.error is not None and result.attempts:  # type: ignore[attr-defined]
            texts.append(str(result.error))  # type: ignore[attr-defined]

    async with Sender(transport=transport, limiter=TokenBucketLimiter(UNLIMITED), max_parallel=PARALLEL) as sender:
        return await sender.send_all(_messages(*senders), on_result=keep), texts


def _wrong_credentials(backend: str) -> Iterator[Figure]:
    with SimulatedSES(
        rate=UNLIMITED, daily_quota=UNLIMITED, verify_signatures=True, credentials={"AKIDEXAMPLE": Credential("right")}
    ) as ses:
        report, texts = run(backend, _send, ses, "wrong", "a@example.com")
    yield exactly(f"{backend}, wrong secret: requests", ses.counts.sends, 1)
    yield exactly(f"{backend}, wrong secret: held", report.counts[Status.HELD], NUMBER)
    yield exactly(f"{backend}, wrong secret: errors of their own", len(texts), 1)


def _denied(backend: str) -> Iterator[Figure]:
    with SimulatedSES(rate=UNLIMITED, daily_quota=UNLIMITED, deny={"ses:SendEmail"}) as ses:
        report, texts = run(backend, _send, ses, "x", "a@example.com")
    yield exactly(f"{backend}, denied from the start: requests", ses.counts.sends, 1)
    yield exactly(f"{backend}, denied from the start: held", report.counts[Status.HELD], NUMBER)
    yield Figure(
        f"{backend}, denied: the error names the action", texts[0], "ses:SendEmail in it", "ses:SendEmail" in texts[0]
    )


def _denied_later(backend: str) -> Iterator[Figure]:
    with SimulatedSES(rate=UNLIMITED, daily_quota=UNLIMITED, latency=0.005) as ses:
        ses.at_send(NUMBER // 2, lambda: ses.deny.add("ses:SendEmail"))
        report, _ = run(backend, _send, ses, "x", "a@example.com")
    accepted = len(ses.inbox)
    yield exactly(f"{backend}, denied in the middle: sent", report.counts[Status.SENT], accepted)
    yield at_most(f"{backend}, denied in the middle: requests refused", ses.counts.sends - accepted, PARALLEL)
    yield exactly(f"{backend}, denied in the middle: held", report.counts[Status.HELD], NUMBER - accepted)


def _unverified(backend: str) -> Iterator[Figure]:
    with SimulatedSES(rate=UNLIMITED, daily_quota=UNLIMITED, identities={"good.example"}, latency=0.005) as ses:
        report, _ = run(backend, _send, ses, "x", "a@good.example", "b@bad.example")
    senders = Counter(item.sender for item in ses.inbox)
    yield exactly(
        f"{backend}, one of two senders unverified: its messages held", report.counts[Status.HELD], NUMBER // 2
    )
    yield exactly(f"{backend}, one of two senders unverified: the others sent", senders["a@good.example"], NUMBER // 2)
    yield at_most(f"{backend}, one of two senders unverified: refusals", ses.counts.sends - NUMBER // 2, PARALLEL)


def figures() -> Iterator[Figure]:
    """On both backends, 1,000 messages each."""
    for backend in BACKENDS:
        yield from _wrong_credentials(backend)
        yield from _denied(backend)
        yield from _denied_later(backend)
        yield from _unverified(backend)
