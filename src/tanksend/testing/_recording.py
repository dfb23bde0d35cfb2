"""`RecordingTransport`: keeps what it is given and sends nothing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import anyio.lowlevel

from .._results import Receipt
from ..exceptions import SendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..typing import BulkRequest, Clock, SendRequest

Outcome: TypeAlias = Receipt | SendError | None


class RecordingTransport:
    """
    A `BulkTransport` for tests of a program that sends mail.

    ``requests`` holds every attempt, ``sent`` those that were answered with a receipt, ``bulk`` the requests that
    carried several messages, which are in ``requests`` one by one too. It is not paced: a `Sender` without a limiter
    of its own sends through it as fast as it can.

    Args:
        outcome: What comes of each attempt, None for success with a made-up message id. Either one outcome after the
            other (when they are used up, everything succeeds), or a function of the request.
        clock: Whose time *delay* takes.
        delay: Seconds each attempt takes; needs *clock*.

    Raises:
        ValueError: There is a delay and no clock.
    """

    paced: ClassVar[bool] = False

    def __init__(
        self,
        outcome: Iterable[Outcome] | Callable[[SendRequest], Outcome] = (),
        *,
        clock: Clock | None = None,
        delay: float = 0.0,
    ) -> None:
        if delay and clock is None:
            raise ValueError("a delay needs a clock")
        self.requests: list[SendRequest] = []
        self.sent: list[SendRequest] = []
        self.bulk: list[BulkRequest] = []
        self.closed = 0
        self._outcome = outcome if callable(outcome) else _one_after_the_other(outcome)
        self._clock = clock
        self._delay = delay
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<RecordingTransport requests={len(self.requests)} sent={len(self.sent)}>"

    @property
    def recipients(self) -> list[str]:
        """The e-mail addresses of all that was sent, in order."""
        return [address.email for request in self.sent for address in request.recipients]

    async def send(self, request: SendRequest) -> Receipt:
        """
        Keep one attempt.

        Raises:
            SendError: The outcome said so.
        """
        self.requests.append(request)
        await self._take_time()
        outcome = self._judge(request)
        if isinstance(outcome, SendError):
            raise outcome
        return outcome

    async def send_bulk(self, request: BulkRequest) -> Sequence[Receipt | SendError]:
        """Keep several messages that travel together, each with an outcome of its own."""
        self.bulk.append(request)
        self.requests.extend(request.requests)
        await self._take_time()
        return [self._judge(each) for each in request.requests]

    async def _take_time(self) -> None:
        if self._clock is not None and self._delay > 0:
            await self._clock.sleep(self._delay)
        else:
            await anyio.lowlevel.checkpoint()

    def _judge(self, request: SendRequest) -> Receipt | SendError:
        outcome = self._outcome(request)
        if outcome is None:
            outcome = Receipt(f"recorded-{next(self._numbers)}")
        if isinstance(outcome, Receipt):
            self.sent.append(request)
        return outcome

    async def aclose(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


def _one_after_the_other(outcomes: Iterable[Outcome]) -> Callable[[SendRequest], Outcome]:
    left: Iterator[Outcome] = iter(outcomes)

    def following(request: SendRequest) -> Outcome:
        del request
        return next(left, None)

    return following
