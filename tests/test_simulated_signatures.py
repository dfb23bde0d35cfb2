from __future__ import annotations

import datetime as dt
import json

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tanksend.testing import Credential, Request, SimulatedAccount

NOW = 1_800_000_000.0
HOST = "email.us-east-1.amazonaws.com"


def account(**settings):
    """An account that verifies signatures and knows two keys."""
    table = {"AKID": Credential("secret"), "ASIA": Credential("other", token="tok/en+=", expires_at=NOW + 60)}
    return SimulatedAccount(verify_signatures=True, credentials=table, **settings)


def signed(monkeypatch, *, key="AKID", secret="secret", token=None, at=NOW, method="GET", path="/v2/email/account",
           query="", body=b"", region="us-east-1", service="ses", headers=()):  # fmt: skip
    """A request signed by botocore, as it would arrive at `NOW`."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC).replace(tzinfo=None)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
    url = f"https://{HOST}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, {"Content-Type": "application/json", **dict(headers)}, body)
    SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    arrived = {name.lower(): value for name, value in request.headers.items()} | {"host": HOST}
    return Request(method, path, query, arrived, body, 0.0, NOW)


def code(account, request):
    """Code and text of what comes back."""
    answer = account.exchange(request).answer
    return dict(answer.headers).get("x-amzn-ErrorType"), json.loads(answer.body).get("message")


def test_what_botocore_signs_is_accepted(monkeypatch):
    """Long-term keys, session tokens, bodies, paths and queries that need encoding, headers with odd spaces."""
    simulated = account()
    requests = [
        signed(monkeypatch),
        signed(monkeypatch, key="ASIA", secret="other", token="tok/en+="),
        signed(monkeypatch, method="PUT", path="/v2/email/suppression/addresses",
               body=b'{"EmailAddress":"a+b@x.com","Reason":"BOUNCE"}'),
        signed(monkeypatch, path="/v2/email/suppression/addresses/a%2Bb%40x.com"),
        signed(monkeypatch, path="/v2/email/suppression/addresses",
               query="Reason=COMPLAINT&Reason=BOUNCE&PageSize=5&StartDate=2020-01-01T00%3A00%3A00Z"),
        signed(monkeypatch, headers={"X-Amz-Odd": "  a   b  "}.items()),
    ]  # fmt: skip
    assert [code(simulated, request)[0] for request in requests] == [None] * len(requests)
    assert simulated.counts.bad_signatures == 0


def tampered(request, **changes):
    """The request with something changed on the way."""
    values = {name: getattr(request, name) for name in ("method", "path", "query", "body", "monotonic", "wall")}
    headers = dict(request.headers) | changes.pop("headers", {})
    return Request(**(values | changes), headers={name: value for name, value in headers.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"{}"},
        {"path": "/v2/email/identities/x.com"},
        {"query": "a=b"},
        {"method": "POST"},
        {"headers": {"host": "evil.example.com"}},
    ],
)
def test_what_was_changed_on_the_way_is_refused(monkeypatch, changes):
    """Everything under the signature counts."""
    simulated = account()
    assert code(simulated, tampered(signed(monkeypatch), **changes)) == (
        "InvalidSignatureException",
        (
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        ),
    )
    assert simulated.counts.bad_signatures == 1


def test_the_code_of_a_mismatch_can_be_chosen(monkeypatch):
    """Both names have been seen."""
    simulated = account(signature_code="SignatureDoesNotMatch")
    assert code(simulated, signed(monkeypatch, secret="wrong"))[0] == "SignatureDoesNotMatch"


@pytest.mark.parametrize("options", [{"key": "NOBODY"}, {"token": "made up"}, {"key": "ASIA", "secret": "other"}])
def test_unknown_keys_and_tokens(monkeypatch, options):
    """A key that nobody knows, a token too many, a token too few."""
    expected = ("UnrecognizedClientException", "The security token included in the request is invalid.")
    assert code(account(), signed(monkeypatch, **options)) == expected


def test_expired_credentials(monkeypatch):
    """They are good until their time, also when it is moved by hand."""
    simulated = account()
    request = signed(monkeypatch, key="ASIA", secret="other", token="tok/en+=")
    assert code(simulated, request)[0] is None
    simulated.credentials["ASIA"].expires_at = NOW
    expected = ("ExpiredTokenException", "The security token included in the request is expired")
    assert code(simulated, request) == expected


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (
            -301,
            "Signature expired: 20270115T075459Z is now earlier than 20270115T075500Z (20270115T080000Z - 5 min.)",
        ),
        (
            301,
            (
                "Signature not yet current: 20270115T080501Z is still later than 20270115T080500Z "
                "(20270115T080000Z + 5 min.)"
            ),
        ),
    ],
)
def test_clocks_that_differ_by_more_than_five_minutes(monkeypatch, offset, text):
    """The text names both times."""
    assert code(account(), signed(monkeypatch, at=NOW + offset)) == ("InvalidSignatureException", text)
    assert code(account(), signed(monkeypatch, at=NOW + offset // 2))[0] is None


def test_another_region_or_service(monkeypatch):
    """The scope must be SES in this region."""
    assert "valid region" in code(account(), signed(monkeypatch, region="eu-west-1"))[1]
    assert "correct service" in code(account(), signed(monkeypatch, service="sesv2"))[1]


def test_headers_that_must_be_signed(monkeypatch):
    """A header of AWS's own that was added afterwards is refused, and one that was taken away."""
    request = signed(monkeypatch)
    assert "'x-amz-extra' must be" in code(account(), tampered(request, headers={"x-amz-extra": "1"}))[1]
    assert code(account(), tampered(request, headers={"host": None}))[0] == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "MissingAuthenticationTokenException"),
        ("Bearer x", "IncompleteSignatureException"),
        (
            f"AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature={'0' * 64}",
            "IncompleteSignatureException",
        ),
    ],
)
def test_authorization_headers_that_are_none(monkeypatch, header, expected):
    """Missing and malformed ones have codes of their own."""
    assert code(account(), tampered(signed(monkeypatch), headers={"authorization": header}))[0] == expected


def resigned(simulated, request, **headers):
    """The request with changed headers and the signature that the simulator itself would expect."""
    from tanksend.testing._signatures import _claim

    changed = tampered(request, headers=headers)
    claim = _claim(changed)
    stamp = changed.headers["x-amz-date"]
    good = simulated._signatures._signature(claim, simulated.credentials["AKID"], changed, stamp)
    return tampered(changed, headers={"authorization": changed.headers["authorization"][:-64] + good})


def test_dates_that_are_none_or_another_day(monkeypatch):
    """The date must be a date, of the day in the scope."""
    simulated = account()
    request = signed(monkeypatch)
    assert code(simulated, resigned(simulated, request, **{"x-amz-date": "today"}))[0] == "IncompleteSignatureException"
    assert "scope" in code(simulated, resigned(simulated, request, **{"x-amz-date": "20270116T000000Z"}))[1]


def test_a_credential_shows_no_secret():
    """Its repr says of what kind it is."""
    assert repr(Credential("secret", token="token")) == "<Credential temporary>"
    assert repr(Credential("secret")) == "<Credential long-term>"
