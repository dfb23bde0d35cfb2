from __future__ import annotations

import base64
import json
import math
import string
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tanksend._addresses import Address
from tanksend._messages import Attachment, Message, Unsubscribe
from tanksend._payload import ACCOUNT_PATH, SEND_PATH, PayloadWriter, parse_account, parse_receipt
from tanksend._results import Receipt
from tanksend.exceptions import ConnectionFailedError, InvalidMessageError, OutcomeUnknownError
from tanksend.typing import Account, SendRequest

SENDER = Address("Tank", "no-reply@example.com")


def request_for(message: Message, **fields: Any) -> SendRequest:
    """What the engine would make of the message."""
    given = {"from_": SENDER, "to": message.to, "cc": message.cc, "bcc": message.bcc, "reply_to": message.reply_to}
    return SendRequest(message, **{**given, **fields})


def plainly(request: SendRequest) -> dict[str, Any]:
    """The obvious dict that the spliced bytes must equal."""

    def data(text: str) -> dict[str, str]:
        return {"Data": text, "Charset": "UTF-8"}

    def addresses(some: tuple[Address, ...]) -> list[str]:
        return [address.header() for address in some]

    message = request.message
    lists = {"ToAddresses": request.to, "CcAddresses": request.cc, "BccAddresses": request.bcc}
    body = {"Text": message.text, "Html": message.html}
    simple: dict[str, Any] = {
        "Subject": data(message.subject),
        "Body": {part: data(text) for part, text in body.items() if text is not None},
    }
    headers = [*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ())]
    if headers:
        simple["Headers"] = [{"Name": name, "Value": value} for name, value in headers]
    if message.attachments:
        simple["Attachments"] = [plain_attachment(each) for each in message.attachments]
    whole: dict[str, Any] = {
        "FromEmailAddress": request.from_.header(),
        "Destination": {name: addresses(some) for name, some in lists.items() if some},
        "Content": {"Simple": simple},
    }
    if request.reply_to:
        whole["ReplyToAddresses"] = addresses(request.reply_to)
    if request.tags:
        whole["EmailTags"] = [{"Name": name, "Value": value} for name, value in request.tags.items()]
    if request.configuration_set is not None:
        whole["ConfigurationSetName"] = request.configuration_set
    return whole


def plain_attachment(attachment: Attachment) -> dict[str, str]:
    """One attachment as an obvious dict."""
    fields = {
        "RawContent": base64.b64encode(attachment.content).decode(),
        "FileName": attachment.name,
        "ContentDisposition": "INLINE" if attachment.content_id else "ATTACHMENT",
        "ContentTransferEncoding": "BASE64",
    }
    if attachment.content_type is not None:
        fields["ContentType"] = attachment.content_type
    if attachment.content_id is not None:
        fields["ContentId"] = attachment.content_id
    return fields


unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
# Above the length from which the writer escapes by hand, with every character that JSON escapes.
long_text = st.text(st.sampled_from('ab"\\\n\r\t\x00\x1b\x7f김\U0001f600\u2028'), min_size=250, max_size=600)
texts = unicode_text | long_text
words = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=20)
addresses = st.builds(
    Address, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20), st.just("kim@example.com")
)
several = st.lists(addresses, max_size=3).map(tuple)
attachments = st.builds(
    Attachment,
    unicode_text,
    st.binary(max_size=50),
    content_type=st.none() | st.just("text/plain"),
    content_id=st.none() | st.just("logo"),
)
unsubscribes = st.sampled_from([None, Unsubscribe(url="https://example.com/u?1"), Unsubscribe(mailto="u@example.com")])


