from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, strategies as st

from tanksend.testing import Answer, Faults, Request, SimulatedAccount, SuppressionList

SEND = "/v2/email/outbound-emails"


def body(to=("anna@example.com",), *, from_="Tank <no-reply@yokee.co.id>", simple=None, cc=(), bcc=(), **more):
    """A SendEmail body; `more` are further members of the request."""
    content = {"Subject": {"Data": "Hi"}, "Body": {"Text": {"Data": "Hello"}}, **(simple or {})}
    destination = {"ToAddresses": list(to)}
    if cc or bcc:
        destination |= {"CcAddresses": list(cc), "BccAddresses": list(bcc)}
    return {"FromEmailAddress": from_, "Destination": destination, "Content": {"Simple": content}, **more}


def raw(mime: str, **more):
    """A SendEmail body with raw content."""
    return {"Content": {"Raw": {"Data": base64.b64encode(mime.encode()).decode()}}, **more}


def ask(account: SimulatedAccount, content=None, *, now=0.0, method="POST", path=SEND, query="", fault=None):
    """Hand one request to the account."""
    data = b"" if content is None else json.dumps(content).encode()
    return account.exchange(Request(method, path, query, {}, data, now, 1_800_000_000.0 + now), fault)


def send(account: SimulatedAccount, content=None, *, now=0.0) -> Answer:
    """The answer to one SendEmail."""
    answer = ask(account, body() if content is None else content, now=now).answer
    assert answer is not None
    return answer


def said(answer: Answer):
    """Status, code and text."""
    content = json.loads(answer.body)
    return answer.status, dict(answer.headers)["x-amzn-ErrorType"], content.get("message", content.get("Message"))


def text_for(content, **settings):
    """The text with which a SendEmail is refused."""
    return said(send(SimulatedAccount(**settings), content))[2]


# --- success ---


def test_an_accepted_message_gets_an_id_and_lands_in_the_inbox():
    """What was accepted is kept with all that a test wants to see."""
    account = SimulatedAccount()
    answer = send(
        account,
        body(
            ["a@example.com"],
            cc=["b@example.com"],
            bcc=["c@example.com"],
            EmailTags=[{"Name": "campaign", "Value": "news"}],
            ConfigurationSetName="main",
        ),
        now=5.0,
    )
    assert answer.status == 200
    (item,) = account.inbox
    assert json.loads(answer.body) == {"MessageId": item.message_id}
    assert item.recipients == ("a@example.com", "b@example.com", "c@example.com")
    assert (item.sender, item.subject, dict(item.tags)) == ("Tank <no-reply@yokee.co.id>", "Hi", {"campaign": "news"})
    assert (item.configuration_set, item.at, item.wall) == ("main", 5.0, 1_800_000_005.0)
    assert item.content["Content"]["Simple"]["Body"]["Text"]["Data"] == "Hello"
    assert (account.counts.sends, account.counts.accepted, account.counts.recipients) == (1, 1, 3)


def test_every_message_id_and_request_id_is_new():
    """Ids never repeat, refusals have a request id too."""
    account = SimulatedAccount(rate=2)
    answers = [send(account) for _ in range(5)]
    assert len({item.message_id for item in account.inbox}) == 2
    assert len({dict(answer.headers)["x-amzn-RequestId"] for answer in answers}) == 5


def test_bodies_need_not_be_kept():
    """Big runs leave the content out of the inbox."""
    account = SimulatedAccount(keep_bodies=False)
    send(account)
    assert account.inbox[0].content is None


def test_nothing_personal_is_in_a_repr():
    """Values that hold addresses do not show them."""
    account = SimulatedAccount(suppressed=["anna@example.com"], faults=Faults(["silent"]))
    ask(account, body(), fault="silent")
    shown = repr([account, account.inbox, *account.inbox, *account.events, *account.fault_log, account.suppressed])
    assert "anna" not in shown
    assert "no-reply" not in shown


# --- quotas ---


def test_strict_refuses_what_would_exceed_the_rate_in_any_second():
    """A request that would put one recipient too many into a sliding second is refused and not charged."""
    account = SimulatedAccount(rate=3)
    assert [send(account, now=now).status for now in (0.0, 0.4, 0.8, 0.9)] == [200, 200, 200, 429]
    assert [send(account, now=now).status for now in (1.0, 1.3, 1.4)] == [200, 429, 200]
    assert said(send(account, now=1.5)) == (429, "TooManyRequestsException", "Maximum sending rate exceeded.")
    assert account.counts.throttled == 3


