from __future__ import annotations

import base64
import contextlib
import json
import smtplib
import socket
import ssl
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from smtp_server import Authority, hurry_after_content
from tanksend._addresses import Address
from tanksend._messages import Message
from tanksend._results import Status
from tanksend._sender import Sender
from tanksend.exceptions import OutcomeUnknownError
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import Credential, FakeClock, Faults, SimulatedSES, check_transport
from tanksend.testing._answers import Request
from tanksend.testing._simulator import SEND_PATH, Exchange
from tanksend.testing._smtp import Session
from tanksend.transports import Credentials, SMTPTransport, smtp_password
from tanksend.typing import SendRequest

KEYS = Credentials("AKIDEXAMPLE", "secret-key")
LOGIN = ("AKIDEXAMPLE", smtp_password("secret-key", "us-east-1"))
TOO_FAST = "Throttling failure: Maximum sending rate exceeded"
NOT_VERIFIED = "Message rejected: Email address is not verified. The following identities failed the check in region"
NO_FROM = b"To: kim@example.com\r\n\r\nHi\r\n"
KNOWN = {"AKIDEXAMPLE": Credential("secret-key"), "ASIAEXAMPLE": Credential("secret-key", token="token")}
MAIL = b"From: Tank <no-reply@example.com>\r\nTo: kim@example.com\r\nSubject: Hi\r\n\r\nHello\r\n"


@pytest.fixture(scope="module")
def authority():
    """A throwaway CA."""
    with Authority() as made:
        yield made


@pytest.fixture
def ses_of(authority):
    """Makes simulated SES that speak SMTP by STARTTLS and with TLS from the first byte."""
    started = []

    def make(**options):
        given = {"rate": -1, "tls": authority.context(), "smtp_port": 0, "smtps_port": 0, **options}
        ses = SimulatedSES(**given)
        ses.start()
        started.append(ses)
        return ses

    yield make
    for ses in started:
        ses.stop()


def transport_to(ses, authority, **options) -> SMTPTransport:
    """A transport with good keys."""
    return SMTPTransport(
        "127.0.0.1", ses.smtp_port, region=ses.region, credentials=KEYS, ca_bundle=authority.bundle, **options
    )


class Client(smtplib.SMTP):
    """Python's own client, logged in unless told otherwise."""

    def __init__(self, ses, authority, *, login=LOGIN):
        super().__init__("127.0.0.1", ses.smtp_port, local_hostname="localhost", timeout=60)
        self.starttls(context=ssl.create_default_context(cafile=authority.bundle))
        if login:
            self.login(*login)

    def mail(self, content=MAIL, sender="no-reply@example.com", to=("kim@example.com",)):
        """The last reply's code and text, whichever command it answers."""
        code, text = self.docmd("MAIL", f"FROM:<{sender}>")
        for address in to:
            code, text = (code, text) if code != 250 else self.docmd("RCPT", f"TO:<{address}>")
        if code == 250:
            code, text = self.docmd("DATA")
        if code == 354:
            self.send(content + b".\r\n")
            code, text = self.getreply()
        self.rset()
        return code, text.decode()


# --- with Python's own client


def test_a_mail_arrives_as_over_the_api(ses_of, authority):
    """In the same inbox, charged to the same quota, with its tags and its configuration set."""
    ses = ses_of(credentials=KNOWN)
    headers = b"X-SES-CONFIGURATION-SET: news\r\nX-SES-MESSAGE-TAGS: campaign=nov, kind=bulk\r\n"
    with Client(ses, authority) as client:
        code, text = client.mail(headers + MAIL + b"..a dot\r\n", to=["kim@example.com", "lee@example.com"])
    (item,) = ses.inbox
    assert (250, f"Ok {item.message_id}") == (code, text)
    assert ("news", {"campaign": "nov", "kind": "bulk"}) == (item.configuration_set, dict(item.tags))
    assert ("kim@example.com", "lee@example.com") == item.recipients
    assert (1, 2, "Hi") == (ses.counts.accepted, ses.counts.recipients, item.subject)
    raw = base64.b64decode(item.content["Content"]["Raw"]["Data"])
    assert raw.endswith(b"Hello\r\n.a dot\r\n")


def test_tls_from_the_first_byte(ses_of, authority):
    """On its own port."""
    ses = ses_of(credentials=KNOWN)
    context = ssl.create_default_context(cafile=authority.bundle)
    with smtplib.SMTP_SSL(
        "127.0.0.1", ses.smtps_port, context=context, timeout=60, local_hostname="localhost"
    ) as client:
        client.login("AKIDEXAMPLE", smtp_password("secret-key", "us-east-1"))
        client.sendmail("no-reply@example.com", ["kim@example.com"], MAIL)
    assert 1 == len(ses.inbox)


