"""The same batch through different transports to different servers is the same mail."""

from __future__ import annotations

import os

import botocore.session
import pytest

from inboxes import batch, comparable, local, send, simulated
from local_ses_server import LocalSES, no_node
from tanksend._messages import Message
from tanksend.testing import SimulatedSES
from tanksend.transports import BotocoreTransport, Credentials, SESTransport

pytestmark = pytest.mark.anyio

REGION = "us-east-1"
# How npm says that it is not to blame. Whether its registry can be reached is nothing that we test.
NO_NETWORK = ("EAI_AGAIN", "ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT", "E50")
KEYS = Credentials("AKIDEXAMPLE", "secret")


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


def messages() -> list[Message]:
    """The batch, without attachments where the installed botocore is older than those of SES's simple form."""
    model = botocore.session.Session().get_service_model("sesv2")
    return list(batch(attachments="Attachments" in model.shape_for("Message").members))


def transports(url: str) -> dict[str, SESTransport | BotocoreTransport]:
    """The native one and botocore's."""
    return {
        "native": SESTransport(region=REGION, endpoint_url=url, credentials=KEYS),
        "botocore": BotocoreTransport(region=REGION, endpoint_url=url),
    }


async def in_simulator(way: str, sent: list[Message]):
    """What the simulated SES has of it."""
    async with SimulatedSES(rate=-1) as ses:
        assert len(sent) == await send(transports(ses.url)[way], sent)
        return simulated(ses.inbox)


@pytest.fixture(scope="module")
def elsewhere():
    """A server that nobody here wrote."""
    reason = no_node()
    if reason is not None:
        pytest.skip(reason)  # Also under CI: nothing else here needs Node.js.
    try:
        server = LocalSES()
    except OSError as error:
        nobody_answers = any(code in str(error) for code in NO_NETWORK)
        if os.environ.get("CI", "").lower() in {"1", "true"} and not nobody_answers:
            raise
        pytest.skip(str(error))
    with server:
        yield server


async def test_both_ways_in_are_the_same_to_the_simulator():
    """Every field of every message, and it is what was meant."""
    sent = messages()
    native, through_botocore = [await in_simulator(way, sent) for way in ("native", "botocore")]
    assert comparable(native) == comparable(through_botocore)
    have = {seen.subject: seen for seen in native}
    assert {message.subject for message in sent} == set(have)
    for message in sent:
        seen = have[message.subject]
        assert [address.email for address in message.to] == [email for _, email in seen.to]
        assert [address.name for address in message.bcc] == [name for name, _ in seen.bcc]
        if message.mime is None:
            assert ((message.text or "").strip("\n"), message.html) == (seen.text or "", seen.html)
            assert [file.content for file in message.attachments] == [content for *_, content in seen.attachments]


@pytest.mark.parametrize("way", ["native", "botocore"])
async def test_another_server_has_the_same(elsewhere, way):
    """All but what it does not keep."""
    sent = messages()
    ours = await in_simulator("native", sent)
    elsewhere.clear()
    assert len(sent) == await send(transports(elsewhere.url)[way], sent)
    theirs = local(elsewhere.emails(), [seen.subject for seen in ours if seen.raw])
    assert comparable(ours, there=True) == comparable(theirs, there=True)
