"""
One batch, and what different servers say they have of it, in one form.

Used by `test_same_inbox.py` and the acceptance run of the same name.
"""

from __future__ import annotations

import base64
import email
import email.policy
from collections.abc import Iterable, Iterator, Mapping
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

import attrs

from tanksend import Attachment, Message, Sender, Unsubscribe
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import Delivered
from tanksend.typing import Transport

FROM = "Tank 탱크 <no-reply@example.com>"
People = tuple[tuple[str, str], ...]
LETTERS = ("안녕하세요", "こんにちは", "مرحبا", "שלום", "Привет", "🎉👩‍👩‍👧", "naïve café", "½ ÷ ∞")

CALENDAR = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nSUMMARY:회의\r\nEND:VCALENDAR\r\n"

# What aws-ses-v2-local does not keep, and why each is left out there. Nothing else is.
LEFT_OUT_THERE = {
    "tags": "it drops message tags",
    "configuration_set": "it drops the configuration set",
}
LEFT_OUT_THERE_OF_RAW = {
    "bcc": "it reads recipients of raw mail from the MIME headers alone, where no Bcc may stand",
    "headers": "it drops the headers of raw mail",
    "text": "it makes a text of the HTML where there is none",
    "html": "it writes inline images into the HTML",
}


@attrs.frozen
class Seen:
    """One message as a server has it. Whatever is sorted has no order of its own."""

    sender: People
    to: People
    cc: People
    bcc: People
    reply_to: People
    subject: str
    text: str | None
    html: str | None
    calendars: tuple[str | None, ...]
    attachments: tuple[tuple[str, str, str, bytes], ...]
    headers: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...]
    configuration_set: str | None
    raw: bool

    def without(self, names: Iterable[str]) -> dict[str, Any]:
        """All fields but those."""
        left_out = {*names, "raw"}
        return {name: value for name, value in attrs.asdict(self).items() if name not in left_out}


def comparable(inbox: Iterable[Seen], *, there: bool = False) -> dict[str, dict[str, Any]]:
    """
    The messages by subject, with the fields that are to be the same.

    Args:
        inbox: The messages.
        there: It is to be compared with that of aws-ses-v2-local.
    """
    found: dict[str, dict[str, Any]] = {}
    for seen in inbox:
        left_out = {**LEFT_OUT_THERE, **(LEFT_OUT_THERE_OF_RAW if seen.raw else {})} if there else {}
        assert seen.subject not in found, "every subject is there once"
        found[seen.subject] = seen.without(left_out)
    return found


# --- the batch


def batch(*, attachments: bool = True) -> Iterator[Message]:
    """Some forty messages of all kinds; those with attachments only if the transport can carry them."""
    for number, letters in enumerate(LETTERS):
        person = f"{letters} <p{number}@example.com>"
        yield Message(person, f"{number} text {letters}", text=f"{letters}\n" * 3)
        yield Message(person, f"{number} html {letters}", html=f"<p>{letters} &amp; more</p>")
        yield Message(
            person, f"{number} both {letters}", text=letters, html=f"<b>{letters}</b>", tags={"n": str(number)}
        )
        yield Message.from_mime(_mime(number, letters))
    plain = {"text": "Hello"}
    yield Message("a@example.com", "cc", **plain, cc=["b@example.com", "Kim, Jr <c@example.com>"])
    yield Message(
        "a@example.com", "bcc", **plain, bcc=["b@example.com", "김 <c@example.com>"], configuration_set="main"
    )
    yield Message([f"p{number}@example.com" for number in range(40)], "many", **plain)
    yield Message("a@example.com", "reply-to", **plain, reply_to=["Help <help@example.com>", "me@example.com"])
    yield Message("a@example.com", "headers", **plain, headers={"X-Campaign": "news; 1", "X-Other": "a, b"})
    unsubscribe = Unsubscribe(url="https://example.com/u?a=1&b=2", mailto="u@example.com")
    yield Message("a@example.com", "unsubscribe", **plain, unsubscribe=unsubscribe)
    if attachments:
        yield from _attached(plain)


def _attached(plain: Mapping[str, str]) -> Iterator[Message]:
    pdf = Attachment("보고서 🎉.pdf", b"%PDF-1.7" + bytes(range(256)) * 40, content_type="application/pdf")
    same = (
        Attachment("a.txt", b"one", content_type="text/plain"),
        Attachment("a.txt", b"two", content_type="text/plain"),
    )
    logo = Attachment("logo.png", b"\x89PNG\r\n", content_type="image/png", content_id="logo")
    yield Message("a@example.com", "one attachment", **plain, attachments=[pdf])
    yield Message("a@example.com", "two of a name", **plain, attachments=same)
    yield Message("a@example.com", "an inline image", html='<img src="cid:logo">', attachments=[logo, pdf])
    yield Message(
        "a@example.com",
        "an invitation",
        **plain,
        html="<p>Hello</p>",
        attachments=[pdf, Attachment.invitation(CALENDAR)],
    )


def _mime(number: int, letters: str) -> EmailMessage:
    mail = EmailMessage()
    mail["To"] = f"{letters} <p{number}@example.com>"
    mail["Cc"] = "copy@example.com"
    mail["Subject"] = f"{number} mime {letters}"
    mail.set_content(f"{letters}\n")
    if number % 2:
        mail.add_alternative(f"<i>{letters}</i>\n", subtype="html")
    if number % 4 == 3:
        mail.add_attachment(b"\0\1\2" * 100, maintype="application", subtype="octet-stream", filename=f"{letters}.bin")
    return mail


