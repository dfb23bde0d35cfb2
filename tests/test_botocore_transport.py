from __future__ import annotations

import os
import pickle
import socket
import ssl
import struct
import threading
import warnings

import anyio
import botocore.session
import botocore.stub
import pytest
import trustme
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from dateutil.parser import parse

from tanksend._addresses import Address
from tanksend._messages import Attachment, Message, Template
from tanksend.exceptions import (
    AccessDeniedError,
    Category,
    ConfigurationError,
    ConnectionFailedError,
    CredentialsError,
    IdentityNotVerifiedError,
    InvalidMessageError,
    OutcomeUnknownError,
    Scope,
    SendError,
    ServiceUnavailableError,
    SettingError,
    ThrottlingError,
)
from tanksend.testing import Credential, Faults, SimulatedSES, TunnelProxy
from tanksend.transports import BotocoreTransport, Credentials, SESTransport
from tanksend.transports._botocore import call_parameters
from tanksend.transports._botocore_errors import refusal_of, translate, unusable
from tanksend.typing import Account, AccountSource, BulkRequest, SendRequest, TemplateSource

pytestmark = pytest.mark.anyio

KEYS = Credentials("AKIDEXAMPLE", "secret-key")
KNOWN = {KEYS.access_key: Credential(KEYS.secret_key)}
SENDER = Address("Tank", "no-reply@example.com")
NO_RETRIES = Config(retries={"total_max_attempts": 1})


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


def knows(member: str, shape: str) -> bool:
    """Whether the installed botocore is new enough for it."""
    model = botocore.session.Session().get_service_model("sesv2")
    return member in model.shape_for(shape).members


def request_for(number: int = 0, **fields) -> SendRequest:
    """One message, as the engine hands it over."""
    message = Message(f"kim{number}@example.com", f"Hi {number}", **{"text": "Hello", **fields})
    return SendRequest(message, SENDER, message.to)


def transport_to(ses: SimulatedSES, **options) -> BotocoreTransport:
    """A transport to the simulated SES."""
    return BotocoreTransport(**{"region": ses.region, "endpoint_url": ses.url, **options})


def client_for(ses: SimulatedSES | None = None, config: Config = NO_RETRIES, service: str = "sesv2"):
    """A client of the caller's own."""
    session = botocore.session.Session()
    url = None if ses is None else ses.url
    return session.create_client(service, region_name="us-east-1", endpoint_url=url, config=config)


# --- sending


async def test_a_message_arrives():
    """With a good signature, and a receipt that names it."""
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=KNOWN) as ses:
        transport = transport_to(ses)
        assert isinstance(transport, AccountSource)
        assert "<BotocoreTransport us-east-1>" == repr(transport)
        receipt = await transport.send(request_for())
        await transport.aclose()
        assert ses.inbox[0].message_id == receipt.message_id
        assert receipt.request_id


async def test_many_at_once_arrive_once_each():
    """On no more connections, and threads, than allowed."""
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses, max_connections=3)
        receipts = []

        async def send(number: int) -> None:
            receipts.append(await transport.send(request_for(number)))

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(send, number)
        await transport.aclose()
        assert 40 == len({receipt.message_id for receipt in receipts}) == len(ses.inbox)
        assert not ses.doubled()
        assert ses.counts.connections <= 3


async def test_the_wire_carries_what_the_native_transport_sends():
    """One writer makes both, byte for byte once parsed: simple, raw, with attachments."""
    attachments = [Attachment("보고서.pdf", b"%PDF" * 100), Attachment("a.png", b"\x89", content_id="logo")]
    requests = [
        request_for(1, html="<p>🎉</p>", headers={"X-A": "a"}),
        request_for(2),
        SendRequest(Message.from_mime(b"Subject: raw\r\n\r\n\xff", to="kim@example.com"), SENDER, request_for().to),
    ]
    if knows("Attachments", "Message"):
        requests.append(request_for(3, html="<p></p>", attachments=attachments))
    async with SimulatedSES(rate=-1) as ses:
        for transport in (
            transport_to(ses),
            SESTransport(region=ses.region, endpoint_url=ses.url, credentials=KEYS),
        ):
            for request in requests:
                await transport.send(request)
            await transport.aclose()
        contents = [item.content for item in ses.inbox]
        assert contents[: len(requests)] == contents[len(requests) :]


