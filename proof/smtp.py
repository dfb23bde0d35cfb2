"""SMTP with TLS to a server that nobody here wrote: 5,000 messages once each, throttles paced, strangers refused."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from _figures import Figure, at_least, at_most, exactly
from _world import BACKENDS, UNLIMITED, messages, run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from smtp_server import DROP, PASSWORD, USERNAME, Authority, MailServer
from tanksend import Sender, SendReport, Status
from tanksend.limiters import AccountLimiter, TokenBucketLimiter
from tanksend.testing._quotas import StrictRate
from tanksend.transports import SMTPTransport
from tanksend.typing import RateLimiter

NUMBER = 5_000
PARALLEL = 16
RATE = 100
PACED = 1_000
NOT_VERIFIED = "Message rejected: Email address is not verified. The following identities failed the check in region"
# One in fifty each; all others are good. The first three strike once, so that the message goes in the end.
FAULTS = ("throttled", "busy", "dropped before", "unverified", "too long", "unknown recipient", "dropped after")
FATES = {
    "unverified": Status.FAILED,
    "too long": Status.FAILED,
    "unknown recipient": Status.FAILED,
    "dropped after": Status.UNKNOWN,
}


def _kind(number: int) -> str:
    return FAULTS[number % 50] if number % 50 < len(FAULTS) else "good"


class _Trouble:
    """What the server does to each message, by its number."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()

    def _first(self, what: str) -> bool:
        self.tried[what] += 1
        return self.tried[what] == 1

    def judge(self, mail: object, envelope: object) -> str | None:
        number = _number(envelope)
        kind = _kind(number)
        first = self._first(f"content {number}")
        if kind == "throttled" and first:
            return "454 Throttling failure: Maximum sending rate exceeded"
        if kind == "busy" and first:
            return "451 Temporary service failure"
        if kind == "unverified":
            return f"554 {NOT_VERIFIED} US-EAST-1: user{number}@d{number % 20}.example.com"
        return {"too long": "552 Message is too long.", "dropped after": DROP}.get(kind)

    def before(self, envelope: object) -> str | None:
        number = _number(envelope)
        return DROP if _kind(number) == "dropped before" and self._first(f"DATA {number}") else None

    def recipient(self, address: str) -> str | None:
        number = int(address.partition("@")[0].removeprefix("user"))
        return f"553 <{address}> address unknown" if _kind(number) == "unknown recipient" else None


def _number(envelope: object) -> int:
    address: str = envelope.rcpt_tos[0]  # type: ignore[attr-defined]
    return int(address.partition("@")[0].removeprefix("user"))


def _ignore(result: object) -> None:
    pass


async def _send(
    server: MailServer,
    authority: Authority,
    number: int,
    limiter: RateLimiter,
    *,
    keep: Callable[[object], None] = _ignore,
    password: str = PASSWORD,
) -> SendReport:
    transport = SMTPTransport(
        "127.0.0.1", server.port, username=USERNAME, password=password, ca_bundle=authority.bundle
    )  # fmt: skip
    async with Sender(
        from_="no-reply@example.com", transport=transport, limiter=limiter, max_parallel=PARALLEL
    ) as sender:
        report = await sender.send_all(messages(number), on_result=keep)
    await transport.aclose()
    return report


def _campaign(backend: str, authority: Authority) -> Iterator[Figure]:
    trouble = _Trouble()
    fates: dict[int, Status] = {}

    def keep(result: object) -> None:
        number = int(result.message.tags["number"])  # type: ignore[attr-defined]
        assert number not in fates, "two fates for one message"
        fates[number] = result.status  # type: ignore[attr-defined]

    with MailServer(
        authority.context(), judge=trouble.judge, before=trouble.before, recipient=trouble.recipient
    ) as server:
        run(backend, _send, server, authority, NUMBER, TokenBucketLimiter(UNLIMITED), keep=keep)
    arrived = Counter(_number(envelope) for _, envelope in server.inbox)
    wrong = Counter(_kind(n) for n, status in fates.items() if status is not FATES.get(_kind(n), Status.SENT))
    sent = {number for number, status in fates.items() if status is Status.SENT}
    faults = sum(_kind(number) != "good" for number in range(NUMBER))
    yield exactly(f"{backend}: messages with one fate, {faults} of them with a fault", len(fates), NUMBER)
    yield exactly(f"{backend}: wrong fates", dict(wrong), {})
    yield exactly(f"{backend}: doubled", sum(count > 1 for count in arrived.values()), 0)
    yield exactly(f"{backend}: lost (called sent, not in the inbox)", len(sent - set(arrived)), 0)
    yield exactly(f"{backend}: in the inbox and not called sent", len(set(arrived) - sent), 0)
    yield at_most(f"{backend}: connections", server.connections, NUMBER // 100 + NUMBER * 3 // 50 + PARALLEL)


def _paced(authority: Authority, assumed: int) -> Iterator[Figure]:
    """An account of RATE a second behind a limiter that can only assume; SMTP cannot ask."""
    meter, lock, throttled, moments = StrictRate(), threading.Lock(), Counter[str](), []

    def judge(mail: object, envelope: object) -> str | None:
        now = time.monotonic()
        with lock:
            if not meter.take(1, RATE, now):
                throttled["all"] += 1
                return "454 Throttling failure: Maximum sending rate exceeded"
            moments.append(now)
        return None

    with MailServer(authority.context(), judge=judge) as server:
        limiter = AccountLimiter(fallback_rate=assumed)
        report = run("asyncio", _send, server, authority, PACED, limiter)
    what = f"account of {RATE}/s taken for {assumed}/s"
    yield exactly(f"{what}: sent", report.counts[Status.SENT], PACED)
    yield exactly(f"{what}: doubled", len(server.inbox) - len(set(server.tags)), 0)
    requests = PACED + throttled["all"]
    yield at_most(f"{what}: throttled of {requests}", throttled["all"] / requests, 0.02 if assumed <= RATE else 0.2)
    used = (PACED - 1) / (moments[-1] - moments[0]) / RATE
    yield at_least(f"{what}: use of the rate", used, 0.9 if assumed <= RATE else 0.5)


def _refused(authority: Authority) -> Iterator[Figure]:
    with MailServer(authority.context()) as server:
        report = run("asyncio", _send, server, authority, NUMBER, TokenBucketLimiter(UNLIMITED), password="wrong")
    yield exactly("wrong password (535): logins", server.logins, 1)
    yield exactly("wrong password (535): not held", _not_held(report), 0)
    for what, context in (
        ("certificate of a stranger", _stranger()),
        ("certificate for another name", authority.context("mail.example.com")),
        ("no STARTTLS", None),
    ):
        with MailServer(context) as server:
            report = run("asyncio", _send, server, authority, NUMBER, TokenBucketLimiter(UNLIMITED))
        yield exactly(f"{what}: logins and mails", (server.logins, len(server.inbox)), (0, 0))
        yield exactly(f"{what}: not held", _not_held(report), 0)


def _not_held(report: SendReport) -> int:
    """Of those taken in until the batch stopped."""
    return sum(report.counts.values()) - report.counts[Status.HELD]


def _stranger() -> object:
    with Authority() as other:
        return other.context()


def figures() -> Iterator[Figure]:
    """Faults on both backends, then pace and refusals."""
    logging.getLogger("mail.log").disabled = True  # aiosmtpd tells there of every client that does not trust it.
    with Authority() as authority:
        for backend in BACKENDS:
            yield from _campaign(backend, authority)
        yield from _paced(authority, RATE)
        yield from _paced(authority, 2 * RATE)
        yield from _refused(authority)
