"""`SimulatedSES`: the simulated account behind a loopback HTTP server, or in memory on any clock."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from typing import TYPE_CHECKING, Any

import attrs

from ._answers import Answer, Request, success
from ._loop_thread import LoopThread
from ._simulator import Exchange, SimulatedAccount
from ._wire import Connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ..typing import Clock
    from ._memory import SimulatedTransport

FIGURES_PATH = "/_simulator"
_GOODBYES = 5
StrPath = str | os.PathLike[str]
Latency = float | tuple[float, float]
CertificateAndKey = tuple[StrPath, StrPath]


def _as_context(value: ssl.SSLContext | CertificateAndKey | None) -> ssl.SSLContext | None:
    if value is None or isinstance(value, ssl.SSLContext):
        return value
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*value)
    return context


def _latencies(ses: SimulatedSES) -> random.Random:
    return random.Random(ses.seed)  # noqa: S311  (repeatable, no secret)


@attrs.define(kw_only=True, eq=False, repr=False, slots=False)
class SimulatedSES(SimulatedAccount):
    """
    A simulated Amazon SES that enforces its quotas and loses answers when told to.

    It takes all that `SimulatedAccount` takes. As a context manager, sync or async, it serves the SES v2 API at `url`
    from a thread of its own; `transport` needs no server. Nothing here is awaited: `counts`, `inbox` and the settings
    may be read and changed from any thread at any time::

        with SimulatedSES(rate=50) as ses:
            ...  # SESTransport(endpoint_url=ses.url, region=ses.region, credentials=...)
        assert not ses.doubled()

    Args:
        host: Where to listen.
        port: 0 takes a free one.
        tls: An ``ssl.SSLContext``, or the paths of a certificate and its key; None speaks plain HTTP.
        latency: Seconds from a request's arrival, when the account decides, to its answer: a number, or the middle
            and the spread of a uniform distribution, ``(0.04, 0.02)``.
        idle_timeout: Seconds after which a connection without requests is closed; None for never.
        close_after_requests: Close each connection after that many answers, as load balancers do, without a word.
        slow_step: Seconds between the bytes of a ``slow`` answer.
        seed: Of the latencies.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = attrs.field(default=None, converter=_as_context)
    latency: Latency = 0.0
    idle_timeout: float | None = None
    close_after_requests: int | None = None
    slow_step: float = 0.002
    seed: int = 0
    connections: set[Connection] = attrs.field(init=False, factory=set)
    _latencies: random.Random = attrs.field(init=False, default=attrs.Factory(_latencies, takes_self=True))
    _thread: LoopThread | None = attrs.field(init=False, default=None)

    # --- the server ---

    @property
    def url(self) -> str:
        """Where it listens, for ``endpoint_url=`` or ``AWS_ENDPOINT_URL_SESV2``."""
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    def start(self) -> None:
        """
        Listen. Blocks until it does.

        Raises:
            OSError: The port is taken.
        """
        if self._thread is None:
            thread = LoopThread(self._serve, "simulated-ses")
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Close everything, open connections too. Blocks until it is done, which is soon."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self, listening: Callable[[], None], stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), self.host, self.port, ssl=self.tls, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        listening()
        await stop.wait()
        server.close()
        for connection in tuple(self.connections):
            connection.drop()
        # Each connection says goodbye in a turn of its own, TLS ones in two.
        for _ in range(_GOODBYES):
            await asyncio.sleep(0)

    # --- what a connection asks ---

    def opened(self) -> None:
        """Count a connection."""
        self.counts.connections += 1

    def delay(self) -> float:
        """Seconds until the next answer, by `latency`."""
        if isinstance(self.latency, tuple):
            middle, spread = self.latency
            return max(0.0, middle + spread * (2 * self._latencies.random() - 1))
        return self.latency

    def exchange(self, request: Request, fault: str | None = None) -> Exchange:
        """Take a request; ``GET /_simulator`` asks for the figures."""
        if request.path == FIGURES_PATH:
            return Exchange(self._figures_answer())
        return super().exchange(request, fault)

    def figures(self) -> dict[str, Any]:
        """Counts, and what the inbox says of pace and doubles, as plain values for JSON."""
        return {
            **self.counts.as_dict(),
            "busiest_second": self.inbox.busiest(),
            "rate": round(self.inbox.rate(), 3) if len(self.inbox) > 1 else 0.0,
            "doubled": len(self.inbox.doubled()),
        }

    def _figures_answer(self) -> Answer:
        return success(json.loads(json.dumps(self.figures())), "figures")

    # --- in memory ---

    def transport(self, clock: Clock | None = None, *, read_timeout: float = 60.0) -> SimulatedTransport:
        """
        A transport to this account that needs no server and takes its time from *clock* (the system's when None).

        Faults come back as the errors that `SESTransport` would raise for them.

        Args:
            clock: Latency, silence and both quotas go by it.
            read_timeout: Seconds after which silence is given up on.
        """
        from ._memory import SimulatedTransport

        return SimulatedTransport(self, clock, read_timeout=read_timeout)
