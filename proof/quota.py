"""The daily quota: never exceeded by us, told at once, and waited for where that is asked; and a denied GetAccount."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

from _figures import Figure, at_most, exactly
from _world import BACKENDS, run

from tanksend import Message, Sender, SendReport, Status
from tanksend.limiters import AccountLimiter
from tanksend.testing import FakeClock, SimulatedSES

QUOTA, SPENT, NUMBER = 1_000, 400, 1_000
DAY = 86_400.0


async def _send(
    clock: FakeClock, ses: SimulatedSES, when_spent: Literal["hold", "wait"]
) -> tuple[SendReport, list[float]]:
    limiter = AccountLimiter(when_quota_spent=when_spent, clock=clock)
    sender = Sender(from_="a@example.com", transport=ses.transport(clock), limiter=limiter, clock=clock)
    resumes: list[float] = []

    def keep(result: object) -> None:
        error = result.error  # type: ignore[attr-defined]
        if error is not None and error.resume_at is not None:
            resumes.append(error.resume_at)

    messages = [Message(f"user{index}@example.com", "Hi", "Hello") for index in range(NUMBER)]
    return await sender.send_all(messages, on_result=keep), resumes


def _hold(backend: str) -> Iterator[Figure]:
    clock = FakeClock()
    began = clock.wall()
    ses = SimulatedSES(rate=50, daily_quota=QUOTA, sent_before=SPENT, latency=0.04)
    report, resumes = run(backend, _send, clock, ses, "hold")
    yield exactly(f"{backend}, hold: recipients accepted", ses.inbox.recipients, QUOTA - SPENT)
    yield at_most(f"{backend}, hold: quota errors seen", ses.counts.quota_refusals, 1)
    yield exactly(f"{backend}, hold: held", report.counts[Status.HELD], NUMBER - QUOTA + SPENT)
    yield exactly(f"{backend}, hold: held with a time to resume", len(resumes), NUMBER - QUOTA + SPENT)
    early = min(resumes) - began
    late = max(resumes) - clock.wall()
    yield Figure(
        f"{backend}, hold: resume_at, hours from the start", f"{early / 3600:.2f} to {late / 3600:.2f}",
        "24 hours after what is in the way, at most a minute late", early >= DAY and late <= DAY + 60,
    )  # fmt: skip


def _wait(backend: str) -> Iterator[Figure]:
    clock = FakeClock()
    began = clock.monotonic()
    ses = SimulatedSES(rate=50, daily_quota=QUOTA, sent_before=SPENT, latency=0.04)
    report, _ = run(backend, _send, clock, ses, "wait")
    yield exactly(f"{backend}, wait: sent", report.counts[Status.SENT], NUMBER)
    yield at_most(f"{backend}, wait: quota errors seen", ses.counts.quota_refusals, 1)
    yield Figure(f"{backend}, wait: took, hours", f"{(clock.monotonic() - began) / 3600:.2f}", "about 24", ok=True)


def _denied(backend: str) -> Iterator[Figure]:
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("tanksend").addHandler(handler)
    try:
        clock = FakeClock()
        ses = SimulatedSES(rate=50, daily_quota=-1, deny={"ses:GetAccount"}, latency=0.04)
        report, _ = run(backend, _send, clock, ses, "hold")
    finally:
        logging.getLogger("tanksend").removeHandler(handler)
    yield exactly(f"{backend}, denied: sent", report.counts[Status.SENT], NUMBER)
    yield exactly(f"{backend}, denied: calls of GetAccount", ses.counts.by_action["ses:GetAccount"], 1)
    yield exactly(f"{backend}, denied: warnings", len(warnings), 1)
    yield Figure(f"{backend}, denied: it says", warnings[0], "ses:GetAccount in it", "ses:GetAccount" in warnings[0])
    yield at_most(f"{backend}, denied: recipients per second", ses.inbox.rate(), 14.0)


def figures() -> Iterator[Figure]:
    """On the fake clock and the in-memory simulator."""
    for backend in BACKENDS:
        yield from _hold(backend)
        yield from _wait(backend)
        yield from _denied(backend)
