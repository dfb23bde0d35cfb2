from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest

from tanksend.transports import _dial_asyncio
from tanksend.transports._dial_asyncio import _mixed, dial

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[("asyncio", {}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """The two event loops this is for."""
    if request.param[1]:
        pytest.importorskip("uvloop")
    return request.param


class Plain(asyncio.BufferedProtocol):
    """The least that `dial` asks of a connection."""

    transport: asyncio.Transport | None = None
    closed = False

    def connection_made(self, transport):
        self.transport = transport

    def close(self):
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


@pytest.fixture
def listener():
    """Somebody who takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def closed_port():
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def deaf_port():
    """Somebody whose queue is full, so that connecting takes for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]
        for filler in fillers:
            filler.close()


@pytest.fixture
def resolves(monkeypatch):
    """Let every name have these ports of 127.0.0.1 as its addresses."""

    def resolve(*ports: int) -> None:
        async def addresses(_host: str, _port: int) -> list:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(_dial_asyncio, "_addresses", addresses)

    return resolve


async def connect() -> tuple[Plain, list[Plain]]:
    """Dial, and tell of every connection that was made on the way."""
    made: list[Plain] = []

    def connection() -> Plain:
        made.append(Plain())
        return made[-1]

    return await dial("ses.example.com", 443, connection), made


async def finish(connection: Plain) -> None:
    """Close it, and let the loop do so."""
    connection.close()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_one_address(resolves, listener):
    """Straight there."""
    resolves(listener)
    winner, made = await connect()
    assert [winner] == made
    assert ("127.0.0.1", listener) == winner.transport.get_extra_info("peername")
    await finish(winner)


async def test_a_real_name(listener):
    """The system's own resolver."""
    connection = await dial("localhost", listener, Plain)
    assert listener == connection.transport.get_extra_info("peername")[1]
    await finish(connection)


@pytest.mark.parametrize("count", [1, 3])
async def test_nobody_is_there(resolves, closed_port, count):
    """The first failure is told."""
    resolves(*[closed_port] * count)
    with pytest.raises(ConnectionRefusedError):
        await connect()


async def test_the_next_address_is_tried_when_one_fails(resolves, closed_port, listener):
    """At once: a refusal needs no waiting."""
    resolves(closed_port, closed_port, listener, closed_port)
    winner, made = await connect()
    assert listener == winner.transport.get_extra_info("peername")[1]
    assert 3 == len(made)
    await finish(winner)


async def test_the_next_address_is_tried_when_one_takes_long(resolves, deaf_port, listener, monkeypatch):
    """And the one that takes long is given up."""
    monkeypatch.setattr(_dial_asyncio, "_NEXT_ADDRESS", 0.01)
    resolves(deaf_port, listener)
    winner, _ = await connect()
    assert listener == winner.transport.get_extra_info("peername")[1]
    await finish(winner)


async def test_of_two_that_succeed_one_is_closed(resolves, monkeypatch):
    """Nobody would ever use it."""
    resolves(1, 2)
    monkeypatch.setattr(_dial_asyncio, "_NEXT_ADDRESS", 0.0)
    both = asyncio.Event()
    begun: list[Plain] = []

    async def attempt(_address, connection) -> Plain:
        begun.append(connection())
        if len(begun) == 2:
            both.set()
        await both.wait()
        return begun[_address[4][1] - 1]

    monkeypatch.setattr(_dial_asyncio, "_attempt", attempt)
    winner, made = await connect()
    await asyncio.sleep(0)
    loser = next(each for each in made if each is not winner)
    assert (False, True) == (winner.closed, loser.closed)


async def test_the_other_family_has_the_second_place():
    """IPv6 that leads nowhere costs a quarter of a second, not one per address."""

    def address(family: int, number: int) -> tuple:
        return (family, socket.SOCK_STREAM, 6, "", (str(number), 443))

    six, four = socket.AF_INET6, socket.AF_INET
    found = [address(six, 1), address(six, 2), address(four, 3), address(four, 4)]
    assert ["1", "3", "2", "4"] == [each[4][0] for each in _mixed(found)]
    assert found[:2] == _mixed(found[:2])


async def test_cancellation_leaves_no_socket(resolves, listener, closed_port, deaf_port):
    """Whenever it comes: asyncio's own way of doing this leaks one at times."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for ports in ((listener,), (listener, listener), (closed_port, listener), (deaf_port, listener)):
            resolves(*ports)
            for turns in range(12):
                task = asyncio.create_task(connect())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    winner, _ = await task
                except asyncio.CancelledError:
                    pass
                else:
                    await finish(winner)
                for _ in range(3):
                    await asyncio.sleep(0)
        gc.collect()
    assert [] == [str(each.message) for each in seen]
