"""`SyncSender`: `Sender` for code without an event loop."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from ._sender import DEFAULT_GIVE_UP_SECONDS, Sender

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from ._addresses import Address
    from ._messages import Message
    from ._progress import Progress
    from ._report import SendReport
    from ._results import SendResult
    from ._sync_stream import SyncResultStream
    from ._validator import AddressValidator
    from .typing import Clock, Guard, Ledger, Observer, RateLimiter, RetryPolicy, SuppressionStore, Transport


class SyncSender:
    """
    `Sender` for scripts, threads, WSGI and notebook cells: the same methods without ``await``.

    It runs on a loop thread of its own, which starts with the first call, again in a forked child, ends with `close`,
    and does not keep the interpreter from ending when that is never called. Several threads may share one. A batch
    belongs to the process that began it.

    Iterables of messages are pulled, and *progress* and *on_result* called, in the calling thread. Ctrl-C stops what
    this waits for: requests on the wire get 5 seconds, or until a second Ctrl-C, the rest is held, and `last_report`
    tells what became of each.
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
        from ._loop_thread import LoopThread  # loads when it is used

        self._sender = Sender(
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
        self._loop = LoopThread(self._sender.aclose)

    @property
    def last_report(self) -> SendReport | None:
        """The report of the latest `send_all` or `stream`, also while it runs and after it was stopped."""
        return self._sender.last_report

    @property
    def transport(self) -> Transport:
        """The way out."""
        return self._sender.transport

    @property
    def limiter(self) -> RateLimiter:
        """The pace."""
        return self._sender.limiter

    @property
    def suppression(self) -> SuppressionStore:
        """Who must not be written to."""
        return self._sender.suppression

    @property
    def ledger(self) -> Ledger | None:
        """What keeps what was sent."""
        return self._sender.ledger

    def send(
        self, message: Message, *, give_up_after: float | dt.timedelta | None = DEFAULT_GIVE_UP_SECONDS
    ) -> SendResult:
        return self._loop.call(self._sender.send, message, give_up_after=give_up_after)

    def send_all(
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
        from ._progress import Outlet  # loads when it is used
        from ._sync_stream import SyncResultStream

        with ExitStack() as stack:
            outlet = Outlet(messages, progress=progress, on_result=on_result, save_to=save_to)
            stack.callback(outlet.close)
            # Rows are saved on the loop's side: an interrupt of this thread must neither lose one nor write it twice.
            save = outlet.save
            stream = SyncResultStream(self._sender, self._loop, messages, campaign, give_up_after, keep=keep, save=save)
            with stream:
                for result in stream:
                    returned = outlet.put(result)
                    if inspect.isawaitable(returned):
                        self._loop.call(_wait_for, returned)
            return stream.report

    def stream(
        self,
        messages: Iterable[Message] | AsyncIterable[Message],
        *,
        campaign: str | None = None,
        give_up_after: float | dt.timedelta | None = None,
    ) -> SyncResultStream:
        from ._sync_stream import SyncResultStream  # loads when it is used

        return SyncResultStream(self._sender, self._loop, messages, campaign, give_up_after)

    def close(self) -> None:
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._sender)[1:]}"


async def _wait_for(returned: Awaitable[object]) -> None:
    await returned


for _name, _original in {"send": "send", "send_all": "send_all", "stream": "stream", "close": "aclose"}.items():
    # The text stands once, at the method that does the work.
    getattr(SyncSender, _name).__doc__ = getattr(Sender, _original).__doc__
