"""
The JSON of the SES v2 API: bodies that go out, answers that come back.

A body is spliced from pieces instead of built as a dict and dumped, because most of it is the same from one message of
a batch to the next: the From address, the configuration set and often the whole text and HTML. Those are kept encoded,
one of each, and recognised by identity.

A call for many recipients (``SendBulkEmail``) says once what they share, and of each recipient only the rest.

Source: Amazon SES API v2 reference, "SendEmail", "SendBulkEmail", "GetAccount" and "GetEmailTemplate".
"""

from __future__ import annotations

import binascii
import json
import math
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from ._classify import classify_bulk
from ._messages import NO_DATA, Template
from ._results import Receipt
from .exceptions import ConnectionFailedError, InvalidMessageError, OutcomeUnknownError, Problem
from .typing import Account

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ._addresses import Address
    from ._messages import Attachment, Message
    from .exceptions import SendError
    from .typing import BulkRequest, SendRequest

SEND_PATH = "/v2/email/outbound-emails"
BULK_PATH = "/v2/email/outbound-bulk-emails"
ACCOUNT_PATH = "/v2/email/account"
TEMPLATES_PATH = "/v2/email/templates"
REQUEST_ID = "x-amzn-requestid"

# Below this many characters one call of the C encoder is quicker than several passes over bytes.
_SHORT = 256
# The longest text that is kept encoded (characters): it is held twice as long as it is the last one.
_KEPT = 4_194_304
# The control characters that JSON must escape and no mail has. The usual three are replaced by hand.
_RARE = bytes(byte for byte in range(0x20) if chr(byte) not in "\t\n\r")


def _quoted(text: str) -> bytes:
    """*text* as a JSON string in UTF-8."""
    if len(text) < _SHORT:
        return encode_basestring(text).encode()
    raw = text.encode()
    if len(raw.translate(None, _RARE)) != len(raw):
        return encode_basestring(text).encode()
    raw = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"%b"' % raw.replace(b"\r", b"\\r").replace(b"\t", b"\\t")


def _content(text: str) -> bytes:
    return b'{"Data":%b,"Charset":"UTF-8"}' % _quoted(text)


def _addresses(addresses: Iterable[Address]) -> bytes:
    return b"[%b]" % b",".join([_quoted(address.header()) for address in addresses])


