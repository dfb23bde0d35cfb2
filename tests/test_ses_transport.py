from __future__ import annotations

import datetime as dt
import json
import ssl
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
import trustme

import tanksend
from tanksend._addresses import Address
from tanksend._http1 import Answer
from tanksend._messages import Attachment, Message, Template
from tanksend._results import Receipt
from tanksend.exceptions import (
    AccessDeniedError,
    ConfigurationError,
    ConnectionFailedError,
    CredentialsError,
    IdentityNotVerifiedError,
    Origin,
    OutcomeUnknownError,
    Scope,
    SendError,
    ServiceUnavailableError,
    SettingError,
    ThrottlingError,
)
from tanksend.testing import Credential, Faults, SimulatedSES, TunnelProxy, check_transport
from tanksend.transports import Credentials, SESTransport
from tanksend.typing import Account, BulkRequest, SendRequest, TemplateSource

pytestmark = pytest.mark.anyio

KEYS = Credentials("AKIDEXAMPLE", "secret-key")
SENDER = Address("Tank", "no-reply@example.com")
REQUEST_ID = "1a22f8ef-0b5d-4e5e-8ed2-d3d9e7a0e6a0"


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """Neither this machine's AWS settings nor its proxies count."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def request_for(number: int = 0, **fields) -> SendRequest:
    """One message, as the engine hands it over."""
    message = Message(f"kim{number}@example.com", f"Hi {number}", text="Hello", **fields)
    return SendRequest(message, SENDER, message.to)


GREETING = Template(subject="Hi {{name}}", text="Dear {{name}}")


def templated(number: int = 0, template: Template = GREETING, **fields) -> SendRequest:
    """One message of a template, as the engine hands it over."""
    given = {"to": f"kim{number}@example.com", "data": {"name": f"Kim {number}"}}
    message = Message.from_template(template, **{**given, **fields})
    return SendRequest(message, SENDER, message.to)


def bulk(*requests: SendRequest) -> BulkRequest:
    """Several of them."""
    return BulkRequest(requests)


def transport_to(ses: SimulatedSES, **options) -> SESTransport:
    """A transport with good keys, unless the test has others."""
    return SESTransport(**{"region": ses.region, "endpoint_url": ses.url, "credentials": KEYS, **options})


def known(*credentials: Credentials) -> dict[str, Credential]:
    """What the simulator's account knows of keys."""
    return {each.access_key: Credential(each.secret_key, token=each.token) for each in credentials}


# --- sending


async def test_a_message_arrives():
    """With a good signature, and a receipt that names it."""
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        transport = transport_to(ses)
        receipt = await transport.send(request_for())
        await transport.aclose()
        assert ses.inbox[0].message_id == receipt.message_id
        assert receipt.request_id


async def test_many_at_once_arrive_once_each():
    """As many connections as there are requests, and each gets its own answer."""
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        transport = transport_to(ses)
        receipts = []

        async def send(number: int) -> None:
            receipts.append(await transport.send(request_for(number)))

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(send, number)
        await transport.aclose()
        assert 50 == len({receipt.message_id for receipt in receipts}) == len(ses.inbox)
        assert not ses.doubled()


async def test_a_large_attachment_arrives():
    """It goes out piece by piece."""
    content = bytes(range(256)) * 8_000
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        transport = transport_to(ses)
        await transport.send(request_for(attachments=[Attachment("data.bin", content)]))
        await transport.aclose()
        assert 1 == len(ses.inbox)


async def test_the_transport_keeps_its_contract():
    """The conformance kit, over real sockets."""
    async with SimulatedSES(rate=-1) as ses:
        await check_transport(
            lambda: transport_to(ses),
            broken=lambda: transport_to(ses, endpoint_url="http://127.0.0.1:1"),
        )


