from __future__ import annotations

import base64
import contextlib
import logging
import os
import pickle
import re
import socket
import ssl
import threading
from collections import Counter
from email import message_from_bytes, policy
from functools import partial

import anyio
import pytest

from smtp_server import DROP, PASSWORD, SILENCE, USERNAME, Authority, MailServer, hurry_after_content
from tanksend._addresses import Address
from tanksend._messages import Attachment, Message, Template
from tanksend._results import Status
from tanksend._sender import Sender
from tanksend.exceptions import (
    AccountPausedError,
    ConfigurationError,
    ConnectionFailedError,
    ContentRejectedError,
    CredentialsError,
    DailyQuotaExceededError,
    IdentityNotVerifiedError,
    InvalidAddressError,
    InvalidMessageError,
    InvalidParameterError,
    MessageTooLargeError,
    OutcomeUnknownError,
    Scope,
    SendError,
    ServiceUnavailableError,
    SettingError,
    ThrottlingError,
)
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import FakeClock, check_transport
from tanksend.transports import Credentials, SMTPTransport, smtp_password
from tanksend.transports._smtp_mail import mail_of, message_id
from tanksend.transports._smtp_pool import Attempt
from tanksend.typing import SendRequest

pytestmark = pytest.mark.anyio

SENDER = Address("Tank", "no-reply@example.com")
SECRET_WORDS = ("kim0", "no-reply", "Hello", "Subject", PASSWORD, USERNAME)
NOT_VERIFIED = "Email address is not verified. The following identities failed the check in region"
SES_ID = "010001890abc1234-1a2b3c4d-0000-4000-8000-0123456789ab-000000"


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """This machine's AWS settings do not count."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def authority():
    """A throwaway CA."""
    with Authority() as made:
        yield made


def request_for(number: int = 0, **fields) -> SendRequest:
    """One message, as the engine hands it over."""
    message = Message(f"kim{number}@example.com", f"Hi {number}", text="Hello", **fields)
    return SendRequest(message, SENDER, message.to, message.cc, message.bcc)


def transport_to(server, authority, **options) -> SMTPTransport:
    """A transport with the right password, unless the test has another."""
    return SMTPTransport(
        **{
            "host": "127.0.0.1",
            "port": server.port,
            "username": USERNAME,
            "password": PASSWORD,
            "implicit_tls": server.implicit,
            "ca_bundle": authority.bundle,
            **options,
        }
    )


class Scripted:
    """
    A server that answers each command by the next reply ordered for it, or as a good server would.

    `None` as a reply drops the connection, `...` says nothing more. The content of a mail is the command ``CONTENT``.
    """

    GOOD = {  # noqa: RUF012
        "GREETING": "220 ready",
        "EHLO": "250-here\r\n250-AUTH PLAIN LOGIN\r\n250 Ok",
        "AUTH": "235 Authentication successful",
        "DATA": "354 go on",
        "CONTENT": f"250 Ok {SES_ID}",
        "QUIT": "221 bye",
    }

    def __init__(self, context, *, implicit=True, **replies):
        self.context, self.implicit = context, implicit
        self.replies = {verb: list(given) for verb, given in replies.items()}
        self.said: list[str] = []
        self.connections = 0
        self._sockets: list[socket.socket] = []

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self):
        threads = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            threads.append(threading.Thread(target=self._serve, args=[connection], daemon=True))
            threads[-1].start()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _serve(self, connection):
        try:
            if self.implicit:
                connection = self.context.wrap_socket(connection, server_side=True)
            self._sockets.append(connection)
            self._talk(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def _talk(self, connection):
        if not self._answer(connection, "GREETING"):
            return
        lines = connection.makefile("rb")
        while line := lines.readline():
            verb = line.split(maxsplit=1)[0].decode().upper()
            self.said.append(line.decode().strip())
            if not self._answer(connection, verb):
                break
            if verb == "STARTTLS" and self.last.startswith("220"):
                lines.close()
                connection = self.context.wrap_socket(connection, server_side=True)
                self._sockets.append(connection)
                lines = connection.makefile("rb")
            if verb == "DATA" and self.last.startswith("354"):
                while lines.readline() not in (b".\r\n", b""):
                    pass
                if not self._answer(connection, "CONTENT"):
                    break
        lines.close()
        connection.close()

    def _answer(self, connection, verb):
        ordered = self.replies.get(verb)
        reply = ordered.pop(0) if ordered else self.GOOD.get(verb, "250 Ok")
        if reply is None:
            return False
        if reply is ...:
            connection.recv(1)  # Until it goes away.
            return False
        self.last = reply if isinstance(reply, str) else reply.decode("latin-1")
        connection.sendall((reply if isinstance(reply, bytes) else reply.encode()) + b"\r\n")
        return verb != "QUIT"


@pytest.fixture
def scripted(authority):
    """Makes scripted servers with TLS from the first byte."""
    servers = []

    def make(**replies):
        servers.append(Scripted(authority.context(), **replies).__enter__())
        return servers[-1]

    yield make
    for server in servers:
        server.__exit__()


async def failure(transport, request=None) -> SendError:
    """The error that a message meets."""
    with pytest.raises(SendError) as caught:
        await transport.send(request or request_for())
    await transport.aclose()
    return caught.value


# --- against aiosmtpd


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
async def test_it_keeps_the_contract_of_transports(authority, implicit):
    """The library's own check, by STARTTLS and with TLS from the first byte."""
    refused = lambda *_: "554 Message rejected: Email address is not verified."
    with (
        MailServer(authority.context(), implicit=implicit) as server,
        MailServer(authority.context(), implicit=implicit, judge=refused) as refusing,
    ):
        await check_transport(lambda: transport_to(server, authority), broken=lambda: transport_to(refusing, authority))


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
async def test_a_mail_arrives_whole(authority, implicit):
    """Headers for SES, addresses on the envelope, blind copies nowhere in the mail, a lone dot as a line of it."""
    with MailServer(authority.context(), implicit=implicit) as server:
        transport = transport_to(server, authority)
        message = Message(
            "Kim <kim@example.com>", "안녕", text=".\r\nHello\r\n.\r\n..two",
            cc="lee@example.com", bcc="park@example.com", attachments=[Attachment("a.bin", bytes(range(256)) * 40)],
        )  # fmt: skip
        request = SendRequest(
            message, SENDER, message.to, message.cc, message.bcc, (), "news", {"campaign": "nov", "kind": "bulk"}
        )
        receipt = await transport.send(request)
        await transport.aclose()
    ((mail, envelope),) = server.inbox
    parsed = message_from_bytes(envelope.original_content, policy=policy.default)
    assert "no-reply@example.com" == envelope.mail_from
    assert ["kim@example.com", "lee@example.com", "park@example.com"] == envelope.rcpt_tos
    assert "news" == mail["X-SES-CONFIGURATION-SET"]
    assert "campaign=nov, kind=bulk" == mail["X-SES-MESSAGE-TAGS"]
    assert b"park" not in envelope.original_content
    assert "안녕" == parsed["Subject"]
    text = parsed.get_body(("plain",)).get_content()
    assert [".", "Hello", ".", "..two"] == text.splitlines()[:4]
    assert re.fullmatch(r"0100[0-9a-f]{12}(-[0-9a-f]+)+-000000", receipt.message_id)