@given(
    st.lists(st.tuples(st.integers(0, 700), st.integers(1, 6)), max_size=60),
    st.integers(1, 10),
)
def test_strict_never_accepts_more_than_the_rate_in_any_sliding_second(requests, rate):
    """Whatever comes when, no window of one second holds more recipients than the rate."""
    account = SimulatedAccount(rate=rate, daily_quota=-1)
    now = 0
    for pause, recipients in requests:
        now += pause
        send(account, body([f"p{number}@example.com" for number in range(recipients)]), now=now / 1024)
    items = list(account.inbox)
    for first in items:
        window = [item for item in items if 0 <= item.at - first.at < 1.0]
        assert sum(len(item.recipients) for item in window) <= rate
    assert account.inbox.busiest() <= rate


def test_debt_lets_a_heavy_message_pass_and_refuses_until_the_debt_is_paid():
    """With 1/s a message of five recipients passes, and nothing else until the bucket is above zero again."""
    account = SimulatedAccount(rate=1, mode="debt")
    assert send(account, body([f"p{number}@example.com" for number in range(5)])).status == 200
    assert [send(account, now=float(now)).status for now in (1, 2, 3, 4)] == [429] * 4
    assert send(account, now=4.5).status == 200


def test_debt_refills_to_one_second_at_most():
    """A long pause saves up one second of the rate and no more."""
    account = SimulatedAccount(rate=2, mode="debt")
    send(account)
    assert [send(account, now=1000.0).status for _ in range(3)] == [200, 200, 429]


def test_an_unlimited_rate_and_quota():
    """-1 means unlimited, in both modes."""
    for mode in ("strict", "debt"):
        account = SimulatedAccount(rate=-1, daily_quota=-1, mode=mode)
        assert {send(account).status for _ in range(100)} == {200}


def test_the_daily_quota_rolls():
    """Recipients count for 24 hours from when they were sent, those sent before the start too."""
    account = SimulatedAccount(daily_quota=5, sent_before=2, rate=-1)
    two = body(["a@example.com", "b@example.com"])
    assert send(account, two, now=100.0).status == 200
    assert said(send(account, two, now=101.0)) == (429, "TooManyRequestsException", "Daily message quota exceeded.")
    assert send(account, now=200.0).status == 200
    assert send(account, now=86_499.0).status == 429
    assert send(account, two, now=86_500.0).status == 200
    assert (account.counts.quota_refusals, account.sent_last_24_hours(86_500.0)) == (2, 3)


def test_in_debt_mode_a_request_passes_while_any_daily_quota_is_left():
    """AWS has described that the last request may exceed the quota."""
    account = SimulatedAccount(daily_quota=1, rate=-1, mode="debt")
    assert send(account, body(["a@example.com", "b@example.com"])).status == 200
    assert send(account).status == 429


def test_the_mailbox_simulator_is_paced_but_not_in_the_daily_quota():
    """Its addresses count against the rate alone."""
    account = SimulatedAccount(daily_quota=0, rate=2)
    assert [send(account, body(["success@simulator.amazonses.com"])).status for _ in range(3)] == [200, 200, 429]
    assert account.sent_last_24_hours(0.0) == 0


def test_what_is_refused_is_not_charged():
    """Bad requests use up neither quota."""
    account = SimulatedAccount(rate=1, daily_quota=1)
    send(account, body(["no address"]))
    assert send(account).status == 200


# --- the mailbox simulator, suppression, content ---


def test_mailbox_simulator_events():
    """Each address of the mailbox simulator reports what it is for; a label may follow a plus."""
    account = SimulatedAccount(rate=-1)
    for name in ("success", "bounce+order-1", "complaint", "OOTO", "suppressionlist"):
        send(account, body([f"{name}@Simulator.amazonses.com"]))
    send(account, body(["bounce-label@simulator.amazonses.com"]))
    assert [event.kind for event in account.events] == [
        "Delivery", "Bounce", "Delivery", "Complaint", "Delivery", "AutoReply", "Bounce",
    ]  # fmt: skip