async def test_many_templated_messages_in_one_request():
    """One outcome for each, and one request for all."""
    template = Template(subject="Hi {{name}}", text="Dear {{name}}")
    messages = [Message.from_template(template, to=f"k{each}@example.com", data={"name": each}) for each in range(3)]
    bulk = BulkRequest(tuple(SendRequest(message, SENDER, message.to) for message in messages))
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses)
        if not knows("TemplateContent", "Template"):
            with pytest.raises(InvalidMessageError, match="botocore does not know TemplateContent"):
                await transport.send_bulk(bulk)
            return
        outcomes = await transport.send_bulk(bulk)
        await transport.aclose()
        assert [item.message_id for item in ses.inbox] == [outcome.message_id for outcome in outcomes]
        assert 1 == ses.counts.requests


async def test_a_bulk_request_that_fails_as_a_whole_is_an_error():
    """Of the same kind as for one message."""
    template = Template(name="none-such")
    message = Message.from_template(template, to="kim@example.com", data={})
    async with SimulatedSES(rate=-1, deny=["ses:SendBulkTemplatedEmail", "ses:SendBulkEmail"]) as ses:
        transport = transport_to(ses)
        with pytest.raises(SendError) as caught:
            await transport.send_bulk(BulkRequest((SendRequest(message, SENDER, message.to),)))
        await transport.aclose()
        assert not caught.value.maybe_sent


async def test_moto_takes_the_same_messages(monkeypatch, needs):
    """A server that nobody here wrote."""
    needs("moto")
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.server import ThreadedMotoServer
    from moto.ses.models import ses_backends

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", url)
        setup = botocore.session.Session().create_client("sesv2", region_name="us-east-1")
        setup.create_email_identity(EmailIdentity="example.com")
        setup.close()
        before = len(ses_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].sent_messages)
        transport = BotocoreTransport(region="us-east-1")
        await transport.send(request_for(0))
        await transport.send(request_for(1, html="<p>안녕</p>"))
        await transport.aclose()
        assert 2 == len(ses_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].sent_messages) - before
    finally:
        server.stop()


# --- what comes back


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
    """By the same table as everywhere, and never repeated by botocore."""
    settings = dict(account)
    async with SimulatedSES(rate=-1, faults=Faults(settings.pop("script", ())), **settings) as ses:
        transport = transport_to(ses)
        with pytest.raises(error) as caught:
            await transport.send(request_for())
        await transport.aclose()
        assert not caught.value.maybe_sent
        assert caught.value.request_id
        assert 1 == ses.counts.requests
        assert "no-reply" not in f"{caught.value}{caught.value!r}"
        assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301 - our own bytes.


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
@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
async def test_whatever_settles_nothing_is_unknown_and_not_repeated(monkeypatch, fault, accepted, mode):
    """Whatever the environment says of retries: a repeated request would be a second mail."""
    monkeypatch.setenv("AWS_RETRY_MODE", mode)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    async with SimulatedSES(rate=-1, faults=Faults([fault])) as ses:
        transport = transport_to(ses)
        with pytest.raises(OutcomeUnknownError):
            await transport.send(request_for())
        assert 1 >= ses.counts.sends
        assert (await transport.send(request_for(1))).message_id
        await transport.aclose()
        assert accepted + 1 == len(ses.inbox)


async def test_no_answer_in_time_is_unknown():
    """As long as nothing tells."""
    async with SimulatedSES(rate=-1, faults=Faults(["silent"])) as ses:
        transport = transport_to(ses, read_timeout=0.05)
        with pytest.raises(OutcomeUnknownError) as caught:
            await transport.send(request_for())
        await transport.aclose()
        assert "TimeoutError" == caught.value.cause_type