async def test_connections_are_used_again_and_renewed(authority):
    """One after the other takes one connection, until it has carried its number of messages."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority, max_messages=3)
        for number in range(7):
            await transport.send(request_for(number))
        assert (3, 3) == (server.connections, server.logins)
        await transport.aclose()
        await transport.send(request_for(8))
        assert 4 == server.connections
        await transport.aclose()
    assert 8 == len(server.inbox)


async def test_as_many_connections_as_messages_at_once(authority):
    """Ten tasks, ten connections at most, and each message once."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority)
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(transport.send, request_for(number))
        await transport.aclose()
    assert 1 <= server.connections <= 10
    assert {f"Hi {number}" for number in range(10)} == {mail["Subject"] for mail, _ in server.inbox}


async def test_a_connection_that_waited_too_long_is_not_used(authority):
    """It is closed, and another one opened."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority, max_idle=1e-9)
        for number in range(3):
            await transport.send(request_for(number))
        await transport.aclose()
    assert (3, 3) == (server.connections, len(server.inbox))


async def test_a_connection_that_the_server_closed_is_replaced(authority):
    """Nobody notices: no failed attempt, and each message once."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority)
        for number in range(3):
            await transport.send(request_for(number))
            await anyio.to_thread.run_sync(server.hang_up)
        await transport.aclose()
    assert (3, 3) == (server.connections, len(server.inbox))


async def test_several_event_loops_share_one(authority):
    """Connections belong to no loop."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority)
        await transport.send(request_for(0))
        for backend in ("asyncio", "trio"):
            in_another_loop = partial(anyio.run, transport.send, request_for(1), backend=backend)
            await anyio.to_thread.run_sync(in_another_loop)
        await transport.aclose()
    assert (1, 3) == (server.connections, len(server.inbox))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_connections_of_its_own(authority):
    """The parent's are dropped there without a word, and go on here."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority)
        anyio.run(transport.send, request_for(0))
        child = os.fork()
        if child == 0:
            try:
                anyio.run(transport.send, request_for(1))
                anyio.run(transport.aclose)
                os._exit(0)
            except BaseException:  # noqa: BLE001
                os._exit(1)
        assert 0 == os.waitpid(child, 0)[1]
        anyio.run(transport.send, request_for(2))
        anyio.run(transport.aclose)
    assert 2 == server.connections
    assert Counter({"Hi 0": 1, "Hi 1": 1, "Hi 2": 1}) == Counter(mail["Subject"] for mail, _ in server.inbox)


# --- nothing without TLS


async def test_a_certificate_of_a_stranger_is_refused(authority):
    """Nobody logs in to whoever cannot show who he is, and every other message would meet the same."""
    with Authority() as stranger, MailServer(stranger.context()) as server:
        error = await failure(transport_to(server, authority))
        assert (ConnectionFailedError, False, Scope.ACCOUNT) == (type(error), error.retryable, error.scope)
        assert "certificate" in str(error)
        assert "SSLCertVerificationError" == error.cause_type
        assert (0, 0) == (server.logins, len(server.inbox))


async def test_a_certificate_for_another_name_is_refused(authority):
    """The CA is ours, the host is not."""
    with MailServer(authority.context("mail.example.com"), implicit=True) as server:
        error = await failure(transport_to(server, authority))
        assert (ConnectionFailedError, Scope.ACCOUNT, 0) == (type(error), error.scope, server.logins)


async def test_without_starttls_nothing_is_sent(authority):
    """No mail, and no password either."""
    with MailServer(None) as server:
        error = await failure(transport_to(server, authority))
        assert (ConnectionFailedError, False, Scope.ACCOUNT) == (type(error), error.retryable, error.scope)
        assert "does not offer STARTTLS" in str(error)
        assert "Nothing was sent" in str(error)
        assert (0, 0) == (server.logins, len(server.inbox))


