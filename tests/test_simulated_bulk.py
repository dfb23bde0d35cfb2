from __future__ import annotations

import json

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tanksend.testing import Faults, Request, SimulatedAccount, SimulatedSES

BULK = "/v2/email/outbound-bulk-emails"
HELLO = {"Subject": "Hello {{name}}", "Text": "Dear {{name}}"}


def entry(to="anna@example.com", data=None, **more):
    """One entry."""
    found = {"Destination": {"ToAddresses": [to] if isinstance(to, str) else list(to)}, **more}
    if data is not None:
        text = data if isinstance(data, str) else json.dumps(data)
        found["ReplacementEmailContent"] = {"ReplacementTemplate": {"ReplacementTemplateData": text}}
    return found


def body(entries, *, template=None, **more):
    """A SendBulkEmail body."""
    template = {"TemplateContent": HELLO, "TemplateData": '{"name": "you"}', **(template or {})}
    return {
        "FromEmailAddress": "Tank <no-reply@yokee.co.id>",
        "DefaultContent": {"Template": {name: value for name, value in template.items() if value is not None}},
        "BulkEmailEntries": list(entries),
        **more,
    }


MANY = [{"Name": f"X-{number}", "Value": "v"} for number in range(16)]


def people(number):
    """So many entries."""
    return [entry(f"p{each}@example.com", {"name": f"P{each}"}) for each in range(number)]


def ask(account, content, *, now=0.0, fault=None):
    """The exchange of one SendBulkEmail."""
    return account.exchange(
        Request("POST", BULK, "", {}, json.dumps(content).encode(), now, 1_800_000_000.0 + now), fault
    )


def results(account, content, *, now=0.0):
    """The results of one SendBulkEmail."""
    answer = ask(account, content, now=now).answer
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["BulkEmailEntryResults"]


def statuses(account, content, **more):
    """The statuses of one SendBulkEmail."""
    return [result["Status"] for result in results(account, content, **more)]


def refused(account, content):
    """Code and text of a request that is refused as a whole."""
    answer = ask(account, content).answer
    content = json.loads(answer.body)
    return answer.error, content.get("message", content.get("Message"))


# --- what is taken ---


def test_each_entry_is_a_message_of_its_own():
    """It has its own id, recipients, data, headers and tags over those of all."""
    account = SimulatedAccount(rate=-1)
    content = body(
        [
            entry("a@example.com", {"name": "A"}),
            entry(
                "b@example.com",
                {"extra": 1},
                ReplacementHeaders=[
                    {"Name": "list-unsubscribe", "Value": "<https://b>"},
                    {"Name": "X-Own", "Value": "b"},
                ],
                ReplacementTags=[{"Name": "who", "Value": "b"}],
            ),
            entry(["c@example.com", "d@example.com"]),
        ],
        template={"Headers": [{"Name": "List-Unsubscribe", "Value": "<https://all>"}, {"Name": "X-All", "Value": "1"}]},
        DefaultEmailTags=[{"Name": "campaign", "Value": "news"}, {"Name": "who", "Value": "all"}],
        ConfigurationSetName="main",
    )
    found = results(account, content)
    first, second, third = account.inbox
    assert found == [{"Status": "SUCCESS", "MessageId": item.message_id} for item in (first, second, third)]
    assert [item.subject for item in account.inbox] == ["Hello A", "Hello you", "Hello you"]
    assert [item.text for item in account.inbox] == ["Dear A", "Dear you", "Dear you"]
    assert second.data == {"name": "you", "extra": 1}
    assert second.headers == {"X-All": "1", "list-unsubscribe": "<https://b>", "X-Own": "b"}
    assert first.headers == {"List-Unsubscribe": "<https://all>", "X-All": "1"}
    assert (first.tags, second.tags) == ({"campaign": "news", "who": "all"}, {"campaign": "news", "who": "b"})
    assert (third.recipients, third.entry, third.html) == (("c@example.com", "d@example.com"), 2, None)
    assert (first.sender, first.configuration_set, first.template) == ("Tank <no-reply@yokee.co.id>", "main", None)
    assert first.content is third.content
    counts = account.counts
    assert (counts.requests, counts.bulk_sends, counts.entries, counts.sends) == (1, 1, 3, 0)
    assert (counts.accepted, counts.recipients, counts.by_status) == (3, 4, {"SUCCESS": 3})
    assert counts.by_action == {"ses:SendBulkEmail": 1, "ses:SendBulkTemplatedEmail": 1}


