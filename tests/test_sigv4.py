from __future__ import annotations

import datetime as dt
import hashlib
import pickle
import re
import threading

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given, strategies as st

from tanksend._sigv4 import Credentials, Signer, request_target
from tanksend.exceptions import CredentialsError, SettingError

HOST = "email.ap-southeast-1.amazonaws.com"
REGION = "ap-southeast-1"
SEND = "/v2/email/outbound-emails"
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = 1_790_000_000.25

key_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
targets = st.builds(
    request_target,
    st.sampled_from([SEND, "/v2/email/suppression/addresses", "/v2/email/account"]),
    st.text(min_size=1, max_size=12).filter(lambda text: text not in {".", ".."}),
    query=st.dictionaries(st.text(min_size=1, max_size=6), st.text(max_size=8), max_size=4),
)
hosts = st.sampled_from([HOST, "127.0.0.1:8080", "[::1]:4566", "[::1]", "SES.internal.example:8443", "localhost"])


def parse(head: bytes) -> tuple[str, dict[str, str]]:
    """Split a head into its request line and its headers."""
    lines = head.decode().split("\r\n")
    assert lines[-2:] == ["", ""]
    return lines[0], dict(line.split(": ", 1) for line in lines[1:-2])


def botocores_signature(call, *, host=HOST, region=REGION):
    """What botocore writes for the same request at the same time."""
    credentials, method, target, body, unix_time = call
    headers = {"Content-Type": "application/json"} if body else {}
    request = AWSRequest(method, f"https://{host}{target}", headers=headers, data=body)
    frozen = ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    auth = SigV4Auth(frozen, "ses", region)
    request.context["timestamp"] = dt.datetime.fromtimestamp(int(unix_time), dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    auth._modify_request_before_signing(request)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    auth._inject_signature_to_request(request, signature)
    return request.headers["Authorization"]


calls = st.tuples(
    st.builds(Credentials, key_text, key_text, st.none() | key_text),
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    targets,
    st.binary(max_size=200),
    st.floats(min_value=0, max_value=4_000_000_000),
)


@given(call=calls, host=hosts, region=st.sampled_from(["ap-southeast-1", "us-gov-west-1", "cn-north-1"]))
def test_signatures_are_botocores(call, host, region):
    """For odd keys, tokens, hosts, ports, paths, queries, bodies and times, botocore computes the same header."""
    head = Signer(region, host).head(*call)
    assert parse(head)[1]["Authorization"] == botocores_signature(call, host=host, region=region)


def test_a_cached_second_signs_as_a_new_signer_does():
    """Seconds, days, bodies, targets and keys change under one signer; each head is what a fresh signer writes."""
    signer = Signer(REGION, HOST)
    other = Credentials("ASIAOTHER", "secret", "token==")
    every = [
        (credentials, method, target, body, NOW + later)
        for later in (0, 0.5, 1, 86_400, 86_400.5, 0)
        for credentials in (KEYS, other, KEYS)
        for method, target in (("POST", SEND), ("GET", "/v2/email/account"), ("POST", SEND))
        for body in (b"", b"{}", b"x" * 3000)
    ]
    for call in every:
        assert signer.head(*call) == Signer(REGION, HOST).head(*call)


def test_the_whole_head():
    """Every line of a send request, as it goes out."""
    head = Signer(REGION, HOST, user_agent="tanksend/1 (test)").head(
        Credentials("AKID", "secret", "tok"), "POST", SEND, b'{"a":1}', NOW
    )
    line, headers = parse(head)
    assert line == f"POST {SEND} HTTP/1.1"
    authorization = headers.pop("Authorization")
    assert headers == {
        "Host": HOST,
        "User-Agent": "tanksend/1 (test)",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "X-Amz-Date": "20260921T141320Z",
        "X-Amz-Security-Token": "tok",
        "Content-Length": "7",
    }
    assert re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKID/20260921/ap-southeast-1/ses/aws4_request, "
        r"SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=[0-9a-f]{64}",
        authorization,
    )