async def test_over_tls_and_through_a_proxy(monkeypatch, tmp_path):
    """The environment names the proxy, with its password, and the certificates to trust."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with TunnelProxy(username="tank", password="p@ss") as proxy:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        monkeypatch.setenv("HTTPS_PROXY", f"http://tank:p%40ss@{proxy.bare_url.removeprefix('http://')}")
        async with SimulatedSES(rate=-1, tls=context, verify_signatures=True, credentials=known(KEYS)) as ses:
            transport = transport_to(ses)
            for number in range(3):
                await transport.send(request_for(number))
            await transport.aclose()
            assert 3 == len(ses.inbox)
        assert 1 == proxy.tunnels


# --- templates


async def test_a_templated_message_arrives():
    """With an inline template, and with one that is stored; each has its own data."""
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS), templates={"a": GREETING}) as ses:
        transport = transport_to(ses)
        await transport.send(templated(1))
        await transport.send(templated(2, Template(name="a")))
        await transport.aclose()
        assert ["Hi Kim 1", "Hi Kim 2"] == [mail.subject for mail in ses.inbox]


async def test_many_in_one_request_arrive():
    """One request, and a receipt for each of them, in order."""
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        transport = transport_to(ses)
        outcomes = await transport.send_bulk(bulk(*[templated(number) for number in range(50)]))
        await transport.aclose()
        assert [mail.message_id for mail in ses.inbox] == [outcome.message_id for outcome in outcomes]
        assert [f"Hi Kim {number}" for number in range(50)] == [mail.subject for mail in ses.inbox]
        assert 1 == len({outcome.request_id for outcome in outcomes})


@pytest.mark.parametrize("spelling", ["v2", "prose", "v1"])
async def test_one_bad_entry_never_costs_the_others(spelling):
    """What SES says of it is its own error."""
    faults = Faults(entries=[None, "entry-throttled", "entry-transient", "entry-failed"])
    async with SimulatedSES(rate=-1, faults=faults, bulk_spelling=spelling) as ses:
        transport = transport_to(ses)
        outcomes = await transport.send_bulk(bulk(*[templated(number) for number in range(5)]))
        await transport.aclose()
        expected = [Receipt, ThrottlingError, ServiceUnavailableError, SendError, Receipt]
        assert expected == [type(outcome) for outcome in outcomes]
        assert not any(outcome.maybe_sent for outcome in outcomes if isinstance(outcome, SendError))
        assert ["Hi Kim 0", "Hi Kim 4"] == [mail.subject for mail in ses.inbox]


async def test_a_template_that_is_gone():
    """As an error of the whole request, or of each entry."""
    for refuses in ("call", "entries"):
        async with SimulatedSES(rate=-1, bulk_refuses=refuses) as ses:
            transport = transport_to(ses)
            outcomes = []
            try:
                outcomes += await transport.send_bulk(bulk(templated(0, Template(name="gone"))))
            except SendError as error:
                outcomes.append(error)
            await transport.aclose()
            assert [ConfigurationError] == [type(outcome) for outcome in outcomes]
            assert Origin.TEMPLATE == outcomes[0].origin


@pytest.mark.parametrize(
    ("account", "error"),
    [
        ({"identities": ["other.example.com"]}, IdentityNotVerifiedError),
        ({"deny": ["ses:SendBulkEmail"]}, AccessDeniedError),
        ({"script": ["throttle"]}, ThrottlingError),
        ({"script": ["503"]}, ServiceUnavailableError),
        ({"script": ["reset-after"]}, OutcomeUnknownError),
        ({"script": ["500-accepted"]}, OutcomeUnknownError),
    ],
)
async def test_a_refusal_of_all_is_an_error(account, error):
    """In doubt only where no answer settles it."""
    settings = dict(account)
    async with SimulatedSES(rate=-1, faults=Faults(settings.pop("script", ())), **settings) as ses:
        transport = transport_to(ses)
        with pytest.raises(error) as caught:
            await transport.send_bulk(bulk(templated(0), templated(1)))
        await transport.aclose()
        assert (error is OutcomeUnknownError) == caught.value.maybe_sent
        assert (2 if caught.value.maybe_sent else 0) == len(ses.inbox)


@pytest.mark.parametrize("fault", ["garbage", "no-id"])
async def test_an_answer_in_bulk_that_settles_nothing(fault):
    """Each entry is in doubt."""
    async with SimulatedSES(rate=-1, faults=Faults([fault])) as ses:
        transport = transport_to(ses)
        outcomes = await transport.send_bulk(bulk(templated(0), templated(1)))
        await transport.aclose()
        assert [OutcomeUnknownError] * 2 == [type(outcome) for outcome in outcomes]


async def test_a_stored_template_is_looked_up_once():
    """Whatever asks; and anew when it is known to have changed."""
    async with SimulatedSES(verify_signatures=True, credentials=known(KEYS), templates={"a": GREETING}) as ses:
        transport = transport_to(ses)
        assert isinstance(transport, TemplateSource)
        for _ in range(3):
            assert await transport.template("a") == GREETING
        ses.templates["a"] = Template(subject="Ho", text="Other")
        assert await transport.template("a") == GREETING
        transport.forget_template("a")
        assert "Ho" == (await transport.template("a")).subject
        await transport.aclose()
        assert 2 == ses.counts.requests


async def test_a_stored_template_that_is_not_there():
    """Says so before any mail does."""
    async with SimulatedSES() as ses:
        transport = transport_to(ses)
        with pytest.raises(ConfigurationError, match="template gone does not exist") as caught:
            await transport.template("gone")
        await transport.aclose()
        assert (Scope.ORIGIN, Origin.TEMPLATE) == (caught.value.scope, caught.value.origin)
        assert caught.value.request_id


async def test_a_stored_template_that_may_not_be_looked_up():
    """Is left unchecked, and SES is not asked again."""
    async with SimulatedSES(deny=["ses:GetEmailTemplate"], templates={"a": GREETING}) as ses:
        transport = transport_to(ses)
        for _ in range(2):
            assert await transport.template("a") is None
        await transport.aclose()
        assert 1 == ses.counts.requests


async def test_mail_does_not_wait_for_a_template_that_cannot_be_looked_up():
    """No connection, no settings: it is for the mail itself to fail."""
    transport = SESTransport(region="us-east-1", endpoint_url="http://127.0.0.1:1", credentials=KEYS)
    assert await transport.template("a") is None
    await transport.aclose()


# --- what SES says


@pytest.mark.parametrize(
    ("account", "error"),
    [
        ({"identities": ["other.example.com"]}, IdentityNotVerifiedError),
        ({"deny": ["ses:SendEmail"]}, AccessDeniedError),
        ({"script": ["throttle"]}, ThrottlingError),
        ({"script": ["503"]}, ServiceUnavailableError),
    ],
)
async def test_a_refusal_is_an_error_that_says_why(account, error):
    """SES certainly has not taken the message."""
    settings = dict(account)
    async with SimulatedSES(rate=-1, faults=Faults(settings.pop("script", ())), **settings) as ses:
        transport = transport_to(ses)
        with pytest.raises(error) as caught:
            await transport.send(request_for())
        await transport.aclose()
        assert not caught.value.maybe_sent
        assert caught.value.request_id
        assert 0 == len(ses.inbox)


async def test_an_unverified_sender_is_told_from_an_unverified_recipient():
    """The From address is what the error is about, and the region with where it came from."""
    async with SimulatedSES(rate=-1, identities=["other.example.com"]) as ses:
        transport = transport_to(ses)
        with pytest.raises(IdentityNotVerifiedError, match="the region argument") as caught:
            await transport.send(request_for())
        await transport.aclose()
        assert Scope.ORIGIN == caught.value.scope
        assert "no-reply" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        ("reset-before", 0),
        ("close-before", 0),
        ("500", 0),
        ("503-bare", 0),
        ("reset-after", 1),
        ("close-after", 1),
        ("500-accepted", 1),
        ("503-bare-accepted", 1),
        ("garbage", 1),
        ("no-id", 1),
    ],
)
async def test_whatever_settles_nothing_is_unknown(fault, accepted):
    """Whether SES took it or not cannot be seen from here; the next message goes on a good connection."""
    async with SimulatedSES(rate=-1, faults=Faults([fault])) as ses:
        transport = transport_to(ses)
        with pytest.raises(OutcomeUnknownError):
            await transport.send(request_for())
        assert (await transport.send(request_for(1))).message_id
        await transport.aclose()
        assert accepted + 1 == len(ses.inbox)


async def test_a_slow_answer_is_an_answer():
    """Byte by byte, within the time limit."""
    async with SimulatedSES(rate=-1, faults=Faults(["slow"]), slow_step=0.0) as ses:
        transport = transport_to(ses)
        receipt = await transport.send(request_for())
        await transport.aclose()
        assert ses.inbox[0].message_id == receipt.message_id


async def test_no_answer_in_time_is_unknown():
    """The read time limit takes a timedelta, too."""
    async with SimulatedSES(rate=-1, faults=Faults(["silent"])) as ses:
        transport = transport_to(ses, read_timeout=dt.timedelta(milliseconds=50))
        with pytest.raises(OutcomeUnknownError) as caught:
            await transport.send(request_for())
        await transport.aclose()
        assert "TimeoutError" == caught.value.cause_type


async def test_half_a_surrogate_never_leaves():
    """Bad data is found before anything is sent."""
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses)
        message = Message("kim@example.com", "Hi", text="\ud83d")
        with pytest.raises(SendError) as caught:
            await transport.send(SendRequest(message, SENDER, message.to))
        await transport.aclose()
        assert "content" == caught.value.field
        assert 0 == ses.counts.connections


# --- credentials


async def test_keys_that_expire_are_replaced_within_one_send():
    """AWS has refused the request, so sending it again is safe; the caller does not notice."""
    old, new = Credentials("ASIAOLD", "old", "token-1"), Credentials("ASIANEW", "new", "token-2")
    given = iter([old, new])
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(old, new)) as ses:
        transport = transport_to(ses, credentials=lambda: next(given))
        await transport.send(request_for(0))
        ses.credentials["ASIAOLD"] = Credential("old", token="token-1", expires_at=0.0)
        await transport.send(request_for(1))
        await transport.aclose()
        assert 2 == len(ses.inbox)


async def test_without_a_thread_for_the_name_nothing_was_sent(monkeypatch):
    """A program may have all the threads that it may have."""

    async def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("tanksend.transports._wire_asyncio.dial", refuse)
    monkeypatch.setattr("trio.open_tcp_stream", refuse)
    transport = SESTransport(region="us-east-1", endpoint_url="http://127.0.0.1:1", credentials=KEYS)
    with pytest.raises(ConnectionFailedError, match="no more threads"):
        await transport.send(request_for())
    await transport.aclose()


async def test_fixed_keys_that_expire_are_an_error():
    """There are no others."""
    keys = Credentials("ASIAOLD", "old", "token-1")
    async with SimulatedSES(rate=-1, verify_signatures=True) as ses:
        ses.credentials["ASIAOLD"] = Credential("old", token="token-1", expires_at=0.0)
        transport = transport_to(ses, credentials=keys)
        with pytest.raises(CredentialsError, match="expired"):
            await transport.send(request_for())
        await transport.aclose()
        assert 0 == len(ses.inbox)


async def test_wrong_keys_are_an_error_at_the_first_request():
    """One request, and nothing of the keys in the text."""
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        transport = transport_to(ses, credentials=Credentials("AKIDEXAMPLE", "another-secret"))
        with pytest.raises(CredentialsError) as caught:
            await transport.send(request_for())
        await transport.aclose()
        assert "another-secret" not in f"{caught.value} {caught.value!r} {transport!r}"


async def test_keys_from_the_environment(monkeypatch):
    """As in the AWS SDK."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_key)
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        monkeypatch.setenv("AWS_DEFAULT_REGION", ses.region)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", ses.url)
        transport = SESTransport()
        assert "<SESTransport region not yet known>" == repr(transport)
        await transport.send(request_for())
        await transport.aclose()
        assert f"<SESTransport {ses.region}>" == repr(transport)


