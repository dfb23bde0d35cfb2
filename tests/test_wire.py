from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import trustme

import tanksend
from tanksend._http1 import BadAnswerError
from tanksend.exceptions import ConnectionFailedError, OutcomeUnknownError, Scope, SettingError
from tanksend.testing import TunnelProxy
from tanksend.transports import _pool
from tanksend.transports._failures import LinkError, in_words
from tanksend.transports._link import Link, Route
from tanksend.transports._settings import Endpoint, Proxy
from tanksend.transports._tls import Trust
from tanksend.transports._wire import Wire, _inherited
from tanksend.transports._wire_asyncio import AsyncioPool

pytestmark = pytest.mark.anyio

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
LARGE = 30_000_000
LONG = 60.0
"""Seconds that nothing takes unless it hangs, also on a machine that is busy with something else."""


@pytest.fixture(
    params=[("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})], ids=["asyncio", "uvloop", "trio"]
)
def anyio_backend(request):
    """uvloop writes in its own way, so it is a case of its own here."""
    if request.param[1]:
        pytest.importorskip("uvloop")
    return request.param


def post(body: bytes = b"{}") -> bytes:
    """A request as a signer writes it."""
    return b"POST /v2/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._data = b""

    def request(self) -> bytes | None:
        """Read one request, or None at the end."""
        while b"\r\n\r\n" not in self._data:
            if not self._more():
                return None
        head, _, rest = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        missing = length - len(rest)
        chunks = [rest]
        while missing > 0:
            self._data = b""
            if not self._more():
                return None
            chunks.append(self._data)
            missing -= len(self._data)
        body = b"".join(chunks)
        self._data = body[length:]
        return head + b"\r\n\r\n" + body[:length]

    def _more(self) -> bool:
        data = self.sock.recv(1_000_000)
        self._data += data
        return bool(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with RST: no FIN, whatever is unread or unsent is gone."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_the_end(self) -> None:
        """Read until the other side has closed."""
        with contextlib.suppress(OSError):
            while self.sock.recv(1_000_000):
                pass


def serve_all(peer: Peer) -> None:
    """Answer each request."""
    while peer.request() is not None:
        peer.send(GOOD)


class Server:
    """A loopback server that does as it is told, connection by connection; the last script goes for all others."""

    def __init__(self, *scripts: Callable[[Peer], None], tls: ssl.SSLContext | None = None, window: int = 0) -> None:
        self.scripts = scripts
        self.tls = tls
        self.opened = 0
        self.closed = 0
        self.done = threading.Condition()
        self.socket = socket.socket()
        if window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(100)
        self.port = self.socket.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.peers: list[socket.socket] = []
        self.threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.socket.accept()
                script = self.scripts[min(self.opened, len(self.scripts) - 1)]
                self.opened += 1
                self.peers.append(sock)
                thread = threading.Thread(target=self._run, args=(sock, script), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _run(self, sock: socket.socket, script: Callable[[Peer], None]) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            self.peers.append(sock)
            script(Peer(sock))
        sock.close()
        with self.done:
            self.closed += 1
            self.done.notify_all()

    async def wait_closed(self, count: int) -> None:
        """Wait until that many connections are over on this side."""

        def wait() -> None:
            with self.done:
                assert self.done.wait_for(lambda: self.closed >= count, LONG)

        await anyio.to_thread.run_sync(wait)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(LONG)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the servers' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority, tmp_path_factory) -> str:
    """Its certificate, as AWS_CA_BUNDLE would name it."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def server_tls(authority) -> ssl.SSLContext:
    """A server that is 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["tls", "plain"])
def secure(request) -> bool:
    """With and without TLS."""
    return request.param == "tls"


@pytest.fixture
def serve(server_tls) -> Iterator[Callable[..., Server]]:
    """Start servers; they end with the test."""
    servers = []

    def start(*scripts: Callable[[Peer], None], secure: bool = True, tls=None, window: int = 0) -> Server:
        servers.append(Server(*scripts, tls=tls or (server_tls if secure else None), window=window))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def to(bundle):
    """Make a wire to a server, closed at the end of its block."""

    @contextlib.asynccontextmanager
    async def make(server: Server | int, *, secure=True, host="127.0.0.1", proxy=None, connect=LONG, read=LONG):
        port = server if isinstance(server, int) else server.port
        trust = Trust(bundle)
        trust.load()
        endpoint = Endpoint("https" if secure else "http", host, port)
        wire = Wire(Route(endpoint, proxy), trust, connect_timeout=connect, read_timeout=read)
        try:
            yield wire
        finally:
            await wire.aclose()

    return make


# --- requests and connections


async def test_one_connection_serves_one_request_after_the_other(serve, to, secure):
    """Answers come back, and the connection is used again."""
    server = serve(serve_all, secure=secure)
    async with to(server, secure=secure) as wire:
        for _ in range(5):
            answer = await wire.exchange(post())
            assert (200, b"{}") == (answer.status, answer.body)
    assert 1 == server.opened


async def test_as_many_connections_as_requests_at_once(serve, to):
    """Nobody waits for somebody else's answer, and all connections are kept for the next time."""
    together = threading.Barrier(8)

    def meet(peer: Peer) -> None:
        for _ in range(2):
            peer.request()
            together.wait(LONG)
            peer.send(GOOD)
        serve_all(peer)

    server = serve(meet)
    async with to(server) as wire:
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(wire.exchange, post())
    assert 8 == server.opened


async def test_the_last_connection_used_is_the_first_used_again(serve, to):
    """So a pool that was large once shrinks by its idle end."""
    busy = threading.Event()

    def slow(peer: Peer) -> None:
        peer.request()
        busy.wait(LONG)
        peer.send(GOOD)
        assert peer.request() is None  # It never comes first again.

    server = serve(slow, serve_all)
    async with to(server) as wire:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wire.exchange, post())
            while not server.opened:
                await anyio.sleep(0)
            await wire.exchange(post())
            busy.set()
        # Which of the two came back last is known: the slow one. Use both once, the quick one last.
        pool = next(iter(wire._pools.values()))
        pool._idle.reverse()
        for _ in range(3):
            await wire.exchange(post())
    assert 2 == server.opened


async def test_connection_close_is_respected(serve, to, secure):
    """No request goes where the answer said that it was the last."""

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(LAST)
        peer.wait_for_the_end()

    server = serve(once, secure=secure)
    async with to(server, secure=secure) as wire:
        for _ in range(3):
            await wire.exchange(post())
        await server.wait_closed(3)
    assert 3 == server.opened


async def test_a_body_that_ends_with_the_connection(serve, to, secure):
    """An answer without a length is whole when the server has closed."""

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 500 Oh\r\n\r\nsorry")

    server = serve(once, secure=secure)
    async with to(server, secure=secure) as wire:
        for _ in range(2):
            answer = await wire.exchange(post())
            assert (500, b"sorry") == (answer.status, answer.body)
    assert 2 == server.opened


async def test_the_end_of_tls_is_the_end(serve, to):
    """A server may end the TLS session and leave the socket open: nothing can follow."""
    release = threading.Event()

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n{}")
        with contextlib.suppress(OSError):
            peer.sock.unwrap()
        release.wait(LONG)

    server = serve(once)
    async with to(server) as wire:
        answer = await wire.exchange(post())
        assert b"{}" == answer.body
        await wire.exchange(post())
    release.set()
    assert 2 == server.opened


async def test_idle_connections_are_not_used_for_long(serve, to, monkeypatch):
    """After 15 s a server may be about to close it, and a request that meets that has an unknown outcome."""
    server = serve(serve_all)
    async with to(server) as wire:
        await wire.exchange(post())
        monkeypatch.setattr(_pool, "IDLE_LIMIT", 0.0)
        await wire.exchange(post())
        await server.wait_closed(1)
    assert 2 == server.opened


async def test_connections_that_nobody_needs_any_more_are_closed_on_the_way(serve, to):
    """Each request that ends looks whether the longest idle ones are too old."""
    together = threading.Barrier(2)

    def meet(peer: Peer) -> None:
        peer.request()
        together.wait(LONG)
        peer.send(GOOD)
        serve_all(peer)

    server = serve(meet)
    async with to(server) as wire:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(wire.exchange, post())
        next(iter(wire._pools.values()))._idle[0].idle_since -= 100.0
        await wire.exchange(post())
        await server.wait_closed(1)
        await wire.exchange(post())
    assert 2 == server.opened


@pytest.mark.parametrize("noticed", [False, True])
async def test_a_connection_closed_by_the_server_is_not_used_again(serve, to, secure, noticed):
    """Whether the event loop has heard of it or it is still only in the kernel."""

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(GOOD)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.wait_for_the_end()

    server = serve(once, once, serve_all, secure=secure)
    async with to(server, secure=secure) as wire:
        for _ in range(2):
            await wire.exchange(post())
            pool = next(iter(wire._pools.values()))
            fd = socket_of(pool._idle[-1]) if pool._idle else -1
            while fd >= 0 and not _pool.is_readable(fd):
                pass
            if noticed:
                await anyio.sleep(0.01)
        await wire.exchange(post())
    assert 3 == server.opened


def socket_of(connection) -> int:
    """Which descriptor a connection uses."""
    return connection._fd if hasattr(connection, "_fd") else connection._socket.fileno()


async def test_what_comes_unasked_is_never_taken_for_an_answer(serve, to):
    """A server's 408 on an idle connection is not the answer to the next request."""

    def hasty(peer: Peer) -> None:
        peer.request()
        peer.send(GOOD + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        peer.wait_for_the_end()

    server = serve(hasty)
    async with to(server) as wire:
        for _ in range(3):
            assert 200 == (await wire.exchange(post())).status
    assert 3 == server.opened


async def test_a_late_408_closes_the_idle_connection(serve, to, secure):
    """The event loop hears of it before anybody asks."""
    late = threading.Event()

    def hasty(peer: Peer) -> None:
        peer.request()
        peer.send(GOOD)
        late.wait(LONG)
        peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        peer.wait_for_the_end()

    server = serve(hasty, serve_all, secure=secure)
    async with to(server, secure=secure) as wire:
        await wire.exchange(post())
        fd = socket_of(next(iter(wire._pools.values()))._idle[-1])
        late.set()
        while not _pool.is_readable(fd):
            pass
        await anyio.sleep(0.01)
        assert 200 == (await wire.exchange(post())).status
    assert 2 == server.opened


# --- failures before anything can have happened


async def test_nobody_listens(to, secure):
    """Refused: nothing was sent."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with to(unused.getsockname()[1], secure=secure) as wire:
            with pytest.raises(ConnectionFailedError, match="refused") as caught:
                await wire.exchange(post())
    assert ("ConnectionRefusedError", False, True) == (
        caught.value.cause_type,
        caught.value.maybe_sent,
        caught.value.retryable,
    )
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # uvloop asks the system without Python.
async def test_a_name_that_leads_nowhere(to, monkeypatch):
    """The host is named, because that is what is wrong."""

    def fail(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with to(1, host="email.no-such-region.example.com") as wire:
        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(ConnectionFailedError, match=r"email\.no-such-region\.example\.com") as caught:
            await wire.exchange(post())
    assert "gaierror" == caught.value.cause_type


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_certificate_that_is_not_trusted(serve, to, authority, wrong):
    """Nothing is sent, and trying the next message would be in vain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer = trustme.CA() if wrong == "authority" else authority
    issuer.issue_cert("127.0.0.1" if wrong == "authority" else "other.example.com").configure_cert(context)
    server = serve(serve_all, tls=context)
    async with to(server) as wire:
        with pytest.raises(ConnectionFailedError, match="not trusted") as caught:
            await wire.exchange(post())
    assert (False, Scope.ACCOUNT) == (caught.value.retryable, caught.value.scope)
    assert "AWS_CA_BUNDLE" in str(caught.value)


async def test_the_other_side_speaks_no_tls(serve, to):
    """Neither a plain-text answer nor a silent close is anything to send mail to."""

    def greet(peer: Peer) -> None:
        peer.send(b"220 smtp.example.com ESMTP\r\n")
        peer.wait_for_the_end()

    def leave(peer: Peer) -> None:
        peer.sock.recv(100_000)

    def cut(peer: Peer) -> None:
        peer.sock.recv(10)
        peer.reset()

    server = serve(greet, leave, cut, secure=False)
    async with to(server) as wire:
        for match in ("TLS failed", "closed", "reset"):
            with pytest.raises(ConnectionFailedError, match=match) as caught:
                await wire.exchange(post())
            assert caught.value.retryable


async def test_connecting_takes_too_long(serve, to):
    """The limit covers the TLS handshake, too."""
    server = serve(Peer.wait_for_the_end, secure=False)
    async with to(server, connect=0.05) as wire:
        while not server.opened:  # The time may be over before anything was begun.
            with pytest.raises(ConnectionFailedError, match=r"within 0\.05 s") as caught:
                await wire.exchange(post())
        await server.wait_closed(1)
    assert "TimeoutError" == caught.value.cause_type


# --- failures after which nobody knows


def swallow_and_close(peer: Peer) -> None:
    """Accept, and end the connection properly."""
    peer.request()


def swallow_and_reset(peer: Peer) -> None:
    """Accept, and end it with RST."""
    peer.request()
    peer.reset()


def babble(peer: Peer) -> None:
    """Accept, and answer what is no HTTP."""
    peer.request()
    peer.send(b"\x00\x01\x02 not HTTP at all\r\n\r\n")
    peer.wait_for_the_end()


def stop_in_the_middle(peer: Peer) -> None:
    """Accept, and end within the answer."""
    peer.request()
    peer.send(GOOD[:-1])


def reset_in_the_middle(peer: Peer) -> None:
    """Accept, and end within the answer with RST."""
    peer.request()
    peer.send(GOOD[:20])
    peer.reset()


def flood(peer: Peer) -> None:
    """Accept, and never stop answering."""
    peer.request()
    with contextlib.suppress(OSError):
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000)
    peer.wait_for_the_end()


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (swallow_and_close, "BadAnswerError"),
        (swallow_and_reset, "ConnectionResetError"),
        (babble, "BadAnswerError"),
        (stop_in_the_middle, "BadAnswerError"),
        (reset_in_the_middle, "ConnectionResetError"),
        (flood, "BadAnswerError"),
    ],
)
async def test_the_request_left_and_no_answer_came(serve, to, secure, script, cause):
    """SES may have the message: that is what the error says, and the connection is gone."""
    server = serve(script, serve_all, secure=secure)
    async with to(server, secure=secure) as wire:
        with pytest.raises(OutcomeUnknownError) as caught:
            await wire.exchange(post())
        assert 200 == (await wire.exchange(post())).status
    assert (cause, True, False) == (caught.value.cause_type, caught.value.maybe_sent, caught.value.retryable)
    assert 2 == server.opened