@pytest.mark.parametrize(
    ("method", "body", "length", "content_type"),
    [
        ("GET", b"", None, None),
        ("DELETE", b"", None, None),
        ("POST", b"", "0", None),
        ("PUT", b"", "0", None),
        ("PUT", b"{}", "2", "application/json"),
        ("DELETE", b"{}", "2", "application/json"),
    ],
)
def test_a_length_where_http_wants_one(method, body, length, content_type):
    """A body has its length and type; without one, methods meant for content say zero and the others nothing."""
    _, headers = parse(Signer(REGION, HOST).head(KEYS, method, "/v2/email/account", body, NOW))
    assert (headers.get("Content-Length"), headers.get("Content-Type")) == (length, content_type)


def test_a_base_path_is_sent_and_signed():
    """An endpoint with a path of its own: before every path on the wire, and under the signature."""
    head = Signer(REGION, "gw.example", base_path="/aws/ses").head(KEYS, "GET", "/v2/email/account", b"", NOW)
    line, headers = parse(head)
    assert line == "GET /aws/ses/v2/email/account HTTP/1.1"
    expected = botocores_signature((KEYS, "GET", "/aws/ses/v2/email/account", b"", NOW), host="gw.example")
    assert headers["Authorization"] == expected


def test_a_query_out_of_order_is_signed_in_order():
    """A target from elsewhere keeps its order on the wire; the signature sorts."""
    target = "/v2/email/identities?b=2&a=1&flag&a=0"
    line, headers = parse(Signer(REGION, HOST).head(KEYS, "GET", target, b"", NOW))
    assert line == f"GET {target} HTTP/1.1"
    assert headers["Authorization"] == botocores_signature((KEYS, "GET", target, b"", NOW))


def test_threads_may_share_a_signer():
    """Four threads with different times and keys: each gets its own request's head."""
    signer = Signer(REGION, HOST)
    wrong: list[int] = []

    def work(number: int) -> None:
        keys = Credentials(f"AKID{number}", "secret")
        for step in range(300):
            call = (keys, "POST", SEND, b"%d" % step, NOW + number * 43_200 + step // 7)
            if signer.head(*call) != Signer(REGION, HOST).head(*call):
                wrong.append(step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_targets_are_encoded_and_sorted():
    """Everything but unreserved characters is encoded, in segments and in the query."""
    target = request_target("/v2/email/identities", "a+b@é.example/..", query={"z": "1 2", "a": "&="})
    assert target == "/v2/email/identities/a%2Bb%40%C3%A9.example%2F..?a=%26%3D&z=1%202"
    assert request_target("/v2/email/account") == "/v2/email/account"
    assert request_target("/v2/email/account", query={}) == "/v2/email/account"


@pytest.mark.parametrize("segment", ["", ".", ".."])
def test_segments_that_servers_fold_away_are_refused(segment):
    """Such a path would reach another resource than the one signed."""
    with pytest.raises(ValueError, match="segment"):
        request_target("/v2/email/identities", segment)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "v2",
        "/a b",
        "/a\r\nX: y",
        "/a/../b",
        "/./a",
        "/a//b",
        "/é",
        "/a?b=c d",
        "/a#b",
        "/a?b#c",
        "/a\n",
        "/..",
        "*",
    ],
)
def test_targets_not_in_wire_form_are_refused(target):
    """Nothing can be smuggled into the head by a path or query."""
    with pytest.raises(ValueError, match="percent-encoded"):
        Signer(REGION, HOST).head(KEYS, "GET", target, b"", NOW)


