"""The same code sends through moto's server, which nobody here wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from _figures import Figure, exactly
from _world import BACKENDS, UNLIMITED, messages, run

from tanksend import Sender, SendReport, Status
from tanksend.limiters import TokenBucketLimiter
from tanksend.transports import Credentials, SESTransport

NUMBER = 200


async def _send(url: str) -> SendReport:
    transport = SESTransport(region="us-east-1", endpoint_url=url, credentials=Credentials("AKIDEXAMPLE", "secret"))
    limiter = TokenBucketLimiter(UNLIMITED)
    async with Sender(from_="no-reply@example.com", transport=transport, limiter=limiter, max_parallel=4) as sender:
        return await sender.send_all(messages(NUMBER))


def _verify(url: str) -> None:
    import botocore.session

    client = botocore.session.get_session().create_client(
        "sesv2", region_name="us-east-1", endpoint_url=url, aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="s"
    )
    client.create_email_identity(EmailIdentity="example.com")


def figures() -> Iterator[Figure]:
    """Both backends against one server; its own record of what it took."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.server import ThreadedMotoServer
    from moto.ses.models import ses_backends

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        _verify(url)
        for backend in BACKENDS:
            report = run(backend, _send, url)
            yield exactly(f"{backend}: fates sent", report.counts[Status.SENT], NUMBER)
        sent = ses_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].sent_messages
        yield exactly("messages that moto holds", len(sent), NUMBER * len(BACKENDS))
    finally:
        server.stop()