async def test_nobody_there_is_certain():
    """There was no request."""
    transport = BotocoreTransport(region="us-east-1", endpoint_url="http://127.0.0.1:1")
    with pytest.raises(ConnectionFailedError, match=r"No connection to 127\.0\.0\.1: the connection was refused"):
        await transport.send(request_for())
    await transport.aclose()


async def test_what_goes_wrong_before_the_request_is_certain(monkeypatch, tmp_path):
    """A certificate that is not trusted, and one for another name."""
    authority, other = trustme.CA(), trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    cases = (other, "127.0.0.1", "is not trusted"), (authority, "other.example.com", "is for another name")
    for issuer, name, reason in cases:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(name).configure_cert(context)
        async with SimulatedSES(rate=-1, tls=context) as ses:
            transport = transport_to(ses)
            with pytest.raises(ConnectionFailedError, match=f"its certificate {reason}") as caught:
                await transport.send(request_for())
            await transport.aclose()
            assert (Scope.ACCOUNT, False) == (caught.value.scope, caught.value.retryable)
            assert 0 == len(ses.inbox)


@pytest.mark.parametrize(
    ("bundle", "sentence"),
    [("none.pem", r"cannot be loaded \(FileNotFoundError\)"), ("config", "be loaded"), (".", "names a directory")],
)
async def test_certificates_that_cannot_be_loaded_are_no_matter_of_the_network(monkeypatch, tmp_path, bundle, sentence):
    """And the same for every message."""
    (tmp_path / "config").touch()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / bundle))
    transport = BotocoreTransport(region="us-east-1", endpoint_url="https://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        await transport.send(request_for())
    await transport.aclose()
    assert Scope.ACCOUNT == caught.value.scope


async def test_tls_that_breaks_in_the_middle_is_unknown(monkeypatch, tmp_path):
    """The class of botocore's error is the same as for a handshake that fails; where it comes from is not."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with SimulatedSES(rate=-1, tls=context, faults=Faults(["reset-after", "close-after"])) as ses:
        transport = transport_to(ses)
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError):
                await transport.send(request_for())
        await transport.send(request_for())
        await transport.aclose()
        assert 3 == len(ses.inbox)


async def test_a_server_without_tls_behind_https_is_certain():
    """The handshake failed."""
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses, endpoint_url=ses.url.replace("http://", "https://"))
        with pytest.raises(ConnectionFailedError, match="TLS failed"):
            await transport.send(request_for())
        await transport.aclose()


async def test_through_a_proxy(monkeypatch, tmp_path):
    """As botocore does it; one that refuses says so, and that nothing was sent."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with SimulatedSES(rate=-1, tls=context) as ses:
        with TunnelProxy(username="tank", password="p@ss") as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://tank:p%40ss@{proxy.bare_url.removeprefix('http://')}")
            transport = transport_to(ses)
            await transport.send(request_for())
            await transport.aclose()
            monkeypatch.setenv("HTTPS_PROXY", proxy.bare_url)
            with pytest.raises(ConnectionFailedError, match="refused the tunnel with status 407") as caught:
                await transport.send(request_for())
            await transport.aclose()
            assert (Scope.ACCOUNT, False) == (caught.value.scope, caught.value.retryable)
            assert 1 == proxy.tunnels
        with pytest.raises(ConnectionFailedError, match="refused"):
            await transport.send(request_for())
        await transport.aclose()
        assert 1 == len(ses.inbox)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1 ", "http://127.0.0.1:port", "http://kim:\u00fc@127.0.0.1:1"])
async def test_a_proxy_that_is_none_is_certain(monkeypatch, proxy):
    """No message was on its way, and none will get there; the URL may hold a password."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    transport = BotocoreTransport(region="us-east-1", endpoint_url="https://email.invalid")
    with pytest.raises(ConfigurationError, match="_PROXY variables") as caught:
        await transport.send(request_for())
    await transport.aclose()
    assert (Scope.ACCOUNT, False) == (caught.value.scope, caught.value.maybe_sent)
    assert not [word for word in ("kim", "\u00fc", "127.") if word in str(caught.value)]


@pytest.mark.parametrize("rest", [b"", b'{"Mess'])
async def test_an_answer_that_breaks_off_is_unknown(rest):
    """Though the connection was lost outside of all that sends requests."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + rest)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = BotocoreTransport(region="us-east-1", endpoint_url=url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, answer)
            with pytest.raises(OutcomeUnknownError):
                await transport.send(request_for())
        await transport.aclose()


async def test_half_a_surrogate_never_leaves():
    """Bad data is found before anything is sent."""
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses)
        with pytest.raises(InvalidMessageError) as caught:
            await transport.send(request_for(text="\ud83d"))
        await transport.aclose()
        assert "content" == caught.value.field
        assert 0 == ses.counts.connections


