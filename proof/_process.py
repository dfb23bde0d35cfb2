"""A simulated SES in a process of its own, so that it and its clients do not take each other's time."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs


@attrs.frozen
class RemoteSES:
    """Where it listens, and what it says of itself."""

    url: str
    region: str = "us-east-1"

    def figures(self) -> dict[str, Any]:
        """Counts, pace and doubles so far."""
        with urllib.request.urlopen(f"{self.url}/_simulator") as answer:  # noqa: S310  (our own, on this machine)
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def simulated(*options: str) -> Iterator[RemoteSES]:
    """`tanksend simulate` with these options."""
    command = [sys.executable, "-m", "tanksend", "simulate", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield RemoteSES(process.stdout.readline().strip())
        finally:
            process.terminate()
            process.stdout.read()