# --- the account


async def test_the_account_is_asked():
    """Quotas and state as SES has them."""
    quotas = {"rate": 50, "daily_quota": 1_000, "sent_before": 7}
    async with SimulatedSES(**quotas, verify_signatures=True, credentials=known(KEYS)) as ses:
        transport = transport_to(ses)
        account = await transport.account()
        await transport.aclose()
        assert account == Account(max_send_rate=50.0, max_24_hour_send=1_000.0, sent_last_24_hours=7.0)


async def test_the_account_may_not_be_asked():
    """The limiter has to know that, so the error is the one for denied access."""
    async with SimulatedSES(deny=["ses:GetAccount"]) as ses:
        transport = transport_to(ses)
        with pytest.raises(AccessDeniedError):
            await transport.account()
        await transport.aclose()


@pytest.mark.parametrize("failure", [OutcomeUnknownError(cause_type="ConnectionResetError"), 500])
async def test_asking_is_never_of_unknown_outcome(monkeypatch, failure):
    """It changes nothing, so it can simply be asked again."""

    async def fail(_wire, _request):
        if isinstance(failure, int):
            return Answer(failure, {"x-amzn-requestid": REQUEST_ID}, b"oh", keep_alive=False)
        raise failure

    monkeypatch.setattr("tanksend.transports._wire.Wire.exchange", fail)
    transport = SESTransport(region="us-east-1", credentials=KEYS)
    with pytest.raises(ConnectionFailedError) as caught:
        await transport.account()
    assert (False, True) == (caught.value.maybe_sent, caught.value.retryable)
    if failure == 500:
        assert (500, REQUEST_ID) == (caught.value.status, caught.value.request_id)
    await transport.aclose()


