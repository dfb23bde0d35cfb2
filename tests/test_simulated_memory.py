from __future__ import annotations

import anyio
import pytest

from tanksend import Message, Template
from tanksend._results import Receipt
from tanksend.exceptions import (
    AccessDeniedError,
    DailyQuotaExceededError,
    IdentityNotVerifiedError,
    OutcomeUnknownError,
    SendError,
    ServiceUnavailableError,
    ThrottlingError,
)
from tanksend.testing import FakeClock, Faults, RecordingTransport, SimulatedSES, check_transport
from tanksend.testing._checks import sample_request
from tanksend.typing import AccountSource, BulkRequest, BulkTransport, SendRequest

pytestmark = pytest.mark.anyio


async def test_it_keeps_the_contract_of_a_transport():
    """The conformance check passes on it."""
    ses = SimulatedSES(rate=-1)
    denied = SimulatedSES(deny=["ses:SendEmail"])
    clock = FakeClock()
    await check_transport(lambda: ses.transport(clock), broken=lambda: denied.transport(clock))
    assert len({item.message_id for item in ses.inbox}) == len(ses.inbox)


async def test_what_is_sent_arrives_as_it_would_over_http():
    """The body is the one of the wire."""
    ses = SimulatedSES()
    message = Message("김철수, Jr <kim@example.com>", "안녕", "Hello", cc="b@example.com", tags={"campaign": "news"})
    request = SendRequest(message, sample_request().from_, message.to, message.cc, tags=message.tags)
    receipt = await ses.transport(FakeClock()).send(request)
    (item,) = ses.inbox
    assert receipt.message_id == item.message_id
    assert (item.subject, len(item.recipients), item.tags) == ("안녕", 2, {"campaign": "news"})


async def test_the_account_as_a_source():
    """The quotas are told as SESTransport would tell them, a denial too."""
    ses = SimulatedSES(rate=50, daily_quota=1_000, sent_before=400)
    transport = ses.transport(FakeClock())
    account = await transport.account()
    assert (account.max_send_rate, account.max_24_hour_send, account.sent_last_24_hours) == (50.0, 1_000.0, 400.0)
    ses.deny.add("ses:GetAccount")
    with pytest.raises(AccessDeniedError):
        await transport.account()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rate": 0}, ThrottlingError),
        ({"daily_quota": 10, "sent_before": 10, "identities": ["example.com"]}, DailyQuotaExceededError),
        ({"identities": ["other.com"]}, IdentityNotVerifiedError),
        ({"deny": ["ses:SendEmail"]}, AccessDeniedError),
        ({"faults": ["503"]}, ServiceUnavailableError),
    ],
)
async def test_refusals_are_errors_of_the_right_kind(settings, expected):
    """What SES certainly has not taken says so."""
    ses = SimulatedSES(**settings | {"faults": Faults(settings.get("faults", ()))})
    message = Message("a@example.com", "Hi", "Hello")
    with pytest.raises(expected) as caught:
        await ses.transport(FakeClock()).send(SendRequest(message, sample_request().from_, message.to))
    assert not caught.value.maybe_sent


@pytest.mark.parametrize(
    "fault",
    [
        "reset-before", "close-before", "silent-before", "500", "503-bare", "reset-after", "close-after", "silent",
        "500-accepted", "503-bare-accepted", "garbage", "no-id",
    ],
)  # fmt: skip
async def test_lost_answers_are_unknown(fault):
    """Whatever settles nothing comes back as it would from a socket."""
    ses = SimulatedSES(faults=Faults([fault]))
    with pytest.raises(SendError) as caught:
        await ses.transport(FakeClock()).send(sample_request())
    assert caught.value.maybe_sent
    assert isinstance(caught.value, OutcomeUnknownError)


def bulk(*names):
    """A bulk request of one template, and a message to each name."""
    template = Template(subject="Hello {{name}}", text="Dear {{name}}")
    messages = [
        Message.from_template(template, to=f"{name}@example.com", data={"name": name}, tags={"who": name})
        for name in names
    ]
    from_ = sample_request().from_
    return BulkRequest(tuple(SendRequest(each, from_, each.to, tags=each.tags) for each in messages))


async def test_several_messages_in_one_request():
    """Each has an outcome of its own, in order, read as from the wire."""
    ses = SimulatedSES(rate=2, faults=Faults(entries=[None, "entry-transient"]))
    first, second, third, fourth = await ses.transport(FakeClock()).send_bulk(bulk("a", "b", "c", "d"))
    assert [first.message_id, third.message_id] == [item.message_id for item in ses.inbox]
    assert [item.subject for item in ses.inbox] == ["Hello a", "Hello c"]
    assert [(item.text, item.tags) for item in ses.inbox] == [("Dear a", {"who": "a"}), ("Dear c", {"who": "c"})]
    assert isinstance(second, SendError)
    assert isinstance(fourth, ThrottlingError)
    assert (ses.counts.bulk_sends, ses.counts.entries) == (1, 4)


async def test_several_messages_that_are_refused_or_lost_together():
    """Then the request has the error."""
    ses = SimulatedSES(deny=["ses:SendBulkEmail"])
    transport = ses.transport(FakeClock())
    with pytest.raises(AccessDeniedError):
        await transport.send_bulk(bulk("a", "b"))
    ses.deny.clear()
    ses.faults = Faults(["reset-after", "no-id"])
    with pytest.raises(OutcomeUnknownError):
        await transport.send_bulk(bulk("a", "b"))
    outcomes = await transport.send_bulk(bulk("c", "d"))
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownError] * 2
    assert [item.data["name"] for item in ses.inbox] == ["a", "b", "c", "d"]


async def test_the_recording_transport_takes_several_messages_too():
    """It keeps the request, and each message as if it had come alone."""
    transport: BulkTransport = RecordingTransport([None, ThrottlingError(), Receipt("mine")])
    request = bulk("a", "b", "c")
    first, second, third = await transport.send_bulk(request)
    assert (first, third) == (Receipt("recorded-1"), Receipt("mine"))
    assert isinstance(second, ThrottlingError)
    assert (transport.bulk, transport.requests) == ([request], list(request.requests))
    assert transport.recipients == ["a@example.com", "c@example.com"]


async def test_time_goes_by_the_clock():
    """Latency, slow answers and silence take their time on the fake clock; the quotas go by it."""
    clock = FakeClock(start=0.0)
    ses = SimulatedSES(rate=1, latency=0.25, slow_step=0.001, faults=Faults([None, "slow", "silent"]))
    transport = ses.transport(clock, read_timeout=30.0)
    await transport.send(sample_request())
    assert clock.monotonic() == 0.25
    with pytest.raises(ThrottlingError):
        await transport.send(sample_request())
    await clock.sleep(0.5)
    ses.faults = Faults(["slow", "silent"])
    await transport.send(sample_request())
    assert 1.25 < clock.monotonic() < 1.5
    await clock.sleep(1.0)
    before = clock.monotonic()
    with pytest.raises(OutcomeUnknownError, match="within 30 s"):
        await transport.send(sample_request())
    assert clock.monotonic() == before + 30.0
    assert len(ses.inbox) == 3


async def test_without_a_clock_it_takes_the_systems():
    """And it is a transport and an account source by their Protocols."""
    transport: BulkTransport = SimulatedSES().transport()
    source: AccountSource = SimulatedSES().transport()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.send, sample_request())
    assert (await source.account()).max_send_rate == 14.0
    assert repr(transport) == "<SimulatedTransport to <SimulatedSES 14/s strict accepted=1>>"
