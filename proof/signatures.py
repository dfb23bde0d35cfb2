"""5,000 messages, every signature recomputed by the server: plain, with tokens, through a proxy, with expiring keys."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Iterator

from _figures import Figure, exactly
from _world import BACKENDS, UNLIMITED, certificates, environment, messages, run

from tanksend import Sender, SendReport, Status
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import Credential, SimulatedSES, TunnelProxy
from tanksend.transports import Credentials, SESTransport

NUMBER = 5_000


def _simulated(context: ssl.SSLContext, credentials: dict[str, Credential]) -> SimulatedSES:
    return SimulatedSES(
        rate=UNLIMITED, daily_quota=UNLIMITED, tls=context, verify_signatures=True, credentials=credentials,
        keep_bodies=False,
    )  # fmt: skip


async def _send(transport: SESTransport) -> SendReport:
    async with Sender(
        from_="no-reply@example.com", transport=transport, limiter=TokenBucketLimiter(UNLIMITED), max_parallel=32
    ) as sender:
        return await sender.send_all(messages(NUMBER))


def _judge(what: str, ses: SimulatedSES, report: SendReport) -> Iterator[Figure]:
    times = Counter(item.tags["number"] for item in ses.inbox)
    once = sum(number == 1 for number in times.values())
    bad = sum(number for code, number in ses.counts.by_code.items() if "ignature" in code or "Token" in code)
    yield exactly(f"{what}: accepted exactly once", once, NUMBER)
    yield exactly(f"{what}: fates sent", report.counts[Status.SENT], NUMBER)
    if "expire" not in what:
        yield exactly(f"{what}: bad signatures", bad, 0)


def _plain(context: ssl.SSLContext, backend: str, token: str | None) -> Iterator[Figure]:
    with _simulated(context, {"AKIDEXAMPLE": Credential("s3cret/+=", token=token)}) as ses:
        transport = SESTransport(
            region=ses.region, endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", "s3cret/+=", token)
        )
        report = run(backend, _send, transport)
    yield from _judge(f"{backend}, {'session token' if token else 'plain keys'}", ses, report)


def _proxied(context: ssl.SSLContext, backend: str) -> Iterator[Figure]:
    with (
        _simulated(context, {"AKIDEXAMPLE": Credential("s3cret")}) as ses,
        TunnelProxy(username="office", password="p@ss") as proxy,
        environment(HTTPS_PROXY=proxy.url.replace("p@ss", "p%40ss"), NO_PROXY=""),
    ):
        transport = SESTransport(
            region=ses.region, endpoint_url=ses.url, credentials=Credentials("AKIDEXAMPLE", "s3cret")
        )
        report = run(backend, _send, transport)
        tunnels = proxy.tunnels
    yield from _judge(f"{backend}, proxy", ses, report)
    yield Figure(f"{backend}, proxy: tunnels", tunnels, "1 to 32", 1 <= tunnels <= 32)


def _expiring(context: ssl.SSLContext, backend: str) -> Iterator[Figure]:
    """Keys that the server takes for a second each; the client is told nothing of it."""
    accepted: dict[str, Credential] = {}
    issued = []

    def issue() -> Credentials:
        name = f"ASIA{len(issued):04}"
        issued.append(name)
        accepted[name] = Credential("s3cret", token=f"token{name}", expires_at=time.time() + 1.0)
        return Credentials(name, "s3cret", f"token{name}")

    with _simulated(context, accepted) as ses:
        transport = SESTransport(region=ses.region, endpoint_url=ses.url, credentials=issue)
        report = run(backend, _send, transport)
    yield from _judge(f"{backend}, keys that expire", ses, report)
    yield Figure(f"{backend}, keys that expire: sets of keys used", len(issued), "at least 2", len(issued) >= 2)


def figures() -> Iterator[Figure]:
    """All of it on both backends, over TLS."""
    with certificates() as context:
        for backend in BACKENDS:
            yield from _plain(context, backend, None)
            yield from _plain(context, backend, "a-session-token/with+odd=characters")
            yield from _proxied(context, backend)
            yield from _expiring(context, backend)
