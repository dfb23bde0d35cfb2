"""`Sender`: the way in."""

from __future__ import annotations

import inspect
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import attrs

from ._messages import Message, Priority
from .exceptions import IntakeError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterable, Callable, Hashable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from ._addresses import Address
    from ._engine import Lanes, Run
    from ._progress import Outlet, Progress
    from ._report import Row, SendReport
    from ._results import SendResult
    from ._validator import AddressValidator
    from .exceptions import SendError
    from .typing import Clock, Guard, Ledger, Observer, RateLimiter, RetryPolicy, SuppressionStore, Transport

DEFAULT_GIVE_UP_SECONDS = 30.0
"""How long `Sender.send` tries: somebody is waiting for the answer."""


class Sender:
    """
    Sends mail through Amazon SES so that every message has exactly one known fate.

    Works with and without ``async with``, on asyncio and trio, from several tasks, threads and event loops at once: it
    owns no task and nothing bound to a loop outside a call.

    Args:
        from_: The From address of messages that name none.
        region: AWS region of the default transport.
        endpoint_url: Where the default transport sends, instead of SES's own host.
        transport: The way out; `SESTransport` by default.
        limiter: The pace; by default `AccountLimiter`, which learns the account's own quotas.
        retry: What to do after a failed attempt; `ExponentialBackoff` by default.
        suppression: Who must not be written to; a `MemorySuppressionStore` by default.
        validator: Judges addresses; the strict `AddressValidator` by default.
        ledger: Keeps what was sent, so that no crash makes a mail go twice or be forgotten; none by default.
        guards: Checks of the caller's own, asked before the pace.
        observers: Told of each attempt that failed and of each fate.
        max_parallel: Requests on the wire at once; None lets the pace decide, up to 256.
        configuration_set: For messages that name none.
        tags: SES message tags for every message.
        clock: Where time comes from.

    Raises:
        InvalidMessageError: *from_* or *tags* cannot be used.
        SettingError: Another argument cannot be used.
        TypeError: A part has not the methods that it needs.
    """

    def __init__(
        self,
        *,
        from_: str | Address | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        transport: Transport | None = None,
        limiter: RateLimiter | None = None,
        retry: RetryPolicy | None = None,
        suppression: SuppressionStore | None = None,
        validator: AddressValidator | None = None,
        ledger: Ledger | None = None,
        guards: Iterable[Guard] = (),
        observers: Iterable[Observer] = (),
        max_parallel: int | None = None,
        configuration_set: str | None = None,
        tags: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        from ._wiring import wire  # the engine and the parts load when they are used

        self._parts = wire(
            from_=from_,
            region=region,
            endpoint_url=endpoint_url,
            transport=transport,
            limiter=limiter,
            retry=retry,
            suppression=suppression,
            validator=validator,
            ledger=ledger,
            guards=guards,
            observers=observers,
            max_parallel=max_parallel,
            configuration_set=configuration_set,
            tags=tags,
            clock=clock,
        )
        self._lock = threading.Lock()
        self._lanes: dict[Hashable, tuple[Lanes, int]] = {}
        self.last_report: SendReport | None = None
        """The report of the latest `send_all` or `stream`, also while it runs and after it was stopped."""

    @property
    def transport(self) -> Transport:
        """The way out."""
        return self._parts.transport

    @property
    def limiter(self) -> RateLimiter:
        """The pace."""
        return self._parts.limiter

    @property
    def suppression(self) -> SuppressionStore:
        """Who must not be written to."""
        return self._parts.suppression

    @property
    def ledger(self) -> Ledger | None:
        """What keeps what was sent."""
        return self._parts.ledger

    async def send(
        self, message: Message, *, give_up_after: float | dt.timedelta | None = DEFAULT_GIVE_UP_SECONDS
    ) -> SendResult:
        """
        Send one message, and return if and only if SES took it.

        Args:
            message: Transactional, unless it says otherwise: it goes before bulk.
            give_up_after: Seconds to try; a request on the wire is never cut. None tries on.

        Raises:
            SendError: SES has not taken it, or perhaps not (`OutcomeUnknownError`); the subclass says why, and
                `SendError.result` has the fate.
            TypeError: *message* is not a `Message`.
        """
        if not isinstance(message, Message):
            raise TypeError(f"send takes a Message, not {type(message).__name__}")
        async with self._run((message,), Priority.TRANSACTIONAL, give_up_after, keep=0) as run:
            result = await run.take_result()
        if result is None:  # pragma: no cover  (a run gives each message a result)
            raise RuntimeError("the engine lost a message")
        if result.error is not None:
            raise own_error(result, result.error)
        return result

    async def send_all(
        self,
        messages: Iterable[Message] | AsyncIterable[Message],
        *,
        campaign: str | None = None,
        progress: bool | Progress | None = None,
        on_result: Callable[[SendResult], object] | None = None,
        keep: int = 10_000,
        save_to: str | Path | None = None,
        give_up_after: float | dt.timedelta | None = None,
    ) -> SendReport:
        """
        Send many messages, and report what became of each. Never raises for one message.

        Args:
            messages: Any iterable or async iterable, endless ones too; pulled at most 1,000 ahead.
            campaign: A name for the batch. With a ledger, messages without a key get one made of this name, their
                recipients and their content, so that the same batch can be run again after a crash: what was sent is
                passed over, everything else is tried.
            progress: True for a bar (needs tqdm), or a callable given the number done and the total or None.
            on_result: Called with each result as it ends; what it raises stops the batch.
            keep: How many rows the report keeps.
            save_to: A CSV file for all rows, readable by this user only.
            give_up_after: Seconds from intake after which a waiting message is held; None tries on.

        Raises:
            IntakeError: The iterable raised; has the report.
            SettingError: There is a ledger, and neither *campaign* nor a key for each message. Nothing was sent.
            OSError: *save_to* cannot be written.
        """
        from ._progress import Outlet  # loads when it is used

        with ExitStack() as stack:
            outlet = Outlet(messages, progress=progress, on_result=on_result, save_to=save_to)
            stack.callback(outlet.close)
            running = self._run(messages, Priority.BULK, give_up_after, campaign=campaign, keep=keep)
            run = await self._send_all(running, outlet, outlet.save)
        raise_intake_error(run)
        return run.report

    async def _send_all(self, running: Running, outlet: Outlet, save: Callable[[Row], object] | None) -> Run:
        run: Run | None = None
        try:
            async with running as run:
                self.last_report = run.report
                while results := await take_results(run, save):
                    for result in results if outlet.wanted else ():
                        returned = outlet.put(result)
                        if inspect.isawaitable(returned):
                            await returned
            return run
        finally:
            # Those that were given their fate by a stop belong in the file, too.
            while run is not None and await take_results(run, save):
                pass

    def stream(
        self,
        messages: Iterable[Message] | AsyncIterable[Message],
        *,
        campaign: str | None = None,
        give_up_after: float | dt.timedelta | None = None,
    ) -> ResultStream:
        """
        Send many messages, and iterate over the results in the order they end, in bounded memory.

        ``async with sender.stream(messages) as results: async for result in results: …``, without ``async`` for a
        `SyncSender`. Leaving the block early stops the batch.

        Args:
            messages: As for `send_all`.
            campaign: As for `send_all`.
            give_up_after: As for `send_all`.

        Raises:
            IntakeError: From the iteration, after the last result: the iterable raised.
            SettingError: As for `send_all`, from the iteration.
        """
        return ResultStream(self, messages, campaign, give_up_after)

    async def aclose(self) -> None:
        """Close the connections of the transport. The sender opens them again when it is used again."""
        await self._parts.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _run(
        self,
        messages: object,
        priority: Priority,
        give_up_after: float | dt.timedelta | None,
        *,
        keep: int,
        campaign: str | None = None,
    ) -> Running:
        options = {"priority": priority, "give_up_after": _seconds(give_up_after), "keep": keep, "campaign": campaign}
        return Running(self, messages, options)

    def _make_run(self, messages: object, options: Mapping[str, Any]) -> Run:
        from ._engine import Run, source_of  # loads when it is used

        source = source_of(messages)
        return Run(self._parts, self._enter_lanes(), source, **options)

    def _enter_lanes(self) -> Lanes:
        from ._engine import Lanes, this_loop  # loads when it is used

        loop = this_loop()
        with self._lock:
            lanes, runs = self._lanes.get(loop) or (Lanes(self._parts), 0)
            self._lanes[loop] = (lanes, runs + 1)
        return lanes

    async def _leave_lanes(self) -> None:
        from ._engine import this_loop  # loads when it is used

        loop = this_loop()
        with self._lock:
            lanes, runs = self._lanes.pop(loop)
            if runs > 1:
                self._lanes[loop] = (lanes, runs - 1)
                return
        await lanes.aclose()

    def __repr__(self) -> str:
        return f"<Sender transport={type(self._parts.transport).__name__} limiter={self._parts.limiter!r}>"


class Running:
    """A run, from its first message to its last fate, as a context."""

    def __init__(self, sender: Sender, messages: object, options: Mapping[str, Any]) -> None:
        self._sender = sender
        self._make = partial(sender._make_run, messages, options)  # noqa: SLF001  (its own half)
        self._run: Run | None = None

    async def __aenter__(self) -> Run:
        self._run = self._make()
        return await self._run.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._run is not None  # noqa: S101  (it was entered)
        try:
            await self._run.__aexit__(kind, error, trace)
        finally:
            await self._sender._leave_lanes()  # noqa: SLF001


class ResultStream:
    """The results of `Sender.stream`, in the order they end."""

    def __init__(
        self, sender: Sender, messages: object, campaign: str | None, give_up_after: float | dt.timedelta | None
    ) -> None:
        self._sender = sender
        self._context = sender._run(messages, Priority.BULK, give_up_after, keep=10_000, campaign=campaign)  # noqa: SLF001
        self._run: Run | None = None

    async def __aenter__(self) -> Self:
        self._run = await self._context.__aenter__()
        self._sender.last_report = self._run.report
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._context.__aexit__(kind, error, trace)

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> SendResult:
        if self._run is None:
            msg = "use it in a block: async with sender.stream(messages) as results"
            raise RuntimeError(msg)
        result = await self._run.take_result()
        if result is None:
            raise_intake_error(self._run)
            raise StopAsyncIteration
        return result

    @property
    def report(self) -> SendReport:
        """What has become of the batch so far."""
        if self._run is None:
            msg = "there is no report before the block is entered"
            raise RuntimeError(msg)
        return self._run.report


def _seconds(duration: float | dt.timedelta | None) -> float | None:
    if duration is None or isinstance(duration, int | float):
        return duration
    if not hasattr(duration, "total_seconds"):
        raise TypeError(f"give_up_after must be seconds or a timedelta, not {type(duration).__name__}")
    return duration.total_seconds()


def own_error(result: SendResult, error: SendError) -> SendError:
    """The error that `Sender.send` raises: never an object that others are raising, too, with a result of theirs."""
    from ._engine import copy_of  # loads when it is used

    own = copy_of(error)
    own.result = attrs.evolve(result, error=own)
    return own


async def take_results(run: Run, save: Callable[[Row], object] | None) -> Sequence[SendResult]:
    """What has ended since the last call, saved; empty when everything has."""
    results = await run.take_results()
    if save is not None:
        from ._report import row_of  # loads when it is used

        for result in results:
            save(row_of(result))
    return results


def raise_intake_error(run: Run) -> None:
    """Raise what the iterable of a run raised, if it did, or what is wrong with the batch as a whole."""
    from ._engine import MissingKeyError  # loads when it is used

    if isinstance(run.intake.error, MissingKeyError):
        raise run.intake.error
    if run.intake.error is not None:
        raise IntakeError(report=run.report) from run.intake.error