async def test_what_botocore_refuses_is_not_told():
    """Its text quotes the parameters."""
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses)
        transport._extra = {"ConfigurationSetName": 7}
        with pytest.raises(InvalidMessageError, match="botocore refuses a parameter") as caught:
            await transport.send(request_for())
        transport._extra = {"NewThing": "kim@example.com", "NewerThing": 1}
        with pytest.raises(InvalidMessageError, match="does not know NewThing, NewerThing") as newer:
            await transport.send(request_for())
        await transport.aclose()
        assert "ParamValidationError" == caught.value.cause_type
        assert "kim" not in str(newer.value)


# --- the account and templates


async def test_the_account_is_asked():
    """Quotas and state as SES has them."""
    async with SimulatedSES(rate=50, daily_quota=1_000, sent_before=7) as ses:
        transport = transport_to(ses)
        account = await transport.account()
        await transport.aclose()
        assert account == Account(max_send_rate=50.0, max_24_hour_send=1_000.0, sent_last_24_hours=7.0)


async def test_asking_is_never_of_unknown_outcome():
    """It changes nothing, so it can simply be asked again; where it is not allowed the limiter has to know."""
    async with SimulatedSES(deny=["ses:GetAccount"]) as ses:
        transport = transport_to(ses)
        with pytest.raises(AccessDeniedError):
            await transport.account()
        await transport.aclose()
    transport = BotocoreTransport(client=client_for())
    with botocore.stub.Stubber(transport._given) as stub:
        stub.add_client_error("get_account", "InternalFailure", "no", http_status_code=500)
        with pytest.raises(ConnectionFailedError) as caught:
            await transport.account()
    assert (False, True) == (caught.value.maybe_sent, caught.value.retryable)


async def test_a_stored_template_is_fetched():
    """Once for each name; one that is not there is an error, and where it cannot be told it is None."""
    async with SimulatedSES(templates={"hi": {"Subject": "Hi {{name}}", "Text": "Dear {{name}}"}}) as ses:
        transport = transport_to(ses)
        assert isinstance(transport, TemplateSource)
        for _ in range(3):
            assert Template(subject="Hi {{name}}", text="Dear {{name}}") == await transport.template("hi")
        assert 1 == ses.counts.requests
        transport.forget_template("hi")
        await transport.template("hi")
        assert 2 == ses.counts.requests
        with pytest.raises(ConfigurationError, match="The template none does not exist"):
            await transport.template("none")
        ses.deny = ["ses:GetEmailTemplate"]
        assert await transport.template("other") is None
        await transport.aclose()


def test_an_answer_is_taken_for_the_call_it_belongs_to():
    """botocore may have asked another service for keys in the middle of it."""
    response = {"Error": {"Code": "AccessDenied", "Message": "no"}, "ResponseMetadata": {"RequestId": "12345678"}}
    error = named("ClientError", response=response, operation_name="SendEmail")
    answer = refusal_of(error, "SendEmail")
    assert (0, {"x-amzn-requestid": "12345678"}) == (answer.status, answer.headers)
    assert b'{"__type": "AccessDenied", "message": "no"}' == answer.body
    assert refusal_of(error, "GetAccount") is None
    assert refusal_of(ValueError("no"), "SendEmail") is None