@st.composite
def requests(draw: st.DrawFn) -> SendRequest:
    """A message with anything in it."""
    text, html = draw(st.tuples(st.none() | texts, st.none() | texts).filter(lambda parts: parts != (None, None)))
    message = Message(
        draw(several),
        draw(texts),
        text=text,
        html=html,
        cc=draw(several),
        bcc=draw(several),
        reply_to=draw(several),
        headers=draw(st.dictionaries(words, unicode_text, max_size=3)),
        attachments=draw(st.lists(attachments, max_size=2)),
        unsubscribe=draw(unsubscribes),
    )
    return request_for(
        message,
        from_=draw(addresses),
        tags=draw(st.dictionaries(words, words, max_size=3)),
        configuration_set=draw(st.none() | words),
    )


@given(st.lists(requests(), min_size=1, max_size=3))
def test_the_spliced_json_is_the_obvious_json(some):
    """Whatever a message holds, its bytes parse to the plain dict, also after other messages and when repeated."""
    writer = PayloadWriter()
    for request in [*some, *some]:
        assert plainly(request) == json.loads(writer.send_email(request))


@given(texts)
def test_text_that_repeats_is_the_same_the_second_time(text):
    """Pieces kept from an earlier message are those of this one."""
    writer = PayloadWriter()
    message = Message("a@example.com", "Hi", text=text, html=text)
    first = writer.send_email(request_for(message))
    other = Message("a@example.com", "Hi", text="other", html="other")
    assert plainly(request_for(other)) == json.loads(writer.send_email(request_for(other)))
    assert first == writer.send_email(request_for(message))


def test_equal_but_not_identical_senders_are_written_anew():
    """A piece is recognised by identity, so an equal object is merely written again."""
    writer = PayloadWriter()
    message = Message("a@example.com", "Hi", text="Hello")
    bodies = {writer.send_email(request_for(message, from_=Address("Tank", "no-reply@example.com"))) for _ in range(3)}
    assert 1 == len(bodies)


def test_a_configuration_set_does_not_stick_to_the_next_message():
    """None after a name means none."""
    writer = PayloadWriter()
    message = Message("a@example.com", "Hi", text="Hello")
    assert b"ConfigurationSetName" in writer.send_email(request_for(message, configuration_set="news"))
    assert b"ConfigurationSetName" not in writer.send_email(request_for(message))


def test_a_huge_text_is_not_kept():
    """Beyond 4 MB of characters nothing is held on to, and the body is right all the same."""
    writer = PayloadWriter()
    huge = "x" * 4_194_305
    message = Message("a@example.com", "Hi", text=huge, html=huge)
    for _ in range(2):
        assert plainly(request_for(message)) == json.loads(writer.send_email(request_for(message)))
    assert (None, b"") == writer._text
    assert (None, b"") == writer._html


def test_names_that_are_not_ascii_go_as_encoded_words():
    """A display name is written as a header holds it; the JSON itself keeps letters of every script."""
    message = Message("김철수 <kim@example.com>", "제목", text="안녕하세요")
    body = PayloadWriter().send_email(request_for(message))
    assert b"=?utf-8?" in body.lower()
    assert "안녕하세요".encode() in body
    assert "제목".encode() in body
    assert "김철수".encode() not in body


@pytest.mark.parametrize("length", [1, 300])
@pytest.mark.parametrize("part", ["subject", "text", "html"])
def test_half_a_surrogate_is_bad_data_and_never_shown(part, length):
    """It fits no UTF-8: the error names the content and repeats nothing of it."""
    fields = {"subject": "Hi", "text": "Hello", part: "secret" + "\ud83d" * length}
    message = Message("a@example.com", **fields)
    with pytest.raises(InvalidMessageError) as caught:
        PayloadWriter().send_email(request_for(message))
    assert "content" == caught.value.field
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "UnicodeEncodeError" == caught.value.cause_type


