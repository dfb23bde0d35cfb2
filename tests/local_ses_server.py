"""
aws-ses-v2-local, an SES for developers that nobody here wrote: one process on a free port of this machine.

It is a program for Node.js, installed by npm into a temporary folder, in the versions that ``node/package-lock.json``
pins. It keeps everything in memory, and tells what it has at ``/store``.
"""

from __future__ import annotations

import functools
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

_PATIENCE = 120.0
_PINS = Path(__file__).parent / "node"
_PROGRAM = Path("node_modules") / "aws-ses-v2-local" / "dist" / "cli.js"
# What one of its packages asks for.
_NODE = (20, 19)


def no_node() -> str | None:
    """Why it cannot run here, or None if it can."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "node and npm are not on the path"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2] if part.isdigit())
    return None if version >= _NODE else f"node is older than {_NODE[0]}.{_NODE[1]}"


@functools.cache
def _installed() -> tempfile.TemporaryDirectory[str]:
    """Install it, once for all who ask; the folder goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="tanksend-node-")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_PINS / name, folder.name)
    command = [shutil.which("npm") or "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder.name, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"npm could not install it: {done.stderr[-500:]}")
    return folder


class LocalSES:
    """
    A server process; a context manager, which stops it for good.

    Raises:
        OSError: npm could not install it.
    """

    def __init__(self) -> None:
        self._folder = Path(_installed().name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [shutil.which("node") or "node", str(_PROGRAM), "--host", "127.0.0.1", "--port", str(self._port)],
            cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "the server ended by itself"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            self._ask("/health-check")
        except OSError:
            return False
        return True

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        # Past the proxies that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.url + path, data), timeout=10) as answer:  # noqa: S310 - our own.
            found: bytes = answer.read()
            return found

    def emails(self) -> list[dict[str, Any]]:
        """All that it has taken, as it tells it."""
        found: list[dict[str, Any]] = json.loads(self._ask("/store"))["emails"]
        return found

    def clear(self) -> None:
        """Let it forget all."""
        self._ask("/clear-store", b"")