@pytest.mark.parametrize(("reply", "retryable"), [("454 TLS not available", True), ("501 no", False)])
async def test_starttls_that_is_refused(authority, reply, retryable):
    """Offered and refused: it may be back later if the server says so. Nothing is said in the clear."""
    offers = "250-here\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 Ok"
    with Scripted(None, implicit=False, EHLO=[offers], STARTTLS=[reply]) as server:
        error = await failure(transport_to(server, authority))
        assert (ConnectionFailedError, retryable) == (type(error), error.retryable)
        assert ["EHLO", "STARTTLS"] == [line.split()[0].upper() for line in server.said]


async def test_what_was_said_before_tls_does_not_count(authority):
    """A reply that somebody put in before TLS is thrown away with what was offered there."""
    offers = "250-here\r\n250-STARTTLS\r\n250 Ok"
    with Scripted(authority.context(), implicit=False, EHLO=[offers], STARTTLS=["220 go\r\n250 forged"]) as server:
        transport = transport_to(server, authority)
        assert SES_ID == (await transport.send(request_for())).message_id
        await transport.aclose()
        assert ["EHLO", "STARTTLS", "EHLO", "AUTH"] == [line.split()[0].upper() for line in server.said[:4]]


# --- fates


@pytest.mark.parametrize(
    ("reply", "kind", "scope"),
    [
        ("454 Throttling failure: Maximum sending rate exceeded", ThrottlingError, Scope.MESSAGE),
        ("454 Throttling failure: Daily message quota exceeded", DailyQuotaExceededError, Scope.ACCOUNT),
        ("451 Temporary service failure", ServiceUnavailableError, Scope.MESSAGE),
        ("552 Message is too long.", MessageTooLargeError, Scope.MESSAGE),
        (
            f"554 Message rejected: {NOT_VERIFIED} US-EAST-1: no-reply@example.com",
            IdentityNotVerifiedError,
            Scope.ORIGIN,
        ),
        ("554 Message rejected: Sending paused for this account.", AccountPausedError, Scope.ACCOUNT),
        ("554 Transaction failed: Expected disposition, got =", ContentRejectedError, Scope.MESSAGE),
    ],
)
async def test_what_the_server_refuses_it_has_not(authority, reply, kind, scope):
    """Refused after its content: certain, of the right kind, and the connection is good for the next message."""
    refusing = [reply, None]
    with MailServer(authority.context(), judge=lambda *_: refusing.pop(0)) as server:
        transport = transport_to(server, authority)
        with pytest.raises(kind) as caught:
            await transport.send(request_for())
        await transport.send(request_for(1))
        await transport.aclose()
        error = caught.value
        assert (scope, False) == (error.scope, error.maybe_sent)
        assert (1, 1) == (server.connections, len(server.inbox))


async def test_a_wrong_password(authority):
    """It stops a batch after one login, and is not in the error."""
    with MailServer(authority.context()) as server:
        error = await failure(transport_to(server, authority, password="wrong-password"))
        assert (CredentialsError, Scope.ACCOUNT, 535) == (type(error), error.scope, error.status)
        assert 1 == server.logins
        assert "wrong-password" not in str(error) + repr(error) + repr(error.__dict__)


async def test_a_mail_that_is_larger_than_the_server_takes(authority):
    """The server says so before it is sent, where it says its limit."""
    with MailServer(authority.context(), size_limit=5_000) as server:
        request = request_for(attachments=[Attachment("a.bin", b"a" * 20_000)])
        error = await failure(transport_to(server, authority), request)
        assert isinstance(error, MessageTooLargeError)


async def test_dropped_before_the_content(authority):
    """At DATA: the message is not with the server, and may go again."""
    drops = [DROP, None]
    with MailServer(authority.context(), before=lambda _: drops.pop(0)) as server:
        transport = transport_to(server, authority)
        with pytest.raises(ConnectionFailedError) as caught:
            await transport.send(request_for())
        await transport.send(request_for())
        await transport.aclose()
        assert (True, False) == (caught.value.retryable, caught.value.maybe_sent)
        assert 1 == len(server.inbox)


async def test_dropped_after_the_content(authority):
    """Nobody knows, and that is what the error says."""
    with MailServer(authority.context(), judge=lambda *_: DROP) as server:
        error = await failure(transport_to(server, authority))
        assert (OutcomeUnknownError, True) == (type(error), error.maybe_sent)


async def test_silence_after_the_content(authority, monkeypatch):
    """The same when nothing comes within the time limit."""
    limits = hurry_after_content(monkeypatch)
    with MailServer(authority.context(), judge=lambda *_: SILENCE) as server:
        error = await failure(transport_to(server, authority, read_timeout=33))
        assert isinstance(error, OutcomeUnknownError)
        assert "nothing came within 33 s" in str(error)
    assert [33] == limits


async def test_recipients_who_are_refused_are_named_and_nobody_gets_the_mail(authority):
    """One fate for one message: it fails before its content. Who was refused stands in `identities` alone."""
    judge = lambda address: f"553 <{address}> address unknown" if "bad" in address else None
    with MailServer(authority.context(), recipient=judge) as server:
        transport = transport_to(server, authority)
        message = Message("kim@example.com", "Hi", text="Hello", cc=["bad.one@example.com", "bad.two@example.com"])
        request = SendRequest(message, SENDER, message.to, message.cc)
        with pytest.raises(InvalidParameterError) as caught:
            await transport.send(request)
        await transport.send(request_for(1))
        await transport.aclose()
        error = caught.value
        assert ("bad.one@example.com", "bad.two@example.com") == error.identities
        assert (Scope.RECIPIENT, False, "recipient") == (error.scope, error.retryable, error.field)
        assert "bad." not in str(error) + repr(error)
        assert ["Hi 1"] == [mail["Subject"] for mail, _ in server.inbox]
        assert 1 == server.connections


