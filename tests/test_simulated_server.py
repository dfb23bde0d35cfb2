from __future__ import annotations

import errno
import gc
import json
import select
import socket
import ssl
import threading

import anyio
import botocore.session
import pytest
import trustme
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from tanksend.testing import Credential, Faults, SimulatedSES

BODY = json.dumps(
    {
        "FromEmailAddress": "no-reply@yokee.co.id",
        "Destination": {"ToAddresses": ["anna@example.com"]},
        "Content": {"Simple": {"Subject": {"Data": "Hi"}, "Body": {"Text": {"Data": "Hello"}}}},
    }
).encode()


def head(length, *more, path="/v2/email/outbound-emails", method="POST"):
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


SEND = head(len(BODY)) + BODY


class Client:
    """A plain socket that speaks to the simulator."""

    def __init__(self, ses, context=None):
        self.socket = socket.create_connection((ses.host, ses.port), timeout=60)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.socket.close()

    def write(self, data=SEND):
        self.socket.sendall(data)

    def read(self):
        """Status and body of the next answer; None at the end of the connection."""
        line = self.file.readline()
        if not line:
            return None
        status, length = int(line.split()[1]), 0
        while header := self.file.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, self.file.read(length)

    def ask(self, data=SEND):
        self.write(data)
        return self.read()


def client_of(ses, read_timeout=30):
    """AWS's own client, without its retries."""
    session = botocore.session.Session()
    return session.create_client(
        "sesv2",
        region_name="us-east-1",
        endpoint_url=ses.url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout),
    )


def mail(client, to="anna@example.com"):
    """Send one message through botocore."""
    return client.send_email(
        FromEmailAddress="Tank <no-reply@yokee.co.id>",
        Destination={"ToAddresses": [to]},
        Content={"Simple": {"Subject": {"Data": "Hi"}, "Body": {"Text": {"Data": "Hello"}}}},
    )


def test_botocore_sends_and_reads_the_account():
    """AWS's own client, its signatures verified, gets what it expects of SES."""
    with SimulatedSES(rate=50, verify_signatures=True, credentials={"AKID": Credential("secret")}) as ses:
        client = client_of(ses)
        assert mail(client)["MessageId"] == ses.inbox[0].message_id
        assert client.get_account()["SendQuota"]["MaxSendRate"] == 50.0
        client.put_suppressed_destination(EmailAddress="a+b@example.com", Reason="BOUNCE")
        entry = client.get_suppressed_destination(EmailAddress="a+b@example.com")["SuppressedDestination"]
        assert entry["Reason"] == "BOUNCE"
        listed = client.list_suppressed_destinations(Reasons=["BOUNCE"], PageSize=10)
        assert len(listed["SuppressedDestinationSummaries"]) == 1
        client.delete_suppressed_destination(EmailAddress="a+b@example.com")
        assert client.get_email_identity(EmailIdentity="yokee.co.id")["VerificationStatus"] == "SUCCESS"
        assert ses.counts.bad_signatures == 0


def test_botocore_gets_its_typed_exceptions():
    """What is refused arrives as the exception that SES's model declares."""
    with SimulatedSES(rate=0, identities=["yokee.co.id"]) as ses:
        client = client_of(ses)
        with pytest.raises(client.exceptions.TooManyRequestsException, match="Maximum sending rate exceeded"):
            mail(client)
        ses.rate = -1
        with pytest.raises(client.exceptions.BadRequestException, match="Missing final '@domain'"):
            mail(client, "anna")
        ses.identities = ["other.com"]
        with pytest.raises(client.exceptions.MessageRejected, match=r"region US-EAST-1: no-reply@yokee\.co\.id"):
            mail(client)
        with pytest.raises(client.exceptions.NotFoundException):
            client.get_email_identity(EmailIdentity="example.com")
        ses.deny.add("ses:SendEmail")
        with pytest.raises(ClientError, match="not authorized to perform: ses:SendEmail"):
            mail(client)


