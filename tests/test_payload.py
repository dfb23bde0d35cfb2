from __future__ import annotations

import base64
import json
import math
import string
import tracemalloc
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from tanksend._addresses import Address
from tanksend._messages import Attachment, Message, Template, Unsubscribe
from tanksend._mime import render
from tanksend._payload import (
    ACCOUNT_PATH,
    BULK_PATH,
    SEND_PATH,
    TEMPLATES_PATH,
    PayloadWriter,
    parse_account,
    parse_bulk,
    parse_receipt,
    parse_template,
    template_content,
)
from tanksend._results import Receipt
from tanksend.exceptions import (
    AccountPausedError,
    Category,
    ConfigurationError,
    ConnectionFailedError,
    ContentRejectedError,
    DailyQuotaExceededError,
    IdentityNotVerifiedError,
    InvalidMessageError,
    InvalidParameterError,
    MailFromDomainNotVerifiedError,
    OutcomeUnknownError,
    SendError,
    ServiceUnavailableError,
    ThrottlingError,
)
from tanksend.typing import Account, BulkRequest, SendRequest

SENDER = Address("Tank", "no-reply@example.com")


def request_for(message: Message, **fields: Any) -> SendRequest:
    """What the engine would make of the message."""
    given = {"from_": SENDER, "to": message.to, "cc": message.cc, "bcc": message.bcc, "reply_to": message.reply_to}
    return SendRequest(message, **{**given, **fields})


def plainly(request: SendRequest) -> dict[str, Any]:
    """The obvious dict that the spliced bytes must equal."""

    def data(text: str) -> dict[str, str]:
        return {"Data": text, "Charset": "UTF-8"}

    message = request.message
    body = {"Text": message.text, "Html": message.html}
    simple: dict[str, Any] = {
        "Subject": data(message.subject),
        "Body": {part: data(text) for part, text in body.items() if text is not None},
    }
    if message.template is not None:
        simple = {**plain_template(message.template), "TemplateData": plain_data(message)}
    if message.headers or message.unsubscribe:
        simple["Headers"] = plain_headers(message)
    if message.attachments:
        simple["Attachments"] = [plain_attachment(each) for each in message.attachments]
    whole: dict[str, Any] = {
        "FromEmailAddress": request.from_.header(),
        "Destination": plain_destination(request),
        "Content": {"Simple" if message.template is None else "Template": simple},
    }
    if request.reply_to:
        whole["ReplyToAddresses"] = plain_addresses(request.reply_to)
    if request.tags:
        whole["EmailTags"] = pairs(request.tags)
    if request.configuration_set is not None:
        whole["ConfigurationSetName"] = request.configuration_set
    return whole


def plainly_bulk(requests: list[SendRequest]) -> dict[str, Any]:
    """The obvious dict of one call for many."""
    first = requests[0]
    assert first.message.template is not None
    template: dict[str, Any] = {**plain_template(first.message.template), "TemplateData": "{}"}
    if first.message.attachments:
        template["Attachments"] = [plain_attachment(each) for each in first.message.attachments]
    whole: dict[str, Any] = {
        "FromEmailAddress": first.from_.header(),
        "DefaultContent": {"Template": template},
        "BulkEmailEntries": [plain_entry(request) for request in requests],
    }
    if first.reply_to:
        whole["ReplyToAddresses"] = plain_addresses(first.reply_to)
    if first.configuration_set is not None:
        whole["ConfigurationSetName"] = first.configuration_set
    return whole


def plain_entry(request: SendRequest) -> dict[str, Any]:
    """One recipient's part."""
    entry: dict[str, Any] = {"Destination": plain_destination(request)}
    message = request.message
    if message.data:
        replacement = {"ReplacementTemplate": {"ReplacementTemplateData": plain_data(message)}}
        entry["ReplacementEmailContent"] = replacement
    if message.headers or message.unsubscribe:
        entry["ReplacementHeaders"] = plain_headers(message)
    if request.tags:
        entry["ReplacementTags"] = pairs(request.tags)
    return entry


def pairs(some: Any) -> list[dict[str, str]]:
    """Names and values."""
    return [{"Name": name, "Value": value} for name, value in dict(some).items()]


def plain_headers(message: Message) -> list[dict[str, str]]:
    """The message's own, and those it unsubscribes by."""
    return pairs([*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ())])


def plain_addresses(some: tuple[Address, ...]) -> list[str]:
    """As a header has them."""
    return [address.header() for address in some]