async def test_recipients_who_are_refused_for_now(authority):
    """Where all may be taken later the message may be sent again; one for good is enough to end it."""
    judge = lambda address: {"a": "450 later", "b": "550 never"}.get(address[0])
    with MailServer(authority.context(), recipient=judge) as server:
        transport = transport_to(server, authority)
        for people, named, retryable in (("a", "a", True), ("ab", "b", False)):
            message = Message([f"{name}@example.com" for name in people], "Hi", text="Hello")
            with pytest.raises(SendError) as caught:
                await transport.send(SendRequest(message, SENDER, message.to))
            assert (f"{named}@example.com",) == caught.value.identities
            assert retryable is caught.value.retryable
        await transport.aclose()


async def test_fates_through_a_sender(authority):
    """A mix of everything, 40 messages: each has one fate, the true one, and each that was sent came once."""
    kinds = ("good", "throttled", "busy", "unverified", "long", "lost", "dropped")
    tried: Counter[str] = Counter()

    def kind_of(subject):
        return kinds[int(subject.split()[1]) % len(kinds)]

    def judge(mail, envelope):
        tried[mail["Subject"]] += 1
        first = tried[mail["Subject"]] == 1
        return {
            "throttled": "454 Throttling failure: Maximum sending rate exceeded" if first else None,
            "busy": "451 Temporary service failure" if first else None,
            "unverified": f"554 Message rejected: {NOT_VERIFIED} EU-WEST-1: {envelope.rcpt_tos[0]}",
            "long": "552 Message is too long.",
            "lost": DROP,
        }.get(kind_of(mail["Subject"]))

    def before(envelope):
        name = f"at DATA {envelope.rcpt_tos[0]}"
        tried[name] += 1
        number = re.search(r"kim(\d+)@", name)[1]
        return DROP if kind_of(f"Hi {number}") == "dropped" and tried[name] == 1 else None

    with MailServer(authority.context(), judge=judge, before=before) as server:
        limiter = TokenBucketLimiter(float("inf"))
        transport = transport_to(server, authority)
        fates: dict[str, Status] = {}
        messages = [Message(f"kim{number}@example.com", f"Hi {number}", text="Hello") for number in range(42)]
        async with Sender(from_=SENDER, transport=transport, limiter=limiter, clock=FakeClock()) as sender:
            report = await sender.send_all(
                messages, on_result=lambda result: fates.__setitem__(result.message.subject, result.status)
            )
        await transport.aclose()
    wanted = {
        "good": Status.SENT, "throttled": Status.SENT, "busy": Status.SENT, "dropped": Status.SENT,
        "unverified": Status.FAILED, "long": Status.FAILED, "lost": Status.UNKNOWN,
    }  # fmt: skip
    assert {message.subject: wanted[kind_of(message.subject)] for message in messages} == fates
    arrived = Counter(mail["Subject"] for mail, _ in server.inbox)
    assert {subject for subject, status in fates.items() if status is Status.SENT} == set(arrived)
    assert {1} == set(arrived.values())
    assert 42 == sum(report.counts.values())


# --- cancellation


async def test_cancelled_on_the_wire_the_connection_is_gone(authority):
    """Whoever is cancelled waits for nobody, and the next message has a connection of its own."""
    judged = [SILENCE, None]
    with MailServer(authority.context(), judge=lambda *_: judged.pop(0)) as server:
        transport = transport_to(server, authority)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.send, request_for(0))
            await anyio.to_thread.run_sync(server.busy.wait)
            tasks.cancel_scope.cancel()
        await transport.send(request_for(1))
        await transport.aclose()
    assert (2, ["Hi 1"]) == (server.connections, [mail["Subject"] for mail, _ in server.inbox])


async def test_closed_while_a_message_is_on_the_wire(authority):
    """It is not cut off; its connection is closed when it comes back."""
    go_on = threading.Event()

    class Slow(MailServer):
        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            self.busy.set()
            while not go_on.is_set():
                await anyio.sleep(0.001)
            return await super().handle_DATA(server, session, envelope)

    with Slow(authority.context()) as server:
        transport = transport_to(server, authority)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.send, request_for(0))
            await anyio.to_thread.run_sync(server.busy.wait)
            await transport.aclose()
            go_on.set()
        await transport.send(request_for(1))
        await transport.aclose()
    assert (2, 2) == (server.connections, len(server.inbox))


async def test_cancelled_while_it_connects(authority):
    """In the middle of the handshake: the connection is closed at once, and no thread waits for the time limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = SMTPTransport(
            "127.0.0.1", silent.getsockname()[1], username="u", password="p", ca_bundle=authority.bundle,
            implicit_tls=True, connect_timeout=1_000,
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.send, request_for())
            connection, _ = await anyio.to_thread.run_sync(silent.accept)
            with connection:
                assert await anyio.to_thread.run_sync(connection.recv, 5)  # the handshake has begun
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    while await anyio.to_thread.run_sync(connection.recv, 65_536):
                        pass  # and ends here


async def test_given_up_before_it_began(authority):
    """A thread that starts late finds that nobody waits, and says nothing to anybody."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority)
        way = await transport._find_way()
        attempt = Attempt(way.pool, None, request_for())
        attempt.abandon()
        with pytest.raises(ConnectionFailedError):
            attempt.run()
        assert (0, 0) == (server.connections, len(way.pool._open))