def test_botocore_under_faults():
    """Each fault looks to AWS's client as it would from AWS."""
    with SimulatedSES(rate=-1) as ses:
        client, hasty = client_of(ses), client_of(ses, read_timeout=0.05)

        def under(fault, client=client):
            ses.faults = Faults([fault])
            return mail(client)

        for fault in ("reset-before", "close-before", "reset-after", "close-after"):
            with pytest.raises(ConnectionClosedError):
                under(fault)
        for fault in ("silent-before", "silent"):
            with pytest.raises(ReadTimeoutError):
                under(fault, hasty)
        for fault in ("500", "503", "503-bare", "500-accepted", "503-bare-accepted"):
            with pytest.raises(ClientError):
                under(fault)
        assert "MessageId" not in under("no-id")
        assert len(ses.inbox) == 6
        assert ses.counts.faults.total() == 12


def test_a_reset_and_a_clean_close_differ():
    """RST is an error of the socket, FIN an end of the stream."""
    with SimulatedSES(faults=Faults(["reset-before", "close-before", "reset-after", "close-after"])) as ses:
        for fault in ("reset", "close", "reset", "close"):
            with Client(ses) as client:
                client.write()
                if fault == "reset":
                    with pytest.raises(ConnectionResetError):
                        client.read()
                else:
                    assert client.read() is None
        assert [record.accepted for record in ses.fault_log] == [False, False, True, True]


def test_a_long_body_is_reset_while_it_is_written():
    """Nobody waits for the rest of a long body that is to be cut off."""
    with SimulatedSES(faults=Faults(["reset-before"])) as ses, Client(ses) as client:
        client.write(head(50_000_000))
        with pytest.raises(ConnectionError):
            client.write(b"x" * 50_000_000)
        assert (ses.counts.sends, ses.counts.requests, ses.counts.faults) == (1, 0, {"reset-before": 1})


def test_a_slow_answer_arrives_whole():
    """It comes byte by byte, and the connection goes on afterwards."""
    with SimulatedSES(faults=Faults(["slow"]), slow_step=0.0) as ses, Client(ses) as client:
        for _ in range(2):
            status, body = client.ask()
            assert (status, json.loads(body)["MessageId"]) == (200, ses.inbox[-1].message_id)


def test_requests_in_pieces_and_several_at_once():
    """Bytes may come one by one, and the next request before the answer, also while an answer is delayed."""
    with SimulatedSES(latency=(0.002, 0.001)) as ses, Client(ses) as client:
        for position in range(len(SEND)):
            client.write(SEND[position : position + 1])
        assert client.read()[0] == 200
        client.write(SEND * 3)
        assert [client.read()[0] for _ in range(3)] == [200] * 3
        assert (ses.counts.connections, ses.counts.accepted) == (1, 4)


def test_chunked_bodies_and_continue():
    """What other HTTP clients do is understood too."""
    chunked = b"POST /v2/email/outbound-emails HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    with SimulatedSES() as ses, Client(ses) as client:
        assert client.ask(chunked)[0] == 200
        assert client.ask(head(len(BODY), "Expect: 100-continue")) == (100, b"")
        assert client.ask(BODY)[0] == 200


def test_what_is_no_http_is_refused():
    """A 400, and the connection is over."""
    with SimulatedSES() as ses, Client(ses) as client:
        assert client.ask(b"nonsense\r\n\r\n")[0] == 400
        assert client.read() is None


def test_connections_are_closed_without_a_word():
    """After so many answers, when idle, and when the client says that it is done."""
    with SimulatedSES(close_after_requests=2) as ses:
        with Client(ses) as client:
            assert [client.ask()[0], client.ask()[0], client.read()] == [200, 200, None]
        ses.close_after_requests = None
        with Client(ses) as client:
            assert client.ask(head(len(BODY), "Connection: close") + BODY)[0] == 200
            assert client.read() is None
        with Client(ses) as client:
            assert client.ask()[0] == 200
            ses.idle_timeout = 0.01  # Not before: it counts from the beginning, and from each answer.
            assert client.ask()[0] == 200
            assert client.read() is None