def plain_destination(request: SendRequest) -> dict[str, list[str]]:
    """Who gets it."""
    lists = {"ToAddresses": request.to, "CcAddresses": request.cc, "BccAddresses": request.bcc}
    return {name: plain_addresses(some) for name, some in lists.items() if some}


def plain_data(message: Message) -> str:
    """JSON within JSON."""
    return json.dumps(dict(message.data), ensure_ascii=False, separators=(",", ":"))


def plain_template(template: Template) -> dict[str, Any]:
    """Which template."""
    if template.name is not None:
        return {"TemplateName": template.name}
    parts = {"Subject": template.subject, "Text": template.text, "Html": template.html}
    return {"TemplateContent": {name: text for name, text in parts.items() if text is not None}}


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
        fields["ContentId"] = attachment.content_id.strip("<>")
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
    content_id=st.none() | st.sampled_from(["logo", "<logo>"]),
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


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
templates = st.builds(Template, name=words) | st.builds(Template, subject=texts, text=texts, html=st.none() | texts)


@st.composite
def templated(draw: st.DrawFn, **fields: Any) -> SendRequest:
    """A message of a template with anything in it."""
    message = Message.from_template(
        **{
            "template": draw(templates),
            "to": draw(several),
            "data": draw(st.dictionaries(names, unicode_text | st.integers(), max_size=3)),
            "cc": draw(several),
            "headers": draw(st.dictionaries(words, unicode_text, max_size=2)),
            "attachments": draw(st.lists(attachments, max_size=2)),
            "unsubscribe": draw(unsubscribes),
            **fields,
        }
    )
    return request_for(
        message,
        from_=draw(addresses),
        reply_to=draw(several),
        tags=draw(st.dictionaries(words, words, max_size=3)),
        configuration_set=draw(st.none() | words),
    )


@given(st.lists(templated() | requests(), min_size=1, max_size=4))
def test_templated_and_plain_messages_take_turns(some):
    """Each is written as its own dict, also after the other kind and when repeated."""
    writer = PayloadWriter()
    for request in [*some, *some]:
        assert plainly(request) == json.loads(writer.send_email(request))


@given(st.lists(templated(), min_size=1, max_size=3), st.data())
def test_a_bulk_request_is_the_obvious_json(firsts, data):
    """What is shared stands once, and what is personal in each entry; also after other calls and when repeated."""
    writer = PayloadWriter()
    calls = []
    for first in firsts:
        shared = {"template": first.message.template, "attachments": first.message.attachments}
        others = data.draw(st.lists(templated(**shared), max_size=3))
        common = {name: getattr(first, name) for name in ("from_", "reply_to", "configuration_set")}
        calls.append([first, *(attrs.evolve(other, **common) for other in others)])
    for call in [*calls, *calls]:
        assert plainly_bulk(call) == json.loads(writer.send_bulk(BulkRequest(tuple(call))))


def test_what_is_shared_is_written_once():
    """For as long as it is the very same; large pieces are not kept."""
    writer = PayloadWriter()

    def written(template: Template) -> object:
        request = request_for(Message.from_template(template, to="a@example.com"))
        writer.send_bulk(BulkRequest((request,)))
        return writer._bulk[1]

    small = Template(subject="Hi", text="Hello")
    kept = written(small)
    assert kept is written(small)
    assert kept is written(Template(subject="Hi", text="x" * 4_200_000))
    assert kept is not written(Template(subject="Hi", text="Hello"))


@pytest.mark.parametrize("requests", [(), (request_for(Message("a@example.com", "Hi", text="Hello")),)])
def test_only_templated_messages_go_together(requests):
    """The others are no matter of one call."""
    with pytest.raises(ValueError, match="template"):
        PayloadWriter().send_bulk(BulkRequest(requests))


def test_botocore_would_send_the_same_in_bulk():
    """The AWS SDK's own model takes every member, by name and type; so it does for templates."""
    from botocore.session import Session
    from botocore.validate import ParamValidator

    template = Template(subject="Hi {{name}}", text="Hello", html="<p>Hello")
    message = Message.from_template(
        template,
        to="a@example.com",
        data={"name": "Kim"},
        headers={"X-A": "b"},
        attachments=[Attachment("a.txt", b"")],
    )
    request = request_for(message, tags={"a": "b"}, configuration_set="set", reply_to=message.to)
    service = Session().get_service_model("sesv2")
    bodies = {
        "SendBulkEmail": PayloadWriter().send_bulk(BulkRequest((request,))),
        "SendEmail": PayloadWriter().send_email(request),
        "CreateEmailTemplate": b'{"TemplateName":"a","TemplateContent":%b}' % template_content(template),
    }
    for name, body in bodies.items():
        shape = service.operation_model(name).input_shape
        assert "" == ParamValidator().validate(json.loads(body), shape).generate_report()
        assert set(json.loads(body)) <= set(shape.members)
    entry = json.loads(bodies["SendBulkEmail"])["BulkEmailEntries"][0]
    members = service.operation_model("SendBulkEmail").input_shape.members["BulkEmailEntries"].member.members
    assert set(entry) == set(members)
    assert BULK_PATH == service.operation_model("SendBulkEmail").http["requestUri"]
    assert TEMPLATES_PATH == service.operation_model("CreateEmailTemplate").http["requestUri"]


