from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from tanksend._http1 import (
    MAX_BODY,
    MAX_HEAD,
    Answer,
    BadAnswerError,
    ConnectReader,
    ResponseReader,
    connect_request,
)

BODY = b'{"MessageId":"0100"}'
GOOD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-amzn-RequestId: r-1\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
) + BODY


def reader() -> ResponseReader:
    """A reader that has just seen a request go out."""
    made = ResponseReader()
    made.expect()
    return made


def test_an_answer_is_read_whole():
    """Status, headers by lower-case name, and body."""
    answer = reader().feed(GOOD)
    assert answer == Answer(
        200,
        {"content-type": "application/json", "x-amzn-requestid": "r-1", "content-length": "20"},
        BODY,
        keep_alive=True,
    )
    assert "<Answer 200 20 bytes>" == repr(answer)


@given(st.lists(st.integers(1, len(GOOD) - 1), max_size=5))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts):
    """TCP delivers in any pieces; only the last one completes the answer."""
    edges = [0, *sorted(set(cuts)), len(GOOD)]
    pieces = [GOOD[start:end] for start, end in itertools.pairwise(edges)]
    one = reader()
    assert [None] * (len(pieces) - 1) == [one.feed(memoryview(piece)) for piece in pieces[:-1]]
    assert reader().feed(GOOD) == one.feed(pieces[-1])


def test_one_reader_serves_many_requests():
    """The parser lives as long as its connection, and nothing of one answer gets into the next."""
    one = reader()
    first = one.feed(GOOD)
    one.expect()
    second = one.feed(b"HTTP/1.1 400 Bad Request\r\nx-amzn-ErrorType: MessageRejected\r\nContent-Length: 2\r\n\r\n{}")
    one.expect()
    assert first == one.feed(GOOD)
    assert Answer(400, {"x-amzn-errortype": "MessageRejected", "content-length": "2"}, b"{}", keep_alive=True) == second


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n", True),
    ],
)
def test_the_other_side_says_whether_it_goes_on(head, keep_alive):
    """RFC 9112 section 9.3."""
    answer = reader().feed(head + b"{}")
    assert answer is not None
    assert (b"{}", keep_alive) == (answer.body, answer.keep_alive)


def test_chunks_are_put_together():
    """RFC 9112 section 7.1."""
    answer = reader().feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert answer is not None
    assert (b"abc", True) == (answer.body, answer.keep_alive)


def test_repeated_headers_are_joined():
    """RFC 9110 section 5.3."""
    answer = reader().feed(b"HTTP/1.1 200 OK\r\nVia: a\r\nvia: b\r\nContent-Length: 0\r\n\r\n")
    assert answer is not None
    assert "a, b" == answer.headers["via"]


def test_names_of_headers_are_remembered_up_to_a_point():
    """A hostile server cannot fill memory with names, and those beyond the limit are read as well."""
    one = reader()
    many = b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(100))
    answer = one.feed(b"HTTP/1.1 200 OK\r\n" + many + b"Content-Length: 0\r\n\r\n")
    assert answer is not None
    assert ("0", "99") == (answer.headers["x-0"], answer.headers["x-99"])
    assert 32 == len(one._keys)


def test_interim_answers_are_passed_over():
    """100 and 103 announce the answer and are none; their headers are not its headers."""
    answer = reader().feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD)
    assert reader().feed(GOOD) == answer


def test_an_interim_answer_alone_is_not_enough():
    """And when the connection closes after it, there was no answer."""
    one = reader()
    assert one.feed(b"HTTP/1.1 100 Continue\r\n\r\n") is None
    with pytest.raises(BadAnswerError, match="closed"):
        one.eof()


@pytest.mark.parametrize("more", [b"x", GOOD, b"HTTP/1.1 408 Request Timeout\r\n", b"\x00\x01"])
def test_what_follows_an_answer_does_not_spoil_it_but_ends_the_connection(more):
    """The answer is whole; whatever comes behind it is nobody's, so no other request goes on this connection."""
    whole = reader().feed(GOOD)
    assert whole is not None
    answer = reader().feed(GOOD + more)
    assert answer == Answer(whole.status, whole.headers, whole.body, keep_alive=False)