def test_tls(tmp_path):
    """It speaks TLS with a context, or with the paths of certificate and key."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    files = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    files[0].write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    files[1].write_bytes(certificate.private_key_pem.bytes())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    for tls in (server, tuple(files)):
        with SimulatedSES(tls=tls, faults=Faults([None, "close-after", "reset-after"])) as ses:
            assert ses.url.startswith("https://")
            with Client(ses, trusting) as client:
                assert client.ask()[0] == 200
                assert client.ask() is None
            with Client(ses, trusting) as client:
                client.write()
                # Python's ssl module would call it an end of the stream, and its tickets make the socket readable.
                watch = select.poll()
                watch.register(client.socket, 0)
                assert watch.poll(60_000)[0][1] & select.POLLERR
                assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
            with Client(ses, trusting):  # Left open: the server ends all the same.
                ses.stop()


def test_stopping_closes_everything_at_once():
    """Open, silent and half-written connections do not hold it up, and nothing is left behind."""
    threads = set(threading.enumerate())
    with SimulatedSES(faults=Faults(["silent"])) as ses, Client(ses) as idle, Client(ses) as silent:
        silent.write()
        idle.write(SEND[:40])
        with Client(ses) as client:
            client.ask()
        ses.stop()
        ses.stop()
        with pytest.raises(ConnectionRefusedError):
            Client(ses)
    gc.collect()
    assert set(threading.enumerate()) <= threads


def test_a_port_that_is_taken():
    """The error comes out of start, and it can be started elsewhere."""
    with SimulatedSES() as ses:
        other = SimulatedSES(port=ses.port)
        with pytest.raises(OSError, match="address already in use"):
            other.start()
        other.port = 0
        with other:
            other.start()
            assert other.port != ses.port


def test_figures_over_http():
    """Programs in other languages can ask what came."""
    with SimulatedSES(rate=-1) as ses, Client(ses) as client:
        client.ask()
        ses.rate = 0
        client.ask()
        ses.rate = -1
        client.ask()
        status, body = client.ask(head(0, path="/_simulator", method="GET"))
        figures = json.loads(body)
        assert (status, figures["accepted"], figures["throttled"], figures["doubled"]) == (200, 2, 1, 1)
        assert (figures["busiest_second"], ses.counts.requests) == (ses.inbox.busiest(), 3)


@pytest.mark.anyio
async def test_as_an_async_context_manager():
    """It also goes with async with."""
    async with SimulatedSES() as ses:
        stream = await anyio.connect_tcp(ses.host, ses.port)
        async with stream:
            await stream.send(SEND)
            assert b"200 OK" in await stream.receive()
    assert len(ses.inbox) == 1
    assert repr(ses) == "<SimulatedSES 14/s strict accepted=1>"


def test_a_connection_that_is_gone_before_its_answer():
    """Nothing is written to who has left; the message is accepted all the same."""
    with SimulatedSES(latency=0.01, slow_step=0.005, faults=Faults([None, "slow"])) as ses:
        for _ in range(2):
            with Client(ses) as client:
                client.write()
        with Client(ses) as client:
            assert client.ask()[0] == 200
        assert len(ses.inbox) == 3


def test_bytes_after_a_fault_are_not_heard():
    """A connection that has fallen silent stays silent, whatever comes."""
    with SimulatedSES(faults=Faults(["silent-before"])) as ses, Client(ses) as client:
        client.write(SEND + SEND)
        client.write(b"nonsense\r\n\r\n")
        with Client(ses) as other:
            assert other.ask()[0] == 200
        assert (ses.counts.sends, ses.counts.accepted) == (2, 1)