async def test_it_has_the_same_name_as_the_native_transport():
    """So the two share quotas in one process."""
    native = SESTransport(region="us-east-1", credentials=KEYS)
    ours = BotocoreTransport(region="us-east-1")
    assert await native.account_key() == await ours.account_key()
    assert await ours.account_key() != await BotocoreTransport(region="us-west-2").account_key()
    await ours.aclose()


# --- settings and keys


async def test_settings_and_keys_of_a_profile(monkeypatch, tmp_path):
    """As botocore reads the files."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=KNOWN) as ses:
        (tmp_path / "config").write_text(f"[profile mail]\nregion = us-east-1\nendpoint_url = {ses.url}\n")
        keys = f"aws_access_key_id = {KEYS.access_key}\naws_secret_access_key = {KEYS.secret_key}\n"
        (tmp_path / "credentials").write_text(f"[mail]\n{keys}")
        transport = BotocoreTransport(profile="mail")
        assert "<BotocoreTransport region not yet known>" == repr(transport)
        await transport.send(request_for())
        await transport.aclose()
        session = botocore.session.Session(profile="mail")
        transport = BotocoreTransport(session=session)
        await transport.send(request_for())
        await transport.aclose()
        assert 2 == len(ses.inbox)


async def test_a_region_as_the_other_sdks_have_it(monkeypatch):
    """botocore does not read AWS_REGION; SESTransport does."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    async with SimulatedSES(rate=-1) as ses:
        transport = BotocoreTransport(endpoint_url=ses.url)
        await transport.send(request_for())
        await transport.aclose()


@pytest.mark.parametrize(
    ("options", "variables", "sentence"),
    [
        ({}, {}, "No AWS region is set"),
        ({"profile": "none"}, {}, "There is no profile 'none'"),
        ({"region": "us-east-1"}, {"AWS_ENDPOINT_URL": "http://mail.example.com"}, "no TLS"),
        ({"region": "us-east-1"}, {"AWS_DEFAULTS_MODE": "nonsense"}, "cannot work with these settings"),
    ],
)
async def test_settings_that_nothing_can_be_sent_with(monkeypatch, options, variables, sentence):
    """Found on first use, and about every message."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    transport = BotocoreTransport(**options)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=sentence) as caught:
            await transport.send(request_for())
        assert (Scope.ACCOUNT, False) == (caught.value.scope, caught.value.maybe_sent)
    await transport.aclose()


async def test_no_keys_is_an_error_that_says_what_to_do(monkeypatch):
    """And is about every message."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    transport = BotocoreTransport(region="us-east-1", endpoint_url="http://127.0.0.1:1")
    with pytest.raises(CredentialsError, match="There are no AWS credentials") as caught:
        await transport.send(request_for())
    await transport.aclose()
    assert Scope.ACCOUNT == caught.value.scope


async def test_keys_that_cannot_be_fetched_are_not_a_broken_request(monkeypatch, tmp_path):
    """What fails before the request is certain, also where the role's service is what cannot be reached."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    source = f"aws_access_key_id = {KEYS.access_key}\naws_secret_access_key = {KEYS.secret_key}\n"
    role = "role_arn = arn:aws:iam::123456789012:role/mail\nsource_profile = base\nregion = us-east-1\n"
    (tmp_path / "config").write_text(f"[profile base]\n{source}[profile mail]\n{role}")
    transport = BotocoreTransport(profile="mail", endpoint_url="http://127.0.0.1:1")
    with pytest.raises(CredentialsError, match="could not be reached") as caught:
        await transport.send(request_for())
    await transport.aclose()
    assert "123456789012" not in str(caught.value)


OLD, NEW = Credentials("ASIAOLD", "old", "token-1"), Credentials("ASIANEW", "new", "token-2")


@pytest.fixture
async def expired():
    """A server for which one set of keys has expired, and another has not."""
    known = {
        OLD.access_key: Credential(OLD.secret_key, token=OLD.token, expires_at=0.0),
        NEW.access_key: Credential(NEW.secret_key, token=NEW.token),
    }
    async with SimulatedSES(rate=-1, verify_signatures=True, credentials=known) as ses:
        yield ses


def set_keys(monkeypatch, keys: Credentials) -> None:
    """As somebody does who writes new ones where the program finds them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", keys.token)