async def test_tls_breaks_in_the_middle(serve, to):
    """Bytes that are no TLS record leave the outcome open."""

    def spoil(peer: Peer) -> None:
        peer.request()
        raw = socket.socket(fileno=peer.sock.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        raw.recv(100_000)
        raw.close()

    server = serve(spoil)
    async with to(server) as wire:
        with pytest.raises(OutcomeUnknownError, match="TLS failed"):
            await wire.exchange(post())


def have_time(wire: Wire) -> None:
    """What is asked from now on may take long."""
    next(iter(wire._pools.values())).read_timeout = LONG


@pytest.mark.parametrize("trickle", [False, True])
async def test_the_answer_takes_too_long(serve, to, trickle):
    """The limit is for the whole answer: a byte now and then does not extend it."""
    stop = threading.Event()

    def dawdle(peer: Peer) -> None:
        peer.request()
        for number in range(1_000):
            if stop.wait(0.01):
                return
            if trickle:
                peer.send(GOOD[number : number + 1] if number < len(GOOD) - 1 else b"")

    server = serve(dawdle, serve_all)
    async with to(server, read=0.1) as wire:
        with pytest.raises(OutcomeUnknownError, match=r"within 0\.1 s") as caught:
            await wire.exchange(post())
        stop.set()
        have_time(wire)
        assert 200 == (await wire.exchange(post())).status
    assert "TimeoutError" == caught.value.cause_type


async def test_each_request_has_its_own_time(serve, to):
    """One that is late does not take down one that has just begun."""
    arrived, late, hold = threading.Event(), threading.Event(), threading.Event()

    def dawdle(peer: Peer) -> None:
        peer.request()
        arrived.set()
        hold.wait(LONG)

    def prompt(peer: Peer) -> None:
        peer.request()
        late.wait(LONG)
        peer.send(GOOD)
        serve_all(peer)

    server = serve(dawdle, prompt)
    async with to(server, read=0.3) as wire:

        async def be_late() -> None:
            with pytest.raises(OutcomeUnknownError):
                await wire.exchange(post())
            late.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(be_late)
            await anyio.to_thread.run_sync(arrived.wait)
            await anyio.wait_all_tasks_blocked()
            have_time(wire)
            assert 200 == (await wire.exchange(post())).status
        hold.set()


# --- large requests


@pytest.mark.parametrize("size", [200_000, LARGE])
async def test_a_request_that_never_left_whole_is_safe(serve, to, secure, size):
    """The server resets while bytes are still in our memory: it cannot have the whole request."""

    def refuse(peer: Peer) -> None:
        peer.sock.recv(1_000)
        peer.reset()

    server = serve(refuse, serve_all, secure=secure, window=2_000)
    async with to(server, secure=secure) as wire:
        with pytest.raises(ConnectionFailedError, match="could not be handed over") as caught:
            await wire.exchange(post(b"x" * size))
        assert 200 == (await wire.exchange(post())).status
    assert (False, True) == (caught.value.maybe_sent, caught.value.retryable)


async def test_a_server_that_stops_reading(serve, to, secure):
    """The time limit also ends a request that gets no further, and that one is safe."""
    stop = threading.Event()

    def stare(peer: Peer) -> None:
        stop.wait(LONG)

    server = serve(stare, secure=secure, window=2_000)
    async with to(server, secure=secure, read=0.1) as wire:
        with pytest.raises(ConnectionFailedError, match=r"within 0\.1 s") as caught:
            await wire.exchange(post(b"x" * LARGE))
    stop.set()
    assert not caught.value.maybe_sent


@pytest.mark.parametrize("size", [200_000, LARGE])
async def test_a_large_request_arrives(serve, to, secure, size):
    """Piece by piece, and as slowly as the server reads; the connection is good for more."""
    arrived = []

    def slow(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            arrived.append(len(request))
            peer.send(GOOD)

    server = serve(slow, secure=secure, window=20_000)
    async with to(server, secure=secure) as wire:
        for _ in range(2):
            assert 200 == (await wire.exchange(post(b"x" * size))).status
    assert [len(post(b"x" * size))] * 2 == arrived
    assert 1 == server.opened


async def test_a_large_request_that_left_whole_is_not_safe(serve, to, secure):
    """Once the last byte is with the kernel, a lost connection settles nothing."""
    server = serve(swallow_and_reset, secure=secure)
    async with to(server, secure=secure) as wire:
        with pytest.raises(OutcomeUnknownError):
            await wire.exchange(post(b"x" * LARGE))


async def test_a_server_may_answer_before_it_has_read_all(serve, to, secure):
    """The answer counts, the rest is not sent, and the connection is not used again."""

    def too_large(peer: Peer) -> None:
        peer.sock.recv(1_000)
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        peer.wait_for_the_end()

    server = serve(too_large, serve_all, secure=secure, window=20_000)
    async with to(server, secure=secure) as wire:
        assert 413 == (await wire.exchange(post(b"x" * LARGE))).status
        assert 200 == (await wire.exchange(post())).status
    assert 2 == server.opened


# --- cancellation


async def test_a_cancelled_request_takes_its_connection_with_it(serve, to, secure):
    """The next request never gets the answer of the one before."""
    arrived = anyio.Event()

    def hold(peer: Peer) -> None:
        peer.request()
        anyio.from_thread.run_sync(arrived.set, token=token)
        peer.wait_for_the_end()

    token = anyio.lowlevel.current_token() if hasattr(anyio.lowlevel, "current_token") else None
    server = serve(hold, serve_all, secure=secure)
    async with to(server, secure=secure) as wire:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wire.exchange, post())
            await arrived.wait()
            tasks.cancel_scope.cancel()
        await server.wait_closed(1)
        assert 200 == (await wire.exchange(post())).status
    assert 2 == server.opened


async def test_a_cancelled_connection_attempt_leaves_nothing(serve, to):
    """In the middle of the TLS handshake."""
    server = serve(Peer.wait_for_the_end, secure=False)
    async with to(server) as wire:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wire.exchange, post())
            while not server.opened:
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()
        await server.wait_closed(1)


