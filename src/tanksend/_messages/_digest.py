"""The name of a message in a campaign, made of what it says and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import Message


def campaign_key(campaign: str, message: Message) -> str:
    """
    The ledger key of *message*, which has none of its own, in *campaign*.

    The campaign, a slash, and 32 hexadecimal digits of a SHA-256 over the campaign's name, the recipients (in any order
    and case, and whichever of To, Cc and Bcc they stand in) and the content: From, Reply-To, subject, text, HTML,
    attachments, headers, unsubscribe links, template and data, or the MIME parts. So the same mail to the same person
    is one message of a campaign however often it is run. Tags, configuration set, priority and whatever else does not
    change what the recipient reads do not count.

    Raises:
        InvalidMessageError: JSON cannot carry its template data.
    """
    from hashlib import sha256  # only here: keeps the import of the package quick

    made = sha256()
    for part in _parts(campaign, message):
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        # Each part with its length: else "ab" and "c" would be the same as "a" and "bc".
        made.update(b"%d:" % len(data))
        made.update(data)
    return f"{campaign}/{made.hexdigest()[:32]}"


def _parts(campaign: str, message: Message) -> Iterable[str | bytes]:
    recipients = message.recipients
    yield campaign
    yield from (recipients[0].key,) if len(recipients) == 1 else sorted(address.key for address in recipients)
    yield "from"
    if message.from_ is not None:
        yield message.from_.header()
    yield "reply-to"
    yield from (address.header() for address in message.reply_to)
    for name in ("subject", "text", "html"):
        yield name
        yield getattr(message, name) or ""
    for attachment in message.attachments:
        yield from ("attachment", attachment.name, attachment.content_type or "", attachment.content_id or "")
        yield attachment.content
    for name, value in (*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ())):
        yield from ("header", name, value)
    yield from _made_parts(message)


def _made_parts(message: Message) -> Iterable[str | bytes]:
    template = message.template
    if template is not None:
        import json  # as above

        yield from ("template", template.name or "", template.subject or "", template.text or "", template.html or "")
        # Twice, for order does not count, and names that are no text have become text by then.
        yield json.dumps(json.loads(message.data.encoded), sort_keys=True)
    if message.mime is not None:
        yield "mime"
        yield message.mime.content
