"""
What SES's texts tell, taken out by patterns too narrow to carry anything else.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, TypedDict

import attrs

from .._wording import at_domain
from ..exceptions import MailFromDomainNotVerifiedError, Origin, Scope

if TYPE_CHECKING:
    from collections.abc import Collection

# Longer than any text of SES with fifty addresses in it; keeps every pattern quick whatever comes.
TEXT_LIMIT = 16_384


@attrs.frozen
class Answer:
    """What came back and what was asked, before anything is made of it."""

    code: str
    text: str
    status: int | None = None
    request_id: str | None = None
    senders: Collection[str] = ()
    region: str | None = None
    region_source: str | None = None


class Detail(TypedDict, total=False):
    """What a row's `Row.refine` finds in the text; it replaces what the row says."""

    message: str
    scope: Scope
    origin: Origin | None
    remedy: str
    identities: tuple[str, ...]
    field: str


# None of these may run into an address: a name of ours and a local part look alike.
_NO_ADDRESS = r"(?![^\s`'\"]*@)"
_REGION = rf"\b(?:region {_NO_ADDRESS}|arn:aws[a-z-]*:ses:(?=[a-z0-9-]{{1,32}}:))([a-z]{{2}}(?:-[a-z]+){{1,3}}-\d)\b"
_ACTION = rf"perform:?\s*[`'\"]?{_NO_ADDRESS}((?:ses|sts):[a-z]{{1,64}})\b"
_LISTED = r"failed the check[^:]{0,80}:(.*)"
_ADDRESS = r"(?<![^\s,;:<>\"'`()])[^\s,;:<>\"'`()]{1,320}@[\w.-]{1,255}"
_RESOURCE = r":identity/([^\s'`\",]{1,512})"
_ATTRIBUTE = r"attribute '([a-z_$][\w.$-]{0,63})' is not present"
_MEMBER = rf"value (?:'[^']*' )?at '{_NO_ADDRESS}([a-z0-9_.\[\]]{{1,128}})'"
# Twelve digits are an account id.
NAME = (
    rf"(?:configuration set|template) [<'\"]?{_NO_ADDRESS}(?!(?:\d{{12}}|does|is|was|not|for|in|with|has|name)\b)"
    r"([\w-]{1,64})[>'\"]?(?=[\s.]|\Z)"
)


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile on first use: most of the table is never needed, and importing it must cost nothing."""
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def find(pattern: str, text: str) -> str | None:
    found = compiled(pattern).search(text)
    return found[1] if found else None


def _region(answer: Answer) -> str:
    """Where, as the end of a sentence: SES writes region names in capitals."""
    region = find(_REGION, answer.text) or answer.region
    source = f" (region from {answer.region_source})" if answer.region_source else ""
    return f"in {region.lower()}{source}" if region else f"in this region{source}"


def _bare(identity: str) -> str:
    """The address within ``Name <address>``, in lower case."""
    return identity.rpartition("<")[2].strip(" >").lower()


def _ours(identities: Collection[str], senders: Collection[str]) -> bool:
    """Whether one of *identities* is a sender's address or its domain."""
    addresses = {_bare(sender) for sender in senders}
    domains = {address.rpartition("@")[2] for address in addresses}
    return not (addresses | domains).isdisjoint(map(_bare, identities))


def _listed(text: str) -> tuple[str, ...]:
    """The identities SES lists; the list may end in an ellipsis, and an address may have its display name."""
    pieces = (_bare(piece.rstrip(". \r\n")) for piece in (find(_LISTED, text) or "").split(","))
    return tuple(piece for piece in pieces if ("@" in piece or "." in piece) and " " not in piece)


def _named(identity: str) -> str:
    return at_domain(f"@{identity}").removeprefix("an address at ")