async def send(transport: Transport, messages: Iterable[Message]) -> int:
    """Send them with a `Sender`; gives how many were sent, which has to be all."""
    limiter = TokenBucketLimiter(float("inf"))
    async with Sender(from_=FROM, transport=transport, limiter=limiter, max_parallel=8) as sender:
        report = await sender.send_all(messages)
    await transport.aclose()
    report.raise_for_failures()
    return report.total


# --- what servers have


def simulated(inbox: Iterable[Delivered]) -> list[Seen]:
    """What the simulated SES has, from the requests as it got them."""
    return [_simple(item) if "Simple" in item.content["Content"] else _raw(item) for item in inbox]  # type: ignore[index]


def _simple(item: Delivered) -> Seen:
    content = item.content or {}
    simple, destination = content["Content"]["Simple"], content["Destination"]
    return Seen(
        sender=_people([content["FromEmailAddress"]]),
        to=_people(destination.get("ToAddresses", ())),
        cc=_people(destination.get("CcAddresses", ())),
        bcc=_people(destination.get("BccAddresses", ())),
        reply_to=_people(content.get("ReplyToAddresses", ())),
        subject=simple["Subject"]["Data"],
        text=_text(simple["Body"].get("Text", {}).get("Data")),
        html=_text(simple["Body"].get("Html", {}).get("Data")),
        calendars=(),
        attachments=_attachments(
            (each["FileName"], each.get("ContentType"), each.get("ContentId"), base64.b64decode(each["RawContent"]))
            for each in simple.get("Attachments", ())
        ),
        headers=_pairs(simple.get("Headers", ()), "Name", "Value"),
        tags=tuple(sorted(item.tags.items())),
        configuration_set=item.configuration_set,
        raw=False,
    )


def _raw(item: Delivered) -> Seen:
    """Raw mail, read by the standard library's parser; the envelope decides who gets it."""
    content = item.content or {}
    mail = email.message_from_bytes(base64.b64decode(content["Content"]["Raw"]["Data"]), policy=email.policy.default)
    files = [(part.get_filename() or "", part.get_content_type(), part["Content-ID"], part.get_content())
             for part in mail.iter_attachments()]  # fmt: skip
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    return Seen(
        sender=_people([str(mail["From"])]),
        to=_people(content["Destination"].get("ToAddresses", ())),
        cc=_people(content["Destination"].get("CcAddresses", ())),
        bcc=_people(content["Destination"].get("BccAddresses", ())),
        reply_to=_people([str(mail["Reply-To"])] if mail["Reply-To"] else ()),
        subject=str(mail["Subject"]),
        text=_text(None if text is None else text.get_content()),
        html=_text(None if html is None else html.get_content()),
        calendars=tuple(
            _text(part.get_content())
            for part in mail.walk()
            if part.get_content_type() == "text/calendar" and not part.get_filename()
        ),
        attachments=_attachments(files),
        headers=(),
        tags=tuple(sorted(item.tags.items())),
        configuration_set=item.configuration_set,
        raw=True,
    )


def local(emails: Iterable[Mapping[str, Any]], raw: Iterable[str]) -> list[Seen]:
    """
    What aws-ses-v2-local has.

    Args:
        emails: As it tells them.
        raw: The subjects of those that were sent raw, which it does not tell.
    """
    subjects = set(raw)
    return [_local(item, raw=item["subject"] in subjects) for item in emails]


def _local(item: Mapping[str, Any], *, raw: bool) -> Seen:
    # A version of the text that is neither plain nor HTML is an attachment without a name to it.
    files = [each for each in item["attachments"] if "filename" in each]
    others = [each for each in item["attachments"] if each not in files]
    return Seen(
        sender=_people([item["from"]]),
        to=_people(item["destination"]["to"]),
        cc=_people(item["destination"]["cc"]),
        bcc=_people(item["destination"]["bcc"]),
        reply_to=_people(item["replyTo"]),
        subject=item["subject"],
        text=_text(item["body"].get("text")),
        html=_text(item["body"].get("html")),
        calendars=tuple(_text(base64.b64decode(each["content"]).decode()) for each in others),
        attachments=_attachments(
            (each["filename"], each["contentType"], each.get("contentId"), base64.b64decode(each["content"]))
            for each in files
        ),
        headers=_pairs(item.get("headers", ()), "name", "value"),
        tags=(),
        configuration_set=None,
        raw=raw,
    )


def _people(written: Iterable[str]) -> People:
    """Names and addresses, however they are quoted and encoded."""
    return tuple((str(make_header(decode_header(name))), address) for name, address in getaddresses(list(written)))


def _text(text: str | None) -> str | None:
    """Line ends, and the one at the end, are a matter of the form."""
    return None if text is None else text.replace("\r\n", "\n").rstrip("\n")


def _pairs(pairs: Iterable[Mapping[str, str]], name: str, value: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((pair[name], pair[value]) for pair in pairs))


def _attachments(
    files: Iterable[tuple[str, str | None, str | None, bytes]],
) -> tuple[tuple[str, str, str, bytes], ...]:
    return tuple(
        (name, kind or "application/octet-stream", (content_id or "").strip("<>"), content)
        for name, kind, content_id, content in files
    )