async def test_keys_that_expire_are_replaced_within_one_send(monkeypatch, expired):
    """AWS has refused the request, so sending it again is safe; keys are looked for anew, once for all who ask."""
    set_keys(monkeypatch, OLD)
    transport = transport_to(expired)
    await transport.account_key()
    set_keys(monkeypatch, NEW)
    opened = []
    monkeypatch.setattr(transport, "_open", lambda: opened.append(1) or BotocoreTransport._open(transport))
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(transport.send, request_for(number))
    await transport.aclose()
    assert 5 == len(expired.inbox)
    assert [1] == opened


async def test_keys_that_expire_and_have_no_successors_are_an_error(monkeypatch, expired):
    """After one request; with a client of the caller's too, which has fixed ones."""
    set_keys(monkeypatch, OLD)
    for options in ({"region": expired.region, "endpoint_url": expired.url}, {"client": client_for(expired)}):
        requests = expired.counts.requests
        transport = BotocoreTransport(**options)
        with pytest.raises(CredentialsError, match="expired"):
            await transport.send(request_for())
        await transport.aclose()
        assert requests + 1 == expired.counts.requests


@pytest.mark.parametrize("given", ["session", "client"])
async def test_keys_of_a_given_session_that_expire_are_refreshed(expired, given):
    """Although they look good here: AWS's clock counts."""
    end = "2999-01-01T00:00:00Z"
    renewed = {"access_key": NEW.access_key, "secret_key": NEW.secret_key, "token": NEW.token, "expiry_time": end}
    session = botocore.session.Session()
    session._credentials = RefreshableCredentials(
        OLD.access_key, OLD.secret_key, OLD.token, parse(end), lambda: renewed, "test"
    )
    if given == "client":
        place = {"region_name": expired.region, "endpoint_url": expired.url}
        client = session.create_client("sesv2", config=NO_RETRIES, **place)
        transport = BotocoreTransport(client=client)
    else:
        transport = transport_to(expired, session=session)
    await transport.send(request_for())
    await transport.aclose()
    assert 1 == len(expired.inbox)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"region": "nowhere!"}, SettingError, "region"),
        ({"endpoint_url": "http://mail.example.com"}, SettingError, "no TLS"),
        ({"profile": "a", "session": object()}, SettingError, "not both"),
        ({"session": object()}, TypeError, "session"),
        ({"client": object()}, TypeError, "botocore or boto3 client"),
        ({"connect_timeout": 0}, SettingError, "connect_timeout"),
        ({"read_timeout": -1}, SettingError, "read_timeout"),
        ({"max_connections": 0}, SettingError, "at least 1"),
    ],
)
def test_arguments_that_cannot_be_used(options, error, sentence):
    """Said at once."""
    with pytest.raises(error, match=sentence):
        BotocoreTransport(**options)


# --- a client of the caller's own


async def test_a_given_client_is_used_and_left_open():
    """In as many threads as it keeps connections."""
    async with SimulatedSES(rate=-1) as ses:
        client = client_for(ses, NO_RETRIES.merge(Config(max_pool_connections=2)))
        transport = BotocoreTransport(client=client)
        assert (2, 1) == (transport._connections, BotocoreTransport(client=client, max_connections=1)._connections)
        await transport.send(request_for())
        await transport.aclose()
        await transport.send(request_for())
        assert 1 == ses.counts.connections
        client.close()


@pytest.mark.parametrize("retries", [None, {"mode": "standard"}, {"max_attempts": 1}, {"total_max_attempts": 2}])
def test_a_given_client_that_repeats_requests_is_refused(retries):
    """It would send mail twice, and the error says what to do."""
    with pytest.raises(SettingError, match=r'retries=\{"total_max_attempts": 1\}'):
        BotocoreTransport(client=client_for(config=Config(retries=retries)))