def test_headers_of_one_entry_alone():
    """They need none that all share."""
    account = SimulatedAccount()
    results(account, body([entry(ReplacementHeaders=[{"Name": "X-A", "Value": "1"}]), entry()]))
    assert [item.headers for item in account.inbox] == [{"X-A": "1"}, {}]


def test_data_are_merged_by_key_and_objects_in_depth():
    """As real accounts do, whatever the reference says; lists are replaced."""
    account = SimulatedAccount()
    default = {"a": {"x": 1, "y": {"z": 2}}, "list": [1, 2], "name": "n"}
    own = {"a": {"y": {"w": 3}}, "list": [3], "b": 4}
    results(account, body([entry(data=own), entry(data={})], template={"TemplateData": json.dumps(default)}))
    merged = {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "list": [3], "name": "n", "b": 4}
    assert [item.data for item in account.inbox] == [merged, default]


def test_a_stored_template_with_blocks():
    """What is stored may do more than inline ones."""
    account = SimulatedAccount(templates={"welcome": {"Subject": "{{#if vip}}Dear{{else}}Hi{{/if}} {{name}}"}})
    template = {"TemplateContent": None, "TemplateName": "welcome"}
    results(account, body([entry(data={"vip": True}), entry()], template=template))
    assert [(item.subject, item.template) for item in account.inbox] == [("Dear you", "welcome"), ("Hi you", "welcome")]


def test_one_entry_that_lacks_data_is_dropped_and_the_others_are_not():
    """It is a success all the same, as with SendEmail."""
    account = SimulatedAccount()
    found = statuses(account, body([entry(data={"name": "A"}), entry()], template={"TemplateData": None}))
    assert found == ["SUCCESS", "SUCCESS"]
    assert [item.failure is None for item in account.inbox] == [True, False]
    assert [event.kind for event in account.events] == ["Rendering Failure"]


def test_the_mailbox_simulator_and_suppression_report_for_entries_too():
    """Events are those of SendEmail."""
    account = SimulatedAccount(suppressed=["gone@example.com"])
    results(account, body([entry("bounce@simulator.amazonses.com"), entry("gone@example.com"), entry()]))
    assert [(event.kind, event.reason) for event in account.events] == [
        ("Bounce", "simulator"),
        ("Bounce", "suppressed"),
    ]


# --- quotas ---


def test_strict_takes_what_the_second_has_room_for():
    """The entries before are taken, those behind are throttled, and nothing of them is charged."""
    account = SimulatedAccount(rate=3)
    found = results(account, body(people(5)))
    assert [result["Status"] for result in found] == ["SUCCESS"] * 3 + ["ACCOUNT_THROTTLED"] * 2
    assert found[-1] == {"Status": "ACCOUNT_THROTTLED", "Error": "Maximum sending rate exceeded."}
    assert statuses(account, body(people(4)), now=1.0) == ["SUCCESS"] * 3 + ["ACCOUNT_THROTTLED"]
    assert (account.counts.throttled, account.inbox.busiest()) == (3, 3)


def test_a_smaller_entry_may_pass_behind_one_that_is_too_large():
    """Each is judged by itself, in recipients."""
    account = SimulatedAccount(rate=3)
    many = [f"p{number}@example.com" for number in range(4)]
    assert statuses(account, body([entry(many), entry(many[:2]), entry(many[:2]), entry()])) == [
        "ACCOUNT_THROTTLED", "SUCCESS", "ACCOUNT_THROTTLED", "SUCCESS",
    ]  # fmt: skip


def test_debt_takes_entries_while_anything_is_left():
    """The last one may leave a debt."""
    account = SimulatedAccount(rate=2, mode="debt")
    many = [f"p{number}@example.com" for number in range(4)]
    assert statuses(account, body([entry(), entry(many), entry()])) == ["SUCCESS", "SUCCESS", "ACCOUNT_THROTTLED"]
    assert statuses(account, body([entry()]), now=1.5) == ["ACCOUNT_THROTTLED"]
    assert statuses(account, body([entry()]), now=2.0) == ["SUCCESS"]