@pytest.mark.parametrize(
    "build",
    [
        lambda writer, request: writer.send_email(request),
        lambda writer, request: writer.send_bulk(BulkRequest((request,))),
    ],
)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"headers": {"X-A": "secret\ud83d"}}, "content"),
        ({"data": {"name": "secret\ud83d"}}, "data[name]"),
        ({"data": {"name": b"secret"}}, "data[name]"),
    ],
)
def test_a_template_s_mail_that_cannot_be_written(build, fields, field):
    """Refused by field, and nothing of it shown."""
    request = request_for(Message.from_template(Template(name="welcome"), to="a@example.com", **fields))
    with pytest.raises(InvalidMessageError) as caught:
        build(PayloadWriter(), request)
    assert field == caught.value.field
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_the_simple_form_cannot_carry_goes_raw():
    """The whole mail, with the request's recipients (so that Bcc works), From, tags and configuration set beside it."""
    invitation = Attachment.invitation(b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n", method="REQUEST")
    message = Message("a@example.com", "Hi", text="Hello", bcc="b@example.com", attachments=[invitation])
    request = request_for(message, tags={"a": "b"}, configuration_set="set", reply_to=message.to)
    body = json.loads(PayloadWriter().send_email(request))
    content = body.pop("Content")
    assert {"Raw"} == set(content)
    assert render(request) == base64.b64decode(content["Raw"]["Data"])
    expected = plainly(request)
    del expected["Content"]
    assert expected == body


@given(texts)
def test_text_that_repeats_is_the_same_the_second_time(text):
    """Pieces kept from an earlier message are those of this one."""
    writer = PayloadWriter()
    message = Message("a@example.com", "Hi", text=text, html=text)
    first = writer.send_email(request_for(message))
    other = Message("a@example.com", "Hi", text="other", html="other")
    assert plainly(request_for(other)) == json.loads(writer.send_email(request_for(other)))
    assert first == writer.send_email(request_for(message))


@pytest.mark.parametrize("template", [None, Template(name="welcome")], ids=["simple", "template"])
def test_a_file_is_copied_once_for_a_request(template):
    """It may have 30 MB, and many requests with it be on their way at once."""
    content = {"template": template} if template else {"text": "Hello"}
    file = Attachment("a.bin", bytes(3_000_000))
    request = request_for(Message("a@example.com", "" if template else "Hi", **content, attachments=[file]))
    writer = PayloadWriter()
    writer.send_email(request)
    tracemalloc.start()
    try:
        size = len(writer.send_email(request))
        assert tracemalloc.get_traced_memory()[1] < size * 1.5
    finally:
        tracemalloc.stop()


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


def entries(*results: object) -> bytes:
    """An answer to SendBulkEmail."""
    return json.dumps({"BulkEmailEntryResults": results}).encode()


STATUSES = {
    ("MESSAGE_REJECTED", "MessageRejected"): ContentRejectedError,
    ("MAIL_FROM_DOMAIN_NOT_VERIFIED", "MailFromDomainNotVerified"): MailFromDomainNotVerifiedError,
    (
        "CONFIGURATION_SET_NOT_FOUND",
        "CONFIGURATION_SET_DOES_NOT_EXIST",
        "ConfigurationSetDoesNotExist",
    ): ConfigurationError,
    ("TEMPLATE_NOT_FOUND", "TEMPLATE_DOES_NOT_EXIST", "TemplateDoesNotExist"): ConfigurationError,
    ("ACCOUNT_SUSPENDED", "AccountSuspended"): AccountPausedError,
    ("ACCOUNT_THROTTLED", "AccountThrottled"): ThrottlingError,
    ("ACCOUNT_DAILY_QUOTA_EXCEEDED", "AccountDailyQuotaExceeded"): DailyQuotaExceededError,
    ("INVALID_SENDING_POOL_NAME", "InvalidSendingPoolName"): ConfigurationError,
    ("ACCOUNT_SENDING_PAUSED", "AccountSendingPaused"): AccountPausedError,
    ("CONFIGURATION_SET_SENDING_PAUSED", "ConfigurationSetSendingPaused"): AccountPausedError,
    ("INVALID_PARAMETER", "INVALID_PARAMETER_VALUE", "InvalidParameterValue"): InvalidParameterError,
    ("TRANSIENT_FAILURE", "TransientFailure"): ServiceUnavailableError,
    ("FAILED", "Failed"): SendError,
}


@pytest.mark.parametrize(
    ("status", "error"), [(status, error) for spellings, error in STATUSES.items() for status in spellings]
)
def test_each_status_of_an_entry_is_its_error(status, error):
    """In all spellings; the others of the call are not touched, and nothing that SES refused is in doubt."""
    answer = entries(
        {"Status": "SUCCESS", "MessageId": "1"}, {"Status": status}, {"Status": "Success", "MessageId": "3"}
    )
    first, second, third = parse_bulk(answer, {"x-amzn-requestid": "request-1"}, 3)
    assert (Receipt("1", "request-1"), Receipt("3", "request-1")) == (first, third)
    assert error is type(second)
    assert isinstance(second, SendError)
    assert not second.maybe_sent
    assert ("request-1", status) == (second.request_id, second.code)
    assert (error in (ThrottlingError, ServiceUnavailableError)) == second.retryable


def test_an_entry_s_text_says_more_than_its_status():
    """Whom an unverified identity concerns, and nothing of the text is repeated."""
    text = "Email address is not verified. The following identities failed the check in region US-EAST-1: {}"
    answer = entries(
        {"Status": "MESSAGE_REJECTED", "Error": text.format("no-reply@example.com")},
        {"Status": "MESSAGE_REJECTED", "Error": text.format("secret@example.org")},
        {"Status": "INVALID_PARAMETER", "Error": 7},
    )
    ours, theirs, other = parse_bulk(answer, {}, 3, senders=["no-reply@example.com"])
    assert IdentityNotVerifiedError is type(ours) is type(theirs)
    assert isinstance(ours, SendError)
    assert isinstance(theirs, SendError)
    assert ("from_", "recipient") == (ours.field, theirs.field)
    assert "secret" not in str(theirs)
    assert InvalidParameterError is type(other)


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "SUCCESS",
        {},
        {"Status": None, "MessageId": "1"},
        {"Status": "SUCCESS"},
        {"Status": "SUCCESS", "MessageId": ""},
        {"Status": "SUCCESS", "MessageId": 7},
        {"Status": "SOMETHING_NEW", "MessageId": "1"},
        {"Status": "", "MessageId": "1"},
    ],
)
def test_an_entry_that_nothing_settles_is_unknown(result):
    """It alone: SES may have that mail."""
    unknown, good = parse_bulk(
        entries(result, {"Status": "SUCCESS", "MessageId": "2"}), {"x-amzn-requestid": "request-1"}, 2
    )
    assert isinstance(unknown, OutcomeUnknownError)
    assert unknown.maybe_sent
    assert "request-1" == unknown.request_id
    assert Category.OUTCOME_UNKNOWN == unknown.category
    assert Receipt("2", "request-1") == good


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"<html>",
        b"\xff",
        b'{"BulkEmailEntryResults":{}}',
        entries(),
        entries({"Status": "SUCCESS", "MessageId": "1"}),
        entries(*[{"Status": "SUCCESS", "MessageId": "1"}] * 3),
    ],
)
def test_an_answer_that_does_not_match_its_entries_settles_none(body):
    """Nobody knows whose results they are."""
    outcomes = parse_bulk(body, {}, 2)
    assert [OutcomeUnknownError] * 2 == [type(outcome) for outcome in outcomes]
    assert outcomes[0] is not outcomes[1]


@pytest.mark.parametrize(
    ("content", "template"),
    [
        ({"Subject": "Hi", "Text": "a", "Html": "b"}, Template(subject="Hi", text="a", html="b")),
        ({"Subject": "Hi", "Html": "b"}, Template(subject="Hi", html="b")),
        ({"Subject": "Hi", "Text": "", "Html": None}, Template(subject="Hi", text="")),
        ({}, Template(subject="", text="")),
        (None, None),
        ({"Subject": 7}, None),
        ([], None),
    ],
)
def test_a_stored_template_is_read(content, template):
    """As an inline one, where it can be read at all."""
    assert template == parse_template(json.dumps({"TemplateName": "a", "TemplateContent": content}).encode())


def test_an_answer_without_a_template():
    """Is none."""
    assert parse_template(b"<html>") is None


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