def _pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A list of names and values, the shape of headers and tags alike."""
    return b"[%b]" % b",".join([b'{"Name":%b,"Value":%b}' % (_quoted(name), _quoted(value)) for name, value in pairs])


def _attachment(attachment: Attachment) -> list[bytes]:
    shown = attachment.content_id
    fields = [
        b'{"RawContent":"',
        attachment.encoded,
        b'","FileName":' + _quoted(attachment.name),
        b',"ContentDisposition":"%b","ContentTransferEncoding":"BASE64"' % (b"INLINE" if shown else b"ATTACHMENT"),
    ]
    if attachment.content_type is not None:
        fields.append(b',"ContentType":' + _quoted(attachment.content_type))
    if shown is not None:
        fields.append(b',"ContentId":' + _quoted(shown.strip("<>")))  # SES puts the brackets around it
    return [*fields, b"}"]


def _headers(message: Message) -> tuple[tuple[str, str], ...]:
    return (*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ()))


def _attachments(message: Message) -> list[bytes]:
    """Pieces, and no copy of what may be 40 MB."""
    if not message.attachments:
        return []
    pieces = [piece for each in message.attachments for piece in (b",", *_attachment(each))]
    return [b',"Attachments":[', *pieces[1:], b"]"]


def _extras(message: Message) -> list[bytes]:
    """The parts of ``Simple`` and ``Template`` that most messages lack."""
    headers = _headers(message)
    return [b',"Headers":' + _pairs(headers), *_attachments(message)] if headers else _attachments(message)


def _template(template: Template) -> bytes:
    """Which template, as the beginning of ``Template``."""
    if template.name is not None:
        return b'{"Template":{"TemplateName":%b,"TemplateData":' % _quoted(template.name)
    return b'{"Template":{"TemplateContent":%b,"TemplateData":' % template_content(template)


def template_content(template: Template) -> bytes:
    """The content of an inline template, as SES takes it for sending and for keeping."""
    parts = (("Subject", template.subject), ("Text", template.text), ("Html", template.html))
    return b"{%b}" % b",".join(
        [b'"%b":%b' % (name.encode(), _quoted(text)) for name, text in parts if text is not None]
    )


class PayloadWriter:
    """
    Writes ``SendEmail`` and ``SendBulkEmail`` bodies and keeps the pieces that repeat. Threads may share it.

    Each kept piece is one tuple of what it was made from and the bytes, replaced and never changed.
    """

    __slots__ = ("_bulk", "_from", "_html", "_set", "_template", "_text")

    def __init__(self) -> None:
        self._bulk: tuple[tuple[object, ...], bytes] = ((), b"")
        self._template: tuple[Template | None, bytes] = (None, b"")
        self._from: tuple[Address | None, bytes] = (None, b"")
        self._set: tuple[str | None, bytes] = (None, b"}")
        self._text: tuple[str | None, bytes] = (None, b"")
        self._html: tuple[str | None, bytes] = (None, b"")

    def send_email(self, request: SendRequest) -> bytes:
        """
        Write the body of one ``SendEmail``.

        Raises:
            InvalidMessageError: A text holds half of a surrogate pair, which UTF-8 cannot carry, or JSON cannot carry
                the template's data.
        """
        message = request.message
        try:
            if message.template is not None:
                return b"".join(self._pieces(request, self._templated(message, message.template)))
            if message.attachments or message.mime is not None:
                from . import _mime  # only here: most mail needs nothing of it

                if _mime.needs_raw(request):
                    return b"".join(self._pieces(request, _raw(_mime.render(request))))
            return b"".join(self._pieces(request))
        except UnicodeEncodeError:
            raise _half_pair() from None

    def send_bulk(self, request: BulkRequest) -> bytes:
        """
        Write the body of one ``SendBulkEmail``; what its requests share is taken from the first.

        Raises:
            InvalidMessageError: As for `send_email`.
            ValueError: There are no requests, or the first one has no template.
        """
        try:
            entries = ",".join([_entry(each) for each in request.requests])
            return b"%b%b]}" % (self._bulk_start(request.requests), entries.encode())
        except UnicodeEncodeError:
            raise _half_pair() from None

    def _bulk_start(self, requests: Sequence[SendRequest]) -> bytes:
        """All that the entries share; by identity, because within a batch it is the very same."""
        request = requests[0] if requests else None
        template = request.message.template if request else None
        if request is None or template is None:
            raise ValueError("a bulk request needs requests with a template")
        attachments = request.message.attachments
        shared = (template, request.from_, request.configuration_set, request.reply_to, *attachments)
        kept, piece = self._bulk
        if len(kept) != len(shared) or any(new is not old for new, old in zip(shared, kept, strict=True)):
            piece = b"".join(self._shared_pieces(request, template))
            if len(piece) <= _KEPT:
                self._bulk = shared, piece
        return piece

    def _shared_pieces(self, request: SendRequest, template: Template) -> list[bytes]:
        pieces = [b'{"FromEmailAddress":%b,' % _quoted(request.from_.header())]
        if request.reply_to:
            pieces.append(b'"ReplyToAddresses":%b,' % _addresses(request.reply_to))
        if request.configuration_set is not None:
            pieces.append(b'"ConfigurationSetName":%b,' % _quoted(request.configuration_set))
        # No default tags and headers: each entry has all of its own.
        pieces += (b'"DefaultContent":', _template(template), b'"{}"', *_attachments(request.message))
        pieces.append(b'}},"BulkEmailEntries":[')
        return pieces

    def _pieces(self, request: SendRequest, content: Iterable[bytes] | None = None) -> list[bytes]:
        """The body with *content*, or with the simple form, which most mail has."""
        message = request.message
        pieces = [self._sender(request.from_), _destination(request), b',"Content":']
        if content is not None:
            pieces += content
        else:
            pieces += (b'{"Simple":{"Subject":{"Data":', _quoted(message.subject), b',"Charset":"UTF-8"},"Body":{')
            if message.text is not None:
                pieces.append(self._text_part(message.text))
            if message.html is not None:
                html = self._html_part(message.html)
                pieces.append(html if message.text is None else b"," + html)
            pieces.append(b"}")
            if message.headers or message.attachments or message.unsubscribe is not None:
                pieces += _extras(message)
            pieces.append(b"}}")
        if request.reply_to:
            pieces.append(b',"ReplyToAddresses":' + _addresses(request.reply_to))
        if request.tags:
            pieces.append(b',"EmailTags":' + _pairs(request.tags.items()))
        pieces.append(self._end(request.configuration_set))
        return pieces

    def _templated(self, message: Message, template: Template) -> Iterable[bytes]:
        kept, piece = self._template
        if kept is not template:
            piece = _template(template)
            self._template = template, piece
        return (piece, _quoted(message.data.encoded), *_extras(message), b"}}")

    def _sender(self, sender: Address) -> bytes:
        kept, piece = self._from
        if kept is not sender:
            piece = b'{"FromEmailAddress":%b,"Destination":{' % _quoted(sender.header())
            self._from = sender, piece
        return piece

    def _end(self, configuration_set: str | None) -> bytes:
        kept, piece = self._set
        if kept is not configuration_set:
            piece = b"}" if configuration_set is None else b',"ConfigurationSetName":%b}' % _quoted(configuration_set)
            self._set = configuration_set, piece
        return piece

    def _text_part(self, text: str) -> bytes:
        kept, piece = self._text
        if kept is not text:
            piece = b'"Text":' + _content(text)
            if len(text) <= _KEPT:
                self._text = text, piece
        return piece

    def _html_part(self, html: str) -> bytes:
        kept, piece = self._html
        if kept is not html:
            piece = b'"Html":' + _content(html)
            if len(html) <= _KEPT:
                self._html = html, piece
        return piece


def _half_pair() -> InvalidMessageError:
    """In place of the codec's error, whose text would carry the content."""
    problem = Problem("content", "has half of a surrogate pair, which is no character")
    return InvalidMessageError(problems=[problem], cause_type="UnicodeEncodeError")