def test_smtps_needs_a_certificate():
    """It is said before anything listens."""
    with pytest.raises(ValueError, match="smtps_port"):
        SimulatedSES(smtps_port=0).start()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_who_may_log_in(ses_of, authority, mechanism):
    """An access key and the password made of its secret for this region, by either mechanism; no session's keys."""
    ses = ses_of(credentials=KNOWN)
    good = smtp_password("secret-key", "us-east-1")
    for username, password, expected in (
        ("AKIDEXAMPLE", good, 235),
        ("AKIDEXAMPLE", smtp_password("secret-key", "eu-west-1"), 535),
        ("AKIDEXAMPLE", "secret-key", 535),
        ("ASIAEXAMPLE", good, 535),
        ("AKIDOTHER", good, 535),
    ):
        with Client(ses, authority, login=None) as client:
            client.ehlo()
            client.user, client.password = username, password
            try:
                code, _ = client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
            except smtplib.SMTPAuthenticationError as error:
                code = error.smtp_code
            assert expected == code, username
    assert (4, 4) == (ses.counts.bad_signatures, ses.counts.by_code["535"])


def test_without_known_keys_anybody_may(ses_of, authority):
    """As over HTTP, where signatures are not looked at unless keys are known."""
    ses = ses_of()
    with Client(ses, authority, login=("anybody", "anything")) as client:
        assert 250 == client.mail()[0]


def test_signatures_are_for_http_alone(ses_of, authority):
    """With signatures verified there, a login is enough here."""
    ses = ses_of(credentials=KNOWN, verify_signatures=True)
    with Client(ses, authority) as client:
        assert 250 == client.mail()[0]


@pytest.mark.parametrize(
    ("options", "mail", "expected"),
    [
        ({"rate": 1}, {"to": ["a@example.com", "b@example.com"]}, f"454 {TOO_FAST}"),
        ({"daily_quota": 0}, {}, "454 Throttling failure: Daily message quota exceeded"),
        ({"identities": ["other.com"]}, {}, f"554 {NOT_VERIFIED} US-EAST-1: no-reply@example.com"),
        ({"identities": ["example.com"]}, {"sender": "b@other.com"}, f"554 {NOT_VERIFIED} US-EAST-1: b@other.com"),
        ({"enforcement": "SHUTDOWN"}, {}, "554 Message rejected: Sending paused for this account."),
        ({"sending_enabled": False}, {}, "554 Message rejected: Account sending is disabled."),
        ({"deny": ["ses:SendRawEmail"]}, {}, "554 Access denied: User"),
        (
            {"configuration_sets": []},
            {"content": b"X-SES-CONFIGURATION-SET: news\r\n" + MAIL},
            "554 Configuration set <news> does not exist.",
        ),
        ({}, {"content": NO_FROM}, "554 Transaction failed: Missing required header 'From'."),
        ({}, {"sender": ""}, "501 Invalid MAIL FROM address provided"),
        ({}, {"sender": "nobody"}, "501 Invalid MAIL FROM address provided"),
        ({}, {"to": ["nobody"]}, "553 <nobody> Invalid email address"),
        ({"faults": Faults(["500"])}, {}, "451 Temporary service failure"),
        ({"faults": Faults(["503"])}, {}, "454 Temporary service failure"),
        ({"faults": Faults(["throttle"])}, {}, f"454 {TOO_FAST}"),
        ({"faults": Faults(["no-id"])}, {}, "250 Ok"),
    ],
)  # fmt: skip
def test_refusals_in_the_words_of_ses(ses_of, authority, options, mail, expected):
    """What SES says over SMTP, for each of its reasons."""
    ses = ses_of(credentials=KNOWN, **options)
    with Client(ses, authority) as client:
        code, text = client.mail(**mail)
    assert f"{code} {text}".startswith(expected)


def test_a_mail_that_is_too_long(ses_of, authority, monkeypatch):
    """Beyond the limit, here 4 MB, the account says so, and far beyond it the mail is not even kept."""
    monkeypatch.setattr("tanksend.testing._submission.MAX_BYTES", 4_000_000)
    monkeypatch.setattr("tanksend.testing._smtp._MUCH_TOO_LONG", 5_000_000)
    ses = ses_of(credentials=KNOWN)
    line = b"a" * 990 + b"\r\n"
    with Client(ses, authority) as client:
        assert (552, "Message is too long.") == client.mail(MAIL + line * 4_200)
        assert (552, "Message is too long.") == client.mail(MAIL + line * 5_200)
        assert 250 == client.mail()[0]
    assert 1 == len(ses.inbox)


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        ("reset-before", 0),
        ("close-before", 0),
        ("503-bare", 0),
        ("reset-after", 1),
        ("close-after", 1),
        ("500-accepted", 1),
        ("503-bare-accepted", 1),
    ],
)
def test_faults_that_end_the_connection(ses_of, authority, fault, accepted):
    """Before, nothing was taken; after, it was, and nobody says so."""
    ses = ses_of(credentials=KNOWN, faults=Faults([fault]))
    with pytest.raises(smtplib.SMTPServerDisconnected), Client(ses, authority) as client:
        client.mail()
    assert (accepted, 1) == (ses.counts.accepted, sum(ses.counts.faults.values()))