async def test_transports_that_share_quotas_have_the_same_name():
    """By keys, region and endpoint; the name tells none of them."""

    async def name(**options) -> str:
        return await SESTransport(**{"region": "us-east-1", "credentials": KEYS, **options}).account_key()

    assert await name() == await name()
    others = [
        {"region": "eu-west-1"},
        {"credentials": Credentials("AKIDOTHER", "x")},
        {"endpoint_url": "https://x.example"},
    ]
    assert 4 == len({await name(), *[await name(**other) for other in others]})
    assert KEYS.access_key not in await name()


async def test_other_operations_of_the_api():
    """Paths are encoded and signed; whatever the status, it is an answer."""
    async with SimulatedSES(verify_signatures=True, credentials=known(KEYS), suppressed=["a+b@example.com"]) as ses:
        transport = transport_to(ses)
        path = "/v2/email/suppression/addresses"
        found = await transport.request("GET", path, "a+b@example.com")
        assert 200 == found.status
        assert "a+b@example.com" == json.loads(found.body)["SuppressedDestination"]["EmailAddress"]
        missing = await transport.request("GET", path, "nobody@example.com")
        assert 404 == missing.status
        body = json.dumps({"EmailAddress": "c@example.com", "Reason": "COMPLAINT"}).encode()
        assert 200 == (await transport.request("PUT", path, body=body)).status
        listed = await transport.request("GET", path, query={"PageSize": "1000"})
        assert 2 == len(json.loads(listed.body)["SuppressedDestinationSummaries"])
        assert 200 == (await transport.request("DELETE", path, "c@example.com")).status
        await transport.aclose()