def test_a_given_client_has_its_own_settings():
    """So others beside it are a mistake, and so is a client for another service."""
    assert BotocoreTransport(client=client_for(config=Config(retries={"max_attempts": 0})))
    with pytest.raises(SettingError, match="Give either client or"):
        BotocoreTransport(client=client_for(), region="us-east-1")
    plain = {"region_name": "us-east-1", "endpoint_url": "http://mail.example.com", "config": NO_RETRIES}
    with pytest.raises(SettingError, match="no TLS"):
        BotocoreTransport(client=botocore.session.Session().create_client("sesv2", **plain))
    with pytest.raises(SettingError, match="sesv2, not for sts"):
        BotocoreTransport(client=client_for(service="sts"))

    class Asynchronous:
        meta = client_for().meta

        async def _make_api_call(self):
            """As aiobotocore's."""

    with pytest.raises(TypeError, match="botocore or boto3 client, not Asynchronous"):
        BotocoreTransport(client=Asynchronous())


async def test_a_client_whose_keys_cannot_be_seen_is_used_all_the_same():
    """botocore finds them in the middle of the call then."""
    async with SimulatedSES(rate=-1) as ses:
        client = client_for(ses)
        transport = BotocoreTransport(client=client)
        transport._client = transport._open()
        transport._client.keys = None
        await transport.send(request_for())
        assert await transport.account_key()
        client.close()


# --- global endpoints


async def test_a_global_endpoint_is_signed_with_sigv4a(needs):
    """With keys for every region, and the endpoint's id not in the body."""
    needs("awscrt")
    if not knows("EndpointId", "SendEmailRequest"):
        pytest.skip("this botocore is older than global endpoints")
    seen = []
    async with SimulatedSES(rate=-1) as ses:
        client = client_for(ses)
        client.meta.events.register("before-send.sesv2", lambda request, **_: seen.append(request))
        transport = BotocoreTransport(client=client, endpoint_id="abcdef12.g3h")
        receipt = await transport.send(request_for())
        assert receipt.message_id == ses.inbox[0].message_id
        client.close()
    (request,) = seen
    assert request.headers["Authorization"].startswith(b"AWS4-ECDSA-P256-SHA256 ")
    assert request.headers["X-Amz-Region-Set"] == b"*"
    seen.clear()

    def answer(request, **_):
        seen.append(request.url)
        raise RuntimeError

    client = client_for()
    client.meta.events.register("before-send.sesv2", answer)
    transport = BotocoreTransport(client=client, endpoint_id="abcdef12.g3h")
    with pytest.raises(OutcomeUnknownError, match="cannot be read"):
        await transport.send(request_for())
    assert ["https://abcdef12.g3h.endpoints.email.amazonaws.com/v2/email/outbound-emails"] == seen


async def test_a_global_endpoint_without_the_runtime(monkeypatch):
    """The error says what to install, at once."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingError, match=r"pip install 'botocore\[crt\]'"):
        BotocoreTransport(region="us-east-1", endpoint_id="abcdef12.g3h")


# --- botocore's errors, one by one


def named(name: str, base: type[Exception] = Exception, **fields) -> Exception:
    """An error of that class name, as botocore's are told apart."""
    error = type(name, (base,), {})("kim@example.com")
    for key, value in fields.items():
        setattr(error, key, value)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (named("NoCredentialsError"), CredentialsError),
        (named("UnauthorizedSSOTokenError"), CredentialsError),
        (named("LoginRefreshRequired"), CredentialsError),
        (named("EndpointResolutionError"), ConfigurationError),
        (named("ConnectTimeoutError"), ConnectionFailedError),
        (named("EndpointConnectionError"), ConnectionFailedError),
        (named("ReadTimeoutError"), OutcomeUnknownError),
        (named("ConnectionClosedError"), OutcomeUnknownError),
        (named("ProxyConnectionError"), OutcomeUnknownError),
        (named("SSLError"), OutcomeUnknownError),
        (named("HTTPClientError"), OutcomeUnknownError),
        (ValueError("kim@example.com"), OutcomeUnknownError),
        (named("ClientError", response={"Error": {}}, operation_name="AssumeRole"), CredentialsError),
    ],
)
def test_what_cannot_be_told_is_unknown(error, kind):
    """Only what is certain is called so, and no text is repeated."""
    found = translate(error, to="email.example.com")
    assert type(found) is kind
    assert "kim" not in f"{found}{found!r}"
    assert found.maybe_sent is (kind is OutcomeUnknownError)