def test_suppressed_recipients_are_accepted_count_and_bounce():
    """SES takes the message, charges it, and reports a bounce later."""
    account = SimulatedAccount(suppressed=["Anna@EXAMPLE.com"])
    send(account, body(["Anna@example.com", "anna@example.com"]))
    assert [(event.kind, event.recipient, event.reason) for event in account.events] == [
        ("Bounce", "Anna@example.com", "suppressed")
    ]
    assert account.sent_last_24_hours(0.0) == 2


def test_the_test_virus_is_taken_and_rejected_later():
    """The only way to see a Reject event."""
    account = SimulatedAccount()
    part = {"Body": {"Text": {"Data": "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"}}}
    assert send(account, body(simple=part)).status == 200
    assert [event.kind for event in account.events] == ["Reject"]


# --- identities ---


def test_unverified_senders_are_named_with_the_region():
    """The text lists who failed, and the region in capitals."""
    account = SimulatedAccount(identities=["other.com"], region="ap-southeast-1")
    assert said(send(account)) == (
        400,
        "MessageRejected",
        (
            "Email address is not verified. The following identities failed the check in region AP-SOUTHEAST-1: "
            "no-reply@yokee.co.id"
        ),
    )


@pytest.mark.parametrize("identity", ["no-reply@yokee.co.id", "YOKEE.co.id", "co.id"])
def test_an_address_its_domain_or_a_parent_domain_may_be_verified(identity):
    """A verified domain covers its subdomains and every address."""
    assert send(SimulatedAccount(identities=[identity])).status == 200


def test_the_sandbox_wants_verified_recipients_and_has_small_quotas():
    """Everybody who is not verified is named, the mailbox simulator excepted."""
    account = SimulatedAccount(sandbox=True, identities=["yokee.co.id"])
    assert (account.rate, account.daily_quota) == (1.0, 200.0)
    to = ["success@simulator.amazonses.com", "team@yokee.co.id", "a@example.com", "b@example.org"]
    assert said(send(account, body(to)))[2].endswith("US-EAST-1: a@example.com, b@example.org")
    assert send(account, body(to[:1])).status == 200


def test_in_the_sandbox_without_identities_nobody_can_be_written_to():
    """Everybody may send by default; that makes no recipient verified."""
    assert send(SimulatedAccount(sandbox=True)).status == 400


def test_a_lost_mail_from_domain():
    """Identities whose MAIL FROM domain has lost its MX record refuse mail."""
    account = SimulatedAccount(mail_from_failed=["yokee.co.id"])
    assert said(send(account))[:2] == (400, "MailFromDomainNotVerifiedException")


# --- states of the account ---


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sending_enabled": False}, (400, "SendingPausedException", "Account sending is disabled.")),
        (
            {"enforcement": "SHUTDOWN"},
            (
                400,
                "MessageRejected",
                (
                    "Sending paused for this account. For more information, please check the inbox of the email "
                    "address associated with your AWS account."
                ),
            ),
        ),
        (
            {"suspended": True},
            (
                400,
                "AccountSuspendedException",
                "The account's ability to send email is permanently restricted.",
            ),
        ),
        (
            {"configuration_sets": ["other"]},
            (404, "NotFoundException", "Configuration set <main> does not exist."),
        ),
        (
            {"paused_sets": ["main"]},
            (400, "SendingPausedException", "Sending is paused for configuration set main"),
        ),
    ],
)
def test_what_stops_the_account(settings, expected):
    """Each state has SES's own code and text."""
    assert said(send(SimulatedAccount(**settings), body(ConfigurationSetName="main"))) == expected


def test_denied_actions_as_iam_and_as_ses_word_them():
    """IAM's body says Message; raw content needs another action than simple content."""
    account = SimulatedAccount(deny=["ses:SendEmail"])
    denied = send(account)
    assert denied.status == 403
    assert json.loads(denied.body) == {
        "Message": "User: arn:aws:iam::123456789012:user/simulated is not authorized to perform: ses:SendEmail on "
        "resource: arn:aws:ses:us-east-1:123456789012:identity/Tank <no-reply@yokee.co.id>"
    }
    mail = raw("From: a@yokee.co.id\nTo: b@example.com\nSubject: Hi\n\nHello")
    assert send(account, mail).status == 200
    account.deny = ["ses:SendRawEmail"]
    account.denied_by = "ses"
    assert send(account).status == 200
    assert "`ses:SendRawEmail'" in json.loads(send(account, mail).body)["message"]
    assert account.counts.by_code["AccessDeniedException"] == 2