def _raw(mail: bytes) -> Iterable[bytes]:
    return (b'{"Raw":{"Data":"', binascii.b2a_base64(mail, newline=False), b'"}}')


_ONE_CLICK = (
    ',"ReplacementHeaders":[{"Name":"List-Unsubscribe","Value":%s},'
    '{"Name":"List-Unsubscribe-Post","Value":"List-Unsubscribe=One-Click"}]'
)


def _entry(request: SendRequest) -> str:
    """
    One recipient's part of a ``SendBulkEmail``.

    Put together as text and encoded with all others at once: there are many of these, and all are short.
    """
    message = request.message
    quoted = encode_basestring
    if len(request.to) == 1 and not request.cc and not request.bcc:
        piece = f'{{"Destination":{{"ToAddresses":[{quoted(request.to[0].header())}]}}'
    else:
        piece = '{"Destination":{' + _destination(request).decode()
    if message.data is not NO_DATA:
        data = quoted(message.data.encoded)
        piece += f',"ReplacementEmailContent":{{"ReplacementTemplate":{{"ReplacementTemplateData":{data}}}}}'
    unsubscribe = message.unsubscribe
    if unsubscribe is not None and unsubscribe.url and not unsubscribe.mailto and not message.headers:
        piece += _ONE_CLICK % quoted(f"<{unsubscribe.url}>")  # what campaigns have
    elif message.headers or unsubscribe is not None:
        piece += f',"ReplacementHeaders":[{_text_pairs(_headers(message))}]'
    if request.tags:
        piece += f',"ReplacementTags":[{_text_pairs(request.tags.items())}]'
    return piece + "}"


def _text_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    quoted = encode_basestring
    return ",".join([f'{{"Name":{quoted(name)},"Value":{quoted(value)}}}' for name, value in pairs])


def _destination(request: SendRequest) -> bytes:
    if len(request.to) == 1 and not request.cc and not request.bcc:
        return b'"ToAddresses":[%b]}' % _quoted(request.to[0].header())
    to = b'"ToAddresses":' + _addresses(request.to) if request.to else b""
    lists = [to] if to else []
    if request.cc:
        lists.append(b'"CcAddresses":' + _addresses(request.cc))
    if request.bcc:
        lists.append(b'"BccAddresses":' + _addresses(request.bcc))
    return b",".join(lists) + b"}"


