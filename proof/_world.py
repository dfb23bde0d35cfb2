"""What several proofs need: certificates, messages, ways to run."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import trustme

from tanksend import Message

BACKENDS = ("asyncio", "trio")
UNLIMITED = float("inf")


def run(backend: str, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Run an async function on one kind of loop."""
    return anyio.run(partial(function, *args, **kwargs), backend=backend)


@contextmanager
def certificates() -> Iterator[ssl.SSLContext]:
    """A server context that the default client trusts, through ``AWS_CA_BUNDLE``."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with tempfile.NamedTemporaryFile(suffix=".pem") as bundle, environment(AWS_CA_BUNDLE=bundle.name):
        bundle.write(authority.cert_pem.bytes())
        bundle.flush()
        yield context


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def messages(number: int, *, domains: int = 20) -> Iterator[Message]:
    """That many personal messages; each has its number as a tag."""
    for index in range(number):
        yield Message(
            f"user{index}@d{index % domains}.example.com",
            f"Invoice {index}",
            text=f"Dear user {index}, this is yours. " * 20,
            tags={"number": str(index)},
        )