def test_proxies_that_cannot_be_configured_are_no_broken_request():
    """botocore raises it as any error of its HTTP client."""
    error = named("HTTPClientError")
    error.__context__ = named("InvalidProxiesConfigError")
    assert isinstance(translate(error, to="SES"), ConfigurationError)


def test_the_runtime_that_is_missing_later_is_named():
    """Where a client was given whose settings ask for SigV4A."""
    error = unusable(named("MissingDependencyException"))
    assert "botocore[crt]" in str(error)
    assert Category.CONFIGURATION is error.category


def test_the_parameters_of_a_call():
    """Bytes where SES's JSON has base64, and nothing else changed."""
    assert {"Content": {"Raw": {"Data": b"mail"}}} == call_parameters(b'{"Content":{"Raw":{"Data":"bWFpbA=="}}}')
    attached = b'{"Attachments":[{"RawContent":"bWFpbA==","FileName":"bWFpbA=="}]}'
    expected = {"Attachments": [{"RawContent": b"mail", "FileName": "bWFpbA=="}]}
    for place, kind in (("Content", "Simple"), ("Content", "Template"), ("DefaultContent", "Template")):
        assert {place: {kind: expected}} == call_parameters(
            b'{"%b":{"%b":%b}}' % (place.encode(), kind.encode(), attached)
        )


# --- loops, threads, forks


async def test_closing_does_not_cut_off_a_request():
    """Who is last closes the client."""
    async with SimulatedSES(rate=-1, faults=Faults(["slow"]), slow_step=0.0) as ses:
        transport = transport_to(ses)
        entered, go_on = threading.Event(), threading.Event()
        closed = []

        def work(client):
            client.calls.close = lambda: closed.append(client)
            entered.set()
            go_on.wait(60)
            return "done"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport._run, work)
            await anyio.to_thread.run_sync(entered.wait)
            await transport.aclose()
            assert [] == closed
            go_on.set()
        assert 1 == len(closed)
        await transport.send(request_for())
        await transport.aclose()


async def test_one_client_is_made_for_all(monkeypatch):
    """Making one takes long; who comes meanwhile waits for it."""
    made, opened = [], threading.Event()
    original = BotocoreTransport._make_client

    def make(self, session):
        made.append(session)
        opened.wait(60)
        return original(self, session)

    monkeypatch.setattr(BotocoreTransport, "_make_client", make)
    async with SimulatedSES(rate=-1) as ses:
        transport = transport_to(ses)
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(transport.send, request_for(number))
            await anyio.wait_all_tasks_blocked()
            opened.set()
        await transport.aclose()
        assert (1, 5) == (len(made), len(ses.inbox))


@pytest.mark.parametrize("given", [False, True])
def test_a_forked_child_has_connections_of_its_own(given):
    """And the parent's go on."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    with SimulatedSES(rate=-1) as ses:
        transport = BotocoreTransport(client=client_for(ses)) if given else transport_to(ses)
        anyio.run(transport.send, request_for(0))
        assert 1 == ses.counts.connections
        with warnings.catch_warnings():
            # From 3.12 on Python warns of forks beside threads, which is what this is for.
            warnings.simplefilter("ignore")
            child = os.fork()
        if not child:
            try:
                anyio.run(transport.send, request_for(1))
                os._exit(0)
            finally:
                os._exit(1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        anyio.run(transport.send, request_for(2))
        anyio.run(transport.aclose)
        if given:
            transport._given.close()
        assert (3, 2) == (len(ses.inbox), ses.counts.connections)