def test_botocore_would_send_the_same():
    """The AWS SDK's own model of SendEmail takes every member we write, by name, type and allowed value."""
    from botocore.session import Session
    from botocore.validate import ParamValidator

    everything = Message(
        ["Kim <kim@example.com>"],
        "Hi",
        text="Hello",
        html="<p>Hello",
        cc=["b@example.com"],
        bcc=["c@example.com"],
        reply_to=["d@example.com"],
        headers={"X-Campaign": "news"},
        attachments=[
            Attachment("a.txt", b"content", content_type="text/plain"),
            Attachment("logo.png", b"content", content_id="logo"),
        ],
        unsubscribe=Unsubscribe(url="https://example.com/u", mailto="u@example.com"),
    )
    request = request_for(everything, tags={"campaign": "news"}, configuration_set="set")
    body = json.loads(PayloadWriter().send_email(request))
    model = Session().get_service_model("sesv2").operation_model("SendEmail")
    assert SEND_PATH == model.http["requestUri"]
    assert "POST" == model.http["method"]
    report = ParamValidator().validate(body, model.input_shape)
    assert "" == report.generate_report()
    shape = model.input_shape
    assert set(body) <= set(shape.members)
    simple = shape.members["Content"].members["Simple"]
    assert set(body["Content"]["Simple"]) == set(simple.members)
    members = simple.members["Attachments"].member.members
    for attachment in body["Content"]["Simple"]["Attachments"]:
        assert set(attachment) <= set(members)
        assert attachment["ContentDisposition"] in members["ContentDisposition"].enum
        assert attachment["ContentTransferEncoding"] in members["ContentTransferEncoding"].enum
    account = Session().get_service_model("sesv2").operation_model("GetAccount")
    assert ACCOUNT_PATH == account.http["requestUri"]


def test_an_accepted_message_gives_a_receipt():
    """The message id and the request id come from the answer."""
    receipt = parse_receipt(b'{"MessageId":"0100-1"}', {"x-amzn-requestid": "r-1"})
    assert Receipt("0100-1", "r-1") == receipt
    assert Receipt("0100-1", None) == parse_receipt(b'{"MessageId":"0100-1"}', {})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'"x"',
        b'{"MessageId":""}',
        b'{"MessageId":null}',
        b'{"MessageId":7}',
        b"<html>",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_200_without_an_id_settles_nothing(body):
    """A balancer or a captive portal answers 200, too: only a message id says that SES has it."""
    with pytest.raises(OutcomeUnknownError) as caught:
        parse_receipt(body, {"x-amzn-requestid": "r-1"})
    assert (200, "r-1", True) == (caught.value.status, caught.value.request_id, caught.value.maybe_sent)


QUOTA = {"Max24HourSend": 50_000.0, "MaxSendRate": 14.0, "SentLast24Hours": 12.0}


def test_the_account_is_read():
    """Quotas and states come from the answer."""
    answer = {
        "SendQuota": QUOTA,
        "ProductionAccessEnabled": False,
        "SendingEnabled": False,
        "EnforcementStatus": "PROBATION",
    }
    assert Account(
        max_send_rate=14.0,
        max_24_hour_send=50_000.0,
        sent_last_24_hours=12.0,
        production_access=False,
        sending_enabled=False,
        enforcement_status="PROBATION",
    ) == parse_account(json.dumps(answer).encode(), {})


def test_an_account_with_quotas_alone_is_a_healthy_one():
    """What is not said is taken as good; -1 stays unlimited."""
    account = parse_account(json.dumps({"SendQuota": {**QUOTA, "MaxSendRate": -1}}).encode(), {})
    assert (-1.0, True, True, "HEALTHY") == (
        account.max_send_rate,
        account.production_access,
        account.sending_enabled,
        account.enforcement_status,
    )


@pytest.mark.parametrize(
    "quota",
    [None, {}, {**QUOTA, "MaxSendRate": "14"}, {**QUOTA, "MaxSendRate": math.nan}, {**QUOTA, "MaxSendRate": True}],
)
def test_an_account_without_usable_figures_is_an_error(quota):
    """No limiter ever reckons with NaN, text or nothing."""
    with pytest.raises(ConnectionFailedError) as caught:
        parse_account(json.dumps({"SendQuota": quota}).encode(), {"x-amzn-requestid": "r-1"})
    assert (200, "r-1", False) == (caught.value.status, caught.value.request_id, caught.value.maybe_sent)