def test_the_daily_quota_has_a_status_of_its_own():
    """The mailbox simulator is not in it."""
    account = SimulatedAccount(rate=-1, daily_quota=2)
    content = body([*people(3), entry("success@simulator.amazonses.com")])
    assert statuses(account, content) == ["SUCCESS", "SUCCESS", "ACCOUNT_DAILY_QUOTA_EXCEEDED", "SUCCESS"]
    assert (account.counts.quota_refusals, account.sent_last_24_hours(0.0)) == (1, 2)


# --- refused as a whole ---


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (body(people(51)), "BadRequestException"),
        (body([]), "BadRequestException"),
        (body([7]), "SerializationException"),
        (body(people(1), FromEmailAddress=""), "BadRequestException"),
        (body(people(1), FromEmailAddress="no address"), "BadRequestException"),
        (body(people(1), FromEmailAddress="x" * 320 + "@example.com"), "BadRequestException"),
        (body(people(1), FeedbackForwardingEmailAddress="no address"), "BadRequestException"),
        (body(people(1), DefaultContent={}), "BadRequestException"),
        (body(people(1), template={"TemplateName": "two"}), "BadRequestException"),
        (body(people(1), template={"TemplateContent": {"Subject": "{{#if a}}x{{/if}}"}}), "BadRequestException"),
        (body(people(1), template={"TemplateData": "nonsense"}), "BadRequestException"),
        (body(people(1), template={"TemplateData": "x" * 262_145}), "ValidationException"),
        (body(people(1), template={"Headers": MANY}), "ValidationException"),
        (body(people(1), template={"Attachments": [{"FileName": "a.exe"}]}), "BadRequestException"),
        (body(people(1), template={"TemplateContent": {"Subject": "x" * 1_048_576}}), "BadRequestException"),
        (body(people(1), DefaultEmailTags=[{"Name": "a b", "Value": "c"}]), "BadRequestException"),
        (body([entry(data="x" * 262_145)]), "ValidationException"),
        (body([entry(ReplacementHeaders=[{"Name": "X A", "Value": "v"}])]), "ValidationException"),
        (body(people(1), template={"TemplateContent": None, "TemplateName": "nobody"}), "NotFoundException"),
    ],
)  # fmt: skip
def test_requests_that_are_refused_as_a_whole(content, code):
    """Nothing of them is taken."""
    account = SimulatedAccount()
    assert refused(account, content)[0] == code
    assert (len(account.inbox), account.counts.bulk_sends) == (0, 1)


OF_ALL = [
    ({"suspended": True}, "AccountSuspendedException", "ACCOUNT_SUSPENDED"),
    ({"enforcement": "SHUTDOWN"}, "MessageRejected", "ACCOUNT_SUSPENDED"),
    ({"sending_enabled": False}, "SendingPausedException", "ACCOUNT_SENDING_PAUSED"),
    ({"configuration_sets": ["x"]}, "NotFoundException", "CONFIGURATION_SET_NOT_FOUND"),
    ({"paused_sets": ["main"]}, "SendingPausedException", "CONFIGURATION_SET_SENDING_PAUSED"),
    ({"identities": ["other.com"]}, "MessageRejected", "MESSAGE_REJECTED"),
    ({"mail_from_failed": ["yokee.co.id"]}, "MailFromDomainNotVerifiedException", "MAIL_FROM_DOMAIN_NOT_VERIFIED"),
    ({"templates": {"other": HELLO}}, "NotFoundException", "TEMPLATE_NOT_FOUND"),
]


@pytest.mark.parametrize(("settings", "code", "status"), OF_ALL)
def test_what_concerns_all_is_an_error_or_each_entrys_status(settings, code, status):
    """Both can be had."""
    content = body(people(2), ConfigurationSetName="main", FeedbackForwardingEmailAddress="back@yokee.co.id")
    if "templates" in settings:
        content["DefaultContent"] = {"Template": {"TemplateName": "nobody"}}
    found, text = refused(SimulatedAccount(**settings), content)
    assert found == code
    account = SimulatedAccount(**settings, bulk_refuses="entries")
    assert results(account, content) == [{"Status": status, "Error": text}] * 2
    assert (len(account.inbox), account.counts.by_status, account.counts.by_code) == (0, {status: 2}, {})