async def test_a_cancelled_large_request_ends_at_once(serve, to):
    """Also while it waits for room."""

    def start_only(peer: Peer) -> None:
        peer.sock.recv(1_000)
        begun.set()
        stop.wait(LONG)

    begun, stop = threading.Event(), threading.Event()
    server = serve(start_only, window=2_000)
    async with to(server) as wire, anyio.create_task_group() as tasks:
        tasks.start_soon(wire.exchange, post(b"x" * LARGE))
        await anyio.to_thread.run_sync(begun.wait)
        tasks.cancel_scope.cancel()
    stop.set()
    await server.wait_closed(1)


# --- proxies


async def test_through_a_proxy(serve, to):
    """With the right name and password there is a tunnel, and TLS goes through it from end to end."""
    server = serve(serve_all)
    with TunnelProxy(username="tank", password="p@ss") as proxy:
        through = Proxy("http", "127.0.0.1", int(proxy.bare_url.rpartition(":")[2]), "Basic dGFuazpwQHNz")
        async with to(server, proxy=through) as wire:
            for _ in range(3):
                assert 200 == (await wire.exchange(post())).status
        assert (1, [f"127.0.0.1:{server.port}"]) == (proxy.tunnels, proxy.targets)


@pytest.mark.parametrize("authorization", [None, "Basic d3Jvbmc6d3Jvbmc="])
async def test_a_proxy_that_wants_a_password(serve, to, authorization):
    """Its refusal concerns every message, says where to look, and shows neither name nor password."""
    server = serve(serve_all)
    with TunnelProxy(username="tank", password="p@ss") as proxy:
        through = Proxy("http", "127.0.0.1", int(proxy.bare_url.rpartition(":")[2]), authorization)
        async with to(server, proxy=through) as wire:
            with pytest.raises(ConnectionFailedError, match="status 407") as caught:
                await wire.exchange(post())
    assert (False, Scope.ACCOUNT) == (caught.value.retryable, caught.value.scope)
    assert "HTTPS_PROXY" in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert 0 == server.opened