def test_settings_can_change_at_a_given_send():
    """A hook changes the account when the n-th send arrives."""
    account = SimulatedAccount()
    account.at_send(3, lambda: account.deny.add("ses:SendEmail"))
    assert [send(account).status for _ in range(4)] == [200, 200, 403, 403]


# --- shapes and rules ---


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([], "SerializationException"),
        ({"Content": "text"}, "SerializationException"),
        ({"Content": {}}, "BadRequestException"),
        ({"Content": {"Simple": {}, "Raw": {}}}, "BadRequestException"),
        ({"Content": {"Simple": {}}}, "BadRequestException"),
        ({"Content": {"Simple": {}}, "FromEmailAddress": 7}, "SerializationException"),
        ({"Content": {"Template": {"TemplateName": "welcome"}}}, "BadRequestException"),
        (body(to=()), "BadRequestException"),
        (body(to=[7]), "SerializationException"),
        (body(EmailTags=["x"]), "SerializationException"),
        (body(to=[f"p{number}@example.com" for number in range(51)]), "BadRequestException"),
        (body(simple={"Body": {}}), "BadRequestException"),
        (body(EmailTags=[{"Name": "a", "Value": "not allowed"}]), "BadRequestException"),
        (body(simple={"Headers": [{"Name": f"X-{n}", "Value": "v"} for n in range(16)]}), "ValidationException"),
        (body(simple={"Headers": [{"Name": "X A", "Value": "v"}]}), "ValidationException"),
        (body(simple={"Headers": [{"Name": "X-A", "Value": "안녕"}]}), "ValidationException"),
        (body(simple={"Headers": [{"Name": "X-A", "Value": "v" * 995}]}), "ValidationException"),
        (body(simple={"Headers": [{"Name": "Subject", "Value": "v"}]}), "BadRequestException"),
        (body(simple={"Headers": [{"Name": "X-A", "Value": "v"}] * 2}), "BadRequestException"),
        (body(simple={"Attachments": [{"FileName": "a.EXE", "RawContent": ""}]}), "BadRequestException"),
        (body(simple={"Attachments": [{"FileName": "", "RawContent": ""}]}), "BadRequestException"),
    ],
)
def test_requests_that_break_a_rule(content, code):
    """Each broken rule is refused with the code SES has for it."""
    account = SimulatedAccount()
    assert said(send(account, content))[1] == code
    assert not account.inbox


def test_a_body_that_is_no_json():
    """Whatever is not JSON is a serialization error."""
    answer = SimulatedAccount().exchange(Request("POST", SEND, body=b"{")).answer
    assert said(answer)[1] == "SerializationException"


def test_more_than_forty_megabytes():
    """Sizes count after base64, with its line breaks."""
    part = {"Body": {"Text": {"Data": "x" * 30_650_685}}}
    assert text_for(body(simple=part)) == "Message length is more than 41943040 bytes long: '41943044'."


@pytest.mark.parametrize(
    ("mime", "reason"),
    [
        ("To: b@example.com\n\nHello", "Missing required header 'From'."),
        ("From: a@x.com\nTo: b@x.com\nSubject: 1\nSubject: 2\n\nHello", "Duplicate header 'Subject'."),
        (f"From: a@x.com\nTo: b@x.com\n\n{'x' * 1000}", "Transaction failed: Line length exceeds 1000 characters."),
        ("From: a@x.com\n\nHello", "There are no recipients specified"),
        (
            'From: a@x.com\nTo: b@x.com\nContent-Disposition: attachment; filename="a.js"\n\nHello',
            "Unsupported attachment type.",
        ),
        ("From: a@x.com\nTo: b@x.com\nReturn-Path: c d\n\nHello", "Local address contains control or whitespace"),
    ],
)
def test_raw_content_that_breaks_a_rule(mime, reason):
    """MIME is parsed where SES parses it."""
    assert text_for(raw(mime)) == reason


def test_raw_content_that_is_not_base64():
    """It is refused as a parameter."""
    assert text_for({"Content": {"Raw": {"Data": "!"}}}) == "Raw content is not base64."


def test_raw_content_with_too_many_parts():
    """Five hundred parts are the most."""
    parts = "--b\n\nx\n" * 500
    mime = f'From: a@x.com\nTo: b@x.com\nContent-Type: multipart/mixed; boundary="b"\n\n{parts}--b--\n'
    assert text_for(raw(mime)) == "Transaction failed: Too many MIME parts."


