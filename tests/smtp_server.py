"""
A real SMTP server that nobody here wrote, for the tests and the acceptance runs: aiosmtpd on a free port, with TLS.

It answers as SES does where it accepts, and as it is told where it does not. Certificates come from a throwaway CA.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message as Mime
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tanksend.testing._loop_thread import LoopThread
from tanksend.transports._smtp_link import Link

USERNAME = "AKIDEXAMPLE"
PASSWORD = "BLBM-made-up-password"
DROP = "drop"
SILENCE = "silence"


class Authority:
    """A certificate authority for one test run, and what it signs."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._folder = tempfile.TemporaryDirectory(prefix="tanksend-ca-")
        self.bundle = str(Path(self._folder.name) / "ca.pem")
        self._ca.cert_pem.write_to_path(self.bundle)

    def context(self, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for *names*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        return context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()


def hurry_after_content(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let clients wait briefly for the reply to a content, and as long as they like before; how long that would be."""
    send, limits = Link.send, list[float]()

    def hurry(link: Link, data: Any) -> None:
        send(link, data)
        if data.endswith(b"\r\n.\r\n" if isinstance(data, bytes) else "\r\n.\r\n"):
            limits.append(link._left())
            monkeypatch.setattr(link, "_left", lambda: 0.05)

    monkeypatch.setattr(Link, "send", hurry)
    return limits


def accept(mail: Mime, envelope: Envelope) -> None:
    """Take everything."""


class MailServer:
    """
    aiosmtpd in a thread of its own; a context manager.

    Args:
        context: For TLS; None offers none.
        implicit: TLS from the first byte instead of STARTTLS.
        judge: Called with each mail; gives the reply, `DROP`, `SILENCE`, or None to take it. A mail that is taken with
            another reply than SES's is in the inbox too when the reply begins with 2.
        before: Called at DATA; gives a reply, `DROP`, or None to go on.
        recipient: Called with each RCPT's address; gives a reply to refuse it, or None.
        size_limit: Bytes of a mail.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        *,
        implicit: bool = False,
        judge: Callable[[Mime, Envelope], str | None] = accept,
        before: Callable[[Envelope], str | None] = lambda _: None,
        recipient: Callable[[str], str | None] = lambda _: None,
        size_limit: int = 1_000_000,
    ) -> None:
        self.context = context
        self.implicit = implicit
        self.judge = judge
        self.before = before
        self.recipient = recipient
        self.size_limit = size_limit
        self.inbox: list[tuple[Mime, Envelope]] = []
        self.connections = 0
        self.logins = 0
        self.busy = threading.Event()
        self.port = 0
        self._open: set[_Connection] = set()
        self._thread = LoopThread(self._serve, "aiosmtpd")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.stop()

    @property
    def tags(self) -> list[str]:
        """The tags header of everything in the inbox."""
        return [str(mail["X-SES-MESSAGE-TAGS"]) for mail, _ in self.inbox]

    def hang_up(self) -> None:
        """Close every connection, as a load balancer does, and return when it is done."""
        done = threading.Event()

        def close() -> None:
            for connection in tuple(self._open):
                connection.cut()
            loop.call_later(0.01, done.set)

        loop = self._thread._loop
        loop.call_soon_threadsafe(close)
        done.wait()

    async def _serve(self, listening: Callable[[], None], stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        context = self.context if self.implicit else None
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, ssl=context, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        listening()
        await stop.wait()
        server.close()
        for connection in tuple(self._open):
            connection.cut()
        for _ in range(10):
            await asyncio.sleep(0)
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # --- aiosmtpd's hooks

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.logins += 1
        good = data.login == USERNAME.encode() and data.password == PASSWORD.encode()
        message = None if good else "535 Authentication Credentials Invalid"
        return AuthResult(success=good, handled=good, message=message)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.recipient(address)
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 Ok"

    async def handle_DATA(self, server: _Connection, session: Session, envelope: Envelope) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.original_content)
        reply = self.judge(mail, envelope)
        self.busy.set()
        if reply == SILENCE:
            await asyncio.Event().wait()
        if reply == DROP:
            server.cut()
            return "250 nobody reads this"
        if reply is None or reply.startswith("2"):
            self.inbox.append((mail, envelope))
        return reply or f"250 Ok 0100{len(self.inbox):012x}-1a2b3c4d-0000-4000-8000-0123456789ab-000000"


class _Connection(SMTP):
    def __init__(self, owner: MailServer) -> None:
        super().__init__(
            owner,
            hostname="email-smtp.amazonaws.com",
            ident="ESMTP",
            tls_context=None if owner.implicit else owner.context,
            # With TLS from the first byte it sees none, and would neither offer AUTH nor ask for it.
            auth_required=owner.context is not None and not owner.implicit,
            auth_require_tls=not owner.implicit,
            authenticator=owner.authenticate,
            data_size_limit=owner.size_limit,
            loop=asyncio.get_running_loop(),
        )
        self.owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self.owner._open:
            self.owner.connections += 1
            self.owner._open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.owner._open.discard(self)
        super().connection_lost(error)

    def cut(self) -> None:
        transport = self._original_transport or self.transport
        if transport is not None:
            transport.abort()

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        reply = self.owner.before(self.envelope)
        if reply is None:
            await super().smtp_DATA(arg)
        elif reply == DROP:
            self.cut()
        else:
            await self.push(reply)