async def test_a_proxy_that_does_not_reach_the_endpoint(to):
    """That may get better."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with TunnelProxy() as proxy:
            through = Proxy("http", "127.0.0.1", int(proxy.bare_url.rpartition(":")[2]))
            async with to(unused.getsockname()[1], proxy=through) as wire:
                with pytest.raises(ConnectionFailedError, match="status 502") as caught:
                    await wire.exchange(post())
    assert caught.value.retryable


async def test_a_proxy_that_talks_nonsense(serve, to):
    """Whatever it is, it is no way to SES; its answer may come in pieces."""

    def nonsense(peer: Peer) -> None:
        peer.sock.recv(1_000)
        peer.send(b"SSH-2.0-Open")
        peer.send(b"SSH\r\n\r\n")
        peer.wait_for_the_end()

    server = serve(nonsense, secure=False)
    async with to(1, proxy=Proxy("http", "127.0.0.1", server.port)) as wire:
        with pytest.raises(ConnectionFailedError, match="proxy's answer is not HTTP"):
            await wire.exchange(post())


def tunnel_to(port: int) -> Callable[[Peer], None]:
    """A proxy's script: open the tunnel and carry bytes both ways."""

    def tunnel(peer: Peer) -> None:
        assert b"CONNECT " in (peer.request() or b"")
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        there = socket.create_connection(("127.0.0.1", port))

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := there.recv(65_536):
                    peer.send(data)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        with contextlib.suppress(OSError):
            while data := peer.sock.recv(65_536):
                there.sendall(data)
        there.shutdown(socket.SHUT_RDWR)
        thread.join(LONG)
        there.close()

    return tunnel