async def test_in_another_process_it_begins_anew(authority):
    """As in a forked child: what the parent had open is dropped without a word, and not looked at again."""
    with MailServer(authority.context()) as server:
        transport = transport_to(server, authority)
        await transport.send(request_for(0))
        pool = transport._ways[None].pool
        (link,) = pool._open
        pool._pid -= 1
        await transport.send(request_for(1))
        assert link not in pool._open
        pool._pid -= 1
        await transport.aclose()
        assert not pool._open
    assert 2 == server.connections


# --- odd servers


@pytest.mark.parametrize(
    ("replies", "kind", "retryable"),
    [
        ({"GREETING": ["421 Too many concurrent SMTP connections"]}, ThrottlingError, True),
        ({"GREETING": ["554 No SMTP service here"]}, ConnectionFailedError, False),
        ({"GREETING": ["SSH-2.0-OpenSSH_9.6"]}, ConnectionFailedError, False),
        ({"GREETING": ["2" * 9_000]}, ConnectionFailedError, True),
        ({"GREETING": ["220-a\r\n" * 300 + "220 ready"]}, ConnectionFailedError, True),
        ({"GREETING": [None]}, ConnectionFailedError, True),
        ({"GREETING": [...]}, ConnectionFailedError, True),
        ({"EHLO": ["502 what"]}, ConnectionFailedError, False),
        ({"EHLO": ["250 here"]}, ConnectionFailedError, False),
        ({"AUTH": ["454 Temporary authentication failure"]}, ServiceUnavailableError, True),
        ({"AUTH": ["535 Account not subscribed to SES"]}, CredentialsError, False),
        ({"AUTH": ["554 what"]}, CredentialsError, False),
        ({"AUTH": ["250 what"]}, ConnectionFailedError, True),
        ({"MAIL": ["501 Invalid MAIL FROM address provided"]}, InvalidParameterError, False),
        ({"MAIL": ["421 closing"]}, ServiceUnavailableError, True),
        ({"MAIL": [None]}, ConnectionFailedError, True),
        ({"RCPT": [None]}, ConnectionFailedError, True),
        ({"RCPT": ["421 closing"]}, ServiceUnavailableError, True),
        ({"DATA": ["454 Throttling failure: Maximum sending rate exceeded"]}, ThrottlingError, True),
        ({"DATA": ["250 what"]}, ConnectionFailedError, True),
        ({"DATA": [...]}, ConnectionFailedError, True),
        ({"CONTENT": ["421 closing"]}, ServiceUnavailableError, True),
        ({"CONTENT": [b"\x00\xffwhat"]}, OutcomeUnknownError, False),
        ({"CONTENT": ["2" * 9_000]}, OutcomeUnknownError, False),
        ({"CONTENT": ["354 what"]}, OutcomeUnknownError, False),
        ({"CONTENT": ["250 Ok"]}, OutcomeUnknownError, False),
        ({"CONTENT": [None]}, OutcomeUnknownError, False),
    ],
)
async def test_what_odd_servers_say(scripted, authority, replies, kind, retryable):
    """Whatever they say, a certain failure is only what is certain. Nothing of the message or the keys is told."""
    server = scripted(**replies)
    # Short where the limit is what ends it: whichever step it then falls on, the fate is the same.
    limits = {"read_timeout": 0.1, "connect_timeout": 0.2} if [...] in replies.values() else {}
    error = await failure(transport_to(server, authority, **limits))
    assert (kind, retryable, kind is OutcomeUnknownError) == (type(error), error.retryable, error.maybe_sent)
    told = str(error) + repr(error) + str(pickle.loads(pickle.dumps(error)))  # noqa: S301
    assert not [word for word in SECRET_WORDS if word in told]
    assert error.__cause__ is None


@pytest.mark.parametrize("reply", [None, "421 Timeout"])
async def test_a_connection_that_ends_at_mail_from_is_replaced(scripted, authority, reply):
    """It had ended while it waited, only later than could be seen; the message has not been heard of there."""
    server = scripted(MAIL=["250 Ok", reply])
    transport = transport_to(server, authority)
    await transport.send(request_for(0))
    assert SES_ID == (await transport.send(request_for(1))).message_id
    await transport.aclose()
    assert 2 == server.connections


async def test_a_reply_too_many_is_no_ones(scripted, authority):
    """A connection on which something came that nobody asked for is not used again."""
    server = scripted(CONTENT=[f"250 Ok {SES_ID}\r\n421 bye"])
    transport = transport_to(server, authority)
    await transport.send(request_for(0))
    await transport.send(request_for(1))
    await transport.aclose()
    assert 2 == server.connections


async def test_after_a_refusal_the_server_forgets_first(scripted, authority):
    """RSET goes before the next message on that connection; one that does not work is replaced."""
    server = scripted(CONTENT=["554 Transaction failed: what", "554 Transaction failed: what"], RSET=["250 Ok", None])
    transport = transport_to(server, authority)
    for _ in range(2):
        with pytest.raises(SendError):
            await transport.send(request_for())
    assert 1 == server.connections
    await transport.send(request_for())
    await transport.aclose()
    assert (2, 2) == (server.connections, server.said.count("RSET"))


@pytest.mark.parametrize("reply", ["421 Timeout", "500 what"])
async def test_a_server_that_does_not_forget_is_left(scripted, authority, reply):
    """RSET that is not answered as it should be is no failure of the next message, which goes by another connection."""
    server = scripted(CONTENT=["554 Transaction failed: what"], RSET=[reply])
    transport = transport_to(server, authority)
    with pytest.raises(SendError):
        await transport.send(request_for(0))
    assert SES_ID == (await transport.send(request_for(1))).message_id
    await transport.aclose()
    assert 2 == server.connections