def test_raw_content_names_sender_recipients_tags_and_set_in_its_headers():
    """Where the request names none, the MIME headers do."""
    account = SimulatedAccount()
    send(account, raw(
        "From: Tank <a@x.com>\nTo: b@x.com, C <c@x.com>\nBcc: d@x.com\nSubject: Hi\nReturn-Path: r@x.com\n"
        "X-SES-MESSAGE-TAGS: a=1, b=2\nX-SES-CONFIGURATION-SET: main\n\nHello"
    ))  # fmt: skip
    (item,) = account.inbox
    assert (item.sender, item.recipients) == ("Tank <a@x.com>", ("b@x.com", "c@x.com", "d@x.com"))
    assert (item.tags, item.configuration_set, item.subject) == ({"a": "1", "b": "2"}, "main", "Hi")


def test_the_inbox_has_text_html_and_headers_of_every_kind_of_content():
    """Raw content is read when it is asked for."""
    account = SimulatedAccount()
    parts = {"Body": {"Text": {"Data": "Hello"}}, "Headers": [{"Name": "X-A", "Value": "1"}]}
    send(account, body(simple=parts))
    send(account, body(simple={"Body": {"Html": {"Data": "<p>"}}}))
    send(account, raw(
        'From: a@x.com\nTo: b@x.com\nX-A: 2\nContent-Type: multipart/mixed; boundary="b"\n\n'
        "--b\nContent-Type: text/html\nContent-Disposition: attachment\n\nno\n"
        "--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n7JWI64WV\n--b--\n"
    ))  # fmt: skip
    simple, html, mime = account.inbox
    assert (simple.text, simple.html, simple.headers) == ("Hello", None, {"X-A": "1"})
    assert (html.text, html.html, html.headers) == (None, "<p>", {})
    assert (mime.text, mime.html, mime.headers["X-A"]) == ("안녕", None, "2")


def test_the_feedback_address_must_be_verified_too():
    """Whoever gets the bounces is an identity as well."""
    account = SimulatedAccount(identities=["yokee.co.id"])
    assert said(send(account, body(FeedbackForwardingEmailAddress="x@other.com")))[2].endswith("x@other.com")


# --- faults ---


@pytest.mark.parametrize(
    ("fault", "wire", "status", "accepted"),
    [
        ("reset-before", "reset", None, 0),
        ("close-before", "close", None, 0),
        ("silent-before", "silent", None, 0),
        ("500", "answer", 500, 0),
        ("503", "answer", 503, 0),
        ("503-bare", "answer", 503, 0),
        ("throttle", "answer", 429, 0),
        ("reset-after", "reset", None, 1),
        ("close-after", "close", None, 1),
        ("silent", "silent", None, 1),
        ("500-accepted", "answer", 500, 1),
        ("503-bare-accepted", "answer", 503, 1),
        ("garbage", "answer", 200, 1),
        ("no-id", "answer", 200, 1),
        ("slow", "slow", 200, 1),
    ],
)
def test_each_fault(fault, wire, status, accepted):
    """What goes back, whether the message was accepted, and that the log knows whose it was."""
    account = SimulatedAccount(faults=Faults([fault]))
    exchange = ask(account, body(EmailTags=[{"Name": "key", "Value": "k1"}]), fault=account.draw_fault("POST", SEND))
    assert exchange.wire == wire
    assert (exchange.answer.status if exchange.answer else None) == status
    assert len(account.inbox) == accepted
    assert account.counts.faults == {fault: 1}
    (record,) = account.fault_log
    assert (record.name, record.accepted, record.recipients, record.tags) == (
        fault, bool(accepted), ("anna@example.com",), {"key": "k1"},
    )  # fmt: skip
    assert account.counts.sends == 1


def test_garbage_is_no_json_and_no_id_has_none():
    """Both are a 200 that settles nothing."""
    account = SimulatedAccount()
    with pytest.raises(ValueError):
        json.loads(ask(account, body(), fault="garbage").answer.body)
    assert json.loads(ask(account, body(), fault="no-id").answer.body) == {}


def test_a_refusal_is_not_lost():
    """A fault after acceptance does not strike what was not accepted."""
    account = SimulatedAccount(rate=1)
    send(account)
    assert ask(account, body(), fault="reset-after").answer.status == 429
    assert not account.counts.faults