@pytest.mark.parametrize("size", [2, 400_000])
async def test_through_a_proxy_that_is_itself_reached_by_tls(serve, to, size):
    """One TLS session inside the other."""
    server = serve(serve_all)
    proxy = serve(tunnel_to(server.port))
    async with to(server, proxy=Proxy("https", "127.0.0.1", proxy.port)) as wire:
        for _ in range(3):
            assert 200 == (await wire.exchange(post(b"x" * size))).status
    assert (1, 1) == (server.opened, proxy.opened)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_plain_endpoint_behind_a_proxy(serve, to, scheme):
    """There is no tunnel then: the proxy gets the whole address and passes the request on (RFC 9112 section 3.2.2)."""
    seen = []

    def forward(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            seen.append(request)
            peer.send(GOOD)

    proxy = serve(forward, secure=scheme == "https")
    through = Proxy(scheme, "127.0.0.1", proxy.port, "Basic eA==")
    async with to(8080, secure=False, host="localhost", proxy=through) as wire:
        for _ in range(2):
            assert 200 == (await wire.exchange(post())).status
    head = b"POST http://localhost:8080/v2/x HTTP/1.1\r\nProxy-Authorization: Basic eA==\r\nHost: x\r\n"
    assert [True, True] == [request.startswith(head) for request in seen]
    assert 1 == proxy.opened


# --- event loops, threads, processes


def run_in_every_kind_of_loop(wire: Wire) -> None:
    """Two exchanges on asyncio and two on trio, each in a loop of its own that ends without a word to the wire."""

    async def twice(*, close: bool) -> None:
        for _ in range(2):
            assert 200 == (await wire.exchange(post())).status
        if close:
            await wire.aclose()

    for backend in ("asyncio", "trio", "asyncio", "trio"):
        anyio.run(lambda: twice(close=True), backend=backend)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning")
def test_loops_that_end_without_closing(serve, bundle):
    """A notebook or a test suite runs many loops; each has its own connections, and the old ones are let go."""
    server = serve(serve_all)
    trust = Trust(bundle)
    trust.load()
    wire = Wire(Route(Endpoint("https", "127.0.0.1", server.port)), trust, connect_timeout=LONG, read_timeout=LONG)

    async def once() -> None:
        assert 200 == (await wire.exchange(post())).status

    for _ in range(3):
        asyncio.run(once())
        anyio.run(once, backend="trio")
        assert len(wire._pools) <= 2
    assert 6 == server.opened

    async def close() -> None:
        await wire.aclose()
        await server.wait_closed(6)

    anyio.run(close)
    gc.collect()


def test_several_loops_in_several_threads(serve, bundle):
    """One wire for all of them at once."""
    server = serve(serve_all)
    trust = Trust(bundle)
    trust.load()
    wire = Wire(Route(Endpoint("https", "127.0.0.1", server.port)), trust, connect_timeout=LONG, read_timeout=LONG)
    failures = []

    def work() -> None:
        try:
            run_in_every_kind_of_loop(wire)
        except Exception as error:  # noqa: BLE001 - shown by the assertion below.
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert [] == failures


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_closing_reaches_the_other_loops(serve, bundle, backend):
    """`aclose` in one thread closes what is idle in the loop of another, in that loop."""
    server = serve(serve_all)
    trust = Trust(bundle)
    trust.load()
    wire = Wire(Route(Endpoint("https", "127.0.0.1", server.port)), trust, connect_timeout=LONG, read_timeout=LONG)
    opened, closed = threading.Event(), threading.Event()

    async def stay() -> None:
        await wire.exchange(post())
        opened.set()
        await anyio.to_thread.run_sync(closed.wait)
        assert 200 == (await wire.exchange(post())).status
        await wire.aclose()

    thread = threading.Thread(target=anyio.run, args=(stay,), kwargs={"backend": backend})
    thread.start()
    opened.wait(LONG)

    async def close() -> None:
        await wire.aclose()
        await server.wait_closed(1)
        closed.set()

    anyio.run(close)
    thread.join(LONG)
    assert 2 == server.opened


async def test_closing_lets_requests_on_the_wire_finish(serve, to):
    """They get their answers; then their connections are closed."""
    arrived, go = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        peer.request()
        arrived.set()
        go.wait(LONG)
        peer.send(GOOD)
        peer.wait_for_the_end()

    server = serve(slow, serve_all)
    async with to(server) as wire:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert 200 == (await wire.exchange(post())).status

            tasks.start_soon(ask)
            await anyio.to_thread.run_sync(arrived.wait)
            await wire.aclose()
            go.set()
        await server.wait_closed(1)
        assert 200 == (await wire.exchange(post())).status
    assert 2 == server.opened


FORK = """
import contextlib, os, socket, sys, threading
sys.path[:0] = {path!r}
import anyio
from tanksend.transports._link import Route
from tanksend.transports._settings import Endpoint
from tanksend.transports._tls import Trust
from tanksend.transports._wire import Wire, _inherited
from tanksend.transports._wire_asyncio import AsyncioPool

POST = b"POST /v2/x HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n"
trust = Trust({bundle!r})
trust.load()
wire = Wire(Route(Endpoint("https", "127.0.0.1", {port})), trust, connect_timeout=60, read_timeout=60)

async def once():
    assert 200 == (await wire.exchange(POST)).status

async def child():
    await once()
    await once()
    await wire.aclose()

def live_on():
    # A thread, because the child got the parent's running event loop with it.
    failures = []
    def run():
        try:
            anyio.run(child, backend={backend!r})
        except BaseException as error:
            failures.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return not failures

async def parent():
    await once()
    pid = os.fork()
    if not pid:
        os._exit(0 if live_on() else 1)
    _, status = await anyio.to_thread.run_sync(os.waitpid, pid, 0)
    assert status == 0, status
    await once()
    await wire.aclose()

import anyio.to_thread
anyio.run(parent, backend={backend!r}, backend_options={options!r})
"""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_does_not_touch_its_parents_connections(serve, bundle, anyio_backend):
    """Each has its own TLS session: the parent goes on with its connection after the child has sent and closed."""
    server = serve(serve_all)
    backend, options = anyio_backend
    path = [str(Path(tanksend.__file__).parent.parent)]
    script = FORK.format(path=path, bundle=bundle, port=server.port, backend=backend, options=options)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=2 * LONG, check=False)
    assert (0, "") == (done.returncode, done.stderr if done.returncode else "")
    assert 2 == server.opened


