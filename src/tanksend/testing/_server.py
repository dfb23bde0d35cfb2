"""`SimulatedSES`: the simulated account behind a loopback HTTP server, or in memory on any clock."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import random
import ssl
from typing import TYPE_CHECKING, Any

import attrs

from .._smtp_password import is_temporary, smtp_password
from ._answers import Answer, Request, success
from ._loop_thread import LoopThread
from ._simulator import Exchange, SimulatedAccount
from ._smtp import MailRequest
from ._smtp_wire import MailConnection
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
        tls: An ``ssl.SSLContext``, or the paths of a certificate and its key; None speaks plain HTTP, and SMTP without
            STARTTLS, which then lets nobody in.
        smtp_port: Where to speak SMTP, with STARTTLS; 0 takes a free one, None does not. Users log in with an access
            key of *credentials* and the password that `tanksend.transports.smtp_password` makes of its secret.
        smtps_port: The same for SMTP with TLS from the first byte.
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
    smtp_port: int | None = None
    smtps_port: int | None = None
    latency: Latency = 0.0
    idle_timeout: float | None = None
    close_after_requests: int | None = None
    slow_step: float = 0.002
    seed: int = 0
    connections: set[Connection] = attrs.field(init=False, factory=set)
    mail_connections: set[MailConnection] = attrs.field(init=False, factory=set)
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
            ValueError: There is no certificate for *smtps_port*.
        """
        if self.smtps_port is not None and self.tls is None:
            raise ValueError("smtps_port needs tls=")
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
        servers = [await self._listen(self.port, lambda: Connection(self), self.tls)]
        self.port = _port(servers[0])
        if self.smtp_port is not None:
            servers.append(await self._listen(self.smtp_port, lambda: MailConnection(self, self.tls, secured=False)))
            self.smtp_port = _port(servers[-1])
        if self.smtps_port is not None:
            servers.append(
                await self._listen(self.smtps_port, lambda: MailConnection(self, self.tls, secured=True), self.tls)
            )
            self.smtps_port = _port(servers[-1])
        listening()
        await stop.wait()
        for server in servers:
            server.close()
        for drop in [each.drop for each in self.connections] + [each.drop for each in self.mail_connections]:
            drop()
        # Each connection says goodbye in a turn of its own, TLS ones in two.
        for _ in range(_GOODBYES):
            await asyncio.sleep(0)

    async def _listen(
        self, port: int, protocol: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None = None
    ) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(protocol, self.host, port, ssl=context, backlog=1024)

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

    def log_in(self, username: str, password: str) -> bool:
        """Whether these are an access key and its SMTP password. Without *credentials* anybody's are."""
        with self._lock:
            if not self.credentials and not self.verify_signatures:
                return True
            known = self.credentials.get(username)
            expected = "" if known is None else smtp_password(known.secret, self.region)
            same = hmac.compare_digest(expected.encode(), password.encode("utf-8", "replace"))
            if known is not None and same and not is_temporary(username, known.token):
                return True
            self.counts.bad_signatures += 1
            self.counts.by_code["535"] += 1
            return False

    def _authenticate(self, request: Request) -> None:
        """What came over SMTP is not signed: its sender has logged in."""
        if not isinstance(request, MailRequest):
            super()._authenticate(request)

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


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