@pytest.mark.parametrize("action", ["ses:SendBulkEmail", "ses:SendBulkTemplatedEmail"])
def test_it_needs_two_permissions(action):
    """And names the one that is missing."""
    code, text = refused(SimulatedAccount(deny=[action]), body(people(1)))
    assert code == "AccessDeniedException"
    assert action in text


# --- refused one by one ---


@pytest.mark.parametrize(
    "bad",
    [
        entry("no address"),
        entry([]),
        entry([f"p{number}@example.com" for number in range(51)]),
        entry("Name " * 70 + "<a@example.com>"),
        entry(data="nonsense"),
        entry(data="[]"),
        entry(ReplacementTags=[{"Name": "a b", "Value": "c"}]),
        entry(ReplacementHeaders=[{"Name": f"X-{n}", "Value": "v"} for n in range(15)]),
    ],
)
def test_one_bad_entry_costs_no_other(bad):
    """It is an invalid parameter, in its place."""
    account = SimulatedAccount(rate=-1)
    template = {"Headers": [{"Name": "X-All", "Value": "1"}]}
    found = results(account, body([*people(1), bad, *people(1)], template=template))
    assert [result["Status"] for result in found] == ["SUCCESS", "INVALID_PARAMETER", "SUCCESS"]
    assert found[1]["Error"]
    assert "MessageId" not in found[1]
    assert len(account.inbox) == 2


def test_template_and_data_of_one_entry_share_a_limit():
    """An inline template may be a megabyte, with the data."""
    account = SimulatedAccount()
    template = {"TemplateContent": {"Subject": "s", "Text": "x" * 1_000_000}}
    assert statuses(account, body([entry(data={"a": "x" * 50_000}), entry()], template=template)) == [
        "INVALID_PARAMETER", "SUCCESS",
    ]  # fmt: skip


def test_a_bad_reply_to_refuses_every_entry():
    """And not the request."""
    for address in ("no address", "x" * 320 + "@example.com"):
        assert statuses(SimulatedAccount(), body(people(2), ReplyToAddresses=[address])) == ["INVALID_PARAMETER"] * 2
    assert statuses(SimulatedAccount(), body(people(1), ReplyToAddresses=["back@example.com"])) == ["SUCCESS"]


def test_in_the_sandbox_each_recipient_must_be_verified():
    """Who is not is rejected by himself, with SES's text."""
    account = SimulatedAccount(sandbox=True, rate=-1, identities=["yokee.co.id"])
    found = results(account, body([entry("a@yokee.co.id"), entry("b@example.com")]))
    assert [result["Status"] for result in found] == ["SUCCESS", "MESSAGE_REJECTED"]
    assert found[1]["Error"].endswith("in region US-EAST-1: b@example.com")


def test_a_virus_rejects_the_entry_that_carries_it():
    """At once, unlike in SendEmail, and it is charged."""
    account = SimulatedAccount()
    eicar = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
    content = body([entry(data={"name": eicar}), entry(data={"name": "A", "other": eicar}), entry(data={"name": None})])
    assert statuses(account, content) == ["MESSAGE_REJECTED", "SUCCESS", "SUCCESS"]
    assert account.sent_last_24_hours(0.0) == 3


# --- spelling ---


@pytest.mark.parametrize(
    ("spelling", "success", "invalid", "throttled"),
    [
        ("v2", "SUCCESS", "INVALID_PARAMETER", "ACCOUNT_THROTTLED"),
        ("prose", "SUCCESS", "INVALID_PARAMETER_VALUE", "ACCOUNT_THROTTLED"),
        ("v1", "Success", "InvalidParameterValue", "AccountThrottled"),
    ],
)
def test_statuses_in_each_spelling(spelling, success, invalid, throttled):
    """Counts keep the one of version 2."""
    account = SimulatedAccount(rate=1, bulk_spelling=spelling)
    assert statuses(account, body([entry("bad"), entry(), entry()])) == [invalid, success, throttled]
    assert account.counts.by_status == {"SUCCESS": 1, "INVALID_PARAMETER": 1, "ACCOUNT_THROTTLED": 1}


@pytest.mark.parametrize("settings", [{"bulk_spelling": "v3"}, {"bulk_refuses": "nobody"}])
def test_settings_that_do_not_exist(settings):
    """They are found at once."""
    with pytest.raises(ValueError, match="bulk_"):
        SimulatedAccount(**settings)