@pytest.mark.parametrize("method", ["", "get", "GET /x", "GET\r\n", "GÉT"])
def test_methods_are_upper_case_letters(method):
    """A method is a word, or refused."""
    with pytest.raises(ValueError, match="method"):
        Signer(REGION, HOST).head(KEYS, method, "/", b"", NOW)


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "a b"},
        {"host": "a\r\nX: y"},
        {"host": ""},
        {"host": "a/b"},
        {"host": "user@host"},
        {"base_path": "x"},
        {"base_path": "/x/"},
        {"base_path": "/x/.."},
        {"base_path": "/x\r\n"},
        {"user_agent": "x\r\ny"},
        {"user_agent": ""},
        {"user_agent": "é"},
        {"region": "a.b"},
    ],
)
def test_a_signer_refuses_what_breaks_a_head(settings):
    """Host, base path, user agent and region cannot carry another header."""
    given_settings = {"region": REGION, "host": HOST} | settings
    with pytest.raises(SettingError):
        Signer(given_settings.pop("region"), given_settings.pop("host"), **given_settings)


@pytest.mark.parametrize("bad", ["", " ", "AK ID", "AKID\r\n", "AKID\n", "a\r\nHost: evil", "clé", "\x00"])
@pytest.mark.parametrize("field", ["access_key", "secret_key", "token"])
def test_keys_that_would_break_a_header_are_refused(field, bad):
    """The text names the field and shows nothing of the value. An empty token is none."""
    values = {"access_key": "AKID", "secret_key": "secret"} | {field: bad}
    if (field, bad) == ("token", ""):
        assert Credentials(**values).token is None
        return
    with pytest.raises(CredentialsError, match=field.replace("_", " ")) as caught:
        Credentials(**values)
    assert not bad.strip() or bad not in str(caught.value)


@pytest.mark.parametrize("field", ["access_key", "secret_key", "token"])
def test_keys_are_text(field):
    """A wrong type is a programming error."""
    with pytest.raises(TypeError, match=field):
        Credentials(**{"access_key": "AKID", "secret_key": "secret", field: b"bytes"})


def test_credentials_show_nothing_of_themselves():
    """Neither repr nor str has any three characters of a key in a row."""
    keys = Credentials("QQWWEE11", "ZZXXCC22", "VVBBNN33")
    shown = repr(keys) + str(keys) + repr(Credentials("QQWWEE11", "ZZXXCC22"))
    for secret in (keys.access_key, keys.secret_key, keys.token):
        assert not any(secret[at : at + 3] in shown for at in range(len(secret) - 2))
    assert repr(keys) == "Credentials(with a session token)"
    assert repr(KEYS) == "Credentials(without a session token)"


def test_credentials_are_values():
    """Equal by what they hold; they pickle; an expiry may be a datetime."""
    end = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    keys = Credentials("AKID", "secret", "token", expires_at=end)
    assert keys.expires_at == end.timestamp()
    assert Credentials("AKID", "secret", "token", expires_at=end.timestamp()) == keys
    assert pickle.loads(pickle.dumps(keys)) == keys  # noqa: S301 - our own bytes.


def test_a_signature_written_out():
    """By hand from the documented steps, so that it does not rest on botocore alone."""
    import hmac

    body = b'{"x":"y"}'
    canonical = (
        f"POST\n{SEND}\n\ncontent-type:application/json\nhost:{HOST}\nx-amz-date:20260921T141320Z\n\n"
        f"content-type;host;x-amz-date\n{hashlib.sha256(body).hexdigest()}"
    )
    key = b"AWS4" + KEYS.secret_key.encode()
    for part in ("20260921", REGION, "ses", "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    text = (
        f"AWS4-HMAC-SHA256\n20260921T141320Z\n20260921/{REGION}/ses/aws4_request\n"
        f"{hashlib.sha256(canonical.encode()).hexdigest()}"
    )
    expected = hmac.new(key, text.encode(), "sha256").hexdigest()
    assert parse(Signer(REGION, HOST).head(KEYS, "POST", SEND, body, NOW))[1]["Authorization"].endswith(expected)
