"""What SES would refuse is refused before anything leaves, by the name of its field, and the batch goes on."""

from __future__ import annotations

import pytest

from tanksend import Address, Attachment, Message, Sender, Status, SyncSender, Template, Unsubscribe
from tanksend.exceptions import InvalidMessageError
from tanksend.testing import RecordingTransport

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
TO = "b@example.com"
BREAK = "x\r\nBcc: c@example.com"
HELLO = Template(subject="Hi {{name}}", text="Dear {{name}}")


def mail(*, to=TO, subject="Hi", **options):
    """A message that is good but for *options*."""
    return Message(to, subject, "text", **options)


def templated(template=HELLO, **data):
    """A message of a template."""
    return Message.from_template(template, to=TO, data=data)


BAD = {
    "to[0]": lambda: mail(to=Address(BREAK, TO)),
    "cc[0]": lambda: mail(cc=Address("", f"c@example.com{BREAK}")),
    "bcc[0]": lambda: mail(bcc=Address(BREAK, TO)),
    "reply_to[0]": lambda: mail(reply_to=Address(BREAK, TO)),
    "from_": lambda: mail(from_=Address(BREAK, NAME)),
    "subject": lambda: mail(subject=BREAK),
    "headers[X-A]": lambda: mail(headers={"X-A": BREAK}),
    "headers[number 1]": lambda: mail(headers={f"X-A: {BREAK}": "1"}),
    "headers[X-SES-CONFIGURATION-SET]": lambda: mail(headers={"X-SES-CONFIGURATION-SET": "other"}),
    "unsubscribe.url": lambda: mail(unsubscribe=Unsubscribe(url=f"https://example.com/{BREAK}")),
    "unsubscribe.mailto": lambda: mail(unsubscribe=Unsubscribe(mailto=f"leave@example.com{BREAK}")),
    "tags[t]": lambda: mail(tags={"t": BREAK}),
    "configuration_set": lambda: mail(configuration_set=BREAK),
    "attachments[0].name": lambda: mail(attachments=[Attachment(BREAK, b"text")]),
    "attachments[0].content_type": lambda: mail(attachments=[Attachment("a.txt", b"", content_type=BREAK)]),
    "attachments[0].content_id": lambda: mail(attachments=[Attachment("a.png", b"", content_id=BREAK)]),
    "attachments[1].name": lambda: mail(attachments=[Attachment("a.txt", b""), Attachment("a.exe", b"")]),
    "to": lambda: mail(to=[f"b{i}@example.com" for i in range(51)]),
    "headers": lambda: mail(headers={f"X-{i}": "1" for i in range(16)}),
    "content": lambda: mail(attachments=[Attachment("large.bin", bytes(41 * 1024 * 1024 * 3 // 4))]),
    "data[name]": lambda: templated(name=BREAK),
    "data[other]": lambda: templated(name="Kim", other={1, 2}),
    "template.name": lambda: templated(Template(name=BREAK)),
    "mime.headers[X-SES-SOURCE-ARN]": lambda: Message.from_mime(
        f"From: {NAME}\r\nTo: {TO}\r\nSubject: Hi\r\nX-SES-SOURCE-ARN: arn\r\n\r\ntext".encode()
    ),
}


@pytest.mark.parametrize("field", BAD)
async def test_it_is_refused_before_anything_leaves(field):
    """The error names the field and says nothing of what was in it."""
    wire = RecordingTransport()
    with pytest.raises(InvalidMessageError) as caught:
        await Sender(from_=NAME, transport=wire).send(BAD[field]())
    assert field in [problem.field for problem in caught.value.problems]
    assert "c@example.com" not in f"{caught.value} {caught.value!r}"
    assert wire.requests == []


async def test_the_batch_goes_on():
    """Each bad row is invalid, and the good ones between them leave."""
    wire = RecordingTransport()
    good = [mail(subject=f"good {number}") for number in range(len(BAD) + 1)]
    messages = [good[0]]
    for number, bad in enumerate(BAD.values(), 1):
        messages += (bad(), good[number])
    report = await Sender(from_=NAME, transport=wire).send_all(messages)
    assert (len(good), len(BAD)) == (report.counts[Status.SENT], report.counts[Status.INVALID])
    assert {message.subject for message in good} == {request.message.subject for request in wire.requests}


def test_in_a_script_it_is_the_same():
    """As above, without await."""
    wire = RecordingTransport()
    with SyncSender(from_=NAME, transport=wire) as sender:
        report = sender.send_all([bad() for bad in BAD.values()])
    assert len(BAD) == report.counts[Status.INVALID]
    assert wire.requests == []