def unverified_identity(answer: Answer) -> Detail:
    """
    Tell our own unverified From from a recipient who is not verified in the sandbox.

    Without a list it is taken for the From: outside the sandbox it can be nothing else.
    """
    identities, where = _listed(answer.text), _region(answer)
    ours = [identity for identity in identities if _ours([identity], answer.senders)]
    if identities and not ours:
        return {
            "message": f"{_named(identities[0])} is not verified {where}, where the account seems to be in the sandbox",
            "remedy": "Ask AWS for production access here, or verify the recipient (or the From, if it is that)",
            "scope": Scope.RECIPIENT,
            "identities": identities,
            "field": "recipient",
        }
    name = _named(ours[0]) if ours else "the From identity"
    return {"message": f"SES refuses mail from {name}, which is not verified {where}", "identities": identities}


def missing_action(answer: Answer) -> Detail:
    """
    Name the missing IAM action: the text's own, which is not always the operation that was called.

    Raw content asks for ``ses:SendRawEmail``, templates for ``ses:SendTemplatedEmail``.
    """
    identities = tuple(compiled(_RESOURCE).findall(answer.text))
    action = find(_ACTION, answer.text)
    if action is None:
        return {"identities": identities}
    return {
        "message": f"The credentials are not allowed to call {action} {_region(answer)}",
        "remedy": f"Allow the action {action} for the From identity and the configuration set in the IAM policy of "
        "these credentials (in the sandbox for the recipient's identity too)",
        "identities": identities,
    }


def missing_variable(answer: Answer) -> Detail:
    """Name the template's variable that the data lacks."""
    name = find(_ATTRIBUTE, answer.text)
    if name is None:
        return {}
    return {"message": f"The template needs the variable {name}, and the data lacks it", "field": f"data[{name}]"}


def mail_from_records(answer: Answer) -> Detail:
    """Write the region into the records to publish, where it is known."""
    remedy = MailFromDomainNotVerifiedError.remedy or ""
    return {"remedy": remedy.replace("<region>", answer.region or "<region>")}


# SES checks addresses as JavaMail's InternetAddress does, and says what that says.
_SYNTAX = (
    (r"missing final '@domain'", "it has no @ with a domain after it"),
    (r"missing domain", "nothing stands after its @"),
    (r"missing local name", "nothing stands before its @"),
    (r"local address starts with dot", "its part before the @ begins with a dot"),
    (r"local address ends with dot", "its part before the @ ends with a dot"),
    (r"local address contains dot-dot", "its part before the @ has two dots in a row"),
    (r"local address contains control or whitespace", "its part before the @ has a blank or a character outside ASCII"),
    (r"local address contains illegal character", "its part before the @ has a character that needs quotation marks"),
    (r"quote not at end|unexpected quote|unterminated quote", "a quotation mark stands where none may"),
    (r"domain starts with dot", "its domain begins with a dot"),
    (r"domain ends with dot", "its domain ends with a dot"),
    (r"domain contains dot-dot", "its domain has two dots in a row"),
    (r"domain literal", "its domain in brackets is not an IP address"),
    (r"domain contains control or whitespace", "its domain has a blank or a character that is not in punycode"),
    (r"domain contains illegal character", "its domain has other characters than letters, digits, hyphens and dots"),
    (r"address length is more than", "with its display name it is longer than 320 characters"),
    (r"illegal address|invalid email address|address unknown", "it cannot be read as an address"),
)
SYNTAX = "|".join(pattern for pattern, _ in _SYNTAX)


def refused_address(answer: Answer) -> Detail:
    """Say what is wrong with an address, and whose it is where the text shows it."""
    reason = next(reason for pattern, reason in _SYNTAX if compiled(pattern).search(answer.text))
    identities = tuple(compiled(_ADDRESS).findall(answer.text))
    if not identities:
        return {"message": f"SES refused an address: {reason}"}
    whose: Detail = {"field": "recipient", "scope": Scope.RECIPIENT}
    if _ours(identities, answer.senders):
        whose = {"field": "from_", "scope": Scope.ORIGIN, "origin": Origin.FROM}
    return {"message": f"SES refused {at_domain(identities[0])}: {reason}", "identities": identities, **whose}


def refused_member(answer: Answer) -> Detail:
    """Name the member of the request that SES could not read."""
    field = find(_MEMBER, answer.text)
    return {"field": field} if field else {}
