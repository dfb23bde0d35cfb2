"""The conformance kit on every transport that ships and needs no server of another kind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import botocore.session
import pytest

from tanksend.exceptions import ServiceUnavailableError
from tanksend.testing import FakeClock, RecordingTransport, SimulatedSES, check_transport
from tanksend.transports import BotocoreTransport, Credentials, FileTransport, SESTransport
from tanksend.typing import Transport

pytestmark = pytest.mark.anyio

KEYS = Credentials("AKIDEXAMPLE", "secret")
NOBODY = "http://127.0.0.1:1"
Pair = tuple[Callable[[], Transport], Callable[[], Transport]]


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """Neither this machine's AWS settings nor its proxies count; the keys are in the environment."""
    for name in tuple(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_key)


@contextmanager
def native(_) -> Iterator[Pair]:
    """SES's HTTP API."""
    with SimulatedSES(rate=-1) as ses:
        options = {"region": ses.region, "credentials": KEYS}
        yield (
            lambda: SESTransport(endpoint_url=ses.url, **options),
            lambda: SESTransport(endpoint_url=NOBODY, **options),
        )


@contextmanager
def through_botocore(_) -> Iterator[Pair]:
    """The same through botocore's client."""
    model = botocore.session.Session().get_service_model("sesv2")
    if "TemplateContent" not in model.shape_for("Template").members:
        pytest.skip("this botocore is older than inline templates")
    with SimulatedSES(rate=-1) as ses:
        yield (
            lambda: BotocoreTransport(region=ses.region, endpoint_url=ses.url),
            lambda: BotocoreTransport(region=ses.region, endpoint_url=NOBODY),
        )


@contextmanager
def into_files(folder) -> Iterator[Pair]:
    """A folder, and one that cannot be."""
    (folder / "file").touch()
    yield lambda: FileTransport(folder / "mail"), lambda: FileTransport(folder / "file")


@contextmanager
def in_memory(_) -> Iterator[Pair]:
    """The simulated SES without a server."""
    clock = FakeClock()
    good, bad = SimulatedSES(rate=-1), SimulatedSES(deny=["ses:SendEmail"])
    yield lambda: good.transport(clock), lambda: bad.transport(clock)


@contextmanager
def recording(_) -> Iterator[Pair]:
    """A double that only keeps what it is given."""
    yield RecordingTransport, lambda: RecordingTransport(lambda _: ServiceUnavailableError())


@pytest.mark.parametrize("pair", [native, through_botocore, into_files, in_memory, recording])
async def test_it_keeps_its_contract(pair, tmp_path):
    """What works and what fails, on both event loops."""
    with pair(tmp_path) as (good, bad):
        await check_transport(good, broken=bad)


@pytest.mark.parametrize("name", ["BotocoreTransport", "FileTransport", "SESTransport"])
def test_each_is_found_where_the_others_are(name):
    """Also those that are loaded late."""
    from tanksend import transports

    assert name in transports.__all__
    assert name == getattr(transports, name).__name__
    with pytest.raises(AttributeError, match="no attribute 'Pigeon'"):
        _ = transports.Pigeon


def test_those_that_are_not_used_are_not_loaded():
    """botocore alone takes longer to load than all of this package."""
    script = "import sys, tanksend.transports; print(*({'botocore', 'smtplib', 'urllib3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "" == done.stdout.strip()