async def test_a_greeting_that_trickles_in_does_not_hold_up_the_limit(authority):
    """The time to connect is over when it is over, however often something comes."""
    gone = threading.Event()

    class Tarpit(Scripted):
        def _answer(self, connection, verb):
            with contextlib.suppress(OSError):
                while not gone.wait(0.01):
                    connection.sendall(b"2")
            return False

    with Tarpit(authority.context()) as server:
        error = await failure(transport_to(server, authority, connect_timeout=0.1))
        gone.set()
    assert (ConnectionFailedError, "TimeoutError") == (type(error), error.cause_type)


async def test_a_reply_that_breaks_off_is_none(authority):
    """Half of an id would be a wrong one."""

    class Abrupt(Scripted):
        def _answer(self, connection, verb):
            if verb != "CONTENT":
                return super()._answer(connection, verb)
            connection.sendall(f"250 Ok {SES_ID}".encode())
            return False

    with Abrupt(authority.context()) as server:
        error = await failure(transport_to(server, authority))
    assert isinstance(error, OutcomeUnknownError)


async def test_lost_in_the_middle_of_the_content(authority):
    """More than fits into any buffer, so that some of it was never handed over: nobody has the mail."""

    class Weary(Scripted):
        def _answer(self, connection, verb):
            return super()._answer(connection, verb) and verb != "DATA"

    with Weary(authority.context()) as server:
        server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        request = request_for(attachments=[Attachment("a.bin", b"a" * 8_000_000)])
        error = await failure(transport_to(server, authority), request)
    assert (ConnectionFailedError, True) == (type(error), error.retryable)
    assert "could not be handed over" in str(error)


async def test_the_network_has_the_whole_limit_for_each_piece(scripted, authority, monkeypatch):
    """A large mail on a thin line takes longer than any reply."""
    server = scripted()
    sendall, pieces = ssl.SSLSocket.sendall, []

    def watched(sock, data):
        if sock.gettimeout() == 57:  # The server's has none.
            pieces.append(len(data))
        sendall(sock, data)

    monkeypatch.setattr(ssl.SSLSocket, "sendall", watched)
    transport = transport_to(server, authority, read_timeout=57)
    await transport.send(request_for(attachments=[Attachment("a.bin", b"a" * 500_000)]))
    await transport.aclose()
    assert 65_536 == max(pieces)
    assert sum(pieces) > 600_000


async def test_auth_login_where_plain_is_not_offered(scripted, authority):
    """User name and password, one after the other."""
    server = scripted(
        EHLO=["250-here\r\n250-AUTH LOGIN\r\n250 Ok"],
        AUTH=["334 VXNlcm5hbWU6"],
        **{base64.b64encode(USERNAME.encode()).decode().upper(): ["334 UGFzc3dvcmQ6"]},
        **{base64.b64encode(PASSWORD.encode()).decode().upper(): ["235 Ok"]},
    )
    transport = transport_to(server, authority)
    await transport.send(request_for())
    await transport.aclose()
    assert "AUTH LOGIN" == server.said[1]


async def test_nobody_listens(authority):
    """The port is closed: nothing was sent, and later it may be."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await failure(SMTPTransport("127.0.0.1", port, username="u", password="p", ca_bundle=authority.bundle))
    assert (ConnectionFailedError, True) == (type(error), error.retryable)
    assert "refused" in str(error)


@pytest.fixture
def nobody_knows_names(monkeypatch):
    """Without asking anybody, which takes long where there is no network."""

    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.usefixtures("nobody_knows_names")
async def test_a_name_that_leads_nowhere(authority):
    """The name could not be resolved."""
    error = await failure(SMTPTransport("smtp.invalid", username="u", password="p", ca_bundle=authority.bundle))
    assert (ConnectionFailedError, "gaierror") == (type(error), error.cause_type)


async def test_a_name_that_is_none(authority):
    """What cannot even be asked for is as unknown as the rest."""
    error = await failure(SMTPTransport("smtp..invalid", username="u", password="p", ca_bundle=authority.bundle))
    assert (ConnectionFailedError, "gaierror") == (type(error), error.cause_type)


@pytest.fixture
def nobody_answers(monkeypatch):
    """A resolver that takes its time; when it was asked."""
    asked, end = threading.Event(), threading.Event()

    def wait(*_, **__):
        asked.set()
        end.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield asked
    end.set()


async def test_a_name_that_takes_too_long(authority, nobody_answers):
    """It is in the time to connect as well, though the system knows no limit for it."""
    error = await failure(
        SMTPTransport("smtp.invalid", username="u", password="p", ca_bundle=authority.bundle, connect_timeout=0.05)
    )
    assert (ConnectionFailedError, "TimeoutError") == (type(error), error.cause_type)


async def test_without_a_thread_for_the_name_nothing_was_sent(authority, monkeypatch):
    """A program may have all the threads that it may have."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "tanksend-names":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    error = await failure(SMTPTransport("127.0.0.1", username="u", password="p", ca_bundle=authority.bundle))
    assert (ConnectionFailedError, True) == (type(error), error.retryable)
    assert "no more threads" in str(error)


async def test_cancelled_while_a_name_is_looked_up(authority, nobody_answers):
    """No worker thread waits for the resolver: it would hold up the end of the program."""
    transport = SMTPTransport("smtp.invalid", username="u", password="p", ca_bundle=authority.bundle)
    way = await transport._find_way()
    attempt = Attempt(way.pool, None, request_for())
    failures = []

    def run():
        with pytest.raises(ConnectionFailedError) as caught:
            attempt.run()
        failures.append(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, run)
        await anyio.to_thread.run_sync(nobody_answers.wait)
        attempt.abandon()
    assert "ConnectionAbortedError" == failures[0].cause_type


