"""
New TCP connections on asyncio: all addresses of a name, the next one tried as well when one takes long.

asyncio has this, too, but leaks a socket when it is cancelled at the wrong moment, and uvloop has it not at all.

Source: RFC 8305 (happy eyeballs).
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._wire_asyncio import Connection

__all__ = ["dial"]

_NEXT_ADDRESS = 0.25  # Seconds until the next address is tried as well; RFC 8305 section 5.

_Address: TypeAlias = tuple[int, int, int, str, Any]


async def dial(host: str, port: int, connection: Callable[[], Connection]) -> Connection:
    """
    Connect to *host*.

    Args:
        host: A name or an address.
        port: TCP port.
        connection: Makes the `asyncio` protocol for a connected socket; losers of the race are closed.

    Raises:
        OSError: No address could be connected to; that of the first one.
    """
    found = await _addresses(host, port)
    if len(found) == 1:
        return await _attempt(found[0], connection)
    return await _race(_mixed(found), connection)


async def _addresses(host: str, port: int) -> list[_Address]:
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _mixed(addresses: list[_Address]) -> list[_Address]:
    """In the system's order, but with the first address of the other family in the second place."""
    addresses = list(addresses)
    other = next((each for each in addresses if each[0] != addresses[0][0]), None)
    if other is not None:
        addresses.remove(other)
        addresses.insert(1, other)
    return addresses


async def _attempt(address: _Address, connection: Callable[[], Connection]) -> Connection:
    made = connection()
    # By the address and not by a socket of ours: uvloop closes its descriptor behind our back when this is cancelled.
    host, port = address[4][:2]
    await asyncio.get_running_loop().create_connection(lambda: made, host, port)
    return made


async def _race(addresses: list[_Address], connection: Callable[[], Connection]) -> Connection:
    loop = asyncio.get_running_loop()
    waiting = list(reversed(addresses))
    running: set[asyncio.Task[Connection]] = set()
    failures: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.add(loop.create_task(_attempt(waiting.pop(), connection)))
            limit = _NEXT_ADDRESS if waiting else None
            done, running = await asyncio.wait(running, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                failure = task.exception()
                if failure is None:
                    running |= done - {task}
                    return task.result()
                failures.append(failure)
        raise failures[0]
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_loser)


def _close_loser(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