def parse_receipt(body: bytes, headers: Mapping[str, str]) -> Receipt:
    """
    Read the answer to an accepted ``SendEmail``.

    Args:
        body: The whole body of a 200.
        headers: Its headers by lower-case name.

    Raises:
        OutcomeUnknownError: There is no message id in it, so that nothing says that SES has the message.
    """
    answer = _object(body)
    message_id = answer.get("MessageId")
    if isinstance(message_id, str) and message_id:
        return Receipt(message_id, headers.get(REQUEST_ID))
    raise OutcomeUnknownError(
        "The answer has status 200 and no message id",
        status=200,
        request_id=headers.get(REQUEST_ID),
    )


def parse_bulk(
    body: bytes, headers: Mapping[str, str], count: int, *, senders: Collection[str] = ()
) -> Sequence[Receipt | SendError]:
    """
    Read the answer to a ``SendBulkEmail``: what became of each entry, in order.

    Args:
        body: The whole body of a 200.
        headers: Its headers by lower-case name.
        count: How many entries there were.
        senders: The From addresses, to tell them from recipients in SES's texts.

    Returns:
        *count* outcomes. Where the answer does not say what became of an entry, it is an `OutcomeUnknownError`; where
        it has not as many results as there were entries, nobody knows whose they are, and all are.
    """
    results = _object(body).get("BulkEmailEntryResults")
    request_id = headers.get(REQUEST_ID)
    if not isinstance(results, list) or len(results) != count:
        return [_unsettled("The answer has not one result for each entry", request_id) for _ in range(count)]
    return [_outcome(result, request_id, senders) for result in results]


def _outcome(result: object, request_id: str | None, senders: Collection[str]) -> Receipt | SendError:
    if not isinstance(result, dict):
        return _unsettled("The answer has no result for this entry", request_id)
    status, message_id, text = result.get("Status"), result.get("MessageId"), result.get("Error")
    if status == "SUCCESS" and isinstance(message_id, str) and message_id:
        return Receipt(message_id, request_id)
    if not isinstance(status, str):
        return _unsettled("The answer has no status for this entry", request_id)
    error = classify_bulk(status, text if isinstance(text, str) else "", senders=senders, request_id=request_id)
    if error is not None:
        return error
    if isinstance(message_id, str) and message_id:
        return Receipt(message_id, request_id)
    return _unsettled("The answer has a success and no message id for this entry", request_id)


def _unsettled(what: str, request_id: str | None) -> OutcomeUnknownError:
    return OutcomeUnknownError(what, status=200, request_id=request_id)


def parse_template(body: bytes) -> Template | None:
    """Read the content of a stored template, as an inline one; None if the answer has none."""
    content = _object(body).get("TemplateContent")
    if not isinstance(content, dict):
        return None
    subject, text, html = (content.get(name) for name in ("Subject", "Text", "Html"))
    if not all(part is None or isinstance(part, str) for part in (subject, text, html)):
        return None
    return Template(subject=subject or "", text=text if html is not None else text or "", html=html)


def parse_account(body: bytes, headers: Mapping[str, str]) -> Account:
    """
    Read the answer of ``GetAccount``.

    Raises:
        ConnectionFailedError: The answer is not one of SES; asking again is harmless.
    """
    answer = _object(body)
    try:
        quota = answer["SendQuota"]
        return Account(
            max_send_rate=_finite(quota["MaxSendRate"]),
            max_24_hour_send=_finite(quota["Max24HourSend"]),
            sent_last_24_hours=_finite(quota["SentLast24Hours"]),
            production_access=bool(answer.get("ProductionAccessEnabled", True)),
            sending_enabled=bool(answer.get("SendingEnabled", True)),
            enforcement_status=str(answer.get("EnforcementStatus", "HEALTHY")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConnectionFailedError(
            "The answer about the account is not one of SES",
            status=200,
            request_id=headers.get(REQUEST_ID),
            cause_type=type(error).__name__,
        ) from None


def _finite(value: object) -> float:
    """A figure that can be reckoned with; `json` also reads NaN and Infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a figure")
    return float(value)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object in *body*; an empty one if there is none."""
    try:
        answer = json.loads(body.decode())
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