# --- settings


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "http://ses.example.com"},
        {"endpoint_url": "email.example.com"},
        {"endpoint_url": "https://user:secret@email.example.com"},
        {"region": "us east"},
        {"region": "example.com/"},
        {"connect_timeout": 0},
        {"read_timeout": float("nan")},
        {"read_timeout": dt.timedelta(0)},
        {"profile": "a", "session": object()},
    ],
)
def test_arguments_that_cannot_be_used_are_told_at_once(options):
    """Not with the first message, and without repeating them."""
    with pytest.raises(SettingError) as caught:
        SESTransport(**{"credentials": None, **options})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["region", "bundle", "certificates"])
async def test_settings_that_turn_out_unusable_stop_everything(monkeypatch, tmp_path, wrong):
    """A send raises its own kind of errors only; this one concerns every message and names the setting."""
    region = None if wrong == "region" else "us-east-1"
    if wrong != "region":
        bundle = tmp_path / "ca.pem"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        if wrong == "certificates":
            bundle.write_text("nothing")
    transport = SESTransport(region=region, credentials=KEYS)
    with pytest.raises(ConfigurationError) as caught:
        await transport.send(request_for())
    assert (Scope.ACCOUNT, False, "SettingError") == (
        caught.value.scope,
        caught.value.maybe_sent,
        caught.value.cause_type,
    )
    assert ("region" if wrong == "region" else "bundle") in str(caught.value)
    await transport.aclose()


async def test_settings_are_found_once(monkeypatch):
    """Tasks that come at the same time share one way to SES, so that closing it closes all connections."""
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses)
        first, second = await transport._find_way(), await transport._find_way()
        assert first is second
        await transport.aclose()


# --- processes

FIRST_MAIL = """
import sys
sys.path[:0] = {path!r}
import anyio
from tanksend._addresses import Address
from tanksend._messages import Message
from tanksend.transports import SESTransport
from tanksend.typing import SendRequest

early = set(sys.modules) & {{"ssl", "httptools", "botocore", "asyncio", "trio"}}
assert not early, early

async def main():
    transport = SESTransport(endpoint_url={url!r})
    message = Message("kim@example.com", "Hi", text="Hello")
    await transport.send(SendRequest(message, Address("", "no-reply@example.com"), message.to))
    await transport.aclose()
    late = set(sys.modules) & {{"botocore", "boto3", "dns", "asyncio"}}
    assert not late, late

anyio.run(main, backend="trio")
"""


def test_the_first_mail_leaves_without_the_sdk():
    """With keys in the environment nothing heavy is loaded, and what is needed only when it is."""
    with SimulatedSES(rate=-1, verify_signatures=True, credentials=known(KEYS)) as ses:
        path = [str(Path(tanksend.__file__).parent.parent)]
        environment = {
            "AWS_ACCESS_KEY_ID": KEYS.access_key,
            "AWS_SECRET_ACCESS_KEY": KEYS.secret_key,
            "AWS_DEFAULT_REGION": ses.region,
            "HOME": "/nonexistent",
        }
        script = FIRST_MAIL.format(path=path, url=ses.url)
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (0, "") == (done.returncode, done.stderr)
        assert 1 == len(ses.inbox)
