"""
The JSON of the SES v2 API: bodies that go out, answers that come back.

A body is spliced from pieces instead of built as a dict and dumped, because most of it is the same from one message of
a batch to the next: the From address, the configuration set and often the whole text and HTML. Those are kept encoded,
one of each, and recognised by identity.

Source: Amazon SES API v2 reference, "SendEmail" and "GetAccount".
"""

from __future__ import annotations

import json
import math
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from ._results import Receipt
from .exceptions import ConnectionFailedError, InvalidMessageError, OutcomeUnknownError, Problem
from .typing import Account

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._addresses import Address
    from ._messages import Attachment, Message
    from .typing import SendRequest

SEND_PATH = "/v2/email/outbound-emails"
ACCOUNT_PATH = "/v2/email/account"
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


def _attachment(attachment: Attachment) -> bytes:
    fields = [
        b'{"RawContent":"%b"' % attachment.encoded.encode(),
        b'"FileName":%b' % _quoted(attachment.name),
        b'"ContentDisposition":"INLINE"' if attachment.content_id else b'"ContentDisposition":"ATTACHMENT"',
        b'"ContentTransferEncoding":"BASE64"',
    ]
    if attachment.content_type is not None:
        fields.append(b'"ContentType":%b' % _quoted(attachment.content_type))
    if attachment.content_id is not None:
        fields.append(b'"ContentId":%b' % _quoted(attachment.content_id))
    return b",".join(fields) + b"}"


def _extras(message: Message) -> bytes:
    """The parts of ``Simple`` that most messages lack."""
    extras = b""
    headers = (*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ()))
    if headers:
        extras = b',"Headers":' + _pairs(headers)
    if message.attachments:
        extras += b',"Attachments":[%b]' % b",".join([_attachment(each) for each in message.attachments])
    return extras


class PayloadWriter:
    """
    Writes ``SendEmail`` bodies and keeps the pieces that repeat. Threads may share it.

    Each kept piece is one tuple of what it was made from and the bytes, replaced and never changed.
    """

    __slots__ = ("_from", "_html", "_set", "_text")

    def __init__(self) -> None:
        self._from: tuple[Address | None, bytes] = (None, b"")
        self._set: tuple[str | None, bytes] = (None, b"}")
        self._text: tuple[str | None, bytes] = (None, b"")
        self._html: tuple[str | None, bytes] = (None, b"")

    def send_email(self, request: SendRequest) -> bytes:
        """
        Write the body of one ``SendEmail``.

        Raises:
            InvalidMessageError: A text holds half of a surrogate pair, which UTF-8 cannot carry.
        """
        try:
            return b"".join(self._pieces(request))
        except UnicodeEncodeError:
            # Its text would carry the content.
            problem = Problem("content", "has half of a surrogate pair, which is no character")
            raise InvalidMessageError(problems=[problem], cause_type="UnicodeEncodeError") from None

    def _pieces(self, request: SendRequest) -> list[bytes]:
        message = request.message
        pieces = [
            self._sender(request.from_),
            _destination(request),
            b',"Content":{"Simple":{"Subject":{"Data":',
            _quoted(message.subject),
            b',"Charset":"UTF-8"},"Body":{',
        ]
        if message.text is not None:
            pieces.append(self._text_part(message.text))
        if message.html is not None:
            html = self._html_part(message.html)
            pieces.append(html if message.text is None else b"," + html)
        pieces.append(b"}")
        if message.headers or message.attachments or message.unsubscribe is not None:
            pieces.append(_extras(message))
        pieces.append(b"}}")
        if request.reply_to:
            pieces.append(b',"ReplyToAddresses":' + _addresses(request.reply_to))
        if request.tags:
            pieces.append(b',"EmailTags":' + _pairs(request.tags.items()))
        pieces.append(self._end(request.configuration_set))
        return pieces

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


def _destination(request: SendRequest) -> bytes:
    to = b'"ToAddresses":' + _addresses(request.to) if request.to else b""
    if not request.cc and not request.bcc:
        return to + b"}"
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