def test_a_slow_reply_and_one_that_is_none(ses_of, authority):
    """The first comes byte by byte; the second cannot be read."""
    ses = ses_of(credentials=KNOWN, faults=Faults(["slow", "garbage"]), slow_step=0.0001)
    with Client(ses, authority) as client:
        slow = client.mail()
        assert (250, f"Ok {ses.inbox[0].message_id}") == slow
        assert -1 == client.mail()[0]
    assert 2 == len(ses.inbox)


def test_commands_out_of_order(ses_of, authority):
    """Nothing before TLS and the login; and the usual order after it."""
    ses = ses_of(credentials=KNOWN)
    with smtplib.SMTP("127.0.0.1", ses.smtp_port, local_hostname="localhost", timeout=60) as client:
        assert 250 == client.helo()[0]
        assert 250 == client.ehlo()[0]
        assert not client.has_extn("auth")
        assert 530 == client.docmd("AUTH", "PLAIN")[0]
        assert 530 == client.docmd("MAIL", "FROM:<no-reply@example.com>")[0]
        client.starttls(context=ssl.create_default_context(cafile=authority.bundle))
        assert 503 == client.docmd("AUTH", "PLAIN")[0]
        client.ehlo()
        assert 530 == client.docmd("MAIL", "FROM:<no-reply@example.com>")[0]
        assert 502 == client.docmd("STARTTLS")[0]
        assert 504 == client.docmd("AUTH", "CRAM-MD5")[0]
        assert 334 == client.docmd("AUTH", "PLAIN")[0]
        assert 501 == client.docmd("!!!")[0]
        client.login("AKIDEXAMPLE", smtp_password("secret-key", "us-east-1"))
        assert 503 == client.docmd("AUTH", "PLAIN")[0]
        assert 503 == client.docmd("RCPT", "TO:<kim@example.com>")[0]
        assert 503 == client.docmd("DATA")[0]
        assert 501 == client.docmd("MAIL", "TO:<kim@example.com>")[0]
        assert 250 == client.docmd("MAIL", "FROM:<no-reply@example.com>")[0]
        assert 503 == client.docmd("MAIL", "FROM:<no-reply@example.com>")[0]
        assert 501 == client.docmd("RCPT", "TO:kim@example.com")[0]
        assert 502 == client.docmd("VRFY", "kim")[0]
        assert 502 == client.docmd("_do_data")[0]
        assert 250 == client.noop()[0]
        assert 250 == client.rset()[0]
        client.send(b"a" * 20_000)
        assert 500 == client.getreply()[0]


def test_without_a_certificate_nobody_gets_in():
    """STARTTLS is not offered, and there is nothing else."""
    with (
        SimulatedSES(smtp_port=0) as ses,
        smtplib.SMTP("127.0.0.1", ses.smtp_port, local_hostname="localhost", timeout=60) as client,
    ):
        client.ehlo()
        assert not client.has_extn("starttls")
        assert 502 == client.docmd("STARTTLS")[0]
        assert 530 == client.docmd("MAIL", "FROM:<no-reply@example.com>")[0]


def test_an_idle_connection_is_told_and_closed(ses_of):
    """As SES does it."""
    ses = ses_of(idle_timeout=0.05)
    with socket.create_connection(("127.0.0.1", ses.smtp_port), timeout=60) as client, client.makefile("rb") as lines:
        assert [b"220", b"451"] == [line[:3] for line in lines]


def test_a_client_that_does_not_trust_us(ses_of):
    """Its connection ends, and the server goes on."""
    ses = ses_of()
    for _ in range(2):
        with smtplib.SMTP("127.0.0.1", ses.smtp_port, local_hostname="localhost", timeout=60) as client:
            with pytest.raises(ssl.SSLError):
                client.starttls(context=ssl.create_default_context())
            client.close()


def test_the_server_ends_with_connections_open(ses_of, authority):
    """Also one in the middle of its handshake; whoever is there sees an end."""
    ses = ses_of()
    with socket.create_connection(("127.0.0.1", ses.smtp_port), timeout=60) as client, client.makefile("rb") as lines:
        lines.readline()
        client.sendall(b"EHLO localhost\r\nSTARTTLS\r\n")
        while not lines.readline().startswith(b"220"):
            pass
        other = Client(ses, authority, login=None)
        ses.stop()
        with contextlib.suppress(ConnectionResetError):
            assert not client.recv(1)
        other.close()