def test_a_fault_on_a_request_that_cannot_be_read():
    """The log then does not know whose it was."""
    account = SimulatedAccount()
    ask(account, {"Content": {}}, fault="500")
    account.cut("reset-before")
    assert [record.recipients for record in account.fault_log] == [(), ()]
    assert account.counts.sends == 2


def test_only_sends_have_faults():
    """The control plane stays whole."""
    account = SimulatedAccount(faults=Faults(["500"]))
    assert account.draw_fault("GET", "/v2/email/account") is None
    assert account.draw_fault("POST", SEND) == "500"


def test_chances_are_kept_and_repeatable():
    """The same seed gives the same faults, about as many as the chances say."""
    drawn = [Faults(probability={"500": 0.1, "silent": 0.05}, seed=7) for _ in range(2)]
    first, second = ([faults.draw() for _ in range(4_000)] for faults in drawn)
    assert first == second
    assert 300 < first.count("500") < 500
    assert 130 < first.count("silent") < 270
    assert "Faults" in repr(drawn[0])


def test_the_script_comes_first():
    """When it is used up, chance decides."""
    faults = Faults([None, "500"], probability={"silent": 1.0})
    assert [faults.draw() for _ in range(3)] == [None, "500", "silent"]


@pytest.mark.parametrize("chances", [{"nonsense": 0.1}, {"500": -0.1}, {"500": 0.6, "503": 0.6}])
def test_chances_that_make_no_sense(chances):
    """Unknown names and impossible chances are a mistake of the test."""
    with pytest.raises(ValueError):
        Faults(probability=chances)


def test_a_script_with_an_unknown_name():
    """It is found when it is drawn."""
    with pytest.raises(ValueError, match=r"no fault is called 'nonsense'"):
        Faults(["nonsense"]).draw()


# --- what the inbox answers ---


def test_doubled_by_tag_and_by_recipient_and_subject():
    """Two deliveries of one message are found by its tag, or by whom and what."""
    account = SimulatedAccount()
    for key in ("1", "2", "2"):
        send(account, body(EmailTags=[{"Name": "key", "Value": key}]))
    assert account.doubled(tag="key") == {"2": 2}
    assert account.doubled() == {(("anna@example.com",), "Hi"): 3}
    assert account.inbox.deliveries(tag="key") == {"1": 1, "2": 2}


def test_pace_of_the_inbox():
    """The busiest second, and the rate from first to last."""
    account = SimulatedAccount(rate=-1)
    assert (account.inbox.busiest(), account.inbox.rate()) == (0, 0.0)
    for now in (0.0, 0.5, 1.0, 1.25, 3.0):
        send(account, now=now)
    assert (account.inbox.busiest(), account.inbox.busiest(0.3)) == (3, 2)
    assert account.inbox.rate() == pytest.approx(4 / 3)
    assert account.inbox.recipients == 5
    account.inbox.clear()
    assert len(account.inbox) == 0
    send(account)
    send(account)
    assert account.inbox.rate() == float("inf")


def test_counts_as_plain_values():
    """They can be written as JSON."""
    account = SimulatedAccount()
    send(account)
    assert json.loads(json.dumps(account.counts.as_dict()))["by_action"] == {"ses:SendEmail": 1}


# --- control plane ---


def control(account, method, path, content=None, *, query="", now=0.0):
    """Status and content of one control-plane request."""
    answer = ask(account, content, method=method, path=path, query=query, now=now).answer
    return answer.status, json.loads(answer.body)


def test_get_account():
    """Quotas, what is spent, sandbox and enforcement, all as SES names them."""
    account = SimulatedAccount(rate=50, daily_quota=1000, sent_before=400, enforcement="SHUTDOWN")
    status, content = control(account, "GET", "/v2/email/account")
    assert status == 200
    assert content["SendQuota"] == {"Max24HourSend": 1000.0, "MaxSendRate": 50.0, "SentLast24Hours": 400.0}
    assert (content["ProductionAccessEnabled"], content["SendingEnabled"]) == (True, False)