async def test_a_host_that_says_nothing(authority):
    """The time to connect holds for everything until the login, the handshake too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = SMTPTransport(
            "127.0.0.1", silent.getsockname()[1], username="u", password="p", ca_bundle=authority.bundle,
            implicit_tls=True, connect_timeout=0.2,
        )  # fmt: skip
        error = await failure(transport)
    assert (ConnectionFailedError, "TimeoutError") == (type(error), error.cause_type)
    assert "within 0.2 s" in str(error)


# --- relays and ids


@pytest.mark.parametrize(
    ("reply", "ses", "relay"),
    [
        (f"Ok {SES_ID}", SES_ID, SES_ID),
        (f"2.0.0 Ok {SES_ID}", SES_ID, SES_ID),
        (f"ok: <{SES_ID}>", SES_ID, SES_ID),
        ("2.0.0 Ok: queued as 4XkF2T1z9zN", None, "4XkF2T1z9zN"),
        ("OK id=1tRk42-00000000AbC-1234", None, "1tRk42-00000000AbC-1234"),
        (f"Ok {SES_ID[:-7]}", None, SES_ID[:-7]),
        (f"Ok {SES_ID[:20]}@example.com", None, None),
        (f"Ok {SES_ID}\n2.0.0 and good bye", SES_ID, SES_ID),
        (f"2.0.0 Ok {SES_ID} (took 5 ms)", SES_ID, SES_ID),
        (f"Ok {SES_ID}@example.com", None, None),
        ("2.0.0 Ok: queued as 4XkF2T1z9zN\n2.0.0 bye", None, "4XkF2T1z9zN"),
        ("2.0.0 4AB9xY2c012345 Message accepted for delivery", None, "4AB9xY2c012345"),
        ("2.6.0 <kim@example.com> [InternalId=123456, Hostname=a.local] Queued mail for delivery", None, "123456"),
        ("Message accepted for delivery", None, None),
        ("Ok", None, None),
        ("2.6.0 Queued mail for delivery", None, None),
        ("Ok kim@example.com", None, None),
        ("", None, None),
    ],
)
async def test_the_id_in_the_last_reply(reply, ses, relay):
    """SES's alone, or with a relay whatever it says it queued the mail as; never a sentence, never an address."""
    assert (ses, relay) == (message_id(reply), message_id(reply, relay=True))


async def test_a_relay_takes_a_mail(scripted, authority):
    """Its own id counts when it was said to be one; otherwise the outcome is unknown, and the error says how."""
    queued = "250 2.0.0 Ok: queued as 4XkF2T1z9zN"
    server = scripted(CONTENT=[queued, queued])
    error = await failure(transport_to(server, authority))
    assert isinstance(error, OutcomeUnknownError)
    assert "relay=True" in str(error)
    relay = transport_to(server, authority, relay=True, username=None, password=None)
    assert "4XkF2T1z9zN" == (await relay.send(request_for())).message_id
    await relay.aclose()
    assert 1 == sum(line.startswith("AUTH") for line in server.said)


# --- settings


async def test_the_password_is_made_of_the_keys(scripted, authority):
    """User name and password of an IAM user's keys, for the region."""
    server = scripted()
    keys = Credentials("AKIDEXAMPLE", "secret")
    transport = transport_to(server, authority, username=None, password=None, credentials=keys, region="eu-west-1")
    await transport.send(request_for(0))
    await transport.aclose()
    await transport.send(request_for(1))
    await transport.aclose()
    line = next(line for line in server.said if line.startswith("AUTH"))
    plain = base64.b64decode(line.split()[2]).decode()
    assert f"\0AKIDEXAMPLE\0{smtp_password('secret', 'eu-west-1')}" == plain


async def test_keys_and_region_come_from_the_environment(scripted, authority, monkeypatch):
    """As for the other transports; the certificates too."""
    server = scripted()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CA_BUNDLE", authority.bundle)
    transport = transport_to(server, authority, username=None, password=None, ca_bundle=None)
    assert SES_ID == (await transport.send(request_for())).message_id
    await transport.aclose()


@pytest.mark.parametrize("keys", [Credentials("ASIAEXAMPLE", "secret"), Credentials("AKIDEXAMPLE", "secret", "token")])
async def test_temporary_keys_are_refused_with_the_reason(authority, keys):
    """At once where they are given, on first use where they are fetched."""
    with pytest.raises(CredentialsError, match="SMTP does not take the keys of a role or session"):
        SMTPTransport(region="eu-west-1", credentials=keys)
    transport = SMTPTransport("127.0.0.1", 1, region="eu-west-1", credentials=lambda: keys, ca_bundle=authority.bundle)
    error = await failure(transport)
    assert ("TemporaryCredentials", Scope.ACCOUNT) == (error.code, error.scope)
    assert "secret" not in str(error)


async def test_without_a_region_nothing_is_sent():
    """There is no host to send to."""
    error = await failure(SMTPTransport(username="u", password="p"))
    assert (ConfigurationError, Scope.ACCOUNT) == (type(error), error.scope)


async def test_certificates_that_cannot_be_loaded(tmp_path):
    """A setting, not a network failure: nothing was sent."""
    (tmp_path / "ca.pem").write_text("no certificate")
    error = await failure(SMTPTransport("127.0.0.1", username="u", password="p", ca_bundle=tmp_path / "ca.pem"))
    assert isinstance(error, ConfigurationError)


