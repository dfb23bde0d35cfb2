"""Another program uses the account untold, evenly or in bursts: what we leave it, what we take, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator

import anyio
from _figures import Figure, at_least, at_most, exactly
from _world import BACKENDS, run

from tanksend import Message, Sender, SendError, SendReport, Status
from tanksend.limiters import AccountLimiter
from tanksend.testing import FakeClock, SimulatedSES
from tanksend.typing import SendRequest

RATE = 50.0
OURS, THEIRS = "ours@example.com", "theirs@example.com"
Gap = Callable[[], float]


class World:
    """One account, our sender, and a stranger who sends at his own times and never retries."""

    def __init__(self, seconds: float, gap: Gap, *, stops_after: float) -> None:
        self.clock = FakeClock()
        self.ses = SimulatedSES(rate=RATE, daily_quota=-1, latency=(0.05, 0.01))
        self.seconds = seconds
        self._gap = gap
        self._stops_after = stops_after
        self.stranger_refused = 0
        self.ours: list[float] = []
        self.throttled: list[float] = []

    async def run(self) -> SendReport:
        """All of it in virtual time; times count from the start."""
        transport = self.ses.transport(self.clock)
        began = self.clock.monotonic()

        class Ears:
            def on_event(_, event: object) -> None:  # noqa: N805
                if getattr(event.error, "code", "") == "TooManyRequestsException":  # type: ignore[attr-defined]
                    self.throttled.append(self.clock.monotonic() - began)

        sender = Sender(
            from_=OURS, transport=transport, limiter=AccountLimiter(clock=self.clock), clock=self.clock,
            observers=[Ears()],
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stranger, transport.send)
            number = int(RATE * self.seconds * 0.9)
            report = await sender.send_all([Message(f"u{index}@example.com", "Hi", "Hello") for index in range(number)])
            tasks.cancel_scope.cancel()
        self.ours = [item.at - began for item in self.ses.inbox if item.sender == OURS]
        return report

    async def _stranger(self, send: Callable[[SendRequest], Awaitable[object]]) -> None:
        sender = Message("x@example.com", "Hi", "Hello", from_=THEIRS)
        request = SendRequest(sender, sender.from_, sender.to)  # type: ignore[arg-type]
        began = self.clock.monotonic()
        async with anyio.create_task_group() as tasks:
            due = began
            while due - began < self._stops_after:
                due += self._gap()
                await self.clock.sleep(due - self.clock.monotonic())
                tasks.start_soon(self._once, send, request)

    async def _once(self, send: Callable[[SendRequest], Awaitable[object]], request: SendRequest) -> None:
        try:
            await send(request)
        except SendError:
            self.stranger_refused += 1

    def rate(self, begin: float, end: float) -> float:
        """What SES took of ours, in recipients per second."""
        return sum(begin <= moment < end for moment in self.ours) / (end - begin)

    def share_throttled(self, begin: float, end: float) -> float:
        """Of our requests in that time."""
        refused = sum(begin <= moment < end for moment in self.throttled)
        return refused / max(1, refused + sum(begin <= moment < end for moment in self.ours))


def _even(backend: str) -> Iterator[Figure]:
    world = World(160.0, lambda: 2.0 / RATE, stops_after=90.0)
    report = run(backend, world.run)
    yield exactly(f"{backend}, half the rate taken evenly: not sent", report.total - report.counts[Status.SENT], 0)
    yield at_most(f"{backend}, after 10 s: share throttled", world.share_throttled(10, 90), 0.03)
    yield at_least(f"{backend}, after 10 s: use of what is left", world.rate(10, 90) / (RATE / 2), 0.85)
    yield at_least(f"{backend}, 20 s after it stopped: use of the rate", world.rate(110, 125) / RATE, 0.95)


def _bursts(backend: str) -> Iterator[Figure]:
    chance = random.Random(3)
    world = World(160.0, lambda: chance.expovariate(RATE / 2), stops_after=120.0)
    report = run(backend, world.run)
    yield exactly(f"{backend}, Poisson bursts: not sent", report.total - report.counts[Status.SENT], 0)
    yield at_least(f"{backend}, Poisson bursts: use of what is left", world.rate(10, 110) / (RATE / 2), 0.7)


def figures() -> Iterator[Figure]:
    """In virtual time, on an account of 50/s that counts strictly."""
    for backend in BACKENDS:
        yield from _even(backend)
        yield from _bursts(backend)