def test_the_control_plane_can_be_limited_and_denied():
    """One request a second for each action, if asked for."""
    account = SimulatedAccount(control_rate=1)
    asked = [control(account, "GET", "/v2/email/account", now=now) for now in (0.0, 0.5, 1.0)]
    assert [status for status, _ in asked] == [200, 429, 200]
    assert asked[1][1] == {"message": "Rate exceeded"}
    account.deny.add("ses:GetAccount")
    status, content = control(account, "GET", "/v2/email/account", now=9.0)
    assert (status, content["Message"][-11:]) == (403, "resource: *")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v2/email/nonsense"), ("DELETE", "/v2/email/suppression/addresses"), ("PUT", SEND)],
)
def test_unknown_operations(method, path):
    """What SES does not know is a 404."""
    answer = ask(SimulatedAccount(), method=method, path=path).answer
    assert said(answer)[:2] == (404, "UnknownOperationException")


def test_identities():
    """Verified ones are described, others do not exist."""
    account = SimulatedAccount(identities=["example.com", "a@b.com"], mail_from_failed=["example.com"])
    content = control(account, "GET", "/v2/email/identities/example.com")[1]
    assert (content["IdentityType"], content["VerificationStatus"]) == ("DOMAIN", "SUCCESS")
    assert content["MailFromAttributes"]["MailFromDomainStatus"] == "FAILED"
    assert control(account, "GET", "/v2/email/identities/a%40b.com")[1]["IdentityType"] == "EMAIL_ADDRESS"
    assert control(account, "GET", "/v2/email/identities/other.com")[0] == 404


LIST = "/v2/email/suppression/addresses"


def test_suppression_entries():
    """Put, get, list, delete; domains in lower case, local parts as they are."""
    account = SimulatedAccount()
    assert control(account, "PUT", LIST, {"EmailAddress": "Anna@Example.COM", "Reason": "COMPLAINT"}) == (200, {})
    status, content = control(account, "GET", f"{LIST}/Anna%40example.com")
    assert status == 200
    assert content["SuppressedDestination"] == {
        "EmailAddress": "Anna@example.com", "Reason": "COMPLAINT", "LastUpdateTime": 1_800_000_000.0,
    }  # fmt: skip
    assert control(account, "GET", f"{LIST}/anna%40example.com")[0] == 404
    assert len(account.suppressed) == 1
    assert control(account, "DELETE", f"{LIST}/Anna%40example.com") == (200, {})
    assert control(account, "DELETE", f"{LIST}/Anna%40example.com")[0] == 404


def test_suppression_pages():
    """Pages follow each other by a token until there is none."""
    account = SimulatedAccount(suppressed=[f"p{number}@example.com" for number in range(5)])
    found, query = [], "PageSize=2"
    while query:
        content = control(account, "GET", LIST, query=query)[1]
        found += [entry["EmailAddress"] for entry in content["SuppressedDestinationSummaries"]]
        query = f"PageSize=2&NextToken={content['NextToken']}" if "NextToken" in content else ""
    assert found == [f"p{number}@example.com" for number in range(5)]


def test_suppression_filters():
    """By reason and by date, in both forms a date may have."""
    listed = SuppressionList()
    listed.add("a@x.com", "BOUNCE", at=100.0)
    listed.add("b@x.com", "COMPLAINT", at=200.0)
    account = SimulatedAccount(suppressed=listed)

    def names(query):
        content = control(account, "GET", LIST, query=query)[1]
        return [entry["EmailAddress"][0] for entry in content["SuppressedDestinationSummaries"]]

    assert names("Reason=BOUNCE") == ["a"]
    assert names("Reason=BOUNCE&Reason=COMPLAINT") == ["a", "b"]
    assert names("StartDate=150") == ["b"]
    assert names("EndDate=1970-01-01T00:02:30Z") == ["a"]
    assert names("EndDate=1970-01-01T00:02:30") == ["a"]


@pytest.mark.parametrize("query", ["PageSize=0", "PageSize=x", "NextToken=%20", "StartDate=yesterday"])
def test_suppression_lists_that_cannot_be_asked_for(query):
    """Bad arguments are refused."""
    assert control(SimulatedAccount(), "GET", LIST, query=query)[0] == 400


def test_suppression_entries_that_are_refused():
    """An unknown reason, a bad address, and anything in the sandbox."""
    good = {"EmailAddress": "a@example.com", "Reason": "BOUNCE"}
    assert control(SimulatedAccount(), "PUT", LIST, good | {"Reason": "MOOD"})[0] == 400
    assert control(SimulatedAccount(), "PUT", LIST, good | {"EmailAddress": "a"})[0] == 400
    assert control(SimulatedAccount(sandbox=True), "PUT", LIST, good)[0] == 400
