"""One batch through two transports to two servers, one of which nobody here wrote: the same inbox four times."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _figures import Figure, exactly
from _world import BACKENDS, environment, run

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from inboxes import batch, comparable, local, send, simulated
from local_ses_server import LocalSES, no_node
from tanksend.testing import SimulatedSES
from tanksend.transports import BotocoreTransport, SESTransport

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}


def _transports(url: str) -> Iterator[tuple[str, Any]]:
    yield "SESTransport", SESTransport(region="us-east-1", endpoint_url=url)
    yield "BotocoreTransport", BotocoreTransport(region="us-east-1", endpoint_url=url)


def _differences(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[str]:
    """Which field of which message."""
    found = [f"{subject}: only in one" for subject in one.keys() ^ other.keys()]
    for subject in one.keys() & other.keys():
        found += [f"{subject}: {name}" for name in one[subject] if one[subject][name] != other[subject][name]]
    return found


def figures() -> Iterator[Figure]:
    """On both backends; the simulator's inbox from the native transport is what all are compared with."""
    sent = list(batch())
    yield exactly("messages", len(sent), 42)
    missing = no_node()
    yield exactly("why there is no other server", missing, None)
    with environment(**KEYS):
        for backend in BACKENDS:
            yield from _simulator(backend, sent)
            if missing is None:
                yield from _other(backend, sent)


def _first(backend: str, sent: list[Any]) -> list[Any]:
    with SimulatedSES(rate=-1) as ses:
        run(backend, send, next(_transports(ses.url))[1], sent)
        return simulated(ses.inbox)


def _simulator(backend: str, sent: list[Any]) -> Iterator[Figure]:
    first = comparable(_first(backend, sent))
    for way in range(2):
        with SimulatedSES(rate=-1) as ses:
            name, transport = list(_transports(ses.url))[way]
            run(backend, send, transport, sent)
            found = _differences(first, comparable(simulated(ses.inbox)))
            yield exactly(f"{backend}, {name} to the simulator: fields that differ", found, [])


def _other(backend: str, sent: list[Any]) -> Iterator[Figure]:
    first = _first(backend, sent)
    raw = [seen.subject for seen in first if seen.raw]
    for way in range(2):
        with LocalSES() as server:
            name, transport = list(_transports(server.url))[way]
            run(backend, send, transport, sent)
            theirs = comparable(local(server.emails(), raw), there=True)
            found = _differences(comparable(first, there=True), theirs)
            yield exactly(f"{backend}, {name} to aws-ses-v2-local: fields that differ", found, [])