def test_nobody_asked():
    """What comes before a request, or after its answer, breaks the connection instead of answering the next."""
    with pytest.raises(BadAnswerError, match="nobody"):
        ResponseReader().feed(GOOD)
    one = reader()
    one.feed(GOOD)
    with pytest.raises(BadAnswerError, match="nobody"):
        one.feed(GOOD)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02",
        b"220 smtp.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBroken\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_garbage_is_no_answer(garbage):
    """Nothing of it is repeated in the error."""
    with pytest.raises(BadAnswerError, match="not HTTP"):
        reader().feed(garbage)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data):
    """The reader raises its own error only."""
    one = reader()
    try:
        one.feed(data)
        one.eof()
    except BadAnswerError:
        pass


def test_switching_protocols_is_an_answer_that_ends_the_connection():
    """Nobody asks for it; it must not be taken for an interim answer."""
    answer = reader().feed(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc")
    assert answer is not None
    assert (101, False) == (answer.status, answer.keep_alive)


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_never_have_a_body(status):
    """RFC 9112 section 6.3: they end with their head."""
    answer = reader().feed(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert answer is not None
    assert (status, b"") == (answer.status, answer.body)


def test_a_body_may_end_with_the_connection():
    """Without a length, the end of the connection is the end of the body (RFC 9112 section 6.3)."""
    one = reader()
    assert one.feed(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nab") is None
    assert one.feed(b"c") is None
    assert Answer(200, {"server": "x"}, b"abc", keep_alive=False) == one.eof()


@pytest.mark.parametrize("end", [0, 10, len(GOOD) - len(BODY), len(GOOD) - 1])
def test_a_cut_off_answer_is_none(end):
    """The connection closed before all of it came."""
    one = reader()
    one.feed(GOOD[:end] or b"HTTP")
    with pytest.raises(BadAnswerError, match="before the whole answer"):
        one.eof()


def test_an_answer_has_a_largest_size():
    """Beyond it the connection is given up, in one piece or in many."""
    with pytest.raises(BadAnswerError, match="larger"):
        reader().feed(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY + MAX_HEAD))
    one = reader()
    one.feed(b"HTTP/1.1 200 OK\r\n")
    header = b"X-Header: " + b"x" * 10_000 + b"\r\n"
    for _ in range((MAX_BODY + MAX_HEAD) // len(header)):
        assert one.feed(header) is None
    with pytest.raises(BadAnswerError, match="larger"):
        one.feed(header)
    fits = reader().feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_BODY + b"x" * MAX_BODY)
    assert fits is not None
    assert MAX_BODY == len(fits.body)


def test_asking_a_proxy_for_a_tunnel():
    """RFC 9110 section 9.3.6, with and without credentials, and with an IPv6 address."""
    assert b"CONNECT email.example.com:443 HTTP/1.1\r\nHost: email.example.com:443\r\n\r\n" == connect_request(
        "email.example.com", 443
    )
    assert (
        b"CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\nProxy-Authorization: Basic eA==\r\n\r\n"
        == connect_request("::1", 8443, "Basic eA==")
    )


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"HTTP/1.1 200 Connection established\r\n\r\n"], 200),
        ([b"HTTP/1.0 200\r\nVia: x\r\n", b"\r\n"], 200),
        ([b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 9\r\n\r\nforbidden"], 407),
        ([b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], 200),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n"], 502),
    ],
)
def test_a_proxy_answers(pieces, status):
    """The answer ends with its head, wherever it is cut."""
    one = ConnectReader()
    assert [*[None] * (len(pieces) - 1), status] == [one.feed(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("bytes_", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16", "before the tunnel"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD, "too long"),
    ],
)
def test_a_proxy_talks_nonsense(bytes_, reason):
    """A server speaks after us in TLS, so bytes behind the head are a bad sign, too."""
    with pytest.raises(BadAnswerError, match=reason):
        ConnectReader().feed(bytes_)


def test_a_proxy_that_never_ends_its_greeting():
    """Many interim answers in one piece take time in proportion, and no stack."""
    assert ConnectReader().feed(b"HTTP/1.1 100 C\r\n\r\n" * 3_000) is None