@pytest.mark.parametrize("anyio_backend", ["trio"])  # asyncio's loop does not live on without its sockets.
async def test_what_was_the_parents_is_dropped(serve, to):
    """The same within one process: whoever finds that it is another process than before opens new connections."""
    server = serve(serve_all)
    async with to(server) as wire:
        await wire.exchange(post())
        wire._pid = -1
        await wire.exchange(post())
        await server.wait_closed(1)
        wire._pid = -1
        await wire.aclose()
        await server.wait_closed(2)
    assert 2 == server.opened
    _inherited.clear()


def test_closing_after_the_loop(serve, bundle):
    """Whoever closes late, when the loops of the connections are gone, closes them all the same."""
    server = serve(serve_all)
    trust = Trust(bundle)
    trust.load()
    wire = Wire(Route(Endpoint("https", "127.0.0.1", server.port)), trust, connect_timeout=LONG, read_timeout=LONG)

    async def once() -> None:
        await wire.exchange(post())

    async def close() -> None:
        await wire.aclose()
        await server.wait_closed(2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, about a loop that was left like this.
        loop = asyncio.new_event_loop()
        loop.run_until_complete(once())
        anyio.run(once, backend="trio")
        loop.close()
        anyio.run(close)
        del loop
        gc.collect()


# --- small parts


def test_only_the_socket_that_is_meant_is_dropped():
    """Its number may be somebody else's by now: then nothing is touched."""
    with socket.socket() as ours, socket.socket() as other:
        known = _pool.inode(ours.fileno())
        _pool.drop_unspoken(other.fileno(), known)
        assert _pool.inode(other.fileno()) not in {0, known}
        _pool.drop_unspoken(ours.fileno(), known)
        assert _pool.inode(ours.fileno()) != known
        closed = ours.detach()
        os.close(closed)
        assert 0 == _pool.inode(closed)
        _pool.drop_unspoken(closed, 0)


def test_a_loop_that_closes_while_it_is_told():
    """Between the look whether it is open and the call into it, it may have been closed: then its pool is dropped."""
    loop = asyncio.new_event_loop()

    async def make() -> AsyncioPool:
        return AsyncioPool(Route(Endpoint("http", "127.0.0.1", 1)), Trust(), 1.0, 1.0)

    pool = loop.run_until_complete(make())
    loop.close()
    assert pool.gone
    pool.close_soon()


def test_a_bundle_may_be_a_directory(tmp_path, authority):
    """As OpenSSL's c_rehash makes them."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trust = Trust(str(tmp_path))
    trust.load()
    trust.load()
    assert ssl.TLSVersion.TLSv1_2 <= trust.context().minimum_version


def test_without_a_bundle_the_system_is_trusted():
    """And for the proxy the same as for the endpoint."""
    trust = Trust()
    trust.load()
    assert trust.context() is trust.context(proxy=True)
    assert ssl.CERT_REQUIRED == trust.context().verify_mode


def test_a_bundle_that_holds_no_certificates(tmp_path):
    """The text neither names the file nor repeats what is in it."""
    path = tmp_path / "secret-name.pem"
    path.write_text("secret")
    with pytest.raises(SettingError, match="cannot be loaded") as caught:
        Trust(str(path)).load()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "closed"),
        (BrokenPipeError(), "reset"),
        (OSError(101, "Network is unreachable"), "ENETUNREACH"),
        (OSError("secret"), "OSError"),
        (OSError(99_999, "secret"), "OSError"),
        (ssl.SSLError("secret"), "SSLError"),
        (ssl.SSLCertVerificationError("secret"), "could not be verified"),
        (LinkError("as it is"), "as it is"),
    ],
)
def test_errors_in_words(error, text):
    """The system's own words are not repeated: they hold addresses at times."""
    found = in_words(error)
    assert text in found.reason
    assert "secret" not in found.reason


def test_a_link_tells_of_an_end_before_it_was_ready(bundle):
    """The other side hangs up in the handshake."""
    trust = Trust(bundle)
    trust.load()
    link = Link(Route(Endpoint("https", "127.0.0.1", 443)), trust)
    assert link.start().startswith(b"\x16")
    with pytest.raises(LinkError, match="closed"):
        link.eof()
    assert link.over


def test_tls_that_cannot_even_begin(bundle):
    """Whatever the system's settings leave, it is told as a failed connection."""
    trust = Trust(bundle)
    trust.load()
    trust.context().minimum_version = ssl.TLSVersion.TLSv1_3
    trust.context().maximum_version = ssl.TLSVersion.TLSv1_2
    wire = Wire(Route(Endpoint("https", "127.0.0.1", 443)), trust, connect_timeout=LONG, read_timeout=LONG)
    link = Link(wire._route, trust)
    with pytest.raises(LinkError, match="TLS failed"):
        link.start()


async def test_tls_that_cannot_even_begin_on_a_connection(serve, bundle):
    """As above, and the socket is closed."""
    server = serve(Peer.wait_for_the_end, secure=False)
    trust = Trust(bundle)
    trust.load()
    trust.context().minimum_version = ssl.TLSVersion.TLSv1_3
    trust.context().maximum_version = ssl.TLSVersion.TLSv1_2
    wire = Wire(Route(Endpoint("https", "127.0.0.1", server.port)), trust, connect_timeout=LONG, read_timeout=LONG)
    with pytest.raises(ConnectionFailedError, match="TLS failed"):
        await wire.exchange(post())
    await server.wait_closed(1)
    await wire.aclose()


def test_a_link_keeps_an_answer_that_was_whole():
    """When the connection ends after it, that is all right; when nonsense follows, the answer stays."""
    link = Link(Route(Endpoint("http", "127.0.0.1", 80)), Trust())
    assert b"" == link.start()
    link.more(link.begin(post()))
    link.feed(GOOD)
    assert link.answer is not None
    link.eof()
    assert link.answer.keep_alive
    with pytest.raises(LinkError) as caught:
        link.feed(GOOD)
    assert BadAnswerError.__name__ == caught.value.cause_type
    assert 200 == link.answer.status