# --- faults ---


def test_faults_of_single_entries_come_by_script():
    """They strike in order, across requests, and are not charged."""
    faults = Faults(entries=["entry-throttled", None, "entry-transient", "entry-failed"])
    account = SimulatedAccount(daily_quota=10, faults=faults)
    content = body(people(3), DefaultEmailTags=[{"Name": "k", "Value": "v"}])
    assert statuses(account, content) == ["ACCOUNT_THROTTLED", "SUCCESS", "TRANSIENT_FAILURE"]
    assert statuses(account, content) == ["FAILED", "SUCCESS", "SUCCESS"]
    assert account.sent_last_24_hours(0.0) == 3
    assert account.counts.faults == {"entry-throttled": 1, "entry-transient": 1, "entry-failed": 1}
    assert [(record.name, record.accepted, record.entry, record.recipients) for record in account.fault_log] == [
        ("entry-throttled", False, 0, ("p0@example.com",)),
        ("entry-transient", False, 2, ("p2@example.com",)),
        ("entry-failed", False, 0, ("p0@example.com",)),
    ]


def test_faults_of_single_entries_come_by_chance():
    """A share of the entries, the same with the same seed, and whole requests are drawn for apart from them."""
    chances = {"entry-throttled": 0.1, "entry-transient": 0.05, "503": 0.5}
    runs = []
    for _ in range(2):
        account = SimulatedAccount(
            rate=-1, daily_quota=-1, faults=Faults(probability=chances, seed=3), keep_bodies=False
        )
        runs.append([statuses(account, body(people(50))) for _ in range(40)])
        assert 150 <= account.counts.by_status["ACCOUNT_THROTTLED"] <= 250
        assert 60 <= account.counts.by_status["TRANSIENT_FAILURE"] <= 140
    assert runs[0] == runs[1]
    with_entries, without = Faults(probability=chances, seed=1), Faults(probability={"503": 0.5}, seed=1)
    with_entries.draw_entry()
    assert [with_entries.draw() for _ in range(20)] == [without.draw() for _ in range(20)]
    assert repr(with_entries) == f"<Faults {dict(sorted(chances.items()))}>"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Faults(entries=["503"]).draw_entry(),
        lambda: Faults(["entry-failed"]).draw(),
        lambda: Faults(probability={"entry-throttled": 0.6, "entry-failed": 0.6}),
        lambda: Faults(probability={"nonsense": 0.1}),
    ],
)
def test_faults_that_cannot_be(make):
    """A fault of entries strikes no request, and the reverse."""
    with pytest.raises(ValueError):
        make()


def test_a_fault_is_drawn_for_bulk_requests_too():
    """For POST alone."""
    account = SimulatedAccount(faults=Faults(["503", "500"]))
    assert account.draw_fault("GET", BULK) is None
    assert account.draw_fault("POST", BULK) == "503"


@pytest.mark.parametrize(
    ("fault", "wire", "status"),
    [
        ("reset-before", "reset", None),
        ("close-before", "close", None),
        ("silent-before", "silent", None),
        ("500", "answer", 500),
        ("503", "answer", 503),
        ("503-bare", "answer", 503),
        ("throttle", "answer", 429),
    ],
)
def test_faults_that_strike_before_anything_is_taken(fault, wire, status):
    """Each entry has a record in the log, the request one in the counts."""
    account = SimulatedAccount()
    entries = [entry("a@example.com", ReplacementTags=[{"Name": "k", "Value": "1"}]), entry({}.keys()), entry([7])]
    exchange = ask(account, body(entries, DefaultEmailTags=[{"Name": "all", "Value": "x"}]), fault=fault)
    assert (exchange.wire, exchange.answer and exchange.answer.status) == (wire, status)
    assert [(record.accepted, record.entry, record.recipients, record.tags) for record in account.fault_log] == [
        (False, 0, ("a@example.com",), {"all": "x", "k": "1"}),
        (False, 1, (), {"all": "x"}),
        (False, 2, (), {}),
    ]
    assert (len(account.inbox), account.counts.bulk_sends, account.counts.faults) == (0, 1, {fault: 1})