# --- the session by itself


class Taker:
    """An account that takes everything."""

    def __init__(self):
        self.taken: list[Request] = []

    def log_in(self, username, password):
        return True

    def draw_fault(self, method, path):
        return None

    def cut(self, fault):
        raise AssertionError

    def exchange(self, request, fault=None):
        self.taken.append(request)
        return Exchange(None, "silent")


@given(lines=st.lists(st.sampled_from([b"", b".", b"..", b"a", b".b", b"Subject: x", b"\r", b"a\nb"])), data=st.data())
def test_a_mail_comes_through_in_any_pieces(lines, data):
    """Whatever is in it and however it is cut, it is what was sent, and what follows it is the next command."""
    mail = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    commands = b"EHLO x\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n"
    stream = commands + stuffed + b".\r\nNOOP\r\n"
    account = Taker()
    session = Session(account, secured=True, can_secure=True)
    replies = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        piece, stream = stream[:size], stream[size:]
        while True:
            steps = list(session.feed(piece))
            replies += [step.reply[:3] for step in steps]
            piece = b""
            if not steps or steps[-1].then == "go on":
                break
    (request,) = account.taken
    assert (SEND_PATH, mail) == (request.path, base64.b64decode(_raw(request)))
    assert [b"250", b"235", b"250", b"250", b"354", b"", b"250"] == replies


def _raw(request):
    return json.loads(request.body)["Content"]["Raw"]["Data"]


# --- with the transport


@pytest.mark.anyio
async def test_the_transport_keeps_its_contract_here(ses_of, authority):
    """The library's own check against the library's own SES."""
    ses = ses_of(credentials=KNOWN)
    refusing = ses_of(credentials=KNOWN, identities=["other.com"])
    await check_transport(lambda: transport_to(ses, authority), broken=lambda: transport_to(refusing, authority))


@pytest.mark.anyio
async def test_with_latency_and_connections_that_are_closed(ses_of, authority):
    """Closed after every third mail, without a word: nobody notices."""
    ses = ses_of(credentials=KNOWN, latency=0.001, close_after_requests=3)
    transport = transport_to(ses, authority)
    for number in range(10):
        await transport.send(_request(number))
    await transport.aclose()
    assert (10, 4, {}) == (len(ses.inbox), ses.counts.connections, ses.doubled())


@pytest.mark.anyio
async def test_each_message_has_its_true_fate(ses_of, authority):
    """150 messages with every fault there is, through a Sender: none twice, none lost, none with a wrong fate."""
    chances = dict.fromkeys(
        ("reset-before", "close-before", "500", "503", "503-bare", "throttle", "reset-after", "close-after", "no-id",
         "garbage", "slow", "500-accepted"), 0.03,
    )  # fmt: skip
    ses = ses_of(credentials=KNOWN, faults=Faults(probability=chances, seed=3), slow_step=0.0001)
    fates: dict[str, Status] = {}
    messages = [
        Message(f"kim{number}@example.com", "Hi", text="Hello", tags={"number": str(number)}) for number in range(150)
    ]
    transport = transport_to(ses, authority)
    async with Sender(
        from_="no-reply@example.com",
        transport=transport,
        limiter=TokenBucketLimiter(float("inf")),
        clock=FakeClock(),
        max_parallel=8,
    ) as sender:
        await sender.send_all(
            messages, on_result=lambda result: fates.__setitem__(result.message.tags["number"], result.status)
        )
    await transport.aclose()
    arrived = Counter(item.tags["number"] for item in ses.inbox)
    assert 150 == len(fates)
    assert {1} == set(arrived.values())
    assert {number for number, status in fates.items() if status in (Status.SENT, Status.UNKNOWN)} == set(arrived)
    lost = {"reset-after", "close-after", "no-id", "garbage"}
    assert sum(ses.counts.faults[name] for name in lost) == sum(status is Status.UNKNOWN for status in fates.values())


def _request(number):
    message = Message(f"kim{number}@example.com", f"Hi {number}", text="Hello")
    return SendRequest(message, Address.parse("no-reply@example.com"), message.to)


@pytest.mark.anyio
async def test_the_wait_for_a_silent_server_ends(ses_of, authority, monkeypatch):
    """Silence, accepted or not: unknown either way."""
    ses = ses_of(credentials=KNOWN, faults=Faults(["silent", "silent-before"]))
    hurry_after_content(monkeypatch)
    transport = transport_to(ses, authority)
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match="nothing came within"):
            await transport.send(_request(1))
    await transport.aclose()
    assert 1 == ses.counts.accepted
