"""
A program that uses tanksend, for type checkers: they read it, nobody runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from tanksend import (
    Address,
    AddressValidator,
    Attachment,
    Message,
    Priority,
    Receipt,
    Sender,
    SendReport,
    SendResult,
    Status,
    SyncSender,
    Template,
    Unsubscribe,
)
from tanksend.exceptions import HeldError, OutcomeUnknownError, SendError, ThrottlingError
from tanksend.ledgers import PostgresLedger, SQLiteLedger
from tanksend.limiters import TokenBucketLimiter
from tanksend.operations import Templates
from tanksend.retries import ExponentialBackoff, NoRetry
from tanksend.suppression import MemorySuppressionStore
from tanksend.transports import BotocoreTransport, FileTransport, SESTransport, SMTPTransport, smtp_password
from tanksend.typing import (
    Allow,
    Attempt,
    Clock,
    Demand,
    Drop,
    GiveUp,
    Guard,
    GuardDecision,
    Hold,
    Ledger,
    Observer,
    RateLimiter,
    Replace,
    Retry,
    RetryPolicy,
    SendEvent,
    SendRequest,
    Signal,
    Slot,
    Suppression,
    SuppressionReason,
    SuppressionStore,
    TemplateSource,
    Transport,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping


class EvenPace:
    """A limiter without a base class."""

    async def reserve(self, demand: Demand) -> Slot:
        return Slot(delay=demand.recipients / 14, recipients=demand.recipients)

    async def release(self, slot: Slot) -> None:
        pass

    async def feedback(self, signal: Signal) -> None:
        if isinstance(signal.error, ThrottlingError):
            assert_type(signal.error.retryable, bool)


class Patient:
    """A retry policy without a base class."""

    def decide(self, attempt: Attempt) -> Retry | GiveUp:
        return Retry(after=attempt.jitter) if attempt.number < 10 else GiveUp()


class Nowhere:
    """A transport without a base class."""

    async def send(self, request: SendRequest) -> Receipt:
        return Receipt(f"id-{len(request.recipients)}")

    async def aclose(self) -> None:
        pass


class Nobody:
    """A suppression store without a base class."""

    async def lookup(self, addresses: Collection[str]) -> Mapping[str, Suppression]:
        return {address: Suppression(address, SuppressionReason.MANUAL) for address in addresses}

    async def add(self, *entries: Suppression) -> None:
        pass

    async def remove(self, address: str) -> bool:
        return False

    async def entries(self) -> AsyncIterator[Suppression]:
        yield Suppression("a@example.com")


class OfficeHours:
    """A guard without a base class."""

    def __init__(self, *, open_: bool) -> None:
        self.open = open_

    async def check(self, message: Message) -> GuardDecision:
        if not message.subject:
            return Drop("no subject")
        if message.priority is None:
            return Replace(Message(message.to, message.subject, text="later", priority=Priority.BULK))
        return Allow() if self.open else Hold("the office is closed")


class Counter:
    """An observer without a base class."""

    def on_event(self, event: SendEvent) -> None:
        assert_type(event.error, SendError | None)


limiter: RateLimiter = EvenPace()
bucket: RateLimiter = TokenBucketLimiter(14)
policy: RetryPolicy = Patient()
policies: tuple[RetryPolicy, ...] = (ExponentialBackoff(attempts=8, resend_unknown=True), NoRetry())
transport: Transport = Nowhere()
ses: Transport = SESTransport(region="ap-southeast-1")
store: SuppressionStore = Nobody()
memory: SuppressionStore = MemorySuppressionStore()
guard: Guard = OfficeHours(open_=True)
observer: Observer = Counter()


def messages() -> Iterator[Message]:
    yield Message("a@example.com", "Hi", "Hello")
    yield Message(
        to=["Wulan <wulan@example.com>", Address("김민준", "minjun@example.com")],
        subject="News",
        html="<p>Hello</p>",
        cc="c@example.com",
        attachments=[Attachment("a.txt", b"a", content_type="text/plain"), Attachment.from_path("b.pdf")],
        headers={"X-Campaign": "news"},
        tags={"campaign": "news"},
        unsubscribe=Unsubscribe(url="https://example.com/u/1"),
        priority=Priority.TRANSACTIONAL,
        key="news-1",
    )


async def many() -> AsyncIterator[Message]:
    for message in messages():
        yield message


def told(done: SendResult) -> None:
    assert_type(done.status, Status)
    assert_type(done.recipients, tuple[Address, ...])


async def send_async(clock: Clock) -> None:
    async with Sender(
        from_="Tank <no-reply@yokee.co.id>",
        transport=transport,
        limiter=limiter,
        retry=policy,
        suppression=store,
        guards=[guard],
        observers=[observer],
        validator=AddressValidator(),
        clock=clock,
    ) as sender:
        assert_type(sender, Sender)
        result = await sender.send(Message("a@example.com", "Hi", "Hello"), give_up_after=5.0)
        assert_type(result, SendResult)
        report = await sender.send_all(many(), campaign="news", progress=True, on_result=told, save_to="out.csv")
        assert_type(report, SendReport)
        async with sender.stream(messages()) as results:
            async for each in results:
                assert_type(each, SendResult)


def send_sync() -> None:
    sender = SyncSender(from_="Tank <no-reply@yokee.co.id>", region="ap-southeast-1", max_parallel=8)
    try:
        result = sender.send(Message("a@example.com", "Hi", "Hello"))
        assert_type(result.message_id, str | None)
    except HeldError as held:
        assert_type(held.result, SendResult | None)
    except OutcomeUnknownError as unknown:
        assert_type(unknown.maybe_sent, bool)
    report = sender.send_all(messages(), on_result=told)
    assert_type(report.counts[Status.SENT], int)
    report.raise_for_failures()
    with sender.stream(messages()) as results:
        for each in results:
            assert_type(each, SendResult)
    sender.close()


def validate(text: str) -> str:
    address = AddressValidator().validate(text)
    assert_type(address, Address)
    return address.email


def from_template() -> Message:
    template = Template(subject="Hi {{name}}", text="Dear {{name}}")
    assert_type(template.missing({"name": "Kim"}), tuple[str, ...])
    message = Message.from_template(template, to="a@example.com", data={"name": "Kim"}, tags={"a": "b"})
    assert_type(message, Message)
    assert_type(message.template, Template | None)
    return message


async def templates(transport: SESTransport, sender: Sender) -> None:
    source: TemplateSource = transport
    assert_type(await source.template("welcome"), Template | None)
    stored = Templates(transport)
    await stored.create("welcome", Template(subject="Hi", html="<p>Hi"))
    assert_type(await stored.render("welcome", {"name": "Kim"}), str)
    async for info in Templates(sender).list():
        assert_type(info.name, str)


async def ledgers(path: str) -> None:
    parts: tuple[Ledger, ...] = (SQLiteLedger(path), PostgresLedger("host=localhost"))
    async with SQLiteLedger(path) as ledger, Sender(ledger=ledger) as sender:
        assert_type(await sender.send_all([], campaign="news"), SendReport)
        assert_type(await ledger.reconcile([]), int)
        assert_type(sender.ledger, Ledger | None)
    SyncSender(ledger=parts[0]).close()


def ways_out() -> tuple[Transport, ...]:
    assert_type(smtp_password("secret", "us-east-1"), str)
    return (BotocoreTransport(region="us-east-1"), FileTransport("out"), SMTPTransport(region="us-east-1"))