@pytest.mark.parametrize(
    ("fault", "wire", "answer"),
    [
        ("reset-after", "reset", None),
        ("close-after", "close", None),
        ("silent", "silent", None),
        ("500-accepted", "answer", 500),
        ("503-bare-accepted", "answer", 503),
        ("garbage", "answer", 200),
        ("no-id", "answer", 200),
        ("slow", "slow", 200),
    ],
)
def test_faults_that_strike_when_it_was_taken(fault, wire, answer):
    """The log tells which entries were taken, and which had been refused anyhow."""
    account = SimulatedAccount(rate=2)
    exchange = ask(account, body(people(3)), fault=fault)
    assert (exchange.wire, exchange.answer and exchange.answer.status) == (wire, answer)
    assert [record.accepted for record in account.fault_log] == [True, True, False]
    assert (len(account.inbox), account.counts.faults) == (2, {fault: 1})


def test_a_request_that_cannot_be_read_is_logged_once():
    """Nobody knows whose it was."""
    account = SimulatedAccount()
    account.exchange(Request("POST", BULK, body=b"{"), "503")
    account.cut("reset-before", BULK)
    assert [(record.accepted, record.recipients) for record in account.fault_log] == [(False, ()), (False, ())]
    assert (account.counts.bulk_sends, account.counts.sends) == (2, 0)


def test_a_refusal_comes_before_a_fault():
    """What the account refuses by itself is the answer."""
    exchange = ask(SimulatedAccount(sending_enabled=False), body(people(1)), fault="silent")
    assert exchange.answer.error == "SendingPausedException"


def test_an_action_at_a_certain_send():
    """SendEmail and SendBulkEmail are counted together."""
    account = SimulatedAccount(bulk_refuses="entries")
    account.at_send(2, lambda: setattr(account, "sending_enabled", False))
    assert [statuses(account, body(people(1)))[0] for _ in range(3)] == ["SUCCESS", *["ACCOUNT_SENDING_PAUSED"] * 2]


def test_the_rate_of_an_inbox_with_bulk():
    """The last moment is not counted, however many came in it."""
    account = SimulatedAccount(rate=-1)
    for now in (0.0, 1.0, 2.0):
        results(account, body(people(10)), now=now)
    assert account.inbox.rate() == 10.0


# --- over HTTP ---


def client_of(ses):
    """AWS's own client, without its retries."""
    return botocore.session.Session().create_client(
        "sesv2",
        region_name="us-east-1",
        endpoint_url=ses.url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_awss_own_client_manages_templates_and_sends_many():
    """Paths and shapes are those of its model."""
    with SimulatedSES(rate=2) as ses:
        client = client_of(ses)
        client.create_email_template(TemplateName="hello", TemplateContent=HELLO)
        client.update_email_template(TemplateName="hello", TemplateContent=HELLO | {"Html": "<p>{{name}}</p>"})
        assert client.get_email_template(TemplateName="hello")["TemplateContent"]["Html"] == "<p>{{name}}</p>"
        (found,) = client.list_email_templates(PageSize=1)["TemplatesMetadata"]
        assert (found["TemplateName"], found["CreatedTimestamp"].year >= 2024) == ("hello", True)
        mail = client.test_render_email_template(TemplateName="hello", TemplateData='{"name": "A"}')["RenderedTemplate"]
        assert "Subject: Hello A\r\n" in mail
        content = body(people(3), template={"TemplateContent": None, "TemplateName": "hello"})
        assert [result["Status"] for result in client.send_bulk_email(**content)["BulkEmailEntryResults"]] == [
            "SUCCESS", "SUCCESS", "ACCOUNT_THROTTLED",
        ]  # fmt: skip
        client.delete_email_template(TemplateName="hello")
        with pytest.raises(ClientError, match="NotFoundException"):
            client.send_bulk_email(**content)
        client.close()
    assert [item.html for item in ses.inbox] == ["<p>P0</p>", "<p>P1</p>"]


def test_a_bulk_request_that_is_cut_off_is_counted_as_one():
    """Nobody knows what was in it."""
    with SimulatedSES(faults=Faults(["reset-before"])) as ses:
        client = client_of(ses)
        with pytest.raises(Exception, match=r"[Cc]onnection"):
            client.send_bulk_email(**body(people(1), template={"TemplateContent": HELLO | {"Html": "x" * 900_000}}))
        client.close()
    assert (ses.counts.bulk_sends, ses.counts.sends, ses.counts.requests) == (1, 0, 0)