@pytest.mark.usefixtures("nobody_knows_names")
async def test_a_folder_of_certificates(tmp_path):
    """An empty one trusts nobody, but can be loaded."""
    error = await failure(SMTPTransport("smtp.invalid", username="u", password="p", ca_bundle=tmp_path))
    assert isinstance(error, ConnectionFailedError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "smtp://example.com"}, "host name"),
        ({"host": "a\r\nb"}, "host name"),
        ({"port": 0}, "port"),
        ({"port": 465, "implicit_tls": False}, "TLS from the first byte"),
        ({"port": 587, "implicit_tls": True}, "STARTTLS"),
        ({"region": "no region"}, "region"),
        ({"username": "u"}, "go together"),
        ({"username": "u", "password": "p\r\n"}, "password is empty"),
        ({"username": "kö", "password": "p"}, "user name is empty"),
        ({"username": "u", "password": "p", "credentials": Credentials("AKID", "s")}, "not both"),
        ({"max_messages": 0}, "max_messages"),
        ({"read_timeout": 0}, "read_timeout"),
        ({"max_idle": float("inf")}, "max_idle"),
    ],
)
async def test_settings_that_cannot_be_used(options, message):
    """Refused where they are given, without repeating what may be secret."""
    with pytest.raises(SettingError, match=message) as caught:
        SMTPTransport(**options)
    assert "ö" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"region": "eu-west-1"}, "<SMTPTransport eu-west-1:587>"),
        ({"host": "email-smtp.us-west-2.amazonaws.com", "port": 465},
         "<SMTPTransport email-smtp.us-west-2.amazonaws.com:465>"),
        ({}, "<SMTPTransport region not yet known:587>"),
    ],
)  # fmt: skip
async def test_its_repr_shows_where_to(options, shown):
    """And no user name."""
    transport = SMTPTransport(username="somebody", password="secret", **options)
    assert shown == repr(transport)


async def test_the_host_tells_the_region(authority):
    """The password is the region's, so the host has to be."""
    keys = Credentials("AKID", "s")
    transport = SMTPTransport("email-smtp.us-west-2.amazonaws.com", credentials=keys)
    assert "us-west-2" == transport._region


# --- what SMTP cannot carry


async def test_templates_are_refused_before_anything_is_said():
    """SES alone could fill them in, and does so in its HTTP API only."""
    message = Message.from_template(Template(name="welcome"), to="kim@example.com", data={})
    transport = SMTPTransport("smtp.invalid", username="u", password="p")
    error = await failure(transport, SendRequest(message, SENDER, message.to))
    assert (InvalidMessageError, "template") == (type(error), error.field)
    assert "SESTransport" in str(error)


@pytest.mark.parametrize("email", ["kim@example.com> SIZE=1", "kim\r\nDATA@example.com", "ki\u00f6@example.com", ""])
async def test_an_address_that_would_end_its_command_is_refused(email):
    """The engine has judged it long before; here it is looked at once more, because a command is made of it."""
    message = Message("kim@example.com", "Hi", text="Hello")
    with pytest.raises(InvalidAddressError) as caught:
        mail_of(SendRequest(message, SENDER, (Address("", email),)))
    assert not email or email not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"configuration_set": "a\r\nBcc: x"}, "configuration_set"),
        ({"tags": {"a": "b\r\nBcc: x"}}, "tags"),
        ({"tags": {"a\r\nb": "c"}}, "tags"),
    ],
)
async def test_what_would_begin_another_header_is_refused(options, field):
    """The same for what becomes a header."""
    message = Message("kim@example.com", "Hi", text="Hello")
    with pytest.raises(InvalidMessageError) as caught:
        mail_of(SendRequest(message, SENDER, message.to, **options))
    assert field == caught.value.field


async def test_many_tags_are_folded():
    """No line of a mail may have more than 998 characters."""
    tags = {f"n{number}" + "a" * 200: "b" * 250 for number in range(5)}
    message = Message("kim@example.com", "Hi", text="Hello")
    content = mail_of(SendRequest(message, SENDER, message.to, tags=tags)).content
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    parsed = message_from_bytes(content)
    pairs = [pair.strip() for pair in re.sub(r"\r?\n", "", parsed["X-SES-MESSAGE-TAGS"]).split(",")]
    assert [f"{name}={value}" for name, value in tags.items()] == pairs


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        (b"A: b\r\n\r\n.\r\n..\r\nx", b"A: b\r\n\r\n..\r\n...\r\nx\r\n.\r\n"),
        (b"A: b\r\n\r\nx\r\n", b"A: b\r\n\r\nx\r\n.\r\n"),
        (b".A: b\n\n.\nMAIL FROM:<x>\r.\r\n", b"..A: b\r\n\r\n..\r\nMAIL FROM:<x>\r\n..\r\n.\r\n"),
    ],
)
async def test_nothing_in_a_mail_ends_it_early(monkeypatch, rendered, expected):
    """Neither a lone dot nor a line end of another kind, which another server may read in another way."""
    monkeypatch.setattr("tanksend.transports._smtp_mail.render", lambda _: rendered)
    message = Message("kim@example.com", "Hi", text="Hello")
    assert expected == mail_of(SendRequest(message, SENDER, message.to)).content


async def test_nothing_is_logged_or_shown(scripted, authority, caplog):
    """No address, no password, no body: in no log, no repr."""
    caplog.set_level(logging.DEBUG)
    server = scripted(CONTENT=["554 Transaction failed: what"])
    transport = transport_to(server, authority)
    with pytest.raises(SendError):
        await transport.send(request_for())
    way = transport._ways[None]
    shown = caplog.text + repr(transport) + repr(way) + repr(way.pool._idle) + repr(transport._login)
    await transport.aclose()
    assert not [word for word in SECRET_WORDS if word in shown]


def test_the_context_verifies():
    """Certificates and names, and nothing below TLS 1.2."""
    from tanksend.transports._tls import client_context

    context = client_context(None)
    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
